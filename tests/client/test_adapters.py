"""What a session goes through in a web app: one list of scenarios, for a real app of every framework on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessiond_client import Client
from sessiond_client.testing import Server

from .apps import TTL
from .sites import KINDS, Browser, Site

LIFETIME = 3 * TTL

#: What a request may bring in place of a cookie of ours (`{name}` stands for its name): a visitor without a session each.
ODD_COOKIES = [
    "{name}=",
    "{name}",
    "=x",
    "{name}=not-one-of-ours",
    "{name}=" + "A" * 43,
    "{name}=" + "A" * 42,
    "{name}=" + "A" * 44,
    '{name}="' + "A" * 43 + '"',
    "{name}=%zz",
    "{name}=%00",
    "{name}=\u00e9",
    "{name}=../../etc/passwd",
    "{name}=s:" + "A" * 43,
    "{name}=s%3A" + "A" * 43 + ".sig",
    '{name}=j:{{"a":1}}',
    "{name}[]=" + "A" * 43,
    "{name}=" + "A" * 7000,
    "; ".join(f"c{number}=x" for number in range(200)) + "; {name}=" + "A" * 43,
    ";;;=;{name}=;",
    "{name}=a b c",
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Server]:
    """One daemon for the scenarios that leave it alone."""
    with Server(options=["--lifetime", str(LIFETIME)]) as server:
        yield server


@pytest.fixture(scope="module", params=list(KINDS))
def site(request: pytest.FixtureRequest, daemon: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app in four processes."""
    with Site(request.param, daemon.url, tmp_path_factory.mktemp("site"), workers=4) as site:
        yield site


with_websockets = pytest.mark.parametrize(
    "site", [name for name, kind in KINDS.items() if kind.websockets], indirect=True, scope="module"
)


@pytest.fixture
def sessions(daemon: Server) -> Iterator[Client]:
    """The daemon as an operator sees it, empty at first."""
    with Client(daemon.url) as client:
        client.destroy_all(everyone=True)
        yield client


@pytest.fixture
async def browse(site: Site) -> AsyncIterator[Callable[[str], Browser]]:
    """Makes browsers."""
    made: list[Browser] = []

    def make(agent: str = "browser") -> Browser:
        made.append(Browser(site, agent))
        return made[-1]

    yield make
    for browser in made:
        await browser.close()


@pytest.fixture
async def browser(browse: Any, sessions: Client) -> Browser:
    """One browser, without a cookie, of an app that has no sessions yet."""
    made: Browser = browse()
    return made


async def test_first_visit(browser: Browser, sessions: Client) -> None:
    """Looking at a page makes no session and sets no cookie, whether the app looks at the session or not."""
    untouched, read = await browser.get("/untouched"), await browser.get("/read")

    assert ("untouched", {"data": {}, "user": None}) == (untouched.text, read.json)
    assert [] == untouched.cookies + read.cookies
    assert 0 == sessions.count()


async def test_return(browser: Browser, sessions: Client) -> None:
    """What was set is there at the next visit, in whichever process."""
    await browser.post("/set/name/Ada")

    assert [{"name": "Ada"}] * 8 == [await browser.read() for _ in range(8)]
    assert 1 == sessions.count()


async def test_cookie_flags(browser: Browser) -> None:
    """The cookie is sent once, is out of reach of scripts and of other sites' forms, and is not to be cached."""
    first = await browser.post("/set/a/1")
    second = await browser.post("/set/b/1")

    (cookie,) = first.cookies
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "path=/", "samesite=lax"} <= attributes
    assert browser.site.kind.cookie.startswith("__Host-") == ("secure" in attributes)
    assert not [part for part in attributes if part.startswith("domain")]
    assert "Cookie" in first.headers["Vary"]
    assert "no-store" in first.headers["Cache-Control"]
    assert browser.cookie is not None
    assert all(browser.cookie in each for each in second.cookies)


async def test_vary(browser: Browser) -> None:
    """Caches are told that a page which looked at the session depends on the cookie, and only then."""
    await browser.post("/set/a/1")

    assert "Cookie" in (await browser.get("/read")).headers["Vary"]
    assert "Cookie" not in (await browser.get("/untouched")).headers.get("Vary", "")


async def test_change(browser: Browser) -> None:
    """An entry that is set again has its new value; the others keep theirs."""
    await browser.post("/set/a/1")
    await browser.post("/set/b/1")
    await browser.post("/set/a/2")

    assert {"a": "2", "b": "1"} == await browser.read()


