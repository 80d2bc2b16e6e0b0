"""Encryption at rest: what the file shows, what it does not let through, and the walk from one seal to the next."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessiond.engines.sqlite.engine import RESEAL_AGAIN
from sessiond.engines.sqlite.file import owner_of
from sessiond.engines.sqlite.schema import APPLICATION_ID, STEPS
from sessiond.engines.sqlite.seals import BATCH_BYTES, BATCH_ROWS, Progress, progress_of
from sessiond.errors import StartError
from sessiond.vault import TAG_MARK, Clear, Key, Seal, Vault
from tests.support import (
    BLUE,
    HOUR,
    NOW,
    PLAIN,
    RED,
    Subject,
    brief,
    count,
    create,
    data_of,
    destroy,
    destroy_all,
    entries_of,
    get,
    key,
    list_,
    patch,
    record_of,
    rotate,
    set_,
    touch,
)

ROOT = Path(__file__).parents[2]
INTEGRITY = ("failed", "integrity")
CANARY = b"canary-in-the-data"
USER, META = "canary-as-a-user", {"canary-as-a-name": "canary-as-a-text"}

SEALS: dict[str, Seal] = {"plain": Clear(), "red": RED, "blue": BLUE}


def vault(*ids: str) -> Vault:
    return Vault([SEALS[name] for name in ids])


@contextmanager
def plain(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection to the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


async def until(condition: Callable[[], bool]) -> None:
    """Gives the loop its turns until what is looked for has happened."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def progress(subject: Subject) -> Progress:
    found = progress_of(subject.path)
    assert found is not None
    return found


def found_in(subject: Subject, *words: bytes) -> list[tuple[str, bytes]]:
    """Which of the words stand in which of the database's files."""
    files = [file for file in subject.path.parent.iterdir() if file.name.startswith(subject.path.name)]
    return [(file.name, word) for file in sorted(files) for word in words if word in file.read_bytes()]


CANARIES = (CANARY, USER.encode(), b"canary-as-a-name", b"canary-as-a-text")


async def fill(subject: Subject, number: int = 400) -> None:
    """Sessions of many sizes with a canary in each part, some changed, destroyed, expired, swept and rotated."""
    data = [CANARY * (1 + (n * n) % 200) for n in range(number)]
    await subject.ask(*[create(str(n), data[n], "bytes", user=f"{USER}{n % 9}", meta=META) for n in range(number)])
    await subject.ask(*[set_(str(n), data[-n], "bytes") for n in range(0, number, 3)])
    await subject.ask(*[destroy(str(n)) for n in range(1, number, 10)])
    await subject.ask(*[rotate(str(n), f"new {n}", HOUR) for n in range(2, number, 10)])
    await subject.ask(*[create(f"dying {n}", CANARY, "bytes", ttl=1, user=USER) for n in range(50)])
    await subject.sweep_all(NOW + 1)


# What the file shows ---------------------------------------------------------------------------------


async def test_nothing_can_be_read_in_an_encrypted_file(tmp_path: Path) -> None:
    """Neither data nor user nor meta stands in the file, its write-ahead log or its index, while it serves and after."""
    subject = await Subject(str(tmp_path / "s.db"), vault=vault("red")).open()

    await fill(subject)
    during = found_in(subject, *CANARIES)
    shown = [
        [entry.user for entry in entries_of(await subject.one(list_(f"{USER}3")))],
        [expired.user for expired in await subject.expired()],
    ]
    await subject.engine.close()

    assert [] == during == found_in(subject, *CANARIES)
    assert [{f"{USER}3"}, {USER}] == [{*users} for users in shown]
    with plain(subject.path) as file:
        users = {row[0] for row in file.execute("select user from sessions union all select user from expiries")}
        tallied = {row[0] for row in file.execute("select user from tallies")}
    assert all(user is None or user.startswith(TAG_MARK) for user in users)
    assert all(user == "" or user.startswith(TAG_MARK) for user in tallied)


