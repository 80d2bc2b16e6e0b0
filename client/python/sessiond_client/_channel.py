"""The connection of one event loop, and the calls that are under way on it.

What is asked for in one turn of the loop leaves as one message, but for a caller who comes alone and leaves at once.
There is no task and no timer for a call:
an answer completes its caller's future directly, and one timer watches all deadlines.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar, cast

from . import _policy, _protocol
from ._frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    Dismissed,
    FrameReader,
    Opening,
    ProtocolError,
    closed,
    encode,
    masks,
)
from ._options import Options
from ._policy import Errand, Route
from ._protocol import Answer, Call
from ._types import Stats
from ._urls import Address
from .errors import AuthError, InvalidRequest, SessiondError

T = TypeVar("T")

#: A message is closed when it has reached this size, so that one turn's calls do not wait for each other's bytes.
MESSAGE_SIZE = 1024 * 1024
#: Bytes the transport may hold; beyond, calls wait here unpacked, which costs a reference each.
WRITE_BUFFER = 1024 * 1024
_NORMAL_CLOSURE = (1000).to_bytes(2, "big")


class Waiting(Errand[T]):
    """A call that somebody waits for."""

    __slots__ = ("future", "link", "seq")

    def __init__(self, call: Call[T], deadline: float, seq: int, future: asyncio.Future[Answer]) -> None:
        super().__init__(call, deadline)
        self.seq = seq
        self.future = future
        self.link: Link | None = None  # where it was sent last


class Listener(Protocol):
    """Whoever is told what a link hears."""

    def answered(self, link: Link, answers: Iterable[Answer]) -> None: ...
    def lost(self, link: Link, error: Exception) -> None: ...
    def flush(self) -> None: ...


class Link(asyncio.Protocol):
    """One connection, from its handshake to its end; it is never revived."""

    def __init__(self, channel: Listener, address: Address, options: Options) -> None:
        self.address = address
        self.is_writable = False
        self.heard_at = 0.0  #: when bytes last came in, by the loop's clock
        self.error: Exception | None = None  #: why it is of no use any more
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._opening: Opening | None = Opening(address.authority, options.token, options.namespace)
        self._channel = channel
        self._loop = loop
        self._reader = FrameReader()
        self._masks = masks()
        self._transport: asyncio.Transport | None = None

    async def open(self, options: Options) -> None:
        """Connects and shakes hands. Raises OSError, ProtocolError or AuthError."""
        address = self.address
        if address.path:
            await self._loop.create_unix_connection(lambda: self, address.path)
        else:
            tls = options.tls if address.tls else None
            await self._loop.create_connection(lambda: self, address.host, address.port, ssl=tls)
        await self._opened
        if self.error is not None:  # it broke before we were told that it was open
            raise self.error

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Sends a frame; the transport keeps what the socket does not take."""
        if self._transport is not None:
            self._transport.write(encode(opcode, payload, next(self._masks)))

    def close(self) -> None:
        """Says goodbye, after what is still to be sent."""
        self.is_writable = False
        if self._transport is not None and not self._transport.is_closing():
            self.send(_NORMAL_CLOSURE, CLOSE)
            self._transport.close()

    def hold(self, is_held: bool) -> None:
        """Reads no further for a while, so that the daemon holds back what nobody takes here; or reads on."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if is_held else self._transport.resume_reading)()

    def abort(self) -> None:
        """Drops the connection now."""
        self.is_writable = False
        self._opened.cancel()
        if self._transport is not None:
            self._transport.abort()

    # -- called by the event loop --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert self._opening is not None
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._transport.write(self._opening.request)

    def data_received(self, chunk: bytes) -> None:
        self.heard_at = self._loop.time()
        try:
            if self._opening is not None:
                frames = self._opening.feed(chunk)
                if frames is None:
                    return
                self._opening = None
                self.is_writable = True
                if not self._opened.done():
                    self._opened.set_result(None)
                chunk = frames
            for opcode, payload in self._reader.feed(chunk):
                if opcode == BINARY:
                    self._channel.answered(self, _protocol.unpack_answers(payload))
                elif opcode == PING:
                    self.send(payload, PONG)
                elif opcode == CLOSE:
                    self._fail(closed(payload))
                    self.close()
        except (AuthError, ProtocolError) as error:
            self._fail(error)
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the daemon closed it"))
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self._channel.flush()

    def _fail(self, error: Exception) -> None:
        self.is_writable = False
        self.error = error
        if not self._opened.done():
            self._opened.set_exception(error)
        self._channel.lost(self, error)


class Channel:
    """What one event loop has with the daemon: a link, if there is one, and the calls under way."""

    def __init__(self, options: Options, stats: Stats) -> None:
        self._options = options
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._route = Route(options.addresses, options.deadline)
        self._link: Link | None = None
        self._links: set[Link] = set()  # with those that retire, until they have ended
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: dict[int, Waiting[Any]] = {}  # by seq: all that have no answer yet, in the order of their making
        self._outbox: deque[Waiting[Any]] = deque()  # those of them that are not sent
        self._flush_is_due = False
        self._is_alone = False  # the last message had one call, and nothing else was under way
        self._timer: asyncio.TimerHandle | None = None
        self._seq = 0

    def ask(self, call: Call[T]) -> Waiting[T]:
        """Sends the call with all others of this turn of the loop. Its future gets the answer.

        Where callers come one at a time, the first of a turn leaves at once: to wait for the turn's end is to wait for
        nobody, and costs a turn.

        Raises ConnectFailed or AuthError at once during a long outage.
        """
        now = self._loop.time()
        if self._link is None:
            self._route.refuse(now)
        self._seq = seq = self._seq + 1
        waiting = Waiting(call, now + self._options.deadline, seq, self._loop.create_future())
        self._waiting[seq] = waiting
        self._outbox.append(waiting)
        if self._timer is None:
            self._timer = self._loop.call_at(waiting.deadline, self._expire)
        if not self._flush_is_due:
            self._wake()
        return waiting

    def flush(self) -> None:
        """Sends what is in the outbox, as far as the link takes it."""
        self._flush_is_due = False
        self._is_alone = len(self._waiting) == 1
        while self._outbox and self._link is not None and self._link.is_writable:
            if packed := self._pack(self._link):
                self._link.send(_protocol.join_calls(packed))
                self._stats.messages_sent += 1
                self._stats.calls_sent += len(packed)

    def answered(self, link: Link, answers: Iterable[Answer]) -> None:
        """Hands answers to their callers. One that nobody waits for any more is dropped."""
        for answer in answers:
            waiting = self._waiting.pop(answer[0], None)
            if waiting is None or waiting.future.done():
                if _protocol.is_push(answer) and _protocol.tells_stopping(answer):
                    self._retire(link)
            elif _protocol.is_stopping(answer):
                self._retire(link)
                waiting.was_turned_away()
                if waiting.may_go_again():
                    self._requeue([waiting])
                else:
                    waiting.future.set_result(answer)
            else:
                waiting.future.set_result(answer)
        if link is not self._link:
            self._leave(link)

    def lost(self, link: Link, error: Exception) -> None:
        """The link is gone: what was under way on it goes out again where that is safe, and fails where it is not."""
        self._links.discard(link)
        if self._link is link:
            self._link = None
        again = []
        for waiting in [each for each in self._waiting.values() if each.link is link]:
            if isinstance(error, Dismissed):
                waiting.was_turned_away()
            if waiting.future.done():
                del self._waiting[waiting.seq]
            elif waiting.may_go_again():
                again.append(waiting)
            else:
                del self._waiting[waiting.seq]
                waiting.future.set_exception(waiting.lost(_policy.reason_of(error)))
        self._requeue(again)

    def close(self) -> None:
        """Says goodbye and fails what is still under way."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._outbox.clear()
        while self._waiting:
            _, waiting = self._waiting.popitem()
            if not waiting.future.done():
                waiting.future.set_exception(waiting.lost("the client was closed"))
        for link in self._links:
            link.close()

    async def wait_closed(self) -> None:
        """After `close`: returns when the sockets are given back, by force if the daemon takes too long."""
        links = list(self._links)
        ends: list[asyncio.Future[None]] = [link.ended for link in links]
        if self._connecting is not None:
            ends.append(self._connecting)
        if ends:
            await asyncio.wait(ends, timeout=self._options.deadline)
        for link in links:
            link.abort()

    def _pack(self, link: Link) -> list[bytes]:
        """The calls of the next message, taken out of the outbox."""
        packed: list[bytes] = []
        size = 0
        while self._outbox and size < MESSAGE_SIZE and len(packed) < _protocol.MAX_CALLS:
            waiting = self._outbox[0]
            if not waiting.future.done():
                try:
                    call = _protocol.pack_call(waiting.seq, waiting.call)
                except InvalidRequest as error:
                    del self._waiting[waiting.seq]
                    waiting.future.set_exception(error)
                else:
                    if packed and size + len(call) > MESSAGE_SIZE:
                        break
                    waiting.goes_out()
                    waiting.link = link
                    packed.append(call)
                    size += len(call)
            self._outbox.popleft()
        return packed

    def _requeue(self, several: list[Waiting[Any]]) -> None:
        """Puts calls back in front: they were asked for before what is in the outbox."""
        for waiting in reversed(several):
            waiting.link = None
            self._waiting[waiting.seq] = waiting
            self._outbox.appendleft(waiting)
        self._stats.repeats += len(several)
        if self._outbox:
            self._wake()

    def _retire(self, link: Link) -> None:
        """The daemon stops: what is under way on this link is still answered, new calls go elsewhere."""
        if self._link is link:
            self._link = None
            self._route.avoid(link.address)
            if self._outbox:
                self._wake()

    def _leave(self, link: Link) -> None:
        """Says goodbye on a link that has retired, once all is answered that was under way on it."""
        if link in self._links and not any(waiting.link is link for waiting in self._waiting.values()):
            link.close()

    def _wake(self) -> None:
        if self._link is not None:
            if self._is_alone and len(self._waiting) == 1:
                self.flush()
            elif not self._flush_is_due:
                self._flush_is_due = True
                self._loop.call_soon(self.flush)
        elif self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        """Connects, as long as somebody waits for it."""
        try:
            while self._link is None and any(not waiting.future.done() for waiting in self._outbox):
                if pause := self._route.pause(self._loop.time()):
                    await asyncio.sleep(pause)
                else:
                    await self._attempt()
            self.flush()
        except SessiondError as error:
            while self._outbox:
                waiting = self._outbox.popleft()
                self._waiting.pop(waiting.seq, None)
                if not waiting.future.done():
                    waiting.future.set_exception(waiting.unreachable(error))
        finally:
            self._connecting = None

    async def _attempt(self) -> None:
        """One attempt at every address; when all fail, the route knows."""
        tried: list[tuple[Address, Exception]] = []
        for address in self._route.order():
            link = Link(self, address, self._options)
            try:
                async with asyncio.timeout(self._route.timeout):
                    await link.open(self._options)
            except AuthError as error:
                self._route.failed(self._loop.time(), error)
                raise
            except (OSError, ProtocolError) as error:
                tried.append((address, error))
                link.abort()
            except BaseException:
                link.abort()
                raise
            else:
                self._route.succeeded(address)
                self._stats.connects += 1
                self._links.add(link)
                self._link = link
                return
        self._route.failed(self._loop.time(), _policy.connect_failed(tried))

    def _expire(self) -> None:
        """Fails every call whose time is up, and sets the timer for the next one."""
        now, self._timer = self._loop.time(), None
        silent = set()
        for waiting in list(self._waiting.values()):
            if not waiting.future.done() and now < waiting.deadline:
                continue
            del self._waiting[waiting.seq]
            if waiting.future.done():
                continue
            waiting.future.set_exception(self._late(waiting))
            if waiting.link is not None and waiting.link.heard_at <= waiting.deadline - self._options.deadline:
                silent.add(waiting.link)
        if self._waiting:
            self._timer = self._loop.call_at(min(each.deadline for each in self._waiting.values()), self._expire)
        # Nothing at all was heard for the whole time of a call: the other end is gone, though nobody told us.
        for link in silent:
            self._route.avoid(link.address)
            link.abort()

    def _late(self, waiting: Waiting[Any]) -> SessiondError:
        if waiting.link is not None or self._link is not None:
            return waiting.late(self._options.deadline)
        silence = [(address, TimeoutError()) for address in self._options.addresses]
        return waiting.unreachable(self._route.error or _policy.connect_failed(silence))
