"""What is compared: a table of lines, each with its peers, how it is measured, and what is aimed at.

A measure is asked once a round, with the peers and sessiond in turn, and gives figures; a line compares one of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Figures = dict[str, Any]

CPUS = sorted(os.sched_getaffinity(0))
#: Where a client and its server run: the scheduler's choice, one core for both, or a core each.
FREE: tuple[set[int] | None, set[int] | None] = (None, None)
ONE_CORE: tuple[set[int] | None, set[int] | None] = ({CPUS[0]}, {CPUS[0]})
TWO_CORES: tuple[set[int] | None, set[int] | None] = ({CPUS[0]}, {CPUS[-1]})


@dataclass
class Place:
    """Where the stores of a run are: URLs by name, and the processes behind them."""

    urls: Mapping[str, str]
    pids: Mapping[str, int]
    seconds: float


@dataclass
class Line:
    """`better` "more": ours is divided by the peer's and should be at least `target`; "less": at most."""

    name: str
    peer: str
    better: str
    target: float
    figure: str
    measure: Callable[[Place, str], Figures]
    ours: str = "sessiond"
    needs: tuple[str, ...] = field(default=())


def _client(command: list[str], cpus: set[int] | None) -> Figures:
    pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=pin)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout)
    return figures


def _pin_server(place: Place, store: str, cpus: set[int] | None) -> None:
    """Moves all threads of a server to these cores."""
    for task in Path(f"/proc/{place.pids[store]}/task").iterdir():
        os.sched_setaffinity(int(task.name), cpus or set(CPUS))


def python(kind: str, callers: int, *options: str, pins: Any = FREE, processes: int = 1) -> Callable[..., Figures]:
    """Load from Python processes: see load.py."""

    def measure(place: Place, store: str) -> Figures:
        client_cpus, server_cpus = pins
        _pin_server(place, store, server_cpus)
        name = store.partition("-")[0]
        command = [sys.executable, str(HERE / "load.py"), name, place.urls[store], kind, str(callers)]
        command += [str(place.seconds), *options]
        try:
            if processes == 1:
                return _client(command, client_cpus)
            running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
            parts = [json.loads(each.communicate()[0]) for each in running]
            return {"rate": sum(each["rate"] for each in parts), "p99": max(each["p99"] for each in parts)}
        finally:
            _pin_server(place, store, None)

    return measure


def node(callers: int, pins: Any = FREE) -> Callable[..., Figures]:
    """Load from a Node process: see load.js."""

    def measure(place: Place, store: str) -> Figures:
        client_cpus, server_cpus = pins
        _pin_server(place, store, server_cpus)
        command = [
            "node",
            str(HERE / "load.js"),
            store,
            place.urls[store],
            str(callers),
            str(place.seconds),
            "0.25",
            "10000",
        ]
        try:
            return _client(command, client_cpus)
        finally:
            _pin_server(place, store, None)

    return measure


def _lines() -> list[Line]:
    lines = []
    for where, pins in (("one core", ONE_CORE), ("a core each", TWO_CORES)):
        lines.append(
            Line(
                f"asyncio, 1 caller, {where}: get p50",
                "redis",
                "less",
                0.9,
                "read_p50",
                python("asyncio", 1, pins=pins),
            )
        )
    for callers, target in ((16, 2.0), (64, 5.0), (256, 10.0)):
        lines.append(
            Line(f"asyncio, {callers} callers: calls/s", "redis", "more", target, "rate", python("asyncio", callers))
        )
    lines.append(Line("asyncio, 64 callers: p99", "redis", "less", 1.0, "p99", python("asyncio", 64)))
    lines.append(
        Line("asyncio, 2 processes of 64: calls/s", "redis", "more", 5.0, "rate", python("asyncio", 64, processes=2))
    )
    lines.append(
        Line(
            "asyncio, 64 callers, writes only, all on disk: calls/s",
            "redis-always",
            "more",
            1.5,
            "rate",
            python("asyncio", 64, "--writes", "1"),
        )
    )
    for where, pins in (("one core", ONE_CORE), ("a core each", TWO_CORES)):
        lines.append(
            Line(
                f"blocking, 1 caller, {where}: get p50",
                "redis",
                "less",
                0.9,
                "read_p50",
                python("blocking", 1, pins=pins),
            )
        )
    lines.append(Line("blocking, 8 threads: calls/s", "redis", "more", 1.5, "rate", python("blocking", 8)))
    for where, pins in (("one core", ONE_CORE), ("a core each", TWO_CORES)):
        lines.append(
            Line(f"Node, 1 caller, {where}: p50", "redis", "less", 1.1, "p50", node(1, pins=pins), needs=("node",))
        )
    for callers in (64, 256):
        lines.append(
            Line(f"Node, {callers} callers: calls/s", "redis", "more", 1.0, "rate", node(callers), needs=("node",))
        )
    return lines


LINES = _lines()
