"""The command line: `sessiond serve`, and beside it `sessiond token`. With cli_token, the one door to click."""

import asyncio
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import uvloop

from sessiond import __version__
from sessiond.cli_token import token
from sessiond.config import SETTINGS, flag, read_settings
from sessiond.errors import SettingError, StartError, TokenError
from sessiond.server import serve as run

EXIT_SETTINGS, EXIT_START = 2, 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="sessiond %(version)s")
def main() -> None:
    """One small daemon gives every web process the same sessions."""


main.add_command(token)


def _with_settings(command: Any) -> Any:
    """One option a setting; without a default, so that only what was given counts as a flag."""
    for name, setting in reversed(SETTINGS.items()):
        kind: dict[str, Any] = (
            {"metavar": setting.holds, "multiple": setting.many} if setting.holds else {"is_flag": True}
        )
        default = f" [default: {setting.default}]" if setting.default else ""
        command = click.option(flag(name), name, default=None, help=setting.help + default, **kind)(command)
    return command


@main.command()
@click.option(
    "--config",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A TOML file with settings, named as the flags with _ for -.",
)
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
    flags = {name: value for name, value in given.items() if value is not None and value != ()}
    read = partial(read_settings, flags, dict(os.environ), config)
    try:
        settings = read()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings, _announce, read))
    except SettingError as e:
        _end(EXIT_SETTINGS, e)
    except (StartError, TokenError) as e:
        _end(EXIT_START, e)


def _announce(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _end(code: int, error: Exception) -> None:
    click.echo(f"sessiond: {error}", err=True)
    sys.exit(code)
