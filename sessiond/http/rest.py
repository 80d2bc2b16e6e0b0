"""REST: each route takes a request apart, asks the store, and dresses the answer. docs/protocol.md part 3.

Seconds become milliseconds here and nowhere else.
"""

import asyncio
import base64
import re
import secrets
from collections.abc import Mapping, Set
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from aiohttp import hdrs, web

from sessiond import calls, codec
from sessiond.calls import (
    KEY_BYTES,
    Address,
    Call,
    Count,
    Destroy,
    Get,
    List,
    Policy,
    Rotate,
    Touch,
    When,
    check_cursor,
    check_grace,
    check_lifetime,
    check_limit,
    check_meta,
    check_ttl,
    check_user,
    handle_of,
    key_of,
)
from sessiond.engine import Entry
from sessiond.errors import Refused
from sessiond.http.auth import GRANT, actor_of, require
from sessiond.http.problem import of_answer
from sessiond.record import Answer, Record
from sessiond.store import Store

MEDIA_TYPES = {
    codec.JSON: "application/json",
    codec.MSGPACK: "application/msgpack",
    codec.BYTES: "application/octet-stream",
}
_FORMATS = {
    "application/json": codec.JSON,
    "application/msgpack": codec.MSGPACK,
    "application/x-msgpack": codec.MSGPACK,
    "application/vnd.msgpack": codec.MSGPACK,
    "application/octet-stream": codec.BYTES,
}
_PATCH_FORMATS = {
    "application/merge-patch+json": codec.JSON,
    **{media: format for media, format in _FORMATS.items() if format != codec.BYTES},
}

TTL, EXPIRES_AT, CREATED_AT, DEADLINE, USER, META = (
    f"Session-{name}" for name in ("TTL", "Expires-At", "Created-At", "Deadline", "User", "Meta")
)

_SECONDS = re.compile(r"(\d{1,12})(?:\.(\d{1,3}))?")
_ETAG = re.compile(r'"([1-9]\d{0,15})"')
_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


