"""The stream: one WebSocket a client process, its messages, and the order in which they are answered.

aiohttp takes the request and answers the handshake; then `_Connection` is the protocol of the socket. There is no task for
a message, nor for a call.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from aiohttp import web

from sessiond import codec
from sessiond.audit import Actor
from sessiond.calls import MAX_META_BYTES, MAX_META_ENTRIES, SURVEYS, Call, Watch
from sessiond.errors import Refused
from sessiond.events import Cursor
from sessiond.http import frames, wire
from sessiond.http.auth import actor_of, check_call
from sessiond.http.bounds import Bounds
from sessiond.record import Answer, failed
from sessiond.store import Store
from sessiond.tokens import NEEDS, Grant

SILENCE = 30.0
"""Seconds without a word after which a connection is pinged; half of that later it is closed if no pong came."""

GROUP_BYTES = 1024 * 1024
"""Answers are grouped into messages of about this size, so that none comes near what a client may refuse (16 MiB)."""

MESSAGE_BYTES = 4 * GROUP_BYTES
"""What is answered together leaves as one message up to this size; only beyond are its answers looked at one by one."""

PART = 256
"""Calls of one message that are carried out before what they were answered is sent: 16 MiB of data at the default max_data."""

LAST_WORDS = 5.0
"""Seconds that a client whose token has ended gets to take its last answers; then the connection is cut."""

MAX_WAITING = 10_000
"""Calls of one connection that may wait for their commit; beyond that the daemon reads no further until some are done."""

MAX_UNREAD = 256 * 1024
"""Bytes of a message that may lie here unfinished for as long as the client likes: as much as is read at a time."""

GOODBYE = 5.0
"""Seconds that a client has to answer a close, or to take the answer to its own; then the connection is cut."""

Part = list[tuple[int, Call | Watch | Refused]]

_MALFORMED = f"a message is an array of at most {wire.MAX_CALLS} calls".encode()

_STOPPING = failed("stopping", "The daemon is stopping; ask another, or again in a moment.")
_LEAVING = failed("stopping", "This connection has come to its end; ask on another.")


class Line(Protocol):
    """The listener's connection, as far as the stream on it needs it: it keeps the rules of who reads, and for how long."""

    async def drain(self) -> None: ...
    def hand_over(self, heir: asyncio.Protocol) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...


