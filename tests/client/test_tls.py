"""TLS as both clients see it: a real daemon with certificates that fit, and everything that does not fit and says why."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessiond_client import ConnectFailed
from sessiond_client.cookies import new_sid
from tests.certificates import Authority
from tests.http.support import Daemon

from .peers import Peer, answering
from .support import Clients

Start = Callable[..., str]


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts daemons; their URLs."""
    daemons: list[Daemon] = []

    def start(*arguments: str) -> str:
        daemons.append(Daemon(*arguments))
        return f"https://127.0.0.1:{daemons[-1].port}"

    yield start
    for daemon in daemons:
        assert daemon.stop() == 0, daemon.log


def refusal(clients: Clients, url: str, tls: ssl.SSLContext | None, **options: Any) -> str:
    """Why a client gets no connection: its error names it, and it is a ConnectFailed."""
    client = clients(url, tls=tls, deadline=0.7, **options)
    with pytest.raises(ConnectFailed) as error:
        client.get(new_sid())
    assert f"({url}: " in str(error.value)
    assert not error.value.outcome_unknown
    return str(error.value)


def test_the_authority_given_is_trusted(clients: Clients, start: Start, ca: Authority) -> None:
    """With the authority of the daemon's certificate all goes on as without TLS, large answers too."""
    client = clients(start("--tls-cert", ca.certificate().file, "--max-data", "2MiB"), tls=ca.trust())

    sid = client.create({"large": "x" * 1_000_000})

    assert client.get(sid).data == {"large": "x" * 1_000_000}
    assert client.get(new_sid()) is None


def test_a_certificate_of_its_own_is_shown(clients: Clients, start: Start, ca: Authority) -> None:
    """A client that has a certificate of the authority that the daemon asks for gets in."""
    url = start("--tls-cert", ca.certificate().file, "--tls-client-ca", ca.file)

    assert clients(url, tls=ca.trust(ca.certificate("web-1"))).get(new_sid()) is None


def test_a_daemon_that_nobody_vouches_for_is_refused(
    clients: Clients, start: Start, ca: Authority, tmp_path: Path
) -> None:
    """An authority that is not known, an expired certificate, and one for another name: verified without being asked to."""
    stranger = Authority(tmp_path, "stranger")

    unknown = refusal(clients, start("--tls-cert", ca.certificate().file), None)
    foreign = refusal(clients, start("--tls-cert", ca.certificate().file), stranger.trust())
    expired = refusal(clients, start("--tls-cert", ca.certificate(days=-1).file), ca.trust())
    misnamed = refusal(clients, start("--tls-cert", ca.certificate("sessions.example").file), ca.trust())

    assert "certificate verify failed" in unknown
    assert "certificate verify failed" in foreign
    assert "certificate has expired" in expired
    assert "IP address mismatch" in misnamed


def test_a_client_that_nobody_vouches_for_is_refused(
    clients: Clients, start: Start, ca: Authority, tmp_path: Path
) -> None:
    """No certificate, one of another authority, and an expired one: the client is told which by the daemon's alert."""
    url = start("--tls-cert", ca.certificate().file, "--tls-client-ca", ca.file)
    other = Authority(tmp_path, "other")

    assert "certificate required" in refusal(clients, url, ca.trust())
    assert "unknown ca" in refusal(clients, url, ca.trust(other.certificate("web-1")))
    assert "certificate expired" in refusal(clients, url, ca.trust(ca.certificate("web-1", days=-1)))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_no_connection(clients: Clients, ca: Authority) -> None:
    """A server that speaks nothing newer than TLS 1.1 is not spoken to."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.load_cert_chain(ca.certificate().file)

    with Peer(answering(b""), tls=old) as peer:
        refusal(clients, peer.url, ca.trust())
        clients.close()


def test_the_wrong_scheme_is_no_connection(clients: Clients, start: Start, ca: Authority) -> None:
    """https to a plain port, and http to a TLS port, fail as what they are, and never fall back."""
    secure = start("--tls-cert", ca.certificate().file)
    plain = start()

    assert "wrong version number" in refusal(clients, plain, ca.trust()).lower().replace("_", " ")
    refusal(clients, secure.replace("https", "http"), None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(clients: Clients, status: int) -> None:
    """Wherever it leads: it could lead a token astray."""
    with Peer(answering(b"")) as elsewhere:
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}/v1/stream\r\nContent-Length: 0\r\n\r\n"
        with Peer(answering(moved.encode())) as peer:
            reason = refusal(clients, peer.url, None, token="t0ken")
            clients.close()

        assert elsewhere.connections == 0
    assert f"it answered HTTP {status}" in reason
    assert "t0ken" not in reason
