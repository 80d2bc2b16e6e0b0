"""The store for Litestar: what Litestar's own tests ask of any store, and of one with namespaces, over a real daemon."""

from __future__ import annotations

import asyncio
import string
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("litestar")

from litestar import Litestar, Request, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.exceptions import ImproperlyConfiguredException
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.registry import StoreRegistry
from litestar.testing import TestClient

from sessiond_client import AsyncClient, Client, InvalidRequest, Unavailable
from sessiond_client.litestar import SessiondStore
from sessiond_client.testing import Server


@pytest.fixture(scope="module")
def daemon() -> Iterator[Server]:
    """One daemon for the tests that leave it and its clock alone."""
    with Server() as server:
        yield server


@pytest.fixture
async def store(daemon: Server) -> AsyncIterator[SessiondStore]:
    """A store at that daemon, which is empty at first."""
    async with AsyncClient(daemon.url) as client:
        await client.destroy_all(everyone=True)
        yield SessiondStore(client)


@pytest.fixture
async def lone_store(sessiond_server: Server) -> AsyncIterator[SessiondStore]:
    """A store at a daemon of this test's own."""
    async with AsyncClient(sessiond_server.url) as client:
        yield SessiondStore(client)


@pytest.fixture
def sessions(daemon: Server) -> Iterator[Client]:
    """The daemon of `store` as an operator sees it."""
    with Client(daemon.url) as client:
        yield client


@pytest.mark.parametrize(("value", "kept"), [(b"\x00\xff", b"\x00\xff"), ("h\u00e9", "h\u00e9".encode()), ("", b"")])
async def test_values(store: SessiondStore, value: str | bytes, kept: bytes) -> None:
    """Bytes come back as they went, a str as its UTF-8."""
    await store.set("key", value)

    assert kept == await store.get("key")


@pytest.mark.parametrize(
    "key", [*string.punctuation, "..", "", " ", "\n", "foo\u00fc", "\u2603" * 2000, "a/b:c", "\ud800"]
)
async def test_odd_keys(store: SessiondStore, key: str) -> None:
    """Any string is a key."""
    await store.set(key, b"value")

    assert b"value" == await store.get(key)
    assert await store.get(key + "x") is None


async def test_missing(store: SessiondStore) -> None:
    """What is not there is None, does not exist, has no time left, and can be deleted."""
    await store.delete("key")

    assert [None, False, None] == [await store.get("key"), await store.exists("key"), await store.expires_in("key")]


async def test_delete(store: SessiondStore) -> None:
    """A deleted value is gone."""
    await store.set("key", b"value", 60)

    await store.delete("key")

    assert (None, False) == (await store.get("key"), await store.exists("key"))


@pytest.mark.parametrize("expires_in", [3 * 86400, timedelta(days=3)])
async def test_expiry(lone_store: SessiondStore, sessiond_server: Server, expires_in: int | timedelta) -> None:
    """A value lives for as long as it was said, days included, and is gone for every method after that."""
    await lone_store.set("key", b"value", expires_in=expires_in)
    left = await lone_store.expires_in("key")
    assert left is not None
    assert 3 * 86400 - 60 < left <= 3 * 86400
    sessiond_server.advance(3 * 86400 - 60)
    assert await lone_store.exists("key")

    sessiond_server.advance(60)

    assert [None, False, None] == [
        await lone_store.get("key"),
        await lone_store.exists("key"),
        await lone_store.expires_in("key"),
    ]


@pytest.mark.parametrize("over", [0, -1, timedelta(seconds=-1)])
async def test_no_time_left(store: SessiondStore, over: int | timedelta) -> None:
    """A value that is to live no longer is removed."""
    await store.set("key", b"value")

    await store.set("key", b"other", expires_in=over)

    assert await store.get("key") is None


async def test_no_expiry(lone_store: SessiondStore, sessiond_server: Server) -> None:
    """A value without an expiry says -1, also where it takes the place of one that had some, and outlives the default ttl."""
    await lone_store.set("key", b"value", 5)
    await lone_store.set("key", b"value")
    sessiond_server.advance(399 * 86400)

    assert (b"value", -1) == (await lone_store.get("key"), await lone_store.expires_in("key"))


@pytest.mark.parametrize("renew_for", [2 * 86400, timedelta(days=2)])
async def test_renewal(lone_store: SessiondStore, sessiond_server: Server, renew_for: int | timedelta) -> None:
    """get with renew_for makes that the time a value has from now on, and leaves one without an expiry alone."""
    await lone_store.set("key", b"value", expires_in=10)
    await lone_store.set("forever", b"value")

    assert b"value" == await lone_store.get("key", renew_for=renew_for)
    assert b"value" == await lone_store.get("forever", renew_for=1)

    sessiond_server.advance(86400)
    assert [b"value", b"value"] == [await lone_store.get("key"), await lone_store.get("forever")]
    assert -1 == await lone_store.expires_in("forever")
    sessiond_server.advance(86400)
    assert await lone_store.get("key") is None


async def test_renewal_of_nothing(store: SessiondStore) -> None:
    """get with renew_for creates nothing."""
    assert await store.get("key", renew_for=10) is None
    assert not await store.exists("key")


async def test_namespaces_are_apart(store: SessiondStore) -> None:
    """The same key is another value in a namespace inside, in one beside, and in none."""
    inside, none = store.with_namespace("inside"), SessiondStore(store._client, None)
    for number, each in enumerate((store, inside, none)):
        await each.set("key", str(number))

    assert [b"0", b"1", b"2"] == [await each.get("key") for each in (store, inside, none)]


