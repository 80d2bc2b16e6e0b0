"""The next Django: 6 needs a newer Python than this project does, so its tests run in an environment of their own.

That is `.venv/django6`, made once from the newest Python from 3.12 on that is on the PATH or among pyenv's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv" / "django6"
WANTED = [
    "django>=6,<7",
    "gunicorn",
    "uvicorn",
    "pytest",
    "pytest-aiohttp",
    "pytest-timeout",
    "cryptography",
    "-e",
    str(ROOT),
]
WANTED += ["-e", str(ROOT / "client" / "python")]


def test_django_6(tmp_path: Path) -> None:
    """All that holds for Django in this environment, its app's scenarios and its own tests, holds with Django 6."""
    python = _environment()
    version = subprocess.run([python, "-m", "django", "--version"], check=True, capture_output=True, text=True).stdout
    assert version.startswith("6.")

    run = subprocess.run(
        [
            *(
                python,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--basetemp",
                tmp_path / "django6",
                "-k",
                "django",
            ),
            *("tests/client/test_django.py", "tests/client/test_adapters.py"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert re.search(r"\d{3} passed", run.stdout)
    assert "skipped" not in run.stdout


def _environment() -> Path:
    """Its Python. Skips the test, or fails it where it is required, when it cannot be made."""
    python = PLACE / "bin" / "python"
    stamp = PLACE / "ready"
    of = hashlib.sha256(
        b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "client/python/pyproject.toml"))
    )
    wanted = of.hexdigest() + " ".join(WANTED)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    base = _newer_python()
    if base is None:
        _lacking("Django 6 needs Python 3.12 or newer, which is neither on the PATH nor among pyenv's")
    shutil.rmtree(PLACE, ignore_errors=True)
    for command in ([base, "-m", "venv", str(PLACE)], [str(python), "-m", "pip", "install", "--quiet", *WANTED]):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            _lacking(f"the environment for Django 6 could not be made: {made.stderr[-1000:]}")
    stamp.write_text(wanted)
    return python


def _newer_python() -> str | None:
    """The newest Python from 3.12 on; the one that runs this, if it is one."""
    if sys.version_info >= (3, 12):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(20, 11, -1):
        found = shutil.which(f"python3.{minor}", path=os.pathsep.join(_folders(pyenv, minor)))
        # What pyenv puts on the PATH is only a door to a version, which may be shut.
        if found and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
            return found
    return None


def _folders(pyenv: Path, minor: int) -> list[str]:
    return [*map(str, sorted(pyenv.glob(f"versions/3.{minor}.*/bin"), reverse=True)), os.environ.get("PATH", "")]


def _lacking(reason: str) -> NoReturn:
    required = os.environ.get("SESSIOND_TEST_REQUIRE", "").replace(",", " ").split()
    if "all" in required or "django6" in required:
        pytest.fail(reason)
    pytest.skip(reason)
