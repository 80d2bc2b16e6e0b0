"""Sessions for Litestar, and a `Store` for what else its apps keep. Tested with Litestar 2.18 and 2.25.

app = Litestar([visit], middleware=[SessiondSessionConfig(client).middleware], on_shutdown=[client.close])

@get("/")
async def visit(request: Request) -> str:
    request.session["views"] = request.session.get("views", 0) + 1
    return f"Views: {request.session['views']}"

Litestar hands its session out without a chance to wait for it. So a request that brings a cookie reads its session at the
start, whether anybody looks at it or not; with `lazy=True` it is read when the app awaits `get_session(request)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, ImproperlyConfiguredException
from litestar.middleware import DefineMiddleware
from litestar.middleware.session import SessionMiddleware
from litestar.middleware.session.base import ONE_DAY_IN_SECONDS, BaseBackendConfig, BaseSessionBackend
from litestar.serialization import decode_json, encode_json
from litestar.types import Empty, Message, Receive, Scope, Scopes, ScopeSession, Send
from litestar.utils import get_serializer_from_scope

from . import _codec
from ._async import AsyncClient
from ._litestar_store import SessiondStore
from ._session import AsyncSession
from ._types import Seconds
from .cookies import Found, Secret, SessionCookie
from .errors import InvalidRequest, Unavailable
from .lifecycle import Lifecycle, Paths, describe, drive_async

__all__ = [
    "ConnectionSession",
    "SessiondSessionBackend",
    "SessiondSessionConfig",
    "SessiondStore",
    "SessionsAway",
    "get_session",
    "regenerate",
]

Connection = ASGIConnection[Any, Any, Any, Any]

_SESSION = "sessiond_client session"  # in a connection's scope
_SIMPLE = frozenset({str, int, float, bool, type(None)})
_CLOSED_BY_ERROR = 4500  # what Litestar closes a WebSocket with whose handler has failed


class SessionsAway(HTTPException, Unavailable):
    """`Unavailable` as Litestar answers it: 503, unless the app has a handler for either."""

    status_code = 503

    def __init__(self, cause: Unavailable) -> None:
        text = "The sessions are away for a moment; try again."
        super().__init__(text, detail=text, headers={"Retry-After": "1", "Cache-Control": "no-store"})
        self.outcome_unknown = cause.outcome_unknown


class ConnectionSession(AsyncSession):
    """The session of one connection: see `AsyncSession`. Its entries are those of `request.session`."""

    def __init__(self, client: AsyncClient, found: Found, life: Lifecycle, connection: Connection) -> None:
        super().__init__(client, found.sid, ttl=None, renew=True)
        self._life = life
        self._found = found
        self._connection = connection
        self._may_lack = self._is_lacking = False  # whether the app goes on without a session, and whether it does
        self._is_looked_at = False
        self._is_left = False  # the answer was an error, or the session is lost: nothing is to be saved any more

    @property
    def _is_used(self) -> bool:
        # Middleware that hands a copy of its scope on hides who looks at the session, but not what has changed.
        return self._is_looked_at or self.modified

    async def load(self) -> None:
        """Reads the session: see `Session.load`."""
        try:
            await super().load()
        except Unavailable as error:
            if not self._may_lack:
                raise SessionsAway(error) from error
            self._life.loaded = self._is_lacking = True
        self._show()

    async def save(self) -> None:
        """Stores what has changed: see `Session.save`. In a WebSocket no session can begin: there is no cookie to send."""
        if self._life.exists or self._connection.scope["type"] == ScopeType.HTTP:
            await super().save()
            self._show()

    async def destroy(self) -> None:
        """Ends the session and empties the dict: see `Session.destroy`."""
        await super().destroy()
        self._show()

    def _loaded(self) -> Lifecycle:
        if not self._life.loaded:
            raise InvalidRequest("The session has not been read: await get_session(request) first.")
        return self._life

    def _show(self) -> None:
        """Makes `request.session` and `request.get_session_id()` those of this session."""
        life = self._life
        self._connection.scope["session"] = life.data
        self._connection._connection_state.session_id = life.sid if life.exists and life.sid else Empty

    def _take(self, given: Any) -> None:
        """Takes over what the app has put in place of the session, with `set_session` or `clear_session`."""
        life = self._life
        if given is self or given is life.data:
            return
        if given is not Empty:
            if not life.loaded:
                life.end()  # nobody has asked for the one that is replaced
            life.data = _entries(given, self._connection.scope)
        elif life.loaded and not life.exists and not self._is_lacking:
            life.forget()  # its cookie, if there was one, stays: another response may just have replaced it
        else:
            life.end()
            self._is_lacking = False  # one that could not be read can still be ended, or else that is an error
        self._show()


async def get_session(connection: Connection) -> ConnectionSession:
    """The session of this request or WebSocket, with all that `request.session` cannot do: its `user`, its `sid`, `rotate`,
    `destroy`, and `save` in the midst.

    With `lazy=True` this is what reads the session; `request.session` has it afterwards. Raises `SessionsAway` when no
    answer was had; InvalidRequest where the middleware does not run.
    """
    session = _session_of(connection)
    session._is_looked_at = True
    if not session._life.loaded and cast("Any", connection.scope["session"]) is session:
        await session.load()
    return session


def regenerate(connection: Connection) -> None:
    """Gives the session a new id when the request ends, as it should have when somebody logs in. The old one is dead then."""
    session = _session_of(connection)
    session._is_looked_at = True
    session._life.move()


class SessiondSessionBackend(BaseSessionBackend["SessiondSessionConfig"]):
    """What Litestar asks of a backend: the session at the start of a request, and what becomes of it at its end."""

    def begin(self, connection: Connection) -> ConnectionSession:
        """The session that the connection's cookie names, which is not read yet."""
        config, scope = self.config, connection.scope
        # Litestar's test client brings cookies without a header.
        said = connection.headers.getall("cookie", []) or [f"{name}={v}" for name, v in connection.cookies.items()]
        found = config.cookie.read(said)
        life = Lifecycle(
            found.sid,
            ttl=config.max_age if config.ttl is None else config.ttl,
            renew=config.renew_on_access,
            encode=lambda value: _plain(value, scope),
        )
        session = ConnectionSession(config.client, found, life, connection)
        session._may_lack = scope["path"] in config.may_lack
        cast("dict[str, Any]", scope)[_SESSION] = session
        return session

    def get_session_id(self, connection: Connection) -> str | None:
        """The sid of a session that exists; a new one gets its own only when it is stored."""
        session = _find(connection)
        return session.sid if session is not None and session._life.exists else None

    async def load_from_connection(self, connection: Connection) -> dict[str, Any]:
        """The data of the session that the connection's cookie names; none without one."""
        session = self.begin(connection)
        await session.load()
        return cast("dict[str, Any]", session._life.data)

    async def store_in_message(self, scope_session: ScopeSession, message: Message, connection: Connection) -> None:
        """Saves the session and dresses the response that begins with this message."""
        session = _find(connection)
        if session is None:  # Litestar's test client stores a session without a request
            await self.load_from_connection(connection)
            session = _session_of(connection)
            session._take(scope_session)
        elif not session._is_used:
            return
        headers = MutableScopeHeaders.from_message(message)
        _vary(headers)
        session._is_left = session._is_lacking or cast("Any", message)["status"] >= 500
        if session._is_lacking:
            return
        saves = not session._is_left
        if saves:
            await self._finish(session, moves=True)
        cookie, life = self.config.cookie, session._life
        # Also with an error, which may have come half-way: a session that has moved is not found by its old cookie.
        fate = life.cookie(rolling=saves and (self.config.rolling or session._found.stale))
        if fate == "send" and life.sid is not None:
            _set_cookie(headers, cookie.header(life.sid))
        elif fate == "clear":
            _set_cookie(headers, cookie.clearing())

    async def store_late(self, connection: Connection) -> None:
        """Saves what has changed since the response began, or within a WebSocket; a session cannot begin or move there."""
        session = _session_of(connection)
        if session._is_lacking or session._is_left or not session._is_used:
            return
        if session._life.loaded:
            await self._finish(session, moves=False)

    async def _finish(self, session: ConnectionSession, *, moves: bool) -> None:
        life, connection = session._life, session._connection
        told = None
        if self.config.meta:
            told = describe(connection.headers.get("user-agent"), connection.client.host if connection.client else None)
        owner = life.user if self.config.user is None or not life.loaded else self.config.user(life.data)
        try:
            await drive_async(self.config.client, life.finish(user=owner, meta=told, moves=moves))
        except Unavailable as error:
            raise SessionsAway(error) from error
        session._is_left = life.lost
        if life.loaded:
            session._show()


