"""A login, a cart, ratings, "my devices", and log out everywhere, in aiohttp.

    gunicorn with_aiohttp:make --worker-class aiohttp.GunicornWebWorker --workers 4 --bind 127.0.0.1:8001

The middleware is all that the app needs to have sessions: each request reads the one that its cookie names when the
handler asks for it, and what the handler has changed is saved when it ends.
"""

import os
from collections.abc import AsyncIterator

from aiohttp import web

from sessiond_client import AsyncClient, cookies
from sessiond_client.aiohttp import get_session, session_middleware
from sessiond_client.cookies import SessionCookie

CLIENT = web.AppKey("client", AsyncClient)


async def home(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.Response(text=f"{session.user or 'nobody'}: {', '.join(session.get('cart', [])) or 'nothing'}\n")


async def add(request: web.Request) -> web.Response:
    """A change inside a value counts like any other."""
    (await get_session(request)).setdefault("cart", []).append(request.match_info["thing"])
    return web.Response(text="added\n")


async def rate(request: web.Request) -> web.Response:
    """Each thing has an entry of its own, so that any number of tabs may rate at once."""
    (await get_session(request))[f"stars of {request.match_info['thing']}"] = int(request.match_info["stars"])
    return web.Response(text="rated\n")


async def ratings(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.Response(text=f"{sum(name.startswith('stars of ') for name in session)} rated\n")


async def login(request: web.Request) -> web.Response:
    """Whose session it is; because that changes, the session gets a new id."""
    (await get_session(request)).user = request.match_info["name"]
    raise web.HTTPFound("/")


async def devices(request: web.Request) -> web.Response:
    session = await get_session(request)
    if session.user is None:
        raise web.HTTPForbidden(text="log in first\n")
    here = cookies.key_of(session.sid) if session.sid else None
    lines = [
        f"{entry.meta['agent'] if entry.meta else '?'}{' (this one)' if entry.key == here else ''}\n"
        for entry in await request.app[CLIENT].list(user=session.user)
    ]
    return web.Response(text="".join(sorted(lines)))


async def logout(request: web.Request) -> web.Response:
    await (await get_session(request)).destroy()
    return web.Response(text="bye\n")


async def logout_everywhere(request: web.Request) -> web.Response:
    """All other devices; this one stays."""
    session = await get_session(request)
    if session.user is None:
        raise web.HTTPForbidden(text="log in first\n")
    number = await request.app[CLIENT].destroy_all(user=session.user, except_sid=session.sid)
    return web.Response(text=f"{number} others logged out\n")


async def make() -> web.Application:
    client = AsyncClient()  # SESSIOND_URL, or http://127.0.0.1:7377
    cookie = SessionCookie(secret=os.environ.get("DEVICES_SECRET", "only for trying out"))
    app = web.Application(middlewares=[session_middleware(client, cookie=cookie)])
    app[CLIENT] = client

    async def close(app: web.Application) -> AsyncIterator[None]:
        yield
        await client.close()

    app.cleanup_ctx.append(close)
    app.add_routes(
        [
            web.get("/", home),
            web.post("/add/{thing}", add),
            web.post("/rate/{thing}/{stars}", rate),
            web.get("/ratings", ratings),
            web.post("/login/{name}", login),
            web.get("/devices", devices),
            web.post("/logout", logout),
            web.post("/logout-everywhere", logout_everywhere),
        ]
    )
    return app
