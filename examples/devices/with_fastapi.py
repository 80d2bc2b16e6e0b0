"""A login, a cart, ratings, "my devices", and log out everywhere, in FastAPI.

    uvicorn with_fastapi:app --workers 4 --port 8001

The session is a dependency: with `lazy=True` it is read for the handlers that ask for it, and for no others.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse, RedirectResponse

from sessiond_client import AsyncClient, cookies
from sessiond_client.starlette import Session, SessionMiddleware, load_session

client = AsyncClient()  # SESSIOND_URL, or http://127.0.0.1:7377


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await client.close()


app = FastAPI(lifespan=lifespan, default_response_class=PlainTextResponse)
secret_key = os.environ.get("DEVICES_SECRET", "only for trying out")
app.add_middleware(SessionMiddleware, client=client, secret_key=secret_key, lazy=True)

MySession = Annotated[Session, Depends(load_session)]


async def logged_in(session: MySession) -> str:
    """The user, for handlers that need one."""
    if session.user is None:
        raise HTTPException(403)
    return session.user


@app.exception_handler(403)
def forbidden(request: Request, error: HTTPException) -> PlainTextResponse:
    return PlainTextResponse("log in first\n", 403)


User = Annotated[str, Depends(logged_in)]


@app.get("/")
def home(session: MySession) -> str:
    return f"{session.user or 'nobody'}: {', '.join(session.get('cart', [])) or 'nothing'}\n"


@app.post("/add/{thing}")
def add(thing: str, session: MySession) -> str:
    """A change inside a value counts like any other."""
    session.setdefault("cart", []).append(thing)
    return "added\n"


@app.post("/rate/{thing}/{stars}")
def rate(thing: str, stars: int, session: MySession) -> str:
    """Each thing has an entry of its own, so that any number of tabs may rate at once."""
    session[f"stars of {thing}"] = stars
    return "rated\n"


@app.get("/ratings")
def ratings(session: MySession) -> str:
    return f"{sum(name.startswith('stars of ') for name in session)} rated\n"


@app.post("/login/{name}")
def login(name: str, session: MySession) -> RedirectResponse:
    """Whose session it is; because that changes, the session gets a new id."""
    session.user = name
    return RedirectResponse("/", 303)


@app.get("/devices")
async def devices(user: User, session: MySession) -> str:
    here = cookies.key_of(session.sid) if session.sid else None
    lines = [
        f"{entry.meta['agent'] if entry.meta else '?'}{' (this one)' if entry.key == here else ''}\n"
        for entry in await client.list(user=user)
    ]
    return "".join(sorted(lines))


@app.post("/logout")
async def logout(session: MySession) -> str:
    await session.destroy()
    return "bye\n"


@app.post("/logout-everywhere")
async def logout_everywhere(user: User, session: MySession) -> str:
    """All other devices; this one stays."""
    return f"{await client.destroy_all(user=user, except_sid=session.sid)} others logged out\n"
