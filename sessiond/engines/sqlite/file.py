"""The SQLite file: opening, locking, migrating, and every SQL statement. Knows rows and records, no order of calls.

Two connections, each with its own thread (aiosqlite): `_writer` alone writes and checkpoints, for SQLite before 3.51.3
can corrupt a WAL that two connections write at once; `_reader` reads what is committed without waiting for an fsync.
"""

import fcntl
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import aiosqlite

from sessiond import codec
from sessiond.calls import Address
from sessiond.engine import Entry, Expired, entry
from sessiond.engines.sqlite.crowd import member_of
from sessiond.engines.sqlite.schema import APPLICATION_ID, STEPS
from sessiond.engines.sqlite.seals import Progress, Seals, expired_user, seal_expired
from sessiond.errors import Damaged, StartError
from sessiond.limits import Member, Usage
from sessiond.record import REPEAT_WINDOW, Record, size_of
from sessiond.vault import Vault

T = TypeVar("T")

_GONE, _SESSION, _ALIAS = 0, 1, 2

ROWS_PER_STATEMENT = 256
"""A commit of up to this many rows is one statement; a larger one is a transaction of several. SQLite keeps the last
128 prepared statements, one for each size that occurs."""

_KEYS_PER_QUERY = 500
_SEALED_PER_QUERY = 25  # where whole sealed records come along, which may be large
_KEPT_EXPIRIES = 10_000

_LOOK = 2_000
"""Rows that are due and noted in one look; the steps of a sweep work them off. Each look walks past the marks and
aliases that are kept for REPEAT_WINDOW."""

_PRAGMAS = (
    "pragma journal_mode = wal",
    "pragma synchronous = full",  # the commit is on disk when it returns
    "pragma mmap_size = 0",  # a failed read must be an error, not a SIGBUS
    "pragma temp_store = memory",
    "pragma cache_size = -65536",  # 64 MiB of pages
    "pragma secure_delete = on",  # what is destroyed leaves no bytes in the file
    "pragma foreign_keys = off",
    # The log takes 16 MB. Beside SQLite's 1000: 0.89 of the CPU a call, and 0.86 of the p99, with 64 callers and one write in four
    # (eight rounds in turn, medians).
    "pragma wal_autocheckpoint = 4000",
)

_COLUMNS = "namespace, key, kind, user, expires_at, version, size, sealed"
_SEALED_COLUMNS = "namespace, key, kind, user, expires_at, version, sealed"  # the size follows from the record

_LOAD = f"select {_COLUMNS} from sessions where namespace = ? and key in (%s)"

_LIST = f"""
    select {_COLUMNS} from sessions
    where namespace = ? and kind = 1 and key > ? and expires_at > ?
    order by key limit ?"""

_LIST_USER = f"""
    select {_COLUMNS} from sessions indexed by sessions_by_user
    where namespace = ? and user in (%s) and kind = 1 and key > ? and expires_at > ?
    order by key limit ?"""

_KEYS = "select key from sessions where namespace = ? and kind = 1 and expires_at > ?"

_KEYS_USER = """
    select key from sessions indexed by sessions_by_user
    where namespace = ? and user in (%s) and kind = 1 and expires_at > ?"""

# The maintained number, less the few that have died since the last sweep: they are among what is due. Left to choose its
# index, SQLite reads the whole namespace.
_COUNT = """
    select ifnull((select sessions from tallies where namespace = ?1 and user = ''), 0)
        - (select count(*) from sessions indexed by sessions_by_due
           where due <= ?2 and expires_at <= ?2 and kind = 1 and namespace = ?1)"""

# By user: he has few sessions, where what is due can be many.
_COUNT_USER = """
    select ifnull((select sum(sessions) from tallies where namespace = ?1 and user in (%s)), 0)
        - (select count(*) from sessions indexed by sessions_by_user
           where expires_at <= ?2 and kind = 1 and namespace = ?1 and user in (%s))"""

_ROSTER = f"""
    select {_COLUMNS} from sessions indexed by sessions_by_user
    where namespace = ? and user in (%s) and kind = 1"""

