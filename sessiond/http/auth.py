"""Who may speak at all, and for which namespace: what is refused before anybody looks at what a request asks.

Without tokens there is one namespace, `default`, and three walls: the daemon listens on loopback only, a page in a
browser is refused by its Origin, and a name that somebody else points at 127.0.0.1 (DNS rebinding) by its Host.
With tokens every request shows one, but for those that only ask whether the daemon is well. Whatever is wrong with a
token, or with what its bearer wants, the answer is the same: it tells nothing of what there is.
"""

import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes, urlsplit

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from sessiond import tokens
from sessiond.audit import Actor
from sessiond.calls import Call, DestroyAll, Get, Watch
from sessiond.errors import Refused
from sessiond.store import VERBS, Store
from sessiond.tokens import DEFAULT_NAMESPACE, NAMESPACE_RULE, Grant, Tokens

GRANT = web.RequestKey("grant", Grant)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""For supervisors and load balancers, which know no token: they tell whether the daemon is well, and nothing else."""

NAMESPACE = "Session-Namespace"

UNAUTHORIZED_TEXT = "This daemon asks for a token that is valid now: Authorization: Bearer TOKEN."
FORBIDDEN_TEXT = "The token does not allow this here."

_ONCE = tuple(
    name.lower().encode()
    for name in (
        hdrs.HOST,
        hdrs.CONTENT_TYPE,
        hdrs.CONTENT_ENCODING,
        hdrs.AUTHORIZATION,
        hdrs.EXPECT,
        hdrs.IF_MATCH,
        hdrs.IF_NONE_MATCH,
        "Session-User",
        "Session-Meta",
        NAMESPACE,
    )
)
_PLAIN_TARGET = re.compile(r"[A-Za-z0-9/~_.?=&-]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Guard:
    """`hosts`: the names under which the daemon may be asked for; None: any. `current`: the tokens that there are now;
    None: nobody is asked for one."""

    def __init__(self, store: Store, hosts: Iterable[str] | None, current: Callable[[], Tokens | None]) -> None:
        self._store = store
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._current = current

    def check(self, request: web.Request) -> Grant:
        """What the request may do, or Refused."""
        if request.version not in (HttpVersion10, HttpVersion11):
            raise Refused("bad_http_version", "This server speaks HTTP/1.1.")
        if request.version == HttpVersion10 and hdrs.TRANSFER_ENCODING in request.headers:
            raise Refused("bad_http", "HTTP/1.0 knows no Transfer-Encoding: where the body ends is anybody's guess.")
        # Where tokens are asked for, one that is not ASCII is unknown like any other.
        unread = hdrs.AUTHORIZATION.lower().encode() if self._current() is not None else b""
        if not all(value.isascii() for name, value in request.raw_headers if name.lower() != unread):
            raise Refused("bad_header", "A header holds bytes outside ASCII.")
        names = [name.lower() for name, _ in request.raw_headers]
        if len({*names}) < len(names) and any(names.count(name) > 1 for name in _ONCE):
            raise Refused("bad_header", "A header that may stand once stands twice.")
        self._check_host(request)
        if hdrs.ORIGIN in request.headers or request.headers.get("Sec-Fetch-Mode", "").lower() == "no-cors":
            raise Refused("browser_request", "Web pages may not speak to sessiond; only servers may.")
        _check_target(request.raw_path)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise Refused("encoding", "Bodies are sent without Content-Encoding.")
        return self._admit(request)

    def holds(self, grant: Grant) -> bool:
        """Whether what was granted when a stream was opened would still be granted."""
        current = self._current()
        if grant.token is None or current is None:
            return grant.token is None and current is None
        return current.holds(grant.token, self._store.clock.now()) and self._store.has(grant.namespace)

    def _admit(self, request: web.Request) -> Grant:
        current = self._current()
        if request.path in OPEN_PATHS:
            return Grant(DEFAULT_NAMESPACE, actions=frozenset())
        if current is None:
            if _named(request) not in (None, DEFAULT_NAMESPACE):
                raise Refused("forbidden", FORBIDDEN_TEXT)
            return Grant(DEFAULT_NAMESPACE)
        scheme, _, text = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        token = current.find(text.strip(" "), self._store.clock.now())
        if token is None or scheme.lower() != "bearer":
            raise Refused("unauthorized", UNAUTHORIZED_TEXT)
        wanted = tokens.grant(token, _named(request))
        if wanted is None or not self._store.has(wanted.namespace):
            raise Refused("forbidden", FORBIDDEN_TEXT)
        return wanted

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


def actor_of(request: web.Request) -> Actor:
    """Who asks, for the audit."""
    token = request[GRANT].token if GRANT in request else None
    return Actor(None if token is None else token.name, request.remote or None)


def require(grant: Grant, action: str) -> None:
    """Refused unless the action is among those granted."""
    if action not in grant.actions:
        raise Refused("forbidden", FORBIDDEN_TEXT)


def check_call(grant: Grant, call: Call | Watch) -> None:
    """As `require`, for a call of the stream."""
    require(grant, action_of(call))


def action_of(call: Call | Watch) -> str:
    """What tokens.NEEDS calls it."""
    if isinstance(call, Watch):
        return "watch"
    if type(call) is Get and call.renew is not None:
        return "get with renew"
    if type(call) is DestroyAll and call.user is None:
        return "destroy_all of everyone"
    return VERBS[type(call)]


def _named(request: web.Request) -> str | None:
    """The namespace that the request names; None: it names none."""
    name = request.headers.get(NAMESPACE)
    if name is not None and tokens.NAMESPACE.fullmatch(name) is None:
        raise Refused("bad_namespace", f"{NAMESPACE} names a namespace: {NAMESPACE_RULE}.")
    return name


def _without_port(netloc: str) -> str:
    host = netloc.lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _check_target(target: str) -> None:
    """The rules of RFC 3986 that aiohttp is lax about, by which two targets could come to mean the same session."""
    if _PLAIN_TARGET.fullmatch(target):
        return
    try:
        text = unquote_to_bytes(target).decode("utf-8")
    except UnicodeError:
        text = "\0"
    # A fragment (#) never leaves a browser; here it would be cut off unseen.
    if not target.isascii() or "#" in target or _BAD_ESCAPE.search(target) or _CONTROL.search(text):
        raise Refused("bad_path", "The address is not percent-encoded UTF-8 without control characters.")
