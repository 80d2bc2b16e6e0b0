"""Sessions for Flask. Tested with Flask 3.1, Werkzeug 3.1 and Flask-Login 0.6, on gunicorn's threads and Werkzeug's server.

SessiondSessions(app)                         # or: app.session_interface = SessiondSessions()

@app.get("/")
def visit():
    session["views"] = session.get("views", 0) + 1     # flask.session, read when it is first looked at
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from flask import Flask, Request, Response
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.exceptions import ServiceUnavailable

from ._sync import Client
from .cookies import Found, SessionCookie
from .errors import Unavailable
from .lifecycle import Lifecycle, Paths, Steps, describe, drive

#: The entry that `session.permanent` is. A session that holds nothing else holds nothing.
_PERMANENT = "_permanent"
#: Types of which nothing is tagged: eight such entries take 1 µs to write down; through JSON they would take 34 (measured).
_PLAIN = frozenset({str, int, float, bool, type(None)})

log = logging.getLogger("sessiond_client")


class SessionsUnavailable(Unavailable, ServiceUnavailable):
    """`Unavailable` as Flask understands it: a plain 503 where the app does not handle it. Its cause says what happened."""

    def __init__(self, cause: Unavailable) -> None:
        super().__init__("The sessions are away for a moment; try again.", outcome_unknown=cause.outcome_unknown)
        self.__cause__ = cause
        self.retry_after = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.__cause__,)

    def get_headers(self, *arguments: Any) -> list[tuple[str, str]]:
        """As every HTTPException has them; caches do not keep this one."""
        return [*super().get_headers(*arguments), ("Cache-Control", "no-store")]


class SessiondSession(SessionMixin):
    """`flask.session`: a dict that is read and renewed when it is first looked at, and knows what has changed inside.

    Looking at it raises SessionsUnavailable when no answer was had.
    """

    accessed = False

    def __init__(self, sessions: SessiondSessions, app: Flask, request: Request, found: Found, may_lack: bool) -> None:
        self.former: SessionMixin | None = None  #: what the interface before this one knew, to be ended at the end
        self.is_lacking = False  #: whether it stands in for one that could not be read
        self.was_permanent = False  #: when it was read
        self._sessions = sessions
        self._app = app
        self._request = request
        self._found = found
        self._may_lack = may_lack
        self._forced = False
        self._life = Lifecycle(found.sid, ttl=app.permanent_session_lifetime, encode=self._encode, decode=self._decode)

    @property
    def sid(self) -> str | None:
        """What belongs in the cookie; None until there is a session. Moves and logins change it at the end of a request."""
        return self._life.sid

    @property
    def new(self) -> bool:  # type: ignore[override]  # the mixin has a constant
        """Whether there was no such session when it was looked at."""
        return not self._loaded().exists

    @property
    def modified(self) -> bool:
        """Whether this request has changed something, inside of a value too. It can be set to True, but need not."""
        return self._forced or (self._life.loaded and self._life.changes() is not None)

    @modified.setter
    def modified(self, modified: bool) -> None:
        self._forced = modified

    def regenerate(self) -> None:
        """The session gets a new id at the end of the request; its data stays. A change of its user does so by itself."""
        self._loaded().move()

    def clear(self) -> None:
        """Ends the session; what is put in afterwards begins a new one, under a new id. Nothing needs to be read for it."""
        self.accessed = self.modified = True
        self._take_over()
        self._life.end()
        self.is_lacking = False  # one that could not be read can still be ended, or else that is an error

    def copy(self) -> dict[str, Any]:
        """The entries as a dict of their own."""
        return dict(self)

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

    def __contains__(self, name: object) -> bool:
        # Flask-Login looks for this entry after every request, that of a static file too. It is gone before a session is
        # saved, so one that nobody else looks at need not be read for it, nor fail while the daemon is away.
        if name == "_remember" and not self._life.loaded:
            return False
        return name in self._loaded().data

    def __repr__(self) -> str:
        """Shows names only: neither the sid nor a value belongs in a log."""
        return f"<{type(self).__name__}: {', '.join(map(repr, self._life.data)) or 'nothing read'}>"

    def _loaded(self) -> Lifecycle:
        self.accessed = True
        life = self._life
        if not life.loaded:
            try:
                drive(self._sessions.client, life.load())
            except Unavailable as error:
                if not self._may_lack:
                    raise SessionsUnavailable(error) from error
                life.loaded = self.is_lacking = True
            self._take_over()
            self.was_permanent = bool(life.data.get(_PERMANENT))
        return life

    def _take_over(self) -> None:
        """Goes on with what the interface before this one knows of a visitor who has no session of ours."""
        former = self._sessions.former
        if former is None or self.former is not None or self._life.exists or self.is_lacking:
            return
        known = former.open_session(self._app, self._request)
        if known is not None and known.keys() - {_PERMANENT}:
            self.former = known
            self._life.data = dict(known)

    def _encode(self, value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        return json.loads(self._app.json.dumps(self._sessions.serializer.tag(value)))

    def _decode(self, data: dict[str, Any]) -> dict[str, Any]:
        # Entry by entry: the tags stand in the values, and an entry that is named like a tag is none.
        return {name: value if type(value) in _PLAIN else self._untag(value) for name, value in data.items()}

    def _untag(self, value: Any) -> Any:
        tags = self._sessions.serializer
        # Bytes, which clients without tags may have stored, are the one thing here that JSON lacks.
        return tags.loads(json.dumps(value, default=tags.tag))


class SessiondSessions(SessionInterface):
    """Keeps the sessions of Flask apps with a sessiond daemon.

    `SESSION_COOKIE_*`, `PERMANENT_SESSION_LIFETIME` (a session's time to live, whether it is permanent or not) and
    `SESSION_REFRESH_EACH_REQUEST` mean what they mean to Flask. With `SESSION_USE_SIGNER` in its config the app's
    `SECRET_KEY` signs the cookie, and `SECRET_KEY_FALLBACKS` are accepted; without it the cookie holds the bare sid.

    Args:
        app: as in `init_app`, which can be called later; `app.session_interface = SessiondSessions()` does the same.
        client: the app's, which also closes it; by default one of this interface's own, to the daemon of SESSIOND_URL.
        user: tells whose session it is: the name of an entry, by default that of Flask-Login, or a function of the
            session's data that returns the user or None.
        meta: whether new sessions and logins note the browser's name and address, for "my devices".
        optional: paths that go on with an empty session, which is not stored, while the daemon is away.
        secure: whether the cookie is Secure and SameSite=Lax and, unless the app has named it, `__Host-session`. Flask's
            own defaults are not, and cannot be told from an app's wish; False: Flask's settings alone rule.
        former: the interface that the app had before. Visitors who bring its sessions go on with them, under a new id,
            and it is told to end them.
    """

    #: Keeps the types that JSON lacks, as tagged values; further ones can be registered with it.
    serializer = TaggedJSONSerializer()

    def __init__(
        self,
        app: Flask | None = None,
        client: Client | None = None,
        *,
        user: str | Callable[[Mapping[str, Any]], object] = "_user_id",
        meta: bool = True,
        optional: Sequence[str] = (),
        secure: bool = True,
        former: SessionInterface | None = None,
    ) -> None:
        self.client = Client() if client is None else client
        self.former = former
        self._user: Callable[[Mapping[str, Any]], object] = user if callable(user) else lambda data: data.get(user)
        self._meta = meta
        self._lacking = Paths(optional)
        self._secure = secure
        self._has_warned = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Gives the app its sessions."""
        app.session_interface = self

    def regenerate(self, session: Any) -> None:
        """The session gets a new id at the end of the request: see `SessiondSession.regenerate`."""
        session.regenerate()

    def open_session(self, app: Flask, request: Request) -> SessiondSession | None:
        """The session of this request, unread. None, which Flask explains, where a secret is missing to sign with."""
        if app.config.get("SESSION_USE_SIGNER") and not app.secret_key:
            return None
        found = self._cookie(app).read(request.headers.getlist("Cookie"))
        return SessiondSession(self, app, request, found, request.path in self._lacking)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Saves the session and dresses the response. One with a 5xx saves nothing, nor one that has not looked at it."""
        assert isinstance(session, SessiondSession)
        if session.accessed:
            response.vary.add("Cookie")
        life, again = session._life, False
        if response.status_code < 500:
            if response.is_streamed and not response.direct_passthrough:
                response.call_on_close(lambda: self._save_streamed(session))
            if life.loaded and not session.is_lacking:
                if not life.data.keys() - {_PERMANENT}:
                    life.data = {}
                again = session._found.stale or self.should_set_cookie(app, session)
                self._save(app, session, response)
        # Also with an error, which may have come half-way: a session that has moved is not found by its old cookie.
        match life.cookie(rolling=again and not session.is_lacking):
            case "send":
                self._send(app, session, response)
            case "clear":
                response.delete_cookie(self.get_cookie_name(app), **self._looks(app))

    def should_set_cookie(self, app: Flask, session: SessionMixin) -> bool:
        """Whether the cookie is to be sent although its id is the same, because the instant at which it expires moves.

        One without such an instant is not: an answer that ends late must not undo the new id of another.
        """
        was_permanent = isinstance(session, SessiondSession) and session.was_permanent
        if session.permanent:
            return not was_permanent or super().should_set_cookie(app, session)
        return was_permanent

    def get_cookie_name(self, app: Flask) -> str:
        """`SESSION_COOKIE_NAME`; `__Host-session` in place of Flask's default where browsers accept that prefix."""
        name = super().get_cookie_name(app)
        if not self._secure or name != Flask.default_config["SESSION_COOKIE_NAME"]:
            return name
        is_for_host = self.get_cookie_path(app) == "/" and not self.get_cookie_domain(app)
        return "__Host-session" if is_for_host else name

    def get_cookie_secure(self, app: Flask) -> bool:
        """True, or with `secure=False` what `SESSION_COOKIE_SECURE` says."""
        return self._secure or super().get_cookie_secure(app)

    def get_cookie_samesite(self, app: Flask) -> str | None:
        """`SESSION_COOKIE_SAMESITE`; "Lax" where that is not set, unless `secure=False`."""
        return super().get_cookie_samesite(app) or ("Lax" if self._secure else None)

    def _looks(self, app: Flask) -> dict[str, Any]:
        """What Flask's settings make of the cookie, but for its name, value and end."""
        return {
            "path": self.get_cookie_path(app),
            "domain": self.get_cookie_domain(app),
            "secure": self.get_cookie_secure(app),
            "httponly": self.get_cookie_httponly(app),
            "samesite": self.get_cookie_samesite(app),
            "partitioned": self.get_cookie_partitioned(app),
        }

    def _cookie(self, app: Flask) -> SessionCookie:
        """The cookie by this app's settings. Raises InvalidRequest for what browsers would refuse."""
        secret = None
        if app.config.get("SESSION_USE_SIGNER"):
            secret = (app.secret_key, *(app.config.get("SECRET_KEY_FALLBACKS") or ()))
        return _checked(name=self.get_cookie_name(app), secret=secret, **self._looks(app))

    def _save(self, app: Flask, session: SessiondSession, response: Response) -> None:
        before = session._life.stored
        try:
            drive(self.client, self._finish(session))
        except Unavailable as error:
            session.is_lacking = True
            _become(response, app.make_response(app.handle_user_exception(SessionsUnavailable(error))))
            return
        if session._life.stored is not before:
            session.modified = True  # for whoever asks after this
        if session.former is not None and self.former is not None:
            session.former.clear()
            session.former.modified = True
            self.former.save_session(app, session.former, response)

    def _send(self, app: Flask, session: SessiondSession, response: Response) -> None:
        cookie = self._cookie(app)
        if not (cookie.secure or self._has_warned or app.debug or app.testing):
            self._has_warned = True
            log.warning("the session cookie travels over plain http too: set SESSION_COOKIE_SECURE")
        response.set_cookie(
            self.get_cookie_name(app),
            cookie.value(session.sid or ""),
            expires=self.get_expiration_time(app, session),
            **self._looks(app),
        )
        # Whoever keeps this response would hand the session to others.
        response.headers.setdefault("Cache-Control", "no-store")

    def _finish(self, session: SessiondSession, *, moves: bool = True) -> Steps:
        life, request = session._life, session._request
        owner = self._user(life.data) if life.data else None
        told = describe(request.user_agent.string, request.remote_addr) if self._meta else None
        return life.finish(user=str(owner) if owner not in (None, "") else None, meta=told, moves=moves)

    def _save_streamed(self, session: SessiondSession) -> None:
        """Saves what a streamed answer has changed while it went out; its cookie is on its way by then."""
        life = session._life
        if not life.loaded or session.is_lacking:
            return
        try:
            drive(self.client, self._finish(session, moves=False))
        except Unavailable as error:
            log.error("what a streamed answer changed in its session is lost: %s", error)


_checked: Callable[..., SessionCookie] = lru_cache(maxsize=32)(SessionCookie)


def _become(response: Response, other: Response) -> None:
    """Answers with the other: Flask leaves no way to return one from where sessions are saved."""
    if callable(close := getattr(response.response, "close", None)):
        close()
    response.direct_passthrough = False
    response.status, response.headers, response.response = other.status, other.headers, other.response
