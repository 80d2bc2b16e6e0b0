"""The sweeper: bounded batches, until nothing is due, and never the end because of one failure."""

import asyncio
import logging
from contextlib import suppress

import pytest

from sessiond import calls
from sessiond.calls import Policy
from sessiond.clock import AdjustableClock
from sessiond.engine import Swept, execute
from sessiond.engines import Options, open_engine
from sessiond.store import Store
from sessiond.sweeper import BATCH, PAUSE, sweep_for_ever

POLICY = Policy(ttl=1)


async def sweeping(store: Store) -> asyncio.Task[None]:
    return asyncio.create_task(sweep_for_ever(store, 0.01))


async def until(true: object) -> None:
    async with asyncio.timeout(20):
        while not true():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_everything_dead_is_swept_in_batches() -> None:
    """More than two batches of the dead are gone without another interval's wait; the living stay."""
    engine = await open_engine("memory:", Options(0, False, pytest.fail))
    clock = AdjustableClock()
    store = Store(engine, clock, {"default": POLICY})
    dead = [calls.create(("default", n.to_bytes(32)), "json", b"{}", POLICY) for n in range(2 * BATCH + 7)]
    await execute(engine.lane(), dead, clock.now())
    clock.advance(1000)
    await store.execute(calls.create(("default", b"l" * 32), "json", b"{}", POLICY, ttl=60_000))

    task = await sweeping(store)
    await until(lambda: store.engine_figures.swept >= len(dead))
    await end(task)

    assert store.engine_figures.swept == len(dead)
    assert await store.living() == {"default": 1}
    await store.close()


async def test_a_failed_sweep_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """One failure is a line in the log, and the next interval brings the next sweep."""

    class Failing(Store):
        tries = 0

        async def sweep(self, limit: int) -> Swept:
            self.tries += 1
            raise OSError("the disk is away")

    engine = await open_engine("memory:", Options(0, False, pytest.fail))
    store = Failing(engine, AdjustableClock(), {"default": POLICY})
    with caplog.at_level(logging.ERROR, logger="sessiond"):
        task = await sweeping(store)
        await until(lambda: store.tries >= 3)
        await end(task)

    assert "a sweep failed" in caplog.text
    await store.close()


async def test_a_step_that_removed_nothing_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper goes on, a short pause between two steps, until the store says that it is over."""
    steps = [Swept(0, False), Swept(3, False), Swept(0, True)]
    waits: list[float] = []
    sleep = asyncio.sleep

    class Stepping(Store):
        async def sweep(self, limit: int) -> Swept:
            return steps.pop(0)

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0 if steps else 3600)

    store = Stepping(
        await open_engine("memory:", Options(0, False, pytest.fail)), AdjustableClock(), {"default": POLICY}
    )
    monkeypatch.setattr(asyncio, "sleep", noted)
    task = asyncio.create_task(sweep_for_ever(store, 7.0))
    while len(waits) < 4:
        await sleep(0)
    await end(task)

    assert [7.0, PAUSE, PAUSE, 7.0] == waits
    await store.close()
