"""Who is let in: every bad token over the wire, each verb with each scope in each namespace, and the end of a token."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sessiond.http.auth import FORBIDDEN_TEXT, UNAUTHORIZED_TEXT
from sessiond.tokens import SCOPES
from tests.http.support import (
    Daemon,
    Reply,
    Stream,
    key_of,
    make_token,
    replies,
    sessiond_token,
    wait_until,
)
from tests.support import key

ENGINES = ["memory:", "sqlite"]
NOBODY = f"sessiond_{'0' * 12}_{'0' * 64}"
CLOSE_UNAUTHORIZED = 4401


def bearer(token: str, namespace: str | None = None) -> dict[str, str]:
    named = {} if namespace is None else {"Session-Namespace": namespace}
    return {"Authorization": f"Bearer {token}", **named}


def lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def brief(reply: Reply) -> str:
    return f"{reply.status} {reply.code}" if reply.status >= 400 else str(reply.status)


@pytest.fixture(scope="module")
def tokens(guarded: Daemon) -> dict[str, str]:
    """By name: for two namespaces one with all that an app may have, and one with each scope alone."""
    return {
        **{name: guarded.make_token(name, "--namespace", name) for name in ("shop", "blog")},
        **{
            f"shop-{scope}": guarded.make_token(f"shop-{scope}", "--namespace", "shop", "--scope", scope)
            for scope in SCOPES[:-1]
        },
        "admin-only": guarded.make_token("admin-only", "--scope", "admin"),
    }


# Bad tokens -----------------------------------------------------------------------------------------


def ask_raw(daemon: Daemon, fields: bytes, target: bytes = b"/v1/sessions/count") -> Reply:
    request = b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + fields + b"\r\n"
    (reply,) = replies(daemon.raw(request))
    return reply


BAD_CREDENTIALS = {
    "80 no token": b"",
    "80 empty": b"Authorization:\r\n",
    "80 no text": b"Authorization: Bearer\r\n",
    "80 spaces": b"Authorization: Bearer   \r\n",
    "80 Basic": b"Authorization: Basic TOKEN\r\n",
    "80 no scheme": b"Authorization: TOKEN\r\n",
    "80 in a cookie": b"Cookie: token=TOKEN\r\n",
    "80 in another header": b"X-Authorization: Bearer TOKEN\r\n",
    "81 unknown": b"Authorization: Bearer " + NOBODY.encode() + b"\r\n",
    "81 one char off": b"Authorization: Bearer TOKEX\r\n",
    "81 one char more": b"Authorization: Bearer TOKENx\r\n",
    "81 twice": b"Authorization: Bearer TOKEN TOKEN\r\n",
    "81 8,000 bytes": b"Authorization: Bearer " + b"x" * 8000 + b"\r\n",
    "81 not ASCII": "Authorization: Bearer tökén\r\n".encode(),
    "81 no UTF-8": b"Authorization: Bearer \xff\xfe\r\n",
}


@pytest.mark.parametrize("name", BAD_CREDENTIALS)
def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(guarded: Daemon, name: str) -> None:
    """401 with WWW-Authenticate and one body, on a route that exists as on one that does not; nothing of it is echoed."""
    token = guarded.token.encode()
    fields = BAD_CREDENTIALS[name].replace(b"TOKEX", token[:-1] + b"x").replace(b"TOKEN", token)

    found = [ask_raw(guarded, fields, target) for target in (b"/v1/sessions/count", b"/nowhere", b"/metrics", b"/")]

    for reply in found:
        assert (reply.status, reply.code, reply.headers["WWW-Authenticate"]) == (401, "unauthorized", "Bearer")
        assert reply.json["detail"] == UNAUTHORIZED_TEXT
        assert reply.body == found[0].body
    assert "Traceback" not in guarded.log


def test_a_token_in_the_query_is_none(guarded: Daemon) -> None:
    """It would be in every log on the way."""
    assert ask_raw(guarded, b"", b"/v1/sessions/count?token=" + guarded.token.encode()).status == 401


def test_two_authorizations_are_a_mistake(guarded: Daemon) -> None:
    """Whichever of them is right."""
    good = f"Authorization: Bearer {guarded.token}\r\n".encode()

    assert brief(ask_raw(guarded, good + b"Authorization: Bearer x\r\n")) == "400 bad_header"
    assert brief(ask_raw(guarded, good + good)) == "400 bad_header"


def test_a_token_that_fits_no_header_is_refused_before_it_is_read(guarded: Daemon) -> None:
    """10 KB of it: as with any header."""
    assert brief(ask_raw(guarded, b"Authorization: Bearer " + b"x" * 10_000 + b"\r\n")) == "431 headers_too_large"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_read_as_http_has_it(guarded: Daemon, scheme: str) -> None:
    """Its case does not matter, nor do more spaces (RFC 9110 §11.4)."""
    assert ask_raw(guarded, f"Authorization: {scheme} {guarded.token}\r\n".encode()).json == {"count": 0}


def test_a_body_is_not_read_before_the_token(guarded: Daemon) -> None:
    """401 comes instead of 100 Continue, and closes the connection."""
    request = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    (reply,) = replies(guarded.raw(request + b"Content-Length: 8\r\nExpect: 100-continue\r\n\r\n"))

    assert (reply.status, reply.headers["Connection"]) == (401, "close")


def test_guessing_tokens_is_slowed_down_and_hurts_nobody_else(tmp_path: Path) -> None:
    """After its budget an address gets 429, on REST and at the stream's handshake; who shows a good token goes on from there."""
    data = str(tmp_path / "s.db")
    token = make_token(data, "shop")
    daemon = Daemon("--failure-budget", "20", data=data)
    try:
        guesses = [daemon.ask("GET", "/v1/sessions/count", headers=bearer(f"guess{n}")) for n in range(100)]
        slowed = [reply for reply in guesses if reply.status == 429]

        assert {401, 429} == {reply.status for reply in guesses}
        assert len(slowed) >= 70
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in slowed)
        assert {"too_many_failures"} == {reply.json["code"] for reply in slowed}
        with Stream(daemon.host, daemon.port, headers="Authorization: Bearer guess\r\n") as stream:
            assert stream.status == 429
        assert daemon.ask("GET", "/v1/sessions/count", headers=bearer(token)).json == {"count": 0}
        with Stream(daemon.host, daemon.port, headers=f"Authorization: Bearer {token}\r\n") as stream:
            assert stream.status == 101
    finally:
        assert daemon.stop() == 0, daemon.log


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_how_the_daemon_is_anybody_may_ask(guarded: Daemon, path: str) -> None:
    """Supervisors and load balancers have no token; a wrong one does not matter."""
    assert ask_raw(guarded, b"", path.encode()).status == 200
    assert ask_raw(guarded, b"Authorization: Bearer x\r\n", path.encode()).status == 200


