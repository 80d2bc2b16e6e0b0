"""The REST API as OpenAPI 3.1, made from the same limits that the daemon checks."""

from typing import Any

from sessiond.calls import DEFAULT_PAGE, MAX_GRACE, MAX_PAGE, MAX_USER_BYTES, Policy
from sessiond.http.problem import CONTENT_TYPE as PROBLEM_TYPE
from sessiond.http.problem import TITLES
from sessiond.http.rest import CREATED_AT, DEADLINE, EXPIRES_AT, MEDIA_TYPES, META, TTL, USER


def document(policy: Policy) -> dict[str, Any]:
    from sessiond import __version__

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
        "paths": _paths(policy),
        "components": {
            "schemas": _SCHEMAS,
            "responses": _PROBLEMS,
            "headers": _HEADERS,
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
                "400 413 415 507",
                parameters=[ttl, lifetime, *owner],
                body=_data(("json", "msgpack", "bytes")),
            ),
            "get": _operation(
                "listSessions",
                "List living sessions, a page at a time, in the order of their keys.",
                {"200": _json("A page", "listing")},
                "400",
                parameters=[_ref("parameters", name) for name in ("user", "cursor", "limit")],
            ),
            "delete": _operation(
                "destroySessions",
                "Destroy all sessions of a user, or with all=true of everyone. One of user and all is needed.",
                {"200": _json("Destroyed", "destroyed")},
                "400 507",
                parameters=[_ref("parameters", name) for name in ("user", "all", "except")],
            ),
        },
        "/v1/sessions/count": {
            "get": _operation(
                "countSessions",
                "How many sessions live.",
                {"200": _json("The number", "count")},
                "400",
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
                "400 404 406",
                parameters=[_ref("parameters", "renew"), _ref("parameters", "if_none_match")],
            ),
            "put": _operation(
                "setSession",
                "Replace the data. Creates the session unless If-Match forbids it.",
                {
                    "201": {"description": "Created", "headers": _state("ETag", TTL, EXPIRES_AT)},
                    "204": {"description": "Replaced", "headers": _state("ETag", TTL, EXPIRES_AT)},
                },
                "400 404 409 412 413 415 507",
                parameters=[ttl, lifetime, _ref("parameters", "if_match"), _ref("parameters", "if_none_match"), *owner],
                body=_data(("json", "msgpack", "bytes")),
            ),
            "patch": _operation(
                "patchSession",
                "Merge top-level entries into the data, in one step; null removes (RFC 7396, on the top level).",
                {"204": {"description": "Merged", "headers": _state("ETag", TTL, EXPIRES_AT)}},
                "400 404 409 413 415 507",
                parameters=[ttl, *owner],
                body=_patch(),
            ),
            "delete": _operation(
                "destroySession",
                "Destroy the session, if there is one.",
                {"204": {"description": "It is gone"}},
                "400 507",
            ),
        },
        "/v1/sessions/{session}/touch": {
            "parameters": session,
            "post": _operation(
                "touchSession",
                "Renew the session, with its own ttl or a new one.",
                {"204": {"description": "Renewed", "headers": _state("ETag", TTL, EXPIRES_AT)}},
                "400 404",
                parameters=[ttl],
            ),
        },
        "/v1/sessions/{session}/rotate": {
            "parameters": session,
            "post": _operation(
                "rotateSession",
                "Move the session to a new id; for the grace the old one leads to it.",
                {"200": _json("Moved", "rotated", state=True)},
                "400 404 507",
                parameters=[_ref("parameters", "grace")],
            ),
        },
        "/healthz": {"get": _operation("healthz", "Whether the process lives.", {"200": _text("It does")}, "400")},
        "/readyz": {"get": _operation("readyz", "Whether it can take calls now.", {"200": _text("It can")}, "400")},
        "/metrics": {"get": _operation("metrics", "Figures for Prometheus.", {"200": _text("Figures")}, "400")},
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
                "400",
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
    for status in sorted({*problems.split(), "403", "417", "421", "503"}):
        operation["responses"][status] = _ref("responses", f"problem_{status}")
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, **body}
    return operation


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


_INSTANT = {"type": "integer", "minimum": 0, "description": "ms since the Unix epoch"}
_VERSION = {"type": "integer", "minimum": 1}
_NUMBER = {"type": "integer", "minimum": 0}
_KEY = {"type": "string", "pattern": "^~[A-Za-z0-9_-]{43}$"}
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
            "meta": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
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
    def seconds(name: str, longest: int | None, text: str, least: float = 0.001) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "number", "minimum": least, "multipleOf": 0.001}
        if longest is not None:
            schema["maximum"] = longest / 1000
        return {"name": name, "in": "query", "schema": schema, "description": text}

    def text(name: str, where: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
        return {"name": name, "in": where, "schema": {"type": "string", **schema}, "description": description}

    user = {"minLength": 1, "maxLength": MAX_USER_BYTES, "pattern": "^[ -~]*$"}
    version = '"[1-9][0-9]{0,14}"'
    session = {"minLength": 1, "pattern": "^(~[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]|[A-Za-z0-9_-]{1,200})$"}
    return {
        "session": {
            **text("session", "path", session, "A sid, or ~ and a key as base64url."),
            "required": True,
        },
        "ttl": seconds("ttl", policy.max_ttl, "Seconds of life after a renewal."),
        "lifetime": seconds("lifetime", None, "Seconds from creation after which nothing keeps it alive."),
        "grace": seconds("grace", MAX_GRACE, "Seconds for which the old id still works.", least=0),
        "renew": {
            "name": "renew",
            "in": "query",
            "description": "Renew in the same step: true, or the new ttl in seconds.",
            "schema": {
                "anyOf": [{"type": "boolean", "const": True}, {"type": "number", "minimum": 0.001, "multipleOf": 0.001}]
            },
        },
        "user": text("user", "query", user, "Only this user's sessions."),
        "cursor": text(
            "cursor", "query", {"pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"}, "As the last page gave it."
        ),
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
        "except": text("except", "query", session, "The session to spare."),
        "user_header": text(USER, "header", {"pattern": "^[A-Za-z0-9._@-]{0,255}$"}, "The owner; empty takes it away."),
        "meta_header": text(
            META, "header", {"pattern": r'^\{("[a-z]{1,9}":"[a-z]{0,9}")?\}$'}, "A JSON object of strings."
        ),
        "if_match": text("If-Match", "header", {"pattern": rf"^(\*|{version})$"}, "* or the one version to replace."),
        "if_none_match": text("If-None-Match", "header", {"pattern": rf"^(\*|{version})$"}, "* on PUT: create only."),
    }
