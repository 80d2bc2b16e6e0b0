"""Where settings come from, what they may be, and the sentence that says what would be right."""

from pathlib import Path
from typing import Any

import pytest

from sessiond.calls import Policy
from sessiond.config import (
    POLICY,
    SETTINGS,
    Settings,
    duration,
    hosts,
    mode,
    needing_restart,
    read_settings,
    size,
    tokens_path,
)
from sessiond.errors import SettingError
from sessiond.http.address import Listen
from sessiond.http.bounds import Bounds, connections_for, files_allowed
from sessiond.tokens import Tokens, add

DAY = 24 * 3600 * 1000


def settings(**flags: Any) -> Settings:
    return read_settings(flags, {}, None)


def mistake(flags: dict[str, Any], environment: dict[str, str] | None = None, file: Path | None = None) -> str:
    """The sentence about settings that cannot be used."""
    with pytest.raises(SettingError) as error:
        read_settings(flags, environment or {}, file)
    return str(error.value)


def test_the_defaults_are_those_of_the_documentation() -> None:
    """Without any source: loopback, one file, full durability, two weeks to live."""
    assert settings() == Settings(
        listen=("127.0.0.1:7377",),
        data="data/sessions.db",
        durability="full",
        cache=64 * 1024**2,
        allow_anonymous=False,
        allowed_hosts=(),
        tls_cert=None,
        tls_key=None,
        tls_client_ca=None,
        socket_mode=0o660,
        max_connections=None,
        connection_lifetime=None,
        patience=10_000,
        idle=75_000,
        miss_budget=6000,
        failure_budget=60,
        ttl=14 * DAY,
        max_ttl=400 * DAY,
        lifetime=None,
        max_data=64 * 1024,
        max_sessions_per_user=None,
        when_user_full="evict-oldest",
        max_sessions=None,
        max_bytes=None,
        sweep_interval=10_000,
        drain=10_000,
        adjustable_clock=False,
        encryption_keys=None,
    )


def test_a_flag_goes_before_the_environment_before_the_file(tmp_path: Path) -> None:
    """Each source is asked in turn, for each setting by itself."""
    file = tmp_path / "sessiond.toml"
    file.write_text('ttl = "1h"\ndrain = 1\nmax_ttl = "3d"\n')

    found = read_settings({"ttl": "3h"}, {"SESSIOND_TTL": "2h", "SESSIOND_DRAIN": "2"}, file)

    assert (found.ttl, found.drain, found.max_ttl) == (3 * 3_600_000, 2000, 3 * DAY)
    assert found.sweep_interval == 10_000


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    """SESSIOND_CONFIG names the file; a --config goes before it."""
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text("drain = 1")
    other.write_text("drain = 2")
    environment = {"SESSIOND_CONFIG": str(one)}

    assert read_settings({}, environment, None).drain == 1000
    assert read_settings({}, environment, other).drain == 2000


def test_the_file_holds_its_own_types(tmp_path: Path) -> None:
    """Numbers, booleans and arrays of TOML are taken as what they are."""
    file = tmp_path / "s.toml"
    file.write_text(
        'listen = ["127.0.0.1:1", "[::1]:2"]\nttl = 90\ndrain = 0.5\nallow_anonymous = true\nmax_data = 1000\n'
        'allowed_hosts = ["a.example", "b.example"]\nlifetime = "off"\n'
    )

    found = read_settings({}, {}, file)

    assert found.listen == ("127.0.0.1:1", "[::1]:2")
    assert (found.ttl, found.drain, found.allow_anonymous, found.max_data) == (90_000, 500, True, 1000)
    assert (found.allowed_hosts, found.lifetime) == (("a.example", "b.example"), None)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (90, 90_000),
        ("90", 90_000),
        ("0.5", 500),
        (0.005, 5),
        ("1.005", 1005),  # 1004.9999999999999 in binary
        ("500ms", 500),
        ("30m", 1_800_000),
        ("1.5h", 5_400_000),
        ("14d", 14 * DAY),
        (" 14 D ", 14 * DAY),
        ("100000d", 100_000 * DAY),
    ],
)
def test_a_duration_is_seconds_or_has_a_unit(value: object, ms: int) -> None:
    """Read exactly, to the ms."""
    assert duration(value) == ms


