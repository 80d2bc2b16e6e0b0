"""The `SESSIOND_*` settings, checked, and the clients that are made from them: one of each kind for a process.

A client connects with its first call, so that what a server makes before it forks has no connection to share.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .._async import AsyncClient
from .._sync import Client
from ..errors import InvalidRequest
from ..lifecycle import Paths

T = TypeVar("T")

#: What a client is told: each setting, the types that it may have, and what they are in words. None stands for unset.
CLIENT: dict[str, tuple[Any, str]] = {
    "SESSIOND_URL": (str | list | tuple, "an address, or a list of addresses"),
    "SESSIOND_TOKEN": (str, "a string"),
    "SESSIOND_DEADLINE": (int | float, "a number of seconds"),
    "SESSIOND_TLS": (ssl.SSLContext, "an ssl.SSLContext"),
}
#: What the middleware is told.
MIDDLEWARE: dict[str, tuple[Any, str]] = {
    "SESSIOND_EXCLUDE": (str | list | tuple, "a list of paths"),
    "SESSIOND_OPTIONAL": (str | list | tuple, "a list of paths"),
    "SESSIOND_META": (bool, "True or False"),
}


@functools.cache
def client() -> Client:
    """The blocking client of this process, for "my devices" and "log out everywhere" too."""
    return checked(Client, **_of_client())


@functools.cache
def async_client() -> AsyncClient:
    """The asyncio client of this process, for all of its event loops."""
    return checked(AsyncClient, **_of_client())


def paths(name: str) -> Paths:
    """The paths that a setting lists; none unless it is set."""
    return checked(Paths, setting(name, ()), said=name)


def setting(name: str, default: Any = None) -> Any:
    """The value of a setting. Raises ImproperlyConfigured for one of another type."""
    value = getattr(settings, name, None)
    types, words = {**CLIENT, **MIDDLEWARE}[name]
    if value is not None and not isinstance(value, types):
        raise ImproperlyConfigured(f"{name} has to be {words}.")
    return default if value is None else value


def checked(make: Callable[..., T], *arguments: Any, said: str = "", **named: Any) -> T:
    """Calls `make`. Raises ImproperlyConfigured, with the setting at fault, for what it refuses.

    Args:
        said: the setting, where it cannot be told from the error.
    """
    try:
        return make(*arguments, **named)
    except InvalidRequest as error:
        name = said or f"SESSIOND_{error.code.removeprefix('bad_').upper()}"
        raise ImproperlyConfigured(f"{name}: {error}") from None


def _of_client() -> dict[str, Any]:
    told = {name.removeprefix("SESSIOND_").lower(): setting(name) for name in CLIENT}
    return {word: value for word, value in told.items() if value is not None}


def _forget(*, setting: str, **_: Any) -> None:
    """Makes new clients after a test has overridden a setting."""
    if setting in CLIENT:
        for made in (client, async_client):
            if made.cache_info().currsize:
                _close(made())
            made.cache_clear()


def _close(old: Client | AsyncClient) -> None:
    if isinstance(old, Client):
        old.close()
    else:
        old._close()  # what `close` does before it waits; there may be no event loop here


setting_changed.connect(_forget, dispatch_uid="sessiond_client.django")