@dataclass
class SessiondSessionConfig(BaseBackendConfig["SessiondSessionBackend"]):
    """Sessions for an app: `middleware=[SessiondSessionConfig(client).middleware]`, or for its `SessionAuth`.

    The fields that Litestar's own configurations have mean the same here, but for the defaults of `key` and `secure`.
    """

    _backend_class = SessiondSessionBackend

    client: AsyncClient  #: the app's, which also closes it
    key: str = ""  #: the cookie's name; without one that of `SessionCookie`: `__Host-session` if that can be
    #: Seconds that the cookie stays in the browser, and that a session lives without being used; None: until the browser is
    #: closed, and as long as the namespace says.
    max_age: int | None = ONE_DAY_IN_SECONDS * 14  # type: ignore[assignment]
    ttl: Seconds | None = None  #: seconds a session lives without being used; None: `max_age`
    renew_on_access: bool = True  #: whether a request that reads its session also renews it
    rolling: bool = False  #: whether each response to a request that used its session sends the cookie again
    scopes: Scopes = field(default_factory=lambda: {ScopeType.HTTP, ScopeType.WEBSOCKET})
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    httponly: bool = True
    samesite: Literal["lax", "strict", "none"] = "lax"
    #: Signs the cookie; of several the first signs, and all are accepted.
    secret: Secret | Sequence[Secret] | None = field(default=None, repr=False)
    exclude: str | list[str] | None = None  #: regular expressions for paths without any session
    exclude_opt_key: str = "skip_session"  #: `@get("/", skip_session=True)`: a handler without any session
    lazy: bool = False  #: whether the session is read only when the app awaits `get_session`
    #: Tells from the data whose session it is; without it, what the app puts into `(await get_session(request)).user`.
    user: Callable[[Mapping[str, Any]], str | None] | None = None
    meta: bool = True  #: whether new sessions and logins note the browser's name and address, for "my devices"
    #: Paths that go on with an empty session, which is not stored, while the daemon is away; `/static/*` is all below.
    optional: Sequence[str] = ()

    def __post_init__(self) -> None:
        try:
            self.cookie = SessionCookie(
                name=self.key or None,
                secret=self.secret,
                max_age=self.max_age,
                path=self.path,
                domain=self.domain,
                secure=self.secure,
                httponly=self.httponly,
                samesite=self.samesite,
            )
            Lifecycle(None, ttl=self.ttl)  # which says what is wrong with it
            self.may_lack = Paths(self.optional)
        except InvalidRequest as error:
            raise ImproperlyConfiguredException(str(error)) from error
        self.key = str(self.cookie.name)

    @property
    def middleware(self) -> DefineMiddleware:
        """What belongs into a layer's `middleware`."""
        return DefineMiddleware(_Middleware, backend=self._backend_class(config=self))


