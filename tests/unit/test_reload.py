"""What changes while the daemon runs: a real process that is sent SIGHUP, and the tokens that it looks at by itself."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.support import Daemon, make_token, sessiond_token, wait_until

AGAIN = "the settings were read again"
STAY = "the settings stay as they were"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "sessiond.toml"
    file.write_text('ttl = "1h"\nmax_data = 1000\ndrain = "9s"\n[namespaces.shop]\nttl = "2h"\n')
    return file


@pytest.fixture
def daemon(tmp_path: Path, file: Path) -> Iterator[Daemon]:
    data = str(tmp_path / "s.db")
    token = make_token(data, "operator", "--admin")
    daemon = Daemon("--config", str(file), "--max-ttl", "3h", data=data)
    daemon.token = token
    yield daemon
    assert daemon.stop() == 0, daemon.log


def hang_up(daemon: Daemon, told: str) -> None:
    """Sends SIGHUP, and waits until the log has one line more that says so."""
    before = daemon.log.count(told)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.log.count(told) > before)


def ttl_of_new(daemon: Daemon, namespace: str) -> float | None:
    """The ttl, in seconds, of a session that is made there now; None where nothing can be made."""
    reply = daemon.ask("POST", "/v1/sessions", "{}", {"Session-Namespace": namespace})
    return float(reply.headers["Session-TTL"]) if reply.status == 201 else None


def test_each_namespace_has_its_policy(daemon: Daemon) -> None:
    """From its table, and else from the top level; one that is nowhere said is not there."""
    assert [ttl_of_new(daemon, name) for name in ("shop", "default", "blog")] == [7200, 3600, None]


def test_sighup_takes_up_policies_and_namespaces(daemon: Daemon, file: Path) -> None:
    """What the file says now; flags stay as they were at start, and living sessions keep what they have."""
    sid = daemon.create()
    file.write_text('ttl = "30m"\nmax_data = 2000\nmax_ttl = "9h"\n[namespaces.blog]\nttl = "10m"\n')

    hang_up(daemon, AGAIN)

    assert [ttl_of_new(daemon, name) for name in ("shop", "default", "blog")] == [None, 1800, 600]
    assert daemon.ask("GET", f"/v1/sessions/{sid}").headers["Session-TTL"] == "3600"
    assert daemon.ask("POST", "/v1/sessions?ttl=32400", "{}").code == "bad_ttl"
    assert daemon.ask("PUT", f"/v1/sessions/{sid}", f'{{"text":"{"x" * 1500}"}}').status == 204
    assert f"{AGAIN}; namespaces: blog, default" in daemon.log
    assert daemon.ask("GET", "/openapi.json").json["components"]["parameters"]["ttl"]["schema"]["maximum"] == 10_800


def test_sighup_names_what_needs_a_restart(daemon: Daemon, file: Path) -> None:
    """And takes up the rest."""
    file.write_text('ttl = "30m"\ndrain = "1s"\ncache = "1MiB"\n')

    hang_up(daemon, AGAIN)

    assert "these settings have changed, and need a restart: cache, drain" in daemon.log
    assert ttl_of_new(daemon, "default") == 1800


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ttl: 1h", "is not TOML"),
        ('ttl = "soon"', "cannot be 'soon': a duration is seconds"),
        ('ttl = "4h"', "ttl, 14400 s, is longer than max_ttl, 10800 s"),
        ('ttl = "1h"\n[namespaces.shop]\nttl = "4h"', "in [namespaces.shop] in"),
        ("[namespaces.Shop]", "begins with a letter"),
        (f"ttl = {'1' * 5000}", "is not TOML"),
        (f"allowed_hosts = {'[' * 3000}{']' * 3000}", "is not TOML"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_sighup_with_a_bad_file_changes_nothing(daemon: Daemon, file: Path, text: str | None, reason: str) -> None:
    """The log says why in one line, the daemon goes on with what it had, and the next good file is taken up."""
    if text is None:
        file.unlink()
    else:
        file.write_text(text)

    hang_up(daemon, STAY)

    (line,) = [line for line in daemon.log.splitlines() if STAY in line]
    assert reason in line
    assert [ttl_of_new(daemon, name) for name in ("shop", "default")] == [7200, 3600]
    assert "Traceback" not in daemon.log

    file.write_text('ttl = "30m"\n')
    hang_up(daemon, AGAIN)
    assert ttl_of_new(daemon, "default") == 1800


def test_a_token_makes_its_namespace(daemon: Daemon) -> None:
    """A namespace is there once a token is bound to it, and counted; with its last token it is gone, and its sessions
    rest: they are there again with the next token."""
    token = daemon.make_token("blog", "--namespace", "blog")
    assert ttl_of_new(daemon, "blog") == 3600
    assert 'sessiond_sessions{namespace="blog"} 1.0' in daemon.ask("GET", "/metrics").body.decode()

    sessiond_token("revoke", "blog", "--data", daemon.data)
    wait_until(lambda: ttl_of_new(daemon, "blog") is None)

    daemon.make_token("blog", "--namespace", "blog")
    count = daemon.ask("GET", "/v1/sessions/count", headers={"Session-Namespace": "blog"}).json["count"]
    assert count >= 1
    assert daemon.ask("GET", "/openapi.json", headers={"Authorization": f"Bearer {token}"}).status == 401


def test_a_daemon_without_a_file_survives_sighup(tmp_path: Path) -> None:
    """It reads again what there is, the environment of its start."""
    daemon = Daemon(environment={"SESSIOND_TTL": "1h"})
    try:
        hang_up(daemon, AGAIN)

        assert ttl_of_new(daemon, "default") == 3600
    finally:
        assert daemon.stop() == 0


def test_a_broken_file_of_tokens_ends_the_start(tmp_path: Path) -> None:
    """With exit code 1 and a sentence: to start without would let everybody in."""
    data = tmp_path / "s.db"
    Path(f"{data}.tokens").write_text("broken")

    with pytest.raises(AssertionError, match=f"sessiond: the tokens in {data}.tokens cannot be used: it is not a list"):
        Daemon(data=str(data))
