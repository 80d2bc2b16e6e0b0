"""What can be asked: one value a verb, made only through the checks below, so that a call that exists is valid.

Durations are integer ms. The checks raise Refused with the codes of docs/protocol.md, the same for REST and stream.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from sessiond import codec
from sessiond.codec import Value
from sessiond.errors import Refused

Address = tuple[str, bytes]
"""Where a session is: its namespace and its key. The same key in two namespaces is two sessions."""

When = Literal["any", "alive"] | int
"""The condition of a set: whatever is there, only a living session, or only this version of it."""

WhenUserFull = Literal["evict-oldest", "reject"]
"""Whether a session too many of one user takes the place of the one that was renewed longest ago, or is refused."""

DAY = 24 * 3600 * 1000

KEY_BYTES = 32
OP_BYTES = 8
MAX_GRACE = 3_600_000  # an hour: grace is for requests in flight and for tabs, not for keeping two keys
MAX_USER_BYTES = 255
MAX_META_ENTRIES = 32
MAX_META_BYTES = 4096
MAX_PAGE = 1000
DEFAULT_PAGE = 100

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc; str.isprintable would also refuse U+200C, say


class Policy(Value, frozen=True):
    """What a namespace allows, and what it gives to those who do not ask. Sessions always expire.

    `max_sessions_per_user`, `max_sessions`, `max_bytes` None: no such limit. `max_bytes` is of the data, users and meta of
    all sessions together. `when_user_full`: what a session too many of one user does.
    """

    ttl: int = 14 * DAY
    max_ttl: int = 400 * DAY
    lifetime: int | None = None
    max_data: int = 64 * 1024
    max_sessions_per_user: int | None = None
    when_user_full: WhenUserFull = "evict-oldest"
    max_sessions: int | None = None
    max_bytes: int | None = None

    @property
    def limits(self) -> "Policy | None":
        """What a call carries to the engine: this policy, if it limits how many sessions there may be, else None."""
        if self.max_sessions_per_user is None and self.max_sessions is None and self.max_bytes is None:
            return None
        return self


class Create(Value, frozen=True):
    address: Address
    format: str
    data: bytes
    ttl: int
    lifetime: int | None
    user: str | None
    meta: Mapping[str, str] | None
    op: bytes | None
    limits: Policy | None = None


class Get(Value, frozen=True):
    """`renew`: None reads only; True renews with the session's own ttl; a number becomes its ttl."""

    address: Address
    renew: Literal[True] | int | None = None
    limits: ClassVar[None] = None


class Set(Value, frozen=True):
    """None keeps what the session has. `user` "" and `meta` {} take theirs away. new_*: for a session that this creates."""

    address: Address
    format: str
    data: bytes
    when: When
    ttl: int | None
    lifetime: int | None
    user: str | None
    meta: Mapping[str, str] | None
    op: bytes | None
    new_ttl: int
    new_lifetime: int | None
    limits: Policy | None = None


class Patch(Value, frozen=True):
    """`changes`: a map in `format` whose entries replace those of the same name, or None; `remove`: names to take out."""

    address: Address
    format: str
    changes: bytes | None
    remove: tuple[str, ...]
    ttl: int | None
    user: str | None
    meta: Mapping[str, str] | None
    op: bytes | None
    max_data: int
    limits: Policy | None = None


class Touch(Value, frozen=True):
    address: Address
    ttl: int | None = None
    limits: ClassVar[None] = None


class Rotate(Value, frozen=True):
    address: Address
    new_key: bytes
    grace: int
    op: bytes | None
    limits: ClassVar[None] = None


class Destroy(Value, frozen=True):
    address: Address
    limits: ClassVar[None] = None


class List(Value, frozen=True):
    """`cursor` is the key that the last page ended with."""

    namespace: str
    user: str | None
    cursor: bytes | None
    limit: int


class Count(Value, frozen=True):
    namespace: str
    user: str | None


