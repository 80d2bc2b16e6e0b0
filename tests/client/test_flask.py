"""What is special to Flask: its settings, its types, Flask-Login, streamed answers, and the interfaces that apps come from."""

from __future__ import annotations

import copy
import pickle
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import flask_login  # type: ignore[import-untyped]
import pytest
from cachelib import FileSystemCache
from flask import Flask, Response, flash, get_flashed_messages, session, stream_with_context
from flask.globals import request_ctx
from flask.json.tag import JSONTag, TaggedJSONSerializer
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask_session import Session  # type: ignore[import-untyped]
from flask_session.cachelib import CacheLibSessionInterface  # type: ignore[import-untyped]
from markupsafe import Markup

from sessiond_client import Client, InvalidRequest, Unavailable
from sessiond_client.flask import SessiondSessions, SessionsUnavailable
from sessiond_client.testing import Server

NAME = "__Host-session"
LIFETIME = 600


@pytest.fixture(scope="module")
def daemon() -> Iterator[Server]:
    """One daemon for all."""
    with Server() as server:
        yield server


@pytest.fixture
def client(daemon: Server) -> Iterator[Client]:
    """The app's own, impatient, and no sessions yet."""
    with Client(daemon.url, deadline=0.5) as client:
        client.destroy_all(everyone=True)
        yield client


@pytest.fixture
def mortal(daemon: Server, client: Client) -> Iterator[Server]:
    """The daemon, for a test that may stop it."""
    yield daemon
    daemon.restart()


@pytest.fixture
def make(client: Client) -> Callable[..., Flask]:
    """Makes apps: `config` for Flask, all else for SessiondSessions."""

    def make(config: dict[str, Any] | None = None, **options: Any) -> Flask:
        app = Flask(__name__)
        app.config.update(SECRET_KEY="keyboard cat", PERMANENT_SESSION_LIFETIME=LIFETIME)
        app.config.update(config or {})
        SessiondSessions(app, options.pop("client", client), **options)

        @app.get("/untouched")
        def untouched() -> str:
            return "untouched"

        @app.get("/read")
        def read() -> str:
            return repr(dict(session))

        return app

    return make


def visit(app: Flask, act: Callable[[], Any], browser: FlaskClient | None = None) -> Any:
    """What a browser, a new one unless given, is answered by a view that does this, and returns what that returns."""

    def view() -> Any:
        result = act()
        return result if isinstance(result, str | Response) else str(result)

    app.view_functions["act"] = view
    if not any(rule.endpoint == "act" for rule in app.url_map.iter_rules()):
        app.url_map.add(app.url_rule_class("/act", endpoint="act"))
    return (browser or app.test_client()).get("/act", buffered=True)  # to its end, as a server does


def cookie_of(answer: Any, name: str = NAME) -> Any:
    """The cookie that an answer sets, with its attributes; None without one."""
    found: SimpleCookie = SimpleCookie()
    for header in answer.headers.getlist("Set-Cookie"):
        found.load(header)
    return found.get(name)


def stored(client: Client) -> dict[str, Any]:
    """The data of the one session that there is."""
    (entry,) = client.list(everyone=True)
    record = client.get(entry.key)
    assert record is not None
    data: dict[str, Any] = record.data
    return data


def put(**entries: Any) -> Callable[[], Any]:
    return lambda: session.update(entries)


# -- what a session holds --


@pytest.mark.parametrize(
    ("value", "as_stored"),
    [
        ("Ada", "Ada"),
        (None, None),
        (1.5, 1.5),
        ([1, {"a": True}], [1, {"a": True}]),
        ((1, (2,)), {" t": [1, {" t": [2]}]}),
        (b"\xff\x00", {" b": "/wA="}),
        (Markup("<b>bold</b>"), {" m": "<b>bold</b>"}),
        (uuid.UUID(int=1), {" u": "0" * 31 + "1"}),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {" d": "Fri, 02 Jan 2026 03:04:05 GMT"}),
        ({" t": "looks like a tag"}, {" di": {" t__": "looks like a tag"}}),
    ],
    ids=repr,
)
def test_types_survive(make: Any, client: Client, value: Any, as_stored: Any) -> None:
    """What Flask's own sessions keep comes back as it was, in one request and in the next; looking at it writes nothing."""
    app = make()
    browser = app.test_client()
    visit(app, put(entry=value, other=1), browser)
    version = next(iter(client.list(everyone=True))).version

    seen: list[Any] = []
    visit(app, lambda: seen.append(session["entry"]), browser)

    assert [(type(value), value)] == [(type(each), each) for each in seen]
    assert {"entry": as_stored, "other": 1} == stored(client)
    assert version == next(iter(client.list(everyone=True))).version


