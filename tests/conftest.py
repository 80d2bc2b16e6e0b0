"""Engines under test. Nothing here touches a test that does not ask for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import ENGINES, Subject


@pytest.fixture(params=list(ENGINES))
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    url, cache_bytes, vault = ENGINES[request.param]
    subject = await Subject(url if url == "memory:" else str(tmp_path / url), cache_bytes, vault=vault).open()
    yield subject
    await subject.engine.close()
    assert [] == subject.fatal


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Subject]:
    """The SQLite engine with an ample cache, in a folder of its own."""
    subject = await Subject(str(tmp_path / "sessions.db")).open()
    yield subject
    await subject.engine.close()
    assert [] == subject.fatal