class _Middleware(SessionMiddleware[SessiondSessionBackend]):
    """Litestar's, but for WebSockets, for what fails at the end, and for whether anybody has looked at the session."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watched = _Watched(scope)
        connection: Connection = ASGIConnection(cast("Scope", watched), receive, send)
        session = self.backend.begin(connection)
        if self.backend.config.lazy:
            watched["session"] = session  # says what to await when it is looked at
        else:
            await session.load()
        session._is_looked_at = False
        failure: Exception | None = None

        async def sending(message: Message) -> None:
            nonlocal failure
            if failure is not None:
                return
            if message["type"] == "http.response.start":
                try:
                    await self.backend.store_in_message(session._life.data, message, connection)
                except Exception as error:
                    failure = error  # and this response, which promises what was not done, is held back
                    return
            elif message["type"] == "websocket.close" and cast("Any", message).get("code") == _CLOSED_BY_ERROR:
                session._is_left = True
            await send(message)

        try:
            await self.app(cast("Scope", watched), receive, sending)
        finally:
            dict.update(cast("dict[str, Any]", scope), watched)  # for the middleware around this one
        if failure is not None:
            # Nothing of the response is out, so that the app's exception handlers may still answer.
            connection._connection_state.response_started = False
            raise failure
        await self.backend.store_late(connection)


class _Watched(dict[str, Any]):
    """A connection's scope, by which Litestar hands out its session as a plain dict: notes whether somebody looks at it,
    and passes on what the app puts in its place."""

    def __getitem__(self, name: str) -> Any:
        self._looks_at(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._looks_at(name)
        return super().get(name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if (session := self._looks_at(name)) is not None:
            session._take(value)

    def _looks_at(self, name: str) -> ConnectionSession | None:
        session: ConnectionSession | None = super().get(_SESSION) if name == "session" else None
        if session is not None:
            session._is_looked_at = True
        return session


def _find(connection: Connection) -> ConnectionSession | None:
    return cast("dict[str, Any]", connection.scope).get(_SESSION)


def _session_of(connection: Connection) -> ConnectionSession:
    session = _find(connection)
    if session is None:
        raise InvalidRequest(
            "This connection has no session: add SessiondSessionConfig(...).middleware to the app, or see its `exclude`."
        )
    return session


def _entries(given: Any, scope: Scope) -> Any:
    """What `set_session` was given, a mapping or a model, as a mapping."""
    entries = given if isinstance(given, Mapping) else decode_json(encode_json(given, get_serializer_from_scope(scope)))
    if not isinstance(entries, Mapping):
        raise InvalidRequest("A session is a mapping, or a model that becomes one.", code="bad_data")
    return entries


def _plain(value: Any, scope: Scope) -> Any:
    """A value as it is stored: what is plain already as it stands, anything else as the app's serializer writes it."""
    if type(value) in _SIMPLE:
        return value
    try:
        _codec.encode_map({"": value}, "msgpack")
    except InvalidRequest:
        return decode_json(encode_json(value, get_serializer_from_scope(scope)))
    return value


def _vary(headers: MutableScopeHeaders) -> None:
    """What was answered depends on the cookie: caches have to know."""
    lines = headers.getall("vary", [""])  # Litestar 2.18 takes an empty default for none
    said = {word.strip().lower() for line in lines for word in line.split(",")}
    if not said & {"cookie", "*"}:
        headers.add("vary", "Cookie")


def _set_cookie(headers: MutableScopeHeaders, header: str) -> None:
    headers.add("set-cookie", header)
    # Whoever keeps this response would hand the session to others.
    headers.setdefault("cache-control", "no-store")
