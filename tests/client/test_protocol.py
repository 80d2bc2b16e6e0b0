"""Verbs and messages, against the golden files and at their edges."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgpack
import pytest

from sessiond_client import (
    AuthError,
    Conflict,
    Entry,
    Event,
    Exists,
    Failed,
    InvalidRequest,
    Listing,
    Missing,
    Record,
    Unavailable,
)
from sessiond_client import _protocol as protocol
from sessiond_client._frames import ProtocolError

from .support import golden, plain

KEY = b"k" * 32


def build(call: dict[str, Any]) -> protocol.Call[Any]:
    """The call that a row of the golden file describes, built from what a caller would pass."""
    given = {name: plain(value) for name, value in call.items() if name not in ("seq", "verb")}
    for duration in ("ttl", "lifetime", "grace", "renew"):
        if type(given.get(duration)) is int:
            given[duration] /= 1000
    if "format" in given:
        reads: dict[str, Callable[[bytes], Any]] = {"msgpack": msgpack.unpackb, "json": json.loads, "bytes": bytes}
        for payload in {"data", "set"} & given.keys():
            given[payload] = reads[given["format"]](given[payload])
    if call["verb"] == "list":
        given["everyone"] = "user" not in given  # the client's own guard: the wire has no such argument
    names = {"key": "sid", "new_key": "new_sid", "except_key": "except_sid"}
    verb = {"set": "set_", "list": "list_"}.get(call["verb"], call["verb"])
    built: protocol.Call[Any] = getattr(protocol, verb)(**{names.get(name, name): each for name, each in given.items()})
    return built


@pytest.mark.parametrize("row", golden("calls.json", "messages"), ids=lambda row: row["name"])
def test_calls_golden(row: dict[str, Any]) -> None:
    """A message of calls is, byte for byte, the golden one."""
    packed = [protocol.pack_call(call["seq"], build(call)) for call in row["calls"]]

    assert row["hex"] == protocol.join_calls(packed).hex()


def meaning(answer: dict[str, Any]) -> Any:
    """What a caller gets for an answer of the golden file: a value, or an error with what it carries."""
    status, verb = answer["status"], answer["verb"]
    if "format" in answer:
        raw = answer["data"]
        fields = {name: answer[name] for name in Record.__slots__ if name not in ("data", "ttl")}
        data = msgpack.unpackb(raw) if answer["format"] == "msgpack" else json.loads(raw)
        record = Record(**fields, data=data, ttl=answer["ttl"] / 1000)
        return record if status == "ok" else (Conflict, record)
    if answer.get("code") == "forbidden":
        return AuthError, 403, answer["text"]
    if status in ("refused", "failed"):
        return {"refused": InvalidRequest, "failed": Failed}[status], answer["code"], answer["text"]
    if status == "missing":
        return None if verb in ("get", "touch") else (Missing,)
    if status == "exists":
        return (Exists,)
    if verb == "watch":
        return answer["after"]
    if verb == "list":
        return Listing([Entry(**entry) for entry in answer["entries"]], answer["cursor"])
    return {"touch": answer.get("expires_at"), "destroy": None, "count": answer.get("number")}.get(
        verb, answer.get("version")
    )


def outcome(call: protocol.Call[Any], answer: list[Any], in_doubt: bool = False) -> Any:
    """What a caller gets, in the words of `meaning`."""
    try:
        return call.result(answer, in_doubt)
    except Conflict as error:
        return Conflict, error.current
    except (InvalidRequest, Failed) as error:
        return type(error), error.code, str(error)
    except AuthError as error:
        return type(error), error.status, str(error)
    except (Missing, Exists) as error:
        return (type(error),)


CALLS: dict[str, protocol.Call[Any]] = {
    "create": protocol.create(KEY, {}, format="json"),
    "get": protocol.get(KEY),
    "set": protocol.set_(KEY, {}, format="json", when=2),
    "touch": protocol.touch(KEY),
    "rotate": protocol.rotate(KEY, b"n" * 32),
    "patch": protocol.patch(KEY, {"a": 1}, format="json"),
    "destroy": protocol.destroy(KEY),
    "list": protocol.list_(everyone=True),
    "count": protocol.count(),
    "watch": protocol.watch(),
}


@pytest.mark.parametrize("row", golden("answers.json", "messages"), ids=lambda row: row["name"])
def test_answers_golden(row: dict[str, Any]) -> None:
    """Each answer of a golden message means what the golden file says."""
    answers = protocol.unpack_answers(bytes.fromhex(row["hex"]))

    assert [plain(answer)["seq"] for answer in row["answers"]] == [answer[0] for answer in answers]
    for expected, answer in zip(row["answers"], answers, strict=True):
        assert meaning(plain(expected)) == outcome(CALLS[expected["verb"]], answer)


@pytest.mark.parametrize("row", golden("answers.json", "pushes"), ids=lambda row: row["name"])
def test_pushes_golden(row: dict[str, Any]) -> None:
    """A push stands under seq 0 and is known by its name."""
    pushes = [answer for answer in protocol.unpack_answers(bytes.fromhex(row["hex"])) if answer[0] == 0]

    assert plain(row["pushes"]) == [push[1:] for push in pushes]
    told = [None if push[0] != "ended" else Event(*push[1:]) for push in plain(row["pushes"])]
    assert told == [protocol.event_of(push) for push in pushes]
    assert [push[0] == "stopping" for push in row["pushes"]] == [protocol.tells_stopping(push) for push in pushes]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x80",
        b"\x01",
        b"\x91\x01",
        b"\x91\x91\x01",
        b"\x91\x92\xa1a\xa2ok",
        b"\x91\x92\xc3\xa2ok",
        b"\x91\x92\x01\x02",
        b"\x90\x90",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 2000,
        b"\x91\x92\x01\xa1\xff",
        b"\x91\x92\x01\xc7\x01\x05a",
    ],
    ids=lambda message: message[:12].hex() or "empty",
)
def test_unpack_garbage(message: bytes) -> None:
    """What is no array of answers breaks the connection and nothing else."""
    with pytest.raises(ProtocolError):
        protocol.unpack_answers(message)


@pytest.mark.parametrize("answer", [[1, "ok"], [1, "ok", "x"], [1, "ok", None, 1, 1], [1, "ok", b""]], ids=repr)
@pytest.mark.parametrize("verb", ["get", "set", "touch", "list", "count"])
def test_answer_of_another_shape(verb: str, answer: list[Any]) -> None:
    """An answer that lacks its fields is Unavailable: never None, never half a record."""
    with pytest.raises(Unavailable):
        CALLS[verb].result(answer, False)


def test_unknown_status() -> None:
    """A status that is not known is a failure."""
    with pytest.raises(Failed) as caught:
        CALLS["get"].result([1, "polka"], False)

    assert caught.value.code == "polka"


def test_unreadable_data() -> None:
    """Data that is no map is a failure of that session, not an absence."""
    for format, data in [("json", b"[]"), ("json", b"{"), ("msgpack", b"\x90"), ("msgpack", b"\x81\x01\x02")]:
        with pytest.raises(Failed):
            CALLS["get"].result([1, "ok", 1, 1, 1, format, data, 1, None, None, None], False)


def test_what_may_be_repeated() -> None:
    """All but `set` without a version and `destroy_all` may be sent again, as the protocol says under Repeats."""
    once = [
        protocol.set_(KEY, {}, format="json"),
        protocol.set_(KEY, {}, format="json", when="alive"),
        protocol.destroy_all(user="ada"),
    ]

    assert {True} == {call.may_repeat for call in CALLS.values()}
    assert {False} == {call.may_repeat for call in once}


@pytest.mark.parametrize(("verb", "status"), [("set", "conflict"), ("create", "exists"), ("rotate", "missing")])
def test_refusal_of_a_repeat_is_no_answer(verb: str, status: str) -> None:
    """When a repeat is refused, the refusal may be due to its own first arrival: the outcome is not known."""
    answer = [1, status, 1, 1, 1, "json", b"{}", 1, None, None, None]

    with pytest.raises(Unavailable) as caught:
        CALLS[verb].result(answer, in_doubt=True)

    assert caught.value.outcome_unknown
    assert isinstance(outcome(CALLS[verb], answer), tuple)


def test_ops() -> None:
    """Each logical write has 8 bytes of its own, which its repeats share."""
    calls = [protocol.patch(KEY, {"a": 1}, format="json") for _ in range(100)]

    assert len({call.arguments[-1] for call in calls}) == 100
    assert {8} == {len(call.arguments[-1]) for call in calls}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.005, 5),
        (1, 1000),
        (1.001, 1001),
        (0.0001, 1),
        (timedelta(milliseconds=5), 5),
        (timedelta(days=400), 34_560_000_000),
        (0, 0),
        (-1.5, -1500),
        (None, None),
    ],
)
def test_milliseconds(seconds: Any, expected: int | None) -> None:
    """Seconds become whole milliseconds; what is above 0 stays above 0."""
    assert expected == protocol.milliseconds(seconds)


BAD_DURATIONS: list[Any] = [math.nan, math.inf, -math.inf, True, "60", 1j, b"", 10**30, [1]]


@pytest.mark.parametrize("value", BAD_DURATIONS, ids=repr)
def test_bad_durations(value: Any) -> None:
    """A duration that is no finite number of seconds is refused."""
    with pytest.raises(InvalidRequest) as caught:
        protocol.milliseconds(value)

    assert caught.value.code == "bad_ttl"


BAD: list[tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    ("bad_key", protocol.get, ("",), {}),
    ("bad_key", protocol.get, (b"short",), {}),
    ("bad_key", protocol.get, (bytearray(32),), {}),
    ("bad_key", protocol.get, (None,), {}),
    ("bad_key", protocol.rotate, (KEY, ""), {}),
    ("bad_ttl", protocol.get, (KEY,), {"renew": 0}),
    ("bad_ttl", protocol.get, (KEY,), {"renew": None}),
    ("bad_ttl", protocol.create, (KEY, {}), {"format": "json", "lifetime": 0}),
    ("bad_version", protocol.set_, (KEY, {}), {"format": "json", "when": 0}),
    ("bad_version", protocol.set_, (KEY, {}), {"format": "json", "when": True}),
    ("bad_version", protocol.set_, (KEY, {}), {"format": "json", "when": "never"}),
    ("bad_version", protocol.set_, (KEY, {}), {"format": "json", "when": 2**64}),
    ("bad_user", protocol.count, (), {"user": ""}),
    ("bad_user", protocol.count, (), {"user": 7}),
    ("bad_user", protocol.count, (), {"user": "\ud800"}),
    ("bad_meta", protocol.create, (KEY, {}), {"format": "json", "meta": {"a": 1}}),
    ("bad_meta", protocol.create, (KEY, {}), {"format": "json", "meta": {"a": "\ud800"}}),
    ("bad_meta", protocol.create, (KEY, {}), {"format": "json", "meta": "x"}),
    ("bad_grace", protocol.rotate, (KEY, b"n" * 32), {"grace": -1}),
    ("bad_grace", protocol.rotate, (KEY, b"n" * 32), {"grace": 3600.001}),
    ("bad_limit", protocol.list_, (), {"everyone": True, "limit": 0}),
    ("bad_limit", protocol.list_, (), {"everyone": True, "limit": 1001}),
    ("bad_limit", protocol.list_, (), {"everyone": True, "limit": True}),
    ("bad_cursor", protocol.list_, (), {"everyone": True, "cursor": "x"}),
    ("bad_data", protocol.patch, (KEY, {}, "name"), {"format": "json"}),
    ("bad_data", protocol.patch, (KEY, {}, [1]), {"format": "json"}),
    ("bad_call", protocol.destroy_all, (), {}),
    ("bad_call", protocol.destroy_all, (), {"user": "ada", "everyone": True}),
    ("bad_call", protocol.destroy_all, (), {"everyone": "yes"}),
]


@pytest.mark.parametrize(("code", "verb", "arguments", "named"), BAD, ids=range(len(BAD)))
def test_bad_arguments(code: str, verb: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """A wrong argument is refused before anything is sent, under the protocol's code for it."""
    with pytest.raises(InvalidRequest) as caught:
        verb(*arguments, **named)

    assert code == caught.value.code


