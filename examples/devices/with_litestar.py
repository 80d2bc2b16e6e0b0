"""A login, a cart, ratings, "my devices", and log out everywhere, in Litestar.

    uvicorn with_litestar:app --workers 4 --port 8001

`request.session` is the dict that it is with Litestar's own sessions, and what a handler has changed in it is saved when the
response begins. `get_session` has what a dict has not: whose session it is, and its id.
"""

import os
from typing import Any

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.response import Redirect

from sessiond_client import AsyncClient, cookies
from sessiond_client.litestar import SessiondSessionConfig, get_session

client = AsyncClient()  # SESSIOND_URL, or http://127.0.0.1:7377
Visit = Request[Any, Any, Any]


@get("/", media_type=MediaType.TEXT)
async def home(request: Visit) -> str:
    session = await get_session(request)
    return f"{session.user or 'nobody'}: {', '.join(session.get('cart', [])) or 'nothing'}\n"


@post("/add/{thing:str}", media_type=MediaType.TEXT)
async def add(request: Visit) -> str:
    """A change inside a value counts like any other."""
    request.session.setdefault("cart", []).append(request.path_params["thing"])
    return "added\n"


@post("/rate/{thing:str}/{stars:int}", media_type=MediaType.TEXT)
async def rate(request: Visit) -> str:
    """Each thing has an entry of its own, so that any number of tabs may rate at once."""
    request.session[f"stars of {request.path_params['thing']}"] = request.path_params["stars"]
    return "rated\n"


@get("/ratings", media_type=MediaType.TEXT)
async def ratings(request: Visit) -> str:
    return f"{sum(name.startswith('stars of ') for name in request.session)} rated\n"


@post("/login/{name:str}", status_code=302)
async def login(request: Visit) -> Redirect:
    """Whose session it is; because that changes, the session gets a new id."""
    (await get_session(request)).user = request.path_params["name"]
    return Redirect("/")


@get("/devices", media_type=MediaType.TEXT)
async def devices(request: Visit) -> str | Response[str]:
    session = await get_session(request)
    if session.user is None:
        return Response("log in first\n", status_code=403)
    here = cookies.key_of(session.sid) if session.sid else None
    lines = [
        f"{entry.meta['agent'] if entry.meta else '?'}{' (this one)' if entry.key == here else ''}\n"
        for entry in await client.list(user=session.user)
    ]
    return "".join(sorted(lines))


@post("/logout", media_type=MediaType.TEXT)
async def logout(request: Visit) -> str:
    request.clear_session()
    return "bye\n"


@post("/logout-everywhere", media_type=MediaType.TEXT)
async def logout_everywhere(request: Visit) -> str | Response[str]:
    """All other devices; this one stays."""
    session = await get_session(request)
    if session.user is None:
        return Response("log in first\n", status_code=403)
    number = await client.destroy_all(user=session.user, except_sid=session.sid)
    return f"{number} others logged out\n"


sessions = SessiondSessionConfig(client, secret=os.environ.get("DEVICES_SECRET", "only for trying out"))
app = Litestar(
    [home, add, rate, ratings, login, devices, logout, logout_everywhere],
    middleware=[sessions.middleware],
    on_shutdown=[client.close],
)
