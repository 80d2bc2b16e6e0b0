"""A store for starsessions. Tested with starsessions 2.2 on Starlette 1.10.

app.add_middleware(starsessions.SessionMiddleware, store=SessiondStore(client))

starsessions shows a store the whole session at the end of each request that loaded it, changed or not, and nothing of
what was there before. So reading hides a mark in the metadata, which comes back with the write: under which key the
session was found, whose it was, and a digest of each entry. By it a write is a patch of what has changed, a session that
has ended since stays ended, and an id that was not found is not adopted.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starsessions import SessionStore

from ._async import AsyncClient
from ._types import Record, Seconds
from .cookies import key_of
from .errors import Missing
from .lifecycle import fingerprint

log = logging.getLogger("sessiond_client")

#: The entry in which starsessions keeps when the session was created and what its lifetime is.
METADATA = "__metadata__"
#: Where the mark hides in it, between a read and a write; it is never stored.
MARK = "sessiond"
#: Set anew by starsessions whenever it loads a session, and never read from the store: no reason to write.
_LAST_ACCESS = "last_access"


class SessiondStore(SessionStore):
    """Keeps the sessions of starsessions' middleware.

    With its JSON serializer the data is stored as plain values, which apps in other languages read. Whatever another
    serializer makes is stored as opaque bytes, as a whole: then the last write wins, and a write that comes after a
    logout begins a new session. Raises Unavailable, which starsessions passes on, when no answer was had.

    Args:
        client: the app's, which also closes it.
        ttl: seconds that a session with `lifetime=0`, which ends with the browser, lives without being used; None: the
            namespace's.
        user: tells from the data whose session it is; one that changes hands moves to a new id.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        ttl: Seconds | None = None,
        user: Callable[[Mapping[str, Any]], str | None] | None = None,
    ) -> None:
        self._client = client
        self._ttl = ttl
        self._user = user

    async def read(self, session_id: str, lifetime: int) -> bytes:
        """The session as its serializer has written it; empty when it is not alive.

        Entries that JSON cannot express, which only apps in other formats write, are not shown; they stay as they are.
        """
        renew: bool | Seconds = False  # a lifetime counts from the session's beginning, unless the write says otherwise
        if lifetime == 0:
            renew = True if self._ttl is None else self._ttl
        record = await self._client.get(session_id, renew=renew)
        if record is None:
            return b""
        return record.data if record.format == "bytes" else _marked(session_id, record)

    async def write(self, session_id: str, data: bytes, lifetime: int, ttl: int) -> str:
        """Stores what has changed and returns the id by which the session is known from now on.

        `lifetime` 0 is a session that ends with the browser; else it lives for `ttl` seconds from now, at least one.
        """
        lives = self._ttl if lifetime == 0 else max(1, ttl)
        plain = _plain(data)
        if plain is None:
            return await self._write_bytes(session_id, data, lives)
        mark = plain[METADATA].pop(MARK, None)
        user = None if self._user is None else self._user(plain) or None
        if mark is None:
            return await self._client.create(plain, ttl=lives, user=user)
        try:
            return await self._patch(session_id, mark, plain, user, lives, renew=lifetime > 0)
        except Missing:
            log.info("a session ended elsewhere while a request was using it; what that request changed is dropped")
            return session_id

    async def remove(self, session_id: str) -> None:
        """Ends the session. One that is not alive is fine."""
        await self._client.destroy(session_id)

    async def _patch(
        self, sid: str, mark: dict[str, Any], plain: dict[str, Any], user: str | None, ttl: Seconds | None, renew: bool
    ) -> str:
        seen, key = mark["seen"], bytes.fromhex(mark["key"])
        changed = {name: value for name, value in plain.items() if _digest(name, value) != seen.get(name)}
        removed = [name for name in seen if name not in plain]
        changes_hands = self._user is not None and user != mark["user"]
        if key != key_of(sid) or changes_hands:  # the app has asked for a new id, or should have one
            sid = await self._client.rotate(key)
        if changed or removed or changes_hands:
            await self._client.patch(sid, changed, removed, ttl=ttl, user=(user or "") if changes_hands else None)
        elif renew and await self._client.touch(sid, ttl=ttl) is None:
            raise Missing
        return sid

    async def _write_bytes(self, sid: str, data: bytes, ttl: Seconds | None) -> str:
        try:
            await self._client.set(sid, data, ttl=ttl, when="alive")
        except Missing:
            return await self._client.create(data, ttl=ttl)
        return sid


def _marked(sid: str, record: Record) -> bytes:
    """The data as JSON, with the mark in its metadata."""
    texts = {name: text for name, value in record.data.items() if (text := _text(value)) is not None}
    shown = {name: record.data[name] for name in texts}
    metadata = shown.get(METADATA)
    mark = {
        "key": key_of(sid).hex(),
        "user": record.user,
        "seen": {name: _digest(name, value) for name, value in shown.items()},
    }
    texts[METADATA] = json.dumps({**(metadata if isinstance(metadata, dict) else {}), MARK: mark})
    return "{{{}}}".format(",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items())).encode()


def _plain(data: bytes) -> dict[str, Any] | None:
    """The session, where it was serialized as JSON; else None."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return plain if isinstance(plain, dict) and isinstance(plain.get(METADATA), dict) else None


def _text(value: Any) -> str | None:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _digest(name: str, value: Any) -> str:
    """16 bytes that are equal when the entry is, as hexadecimal."""
    if name == METADATA and isinstance(value, dict):
        value = {each: value[each] for each in sorted(value) if each != _LAST_ACCESS}
    return hashlib.blake2b(fingerprint(value), digest_size=16).hexdigest()
