"""Slow clients, in numbers, against a whole daemon."""

from tests.system import slow


def test_slow_clients_are_closed_in_time_and_others_served() -> None:
    """80 connections that finish nothing are all closed, each kind by its deadline; an ordinary client is served meanwhile,
    and the log says nothing of them. How much they cost is told by the program, and no matter of a test."""
    times, ends, left = slow.run(connections=80, seconds=0.5, patience="1s")

    assert ends.keys() == slow.KINDS.keys()
    assert left == 0
    assert len(times["meanwhile"]) > 0
    assert max(ends.values()) < 30  # they would stay for ever
