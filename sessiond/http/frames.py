"""RFC 6455 as a server speaks it: the opening handshake and the frames. Bytes in, bytes out; no socket, no clock.

What a client sent is never trusted: every length has a limit, and everything odd is a `WrongFrame`.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from struct import Struct

from aiohttp import hdrs

# aiohttp's own, in C: 20 KB in 2 µs, where an int as long as the message takes 64 (measured).
from aiohttp._websocket.helpers import websocket_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

CLOSE_PROTOCOL_ERROR = 1002
CLOSE_TOO_LARGE = 1009

_OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
_LENGTH_16, _LENGTH_64 = Struct("!H"), Struct("!Q")
_HEAD_16, _HEAD_64 = Struct("!BBH"), Struct("!BBQ")
_MASK_BYTES = 4
_MAX_CONTROL = 125


class WrongFrame(Exception):
    """The connection is of no use any more, and is to be closed with `code`."""

    def __init__(self, code: int = CLOSE_PROTOCOL_ERROR) -> None:
        super().__init__(code)
        self.code = code


def accept(headers: Mapping[str, str], protocol: str) -> dict[str, str] | None:
    """The headers of the 101 that answers a handshake for that sub-protocol; None if it is none (§4.2.1)."""
    key = headers.get(hdrs.SEC_WEBSOCKET_KEY, "")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if (
        not is_key
        or headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket"
        or "upgrade" not in _listed(headers.get(hdrs.CONNECTION, "").lower())
        or headers.get(hdrs.SEC_WEBSOCKET_VERSION) != _VERSION
        or protocol not in _listed(headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, ""))
    ):
        return None
    return {
        hdrs.UPGRADE: "websocket",
        hdrs.CONNECTION: "Upgrade",
        hdrs.SEC_WEBSOCKET_ACCEPT: base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode(),
        hdrs.SEC_WEBSOCKET_PROTOCOL: protocol,
    }


def _listed(header: str) -> list[str]:
    return [each.strip() for each in header.split(",")]


def encode(opcode: int, payload: bytes | bytearray) -> bytes:
    """One whole frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return _HEAD_16.pack(0x80 | opcode, 126, size) + payload
    return _HEAD_64.pack(0x80 | opcode, 127, size) + payload


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return _LENGTH_16.pack(code) + reason


def goodbye(payload: bytes | bytearray) -> bytes:
    """With what a close frame is answered: 1000, or 1001 for that; none for none; 1002 for a code that may not stand there
    (§7.4.1)."""
    if not payload:
        return b""
    code = _LENGTH_16.unpack_from(payload)[0] if len(payload) > 1 else 0
    if (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999:
        return close_payload(code if code == 1001 else 1000)
    return close_payload(CLOSE_PROTOCOL_ERROR)


class FrameReader:
    """Turns received bytes, cut anywhere, into messages and control frames. `limit`: the most bytes of a message."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer: bytes | bytearray = b""
        self._at = 0  # what lies before has been read
        self._message: bytearray | None = None  # the fragments so far
        self._kind = BINARY

    @property
    def unread(self) -> int:
        """Bytes that lie here, of frames and of a message whose end has not come, and of what nobody has asked for yet."""
        return len(self._buffer) - self._at + (0 if self._message is None else len(self._message))

    def feed(self, chunk: bytes) -> None:
        if self._at == len(self._buffer):
            self._buffer, self._at = chunk, 0
            return
        if type(self._buffer) is bytes or self._at > len(self._buffer) // 2:
            self._buffer, self._at = bytearray(self._buffer[self._at :]), 0
        self._buffer += chunk

    def next(self) -> tuple[int, bytes | bytearray] | None:
        """The next (TEXT or BINARY, message) or (CLOSE, PING or PONG, payload); None: it has not come to its end.

        Raises WrongFrame as soon as a head that is wrong is there.
        """
        while (frame := self._next()) is not None:
            first, payload = frame
            opcode = first & 0x0F
            if first >= 0x80 and opcode != CONTINUATION:
                return opcode, payload
            if opcode != CONTINUATION:
                self._kind, self._message = opcode, payload
                continue
            assert self._message is not None, "its head was checked"
            self._message += payload
            if first >= 0x80:
                message, self._message = self._message, None
                return self._kind, message
        return None

    def _next(self) -> tuple[int, bytearray] | None:
        """The first byte of the next frame, and its payload; None: it is not there as a whole."""
        buffer, at = self._buffer, self._at
        end = len(buffer)
        if end - at < 2:
            if end == at:
                self._buffer, self._at = b"", 0  # a silent connection is not to hold what it has sent
            return None
        first, size = buffer[at], buffer[at + 1] - 0x80
        opcode = first & 0x0F
        if first & 0x70 or size < 0:  # a reserved bit, though no extension was agreed; not masked
            raise WrongFrame
        if opcode >= CLOSE:
            if opcode not in _OPCODES or first < 0x80 or size > _MAX_CONTROL:
                raise WrongFrame
        elif opcode not in _OPCODES or (opcode == CONTINUATION) is (self._message is None):
            raise WrongFrame
        start = at + 2
        if size >= 126:
            field = _LENGTH_16 if size == 126 else _LENGTH_64
            start += field.size
            if end < start:
                return None
            size = field.unpack_from(buffer, at + 2)[0]
        if opcode < CLOSE and size + (0 if self._message is None else len(self._message)) > self._limit:
            raise WrongFrame(CLOSE_TOO_LARGE)
        body = start + _MASK_BYTES
        if end < body + size:
            return None
        payload = bytearray(buffer[body : body + size])
        websocket_mask(bytes(buffer[start:body]), payload)
        self._at = body + size
        return first, payload
