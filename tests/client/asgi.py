"""A browser for ASGI apps in the test's own process and event loop: it speaks to the app as a server would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

App = Any  # an ASGI app, whichever framework's types it has


class Reply(NamedTuple):
    """An answer, or the acceptance or refusal of a WebSocket."""

    status: int
    headers: list[tuple[str, str]]
    text: str

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for each, value in self.headers if each == name]

    @property
    def cookies(self) -> list[str]:
        """The Set-Cookie headers."""
        return self.all("set-cookie")

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Visitor:
    """Keeps the cookies that it is given."""

    def __init__(self, app: App, *, root_path: str = "", extensions: Sequence[str] = ()) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}
        self.sent: list[dict[str, Any]] = []  #: all that the app sent in the last visit
        self._more = {"root_path": root_path, "extensions": {name: {} for name in extensions}}

    async def ask(self, method: str, path: str) -> Reply:
        """The answer to a request, once the app has returned. What the app raises is raised."""
        await self._run("http", path, [{"type": "http.request", "body": b"", "more_body": False}], method=method)
        return self._reply("http.response.start", "http.response.body")

    async def get(self, path: str) -> Reply:
        return await self.ask("GET", path)

    async def chat(self, path: str, *texts: str) -> Reply:
        """Says these over a WebSocket and leaves. Status 101 is its acceptance."""
        said = [{"type": "websocket.receive", "text": text} for text in texts]
        await self._run(
            "websocket", path, [{"type": "websocket.connect"}, *said, {"type": "websocket.disconnect", "code": 1000}]
        )
        if self.sent and self.sent[0]["type"] == "websocket.accept":
            return self._reply("websocket.accept", "websocket.send")
        return self._reply("websocket.http.response.start", "websocket.http.response.body")

    async def _run(self, kind: str, path: str, messages: list[dict[str, Any]], **more: Any) -> None:
        headers = [(b"host", b"test"), (b"user-agent", b"visitor")]
        if self.cookies:
            headers.append((b"cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode()))
        scope = {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "https" if kind == "http" else "wss",
            "path": path,
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("test", 443),
            "subprotocols": [],
            **self._more,
            **more,
        }
        sent: list[dict[str, Any]] = []
        self.sent = sent
        waiting = iter(messages)

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            for message in waiting:
                return message
            await asyncio.Event().wait()  # the browser is still there, and says nothing
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append({**message, "headers": [*message.get("headers", ())]})

        await self.app(scope, receive, send)

    def _reply(self, start: str, body: str) -> Reply:
        begun: dict[str, Any] = next(
            (each for each in self.sent if each["type"] == start), {"status": 0, "headers": []}
        )
        parts = [each.get("body") or (each.get("text") or "").encode() for each in self.sent if each["type"] == body]
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in begun["headers"]]
        reply = Reply(begun.get("status", 101), headers, b"".join(parts).decode())
        for cookie in reply.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            if "01 Jan 1970" in cookie:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return reply
