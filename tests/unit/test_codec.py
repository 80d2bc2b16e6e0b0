"""Bytes that are JSON or MessagePack: what is let in at each of two depths, and splicing and converting what is kept."""

import json
import math
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessiond import codec
from sessiond.errors import Refused
from sessiond.record import Record

FINE, BAD = "fine", "bad_data"


def outcome(check: Any, format: str, data: bytes) -> str:
    try:
        check(format, data)
    except Refused as refusal:
        return refusal.code
    return FINE


def nested(levels: int, opening: bytes, closing: bytes = b"") -> bytes:
    return opening * levels + closing * levels


# name: (data, what check_map says, what check_strict says)
JSON_CASES: dict[str, tuple[bytes, str, str]] = {
    "empty map": (b"{}", FINE, FINE),
    "all kinds": ('{"a":[1,-1.5,true,false,null,"é€😀",{"":{}}]}'.encode(), FINE, FINE),
    "white space": (b' \t\r\n{ "a" :\n1 } ', FINE, FINE),
    "nothing": (b"", BAD, "empty_body"),
    "only white space": (b"  ", BAD, "bad_json"),
    "a list": (b"[]", BAD, "bad_shape"),
    "a number": (b"1", BAD, "bad_shape"),
    "null": (b"null", BAD, "bad_shape"),
    "a string": (b'"{}"', BAD, "bad_shape"),
    "cut": (b'{"a":', BAD, "bad_json"),
    "trailing": (b"{} {}", BAD, "bad_json"),
    "trailing comma": (b'{"a":1,}', BAD, "bad_json"),
    "trailing comma inside": (b'{"a":[1,]}', BAD, "bad_json"),
    "single quotes": (b"{'a':1}", BAD, "bad_json"),
    "bare name": (b"{a:1}", BAD, "bad_json"),
    "number as name": (b"{1:1}", BAD, "bad_json"),
    "comment": (b"{}//", BAD, "bad_json"),
    "leading zero": (b'{"a":01}', BAD, "bad_json"),
    "plus": (b'{"a":+1}', BAD, "bad_json"),
    "hex": (b'{"a":0x1}', BAD, "bad_json"),
    "bare point": (b'{"a":1.}', BAD, "bad_json"),
    "NaN": (b'{"a":NaN}', BAD, "bad_json"),
    "Infinity": (b'{"a":-Infinity}', BAD, "bad_json"),
    "1e999": (b'{"a":1e999}', FINE, "bad_json"),
    "-1e999 deep": (b'{"a":[{"b":-1e999}]}', FINE, "bad_json"),
    "1e308": (b'{"a":1e308}', FINE, FINE),
    "2^53": (b'{"a":9007199254740992}', FINE, FINE),
    "2^64 - 1": (b'{"a":18446744073709551615}', FINE, FINE),
    "-2^63": (b'{"a":-9223372036854775808}', FINE, FINE),
    "2^64": (b'{"a":18446744073709551616}', FINE, "bad_number"),
    "-2^63 - 1": (b'{"a":-9223372036854775809}', FINE, "bad_number"),
    "5000 digits": (b'{"a":' + b"9" * 5000 + b"}", FINE, "bad_number"),
    "duplicate": (b'{"a":1,"a":1}', FINE, "duplicate_field"),
    "duplicate by escape": (b'{"a":1,"\\u0061":2}', FINE, "duplicate_field"),
    "duplicate inside": (b'{"x":{"a":1,"a":2}}', FINE, "duplicate_field"),
    "duplicate in a list": (b'{"x":[{"a":1,"a":2}]}', FINE, "duplicate_field"),
    "lone surrogate": (b'{"a":"\\ud800"}', BAD, "bad_utf8"),
    "lone low surrogate": (b'{"a":"\\udc00x"}', BAD, "bad_utf8"),
    "lone surrogate in a name": (b'{"\\ud800":1}', BAD, "bad_utf8"),
    "pair of surrogates": (b'{"a":"\\ud83d\\ude00"}', FINE, FINE),
    "U+0000": (b'{"a\\u0000":"\\u0000"}', FINE, FINE),
    "control character": (b'{"a":"\x01"}', BAD, "bad_json"),
    "byte order mark": (b"\xef\xbb\xbf{}", BAD, "bad_utf8"),
    "UTF-16": ("{}".encode("utf-16"), BAD, "bad_utf8"),
    "UTF-16 without mark": ('{"a":1}'.encode("utf-16-le"), BAD, "bad_json"),
    "bad UTF-8": (b'{"a":"\xff"}', BAD, "bad_utf8"),
    "bad UTF-8 in a name": (b'{"\xff":1}', BAD, "bad_utf8"),
    "overlong UTF-8": (b'{"a":"\xc0\xaf"}', BAD, "bad_utf8"),
    "surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', BAD, "bad_utf8"),
    "depth 32": (b'{"a":' + nested(31, b"[", b"]") + b"}", FINE, FINE),
    "depth 33": (b'{"a":' + nested(32, b"[", b"]") + b"}", FINE, "too_deep"),
    "depth 33 of maps": (nested(33, b'{"a":') + b"1" + b"}" * 33, FINE, "too_deep"),
    "100,000 brackets": (b'{"a":' + nested(100_000, b"[", b"]") + b"}", BAD, "too_deep"),
    "100,000 opened": (b'{"a":' + nested(100_000, b"["), BAD, "too_deep"),
    "100,000 at once": (nested(100_000, b"["), BAD, "too_deep"),
    "1000 entries": (json.dumps({str(n): n for n in range(1000)}).encode(), FINE, FINE),
    "1001 entries": (json.dumps({str(n): n for n in range(1001)}).encode(), FINE, "too_many_fields"),
    "1001 entries inside": (json.dumps({"a": {str(n): n for n in range(1001)}}).encode(), FINE, "too_many_fields"),
}