class Rest:
    """`patience`: seconds in which a whole body must have come; max_data is far less than a network carries in that time."""

    def __init__(self, store: Store, patience: float) -> None:
        self._store = store
        self._patience = patience

    def routes(self) -> list[web.RouteDef]:
        one = "/v1/sessions/{session:(?!count(?:/|$))[^/]+}"  # a sid that is `count` has only its ~key
        table = [
            (hdrs.METH_POST, "/v1/sessions", self.create),
            (hdrs.METH_GET, "/v1/sessions", self.list),
            (hdrs.METH_DELETE, "/v1/sessions", self.destroy_all),
            (hdrs.METH_GET, "/v1/sessions/count", self.count),
            (hdrs.METH_GET, one, self.get),
            (hdrs.METH_PUT, one, self.set),
            (hdrs.METH_PATCH, one, self.patch),
            (hdrs.METH_DELETE, one, self.destroy),
            (hdrs.METH_POST, one + "/touch", self.touch),
            (hdrs.METH_POST, one + "/rotate", self.rotate),
        ]
        return [web.route(*row) for row in table]

    async def create(self, request: web.Request) -> web.Response:
        namespace, policy = self._namespace(request, "create")
        query = _query(request, {"ttl", "lifetime"})
        ttl, lifetime = _ttl_and_lifetime(query, policy)
        user, meta = _owner(request)
        format, data = await self._body(request, policy, _FORMATS)
        sid = secrets.token_urlsafe(32)
        address = (namespace, key_of(sid))
        answer, record = await self._ask(
            request, calls.create(address, format, data, policy, ttl, lifetime, user, meta)
        )
        if record is None:
            return of_answer(answer)
        body = {"sid": sid, "version": record.version, "expires_at": record.expires_at}
        return _json(body, 201, {**_state(record), "Location": f"/v1/sessions/{handle_of(address[1])}"})

    async def get(self, request: web.Request) -> web.Response:
        address, policy = self._session(request, "get with renew" if "renew" in request.query else "get")
        query = _query(request, {"renew"}, {hdrs.IF_NONE_MATCH})
        renew = query.get("renew")
        ms = check_ttl(_ms(renew), policy) if renew not in (None, "true") else None
        answer, record = await self._ask(request, Get(address, True if renew == "true" else ms))
        if record is None:
            return of_answer(answer)
        headers = {**_state(record), CREATED_AT: str(record.created_at)}
        if record.deadline is not None:
            headers[DEADLINE] = str(record.deadline)
        if record.user is not None:
            headers[USER] = quote(record.user)
        if record.meta is not None:
            headers[META] = quote(codec.to_json(record.meta).rstrip(), safe=' !"$&()*+,/:;=?@[]^`{|}')
        known = request.headers.get(hdrs.IF_NONE_MATCH)
        if known is not None and _knows(known, headers[hdrs.ETAG]):
            return web.Response(status=304, headers=headers)
        format, data = _acceptable(request.headers.getall(hdrs.ACCEPT, ()), record)
        return web.Response(body=data, content_type=MEDIA_TYPES[format], headers=headers)

    async def set(self, request: web.Request) -> web.Response:
        address, policy = self._session(request, "set")
        query = _query(request, {"ttl", "lifetime"}, {hdrs.IF_MATCH, hdrs.IF_NONE_MATCH})
        when = _condition(request)
        ttl, lifetime = _ttl_and_lifetime(query, policy)
        user, meta = _owner(request)
        format, data = await self._body(request, policy, _FORMATS)
        call: Call
        if when is None:
            call = calls.create(address, format, data, policy, ttl, lifetime, user, meta)
        else:
            call = calls.set_(address, format, data, policy, when, ttl, lifetime, user, meta)
        answer, record = await self._ask(request, call)
        if record is None:
            return of_answer(answer)
        return web.Response(status=201 if record.version == 1 else 204, headers=_state(record))

    async def patch(self, request: web.Request) -> web.Response:
        address, policy = self._session(request, "patch")
        query = _query(request, {"ttl"})
        ttl = check_ttl(_ms(query.get("ttl")), policy)
        user, meta = _owner(request)
        format, data = await self._body(request, policy, _PATCH_FORMATS)
        changes, remove = codec.null_entries(format, data)
        answer, record = await self._ask(
            request, calls.patch(address, policy, format, changes, remove, ttl, user, meta)
        )
        return of_answer(answer) if record is None else web.Response(status=204, headers=_state(record))

    async def touch(self, request: web.Request) -> web.Response:
        address, policy = self._session(request, "touch")
        query = _query(request, {"ttl"})
        answer, record = await self._ask(request, Touch(address, check_ttl(_ms(query.get("ttl")), policy)))
        return of_answer(answer) if record is None else web.Response(status=204, headers=_state(record))

    async def rotate(self, request: web.Request) -> web.Response:
        address, _ = self._session(request, "rotate")
        query = _query(request, {"grace"})
        grace = check_grace(_ms(query.get("grace"), "bad_grace"))
        sid = secrets.token_urlsafe(32)
        answer, record = await self._ask(request, Rotate(address, key_of(sid), grace, None))
        return of_answer(answer) if record is None else _json({"sid": sid}, 200, _state(record))

    async def destroy(self, request: web.Request) -> web.Response:
        address, _ = self._session(request, "destroy")
        _query(request, set())
        answer, _ = await self._ask(request, Destroy(address))
        return web.Response(status=204) if answer.status == "ok" else of_answer(answer)

    async def list(self, request: web.Request) -> web.Response:
        namespace, _ = self._namespace(request, "list")
        query = _query(request, {"user", "cursor", "limit"})
        limit = check_limit(_whole(query.get("limit")))
        cursor = check_cursor(_from_base64(query["cursor"]) if "cursor" in query else None)
        answer, _ = await self._ask(request, List(namespace, check_user(query.get("user")), cursor, limit))
        if answer.status != "ok" or not isinstance(answer.value, tuple):
            return of_answer(answer)
        entries, following = answer.value
        body = {
            "sessions": [_entry(entry) for entry in entries],
            "cursor": None if following is None else _base64(following),
        }
        return _json(body)

    async def count(self, request: web.Request) -> web.Response:
        namespace, _ = self._namespace(request, "count")
        query = _query(request, {"user"})
        answer, _ = await self._ask(request, Count(namespace, check_user(query.get("user"))))
        return of_answer(answer) if answer.status != "ok" else _json({"count": answer.value})

    async def destroy_all(self, request: web.Request) -> web.Response:
        namespace, _ = self._namespace(request, "destroy_all of everyone" if "all" in request.query else "destroy_all")
        query = _query(request, {"user", "except", "all"})
        if query.get("all", "true") != "true":
            raise Refused("bad_query", "all is true, or is left out.")
        spared = _key(query["except"]) if "except" in query else None
        call = calls.destroy_all(namespace, check_user(query.get("user")), spared, "all" in query)
        answer, _ = await self._ask(request, call)
        return of_answer(answer) if answer.status != "ok" else _json({"destroyed": answer.value})

    async def _ask(self, request: web.Request, call: Call) -> tuple[Answer, Record | None]:
        """The answer, and the session if it was ok."""
        answer = await self._store.execute(call, actor_of(request))
        return answer, answer.record if answer.status == "ok" else None

    def _namespace(self, request: web.Request, action: str) -> tuple[str, Policy]:
        """Where the request may take this action, and by which policy; Refused if it may not."""
        grant = request[GRANT]
        require(grant, action)
        return grant.namespace, self._store.policy(grant.namespace)

    def _session(self, request: web.Request, action: str) -> tuple[Address, Policy]:
        namespace, policy = self._namespace(request, action)
        return (namespace, _key(request.match_info["session"])), policy

    async def _body(self, request: web.Request, policy: Policy, formats: Mapping[str, str]) -> tuple[str, bytes]:
        """The body and its format, checked in depth."""
        # Not request.content_type: aiohttp takes a type that it cannot read for opaque bytes.
        media = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
        format = formats.get(media)
        if format is None or (request.charset or "utf-8").lower() != "utf-8":
            raise Refused("media_type", f"Send one of {', '.join(sorted(formats))}, in UTF-8.")
        data = await read_body(request, policy, self._patience)
        codec.check_strict(format, data)
        return format, data


