"""What is Starlette's and FastAPI's own: the dict, the arguments of the stock middleware, streams, tasks, WebSockets."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import Secret
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from sessiond_client import AsyncClient, InvalidRequest, Unavailable
from sessiond_client.cookies import new_sid
from sessiond_client.starlette import MAX_AGE, Session, SessionMiddleware, load_session
from sessiond_client.testing import Server

from .asgi import Visitor

SECRET = "keyboard cat"
COOKIE = "__Host-session"


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


async def view(request: Request) -> Response:
    return JSONResponse(request.session)


async def add(request: Request) -> Response:
    request.session[request.path_params["name"]] = "set"
    return JSONResponse(request.session)


async def clear(request: Request) -> Response:
    request.session.clear()
    return JSONResponse(request.session)


async def ignore(request: Request) -> Response:
    return PlainTextResponse("ignored")


def site(client: AsyncClient, *routes: Route | Mount | WebSocketRoute, **arguments: Any) -> Starlette:
    """An app with the routes of Starlette's own tests, and these."""
    return Starlette(
        middleware=[Middleware(SessionMiddleware, client=client, **{"secret_key": SECRET, **arguments})],
        routes=[
            Route("/view", view),
            Route("/add/{name}", add),
            Route("/clear", clear),
            Route("/ignore", ignore),
            *routes,
        ],
    )


async def stored(client: AsyncClient) -> dict[str, Any]:
    """The data of the one session that there is."""
    (entry,) = await client.list(everyone=True)
    record = await client.get(entry.key)
    assert record is not None
    data: dict[str, Any] = record.data
    return data


# -- the stock middleware's arguments --


async def test_session(client: AsyncClient) -> None:
    """Starlette's own first test: what is set is there until it is cleared, and a cookie that is taken away stays away."""
    visitor = Visitor(site(client))

    assert {} == (await visitor.get("/view")).json
    assert {"a": "set"} == (await visitor.get("/add/a")).json
    assert {"a": "set", "b": "set"} == (await visitor.get("/add/b")).json
    assert {"a": "set", "b": "set"} == (await visitor.get("/view")).json
    assert {} == (await visitor.get("/clear")).json
    assert {} == visitor.cookies
    assert {} == (await visitor.get("/view")).json
    assert 0 == await client.count()


