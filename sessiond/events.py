"""What has ended: one log in memory of the ends of sessions, read by position. Pure: no clock, no I/O, no queue a reader.

The log is a ring. It is filled by the answers to calls (`record.Ended`) and by what sweeps and evictions leave behind
in the engine (`engine.Expired`), those of before the start included. A reader is a position in it and nothing else, so
one that is slow, or gone, costs nothing.

**Ids.** An event's id is EPOCH-POSITION-NUMBER: which start of the daemon, where in the ring, and the latest of the
engine's numbered expiries by then. A reader that comes back with one is given exactly what it missed. Where that cannot be
had it is told so first, by a `gap`: the ring has moved on past its position (`overrun`), or the daemon was started anew
(`restart`) and forgot the ends by calls; expiries and evictions, which the engine keeps, are still told, as far as
they go back.
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from sessiond.codec import Value
from sessiond.engine import Expired
from sessiond.errors import Refused
from sessiond.record import Ended

KEPT = 10_000
"""Events in the ring, some 3 MB: as many as an engine keeps of its expiries."""

SCAN = 500
"""Events that one reading looks at, so that a reader far behind holds up nobody: some 0.6 ms (1.1 µs each, measured)."""

Kind = Literal["destroyed", "rotated", "evicted", "expired", "gap"]
Reason = Literal["overrun", "restart"]

_ID = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})", re.ASCII)


class Event(Value, frozen=True):
    """`at`: when it ended, in ms. `new_key`: of `rotated`, the key under which the session lives on.

    `gap`: not the end of a session, but that some may be missing, with its reason; it has no key, user and instant.
    """

    id: str
    kind: Kind
    key: bytes | None = None
    user: str | None = None
    at: int | None = None
    new_key: bytes | None = None
    reason: Reason | None = None


class Cursor(NamedTuple):
    """How far a reader is: the last position that it has seen, and the last number; `gap`: what it has to be told first."""

    position: int
    number: int
    gap: Reason | None = None


class _Kept(NamedTuple):
    ended: Ended
    number: int | None  # the engine's, if it has one
    latest: int  # the latest number by then


class EventLog:
    """`epoch`: 16 hex digits that no other start of a daemon has. Positions count from 1."""

    def __init__(self, epoch: str, kept: int = KEPT) -> None:
        self._epoch = epoch
        self._ring: list[_Kept | None] = [None] * kept
        self._last = 0
        self._number = 0
        self._wakes: dict[Callable[[], None], None] = {}

    @property
    def number(self) -> int:
        """That of the engine's latest expiry which is in the log; those after it are to be put in next."""
        return self._number

    # Filling it ------------------------------------------------------------------------------------------

    def add(self, ends: Iterable[Ended]) -> None:
        """What an answer tells. Evictions are left out: the engine keeps them, with a number, and they come from there."""
        before = self._last
        for ended in ends:
            if ended.reason != "evicted":
                self._put(ended, None)
        self._wake(before)

    def add_expired(self, expired: Iterable[Expired]) -> None:
        """What the engine keeps, in the order of the numbers; what is in the log already is passed over."""
        before = self._last
        for each in expired:
            if each.number > self._number:
                self._number = each.number
                self._put(Ended(each.namespace, each.key, each.user, each.expired_at, each.reason), each.number)
        self._wake(before)

    def _put(self, ended: Ended, number: int | None) -> None:
        self._last += 1
        self._ring[self._last % len(self._ring)] = _Kept(ended, number, self._number)

    # Reading it ------------------------------------------------------------------------------------------

    def now(self) -> Cursor:
        """Behind the last event: what comes from now on."""
        return Cursor(self._last, self._number)

    def after(self, known: str) -> Cursor:
        """Behind the event of that id. Refused: no event can have had it."""
        match = _ID.fullmatch(known)
        if match is None:
            raise _unknown()
        epoch, position, number = match[1], int(match[2]), int(match[3])
        if epoch == self._epoch:
            if position > self._last or number > self._number:
                raise _unknown()
            return Cursor(position, number)
        # A number that the engine has not reached is another file's, or of before a backup was put back.
        return Cursor(0, number if number <= self._number else 0, "restart")

    def id_of(self, cursor: Cursor) -> str:
        """The id after which a reader goes on from there. Not to be given away while a gap is still to be told."""
        return f"{self._epoch}-{cursor.position}-{cursor.number}"

    def read(self, cursor: Cursor, namespace: str) -> tuple[list[Event], Cursor]:
        """What there is of that namespace behind the cursor, and the cursor behind it; of SCAN events at most."""
        position, number, gap = cursor
        events: list[Event] = []
        oldest = max(0, self._last - len(self._ring))
        if position < oldest:
            position, gap = oldest, gap or "overrun"
        if gap is not None:
            events.append(Event(self.id_of(Cursor(position, number)), "gap", reason=gap))
        last = min(self._last, position + SCAN)
        while position < last:
            position += 1
            kept = self._ring[position % len(self._ring)]
            assert kept is not None, "the ring is filled up to its last position"
            ended = kept.ended
            if kept.number is not None and kept.number <= number:
                continue  # known to a reader from before the start
            number = max(number, kept.latest)
            if ended.namespace == namespace:
                events.append(
                    Event(
                        self.id_of(Cursor(position, number)),
                        ended.reason,
                        ended.key,
                        ended.user,
                        ended.at,
                        ended.new_key,
                    )
                )
        return events, Cursor(position, number)

    def is_behind(self, cursor: Cursor) -> bool:
        """Whether there is anything to read behind the cursor."""
        return cursor.position < self._last or cursor.gap is not None

    # Being told ------------------------------------------------------------------------------------------

    def wake(self, wake: Callable[[], None]) -> None:
        """Calls `wake`, which must not raise, each time that something was added, until `unwake`."""
        self._wakes[wake] = None

    def unwake(self, wake: Callable[[], None]) -> None:
        self._wakes.pop(wake, None)

    @property
    def readers(self) -> int:
        return len(self._wakes)

    def _wake(self, before: int) -> None:
        if self._last > before:
            for wake in list(self._wakes):
                wake()


def _unknown() -> Refused:
    return Refused("bad_cursor", "after is the id of an event, as this daemon told it.")
