"""RFC 6455 as a client speaks it: the opening handshake and the frames. Bytes in, bytes out; no socket, no clock.

Rule 1: what the daemon sent is never trusted. Every length has a limit and everything odd is a `ProtocolError`.
Rule 2: the common case, one small frame in one chunk of bytes, is copied once. Nothing loops over bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from struct import Struct

from .errors import AuthError

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
#: The protocol's limit for one message, in bytes.
MAX_MESSAGE = 16 * 1024 * 1024
#: An answer to the handshake is some 200 bytes; this leaves room for a chatty proxy.
MAX_HEADER = 16 * 1024

_CONTINUATION, _TEXT = 0, 1
_LENGTH_16, _LENGTH_64 = Struct("!H"), Struct("!Q")
_HEAD_16, _HEAD_64 = Struct("!BBH"), Struct("!BBQ")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SUBPROTOCOL = "sessiond.1"


class ProtocolError(Exception):
    """The other side does not speak the protocol; the connection is of no use any more."""


class Opening:
    """The handshake: send `request`, then feed what comes until the connection is open."""

    def __init__(self, authority: str, token: str | None, namespace: str | None = None) -> None:
        nonce = base64.b64encode(os.urandom(16))
        self._accept = base64.b64encode(hashlib.sha1(nonce + _GUID).digest()).decode()
        self._received = b""
        lines = [
            "GET /v1/stream HTTP/1.1",
            f"Host: {authority}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {nonce.decode()}",
            f"Sec-WebSocket-Protocol: {_SUBPROTOCOL}",
        ]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        if namespace is not None:
            lines.append(f"Session-Namespace: {namespace}")
        self.request = "\r\n".join([*lines, "", ""]).encode()

    def feed(self, chunk: bytes) -> bytes | None:
        """None while the answer is incomplete; then the bytes that came after it, which are frames.

        Raises AuthError for 401 and 403, ProtocolError for everything else that is no welcome. Redirects are not
        followed: they could lead a token astray.
        """
        self._received += chunk
        header, end, frames = self._received.partition(b"\r\n\r\n")
        if len(header) > MAX_HEADER:
            raise ProtocolError("the answer to the handshake is too long")
        if not end:
            return None
        self._check(header.decode("latin-1").split("\r\n"))
        return frames

    def _check(self, lines: list[str]) -> None:
        version, _, rest = lines[0].partition(" ")
        status = rest[:3]
        if version not in ("HTTP/1.0", "HTTP/1.1") or not (len(status) == 3 and status.isascii() and status.isdigit()):
            raise ProtocolError("it does not speak HTTP")
        if status in ("401", "403"):
            raise AuthError(
                f"The daemon answered {status}: check that token=…, or SESSIOND_TOKEN, is a token of its that is valid "
                "and may be used here.",
                status=int(status),
            )
        if status != "101":
            raise ProtocolError(f"it answered HTTP {status} where a sessiond answers 101")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise ProtocolError("its handshake is malformed")
            name = name.lower()
            headers[name] = f"{headers[name]},{value.strip()}" if name in headers else value.strip()
        if (
            headers.get("upgrade", "").lower() != "websocket"
            or "upgrade" not in [each.strip() for each in headers.get("connection", "").lower().split(",")]
            or headers.get("sec-websocket-accept") != self._accept
            or headers.get("sec-websocket-protocol") != _SUBPROTOCOL
            or "sec-websocket-extensions" in headers
        ):
            raise ProtocolError("its handshake is not that of a sessiond")


def masks() -> Iterator[bytes]:
    """Unpredictable masks, as RFC 6455 §5.3 asks, with one system call for many."""
    while True:
        pool = os.urandom(4096)
        for start in range(0, len(pool), 4):
            yield pool[start : start + 4]


def encode(opcode: int, payload: bytes, mask: bytes) -> bytes:
    """One whole frame, masked."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = _HEAD_16.pack(0x80 | opcode, 0x80 | 126, size)
    else:
        head = _HEAD_64.pack(0x80 | opcode, 0x80 | 127, size)
    key = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return head + mask + masked.to_bytes(size, "little")


