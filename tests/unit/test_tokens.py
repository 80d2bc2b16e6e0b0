"""Tokens as values: who may do what, how they follow each other, and that no secret is compared in the open."""

import ast
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from sessiond import codec, tokens
from sessiond.errors import TokenError
from sessiond.store import VERBS
from sessiond.tokens import APP_SCOPES, NEEDS, SCOPES, Scope, Token, Tokens, grant

NOW = 1_800_000_000_000
HOUR = 3_600_000
SOURCES = Path(tokens.__file__).parent


def counting(start: int = 0) -> tokens.RandomBytes:
    """Bytes that differ each time and are the same in each run."""
    number = start

    def random(size: int) -> bytes:
        nonlocal number
        number += 1
        return number.to_bytes(size)

    return random


def made(
    name: str = "shop",
    namespace: str | None = "shop",
    scopes: tuple[Scope, ...] = APP_SCOPES,
    lifetime: int | None = None,
    before: Tokens | None = None,
) -> tuple[Tokens, Token, str]:
    return tokens.add(before or Tokens(), name, namespace, scopes, NOW, lifetime)


# Finding them ---------------------------------------------------------------------------------------


def test_a_token_has_256_bits_and_only_its_hash_is_kept() -> None:
    """Its text is a prefix that scanners know, its id, and 32 random bytes; what is kept is the SHA-256 of the whole."""
    some, token, text = tokens.add(Tokens(), "shop", "shop", APP_SCOPES, NOW, None, counting())

    assert text == f"sessiond_{1:012x}_{2:064x}"
    assert token.hash == hashlib.sha256(text.encode()).hexdigest()
    assert text.rpartition("_")[2].encode() not in tokens.write(some)


def test_every_byte_of_a_secret_comes_from_the_system() -> None:
    """Unless told otherwise, randomness is that of `secrets`: a thousand tokens share no id and no text."""
    texts = {made()[2] for _ in range(1000)}

    assert len(texts) == len({text.split("_")[1] for text in texts}) == 1000


def test_a_token_is_found_by_its_text_alone() -> None:
    """Not by its id, not with one character off, not with anything around it."""
    _, _, other = made("other")
    some, token, text = made()

    assert some.find(text, NOW) == token
    for at in range(len(text)):
        assert some.find(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :], NOW) is None
    for wrong in (
        "",
        "_",
        "__",
        token.id,
        token.hash,
        text[:-1],
        text + "0",
        text.upper(),
        other,
        "ä" * 9,
        "\udc80_a_b",
    ):
        assert some.find(wrong, NOW) is None


def test_a_token_ends_at_the_ms() -> None:
    """It is valid while now < expires_at."""
    some, token, text = made(lifetime=1000)

    assert (some.find(text, NOW + 999), some.find(text, NOW + 1000)) == (token, None)
    assert made(lifetime=None)[1].expires_at is None


def test_a_token_that_was_altered_is_another() -> None:
    """What a stream was granted by holds while the token allows the same; a rotation only brings its end nearer."""
    some, token, _ = made()
    rotated, _, _ = tokens.rotate(some, "shop", NOW, HOUR)
    narrowed = Tokens([codec.replace(token, scopes=("read",))])

    assert some.holds(token, NOW)
    assert [rotated.holds(token, NOW + at) for at in (0, HOUR - 1, HOUR)] == [True, True, False]
    assert not narrowed.holds(token, NOW)
    assert not Tokens().holds(token, NOW)


# What they allow ------------------------------------------------------------------------------------


def test_every_verb_needs_a_scope() -> None:
    """The table has each verb of the stream, what is special about two of them, and what is no session's business."""
    assert NEEDS.keys() - VERBS.values() == {"get with renew", "watch", "destroy_all of everyone", "metrics", "clock"}
    assert set(VERBS.values()) <= NEEDS.keys()
    assert all(needed and needed <= set(SCOPES) for needed in NEEDS.values())


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_allows_its_actions_and_no_other(scope: Scope) -> None:
    """As docs/protocol.md says it."""
    allowed: dict[str, set[str]] = {
        "read": {"get"},
        "write": {"create", "set", "patch", "touch", "rotate"},
        "destroy": {"destroy", "destroy_all"},
        "list": {"list", "count", "watch"},
        "admin": {"destroy_all of everyone", "metrics", "clock"},
    }
    _, token, _ = made(namespace=None if scope == "admin" else "shop", scopes=(scope,))

    granted = grant(token, None)

    assert granted is not None
    assert granted.actions == allowed[scope]


