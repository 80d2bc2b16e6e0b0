"""One client process under load: asks a store as fast as it answers, and prints what it measured as JSON.

    python load.py STORE URL KIND CALLERS SECONDS [--writes SHARE] [--keys N]
    python load.py STORE URL asyncio 1 1 --fill [--keys N] [--first N] [--ttl SECONDS]

STORE is sessiond or redis. KIND is asyncio, or blocking: CALLERS threads of one client. A session is a dict of some 260
bytes of MessagePack, which both stores write and read as that, so that neither pays for another codec.
The clock runs when all callers are connected, after a warm-up of a fifth of SECONDS.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import random
import sys
import threading
import time
from array import array
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack

TTL = 14 * 86400
FILL_AT_ONCE = 1000
FILL_BATCHES = 4
SAMPLE = 10_000
CONNECT_TIMEOUT = 60.0


def session(number: int) -> dict[str, Any]:
    """Some 260 bytes of MessagePack, as a logged-in visitor with a cart has them."""
    return {
        "user_id": number,
        "name": f"visitor {number:08}",
        "csrf": hashlib.sha256(b"csrf%d" % number).hexdigest(),
        "cart": [
            {"sku": f"item-{number % 97:05}", "count": 1, "price": 19.9},
            {"sku": "item-7", "count": 2, "price": 5.0},
        ],
        "locale": "en_GB",
        "flashes": [],
        "last_page": "/products/list?page=3&sort=price",
        "seen": 1_800_000_000 + number,
    }


def sid_of(number: int) -> str:
    """A sid of the usual length; the same number has the same."""
    return hashlib.sha256(b"sid%d" % number).hexdigest()[:43]


def sample(keys: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Sids and sessions that are asked for, of all there are, in no order: all of them, or as many as SAMPLE.

    Made before the clock runs: a load that makes them on the way would measure itself.
    """
    numbers = random.sample(range(keys), min(keys, SAMPLE))
    return [sid_of(number) for number in numbers], [session(number) for number in numbers]


