"""Connections: what is kept open, what is closed, and how long anybody may take."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from hashlib import sha256
from typing import NamedTuple

import msgspec
import pytest
from aiohttp import web

from sessiond.calls import Policy
from sessiond.clock import Clock
from sessiond.engines import Options, open_engine
from sessiond.http import listener, stream
from sessiond.http.app import HttpApp
from sessiond.http.bounds import Bounds
from sessiond.store import Store
from sessiond_client import AsyncClient
from tests.http.support import Closed, Daemon, Reply, Stream, read_all, replies, wait_until
from tests.tools import require

HOST = b"Host: localhost\r\n"
CREATE = b"POST /v1/sessions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
WHOLE = CREATE + b"Content-Length: 2\r\n\r\n{}"


def statuses(raw: bytes) -> list[int]:
    return [reply.status for reply in replies(raw)]


def test_pipelined_requests_are_answered_in_order(daemon: Daemon) -> None:
    """A hundred requests in one packet have a hundred answers, each its own."""
    puts = [b"PUT /v1/sessions/pipe%d HTTP/1.1\r\n" % n + WHOLE.partition(b"\r\n")[2] for n in range(50)]
    gets = [b"GET /v1/sessions/pipe%d HTTP/1.1\r\n" % n + HOST + b"\r\n" for n in range(49)]

    assert statuses(daemon.raw(b"".join([*puts, *gets, LAST]))) == [201] * 50 + [200] * 50


@pytest.mark.parametrize(
    "wrong",
    [
        b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n",
        b"PUT /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
        CREATE + b"Content-Length: 1\r\n\r\n[",
        CREATE.replace(b"json", b"xml") + b"Content-Length: 2\r\n\r\n{}",
        GET.replace(b"localhost", b"evil.example"),
        CREATE + b"Content-Length: 2\r\nExpect: cake\r\n\r\n{}",
        GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ],
    ids=["404", "405", "400", "415", "421", "417", "upgrade"],
)
def test_a_refusal_keeps_the_connection(daemon: Daemon, wrong: bytes) -> None:
    """Where the next request begins is known, so it is served on the same connection."""
    found = statuses(daemon.raw(wrong + WHOLE + LAST))

    assert len(found) == 3
    assert found[1:] == [201, 200]


@pytest.mark.parametrize(
    "chunks",
    [
        [b"1\r\n{\r\n", b"ZZ\r\n"],
        [b"1\r\n{", b"}\r\n"],
        [b"-1\r\n"],
        [b"F" * 17 + b"\r\n"],
        [b"2\r\n{}\r\n0\r\n", b"a b\r\n\r\n"],
    ],
)
def test_a_wrong_chunk_in_a_later_packet_is_told(daemon: Daemon, chunks: list[bytes]) -> None:
    """An error in the middle of a body ends the request at once with one 400, not after its deadline."""
    with daemon.connect(timeout=5) as line:
        line.sendall(CREATE + b"Transfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            wait_for_it(daemon)
            line.sendall(chunk)
        (reply,) = replies(read_all(line))

    assert (reply.status, reply.code) == (400, "bad_http")


def wait_for_it(daemon: Daemon) -> None:
    """Returns when the daemon has read what was sent before: it reads in turn."""
    assert daemon.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_has_said_everything_is_answered(daemon: Daemon, requests: int) -> None:
    """A client that shuts its side down after its requests (`nc -N`) gets every answer, and then the end."""
    assert statuses(daemon.raw(WHOLE * requests, half_close=True)) == [201] * requests


def test_half_a_request_is_nothing(daemon: Daemon) -> None:
    """A client that shuts its side down in the middle of a request is let go, and nothing is carried out."""
    count = daemon.ask("GET", "/v1/sessions/count").json

    assert daemon.raw(CREATE + b"Content-Length: 9\r\n\r\n{}", half_close=True) == b""
    assert daemon.raw(b"GET /healthz HT", half_close=True) == b""
    assert daemon.ask("GET", "/v1/sessions/count").json == count


def test_a_reset_in_the_middle_is_no_news(daemon: Daemon) -> None:
    """Clients that vanish while they send or before they read leave no line in the log."""
    for sent in (CREATE + b"Content-Length: 9\r\n\r\n{", WHOLE * 50, b"GET /h"):
        line = daemon.connect()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        line.sendall(sent)
        line.close()
    wait_for_it(daemon)

    assert daemon.log == ""


def test_http_1_0_is_served(daemon: Daemon) -> None:
    """One request and its answer; with keep-alive, more."""
    old = b"GET /healthz HTTP/1.0\r\n" + HOST

    assert statuses(daemon.raw(old + b"\r\n")) == [200]
    assert statuses(daemon.raw(old + b"Connection: keep-alive\r\n\r\n" + old + b"\r\n")) == [200, 200]


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/9.9"])
def test_another_version_is_answered_in_ours(daemon: Daemon, version: bytes) -> None:
    """The refusal of a version is HTTP/1.1 itself, and the end of the connection: what follows is not in ours either."""
    with daemon.connect() as line:
        line.sendall(GET.replace(b"HTTP/1.1", version))
        raw = read_all(line)

    assert raw.startswith(b"HTTP/1.1 505 " if version != b"HTTP/9.9" else b"HTTP/1.0 400 ")
    assert len(replies(raw)) == 1


class Served(NamedTuple):
    """A server in this process. `server.connections` are those that are open."""

    address: tuple[str, int]
    server: web.Server
    store: Store


@asynccontextmanager
async def serving(bounds: Bounds) -> AsyncIterator[Served]:
    store = Store(await open_engine("memory:", Options(0, False, pytest.fail)), Clock(), {"default": Policy()})
    app = HttpApp(store, None, bounds=bounds)
    runner = app.runner(1)
    await runner.setup()
    line = socket.create_server(("127.0.0.1", 0))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that little is enough not to be taken
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(runner.server, sock=line)
    yield Served(line.getsockname(), runner.server, store)
    server.close()
    await app.stop()
    await runner.cleanup()
    await store.close()


@pytest.fixture
async def hasty(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, int]]:
    """The address of a server that waits no longer than 0.3 s for anything."""
    monkeypatch.setattr(listener, "LINGER", 0.3)
    async with serving(Bounds(patience=0.3, idle=0.3)) as served:
        yield served.address


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server that waits 0.5 s for what a client has begun, and lets it be silent for a day."""
    async with serving(Bounds(patience=0.5, idle=86_400)) as served:
        yield served


