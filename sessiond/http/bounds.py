"""What one connection may take of the daemon, and how many there may be. Plain values, to which http/ keeps."""

import resource
from dataclasses import dataclass

OWN_FILES = 32
"""Descriptors that are kept from connections: an idle daemon over SQLite has 17 open, a listing or a scrape a few more."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Durations in seconds.

    `patience`: for whatever a client has begun and has to finish: the TLS handshake, the head of a request, its body, a
    long message of the stream, and the reading of an answer. A fifth of what others grant (nginx: 60 s), for what is
    sent here is small and comes from near.

    `idle`: how long a connection may be silent between two requests; longer than the 60 s after which proxies drop one,
    so that the proxy is first.

    `lifetime`: the age at which a connection is ended in good order; None: at none.

    `connections`: how many may be open at once.
    """

    patience: float = 10.0
    idle: float = 75.0
    lifetime: float | None = None
    connections: int = 819


def connections_for(files: int) -> int:
    """How many connections a process may have that may open so many files: 80 %, and never the daemon's own."""
    return max(1, min(files * 4 // 5, files - OWN_FILES))


def files_allowed() -> int:
    """How many files this process may have open (RLIMIT_NOFILE, the soft limit)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft
