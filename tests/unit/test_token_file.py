"""The file of tokens: whole before and after a change, its owner's alone, and watched."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sessiond import token_file, tokens
from sessiond.errors import TokenError
from sessiond.token_file import Watch
from sessiond.tokens import APP_SCOPES, Token, Tokens

NOW = 1_800_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db.tokens"


def add(path: Path, name: str = "shop") -> Token:
    def edit(before: Tokens) -> tuple[Tokens, Token]:
        after, token, _ = tokens.add(before, name, "shop", APP_SCOPES, NOW)
        return after, token

    return token_file.change(path, edit)


def held(path: Path) -> list[Token]:
    return [*(token_file.read(path) or ())]


def test_a_change_is_read_again(path: Path) -> None:
    """Whatever edit makes of the tokens is what the file holds then; before the first there is none."""
    assert token_file.read(path) is None

    first, second = add(path), add(path, "blog")

    assert held(path) == [first, second]


def test_the_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700, whatever the umask, and nothing else is left there."""
    path = tmp_path / "new" / "tokens"
    before = os.umask(0)
    try:
        add(path)
        add(path, "blog")
    finally:
        os.umask(before)

    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_makes_the_file_for_the_daemon_s_user(path: Path) -> None:
    """An operator who is root leaves a file that the daemon, who owns the folder, can read."""
    os.chown(path.parent, 7377, 7377)

    add(path)

    assert (path.stat().st_uid, path.stat().st_gid) == (7377, 7377)


def test_a_change_that_fails_changes_nothing(path: Path) -> None:
    """An edit that is refused, or a file that cannot be used, leaves the file as it was and nothing beside it."""
    token = add(path)
    with pytest.raises(TokenError):
        add(path)
    assert held(path) == [token]

    path.write_text("broken")
    with pytest.raises(TokenError, match=f"^the tokens in {path} cannot be used: it is not a list of tokens"):
        add(path, "blog")

    assert path.read_text() == "broken"
    assert [*path.parent.iterdir()] == [path]


def test_a_file_that_cannot_be_had_is_told(path: Path) -> None:
    """With its path and the system's reason."""
    path.mkdir()

    with pytest.raises(TokenError, match=f"^the tokens in {path} cannot be read: Is a directory\\.$"):
        token_file.read(path)
    with pytest.raises(TokenError, match="cannot be written: No such file or directory"):
        add(Path("/proc/nobody/tokens"))


def test_changes_at_once_go_one_after_the_other(path: Path) -> None:
    """Of many processes that each add a token, none undoes what another did."""
    command = [sys.executable, "-m", "sessiond", "token", "add", "--tokens", str(path)]
    several = [subprocess.Popen([*command, f"n{n}"], stdout=-3, stderr=-3) for n in range(8)]

    assert [each.wait() for each in several] == [0] * 8
    assert {token.name for token in held(path)} == {f"n{n}" for n in range(8)}


def test_a_reader_finds_a_whole_file(path: Path) -> None:
    """The file is replaced, not written over: whoever has opened it reads what it was."""
    token = add(path)
    with path.open("rb") as before:
        add(path, "blog")

        assert [*tokens.read(before.read())] == [token]


# Watching -------------------------------------------------------------------------------------------


def test_a_watch_finds_changes(path: Path) -> None:
    """From no file at all to the first token, and on; without a change nothing is read."""
    watch = Watch(path)
    assert (watch.tokens, watch.has_changed()) == (None, False)

    token = add(path)

    assert (watch.has_changed(), watch.has_changed()) == (True, False)
    assert [*(watch.tokens or ())] == [token]


def test_a_broken_file_keeps_the_tokens_and_is_told_once(path: Path) -> None:
    """Until the next change, which may be its repair."""
    token = add(path)
    watch = Watch(path)
    path.write_text("broken")

    with pytest.raises(TokenError, match="cannot be used"):
        watch.has_changed()
    assert watch.has_changed() is False
    assert [*(watch.tokens or ())] == [token]

    path.unlink()
    with pytest.raises(TokenError, match=f"^the tokens in {path} are gone\\.$"):
        watch.has_changed()
    assert watch.has_changed() is False
    assert [*(watch.tokens or ())] == [token]

    other = add(path, "other")
    assert watch.has_changed() is True
    assert [*(watch.tokens or ())] == [other]


def test_the_last_revoked_token_leaves_the_door_shut(path: Path) -> None:
    """A file without tokens is no missing file: everybody is still asked."""
    add(path)
    watch = Watch(path)
    token_file.change(path, lambda before: tokens.revoke(before, "shop"))

    assert watch.has_changed() is True
    assert watch.tokens is not None
    assert len(watch.tokens) == 0


def test_a_watch_of_nothing_never_changes() -> None:
    """Where tokens have no place."""
    watch = Watch(None)

    assert (watch.tokens, watch.has_changed()) == (None, False)


def test_a_start_with_a_broken_file_is_refused(path: Path) -> None:
    """At start there are no tokens to keep."""
    path.write_text("broken")

    with pytest.raises(TokenError, match="cannot be used"):
        Watch(path)
