"""A daemon of its own for a test, and a plain HTTP client that says what came back."""

import base64
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

JSON = {"Content-Type": "application/json"}
MSGPACK = {"Content-Type": "application/msgpack"}
OCTETS = {"Content-Type": "application/octet-stream"}


class Reply(NamedTuple):
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a problem, which is checked on the way."""
        problem = self.json
        assert self.headers["Content-Type"] == "application/problem+json"
        assert problem.keys() == {"type", "title", "status", "code", "detail"}
        assert problem["status"] == self.status
        assert problem["type"] == f"urn:sessiond:problem:{problem['code']}"
        return str(problem["code"])


class Daemon:
    """A process that serves from its construction until `stop`. `token`: what `ask` shows, unless told otherwise."""

    token = ""

    def __init__(
        self,
        *arguments: str,
        data: str = "memory:",
        listen: Sequence[str] = ("127.0.0.1:0",),
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        self.data = data
        listens = [word for address in listen for word in ("--listen", address)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        self._kept: http.client.HTTPConnection | None = None
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "sessiond", "serve", "--data", data, *listens, *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().decode()
        if not self.line:
            self.process.wait()
            self.close()
            raise AssertionError(f"the daemon did not start: {self.log}")
        found = re.search(r"https?://([^ ,]+):(\d+)", self.line)
        self.host, self.port = (found[1].strip("[]"), int(found[2])) if found else ("", 0)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has logged so far."""
        if not self._log.closed:
            self._log.seek(0)
            self._logged = self._log.read().decode()
        return self._logged

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request on the connection that is kept for them; a str is JSON."""
        if self._kept is None:
            self._kept = http.client.HTTPConnection(self.host, self.port, timeout=30)
        if isinstance(body, str):
            body, headers = body.encode(), {**JSON, **(headers or {})}
        if self.token:
            headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        self._kept.request(method, path, body, dict(headers or {}))
        response = self._kept.getresponse()
        return Reply(response.status, response.headers, response.read())

    def create(self, data: bytes | str = "{}", query: str = "", headers: Mapping[str, str] | None = None) -> str:
        """The sid of a new session."""
        reply = self.ask("POST", f"/v1/sessions{query}", data, headers)
        assert reply.status == 201, reply
        return str(reply.json["sid"])

    def make_token(self, name: str, *options: str) -> str:
        """The text of a new token, once the daemon knows it."""
        text = make_token(self.data, name, *options)
        bearer = {"Authorization": f"Bearer {text}"}
        wait_until(lambda: self.ask("GET", "/openapi.json", headers=bearer).status == 200)
        return text

    def advance(self, ms: int) -> None:
        assert self.ask("POST", "/v1/clock", json.dumps({"advance_ms": ms})).status == 200

    def connect(self, timeout: float = 30) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=timeout)

    def raw(self, *parts: bytes, half_close: bool = False) -> bytes:
        """All that comes back on a connection of its own until the daemon closes it."""
        with self.connect() as line:
            try:
                for part in parts:
                    line.sendall(part)
                if half_close:
                    line.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # refused before all was sent; what came back says why
            return read_all(line)

    def memory(self) -> int:
        """Resident bytes of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 30) -> int:
        code = self.process.wait(timeout)
        self.close()
        return code

    def close(self) -> None:
        """Ends it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._logged = self.log
        self._log.close()
        if self._kept is not None:
            self._kept.close()


def sessiond_token(*arguments: str) -> str:
    """What `sessiond token …` prints; it has to end well."""
    command = [sys.executable, "-m", "sessiond", "token", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


def make_token(data: str, name: str, *options: str) -> str:
    """The text of a new token, in the file beside that data."""
    return sessiond_token("add", name, "--data", data, *options).strip()


def read_all(line: socket.socket) -> bytes:
    found = b""
    try:
        while part := line.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


def replies(raw: bytes) -> list[Reply]:
    """The answers in what a connection gave back; each has a Content-Length, or no body."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        status, _, fields = head.partition(b"\r\n")
        headers = Message()
        for field in fields.decode().splitlines():
            name, _, value = field.partition(": ")
            headers[name] = value
        size = int(headers.get("Content-Length", "0"))
        found.append(Reply(int(status.split()[1]), headers, rest[:size]))
        raw = rest[size:]
    return found


