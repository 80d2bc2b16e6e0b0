"""The listener: aiohttp's, with limits, deadlines and answers of our own. aiohttp's answers repeat what they could not read."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, RequestPayloadError, _ErrInfo

from sessiond.http.bounds import Bounds
from sessiond.http.problem import problem
from sessiond.http.tls import is_stale

log = logging.getLogger("sessiond")

MAX_URI = 8000
"""Bytes of a request's target: the least that RFC 9112 §3 asks for. Other than MAX_FIELD, by which the two are told apart."""

MAX_FIELD = 8190
"""Bytes of one header, its name included: as in Apache httpd."""

MAX_HEADERS = 100

MAX_HEAD = 64 * 1024
"""Bytes of a request up to the end of its headers, as far as they come in packets of their own: MAX_HEADERS of them, each
near MAX_FIELD, would be 800 KB that every silent connection could hold."""

MAX_PARTING = 8
"""Connections too many that are open at once to be told so; any further is closed without a word."""

LINGER = 2.0
"""Seconds for which the rest of a refused body is read and thrown away, so that the client sees the answer."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Around = Callable[[Handler, web.Request], Awaitable[web.StreamResponse]]

PAYLOAD_ERRORS = (RequestPayloadError, HttpProcessingError)
"""What reading a body raises that is not framed as HTTP says."""


class Runner(web.AppRunner):
    """Runs `app`; `around` is given each request first, with what the application would do with it. `turned_away` is
    called for each connection that was one too many."""

    def __init__(
        self,
        app: web.Application,
        around: Around,
        drain_seconds: float,
        bounds: Bounds,
        turned_away: Callable[[], None],
    ) -> None:
        super().__init__(
            app,
            access_log=None,  # a path may hold a sid
            auto_decompress=False,
            keepalive_timeout=bounds.idle,
            lingering_time=LINGER,
            max_line_size=MAX_URI,
            max_field_size=MAX_FIELD,
            max_headers=MAX_HEADERS,
            shutdown_timeout=drain_seconds,
        )
        self._around = around
        self._bounds = bounds
        self._turned_away = turned_away

    async def _make_server(self) -> web.Server:
        # AppRunner offers no way to bring these; the public parts beside it (Server, ServerRunner) know no routes.
        server = await super()._make_server()
        server.__class__ = _Server
        assert isinstance(server, _Server)
        server.bounds = self._bounds
        server.turned_away = self._turned_away
        server.parting = 0
        server.request_factory = partial(self.app._make_request, _cls=_Request)
        server.request_handler = partial(self._answer, server.request_handler)
        return server

    async def _answer(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        response = await self._around(handler, request)
        if isinstance(request.protocol, _Connection) and request.protocol.is_old:
            response.force_close()
        return response


class _Server(web.Server):
    """`parting`: how many connections are open only to be told that they are too many."""

    bounds: Bounds
    turned_away: Callable[[], None]
    parting: int

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    @property
    def is_full(self) -> bool:
        return len(self._connections) >= self.bounds.connections


class _Request(web.Request):
    def __init__(
        self, message: Any, payload: StreamReader, protocol: "_Connection", *others: Any, **named: Any
    ) -> None:
        if message.url is None:
            # A target that aiohttp's parser passes on without reading it; by this one the guard refuses it.
            message = message._replace(url=ERROR.url, path="\0")
        super().__init__(message, payload, protocol, *others, **named)
        protocol.body = payload

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Dresses every answer, also to what reached no route, and to what came in a version that is not spoken."""
        if self._version not in (HttpVersion10, HttpVersion11):
            self._version = HttpVersion11
            self._cache.pop("version", None)
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        response.headers.pop(hdrs.SERVER, None)


class _HeadTooLong(BadHttpMessage):
    """A head that is longer than MAX_HEAD, and not at its end."""


class _TurnedAway(asyncio.Protocol):
    """A connection too many. Its first request, which is not looked at, is answered 503, or after a moment its silence:
    an answer that is sent before anything was asked is lost to many clients."""

    def __init__(self, server: _Server, line: asyncio.Transport) -> None:
        self._server = server
        self._line = line
        self._timer: asyncio.TimerHandle | None = None
        server.turned_away()
        server.parting += 1
        if server.parting > MAX_PARTING:
            line.abort()
        else:
            self._timer = asyncio.get_running_loop().call_later(LINGER, line.abort)

    def data_received(self, data: bytes) -> None:
        if not self._line.is_closing():
            self._line.write(_farewell())
            self._line.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.parting -= 1
        if self._timer is not None:
            self._timer.cancel()


