"""Where to connect and when, and which call may be sent again; with a clock and a chance of the test's own."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client import AuthError, ConnectFailed, Unavailable
from sessiond_client import _protocol as protocol
from sessiond_client._policy import LONGEST_PAUSE, PATIENT_PAUSE, Errand, Route, again, connect_failed, update_pause
from sessiond_client._urls import parse_urls

A, B, C = parse_urls("http://a:1,http://b:1,http://c:1")
DOWN = ConnectFailed("down")
KEY = b"k" * 32
READ, WRITE = protocol.get(KEY), protocol.create(KEY, {}, format="json")
ONCE = protocol.set_(KEY, {}, format="json")


def test_the_last_good_one_leads() -> None:
    """Addresses are tried in order, beginning with the one that worked last."""
    route = Route([A, B, C], patience=2)
    assert route.order() == [A, B, C]
    route.succeeded(B)
    assert route.order() == [B, C, A]
    route.avoid(A)
    assert route.order() == [B, C, A]
    route.avoid(B)
    assert route.order() == [C, A, B]


def test_each_address_gets_its_share_of_the_deadline() -> None:
    """A silent address leaves time for the others."""
    assert Route([A, B], patience=2).timeout == 1


def test_patience_at_first_then_none() -> None:
    """Callers wait for attempts while an outage is younger than the deadline; later they fail unless one is due."""
    route = Route([A], patience=2, chance=lambda: 1.0)
    assert route.pause(100.0) == 0
    route.failed(100.0, DOWN)
    assert 0 < route.pause(100.01) <= 0.05
    assert route.pause(100.06) == 0
    route.failed(101.95, DOWN)
    assert route.pause(101.99) > 0
    with pytest.raises(ConnectFailed):
        route.pause(102.01)
    with pytest.raises(ConnectFailed):
        route.refuse(102.01)
    assert route.pause(103.0) == 0


def test_one_attempt_at_a_time() -> None:
    """While somebody's attempt lasts, others wait or fail; they do not all try."""
    route = Route([A], patience=2, chance=lambda: 1.0)
    route.failed(100.0, DOWN)
    assert route.pause(101.0) == 0
    assert route.pause(101.0) > 0
    route.failed(105.0, DOWN)
    assert route.pause(106.0) == 0
    with pytest.raises(ConnectFailed):
        route.pause(106.0)


def test_success_ends_the_outage() -> None:
    """After a success nobody waits, and the next outage begins with new patience."""
    route = Route([A], patience=2)
    for now in range(100, 110):
        route.failed(float(now), DOWN)
    route.succeeded(A)
    assert (route.pause(110.0), route.error) == (0, None)
    route.failed(200.0, DOWN)
    assert route.is_patient(201.0)


def test_a_refused_token_is_not_waited_for() -> None:
    """With a wrong token callers fail at once: waiting does not help."""
    route = Route([A], patience=2, chance=lambda: 1.0)
    route.failed(100.0, AuthError("no", status=401))

    with pytest.raises(AuthError) as caught:
        route.pause(100.01)
    assert caught.value.status == 401


@pytest.mark.parametrize(("began", "last"), [(0.0, PATIENT_PAUSE), (-60.0, LONGEST_PAUSE)])
@pytest.mark.parametrize("failures", [1, 2, 3, 4, 5, 6, 60])
def test_pauses_grow(failures: int, began: float, last: float) -> None:
    """Pauses double up to 0.2 s while callers wait for the next attempt, and in a long outage up to a second."""
    route = Route([A], patience=2, chance=lambda: 1.0)
    route.failed(began, DOWN)
    for _ in range(failures - 1):
        route.failed(0.0, DOWN)

    assert route._next_attempt == (began if failures == 1 else 0.0) + min(last, 0.05 * 2 ** (failures - 1))


@given(st.integers(1, 60), st.floats(0, 1))
def test_pauses_are_jittered_down_to_nothing(failures: int, chance: float) -> None:
    """However often it failed, and whatever chance says, the next attempt is due within a second."""
    route = Route([A], patience=2, chance=lambda: chance)
    for _ in range(failures):
        route.failed(0.0, DOWN)

    assert route.pause(LONGEST_PAUSE) == 0


@given(st.integers(1, 1000), st.floats(0, 1))
def test_update_pauses(attempt: int, chance: float) -> None:
    """An update that came too late waits a tenth of a second at most."""
    assert 0 <= update_pause(attempt, lambda: chance) <= 0.1


@pytest.mark.parametrize(
    ("call", "expected"), [(READ, [True, True, False]), (WRITE, [True, True, False]), (ONCE, [False] * 3)]
)
def test_how_often_a_lost_call_goes_out(call: protocol.Call[object], expected: list[bool]) -> None:
    """A lost call is repeated twice at most, and not at all when it might be done twice."""
    errand = Errand(call, 0.0)
    found = []
    for _ in range(3):
        errand.goes_out()
        found.append(errand.may_go_again())

    assert found == expected


def test_what_was_never_sent_may_always_go() -> None:
    """A call that did not get out, or was turned away, may go again, whatever it is."""
    errand = Errand(ONCE, 0.0)
    for _ in range(10):
        errand.goes_out()
        errand.was_held_back()
    assert errand.may_go_again()
    errand.goes_out()
    errand.was_turned_away()
    assert errand.may_go_again()


def test_errors_say_whether_the_outcome_is_known() -> None:
    """A write that may have arrived has an unknown outcome; a read and a write that did not get out have not."""
    sent, unsent, read = Errand(WRITE, 0.0), Errand(WRITE, 0.0), Errand(READ, 0.0)
    sent.goes_out()
    read.goes_out()

    for error in (sent.lost("x"), sent.late(2.0), sent.unreachable(DOWN)):
        assert isinstance(error, Unavailable)
        assert error.outcome_unknown
        assert "not known" in str(error)
    for error in (unsent.lost("x"), unsent.late(2), unsent.unreachable(DOWN), read.lost("x"), read.unreachable(DOWN)):
        assert isinstance(error, Unavailable)
        assert not error.outcome_unknown


def test_errors_for_several_callers() -> None:
    """Each caller gets an exception of its own, equal in all it says."""
    error = AuthError("no", status=403)
    copy = again(error)

    assert copy is not error
    assert (type(copy), str(copy), copy.__dict__) == (AuthError, "no", {"status": 403})


def test_connect_failed_names_each_reason() -> None:
    """The error tells, for each address, why it failed."""
    error = connect_failed([(A, ConnectionRefusedError(111, "x")), (B, TimeoutError())])

    assert "http://a:1: Connection refused; http://b:1: it did not answer in time" in str(error)


def test_an_outage_is_told_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    """The log has why there is no daemon, when that is first found out and when the reason changes, and when it is over."""
    caplog.set_level(logging.INFO, "sessiond_client")
    route = Route([A, B], patience=2)
    refused, silent = ConnectFailed("it was refused"), ConnectFailed("it is silent")

    for now, error in enumerate((refused, ConnectFailed("it was refused"), silent)):
        route.failed(float(now), error)
    route.succeeded(A)
    route.succeeded(A)

    assert [record.getMessage() for record in caplog.records] == [
        "it was refused",
        "it is silent",
        f"sessiond can be reached again, at {A.url}",
    ]
