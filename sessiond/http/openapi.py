"""The REST API as OpenAPI 3.1, made from the same limits that the daemon checks."""

from typing import Any

from sessiond.calls import DAY, DEFAULT_PAGE, MAX_GRACE, MAX_META_ENTRIES, MAX_PAGE, MAX_USER_BYTES, Policy
from sessiond.http.auth import NAMESPACE, OPEN_PATHS
from sessiond.http.events import LAST_EVENT_ID
from sessiond.http.problem import CONTENT_TYPE as PROBLEM_TYPE
from sessiond.http.problem import TITLES
from sessiond.http.rest import CREATED_AT, DEADLINE, EXPIRES_AT, MEDIA_TYPES, META, TTL, USER

LONGEST = 100_000 * DAY
"""The longest lifetime, in ms: calls.check_lifetime."""


def document(policy: Policy, asks_for_token: bool = False) -> dict[str, Any]:
    from sessiond import __version__

    paths = _paths(policy)
    for path, item in paths.items():
        if path.startswith(("/v1/sessions", "/v1/events")):
            item["parameters"] = [*item.get("parameters", ()), _ref("parameters", "namespace")]
        if path in OPEN_PATHS:
            item["get"]["security"] = []
            del item["get"]["responses"]["401"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sessiond",
            "version": __version__,
            "description": "Server-side web sessions for every process, over HTTP. Seconds may have three decimals; "
            "instants are milliseconds since the Unix epoch.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "security": [{"token": []}] if asks_for_token else [],
        "components": {
            "schemas": _SCHEMAS,
            "responses": _PROBLEMS,
            "headers": _HEADERS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "parameters": _parameters(policy),
        },
    }


