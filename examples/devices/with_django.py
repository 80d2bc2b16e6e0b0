"""A login, a cart, ratings, "my devices", and log out everywhere, in Django.

    gunicorn with_django:app --workers 4 --threads 8 --bind 127.0.0.1:8002

SESSION_ENGINE and the middleware are all that the app needs to have sessions. It keeps them, and nothing else, so it has no
database: whoever logs in is known by name alone, as an app does it that asks someone else for passwords.
"""

import os

from django.conf import settings
from django.contrib.auth import SESSION_KEY as USER
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, HttpResponseRedirect
from django.urls import path
from django.views.decorators.http import require_POST

from sessiond_client import cookies
from sessiond_client.django import client

settings.configure(
    SECRET_KEY=os.environ.get("DEVICES_SECRET", "only for trying out"),
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["sessiond_client.django.SessionMiddleware"],
    SESSION_ENGINE="sessiond_client.django",  # at SESSIOND_URL, or http://127.0.0.1:7377
    SESSION_COOKIE_NAME="__Host-sessionid",
    SESSION_COOKIE_SECURE=True,
)


def page(text: str) -> HttpResponse:
    return HttpResponse(text, content_type="text/plain; charset=utf-8")


def home(request: HttpRequest) -> HttpResponse:
    session = request.session
    return page(f"{session.get(USER, 'nobody')}: {', '.join(session.get('cart', [])) or 'nothing'}\n")


@require_POST
def add(request: HttpRequest, thing: str) -> HttpResponse:
    """A change inside a value counts like any other."""
    request.session.setdefault("cart", []).append(thing)
    return page("added\n")


@require_POST
def rate(request: HttpRequest, thing: str, stars: int) -> HttpResponse:
    """Each thing has an entry of its own, so that any number of tabs may rate at once."""
    request.session[f"stars of {thing}"] = stars
    return page("rated\n")


def ratings(request: HttpRequest) -> HttpResponse:
    return page(f"{sum(name.startswith('stars of ') for name, _ in request.session.items())} rated\n")


@require_POST
def login(request: HttpRequest, name: str) -> HttpResponse:
    """With `django.contrib.auth` this is `auth.login(request, user)`. Because the user changes, the session gets a new id."""
    request.session[USER] = name
    return HttpResponseRedirect("/")


def devices(request: HttpRequest) -> HttpResponse:
    session = request.session
    if USER not in session:
        return HttpResponseForbidden("log in first\n")
    here = cookies.key_of(session.session_key)
    lines = [
        f"{entry.meta['agent'] if entry.meta else '?'}{' (this one)' if entry.key == here else ''}\n"
        for entry in client().list(user=session[USER])
    ]
    return page("".join(sorted(lines)))


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return page("bye\n")


@require_POST
def logout_everywhere(request: HttpRequest) -> HttpResponse:
    """All other devices; this one stays."""
    session = request.session
    if USER not in session:
        return HttpResponseForbidden("log in first\n")
    number = client().destroy_all(user=session[USER], except_sid=session.session_key)
    return page(f"{number} others logged out\n")


urlpatterns = [
    path("", home),
    path("add/<thing>", add),
    path("rate/<thing>/<int:stars>", rate),
    path("ratings", ratings),
    path("login/<name>", login),
    path("devices", devices),
    path("logout", logout),
    path("logout-everywhere", logout_everywhere),
]

app = get_wsgi_application()
