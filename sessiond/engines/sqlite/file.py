"""The SQLite file: opening, locking, migrating, and every SQL statement. Knows rows and records, no order of calls.

Two connections, each with its own thread (aiosqlite): `_writer` alone writes and checkpoints, for SQLite before 3.51.3
can corrupt a WAL that two connections write at once; `_reader` reads what is committed without waiting for an fsync.
"""

import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import aiosqlite

from sessiond import codec
from sessiond.calls import Address
from sessiond.engine import Entry, Expired, entry
from sessiond.engines.sqlite.crowd import member_of
from sessiond.engines.sqlite.schema import APPLICATION_ID, STEPS
from sessiond.errors import Damaged, StartError
from sessiond.limits import Member, Usage
from sessiond.record import REPEAT_WINDOW, Record, size_of
from sessiond.vault import Vault

_GONE, _SESSION, _ALIAS = 0, 1, 2

ROWS_PER_STATEMENT = 256
"""A commit of up to this many rows is one statement; a larger one is a transaction of several. SQLite keeps the last
128 prepared statements, one for each size that occurs."""

_KEYS_PER_QUERY = 500
_KEPT_EXPIRIES = 10_000

_PRAGMAS = (
    "pragma journal_mode = wal",
    "pragma synchronous = full",  # the commit is on disk when it returns
    "pragma mmap_size = 0",  # a failed read must be an error, not a SIGBUS
    "pragma temp_store = memory",
    "pragma cache_size = -65536",  # 64 MiB of pages
    "pragma secure_delete = on",  # what is destroyed leaves no bytes in the file
    "pragma foreign_keys = off",
)

_COLUMNS = "namespace, key, kind, user, expires_at, version, size, sealed"

_LOAD = f"select {_COLUMNS} from sessions where namespace = ? and key in (%s)"

_LIST = f"""
    select {_COLUMNS} from sessions
    where namespace = ? and kind = 1 and key > ? and expires_at > ?
    order by key limit ?"""

_LIST_USER = f"""
    select {_COLUMNS} from sessions indexed by sessions_by_user
    where namespace = ? and user = ? and kind = 1 and key > ? and expires_at > ?
    order by key limit ?"""

_KEYS = "select key from sessions where namespace = ? and kind = 1 and expires_at > ?"

_KEYS_USER = """
    select key from sessions indexed by sessions_by_user
    where namespace = ? and user = ? and kind = 1 and expires_at > ?"""

# The maintained number, less the few that have died since the last sweep.
_COUNT = """
    select ifnull((select sessions from tallies where namespace = :namespace and user = ifnull(:user, '')), 0)
        - (select count(*) from sessions
           where expires_at >> 20 <= :now >> 20 and expires_at <= :now and kind = 1
             and namespace = :namespace and (:user is null or user = :user))"""

_ROSTER = f"select {_COLUMNS} from sessions indexed by sessions_by_user where namespace = ? and user = ? and kind = 1"

# What is kept, less what has died of it; and when the next may die, if that is before the bucket's end.
_USAGE = """
    select
        ifnull((select sessions from tallies where namespace = :namespace and user = ''), 0)
            - count(*) filter (where expires_at <= :now),
        ifnull((select bytes from tallies where namespace = :namespace and user = ''), 0)
            - ifnull(sum(size) filter (where expires_at <= :now), 0),
        ifnull(min(expires_at) filter (where expires_at > :now), ((:now >> 20) + 1) << 20)
    from sessions where expires_at >> 20 <= :now >> 20 and kind = 1 and namespace = :namespace"""

_LATEST = "select latest from clock"

# Where no session rests, none could live again.
_KEEP_TIME = """
    update clock set latest = :now
    where latest < :now and exists (select 1 from tallies where user = '' and sessions > 0)"""

_DUE = """
    select rowid, namespace, key from sessions
    where expires_at >> 20 <= :now >> 20 and expires_at <= :now - iif(kind = 1, 0, :window)
    order by expires_at >> 20 limit :limit"""

# Asked again in the same breath as it is deleted: a row may have come back to life since it was found.
_SWEEP = """
    delete from sessions
    where rowid in (%s) and expires_at <= ? - iif(kind = 1, 0, ?)
    returning namespace, key, kind, user, expires_at"""

