"""Sessions that every web process shares, kept by a sessiond daemon.

`Client` is for blocking code, `AsyncClient` for asyncio; `sessiond_client.cookies` makes and reads session cookies.
"""

from ._async import AsyncClient
from ._session import AsyncSession, Session
from ._sync import Client
from ._types import Entry, Event, Listing, Record, Stats
from .errors import (
    AuthError,
    Conflict,
    ConnectFailed,
    DeadlineExceeded,
    Exists,
    Failed,
    InvalidRequest,
    Missing,
    SessiondError,
    Unavailable,
)

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "AuthError",
    "Client",
    "Conflict",
    "ConnectFailed",
    "DeadlineExceeded",
    "Entry",
    "Event",
    "Exists",
    "Failed",
    "InvalidRequest",
    "Listing",
    "Missing",
    "Record",
    "Session",
    "SessiondError",
    "Stats",
    "Unavailable",
]
