"""What is compared: a table of lines, each with what is measured, and what is aimed at.

A line measures each of its stores once a round, and an aim compares one figure of two of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed import loads, stores
from benchmarks.speed.loads import Figures
from benchmarks.speed.stores import HERE, House, Store

CPUS = sorted(os.sched_getaffinity(0))
#: Where a client and its server run: the scheduler's choice, one core for both, or a core each.
FREE: tuple[set[int] | None, set[int] | None] = (None, None)
ONE_CORE: tuple[set[int] | None, set[int] | None] = ({CPUS[0]}, {CPUS[0]})
TWO_CORES: tuple[set[int] | None, set[int] | None] = ({CPUS[0]}, {CPUS[-1]})

#: What a figure is called in a table. Latencies are in µs, memory in MB, a start in ms.
FIGURES = {
    "rate": "calls/s",
    "requests": "requests/s",
    "p50": "p50",
    "p99": "p99",
    "read_p50": "get p50",
    "read_p99": "get p99",
    "write_p50": "set p50",
    "write_p99": "set p99",
    "memory": "MB",
    "start": "ms",
}

NODE = ("node", "npm")

Measure = Callable[[House, str, float], Figures]  # given the name of a store, and the seconds that it may take


@dataclass(frozen=True)
class Aim:
    """`better` "more": ours, divided by the peer's, should be at least `target`; "less": at most. None: there is no aim."""

    peer: str
    figure: str
    better: str
    target: float | None
    ours: str = "sessiond"


@dataclass(frozen=True)
class Line:
    """`needs`: programs, beside those of its stores. `is_long`: it fills stores for minutes; not in a quick run.

    `in_turn`: its stores are measured alternately; if not, all rounds of the one before the other, for what that begins
    cannot be taken back. `once`: a second round would find the same.
    """

    name: str
    measure: Measure
    aims: tuple[Aim, ...]
    needs: tuple[str, ...] = ()
    is_long: bool = False
    in_turn: bool = True
    once: bool = False

    @property
    def stores(self) -> list[str]:
        """The peers, and then ours."""
        return list(dict.fromkeys([aim.peer for aim in self.aims] + [aim.ours for aim in self.aims]))


# How it is measured ----------------------------------------------------------------------------------


def python(kind: str, callers: int, *options: str, pins: Any = FREE, processes: int = 1, keys: int = 0) -> Measure:
    """Load from Python processes: see load.py. `keys`: how many sessions of the store are asked for; 0: all."""

    def measure(house: House, name: str, seconds: float) -> Figures:
        store = house[name]
        command = [sys.executable, str(HERE / "load.py"), kind_of(name), store.url, kind, str(callers), str(seconds)]
        command += ["--keys", str(keys or store.sessions), *options]
        parts = pinned(store, pins, command, processes)
        if processes == 1:
            return parts[0]
        slowest = {name: max(each[name] for each in parts) for name in ("p50", "p99")}
        return {"rate": sum(each["rate"] for each in parts), **slowest}

    return measure


def node(callers: int, pins: Any = FREE) -> Measure:
    """Load from a Node process: see load.js."""

    def measure(house: House, name: str, seconds: float) -> Figures:
        store = house[name]
        command = ["node", str(HERE / "load.js"), kind_of(name), store.url]
        if not store.is_filled_by_node:
            subprocess.run([*command, "fill", str(stores.KEYS)], check=True)
            store.is_filled_by_node = True
        [figures] = pinned(store, pins, [*command, str(callers), str(seconds), "0.25", str(stores.KEYS)])
        return figures

    return measure


def kind_of(name: str) -> str:
    """What speaks to a store of this name."""
    return "redis" if name.startswith("redis") else "sessiond"


def pinned(store: Store, pins: Any, command: list[str], processes: int = 1) -> list[Figures]:
    """The figures of a load, with all threads of its processes and of the server on these cores."""
    client_cpus, server_cpus = pins
    pin_server(store, server_cpus)
    try:
        return loads.run(command, client_cpus, processes)
    finally:
        pin_server(store, None)


def pin_server(store: Store, cpus: set[int] | None) -> None:
    for task in Path(f"/proc/{store.process.pid}/task").iterdir():
        with suppress(ProcessLookupError):  # a thread that has ended meanwhile
            os.sched_setaffinity(int(task.name), cpus or set(CPUS))


def web(connections: int) -> Measure:
    """Requests from wrk: from a store with cookies of visitors who have been there."""

    def measure(house: House, name: str, seconds: float) -> Figures:
        return loads.wrk(house[name].url, connections, max(1, round(seconds)), house[name].cookies)

    return measure


def memory(house: House, name: str, seconds: float) -> Figures:
    return {"memory": house[name].process.memory() / 1e6}