@pytest.mark.parametrize("headers", ["", "Authorization: Bearer wrong\r\n", "Cookie: token=x\r\n"])
def test_a_stream_needs_a_token_too(guarded: Daemon, headers: str) -> None:
    """Its handshake is answered 401."""
    with Stream(guarded.host, guarded.port, headers=headers) as stream:
        assert stream.status == 401


def test_with_a_file_of_tokens_any_address_may_be_listened_on(tmp_path: Path) -> None:
    """Without --allow-anonymous; and every route but /healthz and /readyz asks."""
    data = str(tmp_path / "s.db")
    token = make_token(data, "shop")
    daemon = Daemon(data=data, listen=["0.0.0.0:0"])
    daemon.host = "127.0.0.1"
    try:
        for path in ("/", "/metrics", "/openapi.json", "/v1/sessions", "/v1/stream", "/nowhere"):
            assert daemon.ask("GET", path).status == 401, path
        assert daemon.ask("GET", "/v1/sessions/count", headers=bearer(token)).json == {"count": 0}
    finally:
        daemon.stop()


# Scopes and namespaces ------------------------------------------------------------------------------


class Verb(NamedTuple):
    """An action over REST and over the stream; `needs`: the scopes that it takes together."""

    needs: set[str]
    request: tuple[str, str, str | None]
    call: list[Any] | None


DATA = b'{"a": 1}'

