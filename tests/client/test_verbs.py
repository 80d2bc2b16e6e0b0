"""What the verbs do, the same for both clients, over a real daemon. Time is pushed forward, never waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sessiond_client import Client, Conflict, Exists, InvalidRequest, Missing, Record
from sessiond_client.cookies import key_of, new_sid
from sessiond_client.testing import Server

from .support import Clients


def test_create_and_get(client: Any, sessiond_server: Server) -> None:
    """What was created is what get answers, with its times by the daemon's clock."""
    before = sessiond_server.now()
    sid = client.create(
        {"n": 1, "deep": {"list": [1, None, "x"]}}, ttl=60, lifetime=3600, user="ada", meta={"ip": "::1"}
    )

    record = client.get(sid)

    assert len(sid) == 43
    assert before <= record.created_at <= sessiond_server.now()
    assert record == Record(
        data={"n": 1, "deep": {"list": [1, None, "x"]}},
        format="msgpack",
        version=1,
        ttl=60.0,
        created_at=record.created_at,
        expires_at=record.created_at + 60_000,
        deadline=record.created_at + 3_600_000,
        user="ada",
        meta={"ip": "::1"},
    )


@pytest.mark.parametrize("data", [{}, {"text": "zoë ☃"}, b"", b"\xff\x00opaque"], ids=repr)
@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_formats(clients: Clients, sessiond_server: Server, format: str, data: Any) -> None:
    """Dicts are kept in the client's format and read by clients of the other; bytes are kept as they are."""
    sid = clients(sessiond_server.url, format=format).create(data)

    record = clients(sessiond_server.url).get(sid)

    assert record.data == data
    assert record.format == ("bytes" if isinstance(data, bytes) else format)


def test_missing_is_an_answer(client: Any) -> None:
    """get and touch answer None for a session that is not alive; destroy is fine with it."""
    assert client.get(new_sid()) is None
    assert client.get("\ud800") is None
    assert client.touch(new_sid()) is None
    assert client.destroy(new_sid()) is None


def test_writes_to_a_missing_session(client: Any) -> None:
    """A write that needs a living session raises Missing, and makes none."""
    sid = new_sid()

    writes: list[Callable[[], Any]] = [
        lambda: client.set(sid, {}, when="alive"),
        lambda: client.set(sid, {}, when=1),
        lambda: client.patch(sid, {"a": 1}),
        lambda: client.rotate(sid),
        lambda: client.update(sid, lambda data: data),
    ]
    for write in writes:
        with pytest.raises(Missing):
            write()
    assert client.count() == 0


def test_expiry_to_the_millisecond(client: Any, sessiond_server: Server) -> None:
    """A session is alive until its ttl has passed, and renewing begins it anew."""
    sid = client.create({"n": 1}, ttl=100)
    sessiond_server.advance(99)
    assert client.get(sid) is not None
    assert client.touch(sid) >= sessiond_server.now() + 99_000
    sessiond_server.advance(99)
    assert client.get(sid, renew=True) is not None
    sessiond_server.advance(100)
    assert client.get(sid) is None
    with pytest.raises(Missing):
        client.patch(sid, {"n": 2})


def test_renew_with_another_ttl(client: Any) -> None:
    """renew=seconds makes that the session's ttl."""
    sid = client.create({}, ttl=100)

    assert client.get(sid, renew=500).ttl == 500.0
    assert client.get(sid).ttl == 500.0


def test_lifetime_ends_all_renewal(client: Any, sessiond_server: Server) -> None:
    """No renewal reaches beyond the lifetime."""
    sid = client.create({}, ttl=60, lifetime=100)
    sessiond_server.advance(59)
    record = client.get(sid, renew=True)
    assert record.expires_at == record.deadline
    sessiond_server.advance(41)
    assert client.get(sid) is None


def test_set(client: Any) -> None:
    """set replaces the data and keeps user and meta, unless they are given or taken away."""
    sid = client.create({"a": 1}, user="ada", meta={"ip": "::1"})

    assert client.set(sid, {"b": 2}) == 2
    record = client.get(sid)
    assert (record.data, record.user, record.meta) == ({"b": 2}, "ada", {"ip": "::1"})
    assert client.set(sid, {"b": 2}, user="", meta={}) == 3
    record = client.get(sid)
    assert (record.user, record.meta) == (None, None)


def test_set_any_creates(client: Any) -> None:
    """set makes a session where there is none, at version 1."""
    sid = new_sid()

    assert client.set(sid, {"a": 1}, ttl=60) == 1
    assert client.get(sid).data == {"a": 1}