MSGPACK_CASES: dict[str, tuple[bytes, str, str]] = {
    "empty map": (b"\x80", FINE, FINE),
    "all kinds": (msgpack.packb({"a": [1, -1.5, True, False, None, "é€😀", {"": {}}, b"\xff"]}), FINE, FINE),
    "nothing": (b"", BAD, "empty_body"),
    "a list": (b"\x90", BAD, "bad_shape"),
    "nil": (b"\xc0", BAD, "bad_shape"),
    "0xc1": (b"\xc1", BAD, "bad_msgpack"),
    "0xc1 inside": (b"\x81\xa1a\xc1", BAD, "bad_msgpack"),
    "cut": (b"\x81\xa1a", BAD, "bad_msgpack"),
    "trailing": (b"\x80\x80", BAD, "trailing_data"),
    "trailing zero": (b"\x80\x00", BAD, "trailing_data"),
    "4 G entries": (b"\xdf\xff\xff\xff\xff", BAD, "bad_msgpack"),
    "4 G items": (b"\x81\xa1a\xdd\xff\xff\xff\xff", BAD, "bad_msgpack"),
    "4 G bytes": (b"\x81\xa1a\xc6\xff\xff\xff\xff", BAD, "bad_msgpack"),
    "4 G characters": (b"\x81\xa1a\xdb\xff\xff\xff\xff", BAD, "bad_msgpack"),
    "4 G of extension": (b"\x81\xa1a\xc9\xff\xff\xff\xff\x05", BAD, "bad_msgpack"),
    "number as name": (b"\x81\x01\x01", BAD, "bad_msgpack"),
    "bytes as name": (b"\x81\xc4\x01a\x01", BAD, "bad_msgpack"),
    "nil as name": (b"\x81\xc0\x01", BAD, "bad_msgpack"),
    "list as name": (b"\x81\x90\x01", BAD, "bad_msgpack"),
    "number as name inside": (b"\x81\xa1a\x81\x01\x01", FINE, "bad_msgpack"),
    "bytes as name inside": (b"\x81\xa1a\x81\xc4\x01a\x01", FINE, "bad_msgpack"),
    "duplicate": (b"\x82\xa1a\x01\xa1a\x01", FINE, "duplicate_field"),
    "duplicate by another length": (b"\x82\xa1a\x01\xd9\x01a\x01", FINE, "duplicate_field"),
    "duplicate inside": (b"\x81\xa1x\x91\x82\xa1a\x01\xa1a\x01", FINE, "duplicate_field"),
    "bad UTF-8": (b"\x81\xa1a\xa1\xff", FINE, "bad_utf8"),
    "bad UTF-8 in a name": (b"\x81\xa1\xff\x01", BAD, "bad_utf8"),
    "overlong UTF-8": (b"\x81\xa1a\xa2\xc0\xaf", FINE, "bad_utf8"),
    "surrogate in UTF-8": (b"\x81\xa1a\xa3\xed\xa0\x80", FINE, "bad_utf8"),
    "extension": (b"\x81\xa1a\xd4\x05\x00", FINE, "bad_msgpack"),
    "timestamp 32": (b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", FINE, "bad_msgpack"),
    "timestamp 64": (b"\x81\xa1a\xd7\xff" + b"\x00" * 8, FINE, "bad_msgpack"),
    "timestamp 96": (b"\x81\xa1a\xc7\x0c\xff" + b"\x00" * 12, FINE, "bad_msgpack"),
    "NaN": (b"\x81\xa1a\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", FINE, FINE),
    "2^64 - 1": (b"\x81\xa1a\xcf" + b"\xff" * 8, FINE, FINE),
    "depth 32": (b"\x81\xa1a" + nested(30, b"\x91") + b"\x90", FINE, FINE),
    "depth 33": (b"\x81\xa1a" + nested(31, b"\x91") + b"\x90", FINE, "too_deep"),
    "100,000 lists": (b"\x81\xa1a" + nested(100_000, b"\x91"), BAD, "too_deep"),
    "100,000 at once": (nested(100_000, b"\x91"), BAD, "too_deep"),
    "1001 entries": (msgpack.packb({str(n): n for n in range(1001)}), FINE, "too_many_fields"),
}

CASES = [
    pytest.param(format, *case, id=f"{format}: {name}")
    for format, cases in (("json", JSON_CASES), ("msgpack", MSGPACK_CASES))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("format", "data", "shallow", "strict"), CASES)
def test_what_is_let_in(format: str, data: bytes, shallow: str, strict: str) -> None:
    """check_map asks for one map with string keys; check_strict for all that programs disagree on, with a code each."""
    found = outcome(codec.check_map, format, data), outcome(codec.check_strict, format, data)

    assert (shallow, strict) == found


@pytest.mark.parametrize(("format", "data", "shallow", "strict"), CASES)
def test_no_case_breaks_what_works_on_data(format: str, data: bytes, shallow: str, strict: str) -> None:
    """On data however odd, patch and convert answer with data or with a Refused, and patch works on all that is let in."""
    other = "msgpack" if format == "json" else "json"

    patched = outcome(lambda f, d: codec.patch(f, d, "json", b'{"new":1}', ["a"]), format, data)
    converted = outcome(lambda f, d: codec.convert(f, d, other), format, data)

    assert (FINE if shallow == FINE else BAD) == patched
    assert converted in (FINE, "not_representable")
    if strict not in (FINE, "empty_body", "bad_shape"):
        assert "not_representable" == converted


@pytest.mark.parametrize("data", [b"", b"\xff", b"{"])
def test_bytes_are_not_looked_into(data: bytes) -> None:
    """Data in the format bytes passes both depths whatever it holds."""
    assert (FINE, FINE) == (outcome(codec.check_map, "bytes", data), outcome(codec.check_strict, "bytes", data))


@given(st.binary(max_size=200), st.sampled_from(["json", "msgpack"]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_nothing_but_refused(data: bytes, format: str) -> None:
    """Whatever bytes come, the checks say fine or raise Refused; what is strictly fine is fine."""
    shallow, strict = outcome(codec.check_map, format, data), outcome(codec.check_strict, format, data)

    assert not (strict == FINE and shallow != FINE)


# Messages and rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        b"\x01\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xd4\x05\x00",
        b"\xa1\xff",
        b"\x81\x01\x01",
        nested(100_000, b"\x91"),
    ],
    ids=["empty", "0xc1", "cut", "trailing", "4 G", "extension", "UTF-8", "number as name", "deep"],
)
def test_unpack_refuses_with_value_error(data: bytes) -> None:
    """A message that is no MessagePack, or holds an extension type, is a ValueError and nothing else."""
    with pytest.raises(ValueError, match=r"not MessagePack|nested too deep"):
        codec.unpack(data)


def test_unpack_reads_what_pack_wrote() -> None:
    """Messages come out as they went in: numbers, text, bytes, arrays, maps."""
    message = [[1, "get", b"\x00" * 32, None, True, -(2**63), 2**64 - 1, 1.5, {"é": ["x"]}]]

    assert message == codec.unpack(codec.pack(message))


@pytest.mark.parametrize("data", [b"", b"\x90", b"\x80", b"\x9c" + b"\xc0" * 12, b"\xc1"])
def test_a_reader_refuses_what_is_no_such_value(data: bytes) -> None:
    """reader_of raises ValueError for bytes that are not the value it reads."""
    with pytest.raises(ValueError, match=r"."):
        codec.reader_of(Record)(data)


def test_json_object() -> None:
    """json_object reads one object and raises ValueError for anything else."""
    assert {"a": [1]} == codec.json_object('{"a":[1]}')
    for text in ("", "[]", "{", "{}{}", '{"a":\ud800}', "[" * 100_000):
        with pytest.raises(ValueError, match="not a JSON object"):
            codec.json_object(text)


# Patch -------------------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
maps = st.dictionaries(names, values, max_size=6)
formats = st.sampled_from(["json", "msgpack"])


def write(format: str, value: Any) -> bytes:
    """As another program would: not with the library that sessiond reads with, and with generous spacing."""
    return json.dumps(value, indent=1).encode() if format == "json" else msgpack.packb(value)


def read(format: str, data: bytes) -> Any:
    return json.loads(data) if format == "json" else msgpack.unpackb(data)


@given(formats, maps, formats, maps | st.none(), st.lists(names, max_size=3), st.data())
@settings(max_examples=200, deadline=None)
def test_patch_is_the_dict_operation(
    format: str, before: Any, patch_format: str, changes: Any, remove: list[str], data: st.DataObject
) -> None:
    """patch puts the changes in and takes the removed out, in that order, in any mixture of the two formats."""
    if before:
        remove = [*remove, *data.draw(st.lists(st.sampled_from(sorted(before)), max_size=2))]
    stored = write(format, before)
    sent = None if changes is None else write(patch_format, changes)

    patched = codec.patch(format, stored, patch_format, sent, remove)

    expected = {name: value for name, value in (before | (changes or {})).items() if name not in remove}
    assert expected == read(format, patched)
    assert FINE == outcome(codec.check_map, format, patched)


@given(formats, maps, maps)
@settings(max_examples=200, deadline=None)
def test_patch_keeps_the_bytes_of_the_others(format: str, before: Any, changes: Any) -> None:
    """A value that the patch does not name has the same bytes afterwards, and so has every value put in."""
    decode = msgspec.json.decode if format == "json" else msgspec.msgpack.decode
    stored, sent = write(format, before), write(format, changes)
    raw_before = decode(stored, type=dict[str, msgspec.Raw])
    raw_sent = decode(sent, type=dict[str, msgspec.Raw])

    patched = decode(codec.patch(format, stored, format, sent, []), type=dict[str, msgspec.Raw])

    expected = {name: bytes(raw) for name, raw in (raw_before | raw_sent).items()}
    assert expected == {name: bytes(raw) for name, raw in patched.items()}


def test_patch_of_duplicates_leaves_one() -> None:
    """Of an entry that stored data names twice the last is kept, as readers of JSON do."""
    assert b'{"a":2,"b":1}' == codec.patch("json", b'{"a":1, "a":2}', "json", b'{"b":1}', [])


def test_patch_of_opaque_data() -> None:
    """Data in the format bytes is refused as opaque, even where it happens to be a map."""
    with pytest.raises(Refused) as refusal:
        codec.patch("bytes", b"{}", "json", b"{}", [])

    assert "opaque_data" == refusal.value.code


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_null_entries_takes_a_merge_patch_apart(format: str) -> None:
    """The names whose value is null are told apart from the entries to put in; null inside a value stays."""
    data = write(format, {"a": None, "b": 1, "c": [None], "d": "null", "e": None, "f": {"g": None}})

    kept, gone = codec.null_entries(format, data)

    assert ["a", "e"] == gone
    assert {"b": 1, "c": [None], "d": "null", "f": {"g": None}} == read(format, kept)


# Convert -----------------------------------------------------------------------------------------------


@given(formats, maps)
@example("json", {"a": 1.0, "b": 5e-324, "c": 1.7976931348623157e308, "d": -0.0})
@settings(max_examples=200, deadline=None)
def test_convert_is_exact(format: str, value: Any) -> None:
    """What is converted reads as the very same value, kinds of numbers included, and converting back changes nothing."""
    other = "msgpack" if format == "json" else "json"
    data = write(format, value)

    converted = codec.convert(format, data, other)

    assert repr(value) == repr(read(other, converted))
    assert repr(value) == repr(read(format, codec.convert(other, converted, format)))


@pytest.mark.parametrize("bad", [b"\xff", 2**53, -(2**53), math.nan, math.inf, -math.inf], ids=repr)
@pytest.mark.parametrize("place", ["top", "list", "map"])
def test_convert_to_json_refuses(bad: Any, place: str) -> None:
    """Bytes, integers beyond 2^53 − 1, NaN and infinities have no JSON that every reader reads alike."""
    value = {"top": {"a": bad}, "list": {"a": [0, bad]}, "map": {"a": {"b": bad}}}[place]

    assert "not_representable" == outcome(lambda f, d: codec.convert(f, d, "json"), "msgpack", msgpack.packb(value))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "18446744073709551616", "-9223372036854775809"])
