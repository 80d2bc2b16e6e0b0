"""Short words for tests of engines: keys and calls by name, and an engine under test that can be closed and opened again."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sessiond import calls
from sessiond.calls import Address, Call, Count, Destroy, Get, List, Policy, Rotate, Touch, When
from sessiond.engine import Engine, Entry, Expired, Lane, execute
from sessiond.engines import Options, open_engine
from sessiond.record import Answer, Record
from sessiond.vault import Clear, Key, Vault

NOW = 1_800_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
TTL = 10 * MINUTE
"""What sessions made by `create` live for, unless said otherwise."""

POLICY = Policy(ttl=TTL)
AMPLE = 64 * 1024 * 1024

PLAIN = Vault()
RED, BLUE = Key("red", b"r" * 32), Key("blue", b"b" * 32)

ENGINES = {
    "memory": ("memory:", AMPLE, PLAIN),
    "sqlite": ("sessions.db", AMPLE, PLAIN),
    "sqlite-cold": ("sessions.db", 0, PLAIN),  # a cache that holds nothing: every call goes to the file
    "sqlite-encrypted": ("sessions.db", 0, Vault([RED, BLUE, Clear()])),
}


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def op(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:8]


def at(name: str, namespace: str = "default") -> Address:
    return namespace, key(name)


def create(
    name: str,
    data: bytes = b"{}",
    format: str = "json",
    *,
    ns: str = "default",
    ttl: int | None = None,
    lifetime: int | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
    policy: Policy = POLICY,
) -> Call:
    return calls.create(at(name, ns), format, data, policy, ttl, lifetime, user, meta, op)


def get(name: str, renew: Any = None, *, ns: str = "default") -> Call:
    return Get(at(name, ns), renew)


def set_(
    name: str,
    data: bytes = b'{"set":1}',
    format: str = "json",
    when: When = "any",
    *,
    ns: str = "default",
    ttl: int | None = None,
    lifetime: int | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
    policy: Policy = POLICY,
) -> Call:
    return calls.set_(at(name, ns), format, data, policy, when, ttl, lifetime, user, meta, op)


def patch(
    name: str,
    changes: bytes | None = b'{"patched":1}',
    remove: tuple[str, ...] = (),
    format: str = "json",
    *,
    ns: str = "default",
    ttl: int | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
    policy: Policy = POLICY,
) -> Call:
    return calls.patch(at(name, ns), policy, format, changes, remove, ttl, user, meta, op)


def touch(name: str, ttl: int | None = None, *, ns: str = "default") -> Call:
    return Touch(at(name, ns), ttl)


def rotate(name: str, new: str, grace: int = 0, *, ns: str = "default", op: bytes | None = None) -> Call:
    return Rotate(at(name, ns), key(new), grace, op)


def destroy(name: str, *, ns: str = "default") -> Call:
    return Destroy(at(name, ns))


def list_(user: str | None = None, cursor: bytes | None = None, limit: int = 1000, *, ns: str = "default") -> Call:
    return List(ns, user, cursor, limit)


def count(user: str | None = None, *, ns: str = "default") -> Call:
    return Count(ns, user)


def destroy_all(user: str | None = None, but: str | None = None, *, ns: str = "default") -> Call:
    return calls.destroy_all(ns, user, None if but is None else key(but), user is None)


def data_of(answer: Answer) -> Any:
    """The data of the session in an answer, read."""
    record = record_of(answer)
    if record.format == "json":
        return msgspec.json.decode(record.data)
    return msgspec.msgpack.decode(record.data) if record.format == "msgpack" else record.data


def record_of(answer: Answer) -> Record:
    assert answer.record is not None, answer
    return answer.record


def entries_of(answer: Answer) -> list[Entry]:
    assert isinstance(answer.value, tuple), answer
    entries: list[Entry] = answer.value[0]
    return entries


def brief(answer: Answer) -> tuple[Any, ...]:
    """An answer as a few words: its status, and the version, the number, the code or the keys that came with it."""
    if answer.record is not None:
        return answer.status, answer.record.version
    if answer.status in ("refused", "failed"):
        assert isinstance(answer.value, tuple)
        return answer.status, answer.value[0]
    if isinstance(answer.value, tuple):
        return answer.status, [entry.key for entry in entries_of(answer)]
    return (answer.status,) if answer.value is None else (answer.status, answer.value)


def fatal(text: str) -> None:
    """An on_fatal for engines that are expected to keep well."""
    raise AssertionError(text)


class Subject:
    """An engine under test, with one lane that `ask` uses. Where it keeps records, `reopen` closes and opens it again.

    `fatal`: what on_fatal was told, for which the daemon would have ended its process.
    """

    engine: Engine
    lane: Lane

    def __init__(self, url: str, cache_bytes: int = AMPLE, relaxed: bool = False, vault: Vault = PLAIN) -> None:
        self.url = url
        self.fatal: list[str] = []
        self.options = Options(cache_bytes, relaxed, self.fatal.append, vault)

    @property
    def persists(self) -> bool:
        return self.url != "memory:"

    @property
    def path(self) -> Path:
        return Path(self.url)

    async def open(self) -> "Subject":
        self.engine = await open_engine(self.url, self.options)
        self.lane = self.engine.lane()
        return self

    async def reopen(self) -> None:
        """Nothing at all for an engine that keeps nothing."""
        if self.persists:
            await self.engine.close()
            await self.open()

    async def ask(self, *calls: Call, now: int = NOW, lane: Lane | None = None) -> list[Answer]:
        return await execute(self.lane if lane is None else lane, calls, now)

    async def one(self, call: Call, now: int = NOW, lane: Lane | None = None) -> Answer:
        return (await self.ask(call, now=now, lane=lane))[0]

    async def sweep_all(self, now: int, limit: int = 100) -> int:
        total = 0
        while True:
            swept = await self.engine.sweep(now, limit)
            assert swept.removed <= limit
            total += swept.removed
            if swept.is_over:
                return total

    async def expired(self) -> list[Expired]:
        return await self.engine.expired(0, 100_000)
