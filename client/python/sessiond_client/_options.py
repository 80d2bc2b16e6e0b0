"""What a client is told when it is made, checked once for both."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field

from ._urls import Address, parse_urls
from .errors import InvalidRequest

_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Options:
    """Where the daemons are, and how to speak to them."""

    addresses: tuple[Address, ...]
    token: str | None = field(repr=False)
    namespace: str | None  #: the one that an admin's token is to work in; None: the token's own
    deadline: float  #: seconds
    format: str
    tls: ssl.SSLContext | None  #: made once; None when no address needs it

    @classmethod
    def of(
        cls,
        url: str | Iterable[str] | None,
        token: str | None,
        namespace: str | None,
        deadline: float,
        format: str,
        tls: ssl.SSLContext | None,
    ) -> Options:
        """Raises InvalidRequest for whatever could not work, before anything is sent."""
        token = os.environ.get("SESSIOND_TOKEN") or None if token is None else token
        # A line break in a token would let it write headers of its own.
        if token is not None and not (isinstance(token, str) and token.isascii() and token.isprintable() and token):
            raise InvalidRequest("A token is printable ASCII, without line breaks.", code="bad_token")
        if namespace is not None and not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):
            raise InvalidRequest(
                "A namespace is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter.", code="bad_namespace"
            )
        if type(deadline) not in (int, float) or not 0 < deadline < 1e6:
            raise InvalidRequest("A deadline is a number of seconds above 0.", code="bad_deadline")
        if format not in ("msgpack", "json"):
            raise InvalidRequest('format is "msgpack" or "json".', code="bad_format")
        addresses = parse_urls(url)
        if tls is None and any(address.tls for address in addresses):
            tls = ssl.create_default_context()
        return cls(addresses, token, namespace, float(deadline), format, tls)
