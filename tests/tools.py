"""Programs that a test needs beside Python."""

import os
import shutil

import pytest


def require(*programs: str) -> None:
    """Skips the test that asks, with the reason, where one is missing; fails it where SESSIOND_TEST_REQUIRE names it, or `all`."""
    required = os.environ.get("SESSIOND_TEST_REQUIRE", "").replace(",", " ").split()
    for program in programs:
        if shutil.which(program) is None:
            reason = f"{program} is not installed"
            if "all" in required or program in required:
                pytest.fail(reason)
            pytest.skip(reason)
