"""The composition root: settings -> engine -> store -> application -> sweeper, and back in reverse when told to stop."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress

from sessiond import __version__
from sessiond.clock import AdjustableClock, Clock
from sessiond.config import Settings, hosts
from sessiond.engines import Options, open_engine
from sessiond.errors import SettingError
from sessiond.http.address import Listen, Manner, open_address
from sessiond.http.app import HttpApp
from sessiond.http.auth import ANONYMOUS
from sessiond.http.limits import Limits
from sessiond.http.tls import Certificates
from sessiond.store import Store
from sessiond.sweeper import sweep_for_ever

log = logging.getLogger("sessiond")

EXIT_STORAGE = 70
"""The exit code after a failed fsync: what is on disk is known only after a fresh start (EX_SOFTWARE, sysexits.h)."""


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Runs the daemon until SIGTERM or SIGINT. `announce` is given the one line of the start.

    Raises SettingError or StartError when it cannot start. Ends the process with EXIT_STORAGE when the storage breaks.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    bounds = settings.bounds()
    certificates = None
    if settings.tls_cert is not None:
        certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    manner = Manner(None if certificates is None else certificates.context, bounds.patience, settings.socket_mode)
    loop.add_signal_handler(signal.SIGHUP, _reload, certificates)

    clock = AdjustableClock() if settings.adjustable_clock else Clock()
    options = Options(settings.cache, settings.durability == "relaxed", _end_now)
    engine = await open_engine(settings.data, options)
    store = Store(engine, clock, {ANONYMOUS: settings.policy()})
    try:
        app = HttpApp(store, hosts(settings), bounds, Limits(settings.miss_budget, settings.failure_budget))
        runner = app.runner(settings.drain / 1000)
        await runner.setup()
        sockets = ExitStack()  # the files of unix sockets, which go when nobody listens there any more
        sweeper = asyncio.create_task(sweep_for_ever(store, settings.sweep_interval / 1000))
        try:
            urls = [await open_address(runner, Listen.read(text), sockets, manner) for text in settings.listen]
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
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # who asks twice gets the same end, and the same exit code


def _reload(certificates: Certificates | None) -> None:
    """On SIGHUP: reads again what may change while the daemon runs."""
    if certificates is None:
        log.info("SIGHUP: there is nothing to read again")
        return
    try:
        certificates.reload()
    except SettingError as e:
        log.error("%s The certificates stay as they were.", e)
    else:
        log.info("the certificates were read again; new connections get them")


def _end_now(text: str) -> None:
    """Ends the process at once: nothing that is still waiting may be acknowledged."""
    log.critical("%s The process ends, so that nothing is acknowledged that may not be stored; start it again.", text)
    os._exit(EXIT_STORAGE)
