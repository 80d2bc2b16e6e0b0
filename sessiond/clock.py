"""The only place that reads the time. Everything else is passed `now`, in integer ms since the Unix epoch, UTC."""

import time


class Clock:
    """The wall clock as it stood at start, carried on by a clock that nobody can set.

    A step of the wall clock while the daemon runs (NTP, an operator, a resumed machine) therefore expires no session
    early or late; the next start takes up the new wall time. CLOCK_BOOTTIME also counts while a machine sleeps.
    """

    def __init__(self) -> None:
        self._steady = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._offset = time.time_ns() - time.clock_gettime_ns(self._steady)

    def now(self) -> int:
        return (time.clock_gettime_ns(self._steady) + self._offset) // 1_000_000


class AdjustableClock(Clock):
    """For tests: a clock that can be moved forward, so that nobody has to sleep until a session expires."""

    def advance(self, ms: int) -> int:
        """Moves the clock by `ms` >= 0; the new now."""
        if ms < 0:
            raise ValueError("a clock only moves forward")
        self._offset += ms * 1_000_000
        return self.now()
