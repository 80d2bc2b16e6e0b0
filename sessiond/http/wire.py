"""The stream's messages: bytes to calls, answers to bytes. docs/protocol.md part 2, and no more than that.

The hot path of the daemon runs through `read_message` and `answer_fields`: one pass each.
"""

from collections.abc import Callable
from typing import Any

from sessiond import calls, codec
from sessiond.calls import (
    Call,
    Count,
    Create,
    Destroy,
    DestroyAll,
    Get,
    List,
    Patch,
    Policy,
    Rotate,
    Set,
    Touch,
    Watch,
    check_cursor,
    check_data,
    check_grace,
    check_key,
    check_lifetime,
    check_limit,
    check_meta,
    check_new_key,
    check_op,
    check_remove,
    check_renew,
    check_ttl,
    check_user,
    check_when,
)
from sessiond.engine import Entry
from sessiond.errors import Refused
from sessiond.events import Event
from sessiond.http.frames import CLOSE_TOO_LARGE
from sessiond.record import Answer

PROTOCOL = "sessiond.1"
MAX_MESSAGE = 16 * 1024 * 1024
MAX_CALLS = 10_000
MAX_SEQ = 2**53 - 1

STOPPING: list[Any] = [0, "stopping"]

CLOSE_STOPPING = 1001
CLOSE_NOT_BINARY = 1003
CLOSE_MALFORMED = 1007
CLOSE_UNAUTHORIZED = 4401  # the private range of RFC 6455 §7.4.2; 401 in HTTP says the same


class Malformed(Exception):
    """A message that is no array of calls: nothing of it is carried out, and the connection is closed with `code`."""

    def __init__(self, code: int = CLOSE_MALFORMED) -> None:
        super().__init__(code)
        self.code = code


def read_message(data: bytes | bytearray, namespace: str, policy: Policy) -> list[tuple[int, Call | Watch | Refused]]:
    """The calls of a message with their seq, each valid, or the reason why it is refused. Raises Malformed."""
    try:
        message = codec.unpack(data)
    except ValueError as e:
        raise Malformed from e
    if type(message) is not list:
        raise Malformed
    if len(message) > MAX_CALLS:
        # Everybody else waits while a message is carried out: 10,000 cached gets take some 40 ms.
        raise Malformed(CLOSE_TOO_LARGE)
    read: list[tuple[int, Call | Watch | Refused]] = []
    for fields in message:
        if type(fields) is not list or len(fields) < 2:
            raise Malformed
        seq, verb, *arguments = fields
        if type(seq) is not int or not 1 <= seq <= MAX_SEQ:
            raise Malformed
        try:
            known = _READERS.get(verb) if type(verb) is str else None
            if known is None:
                raise Refused("bad_call", "There is no such verb.")
            reader, least, most = known
            if not least <= len(arguments) <= most:
                raise Refused("bad_call", f"{verb} takes {least} to {most} arguments.")
            read.append((seq, reader(namespace, policy, *arguments)))
        except Refused as refusal:
            read.append((seq, refusal))
    return read


def _create(
    namespace: str,
    policy: Policy,
    key: Any,
    format: Any,
    data: Any,
    ttl: Any = None,
    lifetime: Any = None,
    user: Any = None,
    meta: Any = None,
    op: Any = None,
) -> Create:
    address = (namespace, check_key(key))
    format, data = check_data(format, data, policy)
    ttl = check_ttl(ttl, policy)
    lifetime = check_lifetime(lifetime, ttl)
    user, meta, op = check_user(user, empty=True), check_meta(meta), check_op(op)
    return calls.create(address, format, data, policy, ttl, lifetime, user, meta, op)


def _get(namespace: str, policy: Policy, key: Any, renew: Any = None) -> Get:
    return Get((namespace, check_key(key)), None if renew is None else check_renew(renew, policy))


def _set(
    namespace: str,
    policy: Policy,
    key: Any,
    format: Any,
    data: Any,
    ttl: Any = None,
    when: Any = None,
    lifetime: Any = None,
    user: Any = None,
    meta: Any = None,
    op: Any = None,
) -> Set:
    address = (namespace, check_key(key))
    format, data = check_data(format, data, policy)
    ttl = check_ttl(ttl, policy)
    lifetime = check_lifetime(lifetime, ttl)
    user, meta, op = check_user(user, empty=True), check_meta(meta), check_op(op)
    return calls.set_(address, format, data, policy, check_when(when), ttl, lifetime, user, meta, op)


