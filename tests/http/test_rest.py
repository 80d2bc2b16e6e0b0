"""Every route of REST and every status that it can have, asked of a daemon over SQLite."""

import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, unquote

import msgspec
import pytest

from tests.http.support import JSON, MSGPACK, OCTETS, Daemon, Reply, key_of, replies

MAX_TTL = 400 * 24 * 3600


def path(sid: str) -> str:
    return "/v1/sessions/" + quote(sid, safe="")


# create --------------------------------------------------------------------------------------------------


def test_create_makes_the_sid_and_tells_it_once(daemon: Daemon) -> None:
    """create answers 201 with a sid of 43 characters; Location names the session by its key, never by the sid."""
    reply = daemon.ask("POST", "/v1/sessions?ttl=60", '{"cart": [1, 2]}')

    sid = reply.json["sid"]
    assert reply.status == 201
    assert len(sid) == 43
    assert reply.json == {"sid": sid, "version": 1, "expires_at": int(reply.headers["Session-Expires-At"])}
    assert reply.headers["Location"] == f"/v1/sessions/{key_of(sid)}"
    assert (reply.headers["ETag"], reply.headers["Session-TTL"]) == ('"1"', "60")
    assert daemon.ask("GET", path(sid)).body == b'{"cart": [1, 2]}'


def test_every_create_makes_another_sid(daemon: Daemon) -> None:
    """No two creates are given the same sid."""
    assert len({daemon.create() for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?ttl=0", "bad_ttl"),
        ("?ttl=-1", "bad_ttl"),
        ("?ttl=1.2345", "bad_ttl"),
        ("?ttl=1e3", "bad_ttl"),
        ("?ttl=", "bad_ttl"),
        ("?ttl=NaN", "bad_ttl"),
        ("?ttl=%D9%A3", "bad_ttl"),  # a digit, but not one of ours
        (f"?ttl={MAX_TTL + 1}", "bad_ttl"),
        ("?lifetime=0", "bad_ttl"),
        ("?ttl=61&lifetime=60", "bad_ttl"),
        ("?ttl=1&ttl=2", "bad_query"),
        ("?tll=60", "bad_query"),
        ("?user=ada", "bad_query"),
    ],
)
def test_create_refuses_a_wrong_query(empty: Daemon, query: str, code: str) -> None:
    """A ttl or lifetime that cannot be, and a parameter that is unknown or stands twice, make no session."""
    reply = empty.ask("POST", f"/v1/sessions{query}", "{}")

    assert (reply.status, reply.code) == (400, code)
    assert empty.ask("GET", "/v1/sessions/count").json == {"count": 0}


# get -----------------------------------------------------------------------------------------------------


def test_get_answers_the_data_byte_for_byte_with_its_state(daemon: Daemon) -> None:
    """get answers the bytes as they were sent; version, ttl and instants stand in headers."""
    sent = b'{ "n" : 1.50, "u" : "\\u00e9" }\n'
    sid = daemon.create(sent, "?ttl=60&lifetime=3600", JSON)

    reply = daemon.ask("GET", path(sid))

    assert (reply.status, reply.body) == (200, sent)
    assert reply.headers["Content-Type"] == "application/json"
    assert (reply.headers["ETag"], reply.headers["Session-TTL"]) == ('"1"', "60")
    created = int(reply.headers["Session-Created-At"])
    assert int(reply.headers["Session-Expires-At"]) == created + 60_000
    assert int(reply.headers["Session-Deadline"]) == created + 3_600_000
    assert reply.headers["Session-User"] is None
    assert reply.headers["Session-Meta"] is None


def test_head_is_get_without_the_data(daemon: Daemon) -> None:
    """HEAD answers the headers of GET, and no body."""
    sid = daemon.create('{"a": 1}')

    got, headed = daemon.ask("GET", path(sid)), daemon.ask("HEAD", path(sid))

    assert (headed.status, headed.body) == (200, b"")
    assert headed.headers["ETag"] == got.headers["ETag"]
    assert headed.headers["Content-Length"] == got.headers["Content-Length"]


