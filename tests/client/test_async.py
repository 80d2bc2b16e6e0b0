"""What is the asyncio client's own: batching, event loops, cancellation, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import pytest

from sessiond_client import AsyncClient, Client, DeadlineExceeded, InvalidRequest, Record, Unavailable, _channel
from sessiond_client.cookies import new_sid
from sessiond_client.testing import Server

from .peers import Peer, Proxy, frame, read_frame, silent, welcoming


def run(url: str, body: Callable[[AsyncClient], Awaitable[Any]], **options: Any) -> Any:
    """Runs the body with a client in an event loop of its own; checks that nothing is left when it has closed."""

    async def main() -> Any:
        async with AsyncClient(url, **options) as client:
            result = await body(client)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = asyncio.run(main(), debug=True)
        gc.collect()  # a transport left open would warn here
    return result


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="descriptors are listed in /proc")
def test_close_gives_descriptors_back(sessiond_server: Server) -> None:
    """After close no descriptor is left of any connection."""

    async def body(client: AsyncClient) -> None:
        await client.count()

    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        run(sessiond_server.url, body)
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_one_turn_is_one_message(sessiond_server: Server) -> None:
    """All that is asked for in one turn of the loop leaves as one message, where callers have come several at a time."""

    async def body(client: AsyncClient) -> None:
        await asyncio.gather(client.count(), client.count())
        before = client.stats.messages_sent
        sids = await asyncio.gather(*(client.create({"n": n}) for n in range(50)))
        records = await asyncio.gather(*map(client.get, sids))

        assert [record.data["n"] for record in records if record] == list(range(50))
        assert client.stats.messages_sent - before == 2
        assert client.stats.connects == 1

    run(sessiond_server.url, body)


def test_a_caller_alone_does_not_wait_for_the_turn(sessiond_server: Server) -> None:
    """Where one call has come after the other, the next leaves at once; what else comes in its turn leaves as one message."""

    async def body(client: AsyncClient) -> None:
        for _ in range(3):
            await client.count()
        before = client.stats.messages_sent
        calls = [asyncio.create_task(client.get(new_sid())) for _ in range(50)]
        asyncio.get_running_loop().call_soon(lambda: sent.append(client.stats.messages_sent - before))
        sent: list[int] = []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(*calls)

        assert sent == [1]  # in the turn in which they were asked
        assert client.stats.messages_sent - before == 2

    run(sessiond_server.url, body)


def test_fifty_callers_share_messages(sessiond_server: Server) -> None:
    """Fifty callers at three reads to a write travel well over five calls to a message."""

    async def body(client: AsyncClient) -> None:
        sids = await asyncio.gather(*(client.create({}) for _ in range(50)))

        async def call(sid: str) -> None:
            for n in range(40):
                if n % 4 == 3:
                    await client.set(sid, {"n": n})
                else:
                    assert await client.get(sid) is not None

        await asyncio.gather(*map(call, sids))
        assert client.stats.calls_sent / client.stats.messages_sent > 8

    run(sessiond_server.url, body, deadline=20)


def test_order_is_kept(sessiond_server: Server) -> None:
    """Calls of one turn take effect in the order in which they were made."""

    async def body(client: AsyncClient) -> None:
        sid = await client.create({"n": 0})
        results = await asyncio.gather(
            client.set(sid, {"n": 1}), client.get(sid), client.set(sid, {"n": 2}), client.get(sid)
        )
        found = [each.data if isinstance(each, Record) else each for each in results]
        assert found == [2, {"n": 1}, 3, {"n": 2}]

    run(sessiond_server.url, body)


def test_twenty_writers_lose_nothing(sessiond_server: Server) -> None:
    """Twenty tasks that count up one number with update lose no step."""

    async def body(client: AsyncClient) -> None:
        sid = await client.create({"n": 0})

        async def count_up() -> None:
            for _ in range(5):
                await client.update(sid, lambda data: data.update(n=data["n"] + 1), attempts=1000)

        await asyncio.gather(*(count_up() for _ in range(20)))
        record = await client.get(sid)
        assert record is not None
        assert (record.data, record.version) == ({"n": 100}, 101)

    run(sessiond_server.url, body, deadline=20)


def test_large_turns_are_split(sessiond_server: Server) -> None:
    """More than a MiB in one turn travels as several messages, in order."""

    async def body(client: AsyncClient) -> None:
        sids = [new_sid() for _ in range(60)]
        await asyncio.gather(*(client.create({"x": "x" * 60_000}, sid=sid) for sid in sids))
        messages = client.stats.messages_sent

        records = await asyncio.gather(*map(client.get, sids))

        assert 4 <= messages <= 8
        assert all(record is not None for record in records)

    run(sessiond_server.url, body, deadline=20)


def test_a_call_that_no_message_can_hold(sessiond_server: Server) -> None:
    """A call that is too large fails alone; the others of its turn go on."""

    async def body(client: AsyncClient) -> None:
        before, large, after = await asyncio.gather(
            client.count(),
            client.patch(new_sid(), remove=["x" * 17_000_000]),
            client.count(),
            return_exceptions=True,
        )
        assert (before, after) == (0, 0)
        assert isinstance(large, InvalidRequest)

    run(sessiond_server.url, body, deadline=10)


def test_cancelled_callers_disturb_nobody(sessiond_server: Server) -> None:
    """Callers cancelled before and after their call was sent leave the connection as it was."""

    async def body(client: AsyncClient) -> None:
        sid = await client.create({"n": 1})
        for turns in range(4):
            doomed = [asyncio.create_task(client.get(sid)) for _ in range(10)]
            living = [asyncio.create_task(client.get(sid)) for _ in range(10)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in doomed:
                task.cancel()
            results = await asyncio.gather(*doomed, *living, return_exceptions=True)
            assert {type(result) for result in results[:10]} <= {asyncio.CancelledError, type(results[-1])}
            assert all(isinstance(result, Record) and result.data == {"n": 1} for result in results[10:])
        assert client.stats.connects == 1

    run(sessiond_server.url, body)


def test_a_cancelled_call_that_was_not_sent_is_not_sent(sessiond_server: Server) -> None:
    """A write that waits for the turn's end, and whose caller is cancelled before, never leaves."""

    async def body(client: AsyncClient) -> None:
        await asyncio.gather(client.count(), client.count())
        task = asyncio.create_task(client.create({}))
        await asyncio.sleep(0)
        task.cancel()
        assert await client.count() == 0

    run(sessiond_server.url, body)


