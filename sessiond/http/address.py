"""Addresses to listen on: reading them, and opening them for a runner."""

import errno
import os
import socket
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


async def open_address(runner: web.BaseRunner, listen: Listen, sockets: ExitStack) -> str:
    """Opens one address, and says its URL. `sockets` gets what has to go when nobody listens any more.

    Raises StartError when the address cannot be had.
    """
    try:
        if listen.path:
            return await _open_unix(runner, Path(listen.path).absolute(), sockets)
        site = web.TCPSite(runner, listen.host, listen.port, backlog=BACKLOG)
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
    return f"http://{Listen(host, port).address}"


async def _open_unix(runner: web.BaseRunner, path: Path, sockets: ExitStack) -> str:
    if path.is_socket():
        # asyncio would take the place of any socket, also of one at which somebody listens.
        with socket.socket(socket.AF_UNIX) as probe:
            found = probe.connect_ex(str(path))
        if found != errno.ECONNREFUSED:  # refused: it was left by a process that was killed
            raise OSError(found or errno.EADDRINUSE, "")
        path.unlink()
    elif path.exists():
        raise OSError(errno.EEXIST, "")
    await web.UnixSite(runner, path, backlog=BACKLOG).start()
    sockets.callback(path.unlink, missing_ok=True)
    path.chmod(0o660)
    return f"unix://{path}"
