"""The composition root: settings -> engine -> store -> application -> sweeper, and back in reverse when told to stop."""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from aiohttp import web

from sessiond import __version__
from sessiond.clock import AdjustableClock, Clock
from sessiond.config import Listen, Settings, hosts
from sessiond.engines import Options, open_engine
from sessiond.errors import StartError
from sessiond.http.app import HttpApp
from sessiond.http.auth import ANONYMOUS
from sessiond.store import Store
from sessiond.sweeper import sweep_for_ever

log = logging.getLogger("sessiond")

EXIT_STORAGE = 70
"""The exit code after a failed fsync: what is on disk is known only after a fresh start (EX_SOFTWARE, sysexits.h)."""

BACKLOG = 1024


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Runs the daemon until SIGTERM or SIGINT. `announce` is given the one line of the start.

    Raises SettingError or StartError when it cannot start. Ends the process with EXIT_STORAGE when the storage breaks.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    clock = AdjustableClock() if settings.adjustable_clock else Clock()
    options = Options(settings.cache, settings.durability == "relaxed", _end_now)
    engine = await open_engine(settings.data, options)
    store = Store(engine, clock, {ANONYMOUS: settings.policy()})
    try:
        app = HttpApp(store, hosts(settings))
        runner = app.runner(settings.drain / 1000)
        await runner.setup()
        sockets = ExitStack()  # the files of unix sockets, which go when nobody listens there any more
        sweeper = asyncio.create_task(sweep_for_ever(store, settings.sweep_interval / 1000))
        try:
            urls = [await _listen(runner, Listen.read(text), sockets) for text in settings.listen]
            announce(
                f"sessiond {__version__} listens on {' and '.join(urls)}, keeps its data in {engine.place}, "
                f"durability {engine.durability}"
            )
            # What stands now stands until the end: the collector need not walk through it again.
            gc.collect()
            gc.freeze()
            await stop.wait()
            log.info("stopping")
        finally:
            store.stopping = True
            sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await sweeper
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.drain / 1000):
                    for site in list(runner.sites):
                        await site.stop()
                    sockets.close()
                    await app.stop()
                    await runner.cleanup()
    finally:
        await store.close()


async def _listen(runner: web.BaseRunner, listen: Listen, sockets: ExitStack) -> str:
    """Opens one address, and says its URL."""
    try:
        if listen.path:
            return await _listen_unix(runner, Path(listen.path).absolute(), sockets)
        site = web.TCPSite(runner, listen.host, listen.port, backlog=BACKLOG)
        await site.start()
    except OSError as e:
        where = listen.path or listen.address
        if e.errno == errno.EADDRINUSE:
            raise StartError(
                f"cannot listen on {where}: another process does. Stop that one, or give another --listen."
            ) from e
        # uvloop wraps the system's words in its own; a name that is not known has a number that is no errno.
        reason = os.strerror(e.errno) if e.errno and e.errno > 0 else e.strerror or str(e)
        raise StartError(f"cannot listen on {where}: {reason}. Give another --listen.") from e
    assert site._server is not None
    host, port = site._server.sockets[0].getsockname()[:2]  # type: ignore[attr-defined]
    return f"http://{Listen(host, port).address}"


async def _listen_unix(runner: web.BaseRunner, path: Path, sockets: ExitStack) -> str:
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


def _end_now(text: str) -> None:
    """Ends the process at once: nothing that is still waiting may be acknowledged."""
    log.critical("%s The process ends, so that nothing is acknowledged that may not be stored; start it again.", text)
    os._exit(EXIT_STORAGE)
