"""A session as a dict that knows what has changed in it.

`_Handle` keeps track and decides; `Session` and `AsyncSession` only carry out what it decided. Ids are never adopted:
under a sid that is not alive nothing is ever stored; a new session gets a new sid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self

from . import _codec, _protocol
from ._types import Data, Record, Seconds, Sid
from .errors import InvalidRequest


class _Verbs(Protocol):
    """What a handle needs of a `Client`."""

    def create(self, data: Data, *, ttl: Seconds | None, user: str | None, meta: Mapping[str, str] | None) -> str: ...
    def get(self, sid: Sid, *, renew: bool | Seconds) -> Record | None: ...
    def patch(
        self,
        sid: Sid,
        set: Mapping[str, Any] | None,
        remove: list[str],
        *,
        ttl: Seconds | None,
        user: str | None,
        meta: Mapping[str, str] | None,
    ) -> int: ...
    def rotate(self, sid: Sid, *, grace: Seconds) -> str: ...
    def destroy(self, sid: Sid) -> None: ...


class _AsyncVerbs(Protocol):
    """What a handle needs of an `AsyncClient`."""

    async def create(
        self, data: Data, *, ttl: Seconds | None, user: str | None, meta: Mapping[str, str] | None
    ) -> str: ...
    async def get(self, sid: Sid, *, renew: bool | Seconds) -> Record | None: ...
    async def patch(
        self,
        sid: Sid,
        set: Mapping[str, Any] | None,
        remove: list[str],
        *,
        ttl: Seconds | None,
        user: str | None,
        meta: Mapping[str, str] | None,
    ) -> int: ...
    async def rotate(self, sid: Sid, *, grace: Seconds) -> str: ...
    async def destroy(self, sid: Sid) -> None: ...


class _State(NamedTuple):
    """A session as it is stored, or would be: each entry as bytes, since its value may be changed from inside."""

    data: dict[str, bytes]
    user: str | None
    meta: dict[str, str]


class _Changes(NamedTuple):
    """The arguments of a patch, and the state in which the session is after it."""

    set: dict[str, Any]
    remove: list[str]
    user: str | None  # None keeps it, the empty string takes it away
    meta: dict[str, str] | None
    state: _State


class _Handle(MutableMapping[str, Any]):
    """The data and what is known of it. Changes inside of values count: they are found by comparing bytes."""

    _sid: str | None
    _version: int | None
    _data: dict[str, Any]
    _user: str | None
    _meta: dict[str, str]
    _stored: _State

    def __init__(self, sid: str | None, ttl: Seconds | None, renew: bool | Seconds) -> None:
        if _protocol.is_over(ttl):
            raise InvalidRequest("A ttl is above 0; to end a session, destroy it.", code="bad_ttl")
        self._ttl = ttl
        self._renew = ttl if renew is True and ttl is not None else renew
        self._loaded = False
        self._forget(sid)

    # -- what the caller sees; each loads first where it can --

    @property
    def sid(self) -> str | None:
        """What belongs in the cookie. Saving a new session and rotating change it; None until there is one."""
        return self._sid

    @property
    def exists(self) -> bool:
        """Whether the session was alive when it was loaded or saved."""
        self._need()
        return self._version is not None

    @property
    def version(self) -> int | None:
        """The version that was loaded or saved; None for a session that does not exist."""
        self._need()
        return self._version

    @property
    def modified(self) -> bool:
        """Whether `save` would send something."""
        return self._loaded and self._changes() is not None

    @property
    def user(self) -> str | None:
        """Whose session it is. Setting it is part of the next save; None takes it away."""
        self._need()
        return self._user

    @user.setter
    def user(self, user: str | None) -> None:
        self._need()
        self._user = user or None

    @property
    def meta(self) -> dict[str, str]:
        """For people to read, such as the address of the browser. Changes are part of the next save."""
        self._need()
        return self._meta

    @meta.setter
    def meta(self, meta: Mapping[str, str]) -> None:
        self._need()
        self._meta = dict(meta)

    def __getitem__(self, name: str) -> Any:
        self._need()
        return self._data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._need()
        self._data[name] = value

    def __delitem__(self, name: str) -> None:
        self._need()
        del self._data[name]

    def __iter__(self) -> Iterator[str]:
        self._need()
        return iter(self._data)

    def __len__(self) -> int:
        self._need()
        return len(self._data)

    def __repr__(self) -> str:
        """Shows names only: neither the sid nor a value belongs in a log."""
        return f"<{type(self).__name__} {'exists' if self._version else 'new'}: {', '.join(map(repr, self._data))}>"

    # -- what the shells need --

    def _need(self) -> None:
        """Makes sure that the data is there, or raises."""
        raise NotImplementedError

    def _forget(self, sid: str | None) -> None:
        """As it is for a session that does not exist."""
        self._sid = sid
        self._version = None
        self._data = {}
        self._user = None
        self._meta = {}
        self._stored = self._state()

    def _fill(self, record: Record | None) -> None:
        """Takes over what was read."""
        if record is not None and record.format == "bytes":
            raise InvalidRequest("The session holds opaque bytes, not a dict: use `get`.", code="opaque_data")
        self._loaded = True
        if record is None:
            return
        self._version = record.version
        self._data = record.data
        self._user, self._meta = record.user, record.meta or {}
        self._stored = self._state()

    def _state(self) -> _State:
        return _State({name: _fingerprint(value) for name, value in self._data.items()}, self._user, dict(self._meta))

    def _changes(self) -> _Changes | None:
        """What differs from what is stored, and the state that storing it leads to; None when nothing does."""
        state, stored = self._state(), self._stored
        if state == stored:
            return None
        return _Changes(
            set={name: self._data[name] for name, packed in state.data.items() if stored.data.get(name) != packed},
            remove=[name for name in stored.data if name not in state.data],
            user=None if state.user == stored.user else state.user or "",
            meta=None if state.meta == stored.meta else state.meta,
            state=state,
        )


class Session(_Handle):
    """A session to be used like a dict, read when it is first looked at.

    `save` sends only what has changed, so that requests that change different entries do not undo each other. As a
    context manager it saves at the end, unless an exception ends it. A handle belongs to one request: it is not shared
    between threads.
    """

    def __init__(self, client: _Verbs, sid: str | None, *, ttl: Seconds | None, renew: bool | Seconds) -> None:
        super().__init__(sid, ttl, renew)
        self._client = client

    def load(self) -> None:
        """Reads the session, and renews it unless told otherwise; what was changed here is lost."""
        sid = self._sid
        record = self._client.get(sid, renew=self._renew) if sid else None
        self._forget(sid)
        self._fill(record)

    def save(self) -> None:
        """Stores what has changed; nothing is sent when nothing has.

        A session that does not exist is created, under a new sid, once there is something in it.
        Raises Missing when it was destroyed or expired since it was loaded: it is not revived.
        """
        changes = self._changes() if self._loaded else None
        if changes is None:
            return
        if self._version is None or self._sid is None:
            sid = self._client.create(self._data, ttl=self._ttl, user=changes.user, meta=changes.meta)
            self._sid, self._version = sid, 1
        else:
            self._version = self._client.patch(
                self._sid, changes.set, changes.remove, ttl=self._ttl, user=changes.user, meta=changes.meta
            )
        self._stored = changes.state

    def rotate(self, *, grace: Seconds = 0) -> None:
        """Moves the session to a new sid: see `Client.rotate`. One that does not exist gets a new sid anyway."""
        if self.exists and self._sid is not None:
            self._sid = self._client.rotate(self._sid, grace=grace)

    def destroy(self) -> None:
        """Ends the session and empties the dict. What is put in afterwards makes a new session."""
        if self._sid is not None:
            self._client.destroy(self._sid)
        self._forget(None)
        self._loaded = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            self.save()
        return False

    def _need(self) -> None:
        if not self._loaded:
            self.load()


class AsyncSession(_Handle):
    """`Session` for asyncio: `async with client.session(sid) as session:` reads at the start and saves at the end."""

    def __init__(self, client: _AsyncVerbs, sid: str | None, *, ttl: Seconds | None, renew: bool | Seconds) -> None:
        super().__init__(sid, ttl, renew)
        self._client = client

    async def load(self) -> None:
        """Reads the session: see `Session.load`."""
        sid = self._sid
        record = await self._client.get(sid, renew=self._renew) if sid else None
        self._forget(sid)
        self._fill(record)

    async def save(self) -> None:
        """Stores what has changed: see `Session.save`."""
        changes = self._changes() if self._loaded else None
        if changes is None:
            return
        if self._version is None or self._sid is None:
            sid = await self._client.create(self._data, ttl=self._ttl, user=changes.user, meta=changes.meta)
            self._sid, self._version = sid, 1
        else:
            self._version = await self._client.patch(
                self._sid, changes.set, changes.remove, ttl=self._ttl, user=changes.user, meta=changes.meta
            )
        self._stored = changes.state

    async def rotate(self, *, grace: Seconds = 0) -> None:
        """Moves the session to a new sid: see `Session.rotate`."""
        if self.exists and self._sid is not None:
            self._sid = await self._client.rotate(self._sid, grace=grace)

    async def destroy(self) -> None:
        """Ends the session and empties the dict: see `Session.destroy`."""
        if self._sid is not None:
            await self._client.destroy(self._sid)
        self._forget(None)
        self._loaded = True

    async def __aenter__(self) -> Self:
        await self.load()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            await self.save()
        return False

    def _need(self) -> None:
        if not self._loaded:
            raise InvalidRequest("The session is not loaded: use `async with`, or await `load()` first.")


def _fingerprint(value: Any) -> bytes:
    """Bytes that are equal when the value is. What cannot be stored gets some too; saving it is what fails."""
    try:
        return _codec.pack(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return b"\xc1" + repr(value).encode("utf-8", "surrogatepass")  # no MessagePack begins like this