def start(house: House, name: str, seconds: float) -> Figures:
    """From the start of the process to its first good answer, after a clean end."""
    process = house[name].process
    process.end()
    return {"start": process.start() * 1000}


# The table -------------------------------------------------------------------------------------------


def _more(peer: str, target: float | None, ours: str = "sessiond", figure: str = "rate") -> Aim:
    return Aim(peer, figure, "more", target, ours)


def _less(peer: str, figure: str, target: float, ours: str = "sessiond") -> Aim:
    return Aim(peer, figure, "less", target, ours)


def _one_caller(kind: str, measure: Callable[[Any], Measure], figure: str, target: float, *needs: str) -> list[Line]:
    aims = (_less("redis", figure, target),)
    return [
        Line(f"{kind}, 1 caller, one core", measure(ONE_CORE), aims, needs),
        Line(f"{kind}, 1 caller, a core each", measure(TWO_CORES), aims, needs),
    ]


def _callers() -> list[Line]:
    """sessiond and Redis, asked by a client process."""
    writes = python("asyncio", 64, "--writes", "1")
    return [
        *_one_caller("asyncio", lambda pins: python("asyncio", 1, pins=pins), "read_p50", 0.9),
        Line("asyncio, 16 callers", python("asyncio", 16), (_more("redis", 2.0),)),
        Line("asyncio, 64 callers", python("asyncio", 64), (_more("redis", 5.0), _less("redis", "p99", 1.0))),
        Line("asyncio, 256 callers", python("asyncio", 256), (_more("redis", 10.0),)),
        Line("asyncio, 2 processes of 64", python("asyncio", 64, processes=2), (_more("redis", 5.0),)),
        Line("asyncio, 64 callers, writes only, all on disk", writes, (_more("redis-always", 1.5),)),
        *_one_caller("blocking", lambda pins: python("blocking", 1, pins=pins), "read_p50", 0.9),
        Line("blocking, 8 threads", python("blocking", 8), (_more("redis", 1.5),)),
        *_one_caller("Node", lambda pins: node(1, pins), "p50", 1.1, *NODE),
        Line("Node, 64 callers", node(64), (_more("redis", 1.0),), NODE),
        Line("Node, 256 callers", node(256), (_more("redis", 1.0),), NODE),
    ]


def _web() -> list[Line]:
    """The same app over each store, and REST; asked by wrk."""

    def more(peer: str, target: float | None, ours: str) -> Aim:
        return _more(peer, target, ours, "requests")

    return [
        Line(
            "Express, 64 connections",
            web(64),
            (
                more("connect-redis", 1.0, "connect-sessiond"),
                more("express-mysql-session", 2.2, "connect-sessiond"),
                more("session-file-store", 2.8, "connect-sessiond"),
                more("MemoryStore", None, "connect-sessiond"),
            ),
        ),
        Line("Flask, 32 connections", web(32), (more("Flask-Session", 1.1, "Flask on sessiond"),)),
        Line(
            "Django, 32 connections",
            web(32),
            (more("Django db", 1.5, "Django on sessiond"), more("Django cache", 1.1, "Django on sessiond")),
        ),
        Line("REST GET, 32 connections", web(32), (more("bare aiohttp", 0.85, "sessiond REST"),)),
    ]


def _sizes() -> list[Line]:
    """What a million sessions cost, and what comes with growth."""
    one = "sessiond 1M"
    gets = python("asyncio", 64, "--writes", "0", keys=stores.KEYS)

    def growth(figure: str, target: float, state: str = "") -> tuple[Aim, ...]:
        return tuple(
            _less(f"sessiond 1k{state}", figure, target, f"sessiond {size}{state}") for size in ("100k", "1M", "5M")
        )

    def one_caller(writes: str, keys: int) -> Measure:
        return python("blocking", 1, "--writes", writes, pins=TWO_CORES, keys=keys)

    return [
        Line("memory, 1M sessions", memory, (_less("redis 1M", "memory", 0.4, one),), is_long=True, once=True),
        Line("start to ready, 1M sessions", start, (_less("redis 1M", "start", 0.2, one),), is_long=True),
        Line("growth, cached get", one_caller("0", 1_000), growth("read_p50", 1.2), is_long=True),
        Line("growth, cold get", one_caller("0", 0), growth("read_p50", 3.0, " cold"), is_long=True),
        Line("growth, set", one_caller("1", 0), growth("write_p50", 2.0), is_long=True),
        Line(
            "backup of 1M sessions, 64 callers",
            gets,
            (_less(one, "read_p99", 2.0, f"{one} backed up"),),
            is_long=True,
            in_turn=False,
        ),
        Line(
            "sweep of 1M sessions, 64 callers",
            gets,
            (_less(one, "read_p99", 2.0, f"{one} swept"),),
            is_long=True,
            in_turn=False,
        ),
    ]


LINES = [*_callers(), *_web(), *_sizes()]
