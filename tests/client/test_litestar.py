"""What is special to Litestar's sessions; what they have in common with other frameworks' is in test_adapters.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

pytest.importorskip("litestar")

from litestar import Litestar, Request, Response, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import ImproperlyConfiguredException, WebSocketDisconnect
from litestar.plugins.flash import flash
from litestar.response import Stream
from litestar.security.session_auth import SessionAuth
from litestar.testing import TestClient
from litestar.types import ASGIApp, Receive, Scope, Send

from sessiond_client import AsyncClient, Client, InvalidRequest, Unavailable
from sessiond_client.cookies import SessionCookie, new_sid
from sessiond_client.litestar import SessiondSessionConfig, SessionsAway, get_session, regenerate
from sessiond_client.testing import Server

Asked = Request[Any, Any, Any]
Socket = WebSocket[Any, Any, Any]
Browse = Callable[..., TestClient[Litestar]]

NAME = "__Host-session"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Server]:
    """One daemon for the tests that do not stop it."""
    with Server() as server:
        yield server


@pytest.fixture
def sessions(daemon: Server) -> Iterator[Client]:
    """That daemon as an operator sees it, empty at first."""
    with Client(daemon.url) as client:
        client.destroy_all(everyone=True)
        yield client


@pytest.fixture
def browse(daemon: Server, sessions: Client) -> Iterator[Browse]:
    """Makes a browser for an app of these handlers. `server` in place of the daemon; `around`, `within`: middleware outside and
    inside of the session's; `app`: what else the app is given; the rest goes to the configuration."""
    made: list[TestClient[Litestar]] = []

    def make(
        *handlers: Any,
        server: Server = daemon,
        around: Sequence[Any] = (),
        within: Sequence[Any] = (),
        app: dict[str, Any] | None = None,
        **options: Any,
    ) -> TestClient[Litestar]:
        client = AsyncClient(server.url)
        litestar = Litestar(
            handlers,
            middleware=[*around, SessiondSessionConfig(client, **options).middleware, *within],
            on_shutdown=[client.close],
            openapi_config=None,
            **(app or {}),
        )
        litestar.state.client = client
        made.append(TestClient(litestar, base_url="https://testserver.local", raise_server_exceptions=False))
        return made[-1].__enter__()

    yield make
    for browser in made:
        browser.__exit__()


@get("/")
async def read(request: Asked) -> dict[str, Any]:
    return request.session


@get("/untouched")
async def untouched() -> str:
    return "untouched"


@post("/set/{name:str}/{value:str}")
async def put(request: Asked) -> None:
    request.session[request.path_params["name"]] = request.path_params["value"]


def calls(browser: TestClient[Litestar]) -> int:
    client: AsyncClient = browser.app.state.client
    return client.stats.calls_sent


def cookie(browser: TestClient[Litestar]) -> dict[str, str]:
    """What a browser sends for a WebSocket too; the test client keeps secure cookies for https."""
    return {"Cookie": f"{NAME}={browser.cookies[NAME]}"}


def only(sessions: Client) -> Any:
    """The data of the one session that there is."""
    (entry,) = sessions.list(everyone=True)
    record = sessions.get(entry.key)
    assert record is not None
    return record.data


# -- the configuration --


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "__Host-session"),
        ({"secure": False}, "session"),
        ({"domain": "example.org"}, "session"),
        ({"path": "/shop"}, "session"),
        ({"key": "mine"}, "mine"),
    ],
)
def test_key(options: dict[str, Any], key: str) -> None:
    """The cookie is called what it is told, else what its other attributes allow; Litestar finds the name as `key`."""
    assert key == SessiondSessionConfig(AsyncClient("http://127.0.0.1:1"), **options).key


