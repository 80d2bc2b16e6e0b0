"""The contract of every engine: where records rest. This file holds prose, types and no mechanism.

**Batch first.** An engine takes calls through a lane and answers each exactly once. Answers may come in any order, at
once or later; none waits for another call's commit without need.

**Atomic.** Each call takes effect as a whole at one instant, or not at all, as `record.perform` says. Calls submitted
to one lane take effect in the order they were submitted; lanes are independent.

**No clock, no policy.** `now` is passed in, in ms since the epoch. A session lives while `now < expires_at`; an
engine's own expiry, if it has one, is a broom with slack and never the judge. What a call may ask was checked before.

**Durable.** The answer to a write comes when the write is as durable as `durability` promises, and an answer that
shows a write, or its absence, comes no earlier than that. Renewals (touch, get with renew) are exact at once and
durable within a second.

**Limits.** A create, set or patch may carry the limits of its namespace. Then it takes effect as `limits.confine` says, at
the same instant as all else that it does: what it evicts goes with its commit, and what it is measured against is what
lives at that instant, whoever wrote it and whether or not it is on disk yet. Counts and bytes are kept, never taken by a
walk over what lives. No more sessions ever live than the limits of the calls that made them allow.

**Time goes one way.** An engine that keeps records keeps the latest `now` it was told as well, so that a daemon whose wall
clock was set back while it was down goes on from there (clock.Clock), and nothing that had died lives again.

**Absence is an answer.** `missing`, `exists` and `conflict` are answers. A fault of the engine itself is the answer
`failed`, to the calls it touched alone: `integrity` for a row that is not what was written, `storage_full` and
`storage_failed` for writes that did not get through; such a call changed nothing.

**Ends are told.** The answer to a call carries what ended by it (`Answer.ended`): every session that it destroyed, rotated
away or evicted, once, and none when nothing did, as by a repeat. Being part of the answer it comes when the end is as
durable as promised, never for a commit that failed, and at the same place as who asked for it is known. What ends though
nobody calls is left by sweeps (`Expired`); evictions are left there as well, for readers of after a restart. A session
that had died when a call removed or replaced it, which no sweep will find, is told as `expired`; when a sweep and such a
call meet, that may happen twice.

**What a destroyed or rotated-away session leaves** must let a repeated rotate find its op for `record.REPEAT_WINDOW` ms.
Which of the dead are kept until a sweep is the engine's business: no call may tell the difference.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from sessiond.calls import Call
from sessiond.codec import Value
from sessiond.metrics import EngineFigures
from sessiond.record import Answer, Record
from sessiond.vault import Vault

Reply = Callable[[int, Answer], None]
"""Takes the position of a call in its batch, and the answer. It must not raise and must not call the engine."""


class Entry(Value, frozen=True):
    """One living session in a listing. `size`: that of its data, in bytes. Never the data."""

    key: bytes
    user: str | None
    meta: Mapping[str, str] | None
    created_at: int
    renewed_at: int
    expires_at: int
    version: int
    size: int


class Expired(Value, frozen=True):
    """What is left of a session that ended though nobody destroyed it: so that whoever wants to can be told.

    `reason`: `expired`, left by the sweep that removes it, with its expires_at; or `evicted`, left in the commit in which
    another session of its user took its place, with that instant. `number` grows by at least one each time, also over
    restarts.
    """

    number: int
    namespace: str
    key: bytes
    user: str | None
    expired_at: int
    reason: Literal["expired", "evicted"] = "expired"


class Swept(NamedTuple):
    """What one step of sweeping did. `removed`: how many records it took away. `is_over`: nothing is left that is due, or it
    could not be done now."""

    removed: int
    is_over: bool


class Lane(Protocol):
    """One caller's line to the engine: a connection, say. It needs no closing."""

    def submit(self, calls: Sequence[Call], now: int, reply: Reply) -> None:
        """Carries out `calls` at `now`, or, where one has to wait, at a later now that the engine has been told meanwhile.

        `now` never decreases. `reply` is called once for each call, perhaps before this returns.

        list is answered with (entries in the order of their keys, the cursor of the next page or None): every session
        that lives through a walk over the pages is met exactly once. list, count and destroy_all cover at least what
        was acknowledged before they were submitted.
        """


class Engine(Protocol):
    place: str
    """Where the records are, for people: a path, or `memory`."""

    durability: str
    """What an acknowledged write survives, for people: one clause."""

    trouble: str | None
    """Why the last write did not get through, for people; None when it did."""

    figures: EngineFigures

    latest: int
    """The latest `now` that this engine was told, also before it was opened, as far as it keeps that; at first 0."""

    def lane(self) -> Lane: ...

    async def sweep(self, now: int, limit: int) -> Swept:
        """Removes what has died by `now`, `limit` records at most: one step, however many are due.

        Each session among them leaves an `Expired`, in the same step as it goes; destroyed sessions and aliases leave
        nothing. No answer of any call changes by a sweep.
        """

    async def expired(self, after: int, limit: int) -> list[Expired]:
        """The records of the latest expiries whose number is over `after`, oldest first. At least 10,000 are kept."""

    async def keep_time(self, now: int) -> None:
        """Keeps that it has been `now`, where records rest that could live again if it were forgotten."""

    async def adopt(self, vault: Vault) -> None:
        """Seals with another vault from now on, and brings what rests under its other seals under the current one, in
        the background and also over restarts, while calls go on as ever.

        StartError, and nothing is changed, when records rest under a seal that `vault` lacks.
        """

    async def close(self) -> None:
        """Makes durable whatever is not yet, and lets go of everything. No call may be under way."""


def entry(key: bytes, record: Record) -> Entry:
    """How a listing shows a record."""
    return Entry(
        key,
        record.user,
        record.meta,
        record.created_at,
        record.renewed_at,
        record.expires_at,
        record.version,
        len(record.data),
    )


async def execute(lane: Lane, calls: Sequence[Call], now: int) -> list[Answer]:
    """Submits `calls` and waits for all of their answers, in the order of the calls."""
    answers: list[Answer | None] = [None] * len(calls)
    done: asyncio.Future[None] | None = None  # made only when somebody has to wait: a cached get is answered at once
    left = len(calls)

    def reply(position: int, answer: Answer) -> None:
        nonlocal left
        assert answers[position] is None, "answered twice"
        answers[position] = answer
        left -= 1
        if left == 0 and done is not None and not done.done():
            done.set_result(None)

    if calls:
        lane.submit(calls, now, reply)
    if left:
        done = asyncio.get_running_loop().create_future()
        await done
    return [answer for answer in answers if answer is not None]
