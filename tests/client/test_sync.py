"""What is the blocking client's own: threads, forks, and its pool of sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sessiond_client import Client, DeadlineExceeded, _pool
from sessiond_client.cookies import new_sid
from sessiond_client.testing import Server

from .peers import Peer, silent, welcoming


def test_one_connection_for_one_thread(sessiond_client: Client) -> None:
    """One thread's calls travel on one connection, one message each."""
    for _ in range(10):
        sessiond_client.get(new_sid())

    assert (sessiond_client.stats.connects, sessiond_client.stats.messages_sent) == (1, 10)


def test_threads_share_a_client(sessiond_client: Client) -> None:
    """Threads call at the same time, each with answers of its own, on no more connections than threads."""
    sids = [sessiond_client.create({"n": n}) for n in range(8)]

    def work(n: int) -> None:
        for i in range(50):
            record = sessiond_client.get(sids[n])
            assert record is not None
            assert record.data["n"] == n
            sessiond_client.patch(sids[n], {"i": i})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert sessiond_client.stats.connects <= 8
    assert [entry.version for entry in sessiond_client.list(everyone=True)] == [51] * 8


def test_twenty_writers_lose_nothing(sessiond_server: Server) -> None:
    """Twenty threads that count up one number with update lose no step."""
    with Client(sessiond_server.url, deadline=20) as client:
        sid = client.create({"n": 0})

        def count_up(_: int) -> None:
            for _ in range(5):
                client.update(sid, lambda data: data.update(n=data["n"] + 1), attempts=1000)

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(count_up, range(20)))
        record = client.get(sid)

    assert record is not None
    assert (record.data, record.version) == ({"n": 100}, 101)


