"""What a session is, and the rules by which each verb changes it. Pure: no clock, no I/O, no engine.

`decide` is the law for one record. `perform` adds what the law needs around it: the record may be an alias, and rotate
looks at two keys. Every engine answers as `perform` does; the embedded ones call it.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from sessiond import codec
from sessiond.calls import (
    Address,
    Create,
    Destroy,
    Get,
    Patch,
    Rotate,
    SessionCall,
    Set,
    Touch,
    key_of,
    too_large,
)
from sessiond.codec import Value, replace
from sessiond.errors import Refused

__all__ = [
    "MAX_HOPS",
    "REPEAT_WINDOW",
    "Answer",
    "Decision",
    "Ended",
    "Outcome",
    "Record",
    "decide",
    "follow",
    "is_alive",
    "key_of",
    "perform",
    "size_of",
]

MAX_HOPS = 8
"""Aliases that one call follows. More than eight rotations within one grace is an attack, and ends in `missing`."""


REPEAT_WINDOW = 60_000
"""How long a repeated call may look for what its first try left, in ms: thirty deadlines of our clients."""


class Record(Value, frozen=True, array_like=True):
    """A session as it rests, or the alias that rotate left of one. Immutable: a change is a new record.

    Instants in ms since the Unix epoch, ttl in ms. `deadline` None: no lifetime was set. `op`: that of the last change
    of the data; of an alias, that of its rotate. `target`: the key that an alias leads to; None for a session.

    A stored record is the array of these fields (array_like): new ones go to the end, with a default.
    """

    data: bytes
    format: str
    version: int
    ttl: int
    created_at: int
    renewed_at: int
    expires_at: int
    deadline: int | None = None
    user: str | None = None
    meta: Mapping[str, str] | None = None
    op: bytes | None = None
    target: bytes | None = None


def size_of(record: Record) -> int:
    """What a session counts against `max_bytes`: the bytes of its data, its user and its meta. An alias counts nothing."""
    size = len(record.data)
    if record.user is not None:
        size += len(record.user.encode())
    if record.meta:
        size += sum(len(name.encode()) + len(text.encode()) for name, text in record.meta.items())
    return size


class Ended(Value, frozen=True):
    """That a session is no more under its key, and why. `at`: the instant, in ms; of an expiry its expires_at.

    `reason`: `destroyed`; `rotated`, to `new_key`, where it lives on; `evicted`, for another of its user; or `expired`,
    when a call removed or replaced what had died before any sweep came by.
    `user`: its owner; None for one without, and for a damaged row, of which nobody knows.
    """

    namespace: str
    key: bytes
    user: str | None
    at: int
    reason: Literal["destroyed", "rotated", "evicted", "expired"]
    new_key: bytes | None = None


class Answer(Value, frozen=True):
    """What a call is answered. `status`: ok, missing, exists, conflict, refused or failed.

    `record`: with ok of a session's verb (not destroy) the session as it now is, with conflict the current one.
    `value`: with ok of list (entries, cursor), of count and destroy_all a number; with refused and failed (code, text).
    `ended`: the sessions that ended by this call.
    """

    status: str
    record: Record | None = None
    value: object = None
    ended: tuple[Ended, ...] = ()


OK = Answer("ok")
MISSING = Answer("missing")
EXISTS = Answer("exists")


def refused(error: Refused) -> Answer:
    return Answer("refused", value=(error.code, error.text))


def failed(code: str, text: str) -> Answer:
    """The call could not be carried out, and changed nothing."""
    return Answer("failed", value=(code, text))


class Decision(Value, frozen=True):
    """`answer`, and the record that stands afterwards in place of the one that was given: the same one if nothing
    changes, None if it is gone. `firm`: the change must be on disk before the answer; a renewal may follow it.
    `moved`: the record that rotate puts under the new key."""

    answer: Answer
    after: Record | None
    firm: bool = False
    moved: Record | None = None


def is_alive(record: Record | None, now: int) -> bool:
    """A session lives while `now < expires_at`; at that very ms it is gone, for every verb."""
    return record is not None and now < record.expires_at


def decide(record: Record | None, call: SessionCall, now: int, occupied: bool = False) -> Decision:
    """What `call` does to the record under its key at `now`. `occupied`: rotate's new key holds a living session."""
    return _RULES[type(call)](record, call, now, occupied)


