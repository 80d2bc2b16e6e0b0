"""One sid, one token and one payload go every way that there is; nowhere is anything of them left that should not be."""

import asyncio
import base64
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from sessiond_client import AsyncClient, Client
from sessiond_client.cookies import key_of
from tests.client.sites import KINDS, Browser, Site
from tests.http.support import Daemon, Reader, Stream, make_token, sessiond_token, wait_until

PAYLOAD = "canary payload bird"


class Setup(NamedTuple):
    """A way to run the daemon. `hides_payload`: whether not even its file may show the data."""

    encrypted: bool
    hides_payload: bool


SETUPS = {"in the clear": Setup(False, False), "encrypted": Setup(True, True)}


def spellings(secret: str) -> dict[str, bytes]:
    """How a secret could stand somewhere: as it is, in hex, in base64 at any offset, percent-encoded, and escaped."""
    raw = secret.encode()
    found = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "percent-encoded": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "PERCENT-ENCODED": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "quoted": urllib.parse.quote(secret, safe="").encode(),
        "UTF-16": secret.encode("utf-16-le"),
    }
    for offset in range(3):
        # Without what depends on its neighbours.
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            found[f"{name} at {offset}"] = encode(b"\0" * offset + raw)[4 if offset else 0 : -4]
    return found


def leaks(places: dict[str, bytes], secrets: dict[str, str]) -> list[str]:
    return [
        f"{name} in {place}, {spelling}"
        for place, content in places.items()
        for name, secret in secrets.items()
        for spelling, text in spellings(secret).items()
        if text in content
    ]


def test_the_search_finds_every_spelling() -> None:
    """A canary that is somewhere is found, however it is written there."""
    for spelling, text in spellings("a canary that sings").items():
        assert [] != leaks({"place": b"xx" + text + b"yy"}, {"canary": "a canary that sings"}), spelling


@pytest.fixture(params=SETUPS)
def setup(request: pytest.FixtureRequest) -> Setup:
    return SETUPS[request.param]


class House:
    """A daemon with everything turned on, and all that it writes."""

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.data, self.audit = folder / "s.db", folder / "audit.log"
        self.operator = make_token(str(self.data), "operator", "--admin")
        self.token = make_token(str(self.data), "shop", "--namespace", "default")
        more: list[str] = []
        if setup.encrypted:
            keys = folder / "keys"
            made = subprocess.run([sys.executable, "-m", "sessiond", "key", "new"], capture_output=True, check=True)
            keys.write_bytes(made.stdout)
            more = ["--encryption-keys", str(keys)]
        self.daemon = Daemon("--adjustable-clock", "--audit", str(self.audit), *more, data=str(self.data))
        self.daemon.token = self.token

    def places(self) -> dict[str, bytes]:
        """All that is left of what went through, while the daemon runs."""
        proc = Path(f"/proc/{self.daemon.pid}")
        files = {
            path.name: path.read_bytes()
            for path in self.data.parent.iterdir()
            if path.is_file() and path.name != "keys"
        }
        return {
            **files,
            "log": self.daemon.log.encode(),
            "metrics": self.daemon.ask("GET", "/metrics", headers={"Authorization": f"Bearer {self.operator}"}).body,
            "cmdline": (proc / "cmdline").read_bytes(),
            "environ": (proc / "environ").read_bytes(),
        }


@pytest.fixture
def house(tmp_path: Path, setup: Setup) -> Iterator[House]:
    house = House(tmp_path, setup)
    yield house
    house.daemon.close()


# Every way in. Each uses the sid, the token and the payload, rightly and wrongly, and leaves a session behind.


