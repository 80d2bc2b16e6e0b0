"""Budgets by address: the bucket by itself, and what the daemon answers when one is spent."""

import http.client
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.http.limits import Budget, Limits, TooMany, address_of
from tests.http.support import Daemon, key_of

A, B = "192.0.2.1", "192.0.2.2"


def test_a_budget_is_there_at_once_and_comes_back_evenly() -> None:
    """60 a minute: 60 at once, then one a second, and never more than 60 however long nobody came."""
    budget = Budget(60)
    for _ in range(60):
        assert budget.wait(A, 100.0) == 0
        budget.spend(A, 100.0)

    assert budget.wait(A, 100.0) == 1.0
    assert budget.wait(A, 100.75) == 0.25
    assert budget.wait(A, 101.0) == 0
    for _ in range(60):
        budget.spend(A, 10_000.0)
    assert budget.wait(A, 10_000.0) == 1.0


def test_each_address_has_its_own() -> None:
    """What one spends, another still has."""
    budget = Budget(1)

    budget.spend(A, 0.0)

    assert (budget.wait(A, 0.0), budget.wait(B, 0.0)) == (60.0, 0)


def test_the_memory_is_bounded() -> None:
    """Of more addresses than are remembered, the one that was heard of longest ago is forgotten."""
    budget = Budget(1, addresses=3)
    for name in "abc":
        budget.spend(name, 0.0)
    budget.spend("a", 1.0)
    budget.spend("d", 1.0)

    assert len(budget) == 3
    assert [budget.wait(name, 1.0) > 0 for name in "abcd"] == [True, False, True, True]


def test_asking_remembers_nobody() -> None:
    """Only who spends takes up room."""
    budget = Budget(5)
    budget.spend(A, 0.0)

    budget.wait(B, 0.0)

    assert len(budget) == 1


@given(
    a_minute=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100)), max_size=100),
)
def test_no_sequence_gets_more_than_its_budget(a_minute: int, steps: list[tuple[str, float]]) -> None:
    """In any stretch of time an address may do at most the budget, and as much as comes back meanwhile."""
    budget = Budget(a_minute)
    now, done = 0.0, {"a": 0, "b": 0}
    for address, pause in steps:
        now += pause
        if budget.wait(address, now) == 0:
            budget.spend(address, now)
            done[address] += 1

        assert done[address] <= a_minute + now * a_minute / 60 + 1e-6


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        (None, "local"),
        ("", "local"),
    ],
)
def test_an_address_is_a_line(remote: str | None, expected: str) -> None:
    """IPv6 is counted by the /64 that one customer has; whoever comes over a unix socket is local."""
    assert address_of(remote) == expected


def test_limits_may_be_off() -> None:
    """Without budgets nobody is refused."""
    limits = Limits()
    for _ in range(100_000):
        limits.missed(A, 0.0)
        assert limits.failed(A, 0.0) is None

    limits.check_misses(A, 0.0)


def test_too_many_misses_are_refused_with_the_time_to_wait() -> None:
    """The refusal says in whole seconds when to come again, and names nobody."""
    limits = Limits(misses=6)
    for _ in range(6):
        limits.check_misses(A, 0.0)
        limits.missed(A, 0.0)

    with pytest.raises(TooMany) as refused:
        limits.check_misses(A, 0.5)

    assert (refused.value.code, refused.value.retry_after) == ("too_many_misses", 10)
    assert A not in refused.value.text
    limits.check_misses(B, 0.5)
    limits.check_misses(A, 10.0)


def test_too_many_failures_have_an_answer_of_their_own() -> None:
    """The first wrong tokens are answered as wrong, further ones as too many; those do not prolong the wait."""
    limits = Limits(failures=2)

    answers = [limits.failed(A, 0.0) for _ in range(50)]

    assert answers[:2] == [None, None]
    assert all(answer is not None and answer.code == "too_many_failures" for answer in answers[2:])
    assert limits.failed(A, 30.0) is None


@pytest.fixture
def limited() -> Iterator[Daemon]:
    """A daemon that lets an address miss 20 times a minute."""
    daemon = Daemon("--miss-budget", "20")
    yield daemon
    assert daemon.stop() == 0, daemon.log


def test_who_guesses_is_refused(limited: Daemon) -> None:
    """Reads of ids that do not exist are 404 until the budget is spent, and then 429 with Retry-After, whatever is asked of
    a session; what is not about one session goes on, and so do reads that hit before."""
    sid = limited.create()
    for _ in range(100):
        assert limited.ask("GET", f"/v1/sessions/{sid}").status == 200
    for n in range(20):
        request = ("GET", f"/v1/sessions/guess{n}") if n % 2 else ("POST", f"/v1/sessions/{key_of(str(n))}/touch")
        assert limited.ask(*request).code == "missing"

    refused = [
        limited.ask(method, f"/v1/sessions/{name}")
        for method, name in [("GET", "guess"), ("DELETE", "guess"), ("GET", sid), ("POST", f"{sid}/touch")]
    ]

    assert [(reply.status, reply.code) for reply in refused] == [(429, "too_many_misses")] * 4
    assert all(1 <= int(reply.headers["Retry-After"]) <= 3 for reply in refused)
    assert limited.ask("GET", "/healthz").status == 200
    assert limited.ask("POST", "/v1/sessions", "{}").status == 201
    assert limited.ask("GET", "/v1/sessions").status == 200
    assert b'sessiond_refused_total{code="too_many_misses"} 4.0' in limited.ask("GET", "/metrics").body


def test_what_a_header_says_of_the_address_is_not_read(limited: Daemon) -> None:
    """X-Forwarded-For and Forwarded change nothing: who guesses would send another one each time."""
    line = http.client.HTTPConnection(limited.host, limited.port, timeout=30)
    statuses = []
    for n in range(25):
        line.request(
            "GET", "/v1/sessions/x", headers={"X-Forwarded-For": f"192.0.2.{n}", "Forwarded": f"for=192.0.2.{n}"}
        )
        response = line.getresponse()
        response.read()
        statuses.append(response.status)
    line.close()

    assert statuses == [404] * 20 + [429] * 5


def test_ten_thousand_guesses_meet_the_default_budget(daemon: Daemon) -> None:
    """By default 6,000 misses are answered, and what comes back meanwhile; the stream is not counted, and goes on."""
    wrong = b"".join(b"GET /v1/sessions/guess HTTP/1.1\r\nHost: localhost\r\n\r\n" for _ in range(500))
    found = b"".join(
        daemon.raw(wrong + wrong.partition(b"\r\n\r\n")[0] + b"\r\nConnection: close\r\n\r\n") for _ in range(20)
    )

    assert found.count(b"HTTP/1.1 404") >= 6000
    assert found.count(b"HTTP/1.1 429") > 0
    assert found.count(b"HTTP/1.1 ") == 20 * 501
