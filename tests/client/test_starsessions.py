"""starsessions' own middleware over our store: what the store can mend, and what its users rely on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starsessions import (
    Serializer,
    SessionAutoloadMiddleware,
    SessionMiddleware,
    get_session_metadata,
    load_session,
    regenerate_session_id,
)

from sessiond_client import AsyncClient, Unavailable
from sessiond_client.cookies import new_sid
from sessiond_client.starsessions import SessiondStore
from sessiond_client.testing import Server

from .asgi import Visitor

METADATA = "__metadata__"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Server]:
    """One daemon for the tests that leave it alone."""
    with Server() as server:
        yield server


@pytest.fixture
async def client(daemon: Server) -> AsyncIterator[AsyncClient]:
    """Of that daemon, empty at first."""
    async with AsyncClient(daemon.url) as client:
        await client.destroy_all(everyone=True)
        yield client


class Backwards(Serializer):
    """JSON that nobody else can read."""

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()[::-1]

    def deserialize(self, data: bytes) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(data[::-1] or b"{}")
        return loaded


async def view(request: Request) -> Response:
    return JSONResponse(request.session)


async def add(request: Request) -> Response:
    request.session[request.path_params["name"]] = "set"
    return JSONResponse(request.session)


async def nested(request: Request) -> Response:
    request.session.setdefault("cart", []).append(1)
    return JSONResponse({})


async def remove(request: Request) -> Response:
    del request.session[request.path_params["name"]]
    return JSONResponse({})


async def clear(request: Request) -> Response:
    request.session.clear()
    return JSONResponse({})


async def regenerate(request: Request) -> Response:
    regenerate_session_id(request)
    return JSONResponse({})


class Gate:
    """A handler that, having read its session, waits until the test lets it go on."""

    def __init__(self) -> None:
        self.entered, self.goes_on = asyncio.Event(), asyncio.Event()

    async def wait(self, request: Request) -> Response:
        self.entered.set()
        await self.goes_on.wait()
        if name := request.path_params["name"]:
            request.session[name] = "late"
        return JSONResponse(request.session)

    async def __call__(self, visitor: Visitor, name: str, meanwhile: str) -> None:
        """One request of this visitor that is under way, and changes this entry, while another comes and goes."""
        late = Visitor(visitor.app)
        late.cookies = dict(visitor.cookies)
        waiting = asyncio.create_task(late.get(f"/wait/{name}"))
        await self.entered.wait()
        await visitor.get(meanwhile)
        self.goes_on.set()
        await waiting


def site(client: AsyncClient, store: dict[str, Any] | None = None, gate: Gate | None = None, **arguments: Any) -> Any:
    """An app whose sessions are loaded for every request."""
    return Starlette(
        middleware=[
            Middleware(SessionMiddleware, store=SessiondStore(client, **(store or {})), **arguments),
            Middleware(SessionAutoloadMiddleware),
        ],
        routes=[
            Route("/view", view),
            Route("/add/{name}", add),
            Route("/nested", nested),
            Route("/remove/{name}", remove),
            Route("/clear", clear),
            Route("/regenerate", regenerate),
            Route("/wait/{name:path}", gate.wait if gate else view),
        ],
    )


async def stored(client: AsyncClient) -> dict[str, Any]:
    """The data of the one session that there is, without what starsessions keeps for itself."""
    (entry,) = await client.list(everyone=True)
    record = await client.get(entry.key)
    assert record is not None
    return {name: value for name, value in record.data.items() if name != METADATA}


async def test_session(client: AsyncClient) -> None:
    """What is set is there until it is cleared; what is stored are plain values under the app's own names."""
    visitor = Visitor(site(client))

    assert {} == (await visitor.get("/view")).json
    assert 0 == await client.count()
    for path in ("/add/a", "/nested", "/nested", "/add/b", "/remove/b"):
        await visitor.get(path)
    assert {"a": "set", "cart": [1, 1]} == (await visitor.get("/view")).json == await stored(client)
    await visitor.get("/clear")
    assert {} == visitor.cookies
    assert 0 == await client.count()


