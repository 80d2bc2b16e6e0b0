"""The stream, from the daemon's side: the golden files, the order of answers, limits, and how it ends."""

import asyncio
import hashlib
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sessiond import codec
from sessiond.calls import (
    DEFAULT_PAGE,
    Call,
    Count,
    Create,
    Destroy,
    DestroyAll,
    Get,
    List,
    Patch,
    Policy,
    Rotate,
    Set,
    Touch,
    Watch,
)
from sessiond.clock import Clock
from sessiond.engine import Entry
from sessiond.engines import Options, open_engine
from sessiond.events import Event
from sessiond.http import wire
from sessiond.http.app import HttpApp
from sessiond.http.stream import _groups, _parts
from sessiond.record import Answer, Record
from sessiond.store import Store
from tests.http.support import Closed, Daemon, Stream, wait_until

PROTOCOL = Path(__file__).parents[1] / "protocol"
MIB = 1024 * 1024


def golden(name: str, kind: str = "messages") -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in json.loads((PROTOCOL / name).read_text())[kind]]


def plain(value: Any) -> Any:
    """A value of a golden file with its `{"hex": …}` turned into bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if value.keys() == {"hex"} else {k: plain(v) for k, v in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@pytest.fixture
def stream(daemon: Daemon) -> Iterator[Stream]:
    with Stream(daemon.host, daemon.port) as stream:
        yield stream


# The golden files ----------------------------------------------------------------------------------------

POLICY = Policy()

VERBS: dict[str, type[Call | Watch]] = {
    "create": Create,
    "get": Get,
    "set": Set,
    "patch": Patch,
    "touch": Touch,
    "rotate": Rotate,
    "destroy": Destroy,
    "list": List,
    "count": Count,
    "destroy_all": DestroyAll,
    "watch": Watch,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "create": {"ttl": POLICY.ttl, "lifetime": None, "user": None, "meta": None, "op": None},
    "get": {"renew": None},
    "set": {"when": "any", **dict.fromkeys(("ttl", "lifetime", "user", "meta", "op"))},
    "patch": {"changes": None, "remove": (), **dict.fromkeys(("ttl", "user", "meta", "op"))},
    "touch": {"ttl": None},
    "rotate": {"grace": 0, "op": None},
    "destroy": {},
    "list": {"user": None, "cursor": None, "limit": DEFAULT_PAGE},
    "count": {"user": None},
    "destroy_all": {"user": None, "except_key": None},
    "watch": {"after": None},
}


def call_of(row: dict[str, Any]) -> Call | Watch:
    """The call that a row of calls.json describes."""
    given = plain({name: value for name, value in row.items() if name not in ("seq", "verb", "everyone")})
    fields = {**DEFAULTS[row["verb"]], **given}
    if "key" in fields:
        fields["address"] = ("default", fields.pop("key"))
    else:
        fields["namespace"] = "default"
    if row["verb"] == "set":
        fields |= {"new_ttl": fields["ttl"] or POLICY.ttl, "new_lifetime": fields["lifetime"]}
    if row["verb"] == "patch":
        fields["changes"] = fields.pop("set", None)
        fields |= {"remove": tuple(fields["remove"]), "max_data": POLICY.max_data}
    return VERBS[row["verb"]](**fields)


@pytest.mark.parametrize("row", golden("calls.json"))
def test_a_golden_message_is_read_as_its_calls(row: dict[str, Any]) -> None:
    """Every message of calls.json is read as the calls that stand beside it."""
    read = wire.read_message(bytes.fromhex(row["hex"]), "default", POLICY)

    assert [(call["seq"], call_of(call)) for call in row["calls"]] == read


def written(row: dict[str, Any]) -> list[Any]:
    """How the daemon writes the answer that a row of answers.json describes."""
    fields = plain(row)
    status = fields["status"]
    if fields["verb"] == "watch":
        return wire.watching_fields(fields["seq"], fields["after"])
    call: Call = Get(("default", b"\0" * 32)) if fields["verb"] == "get" else Count("default", None)
    if fields["verb"] == "list":
        call = List("default", None, None, 100)
        entries = tuple(Entry(**entry) for entry in fields["entries"])
        return wire.answer_fields(fields["seq"], call, Answer(status, value=(entries, fields["cursor"])))
    if status in ("refused", "failed"):
        return wire.answer_fields(fields["seq"], call, Answer(status, value=(fields["code"], fields["text"])))
    if "version" in fields:
        filler = {"data": b"", "format": "bytes", "created_at": 0}
        kept = {name: fields[name] for name in Record.__struct_fields__ if name in fields}
        record = Record(**{**filler, **kept, "renewed_at": 0})
        return wire.answer_fields(fields["seq"], call, Answer(status, record))
    return wire.answer_fields(fields["seq"], call, Answer(status, value=fields.get("number")))


@pytest.mark.parametrize("row", golden("answers.json"))
def test_a_golden_answer_is_written_byte_for_byte(row: dict[str, Any]) -> None:
    """The daemon's bytes for the answers of answers.json are the golden ones."""
    message = [[0, each["event"]] if each["seq"] == 0 else written(each) for each in row["answers"]]

    assert row["hex"] == codec.pack(message).hex()


