"""`sessiond token`: making, showing, replacing and revoking access tokens. A running daemon takes up a change by itself."""

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from sessiond import codec, token_file, tokens
from sessiond.clock import Clock
from sessiond.config import duration, optional_duration, read_settings, tokens_path
from sessiond.errors import SettingError, TokenError
from sessiond.tokens import Scope, Token, Tokens

T = TypeVar("T")

EXIT_SETTINGS, EXIT_FAILED = 2, 1

_LAST = 253_402_300_799_000
"""The last second of the year 9999, with which Python's calendar ends, in ms."""


class _Duration(click.ParamType[int]):
    """ms, from what the settings call a duration."""

    name = "duration"

    def __init__(self, read: Callable[[object], int | None]) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(value)
        except ValueError as e:
            self.fail(f"{e}.", param, ctx)


def _overlap(value: object) -> int:
    return optional_duration(value) or 0


@click.group()
def token() -> None:
    """Make, list, rotate and revoke access tokens.

    While there are none, only this machine can reach the daemon, and nobody is asked for one. With the first token
    everybody is. A running daemon takes up a change within a second.
    """


def _at_file(command: Any) -> Any:
    """The options that say where the tokens are; the same sources as those of `serve`."""
    for name, holds, told in (
        ("--tokens", "PATH", "The file of the tokens. [default: DATA.tokens]"),
        ("--data", "PATH", "The daemon's data, beside which its tokens are."),
        ("--config", "PATH", "The daemon's file of settings."),
    ):
        command = click.option(name, metavar=holds, help=told)(command)
    return command


_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_EXPIRES = click.option("--expires", type=_Duration(duration), help="How long it is valid, such as 90d.")


@token.command()
@click.argument("name")
@click.option("--namespace", metavar="NAME", help="The sessions that it is for. [default: default]")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(tokens.SCOPES),
    multiple=True,
    help="What it may do. May be repeated. [default: all but admin]",
)
@click.option("--admin", is_flag=True, help="For operators: every namespace, every scope.")
@_EXPIRES
@_AS_JSON
@_at_file
def add(
    name: str,
    namespace: str | None,
    scopes: tuple[Scope, ...],
    admin: bool,
    expires: int | None,
    as_json: bool,
    **where: str | None,
) -> None:
    """Make a token called NAME and print it, this once."""
    if admin and (scopes or namespace):
        _end(EXIT_SETTINGS, "--admin is every scope in every namespace: leave out --scope and --namespace.")
    scopes = tokens.SCOPES if admin else scopes or tokens.APP_SCOPES
    if "admin" in scopes and namespace is not None:
        _end(EXIT_SETTINGS, "--scope admin goes with every namespace: leave out --namespace, or that scope.")
    bound = None if "admin" in scopes else namespace or tokens.DEFAULT_NAMESPACE

    def edit(before: Tokens) -> tuple[Tokens, tuple[Token, str]]:
        after, made, text = tokens.add(before, name, bound, scopes, Clock().now(), expires)
        return after, (made, text)

    path = _path(where)
    is_first = not path.exists()
    _tell(*_change(path, edit), as_json)
    if is_first:
        click.echo(f"This is the first token, in {path}: a daemon with that file asks everybody for one.", err=True)


@token.command()
@click.argument("name")
@click.option(
    "--overlap",
    type=_Duration(_overlap),
    default="1d",
    show_default=True,
    help="How long the one before stays valid; off: it ends now.",
)
@_EXPIRES
@_AS_JSON
@_at_file
def rotate(name: str, overlap: int, expires: int | None, as_json: bool, **where: str | None) -> None:
    """Make a successor of the token NAME and print it, this once. Give it to the app while the one before is valid."""

    def edit(before: Tokens) -> tuple[Tokens, tuple[Token, str]]:
        after, made, text = tokens.rotate(before, name, Clock().now(), overlap, expires)
        return after, (made, text)

    _tell(*_change(_path(where), edit), as_json)


@token.command()
@click.argument("which", metavar="NAME|ID")
@_at_file
def revoke(which: str, **where: str | None) -> None:
    """End all tokens called NAME, or the one with this ID."""
    gone = _change(_path(where), lambda before: tokens.revoke(before, which))
    click.echo(f"revoked: {', '.join(f'{each.name} {each.id}' for each in gone)}")


@token.command("list")
@_AS_JSON
@_at_file
def list_(as_json: bool, **where: str | None) -> None:
    """Show the tokens; never their texts, which nobody has any more."""
    path = _path(where)
    found = _do(lambda: token_file.read(path))
    if found is None:
        click.echo(f"There are no tokens in {path}: the daemon asks nobody for one.", err=True)
        found = Tokens()
    now = Clock().now()
    if as_json:
        click.echo(codec.to_json([_plain(each, now) for each in found]), nl=False)
        return
    rows = [("NAME", "ID", "NAMESPACE", "SCOPES", "CREATED", "EXPIRES")]
    rows += [
        (
            each.name,
            each.id,
            each.namespace or "every one",
            " ".join(each.scopes),
            _day(each.created_at),
            "never" if each.expires_at is None else _day(each.expires_at) if each.is_valid(now) else "has expired",
        )
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _path(where: dict[str, str | None]) -> Path:
    """Where the tokens are, by the flags, the environment and the file, as `serve` reads them."""
    config = where.pop("config")
    flags = {name: value for name, value in where.items() if value is not None}
    try:
        settings = read_settings(flags, os.environ, None if config is None else Path(config), guarded=True)
    except SettingError as e:
        _end(EXIT_SETTINGS, str(e))
    path = tokens_path(settings)
    if path is None:
        _end(
            EXIT_SETTINGS,
            "the data is no file, so there is none beside it: give --tokens PATH, here and to the daemon.",
        )
    return path


def _change(path: Path, edit: Callable[[Tokens], tuple[Tokens, T]]) -> T:
    return _do(lambda: token_file.change(path, edit))


def _do(what: Callable[[], T]) -> T:
    try:
        return what()
    except TokenError as e:
        _end(EXIT_FAILED, str(e))


def _tell(made: Token, text: str, as_json: bool) -> None:
    if as_json:
        click.echo(codec.to_json({**_plain(made, made.created_at), "token": text}), nl=False)
    else:
        click.echo(text)
        click.echo("Keep it now: it is not shown again.", err=True)


def _plain(each: Token, now: int) -> dict[str, Any]:
    return {
        "name": each.name,
        "id": each.id,
        "namespace": each.namespace,
        "scopes": each.scopes,
        "created_at": each.created_at,
        "expires_at": each.expires_at,
        "valid": each.is_valid(now),
    }


def _day(instant: int) -> str:
    """An instant that no calendar has, which a hand wrote into the file, is shown as the first or the last that it has."""
    return datetime.fromtimestamp(min(max(instant, 0), _LAST) / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _end(code: int, sentence: str) -> NoReturn:
    click.echo(f"sessiond: {sentence}", err=True)
    sys.exit(code)