@pytest.mark.parametrize(
    ("arguments", "name", "attributes"),
    [
        ({}, "__Host-session", {"Max-Age=1209600", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"}),
        ({"max_age": None}, "__Host-session", {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"}),
        (
            {"session_cookie": "sid", "max_age": 60},
            "sid",
            {"Max-Age=60", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"},
        ),
        ({"https_only": False, "max_age": None}, "session", {"Path=/", "HttpOnly", "SameSite=Lax"}),
        (
            {"path": "/shop", "same_site": "strict", "max_age": None},
            "session",
            {"Path=/shop", "Secure", "HttpOnly", "SameSite=Strict"},
        ),
        (
            {"domain": "example.com", "same_site": "none", "partitioned": True, "max_age": None},
            "session",
            {"Path=/", "Domain=example.com", "Secure", "HttpOnly", "SameSite=None", "Partitioned"},
        ),
    ],
    ids=str,
)
async def test_cookie(client: AsyncClient, arguments: dict[str, Any], name: str, attributes: set[str]) -> None:
    """Each argument of Starlette's own middleware does what it says there; what none says is strict."""
    (cookie,) = (await Visitor(site(client, **arguments)).get("/add/a")).cookies

    head, *rest = cookie.split("; ")
    assert (name, attributes) == (head.partition("=")[0], set(rest))


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_age": 0},
        {"max_age": -1},
        {"same_site": "none", "https_only": False},
        {"session_cookie": "__Host-x", "path": "/x"},
        {"secret_key": ""},
        {"exclude": ["health"]},
    ],
    ids=str,
)
async def test_refused_arguments(client: AsyncClient, arguments: dict[str, Any]) -> None:
    """What could not work raises when the app is built, not in a browser."""
    with pytest.raises(InvalidRequest):
        SessionMiddleware(site(client), **{"secret_key": SECRET, "client": client, **arguments})


@pytest.mark.parametrize(("key", "signed"), [(SECRET, True), (Secret(SECRET), True), (None, False)], ids=repr)
async def test_secret_key(client: AsyncClient, key: Any, signed: bool) -> None:
    """The key may be Starlette's `Secret`, which Config gives; without one the cookie is the bare sid."""
    visitor = Visitor(site(client, secret_key=key))
    await visitor.get("/add/a")

    assert signed == visitor.cookies[COOKIE].startswith("s%3A")
    assert {"a": "set"} == (await visitor.get("/view")).json


async def test_another_secret_key(client: AsyncClient) -> None:
    """A cookie that an older key has signed is good, and is signed anew; one of a foreign key is nobody's."""
    visitor = Visitor(site(client, secret_key="old"))
    await visitor.get("/add/a")
    before = visitor.cookies[COOKIE]

    visitor.app = site(client, secret_key=[Secret("new"), "old"])
    assert {"a": "set"} == (await visitor.get("/view")).json
    assert before != visitor.cookies[COOKIE]
    visitor.app = site(client, secret_key="foreign")
    assert {} == (await visitor.get("/view")).json


@pytest.mark.parametrize(
    ("arguments", "ttl"),
    [({}, 77), ({"max_age": MAX_AGE}, 77), ({"max_age": None}, 77), ({"max_age": 60}, 60), ({"ttl": 30}, 30)],
    ids=str,
)
async def test_ttl(arguments: dict[str, Any], ttl: int) -> None:
    """A session lives as long as its cookie when that is chosen; when nothing is, as the namespace says."""
    with Server(options=["--ttl", "77"]) as server:
        async with AsyncClient(server.url) as client:
            await Visitor(site(client, **arguments)).get("/add/a")

            (entry,) = await client.list(everyone=True)

    assert ttl * 1000 == entry.expires_at - entry.renewed_at


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [({}, [0, 0, 1, 0]), ({"rolling": True}, [0, 1, 1, 1]), ({"max_age": None}, [0, 0, 0, 0])],
    ids=str,
)
async def test_when_the_cookie_is_sent_again(client: AsyncClient, arguments: dict[str, Any], sent: list[int]) -> None:
    """A cookie with an age is sent again by responses that change the session; `rolling`, by all that look at it."""
    visitor = Visitor(site(client, **arguments))
    await visitor.get("/add/a")

    counted = [len((await visitor.get(path)).cookies) for path in ("/ignore", "/view", "/add/b", "/add/b")]

    assert sent == counted


async def test_a_save_by_hand_counts(client: AsyncClient) -> None:
    """A change that the app has saved itself sends the cookie again like any other."""

    async def save(request: Request) -> Response:
        session = await load_session(request)
        session["saved"] = 1
        await session.save()
        return JSONResponse({})

    visitor = Visitor(site(client, Route("/save", save)))
    await visitor.get("/add/a")

    assert [1, 0] == [len((await visitor.get("/save")).cookies) for _ in range(2)]


# -- the dict --


def guarded() -> list[str]:
    """The methods by which a dict can be looked at or changed."""
    building = {"__init__", "__new__", "__getattribute__", "__class_getitem__", "fromkeys", "__repr__", "__sizeof__"}
    compared = {"__hash__", "__ge__", "__gt__", "__le__", "__lt__", "__doc__", "__init_subclass__"}
    return sorted(set(vars(dict)) - building - compared)


@pytest.mark.parametrize("name", guarded())
async def test_every_way_in(client: AsyncClient, name: str) -> None:
    """There is no way into the dict that does not see whether it is loaded, and that is not noticed."""
    arguments = {
        **dict.fromkeys(("__setitem__", "setdefault"), ("a", 1)),
        **dict.fromkeys(("__eq__", "__ne__", "__or__", "__ror__", "__ior__", "update"), ({"a": 1},)),
        **dict.fromkeys(("__iter__", "__len__", "__reversed__", "clear", "copy", "items", "keys", "values"), ()),
        "popitem": (),
    }.get(name, ("a",))
    session = Session(client, None)
    with pytest.raises(InvalidRequest, match="load_session"):
        getattr(session, name)(*arguments)
    await session.load()
    session.accessed = False
    dict.update(session, a=0)

    getattr(session, name)(*arguments)

    assert session.accessed


async def test_a_dict_in_earnest(client: AsyncClient) -> None:
    """It is a dict to all that ask for one: JSON, unpacking, comparing, joining."""
    session = Session(client, None)
    await session.load()

    session.update(a=1)
    session |= {"b": 2}

    assert isinstance(session, dict)
    assert '{"a": 1, "b": 2}' == json.dumps(session)
    assert {"a": 1, "b": 2} == {**session} == dict(session) == session == session.copy()
    assert {"a": 1, "b": 2, "c": 3} == session | {"c": 3}
    assert ["a", "b"] == list(session)


async def test_repr_names_no_value(client: AsyncClient) -> None:
    """What a log may get to see are names."""
    session = Session(client, None)
    assert "<Session new: not loaded>" == repr(session)
    await session.load()
    session["card"] = "4111"

    assert "<Session new: 'card'>" == repr(session)


async def test_user(client: AsyncClient) -> None:
    """`user` is found without `user=`, and goes when the session is cleared, even if something is put in again."""

    async def login(request: Request) -> Response:
        (await load_session(request)).user = "ada"
        return PlainTextResponse("")

    async def leave(request: Request) -> Response:
        request.session.clear()
        request.session["flash"] = "bye"
        return PlainTextResponse("")

    visitor = Visitor(site(client, Route("/login", login), Route("/leave", leave)))
    await visitor.get("/add/a")
    await visitor.get("/login")
    assert 1 == await client.count(user="ada")
    before = visitor.cookies[COOKIE]

    await visitor.get("/leave")

    assert [0, 1] == [await client.count(user="ada"), await client.count()]
    assert {"flash": "bye"} == (await visitor.get("/view")).json
    assert before != visitor.cookies[COOKIE]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ((1, 2), [1, 2]),
        ({1: {2.5: None}}, {"1": {"2.5": None}}),
        (float("inf"), float("inf")),
        (b"bytes", b"bytes"),
        ({"deep": [b"bytes"]}, {"deep": [b"bytes"]}),
    ],
    ids=repr,
)
async def test_plain_values(client: AsyncClient, value: Any, kept: Any) -> None:
    """Values are stored as Starlette's own middleware gives them back; bytes, which it refuses, as they are."""

    async def put(request: Request) -> Response:
        request.session["value"] = value
        return PlainTextResponse("")

    await Visitor(site(client, Route("/put", put))).get("/put")

    assert {"value": kept} == await stored(client)


