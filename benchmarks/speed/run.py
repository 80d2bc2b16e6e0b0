"""Runs the lines, round by round, and prints a table. See benchmarks/README.md.

python -m benchmarks.speed.run [--quick] [--rounds N] [--only WORD] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.speed import servers
from benchmarks.speed.lines import HERE, LINES, Figures, Line, Place

QUICK_SECONDS, SECONDS = 0.5, 2.0
QUICK_ROUNDS, ROUNDS = 3, 5


def main() -> None:
    parser = argparse.ArgumentParser(description="sessiond and its peers, side by side.")
    parser.add_argument("--quick", action="store_true", help="short rounds, for a first impression")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default="", help="lines whose name contains this")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    lines = [line for line in LINES if arguments.only in line.name and all(map(shutil.which, line.needs))]
    for line in LINES:
        if arguments.only in line.name and line not in lines:
            say(f"left out, for {' or '.join(line.needs)} is not installed: {line.name}")
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    header = describe()
    say(f"{header['machine']}; {', '.join(f'{k} {v}' for k, v in header['versions'].items())}")
    if any("node" in line.needs for line in lines):
        npm_install()
    with tempfile.TemporaryDirectory(prefix="speed-") as name, ExitStack() as stack:
        place = start(Path(name), stack, seconds)
        results = compare(lines, place, rounds)
    print(table(lines, results))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({**header, "seconds": seconds, "rounds": rounds, "results": results}, indent=1)
        )
        say(f"all figures are in {arguments.json}")


def start(folder: Path, stack: ExitStack, seconds: float) -> Place:
    """Starts the stores and fills each with the same 10,000 sessions."""
    opened = {
        "redis": stack.enter_context(servers.redis(folder / "redis")),
        "redis-always": stack.enter_context(servers.redis(folder / "redis-always", "always")),
        "sessiond": stack.enter_context(servers.sessiond(folder / "sessiond")),
    }
    urls = {name: url for name, (url, _) in opened.items()}
    for name, url in urls.items():
        kind = name.partition("-")[0]
        subprocess.run([sys.executable, HERE / "load.py", kind, url, "asyncio", "1", "1", "--fill"], check=True)
        if shutil.which("node") and (HERE / "node_modules").exists():
            subprocess.run(["node", HERE / "load.js", kind, url, "fill", "10000"], check=True)
    return Place(urls, {name: process.pid for name, (_, process) in opened.items()}, seconds)


def compare(lines: list[Line], place: Place, rounds: int) -> dict[str, list[dict[str, Figures]]]:
    """For each line, a list of rounds, each with the figures of the peer and of sessiond."""
    results: dict[str, list[dict[str, Figures]]] = {line.name: [] for line in lines}
    for number in range(rounds):
        for at, line in enumerate(lines):
            say(f"round {number + 1} of {rounds}, line {at + 1} of {len(lines)}: {line.name}")
            pair = [line.peer, line.ours]
            if number % 2:
                pair.reverse()  # who goes first has the warmer, or the colder, machine
            results[line.name].append({store: line.measure(place, store) for store in pair})
    return results


def table(lines: list[Line], results: dict[str, list[dict[str, Figures]]]) -> str:
    """Medians, and the ratio with its spread: ours to the peer's, of the same round."""
    rows = [("", "peer", "sessiond", "ratio (least to most)", "target", "")]
    for line in lines:
        found = results[line.name]
        ours = [each[line.ours][line.figure] for each in found]
        theirs = [each[line.peer][line.figure] for each in found]
        ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
        ratio = statistics.median(ratios)
        met = ratio >= line.target if line.better == "more" else ratio <= line.target
        rows.append(
            (
                line.name,
                f"{line.peer} {statistics.median(theirs):,.0f}",
                f"{statistics.median(ours):,.0f}",
                f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                f"{'≥' if line.better == 'more' else '≤'} {line.target:g}",
                "met" if met else "not met",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown)


def describe() -> dict[str, Any]:
    """The machine and the versions of what is compared."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    versions = {"Python": platform.python_version(), "sessiond": importlib.metadata.version("sessiond")}
    versions |= {name: importlib.metadata.version(name) for name in ("aiohttp", "redis", "hiredis", "msgpack")}
    ask: dict[str, Callable[[], str]] = {
        "Redis": lambda: output("redis-server", "--version").split("v=")[1].split()[0],
        "Node": lambda: output("node", "--version").strip(),
    }
    for name, version in ask.items():
        try:
            versions[name] = version()
        except (servers.Unavailable, OSError):
            continue
    return {"machine": f"{cpu}, {len(os.sched_getaffinity(0))} cores", "versions": versions}


def output(program: str, *arguments: str) -> str:
    return subprocess.run([servers.program(program), *arguments], capture_output=True, text=True, check=True).stdout


def npm_install() -> None:
    say("installing the Node packages that are compared")
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=HERE, check=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
