"""Sessions for Starlette and FastAPI. Tested with Starlette 1.10 and 0.49, FastAPI 0.165 and 0.121.

app = Starlette(routes, middleware=[Middleware(SessionMiddleware, client=client, secret_key=...)])

async def visit(request):
    request.session["views"] = request.session.get("views", 0) + 1      # as with Starlette's own middleware

A dict cannot wait for the daemon, so a request that brings a cookie has its session read before the app runs. With
`lazy=True` nothing is read until the app awaits `load_session(request)`, which is also a dependency for FastAPI.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.datastructures import MutableHeaders, Secret
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from ._async import AsyncClient
from ._session import AsyncSession
from ._types import Seconds
from .cookies import Found, SessionCookie
from .errors import InvalidRequest, SessiondError, Unavailable
from .lifecycle import Lifecycle, Paths, describe, drive_async

#: What becomes of a request that could not be served because no answer was had from the daemon.
OnUnavailable = Callable[[Request, Unavailable], Awaitable[Response]]
#: As Starlette's `Secret`, too, which `Config` gives.
SecretKey = str | bytes | Secret

#: What Starlette's own middleware has for `max_age`, and the daemon for a namespace's `ttl`: 14 days, in seconds.
MAX_AGE = 14 * 24 * 60 * 60
#: "Try Again Later", in the registry of RFC 6455's close codes.
TRY_AGAIN_LATER = 1013
#: What a session holds until it is read: json, for one, asks an empty dict nothing, and would show it as read and empty.
_UNREAD = {"": None}
#: What JSON gives back as it went.
_SCALARS = frozenset({str, int, float, bool, type(None)})
#: What begins an answer, and may still set a cookie.
_BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class Session(dict[str, Any], AsyncSession):
    """`request.session`: a dict in earnest, with what `AsyncSession` has, and with the marks of Starlette's own.

    What changed is found by comparing, inside of values too, so nothing has to be marked. What cannot be read raises
    when it is looked at: Unavailable, or InvalidRequest for a lazy session that nobody has loaded.
    """

    def __init__(
        self, client: AsyncClient, sid: str | None, *, ttl: Seconds | None = None, may_lack: bool = False
    ) -> None:
        self.accessed = False  #: whether the app has looked at it
        self._may_lack = may_lack  # whether it is an empty one that is not stored when the daemon is away
        self._is_lacking = False
        self._answered = False  # whether the headers are out, so that no cookie can be sent
        self._failure: SessiondError | None = None
        self._read: int | None = None  # the version that was read
        self._client = client
        self._life = Lifecycle(sid, ttl=ttl, empty=self._emptied, encode=_plain, decode=self._filled)
        dict.update(self, _UNREAD)

    def mark_accessed(self) -> None:
        """What Starlette calls when an app asks for `request.session`; the response depends on the cookie then."""
        self.accessed = True

    def mark_modified(self) -> None:
        """Only for those who called it before: changes are found without it."""
        self.accessed = True

    def clear(self) -> None:
        """Empties the session and makes it nobody's, which ends it: a logout, as with Starlette's own."""
        self._loaded().user = None
        dict.clear(self)
        if self._is_lacking:  # one that could not be read can still be ended, or else that is an error
            self._life.end()
            self._is_lacking = False

    async def load(self) -> None:
        """Reads the session, and renews it; what was changed here is lost. Raises Unavailable."""
        self._failure, self._is_lacking = None, False
        try:
            await super().load()
            self._read = self._life.version
        except SessiondError as error:
            if not (self._may_lack and isinstance(error, Unavailable)):
                self._failure = error
                raise
            self._emptied()
            self._life.loaded = self._is_lacking = True

    async def save(self) -> None:
        """Stores what has changed now, for handlers that go on for long: see `AsyncSession`."""
        if self.modified and not self._life.exists:
            self._needs_a_cookie()
        await super().save()

    async def destroy(self) -> None:
        """Ends the session and empties the dict; the response takes the cookie away."""
        self.accessed = True
        await super().destroy()

    async def rotate(self, *, grace: Seconds = 0) -> None:
        """Moves the session to a new sid, which the response takes to the browser."""
        self._needs_a_cookie()
        await super().rotate(grace=grace)

    def __repr__(self) -> str:
        """Shows names only: neither the sid nor a value belongs in a log."""
        life = self._life
        names = ", ".join(map(repr, dict.keys(self))) if life.loaded else "not loaded"
        return f"<Session {'exists' if life.exists else 'new'}: {names}>"

    def _loaded(self) -> Lifecycle:
        self.accessed = True
        if not self._life.loaded:
            raise self._failure or InvalidRequest("The session is not loaded: await load_session(request) first.")
        return self._life

    def _needs_a_cookie(self) -> None:
        if self._answered:
            raise InvalidRequest("The answer has begun, so its cookie cannot be sent any more: do this before.")

    def _emptied(self) -> Session:
        dict.clear(self)
        return self

    def _filled(self, data: dict[str, Any]) -> Session:
        dict.update(self, data)
        return self


def _looking(method: Callable[..., Any]) -> Callable[..., Any]:
    """A dict's method that looks whether the session is there first."""

    @functools.wraps(method)
    def looking(session: Session, *args: Any, **named: Any) -> Any:
        session._loaded()
        return method(session, *args, **named)

    return looking


