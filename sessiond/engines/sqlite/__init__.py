"""The default engine: one SQLite file, embedded, behind a bounded hot cache.

`engine` keeps the order of calls and decides when an answer may go out; `file` speaks SQL; `seals`
knows under which keys the rows are; `cache` forgets.
"""

from pathlib import Path

from sessiond.engines import Options
from sessiond.engines.sqlite.engine import SqliteEngine
from sessiond.engines.sqlite.file import SessionFile


async def open(path: Path, options: Options) -> SqliteEngine:
    return SqliteEngine(await SessionFile.open(path, options.vault), options)
