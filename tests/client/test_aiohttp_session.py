"""What is special to the storage for aiohttp-session; what it has in common with the adapters is in test_adapters.py."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

pytest.importorskip("aiohttp_session")

import aiohttp_session
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import Session, get_session, new_session

from sessiond_client import AsyncClient, Client, InvalidRequest, Unavailable
from sessiond_client.aiohttp_session import SessiondStorage, regenerate, setup
from sessiond_client.cookies import new_sid
from sessiond_client.testing import Server

pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")  # the library's own keys are strings

NAME = "AIOHTTP_SESSION"
Browser = TestClient[web.Request, web.Application]
Handler = Callable[[web.Request], Any]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Server]:
    """One daemon for the tests that do not stop it."""
    with Server() as server:
        yield server


@pytest.fixture
def sessions(daemon: Server) -> Iterator[Client]:
    """That daemon as an operator sees it, empty at first."""
    with Client(daemon.url) as client:
        client.destroy_all(everyone=True)
        yield client


@pytest.fixture
async def browse(daemon: Server, sessions: Client) -> AsyncIterator[Any]:
    """Makes a browser for an app of one handler, at `/` for any method; `/set` sets a = 1. `around`: middleware outside of
    the session's; the rest goes to the storage."""
    made: list[Any] = []

    async def make(handler: Handler, server: Server = daemon, around: Sequence[Any] = (), **options: Any) -> Browser:
        client = AsyncClient(server.url)
        app = web.Application(middlewares=around)
        setup(app, SessiondStorage(client, **options))
        app.router.add_route("*", "/", handler)
        app.router.add_post("/set", put)
        browser: Browser = TestClient(TestServer(app))
        await browser.start_server()
        made.extend([client, browser])
        return browser

    yield make
    for each in reversed(made):
        await each.close()


async def put(request: web.Request) -> web.Response:
    (await get_session(request))["a"] = 1
    return web.Response()


async def read(request: web.Request) -> web.Response:
    return web.json_response(dict(await get_session(request)))


def cookie(browser: Browser) -> str:
    return browser.session.cookie_jar.filter_cookies(browser.make_url("/"))[NAME].value


def only(sessions: Client) -> Any:
    """The one session that there is."""
    (entry,) = sessions.list(everyone=True)
    record = sessions.get(entry.key)
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Path=/; HttpOnly; SameSite=Lax"),
        ({"max_age": 60}, "Max-Age=60; Path=/; HttpOnly; SameSite=Lax"),
        ({"secure": True, "samesite": "Strict"}, "Path=/; Secure; HttpOnly; SameSite=Strict"),
        ({"samesite": None, "httponly": False, "domain": "127.0.0.1"}, "Path=/; Domain=127.0.0.1"),
    ],
)
async def test_cookie(browse: Any, options: dict[str, Any], said: str) -> None:
    """The cookie looks as the settings say."""
    answer = await (await browse(read, **options)).post("/set")

    assert said == answer.headers["Set-Cookie"].partition("; ")[2]