@pytest.mark.parametrize("row", [row for row in golden("answers.json", "pushes") if row.id in ("ended", "gap")])
def test_a_golden_event_is_written_byte_for_byte(row: dict[str, Any]) -> None:
    """The daemon's bytes for the events of answers.json are the golden ones."""
    events = [Event(*push[1:]) for push in plain(row["pushes"])]

    assert row["hex"] == codec.pack([wire.event_fields(event) for event in events]).hex()


@pytest.mark.parametrize("row", golden("refused.json"))
def test_a_golden_mistake_is_refused_and_nothing_is_carried_out(empty: Daemon, row: dict[str, Any]) -> None:
    """Each message of refused.json gets its codes, or closes the stream with its code; the sessions stay as they were."""
    message = bytes.fromhex(row["hex"])
    if then := row.get("then"):
        message += bytes.fromhex(then["repeat"]) * then["times"]
    keys = [key("a"), bytes.fromhex("179c3519315ac2fdeb9aaf5c8824a2f01aa464b3b90cdee98131be44ecce8f39")]
    with Stream(empty.host, empty.port) as watch, Stream(empty.host, empty.port) as stream:
        watch.ask(*(["set", each, "json", b'{"n":1}', 60_000] for each in keys))
        before = watch.ask(*(["get", each] for each in keys), ["count"])

        stream.send(message)
        if "close" in row:
            with pytest.raises(Closed) as closed:
                stream.receive()
            assert row["close"] == closed.value.code
        else:
            _, payload = stream.receive()
            found = [
                dict(zip(("seq", "status", "code"), each, strict=False)) for each in msgspec.msgpack.decode(payload)
            ]
            assert row["answers"] == found

        assert before == watch.ask(*(["get", each] for each in keys), ["count"])


# Calls and answers ---------------------------------------------------------------------------------------


def test_calls_of_a_message_take_effect_in_their_order(stream: Stream) -> None:
    """In one message, each call finds what those before it left."""
    at = key("order")
    answers = stream.ask(
        ["get", at],
        ["create", at, "json", b'{"n":1}', 60_000],
        ["create", at, "json", b'{"n":2}', 60_000],
        ["set", at, "json", b'{"n":3}', None, 1],
        ["set", at, "json", b'{"n":4}', None, 1],
        ["get", at],
        ["patch", at, "json", b'{"m":5}'],
        ["destroy", at],
        ["get", at],
        ["set", at, "json", b"{}", None, "alive"],
    )

    assert [answer[0] for answer in answers] == [
        *("missing", "ok", "exists", "ok", "conflict", "ok", "ok", "ok", "missing", "missing")
    ]
    assert answers[4][5] == b'{"n":3}'  # the current session, as get answers it
    assert (answers[5][1], answers[5][5]) == (2, b'{"n":3}')