# What is kept, less what has died of it; and an instant before which no other dies, for nothing dies before it is due. Where
# the namespace is not among the next thousand that are due, it is that of the last of them.
_USAGE = """
    select
        ifnull((select sessions from tallies where namespace = :namespace and user = ''), 0)
            - count(*) filter (where expires_at <= :now),
        ifnull((select bytes from tallies where namespace = :namespace and user = ''), 0)
            - ifnull(sum(size) filter (where expires_at <= :now), 0),
        min(
            ifnull(min(expires_at) filter (where expires_at > :now), 1 << 62),
            coalesce(
                (select min(due)
                 from (select due, kind, namespace from sessions where due > :now order by due limit 1000)
                 where kind = 1 and namespace = :namespace),
                (select due from sessions where due > :now order by due limit 1 offset 999),
                1 << 62
            )
        )
    from sessions indexed by sessions_by_due where due <= :now and kind = 1 and namespace = :namespace"""

_LATEST = "select latest from clock"

# Where no session rests, none could live again.
_KEEP_TIME = """
    update clock set latest = :now
    where latest < :now and exists (select 1 from tallies where user = '' and sessions > 0)"""

# What has died, and what lives on.
_DUE = """
    select rowid, namespace, key, expires_at > ?1 from sessions indexed by sessions_by_due
    where due <= ?1 and (expires_at <= ?1 - iif(kind = 1, 0, ?2) or expires_at > ?1)
    order by due limit ?3"""

# The same past damage, in two steps: what the index alone knows, and the rows.
_DUE_ROWIDS = "select rowid from sessions indexed by sessions_by_due where due <= ? order by due limit ?"
_DUE_ROWS = """
    select rowid, namespace, key, expires_at > ?1 from sessions
    where (expires_at <= ?1 - iif(kind = 1, 0, ?2) or expires_at > ?1) and rowid in (%s)"""

# Whenever it comes, it is right.
_PUT_OFF = "update sessions set due = expires_at where rowid in (%s) returning rowid"

# Asked again in the same breath as it is deleted: a row may have come back to life since it was found.
_SWEEP = """
    delete from sessions
    where rowid in (%s) and expires_at <= ? - iif(kind = 1, 0, ?)
    returning namespace, key, kind, user, expires_at, %s"""

_REMEMBER = "insert into expiries (namespace, key, user, expired_at, reason, sealed) values (?, ?, ?, ?, ?, ?)"
_FORGET = "delete from expiries where number <= (select max(number) from expiries) - ?"
_EXPIRED = """
    select number, namespace, key, user, expired_at, reason, sealed from expiries
    where number > ? order by number limit ?"""


class StorageError(Exception):
    """A write that did not happen. `code` as in the protocol; `fatal`: what is on disk can no longer be known."""

    def __init__(self, code: str, text: str, fatal: bool) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.fatal = fatal


class Eviction(NamedTuple):
    """What is left of a session whose place another took."""

    namespace: str
    key: bytes
    user: str | None
    at: int
    reason: str = "evicted"


class Step(NamedTuple):
    """What one step of a sweep did. `damaged`: how many rows are due, and stay, for SQLite cannot read or change them.
    `is_over`: nothing is left that could be done."""

    gone: list[Address]
    damaged: int
    is_over: bool


class _TooDamaged(Exception):
    """Rows that a statement named are damaged. Nothing of it is done."""


class _Due(NamedTuple):
    """A row that the sweep has to look at. `lives`: beyond this instant."""

    rowid: int
    address: Address
    lives: bool


