"""Where daemons are: addresses from URLs. What is accepted is listed in `parse_urls`; everything else is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import InvalidRequest

DEFAULT_URL = "http://127.0.0.1:7377"
DEFAULT_PORT = 7377


@dataclass(frozen=True, slots=True)
class Address:
    """Where one daemon listens: at host and port, or at the unix socket `path`."""

    url: str  #: as shown in errors; never holds a secret
    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        if self.path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_urls(urls: str | Iterable[str] | None) -> tuple[Address, ...]:
    """The addresses named by `http://host:port`, `https://host:port` or `unix:///path`, in the order given.

    Several stand in a list or, separated by commas, in one string. Without a port it is 7377.
    None means the environment's `SESSIOND_URL`, and without that `http://127.0.0.1:7377`.
    """
    if urls is None:
        urls = os.environ.get("SESSIOND_URL") or DEFAULT_URL
    each = urls.split(",") if isinstance(urls, str) else list(urls)
    addresses = tuple(_parse(url.strip() if isinstance(url, str) else url) for url in each)
    if not addresses:
        raise _wrong("There has to be at least one address")
    return addresses


def _parse(url: str) -> Address:
    if not isinstance(url, str) or not url.isprintable():
        raise _wrong("An address is a string without control characters")
    if url.startswith("unix://"):
        path = url.removeprefix("unix://")
        if not path.startswith("/") or path.endswith("/"):
            raise _wrong("A unix address names the socket by its absolute path")
        return Address(url, path=path)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        raise _wrong("The host or the port of an address cannot be read") from None
    # The address is not repeated in these sentences: what stands before an @ is often a password.
    if "@" in parts.netloc:
        raise _wrong("An address holds no user, password or token; pass token=… instead")
    if parts.scheme not in ("http", "https"):
        raise _wrong("An address begins with http://, https:// or unix://")
    if not _is_host(host) or " " in url or not 0 < port < 65536:
        raise _wrong("An address has an ASCII host name or IP address, and a port from 1 to 65535")
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise _wrong("An address ends with the port: no path, no query")
    return Address(url.rstrip("/"), host=host, port=port, tls=parts.scheme == "https")


def _is_host(host: str) -> bool:
    """ASCII, with labels of 1 to 63 characters: what resolvers take without raising something of their own."""
    try:
        return bool(host) and host.isascii() and bool(host.encode("idna"))
    except UnicodeError:
        return False


def _wrong(why: str) -> InvalidRequest:
    return InvalidRequest(f"{why}: write it like {DEFAULT_URL}, https://host:7377 or unix:///path.", code="bad_url")
