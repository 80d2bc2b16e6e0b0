"""A bare handler of aiohttp that answers a constant: `python bare.py PORT CONTENT_TYPE BODY`."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


def main(port: int, content_type: str, body: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type)

    app = web.Application()
    app.add_routes([web.get("/", handler)])
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3].encode())