async def test_metadata(client: AsyncClient) -> None:
    """The metadata is starsessions', as its users know it; when a session was created stays what it was."""
    seen = []

    async def look(request: Request) -> Response:
        seen.append(dict(get_session_metadata(request)))
        return JSONResponse({})

    app = site(client)
    app.routes.append(Route("/look", look))
    visitor = Visitor(app)
    await visitor.get("/add/a")
    for _ in range(2):
        await visitor.get("/look")

    (entry,) = await client.list(everyone=True)
    record = await client.get(entry.key)
    assert record is not None
    assert {"created", "last_access", "lifetime"} == record.data[METADATA].keys()
    assert [record.data[METADATA]["created"]] * 2 == [each["created"] for each in seen]


@pytest.mark.parametrize("name", ["", "theirs"])
async def test_no_write_is_undone(client: AsyncClient, name: str) -> None:
    """A request that ends late, whether it only reads or changes another entry, undoes nothing."""
    gate = Gate()
    visitor = Visitor(site(client, gate=gate))
    await visitor.get("/add/a")

    await gate(visitor, name, "/add/b")

    assert {"a": "set", "b": "set", **({name: "late"} if name else {})} == await stored(client)


@pytest.mark.parametrize("name", ["", "theirs"])
@pytest.mark.parametrize("lifetime", [0, 60])
async def test_logged_out_stays_logged_out(client: AsyncClient, name: str, lifetime: int) -> None:
    """A request that ends after the logout revives nothing."""
    gate = Gate()
    visitor = Visitor(site(client, gate=gate, lifetime=lifetime))
    await visitor.get("/add/a")

    await gate(visitor, name, "/clear")

    assert 0 == await client.count()


async def test_ids_are_ours(client: AsyncClient) -> None:
    """An id that a browser, or starsessions, has made up is never one of a session."""
    visitor = Visitor(site(client))
    visitor.cookies["session"] = planted = new_sid()

    await visitor.get("/add/a")

    assert planted != visitor.cookies["session"]
    assert await client.get(planted) is None
    assert {"a": "set"} == (await visitor.get("/view")).json


async def test_regenerate(client: AsyncClient) -> None:
    """A regenerated id has the session, and the old one is dead."""
    visitor = Visitor(site(client))
    await visitor.get("/add/a")
    before = visitor.cookies["session"]

    await visitor.get("/regenerate")

    assert before != visitor.cookies["session"]
    assert await client.get(before) is None
    assert {"a": "set"} == (await visitor.get("/view")).json == await stored(client)


async def test_user(client: AsyncClient) -> None:
    """`user` is found, moves to a new id at a login, and is nobody's after it."""
    visitor = Visitor(site(client, {"user": lambda data: data.get("user")}))
    await visitor.get("/add/a")
    before = visitor.cookies["session"]

    await visitor.get("/add/user")
    assert 1 == await client.count(user="set")
    assert await client.get(before) is None
    await visitor.get("/remove/user")

    assert [0, 1] == [await client.count(user="set"), await client.count()]
    assert {"a": "set"} == (await visitor.get("/view")).json


@pytest.mark.parametrize(
    ("store", "arguments", "ttls"),
    [
        ({}, {}, [77, 77]),
        ({"ttl": 30}, {}, [30, 30]),
        ({"ttl": 30}, {"lifetime": 60, "rolling": True}, [60, 60]),
        ({}, {"lifetime": timedelta(minutes=1)}, [60, 60]),
    ],
    ids=str,
)
async def test_lifetimes(store: dict[str, Any], arguments: dict[str, Any], ttls: list[int]) -> None:
    """A session without a lifetime has the store's ttl; one with a lifetime has what is left of that."""
    with Server(options=["--ttl", "77"]) as server:
        async with AsyncClient(server.url) as client:
            visitor = Visitor(site(client, store, **arguments))
            seen = []
            for path in ("/add/a", "/view"):
                await visitor.get(path)
                (entry,) = await client.list(everyone=True)
                seen.append(entry.expires_at - entry.renewed_at)

    # starsessions rounds what is left of a lifetime down to seconds, by its own clock.
    assert [True, True] == [0 <= ttl * 1000 - each <= 5000 for ttl, each in zip(ttls, seen, strict=True)]


@pytest.mark.parametrize("arguments", [{}, {"lifetime": 60, "rolling": True}], ids=str)
async def test_a_session_in_use_lives_on(arguments: dict[str, Any]) -> None:
    """Reading renews a session that ends with the browser, and a rolling one."""
    with Server(options=["--ttl", "60"]) as server:
        async with AsyncClient(server.url) as client:
            visitor = Visitor(site(client, **arguments))
            await visitor.get("/add/a")
            for _ in range(3):
                server.advance(40)
                assert {"a": "set"} == (await visitor.get("/view")).json


