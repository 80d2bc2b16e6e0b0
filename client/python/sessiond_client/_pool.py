"""Blocking connections: one socket each, one call at a time, kept in a pool that threads share and forks do not."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

from ._frames import BINARY, CLOSE, PING, PONG, FrameReader, Opening, closed, encode, masks
from ._options import Options
from ._policy import Errand
from ._protocol import Answer, is_stopping, join_calls, pack_call, tells_stopping, unpack_answers
from ._urls import Address
from .errors import InvalidRequest

#: The daemon pings a connection after 30 s of silence and nobody would answer; it is given up before.
MAX_IDLE = 20.0
#: More threads than this wait for each other: the daemon's group commit gains nothing from more.
MAX_CONNECTIONS = 32
#: Seconds for which a connection that was in order is taken to be so: within a request one call follows another, and to
#: ask the kernel in between (0.6 µs) tells nothing new.
BRIEF = 0.005
_CHUNK = 64 * 1024


class Connection:
    """A socket that has passed the handshake."""

    def __init__(self, address: Address, options: Options, deadline: float) -> None:
        self.address = address
        self.retired = False  #: whether it must not be used for another call
        self.idle_since = 0.0
        self._reader = FrameReader()
        self._masks = masks()
        self._seq = 0
        self._answer: Answer | None = None
        self._socket = _connect(address, options, deadline)
        self._is_tls = isinstance(self._socket, ssl.SSLSocket)
        try:
            if not self._is_tls:
                # It never waits by itself: that would be to ask poll(2) before each send too (1.1 µs). The kernel's own
                # timeouts (SO_RCVTIMEO) begin anew with every signal, and are not known to gevent.
                self._socket.setblocking(False)
            poller = select.poll()
            poller.register(self._socket, select.POLLIN)
            self._poll: Callable[[float], list[Any]] = poller.poll
            self._open(Opening(address.authority, options.token, options.namespace), deadline)
        except BaseException:
            self._socket.close()
            raise

    def ask(self, errand: Errand[Any]) -> Answer:
        """Sends the call and waits for its answer.

        Raises OSError (TimeoutError at the deadline) and ProtocolError; the connection is of no use after any
        exception, KeyboardInterrupt included.
        """
        self._seq += 1
        self._answer = None
        message = join_calls([pack_call(self._seq, errand.call)])
        errand.goes_out()
        try:
            self._send(BINARY, message, errand.deadline)
        except OSError:
            errand.was_held_back()
            raise
        while self._answer is None:
            self._take(self._receive(errand.deadline), errand.deadline)
        return self._answer

    def pushed(self, push: Answer) -> None:
        """The daemon tells something without being asked."""
        self.retired |= tells_stopping(push)

    def is_fresh(self, now: float) -> bool:
        """Whether it can be used again: not idle for long, and nothing has come in meanwhile, such as its end."""
        idle = now - self.idle_since
        return idle < BRIEF or (idle < MAX_IDLE and not self._poll(0))

    def close(self) -> None:
        """Gives the socket back. Only the descriptor is closed: a forked process must not end its parent's session."""
        self._socket.close()

    def _open(self, opening: Opening, deadline: float) -> None:
        self._write(opening.request, deadline)
        while (frames := opening.feed(self._receive(deadline))) is None:
            pass
        self._take(frames, deadline)

    def _send(self, opcode: int, payload: bytes, deadline: float) -> None:
        self._write(encode(opcode, payload, next(self._masks)), deadline)

    def _write(self, data: bytes, deadline: float) -> None:
        remaining = _remaining(deadline)
        if self._is_tls:
            self._socket.settimeout(remaining)
            self._socket.sendall(data)
            return
        sent = self._offer(data)
        if sent < len(data):
            poller = select.poll()
            poller.register(self._socket, select.POLLOUT)
            rest = memoryview(data)[sent:]
            while rest:
                if not poller.poll(1000 * _remaining(deadline)):
                    raise TimeoutError
                rest = rest[self._offer(rest) :]

    def _offer(self, data: bytes | memoryview) -> int:
        """How many of these bytes the socket takes now."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def _receive(self, deadline: float) -> bytes:
        remaining = _remaining(deadline)
        if self._is_tls:
            self._socket.settimeout(remaining)
        elif not self._poll(1000 * remaining):
            raise TimeoutError
        chunk = self._socket.recv(_CHUNK)
        if not chunk:
            raise ConnectionResetError("the daemon closed it")
        return chunk

    def _take(self, chunk: bytes, deadline: float) -> None:
        for opcode, payload in self._reader.feed(chunk):
            if opcode == BINARY:
                for answer in unpack_answers(payload):
                    if answer[0] == self._seq:
                        self._answer = answer
                        self.retired |= is_stopping(answer)
                    elif answer[0] == 0:
                        self.pushed(answer)
            elif opcode == PING:
                self._send(PONG, payload, deadline)
            elif opcode == CLOSE:
                self.retired = True
                if self._answer is None:
                    raise closed(payload)


class Pool:
    """The idle connections, the last used on top, and the count of all."""

    _idle: list[Connection]
    _count: int
    _lock: threading.Lock
    _changed: threading.Condition
    _waiters: int

    def __init__(self) -> None:
        self.closed = False
        self._start_empty()
        _pools.add(self)

    def take(self, deadline: float) -> Connection | None:
        """An idle connection, or None: then the caller opens one and is counted for it.

        Raises TimeoutError when all connections stay busy until the deadline.
        """
        with self._lock:
            while True:
                if self.closed:
                    raise InvalidRequest("The client is closed; make a new one.", code="closed")
                if self._idle:
                    connection = self._idle.pop()
                    if connection.is_fresh(monotonic()):
                        return connection
                    connection.close()
                    self._count -= 1
                elif self._count < MAX_CONNECTIONS:
                    self._count += 1
                    return None
                else:
                    self._waiters += 1
                    try:
                        self._changed.wait(_remaining(deadline))
                    finally:
                        self._waiters -= 1

    def put(self, connection: Connection) -> None:
        """Takes back a connection that is in order."""
        with self._lock:
            if not connection.retired and not self.closed:
                connection.idle_since = monotonic()
                self._idle.append(connection)
                self._tell_one()
                return
        self.drop(connection)

    def drop(self, connection: Connection | None) -> None:
        """Counts one connection less, after `take`; it may never have come into being."""
        if connection is not None:
            connection.close()
        with self._lock:
            self._count -= 1
            self._tell_one()

    def close(self) -> None:
        """Closes what is idle, now, and what is in use, when it comes back."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            self._changed.notify_all()
        for connection in idle:
            connection.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left open."""
        return self._count == 0

    def forget(self) -> None:
        """In a forked child: the parent's sockets are not ours, and a thread that held the lock is not here."""
        idle = self._idle
        self._start_empty()
        for connection in idle:
            connection.close()

    def _tell_one(self) -> None:
        if self._waiters:
            self._changed.notify()

    def _start_empty(self) -> None:
        self._idle = []
        self._count = self._waiters = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)


def _connect(address: Address, options: Options, deadline: float) -> socket.socket:
    if address.path:
        connection = socket.socket(socket.AF_UNIX)
    else:
        connection = socket.create_connection((address.host, address.port), _remaining(deadline))
    try:
        connection.settimeout(_remaining(deadline))
        if address.path:
            connection.connect(address.path)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls and options.tls is not None:
            connection = options.tls.wrap_socket(connection, server_hostname=address.host)
    except BaseException:
        connection.close()
        raise
    return connection


def _remaining(deadline: float) -> float:
    remaining = deadline - monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining
