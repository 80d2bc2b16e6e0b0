"""Sealing: what comes back is what went in, or Damaged."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond import codec
from sessiond.errors import Damaged
from sessiond.record import Record
from sessiond.vault import Vault

FULL = Record(b"\xff{}", "bytes", 3, 10, 1, 2, 12, 20, "ann", {"ip": "::1"}, b"12345678", b"k" * 32)
BARE = Record(b"", "json", 1, 1, 0, 0, 1)
VAULT = Vault()


@pytest.mark.parametrize("record", [FULL, BARE, None], ids=["full", "bare", "mark"])
def test_what_was_sealed_is_opened(record: Record | None) -> None:
    """A record comes back equal, each field of it, and the mark of a destroyed session as None."""
    assert record == VAULT.open(b"context", VAULT.seal(b"context", record))


@pytest.mark.parametrize("record", [FULL, BARE, None], ids=["full", "bare", "mark"])
def test_each_bit_counts(record: Record | None) -> None:
    """A sealed record with any one bit flipped is Damaged."""
    sealed = VAULT.seal(b"context", record)
    opened = []

    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(Damaged):
            opened.append((bit, VAULT.open(b"context", bytes(flipped))))

    assert [] == opened


@pytest.mark.parametrize("cut", [0, 1, 16, 17, 18, -1])
def test_a_cut_or_longer_row_is_damaged(cut: int) -> None:
    """A sealed record that lost its end, or got one more byte, is Damaged."""
    sealed = VAULT.seal(b"context", FULL)

    for changed in (sealed[:cut], sealed + b"\x00"):
        with pytest.raises(Damaged):
            VAULT.open(b"context", changed)


@given(st.binary(max_size=8), st.binary(max_size=8), st.booleans())
def test_a_seal_holds_in_its_context_only(one: bytes, other: bytes, mark: bool) -> None:
    """A record sealed in one context does not open in another, however alike they are."""
    sealed = VAULT.seal(one, None if mark else BARE)

    if one == other:
        VAULT.open(other, sealed)
    else:
        with pytest.raises(Damaged):
            VAULT.open(other, sealed)


def test_no_byte_wanders_between_context_and_body() -> None:
    """Bytes moved from the end of the context to the front of the body do not make a valid seal."""
    body = codec.pack(BARE)
    sealed = VAULT.seal(b"ctx" + body[:1], None)

    with pytest.raises(Damaged):
        VAULT.open(b"ctx", sealed + body[:1])


def test_a_record_of_a_later_version_opens() -> None:
    """Fields that a later sessiond added at the end of a record are passed over: a rollback reads what it wrote."""
    later = [*codec.unpack(codec.pack(FULL)), "a new field"]
    body = codec.pack(later)

    assert FULL == codec.reader_of(Record)(body)


def test_an_unknown_scheme_is_damaged() -> None:
    """A row sealed by a scheme that this version does not know is Damaged, not misread."""
    with pytest.raises(Damaged):
        VAULT.open(b"", b"\x01" + VAULT.seal(b"", BARE)[1:])
