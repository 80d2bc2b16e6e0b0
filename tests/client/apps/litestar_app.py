"""The app of `tests/client/apps` in Litestar: `litestar_app:make`, and `litestar_app:make_lazy` with `lazy=True`.

The handlers use `request.session` in both; the lazy app reads it before each of them that has to do with it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Litestar, Request, Router, WebSocket, get, post, websocket
from litestar.enums import MediaType
from litestar.exceptions import WebSocketDisconnect
from litestar.response import Redirect

from sessiond_client import AsyncClient, cookies
from sessiond_client.litestar import SessiondSessionConfig, get_session, regenerate

from . import TTL

Asked = Request[Any, Any, Any]


@get("/untouched", media_type=MediaType.TEXT)
async def untouched() -> str:
    return "untouched"


@get(["/read", "/optional/read"])
async def read(request: Asked) -> dict[str, Any]:
    return {"data": request.session, "user": (await get_session(request)).user}


@get("/slow/{ms:int}")
async def slow(request: Asked) -> dict[str, Any]:
    session = request.session
    await asyncio.sleep(request.path_params["ms"] / 1000)
    return {"data": session, "user": (await get_session(request)).user}


@post("/set/{key:str}/{value:str}")
async def set_entry(request: Asked) -> dict[str, Any]:
    session = request.session
    await asyncio.sleep(int(request.query_params.get("hold", 0)) / 1000)
    session[request.path_params["key"]] = request.path_params["value"]
    return {}


@post("/nested/{value:str}")
async def nested(request: Asked) -> dict[str, Any]:
    request.session.setdefault("cart", {"items": []})["items"].append(request.path_params["value"])
    return {}


@post("/login/{user:str}", status_code=302)
async def login(request: Asked) -> Redirect:
    (await get_session(request)).user = request.path_params["user"]
    return Redirect("/read")


@post("/rotate")
async def rotate(request: Asked) -> dict[str, Any]:
    regenerate(request)
    return {}


@post("/logout")
async def logout(request: Asked) -> dict[str, Any]:
    request.clear_session()
    return {}


@post("/clear")
async def clear(request: Asked) -> dict[str, Any]:
    request.session.clear()
    return {}


@post("/fail/{key:str}")
async def fail(request: Asked) -> None:
    request.session[request.path_params["key"]] = 1
    raise RuntimeError


@get("/devices")
async def devices(request: Asked, client: AsyncClient) -> list[dict[str, Any]]:
    session = await get_session(request)
    here = cookies.key_of(session.sid) if session.sid else None
    entries = await client.list(user=session.user or "nobody")
    return [{"agent": (entry.meta or {}).get("agent"), "this": entry.key == here} for entry in entries]


@post("/everywhere")
async def everywhere(request: Asked, client: AsyncClient) -> dict[str, int]:
    session = await get_session(request)
    return {"ended": await client.destroy_all(user=session.user or "nobody")}


@get("/calls")
async def calls(client: AsyncClient) -> int:
    return client.stats.calls_sent


@websocket("/ws")
async def ws(socket: WebSocket[Any, Any, Any]) -> None:
    await get_session(socket)
    await socket.accept()
    while True:
        try:
            text = await socket.receive_text()
        except WebSocketDisconnect:
            return
        socket.session["ws"] = text
        await socket.send_text(text)


async def load(request: Asked) -> None:
    await get_session(request)


def make(*, lazy: bool = False) -> Litestar:
    client = AsyncClient()
    config = SessiondSessionConfig(client, max_age=TTL, optional=["/optional/*"], lazy=lazy)
    visited = Router(
        "/",
        route_handlers=[
            *(read, slow, set_entry, nested, login, rotate, logout, clear, fail, devices, everywhere),
        ],
        before_request=load if lazy else None,
    )
    return Litestar(
        [untouched, calls, ws, visited],
        middleware=[config.middleware],
        dependencies={"client": lambda: client},
        on_shutdown=[client.close],
    )


def make_lazy() -> Litestar:
    return make(lazy=True)