def _create(record: Record | None, call: Create, now: int, occupied: bool) -> Decision:
    if record is not None and now < record.expires_at:
        return Decision(Answer("ok", record) if _repeats(record, call.op) else EXISTS, record)
    return _created(call, call.ttl, call.lifetime, now)


def _created(call: Create | Set, ttl: int, lifetime: int | None, now: int) -> Decision:
    deadline = None if lifetime is None else now + lifetime
    record = Record(
        data=call.data,
        format=call.format,
        version=1,
        ttl=ttl,
        created_at=now,
        renewed_at=now,
        expires_at=_expiry(now, ttl, deadline),
        deadline=deadline,
        user=call.user or None,
        meta=call.meta or None,
        op=call.op,
    )
    return Decision(Answer("ok", record), record, firm=True)


def _get(record: Record | None, call: Get, now: int, occupied: bool) -> Decision:
    if record is None or now >= record.expires_at:
        return Decision(MISSING, record)
    if call.renew is not None:
        record = _renewed(record, None if call.renew is True else call.renew, now)
    return Decision(Answer("ok", record), record)


def _touch(record: Record | None, call: Touch, now: int, occupied: bool) -> Decision:
    if record is None or now >= record.expires_at:
        return Decision(MISSING, record)
    record = _renewed(record, call.ttl, now)
    return Decision(Answer("ok", record), record)


def _set(record: Record | None, call: Set, now: int, occupied: bool) -> Decision:
    if record is None or now >= record.expires_at:
        return _created(call, call.new_ttl, call.new_lifetime, now) if call.when == "any" else Decision(MISSING, record)
    if _repeats(record, call.op):
        return Decision(Answer("ok", record), record)
    if type(call.when) is int and call.when != record.version:
        return Decision(Answer("conflict", record), record)
    deadline = record.deadline
    if call.lifetime is not None:
        # Given late, a lifetime still counts from creation, and may only bring the deadline nearer.
        given = record.created_at + call.lifetime
        deadline = given if deadline is None else min(given, deadline)
    return _changed(record, call, call.data, call.format, deadline, now)


def _patch(record: Record | None, call: Patch, now: int, occupied: bool) -> Decision:
    if record is None or now >= record.expires_at:
        return Decision(MISSING, record)
    if _repeats(record, call.op):
        return Decision(Answer("ok", record), record)
    try:
        data = codec.patch(record.format, record.data, call.format, call.changes, call.remove)
        if len(data) > call.max_data:
            raise too_large(call.max_data)
    except Refused as error:
        return Decision(refused(error), record)
    return _changed(record, call, data, record.format, record.deadline, now)


def _changed(record: Record, call: Set | Patch, data: bytes, format: str, deadline: int | None, now: int) -> Decision:
    ttl = record.ttl if call.ttl is None else call.ttl
    record = replace(
        record,
        data=data,
        format=format,
        version=record.version + 1,
        ttl=ttl,
        renewed_at=now,
        expires_at=_expiry(now, ttl, deadline),
        deadline=deadline,
        user=record.user if call.user is None else call.user or None,
        meta=record.meta if call.meta is None else call.meta or None,
        op=call.op,
    )
    return Decision(Answer("ok", record), record, firm=True)


def _rotate(record: Record | None, call: Rotate, now: int, occupied: bool) -> Decision:
    if record is None or now >= record.expires_at:
        return Decision(MISSING, record)
    if occupied:
        return Decision(EXISTS, record)
    moved = _renewed(record, None, now)
    # The old record becomes the alias in place, dead at once without grace: whoever comes next finds the alias, never
    # a gap, and a repeated rotate finds its op.
    alias = Record(
        data=b"",
        format=codec.BYTES,
        version=record.version,
        ttl=call.grace,
        created_at=record.created_at,
        renewed_at=now,
        expires_at=now + call.grace,
        op=call.op,
        target=call.new_key,
    )
    return Decision(Answer("ok", moved), alias, firm=True, moved=moved)


def _destroy(record: Record | None, call: Destroy, now: int, occupied: bool) -> Decision:
    # An expired session goes too: that somebody logged out must not depend on the clock.
    return Decision(OK, None, firm=record is not None)


def _renewed(record: Record, ttl: int | None, now: int) -> Record:
    ttl = record.ttl if ttl is None else ttl
    return replace(record, ttl=ttl, renewed_at=now, expires_at=_expiry(now, ttl, record.deadline))


