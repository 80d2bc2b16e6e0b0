"""Limits at the SQLite file: what they know in memory is in step with it, whatever happens meanwhile."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sessiond.calls import Call, Policy
from sessiond.engine import execute
from sessiond.engines.sqlite import crowd
from tests.support import (
    NOW,
    TTL,
    Subject,
    brief,
    count,
    create,
    destroy,
    destroy_all,
    get,
    key,
    patch,
    record_of,
    rotate,
    set_,
    touch,
)

QUOTA = ("failed", "quota")
FULL = ("failed", "storage_full")
TWO = Policy(ttl=TTL, max_sessions_per_user=2)
THREE = Policy(ttl=TTL, max_sessions=3)


def file_of(subject: Subject) -> Any:
    engine: Any = subject.engine
    return engine._file


async def full_disk(subject: Subject, full: bool) -> None:
    """The file may not grow by a page, or as it likes."""
    writer = file_of(subject)._writer
    pages = next(iter(await writer.execute_fetchall("pragma page_count")))[0]
    await writer.execute_fetchall(f"pragma max_page_count = {pages if full else 2**30}")


def fill(n: int, **given: Any) -> list[Call]:
    return [create(f"fill {i}", b"x" * 60_000, "bytes", **given) for i in range(n)]


async def in_one_turn(subject: Subject, *calls: Call, now: int = NOW) -> list[Any]:
    lanes = [subject.engine.lane() for _ in calls]
    asked = [execute(lane, [call], now) for lane, call in zip(lanes, calls, strict=True)]
    return [brief(answers[0]) for answers in await asyncio.gather(*asked)]


async def test_an_eviction_and_its_cause_are_one_commit(sqlite: Subject) -> None:
    """The session that comes, the one that goes and what is told of it are in one transaction."""
    await sqlite.ask(create("a", user="ann", policy=TWO), create("b", user="ann", policy=TWO))
    seen: list[str] = []
    writer = file_of(sqlite)._writer
    await writer.set_trace_callback(seen.append)

    await sqlite.ask(create("c", user="ann", policy=TWO))

    await writer.set_trace_callback(None)
    ran = [text.split()[0].lower() for text in seen if not text.startswith("--")]
    assert ("begin", "commit") == (ran[0], ran[-1])
    assert (1, 1) == (ran.count("begin"), ran.count("commit"))


async def test_a_failed_commit_evicts_nobody(sqlite: Subject) -> None:
    """On a full disk the login fails, whom it would have evicted lives, nothing is told, and afterwards all is as it should be."""
    await sqlite.ask(create("a", user="ann", policy=TWO), *fill(1), create("b", user="ann", policy=TWO))
    await full_disk(sqlite, True)

    failed = await sqlite.one(create("c", b"x" * 60_000, "bytes", user="ann", policy=TWO))
    living = await sqlite.ask(get("a"), get("b"), get("c"))
    told = await sqlite.expired()
    await full_disk(sqlite, False)
    done = await sqlite.one(create("d", user="ann", policy=TWO))
    left = await sqlite.one(count("ann"))

    assert FULL == brief(failed)
    assert ["ok", "ok", "missing"] == [answer.status for answer in living]
    assert [] == told
    assert [("ok", 1), ("ok", 2)] == [brief(done), brief(left)]
    assert 1 == len(await sqlite.expired())


async def test_a_failed_commit_leaves_the_counts_true(sqlite: Subject) -> None:
    """Places that were taken by writes that failed are free, and those of destroys that failed are not."""
    await sqlite.ask(create("a", policy=THREE), create("b", policy=THREE))
    await full_disk(sqlite, True)

    failed = await sqlite.ask(create("c", b"x" * 60_000, "bytes", policy=THREE), destroy("a"))
    await full_disk(sqlite, False)
    answers = await sqlite.ask(create("d", policy=THREE), create("e", policy=THREE))

    assert [FULL, FULL] == [brief(answer) for answer in failed]
    assert [("ok", 1), QUOTA] == [brief(answer) for answer in answers]


async def test_counting_on_a_full_disk_is_answered(tmp_path: Path) -> None:
    """A call whose namespace cannot be counted, because what was written before it is not stored, is told; its lane goes on."""
    subject = await Subject(str(tmp_path / "sessions.db"), relaxed=True).open()
    await subject.ask(create("a", ttl=50, policy=THREE), create("b", policy=THREE), create("c", policy=THREE))
    await subject.ask(count())  # and so all of it is in the file
    await full_disk(subject, True)

    await subject.one(create("x", b"x" * 60_000, "bytes", ns="other"), NOW + 60)
    answers = await subject.ask(create("d", policy=THREE), get("b"), now=NOW + 60)
    await full_disk(subject, False)
    after = await subject.one(create("d", policy=THREE), NOW + 60)
    await subject.engine.close()

    assert [FULL, ("ok", 1)] == [brief(answer) for answer in answers]
    assert ("ok", 1) == brief(after)


async def test_a_full_namespace_is_not_counted_again_for_each_call(sqlite: Subject) -> None:
    """As long as nobody can have died, those that are turned away cost no query and no commit."""
    await sqlite.ask(*[create(name, policy=THREE) for name in "abc"])
    await sqlite.one(create("d", policy=THREE))
    queries: list[str] = []
    for connection in (file_of(sqlite)._reader, file_of(sqlite)._writer):
        await connection.set_trace_callback(queries.append)

    answers = [await sqlite.one(set_("a", policy=THREE)), *await sqlite.ask(*[create("a"), create("b")])]
    queries.clear()
    turned_away = await sqlite.ask(*[create("d", policy=THREE) for n in range(100)], now=NOW + 1)

    for connection in (file_of(sqlite)._reader, file_of(sqlite)._writer):
        await connection.set_trace_callback(None)
    assert {QUOTA} == {brief(answer) for answer in turned_away}
    assert "ok" == answers[0].status
    assert [] == [text for text in queries if "tallies" in text or "insert" in text]


async def test_what_was_counted_for_one_call_is_not_held_against_the_next(sqlite: Subject) -> None:
    """However often earlier calls of a lane had the namespace counted and then needed no room, the dead count for nothing."""
    one = Policy(ttl=TTL, max_sessions=1)
    lane = sqlite.engine.lane()
    await sqlite.one(create("0", ttl=10, policy=one))
    for n in range(1, 4):
        now = NOW + 10 * n
        waiting = asyncio.ensure_future(sqlite.ask(create(f"{n}", ttl=10, policy=one), now=now, lane=lane))
        await asyncio.sleep(0)
        await sqlite.one(create(f"{n}", ttl=10), now)
        assert [("exists",)] == [brief(answer) for answer in await waiting]

    answer = await sqlite.one(create("last", policy=one), NOW + 40, lane)

    assert ("ok", 1) == brief(answer)


async def test_a_roster_sees_what_is_written_while_it_is_read(tmp_path: Path) -> None:
    """Logins, logouts and moves in the very turns in which a roster is loaded are all in it."""
    for turns in range(8):
        subject = await Subject(str(tmp_path / f"{turns}.db"), cache_bytes=0).open()
        await subject.ask(*[create(name, user="ann", policy=TWO) for name in "ab"], create("x", user="bob"))
        await subject.reopen()

        login = asyncio.create_task(in_one_turn(subject, create("c", user="ann", policy=TWO), now=NOW + 9))
        for _ in range(turns):
            await asyncio.sleep(0)
        others = await in_one_turn(
            subject,
            destroy("a"),
            patch("b", user="bob", policy=TWO),
            create("d", user="ann", policy=TWO),
            rotate("d", "e"),
            touch("x"),
            now=NOW + 9,
        )
        await login
        await subject.one(create("last", user="ann", policy=TWO), NOW + 10)

        assert "ok" == others[0][0]
        assert ("ok", 2) == brief(await subject.one(count("ann"), NOW + 10)), turns
        await subject.engine.close()


async def test_rosters_are_bounded(sqlite: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rosters beyond the bound are dropped, the least recently used first, and read again when they are needed."""
    monkeypatch.setattr(crowd, "MAX_MEMBERS", 10)
    engine: Any = sqlite.engine
    for n in range(30):
        await sqlite.ask(*[create(f"{n} {i}", user=f"user {n}", policy=TWO) for i in range(2)])

    held = len(engine._crowd._owner_of)
    await sqlite.ask(*[create(f"{n} new", user=f"user {n}", policy=TWO) for n in range(30)], now=NOW + 1)

    assert held <= 12
    counts = await sqlite.ask(*[count(f"user {n}") for n in range(30)], now=NOW + 1)
    assert {("ok", 2)} == {brief(answer) for answer in counts}