VERBS = {
    "create": Verb({"write"}, ("POST", "/v1/sessions", "{}"), ["create", key("new"), "json", DATA]),
    "get": Verb({"read"}, ("GET", "/v1/sessions/s", None), ["get", key("s")]),
    "get with renew": Verb({"read", "write"}, ("GET", "/v1/sessions/s?renew=true", None), ["get", key("s"), True]),
    "set": Verb({"write"}, ("PUT", "/v1/sessions/s", "{}"), ["set", key("s"), "json", DATA]),
    "patch": Verb({"write"}, ("PATCH", "/v1/sessions/s", "{}"), ["patch", key("s"), "json", DATA]),
    "touch": Verb({"write"}, ("POST", "/v1/sessions/s/touch", None), ["touch", key("s")]),
    "rotate": Verb({"write"}, ("POST", "/v1/sessions/s/rotate", None), ["rotate", key("s"), key("t")]),
    "destroy": Verb({"destroy"}, ("DELETE", "/v1/sessions/s", None), ["destroy", key("s")]),
    "list": Verb({"list"}, ("GET", "/v1/sessions", None), ["list"]),
    "count": Verb({"list"}, ("GET", "/v1/sessions/count", None), ["count"]),
    "destroy_all": Verb({"destroy"}, ("DELETE", "/v1/sessions?user=ada", None), ["destroy_all", "ada"]),
    "destroy_all of everyone": Verb(
        {"admin"}, ("DELETE", "/v1/sessions?all=true", None), ["destroy_all", None, None, True]
    ),
    "metrics": Verb({"admin"}, ("GET", "/metrics", None), None),
    "clock": Verb({"admin"}, ("POST", "/v1/clock", '{"advance_ms": 0}'), None),
}

BEARERS: dict[str, set[str]] = {
    "shop": set(SCOPES[:-1]),
    **{f"shop-{scope}": {scope} for scope in SCOPES[:-1]},
    "admin-only": {"admin"},
    "operator": set(SCOPES),
}


