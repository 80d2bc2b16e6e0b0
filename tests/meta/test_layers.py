"""The plan of the house: imports run downwards, and a third-party library has one door."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DAEMON = ROOT / "sessiond"
CLIENT = ROOT / "client" / "python" / "sessiond_client"

FLOORS = [
    {"errors", "clock", "metrics"},
    {"codec"},
    {"calls", "tokens"},
    {"record"},
    {"vault", "limits", "token_file"},
    {"engine", "keyring"},
    {"engines"},
    {"engines.memory", "engines.sqlite.cache", "engines.sqlite.crowd", "engines.sqlite.schema", "engines.sqlite.seals"},
    {"engines.sqlite.file"},
    {"engines.sqlite.engine"},
    {"engines.sqlite"},
    {"events", "audit"},
    {"store"},
    {
        *("sweeper", "timekeeper", "http.address", "http.auth", "http.bounds", "http.limits", "http.problem"),
        *("http.frames", "http.tls"),
    },
    {"http.wire"},
    {"http.listener", "http.rest", "http.stream", "http.exposition", "http.events"},
    {"http.openapi"},
    {"http.app"},
    {"config"},
    {"reload", "cli_token", "rekey"},
    {"server"},
    {"cli"},
    {"__main__"},
]
"""From the ground up. A module imports from the floors below its own; `http` itself is only a name."""

DOORS = {
    "aiohttp": {
        f"http.{name}"
        for name in ("address", "app", "auth", "events", "frames", "listener", "problem", "rest", "stream")
    },
    "aiosqlite": {"engines.sqlite.file"},
    "click": {"cli", "cli_token"},
    "cryptography": {"vault"},
    "msgpack": {"codec"},
    "msgspec": {"codec"},
    "prometheus_client": {"http.exposition"},
    "uvloop": {"cli"},
}

CLIENT_DOORS = {
    "aiohttp": {"aiohttp", "aiohttp_session"},
    "aiohttp_session": {"aiohttp_session"},
    "litestar": {"_litestar_store", "litestar"},
    "flask": {"flask"},
    "django": {f"django.{name}" for name in ("apps", "checks", "middleware", "move", "options", "store")},
    "msgpack": {"_codec"},
    "pytest": {"testing"},
    "werkzeug": {"flask"},
    "starlette": {"starlette"},
    "starsessions": {"starsessions"},
}


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name within it; the package itself is ""."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(package: Path, name: str, path: Path) -> set[str]:
    """What a module imports, anywhere in it: modules of its package as ".name", others by their first name."""
    known = modules(package)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ([package.name, *name.split(".")] if name else [package.name])[
                    : None if path.stem == "__init__" else -1
                ]
                base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in names:
            first, _, rest = full.partition(".")
            if first != package.name:
                found.add(first)
            elif rest:
                module = rest if rest in known else rest.rpartition(".")[0]
                if module and module != name:
                    found.add(f".{module}")
    return found


@pytest.mark.parametrize("name", sorted(name for name in modules(DAEMON) if name not in ("", "http")))
def test_daemon_imports_run_downwards(name: str) -> None:
    """A module of the daemon imports only from floors below its own, and every module has its floor."""
    floor_of = {module: floor for floor, names in enumerate(FLOORS) for module in names}

    imported = {each[1:] for each in imports(DAEMON, name, modules(DAEMON)[name]) if each.startswith(".")}

    assert {each for each in imported if floor_of[each] >= floor_of[name]} == set()


def test_the_plan_names_only_what_there_is() -> None:
    """No floor and no door is kept for a module that is gone."""
    there = set(modules(DAEMON))

    assert set().union(*FLOORS) - there == set()
    assert set().union(*DOORS.values()) - there == set()
    assert set().union(*CLIENT_DOORS.values()) - set(modules(CLIENT)) == set()


@pytest.mark.parametrize(("package", "doors"), [(DAEMON, DOORS), (CLIENT, CLIENT_DOORS)], ids=["daemon", "client"])
def test_a_library_has_one_door(package: Path, doors: dict[str, set[str]]) -> None:
    """Each third-party library is imported exactly where the plan says; neither distribution imports the other."""
    used: dict[str, set[str]] = {}
    for name, path in modules(package).items():
        for library in imports(package, name, path):
            if not library.startswith(".") and library not in sys.stdlib_module_names:
                used.setdefault(library, set()).add(name)

    assert doors == used


def test_client_imports_form_no_circle() -> None:
    """The client is a ladder: it can be read from the bottom."""
    graph = {
        name: {each[1:] for each in imports(CLIENT, name, path) if each.startswith(".")}
        for name, path in modules(CLIENT).items()
    }

    order = list(TopologicalSorter(graph).static_order())

    assert order[0] == "errors" or "errors" not in graph["errors"]
    assert len(order) == len(graph)
