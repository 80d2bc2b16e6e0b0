"""The clock: the wall's time at start, carried on by one that nobody sets."""

import time

import pytest

from sessiond.clock import AdjustableClock, Clock


def test_now_is_the_walls_time_in_ms() -> None:
    """A clock just made shows the wall's milliseconds since the epoch."""
    before = time.time_ns() // 1_000_000
    now = Clock().now()
    after = time.time_ns() // 1_000_000

    assert before - 1 <= now <= after + 1


def test_a_step_of_the_wall_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock goes on from its start when the wall clock is set back by a year."""
    clock = Clock()
    before = clock.now()
    year = 365 * 86_400_000
    wall = time.time_ns

    monkeypatch.setattr(time, "time_ns", lambda: wall() - year * 1_000_000)

    assert 0 <= clock.now() - before < year // 2


def test_now_never_decreases() -> None:
    """A later now is never smaller."""
    clock = Clock()

    instants = [clock.now() for _ in range(10_000)]

    assert sorted(instants) == instants


def test_an_adjustable_clock_moves_forward() -> None:
    """advance adds its ms to the time and says the new now."""
    clock = AdjustableClock()
    before = clock.now()

    now = clock.advance(86_400_000)

    assert before + 86_400_000 <= now <= clock.now()


def test_an_adjustable_clock_does_not_go_back() -> None:
    """A negative step is refused."""
    with pytest.raises(ValueError, match="forward"):
        AdjustableClock().advance(-1)
