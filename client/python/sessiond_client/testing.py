"""A real daemon for tests: a pytest plugin, and `Server`, which works without pytest's fixtures too.

The daemon is a process of its own, on a port of its own choice, with a clock that tests can push forward. Where the
daemon is not installed, tests that need it are skipped, unless the environment's `SESSIOND_TEST_REQUIRE` contains
`sessiond` or is `all`: then they fail.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from ._async import AsyncClient
from ._sync import Client
from ._urls import parse_urls

START_TIMEOUT = 10.0
_URL = re.compile(r"(?:https?|unix)://[^\s,]+")


class Server:
    """A daemon on this machine, from `start` to `stop`; as a context manager it does both.

    Args:
        listen: `HOST:PORT`, port 0 for any free one, or `unix:PATH`.
        data: the file of its sessions; by default one that goes with the server.
        options: further arguments for `sessiond serve`.

    The environment's `SESSIOND_COMMAND` says how to run the daemon, if not as `python -m sessiond`.
    """

    def __init__(
        self, *, listen: str = "127.0.0.1:0", data: str | Path | None = None, options: Sequence[str] = ()
    ) -> None:
        self.url = ""  #: where it listens, once it has started
        self._listen = listen
        self._folder = tempfile.TemporaryDirectory(prefix="sessiond-")
        self._data = str(data or Path(self._folder.name, "sessions.db"))
        self._options = [*options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the daemon and returns when it listens. Raises RuntimeError, with what it said, when it does not."""
        folder = Path(self._folder.name)
        command = shlex.split(os.environ.get("SESSIOND_COMMAND", "")) or [sys.executable, "-m", "sessiond"]
        arguments = ["serve", "--listen", self._listen, "--data", self._data, "--adjustable-clock", *self._options]
        # Its output goes to files: a pipe that nobody reads would block it one day.
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            self._process = subprocess.Popen([*command, *arguments], stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        until = time.monotonic() + START_TIMEOUT
        while not (line := (folder / "out").read_text(errors="replace").partition("\n"))[1]:
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                said = (folder / "err").read_text(errors="replace").strip()
                raise RuntimeError(f"sessiond did not start within {START_TIMEOUT:g} s. It said: {said or 'nothing'}")
            time.sleep(0.01)
        found = _URL.search(line[0])
        if found is None:
            self.kill()
            raise RuntimeError(f"sessiond started with a line that names no address: {line[0]}")
        self.url = found[0]
        if not self.url.startswith("unix:"):
            self._listen = self.url.partition("://")[2]  # the same port for the next start

    def stop(self) -> None:
        """Ends the daemon as an operator would; it finishes its work first."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(START_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Ends the daemon without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Ends the daemon, unless it has ended, and starts it at the same address with the same data."""
        self.stop()
        self.start()

    def advance(self, seconds: float) -> int:
        """Pushes the daemon's clock forward and returns its time, in ms since the Unix epoch."""
        reply = self._post("/v1/clock", {"advance_ms": round(seconds * 1000)})
        return int(reply["now"])

    def now(self) -> int:
        """The daemon's time, in ms since the Unix epoch."""
        return self.advance(0)

    def close(self) -> None:
        """Ends the daemon and removes what it kept in the server's own folder."""
        self.stop()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        address = parse_urls(self.url)[0]
        connection = http.client.HTTPConnection(
            address.host or "localhost", address.port or None, timeout=START_TIMEOUT
        )
        if address.path:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(address.path)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"sessiond answered {response.status} to {path}: {answer.decode(errors='replace')}")
        return json.loads(answer)


def require_sessiond() -> None:
    """Skips the test where the daemon cannot be run, or fails it where `SESSIOND_TEST_REQUIRE` asks for it."""
    if os.environ.get("SESSIOND_COMMAND") or importlib.util.find_spec("sessiond") is not None:
        return
    reason = "the daemon is not installed: pip install sessiond, or set SESSIOND_COMMAND"
    required = os.environ.get("SESSIOND_TEST_REQUIRE", "")
    if required == "all" or "sessiond" in required.replace(",", " ").split():
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def sessiond_server() -> Iterator[Server]:
    """A daemon of this test's own, empty at first."""
    require_sessiond()
    with Server() as server:
        yield server


@pytest.fixture
def sessiond_client(sessiond_server: Server) -> Iterator[Client]:
    """A blocking client of that daemon."""
    with Client(sessiond_server.url) as client:
        yield client


@pytest.fixture
def sessiond_async_client(sessiond_server: Server) -> Iterator[AsyncClient]:
    """An asyncio client of that daemon, for whichever event loop the test runs."""
    # A plain fixture, so that it needs no plugin for asyncio and no say in which loop the test gets.
    client = AsyncClient(sessiond_server.url)
    yield client
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.close())
    loop.close()
    with warnings.catch_warnings():
        # The test's loop may have been closed before us, and then nobody can close its connection any more.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
