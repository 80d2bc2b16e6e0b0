"""Connections: what is kept open, what is closed, and how long anybody may take."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from sessiond.calls import Policy
from sessiond.clock import Clock
from sessiond.engines import Options, open_engine
from sessiond.http import listener
from sessiond.http.app import HttpApp
from sessiond.http.bounds import Bounds
from sessiond.store import Store
from tests.http.support import Daemon, Reply, read_all, replies

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


@pytest.fixture
async def hasty(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, int]]:
    """The address of a server that waits no longer than 0.3 s for anything."""
    monkeypatch.setattr(listener, "LINGER", 0.3)
    store = Store(await open_engine("memory:", Options(0, False, pytest.fail)), Clock(), {"default": Policy()})
    runner = HttpApp(store, None, Bounds(patience=0.3, idle=0.3)).runner(1)
    await runner.setup()
    line = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(runner.server, sock=line)  # type: ignore[arg-type]
    yield line.getsockname()
    server.close()
    await runner.cleanup()
    await store.close()


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
