"""Certificates: what the daemon shows, and what it asks of clients. They are read again without a connection being lost."""

import ssl
import time
from pathlib import Path
from typing import Any

from sessiond.errors import SettingError


class Certificates:
    """`key`: None when the file of the certificate holds it too. `client_ca`: whose signature a client's certificate
    must bear; None: clients are not asked for one.

    Raises SettingError, as `reload` does, for files that cannot serve.
    """

    def __init__(self, cert: str, key: str | None, client_ca: str | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._current = self._read()
        self.context = self._read()
        # The context of a listening socket is never changed: OpenSSL can add an authority to it, but take none away.
        # Each handshake is moved to the current one instead; the callback also runs for clients that name no server.
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Reads the files again: new connections get what is in them. After a SettingError the old ones stay."""
        self._current = self._read()

    def _choose(self, connection: Any, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> "_Context":
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        context.sslobject_class = _Line
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without tickets: they are sealed with a key that is only in the memory of one process, and are of use to no other.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        _check_readable("tls_cert", self._cert)
        if self._key is not None:
            _check_readable("tls_key", self._key)
        try:
            context.load_cert_chain(self._cert, self._key, _no_password)
        except _Encrypted as e:
            raise SettingError(
                f"tls_key, {self._key or self._cert}, is encrypted, and nobody is there to type its password: "
                "store it decrypted, readable by the daemon alone."
            ) from e
        except ssl.SSLError as e:
            raise SettingError(self._trouble(e)) from e
        if self._client_ca is not None:
            _check_readable("tls_client_ca", self._client_ca)
            try:
                context.load_verify_locations(self._client_ca)
            except ssl.SSLError as e:
                raise SettingError(
                    f"tls_client_ca, {self._client_ca}, holds no certificate that can be read: give a PEM file."
                ) from e
            context.verify_mode = ssl.CERT_REQUIRED
        context.read_at = time.time()
        return context

    def _trouble(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return (
                f"tls_key, {self._key or self._cert}, is not the key of the certificate in {self._cert}: "
                "give the two that were made together."
            )
        if self._key is None:
            return f"tls_cert, {self._cert}, does not hold a certificate and its key in PEM: give the key by tls_key."
        return f"tls_cert, {self._cert}, and tls_key, {self._key}, are not a certificate and its key in PEM."


def is_stale(line: Any) -> bool:
    """Whether a client has come back by a TLS session from before its authority's file was read the last time: OpenSSL
    does not look at its certificate again then. `line`: the SSL object of a connection after its handshake, or None."""
    if line is None or not line.session_reused or line.context.verify_mode is not ssl.CERT_REQUIRED:
        return False
    return bool(line.session.time <= line.context.read_at)


class _Context(ssl.SSLContext):
    """`read_at`: when its files were read, in s of the wall clock, by which OpenSSL dates its sessions."""

    read_at = 0.0


class _Line(ssl.SSLObject):
    """A handshake that fails says why. OpenSSL leaves its alert in a buffer, which event loops throw away with the
    connection: so it is told apart in two steps, of which the first looks unfinished and lets the alert out."""

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as e:
            self._failure = e
            raise ssl.SSLWantReadError("the alert is to be sent") from e


class _Encrypted(Exception):
    """A key file asks for a password."""


def _no_password() -> str:
    """Instead of OpenSSL's own question on the terminal, at which a daemon would wait for ever."""
    raise _Encrypted


def _check_readable(setting: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as e:
        raise SettingError(f"{setting}, {path}, cannot be read: {e.strerror}.") from e
