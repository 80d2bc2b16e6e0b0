"""`sessiond rekey`: has every row of a file sealed under the first key of the list, and follows it until it is done.

The work is the daemon's: it reads the key list again on SIGHUP, and tells in the file how far it is. Where no daemon owns
the file, this process does the work itself.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sessiond.config import Settings
from sessiond.engines import Options, file_of, open_engine
from sessiond.engines.sqlite.file import owner_of
from sessiond.engines.sqlite.seals import Progress, progress_of
from sessiond.errors import SettingError, StartError
from sessiond.keyring import read_vault
from sessiond.vault import Vault

PATIENCE = 10.0
"""Seconds until the daemon should have read its key list again."""

GLANCE = 0.2
"""Seconds between two looks at how far it is."""

Tell = Callable[[Progress, float], None]
"""Takes how far the daemon is, and how many rows a second it did since this process began to look."""


async def rekey(settings: Settings, tell: Tell, on_fatal: Callable[[str], None]) -> tuple[Progress, tuple[str, ...]]:
    """How it stands at the end, and the ids in the list that no row needs any more.

    SettingError and StartError say what is in the way, StartError also when the daemon ends before its work does.
    """
    path = file_of(settings.data)
    if path is None:
        raise SettingError("data is memory:, which keeps nothing on a disk: there is nothing to encrypt.")
    if settings.encryption_keys is None:
        raise SettingError("encryption_keys is not set: give the file with the keys that the daemon has.")
    vault = read_vault(settings.encryption_keys)
    if not path.exists():
        raise StartError(f"there is no file {path}: give the --data that the daemon has.")
    if (owner := owner_of(path)) is None:
        engine = await open_engine(settings.data, Options(settings.cache, False, on_fatal, vault))
        try:
            end = await _follow(path, vault, os.getpid(), tell)
        finally:
            await engine.close()
    else:
        _wake(owner, path)
        end = await _follow(path, vault, owner, tell)
    return end, tuple(seal for seal in vault.ids if seal != vault.current)


def _wake(process: int, path: Path) -> None:
    try:
        if not _is_owner(process, path):
            raise ProcessLookupError
        os.kill(process, signal.SIGHUP)
    except PermissionError as e:
        raise StartError(f"{path} is in use by process {process} of another user: run this as that user.") from e
    except ProcessLookupError as e:
        raise StartError(
            f"{path} is in use by process {process}, which cannot be seen from here. Run this where it runs, in its "
            "container perhaps, or send it SIGHUP there."
        ) from e


def _is_owner(process: int, path: Path) -> bool:
    """Whether that number means the owner here too: in a container the same process has another one."""
    descriptors = Path(f"/proc/{process}/fd")
    if not Path("/proc/self/fd").exists():
        return True  # a system without containers of that kind
    lock = path.with_name(path.name + ".lock")
    for descriptor in descriptors.iterdir() if descriptors.exists() else ():
        with suppress(FileNotFoundError):  # closed since it was listed
            if descriptor.samefile(lock):
                return True
    return False


async def _follow(path: Path, vault: Vault, owner: int, tell: Tell) -> Progress:
    loop = asyncio.get_running_loop()
    began = loop.time()
    first: Progress | None = None
    while True:
        now = progress_of(path)
        if now is not None and now.current == vault.current:
            first = first or now
            tell(now, (now.done - first.done) / max(loop.time() - began, GLANCE))
            if not now.old:
                return now
        elif loop.time() - began > PATIENCE:
            raise StartError(
                f"process {owner} has not taken up {vault.current} as its first key: see its log, and that it has the same "
                "encryption_keys and data as this command."
            )
        if owner_of(path) != owner:
            raise StartError("the daemon has ended. Start it again: it goes on from where it was.")
        await asyncio.sleep(GLANCE)
