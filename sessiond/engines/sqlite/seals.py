"""Which seals the rows of a file are under, and the walk that brings them all under the current one.

The table `seals` names every seal that a row may be under. A new current seal is noted there before its first row is
written; an old one is struck out only when every row has been visited, and the write-ahead log emptied of what it held.
So a start knows which keys it needs, and whether a walk is due, however the process ended before.

The walk goes by rowid, a batch to a commit, and its place is kept in the same commit. Whatever is written meanwhile is
under the current seal already: rows behind the walk cannot fall back, and it ends at the last row that there was when it
began, however many are made meanwhile.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sessiond import codec
from sessiond.errors import Damaged, StartError
from sessiond.vault import PLAIN, Vault

BATCH_ROWS = 100
BATCH_BYTES = 1024 * 1024
"""What one step seals anew at most (a single row may be larger): the commits of others wait for one step, no more."""

_SEALS = "select id, canary from seals order by id"
_NOTE = "insert into seals values (?, ?) on conflict do nothing"
_STRIKE = "delete from seals where id <> ?"

_PLACE = "select id, sessions, expiries from rekey"
_BEGIN = """
    insert or replace into rekey select 1, ?, 0, 0, 0, (select count(*) from sessions), 0,
        (select ifnull(max(rowid), 0) from sessions), (select ifnull(max(number), 0) from expiries)"""
_ADVANCE = "update rekey set sessions = ?, done = done + ?, damaged = damaged + ?"
_ADVANCE_EXPIRIES = "update rekey set expiries = ?"
_PROGRESS = "select id, done, max(total, done), damaged from rekey"

_SIZES = """
    select rowid, ifnull(length(sealed), 0) from sessions
    where rowid > ? and rowid <= (select last_session from rekey) order by rowid limit ?"""
_ROWS = "select rowid, {} from sessions where rowid > ? and rowid <= ?"
_RESEAL = "update sessions set user = ?, sealed = ? where rowid = ?"

_EXPIRIES = """
    select number, namespace, key, user, expired_at, sealed from expiries
    where number > ? and number <= (select last_expiry from rekey) order by number limit ?"""
_RESEAL_EXPIRY = "update expiries set user = ?, sealed = ? where number = ?"


class Progress(NamedTuple):
    """`current`: the seal that rows come under, None before there was any. `old`: the other seals that rows may still be
    under; none when the walk is over. `done`, `total`: rows. `damaged`: those that no key of the list opened."""

    current: str | None
    old: tuple[str, ...]
    done: int
    total: int
    damaged: int


class Connection(Protocol):
    async def execute_fetchall(self, sql: str, parameters: Iterable[Any] = ..., /) -> Iterable[Any]: ...
    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]], /) -> Any: ...


class Seals:
    """`columns`: those of a row, the sealed record last. Its methods raise sqlite3.Error as it comes.

    Only one of them may run at a time, and nothing else may write meanwhile.
    """

    def __init__(
        self,
        path: Path,
        writer: Connection,
        transaction: Callable[[], AbstractAsyncContextManager[None]],
        columns: str,
    ) -> None:
        self._path = path
        self._writer = writer
        self._transaction = transaction
        self._rows = _ROWS.format(columns)
        self._user = columns.split(", ").index("user")

    async def adopt(self, vault: Vault) -> None:
        """Notes the current seal, so that rows may be written under it. StartError, and nothing is changed, when rows
        may be under a seal that is not in the list, or under another key of the same id."""
        found = dict(await self._fetch(_SEALS))
        for seal, canary in found.items():
            if seal not in vault.ids:
                raise StartError(_lacks(self._path, seal))
            if seal != PLAIN:
                try:
                    vault.open_bytes(_canary_context(seal), canary)
                except Damaged as e:
                    raise StartError(
                        f"the key {seal} in the key list is not the one that sessions in {self._path} are sealed under. "
                        f"Put the key that had this id back into the list, and give a new key an id of its own."
                    ) from e
        current = vault.current
        place = await self._fetch(_PLACE)
        if current in found and place and place[0][0] == current:
            return
        async with self._transaction():
            canary = b"" if current == PLAIN else vault.seal_bytes(_canary_context(current), b"")
            await self._writer.execute_fetchall(_NOTE, (current, canary))
            await self._writer.execute_fetchall(_BEGIN, (current,))

    async def progress(self) -> Progress:
        return _progress(await self._fetch(_SEALS), await self._fetch(_PROGRESS))

    async def step(self, vault: Vault) -> int:
        """Brings the next rows under the current seal, in one commit; how many it looked at. 0: none is left."""
        _, after, after_expiry = next(iter(await self._fetch(_PLACE)))
        sizes = await self._fetch(_SIZES, (after, BATCH_ROWS))
        if sizes:
            last, together = after, 0
            for rowid, size in sizes:
                together += size
                if last != after and together > BATCH_BYTES:
                    break
                last = rowid
            return await self._step_sessions(vault, after, last)
        expiries = await self._fetch(_EXPIRIES, (after_expiry, BATCH_ROWS))
        if not expiries:
            return 0
        fresh = []
        for number, namespace, key, user, at, sealed in expiries:
            if sealed is not None or user is not None:
                user = expired_user(vault, namespace, key, at, user, sealed)
                fresh.append((*seal_expired(vault, namespace, key, at, user), number))
        async with self._transaction():
            await self._writer.executemany(_RESEAL_EXPIRY, fresh)
            await self._writer.execute_fetchall(_ADVANCE_EXPIRIES, (expiries[-1][0],))
        return len(expiries)

    async def _step_sessions(self, vault: Vault, after: int, last: int) -> int:
        rows = await self._fetch(self._rows, (after, last))
        fresh: list[tuple[str | None, bytes, int]] = []
        damaged = 0
        for rowid, *columns, sealed in rows:
            if type(sealed) is bytes and vault.is_current(sealed):
                continue
            try:
                if type(sealed) is not bytes:
                    raise Damaged("a stored row holds no sealed record")
                record = vault.open(codec.pack(columns), sealed)
            except Damaged:
                damaged += 1
                continue
            user = None if record is None else vault.tag(columns[0], record.user)
            columns[self._user] = user
            fresh.append((user, vault.seal(codec.pack(columns), record), rowid))
        async with self._transaction():
            await self._writer.executemany(_RESEAL, fresh)
            await self._writer.execute_fetchall(_ADVANCE, (last, len(rows), damaged))
        return len(rows)

    async def finish(self, vault: Vault) -> bool:
        """Empties the write-ahead log of what the old seals left there, and strikes them out. False: somebody is
        reading what it holds, a backup perhaps; to be tried again."""
        # Without patience: whoever wants to commit waits for this.
        await self._writer.execute_fetchall("pragma busy_timeout = 0")
        try:
            (result,) = await self._writer.execute_fetchall("pragma wal_checkpoint(truncate)")
        finally:
            await self._writer.execute_fetchall("pragma busy_timeout = 5000")
        if result[0]:
            return False
        async with self._transaction():
            await self._writer.execute_fetchall(_STRIKE, (vault.current,))
        return True

    async def _fetch(self, sql: str, parameters: Iterable[Any] = ()) -> list[Any]:
        try:
            return list(await self._writer.execute_fetchall(sql, parameters))
        except sqlite3.Error as e:
            # Without SQLite's code, which would mean a failed write and so the end: a sector that the walk alone reads,
            # and cannot, must not end the daemon at each of its starts.
            raise sqlite3.OperationalError(f"reading: {e}") from e


def progress_of(path: Path) -> Progress | None:
    """How far a file is, read beside the daemon that owns it; None while it cannot be read."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as file:
        file.execute("begin")
        return _progress(file.execute(_SEALS).fetchall(), file.execute(_PROGRESS).fetchall())
    return None