def test_get_of_what_does_not_live_is_missing(daemon: Daemon) -> None:
    """Unknown, destroyed, expired and rotated away are the same 404 with the same body."""
    destroyed, expired, rotated = daemon.create(), daemon.create("{}", "?ttl=1"), daemon.create()
    daemon.ask("DELETE", path(destroyed))
    daemon.ask("POST", path(rotated) + "/rotate")
    daemon.advance(1000)

    found = [daemon.ask("GET", path(sid)) for sid in ("unknown", destroyed, expired, rotated)]

    assert {(reply.status, reply.code) for reply in found} == {(404, "missing")}
    assert len({reply.body for reply in found}) == 1


BINARY = msgspec.msgpack.encode({"b": b"\x00\xff"})
BEYOND = msgspec.msgpack.encode({"n": 2**53})


@pytest.mark.parametrize(
    ("stored", "data", "accept", "expected"),
    [
        (JSON, b'{"a":1}', None, "application/json"),
        (JSON, b'{"a":1}', "*/*", "application/json"),
        (JSON, b'{"a":1}', "application/*;q=0.1", "application/json"),
        (JSON, b'{"a":1}', "text/html, application/json;q=0.5", "application/json"),
        (JSON, b'{"a":1}', "application/msgpack", "application/msgpack"),
        (JSON, b'{"a":1}', "application/x-msgpack", "application/msgpack"),
        (JSON, b'{"a":1}', "application/json;q=0.1, application/msgpack;q=0.2", "application/msgpack"),
        (JSON, b'{"a":1}', "application/json;q=0, */*", "application/msgpack"),
        (JSON, b'{"a":1}', "APPLICATION/JSON; Q=1", "application/json"),
        (JSON, b'{"a":1}', "", "application/json"),
        (JSON, b'{"a":1}', "image/png", None),
        (JSON, b'{"a":1}', "application/json;q=0", None),
        (JSON, b'{"a":1}', "application/octet-stream", None),
        (JSON, b'{"a":1}', ",".join(["x/y;q=0.1"] * 700), None),
        (MSGPACK, b"\x81\xa1a\x01", "application/json", "application/json"),
        (MSGPACK, b"\x81\xa1a\x01", "application/msgpack", "application/msgpack"),
        (MSGPACK, BINARY, "application/json", None),
        (MSGPACK, BINARY, "*/*", "application/msgpack"),
        (MSGPACK, BEYOND, "application/json", None),
        (MSGPACK, BEYOND, "application/json, application/msgpack;q=0.1", "application/msgpack"),
        (JSON, b'{"n":9007199254740993}', "application/json", "application/json"),  # as it was sent, not rounded
        (OCTETS, b"\x80\x04.", "*/*", "application/octet-stream"),
        (OCTETS, b"", "application/octet-stream", "application/octet-stream"),
        (OCTETS, b"{}", "application/json", None),
    ],
)
def test_accept_chooses_the_format(
    daemon: Daemon, stored: dict[str, str], data: bytes, accept: str | None, expected: str | None
) -> None:
    """The best-liked format that holds the data exactly is sent; if there is none, 406, and never a rounded number."""
    sid = daemon.create(data, "", stored)

    reply = daemon.ask("GET", path(sid), headers={} if accept is None else {"Accept": accept})

    if expected is None:
        assert (reply.status, reply.code) == (406, "not_acceptable")
    else:
        assert (reply.status, reply.headers["Content-Type"]) == (200, expected)
        assert read(reply.body, expected) == read(data, stored["Content-Type"])


def read(data: bytes, media: str) -> object:
    """What the bytes mean."""
    if media == "application/json":
        return json.loads(data)
    return msgspec.msgpack.decode(data) if media == "application/msgpack" else data


def test_get_renews_only_when_asked(daemon: Daemon) -> None:
    """get leaves the expiry alone; renew=true renews with the session's ttl; renew=90.5 makes that its ttl."""
    sid = daemon.create("{}", "?ttl=60")
    daemon.advance(10_000)

    plain, renewed, changed = (daemon.ask("GET", path(sid) + query) for query in ("", "?renew=true", "?renew=90.5"))

    start = int(plain.headers["Session-Created-At"])
    assert int(plain.headers["Session-Expires-At"]) == start + 60_000
    assert int(renewed.headers["Session-Expires-At"]) >= start + 70_000
    assert (renewed.headers["Session-TTL"], changed.headers["Session-TTL"]) == ("60", "90.5")
    assert changed.headers["ETag"] == '"1"'