@pytest.mark.parametrize(
    "value",
    [0, -1, "", "0", "0.0005", "1w", "1h30m", "off", "1e3", "nan", "inf", True, None, [1], "100001d", "٣", "1,5"],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    """Nothing is guessed, and 0 is no duration."""
    with pytest.raises(ValueError, match="a duration is seconds"):
        duration(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (65536, 65536),
        ("64KiB", 65536),
        ("64 kib", 65536),
        ("1GB", 10**9),
        ("1GiB", 2**30),
        ("10b", 10),
        ("2MB", 2_000_000),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(value: object, expected: int) -> None:
    """Units of 1024 have an i."""
    assert size(value) == expected


@pytest.mark.parametrize("value", [0, -1, "", "64K", "1.5MiB", "64KiBb", "1TiB", True, None, "1 2"])
def test_what_is_no_size_is_refused(value: object) -> None:
    """Nor is a size guessed."""
    with pytest.raises(ValueError, match="a size is bytes"):
        size(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:7377", Listen(host="127.0.0.1", port=7377)),
        ("localhost:0", Listen(host="localhost", port=0)),
        ("[::1]:7377", Listen(host="::1", port=7377)),
        ("unix:/run/s.sock", Listen(path="/run/s.sock")),
        ("unix:///run/s.sock", Listen(path="/run/s.sock")),
        ("unix:s.sock", Listen(path="s.sock")),
    ],
)
def test_an_address_is_host_and_port_or_a_path(text: str, expected: Listen) -> None:
    """TCP by host and port, IPv6 in brackets, or the path of a unix socket."""
    assert Listen.read(text) == expected


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("foo", "an address is HOST:PORT"),
        ("7377", "an address is HOST:PORT"),
        (":7377", "an address is HOST:PORT"),
        ("127.0.0.1:", "an address is HOST:PORT"),
        ("127.0.0.1:http", "an address is HOST:PORT"),
        ("127.0.0.1:65536", "an address is HOST:PORT"),
        ("127.0.0.1:-1", "an address is HOST:PORT"),
        ("::1:7377", "an IPv6 address stands in brackets: [::1]:7377"),
        ("[::1:7377", "an IPv6 address stands in brackets: [::1]:7377"),
        ("unix:", "unix:PATH needs a path"),
    ],
)
def test_a_wrong_address_is_named(address: str, reason: str) -> None:
    """The sentence holds the flag, what was given, and what would be right."""
    assert mistake({"listen": (address,)}).startswith(f"--listen cannot be '{address}': {reason}")


def test_addresses_are_separated_by_commas_everywhere() -> None:
    """A repeated flag, commas in it, and the environment all give several addresses."""
    several = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")

    assert settings(listen=("127.0.0.1:1", "127.0.0.1:2,127.0.0.1:3")).listen == several
    assert read_settings({}, {"SESSIOND_LISTEN": "127.0.0.1:1, 127.0.0.1:2,127.0.0.1:3"}, None).listen == several


