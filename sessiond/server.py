"""The composition root: settings -> engine -> store -> application -> sweeper, and back in reverse when told to stop."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from sessiond import __version__
from sessiond.audit import Audit
from sessiond.clock import AdjustableClock, Clock
from sessiond.config import Settings, hosts, tokens_path
from sessiond.engines import Options, open_engine
from sessiond.errors import StartError
from sessiond.http.address import Listen, Manner, open_address
from sessiond.http.app import HttpApp
from sessiond.http.limits import Limits
from sessiond.http.tls import Certificates
from sessiond.keyring import read_vault
from sessiond.reload import Reload
from sessiond.store import Store
from sessiond.sweeper import sweep_for_ever
from sessiond.timekeeper import keep_time_for_ever
from sessiond.token_file import Watch

log = logging.getLogger("sessiond")

EXIT_STORAGE = 70
"""The exit code after a failed fsync: what is on disk is known only after a fresh start (EX_SOFTWARE, sysexits.h)."""

CLOCK_SLACK = 1000
"""ms that a start may find the wall clock behind without a word: so much is NTP's doing, and no clock that was set back."""


async def serve(settings: Settings, announce: Callable[[str], None], reread: Callable[[], Settings]) -> None:
    """Runs the daemon until SIGTERM or SIGINT. `announce` is given the one line of the start; `reread` reads the
    settings again, on SIGHUP.

    Raises SettingError, TokenError or StartError when it cannot start. Ends the process with EXIT_STORAGE when the
    storage breaks.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    hang_up = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)

    bounds = settings.bounds()
    certificates = None
    if settings.tls_cert is not None:
        certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    manner = Manner(None if certificates is None else certificates.context, bounds.patience, settings.socket_mode)

    watch = Watch(tokens_path(settings))
    vault = read_vault(settings.encryption_keys)
    options = Options(settings.cache, settings.durability == "relaxed", _end_now, vault)
    engine = await open_engine(settings.data, options)
    clock = AdjustableClock(engine.latest) if settings.adjustable_clock else Clock(engine.latest)
    if (behind := clock.ahead_of_wall()) >= CLOCK_SLACK:
        log.warning(
            "the wall clock is %.0f s behind the latest instant in %s: time goes on from there, so that nothing that has "
            "expired lives again. Check the machine's clock.",
            behind / 1000,
            engine.place,
        )
    audit = None
    try:
        audit = None if settings.audit is None else Audit(Path(settings.audit), clock.now)
    except StartError:
        await engine.close()
        raise
    store = Store(engine, clock, settings.policies(watch.tokens), audit)
    try:
        await store.catch_up()
        limits = Limits(settings.miss_budget, settings.failure_budget)
        app = HttpApp(store, hosts(settings), lambda: watch.tokens, bounds, limits)
        reload = Reload(settings, reread, watch, store, app, certificates)
        runner = app.runner(settings.drain / 1000)
        await runner.setup()
        sockets = ExitStack()  # the files of unix sockets, which go when nobody listens there any more
        chores = [
            asyncio.create_task(sweep_for_ever(store, settings.sweep_interval / 1000)),
            asyncio.create_task(keep_time_for_ever(store)),
            asyncio.create_task(reload.watch_for_ever()),
            asyncio.create_task(reload.obey_for_ever(hang_up)),
        ]
        try:
            urls = [await open_address(runner, Listen.read(text), sockets, manner) for text in settings.listen]
            announce(
                f"sessiond {__version__} listens on {' and '.join(urls)}, keeps its data in {engine.place}, "
                f"durability {engine.durability}"
            )
            if audit is not None:
                audit.tell("start", outcome="ok", version=__version__)
            # What stands now stands until the end: the collector need not walk through it again.
            gc.collect()
            gc.freeze()
            await stop.wait()
            log.info("stopping")
        finally:
            store.stopping = True
            for chore in chores:
                chore.cancel()
                with suppress(asyncio.CancelledError):
                    await chore
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.drain / 1000):
                    for site in list(runner.sites):
                        await site.stop()
                    sockets.close()
                    await app.stop()
                    await runner.cleanup()
    finally:
        await store.close()
        if audit is not None:
            audit.tell("stop", outcome="ok")
            await audit.close()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # who asks twice gets the same end, and the same exit code


def _end_now(text: str) -> None:
    """Ends the process at once: nothing that is still waiting may be acknowledged."""
    log.critical("%s The process ends, so that nothing is acknowledged that may not be stored; start it again.", text)
    os._exit(EXIT_STORAGE)
