"""Views, in Django, for gunicorn: `django_app:make("sessiond")`. What the store is reached by is in SPEED_URL.

python -m benchmarks.speed.apps.django_app makes the table of the db engine.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.urls import path

STOCK = "django.contrib.sessions.middleware.SessionMiddleware"


def views(request: HttpRequest) -> HttpResponse:
    request.session["views"] = request.session.get("views", 0) + 1
    return HttpResponse(str(request.session["views"]))


urlpatterns = [path("", views)]


def make(store: str) -> WSGIHandler:
    """`store`: sessiond, db (on PostgreSQL) or cache (on Redis)."""
    configure(store)
    return WSGIHandler()


def configure(store: str) -> None:
    url = os.environ["SPEED_URL"]
    engines: dict[str, dict[str, Any]] = {
        "sessiond": {
            "SESSION_ENGINE": "sessiond_client.django",
            "SESSIOND_URL": url,
            "MIDDLEWARE": ["sessiond_client.django.SessionMiddleware"],
        },
        "db": {
            "SESSION_ENGINE": "django.contrib.sessions.backends.db",
            "DATABASES": {"default": database(url)},
            "MIDDLEWARE": [STOCK],
        },
        "cache": {
            "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
            "CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}},
            "MIDDLEWARE": [STOCK],
        },
    }
    settings.configure(
        SECRET_KEY="speed",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.sessions"],
        **engines[store],
    )
    django.setup()


def database(url: str) -> dict[str, Any]:
    """Settings of a database whose connections are kept, one a thread."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": parts.hostname,
        "PORT": parts.port,
        "USER": parts.username,
        "NAME": parts.path[1:],
        "CONN_MAX_AGE": None,
    }


if __name__ == "__main__":
    configure("db")
    call_command("migrate", verbosity=0)