@pytest.mark.parametrize("value", [datetime.now(UTC), {1, 2}, 2**70, "\ud800"], ids=lambda value: type(value).__name__)
async def test_foreign_values(client: AsyncClient, value: Any) -> None:
    """What cannot be stored raises before the response begins."""

    async def put(request: Request) -> Response:
        request.session["value"] = value
        return PlainTextResponse("")

    visitor = Visitor(site(client, Route("/put", put)))
    with pytest.raises(InvalidRequest):
        await visitor.get("/put")

    assert 500 == visitor.sent[0]["status"]
    assert 0 == await client.count()


async def test_entries_of_others(client: AsyncClient) -> None:
    """What an app in another language has stored beside ours stays as it is, though JSON has no bytes."""

    async def put(request: Request) -> Response:
        request.session["ours"] = 1
        return PlainTextResponse("")

    visitor = Visitor(site(client, Route("/put", put), secret_key=None))
    visitor.cookies[COOKIE] = await client.create({"theirs": b"\x00\xff"})

    await visitor.get("/put")

    assert {"theirs": b"\x00\xff", "ours": 1} == await stored(client)


async def test_opaque_session(client: AsyncClient) -> None:
    """A session of opaque bytes raises when the app looks at it, not before."""
    visitor = Visitor(site(client, secret_key=None))
    visitor.cookies[COOKIE] = await client.create(b"opaque")

    assert "ignored" == (await visitor.get("/ignore")).text
    with pytest.raises(InvalidRequest, match="opaque"):
        await visitor.get("/view")


# -- where there is a session --


async def test_exclude(client: AsyncClient) -> None:
    """An excluded path costs no call and has no session, under the name that the app's routes have for it."""
    app = site(client, exclude=["/ignore", "/view"])
    visitor = Visitor(app, root_path="/shop")
    await visitor.get("/shop/add/a")
    before = client.stats.calls_sent

    assert "ignored" == (await visitor.get("/shop/ignore")).text
    assert before == client.stats.calls_sent
    with pytest.raises(AssertionError, match="SessionMiddleware must be installed"):
        await visitor.get("/shop/view")


async def test_no_middleware() -> None:
    """Without the middleware, load_session says what is missing."""
    with pytest.raises(InvalidRequest, match="SessionMiddleware"):
        await load_session(HTTPConnection({"type": "http", "session": {}}))


