"""The settings: one table, from which come the flags, the environment's names, the keys of the file, and their checks.

A flag goes before the environment, that before the file, that before the default. docs/settings.md lists them, and a
test compares.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from sessiond.calls import DAY, Policy, WhenUserFull
from sessiond.errors import SettingError
from sessiond.http.address import Listen
from sessiond.http.bounds import Bounds, connections_for, files_allowed
from sessiond.tokens import DEFAULT_NAMESPACE, NAMESPACE_RULE, Tokens, check_namespace

POLICY = Policy.__struct_fields__
"""The settings that a namespace may have of its own, and that SIGHUP reads again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon runs with. Durations in ms, sizes in bytes, budgets a minute; None is `off`. `allowed_hosts` and
    `tokens` empty, `max_connections` None: see docs/settings.md. `namespaces`: the policies of those that have a table in
    the file."""

    listen: tuple[str, ...]
    data: str
    durability: str
    cache: int
    allow_anonymous: bool
    allowed_hosts: tuple[str, ...]
    tls_cert: str | None
    tls_key: str | None
    tls_client_ca: str | None
    socket_mode: int
    max_connections: int | None
    connection_lifetime: int | None
    patience: int
    idle: int
    miss_budget: int | None
    failure_budget: int | None
    ttl: int
    max_ttl: int
    lifetime: int | None
    max_data: int
    max_sessions_per_user: int | None
    when_user_full: WhenUserFull
    max_sessions: int | None
    max_bytes: int | None
    sweep_interval: int
    drain: int
    adjustable_clock: bool
    encryption_keys: str | None
    tokens: str = ""
    audit: str | None = None
    namespaces: Mapping[str, Policy] = field(default_factory=dict)

    def policy(self) -> Policy:
        """That of every namespace that sets nothing else."""
        return Policy(**{name: getattr(self, name) for name in POLICY})

    def policies(self, tokens: Tokens | None) -> dict[str, Policy]:
        """Every namespace that there is: the default one, those with a table, and those that a token is bound to."""
        bound = set() if tokens is None else tokens.namespaces()
        return {**dict.fromkeys([DEFAULT_NAMESPACE, *sorted(bound)], self.policy()), **self.namespaces}

    def bounds(self) -> Bounds:
        return Bounds(
            patience=self.patience / 1000,
            idle=self.idle / 1000,
            lifetime=None if self.connection_lifetime is None else self.connection_lifetime / 1000,
            connections=connections_for(files_allowed()) if self.max_connections is None else self.max_connections,
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """`read` makes the value of a text (or of the file's own number, boolean or array), or raises ValueError with what
    would be right. `holds`: what --help calls the value; empty for a flag without one. `many`: the flag may stand more
    than once."""

    default: Any
    read: Callable[[Any], Any]
    help: str
    holds: str = ""
    many: bool = False


MAX_DATA = 15 * 1024**2
"""Data, its user and its meta must fit into one message of the stream."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY}
_SIZES = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2, "gb": 1000**3}