@pytest.mark.parametrize("ids", [("plain",), ("red",)], ids=["clear", "encrypted"])
async def test_what_was_destroyed_or_swept_leaves_no_bytes(tmp_path: Path, ids: tuple[str, ...]) -> None:
    """After destroys and a sweep, and once the write-ahead log is folded in, no byte of the sessions is in the file."""
    subject = await Subject(str(tmp_path / "s.db"), vault=vault(*ids)).open()
    await fill(subject)

    await subject.one(destroy_all(), now=NOW)
    await subject.sweep_all(NOW + 10 * HOUR)
    await subject.engine.close()

    assert [] == found_in(subject, CANARY, *(b"canary-as-a-name", b"canary-as-a-text"))


# What it does not let through ------------------------------------------------------------------------


@pytest.fixture
async def cold(tmp_path: Path) -> AsyncIterator[Subject]:
    """An encrypted engine that reads each record from the file: sessions a and b of ann, and c, each changed once."""
    subject = await Subject(str(tmp_path / "s.db"), cache_bytes=0, vault=vault("red", "blue")).open()
    await subject.ask(create("a", b'{"a":1}', user="ann"), create("b", b'{"b":2}', user="ann"), create("c"))
    await subject.ask(patch("a"), patch("b"), patch("c"))
    yield subject
    await subject.engine.close()
    assert [] == subject.fatal


def flip(column: str, place: float) -> str:
    """SQL that changes one byte of a text or blob, `place` of the way through it."""
    return f"""
        update sessions set {column} = cast(
            substr(cast({column} as blob), 1, cast(length(cast({column} as blob)) * {place} as integer))
            || x'fe'
            || substr(cast({column} as blob), 2 + cast(length(cast({column} as blob)) * {place} as integer))
            as {"text" if column in ("namespace", "user") else "blob"})
        where key = :a"""


CHANGED = {
    **{f"{column}, at {place}": flip(column, place)
       for column in ("user", "sealed") for place in (0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 0.99)},
    **{f"kind to {kind}": f"update sessions set kind = {kind} where key = :a" for kind in (0, 2, 3, -1)},
    **{f"bit {bit} of {column}": f"update sessions set {column} = ({column} | {1 << bit}) - ({column} & {1 << bit}) where key = :a"
       for column in ("expires_at", "version") for bit in (0, 1, 7, 20, 33, 62)},
    "no user": "update sessions set user = null where key = :a",
    "the user in the clear": "update sessions set user = 'ann' where key = :a",
    "another user": "update sessions set user = (select user from sessions where key = :b) || '0' where key = :a",
    "another's record": "update sessions set sealed = (select sealed from sessions where key = :b) where key = :a",
    "its own older record": "update sessions set sealed = :old where key = :a",
    "an unknown key": "update sessions set sealed = cast(replace(sealed, 'red', 'rad') as blob) where key = :a",
    "the other key": "update sessions set sealed = cast(x'0104' || cast('blue' as blob) || substr(sealed, 6) as blob) where key = :a",
    "cut": "update sessions set sealed = substr(sealed, 1, length(sealed) - 1) where key = :a",
    "cut in its head": "update sessions set sealed = substr(sealed, 1, 20) where key = :a",
    "emptied": "update sessions set sealed = x'' where key = :a",
    "longer": "update sessions set sealed = cast(sealed || x'00' as blob) where key = :a",
    "forged in the clear": "update sessions set sealed = :forged where key = :a",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGED)