def key_of(sid: str) -> str:
    """The key of a sid, as it stands in a path."""
    digest = hashlib.sha256(sid.encode()).digest()
    return "~" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def wait_until(true: Any, seconds: float = 20) -> None:
    """For what another process will have done soon."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


class Told(NamedTuple):
    id: str
    kind: str
    data: dict[str, Any]


class Reader:
    """A client of /v1/events. `last_id`: what it would come back with, also from blocks that are no event."""

    def __init__(self, daemon: Daemon, path: str = "/v1/events", headers: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=20)
        if daemon.token:
            headers = {"Authorization": f"Bearer {daemon.token}", **(headers or {})}
        self._connection.request("GET", path, headers=headers or {})
        self.response = self._connection.getresponse()
        self.status = self.response.status
        self.last_id = ""
        if self.status == 200 and "after" not in path and "Last-Event-ID" not in (headers or {}):
            while not self.last_id:  # from here on nothing is missed
                assert self._block() is None

    def take(self, number: int) -> list[Told]:
        found: list[Told] = []
        while len(found) < number:
            if (told := self._block()) is not None:
                found.append(told)
        return found

    def rest(self) -> list[Told]:
        """What still comes until the daemon ends it."""
        found = []
        while True:
            try:
                if (told := self._block()) is not None:
                    found.append(told)
            except EOFError:
                return found

    def _block(self) -> Told | None:
        fields: dict[str, str] = {}
        while line := self.response.readline():
            if line == b"\n":
                break
            name, _, value = line.decode().rstrip("\n").partition(": ")
            fields[name] = value
        else:
            raise EOFError
        self.last_id = fields.get("id", self.last_id)
        return Told(self.last_id, fields["event"], json.loads(fields["data"])) if "data" in fields else None

    def close(self) -> None:
        self.response.close()
        self._connection.close()


class Closed(Exception):
    """The daemon closed the stream, with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Stream:
    """A client of the stream that hides nothing: it sends what it is told and shows each message as it came."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(
        self, host: str, port: int, protocol: str | None = "sessiond.1", headers: str = "", behind: bytes = b""
    ) -> None:
        """`behind`: frames that are sent with the handshake, before it is answered."""
        self.line = socket.create_connection((host, port), timeout=30)
        offered = "" if protocol is None else f"Sec-WebSocket-Protocol: {protocol}\r\n"
        self.line.sendall(
            f"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n{offered}{headers}\r\n".encode()
            + behind
        )
        self._seq = 0
        self._answers: dict[int, list[Any]] = {}
        self._received = b""
        while b"\r\n\r\n" not in self._received:
            self._received += self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: object) -> None:
        self.line.close()

    def send(self, payload: bytes, opcode: int = BINARY, last: bool = True) -> None:
        """One frame, masked with zeros."""
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2) if size < 65536 else b""
        self.line.sendall(
            bytes([opcode | 0x80 * last]) + (length or b"\xff" + size.to_bytes(8)) + b"\0\0\0\0" + payload
        )

    def receive(self) -> tuple[int, bytes]:
        """One frame; raises Closed for the last."""
        head = self._take(2)
        size = head[1]
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8))
        opcode, payload = head[0] & 15, self._take(size)
        if opcode == self.CLOSE:
            raise Closed(int.from_bytes(payload[:2]))
        return opcode, payload

    def until_closed(self) -> tuple[list[Any], int]:
        """Every answer and push that still comes, and the code of the close behind them."""
        found: list[Any] = []
        try:
            while True:
                found += msgspec.msgpack.decode(self.receive()[1])
        except Closed as closed:
            return found, closed.code

    def call(self, *calls: Sequence[Any]) -> list[int]:
        """Sends calls in one message; their seqs."""
        seqs = list(range(self._seq + 1, self._seq + 1 + len(calls)))
        self._seq += len(calls)
        self.send(msgspec.msgpack.encode([[seq, *call] for seq, call in zip(seqs, calls, strict=True)]))
        return seqs

    def answers(self, seqs: Sequence[int]) -> list[list[Any]]:
        """What those calls are answered, without their seqs, in the order of the calls."""
        while not self._answers.keys() >= set(seqs):
            opcode, payload = self.receive()
            assert opcode == self.BINARY
            for seq, *answer in msgspec.msgpack.decode(payload):
                assert seq not in self._answers, "answered twice"
                self._answers[seq] = answer
        return [self._answers.pop(seq) for seq in seqs]

    def ask(self, *calls: Sequence[Any]) -> list[list[Any]]:
        return self.answers(self.call(*calls))

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            self._received += self._more()
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _more(self) -> bytes:
        if not (part := self.line.recv(1024 * 1024)):
            raise ConnectionError("the daemon closed the connection")
        return part
