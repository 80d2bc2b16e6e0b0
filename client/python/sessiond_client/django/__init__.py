"""Sessions for Django: `SESSION_ENGINE = "sessiond_client.django"`. Tested with Django 5.2 and 6.1.

MIDDLEWARE = [..., "sessiond_client.django.SessionMiddleware", ...]  # in the place of Django's, which works too

def visit(request):
    request.session["views"] = request.session.get("views", 0) + 1   # in an async view: aget, aset

In INSTALLED_APPS the name of this package brings checks of the settings.
"""

from .middleware import SessionMiddleware
from .move import move_from_django_db
from .options import async_client, client
from .store import SessionStore

__all__ = ["SessionMiddleware", "SessionStore", "async_client", "client", "move_from_django_db"]
