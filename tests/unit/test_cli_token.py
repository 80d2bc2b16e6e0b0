"""`sessiond token` as a terminal sees it."""

import json
import re
from pathlib import Path

import pytest

from sessiond import token_file
from sessiond.tokens import APP_SCOPES, SCOPES, Tokens
from tests.unit.test_cli import EXIT_SETTINGS, sessiond

TEXT = re.compile(r"sessiond_[0-9a-f]{12}_[0-9a-f]{64}\n")
EXIT_FAILED = 1


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "s.db")


def held(data: str) -> Tokens:
    return token_file.read(Path(f"{data}.tokens")) or Tokens()


def test_a_token_is_printed_once_and_alone(data: str) -> None:
    """Its text is all of stdout, so that a script can take it; what people should know is on stderr."""
    code, out, err = sessiond("token", "add", "shop", "--data", data)

    assert (code, bool(TEXT.fullmatch(out))) == (0, True)
    assert err == (
        "Keep it now: it is not shown again.\n"
        f"This is the first token, in {data}.tokens: a daemon with that file asks everybody for one.\n"
    )
    assert out.strip() not in sessiond("token", "list", "--data", data)[1]
    assert sessiond("token", "add", "blog", "--data", data)[2] == "Keep it now: it is not shown again.\n"


def test_a_token_may_be_bound_limited_and_dated(data: str) -> None:
    """Without options it may do all but admin in `default`, for ever."""
    for arguments in (
        ["plain"],
        ["narrow", "--namespace", "shop", "--scope", "list", "--scope", "read", "--expires", "90d"],
        ["root", "--admin"],
        ["scraper", "--scope", "admin"],
    ):
        assert sessiond("token", "add", *arguments, "--data", data)[0] == 0

    plain, narrow, root, scraper = held(data)

    assert (plain.namespace, plain.scopes, plain.expires_at) == ("default", APP_SCOPES, None)
    assert (narrow.namespace, narrow.scopes, narrow.lifetime) == ("shop", ("read", "list"), 90 * 24 * 3_600_000)
    assert (root.namespace, root.scopes) == (None, SCOPES)
    assert (scraper.namespace, scraper.scopes) == (None, ("admin",))


def test_the_list_is_for_people_and_for_programs(data: str) -> None:
    """Columns, or JSON with --json; nothing of a secret in either."""
    made = json.loads(sessiond("token", "add", "shop", "--expires", "1d", "--json", "--data", data)[1])
    sessiond("token", "add", "root", "--admin", "--data", data)

    code, table, _ = sessiond("token", "list", "--data", data)
    listed = json.loads(sessiond("token", "list", "--json", "--data", data)[1])

    assert code == 0
    head, first, second = table.splitlines()
    assert head.split() == ["NAME", "ID", "NAMESPACE", "SCOPES", "CREATED", "EXPIRES"]
    assert first.startswith(f"shop  {made['id']}  default    read write destroy list ")
    assert re.search(r"  \d{4}-\d\d-\d\d \d\d:\d\d  \d{4}-\d\d-\d\d \d\d:\d\d$", first)
    assert "every one  read write destroy list admin" in second
    assert second.endswith("never")
    assert listed[0] == {name: value for name, value in made.items() if name != "token"}
    assert [each["name"] for each in listed] == ["shop", "root"]
    assert sessiond("token", "list", "--json", "--data", f"{data}.other") == (
        0,
        "[]\n",
        f"There are no tokens in {data}.other.tokens: the daemon asks nobody for one.\n",
    )


@pytest.mark.parametrize(("instant", "day"), [(10**17, "9999-12-31 23:59"), (-(10**17), "1970-01-01 00:00")])
def test_an_instant_beyond_the_calendar_is_shown_all_the_same(data: str, instant: int, day: str) -> None:
    """Whoever writes the file by hand may mean `never` by it."""
    sessiond("token", "add", "shop", "--data", data)
    file = Path(f"{data}.tokens")
    file.write_text(re.sub(r'"created_at": \d+', f'"created_at": {instant}', file.read_text()))

    code, out, _ = sessiond("token", "list", "--data", data)

    assert (code, day in out) == (0, True)


