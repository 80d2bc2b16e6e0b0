"""The servers that are compared, each a process of ours on a free port of the loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 120.0
END_TIMEOUT = 60.0
#: Where programs are looked for: mariadbd is in an sbin, which is not on everybody's PATH, and PostgreSQL's are on nobody's.
PLACES = os.pathsep.join(
    [
        os.environ.get("PATH", ""),
        "/usr/sbin",
        "/usr/local/sbin",
        *(str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    ]
)


class Unavailable(Exception):
    """A program that a line needs is not installed; the text says which."""


def program(name: str) -> str:
    """Where a program is. Raises Unavailable."""
    found = shutil.which(name, path=PLACES)
    if found is None:
        raise Unavailable(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A server that has answered, from `with` to its end. Raises RuntimeError, with what it printed, if it never does.

    It is in a session of its own, so that Ctrl-C is ours to handle: the servers end in the reverse of their order.
    `user`: who it runs as, where we are root and it refuses to be. `farewell`: the signal that ends it in good order.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        farewell: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._command, self._folder, self._ready = [*command], folder, ready
        self._environment = {**os.environ, **(environment or {})}
        self._user, self._farewell = user, farewell
        self._log = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        self.start()

    def start(self) -> float:
        """Starts it, again too; the seconds from then to its first good answer."""
        began = time.monotonic()
        with self._log.open("ab") as out:
            self._child = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
                group=group_of(self._user),
                extra_groups=None if self._user is None else [],
            )
        try:
            while not self._ready():
                if self._child.poll() is not None or time.monotonic() > began + START_TIMEOUT:
                    raise RuntimeError(f"{self._command[0]} did not start: {self.log[-2000:]}")
                time.sleep(0.01)
        except BaseException:
            self.end()
            raise
        return time.monotonic() - began

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def memory(self) -> int:
        """Bytes of memory that the process has for itself (RssAnon of proc(5))."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the process has ended")

    def end(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(self._farewell)
            try:
                self._child.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()


def group_of(user: str | None) -> int | None:
    return None if user is None else pwd.getpwnam(user).pw_gid


def listens(port: int) -> Callable[[], bool]:
    """Whether somebody accepts connections there."""

    def ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            return False
        return True

    return ready


def answers(url: str) -> Callable[[], bool]:
    """Whether a GET there is answered with a 2xx."""

    def ready() -> bool:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (OSError, urllib.error.URLError):
            return False
        return True

    return ready


@contextmanager
def redis(folder: Path, appendfsync: str = "everysec") -> Iterator[tuple[str, Process]]:
    """Redis with its append-only file on, and no snapshots beside it. Gives its URL."""
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""]

    def pongs() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 0.5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")  # and not -LOADING
        except OSError:
            return False

    with Process(command, folder, pongs) as process:
        yield f"redis://127.0.0.1:{port}/0", process


@contextmanager
def sessiond(file: Path, *options: str) -> Iterator[tuple[str, Process]]:
    """sessiond with its defaults: every write is on disk when it is acknowledged. Gives its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "sessiond", "serve", "--listen", url.removeprefix("http://")]
    command += ["--data", str(file), *options]
    with Process(command, file.parent, answers(f"{url}/readyz")) as process:
        yield url, process


@contextmanager
def mariadb(folder: Path) -> Iterator[tuple[str, Process]]:
    """MariaDB with its defaults: a commit is on disk when it is acknowledged. Gives the URL of an empty database."""
    port = free_port()
    user = ["--user=root"] if os.getuid() == 0 else []  # it refuses root unless told so
    data, init = folder / "data", folder / "init.sql"
    install = [program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db", *user]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    init.write_text(  # one statement a line
        "create database if not exists sessions;\ncreate user if not exists web@'%' identified by 'web';\n"
        "grant all on sessions.* to web@'%';\n"
    )
    command = [program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--socket={folder}/socket", *user]
    command += [f"--pid-file={folder}/pid", "--bind-address=127.0.0.1", f"--port={port}"]
    command += ["--skip-name-resolve", f"--init-file={init}"]
    with Process(command, folder, listens(port)) as process:
        yield f"mysql://web:web@127.0.0.1:{port}/sessions", process


@contextmanager
def postgres() -> Iterator[tuple[str, Process]]:
    """PostgreSQL with its defaults: a commit is on disk when it is acknowledged. Gives the URL of an empty database.

    It refuses root, and its user cannot enter a folder of root's: so it has one of its own, which is deleted at the end.
    """
    user = "postgres" if os.getuid() == 0 else None
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="speed-postgres-") as name:
        if user is not None:
            shutil.chown(name, user, group_of(user))
        data = f"{name}/data"
        initdb = [program("initdb"), "--pgdata", data, "--username=web", "--auth=trust"]
        subprocess.run(initdb, check=True, cwd=name, stdout=subprocess.DEVNULL, user=user, group=group_of(user))
        command = [program("postgres"), "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "unix_socket_directories="]
        is_ready = [program("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}", "--username=web"]

        def ready() -> bool:
            return subprocess.run(is_ready, check=False).returncode == 0

        # SIGTERM would wait for clients to go.
        with Process(command, Path(name), ready, user=user, farewell=signal.SIGINT) as process:
            yield f"postgresql://web@127.0.0.1:{port}/postgres", process
