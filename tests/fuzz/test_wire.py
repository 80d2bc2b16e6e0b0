"""A real daemon under bytes that are almost right: each connection is answered or closed, and the next one is served."""

import random
import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest

from tests.http.support import Closed, Daemon, Stream

from .support import SECONDS, SEED, fuzz, inputs

LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
KNOWN_5XX = {b"505"}
"""What may be answered with a status from 500: that a version of HTTP is not spoken."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    daemon = Daemon("--patience", "0.5", "--idle", "0.5", "--miss-budget", "off")
    yield daemon
    assert daemon.stop() == 0, daemon.log
    assert daemon.log.splitlines()[:-1] == [], daemon.log


def grammar(chance: random.Random) -> bytes:
    """A request, or several, each part of it right most of the time."""

    def pick(right: list[bytes], wrong: list[bytes], share: float = 0.85) -> bytes:
        return chance.choice(right if chance.random() < share else wrong)

    parts = []
    for _ in range(chance.choice((1, 1, 2, 5))):
        method = pick([b"GET", b"PUT", b"POST", b"DELETE", b"PATCH"], [b"get", b"TRACE", b"G\0T", b"", b"CONNECT"])
        target = pick(
            [b"/v1/sessions/x", b"/v1/sessions", b"/healthz", b"/v1/sessions/x/touch", b"/v1/stream"],
            [b"", b"*", b"//", b"/%zz", b"/\xff", b"/" + b"x" * 9000, b"http://a/", b"/ /", b"/v1/sessions?ttl=\0"],
        )
        version = pick([b"HTTP/1.1"], [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.", b"HTP/1.1", b""], 0.9)
        body = pick([b"{}", b'{"a":1}', b""], [b"{", b"\0" * 100, b"x" * 70_000])
        chunked = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        framing = pick(
            [b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"],
            [
                b"Content-Length: -1",
                b"Content-Length: 99",
                b"Content-Length: 1\r\nContent-Length: 2",
                b"Transfer-Encoding: chunked, chunked",
                b"Transfer-Encoding: chunked\r\nContent-Length: 3",
                b"Content-Length: 10000000000",
            ],
        )
        headers = [
            pick([b"Host: localhost"], [b"", b"Host: a\r\nHost: b", b"Host : localhost"], 0.95),
            pick([b"Content-Type: application/json"], [b"Content-Type: text/html", b"X: \0", b"X\r\n Y: z", b": x"]),
            pick([b"Accept: */*", b"Connection: keep-alive"], [b"Expect: 100-continue", b"Expect: x", b"Upgrade: h2c"]),
            framing,
        ]
        end = pick([b"\r\n"], [b"\n", b"\r", b"\r\n\r\n", b""], 0.97)
        lines = [method + b" " + target + b" " + version, *(header for header in headers if header)]
        parts.append(end.join(lines) + end * 2 + (chunked if b"chunked" in framing else body))
    return b"".join(parts)


def check_connection(daemon: Daemon, sent: bytes) -> None:
    raw = daemon.raw(sent, half_close=True)

    assert raw == b"" or raw.startswith(b"HTTP/1."), raw[:200]
    for status in re.findall(rb"HTTP/1\.[01] (\d\d\d) ", raw):
        assert status < b"500" or status in KNOWN_5XX, raw[:500]
    assert b"Traceback" not in raw


def test_requests_by_grammar(daemon: Daemon) -> None:
    """Requests with some part wrong, alone and pipelined, are answered with what is no fault of the daemon's, or closed; the
    next connection is served."""
    chance, end = random.Random(SEED), 0
    for number in range(max(100, int(SECONDS * 100))):
        check_connection(daemon, grammar(chance))
        if number % 20 == 0:
            assert daemon.raw(LAST).startswith(b"HTTP/1.1 200"), number
        end = number

    assert end >= 99
    assert daemon.log == ""


def test_requests_by_bytes(daemon: Daemon) -> None:
    """The same for mutations of requests, byte by byte."""
    assert fuzz("requests", lambda data: check_connection(daemon, data)) > 10
    assert daemon.raw(LAST).startswith(b"HTTP/1.1 200")
    assert daemon.log == ""


def test_frames_by_bytes(daemon: Daemon) -> None:
    """Frames and messages with something wrong are answered, or end the stream with a code of RFC 6455; another stream of
    the same daemon is served."""
    with Stream(daemon.host, daemon.port) as other:
        for number, data in enumerate(inputs("websocket", random.Random(SEED))):
            if number >= max(60, SECONDS * 300):
                break
            with Stream(daemon.host, daemon.port) as one:
                one.line.settimeout(20)
                with suppress(ConnectionError, TimeoutError):
                    one.line.sendall(data)
                    one.line.shutdown(socket.SHUT_WR)
                    frames_until_end(one)
            if number % 10 == 0:
                assert other.ask(["count"])[0][0] == "ok"

        assert other.ask(["count"])[0][0] == "ok"
    assert "Traceback" not in daemon.log
    assert daemon.log == ""


def frames_until_end(one: Stream) -> None:
    """Reads to the end of a stream: each message is an array of answers, and the close has a code that is ours."""
    code = 1000
    try:
        while True:
            opcode, payload = one.receive()
            assert opcode in (Stream.BINARY, Stream.PING, Stream.PONG)
            if opcode == Stream.BINARY:
                for answer in msgspec.msgpack.decode(payload):
                    assert answer[1] in ("ok", "missing", "exists", "conflict", "refused", "stopping")
    except Closed as closed:
        code = closed.code
    assert code in (0, 1000, 1001, 1002, 1003, 1007, 1009)  # 0: a close without a code is answered with one without