def _patch(
    namespace: str,
    policy: Policy,
    key: Any,
    format: Any,
    changes: Any = None,
    remove: Any = None,
    ttl: Any = None,
    user: Any = None,
    meta: Any = None,
    op: Any = None,
) -> Patch:
    address = (namespace, check_key(key))
    if format not in (codec.JSON, codec.MSGPACK):
        raise Refused("bad_data", "A patch is a map in json or msgpack.")
    if changes is not None:
        format, changes = check_data(format, changes, policy)
    ttl, remove = check_ttl(ttl, policy), check_remove(remove)
    user, meta, op = check_user(user, empty=True), check_meta(meta), check_op(op)
    return calls.patch(address, policy, format, changes, remove, ttl, user, meta, op)


def _touch(namespace: str, policy: Policy, key: Any, ttl: Any = None) -> Touch:
    return Touch((namespace, check_key(key)), check_ttl(ttl, policy))


def _rotate(namespace: str, policy: Policy, key: Any, new_key: Any, grace: Any = None, op: Any = None) -> Rotate:
    key = check_key(key)
    return Rotate((namespace, key), check_new_key(new_key, key), check_grace(grace), check_op(op))


def _destroy(namespace: str, policy: Policy, key: Any) -> Destroy:
    return Destroy((namespace, check_key(key)))


def _list(namespace: str, policy: Policy, user: Any = None, cursor: Any = None, limit: Any = None) -> List:
    return List(namespace, check_user(user), check_cursor(cursor), check_limit(limit))


def _count(namespace: str, policy: Policy, user: Any = None) -> Count:
    return Count(namespace, check_user(user))


def _destroy_all(
    namespace: str, policy: Policy, user: Any = None, except_key: Any = None, everyone: Any = None
) -> DestroyAll:
    if everyone is not None and type(everyone) is not bool:
        raise Refused("bad_call", "everyone is true or false.")
    spared = None if except_key is None else check_key(except_key)
    return calls.destroy_all(namespace, check_user(user), spared, everyone is True)


def _watch(namespace: str, policy: Policy, after: Any = None) -> Watch:
    if after is not None and type(after) is not str:
        raise Refused("bad_cursor", "after is the id of an event.")
    return Watch(namespace, after)


# Verb: its reader, and how many arguments it takes at least and at most.
_READERS: dict[str, tuple[Callable[..., Call | Watch], int, int]] = {
    "create": (_create, 3, 8),
    "get": (_get, 1, 2),
    "set": (_set, 3, 9),
    "patch": (_patch, 2, 8),
    "touch": (_touch, 1, 2),
    "rotate": (_rotate, 2, 4),
    "destroy": (_destroy, 1, 1),
    "list": (_list, 0, 3),
    "count": (_count, 0, 1),
    "destroy_all": (_destroy_all, 0, 3),
    "watch": (_watch, 0, 1),
}


def answer_fields(seq: int, call: Call, answer: Answer) -> list[Any]:
    """One answer as the array that goes into a message."""
    status, record = answer.status, answer.record
    if record is not None:
        if status == "conflict" or type(call) is Get:
            return [
                seq,
                status,
                record.version,
                record.expires_at,
                record.ttl,
                record.format,
                record.data,
                record.created_at,
                record.deadline,
                record.user,
                record.meta,
            ]
        return [seq, status, record.version, record.expires_at, record.ttl]
    if status in ("refused", "failed"):
        return [seq, status, *_pair(answer.value)]
    if answer.value is None:
        return [seq, status]
    if type(call) is List:
        entries, cursor = _pair(answer.value)
        return [seq, status, [_entry(entry) for entry in entries], cursor]
    return [seq, status, answer.value]


def watching_fields(seq: int, after: str) -> list[Any]:
    """The answer to a watch: the id behind which its events begin."""
    return [seq, "ok", after]


def event_fields(event: Event) -> list[Any]:
    """An event as a push."""
    return [0, "ended", event.id, event.kind, event.key, event.user, event.at, event.new_key, event.reason]


def refusal_fields(seq: int, refusal: Refused) -> list[Any]:
    return [seq, "refused", refusal.code, refusal.text]


def _entry(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.key,
        entry.user,
        entry.meta,
        entry.created_at,
        entry.renewed_at,
        entry.expires_at,
        entry.version,
        entry.size,
    )


def _pair(value: object) -> tuple[Any, Any]:
    assert isinstance(value, tuple)
    return value