def test_limits_are_part_of_the_policy() -> None:
    """The settings of limits reach the namespace's policy, and off is no limit."""
    given = {"max_sessions_per_user": "5", "when_user_full": "reject", "max_sessions": "1000", "max_bytes": "1MiB"}

    limited, free = settings(**given).policy(), settings(**dict.fromkeys(("max_sessions", "max_bytes"), "OFF")).policy()

    assert (5, "reject", 1000, 1024**2) == (
        limited.max_sessions_per_user,
        limited.when_user_full,
        limited.max_sessions,
        limited.max_bytes,
    )
    assert limited.limits is limited
    assert free.limits is None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("listen", "", "give at least one address"),
        ("data", " ", "it is the path of an SQLite file, or memory:"),
        ("data", "a\0b", "it is the path of an SQLite file, or memory:"),
        ("durability", "some", "it is full or relaxed"),
        ("cache", "much", "a size is bytes, such as 65536, or has a unit: 64KiB, 256MiB, 1GiB"),
        ("allow_anonymous", "maybe", "it is true or false"),
        ("tls_cert", "a\0b", "it is the path of a file"),
        ("tls_key", "a\0b", "it is the path of a file"),
        ("tls_client_ca", "a\0b", "it is the path of a file"),
        ("socket_mode", "rw", "it is a mode in octal that lets the owner in, such as 0660 or 0600"),
        ("max_connections", "0", "it is a whole number from 1, or auto"),
        (
            "connection_lifetime",
            "never",
            "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d; or it is off",
        ),
        ("patience", "0", "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d"),
        ("idle", "long", "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d"),
        ("miss_budget", "-1", "it is a whole number from 1, or off"),
        ("failure_budget", "1.5", "it is a whole number from 1, or off"),
        ("ttl", "0", "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d"),
        ("max_ttl", "ever", "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d"),
        (
            "lifetime",
            "none",
            "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d; or it is off",
        ),
        ("max_data", "-1", "a size is bytes, such as 65536, or has a unit: 64KiB, 256MiB, 1GiB"),
        ("max_sessions_per_user", "0", "it is a whole number from 1, or off"),
        ("when_user_full", "panic", "it is evict-oldest or reject"),
        ("max_sessions", "many", "it is a whole number from 1, or off"),
        ("max_bytes", "0", "a size is bytes, such as 65536, or has a unit: 64KiB, 256MiB, 1GiB; or it is off"),
        ("sweep_interval", "0s", "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d"),
        ("drain", "-1s", "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d"),
        ("adjustable_clock", "2", "it is true or false"),
        ("encryption_keys", "", "it is the path of a file with keys"),
        ("encryption_keys", "a\0b", "it is the path of a file with keys"),
        ("tokens", "a\0b", "it is the path of a file"),
        ("audit", "", "it is the path of a file, or off"),
    ],
)
def test_a_wrong_value_is_told_with_its_source(tmp_path: Path, name: str, value: str, reason: str) -> None:
    """Each source has its own name for a setting, and that is the one in the sentence."""
    file = tmp_path / "s.toml"
    file.write_text(f"{name} = {value!r}\n".replace("'", '"').replace("\\x00", "\\u0000"))
    variable, flag = f"SESSIOND_{name.upper()}", "--" + name.replace("_", "-")

    assert mistake({name: value}) == f"{flag} cannot be {value!r}: {reason}."
    assert mistake({}, {variable: value}) == f"{variable} cannot be {value!r}: {reason}."
    assert mistake({}, {}, file) == f"{name} in {file} cannot be {value!r}: {reason}."


def test_every_setting_has_a_wrong_value_above() -> None:
    """allowed_hosts alone can be any words."""
    tested = test_a_wrong_value_is_told_with_its_source.pytestmark[0].args[1]  # type: ignore[attr-defined]

    assert {row[0] for row in tested} == SETTINGS.keys() - {"allowed_hosts"}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("ON", True), ("no", False), ("", False)])
def test_a_boolean_has_many_spellings(text: str, value: bool) -> None:
    """As environments write them; a variable that is set and empty is false."""
    assert read_settings({}, {"SESSIOND_ADJUSTABLE_CLOCK": text}, None).adjustable_clock is value


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0660", 0o660), ("600", 0o600), ("0o666", 0o666), (0o660, 0o660), (0o200, 0o200)],
)
def test_a_mode_is_octal(value: object, expected: int) -> None:
    """As chmod takes it; TOML's own octal number is what it says."""
    assert mode(value) == expected


@pytest.mark.parametrize("value", ["0460", "0", "668", "06600", "-660", True, 660, ""])
def test_what_is_no_mode_is_refused(value: object) -> None:
    """Digits that are not octal, bits that sockets do not have, and a socket that its own daemon's user may not use."""
    with pytest.raises(ValueError, match="a mode in octal"):
        mode(value)