def test_types_of_the_app_are_registered(make: Any, client: Client) -> None:
    """A tag that the app registers with the serializer, as Flask's documentation has it, keeps a type of the app's own."""

    class TagComplex(JSONTag):
        key = " c"

        def check(self, value: Any) -> bool:
            return isinstance(value, complex)

        def to_json(self, value: Any) -> Any:
            return [value.real, value.imag]

        def to_python(self, value: Any) -> Any:
            return complex(*value)

    app = make()
    app.session_interface.serializer = TaggedJSONSerializer()
    app.session_interface.serializer.register(TagComplex)
    browser = app.test_client()
    visit(app, put(number=1 + 2j), browser)

    assert "{'number': (1+2j)}" == browser.get("/read").text
    assert {"number": {" c": [1.0, 2.0]}} == stored(client)


def test_what_other_languages_wrote(make: Any, client: Client) -> None:
    """A session written without tags, in another order, or with bytes is read as it is, and not rewritten for being read."""
    data = {"cart": {"b": 1, "a": [2]}, " t": [1], "raw": b"\x00", "many": [b"x"]}
    sid = client.create(data)
    browser = make().test_client()
    browser.set_cookie(NAME, sid)

    assert repr(data) == browser.get("/read").text
    record = client.get(sid)
    assert record is not None
    assert (data, 1) == (record.data, record.version)


def test_what_cannot_be_stored(make: Any, client: Client) -> None:
    """A value or a name that no session can hold is an error of the app's, and nothing is stored."""
    app = make()
    app.testing = True

    with pytest.raises(TypeError):
        visit(app, put(x=object()))
    with pytest.raises(InvalidRequest, match="names of entries"):
        visit(app, lambda: session.update({1: "x"}))  # type: ignore[dict-item]
    assert 0 == client.count()


def test_modified(make: Any, client: Client) -> None:
    """`modified` is true for what has changed, also inside; an app that sets it, as it had to, causes no write."""
    app = make()
    browser = app.test_client()
    visit(app, put(cart=["lamp"]), browser)
    seen = []

    def look() -> None:
        seen.append(session.modified)
        session["cart"].append("book")
        seen.append(session.modified)
        session["cart"].pop()
        seen.append(session.modified)
        session.modified = True
        seen.append(session.modified)

    answer = visit(app, look, browser)

    assert [False, True, False, True] == seen
    assert cookie_of(answer) is None
    assert [1] == [entry.version for entry in client.list(everyone=True)]


def test_modified_and_accessed_afterwards(make: Any) -> None:
    """What Flask's tests and extensions ask when the request is over is still known: looked at, changed, or neither."""
    app = make()
    with app.test_client() as browser:
        seen = []
        for act in (put(a=1), lambda: session["a"], lambda: None, lambda: session.clear()):
            visit(app, act, browser)
            inner = request_ctx._session
            assert inner is not None
            seen.append((inner.accessed, inner.modified))

    assert [(True, True), (True, False), (False, False), (True, True)] == seen


def test_it_is_a_dict(make: Any) -> None:
    """Whatever a view does with a dict works, and `new` says whether there was a session."""
    app = make()
    browser = app.test_client()
    seen: list[Any] = []

    def use() -> None:
        seen.append(session.new)
        session.setdefault("a", []).append(1)
        session["b"] = 2
        seen.append((session.pop("b"), session.pop("b", None), session.get("a"), "a" in session, len(session)))
        seen.append((session == {"a": [1]}, bool(session), session.copy()))  # type: ignore[attr-defined]

    visit(app, use, browser)
    visit(app, lambda: seen.append(session.new), browser)

    assert [True, (2, None, [1], True, 1), (True, True, {"a": [1]}), False] == seen


def test_repr(make: Any) -> None:
    """The repr shows names, neither sid nor value, and reads nothing."""
    app = make()
    browser = app.test_client()
    visit(app, put(password="hunter2"), browser)
    seen: list[str] = []

    visit(app, lambda: seen.extend([repr(session), str(len(session)), repr(session)]), browser)

    assert ["<SessiondSession: nothing read>", "1", "<SessiondSession: 'password'>"] == seen


def test_flash(make: Any, client: Client) -> None:
    """A flashed message is there in the next request, once."""
    app = make()
    browser = app.test_client()
    seen: list[Any] = []
    visit(app, lambda: flash("saved", "ok"), browser)

    for _ in range(2):
        visit(app, lambda: seen.append(get_flashed_messages(with_categories=True)), browser)

    assert [[("ok", "saved")], []] == seen
    assert 0 == client.count()