@pytest.mark.parametrize("ttl", [0, -1, timedelta(0)])
def test_no_time_to_live_is_destroy(ttl: Any) -> None:
    """A ttl of 0 or less becomes a destroy, in every verb that renews."""
    calls: list[protocol.Call[Any]] = [
        protocol.set_(KEY, {}, format="json", ttl=ttl),
        protocol.patch(KEY, {"a": 1}, format="json", ttl=ttl),
        protocol.touch(KEY, ttl=ttl),
    ]

    assert [call.arguments for call in calls] == [("destroy", KEY)] * 3
    assert [call.result([1, "ok"], False) for call in calls] == [0, 0, None]


def test_largest_call() -> None:
    """Data that no message could hold is refused here."""
    with pytest.raises(InvalidRequest) as caught:
        protocol.create(KEY, b"x" * 16 * 1024 * 1024, format="msgpack")
    assert caught.value.code == "too_large"

    with pytest.raises(InvalidRequest) as caught:
        protocol.pack_call(1, protocol.patch(KEY, remove=["x" * 17_000_000], format="msgpack"))
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65535, 65536])
def test_join_calls(count: int) -> None:
    """A message of any number of calls is one array."""
    assert [None] * count == msgpack.unpackb(protocol.join_calls([b"\xc0"] * count))
