"""`sessiond rekey` beside a real daemon: rotation under load, after kill -9, on and off, and what it says when it cannot."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiond.engines.sqlite.seals import progress_of
from sessiond.keyring import new_line
from sessiond_client import AsyncClient
from sessiond_client.testing import Server
from tests.http.support import wait_until

ROOT = Path(__file__).parents[2]
EXIT_START, EXIT_SETTINGS = 1, 2


class Keys:
    """A key list in a file. `ids`: those of its lines, the current one first."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.file = folder / "keys"
        self.write(*lines)

    def write(self, *lines: str) -> None:
        self.lines = list(lines)
        self.file.write_text("\n".join(lines) + "\n")

    @property
    def ids(self) -> list[str]:
        return [line.partition(":")[0] for line in self.lines]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path, new_line())


@pytest.fixture
def server(tmp_path: Path, keys: Keys) -> Iterator[Server]:
    """A daemon under those keys, with a small cache so that it reads the file all the time."""
    with Server(data=tmp_path / "s.db", options=["--encryption-keys", str(keys.file), "--cache", "64KiB"]) as server:
        yield server


def rekey(data: Path, keys: Path | None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    given = [] if keys is None else ["--encryption-keys", str(keys)]
    command = [sys.executable, "-m", "sessiond", "rekey", "--data", str(data), *given]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, ran.stdout, ran.stderr


async def fill(client: AsyncClient, number: int) -> list[str]:
    sids = [f"sid-{n}" for n in range(number)]
    for first in range(0, number, 500):
        await asyncio.gather(
            *(client.create({"n": 0, "sid": sid}, user=f"user {first}", sid=sid) for sid in sids[first : first + 500])
        )
    return sids


async def test_keys_are_rotated_under_load(server: Server, keys: Keys, tmp_path: Path) -> None:
    """While eight callers read and patch, three rotations, each with the old key removed after it, fail no call and lose
    no change; each command shows how far it is, and which line is no longer needed."""
    client = AsyncClient(server.url)
    sids = await fill(client, 3000)
    stop = asyncio.Event()
    patched = dict.fromkeys(sids, 0)

    async def caller(first: int) -> int:
        calls = 0
        while not stop.is_set():
            sid = sids[(first + 8 * 37 * calls) % len(sids)]
            record = await client.get(sid, renew=calls % 2 == 0)
            assert record is not None
            assert (sid, patched[sid]) == (record.data["sid"], record.data["n"])
            await client.patch(sid, {"n": patched[sid] + 1})
            patched[sid] += 1
            calls += 1
        return calls

    callers = [asyncio.create_task(caller(n)) for n in range(8)]
    said = []
    for _ in range(3):
        old = keys.ids[0]
        keys.write(new_line(), *keys.lines)
        said.append((old, keys.ids[0], await asyncio.to_thread(rekey, tmp_path / "s.db", keys.file)))
        keys.write(keys.lines[0])
        assert 0 == (await asyncio.to_thread(rekey, tmp_path / "s.db", keys.file))[0]
    stop.set()
    calls = await asyncio.gather(*callers)
    counted = [await client.count(user=f"user {first}") for first in range(0, 3000, 500)]
    every = await asyncio.gather(*map(client.get, sids))
    await client.close()

    for old, new, (code, out, err) in said:
        assert 0 == code, err
        assert f"Every row is sealed under {new}." in out
        assert f"The key list no longer needs {old}; " in out
        assert re.search(r"^[\d,]+ of 3,000 rows, [\d,]+ a second$", err, re.M)
    assert sum(calls) > 100
    assert [500] * 6 == counted
    assert [patched[sid] for sid in sids] == [record.data["n"] for record in every if record is not None]


async def test_a_rotation_survives_kill_9(server: Server, keys: Keys, tmp_path: Path) -> None:
    """Killed half-way, the daemon goes on with the rotation at its next start, and every session is there."""
    client = AsyncClient(server.url)
    sids = await fill(client, 6000)
    old = keys.ids[0]
    keys.write(new_line(), *keys.lines)
    following = asyncio.create_task(asyncio.to_thread(rekey, tmp_path / "s.db", keys.file))

    def is_half_way() -> bool:
        found = progress_of(tmp_path / "s.db")
        return found is not None and found.current == keys.ids[0] and found.done > 200

    await asyncio.to_thread(wait_until, is_half_way)
    server.kill()
    stopped = progress_of(tmp_path / "s.db")
    code, _, err = await following
    server.start()
    again = await asyncio.to_thread(rekey, tmp_path / "s.db", keys.file)
    every = await asyncio.gather(*map(client.get, sids))
    await client.close()

    assert stopped is not None
    assert ((old,), True) == (stopped.old, stopped.done < 6000)
    assert EXIT_START == code
    assert "sessiond: the daemon has ended. Start it again: it goes on from where it was." in err
    assert 0 == again[0], again[2]
    assert sids == [record.data["sid"] for record in every if record is not None]


async def test_encryption_is_turned_on_and_off(tmp_path: Path) -> None:
    """A plain file comes under a key, after which nothing can be read in its files, and back into the clear."""
    data, keys = tmp_path / "s.db", Keys(tmp_path, new_line(), "plain")

    def files() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.glob("s.db*"))

    with Server(data=data) as clear:
        client = AsyncClient(clear.url)
        await client.create({"canary": "in the data"}, user="canary as a user", meta={"canary": "in meta"}, sid="s")
        before = files()
        await client.close()
    with Server(data=data, options=["--encryption-keys", str(keys.file)]) as encrypted:
        on = await asyncio.to_thread(rekey, data, keys.file)
        during = files()
        keys.write(*reversed(keys.lines))
        off = await asyncio.to_thread(rekey, data, keys.file)
        encrypted.stop()
    with Server(data=data) as again:
        client = AsyncClient(again.url)
        record = await client.get("s")
        await client.close()

    assert (0, 0) == (on[0], off[0])
    assert "The key list no longer needs plain; " in on[1]
    assert "Every row is sealed under plain." in off[1]
    assert all(word in before for word in (b"in the data", b"canary as a user", b"in meta"))
    assert not any(word in during for word in (b"in the data", b"canary as a user", b"in meta"))
    assert record is not None
    assert ({"canary": "in the data"}, "canary as a user") == (record.data, record.user)


