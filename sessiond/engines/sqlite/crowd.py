"""Who is there, as far as limits have asked: kept in memory, in step with every write, so that a limit is judged at once.

**Rosters**: the sessions of a user, for his limit. Loaded when the first call needs one, and dropped again when there are
many; what was written while it was being loaded is laid over what the file had.

**Counts**: how many sessions live in a namespace and their bytes, for its quotas. A count is an upper bound at all times: a
session that dies by itself stays in it until it is counted anew. It is exact as long as none of those counted can have
died, so a namespace that is full answers without asking the file again.

An engine of which nobody has asked anything has no Crowd, and pays nothing for it.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from sessiond.calls import Address
from sessiond.limits import Member, Usage
from sessiond.record import Outcome, Record, is_alive, size_of

MAX_MEMBERS = 50_000
"""Rosters and sessions in them, together, before the least recently used rosters are dropped: some 20 MB (400 bytes each,
keys and tables included). A roster counts too: each user who has been here and logged out leaves an empty one."""

Owner = tuple[str, str]
"""A user in a namespace."""


class Absent(Exception):
    """What a limit asked for has to come from the file first: a user's roster, or with `user` None a namespace's count."""

    def __init__(self, namespace: str, user: str | None) -> None:
        self.namespace = namespace
        self.user = user


class Count:
    """`exact_until`: what is counted here lives at every instant before it, if nothing else happens to it; 0: unknown."""

    __slots__ = ("exact_until", "sessions", "size")

    def __init__(self, exact_until: int) -> None:
        self.sessions = 0
        self.size = 0
        self.exact_until = exact_until


class Crowd:
    """`insist`: the next question for an exact count is answered by nothing else; set by the engine for each call."""

    def __init__(self) -> None:
        self.insist = True
        self._rosters: OrderedDict[Owner, dict[bytes, Member]] = OrderedDict()
        self._owner_of: dict[Address, str] = {}  # of those in rosters
        self._counts: dict[str, Count] = {}
        self._counting: dict[str, Count] = {}  # what has changed since the instant that is being counted in the file

    # What a limit asks -----------------------------------------------------------------------------------

    def members(self, namespace: str, user: str, now: int) -> Iterator[Member]:
        if (roster := self._rosters.get((namespace, user))) is None:
            raise Absent(namespace, user)
        self._rosters.move_to_end((namespace, user))
        return (member for member in roster.values() if now < member.expires_at)

    def at_most(self, namespace: str) -> Usage:
        if (count := self._counts.get(namespace)) is None:
            raise Absent(namespace, None)
        return Usage(count.sessions, count.size)

    def exactly(self, namespace: str, now: int) -> Usage:
        usage = self.at_most(namespace)
        if self.insist and now >= self._counts[namespace].exact_until:
            raise Absent(namespace, None)
        return usage

    def has_roster(self, namespace: str, user: str) -> bool:
        return (namespace, user) in self._rosters

    # What happens ------------------------------------------------------------------------------------------

    def put(self, address: Address, record: Record | None) -> None:
        """`record` rests at `address` from now on."""
        namespace, key = address
        if (user := self._owner_of.pop(address, None)) is not None:
            self._rosters[namespace, user].pop(key, None)
        if record is None or record.target is not None:
            return
        if record.user is not None and (roster := self._rosters.get((namespace, record.user))) is not None:
            roster[key] = member_of(key, record)
            self._owner_of[address] = record.user
        for count in self._counts_of(namespace):
            count.exact_until = min(count.exact_until, record.expires_at)

    def carried_out(self, outcome: Outcome, now: int) -> None:
        """Counts what a call changes, before it is put in place."""
        namespace = outcome.at[0]
        if counts := self._counts_of(namespace):
            before, sessions, size = outcome.before, 0, 0
            # One that died by itself may be counted or not: as an upper bound, it is not taken out.
            if before is not None and is_alive(before, now):
                sessions, size = -1, -size_of(before)
            for _, record in outcome.writes:
                if record is not None and record.target is None:
                    sessions, size = sessions + 1, size + size_of(record)
            if outcome.evicted:
                assert outcome.answer.record is not None, "a session takes their place"
                roster = self._rosters[namespace, outcome.answer.record.user or ""]
                sessions -= len(outcome.evicted)
                size -= sum(roster[key].size for _, key in outcome.evicted)
            for count in counts:
                count.sessions += sessions
                count.size += size

    def gone(self, address: Address, record: Record | None) -> None:
        """A living session was destroyed beside the rules of calls; `record` None: how large it was is not known."""
        for count in self._counts_of(address[0]):
            if record is None:
                count.exact_until = 0
            else:
                count.sessions -= 1
                count.size -= size_of(record)

    def forget(self) -> None:
        """What was put in place is not: a commit failed."""
        self._rosters.clear()
        self._owner_of.clear()
        self._counts.clear()
        self._counting.clear()

    def _counts_of(self, namespace: str) -> list[Count]:
        return [count for counts in (self._counts, self._counting) if (count := counts.get(namespace)) is not None]

    # What comes from the file ------------------------------------------------------------------------------

    def load(self, rosters: dict[Owner, list[Member]], unsaved: Iterable[tuple[Address, Record | None]]) -> None:
        """Takes rosters as the file has them, and lays over them what it may not have had, in the order of the writes."""
        while self._rosters and len(self._rosters) + len(self._owner_of) > MAX_MEMBERS:
            (namespace, _), roster = self._rosters.popitem(last=False)
            for key in roster:
                self._owner_of.pop((namespace, key), None)
        for (namespace, user), members in rosters.items():
            if (namespace, user) in self._rosters:
                continue  # loaded for somebody else meanwhile, and in step since
            self._rosters[namespace, user] = {}
            for member in members:
                self._rosters[namespace, user][member.key] = member
                self._owner_of[namespace, member.key] = user
        for address, record in unsaved:
            self.put(address, record)

    def begin_count(self, namespace: str) -> Count:
        """From this instant on, what changes is noted beside what the file will tell of this instant."""
        count = self._counting[namespace] = Count(exact_until=2**63)
        return count

    def end_count(self, namespace: str, count: Count, usage: Usage, exact_until: int) -> None:
        """`usage`: what lived when the count began, `exact_until`: when the first of it may die."""
        del self._counting[namespace]
        count.sessions += usage.sessions
        count.size += usage.size
        count.exact_until = min(count.exact_until, exact_until)
        self._counts[namespace] = count


def member_of(key: bytes, record: Record) -> Member:
    return Member(key, record.renewed_at, record.created_at, record.expires_at, size_of(record))
