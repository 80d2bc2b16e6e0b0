"""The app of `tests/client/apps` in aiohttp. Served by gunicorn's aiohttp worker: `aiohttp_app:make`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WSMsgType, web

from sessiond_client import AsyncClient, cookies
from sessiond_client.aiohttp import get_session, session_middleware

from . import TTL

CLIENT = web.AppKey("client", AsyncClient)


async def untouched(request: web.Request) -> web.Response:
    return web.Response(text="untouched")


async def read(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response({"data": dict(session), "user": session.user})


async def slow(request: web.Request) -> web.Response:
    session = await get_session(request)
    await asyncio.sleep(int(request.match_info["ms"]) / 1000)
    return web.json_response({"data": dict(session), "user": session.user})


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
    session = await get_session(request)
    session.user = request.match_info["user"]
    raise web.HTTPFound("/read")


async def rotate(request: web.Request) -> web.Response:
    await (await get_session(request)).rotate()
    return web.json_response({})


async def logout(request: web.Request) -> web.Response:
    await (await get_session(request)).destroy()
    return web.json_response({})


async def clear(request: web.Request) -> web.Response:
    (await get_session(request)).clear()
    return web.json_response({})


async def fail(request: web.Request) -> web.Response:
    (await get_session(request))[request.match_info["key"]] = 1
    raise web.HTTPInternalServerError


async def devices(request: web.Request) -> web.Response:
    session = await get_session(request)
    here = cookies.key_of(session.sid) if session.sid else None
    entries = await request.app[CLIENT].list(user=session.user or "nobody")
    return web.json_response([{"agent": (e.meta or {}).get("agent"), "this": e.key == here} for e in entries])


async def everywhere(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response({"ended": await request.app[CLIENT].destroy_all(user=session.user or "nobody")})


async def calls(request: web.Request) -> web.Response:
    return web.json_response(request.app[CLIENT].stats.calls_sent)


async def ws(request: web.Request) -> web.WebSocketResponse:
    session = await get_session(request)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            session["ws"] = message.data
            await socket.send_str(message.data)
    return socket


async def make() -> web.Application:
    client = AsyncClient()
    app = web.Application(middlewares=[session_middleware(client, ttl=TTL, optional=["/optional/*"])])
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
            web.get("/ws", ws),
        ]
    )
    return app
