"""Who may speak at all, and for which namespace: what is refused before anybody looks at what a request asks.

Without tokens there is one namespace, `default`, and three walls: the daemon listens on loopback only, a page in a
browser is refused by its Origin, and a name that somebody else points at 127.0.0.1 (DNS rebinding) by its Host.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes, urlsplit

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from sessiond.errors import Refused

ANONYMOUS = "default"
"""The namespace of a request without a token."""

_ONCE = (
    hdrs.HOST,
    hdrs.CONTENT_TYPE,
    hdrs.CONTENT_ENCODING,
    hdrs.AUTHORIZATION,
    hdrs.EXPECT,
    hdrs.IF_MATCH,
    hdrs.IF_NONE_MATCH,
    "Session-User",
    "Session-Meta",
)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Guard:
    """`hosts`: the names under which the daemon may be asked for; None: any.

    `knows_callers`: whether whoever passes has shown credentials, and is past the budget for unknown ids (limits.py).
    """

    knows_callers = False

    def __init__(self, hosts: Iterable[str] | None) -> None:
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    def check(self, request: web.Request) -> str:
        """The namespace of the request, or Refused."""
        if request.version not in (HttpVersion10, HttpVersion11):
            raise Refused("bad_http_version", "This server speaks HTTP/1.1.")
        if request.version == HttpVersion10 and hdrs.TRANSFER_ENCODING in request.headers:
            raise Refused("bad_http", "HTTP/1.0 knows no Transfer-Encoding: where the body ends is anybody's guess.")
        if not all(value.isascii() for _, value in request.raw_headers):
            raise Refused("bad_header", "A header holds bytes outside ASCII.")
        for name in _ONCE:
            if len(request.headers.getall(name, ())) > 1:
                raise Refused("bad_header", "A header that may stand once stands twice.")
        self._check_host(request)
        if hdrs.ORIGIN in request.headers or request.headers.get("Sec-Fetch-Mode", "").lower() == "no-cors":
            raise Refused("browser_request", "Web pages may not speak to sessiond; only servers may.")
        _check_target(request.raw_path)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise Refused("encoding", "Bodies are sent without Content-Encoding.")
        return ANONYMOUS

    def _check_host(self, request: web.Request) -> None:
        host = request.headers.get(hdrs.HOST, "")
        if not host:
            raise Refused("bad_host", "A request names its Host.")
        named = [host]
        if not request.raw_path.startswith(("/", "*")):  # absolute-form (RFC 9112 §3.2.2)
            named.append(urlsplit(request.raw_path).netloc)
        for name in named:
            if self._hosts is not None and _without_port(name) not in self._hosts:
                raise Refused(
                    "misdirected", "This daemon does not answer for that host; see allowed_hosts in its settings."
                )


def _without_port(netloc: str) -> str:
    host = netloc.lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _check_target(target: str) -> None:
    """The rules of RFC 3986 that aiohttp is lax about, by which two targets could come to mean the same session."""
    try:
        text = unquote_to_bytes(target).decode("utf-8")
    except UnicodeError:
        text = "\0"
    # A fragment (#) never leaves a browser; here it would be cut off unseen.
    if not target.isascii() or "#" in target or _BAD_ESCAPE.search(target) or _CONTROL.search(text):
        raise Refused("bad_path", "The address is not percent-encoded UTF-8 without control characters.")
