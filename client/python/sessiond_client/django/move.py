"""Moving from Django's own database engine, so that nobody has to log in again."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from django.contrib.sessions.backends.base import CreateError
from django.utils import timezone

from .store import SessionStore

#: Rows at a time: each batch is read, copied and then removed.
BATCH = 500
#: Sessions on their way to the daemon at once: those that wait together are on disk together.
THREADS = 32


def move_from_django_db(using: str = "default") -> int:
    """Moves every living session of the table `django_session` to the daemon; returns how many were moved.

    Each keeps its key, so that browsers go on with the cookies that they have, and is renewed. Its row goes once the daemon
    has it: if this is run again, or goes on after an error, it revives nobody who has logged out since. Rows that cannot be
    read, because SECRET_KEY has changed since, say, stay where they are.

    Args:
        using: the database that the table is in.
    """
    from django.contrib.sessions.models import Session  # models can be imported only once apps are ready

    moved, last = 0, ""
    table = Session.objects.using(using)
    living = table.filter(expire_date__gt=timezone.now()).order_by("session_key")
    with ThreadPoolExecutor(THREADS) as threads:
        while rows := list(living.filter(session_key__gt=last).values_list("session_key", "session_data")[:BATCH]):
            copied = [key for key in threads.map(_copy, rows) if key is not None]
            table.filter(session_key__in=copied).delete()
            moved, last = moved + len(copied), rows[-1][0]
    return moved


def _copy(row: tuple[str, str]) -> str | None:
    """The key, if the daemon has the session now."""
    key, text = row
    data = SessionStore().decode(text)
    if not data:
        return None
    store = SessionStore(key)
    store._session_cache = data
    with contextlib.suppress(CreateError):  # it was copied before
        store.save(must_create=True)
    return key