class Watch(Value, frozen=True):
    """To be told of what ends, behind the event of id `after`; None: from now on. It asks the store, and no engine."""

    namespace: str
    after: str | None


class DestroyAll(Value, frozen=True):
    """`user` None: everyone in the namespace."""

    namespace: str
    user: str | None
    except_key: bytes | None


SessionCall = Create | Get | Set | Patch | Touch | Rotate | Destroy
"""`limits` of each: what it is measured against (limits.confine), which is nothing for one that adds nothing."""

Call = SessionCall | List | Count | DestroyAll

SURVEYS = (List, Count, DestroyAll)
"""The calls about many sessions: few, slow, and answered at length."""


def key_of(sid: str) -> bytes:
    """The key of a sid: all of it that the daemon ever keeps. A thief of keys cannot find the sids."""
    return hashlib.sha256(sid.encode("utf-8", "surrogatepass")).digest()


def handle_of(key: bytes) -> str:
    """How a key is written where people read it: ~ and base64url, as in paths, listings and the audit."""
    return "~" + base64.urlsafe_b64encode(key).rstrip(b"=").decode()


# Checks: each takes what came in and answers what the call holds, or raises Refused -----------------


def check_key(key: object) -> bytes:
    if type(key) is not bytes or len(key) != KEY_BYTES:
        raise Refused("bad_key", "A key is 32 bytes, the SHA-256 of a sid.")
    return key


def check_ttl(ttl: object, policy: Policy) -> int | None:
    if ttl is None:
        return None
    ms = _check_duration(ttl, "ttl")
    if ms > policy.max_ttl:
        raise Refused("bad_ttl", "The ttl is longer than this namespace allows.")
    return ms


def check_lifetime(lifetime: object, ttl: int | None) -> int | None:
    if lifetime is None:
        return None
    ms = _check_duration(lifetime, "lifetime")
    if ttl is not None and ttl > ms:
        raise Refused("bad_ttl", "The ttl is longer than the lifetime that was given with it.")
    return ms


def _check_duration(ms: object, name: str) -> int:
    if type(ms) is not int or ms <= 0:
        raise Refused("bad_ttl", f"A {name} is a positive number of milliseconds; to end a session, destroy it.")
    # The longest that a lifetime may be: 2^53 - 1 ms after the epoch is still exact in every JSON reader.
    if ms > 100_000 * DAY:
        raise Refused("bad_ttl", f"That {name} is longer than any session can live.")
    return ms


def check_renew(renew: object, policy: Policy) -> Literal[True] | int | None:
    if renew is True:
        return True
    if renew is False:
        raise Refused("bad_ttl", "renew is true or a ttl; leave it out to read only.")
    return check_ttl(renew, policy)


def check_when(when: object) -> When:
    if when is None:
        return "any"
    if type(when) is int and 1 <= when <= codec.MAX_EXACT:
        return when
    if type(when) is str and (when == "any" or when == "alive"):
        return "any" if when == "any" else "alive"
    raise Refused("bad_version", "The condition is any, alive, or a version: 1 or more.")


def check_user(user: object, *, empty: bool = False) -> str | None:
    """`empty`: "" is allowed, and takes the user away."""
    if user is None:
        return None
    if empty and user == "":
        return ""
    if type(user) is str and 0 < len(user) <= MAX_USER_BYTES and not _CONTROL.search(user):
        try:
            if len(user.encode("utf-8")) <= MAX_USER_BYTES:
                return user
        except UnicodeEncodeError:
            pass
    raise Refused("bad_user", "A user is 1 to 255 bytes of text without control characters.")


def check_meta(meta: object) -> Mapping[str, str] | None:
    if meta is None:
        return None
    if type(meta) is dict and len(meta) <= MAX_META_ENTRIES:
        try:
            size = sum(len(name.encode("utf-8")) + len(text.encode("utf-8")) for name, text in meta.items())
            if size <= MAX_META_BYTES:
                return meta
        except (AttributeError, UnicodeEncodeError):  # a name or a text that is no str, or half of a surrogate pair
            pass
    raise Refused("bad_meta", "meta is a map of at most 32 strings to strings, 4,096 bytes in all.")


