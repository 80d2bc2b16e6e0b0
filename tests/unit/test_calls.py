"""What may be asked: each check lets in what docs/protocol.md allows, to the edge, and refuses the rest with its code."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from sessiond import calls
from sessiond.calls import DAY, MAX_GRACE, Policy
from sessiond.errors import Refused

POLICY = Policy(ttl=1000, max_ttl=5000, lifetime=None, max_data=10)
KEY = b"k" * 32

Check = Callable[..., Any]


def code_of(check: Check, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Refused) as refusal:
        check(*arguments, **options)
    return refusal.value.code


def test_a_key_is_the_hash_of_a_sid() -> None:
    """key_of is SHA-256 of the sid's UTF-8, also of a sid that is no proper text."""
    assert hashlib.sha256("é".encode()).digest() == calls.key_of("é")
    assert 32 == len(calls.key_of("\ud800"))


ALLOWED: list[tuple[str, Check, list[Any], list[Any]]] = [
    ("key", calls.check_key, [KEY], [KEY]),
    ("ttl", lambda ttl: calls.check_ttl(ttl, POLICY), [None, 1, 5000], [None, 1, 5000]),
    ("lifetime", lambda ms: calls.check_lifetime(ms, None), [None, 1, 100_000 * DAY], [None, 1, 100_000 * DAY]),
    ("renew", lambda renew: calls.check_renew(renew, POLICY), [None, True, 1, 5000], [None, True, 1, 5000]),
    ("when", calls.check_when, [None, "any", "alive", 1, 2**53 - 1], ["any", "any", "alive", 1, 2**53 - 1]),
    ("grace", calls.check_grace, [None, 0, 1, MAX_GRACE], [0, 0, 1, MAX_GRACE]),
    ("op", calls.check_op, [None, b"12345678"], [None, b"12345678"]),
    ("cursor", calls.check_cursor, [None, KEY], [None, KEY]),
    ("limit", calls.check_limit, [None, 1, 1000], [100, 1, 1000]),
    ("remove", calls.check_remove, [None, [], ["a", ""]], [(), (), ("a", "")]),
    ("new key", lambda new: calls.check_new_key(new, b"o" * 32), [KEY], [KEY]),
]


