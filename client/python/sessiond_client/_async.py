"""`AsyncClient`: the verbs for asyncio. Usable from any number of event loops, in turn or at once."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, TypeVar

from . import _policy, _protocol
from ._channel import Channel
from ._events import aevents
from ._options import Options
from ._protocol import Call
from ._session import AsyncSession
from ._types import Data, Event, Format, Listing, Record, Seconds, Sid, Stats, When
from .cookies import new_sid as mint_sid
from .errors import Conflict, InvalidRequest, Missing

T = TypeVar("T")


class AsyncClient:
    """An asyncio client: one for a process. Its verbs and errors are those of `Client`, to be awaited.

    Each event loop gets one connection. What several ask for in one turn of the loop travels as one message, so that many
    requests at once cost little more than one. A caller that is cancelled disturbs nobody else; a write of his may
    still be carried out.
    """

    def __init__(
        self,
        url: str | Iterable[str] | None = None,
        *,
        token: str | None = None,
        namespace: str | None = None,
        deadline: float = 2.0,
        format: Format = "msgpack",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """As for `Client`. Needs no running event loop."""
        self._options = Options.of(url, token, namespace, deadline, format, tls)
        self._channels: dict[asyncio.AbstractEventLoop, Channel] = {}
        self._closed = False
        self.stats = Stats()

    @classmethod
    def from_url(
        cls,
        url: str | Iterable[str] | None = None,
        *,
        token: str | None = None,
        namespace: str | None = None,
        deadline: float = 2.0,
        format: Format = "msgpack",
        tls: ssl.SSLContext | None = None,
    ) -> AsyncClient:
        """The same as calling the class, under the name that other clients use."""
        return cls(url, token=token, namespace=namespace, deadline=deadline, format=format, tls=tls)

    async def create(
        self,
        data: Data,
        *,
        ttl: Seconds | None = None,
        lifetime: Seconds | None = None,
        user: str | None = None,
        meta: Mapping[str, str] | None = None,
        sid: str | None = None,
    ) -> str:
        """Starts a session and returns its sid: see `Client.create`."""
        sid = mint_sid() if sid is None else sid
        call = _protocol.create(
            sid, data, format=self._options.format, ttl=ttl, lifetime=lifetime, user=user, meta=meta
        )
        if not _protocol.is_over(ttl):
            await self._call(call)
        return sid

    async def get(self, sid: Sid, *, renew: bool | Seconds = False) -> Record | None:
        """The session, or None when it is not alive: see `Client.get`."""
        return await self._call(_protocol.get(sid, renew=renew))

    async def set(
        self,
        sid: Sid,
        data: Data,
        *,
        ttl: Seconds | None = None,
        when: When = "any",
        lifetime: Seconds | None = None,
        user: str | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> int:
        """Replaces the data and returns the new version: see `Client.set`."""
        return await self._call(
            _protocol.set_(
                sid,
                data,
                format=self._options.format,
                ttl=ttl,
                when=when,
                lifetime=lifetime,
                user=user,
                meta=meta,
            )
        )

    async def patch(
        self,
        sid: Sid,
        set: Mapping[str, Any] | None = None,
        remove: Iterable[str] = (),
        *,
        ttl: Seconds | None = None,
        user: str | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> int:
        """Replaces and removes top-level entries and returns the new version: see `Client.patch`."""
        return await self._call(
            _protocol.patch(sid, set, remove, format=self._options.format, ttl=ttl, user=user, meta=meta)
        )

    async def touch(self, sid: Sid, *, ttl: Seconds | None = None) -> int | None:
        """Renews the session and returns when it expires, or None when it is not alive: see `Client.touch`."""
        return await self._call(_protocol.touch(sid, ttl=ttl))

    async def rotate(self, sid: Sid, *, new_sid: str | None = None, grace: Seconds = 0) -> str:
        """Moves the session to a new sid and returns that: see `Client.rotate`."""
        new = mint_sid() if new_sid is None else new_sid
        await self._call(_protocol.rotate(sid, new, grace=grace))
        return new

    async def destroy(self, sid: Sid) -> None:
        """Ends the session for good: see `Client.destroy`."""
        await self._call(_protocol.destroy(sid))

    async def list(
        self,
        *,
        user: str | None = None,
        everyone: bool = False,
        cursor: bytes | None = None,
        limit: int = _protocol.DEFAULT_LIMIT,
    ) -> Listing:
        """A page of the living sessions: see `Client.list`."""
        return await self._call(_protocol.list_(user=user, everyone=everyone, cursor=cursor, limit=limit))

    async def count(self, *, user: str | None = None) -> int:
        """How many sessions are alive: see `Client.count`."""
        return await self._call(_protocol.count(user=user))

    async def destroy_all(
        self, *, user: str | None = None, except_sid: Sid | None = None, everyone: bool = False
    ) -> int:
        """Ends all sessions of a user, or of everyone, and returns how many: see `Client.destroy_all`."""
        return await self._call(_protocol.destroy_all(user=user, except_sid=except_sid, everyone=everyone))

    async def update(
        self,
        sid: Sid,
        change: Callable[[Any], Any],
        *,
        ttl: Seconds | None = None,
        attempts: int = _policy.UPDATE_ATTEMPTS,
    ) -> Record:
        """Reads the data, lets `change`, a plain function, alter it, and writes that: see `Client.update`."""
        if attempts < 1:
            raise InvalidRequest("attempts is at least 1.")
        record = await self.get(sid)
        if record is None:
            raise Missing
        attempt = 1
        while True:
            changed = change(record.data)
            data = record.data if changed is None else changed
            try:
                return await self._call(_protocol.replace(sid, record, data, format=self._options.format, ttl=ttl))
            except Conflict as conflict:
                if attempt >= attempts:
                    raise
                record = conflict.current
            await asyncio.sleep(_policy.update_pause(attempt))
            attempt += 1

    def events(self, after: str | None = None) -> AsyncGenerator[Event, None]:
        """What ends, as it ends: see `Client.events`. For `async for`; `aclose` it when you leave before the end."""
        return aevents(self._options, after)

    def session(self, sid: str | None, *, ttl: Seconds | None = None, renew: bool | Seconds = True) -> AsyncSession:
        """The session as a dict that saves what has changed: see `AsyncSession`. None starts a new one."""
        return AsyncSession(self, sid, ttl=ttl, renew=renew)

    async def close(self) -> None:
        """Closes the connections of all event loops. What is under way fails, new calls are refused."""
        channel = self._channels.get(asyncio.get_running_loop())
        self._close()
        if channel is not None:
            await channel.wait_closed()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        await self.close()
        return False

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_channels", None):
            _warn("a sessiond AsyncClient was not closed", ResourceWarning, source=self)
            self._close()

    async def _call(self, call: Call[T]) -> T:
        waiting = self._channel().ask(call)
        return waiting.result(await waiting.future)

    def _channel(self) -> Channel:
        loop = asyncio.get_running_loop()
        channel = self._channels.get(loop)
        if channel is None:
            if self._closed:
                raise InvalidRequest("The client is closed; make a new one.", code="closed")
            # A channel keeps its loop alive, so weak references would not do: those of closed loops go now.
            self._channels = {each: its for each, its in self._channels.items() if not each.is_closed()}
            channel = self._channels[loop] = Channel(self._options, self.stats)
        return channel

    def _close(self) -> None:
        self._closed = True
        channels, self._channels = self._channels, {}
        for loop, channel in channels.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(channel.close)