@pytest.mark.parametrize(
    "options",
    [
        {"key": "a b"},
        {"key": "__Host-x", "secure": False},
        {"key": "__Host-x", "domain": "example.org"},
        {"samesite": "none", "secure": False},
        {"samesite": "some"},
        {"max_age": 0},
        {"max_age": -1},
        {"ttl": 0},
        {"secret": ""},
        {"optional": ["optional"]},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    """What browsers would refuse, or what cannot be meant, is refused when the app is made, as Litestar's settings are."""
    with pytest.raises(ImproperlyConfiguredException):
        SessiondSessionConfig(AsyncClient("http://127.0.0.1:1"), **options)


def test_secret_is_not_shown() -> None:
    """The secret is not in the configuration's repr."""
    assert "keyboard" not in repr(SessiondSessionConfig(AsyncClient("http://127.0.0.1:1"), secret="keyboard cat"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Max-Age=1209600; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"max_age": 60}, "Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"max_age": None}, "Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"samesite": "strict", "httponly": False}, "Max-Age=1209600; Path=/; Secure; SameSite=Strict"),
        (
            {"domain": "testserver.local"},
            "Max-Age=1209600; Path=/; Domain=testserver.local; Secure; HttpOnly; SameSite=Lax",
        ),
    ],
)
def test_cookie(browse: Browse, options: dict[str, Any], said: str) -> None:
    """The cookie looks as the settings say."""
    answer = browse(put, **options).post("/set/a/1")

    assert said == answer.headers["set-cookie"].partition("; ")[2]


@pytest.mark.parametrize(
    ("options", "ttl"),
    [({}, 14 * 86400), ({"max_age": 60}, 60), ({"max_age": 60, "ttl": timedelta(days=2)}, 2 * 86400)],
)
def test_ttl(browse: Browse, sessions: Client, options: dict[str, Any], ttl: float) -> None:
    """A session lives as long as its cookie, unless it has a ttl of its own."""
    browse(put, **options).post("/set/a/1")

    (entry,) = sessions.list(everyone=True)
    assert entry.expires_at - entry.renewed_at == ttl * 1000


def test_excluded(browse: Browse) -> None:
    """Excluded paths, handlers that opt out, and scopes that are not named have no session and cost nothing."""

    @get("/static/a")
    async def static(request: Asked) -> bool:
        return "session" in request.scope

    @get("/health", skip_session=True)
    async def health(request: Asked) -> bool:
        return "session" in request.scope

    @websocket("/ws")
    async def ws(socket: Socket) -> None:
        await socket.accept()
        await socket.send_json("session" in socket.scope)
        await socket.close()

    browser = browse(put, static, health, ws, exclude=["^/static/"], scopes={"http"})
    browser.post("/set/a/1")
    before = calls(browser)

    assert [False, False] == [browser.get(path).json() for path in ("/static/a", "/health")]
    with browser.websocket_connect("/ws") as talk:
        assert talk.receive_json() is False
    assert before == calls(browser)


def test_not_installed(browse: Browse) -> None:
    """get_session and regenerate say what to do where the middleware does not run."""
    said = []

    @get("/", skip_session=True)
    async def ask(request: Asked) -> None:
        with pytest.raises(InvalidRequest, match="middleware") as one:
            await get_session(request)
        with pytest.raises(InvalidRequest, match="middleware"):
            regenerate(request)
        said.append(str(one.value))

    browse(ask).get("/")

    assert 1 == len(said)


# -- Litestar's own ways with a session --


@dataclass
class Basket:
    owner: str
    things: list[str]


def test_set_session(browse: Browse, sessions: Client) -> None:
    """set_session replaces the data, by a dict or a model; what is stored are plain entries; the id stays."""

    @post("/model")
    async def model(request: Asked) -> None:
        request.set_session(Basket("ada", ["lamp"]))

    @post("/dict")
    async def mapping(request: Asked) -> None:
        request.set_session({"b": 2})

    browser = browse(put, model, mapping)
    browser.post("/set/a/1")
    sid = browser.cookies[NAME]

    browser.post("/model")
    assert {"owner": "ada", "things": ["lamp"]} == only(sessions)
    browser.post("/dict")
    assert {"b": 2} == only(sessions)
    assert sid == browser.cookies[NAME]


def test_rich_values(browse: Browse, sessions: Client) -> None:
    """Values that are not plain are stored as the app's own serializer writes them; plain ones stay what they are."""

    class Odd:
        pass

    @post("/rich")
    async def rich(request: Asked) -> None:
        request.session.update(
            day=date(2026, 1, 2), id=UUID(int=7), basket=Basket("ada", []), odd=Odd(), raw=b"\x00", pair=(1, 2)
        )

    browse(rich, app={"type_encoders": {Odd: lambda _: "odd"}}).post("/rich")

    assert {
        "day": "2026-01-02",
        "id": str(UUID(int=7)),
        "basket": {"owner": "ada", "things": []},
        "odd": "odd",
        "raw": b"\x00",
        "pair": [1, 2],
    } == only(sessions)