@pytest.mark.parametrize(
    ("query", "code"),
    [("renew=false", "bad_ttl"), ("renew=0", "bad_ttl"), ("renew=", "bad_ttl"), ("renew=true&renew=true", "bad_query")],
)
def test_get_refuses_a_wrong_renew(daemon: Daemon, query: str, code: str) -> None:
    """renew is true or a ttl, once."""
    reply = daemon.ask("GET", f"/v1/sessions/any?{query}")

    assert (reply.status, reply.code) == (400, code)


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', '"7", "1"', "*"])
def test_get_of_a_known_version_is_304(daemon: Daemon, tag: str) -> None:
    """If-None-Match with the current version, weak or among others, answers 304 with the state and no data."""
    sid = daemon.create('{"a": 1}')

    reply = daemon.ask("GET", path(sid), headers={"If-None-Match": tag})

    assert (reply.status, reply.body) == (304, b"")
    assert reply.headers["ETag"] == '"1"'


def test_get_of_another_version_sends_the_data(daemon: Daemon) -> None:
    """If-None-Match with a version that is not the current one answers as without it."""
    sid = daemon.create('{"a": 1}')

    assert daemon.ask("GET", path(sid), headers={"If-None-Match": '"2", "11"'}).status == 200


# Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sid",
    [
        "a",
        "a/b",
        "../../etc/passwd",
        "%2F",
        "%252F",
        "zoë 🦊",
        "{slot}",
        "a+b c",
        "a;b=c",
        "x?y#z",
        "..",
        "sess:*",
        "a\\b",
    ],
)
def test_any_sid_names_the_session_of_its_key(daemon: Daemon, sid: str) -> None:
    """A percent-encoded sid, whatever it is made of, and ~ with its key are two names of one session."""
    assert daemon.ask("PUT", path(sid), '{"a": 1}').status in (201, 204)

    assert daemon.ask("GET", f"/v1/sessions/{key_of(sid)}").body == b'{"a": 1}'
    assert daemon.ask("DELETE", f"/v1/sessions/{key_of(sid)}").status == 204
    assert daemon.ask("GET", path(sid)).status == 404


def test_unicode_forms_of_a_sid_are_different_sids(daemon: Daemon) -> None:
    """A sid is never normalised: é composed and decomposed name two sessions."""
    assert daemon.ask("PUT", path("caf\u00e9"), "{}").status == 201
    assert daemon.ask("GET", path("cafe\u0301")).status == 404


@pytest.mark.parametrize("name", ["~", "~abc", "~" + "A" * 42, "~" + "A" * 44, "~" + "A" * 42 + "B", "~" + "+" * 43])
def test_what_follows_a_tilde_is_a_key_in_its_one_spelling(daemon: Daemon, name: str) -> None:
    """Too short, too long, stray low bits and the other alphabet are refused."""
    reply = daemon.ask("GET", f"/v1/sessions/{name}")

    assert (reply.status, reply.code) == (400, "bad_key")


def test_the_sid_count_is_reached_by_its_key_alone(daemon: Daemon) -> None:
    """The address of the count is nobody's session: every verb but GET is 405 there, and its sub-addresses are 404."""
    reply = daemon.ask("PUT", "/v1/sessions/count", "{}")
    assert (reply.status, reply.code, reply.headers["Allow"]) == (405, "method_not_allowed", "GET, HEAD")
    assert daemon.ask("POST", "/v1/sessions/count/touch").status == 404
    assert daemon.ask("PUT", f"/v1/sessions/{key_of('count')}", "{}").status == 201
    assert daemon.ask("PUT", "/v1/sessions/counts", "{}").status == 201


# set -----------------------------------------------------------------------------------------------------


def test_put_creates_and_replaces(daemon: Daemon) -> None:
    """PUT without a condition answers 201 when it creates and 204 when it replaces; the version grows by one."""
    first = daemon.ask("PUT", path("put"), '{"a": 1}')
    second = daemon.ask("PUT", path("put"), b"\x81\xa1b\x02", MSGPACK)

    assert (first.status, first.headers["ETag"]) == (201, '"1"')
    assert (second.status, second.headers["ETag"], second.body) == (204, '"2"', b"")
    assert daemon.ask("GET", path("put"), headers={"Accept": "application/msgpack"}).body == b"\x81\xa1b\x02"