class SessionFile:
    def __init__(
        self, path: Path, lock: IO[str], writer: aiosqlite.Connection, reader: aiosqlite.Connection, vault: Vault
    ) -> None:
        self.path = path
        self._lock = lock
        self._writer = writer
        self._reader = reader
        self._vault = vault
        self.latest = 0
        """The latest instant that the file remembers, in ms."""
        self._noted: list[_Due] = []  # the last first
        self._is_idle = True  # nothing came of them so far
        self._idle_looks = 0  # one after the other, of which nothing came
        self._seals = Seals(path, writer, self._transaction, _SEALED_COLUMNS)

    @classmethod
    async def open(cls, path: Path, vault: Vault) -> "SessionFile":
        """Opens or makes the file, its folder included, and brings it up to date. StartError says why it cannot."""
        path = path.resolve()  # the lock belongs to the file, by whatever link it was named
        try:
            _make_folder(path.parent)
            lock = _take_lock(path)
            try:
                # Sessions are nobody else's business; SQLite gives the files beside this one its mode. And this tells
                # what SQLite does not: that the path is a folder, or belongs to somebody else.
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                links = os.fstat(handle).st_nlink
                os.close(handle)
            except OSError:
                lock.close()
                raise
            if links > 1:
                lock.close()
                raise StartError(
                    f"{path} has another name as well (a hard link), under which a second daemon could open it. "
                    "Remove that name, or give a copy."
                )
        except OSError as e:
            raise StartError(
                f"cannot use {path}: {e.strerror}. Give a file in a folder that sessiond may write to."
            ) from e
        writer: aiosqlite.Connection | None = None
        reader: aiosqlite.Connection | None = None
        try:
            writer = await aiosqlite.connect(path, isolation_level=None, timeout=5)
            await _migrate(writer, path)
            for pragma in _PRAGMAS:
                await writer.execute_fetchall(pragma)
            if next(iter(await writer.execute_fetchall("pragma journal_mode")))[0] != "wal":
                raise StartError(
                    f"{path} is on a file system without shared memory, a network's perhaps. Give a path on a local disk."
                )
            reader = await aiosqlite.connect(path, isolation_level=None, timeout=5)
            await reader.execute_fetchall("pragma query_only = on")
            await reader.execute_fetchall("pragma mmap_size = 0")
            for connection in (writer, reader):
                connection.text_factory = _text
            file = cls(path, lock, writer, reader, vault)
            file.latest = next(iter(await reader.execute_fetchall(_LATEST)))[0]
            await file._seals.adopt(vault)
            return file
        except BaseException as e:
            # Whatever it was: a connection that stays open keeps its thread, and with it a process that wants to end.
            for opened in (reader, writer):
                if opened is not None:
                    await opened.close()
            lock.close()
            if not isinstance(e, sqlite3.Error | UnicodeDecodeError):
                raise
            # SQLite's words quote the damaged place of a table's definition, which need not be text any more.
            reason = "its tables are damaged" if isinstance(e, UnicodeDecodeError) else e
            raise StartError(
                f"cannot open {path}: {reason}. Give another file, or restore this one from a backup."
            ) from e

    # Reading: what is committed ----------------------------------------------------------------------

    async def load(self, addresses: Iterable[Address]) -> dict[Address, Record | Damaged | None]:
        """What rests at each address: a record, dead or alive; None; or Damaged for that row alone."""
        found: dict[Address, Record | Damaged | None] = dict.fromkeys(addresses)
        by_namespace: dict[str, list[bytes]] = {}
        for namespace, key in found:
            by_namespace.setdefault(namespace, []).append(key)
        for namespace, keys in by_namespace.items():
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                await self._load(namespace, keys[start : start + _KEYS_PER_QUERY], found)
        return found

    async def _load(self, namespace: str, keys: list[bytes], found: dict[Address, Record | Damaged | None]) -> None:
        try:
            rows = await self._reader.execute_fetchall(_LOAD % _marks(len(keys)), (namespace, *keys))
        except sqlite3.DatabaseError as e:
            if len(keys) == 1:  # a damaged page: only those whose way leads through it cannot be read
                damaged = getattr(e, "sqlite_errorname", "") in ("SQLITE_CORRUPT", "SQLITE_NOTADB")
                found[namespace, keys[0]] = Damaged(str(e), "integrity" if damaged else "storage_failed")
                return
            for key in keys:
                await self._load(namespace, [key], found)
            return
        for row in rows:
            try:
                found[row[0], row[1]] = self._open(row)
            except Damaged as e:
                found[row[0], row[1]] = e

    async def page(
        self, namespace: str, user: str | None, after: bytes, limit: int, now: int
    ) -> tuple[list[Entry], bytes | None, int]:
        """Entries after that key, the cursor of the next page or None, and how many damaged rows were passed over."""
        rows = await self._select(_LIST, _LIST_USER, namespace, user, (after, now, limit))
        entries = []
        for row in rows:
            with suppress(Damaged):
                if (record := self._open(row)) is not None:
                    entries.append(entry(row[1], record))
        return entries, rows[-1][1] if len(rows) == limit else None, len(rows) - len(entries)

    async def keys(self, namespace: str, user: str | None, now: int) -> list[bytes]:
        return [row[0] for row in await self._select(_KEYS, _KEYS_USER, namespace, user, (now,))]

    async def count(self, namespace: str, user: str | None, now: int) -> int:
        if user is None:
            rows = await self._reader.execute_fetchall(_COUNT, (namespace, now))
            return int(next(iter(rows))[0])
        while True:
            vault = self._vault
            tags = vault.tags(namespace, user)
            marks = ", ".join(f"?{n}" for n in range(3, 3 + len(tags)))
            rows = await self._reader.execute_fetchall(_COUNT_USER % (marks, marks), (namespace, now, *tags))
            if vault is self._vault:
                return int(next(iter(rows))[0])

    async def roster(self, namespace: str, user: str) -> list[Member]:
        """The sessions of a user, dead ones too. A damaged one is the first to go: nobody can use it."""
        members = []
        for row in await self._select(_ROSTER, _ROSTER, namespace, user, ()):
            try:
                record = self._open(row)
            except Damaged:
                record = None
            members.append(Member(row[1], 0, 0, row[4], row[6]) if record is None else member_of(row[1], record))
        return members

    async def usage(self, namespace: str, now: int) -> tuple[Usage, int]:
        """What lives in a namespace, and an instant before which none of it dies."""
        rows = await self._reader.execute_fetchall(_USAGE, {"namespace": namespace, "now": now})
        sessions, size, next_end = next(iter(rows))
        return Usage(sessions, size), next_end

    async def expired(self, after: int, limit: int) -> list[Expired]:
        rows = await self._reader.execute_fetchall(_EXPIRED, (after, limit))
        return [
            Expired(number, namespace, key, expired_user(self._vault, namespace, key, at, user, sealed), at, reason)
            for number, namespace, key, user, at, reason, sealed in rows
        ]

    async def _select(
        self, whole: str, of_user: str, namespace: str, user: str | None, rest: tuple[Any, ...]
    ) -> list[Any]:
        """Rows of a namespace, or of all that may stand for a user in it."""
        if user is None:
            return list(await self._reader.execute_fetchall(whole, (namespace, *rest)))
        while True:
            vault = self._vault
            tags = vault.tags(namespace, user)
            rows = await self._reader.execute_fetchall(of_user % _marks(len(tags)), (namespace, *tags, *rest))
            if vault is self._vault:  # else rows may have been written meanwhile whose tag was not asked for
                return list(rows)

    # Writing -----------------------------------------------------------------------------------------

    async def write(
        self,
        rows: Mapping[Address, Record | None],
        now: int,
        evicted: Sequence[Eviction] = (),
        latest: int | None = None,
    ) -> None:
        """One commit, on disk when this returns. None writes the mark of a destroyed session. Raises StorageError.

        `latest`: an instant to remember with it.
        """
        values = [self._row(address, record, now) for address, record in rows.items()]
        if self._writer.in_transaction:
            # Whatever left it open, a commit inside it would be none.
            raise StorageError("storage_failed", "A transaction was left open.", fatal=True)
        try:
            if len(values) <= ROWS_PER_STATEMENT and not evicted and latest is None:
                # One statement is its own transaction: one hop to the thread, the GIL released once.
                await self._writer.execute_fetchall(_upsert(len(values)), _flat(values))
            else:
                async with self._transaction():
                    for chunk in _chunks(values, ROWS_PER_STATEMENT):
                        await self._writer.execute_fetchall(_upsert(len(chunk)), _flat(chunk))
                    if evicted:
                        await self._writer.executemany(_REMEMBER, [self._ended(*each) for each in evicted])
                        await self._writer.execute_fetchall(_FORGET, (_KEPT_EXPIRIES,))
                    if latest is not None:
                        await self._writer.execute_fetchall(_KEEP_TIME, {"now": latest})
        except sqlite3.Error as e:
            raise _storage_error(e) from e

    async def sweep(self, now: int, limit: int, spared: Set[Address]) -> Step:
        """Takes `limit` rows at most of those that are due: the dead are deleted, but for those `spared`, and what lives on
        is put off, in one commit; in several past rows that are too damaged for it. Raises StorageError.
        """
        gone: list[Address] = []
        damaged, is_all = 0, False
        if not self._noted:
            self._noted, damaged, is_all = await self._look(now)
            self._is_idle = True

        async def work_off(due: Sequence[_Due]) -> None:
            async with self._transaction():
                with _telling_damage():
                    ended = await self._delete([each.rowid for each in due if not each.lives], now)
                    put_off = await self._put_off([each.rowid for each in due if each.lives])
            gone.extend(ended)
            self._is_idle &= not ended and not put_off

        taken = [self._noted.pop() for _ in range(min(limit, len(self._noted)))]
        try:
            damaged += await _past_damage(
                [each for each in taken if each.lives or each.address not in spared], work_off
            )
        except sqlite3.Error as e:
            error = _storage_error(e)
            if error.fatal or not gone:
                raise error from e
            return Step(gone, damaged, is_over=False)
        # Others may have become due since the look. If nothing came of two of them, it is always the same rows.
        if not self._noted:
            self._idle_looks = self._idle_looks + 1 if self._is_idle else 0
            is_all = is_all or self._idle_looks == 2
            if is_all:
                self._idle_looks = 0
        return Step(gone, damaged, is_all and not self._noted)

    async def _look(self, now: int) -> tuple[list[_Due], int, bool]:
        """What is due, the last first; how many rows could not be read, and whether that is all. Raises StorageError."""
        rows: list[Any] = []
        damaged = 0

        async def read(rowids: Sequence[int]) -> None:
            with _telling_damage():
                rows.extend(
                    await self._reader.execute_fetchall(_DUE_ROWS % _marks(len(rowids)), (now, REPEAT_WINDOW, *rowids))
                )

        try:
            try:
                with _telling_damage():
                    rows.extend(await self._reader.execute_fetchall(_DUE, (now, REPEAT_WINDOW, _LOOK)))
                found = len(rows)
            except _TooDamaged:
                rowids = [row[0] for row in await self._reader.execute_fetchall(_DUE_ROWIDS, (now, _LOOK))]
                found, damaged = len(rowids), await _past_damage(rowids, read)
        except sqlite3.Error as e:
            raise StorageError("storage_failed", f"The storage could not be read: {e}.", fatal=False) from e
        due = [_Due(rowid, (namespace, key), bool(lives)) for rowid, namespace, key, lives in rows]
        return due[::-1], damaged, found < _LOOK

    async def _put_off(self, rowids: list[int]) -> int:
        """How many of the rows are due at their end now."""
        put_off = 0
        for chunk in _chunks(rowids, _KEYS_PER_QUERY):
            put_off += len(list(await self._writer.execute_fetchall(_PUT_OFF % _marks(len(chunk)), chunk)))
        return put_off

    async def _delete(self, rowids: list[int], now: int) -> list[Address]:
        gone: list[Address] = []
        # The user of an encrypted row is known from its record alone.
        size, extra = (_SEALED_PER_QUERY, _COLUMNS) if self._vault.encrypts else (_KEYS_PER_QUERY, "null")
        for chunk in _chunks(rowids, size):
            sweep = _SWEEP % (_marks(len(chunk)), extra)
            rows = list(await self._writer.execute_fetchall(sweep, (*chunk, now, REPEAT_WINDOW)))
            await self._writer.executemany(_REMEMBER, [self._expiry(row) for row in rows if row[2] == _SESSION])
            gone += [(row[0], row[1]) for row in rows]
        if gone:
            await self._writer.execute_fetchall(_FORGET, (_KEPT_EXPIRIES,))
        return gone

    async def keep_time(self, latest: int) -> None:
        """Remembers an instant, if sessions rest here. Raises StorageError."""
        try:
            await self._writer.execute_fetchall(_KEEP_TIME, {"now": latest})
        except sqlite3.Error as e:
            raise _storage_error(e) from e

    # Seals -------------------------------------------------------------------------------------------

    async def adopt(self, vault: Vault) -> None:
        """Seals with another vault from now on. StartError: rows need a key that it lacks. StorageError."""
        try:
            await self._seals.adopt(vault)
        except sqlite3.Error as e:
            raise _storage_error(e) from e
        self._vault = vault

    async def progress(self) -> Progress:
        """How far resealing is. Raises StorageError."""
        try:
            return await self._seals.progress()
        except sqlite3.Error as e:
            raise _storage_error(e) from e

    async def reseal(self) -> int:
        """Brings the next rows under the current seal; how many it looked at. 0: none is left. Raises StorageError."""
        try:
            return await self._seals.step(self._vault)
        except sqlite3.Error as e:
            raise _storage_error(e) from e

    async def finish_resealing(self) -> bool:
        """When none is left: old seals leave the WAL and the list. False: not now. Raises StorageError."""
        try:
            return await self._seals.finish(self._vault)
        except sqlite3.Error as e:
            raise _storage_error(e) from e

    async def probe(self) -> None:
        """One tiny commit, which changes nothing: whether writing works again. Raises StorageError."""
        try:
            await self._writer.execute_fetchall(f"pragma user_version = {len(STEPS)}")
        except sqlite3.Error as e:
            raise _storage_error(e) from e

    async def close(self) -> None:
        """Folds the WAL into the file, so that the file alone is the whole, and lets go of it."""
        with suppress(sqlite3.Error):
            await self._reader.close()
        with suppress(sqlite3.Error):
            await self._writer.execute_fetchall("pragma wal_checkpoint(truncate)")
        with suppress(sqlite3.Error):
            await self._writer.close()
        self._lock.close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        try:
            # Inside, for a BEGIN whose caller is cancelled is carried out by the thread all the same.
            await self._writer.execute_fetchall("begin immediate")
            yield
            await self._writer.execute_fetchall("commit")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite rolls back by itself on some errors; then nothing is left to do
                await self._writer.execute_fetchall("rollback")
            raise

    # Rows --------------------------------------------------------------------------------------------

    def _row(self, address: Address, record: Record | None, now: int) -> tuple[Any, ...]:
        user: str | None
        if record is None:
            kind, user, expires_at, version, size = _GONE, None, now, 0, 0
        else:
            kind = _SESSION if record.target is None else _ALIAS
            user = self._vault.tag(address[0], record.user)
            expires_at, version, size = record.expires_at, record.version, size_of(record)
        columns = (*address, kind, user, expires_at, version)
        return (*columns, size, self._vault.seal(codec.pack(columns), record), expires_at)

    def _open(self, row: Any) -> Record | None:
        if type(row[-1]) is not bytes:
            raise Damaged("a stored row holds no sealed record")
        # The size is not part of what was sealed, for the record tells it.
        record = self._vault.open(codec.pack(tuple(row[:-2])), row[-1])
        if row[-2] != (0 if record is None else size_of(record)):
            raise Damaged("a stored row is not what was written")
        return record

    def _expiry(self, row: Any) -> tuple[Any, ...]:
        namespace, key, _, user, at, *whole = row
        if self._vault.encrypts:
            try:
                record = self._open(whole)
                user = None if record is None else record.user
            except Damaged:
                user = None
        return self._ended(namespace, key, user, at, "expired")

    def _ended(self, namespace: str, key: bytes, user: str | None, at: int, reason: str) -> tuple[Any, ...]:
        user, sealed = seal_expired(self._vault, namespace, key, at, user)
        return namespace, key, user, at, reason, sealed


