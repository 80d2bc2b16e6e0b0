"""What can go wrong in the daemon. Plain values only; this file imports nothing.

    SessiondError
    ├── Refused      the call is wrong: the caller's fault, repeated it is refused again
    ├── SettingError the settings are wrong: the operator's fault, told at start
    ├── StartError   the daemon cannot start: a taken port, a locked or foreign file
    ├── TokenError   tokens are not as asked for, or their file cannot be used: the operator's fault
    └── Damaged      a stored row is not what was written, or cannot be read

A missing session, a conflict or an existing key is an answer (`record.Answer`), never an error.
"""


class SessiondError(Exception):
    """Base of all errors of the daemon; its text is one sentence for people."""


class Refused(SessiondError):
    """A call that breaks a rule of the protocol. `code` is stable; the text never repeats input."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class SettingError(SessiondError):
    """A setting that cannot be used. The text names it, where it came from and what would be right."""


class StartError(SessiondError):
    """The daemon cannot start. The text says why and what to do."""


class TokenError(SessiondError):
    """Access tokens that cannot be made, found or read. The text says why and what to do; it holds no secret."""


class Damaged(SessiondError):
    """A stored row that cannot be had. `code`: `integrity`, its seal does not fit, which is bit rot, a swapped row, or
    somebody else's writing; or `storage_failed`, it could not be read this time."""

    def __init__(self, text: str, code: str = "integrity") -> None:
        super().__init__(text)
        self.code = code