async def test_lifespan(client: AsyncClient) -> None:
    """What is neither a request nor a WebSocket passes through."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    await SessionMiddleware(app, client=client)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    assert [{"type": "lifespan"}] == seen


async def test_mount(client: AsyncClient) -> None:
    """A mounted app has the same session."""
    inner = Starlette(routes=[Route("/add/{name}", add)])
    visitor = Visitor(site(client, Mount("/inner", inner)))

    await visitor.get("/inner/add/a")

    assert {"a": "set"} == (await visitor.get("/view")).json


@pytest.mark.parametrize("outside", [True, False])
async def test_another_middleware(client: AsyncClient, outside: bool) -> None:
    """Starlette's BaseHTTPMiddleware, which runs the app in a task of its own, may stand on either side."""

    class Other(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Callable[[Request], Any]) -> Response:
            response: Response = await call_next(request)
            if not outside:
                request.session["other"] = "set"
            return response

    ours = Middleware(SessionMiddleware, client=client)
    middleware = [Middleware(Other), ours] if outside else [ours, Middleware(Other)]
    visitor = Visitor(Starlette(routes=[Route("/add/{name}", add)], middleware=middleware))

    await visitor.get("/add/a")

    assert {"a": "set", **({} if outside else {"other": "set"})} == await stored(client)


async def test_lazy(client: AsyncClient) -> None:
    """A lazy session is read when the app asks for it, once; before that, looking at it raises."""

    async def twice(request: Request) -> Response:
        first, second = await load_session(request), await load_session(request)
        return JSONResponse([first is second, first])

    visitor = Visitor(site(client, Route("/twice", twice), lazy=True, secret_key=None))
    visitor.cookies[COOKIE] = await client.create({"a": 1})
    before = client.stats.calls_sent

    assert [True, {"a": 1}] == (await visitor.get("/twice")).json
    assert 1 == client.stats.calls_sent - before
    for path in ("/view", "/add/b", "/clear"):
        with pytest.raises(InvalidRequest, match="load_session"):
            await visitor.get(path)


async def test_vary(client: AsyncClient) -> None:
    """Vary is said once, whatever the app says there already."""

    async def told(request: Request) -> Response:
        return JSONResponse(dict(request.session), headers={"Vary": request.path_params["vary"]})

    visitor = Visitor(site(client, Route("/{vary}", told)))

    for vary, expected in (("Accept", ["Accept", "Cookie"]), ("cookie", ["cookie"]), ("*", ["*"])):
        assert expected == (await visitor.get(f"/{vary}")).all("vary")


# -- what goes on after the answer has begun --


async def test_stream_and_background(client: AsyncClient) -> None:
    """What a streaming response and a background task change is saved, the stream's before its last byte is out."""
    seen = []

    async def stream(request: Request) -> Response:
        session = request.session

        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            session["streamed"] = 1
            yield b"last"

        async def later() -> None:
            seen.append(await stored(client))
            session["afterwards"] = 1

        return StreamingResponse(parts(), background=BackgroundTask(later))

    visitor = Visitor(site(client, Route("/stream", stream)))
    await visitor.get("/add/a")

    await visitor.get("/stream")

    assert [{"a": "set", "streamed": 1}] == seen
    assert {"a": "set", "streamed": 1, "afterwards": 1} == await stored(client)


