"""The crash run: kill -9 of the daemon, again and again, under clients that remember what was acknowledged.

    python -m tests.system.crash --kills 200

Each writer owns its sessions and knows, for each, in which states it may be: exactly one after an acknowledged call, two
after a call that broke off (it was carried out, or it was not). Every answer is checked against that, and after the last
restart every session is. What the daemon may never do: lose what it acknowledged, or bring back what was destroyed.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from sessiond_client import AsyncClient, Missing, Record, Unavailable
from sessiond_client.testing import Server

WRITERS = 8
SESSIONS_PER_WRITER = 25
TTL = 3600

State = tuple[int, ...] | None
"""The values that a session's writes left in it, in order; None: there is no such session."""


class BrokenPromise(AssertionError):
    """The daemon lost what it had acknowledged, or revived what it had destroyed."""


@dataclass
class Tally:
    acknowledged: int = 0
    broken_off: int = 0
    checked: int = 0
    ready_after: list[float] = field(default_factory=list)


class Writer:
    """Changes its own sessions at random, one call at a time, and holds the daemon to its answers."""

    def __init__(self, url: str, chance: random.Random, tally: Tally) -> None:
        self._client = AsyncClient(url)
        self._chance = chance
        self._tally = tally
        self._possible: dict[str, set[State]] = {}
        self._dead: set[str] = set()  # sids that were destroyed or rotated away, and acknowledged so
        self._next = 0

    async def write(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._step()
            except Unavailable:
                self._tally.broken_off += 1
                await asyncio.sleep(0.002)

    async def _step(self) -> None:
        settled = [sid for sid, states in self._possible.items() if len(states) == 1]
        if len(self._possible) < SESSIONS_PER_WRITER:
            await self._create()
        elif len(settled) < len(self._possible):
            await self._check(next(sid for sid, states in self._possible.items() if len(states) > 1))
        else:
            sid = self._chance.choice(settled)
            act = self._chance.choices(
                (self._set, self._patch, self._check, self._rotate, self._destroy, self._check_a_dead_one),
                (30, 30, 20, 5, 10, 5),
            )[0]
            await act(sid)

    async def _create(self) -> None:
        value = self._value()
        sid = f"sid-{value}-{self._chance.getrandbits(64):x}"
        self._possible[sid] = {None, (value,)}
        await self._client.create(self._data((value,)), ttl=TTL, user="crash", sid=sid)
        self._settle(sid, (value,))

    async def _set(self, sid: str) -> None:
        """By version, so that a repeat after a lost answer is recognised."""
        record = await self._client.get(sid)
        self._compare(sid, record)
        if record is not None:
            after = (*self._state(record), self._value())
            self._possible[sid].add(after)
            await self._client.set(sid, self._data(after), when=record.version)
            self._settle(sid, after)

    async def _patch(self, sid: str) -> None:
        (before,) = self._possible[sid]
        if before is None:
            return
        after = (*before, self._value())
        self._possible[sid].add(after)
        await self._client.patch(sid, {str(len(before)): after[-1]})
        self._settle(sid, after)

    async def _rotate(self, sid: str) -> None:
        (state,) = self._possible[sid]
        new = f"{sid}r"
        self._possible[sid].add(None)
        self._possible[new] = {None, state}
        try:
            await self._client.rotate(sid, new_sid=new)
        except Missing:
            raise BrokenPromise(f"{sid} was acknowledged, and is gone") from None
        self._bury(sid)
        self._settle(new, state)

    async def _destroy(self, sid: str) -> None:
        self._possible[sid].add(None)
        await self._client.destroy(sid)
        self._bury(sid)
        self._tally.acknowledged += 1

    async def _check(self, sid: str) -> None:
        record = await self._client.get(sid, renew=self._chance.random() < 0.5)
        self._compare(sid, record)

    async def _check_a_dead_one(self, sid: str) -> None:
        if self._dead:
            await self._expect_dead(self._chance.choice(sorted(self._dead)))

    async def check_everything(self) -> None:
        for sid in [*self._possible]:
            await self._check(sid)
        for sid in self._dead:
            await self._expect_dead(sid)

    async def close(self) -> None:
        await self._client.close()

    def _compare(self, sid: str, record: Record | None) -> None:
        state = None if record is None else self._state(record)
        if state not in self._possible[sid]:
            raise BrokenPromise(f"{sid} is {state}, and can only be one of {self._possible[sid]}")
        self._tally.checked += 1
        if state is None:
            self._bury(sid)
        else:
            self._possible[sid] = {state}

    async def _expect_dead(self, sid: str) -> None:
        if await self._client.get(sid) is not None:
            raise BrokenPromise(f"{sid} was destroyed, and lives again")
        self._tally.checked += 1

    def _settle(self, sid: str, state: State) -> None:
        self._possible[sid] = {state}
        self._tally.acknowledged += 1

    def _bury(self, sid: str) -> None:
        del self._possible[sid]
        self._dead.add(sid)

    def _value(self) -> int:
        self._next += 1
        return self._next

    @staticmethod
    def _data(state: tuple[int, ...]) -> dict[str, int]:
        return {str(place): value for place, value in enumerate(state)}

    @staticmethod
    def _state(record: Record) -> tuple[int, ...]:
        return tuple(record.data[str(place)] for place in range(len(record.data)))


async def crash(kills: int, seed: int, folder: Path, *, progress: bool = False) -> Tally:
    """Kills the daemon that many times, at random moments of load. Raises BrokenPromise when a promise is."""
    chance = random.Random(seed)
    tally = Tally()
    # The cache is small, so that sessions are read back from the file while the daemon runs too.
    server = Server(data=folder / "sessions.db", options=["--cache", "64KiB", "--sweep-interval", "0.2"])
    server.start()
    writers = [Writer(server.url, random.Random(chance.getrandbits(64)), tally) for _ in range(WRITERS)]
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            for writer in writers:
                tasks.create_task(writer.write(stop))
            for kill in range(1, kills + 1):
                await asyncio.sleep(chance.uniform(0.01, 0.3))
                await asyncio.to_thread(server.kill)
                began = time.monotonic()
                await asyncio.to_thread(server.start)
                tally.ready_after.append(time.monotonic() - began)
                if progress and kill % 10 == 0:
                    print(
                        f"{kill:4} kills  {tally.acknowledged:7} writes acknowledged  {tally.checked:7} states checked",
                        flush=True,
                    )
            stop.set()
        for writer in writers:
            await writer.check_everything()
    finally:
        for writer in writers:
            await writer.close()
        server.close()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills the daemon again and again under writing clients.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    print(f"{arguments.kills} times kill -9 under {WRITERS} writing clients, seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            tally = asyncio.run(crash(arguments.kills, arguments.seed, Path(folder), progress=True))
        except (BrokenPromise, BaseExceptionGroup) as error:
            print("BROKEN:", *getattr(error, "exceptions", [error]), sep="\n  ")
            return 1
    ready = tally.ready_after
    print(
        f"{tally.acknowledged} acknowledged writes, none missing; {tally.checked} states checked, no destroyed session alive; "
        f"{tally.broken_off} calls broken off\n"
        f"ready again after {median(ready):.2f} s in the median, {max(ready):.2f} s at the most"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