# Every way into a dict that there is: Starlette before 1.0 does not tell when an app asks for `request.session`.
for _name in (
    *("__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__", "__len__", "__ne__", "__or__"),
    *("__reversed__", "__ror__", "__setitem__", "copy", "get", "items", "keys", "pop", "popitem", "setdefault"),
    *("update", "values"),
):
    setattr(Session, _name, _looking(getattr(dict, _name)))


async def load_session(connection: HTTPConnection) -> Session:
    """The session of this request or WebSocket; the first call reads and renews it, if that is not done already.

    In FastAPI: `session: Annotated[Session, Depends(load_session)]`, in `def` handlers too. Raises Unavailable when no
    answer was had; InvalidRequest where the middleware does not run.
    """
    session = connection.scope.get("session")
    if not isinstance(session, Session):
        raise InvalidRequest("This request has no session: add SessionMiddleware to the app, or see its `exclude`.")
    if not session._life.loaded:
        await session.load()
    session.accessed = True
    return session


class SessionMiddleware:
    """Gives every request and every WebSocket a session, and saves what the app has changed.

    What differs from Starlette's own, to be safe by default: `https_only` is True, the cookie is `__Host-session` where
    browsers accept that, and a response with a status of 500 or above saves nothing. A `max_age` of 0 or less raises
    InvalidRequest.

    Args:
        secret_key: signs the cookie; of several the first signs. None: the bare sid, which is as hard to guess.
        session_cookie: its name; None: `__Host-session`, or `session` with a domain, a path, or without https.
        max_age: seconds the cookie lives; like Starlette's own, counted from the last change. None: until the browser
            is closed.
        path, same_site, https_only, domain, partitioned: the cookie's attributes.
        client: the app's, which also closes it.
        ttl: seconds a session lives without being used; None: `max_age` if that is set, else the namespace's.
        rolling: whether each response to a request that used its session sends the cookie again, so that `max_age` is
            counted from the last use.
        user: tells from the data whose session it is; without it, what the app puts into `session.user`.
        meta: whether new sessions and logins note the browser's name and address, for "my devices".
        lazy: whether nothing is read until the app awaits `load_session`.
        exclude: paths without any session, such as `/static/*`, as the app's routes have them.
        optional: paths that go on with an empty session, which is not stored, while the daemon is away.
        on_unavailable: answers requests that could not be served while it is away; without it they get a plain 503.
    """

    def __init__(
        self,
        app: ASGIApp,
        secret_key: SecretKey | Sequence[SecretKey] | None = None,
        session_cookie: str | None = None,
        max_age: int | None = MAX_AGE,
        path: str = "/",
        same_site: str = "lax",
        https_only: bool = True,
        domain: str | None = None,
        partitioned: bool = False,
        *,
        client: AsyncClient,
        ttl: Seconds | None = None,
        rolling: bool = False,
        user: Callable[[Mapping[str, Any]], str | None] | None = None,
        meta: bool = True,
        lazy: bool = False,
        exclude: Sequence[str] = (),
        optional: Sequence[str] = (),
        on_unavailable: OnUnavailable | None = None,
    ) -> None:
        self.app = app
        self.client = client
        self.cookie = SessionCookie(
            name=session_cookie,
            secret=_secrets(secret_key),
            max_age=max_age,
            path=path,
            domain=domain,
            secure=https_only,
            samesite=same_site,
            partitioned=partitioned,
        )
        # A max_age that nobody chose is not to overrule what the operator has chosen for the namespace.
        self.ttl = max_age if ttl is None and max_age != MAX_AGE else ttl
        self.rolling = rolling
        self.user = user
        self.meta = meta
        self.lazy = lazy
        self.excluded, self.optional = Paths(exclude), Paths(optional)
        self.on_unavailable = on_unavailable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _route_path(scope) if scope["type"] in ("http", "websocket") else None
        if path is None or path in self.excluded:
            await self.app(scope, receive, send)
            return
        found = self.cookie.read(_headers(scope, b"cookie"))
        session = Session(self.client, found.sid, ttl=self.ttl, may_lack=path in self.optional)
        scope["session"] = session
        visit = _Visit(self, scope, send, session, found)
        if not self.lazy:
            with contextlib.suppress(SessiondError):  # it is raised when the app looks; not all requests do
                await session.load()
            session.accessed = False  # what was looked at to load it, the app has not looked at
        try:
            await self.app(scope, receive, visit.send)
        except WebSocketDisconnect:  # the way in which a handler learns that its browser is gone
            await visit.end()
            raise
        except Exception as error:
            failure = visit.failure or error
            if session._answered or not isinstance(failure, Unavailable):
                raise
            await self._answer(scope, receive, visit, send, failure)
        else:
            await visit.end()

    async def _answer(self, scope: Scope, receive: Receive, visit: _Visit, send: Send, error: Unavailable) -> None:
        """Tells whoever asked that the sessions are away, and nothing about his own."""
        response: Response = PlainTextResponse(
            "The sessions are away for a moment; try again.\n", 503, {"Retry-After": "1", "Cache-Control": "no-store"}
        )
        if scope["type"] == "http" and self.on_unavailable is not None:
            response = await self.on_unavailable(Request(scope, receive), error)
        elif scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "try again later"})
            return
        visit.tell(response.headers)
        await response(scope, receive, send)