async def test_a_changed_row_is_told_and_never_shown(cold: Subject, change: str) -> None:
    """A change anywhere in an encrypted row makes its session answer `integrity`, whatever is asked; all others serve."""
    with plain(cold.path) as file:
        (before,) = file.execute("select sealed from sessions where key = ?", (key("a"),)).fetchone()
        await cold.one(patch("a"))  # so that there is an older state
        forged = PLAIN.seal(b"", record_of(await cold.one(get("a"))))
        file.execute(CHANGED[change], {"a": key("a"), "b": key("b"), "old": before, "forged": forged})
    calls = [get("a"), get("a", True), create("a"), set_("a"), patch("a"), touch("a"), rotate("a", "new")]

    answers = await cold.ask(*calls, get("b"), patch("c"))
    listed = await cold.one(list_())
    after = await cold.ask(destroy("a"), get("a"), create("a"), get("a"))

    assert [INTEGRITY] * 7 + [("ok", 2), ("ok", 3)] == [brief(answer) for answer in answers]
    assert ("ok", sorted([key("b"), key("c")])) == brief(listed)
    assert [("ok",), ("missing",), ("ok", 1), ("ok", 1)] == [brief(answer) for answer in after]


@pytest.mark.parametrize("place", [0, 0.3, 0.9])
@pytest.mark.parametrize("column", ["key", "namespace"])
async def test_a_row_under_another_address_is_gone_from_its_own(cold: Subject, column: str, place: float) -> None:
    """A row whose key or namespace was changed is not where it was, as a removed one is, and nothing else is disturbed."""
    with plain(cold.path) as file:
        file.execute(flip(column, place), {"a": key("a")})
        moved = file.execute("select key from sessions where key not in (?, ?)", (key("b"), key("c"))).fetchone()

    answers = await cold.ask(get("a"), get("b"), get("c"))
    listed = await cold.one(list_())

    assert [("missing",), ("ok", 2), ("ok", 2)] == [brief(answer) for answer in answers]
    assert ("ok", sorted([key("b"), key("c")])) == brief(listed)
    assert moved is not None


async def test_rows_that_change_places_are_noticed(cold: Subject) -> None:
    """Of two rows whose keys, or whose whole contents beside the keys, were exchanged, neither opens."""
    with plain(cold.path) as file:
        rest = "kind, user, expires_at, version, sealed"
        a, b = (file.execute(f"select {rest} from sessions where key = ?", (key(name),)).fetchone() for name in "ab")
        for row, name in ((b, "a"), (a, "b")):
            file.execute(f"update sessions set ({rest}) = (?, ?, ?, ?, ?) where key = ?", (*row, key(name)))

    answers = await cold.ask(get("a"), get("b"), get("c"))

    assert [INTEGRITY, INTEGRITY, ("ok", 2)] == [brief(answer) for answer in answers]


async def test_a_whole_older_row_cannot_be_told_from_a_current_one(cold: Subject) -> None:
    """Who can write the file can put back a whole row as it once was; a seal says who wrote a row, not that it is the last."""
    with plain(cold.path) as file:
        before = file.execute("select * from sessions where key = ?", (key("a"),)).fetchone()
        await cold.one(patch("a"))
        file.execute(f"insert or replace into sessions values ({', '.join('?' * len(before))})", before)

    assert ("ok", 2) == brief(await cold.one(get("a")))


async def test_expiries_with_a_changed_user_tell_no_user(cold: Subject) -> None:
    """An expiry whose sealed user was changed or moved is told without a user."""
    await cold.ask(*[create(name, ttl=1, user=name) for name in ("x", "y", "z")])
    await cold.sweep_all(NOW + 1)
    with plain(cold.path) as file:
        file.execute(
            "update expiries set sealed = (select sealed from expiries where key = ?) where key = ?",
            (key("y"), key("x")),
        )
        file.execute("update expiries set sealed = x'00' where key = ?", (key("y"),))

    assert {key("x"): None, key("y"): None, key("z"): "z"} == {each.key: each.user for each in await cold.expired()}


# Starting --------------------------------------------------------------------------------------------


