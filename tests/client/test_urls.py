"""Addresses and the other things that a client is told."""

from __future__ import annotations

from typing import Any

import pytest

from sessiond_client import AsyncClient, Client, InvalidRequest
from sessiond_client._urls import Address, parse_urls


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("http://host:1", Address("http://host:1", "host", 1), "host:1"),
        ("http://host", Address("http://host", "host", 7377), "host:7377"),
        ("http://host:1/", Address("http://host:1", "host", 1), "host:1"),
        ("https://host:2", Address("https://host:2", "host", 2, tls=True), "host:2"),
        ("http://[::1]:3", Address("http://[::1]:3", "::1", 3), "[::1]:3"),
        ("unix:///run/zoë.sock", Address("unix:///run/zoë.sock", path="/run/zoë.sock"), "localhost"),
    ],
)
def test_one_url(url: str, address: Address, authority: str) -> None:
    """Each form of URL is the address that it names."""
    assert parse_urls(url) == (address,)
    assert address.authority == authority


def test_several_urls() -> None:
    """Several stand in a list or between commas, and keep their order."""
    expected = ("http://b:1", "http://a:1")

    assert tuple(each.url for each in parse_urls("http://b:1, http://a:1")) == expected
    assert tuple(each.url for each in parse_urls(["http://b:1", "http://a:1"])) == expected


def test_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL it is the environment's, and without that this machine."""
    monkeypatch.setenv("SESSIOND_URL", "http://there:1,http://here:2")
    assert [each.host for each in parse_urls(None)] == ["there", "here"]
    monkeypatch.delenv("SESSIOND_URL")
    assert [each.url for each in parse_urls(None)] == ["http://127.0.0.1:7377"]


NONSENSE: list[Any] = [
    "",
    "host:7377",
    "redis://host:1",
    "http://",
    "http://:1",
    "http://host:x",
    "http://host:0",
    "http://host:65536",
    "http://host:1/path",
    "http://host:1?query",
    "http://host:1/#fragment",
    "http://user:hunter2@host:1",
    "http://hunter2@host:1",
    "http://ho st:1",
    "http://host\n:1",
    "http://höst:1",
    "http://[::1",
    "unix://",
    "unix://relative",
    "unix:///",
    "http://a:1,",
    [],
    [None],
    [b"http://a:1"],
]


@pytest.mark.parametrize("url", NONSENSE, ids=repr)
def test_nonsense(url: Any) -> None:
    """Anything else is refused with a sentence that shows the right forms, and no password."""
    with pytest.raises(InvalidRequest, match="unix:///") as caught:
        parse_urls(url)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "options",
    [
        {"token": "a\r\nX: y"},
        {"token": "ä"},
        {"token": ""},
        {"token": b"x"},
        {"namespace": "Shop"},
        {"namespace": "a\r\nX: y"},
        {"namespace": "shop\n"},
        {"namespace": ""},
        {"namespace": 1},
        {"deadline": 0},
        {"deadline": float("nan")},
        {"deadline": True},
        {"deadline": "2"},
        {"format": "pickle"},
        {"format": "bytes"},
    ],
    ids=str,
)
def test_wrong_options(kind: Any, options: dict[str, Any]) -> None:
    """A client that could not work is refused when it is made."""
    with pytest.raises(InvalidRequest):
        kind("http://127.0.0.1:1", **options)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_token_may_come_from_the_environment(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SESSIOND_TOKEN is used unless a token is given; one that cannot stand in a header is refused from there too."""
    monkeypatch.setenv("SESSIOND_TOKEN", "from-outside")
    assert kind("http://h:1")._options.token == "from-outside"
    assert kind("http://h:1", token="given")._options.token == "given"

    monkeypatch.setenv("SESSIOND_TOKEN", "")
    assert kind("http://h:1")._options.token is None

    monkeypatch.setenv("SESSIOND_TOKEN", "line\r\nbreak")
    with pytest.raises(InvalidRequest, match="printable ASCII"):
        kind("http://h:1")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_from_url(kind: Any) -> None:
    """from_url makes what the class makes, and the repr of what it is told hides the token."""
    made = kind.from_url("http://host:1", token="hunter2", namespace="shop", deadline=1, format="json")

    assert made._options == kind("http://host:1", token="hunter2", namespace="shop", deadline=1, format="json")._options
    assert "hunter2" not in repr(made._options)
