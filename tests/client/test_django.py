"""What is special to Django: what it expects of an engine, its settings, its serializers, and what the middleware adds."""

from __future__ import annotations

import asyncio
import datetime
import functools
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient as AsyncVisitor
from django.test import Client as Visitor
from django.test.utils import override_settings
from django.urls import path
from django.utils import timezone

from sessiond_client import Client, Unavailable, cookies
from sessiond_client.django import SessionMiddleware, SessionStore, async_client, client, move_from_django_db
from sessiond_client.django.checks import check_settings
from sessiond_client.testing import Server

from .apps import TTL
from .apps.django_site import OURS, configure, visitor

configure(__name__, DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})

STOCK = "django.contrib.sessions.middleware.SessionMiddleware"
NOBODY = "http://127.0.0.1:9"  # the port of "discard", where nobody listens


class Native:
    """A store for tests that block, whose `a` methods are what is called."""

    def __init__(self, store: SessionStore, runner: asyncio.Runner) -> None:
        self.__dict__.update(store=store, runner=runner)

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self.store, f"a{name}", None)
        return getattr(self.store, name) if twin is None else functools.partial(self._call, twin)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.store, name, value)

    def __getitem__(self, name: str) -> Any:
        return dict(self._call(self.store.aitems))[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._call(self.store.aset, name, value)

    def __contains__(self, name: str) -> bool:
        return bool(self._call(self.store.ahas_key, name))

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return self.runner.run(method(*arguments, **named))


class Engine:
    """Makes stores of one kind, beside a client that sees what the daemon has."""

    def __init__(self, kind: str, daemon: Client, runner: asyncio.Runner) -> None:
        self.kind = kind
        self.daemon = daemon
        self.runner = runner

    def __call__(self, key: str | None = None) -> Any:
        store = SessionStore(key)
        return Native(store, self.runner) if self.kind == "native" else store

    def saved(self, **entries: Any) -> Any:
        """A session that is stored, in the hands of who has not read it yet."""
        store = self()
        store.update(entries)
        store.save()
        return self(store.session_key)

    def calls(self) -> int:
        """How many calls were sent so far."""
        return client().stats.calls_sent + async_client().stats.calls_sent


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One daemon for the tests that leave it alone."""
    with Server() as server:
        yield server


@pytest.fixture
def daemon(server: Server) -> Iterator[Client]:
    """What the daemon has, nothing at first. The settings of this process name it."""
    with override_settings(SESSIOND_URL=server.url), Client(server.url) as daemon:
        daemon.destroy_all(everyone=True)
        yield daemon


@pytest.fixture(params=["blocking", "native"])
def engine(request: pytest.FixtureRequest, daemon: Client) -> Iterator[Engine]:
    """The engine by its blocking methods, and by those that await."""
    with asyncio.Runner() as runner:
        yield Engine(request.param, daemon, runner)
        runner.run(async_client().close())


# -- the engine --


@pytest.mark.parametrize(
    ("action", "result", "data", "is_modified"),
    [
        (lambda s: s.get("a"), 1, {"a": 1}, False),
        (lambda s: s.get("z", "none"), "none", {"a": 1}, False),
        (lambda s: "a" in s, True, {"a": 1}, False),
        (lambda s: s.has_key("a"), True, {"a": 1}, False),
        (lambda s: list(s.keys()), ["a"], {"a": 1}, False),
        (lambda s: list(s.values()), [1], {"a": 1}, False),
        (lambda s: list(s.items()), [("a", 1)], {"a": 1}, False),
        (lambda s: s.pop("a"), 1, {}, True),
        (lambda s: s.pop("z", "none"), "none", {"a": 1}, False),
        (lambda s: s.setdefault("a", 2), 1, {"a": 1}, False),
        (lambda s: s.setdefault("b", 2), 2, {"a": 1, "b": 2}, True),
        (lambda s: s.update({"b": 2}), None, {"a": 1, "b": 2}, True),
        (lambda s: s.clear(), None, {}, True),
        (lambda s: s.set_test_cookie(), None, {"a": 1, "testcookie": "worked"}, True),
        (lambda s: s.set_expiry(None), None, {"a": 1}, False),
    ],
    ids=lambda each: "" if not callable(each) else inspect.getsource(each).strip()[8:50],
)
def test_the_dict(engine: Engine, action: Any, result: Any, data: Any, is_modified: bool) -> None:
    """Each way to use the dict reads the session, gives what Django's own gives, and says whether that changed something."""
    store = engine.saved(a=1)

    given = action(store)

    assert (result, is_modified, True) == (given, store.modified, store.accessed)
    store.save()
    assert data == dict(engine(store.session_key).items())


def test_untouched(engine: Engine) -> None:
    """A store that nobody has looked at is neither accessed nor modified, and has made no call."""
    before = engine.calls()

    store = engine("x" * 43)

    assert (False, False, False, before) == (store.accessed, store.modified, store.is_empty(), engine.calls())
    assert engine().is_empty()


def test_save_and_load(engine: Engine) -> None:
    """A new session gets a key of ours when it is saved, and lives for SESSION_COOKIE_AGE."""
    store = engine()
    store["a"] = {"b": [1, None, True, 1.5, "ä"]}

    store.save()

    record = engine.daemon.get(store.session_key)
    assert record is not None
    assert (43, TTL, {"a": {"b": [1, None, True, 1.5, "ä"]}}) == (len(store.session_key), record.ttl, record.data)
    assert record.data == engine(store.session_key).load()


def test_save_keeps_what_is_in_hand(engine: Engine) -> None:
    """The store can be used on after a save; saving again renews the session, and finds out that it has ended."""
    store = engine()
    store["a"] = 1
    store.save()
    before = engine.calls()

    store.save()

    assert (1, before + 1) == (store["a"], engine.calls())
    engine(store.session_key).delete()
    with pytest.raises(UpdateError):
        store.save()


def test_only_what_changed_is_sent(engine: Engine) -> None:
    """Two stores of the same session that change different entries, one of them deep inside, do not undo each other."""
    first = engine.saved(a=1, b=1, cart={"items": []})
    second = engine(first.session_key)
    first["a"] = 2
    second.get("cart")["items"].append("lamp")
    assert (True, True) == (first.modified, second.modified)

    first.save()
    second.save()

    assert {"a": 2, "b": 1, "cart": {"items": ["lamp"]}} == engine(first.session_key).load()


def test_create(engine: Engine) -> None:
    """create stores a session at once, though it holds nothing, under a key of its own."""
    stores = [engine(), engine()]
    for store in stores:
        store.create()

    assert 2 == len({store.session_key for store in stores}) == engine.daemon.count()
    assert all(store.modified and store.exists(store.session_key) for store in stores)


@pytest.mark.parametrize("key", ["", "1", "1234567", None])
def test_a_key_that_is_none(engine: Engine, key: str | None) -> None:
    """Keys below 8 characters are no keys; saving gives a new one."""
    store = engine(key)
    assert (None, False) == (store.session_key, store.exists(key))

    store.save()

    assert key != store.session_key
    assert store.exists(store.session_key)


@pytest.mark.parametrize(
    "key", ["x" * 43, "some-unknown-key", "a" * 1240, "../..//x", "käse käse", "\ud800" * 9, "%00\0 x"]
)
def test_an_unknown_key(engine: Engine, key: str) -> None:
    """A key of nobody is not adopted: nothing is read, nothing created, and what is saved gets another key."""
    store = engine(key)

    assert ({}, None, 0) == (store.load(), store.session_key, engine.daemon.count())
    store["a"] = 1
    store.save()
    assert (False, True) == (store.exists(key), store.exists(store.session_key))


def test_the_key_is_read_only(engine: Engine) -> None:
    """Apps cannot set session_key."""
    with pytest.raises(AttributeError):
        (engine() if engine.kind == "blocking" else engine().store).session_key = "x" * 43


def test_must_create(engine: Engine) -> None:
    """save(must_create=True) makes a session under the key that the app has chosen, or raises CreateError."""
    store = engine("chosen-by-the-app")
    store._session_cache = {"a": 1}

    store.save(must_create=True)

    assert {"a": 1} == engine("chosen-by-the-app").load()
    other = engine("chosen-by-the-app")
    other._session_cache = {"a": 2}
    with pytest.raises(CreateError):
        other.save(must_create=True)
    assert {"a": 1} == engine("chosen-by-the-app").load()


def test_delete(engine: Engine) -> None:
    """delete ends the session with the key given, or this one; unknown ones and none are fine."""
    first, second = engine.saved(a=1), engine.saved(a=1)

    first.delete()
    first.delete(second.session_key)
    first.delete("some-unknown-key")
    engine().delete()

    assert 0 == engine.daemon.count()


def test_a_late_save_revives_nobody(engine: Engine) -> None:
    """Saving a change to a session that was ended meanwhile raises UpdateError."""
    store = engine.saved(a=1)
    store["a"] = 2
    engine(store.session_key).delete()

    with pytest.raises(UpdateError):
        store.save()

    assert ({}, 0) == (store.load(), engine.daemon.count())


@pytest.mark.parametrize("then", [{}, {"b": 2}], ids=["nothing", "something"])
def test_clear_without_looking(engine: Engine, then: dict[str, Any]) -> None:
    """What is cleared before it was read is replaced by what is put in afterwards, in the same session, if it is there."""
    store, gone = engine.saved(a=1), engine("some-unknown-key")
    for each in (store, gone):
        each.clear()
        each.update(then)

    store.save()
    with pytest.raises(UpdateError):
        gone.save()

    assert then == engine(store.session_key).load()


def test_flush(engine: Engine) -> None:
    """flush ends the session, read or not; what is put in afterwards makes another one."""
    store = engine.saved(a=1)
    key = store.session_key

    store.flush()

    assert (None, True, True, False) == (store.session_key, store.modified, store.accessed, store.exists(key))
    store["b"] = 2
    store.save()
    assert key != store.session_key
    assert {"b": 2} == engine(store.session_key).load()


@pytest.mark.parametrize("looked", [True, False], ids=["read", "unread"])
def test_cycle_key(engine: Engine, looked: bool) -> None:
    """cycle_key moves the session, whether it was read or not: the data stays, unsaved changes too, the old key is dead."""
    store = engine.saved(a=1)
    key = store.session_key
    if looked:
        store["b"] = 2
    before = engine.calls()

    store.cycle_key()

    assert before + (1 if looked else 2) == engine.calls()
    assert (True, False, True) == (store.modified, store.exists(key), store.exists(store.session_key))
    store.save()
    assert ({"a": 1, "b": 2} if looked else {"a": 1}) == engine(store.session_key).load()


def test_cycle_key_of_none(engine: Engine) -> None:
    """Without a session cycle_key makes one, of what is there."""
    store = engine()
    store["a"] = 1

    store.cycle_key()

    assert {"a": 1} == engine(store.session_key).load()


def test_cycle_key_of_the_logged_out(engine: Engine) -> None:
    """A session that ended meanwhile is not revived by moving it: there is a new one, which holds nothing."""
    store = engine.saved(secret=1)
    store.get("secret")
    engine.daemon.destroy_all(everyone=True)

    store.cycle_key()
    store.save()

    assert ({}, 1) == (engine(store.session_key).load(), engine.daemon.count())


def test_cycle_key_after_clear(engine: Engine) -> None:
    """A session that was cleared without looking moves with what was put in since, even if it is gone."""
    for store in (engine.saved(a=1), engine("some-unknown-key")):
        key = store.session_key
        store.clear()
        store["b"] = 2

        store.cycle_key()
        store.save()

        assert (False, {"b": 2}) == (store.exists(key), engine(store.session_key).load())


SOON = datetime.timedelta(seconds=100)


@pytest.mark.parametrize(
    ("expiry", "ttl", "at_close"),
    [
        (None, TTL, False),
        (10, 10, False),
        (0, TTL, True),
        (SOON, 100, False),
        (lambda: timezone.now() + SOON, 100, False),
        (10_000_000, 10_000_000, False),
        (10 * 365 * 86400, 400 * 86400, False),
    ],
)
def test_expiry(engine: Engine, expiry: Any, ttl: int, at_close: bool) -> None:
    """set_expiry takes seconds of not being used, 0 until the browser closes, or an instant; the daemon is told."""
    store = engine()
    store["a"] = 1
    store.set_expiry(expiry() if callable(expiry) else expiry)

    store.save()

    record = engine.daemon.get(store.session_key)
    assert record is not None
    assert ttl - 5 <= record.ttl <= ttl  # an instant comes nearer while the test runs
    assert at_close == engine(store.session_key).get_expire_at_browser_close()


@pytest.mark.parametrize("expiry", [-10, -SOON, timezone.now() - SOON])
def test_expiry_in_the_past(engine: Engine, expiry: Any) -> None:
    """A new session that is over already is not stored, and one that there is ends."""
    new, old = engine(), engine.saved(a=1)
    for store in (new, old):
        store["a"] = 2
        store.set_expiry(expiry)

        store.save()
        store.save()

        assert "a" not in engine(store.session_key)
    assert 0 == engine.daemon.count()


def test_an_instant_is_not_moved_by_reading(engine: Engine) -> None:
    """A session that was to end at an instant is over then, though the daemon would have it a while longer."""
    store = engine.saved(a=1)
    passed = (timezone.now() - SOON).isoformat()
    engine.daemon.patch(store.session_key, {"_session_expiry": passed})

    assert ({}, None, 0) == (store.load(), store.session_key, engine.daemon.count())


def test_age_by_a_subclass(engine: Engine) -> None:
    """A subclass may say how long sessions live, and whose they are."""

    class Store(SessionStore):
        def get_session_cookie_age(self) -> int:
            return 77

        def get_session_user(self, data: Any) -> str | None:
            return str(data["who"])

    store = Store()
    store["who"] = 7
    store.save()

    (entry,) = engine.daemon.list(everyone=True)
    record = engine.daemon.get(entry.key)
    assert record is not None
    assert ("7", 77) == (entry.user, record.ttl)


def test_user_index(engine: Engine) -> None:
    """A session belongs to who is logged in, from the save on that says so to the one that says otherwise."""
    store = engine.saved(a=1)
    owners = []
    for user in ("5", 6, None):
        store.pop(SESSION_KEY, None) if user is None else store.update({SESSION_KEY: user})
        store.save()
        owners += [entry.user for entry in engine.daemon.list(everyone=True)]

    assert ["5", "6", None] == owners


def test_modified_as_the_app_says(engine: Engine) -> None:
    """Setting `modified` to False makes what is there the state that changes are told from; a save still stores it all."""
    store = engine.saved(cart=[])
    store.get("cart").append(1)
    store.modified = False
    assert not store.modified
    store.get("cart").append(2)
    assert store.modified

    store.save()

    assert {"cart": [1, 2]} == engine(store.session_key).load()


def test_rows_of_other_engines(engine: Engine) -> None:
    """What Django's other engines have encoded can be decoded; what cannot be is nothing, and is logged."""
    row = import_module("django.contrib.sessions.backends.db").SessionStore().encode({"a": 1})

    assert {"a": 1} == engine().decode(row)
    assert {} == engine().decode(row + "x")


def test_clear_expired(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """clear_expired has nothing to do, and says so."""
    with caplog.at_level(logging.WARNING, "sessiond_client"):
        engine().clear_expired()
        call_command("clearsessions")

    assert ["Expired sessions are removed by sessiond itself: clearsessions has nothing to do."] * 2 == caplog.messages


def test_away(engine: Engine) -> None:
    """While the daemon is away every method raises Unavailable, and the key stays."""
    key = engine.saved(a=1).session_key
    with override_settings(SESSIOND_URL=NOBODY, SESSIOND_DEADLINE=0.1):
        store = engine(key)
        for method in (store.load, store.cycle_key, store.flush, store.delete, functools.partial(store.exists, key)):
            with pytest.raises(Unavailable):
                method()
        assert key == store.session_key
        engine.runner.run(async_client().close())

    assert {"a": 1} == engine(key).load()


# -- serializers --


class Dates:
    """JSON that knows dates."""

    def dumps(self, obj: Any) -> bytes:
        return json.dumps(obj, default=lambda date: {"date": date.isoformat()}).encode("latin-1")

    def loads(self, data: bytes) -> Any:
        return json.loads(
            data, object_hook=lambda it: datetime.date.fromisoformat(it["date"]) if it.keys() == {"date"} else it
        )


class Reprs:
    def dumps(self, obj: Any) -> bytes:
        return b"repr: " + repr(obj).encode()


def test_a_serializer_of_the_app(engine: Engine) -> None:
    """What a serializer's JSON says is stored as plain values, and comes back as what the app had."""
    day = datetime.date(2030, 1, 2)
    with override_settings(SESSION_SERIALIZER=f"{__name__}.Dates"):
        store = engine.saved(day=day, days=[day])

        assert {"day": day, "days": [day]} == store.load()
        assert not store.modified
    record = engine.daemon.get(store.session_key)
    assert record is not None
    assert {"day": {"date": "2030-01-02"}, "days": [{"date": "2030-01-02"}]} == record.data


def test_a_serializer_that_writes_no_json() -> None:
    """A serializer whose text is not JSON is refused."""
    with override_settings(SESSION_SERIALIZER=f"{__name__}.Reprs"), pytest.raises(ImproperlyConfigured, match="JSON"):
        SessionStore()


def test_values_that_json_changes(engine: Engine) -> None:
    """Tuples become lists and keys strings, as with Django's other engines; and that is no change of what is stored."""
    store = engine.saved(pair=(1, 2), by_number={1: "x"})

    assert {"pair": [1, 2], "by_number": {"1": "x"}} == store.load()
    assert not store.modified


def test_values_that_cannot_be_stored(engine: Engine) -> None:
    """What JSON cannot say is a TypeError when it is saved, as with Django's other engines."""
    store = engine.saved(a=1)
    store["b"] = object()

    with pytest.raises(TypeError):
        store.save()

    assert {"a": 1} == engine(store.session_key).load()


# -- the middleware --


def count(request: HttpRequest) -> HttpResponse:
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(str(request.session["n"]))


async def acount(request: HttpRequest) -> HttpResponse:
    await request.session.aset("n", await request.session.aget("n", 0) + 1)
    return HttpResponse(str(await request.session.aget("n")))


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse("untouched")


def look(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.session.get("n")))


def at_close(request: HttpRequest) -> HttpResponse:
    request.session["n"] = 1
    request.session.set_expiry(0)
    return HttpResponse()


def private(request: HttpRequest) -> HttpResponse:
    request.session["n"] = 1
    return HttpResponse(headers={"Cache-Control": "private", "Vary": "Accept, cookie"})


def logged_out_meanwhile(request: HttpRequest) -> HttpResponse:
    request.session["n"] = int(request.GET.get("n", request.session["n"]))
    client().destroy_all(everyone=True)
    return HttpResponse()


def hands_over(request: HttpRequest) -> HttpResponse:
    request.session[SESSION_KEY] = "ada"
    return HttpResponse()


def someone_elses(request: HttpRequest) -> HttpResponse:
    request.session = {"n": 1}
    return HttpResponse("replaced")


def crash(request: HttpRequest) -> HttpResponse:
    request.session["n"] = 99
    raise RuntimeError("a fault of the app's")


def moves_and_crashes(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    raise RuntimeError("a fault of the app's")


def saves(request: HttpRequest) -> HttpResponse:
    request.session["m"] = 1
    request.session.save()
    return HttpResponse()


urlpatterns = [
    path("count", count),
    path("acount", acount),
    path("untouched", untouched),
    path("look", look),
    path("at-close", at_close),
    path("private", private),
    path("logged-out-meanwhile", logged_out_meanwhile),
    path("hands-over", hands_over),
    path("someone-elses", someone_elses),
    path("crash", crash),
    path("moves-and-crashes", moves_and_crashes),
    path("saves", saves),
    path("static/logo", count),
]


def looking(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware that looks at the session before the view does."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.session.get("n")
        return get_response(request)

    return middleware


class Browsing:
    """A visitor of the app, by WSGI or by ASGI, who blocks in either case."""

    def __init__(self, kind: str, runner: asyncio.Runner) -> None:
        self._visitor: Any = Visitor(raise_request_exception=False)
        if kind == "native":
            self._visitor = AsyncVisitor(raise_request_exception=False)
        self._runner = runner

    @property
    def cookies(self) -> Any:
        return self._visitor.cookies

    def session(self) -> Any:
        return (
            self._visitor.session if isinstance(self._visitor, Visitor) else self._runner.run(self._visitor.asession())
        )

    def force_login(self, name: str) -> None:
        done = getattr(self._visitor, "force_login" if isinstance(self._visitor, Visitor) else "aforce_login")(
            visitor(name)
        )
        if inspect.iscoroutine(done):
            self._runner.run(done)

    def get(self, path: str, **headers: Any) -> Any:
        answer = self._visitor.get(path, headers=headers)
        return self._runner.run(answer) if inspect.iscoroutine(answer) else answer


@pytest.fixture
def browsing(engine: Engine) -> Browsing:
    return Browsing(engine.kind, engine.runner)


@pytest.mark.parametrize("path", ["/count", "/acount"])
def test_views_of_both_kinds(browsing: Browsing, path: str) -> None:
    """Views that block and views that await have sessions, behind servers of both kinds."""
    assert ["1", "2", "3"] == [browsing.get(path).content.decode() for _ in range(3)]


@pytest.mark.parametrize(
    ("settings", "path", "expected"),
    [
        ({}, "/count", {"name": "sessionid", "max-age": TTL, "httponly": True, "samesite": "Lax", "secure": ""}),
        ({"SESSION_COOKIE_AGE": 99}, "/count", {"max-age": 99}),
        ({"SESSION_COOKIE_HTTPONLY": False}, "/count", {"httponly": ""}),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, "/count", {"samesite": "Strict"}),
        ({"SESSION_COOKIE_SAMESITE": False}, "/count", {"samesite": ""}),
        ({"SESSION_COOKIE_PATH": "/c", "SESSION_COOKIE_DOMAIN": "x.org"}, "/count", {"path": "/c", "domain": "x.org"}),
        ({"SESSION_EXPIRE_AT_BROWSER_CLOSE": True}, "/count", {"max-age": "", "expires": ""}),
        ({}, "/at-close", {"max-age": "", "expires": ""}),
        (
            {"SESSION_COOKIE_NAME": "__Host-sessionid", "SESSION_COOKIE_SECURE": True},
            "/count",
            {"name": "__Host-sessionid", "secure": True},
        ),
    ],
    ids=str,
)
def test_cookie_settings(browsing: Browsing, settings: dict[str, Any], path: str, expected: dict[str, Any]) -> None:
    """The cookie is what Django's own settings say; the response that brings it is not to be kept."""
    with override_settings(**settings):
        answer = browsing.get(path)

    (cookie,) = answer.cookies.values()
    said = {"name": cookie.key, **cookie}
    assert expected == {name: said[name] for name in expected}
    assert ("no-store", "Cookie") == (answer.headers["Cache-Control"], answer.headers["Vary"])


def test_headers_of_the_app(browsing: Browsing) -> None:
    """What the app says about caching stays; Vary names the cookie once."""
    answer = browsing.get("/private")

    assert ("private", "Accept, cookie") == (answer.headers["Cache-Control"], answer.headers["Vary"])


def test_save_every_request(browsing: Browsing, engine: Engine) -> None:
    """With SESSION_SAVE_EVERY_REQUEST the session is renewed, and its cookie sent again, by requests that do not look at it."""
    browsing.get("/count")
    assert {} == browsing.get("/untouched").cookies
    before = engine.calls()

    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        answer = browsing.get("/untouched")

        assert (["sessionid"], before + 1) == ([*answer.cookies], engine.calls())
        answer = browsing.get("/look")
        assert (["sessionid"], before + 3) == ([*answer.cookies], engine.calls())


def test_logged_out_meanwhile(browsing: Browsing, engine: Engine) -> None:
    """A request that would save to a session which has ended is Django's SessionInterrupted: a 400, and nobody is revived."""
    browsing.get("/count")

    answer = browsing.get("/logged-out-meanwhile?n=2")

    assert (400, {}, 0) == (answer.status_code, answer.cookies, engine.daemon.count())


@pytest.mark.parametrize(("every", "status"), [(False, 200), (True, 400)])
def test_nothing_new_for_the_logged_out(browsing: Browsing, every: bool, status: int) -> None:
    """A request that sets what was there anyway does not send the cookie again, which may be another one by now."""
    browsing.get("/count")

    with override_settings(SESSION_SAVE_EVERY_REQUEST=every):
        answer = browsing.get("/logged-out-meanwhile")

    assert (status, {}) == (answer.status_code, answer.cookies)


def test_hands_over(browsing: Browsing, engine: Engine) -> None:
    """A session that another user takes over without Django's login gets a new key too, and says from where."""
    browsing.get("/count")
    before = browsing.cookies["sessionid"].value

    browsing.get("/hands-over", user_agent="a browser")

    (entry,) = engine.daemon.list(user="ada")
    assert cookies.key_of(before) != entry.key
    assert cookies.key_of(browsing.cookies["sessionid"].value) == entry.key
    assert {"agent": "a browser", "ip": "127.0.0.1"} == entry.meta


def test_login_of_a_test_client(browsing: Browsing, engine: Engine) -> None:
    """Django's own test client logs in, and puts things into the session, through the engine."""
    session = browsing.session()
    session["n"] = 5
    session.save()
    browsing.force_login("ada")

    assert b"6" == browsing.get("/count").content
    assert ["ada"] == [entry.user for entry in engine.daemon.list(everyone=True)]


def test_meta_is_not_noted(browsing: Browsing, engine: Engine) -> None:
    """SESSIOND_META = False keeps the browser's name and address out."""
    with override_settings(SESSIOND_META=False):
        browsing.get("/count", user_agent="a browser")

    assert [None] == [entry.meta for entry in engine.daemon.list(everyone=True)]


def test_excluded_paths(browsing: Browsing, engine: Engine) -> None:
    """A path of SESSIOND_EXCLUDE has an empty session, whatever the cookie says, and keeps none."""
    browsing.get("/count")
    before = engine.calls()

    with override_settings(SESSIOND_EXCLUDE=["/static/*"]):
        answer = browsing_again(browsing).get("/static/logo")

    assert (b"1", {}, before) == (answer.content, answer.cookies, engine.calls())
    assert "Vary" not in answer.headers


def browsing_again(browsing: Browsing) -> Browsing:
    """The same visitor, of an app that was started anew with other settings."""
    again = Browsing("native" if isinstance(browsing._visitor, AsyncVisitor) else "blocking", browsing._runner)
    again._visitor.cookies = browsing.cookies
    return again


def test_a_session_of_another_kind(browsing: Browsing) -> None:
    """An app may put something else in the place of the session: then that is its own affair."""
    answer = browsing.get("/someone-elses")

    assert (b"replaced", {}) == (answer.content, answer.cookies)


def test_a_crash_saves_nothing(browsing: Browsing) -> None:
    """A view that raises changes nothing, and its answer is Django's."""
    browsing.get("/count")

    assert 500 == browsing.get("/crash").status_code
    assert b"2" == browsing.get("/count").content


def test_a_crash_after_a_login(browsing: Browsing) -> None:
    """A view that raises after it has moved the session, as a login does, leaves the visitor with that session."""
    browsing.get("/count")

    assert 500 == browsing.get("/moves-and-crashes").status_code
    assert b"2" == browsing.get("/count").content


@pytest.mark.parametrize(
    ("path", "settings", "status"),
    [
        ("/count", {}, 503),
        ("/acount", {}, 503),
        ("/saves", {}, 503),
        ("/untouched", {}, 200),
        ("/untouched", {"MIDDLEWARE": [OURS, f"{__name__}.looking"]}, 503),
        ("/untouched", {"SESSION_SAVE_EVERY_REQUEST": True}, 503),
        ("/count", {"SESSIOND_OPTIONAL": ["/count"]}, 200),
        ("/untouched", {"SESSIOND_OPTIONAL": ["/*"], "SESSION_SAVE_EVERY_REQUEST": True}, 200),
        ("/saves", {"SESSIOND_OPTIONAL": ["/*"]}, 503),
        ("/someone-elses", {}, 200),
    ],
    ids=str,
)
def test_daemon_away(browsing: Browsing, engine: Engine, path: str, settings: dict[str, Any], status: int) -> None:
    """Whoever needs the session gets a 503 that says when to try again, unless the path is optional; the cookie stays."""
    browsing.get("/count")

    with override_settings(SESSIOND_URL=NOBODY, SESSIOND_DEADLINE=0.1, **settings):
        answer = browsing_again(browsing).get(path)
        engine.runner.run(async_client().close())

    retry = "1" if status == 503 else None
    assert (status, {}, retry) == (answer.status_code, answer.cookies, answer.headers.get("Retry-After"))
    assert b"1" == browsing.get("/look").content


def test_daemon_away_at_the_end(daemon: Client) -> None:
    """A request whose change could not be saved is a 503 too, whatever its view has answered."""
    key = daemon.create({"n": 1})

    def view(request: HttpRequest) -> HttpResponse:
        request.session["n"] = 2
        away = override_settings(SESSIOND_URL=NOBODY, SESSIOND_DEADLINE=0.1)
        away.enable()
        request.put_back = away.disable
        return HttpResponse("all is well")

    request = HttpRequest()
    request.META["HTTP_COOKIE"] = f"sessionid={key}"
    try:
        answer = SessionMiddleware(view)(request)
    finally:
        request.put_back()

    assert (503, {}) == (answer.status_code, answer.cookies)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, "SESSION_ENGINE"),
        ({"SESSION_COOKIE_NAME": "a b"}, "SESSION_COOKIE_"),
        ({"SESSION_COOKIE_NAME": "__Host-sessionid"}, "SESSION_COOKIE_"),
        ({"SESSION_COOKIE_SAMESITE": "None"}, "SESSION_COOKIE_"),
        ({"SESSIOND_EXCLUDE": ["static"]}, "SESSIOND_EXCLUDE"),
        ({"SESSIOND_OPTIONAL": 5}, "SESSIOND_OPTIONAL"),
    ],
    ids=str,
)
def test_settings_of_the_middleware(settings: dict[str, Any], said: str) -> None:
    """What browsers or we would refuse is refused when the app starts, by the name of the setting."""
    with override_settings(**settings), pytest.raises(ImproperlyConfigured, match=said):
        SessionMiddleware(lambda request: HttpResponse())