@pytest.mark.parametrize(("lifetime", "counts"), [(0, [1, 1, 2]), (60, [1, 2, 2])])
async def test_round_trips(client: AsyncClient, lifetime: int, counts: list[int]) -> None:
    """A new session is one call; one that is only read is one, or two where its lifetime is told again; a change is two."""
    visitor = Visitor(site(client, lifetime=lifetime))
    counted = []

    for path in ("/add/a", "/view", "/add/b"):
        before = client.stats.calls_sent
        await visitor.get(path)
        counted.append(client.stats.calls_sent - before)

    assert counts == counted


async def test_sessions_of_others(client: AsyncClient) -> None:
    """A session that another app has begun is one here too; what JSON cannot express stays as it is, unseen."""
    visitor = Visitor(site(client))
    visitor.cookies["session"] = await client.create({"theirs": b"\xff", "a": 1}, user="ada")

    assert {"a": 1} == (await visitor.get("/view")).json
    await visitor.get("/add/b")

    assert {"theirs": b"\xff", "a": 1, "b": "set"} == await stored(client)
    assert 1 == await client.count(user="ada")


async def test_another_serializer(client: AsyncClient) -> None:
    """What another serializer makes is kept as opaque bytes, under an id of ours."""
    visitor = Visitor(site(client, serializer=Backwards()))
    visitor.cookies["session"] = planted = new_sid()

    await visitor.get("/add/a")
    await visitor.get("/add/b")

    assert planted != visitor.cookies["session"]
    assert {"a": "set", "b": "set"} == (await visitor.get("/view")).json
    record = await client.get(visitor.cookies["session"])
    assert record is not None
    assert "bytes" == record.format


@pytest.mark.parametrize("cookie", ["", "x", "é", "../..", "A" * 4000, "%00"], ids=lambda cookie: cookie[:9])
async def test_odd_cookies(client: AsyncClient, cookie: str) -> None:
    """Whatever a cookie holds is a visitor without a session."""
    visitor = Visitor(site(client))
    visitor.cookies["session"] = cookie

    assert (200, {}) == ((reply := await visitor.get("/view")).status, reply.json)
    assert {"a": "set"} == (await visitor.get("/add/a")).json
    assert cookie != visitor.cookies["session"]


async def test_store(client: AsyncClient) -> None:
    """The store by itself, as starsessions' tests have it: a miss is empty, removing twice is fine."""
    store = SessiondStore(client)

    assert b"" == await store.read("missing", 60)
    sid = await store.write("new", b"\x00opaque", 60, 0)
    assert b"\x00opaque" == await store.read(sid, 60)
    assert sid == await store.write(sid, b"again", 0, 0)
    assert b"again" == await store.read(sid, 0)
    for _ in range(2):
        await store.remove(sid)
    assert b"" == await store.read(sid, 60)


async def test_away() -> None:
    """While the daemon is away loading raises, and so does storing; no cookie goes."""
    with Server() as server:
        client = AsyncClient(server.url, deadline=0.2)
        visitor = Visitor(site(client))
        await visitor.get("/add/a")
    stranger = Visitor(visitor.app)

    with pytest.raises(Unavailable):
        await visitor.get("/view")
    with pytest.raises(Unavailable):
        await stranger.get("/add/a")
    await client.close()

    assert visitor.cookies
    assert {} == stranger.cookies


async def test_load_by_hand(client: AsyncClient) -> None:
    """A request that does not load its session costs nothing, which is starsessions' own way."""

    async def loads(request: Request) -> Response:
        await load_session(request)
        return JSONResponse(request.session)

    async def leaves(request: Request) -> Response:
        return JSONResponse({})

    app = Starlette(
        middleware=[Middleware(SessionMiddleware, store=SessiondStore(client))],
        routes=[Route("/loads", loads), Route("/leaves", leaves)],
    )
    visitor = Visitor(app)
    visitor.cookies["session"] = await client.create({"a": 1})
    before = client.stats.calls_sent

    await visitor.get("/leaves")
    assert before == client.stats.calls_sent
    assert {"a": 1} == (await visitor.get("/loads")).json