def duration(value: object) -> int:
    """ms from 90 (seconds), 0.5, "500ms", "30m", "12h", "14d"."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h|d|)", str(value).strip().lower(), re.ASCII)
    ms = float(match[1]) * _UNITS[match[2] or "s"] if match and not isinstance(value, bool) else 0
    if ms < 1 or ms > 100_000 * DAY:
        raise ValueError("a duration is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d")
    return round(ms)


def size(value: object) -> int:
    """Bytes from 65536, "64KiB", "256 MiB", "1GB"."""
    match = re.fullmatch(r"(\d{1,15})\s*(b|kib|mib|gib|kb|mb|gb|)", str(value).strip().lower(), re.ASCII)
    if match is None or isinstance(value, bool) or int(match[1]) == 0:
        raise ValueError("a size is bytes, such as 65536, or has a unit: 64KiB, 256MiB, 1GiB")
    return int(match[1]) * _SIZES[match[2]]


def optional_duration(value: object) -> int | None:
    if str(value).strip().lower() == "off":
        return None
    try:
        return duration(value)
    except ValueError as e:
        raise ValueError(f"{e}; or it is off") from e


def number(value: object) -> int:
    match = re.fullmatch(r"\d{1,15}", str(value).strip(), re.ASCII)
    if match is None or isinstance(value, bool) or int(match[0]) == 0:
        raise ValueError("it is a whole number from 1")
    return int(match[0])


def optional_number(value: object) -> int | None:
    if str(value).strip().lower() == "off":
        return None
    try:
        return number(value)
    except ValueError as e:
        raise ValueError(f"{e}, or off") from e


def optional_size(value: object) -> int | None:
    if str(value).strip().lower() == "off":
        return None
    try:
        return size(value)
    except ValueError as e:
        raise ValueError(f"{e}; or it is off") from e


def boolean(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off", ""):
        return False
    raise ValueError("it is true or false")


def words(value: object) -> tuple[str, ...]:
    """An array from the file, the values of a repeated flag, or a text with commas."""
    return tuple(part.strip() for part in _text(value).split(",") if part.strip())


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def addresses(value: object) -> tuple[str, ...]:
    if not (found := words(value)):
        raise ValueError("give at least one address")
    for text in found:
        Listen.read(text)
    return found


def data_url(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("it is the path of an SQLite file, or memory:")
    return value


def key_list(value: object) -> str | None:
    if value is None:
        return None
    # Set to nothing, by a variable that was lost perhaps, must not mean in the clear.
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("it is the path of a file with keys")
    return value


def optional_path(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("it is the path of a file")
    return value.strip() or None


def token_path(value: object) -> str:
    return optional_path(value) or ""


def audit_path(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("it is the path of a file, or off")
    return None if value.strip().lower() == "off" else value.strip()


def mode(value: object) -> int:
    """The bits of "0660", or of TOML's 0o660."""
    text = f"{value:o}" if isinstance(value, int) and not isinstance(value, bool) else str(value).strip()
    if re.fullmatch(r"(0o?)?[0-7]{3}", text, re.ASCII) is None or not int(text[-3:], 8) & 0o200:
        raise ValueError("it is a mode in octal that lets the owner in, such as 0660 or 0600")
    return int(text[-3:], 8)


def automatic_number(value: object) -> int | None:
    if str(value).strip().lower() == "auto":
        return None
    try:
        return number(value)
    except ValueError as e:
        raise ValueError(f"{e}, or auto") from e


def durability(value: object) -> str:
    if value not in ("full", "relaxed"):
        raise ValueError("it is full or relaxed")
    return str(value)


def when_user_full(value: object) -> str:
    if value not in get_args(WhenUserFull):
        raise ValueError("it is evict-oldest or reject")
    return str(value)


SETTINGS: dict[str, Setting] = {
    "listen": Setting(
        "127.0.0.1:7377", addresses, "Where to listen: HOST:PORT or unix:PATH. May be repeated.", "ADDRESS", many=True
    ),
    "data": Setting("data/sessions.db", data_url, "Where sessions rest: an SQLite file, or memory:.", "PATH"),
    "durability": Setting(
        "full",
        durability,
        "full: a write is on disk when it is acknowledged. relaxed: creates, sets and patches up to 100 ms later.",
        "full|relaxed",
    ),
    "cache": Setting("64MiB", size, "What the cache of hot sessions may hold; the file may be far larger.", "SIZE"),
    "allow_anonymous": Setting(False, boolean, "Listen beyond this machine without asking who it is."),
    "allowed_hosts": Setting(
        (),
        words,
        "Names that a request may give as its Host, beside those listened on; * allows all. May be repeated.",
        "NAME",
        many=True,
    ),
    "tls_cert": Setting(None, optional_path, "The certificate for https, with its chain, in PEM.", "PATH"),
    "tls_key": Setting(None, optional_path, "Its key, if that is not in the same file.", "PATH"),
    "tls_client_ca": Setting(
        None,
        optional_path,
        "Ask every client for a certificate that one of the authorities in this file signed.",
        "PATH",
    ),
    "socket_mode": Setting("0660", mode, "Who may connect to a unix socket.", "MODE"),
    "max_connections": Setting(
        "auto", automatic_number, "How many connections may be open; auto: 80 % of the files that may be.", "NUMBER"
    ),
    "connection_lifetime": Setting(
        "off", optional_duration, "The age at which a connection is ended in good order; off: none.", "DURATION"
    ),
    "patience": Setting(
        "10s", duration, "How long a client may take to send what it has begun, and to read an answer.", "DURATION"
    ),
    "idle": Setting("75s", duration, "How long a connection may be silent between two requests.", "DURATION"),
    "miss_budget": Setting(
        "6000",
        optional_number,
        "Unknown ids that an address without a token may ask for in a minute; or off.",
        "NUMBER",
    ),
    "failure_budget": Setting(
        "60", optional_number, "Wrong tokens that an address may show in a minute; or off.", "NUMBER"
    ),
    "ttl": Setting("14d", duration, "How long a session lives without renewal when nobody says.", "DURATION"),
    "max_ttl": Setting("400d", duration, "The longest ttl that may be asked for.", "DURATION"),
    "lifetime": Setting(
        "off", optional_duration, "The age that no session can pass when nobody says; off: none.", "DURATION"
    ),
    "max_data": Setting("64KiB", size, "How large the data of one session may be, at most 15MiB.", "SIZE"),
    "max_sessions_per_user": Setting(
        "off", optional_number, "How many sessions one user may have at a time; off: any number.", "NUMBER"
    ),
    "when_user_full": Setting(
        "evict-oldest",
        when_user_full,
        "What a session too many does: take the place of the user's least recently renewed one, or be refused.",
        "evict-oldest|reject",
    ),
    "max_sessions": Setting("off", optional_number, "How many sessions there may be at a time in all.", "NUMBER"),
    "max_bytes": Setting("off", optional_size, "How large all sessions together may be.", "SIZE"),
    "sweep_interval": Setting("10s", duration, "How often what has died is removed from the file.", "DURATION"),
    "drain": Setting("10s", duration, "How long a stopping daemon waits for what is under way.", "DURATION"),
    "adjustable_clock": Setting(False, boolean, "For tests: POST /v1/clock moves the daemon's clock forward."),
    "encryption_keys": Setting(
        None, key_list, "A file with the keys under which sessions rest; `sessiond key new` prints one.", "PATH"
    ),
    "tokens": Setting(None, token_path, "The file of access tokens; unless set, DATA.tokens beside the data.", "PATH"),
    "audit": Setting(
        "off", audit_path, "A file of who did what to which session, a line of JSON each; off: none.", "PATH"
    ),
}


