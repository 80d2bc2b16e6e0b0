"""A login, a cart, ratings, "my devices", and log out everywhere, in Starlette.

    uvicorn with_starlette:app --workers 4 --port 8001

`request.session` is a dict, as with Starlette's own middleware; what a handler has changed in it is saved before the
answer begins.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from sessiond_client import AsyncClient, cookies
from sessiond_client.starlette import SessionMiddleware, load_session

client = AsyncClient()  # SESSIOND_URL, or http://127.0.0.1:7377


async def home(request: Request) -> Response:
    session = request.session
    return PlainTextResponse(f"{session.get('name', 'nobody')}: {', '.join(session.get('cart', [])) or 'nothing'}\n")


async def add(request: Request) -> Response:
    """A change inside a value counts like any other."""
    request.session.setdefault("cart", []).append(request.path_params["thing"])
    return PlainTextResponse("added\n")


async def rate(request: Request) -> Response:
    """Each thing has an entry of its own, so that any number of tabs may rate at once."""
    request.session[f"stars of {request.path_params['thing']}"] = request.path_params["stars"]
    return PlainTextResponse("rated\n")


async def ratings(request: Request) -> Response:
    return PlainTextResponse(f"{sum(name.startswith('stars of ') for name in request.session)} rated\n")


async def login(request: Request) -> Response:
    """Whose session it is, by `user=` below; because that changes, the session gets a new id."""
    request.session["name"] = request.path_params["name"]
    return RedirectResponse("/", 303)


async def devices(request: Request) -> Response:
    session = await load_session(request)  # request.session, with a type that knows more than a dict's
    if session.user is None:
        raise HTTPException(403, "log in first\n")
    here = cookies.key_of(session.sid) if session.sid else None
    lines = [
        f"{entry.meta['agent'] if entry.meta else '?'}{' (this one)' if entry.key == here else ''}\n"
        for entry in await client.list(user=session.user)
    ]
    return PlainTextResponse("".join(sorted(lines)))


async def logout(request: Request) -> Response:
    """A session that is emptied ends."""
    request.session.clear()
    return PlainTextResponse("bye\n")


async def logout_everywhere(request: Request) -> Response:
    """All other devices; this one stays."""
    session = await load_session(request)
    if session.user is None:
        raise HTTPException(403, "log in first\n")
    number = await client.destroy_all(user=session.user, except_sid=session.sid)
    return PlainTextResponse(f"{number} others logged out\n")


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
            secret_key=os.environ.get("DEVICES_SECRET", "only for trying out"),
            user=lambda session: session.get("name"),
        )
    ],
    routes=[
        Route("/", home),
        Route("/add/{thing}", add, methods=["POST"]),
        Route("/rate/{thing}/{stars:int}", rate, methods=["POST"]),
        Route("/ratings", ratings),
        Route("/login/{name}", login, methods=["POST"]),
        Route("/devices", devices),
        Route("/logout", logout, methods=["POST"]),
        Route("/logout-everywhere", logout_everywhere, methods=["POST"]),
    ],
)
