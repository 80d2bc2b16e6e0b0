"""Client processes that put a store under load, and the figures that they print."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.speed import servers

HERE = Path(__file__).parent
Figures = dict[str, Any]


def run(command: list[str], cpus: set[int] | None = None, processes: int = 1) -> list[Figures]:
    """What each of so many processes printed. `cpus`: the only ones that they may run on.

    Raises RuntimeError when one fails; none outlives this call.
    """
    pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
    running: list[subprocess.Popen[str]] = []
    try:
        for _ in range(processes):
            running.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=pin)
            )
        figures = []
        for child in running:
            out, errors = child.communicate()
            if child.returncode:
                raise RuntimeError(f"{' '.join(command)} failed: {errors[-2000:]}")
            figures.append(json.loads(out.splitlines()[-1]))
        return figures
    finally:
        for child in running:
            if child.poll() is None:
                child.kill()
                child.communicate()


def wrk(url: str, connections: int, seconds: int, cookies: Path | None = None) -> Figures:
    """What so many connections get in whole seconds. `cookies`: a file of them, one a line, which take turns."""
    command = [servers.program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(HERE / "wrk.lua"), url, "--", *([str(cookies)] if cookies else [])]
    [figures] = run(command)
    if figures["errors"]:
        raise RuntimeError(f"{figures['errors']:.0f} of {figures['calls']:.0f} requests to {url} failed")
    return {"requests": figures["rate"], **figures}
