"""What nobody should send: each row is one request and the answer it must get. The numbers are those of the catalogue of
bad inputs that the daemon was designed against (B bodies, C numbers, D headers, E encodings, F sizes, G the protocol)."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tests.http.support import JSON, MSGPACK, OCTETS, Daemon, key_of, replies

CANARY = b"CaNaRy7"
"""Stands in every request, and never in an answer or in the log."""

LIMIT = 64 * 1024
HOST = b"Host: localhost\r\n"
MARK = b"X-Mark: " + CANARY + b"\r\n"
CREATE = b"POST /v1/sessions HTTP/1.1\r\n" + HOST + MARK
CHUNKED = CREATE + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Row(NamedTuple):
    """`expected`: status and, of a problem, code. `why`: where the catalogue asks for another answer, why ours differs."""

    name: str
    sent: bytes
    expected: str
    why: str = ""


def post(body: bytes, media: bytes = b"application/json", headers: bytes = b"", query: bytes = b"") -> bytes:
    typed = b"Content-Type: " + media + b"\r\n" if media else b""
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"POST /v1/sessions" + query + b" HTTP/1.1\r\n" + HOST + MARK + typed + headers + length + body


def msgpack(body: bytes) -> bytes:
    return post(body, b"application/msgpack")


def get(
    target: bytes = b"/v1/sessions/unknown", headers: bytes = b"", host: bytes = HOST, method: bytes = b"GET"
) -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + host + MARK + headers + b"\r\n"


def put(headers: bytes, target: bytes = b"/v1/sessions/living") -> bytes:
    return b"PUT " + target + b" HTTP/1.1\r\n" + HOST + MARK + JSON_TYPE + headers + b"Content-Length: 2\r\n\r\n{}"


def ask(target: bytes, method: bytes = b"POST") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + MARK + b"Content-Length: 0\r\n\r\n"


def deep(levels: int) -> bytes:
    return b'{"' + CANARY + b'":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def named(json_value: bytes) -> bytes:
    return b'{"' + CANARY + b'":' + json_value + b"}"


JSON_TYPE = b"Content-Type: application/json\r\n"
NAME = msgspec.msgpack.encode(CANARY.decode())
GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00"  # {} with its check sum cut off

BODIES = [
    Row("12 empty JSON", post(b""), "400 empty_body"),
    Row("12 empty MessagePack", msgpack(b""), "400 empty_body"),
    Row("13 {}", post(b"{}"), "201", "the body is the data; an empty session is a session"),
    Row("14 array", post(b'["' + CANARY + b'"]'), "400 bad_shape"),
    Row("14 string", post(b'"' + CANARY + b'"'), "400 bad_shape"),
    Row("14 number", post(b"1"), "400 bad_shape"),
    Row("14 null", post(b"null"), "400 bad_shape"),
    Row("14 true", post(b"true"), "400 bad_shape"),
    Row("14 MessagePack array", msgpack(b"\x91" + NAME), "400 bad_shape"),
    Row("14 MessagePack nil", msgpack(b"\xc0"), "400 bad_shape"),
    Row("15 any member", post(named(b"1")), "201", "the body is the data; every name is the app's own"),
    Row("15 unknown parameter", post(b"{}", query=b"?" + CANARY + b"=1"), "400 bad_query"),
    Row("16 truncated", post(b'{"' + CANARY), "400 bad_json"),
    Row("16 trailing", post(b"{} " + CANARY), "400 bad_json"),
    Row("16 single quotes", post(b"{'" + CANARY + b"': 1}"), "400 bad_json"),
    Row("16 comment", post(b"{} // " + CANARY), "400 bad_json"),
    Row("17 NaN", post(named(b"NaN")), "400 bad_json"),
    Row("17 Infinity", post(named(b"Infinity")), "400 bad_json"),
    Row("17 -Infinity", post(named(b"-Infinity")), "400 bad_json"),
    Row("17 1e999", post(named(b"1e999")), "400 bad_json"),
    Row("18 duplicate", post(b'{"' + CANARY + b'":1,"' + CANARY + b'":2}'), "400 duplicate_field"),
    Row("18 duplicate, escaped", post(b'{"a":1,"\\u0061":2}'), "400 duplicate_field"),
    Row("18 duplicate, nested", post(b'{"a":{"b":1,"b":2}}'), "400 duplicate_field"),
    Row("18 MessagePack duplicate", msgpack(b"\x82" + NAME + b"\x01" + NAME + b"\x02"), "400 duplicate_field"),
    Row("19 32 levels", post(deep(32)), "201"),
    Row("19 33 levels", post(deep(33)), "400 too_deep"),
    Row("19 30k levels", post(deep(30_000)), "400 too_deep"),
    Row("19 60k open brackets", post(b"[" * 60_000), "400 too_deep"),
    Row("19 MessagePack 600 levels", msgpack(b"\x81" + NAME + b"\x91" * 600 + b"\xc0"), "400 too_deep"),
    Row("19 MessagePack 60k levels", msgpack(b"\x91" * 60_000 + b"\xc0"), "400 too_deep"),
    Row("20 integer of 5000 digits", post(named(b"1" * 5000)), "400 bad_number"),
    Row("20 2^64", post(named(b"18446744073709551616")), "400 bad_number"),
    Row("20 -2^63 - 1", post(named(b"-9223372036854775809")), "400 bad_number"),
    Row("21 half a surrogate pair", post(named(b'"\\ud800"')), "400 bad_utf8"),
    Row("21 in a name", post(b'{"\\udc00":1}'), "400 bad_utf8"),
    Row("22 UTF-16", post('{"a": 1}'.encode("utf-16")), "400 bad_utf8"),
    Row("22 UTF-16 without a mark", post('{"a": 1}'.encode("utf-16-le")), "400 bad_json"),
    Row("22 UTF-32", post('{"a": 1}'.encode("utf-32")), "400 bad_utf8"),
    Row("22 byte order mark", post(b"\xef\xbb\xbf{}"), "400 bad_utf8"),
    Row("23 overlong", post(named(b'"\xc0\xaf"')), "400 bad_utf8"),
    Row("23 invalid", post(named(b'"\xff"')), "400 bad_utf8"),
    Row("23 MessagePack overlong", msgpack(b"\x81" + NAME + b"\xa2\xc0\xaf"), "400 bad_utf8"),
    Row("23 control character", post(named(b'"\x01"')), "400 bad_json"),
    Row("25 array claims 4 G", msgpack(b"\xdd\xff\xff\xff\xff" + NAME), "400 bad_msgpack"),
    Row("25 map claims 4 G", msgpack(b"\xdf\xff\xff\xff\xff" + NAME), "400 bad_msgpack"),
    Row("25 bin claims 4 G", msgpack(b"\x81" + NAME + b"\xc6\xff\xff\xff\xff"), "400 bad_msgpack"),
    Row("26 c1", msgpack(b"\xc1" + CANARY), "400 bad_msgpack"),
    Row("26 extension", msgpack(b"\x81" + NAME + b"\xd4\x05\x00"), "400 bad_msgpack"),
    Row("26 timestamp", msgpack(b"\x81" + NAME + b"\xd6\xff\x00\x00\x00\x00"), "400 bad_msgpack"),
    Row("27 integer as name", msgpack(b"\x81\x01" + NAME), "400 bad_msgpack"),
    Row("27 bin as name", msgpack(b"\x81\xc4\x01a" + NAME), "400 bad_msgpack"),
    Row("27 array as name", msgpack(b"\x81\x91\x01" + NAME), "400 bad_msgpack"),
    Row("27 nil as name", msgpack(b"\x81\xc0" + NAME), "400 bad_msgpack"),
    Row("28 trailing bytes", msgpack(b"\x80" + NAME), "400 trailing_data"),
    Row("28 two objects", msgpack(b"\x80\x80"), "400 trailing_data"),
    Row("30 pickle as JSON", post(b"\x80\x04\x95" + CANARY), "400 bad_utf8"),
    Row("30 Java as MessagePack", msgpack(b"\xac\xed\x00\x05" + CANARY), "400 bad_msgpack"),
    Row("32 1001 members", post(json.dumps({f"n{n}": n for n in range(1001)}).encode()), "400 too_many_fields"),
    Row("32 1000 members", post(json.dumps({f"n{n}": n for n in range(1000)}).encode()), "201"),
]

NUMBERS = [
    *(
        Row(f"33-35 ttl {ttl.decode()[:20]}", post(b"{}", query=b"?ttl=" + ttl), "400 bad_ttl")
        for ttl in (
            b"0",
            b"-1",
            b"-0",
            b"0.0",
            b"0.0001",
            b"%2B60",
            b"60s",
            b'"60"',
            b"true",
            b"0x3c",
            b"1_000",
            b"2147483648",
            b"9007199254740993",
            b"9223372036854775808",
            b"1e18",
            b"9" * 4000,
            b"",
        )
    ),
    Row("34 1 ms", post(b"{}", query=b"?ttl=0.001"), "201", "REST takes seconds with fractions"),
    Row("34 59.5", post(b"{}", query=b"?ttl=59.5"), "201", "REST takes seconds with fractions"),
    Row("36 ttl over lifetime", post(b"{}", query=b"?ttl=3600&lifetime=60"), "400 bad_ttl"),
    Row("38 touch of the unknown", ask(b"/v1/sessions/unknown/touch"), "404 missing"),
    Row("38 set of the unknown", put(b"If-Match: *\r\n", b"/v1/sessions/unknown"), "404 missing"),
    Row("39 date", post(b"{}", query=b"?lifetime=2020-01-01T00:00:00Z"), "400 bad_ttl"),
    Row("40 stale version", put(b'If-Match: "7"\r\n'), "412 conflict"),
    Row("40 negative", put(b'If-Match: "-1"\r\n'), "400 bad_version"),
    Row("40 float", put(b'If-Match: "1.5"\r\n'), "400 bad_version"),
    Row("40 word", put(b'If-Match: "' + CANARY + b'"\r\n'), "400 bad_version"),
    Row(
        "40 none given",
        put(b"", b"/v1/sessions/other"),
        "201",
        "an unconditional PUT is for curl; our clients send one",
    ),
    Row("41 create over existing", put(b"If-None-Match: *\r\n"), "409 exists"),
    Row("42 rotate of the unknown", ask(b"/v1/sessions/unknown/rotate"), "404 missing"),
    Row("42 grace", ask(b"/v1/sessions/unknown/rotate?grace=1e9"), "400 bad_grace"),
    Row("42 to a sid of one's own", ask(b"/v1/sessions/living/rotate?to=" + CANARY), "400 bad_query"),
]

HEADERS = [
    Row("43 no Content-Type", post(b"{}", b""), "415 media_type"),
    Row("43 text", post(b"{}", b"text/plain"), "415 media_type"),
    Row("43 form", post(b"{}", b"application/x-www-form-urlencoded"), "415 media_type"),
    Row("43 multipart", post(b"{}", b"multipart/form-data; boundary=" + CANARY), "415 media_type"),
    Row("43 nonsense", post(b"{}", b";;" + CANARY), "415 media_type"),
    Row("43 xml", post(b"{}", b"application/xml"), "415 media_type"),
    Row("44 charset", post(b"{}", b"application/json; charset=utf-16"), "415 media_type"),
    Row("44 unknown charset", post(b"{}", b"application/json; charset=" + CANARY), "415 media_type"),
    Row("44 two Content-Types", post(b"{}", headers=JSON_TYPE), "400 bad_http"),
    Row("45 Accept", get(b"/v1/sessions/living", b"Accept: image/" + CANARY + b"\r\n"), "406 not_acceptable"),
    Row("46 Origin", get(headers=b"Origin: http://" + CANARY + b"\r\n"), "403 browser_request"),
    Row("46 Origin null", get(headers=b"Origin: null\r\n"), "403 browser_request"),
    Row("46 no-cors", get(headers=b"Sec-Fetch-Mode: no-cors\r\n"), "403 browser_request"),
    Row("46 preflight", get(headers=b"Origin: http://a.example\r\n", method=b"OPTIONS"), "403 browser_request"),
    Row("47 override", post(b"{}", headers=b"X-HTTP-Method-Override: " + CANARY + b"\r\n"), "201"),
    Row("47 forwarded", post(b"{}", headers=b"X-Forwarded-Host: evil.example\r\n"), "201"),
    Row("48 request id", get(b"/healthz", b"X-Request-ID: " + CANARY + b"\x1b[31m\r\n"), "400 bad_http"),
    Row("48 long request id", get(b"/healthz", b"X-Request-ID: " + CANARY * 1000 + b"\r\n"), "200"),
    Row("49 bytes from 0x80", get(b"/healthz", b"X-Name: \xe9" + CANARY + b"\r\n"), "400 bad_header"),
    Row("50 weak", put(b'If-Match: W/"1"\r\n'), "400 bad_version"),
    Row("50 list", put(b'If-Match: "1", "2"\r\n'), "400 bad_version"),
    Row("50 twice", put(b'If-Match: "1"\r\nIf-Match: "2"\r\n'), "400 bad_header"),
    Row("50 *", put(b"If-Match: *\r\n"), "204", "* is how PUT asks for any living version"),
    Row("51 no Host", get(host=b""), "400 bad_http"),
    Row("51 empty Host", get(host=b"Host:\r\n"), "400 bad_host"),
    Row("51 two Hosts", get(host=HOST * 2), "400 bad_http"),
    Row("51 foreign", get(host=b"Host: " + CANARY + b".example\r\n"), "421 misdirected"),
    Row("51 foreign port", get(host=b"Host: evil.example:7377\r\n"), "421 misdirected"),
    Row("51 suffix", get(host=b"Host: localhost.evil.example\r\n"), "421 misdirected"),
    Row("51 user part", get(b"http://localhost@evil.example/healthz"), "421 misdirected"),
    Row("51 absolute-form", get(b"http://" + CANARY + b".example/healthz"), "421 misdirected"),
    Row("51 absolute-form of ours", get(b"http://localhost/healthz"), "200"),
    Row("51 HTTP/1.0 without Host", b"GET /healthz HTTP/1.0\r\n" + MARK + b"\r\n", "400 bad_host"),
    Row("user twice", get(headers=b"Session-User: a\r\nSession-User: b\r\n"), "400 bad_header"),
]

ENCODINGS = [
    *(
        Row(f"52-55 {coding.decode()}", post(GZIP, headers=b"Content-Encoding: " + coding + b"\r\n"), "415 encoding")
        for coding in (b"gzip", b"br", b"zstd", b"deflate", b"x-gzip", b"zip7" + CANARY, b"gzip, gzip")
    ),
    Row("55 identity", post(b"{}", headers=b"Content-Encoding: identity\r\n"), "201"),
    *(
        Row(f"56 {target!r}", get(b"/v1/sessions/" + target + CANARY), "400 bad_path")
        for target in (
            b"%zz",
            b"%c0%af",
            b"%00",
            b"%",
            b"%0a",
            b"%7f",
            b"%ff",
            b"%ed%a0%80",
            b"a#",
            b"?renew=%zz",
            b"?renew=%ff",
        )
    ),
    Row("56 raw bytes", get(b"/v1/sessions/\xc3\xa9" + CANARY), "400 bad_http"),
    Row("56 space", get(b"/v1/sessions/a " + CANARY), "400 bad_http"),
    Row("9 a key as parameter", get(b"/v1/sessions?key=" + CANARY), "400 bad_query"),
]

SIZES = [
    Row("58 limit - 1", post(b'{"a":"' + b"x" * (LIMIT - 9) + b'"}'), "201"),
    Row("58 limit", post(b'{"a":"' + b"x" * (LIMIT - 8) + b'"}'), "201"),
    Row("58 limit + 1", post(b'{"a":"' + b"x" * (LIMIT - 7) + b'"}'), "413 too_large"),
    Row("59 1 GB announced", CREATE + JSON_TYPE + b"Content-Length: 1000000000\r\n\r\n", "413 too_large"),
    Row("59 1 GB on a GET", get(b"/healthz", b"Content-Length: 1000000000\r\n"), "413 too_large"),
    Row("59 1 GB at no route", get(b"/" + CANARY, b"Content-Length: 1000000000\r\n"), "413 too_large"),
    Row("60 chunks past the limit", CHUNKED + (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3, "413 too_large"),
    Row("60 100k chunks of a byte", CHUNKED + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n", "413 too_large"),
    Row("60 60k chunks of a byte", CHUNKED + b"1\r\n \r\n" * 60_000 + b"2\r\n{}\r\n0\r\n\r\n", "201"),
    Row("61 header of 9 KB", get(headers=b"X-Long: " + CANARY + b"x" * 9000 + b"\r\n"), "431 headers_too_large"),
    Row("61 header name of 9 KB", get(headers=b"X" * 9000 + b": " + CANARY + b"\r\n"), "431 headers_too_large"),
    Row(
        "61 200 headers",
        get(headers=b"".join(b"X-%d: %s\r\n" % (n, CANARY) for n in range(200))),
        "431 headers_too_large",
    ),
    Row("61 target of 9 KB", get(b"/v1/sessions/" + CANARY + b"x" * 9000), "414 uri_too_long"),
    Row("61 target with a word", get(b"/v1/headers/too/many" + b"x" * 9000), "414 uri_too_long"),
    Row("61 query of 9 KB", get(b"/v1/sessions?user=" + CANARY + b"x" * 9000), "414 uri_too_long"),
    Row(
        "62 chunk extensions",
        CHUNKED + b"2;" + b"a=b;" * 20_000 + CANARY + b"\r\n{}\r\n0\r\n\r\n",
        "201",
        "they are read past and kept nowhere; the time that a body may take bounds them",
    ),
    Row("62 trailers", CHUNKED + b"2\r\n{}\r\n0\r\n" + MARK * 20_000 + b"\r\n", "431 headers_too_large"),
]

PROTOCOL = [
    Row("65 two lengths", post(b"{}", headers=b"Content-Length: 2\r\n"), "400 bad_http"),
    *(
        Row(f"65 length {n.decode()}", CREATE + JSON_TYPE + b"Content-Length: " + n + b"\r\n\r\n{}", "400 bad_http")
        for n in (b"1, 1", b"-1", b"+2", b"0x2", b"9" * 30, b"two")
    ),
    Row("66 length and chunks", post(b"{}", headers=b"Transfer-Encoding: chunked\r\n"), "400 bad_http"),
    *(
        Row(
            f"66 {coding.decode()}",
            CREATE + JSON_TYPE + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n",
            "400 bad_http",
        )
        for coding in (b"xchunked", b"chunked, identity", b"chunked, chunked", b"gzip")
    ),
    Row("67 chunks in HTTP/1.0", CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\n{}\r\n0\r\n\r\n", "400 bad_http"),
    *(
        Row(f"68 chunk {chunk!r}", CHUNKED + chunk + CANARY + b"\r\n\r\n", "400 bad_http")
        for chunk in (b"ZZ\r\n", b"-1\r\n", b"F" * 17 + b"\r\n", b"2\r\n{}}", b"2 \r\n{}")
    ),
    Row("69 folded", get(headers=b"X-Fold: a\r\n " + CANARY + b"\r\n"), "400 bad_http"),
    Row("69 bare LF", b"GET /healthz HTTP/1.1\nHost: localhost\nX-Mark: " + CANARY + b"\n\n", "400 bad_http"),
    Row("69 space before colon", get(headers=b"Authorization : Bearer " + CANARY + b"\r\n"), "400 bad_http"),
    Row("69 NUL", get(headers=b"X-Nul: a\x00" + CANARY + b"\r\n"), "400 bad_http"),
    Row("70 HTTP/0.9", b"GET /" + CANARY + b"\r\n\r\n", "505 bad_http_version"),
    Row("70 HTTP/2.0", b"GET /healthz HTTP/2.0\r\n" + HOST + MARK + b"\r\n", "505 bad_http_version"),
    Row("70 HTTP/1.2", b"GET /healthz HTTP/1.2\r\n" + HOST + MARK + b"\r\n", "400 bad_http", "the parser knows no 1.2"),
    Row("70 h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + CANARY, "400 bad_http", "the parser takes no PRI"),
    Row("71 TRACE", get(b"/healthz", method=b"TRACE"), "405 method_not_allowed"),
    Row("71 CONNECT", get(CANARY + b".example:443", method=b"CONNECT"), "421 misdirected", "it names a foreign host"),
    Row("71 BREW", get(b"/healthz", method=b"BREW"), "400 bad_http"),
    Row("71 lower case", get(b"/healthz", method=b"get"), "400 bad_http"),
    Row("72 OPTIONS", get(b"/v1/sessions", method=b"OPTIONS"), "405 method_not_allowed"),
    Row("72 OPTIONS *", get(b"*", method=b"OPTIONS"), "404 not_found", "there is nothing that is true of all routes"),
    Row(
        "73 WebSocket elsewhere",
        get(b"/healthz", b"Connection: upgrade\r\nUpgrade: websocket\r\n"),
        "200",
        "RFC 9110 §7.8: an upgrade may be ignored",
    ),
    Row(
        "73 h2c",
        get(b"/healthz", b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
        "200",
        "RFC 9110 §7.8: an upgrade may be ignored",
    ),
    Row("74 Expect: cake", post(b"{}", headers=b"Expect: " + CANARY + b"\r\n"), "417 expectation"),
    Row("74 cake at no route", get(b"/" + CANARY, b"Expect: " + CANARY + b"\r\n"), "417 expectation"),
    Row(
        "74 100-continue, 1 GB",
        CREATE + JSON_TYPE + b"Expect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n",
        "413 too_large",
    ),
    Row(
        "76 smuggled",
        post(b"{}") + CANARY + b" / HTTP/1.1\r\n\r\n",
        "400 bad_http",
        "one packet is read or refused whole",
    ),
    Row("79 TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY * 40, "400 bad_http"),
    Row("79 noise", b"\x00\x01\x02" + CANARY, "400 bad_http"),
    Row("79 1000 empty lines", b"\r\n" * 1000 + get(b"/healthz"), "200"),
]


@pytest.fixture(scope="module")
def living(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon with the session `living` in it."""
    assert daemon.ask("PUT", "/v1/sessions/living", "{}").status == 201
    yield daemon
    assert CANARY.decode() not in daemon.log
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize("row", [*BODIES, *NUMBERS, *HEADERS, *ENCODINGS, *SIZES, *PROTOCOL], ids=lambda row: row.name)
def test_a_bad_request_gets_its_answer(living: Daemon, row: Row) -> None:
    """The answer is that of the row, dressed as every other, and repeats nothing; nor does the log; and the daemon goes on."""
    with living.connect() as line:
        with suppress(ConnectionError):  # refused before all was sent
            line.sendall(row.sent)
        raw = first_answer(line)

    (reply,) = replies(raw)
    code = f" {reply.code}" if reply.status >= 400 else ""
    assert f"{reply.status}{code}" == row.expected
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Server"] is None
    assert CANARY not in raw
    assert CANARY.decode() not in living.log
    sid = living.create('{"healthy": true}')
    assert living.ask("GET", f"/v1/sessions/{sid}").json == {"healthy": True}