async def test_without_a_daemon_the_command_does_the_work(server: Server, keys: Keys, tmp_path: Path) -> None:
    """A file that no daemon owns is brought under the first key by the command itself."""
    client = AsyncClient(server.url)
    await fill(client, 500)
    server.stop()
    keys.write(new_line(), *keys.lines)

    code, out, err = await asyncio.to_thread(rekey, tmp_path / "s.db", keys.file)
    keys.write(keys.lines[0])
    server.start()
    found = await client.get("sid-7")
    await client.close()

    assert 0 == code, err
    assert f"Every row is sealed under {keys.ids[0]}." in out
    assert found is not None


async def test_a_list_that_the_daemon_cannot_use_is_not_taken_up(server: Server, keys: Keys, tmp_path: Path) -> None:
    """A hang-up with a broken list, or one that lacks a key in use, changes nothing: the daemon serves on as before."""
    client = AsyncClient(server.url)
    await client.create({"n": 1}, sid="s")
    first = keys.lines[0]
    for lines in (["nonsense"], [new_line()], []):
        keys.write(*lines)
        os.kill(server._process.pid, 1)  # type: ignore[union-attr]
        assert (await client.get("s")) is not None
    keys.write(first)

    code, _, err = await asyncio.to_thread(rekey, tmp_path / "s.db", keys.file)
    await client.set("s", {"n": 2})
    await client.close()

    assert 0 == code, err


def test_what_is_in_the_way_is_told(server: Server, keys: Keys, tmp_path: Path) -> None:
    """No list, no file, no disk, or another list than the daemon's: a sentence says what to do, and the code is that of
    settings or of a start."""
    data = tmp_path / "s.db"
    other = tmp_path / "other"
    other.write_text(new_line() + "\n" + keys.lines[0] + "\n")

    cases = [
        (
            rekey(data, None),
            EXIT_SETTINGS,
            "encryption_keys is not set: give the file with the keys that the daemon has.",
        ),
        (rekey(Path("memory:"), keys.file), EXIT_SETTINGS, "data is memory:, which keeps nothing on a disk"),
        (rekey(tmp_path / "none.db", keys.file), EXIT_START, "there is no file"),
        (rekey(data, tmp_path / "none"), EXIT_SETTINGS, "cannot be read: No such file or directory."),
        (rekey(data, other), EXIT_START, "as its first key: see its log"),
    ]

    for (code, out, err), expected, sentence in cases:
        assert (expected, "") == (code, out)
        assert sentence in err
        assert 1 == err.count("\n")


def test_a_number_that_means_another_process_is_not_signalled(tmp_path: Path, keys: Keys) -> None:
    """A lock whose owner has another number here, as seen from outside its container, is no reason to signal a stranger."""
    owner = subprocess.Popen(
        [sys.executable, "-m", "tests.engines.writer", str(tmp_path / "s.db"), "0"], cwd=ROOT, stdout=subprocess.PIPE
    )
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        owner.stdout.readline()
        (tmp_path / "s.db.lock").write_text(f"sessiond, process {stranger.pid}\n")

        code, _, err = rekey(tmp_path / "s.db", keys.file)

        assert EXIT_START == code
        assert f"in use by process {stranger.pid}, which cannot be seen from here" in err
        assert stranger.poll() is None
    finally:
        for process in (owner, stranger):
            process.kill()
            process.communicate()
