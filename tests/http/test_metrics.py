"""What /metrics, /healthz and /readyz tell, and what they never tell."""

import subprocess
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.http.support import OCTETS, Daemon, Stream, key_of, read_all, replies, wait_until
from tests.tools import require


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose figures begin at zero, and that sweeps at once."""
    daemon = Daemon("--adjustable-clock", "--sweep-interval", "50ms", data=str(tmp_path / "s.db"))
    yield daemon
    assert daemon.stop() == 0, daemon.log


def figures(daemon: Daemon) -> dict[str, float]:
    """Every sample, by its name with its labels in the order of their names."""
    reply = daemon.ask("GET", "/metrics")
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        " ".join([sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


def test_calls_are_counted_by_verb_and_outcome(fresh: Daemon) -> None:
    """Calls over REST and over the stream count alike, each with its outcome and its time; a scrape is no call."""
    sid = fresh.create()
    fresh.ask("GET", f"/v1/sessions/{sid}")
    fresh.ask("GET", "/v1/sessions/unknown")
    fresh.ask("PUT", f"/v1/sessions/{sid}", "{}", {"If-Match": '"9"'})
    with Stream(fresh.host, fresh.port) as stream:
        stream.ask(["get", b"k" * 32], ["touch", b"k" * 32])
        assert figures(fresh)["sessiond_stream_connections"] == 1

    found = figures(fresh)

    assert found["sessiond_calls_total outcome=ok verb=create"] == 1
    assert found["sessiond_calls_total outcome=ok verb=get"] == 1
    assert found["sessiond_calls_total outcome=missing verb=get"] == 2
    assert found["sessiond_calls_total outcome=conflict verb=set"] == 1
    assert found["sessiond_calls_total outcome=missing verb=touch"] == 1
    assert not any(name.startswith("sessiond_call_seconds") and "verb=count" in name for name in found)
    assert found["sessiond_calls_total outcome=failed verb=count"] == 0
    assert found["sessiond_call_seconds_count verb=get"] == 3
    assert found["sessiond_call_seconds_bucket le=+Inf verb=get"] == 3
    assert 0 < found["sessiond_call_seconds_sum verb=get"] < 10


def test_refusals_are_counted_by_code(fresh: Daemon) -> None:
    """A wrong request of REST and a wrong call of the stream are counted, by their code."""
    fresh.ask("GET", "/v1/sessions?limit=0")
    with Stream(fresh.host, fresh.port) as stream:
        stream.ask(["list", None, None, 0], ["get", b"short"])

    found = figures(fresh)

    assert found["sessiond_refused_total code=bad_limit"] == 2
    assert found["sessiond_refused_total code=bad_key"] == 1


def test_buckets_only_grow(fresh: Daemon) -> None:
    """The buckets of a histogram are cumulative, as Prometheus reads them."""
    for _ in range(20):
        fresh.create()

    found = figures(fresh)

    buckets = [value for name, value in found.items() if name.startswith("sessiond_call_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 20


def test_the_number_of_living_sessions_is_exact(fresh: Daemon) -> None:
    """Sessions that died by themselves are not counted from the ms of their death, swept or not."""
    for ttl in (1, 1, 60):
        fresh.create("{}", f"?ttl={ttl}")
    assert figures(fresh)["sessiond_sessions namespace=default"] == 3

    fresh.advance(1000)

    assert figures(fresh)["sessiond_sessions namespace=default"] == 1


def test_commits_sweeps_and_the_cache_are_shown(fresh: Daemon) -> None:
    """Rows and time of commits, records swept and the time of it, and what the cache holds and finds."""
    for _ in range(5):
        fresh.create("{}", "?ttl=1")
    fresh.advance(3_600_000)
    wait_until(lambda: figures(fresh)["sessiond_swept_total"] == 5)
    sid = fresh.create()
    fresh.ask("GET", f"/v1/sessions/{sid}")
    fresh.ask("GET", "/v1/sessions/unknown")

    found = figures(fresh)

    assert found["sessiond_commit_rows_sum"] == 6
    assert found["sessiond_commit_rows_count"] == found["sessiond_commit_seconds_count"] <= 6
    assert found["sessiond_commit_seconds_sum"] > 0
    assert found["sessiond_sweep_seconds_count"] >= 1
    assert found["sessiond_cache_entries"] == 1
    assert found["sessiond_cache_bytes"] > 0
    assert found["sessiond_cache_hits_total"] >= 1
    assert found["sessiond_cache_misses_total"] >= 1
    assert found["sessiond_damaged_total"] == 0
    assert found["process_resident_memory_bytes"] > 0


def test_no_figure_names_a_session(fresh: Daemon) -> None:
    """Neither sids nor keys nor users stand in the figures: who reads them learns nothing about anybody."""
    sid = fresh.create("{}", "", {"Session-User": "ada-lovelace"})
    fresh.ask("GET", f"/v1/sessions/{sid}")

    text = fresh.ask("GET", "/metrics").body.decode()

    for secret in (sid, key_of(sid), key_of(sid).strip("~"), "ada-lovelace"):
        assert secret not in text


def test_a_healthy_daemon_lives_and_is_ready(fresh: Daemon) -> None:
    """/healthz and /readyz answer 200 in plain text."""
    assert (fresh.ask("GET", "/healthz").status, fresh.ask("GET", "/healthz").body) == (200, b"alive\n")
    assert (fresh.ask("GET", "/readyz").status, fresh.ask("GET", "/readyz").body) == (200, b"ready\n")


def test_a_daemon_that_cannot_write_is_not_ready(fresh: Daemon) -> None:
    """While the disk is full, writes are 507, reads go on, and /readyz is 503 with the reason; then all is as before."""
    require("strace")
    sid = fresh.create('{"kept": true}')

    full = ["strace", "-f", "-p", str(fresh.pid), "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC"]
    with subprocess.Popen(full, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        assert b"attached" in strace.stderr.readline()
        refused, ready = fresh.ask("POST", "/v1/sessions", "{}"), fresh.ask("GET", "/readyz")
        alive, read = fresh.ask("GET", "/healthz"), fresh.ask("GET", f"/v1/sessions/{sid}")
        strace.terminate()

    assert (refused.status, refused.code) == (507, "storage_full")
    assert (ready.status, ready.code) == (503, "not_ready")
    assert "full" in ready.json["detail"]
    assert (alive.status, read.json) == (200, {"kept": True})
    assert fresh.ask("PUT", f"/v1/sessions/{sid}", "{}").status == 204
    assert fresh.ask("GET", "/readyz").status == 200


def test_a_stopping_daemon_is_not_ready(fresh: Daemon) -> None:
    """From SIGTERM on, a connection that is open already is answered 503 by /readyz, still served, and told to close."""
    sid = fresh.create("x" * 60_000, "", OCTETS)
    key = urlsafe_b64decode(key_of(sid)[1:] + "=")
    with Stream(fresh.host, fresh.port) as stream:
        stream.call(*([["get", key]] * 1000))  # and reads none of it, which keeps the daemon from ending
        with fresh.connect() as ready, fresh.connect() as get:
            for line in (ready, get):
                line.sendall(request("/healthz"))
                assert line.recv(1000).startswith(b"HTTP/1.1 200 OK")
            fresh.process.terminate()
            wait_until(lambda: "stopping" in fresh.log)
            ready.sendall(request("/readyz"))
            get.sendall(request(f"/v1/sessions/{key_of('unknown')}"))
            found = replies(read_all(ready)) + replies(read_all(get))

    assert [(reply.status, reply.code) for reply in found] == [(503, "not_ready"), (404, "missing")]
    assert {reply.headers["Connection"] for reply in found} == {"close"}


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
