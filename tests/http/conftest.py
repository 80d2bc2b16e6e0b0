"""One daemon over SQLite for the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.support import Daemon, make_token


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    daemon = Daemon("--adjustable-clock", data=str(folder / "s.db"))
    yield daemon
    assert daemon.stop() == 0, daemon.log


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Daemon]:
    """One that asks for tokens; its `token` is an admin's."""
    data = str(folder / "guarded.db")
    token = make_token(data, "operator", "--admin")
    # These tests send more wrong tokens than anybody may.
    daemon = Daemon("--adjustable-clock", "--failure-budget", "off", data=data)
    daemon.token = token
    yield daemon
    assert daemon.stop() == 0, daemon.log


@pytest.fixture
def empty(daemon: Daemon) -> Daemon:
    """The daemon without a session."""
    assert daemon.ask("DELETE", "/v1/sessions?all=true").status == 200
    return daemon
