"""Older files: what an earlier schema wrote is opened, brought up to date and then like any other."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sessiond import codec
from sessiond.calls import Policy
from sessiond.engines.sqlite.schema import APPLICATION_ID, STEPS
from sessiond.errors import StartError
from sessiond.record import Record, size_of
from sessiond.vault import Vault
from tests.support import HOUR, NOW, TTL, Subject, brief, count, create, data_of, get, key, rotate, set_, touch

RECORDS = {
    "a": Record(b'{"x":1}', "json", 3, TTL, NOW, NOW, NOW + TTL, user="änn", meta={"ip": "::1"}),
    "b": Record(b"\xff" * 5000, "bytes", 1, TTL, NOW, NOW, NOW + TTL, user="änn"),
    "c": Record(b"\x80", "msgpack", 1, 50, NOW, NOW, NOW + 50),
    "alias": Record(b"", "bytes", 3, HOUR, NOW, NOW, NOW + HOUR, target=key("a")),
}


def write_schema_1(path: Path, records: dict[str, Record], damaged: Sequence[str] = ()) -> None:
    """A file as schema 1 left it, by its own statements."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.executescript(
            f"begin; pragma application_id = {APPLICATION_ID}; {STEPS[0]} pragma user_version = 1; commit;"
        )
        for name, record in records.items():
            kind = 1 if record.target is None else 2
            columns = ("default", key(name), kind, record.user, record.expires_at, record.version)
            sealed = Vault().seal(codec.pack(columns), record)
            sealed = b"\x00" + sealed[1:-1] + b"?" if name in damaged else sealed
            file.execute("insert into sessions values (?, ?, ?, ?, ?, ?, ?)", (*columns, sealed))
        file.execute("insert into expiries (namespace, key, user, expired_at) values ('old', ?, null, 7)", (key("z"),))


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute(sql).fetchall()


async def test_a_file_of_schema_1_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its sessions, aliases and expiries are there, and its bytes are known to the byte."""
    write_schema_1(tmp_path / "sessions.db", RECORDS)
    living = sum(size_of(RECORDS[name]) for name in "ab")
    limits = Policy(ttl=TTL, max_bytes=living + 10)

    subject = await Subject(str(tmp_path / "sessions.db")).open()
    answers = await subject.ask(*[get(name) for name in ("a", "b", "c", "alias")], count(), count("änn"), now=NOW + 49)
    grown = await subject.ask(
        create("d", b"x" * 11, "bytes", policy=limits),
        create("d", b"x" * 10, "bytes", policy=limits),
        set_("b", b"", "bytes", policy=limits),
        touch("b"),
        rotate("a", "r"),
        now=NOW + 50,
    )
    told = await subject.expired()
    swept = await subject.sweep_all(NOW + 50)
    put_off = rows(tmp_path / "sessions.db", "select count(*) from sessions where due = 0 and kind = 1")
    await subject.engine.close()

    assert (1, [(0,)]) == (swept, put_off)
    assert [("ok", 3), ("ok", 1), ("ok", 1), ("ok", 3), ("ok", 3), ("ok", 2)] == [brief(answer) for answer in answers]
    assert {"x": 1} == data_of(answers[0])
    assert [("failed", "quota"), ("ok", 1), ("ok", 2), ("ok", 2), ("ok", 3)] == [brief(answer) for answer in grown]
    assert [("old", key("z"), None, 7, "expired")] == [
        (e.namespace, e.key, e.user, e.expired_at, e.reason) for e in told
    ]
    assert [(len(STEPS),)] == rows(tmp_path / "sessions.db", "pragma user_version")
    kept = "select sessions, bytes from tallies where user = ''"
    assert rows(tmp_path / "sessions.db", "select count(*), sum(size) from sessions where kind = 1") == rows(
        tmp_path / "sessions.db", kept
    )


async def test_a_damaged_row_of_schema_1_stops_nothing(tmp_path: Path) -> None:
    """It is told when somebody asks for it, as before, and counts no bytes."""
    write_schema_1(tmp_path / "sessions.db", RECORDS, damaged=["b"])

    subject = await Subject(str(tmp_path / "sessions.db")).open()
    answers = await subject.ask(get("a"), get("b"))
    await subject.engine.close()

    assert [("ok", 3), ("failed", "integrity")] == [brief(answer) for answer in answers]


async def test_a_damaged_text_in_schema_1_stops_nothing(tmp_path: Path) -> None:
    """A user that is no UTF-8 any more costs his session, and not the start of the daemon."""
    write_schema_1(tmp_path / "sessions.db", RECORDS)
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as file, file:
        file.execute("update sessions set user = cast(x'ff' as text) where key = ?", (key("b"),))

    subject = await Subject(str(tmp_path / "sessions.db")).open()
    answers = await subject.ask(get("a"), get("b"))
    await subject.engine.close()

    assert [("ok", 3), ("failed", "integrity")] == [brief(answer) for answer in answers]


async def test_an_older_file_with_a_damaged_page_is_left_as_it_is(tmp_path: Path) -> None:
    """What cannot be brought up to date is not begun: the sentence says so, and who wrote the file can go on with it."""
    path = tmp_path / "sessions.db"
    write_schema_1(path, {str(n): RECORDS["a"] for n in range(100)})
    with closing(sqlite3.connect(path)) as file:
        (root,) = file.execute("select rootpage from sqlite_schema where name = 'sessions'").fetchone()
        (size,) = file.execute("pragma page_size").fetchone()
    raw = bytearray(path.read_bytes())
    leaf = int.from_bytes(raw[(root - 1) * size + 8 :][:4], "big")  # the last one
    raw[(leaf - 1) * size : leaf * size] = bytes(size)
    path.write_bytes(raw)

    with pytest.raises(
        StartError, match=r"cannot be brought up to date: .*: the sessiond that wrote it opens it still"
    ):
        await Subject(str(path)).open()

    assert [(1,)] == rows(path, "pragma user_version")
    assert [("sessions",)] == rows(path, "select tbl_name from sqlite_schema where name = 'sessions_by_expiry'")


async def test_a_step_that_fails_takes_back_those_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is behind by several steps is brought up to date by all of them or none."""
    path = tmp_path / "sessions.db"
    write_schema_1(path, RECORDS)
    monkeypatch.setattr("sessiond.engines.sqlite.file.STEPS", (*STEPS, "create table sessions (no integer);"))

    with pytest.raises(StartError, match="It holds what it held"):
        await Subject(str(path)).open()

    assert [(1,)] == rows(path, "pragma user_version")


@pytest.mark.parametrize("column", ["size = size + 1", "size = 0"])
async def test_a_wrong_size_is_damage(tmp_path: Path, column: str) -> None:
    """A row whose size is not that of its record is not what was written."""
    path = tmp_path / "sessions.db"
    subject = await Subject(str(path)).open()
    await subject.ask(create("a"))
    await subject.engine.close()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(f"update sessions set {column}")

    subject = await Subject(str(path)).open()
    answer = await subject.one(get("a"))
    await subject.engine.close()

    assert ("failed", "integrity") == brief(answer)
