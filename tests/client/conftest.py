"""Fixtures for tests that hold for both clients, over a real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sessiond_client.testing import Server

from .support import Clients


@pytest.fixture(params=["sync", "async"])
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    """Makes clients of either kind."""
    clients = Clients(request.param)
    yield clients
    clients.close()


@pytest.fixture
def client(clients: Clients, sessiond_server: Server) -> Any:
    """A client of either kind, of a daemon of this test's own."""
    return clients(sessiond_server.url)