async def test_nested_change(browser: Browser) -> None:
    """A change inside of a value is noticed, though no entry was set."""
    for value in ("lamp", "book", "chair"):
        await browser.post(f"/nested/{value}")

    assert {"cart": {"items": ["lamp", "book", "chair"]}} == await browser.read()


async def test_plain_data(browser: Browser, sessions: Client) -> None:
    """What is stored are plain values under the app's own names, so that an app in another language finds them."""
    await browser.post("/set/name/Ada")
    await browser.post("/nested/lamp")

    (entry,) = sessions.list(everyone=True)
    record = sessions.get(entry.key)

    assert record is not None
    assert {"name": "Ada", "cart": {"items": ["lamp"]}}.items() <= record.data.items()


async def test_two_tabs(browser: Browser) -> None:
    """Of two requests at once that change different entries both changes stay."""
    await browser.post("/set/a/1")

    await asyncio.gather(browser.post("/set/b/2?hold=300"), browser.post("/set/c/3?hold=300"))

    assert {"a": "1", "b": "2", "c": "3"} == await browser.read()


async def test_many_tabs(browser: Browser) -> None:
    """Of 200 requests at once over all processes, each with an entry of its own, none is lost."""
    await browser.post("/set/first/1")

    for start in range(0, 200, 50):  # fifty sockets at a time: more would wait in the server's backlog
        await asyncio.gather(*(browser.post(f"/set/k{number}/1") for number in range(start, start + 50)))

    assert {"first", *(f"k{number}" for number in range(200))} == (await browser.read()).keys()


async def test_slow_reader(browser: Browser) -> None:
    """A request that only reads, and ends late, undoes nothing that others wrote meanwhile."""
    await browser.post("/set/a/1")

    slow, _ = await asyncio.gather(browser.get("/slow/400"), _later(browser.post("/set/a/2")))

    assert {"a": "1"} == slow.json["data"]
    assert {"a": "2"} == await browser.read()


async def test_login(browser: Browser, sessions: Client) -> None:
    """A login keeps the data under a new id; the old one is dead; the session can be found by its user."""
    await browser.post("/set/cart/lamp")
    before = f"{browser.site.kind.cookie}={browser.cookie}"

    await browser.post("/login/ada")

    now = (await browser.get("/read")).json
    assert ("ada", "lamp") == (now["user"], now["data"]["cart"])
    assert {} == (await browser.ask("GET", "/read", cookie=before)).json["data"]
    assert ["ada"] == [entry.user for entry in sessions.list(everyone=True)]
    assert [1, 1] == [sessions.count(), sessions.count(user="ada")]


async def test_fixation(browser: Browser, browse: Any) -> None:
    """Somebody who planted his own cookie in a browser is not logged in when its owner logs in."""
    thief = browse("thief")
    await thief.post("/set/mine/1")
    browser.cookies.update(thief.cookies)

    await browser.post("/login/ada")

    assert "ada" == (await browser.get("/read")).json["user"]
    assert {"data": {}, "user": None} == (await thief.get("/read")).json


async def test_another_user(browser: Browser, sessions: Client) -> None:
    """A second login in the same browser takes the session over under another id; nothing is left to the first user."""
    await browser.post("/login/ada")
    before = browser.cookie

    await browser.post("/login/bob")

    assert before != browser.cookie
    assert "bob" == (await browser.get("/read")).json["user"]
    assert [0, 1] == [sessions.count(user="ada"), sessions.count(user="bob")]


async def test_rotate(browser: Browser) -> None:
    """A new id for the same session, by itself: the data stays, the old id is dead."""
    await browser.post("/set/a/1")
    before = f"{browser.site.kind.cookie}={browser.cookie}"

    await browser.post("/rotate")

    assert {"a": "1"} == await browser.read()
    assert before != f"{browser.site.kind.cookie}={browser.cookie}"
    assert {} == (await browser.ask("GET", "/read", cookie=before)).json["data"]


async def test_logout(browser: Browser, sessions: Client) -> None:
    """After a logout there is no session, no cookie, and nothing behind the old one, in any process."""
    await browser.post("/login/ada")
    before = f"{browser.site.kind.cookie}={browser.cookie}"

    await browser.post("/logout")

    assert browser.cookie is None
    assert 0 == sessions.count()
    for _ in range(8):
        assert {"data": {}, "user": None} == (await browser.ask("GET", "/read", cookie=before)).json


async def test_clear(browser: Browser, sessions: Client) -> None:
    """A session that the app empties is ended, and its cookie taken away; emptying none makes none."""
    await browser.post("/clear")
    assert 0 == sessions.count()
    await browser.post("/set/a/1")

    await browser.post("/clear")

    assert browser.cookie is None
    assert 0 == sessions.count()


