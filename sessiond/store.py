"""The waist: what http/ talks to, and all that it needs to know of what lies below.

It brings together the engine, the clock and each namespace's policy, counts what is asked and answered, and keeps the log
of what has ended.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from time import perf_counter

from sessiond.audit import NOBODY, Actor, Audit
from sessiond.calls import (
    Call,
    Count,
    Create,
    Destroy,
    DestroyAll,
    Get,
    List,
    Patch,
    Policy,
    Rotate,
    Set,
    Touch,
)
from sessiond.clock import Clock
from sessiond.engine import Engine, Lane, Reply, Swept, execute
from sessiond.events import EventLog
from sessiond.metrics import CallFigures, EngineFigures
from sessiond.record import Answer, Ended
from sessiond.vault import Vault

log = logging.getLogger("sessiond")

_PAGE = 1000
"""Expiries that are taken from the engine at a time."""

VERBS: dict[type[Call], str] = {
    Create: "create",
    Get: "get",
    Set: "set",
    Patch: "patch",
    Touch: "touch",
    Rotate: "rotate",
    Destroy: "destroy",
    List: "list",
    Count: "count",
    DestroyAll: "destroy_all",
}


class Store:
    """`stopping` is set once the daemon has been told to stop: what was taken is finished, nothing new should come.

    `audit`: where to tell who did what; None: nowhere.
    """

    def __init__(
        self, engine: Engine, clock: Clock, policies: Mapping[str, Policy], audit: Audit | None = None
    ) -> None:
        self.clock = clock
        self.audit = audit
        self.events = EventLog(secrets.token_hex(8))
        self.stopping = False
        self.figures = CallFigures()
        for verb in VERBS.values():
            self.figures.answered[verb, "failed"] = 0  # there before the first time, so that an alarm can count from 0
        self._engine = engine
        self._policies = dict(policies)
        self._catching_up: asyncio.Task[None] | None = None
        self._is_behind = False

    def policy(self, namespace: str) -> Policy:
        """KeyError for a namespace that does not exist."""
        return self._policies[namespace]

    def has(self, namespace: str) -> bool:
        return namespace in self._policies

    def govern(self, policies: Mapping[str, Policy]) -> None:
        """From now on these namespaces exist, each with its policy. What lives in others rests until it expires."""
        self._policies = dict(policies)

    @property
    def engine_figures(self) -> EngineFigures:
        return self._engine.figures

    @property
    def trouble(self) -> str | None:
        """Why the daemon should get no traffic now, in a sentence; None when it is ready."""
        return "The daemon is stopping." if self.stopping else self._engine.trouble

    def lane(self, by: Actor = NOBODY) -> "StoreLane":
        return StoreLane(self._engine.lane(), self, by)

    async def execute(self, call: Call, by: Actor = NOBODY) -> Answer:
        """One call on a lane of its own."""
        return (await execute(self.lane(by), [call], self.clock.now()))[0]

    async def living(self) -> dict[str, int]:
        """How many sessions live in each namespace that could be asked. Not counted among the calls: nobody called."""
        numbers = {}
        for namespace in list(self._policies):
            (answer,) = await execute(self._engine.lane(), [Count(namespace, None)], self.clock.now())
            if isinstance(answer.value, int):
                numbers[namespace] = answer.value
        return numbers

    async def sweep(self, limit: int) -> Swept:
        swept = await self._engine.sweep(self.clock.now(), limit)
        if swept.removed:
            await self.catch_up()
        return swept

    async def catch_up(self) -> None:
        """Takes into the log of events what sweeps and evictions have left in the engine; at start, that of before."""
        while True:
            self._is_behind = False
            found = await self._engine.expired(self.events.number, _PAGE)
            self.events.add_expired(found)
            if len(found) < _PAGE and not self._is_behind:
                return

    def told(self, ended: Sequence[Ended]) -> None:
        """What has ended by a call."""
        self.events.add(ended)
        if any(each.reason == "evicted" for each in ended):
            self._is_behind = True
            if self._catching_up is None:
                self._catching_up = asyncio.get_running_loop().create_task(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            await self.catch_up()
        except Exception:
            log.exception("events of evictions come late: they could not be read")
        finally:
            self._catching_up = None

    async def keep_time(self) -> None:
        await self._engine.keep_time(self.clock.now())

    async def adopt(self, vault: Vault) -> None:
        """Seals with another vault from now on. StartError: records rest under a key that it lacks."""
        await self._engine.adopt(vault)

    async def close(self) -> None:
        await self.keep_time()
        if self._catching_up is not None:
            await self._catching_up
        await self._engine.close()


class StoreLane:
    """An engine's lane whose calls are counted, and whose ends are told."""

    __slots__ = ("_by", "_lane", "_store")

    def __init__(self, lane: Lane, store: Store, by: Actor) -> None:
        self._lane = lane
        self._store = store
        self._by = by

    def submit(self, calls: Sequence[Call], now: int, reply: Reply) -> None:
        self._lane.submit(calls, now, _Counted(calls, self._store, self._by, reply).reply)


class _Counted:
    """Passes answers on, counts each with its time, and tells what ended."""

    __slots__ = ("_by", "_calls", "_figures", "_reply", "_started", "_store")

    def __init__(self, calls: Sequence[Call], store: Store, by: Actor, reply: Reply) -> None:
        self._calls = calls
        self._store = store
        self._figures = store.figures
        self._by = by
        self._reply = reply
        self._started = perf_counter()

    def reply(self, position: int, answer: Answer) -> None:
        verb = VERBS[type(self._calls[position])]
        self._figures.answered[verb, answer.status] += 1
        self._figures.seconds[verb].observe(perf_counter() - self._started)
        if answer.ended:
            self._store.told(answer.ended)
        if self._store.audit is not None:
            self._store.audit.answered(self._by, verb, self._calls[position], answer)
        self._reply(position, answer)