def _farewell() -> bytes:
    answer = problem(
        "too_many_connections", "As many connections are open as this daemon takes; try again in a moment."
    )
    assert isinstance(answer.body, bytes)
    head = (
        f"HTTP/1.1 {answer.status} Service Unavailable\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + answer.body


class _Connection(RequestHandler):
    """`body`: that of the request in hand. `_heard_all`: the client has shut its side down for sending (shutdown(2),
    `nc -N`), and waits for answers. `_head_size`: bytes that came of a head that is not complete."""

    __slots__ = ("_bounds", "_cut", "_head_size", "_heard_all", "_line", "_opened_at", "body")

    _manager: _Server | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert self._manager is not None
        line = self._line = cast(asyncio.Transport, transport)
        if self._manager.is_full:
            line.set_protocol(_TurnedAway(self._manager, line))
            return
        self._bounds = self._manager.bounds
        self._opened_at = self._loop.time()
        self._heard_all = False
        self.body: StreamReader | None = None
        self._head_size = 0
        self._cut: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._expect_head()
        if is_stale(line.get_extra_info("ssl_object")):
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
        super().connection_lost(exc)

    @property
    def is_old(self) -> bool:
        """Whether it has lived for as long as a connection may."""
        lifetime = self._bounds.lifetime
        return lifetime is not None and self._loop.time() >= self._opened_at + lifetime

    async def start(self) -> None:
        try:
            await super().start()
        finally:
            # Closing lets what is still to be sent go out first, for which a client that does not read can be waited
            # for in vain.
            if self._manager is not None:
                self._cut_in_time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._head_size = 0
            # With a body unfinished, the only message that can follow is an error in it; aiohttp lets its reader wait on.
            if (reading := self._unfinished()) is not None:
                reading.set_exception(RequestPayloadError())
                reading.feed_eof()
        elif data and self._waiter is not None and not self._waiter.done():
            self._head_came(len(data))

    async def drain(self) -> None:
        """Returns once the client has taken what it was answered. ConnectionError: it is gone."""
        await self._drain_helper()

    def hand_over(self, heir: asyncio.Protocol) -> None:
        """Gives the socket, and what came on it behind the request in hand, to another protocol, behind `drain`.

        That is to pass on what it hears of writing and of the end. ConnectionError: the client is gone.
        """
        if self.transport is None:
            raise ConnectionResetError
        tail, self._message_tail = self._message_tail, b""
        self._line.set_protocol(heir)
        heir.connection_made(self._line)
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if tail:
            heir.data_received(tail)
        if self._heard_all:  # it has shut its side down behind the handshake: nothing else will ever tell the heir
            self._line.close()

    def _head_came(self, size: int) -> None:
        """A part of a request's head, which has to be complete in time and of a reasonable size."""
        if self._head_size == 0:
            self._expect_head()
        self._head_size += size
        if self._head_size > MAX_HEAD and self._waiter is not None:
            self._messages.append((_ErrInfo(400, _HeadTooLong("the head is too long"), ""), EMPTY_PAYLOAD))
            self._waiter.set_result(None)
            self._close = True  # reads no further

    def _expect_head(self) -> None:
        """Closes the connection unless the head of a request is complete within `patience`, or when it was due anyway."""
        due = min(self._loop.time() + self._bounds.patience, self._next_keepalive_close_time)
        self._next_keepalive_close_time = due
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._keepalive_handle = self._loop.call_at(due, self._process_keepalive)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cut_in_time()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._cut is not None and not self._line.is_closing():
            self._cut.cancel()
            self._cut = None

    def _cut_in_time(self) -> None:
        """Ends the connection, unless what it has to send is taken in time."""
        if self._cut is None:
            self._cut = self._loop.call_later(self._bounds.patience, self._line.abort)

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
        # TLS has no half of a connection: there, the end of the one side is the end.
        is_plain = self.ssl_context is None
        self._heard_all = is_plain and not idle and not cut_off
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
        elif isinstance(exc, _HeadTooLong):
            answer = problem(
                "headers_too_large", f"The headers of a request are {MAX_HEAD // 1024} KiB at most, together."
            )
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