async def all_closed(served: Served) -> None:
    """Returns when the server has let go of every connection."""
    async with asyncio.timeout(20):
        while served.server.connections:
            await asyncio.sleep(0.02)


async def slowly(address: tuple[str, int], *parts: bytes) -> list[Reply]:
    """The answers to parts that are sent at 0.1 s a part, until the server closes."""
    found = b""

    async def read() -> None:
        nonlocal found
        with suppress(ConnectionError):  # what is sent to a closed connection is answered by a reset
            while part := await reader.read(65536):
                found += part

    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*address)
        reading = asyncio.create_task(read())
        for part in parts:
            if not reading.done():
                writer.write(part)
                await asyncio.sleep(0.1)
        await reading
        writer.close()
    return replies(found)


async def test_nobody_may_take_for_ever(hasty: tuple[str, int]) -> None:
    """Silence, a slow head, and silence after an answer are closed; a body that does not come is 408 first."""
    drops = [bytes([byte]) for byte in GET]

    silent, slow, idle, late, dripping = await asyncio.gather(
        slowly(hasty),
        slowly(hasty, *drops[:20]),
        slowly(hasty, GET, *drops[:20]),
        slowly(hasty, CREATE + b"Content-Length: 20\r\n\r\n"),
        slowly(hasty, CREATE + b"Content-Length: 20\r\n\r\n", *drops[:8]),
    )

    assert (silent, slow) == ([], [])
    assert [reply.status for reply in idle] == [200]
    assert [(reply.status, reply.code) for reply in late + dripping] == [(408, "too_slow")] * 2


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (CREATE + b"Content-Length: 1000000000\r\n\r\n", 413),
        (CREATE.replace(b"json", b"xml") + b"Content-Length: 100\r\n\r\n", 415),
        (b"GET /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n", 200),
        (CREATE + b"Expect: cake\r\nContent-Length: 100\r\n\r\n", 417),
        (b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 404),
    ],
)
async def test_an_answer_before_the_body_closes_the_connection(
    hasty: tuple[str, int], wrong: bytes, status: int
) -> None:
    """A body that was never read could be taken for the next request: there is one answer, and then the end."""
    (reply,) = await slowly(hasty, wrong, GET)

    assert (reply.status, reply.headers["Connection"]) == (status, "close")


