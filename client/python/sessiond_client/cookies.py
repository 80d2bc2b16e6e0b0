"""Session ids and the cookies that carry them, signed in express-session's format: `s:<sid>.<signature>`.

What a browser sends is not to be trusted: reading answers None for anything odd, and never raises for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, unquote

from .errors import InvalidRequest

Secret = str | bytes
#: What `encodeURIComponent` leaves alone besides letters, digits and `_.-~`.
_UNESCAPED = "!*'()"

#: Bytes of a cookie, and of all `Cookie` headers together, and how many cookies there may be: what browsers send at most
#: (RFC 6265bis §5.6 has 4,096 and at least 50; Chromium keeps 180 for a domain). Beyond it is no browser of a visitor.
MAX_COOKIE, MAX_HEADERS, MAX_COOKIES = 4096, 64 * 1024, 180
#: Characters of a sid that a signature vouches for; ours have 43, express-session's 32.
MAX_SID = 256

_OURS = re.compile(r"[A-Za-z0-9_-]{43}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]+")

log = logging.getLogger("sessiond_client")


def new_sid() -> str:
    """A new session id: 32 random bytes as base64url, 43 characters."""
    return base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()


def key_of(sid: str) -> bytes:
    """The SHA-256 of the sid, 32 bytes: all that the daemon ever gets to know of it."""
    # A lone surrogate, as a hostile cookie may hold, has no UTF-8: it gets a key that no real sid has.
    return hashlib.sha256(sid.encode("utf-8", "surrogatepass")).digest()


def sign(sid: str, secret: Secret | Sequence[Secret]) -> str:
    """The cookie's value for this sid, signed with the secret, or with the first of several."""
    if not sid:
        raise InvalidRequest("A sid is not empty.", code="bad_key")
    return f"s:{sid}.{_signature(sid, _secrets(secret)[0])}"


def unsign(value: str | None, secret: Secret | Sequence[Secret]) -> str | None:
    """The sid in a cookie's value, or None unless one of the secrets has signed it."""
    secrets = _secrets(secret)
    if not isinstance(value, str) or not value.startswith("s:"):
        return None
    sid, dot, signature = value[2:].rpartition(".")
    if not sid or not dot:
        return None
    given = signature.encode("utf-8", "surrogatepass")
    # All are tried, whichever matches, so that the time tells nothing about which secret is in use.
    matches = [hmac.compare_digest(given, _signature(sid, each).encode()) for each in secrets]
    return sid if any(matches) else None


def encode_cookie(value: str) -> str:
    """The value as it stands in a `Set-Cookie` header: percent-encoded as express does."""
    return quote(value, safe=_UNESCAPED)


def decode_cookie(raw: str) -> str:
    """The value from a `Cookie` header, as express reads it: unquoted, percent-decoded, as it stands if that fails."""
    raw = raw.strip()
    if len(raw) >= 2 and raw[0] == raw[-1] == '"':
        raw = raw[1:-1]
    if not _is_percent_encoded(raw):
        return raw
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError:
        return raw


class Found(NamedTuple):
    """What a request's cookies say. `stale`: the sid is good, but signed with an older secret; send it again."""

    sid: str | None
    stale: bool = False


