"""What both clients make of a daemon that asks for tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiond_client import AuthError
from sessiond_client.cookies import new_sid
from tests.http.support import Daemon, make_token, sessiond_token, wait_until

from .support import Clients


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    data = str(tmp_path / "s.db")
    make_token(data, "operator", "--admin")
    daemon = Daemon(data=data)
    yield daemon
    daemon.stop()


def url(daemon: Daemon) -> str:
    return f"http://{daemon.host}:{daemon.port}"


def test_a_token_opens_its_namespace(clients: Clients, daemon: Daemon) -> None:
    """With a token the verbs work in its namespace; what it does not allow is AuthError with 403, and nothing is done."""
    client = clients(url(daemon), token=daemon.make_token("shop", "--namespace", "shop"))
    sid = client.create({"a": 1}, user="ada")

    with pytest.raises(AuthError) as caught:
        client.destroy_all(everyone=True)

    assert (caught.value.status, str(caught.value)) == (403, "The token does not allow this here.")
    assert client.get(sid).data == {"a": 1}


@pytest.mark.parametrize("token", [None, "wrong", f"sessiond_{'0' * 12}_{'0' * 64}"])
def test_a_wrong_token_is_no_outage(clients: Clients, daemon: Daemon, token: str | None) -> None:
    """No token, or one that the daemon does not know, is AuthError with 401."""
    with pytest.raises(AuthError) as caught:
        clients(url(daemon), token=token).get(new_sid())

    assert caught.value.status == 401


def test_an_admin_names_the_namespace(clients: Clients, daemon: Daemon) -> None:
    """`namespace` is where an admin's token works; one that does not exist, or is not the token's, is AuthError with 403."""
    shop, admin = daemon.make_token("shop", "--namespace", "shop"), daemon.make_token("root", "--admin")
    sid = clients(url(daemon), token=shop, namespace="shop").create({"a": 1})

    assert clients(url(daemon), token=admin, namespace="shop").get(sid).data == {"a": 1}
    assert clients(url(daemon), token=admin).get(sid) is None
    for token, namespace in ((admin, "nowhere"), (shop, "default")):
        with pytest.raises(AuthError) as caught:
            clients(url(daemon), token=token, namespace=namespace).get(sid)
        assert caught.value.status == 403


def test_a_revoked_token_ends_an_open_connection(clients: Clients, daemon: Daemon) -> None:
    """Calls on a connection whose token was revoked are AuthError with 401 within about a second; before, they are answered."""
    client = clients(url(daemon), token=daemon.make_token("shop"))
    sid = client.create({"a": 1})
    sessiond_token("revoke", "shop", "--data", daemon.data)

    statuses = set()

    def is_out() -> bool:
        try:
            assert client.get(sid).data == {"a": 1}
        except AuthError as error:
            statuses.add(error.status)
        return bool(statuses)

    wait_until(is_out)

    assert statuses == {401}
