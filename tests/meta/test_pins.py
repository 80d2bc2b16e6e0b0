"""Versions below which a library has a hole that sessiond would be reached through."""

import tomllib
from pathlib import Path

from aiohttp import http_parser

ROOT = Path(__file__).parents[2]


def pins(project: str) -> set[str]:
    return set(tomllib.loads((ROOT / project / "pyproject.toml").read_text())["project"]["dependencies"])


def test_known_holes_are_below_the_pins() -> None:
    """aiohttp from 3.14.1 bounds what is pipelined and unpacked, msgpack from 1.2.3 leaks nothing on keys of the wrong kind."""
    assert {"aiohttp>=3.14.1", "msgpack>=1.2.3"} <= pins(".")
    assert {"msgpack>=1.2.3"} == pins("client/python")


def test_requests_are_read_by_the_parser_that_is_fuzzed() -> None:
    """aiohttp has a second parser, in Python, which disagrees with its own in details; it is not the one in use."""
    assert http_parser.HttpRequestParser.__module__ == "aiohttp._http_parser"
