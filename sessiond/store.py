"""The waist: what http/ talks to, and all that it needs to know of what lies below.

It brings together the engine, the clock and each namespace's policy, and counts what is asked and answered.
"""

from collections.abc import Mapping, Sequence
from time import perf_counter

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
from sessiond.engine import Engine, Lane, Reply, execute
from sessiond.metrics import CallFigures, EngineFigures
from sessiond.record import Answer
from sessiond.vault import Vault

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
    """`stopping` is set once the daemon has been told to stop: what was taken is finished, nothing new should come."""

    def __init__(self, engine: Engine, clock: Clock, policies: Mapping[str, Policy]) -> None:
        self.clock = clock
        self.stopping = False
        self.figures = CallFigures()
        for verb in VERBS.values():
            self.figures.answered[verb, "failed"] = 0  # there before the first time, so that an alarm can count from 0
        self._engine = engine
        self._policies = dict(policies)

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

    def lane(self) -> "StoreLane":
        return StoreLane(self._engine.lane(), self.figures)

    async def execute(self, call: Call) -> Answer:
        """One call on a lane of its own."""
        return (await execute(self.lane(), [call], self.clock.now()))[0]

    async def living(self) -> dict[str, int]:
        """How many sessions live in each namespace that could be asked. Not counted among the calls: nobody called."""
        numbers = {}
        for namespace in list(self._policies):
            (answer,) = await execute(self._engine.lane(), [Count(namespace, None)], self.clock.now())
            if isinstance(answer.value, int):
                numbers[namespace] = answer.value
        return numbers

    async def sweep(self, limit: int) -> int:
        return await self._engine.sweep(self.clock.now(), limit)

    async def keep_time(self) -> None:
        await self._engine.keep_time(self.clock.now())

    async def adopt(self, vault: Vault) -> None:
        """Seals with another vault from now on. StartError: records rest under a key that it lacks."""
        await self._engine.adopt(vault)

    async def close(self) -> None:
        await self.keep_time()
        await self._engine.close()


class StoreLane:
    """An engine's lane whose calls are counted."""

    __slots__ = ("_figures", "_lane")

    def __init__(self, lane: Lane, figures: CallFigures) -> None:
        self._lane = lane
        self._figures = figures

    def submit(self, calls: Sequence[Call], now: int, reply: Reply) -> None:
        self._lane.submit(calls, now, _Counted(calls, self._figures, reply).reply)


class _Counted:
    """Passes answers on, and counts each with its time."""

    __slots__ = ("_calls", "_figures", "_reply", "_started")

    def __init__(self, calls: Sequence[Call], figures: CallFigures, reply: Reply) -> None:
        self._calls = calls
        self._figures = figures
        self._reply = reply
        self._started = perf_counter()

    def reply(self, position: int, answer: Answer) -> None:
        verb = VERBS[type(self._calls[position])]
        self._figures.answered[verb, answer.status] += 1
        self._figures.seconds[verb].observe(perf_counter() - self._started)
        self._reply(position, answer)