async def test_rosters_of_those_who_left_are_bounded_too(sqlite: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has logged out leaves an empty roster; a daemon sees new users for as long as it lives."""
    monkeypatch.setattr(crowd, "MAX_MEMBERS", 10)
    engine: Any = sqlite.engine
    for n in range(30):
        await sqlite.ask(create(f"{n}", user=f"user {n}", policy=TWO), destroy(f"{n}"))

    assert len(engine._crowd._rosters) <= 11


async def test_a_damaged_session_is_the_first_to_make_room(tmp_path: Path) -> None:
    """Nobody can use it, so a login of its user costs nobody a session that works."""
    path = tmp_path / "sessions.db"
    subject = await Subject(str(path)).open()
    await subject.one(create("a", user="ann", policy=TWO))
    await subject.one(create("b", user="ann", policy=TWO), NOW + 1)
    await subject.engine.close()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("update sessions set sealed = zeroblob(40) where key = ?", (key("b"),))

    subject = await Subject(str(path)).open()
    answer = await subject.one(create("c", user="ann", policy=TWO), NOW + 2)
    left = await subject.ask(get("a"), get("b"), get("c"), now=NOW + 2)
    await subject.engine.close()

    assert ("ok", 1) == brief(answer)
    assert ["ok", "missing", "ok"] == [each.status for each in left]


async def test_destroying_what_is_damaged_or_not_in_memory_frees_its_place(tmp_path: Path) -> None:
    """Though the count in memory cannot know how large those were, the namespace has their places and bytes again."""
    path = tmp_path / "sessions.db"
    limits = Policy(ttl=TTL, max_sessions=3, max_bytes=33)
    subject = await Subject(str(path), cache_bytes=0).open()
    await subject.ask(*[create(name, b"x" * 10, "bytes", user=name, policy=limits) for name in "abc"])
    await subject.engine.close()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("update sessions set sealed = zeroblob(40) where key = ?", (key("a"),))

    subject = await Subject(str(path), cache_bytes=0).open()
    full = await subject.one(create("d", policy=limits))
    await subject.ask(destroy("a"))
    first = await subject.ask(create("d", b"x" * 8, "bytes", policy=limits), create("e", b"", "bytes", policy=limits))
    await subject.ask(destroy_all("b"))
    second = await subject.ask(create("f", b"x" * 10, "bytes", policy=limits), create("g", b"", "bytes", policy=limits))
    await subject.engine.close()

    assert QUOTA == brief(full)
    assert [("ok", 1), QUOTA] == [brief(answer) for answer in first]
    assert [("ok", 1), QUOTA] == [brief(answer) for answer in second]


@pytest.mark.parametrize("limits", [TWO, Policy(ttl=TTL, max_sessions_per_user=2, when_user_full="reject"), THREE])
async def test_relaxed_keeps_limits_too(tmp_path: Path, limits: Policy) -> None:
    """Acknowledged from memory or not, what lives is within the limits; and what was evicted is on disk by then."""
    subject = await Subject(str(tmp_path / "sessions.db"), relaxed=True).open()

    await in_one_turn(subject, *[create(str(n), user="ann", policy=limits) for n in range(20)])
    living = await subject.one(count("ann"))
    await subject.engine.close()

    assert ("ok", 3 if limits is THREE else 2) == brief(living)


async def test_without_limits_nothing_is_kept(sqlite: Subject) -> None:
    """An engine that was never asked to limit anything has no counts and no rosters."""
    engine: Any = sqlite.engine

    await sqlite.ask(create("a", user="ann"), set_("a"), patch("a", user="bob"), touch("a"), destroy_all())

    assert engine._crowd is None


async def test_the_file_keeps_the_time(sqlite: Subject) -> None:
    """With the commits at most once a second, when it is told and at the end; an empty file keeps none."""
    await sqlite.engine.keep_time(NOW - 5)
    await sqlite.reopen()
    empty = sqlite.engine.latest
    found = []

    await sqlite.ask(create("a"))
    await sqlite.ask(get("a"), now=NOW + 900)
    await sqlite.ask(set_("a"), now=NOW + 999)
    found.append(next(iter(await file_of(sqlite)._reader.execute_fetchall("select latest from clock")))[0])
    await sqlite.ask(set_("a"), now=NOW + 1000)
    found.append(next(iter(await file_of(sqlite)._reader.execute_fetchall("select latest from clock")))[0])
    await sqlite.engine.keep_time(NOW + 1200)
    found.append(next(iter(await file_of(sqlite)._reader.execute_fetchall("select latest from clock")))[0])
    await sqlite.engine.keep_time(NOW + 3)
    await sqlite.ask(get("a"), now=NOW + 1500)
    await sqlite.reopen()

    assert 0 == empty
    assert [NOW, NOW + 1000, NOW + 1200] == found
    assert NOW + 1500 == sqlite.engine.latest
    assert 3 == record_of(await sqlite.one(get("a"), NOW + 1500)).version
