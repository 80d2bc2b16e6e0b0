"""What callers see when things fail, the same for both clients: lost answers, dead daemons, odd peers."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from sessiond_client import (
    AuthError,
    Client,
    ConnectFailed,
    DeadlineExceeded,
    Failed,
    SessiondError,
    Unavailable,
)
from sessiond_client._frames import CLOSE, PING, PONG
from sessiond_client.cookies import new_sid
from sessiond_client.testing import Server

from .peers import Peer, Proxy, answering, frame, nobody, read_frame, saying, silent, welcoming
from .support import Clients

REPEATED: dict[str, Callable[[Any, str], Any]] = {
    "set": lambda client, sid: client.set(sid, {"a": 2}, when=1),
    "patch": lambda client, sid: client.patch(sid, {"a": 2}),
    "rotate": lambda client, sid: client.rotate(sid),
    "create": lambda client, sid: client.create({"a": 2}),
    "update": lambda client, sid: client.update(sid, lambda data: data.update(a=data["a"] + 1)),
    "get": lambda client, sid: client.get(sid),
    "touch": lambda client, sid: client.touch(sid),
    "destroy": lambda client, sid: client.destroy(sid),
    "list": lambda client, sid: client.list(everyone=True),
    "count": lambda client, sid: client.count(),
}


def increment(data: dict[str, int]) -> None:
    """A change that shows when it was made twice."""
    data["n"] += 1


@pytest.mark.parametrize("verb", REPEATED)
def test_lost_answer_of_what_may_be_repeated(
    clients: Clients, sessiond_server: Server, sessiond_client: Client, verb: str
) -> None:
    """A call whose answer was lost is repeated, and done once."""
    sid = sessiond_client.create({"a": 1})
    with Proxy(sessiond_server.url) as proxy:
        client = clients(proxy.url, deadline=10)
        proxy.eat = 1

        result = REPEATED[verb](client, sid)

        assert client.stats.repeats == 1
        client.close()
    record = sessiond_client.get(sid)
    if verb in ("set", "patch", "update"):
        assert record is not None
        assert (record.version, record.data) == (2, {"a": 2})
    elif verb == "rotate":
        assert record is None
        assert sessiond_client.get(result) is not None
    elif verb == "create":
        assert sessiond_client.count() == 2
        assert sessiond_client.get(result) is not None
    elif verb == "destroy":
        assert record is None
    else:
        assert result


@pytest.mark.parametrize(
    "write",
    [
        lambda client, sid: client.set(sid, {"a": 2}),
        lambda client, sid: client.set(sid, {"a": 2}, when="alive"),
        lambda client, sid: client.destroy_all(user="ada"),
    ],
    ids=["set-any", "set-alive", "destroy-all"],
)
def test_lost_answer_of_what_must_not_be_repeated(
    clients: Clients, sessiond_server: Server, sessiond_client: Client, write: Callable[[Any, str], Any]
) -> None:
    """A write that would not be recognised is not repeated; the error says that its outcome is not known."""
    sid = sessiond_client.create({"a": 1}, user="ada")
    with Proxy(sessiond_server.url) as proxy:
        client = clients(proxy.url, deadline=10)
        proxy.eat = 1

        with pytest.raises(Unavailable, match="not known") as caught:
            write(client, sid)

        assert caught.value.outcome_unknown
        assert (client.stats.repeats, proxy.connections) == (0, 1)
        assert client.count() in (0, 1)  # the client goes on, on another connection
        client.close()
    record = sessiond_client.get(sid)
    assert record is None or record.version == 2


def test_answers_lost_again_and_again(clients: Clients, sessiond_server: Server) -> None:
    """A call is repeated twice at most."""
    with Proxy(sessiond_server.url) as proxy:
        client = clients(proxy.url, deadline=10)
        proxy.eat = 100

        with pytest.raises(Unavailable) as caught:
            client.get(new_sid())

        assert not caught.value.outcome_unknown
        assert (client.stats.repeats, proxy.eat) == (2, 97)
        client.close()


@pytest.mark.parametrize(
    ("write", "reads_first"),
    [
        (lambda client, sid: client.set(sid, {"n": 1}, when=1), 0),
        (lambda client, sid: client.update(sid, increment), 1),
    ],
    ids=["set", "update"],
)
def test_lost_answer_and_somebody_else_writes(
    clients: Clients,
    sessiond_server: Server,
    sessiond_client: Client,
    write: Callable[[Any, str], Any],
    reads_first: int,
) -> None:
    """When somebody wrote between a write and its repeat, the outcome is unknown: no Conflict, and nothing done twice."""
    sid = sessiond_client.create({"n": 0})
    with Proxy(sessiond_server.url) as proxy:
        client = clients(proxy.url, deadline=10)
        proxy.before_eating = lambda: sessiond_client.update(sid, increment)
        proxy.eat, proxy.spare = 1, reads_first

        with pytest.raises(Unavailable) as caught:
            write(client, sid)

        assert caught.value.outcome_unknown
        client.close()
    record = sessiond_client.get(sid)
    assert record is not None
    assert record.data == {"n": 2}


def test_daemon_killed_and_restarted(clients: Clients, sessiond_server: Server) -> None:
    """Calls wait through a restart that takes less than the deadline; what was acknowledged is still there."""
    client = clients(sessiond_server.url, deadline=10)
    sid = client.create({"a": 1})
    sessiond_server.kill()
    starting = threading.Thread(target=sessiond_server.start)
    starting.start()

    record = client.get(sid)

    starting.join()
    assert record.data == {"a": 1}
    assert client.set(sid, {"a": 2}) == 2


def test_daemon_away(clients: Clients, sessiond_server: Server) -> None:
    """Without a daemon calls fail with ConnectFailed, never with None: at first after the deadline, then at once.

    When it is back, calls succeed again.
    """
    client = clients(sessiond_server.url, deadline=1)
    sid = client.create({"a": 1})
    sessiond_server.kill()
    with pytest.raises(ConnectFailed, match=f"{sessiond_server.url}.*sessiond serve"):
        client.get(sid)

    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(ConnectFailed) as caught:
            client.touch(sid)
    assert time.monotonic() - began < 2
    assert not caught.value.outcome_unknown

    sessiond_server.start()
    until = time.monotonic() + 10
    while True:
        try:
            assert client.get(sid).data == {"a": 1}
            break
        except ConnectFailed:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_nobody_there(clients: Clients) -> None:
    """With no daemon from the start, the error names every address and says how to start one."""
    with nobody() as url:
        client = clients([url, "unix:///nowhere/sessiond"], deadline=0.3)
        sid = new_sid()

        with pytest.raises(ConnectFailed) as caught:
            client.get(sid)

    message = str(caught.value)
    assert url in message
    assert "unix:///nowhere/sessiond" in message
    assert "sessiond serve" in message
    assert sid not in message


def test_fail_over(clients: Clients, sessiond_server: Server) -> None:
    """When the first daemon is gone, the next address is used, and stays in use."""
    with Server() as other, nobody() as url:
        client = clients(f"{url},{sessiond_server.url}, {other.url}", deadline=10)
        sid = client.create({"a": 1})
        sessiond_server.kill()

        assert client.get(sid) is None  # the other daemon does not share the first one's data
        client.create({}, sid=sid)
        assert client.get(sid) is not None


def test_daemon_stops(clients: Clients, sessiond_server: Server) -> None:
    """A daemon that is stopped in an orderly way fails no call where there is another one, not even one that must not
    be repeated: what it has not answered when it closes, it never began."""
    with Server() as other:
        client = clients([sessiond_server.url, other.url], deadline=10)
        sid = new_sid()
        for _ in range(3):
            client.set(sid, {})
        stopping = threading.Thread(target=sessiond_server.stop)
        stopping.start()

        while stopping.is_alive():
            client.set(sid, {})

        client.set(sid, {})
        assert client.stats.connects == 2


def test_turned_away_while_stopping(clients: Clients) -> None:
    """A call that a stopping daemon began no work on goes elsewhere, even if it is one that is not repeated."""
    stopping = msgpack.packb([[1, "failed", "stopping", "The daemon is stopping."]])
    done = msgpack.packb([[1, "ok", 1, 2, 3]])
    with (
        Peer(welcoming(saying(frame(stopping)))) as first,
        Peer(welcoming(saying(frame(done)))) as second,
    ):
        client = clients([first.url, second.url], deadline=10)
        assert client.set(new_sid(), {}) == 1
        client.close()
        client = clients(first.url, deadline=10)
        with pytest.raises(Failed) as caught:
            client.set(new_sid(), {})
        client.close()

    assert caught.value.code == "stopping"


@pytest.mark.parametrize("code", [1001, 4401])
def test_dismissed(clients: Clients, code: int) -> None:
    """A close that says that nothing more was begun, because the daemon stops or the token has ended, sends the call
    over a new connection, even if it is one that is not repeated."""
    said = [frame(code.to_bytes(2, "big"), CLOSE), frame(msgpack.packb([[1, "ok", 1, 2, 3]]))]

    async def dismissing(reader: Any, writer: Any) -> None:
        await saying(said.pop(0))(reader, writer)

    with Peer(welcoming(dismissing)) as peer:
        client = clients(peer.url, deadline=10)
        assert client.set(new_sid(), {}) == 1
        client.close()

    assert said == []


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\n\r\n", ConnectFailed),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectFailed),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", AuthError),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", AuthError),
        (b"HTTP/1.1 500 Oops\r\n\r\n", ConnectFailed),
        (b"HTTP/1.1 503 Stopping\r\n\r\n", ConnectFailed),
        (b"-ERR unknown command\r\n\r\n", ConnectFailed),
        (b"\x00" * 100_000, ConnectFailed),
    ],
    ids=lambda value: value[:24].decode() if isinstance(value, bytes) else None,
)
def test_peers_that_are_no_daemon(clients: Clients, reply: bytes, error: type[SessiondError]) -> None:
    """Whatever else listens there is an error that says so; a redirect is not followed."""
    with Peer(answering(reply)) as peer:
        client = clients(peer.url, deadline=0.3, token="secret-token")
        with pytest.raises(error) as caught:
            client.get(new_sid())
        client.close()

    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        frame(b"\xc1"),
        frame(b"\x80"),
        frame(b"\x91\x01"),
        b"\x81\x02hi",
        b"\xff\xff\xff",
        frame(b"\x03\xef", CLOSE),
        frame(b"\x91\x92\x01\xa2ok"),
    ],
    ids=lambda said: said.hex(),
)
def test_peers_that_speak_garbage(clients: Clients, said: bytes) -> None:
    """Garbage in place of an answer is Unavailable: never None."""
    with Peer(welcoming(saying(said))) as peer:
        client = clients(peer.url, deadline=5)
        with pytest.raises(Unavailable):
            client.get(new_sid())
        client.close()


def test_peer_that_hangs_up(clients: Clients) -> None:
    """A peer that shakes hands and hangs up is no daemon."""

    async def hang_up(*_: Any) -> None: ...

    with Peer(welcoming(hang_up)) as peer:
        client = clients(peer.url, deadline=0.3)
        with pytest.raises(Unavailable):
            client.get(new_sid())
        client.close()


def test_silent_before_the_handshake(clients: Clients, sessiond_server: Server) -> None:
    """A peer that accepts and says nothing costs no more than the deadline, and another address gets its turn."""
    with Peer(silent) as peer:
        alone, both = clients(peer.url, deadline=0.3), clients([peer.url, sessiond_server.url], deadline=2)
        began = time.monotonic()
        with pytest.raises(ConnectFailed):
            alone.get(new_sid())
        assert time.monotonic() - began < 5
        assert both.get(new_sid()) is None
        alone.close()
        both.close()


def test_silent_after_the_handshake(clients: Clients, sessiond_server: Server) -> None:
    """A call that is not answered ends at the deadline; the next goes to another address."""
    with Peer(welcoming(silent)) as peer:
        client = clients([peer.url, sessiond_server.url], deadline=0.5)
        with pytest.raises(DeadlineExceeded, match="not known") as caught:
            client.set(new_sid(), {})
        assert caught.value.outcome_unknown
        if clients.kind == "async":  # what it heard in this call's time was the welcome; now it hears nothing at all
            with pytest.raises(DeadlineExceeded):
                client.get(new_sid())
        assert client.get(new_sid()) is None
        client.close()


def test_pings_are_answered(clients: Clients) -> None:
    """A ping gets its pong, with the same payload, while a call waits."""
    pongs = []

    async def ping(reader: Any, writer: Any) -> None:
        await read_frame(reader)
        writer.write(frame(b"hello", PING))
        pongs.append(await read_frame(reader))
        writer.write(frame(msgpack.packb([[1, "missing"]])))
        await silent(reader, writer)

    with Peer(welcoming(ping)) as peer:
        client = clients(peer.url)
        assert client.get(new_sid()) is None
        client.close()

    assert pongs == [(PONG, b"hello")]


def test_unknown_pushes_and_late_answers_are_ignored(clients: Clients) -> None:
    """Pushes of later versions, and answers that nobody waits for, disturb nothing."""
    message = msgpack.packb([[0, "polka", {"dots": [1, 2]}], [999, "ok"], [1, "missing"]])
    with Peer(welcoming(saying(frame(message)))) as peer:
        client = clients(peer.url)
        assert client.get(new_sid()) is None
        client.close()


def test_token(clients: Clients) -> None:
    """The token travels in the Authorization header of the handshake, and the sid does not travel at all."""
    seen = b""

    async def listen(reader: Any, writer: Any) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\n\r\n")

    with Peer(listen) as peer:
        client = clients(peer.url, token="t0ken")
        with pytest.raises(AuthError) as caught:
            client.get("the-sid")
        client.close()

    assert b"\r\nAuthorization: Bearer t0ken\r\n" in seen
    assert b"t0ken" not in seen.partition(b"\r\n")[0]
    assert caught.value.status == 401


def test_sids_do_not_travel(clients: Clients) -> None:
    """What is sent holds the key, never the sid."""
    seen = []

    async def listen(reader: Any, writer: Any) -> None:
        seen.append(await read_frame(reader))
        writer.write(frame(msgpack.packb([[1, "missing"]])))
        await silent(reader, writer)

    with Peer(welcoming(listen)) as peer:
        client = clients(peer.url)
        client.get("the-sid")
        client.close()

    ((_, message),) = seen
    assert b"the-sid" not in message
    assert msgpack.unpackb(message)[0][1] == "get"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a certificate for 127.0.0.1 that nobody has signed but itself, and of its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    subject = ["-subj", "/CN=sessiond", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def test_tls(clients: Clients, certificate: tuple[str, str]) -> None:
    """Over https the certificate is verified: an unknown one is no connection, one of an authority given is."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    missing = frame(msgpack.packb([[1, "missing"]]))
    with Peer(welcoming(saying(missing)), tls=context) as peer:
        stranger = clients(peer.url, deadline=0.5)
        with pytest.raises(ConnectFailed, match="certificate verify failed"):
            stranger.get(new_sid())
        friend = clients(peer.url, tls=ssl.create_default_context(cafile=certificate[0]))
        assert friend.get(new_sid()) is None
        stranger.close()
        friend.close()