def rest(house: House, sid: str) -> None:
    daemon, path = house.daemon, f"/v1/sessions/{sid}"
    body = json.dumps({"p": PAYLOAD})
    for method in ("PUT", "GET", "PATCH", "HEAD", "POST", "DELETE", "PUT", "OPTIONS", "BREW"):
        daemon.ask(method, path, body if method in ("PUT", "PATCH") else None)
    for wrong in ("?ttl=x", "?nothing=1", "/nowhere", "/touch?ttl=-1", "/rotate?grace=99999999", "?ttl=999999999"):
        daemon.ask("PUT", path + wrong, body)
        daemon.ask("POST", path + wrong)
    daemon.ask("GET", path, headers={"If-Match": f'"{sid}"', "Accept": f"text/{sid}"})
    daemon.ask("PUT", path, PAYLOAD)  # no JSON
    daemon.ask("PUT", path, body, {"Content-Type": f"text/{sid}"})
    daemon.ask("GET", f"/v1/sessions?user={sid}&cursor={sid}&limit={sid}")
    daemon.ask("GET", f"/v1/events?after={sid}")
    daemon.ask("GET", f"/{sid}")
    daemon.ask("GET", "/v1/sessions/count", headers={"Authorization": f"Basic {house.token}"})
    daemon.ask("GET", f"/v1/sessions/count?token={house.token}")
    daemon.ask("GET", path, headers={"Authorization": f"Bearer {house.token}x"})
    daemon.ask("GET", path, headers={"Session-Namespace": "blog"})
    daemon.ask("GET", path, headers={"Origin": f"https://{sid}.example"})
    daemon.ask("PUT", path, body)


def malformed(house: House, sid: str) -> None:
    bearer = f"Authorization: Bearer {house.token}\r\n"
    for request in (
        f"GET /v1/sessions/{sid} HTTP/9.9\r\nHost: localhost\r\n{bearer}\r\n",
        f"GET /v1/sessions/{sid}\r\n\r\n",
        f"{sid} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        f"GET /v1/sessions/{sid}%zz HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n",
        f"GET /v1/sessions/{sid} HTTP/1.1\r\nHost: localhost\r\n{sid}\r\n{bearer}{bearer}\r\n",
        f"GET /v1/sessions/{sid} HTTP/1.1\r\nHost: {sid}\r\n{bearer}\r\n",
        f"PUT /v1/sessions/{sid} HTTP/1.1\r\nHost: localhost\r\n{bearer}Transfer-Encoding: chunked\r\n\r\nzz\r\n{PAYLOAD}",
        f"PUT /v1/sessions/{sid} HTTP/1.1\r\nHost: localhost\r\n{bearer}Content-Type: application/json\r\n"
        f"Content-Length: 100\r\n\r\n{PAYLOAD}",
        f"GET /{sid * 400} HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n",
        PAYLOAD + "\r\n\r\n",
    ):
        house.daemon.raw(request.encode(), half_close=True)


def stream(house: House, sid: str) -> None:
    bearer = f"Authorization: Bearer {house.token}\r\n"
    data = json.dumps({"p": PAYLOAD}).encode()
    with Stream(house.daemon.host, house.daemon.port, headers=bearer) as line:
        key = key_of(sid)
        line.ask(["set", key, "json", data], ["get", sid], ["get", sid.encode()], [sid], ["watch", sid])
        line.ask(["patch", key, "json", PAYLOAD.encode()], ["set", key, "json", data, sid], ["list", None, data])
        line.ask(["touch", key], ["create", key, "json", data], ["destroy_all", None, None, True])
        for wrong in (sid.encode(), PAYLOAD.encode(), b"\x91" + data):
            with Stream(house.daemon.host, house.daemon.port, headers=bearer) as other:
                other.send(wrong)
                other.until_closed()
    with Stream(house.daemon.host, house.daemon.port, protocol=sid, headers=bearer) as refused:
        assert 400 == refused.status


def blocking_client(house: House, sid: str) -> None:
    with Client(f"http://{house.daemon.host}:{house.daemon.port}", token=house.token) as client:
        client.set(sid, {"p": PAYLOAD}, user="ada")
        client.patch(sid, {"q": PAYLOAD})
        client.update(sid, lambda data: data | {"n": 1})
        client.rotate(client.rotate(sid), new_sid=sid)
        with suppress(Exception):
            client.create({"p": PAYLOAD}, sid=sid)
        client.touch(sid)


def asyncio_client(house: House, sid: str) -> None:
    async def use() -> None:
        async with AsyncClient(f"http://{house.daemon.host}:{house.daemon.port}", token=house.token) as client:
            await client.set(sid, {"p": PAYLOAD})
            with suppress(Exception):
                await client.set(sid, {"p": PAYLOAD}, when=77)
            async with client.session(sid) as session:
                session["q"] = PAYLOAD

    asyncio.run(use())