@pytest.mark.parametrize("who", BEARERS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("namespace", [None, "shop", "blog", "nowhere"])
def test_every_verb_with_every_scope_in_every_namespace(
    guarded: Daemon, tokens: dict[str, str], verb: str, who: str, namespace: str | None
) -> None:
    """A call is let through when its token has the scopes and is good for the namespace; else it is 403 in one wording,
    over REST and the stream alike, also where a namespace is not there at all."""
    token = guarded.token if who == "operator" else tokens[who]
    headers = bearer(token, namespace)
    is_admin = "admin" in BEARERS[who]
    is_at_home = namespace in (None, "shop") or (is_admin and namespace == "blog")
    is_allowed = is_at_home and VERBS[verb].needs <= BEARERS[who]
    method, path, body = VERBS[verb].request

    reply = guarded.ask(method, path, body, headers)

    assert reply.status not in (400, 401)
    assert (reply.status == 403) is not is_allowed
    if not is_allowed:
        assert (reply.code, reply.json["detail"]) == ("forbidden", FORBIDDEN_TEXT)
    if VERBS[verb].call is None:
        return
    with Stream(guarded.host, guarded.port, headers=lines(headers)) as stream:
        assert stream.status == (101 if is_at_home else 403)
        if is_at_home:
            (answer,) = stream.ask(VERBS[verb].call or [])
            refused = ["refused", "forbidden", FORBIDDEN_TEXT]
            assert (answer == refused) is not is_allowed
            assert is_allowed is False or answer[0] in ("ok", "missing", "exists")


def test_a_refused_call_leaves_the_others_of_its_message_alone(guarded: Daemon, tokens: dict[str, str]) -> None:
    """Each call is judged by itself, and a wrong one is still told what is wrong with it."""
    with Stream(guarded.host, guarded.port, headers=lines(bearer(tokens["shop-read"]))) as stream:
        found = stream.ask(["get", key("x")], ["destroy", key("x")], ["get", b"short"], ["count"])

    assert [answer[:2] for answer in found] == [
        ["missing"],
        ["refused", "forbidden"],
        ["refused", "bad_key"],
        ["refused", "forbidden"],
    ]


def test_a_refusal_tells_nothing_of_what_there_is(guarded: Daemon, tokens: dict[str, str]) -> None:
    """The bytes are equal for a session that lives and for one that does not, for a namespace that is there or is not."""
    guarded.ask("PUT", "/v1/sessions/there", "{}", bearer(tokens["blog"]))

    found = [
        guarded.ask("GET", f"/v1/sessions/{session}", headers=bearer(token, namespace))
        for session in ("there", "not-there")
        for token, namespace in (
            (tokens["shop"], "blog"),
            (tokens["shop"], "nowhere"),
            (tokens["shop-list"], None),
            (guarded.token, "nowhere"),
        )
    ]

    assert {(reply.status, reply.body) for reply in found} == {(403, found[0].body)}


@pytest.mark.parametrize("name", ["..", "%2e", "a" * 300, "Shop", "1a", "-", "shop,blog", "shop blog"])
def test_a_wrong_name_of_a_namespace_is_400(guarded: Daemon, tokens: dict[str, str], name: str) -> None:
    """Whoever sends it."""
    for token in (guarded.token, tokens["shop"]):
        assert brief(guarded.ask("GET", "/v1/sessions/count", headers=bearer(token, name))) == "400 bad_namespace"


def test_a_namespace_that_stands_twice_is_400(guarded: Daemon) -> None:
    """One of the two would be ignored."""
    fields = f"Authorization: Bearer {guarded.token}\r\nSession-Namespace: default\r\nSession-Namespace: shop\r\n"

    assert brief(ask_raw(guarded, fields.encode())) == "400 bad_header"


def test_without_tokens_there_is_the_default_namespace_alone(daemon: Daemon) -> None:
    """To name it is fine, to name another is 403: to be served from `default` instead would be a surprise."""
    assert daemon.ask("GET", "/v1/sessions/count", headers={"Session-Namespace": "default"}).status == 200
    assert brief(daemon.ask("GET", "/v1/sessions/count", headers={"Session-Namespace": "shop"})) == "403 forbidden"
    assert daemon.ask("GET", "/metrics", headers={"Authorization": "Bearer anything"}).status == 200


def test_the_description_is_for_every_token(guarded: Daemon, tokens: dict[str, str]) -> None:
    """/openapi.json tells nothing but how to ask."""
    assert guarded.ask("GET", "/openapi.json", headers=bearer(tokens["shop-read"])).status == 200


@pytest.mark.parametrize("engine", ENGINES)
def test_one_key_in_two_namespaces_never_meets(tmp_path: Path, engine: str) -> None:
    """The same sid, written, listed, rotated, destroyed and counted in one namespace, is nothing to the other."""
    file = str(tmp_path / "tokens")
    shop, blog = (
        sessiond_token("add", name, "--namespace", name, "--tokens", file).strip() for name in ("shop", "blog")
    )
    daemon = Daemon("--tokens", file, data=engine if engine == "memory:" else str(tmp_path / "s.db"))
    try:
        for token, data in ((shop, '{"of":"shop"}'), (blog, '{"of":"blog"}')):
            assert daemon.ask("PUT", "/v1/sessions/same", data, {**bearer(token), "Session-User": "ada"}).status == 201
        assert daemon.ask("GET", "/v1/sessions/same", headers=bearer(shop)).json == {"of": "shop"}

        assert daemon.ask("DELETE", "/v1/sessions?user=ada", headers=bearer(shop)).json == {"destroyed": 1}

        assert daemon.ask("GET", "/v1/sessions/same", headers=bearer(shop)).status == 404
        assert daemon.ask("GET", "/v1/sessions/same", headers=bearer(blog)).json == {"of": "blog"}
        listing = daemon.ask("GET", "/v1/sessions?user=ada", headers=bearer(blog)).json["sessions"]
        assert [entry["key"] for entry in listing] == [key_of("same")]
        assert daemon.ask("POST", "/v1/sessions/same/rotate", headers=bearer(shop)).status == 404
        assert [
            daemon.ask("GET", "/v1/sessions/count", headers=bearer(each)).json["count"] for each in (shop, blog)
        ] == [0, 1]
    finally:
        daemon.stop()


# The end of a token ---------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of the test's own, that knows an admin's token."""
    data = str(tmp_path / "s.db")
    token = make_token(data, "operator", "--admin")
    daemon = Daemon("--adjustable-clock", data=data)
    daemon.token = token
    yield daemon
    assert daemon.stop() == 0, daemon.log


def test_a_revoked_token_is_out(own: Daemon) -> None:
    """Its requests are 401, and its stream is closed with 4401 behind the answers to what it had asked; others go on."""
    leaver, stayer = own.make_token("leaver"), own.make_token("stayer")
    with (
        Stream(own.host, own.port, headers=lines(bearer(leaver))) as out,
        Stream(own.host, own.port, headers=lines(bearer(stayer))) as on,
    ):
        assert out.ask(["set", key("a"), "json", DATA])[0][0] == "ok"
        sessiond_token("revoke", "leaver", "--data", own.data)

        found, code = out.until_closed()

        assert (found, code) == ([], CLOSE_UNAUTHORIZED)
        assert on.ask(["get", key("a")])[0][0] == "ok"
    assert brief(own.ask("GET", "/v1/sessions/count", headers=bearer(leaver))) == "401 unauthorized"


def test_a_token_expires_by_the_daemon_s_clock(own: Daemon) -> None:
    """To the ms for a request; its stream is closed soon after."""
    token = own.make_token("brief", "--expires", "1h")
    with Stream(own.host, own.port, headers=lines(bearer(token))) as stream:
        assert stream.ask(["count"])[0][0] == "ok"

        own.advance(3_600_000)

        assert own.ask("GET", "/v1/sessions/count", headers=bearer(token)).status == 401
        assert stream.until_closed()[1] == CLOSE_UNAUTHORIZED


def test_a_client_that_takes_no_answers_is_out_all_the_same(own: Daemon) -> None:
    """What a stream sends after its token has ended is not begun, though its answers are stuck."""
    leaver = own.make_token("leaver")
    with Stream(own.host, own.port, headers=lines(bearer(leaver))) as stream:
        big = b"x" * 60_000
        stream.ask(["set", key("big"), "bytes", big])
        for _ in range(40):
            stream.call(*[["get", key("big")]] * 20)  # 48 MB of answers, which nobody reads
        sessiond_token("revoke", "leaver", "--data", own.data)
        wait_until(lambda: own.ask("GET", "/openapi.json", headers=bearer(leaver)).status == 401)

        with suppress(ConnectionError):
            stream.call(["destroy", key("big")])
        wait_until(lambda: "sessiond_stream_connections 0.0" in own.ask("GET", "/metrics").body.decode())

    assert own.ask("GET", f"/v1/sessions/{key_of('big')}").status == 200


def test_the_first_token_shuts_the_door(tmp_path: Path) -> None:
    """A running daemon that asked nobody asks everybody from the first token on, and ends the streams of before."""
    daemon = Daemon(data=str(tmp_path / "s.db"))
    try:
        with Stream(daemon.host, daemon.port) as stream:
            assert stream.ask(["count"]) == [["ok", 0]]
            token = daemon.make_token("shop")

            assert stream.until_closed()[1] == CLOSE_UNAUTHORIZED
        assert daemon.ask("GET", "/v1/sessions/count").status == 401
        assert daemon.ask("GET", "/v1/sessions/count", headers=bearer(token)).json == {"count": 0}
    finally:
        daemon.stop()


def test_the_last_token_leaves_it_shut(own: Daemon) -> None:
    """Nobody is let in when all tokens are revoked, when their file is broken, or when it is gone."""
    sessiond_token("revoke", "operator", "--data", own.data)
    wait_until(lambda: own.ask("GET", "/openapi.json").status == 401)
    file = Path(f"{own.data}.tokens")

    file.write_text("broken")
    wait_until(lambda: "cannot be used" in own.log)
    assert own.ask("GET", "/v1/sessions/count", headers={"Authorization": ""}).status == 401

    file.unlink()
    wait_until(lambda: "are gone" in own.log)
    assert own.ask("GET", "/v1/sessions/count", headers={"Authorization": ""}).status == 401
    assert own.log.count("the tokens stay as they were") == 2
    sessiond_token("add", "again", "--data", own.data)


def test_rotating_under_load_fails_no_request(own: Daemon) -> None:
    """An app that takes up each new token while the one before is valid is answered every time, over REST and the stream."""
    token = own.make_token("shop")
    statuses: list[int] = []
    answered: list[Any] = []
    for _ in range(3):
        successor = sessiond_token("rotate", "shop", "--overlap", "1h", "--data", own.data).strip()
        with Stream(own.host, own.port, headers=lines(bearer(token))) as stream:
            for n in range(200):
                statuses.append(own.ask("PUT", f"/v1/sessions/{n}", "{}", bearer(token)).status)
                answered += stream.ask(["get", key("x")])
        wait_until(lambda now=successor: own.ask("GET", "/openapi.json", headers=bearer(now)).status == 200)
        token = successor

    assert set(statuses) == {201, 204}
    assert answered == [["missing"]] * 600


def test_nothing_of_a_token_is_logged(own: Daemon) -> None:
    """Neither a good one nor a bad one, in whatever way it came."""
    bad = "sessiond_canary0canary_" + "c" * 64
    own.ask("GET", "/v1/sessions/count", headers=bearer(bad))
    own.ask("GET", f"/v1/sessions/count?token={bad}")
    with Stream(own.host, own.port, headers=lines(bearer(bad))):
        pass

    assert "canary0canary" not in own.log
    assert own.token not in own.log
    assert "canary0canary" not in own.ask("GET", "/metrics").body.decode()
