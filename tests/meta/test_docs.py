"""What the docs say and what the code has are the same things."""

import ast
import re
from pathlib import Path

import pytest
from aiohttp import web

import sessiond_client
from sessiond.calls import Policy
from sessiond.config import POLICY, SETTINGS
from sessiond.http import openapi, problem, wire
from sessiond.tokens import NEEDS

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
PAGES = [path for path in ROOT.rglob("*.md") if not {".venv", "node_modules"} & set(path.parts)]


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/settings.md has one row for each setting, with its key, flag, variable and default, and no other row."""
    rows = re.findall(
        r"^\| `(\w+)` \| `--([\w-]+)` \| `(SESSIOND_\w+)` \| (.*?) \|",
        (ROOT / "docs" / "settings.md").read_text(),
        re.M,
    )

    expected = []
    for name, setting in SETTINGS.items():
        default = str(setting.default).lower() if isinstance(setting.default, bool) else setting.default
        expected.append(
            (name, name.replace("_", "-"), f"SESSIOND_{name.upper()}", f"`{default}`" if default else "none")
        )
    assert expected == rows


def test_every_setting_of_a_namespace_is_documented() -> None:
    """The page of settings says which of them a namespace may have of its own."""
    paragraph = (
        (ROOT / "docs" / "settings.md").read_text().partition("**Namespaces.**")[2].partition("What it does not")[0]
    )

    assert list(POLICY) == re.findall(r"`(\w+)`", paragraph)


def test_every_verb_and_its_arguments_are_documented() -> None:
    """The table of calls names each verb of the stream with at most as many arguments as the daemon takes."""
    table = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| ", PROTOCOL, re.M))

    assert {verb: most for verb, (_, _, most) in wire._READERS.items()} == {
        verb: len(arguments.split(",")) for verb, arguments in table.items() if verb in wire._READERS
    }


def test_every_code_is_documented() -> None:
    """Each code that the daemon can answer stands in docs/protocol.md."""
    found = set(problem.STATUSES)
    for path in sources("sessiond"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "Refused",
                "problem",
                "failed",
                "StorageError",
            ):
                found |= {
                    arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
                }

    assert len(found) > 30
    assert {code for code in found if f"`{code}`" not in PROTOCOL} == set()


def test_every_scope_is_documented() -> None:
    """The table of scopes in docs/protocol.md allows what the daemon does."""
    table = PROTOCOL.partition("| scope | actions |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^.|]+)", table, re.M))

    told: dict[str, set[str]] = {}
    for scope, actions in rows.items():
        for action in re.split(r"[;,] ", actions.strip().replace(", together", " together")):
            told.setdefault(re.sub(r" of a user$| together.*$", "", action), set()).add(scope)

    assert told == {action: set(scopes) for action, scopes in NEEDS.items()}


def test_every_control_has_its_test() -> None:
    """Each test that docs/security.md names is there."""
    for name in re.findall(r"`([\w/.-]+\.(?:py|js)(?:::\w+)?)`", (ROOT / "docs" / "security.md").read_text()):
        path, _, function = name.partition("::")
        assert (ROOT / path).exists(), name
        assert function in (ROOT / path).read_text(), name


def test_every_route_is_documented() -> None:
    """Each path of the API stands in docs/protocol.md."""
    for path, operations in openapi.document(Policy())["paths"].items():
        for method in {"get", "put", "post", "patch", "delete"} & set(operations):
            shown = path.replace("{session}", "{s}")
            assert shown in PROTOCOL, path
            if path.startswith("/v1/"):
                assert f"`{method.upper()} {shown}" in PROTOCOL, f"{method} {path}"


def test_every_metric_is_documented() -> None:
    """Each metric of ours stands in docs/operations.md, whole or as an ending of the one before it."""
    source = (ROOT / "sessiond" / "http" / "exposition.py").read_text()
    page = (ROOT / "docs" / "operations.md").read_text()

    names = set(re.findall(r'"(sessiond_\w+)"', source)) - {"sessiond_build_info"}

    assert len(names) > 10
    assert {name for name in names if name not in page and f"_{name.rpartition('_')[2]}" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of every page names a file that is there."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("path", sources("tests"), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_what_is_true(path: Path) -> None:
    """Every test has a docstring that states a behaviour as a fact."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_the_client_exports_what_its_face_lists() -> None:
    """`__all__` is sorted as ruff sorts, names what is there, and nothing private."""
    assert all(hasattr(sessiond_client, name) for name in sessiond_client.__all__)
    assert not [name for name in sessiond_client.__all__ if name.startswith("_")]


def test_the_default_port_is_the_same_everywhere() -> None:
    """7377 in the settings, the client, the compose file and the README."""
    for place in (
        "sessiond/config.py",
        "client/python/sessiond_client/_urls.py",
        "docker-compose.yml",
        "Dockerfile",
        "README.md",
    ):
        assert "7377" in (ROOT / place).read_text(), place


def test_answers_never_leave_the_type_of_a_response() -> None:
    """Every status that a problem can have has a title."""
    assert {*problem.STATUSES.values(), 400} == set(problem.TITLES)
    assert isinstance(problem.problem("missing", "text"), web.Response)
