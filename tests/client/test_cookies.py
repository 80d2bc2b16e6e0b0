"""Session ids and the cookies that carry them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client import InvalidRequest
from sessiond_client.cookies import SessionCookie, decode_cookie, encode_cookie, key_of, new_sid, sign, unsign

#: What cookie-signature 1.2 and encodeURIComponent make of these, computed with node's crypto.
EXPRESS = [
    ("hello", "tobiiscool", "s%3Ahello.DGDUkGlIkCzPz%2BC0B064FNgHdEjox7ch8tOBGslZ5QI"),
    ("zoë", "ä", "s%3Azo%C3%AB.uDWbDhZ8Wlfr8ctxFRuuRcqn0dRJygyfGPCaONAO978"),
]
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def test_new_sid() -> None:
    """A sid is 43 characters of base64url, never twice the same."""
    several = {new_sid() for _ in range(1000)}

    assert len(several) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", sid) for sid in several)


def test_key_of() -> None:
    """The key is the SHA-256 of the sid's UTF-8."""
    assert hashlib.sha256("zoë".encode()).digest() == key_of("zoë")
    assert len(key_of("\ud800")) == 32


@pytest.mark.parametrize(("sid", "secret", "raw"), EXPRESS)
def test_express_vectors(sid: str, secret: str, raw: str) -> None:
    """Cookies are, byte for byte, those of express-session, both ways."""
    assert raw == encode_cookie(sign(sid, secret))
    assert sid == unsign(decode_cookie(raw), secret)


def test_against_node() -> None:
    """node's own crypto and encodeURIComponent make the same cookies."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    pairs = [[new_sid(), "keyboard cat"], ["zoë.!*'()~ \u2603", "ä secret"], ["a.b.c", "s"]]
    script = """
        const crypto = require('crypto')
        const out = JSON.parse(process.argv[1]).map(([sid, secret]) => encodeURIComponent('s:' + sid + '.' +
          crypto.createHmac('sha256', secret).update(sid).digest('base64').replace(/=+$/, '')))
        console.log(JSON.stringify(out))"""

    output = subprocess.run([node, "-e", script, json.dumps(pairs)], capture_output=True, check=True, text=True).stdout

    assert json.loads(output) == [encode_cookie(sign(sid, secret)) for sid, secret in pairs]


@given(text, st.lists(text, min_size=1, max_size=3))
def test_round_trip(sid: str, secrets: list[str]) -> None:
    """A signed sid comes back, through the cookie's encoding, with its secret among others."""
    raw = encode_cookie(sign(sid, secrets[-1]))

    assert sid == unsign(decode_cookie(raw), secrets)
    assert raw.isascii()
    assert not set(raw) & set(' ",;\\')


def test_first_signs_all_verify() -> None:
    """With a list of secrets the first signs; a cookie of an older one is still good."""
    assert sign("sid", "new") == sign("sid", ["new", "old"])
    assert unsign(sign("sid", "old"), ["new", "old"]) == "sid"
    assert unsign(sign("sid", "other"), ["new", "old"]) is None


GOOD = sign("sid", "secret")
ODD: list[Any] = [
    None,
    7,
    b"s:sid.x",
    "",
    "s:",
    "s:.",
    "s:sid",
    "s:sid.",
    GOOD[2:],
    "S" + GOOD[1:],
    GOOD + "=",
    GOOD[:-1],
    GOOD.replace("sid", "sie"),
    GOOD.replace("s:sid", "s:"),
    "j:" + GOOD[2:],
    " " + GOOD,
    "s:\ud800.\udfff",
    GOOD + "\x00",
    "s:sid.ümlaut",
]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_odd_values(value: Any) -> None:
    """Anything that is not signed is None, never an exception."""
    assert unsign(value, "secret") is None


@given(st.text())
def test_any_text(value: str) -> None:
    """No text that a browser could send raises anything."""
    assert unsign(value, "secret") is None
    assert unsign(decode_cookie(value), "secret") is None


@pytest.mark.parametrize("secret", ["", b"", [], ["ok", ""]], ids=repr)
def test_no_secret(secret: Any) -> None:
    """An empty secret is refused, for signing and for reading."""
    with pytest.raises(InvalidRequest):
        sign("sid", secret)
    with pytest.raises(InvalidRequest):
        unsign(GOOD, secret)


def test_no_sid() -> None:
    """An empty sid is refused."""
    with pytest.raises(InvalidRequest):
        sign("", "secret")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("s%3Aa", "s:a"),
        ('"s%3Aa"', "s:a"),
        (" a ", "a"),
        ("a+b", "a+b"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("%41%zz", "%41%zz"),
        ("%ff", "%ff"),
        ('"', '"'),
        ("", ""),
    ],
)
def test_decode_cookie(raw: str, value: str) -> None:
    """Raw values are read as express reads them: what cannot be decoded stands as it is."""
    assert value == decode_cookie(raw)


GOOD = new_sid()


def set_cookie(cookie: SessionCookie) -> tuple[str, set[str]]:
    """The name of the cookie, and its attributes in small letters."""
    name, _, rest = cookie.header(GOOD).partition("=")
    value, *attributes = rest.split("; ")
    assert value == cookie.value(GOOD)
    return name, {each.lower() for each in attributes}


