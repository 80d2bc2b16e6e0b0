"""The app of `tests/client/apps` in FastAPI, with lazy sessions: only handlers that depend on theirs have it read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse, RedirectResponse

from sessiond_client import AsyncClient, cookies
from sessiond_client.starlette import Session, SessionMiddleware, load_session

from . import TTL

client = AsyncClient()
MySession = Annotated[Session, Depends(load_session)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await client.close()


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, client=client, max_age=None, ttl=TTL, lazy=True, optional=["/optional/*"])


@app.get("/untouched")
async def untouched() -> PlainTextResponse:
    return PlainTextResponse("untouched")


@app.get("/read")
@app.get("/optional/read")
def read(session: MySession) -> Any:
    return {"data": session, "user": session.user}


@app.get("/slow/{ms}")
async def slow(ms: int, session: MySession) -> Any:
    await asyncio.sleep(ms / 1000)
    return {"data": session, "user": session.user}


@app.post("/set/{key}/{value}")
async def set_entry(key: str, value: str, session: MySession, hold: int = 0) -> Any:
    await asyncio.sleep(hold / 1000)
    session[key] = value
    return {}


@app.post("/nested/{value}")
def nested(value: str, session: MySession) -> Any:
    if "cart" not in session:
        session["cart"] = {"items": []}
    session["cart"]["items"].append(value)
    return {}


@app.post("/login/{user}")
def login(user: str, session: MySession) -> RedirectResponse:
    session.user = user
    return RedirectResponse("/read", 303)


@app.post("/rotate")
async def rotate(session: MySession) -> Any:
    await session.rotate()
    return {}


@app.post("/logout")
async def logout(session: MySession) -> Any:
    await session.destroy()
    return {}


@app.post("/clear")
def clear(session: MySession) -> Any:
    session.clear()
    return {}


@app.post("/fail/{key}")
def fail(key: str, session: MySession) -> Any:
    session[key] = 1
    raise HTTPException(500)


@app.get("/devices")
async def devices(session: MySession) -> Any:
    here = cookies.key_of(session.sid) if session.sid else None
    entries = await client.list(user=session.user or "nobody")
    return [{"agent": (e.meta or {}).get("agent"), "this": e.key == here} for e in entries]


@app.post("/everywhere")
async def everywhere(session: MySession) -> Any:
    return {"ended": await client.destroy_all(user=session.user or "nobody")}


@app.get("/calls")
async def calls() -> int:
    return client.stats.calls_sent


@app.websocket("/ws")
async def ws(socket: WebSocket, session: MySession) -> None:
    await socket.accept()
    try:
        while True:
            session["ws"] = await socket.receive_text()
            await socket.send_text(session["ws"])
    except WebSocketDisconnect:
        pass