_REMEMBER = "insert into expiries (namespace, key, user, expired_at, reason) values (?, ?, ?, ?, ?)"
_FORGET = "delete from expiries where number <= (select max(number) from expiries) - ?"
_EXPIRED = """
    select number, namespace, key, user, expired_at, reason from expiries where number > ? order by number limit ?"""


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

    @classmethod
    async def open(cls, path: Path, vault: Vault) -> "SessionFile":
        """Opens or makes the file, its folder included, and brings it up to date. StartError says why it cannot."""
        path = path.expanduser().resolve()  # the lock belongs to the file, by whatever link it was named
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
        try:
            writer = await aiosqlite.connect(path, isolation_level=None, timeout=5)
            await _migrate(writer, path, vault)
            for pragma in _PRAGMAS:
                await writer.execute_fetchall(pragma)
            if next(iter(await writer.execute_fetchall("pragma journal_mode")))[0] != "wal":
                raise StartError(
                    f"{path} is on a file system without shared memory, a network's perhaps. Give a path on a local disk."
                )
            reader = await aiosqlite.connect(path, isolation_level=None, timeout=5)
            await reader.execute_fetchall("pragma query_only = on")
            await reader.execute_fetchall("pragma mmap_size = 0")
            file = cls(path, lock, writer, reader, vault)
            file.latest = next(iter(await reader.execute_fetchall(_LATEST)))[0]
            return file
        except (sqlite3.Error, StartError) as e:
            if writer is not None:
                await writer.close()
            lock.close()
            if isinstance(e, StartError):
                raise
            raise StartError(f"cannot open {path}: {e}. Give another file, or restore this one from a backup.") from e

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
        who = (namespace,) if user is None else (namespace, user)
        sql = _LIST if user is None else _LIST_USER
        rows = list(await self._reader.execute_fetchall(sql, (*who, after, now, limit)))
        entries = []
        for row in rows:
            with suppress(Damaged):
                if (record := self._open(row)) is not None:
                    entries.append(entry(row[1], record))
        return entries, rows[-1][1] if len(rows) == limit else None, len(rows) - len(entries)

    async def keys(self, namespace: str, user: str | None, now: int) -> list[bytes]:
        who = (namespace,) if user is None else (namespace, user)
        rows = await self._reader.execute_fetchall(_KEYS if user is None else _KEYS_USER, (*who, now))
        return [row[0] for row in rows]

    async def count(self, namespace: str, user: str | None, now: int) -> int:
        rows = await self._reader.execute_fetchall(_COUNT, {"namespace": namespace, "user": user, "now": now})
        return int(next(iter(rows))[0])

    async def roster(self, namespace: str, user: str) -> list[Member]:
        """The sessions of a user, dead ones too. A damaged one is the first to go: nobody can use it."""
        members = []
        for row in await self._reader.execute_fetchall(_ROSTER, (namespace, user)):
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
        return [Expired(*row) for row in await self._reader.execute_fetchall(_EXPIRED, (after, limit))]

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
                        await self._writer.executemany(_REMEMBER, evicted)
                        await self._writer.execute_fetchall(_FORGET, (_KEPT_EXPIRIES,))
                    if latest is not None:
                        await self._writer.execute_fetchall(_KEEP_TIME, {"now": latest})
        except sqlite3.Error as e:
            raise _storage_error(e) from e

    async def sweep(self, now: int, limit: int, spared: Set[Address]) -> list[tuple[Address, bool]]:
        """Deletes at most `limit` of the dead, but for those `spared`, in one commit; which, and whether each was a session."""
        enough = {"now": now, "window": REPEAT_WINDOW, "limit": limit + len(spared)}
        try:
            due = await self._reader.execute_fetchall(_DUE, enough)
        except sqlite3.Error as e:
            raise StorageError("storage_failed", f"The storage could not be read: {e}.", fatal=False) from e
        rowids = [rowid for rowid, *address in due if tuple(address) not in spared][:limit]
        if not rowids:
            return []
        gone: list[Any] = []
        try:
            async with self._transaction():
                for start in range(0, len(rowids), _KEYS_PER_QUERY):
                    chunk = rowids[start : start + _KEYS_PER_QUERY]
                    sweep = _SWEEP % _marks(len(chunk))
                    gone += await self._writer.execute_fetchall(sweep, (*chunk, now, REPEAT_WINDOW))
                expired = [(ns, key, user, at, "expired") for ns, key, kind, user, at in gone if kind == _SESSION]
                await self._writer.executemany(_REMEMBER, expired)
                await self._writer.execute_fetchall(_FORGET, (_KEPT_EXPIRIES,))
        except sqlite3.Error as e:
            raise _storage_error(e) from e
        return [((row[0], row[1]), row[2] == _SESSION) for row in gone]

    async def keep_time(self, latest: int) -> None:
        """Remembers an instant, if sessions rest here. Raises StorageError."""
        try:
            await self._writer.execute_fetchall(_KEEP_TIME, {"now": latest})
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
        columns: tuple[Any, ...]
        if record is None:
            columns = (*address, _GONE, None, now, 0)
        else:
            kind = _SESSION if record.target is None else _ALIAS
            columns = (*address, kind, record.user, record.expires_at, record.version)
        return (*columns, 0 if record is None else size_of(record), self._vault.seal(codec.pack(columns), record))

    def _open(self, row: Any) -> Record | None:
        if type(row[-1]) is not bytes:
            raise Damaged("a stored row holds no sealed record")
        # The size is not part of what was sealed, for the record tells it.
        record = self._vault.open(codec.pack(tuple(row[:-2])), row[-1])
        if row[-2] != (0 if record is None else size_of(record)):
            raise Damaged("a stored row is not what was written")
        return record


@cache
def _upsert(rows: int) -> str:
    return f"""
        insert into sessions ({_COLUMNS}) values {", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * rows)}
        on conflict do update set kind = excluded.kind, user = excluded.user, expires_at = excluded.expires_at,
            version = excluded.version, size = excluded.size, sealed = excluded.sealed"""


def _marks(number: int) -> str:
    return ", ".join("?" * number)


def _flat(rows: list[tuple[Any, ...]]) -> list[Any]:
    return [value for row in rows for value in row]


def _chunks(rows: list[tuple[Any, ...]], size: int) -> Iterable[list[tuple[Any, ...]]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


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


async def _migrate(writer: aiosqlite.Connection, path: Path, vault: Vault) -> None:
    """Brings the file to the latest schema, each step in a transaction of its own with its number."""

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

    def size_of_row(*row: Any) -> int:
        try:
            record = vault.open(codec.pack(row[:-1]), row[-1])
        except (Damaged, TypeError):  # TypeError: what should be bytes is none
            return 0
        return 0 if record is None else size_of(record)

    await writer.create_function("size_of_row", 7, size_of_row, deterministic=True)
    for step in range(version, len(STEPS)):
        # executescript ends a transaction that is open, so the script brings its own.
        await writer.executescript(
            f"begin immediate; pragma application_id = {APPLICATION_ID}; {STEPS[step]} "
            f"pragma user_version = {step + 1}; commit;"
        )
