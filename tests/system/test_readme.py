"""The README is run as it stands: its two commands by the tests below and by CI, its curl session line by line."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiond_client.testing import Server
from tests.tools import require

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ADDRESS = "127.0.0.1:7377"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a newcomer gets it: what git knows, in an empty folder."""
    require("git", "make")
    folder = tmp_path_factory.mktemp("newcomer") / "sessiond"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def running(clone: Path) -> Iterator[str]:
    """`make run` in the clone, on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SESSIOND_", "VIRTUAL_ENV"))
    }
    with (clone.parent / "out").open("wb") as out:
        process = subprocess.Popen(
            ["make", "run", f"PYTHON={sys.executable}"],
            cwd=clone,
            env=environment | {"SESSIOND_LISTEN": address},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 300
        while not _is_ready(address):
            said = (clone.parent / "out").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_make_run_starts_the_daemon_with_its_file_in_the_data_folder(clone: Path, running: str) -> None:
    """`make run` in a fresh clone listens, says where its data is, and made the file there."""
    said = (clone.parent / "out").read_text()

    assert f"listens on http://{running}" in said
    assert f"keeps its data in {clone}/data/sessions.db" in said
    assert (clone / "data" / "sessions.db").exists()


def test_the_curl_session_answers_as_the_readme_shows(running: str, tmp_path: Path) -> None:
    """Every command of the README's curl session prints what stands below it, … standing for what differs each time."""
    require("curl")
    block = re.search(r"```console\n(.*?)```", README, re.DOTALL)
    assert block is not None
    steps = [step.partition("\n") for step in ("\n" + block[1]).split("\n$ ")[1:]]
    assert len(steps) > 15
    marked = "\n".join(f"{command.replace(ADDRESS, running)}\necho; echo ---" for command, _, _ in steps)

    ran = subprocess.run(["bash", "-e"], input=marked, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stderr
    printed = [text.strip() for text in ran.stdout.split("---\n")]
    for (command, _, expected), got in zip(steps, printed, strict=False):
        pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
        assert re.fullmatch(pattern, got, re.DOTALL), f"$ {command}\nexpected {expected!r}\ngot      {got!r}"


def test_the_python_lines_print_what_their_comments_say() -> None:
    """The README's ten lines of Python run as they stand."""
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    with Server() as server:
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", block[1]],
            env=os.environ | {"SESSIOND_URL": server.url},
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert (ran.stdout, ran.stderr) == ("{'name': 'Ada', 'views': 1}\n1\n", "")


def test_the_client_brings_msgpack_and_nothing_else(tmp_path: Path) -> None:
    """`pip install ./client/python` in an empty environment installs two distributions, and importing it, no framework."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    source = tmp_path / "client"  # a copy: building leaves files beside the source
    shutil.copytree(ROOT / "client" / "python", source, ignore=shutil.ignore_patterns("*.egg-info", "build"))
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", str(source)], check=True)

    listed = subprocess.run([*pip, "list", "--format=freeze"], check=True, capture_output=True, text=True)
    imported = subprocess.run(
        [
            str(python),
            "-c",
            "import sys, sessiond_client; print(*sorted({name.partition('.')[0] for name in sys.modules}))",
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    distributions = {line.partition("==")[0].lower().replace("_", "-") for line in listed.stdout.splitlines()}
    assert distributions - {"pip", "setuptools", "wheel"} == {"msgpack", "sessiond-client"}
    # cython_runtime is no distribution: msgpack's compiled part brings it along.
    expected = set(sys.stdlib_module_names) | {"msgpack", "sessiond_client", "cython_runtime"}
    assert {name for name in imported.stdout.split() if not name.startswith(("_", "distutils"))} <= expected