def test_put_if_alive_never_revives(daemon: Daemon) -> None:
    """If-Match: * replaces a living session, and answers 404 for any other without creating it."""
    sid = daemon.create()
    condition = {"If-Match": "*"}

    assert daemon.ask("PUT", path(sid), '{"a": 1}', condition).status == 204
    daemon.ask("DELETE", path(sid))
    late = daemon.ask("PUT", path(sid), '{"late": 1}', condition)

    assert (late.status, late.code) == (404, "missing")
    assert daemon.ask("GET", path(sid)).status == 404


def test_put_by_version_loses_no_update(daemon: Daemon) -> None:
    """If-Match: "1" replaces version 1 alone; later it is 412 with the current ETag, and 404 once the session is gone."""
    sid = daemon.create()
    condition = {"If-Match": '"1"'}

    first = daemon.ask("PUT", path(sid), '{"first": 1}', condition)
    second = daemon.ask("PUT", path(sid), '{"second": 1}', condition)
    future = daemon.ask("PUT", path(sid), "{}", {"If-Match": '"9"'})
    daemon.ask("DELETE", path(sid))
    gone = daemon.ask("PUT", path(sid), "{}", {"If-Match": '"2"'})

    assert (first.status, first.headers["ETag"]) == (204, '"2"')
    assert (second.status, second.code, second.headers["ETag"]) == (412, "conflict", '"2"')
    assert (future.status, future.headers["ETag"]) == (412, '"2"')
    assert (gone.status, gone.code) == (404, "missing")


def test_put_if_none_creates_only(daemon: Daemon) -> None:
    """If-None-Match: * creates, and answers 409 where a session lives; an expired one is none."""
    condition = {"If-None-Match": "*"}

    assert daemon.ask("PUT", path("once") + "?ttl=1", "{}", condition).status == 201
    again = daemon.ask("PUT", path("once"), '{"other": 1}', condition)
    assert (again.status, again.code) == (409, "exists")
    daemon.advance(1000)
    assert daemon.ask("PUT", path("once"), '{"new": 1}', condition).status == 201


@pytest.mark.parametrize(
    "condition",
    [
        {"If-Match": "3"},
        {"If-Match": 'W/"3"'},
        {"If-Match": '"3", "4"'},
        {"If-Match": '"0"'},
        {"If-Match": '"-1"'},
        {"If-Match": '"1.0"'},
        {"If-Match": '"03"'},
        {"If-Match": '"99999999999999999"'},
        {"If-Match": '"\u0663"'.encode().decode("latin-1")},
        {"If-Match": ""},
        {"If-None-Match": '"3"'},
        {"If-Match": "*", "If-None-Match": "*"},
    ],
)
def test_put_refuses_a_condition_that_it_cannot_keep(daemon: Daemon, condition: dict[str, str]) -> None:
    """A weak tag, a list, and anything that is no version is 400: guessing could overwrite somebody's data."""
    reply = daemon.ask("PUT", path("condition"), "{}", condition)

    assert reply.status == 400
    assert reply.code in ("bad_version", "bad_header")
    assert daemon.ask("GET", path("condition")).status == 404


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("POST", "/v1/sessions"),
        ("GET", "/v1/sessions"),
        ("DELETE", "/v1/sessions?user=x"),
        ("GET", "/v1/sessions/count"),
        ("GET", "/v1/sessions/any"),
        ("PATCH", "/v1/sessions/any"),
        ("DELETE", "/v1/sessions/any"),
        ("POST", "/v1/sessions/any/touch"),
        ("POST", "/v1/sessions/any/rotate"),
    ],
)
def test_a_condition_that_would_be_ignored_is_refused(daemon: Daemon, method: str, address: str) -> None:
    """If-Match belongs to PUT: on any other request it is 400, for whoever sends it relies on it."""
    reply = daemon.ask(method, address, None if method in ("GET", "DELETE") else "{}", {"If-Match": '"1"'})

    assert (reply.status, reply.code) == (400, "bad_version")