@pytest.mark.parametrize("value", [2**70, object(), {"a": {1: object()}}], ids=["too long", "no type", "a key"])
def test_values_that_cannot_be_stored(browse: Browse, sessions: Client, value: Any) -> None:
    """They make the request fail, and nothing is sent that says otherwise: no cookie, no 2xx."""

    @post("/bad")
    async def bad(request: Asked) -> None:
        request.session["a"] = value

    answer = browse(bad).post("/bad")

    assert (500, None) == (answer.status_code, answer.headers.get("set-cookie"))
    assert 0 == sessions.count()


def test_clear_and_begin_again(browse: Browse, sessions: Client) -> None:
    """What is put in after clear_session is a new session under a new id; the old one is dead."""

    @post("/again")
    async def again(request: Asked) -> None:
        request.clear_session()
        request.set_session({"new": 1})

    @post("/again/by-handle")
    async def by_handle(request: Asked) -> None:
        request.clear_session()
        (await get_session(request))["new"] = 2

    browser = browse(put, again, by_handle)
    browser.post("/set/a/1")
    first = browser.cookies[NAME]

    browser.post("/again")
    second = browser.cookies[NAME]
    assert {"new": 1} == only(sessions)
    browser.post("/again/by-handle")

    assert {"new": 2} == only(sessions)
    assert 3 == len({first, second, browser.cookies[NAME]})


def test_clear_of_none(browse: Browse) -> None:
    """clear_session without a session makes none, and leaves a cookie whose session is not there alone."""

    @post("/clear")
    async def clear(request: Asked) -> None:
        request.clear_session()

    browser = browse(clear)

    assert "set-cookie" not in browser.post("/clear").headers
    assert "set-cookie" not in browser.post("/clear", headers={"Cookie": f"{NAME}={new_sid()}"}).headers


def test_session_id(browse: Browse) -> None:
    """get_session_id is the sid of a session that exists, and None otherwise, also for an id that is not ours."""

    @get("/id")
    async def session_id(request: Asked) -> dict[str, str | None]:
        return {"id": request.get_session_id()}

    browser = browse(put, session_id)

    assert {"id": None} == browser.get("/id", headers={"Cookie": f"{NAME}={new_sid()}"}).json()
    browser.post("/set/a/1")
    assert {"id": browser.cookies[NAME]} == browser.get("/id").json()


def test_flash(browse: Browse, sessions: Client) -> None:
    """Messages of Litestar's flash plugin, which appends inside of a value, are kept."""

    @post("/flash/{text:str}")
    async def say(request: Asked) -> None:
        flash(request, request.path_params["text"], "info")

    browser = browse(say)
    browser.post("/flash/one")
    browser.post("/flash/two")

    assert ["one", "two"] == [each["message"] for each in only(sessions)["_messages"]]


def test_session_auth(browse: Browse, sessions: Client, daemon: Server) -> None:
    """SessionAuth takes the configuration: strangers get a 401 and no session, a login is indexed, a logout ends it."""

    async def retrieve(session: dict[str, Any], _: Any) -> str | None:
        return session.get("user_id")

    @post("/login", exclude_from_auth=True)
    async def login(request: Asked) -> None:
        request.set_session({"user_id": "ada"})

    @get("/me")
    async def me(request: Asked) -> str:
        name: str = request.user
        return name

    @post("/logout")
    async def logout(request: Asked) -> None:
        request.clear_session()

    client = AsyncClient(daemon.url)
    config = SessiondSessionConfig(client, user=lambda session: session.get("user_id"))
    auth = SessionAuth[str, Any](retrieve_user_handler=retrieve, session_backend_config=config)
    app = Litestar([login, me, logout], on_app_init=[auth.on_app_init], on_shutdown=[client.close])
    with TestClient(app, base_url="https://testserver.local") as browser:
        stranger = browser.get("/me")
        assert (401, None, 0) == (stranger.status_code, stranger.headers.get("set-cookie"), sessions.count())

        browser.post("/login")
        assert "ada" == browser.get("/me").text
        assert 1 == sessions.count(user="ada")

        browser.post("/logout")
        assert (401, 0) == (browser.get("/me").status_code, sessions.count())


