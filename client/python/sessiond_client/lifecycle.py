"""What a session goes through, decided without I/O, the same for the handles and for every web framework.

`Lifecycle` keeps what was read beside what the app has made of it. Its steps are generators that yield the calls which a
client is to make and are sent their results; `drive` runs them on a `Client`, `drive_async` on an `AsyncClient`.

Rule 1: a session id is minted here or not at all; one that is not alive is never stored under.
Rule 2: only what has changed is written, as a patch, so that a request which ends late undoes nothing and revives nobody.
Rule 3: nothing that happens to the daemon makes a cookie go away; only the app does.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from . import _codec, _protocol
from ._types import Record, Seconds
from .errors import AuthError, ConnectFailed, Failed, InvalidRequest, Missing, SessiondError, Unavailable

#: What is to become of the cookie: sent with the session's sid, taken away, or left as it is.
CookieFate = Literal["send", "clear", "keep"]

#: Characters of an entry in `meta`: enough for any browser's name, and far from the 4,096 bytes that all may have.
META_LENGTH = 200


log = logging.getLogger("sessiond_client")


class Ask(NamedTuple):
    """A call that whoever drives is to make: a verb of the clients, and its arguments."""

    verb: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]


Steps = Generator[Ask, Any, None]


def drive(client: Any, steps: Steps) -> None:
    """Makes the calls on a blocking client. An error of a call is thrown into the steps, which may handle it."""
    try:
        ask = next(steps)
        while True:
            try:
                result = getattr(client, ask.verb)(*ask.arguments, **ask.named)
            except Exception as error:
                _tell(error)
                ask = steps.throw(error)
            else:
                ask = steps.send(result)
    except StopIteration:
        return


async def drive_async(client: Any, steps: Steps) -> None:
    """Makes the calls on an `AsyncClient`: see `drive`."""
    try:
        ask = next(steps)
        while True:
            try:
                result = await getattr(client, ask.verb)(*ask.arguments, **ask.named)
            except Exception as error:
                _tell(error)
                ask = steps.throw(error)
            else:
                ask = steps.send(result)
    except StopIteration:
        return


def _tell(error: Exception) -> None:
    """What the page that comes of it does not say; of a daemon that cannot be reached the client has told already."""
    if isinstance(error, Unavailable) and not isinstance(error, ConnectFailed):
        log.warning("%s", error)


class State(NamedTuple):
    """A session as it is stored, or would be: each entry as bytes, since its value may be changed from inside."""

    entries: dict[str, bytes]
    user: str | None
    meta: dict[str, str]


class Changes(NamedTuple):
    """The arguments of a patch, and the state in which the session is after it."""

    set: dict[str, Any]
    remove: list[str]
    user: str | None  #: None keeps it, the empty string takes it away
    meta: dict[str, str] | None
    state: State


_NOTHING = State({}, None, {})


class Lifecycle:
    """One session, as one request or one handle knows it.

    Args:
        sid: what the cookie named, or None. It need not be alive.
        ttl: seconds to live after each renewal; None: the session's own, or the namespace's for a new one.
        renew: whether loading also renews: False, True, or the seconds to renew with.
        empty: makes the data of a session that has none.
        encode: one value of an entry as what is stored; must give equal results for equal values.
        decode: stored data as the app's; it may keep the dict that it is given.
    """

    def __init__(
        self,
        sid: str | None,
        *,
        ttl: Seconds | None = None,
        renew: bool | Seconds = True,
        empty: Callable[[], Any] = dict,
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        if _protocol.is_over(ttl):
            raise InvalidRequest("A ttl is above 0; to end a session, destroy it.", code="bad_ttl")
        self.sid = sid  #: what belongs in the cookie; None until there is a session
        self.ttl = ttl
        self.renew = ttl if renew is True and ttl is not None else renew
        self.loaded = False
        self.version: int | None = None  #: that was loaded or saved; None: the session does not exist
        self.data: Any = empty()  #: a mapping with string keys; may be replaced by another
        self.user: str | None = None
        self.meta: dict[str, str] = {}
        self.created_at: int | None = None  #: of the session that was loaded, in ms since the Unix epoch
        self.stored: State = _NOTHING  #: as it was loaded or saved
        self.lost = False  #: whether the session ended elsewhere since it was loaded, so that changes were dropped
        self._came_with = sid
        self._ended = False
        self._moves = self._moved = False
        self._empty = empty
        self._encode = encode
        self._decode = decode

    # -- what is known --

    @property
    def exists(self) -> bool:
        """Whether the session was alive when it was loaded or saved."""
        return self.version is not None

    def changes(self) -> Changes | None:
        """What differs from what is stored, and the state that storing it leads to; None when nothing does."""
        plain = self._plain()
        state, stored = self._state(plain), self.stored
        if state == stored:
            return None
        return Changes(
            set={name: plain[name] for name, packed in state.entries.items() if stored.entries.get(name) != packed},
            remove=[name for name in stored.entries if name not in state.entries],
            user=None if state.user == stored.user else state.user or "",
            meta=None if state.meta == stored.meta else state.meta,
            state=state,
        )

    # -- what can be done at once --

    def forget(self) -> None:
        """Makes this a session that does not exist and holds nothing. The daemon is not told."""
        self.version, self.data, self.user, self.meta, self.stored = None, self._empty(), None, {}, _NOTHING
        self.created_at = None

    def load(self) -> Steps:
        """Reads the session, and renews it unless told otherwise; what was changed here is lost.

        Raises InvalidRequest for a session that holds opaque bytes.
        """
        record: Record | None = (yield Ask("get", (self.sid,), {"renew": self.renew})) if self.sid else None
        if record is not None and record.format == "bytes":
            raise InvalidRequest("The session holds opaque bytes, not a dict: use `get`.", code="opaque_data")
        self.forget()
        self.loaded = True
        if record is not None:
            self.version = record.version
            self.data = record.data if self._decode is None else self._decode(record.data)
            self.user, self.meta = record.user, record.meta or {}
            self.created_at = record.created_at
            # As this app would write it: another may have put the same values into other bytes, which is no change.
            self.stored = self._state(self._plain())

    def save(self) -> Steps:
        """Stores what has changed; a session that does not exist is created, under a new sid.

        Raises Missing when it ended since it was loaded: it is not revived.
        """
        changes = self.changes() if self.loaded else None
        if changes is None:
            return
        if self.version is None or self.sid is None:
            yield from self.create()
            return
        named = {"ttl": self.ttl, "user": changes.user, "meta": changes.meta}
        self.version = yield Ask("patch", (self.sid, changes.set, changes.remove), named)
        self.stored = changes.state

    def create(self, sid: str | None = None) -> Steps:
        """Stores what is here as a new session, even if that is nothing; under a new sid, or one that the app has made.

        Raises Exists when a session lives under the sid given.
        """
        self.version, self.stored = None, _NOTHING
        changes = self.changes()
        user, meta, state = (None, None, _NOTHING) if changes is None else (changes.user, changes.meta, changes.state)
        named = {"ttl": self.ttl, "user": user, "meta": meta}
        self.sid = yield Ask("create", (self._plain(),), named if sid is None else {**named, "sid": sid})
        self.version, self.stored = 1, state
        self._moved = True  # nobody can have known this sid before

    def rotate(self, grace: Seconds = 0) -> Steps:
        """Moves the session to a new sid; one that does not exist gets a new one anyway. Raises Missing."""
        if self.exists:
            self.sid = yield Ask("rotate", (self.sid,), {"grace": grace})
            self._moved = True

    def destroy(self) -> Steps:
        """Ends the session and empties the data. What is put in afterwards makes a new session."""
        if self.sid is not None:
            yield Ask("destroy", (self.sid,), {})
        self.forget()
        self.sid = None
        self.loaded = True

    # -- what a request does at its end --

    def end(self) -> None:
        """The session is to end with the request; what is put in after this belongs to a new one."""
        self._ended = self.loaded = True
        self.version, self.stored = None, _NOTHING
        self.data = self._empty()
        self.user, self.meta = None, {}

    def move(self) -> None:
        """The session is to get a new sid at the end of the request, as it should when somebody logs in."""
        self._moves = True

    def finish(self, *, user: str | None = None, meta: Mapping[str, str] | None = None, moves: bool = True) -> Steps:
        """The end of a request: creates, patches, moves, destroys, or does nothing, as the data asks for.

        A session that the app has emptied is destroyed; a new one that holds nothing is not stored, so that bots and
        health checks leave nothing behind. One that ended elsewhere meanwhile stays ended: then `lost` is True.

        Args:
            user: whose session it is by now; None or the empty string: nobody's.
            meta: what to remember for people, of a new session and of one whose user has changed.
            moves: whether the browser can still be told a new sid, which is so until the response begins. Until then a
                session that changes hands gets one by itself: an id that was known before a login must not be one
                that is logged in. Afterwards none moves, and none begins, but one can end.
        """
        user = user or None  # else it would differ from what is stored, and move the session, each time
        if not self.loaded:
            if moves and self._moves and self.sid is not None:
                yield from self._unless_lost(self._move_unseen())
            return
        self.user = user
        if self._ended or (self.exists and self.stored.entries and not self.data and user is None):
            data = self.data
            yield from self.destroy()
            self.data, self.user = data, user
            self._ended = False
        if not self.exists and not moves:
            if self.data:
                log.warning("a session begun after the response had started is dropped: its cookie cannot be sent")
                self.forget()
            return
        if not self.exists and not self.data and user is None:
            return
        if meta is not None and (not self.exists or user != self.stored.user):
            self.meta = dict(meta)
        yield from self._unless_lost(self._keep(moves))

    def cookie(self, *, rolling: bool = False) -> CookieFate:
        """What the response has to do with the cookie. `rolling`: whether a session in use is sent again each time.

        A cookie whose session is not there stays: another response may just have replaced it.
        """
        if self.lost:
            return "keep"
        if self.sid is None:
            return "keep" if self._came_with is None else "clear"
        if not self.exists:
            return "keep"
        return "send" if rolling or self.sid != self._came_with else "keep"

    def _keep(self, moves: bool) -> Steps:
        before, had_moved = self.sid, self._moved
        if moves and self.exists and (self._moves or (not self._moved and self.user != self.stored.user)):
            yield from self.rotate()
            self._moves = False
        try:
            yield from self.save()
        except (InvalidRequest, AuthError, Failed):
            # Refused, so nothing was changed; and the error that comes of it brings the browser no cookie.
            if self.exists and self.sid != before:
                with contextlib.suppress(SessiondError):
                    self.sid = yield Ask("rotate", (self.sid,), {"new_sid": before})
                    self._moved = had_moved
            raise

    def _move_unseen(self) -> Steps:
        self.sid = yield Ask("rotate", (self.sid,), {"grace": 0})
        self.version = 1  # alive, at a version that nobody has asked for

    def _unless_lost(self, steps: Steps) -> Steps:
        try:
            yield from steps
        except Missing:
            self.lost = True
            log.info("a session ended elsewhere while a request was using it; what that request changed is dropped")

    def _plain(self) -> dict[str, Any]:
        """The data as it is stored."""
        if self._encode is None:
            return dict(self.data)
        return {name: self._encode(value) for name, value in self.data.items()}

    def _state(self, plain: dict[str, Any]) -> State:
        return State({name: fingerprint(value) for name, value in plain.items()}, self.user, dict(self.meta))


def fingerprint(value: Any) -> bytes:
    """Bytes that are equal when the value is. What cannot be stored gets some too; saving it is what fails."""
    try:
        return _codec.pack(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        try:
            shown = repr(value)
        except RecursionError:
            shown = f"a {type(value).__name__} that is nested too deeply"
        return b"\xc1" + shown.encode("utf-8", "surrogatepass")  # no MessagePack begins like this


def through_text(
    dumps: Callable[[Any], str | bytes], loads: Callable[[str], Any]
) -> tuple[Callable[[Any], Any], Callable[[dict[str, Any]], Any]]:
    """`encode` and `decode` for a `Lifecycle` whose app has a JSON serializer of its own, which may know more types.

    What is stored is what the serializer's text says, as plain values, so that other languages can read it.
    """
    return (lambda value: json.loads(dumps(value))), (lambda data: loads(json.dumps(data)))


def describe(agent: str | None, ip: str | None) -> dict[str, str]:
    """The `meta` by which people know their devices: the browser's name and address, without control characters."""
    said = {"agent": agent, "ip": ip}
    return {name: "".join(filter(str.isprintable, text))[:META_LENGTH] for name, text in said.items() if text}


class Paths:
    """Paths of an app, given as patterns: `/health`, or `/static/*` for all below. A single `*` stands for all."""

    def __init__(self, patterns: str | Iterable[str] = ()) -> None:
        self._patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        for pattern in self._patterns:
            if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
                raise InvalidRequest("A path begins with /, such as /health or /static/*.", code="bad_path")

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and any(fnmatchcase(path, pattern) for pattern in self._patterns)
