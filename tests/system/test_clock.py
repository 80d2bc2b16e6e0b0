"""A wall clock that is set back, by real processes: what had died stays dead, and the log says what happened."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.http.support import JSON, Daemon, key_of, wait_until
from tests.tools import require


def started(data: Path, shift: str, *arguments: str) -> Daemon:
    """A daemon whose wall clock, and nothing else, is off by `shift`."""
    # faketime would stand between the daemon and its signals, so it is only asked what it would set.
    asked = subprocess.run(["faketime", "-f", shift, "env"], check=True, capture_output=True, text=True).stdout
    names = ("LD_PRELOAD=", "FAKETIME=")
    environment = dict(line.split("=", 1) for line in asked.splitlines() if line.startswith(names))
    environment["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
    return Daemon(*arguments, data=str(data), environment=environment)


def expires_at(daemon: Daemon, sid: str) -> int:
    return int(str(daemon.ask("GET", f"/v1/sessions/{key_of(sid)}").headers["Session-Expires-At"]))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_clock_that_was_set_back_revives_nothing(tmp_path: Path, end: signal.Signals) -> None:
    """A session that was told dead is dead after a restart two hours earlier, by its ttl and by its lifetime."""
    require("faketime")
    data = tmp_path / "sessions.db"
    daemon = started(data, "+0", "--adjustable-clock", "--sweep-interval", "1h")
    try:
        idle, aged = daemon.create("{}", "?ttl=600"), daemon.create("{}", "?ttl=600&lifetime=900")
        lasting = daemon.create("{}", "?ttl=86400")
        daemon.advance(599_000)
        kept_alive = daemon.ask("POST", f"/v1/sessions/{key_of(aged)}/touch").status
        daemon.advance(301_000)
        dead = [daemon.ask("GET", f"/v1/sessions/{key_of(sid)}").status for sid in (idle, aged)]
        daemon.create("{}")  # a write, which takes the time with it
        lasts_until = expires_at(daemon, lasting)
    finally:
        daemon.stop(end)

    daemon = started(data, "-2h")
    try:
        again = [daemon.ask("GET", f"/v1/sessions/{key_of(sid)}").status for sid in (idle, aged, lasting)]
        renewed = [daemon.ask("POST", f"/v1/sessions/{key_of(sid)}/touch").status for sid in (idle, aged, lasting)]
        later = expires_at(daemon, lasting)
        log = daemon.log
    finally:
        daemon.stop()

    assert (204, [404, 404]) == (kept_alive, dead)
    assert [404, 404, 200] == again
    assert [404, 404, 204] == renewed
    assert later >= lasts_until
    assert "behind the latest instant in" in log


def test_an_idle_daemon_keeps_the_time(tmp_path: Path) -> None:
    """Nobody calls, the daemon is killed, and what died meanwhile is dead though the wall clock is an hour behind."""
    require("faketime")
    data = tmp_path / "sessions.db"
    daemon = started(data, "+0", "--adjustable-clock", "--sweep-interval", "1h")
    try:
        sid = daemon.create("{}", "?ttl=600")
        daemon.advance(700_000)
        kept = (data.stat().st_mtime_ns, Path(f"{data}-wal").stat().st_mtime_ns)
        wait_until(lambda: kept != (data.stat().st_mtime_ns, Path(f"{data}-wal").stat().st_mtime_ns))
    finally:
        daemon.stop(signal.SIGKILL)

    daemon = started(data, "-1h")
    try:
        status = daemon.ask("POST", f"/v1/sessions/{key_of(sid)}/touch").status
    finally:
        daemon.stop()

    assert 404 == status


def test_a_clock_that_is_right_is_not_complained_about(tmp_path: Path) -> None:
    """A restart under the same clock, or under one that is ahead, says nothing of it."""
    require("faketime")
    data = tmp_path / "sessions.db"
    logs = []
    for shift in ("+0", "+0", "+1h"):
        daemon = started(data, shift)
        try:
            assert 201 == daemon.ask("POST", "/v1/sessions", "{}", JSON).status
        finally:
            daemon.stop()
            logs.append(daemon.log)

    assert [] == [log for log in logs if "wall clock" in log]