def test_around(browse: Browse) -> None:
    """Middleware around the session's sees what the handler has made of it, as with Litestar's own."""
    seen = []

    def around(app: ASGIApp) -> ASGIApp:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)
            seen.append(scope["session"])

        return call

    @post("/replace")
    async def replace(request: Asked) -> None:
        request.set_session({"b": 2})

    browser = browse(put, replace, around=[around])
    browser.post("/set/a/1")
    browser.post("/replace")

    assert [{"a": "1"}, {"b": 2}] == seen


def test_copied_scope(browse: Browse, sessions: Client) -> None:
    """A change is saved also where middleware inside of the session's hands on a copy of its scope."""

    def copying(app: ASGIApp) -> ASGIApp:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope}, receive, send)  # type: ignore[arg-type]

        return call

    browser = browse(put, read, within=[copying])
    browser.post("/set/a/1")
    browser.post("/set/b/2")

    assert {"a": "1", "b": "2"} == only(sessions) == browser.get("/").json()


@pytest.mark.parametrize("options", [{}, {"lazy": True}, {"secret": "keyboard cat"}], ids=str)
def test_test_client(daemon: Server, sessions: Client, options: dict[str, Any]) -> None:
    """Litestar's test client can prepare a session for a request, and look at what it has become."""
    client = AsyncClient(daemon.url)
    config = SessiondSessionConfig(client, **options)

    @get("/count")
    async def count(request: Asked) -> int:
        session = await get_session(request)
        session["n"] += 1
        number: int = session["n"]
        return number

    app = Litestar([count], middleware=[config.middleware], on_shutdown=[client.close])
    with TestClient(app, base_url="https://testserver.local", session_config=config) as browser:
        assert {} == browser.get_session_data()
        browser.set_session_data({"n": 1})

        assert 2 == browser.get("/count").json()
        assert {"n": 2} == browser.get_session_data()
        browser.set_session_data({"n": 5})
        assert 6 == browser.get("/count").json()
        assert 1 == sessions.count()


# -- lazy --


def test_lazy(browse: Browse) -> None:
    """A lazy session that nobody awaits costs nothing, and says so when it is looked at; afterwards it is a dict."""
    said = []

    @get("/early")
    async def early(request: Asked) -> None:
        with pytest.raises(InvalidRequest, match="await get_session") as error:
            request.session.get("a")
        said.append(str(error.value))

    @get("/late")
    async def late(request: Asked) -> dict[str, Any]:
        await get_session(request)
        await get_session(request)
        return request.session

    @post("/put")
    async def change(request: Asked) -> None:
        (await get_session(request))["a"] = 1

    browser = browse(early, late, untouched, change, lazy=True)
    browser.post("/put")
    before = calls(browser)

    assert "untouched" == browser.get("/untouched").text
    browser.get("/early")
    assert (1, before) == (len(said), calls(browser))
    assert {"a": 1} == browser.get("/late").json()
    assert before + 1 == calls(browser)


def test_lazy_unread(browse: Browse, sessions: Client) -> None:
    """A lazy session can be moved, ended and replaced without being read; what is replaced ends."""

    @post("/move")
    async def move(request: Asked) -> None:
        regenerate(request)

    @post("/replace")
    async def replace(request: Asked) -> None:
        request.set_session({"b": 2})

    @post("/end")
    async def end(request: Asked) -> None:
        request.clear_session()

    @post("/put")
    async def change(request: Asked) -> None:
        (await get_session(request))["a"] = 1

    browser = browse(change, move, replace, end, lazy=True)
    browser.post("/put")
    sids = [browser.cookies[NAME]]
    browser.post("/move")
    sids.append(browser.cookies[NAME])
    assert {"a": 1} == only(sessions)
    browser.post("/replace")
    sids.append(browser.cookies[NAME])
    assert {"b": 2} == only(sessions)

    browser.post("/end")

    assert 3 == len(set(sids))
    assert (0, None) == (sessions.count(), browser.cookies.get(NAME))


# -- the end of a request --


def test_regenerate(browse: Browse, sessions: Client) -> None:
    """regenerate moves a session that is otherwise left alone, and one that is changed too."""

    @post("/move")
    async def move(request: Asked) -> None:
        regenerate(request)

    @post("/move/{value:str}")
    async def move_and_change(request: Asked) -> None:
        regenerate(request)
        request.session["a"] = request.path_params["value"]

    browser = browse(put, move, move_and_change)
    browser.post("/set/a/1")
    sids = {browser.cookies[NAME]}
    browser.post("/move")
    sids.add(browser.cookies[NAME])
    browser.post("/move/2")
    sids.add(browser.cookies[NAME])

    assert 3 == len(sids)
    assert {"a": "2"} == only(sessions)


