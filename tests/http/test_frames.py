"""RFC 6455 from the server's side: the handshake, and frames that come cut anywhere, or wrong."""

import base64
import random
from itertools import pairwise

import pytest

from sessiond.http import frames
from sessiond.http.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FrameReader, WrongFrame

LIMIT = 100_000
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
MASK = bytes.fromhex("37fa213d")  # §5.7


def frame(payload: bytes, opcode: int = BINARY, *, last: bool = True, mask: bytes = MASK, long: bool = False) -> bytes:
    """A frame as a client sends it, masked byte by byte. `long`: its length takes 8 bytes, however short it is."""
    size = len(payload)
    head = bytes([0x80 * last | opcode])
    if long or size > 65535:
        head += b"\xff" + size.to_bytes(8)
    elif size > 125:
        head += b"\xfe" + size.to_bytes(2)
    else:
        head += bytes([0x80 | size])
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def read(*chunks: bytes) -> list[tuple[int, bytes]]:
    """What a reader makes of these chunks."""
    reader, found = FrameReader(LIMIT), []
    for chunk in chunks:
        reader.feed(chunk)
        while (event := reader.next()) is not None:
            found.append((event[0], bytes(event[1])))
    return found


def test_the_example_of_the_rfc_is_read() -> None:
    """RFC 6455 §5.7: a masked "Hello"."""
    assert read(bytes.fromhex("818537fa213d7f9f4d5158")) == [(TEXT, b"Hello")]


STREAM: list[tuple[bytes, list[tuple[int, bytes]]]] = [
    (frame(b""), [(BINARY, b"")]),
    (frame(b"x" * 125), [(BINARY, b"x" * 125)]),
    (frame(b"y" * 126, mask=b"\0\0\0\0"), [(BINARY, b"y" * 126)]),
    (frame(b"z" * 65_536), [(BINARY, b"z" * 65_536)]),
    (frame(b"short", long=True), [(BINARY, b"short")]),
    (frame(b"are you there?", PING), [(PING, b"are you there?")]),
    (
        frame(b"one ", last=False)
        + frame(b"", CONTINUATION, last=False)
        + frame(b"between", PONG)
        + frame(b"two", CONTINUATION),
        [(PONG, b"between"), (BINARY, b"one two")],
    ),
    (frame(b"te", TEXT, last=False) + frame(b"xt", CONTINUATION), [(TEXT, b"text")]),
    (frame((1000).to_bytes(2), CLOSE), [(CLOSE, (1000).to_bytes(2))]),
]


def test_frames_may_be_cut_anywhere() -> None:
    """However the bytes of a stream are cut, the same messages come out, in the same order."""
    whole = b"".join(sent for sent, _ in STREAM)
    expected = [event for _, events in STREAM for event in events]

    assert read(whole) == expected
    assert read(*(whole[at : at + 1] for at in range(len(whole)))) == expected
    for seed in range(200):
        chance = random.Random(seed)
        cuts = sorted({0, len(whole), *(chance.randrange(len(whole)) for _ in range(20))})
        assert read(*(whole[a:b] for a, b in pairwise(cuts))) == expected


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x82\x01x", 1002),  # not masked
        (b"\xc2\x80" + MASK, 1002),  # a reserved bit
        (frame(b"", 3), 1002),
        (frame(b"", 11), 1002),
        (frame(b"", CONTINUATION), 1002),
        (frame(b"a", last=False) + frame(b"b"), 1002),
        (frame(b"a", last=False) + frame(b"b", TEXT), 1002),
        (frame(b"", PING, last=False), 1002),
        (frame(b"x" * 126, PING), 1002),
        (frame(b"x", PING, long=True), 1002),
        (frame(b"x" * LIMIT) + frame(b"x" * (LIMIT + 1)), 1009),
        (b"\x82\xff" + (2**63).to_bytes(8), 1009),
        (frame(b"x" * LIMIT, last=False) + frame(b"x", CONTINUATION), 1009),
    ],
    ids=[
        *("unmasked", "reserved-bit", "opcode-3", "opcode-11", "nothing-to-continue", "binary-inside", "text-inside"),
        *("half-a-ping", "long-ping", "long-length-of-ping", "too-long", "far-too-long", "too-long-together"),
    ],
)
def test_a_wrong_frame_is_refused_as_soon_as_its_head_is_there(sent: bytes, code: int) -> None:
    """What came before it is read."""
    with pytest.raises(WrongFrame) as wrong:
        read(sent)
    assert wrong.value.code == code


def test_what_lies_unread_is_counted() -> None:
    """Bytes of a frame, and fragments of a message, until the message has been handed over."""
    reader = FrameReader(LIMIT)
    sent = frame(b"x" * 1000, last=False) + frame(b"y" * 50, CONTINUATION)

    reader.feed(sent[:500])
    assert reader.next() is None
    assert reader.unread == 500
    reader.feed(sent[500:-1])
    assert reader.next() is None
    assert reader.unread == 1000 + 2 + 4 + 49
    reader.feed(sent[-1:])
    assert reader.next() is not None
    assert reader.unread == 0


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_of_ours_has_the_shortest_length(size: int) -> None:
    """Not masked, in one piece."""
    found = frames.encode(BINARY, b"x" * size)

    head = {0: b"\x82\x00", 125: b"\x82\x7d", 126: b"\x82\x7e\x00\x7e", 65_535: b"\x82\x7e\xff\xff"}
    assert found == head.get(size, b"\x82\x7f" + (65_536).to_bytes(8)) + b"x" * size


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b"", b""),
        ((1000).to_bytes(2) + b"bye", (1000).to_bytes(2)),
        ((1001).to_bytes(2), (1001).to_bytes(2)),
        ((4999).to_bytes(2), (1000).to_bytes(2)),
        *((code.to_bytes(2), (1002).to_bytes(2)) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)),
        (b"\x03", (1002).to_bytes(2)),
    ],
)
def test_a_close_is_answered_in_kind(payload: bytes, answer: bytes) -> None:
    """With 1000 or 1001, and with 1002 where there is a code that may not stand there."""
    assert frames.goodbye(payload) == answer


ASKED = {
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": "other, mine",
}


def test_a_handshake_is_answered_as_the_rfc_says() -> None:
    """With the accept of §1.3, and the one sub-protocol."""
    answer = frames.accept(ASKED, "mine")

    assert answer == {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol": "mine",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"Upgrade": "h2c"},
        {"Connection": "close"},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Key": base64.b64encode(b"x" * 15).decode()},
        {"Sec-WebSocket-Key": KEY[:-1]},
        {"Sec-WebSocket-Key": "é" * 24},
        {"Sec-WebSocket-Protocol": "minefield"},
        *({name: ""} for name in ASKED),
    ],
    ids=str,
)
def test_what_is_no_handshake_has_no_answer(wrong: dict[str, str]) -> None:
    """Each header is needed, and means something."""
    assert frames.accept({**ASKED, **wrong}, "mine") is None