async def test_late_save_after_logout(browser: Browser, sessions: Client) -> None:
    """A request that began before the logout, and saves after it, revives nothing; the cookie is not given back."""
    await browser.post("/login/ada")
    cookie = f"{browser.site.kind.cookie}={browser.cookie}"

    late, _ = await asyncio.gather(
        browser.ask("POST", "/set/late/1?hold=500", cookie=cookie), _later(browser.post("/logout"))
    )

    assert late.status < 500
    assert [] == [each for each in late.cookies if "1970" not in each]
    assert {} == (await browser.ask("GET", "/read", cookie=cookie)).json["data"]
    assert 0 == sessions.count()


async def test_late_reader_after_logout(browser: Browser, sessions: Client) -> None:
    """A request that only reads, and ends after the logout, revives nothing either."""
    await browser.post("/login/ada")
    cookie = f"{browser.site.kind.cookie}={browser.cookie}"

    await asyncio.gather(browser.ask("GET", "/slow/500", cookie=cookie), _later(browser.post("/logout")))

    assert 0 == sessions.count()


async def test_late_answer_keeps_the_new_cookie(browser: Browser) -> None:
    """A request that was under way with the old id when the login moved the session does not take the new cookie away."""
    await browser.post("/set/a/1")
    cookie = f"{browser.site.kind.cookie}={browser.cookie}"

    await browser.post("/login/ada")
    late = await browser.ask("GET", "/read", cookie=cookie)

    assert [] == late.cookies


async def test_everywhere(browse: Any, sessions: Client) -> None:
    """Log out everywhere: all of the user's sessions end, in all processes, and no one else's."""
    phone, laptop, kiosk = browse("phone"), browse("laptop"), browse("kiosk")
    for browser, user in ((phone, "ada"), (laptop, "ada"), (kiosk, "bob")):
        await browser.post(f"/login/{user}")

    ended = await phone.post("/everywhere")

    assert {"ended": 2} == ended.json
    for _ in range(8):
        assert (await laptop.get("/read")).json["user"] is None
    assert "bob" == (await kiosk.get("/read")).json["user"]


async def test_devices(browse: Any, sessions: Client) -> None:
    """A user's devices are listed by the names of their browsers, and the one that asks is marked."""
    phone, laptop, kiosk = browse("phone \u2603"), browse("laptop"), browse("kiosk")
    for browser, user in ((phone, "ada"), (laptop, "ada"), (kiosk, "bob")):
        await browser.post(f"/login/{user}")

    answer = (await laptop.get("/devices")).json

    assert 2 == len(answer)
    assert ["laptop"] == [each["agent"] for each in answer if each["this"]]


async def test_expired(browser: Browser, sessions: Client, daemon: Server) -> None:
    """A session that nobody has used for its ttl is over; the next one has another id."""
    await browser.post("/set/a/1")
    before = browser.cookie
    daemon.advance(TTL - 1)
    assert {"a": "1"} == await browser.read()
    daemon.advance(TTL)

    gone = await browser.get("/read")
    await browser.post("/set/b/1")

    assert {} == gone.json["data"]
    assert {"b": "1"} == await browser.read()
    assert before != browser.cookie


async def test_lifetime(browser: Browser, daemon: Server) -> None:
    """However busy a session is, it ends at the age that the daemon allows."""
    await browser.post("/set/a/1")
    for _ in range(5):
        daemon.advance(TTL / 2)
        await browser.post("/set/a/2")

    daemon.advance(TTL / 2)

    assert {} == await browser.read()


@pytest.mark.parametrize("odd", ODD_COOKIES, ids=lambda odd: odd[:40])
async def test_odd_cookies(browser: Browser, sessions: Client, odd: str) -> None:
    """A cookie that is none of ours is a visitor without a session: never an error, never an id that we take over."""
    header = odd.format(name=browser.site.kind.cookie)

    read = await browser.ask("GET", "/read", cookie=header)
    made = await browser.ask("POST", "/set/a/1", cookie=header)

    if read.status != 431 and read.status != 400:  # the web server itself has limits, and may refuse it before the app
        assert (200, {"data": {}, "user": None}) == (read.status, read.json)
        assert made.status < 400
        (cookie,) = made.cookies
        given = cookie.partition("=")[2].partition(";")[0]
        assert given not in header
    assert sessions.count() <= 1