# What is begun has to be finished --------------------------------------------------------------------


async def test_the_next_head_is_due_like_the_first(served: Served) -> None:
    """However long a connection may be silent: once the next request has begun, it has to come."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*served.address)
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readexactly(len(b"alive\n"))
        writer.write(b"GET /hea")

        assert await reader.read() == b""
        writer.close()
    await all_closed(served)


async def test_silence_is_no_beginning(served: Served) -> None:
    """A connection that has been answered and says nothing stays, beyond the time that a head may take."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*served.address)
        for _ in range(3):
            writer.write(GET)
            await reader.readuntil(b"alive\n")
            await asyncio.sleep(0.7)  # more than patience, and it is what is tested

        assert len(served.server.connections) == 1
        writer.close()


async def test_a_head_without_end_is_refused(served: Served) -> None:
    """Headers that each are in order are cut off at 64 KiB together, wherever a packet ends."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*served.address)
        writer.write(b"GET /healthz HTTP/1.1\r\n" + HOST)
        reading = asyncio.create_task(reader.read())
        for n in range(30):
            if not reading.done():
                writer.write(b"X-%d: " % n + b"x" * 4000 + b"\r\n")
                await asyncio.sleep(0.02)  # so that the answer is not lost to what is sent behind it
        (reply,) = replies(await reading)
        writer.close()

    assert (reply.status, reply.code) == (431, "headers_too_large")
    await all_closed(served)


async def test_large_packets_of_whole_requests_are_no_long_head(served: Served) -> None:
    """Pipelined requests may come in packets of any size, cut anywhere."""
    requests = GET * 5000 + LAST

    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*served.address)

        async def send() -> None:
            for start in range(0, len(requests), 60_001):
                writer.write(requests[start : start + 60_001])
                await writer.drain()

        sending = asyncio.create_task(send())
        found = await reader.read(-1)
        await sending
        writer.close()

    assert found.count(b"HTTP/1.1 200 OK") == 5001


def unread(served: Served) -> socket.socket:
    """A connection whose client will not read: it takes next to nothing into its own buffers."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(served.address)
    line.setblocking(False)
    return line


async def store_large(served: Served, name: str = "large") -> None:
    put = b"PUT /v1/sessions/%s HTTP/1.1\r\n" % name.encode() + HOST + b"Content-Type: application/octet-stream\r\n"
    reader, writer = await asyncio.open_connection(*served.address)
    writer.write(put + b"Content-Length: 60000\r\nConnection: close\r\n\r\n" + b"x" * 60_000)
    assert (await reader.read()).startswith(b"HTTP/1.1 201")
    writer.close()


async def test_answers_that_are_not_read_end_the_connection(served: Served) -> None:
    """A client that asks for much and reads nothing is cut off, with what was to be sent to it."""
    await store_large(served)
    line = unread(served)
    with suppress(BlockingIOError):
        for _ in range(2000):
            line.send(b"GET /v1/sessions/large HTTP/1.1\r\nAccept: */*\r\n" + HOST + b"\r\n")
            await asyncio.sleep(0)

    await all_closed(served)

    line.close()


async def test_a_last_answer_that_is_not_read_ends_too(served: Served) -> None:
    """A connection that the server closes does not stay for the bytes that its client will never take, be they so few
    that nobody had to wait with writing them."""
    await store_large(served)
    line = unread(served)
    line.send(b"GET /v1/sessions/large HTTP/1.1\r\nAccept: */*\r\nConnection: close\r\n" + HOST + b"\r\n")

    await asyncio.sleep(0.1)
    assert len(served.server.connections) == 1
    await all_closed(served)

    line.close()


# The stream --------------------------------------------------------------------------------------------


def message(size: int) -> bytes:
    """The beginning of a frame of that size, masked with zeros."""
    return b"\x82\xff" + size.to_bytes(8) + b"\0\0\0\0"


async def test_a_long_message_that_stops_half_way_ends_the_stream(served: Served) -> None:
    """300 KB of a message, and then nothing but pongs: the room that it takes is given back."""
    with await asyncio.to_thread(Stream, *served.address) as one:
        await asyncio.to_thread(one.line.sendall, message(1_000_000) + b"\0" * 300_000)

        assert await asyncio.to_thread(read_all, one.line) == b""
    await all_closed(served)


