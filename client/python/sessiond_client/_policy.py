"""What to do when things fail, for both clients: where to connect and when, and which call may be sent again.

Decisions only: the time comes in as an argument, in seconds of a clock that never goes back.

While no daemon can be reached, callers wait through the first `patience` seconds of the outage, since a restart takes
less. After that they fail at once, so that a web process does not fill up with waiting requests; somebody's call makes
the next attempt whenever one is due.
"""

from __future__ import annotations

import logging
import os
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ._protocol import Answer, Call
from ._urls import Address
from .errors import ConnectFailed, DeadlineExceeded, SessiondError, Unavailable

log = logging.getLogger("sessiond_client")

T = TypeVar("T")
E = TypeVar("E", bound=Unavailable)

FIRST_PAUSE, PATIENT_PAUSE, LONGEST_PAUSE = 0.05, 0.2, 1.0
"""Seconds between attempts: they double from the first, up to the second while callers wait for them, then to the last."""
LONGEST_COMEBACK = 5.0
"""Seconds between two attempts of a reader of events, at most."""
MAX_REPEATS = 2
UPDATE_ATTEMPTS = 50


class Route:
    """The addresses, which of them comes first, and the outage there may be."""

    def __init__(
        self, addresses: Sequence[Address], patience: float, chance: Callable[[], float] = random.random
    ) -> None:
        self._addresses = addresses
        self._patience = patience
        self._chance = chance
        self._first = 0
        self._failures = 0
        self._outage_began = 0.0
        self._next_attempt = 0.0
        self.error: SessiondError | None = None  #: why the last attempt failed; None when it did not

    def order(self) -> list[Address]:
        """All addresses, in the order in which to try them: the last good one leads."""
        return [*self._addresses[self._first :], *self._addresses[: self._first]]

    @property
    def timeout(self) -> float:
        """Seconds for one address, so that a silent one leaves time for the others."""
        return self._patience / len(self._addresses)

    def succeeded(self, address: Address) -> None:
        """A connection is open: the outage, if there was one, is over."""
        self._first = self._addresses.index(address)
        if self.error is not None:
            log.info("sessiond can be reached again, at %s", address.url)
        self._failures, self.error = 0, None

    def avoid(self, address: Address) -> None:
        """This daemon stops, or has fallen silent: another one is tried first."""
        if self._addresses[self._first] == address:
            self._first = (self._first + 1) % len(self._addresses)

    def failed(self, now: float, error: SessiondError) -> None:
        """None of the addresses could be reached."""
        if self.error is None:
            self._outage_began = now
        if str(error) != str(self.error):  # once for each reason: callers come by the thousand
            log.warning("%s", error)
        self._failures += 1
        self.error = error
        longest = PATIENT_PAUSE if self.is_patient(now) else LONGEST_PAUSE
        pause = min(longest, FIRST_PAUSE * 2 ** min(self._failures - 1, 10))
        self._next_attempt = now + pause * self._chance()  # full jitter: many processes must not come at once

    def refuse(self, now: float) -> None:
        """Raises the last error when a caller should not wait and no attempt is due."""
        error = self.error  # read once: another thread may end the outage in between
        if error is not None and now < self._next_attempt and not self.is_patient(now):
            raise again(error)

    def pause(self, now: float) -> float:
        """0 when the caller is to make the next attempt; else seconds to wait and then to ask again.

        Raises the last error as `refuse` does.
        """
        self.refuse(now)
        if self.error is None:
            return 0.0
        if now < self._next_attempt:
            return min(self._next_attempt - now, FIRST_PAUSE)
        # While this attempt lasts, others wait for it or fail: they do not all try a daemon that is silent.
        self._next_attempt = now + self._patience
        return 0.0

    def is_patient(self, now: float) -> bool:
        """Whether callers should wait for the next attempt rather than fail."""
        if self.error is None:
            return True
        return isinstance(self.error, ConnectFailed) and now < self._outage_began + self._patience


