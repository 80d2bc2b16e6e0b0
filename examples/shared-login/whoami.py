"""Says who is logged in, by the session that login.js has made, and logs out of both.

    python whoami.py --port 8002

The cookie is express-session's: `s:<sid>.<signature>`, signed with the secret that both apps know.
"""

import argparse
import os
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler

from sessiond_client import AsyncClient, Unavailable, cookies

CLIENT = web.AppKey("client", AsyncClient)
SECRET = os.environ.get("LOGIN_SECRET", "only for trying out")
COOKIE = "connect.sid"


def sid_of(request: web.Request) -> str | None:
    """The sid in the cookie, or None unless it is signed with our secret."""
    return cookies.unsign(cookies.decode_cookie(request.cookies.get(COOKIE, "")), SECRET)


async def user_of(request: web.Request) -> str | None:
    """Who is logged in, if anybody is; as any request does, this one keeps the session alive."""
    sid = sid_of(request)
    session = None if sid is None else await request.app[CLIENT].get(sid, renew=True)
    return None if session is None else session.data.get("user")


async def whoami(request: web.Request) -> web.Response:
    user = await user_of(request)
    return web.Response(text=f"You are {user}.\n" if user else "You are not logged in.\n")


async def log_out(request: web.Request) -> web.Response:
    if (sid := sid_of(request)) is not None:
        await request.app[CLIENT].destroy(sid)
    return bye()


async def log_out_everywhere(request: web.Request) -> web.Response:
    """Ends all sessions of whoever asks, in whichever browser they are."""
    if (user := await user_of(request)) is not None:
        await request.app[CLIENT].destroy_all(user=user)
    return bye()


def bye() -> web.Response:
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
    parser = argparse.ArgumentParser(description="Says who is logged in.")
    parser.add_argument("--port", type=int, default=8002)
    app = web.Application(middlewares=[patience])
    app.cleanup_ctx.append(connect)
    app.add_routes(
        [
            web.get("/", whoami),
            web.post("/logout", log_out),
            web.post("/logout-everywhere", log_out_everywhere),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port, print=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
