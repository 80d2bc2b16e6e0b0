"""What is special to aiohttp: handlers that raise, responses that have begun, and what the middleware answers by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, DummyCookieJar, web
from aiohttp.test_utils import TestServer

from sessiond_client import AsyncClient, Client, InvalidRequest, Unavailable
from sessiond_client.aiohttp import get_session, session_middleware
from sessiond_client.cookies import SessionCookie, new_sid
from sessiond_client.testing import Server

Visit = Callable[..., Awaitable[Any]]
COOKIE = SessionCookie("sid", secret="keyboard cat")


async def visit(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["views"] = session.get("views", 0) + 1
    return web.Response(text=str(session["views"]))


async def redirect(request: web.Request) -> web.Response:
    (await get_session(request))["from"] = "redirect"
    raise web.HTTPFound("/")


async def crash(request: web.Request) -> web.Response:
    (await get_session(request))["from"] = "crash"
    raise RuntimeError("a fault of the app's")


async def stream(request: web.Request) -> web.StreamResponse:
    session = await get_session(request)
    response = web.StreamResponse()
    await response.prepare(request)
    session["streamed"] = 1
    await response.write(b"streamed")
    return response


async def failed(request: web.Request) -> web.Response:
    await (await get_session(request)).rotate()
    return web.Response(status=500)


async def stream_of_the_refused(request: web.Request) -> web.StreamResponse:
    session = await get_session(request)
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"streamed")
    raise Unavailable(f"as a call would, for {session!r}")


async def login_too_large(request: web.Request) -> web.Response:
    session = await get_session(request)
    session.user = "ada"
    session["all"] = "x" * 100_000
    return web.Response()


async def cached(request: web.Request) -> web.Response:
    (await get_session(request))["x"] = 1
    return web.Response(headers={"Cache-Control": "private", "Vary": "Accept, cookie"})


class Site:
    """An app on a port of its own, with `options` for its middleware."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self._servers: list[TestServer] = []
        self.http = ClientSession(cookie_jar=DummyCookieJar())

    async def __call__(self, **options: Any) -> Visit:
        app = web.Application(middlewares=[session_middleware(self.client, **options)])
        for name, handler in (
            ("/", visit),
            ("/redirect", redirect),
            ("/crash", crash),
            ("/stream", stream),
            ("/refused", stream_of_the_refused),
            ("/failed", failed),
            ("/large", login_too_large),
            ("/cached", cached),
            ("/static/logo", visit),
        ):
            app.router.add_get(name, handler)
        server = TestServer(app)
        await server.start_server()
        self._servers.append(server)

        async def ask(path: str = "/", sid: str | None = None) -> Any:
            value = f"sid={COOKIE.value(sid)}" if sid else ""
            return await self.http.get(
                server.make_url(path), headers={"Cookie": value} if value else {}, allow_redirects=False
            )

        return ask

    async def close(self) -> None:
        await self.http.close()
        for server in self._servers:
            await server.close()
        await self.client.close()


@pytest.fixture
async def site(sessiond_server: Server) -> AsyncIterator[Site]:
    site = Site(AsyncClient(sessiond_server.url, deadline=1.0))
    yield site
    await site.close()


def sid_in(answer: Any) -> str:
    """The sid that an answer gives the browser."""
    found = COOKIE.read([answer.headers["Set-Cookie"].partition(";")[0]]).sid
    assert found
    return found


async def test_a_redirect_saves(site: Site, sessiond_client: Client) -> None:
    """What a handler changed before it raised a redirect is saved, and the redirect brings the cookie."""
    ask = await site(cookie=COOKIE)

    answer = await ask("/redirect")

    assert 302 == answer.status
    record = sessiond_client.get(sid_in(answer))
    assert record is not None
    assert {"from": "redirect"} == record.data


async def test_a_crash_does_not(site: Site, sessiond_client: Client) -> None:
    """A handler that fails leaves the session as it was, and makes none."""
    ask = await site(cookie=COOKIE)

    assert 500 == (await ask("/crash")).status
    assert 0 == sessiond_client.count()


async def test_a_stream_saves_what_comes_late(site: Site, sessiond_client: Client) -> None:
    """A handler that changes the session while it streams saves it; a session cannot begin then, since no cookie can."""
    ask = await site(cookie=COOKIE)
    sid = sid_in(await ask())

    for each in (sid, None):
        assert "streamed" == await (await ask("/stream", each)).text()

    record = sessiond_client.get(sid)
    assert record is not None
    assert {"views": 1, "streamed": 1} == record.data
    assert 1 == sessiond_client.count()


async def test_headers_of_the_app_stay(site: Site) -> None:
    """What the app says about caching is not overruled, and Vary is not said twice."""
    ask = await site(cookie=COOKIE)

    answer = await ask("/cached")

    assert ["private"] == answer.headers.getall("Cache-Control")
    assert ["Accept, cookie"] == answer.headers.getall("Vary")


