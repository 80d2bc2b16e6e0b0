"""What `manage.py check` says about the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .middleware import SessionMiddleware
from .options import CLIENT, MIDDLEWARE, client, paths, setting
from .store import SessionStore


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Errors for settings that cannot work, warnings for those that weaken sessions or do nothing."""
    found: list[checks.CheckMessage] = []
    makers: list[Callable[[], Any]] = [
        client,
        SessionStore,
        lambda: [paths("SESSIOND_EXCLUDE"), paths("SESSIOND_OPTIONAL"), setting("SESSIOND_META")],
    ]
    for make in makers:
        try:
            make()
        except ImproperlyConfigured as error:
            found.append(checks.Error(str(error), id="sessiond.E001"))
    if not settings.SESSION_COOKIE_SECURE and not settings.DEBUG:
        found.append(
            checks.Warning(
                "The session cookie also travels over plain http, where others can read it.",
                hint='Set SESSION_COOKIE_SECURE = True, and SESSION_COOKIE_NAME = "__Host-sessionid".',
                id="sessiond.W001",
            )
        )
    said = {name for name in dir(settings) if name.startswith("SESSIOND_")}
    if unknown := sorted(said - {*CLIENT, *MIDDLEWARE}):
        found.append(checks.Warning(f"{', '.join(unknown)}: there is no such setting.", id="sessiond.W002"))
    if (idle := sorted(said & {*MIDDLEWARE})) and not _has_our_middleware():
        found.append(
            checks.Warning(
                f"{', '.join(idle)}: only sessiond_client.django.SessionMiddleware looks at that.",
                hint="Put it into MIDDLEWARE, in the place of Django's.",
                id="sessiond.W003",
            )
        )
    return found


def _has_our_middleware() -> bool:
    classes = [import_string(name) for name in settings.MIDDLEWARE]
    return any(isinstance(each, type) and issubclass(each, SessionMiddleware) for each in classes)