def test_set_by_version(client: Any) -> None:
    """A version that is not the current one is a Conflict with the current record; nothing is written."""
    sid = client.create({"n": 1})
    assert client.set(sid, {"n": 2}, when=1) == 2

    with pytest.raises(Conflict) as caught:
        client.set(sid, {"n": 3}, when=1)

    assert caught.value.current == client.get(sid)
    assert caught.value.current.data == {"n": 2}


def test_create_under_a_living_sid(client: Any) -> None:
    """create never replaces a living session; a destroyed one leaves its sid free."""
    sid = client.create({"first": True})

    with pytest.raises(Exists):
        client.create({}, sid=sid)
    assert client.get(sid).data == {"first": True}
    client.destroy(sid)
    assert client.create({"second": True}, sid=sid) == sid
    assert client.get(sid).data == {"second": True}


def test_patch_keeps_the_rest(client: Any) -> None:
    """patch replaces and removes the entries named, and no others."""
    sid = client.create({"a": 1, "b": {"x": 1}, "c": 3}, user="ada")

    assert client.patch(sid, {"a": 2, "d": 4}, ["c", "never there"]) == 2
    assert client.get(sid).data == {"a": 2, "b": {"x": 1}, "d": 4}
    assert client.patch(sid, remove=["a"], user="") == 3
    assert client.get(sid).data == {"b": {"x": 1}, "d": 4}
    assert client.get(sid).user is None


def test_patch_of_the_other_format(clients: Clients, sessiond_server: Server) -> None:
    """A MessagePack client patches a session that is kept as JSON; what JSON cannot keep is refused."""
    sid = clients(sessiond_server.url, format="json").create({"a": 1, "b": 2})
    client = clients(sessiond_server.url)

    client.patch(sid, {"a": [1.5, "x", None]})
    with pytest.raises(InvalidRequest) as caught:
        client.patch(sid, {"a": b"bytes"})

    assert client.get(sid).data == {"a": [1.5, "x", None], "b": 2}
    assert client.get(sid).format == "json"
    assert caught.value.code == "not_representable"


def test_patch_of_opaque_data(client: Any) -> None:
    """Opaque bytes have no entries to patch."""
    sid = client.create(b"opaque")

    with pytest.raises(InvalidRequest) as caught:
        client.patch(sid, {"a": 1})

    assert caught.value.code == "opaque_data"


def test_destroyed_stays_dead(client: Any) -> None:
    """After destroy no write revives the session, but for a set that says it may."""
    sid = client.create({"a": 1})
    client.destroy(sid)

    assert client.get(sid) is None
    assert client.touch(sid) is None
    with pytest.raises(Missing):
        client.patch(sid, {"a": 2})
    with pytest.raises(Missing):
        client.set(sid, {"a": 2}, when="alive")
    with pytest.raises(Missing):
        client.set(sid, {"a": 2}, when=1)


def test_rotate(client: Any) -> None:
    """rotate moves the session; the old sid is dead at once."""
    old = client.create({"a": 1}, user="ada")
    before = client.get(old)

    new = client.rotate(old)

    assert new != old
    assert client.get(old) is None
    assert client.get(new).data == before.data
    assert (client.get(new).created_at, client.get(new).version) == (before.created_at, 1)


def test_rotate_with_grace(client: Any, sessiond_server: Server) -> None:
    """For the grace time the old sid stands for the new one, in reading and in writing."""
    old = client.create({"a": 1})
    new = client.rotate(old, grace=10)

    client.patch(old, {"b": 2})
    assert client.get(new).data == {"a": 1, "b": 2}
    sessiond_server.advance(10)
    assert client.get(old) is None
    assert client.get(new) is not None


def test_rotate_onto_a_living_sid(client: Any) -> None:
    """rotate never replaces a living session."""
    one, other = client.create({"n": 1}), client.create({"n": 2})

    with pytest.raises(Exists):
        client.rotate(one, new_sid=other)
    assert (client.get(one).data, client.get(other).data) == ({"n": 1}, {"n": 2})


@pytest.mark.parametrize("ttl", [0, -5])
def test_no_time_to_live(client: Any, ttl: int) -> None:
    """A ttl of 0 or less destroys; create then stores nothing."""
    client.create({}, ttl=ttl)
    assert client.count() == 0
    ends: list[Callable[[str], Any]] = [
        lambda sid: client.set(sid, {}, ttl=ttl),
        lambda sid: client.patch(sid, {"a": 1}, ttl=ttl),
        lambda sid: client.touch(sid, ttl=ttl),
    ]
    for end in ends:
        sid = client.create({})
        assert not end(sid)
        assert client.get(sid) is None


