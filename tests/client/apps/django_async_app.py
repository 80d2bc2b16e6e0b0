"""The app of `tests/client/apps` in Django, with views that await. Served by uvicorn: `django_async_app:make`."""

from __future__ import annotations

import asyncio

from django.contrib import auth
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, HttpResponseServerError, JsonResponse
from django.urls import path

from sessiond_client import cookies
from sessiond_client.django import async_client

from .django_app import calls, own, untouched
from .django_site import configure, visitor


async def read(request: HttpRequest, ms: int = 0) -> HttpResponse:
    user, data = (await request.auser()).pk, own(await request.session.aitems())
    await asyncio.sleep(ms / 1000)
    return JsonResponse({"data": data, "user": user})


async def set_entry(request: HttpRequest, key: str, value: str) -> HttpResponse:
    await request.session.aitems()
    await asyncio.sleep(int(request.GET.get("hold", 0)) / 1000)
    await request.session.aset(key, value)
    return JsonResponse({})


async def nested(request: HttpRequest, value: str) -> HttpResponse:
    if not await request.session.ahas_key("cart"):
        await request.session.aset("cart", {"items": []})
    (await request.session.aget("cart"))["items"].append(value)
    return JsonResponse({})


async def login(request: HttpRequest, user: str) -> HttpResponse:
    await auth.alogin(request, visitor(user))
    return HttpResponseRedirect("/read")


async def rotate(request: HttpRequest) -> HttpResponse:
    await request.session.acycle_key()
    return JsonResponse({})


async def logout(request: HttpRequest) -> HttpResponse:
    await auth.alogout(request)
    return JsonResponse({})


async def clear(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return JsonResponse({})


async def fail(request: HttpRequest, key: str) -> HttpResponse:
    await request.session.aset(key, 1)
    return HttpResponseServerError()


async def devices(request: HttpRequest) -> HttpResponse:
    entries = await async_client().list(user=(await request.auser()).pk or "nobody")
    here = cookies.key_of(request.session.session_key or "")
    return JsonResponse([{"agent": (e.meta or {}).get("agent"), "this": e.key == here} for e in entries], safe=False)


async def everywhere(request: HttpRequest) -> HttpResponse:
    user = (await request.auser()).pk
    return JsonResponse({"ended": await async_client().destroy_all(user=user or "nobody")})


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


def make() -> ASGIHandler:
    configure(__name__)
    return ASGIHandler()
