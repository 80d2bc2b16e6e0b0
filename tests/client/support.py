"""The golden files, and what several tests of the client share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROTOCOL = Path(__file__).parents[1] / "protocol"


def golden(name: str, part: str) -> list[Any]:
    """The rows of one part of a golden file."""
    rows: list[Any] = json.loads((PROTOCOL / name).read_text())[part]
    return rows


def plain(value: Any) -> Any:
    """A value of a golden file with its `{"hex": …}` turned into bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if value.keys() == {"hex"} else {k: plain(v) for k, v in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value
