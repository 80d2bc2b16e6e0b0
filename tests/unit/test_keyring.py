"""The key list: what a line is, and the sentence for what is none."""

import base64
from pathlib import Path

import pytest

from sessiond.errors import SettingError
from sessiond.keyring import new_line, read_vault
from sessiond.vault import Key

SECRET = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()


def write(folder: Path, text: str) -> str:
    file = folder / "keys"
    file.write_text(text)
    return str(file)


def test_a_fresh_line_is_a_list_by_itself(tmp_path: Path) -> None:
    """`sessiond key new` prints a line that can be read; no two are alike in id or key."""
    lines = [new_line() for _ in range(100)]

    vault = read_vault(write(tmp_path, "\n".join(lines)))

    assert tuple(line.partition(":")[0] for line in lines) == vault.ids
    assert 100 == len({line.partition(":")[2] for line in lines})


def test_the_first_line_is_the_current_one(tmp_path: Path) -> None:
    """Lines in their order, with comments, empty lines and blanks passed over, and `plain` among them."""
    vault = read_vault(write(tmp_path, f"# ours\r\n\n b:{SECRET} \nplain\n  # old\na:{OTHER}"))

    assert ("b", ("b", "plain", "a")) == (vault.current, vault.ids)


def test_a_key_is_read_as_it_was_written(tmp_path: Path) -> None:
    """What is sealed under a listed key opens under those 32 bytes."""
    vault = read_vault(write(tmp_path, f"k:{SECRET}\n"))

    assert b"body" == Key("k", bytes(range(32))).open(b"", vault.seal_bytes(b"", b"body"))


def test_no_list_is_in_the_clear() -> None:
    """Without the setting nothing is read, and nothing encrypted."""
    assert ("plain",) == read_vault(None).ids


WRONG = {
    "no colon": ("canary", "line 1 of the key list {file} is no key: a line is ID:KEY"),
    "no id": (f":{SECRET}", "line 1 .* is no key"),
    "an id with a blank": (f"can ary:{SECRET}", "line 1 .* is no key"),
    "a long id": (f"{'c' * 17}:{SECRET}", "line 1 .* is no key"),
    "an id of other letters": (f"schlüssel:{SECRET}", "line 1 .* is no key"),
    "the id plain": (f"plain:{SECRET}", "line 1 .* is no key"),
    "a short key": (f"# one\ncanary:{SECRET[:40]}", "line 2 .* is no key"),
    "a long key": (f"canary:{base64.b64encode(bytes(33)).decode()}", "line 1 .* is no key"),
    "another alphabet": (f"canary:{'_' * 43}=", "line 1 .* is no key"),
    "no base64": ("canary:secret!", "line 1 .* is no key"),
    "an id twice": (f"a:{SECRET}\na:{OTHER}", "line 2 .* has the id of a line before it"),
    "plain twice": ("plain\nplain", "line 2 .* has the id of a line before it"),
    "a key twice": (f"a:{SECRET}\nb:{SECRET}", "line 2 .* has the key of a line before it"),
    "nothing": ("\n# only a word\n", "the key list {file} holds no key: put a line there"),
    "far too much": ("#" * 70_000, "the key list {file} is over 64KiB"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_list_is_told_and_never_repeated(tmp_path: Path, case: str) -> None:
    """The sentence names the file and the line, says what would be right, and repeats nothing of what stands there."""
    text, sentence = WRONG[case]
    file = write(tmp_path, text)

    with pytest.raises(SettingError, match=sentence.format(file=file)) as error:
        read_vault(file)

    said = str(error.value).replace(file, "")
    assert not any(secret in said for secret in ("canary", SECRET[:40], OTHER, "secret!"))


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A file that is not there, or is a folder, is named with the reason."""
    for file, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingError, match=f"the key list {file} cannot be read: {reason}."):
            read_vault(str(file))
