"""Runs the lines, round by round, and prints a report. See benchmarks/README.md.

python -m benchmarks.speed.run [--quick] [--rounds N] [--only WORD] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.speed import report, servers
from benchmarks.speed.lines import LINES, Line
from benchmarks.speed.loads import Figures
from benchmarks.speed.stores import HERE, STORES, House, all_of, missing

QUICK_SECONDS, SECONDS = 0.5, 2.0
QUICK_ROUNDS, ROUNDS = 3, 5
LONG_BYTES = 10_000_000_000  # that the long lines may need on disk


def main() -> None:
    parser = argparse.ArgumentParser(description="sessiond and its peers, side by side.")
    parser.add_argument("--quick", action="store_true", help="short rounds, and no long lines: for a first impression")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default="", help="lines whose name contains this")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # as on Ctrl-C, what was started is ended first
    lines = choose(arguments.only, arguments.quick)
    if not lines:
        sys.exit("there is no line to run")
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    try:
        if any("npm" in needs(line) for line in lines):
            npm_install()
        described = report.describe(lines)
        say(report.header(described))
        with tempfile.TemporaryDirectory(prefix="speed-") as folder, House(Path(folder), say) as house:
            results = measure(lines, house, rounds, seconds)
    except KeyboardInterrupt:
        sys.exit("stopped")
    print(report.header(described), report.ratios(lines, results), report.figures(lines, results), sep="\n\n")
    if arguments.json:
        ratios = {
            line.name: [{**asdict(aim), **report.compare(aim, results[line.name])} for aim in line.aims]
            for line in lines
        }
        written = {**described, "seconds": seconds, "rounds": rounds, "ratios": ratios, "results": results}
        arguments.json.write_text(json.dumps(written, indent=1))
        say(f"all figures are in {arguments.json}")


def choose(word: str, quick: bool) -> list[Line]:
    """The lines to run, with the aims whose stores can be opened here; says what is left out, and why."""
    lines = []
    for line in LINES:
        if word not in line.name or (quick and line.is_long):
            continue
        lacks = next(filter(None, map(lack, line.needs)), None)
        if line.is_long and shutil.disk_usage(tempfile.gettempdir()).free < LONG_BYTES:
            lacks = f"there are no {LONG_BYTES / 1e9:.0f} GB free in {tempfile.gettempdir()}"
        aims = []
        for aim in line.aims:
            reason = lacks or missing(aim.ours) or missing(aim.peer)
            if reason:
                say(f"left out, for {reason}: {line.name}, {aim.ours} beside {aim.peer}")
            else:
                aims.append(aim)
        if aims:
            lines.append(replace(line, aims=tuple(aims)))
    return lines


def needs(line: Line) -> set[str]:
    """All that has to be installed for a line."""
    return set(line.needs).union(*(STORES[each].needs for store in line.stores for each in all_of(store)))


def measure(lines: list[Line], house: House, rounds: int, seconds: float) -> report.Results:
    """The short lines take turns in each round; the long ones come one after the other, with all their rounds."""
    results: report.Results = {line.name: [] for line in lines}
    short, long = [line for line in lines if not line.is_long], [line for line in lines if line.is_long]
    for number in range(rounds):
        for at, line in enumerate(short):
            say(f"round {number + 1} of {rounds}, line {at + 1} of {len(short)}: {line.name}")
            results[line.name].append(one_round(line, house, number, seconds))
    for at, line in enumerate(long):
        house.keep(set[str]().union(*(all_of(store) for later in long[at:] for store in later.stores)))
        say(f"long line {at + 1} of {len(long)}: {line.name}")
        times = 1 if line.once else rounds
        if line.in_turn:
            results[line.name] = [one_round(line, house, number, seconds) for number in range(times)]
        else:
            columns = {store: [ask(line, house, store, seconds) for _ in range(times)] for store in line.stores}
            results[line.name] = [
                {store: column[number] for store, column in columns.items()} for number in range(times)
            ]
    return results


def one_round(line: Line, house: House, number: int, seconds: float) -> dict[str, Figures]:
    stores = line.stores
    if number % 2:
        stores.reverse()  # who goes first has the warmer, or the colder, machine
    return {store: ask(line, house, store, seconds) for store in stores}


def ask(line: Line, house: House, store: str, seconds: float) -> Figures:
    figures = line.measure(house, store, seconds)
    house[store].ensure()
    return figures


def lack(program: str) -> str | None:
    """Why a program cannot be run; None if it can."""
    try:
        servers.program(program)
    except servers.Unavailable as e:
        return str(e)
    return None


def npm_install() -> None:
    say("installing the Node packages that are compared")
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=HERE, check=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
