"""A login, a cart, ratings, "my devices", and log out everywhere, in Flask with Flask-Login.

    gunicorn "with_flask:make()" --worker-class gthread --threads 8 --workers 4 --bind 127.0.0.1:8001

`flask.session` is what it always was, and Flask-Login is used as it always is: the session interface is all that is new.
"""

import os
from typing import cast

from flask import Flask, abort, redirect, session
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_user  # type: ignore[import-untyped]

from sessiond_client import Client, cookies
from sessiond_client.flask import SessiondSession, SessiondSessions


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def here() -> str | None:
    """The id of this browser's session."""
    return cast(SessiondSession, session).sid


def make() -> Flask:
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=os.environ.get("DEVICES_SECRET", "only for trying out"),
        SESSION_USE_SIGNER=True,
    )
    client = Client()  # SESSIOND_URL, or http://127.0.0.1:7377
    SessiondSessions(app, client)
    LoginManager(app).user_loader(User)

    @app.get("/")
    def home() -> ResponseReturnValue:
        name = current_user.id if current_user.is_authenticated else "nobody"
        return f"{name}: {', '.join(session.get('cart', [])) or 'nothing'}\n"

    @app.post("/add/<thing>")
    def add(thing: str) -> ResponseReturnValue:
        """A change inside a value counts like any other: no `session.modified = True`."""
        session.setdefault("cart", []).append(thing)
        return "added\n"

    @app.post("/rate/<thing>/<int:stars>")
    def rate(thing: str, stars: int) -> ResponseReturnValue:
        """Each thing has an entry of its own, so that any number of tabs may rate at once."""
        session[f"stars of {thing}"] = stars
        return "rated\n"

    @app.get("/ratings")
    def ratings() -> ResponseReturnValue:
        return f"{sum(name.startswith('stars of ') for name in session)} rated\n"

    @app.post("/login/<name>")
    def login(name: str) -> ResponseReturnValue:
        """Flask-Login's `_user_id` says whose session it is; because that changes, the session gets a new id."""
        login_user(User(name))
        return redirect("/")

    @app.get("/devices")
    def devices() -> ResponseReturnValue:
        if not current_user.is_authenticated:
            abort(403)
        key = cookies.key_of(here() or "")
        lines = [
            f"{entry.meta['agent'] if entry.meta else '?'}{' (this one)' if entry.key == key else ''}\n"
            for entry in client.list(user=current_user.id)
        ]
        return "".join(sorted(lines))

    @app.post("/logout")
    def logout() -> ResponseReturnValue:
        """Ends the session, with all that is in it; Flask-Login's `logout_user` would leave the cart."""
        session.clear()
        return "bye\n"

    @app.post("/logout-everywhere")
    def logout_everywhere() -> ResponseReturnValue:
        """All other devices; this one stays."""
        if not current_user.is_authenticated:
            abort(403)
        return f"{client.destroy_all(user=current_user.id, except_sid=here())} others logged out\n"

    @app.errorhandler(403)
    def forbidden(error: Exception) -> ResponseReturnValue:
        return "log in first\n", 403

    return app