# -- settings, checks, moving --


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SESSIOND_URL": "nonsense"}, "SESSIOND_URL: "),
        ({"SESSIOND_URL": 5}, "SESSIOND_URL has to be an address"),
        ({"SESSIOND_URL": "http://user:secret@host"}, "SESSIOND_URL: "),
        ({"SESSIOND_TOKEN": "a\nb"}, "SESSIOND_TOKEN: "),
        ({"SESSIOND_DEADLINE": "soon"}, "SESSIOND_DEADLINE has to be a number of seconds"),
        ({"SESSIOND_DEADLINE": 0}, "SESSIOND_DEADLINE: "),
        ({"SESSIOND_TLS": True}, "SESSIOND_TLS has to be an ssl.SSLContext"),
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [client, async_client])
def test_settings_of_the_client(make: Callable[[], Any], settings: dict[str, Any], said: str) -> None:
    """A setting that cannot work is one sentence with its name, and without a secret that stands in it."""
    with override_settings(**settings), pytest.raises(ImproperlyConfigured, match=said) as raised:
        make()

    assert "secret" not in str(raised.value)


def test_one_client_for_a_process(daemon: Client) -> None:
    """All requests of a process share a client of each kind, which connects with its first call."""
    assert client() is client()
    assert async_client() is async_client()
    assert 0 == client().stats.connects + async_client().stats.connects