def test_a_ttl_of_half_a_second_is_over_after_500_ms(daemon: Daemon) -> None:
    """?ttl=0.5 lives for 500 ms, and at 500 ms it is gone."""
    sid = daemon.create("{}", "?ttl=0.5")

    reply = daemon.ask("GET", path(sid))
    daemon.advance(500)

    assert reply.headers["Session-TTL"] == "0.5"
    assert daemon.ask("GET", path(sid)).status == 404


def test_a_lifetime_is_passed_by_no_renewal(daemon: Daemon) -> None:
    """touch, PUT and renew clip the expiry at the deadline, and tell the clipped instant."""
    sid = daemon.create("{}", "?ttl=60&lifetime=90")
    deadline = int(daemon.ask("GET", path(sid)).headers["Session-Deadline"])
    daemon.advance(50_000)

    touched = daemon.ask("POST", path(sid) + "/touch?ttl=3600")
    put = daemon.ask("PUT", path(sid) + "?lifetime=86400", "{}")
    renewed = daemon.ask("GET", path(sid) + "?renew=true")

    assert {int(reply.headers["Session-Expires-At"]) for reply in (touched, put, renewed)} == {deadline}
    daemon.advance(40_000)
    assert daemon.ask("GET", path(sid)).status == 404


def test_a_lifetime_given_late_counts_from_creation(daemon: Daemon) -> None:
    """PUT?lifetime= brings the deadline nearer, counted from the session's creation."""
    sid = daemon.create("{}", "?ttl=60")
    daemon.advance(30_000)

    daemon.ask("PUT", path(sid) + "?lifetime=60", "{}")

    headers = daemon.ask("GET", path(sid)).headers
    assert int(headers["Session-Deadline"]) == int(headers["Session-Created-At"]) + 60_000


# patch ---------------------------------------------------------------------------------------------------


def test_patch_merges_the_top_level(daemon: Daemon) -> None:
    """PATCH replaces and adds entries, null removes, and the others keep their bytes."""
    sid = daemon.create('{"keep": 1.50, "deep": {"a": 1}, "gone": true}')

    reply = daemon.ask(
        "PATCH", path(sid), b'{"new": [ 1 ], "deep": {"b": 2}, "gone": null, "never": null}', {"Content-Type": MERGE}
    )

    body = daemon.ask("GET", path(sid)).body
    assert (reply.status, reply.headers["ETag"]) == (204, '"2"')
    assert json.loads(body) == {"keep": 1.5, "deep": {"b": 2}, "new": [1]}
    assert b'"keep":1.50' in body
    assert b'"new":[ 1 ]' in body


MERGE = "application/merge-patch+json"


def test_patch_crosses_formats(daemon: Daemon) -> None:
    """A MessagePack patch changes a JSON session if its values can be written as JSON; if not it is 409 and changes nothing."""
    sid = daemon.create('{"a":1}')

    merged = daemon.ask("PATCH", path(sid), msgspec.msgpack.encode({"b": [True, None]}), MSGPACK)
    refused = daemon.ask("PATCH", path(sid), BINARY, MSGPACK)

    assert merged.status == 204
    assert (refused.status, refused.code) == (409, "not_representable")
    assert daemon.ask("GET", path(sid)).json == {"a": 1, "b": [True, None]}


def test_patch_refuses_what_it_cannot_merge(daemon: Daemon) -> None:
    """No living session is 404; opaque bytes are 409; a result over max_data is 413; no media type of a map is 415."""
    opaque, large = daemon.create(b"\x00", "", OCTETS), daemon.create(json.dumps({"a": "x" * 60_000}))

    found = [
        daemon.ask("PATCH", path("unknown"), '{"a": 1}'),
        daemon.ask("PATCH", path(opaque), '{"a": 1}'),
        daemon.ask("PATCH", path(large), json.dumps({"b": "x" * 6_000})),
        daemon.ask("PATCH", path(large), b"\x00", OCTETS),
        daemon.ask("PATCH", path(large), "[]"),
    ]

    assert [(reply.status, reply.code) for reply in found] == [
        (404, "missing"),
        (409, "opaque_data"),
        (413, "too_large"),
        (415, "media_type"),
        (400, "bad_shape"),
    ]
    assert daemon.ask("GET", path(large)).headers["ETag"] == '"1"'