def test_calls_of_many_messages_take_effect_in_their_order(stream: Stream) -> None:
    """A connection that does not wait for answers still has its calls carried out in the order sent."""
    at = key("messages")
    sent = [stream.call(["set", at, "json", b'{"n":%d}' % n]) + stream.call(["get", at]) for n in range(300)]

    for n, seqs in enumerate(sent):
        (status, version, *_), got = stream.answers(seqs)
        assert (status, version) == ("ok", n + 1)
        assert got[5] == b'{"n":%d}' % n


def test_every_call_of_a_large_message_is_answered_once(stream: Stream) -> None:
    """5,000 calls in one message have 5,000 answers, and they come in fewer messages than calls."""
    seqs = stream.call(*(["set", key(f"many{n}"), "json", b"{}", 60_000] for n in range(5000)))
    messages = 0
    found: list[Any] = []
    while len(found) < len(seqs):
        _, payload = stream.receive()
        messages += 1
        found += msgspec.msgpack.decode(payload)

    assert sorted(answer[0] for answer in found) == seqs
    assert {answer[1] for answer in found} == {"ok"}
    assert messages < 100


def test_large_answers_are_spread_over_messages(stream: Stream) -> None:
    """1,000 gets of 60 KB come in messages of about 1 MiB, far below what a client may refuse."""
    at = key("large")
    stream.ask(["set", at, "bytes", b"x" * 60_000, 60_000])

    seqs = stream.call(*([["get", at]] * 1000))
    sizes: list[int] = []
    found: list[Any] = []
    while len(found) < 1000:
        _, payload = stream.receive()
        sizes.append(len(payload))
        found += msgspec.msgpack.decode(payload)

    assert sorted(answer[0] for answer in found) == seqs
    assert max(sizes) < 1.2 * MIB


def test_what_one_commit_answers_becomes_bytes_as_it_is_taken(tmp_path: Path) -> None:
    """3,000 gets of 60 KB that wait for one commit cost the daemon the bytes of a part of them, and a daemon that stops
    closes behind the last."""
    daemon = Daemon(data=str(tmp_path / "sessions.db"))
    try:
        before = peak_memory(daemon)
        with Stream(daemon.host, daemon.port) as stream:
            at = key("large")
            seqs = stream.call(["set", at, "bytes", b"x" * 60_000], *([["get", at]] * 3000))
            found = [seq for seq, *_ in msgspec.msgpack.decode(stream.receive()[1])]
            daemon.process.send_signal(signal.SIGTERM)
            try:
                while True:
                    found += [seq for seq, *_ in msgspec.msgpack.decode(stream.receive()[1]) if seq]
            except Closed as closed:
                code = closed.code
            peak = peak_memory(daemon)
    finally:
        daemon.stop()

    assert (sorted(found), code) == (seqs, 1001)
    assert peak - before < 100 * MIB


