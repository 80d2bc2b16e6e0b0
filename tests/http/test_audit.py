"""The audit of a real daemon: who asked, who was turned away, what was changed, and that a moved file is let go."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessiond.http.app import REFUSALS
from tests.http.support import Daemon, Stream, key_of, make_token, sessiond_token, wait_until


class Audited(Daemon):
    """A daemon with an audit, tokens and a file of settings."""

    def __init__(self, folder: Path) -> None:
        self.audit, self.settings = folder / "audit.log", folder / "sessiond.toml"
        self.settings.write_text('ttl = "1h"\n')
        data = str(folder / "s.db")
        self.token = make_token(data, "operator", "--admin")
        self.shop = make_token(data, "shop", "--namespace", "shop")
        super().__init__(
            *("--config", str(self.settings), "--audit", str(self.audit), "--adjustable-clock"),
            *("--failure-budget", "off"),
            data=data,
        )

    def lines(self, *events: str, path: Path | None = None) -> list[dict[str, Any]]:
        """Those of these events, but for what differs from run to run."""
        found = [json.loads(line) for line in (path or self.audit).read_text().splitlines()]
        return [
            {name: value for name, value in line.items() if name not in ("time", "seq", "version")}
            for line in found
            if line["event"] in events
        ]

    def wait_for(self, event: str, number: int = 1) -> None:
        wait_until(lambda: len(self.lines(event)) >= number)


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Audited]:
    daemon = Audited(tmp_path)
    yield daemon
    daemon.close()


HERE = "127.0.0.1"


def test_who_asked_is_told(audited: Audited) -> None:
    """The token's name and the peer, over REST and the stream alike."""
    shop = {"Authorization": f"Bearer {audited.shop}"}
    sid = audited.create(headers=shop)
    with Stream(audited.host, audited.port, headers=f"Authorization: Bearer {audited.shop}\r\n") as stream:
        stream.ask(["destroy", b"k" * 32])
    audited.ask("DELETE", f"/v1/sessions/{sid}")
    audited.wait_for("destroy", 2)

    by_shop = {"namespace": "shop", "token": "shop", "peer": HERE}
    assert [{"event": "create", "outcome": "ok", "key": key_of(sid), **by_shop}] == audited.lines("create")
    other = {"namespace": "default", "token": "operator", "peer": HERE}
    first, second = audited.lines("destroy")
    assert {"event": "destroy", "outcome": "missing", "key": first["key"], **by_shop} == first
    assert {"event": "destroy", "outcome": "missing", "key": key_of(sid), **other} == second


def test_who_is_turned_away_is_told(audited: Audited) -> None:
    """With the code, the peer, and the token where it is a good one that may not do this."""
    shop = {"Authorization": f"Bearer {audited.shop}"}
    audited.ask("GET", "/v1/sessions/count", headers={"Authorization": "Bearer wrong"})
    audited.ask("GET", "/metrics", headers=shop)
    audited.ask("GET", "/v1/sessions/count", headers={"Origin": "https://a.example"})
    audited.ask("GET", "/v1/sessions/nobody", headers=shop)
    audited.ask("POST", "/v1/clock", '{"advance_ms": 7}')
    with Stream(audited.host, audited.port, headers=f"Authorization: Bearer {audited.shop}\r\n") as stream:
        stream.ask(["destroy_all", None, None, True], ["destroy_all", None, None, True])
    audited.wait_for("refuse", 4)

    assert [
        {"event": "refuse", "outcome": "unauthorized", "peer": HERE},
        {"event": "refuse", "outcome": "forbidden", "namespace": "shop", "token": "shop", "peer": HERE},
        {"event": "refuse", "outcome": "browser_request", "peer": HERE},
        {"event": "refuse", "outcome": "forbidden", "namespace": "shop", "token": "shop", "peer": HERE},
    ] == audited.lines("refuse")
    assert [{"event": "clock", "outcome": "ok", "count": 7, "token": "operator", "peer": HERE}] == audited.lines(
        "clock"
    )


def test_nobody_can_fill_the_disk_by_being_refused(audited: Audited) -> None:
    """Lines of refusals have a budget for each address; the next line says how many were left out."""
    for _ in range(REFUSALS + 20):
        audited.ask("GET", "/v1/sessions/count", headers={"Authorization": "Bearer wrong"})
    audited.ask("GET", "/v1/sessions/count")
    assert audited.stop() == 0

    lines = audited.lines("refuse")
    assert REFUSALS <= len(lines) <= REFUSALS + 10  # one more for each second that this takes
    assert sum(line.get("unwritten", 0) for line in lines) <= 20


def test_what_changes_in_the_daemon_is_told(audited: Audited) -> None:
    """Its start and end, tokens by name, settings that are read again, and those that are refused."""
    sessiond_token("add", "later", "--data", audited.data)
    audited.wait_for("tokens")
    audited.process.send_signal(signal.SIGHUP)
    audited.wait_for("settings")
    audited.settings.write_text("ttl = [\n")
    audited.process.send_signal(signal.SIGHUP)
    audited.wait_for("settings", 2)
    assert audited.stop() == 0

    everything = [json.loads(line) for line in audited.audit.read_text().splitlines()]
    (tokens,) = audited.lines("tokens")
    assert [] == tokens["removed"]
    assert ["later"] == [name.split()[0] for name in tokens["added"]]
    assert ["ok", "refused"] == [line["outcome"] for line in audited.lines("settings")]
    assert ["start", "stop"] == [everything[0]["event"], everything[-1]["event"]]
    assert list(range(1, len(everything) + 1)) == [line["seq"] for line in everything]


def test_a_moved_file_is_let_go_on_sighup(audited: Audited, tmp_path: Path) -> None:
    """As logrotate does: what comes after SIGHUP is in the new file, what came before in the old one."""
    moved = tmp_path / "audit.log.1"
    before = audited.create()
    audited.wait_for("create")
    audited.audit.rename(moved)

    audited.process.send_signal(signal.SIGHUP)
    wait_until(audited.audit.exists)
    after = audited.create()
    audited.wait_for("create")

    assert [key_of(before)] == [line["key"] for line in audited.lines("create", path=moved)]
    assert [key_of(after)] == [line["key"] for line in audited.lines("create")]


def test_an_audit_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    """With a sentence that says what to do, and the file of sessions let go."""
    with pytest.raises(AssertionError, match=r"cannot write the audit to .* Give a file in a folder"):
        Daemon("--audit", str(tmp_path / "nowhere" / "audit.log"), data=str(tmp_path / "s.db"))

    daemon = Daemon(data=str(tmp_path / "s.db"))
    assert daemon.stop() == 0
