"""examples/counter for real: three processes on three ports, browsers at once, and kill -9 of everything in turn."""

import asyncio
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from sessiond_client import AsyncClient, cookies
from sessiond_client.testing import Server

APP = Path(__file__).parents[2] / "examples" / "counter" / "app.py"
COOKIE, SECRET = "counter", "of this test"


class App:
    """One process of the page, that can be killed and started again on its port."""

    def __init__(self, url: str, log: Path) -> None:
        self._url = url
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    async def start(self) -> None:
        command = [sys.executable, str(APP), "--port", str(self.port)]
        environment = {"SESSIOND_URL": self._url, "COUNTER_SECRET": SECRET}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        for _ in range(1000):
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", self._log.read_text()):
                self.port = int(found[1])
                return
            await asyncio.sleep(0.01)
        raise AssertionError(self._log.read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass
class Visitor:
    """A browser with its cookie jar, and what it was told."""

    jar: aiohttp.CookieJar = field(default_factory=lambda: aiohttp.CookieJar(unsafe=True, quote_cookie=False))
    seen: list[int] = field(default_factory=list)

    async def visit(self, port: int, path: str = "/") -> str | None:
        """The page, or None when nobody served it; the cookie stays then."""
        method = "POST" if path == "/leave" else "GET"
        try:
            async with (
                aiohttp.ClientSession(cookie_jar=self.jar) as browser,
                browser.request(method, f"http://127.0.0.1:{port}{path}", timeout=aiohttp.ClientTimeout(10)) as answer,
            ):
                text = await answer.text()
                assert answer.status == 200 or "Set-Cookie" not in answer.headers
                return text if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def count(self, port: int) -> int | None:
        text = await self.visit(port)
        if text is None:
            return None
        self.seen.append(int(text.removeprefix("Views: ")))
        return self.seen[-1]

    @property
    def sid(self) -> str | None:
        values: dict[str, str] = {cookie.key: cookie.value for cookie in self.jar}
        return cookies.unsign(cookies.decode_cookie(values.get(COOKIE, "")), SECRET)


@pytest.fixture
async def apps(sessiond_server: Server, tmp_path: Path) -> AsyncIterator[list[App]]:
    apps = [App(sessiond_server.url, tmp_path / f"app{number}") for number in range(3)]
    try:
        await asyncio.gather(*(app.start() for app in apps))
        yield apps
    finally:
        for app in apps:
            app.kill()


async def test_three_processes_count_one_visitor(apps: list[App]) -> None:
    """Whichever process a request meets, it finds the count where the last one left it."""
    visitor = Visitor()

    counts = [await visitor.count(apps[visit % 3].port) for visit in range(9)]

    assert list(range(1, 10)) == counts


async def test_requests_at_once_each_get_their_own_number(apps: list[App]) -> None:
    """Thirty requests of one visitor at once, over three processes, raise the count by thirty: none is lost."""
    visitor = Visitor()
    await visitor.count(apps[0].port)

    counts = await asyncio.gather(*(visitor.count(apps[visit % 3].port) for visit in range(30)))

    assert list(range(2, 32)) == sorted(count for count in counts if count)


async def test_logging_out_in_one_process_logs_out_of_all(apps: list[App]) -> None:
    """After leaving, the old cookie finds nothing in any process, and its id is not taken up again."""
    visitor = Visitor()
    await visitor.count(apps[0].port)
    old = visitor.sid
    before = {cookie.key: cookie.value for cookie in visitor.jar}
    await visitor.visit(apps[1].port, "/leave")

    visitor.jar.update_cookies(before, URL(f"http://127.0.0.1:{apps[2].port}/"))

    assert 1 == await visitor.count(apps[2].port)
    assert visitor.sid not in (None, old)


async def test_nothing_acknowledged_is_lost_when_everything_is_killed(
    apps: list[App], sessiond_server: Server, sessiond_async_client: AsyncClient
) -> None:
    """Visitors keep coming while the daemon and the apps are killed with -9 and started again: no number is given
    twice, no acknowledged view is missing at the end, and nobody who left is back."""
    chance = random.Random(random.SystemRandom().getrandbits(32))
    visitors = [Visitor() for _ in range(8)]
    left: list[str] = []
    busy = True

    async def browse(visitor: Visitor) -> None:
        while busy:
            if visitor.seen and chance.random() < 0.05:
                sid = visitor.sid
                if await visitor.visit(chance.choice(apps).port, "/leave") and sid:
                    left.append(sid)
                # Without an answer nobody knows whether he has left; either way he comes back as somebody else.
                visitor.jar.clear()
                visitor.seen.clear()
            else:
                await visitor.count(chance.choice(apps).port)
                assert len(visitor.seen) == len(set(visitor.seen)), visitor.seen
            await asyncio.sleep(0.01)

    async def destroy_things() -> None:
        for blow in range(12):
            await asyncio.sleep(chance.uniform(0.1, 0.5))
            if blow % 2:
                await asyncio.to_thread(sessiond_server.kill)
                await asyncio.to_thread(sessiond_server.start)
            else:
                app = chance.choice(apps)
                app.kill()
                await app.start()

    async with asyncio.TaskGroup() as tasks:
        browsing = [tasks.create_task(browse(visitor)) for visitor in visitors]
        await destroy_things()
        busy = False
        await asyncio.wait(browsing)

    for visitor in visitors:
        if visitor.sid is not None and visitor.seen:
            session = await sessiond_async_client.get(visitor.sid)
            assert session is not None, "an acknowledged session is missing"
            assert session.data["views"] >= max(visitor.seen)
    assert left, "somebody should have left"
    for sid in left:
        assert await sessiond_async_client.get(sid) is None, "a destroyed session is back"
