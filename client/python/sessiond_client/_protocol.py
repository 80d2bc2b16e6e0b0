"""Verbs and messages: what a caller asks becomes a `Call`, what the daemon answers becomes a value or an error.

Rule 1: the names of the wire (verbs, statuses, codes, the order of arguments) stand here and nowhere else.
Rule 2: no I/O and no clock. Arguments are checked, and seconds become milliseconds, before anything is sent.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Generic, TypeVar

from . import _codec
from ._frames import MAX_MESSAGE, ProtocolError
from ._types import Data, Entry, Event, Listing, Record, Seconds, Sid, When
from .cookies import key_of
from .errors import AuthError, Conflict, Exists, Failed, InvalidRequest, Missing, SessiondError, Unavailable

T = TypeVar("T")
Answer = list[Any]

DEFAULT_LIMIT = 100
MAX_CALLS = 10_000  # in one message
_READS = frozenset({"get", "list", "count", "watch"})
_ABSENCE_IS_NONE = frozenset({"get", "touch"})
_INT, _OPTIONAL_INT, _OPTIONAL_STR, _OPTIONAL_MAP = int, (int, type(None)), (str, type(None)), (dict, type(None))
_ENTRY = (bytes, _OPTIONAL_STR, _OPTIONAL_MAP, _INT, _INT, _INT, _INT, _INT)
_EVENT = (str, str, (bytes, type(None)), _OPTIONAL_STR, _OPTIONAL_INT, (bytes, type(None)), _OPTIONAL_STR)
_LISTING = (list, (bytes, type(None)))
_WRITTEN = (_INT, _INT, _INT)


class Call(Generic[T]):
    """One call: what goes on the wire but for its seq, how to read the answer, and what may be done when it is lost."""

    __slots__ = ("arguments", "may_repeat", "read")

    def __init__(self, *arguments: Any, read: Callable[[Answer], T], may_repeat: bool = True) -> None:
        if arguments[-1] is None:
            last = len(arguments)
            while arguments[last - 1] is None:
                last -= 1
            arguments = arguments[:last]
        self.arguments = arguments
        self.read = read
        #: Whether it may be sent again although it may have been carried out ("Repeats" in the protocol).
        self.may_repeat = may_repeat

    @property
    def writes(self) -> bool:
        return self.arguments[0] not in _READS

    def result(self, answer: Answer, in_doubt: bool) -> T:
        """The value that the answer means, or its error.

        `in_doubt` says that the call had been sent before and its answer was lost. The daemon recognises a repeat only
        while the write is the session's last change, so a refusal may then be due to the call's own first arrival.
        """
        verb, status = self.arguments[0], answer[1]
        if status == "ok":
            return self.read(answer)
        if in_doubt and (status in ("conflict", "exists") or (status == "missing" and verb == "rotate")):
            raise Unavailable(
                "The answer to this write was lost, and by the time it was repeated the session had changed: "
                "whether the write was carried out is not known. Read the session again.",
                outcome_unknown=True,
            )
        if status == "missing" and verb in _ABSENCE_IS_NONE:
            return None  # type: ignore[return-value]
        raise _error(answer)


def is_stopping(answer: Answer) -> bool:
    """Whether the daemon began no work on the call because it stops: the call belongs on another connection."""
    return answer[1] == "failed" and answer[2:3] == ["stopping"]


def is_push(answer: Answer) -> bool:
    """Whether it answers no call, but tells something without being asked."""
    return bool(answer[0] == 0)


def tells_stopping(push: Answer) -> bool:
    """Whether the daemon is about to stop; every other push is of a later version, and ignored."""
    return bool(push[1] == "stopping")


def event_of(push: Answer) -> Event | None:
    """The event that a push tells; None for any other push."""
    return Event(*_fields(push[2:], _EVENT)) if push[1] == "ended" else None


def pack_call(seq: int, call: Call[Any]) -> bytes:
    """The call as an element of a message. Raises InvalidRequest when no message could hold it."""
    packed = _codec.pack((seq, *call.arguments))
    if len(packed) > MAX_MESSAGE - 5:
        raise InvalidRequest("The call is too large for one message; send less.", code="too_large")
    return packed


def join_calls(packed: list[bytes]) -> bytes:
    """One message of these calls."""
    count = len(packed)
    if count < 16:
        head = bytes((0x90 | count,))
    else:
        head = b"\xdd" + count.to_bytes(4, "big") if count > 0xFFFF else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(packed)


def unpack_answers(message: bytes) -> list[Answer]:
    """The answers and pushes of one message, each `[seq, status or event, …]`. Raises ProtocolError."""
    try:
        answers = _codec.unpack(message)
    except (ValueError, TypeError):
        raise ProtocolError("its message is not MessagePack") from None
    if type(answers) is not list:
        raise ProtocolError("its message is no array of answers")
    for answer in answers:
        if type(answer) is not list or len(answer) < 2 or type(answer[0]) is not int or type(answer[1]) is not str:
            raise ProtocolError("its message holds what is no answer")
    return answers


# -- The verbs. Each takes what the clients' methods of that name take. --


def create(
    sid: Sid,
    data: Data,
    *,
    format: str,
    ttl: Seconds | None = None,
    lifetime: Seconds | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
) -> Call[int]:
    arguments = (*_codec.encode(data, format), milliseconds(ttl), _lifetime(lifetime), _user(user), _meta(meta))
    return Call("create", as_key(sid), *arguments, op or _new_op(), read=_read_number)


def get(sid: Sid, *, renew: bool | Seconds = False) -> Call[Record | None]:
    if renew is False:
        return Call("get", as_key(sid), read=_read_record)
    if renew is True:
        return Call("get", as_key(sid), True, read=_read_record)
    ttl = milliseconds(renew)
    if ttl is None or ttl <= 0:
        raise InvalidRequest("renew is True, False or a ttl above 0; to end a session, destroy it.", code="bad_ttl")
    return Call("get", as_key(sid), ttl, read=_read_record)


def set_(
    sid: Sid,
    data: Data,
    *,
    format: str,
    ttl: Seconds | None = None,
    when: When = "any",
    lifetime: Seconds | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
) -> Call[int]:
    wait = milliseconds(ttl)
    if wait is not None and wait <= 0:
        return Call("destroy", as_key(sid), read=_read_zero)
    if type(when) is not int and when not in ("any", "alive"):
        raise InvalidRequest('when is "any", "alive" or the version that must be the current one.', code="bad_version")
    if type(when) is int and not 0 < when < 2**63:
        raise InvalidRequest("Versions start at 1.", code="bad_version")
    arguments = (*_codec.encode(data, format), wait, when, _lifetime(lifetime), _user(user), _meta(meta))
    # Between a lost answer and the repeat somebody else may have logged in or out; only a version would notice.
    return Call("set", as_key(sid), *arguments, op or _new_op(), read=_read_number, may_repeat=type(when) is int)


def replace(sid: Sid, record: Record, data: Data, *, format: str, ttl: Seconds | None = None) -> Call[Record]:
    """`set` while `record` is the current one, in its own format where it has one; the record that this makes."""
    if is_over(ttl):
        raise InvalidRequest("A ttl is above 0; to end a session, destroy it.", code="bad_ttl")
    format = format if record.format == "bytes" else record.format
    written = set_(sid, data, format=format, ttl=ttl, when=record.version)

    def read(answer: Answer) -> Record:
        version, expires_at, ttl = _fields(answer[2:], _WRITTEN)
        return dataclasses.replace(
            record, data=data, format=written.arguments[2], version=version, expires_at=expires_at, ttl=ttl / 1000
        )

    return Call(*written.arguments, read=read)


def patch(
    sid: Sid,
    set: Mapping[str, Any] | None = None,
    remove: Iterable[str] = (),
    *,
    format: str,
    ttl: Seconds | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
) -> Call[int]:
    if is_over(ttl):
        return Call("destroy", as_key(sid), read=_read_zero)
    entries = _codec.encode_map(dict(set), format) if set else None
    names = [*remove]
    if isinstance(remove, str) or not all(type(name) is str and _is_text(name) for name in names):
        raise InvalidRequest("remove lists the names of entries, which are strings.", code="bad_data")
    arguments = (entries, names or None, milliseconds(ttl), _user(user), _meta(meta))
    return Call("patch", as_key(sid), format, *arguments, op or _new_op(), read=_read_number)


def touch(sid: Sid, *, ttl: Seconds | None = None) -> Call[int | None]:
    if is_over(ttl):
        return Call("destroy", as_key(sid), read=_read_nothing)
    return Call("touch", as_key(sid), milliseconds(ttl), read=_read_expires_at)


def rotate(sid: Sid, new_sid: Sid, *, grace: Seconds = 0, op: bytes | None = None) -> Call[None]:
    wait = milliseconds(grace)
    if wait is None or not 0 <= wait <= 3_600_000:
        raise InvalidRequest("grace is 0 to 3600 seconds.", code="bad_grace")
    return Call("rotate", as_key(sid), as_key(new_sid), wait or None, op or _new_op(), read=_read_nothing)


def destroy(sid: Sid) -> Call[None]:
    return Call("destroy", as_key(sid), read=_read_nothing)


def list_(
    *, user: str | None = None, everyone: bool = False, cursor: bytes | None = None, limit: int = DEFAULT_LIMIT
) -> Call[Listing]:
    _check_whose("list", user, everyone)
    if type(limit) is not int or not 1 <= limit <= 1000:
        raise InvalidRequest("limit is an int from 1 to 1000.", code="bad_limit")
    if cursor is not None and type(cursor) is not bytes:
        raise InvalidRequest("cursor is the one that the last page gave, or None.", code="bad_cursor")
    return Call("list", _somebody(user), cursor, None if limit == DEFAULT_LIMIT else limit, read=_read_listing)


def count(*, user: str | None = None) -> Call[int]:
    return Call("count", _somebody(user), read=_read_number)


def destroy_all(*, user: str | None = None, except_sid: Sid | None = None, everyone: bool = False) -> Call[int]:
    _check_whose("destroy_all", user, everyone)
    but = None if except_sid is None else as_key(except_sid)
    return Call("destroy_all", _somebody(user), but, everyone or None, read=_read_number, may_repeat=False)


def watch(*, after: str | None = None) -> Call[str]:
    if after is not None and (type(after) is not str or not _is_text(after)):
        raise InvalidRequest("after is the id of an event, or None.", code="bad_cursor")
    return Call("watch", after, read=_read_id)


# -- Arguments --


def _check_whose(verb: str, user: str | None, everyone: bool) -> None:
    """A user who is None, because nobody is logged in, must not turn out to be everybody."""
    if type(everyone) is not bool or everyone is (user is not None):
        raise InvalidRequest(f"{verb} takes either a user or everyone=True.")


def as_key(sid: Sid) -> bytes:
    """The key that a sid stands for; a key stands for itself."""
    if type(sid) is bytes and len(sid) == 32:
        return sid
    if not isinstance(sid, str) or not sid:
        raise InvalidRequest("A sid is a string that is not empty, or a key of 32 bytes.", code="bad_key")
    return key_of(sid)


def milliseconds(duration: Seconds | None) -> int | None:
    """Seconds as the wire counts them. What is above 0 stays above 0, so that rounding never ends a session."""
    if duration is None:
        return None
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    # The comparison is false for NaN. The bound is that of the wire's 64-bit integers.
    if type(seconds) not in (int, float) or not abs(seconds) < 2**63 / 1000:
        raise InvalidRequest("A duration is a finite number of seconds or a timedelta.", code="bad_ttl")
    return max(round(seconds * 1000), 1) if seconds > 0 else round(seconds * 1000)


def is_over(ttl: Seconds | None) -> bool:
    """Whether this ttl leaves no time to live, which the clients turn into destroy."""
    wait = milliseconds(ttl)
    return wait is not None and wait <= 0


def _lifetime(lifetime: Seconds | None) -> int | None:
    wait = milliseconds(lifetime)
    if wait is not None and wait <= 0:
        raise InvalidRequest("A lifetime is above 0.", code="bad_ttl")
    return wait


def _user(user: str | None) -> str | None:
    if user is not None and (type(user) is not str or not _is_text(user)):
        raise InvalidRequest("A user is a string.", code="bad_user")
    return user


def _somebody(user: str | None) -> str | None:
    if user == "":
        raise InvalidRequest("The empty string names no user.", code="bad_user")
    return _user(user)


def _meta(meta: Mapping[str, str] | None) -> dict[str, str] | None:
    if meta is None:
        return None
    if not isinstance(meta, Mapping) or not all(
        type(each) is str and _is_text(each) for pair in meta.items() for each in pair
    ):
        raise InvalidRequest("meta maps strings to strings.", code="bad_meta")
    return dict(meta)


def _is_text(text: str) -> bool:
    """Whether it has UTF-8. A lone surrogate would break the message, and with it the calls of others."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _new_op() -> bytes:
    return os.urandom(8)