def test_patches_of_different_entries_all_survive(daemon: Daemon) -> None:
    """Sixteen PATCHes at once, each of its own entry, are all in the data afterwards, and every one has its version."""
    sid = daemon.create()

    def patch(number: int) -> Reply:
        body = json.dumps({f"k{number}": number})
        head = (
            f"PATCH {path(sid)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        )
        (reply,) = replies(daemon.raw(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()))
        return reply

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(patch, range(16)))

    assert {reply.status for reply in found} == {204}
    assert {reply.headers["ETag"] for reply in found} == {f'"{version}"' for version in range(2, 18)}
    assert daemon.ask("GET", path(sid)).json == {f"k{number}": number for number in range(16)}


def test_of_puts_by_one_version_one_wins(daemon: Daemon) -> None:
    """Sixteen PUTs at once that all name version 1: one is 204, the others are 412."""
    sid = daemon.create()

    def put(number: int) -> int:
        head = f"PUT {path(sid)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        (reply,) = replies(daemon.raw(f'{head}If-Match: "1"\r\nContent-Length: 2\r\n\r\n{{}}'.encode()))
        return reply.status

    with ThreadPoolExecutor(16) as pool:
        found = sorted(pool.map(put, range(16)))

    assert found == [204] + [412] * 15


# touch, rotate, destroy ----------------------------------------------------------------------------------


def test_touch_renews_and_keeps_the_version(daemon: Daemon) -> None:
    """touch answers 204 with the new expiry, takes a new ttl, and creates nothing."""
    sid = daemon.create("{}", "?ttl=60")
    daemon.advance(30_000)

    touched, changed = daemon.ask("POST", path(sid) + "/touch"), daemon.ask("POST", path(sid) + "/touch?ttl=0.5")
    daemon.advance(500)
    dead = daemon.ask("POST", path(sid) + "/touch")

    assert (touched.status, touched.headers["ETag"], touched.headers["Session-TTL"]) == (204, '"1"', "60")
    assert (changed.status, changed.headers["Session-TTL"]) == (204, "0.5")
    assert (dead.status, dead.code) == (404, "missing")


def test_rotate_moves_the_session_to_a_new_sid(daemon: Daemon) -> None:
    """rotate answers 200 with the new sid; data, version and creation stay, and the old sid is dead at once."""
    sid = daemon.create('{"a": 1}')
    before = daemon.ask("GET", path(sid))

    reply = daemon.ask("POST", path(sid) + "/rotate")

    after = daemon.ask("GET", path(reply.json["sid"]))
    assert (reply.status, reply.json.keys()) == (200, {"sid"})
    assert len(reply.json["sid"]) == 43
    assert (after.body, after.headers["ETag"]) == (b'{"a": 1}', before.headers["ETag"])
    assert after.headers["Session-Created-At"] == before.headers["Session-Created-At"]
    assert daemon.ask("GET", path(sid)).status == 404


def test_rotate_with_grace_leaves_an_alias(daemon: Daemon) -> None:
    """For the grace the old sid leads to the session, for reading and for writing; then it is gone."""
    sid = daemon.create()

    new = daemon.ask("POST", path(sid) + "/rotate?grace=5").json["sid"]
    assert daemon.ask("PUT", path(sid), '{"through": "alias"}').status == 204
    assert daemon.ask("GET", path(new)).json == {"through": "alias"}
    daemon.advance(5000)

    assert daemon.ask("GET", path(sid)).status == 404
    assert daemon.ask("GET", path(new)).status == 200


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 404, "missing"),
        ("?grace=-1", 400, "bad_grace"),
        ("?grace=3600.001", 400, "bad_grace"),
        ("?grace=", 400, "bad_grace"),
    ],
)
def test_rotate_refuses(daemon: Daemon, query: str, status: int, code: str) -> None:
    """rotate of nothing is 404; a grace is 0 s to an hour."""
    reply = daemon.ask("POST", path("unknown") + "/rotate" + query)

    assert (reply.status, reply.code) == (status, code)


def test_destroy_is_idempotent(daemon: Daemon) -> None:
    """DELETE answers 204 whether the session lived, is gone already, or never was."""
    sid = daemon.create()

    assert [daemon.ask("DELETE", path(name)).status for name in (sid, sid, "never")] == [204, 204, 204]
    assert daemon.ask("GET", path(sid)).status == 404