def test_convert_to_msgpack_refuses(number: str) -> None:
    """Numbers that MessagePack cannot hold are refused, never made infinite or rounded."""
    data = b'{"a":[%s]}' % number.encode()

    assert "not_representable" == outcome(lambda f, d: codec.convert(f, d, "msgpack"), "json", data)


@pytest.mark.parametrize("number", [2**53 - 1, -(2**53) + 1])
def test_convert_keeps_the_largest_exact_integers(number: int) -> None:
    """±(2^53 − 1) is the last integer that goes to JSON."""
    assert b'{"a":%d}' % number == codec.convert("msgpack", msgpack.packb({"a": number}), "json")


@pytest.mark.parametrize(("source", "target"), [("bytes", "json"), ("json", "bytes"), ("msgpack", "bytes")])
def test_opaque_data_has_one_form(source: str, target: str) -> None:
    """Nothing is converted to or from bytes."""
    assert "not_representable" == outcome(lambda f, d: codec.convert(f, d, target), source, b"{}")


@pytest.mark.parametrize("format", ["json", "msgpack", "bytes"])
def test_convert_to_its_own_format_is_the_same(format: str) -> None:
    """Data asked for in its own format comes as it is, without a look."""
    assert b"\xff anything" == codec.convert(format, b"\xff anything", format)
