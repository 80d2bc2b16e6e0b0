"""The face of the package: its names, its signatures, and what importing it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sessiond_client
from sessiond_client import AsyncClient, AsyncSession, Client, Session

VERBS = ["create", "get", "set", "patch", "touch", "rotate", "destroy", "list", "count", "destroy_all", "update"]


def test_exported_names() -> None:
    """`__all__` is sorted, and is all that the package shows besides its modules."""
    names = {
        name
        for name, value in vars(sessiond_client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert sessiond_client.__all__ == sorted(sessiond_client.__all__)
    assert names == set(sessiond_client.__all__)


def public(kind: type) -> dict[str, object]:
    """The public methods and properties of a class, and its constructor."""
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_") or name == "__init__"}


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Session, AsyncSession)])
def test_twins(one: type, other: type) -> None:
    """The blocking and the asyncio class have the same methods with the same parameters."""
    assert public(one).keys() == public(other).keys()
    for name, method in public(one).items():
        if callable(method):
            mine, other_method = inspect.signature(method), getattr(other, name)
            theirs = inspect.signature(other_method)
            if name != "__init__" or one is Client:
                assert mine.parameters == theirs.parameters, name
            if name not in ("from_url", "session", "events"):
                assert mine.return_annotation == theirs.return_annotation, name


def test_verbs_are_awaited() -> None:
    """Exactly the verbs of the asyncio client are coroutines, and `close`."""
    found = {name for name, value in public(AsyncClient).items() if inspect.iscoroutinefunction(value)}

    assert found == {*VERBS, "close"}


@pytest.mark.parametrize("kind", [Client, AsyncClient, Session, AsyncSession])
def test_everything_public_says_what_it_does(kind: type) -> None:
    """Each public method and property has a docstring."""
    assert [name for name, value in public(kind).items() if not inspect.getdoc(value)] == []


def test_import_brings_msgpack_only() -> None:
    """Importing the package imports msgpack and nothing else besides the standard library."""
    code = (
        "import sys; before = set(sys.modules); import sessiond_client; import sessiond_client.cookies;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout

    assert {name for name in output.split() if not name.startswith(("_", "cython"))} == {"msgpack", "sessiond_client"}


def test_msgpack_has_one_door() -> None:
    """Only one module imports msgpack, so that it could be replaced."""
    modules = Path(sessiond_client.__file__).parent.glob("*.py")

    assert [module.name for module in modules if "import msgpack" in module.read_text()] == ["_codec.py"]