@pytest.mark.parametrize(("check", "given", "expected"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_what_is_allowed(check: Check, given: list[Any], expected: list[Any]) -> None:
    """Each argument passes up to its limits; None becomes what stands for it."""
    assert expected == [check(value) for value in given]


REFUSED: list[tuple[str, Check, list[Any], str]] = [
    ("key", calls.check_key, [None, "k" * 32, KEY[1:], KEY + b"k", bytearray(KEY)], "bad_key"),
    ("ttl", lambda ttl: calls.check_ttl(ttl, POLICY), [0, -1, 5001, 1.0, True, "1", 2**63], "bad_ttl"),
    ("lifetime", lambda ms: calls.check_lifetime(ms, None), [0, -1, 1.0, True, 100_000 * DAY + 1], "bad_ttl"),
    ("ttl over lifetime", lambda ms: calls.check_lifetime(ms, 11), [10], "bad_ttl"),
    ("renew", lambda renew: calls.check_renew(renew, POLICY), [False, 0, -1, 5001, 1.0, "1"], "bad_ttl"),
    ("when", calls.check_when, [0, -1, True, 1.0, "ALIVE", "", b"any", 2**53], "bad_version"),
    ("grace", calls.check_grace, [-1, MAX_GRACE + 1, True, 1.0, "1"], "bad_grace"),
    ("op", calls.check_op, [b"", b"1234567", b"123456789", "12345678", 1], "bad_op"),
    ("cursor", calls.check_cursor, [b"", KEY[1:], "k" * 32, 1], "bad_cursor"),
    ("limit", calls.check_limit, [0, -1, 1001, True, 1.0, "1"], "bad_limit"),
    ("remove", calls.check_remove, ["a", ("a",), [1], [b"a"], [None], {"a": 1}], "bad_data"),
    ("new key", lambda new: calls.check_new_key(new, KEY), [KEY, b"", None], "bad_key"),
]


@pytest.mark.parametrize(
    ("check", "value", "code"),
    [
        pytest.param(check, value, code, id=f"{name} {value!r:.20}")
        for name, check, given, code in REFUSED
        for value in given
    ],
)
def test_what_is_refused(check: Check, value: Any, code: str) -> None:
    """One step past a limit, or of the wrong type, each argument is refused with its own code."""
    assert code == code_of(check, value)


@pytest.mark.parametrize(
    "user", ["a", "a b", "é" * 127 + "x", "علی\u200cرضا", "名前\u3000", "👩\u200d💻", "a\u00a0b", "\ue000"]
)
def test_a_user_is_any_text_without_control_characters(user: str) -> None:
    """1 to 255 bytes of UTF-8 name a user, joiners and foreign spaces included."""
    assert user == calls.check_user(user)


@pytest.mark.parametrize(
    "user", ["", "a\n", "\x00", "\x7f", "\x85", "a" * 256, "é" * 128, "\ud800", 1, b"ann", ["ann"]], ids=repr
)
def test_what_names_nobody(user: object) -> None:
    """Control characters, half a surrogate pair, no text or too much of it are no user."""
    assert "bad_user" == code_of(calls.check_user, user)


def test_the_empty_user() -> None:
    """The empty string takes a user away where that is meant, and is refused elsewhere; None says nothing."""
    assert "" == calls.check_user("", empty=True)
    assert "bad_user" == code_of(calls.check_user, "")
    assert calls.check_user(None) is None


@pytest.mark.parametrize(
    "meta", [None, {}, {"": ""}, {str(n): "" for n in range(32)}, {"a": "x" * 4095}, {"é": "é" * 2047}], ids=repr
)
def test_meta_is_a_small_map_of_text(meta: object) -> None:
    """Up to 32 entries and 4,096 bytes of UTF-8 in names and texts together are meta."""
    assert meta == calls.check_meta(meta)


@pytest.mark.parametrize(
    "meta",
    [
        {str(n): "" for n in range(33)},
        {"a": "x" * 4096},
        {"é": "é" * 2048},
        {"a": 1},
        {"a": None},
        {1: "a"},
        {b"a": "a"},
        {"a": b"a"},
        {"a": "\ud800"},
        [["a", "b"]],
        "a",
        1,
    ],
    ids=lambda meta: repr(meta)[:20],
)
def test_what_is_no_meta(meta: object) -> None:
    """One entry or one byte more, or anything that is no text, is refused."""
    assert "bad_meta" == code_of(calls.check_meta, meta)


def test_data_is_checked_for_its_form_and_size() -> None:
    """Data is bytes in a known format, one map unless it is opaque, and at most max_data long."""
    assert ("json", b'{"a":1234}') == calls.check_data("json", b'{"a":1234}', POLICY)
    assert ("bytes", b"x" * 10) == calls.check_data("bytes", b"x" * 10, POLICY)
    for format, data in [
        ("xml", b"{}"),
        (None, b"{}"),
        ("json", "{}"),
        ("json", b"[]"),
        ("msgpack", b"\x90"),
        ("json", None),
    ]:
        assert "bad_data" == code_of(calls.check_data, format, data, POLICY)
    assert "too_large" == code_of(calls.check_data, "json", b'{"a":12345}', POLICY)
    assert "too_large" == code_of(calls.check_data, "bytes", b"x" * 11, POLICY)


def test_size_is_looked_at_before_content() -> None:
    """Data that is too large is not read: it is told its size even where its content is wrong."""
    assert "too_large" == code_of(calls.check_data, "json", b"x" * 11, POLICY)


def test_a_refusal_never_repeats_input() -> None:
    """The text of a refusal holds nothing of what was sent."""
    with pytest.raises(Refused) as refusal:
        calls.check_user("canary\n")

    assert "canary" not in refusal.value.text


ADDRESS = ("default", KEY)
LASTING = Policy(ttl=1000, lifetime=9000, max_data=77)


def test_create_takes_from_the_policy_what_was_not_given() -> None:
    """A session made by create has the namespace's ttl and lifetime unless they are given; empty user and meta are none."""
    bare = calls.create(ADDRESS, "json", b"{}", LASTING, user="", meta={})
    given = calls.create(
        ADDRESS, "json", b"{}", LASTING, ttl=5, lifetime=6, user="ann", meta={"a": "b"}, op=b"12345678"
    )

    assert (1000, 9000, None, None, None) == (bare.ttl, bare.lifetime, bare.user, bare.meta, bare.op)
    assert (5, 6, "ann", {"a": "b"}, b"12345678") == (given.ttl, given.lifetime, given.user, given.meta, given.op)


def test_set_keeps_apart_what_was_given_and_what_a_new_session_gets() -> None:
    """set remembers what was not given, for a living session, and what the policy gives, for one that it creates."""
    bare = calls.set_(ADDRESS, "json", b"{}", LASTING, user="", meta={})
    given = calls.set_(ADDRESS, "json", b"{}", LASTING, when=3, ttl=5, lifetime=6)

    assert ("any", None, None, 1000, 9000) == (bare.when, bare.ttl, bare.lifetime, bare.new_ttl, bare.new_lifetime)
    assert ("", {}) == (bare.user, bare.meta)
    assert (3, 5, 6, 5, 6) == (given.when, given.ttl, given.lifetime, given.new_ttl, given.new_lifetime)


def test_patch_carries_the_limit_it_must_keep() -> None:
    """A patch knows max_data, because only where it is applied is the size of its result known."""
    assert (77, ("a",)) == (
        (call := calls.patch(ADDRESS, LASTING, "json", None, ["a"])).max_data,
        call.remove,
    )


@pytest.mark.parametrize(("user", "everyone", "fine"), [("ann", False, True), (None, True, True), (None, False, False), ("ann", True, False)])  # fmt: skip
def test_destroy_all_says_whose(user: str | None, everyone: bool, fine: bool) -> None:
    """destroy_all takes one user or everyone, one of the two, so that a forgotten user destroys nothing."""
    if fine:
        assert user == calls.destroy_all("default", user, None, everyone).user
    else:
        assert "bad_call" == code_of(calls.destroy_all, "default", user, None, everyone)
