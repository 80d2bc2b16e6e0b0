"""The app of `tests/client/apps` with aiohttp-session. Served by gunicorn's aiohttp worker: `aiohttp_session_app:make`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp_session import get_session

from sessiond_client import AsyncClient, cookies
from sessiond_client.aiohttp_session import SessiondStorage, regenerate, setup

from . import TTL

CLIENT = web.AppKey("client", AsyncClient)


async def untouched(request: web.Request) -> web.Response:
    return web.Response(text="untouched")


async def read(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response({"data": dict(session), "user": session.get("user")})


async def slow(request: web.Request) -> web.Response:
    session = await get_session(request)
    await asyncio.sleep(int(request.match_info["ms"]) / 1000)
    return web.json_response({"data": dict(session), "user": session.get("user")})


async def set_entry(request: web.Request) -> web.Response:
    session = await get_session(request)
    await asyncio.sleep(int(request.query.get("hold", 0)) / 1000)
    session[request.match_info["key"]] = request.match_info["value"]
    return web.json_response({})


async def nested(request: web.Request) -> web.Response:
    session = await get_session(request)
    if "cart" not in session:
        session["cart"] = {"items": []}
    session["cart"]["items"].append(request.match_info["value"])
    return web.json_response({})


async def login(request: web.Request) -> web.Response:
    (await get_session(request))["user"] = request.match_info["user"]
    raise web.HTTPFound("/read")


async def rotate(request: web.Request) -> web.Response:
    await regenerate(request)
    return web.json_response({})


async def logout(request: web.Request) -> web.Response:
    (await get_session(request)).invalidate()
    return web.json_response({})


async def clear(request: web.Request) -> web.Response:
    (await get_session(request)).clear()
    return web.json_response({})


async def fail(request: web.Request) -> web.Response:
    (await get_session(request))[request.match_info["key"]] = 1
    raise web.HTTPInternalServerError


async def devices(request: web.Request) -> web.Response:
    session = await get_session(request)
    here = cookies.key_of(session.identity) if session.identity else None
    entries = await request.app[CLIENT].list(user=session.get("user", "nobody"))
    return web.json_response([{"agent": (e.meta or {}).get("agent"), "this": e.key == here} for e in entries])


async def everywhere(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response({"ended": await request.app[CLIENT].destroy_all(user=session.get("user", "nobody"))})


async def calls(request: web.Request) -> web.Response:
    return web.json_response(request.app[CLIENT].stats.calls_sent)


def user_of(session: Any) -> str | None:
    user: str | None = session.get("user")
    return user


async def make() -> web.Application:
    client = AsyncClient()
    app = web.Application()
    setup(app, SessiondStorage(client, max_age=TTL, user=user_of, optional=["/optional/*"]))
    app[CLIENT] = client

    async def close(_: Any) -> AsyncIterator[None]:
        yield
        await client.close()

    app.cleanup_ctx.append(close)
    app.add_routes(
        [
            web.get("/untouched", untouched),
            web.get("/read", read),
            web.get("/optional/read", read),
            web.get("/slow/{ms}", slow),
            web.post("/set/{key}/{value}", set_entry),
            web.post("/nested/{value}", nested),
            web.post("/login/{user}", login),
            web.post("/rotate", rotate),
            web.post("/logout", logout),
            web.post("/clear", clear),
            web.post("/fail/{key}", fail),
            web.get("/devices", devices),
            web.post("/everywhere", everywhere),
            web.get("/calls", calls),
        ]
    )
    return app