# user and meta -------------------------------------------------------------------------------------------


def test_user_and_meta_travel_percent_encoded(daemon: Daemon) -> None:
    """Session-User and Session-Meta come back as they were sent, in any script; empty takes them away."""
    meta = {"agent": "Löwe/1 (🦊; 100%)", "ip": "192.0.2.7"}
    headers = {"Session-User": quote("zoë 🦊"), "Session-Meta": quote(json.dumps(meta))}
    sid = daemon.create("{}", "", headers)

    kept = daemon.ask("GET", path(sid)).headers
    daemon.ask("PUT", path(sid), "{}")
    still = daemon.ask("GET", path(sid)).headers
    daemon.ask("PATCH", path(sid), "{}", {"Session-User": "", "Session-Meta": "{}"})
    gone = daemon.ask("GET", path(sid)).headers

    assert (unquote(kept["Session-User"]), json.loads(unquote(kept["Session-Meta"]))) == ("zoë 🦊", meta)
    assert kept["Session-Meta"].isascii()
    assert (still["Session-User"], still["Session-Meta"]) == (kept["Session-User"], kept["Session-Meta"])
    assert (gone["Session-User"], gone["Session-Meta"]) == (None, None)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Session-User": "a%0Ab"}, "bad_user"),
        ({"Session-User": "u" * 256}, "bad_user"),
        ({"Session-User": quote("é" * 128)}, "bad_user"),
        ({"Session-User": "%ff"}, "bad_header"),
        ({"Session-Meta": "[]"}, "bad_meta"),
        ({"Session-Meta": "{"}, "bad_meta"),
        ({"Session-Meta": '{"a": 1}'}, "bad_meta"),
        ({"Session-Meta": '{"a": "%ed%a0%80"}'}, "bad_header"),
        ({"Session-Meta": json.dumps({"a": "x" * 4096})}, "bad_meta"),
        ({"Session-Meta": json.dumps({f"{n}": "" for n in range(33)})}, "bad_meta"),
    ],
)
def test_a_wrong_user_or_meta_is_refused(daemon: Daemon, headers: dict[str, str], code: str) -> None:
    """Control characters, wrong UTF-8, wrong shapes and wrong sizes are 400."""
    reply = daemon.ask("POST", "/v1/sessions", "{}", headers)

    assert (reply.status, reply.code) == (400, code)


# Many sessions -------------------------------------------------------------------------------------------


def test_list_pages_through_every_session_once(empty: Daemon) -> None:
    """The pages of a listing, walked by cursor, hold each session once in the order of keys, and never its data."""
    sids = [empty.create('{"secret": "data"}', "", {"Session-User": "ada"}) for _ in range(7)]
    seen, cursor, pages = [], None, 0

    while pages == 0 or cursor is not None:
        query = "" if cursor is None else f"&cursor={cursor}"
        reply = empty.ask("GET", f"/v1/sessions?limit=3{query}")
        assert b"secret" not in reply.body
        seen += reply.json["sessions"]
        cursor, pages = reply.json["cursor"], pages + 1

    assert pages == 3
    assert {entry["key"] for entry in seen} == {key_of(sid) for sid in sids}
    assert len(seen) == 7
    assert seen[0].keys() == {"key", "user", "meta", "created_at", "renewed_at", "expires_at", "version", "size"}
    assert (seen[0]["user"], seen[0]["meta"], seen[0]["version"], seen[0]["size"]) == ("ada", None, 1, 18)


