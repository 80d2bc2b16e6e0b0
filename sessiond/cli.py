"""The command line: `sessiond serve`, `rekey`, `key new`, and beside them `sessiond token`. With cli_token, the one door to click."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import uvloop

from sessiond import __version__
from sessiond.cli_token import token
from sessiond.config import SETTINGS, Settings, flag, read_settings
from sessiond.engines.sqlite.seals import Progress
from sessiond.errors import SettingError, StartError, TokenError
from sessiond.keyring import new_line
from sessiond.rekey import rekey as run_rekey
from sessiond.server import EXIT_STORAGE
from sessiond.server import serve as run

EXIT_SETTINGS, EXIT_START = 2, 1

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="sessiond %(version)s")
def main() -> None:
    """One small daemon gives every web process the same sessions."""


main.add_command(token)


def _with_settings(command: Any) -> Any:
    """One option a setting; without a default, so that only what was given counts as a flag."""
    for name in reversed(SETTINGS):
        command = _option(name)(command)
    return command


def _option(name: str) -> Callable[[Any], Any]:
    """A setting as an option of a command."""
    setting = SETTINGS[name]
    kind: dict[str, Any] = {"metavar": setting.holds, "multiple": setting.many} if setting.holds else {"is_flag": True}
    default = f" [default: {setting.default}]" if setting.default else ""
    return click.option(flag(name), name, default=None, help=setting.help + default, **kind)


_config = click.option(
    "--config",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A TOML file with settings, named as the flags with _ for -.",
)


@main.command()
@_config
@_with_settings
def serve(config: Path | None, **given: Any) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C.

    Each setting can also come from the environment (SESSIOND_LISTEN, ...) or from the file; a flag goes first.

    \b
    A DURATION is seconds, such as 90 or 0.5, or has a unit: 500ms, 30m, 12h, 14d.
    A SIZE is bytes, such as 65536, or has a unit: 64KiB, 256MiB, 1GiB.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    _run(lambda settings, reread: run(settings, _announce, reread), config, given)


@main.command()
@_config
@_option("data")
@_option("encryption_keys")
def rekey(config: Path | None, **given: Any) -> None:
    """Bring all sessions under the first key of the list.

    The running daemon reads its key list again and does the work while it serves; this command shows how far it is,
    and at the end which lines the list no longer needs. Stopping it does not stop the work. Without a daemon, the
    command does the work itself.
    """
    end, spare = _run(lambda settings, _: run_rekey(settings, _show, _break), config, given)
    click.echo(f"Every row is sealed under {end.current}.")
    if end.damaged:
        click.echo(f"{end.damaged} rows opened under no key of the list: they were damaged before, and were left.")
    if spare:
        click.echo(f"The key list no longer needs {', '.join(spare)}; a backup that is older than this still does.")


def _show(progress: Progress, rate: float) -> None:
    """A line that is written over on a terminal, and one of many elsewhere."""
    again = sys.stderr.isatty()
    line = f"{progress.done:,} of {progress.total:,} rows, {rate:,.0f} a second"
    click.echo(f"\r{line:<60}" if again else line, nl=not again or not progress.old, err=True)


def _break(text: str) -> None:
    click.echo(f"sessiond: {text}", err=True)
    os._exit(EXIT_STORAGE)


@main.group()
def key() -> None:
    """Make keys for encryption at rest."""


@key.command()
def new() -> None:
    """Print a fresh line for the key list, with a random key."""
    click.echo(new_line())


def _run(
    work: Callable[[Settings, Callable[[], Settings]], Coroutine[Any, Any, T]],
    config: Path | None,
    given: dict[str, Any],
) -> T:
    """Runs `work` with the settings from all their sources, and with what reads them again; what it refuses ends the process in a sentence."""
    flags = {name: value for name, value in given.items() if value is not None and value != ()}
    read = partial(read_settings, flags, dict(os.environ), config)
    try:
        settings = read()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work(settings, read))
    except SettingError as e:
        _end(EXIT_SETTINGS, e)
    except (StartError, TokenError) as e:
        _end(EXIT_START, e)


def _announce(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _end(code: int, error: Exception) -> NoReturn:
    click.echo(f"sessiond: {error}", err=True)
    sys.exit(code)