@dataclass(frozen=True)
class SessionCookie:
    """How an app's session cookie looks, and how it is read.

    It is for this host alone, over https alone (which browsers take `http://localhost` for), out of reach of scripts, and
    does not come along with other sites' forms. What weakens that has to be said, and what browsers would refuse raises
    InvalidRequest here.
    """

    #: None: `__Host-session` where browsers accept that prefix (secure, path /, no domain), else `session`.
    name: str | None = None
    #: Signs the sid; of several the first signs, and all are accepted. None: the bare sid, which is as hard to guess.
    secret: Secret | Sequence[Secret] | None = field(default=None, repr=False)
    max_age: int | None = None  #: seconds; None: until the browser is closed
    path: str = "/"
    domain: str | None = None  #: None: this host alone, without its subdomains
    secure: bool = True
    httponly: bool = True
    samesite: str | None = "lax"  #: "lax", "strict" or "none"; None leaves it to the browser
    partitioned: bool = False

    def __post_init__(self) -> None:
        if self.name is None:
            host = self.secure and self.path == "/" and not self.domain
            object.__setattr__(self, "name", "__Host-session" if host else "session")
        name = str(self.name)
        if not _TOKEN.fullmatch(name):
            raise _bad("its name is letters, digits and -_.")
        for value in (self.path, self.domain or "x"):
            if not _ATTRIBUTE.fullmatch(value):
                raise _bad("its path and domain are plain ASCII without semicolons.")
        if self.samesite is not None and self.samesite.lower() not in ("lax", "strict", "none"):
            raise _bad('its samesite is "lax", "strict" or "none".')
        if not self.secure and (self.partitioned or (self.samesite or "").lower() == "none"):
            raise _bad("browsers refuse samesite=none and partitioned cookies that are not secure.")
        if name.lower().startswith(("__host-", "__secure-")):
            prefix = name[: name.index("-") + 1]
            if prefix not in ("__Host-", "__Secure-"):
                raise _bad("the prefix is spelt __Host- or __Secure-.")
            if not self.secure or (prefix == "__Host-" and (self.path != "/" or self.domain)):
                raise _bad(f"browsers refuse {prefix} unless it is secure, for path / and without a domain.")
        if self.max_age is not None and (type(self.max_age) is not int or self.max_age <= 0):
            raise _bad("its max_age is a whole number of seconds above 0, or None.")
        if self.secret is not None:
            _secrets(self.secret)

    def raw(self, headers: Iterable[str]) -> str | None:
        """The value as it stands in a request's `Cookie` headers, if they hold it once, unquoted and of a size that is sane."""
        parts = [part for header in headers for part in header.split(";")] if headers else []
        if len(parts) > MAX_COOKIES or sum(map(len, parts)) > MAX_HEADERS:
            return None
        values = [value.strip(" \t") for name, equals, value in map(_halves, parts) if equals and name == self.name]
        if len(values) > 1:
            # One of them was tossed in from a sibling domain or another path, and nobody knows which.
            log.warning("a request held the session cookie twice; it is taken for one without a session")
        if len(values) != 1 or len(values[0]) > MAX_COOKIE or '"' in values[0]:
            return None
        return values[0]

    def read(self, headers: Iterable[str]) -> Found:
        """The sid that a request's `Cookie` headers hold, if it could be one of ours. Never raises for what they hold."""
        raw = self.raw(headers)
        if raw is None:
            return Found(None)
        value = decode_cookie(raw)
        if self.secret is None:
            return Found(value if _OURS.fullmatch(value) else None)
        sid = unsign(value, self.secret)
        if sid is None or len(sid) > MAX_SID:
            return Found(None)
        return Found(sid, stale=unsign(value, _secrets(self.secret)[0]) is None)

    def value(self, sid: str) -> str:
        """What stands in the cookie for this sid."""
        return sid if self.secret is None else encode_cookie(sign(sid, self.secret))

    def header(self, sid: str) -> str:
        """The `Set-Cookie` header that gives a browser this sid."""
        age = "" if self.max_age is None else f"; Max-Age={self.max_age}"
        return f"{self.name}={self.value(sid)}{age}{self._attributes()}"

    def clearing(self) -> str:
        """The `Set-Cookie` header that takes it away."""
        return f"{self.name}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT{self._attributes()}"

    def _attributes(self) -> str:
        said = [f"Path={self.path}"]
        if self.domain:
            said.append(f"Domain={self.domain}")
        said += [word for word, on in (("Secure", self.secure), ("HttpOnly", self.httponly)) if on]
        if self.samesite is not None:
            said.append(f"SameSite={self.samesite.capitalize()}")
        if self.partitioned:
            said.append("Partitioned")
        return "".join(f"; {each}" for each in said)


def _bad(why: str) -> InvalidRequest:
    return InvalidRequest(f"The session cookie cannot be like that: {why}", code="bad_cookie")


def _halves(part: str) -> tuple[str, str, str]:
    name, equals, value = part.partition("=")
    return name.strip(" \t"), equals, value


def _is_percent_encoded(raw: str) -> bool:
    """Whether every `%` begins an escape; `decodeURIComponent` throws otherwise, and express keeps the raw value."""
    escapes = raw.split("%")[1:]
    return all(len(each) >= 2 and set(each[:2]) <= set("0123456789abcdefABCDEF") for each in escapes)


def _signature(sid: str, secret: bytes) -> str:
    digest = hmac.digest(secret, sid.encode("utf-8", "surrogatepass"), "sha256")
    return base64.b64encode(digest).rstrip(b"=").decode()


def _secrets(secret: Secret | Sequence[Secret]) -> list[bytes]:
    several: Sequence[Secret] = [secret] if isinstance(secret, str | bytes) else secret
    secrets = [each.encode() if isinstance(each, str) else each for each in several]
    if not secrets or not all(secrets):
        raise InvalidRequest("Signing needs a secret, and no secret may be empty.", code="bad_secret")
    return secrets
