"""What may stand between a client and its daemon: a proxy that loses answers, and peers that are no daemon at all."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Self
from urllib.parse import urlsplit

from sessiond_client._frames import BINARY

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A TCP server on a thread of its own, from `with` to its end."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self.url = ""
        self._tls = tls
        self.connections = 0
        self._handler = handler
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Breaks all connections, without a word."""

        def abort() -> None:
            for writer in self._writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _end(self) -> None:
        # A connection that is just being accepted is let in before the server closes: asyncio would drop its socket open.
        while accepting := asyncio.all_tasks() - {asyncio.current_task(), *self._tasks}:
            await asyncio.wait(accepting, timeout=1)
            for task in accepting:
                task.cancel()
        self._server.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)  # for what the aborted transports still have to do

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine: a task that is cancelled before its first step would not close its socket."""
        self.connections += 1
        self._writers.add(writer)
        task = self._loop.create_task(self._handle(reader, writer))
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

        task.add_done_callback(end)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._handler(reader, writer)


class Proxy(Peer):
    """Stands before a daemon; lets `spare` messages of its pass, then loses `eat` of them, each with its connection."""

    def __init__(self, url: str) -> None:
        super().__init__(self._relay)
        self.eat = 0
        self.spare = 0
        self.before_eating: Callable[[], object] = lambda: None
        self._target = urlsplit(url)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_daemon, to_daemon = await asyncio.open_connection(self._target.hostname, self._target.port)

        async def ask() -> None:
            with contextlib.suppress(ConnectionError):
                while chunk := await reader.read(65536):
                    to_daemon.write(chunk)
            to_daemon.close()

        asking = asyncio.ensure_future(ask())
        try:
            writer.write(await from_daemon.readuntil(b"\r\n\r\n"))
            while chunk := await from_daemon.read(65536):
                if self.spare:
                    self.spare -= 1
                elif self.eat:
                    self.eat -= 1
                    await asyncio.to_thread(self.before_eating)
                    return
                writer.write(chunk)
        finally:
            to_daemon.transport.abort()
            asking.cancel()


def answering(reply: bytes) -> Handler:
    """Answers the handshake with these bytes, and then nothing."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await asyncio.sleep(3600)

    return handler


def welcoming(then: Handler) -> Handler:
    """Shakes hands like a daemon; what follows is up to `then`."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: ")).split()[1]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: sessiond.1\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        await then(reader, writer)

    return handler


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""
    await asyncio.sleep(3600)


def saying(frames: bytes) -> Handler:
    """Waits for a message, and answers with these bytes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(frames)
        await asyncio.sleep(3600)

    return handler


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The opcode and the payload of a client's frame of at most 65,535 bytes."""
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    mask, payload = await reader.readexactly(4), await reader.readexactly(size)
    return head[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A daemon's frame of at most 125 bytes."""
    return bytes((0x80 | opcode, len(payload))) + payload


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """The address of a port on which nobody listens."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...

    with Peer(refuse) as peer:
        url = peer.url
    yield url