def read_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None, *, guarded: bool | None = None
) -> Settings:
    """The settings from all their sources. SettingError names the setting, its source and what would be right.

    `flags`: those that were given. `file`: a TOML file, or None for that named by SESSIOND_CONFIG, if any. `guarded`:
    whether everybody is asked for a token, so that other machines may reach the daemon; None: whether there is a file
    of tokens.
    """
    if file is None and (named := environment.get("SESSIOND_CONFIG")):
        file = Path(named)
    in_file = {} if file is None else _read_file(file)
    values: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        value, source = setting.default, name
        if name in in_file:
            value, source = in_file[name], f"{name} in {file}"
        if (variable := f"SESSIOND_{name.upper()}") in environment:
            value, source = environment[variable], variable
        if name in flags:
            value, source = flags[name], flag(name)
        try:
            values[name] = setting.read(value)
        except ValueError as e:
            raise SettingError(f"{source} cannot be {_text(value)!r}: {e}.") from e
    for variable in environment:
        if variable.startswith("SESSIOND_") and (meant := _misspelt(variable.removeprefix("SESSIOND_").lower())):
            raise SettingError(f"there is no setting {variable}; did you mean SESSIOND_{meant.upper()}?")
    settings = Settings(**values)
    _check_policy(settings.policy())
    tables = in_file.get("namespaces", {})
    settings = replace(settings, namespaces={name: _namespace(name, tables[name], values, file) for name in tables})
    if guarded is None:
        path = tokens_path(settings)
        guarded = path is not None and os.path.exists(path)
    return _together(settings, guarded)


def _namespace(name: str, table: Mapping[str, Any], values: Mapping[str, Any], file: Path | None) -> Policy:
    """What the table [namespaces.NAME] makes of the settings above it."""
    where = f"[namespaces.{name}] in {file}"
    own = {}
    for key, value in table.items():
        if key not in POLICY:
            raise SettingError(
                f"{where} sets {key}, which no namespace has of its own; it may set {', '.join(POLICY)}."
            )
        try:
            own[key] = SETTINGS[key].read(value)
        except ValueError as e:
            raise SettingError(f"{key} of {where} cannot be {_text(value)!r}: {e}.") from e
    policy = Policy(**{key: own.get(key, values[key]) for key in POLICY})
    _check_policy(policy, f"in {where}, ")
    return policy


def tokens_path(settings: Settings) -> Path | None:
    """Where the tokens are, or would be; None where data that is no file has none beside it."""
    if settings.tokens:
        return Path(settings.tokens)
    scheme, colon, rest = settings.data.partition(":")
    if colon and scheme != "sqlite":
        return None
    # A ~ means what it means in `data`, else they would lie beside another file, which the daemon does not look at.
    return Path(os.path.expanduser((rest.removeprefix("//") if colon else scheme) + ".tokens"))