async def made(path: Path, *ids: str, number: int = 3) -> Subject:
    """A closed engine, with sessions 0, 1, 2… of ann under the first of those seals."""
    subject = await Subject(str(path), vault=vault(*ids)).open()
    await subject.ask(*[create(str(n), b'{"n":%d}' % n, user="ann") for n in range(number)])
    await subject.engine.close()
    return subject


REFUSED: dict[str, tuple[tuple[str, ...], Vault, str]] = {
    "encrypted, and no list": (("red",), PLAIN, "sealed under the key red, which is not in the key list: give encryption_keys"),
    "encrypted, and another key": (("red",), vault("blue"), "sealed under the key red, which is not in the key list"),
    "another key of the same id": (("red",), Vault([Key("red", b"x" * 32)]), "the key red in the key list is not the one"),
    "in the clear, and only keys": (("plain",), vault("red"), "holds sessions in the clear.*Put the line plain at the end"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_a_list_without_what_rows_need_is_refused(tmp_path: Path, case: str) -> None:
    """The daemon does not start without a key that rows may be under: the sentence says which line is missing. With it
    everything is there."""
    before, lacking, sentence = REFUSED[case]
    subject = await made(tmp_path / "s.db", *before)

    with pytest.raises(StartError, match=sentence) as refusal:
        await Subject(subject.url, vault=lacking).open()
    again = await Subject(subject.url, vault=vault(*before)).open()
    answers = await again.ask(get("0"), count("ann"))
    await again.engine.close()

    assert str(subject.path) in str(refusal.value)
    assert [("ok", 1), ("ok", 3)] == [brief(answer) for answer in answers]


async def test_a_lost_key_can_be_given_up(tmp_path: Path) -> None:
    """With its seal taken out of the file by hand, a start goes on without a key: its sessions answer `integrity`."""
    subject = await made(tmp_path / "s.db", "red", number=2)
    both = await Subject(subject.url, vault=vault("blue", "red")).open()
    await until(lambda: not progress(subject).old)
    await both.engine.close()
    with plain(subject.path) as file:
        file.execute(
            "update sessions set sealed = cast(replace(sealed, 'blue', 'grey') as blob) where key = ?", (key("0"),)
        )
        file.execute("insert into seals values ('grey', x'00')")

    with pytest.raises(StartError, match="under the key grey"):
        await Subject(subject.url, vault=vault("blue")).open()
    with plain(subject.path) as file:
        file.execute("delete from seals where id = 'grey'")
    again = await Subject(subject.url, vault=vault("blue")).open()
    answers = await again.ask(get("0"), get("1"))
    await again.engine.close()

    assert [INTEGRITY, ("ok", 1)] == [brief(answer) for answer in answers]


async def test_an_empty_file_takes_any_list(tmp_path: Path) -> None:
    """A new file begins under the first key, without `plain` in the list and without a walk."""
    subject = await Subject(str(tmp_path / "s.db"), vault=vault("red")).open()

    assert Progress("red", (), 0, 0, 0) == progress(subject)
    await subject.engine.close()


async def test_a_file_from_before_encryption_is_brought_under_a_key(tmp_path: Path) -> None:
    """A file of the first schema opens as it was, and with keys only where the list lets rows in the clear in."""
    path = tmp_path / "s.db"
    old = await made(path, "plain")
    with plain(path) as file:
        columns = "namespace, key, kind, user, expires_at, version, sealed"  # those of the first schema
        rows = file.execute(f"select {columns} from sessions").fetchall()
    path.unlink()
    with plain(path) as file:
        file.executescript(STEPS[0])
        file.execute(f"pragma application_id = {APPLICATION_ID}")
        file.execute("pragma user_version = 1")
        file.executemany(f"insert into sessions values ({', '.join('?' * len(rows[0]))})", rows)

    with pytest.raises(StartError, match="in the clear"):
        await Subject(str(path), vault=vault("red")).open()
    clear = await Subject(str(path)).open()
    as_it_was = await clear.ask(get("0"), count("ann"))
    await clear.engine.close()
    turned_on = await Subject(old.url, vault=vault("red", "plain")).open()
    await until(lambda: not progress(turned_on).old)
    encrypted = await turned_on.ask(get("0"), count("ann"))
    await turned_on.engine.close()

    assert as_it_was == encrypted
    assert [("ok", 1), ("ok", 3)] == [brief(answer) for answer in encrypted]


# From one seal to the next ---------------------------------------------------------------------------

TURNS = {
    "turned on": (("plain",), ("red", "plain")),
    "rotated": (("red",), ("blue", "red")),
    "turned off": (("red",), ("plain", "red")),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("how", ["at once", "after a restart"])
async def test_every_row_comes_under_the_first_seal(tmp_path: Path, turn: str, how: str) -> None:
    """Turning on, rotating and turning off keep every session, user, count and expiry; then the old seal is not needed."""
    before, after = TURNS[turn]
    subject = await Subject(str(tmp_path / "s.db"), cache_bytes=0, vault=vault(*before)).open()
    await fill(subject)
    questions = [*(get(str(n)) for n in range(400)), count(), list_(), *(count(f"{USER}{n}") for n in range(9)),
                 *(list_(f"{USER}{n}") for n in range(9))]  # fmt: skip
    expected = await subject.ask(*questions), await subject.expired()

    if how == "at once":
        await subject.engine.adopt(vault(*after))
    else:
        await subject.engine.close()
        subject.options = subject.options._replace(vault=vault(*after))
        await subject.open()
    half_way = []
    while progress(subject).old:
        half_way.append((await subject.ask(*questions[::7]), await subject.expired()))
    end = progress(subject)
    at_the_end = await subject.ask(*questions), await subject.expired()
    await subject.engine.adopt(vault(after[0]))
    with_one_key = await subject.ask(*questions), await subject.expired()
    if after[0] != "plain":
        assert [] == found_in(subject, *CANARIES)
    await subject.engine.close()

    assert half_way
    assert all((expected[0][::7], expected[1]) == found for found in half_way)
    assert expected == at_the_end == with_one_key
    assert (after[0], (), 0) == (end.current, end.old, end.damaged)
    assert end.done == end.total > 400
    assert end.total == subject.engine.figures.rekeyed - len(with_one_key[1])
    assert 0 == subject.engine.figures.rekey_left
    assert [] == subject.fatal


async def test_writes_go_on_behind_and_before_the_walk(tmp_path: Path) -> None:
    """What is created, changed, destroyed or rotated while the walk goes is as it was left, and under the first key."""
    subject = await Subject(str(tmp_path / "s.db"), cache_bytes=0, vault=vault("red")).open()
    number = 10 * BATCH_ROWS
    await subject.ask(*[create(str(n), b'{"n":0}', user="ann") for n in range(number)])

    await subject.engine.adopt(vault("blue", "red"))
    turn, gone = 0, 0
    while progress(subject).old:
        some = [str((turn * 37 + n * 101) % number) for n in range(5)]
        answers = await subject.ask(*[patch(name, b'{"n":1}') for name in some], create(f"new {turn}", user="ann"),
                                    destroy(f"new {turn - 1}"))  # fmt: skip
        assert {"ok"} == {answer.status for answer in answers}
        gone += turn > 0
        turn += 1
        assert ("ok", number + turn - gone) == brief(await subject.one(count("ann")))
    await subject.engine.adopt(vault("blue"))
    every = await subject.ask(*[get(str(n)) for n in range(number)])
    ended = brief(await subject.one(destroy_all("ann")))
    await subject.engine.close()

    assert turn > 3
    assert [(1 + data_of(answer)["n"] > 1) for answer in every] == [record_of(answer).version > 1 for answer in every]
    assert ("ok", number + 1) == ended


async def test_a_step_is_bounded_in_rows_and_bytes(tmp_path: Path) -> None:
    """One commit seals at most BATCH_ROWS rows anew, and no more than BATCH_BYTES unless a single row is larger."""
    subject = await Subject(str(tmp_path / "s.db"), vault=vault("red")).open()
    await subject.ask(*[create(f"large {n}", b"x" * (BATCH_BYTES // 2 - 500), "bytes") for n in range(6)])
    await subject.ask(*[create(f"small {n}") for n in range(2 * BATCH_ROWS + 1)])
    file: Any = subject.engine
    await file._file.adopt(vault("blue", "red"))

    async with file._writing:
        steps = [await file._file.reseal() for _ in range(8)]

    await subject.engine.close()

    assert [2, 2] == steps[:2]
    assert BATCH_ROWS == max(steps)
    assert (6 + 2 * BATCH_ROWS + 1, 0) == (sum(steps), steps[-1])


async def test_a_walk_goes_on_where_it_was(tmp_path: Path) -> None:
    """Closed half-way, the next start takes the walk up from its place; with yet another first key it begins again."""
    subject = await made(tmp_path / "s.db", "red", number=5 * BATCH_ROWS)
    half: Any = (await Subject(subject.url, vault=vault("blue", "red")).open()).engine
    await until(lambda: progress(subject).done > 0)
    await half.close()
    stopped = progress(subject)

    other = await Subject(subject.url, vault=vault("blue", "red")).open()
    begun = progress(subject)
    await until(lambda: not progress(subject).old)
    await other.engine.close()
    ended = progress(subject)
    back = await Subject(subject.url, vault=vault("red", "blue")).open()
    await until(lambda: not progress(subject).old)
    answers = await back.ask(*[get(str(n)) for n in range(5 * BATCH_ROWS)])
    await back.engine.close()

    assert 0 < stopped.done < stopped.total
    assert stopped.old == ("red",)
    assert begun.done >= stopped.done
    assert Progress("blue", (), 5 * BATCH_ROWS, 5 * BATCH_ROWS, 0) == ended
    assert list(range(5 * BATCH_ROWS)) == [data_of(answer)["n"] for answer in answers]


async def test_a_list_that_lacks_a_key_is_not_taken_up(tmp_path: Path) -> None:
    """While rows may be under a key, a list without it is refused and the old one goes on."""
    subject = await Subject(str(tmp_path / "s.db"), cache_bytes=0, vault=vault("red")).open()
    await subject.one(create("a", user="ann"))

    with pytest.raises(StartError, match="under the key red"):
        await subject.engine.adopt(vault("blue"))
    answers = await subject.ask(get("a"), patch("a"), count("ann"))
    await subject.engine.close()

    assert [("ok", 1), ("ok", 2), ("ok", 1)] == [brief(answer) for answer in answers]


async def test_damaged_rows_are_left_and_counted(tmp_path: Path) -> None:
    """A row that opens under no key does not stop the walk: it stays as it is, is counted, and answers `integrity`."""
    subject = await made(tmp_path / "s.db", "red", number=5)
    with plain(subject.path) as file:
        file.execute("update sessions set version = 9 where key = ?", (key("1"),))
        file.execute(
            "update sessions set sealed = cast(replace(sealed, 'red', 'rad') as blob) where key = ?", (key("2"),)
        )

    subject = await Subject(subject.url, vault=vault("blue", "red")).open()
    await until(lambda: not progress(subject).old)
    answers = await subject.ask(*[get(str(n)) for n in range(5)])
    end = progress(subject)
    await subject.engine.close()

    assert Progress("blue", (), 5, 5, 2) == end
    assert [("ok", 1), INTEGRITY, INTEGRITY, ("ok", 1), ("ok", 1)] == [brief(answer) for answer in answers]


async def test_a_walk_waits_for_a_disk_that_heals(tmp_path: Path) -> None:
    """When a step cannot be written the walk waits, and goes on once writing works."""
    subject = await made(tmp_path / "s.db", "red", number=BATCH_ROWS)
    subject = await Subject(subject.url, vault=vault("red", "blue")).open()
    writer: Any = subject.engine
    await writer._file.adopt(vault("blue", "red"))
    await writer._file._writer.execute_fetchall("pragma query_only = on")

    walk = asyncio.create_task(writer._reseal())
    for _ in range(50):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    during = progress(subject)
    await writer._file._writer.execute_fetchall("pragma query_only = off")
    await asyncio.wait_for(walk, 30 * RESEAL_AGAIN)
    end = progress(subject)
    await subject.engine.close()

    assert (0, ("red",)) == (during.done, during.old)
    assert (BATCH_ROWS, ()) == (end.done, end.old)


async def test_an_old_seal_is_struck_out_only_when_the_log_is_empty(tmp_path: Path) -> None:
    """While somebody reads, what the write-ahead log holds cannot go, and the old key is still said to be needed."""
    subject = await made(tmp_path / "s.db", "plain", number=BATCH_ROWS)
    subject = await Subject(subject.url, vault=vault("red", "plain")).open()
    with plain(subject.path) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from sessions").fetchone()
        await until(lambda: progress(subject).done == BATCH_ROWS)
        answers = await subject.ask(patch("0"), get("1"))
        during = progress(subject)
        reader.execute("commit")

    await until(lambda: not progress(subject).old)
    await subject.engine.close()

    assert ("plain",) == during.old
    assert [("ok", 2), ("ok", 1)] == [brief(answer) for answer in answers]


@pytest.mark.parametrize("call", [3, 11, 26, 42, 61, 90])
def test_a_killed_walk_goes_on(tmp_path: Path, call: int) -> None:
    """Killed at any of its writes, a walk is taken up by the next start, and no session is lost or damaged by it."""
    path = tmp_path / "s.db"
    number = 8 * BATCH_ROWS
    subject = asyncio.run(made(path, "plain", number=number))
    script = f"""
import asyncio
from tests.support import *
async def main():
    subject = await Subject({str(path)!r}, vault=Vault([RED, Clear()])).open()
    while subject.engine._resealing is not None:
        await asyncio.sleep(0.001)
    await subject.engine.close()
asyncio.run(main())
"""
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"]
    inject = ["-e", f"inject=pwrite64:signal=KILL:when={call}"]
    killed = subprocess.run([*strace, *inject, sys.executable, "-c", script], cwd=ROOT, check=False)

    async def look() -> tuple[list[Any], Progress]:
        again = await Subject(str(path), vault=vault("red", "plain")).open()
        await until(lambda: not progress(again).old)
        answers = [brief(answer) for answer in await again.ask(*[get(str(n)) for n in range(number)], count("ann"))]
        await again.engine.close()
        return answers, progress(again)

    answers, end = asyncio.run(look())

    assert -signal.SIGKILL == killed.returncode or killed.returncode == 128 + signal.SIGKILL
    assert [("ok", 1)] * number + [("ok", number)] == answers
    assert Progress("red", (), number, number, 0) == end
    assert [] == found_in(subject, b'{"n"')


# From outside ----------------------------------------------------------------------------------------


async def test_the_owner_of_a_file_is_known(tmp_path: Path) -> None:
    """owner_of names the process that has the file open, and None before and after."""
    path = tmp_path / "s.db"
    before = owner_of(path)
    subject = await Subject(str(path)).open()
    during = owner_of(path)
    await subject.engine.close()

    assert (None, os.getpid(), None) == (before, during, owner_of(path))


def test_the_progress_of_no_file_is_none(tmp_path: Path) -> None:
    """A file that is not there, or of another kind, tells nothing, and is not made."""
    (tmp_path / "other").write_text("no database")

    assert [None, None] == [progress_of(tmp_path / name) for name in ("none", "other")]
    assert not (tmp_path / "none").exists()
