"""A page that counts its visits, in a session that any number of processes share.

    python app.py --port 8001        (and again with 8002, 8003, ...)

The cookie holds a signed session id and nothing else. The count is raised by version, so of two visits at the same
moment each gets its own number; the processes keep nothing, and may be killed at any time.
"""

import argparse
import os
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler

from sessiond_client import AsyncClient, Missing, Unavailable, cookies

CLIENT = web.AppKey("client", AsyncClient)
SECRET = os.environ.get("COUNTER_SECRET", "only for trying out")
COOKIE = "counter"
TTL = 30 * 60


def sid_of(request: web.Request) -> str | None:
    """The sid in the cookie, or None unless we have signed it."""
    return cookies.unsign(cookies.decode_cookie(request.cookies.get(COOKIE, "")), SECRET)


async def count(request: web.Request) -> web.Response:
    """Shows `Views: n`. Starts a session when there is none; an id is never taken from a cookie that is not alive."""
    client = request.app[CLIENT]
    sid = sid_of(request)
    try:
        if sid is None:
            raise Missing
        session = await client.update(sid, lambda data: data | {"views": data["views"] + 1}, ttl=TTL)
        views = session.data["views"]
    except Missing:
        views = 1
        sid = await client.create({"views": views}, ttl=TTL)
    response = web.Response(text=f"Views: {views}\n")
    value = cookies.encode_cookie(cookies.sign(sid, SECRET))
    response.set_cookie(COOKIE, value, max_age=TTL, httponly=True, samesite="Lax")
    return response


async def leave(request: web.Request) -> web.Response:
    """Ends the session, in all processes at once."""
    if (sid := sid_of(request)) is not None:
        await request.app[CLIENT].destroy(sid)
    response = web.Response(text="Bye.\n")
    response.del_cookie(COOKIE)
    return response


@web.middleware
async def patience(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A daemon that is away is not a logged-out user: the cookie stays, and the browser may try again."""
    try:
        return await handler(request)
    except Unavailable:
        return web.Response(
            status=503, text="The sessions are away for a moment; try again.\n", headers={"Retry-After": "1"}
        )


async def connect(app: web.Application) -> AsyncIterator[None]:
    async with AsyncClient() as client:  # SESSIOND_URL, or http://127.0.0.1:7377
        app[CLIENT] = client
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="A page that counts its visits.")
    parser.add_argument("--port", type=int, default=8001)
    app = web.Application(middlewares=[patience])
    app.cleanup_ctx.append(connect)
    app.add_routes([web.get("/", count), web.post("/leave", leave)])
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port, print=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
