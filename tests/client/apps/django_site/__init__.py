"""What the apps in Django share: settings, and visitors who log in by the name in the address, without a database."""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings

from .. import TTL

OURS = "sessiond_client.django.SessionMiddleware"


def configure(urls: str, **more: Any) -> None:
    """Sets Django up, once in a process, with the views of this module; SESSION_MIDDLEWARE names another than ours."""
    settings.configure(
        **more,
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=urls,
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "sessiond_client.django",
            __name__,
        ],
        MIDDLEWARE=[
            os.environ.get("SESSION_MIDDLEWARE", OURS),
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        AUTH_USER_MODEL="django_site.Visitor",
        AUTHENTICATION_BACKENDS=[f"{__name__}.Backend"],
        SESSION_ENGINE="sessiond_client.django",
        SESSION_COOKIE_AGE=TTL,
        SESSIOND_OPTIONAL=["/optional/*"],
    )
    django.setup()


class Backend:
    """Knows everybody by name."""

    def get_user(self, name: str) -> Any:
        from .models import Visitor  # models can be imported only once Django is set up

        return Visitor(name=name)

    async def aget_user(self, name: str) -> Any:
        return self.get_user(name)


def visitor(name: str) -> Any:
    """Somebody who may log in."""
    user = Backend().get_user(name)
    user.backend = f"{__name__}.Backend"
    return user