def test_more_threads_than_connections(sessiond_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads beyond the limit wait for a connection to come back."""
    monkeypatch.setattr(_pool, "MAX_CONNECTIONS", 2)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: sessiond_client.get(new_sid()), range(200)))

    assert found == [None] * 200
    assert sessiond_client.stats.connects <= 2


def test_a_write_that_did_not_get_out() -> None:
    """A write that could not be sent whole was not carried out, and the error says so."""

    async def deaf(reader: Any, writer: Any) -> None:
        reader._transport.pause_reading()
        await silent(reader, writer)

    with Peer(welcoming(deaf)) as peer, Client(peer.url, deadline=1) as client:
        with pytest.raises(DeadlineExceeded, match="nothing was written") as caught:
            client.set(new_sid(), {"x": "x" * 15_000_000})
        assert not caught.value.outcome_unknown


def test_all_connections_busy_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that gets no connection in time is told that nothing was written."""
    monkeypatch.setattr(_pool, "MAX_CONNECTIONS", 1)
    with Client("http://127.0.0.1:1", deadline=0.3) as client:
        assert client._pool.take(time.monotonic()) is None  # as another thread would, to open the only one

        with pytest.raises(DeadlineExceeded, match="nothing was written") as caught:
            client.set(new_sid(), {})

        assert not caught.value.outcome_unknown
        client._pool.drop(None)


def test_fork(sessiond_client: Client) -> None:
    """A forked child opens connections of its own; the parent's go on, whatever the child does with its copy."""
    sid = sessiond_client.create({"n": 0})

    child = os.fork()
    if child == 0:
        try:
            record = sessiond_client.get(sid)
            sessiond_client.patch(sid, {"child": True})
            sessiond_client.close()
            os._exit(0 if record is not None and sessiond_client.stats.connects == 2 else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)

    record = sessiond_client.get(sid)
    assert status == 0
    assert record is not None
    assert record.data == {"n": 0, "child": True}
    assert (sessiond_client.stats.connects, sessiond_client.stats.repeats) == (1, 0)


def test_fork_while_other_threads_call(sessiond_client: Client) -> None:
    """A child forked in the middle of other threads' calls is not held up by a lock that they held."""
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            sessiond_client.get(new_sid())

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    statuses = []
    for _ in range(10):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
            child = os.fork()
        if child == 0:
            try:
                signal.alarm(20)
                os._exit(0 if sessiond_client.get(new_sid()) is None else 1)
            finally:
                os._exit(2)
        statuses.append(os.waitpid(child, 0)[1])
    over.set()
    for thread in threads:
        thread.join()

    assert statuses == [0] * 10


def test_connections_broken_while_idle(sessiond_server: Server) -> None:
    """A connection that broke while it was idle is noticed before it is used: even a set goes through."""
    with Client(sessiond_server.url, deadline=10) as client:
        sid = client.create({})
        sessiond_server.restart()

        assert client.set(sid, {"a": 1}) == 2
        assert (client.stats.connects, client.stats.repeats) == (2, 0)


def test_connections_idle_for_long(sessiond_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is not used again after a long idle time, before the daemon would close it."""
    sessiond_client.count()
    monkeypatch.setattr(_pool, "MAX_IDLE", 0.0)
    monkeypatch.setattr(_pool, "BRIEF", 0.0)
    sessiond_client.count()

    assert sessiond_client.stats.connects == 2
    assert _pool.MAX_IDLE < 30


def test_interrupted_call(sessiond_server: Server) -> None:
    """A call ended by an exception of a signal handler leaves no stray answer for the next one."""
    with Peer(welcoming(silent)) as peer, Client([peer.url, sessiond_server.url], deadline=20) as client:

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(KeyboardInterrupt):
                client.get(new_sid())
        finally:
            signal.signal(signal.SIGALRM, before)

        assert client._pool.is_empty


def test_signals_do_not_extend_the_deadline() -> None:
    """A signal that comes again and again, as a profiler's does, is handled, and the call goes on to its deadline only."""
    rings: list[int] = []

    def ring(*_: Any) -> None:
        rings.append(len(rings))
        if len(rings) == 100:
            raise AssertionError("it would go on for ever")

    with Peer(welcoming(silent)) as peer, Client(peer.url, deadline=1) as client:
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        try:
            with pytest.raises(DeadlineExceeded):
                client.get(new_sid())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    assert rings


def test_a_slow_reader_does_not_extend_the_deadline() -> None:
    """A daemon that takes a large write bit by bit gets no more time for it than one that takes nothing."""
    parts = 0

    async def slow(reader: Any, writer: Any) -> None:
        nonlocal parts
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        while parts < 30 and await reader.read(20_000):
            parts += 1
            await asyncio.sleep(0.1)
        await silent(reader, writer)

    with (
        Peer(welcoming(slow)) as peer,
        Client(peer.url, deadline=1) as client,
        pytest.raises(DeadlineExceeded, match="nothing was written"),
    ):
        client.set(new_sid(), {"x": "x" * 15_000_000})

    assert 0 < parts < 30


def test_a_socket_that_waits_in_a_way_of_its_own() -> None:
    """gevent puts classes of its own in the place of Python's sockets: their waiting knows Python's timeouts and poll, and
    nothing of the kernel's."""
    script = """
import sys
from socket import socket
class Green(socket):
    def recv(self, size, flags=0):
        assert self.gettimeout() is not None, "it would wait for ever"
        return super().recv(size, flags)
import socket as module
module.socket = Green
from sessiond_client import Client
with Client(sys.argv[1]) as client:
    print(client.count())
"""
    with Server() as server:
        done = subprocess.run([sys.executable, "-c", script, server.url], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("0\n", "")


def test_forgotten_client(sessiond_server: Server) -> None:
    """A client that is dropped with connections open warns, and closes them."""
    client = Client(sessiond_server.url)
    client.count()

    with pytest.warns(ResourceWarning, match="not closed"):
        del client


def test_unused_client_needs_no_closing() -> None:
    """A client that never connected is dropped in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Client("http://127.0.0.1:1")


def test_close_while_in_use(sessiond_server: Server) -> None:
    """close lets calls in other threads end, and leaves nothing open."""
    client = Client(sessiond_server.url)
    client.count()
    began, results = threading.Event(), []

    def work() -> None:
        for _ in range(10_000):
            try:
                results.append(client.get(new_sid()))
            except ValueError:
                return
            began.set()

    thread = threading.Thread(target=work)
    thread.start()
    began.wait(10)
    client.close()
    thread.join(10)

    assert set(results) == {None}
    assert client._pool.is_empty
    assert not thread.is_alive()


def test_deadline_holds_for_dripping_answers() -> None:
    """An answer that comes byte by byte does not extend the deadline."""

    async def drip(reader: Any, writer: Any) -> None:
        await reader.read(1000)
        for _ in range(1000):
            writer.write(b"\x8a\x00")  # a pong, which nobody asked for
            await asyncio.sleep(0.02)

    with Peer(welcoming(drip)) as peer, Client(peer.url, deadline=0.5) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.get(new_sid())
        assert time.monotonic() - began < 5
