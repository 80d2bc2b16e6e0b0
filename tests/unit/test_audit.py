"""The audit: which calls leave which lines, how a line is written, and what a file that cannot be written stops: nothing."""

import asyncio
import json
import logging
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessiond.audit import MAX_WAITING, Actor, Audit
from sessiond.calls import Call, Policy, handle_of
from sessiond.clock import AdjustableClock
from sessiond.engines import Options, open_engine
from sessiond.errors import StartError
from sessiond.store import Store
from tests.support import (
    NOW,
    TTL,
    count,
    create,
    destroy,
    destroy_all,
    fatal,
    get,
    key,
    list_,
    patch,
    rotate,
    set_,
    touch,
)

SHOP = Actor("shop", "192.0.2.7")
BY = {"token": "shop", "peer": "192.0.2.7"}


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[Audit]:
    audit = Audit(tmp_path / "audit.log", lambda: NOW)
    yield audit
    await audit.close()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def at(name: str) -> dict[str, str]:
    return {"namespace": "default", "key": handle_of(key(name))}


ONE = Policy(ttl=TTL, max_sessions_per_user=1)
FULL = Policy(ttl=TTL, max_sessions=1)
ANN = create("a", user="ann")

# what is done before, the call, and its lines but for time, seq and who
LINES: dict[str, tuple[list[Call], Call, list[dict[str, Any]]]] = {
    "create": ([], ANN, [{"event": "create", "outcome": "ok", **at("a"), "user": "ann"}]),
    "create where one lives": ([ANN], create("a"), [{"event": "create", "outcome": "exists", **at("a")}]),
    "set that creates": ([], set_("a", user="ann"), [{"event": "create", "outcome": "ok", **at("a"), "user": "ann"}]),
    "set": ([ANN], set_("a"), []),
    "get": ([ANN], get("a"), []),
    "patch": ([ANN], patch("a"), []),
    "touch": ([ANN], touch("a"), []),
    "list": ([ANN], list_(), []),
    "count": ([ANN], count(), []),
    "rotate": (
        [ANN],
        rotate("a", "b"),
        [{"event": "rotate", "outcome": "ok", **at("a"), "user": "ann", "new_key": handle_of(key("b"))}],
    ),
    "rotate of nothing": (
        [],
        rotate("a", "b"),
        [{"event": "rotate", "outcome": "missing", **at("a"), "new_key": handle_of(key("b"))}],
    ),
    "destroy": ([ANN], destroy("a"), [{"event": "destroy", "outcome": "ok", **at("a"), "user": "ann"}]),
    "destroy of nothing": ([], destroy("a"), [{"event": "destroy", "outcome": "missing", **at("a")}]),
    "destroy_all": (
        [ANN, create("b", user="ann")],
        destroy_all("ann", "b"),
        [
            {
                "event": "destroy_all",
                "outcome": "ok",
                "namespace": "default",
                "user": "ann",
                "count": 1,
                "except_key": handle_of(key("b")),
            }
        ],
    ),
    "destroy_all of everyone": (
        [ANN],
        destroy_all(),
        [{"event": "destroy_all", "outcome": "ok", "namespace": "default", "count": 1}],
    ),
    "eviction": (
        [ANN],
        create("b", user="ann", policy=ONE),
        [
            {"event": "create", "outcome": "ok", **at("b"), "user": "ann"},
            {"event": "evict", "outcome": "ok", **at("a"), "user": "ann"},
        ],
    ),
    "quota at create": ([ANN], create("b", policy=FULL), [{"event": "create", "outcome": "quota", **at("b")}]),
    "quota at set": ([ANN], set_("b", policy=FULL), [{"event": "set", "outcome": "quota", **at("b")}]),
}


@pytest.mark.parametrize("case", LINES)
async def test_each_call_leaves_its_lines(audit: Audit, tmp_path: Path, case: str) -> None:
    """One line for each create, rotate, destroy and destroy_all, whatever comes of it; one more for each eviction; none
    for what only reads or changes data, but where a limit refuses it."""
    before, call, expected = LINES[case]
    engine = await open_engine("memory:", Options(0, False, fatal))
    store = Store(engine, AdjustableClock(), {"default": Policy(ttl=TTL)})
    for each in before:
        await store.execute(each)
    store.audit = audit

    await store.execute(call, SHOP)

    await store.close()
    audit.tell("end")
    await _written(audit)
    *lines, _ = lines_of(tmp_path / "audit.log")
    stamp = {"time": "2027-01-15T08:00:00.000Z"}
    assert [{**stamp, "seq": n, **line, **BY} for n, line in enumerate(expected, 1)] == lines