class _Visit:
    """One request or WebSocket: what is saved when, and what its answer says."""

    def __init__(self, rules: SessionMiddleware, scope: Scope, send: Send, session: Session, found: Found) -> None:
        self.failure: Unavailable | None = None  # of the save, in whichever exception it comes back from the app
        self._rules = rules
        self._scope = scope
        self._send = send
        self._session = session
        self._found = found
        self._saves = True
        self._streams = False

    async def send(self, message: Message) -> None:
        """Passes on what the app sends, once that which it tells the browser about the session is true."""
        kind = message["type"]
        if kind in _BEGINNINGS:
            try:
                await self._begin(message)
            except Unavailable as error:
                self.failure = error
                raise
            self._session._answered = True
        elif kind == "websocket.close" or (kind == "http.response.body" and self._ends_stream(message)):
            await self.end()
        await self._send(message)

    async def end(self) -> None:
        """Saves what was changed after the answer had begun: by a stream, a WebSocket, a background task."""
        session, life = self._session, self._session._life
        if not (self._saves and session.accessed and life.loaded) or session._is_lacking or life.lost:
            return
        await self._save(moves=False)

    async def _begin(self, message: Message) -> None:
        """Saves the session and dresses the answer."""
        session, life, rules = self._session, self._session._life, self._rules
        self._saves = message.get("status", 200) < 500
        if not (session.accessed and life.loaded):
            return
        message.setdefault("headers", [])
        headers = MutableHeaders(scope=message)
        _vary(headers)
        if session._is_lacking:
            return
        if self._saves:
            await self._save(moves=True)
        renews = rules.cookie.max_age is not None and life.version != session._read
        # Also with an error, which may have come half-way: a session that has moved is not found by its old cookie.
        self.tell(headers, again=self._saves and (rules.rolling or renews or self._found.stale))

    def tell(self, headers: MutableHeaders, *, again: bool = False) -> None:
        """Gives the browser the cookie, or takes it away, or neither."""
        life, cookie = self._session._life, self._rules.cookie
        fate = life.cookie(rolling=again)
        if fate == "send" and life.sid is not None:
            _set_cookie(headers, cookie.header(life.sid))
        elif fate == "clear":
            _set_cookie(headers, cookie.clearing())

    async def _save(self, *, moves: bool) -> None:
        life, rules, client = self._session._life, self._rules, self._scope.get("client")
        agent = next(iter(_headers(self._scope, b"user-agent")), None)
        told = describe(agent, client[0] if client else None) if rules.meta else None
        owner = life.user if rules.user is None else rules.user(life.data)
        await drive_async(rules.client, life.finish(user=owner, meta=told, moves=moves))

    def _ends_stream(self, message: Message) -> bool:
        more: bool = message.get("more_body", False)
        self._streams = self._streams or more
        return self._streams and not more


def _plain(value: Any) -> Any:
    """The value as Starlette's own middleware gives it back: what `json.dumps` makes of it."""
    if type(value) in _SCALARS:
        return value
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return value  # stored if the client can; else it says which entry is at fault


def _secrets(key: SecretKey | Sequence[SecretKey] | None) -> list[str | bytes] | None:
    if key is None:
        return None
    several = [key] if isinstance(key, str | bytes | Secret) else key
    return [str(each) if isinstance(each, Secret) else each for each in several]


def _route_path(scope: Scope) -> str:
    """The path as the app's routes have it, without the prefix under which a proxy or another app offers them."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path.startswith(root + "/") else path


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("utf-8", "replace") for each, value in scope["headers"] if each == name]


def _vary(headers: MutableHeaders) -> None:
    """What was answered depends on the cookie: caches have to know."""
    said = {word.strip().lower() for line in headers.getlist("Vary") for word in line.split(",")}
    if not said & {"cookie", "*"}:
        headers.append("Vary", "Cookie")


def _set_cookie(headers: MutableHeaders, header: str) -> None:
    headers.append("Set-Cookie", header)
    # Whoever keeps this response would hand the session to others.
    headers.setdefault("Cache-Control", "no-store")
