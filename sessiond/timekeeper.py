"""Keeps how late it is, and watches the wall clock, so that a clock that is set back revives no session, nor unnoticed."""

import asyncio
import logging

from sessiond.store import Store

log = logging.getLogger("sessiond")

INTERVAL = 5.0
"""Seconds of the daemon's time that a kill -9 of an idle daemon can lose; one that writes loses at most one."""

TOLD_AFTER = 60_000
"""ms that the wall clock may be off the daemon's before the log says so: beyond what NTP corrects by slewing."""


async def keep_time_for_ever(store: Store, interval: float = INTERVAL) -> None:
    """`interval` in seconds. Ends only by being cancelled; what fails is tried again next time."""
    told = store.clock.ahead_of_wall()  # how far off it was at the start has been said
    while True:
        await asyncio.sleep(interval)
        try:
            await store.keep_time()
        except Exception:
            log.exception("the time could not be kept")
        told = tell_of_steps(store.clock.ahead_of_wall(), told)


def tell_of_steps(ahead: int, told: int) -> int:
    """Says in the log when the wall clock has been moved. `ahead`, `told`: ms by which the daemon's clock is ahead of it,
    now and when it was last said; what was said last by now."""
    if abs(ahead - told) < TOLD_AFTER:
        return told
    log.warning(
        "the wall clock was moved: it is %.0f s %s this daemon's, which goes on as it did; sessions expire neither early "
        "nor late by that. Check the machine's clock.",
        abs(ahead) / 1000,
        "behind" if ahead > 0 else "ahead of",
    )
    return ahead
