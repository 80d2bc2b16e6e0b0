"""examples/devices for real: two processes, three browsers, one user."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from sessiond_client.testing import Server

APP = Path(__file__).parents[2] / "examples" / "devices" / "devices.py"


class Browser:
    def __init__(self, name: str, ports: list[int]) -> None:
        self._ports = ports
        self._visits = 0
        self.http = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False), headers={"User-Agent": name}
        )

    async def ask(self, method: str, path: str) -> str:
        """The page, from one process after the other; redirects are followed."""
        self._visits += 1
        port = self._ports[self._visits % len(self._ports)]
        async with self.http.request(method, f"http://127.0.0.1:{port}{path}") as answer:
            return (await answer.text()).strip()


@pytest.fixture
async def browsers(sessiond_server: Server, tmp_path: Path) -> AsyncIterator[list[Browser]]:
    processes, ports = [], []
    for number in range(2):
        log = tmp_path / f"app{number}"
        with log.open("wb") as out:
            environment = {"SESSIOND_URL": sessiond_server.url}
            command = [sys.executable, str(APP), "--port", "0"]
            processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT))
        while "http://127.0.0.1:" not in log.read_text():
            assert processes[-1].poll() is None, log.read_text()
            await asyncio.sleep(0.02)
        ports.append(int(log.read_text().partition("http://127.0.0.1:")[2].split()[0]))
    browsers = [Browser(name, ports) for name in ("phone", "laptop", "kiosk")]
    yield browsers
    for browser in browsers:
        await browser.http.close()
    for process in processes:
        process.terminate()
        process.wait(10)


async def test_a_login_keeps_the_cart_and_moves_to_a_new_id(browsers: list[Browser]) -> None:
    """The cart of before the login is there after it, in the other process too, under another cookie."""
    phone = browsers[0]
    await phone.ask("POST", "/add/lamp")
    before = [cookie.value for cookie in phone.http.cookie_jar]

    assert await phone.ask("POST", "/login/ada") == "ada: lamp"
    assert await phone.ask("POST", "/add/book") == "added"
    assert await phone.ask("GET", "/") == "ada: lamp, book"
    assert [cookie.value for cookie in phone.http.cookie_jar] != before


async def test_devices_are_listed_and_logged_out(browsers: list[Browser]) -> None:
    """A user sees all devices and no others', and logs the others out at once, in all processes."""
    phone, laptop, kiosk = browsers
    await asyncio.gather(
        phone.ask("POST", "/login/ada"), laptop.ask("POST", "/login/ada"), kiosk.ask("POST", "/login/bob")
    )

    assert await phone.ask("GET", "/devices") == "laptop\nphone (this one)"
    assert await phone.ask("POST", "/logout-everywhere") == "1 others logged out"
    assert await laptop.ask("GET", "/") == "nobody: nothing"
    assert await laptop.ask("GET", "/devices") == "log in first"
    assert await kiosk.ask("GET", "/") == "bob: nothing"
    assert await phone.ask("POST", "/logout") == "bye"
    assert await phone.ask("GET", "/") == "nobody: nothing"
    assert not [cookie for cookie in phone.http.cookie_jar if cookie.value]


async def test_a_visitor_who_leaves_nothing_gets_no_session(browsers: list[Browser]) -> None:
    """Looking at the page makes no session and no cookie."""
    assert await browsers[0].ask("GET", "/") == "nobody: nothing"
    assert not list(browsers[0].http.cookie_jar)
