"""Programs that a test needs beside Python."""

import os
import shutil
import subprocess

import pytest


def require(*programs: str) -> None:
    """Skips the test that asks, with the reason, where one is missing; fails it where SESSIOND_TEST_REQUIRE names it, or `all`."""
    required = os.environ.get("SESSIOND_TEST_REQUIRE", "").replace(",", " ").split()
    for program in programs:
        if reason := _missing(program):
            if "all" in required or program in required:
                pytest.fail(reason)
            pytest.skip(reason)


def _missing(program: str) -> str | None:
    """Why a program cannot be used, or None."""
    if shutil.which(program) is None:
        return f"{program} is not installed"
    if program == "node":
        version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()
        if int(version.removeprefix("v").partition(".")[0]) < 20:
            return f"node is {version}, and has to be 20 or newer"
    return None