def needing_restart(now: Settings, then: Settings) -> list[str]:
    """The settings that differ and are read at start only."""
    return [name for name in SETTINGS if name not in POLICY and getattr(now, name) != getattr(then, name)]


_OF_CLIENTS = ("url", "token")
"""What our clients read from the environment, which they may share with the daemon."""


def _misspelt(name: str) -> str | None:
    """The setting that a name in the environment was probably meant for; None for one of ours, and for strangers.

    Strangers are no mistake: Kubernetes gives every process SESSIOND_SERVICE_HOST when a service is called sessiond, and
    clients and apps have names of their own.
    """
    known = [*SETTINGS, "config"]
    return None if name in known or name in _OF_CLIENTS else next(iter(get_close_matches(name, known, 1, 0.75)), None)


def flag(name: str) -> str:
    """How a setting is written on the command line."""
    return "--" + name.replace("_", "-")


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except OSError as e:
        raise SettingError(f"the settings file {file} cannot be read: {e.strerror}.") from e
    except (ValueError, RecursionError) as e:  # beside its own errors, a number or a nesting beyond what Python reads
        raise SettingError(f"the settings file {file} is not TOML: {e}.") from e
    for name, value in values.items():
        if name == "namespaces":
            _check_tables(file, value)
        elif name not in SETTINGS:
            meant = get_close_matches(name.replace("-", "_"), SETTINGS, 1)
            hint = f"did you mean {meant[0]}?" if meant else "sessiond serve --help lists them."
            raise SettingError(f"{file} sets {name}, which is no setting; {hint}")
    return values


def _check_tables(file: Path, tables: object) -> None:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise SettingError(f"{file} sets namespaces to a value; give each a table: [namespaces.NAME].")
    for name in tables:
        try:
            check_namespace(name)
        except ValueError as e:
            raise SettingError(f"{file} has a table [namespaces.{name}]: {NAMESPACE_RULE}.") from e


def _said(ms: int) -> str:
    """A duration as people give it: in days where it is whole days."""
    return f"{ms // DAY}d" if ms % DAY == 0 else f"{ms / 1000:.15g} s"


def _check_policy(policy: Policy, where: str = "") -> None:
    """The rules that hold between the settings of a namespace."""
    if policy.ttl > policy.max_ttl:
        raise SettingError(
            f"{where}ttl, {_said(policy.ttl)}, is longer than max_ttl, {_said(policy.max_ttl)}: "
            "lower the one or raise the other."
        )
    if policy.max_data > MAX_DATA:
        raise SettingError(f"{where}max_data is over 15MiB, and one message of the stream holds 16MiB: lower it.")


def _together(settings: Settings, guarded: bool) -> Settings:
    """The rules that hold between settings."""
    for name in ("tls_key", "tls_client_ca"):
        if getattr(settings, name) is not None and settings.tls_cert is None:
            raise SettingError(
                f"{name} is set, and tls_cert is not: without a certificate there is no TLS. Set it too."
            )
    for listen in map(Listen.read, settings.listen):
        # A client that shows a certificate of the operator's own authority has been asked who it is.
        asks = guarded or settings.tls_client_ca is not None
        if not listen.is_local and not settings.allow_anonymous and not asks:
            raise SettingError(
                f"listen is {listen.address}, where other machines can reach it, and nobody is asked who they "
                "are. Make a token (`sessiond token add`), listen on 127.0.0.1, or, if the network itself is trusted, "
                "add --allow-anonymous."
            )
        if not listen.is_local and settings.adjustable_clock:
            raise SettingError("adjustable_clock is for tests on this machine: listen on 127.0.0.1 with it.")
    return settings


def hosts(settings: Settings) -> frozenset[str] | None:
    """What a Host header may name; None: anything.

    Unless they are set, a daemon that only this machine can reach answers for this machine's names, and one that others
    can reach, under names that it cannot know, for all.
    """
    listens = [Listen.read(text) for text in settings.listen]
    if "*" in settings.allowed_hosts:
        return None
    if not settings.allowed_hosts and not all(listen.is_local for listen in listens):
        return None
    own = {f"[{listen.host}]" if ":" in listen.host else listen.host for listen in listens if listen.host}
    return frozenset({"localhost", "127.0.0.1", "[::1]", *own, *settings.allowed_hosts})