def test_keys_stand_for_sids(client: Any) -> None:
    """Each verb takes the key of a listing in place of the sid."""
    sid = client.create({"a": 1}, user="ada")
    (entry,) = client.list(everyone=True)

    assert entry.key == key_of(sid)
    assert client.get(entry.key) == client.get(sid)
    client.destroy(entry.key)
    assert client.get(sid) is None


def test_list_pages(client: Any) -> None:
    """Pages together hold every session exactly once, of one user or of all, and never data."""
    sids = [client.create({"secret": n}, ttl=60, user="ada" if n % 2 else None) for n in range(25)]
    client.patch(sids[1], {"n": 1})

    for user, expected in [(None, sids), ("ada", sids[1::2])]:
        found, cursor = [], None
        while True:
            page = client.list(user=user, everyone=user is None, cursor=cursor, limit=7)
            assert len(page) <= 7
            found += page
            if (cursor := page.cursor) is None:
                break
        assert sorted(entry.key for entry in found) == sorted(map(key_of, expected))
        assert client.count(user=user) == len(expected)
    (entry,) = [entry for entry in found if entry.key == key_of(sids[1])]
    assert (entry.user, entry.version, entry.meta) == ("ada", 2, None)
    assert entry.created_at <= entry.renewed_at == entry.expires_at - 60_000


def test_list_of_nothing(client: Any) -> None:
    """An empty namespace has one empty page."""
    page = client.list(user="nobody")

    assert (page.entries, page.cursor) == ([], None)
    assert client.count() == 0


def test_destroy_all(client: Any) -> None:
    """destroy_all ends the user's sessions, but for one if so told, and nobody else's."""
    here, there, elsewhere = (client.create({}, user="ada") for _ in range(3))
    other = client.create({}, user="bob")

    assert client.destroy_all(user="ada", except_sid=here) == 2
    assert [client.get(sid) is not None for sid in (here, there, elsewhere, other)] == [True, False, False, True]
    assert client.destroy_all(everyone=True) == 2
    assert client.destroy_all(user="ada") == 0


def test_update(client: Any) -> None:
    """update writes what `change` makes of the data, in place or by returning it, and answers the record written."""
    sid = client.create({"n": 1}, ttl=60, user="ada")

    record = client.update(sid, lambda data: data.update(n=data["n"] + 1))
    assert record == client.get(sid)
    assert (record.data, record.version) == ({"n": 2}, 2)
    assert client.update(sid, lambda data: {"new": True}, ttl=120).ttl == 120.0
    assert client.get(sid).data == {"new": True}
    with pytest.raises(InvalidRequest):
        client.update(sid, lambda data: None, ttl=0)


def test_update_keeps_the_format(clients: Clients, sessiond_server: Server) -> None:
    """update leaves JSON sessions JSON, and opaque ones opaque."""
    client = clients(sessiond_server.url)
    sid = clients(sessiond_server.url, format="json").create({"n": 1})
    opaque = client.create(b"a")

    assert client.update(sid, lambda data: data.update(n=2)).format == client.get(sid).format == "json"
    assert client.update(opaque, lambda data: data + b"b") == client.get(opaque)
    assert client.get(opaque).data == b"ab"


def test_update_when_overtaken(client: Any, sessiond_client: Client) -> None:
    """A change that was overtaken is made again on the newer data; with no attempts left it is a Conflict."""
    sid = client.create({"n": 0, "seen": []})

    def change(data: dict[str, Any]) -> None:
        if len(calls) < 2:
            sessiond_client.patch(sid, {"n": data["n"] + 1})
        calls.append(data["n"])
        data["seen"].append(data["n"])

    calls: list[int] = []
    assert client.update(sid, change).data == {"n": 2, "seen": [2]}
    assert calls == [0, 1, 2]
    calls.clear()
    with pytest.raises(Conflict):
        client.update(sid, change, attempts=2)


def test_sessions_as_dicts(client: Any) -> None:
    """A handle loads, tracks nested changes, saves only these, and saves nothing when nothing has changed."""
    sid = client.create({"cart": ["book"], "theme": "dark", "old": 1}, user="ada")

    with client.session(sid) as session:
        assert (session.exists, session.user, session["theme"]) == (True, "ada", "dark")
        client.patch(sid, {"theme": "light"})  # another request, meanwhile
        session["cart"].append("lamp")
        del session["old"]
    assert client.get(sid).data == {"cart": ["book", "lamp"], "theme": "light"}
    version = client.get(sid).version
    with client.session(sid) as session:
        assert session["cart"]
    assert client.get(sid).version == version


def test_two_handles_lose_nothing(client: Any) -> None:
    """Two requests that change different entries both survive."""
    sid = client.create({})
    with client.session(sid) as one, client.session(sid) as other:
        one["a"] = 1
        other["b"] = 2

    assert client.get(sid).data == {"a": 1, "b": 2}


