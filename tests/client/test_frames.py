"""The frame codec and the opening handshake, without I/O."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client import AuthError
from sessiond_client._frames import (
    BINARY,
    CLOSE,
    MAX_MESSAGE,
    PING,
    PONG,
    FrameReader,
    Opening,
    ProtocolError,
    close_code,
    encode,
    masks,
)

from .support import golden

NAMES = {BINARY: "message", PING: "ping", PONG: "pong", CLOSE: "close"}


def events(*chunks: bytes) -> list[list[Any]]:
    """What a reader makes of these chunks, named as in the golden file."""
    reader = FrameReader()
    found = [event for chunk in chunks for event in reader.feed(chunk)]
    return [[NAMES[opcode], close_code(data) if opcode == CLOSE else data.hex()] for opcode, data in found]


def server_frame(payload: bytes, opcode: int = BINARY, fin: bool = True) -> bytes:
    """A frame as a server sends it."""
    head = bytes(((0x80 if fin else 0) | opcode,))
    if len(payload) < 126:
        return head + bytes((len(payload),)) + payload
    if len(payload) < 65536:
        return head + b"\x7e" + len(payload).to_bytes(2, "big") + payload
    return head + b"\x7f" + len(payload).to_bytes(8, "big") + payload


@pytest.mark.parametrize("row", golden("frames.json", "client"), ids=lambda row: row["name"])
def test_encode_golden(row: dict[str, Any]) -> None:
    """A frame is, byte for byte, the golden one."""
    repeat = row.get("payload_repeat")
    payload = bytes.fromhex(repeat["repeat"]) * repeat["times"] if repeat else bytes.fromhex(row["payload"])

    frame = encode(row["opcode"], payload, bytes.fromhex(row["mask"]))

    if "frame" in row:
        assert row["frame"] == frame.hex()
    else:
        assert frame.hex().startswith(row["starts"])
        assert row["length"] == len(frame)


@pytest.mark.parametrize("row", golden("frames.json", "server"), ids=lambda row: row["name"])
def test_read_golden_cut_anywhere(row: dict[str, Any]) -> None:
    """Received bytes give the golden events, or the error, wherever they are cut in two, and byte by byte."""
    data = bytes.fromhex(row["bytes"])
    cuts = [(data[:at], data[at:]) for at in range(len(data) + 1)]

    for chunks in [*cuts, [data[at : at + 1] for at in range(len(data))]]:
        if "error" in row:
            with pytest.raises(ProtocolError):
                events(*chunks)
        else:
            assert row["events"] == events(*chunks)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_is_xor(payload: bytes, mask: bytes) -> None:
    """The payload is XORed with the mask, repeated (RFC 6455 §5.3)."""
    frame = encode(BINARY, payload, mask)

    masked = frame[len(frame) - len(payload) :]
    assert payload == bytes(a ^ b for a, b in zip(masked, itertools.cycle(mask), strict=False))


@given(st.lists(st.tuples(st.sampled_from([BINARY, PING, PONG]), st.binary(max_size=125)), max_size=8), st.data())
def test_any_cut_gives_the_same_events(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Messages and control frames come out as they went in, however the bytes are cut."""
    sent = b"".join(server_frame(payload, opcode) for opcode, payload in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))

    found = events(*(sent[a:b] for a, b in itertools.pairwise([0, *cuts, len(sent)])))

    assert [[NAMES[opcode], payload.hex()] for opcode, payload in frames] == found


@given(st.lists(st.binary(max_size=200), min_size=2, max_size=6))
def test_fragments_are_joined(parts: list[bytes]) -> None:
    """A message in fragments is one message."""
    frames = [server_frame(part, 0 if at else BINARY, at == len(parts) - 1) for at, part in enumerate(parts)]

    assert [["message", b"".join(parts).hex()]] == events(*frames)


@given(st.binary(max_size=64))
def test_garbage_is_an_error_or_nothing(data: bytes) -> None:
    """Whatever arrives, the reader raises nothing but ProtocolError."""
    with contextlib.suppress(ProtocolError):
        list(FrameReader().feed(data))


