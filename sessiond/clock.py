"""The only place that reads the time. Everything else is passed `now`, in integer ms since the Unix epoch, UTC."""

import time


class Clock:
    """The wall clock as it stood at start, carried on by a clock that nobody can set.

    A step of the wall clock while the daemon runs (NTP, an operator, a resumed machine) therefore expires no session
    early or late; the next start takes up the new wall time. CLOCK_BOOTTIME also counts while a machine sleeps.

    `floor`: an instant that is past for sure, because somebody has been answered by it. A wall clock that is behind it was
    set back, and time goes on from the floor: else what has died since would live again.
    """

    def __init__(self, floor: int = 0) -> None:
        self._steady = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._offset = max(time.time_ns(), floor * 1_000_000) - time.clock_gettime_ns(self._steady)

    def now(self) -> int:
        return (time.clock_gettime_ns(self._steady) + self._offset) // 1_000_000

    def ahead_of_wall(self) -> int:
        """By how many ms this clock is ahead of the wall's; negative if it is behind."""
        return self.now() - time.time_ns() // 1_000_000


class AdjustableClock(Clock):
    """For tests: a clock that can be moved forward, so that nobody has to sleep until a session expires."""

    def __init__(self, floor: int = 0) -> None:
        super().__init__(floor)
        self._moved = 0

    def advance(self, ms: int) -> int:
        """Moves the clock by `ms` >= 0; the new now."""
        if ms < 0:
            raise ValueError("a clock only moves forward")
        self._offset += ms * 1_000_000
        self._moved += ms
        return self.now()

    def ahead_of_wall(self) -> int:
        """But for what it was moved on purpose."""
        return super().ahead_of_wall() - self._moved
