"""The reference reading of the engine contract: a dict, the rules of `record`, and nothing else. Gone with its process."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from pathlib import Path
from time import perf_counter
from typing import Literal

from sessiond.calls import Address, Call, Count, DestroyAll, List
from sessiond.engine import Entry, Expired, Reply, Swept, entry
from sessiond.engines import Options
from sessiond.limits import Member, Usage, confine
from sessiond.metrics import EngineFigures
from sessiond.record import REPEAT_WINDOW, Answer, Ended, Record, follow, is_alive, perform, size_of
from sessiond.vault import Vault

_KEPT_EXPIRIES = 10_000


async def open(path: Path, options: Options) -> "MemoryEngine":
    return MemoryEngine()


class MemoryEngine:
    """Its one lane serves everybody: all calls take effect, and are answered, as they are submitted."""

    place = "memory"
    durability = "none: everything is lost when the daemon stops"
    trouble: str | None = None
    latest = 0  # nothing outlives the process, so no instant has to

    def __init__(self) -> None:
        self.figures = EngineFigures()
        self._records: dict[Address, Record] = {}
        self._keys: defaultdict[str, set[bytes]] = defaultdict(set)  # of sessions, by namespace
        self._owned: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)  # the same, by namespace and user
        self._bytes: defaultdict[str, int] = defaultdict(int)  # of the same, by namespace
        self._due: defaultdict[int, set[Address]] = defaultdict(set)  # all records, by the bucket of their expiry
        self._expired: deque[Expired] = deque(maxlen=_KEPT_EXPIRIES)
        self._expiries = 0

    def lane(self) -> "MemoryEngine":
        return self

    def submit(self, calls: Sequence[Call], now: int, reply: Reply) -> None:
        for position, call in enumerate(calls):
            if isinstance(call, List):
                reply(position, self._list(call, now))
            elif isinstance(call, Count):
                reply(position, Answer("ok", value=self._count(call, now)))
            elif isinstance(call, DestroyAll):
                ended = self._destroy_all(call, now)
                reply(position, Answer("ok", value=len(ended), ended=ended))
            else:
                outcome = perform(call, now, self._records.get)
                if outcome.firm and call.limits is not None:
                    outcome = confine(outcome, call.limits, now, self)
                    for address in outcome.evicted:
                        self._remember(address, self._records[address].user, now, "evicted")
                for address, record in outcome.writes:
                    self._put(address, record)
                reply(position, outcome.told)

    async def sweep(self, now: int, limit: int) -> Swept:
        started = perf_counter()
        dead: list[tuple[Address, Record]] = []
        for address, record in self._due_by(now):
            if len(dead) == limit:
                break
            if now >= record.expires_at + (0 if record.target is None else REPEAT_WINDOW):
                dead.append((address, record))
        for address, record in dead:
            self._put(address, None)
            if record.target is None:
                self._remember(address, record.user, record.expires_at, "expired")
        self.figures.swept += len(dead)
        self.figures.sweep_seconds.observe(perf_counter() - started)
        return Swept(len(dead), len(dead) < limit)

    async def expired(self, after: int, limit: int) -> list[Expired]:
        return [event for event in self._expired if event.number > after][:limit]

    async def keep_time(self, now: int) -> None:
        pass

    async def adopt(self, vault: Vault) -> None:
        """Nothing leaves memory."""

    async def close(self) -> None:
        self._records.clear()

    # What limits ask for ---------------------------------------------------------------------------------

    def members(self, namespace: str, user: str, now: int) -> Iterator[Member]:
        for key, record in self._living(namespace, user, now):
            yield Member(key, record.renewed_at, record.created_at, record.expires_at, size_of(record))

    def at_most(self, namespace: str) -> Usage:
        return Usage(len(self._keys.get(namespace, ())), self._bytes[namespace])

    def exactly(self, namespace: str, now: int) -> Usage:
        sessions, size = self.at_most(namespace)
        dead = list(self._dead(namespace, now))
        return Usage(sessions - len(dead), size - sum(map(size_of, dead)))

    # Records and their indexes -----------------------------------------------------------------------------

    def _remember(self, address: Address, user: str | None, at: int, reason: Literal["expired", "evicted"]) -> None:
        self._expiries += 1
        self._expired.append(Expired(self._expiries, *address, user, at, reason))

    def _put(self, address: Address, record: Record | None) -> None:
        """Replaces what rests at an address, and moves it in the indexes."""
        namespace, key = address
        if (old := self._records.pop(address, None)) is not None:
            self._due[_bucket(old)].discard(address)
            if old.target is None:
                self._keys[namespace].discard(key)
                if old.user is not None:
                    _discard(self._owned, (namespace, old.user), key)
        if record is not None:
            self._records[address] = record
            self._due[_bucket(record)].add(address)
            if record.target is None:
                self._keys[namespace].add(key)
                if record.user is not None:
                    self._owned[namespace, record.user].add(key)
        if (
            old is not None
            and record is not None
            and old.data is record.data
            and old.user is record.user
            and old.meta is record.meta
        ):
            return  # a renewal: nothing grew
        self._bytes[namespace] += (0 if record is None else size_of(record)) - (0 if old is None else size_of(old))

    def _due_by(self, now: int) -> Iterator[tuple[Address, Record]]:
        for bucket in sorted(bucket for bucket in self._due if bucket <= now >> 20):
            if not self._due[bucket]:
                del self._due[bucket]
                continue
            for address in self._due[bucket]:
                yield address, self._records[address]

    def _dead(self, namespace: str, now: int) -> Iterator[Record]:
        """The sessions of a namespace that no sweep has removed yet."""
        for address, record in self._due_by(now):
            if address[0] == namespace and record.target is None and not is_alive(record, now):
                yield record

    def _living(self, namespace: str, user: str | None, now: int) -> Iterator[tuple[bytes, Record]]:
        keys = self._keys.get(namespace, ()) if user is None else self._owned.get((namespace, user), ())
        for key in keys:
            if now < (record := self._records[namespace, key]).expires_at:
                yield key, record

    def _list(self, call: List, now: int) -> Answer:
        """A page costs a pass over all that are listed: the price of having no sorted index here."""
        after = call.cursor or b""
        living = (pair for pair in self._living(call.namespace, call.user, now) if pair[0] > after)
        page: list[Entry] = [entry(*pair) for pair in nsmallest(call.limit, living, key=lambda pair: pair[0])]
        return Answer("ok", value=(page, page[-1].key if len(page) == call.limit else None))

    def _count(self, call: Count, now: int) -> int:
        if call.user is not None:
            return sum(1 for _ in self._living(call.namespace, call.user, now))
        return self.exactly(call.namespace, now).sessions

    def _destroy_all(self, call: DestroyAll, now: int) -> tuple[Ended, ...]:
        spared = call.except_key
        if spared is not None:
            spared = follow((call.namespace, spared), now, self._records.get)[1]
        gone = [pair for pair in self._living(call.namespace, call.user, now) if pair[0] != spared]
        for key, _ in gone:
            self._put((call.namespace, key), None)
        return tuple(Ended(call.namespace, key, record.user, now, "destroyed") for key, record in gone)


def _bucket(record: Record) -> int:
    """Some 17 minutes wide, so that a renewal seldom moves a record; the width changes no answer."""
    return record.expires_at >> 20


def _discard(index: defaultdict[tuple[str, str], set[bytes]], owner: tuple[str, str], key: bytes) -> None:
    index[owner].discard(key)
    if not index[owner]:
        del index[owner]
