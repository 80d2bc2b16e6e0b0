"""What ends, told as server-sent events and on the stream: to whom, from where on, and how it ends."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sessiond.calls import handle_of
from tests.http.support import Closed, Daemon, Reader, Stream, Told, key_of, make_token, sessiond_token, wait_until


@pytest.fixture
def reader(empty: Daemon) -> Iterator[Reader]:
    with closing(Reader(empty)) as reader:
        yield reader


def of(sid: str, user: str | None, **more: str) -> dict[str, Any]:
    return {"key": key_of(sid), "user": user, **more}


def brief(told: list[Told]) -> list[tuple[str, dict[str, Any]]]:
    return [(each.kind, {name: value for name, value in each.data.items() if name != "at"}) for each in told]


def test_what_ends_is_told(empty: Daemon, reader: Reader) -> None:
    """Destroyed, rotated and expired sessions, with key, user and instant, in the order in which they ended."""
    one, two = empty.create("{}", headers={"Session-User": "ad%C3%A1"}), empty.create()
    short = empty.create("{}", "?ttl=5", headers={"Session-User": "bob"})

    empty.ask("DELETE", f"/v1/sessions/{one}")
    empty.ask("DELETE", f"/v1/sessions/{one}")
    new = empty.ask("POST", f"/v1/sessions/{two}/rotate").json["sid"]
    empty.ask("DELETE", f"/v1/sessions/{new}")
    told = reader.take(3)
    empty.advance(6000)
    told += reader.take(1)

    assert [
        ("destroyed", of(one, "adá")),
        ("rotated", of(two, None, new_key=key_of(new))),
        ("destroyed", of(new, None)),
        ("expired", of(short, "bob")),
    ] == brief(told)
    assert all(type(each.data["at"]) is int for each in told)
    assert "text/event-stream" == reader.response.headers["Content-Type"]
    assert "no-store" == reader.response.headers["Cache-Control"]


@pytest.mark.parametrize("by", ["header", "query", "both"])
def test_who_comes_back_gets_what_he_missed(empty: Daemon, reader: Reader, by: str) -> None:
    """Exactly what ended since, by the header or the query; the header goes first, for it is the newer one."""
    sids = [empty.create() for _ in range(3)]
    empty.ask("DELETE", f"/v1/sessions/{sids[0]}")
    (first,) = reader.take(1)
    reader.close()
    for sid in sids[1:]:
        empty.ask("DELETE", f"/v1/sessions/{sid}")
    path = {"header": "/v1/events", "query": f"/v1/events?after={first.id}", "both": f"/v1/events?after={'0' * 16}-0-0"}
    headers = {} if by == "query" else {"Last-Event-ID": first.id}

    with closing(Reader(empty, path[by], headers)) as again:
        missed = again.take(2)

    assert [("destroyed", of(sid, None)) for sid in sids[1:]] == brief(missed)


def test_a_restart_is_a_gap_and_expiries_are_told_over_it(tmp_path: Path) -> None:
    """Who comes back to a daemon that was started anew is told so, and then of what expired meanwhile, once."""
    data = str(tmp_path / "s.db")
    daemon = Daemon("--adjustable-clock", "--sweep-interval", "0.05", data=data)
    with closing(Reader(daemon)) as reader:
        seen, missed, lost = daemon.create("{}", "?ttl=5"), daemon.create("{}", "?ttl=50"), daemon.create()
        daemon.advance(6000)
        (first,) = reader.take(1)
    with closing(Reader(daemon)) as other:
        daemon.ask("DELETE", f"/v1/sessions/{lost}")
        daemon.advance(60_000)
        other.take(2)
    assert daemon.stop() == 0

    daemon = Daemon(data=data)
    with closing(Reader(daemon, headers={"Last-Event-ID": first.id})) as reader:
        told = reader.take(2)
        sid = daemon.create()
        daemon.ask("DELETE", f"/v1/sessions/{sid}")
        told += reader.take(1)
    with closing(Reader(daemon, headers={"Last-Event-ID": told[0].id})) as reader:
        again = reader.take(2)
    assert daemon.stop() == 0

    assert [("expired", of(seen, None))] == brief([first])
    assert [
        ("gap", {"reason": "restart"}),
        ("expired", of(missed, None)),
        ("destroyed", of(sid, None)),
    ] == brief(told)
    assert told[1:] == again


def test_evictions_are_told(tmp_path: Path) -> None:
    """Once, whoever evicts, with its reason."""
    daemon = Daemon("--max-sessions-per-user", "1", data=str(tmp_path / "s.db"))
    with closing(Reader(daemon)) as reader:
        first, second = (daemon.create("{}", headers={"Session-User": "ada"}) for _ in range(2))
        daemon.ask("DELETE", f"/v1/sessions/{second}")

        told = brief(reader.take(2))

    assert daemon.stop() == 0
    assert [("destroyed", of(second, "ada")), ("evicted", of(first, "ada"))] == sorted(told, key=lambda each: each[0])


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/events?after=x", {}, 400, "bad_cursor"),
        ("/v1/events?after=", {}, 400, "bad_cursor"),
        ("/v1/events", {"Last-Event-ID": "7"}, 400, "bad_cursor"),
        ("/v1/events?after=a&after=b", {}, 400, "bad_query"),
        ("/v1/events?user=ada", {}, 400, "bad_query"),
        ("/v1/events", {"Origin": "https://a.example"}, 403, "browser_request"),
    ],
)
def test_wrong_requests(daemon: Daemon, path: str, headers: dict[str, str], status: int, code: str) -> None:
    """Are answered as problems, before anything is streamed."""
    reply = daemon.ask("GET", path, headers=headers)

    assert (status, code) == (reply.status, reply.code)


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
def test_only_get(daemon: Daemon, method: str) -> None:
    """A stream of events is read with GET alone."""
    assert 405 == daemon.ask(method, "/v1/events").status


def test_a_stopping_daemon_ends_its_readers(tmp_path: Path) -> None:
    """Their answer comes to its proper end, and the daemon does not wait for them."""
    daemon = Daemon(data=str(tmp_path / "s.db"))
    with closing(Reader(daemon)) as reader:
        sid = daemon.create()
        daemon.ask("DELETE", f"/v1/sessions/{sid}")

        code = daemon.stop(timeout=8)  # of a drain of 10 s

        assert [("destroyed", of(sid, None))] == brief(reader.rest())
    assert 0 == code


def test_a_reader_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    """It costs no memory that grows with what ends, and its connection is ended within `patience`."""
    daemon = Daemon("--patience", "0.3", data="memory:")
    user = "u" * 250
    with daemon.connect() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with Stream(daemon.host, daemon.port) as stream:
            for turn in range(120):  # 13 MB of events: more than any socket's buffers hold
                keys = [(250 * turn + n).to_bytes(32) for n in range(250)]
                stream.ask(*(["create", key, "json", b"{}", None, None, user] for key in keys))
                stream.ask(*(["destroy", key] for key in keys))
        wait_until(lambda: "sessiond_event_readers 0.0" in daemon.ask("GET", "/metrics").body.decode())
    assert daemon.stop() == 0


def test_a_namespace_is_told_of_its_own(tmp_path: Path) -> None:
    """A token of one namespace hears nothing of another, over REST or the stream; an admin of the one that he names."""
    data = str(tmp_path / "s.db")
    shop, blog = make_token(data, "shop", "--namespace", "shop"), make_token(data, "blog", "--namespace", "blog")
    admin = make_token(data, "operator", "--admin")
    daemon = Daemon(data=data)
    daemon.token = shop
    bearers = [{"Authorization": f"Bearer {blog}"}, {"Authorization": f"Bearer {admin}", "Session-Namespace": "blog"}]
    with closing(Reader(daemon)) as mine, closing(Reader(daemon, headers=bearers[1])) as admins:
        with Stream(daemon.host, daemon.port, headers=f"Authorization: Bearer {blog}\r\n") as stream:
            assert "ok" == stream.ask(["watch"])[0][0]
            sid = daemon.create()
            daemon.ask("DELETE", f"/v1/sessions/{sid}")
            others = daemon.create(headers=bearers[0])
            daemon.ask("DELETE", f"/v1/sessions/{others}", headers=bearers[0])
            _, payload = stream.receive()
        told, by_admin = mine.take(1), admins.take(1)
    assert daemon.stop() == 0

    assert [("destroyed", of(sid, None))] == brief(told)
    assert [("destroyed", of(others, None))] == brief(by_admin)
    assert [key_of(others)] == [handle_of(push[4]) for push in msgspec.msgpack.decode(payload)]


@pytest.mark.parametrize("scope", ["read", "write", "destroy", "list"])
def test_events_need_the_scope_of_listings(tmp_path: Path, scope: str) -> None:
    """They tell keys and users, as a listing does; whoever may not list is refused, over REST and on the stream."""
    data = str(tmp_path / "s.db")
    token = make_token(data, "one", "--namespace", "shop", "--scope", scope)
    daemon = Daemon(data=data)
    daemon.token = token
    with Stream(daemon.host, daemon.port, headers=f"Authorization: Bearer {token}\r\n") as stream:
        (answer,) = stream.ask(["watch"])
    with closing(Reader(daemon)) as reader:
        status = reader.status
    assert daemon.stop() == 0

    assert (200, "ok") == (status, answer[0]) if scope == "list" else (403, "refused") == (status, answer[0])


def test_a_revoked_token_hears_no_more(tmp_path: Path) -> None:
    """Its reader is ended within a second."""
    data = str(tmp_path / "s.db")
    token = make_token(data, "shop", "--namespace", "shop")
    make_token(data, "operator", "--admin")
    daemon = Daemon(data=data)
    daemon.token = token
    with closing(Reader(daemon)) as reader:
        sessiond_token("revoke", "shop", "--data", data)

        assert [] == reader.rest()
    assert daemon.stop() == 0


# The stream ----------------------------------------------------------------------------------------------


def pushes(stream: Stream, number: int) -> list[list[Any]]:
    found: list[list[Any]] = []
    while len(found) < number:
        found += [push[1:] for push in msgspec.msgpack.decode(stream.receive()[1]) if push[0] == 0]
    return found


def test_watch_pushes_what_ends(empty: Daemon) -> None:
    """After a watch each end is pushed, in order; its answer holds the id behind which they begin."""
    keys = [b"a" * 32, b"b" * 32, b"c" * 32]
    with Stream(empty.host, empty.port) as watcher, Stream(empty.host, empty.port) as stream:
        ((status, begin),) = watcher.ask(["watch"])
        stream.ask(*(["create", key, "json", b"{}", None, None, "ada"] for key in keys[:2]))
        stream.ask(["rotate", keys[0], keys[2]], ["destroy_all", "ada"])
        told = pushes(watcher, 3)

    with Stream(empty.host, empty.port) as again:
        assert [["ok", told[0][1]]] == again.ask(["watch", told[0][1]])
        assert told[1:] == pushes(again, 2)

    assert "ok" == status
    assert begin.rpartition("-")[0].rpartition("-")[0] == told[0][1].rpartition("-")[0].rpartition("-")[0]
    assert ["ended", "rotated", keys[0], "ada", keys[2], None] == [*told[0][:1], *told[0][2:5], *told[0][6:]]
    assert [("destroyed", keys[1]), ("destroyed", keys[2])] == sorted((push[2], push[3]) for push in told[1:])


def test_a_second_watch_takes_the_place_of_the_first(empty: Daemon) -> None:
    """Nothing is told twice on one connection."""
    with Stream(empty.host, empty.port) as stream:
        stream.ask(["watch"], ["watch"], ["create", b"a" * 32, "json", b"{}"])
        stream.send(msgspec.msgpack.encode([[77, "destroy", b"a" * 32]]))
        found: list[Any] = []
        while len(found) < 2:
            found += msgspec.msgpack.decode(stream.receive()[1])
        stream.ask(["count"])

    assert [0, 77] == sorted(each[0] for each in found)


@pytest.mark.parametrize("after", ["x", "", 7, b"x", "0" * 16 + "-1"])
def test_a_wrong_id_is_refused(daemon: Daemon, after: Any) -> None:
    """With bad_cursor, whatever it is; the connection goes on."""
    with Stream(daemon.host, daemon.port) as stream:
        found = stream.ask(["watch", after], ["watch"])

    assert ["refused", "bad_cursor"] == found[0][:2]
    assert "ok" == found[1][0]


def test_a_watch_ends_with_its_token(tmp_path: Path) -> None:
    """A revoked token's stream is closed with 4401, watching or not."""
    data = str(tmp_path / "s.db")
    token = make_token(data, "shop", "--namespace", "shop")
    make_token(data, "operator", "--admin")
    daemon = Daemon(data=data)
    with Stream(daemon.host, daemon.port, headers=f"Authorization: Bearer {token}\r\n") as stream:
        stream.ask(["watch"])
        sessiond_token("revoke", "shop", "--data", data)

        with pytest.raises(Closed) as closed:
            stream.receive()
    assert daemon.stop() == 0

    assert 4401 == closed.value.code
