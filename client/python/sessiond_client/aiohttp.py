"""Sessions for aiohttp.web. Tested with aiohttp 3.14.

app = web.Application(middlewares=[session_middleware(client, secret=...)])

async def visit(request):
    session = await get_session(request)      # read when first asked for; nothing is sent for a request that does not
    session["views"] = session.get("views", 0) + 1
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ._async import AsyncClient
from ._session import AsyncSession
from ._types import Seconds
from .cookies import Found, Secret, SessionCookie
from .errors import InvalidRequest, Unavailable
from .lifecycle import Paths, describe, drive_async

#: What becomes of a request that could not be served because no answer was had from the daemon.
OnUnavailable = Callable[[web.Request, Unavailable], Awaitable[web.StreamResponse]]


class _Visit:
    """The session of one request: which one it is, and whether anybody has asked for it."""

    def __init__(self, session: AsyncSession, found: Found, may_lack: bool) -> None:
        self.session = session
        self.found = found
        self.may_lack = may_lack  # whether the request goes on without a session when the daemon is away
        self.is_lacking = False

    async def load(self) -> AsyncSession:
        life = self.session._life
        if not life.loaded:
            try:
                await self.session.load()
            except Unavailable:
                if not self.may_lack:
                    raise
                life.loaded = self.is_lacking = True
        return self.session


_VISIT = web.RequestKey("sessiond_client visit", _Visit)


async def get_session(request: web.Request) -> AsyncSession:
    """The session of this request, a dict that is saved when the request ends: see `AsyncSession`.

    The first call reads and renews it. Raises Unavailable when no answer was had; InvalidRequest where the middleware
    does not run.
    """
    visit: _Visit | None = request.get(_VISIT)
    if visit is None:
        raise InvalidRequest("This request has no session: add session_middleware to the app, or see its `exclude`.")
    return await visit.load()


def session_middleware(
    client: AsyncClient,
    *,
    secret: Secret | Sequence[Secret] | None = None,
    cookie: SessionCookie | None = None,
    ttl: Seconds | None = None,
    rolling: bool = False,
    user: Callable[[Mapping[str, object]], str | None] | None = None,
    meta: bool = True,
    exclude: Sequence[str] = (),
    optional: Sequence[str] = (),
    on_unavailable: OnUnavailable | None = None,
) -> Middleware:
    """Gives every request a session, and saves what its handler has changed.

    Args:
        client: the app's, which also closes it.
        secret: signs the cookie; short for `cookie=SessionCookie(secret=secret)`.
        cookie: how the cookie looks.
        ttl: seconds a session lives without being used; None: the namespace's.
        rolling: whether each response to a request that used its session sends the cookie again, which a persistent
            cookie (`max_age`) needs to live on with its session.
        user: tells from the data whose session it is; without it, what the app puts into `session.user`.
        meta: whether new sessions and logins note the browser's name and address, for "my devices".
        exclude: paths without any session, such as `/static/*`.
        optional: paths that go on with an empty session, which is not stored, while the daemon is away.
        on_unavailable: answers requests that could not be served while it is away; without it they get a plain 503.
    """
    looks = cookie if cookie is not None else SessionCookie(secret=secret)
    if cookie is not None and secret is not None:
        raise InvalidRequest("Give the secret to the cookie, SessionCookie(secret=...), or alone.")
    excluded, lacking = Paths(exclude), Paths(optional)

    async def end(request: web.Request, visit: _Visit, response: web.StreamResponse) -> None:
        """Saves the session and dresses the response, as far as its headers are not out yet."""
        life = visit.session._life
        if not life.loaded:
            return
        if not response.prepared:
            _vary(response)
        if visit.is_lacking:
            return
        saves = response.status < 500
        if saves:
            told = describe(request.headers.get(hdrs.USER_AGENT), request.remote) if meta else None
            owner = life.user if user is None else user(life.data)
            await drive_async(client, life.finish(user=owner, meta=told, moves=not response.prepared))
        if not response.prepared:
            dress(visit, response, again=saves and (rolling or visit.found.stale))

    def dress(visit: _Visit, response: web.StreamResponse, *, again: bool = False) -> None:
        """Gives or takes the cookie. An error does so too: a session that has moved is not found by its old one."""
        life = visit.session._life
        fate = life.cookie(rolling=again)
        if fate == "send" and life.sid is not None:
            _set_cookie(response, looks.header(life.sid))
        elif fate == "clear":
            _set_cookie(response, looks.clearing())

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in excluded:
            return await handler(request)
        found = looks.read(request.headers.getall(hdrs.COOKIE, ()))
        session = AsyncSession(client, found.sid, ttl=ttl, renew=True)
        visit = request[_VISIT] = _Visit(session, found, request.path in lacking)
        raised: web.HTTPException | None = None
        try:
            try:
                response = await handler(request)
            except web.HTTPException as error:  # a redirect after a login, say: what it changed is saved like any other
                response = raised = error
            await end(request, visit, response)
        except Unavailable as error:
            if request.writer.output_size:  # the answer has begun, and a second one would end up in its midst
                raise
            if on_unavailable is not None:
                response = await on_unavailable(request, error)
            else:
                response = web.Response(
                    status=503,
                    text="The sessions are away for a moment; try again.\n",
                    headers={hdrs.RETRY_AFTER: "1", hdrs.CACHE_CONTROL: "no-store"},
                )
            if not response.prepared:
                dress(visit, response)
            return response
        if raised is not None:
            raise raised
        return response

    return middleware


def _vary(response: web.StreamResponse) -> None:
    """What was answered depends on the cookie: caches have to know."""
    said = {word.strip().lower() for line in response.headers.getall(hdrs.VARY, ()) for word in line.split(",")}
    if not said & {"cookie", "*"}:
        response.headers.add(hdrs.VARY, hdrs.COOKIE)


def _set_cookie(response: web.StreamResponse, header: str) -> None:
    response.headers.add(hdrs.SET_COOKIE, header)
    # Whoever keeps this response would hand the session to others.
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