def _text(raw: bytes) -> str:
    # A damaged text must not make the whole query fail: its row does not fit its seal, and that is told for it alone.
    return raw.decode("utf-8", "replace")


@cache
def _upsert(rows: int) -> str:
    return f"""
        insert into sessions ({_COLUMNS}, due) values {", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows)}
        on conflict do update set kind = excluded.kind, user = excluded.user, expires_at = excluded.expires_at,
            version = excluded.version, size = excluded.size, sealed = excluded.sealed"""


def _marks(number: int) -> str:
    return ", ".join("?" * number)


def _flat(rows: list[tuple[Any, ...]]) -> list[Any]:
    return [value for row in rows for value in row]


def _chunks(rows: list[T], size: int) -> Iterable[list[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@contextmanager
def _telling_damage() -> Iterator[None]:
    """Raises _TooDamaged where SQLite says so of a row or a page, which it does of a sector that cannot be read as well."""
    try:
        yield
    except sqlite3.DatabaseError as e:
        if getattr(e, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT):
            raise _TooDamaged from e
        raise


async def _past_damage(items: Sequence[T], work: Callable[[Sequence[T]], Awaitable[None]]) -> int:
    """Has `work` done for all of them; by halves past those that it raises _TooDamaged for. How many those are.

    By halves, for SQLite takes nothing more in a transaction that met damage.
    """
    if not items:
        return 0
    try:
        await work(items)
        return 0
    except _TooDamaged:
        if len(items) == 1:
            return 1
    middle = len(items) // 2
    return await _past_damage(items[:middle], work) + await _past_damage(items[middle:], work)


def _storage_error(error: sqlite3.Error) -> StorageError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return StorageError("storage_full", "The disk is full: nothing was stored. Free some space.", fatal=False)
    # After a failed fsync the kernel may drop the pages and call the next fsync a success; after any failed read or
    # write during a commit, nobody knows what the file holds. Only a fresh start, from the file, knows again.
    fatal = name.startswith("SQLITE_IOERR")
    return StorageError("storage_failed", f"The storage refused the write: {error}.", fatal)


def _make_folder(folder: Path) -> None:
    """Makes a folder that is not there, for its owner alone, so that it outlives a power loss too."""
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        # SQLite makes its file known to the disk's folder, and nobody the folder to the one above it.
        above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(above)
        finally:
            os.close(above)


def _take_lock(path: Path) -> IO[str]:
    """Holds `path`.lock for as long as the process lives; the kernel lets go of it even after kill -9."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    file = os.fdopen(handle, "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise StartError(
            f"{path} is in use by {owner}. One daemon owns a file: stop that one, or give another --data."
        ) from e
    file.seek(0)
    file.truncate()
    file.write(f"sessiond, process {os.getpid()}\n")
    file.flush()
    return file


def owner_of(path: Path) -> int | None:
    """The process that has a file open, as it calls itself; None if none does."""
    with suppress(FileNotFoundError), path.with_name(path.name + ".lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            found = re.search(r"process (\d+)", file.read())
            return int(found[1]) if found else 0
    return None


async def _migrate(writer: aiosqlite.Connection, path: Path) -> None:
    """Brings the file to the latest schema, in one transaction."""

    async def number(pragma: str) -> int:
        return int(next(iter(await writer.execute_fetchall(f"pragma {pragma}")))[0])

    version, application = await number("user_version"), await number("application_id")
    empty = (await number("schema_version")) == 0
    if not empty and application != APPLICATION_ID:
        raise StartError(f"{path} is another program's database. Give a path where sessiond may make its own.")
    if version > len(STEPS):
        raise StartError(
            f"{path} was written by a newer sessiond (schema {version}, this one knows {len(STEPS)}). "
            "Start that version; the file was not changed."
        )

    if version == len(STEPS):
        return

    in_the_clear = Vault()  # as all rows are that a step asks the size of

    def size_of_row(namespace: bytes, key: bytes, kind: int, user: bytes | None, *rest: Any) -> int:
        # Texts come as bytes, for SQLite's own conversion of a damaged one would end the whole step.
        columns = (_text(namespace), key, kind, None if user is None else _text(user), *rest[:-1])
        try:
            record = in_the_clear.open(codec.pack(columns), rest[-1])
        except (Damaged, TypeError):  # TypeError: what should be bytes is none
            return 0
        return 0 if record is None else size_of(record)

    await writer.create_function("size_of_row", 7, size_of_row, deterministic=True)
    try:
        # executescript ends a transaction that is open, so the script brings its own.
        await writer.executescript(
            f"begin immediate; pragma application_id = {APPLICATION_ID}; {' '.join(STEPS[version:])} "
            f"pragma user_version = {len(STEPS)}; commit;"
        )
    except sqlite3.Error as e:
        if empty:
            raise
        raise StartError(
            f"{path} cannot be brought up to date: {e}. It holds what it held: the sessiond that wrote it opens it still. "
            "If the disk is full, free some space; else restore a backup."
        ) from e