def test_namespace_names() -> None:
    """Namespaces are named as Litestar's stores name theirs."""
    client = AsyncClient("http://127.0.0.1:1")
    store = SessiondStore(client)

    assert "LITESTAR" == store.namespace
    assert "LITESTAR_TEST_FOO" == store.with_namespace("TEST").with_namespace("FOO").namespace
    assert "TEST" == SessiondStore(client, None).with_namespace("TEST").namespace


async def test_delete_all(store: SessiondStore, sessions: Client) -> None:
    """All of a namespace and of those inside of it go; those above and beside it, and the app's sessions, stay."""
    shop = store.with_namespace("shop")
    gone = [shop, shop.with_namespace("cart"), shop.with_namespace("cart").with_namespace("deep")]
    kept = [
        store,
        store.with_namespace("sho"),
        store.with_namespace("shop2"),
        store.with_namespace("shop/cart"),
        SessiondStore(store._client, "LITESTAR_shop"),
        SessiondStore(store._client, "shop"),
        SessiondStore(store._client, None),
    ]
    for each in gone + kept:
        await each.set("key", b"value")
        await each.set("brief", b"value", 60)
    sid = sessions.create({"a": 1}, user="LITESTAR/shop", meta={"agent": "LITESTAR/shop"})

    await shop.delete_all()

    assert [None, None] * len(gone) == [await each.get(key) for each in gone for key in ("key", "brief")]
    assert [b"value"] * 2 * len(kept) == [await each.get(key) for each in kept for key in ("key", "brief")]
    assert sessions.get(sid) is not None


async def test_delete_all_of_many(store: SessiondStore) -> None:
    """More values than a page of the listing holds are all removed."""
    await asyncio.gather(*(store.set(f"key{number}", b"") for number in range(1005)))

    await store.delete_all()

    assert 0 == await store._client.count()


async def test_delete_all_without_namespace(store: SessiondStore) -> None:
    """A store without a namespace refuses, since the daemon's other sessions are not its own."""
    with pytest.raises(ImproperlyConfiguredException, match="namespace"):
        await SessiondStore(store._client, None).delete_all()


async def test_a_user_s_name_opens_no_store(store: SessiondStore, sessions: Client) -> None:
    """Whatever a user is called, logging out everywhere removes none of a store's values."""
    await store.set("key", b"value")

    for name in ("LITESTAR", "litestar:LITESTAR:key", "store"):
        assert 0 == sessions.destroy_all(user=name)

    assert b"value" == await store.get("key")


async def test_names_are_not_kept(store: SessiondStore, sessions: Client) -> None:
    """The daemon gets to know a value's namespace, and its key only as a hash."""
    await store.with_namespace("a b").set("token of ada", b"value")

    (entry,) = sessions.list(everyone=True)

    assert (None, {"store": "LITESTAR/a%20b", "expires": "never"}) == (entry.user, entry.meta)


async def test_unavailable(lone_store: SessiondStore, sessiond_server: Server) -> None:
    """While the daemon is away every method says so: a value is never taken for missing."""
    await lone_store.set("key", b"value")
    sessiond_server.stop()

    for call in (
        lone_store.get("key"),
        lone_store.set("key", b""),
        lone_store.exists("key"),
        lone_store.delete("key"),
        lone_store.delete_all(),
    ):
        with pytest.raises(Unavailable):
            await call


async def test_too_large(store: SessiondStore) -> None:
    """A value beyond the daemon's max_data is refused in words."""
    with pytest.raises(InvalidRequest, match="65536 bytes"):
        await store.set("key", b"x" * (64 * 1024 + 1))


async def test_shutdown(daemon: Server) -> None:
    """A store closes the client that it has made, with those inside of it, and leaves one that it was given open."""
    own = SessiondStore.with_client(daemon.url, namespace="own")
    async with AsyncClient(daemon.url) as client:
        given = SessiondStore(client)
        for store in (own.with_namespace("inside"), own, given):
            async with store:
                pass

        await given.set("key", b"value")
        with pytest.raises(InvalidRequest, match="closed"):
            await own.set("key", b"value")


def test_caches_and_limits(daemon: Server) -> None:
    """Litestar's response cache and rate limit keep what they have to in it, each in a namespace of its own."""
    runs = []

    @get("/", cache=60)
    async def page() -> str:
        runs.append(time.monotonic())
        return "page"

    client = AsyncClient(daemon.url)
    app = Litestar(
        [page],
        middleware=[RateLimitConfig(("minute", 3)).middleware],
        response_cache_config=ResponseCacheConfig(),
        stores=StoreRegistry(default_factory=SessiondStore(client).with_namespace),
        on_shutdown=[client.close],  # stores that Litestar makes when it first needs them are not closed with the app
    )
    with TestClient(app) as browser:
        answers = [browser.get("/").status_code for _ in range(4)]

    assert [200, 200, 200, 429] == answers
    assert 1 == len(runs)


def test_litestar_s_own_sessions(daemon: Server) -> None:
    """Litestar's own sessions can be kept in it, as in any store."""

    @get("/")
    async def visit(request: Request[Any, Any, Any]) -> int:
        request.session["views"] = request.session.get("views", 0) + 1
        views: int = request.session["views"]
        return views

    config = ServerSideSessionConfig(renew_on_access=True)
    store = SessiondStore.with_client(daemon.url)
    with TestClient(Litestar([visit], middleware=[config.middleware], stores={"sessions": store})) as browser:
        assert [1, 2, 3] == [browser.get("/").json() for _ in range(3)]
