"""`SessionStore`: what `SESSION_ENGINE` asks for, on the lifecycle that all adapters share.

Django's own names and promises hold, with four differences. A change inside of a value counts as one. Saving sends only the
entries that have changed. Ids are ours, 43 characters; and each read renews the session, so that it ends when it has not been
used, rather than not been changed, for its time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY as USER
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .._protocol import is_over
from ..errors import Exists, Missing, Unavailable
from ..lifecycle import Ask, Lifecycle, Steps, drive, drive_async, through_text
from .options import async_client, client

#: Where SessionBase keeps what `set_expiry` was told: seconds, or the text of an instant.
EXPIRY = "_session_expiry"
#: Seconds that a session lives unused at most: no browser keeps a cookie longer (RFC 6265bis, section 5.5: 400 days).
MAX_AGE = 400 * 24 * 3600

log = logging.getLogger("sessiond_client")


class SessionStore(SessionBase):
    """The session of one request, a dict that is read when it is first looked at.

    The methods that begin with `a` are native: they wait for the daemon in the event loop, and need no thread. The others
    block. Raises Unavailable when no answer was had, which is never taken for a session that is not there.
    """

    def __init__(self, session_key: str | None = None) -> None:
        serializer = _serializer(settings.SESSION_SERIALIZER)()
        encode, decode = through_text(serializer.dumps, lambda text: serializer.loads(text.encode()))
        self._life = Lifecycle(None, encode=encode, decode=decode)
        self._is_marked = False
        self._unmodified: Mapping[str, bytes] = {}
        #: What `meta` is to say of the device.
        self.described: dict[str, str] | None = None
        #: Whether to go on without a session while the daemon is away, and whether that has happened.
        self.may_lack = self.is_lacking = False
        #: Whether a call had no answer.
        self.is_refused = False
        #: Whether the app has ended the session that there was.
        self.is_ended = False
        #: Whether the daemon has stored or renewed the session at our word, so that its cookie may be sent.
        self.is_saved = False
        #: Whether the event loop lasts. Else `a` methods block, rather than connect for one request.
        self.is_native = True
        super().__init__(session_key)

    # -- what SessionBase keeps in attributes --

    @property
    def session_key(self) -> str | None:
        """What belongs in the cookie; None until there is a session."""
        return self._life.sid

    @property
    def _session_key(self) -> str | None:
        return self._life.sid

    @_session_key.setter
    def _session_key(self, key: str | None) -> None:
        self._life.sid = key if self._validate_session_key(key) else None

    @property
    def _session_cache(self) -> Any:
        if not self._life.loaded:
            raise AttributeError("_session_cache")  # which SessionBase takes for "read it first"
        return self._life.data

    @_session_cache.setter
    def _session_cache(self, data: dict[str, Any]) -> None:
        self._life.data = data
        self._life.loaded = True

    @property
    def modified(self) -> bool:
        """Whether an entry was set, or has changed inside, since the session was read or this was set to False."""
        return self._is_marked or self._entries() != self._unmodified

    @modified.setter
    def modified(self, is_modified: bool) -> None:
        self._is_marked = bool(is_modified)
        if not is_modified:
            self._unmodified = self._entries()

    # -- the methods of an engine, twice --

    def load(self) -> Any:
        """Reads and renews the session: its data. {} when there is none, and then the key is None; nothing is created."""
        self._do(self._load())
        return self._life.data

    async def aload(self) -> Any:
        """As `load`."""
        await self._ado(self._load())
        return self._life.data

    def exists(self, session_key: str | None) -> bool:
        """Whether such a session is alive. It is not renewed."""
        return bool(session_key) and client().get(str(session_key)) is not None

    async def aexists(self, session_key: str | None) -> bool:
        """As `exists`."""
        if not self.is_native:
            return self.exists(session_key)
        return bool(session_key) and await async_client().get(str(session_key)) is not None

    def create(self) -> None:
        """Stores what is here as a new session, under a new key, even if it is nothing."""
        self._do(self._create())

    async def acreate(self) -> None:
        """As `create`."""
        await self._ado(self._create())

    def save(self, must_create: bool = False) -> None:
        """Stores the entries that have changed, or only renews when none has. Without a key a session is created.

        Raises UpdateError when the session ended meanwhile: it is not revived; CreateError when `must_create` and one
        lives under this key.
        """
        self._do(self._save(must_create))

    async def asave(self, must_create: bool = False) -> None:
        """As `save`."""
        await self._ado(self._save(must_create))

    def delete(self, session_key: str | None = None) -> None:
        """Ends the session with this key, or this one. Fine when there is none."""
        self._do(self._delete(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """As `delete`."""
        await self._ado(self._delete(session_key))

    def flush(self) -> None:
        """Ends the session. What is put in afterwards belongs to a new one."""
        self._do(self._flush())

    async def aflush(self) -> None:
        """As `flush`."""
        await self._ado(self._flush())

    def cycle_key(self) -> None:
        """Moves the session to a new key, in one step at the daemon; the old one is dead at once.

        One that ended meanwhile is not revived: there is a new one then, which holds nothing.
        """
        self._do(self._cycle())

    async def acycle_key(self) -> None:
        """As `cycle_key`."""
        await self._ado(self._cycle())

    @classmethod
    def clear_expired(cls) -> None:
        """Does nothing: the daemon removes what has expired by itself, all the time."""
        log.warning("Expired sessions are removed by sessiond itself: clearsessions has nothing to do.")

    @classmethod
    async def aclear_expired(cls) -> None:
        """As `clear_expired`."""
        cls.clear_expired()

    # -- the end of a request, which SessionMiddleware asks for --

    def finish(self) -> None:
        """Stores, moves or ends the session as its data asks for: see `Lifecycle.finish`.

        `lost` is True afterwards when it ended elsewhere meanwhile, and so what was changed here is dropped.
        """
        self._do(self._finish())

    async def afinish(self) -> None:
        """As `finish`."""
        await self._ado(self._finish())

    @property
    def is_alive(self) -> bool:
        """Whether the session was there when it was last read or saved."""
        return self._life.exists

    @property
    def has_moved(self) -> bool:
        """Whether the session is under a key that no browser has been told yet."""
        return self._life.exists and self._life._moved

    @property
    def lost(self) -> bool:
        """Whether the session ended elsewhere while this request was using it."""
        return self._life.lost

    # -- what an app may say otherwise --

    def get_session_user(self, data: Mapping[str, Any]) -> str | None:
        """Whose session this is, for "my devices" and "log out everywhere": who has logged in with `django.contrib.auth`."""
        user = data.get(USER)
        return None if user is None else str(user)

    # -- the steps, without I/O --

    def _load(self) -> Steps:
        life = self._life
        try:
            yield from life.load()
        except Unavailable:
            if not self.may_lack:
                raise
            life.forget()
            life.loaded = self.is_lacking = True
            return
        expiry = life.data.get(EXPIRY)
        # An instant cannot be moved by reading, though the daemon has just renewed the session.
        if isinstance(expiry, str) and self.get_expiry_age(expiry=expiry) <= 0:
            yield from life.destroy()
        if not life.exists:
            life.sid = None
        self._unmodified = life.stored.entries

    def _look(self) -> Steps:
        """Reads what is stored, if that is not known yet; what the app has put in without looking, by `clear`, stays.

        Raises Missing when there is nothing to put that into. What was put in while the daemon was away is lost.
        """
        life = self._life
        if self.is_lacking:
            self.may_lack = self.is_lacking = life.loaded = False
        if not life.loaded:
            yield from self._load()
        elif life.sid is not None and not life.exists:
            data = life.data
            yield from life.load()
            life.data = data
            if not life.exists:
                raise Missing

    def _create(self, key: str | None = None) -> Steps:
        if not self._life.loaded:
            self._session_cache = {}
        self._tell()
        yield from self._life.create(key)
        self.is_saved = self.modified = True

    def _save(self, must_create: bool) -> Steps:
        life = self._life
        if must_create or life.sid is None:
            yield from self._create(life.sid)
            return
        yield from self._look()
        if life.sid is None:
            raise Missing
        self._tell()
        version = life.version
        yield from life.save()
        if life.version == version:
            yield from self._renew()
        self.is_saved = True

    def _renew(self) -> Steps:
        """Renews the session, unless its time is over, and finds out whether it is still there. Raises Missing."""
        life = self._life
        if not is_over(life.ttl) and (yield Ask("touch", (life.sid,), {"ttl": life.ttl})) is None:
            raise Missing

    def _delete(self, key: str | None) -> Steps:
        if key or self.session_key:
            yield Ask("destroy", (key or self.session_key,), {})

    def _flush(self) -> Steps:
        yield from self._life.destroy()
        self.is_ended = self.accessed = self.modified = True
        self.is_lacking = False

    def _cycle(self) -> Steps:
        life = self._life
        self.accessed = True
        with contextlib.suppress(Missing):  # then what the app has put in since it cleared the session is all there is
            yield from self._look()
        try:
            yield from life.rotate()
        except Missing:
            log.info("a session ended elsewhere just before its key was to change; a new one takes its place")
            life.forget()
        if not life.exists:
            yield from self._create()
        self.is_saved = self.modified = True

    def _finish(self) -> Steps:
        life, had = self._life, self._life.sid
        was_loaded, every = life.loaded, settings.SESSION_SAVE_EVERY_REQUEST
        if self.is_lacking or not (was_loaded or every):
            return
        try:
            yield from self._look()
            version = life.version
            self._tell()
            yield from life.finish(user=life.user)
            self.is_ended = self.is_ended or (had is not None and life.sid is None)
            if every and life.exists and life.version == version and was_loaded:
                yield from self._renew()
            self.is_saved = self.is_saved or every or life.version != version
        except Missing:
            life.lost = True

    def _tell(self) -> None:
        """Tells the lifecycle what Django keeps among the data: how long the session lives, and whose it is."""
        life = self._life
        life.ttl = min(self.get_expiry_age(), MAX_AGE)
        life.user = self.get_session_user(life.data)
        if self.described is not None and (not life.exists or life.user != life.stored.user):
            life.meta = dict(self.described)

    def _do(self, steps: Steps) -> None:
        drive(client(), self._told(steps))

    async def _ado(self, steps: Steps) -> None:
        if self.is_native:
            await drive_async(async_client(), self._told(steps))
        else:
            self._do(steps)

    def _told(self, steps: Steps) -> Steps:
        """The steps, with errors in Django's words."""
        try:
            yield from steps
        except Missing as error:
            raise UpdateError(str(error)) from error
        except Exists as error:
            raise CreateError(str(error)) from error
        except Unavailable:
            self.is_refused = True
            raise

    def _entries(self) -> Mapping[str, bytes]:
        """The entries as they would be stored now."""
        changes = self._life.changes()
        return (self._life.stored if changes is None else changes.state).entries


@functools.cache
def _serializer(name: str) -> Any:
    """The class of SESSION_SERIALIZER. Raises ImproperlyConfigured when what it writes is not JSON."""
    serializer = import_string(name)
    try:
        json.loads(serializer().dumps({}))
    except ValueError:
        raise ImproperlyConfigured("SESSION_SERIALIZER has to write JSON, which other languages read too.") from None
    return serializer