async def test_a_short_message_may_take_its_time(served: Served) -> None:
    """Below 256 KiB nothing is due; and a long one that comes whole is answered, the next after it too."""
    calls = msgspec.msgpack.encode([[1, "get", b"k" * 32]])

    def speak(one: Stream) -> list[object]:
        one.line.sendall(message(len(calls)) + calls[:5])
        for _ in range(2):
            asked = ["set", b"k" * 32, "bytes", b"x" * 60_000]
            other = Stream(*served.address)
            assert {answer[0] for answer in other.ask(*([asked] * 20))} == {"ok"}  # 1.2 MB
            other.line.close()
        one.line.sendall(calls[5:])
        answers: list[object] = msgspec.msgpack.decode(one.receive()[1])
        return answers

    with await asyncio.to_thread(Stream, *served.address) as one:
        await asyncio.sleep(0.7)
        (answer,) = await asyncio.to_thread(speak, one)

    assert isinstance(answer, list)
    assert answer[:2] == [1, "ok"]
    await all_closed(served)


async def test_a_stream_that_does_not_read_is_ended(served: Served) -> None:
    """Answers to thousands of gets that nobody takes end the stream, however busily its client goes on asking."""
    await store_large(served)
    gets = msgspec.msgpack.encode([[n, "get", sha256(b"large").digest()] for n in range(1, 100)])
    with await asyncio.to_thread(Stream, *served.address) as one:
        one.line.setblocking(False)
        ended = False
        async with asyncio.timeout(20):
            while not ended:
                try:
                    one.line.send(message(len(gets)) + gets)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    ended = True
                await asyncio.sleep(0.005)
    await all_closed(served)


def test_a_stream_whose_client_has_said_everything_ends(daemon: Daemon) -> None:
    """A client that shuts its side down right behind its handshake is not waited for."""
    handshake = (
        b"GET /v1/stream HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Protocol: sessiond.1\r\n\r\n"
    )

    raw = daemon.raw(handshake, half_close=True)

    assert raw.startswith(b"HTTP/1.1 101 ")


async def test_a_half_open_stream_is_found_by_its_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that answers pings stays, one that does not is closed."""
    monkeypatch.setattr(stream, "SILENCE", 0.2)
    async with serving(Bounds(patience=0.5)) as served:

        def dead() -> bytes:
            with Stream(*served.address) as one:
                return read_all(one.line)

        def alive() -> int:
            pings = 0
            with Stream(*served.address) as one:
                while pings < 5:
                    opcode, payload = one.receive()
                    assert opcode == Stream.PING
                    one.send(payload, Stream.PONG)
                    pings += 1
            return pings

        async with asyncio.timeout(20):
            ended, pings = await asyncio.gather(asyncio.to_thread(dead), asyncio.to_thread(alive))

        assert (ended[:1], pings) == (b"\x89", 5)
        await all_closed(served)


async def test_no_ping_goes_out_behind_a_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent client that was told goodbye is not asked whether it is there; it is cut off in time."""
    monkeypatch.setattr(stream, "SILENCE", 0.2)
    monkeypatch.setattr(stream, "GOODBYE", 0.6)
    async with serving(Bounds(patience=0.5)) as served:

        def offend() -> bytes:
            with Stream(*served.address) as one:
                one.send(b"text", Stream.TEXT)
                with suppress(Closed):
                    one.receive()
                return read_all(one.line)

        async with asyncio.timeout(20):
            behind = await asyncio.to_thread(offend)

        assert behind == b""
        await all_closed(served)


# Lifetime ----------------------------------------------------------------------------------------------


async def test_an_old_connection_is_ended_with_an_answer() -> None:
    """Beyond connection_lifetime the next answer says that it is the last, and is complete."""
    async with serving(Bounds(lifetime=0.05)) as served, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*served.address)
        await asyncio.sleep(0.1)
        writer.write(GET * 2)
        (reply,) = replies(await reader.read())
        writer.close()

        assert (reply.status, reply.headers["Connection"], reply.body) == (200, "close", b"alive\n")
        await all_closed(served)


