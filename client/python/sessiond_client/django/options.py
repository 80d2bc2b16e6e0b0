"""The `SESSIOND_*` settings, checked, and the clients that are made from them: one of each kind for a process.

A client connects with its first call, so that what a server makes before it forks has no connection to share.
"""

from __future__ import annotations

import functools
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

#: What a client is told, by the setting that says it.
CLIENT = {"SESSIOND_URL": "url", "SESSIOND_TOKEN": "token", "SESSIOND_DEADLINE": "deadline", "SESSIOND_TLS": "tls"}
#: What the middleware is told.
MIDDLEWARE = ("SESSIOND_EXCLUDE", "SESSIOND_OPTIONAL", "SESSIOND_META")


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
    return checked(Paths, getattr(settings, name, ()), said=name)


def checked(make: Callable[..., T], *arguments: Any, said: str = "", **named: Any) -> T:
    """Calls `make`. Raises ImproperlyConfigured, with the setting at fault, for what it refuses.

    Args:
        said: the setting, where it cannot be told from the error.
    """
    try:
        return make(*arguments, **named)
    except InvalidRequest as error:
        setting = said or f"SESSIOND_{error.code.removeprefix('bad_').upper()}"
        raise ImproperlyConfigured(f"{setting}: {error}") from None


def _of_client() -> dict[str, Any]:
    return {word: getattr(settings, name) for name, word in CLIENT.items() if hasattr(settings, name)}


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
