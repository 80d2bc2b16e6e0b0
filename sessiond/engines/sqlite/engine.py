"""The order of calls, the hot cache over the file, and the group commit.

All state is touched on the event loop alone. What rests at an address is, newest first:

    _gathering.rows      writes of the next commit
    _renewed             renewals that are not on disk yet
    _committing.rows     writes of the commit that is under way
    the cache, the file  what is on disk

A call whose records are all in memory is carried out in the same turn of the loop, by `record.perform`. Its answer goes
out at once, unless it shows something that is still to be committed: then it waits with that batch. A call that needs a
record from the file stops its lane, and the lane alone, until the record is there; so a lane's order always holds.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, TypeVar

from sessiond.calls import (
    SURVEYS,
    Address,
    Call,
    Count,
    Create,
    Destroy,
    DestroyAll,
    List,
    Patch,
    Policy,
    Rotate,
    SessionCall,
    Set,
)
from sessiond.engine import Expired, Reply, Swept
from sessiond.engines import Options
from sessiond.engines.sqlite.cache import HotCache
from sessiond.engines.sqlite.crowd import Absent, Crowd, Owner
from sessiond.engines.sqlite.file import Eviction, SessionFile, StorageError
from sessiond.errors import Damaged, StartError
from sessiond.limits import Member, confine
from sessiond.metrics import EngineFigures
from sessiond.record import MAX_HOPS, Answer, Ended, Outcome, Record, failed, follow, perform
from sessiond.vault import Vault

log = logging.getLogger("sessiond")

T = TypeVar("T")

RENEWAL_DELAY = 0.5
"""Seconds until a renewal is written; with the commit itself it stays under the second that is promised."""

RELAXED_DELAY = 0.1
"""Seconds until a write is committed that was acknowledged from memory (durability relaxed)."""

PROBE_DELAY = 1.0
"""Seconds between two looks whether writing works again."""

TIME_KEPT = 1000
"""ms after which a commit takes the instant with it, so that it costs at most one statement a second."""

MAX_RECOUNTS = 3
"""How often one call has its namespace counted again because somebody may have died since; then the count stands."""

PREFETCH = 500
"""How many of a waiting lane's records are fetched in one go."""

RESEAL_PAUSE = 0.01
"""Seconds between two steps of resealing: the writes that waited behind the one go before the next."""

RESEAL_AGAIN = 1.0
"""Seconds until a step of resealing is tried again that failed; after each further failure twice as long, up to a minute."""

_DAMAGED = failed("integrity", "The stored session is damaged and cannot be read; it can only be destroyed.")
_UNREADABLE = failed("storage_failed", "The storage could not be read this time; try again.")

_MAY_BE_RELAXED = (Create, Set, Patch)

Waiting = tuple[Reply, int, Answer]


class _Cold(Exception):
    """The record at `address` is not in memory."""

    def __init__(self, address: Address) -> None:
        self.address = address


class _Batch:
    """What one commit writes, and the answers that wait for it. `firm`: the addresses whose rows the answers wait for.

    `evicted`: what the sessions among the rows leave that had to make room.

    `renewals`: those among the rows that had been renewed and acknowledged before: what stands if the commit fails.
    """

    __slots__ = ("done", "evicted", "firm", "now", "renewals", "rows", "waiting")

    def __init__(self) -> None:
        self.rows: dict[Address, Record | None] = {}
        self.firm: set[Address] = set()
        self.evicted: list[Eviction] = []
        self.renewals: dict[Address, Record] = {}
        self.waiting: list[Waiting] = []
        self.done: list[asyncio.Future[None]] = []
        self.now = 0


