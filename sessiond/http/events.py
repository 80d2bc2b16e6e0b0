"""`GET /v1/events`: what ends, as server-sent events (WHATWG HTML §9.2), for whoever has no client of ours.

A reader is a request that does not end. It pulls from the log of events as fast as its connection takes them, so one that
does not read costs no memory here, and the listener drops it.
"""

import asyncio
from collections.abc import Callable

from aiohttp import hdrs, web

from sessiond import codec
from sessiond.calls import handle_of
from sessiond.errors import Refused
from sessiond.events import Cursor, Event
from sessiond.http.bounds import Bounds
from sessiond.store import Store
from sessiond.tokens import Grant

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent: well before the 60 s of the usual proxies, and so that a connection
that is gone is noticed."""

RETRY = 1000
"""ms that a browser's EventSource, and whoever is modelled on it, waits before it comes back."""

LAST_EVENT_ID = "Last-Event-ID"


class _Reader:
    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.is_over = False
        self.more = asyncio.Event()

    def end(self) -> None:
        self.is_over = True
        self.more.set()


class Readers:
    """All of them, so that they can be ended when the daemon stops, or when their tokens do."""

    def __init__(self, store: Store, bounds: Bounds, heartbeat: float = HEARTBEAT) -> None:
        self._store = store
        self._bounds = bounds
        self._heartbeat = heartbeat
        self._readers: set[_Reader] = set()

    async def serve(self, request: web.Request, grant: Grant) -> web.StreamResponse:
        """Tells what ends in the namespace until either side closes. Refused for an id that no event had."""
        cursor = self._cursor(request)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        reader = _Reader(grant)
        self._readers.add(reader)
        self._store.events.wake(reader.more.set)
        try:
            await self._tell(reader, cursor, response)
            await response.write_eof()
        except ConnectionError:
            pass  # the reader is gone
        finally:
            self._store.events.unwake(reader.more.set)
            self._readers.discard(reader)
        return response

    def end_unless(self, holds: Callable[[Grant], bool]) -> None:
        """Ends every reader whose grant does not hold any more."""
        for reader in self._readers:
            if not holds(reader.grant):
                reader.end()

    def stop(self) -> None:
        for reader in self._readers:
            reader.end()

    def _cursor(self, request: web.Request) -> Cursor:
        if len(request.query) != len(dict(request.query)) or not request.query.keys() <= {"after"}:
            raise Refused("bad_query", "The query of this request may hold, once: after.")
        # The header goes first: who comes back asks by the address that he asked by at first.
        after = request.headers.get(LAST_EVENT_ID) or request.query.get("after")
        return self._store.events.now() if after is None else self._store.events.after(after)

    async def _tell(self, reader: _Reader, cursor: Cursor, response: web.StreamResponse) -> None:
        loop = asyncio.get_running_loop()
        lifetime = self._bounds.lifetime
        end = None if lifetime is None else loop.time() + lifetime
        log, namespace = self._store.events, reader.grant.namespace
        text = b"retry: %d\n" % RETRY
        while not reader.is_over:
            reader.more.clear()
            events, cursor = log.read(cursor, namespace)
            text += b"".join(map(block, events))
            if text:
                # A block without data is no event, but its id is taken: who comes back later has missed less.
                await response.write(text if events else text + b"id: %s\n\n" % log.id_of(cursor).encode())
                text = b""
            if log.is_behind(cursor):
                await asyncio.sleep(0)  # others are to have their turn
                continue
            left = self._heartbeat if end is None else min(self._heartbeat, end - loop.time())
            if left <= 0:
                return
            try:
                await asyncio.wait_for(reader.more.wait(), left)
            except TimeoutError:
                text = b": alive\n"


def block(event: Event) -> bytes:
    """An event as it stands in the stream."""
    fields: dict[str, object] = {}
    if event.key is not None:
        fields = {"key": handle_of(event.key), "user": event.user, "at": event.at}
    if event.new_key is not None:
        fields["new_key"] = handle_of(event.new_key)
    if event.reason is not None:
        fields["reason"] = event.reason
    # A line end inside the data, which JSON has none of, would end the event; to_json ends its line.
    return b"id: %s\nevent: %s\ndata: %s\n" % (event.id.encode(), event.kind.encode(), codec.to_json(fields))