async def test_too_late_for_a_cookie(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """After the answer has begun no session begins, and none moves: the browser could not be told."""
    raised = []

    async def late(request: Request) -> Response:
        session = await load_session(request)

        async def later() -> None:
            await session.save()  # there is nothing in it
            session["late"] = 1
            for attempt in (session.rotate, session.save):
                try:
                    await attempt()
                except InvalidRequest as error:
                    raised.append(str(error))

        return PlainTextResponse("", background=BackgroundTask(later))

    with caplog.at_level(logging.WARNING, "sessiond_client"):
        reply = await Visitor(site(client, Route("/late", late))).get("/late")

    assert [] == reply.cookies
    assert 2 == len(raised)
    assert 1 == caplog.text.count("a session begun after the response had started is dropped")
    assert 0 == await client.count()


async def test_failed_answer_saves_nothing_later(client: AsyncClient) -> None:
    """What a background task of a 500 changes is dropped like the rest."""

    async def fail(request: Request) -> Response:
        return PlainTextResponse("", 500, background=BackgroundTask(request.session.update, {"late": 1}))

    visitor = Visitor(site(client, Route("/fail", fail)))
    await visitor.get("/add/a")

    await visitor.get("/fail")

    assert {"a": "set"} == await stored(client)


async def test_logged_out_meanwhile(client: AsyncClient) -> None:
    """A background task after a logout elsewhere revives nothing and raises nothing."""

    async def late(request: Request) -> Response:
        session = request.session

        async def later() -> None:
            await client.destroy_all(everyone=True)
            session["late"] = 1

        return JSONResponse(session, background=BackgroundTask(later))

    visitor = Visitor(site(client, Route("/late", late)))
    await visitor.get("/add/a")

    assert {"a": "set"} == (await visitor.get("/late")).json
    assert 0 == await client.count()


async def test_lost_once(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """A session that ended before the answer is not tried again after it."""

    async def late(request: Request) -> Response:
        request.session["late"] = 1
        await client.destroy_all(everyone=True)
        return JSONResponse({})

    visitor = Visitor(site(client, Route("/late", late)))
    await visitor.get("/add/a")

    with caplog.at_level(logging.INFO, "sessiond_client"):
        reply = await visitor.get("/late")

    assert (200, []) == (reply.status, reply.cookies)
    assert 1 == caplog.text.count("ended elsewhere")


async def test_late_login(client: AsyncClient) -> None:
    """A login after the answer has begun is saved, under the id that the browser has."""

    async def login(request: Request) -> Response:
        session = await load_session(request)
        return JSONResponse({}, background=BackgroundTask(setattr, session, "user", "ada"))

    visitor = Visitor(site(client, Route("/login", login)))
    await visitor.get("/add/a")

    await visitor.get("/login")

    assert 1 == await client.count(user="ada")
    assert {"a": "set"} == (await visitor.get("/view")).json


# -- WebSockets --


async def early(socket: WebSocket) -> None:
    """Begins a session before it accepts."""
    socket.session["early"] = 1
    await socket.accept()
    async for text in socket.iter_text():
        socket.session[text] = 1


async def test_websocket_begins_a_session(client: AsyncClient) -> None:
    """What is set before the WebSocket is accepted gets its cookie with the acceptance."""
    visitor = Visitor(site(client, WebSocketRoute("/early", early)))

    accepted = await visitor.chat("/early", "said")

    assert (101, 1) == (accepted.status, len(accepted.cookies))
    assert {"early": 1, "said": 1} == (await visitor.get("/view")).json


async def test_websocket_too_late(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """What is set afterwards begins no session."""

    async def late(socket: WebSocket) -> None:
        await socket.accept()
        socket.session["late"] = 1

    with caplog.at_level(logging.WARNING, "sessiond_client"):
        await Visitor(site(client, WebSocketRoute("/late", late))).chat("/late")

    assert 0 == await client.count()
    assert "dropped" in caplog.text


async def test_websocket_saves(client: AsyncClient) -> None:
    """A handler saves whenever it awaits `save`, and is saved before it closes."""
    seen = []

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        session = await load_session(socket)
        session["talk"] = 1
        await session.save()
        seen.append(await stored(client))
        session["talk"] = 2
        await socket.close()
        seen.append(await stored(client))

    visitor = Visitor(site(client, WebSocketRoute("/talk", talk)))
    await visitor.get("/add/a")

    await visitor.chat("/talk")

    assert [{"a": "set", "talk": 1}, {"a": "set", "talk": 2}] == seen


async def test_websocket_that_fails(client: AsyncClient) -> None:
    """What a handler changed before it failed is not saved."""

    async def fail(socket: WebSocket) -> None:
        await socket.accept()
        socket.session["fail"] = 1
        raise ZeroDivisionError

    visitor = Visitor(site(client, WebSocketRoute("/fail", fail)))
    await visitor.get("/add/a")

    with pytest.raises(ZeroDivisionError):
        await visitor.chat("/fail")

    assert {"a": "set"} == await stored(client)


# -- what the docs say --


async def test_docs(client: AsyncClient, monkeypatch: pytest.MonkeyPatch, daemon: Server) -> None:
    """The app in docs/adapters.md runs as it stands."""
    monkeypatch.setenv("SESSIOND_URL", daemon.url)
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("## Starlette and FastAPI")[2].partition("```python")[2].partition("```")[0], names)
    visitor = Visitor(names["app"])

    views = [(await visitor.get("/")).json for _ in range(2)]
    await visitor.ask("POST", "/login")
    ended = (await visitor.ask("POST", "/logout-everywhere")).json
    again = (await visitor.get("/")).json
    await names["client"].close()

    assert ([1, 2], 1, 1) == (views, ended, again)


def test_docs_name_every_argument() -> None:
    """Each argument of the middleware stands in the table of docs/adapters.md, and nothing else does."""
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    section = page.partition("## Starlette and FastAPI")[2].partition("\n## ")[0]
    rows = [name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)]

    assert sorted({*inspect.signature(SessionMiddleware).parameters} - {"app", "client"}) == sorted(rows)


# -- while the daemon is away --


@pytest.fixture
async def away() -> AsyncIterator[AsyncClient]:
    """A client whose daemon has gone."""
    with Server() as server:
        client = AsyncClient(server.url, deadline=0.2)
    yield client
    await client.close()


@pytest.mark.parametrize("handles", [True, False])
async def test_away(away: AsyncClient, handles: bool) -> None:
    """The app is told when it looks at its session, and may handle it; what does not look goes on; no cookie goes."""
    app = site(away, secret_key=None, optional=["/add/*"])
    if handles:
        app.add_exception_handler(Unavailable, lambda request, error: PlainTextResponse("handled", 503))
    visitor = Visitor(app)
    visitor.cookies[COOKIE] = new_sid()

    replies = [await visitor.get(path) for path in ("/ignore", "/view", "/add/b")]

    said = "handled" if handles else "The sessions are away for a moment; try again.\n"
    assert [(200, "ignored"), (503, said), (200, '{"b":"set"}')] == [(r.status, r.text) for r in replies]
    assert [[], [], []] == [reply.cookies for reply in replies]


@pytest.mark.parametrize("handles", [True, False])
async def test_away_at_the_save(away: AsyncClient, handles: bool) -> None:
    """A session that cannot be saved is a 503 before the answer begins, though Starlette could not handle that any more."""
    app = site(away)
    if handles:
        app.add_exception_handler(Unavailable, lambda request, error: PlainTextResponse("handled", 503))

    reply = await Visitor(app).get("/add/b")

    assert (503, ["1"], ["no-store"], []) == (
        reply.status,
        reply.all("retry-after"),
        reply.all("cache-control"),
        reply.cookies,
    )


async def test_on_unavailable(away: AsyncClient) -> None:
    """The app may have an answer of its own."""

    async def sorry(request: Request, error: Unavailable) -> Response:
        return PlainTextResponse(f"sorry, {request.url.path}", 503)

    reply = await Visitor(site(away, on_unavailable=sorry)).get("/add/b")

    assert (503, "sorry, /add/b") == (reply.status, reply.text)


async def test_away_for_websockets(away: AsyncClient) -> None:
    """A WebSocket gets a 503 too, where the server can say that, else the close code for "try again later"."""
    app = site(away, WebSocketRoute("/early", early))
    able, plain = Visitor(app, extensions=["websocket.http.response"]), Visitor(app)

    refused = await able.chat("/early")
    await plain.chat("/early")

    assert (503, ["1"]) == (refused.status, refused.all("retry-after"))
    assert [("websocket.close", 1013)] == [(each["type"], each["code"]) for each in plain.sent]


# -- errors that come half-way --


async def test_an_error_after_a_move(client: AsyncClient) -> None:
    """A session that the app has moved is told to the browser with an error too, since its old id is dead."""

    async def fail(request: Request) -> Response:
        await (await load_session(request)).rotate()
        return PlainTextResponse("", 500)

    visitor = Visitor(site(client, Route("/fail", fail)))
    await visitor.get("/add/a")

    failed = await visitor.get("/fail")

    assert 500 == failed.status
    assert {"a": "set"} == (await visitor.get("/view")).json


async def test_destroyed_by_one_who_never_asked(client: AsyncClient) -> None:
    """Ending the session takes the cookie away, though nobody has asked for `request.session`."""

    async def leave(request: Request) -> Response:
        await request.scope["session"].destroy()
        return PlainTextResponse("")

    visitor = Visitor(site(client, Route("/leave", leave)))
    await visitor.get("/add/a")

    await visitor.get("/leave")

    assert {} == visitor.cookies
    assert 0 == await client.count()


async def test_no_logout_is_optional(sessiond_server: Server) -> None:
    """A logout that did not reach the daemon is never answered as if it had, on a path that may lack its session either."""
    async with AsyncClient(sessiond_server.url, deadline=0.3) as client:
        visitor = Visitor(site(client, optional=["/clear"]))
        await visitor.get("/add/a")
        sessiond_server.kill()

        reply = await visitor.get("/clear")

    assert (503, []) == (reply.status, reply.cookies)