class _Connection(asyncio.Protocol):
    """One stream, from behind its handshake to its end. Bytes come in by `data_received`, which carries out what is asked
    and writes what is answered at once, all in that call; what a commit has answered leaves in the next turn of the loop.

    It is held (`_hold`) while its client does not take its answers, while too many of its calls wait for their commit, and
    while a survey is under way: then nothing more is read from it.
    """

    def __init__(self, line: Line, store: Store, grant: Grant, by: Actor, patience: float) -> None:
        self.grant = grant
        self.is_ending = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line = line
        self._store = store
        self._by = by
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._namespace = grant.namespace
        self._may_all = grant.actions >= NEEDS.keys()
        self._lane = store.lane(by)
        self._reader = frames.FrameReader(wire.MAX_MESSAGE)
        self._parts: deque[Part] = deque()  # of the messages in hand, what is not begun
        self._answers: list[list[Any]] = []
        self._waiting = 0  # calls that wait for their answers
        self._idle = asyncio.Event()  # none of them does
        self._idle.set()
        self._taking = False  # answers that come while calls are being taken are sent by whoever takes them
        self._is_due = False  # `_go_on` is called in the next turn
        self._is_surveying = False  # the calls that wait end with a survey
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_held = self._is_paused = False
        self._is_over = False  # nothing that comes is of interest any more
        self._is_closing = False  # nothing is taken any more
        self._last: bytes | None = None  # the close frame that goes out behind the answers
        self._told = self._leaving = self._is_noted = False
        self._watcher: asyncio.Task[None] | None = None
        self._heard_at = self._asked_at = self._loop.time()
        self._pulse: asyncio.TimerHandle | None = self._loop.call_later(SILENCE, self._listen)
        self._overdue: asyncio.TimerHandle | None = None  # by when a long message has to have come to its end
        self._goodbye: asyncio.TimerHandle | None = None

    # What the loop calls -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if not self._is_over:
            self._reader.feed(data)
            self._pump()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._hold()
        self._line.pause_writing()

    def resume_writing(self) -> None:
        self._line.resume_writing()
        self._writable.set()
        self._hold()
        if self._is_closing and self._last is None:
            self._await_goodbye()
        self._wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._is_closing = self._is_over = True
        self._last = None
        self._parts.clear()
        for each in (self._pulse, self._overdue, self._goodbye, self._watcher):
            if each is not None:
                each.cancel()
        self._writable.set()
        self._line.connection_lost(exc)
        if not self.ended.done():
            self.ended.set_result(None)

    # Reading -------------------------------------------------------------------------------------------

    def _hold(self) -> None:
        """Finds out anew whether the connection is held."""
        self._is_held = (
            not self._writable.is_set() or self._waiting > MAX_WAITING or (self._is_surveying and self._waiting > 0)
        )

    def _pump(self) -> None:
        """Carries out what has come, in order, until there is no more or the connection is held.

        All at once, so that what came before a stop is begun before it; what is answered leaves a part at a time.
        """
        done = 0
        while not (self._is_held or self._is_over):
            if self._parts:
                part = self._parts.popleft()
                self._take(part)
                done += len(part)
            else:
                try:
                    frame = self._reader.next()
                except frames.WrongFrame as e:
                    self.close(e.code)
                    self._is_over = True  # where the next frame begins is not known any more
                    break
                if frame is None:
                    break
                self._heard(*frame)
                done += 1
            if done >= PART:
                self.flush()
                done = 0
        self.flush()
        if self._reader.unread or self._is_held or self._is_paused:
            self._watch_reading()

    def _watch_reading(self) -> None:
        """Reads no further, or reads on; and sees to it that a long message comes to its end."""
        unread = self._reader.unread
        if unread > MAX_UNREAD and self._overdue is None and not self._is_closing:
            self._overdue = self._loop.call_later(self._patience, self._waited)
        if self._is_held is not self._is_paused and not self._transport.is_closing():
            self._is_paused = not self._is_paused
            (self._transport.pause_reading if self._is_paused else self._transport.resume_reading)()

    def _heard(self, opcode: int, payload: bytes | bytearray) -> None:
        if opcode == frames.CLOSE:
            if not self._is_closing or self._last is not None:
                self.flush()
                self._is_closing, self._last = True, None
                self._transport.write(frames.encode(frames.CLOSE, frames.goodbye(payload)))
            self._is_over = True
            self._transport.close()
            self._await_goodbye()  # it may still leave unread what was sent before
        elif self._is_closing or self.is_ending:
            return
        elif opcode == frames.BINARY:
            if self._overdue is not None:
                self._overdue.cancel()
                self._overdue = None
            try:
                read = wire.read_message(payload, self._namespace, self._store.policy(self._namespace))
            except wire.Malformed as e:
                self.close(e.code, _MALFORMED)
            else:
                self._parts.extend(_parts(read))
        elif opcode == frames.PING:
            self._transport.write(frames.encode(frames.PONG, payload))
        elif opcode == frames.TEXT:
            try:
                payload.decode()
            except UnicodeDecodeError:
                self.close(wire.CLOSE_MALFORMED, b"text is UTF-8, and messages are binary")
            else:
                self.close(wire.CLOSE_NOT_BINARY, b"messages are binary")

    def _wake(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_due = False
        self.flush()
        self._pump()

    def _waited(self) -> None:
        """Ends a stream whose long message did not come to its end; not one that nobody reads from."""
        self._overdue = None
        if not self._is_held:
            self.cut()
        elif not self._is_closing:
            self._overdue = self._loop.call_later(self._patience, self._waited)

    def _listen(self) -> None:
        """Asks for a word of whoever has been silent for long; ends the connection of one that does not answer."""
        now = self._loop.time()
        if self._is_held or self._is_closing:
            wait = SILENCE
        elif self._heard_at < self._asked_at:
            self.cut()
            return
        elif now < self._heard_at + SILENCE:
            wait = self._heard_at + SILENCE - now
        else:
            self._transport.write(frames.encode(frames.PING, b""))
            self._asked_at = now
            wait = SILENCE / 2
        self._pulse = self._loop.call_later(wait, self._listen)

    # Calls and answers ---------------------------------------------------------------------------------

    def _take(self, part: Part) -> None:
        if self.is_ending or self._is_closing:
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
        self._taking = True
        self._lane.submit(calls, self._store.clock.now(), self._replier(seqs, calls))
        self._taking = False
        if self._waiting:
            self._idle.clear()
            self._is_surveying = isinstance(calls[-1], SURVEYS)
            self._hold()

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
            while not self.is_ending and not self._leaving and not self._is_closing:
                await self._writable.wait()
                self.flush()
                if not self._writable.is_set():
                    continue  # not all is taken that was told before
                more.clear()
                events, cursor = log.read(cursor, self._namespace)
                if events:
                    self._answers += map(wire.event_fields, events)
                    self.flush()
                if log.is_behind(cursor):
                    await asyncio.sleep(0)  # others are to have their turn
                else:
                    await more.wait()
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
                if self._waiting == 0:
                    self._idle.set()
                if self._is_held:
                    self._hold()
                self._wake()

        return reply

    def flush(self) -> None:
        """Sends what has been answered, as far as the client takes it, and the close behind it; nothing behind that.

        A commit may answer MAX_WAITING calls at once: they become bytes a PART at a time.
        """
        if self._transport.is_closing() or (self._is_closing and self._last is None):
            return
        while self._answers and self._writable.is_set():
            answers, self._answers = self._answers[:PART], self._answers[PART:]
            message = codec.pack(answers)
            if len(message) <= MESSAGE_BYTES:
                self._transport.write(frames.encode(frames.BINARY, message))
            else:
                for group in _groups(answers):
                    self._transport.write(frames.encode(frames.BINARY, codec.pack(group)))
        if self._last is not None and not self._answers:
            last, self._last = self._last, None
            self._transport.write(last)
            if self._writable.is_set():
                self._await_goodbye()

    # Its end -------------------------------------------------------------------------------------------

    def tell_stopping(self) -> None:
        """Asks the client to leave; what it still asks is answered. Once only."""
        if not self._told:
            self._told = True
            self._answers.append(wire.STOPPING)
            self.flush()

    async def stop(self) -> None:
        """Tells the client, answers what it has asked, and closes. Called twice, it leaves that to the first.

        By now nothing new is begun, and all that was begun is answered before the close: so a call without an answer
        at a close with 1001 was not begun, which docs/protocol.md tells clients to rely on.
        """
        if self._leaving:
            return
        self._leaving = True
        self.tell_stopping()
        await self._close_behind_answers(wire.CLOSE_STOPPING, b"ask on another connection")

    async def end(self) -> None:
        """Answers what was begun before `is_ending` was set, and closes: the token does not allow more.

        As with `stop`, a call without an answer was not begun.
        """
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self._close_behind_answers(wire.CLOSE_UNAUTHORIZED, b"the token is not valid any more")
        except TimeoutError:
            self.cut()

    def close(self, code: int, reason: bytes = b"") -> None:
        """Says that this is the end, behind what was answered; the client has GOODBYE seconds to say so too."""
        if not self._is_closing and not self._transport.is_closing():
            self._is_closing = True
            self._parts.clear()
            self._last = frames.encode(frames.CLOSE, frames.close_payload(code, reason))
            self.flush()

    def _await_goodbye(self) -> None:
        if self._goodbye is None:
            self._goodbye = self._loop.call_later(GOODBYE, self.cut)

    def cut(self) -> None:
        self._is_over = True
        self._transport.abort()

    async def _close_behind_answers(self, code: int, reason: bytes) -> None:
        await self._idle.wait()
        self.close(code, reason)
        await asyncio.shield(self.ended)


def _parts(calls: Part) -> Iterator[Part]:
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
        headers = frames.accept(request.headers, wire.PROTOCOL)
        if headers is None:
            raise Refused(
                "bad_handshake", f"This is the stream: upgrade to a WebSocket with sub-protocol {wire.PROTOCOL}."
            )
        welcome = web.StreamResponse(status=101, headers=headers)
        welcome.force_close()
        await welcome.prepare(request)
        line = cast(Line, request.protocol)
        await line.drain()
        connection = _Connection(line, self._store, grant, actor_of(request), self._bounds.patience)
        self._connections.add(connection)
        lifetime = self._bounds.lifetime
        end = None
        if lifetime is not None:
            end = asyncio.get_running_loop().call_later(lifetime, self._part, connection)
        try:
            line.hand_over(connection)
            await connection.ended
        finally:
            self._connections.discard(connection)
            if end is not None:
                end.cancel()
        return welcome

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
        connection.tell_stopping()
        await asyncio.sleep(self._bounds.patience)
        if connection in self._connections:
            await asyncio.shield(connection.stop())  # which is not given up when the daemon stops in the middle of it

    async def stop(self) -> None:
        for parting in self._partings:
            parting.cancel()
        await asyncio.gather(*(connection.stop() for connection in self._connections))
