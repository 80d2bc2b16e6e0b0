"""Who asks too often. Budgets by client address: for ids that do not exist, and for credentials that are wrong.

Nobody guesses one of 2^256 ids; who tries is a program to be slowed and noticed. The budgets are therefore ample, and
whoever shows good credentials is past them. Pure: the time comes in, in seconds of a clock that never goes back.
"""

from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from math import ceil

from sessiond.errors import Refused

MAX_ADDRESSES = 10_000
"""Addresses that are remembered, some 2 MB. The one that was heard of longest ago is forgotten, and has its budget anew."""

MINUTE = 60.0


class TooMany(Refused):
    """`retry_after`: whole seconds until the budget allows another attempt."""

    def __init__(self, code: str, text: str, retry_after: int) -> None:
        super().__init__(code, text)
        self.retry_after = retry_after


class Budget:
    """A token bucket for each address: `a_minute` at once, and as many again each minute, evenly."""

    def __init__(self, a_minute: int, addresses: int = MAX_ADDRESSES) -> None:
        self._full = float(a_minute)
        self._most = addresses
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what an address had left, and when

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._left)

    def wait(self, address: str, now: float) -> float:
        """Seconds until the address may spend one; 0 when it may now."""
        if not self._left:
            return 0.0
        return max(0.0, (1.0 - self._now(address, now)) * MINUTE / self._full)

    def spend(self, address: str, now: float) -> None:
        """Takes one, as far as one is left."""
        self._left[address] = (max(0.0, self._now(address, now) - 1.0), now)
        self._left.move_to_end(address)
        if len(self._left) > self._most:
            self._left.popitem(last=False)

    def _now(self, address: str, now: float) -> float:
        left, since = self._left.get(address, (self._full, now))
        return min(self._full, left + (now - since) * self._full / MINUTE)


class Limits:
    """The budgets of the daemon, a minute and address; None: no limit. `remote` is the peer's address as the socket
    has it, None for a unix socket: what a header says of another client is anybody's word, and is not read."""

    def __init__(self, misses: int | None = None, failures: int | None = None) -> None:
        self._misses = None if misses is None else Budget(misses)
        self._failures = None if failures is None else Budget(failures)

    def check_misses(self, remote: str | None, now: float) -> None:
        """Before a session is looked for, by a caller without good credentials: refuses whoever has missed too often."""
        if self._misses is not None and (seconds := self._misses.wait(address_of(remote), now)):
            raise TooMany(
                "too_many_misses",
                "Too many unknown ids were asked for from this address; wait a moment.",
                ceil(seconds),
            )

    def missed(self, remote: str | None, now: float) -> None:
        """A session was asked for that does not live."""
        if self._misses is not None:
            self._misses.spend(address_of(remote), now)

    def failed(self, remote: str | None, now: float) -> TooMany | None:
        """Credentials were shown that are wrong, or none where some are asked for. What to answer instead of that, once
        there were too many; the right ones are never asked after this budget."""
        if self._failures is None:
            return None
        address = address_of(remote)
        if seconds := self._failures.wait(address, now):
            return TooMany(
                "too_many_failures", "Too many wrong tokens came from this address; wait a moment.", ceil(seconds)
            )
        self._failures.spend(address, now)
        return None


@lru_cache(4096)
def address_of(remote: str | None) -> str:
    """By what a client is counted: its IPv4 address, the /64 of its IPv6 address, which is what one line is given, or
    `local` for a unix socket."""
    try:
        address = ip_address((remote or "").partition("%")[0])
    except ValueError:
        return "local"
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
