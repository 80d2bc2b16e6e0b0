"""What OpenAPI cannot say about the requests that schemathesis makes up."""

from typing import Any
from urllib.parse import quote

import schemathesis
from hypothesis import strategies as st

users = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=60).filter(
    str.isprintable
)
schemathesis.openapi.format("user", users)
schemathesis.openapi.format("namespace", st.just("default"))
schemathesis.openapi.format("percent-encoded-user", users.map(quote))


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """False for a request whose fate the document cannot tell; test_rest.py and test_bad_input.py have those."""
    query, headers = case.query or {}, case.headers or {}
    if {"Session-User", "Session-Namespace"} & headers.keys() and case.meta.generation.mode.is_negative:
        return False  # nobody tells schemathesis what violates a format of ours
    if "%" in headers.get("Session-Meta", ""):
        return False  # it begins an escape, and JSON Schema knows nothing of those
    if case.operation.label == "DELETE /v1/sessions" and ("user" in query) == ("all" in query):
        return False  # one of the two is needed
    if {"ttl", "lifetime"} <= query.keys() or {"If-Match", "If-None-Match"} <= headers.keys():
        return False  # the one bounds or excludes the other
    return not holds_long_integer(case.body)  # to JSON Schema, 2^64 and 1.8446744073709552e19 are the same


def holds_long_integer(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(holds_long_integer, value.values()))
    if isinstance(value, list):
        return any(map(holds_long_integer, value))
    return type(value) is int and not -(2**63) <= value < 2**64