# Requests ------------------------------------------------------------------------------------------


def _key(session: str) -> bytes:
    """The key that a path or a query names: of a sid, or after ~ as itself."""
    if not session.startswith("~"):
        if not session:
            raise Refused("bad_key", "The id is empty.")
        return key_of(session)
    if len(key := _from_base64(session[1:])) != KEY_BYTES:
        raise Refused("bad_key", "After ~ stands a key: 43 characters of base64url.")
    return key


def _base64(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def _from_base64(text: str) -> bytes:
    """A key from its one spelling in base64url; no bytes at all from anything else."""
    try:
        key = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except ValueError:
        return b""
    return key if _base64(key) == text else b""


def _query(request: web.Request, known: Set[str], conditions: Set[str] = frozenset()) -> dict[str, str]:
    """The query. What would be ignored is refused, for whoever sends it relies on it: a parameter that is unknown or
    stands twice, and a condition other than those that this request can have."""
    for name in (hdrs.IF_MATCH, hdrs.IF_NONE_MATCH):
        if name in request.headers and name not in conditions:
            raise Refused("bad_version", f"This request cannot be made conditional by {name}.")
    if not request.query_string:
        return {}
    query = dict(request.query)
    if len(query) != len(request.query) or not query.keys() <= known:
        names = ", ".join(sorted(known)) or "nothing"
        raise Refused("bad_query", f"The query of this request may hold, once each: {names}.")
    return query


def _ms(seconds: str | None, code: str = "bad_ttl") -> int | None:
    if seconds is None:
        return None
    match = _SECONDS.fullmatch(seconds)
    if match is None or not seconds.isascii():
        raise Refused(code, "Give seconds as a plain number, such as 60 or 0.5; three decimals at most.")
    return int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))


def _ttl_and_lifetime(query: Mapping[str, str], policy: Policy) -> tuple[int | None, int | None]:
    ttl = check_ttl(_ms(query.get("ttl")), policy)
    return ttl, check_lifetime(_ms(query.get("lifetime")), ttl)


def _whole(number: str | None) -> int | None:
    if number is None:
        return None
    return int(number) if re.fullmatch(r"[0-9]{1,9}", number) else -1


def _owner(request: web.Request) -> tuple[str | None, Mapping[str, str] | None]:
    """user and meta from their headers, percent-encoded UTF-8."""
    user, meta = (_decoded(request.headers.get(name)) for name in (USER, META))
    try:
        return check_user(user, empty=True), check_meta(None if meta is None else codec.json_object(meta))
    except ValueError as e:
        raise Refused("bad_meta", f"{META} is a JSON object.") from e


