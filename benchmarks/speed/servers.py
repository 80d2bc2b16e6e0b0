"""The servers that are compared, each a process of ours on a free port of the loopback, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 60.0
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
REPOSITORY = Path(__file__).parents[2]


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
    """A process from `with` to its end. `cpus`: the only ones it may run on."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        ready: Callable[[], bool],
        cpus: set[int] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._log = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        with self._log.open("wb") as out:
            self._child = subprocess.Popen(
                [*command],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=pin,
            )
        until = time.monotonic() + START_TIMEOUT
        while not ready():
            if self._child.poll() is not None or time.monotonic() > until:
                self.end()
                raise RuntimeError(f"{command[0]} did not start: {self.log[-2000:]}")
            time.sleep(0.01)

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
            self._child.terminate()
            try:
                self._child.wait(60)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()


def listens(port: int) -> Callable[[], bool]:
    """Whether somebody accepts connections there."""

    def ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            return False
        return True

    return ready


@contextmanager
def redis(folder: Path, appendfsync: str = "everysec", cpus: set[int] | None = None) -> Iterator[tuple[str, Process]]:
    """Redis with its append-only file on, and no snapshots beside it. Gives its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""]

    def answers() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 0.5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")  # and not -LOADING
        except OSError:
            return False

    process = Process(command, folder, answers, cpus)
    try:
        yield f"redis://127.0.0.1:{port}/0", process
    finally:
        process.end()


@contextmanager
def sessiond(folder: Path, *options: str, cpus: set[int] | None = None) -> Iterator[tuple[str, Process]]:
    """sessiond with its defaults: every write is on disk when it is acknowledged. Gives its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "sessiond", "serve", "--listen", f"127.0.0.1:{port}"]
    command += ["--data", str(folder / "sessions.db"), *options]
    process = Process(command, folder, listens(port), cpus)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.end()