# -- Answers --


def _fields(values: Any, shape: tuple[Any, ...]) -> Answer:
    if type(values) is not list or len(values) < len(shape) or not all(map(isinstance, values, shape)):
        raise _unreadable()
    fields: Answer = values[: len(shape)]
    return fields


def _unreadable() -> Unavailable:
    return Unavailable("The daemon's answer cannot be read: update this client or the daemon, whichever is older.")


def _read_record(answer: Answer) -> Record:
    # Written out: 0.9 µs, where `_fields` takes 1.8 (measured).
    if len(answer) < 11:
        raise _unreadable()
    _, _, version, expires_at, ttl, format, data, created_at, deadline, user, meta = answer[:11]
    if not (
        type(version) is type(expires_at) is type(ttl) is type(created_at) is int
        and type(format) is str
        and type(data) is bytes
        and (deadline is None or type(deadline) is int)
        and (user is None or type(user) is str)
        and (meta is None or type(meta) is dict)
    ):
        raise _unreadable()
    return Record(
        _codec.decode(format, data), format, version, ttl / 1000, created_at, expires_at, deadline, user, meta
    )


def _read_number(answer: Answer) -> int:
    """The first number of the answer: a count, or the version that a write made."""
    number: int = _fields(answer[2:], (_INT,))[0]
    return number


def _read_expires_at(answer: Answer) -> int:
    expires_at: int = _fields(answer[2:], _WRITTEN)[1]
    return expires_at


def _read_listing(answer: Answer) -> Listing:
    entries, cursor = _fields(answer[2:], _LISTING)
    return Listing([Entry(*_fields(entry, _ENTRY)) for entry in entries], cursor)


def _read_id(answer: Answer) -> str:
    after: str = _fields(answer[2:], (str,))[0]
    return after


def _read_nothing(answer: Answer) -> None:
    return None


def _read_zero(answer: Answer) -> int:
    return 0


def _error(answer: Answer) -> SessiondError:
    status = answer[1]
    if status == "missing":
        return Missing()
    if status == "exists":
        return Exists()
    if status == "conflict":
        return Conflict(_read_record(answer))
    code, sentence = [*(str(each) for each in answer[2:4]), "", ""][:2]
    if status == "refused" and code == "forbidden":
        return AuthError(sentence, status=403)
    if status == "refused":
        return InvalidRequest(sentence, code=code)
    return Failed(sentence or f"The daemon answered {status!r}, which this client does not know.", code=code or status)