def test_timeouts_of_callers() -> None:
    """A caller's own asyncio.timeout ends his call and nothing else."""

    async def body(client: AsyncClient) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get(new_sid())

    with Peer(welcoming(silent)) as peer:
        run(peer.url, body)


def test_one_loop_after_another(sessiond_server: Server) -> None:
    """One client serves event loops one after another, though none was left in an orderly way."""
    client = AsyncClient(sessiond_server.url)
    sid = asyncio.run(client.create({"n": 1}))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the transport of a loop that ended without close
        for _ in range(3):
            record = asyncio.run(client.get(sid))
            assert record is not None
            gc.collect()
        assert len(client._channels) == 1
        asyncio.run(client.close())
        gc.collect()

    assert client.stats.connects == 4


def test_loops_of_several_threads(sessiond_server: Server) -> None:
    """One client serves event loops of several threads at once, a connection each, and closes them all."""
    client = AsyncClient(sessiond_server.url, deadline=20)
    results: list[int] = []
    ready, over = threading.Barrier(5), threading.Barrier(5)

    async def work() -> None:
        sids = await asyncio.gather(*(client.create({}) for _ in range(20)))
        results.extend([1 for record in await asyncio.gather(*map(client.get, sids)) if record])
        await asyncio.to_thread(ready.wait)
        await asyncio.to_thread(over.wait)
        await asyncio.sleep(0.1)  # for the goodbye that another thread has put into this loop

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait()
    asyncio.run(client.close())
    over.wait()
    for thread in threads:
        thread.join()

    assert (sum(results), client.stats.connects) == (80, 4)


