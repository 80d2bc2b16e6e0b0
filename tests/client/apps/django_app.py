"""The app of `tests/client/apps` in Django, with views that block. Served by gunicorn: `django_app:make()`."""

from __future__ import annotations

import time
from typing import Any

from django.contrib import auth
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, HttpResponseServerError, JsonResponse
from django.urls import path

from sessiond_client import cookies
from sessiond_client.django import async_client, client

from .django_site import configure, visitor


def own(items: Any) -> dict[str, Any]:
    """What the app itself has put into the session."""
    return {name: value for name, value in items if not name.startswith("_")}


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse("untouched", content_type="text/plain")


def read(request: HttpRequest, ms: int = 0) -> HttpResponse:
    user, data = request.user.pk, own(request.session.items())
    time.sleep(ms / 1000)
    return JsonResponse({"data": data, "user": user})


def set_entry(request: HttpRequest, key: str, value: str) -> HttpResponse:
    request.session.items()
    time.sleep(int(request.GET.get("hold", 0)) / 1000)
    request.session[key] = value
    return JsonResponse({})


def nested(request: HttpRequest, value: str) -> HttpResponse:
    if "cart" not in request.session:
        request.session["cart"] = {"items": []}
    request.session["cart"]["items"].append(value)
    return JsonResponse({})


def login(request: HttpRequest, user: str) -> HttpResponse:
    auth.login(request, visitor(user))
    return HttpResponseRedirect("/read")


def rotate(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return JsonResponse({})


def logout(request: HttpRequest) -> HttpResponse:
    auth.logout(request)
    return JsonResponse({})


def clear(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return JsonResponse({})


def fail(request: HttpRequest, key: str) -> HttpResponse:
    request.session[key] = 1
    return HttpResponseServerError()


def devices(request: HttpRequest) -> HttpResponse:
    entries = client().list(user=request.user.pk or "nobody")
    here = cookies.key_of(request.session.session_key or "")
    return JsonResponse([{"agent": (e.meta or {}).get("agent"), "this": e.key == here} for e in entries], safe=False)


def everywhere(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"ended": client().destroy_all(user=request.user.pk or "nobody")})


def calls(request: HttpRequest) -> HttpResponse:
    return JsonResponse(client().stats.calls_sent + async_client().stats.calls_sent, safe=False)


urlpatterns = [
    path("untouched", untouched),
    path("read", read),
    path("optional/read", read),
    path("slow/<int:ms>", read),
    path("set/<key>/<value>", set_entry),
    path("nested/<value>", nested),
    path("login/<user>", login),
    path("rotate", rotate),
    path("logout", logout),
    path("clear", clear),
    path("fail/<key>", fail),
    path("devices", devices),
    path("everywhere", everywhere),
    path("calls", calls),
]


def make() -> WSGIHandler:
    configure(__name__)
    return WSGIHandler()