@pytest.mark.parametrize(
    "options",
    [
        {"cookie_name": "a b"},
        {"cookie_name": "__Host-session"},
        {"samesite": "none"},
        {"samesite": "some"},
        {"max_age": 0},
        {"optional": ["optional"]},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    """What browsers would refuse, or what cannot be meant, is refused when the storage is made."""
    with pytest.raises(InvalidRequest):
        SessiondStorage(AsyncClient("http://127.0.0.1:1"), **options)


@pytest.mark.parametrize("changes", [True, False])
async def test_new_session(browse: Any, sessions: Client, changes: bool) -> None:
    """new_session ends the session that the cookie names, whether anything is put into the new one or not."""

    async def begin(request: web.Request) -> web.Response:
        session = await new_session(request)
        if changes:
            session["user"] = "ada"
        return web.json_response({"new": session.new, "identity": session.identity, "data": dict(session)})

    browser = await browse(begin)
    await browser.post("/set")
    before = cookie(browser)

    answer = await browser.post("/")

    assert sessions.get(before) is None
    assert {"new": True, "identity": None, "data": {"user": "ada"} if changes else {}} == await answer.json()
    if changes:
        assert {"user": "ada"} == only(sessions).data
        assert before != cookie(browser)
    else:
        assert 0 == sessions.count()
        assert "Max-Age=0" in answer.headers["Set-Cookie"]


async def test_new_session_after_get_session(browse: Any, sessions: Client) -> None:
    """A login that looks at the session first ends it all the same."""

    async def login(request: web.Request) -> web.Response:
        old = await get_session(request)
        new = await new_session(request)
        new["a"] = old["a"] + 1
        return web.Response()

    browser = await browse(login)
    await browser.post("/set")
    before = cookie(browser)

    await browser.post("/")

    assert {"a": 2} == only(sessions).data
    assert before != cookie(browser)


async def test_invalidate_and_begin_again(browse: Any, sessions: Client) -> None:
    """What is put in after invalidate is another session; the library would keep the id."""

    async def again(request: web.Request) -> web.Response:
        session = await get_session(request)
        session.invalidate()
        session["b"] = 2
        return web.Response()

    browser = await browse(again)
    await browser.post("/set")
    before = cookie(browser)

    await browser.post("/")

    assert {"b": 2} == only(sessions).data
    assert before != cookie(browser)


async def test_what_the_library_shows(browse: Any, sessions: Client) -> None:
    """A session tells whether it is new, its sid, and when it was made, whatever was put into it since."""
    said = []

    async def look(request: web.Request) -> web.Response:
        session = await get_session(request)
        said.append((session.new, session.identity, session.created if not session.new else None, session.max_age))
        return web.Response()

    browser = await browse(look, max_age=600)
    await browser.get("/")
    await browser.post("/set")
    await browser.get("/")

    created = only(sessions).created_at // 1000
    assert [(True, None, None, 600), (False, cookie(browser), created, 600)] == said


async def test_unknown_identity(browse: Any, sessions: Client) -> None:
    """An id that nobody lives under is not taken over."""
    browser = await browse(read)
    planted = new_sid()

    answer = await browser.post("/set", headers={"Cookie": f"{NAME}={planted}"})

    assert planted not in answer.headers["Set-Cookie"]
    assert sessions.get(planted) is None


async def test_idle_for_max_age(browse: Any, sessions: Client, sessiond_server: Server) -> None:
    """max_age counts from the last use of a session, also one that only reads; without it the namespace's ttl does."""
    brief = await browse(read, sessiond_server, max_age=600)
    await brief.post("/set")
    for _ in range(3):
        sessiond_server.advance(599)
        assert {"a": 1} == await (await brief.get("/")).json()
    sessiond_server.advance(600)
    assert {} == await (await brief.get("/")).json()

    namespace_s = await browse(read)
    await namespace_s.post("/set")
    assert 14 * 86400 == only(sessions).ttl


async def test_max_age_of_one_session(browse: Any, sessions: Client) -> None:
    """session.max_age holds for that session and its cookie, and is not undone by a later change."""

    async def remember(request: web.Request) -> web.Response:
        session = await get_session(request)
        session.max_age = 86400
        session["b"] = 2
        return web.Response()

    browser = await browse(remember, max_age=600)
    answer = await browser.post("/")

    assert "Max-Age=86400" in answer.headers["Set-Cookie"]
    await browser.post("/set")
    assert ({"a": 1, "b": 2}, 86400) == (only(sessions).data, only(sessions).ttl)


async def test_encoder(browse: Any, sessions: Client) -> None:
    """An app's own JSON serializer is asked; what is stored is what its text says, as plain values."""

    def encode(value: object) -> str:
        return json.dumps(value, default=lambda day: {"day": day.isoformat()})

    def decode(text: str) -> Any:
        return json.loads(
            text, object_hook=lambda each: datetime.date.fromisoformat(each["day"]) if each.keys() == {"day"} else each
        )

    async def day(request: web.Request) -> web.Response:
        session = await get_session(request)
        session.setdefault("born", datetime.date(1815, 12, 10))
        return web.json_response(session["born"].year)

    browser = await browse(day, encoder=encode, decoder=decode)

    assert [1815, 1815] == [await (await browser.get("/")).json() for _ in range(2)]
    assert ({"born": {"day": "1815-12-10"}}, 1) == (only(sessions).data, only(sessions).version)


async def test_streams_are_not_saved(browse: Any, sessions: Client) -> None:
    """As the library has it, what a streaming response changes is not saved, and no cookie is set."""

    async def stream(request: web.Request) -> web.StreamResponse:
        (await get_session(request))["b"] = 2
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write_eof(b"done")
        return response

    browser = await browse(stream)

    answer = await browser.get("/")

    assert ("done", "Cookie", False) == (await answer.text(), answer.headers["Vary"], "Set-Cookie" in answer.headers)
    assert 0 == sessions.count()


async def test_regenerate(browse: Any, sessions: Client) -> None:
    """regenerate gives the session a new id when it is saved."""

    async def move(request: web.Request) -> web.Response:
        await regenerate(request)
        return web.Response()

    browser = await browse(move)
    await browser.post("/set")
    before = cookie(browser)

    await browser.post("/")

    assert ({"a": 1}, None) == (only(sessions).data, sessions.get(before))
    assert before != cookie(browser)


async def test_without_our_setup(daemon: Server, sessions: Client) -> None:
    """The library's own setup will do: only that a page was read from a session is not told to caches."""
    async with AsyncClient(daemon.url) as client:
        app = web.Application()
        aiohttp_session.setup(app, SessiondStorage(client))
        app.add_routes([web.get("/", read), web.post("/set", put)])
        async with TestClient(TestServer(app)) as browser:
            made = await browser.post("/set")
            read_ = await browser.get("/")

            assert {"a": 1} == await read_.json()
            assert (True, False) == ("Vary" in made.headers, "Vary" in read_.headers)


async def test_foreign_session(browse: Any) -> None:
    """A session that the storage has not made is refused: nobody knows what it was read from."""

    async def foreign(request: web.Request) -> web.Response:
        request[aiohttp_session.SESSION_KEY] = Session("x", data=None, new=False)
        request[aiohttp_session.SESSION_KEY].changed()
        return web.Response()

    assert 500 == (await (await browse(foreign)).get("/")).status


@pytest.mark.parametrize("stops", ["before", "within"])
@pytest.mark.parametrize("handled", [True, False])
async def test_unavailable(browse: Any, sessiond_server: Server, stops: str, handled: bool) -> None:
    """The app gets `Unavailable`, from the middleware too; if nobody handles it the browser gets a 503."""

    async def change(request: web.Request) -> web.Response:
        session = await get_session(request)
        session["b"] = 2
        if stops == "within":
            sessiond_server.stop()
        return web.Response()

    @web.middleware
    async def catch(request: web.Request, handler: Handler) -> Any:
        try:
            return await handler(request)
        except Unavailable:
            return web.Response(status=418)

    browser = await browse(change, sessiond_server, around=[catch] if handled else [])
    await browser.post("/set")
    if stops == "before":
        sessiond_server.stop()

    answer = await browser.post("/")

    assert "Set-Cookie" not in answer.headers
    if handled:
        assert 418 == answer.status
    else:
        assert (503, "1", "no-store") == (answer.status, answer.headers["Retry-After"], answer.headers["Cache-Control"])
