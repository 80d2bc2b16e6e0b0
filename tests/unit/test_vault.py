"""Sealing: what comes back is what went in, or Damaged."""

import hmac
import sys
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from sessiond import codec
from sessiond.errors import Damaged, SettingError
from sessiond.record import Record
from sessiond.vault import TAG_MARK, Clear, Key, Seal, Vault

FULL = Record(b"\xff{}", "bytes", 3, 10, 1, 2, 12, 20, "ann", {"ip": "::1"}, b"12345678", b"k" * 32)
BARE = Record(b"", "json", 1, 1, 0, 0, 1)
CLEAR = Vault()
RED, BLUE = Key("red", b"r" * 32), Key("blue", b"b" * 32)
ENCRYPTING = Vault([RED, BLUE])

each_vault = pytest.mark.parametrize("vault", [CLEAR, ENCRYPTING], ids=["clear", "encrypting"])


@each_vault
@pytest.mark.parametrize("record", [FULL, BARE, None], ids=["full", "bare", "mark"])
def test_what_was_sealed_is_opened(vault: Vault, record: Record | None) -> None:
    """A record comes back equal, each field of it, and the mark of a destroyed session as None."""
    assert record == vault.open(b"context", vault.seal(b"context", record))


@each_vault
@pytest.mark.parametrize("record", [FULL, BARE, None], ids=["full", "bare", "mark"])
def test_each_bit_counts(vault: Vault, record: Record | None) -> None:
    """A sealed record with any one bit flipped is Damaged."""
    sealed = vault.seal(b"context", record)
    opened = []

    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(Damaged):
            opened.append((bit, vault.open(b"context", bytes(flipped))))

    assert [] == opened


@each_vault
@pytest.mark.parametrize("cut", [0, 1, 2, 4, 5, 16, 17, 18, 28, 29, 30, -1])
def test_a_cut_or_longer_row_is_damaged(vault: Vault, cut: int) -> None:
    """A sealed record that lost its end, or got one more byte, is Damaged."""
    sealed = vault.seal(b"context", FULL)

    for changed in (sealed[:cut], sealed + b"\x00"):
        with pytest.raises(Damaged):
            vault.open(b"context", changed)


@each_vault
@given(one=st.binary(max_size=8), other=st.binary(max_size=8), mark=st.booleans())
def test_a_seal_holds_in_its_context_only(vault: Vault, one: bytes, other: bytes, mark: bool) -> None:
    """A record sealed in one context does not open in another, however alike they are."""
    sealed = vault.seal(one, None if mark else BARE)

    if one == other:
        vault.open(other, sealed)
    else:
        with pytest.raises(Damaged):
            vault.open(other, sealed)


@each_vault
def test_no_byte_wanders_between_context_and_body(vault: Vault) -> None:
    """Bytes moved from the end of the context to the front of the body do not make a valid seal."""
    body = codec.pack(BARE)
    sealed = vault.seal(b"ctx" + body[:1], None)

    with pytest.raises(Damaged):
        vault.open(b"ctx", sealed + body[:1])


def test_a_record_of_a_later_version_opens() -> None:
    """Fields that a later sessiond added at the end of a record are passed over: a rollback reads what it wrote."""
    later = [*codec.unpack(codec.pack(FULL)), "a new field"]
    body = codec.pack(later)

    assert FULL == codec.reader_of(Record)(body)


@each_vault
def test_an_unknown_scheme_is_damaged(vault: Vault) -> None:
    """A row sealed by a scheme that this version does not know is Damaged, not misread."""
    with pytest.raises(Damaged):
        vault.open(b"", b"\x02" + vault.seal(b"", BARE)[1:])


# Keys ------------------------------------------------------------------------------------------------


def test_an_encrypted_record_shows_nothing_of_itself() -> None:
    """Neither data nor user nor meta can be read in it, and the same record never looks the same twice."""
    record = Record(b"the data", "bytes", 1, 1, 0, 0, 1, None, "the user", {"the name": "the text"})

    one, other = ENCRYPTING.seal(b"", record), ENCRYPTING.seal(b"", record)

    assert not any(word in one for word in (b"the data", b"the user", b"the name", b"the text"))
    assert one != other


def test_the_first_seal_closes_and_every_one_opens() -> None:
    """What was sealed under a key stays open when another comes before it, and is known as not current."""
    before = Vault([BLUE]).seal(b"", FULL)
    now = ENCRYPTING.seal(b"", FULL)

    assert FULL == ENCRYPTING.open(b"", before) == ENCRYPTING.open(b"", now)
    assert (False, True) == (ENCRYPTING.is_current(before), ENCRYPTING.is_current(now))
    assert ("red", ("red", "blue")) == (ENCRYPTING.current, ENCRYPTING.ids)


