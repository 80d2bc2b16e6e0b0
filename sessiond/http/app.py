"""The HTTP application: the routes together, one middleware around them, and an HTTP listener that gives nothing away."""

import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from sessiond import codec
from sessiond.calls import Count
from sessiond.clock import AdjustableClock
from sessiond.errors import Refused
from sessiond.http import exposition
from sessiond.http.auth import ANONYMOUS, Guard
from sessiond.http.openapi import document
from sessiond.http.problem import problem
from sessiond.http.rest import NAMESPACE, Rest, check_length
from sessiond.http.stream import Streams
from sessiond.store import Store

log = logging.getLogger("sessiond")

MAX_LINE = 8190
MAX_HEADERS = 100
KEEPALIVE = 75.0
"""Seconds an idle connection is kept: longer than the 60 s after which proxies drop theirs, so that the proxy is first."""

LINGER = 2.0
"""Seconds for which the rest of a refused body is read and thrown away, so that the client sees the answer."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TOO_LONG_CLOSES = {413, 414, 431}


class HttpApp:
    """`hosts`: the names that a Host header may hold; None: any."""

    def __init__(self, store: Store, hosts: Iterable[str] | None) -> None:
        self._store = store
        self._guard = Guard(hosts)
        self._streams = Streams(store)
        self._document = codec.to_json(document(store.policy(ANONYMOUS)))

        self._app = web.Application(middlewares=[self._answer], handler_args=None)
        self._app.on_response_prepare.append(_dress)
        self._app.add_routes(Rest(store).routes(self._expect))
        plain: list[tuple[str, str, Handler]] = [
            (hdrs.METH_GET, "/v1/stream", self._stream),
            (hdrs.METH_GET, "/healthz", self._healthz),
            (hdrs.METH_GET, "/readyz", self._readyz),
            (hdrs.METH_GET, "/metrics", self._metrics),
            (hdrs.METH_GET, "/openapi.json", self._openapi),
        ]
        if isinstance(store.clock, AdjustableClock):
            plain.append((hdrs.METH_POST, "/v1/clock", self._clock))
        self._app.add_routes(
            web.route(method, path, handler, expect_handler=self._expect) for method, path, handler in plain
        )

    def runner(self, drain_seconds: float) -> web.BaseRunner:
        return _Runner(
            self._app,
            access_log=None,  # a path may hold a sid
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE,
            lingering_time=LINGER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            shutdown_timeout=drain_seconds,
        )

    async def stop(self) -> None:
        """Lets every stream finish what it was asked, and closes it."""
        await self._streams.stop()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The one place where a refusal, a wrong route or a fault of ours becomes an answer."""
        try:
            request[NAMESPACE] = self._guard.check(request)
            return await handler(request)
        except Refused as e:
            response = problem(e.code, e.text)
        except web.HTTPMethodNotAllowed as e:
            allowed = ", ".join(sorted(e.allowed_methods))
            response = problem("method_not_allowed", "That method is not for this address.", {hdrs.ALLOW: allowed})
        except web.HTTPNotFound:
            response = problem("not_found", "There is nothing at this address; /openapi.json tells what there is.")
        except web.HTTPException:
            raise
        except ConnectionError:
            raise  # the client is gone, and with it whoever would read an answer
        except Exception:
            log.exception("a request failed")
            response = problem("internal", "sessiond failed on this request; its log says more.")
        if response.status in _TOO_LONG_CLOSES:
            response.force_close()
        return response

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Expect: 100-continue is granted only to a body that may come; whatever else is expected is not known here."""
        try:
            namespace = self._guard.check(request)
            if request.headers[hdrs.EXPECT].lower() != "100-continue":
                raise Refused("expectation", "Only 100-continue can be expected.")
            check_length(request, self._store.policy(namespace))
        except Refused as e:
            response = problem(e.code, e.text)
            response.force_close()
            return response
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # so that an error after it can still be answered
        return None

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self._store.stopping:
            raise Refused("stopping", "The daemon is stopping; ask another, or again in a moment.")
        return await self._streams.serve(request, request[NAMESPACE])

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if (trouble := self._store.trouble) is not None:
            raise Refused("not_ready", trouble)
        return web.Response(text="ready\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        sessions = {}
        for namespace in self._store.namespaces:
            answer = await self._store.execute(Count(namespace, None))
            if isinstance(answer.value, int):
                sessions[namespace] = answer.value
        body = exposition.exposition(self._store, sessions, self._streams.number)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: exposition.CONTENT_TYPE})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    async def _clock(self, request: web.Request) -> web.Response:
        """For tests: moves the clock forward."""
        clock = self._store.clock
        assert isinstance(clock, AdjustableClock)
        try:
            ms = codec.json_object(await request.text())["advance_ms"]
            if type(ms) is not int or not 0 <= ms <= 10**14:
                raise ValueError
        except (KeyError, ValueError) as e:
            raise Refused("bad_clock", 'Send {"advance_ms": n}, n from 0.') from e
        return web.Response(body=codec.to_json({"now": clock.advance(ms)}), content_type="application/json")


async def _dress(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers.pop(hdrs.SERVER, None)


# The listener ---------------------------------------------------------------------------------------


class _Bare(web.Response):
    """A response that is dressed without an application: to a request that could not even be read."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop(hdrs.SERVER, None)


class _Listener(RequestHandler):
    """aiohttp's own answers to bytes that are no HTTP repeat them, and its log too; these do neither."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            if "header" in str(exc).lower():
                made = problem("headers_too_large", "The headers are too large.")
            else:
                made = problem("uri_too_long", "The request line is too long.")
        elif exc is not None and "headers" in str(exc).lower() and "many" in str(exc).lower():
            made = problem("headers_too_large", "There are too many headers.")
        elif status == 500:
            log.error("a request failed", exc_info=exc)
            made = problem("internal", "sessiond failed on this request; its log says more.")
        else:
            made = problem("bad_http", "That is not HTTP/1.1 as this server reads it.")
        bare = _Bare(status=made.status, body=made.body, content_type=made.content_type)
        bare.headers[hdrs.CACHE_CONTROL] = "no-store"
        bare.force_close()
        return bare


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Listener(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # AppRunner offers no way to bring a handler class of one's own
        return server
