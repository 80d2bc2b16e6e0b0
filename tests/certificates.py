"""Authorities and certificates that live as long as a test."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import trustme


class Certificate(NamedTuple):
    """`file`: the certificate with its chain, and its key, in one PEM file; `cert` and `key` alone."""

    file: str
    cert: str
    key: str


class Authority:
    """A certificate authority of the test's own. `file`: its certificate, in PEM."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self._name = name
        self._made = 0
        self.file = str(folder / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def certificate(self, identity: str = "127.0.0.1", days: int = 1) -> Certificate:
        """For a server or a client of that name or address, from now on for so many days; or until so many days ago."""
        self._made += 1
        now = datetime.now(UTC)
        leaf = self._ca.issue_cert(identity, not_before=now - timedelta(days=30), not_after=now + timedelta(days=days))
        files = Certificate(
            *(str(self._folder / f"{self._name}{self._made}{end}.pem") for end in ("", "-cert", "-key"))
        )
        leaf.private_key_and_cert_chain_pem.write_to_path(files.file)
        leaf.cert_chain_pems[0].write_to_path(files.cert)
        leaf.private_key_pem.write_to_path(files.key)
        return files

    def trust(self, certificate: Certificate | None = None) -> ssl.SSLContext:
        """What a client needs that trusts this authority alone, and shows this certificate."""
        context = ssl.create_default_context(cafile=self.file)
        if certificate is not None:
            context.load_cert_chain(certificate.file)
        return context
