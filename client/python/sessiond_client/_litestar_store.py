"""Litestar's `Store` over a daemon: keys and opaque bytes, for caches, rate limits, or Litestar's own sessions.

A value is kept under the hash of its namespace and key, so neither is to be found in the daemon's file. Its namespace stands
in `meta` and not in `user`: who may choose a user's name must not be able to empty a cache by logging out everywhere, and a
limit of sessions for each user must not throw values out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from litestar.exceptions import ImproperlyConfiguredException
from litestar.stores.base import NamespacedStore

from ._async import AsyncClient
from ._types import Record, Seconds

#: How long a value is kept that was set without `expires_in`: the daemon keeps nothing for ever, and no longer than this
#: unless told so (its setting `max_ttl`).
FOREVER = timedelta(days=400)

_PAGE = 1000  # what a listing gives at most


class SessiondStore(NamespacedStore):
    """A store of Litestar's, as `RedisStore` is.

    Args:
        client: the app's, which also closes it.
        namespace: of its values; None: without one, and without `delete_all`.
        handle_client_shutdown: whether the client is closed with the app.
        forever: how long a value is kept that has no expiry of its own; lower it with the daemon's `max_ttl`.

    Raises `Unavailable` when no answer was had: a value that cannot be looked up is not one that is missing. A value may
    be as large as the daemon's `max_data`, 64 KiB unless set; InvalidRequest beyond it.
    """

    __slots__ = ("_client", "_forever", "_path", "handle_client_shutdown")

    def __init__(
        self,
        client: AsyncClient,
        namespace: str | None = "LITESTAR",
        handle_client_shutdown: bool = False,
        *,
        forever: Seconds = FOREVER,
    ) -> None:
        self._client = client
        self._forever = forever
        self.handle_client_shutdown = handle_client_shutdown
        self._descend([namespace] if namespace else [])

    @classmethod
    def with_client(
        cls, url: str | Iterable[str] | None = None, *, namespace: str | None = "LITESTAR", **options: Any
    ) -> Self:
        """A store with a client of its own, which is closed with the app. `options` are those of `AsyncClient`."""
        return cls(AsyncClient(url, **options), namespace, handle_client_shutdown=True)

    def with_namespace(self, namespace: str) -> Self:
        """A store for a namespace inside of this one: `delete_all` here reaches it, and its own does not reach here."""
        child = type(self)(self._client, None, self.handle_client_shutdown, forever=self._forever)
        child._descend([*self._path, namespace])
        return child

    async def set(self, key: str, value: str | bytes, expires_in: int | timedelta | None = None) -> None:
        """Keeps the value, a str as UTF-8. `expires_in`: seconds; 0 or less removes it."""
        meta = {"store": self._where}
        if expires_in is None:
            meta["expires"] = "never"
        data = value.encode() if isinstance(value, str) else bytes(value)
        await self._client.set(self._sid(key), data, ttl=self._forever if expires_in is None else expires_in, meta=meta)

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        """The value, or None. `renew_for`: what it shall live from now on, which takes a call more; a value without an
        expiry keeps to that."""
        record = await self._client.get(self._sid(key))
        if record is None:
            return None
        if renew_for and not _is_forever(record):
            await self._client.touch(self._sid(key), ttl=renew_for)
        value: bytes = record.data
        return value

    async def delete(self, key: str) -> None:
        """Removes the value, if there is one."""
        await self._client.destroy(self._sid(key))

    async def delete_all(self) -> None:
        """Removes the values of this namespace and of those inside of it that were there when it began.

        It walks through a listing of all that the daemon keeps in the app's namespace, a thousand entries a call.
        Raises ImproperlyConfiguredException for a store without a namespace.
        """
        if not self._path:
            raise ImproperlyConfiguredException("Only a store with a namespace can delete all: give it one.")
        cursor: bytes | None = None
        while True:
            page = await self._client.list(everyone=True, cursor=cursor, limit=_PAGE)
            keys = [entry.key for entry in page if f"{(entry.meta or {}).get('store')}/".startswith(f"{self._where}/")]
            await asyncio.gather(*map(self._client.destroy, keys))
            cursor = page.cursor
            if cursor is None:
                return

    async def exists(self, key: str) -> bool:
        """Whether there is such a value."""
        return await self._client.get(self._sid(key)) is not None

    async def expires_in(self, key: str) -> int | None:
        """Full seconds that the value has left, by this machine's clock; -1: it has no expiry; None: there is no value."""
        record = await self._client.get(self._sid(key))
        if record is None:
            return None
        return -1 if _is_forever(record) else max(0, int(record.expires_at / 1000 - time.time()))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if self.handle_client_shutdown:
            await self._client.close()

    @property
    def _where(self) -> str:
        """The way to the namespace, unambiguous whatever its names are made of."""
        return "/".join(quote(name, safe="") for name in self._path)

    def _descend(self, path: list[str]) -> None:
        self._path = path
        self.namespace = "_".join(path) or None  # as RedisStore shows it

    def _sid(self, key: str) -> str:
        # No cookie can name this: what we read from one without a signature has no colon.
        return f"litestar:{self._where}:{key}"


def _is_forever(record: Record) -> bool:
    return (record.meta or {}).get("expires") == "never"
