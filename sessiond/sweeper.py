"""Removes what has died, a bounded batch at a time, so that nobody waits long behind it."""

import asyncio
import logging

from sessiond.store import Store

log = logging.getLogger("sessiond")

BATCH = 100
"""Records of one sweep's commit. Gets of 64 callers had a p99 of 6.2 ms beside batches of 100, of 10.9 beside batches of 500,
and of 4 to 5 beside none (measured on two cores); the whole sweep took as long."""

PAUSE = 0.005
"""Seconds between two batches: the writes that waited behind the one go before the next."""


async def sweep_for_ever(store: Store, interval: float) -> None:
    """`interval` in seconds. Ends only by being cancelled; a sweep that fails is tried again next time."""
    while True:
        await asyncio.sleep(interval)
        try:
            while not (await store.sweep(BATCH)).is_over:  # noqa: ASYNC110 (it waits for nothing: it makes way)
                await asyncio.sleep(PAUSE)
        except Exception:
            log.exception("a sweep failed")
