"""The waist: what it counts, and what it says about its engine."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sessiond import calls
from sessiond.calls import Call, Count, Get, Policy
from sessiond.clock import AdjustableClock
from sessiond.engines import Options, open_engine
from sessiond.store import VERBS, Store

POLICY = Policy(ttl=1000)
HERE, THERE = ("here", b"k" * 32), ("there", b"k" * 32)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    engine = await open_engine("memory:", Options(0, False, pytest.fail))
    store = Store(engine, AdjustableClock(), {"here": POLICY, "there": POLICY})
    yield store
    await store.close()


def create(address: tuple[str, bytes]) -> Call:
    return calls.create(address, "json", b"{}", POLICY)


def counted(store: Store) -> dict[tuple[str, str], int]:
    return {what: number for what, number in store.figures.answered.items() if number}


async def test_failures_are_counted_from_zero(store: Store) -> None:
    """Every verb has its number of failures before the first, so that an alarm sees it grow."""
    assert store.figures.answered == {(verb, "failed"): 0 for verb in VERBS.values()}


async def test_every_call_has_its_verb() -> None:
    """No kind of call is counted under a wrong name, or under none."""
    assert set(VERBS) == set(Call.__args__)
    assert list(VERBS.values()) == [
        *("create", "get", "set", "patch", "touch", "rotate", "destroy", "list", "count", "destroy_all")
    ]


async def test_calls_are_counted_with_outcome_and_time(store: Store) -> None:
    """Each call once, by its verb and the status of its answer, on a lane as by itself."""
    await store.execute(create(HERE))
    await store.execute(create(HERE))
    store.lane().submit([Get(HERE), Get(THERE)], store.clock.now(), lambda position, answer: None)

    assert counted(store) == {
        ("create", "ok"): 1,
        ("create", "exists"): 1,
        ("get", "ok"): 1,
        ("get", "missing"): 1,
    }
    assert {verb: sum(times.counts) for verb, times in store.figures.seconds.items()} == {"create": 2, "get": 2}


async def test_living_sessions_are_counted_by_namespace_and_nobody_called(store: Store) -> None:
    """living tells each namespace's number at this very ms, and is no call."""
    await store.execute(create(HERE))
    assert await store.living() == {"here": 1, "there": 0}

    assert isinstance(store.clock, AdjustableClock)
    store.clock.advance(1000)

    assert await store.living() == {"here": 0, "there": 0}
    assert counted(store) == {("create", "ok"): 1}


async def test_what_ends_is_in_the_log(store: Store) -> None:
    """What calls end at once; what expires with the sweep that removes it; what is evicted once, from the engine."""
    cursor = store.events.now()
    one = Policy(ttl=1000, max_sessions_per_user=1)
    others = [("here", bytes([n]) * 32) for n in range(3)]
    for address in others[:2]:
        await store.execute(calls.create(address, "json", b"{}", one, user="ann"))
    await store.execute(create(HERE))
    await store.execute(calls.Destroy(HERE))
    while store.events.number < 1:
        await asyncio.sleep(0)
    assert isinstance(store.clock, AdjustableClock)
    store.clock.advance(1000)
    await store.sweep(100)

    events, _ = store.events.read(cursor, "here")

    assert {("evicted", others[0][1]), ("destroyed", HERE[1]), ("expired", others[1][1])} == {
        (event.kind, event.key) for event in events
    }
    assert 3 == len(events)


async def test_namespaces_do_not_see_each_other(store: Store) -> None:
    """The same key in two namespaces is two sessions."""
    await store.execute(create(HERE))

    assert (await store.execute(Get(THERE))).status == "missing"
    assert (await store.execute(Count("there", None))).value == 0
    with pytest.raises(KeyError):
        store.policy("nowhere")


async def test_namespaces_and_their_policies_can_change(store: Store) -> None:
    """From `govern` on others exist, with other policies; what lives in one that is gone rests, and is there again."""
    await store.execute(create(HERE))

    store.govern({"there": Policy(ttl=2000)})

    assert (store.has("here"), store.has("there"), store.policy("there").ttl) == (False, True, 2000)
    assert await store.living() == {"there": 0}
    store.govern({"here": POLICY})
    assert await store.living() == {"here": 1}


async def test_a_stopping_store_is_in_trouble(store: Store) -> None:
    """It is ready until it is told to stop, and still answers afterwards: what was taken is finished."""
    assert store.trouble is None

    store.stopping = True

    assert store.trouble == "The daemon is stopping."
    assert (await store.execute(create(HERE))).status == "ok"
