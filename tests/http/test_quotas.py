"""Limits from outside: many logins at once over REST and the stream, the codes, and a restart in between."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.http.support import JSON, Daemon, Stream, key_of

FIVE = ("--max-sessions-per-user", "5")
REJECT = (*FIVE, "--when-user-full", "reject")


def user(name: str) -> dict[str, str]:
    return {**JSON, "Session-User": name}


def login(daemon: Daemon) -> int:
    return daemon.ask("POST", "/v1/sessions", "{}", user("ann")).status


def count(daemon: Daemon, query: str = "") -> int:
    return int(daemon.ask("GET", f"/v1/sessions/count{query}").json["count"])


@pytest.fixture(params=["memory:", "sqlite", "sqlite-cold"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, tuple[str, ...]]:
    """Where records rest, and the flags that go with it."""
    if request.param == "memory:":
        return "memory:", ()
    return str(tmp_path / "sessions.db"), ("--cache", "1b") if request.param == "sqlite-cold" else ()


@pytest.mark.parametrize("limits", [FIVE, REJECT], ids=["evict-oldest", "reject"])
def test_fifty_logins_at_once_over_rest(data: tuple[str, tuple[str, ...]], limits: tuple[str, ...]) -> None:
    """Of fifty logins of one user over fifty connections five sessions live; refused ones are 409 `too_many_sessions`."""
    place, flags = data
    daemon = Daemon(*limits, *flags, data=place)
    try:
        with ThreadPoolExecutor(16) as threads:
            statuses = list(threads.map(lambda _: one_login(daemon), range(50)))

        assert (50 if limits is FIVE else 5) == statuses.count(201)
        assert (0 if limits is FIVE else 45) == statuses.count(409)
        assert 5 == count(daemon, "?user=ann")
    finally:
        daemon.stop()

    if place != "memory:":
        daemon = Daemon(*limits, *flags, data=place)
        try:
            again = daemon.ask("POST", "/v1/sessions", "{}", user("ann"))

            assert 5 == count(daemon, "?user=ann")
            assert (201 if limits is FIVE else 409) == again.status
            assert limits is FIVE or "too_many_sessions" == again.code
        finally:
            daemon.stop()


def one_login(daemon: Daemon) -> int:
    """On a connection of its own."""
    body = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nSession-User: ann\r\n"
    answer = daemon.raw(body + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("limits", [FIVE, REJECT], ids=["evict-oldest", "reject"])
def test_fifty_logins_at_once_over_the_stream(data: tuple[str, tuple[str, ...]], limits: tuple[str, ...]) -> None:
    """The same in one message of the stream, and for sessions that are given to the user by a set or a patch."""
    place, flags = data
    daemon = Daemon(*limits, *flags, data=place)
    try:
        with Stream(daemon.host, daemon.port) as stream:
            keys = [bytes([n]) * 32 for n in range(60)]
            stream.ask(*[["create", key, "json", b"{}"] for key in keys[:10]])

            answers = stream.ask(
                *[["set", key, "json", b"{}", None, "alive", None, "ann"] for key in keys[:5]],
                *[["patch", key, "json", b"{}", None, None, "ann"] for key in keys[5:10]],
                *[["create", key, "json", b"{}", None, None, "ann"] for key in keys[10:]],
            )

            refused = [answer[:2] for answer in answers if answer[0] != "ok"]
            assert ([] if limits is FIVE else [["refused", "too_many_sessions"]] * 55) == refused
            assert 5 == count(daemon, "?user=ann")
    finally:
        daemon.stop()


def test_a_full_namespace_over_rest_and_the_stream() -> None:
    """507 `quota` and failed `quota` for what makes it larger; get, touch, destroy and a smaller set go on."""
    daemon = Daemon("--max-sessions", "2", "--max-bytes", "40")
    try:
        sid = daemon.create('{"x":"aaaaaaaaaaaaaaaaaaaa"}')
        path = f"/v1/sessions/{key_of(sid)}"
        daemon.create("{}")

        with Stream(daemon.host, daemon.port) as stream:
            failed = stream.ask(["create", b"k" * 32, "json", b"{}"])[0]
        one_more = daemon.ask("POST", "/v1/sessions", "{}", JSON)
        larger = daemon.ask("PUT", path, '{"x":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}', JSON)
        patched = daemon.ask("PATCH", path, '{"y":"aaaaaaaaaaaaaaa"}', JSON)
        going_on = [
            daemon.ask("GET", path).status,
            daemon.ask("POST", f"{path}/touch").status,
            daemon.ask("PUT", path, '{"x":1}', JSON).status,
            daemon.ask("DELETE", path).status,
        ]
        room = daemon.ask("POST", "/v1/sessions", "{}", JSON)

        assert ["failed", "quota"] == failed[:2]
        assert [(507, "quota")] * 3 == [(each.status, each.code) for each in (one_more, larger, patched)]
        assert [200, 204, 204, 204] == going_on
        assert 201 == room.status
    finally:
        daemon.stop()
