"""A session as a dict that knows what has changed in it.

`lifecycle` decides; `_Handle` shows its data as a mapping, and `Session` and `AsyncSession` make the calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Literal, Self

from ._types import Seconds
from .errors import InvalidRequest
from .lifecycle import Lifecycle, drive, drive_async


class _Handle(MutableMapping[str, Any]):
    """The data and what is known of it. Changes inside of values count: they are found by comparing bytes."""

    def __init__(self, client: Any, sid: str | None, *, ttl: Seconds | None, renew: bool | Seconds) -> None:
        self._client = client
        self._life = Lifecycle(sid, ttl=ttl, renew=renew)

    # -- what the caller sees; each loads first where it can --

    @property
    def sid(self) -> str | None:
        """What belongs in the cookie. Saving a new session and rotating change it; None until there is one."""
        return self._life.sid

    @property
    def exists(self) -> bool:
        """Whether the session was alive when it was loaded or saved."""
        return self._loaded().exists

    @property
    def version(self) -> int | None:
        """The version that was loaded or saved; None for a session that does not exist."""
        return self._loaded().version

    @property
    def modified(self) -> bool:
        """Whether `save` would send something."""
        return self._life.loaded and self._life.changes() is not None

    @property
    def user(self) -> str | None:
        """Whose session it is. Setting it is part of the next save; None takes it away."""
        return self._loaded().user

    @user.setter
    def user(self, user: str | None) -> None:
        self._loaded().user = user or None

    @property
    def meta(self) -> dict[str, str]:
        """For people to read, such as the address of the browser. Changes are part of the next save."""
        return self._loaded().meta

    @meta.setter
    def meta(self, meta: Mapping[str, str]) -> None:
        self._loaded().meta = dict(meta)

    def __getitem__(self, name: str) -> Any:
        return self._loaded().data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._loaded().data[name] = value

    def __delitem__(self, name: str) -> None:
        del self._loaded().data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded().data)

    def __len__(self) -> int:
        return len(self._loaded().data)

    def __repr__(self) -> str:
        """Shows names only: neither the sid nor a value belongs in a log."""
        life = self._life
        return f"<{type(self).__name__} {'exists' if life.exists else 'new'}: {', '.join(map(repr, life.data))}>"

    def _loaded(self) -> Lifecycle:
        """The session, with its data there, or raises."""
        raise NotImplementedError


class Session(_Handle):
    """A session to be used like a dict, read when it is first looked at.

    `save` sends only what has changed, so that requests that change different entries do not undo each other. As a
    context manager it saves at the end, unless an exception ends it. A handle belongs to one request: it is not shared
    between threads.
    """

    def load(self) -> None:
        """Reads the session, and renews it unless told otherwise; what was changed here is lost."""
        drive(self._client, self._life.load())

    def save(self) -> None:
        """Stores what has changed; nothing is sent when nothing has.

        A session that does not exist is created, under a new sid, once there is something in it.
        Raises Missing when it was destroyed or expired since it was loaded: it is not revived.
        """
        drive(self._client, self._life.save())

    def rotate(self, *, grace: Seconds = 0) -> None:
        """Moves the session to a new sid: see `Client.rotate`. One that does not exist gets a new sid anyway."""
        drive(self._client, self._loaded().rotate(grace))

    def destroy(self) -> None:
        """Ends the session and empties the dict. What is put in afterwards makes a new session."""
        drive(self._client, self._life.destroy())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            self.save()
        return False

    def _loaded(self) -> Lifecycle:
        if not self._life.loaded:
            self.load()
        return self._life


class AsyncSession(_Handle):
    """`Session` for asyncio: `async with client.session(sid) as session:` reads at the start and saves at the end."""

    async def load(self) -> None:
        """Reads the session: see `Session.load`."""
        await drive_async(self._client, self._life.load())

    async def save(self) -> None:
        """Stores what has changed: see `Session.save`."""
        await drive_async(self._client, self._life.save())

    async def rotate(self, *, grace: Seconds = 0) -> None:
        """Moves the session to a new sid: see `Session.rotate`."""
        await drive_async(self._client, self._loaded().rotate(grace))

    async def destroy(self) -> None:
        """Ends the session and empties the dict: see `Session.destroy`."""
        await drive_async(self._client, self._life.destroy())

    async def __aenter__(self) -> Self:
        await self.load()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            await self.save()
        return False

    def _loaded(self) -> Lifecycle:
        if not self._life.loaded:
            raise InvalidRequest("The session is not loaded: use `async with`, or await `load()` first.")
        return self._life
