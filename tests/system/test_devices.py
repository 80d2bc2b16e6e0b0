"""examples/devices for real: the same app in every framework, four processes each, three browsers, one user."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from sessiond_client.testing import Server

FOLDER = Path(__file__).parents[2] / "examples" / "devices"
START_TIMEOUT = 30.0

GUNICORN = ["-m", "gunicorn", "--workers", "4", "--graceful-timeout", "2", "--bind"]

#: How each app is started, up to its address; as it says in the app's own first lines.
APPS = {
    "with_aiohttp": ["with_aiohttp:make", "--worker-class", "aiohttp.GunicornWebWorker"],
    "with_flask": ["with_flask:make()", "--worker-class", "gthread", "--threads", "8"],
    "with_django": ["with_django:app", "--threads", "8"],
}


class Browser:
    """Keeps its cookies and follows redirects; a connection a request, so that all processes get some."""

    def __init__(self, name: str, url: str) -> None:
        self._url = url
        self.cookies: dict[str, str] = {}
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": name},
            connector=aiohttp.TCPConnector(force_close=True, limit=50),
        )

    async def ask(self, method: str, path: str) -> str:
        """The page."""
        sent = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Cookie": sent} if sent else {}
        async with self._http.request(method, self._url + path, headers=headers, allow_redirects=False) as answer:
            for header in answer.headers.getall("Set-Cookie", ()):
                name, _, value = header.partition(";")[0].partition("=")
                if value.strip('"') and "01 Jan 1970" not in header:
                    self.cookies[name] = value
                else:
                    self.cookies.pop(name, None)
            if answer.status in (302, 303, 307):
                return await self.ask("GET", answer.headers["Location"])
            assert answer.status < 500, await answer.text()
            return (await answer.text()).strip()

    async def close(self) -> None:
        await self._http.close()


@pytest.fixture(params=list(APPS))
async def browsers(
    request: pytest.FixtureRequest, sessiond_server: Server, tmp_path: Path
) -> AsyncIterator[list[Browser]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *GUNICORN, f"127.0.0.1:{port}", *APPS[request.param]],
            cwd=FOLDER,
            env={**os.environ, "SESSIOND_URL": sessiond_server.url},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + START_TIMEOUT
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            await asyncio.sleep(0.05)
    browsers = [Browser(name, f"http://127.0.0.1:{port}") for name in ("phone", "laptop", "kiosk")]
    yield browsers
    for browser in browsers:
        await browser.close()
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def test_a_login_keeps_the_cart_and_moves_to_a_new_id(browsers: list[Browser]) -> None:
    """The cart of before the login is there after it, in the other processes too, under another cookie."""
    phone = browsers[0]
    await phone.ask("POST", "/add/lamp")
    before = dict(phone.cookies)

    assert await phone.ask("POST", "/login/ada") == "ada: lamp"
    assert await phone.ask("POST", "/add/book") == "added"
    assert [await phone.ask("GET", "/") for _ in range(6)] == ["ada: lamp, book"] * 6
    assert {**before, **phone.cookies} != before


async def test_devices_are_listed_and_logged_out(browsers: list[Browser]) -> None:
    """A user sees all devices and no others', and logs the others out at once, in all processes."""
    phone, laptop, kiosk = browsers
    await asyncio.gather(
        phone.ask("POST", "/login/ada"), laptop.ask("POST", "/login/ada"), kiosk.ask("POST", "/login/bob")
    )

    assert await phone.ask("GET", "/devices") == "laptop\nphone (this one)"
    assert await phone.ask("POST", "/logout-everywhere") == "1 others logged out"
    assert [await laptop.ask("GET", "/") for _ in range(6)] == ["nobody: nothing"] * 6
    assert await laptop.ask("GET", "/devices") == "log in first"
    assert await kiosk.ask("GET", "/") == "bob: nothing"
    assert await phone.ask("POST", "/logout") == "bye"
    assert [await phone.ask("GET", "/") for _ in range(6)] == ["nobody: nothing"] * 6
    assert phone.cookies == {}


async def test_ratings_at_once(browsers: list[Browser]) -> None:
    """Of 200 ratings at once, over four processes, none is lost."""
    phone = browsers[0]
    await phone.ask("POST", "/login/ada")

    await asyncio.gather(*(phone.ask("POST", f"/rate/thing{number}/5") for number in range(200)))

    assert await phone.ask("GET", "/ratings") == "200 rated"


async def test_a_visitor_who_leaves_nothing_gets_no_session(browsers: list[Browser]) -> None:
    """Looking at the page makes no session and no cookie."""
    assert await browsers[0].ask("GET", "/") == "nobody: nothing"
    assert browsers[0].cookies == {}
