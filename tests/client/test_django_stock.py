"""The engine under Django's own SessionMiddleware: the scenarios of test_adapters.py that do not ask for more than Django has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiond_client.testing import Server

from . import test_adapters
from .sites import Browser, Site
from .test_adapters import browse, browser, daemon, sessions

__all__ = ["browse", "browser", "daemon", "sessions"]

STOCK = "django.contrib.sessions.middleware.SessionMiddleware"

LEFT_OUT = {
    "test_cookie_flags",  # Django's middleware does not say no-store
    "test_clear",  # it keeps a session that the app has emptied: `test_empty_session_saved` of its own tests
    "test_late_answer_keeps_the_new_cookie",  # it takes a cookie away whose session is not there
    "test_same_cookie_twice",  # it takes the last one
    "test_devices",  # it does not see who asks, so that nothing can be noted
    "test_daemon_away_and_back",  # it knows no optional paths
    "test_websocket",  # Django has none
    "test_websocket_of_the_logged_out",
    "test_round_trips",  # below
}

globals().update(
    {name: test for name, test in vars(test_adapters).items() if name.startswith("test_") and name not in LEFT_OUT}
)


@pytest.fixture(scope="module", params=["django", "django-asgi"])
def site(request: pytest.FixtureRequest, daemon: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app in four processes, with Django's middleware."""
    folder = tmp_path_factory.mktemp("site")
    with Site(request.param, daemon.url, folder, workers=4, SESSION_MIDDLEWARE=STOCK) as site:
        yield site


@pytest.mark.parametrize("kind", ["django", "django-asgi"])
async def test_round_trips_of_the_engine(kind: str, sessiond_server: Server, tmp_path: Path) -> None:
    """No call for a request that does not touch the session, one for a read, two for a read and a save."""
    with Site(kind, sessiond_server.url, tmp_path, SESSION_MIDDLEWARE=STOCK) as site:
        browser = Browser(site)
        await browser.post("/set/a/1")
        counted = []
        for method, path in (("GET", "/untouched"), ("GET", "/read"), ("POST", "/set/a/2"), ("POST", "/set/a/2")):
            before = await browser.calls()
            await browser.ask(method, path, cookie=f"{site.kind.cookie}={browser.cookie}")
            counted.append(await browser.calls() - before)
        await browser.close()

    assert [0, 1, 2, 2] == counted