WAYS: list[Callable[[House, str], None]] = [rest, malformed, stream, blocking_client, asyncio_client]


def test_nothing_is_left_of_the_canaries(house: House, setup: Setup) -> None:
    """Neither a sid nor a token is in the file, its log, the audit, the log, the metrics, the events, the command line or the
    environment, in any spelling; data is in the file alone, and not even there when it is encrypted."""
    sid = "Canary-" + base64.urlsafe_b64encode(b"sings in the mine at nine").rstrip(b"=").decode()
    secrets = {"sid": sid, "token": house.token, "operator's token": house.operator}
    told = b""
    with closing(Reader(house.daemon)) as reader:
        for way in WAYS:
            way(house, sid)
        house.daemon.ask("DELETE", f"/v1/sessions/{sid}")
        blocking_client(house, sid)
        told = repr(reader.take(3)).encode()
    sessiond_token("rotate", "shop", "--overlap", "1h", "--data", str(house.data))
    wait_until(lambda: b'"event":"tokens"' in house.audit.read_bytes())

    running = {**house.places(), "events": told}
    house.daemon.stop()
    stopped = {f"{name}, afterwards": content for name, content in house_files(house).items()}

    assert [] == leaks({**running, **stopped}, secrets)
    silent = {name: content for name, content in running.items() if setup.hides_payload or not name.startswith("s.db")}
    assert [] == leaks(silent, {"payload": PAYLOAD})
    assert "Traceback" not in house.daemon.log
    # That the search would have found what is there:
    key = key_of(sid)
    assert key in running["s.db"] + running.get("s.db-wal", b"")
    handle = base64.urlsafe_b64encode(key).rstrip(b"=")
    assert handle in running["audit.log"]
    assert handle in told
    if not setup.hides_payload:
        assert PAYLOAD.encode() in running["s.db"] + running.get("s.db-wal", b"")


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_left_of_what_web_apps_do(kind: str, tmp_path: Path) -> None:
    """The ids that an app's browsers had are nowhere at the daemon, nor in the app's own log; nor is what its sessions held."""
    sids: set[str] = set()

    async def go(browser: Browser, method: str, path: str, cookie: str | None = None) -> None:
        await browser.ask(method, path, cookie=cookie)
        if browser.cookie:
            value = urllib.parse.unquote(browser.cookie)
            sids.add(value.removeprefix("s:").rpartition(".")[0] if value.startswith("s:") else value)

    (tmp_path / "daemon").mkdir()
    house = House(tmp_path / "daemon", SETUPS["encrypted"])
    url = f"http://{house.daemon.host}:{house.daemon.port}"
    try:
        with Site(kind, url, tmp_path, SESSIOND_TOKEN=house.token) as site:
            browser = Browser(site)
            payload = urllib.parse.quote(PAYLOAD)
            for method, path in (
                ("POST", f"/set/song/{payload}"),
                ("POST", f"/nested/{payload}"),
                ("POST", "/login/ada"),
                ("GET", "/read"),
                ("POST", "/rotate"),
                ("GET", "/devices"),
                ("POST", "/fail/x"),
            ):
                await go(browser, method, path)
            old = f"{site.kind.cookie}={browser.cookie}"
            await go(browser, "GET", "/read", cookie=f"{old}; {old}")
            await go(browser, "POST", "/logout")
            await go(browser, "POST", f"/set/song/{payload}", cookie=old)
            await go(browser, "POST", f"/set/song/{payload}")
            await browser.close()
            places, app = house.places(), {"the app's log": site.log().encode()}
    finally:
        house.daemon.close()

    assert len(sids) >= 3
    secrets = {**{f"sid {number}": sid for number, sid in enumerate(sids)}, "token": house.token}
    assert [] == leaks({**places, **app}, secrets)
    assert [] == leaks(places, {"payload": PAYLOAD})  # a web server may log its paths, in which it stands here
    assert any(base64.urlsafe_b64encode(key_of(sid)).rstrip(b"=") in places["audit.log"] for sid in sids)


def house_files(house: House) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in house.data.parent.iterdir() if path.is_file() and path.name != "keys"
    }