async def test_an_old_stream_is_asked_to_leave() -> None:
    """It is told `stopping` once, and served until its client has left; one that stays is closed with 1001 in the end,
    with everything answered that was begun."""
    async with serving(Bounds(lifetime=0.1, patience=0.3)) as served:

        def stay() -> tuple[list[list[object]], int]:
            answers: list[list[object]] = []
            with Stream(*served.address) as one:
                assert msgspec.msgpack.decode(one.receive()[1]) == [[0, "stopping"]]
                for n in range(1, 100_000):
                    with suppress(ConnectionError):  # it was closed meanwhile; what came before is still to be read
                        one.send(msgspec.msgpack.encode([[n, "create", n.to_bytes(32), "json", b"{}"]]))
                    try:
                        answers += msgspec.msgpack.decode(one.receive()[1])
                    except Closed as closed:
                        return answers, closed.code
            return answers, 0

        answers, code = await asyncio.to_thread(stay)

        assert code == 1001
        assert {answer[0] for answer in answers} == set(range(1, len(answers) + 1))
        begun = [answer for answer in answers if answer[1] == "ok"]
        assert len(begun) > 0
        assert await served.store.living() == {"default": len(begun)}
        await all_closed(served)


async def test_clients_move_to_a_new_connection_unseen() -> None:
    """A client with calls under way all the time goes through many lifetimes of its connection without an error."""
    async with serving(Bounds(lifetime=0.1, patience=5.0)) as served:
        async with AsyncClient(f"http://127.0.0.1:{served.address[1]}") as client:
            sid = await client.create({"n": 0})
            while client.stats.connects < 5:
                await asyncio.gather(*(client.patch(sid, {f"k{n}": n}) for n in range(20)))
        await all_closed(served)


# Their number ------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Iterator[Daemon]:
    """A daemon that may have 64 files open, and so 32 connections."""
    require("prlimit")
    daemon = Daemon(before=["prlimit", "--nofile=64"])
    yield daemon
    assert daemon.stop() == 0, daemon.log
    assert "Traceback" not in daemon.log


def test_one_connection_too_many_is_told_so(small: Daemon) -> None:
    """The 33rd is answered 503 and closed; those that were there go on, and when one ends there is room again."""
    with ExitStack() as lines:
        open_ = [lines.enter_context(small.connect()) for _ in range(32)]
        for line in open_:
            line.sendall(GET)
            assert line.recv(12) == b"HTTP/1.1 200"

        refused = [replies(small.raw(GET))[0] for _ in range(3)]

        assert [(reply.status, reply.code) for reply in refused] == [(503, "too_many_connections")] * 3
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].headers["Cache-Control"] == "no-store"
        for line in open_:
            line.sendall(GET)
        open_[0].close()
        wait_until(lambda: statuses(small.raw(LAST)) == [200])
    metrics = small.ask("GET", "/metrics").body
    assert b'sessiond_refused_total{code="too_many_connections"}' in metrics


def test_a_flood_of_connections_keeps_nobody_out_who_was_in(small: Daemon) -> None:
    """200 at once, more than the process may have files: all that are too many are let go in time, those that were there
    are served, and the log has a line a second at most."""
    with Stream(small.host, small.port) as one, ExitStack() as lines:
        assert small.ask("GET", "/healthz").status == 200
        flood = []
        for _ in range(200):
            with suppress(ConnectionError):
                flood.append(lines.enter_context(small.connect()))
        assert one.ask(["count"]) == [["ok", 0]]
        assert small.ask("GET", "/healthz").status == 200
        with suppress(ConnectionError, TimeoutError):
            for line in flood[100:]:
                line.settimeout(10)
                assert line.recv(100)[:12] in (b"", b"HTTP/1.1 503")
        assert one.ask(["count"]) == [["ok", 0]]
    wait_until(lambda: statuses(small.raw(LAST)) == [200])

    told = [line for line in small.log.splitlines() if "turned away" in line]
    assert 1 <= len(told) <= 15
    assert small.log.splitlines() == told
    assert len({line.split(" ")[0] for line in told}) >= len(told) - 1  # by the second, with one at its edge


def test_noise_is_not_logged(daemon: Daemon) -> None:
    """Random bytes, a TLS greeting, lines without end and requests that are none: 400 or a close, and no line in the log."""
    chance = random.Random(7377)
    noises = [
        *(chance.randbytes(chance.randrange(1, 2000)) for _ in range(30)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500),
        b"\r\n" * 1000,
        b"GET\r\n\r\n" * 50,
        b"A" * 70_000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"*1\r\n$4\r\nPING\r\n",
    ]

    for noise in noises:
        raw = daemon.raw(noise, half_close=True)
        assert raw == b"" or replies(raw)[0].status in (400, 414, 431, 505)

    assert daemon.ask("GET", "/healthz").status == 200
    assert daemon.log == ""
