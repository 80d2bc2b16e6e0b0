"""The HTTP application: the routes together, and the one place where a refusal or a fault becomes an answer."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from aiohttp import HttpVersion11, hdrs, web

from sessiond import codec
from sessiond.clock import AdjustableClock
from sessiond.errors import Refused
from sessiond.http import exposition
from sessiond.http.auth import GRANT, Guard, actor_of, require
from sessiond.http.bounds import Bounds
from sessiond.http.events import Readers
from sessiond.http.limits import Budget, Limits, TooMany, address_of
from sessiond.http.listener import PAYLOAD_ERRORS, Handler, Runner
from sessiond.http.openapi import document
from sessiond.http.problem import problem
from sessiond.http.rest import Rest, check_length, read_body
from sessiond.http.stream import Streams
from sessiond.store import Store
from sessiond.tokens import Tokens

log = logging.getLogger("sessiond")

AUDITED = frozenset(
    {"unauthorized", "forbidden", "too_many_failures", "too_many_misses", "browser_request", "misdirected"}
)
"""Refusals that the audit tells of: somebody is not who he should be, or not where."""

REFUSALS = 60
"""Lines of the audit that the refusals to one address may fill in a minute: he may ask as often as he likes."""


class HttpApp:
    """`hosts`: the names that a Host header may hold; None: any. `tokens` answers the tokens that there are now; None:
    nobody is asked for one."""

    def __init__(
        self,
        store: Store,
        hosts: Iterable[str] | None,
        tokens: Callable[[], Tokens | None] = lambda: None,
        bounds: Bounds | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._guard = Guard(store, hosts, tokens)
        self._bounds = bounds or Bounds()
        self._limits = limits or Limits()
        self._streams = Streams(store, self._bounds)
        self._readers = Readers(store, self._bounds)
        self._lines, self._unwritten = Budget(REFUSALS), 0
        self._turned_away, self._told_at = 0, float("-inf")

        self._app = web.Application()
        self._app.add_routes(Rest(store, self._bounds.patience).routes())
        self._app.add_routes(
            [
                web.get("/v1/stream", self._stream, allow_head=False),
                web.get("/v1/events", self._events, allow_head=False),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/openapi.json", self._openapi),
            ]
        )
        if isinstance(store.clock, AdjustableClock):
            self._app.add_routes([web.post("/v1/clock", self._clock)])

    def runner(self, drain_seconds: float) -> web.BaseRunner:
        return Runner(self._app, self._answer, drain_seconds, self._bounds, self._one_too_many)

    async def stop(self) -> None:
        """Lets every stream finish what it was asked, and closes it; ends the readers of events."""
        self._readers.stop()
        await self._streams.stop()

    def recheck(self) -> None:
        """Ends the streams that would not be opened any more: their token was revoked, or has expired."""
        self._streams.end_unless(self._guard.holds)
        self._readers.end_unless(self._guard.holds)

    async def _answer(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        response = await self._respond(handler, request)
        # Bytes of a body that nobody has read would be taken for the next request.
        if self._store.stopping or not request.content.is_eof() or request.version > HttpVersion11:
            response.force_close()
        return response

    async def _respond(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        try:
            self._admit(request)
            response = await handler(request)
            if response.status == web.HTTPNotFound.status_code:
                self._limits.missed(request.remote, _now())
            return response
        except Refused as e:
            if e.code == "unauthorized":
                e = self._limits.failed(request.remote, _now()) or e
            self._store.figures.refused[e.code] += 1
            self._note(request, e.code)
            return problem(e.code, e.text, {hdrs.RETRY_AFTER: str(e.retry_after)} if isinstance(e, TooMany) else None)
        except web.HTTPMethodNotAllowed as e:
            allowed = ", ".join(sorted(e.allowed_methods))
            return problem("method_not_allowed", "That method is not for this address.", {hdrs.ALLOW: allowed})
        except web.HTTPNotFound:
            return problem("not_found", "There is nothing at this address; /openapi.json tells what there is.")
        except PAYLOAD_ERRORS:
            response = problem("bad_http", "The body is not framed as HTTP/1.1 says.")
            response.force_close()
            return response
        except ConnectionError:
            raise  # the client is gone, and with it whoever would read an answer
        except Exception:
            log.exception("a request failed")
            if request.writer.output_size > 0:
                raise  # half of an answer is sent, or the stream is open: the connection can only be closed
            return problem("internal", "sessiond failed on this request; its log says more.")

    def _note(self, request: web.Request, code: str) -> None:
        """Tells the audit of a refusal; of an address that is refused without end, only how often it was not told."""
        if self._store.audit is None or code not in AUDITED:
            return
        address, now = address_of(request.remote), _now()
        if self._lines.wait(address, now):
            self._unwritten += 1
            return
        self._lines.spend(address, now)
        unwritten, self._unwritten = self._unwritten, 0
        namespace = request[GRANT].namespace if GRANT in request else None
        self._store.audit.tell(
            "refuse", outcome=code, namespace=namespace, unwritten=unwritten or None, **actor_of(request)._asdict()
        )

    def _admit(self, request: web.Request) -> None:
        """Refuses what no route would take, before 100 Continue asks for its body."""
        request[GRANT] = grant = self._guard.check(request)
        if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            raise Refused("expectation", "Only 100-continue can be expected.")
        check_length(request, self._store.policy(grant.namespace))
        if grant.token is None and request.rel_url.raw_path.startswith("/v1/sessions/"):
            self._limits.check_misses(request.remote, _now())

    def _one_too_many(self) -> None:
        """Counts a connection that was turned away, and says so, once a second at most."""
        self._store.figures.refused["too_many_connections"] += 1
        self._turned_away += 1
        if (now := _now()) >= self._told_at + 1:
            log.warning(
                "%d connections turned away: %d are open, which is all that max_connections allows.",
                self._turned_away,
                self._bounds.connections,
            )
            self._turned_away, self._told_at = 0, now

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self._store.stopping:
            raise Refused("stopping", "The daemon is stopping; ask another, or again in a moment.")
        return await self._streams.serve(request, request[GRANT])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._store.stopping:
            raise Refused("stopping", "The daemon is stopping; ask another, or again in a moment.")
        require(request[GRANT], "watch")
        return await self._readers.serve(request, request[GRANT])

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if (trouble := self._store.trouble) is not None:
            raise Refused("not_ready", trouble)
        return web.Response(text="ready\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        require(request[GRANT], "metrics")
        body = exposition.exposition(self._store, await self._store.living(), self._streams.number)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: exposition.CONTENT_TYPE})

    async def _openapi(self, request: web.Request) -> web.Response:
        body = codec.to_json(document(self._store.policy(request[GRANT].namespace), request[GRANT].token is not None))
        return web.Response(body=body, content_type="application/json")

    async def _clock(self, request: web.Request) -> web.Response:
        """For tests: moves the clock forward."""
        require(request[GRANT], "clock")
        clock = self._store.clock
        assert isinstance(clock, AdjustableClock)
        try:
            body = await read_body(request, self._store.policy(request[GRANT].namespace), self._bounds.patience)
            ms = codec.json_object(body.decode())["advance_ms"]
            if type(ms) is not int or not 0 <= ms <= 10**14:
                raise ValueError
        except (KeyError, ValueError) as e:
            raise Refused("bad_clock", 'Send {"advance_ms": n}, n from 0.') from e
        if self._store.audit is not None:
            self._store.audit.tell("clock", outcome="ok", count=ms, **actor_of(request)._asdict())
        return web.Response(body=codec.to_json({"now": clock.advance(ms)}), content_type="application/json")


def _now() -> float:
    """For budgets and logs: seconds of a clock that never goes back."""
    return asyncio.get_running_loop().time()