def seal_expired(
    vault: Vault, namespace: str, key: bytes, at: int, user: str | None
) -> tuple[str | None, bytes | None]:
    """The columns `user` and `sealed` of an expiry: in a file that is encrypted, only the second names the user."""
    if user is None or vault.current == PLAIN:
        return user, None
    return None, vault.seal_bytes(_expiry_context(namespace, key, at), user.encode())


def expired_user(
    vault: Vault, namespace: str, key: bytes, at: int, user: str | None, sealed: bytes | None
) -> str | None:
    """The user of an expiry; None too when it cannot be opened: that the session expired is known without."""
    if sealed is None:
        return user
    try:
        return vault.open_bytes(_expiry_context(namespace, key, at), sealed).decode()
    except (Damaged, UnicodeDecodeError):
        return None


def _progress(seals: list[Any], rekey: list[Any]) -> Progress:
    current, done, total, damaged = rekey[0] if rekey else (None, 0, 0, 0)
    return Progress(current, tuple(seal for seal, _ in seals if seal != current), done, total, damaged)


def _expiry_context(namespace: str, key: bytes, at: int) -> bytes:
    return codec.pack(("expired", namespace, key, at))


def _canary_context(seal: str) -> bytes:
    return codec.pack(("canary", seal))


def _lacks(path: Path, seal: str) -> str:
    if seal == PLAIN:
        return (
            f"{path} holds sessions in the clear, and the key list does not let them in. Put the line {PLAIN} at the end of "
            "the list; when `sessiond rekey` says that all are encrypted, remove it."
        )
    return (
        f"{path} holds sessions that are sealed under the key {seal}, which is not in the key list: "
        "give encryption_keys a file that has this key's line."
    )
