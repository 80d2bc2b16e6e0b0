"""What REST answers when it does not do as asked: RFC 9457 problems with a stable code, and never the input."""

from collections.abc import Mapping

from aiohttp import web

from sessiond import codec
from sessiond.record import Answer

CONTENT_TYPE = "application/problem+json"

STATUSES = {
    "missing": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "too_slow": 408,
    "exists": 409,
    "opaque_data": 409,
    "not_representable": 409,
    "too_many_sessions": 409,
    "conflict": 412,
    "too_large": 413,
    "uri_too_long": 414,
    "media_type": 415,
    "encoding": 415,
    "expectation": 417,
    "misdirected": 421,
    "too_many_failures": 429,
    "too_many_misses": 429,
    "headers_too_large": 431,
    "unauthorized": 401,
    "browser_request": 403,
    "forbidden": 403,
    "internal": 500,
    "integrity": 503,
    "not_ready": 503,
    "stopping": 503,
    "storage_failed": 503,
    "too_many_connections": 503,
    "bad_http_version": 505,
    "quota": 507,
    "storage_full": 507,
}
"""The status of each code; a code that is not here begins with bad_ or names another fault of the request: 400."""

TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Request timeout",
    409: "Conflict",
    412: "Precondition failed",
    413: "Content too large",
    414: "URI too long",
    415: "Unsupported media type",
    417: "Expectation failed",
    421: "Misdirected request",
    429: "Too many requests",
    431: "Request header fields too large",
    500: "Internal error",
    503: "Service unavailable",
    505: "HTTP version not supported",
    507: "Insufficient storage",
}

MISSING_TEXT = "There is no living session under that id."
EXISTS_TEXT = "A living session has that id already."
CONFLICT_TEXT = "The session has another version by now: the ETag is that of the current one."


def problem(code: str, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """`text`: one sentence for people, made of our own words only."""
    status = STATUSES.get(code, 400)
    if status == 401:
        headers = {**(headers or {}), "WWW-Authenticate": "Bearer"}  # RFC 9110 §15.5.2 wants it with every 401
    body = {
        "type": f"urn:sessiond:problem:{code}",
        "title": TITLES[status],
        "status": status,
        "code": code,
        "detail": text,
    }
    return web.Response(status=status, body=codec.to_json(body), content_type=CONTENT_TYPE, headers=headers)


def of_answer(answer: Answer) -> web.Response:
    """The problem that an answer other than `ok` is."""
    if answer.status == "missing":
        return problem("missing", MISSING_TEXT)
    if answer.status == "exists":
        return problem("exists", EXISTS_TEXT)
    if answer.status == "conflict":
        assert answer.record is not None
        return problem("conflict", CONFLICT_TEXT, {"ETag": f'"{answer.record.version}"'})
    assert isinstance(answer.value, tuple)
    return problem(*answer.value)
