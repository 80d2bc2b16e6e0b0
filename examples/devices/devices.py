"""A login, a cart, "my devices", and log out everywhere: the session handle of the Python client in an aiohttp app.

    python devices.py --port 8001        (and again with 8002, ...)

The middleware is all that the app needs to have sessions. It opens the one that the cookie names, saves what a handler
has changed in it, also when the handler ends with a redirect, and sends a cookie when the id is another than before.
"""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler

from sessiond_client import AsyncClient, AsyncSession, Missing, Unavailable, cookies

CLIENT = web.AppKey("client", AsyncClient)
SESSION = web.RequestKey("session", AsyncSession)
SECRET = os.environ.get("DEVICES_SECRET", "only for trying out")
COOKIE = "devices"
TTL = 14 * 24 * 3600


@web.middleware
async def sessions(request: web.Request, handler: Handler) -> web.StreamResponse:
    sid = cookies.unsign(cookies.decode_cookie(request.cookies.get(COOKIE, "")), SECRET)
    session = request[SESSION] = request.app[CLIENT].session(sid, ttl=TTL)
    try:
        await session.load()
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPRedirection as redirect:  # a login ends with one: what it changed is saved like any other
            response = web.Response(status=redirect.status, headers=redirect.headers)
        with suppress(Missing):  # logged out meanwhile, in another tab or by "everywhere": it stays so
            await session.save()  # only what changed; nothing at all for a visitor who left the session empty
    except Unavailable:
        # A daemon that is away is not a logged-out user: the cookie stays.
        return web.Response(status=503, text="The sessions are away for a moment; try again.\n")
    if session.exists and session.sid is not None and session.sid != sid:
        value = cookies.encode_cookie(cookies.sign(session.sid, SECRET))
        response.set_cookie(COOKIE, value, max_age=TTL, httponly=True, samesite="Lax")
    elif not session.exists and COOKIE in request.cookies:
        response.del_cookie(COOKIE)
    return response


async def home(request: web.Request) -> web.Response:
    session = request[SESSION]
    return web.Response(text=f"{session.user or 'nobody'}: {', '.join(session.get('cart', [])) or 'nothing'}\n")


async def add(request: web.Request) -> web.Response:
    """A change inside a value counts like any other."""
    request[SESSION].setdefault("cart", []).append(request.match_info["thing"])
    return web.Response(text="added\n")


async def login(request: web.Request) -> web.Response:
    """A new id for the same data. No grace: whoever planted the old id must not be let in."""
    session = request[SESSION]
    if session.exists:
        await session.rotate()
    session.user = session["name"] = request.match_info["name"]
    session.meta = {"agent": request.headers.get("User-Agent", "")[:200], "ip": request.remote or ""}
    raise web.HTTPFound("/")


async def devices(request: web.Request) -> web.Response:
    session = request[SESSION]
    if session.user is None:
        raise web.HTTPForbidden(text="log in first\n")
    here = cookies.key_of(session.sid) if session.sid else None
    lines = [
        f"{entry.meta['agent'] if entry.meta else '?'}{' (this one)' if entry.key == here else ''}\n"
        for entry in await request.app[CLIENT].list(user=session.user)
    ]
    return web.Response(text="".join(sorted(lines)))


async def logout(request: web.Request) -> web.Response:
    await request[SESSION].destroy()
    return web.Response(text="bye\n")


async def logout_everywhere(request: web.Request) -> web.Response:
    session = request[SESSION]
    if session.user is None:
        raise web.HTTPForbidden(text="log in first\n")
    number = await request.app[CLIENT].destroy_all(user=session.user, except_sid=session.sid)
    return web.Response(text=f"{number} others logged out\n")


async def connect(app: web.Application) -> AsyncIterator[None]:
    async with AsyncClient() as client:  # SESSIOND_URL, or http://127.0.0.1:7377
        app[CLIENT] = client
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="A login, a cart and a list of devices.")
    parser.add_argument("--port", type=int, default=8001)
    app = web.Application(middlewares=[sessions])
    app.cleanup_ctx.append(connect)
    app.add_routes(
        [
            web.get("/", home),
            web.post("/add/{thing}", add),
            web.post("/login/{name}", login),
            web.get("/devices", devices),
            web.post("/logout", logout),
            web.post("/logout-everywhere", logout_everywhere),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port, print=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
