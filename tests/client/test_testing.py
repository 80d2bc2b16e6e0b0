"""The pytest plugin and `Server`, tried as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sessiond_client import Client
from sessiond_client.testing import Server, require_sessiond


def test_server(tmp_path: Path) -> None:
    """A server runs from `with` to its end, on a port of its own, and leaves neither process nor file."""
    with Server() as server, Client(server.url) as client:
        sid = client.create({"a": 1})
        process = server._process
        assert process is not None
        assert process.poll() is None
        assert client.get(sid) is not None

    assert process.poll() is not None
    assert not os.path.exists(server._folder.name)


def test_restart_keeps_address_and_data(sessiond_server: Server) -> None:
    """After a restart, or a kill and a start, the same sessions are at the same address."""
    url = sessiond_server.url
    with Client(url, deadline=10) as client:
        sid = client.create({"a": 1})
        sessiond_server.restart()
        assert client.get(sid) is not None
        sessiond_server.kill()
        sessiond_server.start()
        assert client.get(sid) is not None
    assert sessiond_server.url == url


def test_clock(sessiond_server: Server) -> None:
    """advance moves the daemon's clock, by fractions of a second too; now reads it."""
    before = sessiond_server.now()
    after = sessiond_server.advance(3600.005)

    assert before + 3_600_005 <= after <= sessiond_server.now()
    assert after < before + 3_660_000


def test_servers_do_not_meet() -> None:
    """Several servers run at once, each with its own sessions."""
    with Server() as one, Server() as other, Client(one.url) as client, Client(other.url) as stranger:
        client.create({})
        assert (client.count(), stranger.count()) == (1, 0)


def test_a_server_that_does_not_start() -> None:
    """When the daemon does not start, the error shows what it said, and nothing is left running."""
    server = Server(options=["--no-such-option"])
    with pytest.raises(RuntimeError, match="no-such-option"):
        server.__enter__()
    assert server._process is not None
    assert server._process.poll() is not None


def test_a_command_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """SESSIOND_COMMAND says how to run the daemon."""
    monkeypatch.setenv("SESSIOND_COMMAND", f"{sys.executable} -c 'import sys; sys.exit(\"my own\")'")

    with pytest.raises(RuntimeError, match="my own"):
        Server().__enter__()


def test_without_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no daemon a test is skipped with the reason, or fails when it is required."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("SESSIOND_COMMAND", raising=False)
    monkeypatch.setenv("SESSIOND_TEST_REQUIRE", "redis")
    with pytest.raises(pytest.skip.Exception, match="pip install sessiond"):
        require_sessiond()
    for required in ("all", "redis,sessiond"):
        monkeypatch.setenv("SESSIOND_TEST_REQUIRE", required)
        with pytest.raises(pytest.fail.Exception, match="pip install sessiond"):
            require_sessiond()


def test_fixtures_in_a_project_of_its_own(tmp_path: Path) -> None:
    """The fixtures are there without any configuration, for blocking tests and for asyncio."""
    (tmp_path / "test_app.py").write_text(
        "import asyncio\n"
        "def test_blocking(sessiond_server, sessiond_client):\n"
        "    sid = sessiond_client.create({'user': 'ada'}, ttl=60)\n"
        "    sessiond_server.advance(60)\n"
        "    assert sessiond_client.get(sid) is None\n"
        "def test_asyncio(sessiond_async_client):\n"
        "    async def main():\n"
        "        sid = await sessiond_async_client.create({'a': 1})\n"
        "        assert (await sessiond_async_client.get(sid)).data == {'a': 1}\n"
        "    with asyncio.Runner() as runner:\n"
        "        runner.run(main())\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


async def test_async_fixture(sessiond_async_client: object) -> None:
    """The asyncio client works in whichever loop a plugin gives the test."""
    from sessiond_client import AsyncClient

    assert isinstance(sessiond_async_client, AsyncClient)
    assert await sessiond_async_client.count() == 0


def test_server_from_a_thread(sessiond_server: Server) -> None:
    """A server may be stopped and started by another thread than the one that made it."""
    thread = threading.Thread(target=sessiond_server.restart)
    thread.start()
    thread.join()

    assert sessiond_server.now() > 0