def _expiry(now: int, ttl: int, deadline: int | None) -> int:
    return now + ttl if deadline is None or now + ttl < deadline else deadline


def _repeats(record: Record, op: bytes | None) -> bool:
    return op is not None and record.op == op


_RULES: dict[type, Callable[..., Decision]] = {
    Create: _create,
    Get: _get,
    Set: _set,
    Patch: _patch,
    Touch: _touch,
    Rotate: _rotate,
    Destroy: _destroy,
}


# Around the law: aliases, and rotate's two keys ------------------------------------------------------


class Outcome(Value, frozen=True):
    """`answer`, and the records to put in place, with where; `firm` as in Decision. `at`: the session that it is about.

    `before`: what rests at `at`, dead or alive. `evicted`: those among `writes` that had to make room (limits.confine).
    `ended`: the sessions that end by `writes`.
    """

    answer: Answer
    at: Address
    writes: tuple[tuple[Address, Record | None], ...] = ()
    firm: bool = False
    before: Record | None = None
    evicted: tuple[Address, ...] = ()
    ended: tuple[Ended, ...] = ()

    @property
    def told(self) -> Answer:
        """The answer, with what it tells of ends."""
        return replace(self.answer, ended=self.ended) if self.ended else self.answer


Peek = Callable[[Address], Record | None]
"""What rests at an address, dead or alive, session or alias; None if nothing does."""


def perform(call: SessionCall, now: int, peek: Peek) -> Outcome:
    """Carries out a call on the records that `peek` shows. It changes nothing itself."""
    at = call.address
    record = peek(at)
    occupied, replaced = False, None
    if type(call) is Rotate:
        new = (at[0], call.new_key)
        if (done := _rotated_already(record, call, now, peek)) is not None:
            return Outcome(done, new)
        replaced = peek(new)
        occupied = is_alive(_follow(new, replaced, now, peek)[1], now)
    if record is not None and record.target is not None:
        at, record = _follow(at, record, now, peek)
    decision = decide(record, call, now, occupied)
    if decision.after is record:
        return Outcome(decision.answer, at)
    if decision.moved is not None and type(call) is Rotate:
        assert record is not None, "what lives is moved"
        moves = ((at, decision.after), ((at[0], call.new_key), decision.moved))
        left = Ended(*at, record.user, now, "rotated", call.new_key)
        return Outcome(decision.answer, at, moves, True, record, (), (left, *_died((at[0], call.new_key), replaced)))
    ended: tuple[Ended, ...] = ()
    if record is not None and decision.firm:
        if now >= record.expires_at:
            ended = _died(at, record)
        elif decision.after is None:
            ended = (Ended(*at, record.user, now, "destroyed"),)
    return Outcome(decision.answer, at, ((at, decision.after),), decision.firm, record, (), ended)


def _died(at: Address, record: Record | None) -> tuple[Ended, ...]:
    """What is told of a record that gives way and does not live: of a session its expiry, for no sweep will find it."""
    if record is None or record.target is not None:
        return ()
    return (Ended(*at, record.user, record.expires_at, "expired"),)


def follow(address: Address, now: int, peek: Peek) -> Address:
    """Where the session of `address` is: its own address, or where living aliases lead from there."""
    return _follow(address, peek(address), now, peek)[0]


def _follow(address: Address, record: Record | None, now: int, peek: Peek) -> tuple[Address, Record | None]:
    """Where living aliases lead: the address and record of the session; (address, None) if they lead to no living one."""
    at, found = address, record
    for _ in range(MAX_HOPS + 1):
        if found is None or now >= found.expires_at:
            break
        if found.target is None:
            return at, found
        at = (at[0], found.target)
        found = peek(at)
    return address, None


def _rotated_already(record: Record | None, call: Rotate, now: int, peek: Peek) -> Answer | None:
    """The answer to a rotate that was carried out before: its alias, living or dead, bears its op. Else None."""
    for _ in range(MAX_HOPS + 1):
        # Past the window an alias may have been swept away or not: that must make no difference.
        if record is None or record.target is None or now >= record.expires_at + REPEAT_WINDOW:
            return None
        if _repeats(record, call.op) and record.target == call.new_key:
            new = (call.address[0], call.new_key)
            moved = _follow(new, peek(new), now, peek)[1]
            return MISSING if moved is None else Answer("ok", moved)
        record = peek((call.address[0], record.target))
    return None
