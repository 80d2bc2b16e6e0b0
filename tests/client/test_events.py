"""The iterators of what ends: the same for both clients, over a real daemon that is restarted, silent, or not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessiond_client import AsyncClient, AuthError, Client, ConnectFailed, Event, InvalidRequest
from sessiond_client import _protocol as protocol
from sessiond_client._policy import LONGEST_COMEBACK, PATIENT_PAUSE, Comeback
from sessiond_client.cookies import key_of
from tests.http.support import Daemon, make_token, sessiond_token

Listen = Callable[..., "Ears"]


class Ears:
    """An iterator of events of either kind, asked for one at a time."""

    def __init__(self, kind: str, url: str | list[str], after: str | None, **options: Any) -> None:
        self._runner = asyncio.Runner() if kind == "async" else None
        self._client: Any = (AsyncClient if kind == "async" else Client)(url, **options)
        self._events: Any = self._client.events(after)

    def take(self, number: int = 1) -> list[Event]:
        if self._runner is None:
            return [next(self._events) for _ in range(number)]

        async def several() -> list[Event]:
            return [await anext(self._events) for _ in range(number)]

        return self._runner.run(several())

    def close(self) -> None:
        if self._runner is None:
            self._events.close()
            self._client.close()
            return

        async def leave() -> None:
            await self._events.aclose()
            await self._client.close()

        self._runner.run(leave())
        self._runner.close()


@pytest.fixture(params=["sync", "async"])
def listen(request: pytest.FixtureRequest) -> Iterator[Listen]:
    """Makes iterators of either kind."""
    made: list[Ears] = []

    def make(url: str | list[str], after: str | None = None, **options: Any) -> Ears:
        made.append(Ears(request.param, url, after, **options))
        return made[-1]

    yield make
    for ears in made:
        ears.close()


class House:
    """A daemon that can be started anew at the same port."""

    def __init__(self, folder: Path) -> None:
        self.data = str(folder / "s.db")
        self.daemon = Daemon("--adjustable-clock", "--sweep-interval", "0.05", data=self.data)
        self.url = f"http://127.0.0.1:{self.daemon.port}"

    def restart(self) -> None:
        listen = [f"127.0.0.1:{self.daemon.port}"]
        assert 0 == self.daemon.stop()
        self.daemon = Daemon("--adjustable-clock", "--sweep-interval", "0.05", data=self.data, listen=listen)

    def now(self) -> str:
        """The id behind which what ends from now on is told."""
        with Client(self.url) as client:
            return client._call(protocol.watch())

    def end(self, *, user: str | None = None) -> bytes:
        """The key of a session that was made and destroyed."""
        with Client(self.url) as client:
            sid = client.create({}, user=user)
            client.destroy(sid)
        return key_of(sid)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.daemon.close()


def test_events_tell_what_ends(house: House, listen: Listen) -> None:
    """Each with its id, kind, key, user and instant; of a rotation the new key too."""
    ears = listen(house.url, house.now())
    with Client(house.url) as client:
        sid = client.create({}, user="ada")
        new = client.rotate(sid)
        client.destroy_all(user="ada")
        short = client.create({}, ttl=0.005)
    house.daemon.advance(6000)

    rotated, destroyed, expired = ears.take(3)

    assert Event(rotated.id, "rotated", key_of(sid), "ada", rotated.at, key_of(new), None) == rotated
    assert Event(destroyed.id, "destroyed", key_of(new), "ada", destroyed.at, None, None) == destroyed
    assert Event(expired.id, "expired", key_of(short), None, expired.at, None, None) == expired
    assert rotated.at is not None
    assert destroyed.at is not None
    assert rotated.at <= destroyed.at


def test_events_go_on_behind_an_id(house: House, listen: Listen) -> None:
    """`after` is the id of the last event that is known."""
    start = house.now()
    keys = [house.end() for _ in range(3)]
    first, *_ = listen(house.url, start).take(3)

    missed = listen(house.url, first.id).take(2)

    assert keys[1:] == [event.key for event in missed]


def test_events_come_back_after_a_restart(house: House, listen: Listen) -> None:
    """The connection breaks, a gap is told, and it goes on; whoever iterates does nothing for it."""
    ears = listen(house.url, house.now())
    before = house.end()
    first = ears.take()
    house.restart()
    after = house.end()

    gap, *second = ears.take(2)

    assert [before] == [event.key for event in first]
    assert ("gap", "restart", None) == (gap.kind, gap.reason, gap.key)
    assert [after] == [event.key for event in second]


def test_more_events_than_fit_anywhere_are_all_told(house: House, listen: Listen) -> None:
    """A reader that was away while 5,000 ended gets each of them, in order."""
    ears = listen(house.url, house.now())
    house.end()
    ears.take()
    with Client(house.url, deadline=30) as client:
        for _ in range(5000):
            client.create({}, user="ada")
        keys = {entry.key for entry in _all(client)}
        client.destroy_all(user="ada")

    told = ears.take(5000)

    assert keys == {event.key for event in told}
    positions = [int(event.id.split("-")[1]) for event in told]
    assert positions == list(range(positions[0], positions[0] + 5000))


def _all(client: Client) -> Iterator[Any]:
    page = client.list(user="ada", limit=1000)
    while True:
        yield from page
        if page.cursor is None:
            return
        page = client.list(user="ada", cursor=page.cursor, limit=1000)


def test_nobody_there_is_told(listen: Listen) -> None:
    """The first connection has to come about within the deadline."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        ears = listen(f"http://127.0.0.1:{line.getsockname()[1]}", deadline=0.2)

        with pytest.raises(ConnectFailed):
            ears.take()