def test_largest_message() -> None:
    """16 MiB are read, in one frame or in two; one byte more is refused at the head of the frame that exceeds."""
    half = server_frame(b"x" * (MAX_MESSAGE // 2), fin=False)

    assert sum(len(data) for _, data in FrameReader().feed(server_frame(b"x" * MAX_MESSAGE))) == MAX_MESSAGE
    assert sum(len(m) for _, m in FrameReader().feed(half + server_frame(half[10:], 0))) == MAX_MESSAGE
    reader = FrameReader()
    assert list(reader.feed(half)) == []
    with pytest.raises(ProtocolError, match="16 MiB"):
        list(reader.feed(server_frame(half[10:] + b"x", 0)[:10]))


def test_good_frames_before_a_bad_one_count() -> None:
    """What was in order is handed out before the error is raised."""
    feed = FrameReader().feed(bytes.fromhex("820190" + "810168"))

    assert next(feed) == (BINARY, b"\x90")
    with pytest.raises(ProtocolError):
        next(feed)


def test_masks_differ() -> None:
    """No mask is used twice in a row, and masks are not shared by two connections."""
    one, other = masks(), masks()
    several = [next(one) for _ in range(3000)]

    assert {4} == {len(mask) for mask in several}
    assert len(set(several)) > 2990
    assert several[:50] != [next(other) for _ in range(50)]


def welcome(opening: Opening, **changes: str | None) -> bytes:
    """The daemon's answer to a handshake, with headers changed, or left out for None."""
    key = next(line for line in opening.request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: ")).split()[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    headers: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "upgrade",
        "Sec-WebSocket-Accept": accept,
        "Sec-WebSocket-Protocol": "sessiond.1",
    }
    headers.update({name.replace("_", "-"): value for name, value in changes.items()})
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


def test_opening_request() -> None:
    """The request asks for the stream and its sub-protocol, and carries the token in a header of its own."""
    lines = Opening("example:7377", "secret").request.decode().split("\r\n")

    assert lines[0] == "GET /v1/stream HTTP/1.1"
    assert {"Host: example:7377", "Authorization: Bearer secret", "Sec-WebSocket-Protocol: sessiond.1"} < set(lines)
    assert lines[-2:] == ["", ""]
    assert not {"Authorization", "Session-Namespace"} & {
        line.partition(":")[0] for line in Opening("h:1", None).request.decode().split("\r\n")
    }
    assert "\r\nSession-Namespace: shop\r\n" in Opening("h:1", "secret", "shop").request.decode()


def test_opening_cut_anywhere() -> None:
    """The welcome may come in pieces; what follows it are frames."""
    for at in range(400):
        opening = Opening("h:1", None)
        answer = welcome(opening) + b"\x82\x01\x90"
        frames, rest = opening.feed(answer[:at]), answer[at:]
        if frames is None:
            frames, rest = opening.feed(rest), b""
        assert frames is not None
        assert frames + rest == b"\x82\x01\x90"


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": None},
        {"Connection": "close"},
        {"Connection": "not-upgrade"},
        {"Sec_WebSocket_Accept": "dGhlIHNhbXBsZSBub25jZQ=="},
        {"Sec_WebSocket_Accept": None},
        {"Sec_WebSocket_Protocol": None},
        {"Sec_WebSocket_Protocol": "sessiond.2"},
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
        {"X": "y\r\nno colon here"},
    ],
    ids=str,
)
def test_opening_not_a_sessiond(changes: dict[str, str | None]) -> None:
    """A welcome that is not exactly that of a sessiond is refused."""
    opening = Opening("h:1", None)

    with pytest.raises(ProtocolError):
        opening.feed(welcome(opening, **changes))


@pytest.mark.parametrize("status", [401, 403])
def test_opening_not_allowed(status: int) -> None:
    """401 and 403 are errors of the token, with their status."""
    with pytest.raises(AuthError) as caught:
        Opening("h:1", "secret").feed(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())

    assert status == caught.value.status
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\n\r\n",
        b"HTTP/1.1 101\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00\xff\r\n\r\n",
        b"x" * 20_000,
        b"HTTP/1.1 101 x\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    ],
    ids=range(9),
)
def test_opening_garbage(answer: bytes) -> None:
    """Any other answer, a redirect included, is refused."""
    with pytest.raises(ProtocolError):
        Opening("h:1", None).feed(answer)