SECURE = {"SESSION_COOKIE_SECURE": True}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (SECURE, []),
        ({"DEBUG": True}, []),
        ({}, ["sessiond.W001"]),
        ({**SECURE, "SESSIOND_URL": "nonsense"}, ["sessiond.E001"]),
        ({**SECURE, "SESSIOND_EXCLUDE": "static"}, ["sessiond.E001"]),
        ({**SECURE, "SESSION_SERIALIZER": f"{__name__}.Reprs"}, ["sessiond.E001"]),
        ({**SECURE, "SESSIOND_DEADLNE": 1}, ["sessiond.W002"]),
        ({**SECURE, "MIDDLEWARE": [STOCK]}, ["sessiond.W003"]),
        ({**SECURE, "MIDDLEWARE": [f"{__name__}.looking", OURS]}, []),
    ],
    ids=str,
)
def test_checks(settings: dict[str, Any], found: list[str]) -> None:
    """`manage.py check` finds settings that cannot work, that weaken sessions, or that nobody looks at."""
    with override_settings(**settings):
        assert found == [message.id for message in check_settings()]


def test_manage_py_check() -> None:
    """The checks are run by `manage.py check` where INSTALLED_APPS names us."""
    with (
        override_settings(SESSIOND_URL="nonsense"),
        pytest.raises(SystemCheckError, match=r"sessiond\.E001.*SESSIOND_URL"),
    ):
        call_command("check")