@pytest.mark.parametrize(
    ("cookie", "name", "attributes"),
    [
        (SessionCookie(), "__Host-session", {"path=/", "secure", "httponly", "samesite=lax"}),
        (SessionCookie(secure=False), "session", {"path=/", "httponly", "samesite=lax"}),
        (
            SessionCookie(domain="example.org"),
            "session",
            {"path=/", "domain=example.org", "secure", "httponly", "samesite=lax"},
        ),
        (
            SessionCookie(path="/app", samesite="strict"),
            "session",
            {"path=/app", "secure", "httponly", "samesite=strict"},
        ),
        (
            SessionCookie("sid", max_age=60, httponly=False, samesite="none", partitioned=True),
            "sid",
            {"path=/", "secure", "max-age=60", "samesite=none", "partitioned"},
        ),
        (SessionCookie(samesite=None), "__Host-session", {"path=/", "secure", "httponly"}),
    ],
)
def test_set_cookie(cookie: SessionCookie, name: str, attributes: set[str]) -> None:
    """The cookie is strict by default, carries the prefix that browsers hold it to, and each weakening is a word."""
    assert (name, attributes) == set_cookie(cookie)


def test_clearing() -> None:
    """Taking the cookie away names the same cookie: browsers go by name, path and domain."""
    clearing = SessionCookie("sid", path="/app", domain="example.org", secret="s").clearing()

    assert clearing.startswith("sid=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; ")
    assert {"Path=/app", "Domain=example.org", "Secure"} <= set(clearing.split("; "))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a b"},
        {"name": "a;b"},
        {"name": ""},
        {"name": "__host-session"},
        {"name": "__Host-session", "secure": False},
        {"name": "__Host-session", "path": "/app"},
        {"name": "__Host-session", "domain": "example.org"},
        {"name": "__Secure-session", "secure": False},
        {"samesite": "sometimes"},
        {"samesite": "none", "secure": False},
        {"partitioned": True, "secure": False},
        {"path": "/;Domain=evil"},
        {"domain": "a\r\nSet-Cookie: x"},
        {"max_age": 0},
        {"max_age": 1.5},
        {"secret": ""},
        {"secret": []},
    ],
)
def test_cookies_that_cannot_be(wrong: dict[str, Any]) -> None:
    """What browsers would refuse, or a header would break on, is refused when the app is made."""
    with pytest.raises(InvalidRequest):
        SessionCookie(**wrong)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([f"sid={GOOD}"], True),
        ([f"a=1; sid={GOOD}; b=2"], True),
        ([f"a=1;sid={GOOD}"], True),
        (["a=1", f"sid={GOOD}"], True),
        ([f"sid = {GOOD}"], True),
        ([f'x="y;z"; sid={GOOD}; =; q'], True),
        ([], False),
        ([""], False),
        (["sid"], False),
        (["sid="], False),
        ([f"SID={GOOD}"], False),
        ([f'sid="{GOOD}"'], False),
        ([f"sid={GOOD[:-1]}"], False),
        ([f"sid={GOOD}x"], False),
        ([f"sid={GOOD}; sid={GOOD}"], False),
        ([f"sid={GOOD}; sid={new_sid()}"], False),
        ([f"sid={GOOD}", f"sid={new_sid()}"], False),
        ([f"sid[]={GOOD}"], False),
        ([f"sid=s:{GOOD}.x"], False),
        (['sid=j:{"a":1}'], False),
        (["sid=\ud800\u00e9%zz%00"], False),
        ([f"sid={GOOD}" + "a" * 5000], False),
        (["; ".join(f"c{number}=1" for number in range(200)) + f"; sid={GOOD}"], False),
        ([f"sid={GOOD}; junk=" + "a" * 70_000], False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_reading(headers: list[str], found: bool) -> None:
    """A sid is found where it stands once, whole and alone; anything else is a visitor without one."""
    assert (GOOD if found else None, False) == SessionCookie("sid").read(headers)


def test_raw() -> None:
    """The value can be had as it stands, for sids of another shape, as strictly as the sid itself."""
    cookie = SessionCookie("sid")

    assert ["%41=b", "", None, None, None] == [
        cookie.raw([header]) for header in ("a=1; sid=%41=b", "sid=", "a=1", "sid=1; sid=1", 'sid="1"')
    ]


def test_reading_signed() -> None:
    """Only what one of the secrets has signed is taken; what an older one has signed is to be sent again."""
    old, new = SessionCookie("sid", secret="old"), SessionCookie("sid", secret=["new", "old"])
    foreign = SessionCookie("sid", secret="foreign")

    assert (GOOD, True) == new.read([f"sid={old.value(GOOD)}"])
    assert (GOOD, False) == new.read([f"sid={new.value(GOOD)}"])
    assert (None, False) == new.read([f"sid={foreign.value(GOOD)}"])
    assert (None, False) == new.read([f"sid={GOOD}"])
    assert (None, False) == new.read([f"sid={new.value(GOOD)[:-1]}"])
    assert (None, False) == new.read(["sid=s%3A", "x=1"])
    assert ("short", False) == new.read([f"sid={new.value('short')}"])
    assert (None, False) == new.read([f"sid={new.value('x' * 257)}"])


@given(st.lists(st.text(max_size=60), max_size=4))
def test_reading_anything(headers: list[str]) -> None:
    """Whatever a browser sends is read without an error, and never becomes an id that we would not have made."""
    found = SessionCookie("sid").read(headers)

    assert found.sid is None or re.fullmatch(r"[A-Za-z0-9_-]{43}", found.sid)


def test_the_secret_is_not_shown() -> None:
    """The secret is not in the cookie's repr, which may end in a log."""
    assert "keyboard cat" not in repr(SessionCookie(secret="keyboard cat"))
