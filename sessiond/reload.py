"""What can change while the daemon runs: its tokens, its key list, its certificates, and the policies of its namespaces.

All else takes a restart.
"""

import asyncio
import logging
from collections.abc import Callable

from sessiond.config import Settings, needing_restart
from sessiond.errors import SettingError, StartError, TokenError
from sessiond.http.app import HttpApp
from sessiond.http.tls import Certificates
from sessiond.keyring import read_vault
from sessiond.store import Store
from sessiond.token_file import Watch
from sessiond.tokens import Tokens

log = logging.getLogger("sessiond")

INTERVAL = 0.5
"""Seconds between two looks at the tokens, so that whoever revokes one can count on a second. One look is a stat, some 2 µs."""


class Reload:
    """`reread` reads the settings again, from the same sources as at start; it raises SettingError."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        watch: Watch,
        store: Store,
        app: HttpApp,
        certificates: Certificates | None = None,
    ) -> None:
        self._settings = settings  # of the start: what needs a restart is compared with these
        self._policies = settings
        self._reread = reread
        self._watch = watch
        self._store = store
        self._app = app
        self._certificates = certificates
        self._tokens = _names(watch.tokens)

    async def watch_for_ever(self) -> None:
        """Takes up changed tokens, and ends the streams of those that have expired. Ends only by being cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                self.look()
            except Exception:
                log.exception("looking at the tokens failed")

    def look(self) -> None:
        try:
            if self._watch.has_changed():
                log.info("there are other tokens now: %d", len(self._watch.tokens or ()))
                self._govern()
                self._tell_of_tokens()
        except TokenError as e:
            log.error("the tokens stay as they were: %s", e)
            self._tell("tokens", "refused")
        self._app.recheck()

    async def obey_for_ever(self, hang_up: asyncio.Event) -> None:
        """Reads everything again each time `hang_up` is set, as SIGHUP does. Ends only by being cancelled."""
        while True:
            await hang_up.wait()
            hang_up.clear()
            if self._store.audit is not None:
                self._store.audit.reopen()
            self.read_settings()
            self.read_certificates()
            await self.read_keys()

    def read_certificates(self) -> None:
        """New connections get what is in the files now. Files that cannot be used change nothing."""
        if self._certificates is None:
            return
        try:
            self._certificates.reload()
        except SettingError as e:
            log.error("the certificates stay as they were: %s", e)
            self._tell("certificates", "refused")
        except Exception:
            log.exception("the certificates stay as they were")
            self._tell("certificates", "refused")
        else:
            self._tell("certificates", "ok")
            log.info("the certificates were read again; new connections get them")

    async def read_keys(self) -> None:
        """Takes up the key list. One that cannot be used is told in the log, and the old one stays."""
        if self._settings.encryption_keys is None:
            return
        try:
            vault = read_vault(self._settings.encryption_keys)
            await self._store.adopt(vault)
            log.info("read the key list again: %s comes first", vault.current)
            self._tell("keys", "ok")
        except (SettingError, StartError) as e:
            log.error("the key list stays as it was: %s", e)
            self._tell("keys", "refused")
        except Exception:
            log.exception("the key list stays as it was")

    def read_settings(self) -> None:
        """Takes up the policies and namespaces in the file. One that is wrong changes nothing."""
        try:
            found = self._reread()
        except SettingError as e:
            log.error("the settings stay as they were: %s", e)
            self._tell("settings", "refused")
            return
        except Exception:
            log.exception("the settings stay as they were")
            self._tell("settings", "refused")
            return
        if waiting := needing_restart(self._settings, found):
            log.warning("these settings have changed, and need a restart: %s", ", ".join(waiting))
        self._policies = found
        self._govern()
        self._app.recheck()
        self._tell("settings", "ok")
        log.info("the settings were read again; namespaces: %s", ", ".join(sorted(found.policies(self._watch.tokens))))

    def _tell_of_tokens(self) -> None:
        """Tells the audit which tokens there are now, by name and id, and no longer."""
        then, self._tokens = self._tokens, _names(self._watch.tokens)
        self._tell("tokens", "ok", added=sorted(self._tokens - then), removed=sorted(then - self._tokens))

    def _tell(self, event: str, outcome: str, **more: object) -> None:
        if self._store.audit is not None:
            self._store.audit.tell(event, outcome=outcome, **more)

    def _govern(self) -> None:
        self._store.govern(self._policies.policies(self._watch.tokens))


def _names(tokens: Tokens | None) -> set[str]:
    """How the audit names them: by name and id, which are no secrets."""
    return {f"{token.name} {token.id}" for token in tokens or ()}
