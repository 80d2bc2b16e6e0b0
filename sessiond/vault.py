"""Sealing what leaves memory: the one door through which records go to a disk or a server and come back.

A sealed record is  scheme (1 byte) · what the scheme needs · body.  The context names everything that stands beside it
in its row (namespace, key, every column), so a flipped bit anywhere in the row, and a row put in another's place, is
noticed.

Scheme 0, in the clear: check (16 bytes) · packed record. The check is BLAKE2b-128 over context and body. BLAKE2b takes
0.8 µs for 300 bytes (measured) and misses damage once in 2^128; a 32-bit CRC would miss one in four billion, which a
disk of a million sessions and some years of scrubbing comes close enough to.

Scheme 1, encrypted: length of the key's id (1 byte) · id · prefix (12 bytes) · nonce (12 bytes) · AES-256-GCM of the
packed record, its tag at the end. The key is derived from the listed one and the prefix, which is drawn anew for every
65,536 seals, so that random nonces stay safe for ever; docs/decisions/0008-vault.md has the bounds. What is
authenticated beside the record: everything before the ciphertext, and the context.

A vault has a list of seals, the current one first: it seals with that one and opens with any of them.
"""

import hmac
import os
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Protocol

from sessiond import codec
from sessiond.errors import Damaged, SettingError
from sessiond.record import Record

PLAIN = "plain"
"""The id of the seal that does not encrypt."""

KEY_BYTES = 32

_IN_THE_CLEAR, _ENCRYPTED = b"\x00", b"\x01"
_CHECK_BYTES = 16
_PREFIX_BYTES = _NONCE_BYTES = 12

_SEALS_PER_PREFIX = 2**16
_KNOWN_SUBKEYS = 256  # AES contexts that are kept: rows sealed near each other in time share one
_KNOWN_TAGS = 4096

TAG_MARK = "\x01"
"""Begins what stands for an encrypted session's user in its row. No user's name can: it has no control characters."""

_read_record = codec.reader_of(Record)


class Seal(Protocol):
    """One way of sealing. `id`: its name in the key list and in the file. `header`: how what it has sealed begins."""

    id: str
    header: bytes

    def close(self, context: bytes, body: bytes) -> bytes: ...

    def open(self, context: bytes, sealed: bytes) -> bytes:
        """The body, or Damaged."""

    def tag(self, namespace: str, user: str) -> str:
        """What stands in a row for its user: equal for the same user, so that an index finds it."""


class Clear:
    """In the clear, with a checksum: notices damage, and hides nothing."""

    id = PLAIN
    header = _IN_THE_CLEAR

    def close(self, context: bytes, body: bytes) -> bytes:
        return _IN_THE_CLEAR + _check(context, body) + body

    def open(self, context: bytes, sealed: bytes) -> bytes:
        check, body = sealed[1 : 1 + _CHECK_BYTES], sealed[1 + _CHECK_BYTES :]
        if not hmac.compare_digest(check, _check(context, body)):
            raise Damaged("a stored row is not what was written")
        return body

    def tag(self, namespace: str, user: str) -> str:
        return user