def test_rotating_and_revoking(data: str) -> None:
    """A successor is printed as a new token is; what was revoked is named."""
    sessiond("token", "add", "shop", "--data", data)
    (first,) = held(data)

    code, out, _ = sessiond("token", "rotate", "shop", "--overlap", "1h", "--data", data)
    assert (code, bool(TEXT.fullmatch(out))) == (0, True)
    former, second = held(data)
    assert (former.id, former.expires_at) == (first.id, second.created_at + 3_600_000)

    assert sessiond("token", "rotate", "shop", "--overlap", "off", "--data", data)[0] == 0
    (third,) = held(data)
    assert sessiond("token", "revoke", third.id, "--data", data)[:2] == (0, f"revoked: shop {third.id}\n")
    assert [*held(data)] == []


def test_where_tokens_are_is_read_like_a_daemon_s_settings(tmp_path: Path) -> None:
    """From a flag, the environment, or the file of settings, also when these let others reach the daemon."""
    file = tmp_path / "s.toml"
    file.write_text(f'listen = "0.0.0.0:7377"\ndata = "{tmp_path}/from-file.db"\n')
    elsewhere = {"SESSIOND_TOKENS": f"{tmp_path}/from-environment"}

    assert sessiond("token", "add", "a", "--config", str(file))[0] == 0
    assert sessiond("token", "add", "b", "--config", str(file), environment=elsewhere)[0] == 0
    assert sessiond("token", "add", "c", "--tokens", f"{tmp_path}/from-flag", environment=elsewhere)[0] == 0

    names = {path.name: [token.name for token in token_file.read(path) or ()] for path in tmp_path.glob("from-*")}
    assert names == {"from-file.db.tokens": ["a"], "from-environment": ["b"], "from-flag": ["c"]}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["add", "a b"], EXIT_FAILED, "sessiond: the name of a token is 1 to 64 letters"),
        (
            ["add", "a", "--namespace", "A"],
            EXIT_FAILED,
            "sessiond: the token a cannot be bound to that: a namespace is",
        ),
        (
            ["add", "a", "--admin", "--scope", "read"],
            EXIT_SETTINGS,
            "sessiond: --admin is every scope in every namespace",
        ),
        (["add", "a", "--admin", "--namespace", "x"], EXIT_SETTINGS, "sessiond: --admin is every scope"),
        (
            ["add", "a", "--scope", "admin", "--namespace", "x"],
            EXIT_SETTINGS,
            "sessiond: --scope admin goes with every",
        ),
        (["add", "a", "--scope", "all"], EXIT_SETTINGS, "Invalid value for '--scope'"),
        (["add", "a", "--expires", "0"], EXIT_SETTINGS, "a duration is seconds, such as 90 or 0.5"),
        (["rotate", "nobody"], EXIT_FAILED, "sessiond: there is no token of that name or id"),
        (["rotate", "nobody", "--overlap", "soon"], EXIT_SETTINGS, "or it is off"),
        (["revoke", "nobody"], EXIT_FAILED, "sessiond: there is no token of that name or id"),
        (["list", "--data", "memory:"], EXIT_SETTINGS, "sessiond: the data is no file, so there is none beside it"),
        (["list", "--config", "/no/such/file"], EXIT_SETTINGS, "sessiond: the settings file /no/such/file cannot be"),
        (["list", "--tokens", "/proc"], EXIT_FAILED, "sessiond: the tokens in /proc cannot be read: Is a directory."),
    ],
)
def test_a_mistake_is_one_sentence(data: str, arguments: list[str], code: int, sentence: str) -> None:
    """What would be right is on stderr, nothing is on stdout, and nothing is changed."""
    found, out, err = sessiond("token", *arguments, *([] if "--data" in arguments else ["--data", data]))

    assert (found, out) == (code, "")
    assert sentence in err
    assert [*held(data)] == []
