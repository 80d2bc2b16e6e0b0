"""Addresses to listen on: reading them, and opening them for a runner."""

import asyncio
import errno
import os
import socket
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web

from sessiond.errors import StartError

BACKLOG = 1024
"""Connections that the kernel may hold ready while the loop is busy: a burst of web processes that reconnect at once."""


@dataclass(frozen=True, slots=True)
class Listen:
    """A TCP address (host without brackets, port 0: any free one) or a unix socket's path."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def read(cls, text: str) -> "Listen":
        if text.startswith("unix:"):
            if not (path := text.removeprefix("unix:").removeprefix("//")):
                raise ValueError("unix:PATH needs a path")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError("an address is HOST:PORT, such as 127.0.0.1:7377, with a port up to 65535, or unix:PATH")
        if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
            raise ValueError("an IPv6 address stands in brackets: [::1]:7377")
        return cls(host=host.strip("[]"), port=int(port))

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Manner:
    """How to listen. `tls`: for TCP addresses, with `handshake` seconds for each connection; None: without. `mode`: of
    unix sockets."""

    tls: ssl.SSLContext | None = None
    handshake: float = 10.0
    mode: int = 0o660


async def open_address(runner: web.BaseRunner, listen: Listen, sockets: ExitStack, manner: Manner) -> str:
    """Opens one address, and says its URL. `sockets` gets what has to go when nobody listens any more.

    Raises StartError when the address cannot be had.
    """
    try:
        if listen.path:
            return await _open_unix(runner, Path(listen.path).absolute(), sockets, manner.mode)
        site = _Site(runner, listen, manner)
        await site.start()
    except OSError as e:
        where = listen.path or listen.address
        if e.errno == errno.EADDRINUSE:
            raise StartError(
                f"cannot listen on {where}: another process listens there. Stop it, or give another --listen."
            ) from e
        # uvloop wraps the system's words in its own; a name that is not known has a number that is no errno.
        reason = os.strerror(e.errno) if e.errno and e.errno > 0 else e.strerror or str(e)
        raise StartError(f"cannot listen on {where}: {reason}. Give another --listen.") from e
    assert site._server is not None
    host, port = site._server.sockets[0].getsockname()[:2]  # type: ignore[attr-defined]
    return f"http{'s' if manner.tls else ''}://{Listen(host, port).address}"


class _Site(web.TCPSite):
    """aiohttp's has no limit of its own for a handshake, and asyncio's is 60 s."""

    def __init__(self, runner: web.BaseRunner, listen: Listen, manner: Manner) -> None:
        super().__init__(runner, listen.host, listen.port, ssl_context=manner.tls, backlog=BACKLOG)
        self._timeout = None if manner.tls is None else manner.handshake

    async def start(self) -> None:
        await web.BaseSite.start(self)
        assert self._runner.server is not None
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_handshake_timeout=self._timeout,
            ssl_shutdown_timeout=self._timeout,
        )


async def _open_unix(runner: web.BaseRunner, path: Path, sockets: ExitStack, mode: int) -> str:
    if path.is_socket():
        # asyncio would take the place of any socket, also of one at which somebody listens.
        with socket.socket(socket.AF_UNIX) as probe:
            found = probe.connect_ex(str(path))
        if found != errno.ECONNREFUSED:  # refused: it was left by a process that was killed
            raise OSError(found or errno.EADDRINUSE, "")
        path.unlink()
    elif path.exists():
        raise OSError(errno.EEXIST, "")
    line = socket.socket(socket.AF_UNIX)
    # Bound here, because asyncio would bind it with the process' umask, and for a moment open to all whom that lets in.
    before = os.umask(0o777 & ~mode)
    try:
        line.bind(str(path))
    except BaseException:
        line.close()
        raise
    finally:
        os.umask(before)
    sockets.callback(path.unlink, missing_ok=True)
    line.setblocking(False)
    await web.SockSite(runner, line, backlog=BACKLOG).start()
    return f"unix://{path}"