def test_numbers_may_be_left_to_the_daemon_or_switched_off() -> None:
    """auto and off stand for no number."""
    found = settings(max_connections="auto", miss_budget="off", failure_budget=" OFF ")

    assert (found.max_connections, found.miss_budget, found.failure_budget) == (None, None, None)
    assert settings(max_connections="20", miss_budget=3).bounds().connections == 20


def test_the_bounds_are_in_seconds() -> None:
    """What the listener keeps to is made of the settings; auto is reckoned from the files that the process may open."""
    bounds = settings(patience="5s", idle=60, connection_lifetime="1h").bounds()

    assert Bounds(5.0, 60.0, 3600.0, connections_for(files_allowed())) == bounds
    assert settings().bounds().lifetime is None


def test_tls_begins_with_a_certificate() -> None:
    """A key or an authority without a certificate would leave the daemon without TLS: it is a mistake."""
    for name in ("tls_key", "tls_client_ca"):
        assert mistake({name: "some.pem"}) == (
            f"{name} is set, and tls_cert is not: without a certificate there is no TLS. Set it too."
        )
    assert settings(tls_cert="both.pem").tls_key is None


def test_a_client_certificate_says_who_somebody_is() -> None:
    """A daemon that asks every client for a certificate may listen for other machines; one that only shows its own may not."""
    abroad = {"listen": ("0.0.0.0:0",), "tls_cert": "cert.pem"}

    assert settings(**abroad, tls_client_ca="ca.pem").listen == ("0.0.0.0:0",)
    assert "nobody is asked who they are" in mistake(abroad)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    """A mistyped name must not pass unseen, wherever it stands. The environment may hold names of others: of clients,
    of tests, and those that Kubernetes makes of a service's name."""
    near, far = tmp_path / "near.toml", tmp_path / "far.toml"
    near.write_text("max-ttl = 3")
    far.write_text("colour = 3")

    assert mistake({}, {"SESSIOND_LISTN": ":1"}) == "there is no setting SESSIOND_LISTN; did you mean SESSIOND_LISTEN?"
    assert mistake({}, {}, near) == f"{near} sets max-ttl, which is no setting; did you mean max_ttl?"
    assert mistake({}, {}, far) == f"{far} sets colour, which is no setting; sessiond serve --help lists them."
    strangers = (
        "URL",
        "TOKEN",
        "COMMAND",
        "TEST_REQUIRE",
        "SECRET",
        "SERVICE_HOST",
        "SERVICE_PORT",
        "PORT_7377_TCP_ADDR",
    )
    read_settings({}, {f"SESSIOND_{name}": "x" for name in strangers}, None)


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """One that is not there, is a folder, is no TOML, or is no text."""
    wrong, binary = tmp_path / "wrong.toml", tmp_path / "binary.toml"
    wrong.write_text("ttl: 3")
    binary.write_bytes(b"\xff\xfe")

    assert mistake({}, {}, tmp_path / "no") == (
        f"the settings file {tmp_path / 'no'} cannot be read: No such file or directory."
    )
    assert "cannot be read: Is a directory." in mistake({}, {}, tmp_path)
    assert f"the settings file {wrong} is not TOML: " in mistake({}, {}, wrong)
    assert f"the settings file {binary} is not TOML: " in mistake({}, {}, binary)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "127.9.9.9:0", "localhost:0", "LOCALHOST:0", "[::1]:0", "unix:/tmp/s.sock"]
)
def test_what_only_this_machine_reaches_needs_no_leave(address: str) -> None:
    """Loopback and unix sockets."""
    assert settings(listen=(address,)).listen == (address,)


@pytest.mark.parametrize("address", ["0.0.0.0:7377", "[::]:7377", "192.0.2.7:7377", "sessions.example:7377"])
def test_what_others_reach_has_to_be_said(address: str) -> None:
    """Without tokens and --allow-anonymous the daemon listens on loopback only, and the sentence tells all ways out."""
    assert mistake({"listen": ("127.0.0.1:0", address)}) == (
        f"listen is {address}, where other machines can reach it, and nobody is asked who they are. "
        "Make a token (`sessiond token add`), listen on 127.0.0.1, or, if the network itself is trusted, "
        "add --allow-anonymous."
    )
    assert settings(listen=(address,), allow_anonymous=True).listen == (address,)


