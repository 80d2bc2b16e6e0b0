"""A storage for aiohttp-session, in place of its `RedisStorage`. Tested with aiohttp-session 2.12 and aiohttp 3.14.

setup(app, SessiondStorage(client, max_age=3600))

async def visit(request):
    session = await get_session(request)      # aiohttp_session's own, as before
    session["views"] = session.get("views", 0) + 1

What that library decides stays so: what a streaming response or a WebSocket changes is not saved, and a cookie with a
max_age is sent again only with a change. `sessiond_client.aiohttp` has neither limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp_session import SESSION_KEY, AbstractStorage, Session, SessionData, get_session
from aiohttp_session import setup as _setup

from ._async import AsyncClient
from .aiohttp import _set_cookie, _vary
from .cookies import SessionCookie
from .errors import InvalidRequest, Unavailable
from .lifecycle import Lifecycle, Paths, describe, drive_async, through_text


class SessionsAway(web.HTTPServiceUnavailable, Unavailable):
    """`Unavailable` as aiohttp answers it: 503, unless the app does something about it."""

    def __init__(self, cause: Unavailable) -> None:
        super().__init__(
            text="The sessions are away for a moment; try again.\n",
            headers={hdrs.RETRY_AFTER: "1", hdrs.CACHE_CONTROL: "no-store"},
        )
        self.outcome_unknown = cause.outcome_unknown


class _Session(Session):
    """The library's session, which also notices what has changed inside of its values."""

    def __init__(self, life: Lifecycle, max_age: int | None, *, is_lacking: bool = False) -> None:
        self._life = life
        self._is_lacking = is_lacking  # the daemon is away, and the app goes on without a session
        self._is_over = False  # what was there is to end, whatever there is now
        self._is_said_to_have_changed = False
        data: SessionData | None = None
        if life.exists and life.created_at is not None:
            data = {"created": life.created_at // 1000, "session": life.data}
        # Its max_age comes afterwards: the library would judge the session's age by its first visit and by another clock.
        super().__init__(life.sid if life.exists else None, data=data, new=not life.exists)
        self.max_age = self._max_age_at_first = max_age

    @property
    def _changed(self) -> bool:  # what the library's middleware looks at before it saves
        if self._is_lacking:
            return False
        self._life.data = self._mapping
        return self._is_said_to_have_changed or self._life.changes() is not None

    @_changed.setter
    def _changed(self, value: bool) -> None:
        self._is_said_to_have_changed = value

    def invalidate(self) -> None:
        super().invalidate()
        self._is_over = True


class SessiondStorage(AbstractStorage):
    """Keeps aiohttp-session's sessions at the daemon: plain values under the app's own names.

    It takes what `RedisStorage` takes but for `key_factory`: ids are made here, and none is taken over from a cookie.
    A session that is changed again is patched and keeps its id, unless its user changes; `new_session` ends the old one.

    Args:
        client: the app's, which also closes it.
        cookie_name, domain, path, secure, httponly, samesite: how the cookie looks.
        max_age: seconds that a session lives without being used, and its cookie after a change; None: the namespace's
            ttl, and until the browser is closed. `session.max_age` overrides it for one session.
        encoder, decoder: the app's JSON serializer, if it knows more types than `json` does.
        user: tells from the data whose session it is.
        meta: whether new sessions and logins note the browser's name and address, for "my devices".
        optional: paths that go on with an empty session, which is not stored, while the daemon is away.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        cookie_name: str = "AIOHTTP_SESSION",
        domain: str | None = None,
        max_age: int | None = None,
        path: str = "/",
        secure: bool | None = None,
        httponly: bool = True,
        samesite: str | None = "Lax",
        encoder: Callable[[object], str] = json.dumps,
        decoder: Callable[[str], Any] = json.loads,
        user: Callable[[Mapping[str, Any]], str | None] | None = None,
        meta: bool = True,
        optional: Sequence[str] = (),
    ) -> None:
        super().__init__(
            cookie_name=cookie_name,
            domain=domain,
            max_age=max_age,
            path=path,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            encoder=encoder,
            decoder=decoder,
        )
        self._client = client
        self._cookie = SessionCookie(
            name=cookie_name,
            max_age=max_age,
            domain=domain,
            path=path,
            secure=bool(secure),
            httponly=httponly,
            samesite=samesite,
        )
        self._encode, self._decode = through_text(encoder, decoder)
        self._user = user
        self._meta = meta
        self._may_lack = Paths(optional)

    async def load_session(self, request: web.Request) -> Session:
        """The session that the request's cookie names, renewed, or a new one. Raises `SessionsAway`."""
        life = self._life(self.load_cookie(request))
        try:
            await drive_async(self._client, life.load())
        except Unavailable as error:
            if request.path not in self._may_lack:
                raise SessionsAway(error) from error
            return _Session(life, self.max_age, is_lacking=True)
        return _Session(life, self.max_age)

    async def new_session(self) -> Session:
        """A session for which another id is made when the response is; the one that the cookie names ends then."""
        session = _Session(self._life(None), self.max_age)
        session.invalidate()
        return session

    async def save_session(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Saves what has changed, unless the response is a 5xx, and gives or takes the cookie. Raises `SessionsAway`."""
        if not isinstance(session, _Session):
            raise InvalidRequest("A session comes from get_session or new_session.")
        if response.status >= 500:
            return
        life = session._life
        if session._is_over:
            if not life.loaded:
                life = session._life = self._life(self.load_cookie(request))
            life.end()
        life.data = session._mapping
        if session.max_age != session._max_age_at_first or not life.exists:
            life.ttl = session.max_age
        told = describe(request.headers.get(hdrs.USER_AGENT), request.remote) if self._meta else None
        owner = life.user if self._user is None else self._user(life.data)
        try:
            await drive_async(self._client, life.finish(user=owner, meta=told))
        except Unavailable as error:
            raise SessionsAway(error) from error
        _vary(response)
        fate = life.cookie(rolling=session.max_age is not None)
        if fate == "send" and life.sid is not None:
            self.save_cookie(response, life.sid, max_age=session.max_age)
        elif fate == "clear":
            self.save_cookie(response, "")

    def load_cookie(self, request: web.Request) -> str | None:
        """The sid in the request's cookie, if it could be one of ours."""
        return self._cookie.read(request.headers.getall(hdrs.COOKIE, ())).sid

    def save_cookie(self, response: web.StreamResponse, cookie_data: str, *, max_age: int | None = None) -> None:
        """Gives the browser this sid; the empty string takes the cookie away."""
        looks = replace(self._cookie, max_age=max_age)
        _set_cookie(response, looks.header(cookie_data) if cookie_data else looks.clearing())

    def _life(self, sid: str | None) -> Lifecycle:
        return Lifecycle(sid, encode=self._encode, decode=self._decode)


def setup(app: web.Application, storage: SessiondStorage) -> None:
    """The library's `setup`, which also tells caches that a response for which a session was read depends on the cookie."""

    async def dress(request: web.Request, response: web.StreamResponse) -> None:
        if SESSION_KEY in request:
            _vary(response)

    _setup(app, storage)
    app.on_response_prepare.append(dress)


async def regenerate(request: web.Request) -> None:
    """Gives the session a new id when it is saved, as it should have when somebody logs in. The old one is dead then."""
    session = cast("_Session", await get_session(request))
    session._life.move()
    session.changed()
