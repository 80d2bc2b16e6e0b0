"""The shelf of engines. Each is opened by its URL and loaded only then; none knows another."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from sessiond.engine import Engine
from sessiond.errors import SettingError
from sessiond.vault import Vault

_OPENERS = {"memory": "sessiond.engines.memory", "sqlite": "sessiond.engines.sqlite"}


class Options(NamedTuple):
    """`cache_bytes`: what the hot cache may hold. `relaxed`: acknowledge creates, sets and patches before their commit.
    `on_fatal`: called when the engine can no longer keep its word; it must end the process and not return.
    `vault`: seals what leaves memory."""

    cache_bytes: int
    relaxed: bool
    on_fatal: Callable[[str], None]
    vault: Vault = Vault()


async def open_engine(url: str, options: Options) -> Engine:
    """Opens `memory:`, `sqlite:PATH`, or a plain path, which is SQLite's. SettingError for anything else.

    Raises StartError when what the URL names cannot be opened: the text says why and what to do.
    """
    scheme, path = _read(url)
    engine: Engine = await import_module(_OPENERS[scheme]).open(path, options)
    return engine


def file_of(url: str) -> Path | None:
    """The file in which the engine of that URL keeps its records; None if it keeps none. SettingError as above."""
    scheme, path = _read(url)
    return path.resolve() if scheme == "sqlite" else None


def _read(url: str) -> tuple[str, Path]:
    scheme, colon, rest = url.partition(":")
    if not colon:
        scheme, rest = "sqlite", url
    if scheme not in _OPENERS or (scheme == "memory" and rest) or (scheme == "sqlite" and not rest):
        raise SettingError(f"data is {url!r}: give the path of an SQLite file (data/sessions.db), or memory:.")
    try:
        return scheme, Path(rest.removeprefix("//")).expanduser()
    except RuntimeError as e:
        raise SettingError(f"data is {url!r}, and there is no such home: give the whole path.") from e