async def _written(audit: Audit) -> None:
    if audit._writing is not None:
        await audit._writing


HOSTILE = 'a\n{"event":"forged"}\r\x1b[31m\u2028\u2029\x85\x9b2J\x00"\\é'


async def test_a_line_is_one_line_to_everybody(audit: Audit, tmp_path: Path) -> None:
    """Line ends of every kind, terminal sequences and quotes are escaped; what was told is what is read."""
    audit.tell("create", user=HOSTILE)
    await _written(audit)

    raw = (tmp_path / "audit.log").read_bytes()
    assert raw.isascii()
    assert 1 == len(raw.decode().splitlines())
    assert not {b for b in raw[:-1] if b < 32}
    assert HOSTILE == json.loads(raw)["user"]


async def test_the_file_is_its_owners(audit: Audit, tmp_path: Path) -> None:
    """It is made with mode 0600."""
    assert 0o600 == os.stat(tmp_path / "audit.log").st_mode & 0o777


async def test_what_is_told_in_one_turn_is_written_at_once(audit: Audit, tmp_path: Path) -> None:
    """Nothing is written where it is told; what gathers in a turn of the loop goes to the file together, in order."""
    for n in range(100):
        audit.tell("create", n=n)
    before = (tmp_path / "audit.log").read_bytes()
    await _written(audit)

    assert b"" == before
    assert [(n + 1, n) for n in range(100)] == [(line["seq"], line["n"]) for line in lines_of(tmp_path / "audit.log")]


async def test_a_moved_file_is_let_go(audit: Audit, tmp_path: Path) -> None:
    """After `reopen` lines go to the path again; what was told before it is in the file that was moved."""
    path, moved = tmp_path / "audit.log", tmp_path / "audit.log.1"
    path.rename(moved)

    audit.tell("one")
    audit.reopen()
    audit.tell("two")
    await _written(audit)

    assert ["one"] == [line["event"] for line in lines_of(moved)]
    assert ["two"] == [line["event"] for line in lines_of(path)]


async def test_a_path_that_is_gone_changes_nothing(
    audit: Audit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`reopen` that fails says so, and lines go on into the file that is open."""
    path, moved = tmp_path / "audit.log", tmp_path / "moved"
    path.rename(moved)
    path.mkdir()

    audit.reopen()
    audit.tell("one")
    await _written(audit)

    assert ["one"] == [line["event"] for line in lines_of(moved)]
    assert "goes on in the file that was open" in caplog.text


async def test_a_path_that_cannot_be_used_is_told_at_start(tmp_path: Path) -> None:
    """The sentence names the path and what would be right."""
    with pytest.raises(StartError, match=r"cannot write the audit to .*nowhere/audit.log: No such file or directory"):
        Audit(tmp_path / "nowhere" / "audit.log", lambda: NOW)


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Lets no file of this process grow any more, as a full disk does (SIGXFSZ is ignored by Python)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines wait while the file takes none, which the log says once; beyond their limit they are counted, and a line
    tells how many; a line that was written in part is completed."""
    monkeypatch.setattr("sessiond.audit.RETRY", 0.01)
    caplog.set_level(logging.INFO, "sessiond")
    path = tmp_path / "audit.log"
    audit = Audit(path, lambda: NOW)
    with full(path):
        audit.tell("first")
        while "cannot be written" not in caplog.text:
            await asyncio.sleep(0.01)
        for n in range(MAX_WAITING + 5):
            audit.tell("more", n=n)
        lost = audit.lost
    await _written(audit)
    audit.tell("last")
    await audit.close()

    lines = lines_of(path)
    assert 5 == lost
    assert ["first", *["more"] * MAX_WAITING, "lost", "last"] == [line["event"] for line in lines]
    assert 5 == lines[-2]["count"]
    assert list(range(1, len(lines) + 1)) == [line["seq"] for line in lines]
    assert 1 == caplog.text.count("cannot be written")
    assert 1 == caplog.text.count("is written again")