# -- the cookie --


@pytest.mark.parametrize(
    ("config", "secure", "name", "attributes"),
    [
        ({}, True, "__Host-session", {"secure", "httponly", "path=/", "samesite=lax"}),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, True, NAME, {"secure", "httponly", "path=/", "samesite=strict"}),
        ({"SESSION_COOKIE_NAME": "sid"}, True, "sid", {"secure", "httponly", "path=/", "samesite=lax"}),
        ({"SESSION_COOKIE_HTTPONLY": False}, True, NAME, {"secure", "path=/", "samesite=lax"}),
        ({"SESSION_COOKIE_PARTITIONED": True}, True, NAME, {"secure", "httponly", "path=/", "samesite=lax", "partitioned"}),
        ({"SESSION_COOKIE_PATH": "/a"}, True, "session", {"secure", "httponly", "path=/a", "samesite=lax"}),
        ({"APPLICATION_ROOT": "/b"}, True, "session", {"secure", "httponly", "path=/b", "samesite=lax"}),
        (
            {"SESSION_COOKIE_DOMAIN": "example.org"},
            True,
            "session",
            {"secure", "httponly", "path=/", "samesite=lax", "domain=example.org"},
        ),
        ({}, False, "session", {"httponly", "path=/"}),
        ({"SESSION_COOKIE_SECURE": True}, False, "session", {"secure", "httponly", "path=/"}),
    ],
)  # fmt: skip
def test_cookie(make: Any, config: dict[str, Any], secure: bool, name: str, attributes: set[str]) -> None:
    """Flask's settings rule, stricter where an app has left its defaults; `secure=False` leaves all to them."""
    app = make({"TESTING": True, **config}, secure=secure)

    answer = visit(app, put(a=1))

    (header,) = answer.headers.getlist("Set-Cookie")
    assert name == header.partition("=")[0]
    assert attributes == {part.strip().lower() for part in header.split(";")[1:]}
    assert "no-store" == answer.headers["Cache-Control"]


@pytest.mark.parametrize(
    "config",
    [
        {"SESSION_COOKIE_NAME": "__Host-x", "SESSION_COOKIE_DOMAIN": "example.org"},
        {"SESSION_COOKIE_NAME": "a b"},
        {"SESSION_COOKIE_SAMESITE": "Never"},
    ],
)
def test_cookies_that_browsers_refuse(make: Any, config: dict[str, Any]) -> None:
    """Settings for a cookie that browsers would drop are an error, not logins that do not stick."""
    app = make({"TESTING": True, **config})

    with pytest.raises(InvalidRequest, match="session cookie"):
        app.test_client().get("/untouched")


@pytest.mark.parametrize(
    ("config", "debug", "warnings"), [({}, False, 1), ({"SESSION_COOKIE_SECURE": True}, False, 0), ({}, True, 0)]
)
def test_plain_http_is_said(
    make: Any, caplog: pytest.LogCaptureFixture, config: dict[str, Any], debug: bool, warnings: int
) -> None:
    """An app outside debug and testing whose cookie is not Secure is told so, once."""
    app = make(config, secure=False)
    app.debug = debug

    for _ in range(3):
        visit(app, put(a=1))

    assert warnings == len([each for each in caplog.messages if "SESSION_COOKIE_SECURE" in each])


@pytest.mark.parametrize(
    ("permanent", "refresh", "sent"), [(True, True, True), (True, False, False), (False, True, False), (False, False, False)]
)  # fmt: skip
def test_refresh(make: Any, client: Client, permanent: bool, refresh: bool, sent: bool) -> None:
    """A request that only reads sends the cookie of a permanent session again if the app refreshes, and writes no data."""
    app = make({"SESSION_REFRESH_EACH_REQUEST": refresh})
    browser = app.test_client()

    def begin() -> None:
        session["a"] = 1
        session.permanent = permanent

    first = cookie_of(visit(app, begin, browser))
    read = browser.get("/read")
    untouched = browser.get("/untouched")
    changed = visit(app, put(a=2), browser)

    assert permanent == bool(first["expires"])
    assert [sent, False, permanent] == [cookie_of(each) is not None for each in (read, untouched, changed)]
    assert [2] == [entry.version for entry in client.list(everyone=True)]


