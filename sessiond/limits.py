"""Whether there is room for what a call wants to write: a user's limit, and the quotas of a namespace. Pure, as record.py.

A call that adds a session to a user, or sessions or bytes to a namespace, is measured; whatever takes away, renews or
reads never is. A limit that was lowered therefore ends no session by itself: it only stops growth.
"""

from collections.abc import Iterable
from heapq import nsmallest
from typing import NamedTuple, Protocol

from sessiond.calls import Address, Policy
from sessiond.codec import Value, replace
from sessiond.errors import Refused
from sessiond.record import Answer, Ended, Outcome, failed, is_alive, refused, size_of

USER_FULL = refused(
    Refused("too_many_sessions", "The user has as many sessions as this namespace allows; destroy one of them first.")
)
NAMESPACE_FULL = failed("quota", "The namespace holds as much as it may; destroy sessions, or raise its quota.")


class Member(Value, frozen=True):
    """A user's session as its limit sees it. Instants in ms; `size` as `size_of` says."""

    key: bytes
    renewed_at: int
    created_at: int
    expires_at: int
    size: int


class Usage(NamedTuple):
    """How many sessions live in a namespace, and their bytes together."""

    sessions: int
    size: int


class Crowd(Protocol):
    """Who is there, writes that are not on disk yet included. Any of these may raise what its engine waits for."""

    def members(self, namespace: str, user: str, now: int) -> Iterable[Member]:
        """The user's living sessions."""

    def at_most(self, namespace: str) -> Usage:
        """An upper bound on what lives, had without effort."""

    def exactly(self, namespace: str, now: int) -> Usage:
        """What lives at `now`."""


def confine(outcome: Outcome, limits: Policy, now: int, crowd: Crowd) -> Outcome:
    """The outcome of a create, set or patch as `limits` allow it: unchanged, with evictions, or refused."""
    if not outcome.firm:
        return outcome  # nothing is written, or only renewed
    ((address, record),) = outcome.writes
    assert record is not None, "a create, a set and a patch leave a session"
    before = outcome.before if is_alive(outcome.before, now) else None
    room: list[Member] = []
    most = limits.max_sessions_per_user
    if most is not None and record.user is not None and (before is None or before.user != record.user):
        others = list(crowd.members(address[0], record.user, now))
        if (surplus := len(others) + 1 - most) > 0:
            if limits.when_user_full == "reject":
                return _turned_away(outcome, USER_FULL)
            room = nsmallest(surplus, others, key=_last_used)
    if limits.max_sessions is not None or limits.max_bytes is not None:
        more = (before is None) - len(room)
        larger = size_of(record) - sum(member.size for member in room)
        if before is not None:
            larger -= size_of(before)
        if not _fits(limits, more, larger, crowd.at_most(address[0])) and not _fits(
            limits, more, larger, crowd.exactly(address[0], now)
        ):
            return _turned_away(outcome, NAMESPACE_FULL)
    if not room:
        return outcome
    evicted: tuple[Address, ...] = tuple((address[0], member.key) for member in room)
    return replace(
        outcome,
        writes=(*outcome.writes, *((each, None) for each in evicted)),
        evicted=evicted,
        ended=(*outcome.ended, *(Ended(*each, record.user, now, "evicted") for each in evicted)),
    )


def _fits(limits: Policy, more: int, larger: int, usage: Usage) -> bool:
    return (more <= 0 or limits.max_sessions is None or usage.sessions + more <= limits.max_sessions) and (
        larger <= 0 or limits.max_bytes is None or usage.size + larger <= limits.max_bytes
    )


def _last_used(member: Member) -> tuple[int, int, bytes]:
    """Renewed longest ago goes first, of those the older; the key only so that every engine evicts the same."""
    return member.renewed_at, member.created_at, member.key


def _turned_away(outcome: Outcome, answer: Answer) -> Outcome:
    return Outcome(answer, outcome.at, before=outcome.before)
