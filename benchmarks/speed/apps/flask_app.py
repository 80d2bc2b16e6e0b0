"""Views, in Flask, for gunicorn: `flask_app:make("sessiond")`. What the store is reached by is in SPEED_URL."""

from __future__ import annotations

import os

from flask import Flask, session


def make(store: str) -> Flask:
    """`store`: sessiond or flask-session (on Redis)."""
    app = Flask(__name__)
    url = os.environ["SPEED_URL"]
    if store == "sessiond":
        from sessiond_client import Client
        from sessiond_client.flask import SessiondSessions

        SessiondSessions(app, Client(url))
    else:
        import redis
        from flask_session import Session

        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(url))
        Session(app)

    @app.get("/")
    def views() -> str:
        session["views"] = session.get("views", 0) + 1
        return str(session["views"])

    return app
