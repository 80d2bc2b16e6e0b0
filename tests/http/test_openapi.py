"""The document at /openapi.json is true: it names every route, and schemathesis finds nothing in it that the daemon denies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import schemathesis
from aiohttp import hdrs
from schemathesis.core.result import Ok

from sessiond.calls import Policy
from sessiond.clock import AdjustableClock
from sessiond.engines import Options, open_engine
from sessiond.http.app import HttpApp
from sessiond.store import Store
from tests.http.support import Daemon

HERE = Path(__file__).parent

UNDOCUMENTED = {
    ("GET", "/v1/stream"): "no request and answer: docs/protocol.md part 2",
    ("POST", "/v1/clock"): "for tests of a daemon that was started for them",
}


def test_the_document_is_openapi(daemon: Daemon) -> None:
    """/openapi.json is OpenAPI 3.1 in which every reference leads somewhere and every operation can be made."""
    schema = schemathesis.openapi.from_url(f"http://{daemon.host}:{daemon.port}/openapi.json")

    operations = list(schema.get_all_operations())

    assert schema.raw_schema["openapi"] == "3.1.0"
    assert all(isinstance(operation, Ok) for operation in operations)
    assert len(operations) == 14


async def test_the_document_and_the_routes_are_the_same(daemon: Daemon) -> None:
    """Every route stands in the document and the other way round; HEAD is GET without its body."""
    engine = await open_engine("memory:", Options(0, False, print))
    store = Store(engine, AdjustableClock(), {"default": Policy()})
    router = HttpApp(store, None).runner(1).app.router  # type: ignore[attr-defined]
    await store.close()
    routes = {(route.method, route.resource.canonical) for route in router.routes() if route.method != hdrs.METH_HEAD}

    paths = daemon.ask("GET", "/openapi.json").json["paths"]
    documented = {(method.upper(), path) for path, item in paths.items() for method in item if method != "parameters"}

    assert routes == documented | UNDOCUMENTED.keys()


@pytest.mark.parametrize("asks", [False, True], ids=["anonymous", "token"])
def test_schemathesis_finds_nothing(daemon: Daemon, guarded: Daemon, asks: bool) -> None:
    """Good and bad requests made from the document are answered as it says: statuses, bodies, headers, and methods.
    Where a token is asked for, none of it is had without one."""
    if asks:
        daemon = guarded
    bearer = ["--header", f"Authorization: Bearer {daemon.token}"] if asks else []
    more = ["--max-examples", "200"] if os.environ.get("SESSIOND_TEST_THOROUGH") else []
    url = f"http://{daemon.host}:{daemon.port}/openapi.json"
    config = str(HERE / "schemathesis.toml")

    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            config,
            "run",
            url,
            "--checks",
            "all",
            "--exclude-path",  # its answer has no end; tests/http/test_events.py
            "/v1/events",
            *bearer,
            *more,
        ],
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in daemon.log