class _Lane:
    """Calls in their order. `_held`: those that stand behind one whose record is being fetched.

    `recounts`: how often its first call has had the namespace counted.
    """

    __slots__ = ("_engine", "_held", "recounts")

    def __init__(self, engine: "SqliteEngine") -> None:
        self.recounts = 0
        self._engine = engine
        self._held: deque[tuple[Call, int, Reply, int]] = deque()

    def submit(self, calls: Sequence[Call], now: int, reply: Reply) -> None:
        if now > self._engine.latest:
            self._engine.latest = now
        if self._held:
            self._held.extend((call, now, reply, position) for position, call in enumerate(calls))
            return
        for position, call in enumerate(calls):
            if not self._engine.carry_out(self, call, now, reply, position):
                self._held.extend((calls[i], now, reply, i) for i in range(position, len(calls)))
                self._engine.fetch_for(self)
                return

    def go_on(self) -> None:
        """Carries out what was held, up to the next call that has to wait."""
        while self._held:
            call, now, reply, position = self._held[0]
            # Meanwhile other lanes were answered at a later instant: who died by then does not come back here.
            if not self._engine.carry_out(self, call, max(now, self._engine.latest), reply, position):
                self._engine.fetch_for(self)
                return
            self._pop()

    def finish_first(self) -> None:
        """The first held call was carried out elsewhere."""
        self._pop()
        self.go_on()

    def answer_first(self, answer: Answer) -> None:
        """The first held call cannot be carried out."""
        _, _, reply, position = self._held[0]
        reply(position, answer)
        self.finish_first()

    def held_calls(self) -> Iterator[Call]:
        return (held[0] for held in self._held)

    def _pop(self) -> None:
        self._held.popleft()
        self.recounts = 0