def test_rolling(browse: Browse) -> None:
    """A rolling cookie comes again with each use of its session, and only then."""
    browser = browse(put, read, untouched, rolling=True)
    browser.post("/set/a/1")

    assert browser.cookies[NAME] in browser.get("/").headers["set-cookie"]
    assert "set-cookie" not in browser.get("/untouched").headers


def test_older_secret(browse: Browse) -> None:
    """A cookie that an older secret has signed is taken, and sent again under the first one; a forged one is not."""
    browser = browse(put, read, secret="old")
    browser.post("/set/a/1")
    old, sid = browser.cookies[NAME], browser.cookies[NAME]
    newer = browse(read, secret=["new", "old"])

    answer = newer.get("/", headers={"Cookie": f"{NAME}={old}"})
    forged = newer.get("/", headers={"Cookie": SessionCookie(secret="wrong").header(new_sid()).partition(";")[0]})

    assert {"a": "1"} == answer.json()
    assert answer.headers["set-cookie"].startswith(f"{NAME}=s%3A")
    assert sid not in answer.headers["set-cookie"]
    assert ({}, None) == (forged.json(), forged.headers.get("set-cookie"))


def test_headers_of_the_app(browse: Browse) -> None:
    """What the app says about caching stays; Vary is added to, not replaced."""

    @post("/")
    async def both(request: Asked) -> Response[None]:
        request.session["a"] = 1
        return Response(None, headers={"Vary": "Accept", "Cache-Control": "private"})

    answer = browse(both).post("/")

    assert "private" == answer.headers["cache-control"]
    assert ["Accept", "Cookie"] == sorted(answer.headers["vary"].replace(" ", "").split(","))


def test_stream(browse: Browse, sessions: Client) -> None:
    """What changes while a response streams is saved at its end, in a session that was there; none can begin."""

    @get("/stream")
    async def stream(request: Asked) -> Stream:
        async def parts() -> AsyncIterator[str]:
            yield "a"
            request.session["streamed"] = 1
            yield "b"

        return Stream(parts())

    browser = browse(put, stream)

    assert ("ab", 0) == (browser.get("/stream").text, sessions.count())
    browser.post("/set/a/1")
    assert "ab" == browser.get("/stream").text
    assert {"a": "1", "streamed": 1} == only(sessions)


def test_background_task(browse: Browse, sessions: Client) -> None:
    """What a background task changes is saved too, and does not undo a session that the handler has begun anew."""

    @post("/task")
    async def start(request: Asked) -> Response[None]:
        async def work() -> None:
            request.session["worked"] = 1

        request.clear_session()
        request.set_session({"new": 1})
        return Response(None, background=BackgroundTask(work))

    browser = browse(put, start)
    browser.post("/set/a/1")

    browser.post("/task")

    assert {"new": 1, "worked": 1} == only(sessions)
    assert sessions.get(browser.cookies[NAME]) is not None


# -- WebSockets --


def test_websocket_save(browse: Browse, sessions: Client) -> None:
    """A WebSocket's handler may save in the midst."""

    @websocket("/ws")
    async def ws(socket: Socket) -> None:
        session = await get_session(socket)
        await socket.accept()
        socket.session["a"] = await socket.receive_text()
        await session.save()
        await socket.send_text("saved")
        with pytest.raises(WebSocketDisconnect):
            await socket.receive_text()

    browser = browse(put, ws)
    browser.post("/set/a/1")

    with browser.websocket_connect("/ws", headers=cookie(browser)) as talk:
        talk.send_text("2")
        assert "saved" == talk.receive_text()
        assert {"a": "2"} == only(sessions)


def test_websocket_that_fails(browse: Browse, sessions: Client) -> None:
    """What a WebSocket's handler has changed before it failed is not saved, and no session begins in one."""

    @websocket("/fail")
    async def fail(socket: Socket) -> None:
        await socket.accept()
        socket.session["a"] = 2
        raise RuntimeError

    @websocket("/begin")
    async def begin(socket: Socket) -> None:
        await socket.accept()
        socket.session["a"] = 2
        await (await get_session(socket)).save()
        await socket.close()

    browser = browse(put, fail, begin)
    with browser.websocket_connect("/begin") as talk, pytest.raises(WebSocketDisconnect):
        talk.receive_text()
    assert 0 == sessions.count()
    browser.post("/set/a/1")

    with browser.websocket_connect("/fail", headers=cookie(browser)) as talk, pytest.raises(WebSocketDisconnect):
        talk.receive_text()

    assert {"a": "1"} == only(sessions)


