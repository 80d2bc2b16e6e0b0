"""The Express examples for real: four processes over one daemon, a login that two languages share, and the program that
measures what each session store loses. npm installs into copies, never into the working tree."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from sessiond_client import cookies
from sessiond_client.testing import Server
from tests.tools import require

ROOT = Path(__file__).parents[2]
COPIED = ("client/node", "examples/express-counter", "examples/shared-login", "benchmarks/express_correctness")
SECRET = "of this test"
WHOAMI = ROOT / "examples" / "shared-login" / "whoami.py"

Install = Callable[[str], Path]


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Makes a Node folder of the project ready to run, once in a test session, and answers where its copy is."""
    require("node", "npm")
    copy = tmp_path_factory.mktemp("express")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("node_modules"))
    installed: set[str] = set()

    def install(folder: str) -> Path:
        if folder not in installed:
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
            done = subprocess.run(command, cwd=copy / folder, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            installed.add(folder)
        return copy / folder

    return install


class App:
    """A process that prints where it listens, and can be killed and started again there."""

    def __init__(self, command: list[str | Path], environment: dict[str, str], log: Path) -> None:
        self._command = command
        self._environment = {"PATH": os.environ["PATH"], **environment}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def children(self) -> set[int]:
        """Its child processes, by their ids."""
        assert self._process is not None
        pid = self._process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    async def start(self) -> None:
        # Node's apps take the port from the environment, Python's from the command line.
        arguments = ["--port", str(self.port)] if self._command[0] == sys.executable else []
        environment = self._environment | {"PORT": str(self.port)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.port = (await self.has_listened(1))[0]

    async def has_listened(self, times: int) -> list[int]:
        """The ports it has named, once it has said so often that it listens: each worker of a cluster does."""
        for _ in range(2000):
            ports = re.findall(r"(?:port |http://127\.0\.0\.1:)(\d+)", self._log.read_text())
            if len(ports) >= times:
                return [int(port) for port in ports]
            await asyncio.sleep(0.01)
        raise AssertionError(self._log.read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


Start = Callable[..., Awaitable[App]]


@pytest.fixture
async def start(sessiond_server: Server, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts an app over the daemon of this test."""
    apps: list[App] = []

    async def start(*command: str | Path) -> App:
        secrets = {"COUNTER_SECRET": SECRET, "LOGIN_SECRET": SECRET}
        environment = {"SESSIOND_URL": sessiond_server.url, **secrets}
        apps.append(App([*command], environment, tmp_path / f"app{len(apps)}"))
        await apps[-1].start()
        return apps[-1]

    yield start
    for app in apps:
        app.kill()


class Browser:
    """A browser, which sends its cookies to every port as all do, and asks each question over a new connection."""

    def __init__(self) -> None:
        self.jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False)

    async def ask(self, method: str, url: str, **form: str) -> tuple[int, str]:
        """The status and the text of the page."""
        async with (
            aiohttp.ClientSession(cookie_jar=self.jar, timeout=aiohttp.ClientTimeout(20)) as session,
            session.request(method, url, data=form or None) as answer,
        ):
            return answer.status, await answer.text()

    async def views(self, app: App) -> int:
        status, text = await self.ask("GET", app.url)
        assert status == 200, text
        return int(text.removeprefix("Views: "))

    async def log_in(self, login: App, user: str = "ada") -> None:
        status, text = await self.ask("POST", f"{login.url}/login", user=user, password="sesame")
        assert (status, user in text) == (200, True), text

    def twin(self) -> "Browser":
        """Another browser, with the cookies that this one has now."""
        twin = Browser()
        twin.jar.update_cookies({cookie.key: cookie.value for cookie in self.jar}, URL("http://127.0.0.1/"))
        return twin

    @property
    def sid(self) -> str | None:
        values: dict[str, str] = {cookie.key: cookie.value for cookie in self.jar}
        return cookies.unsign(cookies.decode_cookie(values.get("connect.sid", "")), SECRET)


@pytest.fixture
async def browser() -> Browser:
    return Browser()


@pytest.fixture
async def counters(install: Install, start: Start) -> list[App]:
    """The counter as four processes on four ports."""
    folder = install("examples/express-counter")
    return list(await asyncio.gather(*(start("node", folder / "app.js") for _ in range(4))))


async def test_four_processes_count_one_visitor(counters: list[App], browser: Browser) -> None:
    """Whichever Express process a request meets, it finds the count where the last one left it."""
    views = [await browser.views(counters[visit % 4]) for visit in range(12)]

    assert list(range(1, 13)) == views


async def test_the_count_outlives_every_process(counters: list[App], browser: Browser, sessiond_server: Server) -> None:
    """The count goes on after kill -9 of each app and of the daemon, and the apps find the new daemon by themselves."""
    views = [await browser.views(counters[0])]
    for app in counters:
        app.kill()
        await app.start()
        views.append(await browser.views(app))
    sessiond_server.kill()
    sessiond_server.start()
    views += [await browser.views(app) for app in counters]

    assert list(range(1, 10)) == views


async def test_a_daemon_that_is_away_logs_nobody_out(
    counters: list[App], browser: Browser, sessiond_server: Server
) -> None:
    """While the daemon is away the page says 503 and leaves the cookie alone; when it is back the count goes on."""
    await browser.views(counters[0])
    sid = browser.sid
    sessiond_server.kill()

    status, _ = await browser.ask("GET", counters[0].url)
    sessiond_server.start()

    # A store that has found no daemon fails at once, for up to a second, before it looks again.
    while (back := await browser.ask("GET", counters[0].url))[0] == 503:
        await asyncio.sleep(0.05)

    assert 503 == status
    assert (200, "Views: 2\n") == back
    assert browser.sid == sid


async def test_a_cluster_counts_one_visitor_through_the_death_of_each_worker(
    install: Install, start: Start, browser: Browser
) -> None:
    """Four workers behind one port share the count, and those that replace killed ones take it up."""
    cluster = await start("node", install("examples/express-counter") / "cluster.js")
    views = []
    await cluster.has_listened(4)  # the port is theirs for as long as one of them is there
    for killed, worker in enumerate(cluster.children, 1):
        views += [await browser.views(cluster) for _ in range(4)]
        os.kill(worker, signal.SIGKILL)
        await cluster.has_listened(4 + killed)
    views.append(await browser.views(cluster))

    assert list(range(1, 18)) == views
    assert 4 == len(cluster.children)


@pytest.fixture
async def login(install: Install, start: Start) -> App:
    """The Express app that logs in."""
    return await start("node", install("examples/shared-login") / "login.js")


@pytest.fixture
async def whoami(start: Start) -> App:
    """The Python app that knows who is logged in."""
    return await start(sys.executable, WHOAMI)


async def test_express_logs_in_and_python_knows_who_it_is(login: App, whoami: App, browser: Browser) -> None:
    """A login in Express is one in Python, with the same cookie, and only with the right password."""
    before = await browser.ask("GET", whoami.url)
    refused, _ = await browser.ask("POST", f"{login.url}/login", user="ada", password="guess")
    await browser.log_in(login)

    assert (200, "You are not logged in.\n") == before
    assert 403 == refused
    assert (200, "You are ada.\n") == await browser.ask("GET", whoami.url)


async def test_logging_out_in_python_logs_out_of_express(login: App, whoami: App, browser: Browser) -> None:
    """After a logout in Python the old cookie, kept and sent again, opens nothing in Express."""
    await browser.log_in(login)
    thief = browser.twin()
    assert "You are ada" in (await thief.ask("GET", login.url))[1]

    await browser.ask("POST", f"{whoami.url}/logout")

    for someone in (browser, thief):
        assert "Log in" in (await someone.ask("GET", login.url))[1]


async def test_logging_out_in_express_logs_out_of_python(login: App, whoami: App, browser: Browser) -> None:
    """After a logout in Express the old cookie, kept and sent again, names nobody in Python."""
    await browser.log_in(login)
    thief = browser.twin()
    assert (200, "You are ada.\n") == await thief.ask("GET", whoami.url)

    await browser.ask("POST", f"{login.url}/logout")

    for someone in (browser, thief):
        assert (200, "You are not logged in.\n") == await someone.ask("GET", whoami.url)


async def test_logging_out_everywhere_ends_the_sessions_that_express_made(
    login: App, whoami: App, browser: Browser
) -> None:
    """Python ends all sessions of a user, in every browser, and nobody else's."""
    phone, stranger = Browser(), Browser()
    for each, user in ((browser, "ada"), (phone, "ada"), (stranger, "grace")):
        await each.log_in(login, user)

    await browser.ask("POST", f"{whoami.url}/logout-everywhere")

    assert "Log in" in (await phone.ask("GET", login.url))[1]
    assert "You are grace" in (await stranger.ask("GET", login.url))[1]


async def test_a_cookie_signed_by_somebody_else_names_nobody(login: App, whoami: App, browser: Browser) -> None:
    """A living sid is worth nothing in either app without the signature of the secret that both know."""
    await browser.log_in(login)
    forged = cookies.encode_cookie(cookies.sign(str(browser.sid), "a guess"))
    browser.jar.update_cookies({"connect.sid": forged}, URL("http://127.0.0.1/"))

    assert "Log in" in (await browser.ask("GET", login.url))[1]
    assert (200, "You are not logged in.\n") == await browser.ask("GET", whoami.url)


@pytest.fixture(scope="session")
def report(install: Install) -> dict[str, Any]:
    """What the program measured over sessiond, and over one peer that needs no server."""
    folder = install("benchmarks/express_correctness")
    # The daemon of this environment, not of another one that may be on the PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["node", "run.js", "--json", "--stores", "memory,sessiond"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def cells(report: dict[str, Any], store: str) -> dict[str, Any]:
    """What was measured over a store, by the scenario's id."""
    column = next(column for column in report["columns"] if column["name"] == store)
    return {scenario: cell["value"] for scenario, cell in column["cells"].items()}


def test_sessiond_loses_nothing_in_any_scenario(report: dict[str, Any]) -> None:
    """Restarts, kill -9, other processes, requests at once and late saves cost no session, no key and no logout."""
    measured = cells(report, "sessiond")
    max_age = measured.pop("max-age")
    timed = {"list": measured.pop("list")["found"], "away": measured.pop("away")["status"]}
    del measured["gone"], measured["same-key"]  # a time, and what sessiond does not promise: the later save stands

    assert {
        "restart": 100,
        "stop": 100,
        "kill": 100,
        "processes": 20,
        "keys": 100,
        "keys-processes": 100,
        "keys-beside-reads": 100,
        "late-save": {"back": False, "status": 200},
        "late-touch": {"back": False, "status": 200},
        "cookie-expires": True,
        "ids-on-disk": 0,
        "outage": {"alive": 4, "exitCodes": []},
    } == measured
    assert {"list": 3, "away": 503} == timed
    # A busy machine is late, but never by the second that stores without milliseconds are.
    assert 495 <= max_age["shortest"] <= max_age["longest"] < 1000


def test_the_program_sees_what_a_store_loses(report: dict[str, Any]) -> None:
    """The same scenarios find the losses of MemoryStore: the program can tell a good store from a bad one."""
    measured = cells(report, "memory")

    assert (0, 0, 1) == (measured["restart"], measured["kill"], measured["processes"])
    assert measured["keys"] < 100
    assert measured["keys-processes"] < 100
    assert measured["late-save"]["back"]


def test_the_page_shows_every_scenario(report: dict[str, Any]) -> None:
    """docs/express.md has one row for each scenario, as it is titled now, and the example as it stands."""
    page = (ROOT / "docs" / "express.md").read_text()
    example = (ROOT / "examples" / "express-counter" / "app.js").read_text().partition("\n\n")[2]

    assert [] == [title for title in report["titles"].values() if f"\n| {title} |" not in page]
    assert example in page
