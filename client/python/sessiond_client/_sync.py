"""`Client`: the verbs for blocking code. Safe to share between threads, and across a fork."""

from __future__ import annotations

import ssl
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, TypeVar

from . import _policy, _protocol
from ._events import events
from ._frames import Dismissed, ProtocolError
from ._options import Options
from ._policy import Errand, Route
from ._pool import Connection, Pool
from ._protocol import Call
from ._session import Session
from ._types import Data, Event, Format, Listing, Record, Seconds, Sid, Stats, When
from ._urls import Address
from .cookies import new_sid as mint_sid
from .errors import AuthError, Conflict, ConnectFailed, InvalidRequest, Missing

T = TypeVar("T")


class Client:
    """A blocking client: one for a process, shared by its threads.

    Every verb raises `Unavailable` when no answer was had, `AuthError` when the daemon does not accept the token or the
    token does not allow the call, and `InvalidRequest` when the arguments are wrong. Instants are milliseconds since the Unix epoch, durations seconds.
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
        """Connects with the first call, not here.

        Args:
            url: `http://host:port`, `https://host:port` or `unix:///path`, or several, as a list or separated by
                commas: when one fails the next is used. None: the environment's `SESSIOND_URL`, else this machine.
            token: what the daemon knows this app by. None: the environment's `SESSIOND_TOKEN`, if there is one.
            namespace: whose sessions, for an admin's token, which has none of its own. None: the token's, or `default`.
            deadline: seconds for each call, connecting and repeating included.
            format: what dicts are written as; both formats are always read.
            tls: for https with an authority or a client certificate of your own; certificates are verified either way.
        """
        self._options = Options.of(url, token, namespace, deadline, format, tls)
        self._route = Route(self._options.addresses, self._options.deadline)
        self._pool = Pool()
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
    ) -> Client:
        """The same as calling the class, under the name that other clients use."""
        return cls(url, token=token, namespace=namespace, deadline=deadline, format=format, tls=tls)

    def create(
        self,
        data: Data,
        *,
        ttl: Seconds | None = None,
        lifetime: Seconds | None = None,
        user: str | None = None,
        meta: Mapping[str, str] | None = None,
        sid: str | None = None,
    ) -> str:
        """Starts a session and returns its sid, which is minted unless given.

        ttl and lifetime are the namespace's unless given. With a ttl of 0 or less nothing is stored: the sid returned
        has no session.

        Raises Exists when a session lives under the sid given.
        """
        sid = mint_sid() if sid is None else sid
        call = _protocol.create(
            sid, data, format=self._options.format, ttl=ttl, lifetime=lifetime, user=user, meta=meta
        )
        if not _protocol.is_over(ttl):
            self._call(call)
        return sid

    def get(self, sid: Sid, *, renew: bool | Seconds = False) -> Record | None:
        """The session, or None when it is not alive. `renew` also renews it, with its own ttl or with the one given."""
        return self._call(_protocol.get(sid, renew=renew))

    def set(
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
        """Replaces the data and returns the new version, 1 when this made the session.

        What is not given stays; `user=""` and `meta={}` take them away. `when="alive"` never makes a session, a
        version is overwritten only while it is the current one. A ttl of 0 or less destroys the session, whatever
        `when` says, and returns 0.

        Raises Missing when the session is not alive and `when` is "alive" or a version; Conflict, with the current
        record, when that version is not the current one.
        """
        return self._call(
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

    def patch(
        self,
        sid: Sid,
        set: Mapping[str, Any] | None = None,
        remove: Iterable[str] = (),
        *,
        ttl: Seconds | None = None,
        user: str | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> int:
        """Replaces and removes top-level entries in one step and returns the new version; the others keep theirs.

        A ttl of 0 or less destroys the session and returns 0.

        Raises Missing when the session is not alive.
        """
        return self._call(_protocol.patch(sid, set, remove, format=self._options.format, ttl=ttl, user=user, meta=meta))

    def touch(self, sid: Sid, *, ttl: Seconds | None = None) -> int | None:
        """Renews the session and returns the instant at which it now expires, or None when it is not alive.

        A ttl of 0 or less destroys the session and returns None.
        """
        return self._call(_protocol.touch(sid, ttl=ttl))

    def rotate(self, sid: Sid, *, new_sid: str | None = None, grace: Seconds = 0) -> str:
        """Moves the session to a new sid, minted unless given, and returns that. Do this when somebody logs in.

        The old sid is dead at once, or for `grace` seconds, at most 3600, stands for the new one. Give no grace at a
        login: somebody who had planted the old sid would be let in. It is for ids that change by the clock.

        Raises Missing when the session is not alive, Exists when one lives under the new sid.
        """
        new = mint_sid() if new_sid is None else new_sid
        self._call(_protocol.rotate(sid, new, grace=grace))
        return new

    def destroy(self, sid: Sid) -> None:
        """Ends the session for good. Fine when it is not alive."""
        self._call(_protocol.destroy(sid))

    def list(
        self,
        *,
        user: str | None = None,
        everyone: bool = False,
        cursor: bytes | None = None,
        limit: int = _protocol.DEFAULT_LIMIT,
    ) -> Listing:
        """A page of the living sessions of a user, or of all with `everyone=True`, at most 1000.

        It can be iterated; its `cursor` fetches the next page. An entry's `key` stands for its sid in every verb, so
        `destroy(entry.key)` ends that session, and `cookies.key_of(sid) == entry.key` says that it is this one.
        """
        return self._call(_protocol.list_(user=user, everyone=everyone, cursor=cursor, limit=limit))

    def count(self, *, user: str | None = None) -> int:
        """How many sessions are alive, of one user or of all."""
        return self._call(_protocol.count(user=user))

    def destroy_all(self, *, user: str | None = None, except_sid: Sid | None = None, everyone: bool = False) -> int:
        """Ends all sessions of a user, or all with `everyone=True`, but for `except_sid`; returns how many."""
        return self._call(_protocol.destroy_all(user=user, except_sid=except_sid, everyone=everyone))

    def update(
        self,
        sid: Sid,
        change: Callable[[Any], Any],
        *,
        ttl: Seconds | None = None,
        attempts: int = _policy.UPDATE_ATTEMPTS,
    ) -> Record:
        """Reads the data, lets `change` alter it or return other data, and writes that; returns the record written.

        When somebody else writes in between, `change` is called again with their data, so no update is lost; it should
        do nothing else. Always writes, and so renews.

        Raises Missing when the session is not alive, Conflict when all attempts came too late.
        """
        if attempts < 1:
            raise InvalidRequest("attempts is at least 1.")
        record = self.get(sid)
        if record is None:
            raise Missing
        attempt = 1
        while True:
            changed = change(record.data)
            data = record.data if changed is None else changed
            try:
                return self._call(_protocol.replace(sid, record, data, format=self._options.format, ttl=ttl))
            except Conflict as conflict:
                if attempt >= attempts:
                    raise
                record = conflict.current
            time.sleep(_policy.update_pause(attempt))
            attempt += 1

    def events(self, after: str | None = None) -> Generator[Event, None, None]:
        """What ends in the namespace, as it ends: an endless iterator of `Event`, on a connection of its own.

        It begins when the first event is asked for, with what ends from then on, or behind the event of the id `after`.
        When the connection breaks it comes back by itself, and goes on where it was; where something may have been missed
        there is an event of kind "gap". Close it to give the connection back.

        Raises ConnectFailed when no daemon can be reached within the deadline at first; AuthError, also later, when the
        daemon does not accept the token, or the token may not list; InvalidRequest when no event can have had that id.
        """
        return events(self._options, after)

    def session(self, sid: str | None, *, ttl: Seconds | None = None, renew: bool | Seconds = True) -> Session:
        """The session as a dict that saves what has changed: see `Session`. None starts a new one."""
        return Session(self, sid, ttl=ttl, renew=renew)

    def close(self) -> None:
        """Closes the connections. Calls in other threads still end, new ones are refused."""
        self._pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None and not pool.is_empty:
            _warn("a sessiond Client was not closed", ResourceWarning, source=self)
            pool.close()

    def _call(self, call: Call[T]) -> T:
        deadline = self._options.deadline
        errand = Errand(call, time.monotonic() + deadline)
        while True:
            try:
                connection = self._connection(errand)
            except TimeoutError:
                raise errand.late(deadline) from None
            except ConnectFailed as error:
                raise errand.unreachable(error) from None
            try:
                answer = connection.ask(errand)
            except BaseException as error:
                self._pool.drop(connection)
                if isinstance(error, TimeoutError):
                    self._route.avoid(connection.address)
                    raise errand.late(deadline) from None
                if not isinstance(error, OSError | ProtocolError):
                    raise
                if isinstance(error, Dismissed):
                    errand.was_turned_away()
                if not errand.may_go_again():
                    raise errand.lost(_policy.reason_of(error)) from error
                self.stats.repeats += 1
                continue
            self.stats.messages_sent += 1
            self.stats.calls_sent += 1
            self._pool.put(connection)
            if connection.retired:
                self._route.avoid(connection.address)
            if _protocol.is_stopping(answer):
                errand.was_turned_away()
                if errand.may_go_again():
                    self.stats.repeats += 1
                    continue
            return errand.result(answer)

    def _connection(self, errand: Errand[Any]) -> Connection:
        """An open connection. Raises TimeoutError at the deadline, ConnectFailed, AuthError."""
        connection = self._pool.take(errand.deadline)
        if connection is not None:
            return connection
        try:
            while True:
                now = time.monotonic()
                if now >= errand.deadline:
                    error = self._route.error
                    raise TimeoutError if error is None else _policy.again(error)
                if pause := self._route.pause(now):
                    time.sleep(pause)
                elif (connection := self._connect(errand.deadline)) is not None:
                    return connection
        except BaseException:
            self._pool.drop(None)
            raise

    def _connect(self, deadline: float) -> Connection | None:
        """One attempt at every address; None when all failed, which the route then knows."""
        tried: list[tuple[Address, Exception]] = []
        before = self._route.error
        for address in self._route.order():
            until = min(deadline, time.monotonic() + self._route.timeout)
            try:
                connection = Connection(address, self._options, until)
            except AuthError as error:
                self._route.failed(time.monotonic(), error)
                raise
            except (OSError, ProtocolError) as error:
                tried.append((address, error))
            else:
                self._route.succeeded(address)
                self.stats.connects += 1
                return connection
        # An attempt that was cut short by the caller's deadline says less about the daemon than the one before it did.
        is_late = time.monotonic() >= deadline and isinstance(tried[-1][1], TimeoutError)
        reason = before if before is not None and is_late else _policy.connect_failed(tried)
        self._route.failed(time.monotonic(), reason)
        return None
