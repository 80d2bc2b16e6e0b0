"""Everything that turns bytes of others into values: whatever comes, there is a value or the one error that is declared."""

import random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sessiond import codec
from sessiond.calls import Policy
from sessiond.errors import Damaged, Refused
from sessiond.http import wire
from sessiond.vault import Clear, Key, Vault
from sessiond_client import AuthError
from sessiond_client._frames import FrameReader, Opening, ProtocolError
from sessiond_client.cookies import SessionCookie, decode_cookie, encode_cookie, key_of, sign, unsign

from .support import SEED, corpus, fuzz

POLICY = Policy()


def frames(data: bytes, cuts: list[int]) -> tuple[list[tuple[int, bytes]], bool]:
    """What a reader makes of bytes that are cut at these places, and whether it refused them in the end."""
    reader, events = FrameReader(), []
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            for event in reader.feed(data[start:end]):
                events.append(event)
    except ProtocolError:
        return events, True
    return events, False


def check_frames(data: bytes) -> None:
    chance = random.Random(SEED)
    whole = frames(data, [])
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(5))

    assert frames(data, cuts) == whole
    assert sum(len(payload) for _, payload in whole[0]) <= len(data)


def test_frames() -> None:
    """The reader of the stream says the same wherever the bytes are cut, and refuses by ProtocolError alone."""
    assert fuzz("frames", check_frames) > 100


@given(st.lists(st.binary(max_size=300), max_size=5), st.data())
def test_frames_of_any_cut(chunks: list[bytes], data: st.DataObject) -> None:
    """The same for bytes of hypothesis' own."""
    raw = b"".join(chunks)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))

    assert frames(raw, cuts) == frames(raw, [])


def refusal_of(opening: Opening, data: bytes) -> str:
    try:
        opening.feed(data)
    except (ProtocolError, AuthError) as e:
        return str(e)
    return ""


def check_opening(data: bytes) -> None:
    refusal_of(Opening("localhost:7377", None), data)

    assert "secret" not in refusal_of(Opening("localhost:7377", "secret"), data)


def test_the_answer_to_a_handshake() -> None:
    """Whatever answers the client's handshake is a welcome, or one of two errors, which never show the token."""
    assert fuzz("requests", check_opening) > 100


def check_message(data: bytes) -> None:
    try:
        read = wire.read_message(data, "default", POLICY)
    except wire.Malformed:
        return
    for seq, call in read:
        assert 1 <= seq <= wire.MAX_SEQ
        if isinstance(call, Refused):
            assert call.code.isidentifier()
            assert call.text.endswith(".")


def test_messages() -> None:
    """A message is an array of calls, each valid or refused with a code, or it is Malformed; nothing else is raised."""
    assert fuzz("messages", check_message) > 100


def code_of(format: str, data: bytes) -> str | None:
    """Why data is refused; None when it is not."""
    try:
        codec.check_strict(format, data)
    except Refused as e:
        return e.code
    return None


def check_json(data: bytes) -> None:
    if code := code_of(codec.JSON, data):
        assert code.startswith(("bad_", "empty_", "too_", "duplicate_", "trailing_"))
    else:
        value: Any = msgspec.json.decode(data)
        assert isinstance(value, dict)
        assert msgspec.msgpack.decode(codec.convert(codec.JSON, data, codec.MSGPACK)) == value


def test_json() -> None:
    """What passes the strict check is one map, and the same one in MessagePack; all else is Refused."""
    assert fuzz("json", check_json) > 100


def check_msgpack(data: bytes) -> None:
    if code_of(codec.MSGPACK, data) is None:
        assert isinstance(msgspec.msgpack.decode(data), dict)


def test_msgpack() -> None:
    """The same for MessagePack."""
    assert fuzz("messages", check_msgpack) > 100


def check_cookie(data: bytes) -> None:
    raw = data.decode("latin-1")
    value = decode_cookie(raw)
    sid = unsign(value, ["first", "second"])

    assert sid is None or (value in (sign(sid, "first"), sign(sid, "second")))
    assert len(key_of(value)) == 32
    assert decode_cookie(encode_cookie(value)) == value or "\ud800" <= max(value, default="") <= "\udfff"

    header = raw if raw.startswith("sid=") else f"sid={raw}"
    bare, signed = SessionCookie("sid").read([header]).sid, SessionCookie("sid", secret="first").read([raw, header]).sid
    values = {part.partition("=")[2].strip(" \t") for part in f"{raw};{header}".split(";")}
    assert bare is None or (bare in map(decode_cookie, values) and len(bare) == 43)
    assert signed is None or sign(signed, "first") in map(decode_cookie, values)


def test_cookies() -> None:
    """Cookies are read without an error, and hold a sid only if it has our form, or a secret has signed it."""
    assert fuzz("cookies", check_cookie) > 100


ROW = b"the columns beside it"
VAULT = Vault([Key("red", b"r" * 32), Clear()])
KEPT = {sealed: VAULT.open(ROW, sealed) for sealed in corpus("rows")}


def check_row(data: bytes) -> None:
    try:
        record = VAULT.open(ROW, data)
    except Damaged:
        assert data not in KEPT
    else:
        assert record == KEPT[data]


def test_rows() -> None:
    """A stored row opens as what was written, encrypted or not; changed anywhere, it is Damaged and nothing else."""
    assert any(KEPT.values())
    assert fuzz("rows", check_row) > 100