async def test_excluded_paths_have_no_session(site: Site) -> None:
    """On an excluded path the session cannot be asked for, and the error says where to look."""
    ask = await site(cookie=COOKIE, exclude=["/static/*"])

    assert 500 == (await ask("/static/logo")).status
    assert 0 == site.client.stats.calls_sent


async def test_a_secret_that_has_changed(site: Site) -> None:
    """A cookie that an older secret has signed is taken, and sent again with the new one."""
    ask = await site(cookie=COOKIE)
    sid = sid_in(await ask())
    later = await site(cookie=SessionCookie("sid", secret=["new", "keyboard cat"]))

    first = await later("/", sid)

    assert "2" == await first.text()
    assert (sid, False) == SessionCookie("sid", secret="new").read([first.headers["Set-Cookie"].partition(";")[0]])


async def test_rolling(site: Site) -> None:
    """With rolling each use sends the cookie again; without it only a new id does."""
    for rolling in (True, False):
        ask = await site(cookie=COOKIE, rolling=rolling)
        sid = sid_in(await ask())
        assert rolling == ("Set-Cookie" in (await ask("/", sid)).headers)


async def test_the_user_from_the_data(site: Site, sessiond_client: Client) -> None:
    """An app that keeps its user in the data names the entry, and the index has it."""
    ask = await site(cookie=COOKIE, user=lambda session: f"viewer {session['views']}")

    await ask()

    assert ["viewer 1"] == [entry.user for entry in sessiond_client.list(everyone=True)]


async def test_without_meta(site: Site, sessiond_client: Client) -> None:
    """An app that does not want to know about browsers stores nothing about them."""
    await (await site(cookie=COOKIE))()
    await (await site(cookie=COOKIE, meta=False))()

    assert {True, False} == {entry.meta is None for entry in sessiond_client.list(everyone=True)}


async def test_away(site: Site, sessiond_server: Server) -> None:
    """While the daemon is away the browser is asked to come again and keeps its cookie, or the app's own handler answers."""

    async def sorry(request: web.Request, error: Unavailable) -> web.Response:
        return web.Response(status=500, text=type(error).__name__)

    ask, own = await site(cookie=COOKIE), await site(cookie=COOKIE, on_unavailable=sorry)
    sid = sid_in(await ask())
    sessiond_server.stop()

    plain, answered = await ask("/", sid), await own("/", sid)

    assert (503, "1", "no-store") == (plain.status, plain.headers["Retry-After"], plain.headers["Cache-Control"])
    assert (500, "ConnectFailed") == (answered.status, await answered.text())
    assert "Set-Cookie" not in plain.headers
    assert "Set-Cookie" not in answered.headers


def test_arguments() -> None:
    """What could not work is refused when the app is made."""
    client = AsyncClient()
    with pytest.raises(InvalidRequest, match="alone"):
        session_middleware(client, secret="a", cookie=COOKIE)
    with pytest.raises(InvalidRequest):
        session_middleware(client, secret="")
    with pytest.raises(InvalidRequest):
        session_middleware(client, exclude=["static"])


async def test_an_unknown_id_is_not_taken_over(site: Site) -> None:
    """An id with a good signature that is not alive does not become the new session's."""
    ask = await site(cookie=COOKIE)
    sid = new_sid()

    assert sid != sid_in(await ask("/", sid))


async def test_no_second_answer(site: Site, sessiond_client: Client) -> None:
    """A handler that gets no session once its answer has begun breaks it off: no 503 ends up in the midst of a body."""
    ask = await site(cookie=COOKIE)
    answer = await ask("/refused", sessiond_client.create({"a": 1}))

    with pytest.raises(ClientError):
        await answer.read()


async def test_an_error_after_a_move(site: Site, sessiond_client: Client) -> None:
    """A session that the handler has moved is told to the browser with an error too, since its old id is dead."""
    ask = await site(cookie=COOKIE)

    answer = await ask("/failed", sessiond_client.create({"a": 1}))

    record = sessiond_client.get(sid_in(answer))
    assert record is not None
    assert (500, {"a": 1}) == (answer.status, record.data)


async def test_a_refused_login_keeps_the_session(site: Site, sessiond_client: Client) -> None:
    """A login that the daemon refuses, for too much data, say, leaves the visitor with the session that he had."""
    ask = await site(cookie=COOKIE)
    sid = sessiond_client.create({"cart": ["lamp"]})

    answer = await ask("/large", sid)

    record = sessiond_client.get(sid)
    assert record is not None
    assert (500, {"cart": ["lamp"]}, None) == (answer.status, record.data, record.user)
