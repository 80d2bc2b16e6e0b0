"""What can be compared: stores by name, how each is opened, and what it needs.

A store may be opened on another one: an app on the server that keeps its sessions, a state on the store that it is a
state of. All answer at a URL.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.speed import load, loads, servers

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

KEYS = 10_000
"""Sessions in a store, unless its name says otherwise."""

VISITORS = 256
"""Cookies for an app: several times as many as there are connections to it (wrk.lua)."""

DYING_TTL = 3600
"""Seconds. Sessions that are to be swept have it; the clock is moved beyond it."""

SWEPT = 1_000_000


@dataclass
class Store:
    """`sessions`: how many it was filled with. `cookies`: a file with those of an app's visitors. `file`: sessiond's.

    `ensure` is called after each time it was under load, and raises when it was not in the state that its name says.
    """

    url: str
    process: servers.Process
    sessions: int = KEYS
    cookies: Path | None = None
    file: Path | None = None
    is_filled_by_node: bool = False
    ensure: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Spec:
    """`on`: the stores it is opened on, which come first. `needs`: programs, and Python modules with a colon behind.

    `settings`: a sentence for the header of a report.
    """

    open: Callable[[House, Path], AbstractContextManager[Store]]
    settings: str
    on: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def missing(name: str) -> str | None:
    """Why a store cannot be opened here, in words; None if it can."""
    spec = STORES[name]
    for need in spec.needs:
        if need.endswith(":"):
            if importlib.util.find_spec(need[:-1]) is None:
                return f"{need[:-1]} is not installed"
            continue
        try:
            servers.program(need)
        except servers.Unavailable as e:
            return str(e)
    return next(filter(None, map(missing, spec.on)), None)


def all_of(name: str) -> set[str]:
    """A store, and those it is opened on."""
    return {name}.union(*map(all_of, STORES[name].on))


class House:
    """The stores of a run: each is opened when it is first asked for. `folder` is theirs; `say` tells what is going on."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.say = say
        self._folder = folder
        self._open: dict[str, tuple[Store, ExitStack]] = {}

    def __enter__(self) -> House:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(set())

    def __getitem__(self, name: str) -> Store:
        if name not in self._open:
            for other in STORES[name].on:
                self[other]
            self.say(f"opening {name}")
            folder = self._folder / name.replace(" ", "-").replace(",", "")
            folder.mkdir()
            stack = ExitStack()
            with stack:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                store = stack.enter_context(STORES[name].open(self, folder))
                self._open[name] = store, stack.pop_all()
        return self._open[name][0]

    def keep(self, names: set[str]) -> None:
        """Closes all others, the last one first."""
        with ExitStack() as closing:
            for name in [name for name in self._open if name not in names]:
                closing.push(self._open.pop(name)[1])


# Servers ---------------------------------------------------------------------------------------------


def fill(kind: str, url: str, sessions: int, *options: str) -> None:
    """Writes so many sessions. `kind`: sessiond or redis."""
    command = [sys.executable, str(HERE / "load.py"), kind, url, "asyncio", "1", "1", "--fill", "--keys", str(sessions)]
    subprocess.run([*command, *options], check=True)


def redis(
    appendfsync: str = "everysec", sessions: int = KEYS
) -> Callable[[House, Path], AbstractContextManager[Store]]:
    @contextmanager
    def open_redis(house: House, folder: Path) -> Iterator[Store]:
        with servers.redis(folder, appendfsync) as (url, process):
            fill("redis", url, sessions)
            compact(url)
            yield Store(url, process, sessions)

    return open_redis


