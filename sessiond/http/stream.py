"""The stream: one WebSocket a client process, its messages, and the order in which they are answered.

Two tasks a connection and none a call: the request's own task reads messages, carries out their calls and sends what is
answered at once; the sender wakes when a commit has answered the rest. Both send through `_Connection.flush`.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol, cast

from aiohttp import WSMsgType, hdrs, web

from sessiond import codec
from sessiond.calls import MAX_META_BYTES, MAX_META_ENTRIES, SURVEYS, Call, Watch
from sessiond.errors import Refused
from sessiond.events import Cursor
from sessiond.http import wire
from sessiond.http.auth import actor_of, check_call
from sessiond.http.bounds import Bounds
from sessiond.record import Answer, failed
from sessiond.store import Store
from sessiond.tokens import NEEDS, Grant

SILENCE = 30.0
"""Seconds without a word after which a connection is pinged; half of that later it is closed if no pong came."""

GROUP_BYTES = 1024 * 1024
"""Answers are grouped into messages of about this size, so that none comes near what a client may refuse (16 MiB)."""

PART = 256
"""Calls of one message that are carried out before what they were answered is sent: 16 MiB of data at the default max_data."""

LAST_WORDS = 5.0
"""Seconds that a client whose token has ended gets to take its last answers; then the connection is cut."""

MAX_WAITING = 10_000
"""Calls of one connection that may wait for their commit; beyond that the daemon reads no further until some are done."""

_MALFORMED = f"a message is an array of at most {wire.MAX_CALLS} calls".encode()

_STOPPING = failed("stopping", "The daemon is stopping; ask another, or again in a moment.")
_LEAVING = failed("stopping", "This connection has come to its end; ask on another.")


class _Line(Protocol):
    """What the listener's connection wants to know of the stream on it."""

    def message_came(self) -> None: ...