def test_a_get_that_renews_needs_both() -> None:
    """It reads, and it touches."""
    _, token, _ = made(scopes=("read", "write"))

    granted = grant(token, None)

    assert granted is not None
    assert "get with renew" in granted.actions


@pytest.mark.parametrize(
    ("bound", "named", "expected"),
    [
        ("shop", None, "shop"),
        ("shop", "shop", "shop"),
        ("shop", "blog", None),
        ("shop", "default", None),
        (None, None, "default"),
        (None, "blog", "blog"),
    ],
)
def test_a_token_works_in_its_namespace_and_an_admin_s_in_any(
    bound: str | None, named: str | None, expected: str | None
) -> None:
    """To name another than one's own is no business of a token; an admin who names none gets `default`."""
    _, token, _ = made(namespace=bound, scopes=("read",) if bound else ("admin",))

    granted = grant(token, named)

    assert (granted and granted.namespace) == expected


# Making, rotating, revoking -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "namespace", "scopes", "reason"),
    [
        ("", "shop", ("read",), "the name of a token is 1 to 64"),
        ("a b", "shop", ("read",), "the name of a token is 1 to 64"),
        ("-a", "shop", ("read",), "the name of a token is 1 to 64"),
        ("a\n", "shop", ("read",), "the name of a token is 1 to 64"),
        ("a" * 65, "shop", ("read",), "the name of a token is 1 to 64"),
        ("a", "Shop", ("read",), "a namespace is 1 to 64 of a-z"),
        ("a", "..", ("read",), "a namespace is 1 to 64 of a-z"),
        ("a", "shop\n", ("read",), "a namespace is 1 to 64 of a-z"),
        ("a", "shop", (), "has no scope"),
        ("a", "shop", ("read", "admin"), "either bound to a namespace or an admin's"),
        ("a", None, ("read",), "either bound to a namespace or an admin's"),
    ],
)
def test_a_wrong_token_is_not_made(name: str, namespace: str | None, scopes: Any, reason: str) -> None:
    """The sentence says what would be right."""
    with pytest.raises(TokenError, match=reason):
        made(name, namespace, scopes)


def test_a_name_is_taken_once() -> None:
    """A second token of one name is made by rotating, so that none is replaced by mistake."""
    some, _, _ = made()

    with pytest.raises(TokenError, match="`sessiond token rotate shop` makes its successor"):
        made(before=some)


def test_rotating_keeps_the_old_one_for_a_while() -> None:
    """The successor may do the same for as long; what came before ends after the overlap, and never later than it would have."""
    some, first, old = made(lifetime=100 * HOUR)
    some, second, new = tokens.rotate(some, "shop", NOW + HOUR, 2 * HOUR)

    assert (second.namespace, second.scopes, second.lifetime) == (first.namespace, first.scopes, 100 * HOUR)
    assert second.expires_at == NOW + 101 * HOUR
    for at, expected in ((HOUR, True), (3 * HOUR - 1, True), (3 * HOUR, False)):
        assert (some.find(old, NOW + at) is not None) is expected
        assert some.find(new, NOW + at) == second
    assert tokens.rotate(some, "shop", NOW + 2 * HOUR, 50 * HOUR)[0].find(old, NOW + 3 * HOUR) is None


def test_rotating_without_an_overlap_ends_the_old_one_now() -> None:
    """For a token that has leaked; those that have expired go with any rotation."""
    some, _, old = made()

    at_once, token, new = tokens.rotate(some, "shop", NOW, 0)
    later, last, _ = tokens.rotate(tokens.rotate(some, "shop", NOW, HOUR)[0], "shop", NOW + HOUR, HOUR, 7 * HOUR)

    assert (at_once.find(old, NOW), at_once.find(new, NOW)) == (None, token)
    assert len(later) == 2
    assert last.expires_at == NOW + 8 * HOUR


def test_a_successor_of_one_that_never_expires_does_not_either() -> None:
    """Though the one before it has been given an end by then."""
    some, _, _ = made()
    some, second, _ = tokens.rotate(some, "shop", NOW, HOUR)
    some, _ = tokens.revoke(some, second.id)

    assert tokens.rotate(some, "shop", NOW, HOUR)[1].expires_at is None


def test_revoking_ends_a_name_or_one_id() -> None:
    """All of a name, or the one; others stay as they are."""
    some, other, _ = made("other")
    some, first, _ = made(before=some)
    some, second, _ = tokens.rotate(some, "shop", NOW, HOUR)

    by_name, gone = tokens.revoke(some, "shop")
    by_id, one = tokens.revoke(some, second.id)

    assert ([*by_name], [each.id for each in gone]) == ([other], [first.id, second.id])
    assert ([each.id for each in by_id], one) == ([other.id, first.id], [second])


