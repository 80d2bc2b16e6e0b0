"""TLS in the daemon: what it shows, what it asks for, and that files are looked at before anybody connects."""

import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sessiond.errors import SettingError
from sessiond.http.tls import Certificates
from tests.certificates import Authority, Certificate
from tests.http.support import Daemon, read_all, replies, wait_until

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
KEPT = GET.replace(b"Connection: close\r\n", b"")

Start = Callable[..., Daemon]


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def start() -> Iterator[Start]:
    daemons: list[Daemon] = []

    def start(*arguments: str, listen: str = "127.0.0.1:0") -> Daemon:
        daemons.append(Daemon(*arguments, listen=[listen]))
        return daemons[-1]

    yield start
    for daemon in daemons:
        assert daemon.stop() == 0, daemon.log
        assert "Traceback" not in daemon.log


def secure(daemon: Daemon, context: ssl.SSLContext, name: str = "127.0.0.1") -> ssl.SSLSocket:
    return context.wrap_socket(daemon.connect(timeout=10), server_hostname=name)


def status(daemon: Daemon, context: ssl.SSLContext) -> int:
    """What /healthz answers on a new connection."""
    with secure(daemon, context) as line:
        line.sendall(GET)
        (reply,) = replies(read_all(line))
    return reply.status


def serial(line: ssl.SSLSocket) -> str:
    shown = line.getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


# The files -----------------------------------------------------------------------------------------------


def mistake(cert: str, key: str | None = None, client_ca: str | None = None) -> str:
    with pytest.raises(SettingError) as error:
        Certificates(cert, key, client_ca)
    return str(error.value)


def test_files_that_are_right_are_taken(ca: Authority) -> None:
    """The key may stand in the certificate's file or in one of its own."""
    made = ca.certificate()

    Certificates(made.file, None, None)
    Certificates(made.cert, made.key, ca.file)


def test_files_that_cannot_serve_are_told(ca: Authority, tmp_path: Path) -> None:
    """Each way in which they can be wrong has one sentence, which names the setting and the file."""
    made, other = ca.certificate(), ca.certificate()
    nonsense, empty = tmp_path / "nonsense.pem", tmp_path / "empty.pem"
    nonsense.write_bytes(b"\x00 no PEM")
    empty.touch()

    assert mistake("/no/cert.pem") == "tls_cert, /no/cert.pem, cannot be read: No such file or directory."
    assert mistake(str(tmp_path)) == f"tls_cert, {tmp_path}, cannot be read: Is a directory."
    assert mistake(made.cert, "/no/key.pem") == "tls_key, /no/key.pem, cannot be read: No such file or directory."
    assert mistake(made.cert, other.key) == (
        f"tls_key, {other.key}, is not the key of the certificate in {made.cert}: give the two that were made together."
    )
    assert mistake(made.cert) == (
        f"tls_cert, {made.cert}, does not hold a certificate and its key in PEM: give the key by tls_key."
    )
    for wrong in (str(nonsense), str(empty)):
        assert mistake(wrong, made.key) == (
            f"tls_cert, {wrong}, and tls_key, {made.key}, are not a certificate and its key in PEM."
        )
        assert mistake(made.file, None, wrong) == (
            f"tls_client_ca, {wrong}, holds no certificate that can be read: give a PEM file."
        )