def _paths(policy: Policy) -> dict[str, Any]:
    session = [_ref("parameters", "session")]
    ttl, lifetime = _ref("parameters", "ttl"), _ref("parameters", "lifetime")
    owner = [_ref("parameters", "user_header"), _ref("parameters", "meta_header")]
    return {
        "/v1/sessions": {
            "post": _operation(
                "createSession",
                "Create a session; the daemon makes its id and tells it this once.",
                {"201": _json("Created", "created", state=True)},
                "408 409 507",
                parameters=[ttl, lifetime, *owner],
                body=_data(("json", "msgpack", "bytes")),
            ),
            "get": _operation(
                "listSessions",
                "List living sessions, a page at a time, in the order of their keys.",
                {"200": _json("A page", "listing")},
                "",
                parameters=[_ref("parameters", name) for name in ("user", "cursor", "limit")],
            ),
            "delete": _operation(
                "destroySessions",
                "Destroy all sessions of a user, or with all=true of everyone. One of user and all is needed.",
                {"200": _json("Destroyed", "destroyed")},
                "507",
                parameters=[_ref("parameters", name) for name in ("user", "all", "except")],
            ),
        },
        "/v1/sessions/count": {
            "get": _operation(
                "countSessions",
                "How many sessions live.",
                {"200": _json("The number", "count")},
                "",
                parameters=[_ref("parameters", "user")],
            )
        },
        "/v1/sessions/{session}": {
            "parameters": session,
            "get": _operation(
                "getSession",
                "The data, in the format asked for by Accept where it can be written in it.",
                {
                    "200": {
                        "description": "The data",
                        "headers": _state("ETag", TTL, EXPIRES_AT, CREATED_AT, DEADLINE, USER, META),
                        "content": _data(("json", "msgpack", "bytes"))["content"],
                    },
                    "304": {"description": "The version named by If-None-Match is the current one"},
                },
                "404 406",
                parameters=[_ref("parameters", "renew"), _ref("parameters", "if_changed")],
            ),
            "put": _operation(
                "setSession",
                "Replace the data. Creates the session unless If-Match forbids it.",
                {
                    "201": {"description": "Created", "headers": _state("ETag", TTL, EXPIRES_AT)},
                    "204": {"description": "Replaced", "headers": _state("ETag", TTL, EXPIRES_AT)},
                },
                "404 408 409 412 507",
                parameters=[ttl, lifetime, _ref("parameters", "if_match"), _ref("parameters", "if_none"), *owner],
                body=_data(("json", "msgpack", "bytes")),
            ),
            "patch": _operation(
                "patchSession",
                "Merge top-level entries into the data, in one step; null removes (RFC 7396, on the top level).",
                {"204": {"description": "Merged", "headers": _state("ETag", TTL, EXPIRES_AT)}},
                "404 408 409 507",
                parameters=[ttl, *owner],
                body=_patch(),
            ),
            "delete": _operation(
                "destroySession",
                "Destroy the session, if there is one.",
                {"204": {"description": "It is gone"}},
                "507",
            ),
        },
        "/v1/sessions/{session}/touch": {
            "parameters": session,
            "post": _operation(
                "touchSession",
                "Renew the session, with its own ttl or a new one.",
                {"204": {"description": "Renewed", "headers": _state("ETag", TTL, EXPIRES_AT)}},
                "404",
                parameters=[ttl],
            ),
        },
        "/v1/sessions/{session}/rotate": {
            "parameters": session,
            "post": _operation(
                "rotateSession",
                "Move the session to a new id; for the grace the old one leads to it.",
                {"200": _json("Moved", "rotated", state=True)},
                "404 507",
                parameters=[_ref("parameters", "grace")],
            ),
        },
        "/v1/events": {
            "get": _operation(
                "watchSessions",
                "What ends, as server-sent events: destroyed, rotated, evicted, expired, and gap where some may be missing.",
                {
                    "200": {
                        "description": "Events, until either side closes",
                        "content": {"text/event-stream": {"schema": {"type": "string"}}},
                    }
                },
                "",
                parameters=[_ref("parameters", "after"), _ref("parameters", "last_event_id")],
            )
        },
        "/healthz": {"get": _operation("healthz", "Whether the process lives.", {"200": _text("It does")}, "")},
        "/readyz": {"get": _operation("readyz", "Whether it can take calls now.", {"200": _text("It can")}, "")},
        "/metrics": {"get": _operation("metrics", "Figures for Prometheus.", {"200": _text("Figures")}, "")},
        "/openapi.json": {
            "get": _operation(
                "openapi",
                "This document.",
                {
                    "200": {
                        "description": "OpenAPI 3.1",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
                "",
            )
        },
    }


def _operation(
    name: str,
    summary: str,
    good: dict[str, Any],
    problems: str,
    parameters: list[Any] | None = None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": dict(good)}
    for status in sorted({*problems.split(), *_ANYWHERE}):
        operation["responses"][status] = _ref("responses", f"problem_{status}")
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, **body}
    return operation


_ANYWHERE = ("400", "401", "403", "413", "414", "415", "417", "421", "429", "431", "503")
"""Answers to what is wrong with any request: its token, its headers, its address, the length of its body, or their number."""


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _json(description: str, schema: str, state: bool = False) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": _ref("schemas", schema)}},
    }
    if state:
        response["headers"] = _state("ETag", TTL, EXPIRES_AT)
    return response


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _state(*names: str) -> dict[str, Any]:
    return {name: _ref("headers", name) for name in names}


def _data(formats: tuple[str, ...]) -> dict[str, Any]:
    schemas: dict[str, dict[str, Any]] = {"json": {"type": "object"}, "msgpack": {}, "bytes": {}}
    return {"content": {MEDIA_TYPES[format]: {"schema": schemas[format]} for format in formats}}


def _patch() -> dict[str, Any]:
    content = dict(_data(("json", "msgpack"))["content"])
    return {"content": {**content, "application/merge-patch+json": {"schema": {"type": "object"}}}}


_EVENT_ID = "^[0-9a-f]{16}-[0-9]{1,16}-[0-9]{1,16}$"
_INSTANT = {"type": "integer", "minimum": 0, "description": "ms since the Unix epoch"}
_VERSION = {"type": "integer", "minimum": 1}
_NUMBER = {"type": "integer", "minimum": 0}
_BASE64_KEY = "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
_KEY = {"type": "string", "pattern": f"^~{_BASE64_KEY}$"}
_ETAG = '"[1-9][0-9]{0,14}"'
_META = {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": MAX_META_ENTRIES}
_STATED = {"version": _VERSION, "expires_at": _INSTANT}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


_SCHEMAS = {
    "created": _object({"sid": {"type": "string"}, **_STATED}),
    "rotated": _object({"sid": {"type": "string"}}),
    "count": _object({"count": _NUMBER}),
    "destroyed": _object({"destroyed": _NUMBER}),
    "listing": _object(
        {
            "sessions": {"type": "array", "items": _ref("schemas", "entry"), "maxItems": MAX_PAGE},
            "cursor": {"type": ["string", "null"], "description": "of the next page; null: this was the last"},
        }
    ),
    "entry": _object(
        {
            "key": _KEY,
            "user": {"type": ["string", "null"]},
            "meta": {**_META, "type": ["object", "null"]},
            "created_at": _INSTANT,
            "renewed_at": _INSTANT,
            "expires_at": _INSTANT,
            "version": _VERSION,
            "size": {**_NUMBER, "description": "of the data, in bytes"},
        }
    ),
    "problem": _object(
        {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "stable; for programs"},
            "detail": {"type": "string", "description": "a sentence; for people"},
        }
    ),
}

_PROBLEMS = {
    f"problem_{status}": {"description": title, "content": {PROBLEM_TYPE: {"schema": _ref("schemas", "problem")}}}
    for status, title in TITLES.items()
}

_HEADERS = {
    "ETag": {"description": "The version, quoted.", "schema": {"type": "string"}},
    TTL: {"description": "Seconds of life after a renewal.", "schema": {"type": "number"}},
    EXPIRES_AT: {"description": "When it dies if nothing renews it.", "schema": _INSTANT},
    CREATED_AT: {"description": "When it was created.", "schema": _INSTANT},
    DEADLINE: {"description": "When it dies at the latest; absent if there is none.", "schema": _INSTANT},
    USER: {"description": "Its owner, percent-encoded; absent if there is none.", "schema": {"type": "string"}},
    META: {"description": "JSON, percent-encoded; absent if there is none.", "schema": {"type": "string"}},
}


def _parameters(policy: Policy) -> dict[str, Any]:
    def seconds(name: str, longest: int, text: str, least: float = 0.001) -> dict[str, Any]:
        schema = {"type": "number", "minimum": least, "maximum": longest / 1000, "multipleOf": 0.001}
        return {"name": name, "in": "query", "schema": schema, "description": text}

    def text(name: str, where: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
        return {"name": name, "in": where, "schema": {"type": "string", **schema}, "description": description}

    # A sid may be anything. One that is `count`, `.` or `..` names something else in a path, and has only its ~key.
    sid = r"(?!(?:count|\.|\.\.)$)[^~\x00-\x1f\x7f][^\x00-\x1f\x7f]*"
    session = {"minLength": 1, "pattern": f"^(?:~{_BASE64_KEY}|{sid})$"}
    user = {"minLength": 1, "maxLength": MAX_USER_BYTES, "format": "user"}
    ttl = seconds("ttl", policy.max_ttl, "Seconds of life after a renewal.")
    return {
        "session": {
            **text("session", "path", session, "A sid, or ~ and a key as base64url."),
            "required": True,
        },
        "ttl": ttl,
        "lifetime": seconds("lifetime", LONGEST, "Seconds from creation after which nothing keeps it alive."),
        "grace": seconds("grace", MAX_GRACE, "Seconds for which the old id still works.", least=0),
        "renew": {
            "name": "renew",
            "in": "query",
            "description": "Renew in the same step: true, or the new ttl in seconds.",
            "schema": {"anyOf": [{"type": "boolean", "const": True}, ttl["schema"]]},
        },
        "user": text("user", "query", user, "Only this user's sessions."),
        "cursor": text("cursor", "query", {"pattern": f"^{_BASE64_KEY}$"}, "As the last page gave it."),
        "limit": {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
            "description": "Entries of a page.",
        },
        "all": {
            "name": "all",
            "in": "query",
            "schema": {"type": "boolean", "const": True},
            "description": "Everyone's; must be true.",
        },
        "after": text("after", "query", {"pattern": _EVENT_ID}, "The id of the last event that is known."),
        "last_event_id": text(
            LAST_EVENT_ID, "header", {"pattern": _EVENT_ID}, "The same, as an EventSource sends it; goes before after."
        ),
        "except": text("except", "query", session, "The session to spare."),
        "namespace": text(
            NAMESPACE, "header", {"format": "namespace"}, "Whose sessions, for an admin's token; default unless named."
        ),
        "user_header": text(
            USER, "header", {"format": "percent-encoded-user"}, "The owner, percent-encoded; empty takes it away."
        ),
        "meta_header": {
            "name": META,
            "in": "header",
            "description": "Read by people; an empty object takes it away. What is not ASCII is percent-encoded.",
            "content": {"application/json": {"schema": _META}},
        },
        "if_match": text("If-Match", "header", {"pattern": rf"^(?:\*|{_ETAG})$"}, "* or the version to replace."),
        "if_none": text("If-None-Match", "header", {"const": "*"}, "Create only. Not together with If-Match."),
        "if_changed": text(
            "If-None-Match", "header", {}, "Versions that are known already: 304 instead of their data."
        ),
    }