def test_where_tokens_are_asked_for_others_may_reach_the_daemon(tmp_path: Path) -> None:
    """A file of tokens, beside the data or where the setting says, takes the place of --allow-anonymous."""
    data, own = tmp_path / "s.db", tmp_path / "own"
    Path(f"{data}.tokens").touch()
    own.touch()

    public = {"listen": ("0.0.0.0:7377",)}

    assert settings(**public, data=str(data)).listen == ("0.0.0.0:7377",)
    assert settings(**public, data="memory:", tokens=str(own)).listen == ("0.0.0.0:7377",)
    assert "where other machines can reach it" in mistake({**public, "data": str(tmp_path / "other.db")})
    assert read_settings(public, {}, None, guarded=True).listen == ("0.0.0.0:7377",)


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        ({}, "data/sessions.db.tokens"),
        ({"data": "/var/s.db"}, "/var/s.db.tokens"),
        ({"data": "sqlite:/var/s.db"}, "/var/s.db.tokens"),
        ({"data": "sqlite:///var/s.db"}, "/var/s.db.tokens"),
        ({"data": "~/s.db"}, "/home/ann/s.db.tokens"),
        ({"data": "sqlite:~/s.db"}, "/home/ann/s.db.tokens"),
        ({"data": "memory:"}, None),
        ({"data": "memory:", "tokens": "/etc/tokens"}, "/etc/tokens"),
    ],
)
def test_tokens_are_beside_the_data(monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], path: str | None) -> None:
    """Unless set, they are in the file called as the data with .tokens behind it; data that is no file has none."""
    monkeypatch.setenv("HOME", "/home/ann")

    assert tokens_path(settings(**flags)) == (None if path is None else Path(path))


# Namespaces ---------------------------------------------------------------------------------------------


def test_a_namespace_has_what_its_table_sets_and_else_what_stands_above(tmp_path: Path) -> None:
    """Its policy is that of the top level, flags and environment included, with its own settings in their place."""
    file = tmp_path / "s.toml"
    file.write_text('max_data = 1000\n[namespaces.shop]\nttl = "1h"\nlifetime = "12h"\n[namespaces.admin_2-x]\n')

    found = read_settings({"ttl": "3h"}, {"SESSIOND_MAX_TTL": "2d"}, file)

    base = Policy(ttl=3 * 3_600_000, max_ttl=2 * DAY, lifetime=None, max_data=1000)
    assert found.policy() == base
    assert found.namespaces == {
        "shop": Policy(ttl=3_600_000, max_ttl=2 * DAY, lifetime=DAY // 2, max_data=1000),
        "admin_2-x": base,
    }


def test_every_setting_of_a_policy_can_be_a_namespace_s_own() -> None:
    """The fields of Policy are settings, one and all."""
    assert set(POLICY) <= SETTINGS.keys()
    assert settings().policy() == Policy()


def test_the_namespaces_are_the_default_those_with_a_table_and_those_with_a_token(tmp_path: Path) -> None:
    """An admin's token adds none; a table goes before a token."""
    file = tmp_path / "s.toml"
    file.write_text("[namespaces.shop]\nttl = 60\n")
    found = read_settings({}, {}, file)
    some = Tokens()
    for name, namespace in (("a", "blog"), ("b", "shop"), ("c", None)):
        some, _, _ = add(some, name, namespace, ("admin",) if namespace is None else ("read",), 0)

    assert found.policies(None).keys() == {"default", "shop"}
    assert found.policies(some) == {"default": Policy(), "blog": Policy(), "shop": Policy(ttl=60_000)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("namespaces = 3", "{file} sets namespaces to a value; give each a table: [namespaces.NAME]."),
        ("[namespaces]\nshop = 3", "{file} sets namespaces to a value; give each a table: [namespaces.NAME]."),
        *(
            (
                f"[namespaces.{name}]",
                f"{{file}} has a table [namespaces.{shown}]: a namespace is 1 to 64 of a-z, 0-9, _ and -, "
                "and begins with a letter.",
            )
            for name, shown in [("Shop", "Shop"), ("1a", "1a"), ('".."', ".."), ("a" * 65, "a" * 65), ('""', "")]
        ),
        (
            "[namespaces.shop]\nlisten = 'a'",
            "[namespaces.shop] in {file} sets listen, which no namespace has of its own; it may set "
            + ", ".join(POLICY)
            + ".",
        ),
        (
            "[namespaces.shop]\nttl = 0",
            "ttl of [namespaces.shop] in {file} cannot be '0': "
            "a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d.",
        ),
        (
            "[namespaces.shop]\nttl = '401d'",
            "in [namespaces.shop] in {file}, ttl, 401d, is longer than max_ttl, 400d: "
            "lower the one or raise the other.",
        ),
        (
            "[namespaces.shop]\nmax_data = '16MiB'",
            "in [namespaces.shop] in {file}, max_data is over 15MiB, and one message of the stream holds 16MiB: "
            "lower it.",
        ),
    ],
)
def test_a_wrong_namespace_is_told_with_its_table(tmp_path: Path, text: str, sentence: str) -> None:
    """Its name, a setting that it cannot have, a value, and what does not go together."""
    file = tmp_path / "s.toml"
    file.write_text(text)

    assert mistake({}, {}, file) == sentence.format(file=file)


