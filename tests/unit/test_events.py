"""The log of what has ended: what a reader is given, and that what it cannot be given is told."""

import pytest

from sessiond.engine import Expired
from sessiond.errors import Refused
from sessiond.events import SCAN, Cursor, Event, EventLog
from sessiond.record import Ended
from tests.support import NOW, key

OLD, NEW = "a" * 16, "b" * 16


def ended(name: str, ns: str = "here") -> Ended:
    return Ended(ns, key(name), "ann", NOW, "destroyed")


def expired(number: int, ns: str = "here", reason: str = "expired") -> Expired:
    return Expired(number, ns, key(str(number)), None, NOW, "evicted" if reason == "evicted" else "expired")


def all_of(log: EventLog, cursor: Cursor, ns: str = "here") -> list[Event]:
    found = []
    while log.is_behind(cursor):
        events, cursor = log.read(cursor, ns)
        found += events
    return found


def brief(events: list[Event]) -> list[tuple[str, bytes | str | None]]:
    return [(event.kind, event.reason if event.kind == "gap" else event.key) for event in events]


def test_a_reader_gets_what_comes_after_it_began() -> None:
    """In order, once, with all that was told; nothing from before."""
    log = EventLog(NEW)
    log.add([ended("before")])
    cursor = log.now()
    log.add([ended("a"), Ended("here", key("b"), None, NOW + 1, "rotated", key("c"))])
    log.add_expired([expired(7, reason="evicted")])

    events, after = log.read(cursor, "here")

    assert [
        Event(f"{NEW}-2-0", "destroyed", key("a"), "ann", NOW),
        Event(f"{NEW}-3-0", "rotated", key("b"), None, NOW + 1, key("c")),
        Event(f"{NEW}-4-7", "evicted", key("7"), None, NOW),
    ] == events
    assert not log.is_behind(after)
    assert ([], after) == log.read(after, "here")


def test_a_namespace_sees_its_own() -> None:
    """A reader of one namespace is given no event of another, and still moves on past them."""
    log = EventLog(NEW)
    cursor = log.now()
    log.add([ended("a", "here"), ended("b", "there"), ended("c", "here")])

    assert [key("a"), key("c")] == [event.key for event in all_of(log, cursor)]
    assert [key("b")] == [event.key for event in all_of(log, cursor, "there")]
    assert ([], Cursor(3, 0)) == log.read(cursor, "nowhere")


def test_evictions_come_from_the_engine_alone() -> None:
    """What an answer tells of an eviction is left out, for the engine keeps it with a number; so it comes once."""
    log = EventLog(NEW)
    cursor = log.now()

    log.add([Ended("here", key("1"), None, NOW, "evicted")])
    log.add_expired([expired(1, reason="evicted")])
    log.add_expired([expired(1, reason="evicted")])

    assert [("evicted", key("1"))] == brief(all_of(log, cursor))
    assert 1 == log.number


@pytest.mark.parametrize("seen", range(5))
def test_a_reader_goes_on_behind_any_id(seen: int) -> None:
    """Whoever comes back with the id of an event is given exactly those after it."""
    log = EventLog(NEW)
    log.add([ended("a"), ended("x", "there"), ended("b")])
    log.add_expired([expired(1), expired(2)])
    everything = all_of(log, Cursor(0, 0))
    known = log.id_of(Cursor(0, 0)) if seen == 0 else everything[seen - 1].id

    assert everything[seen:] == all_of(log, log.after(known))


def test_an_overrun_is_told() -> None:
    """When the ring has moved on past a reader it is told of a gap, and then all that the ring still has."""
    log = EventLog(NEW, kept=3)
    log.add([ended("a")])
    cursor = log.now()
    log.add([ended(name) for name in "bcd"])
    whole = all_of(log, cursor)
    log.add([ended("e")])

    late = all_of(log, cursor)

    assert [("destroyed", key(name)) for name in "bcd"] == brief(whole)
    assert [("gap", "overrun"), *(("destroyed", key(name)) for name in "cde")] == brief(late)
    assert late[1:] == all_of(log, log.after(late[0].id)), "a gap has an id, behind which it is not told again"


def test_a_restart_is_told_and_expiries_are_not_lost() -> None:
    """A reader of before a restart is told of a gap, and then what the engine kept since, and what has ended since."""
    before = EventLog(OLD)
    before.add_expired([expired(1), expired(2)])
    known = before.read(Cursor(0, 0), "here")[0][-1].id
    before.add_expired([expired(3)])
    before.add([ended("lost")])
    after = EventLog(NEW)
    after.add_expired([expired(n) for n in (1, 2, 3, 4)])
    after.add([ended("new")])

    events = all_of(after, after.after(known))

    assert [
        ("gap", "restart"),
        ("expired", key("3")),
        ("expired", key("4")),
        ("destroyed", key("new")),
    ] == brief(events)
    for n, event in enumerate(events):
        assert events[n + 1 :] == all_of(after, after.after(event.id)), event


def test_another_file_is_told_from_its_beginning() -> None:
    """Numbers that the engine has not reached are another file's: the reader gets a gap, and all that there is."""
    log = EventLog(NEW)
    log.add_expired([expired(1)])

    assert [("gap", "restart"), ("expired", key("1"))] == brief(all_of(log, log.after(f"{OLD}-9-700")))


@pytest.mark.parametrize(
    "known",
    ["", "x", f"{NEW}-1", f"{NEW}-01-0", f"{NEW}-2-0", f"{NEW}-0-1", f"{NEW}--1-0", f"{NEW}-1-0\n", f"{NEW}-١-0",
     f"{NEW}-{10**16}-0", f"{NEW.upper()}-1-0"],
)  # fmt: skip
def test_an_id_that_no_event_had_is_refused(known: str) -> None:
    """Also one of this start that is ahead of the log. The sentence does not repeat it."""
    log = EventLog(NEW)
    log.add([ended("a")])

    with pytest.raises(Refused) as refused:
        log.after(known)

    assert "bad_cursor" == refused.value.code


def test_one_reading_is_bounded() -> None:
    """However far behind a reader is, one reading looks at SCAN events; the next goes on where it ended."""
    log = EventLog(NEW)
    log.add([ended(str(n)) for n in range(2 * SCAN + 1)])

    events, cursor = log.read(Cursor(0, 0), "here")

    assert (SCAN, Cursor(SCAN, 0)) == (len(events), cursor)
    assert 2 * SCAN + 1 == len(all_of(log, Cursor(0, 0)))


def test_readers_are_woken_when_something_was_added() -> None:
    """Once for each addition that added anything, and not after they have left."""
    log = EventLog(NEW)
    woken: list[int] = []
    log.wake(wake := lambda: woken.append(len(woken)))

    log.add([ended("a"), ended("b")])
    log.add([])
    log.add_expired([expired(1)])
    log.add_expired([expired(1)])
    readers = log.readers
    log.unwake(wake)
    log.add([ended("c")])

    assert [0, 1] == woken
    assert (1, 0) == (readers, log.readers)