@pytest.mark.parametrize("change", [tokens.revoke, lambda some, name: tokens.rotate(some, name, NOW, HOUR)])
def test_what_is_not_there_is_told(change: Any) -> None:
    """Without the name that was given, which may be a token pasted by mistake."""
    with pytest.raises(TokenError, match=r"^there is no token of that name or id; `sessiond token list` shows them\.$"):
        change(made()[0], "nobody")


# The file -------------------------------------------------------------------------------------------


def test_the_file_holds_all_of_it() -> None:
    """What is written is read again, the same."""
    some, _, _ = made(lifetime=HOUR)
    some, _, _ = made("root", None, SCOPES, before=some)

    assert [*tokens.read(tokens.write(some))] == [*some]
    assert [*tokens.read(tokens.write(Tokens()))] == []


def token_json(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(tokens.write(made()[0]))["tokens"][0]
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not a list of tokens as sessiond writes it"),
        (b"\xff", "it is not a list of tokens as sessiond writes it"),
        (b"[" * 100_000, "it is not a list of tokens as sessiond writes it"),
        (b"[]", "it is not a list of tokens as sessiond writes it"),
        (b'{"format": 1}', "it is not a list of tokens as sessiond writes it"),
        (b'{"format": 1, "tokens": [], "more": 1}', "it is not a list of tokens as sessiond writes it"),
        (b'{"format": 2, "tokens": []}', "it was written by another version of sessiond"),
        ([{"id": "x"}], "it is not a list of tokens as sessiond writes it, at $.tokens[0]"),
        (
            [token_json(created_at="today")],
            "it is not a list of tokens as sessiond writes it, at $.tokens[0].created_at",
        ),
        (
            [token_json(scopes=["everything"])],
            "it is not a list of tokens as sessiond writes it, at $.tokens[0].scopes[0]",
        ),
        ([token_json(name="a\nb")], "the name of a token is 1 to 64"),
        ([token_json(namespace="../x")], "a namespace is 1 to 64"),
        ([token_json(namespace=None)], "either bound to a namespace or an admin's"),
        ([token_json(scopes=[])], "has no scope"),
        ([token_json(hash="")], "the hash of the token shop is not 64 digits of hex"),
        ([token_json(hash="A" * 64)], "the hash of the token shop is not 64 digits of hex"),
        ([token_json(id="a"), token_json(id="a")], "two of its tokens have one id"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(content: Any, reason: str) -> None:
    """With what is wrong and where, and nothing of what it holds."""
    data = content if isinstance(content, bytes) else json.dumps({"format": 1, "tokens": content}).encode()

    with pytest.raises(TokenError) as error:
        tokens.read(data)

    assert reason in str(error.value)
    assert "everything" not in str(error.value)


# Constant time --------------------------------------------------------------------------------------


def test_no_secret_is_compared_in_the_open() -> None:
    """Hashes and texts of tokens meet only in hmac.compare_digest: no == or `in` touches one, and no dict is keyed by one."""
    secret = {"text", "hash", "digest", "hash_of"}
    open_comparisons, closed = [], 0
    for path in (SOURCES / "tokens.py", SOURCES / "token_file.py", SOURCES / "http" / "auth.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {getattr(each, "attr", getattr(each, "id", "")) for each in ast.walk(node)}
            if isinstance(node, ast.Compare) and names & secret and not names & {"fullmatch"}:
                open_comparisons.append((path.name, node.lineno))
            if isinstance(node, ast.Subscript) and names & {"hash", "hash_of", "digest"}:
                open_comparisons.append((path.name, node.lineno))
            closed += isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "compare_digest"

    assert open_comparisons == []
    assert closed == 1


def test_an_unknown_token_is_compared_like_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known id or not, right or wrong, valid or expired: one hash and one comparison of equal length."""
    lengths: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def watched(left: str, right: str) -> bool:
        lengths.append((len(left), len(right)))
        return compare(left, right)

    some, _, text = made(lifetime=HOUR)
    monkeypatch.setattr(hmac, "compare_digest", watched)
    for shown, now in ((text, NOW), (text, NOW + HOUR), (text[:-1] + "x", NOW), ("unknown", NOW), ("", NOW)):
        some.find(shown, now)

    assert lengths == [(64, 64)] * 5
