"""Data as bytes and back."""

from __future__ import annotations

import enum
import math
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client import InvalidRequest
from sessiond_client._codec import decode, encode

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | text | st.floats(allow_nan=False)
values = st.recursive(scalars | st.binary(max_size=8), lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v))
plain_scalars = scalars.filter(lambda value: not isinstance(value, float) or math.isfinite(value))
json_values = st.recursive(plain_scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3))


@given(st.dictionaries(text, values, max_size=4))
def test_msgpack_round_trip(data: dict[str, Any]) -> None:
    """What is written as MessagePack comes back equal."""
    assert data == decode(*encode(data, "msgpack"))


@given(st.dictionaries(text, json_values, max_size=4))
def test_json_round_trip(data: dict[str, Any]) -> None:
    """What is written as JSON comes back equal."""
    assert data == decode(*encode(data, "json"))


def test_opaque_round_trip() -> None:
    """Bytes stay bytes, whatever the client's format."""
    assert encode(b"\xff\x00", "json") == ("bytes", b"\xff\x00")
    assert decode("bytes", b"\xff\x00") == b"\xff\x00"


def test_the_memory_of_a_large_value_is_given_back() -> None:
    """A thread that has once written 100 MB does not hold them from then on."""
    script = """
from pathlib import Path
from sessiond_client._codec import encode_map
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
encode_map({}, "msgpack")
before = held()
encode_map({"x": "x" * 100_000_000}, "msgpack")
print(held() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 50_000_000


class Colour(enum.IntEnum):
    """A subclass of int that would come back as a plain int."""

    RED = 1


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
FOREIGN: list[Any] = [
    datetime(2026, 1, 1, tzinfo=UTC),
    {1, 2},
    object(),
    Colour.RED,
    msgpack.Timestamp(1),
    msgpack.ExtType(5, b""),
    bytearray(b"x"),
    2**64,
    -(2**63) - 1,
    "\ud800",
    {"deeper": [{"x": datetime(2026, 1, 1, tzinfo=UTC)}]},
    {1: "int key"},
    {b"k": "bytes key"},
    CYCLE,
]


@pytest.mark.parametrize("format", ["msgpack", "json"])
@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: type(value).__name__)
def test_foreign_values(value: Any, format: str) -> None:
    """A value that would not come back as it went is refused, at any depth."""
    with pytest.raises(InvalidRequest) as caught:
        encode({"entry": value}, format)

    assert caught.value.code == "bad_data"


def test_foreign_values_are_named_by_entry_and_type() -> None:
    """The error names the top-level entry and the type, never the value."""
    with pytest.raises(InvalidRequest, match=r"'seen'.*datetime") as caught:
        encode({"ok": 1, "seen": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}, "msgpack")

    assert "2026" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, b"bytes"], ids=repr)
def test_what_only_json_refuses(value: Any) -> None:
    """NaN, the infinities and bytes are fine in MessagePack and refused for JSON."""
    encode({"entry": value}, "msgpack")
    with pytest.raises(InvalidRequest):
        encode({"entry": value}, "json")


@pytest.mark.parametrize("data", [None, [], "text", 1, bytearray(b"x"), {1: 2}], ids=repr)
def test_data_is_a_dict_or_bytes(data: Any) -> None:
    """Data of any other type is refused."""
    with pytest.raises(InvalidRequest):
        encode(data, "msgpack")


def test_tuples_come_back_as_lists() -> None:
    """A tuple is stored as a list."""
    assert decode(*encode({"pair": (1, 2)}, "msgpack")) == {"pair": [1, 2]}