def test_list_and_count_are_of_one_user_or_of_all(empty: Daemon) -> None:
    """user= narrows list and count, also for a name beyond ASCII; the dead are in neither."""
    mine = empty.create("{}", "", {"Session-User": quote("zoë")})
    empty.create("{}", "?ttl=1", {"Session-User": quote("zoë")})
    empty.create()
    empty.advance(1000)

    query = f"user={quote('zoë')}"
    assert [entry["key"] for entry in empty.ask("GET", f"/v1/sessions?{query}").json["sessions"]] == [key_of(mine)]
    assert empty.ask("GET", f"/v1/sessions/count?{query}").json == {"count": 1}
    assert empty.ask("GET", "/v1/sessions/count").json == {"count": 2}
    assert empty.ask("GET", "/v1/sessions?user=nobody").json == {"sessions": [], "cursor": None}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "bad_limit"),
        ("limit=1001", "bad_limit"),
        ("limit=+5", "bad_limit"),
        ("limit=5.0", "bad_limit"),
        ("limit=" + "9" * 5000, "bad_limit"),
        ("cursor=abc", "bad_cursor"),
        ("cursor=" + "A" * 44, "bad_cursor"),
        ("cursor=", "bad_cursor"),
        ("user=", "bad_user"),
        ("user=a%0Ab", "bad_path"),
        ("user=%ff", "bad_path"),
        ("offset=3", "bad_query"),
    ],
)
def test_list_refuses_a_wrong_query(daemon: Daemon, query: str, code: str) -> None:
    """A limit, cursor or user that cannot be is 400."""
    reply = daemon.ask("GET", f"/v1/sessions?{query}")

    assert (reply.status, reply.code) == (400, code)


def test_destroy_all_spares_one(empty: Daemon) -> None:
    """DELETE ?user= destroys the user's sessions but that named by except, as a path names it, and tells how many."""
    mine = [empty.create("{}", "", {"Session-User": "ada"}) for _ in range(4)]
    other = empty.create()

    first = empty.ask("DELETE", f"/v1/sessions?user=ada&except={mine[0]}")
    second = empty.ask("DELETE", f"/v1/sessions?user=ada&except={key_of(mine[0])}")

    assert (first.status, first.json, second.json) == (200, {"destroyed": 3}, {"destroyed": 0})
    assert [empty.ask("GET", path(sid)).status for sid in (*mine, other)] == [200, 404, 404, 404, 200]


def test_destroy_all_of_everyone_has_to_be_said(empty: Daemon) -> None:
    """Neither a user nor all=true is 400 and destroys nothing; so are both; all=true destroys everyone's."""
    empty.create()

    for query in ("", "?except=any", "?user=ada&all=true", "?all=false", "?all=", "?user="):
        assert empty.ask("DELETE", f"/v1/sessions{query}").status == 400
    assert empty.ask("GET", "/v1/sessions/count").json == {"count": 1}
    assert empty.ask("DELETE", "/v1/sessions?all=true").json == {"destroyed": 1}


# Every answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/sessions/", 404),
        ("GET", "/v1/sessions/a/", 404),
        ("GET", "/v1/sessions//touch", 404),
        ("GET", "//v1/sessions", 404),
        ("GET", "/V1/sessions", 404),
        ("GET", "/healthz/", 404),
        ("GET", "/v1/sessions/a/touch", 405),
        ("HEAD", "/v1/sessions/a/touch", 405),
        ("OPTIONS", "/v1/sessions/a", 405),
        ("TRACE", "/v1/sessions/a", 405),
        ("POST", "/v1/sessions/a", 405),
        ("PUT", "/v1/sessions", 405),
        ("DELETE", "/v1/sessions/count", 405),
        ("POST", "/healthz", 405),
        ("GET", "/v1/clock", 405),
        ("HEAD", "/v1/stream", 405),
        ("GET", "/healthz", 200),
        ("HEAD", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v1/sessions", 200),
        ("GET", "/v1/stream", 400),
        ("GET", "/v1/sessions/a?b=c", 400),
        ("DELETE", "/v1/sessions/a", 204),
    ],
)
def test_every_answer_is_dressed(daemon: Daemon, method: str, address: str, status: int) -> None:
    """No answer may be stored by a cache or says what server made it; a problem is RFC 9457; 405 tells what is allowed."""
    reply = daemon.ask(method, address)

    assert reply.status == status
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Server"] is None
    if status >= 400 and method != "HEAD":
        assert reply.code
    assert (reply.headers["Allow"] is not None) == (status == 405)


def test_forwarded_headers_and_method_overrides_mean_nothing(daemon: Daemon) -> None:
    """X-HTTP-Method-Override, X-Forwarded-* and Forwarded change nothing."""
    sid = daemon.create()
    headers = {
        "X-HTTP-Method-Override": "DELETE",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-For": "192.0.2.7",
        "Forwarded": "host=evil.example",
    }

    assert daemon.ask("GET", path(sid), headers=headers).status == 200
    assert daemon.ask("GET", path(sid)).status == 200