def check_op(op: object) -> bytes | None:
    if op is None or (type(op) is bytes and len(op) == OP_BYTES):
        return op
    raise Refused("bad_op", "An op is 8 random bytes.")


def check_data(format: object, data: object, policy: Policy) -> tuple[str, bytes]:
    """The stream's depth of checking: one well-formed map with string keys, or bytes, within max_data."""
    if type(format) is not str or format not in codec.FORMATS:
        raise Refused("bad_data", "The format is json, msgpack or bytes.")
    if type(data) is not bytes:
        raise Refused("bad_data", "Data is sent as bytes.")
    check_size(len(data), policy)
    codec.check_map(format, data)
    return format, data


def check_size(size: int, policy: Policy) -> None:
    if size > policy.max_data:
        raise too_large(policy.max_data)


def too_large(limit: int) -> Refused:
    return Refused("too_large", f"A session's data may have {limit} bytes here.")


def check_remove(names: object) -> tuple[str, ...]:
    if names is None:
        return ()
    if type(names) is not list or any(type(name) is not str for name in names):
        raise Refused("bad_data", "The names to remove are an array of strings.")
    return tuple(names)


def check_grace(grace: object) -> int:
    if grace is None:
        return 0
    if type(grace) is not int or not 0 <= grace <= MAX_GRACE:
        raise Refused("bad_grace", "grace is 0 ms to an hour.")
    return grace


def check_new_key(new_key: object, key: bytes) -> bytes:
    if (checked := check_key(new_key)) == key:
        raise Refused("bad_key", "A session cannot move to the key that it has.")
    return checked


def check_cursor(cursor: object) -> bytes | None:
    if cursor is None or (type(cursor) is bytes and len(cursor) == KEY_BYTES):
        return cursor
    raise Refused("bad_cursor", "That is no cursor of this listing; start without one.")


def check_limit(limit: object) -> int:
    if limit is None:
        return DEFAULT_PAGE
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
        raise Refused("bad_limit", f"A page has 1 to {MAX_PAGE} entries.")
    return limit


# Calls whose policy fills in what was not given -----------------------------------------------------


def create(
    address: Address,
    format: str,
    data: bytes,
    policy: Policy,
    ttl: int | None = None,
    lifetime: int | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
) -> Create:
    lifetime = policy.lifetime if lifetime is None else lifetime
    ttl = policy.ttl if ttl is None else ttl
    return Create(address, format, data, ttl, lifetime, user or None, meta or None, op, policy.limits)


def set_(
    address: Address,
    format: str,
    data: bytes,
    policy: Policy,
    when: When = "any",
    ttl: int | None = None,
    lifetime: int | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
) -> Set:
    new_ttl = policy.ttl if ttl is None else ttl
    new_lifetime = policy.lifetime if lifetime is None else lifetime
    return Set(address, format, data, when, ttl, lifetime, user, meta, op, new_ttl, new_lifetime, policy.limits)


def patch(
    address: Address,
    policy: Policy,
    format: str,
    changes: bytes | None,
    remove: Sequence[str] = (),
    ttl: int | None = None,
    user: str | None = None,
    meta: Mapping[str, str] | None = None,
    op: bytes | None = None,
) -> Patch:
    return Patch(address, format, changes, tuple(remove), ttl, user, meta, op, policy.max_data, policy.limits)


def destroy_all(namespace: str, user: str | None, except_key: bytes | None, everyone: bool) -> DestroyAll:
    """A user or everyone, one of the two: so that a forgotten user destroys nothing."""
    if (user is None) is not everyone:
        raise Refused("bad_call", "Say whose sessions to destroy: one user's, or everyone's.")
    return DestroyAll(namespace, user, except_key)
