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


@pytest.mark.parametrize("kind", [Clock, AdjustableClock])
def test_a_floor_is_where_time_goes_on(kind: type[Clock]) -> None:
    """A wall clock behind the floor is not believed: now is the floor and what has passed since; and by how much is told."""
    hour = 3_600_000
    floor = time.time_ns() // 1_000_000 + hour

    clock = kind(floor)

    assert floor <= clock.now() < floor + hour // 2
    assert hour - hour // 2 < clock.ahead_of_wall() <= hour


def test_a_floor_in_the_past_changes_nothing() -> None:
    """A wall clock that is ahead of the floor is believed."""
    wall = time.time_ns() // 1_000_000

    clock = Clock(wall - 86_400_000)

    assert wall - 1 <= clock.now() < wall + 60_000
    assert abs(clock.ahead_of_wall()) < 60_000


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


def test_what_an_adjustable_clock_was_moved_by_is_no_step_of_the_wall() -> None:
    """ahead_of_wall leaves out what the clock was moved on purpose."""
    clock = AdjustableClock()

    clock.advance(86_400_000)

    assert abs(clock.ahead_of_wall()) < 60_000
