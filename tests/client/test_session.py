"""How a handle finds out what has changed, with a client that only remembers what it was asked."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client import AsyncSession, InvalidRequest, Record, Session

from .test_codec import text, values


class Remembering:
    """The verbs that a handle uses, over one session in memory."""

    def __init__(self, data: Any = None) -> None:
        self.data = data
        self.asked: list[tuple[str, Any]] = []

    def get(self, sid: Any, *, renew: Any) -> Record | None:
        self.asked.append(("get", renew))
        if self.data is None:
            return None
        return Record(copy.deepcopy(self.data), "msgpack", 1, 60.0, 0, 60_000, None, "ada", {"ip": "::1"})

    def create(self, data: Any, *, ttl: Any, user: Any, meta: Any) -> str:
        self.asked.append(("create", (ttl, user, meta)))
        self.data = copy.deepcopy(data)
        return "new"

    def patch(self, sid: Any, set: Any, remove: Any, *, ttl: Any, user: Any, meta: Any) -> int:
        self.asked.append(("patch", (set, remove, user, meta)))
        self.data = {name: value for name, value in {**self.data, **set}.items() if name not in remove}
        return 2

    def rotate(self, sid: Any, *, grace: Any) -> str:
        self.asked.append(("rotate", grace))
        return "rotated"

    def destroy(self, sid: Any) -> None:
        self.asked.append(("destroy", sid))
        self.data = None


def handle(client: Remembering, sid: str | None = "sid", ttl: Any = None, renew: Any = True) -> Session:
    """A handle of that client's session."""
    return Session(client, sid, ttl=ttl, renew=renew)


@given(st.dictionaries(text, values, max_size=4), st.dictionaries(text, values, max_size=4))
def test_a_save_leads_to_what_is_there(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Whatever a dict becomes, saving makes the session equal to it, sending only what differs."""
    client = Remembering(before)
    session = handle(client)
    session.clear()
    session.update(after)

    session.save()

    assert client.data == after
    for verb, (changed, removed, user, meta) in client.asked[1:]:
        assert (verb, user, meta) == ("patch", None, None)
        assert changed.keys() <= after.keys()
        assert set(removed) == before.keys() - after.keys()
    assert not session.modified
    session.save()
    assert len(client.asked) <= 2


@pytest.mark.parametrize(
    ("change", "changed", "removed"),
    [
        (lambda s: s["list"].append(3), {"list": [1, 2, 3]}, []),
        (lambda s: s["dict"]["deep"].update(x=2), {"dict": {"deep": {"x": 2}}}, []),
        (lambda s: s.update(flag=1), {"flag": 1}, []),
        (lambda s: s.pop("list"), {}, ["list"]),
        (lambda s: s.setdefault("new", []).append(1), {"new": [1]}, []),
    ],
)
def test_nested_changes(change: Any, changed: dict[str, Any], removed: list[str]) -> None:
    """Changes inside of values are found; True that becomes 1 is one."""
    client = Remembering({"list": [1, 2], "dict": {"deep": {"x": 1}}, "flag": True})
    session = handle(client)
    change(session)

    session.save()

    assert client.asked[1:] == [("patch", (changed, removed, None, None))]


def test_looking_changes_nothing() -> None:
    """Reading, and changing there and back, sends nothing."""
    client = Remembering({"a": [1], "b": 2})
    session = handle(client)
    assert (len(session), sorted(session), session.get("c"), "a" in session) == (2, ["a", "b"], None, True)
    session["a"].append(2)
    session["a"].pop()
    session["b"], session["c"] = 3, 4
    session["b"] = 2
    del session["c"]

    session.save()

    assert client.asked == [("get", True)]


def test_nothing_is_read_before_it_is_looked_at() -> None:
    """A handle that nobody looks at asks nothing, not even to be saved."""
    client = Remembering({"a": 1})
    with handle(client) as session:
        assert not session.modified
        assert session.sid == "sid"

    assert client.asked == []


def test_user_and_meta() -> None:
    """user and meta are part of the next save; None takes the user away."""
    client = Remembering({"a": 1})
    session = handle(client)
    assert (session.user, session.meta) == ("ada", {"ip": "::1"})
    session.user = None
    session.meta["ua"] = "x"

    session.save()

    session.meta = {}
    session.save()

    assert client.asked[1:] == [
        ("patch", ({}, [], "", {"ip": "::1", "ua": "x"})),
        ("patch", ({}, [], None, {})),
    ]


def test_a_new_session() -> None:
    """A new handle asks nothing until it has something to keep; then it is patched like any other."""
    client = Remembering()
    session = handle(client, None, ttl=60)
    session.save()
    assert client.asked == []
    session["a"] = 1
    session.save()
    session["a"] = 2
    session.save()

    assert [verb for verb, _ in client.asked] == ["create", "patch"]
    assert client.asked[0] == ("create", (60, None, None))
    assert (session.sid, session.exists, session.version) == ("new", True, 2)


def test_rotate_a_session_that_is_not() -> None:
    """Rotating a session that does not exist asks nothing: its sid will be new anyway."""
    client = Remembering()
    session = handle(client, None)
    session.rotate()
    assert (client.asked, session.sid) == ([], None)


def test_values_that_cannot_be_stored_are_found() -> None:
    """A foreign value counts as a change, so that saving it fails instead of losing it."""
    session = handle(Remembering({"a": 1}))
    session["when"] = datetime(2026, 1, 1, tzinfo=UTC)

    assert session.modified


def test_reading_again_drops_changes() -> None:
    """load reads what is stored, whatever was changed here."""
    session = handle(Remembering({"a": 1}))
    session["b"] = 2

    session.load()

    assert dict(session) == {"a": 1}
    assert not session.modified


def test_repr() -> None:
    """The repr shows names, no sid and no value."""
    session = handle(Remembering({"password": "hunter2"}), "secret-sid")
    assert session.exists

    assert "password" in repr(session)
    assert "hunter2" not in repr(session)
    assert "secret-sid" not in repr(session)


def test_async_handles_are_loaded_first() -> None:
    """Looking into an asyncio handle before it is loaded is an error that says what to do."""

    async def never(*_: Any, **__: Any) -> Any: ...

    client: Any = type("Client", (), {"get": never})()
    session = AsyncSession(client, "sid", ttl=None, renew=True)

    with pytest.raises(InvalidRequest, match="async with"):
        session["a"]
    assert not session.modified
