"""Real apps on real servers, several processes each, and browsers that visit them."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
import pytest

ROOT = Path(__file__).parents[2]
APPS = "tests.client.apps"
START_TIMEOUT = 30.0


def gunicorn(app: str, *options: str) -> Callable[[int, int], list[str]]:
    """The command for an app on gunicorn, given a port and a number of processes."""
    return lambda port, workers: [
        *(sys.executable, "-m", "gunicorn", f"{APPS}.{app}", "--bind", f"127.0.0.1:{port}"),
        *("--workers", str(workers), "--log-level", "warning", "--graceful-timeout", "2", *options),
    ]


def uvicorn(app: str, *options: str) -> Callable[[int, int], list[str]]:
    """The command for an app on uvicorn, given a port and a number of processes."""
    return lambda port, workers: [
        *(sys.executable, "-m", "uvicorn", f"{APPS}.{app}", "--port", str(port)),
        *("--workers", str(workers), "--log-level", "warning", "--timeout-graceful-shutdown", "2", *options),
    ]


def werkzeug(app: str, *options: str) -> Callable[[int, int], list[str]]:
    """The command for an app on Werkzeug's own server: one process, whatever the number, and a thread a request."""
    return lambda port, workers: [
        *(sys.executable, "-m", "flask", "--app", f"{APPS}.{app}", "run", "--port", str(port), *options),
    ]


class Kind(NamedTuple):
    """A framework's app on a server.

    `cookie`: the name of its session cookie by default. `untouched`: how many calls a request costs that brings a cookie
    and does not look at the session: 1 where the framework cannot wait for a session that is looked at.
    """

    module: str  # that has to be installed
    command: Callable[[int, int], list[str]]
    cookie: str
    websockets: bool = False
    untouched: int = 0


KINDS = {
    "aiohttp": Kind(
        "aiohttp",
        gunicorn("aiohttp_app:make", "--worker-class", "aiohttp.GunicornWebWorker"),
        "__Host-session",
        websockets=True,
    ),
    # No WebSockets: the library's middleware gives back whatever is no web.Response before it looks at the session.
    "aiohttp-session": Kind(
        "aiohttp_session",
        gunicorn("aiohttp_session_app:make", "--worker-class", "aiohttp.GunicornWebWorker"),
        "AIOHTTP_SESSION",
    ),
    "litestar": Kind(
        "litestar", uvicorn("litestar_app:make", "--factory"), "__Host-session", websockets=True, untouched=1
    ),
    "litestar-lazy": Kind(
        "litestar", uvicorn("litestar_app:make_lazy", "--factory"), "__Host-session", websockets=True
    ),
    "flask": Kind(
        "flask", gunicorn("flask_app:make()", "--worker-class", "gthread", "--threads", "8"), "__Host-session"
    ),
    "flask on werkzeug": Kind("flask", werkzeug("flask_app:make"), "__Host-session"),
    "django": Kind("django", gunicorn("django_app:make()", "--threads", "8", "--preload"), "sessionid"),
    "django-asgi": Kind("django", uvicorn("django_async_app:make", "--factory"), "sessionid"),
    "starlette": Kind("starlette", uvicorn("starlette_app:app"), "__Host-session", websockets=True, untouched=1),
    "fastapi": Kind("fastapi", uvicorn("fastapi_app:app"), "__Host-session", websockets=True),
}


class Site:
    """An app's processes, from `with` to its end."""

    def __init__(self, kind: str, daemon: str, folder: Path, workers: int = 1, **environment: str) -> None:
        self.kind = KINDS[kind]
        _require(self.kind.module)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"site{self.port}"
        self._command = self.kind.command(self.port, workers)
        self._environment = {**os.environ, "SESSIOND_URL": daemon, "PYTHONPATH": str(ROOT), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise RuntimeError(f"the app did not start: {self.log()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def log(self) -> str:
        """What the processes have printed."""
        return self._log.read_text(errors="replace")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"GET /untouched HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
                return b" 200 " in connection.recv(100)
        except OSError:
            return False


class Answer(NamedTuple):
    status: int
    headers: Any  # a multidict
    text: str
    json: Any  # None when it is not JSON

    @property
    def cookies(self) -> list[str]:
        """The Set-Cookie headers."""
        headers: list[str] = self.headers.getall("Set-Cookie", [])
        return headers


class Browser:
    """Keeps cookies by name and sends them back, also secure ones; follows no redirects."""

    def __init__(self, site: Site, agent: str = "browser") -> None:
        self.site = site
        self.cookies: dict[str, str] = {}
        # A connection a request, so that requests reach all of an app's processes.
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": agent},
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
        )

    @property
    def cookie(self) -> str | None:
        """The value of the session cookie."""
        return self.cookies.get(self.site.kind.cookie)

    async def ask(self, method: str, path: str, cookie: str | None = None) -> Answer:
        """The answer. `cookie`: a `Cookie` header to send in place of the browser's own; then nothing is kept either."""
        said = cookie if cookie is not None else "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with self._http.request(
            method, self.site.url + path, headers={"Cookie": said} if said else {}, allow_redirects=False
        ) as got:
            text = await got.text()
            is_json = got.content_type == "application/json"
            answer = Answer(got.status, got.headers, text, await got.json() if is_json else None)
        if cookie is None:
            self._keep(answer)
        return answer

    async def get(self, path: str) -> Answer:
        return await self.ask("GET", path)

    async def post(self, path: str) -> Answer:
        answer = await self.ask("POST", path)
        assert answer.status < 400, (path, answer.status, answer.text[:500], self.site.log()[-2000:])
        return answer

    async def read(self) -> dict[str, Any]:
        """The data of the session."""
        answer = await self.get("/read")
        assert answer.status == 200, (answer.text[:500], self.site.log()[-2000:])
        data: dict[str, Any] = answer.json["data"]
        return data

    async def calls(self) -> int:
        """How many calls the app has sent to the daemon. For sites of one process."""
        number: int = (await self.ask("GET", "/calls", cookie="")).json
        return number

    async def say(self, *texts: str) -> None:
        """Sends these over a WebSocket, and waits for each to be echoed."""
        said = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with self._http.ws_connect(self.site.url + "/ws", headers={"Cookie": said} if said else {}) as ws:
            for text in texts:
                await ws.send_str(text)
                assert text == await ws.receive_str()

    async def close(self) -> None:
        await self._http.close()
        await asyncio.sleep(0)

    def _keep(self, answer: Answer) -> None:
        for header in answer.cookies:
            name, _, rest = header.partition("=")
            value = rest.partition(";")[0].strip('"')
            attributes = rest.lower()
            if value and "max-age=0" not in attributes and "01 jan 1970" not in attributes:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)


def _require(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        required = os.environ.get("SESSIOND_TEST_REQUIRE", "").replace(",", " ").split()
        reason = f"{module} is not installed"
        if "all" in required or module in required:
            pytest.fail(reason)
        pytest.skip(reason)
