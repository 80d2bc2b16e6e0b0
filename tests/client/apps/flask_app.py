"""The app of `tests/client/apps` in Flask. Served by gunicorn as `flask_app:make()`, by Werkzeug as `flask_app`."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, abort, redirect, request, session
from flask.typing import ResponseReturnValue

from sessiond_client import Client, cookies
from sessiond_client.flask import SessiondSessions

from . import TTL


def make() -> Flask:
    client = Client()
    app = Flask(__name__)
    app.config["PERMANENT_SESSION_LIFETIME"] = TTL
    SessiondSessions(app, client, user="user", optional=["/optional/*"])

    @app.get("/untouched")
    def untouched() -> ResponseReturnValue:
        return "untouched", {"Content-Type": "text/plain"}

    @app.get("/read")
    @app.get("/optional/read")
    def read() -> ResponseReturnValue:
        return {"data": {name: session[name] for name in session if name != "user"}, "user": session.get("user")}

    @app.get("/slow/<int:ms>")
    def slow(ms: int) -> ResponseReturnValue:
        session.get("user")
        time.sleep(ms / 1000)
        return read()

    @app.post("/set/<key>/<value>")
    def set_entry(key: str, value: str) -> ResponseReturnValue:
        session.get(key)
        time.sleep(int(request.args.get("hold", 0)) / 1000)
        session[key] = value
        return {}

    @app.post("/nested/<value>")
    def nested(value: str) -> ResponseReturnValue:
        session.setdefault("cart", {"items": []})["items"].append(value)
        return {}

    @app.post("/login/<user>")
    def login(user: str) -> ResponseReturnValue:
        session["user"] = user
        return redirect("/read")

    @app.post("/rotate")
    def rotate() -> ResponseReturnValue:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return {}

    @app.post("/logout")
    def logout() -> ResponseReturnValue:
        session.clear()
        return {}

    @app.post("/clear")
    def clear() -> ResponseReturnValue:
        for name in list(session):
            del session[name]
        return {}

    @app.post("/fail/<key>")
    def fail(key: str) -> ResponseReturnValue:
        session[key] = 1
        abort(500)

    @app.get("/devices")
    def devices() -> ResponseReturnValue:
        sid: str | None = session.sid  # type: ignore[attr-defined]
        here = cookies.key_of(sid) if sid else None
        entries = client.list(user=session.get("user", "nobody"))
        return [{"agent": (e.meta or {}).get("agent"), "this": e.key == here} for e in entries]

    @app.post("/everywhere")
    def everywhere() -> ResponseReturnValue:
        return {"ended": client.destroy_all(user=session.get("user", "nobody"))}

    @app.get("/calls")
    def calls() -> Any:
        return app.json.response(client.stats.calls_sent)

    return app