def _decoded(header: str | None) -> str | None:
    if header is None:
        return None
    try:
        return unquote_to_bytes(header).decode("utf-8")
    except UnicodeDecodeError as e:
        raise Refused("bad_header", "A header is percent-encoded UTF-8.") from e


def _condition(request: web.Request) -> When | None:
    """What a PUT demands: a `when`, or None for `If-None-Match: *`, which creates."""
    match, none_match = request.headers.get(hdrs.IF_MATCH), request.headers.get(hdrs.IF_NONE_MATCH)
    if match is not None and none_match is not None:
        raise Refused("bad_version", "If-Match and If-None-Match exclude each other.")
    if none_match is not None:
        if none_match != "*":
            raise Refused("bad_version", "If-None-Match takes * here: create only.")
        return None
    if match is None:
        return "any"
    if match == "*":
        return "alive"
    if (version := _ETAG.fullmatch(match)) is None:
        raise Refused("bad_version", 'If-Match takes * or one version, as "3".')
    return int(version[1])


def _knows(if_none_match: str, etag: str) -> bool:
    """Weakly compared, as RFC 9110 §13.1.2 asks: a proxy that compresses makes our tags weak."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags


async def read_body(request: web.Request, policy: Policy, patience: float) -> bytes:
    """The whole body, which is read no further than a session's data may be long, and no longer than `patience`, in s."""
    check_length(request, policy)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(patience):
            async for part in request.content.iter_any():
                parts.append(part)
                size += len(part)
                calls.check_size(size, policy)
    except TimeoutError as e:
        raise Refused("too_slow", f"The body did not come within {patience:g} s.") from e
    return b"".join(parts)


def check_length(request: web.Request, policy: Policy) -> None:
    """Refuses by its Content-Length a body that will be too large, before a byte of it is read."""
    if request.content_length is not None:
        calls.check_size(request.content_length, policy)


# Answers --------------------------------------------------------------------------------------------


def _state(record: Record) -> dict[str, str]:
    return {
        str(hdrs.ETAG): f'"{record.version}"',
        TTL: f"{record.ttl / 1000:.3f}".rstrip("0").rstrip("."),
        EXPIRES_AT: str(record.expires_at),
    }


def _acceptable(accept: Any, record: Record) -> tuple[str, bytes]:
    """The data in the format that the reader likes best among those that can hold it. Refused `not_acceptable`."""
    reason = "Accept names no format that sessions are written in."
    for format in _liked(",".join(accept) or "*/*"):
        try:
            return format, codec.convert(record.format, record.data, format)
        except Refused as e:
            reason = e.text
    raise Refused("not_acceptable", reason)


@lru_cache(256)
def _liked(accept: str) -> tuple[str, ...]:
    """The formats that a reader takes, the one he likes best first. Programs always say the same: kept, it costs 0.1 µs instead of 5."""
    liked = _likes(accept)
    order = sorted((codec.JSON, codec.MSGPACK, codec.BYTES), key=lambda format: -liked[format])
    return tuple(format for format in order if liked[format] > 0)


def _likes(accept: str) -> dict[str, float]:
    """How much a reader likes each format, 0 to 1; the most specific range that matches decides (RFC 9110 §12.5.1)."""
    best: dict[str, tuple[int, float]] = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((float(match[1]) for p in parameters if (match := _QUALITY.fullmatch(p))), 1.0)
        for name, format in _FORMATS.items():
            rank = 2 if media == name else 1 if media == "application/*" else 0 if media == "*/*" else -1
            if rank >= 0 and (rank, quality) > best.get(format, (-1, 0.0)):
                best[format] = (rank, quality)
    return {format: best.get(format, (0, 0.0))[1] for format in MEDIA_TYPES}


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "key": handle_of(entry.key),
        "user": entry.user,
        "meta": entry.meta,
        "created_at": entry.created_at,
        "renewed_at": entry.renewed_at,
        "expires_at": entry.expires_at,
        "version": entry.version,
        "size": entry.size,
    }


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=codec.to_json(body), content_type=MEDIA_TYPES[codec.JSON], headers=headers)