def test_permanent_comes_and_goes(make: Any) -> None:
    """A session that becomes permanent, or ceases to be, gets its cookie with or without the instant at once."""
    app = make({"SESSION_REFRESH_EACH_REQUEST": False})
    browser = app.test_client()
    visit(app, put(a=1), browser)

    on = cookie_of(visit(app, put(_permanent=True), browser))
    off = cookie_of(visit(app, put(_permanent=False), browser))

    assert (True, "") == (bool(on["expires"]), off["expires"])


@pytest.mark.parametrize(
    ("act", "vary"),
    [
        (put(test=1), ["Cookie"]),
        (lambda: session.get("test"), ["Cookie"]),
        (lambda: session.setdefault("test", 1), ["Cookie"]),
        (lambda: session.clear(), ["Cookie"]),
        (lambda: "test" in session and None, ["Cookie"]),
        (lambda: None, []),
        (lambda: session and Response(headers={"Vary": "Cookie"}), ["Cookie"]),
        (lambda: session.update(a=1) or Response(headers={"Vary": "Accept-Encoding"}), ["Accept-Encoding, Cookie"]),
    ],
)
def test_vary(make: Any, act: Callable[[], Any], vary: list[str]) -> None:
    """Caches are told once that an answer depends on the cookie, when the view has looked at the session."""
    app = make()
    browser = app.test_client()
    visit(app, put(x=1), browser)

    assert vary == visit(app, act, browser).headers.getlist("Vary")


def test_the_cookie_goes_as_it_came(make: Any, client: Client) -> None:
    """The cookie of an emptied session is taken away with the attributes that it was set with."""
    app = make({"SESSION_COOKIE_DOMAIN": "localhost", "SESSION_COOKIE_PATH": "/act"})
    browser = app.test_client()
    visit(app, put(a=1), browser)

    gone = cookie_of(visit(app, lambda: session.pop("a") and None, browser), "session")

    assert ("", "localhost", "/act", True) == (gone.value, gone["domain"], gone["path"], gone["secure"])
    assert "1970" in gone["expires"]
    assert 0 == client.count()


def test_signing(make: Any, client: Client) -> None:
    """With SESSION_USE_SIGNER only what the app's key, or a former one, has signed is taken; the latter is signed again."""
    signed, again, other = (
        make({"SESSION_USE_SIGNER": True, "SECRET_KEY": key, "SECRET_KEY_FALLBACKS": former})
        for key, former in (("one", None), ("two", ["one"]), ("three", []))
    )
    value = cookie_of(visit(signed, put(a=1))).value
    assert value.startswith("s%3A")

    def read(app: Flask, cookie: str) -> Any:
        browser = app.test_client()
        browser.set_cookie(NAME, cookie)
        return browser.get("/read")

    resigned = cookie_of(read(again, value)).value
    assert ["{'a': 1}", "{'a': 1}", "{}", "{}"] == [
        read(again, value).text,
        read(again, resigned).text,
        read(other, value).text,
        read(signed, resigned).text,
    ]
    assert cookie_of(read(again, resigned)) is None


def test_no_secret_to_sign_with(make: Any) -> None:
    """Without a secret to sign with there is no session, and Flask says why; without signing none is needed."""
    unsigned, signed = make({"SECRET_KEY": None}), make({"SECRET_KEY": None, "SESSION_USE_SIGNER": True})
    signed.testing = True

    assert 200 == visit(unsigned, put(a=1)).status_code
    assert "{}" == signed.test_client().get("/read").text
    with pytest.raises(RuntimeError, match="secret"):
        visit(signed, put(a=1))


# -- the life of a session --


def test_every_way_in(client: Client) -> None:
    """The interface works as an attribute of the class, of an app, by `init_app`, and for several apps at once."""
    sessions = SessiondSessions(client=client)

    class App(Flask):
        session_interface = sessions

    by_class, by_attribute, by_init = App(__name__), Flask(__name__), Flask(__name__)
    by_attribute.session_interface = sessions
    sessions.init_app(by_init)

    for app in (by_class, by_attribute, by_init):
        assert cookie_of(visit(app, put(a=1))) is not None
    assert 3 == client.count()