def first_answer(line: socket.socket) -> bytes:
    """The bytes of one answer, whether or not the connection is closed behind it."""
    raw = b""
    while True:
        head, end, body = raw.partition(b"\r\n\r\n")
        size = next((int(f.split(b":")[1]) for f in head.split(b"\r\n") if f.startswith(b"Content-Length:")), 0)
        if end and len(body) >= size:
            return raw
        try:
            part = line.recv(65536)
        except ConnectionError:
            part = b""
        assert part, f"closed after {raw!r}"
        raw += part


@pytest.mark.parametrize(
    ("media", "data"),
    [
        (JSON, b'{"__proto__":{"admin":true},"constructor":1,"toJSON":2,"$where":"3","hasOwnProperty":4}'),
        (JSON, '{"composed":"caf\u00e9","decomposed":"cafe\u0301","\ufb01":"\u212b"}'.encode()),
        (JSON, b'{"\\u0000":"\\u0000","escaped":"\\u00e9\\/"}'),
        (JSON, b' {"spaces" : [ 1.0 , 1e2 , -0 , 0.10 ] } \n'),
        (JSON, b'{"n":18446744073709551615,"m":-9223372036854775808}'),
        (MSGPACK, b"\x81\xa1n\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),  # NaN
        (MSGPACK, b"\x82\xa1n\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa1m\xd3\x80\x00\x00\x00\x00\x00\x00\x00"),
        (MSGPACK, b"\xde\x00\x01\xd9\x01a\xcd\x00\x01"),  # {"a": 1}, as long as it can be written
        (OCTETS, b"\x80\x04\x95cos\nsystem\n"),
        (OCTETS, b"\xac\xed\x00\x05"),
        (OCTETS, b'O:8:"stdClass":0:{}'),
        (OCTETS, b""),
    ],
)
def test_rare_data_comes_back_byte_for_byte(daemon: Daemon, media: dict[str, str], data: bytes) -> None:
    """24, 29-31, 57: what is data is kept as the bytes that it was sent as, never decoded, rounded or normalised."""
    sid = daemon.create(data, "", media)

    reply = daemon.ask("GET", f"/v1/sessions/{sid}", headers={"Accept": media["Content-Type"]})

    assert (reply.status, reply.body) == (200, data)


def test_wrong_msgpack_leaves_no_memory_behind(daemon: Daemon) -> None:
    """25, 27: claims of 4 G entries, and names that are integers, cost no memory that stays."""
    names = msgspec.msgpack.encode(dict.fromkeys(range(1000)))
    bodies = [b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", names]

    def send(rounds: int) -> None:
        for _ in range(rounds):
            for body in bodies:
                assert daemon.ask("POST", "/v1/sessions", body, MSGPACK).status == 400

    send(100)  # what the allocator keeps, it keeps from now on
    before = daemon.memory()
    send(500)

    assert daemon.memory() - before < 4 * 1024 * 1024


def test_chunk_extensions_are_kept_nowhere(daemon: Daemon) -> None:
    """62: 50 MB of chunk extensions leave the memory as it was."""
    before = daemon.memory()

    with daemon.connect() as line:
        line.sendall(CHUNKED + b"2;")
        for _ in range(50):
            line.sendall(b"a=b;" * 250_000)
        assert daemon.memory() - before < 4 * 1024 * 1024
        line.sendall(b"c\r\n{}\r\n0\r\n\r\n")
        (reply,) = replies(first_answer(line))

    assert reply.status == 201


def test_the_expected_body_is_asked_for(daemon: Daemon) -> None:
    """74: Expect: 100-continue with a body that may come is answered 100, and then the request itself."""
    head = CREATE + JSON_TYPE + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    with daemon.connect() as line:
        line.sendall(head)
        assert line.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(b"{}")
        (reply,) = replies(first_answer(line))

    assert reply.status == 201


def test_a_sid_is_never_logged(folder: Path, daemon: Daemon) -> None:
    """Sids that are created, read, rotated and destroyed stand neither in the log nor in the file; nor do their data's readers' errors."""
    sids = [daemon.create(), "sid-of-mine-" + CANARY.decode()]
    daemon.ask("PUT", f"/v1/sessions/{sids[1]}", "{}")
    sids.append(daemon.ask("POST", f"/v1/sessions/{sids[0]}/rotate").json["sid"])
    daemon.ask("GET", f"/v1/sessions/{sids[1]}?nonsense=1")
    daemon.ask("DELETE", f"/v1/sessions/{sids[2]}")

    stored = b"".join(file.read_bytes() for file in folder.glob("s.db*"))
    for sid in sids:
        assert sid not in daemon.log
        assert sid.encode() not in stored
        assert key_of(sid) not in daemon.log