class Tally:
    """Latencies of one caller, in ns, after `begin`."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin, self.end = begin, end
        self.reads, self.writes = array("q"), array("q")


# The stores ------------------------------------------------------------------------------------------

Read = Callable[[str], Any]
Write = Callable[[str, Any], Any]


async def open_async(store: str, url: str, callers: int) -> tuple[Read, Write, Callable[[], Awaitable[Any]]]:
    if store == "sessiond":
        from sessiond_client import AsyncClient

        client = AsyncClient(url, deadline=30)

        async def read(sid: str) -> Any:
            record = await client.get(sid)
            return None if record is None else record.data

        async def write(sid: str, data: Any) -> None:
            await client.set(sid, data, ttl=TTL)

        return read, write, client.close
    import redis.asyncio as aredis

    # Its own default is too few for 256 callers, who would get an error.
    peer = aredis.Redis.from_url(url, max_connections=max(100, 2 * callers))

    async def read_redis(sid: str) -> Any:
        data = await peer.get("sess:" + sid)
        return None if data is None else msgpack.unpackb(data)

    async def write_redis(sid: str, data: Any) -> None:
        await peer.set("sess:" + sid, msgpack.packb(data), ex=TTL)

    return read_redis, write_redis, peer.aclose


def open_blocking(store: str, url: str, callers: int) -> tuple[Read, Write, Callable[[], Any]]:
    if store == "sessiond":
        from sessiond_client import Client

        client = Client(url, deadline=30)

        def read(sid: str) -> Any:
            record = client.get(sid)
            return None if record is None else record.data

        return read, lambda sid, data: client.set(sid, data, ttl=TTL), client.close
    import redis

    peer = redis.Redis.from_url(url, max_connections=max(100, 2 * callers))

    def read_redis(sid: str) -> Any:
        data = peer.get("sess:" + sid)
        return None if data is None else msgpack.unpackb(data)

    return read_redis, lambda sid, data: peer.set("sess:" + sid, msgpack.packb(data), ex=TTL), peer.close


# The load --------------------------------------------------------------------------------------------


async def fill(store: str, url: str, numbers: range, ttl: float) -> None:
    """Writes all these sessions, in batches of which some are under way; tells how far it is if they are many."""
    write_all, close = await open_fill(store, url, ttl)
    batches = iter(range(0, len(numbers), FILL_AT_ONCE))

    async def work() -> None:
        for start in batches:
            await write_all([(sid_of(number), session(number)) for number in numbers[start : start + FILL_AT_ONCE]])
            if start and start % 250_000 == 0:
                print(f"{start:,} of {len(numbers):,} sessions written", file=sys.stderr, flush=True)

    await asyncio.gather(*(work() for _ in range(FILL_BATCHES)))
    await close()


async def open_fill(
    store: str, url: str, ttl: float
) -> tuple[Callable[[list[tuple[str, Any]]], Awaitable[Any]], Callable[[], Awaitable[Any]]]:
    if store == "sessiond":
        from sessiond_client import AsyncClient

        client = AsyncClient(url, deadline=30)

        async def write_all(pairs: list[tuple[str, Any]]) -> None:
            await asyncio.gather(*(client.set(sid, data, ttl=ttl) for sid, data in pairs))

        return write_all, client.close
    import redis.asyncio as aredis

    peer = aredis.Redis.from_url(url)

    async def write_all_redis(pairs: list[tuple[str, Any]]) -> None:
        async with peer.pipeline(transaction=False) as pipeline:
            for sid, data in pairs:
                pipeline.set("sess:" + sid, msgpack.packb(data), ex=int(ttl))
            await pipeline.execute()

    return write_all_redis, peer.aclose


async def run_async(arguments: argparse.Namespace) -> list[Tally]:
    read, write, close = await open_async(arguments.store, arguments.url, arguments.callers)
    sids, sessions = sample(arguments.keys)
    await asyncio.gather(
        *(read(sids[0]) for _ in range(arguments.callers))
    )  # opens as many connections as there will be
    begin = time.perf_counter() + arguments.seconds / 5
    tallies = [Tally(begin, begin + arguments.seconds) for _ in range(arguments.callers)]

    async def call(number: int, tally: Tally) -> None:
        chance = random.Random(number)
        share, asked, now = arguments.writes, len(sids), time.perf_counter_ns
        ahead = 0.0
        while ahead < tally.end:
            each = int(chance.random() * asked)
            sid = sids[each]
            writes = chance.random() < share
            data = sessions[each] if writes else None
            started = now()
            if writes:
                await write(sid, data)
            elif await read(sid) is None:
                sys.exit("a session that was written is not there")
            ended = now()
            ahead = ended / 1e9
            if started / 1e9 >= tally.begin and ahead <= tally.end:
                (tally.writes if writes else tally.reads).append(ended - started)

    await asyncio.gather(*(call(number, tally) for number, tally in enumerate(tallies)))
    await close()
    return tallies


def run_blocking(arguments: argparse.Namespace) -> list[Tally]:
    read, write, close = open_blocking(arguments.store, arguments.url, arguments.callers)
    sids, sessions = sample(arguments.keys)
    tallies: list[Tally] = []

    def start_clock() -> None:
        begin = time.perf_counter() + arguments.seconds / 5
        tallies.extend(Tally(begin, begin + arguments.seconds) for _ in range(arguments.callers))

    connected = threading.Barrier(arguments.callers, start_clock)

    def call(number: int) -> None:
        read(sids[0])  # opens the connection of this thread
        connected.wait(CONNECT_TIMEOUT)
        tally = tallies[number]
        chance = random.Random(number)
        now = time.perf_counter_ns
        ahead = 0.0
        while ahead < tally.end:
            each = int(chance.random() * len(sids))
            sid = sids[each]
            writes = chance.random() < arguments.writes
            data = sessions[each] if writes else None
            started = now()
            if writes:
                write(sid, data)
            elif read(sid) is None:
                sys.exit("a session that was written is not there")
            ended = now()
            ahead = ended / 1e9
            if started / 1e9 >= tally.begin and ahead <= tally.end:
                (tally.writes if writes else tally.reads).append(ended - started)

    if arguments.callers == 1:
        call(0)
    else:
        with ThreadPoolExecutor(arguments.callers) as pool:
            list(pool.map(call, range(arguments.callers)))
    close()
    return tallies


def summary(tallies: list[Tally], seconds: float) -> dict[str, Any]:
    """Throughput in calls a second, percentiles in µs."""
    reads = sorted(ns for tally in tallies for ns in tally.reads)
    writes = sorted(ns for tally in tallies for ns in tally.writes)
    both = sorted(reads + writes)
    if not both:
        sys.exit("no call was answered in time; give more seconds")

    def at(values: list[int], share: float) -> float | None:
        return values[min(len(values) - 1, int(len(values) * share))] / 1000 if values else None

    return {
        "rate": len(both) / seconds,
        "p50": at(both, 0.5),
        "p99": at(both, 0.99),
        "read_p50": at(reads, 0.5),
        "read_p99": at(reads, 0.99),
        "write_p50": at(writes, 0.5),
        "write_p99": at(writes, 0.99),
        "calls": len(both),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One client process under load.")
    parser.add_argument("store", choices=["sessiond", "redis"])
    parser.add_argument("url")
    parser.add_argument("kind", choices=["asyncio", "blocking"])
    parser.add_argument("callers", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--writes", type=float, default=0.25, help="the share of calls that write")
    parser.add_argument("--keys", type=int, default=10_000, help="how many sessions there are, or are written")
    parser.add_argument("--fill", action="store_true", help="only write all sessions once")
    parser.add_argument("--first", type=int, default=0, help="the number of the first that is written")
    parser.add_argument("--ttl", type=float, default=TTL, help="of those that are written, seconds")
    arguments = parser.parse_args()
    if arguments.fill:
        numbers = range(arguments.first, arguments.first + arguments.keys)
        asyncio.run(fill(arguments.store, arguments.url, numbers, arguments.ttl))
        return
    gc.collect()
    gc.freeze()
    tallies = asyncio.run(run_async(arguments)) if arguments.kind == "asyncio" else run_blocking(arguments)
    print(json.dumps(summary(tallies, arguments.seconds)))


if __name__ == "__main__":
    main()
