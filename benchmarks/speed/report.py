"""What a run prints: the machine and the versions, the ratios, and the figures behind them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed import servers
from benchmarks.speed.lines import FIGURES, Aim, Line
from benchmarks.speed.loads import Figures
from benchmarks.speed.stores import HERE, STORES, all_of

Results = dict[str, list[dict[str, Figures]]]  # by the name of a line: for each round, the figures of each store

#: Versions by what has them: distributions of Python, packages of npm, and programs with how they are asked.
PYTHON = (
    *("sessiond", "aiohttp", "uvloop", "msgpack", "redis", "hiredis", "flask", "flask-session", "django"),
    *("psycopg", "gunicorn"),
)
NPM = ("redis", "connect-redis", "express", "express-session", "express-mysql-session", "session-file-store")
PROGRAMS = {
    "Redis": ("redis-server", "--version", r"v=(\S+)"),
    "MariaDB": ("mariadbd", "--version", r"Ver (\d[\d.]*)"),
    "PostgreSQL": ("postgres", "--version", r"(\d[\d.]*)"),
    "SQLite's shell": ("sqlite3", "--version", r"(\d[\d.]*)"),
    "Node": ("node", "--version", r"v(\S+)"),
    "wrk": ("wrk", "--version", r"wrk (\S+)"),
}


def describe(lines: Iterable[Line]) -> dict[str, Any]:
    """The machine, the versions of what is compared, and the settings of the stores of these lines."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    versions = {"Python": platform.python_version()}
    for name in PYTHON:
        try:
            versions["redis-py" if name == "redis" else name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, (program, option, pattern) in PROGRAMS.items():
        try:
            asked = [servers.program(program), option]
        except servers.Unavailable:
            continue
        found = re.search(pattern, subprocess.run(asked, capture_output=True, text=True, check=False).stdout)
        if found is not None:
            versions[name] = found[1]
    for name in NPM:
        package = HERE / "node_modules" / name / "package.json"
        if package.exists():
            versions["node-redis" if name == "redis" else name] = json.loads(package.read_text())["version"]
    used = set[str]().union(*(all_of(store) for line in lines for store in line.stores))
    return {
        "machine": f"{cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "versions": versions,
        "settings": {name: spec.settings for name, spec in STORES.items() if name in used},
    }


def header(described: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    settings = "\n".join(f"{name}: {text}" for name, text in described["settings"].items())
    return f"{described['machine']}\n{versions}\n{settings}"


def compare(aim: Aim, rounds: list[dict[str, Figures]]) -> dict[str, Any]:
    """Medians of both sides, and of the ratios of ours to the peer's of the same round, with their least and most."""
    ours = [each[aim.ours][aim.figure] for each in rounds]
    theirs = [each[aim.peer][aim.figure] for each in rounds]
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    ratio = statistics.median(ratios)
    met = None
    if aim.target is not None:
        met = ratio >= aim.target if aim.better == "more" else ratio <= aim.target
    return {
        "peer": statistics.median(theirs),
        "ours": statistics.median(ours),
        "ratio": ratio,
        "least": ratios[0],
        "most": ratios[-1],
        "met": met,
    }


def ratios(lines: list[Line], results: Results) -> str:
    """A row for each aim."""
    rows = [("", "peer", "sessiond", "ratio (least to most)", "target", "")]
    for line in lines:
        for aim in line.aims:
            found = compare(aim, results[line.name])
            sign = "≥" if aim.better == "more" else "≤"
            rows.append(
                (
                    f"{line.name}: {FIGURES[aim.figure]}",
                    f"{aim.peer} {found['peer']:,.0f}",
                    f"{'' if aim.ours == 'sessiond' else aim.ours + ' '}{found['ours']:,.0f}",
                    f"{found['ratio']:.2f} ({found['least']:.2f} to {found['most']:.2f})",
                    f"{sign} {aim.target:g}" if aim.target is not None else "none",
                    {True: "met", False: "not met", None: ""}[found["met"]],
                )
            )
    return table(rows)


def figures(lines: list[Line], results: Results) -> str:
    """A row for each store of a line that was under load: medians over the rounds."""
    rows: list[tuple[str, ...]] = [("", "store", "calls or requests/s", "p50, µs", "p99, µs")]
    for line in lines:
        for store in line.stores:
            rounds = [each[store] for each in results[line.name]]
            if "rate" in rounds[0]:
                median = {name: statistics.median(each[name] for each in rounds) for name in ("rate", "p50", "p99")}
                rows.append((line.name, store, *(f"{value:,.0f}" for value in median.values())))
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of Markdown; the first is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown)