class SqliteEngine:
    def __init__(self, file: SessionFile, options: Options) -> None:
        self.place = f"{file.path} (sqlite)"
        self.durability = (
            "relaxed: creates, sets and patches may be lost up to 100 ms back, destroys never"
            if options.relaxed
            else "full: a write is on disk when it is acknowledged"
        )
        self.trouble: str | None = None
        self.figures = EngineFigures()
        self.latest = file.latest  # the latest now that anybody has named
        self._file = file
        self._relaxed = options.relaxed
        self._on_fatal = options.on_fatal
        self._loop = asyncio.get_running_loop()
        self._cache = HotCache(options.cache_bytes, self.figures)

        self._gathering = _Batch()
        self._committing: _Batch | None = None
        self._renewed: dict[Address, Record] = {}
        self._renewals_due = False
        self._timer: asyncio.TimerHandle | None = None  # to the commit of what nobody waits for
        self._work = asyncio.Event()
        self._writing = asyncio.Lock()  # who uses the file's writer: a commit or a sweep
        self._closing = False
        self._time_kept = file.latest  # what the file remembers of `latest`
        self._closed = asyncio.Event()  # set with it, for whoever pauses

        self._fetched: dict[Address, Record | Damaged | None] = {}  # for the lanes that go on in this turn
        # What the first calls of lanes found before they had to wait.
        self._kept: dict[Address, Record | Damaged | None] = {}
        self._overtaken: set[Address] = set()  # changed while a fetch is under way: what it brings of them is old
        self._cold: dict[Address, None] = {}
        self._cold_lanes: list[_Lane] = []
        self._crowd: Crowd | None = None  # from the first call on that brings limits
        self._cold_rosters: dict[Owner, None] = {}
        self._unreadable: set[Owner] = set()  # whose rosters could not be had, for the lanes that go on in this turn
        # What was written while rosters are being loaded, in order; None: none are, or it no longer holds.
        self._unseen: list[tuple[Address, Record | None]] | None = None
        self._lacking: Absent | None = None  # what the call in hand has to have from the file first
        self._uncounted: dict[str, list[_Lane]] = {}
        self._counting: asyncio.Task[None] | None = None

        self._depends: _Batch | None = None  # the newest batch that the call in hand has looked into
        self._damaged_at: Address | None = None  # where the call in hand met a damaged row

        self._tasks: set[asyncio.Task[Any]] = set()
        self._fetching: asyncio.Task[None] | None = None
        self._resealing: asyncio.Task[None] | None = self._start(self._reseal())
        self._committer = asyncio.create_task(self._commit_for_ever(), name="sessiond commits")
        self._committer.add_done_callback(self._ended)

    # The contract --------------------------------------------------------------------------------------

    def lane(self) -> _Lane:
        return _Lane(self)

    async def sweep(self, now: int, limit: int) -> Swept:
        # In a task of its own: a caller that is cancelled must not leave a transaction half-way.
        return await asyncio.shield(self._start(self._sweep(now, limit)))

    async def _sweep(self, now: int, limit: int) -> Swept:
        self.latest = max(self.latest, now)
        async with self._writing:
            started = perf_counter()
            try:
                # What is not on disk yet is left alone: it may live there longer than the file knows.
                spared = self._gathering.rows.keys() | self._renewed.keys()
                step = await self._file.sweep(now, limit, spared)
            except StorageError as e:
                if e.fatal:
                    self._on_fatal(e.text)
                log.warning("sweep: %s", e.text)
                return Swept(0, is_over=True)
            if step.damaged:
                log.warning("sweep: %d rows that are due are damaged, and stay.", step.damaged)
            for address in step.gone:
                if (record := self._cache.get(address)) is not None and now >= record.expires_at:
                    self._cache.drop(address)
            self.figures.swept += len(step.gone)
            self.figures.sweep_seconds.observe(perf_counter() - started)
        return Swept(len(step.gone), step.is_over)

    async def expired(self, after: int, limit: int) -> list[Expired]:
        return await self._file.expired(after, limit)

    async def keep_time(self, now: int) -> None:
        self.latest = max(self.latest, now)
        if self.latest > self._time_kept:
            await asyncio.shield(self._start(self._keep_time()))

    async def _keep_time(self) -> None:
        async with self._writing:
            latest = self.latest
            try:
                await self._file.keep_time(latest)
                self._time_kept = latest
            except StorageError as e:
                if e.fatal:
                    self._on_fatal(e.text)
                log.warning("keeping the time: %s", e.text)

    async def adopt(self, vault: Vault) -> None:
        # In a task of its own, for the reason that a sweep is.
        if (error := await asyncio.shield(self._start(self._adopt(vault)))) is not None:
            raise error

    async def _adopt(self, vault: Vault) -> StartError | None:
        async with self._writing:
            try:
                await self._file.adopt(vault)
            except StartError as e:
                return e
            except StorageError as e:
                if e.fatal:
                    self._on_fatal(e.text)
                return StartError(e.text)
        if self._resealing is None:
            self._resealing = self._start(self._reseal())
        return None

    async def close(self) -> None:
        self._closing = True
        self._closed.set()
        while self._tasks:  # the end of one may be the beginning of the next
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._renewals_due = True
        self._work.set()
        await self._committer
        if self._timer is not None:
            self._timer.cancel()
        if self.latest > self._time_kept:
            await self._keep_time()
        await self._file.close()

    # Carrying out a call -------------------------------------------------------------------------------

    def carry_out(self, lane: _Lane, call: Call, now: int, reply: Reply, position: int) -> bool:
        """Carries out one call, or answers False: it has to wait for the file."""
        if isinstance(call, SURVEYS):
            self._start(self._survey(lane, call, now, reply, position))
            return False
        self._depends = None
        try:
            outcome = perform(call, now, self._peek)
            if outcome.firm and call.limits is not None:
                outcome = self._confine(lane, outcome, call.limits, now)
        except _Cold:
            return False
        except Absent as e:
            if e.user is not None and (e.namespace, e.user) in self._unreadable:
                reply(position, _UNREADABLE)
                return True
            self._lacking = e
            return False
        except Damaged as e:
            self.figures.damaged += e.code == "integrity"
            if not isinstance(call, Destroy):
                reply(position, _DAMAGED if e.code == "integrity" else _UNREADABLE)
                return True
            assert self._damaged_at is not None, "a damaged row is somewhere"
            if self._crowd is not None:
                self._crowd.gone(self._damaged_at, None)
            self._write(self._damaged_at, None, now)
            ended = (Ended(*self._damaged_at, None, now, "destroyed"),)
            self._gathering.waiting.append((reply, position, Answer("ok", ended=ended)))
            return True
        if outcome.writes:
            if self._crowd is not None:
                self._crowd.carried_out(outcome, now)
            if not outcome.firm:
                for address, record in outcome.writes:
                    assert record is not None, "a renewal leaves a record"
                    self._renew(address, record)
            elif self._relaxed and isinstance(call, _MAY_BE_RELAXED) and not outcome.evicted:
                for address, record in outcome.writes:
                    self._put(address, record, now)
                self._wake_after(RELAXED_DELAY)
            else:
                for address, record in outcome.writes:
                    self._write(address, record, now)
                self._depends = self._gathering
        if self._depends is None:
            reply(position, outcome.told)
        else:
            self._depends.waiting.append((reply, position, outcome.told))
        return True

    def _confine(self, lane: _Lane, outcome: Outcome, limits: Policy, now: int) -> Outcome:
        """The outcome as the limits allow it. Raises Absent when the file has to be asked first."""
        if self._crowd is None:
            self._crowd = Crowd()
        self._crowd.insist = lane.recounts < MAX_RECOUNTS
        confined = confine(outcome, limits, now, self._crowd)
        if confined.evicted:
            assert outcome.answer.record is not None, "a session takes their place"
            user = outcome.answer.record.user
            self._gathering.evicted += [Eviction(*address, user, now) for address in confined.evicted]
        elif confined is not outcome:
            # It was turned away because of others, whose writes may all still be undone.
            if self._gathering.firm:
                self._depends = self._gathering
            elif self._committing is not None and self._committing.firm:
                self._depends = self._committing
        return confined

    def _peek(self, address: Address) -> Record | None:
        gathering, committing = self._gathering, self._committing
        if address in gathering.firm:
            self._depends = gathering
        elif committing is not None and self._depends is None and address in committing.firm:
            self._depends = committing
        if (record := self._cache.get(address)) is not None:
            if address not in self._fetched:  # else it was just put there for this call
                self.figures.cache_hits += 1
            return record
        if address in gathering.rows:
            return gathering.rows[address]
        if address in self._renewed:
            return self._renewed[address]
        if committing is not None and address in committing.rows:
            return committing.rows[address]
        if address not in self._fetched:
            raise _Cold(address)
        fetched = self._fetched[address]
        if isinstance(fetched, Damaged):
            self._damaged_at = address
            raise fetched
        return fetched

    def _write(self, address: Address, record: Record | None, now: int) -> None:
        """Puts a row into the next commit, whose end the answer waits for."""
        self._put(address, record, now)
        self._gathering.firm.add(address)
        self._work.set()

    def _put(self, address: Address, record: Record | None, now: int) -> None:
        self._gathering.rows[address] = record
        self._gathering.now = max(self._gathering.now, now)
        if (renewal := self._renewed.pop(address, None)) is not None:
            self._gathering.renewals[address] = renewal
        if self._fetching is not None:
            self._overtake(address)
        if self._crowd is not None:
            self._crowd_in(address, record)
        if record is None:
            self._cache.drop(address)
        else:
            self._cache.put(address, record)

    def _renew(self, address: Address, record: Record) -> None:
        self._cache.put(address, record)
        if self._fetching is not None:
            self._overtake(address)
        if self._crowd is not None:
            self._crowd_in(address, record)
        if address in self._gathering.rows:
            self._gathering.rows[address] = record
            return
        if not self._renewed:
            self._wake_after(RENEWAL_DELAY)  # for those that follow, too
        self._renewed[address] = record

    def _crowd_in(self, address: Address, record: Record | None) -> None:
        assert self._crowd is not None
        self._crowd.put(address, record)
        if self._unseen is not None:
            self._unseen.append((address, record))

    # Fetching from the file ------------------------------------------------------------------------------

    def fetch_for(self, lane: _Lane) -> None:
        """Fetches what the calls held in `lane` need first, and lets it go on then."""
        lacking, self._lacking = self._lacking, None
        if lacking is not None and lacking.user is None:
            lane.recounts += 1
            self._uncounted.setdefault(lacking.namespace, []).append(lane)
            if self._counting is None:
                self._counting = self._start(self._count_for_lanes())
            return
        for number, call in enumerate(lane.held_calls()):
            if isinstance(call, SURVEYS):
                if number == 0:
                    return  # it has a task of its own, which ends with finish_first
                break
            if number and len(self._cold) >= PREFETCH:
                break
            for address in _addresses(call):
                self._want(address, keep=number == 0)
            self._want_roster(call)
        self._cold_lanes.append(lane)
        if self._fetching is None:
            self._fetching = self._start(self._fetch())

    def _want(self, address: Address, keep: bool) -> None:
        """Follows an address through what is in memory, and notes the first on the way that is not.

        `keep`: what lies before that stays until it is there, however little the cache holds; else a call that needs
        more records than the cache could wait for ever, for now one of them and now another.
        """
        for _ in range(MAX_HOPS + 2):  # one more than any call follows
            found: Record | Damaged | None
            try:
                found = self._peek(address)
            except _Cold:
                self.figures.cache_misses += 1
                self._cold[address] = None
                return
            except Damaged as e:
                found = e
            if keep:
                self._kept[address] = found
            if not isinstance(found, Record) or found.target is None:
                return
            address = (address[0], found.target)

    def _want_roster(self, call: SessionCall) -> None:
        if not isinstance(call, _MAY_BE_RELAXED) or call.limits is None or not call.user:
            return
        if call.limits.max_sessions_per_user is None:
            return
        if self._crowd is None:
            self._crowd = Crowd()
        namespace = call.address[0]
        if not self._crowd.has_roster(namespace, call.user):
            self._cold_rosters[namespace, call.user] = None

    def _overtake(self, address: Address) -> None:
        self._overtaken.add(address)
        self._kept.pop(address, None)

    def _in_memory(self, address: Address) -> bool:
        hits = self.figures.cache_hits
        try:
            self._peek(address)
        except _Cold:
            return False
        self.figures.cache_hits = hits  # nobody has asked for it yet
        return True

    async def _fetch(self) -> None:
        while self._cold_lanes:
            lanes, self._cold_lanes = self._cold_lanes, []
            # Only what is not in memory: all of that is committed, so the file shows its latest state.
            cold = [address for address in self._cold if not self._in_memory(address)]
            kept, self._kept, self._cold, self._overtaken = self._kept, {}, {}, set()
            rosters, self._cold_rosters = list(self._cold_rosters), {}
            if rosters:
                unsaved: list[tuple[Address, Record | None]] = list(self._renewed.items())
                if self._committing is not None:
                    unsaved = [*self._committing.rows.items(), *unsaved]
                self._unseen = [*unsaved, *self._gathering.rows.items()]
            found = await self._file.load(cold)
            if rosters:
                await self._load_rosters(rosters)
            for address in self._overtaken:
                found.pop(address, None)
                kept.pop(address, None)
            for address, record in found.items():
                if isinstance(record, Record):
                    self._cache.put(address, record)
            self._fetched = kept | found
            for lane in lanes:
                lane.go_on()
            self._fetched = {}
            self._unreadable.clear()
        self._fetching = None

    async def _load_rosters(self, owners: list[Owner]) -> None:
        loaded: dict[Owner, list[Member]] = {}
        for owner in owners:
            try:
                loaded[owner] = await self._file.roster(*owner)
            except sqlite3.Error:
                self._unreadable.add(owner)
        unseen, self._unseen = self._unseen, None
        if unseen is not None:  # else a commit failed meanwhile, and they are asked for again
            assert self._crowd is not None, "it is there before anybody wants a roster"
            self._crowd.load(loaded, unseen)

    # Counting a namespace ----------------------------------------------------------------------------------

    async def _count_for_lanes(self) -> None:
        while self._uncounted:
            namespace = next(iter(self._uncounted))
            answer: Answer | None = None
            try:
                await self._count(namespace)
            except StorageError as e:
                answer = failed(e.code, e.text)
            except sqlite3.Error as e:
                answer = failed("storage_failed", f"The storage could not be read: {e}.")
            # Those that came while it was counted are served by it too, or find out that they are not.
            for lane in self._uncounted.pop(namespace):
                if answer is None:
                    lane.go_on()
                else:
                    lane.answer_first(answer)
        self._counting = None

    async def _count(self, namespace: str) -> None:
        """Counts what lives in a namespace. StorageError: what waits to be written could not be."""
        assert self._crowd is not None
        async with self._writing:
            # Once all that was written so far is on disk, the file shows what lived at this instant.
            now = self.latest
            count = self._crowd.begin_count(namespace)
            if self._gathering.rows or self._renewed:
                self._renewals_due = True
                if (error := await self._commit()) is not None:
                    raise error
            usage, next_end = await self._file.usage(namespace, now)
            self._crowd.end_count(namespace, count, usage, next_end)

    # Calls about many sessions ---------------------------------------------------------------------------

    async def _survey(
        self, lane: _Lane, call: List | Count | DestroyAll, now: int, reply: Reply, position: int
    ) -> None:
        """Answers from the file, with what is not yet in it, and lets the lane go on."""
        try:
            if isinstance(call, DestroyAll):
                await self._destroy_all(call, now, reply, position)
            else:
                await self._drain()
                now = max(now, self.latest)
                if isinstance(call, Count):
                    reply(position, Answer("ok", value=await self._file.count(call.namespace, call.user, now)))
                else:
                    page = await self._file.page(call.namespace, call.user, call.cursor or b"", call.limit, now)
                    self.figures.damaged += page[2]
                    reply(position, Answer("ok", value=page[:2]))
        except StorageError as e:
            reply(position, failed(e.code, e.text))
        except sqlite3.Error as e:
            reply(position, failed("storage_failed", f"The storage could not be read: {e}."))
        lane.finish_first()

    async def _destroy_all(self, call: DestroyAll, now: int, reply: Reply, position: int) -> None:
        async with self._writing:
            # While nobody else writes, the file stands still and all that it does not have is in memory. Nothing waits
            # after the last await: this is the one instant at which all of them go.
            keys = await self._file.keys(call.namespace, call.user, now)
            users = {} if call.user is not None else await self._users(call.namespace, now)
            spared = None
            if call.except_key is not None:
                spared = await self._follow((call.namespace, call.except_key), now)
            now = max(now, self.latest)
            self._depends = None
            ended: list[Ended] = []
            unsaved = (*self._gathering.rows, *self._renewed)
            for address in dict.fromkeys((*((call.namespace, key) for key in keys), *unsaved)):
                if address[0] != call.namespace or address == spared:
                    continue
                record: Record | None = None
                try:
                    record = self._peek(address)
                except (_Cold, Damaged):
                    pass  # as the file has it: one of those asked for
                else:
                    if record is None or record.target is not None or now >= record.expires_at:
                        continue
                    if call.user not in (None, record.user):
                        continue
                if self._crowd is not None:
                    self._crowd.gone(address, record)
                self._write(address, None, now)
                user = users.get(address[1], call.user) if record is None else record.user
                ended.append(Ended(*address, user, now, "destroyed"))
            answer = Answer("ok", value=len(ended), ended=tuple(ended))
            batch = self._gathering if ended else self._depends
            if batch is not None:
                batch.waiting.append((reply, position, answer))
            else:
                reply(position, answer)

    async def _users(self, namespace: str, now: int) -> dict[bytes, str | None]:
        """Whose the sessions in the file are, by key; of encrypted ones, their records alone know."""
        users: dict[bytes, str | None] = {}
        after: bytes | None = b""
        while after is not None:
            entries, after, _ = await self._file.page(namespace, None, after, PREFETCH, now)
            users |= {entry.key: entry.user for entry in entries}
        return users

    async def _follow(self, address: Address, now: int) -> Address:
        """Where the session of an address is, in memory or in the file."""
        found: dict[Address, Record | Damaged | None] = {}
        while True:
            self._fetched = found
            try:
                return follow(address, now, self._peek)
            except _Cold as e:
                cold = e.address
            except Damaged:
                return address
            finally:
                self._fetched = {}
            found |= await self._file.load([cold])

    # Resealing -------------------------------------------------------------------------------------------

    async def _reseal(self) -> None:
        """Brings every row under the current seal, a step at a time; ends at once when all are."""
        again = RESEAL_AGAIN
        announced: str | None = None
        while not self._closing:
            try:
                async with self._writing:
                    before = await self._file.progress()
                    if not before.old:
                        self.figures.rekey_left = 0
                        break
                    if before.current != announced:
                        left, announced = max(0, before.total - before.done), before.current
                        log.info("rekey: %d rows come under %s, from %s", left, announced, _list(before.old))
                    looked_at = await self._file.reseal()
                    over = looked_at == 0 and await self._file.finish_resealing()
                self.figures.rekeyed += looked_at
                self.figures.rekey_left = max(0, before.total - before.done - looked_at)
                if over:
                    log.info(
                        "rekey: every row is under %s; the key list no longer needs %s%s",
                        before.current,
                        _list(before.old),
                        f"; {before.damaged} rows opened under no key, and were left" if before.damaged else "",
                    )
                again = RESEAL_AGAIN
                pause = RESEAL_PAUSE if looked_at or over else again
            except StorageError as e:
                if e.fatal:
                    self._on_fatal(e.text)
                log.warning("rekey: %s", e.text)
                pause, again = again, min(2 * again, 60)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), pause)
        self._resealing = None

    # Commits ---------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Returns when the file has everything that was acknowledged so far. StorageError: renewals cannot be written."""
        batch = self._committing
        if self._gathering.rows or self._renewed:
            batch = self._gathering
            self._renewals_due = True
            self._work.set()
        if batch is not None:
            done: asyncio.Future[None] = self._loop.create_future()
            batch.done.append(done)
            try:
                await done
            except StorageError:
                if self._renewed:
                    raise

    def _wake_after(self, seconds: float) -> None:
        if self._timer is None or self._timer.when() > self._loop.time() + seconds:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._renewals_due = True
        self._work.set()

    async def _commit_for_ever(self) -> None:
        while not self._closing or self._gathering.rows or self._renewed:
            await self._work.wait()
            self._work.clear()
            while self._has_work():
                async with self._writing:
                    if self._has_work():  # who held the lock may have committed it already
                        await self._commit()

    def _has_work(self) -> bool:
        return bool(self._gathering.rows or (self._renewals_due and self._renewed))

    async def _commit(self) -> StorageError | None:
        """Writes what was gathered. The error, if nothing of it is on disk; everybody who waited is told."""
        batch, self._gathering = self._gathering, _Batch()
        renewed: dict[Address, Record] = {}
        if self._renewals_due:
            renewed, self._renewed = self._renewed, {}
            self._renewals_due = False
        self._committing = batch
        for address, record in renewed.items():
            batch.rows.setdefault(address, record)
        latest = self.latest if self.latest >= self._time_kept + TIME_KEPT else None
        started = perf_counter()
        try:
            await self._file.write(batch.rows, batch.now, batch.evicted, latest)
        except StorageError as e:
            self._undo(batch, renewed, e)
            return e
        self.figures.commit_seconds.observe(perf_counter() - started)
        self.figures.commit_rows.observe(len(batch.rows))
        self._time_kept = self._time_kept if latest is None else latest
        self._committing = None
        self.trouble = None
        for reply, position, answer in batch.waiting:
            reply(position, answer)
        for done in batch.done:
            if not done.done():
                done.set_result(None)
        return None

    def _undo(self, batch: _Batch, renewed: dict[Address, Record], error: StorageError) -> None:
        """Nothing of `batch` is on disk, and what was gathered since builds on it: both fail, memory forgets them."""
        if error.fatal:
            self._on_fatal(error.text)
        log.error("commit: %s", error.text)
        if self.trouble is None:
            self._loop.call_later(PROBE_DELAY, self._start_probe)
        self.trouble = error.text
        later, self._gathering, self._committing = self._gathering, _Batch(), None
        if self._crowd is not None:
            self._crowd.forget()
            self._unseen = None
        written = (batch.rows.keys() - renewed.keys()) | later.rows.keys()
        for address in written:
            self._cache.drop(address)
            self._renewed.pop(address, None)
            self._overtake(address)
        if not self._closing:
            # A renewal was acknowledged already: it is kept, and tried again.
            on_disk = {a: record for a, record in later.renewals.items() if a in renewed or a not in batch.rows}
            for address, record in (renewed | on_disk | batch.renewals).items():
                self._renewed.setdefault(address, record)
        if self._renewed:
            self._wake_after(RENEWAL_DELAY)
        answer = failed(error.code, error.text)
        for reply, position, _ in (*batch.waiting, *later.waiting):
            reply(position, answer)
        for done in (*batch.done, *later.done):
            if not done.done():
                done.set_exception(error)

    def _start_probe(self) -> None:
        if self.trouble is not None and not self._closing:
            self._start(self._probe())

    async def _probe(self) -> None:
        """Finds out whether writing works again, for a readiness that keeps the writers away must not last for ever."""
        async with self._writing:
            try:
                await self._file.probe()
                self.trouble = None
            except StorageError as e:
                if e.fatal:
                    self._on_fatal(e.text)
                self._loop.call_later(PROBE_DELAY, self._start_probe)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A lane would wait for ever, and nobody would be told.
            log.critical("a defect in the engine", exc_info=error)
            self._on_fatal(f"the engine met an error that it does not know: {error!r}.")


def _list(ids: Sequence[str]) -> str:
    return ", ".join(ids)


def _addresses(call: SessionCall) -> tuple[Address, ...]:
    if isinstance(call, Rotate):
        return call.address, (call.address[0], call.new_key)
    return (call.address,)
