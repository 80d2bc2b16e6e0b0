"""The listener: aiohttp's, with limits, deadlines and answers of our own. aiohttp's answers repeat what they could not read."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from sessiond.http.problem import problem

log = logging.getLogger("sessiond")

MAX_URI = 8000
"""Bytes of a request's target: the least that RFC 9112 §3 asks for. Other than MAX_FIELD, by which the two are told apart."""

MAX_FIELD = 8190
"""Bytes of one header, its name included: as in Apache httpd."""

MAX_HEADERS = 100

FIRST_REQUEST = 10.0
"""Seconds from a connection's opening in which its first request must have come, up to the end of its headers."""

KEEPALIVE = 75.0
"""Seconds from an answer in which the headers of the next request must have come: longer than the 60 s after which
proxies drop an idle connection, so that the proxy is first."""

LINGER = 2.0
"""Seconds for which the rest of a refused body is read and thrown away, so that the client sees the answer."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Around = Callable[[Handler, web.Request], Awaitable[web.StreamResponse]]

PAYLOAD_ERRORS = (RequestPayloadError, HttpProcessingError)
"""What reading a body raises that is not framed as HTTP says."""


class Runner(web.AppRunner):
    """Runs `app`; `around` is given each request first, with what the application would do with it."""

    def __init__(self, app: web.Application, around: Around, drain_seconds: float) -> None:
        super().__init__(
            app,
            access_log=None,  # a path may hold a sid
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE,
            lingering_time=LINGER,
            max_line_size=MAX_URI,
            max_field_size=MAX_FIELD,
            max_headers=MAX_HEADERS,
            shutdown_timeout=drain_seconds,
        )
        self._around = around

    async def _make_server(self) -> web.Server:
        # AppRunner offers no way to bring these; the public parts beside it (Server, ServerRunner) know no routes.
        server = await super()._make_server()
        server.__class__ = _Server
        server.request_factory = partial(self.app._make_request, _cls=_Request)
        server.request_handler = partial(self._around, server.request_handler)
        return server


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Request(web.Request):
    def __init__(
        self, message: Any, payload: StreamReader, protocol: "_Connection", *others: Any, **named: Any
    ) -> None:
        super().__init__(message, payload, protocol, *others, **named)
        protocol.body = payload

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Dresses every answer, also to what reached no route."""
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        response.headers.pop(hdrs.SERVER, None)


class _Connection(RequestHandler):
    """`body`: that of the request in hand. `_heard_all`: the client has shut its side down for sending (shutdown(2),
    `nc -N`), and waits for answers."""

    __slots__ = ("_heard_all", "body")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._heard_all = False
        self.body: StreamReader | None = None
        self._keepalive_timeout = FIRST_REQUEST
        super().connection_made(transport)
        self._keepalive_timeout = KEEPALIVE

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # With a body unfinished, the only message that can follow is an error in it; aiohttp lets its reader wait on.
        if self._messages and (reading := self._unfinished()) is not None:
            reading.set_exception(RequestPayloadError())
            reading.feed_eof()

    def close(self) -> None:
        """Not in the middle of a body: aiohttp would hear no more of it. A stopping daemon closes behind the answer."""
        if self._unfinished() is None:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 (it is aiohttp's)
        """Hears the body in hand to its end first, for the same reason."""
        if (body := self._unfinished()) is not None:
            with suppress(TimeoutError, ConnectionError, *PAYLOAD_ERRORS):
                async with asyncio.timeout(timeout):
                    await body.wait_eof()
        await super().shutdown(timeout)

    def eof_received(self) -> bool:  # type: ignore[override]
        """True keeps the connection open for what is still to be answered."""
        idle = self._waiter is not None and not self._waiter.done()
        cut_off = self._unfinished() is not None or not all(body.is_eof() for _, body in self._messages)
        self._heard_all = not idle and not cut_off and self._payload_parser is None
        return self._heard_all

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        self.body = None
        if self._heard_all and not self._messages:
            self.close()
        return finished

    def _unfinished(self) -> StreamReader | None:
        """The body of the request in hand, if more of it is to come."""
        return None if self.body is None or self.body.is_eof() else self.body

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to bytes that are no request, and to a fault while answering. Neither repeats them, nor does the log."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone: aiohttp closes in silence
        if request.writer.output_size > 0:
            raise ConnectionError("half of an answer is sent; nothing can be put right")
        if isinstance(exc, LineTooLong) and MAX_URI in exc.args:
            answer = problem("uri_too_long", "The address is too long.")
        elif isinstance(exc, LineTooLong):
            answer = problem("headers_too_large", "A header is too long.")
        elif isinstance(exc, BadHttpMessage) and exc.message == "Too many headers received":
            answer = problem("headers_too_large", f"A request may have {MAX_HEADERS} headers.")
        elif isinstance(exc, HttpProcessingError):
            answer = problem("bad_http", "That is not HTTP/1.1 as this server reads it.")
        else:
            log.error("a request failed", exc_info=exc)
            answer = problem("internal", "sessiond failed on this request; its log says more.")
        answer.force_close()
        return answer