async def test_same_cookie_twice(browser: Browser, browse: Any, sessions: Client) -> None:
    """A request with two session cookies is one without a session: one of them was tossed in, nobody knows which."""
    mine, other = browse(), browse()
    await mine.post("/set/mine/1")
    await other.post("/set/other/1")
    name = browser.site.kind.cookie

    for pair in ((mine, other), (other, mine)):
        header = "; ".join(f"{name}={each.cookie}" for each in pair)
        assert {} == (await browser.ask("GET", "/read", cookie=header)).json["data"]


async def test_foreign_cookies_beside_ours(browser: Browser) -> None:
    """Other cookies, odd ones too, do not disturb ours."""
    await browser.post("/set/a/1")

    header = f'x="y;z"; {browser.site.kind.cookie}={browser.cookie}; =; q={"z" * 500}'

    assert {"a": "1"} == (await browser.ask("GET", "/read", cookie=header)).json["data"]


async def test_error_saves_nothing(browser: Browser) -> None:
    """A request that ends with a 500 changes nothing."""
    await browser.post("/set/a/1")

    failed = await browser.ask("POST", "/fail/b", cookie=f"{browser.site.kind.cookie}={browser.cookie}")

    assert (500, []) == (failed.status, failed.cookies)
    assert {"a": "1"} == await browser.read()


@with_websockets
async def test_websocket(browser: Browser) -> None:
    """What a WebSocket handler puts into the session is there afterwards, and undoes nothing of others."""
    await browser.post("/set/a/1")

    await browser.say("hello", "again")

    await _until(browser, {"a": "1", "ws": "again"})


@with_websockets
async def test_websocket_of_the_logged_out(browser: Browser, sessions: Client) -> None:
    """A WebSocket that outlives a logout revives nothing."""
    await browser.post("/set/a/1")

    async def chat() -> None:
        said = f"{browser.site.kind.cookie}={browser.cookie}"
        async with browser._http.ws_connect(browser.site.url + "/ws", headers={"Cookie": said}) as ws:
            await ws.send_str("hello")
            await ws.receive_str()
            sessions.destroy_all(everyone=True)

    await chat()
    await asyncio.sleep(0.3)

    assert 0 == sessions.count()


@pytest.mark.parametrize("kind", KINDS)
async def test_round_trips(kind: str, sessiond_server: Server, tmp_path: Path) -> None:
    """No call for a request that does not touch the session, one for a read, two for a read and a change."""
    with Site(kind, sessiond_server.url, tmp_path) as site:
        browser = Browser(site)
        await browser.post("/set/a/1")
        counted = []
        for method, path in (("GET", "/untouched"), ("GET", "/read"), ("POST", "/set/a/2"), ("POST", "/set/a/2")):
            before = await browser.calls()
            await browser.ask(method, path, cookie=f"{site.kind.cookie}={browser.cookie}")
            counted.append(await browser.calls() - before)
        stranger = Browser(site)
        before = await browser.calls()
        await stranger.get("/read")
        counted.append(await browser.calls() - before)
        await browser.close()
        await stranger.close()

    assert [site.kind.untouched, 1, 2, 1, 0] == counted


@pytest.mark.parametrize("kind", KINDS)
async def test_daemon_away_and_back(kind: str, sessiond_server: Server, tmp_path: Path) -> None:
    """While the daemon is away pages fail with a 5xx, or go on where the app says so; no cookie goes; then all is back."""
    with Site(kind, sessiond_server.url, tmp_path, workers=2) as site:
        browser = Browser(site)
        await browser.post("/set/a/1")
        sessiond_server.stop()

        read = await browser.get("/read")
        written = await browser.ask("POST", "/set/b/1", cookie=f"{site.kind.cookie}={browser.cookie}")
        optional = await browser.get("/optional/read")
        untouched = await browser.get("/untouched")
        sessiond_server.start()
        back = await browser.get("/read")
        for _ in range(100):
            if back.status == 200:
                break
            await asyncio.sleep(0.1)
            back = await browser.get("/read")
        await browser.close()

    assert (True, True) == (read.status >= 500, written.status >= 500)
    assert (200, {"data": {}, "user": None}) == (optional.status, optional.json)
    assert site.kind.untouched or untouched.status == 200
    assert [] == read.cookies + written.cookies + optional.cookies + untouched.cookies
    assert (200, {"a": "1"}) == (back.status, back.json["data"])


async def _later(what: Any) -> Any:
    """Does it once a request that was asked for at the same time is well under way."""
    await asyncio.sleep(0.15)
    return await what


async def _until(browser: Browser, data: dict[str, Any]) -> None:
    """Waits for a handler that goes on after its WebSocket has closed."""
    for _ in range(100):
        if data == await browser.read():
            return
        await asyncio.sleep(0.05)
    assert data == await browser.read()