def test_a_sid_is_never_adopted(client: Any) -> None:
    """Under a sid that is not alive nothing is stored: saving makes a new session with a new sid."""
    planted = new_sid()

    with client.session(planted) as session:
        assert not session.exists
        session["a"] = 1
        session.user = "ada"

    assert client.get(planted) is None
    assert session.sid not in (planted, None)
    assert (client.get(session.sid).data, client.get(session.sid).user) == ({"a": 1}, "ada")


def test_a_new_session_with_nothing_in_it(client: Any) -> None:
    """A new handle with nothing in it makes no session."""
    with client.session(None) as session:
        assert session.sid is None
    assert client.count() == 0


def test_a_late_save_revives_nothing(client: Any) -> None:
    """Saving a handle whose session was destroyed meanwhile raises Missing."""
    sid = client.create({"a": 1})

    with client.session(sid) as session:
        session["a"] = 2
        client.destroy(sid)
        with pytest.raises(Missing):
            session.save()
        session["a"] = 1  # as it was loaded, so that there is nothing to save at the end

    assert client.get(sid) is None
    assert client.count() == 0


def test_an_exception_saves_nothing(client: Any) -> None:
    """When the block ends with an exception nothing is saved, and the exception goes on."""
    sid = client.create({"a": 1})

    def fail() -> None:
        with client.session(sid) as session:
            session["a"] = 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert client.get(sid).data == {"a": 1}


def test_rotate_and_destroy_a_handle(client: Any) -> None:
    """A handle follows its session to the new sid; after destroy it starts anew under another."""
    sid = client.create({"a": 1})

    with client.session(sid) as session:
        session.rotate()
        rotated = session.sid
        session["a"] = 2
    assert (client.get(sid), client.get(rotated).data) == (None, {"a": 2})
    with client.session(rotated) as session:
        session.destroy()
        session["flash"] = "Bye."
    assert client.get(rotated) is None
    assert client.get(session.sid).data == {"flash": "Bye."}


def test_a_handle_renews(client: Any, sessiond_server: Server) -> None:
    """Loading a handle renews the session, with the ttl given, unless told not to."""
    sid = client.create({}, ttl=60)
    created = client.get(sid).expires_at
    sessiond_server.advance(10)

    with client.session(sid, renew=False) as session:
        assert session.exists
    assert client.get(sid).expires_at == created
    with client.session(sid, ttl=90) as session:
        assert session.exists
    assert client.get(sid).ttl == 90.0


def test_a_handle_of_opaque_data(client: Any) -> None:
    """Opaque bytes are no dict, and a handle says so."""
    sid = client.create(b"opaque")

    with pytest.raises(InvalidRequest) as caught, client.session(sid) as session:
        session["a"] = 1

    assert caught.value.code == "opaque_data"


def test_refused_by_the_daemon(client: Any) -> None:
    """What only the daemon can judge comes back as InvalidRequest with its code."""
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("too_large", lambda: client.create({"a": "x" * 100_000})),
        ("bad_user", lambda: client.create({}, user="a\nb")),
        ("bad_ttl", lambda: client.create({}, ttl=60, lifetime=30)),
        ("bad_cursor", lambda: client.list(everyone=True, cursor=b"?")),
    ]
    for code, call in calls:
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.code == code


def test_wrong_arguments_send_nothing(client: Any) -> None:
    """Arguments that are wrong here and now are refused before anything is sent."""
    calls: list[Callable[[], Any]] = [
        lambda: client.get(""),
        lambda: client.list(),
        lambda: client.list(user=None),
        lambda: client.list(user="ada", everyone=True),
        lambda: client.create({"when": object()}),
        lambda: client.create({}, ttl=float("nan")),
        lambda: client.destroy_all(),
        lambda: client.update("sid", lambda data: None, attempts=0),
        lambda: client.session("sid", ttl=0),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest):
            call()
    assert client.stats.connects == 0


def test_closed(clients: Clients, sessiond_server: Server) -> None:
    """A closed client refuses calls."""
    client = clients(sessiond_server.url)
    client.create({})
    client.close()

    with pytest.raises(InvalidRequest):
        client.count()


def test_unix_socket(clients: Clients, tmp_path: Any) -> None:
    """A unix socket is as good as a port."""
    with Server(listen=f"unix:{tmp_path}/s", data=tmp_path / "sessions.db") as server:
        client = clients(server.url)
        sid = client.create({"a": 1}, ttl=60)
        assert client.get(sid).data == {"a": 1}
        server.advance(60)
        assert client.get(sid) is None