class FrameReader:
    """Turns received bytes, cut anywhere, into events."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message: bytearray | None = None  # the fragments so far

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields (BINARY, message), (PING, payload), (PONG, payload) and (CLOSE, code and reason), in order.

        Raises ProtocolError behind the events that were still good; the reader is of no use then.
        """
        if len(chunk) > 3 and chunk[0] == 0x82 and not self._buffer and self._message is None:
            size = chunk[1]
            if size < 126 and len(chunk) == size + 2:
                yield BINARY, chunk[2:]
                return
            if size == 126 and 126 <= _LENGTH_16.unpack_from(chunk, 2)[0] == len(chunk) - 4:
                yield BINARY, chunk[4:]
                return
        self._buffer += chunk
        while (frame := self._next()) is not None:
            opcode, fin, payload = frame
            if opcode >= CLOSE:
                yield opcode, payload
            elif self._message is None and fin:
                yield BINARY, payload
            elif self._message is None:
                self._message = bytearray(payload)
            else:
                self._message += payload
                if fin:
                    message, self._message = bytes(self._message), None
                    yield BINARY, message

    def _next(self) -> tuple[int, bool, bytes] | None:
        """Takes the next whole frame out of the buffer; refuses a wrong one as soon as its head is there."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        opcode, fin, size, start = buffer[0] & 0x0F, buffer[0] >= 0x80, buffer[1] & 0x7F, 2
        if buffer[0] & 0x70:
            raise ProtocolError("it set a reserved bit, though no extension was agreed")
        if buffer[1] & 0x80:
            raise ProtocolError("it masked a frame")
        self._check_opcode(opcode, fin, size)
        if size >= 126:
            field, least = (_LENGTH_16, 126) if size == 126 else (_LENGTH_64, 65536)
            start += field.size
            if len(buffer) < start:
                return None
            size = field.unpack_from(buffer, 2)[0]
            if size < least:
                raise ProtocolError("it did not use the shortest length")
        if opcode < CLOSE and size + len(self._message or b"") > MAX_MESSAGE:
            raise ProtocolError("its message is over 16 MiB")
        if len(buffer) < start + size:
            return None
        with memoryview(buffer) as view:
            payload = bytes(view[start : start + size])
        del buffer[: start + size]
        return opcode, fin, payload

    def _check_opcode(self, opcode: int, fin: bool, size: int) -> None:
        if opcode >= CLOSE:
            if opcode > PONG:
                raise ProtocolError("it sent a reserved opcode")
            if not fin:
                raise ProtocolError("it fragmented a control frame")
            if size > 125:
                raise ProtocolError("its control frame is too long")
            if opcode == CLOSE and size == 1:
                raise ProtocolError("it sent half a close code")
        elif opcode == _CONTINUATION:
            if self._message is None:
                raise ProtocolError("it continued a message that it had not begun")
        elif opcode == _TEXT:
            raise ProtocolError("it sent text")
        elif opcode != BINARY:
            raise ProtocolError("it sent a reserved opcode")
        elif self._message is not None:
            raise ProtocolError("it began a message inside another")


_STOPPING, _UNAUTHORIZED = 1001, 4401


class Dismissed(ConnectionResetError):
    """The daemon said goodbye, because it stops or the token is not valid any more: what it has not answered by then,
    it never began. A new connection finds out more."""


def closed(payload: bytes) -> ConnectionResetError:
    """The error for a connection that the daemon closes with this payload."""
    code = close_code(payload)
    kind = Dismissed if code in (_STOPPING, _UNAUTHORIZED) else ConnectionResetError
    return kind(f"the daemon closed it with code {code}")


def close_code(payload: bytes) -> int:
    """The code in a close frame; 1005 when it has none (RFC 6455 §7.1.5)."""
    return _LENGTH_16.unpack_from(payload)[0] if payload else 1005
