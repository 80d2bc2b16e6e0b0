"""Session ids and the cookies that carry them, in express-session's format: `s:<sid>.<signature>`.

What a browser sends is not to be trusted: reading answers None for anything odd, and never raises for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from urllib.parse import quote, unquote

from .errors import InvalidRequest

Secret = str | bytes
#: What `encodeURIComponent` leaves alone besides letters, digits and `_.-~`.
_UNESCAPED = "!*'()"


def new_sid() -> str:
    """A new session id: 32 random bytes as base64url, 43 characters."""
    return base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()


def key_of(sid: str) -> bytes:
    """The SHA-256 of the sid, 32 bytes: all that the daemon ever gets to know of it."""
    # A lone surrogate, as a hostile cookie may hold, has no UTF-8: it gets a key that no real sid has.
    return hashlib.sha256(sid.encode("utf-8", "surrogatepass")).digest()


def sign(sid: str, secret: Secret | Sequence[Secret]) -> str:
    """The cookie's value for this sid, signed with the secret, or with the first of several."""
    if not sid:
        raise InvalidRequest("A sid is not empty.", code="bad_key")
    return f"s:{sid}.{_signature(sid, _secrets(secret)[0])}"


def unsign(value: str | None, secret: Secret | Sequence[Secret]) -> str | None:
    """The sid in a cookie's value, or None unless one of the secrets has signed it."""
    secrets = _secrets(secret)
    if not isinstance(value, str) or not value.startswith("s:"):
        return None
    sid, dot, signature = value[2:].rpartition(".")
    if not sid or not dot:
        return None
    given = signature.encode("utf-8", "surrogatepass")
    # All are tried, whichever matches, so that the time tells nothing about which secret is in use.
    matches = [hmac.compare_digest(given, _signature(sid, each).encode()) for each in secrets]
    return sid if any(matches) else None


def encode_cookie(value: str) -> str:
    """The value as it stands in a `Set-Cookie` header: percent-encoded as express does."""
    return quote(value, safe=_UNESCAPED)


def decode_cookie(raw: str) -> str:
    """The value from a `Cookie` header, as express reads it: unquoted, percent-decoded, as it stands if that fails."""
    raw = raw.strip()
    if len(raw) >= 2 and raw[0] == raw[-1] == '"':
        raw = raw[1:-1]
    if not _is_percent_encoded(raw):
        return raw
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError:
        return raw


def _is_percent_encoded(raw: str) -> bool:
    """Whether every `%` begins an escape; `decodeURIComponent` throws otherwise, and express keeps the raw value."""
    escapes = raw.split("%")[1:]
    return all(len(each) >= 2 and set(each[:2]) <= set("0123456789abcdefABCDEF") for each in escapes)


def _signature(sid: str, secret: bytes) -> str:
    digest = hmac.digest(secret, sid.encode("utf-8", "surrogatepass"), "sha256")
    return base64.b64encode(digest).rstrip(b"=").decode()


def _secrets(secret: Secret | Sequence[Secret]) -> list[bytes]:
    several: Sequence[Secret] = [secret] if isinstance(secret, str | bytes) else secret
    secrets = [each.encode() if isinstance(each, str) else each for each in several]
    if not secrets or not all(secrets):
        raise InvalidRequest("Signing needs a secret, and no secret may be empty.", code="bad_secret")
    return secrets
