"""What ends, as it ends: the iterators behind `events` of both clients, each on a connection of its own.

They come back by themselves after a broken connection, with the id of the last event, so that nothing is missed; where
something may be, the daemon says so with a `gap`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import suppress

from . import _policy, _protocol
from ._channel import Link
from ._frames import ProtocolError
from ._options import Options
from ._policy import Comeback, Errand, Route
from ._pool import Connection
from ._protocol import Answer
from ._types import Event
from ._urls import Address
from .errors import ConnectFailed, SessiondError, Unavailable

#: The daemon pings a connection after 30 s of silence: one that is silent for longer than this is dead.
SILENCE = 60.0
#: Events that wait here for their reader; beyond, nothing more is read, and what is not read is kept by the daemon.
MAX_WAITING = 1000


class _Watching(Connection):
    """A blocking connection that keeps the events that are pushed."""

    def __init__(self, address: Address, options: Options, deadline: float) -> None:
        self.events: deque[Event] = deque()
        super().__init__(address, options, deadline)

    def pushed(self, push: Answer) -> None:
        super().pushed(push)
        if (event := _protocol.event_of(push)) is not None:
            self.events.append(event)

    def wait(self) -> None:
        """Returns when something has come in. Raises OSError, ProtocolError."""
        deadline = time.monotonic() + SILENCE
        self._take(self._receive(deadline), deadline)


def events(options: Options, after: str | None) -> Generator[Event, None, None]:
    """For blocking code: see `Client.events`."""
    route, comeback = Route(options.addresses, options.deadline), Comeback(options.deadline, time.monotonic())
    while True:
        error: SessiondError
        try:
            connection = _connect(route, options)
            try:
                errand = Errand(_protocol.watch(after=after), time.monotonic() + options.deadline)
                after = errand.result(connection.ask(errand))
                comeback.succeeded()
                while True:
                    while connection.events:
                        event = connection.events.popleft()
                        after = event.id
                        yield event
                    connection.wait()
            finally:
                connection.close()
                if connection.retired:
                    route.avoid(connection.address)
        except (OSError, ProtocolError) as e:
            error = _broke_off(e)
        except ConnectFailed as e:
            error = e
        time.sleep(comeback.pause(error, time.monotonic()))


def _connect(route: Route, options: Options) -> _Watching:
    tried: list[tuple[Address, Exception]] = []
    for address in route.order():
        try:
            connection = _Watching(address, options, time.monotonic() + route.timeout)
        except (OSError, ProtocolError) as error:
            tried.append((address, error))
        else:
            route.succeeded(address)
            return connection
    raise _policy.connect_failed(tried)


class _Watch:
    """What the link of one asyncio reader has heard: a `Listener`."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.is_retired = False
        self.more = asyncio.Event()

    def answered(self, link: Link, answers: Iterable[Answer]) -> None:
        for answer in answers:
            if answer[0] == 1:
                self.answer = answer
            elif answer[0] == 0:
                self.is_retired |= _protocol.tells_stopping(answer)
                if (event := _protocol.event_of(answer)) is not None:
                    self.events.append(event)
        if len(self.events) > MAX_WAITING:
            link.hold(True)
        self.more.set()

    def lost(self, link: Link, error: Exception) -> None:
        self.error = self.error or error
        self.more.set()

    def flush(self) -> None:
        """There is nothing to send."""

    async def wait(self) -> None:
        """Returns when something has come in since the last time."""
        await self.more.wait()
        self.more.clear()


async def aevents(options: Options, after: str | None) -> AsyncGenerator[Event, None]:
    """For asyncio: see `AsyncClient.events`."""
    loop = asyncio.get_running_loop()
    route, comeback = Route(options.addresses, options.deadline), Comeback(options.deadline, loop.time())
    while True:
        error: SessiondError
        try:
            watch, link = await _open(route, options)
            try:
                call = _protocol.watch(after=after)
                link.send(_protocol.join_calls([_protocol.pack_call(1, call)]))
                async with asyncio.timeout(options.deadline):
                    while watch.answer is None and watch.error is None:
                        await watch.wait()
                if watch.answer is not None:
                    after = call.result(watch.answer, in_doubt=False)
                    comeback.succeeded()
                while True:
                    while watch.events:
                        event = watch.events.popleft()
                        after = event.id
                        yield event
                    if watch.error is not None:
                        raise watch.error
                    link.hold(False)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(SILENCE):
                            await watch.wait()
                    if loop.time() - link.heard_at >= SILENCE:
                        raise TimeoutError
            finally:
                link.close()
                if watch.is_retired:
                    route.avoid(link.address)
        except (OSError, ProtocolError) as e:
            error = _broke_off(e)
        except ConnectFailed as e:
            error = e
        await asyncio.sleep(comeback.pause(error, loop.time()))


async def _open(route: Route, options: Options) -> tuple[_Watch, Link]:
    tried: list[tuple[Address, Exception]] = []
    for address in route.order():
        watch = _Watch()
        link = Link(watch, address, options)
        try:
            async with asyncio.timeout(route.timeout):
                await link.open(options)
        except (OSError, ProtocolError) as error:
            tried.append((address, error))
            link.abort()
        except BaseException:
            link.abort()
            raise
        else:
            route.succeeded(address)
            return watch, link
    raise _policy.connect_failed(tried)


def _broke_off(error: Exception) -> Unavailable:
    return Unavailable(f"The daemon's events broke off ({_policy.reason_of(error)}); ask for them again.")
