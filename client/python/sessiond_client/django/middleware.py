"""`SessionMiddleware`: in the place of Django's, for what an engine cannot see.

It reads the cookie strictly, notes the browser's name and address, keeps paths that need no session from waiting for one, and
answers 503 while the daemon is away. The cookie itself looks as Django's own settings say. Under ASGI it never leaves the
event loop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as Stock
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.http import http_date

from ..cookies import SessionCookie
from ..errors import Unavailable
from ..lifecycle import describe
from .options import checked, paths, setting
from .store import SessionStore

#: A sid of ours, or a key of Django's own engines, as sessions that were moved here keep it.
_KEY = re.compile(r"[A-Za-z0-9_-]{43}|[a-z0-9]{32}")


class SessionMiddleware(Stock):
    """Gives every request a session, and saves what its view has changed.

    `SESSIOND_EXCLUDE`: paths whose session is empty and is not kept, such as `/static/*`. `SESSIOND_OPTIONAL`: paths that
    go on with such a session while the daemon is away. `SESSIOND_META`: whether new sessions and logins note the browser's
    name and address, for "my devices"; True unless set.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        if not issubclass(self.SessionStore, SessionStore):
            raise ImproperlyConfigured(
                'sessiond_client.django.SessionMiddleware needs SESSION_ENGINE = "sessiond_client.django".'
            )
        self._excluded, self._optional = paths("SESSIOND_EXCLUDE"), paths("SESSIOND_OPTIONAL")
        self._cookie = checked(
            SessionCookie,
            settings.SESSION_COOKIE_NAME,
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN,
            secure=bool(settings.SESSION_COOKIE_SECURE),
            samesite=settings.SESSION_COOKIE_SAMESITE or None,
            said="SESSION_COOKIE_*",
        )

    def __call__(self, request: HttpRequest) -> Any:
        if self.async_mode:
            return self.__acall__(request)
        is_excluded = self._begin(request)
        response = self.get_response(request)
        if is_excluded:
            return response
        try:
            if self._is_to_be_kept(request, response):
                request.session.finish()
        except Unavailable:
            return self._end(request, away())
        return self._end(request, response)

    async def __acall__(self, request: HttpRequest) -> Any:
        is_excluded = self._begin(request)
        response = await self.get_response(request)
        if is_excluded:
            return response
        try:
            if self._is_to_be_kept(request, response):
                await request.session.afinish()
        except Unavailable:
            return self._end(request, away())
        return self._end(request, response)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answers for a view that got no session, before that is logged as a fault of the app's."""
        return away() if isinstance(exception, Unavailable) else None

    def _begin(self, request: HttpRequest) -> bool:
        """Gives the request its session; whether its path is excluded, so that nothing is to become of that."""
        if request.path_info in self._excluded:
            request.session = self.SessionStore()
            return True
        raw = self._cookie.raw([request.META.get("HTTP_COOKIE", "")])
        store = request.session = self.SessionStore(raw if raw and _KEY.fullmatch(raw) else None)
        store.is_native = isinstance(request, ASGIRequest)
        store.may_lack = request.path_info in self._optional
        if setting("SESSIOND_META", True):
            store.described = describe(request.META.get("HTTP_USER_AGENT"), request.META.get("REMOTE_ADDR"))
        return False

    def _is_to_be_kept(self, request: HttpRequest, response: HttpResponse) -> bool:
        return response.status_code < 500 and isinstance(request.session, SessionStore)

    def _end(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Dresses the response: the cookie as Django sends it, and what caches have to know."""
        store = request.session
        if not isinstance(store, SessionStore):  # the app has put something of its own there
            return response
        if response.status_code == 500 and store.is_refused:  # another middleware got no session
            response = away()
        if store.accessed:
            patch_vary_headers(response, ("Cookie",))
        if response.status_code >= 500 or store.is_lacking:
            if store.has_moved:  # by a login, say, after which something failed: its old key finds nothing any more
                _set_cookie(response, store)
            return response
        if store.lost:
            raise SessionInterrupted(
                "The session ended while this request was using it, perhaps by a logout elsewhere."
            )
        if store.is_alive and store.is_saved:
            _set_cookie(response, store)
        elif store.is_ended and not store.is_alive and settings.SESSION_COOKIE_NAME in request.COOKIES:
            response.delete_cookie(
                settings.SESSION_COOKIE_NAME,
                path=settings.SESSION_COOKIE_PATH,
                domain=settings.SESSION_COOKIE_DOMAIN,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
        return response


def away() -> HttpResponse:
    """What a browser gets that could not be served because the daemon is away; its cookie stays."""
    return HttpResponse(
        "The sessions are away for a moment; try again.\n",
        status=503,
        content_type="text/plain; charset=utf-8",
        headers={"Retry-After": "1", "Cache-Control": "no-store"},
    )


def _set_cookie(response: HttpResponse, store: SessionStore) -> None:
    age = None if store.get_expire_at_browser_close() else store.get_expiry_age()
    response.set_cookie(
        settings.SESSION_COOKIE_NAME,
        store.session_key,
        max_age=age,
        expires=None if age is None else http_date(time.time() + age),
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE or None,
        httponly=settings.SESSION_COOKIE_HTTPONLY or None,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
    if not response.has_header("Cache-Control"):
        response["Cache-Control"] = "no-store"  # whoever keeps this response would hand the session to others
