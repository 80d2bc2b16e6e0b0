"""The key list: a file that names the seals of a vault, the current one first.

    # made by `sessiond key new`
    k-7f3a91c2:3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
    plain

A line is ID:KEY, the key as base64 of 32 bytes, or `plain`: rows in the clear. The first line seals what is written
from now on; the others still open what was written before. Empty lines and those that begin with # are passed over.
"""

import binascii
import os
import re
from base64 import b64decode, b64encode
from pathlib import Path

from sessiond.errors import SettingError
from sessiond.vault import KEY_BYTES, PLAIN, Clear, Key, Seal, Vault

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", re.ASCII)
_MAX_FILE = 64 * 1024  # a thousand keys


def new_line() -> str:
    """A fresh line for the list: a random id, which no other list has by chance, and a random key."""
    return f"k-{os.urandom(4).hex()}:{b64encode(os.urandom(KEY_BYTES)).decode()}"


def read_vault(file: str | None) -> Vault:
    """The vault of the key list in `file`; None: the one that seals in the clear.

    SettingError names the file and the line, and never repeats what stands there.
    """
    if file is None:
        return Vault()
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(_MAX_FILE + 1)
    except OSError as e:
        raise SettingError(f"the key list {file} cannot be read: {e.strerror}.") from e
    if len(text) > _MAX_FILE:
        raise SettingError(f"the key list {file} is over 64KiB, so it is none: give the file with the keys.")
    seals: list[Seal] = []
    secrets: set[bytes] = set()
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        where = f"line {number} of the key list {file}"
        seal = _read(line, where, secrets)
        if any(seal.id == other.id for other in seals):
            raise SettingError(f"{where} has the id of a line before it: give each key an id of its own.")
        seals.append(seal)
    if not seals:
        raise SettingError(f"the key list {file} holds no key: put a line there that `sessiond key new` prints.")
    return Vault(seals)


def _read(line: bytes, where: str, secrets: set[bytes]) -> Seal:
    if line == PLAIN.encode():
        return Clear()
    name, _, encoded = line.decode("ascii", "replace").partition(":")
    try:
        secret = b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not _ID.fullmatch(name) or name == PLAIN or len(secret) != KEY_BYTES:
        raise SettingError(
            f"{where} is no key: a line is ID:KEY, the key as base64 of {KEY_BYTES} bytes, as `sessiond key new` prints it, "
            f"or the word {PLAIN}."
        )
    if secret in secrets:
        raise SettingError(f"{where} has the key of a line before it under another id: make a new one.")
    secrets.add(secret)
    return Key(name, secret)