# -- the daemon away --


@pytest.mark.parametrize("stops", ["before", "within"])
def test_unavailable(browse: Browse, sessiond_server: Server, stops: str) -> None:
    """Without a handler for it the browser gets a 503 that says when to come again, also when only saving was too late."""

    @post("/stop")
    async def stop(request: Asked) -> None:
        request.session["a"] = 2
        sessiond_server.stop()

    browser = browse(put, read, stop, server=sessiond_server)
    browser.post("/set/a/1")
    if stops == "before":
        sessiond_server.stop()

    answer = browser.get("/") if stops == "before" else browser.post("/stop")

    assert 503 == answer.status_code
    assert ("1", "no-store") == (answer.headers["retry-after"], answer.headers["cache-control"])
    assert "set-cookie" not in answer.headers
    assert "sessions are away" in answer.json()["detail"]


@pytest.mark.parametrize("stops", ["before", "within"])
@pytest.mark.parametrize("kind", [Unavailable, SessionsAway, 503])
def test_unavailable_handled(browse: Browse, sessiond_server: Server, stops: str, kind: Any) -> None:
    """The app's exception handlers get it, by either name or by status, from the start of a request and from its end."""

    @post("/stop")
    async def stop(request: Asked) -> None:
        request.session["a"] = 2
        if stops == "within":
            sessiond_server.stop()

    handlers = {kind: lambda _, error: Response(type(error).__name__, status_code=418, media_type="text/plain")}
    browser = browse(put, stop, server=sessiond_server, app={"exception_handlers": handlers})
    browser.post("/set/a/1")
    if stops == "before":
        sessiond_server.stop()

    answer = browser.post("/stop")

    assert (418, "SessionsAway", None) == (answer.status_code, answer.text, answer.headers.get("set-cookie"))


def test_optional(browse: Browse, sessiond_server: Server) -> None:
    """An optional path goes on with an empty session, and what it puts there is not stored."""
    browser = browse(put, read, server=sessiond_server, optional=["/", "/set/*"])
    browser.post("/set/a/1")
    sessiond_server.stop()

    read_, made = browser.get("/"), browser.post("/set/b/2")

    assert (200, {}, 201) == (read_.status_code, read_.json(), made.status_code)
    assert [None, None] == [each.headers.get("set-cookie") for each in (read_, made)]
    sessiond_server.start()
    assert {"a": "1"} == browser.get("/").json()


def test_an_error_after_a_move(browse: Browse, sessions: Client) -> None:
    """A session that the app has moved is told to the browser with an error too, since its old id is dead."""

    @post("/fail", status_code=500)
    async def fail(request: Asked) -> None:
        await (await get_session(request)).rotate()

    browser = browse(put, read, fail)
    browser.post("/set/a/1")

    assert 500 == browser.post("/fail").status_code
    assert {"a": "1"} == browser.get("/").json()


def test_a_late_logout(browse: Browse, sessions: Client) -> None:
    """A session that the app clears in the midst of a stream is ended; one that is to move then keeps its id."""

    @get("/out")
    async def out(request: Asked) -> Stream:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a"
            request.clear_session()

        return Stream(parts())

    @get("/move")
    async def move(request: Asked) -> Stream:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a"
            regenerate(request)

        return Stream(parts())

    browser = browse(put, read, out, move)
    browser.post("/set/a/1")

    browser.get("/move")
    assert {"a": "1"} == browser.get("/").json()
    browser.get("/out")
    assert 0 == sessions.count()


def test_no_logout_is_optional(browse: Browse, sessiond_server: Server) -> None:
    """A logout that did not reach the daemon is never answered as if it had, on a path that may lack its session either."""

    @post("/out")
    async def out(request: Asked) -> None:
        request.clear_session()

    browser = browse(put, out, server=sessiond_server, optional=["/out"])
    browser.post("/set/a/1")
    sessiond_server.kill()

    answer = browser.post("/out")

    assert (503, []) == (answer.status_code, answer.headers.get_list("Set-Cookie"))
