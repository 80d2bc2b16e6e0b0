"""The command as a terminal sees it: one sentence for each mistake, and the exit code that belongs to it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sessiond import __version__
from sessiond.config import SETTINGS

EXIT_START, EXIT_SETTINGS = 1, 2


def sessiond(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    run = subprocess.run(
        [sys.executable, "-m", "sessiond", *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in run.stderr
    return run.returncode, run.stdout, run.stderr


def test_the_version_is_told() -> None:
    """`sessiond --version` says the name and the number."""
    assert sessiond("--version") == (0, f"sessiond {__version__}\n", "")


def test_help_shows_every_setting_with_its_default() -> None:
    """`serve --help` has a flag for each setting, what it holds, and how durations and sizes are written."""
    code, out, _ = sessiond("serve", "--help")

    told = re.sub(r"\s+", " ", out)
    assert code == 0
    for name, setting in SETTINGS.items():
        flag = "--" + name.replace("_", "-")
        assert f"{flag} {setting.holds}".strip() in told
        assert setting.help in told
        if isinstance(setting.default, str):
            assert f"[default: {setting.default}]" in told
    assert "A DURATION is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d." in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--ttl", "0"], "sessiond: --ttl cannot be '0': a duration is seconds, such as 90 or 0.5"),
        (["--listen", "foo"], "sessiond: --listen cannot be 'foo': an address is HOST:PORT"),
        (["--listen", "0.0.0.0:0"], "sessiond: listen is 0.0.0.0:0, where other machines can reach it"),
        (["--data", "redis://x"], "sessiond: data is 'redis://x': give the path of an SQLite file"),
        (["--data", "~no.such.user/s.db"], "sessiond: data is '~no.such.user/s.db', and there is no such home"),
        (["--config", "/no/such/file"], "sessiond: the settings file /no/such/file cannot be read"),
        (["--nonsense"], "Error: No such option '--nonsense'"),
        (["extra"], "Error: Got unexpected extra argument (extra)"),
    ],
)
def test_wrong_settings_end_with_2_and_a_sentence(arguments: list[str], sentence: str) -> None:
    """Nothing is started, nothing is printed to stdout, and stderr says what would be right."""
    code, out, err = sessiond("serve", *arguments)

    assert (code, out) == (EXIT_SETTINGS, "")
    assert sentence in err


def test_a_wrong_variable_ends_with_2_and_its_name() -> None:
    """The environment is checked as the flags are."""
    code, _, err = sessiond("serve", environment={"SESSIOND_DRAIN": "soon"})

    assert code == EXIT_SETTINGS
    assert err.startswith("sessiond: SESSIOND_DRAIN cannot be 'soon': ")
    assert err.count("\n") == 1


def test_key_new_prints_a_line_for_the_list() -> None:
    """`sessiond key new` says one line, another each time, that a key list takes."""
    (_, one, _), (code, other, err) = sessiond("key", "new"), sessiond("key", "new")

    assert (0, "") == (code, err)
    assert re.fullmatch(r"k-[0-9a-f]{8}:[A-Za-z0-9+/]{43}=\n", one)
    assert one != other


def test_a_key_list_that_cannot_be_used_ends_with_2_and_a_sentence(tmp_path: Path) -> None:
    """The daemon does not start in the clear when it was told to encrypt."""
    (tmp_path / "keys").write_text("canary\n")
    data = ("--data", str(tmp_path / "s.db"))

    wrong = sessiond("serve", *data, "--encryption-keys", str(tmp_path / "keys"))
    none = sessiond("serve", *data, environment={"SESSIOND_ENCRYPTION_KEYS": str(tmp_path / "none")})

    for code, out, err in (wrong, none):
        assert (EXIT_SETTINGS, "") == (code, out)
        assert err.startswith("sessiond: ")
        assert "canary" not in err
        assert 1 == err.count("\n")
    assert not (tmp_path / "s.db").exists()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("/proc/nobody/s.db", "sessiond: cannot use /proc/nobody/s.db: "),
        ("{folder}/file/s.db", "sessiond: cannot use {folder}/file/s.db: "),
        (
            "{folder}",
            "sessiond: cannot use {folder}: Is a directory. Give a file in a folder that sessiond may write to.",
        ),
        ("{folder}/file", "sessiond: cannot open {folder}/file: file is not a database."),
    ],
)
def test_data_that_cannot_be_opened_ends_with_1_and_a_sentence(tmp_path: Path, data: str, sentence: str) -> None:
    """A folder that cannot be made, a file in the place of a folder, a folder in the place of a file, another file."""
    (tmp_path / "file").write_text("this is no database, and it is long enough to be looked at\n" * 20)

    code, out, err = sessiond("serve", "--listen", "127.0.0.1:0", "--data", data.format(folder=tmp_path))

    assert (code, out) == (EXIT_START, "")
    assert err.startswith(sentence.format(folder=tmp_path))
    assert err.count("\n") == 1