def peak_memory(daemon: Daemon) -> int:
    """The most bytes that the daemon has held so far."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_long_listings_are_spread_over_messages() -> None:
    """Eight pages of 1,000 sessions with all the meta they can have, ready at once, stay below 16 MiB a message."""
    daemon = Daemon(data="memory:")
    try:
        with Stream(daemon.host, daemon.port) as stream:
            meta = {"agent": "x" * 4090}
            stream.ask(*(["create", key(f"{n}"), "json", b"{}", 60_000, None, "ada", meta] for n in range(1000)))
            seqs = stream.call(*([["list", "ada", None, 1000]] * 8))
            sizes: list[int] = []
            found: list[Any] = []
            while len(found) < 8:
                _, payload = stream.receive()
                sizes.append(len(payload))
                found += msgspec.msgpack.decode(payload)
    finally:
        daemon.stop()

    assert sorted(answer[0] for answer in found) == seqs
    assert {len(answer[2]) for answer in found} == {1000}
    assert max(sizes) < 16 * MIB


def test_one_seq_used_twice_has_two_answers(stream: Stream) -> None:
    """The daemon gives each call its answer, whatever its client calls it."""
    stream.send(msgspec.msgpack.encode([[7, "count"], [7, "nonsense"]]))

    found: list[Any] = []
    while len(found) < 2:
        found += msgspec.msgpack.decode(stream.receive()[1])

    assert sorted((seq, status) for seq, status, *_ in found) == [(7, "ok"), (7, "refused")]


def test_an_empty_message_is_nothing(stream: Stream) -> None:
    """[] asks for nothing, and is answered by nothing; the stream goes on."""
    stream.send(b"\x90")

    assert stream.ask(["get", key("nobody")]) == [["missing"]]


# The connection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "headers", "status"),
    [
        ("sessiond.1", "", 101),
        ("other, sessiond.1", "", 101),
        (None, "", 400),
        ("sessiond.2", "", 400),
        ("sessiond.10", "", 400),
        ("SESSIOND.1", "", 400),
        ("sessiond.1", "Origin: http://localhost\r\n", 403),
    ],
)
def test_the_handshake_asks_for_the_sub_protocol(
    daemon: Daemon, protocol: str | None, headers: str, status: int
) -> None:
    """Without sub-protocol sessiond.1 the handshake is 400, and from a web page 403; the log keeps quiet about it."""
    with Stream(daemon.host, daemon.port, protocol, headers) as stream:
        assert status == stream.status

    assert "sessiond.2" not in daemon.log


@pytest.mark.parametrize(
    ("payload", "opcode", "code"),
    [
        (b"[]", Stream.TEXT, 1003),
        (b"", Stream.TEXT, 1003),
        (b"\xff", Stream.TEXT, 1007),  # no UTF-8
        (b"\x90" + b"\0" * (16 * MIB), Stream.BINARY, 1009),
        (b"\xdc\x27\x11" + b"\x93\x01\xa5count\xc0" * 10_001, Stream.BINARY, 1009),
        (b"\xc0", Stream.BINARY, 1007),
        (b"\x90", 3, 1002),  # an opcode that does not exist
    ],
    ids=["text", "empty-text", "bad-text", "over-16-MiB", "10001-calls", "nil", "opcode"],
)
def test_a_wrong_message_closes_the_stream(stream: Stream, payload: bytes, opcode: int, code: int) -> None:
    """Text is 1003, more than 16 MiB or 10,000 calls is 1009, no array of calls is 1007, and what is no WebSocket is 1002."""
    with suppress(ConnectionError):
        stream.send(payload, opcode)

    with pytest.raises(Closed) as closed:
        stream.receive()
    assert code == closed.value.code


def test_a_message_of_16_mib_is_read(stream: Stream) -> None:
    """A message just under 16 MiB, in fragments, is carried out."""
    call = [1, "set", key("fragments"), "bytes", b"x" * 65_536]
    calls = msgspec.msgpack.encode([[n + 1, *call[1:]] for n in range(255)])
    half = len(calls) // 2

    stream.send(calls[:half], last=False)
    stream.send(b"between", Stream.PING)
    stream.send(calls[half:], opcode=0)

    assert stream.receive() == (Stream.PONG, b"between")
    assert len(calls) > 15.9 * MIB
    assert {answer[0] for answer in stream.answers(range(1, 256))} == {"ok"}


def test_calls_may_come_with_the_handshake(daemon: Daemon) -> None:
    """Be they more than is read at a time: each is answered, once the handshake is."""
    calls = msgspec.msgpack.encode([[n, "get", key(f"early{n}")] for n in range(1, 8001)])
    sent = b"\x82\xff" + len(calls).to_bytes(8) + b"\0\0\0\0" + calls

    with Stream(daemon.host, daemon.port, behind=sent) as stream:
        assert {tuple(answer) for answer in stream.answers(range(1, 8001))} == {("missing",)}


def test_nothing_goes_out_behind_a_close(stream: Stream) -> None:
    """A write whose commit comes later than the close is carried out, and its answer is not sent any more."""
    stream.send(msgspec.msgpack.encode([[1, "set", key("late"), "json", b"{}"]]))
    stream.send(b"text", Stream.TEXT)

    assert stream.until_closed()[1] == 1003
    stream.line.shutdown(socket.SHUT_WR)
    assert stream.line.recv(1) == b""


def test_a_ping_has_its_pong(stream: Stream) -> None:
    """A ping is answered with its own payload, also between calls."""
    stream.send(b"are you there?", Stream.PING)

    assert stream.receive() == (Stream.PONG, b"are you there?")


def test_a_closing_client_is_let_go(stream: Stream) -> None:
    """A close frame is answered with one of the same code."""
    stream.send((1000).to_bytes(2), Stream.CLOSE)

    with pytest.raises(Closed) as closed:
        stream.receive()
    assert closed.value.code == 1000


def test_a_client_that_vanishes_leaves_nothing_behind(daemon: Daemon) -> None:
    """Streams cut off in the middle of a frame, or with answers due, are forgotten; the daemon logs nothing about them."""
    for _ in range(20):
        stream = Stream(daemon.host, daemon.port)
        stream.call(*(["set", key(f"cut{n}"), "json", b"{}"] for n in range(100)))
        stream.line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # closes with a reset
        stream.line.sendall(b"\x82\xfe")
        stream.line.close()

    wait_until(lambda: b"sessiond_stream_connections 0.0" in daemon.ask("GET", "/metrics").body)
    assert "Traceback" not in daemon.log


def test_a_client_that_stops_reading_is_not_read_from(daemon: Daemon) -> None:
    """A client that sends gets of 60 KB and reads nothing is stopped by its own full line, at a bounded price in memory.

    Everybody else is served meanwhile, and the client has all its answers when it reads at last.
    """
    with Stream(daemon.host, daemon.port) as stream:
        at = key("unread")
        stream.ask(["set", at, "bytes", b"x" * 60_000, 60_000])
        before = daemon.memory()
        sent: list[int] = []
        stream.line.settimeout(1.0)
        gets = [["get", at]] * 50
        with suppress(TimeoutError):
            while len(sent) < 500_000:  # 30 GB of answers, if nothing stopped it
                sent += stream.call(*gets)

        assert daemon.memory() - before < 64 * MIB
        assert daemon.ask("GET", "/healthz").status == 200
        assert 0 < len(sent) < 500_000


# Stopping ------------------------------------------------------------------------------------------------


def test_a_stopping_daemon_answers_what_was_sent(tmp_path: Path) -> None:
    """On SIGTERM the stream is told `stopping`, answers what came before, refuses what comes after, and closes with 1001."""
    daemon = Daemon(data=str(tmp_path / "s.db"))
    try:
        with Stream(daemon.host, daemon.port) as stream:
            sets = [["set", key(f"stop{n}"), "json", b"{}", 60_000] for n in range(2000)]
            asked, *seqs = stream.call(["get", key("nobody")], *sets)
            first = msgspec.msgpack.decode(stream.receive()[1])  # so the daemon has the message
            daemon.process.send_signal(signal.SIGTERM)
            late = stream.call(["get", key("late")])
            found, closed = stream.until_closed()
            stream.send((1001).to_bytes(2), Stream.CLOSE)
    finally:
        code = daemon.wait()

    answers = {seq: answer for seq, *answer in first + found if seq}
    assert answers[asked] == ["missing"]
    assert [0, "stopping"] in found
    assert {answers[seq][0] for seq in seqs} == {"ok"}
    assert answers.get(late[0], ["missing"])[0:2] in (["missing"], ["failed", "stopping"])
    assert (closed, code) == (1001, 0)


def test_a_stopping_daemon_waits_for_no_client_for_ever(tmp_path: Path) -> None:
    """A client that neither reads nor answers the close holds a stopping daemon up for no longer than the drain."""
    daemon = Daemon("--drain", "0.5", data=str(tmp_path / "s.db"))
    with Stream(daemon.host, daemon.port) as stream:
        stream.ask(["set", key("stuck"), "bytes", b"x" * 60_000])
        stream.call(*([["get", key("stuck")]] * 1000))

        assert daemon.stop(timeout=5) == 0


# Its price -----------------------------------------------------------------------------------------------


async def test_a_get_from_the_cache_makes_no_task(tmp_path: Path) -> None:
    """A cached get is answered where it is read. The counter that shows it also counts the task of a list."""
    engine = await open_engine(str(tmp_path / "s.db"), Options(MIB, False, pytest.fail))
    store = Store(engine, Clock(), {"default": POLICY})
    runner = HttpApp(store, None).runner(1)
    await runner.setup()
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> asyncio.Task[Any]:
        made.append(str(coroutine))
        return asyncio.Task(coroutine, loop=loop, **named)

    try:
        line = socket.create_server(("127.0.0.1", 0))
        await asyncio.get_running_loop().create_server(runner.server, sock=line)  # type: ignore[arg-type]
        stream = await asyncio.to_thread(Stream, *line.getsockname())
        await asyncio.to_thread(stream.ask, ["set", key("cached"), "json", b"{}"])

        asyncio.get_running_loop().set_task_factory(factory)
        answers = [await asyncio.to_thread(stream.ask, ["get", key("cached"), True]) for _ in range(50)]
        for_gets = list(made)
        await asyncio.to_thread(stream.ask, ["list"])
    finally:
        asyncio.get_running_loop().set_task_factory(None)
        stream.line.close()
        line.close()
        await runner.cleanup()
        await store.close()

    assert {answer[0][0] for answer in answers} == {"ok"}
    assert for_gets == []
    assert len(made) == 1


def test_groups_of_answers_stay_far_below_what_a_client_may_refuse() -> None:
    """Whatever the answers hold, data, a user, meta or entries, no message of them comes near 16 MiB."""
    meta = {f"{n:032}": "x" * 96 for n in range(32)}
    answers: list[list[Any]] = [
        *([seq, "ok", 1, 2, 3, "json", b"{}", 4, None, "u" * 255, meta] for seq in range(1, 6001)),
        *([seq, "ok", 1, 2, 3, "bytes", b"x" * 65_536, 4, None, None, None] for seq in range(1, 301)),
    ]

    groups = list(_groups(answers))

    assert answers == [answer for group in groups for answer in group]
    assert max(len(codec.pack(group)) for group in groups) < 2 * MIB


def test_messages_are_carried_out_in_parts() -> None:
    """A part has 256 calls at most, and what may be answered at length ends one; their order stays."""
    get, survey = Get(("default", b"k" * 32)), List("default", None, None, 1000)
    calls: list[tuple[int, Any]] = [(seq, survey if seq in (3, 4, 700) else get) for seq in range(1, 1001)]

    parts = list(_parts(calls))

    assert calls == [call for part in parts for call in part]
    assert [3, 1, 256, 256, 184, 256, 44] == [len(part) for part in parts]


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of the test's own, with a file."""
    daemon = Daemon(data=str(tmp_path / "s.db"))
    yield daemon
    assert daemon.stop() == 0, daemon.log


def test_a_client_that_is_gone_leaves_no_answers_behind(durable: Daemon) -> None:
    """A message of long listings whose sender does not wait costs the daemon no more than a few of their answers."""
    meta = {f"{n:02}": "x" * 100 for n in range(32)}
    keys = [n.to_bytes(2) * 16 for n in range(800)]
    with Stream(durable.host, durable.port) as stream:
        stream.ask(*(["create", key, "json", b"{}", None, None, None, meta] for key in keys))
    before = durable.memory()
    with Stream(durable.host, durable.port) as stream:
        stream.call(*([["list", None, None, 1000]] * 1000))

    for _ in range(40):
        assert durable.ask("GET", "/v1/sessions/count").json == {"count": 800}

    assert durable.memory() - before < 150 * MIB
