"""The app of `tests/client/apps` in Starlette, with sessions as its own middleware has them: `request.session`, a dict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from sessiond_client import AsyncClient, cookies
from sessiond_client.starlette import SessionMiddleware, load_session

from . import TTL

client = AsyncClient()


async def untouched(request: Request) -> Response:
    return PlainTextResponse("untouched")


async def read(request: Request) -> Response:
    return JSONResponse({"data": request.session, "user": request.session.get("user")})


async def slow(request: Request) -> Response:
    session = request.session
    await asyncio.sleep(request.path_params["ms"] / 1000)
    return JSONResponse({"data": session, "user": session.get("user")})


async def set_entry(request: Request) -> Response:
    session = request.session
    await asyncio.sleep(int(request.query_params.get("hold", 0)) / 1000)
    session[request.path_params["key"]] = request.path_params["value"]
    return JSONResponse({})


def nested(request: Request) -> Response:
    if "cart" not in request.session:
        request.session["cart"] = {"items": []}
    request.session["cart"]["items"].append(request.path_params["value"])
    return JSONResponse({})


async def login(request: Request) -> Response:
    request.session["user"] = request.path_params["user"]
    return RedirectResponse("/read", 303)


async def rotate(request: Request) -> Response:
    await (await load_session(request)).rotate()
    return JSONResponse({})


async def logout(request: Request) -> Response:
    request.session.clear()
    return JSONResponse({})


async def fail(request: Request) -> Response:
    request.session[request.path_params["key"]] = 1
    raise HTTPException(500)


async def devices(request: Request) -> Response:
    session = await load_session(request)
    here = cookies.key_of(session.sid) if session.sid else None
    entries = await client.list(user=session.user or "nobody")
    return JSONResponse([{"agent": (e.meta or {}).get("agent"), "this": e.key == here} for e in entries])


async def everywhere(request: Request) -> Response:
    return JSONResponse({"ended": await client.destroy_all(user=request.session.get("user", "nobody"))})


async def calls(request: Request) -> Response:
    return JSONResponse(client.stats.calls_sent)


async def ws(socket: WebSocket) -> None:
    await socket.accept()
    while True:  # until the browser is gone, which is raised
        text = await socket.receive_text()
        socket.session["ws"] = text
        await socket.send_text(text)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    await client.close()


app = Starlette(
    lifespan=lifespan,
    middleware=[
        Middleware(
            SessionMiddleware,
            client=client,
            secret_key="keyboard cat",
            max_age=TTL,
            user=lambda data: data.get("user"),
            optional=["/optional/*"],
        )
    ],
    routes=[
        Route("/untouched", untouched),
        Route("/read", read),
        Route("/optional/read", read),
        Route("/slow/{ms:int}", slow),
        Route("/set/{key}/{value}", set_entry, methods=["POST"]),
        Route("/nested/{value}", nested, methods=["POST"]),
        Route("/login/{user}", login, methods=["POST"]),
        Route("/rotate", rotate, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/clear", logout, methods=["POST"]),
        Route("/fail/{key}", fail, methods=["POST"]),
        Route("/devices", devices),
        Route("/everywhere", everywhere, methods=["POST"]),
        Route("/calls", calls),
        WebSocketRoute("/ws", ws),
    ],
)
