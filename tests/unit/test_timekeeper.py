"""The timekeeper: tells the engine the time though nobody calls, and the log when the wall clock was moved."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

import pytest

from sessiond import calls
from sessiond.calls import Policy
from sessiond.clock import AdjustableClock
from sessiond.engines import Options, open_engine
from sessiond.store import Store
from sessiond.timekeeper import TOLD_AFTER, keep_time_for_ever, tell_of_steps

POLICY = Policy()


async def keep_time(store: Store, until: object) -> None:
    """Runs the timekeeper until that is true."""
    task = asyncio.create_task(keep_time_for_ever(store, 0.01))
    async with asyncio.timeout(20):
        while not until():  # type: ignore[operator]
            await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_time_is_kept_though_nobody_calls(tmp_path: Path) -> None:
    """What the clock shows reaches the engine without a call."""
    engine = await open_engine(str(tmp_path / "s.db"), Options(0, False, pytest.fail))
    clock = AdjustableClock()
    store = Store(engine, clock, {"default": POLICY})
    await store.execute(calls.create(("default", b"k" * 32), "json", b"{}", POLICY))
    later = clock.advance(86_400_000)

    await keep_time(store, lambda: engine.latest >= later)
    await store.close()

    engine = await open_engine(str(tmp_path / "s.db"), Options(0, False, pytest.fail))
    await engine.close()
    assert later <= engine.latest <= clock.now()


async def test_a_failure_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """An engine that raises ends nothing: the next time comes."""

    class Failing(Store):
        times = 0

        async def keep_time(self) -> None:
            self.times += 1
            raise RuntimeError("no")

    store = Failing(await open_engine("memory:", Options(0, False, pytest.fail)), AdjustableClock(), {})

    await keep_time(store, lambda: store.times >= 3)

    assert "the time could not be kept" in caplog.text


def test_a_step_of_the_wall_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A minute or more, either way, is said when it is found and when it has changed by as much again."""
    caplog.set_level(logging.WARNING)
    told, said = 0, []
    for ahead in (TOLD_AFTER - 1, TOLD_AFTER, TOLD_AFTER + 5, 3 * TOLD_AFTER, -TOLD_AFTER, 0):
        caplog.clear()
        told = tell_of_steps(ahead, told)
        said.append([word for word in ("behind", "ahead of") if word in caplog.text])

    assert [[], ["behind"], [], ["behind"], ["ahead of"], ["ahead of"]] == said
