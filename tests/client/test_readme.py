"""The examples in the client's README, run as they stand but for the address."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sessiond_client as package
from sessiond_client.testing import Server

README = Path(__file__).parents[2] / "client" / "python" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples(sessiond_server: Server, sessiond_client: object, example: str) -> None:
    """Each example does what it says; one that is a test passes."""
    names: dict[str, object] = {}
    exec(example.replace("http://127.0.0.1:7377", sessiond_server.url), names)
    for name, value in names.items():
        if name.startswith("test_") and callable(value):
            value(sessiond_server, sessiond_client)


def test_every_error_is_in_the_table() -> None:
    """The README's table of errors names every error."""

    errors = [name for name in package.__all__ if isinstance(getattr(package, name), type)]
    errors = [name for name in errors if issubclass(getattr(package, name), Exception)]
    assert [name for name in errors if f"`{name}`" not in README.read_text() and name != "SessiondError"] == []