def test_its_own_client(daemon: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a client the interface makes one, to the daemon that the environment names."""
    monkeypatch.setenv("SESSIOND_URL", daemon.url)
    sessions = SessiondSessions()
    app = Flask(__name__)
    sessions.init_app(app)

    with sessions.client:
        visit(app, put(a=1))

    assert {"a": 1} == stored(client)


def test_the_lifetime_is_the_apps(make: Any, client: Client, daemon: Server) -> None:
    """PERMANENT_SESSION_LIFETIME after its last use a session is over, whether it is permanent or not."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=1), browser)
    daemon.advance(LIFETIME - 1)
    assert "{'a': 1}" == browser.get("/read").text

    daemon.advance(LIFETIME)

    assert "{}" == browser.get("/read").text


def test_regenerate(make: Any, client: Client) -> None:
    """`regenerate` of the interface, or of the session, gives it a new id and an instant of its own if it is permanent."""
    app = make({"SESSION_REFRESH_EACH_REQUEST": False})
    browser = app.test_client()
    visit(app, put(a=1, _permanent=True), browser)

    sids = []
    for act in (lambda: app.session_interface.regenerate(session), lambda: session.regenerate()):  # type: ignore[attr-defined]
        cookie = cookie_of(visit(app, act, browser))
        assert cookie["expires"]
        sids.append(cookie.value)

    assert 2 == len(set(sids))
    assert "{'a': 1, '_permanent': True}" == browser.get("/read").text
    assert 1 == client.count()


def test_clear_then_login(make: Any, client: Client) -> None:
    """A view that clears the session and puts somebody in, as logins do, begins a new one under a new id."""
    app = make(user="user_id")
    browser = app.test_client()
    before = cookie_of(visit(app, put(cart=["lamp"]), browser)).value

    def login() -> None:
        session.clear()
        session["user_id"] = 7

    after = cookie_of(visit(app, login, browser)).value

    assert before != after
    assert {"user_id": 7} == stored(client)
    assert ["7"] == [entry.user for entry in client.list(everyone=True)]
    assert client.get(before) is None


def test_logout_reads_nothing(make: Any, client: Client) -> None:
    """Clearing a session that nobody has looked at is one call."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=1), browser)
    before = client.stats.calls_sent

    answer = visit(app, lambda: session.clear(), browser)

    assert 1 == client.stats.calls_sent - before
    assert "" == cookie_of(answer).value
    assert 0 == client.count()


def test_permanent_alone_is_nothing(make: Any, client: Client) -> None:
    """An app that makes every session permanent stores none for visitors who leave nothing, nor after a logout."""
    app = make()
    app.before_request(lambda: setattr(session, "permanent", True))
    browser = app.test_client()

    assert cookie_of(visit(app, lambda: None, browser)) is None
    assert cookie_of(visit(app, put(a=1), browser)).value
    assert 1 == client.count()
    assert "" == cookie_of(visit(app, lambda: session.pop("a") and None, browser)).value
    assert 0 == client.count()


@pytest.mark.parametrize(
    ("option", "entries", "user"),
    [
        ({}, {"_user_id": "ada"}, "ada"),
        ({}, {"name": "ada"}, None),
        ({"user": "name"}, {"name": "ada"}, "ada"),
        ({"user": "id"}, {"id": 0}, "0"),
        ({"user": "id"}, {"id": None, "x": 1}, None),
        ({"user": lambda data: data["account"]["id"]}, {"account": {"id": 7}}, "7"),
    ],
)
def test_whose_it_is(
    make: Any, client: Client, option: dict[str, Any], entries: dict[str, Any], user: str | None
) -> None:
    """The user is found in the data: under Flask-Login's name, under the app's own, or by a function."""
    visit(make(**option), put(**entries))

    assert [user] == [entry.user for entry in client.list(everyone=True)]


def test_meta(make: Any, client: Client) -> None:
    """A session notes the browser's name and address, unless told not to."""
    for app in (make(), make(meta=False)):
        visit(app, put(a=1))

    first, second = sorted((entry.meta or {} for entry in client.list(everyone=True)), key=len, reverse=True)
    assert ("127.0.0.1", {}) == (first["ip"], second)
    assert "Werkzeug" in first["agent"]


def test_session_transaction(make: Any, client: Client) -> None:
    """Flask's test client looks into the session, and changes it, as with its own."""
    app = make()
    with app.test_client() as browser:
        with browser.session_transaction() as inside:
            inside["a"] = 1
        browser.get("/read")
        assert {"a": 1} == dict(session)
        with browser.session_transaction() as inside:
            assert 1 == inside.pop("a")
        assert "{}" == browser.get("/read").text
    assert 0 == client.count()


@pytest.mark.parametrize("propagate", [True, False])
def test_a_crash_saves_nothing(make: Any, client: Client, propagate: bool) -> None:
    """A view that fails leaves the session as it was, whether Flask answers with a 500 or hands the error on."""
    app = make({"PROPAGATE_EXCEPTIONS": propagate})
    browser = app.test_client()
    visit(app, put(a=1), browser)

    def crash() -> None:
        session["a"] = 2
        raise KeyError

    if propagate:
        with pytest.raises(KeyError):
            visit(app, crash, browser)
    else:
        assert 500 == visit(app, crash, browser).status_code
    assert {"a": 1} == stored(client)


# -- Flask-Login --


class User(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


@pytest.fixture
def login_app(make: Any) -> Flask:
    app: Flask = make()
    manager = flask_login.LoginManager(app)
    manager.user_loader(User)

    @app.get("/login/<name>")
    def login(name: str) -> str:
        flask_login.login_user(User(name), remember=True)
        return "hello"

    @app.get("/logout")
    def logout() -> str:
        flask_login.logout_user()
        return "bye"

    @app.get("/who")
    def who() -> str:
        user = flask_login.current_user
        return str(user.get_id()) if user.is_authenticated else "nobody"

    return app


def test_flask_login(login_app: Flask, client: Client) -> None:
    """A login moves the session to a new id and is found by its user; a logout keeps the cart, and the user is gone."""
    browser = login_app.test_client()
    before = cookie_of(visit(login_app, put(cart=["lamp"]), browser)).value

    after = cookie_of(browser.get("/login/ada")).value

    assert before != after
    assert "ada" == browser.get("/who").text
    assert [None, 1] == [client.get(before), client.count(user="ada")]
    assert "bye" == browser.get("/logout").text
    assert "nobody" == browser.get("/who").text
    assert ["lamp"] == stored(client)["cart"]
    assert [None, 0] == [client.get(after), client.count(user="ada")]


def test_remembered(login_app: Flask, client: Client) -> None:
    """Who is remembered by Flask-Login's own cookie gets a session when the old one is over; after a logout no longer."""
    browser = login_app.test_client()
    browser.get("/login/ada")
    client.destroy_all(user="ada")

    assert "ada" == browser.get("/who").text
    assert 1 == client.count(user="ada")
    browser.get("/logout")
    assert browser.get_cookie("remember_token") is None
    assert "nobody" == browser.get("/who").text
    assert 0 == client.count()


def test_flask_login_looks_for_nothing(login_app: Flask, client: Client, mortal: Server) -> None:
    """What Flask-Login does after every request costs no call, and harms none while the daemon is away."""
    browser = login_app.test_client()
    browser.get("/login/ada")
    before = client.stats.calls_sent
    browser.get("/untouched")
    assert 0 == client.stats.calls_sent - before

    mortal.stop()

    assert ["untouched", 503] == [browser.get("/untouched").text, browser.get("/who").status_code]


# -- streams --


def test_a_stream_reads_and_writes(make: Any, client: Client) -> None:
    """A streamed answer has the session, and what it changes is saved when it has gone out."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=[1], b={"y": 1, "x": 2}), browser)

    def stream() -> Response:
        def parts() -> Iterator[str]:
            yield str(session["a"])
            session["a"].append(2)
            session["c"] = "late"

        return Response(stream_with_context(parts()))

    assert "[1]" == visit(app, stream, browser).text
    assert {"a": [1, 2], "b": {"y": 1, "x": 2}, "c": "late"} == stored(client)


@pytest.mark.parametrize("looks_before", [True, False])
def test_a_stream_that_only_reads(make: Any, client: Client, looks_before: bool) -> None:
    """One that only reads writes nothing, whether the view has looked at the session before or not."""
    app = make()
    browser = app.test_client()
    visit(app, put(b={"y": 1, "x": 2}), browser)

    def stream() -> Response:
        if looks_before:
            session.get("b")
        return Response(stream_with_context(str(session[name]) for name in ("b",)))

    assert "{'x': 2, 'y': 1}" == visit(app, stream, browser).text
    assert [1] == [entry.version for entry in client.list(everyone=True)]


def test_a_stream_logs_out_and_begins_nothing(make: Any, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A session that a stream clears is over; one that it begins is dropped and said, since its cookie cannot be sent."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=1), browser)

    def stream(act: Callable[[], Any]) -> Callable[[], Response]:
        return lambda: Response(stream_with_context(str(act()) for _ in range(1)))

    assert "None" == visit(app, stream(lambda: session.clear()), browser).text
    assert 0 == client.count()
    assert "None" == visit(app, stream(put(a=1))).text
    assert 0 == client.count()
    assert 1 == len([each for each in caplog.messages if "its cookie cannot be sent" in each])


def test_a_stream_goes_on_after_a_new_beginning(make: Any, client: Client) -> None:
    """A session that the view cleared and began again is not ended by what the stream adds to it."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=1), browser)

    def stream() -> Response:
        session.clear()
        session["b"] = 2
        return Response(stream_with_context(str(session.update(c=3)) for _ in range(1)))

    assert "None" == visit(app, stream, browser).text
    assert "{'b': 2, 'c': 3}" == browser.get("/read").text


# -- while the daemon is away --


def test_away(make: Any, client: Client, mortal: Server) -> None:
    """A request that needs the session is answered with a plain 503 that says when to come again; no cookie goes."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=1), browser)
    mortal.stop()

    answer = browser.get("/read")

    assert (503, "1", "no-store") == (
        answer.status_code, answer.headers["Retry-After"], answer.headers["Cache-Control"]
    )  # fmt: skip
    assert "127.0.0.1" not in answer.text
    assert [] == answer.headers.getlist("Set-Cookie")
    assert "untouched" == browser.get("/untouched").text


def test_the_error_can_be_pickled(make: Any, client: Client, mortal: Server) -> None:
    """The error that a view sees is Unavailable, says what happened in its cause, and can be pickled and copied."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=1), browser)
    seen = []

    def look() -> None:
        try:
            session.get("a")
        except Unavailable as error:
            seen.extend([error, pickle.loads(pickle.dumps(error)), copy.copy(error)])

    mortal.stop()
    visit(app, look, browser)

    assert [SessionsUnavailable] * 3 == [type(error) for error in seen]
    assert [False] * 3 == [error.outcome_unknown for error in seen]
    assert [True] * 3 == [isinstance(error.__cause__, Unavailable) for error in seen]


@pytest.mark.parametrize("streamed", [False, True])
def test_away_when_it_is_saved(make: Any, client: Client, mortal: Server, streamed: bool) -> None:
    """A change that could not be saved is not answered as if it had been, nor saved behind the answer's back."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=1), browser)

    def change() -> Any:
        session["a"] = 2
        mortal.stop()
        return Response(stream_with_context(iter(["changed"])) if streamed else "changed")

    answer = visit(app, change, browser)

    assert (503, "1") == (answer.status_code, answer.headers["Retry-After"])
    assert "changed" not in answer.text
    mortal.start()
    assert {"a": 1} == stored(client)


def test_away_half_way(make: Any, client: Client, mortal: Server) -> None:
    """A session that has moved to a new id before the daemon went away keeps its data: the 503 brings the new cookie."""

    class Last(Client):
        def rotate(self, *arguments: Any, **named: Any) -> str:
            sid = super().rotate(*arguments, **named)
            mortal.stop()
            return sid

    with Last(mortal.url, deadline=0.5) as last:
        app = make(client=last)
        browser = app.test_client()
        visit(app, put(cart=["lamp"]), browser)

        answer = visit(app, put(_user_id="ada"), browser)

        assert 503 == answer.status_code
        mortal.start()
        assert "{'cart': ['lamp']}" == browser.get("/read").text


def test_refused_half_way(make: Any, client: Client) -> None:
    """So does one whose changes are refused once it has moved, such as data beyond the daemon's limit."""
    app = make()
    browser = app.test_client()
    visit(app, put(cart=["lamp"]), browser)

    answer = visit(app, put(_user_id="ada", big="x" * 100_000), browser)

    assert 500 == answer.status_code
    assert "{'cart': ['lamp']}" == browser.get("/read").text


@pytest.mark.parametrize("kind", [Unavailable, 503])
def test_away_is_the_apps_to_handle(make: Any, mortal: Server, kind: Any) -> None:
    """An app's handler of Unavailable, or of 503, answers, for reads and for writes."""
    app = make()
    app.register_error_handler(kind, lambda error: ("come again", 503))
    browser = app.test_client()
    visit(app, put(a=1), browser)

    def change() -> None:
        session["a"] = 2
        mortal.stop()

    assert ["come again"] * 2 == [visit(app, change, browser).text, browser.get("/read").text]


def test_optional(make: Any, client: Client, mortal: Server) -> None:
    """A path that may lack its session goes on with an empty one, and what is put into that is not stored."""
    app = make(optional=["/act"])
    browser = app.test_client()
    visit(app, put(a=1), browser)
    mortal.stop()

    answer = visit(app, lambda: str(dict(session)) + str(session.update(b=1)), browser)

    assert (200, "{}None", []) == (answer.status_code, answer.text, answer.headers.getlist("Set-Cookie"))
    mortal.start()
    assert {"a": 1} == stored(client)


def test_no_logout_is_optional(make: Any, client: Client, mortal: Server) -> None:
    """A logout that did not reach the daemon is never answered as if it had, on a path that may lack its session either."""
    app = make(optional=["/act"])
    browser = app.test_client()
    visit(app, put(a=1), browser)
    mortal.stop()

    def look_and_clear() -> None:
        session.get("a")
        session.clear()

    assert [503, 503] == [visit(app, act, browser).status_code for act in (look_and_clear, lambda: session.clear())]
    mortal.start()
    assert {"a": 1} == stored(client)


def test_a_late_logout(make: Any, client: Client) -> None:
    """A session that a streamed answer clears is ended, though none can begin in its place."""
    app = make()
    browser = app.test_client()
    visit(app, put(a=1), browser)

    def stream() -> Response:
        session.get("a")

        def parts() -> Iterator[str]:
            yield "a"
            session.clear()
            session["b"] = 2

        return Response(stream_with_context(parts()))

    assert "a" == visit(app, stream, browser).text
    assert 0 == client.count()


# -- moving --


@pytest.fixture(params=["signed cookies", "Flask-Session"])
def former(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An interface that apps come from."""
    if request.param == "signed cookies":
        return SecureCookieSessionInterface()
    return CacheLibSessionInterface(client=FileSystemCache(str(tmp_path)))


@pytest.mark.parametrize("secure", [True, False])
def test_moving(make: Any, client: Client, former: Any, secure: bool) -> None:
    """Who brings a session of the interface before goes on with it, once, under an id of ours, and it is ended there."""
    app = make({"TESTING": True}, former=former, secure=secure)
    ours, app.session_interface = app.session_interface, former
    browser, thief = app.test_client(), app.test_client()
    visit(app, put(_user_id="ada", cart=("lamp",)), browser)
    cookie = browser.get_cookie("session")
    assert cookie is not None
    app.session_interface = ours

    assert "untouched" == browser.get("/untouched").text
    assert 0 == client.count()
    for _ in range(2):
        visit(app, lambda: session["cart"], browser)

    assert [1, 1] == [client.count(), client.count(user="ada")]
    assert [] == [key for key in ("_user_id", "cart") if key not in stored(client)]
    assert secure == (browser.get_cookie("session") is None)
    if not isinstance(former, SecureCookieSessionInterface):  # a signed cookie is good for as long as it says
        thief.set_cookie("session", cookie.value)
        assert "{}" == thief.get("/read").text


@pytest.mark.parametrize("secure", [True, False])
def test_moving_by_logging_out(make: Any, client: Client, former: Any, secure: bool) -> None:
    """A logout as the first thing ends the session of the interface before, and is not undone by its cookie."""
    app = make({"TESTING": True}, former=former, secure=secure)
    ours, app.session_interface = app.session_interface, former
    browser = app.test_client()
    visit(app, put(_user_id="ada"), browser)
    app.session_interface = ours

    visit(app, lambda: session.clear(), browser)

    assert browser.get_cookie("session") is None
    assert "{}" == browser.get("/read").text
    assert 0 == client.count()


def test_moving_brings_nobody_back(make: Any, client: Client, former: Any) -> None:
    """A visitor without a former session gets none from it, and one of ours that has ended stays so."""
    app = make({"TESTING": True}, former=former, secure=False)
    browser = app.test_client()
    assert cookie_of(browser.get("/read"), "session") is None
    visit(app, put(a=1), browser)
    client.destroy_all(everyone=True)

    assert "{}" == browser.get("/read").text
    assert 0 == client.count()


def test_the_docs(make: Any, client: Client, daemon: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app in docs/adapters.md does what it says, and its line for moving takes over what Flask-Session's has stored."""
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    section = page.partition("\n## Flask\n")[2].partition("\n## ")[0]
    code, moving = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.setenv("SESSIOND_URL", daemon.url)
    names: dict[str, Any] = {"__name__": __name__}
    exec(code, names)
    browser = names["app"].test_client()

    assert ["Views: 1\n", "Views: 2\n"] == [browser.get("/").text for _ in range(2)]
    browser.post("/login")
    assert 1 == client.count(user="ada")
    browser.post("/logout")
    assert 0 == client.count()

    app = names["app"] = make({"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": FileSystemCache(str(tmp_path))})
    Session(app)
    browser = app.test_client()
    visit(app, put(cart=["lamp"]), browser)
    exec(moving, names)
    assert "{'_permanent': True, 'cart': ['lamp']}" == browser.get("/read").text
    names["client"].close()
