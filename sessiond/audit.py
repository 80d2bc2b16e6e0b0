"""The audit: who made, moved and ended which session, who was turned away, and what changed in the daemon. JSON lines.

A line never holds a sid, a token or data: sessions are named by their keys, tokens by their names. Lines are written by a
thread of their own, all that have gathered at once, so no call waits for the file. A file that cannot be written stops
nothing: lines wait, up to MAX_WAITING, and those beyond are counted and told of when it can be written again.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sessiond import codec
from sessiond.calls import SURVEYS, Call, Create, Destroy, DestroyAll, Rotate, Set, handle_of
from sessiond.errors import StartError
from sessiond.record import Answer

log = logging.getLogger("sessiond")

MAX_WAITING = 20_000
"""Lines that wait for a file that cannot be written: some 10 MB."""

RETRY = 1.0
"""Seconds until a write that failed is tried again."""

_OF_LIMITS = frozenset({"too_many_sessions", "quota", "integrity"})
"""Codes that are told of whatever call met them."""


class Actor(NamedTuple):
    """Who calls: the name of the token, where one was asked for, and the address of the peer; of a unix socket none."""

    token: str | None = None
    peer: str | None = None


NOBODY = Actor()

_REOPEN = b""
"""Stands among the lines where the file changes."""


class Audit:
    """`now`: the daemon's clock. Needs a running event loop."""

    def __init__(self, path: Path, now: Callable[[], int]) -> None:
        """Opens or makes the file. StartError says why it cannot."""
        self.lost = 0
        """Lines that were not kept since the start."""
        self._path = path
        self._now = now
        self._sequence = 0
        self._untold = 0  # lines lost that no line tells of yet
        self._lines: list[bytes] = []
        self._rest = b""  # of a write that did not come to its end
        self._failing = False
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        try:
            self._file = _open(path)
        except OSError as e:
            raise StartError(
                f"cannot write the audit to {path}: {e.strerror}. Give a file in a folder that sessiond may write to."
            ) from e
        self._thread = ThreadPoolExecutor(1, "sessiond audit")

    # Telling ---------------------------------------------------------------------------------------------

    def tell(self, event: str, **fields: object) -> None:
        """One line. Fields that are None are left out."""
        if len(self._lines) >= MAX_WAITING:
            self.lost += 1
            self._untold += 1
            return
        if self._untold:
            lost, self._untold = self._untold, 0
            self._append("lost", {"count": lost})
        self._append(event, fields)
        self._begin()

    def answered(self, by: Actor, verb: str, call: Call, answer: Answer) -> None:
        """What a call did, if that is of interest here: exactly one line for each create, rotate, destroy and
        destroy_all, and for a set that makes a session, whatever the outcome; one for any other that a limit or a damaged
        row refuses; and one more for each session that had to make room."""
        outcome, record = answer.status, answer.record
        if outcome in ("refused", "failed"):
            assert isinstance(answer.value, tuple)
            outcome = answer.value[0]
        user = record.user if record is not None and outcome == "ok" else None
        if type(call) is Destroy:
            ended = answer.ended[0] if answer.ended else None
            if ended is None and outcome == "ok":
                outcome = "missing"
            self._line(by, verb, outcome, call.address, None if ended is None else ended.user)
        elif type(call) is Rotate:
            self._line(by, verb, outcome, call.address, user, new_key=handle_of(call.new_key))
        elif type(call) is Create:
            self._line(by, verb, outcome, call.address, user)
        elif type(call) is DestroyAll:
            spared = None if call.except_key is None else handle_of(call.except_key)
            count = answer.value if isinstance(answer.value, int) else None
            self._line(by, verb, outcome, (call.namespace, None), call.user, count=count, except_key=spared)
        elif type(call) is Set and outcome == "ok" and record is not None and record.version == 1:
            self._line(by, "create", outcome, call.address, user)
        elif outcome in _OF_LIMITS and not isinstance(call, SURVEYS):
            self._line(by, verb, outcome, call.address, None)
        for ended in answer.ended:
            if ended.reason == "evicted":
                self._line(by, "evict", "ok", (ended.namespace, ended.key), ended.user)

    def _line(
        self,
        by: Actor,
        event: str,
        outcome: str,
        where: tuple[str, bytes | None],
        user: str | None,
        **more: str | int | None,
    ) -> None:
        namespace, key = where
        named = None if key is None else handle_of(key)
        self.tell(event, outcome=outcome, namespace=namespace, key=named, user=user, **more, **by._asdict())

    def _append(self, event: str, fields: Mapping[str, object]) -> None:
        self._sequence += 1
        time = datetime.fromtimestamp(self._now() / 1000, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": time.replace("+00:00", "Z"), "seq": self._sequence, "event": event}
        line |= {name: value for name, value in fields.items() if value is not None}
        self._lines.append(codec.to_ascii_json(line))

    # Writing ---------------------------------------------------------------------------------------------

    def reopen(self) -> None:
        """Goes on in the file that is at the path now, or makes one: for a program that has moved the old one away. What
        was told before is still written to the old one. One that cannot be opened changes nothing."""
        self._lines.append(_REOPEN)
        self._begin()

    async def close(self) -> None:
        """Writes what waits, once, and closes the file. Nothing may be told afterwards."""
        self._closing.set()
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()
        os.close(self._file)

    def _begin(self) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._lines or self._rest:
            # Up to where the file changes, if it does.
            end = self._lines.index(_REOPEN) if _REOPEN in self._lines else len(self._lines)
            data, self._lines = self._rest + b"".join(self._lines[:end]), self._lines[end:]
            self._rest, error = await loop.run_in_executor(self._thread, self._write, data)
            self._judge(error)
            if self._rest:
                if self._closing.is_set():
                    break
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), RETRY)
            elif self._lines and self._lines[0] is _REOPEN:
                del self._lines[0]
                await loop.run_in_executor(self._thread, self._reopen)
        self._writing = None

    def _write(self, data: bytes) -> tuple[bytes, OSError | None]:
        """Writes what the file takes; what is left, and why."""
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as e:
            return data, e
        return b"", None

    def _reopen(self) -> None:
        try:
            file = _open(self._path)
        except OSError as e:
            log.error("the audit goes on in the file that was open, for %s cannot be: %s", self._path, e.strerror)
        else:
            os.close(self._file)
            self._file = file

    def _judge(self, error: OSError | None) -> None:
        """Says once that the file cannot be written, and once that it can be again."""
        if error is not None and not self._failing:
            log.error("the audit %s cannot be written: %s. Calls go on; lines wait for it.", self._path, error.strerror)
        elif error is None and self._failing:
            log.info("the audit %s is written again", self._path)
        self._failing = error is not None


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
