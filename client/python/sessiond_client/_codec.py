"""Data as bytes and back: the one door to msgpack and json.

Writing is strict, so that what comes back is what was stored: exact types only, string keys at every level.
Reading takes whatever is one map with string keys, since other languages write too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import msgpack

from ._types import Data
from .errors import Failed, InvalidRequest

#: What needs no second look, by format. An int has a range, and in JSON a float may have none.
_PLAIN: dict[str, frozenset[type]] = {
    "msgpack": frozenset({str, bool, type(None), float, bytes}),
    "json": frozenset({str, bool, type(None)}),
}
_WIRE_MAX = 16 * 1024 * 1024 - 64 * 1024  # a message may have 16 MiB; the rest is for the other arguments
#: Bytes. A packer keeps what its largest value took; one that took more than this is not kept.
_LARGEST_KEPT = 1024 * 1024


class _Packer(threading.local):
    """A packer for each thread: msgpack.packb makes a new one every time, which takes longer than packing (1.1 µs, and
    0.35 for the same call with one that is kept)."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.pack: Callable[[Any], bytes] = msgpack.Packer(buf_size=4096).pack


_packer = _Packer()


def pack(value: Any) -> bytes:
    """The value as MessagePack, unchecked."""
    packed = _packer.pack(value)
    if len(packed) > _LARGEST_KEPT:
        _packer.renew()
    return packed


def unpack(packed: bytes) -> Any:
    """The one value in these bytes. Raises ValueError for anything else, extension types included, but for timestamps."""
    # Claimed lengths are held against the number of bytes by msgpack itself, nesting against 1,024.
    return msgpack.unpackb(packed, strict_map_key=False, ext_hook=_no_extension)


def encode(data: Data, format: str) -> tuple[str, bytes]:
    """The format and the bytes in which the data travels. Raises InvalidRequest for what cannot be stored."""
    if type(data) is bytes:
        format, packed = "bytes", data
    else:
        packed = encode_map(data, format)
    if len(packed) > _WIRE_MAX:
        raise InvalidRequest("The data is too large for one message; keep less in the session.", code="too_large")
    return format, packed


def encode_map(data: Any, format: str) -> bytes:
    """The map as bytes in this format. Errors name the top-level entry and the type at fault, never the value."""
    if type(data) is not dict:
        raise _wrong(f"Data is a dict or bytes, not {type(data).__name__}")
    plain = _PLAIN[format]
    for name, value in data.items():
        if type(name) is not str:
            raise _wrong(f"The names of entries are strings, not {type(name).__name__}")
        if type(value) not in plain:
            try:
                _check(name, value, format, plain)
            except RecursionError:
                raise _wrong(f"Entry {name!r} is nested too deeply") from None
    return encode_value(data, format)


def encode_value(value: Any, format: str) -> bytes:
    """One value in this format. Equal bytes mean an equal value, so this is also how changes are found."""
    try:
        if format == "json":
            return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        return pack(value)
    except UnicodeEncodeError:
        raise _wrong("A string holds half a surrogate pair, which has no UTF-8") from None
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _wrong(f"A value is foreign to {format} or nested too deeply") from None


def decode(format: str, packed: bytes) -> Data:
    """The data in these bytes. Raises Failed when they are not one map with string keys."""
    if format == "bytes":
        return packed
    try:
        data = json.loads(packed) if format == "json" else unpack(packed)
    except (ValueError, TypeError, RecursionError):
        data = None
    if type(data) is not dict:
        raise _unreadable()
    for name in data:
        if type(name) is not str:
            raise _unreadable()
    return data


def _check(name: str, value: Any, format: str, plain: frozenset[type]) -> None:
    """Refuses what would not come back as it went; bools, for one, are no numbers here, and an IntEnum no int."""
    kind = type(value)
    if kind is dict:
        for key, each in value.items():
            if type(key) is not str:
                raise _wrong(f"Entry {name!r} holds a dict with a key that is no string but {type(key).__name__}")
            if type(each) not in plain:
                _check(name, each, format, plain)
    elif kind is list or kind is tuple:
        for each in value:
            if type(each) not in plain:
                _check(name, each, format, plain)
    elif kind is int:
        if not -(2**63) <= value < 2**64:
            raise _wrong(f"Entry {name!r} holds an int beyond 64 bits")
    elif kind is float:
        if value - value != 0:  # NaN and the infinities
            raise _wrong(f"Entry {name!r} holds a float that JSON cannot express")
    else:
        raise _wrong(f"Entry {name!r} holds {kind.__name__}, which {format} cannot keep")


def _unreadable() -> Failed:
    return Failed(
        "The session is there, but its data is not a map that this client can read; set or destroy it.",
        code="unreadable_data",
    )


def _no_extension(code: int, _: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _wrong(why: str) -> InvalidRequest:
    return InvalidRequest(f"{why}. Data is made of None, bool, int, float, str, bytes, list and dict.", code="bad_data")