SHUT_OUT: dict[str, tuple[Seal, list[Seal]]] = {
    "a key that is not in the list": (BLUE, [RED]),
    "another key of the same id": (Key("red", b"x" * 32), [RED]),
    "in the clear, where only keys open": (Clear(), [RED, BLUE]),
    "encrypted, where there is no key": (RED, [Clear()]),
}


@pytest.mark.parametrize("case", SHUT_OUT)
def test_what_no_seal_of_the_list_made_is_damaged(case: str) -> None:
    """A row under an unknown key, and one in the clear that anybody could have forged, is Damaged."""
    seal, listed = SHUT_OUT[case]

    with pytest.raises(Damaged):
        Vault(listed).open(b"", Vault([seal]).seal(b"", FULL))


def test_the_key_of_a_row_changes_before_its_nonces_could_meet() -> None:
    """The prefix, from which a row's key is derived, serves 65,536 seals, and the nonces beside it are all different."""
    vault = Vault([Key("k", b"k" * 32)])
    start = len(RED.header) - len("red") + len("k")

    heads = [vault.seal(b"", None)[start : start + 24] for _ in range(2**16 + 1)]

    assert 1 == len({head[:12] for head in heads[:-1]})
    assert heads[0][:12] != heads[-1][:12]
    assert 2**16 + 1 == len({head[12:] for head in heads})


def test_keys_are_derived_as_rfc_5869_says() -> None:
    """A user's tag is an HMAC under the HKDF-Expand of the listed key, one index key to a namespace."""
    index_key = HKDFExpand(SHA256(), 32, b"sessiond user index\0shop").derive(b"r" * 32)

    expected = TAG_MARK + hmac.digest(index_key, b"ann", "sha256").hex()[:32]

    assert expected == ENCRYPTING.tag("shop", "ann")


def test_a_users_tag_tells_users_namespaces_and_keys_apart() -> None:
    """The same user has the same tag, and another one under another name, namespace or key; nobody has none."""
    tags = [ENCRYPTING.tag(*who) for who in (("a", "ann"), ("a", "ann"), ("a", "bob"), ("b", "ann"))]

    assert tags[0] == tags[1]
    assert 3 == len({*tags})
    assert ENCRYPTING.tag("a", None) is None
    assert (RED.tag("a", "ann"), BLUE.tag("a", "ann")) == ENCRYPTING.tags("a", "ann")
    assert (RED.tag("a", "ann"), "ann") == Vault([RED, Clear()]).tags("a", "ann")


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cryptography a key cannot be used: the sentence says how to install it. In the clear nothing needs it."""
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)

    with pytest.raises(SettingError, match="pip install cryptography"):
        Key("k", b"k" * 32)

    assert FULL == Vault().open(b"", Vault().seal(b"", FULL))


# Whatever stands there -------------------------------------------------------------------------------

EVERY = Vault([RED, BLUE, Clear()])


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x00", b"\x01", RED.header, BLUE.header]))
def test_strange_bytes_are_damaged(found: bytes, head: bytes) -> None:
    """Bytes that nobody sealed are Damaged, however they begin, and never anything else."""
    with pytest.raises(Damaged):
        EVERY.open(b"context", head + found)


@given(st.binary(max_size=300), st.sampled_from(EVERY.ids))
def test_strange_records_are_damaged(body: bytes, seal: str) -> None:
    """A valid seal over bytes that are no record, such as a forger can make in the clear, opens as a record or is Damaged."""
    sealed = Vault([{"red": RED, "blue": BLUE}.get(seal, Clear())]).seal_bytes(b"", body)

    with suppress(Damaged):
        record = EVERY.open(b"", sealed)
        assert isinstance(record, Record) or body == b""


@pytest.mark.parametrize("depth", [100, 100_000])
def test_a_record_that_is_nested_without_end_is_damaged(depth: int) -> None:
    """A forged record deeper than a reader can follow is Damaged too."""
    with pytest.raises(Damaged):
        EVERY.open(b"", EVERY.seal_bytes(b"", b"\x91" * depth))
    extra = codec.pack([*codec.unpack(codec.pack(FULL)), None])[:-1] + b"\x91" * depth + b"\x90"
    with suppress(Damaged):
        assert FULL == EVERY.open(b"", EVERY.seal_bytes(b"", extra))