def test_nobody_is_asked_for_a_password(ca: Authority, tmp_path: Path) -> None:
    """An encrypted key ends the start with a sentence, instead of a question to a terminal that nobody watches."""
    made = ca.certificate()
    key = serialization.load_pem_private_key(Path(made.key).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    assert mistake(made.cert, str(locked)).startswith(f"tls_key, {locked}, is encrypted, and nobody is there to type")


def test_a_mistake_ends_the_start(ca: Authority) -> None:
    """The daemon does not come up without the TLS that it was asked for."""
    with pytest.raises(AssertionError, match=r"sessiond: tls_cert, /no/cert\.pem, cannot be read: No such file"):
        Daemon("--tls-cert", "/no/cert.pem")


# Connections ---------------------------------------------------------------------------------------------


def test_the_daemon_speaks_https(start: Start, ca: Authority) -> None:
    """The line of the start says so, an authority's clients get in, and keep their connection as ever."""
    daemon = start("--tls-cert", ca.certificate().file)

    assert f"listens on https://127.0.0.1:{daemon.port}," in daemon.line
    with secure(daemon, ca.trust()) as line:
        line.sendall(KEPT + KEPT + GET)
        found = replies(read_all(line))
    assert [reply.status for reply in found] == [200, 200, 200]
    assert found[0].headers["Server"] is None


def test_a_unix_socket_stays_plain(start: Start, ca: Authority, tmp_path: Path) -> None:
    """What does not leave the machine needs no TLS."""
    path = tmp_path / "s.sock"
    daemon = start("--tls-cert", ca.certificate().file, listen=f"127.0.0.1:0,unix:{path}")

    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(GET)
        (reply,) = replies(read_all(line))

    assert reply.status == 200
    assert f"https://127.0.0.1:{daemon.port} and unix://{path}" in daemon.line


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(start: Start, ca: Authority, version: ssl.TLSVersion) -> None:
    """TLS before 1.2 ends with the handshake."""
    daemon = start("--tls-cert", ca.certificate().file)
    context = ca.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version

    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"), secure(daemon, context):
        pass
    assert status(daemon, ca.trust()) == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_has_to_show_a_certificate_of_the_authority(
    start: Start, ca: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """None, one of another authority, and one that has expired are told so in the alert; one of the authority's is let in."""
    other = Authority(tmp_path, "other")
    daemon = start("--tls-cert", ca.certificate().file, "--tls-client-ca", ca.file)

    for wrong, alert in [
        (None, "HANDSHAKE_FAILURE" if version is ssl.TLSVersion.TLSv1_2 else "ALERT_CERTIFICATE_REQUIRED"),
        (other.certificate("client"), "ALERT_UNKNOWN_CA"),
        (ca.certificate("client", days=-1), "ALERT_CERTIFICATE_EXPIRED"),
    ]:
        context = ca.trust(wrong)
        context.minimum_version = context.maximum_version = version
        with pytest.raises(ssl.SSLError, match=alert):
            status(daemon, context)
    right = ca.trust(ca.certificate("client"))
    right.minimum_version = right.maximum_version = version
    assert status(daemon, right) == 200
    assert daemon.log == ""


def test_a_daemon_for_others_may_ask_for_certificates(start: Start, ca: Authority) -> None:
    """Listening beyond this machine with tls_client_ca needs no --allow-anonymous: whoever gets in was vouched for."""
    daemon = start("--tls-cert", ca.certificate().file, "--tls-client-ca", ca.file, listen="0.0.0.0:0")

    assert status(daemon, ca.trust(ca.certificate("client"))) == 200


def test_what_is_no_tls_is_closed_without_a_word(start: Start, ca: Authority) -> None:
    """Plain HTTP, noise and half a greeting on the TLS port leave no line in the log, and nobody is kept from the daemon."""
    daemon = start("--tls-cert", ca.certificate().file, "--patience", "1s")

    for sent in (GET, b"\x00" * 1000, b"\r\n" * 1000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""):
        with daemon.connect(timeout=20) as line:
            line.sendall(sent)
            read_all(line)

    assert status(daemon, ca.trust()) == 200
    assert daemon.log == ""


def test_a_client_that_ends_its_side_is_no_news(start: Start, ca: Authority) -> None:
    """TLS knows no half of a connection: closing one side is the end, and nothing is logged."""
    daemon = start("--tls-cert", ca.certificate().file)
    for _ in range(3):
        with secure(daemon, ca.trust()) as line:
            line.sendall(KEPT * 20)
            line.unwrap().close()
    assert status(daemon, ca.trust()) == 200

    assert daemon.log == ""


# SIGHUP --------------------------------------------------------------------------------------------------


def renew(made: Certificate, other: Certificate) -> None:
    """Puts another certificate in the place of one."""
    Path(made.file).write_bytes(Path(other.file).read_bytes())


def test_certificates_are_read_again_without_a_connection_being_lost(start: Start, ca: Authority) -> None:
    """After SIGHUP new connections see the new certificate, and those that are open go on."""
    made = ca.certificate()
    daemon = start("--tls-cert", made.file)
    with secure(daemon, ca.trust()) as kept:
        kept.sendall(KEPT)
        assert kept.recv(12) == b"HTTP/1.1 200"
        renew(made, ca.certificate())

        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the certificates were read again" in daemon.log)

        with secure(daemon, ca.trust()) as fresh:
            assert serial(fresh) != serial(kept)
        kept.sendall(GET)
        assert b"HTTP/1.1 200" in read_all(kept)


def test_an_authority_that_is_taken_away_lets_nobody_in(start: Start, ca: Authority, tmp_path: Path) -> None:
    """After SIGHUP the old authority's clients are refused and the new one's let in; the server's certificate stayed."""
    other, trusted = Authority(tmp_path, "other"), tmp_path / "trusted.pem"
    trusted.write_bytes(Path(ca.file).read_bytes())
    daemon = start("--tls-cert", ca.certificate().file, "--tls-client-ca", str(trusted))
    old, new = ca.trust(ca.certificate("client")), ca.trust(other.certificate("client"))
    assert status(daemon, old) == 200

    trusted.write_bytes(Path(other.file).read_bytes())
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the certificates were read again" in daemon.log)

    assert status(daemon, new) == 200
    with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
        status(daemon, old)


def test_a_resumed_session_does_not_outlive_its_authority(start: Start, ca: Authority, tmp_path: Path) -> None:
    """A client of an authority that was taken away does not come back by the session of an earlier connection."""
    other, trusted = Authority(tmp_path, "other"), tmp_path / "trusted.pem"
    trusted.write_bytes(Path(ca.file).read_bytes())
    daemon = start("--tls-cert", ca.certificate().file, "--tls-client-ca", str(trusted))
    old = ca.trust(ca.certificate("client"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with secure(daemon, old) as line:
        line.sendall(GET)
        read_all(line)
        session = line.session
    trusted.write_bytes(Path(other.file).read_bytes())
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the certificates were read again" in daemon.log)

    with old.wrap_socket(daemon.connect(timeout=10), server_hostname="127.0.0.1", session=session) as again:
        again.sendall(GET)
        assert read_all(again) == b""


def test_a_bad_file_keeps_the_old_certificate(start: Start, ca: Authority) -> None:
    """A SIGHUP with a file that cannot serve is told in one line, and changes nothing."""
    made = ca.certificate()
    daemon = start("--tls-cert", made.file)
    Path(made.file).write_text("half a fi")

    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the certificates stay as they were: " in daemon.log)

    assert len([line for line in daemon.log.splitlines() if " ERROR " in line]) == 1
    assert status(daemon, ca.trust()) == 200


def test_sighup_without_certificates_changes_nothing(start: Start) -> None:
    """The signal that ends other programs is taken, and told."""
    daemon = start()

    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the settings were read again" in daemon.log)

    assert daemon.ask("GET", "/healthz").status == 200