def connect_failed(tried: Sequence[tuple[Address, Exception]]) -> ConnectFailed:
    """The error for a round in which every address failed, each for its own reason."""
    reasons = "; ".join(f"{address.url}: {reason_of(error)}" for address, error in tried)
    return ConnectFailed(f"No sessiond can be reached ({reasons}). Start one with `sessiond serve`, or check the URL.")


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if not isinstance(error, OSError):
        return str(error)
    if isinstance(error, ssl.SSLError) or error.errno is None or error.errno < 0:  # numbers of another kind
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno)


def again(error: SessiondError) -> SessiondError:
    """An equal error for another caller: one exception object must not collect the tracebacks of many."""
    fresh = type(error)(*error.args)
    fresh.__dict__.update(error.__dict__)
    return fresh


def update_pause(attempt: int, chance: Callable[[], float] = random.random) -> float:
    """Seconds before an update that came too late is tried again: a few times what a write takes, jittered."""
    return min(0.1, 0.001 * float(2 ** min(attempt, 10))) * chance()


class Comeback:
    """When a reader of events comes back. The first connection has to come about within `patience` seconds of `now`; once
    there was one, there is no end to trying: it is a program that waits, and nobody's request."""

    def __init__(self, patience: float, now: float, chance: Callable[[], float] = random.random) -> None:
        self._due = now + patience
        self._chance = chance
        self._failures = 0
        self._was_there = False

    def succeeded(self) -> None:
        self._was_there, self._failures = True, 0

    def pause(self, error: SessiondError, now: float) -> float:
        """Seconds until the next attempt. Raises the error when there never was a connection."""
        if not self._was_there and now >= self._due:
            raise error
        self._failures += 1
        longest = LONGEST_COMEBACK if self._was_there else PATIENT_PAUSE
        pause = min(longest, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10))
        return pause * self._chance()


class Errand(Generic[T]):
    """One call on its way: how often it went out, and for how many of those times the outcome is not known."""

    __slots__ = ("call", "deadline", "sent", "unanswered")

    def __init__(self, call: Call[T], deadline: float) -> None:
        self.call = call
        self.deadline = deadline
        self.sent = 0
        self.unanswered = 0

    def goes_out(self) -> None:
        """The call is being sent."""
        self.sent += 1
        self.unanswered += 1

    def was_held_back(self) -> None:
        """Sending failed half-way, so the daemon cannot have understood it."""
        self.sent -= 1
        self.unanswered -= 1

    def was_turned_away(self) -> None:
        """The daemon answered that it began no work on it."""
        self.unanswered -= 1

    def may_go_again(self) -> bool:
        """Whether the call may be sent once more, now that its answer is not to be had."""
        return self.sent <= MAX_REPEATS and (self.call.may_repeat or not self.unanswered)

    def result(self, answer: Answer) -> T:
        """The value that the answer to the last sending means, or its error."""
        return self.call.result(answer, in_doubt=self.unanswered > 1)

    def lost(self, reason: str) -> Unavailable:
        """The error for a connection that broke before the answer came."""
        return self._explain(Unavailable, f"The connection broke before the answer came ({reason})")

    def late(self, seconds: float) -> DeadlineExceeded:
        """The error for an answer that did not come in time."""
        return self._explain(DeadlineExceeded, f"No answer came within {seconds:g} s")

    def unreachable(self, error: SessiondError) -> SessiondError:
        """The error for a call that found no connection, the first time or for its repeat."""
        if isinstance(error, ConnectFailed) and self.call.writes and self.unanswered:
            return ConnectFailed(
                f"{error} Whether the write was carried out before is not known.", outcome_unknown=True
            )
        return again(error)

    def _explain(self, kind: type[E], what: str) -> E:
        if not self.call.writes:
            return kind(f"{what}; it was only a read, try again.")
        if not self.unanswered:
            return kind(f"{what}; nothing was written, try again.")
        return kind(f"{what}; whether the write was carried out is not known.", outcome_unknown=True)
