"""Everything that a client raises.

SessiondError
 ├── Unavailable           no answer was had: says nothing about the session. Not "logged out"
 │    ├── ConnectFailed    no connection to any of the addresses
 │    ├── DeadlineExceeded the answer did not come in time
 │    └── Failed           the daemon answered that it could not
 ├── AuthError             the daemon did not accept the token, or the token does not allow this
 ├── InvalidRequest        the arguments are wrong; also a ValueError
 ├── Missing               a write needed a living session and there is none
 ├── Exists                a new session was to be made where one lives
 └── Conflict              somebody else has changed the session

No message holds a sid, a token or a value of a session. Every error can be pickled and copied.
"""

from __future__ import annotations

from ._types import Record


class SessiondError(Exception):
    """Base of everything raised by this package."""


class Unavailable(SessiondError):
    """No answer was had. Nothing is known about the session: answer 503, do not log anybody out."""

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        #: True when this was a write that may or may not have been carried out.
        self.outcome_unknown = outcome_unknown


class ConnectFailed(Unavailable):
    """No connection could be made to any of the addresses."""


class DeadlineExceeded(Unavailable):
    """The answer did not come within the client's deadline."""


class Failed(Unavailable):
    """The daemon answered that it could not carry out the call; nothing was changed."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        #: Why, as in the protocol: `quota`, `storage_full`, `storage_failed`, `integrity`, `stopping`.
        self.code = code


class AuthError(SessiondError):
    """The daemon refused the connection, or this call, for its credentials; nothing was changed."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        #: 401 for a token that is missing, wrong, expired or revoked, 403 for one that may not do this.
        self.status = status


class InvalidRequest(SessiondError, ValueError):
    """The call is wrong and would be refused again. Caught here or by the daemon; nothing was changed."""

    def __init__(self, message: str, *, code: str = "bad_call") -> None:
        super().__init__(message)
        #: Which argument, as in the protocol: `bad_key`, `bad_ttl`, `bad_data`, `too_large` and so on; or
        #: `too_many_sessions`, of the user whose the session was to be.
        self.code = code


class Missing(SessiondError):
    """The write needed a living session, and there is none: it expired, was destroyed or never was."""

    def __init__(self, message: str = "The session is not alive, so nothing was written; start a new one.") -> None:
        super().__init__(message)


class Exists(SessiondError):
    """A session already lives under the sid that was to be new."""

    def __init__(self, message: str = "A session lives under this sid; let the client mint a new one.") -> None:
        super().__init__(message)


class Conflict(SessiondError):
    """The session is at another version than the one named; nothing was written."""

    def __init__(self, current: Record) -> None:
        super().__init__()
        #: The session as it is now. Kept out of `args`, and so of what is logged by repr.
        self.current = current

    def __reduce__(self) -> tuple[type[Conflict], tuple[Record]]:
        return type(self), (self.current,)

    def __str__(self) -> str:
        return f"The session is at version {self.current.version} by now; apply the change to `current` and set that."