@pytest.fixture
def table() -> Iterator[Any]:
    """The table `django_session`, with the engine that fills it."""
    from django.contrib.sessions.models import Session
    from django.db import connection

    with connection.schema_editor() as editor:
        editor.create_model(Session)
    yield import_module("django.contrib.sessions.backends.db").SessionStore
    with connection.schema_editor() as editor:
        editor.delete_model(Session)
    connection.close()


def test_moving(daemon: Client, table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of Django's database engine go on under their keys, once, and only those that are alive and can be read."""
    monkeypatch.setattr("sessiond_client.django.move.BATCH", 2)
    keys = {}
    for name, expiry in (("ada", None), ("bob", 50), ("eve", -50), ("cyd", SOON), ("dan", 0)):
        old = table()
        old.update({SESSION_KEY: name, "cart": ["lamp"]})
        if expiry is not None:
            old.set_expiry(expiry)
        old.save()
        keys[name] = old.session_key
    broken = table(keys["dan"])
    broken.model.objects.filter(session_key=keys["dan"]).update(session_data="nonsense")

    moved = move_from_django_db()

    assert 3 == moved == daemon.count()
    assert {"ada", "bob", "cyd"} == {entry.user for entry in daemon.list(everyone=True)}
    assert {keys["eve"], keys["dan"]} == set(broken.model.objects.values_list("session_key", flat=True))
    visitor = Visitor()
    visitor.cookies["sessionid"] = keys["ada"]
    assert b"1" == visitor.get("/count").content
    assert {"n": 1, "cart": ["lamp"], SESSION_KEY: "ada"} == SessionStore(keys["ada"]).load()


def test_moving_twice(daemon: Client, table: Any) -> None:
    """Moving again revives nobody who has logged out since, and leaves alone what a move that broke off had copied."""
    old = table()
    old["a"] = 1
    old.save()
    copied = SessionStore(old.session_key)
    copied._session_cache = {"a": 2}
    copied.save(must_create=True)

    assert 1 == move_from_django_db()
    assert {"a": 2} == SessionStore(old.session_key).load()
    SessionStore(old.session_key).flush()

    assert (0, 0) == (move_from_django_db(), daemon.count())