def compact(url: str) -> None:
    """Has Redis write its append-only file anew, from which it then starts fastest; returns when that is done."""
    import redis as peer

    with peer.Redis.from_url(url) as connection:

        def until_idle() -> None:
            while (info := connection.info("persistence"))["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]:
                time.sleep(0.1)

        until_idle()  # it may have begun one by itself
        connection.bgrewriteaof()
        until_idle()


def sessiond(sessions: int = KEYS, *options: str) -> Callable[[House, Path], AbstractContextManager[Store]]:
    @contextmanager
    def open_sessiond(house: House, folder: Path) -> Iterator[Store]:
        file = folder / "sessions.db"
        with servers.sessiond(file, *options) as (url, process):
            fill("sessiond", url, sessions)
            yield Store(url, process, sessions, file=file)

    return open_sessiond


def server(
    opened: Callable[[Path], AbstractContextManager[tuple[str, servers.Process]]],
) -> Callable[[House, Path], AbstractContextManager[Store]]:
    """One that is filled by the apps on it."""

    @contextmanager
    def open_server(house: House, folder: Path) -> Iterator[Store]:
        with opened(folder) as (url, process):
            yield Store(url, process, 0)

    return open_server


# States of a store -----------------------------------------------------------------------------------


def cold(of: str) -> Callable[[House, Path], AbstractContextManager[Store]]:
    """A copy of a store's file, with a cache for some 90 sessions: what is asked for is not in it."""

    @contextmanager
    def open_cold(house: House, folder: Path) -> Iterator[Store]:
        origin = house[of]
        assert origin.file is not None
        file = folder / "sessions.db"
        with closing(sqlite3.connect(origin.file)) as source, closing(sqlite3.connect(file)) as copy:
            source.backup(copy)  # in one step: the daemon notes the time meanwhile, and then steps would begin anew
        with servers.sessiond(file, "--cache", "64KiB") as (url, process):

            def ensure() -> None:
                gets, misses = metric(url, "sessiond_calls_total"), metric(url, "sessiond_cache_misses_total")
                if misses < 0.8 * gets:
                    raise RuntimeError(f"only {misses:,.0f} of {gets:,.0f} gets were answered from the file")

            yield Store(url, process, origin.sessions, file=file, ensure=ensure)

    return open_cold


def back_up(file: Path, copy: Path, stop: threading.Event) -> None:
    """As docs/operations.md says. Returns when that is done, or `stop` is set."""
    with subprocess.Popen([servers.program("sqlite3"), str(file), f"vacuum into '{copy}'"]) as running:
        while running.poll() is None:
            if stop.is_set():
                running.kill()
                return
            time.sleep(0.01)
    if running.returncode:
        raise RuntimeError(f"the backup of {file} failed")


def metric(url: str, name: str) -> float:
    """The sum of a metric of sessiond over its labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.replace("{", " ").split()[:1] == [name]]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def backed_up(of: str) -> Callable[[House, Path], AbstractContextManager[Store]]:
    """The same store while one backup of its file follows the other."""

    @contextmanager
    def open_backed_up(house: House, folder: Path) -> Iterator[Store]:
        origin = house[of]
        assert origin.file is not None
        stop, file, trouble = threading.Event(), origin.file, list[Exception]()

        def work() -> None:
            try:
                for number in itertools.count():
                    copy = folder / f"{number}.db"
                    back_up(file, copy, stop)
                    if stop.is_set():
                        return
                    copy.unlink(missing_ok=True)
            except Exception as e:
                trouble.append(e)

        def ensure() -> None:
            if trouble:
                raise trouble[0]

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield replace(origin, ensure=ensure)
        finally:
            stop.set()
            thread.join()

    return open_backed_up


def swept(of: str) -> Callable[[House, Path], AbstractContextManager[Store]]:
    """The same store while a million more sessions, which died all at once, are being removed."""

    @contextmanager
    def open_swept(house: House, folder: Path) -> Iterator[Store]:
        origin = house[of]
        before = metric(origin.url, "sessiond_swept_total")
        fill("sessiond", origin.url, SWEPT, "--first", str(origin.sessions), "--ttl", str(DYING_TTL))
        advance = json.dumps({"advance_ms": DYING_TTL * 1000}).encode()
        request(f"{origin.url}/v1/clock", "POST", advance, "application/json")

        def count() -> float:
            return metric(origin.url, "sessiond_swept_total") - before

        def ensure() -> None:
            if count() >= SWEPT:
                raise RuntimeError("the sweep was over before the load was; give fewer rounds")

        until = time.monotonic() + servers.START_TIMEOUT
        while not count():
            if time.monotonic() > until:
                raise RuntimeError("nothing is swept, though a million sessions have expired")
            time.sleep(0.1)
        yield replace(origin, ensure=ensure)

    return open_swept


# Apps and handlers, under wrk ------------------------------------------------------------------------


def request(url: str, method: str = "GET", body: bytes | None = None, content_type: str = "") -> tuple[str, bytes]:
    """The content type and the body of the answer. Raises OSError when that is no 2xx."""
    asked = urllib.request.Request(url, body, {"Content-Type": content_type} if body else {}, method=method)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return answer.headers.get_content_type(), answer.read()


@contextmanager
def site(command: list[str], port: int, folder: Path, environment: Mapping[str, str]) -> Iterator[Store]:
    """An app that listens, with its visitors' cookies, warmed up. Raises RuntimeError when it does not count visits."""
    url = f"http://127.0.0.1:{port}/"
    with servers.Process(command, folder, servers.answers(url), environment) as process:
        visitors = [visit(url)[0] for _ in range(VISITORS)]
        cookies = folder / "cookies"
        cookies.write_text("".join(f"{visitor}\n" for visitor in visitors))
        loads.wrk(url, 16, 1, cookies)
        # Once without a cookie, from wrk, and now; a visit that wrk has cut off may take a count with it.
        if max(visit(url, visitor)[1] for visitor in visitors[:16]) < 3:
            raise RuntimeError(f"{' '.join(command)} does not count the visits of a session")
        yield Store(url, process, VISITORS, cookies)


def visit(url: str, cookie: str = "") -> tuple[str, int]:
    """The cookie that the app gives to somebody who comes without one, and how many times the visitor has been there."""
    asked = urllib.request.Request(url, headers={"Cookie": cookie} if cookie else {})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return (answer.headers["Set-Cookie"] or "").partition(";")[0], int(answer.read())


def express(kind: str, on: str | None) -> Callable[[House, Path], AbstractContextManager[Store]]:
    """One Node process of apps/express.js. On nothing: sessions are in the process, or in a folder of its own."""

    def open_express(house: House, folder: Path) -> AbstractContextManager[Store]:
        port = servers.free_port()
        where = house[on].url if on else str(folder / "sessions")
        command = [servers.program("node"), str(HERE / "apps" / "express.js"), kind, where, str(port)]
        return site(command, port, folder, {"NODE_ENV": "production"})

    return open_express


def gunicorn(app: str, kind: str, on: str) -> Callable[[House, Path], AbstractContextManager[Store]]:
    """Two processes of eight threads of an app in Python."""

    def open_gunicorn(house: House, folder: Path) -> AbstractContextManager[Store]:
        port = servers.free_port()
        environment = {"PYTHONPATH": str(REPOSITORY), "SPEED_URL": house[on].url}
        if (app, kind) == ("django_app", "db"):
            migrate = [sys.executable, "-m", "benchmarks.speed.apps.django_app"]
            subprocess.run(migrate, check=True, env={**os.environ, **environment})
        command = [sys.executable, "-m", "gunicorn", f"benchmarks.speed.apps.{app}:make({kind!r})"]
        command += ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--worker-class", "gthread", "--threads", "8"]
        command += ["--log-level", "warning", "--graceful-timeout", "2"]
        return site(command, port, folder, environment)

    return open_gunicorn


@contextmanager
def rest(house: House, folder: Path) -> Iterator[Store]:
    """One session of sessiond, 300 bytes of JSON, over REST."""
    daemon = house["sessiond"]
    url = f"{daemon.url}/v1/sessions/~{'A' * 43}"
    body = json.dumps(load.session(1), separators=(",", ":")).encode()
    request(url, "PUT", body, "application/json")
    yield Store(url, daemon.process, 1)


@contextmanager
def bare(house: House, folder: Path) -> Iterator[Store]:
    """The same answer, from a constant."""
    expected = request(house["sessiond REST"].url)
    port = servers.free_port()
    command = [sys.executable, str(HERE / "apps" / "bare.py"), str(port), expected[0], expected[1].decode()]
    url = f"http://127.0.0.1:{port}/"
    with servers.Process(command, folder, servers.answers(url)) as process:
        if request(url) != expected:
            raise RuntimeError("the bare handler answers something else than sessiond")
        yield Store(url, process, 1)


# The table -------------------------------------------------------------------------------------------

DURABLE = "its defaults: a commit is on disk when it is acknowledged"
EVERYSEC = "appendonly yes, appendfsync everysec: a write may be lost for a second after it is acknowledged"
NODE = ("node", "npm", "wrk")
FLASK = ("flask:", "gunicorn:", "wrk")
DJANGO = ("django:", "gunicorn:", "wrk")

STORES = {
    "redis": Spec(redis(), EVERYSEC, needs=("redis-server", "redis:")),
    "redis-always": Spec(
        redis("always"), "appendonly yes, appendfsync always: as durable as sessiond", needs=("redis-server", "redis:")
    ),
    "sessiond": Spec(sessiond(), "its defaults: a write is on disk when it is acknowledged"),
    "mariadb": Spec(server(servers.mariadb), DURABLE, needs=("mariadbd", "mariadb-install-db")),
    "postgres": Spec(server(lambda folder: servers.postgres()), DURABLE, needs=("initdb", "postgres", "pg_isready")),
    "connect-sessiond": Spec(express("connect-sessiond", "sessiond"), "its defaults", ("sessiond",), NODE),
    "connect-redis": Spec(express("connect-redis", "redis"), "its defaults, on redis", ("redis",), NODE),
    "express-mysql-session": Spec(
        express("express-mysql-session", "mariadb"), "its defaults, ten connections, on mariadb", ("mariadb",), NODE
    ),
    "session-file-store": Spec(
        express("session-file-store", None), "its defaults without its log; files without fsync", (), NODE
    ),
    "MemoryStore": Spec(express("MemoryStore", None), "in the web process: gone with it", (), NODE),
    "Flask on sessiond": Spec(gunicorn("flask_app", "sessiond", "sessiond"), "its defaults", ("sessiond",), FLASK),
    "Flask-Session": Spec(
        gunicorn("flask_app", "flask-session", "redis"),
        "its defaults, on redis with hiredis",
        ("redis",),
        (*FLASK, "flask_session:"),
    ),
    "Django on sessiond": Spec(gunicorn("django_app", "sessiond", "sessiond"), "its defaults", ("sessiond",), DJANGO),
    "Django db": Spec(
        gunicorn("django_app", "db", "postgres"),
        "django.contrib.sessions' db engine on postgres, a kept connection for each thread",
        ("postgres",),
        (*DJANGO, "psycopg:"),
    ),
    "Django cache": Spec(
        gunicorn("django_app", "cache", "redis"),
        "django.contrib.sessions' cache engine on redis with hiredis",
        ("redis",),
        DJANGO,
    ),
    "sessiond REST": Spec(rest, "GET of one session as JSON", ("sessiond",), ("wrk",)),
    "bare aiohttp": Spec(
        bare, "one handler that answers the same from a constant, uvloop, no access log", ("sessiond REST",), ("wrk",)
    ),
    "redis 1M": Spec(
        redis(sessions=1_000_000), f"{EVERYSEC}; its file just written anew", (), ("redis-server", "redis:")
    ),
    "sessiond 1M": Spec(sessiond(1_000_000, "--adjustable-clock"), "its defaults"),
    "sessiond 1M backed up": Spec(
        backed_up("sessiond 1M"), "one backup after the other", ("sessiond 1M",), ("sqlite3",)
    ),
    "sessiond 1M swept": Spec(swept("sessiond 1M"), "a million expired sessions more", ("sessiond 1M",)),
    "sessiond 1k": Spec(sessiond(1_000), "its defaults"),
    "sessiond 100k": Spec(sessiond(100_000), "its defaults"),
    "sessiond 5M": Spec(sessiond(5_000_000), "its defaults"),
    **{
        f"sessiond {size} cold": Spec(cold(f"sessiond {size}"), "a cache of 64 KiB", (f"sessiond {size}",))
        for size in ("1k", "100k", "1M", "5M")
    },
}
