"""The plain values that calls return, and the types that they take. No imports from this package.

Instants are integer milliseconds since the Unix epoch, UTC, by the daemon's clock. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

#: What a session holds: a dict with string keys of None, bool, int, float, str, bytes, list, tuple and dict, or opaque
#: bytes.
Data: TypeAlias = dict[str, Any] | bytes
#: A duration: seconds, fractions allowed (0.005 is 5 ms), or a timedelta.
Seconds: TypeAlias = float | timedelta
#: A sid, hashed before it leaves the process, or the 32-byte key of a session, as listings give it.
Sid: TypeAlias = str | bytes
#: The format that dicts are written in. Both are always read.
Format: TypeAlias = Literal["msgpack", "json"]
#: What must be there for `set` to write: anything, a living session, or exactly this version of it.
When: TypeAlias = Literal["any", "alive"] | int


@dataclass(slots=True)
class Record:
    """A living session as the daemon answered it."""

    data: Any = field(repr=False)  #: dict with string keys, or bytes when the session is opaque; kept out of logs
    format: str  #: "msgpack", "json" or "bytes"
    version: int  #: 1 at creation, +1 with every change of the data
    ttl: float  #: seconds it lives after its last renewal
    created_at: int
    expires_at: int
    deadline: int | None  #: the instant that no renewal can pass
    user: str | None
    meta: dict[str, str] | None


@dataclass(slots=True)
class Entry:
    """A living session as a listing shows it: never its sid, never its data."""

    key: bytes  #: accepted by every verb in place of a sid
    user: str | None
    meta: dict[str, str] | None
    created_at: int
    renewed_at: int
    expires_at: int
    version: int
    size: int  #: of the data, in bytes


@dataclass(slots=True)
class Listing:
    """A page of sessions, to be iterated. `cursor` fetches the next page; None after the last one."""

    entries: list[Entry]
    cursor: bytes | None

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(slots=True)
class Event:
    """The end of a session, or with the kind `gap` that some may be missing."""

    id: str  #: behind which `events(after=…)` goes on
    kind: str  #: "destroyed", "rotated", "evicted", "expired" or "gap"; a later daemon may know others
    key: bytes | None  #: None for a gap
    user: str | None
    at: int | None
    new_key: bytes | None  #: of "rotated": where the session lives on
    reason: str | None  #: of "gap": "overrun", too far behind; "restart", another start or another daemon


@dataclass(slots=True)
class Stats:
    """What a client has done since it was made. Plain counters, exact for one thread or one event loop."""

    connects: int = 0  #: connections opened
    messages_sent: int = 0
    calls_sent: int = 0  #: several travel in one message of an `AsyncClient`
    repeats: int = 0  #: calls that were sent again on another connection