def test_another_daemon_is_found(house: House, listen: Listen) -> None:
    """When the first of several addresses does not answer, the next one tells."""
    start = house.now()
    key = house.end()
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        ears = listen([f"http://127.0.0.1:{line.getsockname()[1]}", house.url], start)

        assert [key] == [event.key for event in ears.take()]


@pytest.mark.parametrize("after", ["x", 7, "\ud800"])
def test_a_wrong_id_is_an_error(house: House, listen: Listen, after: Any) -> None:
    """It is the caller's, and is not tried again."""
    with pytest.raises(InvalidRequest) as error:
        listen(house.url, after).take()

    assert "bad_cursor" == error.value.code


def test_a_token_that_may_not_list_or_is_revoked(tmp_path: Path, listen: Listen) -> None:
    """Is an AuthError: at once, or when the daemon lets the reader go."""
    data = str(tmp_path / "s.db")
    make_token(data, "operator", "--admin")
    reader, writer = (make_token(data, name, "--namespace", "default", "--scope", name) for name in ("list", "write"))
    daemon = Daemon(data=data)
    url = f"http://127.0.0.1:{daemon.port}"
    ears = listen(url, token=reader)
    with pytest.raises(AuthError):
        listen(url, token=writer).take()
    sessiond_token("revoke", "list", "--data", data)

    with pytest.raises(AuthError):
        ears.take()

    assert 0 == daemon.stop()


def test_when_a_reader_comes_back() -> None:
    """The pauses double, with full jitter, to a short one at first and a longer one later; at first there is an end to it."""
    error = ConnectFailed("x")
    comeback = Comeback(2.0, 100.0, chance=lambda: 1.0)

    pauses = [comeback.pause(error, 100.0 + n / 10) for n in range(5)]
    with pytest.raises(ConnectFailed):
        comeback.pause(error, 102.0)
    comeback.succeeded()
    later = [comeback.pause(error, 1e9) for _ in range(12)]

    assert [0.05, 0.1, *[PATIENT_PAUSE] * 3] == pauses
    assert [0.05, 0.1, 0.2] == later[:3]
    assert LONGEST_COMEBACK == later[-1]