def test_flow_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the daemon does not read, calls wait unpacked instead of filling the transport; then they go on."""
    monkeypatch.setattr(_channel, "WRITE_BUFFER", 64 * 1024)
    monkeypatch.setattr(_channel, "MESSAGE_SIZE", 64 * 1024)
    go = threading.Event()

    async def stall(reader: Any, writer: Any) -> None:
        reader._transport.pause_reading()
        while not go.is_set():
            await asyncio.sleep(0.01)
        reader._transport.resume_reading()
        while True:
            payload = (await read_long_frame(reader))[1]
            answers = [[call[0], "ok", 1, 2, 3] for call in msgpack.unpackb(payload)]
            writer.write(frame(msgpack.packb(answers)))

    async def body(client: AsyncClient) -> None:
        calls = [asyncio.create_task(client.set(new_sid(), {"x": "x" * 50_000})) for _ in range(400)]
        await asyncio.sleep(0.5)
        sent = client.stats.calls_sent
        assert sent < 400
        go.set()
        assert await asyncio.gather(*calls) == [1] * 400
        assert client.stats.calls_sent == 400

    with Peer(welcoming(stall)) as peer:
        run(peer.url, body, deadline=30)


async def read_long_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """A client's frame of 64 KiB or less, unmasked fast."""
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    mask, payload = await reader.readexactly(4), await reader.readexactly(size)
    key = (mask * (size // 4 + 1))[:size]
    return head[0], (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def test_deadlines_share_one_timer() -> None:
    """However many calls wait, their deadlines cost one timer; each ends at its own."""

    async def body(client: AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        calls = [asyncio.create_task(client.get(new_sid())) for _ in range(100)]
        await asyncio.sleep(0.2)
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        assert len(timers) <= 2  # and this test's own sleep, if it is still there
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {DeadlineExceeded}

    with Peer(welcoming(silent)) as peer:
        run(peer.url, body, deadline=0.5)


def test_late_answers_are_dropped() -> None:
    """The answer to a call that has ended by its deadline is not given to the next call."""

    async def slow(reader: Any, writer: Any) -> None:
        for pause, number in [(0.5, 41), (0, 42)]:
            (call,) = msgpack.unpackb((await read_frame(reader))[1])
            await asyncio.sleep(pause)
            writer.write(frame(msgpack.packb([[call[0], "ok", number]])))
        await silent(reader, writer)

    async def body(client: AsyncClient) -> None:
        with pytest.raises(DeadlineExceeded):
            await client.count()
        await asyncio.sleep(0.5)
        assert await client.count() == 42
        assert client.stats.connects == 1

    with Peer(welcoming(slow)) as peer:
        run(peer.url, body, deadline=0.3)


def test_close_fails_what_is_under_way() -> None:
    """close ends calls under way with Unavailable, also those that still wait for a connection."""

    async def body(client: AsyncClient) -> None:
        call = asyncio.create_task(client.set(new_sid(), {}))
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(Unavailable):
            await call

    with Peer(welcoming(silent)) as peer:
        run(peer.url, body)
    with Peer(silent) as peer:
        run(peer.url, body)


def test_connections_cut_under_load(sessiond_server: Server) -> None:
    """While connections are cut again and again, patches get through, or fail as Unavailable; none is done twice."""
    with Proxy(sessiond_server.url) as proxy:

        async def body(client: AsyncClient) -> dict[str, int]:
            sids = await asyncio.gather(*(client.create({"n": 0}) for _ in range(20)))
            done = dict.fromkeys(sids, 0)

            async def work(sid: str) -> None:
                for n in range(30):
                    try:
                        done[sid] = await client.patch(sid, {"n": n})
                    except Unavailable:
                        record = await client.get(sid)
                        assert record is not None
                        done[sid] = record.version
                    else:
                        assert done[sid] <= n + 2

            async def cut() -> None:
                for _ in range(5):
                    await asyncio.sleep(0.05)
                    proxy.cut()

            await asyncio.gather(cut(), *map(work, sids))
            return done

        done = run(proxy.url, body, deadline=20)
    with Client(sessiond_server.url) as client:
        for sid, version in done.items():
            record = client.get(sid)
            assert record is not None
            assert record.version == version
            assert record.version <= 31


def test_forgotten_client(sessiond_server: Server) -> None:
    """A client that is dropped without close warns, and closes its connection."""

    async def main() -> None:
        client = AsyncClient(sessiond_server.url)
        await client.count()
        with pytest.warns(ResourceWarning, match="not closed"):
            del client
        await asyncio.sleep(0.1)  # for the goodbye

    asyncio.run(main())


def test_uvloop(sessiond_server: Server) -> None:
    """uvloop is as good as asyncio's own loop."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with AsyncClient(sessiond_server.url) as client:
            sids = await asyncio.gather(*(client.create({"x": "x" * 60_000}) for _ in range(50)))
            assert all(await asyncio.gather(*map(client.get, sids)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_idle_clients_do_nothing(sessiond_server: Server) -> None:
    """Between calls there is no task and no timer, once the last call's deadline has passed."""

    async def body(client: AsyncClient) -> None:
        await client.count()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(0.4)
        loop = asyncio.get_running_loop()
        assert [handle for handle in loop._scheduled if not handle.cancelled()] == []  # type: ignore[attr-defined]

    run(sessiond_server.url, body, deadline=0.2)