def test_what_needs_a_restart_is_named() -> None:
    """All that differs but the policy settings."""
    now = settings()

    assert needing_restart(now, settings(listen="127.0.0.1:1", drain="1s", ttl="1h", max_ttl="2h")) == [
        "listen",
        "drain",
    ]
    assert needing_restart(now, now) == []


def test_the_clock_of_a_daemon_that_others_reach_cannot_be_moved() -> None:
    """adjustable_clock is for tests on this machine."""
    flags = {"listen": ("0.0.0.0:0",), "allow_anonymous": True, "adjustable_clock": True}

    assert mistake(flags) == "adjustable_clock is for tests on this machine: listen on 127.0.0.1 with it."


def test_settings_that_contradict_each_other_are_refused() -> None:
    """A ttl over max_ttl, and data that no message of the stream can hold."""
    assert mistake({"ttl": "2d", "max_ttl": "1d"}) == (
        "ttl, 2d, is longer than max_ttl, 1d: lower the one or raise the other."
    )
    assert mistake({"max_data": "16MiB"}) == (
        "max_data is over 15MiB, and one message of the stream holds 16MiB: lower it."
    )
    assert settings(max_data="15MiB").max_data == 15 * 1024**2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {"localhost", "127.0.0.1", "[::1]"}),
        ({"listen": "[::1]:0"}, {"localhost", "127.0.0.1", "[::1]"}),
        ({"listen": "127.0.0.5:0"}, {"localhost", "127.0.0.1", "[::1]", "127.0.0.5"}),
        ({"listen": "unix:/tmp/s"}, {"localhost", "127.0.0.1", "[::1]"}),
        ({"allowed_hosts": "sessiond"}, {"localhost", "127.0.0.1", "[::1]", "sessiond"}),
        ({"allowed_hosts": "*"}, None),
        ({"listen": "0.0.0.0:0", "allow_anonymous": True}, None),
        (
            {"listen": "0.0.0.0:0", "allow_anonymous": True, "allowed_hosts": "a"},
            {"localhost", "127.0.0.1", "[::1]", "0.0.0.0", "a"},
        ),
    ],
)
def test_a_local_daemon_answers_for_local_names(flags: dict[str, Any], expected: set[str] | None) -> None:
    """What Host may name: this machine's names, unless others can reach the daemon or the setting says more."""
    assert hosts(settings(**flags)) == expected
