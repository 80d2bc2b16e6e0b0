"""The SQLite engine as such: its file, its commits, its cache, and all that can go wrong with a disk."""

import asyncio
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from sessiond.calls import Call, Policy
from sessiond.engine import execute
from sessiond.engines.sqlite.engine import RELAXED_DELAY, RENEWAL_DELAY
from sessiond.engines.sqlite.file import ROWS_PER_STATEMENT
from sessiond.engines.sqlite.schema import STEPS
from sessiond.errors import StartError
from sessiond.record import REPEAT_WINDOW, Answer, Ended
from tests.support import (
    HOUR,
    NOW,
    TTL,
    Subject,
    brief,
    count,
    create,
    data_of,
    destroy,
    destroy_all,
    get,
    key,
    list_,
    patch,
    record_of,
    rotate,
    set_,
    touch,
)
from tests.tools import require

ROOT = Path(__file__).parents[2]
INTEGRITY = ("failed", "integrity")
FULL = ("failed", "storage_full")


def writer_of(subject: Subject) -> Any:
    """The engine's writing connection: the seam at which a disk is made full or read-only."""
    engine: Any = subject.engine
    return engine._file._writer


@contextmanager
def plain(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection to the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


async def pragma(subject: Subject, text: str) -> Any:
    rows = list(await writer_of(subject).execute_fetchall(f"pragma {text}"))
    return rows[0][0] if rows else None


# Commits ---------------------------------------------------------------------------------------------


async def test_a_commit_is_on_disk(sqlite: Subject) -> None:
    """The file is in WAL mode, its writer syncs each commit, and no page is mapped into memory."""
    found = [await pragma(sqlite, name) for name in ("journal_mode", "synchronous", "mmap_size", "secure_delete")]

    assert ["wal", 2, 0, 1] == found


async def statements(subject: Subject, *batches: list[Call]) -> list[str]:
    """The statements that the writer ran for these batches, each on a lane of its own, all submitted at once."""
    seen: list[str] = []
    await writer_of(subject).set_trace_callback(seen.append)
    await asyncio.gather(*(execute(subject.engine.lane(), batch, NOW) for batch in batches))
    await writer_of(subject).set_trace_callback(None)
    # A trigger that is looked at is told as its statement once more.
    return [" ".join(text.split())[:20].lower() for text, _ in groupby(seen) if not text.startswith("--")]


async def test_what_waits_together_is_one_statement(sqlite: Subject) -> None:
    """Writes of many lanes that come in one turn of the loop are one statement, and so one commit and one sync."""
    await sqlite.ask(*[create(str(n)) for n in range(200)])

    ran = await statements(sqlite, *[[set_(str(n)), patch(str(n + 1)), touch(str(n))] for n in range(0, 200, 2)])

    assert ["insert into sessions"] == ran


async def test_more_than_a_statement_holds_is_one_transaction(sqlite: Subject) -> None:
    """A commit of many rows is several statements in one transaction."""
    rows = 2 * ROWS_PER_STATEMENT + 1
    await sqlite.ask(*[create(str(n)) for n in range(rows)])

    ran = await statements(sqlite, [set_(str(n)) for n in range(rows)])

    assert ["begin immediate", *["insert into sessions"] * 3, "commit"] == ran


async def test_figures_of_commits(sqlite: Subject) -> None:
    """Each commit is counted once, with its rows."""
    await sqlite.ask(*[create(str(n)) for n in range(3)])
    await sqlite.ask(destroy("0"), destroy("1"))

    figures = sqlite.engine.figures.commit_rows

    assert (2, 5) == (sum(figures.counts), figures.total)


class Fast:
    """Moves the loop's own time on, so that its timers run without anybody waiting."""

    def __init__(self) -> None:
        self.ahead = 0.0
        loop: Any = asyncio.get_running_loop()
        steady = loop.time
        loop.time = lambda: steady() + self.ahead

    async def forward(self, seconds: float) -> None:
        self.ahead += seconds
        for _ in range(3):
            await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Gives the loop its turns until the thread of the file has done what is looked for."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


async def test_renewals_are_written_within_a_second(sqlite: Subject) -> None:
    """touch and get with renew are answered before they are on disk, and are there within a second without further calls."""
    assert RENEWAL_DELAY < 1
    await sqlite.ask(create("a"), create("b"))
    with plain(sqlite.path) as file:

        def ends() -> set[int]:
            return {row[0] for row in file.execute("select expires_at from sessions")}

        fast = Fast()
        answers = await sqlite.ask(touch("a"), get("b", True), now=NOW + 9)
        at_once = ends()
        await fast.forward(RENEWAL_DELAY)
        await until(lambda: ends() != at_once)

        assert [("ok", 1)] * 2 == [brief(answer) for answer in answers]
        assert {NOW + TTL} == at_once
        assert {NOW + 9 + TTL} == ends()


async def test_many_renewals_are_one_row(sqlite: Subject) -> None:
    """A session that is renewed again and again is written once."""
    await sqlite.one(create("a"))
    for n in range(50):
        await sqlite.one(touch("a"), NOW + n)
    before = sqlite.engine.figures.commit_rows.total

    await sqlite.one(count())

    assert 1 == sqlite.engine.figures.commit_rows.total - before


# Relaxed durability ----------------------------------------------------------------------------------


@pytest.fixture
async def relaxed(tmp_path: Path) -> AsyncIterator[Subject]:
    subject = await Subject(str(tmp_path / "sessions.db"), relaxed=True).open()
    yield subject
    await subject.engine.close()
    assert [] == subject.fatal


def in_file(path: Path, name: str) -> str | None:
    with plain(path) as file:
        row = file.execute("select kind from sessions where key = ?", (key(name),)).fetchone()
    return None if row is None else ["destroyed", "session", "alias"][row[0]]


async def test_relaxed_acknowledges_before_the_commit(relaxed: Subject) -> None:
    """With durability relaxed, create, set and patch are answered from memory and are on disk after RELAXED_DELAY."""
    fast = Fast()
    found: list[tuple[str, str | None]] = []

    relaxed.lane.submit(
        [create("a"), set_("a"), patch("a"), get("a")],
        NOW,
        lambda n, answer: found.append((answer.status, in_file(relaxed.path, "a"))),
    )
    await until(lambda: len(found) == 4)
    at_once = list(found)
    await fast.forward(RELAXED_DELAY)
    await until(lambda: in_file(relaxed.path, "a") is not None)

    assert [("ok", None)] * 4 == at_once
    assert ("ok", 3) == brief(await relaxed.one(get("a")))


@pytest.mark.parametrize(
    ("call", "expected"),
    [(destroy("a"), ["destroyed", "session"]), (rotate("a", "b"), ["alias", "session"]),
     (destroy_all(), ["destroyed", "destroyed"])],
    ids=["destroy", "rotate", "destroy_all"],
)  # fmt: skip
async def test_relaxed_is_firm_where_it_matters(relaxed: Subject, call: Call, expected: list[str]) -> None:
    """destroy, rotate and destroy_all are on disk when they are answered, also of sessions that were not yet."""
    found: list[list[str | None]] = []
    done = asyncio.Event()

    def look(position: int, answer: Answer) -> None:
        if position == 2:
            found.append([in_file(relaxed.path, "a"), in_file(relaxed.path, "c")])
            done.set()

    relaxed.lane.submit([create("a"), create("c"), call], NOW, look)
    await asyncio.wait_for(done.wait(), 5)

    assert [expected] == found


# The cache -------------------------------------------------------------------------------------------


async def test_the_cache_keeps_within_its_bytes(tmp_path: Path) -> None:
    """However large the file is and whatever is asked, the cache holds no more than it may; every answer is right."""
    limit = 100_000
    subject = await Subject(str(tmp_path / "sessions.db"), cache_bytes=limit).open()
    figures = subject.engine.figures
    chance = random.Random(7)
    await subject.ask(*[create(str(n), b"%04d" % n * 250, "bytes", user="ann") for n in range(2000)])
    most = 0

    for _ in range(20):
        wanted = [chance.randrange(2000) for _ in range(100)]
        answers = await subject.ask(*[get(str(n), chance.choice([None, True])) for n in wanted])
        most = max(most, figures.cache_bytes)
        assert [b"%04d" % n * 250 for n in wanted] == [data_of(answer) for answer in answers]
    await subject.ask(*[set_(str(n), b"", "bytes", meta={"k": "v" * n}) for n in range(200)])
    most = max(most, figures.cache_bytes)
    await subject.engine.close()

    assert 0 < most <= limit
    assert figures.cache_misses > 1500  # some sixty of two thousand fit


async def test_hot_sessions_stay_in_a_cache_that_is_too_small(tmp_path: Path) -> None:
    """What is asked for often stays: scanning everything else once does not cost the hot ones a read each time."""
    subject = await Subject(str(tmp_path / "sessions.db"), cache_bytes=200_000).open()
    await subject.ask(*[create(str(n)) for n in range(2000)])
    hot = [get(str(n)) for n in range(20)]
    await subject.ask(*hot)
    cold = 0

    for n in range(100, 1100, 20):
        before = subject.engine.figures.cache_misses
        await subject.ask(*hot)
        cold += subject.engine.figures.cache_misses - before
        await subject.ask(*[get(str(n + i)) for i in range(20)])
    await subject.engine.close()

    assert 0 == cold


async def test_a_record_is_found_in_the_cache_or_looked_for_in_the_file(tmp_path: Path) -> None:
    """Each get counts once: as a miss when the file had to be asked, else as a hit."""
    subject = await Subject(str(tmp_path / "sessions.db")).open()
    await subject.ask(create("a"))
    await subject.reopen()
    figures, found = subject.engine.figures, []

    for _ in range(3):
        await subject.ask(get("a"))
        found.append((figures.cache_misses, figures.cache_hits))
    await subject.engine.close()

    assert found == [(1, 0), (1, 1), (1, 2)]


async def test_a_backup_is_of_one_instant(tmp_path: Path) -> None:
    """`vacuum into`, as docs/operations.md has it, comes to its end beside a daemon that always writes, and its copy opens
    with everything that was acknowledged before it began."""
    subject = await Subject(str(tmp_path / "sessions.db")).open()
    await subject.ask(*[create(f"before{n}", b"x" * 1000, "bytes") for n in range(2000)])
    copy = tmp_path / "copy.db"

    def back_up() -> None:
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as file:
            file.execute("vacuum into ?", (str(copy),))

    backup, written = asyncio.create_task(asyncio.to_thread(back_up)), 0
    while not backup.done():
        await subject.ask(create(f"during{written}"))
        written += 1
    await backup
    await subject.engine.close()

    restored = await Subject(str(copy)).open()
    answers = await restored.ask(*[get(f"before{n}") for n in range(2000)])
    await restored.engine.close()
    assert written > 0
    assert {data_of(answer) for answer in answers} == {b"x" * 1000}


@pytest.mark.parametrize(
    ("extra", "at_least"),
    [
        ("user=None", 0.6),
        ('user=f"user-{n}"', 0.6),
        ('user="\u540d" * 84 + str(n % 10), meta={"\u540d" + str(n): "\u540d" * 1000}', 0.15),
        ("meta={str(i): str(n) + str(i) for i in range(32)}", 0.5),
    ],
    ids=["plain", "user", "foreign text", "much meta"],
)
def test_what_a_record_costs(tmp_path: Path, extra: str, at_least: float) -> None:
    """The process grows by no more than the cache accounts for, and the account is not far above what it grows."""
    script = f"""
import asyncio, gc, os
from tests.support import *
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
async def main():
    subject = await Subject({str(tmp_path / "sessions.db")!r}, cache_bytes=10**9).open()
    await subject.engine._file._writer.execute_fetchall("pragma cache_size = -100")  # pages are not records
    async def fill(begin, end):
        for first in range(begin, end, 250):
            await subject.ask(*[
                create(str(n), (b"%08d" % n) * 37 + b"more", "bytes", op=op(str(n)), {extra})
                for n in range(first, first + 250)])
    await fill(0, 2000)
    before, counted = resident(), subject.engine.figures.cache_bytes
    await fill(2000, 17000)
    print((resident() - before) / (subject.engine.figures.cache_bytes - counted))
    await subject.engine.close()
asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert at_least < float(ran.stdout) <= 1.05


# One owner -------------------------------------------------------------------------------------------


async def test_a_second_owner_is_refused(sqlite: Subject) -> None:
    """A file that is in use cannot be opened again: the sentence names the process that holds it."""
    with pytest.raises(StartError, match=rf"in use by sessiond, process {os.getpid()}\b"):
        await Subject(sqlite.url).open()

    assert ("ok", 1) == brief(await sqlite.one(create("a")))


async def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    """While another process lives its file is refused, by its pid; after kill -9 it opens with all that was acknowledged."""
    path = str(tmp_path / "sessions.db")
    made = subprocess.run([sys.executable, "-m", "tests.engines.writer", path, "6"], cwd=ROOT, check=False)
    owner = subprocess.Popen(
        [sys.executable, "-m", "tests.engines.writer", path, "0"], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert b"open\n" == owner.stdout.readline()

    with pytest.raises(StartError, match=rf"process {owner.pid}\b"):
        await Subject(path).open()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    subject = await Subject(path).open()
    answer = await subject.one(count())
    await subject.engine.close()

    assert 0 == made.returncode
    assert ("ok", 6) == brief(answer)


# Opening ---------------------------------------------------------------------------------------------


def foreign(path: Path) -> None:
    with plain(path) as file:
        file.execute("create table sessions (id, data)")
        file.execute("insert into sessions values (1, 'theirs')")


def foreign_in_wal(path: Path) -> None:
    with plain(path) as file:
        file.execute("pragma journal_mode = wal")
    foreign(path)


def newer(path: Path) -> None:
    asyncio.run(_make(path))
    with plain(path) as file:
        file.execute(f"pragma user_version = {len(STEPS) + 1}")


async def _make(path: Path) -> None:
    subject = await Subject(str(path)).open()
    await subject.one(create("a"))
    await subject.engine.close()


NO_FILES_OF_OURS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another program's database": (foreign, "another program's database"),
    "another program's, in WAL mode": (foreign_in_wal, "another program's database"),
    "a newer schema": (newer, "newer sessiond"),
    "a short text": (lambda path: path.write_text("notes"), "cannot open"),
    "a long text": (lambda path: path.write_text("notes\n" * 5000), "cannot open"),
    "a broken header": (lambda path: path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 4080), "cannot open"),
}


@pytest.mark.parametrize("name", NO_FILES_OF_OURS)
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, name: str) -> None:
    """A file of another program, of a later version, or of no database is refused in a sentence and not changed by a byte."""
    make, sentence = NO_FILES_OF_OURS[name]
    path = tmp_path / "sessions.db"
    make(path)
    before = path.read_bytes()

    with pytest.raises(StartError, match=sentence) as refusal:
        asyncio.run(Subject(str(path)).open())

    assert str(path) in str(refusal.value)
    assert before == path.read_bytes()


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder of its own, and no right beyond it, if this process may do everything otherwise."""
    with tempfile.TemporaryDirectory(prefix="sessiond-") as folder:
        root = os.geteuid() == 0
        os.chmod(folder, 0o777)
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


def test_a_folder_that_may_not_be_written_to() -> None:
    """A folder without the right to write, or that is a file, is told in a sentence that says what to do."""
    with as_nobody() as folder:
        (folder / "file").write_text("")
        closed = folder / "closed"
        closed.mkdir(mode=0o500)
        refusals = []
        for path in (closed / "sessions.db", closed / "new" / "sessions.db", folder / "file" / "sessions.db"):
            with pytest.raises(StartError) as refusal:
                asyncio.run(Subject(str(path)).open())
            refusals.append(str(refusal.value))

        assert [] == list(closed.iterdir())
        assert all("Give a file in a folder that sessiond may write to." in text for text in refusals)


def test_a_file_that_may_not_be_written_to() -> None:
    """A file that can only be read is refused at the start, not at the first write."""
    with as_nobody() as folder:
        path = folder / "sessions.db"
        asyncio.run(_make(path))
        path.chmod(0o400)
        before = path.read_bytes()

        with pytest.raises(StartError, match=r"sessions\.db"):
            asyncio.run(Subject(str(path)).open())

        assert before == path.read_bytes()


def test_a_folder_is_made() -> None:
    """Folders on the way to the file that are not there are made."""
    with as_nobody() as folder:
        asyncio.run(_make(folder / "a" / "b" / "sessions.db"))

        assert (folder / "a" / "b" / "sessions.db").exists()


@pytest.mark.parametrize("call", range(1, 16, 2))
def test_a_killed_migration_leaves_no_half(tmp_path: Path, call: int) -> None:
    """Killed at any of its writes, the first start leaves a file that the next start makes whole."""
    require("strace")
    path = tmp_path / "sessions.db"
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"]
    inject = ["-e", f"inject=pwrite64:signal=KILL:when={call}"]
    command = [*strace, *inject, sys.executable, "-m", "tests.engines.writer", str(path), "4"]

    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    acknowledged = killed.stdout.count("ack")
    with plain(path) as file:
        tables = file.execute("select count(*) from sqlite_master").fetchone()[0]
        version = file.execute("pragma user_version").fetchone()[0]
    whole = subprocess.run([sys.executable, "-m", "tests.engines.writer", str(path), "4"], cwd=ROOT, check=False)

    assert 0 != killed.returncode
    assert (tables > 0) == (version > 0)
    assert 0 == whole.returncode
    assert acknowledged <= 4


# Damage ----------------------------------------------------------------------------------------------


@pytest.fixture
async def cold(tmp_path: Path) -> AsyncIterator[Subject]:
    """An engine that reads each record from the file, with sessions a and b of ann, and c."""
    subject = await Subject(str(tmp_path / "sessions.db"), cache_bytes=0).open()
    await subject.ask(create("a", b'{"a":1}', user="ann"), create("b", b'{"b":2}', user="ann"), create("c"))
    yield subject
    await subject.engine.close()
    assert [] == subject.fatal


DAMAGE = {
    "kind to alias": "update sessions set kind = 2 where key = :a",
    "kind to destroyed": "update sessions set kind = 0 where key = :a",
    "user": "update sessions set user = 'anm' where key = :a",
    "no user": "update sessions set user = null where key = :a",
    "expires_at": "update sessions set expires_at = expires_at + 1024 where key = :a",
    "version": "update sessions set version = version + 1 where key = :a",
    "scheme": "update sessions set sealed = cast(x'01' || substr(sealed, 2) as blob) where key = :a",
    "check": "update sessions set sealed = cast(substr(sealed, 1, 5) || x'ff00' || substr(sealed, 8) as blob) where key = :a",
    "body": "update sessions set sealed = cast(replace(sealed, '\"a\":1', '\"a\":2') as blob) where key = :a",
    "cut": "update sessions set sealed = substr(sealed, 1, length(sealed) - 1) where key = :a",
    "emptied": "update sessions set sealed = x'' where key = :a",
    "another's seal": "update sessions set sealed = (select sealed from sessions where key = :b) where key = :a",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_row_is_told_and_never_shown(cold: Subject, damage: str) -> None:
    """A change anywhere in a row makes its session answer `integrity`, whatever is asked; all others serve."""
    with plain(cold.path) as file:
        before = file.execute("select * from sessions where key = ?", (key("a"),)).fetchone()
        file.execute(DAMAGE[damage], {"a": key("a"), "b": key("b")})
        assert before != file.execute("select * from sessions where key = ?", (key("a"),)).fetchone()
    questions = [get("a"), get("a", True), create("a"), set_("a"), patch("a"), touch("a"), rotate("a", "new")]

    answers = await cold.ask(*questions, get("b"), patch("c"))
    listed = await cold.one(list_())

    assert [INTEGRITY] * 7 + [("ok", 1), ("ok", 2)] == [brief(answer) for answer in answers]
    assert ("ok", sorted([key("b"), key("c")])) == brief(listed)
    assert cold.engine.figures.damaged >= 7


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_session_can_be_destroyed(cold: Subject, damage: str) -> None:
    """destroy ends a session whose row is damaged, for good, and its key can be used again."""
    with plain(cold.path) as file:
        file.execute(DAMAGE[damage], {"a": key("a"), "b": key("b")})

    answers = await cold.ask(destroy("a"), get("a"), create("a"), get("a"), count())

    assert [("ok",), ("missing",), ("ok", 1), ("ok", 1), ("ok", 3)] == [brief(answer) for answer in answers]


async def test_destroying_through_an_alias_reaches_the_damaged_session(cold: Subject) -> None:
    """destroy on an alias whose session is damaged removes that session, not the alias before it."""
    await cold.one(rotate("a", "a2", HOUR))
    with plain(cold.path) as file:
        file.execute("update sessions set version = 77 where key = ?", (key("a2"),))

    answers = await cold.ask(get("a"), destroy("a"), get("a2"), get("a"))

    assert [INTEGRITY, ("ok",), ("missing",), ("missing",)] == [brief(answer) for answer in answers]


async def test_rows_that_change_places_are_noticed(cold: Subject) -> None:
    """Two rows whose keys were exchanged are both damaged: nobody gets another's session."""
    with plain(cold.path) as file:
        file.execute("update sessions set key = x'00' where key = ?", (key("a"),))
        file.execute("update sessions set key = ? where key = ?", (key("a"), key("b")))
        file.execute("update sessions set key = ? where key = x'00'", (key("b"),))

    answers = await cold.ask(get("a"), get("b"), get("c"))

    assert [INTEGRITY, INTEGRITY, ("ok", 1)] == [brief(answer) for answer in answers]


@pytest.mark.parametrize("column", ["key", "namespace"])
async def test_a_row_under_another_address_is_damaged_there(cold: Subject, column: str) -> None:
    """A row whose key or namespace was changed is gone from its place, and is damaged where it now is."""
    other = "other" if column == "namespace" else key("z")
    with plain(cold.path) as file:
        file.execute(f"update sessions set {column} = ? where key = ?", (other, key("a")))

    moved = get("a", ns="other") if column == "namespace" else get("z")
    answers = await cold.ask(get("a"), moved, get("b"))

    assert [("missing",), INTEGRITY, ("ok", 1)] == [brief(answer) for answer in answers]


async def test_destroy_all_takes_damaged_sessions_too(cold: Subject) -> None:
    """A logout everywhere ends a user's damaged sessions with the others."""
    with plain(cold.path) as file:
        file.execute("update sessions set sealed = x'' where key = ?", (key("a"),))

    answers = await cold.ask(destroy_all("ann"), get("a"), get("b"), get("c"))

    assert [("ok", 2), ("missing",), ("missing",), ("ok", 1)] == [brief(answer) for answer in answers]


async def test_a_column_of_another_kind_is_damage(tmp_path: Path) -> None:
    """A row whose sealed record has become a number, by one bit of its header, is damaged like any other."""
    path = tmp_path / "sessions.db"
    subject = await Subject(str(path)).open()
    await subject.ask(create("a"), create("b"))
    await subject.engine.close()
    content = bytearray(path.read_bytes())
    kinds = bytes([2 * len("default") + 13, 2 * 32 + 12, 9, 0, 5, 9])  # of the columns before `sealed`
    where = content.index(kinds) + len(kinds)
    content[where : where + 2] = b"\x80\x01"  # in two bytes, as before: an integer of one byte
    path.write_bytes(content)

    subject = await Subject(str(path)).open()
    answers = [brief(answer) for answer in await subject.ask(get("a"), get("b"))]
    await subject.engine.close()

    assert sorted([INTEGRITY, ("ok", 1)]) == sorted(answers)


@pytest.mark.parametrize("seed", range(4))
async def test_flipped_bytes_in_the_file_never_show_a_wrong_value(tmp_path: Path, seed: int) -> None:
    """With bytes of the file flipped at random, a session answers as it was, or not at all: never with other data.

    Where the flips meet the schema, the file does not open, which is said in a sentence.
    """
    chance = random.Random(seed)
    path = tmp_path / "sessions.db"
    subject = await Subject(str(path)).open()
    made = await subject.ask(*[create(str(n), b"%03d" % n * 100, "bytes", user="ann") for n in range(300)])
    await subject.engine.close()
    whole = path.read_bytes()
    told = 0

    for _ in range(15):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[chance.randrange(4096, len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            subject = await Subject(str(path)).open()
        except StartError:
            continue
        for before, after in zip(made, await subject.ask(*[get(str(n)) for n in range(300)]), strict=True):
            assert after.status in ("failed", "missing") or before == after
            told += brief(after) == INTEGRITY
        await subject.engine.close()

    assert told > 0


async def test_a_table_whose_definition_is_no_text_is_told_at_the_start(tmp_path: Path) -> None:
    """In a sentence; and the file is free again, its threads ended."""
    path = tmp_path / "sessions.db"
    subject = await Subject(str(path)).open()
    await subject.engine.close()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"sessions_changed after update", b"sessions_changed \xbdfter update"))

    for _ in range(2):
        with pytest.raises(StartError, match=r"its tables are damaged\. Give another file"):
            await Subject(str(path)).open()

    path.write_bytes(whole)
    subject = await Subject(str(path)).open()
    answer = await subject.one(create("a"))
    await subject.engine.close()

    assert ("ok", 1) == brief(answer)


async def test_a_zeroed_page_costs_only_its_sessions(tmp_path: Path) -> None:
    """A page of the table that is lost makes its sessions answer `integrity`; those on other pages serve."""
    path = tmp_path / "sessions.db"
    subject = await Subject(str(path)).open()
    await subject.ask(*[create(str(n), b"x" * 300, "bytes") for n in range(300)])
    await subject.engine.close()
    content = bytearray(path.read_bytes())
    table_leaves = [page for page in range(1, len(content) // 4096) if content[page * 4096] == 13]
    page = table_leaves[len(table_leaves) // 2]
    content[page * 4096 : (page + 1) * 4096] = bytes(4096)
    path.write_bytes(content)

    subject = await Subject(str(path)).open()
    answers = [brief(answer) for answer in await subject.ask(*[get(str(n)) for n in range(300)])]
    await subject.engine.close()

    assert {INTEGRITY, ("ok", 1)} == set(answers)
    assert answers.count(INTEGRITY) < 30


# A disk that is full, or only to be read ---------------------------------------------------------------


async def fill(subject: Subject) -> None:
    """Lets the file grow by no page more: SQLite then fails as on a full disk."""
    await pragma(subject, f"max_page_count = {await pragma(subject, 'page_count')}")


async def free(subject: Subject) -> None:
    await pragma(subject, "max_page_count = 1000000")


BIG = b"x" * 60_000


async def test_a_full_disk_fails_the_writers_alone(sqlite: Subject) -> None:
    """On a full disk writes answer `storage_full` and change nothing, reads go on, and all is well when there is space."""
    await sqlite.ask(*[create(name, b"%s" % name.encode(), "bytes", user="ann") for name in "abc"])
    before = await sqlite.ask(get("a"), get("b"), get("c"), list_("ann"), count())
    await fill(sqlite)

    writes = await sqlite.ask(set_("a", BIG, "bytes"), create("d", BIG, "bytes"), set_("b", BIG, "bytes", when=1))
    trouble = sqlite.engine.trouble
    during = await sqlite.ask(get("a"), get("b"), get("c"), list_("ann"), count())
    missing = await sqlite.one(get("d"))
    await free(sqlite)
    healed = await sqlite.ask(set_("a", BIG, "bytes"), create("d", BIG, "bytes"))

    assert [FULL] * 3 == [brief(answer) for answer in writes]
    assert trouble is not None
    assert "disk is full" in trouble
    assert before == during
    assert ("missing",) == brief(missing)
    assert [("ok", 2), ("ok", 1)] == [brief(answer) for answer in healed]
    assert sqlite.engine.trouble is None


async def test_what_failed_to_be_written_ended_nothing(sqlite: Subject) -> None:
    """No end is told for a commit that failed, nor for one that built on it; the repeat that succeeds tells it."""
    await sqlite.ask(create("a"), create("b", user="ann"))
    await fill(sqlite)
    calls = [set_("c", BIG, "bytes"), destroy("a"), rotate("b", "d"), destroy_all()]

    failed = await sqlite.ask(*calls[:3])
    await free(sqlite)
    done = await sqlite.ask(*calls[1:])

    assert [FULL] * 3 == [brief(answer) for answer in failed]
    assert [()] * 3 == [answer.ended for answer in failed]
    assert [[(key("a"), "destroyed")], [(key("b"), "rotated")], [(key("d"), "destroyed")]] == [
        [(end.key, end.reason) for end in answer.ended] for answer in done
    ]


async def test_a_damaged_session_ends_too(sqlite: Subject) -> None:
    """Destroying a row that cannot be read tells its end; whose it was, nobody knows."""
    await sqlite.one(create("a", user="ann"))
    await sqlite.engine.close()
    with plain(sqlite.path) as file:
        file.execute("update sessions set sealed = x'00'")
    await sqlite.open()

    answer = await sqlite.one(destroy("a"))

    assert (Ended("default", key("a"), None, NOW, "destroyed"),) == answer.ended


async def test_trouble_ends_without_a_writer(sqlite: Subject) -> None:
    """When there is space again the engine finds out by itself: a readiness that sends the writers away heals too."""
    await fill(sqlite)
    assert FULL == brief(await sqlite.one(create("a", BIG, "bytes")))
    assert sqlite.engine.trouble is not None
    await free(sqlite)

    for _ in range(500):
        if sqlite.engine.trouble is None:
            break
        await asyncio.sleep(0.02)

    assert sqlite.engine.trouble is None


async def test_a_full_disk_leaves_no_half_of_a_commit(sqlite: Subject) -> None:
    """Of a commit of several statements that meets a full disk nothing is kept, in memory or in the file."""
    rows = 3 * ROWS_PER_STATEMENT
    await sqlite.one(create("0"))
    await fill(sqlite)

    answers = await sqlite.ask(*[create(str(n), b"x" * 500, "bytes") for n in range(1, rows)])
    counted = await sqlite.one(count())
    await free(sqlite)
    await sqlite.reopen()
    after = await sqlite.one(list_())

    assert {FULL} == {brief(answer) for answer in answers}
    assert ("ok", 1) == brief(counted)
    assert ("ok", [key("0")]) == brief(after)


async def test_a_failed_write_keeps_the_renewals_before_it(sqlite: Subject) -> None:
    """A renewal that was acknowledged holds when a later write of the same session fails, and is on disk once it can be."""
    await sqlite.ask(create("a"), create("b"))
    renewed = await sqlite.ask(touch("a", HOUR), touch("b", HOUR), now=NOW + 1)
    await fill(sqlite)

    failed = await sqlite.ask(set_("a", BIG, "bytes"), now=NOW + 2)
    during = await sqlite.ask(get("a"), get("b"), now=NOW + 2)
    await free(sqlite)
    await sqlite.reopen()
    after = await sqlite.ask(get("a"), get("b"), now=NOW + 3)

    assert [FULL] == [brief(answer) for answer in failed]
    assert renewed == during == after


async def test_a_failed_write_keeps_the_renewals_of_its_commit(sqlite: Subject) -> None:
    """Renewals written in the same commit as a write that fails are kept and tried again."""
    await sqlite.ask(create("a"), create("b"), create("c"))
    renewed = await sqlite.ask(touch("a", HOUR), touch("b", HOUR), now=NOW + 1)
    await fill(sqlite)
    asked = asyncio.gather(
        execute(sqlite.engine.lane(), [set_("c", BIG, "bytes"), count()], NOW + 2),
        execute(sqlite.engine.lane(), [count(), set_("a", b"x" * 50_000, "bytes")], NOW + 2),
    )

    (failed, _), (_, _) = await asked
    during = await sqlite.ask(get("a"), get("b"), now=NOW + 2)
    await free(sqlite)
    await sqlite.reopen()
    after = await sqlite.one(get("b"), now=NOW + 3)

    assert FULL == brief(failed)
    assert renewed[1] == during[1] == after
    assert NOW + 1 + HOUR <= record_of(during[0]).expires_at


async def test_what_builds_on_a_failed_write_fails_with_it(sqlite: Subject) -> None:
    """Calls that saw a write which then failed are not answered as if it had been: they fail, and the old state stands."""
    await sqlite.one(create("a", b'{"x":1}'))
    await fill(sqlite)

    answers = await sqlite.ask(set_("a", BIG, "bytes"), get("a"), set_("a", BIG + b"x", "bytes", when=2), touch("a"))
    after = await sqlite.one(get("a"))

    assert [FULL] * 4 == [brief(answer) for answer in answers]
    assert (1, {"x": 1}) == (record_of(after).version, data_of(after))


async def test_a_disk_that_is_full_for_the_kernel(tmp_path: Path) -> None:
    """On a real file system without space left writers are told, readers served, and freeing space heals."""
    require("mount")
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        subject = await Subject(str(disk / "sessions.db")).open()
        await subject.one(create("first", b'{"x":1}'))
        ballast = disk / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)

        written = [brief(await subject.one(create(str(n), BIG, "bytes"))) for n in range(3)]
        served = await subject.ask(get("first"), get("0"), get("2"))
        ballast.unlink()
        healed = await subject.ask(create("0", BIG, "bytes"), get("first"))
        await subject.reopen()
        kept = await subject.ask(get("0"), get("first"), count())
        await subject.engine.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    assert FULL == written[-1]
    assert ("ok", 1) == brief(served[0])
    assert [status == ("ok", 1) for status in (written[0], written[2])] == [a.status == "ok" for a in served[1:]]
    assert "ok" in brief(healed[1])
    assert ("ok", 1) == brief(kept[0]) == brief(kept[1])
    assert [] == subject.fatal


async def test_a_disk_that_turns_read_only(sqlite: Subject) -> None:
    """When the file can no longer be written, writers are told `storage_failed`, readers served, and it heals."""
    await sqlite.one(create("a"))
    await pragma(sqlite, "query_only = on")

    answers = await sqlite.ask(set_("a"), create("b"))
    trouble = sqlite.engine.trouble
    served = await sqlite.ask(get("a"), count())
    await pragma(sqlite, "query_only = off")
    healed = await sqlite.one(set_("a"))

    assert [("failed", "storage_failed")] * 2 == [brief(answer) for answer in answers]
    assert trouble is not None
    assert [("ok", 1), ("ok", 1)] == [brief(answer) for answer in served]
    assert ("ok", 2) == brief(healed)


async def test_a_sweep_on_a_full_disk(sqlite: Subject) -> None:
    """A sweep that cannot be written removes nothing and says 0; it is done when there is space."""
    await sqlite.ask(create("a", ttl=1), create("b"))
    await pragma(sqlite, "query_only = on")

    failed = await sqlite.engine.sweep(NOW + 1, 10)
    await pragma(sqlite, "query_only = off")
    swept = await sqlite.engine.sweep(NOW + 1, 10)

    assert [(0, True), (1, True)] == [failed, swept]
    assert 1 == len(await sqlite.expired())


@pytest.mark.parametrize("sync", [1, 3, 9, 20])  # the second is that of the folder, whose result SQLite does not use
def test_a_failed_sync_is_the_end(tmp_path: Path, sync: int) -> None:
    """After an fsync that failed nothing more is acknowledged, on_fatal is called, and all acknowledged before is there.

    That each acknowledgement had a sync of its own before it shows in their number, too.
    """
    require("strace")
    path = str(tmp_path / "sessions.db")
    asyncio.run(_make(Path(path)))
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
    inject = ["-e", f"inject=fdatasync:error=EIO:when={sync}"]
    command = [*strace, *inject, sys.executable, "-m", "tests.engines.writer", path, "100"]

    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    acknowledged = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("ack")]
    answers = asyncio.run(_look(path, acknowledged))

    assert 70 == ran.returncode, ran.stderr
    assert "fatal" == ran.stdout.splitlines()[-1].split()[0]
    assert len(acknowledged) <= 2 * (sync - 1)
    assert ["ok"] * len(acknowledged) == [answer.status for answer in answers]


async def _look(path: str, names: list[str]) -> list[Answer]:
    subject = await Subject(path).open()
    answers = await subject.ask(*map(get, names))
    await subject.engine.close()
    return answers


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_a_cancelled_sweep_leaves_no_transaction_open(sqlite: Subject, turns: int) -> None:
    """However far a sweep has come when its caller is cancelled, what is acknowledged after it is in the file."""
    await sqlite.ask(*(create(f"dying {n}", ttl=1) for n in range(20)))
    sweep = asyncio.create_task(sqlite.engine.sweep(NOW + 10, 100))
    for _ in range(turns):
        await asyncio.sleep(0)
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)

    assert brief(await sqlite.one(create("kept"), now=NOW + 10)) == ("ok", 1)
    with closing(sqlite3.connect(sqlite.path)) as other:
        assert other.execute("select count(*) from sessions where key = ?", (key("kept"),)).fetchone() == (1,)


async def test_a_file_has_one_owner_under_all_its_names(sqlite: Subject, tmp_path: Path) -> None:
    """A second engine finds the lock through a symbolic link too, and a file with a second hard link is refused."""
    (tmp_path / "symbolic.db").symlink_to(sqlite.path)
    with pytest.raises(StartError, match="is in use by"):
        await Subject(str(tmp_path / "symbolic.db")).open()

    (tmp_path / "hard.db").hardlink_to(sqlite.path)
    with pytest.raises(StartError, match="hard link"):
        await Subject(str(tmp_path / "hard.db")).open()


# What is due -------------------------------------------------------------------------------------------


async def due(subject: Subject) -> dict[bytes, int]:
    """When the sweep will look at each row, in ms from NOW."""
    with plain(Path(subject.path)) as file:
        assert [] == file.execute("select key from sessions where due > expires_at").fetchall()
        return {key: due - NOW for key, due in file.execute("select key, due from sessions")}


async def test_a_session_that_lives_longer_is_put_off_by_the_sweep(sqlite: Subject) -> None:
    """A write leaves the index of what is due alone, and no answer shows it: counts are right before the sweep and after."""
    await sqlite.one(create("a", ttl=10))
    await sqlite.one(set_("a", ttl=50))
    written = await due(sqlite)
    counts = [await sqlite.one(count(), now=NOW + 10)]
    swept = [await sqlite.sweep_all(NOW + 10)]
    put_off = await due(sqlite)
    for now in (NOW + 49, NOW + 50):
        counts.append(await sqlite.one(count(), now=now))
        swept.append(await sqlite.sweep_all(now))

    assert {key("a"): 10} == written
    assert {key("a"): 50} == put_off
    assert [("ok", 1), ("ok", 1), ("ok", 0)] == [brief(answer) for answer in counts]
    assert [0, 0, 1] == swept


async def test_an_end_that_comes_nearer_is_due_sooner(sqlite: Subject) -> None:
    """A shorter lifetime, a destroy and the alias that a rotate leaves are swept in their time."""
    later = REPEAT_WINDOW + 100
    await sqlite.ask(*(create(name, ttl=9 * later) for name in ("shorter", "gone", "moved", "stays")))
    await sqlite.ask(set_("shorter", ttl=later), destroy("gone"), rotate("moved", "new", grace=100))
    found = await due(sqlite)
    swept = [await sqlite.sweep_all(NOW + wait) for wait in (100, later - 1, later, later)]

    assert {
        key("shorter"): later,
        key("gone"): 0,
        key("moved"): 100,
        key("new"): 9 * later,
        key("stays"): 9 * later,
    } == found
    assert [0, 1, 2, 0] == swept


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_many_that_live_on_do_not_hide_who_died(sqlite: Subject, limit: int) -> None:
    """However many have to be put off first, the sweep goes on to the dead, and each step takes as many as it may."""
    await sqlite.ask(*(create(str(n), ttl=10) for n in range(60)))
    await sqlite.ask(*(set_(str(n), ttl=30) for n in range(60) if n % 20 != 19))

    steps = [await sqlite.engine.sweep(NOW + 10, limit)]
    while not steps[-1].is_over:
        steps.append(await sqlite.engine.sweep(NOW + 10, limit))

    assert 3 == sum(step.removed for step in steps)
    assert len(steps) <= 60 // limit + 2
    assert {30} == set((await due(sqlite)).values())


async def test_a_step_goes_on_where_the_last_one_was(sqlite: Subject) -> None:
    """Who dies between two steps is swept before it is over, whoever was noted before."""
    await sqlite.ask(*(create(str(n), ttl=10) for n in range(5)), create("soon", ttl=11))

    first = await sqlite.engine.sweep(NOW + 10, 3)
    rest = await sqlite.sweep_all(NOW + 11, 3)

    assert (3, False) == first
    assert 3 == rest


async def test_a_session_that_is_renewed_in_memory_alone_is_spared(sqlite: Subject) -> None:
    """The file says that it is dead, and what is in memory that it lives; the sweep ends all the same."""
    await sqlite.ask(*(create(str(n), ttl=10) for n in range(3)))
    await sqlite.one(touch("0", 100), now=NOW + 9)

    swept = await sqlite.sweep_all(NOW + 10, 1)
    left = await sqlite.one(get("0"), now=NOW + 10)

    assert 2 == swept
    assert ("ok", 1) == brief(left)


@contextmanager
def failing(subject: Subject, name: str, statement: str, value: object = None) -> Iterator[None]:
    """The writer's statements of that beginning fail with SQLite's error, those alone that name `value`, if one is given."""
    writer = writer_of(subject)
    real = writer.execute_fetchall

    async def execute_fetchall(sql: str, values: Any = ()) -> Any:
        if sql.split()[: len(statement.split())] == statement.split() and (value is None or value in values):
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
            raise error
        return await real(sql, values)

    writer.execute_fetchall = execute_fetchall
    yield
    writer.execute_fetchall = real


async def test_a_failed_sweep_puts_nothing_off(sqlite: Subject) -> None:
    """What is put off and what is deleted are one commit: both are there after it, or neither."""
    await sqlite.ask(create("lives", ttl=10), create("dead", ttl=10))
    await sqlite.one(set_("lives", ttl=30))
    with failing(sqlite, "SQLITE_FULL", "commit"):
        failed = await sqlite.engine.sweep(NOW + 10, 10)
    kept = await due(sqlite)
    swept = await sqlite.sweep_all(NOW + 10)

    assert (0, True) == failed
    assert {key("lives"): 10, key("dead"): 10} == kept
    assert 1 == swept
    assert {key("lives"): 30} == await due(sqlite)


def broken_chain(raw: bytearray) -> None:
    """The data of a large row lie in pages of their own, each linked to the next by its first four bytes."""
    size = int.from_bytes(raw[16:18], "big")
    page = next(at for at in range(size, len(raw), size) if raw[at + 4 : at + size] == b"x" * (size - 4))
    raw[page : page + 4] = b"\xff\xff\xff\xf0"


def no_text(raw: bytearray) -> None:
    """The user `ann` (type 19 of SQLite's record format) of a namespace's text and a key's blob becomes a blob."""
    (at,) = [found.start() for found in re.finditer(rb"\x1b\x4c\x09\x13", raw)]
    raw[at + 3] = 18


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("damage", [broken_chain, no_text])
async def test_a_damaged_row_stops_no_sweep(tmp_path: Path, damage: Callable[[bytearray], None], lives: bool) -> None:
    """A row that SQLite itself finds damaged, whether it lives on or has died, keeps no other from being swept."""
    path = tmp_path / "sessions.db"
    subject = await Subject(str(path)).open()
    large = b"x" * 20_000
    await subject.ask(
        *(create(str(n), ttl=10) for n in range(10)), create("damaged", large, "bytes", ttl=10, user="ann")
    )
    await subject.ask(set_("1", ttl=30), *([set_("damaged", large, "bytes", ttl=30)] if lives else []))
    await subject.engine.close()
    raw = bytearray(path.read_bytes())
    damage(raw)
    path.write_bytes(raw)

    subject = await Subject(str(path)).open()
    swept = [await subject.sweep_all(NOW + 10, limit) for limit in (3, 100)]
    told = {event.key for event in await subject.expired()}
    with plain(path) as file:
        left = file.execute("select due from sessions indexed by sessions_by_due order by due").fetchall()
    await subject.engine.close()

    assert 0 == swept[1]
    assert {key(str(n)) for n in range(10) if n != 1} == told - {key("damaged")}
    assert (NOW + 30,) == left[-1]
    assert len(left) == 11 - swept[0]


async def test_a_damaged_page_stops_no_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows of a page that cannot be read stay, and the log says how many. So do those of the page before it, which SQLite wants
    to join with it once they are few; all others are swept."""
    path = tmp_path / "sessions.db"
    subject = await Subject(str(path)).open()
    await subject.ask(*(create(str(n), ttl=10) for n in range(300)))
    await subject.engine.close()
    with plain(path) as file:
        (root,) = file.execute("select rootpage from sqlite_schema where name = 'sessions'").fetchone()
        (size,) = file.execute("pragma page_size").fetchone()
    raw = bytearray(path.read_bytes())
    leaf = (int.from_bytes(raw[(root - 1) * size + 8 :][:4], "big") - 1) * size  # the last one
    lost = int.from_bytes(raw[leaf + 3 : leaf + 5], "big")  # its rows
    raw[leaf : leaf + size] = bytes(size)
    path.write_bytes(raw)

    subject = await Subject(str(path)).open()
    swept = [await subject.sweep_all(NOW + 10, limit) for limit in (7, 100)]
    told = [event.key for event in await subject.expired()]
    await subject.engine.close()

    assert 0 < lost < 50
    assert 300 - 3 * lost <= swept[0] <= 300 - lost
    assert 0 == swept[1]
    assert len(told) == len(set(told)) == swept[0]
    assert f"sweep: {lost} rows that are due are damaged, and stay." in caplog.messages


async def test_nobody_is_told_twice_when_a_sweep_fails_half_way(sqlite: Subject) -> None:
    """What half of a step removed is told, also when the disk is full for the other half."""
    await sqlite.ask(*(create(str(n), ttl=10) for n in range(10)))
    full = failing(sqlite, "SQLITE_FULL", "delete from sessions", value=9)
    with full, failing(sqlite, "SQLITE_CORRUPT", "delete from sessions", value=1):
        swept = [await sqlite.engine.sweep(NOW + 10, 10) for _ in range(3)]
    rest = await sqlite.sweep_all(NOW + 10)
    told = [event.key for event in await sqlite.expired()]

    assert (4, False) == swept[0]
    assert 10 == sum(step.removed for step in swept) + rest
    assert sorted(key(str(n)) for n in range(10)) == sorted(told)


@pytest.mark.parametrize("name", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_READ"])
async def test_a_sweep_whose_commit_fails_is_the_end(sqlite: Subject, name: str) -> None:
    """No error of a commit is taken for the damage of a row: what is on disk is not known."""
    await sqlite.ask(*(create(str(n), ttl=10) for n in range(3)))
    with failing(sqlite, name, "commit"):
        swept = await sqlite.engine.sweep(NOW + 10, 10)
    told, sqlite.fatal = sqlite.fatal, []

    assert (0, True) == swept
    assert 1 == len(told)


async def test_who_dies_while_a_sweep_goes_on_is_swept(sqlite: Subject) -> None:
    """That nothing came of what was noted is no proof that nothing is due: the sweep looks again."""
    await sqlite.ask(create("a", ttl=10), create("b", ttl=10), create("c", ttl=50))
    await sqlite.ask(touch("a", 9000), touch("b", 9000), now=NOW + 9)

    first = await sqlite.engine.sweep(NOW + 10, 1)
    swept = await sqlite.sweep_all(NOW + 50, 1)

    assert (0, False) == first
    assert 1 == swept


async def test_one_that_lives_on_hides_no_end_from_a_quota(sqlite: Subject) -> None:
    """A count for a quota holds until the next may die, though the only one that is due lives for much longer."""
    two = Policy(ttl=TTL, max_sessions=2)
    await sqlite.one(create("long", ttl=1))
    await sqlite.ask(set_("long", ttl=90), create("short", ttl=5))

    full = await sqlite.one(create("third", policy=two), now=NOW + 1)
    free = await sqlite.one(create("third", policy=two), now=NOW + 5)

    assert [("failed", "quota"), ("ok", 1)] == [brief(full), brief(free)]


async def test_a_busy_namespace_does_not_have_a_full_one_recounted(sqlite: Subject) -> None:
    """A refusal stands for as long as nobody of this namespace can have died, whoever dies in another."""
    full = Policy(ttl=TTL, max_sessions=1)
    await sqlite.ask(create("lives"), *(create(str(n), ttl=n + 1, ns="busy") for n in range(100)))
    engine: Any = sqlite.engine
    usage = engine._file.usage
    asked: list[int] = []

    async def counted(namespace: str, now: int) -> Any:
        asked.append(now)
        return await usage(namespace, now)

    engine._file.usage = counted
    answers = [await sqlite.one(create(f"no {n}", policy=full), now=NOW + n) for n in range(100)]

    assert {("failed", "quota")} == {brief(answer) for answer in answers}
    assert 1 == len(asked)


@pytest.mark.parametrize("neighbours", [0, 999, 1000, 1001, 2500])
async def test_a_count_holds_no_longer_than_somebody_lives(sqlite: Subject, neighbours: int) -> None:
    """An end is seen to the ms, however many of other namespaces come before it."""
    one = Policy(ttl=TTL, max_sessions=1)
    await sqlite.ask(create("dies", ttl=500), *(create(str(n), ttl=100, ns="busy") for n in range(neighbours)))

    answers = [await sqlite.one(create(f"new {wait}", policy=one), now=NOW + wait) for wait in (1, 499, 500)]

    assert [("failed", "quota"), ("failed", "quota"), ("ok", 1)] == [brief(answer) for answer in answers]


async def test_a_count_reads_what_is_due_and_not_the_namespace(sqlite: Subject) -> None:
    """SQLite's steps for a count, asked for or for a quota, do not grow with the sessions that live."""
    engine: Any = sqlite.engine
    file = engine._file
    counts: tuple[Callable[[], Any], ...] = (
        lambda: file.count("default", None, NOW),
        lambda: file.usage("default", NOW),
    )
    steps: list[list[int]] = []

    def ticked() -> None:
        steps[-1][-1] += 1

    for made in range(2):
        # More than the next thousand that a quota's count looks at.
        await sqlite.ask(*(create(f"{made} {n}") for n in range(2000)))
        steps.append([])
        for asked in counts:
            steps[-1].append(0)
            await file._reader.set_progress_handler(ticked, 1)
            await asked()
            await file._reader.set_progress_handler(None, 0)

    for few, many in zip(*steps, strict=True):
        assert 0 < many <= few + 10