class Key:
    """AES-256-GCM under one key of the list. `name`: its id. `secret`: its 32 bytes. SettingError where the library is missing."""

    def __init__(self, name: str, secret: bytes) -> None:
        assert len(secret) == KEY_BYTES, "checked where it was read"
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as e:
            raise SettingError(
                "encryption_keys is set, and the library that encrypts is not installed: "
                "install it where the daemon is: pip install cryptography."
            ) from e
        self.id = name
        self.header = _ENCRYPTED + bytes([len(name)]) + name.encode("ascii")
        self._invalid: type[Exception] = InvalidTag
        row_key = _expand(secret, b"sessiond row")

        @lru_cache(_KNOWN_SUBKEYS)
        def cipher(prefix: bytes) -> Any:
            return AESGCM(_expand(row_key, prefix))

        @lru_cache(_KNOWN_TAGS)
        def tag(namespace: str, user: str) -> str:
            index_key = _expand(secret, b"sessiond user index\0" + namespace.encode())
            # 128 bits: even among 2^32 users two share a tag once in 2^65.
            return TAG_MARK + hmac.digest(index_key, user.encode(), "sha256")[:16].hex()

        self._cipher = cipher
        self.tag = tag
        self._prefix = b""
        self._left = 0

    def close(self, context: bytes, body: bytes) -> bytes:
        if self._left == 0:
            self._prefix, self._left = os.urandom(_PREFIX_BYTES), _SEALS_PER_PREFIX
        self._left -= 1
        nonce = os.urandom(_NONCE_BYTES)
        head = self.header + self._prefix + nonce
        ciphertext: bytes = self._cipher(self._prefix).encrypt(nonce, body, head + context)
        return head + ciphertext

    def open(self, context: bytes, sealed: bytes) -> bytes:
        start = len(self.header)
        middle, end = start + _PREFIX_BYTES, start + _PREFIX_BYTES + _NONCE_BYTES
        try:
            body: bytes = self._cipher(sealed[start:middle]).decrypt(
                sealed[middle:end], sealed[end:], sealed[:end] + context
            )
        except (self._invalid, ValueError) as e:  # ValueError: too short to hold a nonce
            raise Damaged("a stored row is not what was written") from e
        return body


class Vault:
    """Seals and opens. `context` must be the same bytes at both. Without `seals`: everything in the clear."""

    def __init__(self, seals: Sequence[Seal] = (Clear(),)) -> None:
        self._current = seals[0]
        self._by_header = {seal.header: seal for seal in seals}
        self.ids = tuple(seal.id for seal in seals)
        self.encrypts = self.ids != (PLAIN,)

    @property
    def current(self) -> str:
        """The id of the seal that closes."""
        return self._current.id

    def seal(self, context: bytes, record: Record | None) -> bytes:
        """`record` None: a destroyed session, of which only the mark is kept."""
        return self._current.close(context, b"" if record is None else codec.pack(record))

    def open(self, context: bytes, sealed: bytes) -> Record | None:
        """What was sealed, or Damaged: never something else."""
        body = self.open_bytes(context, sealed)
        try:
            return _read_record(body) if body else None
        except (ValueError, RecursionError) as e:
            raise Damaged("a stored row is sealed by another version of sessiond") from e

    def seal_bytes(self, context: bytes, body: bytes) -> bytes:
        return self._current.close(context, body)

    def open_bytes(self, context: bytes, sealed: bytes) -> bytes:
        """What was sealed, or Damaged."""
        seal = self._by_header.get(_header(sealed))
        if seal is None:
            raise Damaged("a stored row is sealed under a key that is not in the list")
        return seal.open(context, sealed)

    def is_current(self, sealed: bytes) -> bool:
        """Whether the current seal closed it, as far as its header tells."""
        return _header(sealed) == self._current.header

    def tag(self, namespace: str, user: str | None) -> str | None:
        """What stands for a user in a row that is sealed now."""
        return None if user is None else self._current.tag(namespace, user)

    def tags(self, namespace: str, user: str) -> tuple[str, ...]:
        """All that may stand for a user in a row, by whichever seal of the list."""
        return tuple(dict.fromkeys(seal.tag(namespace, user) for seal in self._by_header.values()))


def _header(sealed: bytes) -> bytes:
    return sealed[: 2 + sealed[1]] if sealed[:1] == _ENCRYPTED and len(sealed) > 1 else sealed[:1]


def _check(context: bytes, body: bytes) -> bytes:
    # The length keeps context and body apart: no bytes can wander from one to the other unnoticed.
    return blake2b(len(context).to_bytes(4, "big") + context + body, digest_size=_CHECK_BYTES).digest()


def _expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand with SHA-256 to 32 bytes (RFC 5869 §2.3). The keys are uniform, so there is nothing to extract (§3.3)."""
    return hmac.digest(key, info + b"\x01", "sha256")
