"""The golden files, and what several tests of the client share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sessiond_client import AsyncClient, AsyncSession, Client

PROTOCOL = Path(__file__).parents[1] / "protocol"


def golden(name: str, part: str) -> list[Any]:
    """The rows of one part of a golden file."""
    rows: list[Any] = json.loads((PROTOCOL / name).read_text())[part]
    return rows


def plain(value: Any) -> Any:
    """A value of a golden file with its `{"hex": …}` turned into bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if value.keys() == {"hex"} else {k: plain(v) for k, v in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


class Blocking:
    """An asyncio object for tests that block: what it would have awaited is run to its end."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return functools.partial(self._call, value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._target, name, value)

    def __enter__(self) -> Any:
        self._call(self._target.__aenter__)
        return self

    def __exit__(self, *error: Any) -> None:
        self._call(self._target.__aexit__, *error)

    def __getitem__(self, name: str) -> Any:
        return self._target[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._target[name] = value

    def __delitem__(self, name: str) -> None:
        del self._target[name]

    def _call(self, method: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        async def call() -> Any:
            result = method(*arguments, **named)
            return await result if inspect.isawaitable(result) else result

        result = self._runner.run(call())
        return Blocking(result, self._runner) if isinstance(result, AsyncSession) else result


class Clients:
    """Makes clients of one kind, blocking to look at, and closes them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._stack = contextlib.ExitStack()

    def __call__(self, url: str | list[str], **options: Any) -> Any:
        """A client, blocking or an `AsyncClient` that looks so; typed as Any because the two are not one type."""
        if self.kind == "sync":
            return self._stack.enter_context(Client(url, **options))
        runner = self._stack.enter_context(asyncio.Runner())
        return self._stack.enter_context(Blocking(AsyncClient(url, **options), runner))

    def close(self) -> None:
        """Closes all clients made here."""
        self._stack.close()