class _Connection:
    def __init__(
        self, request: web.Request, socket: web.WebSocketResponse, line: _Line, store: Store, grant: Grant
    ) -> None:
        self.grant = grant
        self._request = request
        self._socket = socket
        self._line = line
        self._told = self._leaving = False
        self._store = store
        self._namespace = grant.namespace
        self._may_all = grant.actions >= NEEDS.keys()
        self.is_ending = False
        self._by = actor_of(request)
        self._lane = store.lane(self._by)
        self._watcher: asyncio.Task[None] | None = None
        self._is_noted = False
        self._answers: list[list[Any]] = []
        self._taking = False  # answers that come while calls are being taken are sent by whoever takes them
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._room.set()
        self._waiting = 0
        self._sending = asyncio.Lock()  # so that whoever closes knows that everything before is out

    async def run(self) -> None:
        sender = asyncio.create_task(self._send_for_ever())
        try:
            async for message in self._socket:
                self._line.message_came()
                if self.is_ending:
                    continue
                if message.type is not WSMsgType.BINARY:
                    await self._socket.close(code=wire.CLOSE_NOT_BINARY, message=b"messages are binary")
                    break
                try:
                    policy = self._store.policy(self._namespace)
                    read = wire.read_message(message.data, self._namespace, policy)
                except wire.Malformed as e:
                    await self._socket.close(code=e.code, message=_MALFORMED)
                    break
                for part in _parts(read):
                    if self._socket.closed:
                        break  # nobody is left to be answered; what was not begun is dropped
                    self._take(part)
                    await self.flush()
                    await self._room.wait()
                    if isinstance(part[-1][1], SURVEYS):
                        await self._idle.wait()
                        await self.flush()
        except ConnectionError:
            pass  # the client is gone in the middle of an answer
        finally:
            for task in (sender, self._watcher):
                if task is not None:
                    task.cancel()
                    with suppress(asyncio.CancelledError, ConnectionError):
                        await task

    def _take(self, part: list[tuple[int, Call | Watch | Refused]]) -> None:
        if self.is_ending:
            return  # by the close the client knows that these were not begun
        if not self._may_all:
            part = [(seq, self._checked(call)) for seq, call in part]
        seqs: list[int] = []
        calls: list[Call] = []
        for seq, call in part:
            if isinstance(call, Refused):
                self._refuse(seq, call)
            elif isinstance(call, Watch):
                self._watch(seq, call)
            elif self._store.stopping or self._leaving:
                reason = _STOPPING if self._store.stopping else _LEAVING
                self._answers.append(wire.answer_fields(seq, call, reason))
            else:
                seqs.append(seq)
                calls.append(call)
        if not calls:
            return
        self._waiting += len(calls)
        self._idle.clear()
        self._taking = True
        self._lane.submit(calls, self._store.clock.now(), self._replier(seqs, calls))
        self._taking = False
        if self._waiting > MAX_WAITING:
            self._room.clear()

    def _refuse(self, seq: int, refusal: Refused) -> None:
        self._store.figures.refused[refusal.code] += 1
        self._answers.append(wire.refusal_fields(seq, refusal))
        if refusal.code == "forbidden" and self._store.audit is not None and not self._is_noted:
            self._is_noted = True  # once a connection: it may ask as often as it likes
            self._store.audit.tell("refuse", outcome=refusal.code, namespace=self._namespace, **self._by._asdict())

    def _watch(self, seq: int, call: Watch) -> None:
        """Begins to tell what ends; what was told so far, if this is not the first time, is not told on."""
        log = self._store.events
        try:
            cursor = log.now() if call.after is None else log.after(call.after)
        except Refused as e:
            self._refuse(seq, e)
            return
        self._answers.append(wire.watching_fields(seq, call.after or log.id_of(cursor)))
        if self._watcher is not None:
            self._watcher.cancel()
        self._watcher = asyncio.create_task(self._tell_for_ever(cursor))

    async def _tell_for_ever(self, cursor: Cursor) -> None:
        """Pulls from the log as fast as the client takes it: one that does not read costs no memory, and is cut off."""
        log, more = self._store.events, asyncio.Event()
        log.wake(more.set)
        try:
            while not self.is_ending and not self._leaving:
                more.clear()
                events, cursor = log.read(cursor, self._namespace)
                if events:
                    self._answers += map(wire.event_fields, events)
                    await self.flush()
                if log.is_behind(cursor):
                    await asyncio.sleep(0)  # others are to have their turn
                else:
                    await more.wait()
        except ConnectionError:
            pass  # the client is gone; whoever reads from it finds out
        finally:
            log.unwake(more.set)

    def _checked(self, call: Call | Watch | Refused) -> Call | Watch | Refused:
        """The call, or why the token does not allow it."""
        if isinstance(call, Refused):
            return call
        try:
            check_call(self.grant, call)
        except Refused as e:
            return e
        return call

    def _replier(self, seqs: list[int], calls: list[Call]) -> Callable[[int, Answer], None]:
        def reply(position: int, answer: Answer) -> None:
            self._answers.append(wire.answer_fields(seqs[position], calls[position], answer))
            self._waiting -= 1
            if not self._taking:
                self._more.set()
            if self._waiting == 0:
                self._idle.set()
            if self._waiting <= MAX_WAITING:
                self._room.set()

        return reply

    async def _send_for_ever(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            await self.flush()

    async def flush(self) -> None:
        """Sends what has been answered."""
        async with self._sending:
            if self._answers and not self._socket.closed:
                answers, self._answers = self._answers, []
                for group in _groups(answers):
                    await self._socket.send_bytes(codec.pack(group))

    async def tell_stopping(self) -> None:
        """Asks the client to leave; what it still asks is answered. Once only."""
        if not self._told:
            self._told = True
            self._answers.append(wire.STOPPING)
            await self.flush()

    async def stop(self) -> None:
        """Tells the client, answers what it has asked, and closes. Called twice, it leaves that to the first.

        By now nothing new is begun, and all that was begun is answered before the close: so a call without an answer
        at a close with 1001 was not begun, which docs/protocol.md tells clients to rely on.
        """
        if self._leaving:
            return
        self._leaving = True
        with suppress(ConnectionError):
            await self.tell_stopping()
            await self._close_behind_answers(wire.CLOSE_STOPPING, b"ask on another connection")

    async def end(self) -> None:
        """Answers what was begun before `is_ending` was set, and closes: the token does not allow more.

        As with `stop`, a call without an answer was not begun.
        """
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self._close_behind_answers(wire.CLOSE_UNAUTHORIZED, b"the token is not valid any more")
        except (TimeoutError, ConnectionError):
            self.cut()

    def cut(self) -> None:
        if (transport := self._request.transport) is not None:
            transport.abort()

    async def _close_behind_answers(self, code: int, reason: bytes) -> None:
        await self.flush()
        await self._idle.wait()
        await self.flush()
        await self._socket.close(code=code, message=reason)


def _parts(calls: list[tuple[int, Call | Watch | Refused]]) -> Iterator[list[tuple[int, Call | Watch | Refused]]]:
    """Calls that are carried out before their answers have to be out: so that a client that does not read, or is gone,
    holds no more of the daemon's memory than these. A listing, which may be 5 MB, ends its part."""
    start = 0
    for end, (_, call) in enumerate(calls, 1):
        if end - start == PART or isinstance(call, SURVEYS):
            yield calls[start:end]
            start = end
    if start < len(calls):
        yield calls[start:]


def _groups(answers: list[list[Any]]) -> Iterator[list[list[Any]]]:
    start = size = 0
    for end, answer in enumerate(answers):
        size += 512  # a user and the numbers
        for field in answer:
            if type(field) is bytes:  # data
                size += len(field)
            elif type(field) is dict:  # meta, at its largest
                size += MAX_META_BYTES + 10 * MAX_META_ENTRIES
            elif type(field) is list:  # a page of a listing, perhaps 5 MB of users and meta: it ends its group
                size += GROUP_BYTES
        if size > GROUP_BYTES:
            yield answers[start : end + 1]
            start, size = end + 1, 0
    if start < len(answers):
        yield answers[start:]


class Streams:
    """All connections, so that they can be told when the daemon stops, and ended when their token does. One that has lived
    for `bounds.lifetime` is told so too; clients leave then by themselves, and after `bounds.patience` it is ended."""

    def __init__(self, store: Store, bounds: Bounds) -> None:
        self._store = store
        self._bounds = bounds
        self._connections: set[_Connection] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._partings: set[asyncio.Task[None]] = set()

    @property
    def number(self) -> int:
        return len(self._connections)

    async def serve(self, request: web.Request, grant: Grant) -> web.StreamResponse:
        """Upgrades the request and speaks until either side closes. Raises Refused for a wrong handshake."""
        socket = web.WebSocketResponse(
            protocols=(wire.PROTOCOL,),
            compress=False,
            max_msg_size=wire.MAX_MESSAGE + 1,  # aiohttp refuses the size itself
            heartbeat=SILENCE,
            timeout=5.0,
        )
        offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(",")
        if wire.PROTOCOL not in map(str.strip, offered) or not socket.can_prepare(request).ok:
            raise Refused(
                "bad_handshake", f"This is the stream: upgrade to a WebSocket with sub-protocol {wire.PROTOCOL}."
            )
        await socket.prepare(request)
        connection = _Connection(request, socket, cast(_Line, request.protocol), self._store, grant)
        self._connections.add(connection)
        loop = asyncio.get_running_loop()
        lifetime = self._bounds.lifetime
        end = None if lifetime is None else loop.call_later(lifetime, self._part, connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            if end is not None:
                end.cancel()
        return socket

    def end_unless(self, holds: Callable[[Grant], bool]) -> None:
        """Ends every connection whose grant does not hold any more."""
        for connection in self._connections:
            if not connection.is_ending and not holds(connection.grant):
                connection.is_ending = True  # now, not when the task begins: nothing may be taken in between
                task = asyncio.create_task(connection.end())
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    def _part(self, connection: _Connection) -> None:
        parting = asyncio.get_running_loop().create_task(self._part_from(connection))
        self._partings.add(parting)
        parting.add_done_callback(self._partings.discard)

    async def _part_from(self, connection: _Connection) -> None:
        with suppress(ConnectionError):
            await connection.tell_stopping()
        await asyncio.sleep(self._bounds.patience)
        if connection in self._connections:
            await asyncio.shield(connection.stop())  # which is not given up when the daemon stops in the middle of it

    async def stop(self) -> None:
        for parting in self._partings:
            parting.cancel()
        await asyncio.gather(*(connection.stop() for connection in self._connections))
