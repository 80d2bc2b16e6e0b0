"""What slow clients cost the others. Hundreds of connections that never finish what they begin, against a real daemon,
while an ordinary client reads one session over and over: its median and 99th percentile before and meanwhile.

    python -m tests.system.slow [--connections 500] [--seconds 5] [--patience 10s]

All traffic is on this machine's loopback. It prints a table, and ends when the daemon has closed every slow connection.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from sessiond_client import Client
from sessiond_client.cookies import new_sid
from tests.http.support import Daemon

PAUSE = 1.0
"""Seconds between two bytes of a connection that drips: the usual pace of such attacks. Five bytes a second cost others more."""

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 1000 + b"\r\n\r\n"
BODY = (
    b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
)
LARGE = b"GET /v1/sessions/large HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"

Lines = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _drip(lines: Lines, first: bytes, rest: bytes) -> None:
    reader, writer = lines
    writer.write(first)
    ended = asyncio.create_task(reader.read())
    for byte in rest:
        await asyncio.wait([ended], timeout=PAUSE)
        if ended.done():
            break
        writer.write(bytes([byte]))
    await ended


async def _slow_head(lines: Lines) -> None:
    await _drip(lines, b"", HEAD)


async def _slow_body(lines: Lines) -> None:
    await _drip(lines, BODY, b" " * 1000)


async def _silent(lines: Lines) -> None:
    await lines[0].read()


async def _unread(lines: Lines) -> None:
    """Asks for more than the buffers between the two hold, and takes nothing until the daemon has given it up."""
    _, writer = lines
    transport: Any = writer.transport
    transport.pause_reading()
    writer.write(LARGE * 400)
    while True:
        await asyncio.sleep(PAUSE)
        writer.write(b"G")  # fails once the connection is gone
        if transport.is_closing():
            return


KINDS: dict[str, Callable[[Lines], Awaitable[None]]] = {
    "heads byte by byte": _slow_head,
    "bodies byte by byte": _slow_body,
    "silence": _silent,
    "answers not read": _unread,
}


async def attack(port: int, connections: int, settle: float) -> dict[str, float]:
    """Opens the connections, says so on stdout, and waits for their ends. Seconds until the last of each kind ended."""
    opened = asyncio.Event()

    async def one(kind: str) -> tuple[str, float]:
        own = socket.socket()
        # As small as the system lets it be: who takes 6 MB into buffers before it stops reading is a fast client till then.
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        own.setblocking(False)
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
        line = await asyncio.open_connection(sock=own)
        await opened.wait()
        began = time.monotonic()
        with suppress(ConnectionError):
            await KINDS[kind](line)
        line[1].transport.abort()
        return kind, time.monotonic() - began

    kinds = list(KINDS)
    tasks = [asyncio.create_task(one(kinds[n % len(kinds)])) for n in range(connections)]
    await asyncio.sleep(1)
    opened.set()
    await asyncio.sleep(settle)  # filling the buffers of those that do not read is work for a moment, and not slow
    print("open", flush=True)
    ends: dict[str, float] = {}
    for kind, seconds in await asyncio.gather(*tasks):
        ends[kind] = max(ends.get(kind, 0.0), seconds)
    return ends


def read_for(client: Client, sid: str, seconds: float) -> list[float]:
    """How long each of many gets took, in ms, sorted."""
    took = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        assert client.get(sid) is not None
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took)


def run(connections: int, seconds: float, patience: str) -> tuple[dict[str, list[float]], dict[str, float], int]:
    """The times of the gets before and during the attack, the ends of its connections, and how many are left."""
    daemon = Daemon("--patience", patience)
    try:
        daemon.ask("PUT", "/v1/sessions/large", b"x" * 60_000, {"Content-Type": "application/octet-stream"})
        with Client(f"http://127.0.0.1:{daemon.port}") as client:
            sid = new_sid()
            client.set(sid, {"name": "Ada"})
            read_for(client, sid, seconds / 5)
            times = {"before": read_for(client, sid, seconds)}
            command = [sys.executable, "-m", __spec__.name, "--attack", str(daemon.port)]
            command += ["--connections", str(connections), "--seconds", str(seconds)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
                assert attacker.stdout is not None
                assert attacker.stdout.readline() == "open\n"
                times["meanwhile"] = read_for(client, sid, seconds)
                ends = json.loads(attacker.stdout.readline())
            assert client.get(sid) is not None
        return times, ends, _left(daemon)
    finally:
        assert daemon.stop() == 0, daemon.log
        assert daemon.log.splitlines()[:-1] == [], daemon.log


def _left(daemon: Daemon) -> int:
    """Established connections of the daemon, beside that which asks."""
    end = time.monotonic() + 10
    while True:
        found = subprocess.run(
            ["ls", "-l", f"/proc/{daemon.pid}/fd"], capture_output=True, text=True, check=True
        ).stdout.count("socket:")
        idle = 4  # the listening socket, the pair that wakes the loop, and the connection that stored the large session
        if found <= idle or time.monotonic() > end:
            return max(0, found - idle)
        time.sleep(0.1)


def at(times: Sequence[float], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--patience", default="10s")
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack is not None:
        print(json.dumps(asyncio.run(attack(given.attack, given.connections, given.seconds / 2))), flush=True)
        return
    times, ends, left = run(given.connections, given.seconds, given.patience)
    print(f"{'gets of one client':24}{'number':>10}{'p50, ms':>10}{'p99, ms':>10}")
    for when, took in times.items():
        print(f"{when:24}{len(took):>10}{at(took, 0.5):>10.3f}{at(took, 0.99):>10.3f}")
    print(f"\n{given.connections} slow connections, the last of each kind closed after")
    for kind, after in ends.items():
        print(f"{kind:24}{after:>10.1f} s")
    print(f"{'left open':24}{left:>10}")


if __name__ == "__main__":
    main()
