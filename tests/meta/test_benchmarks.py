"""The table of the benchmark program holds together, and is judged as it says. No server is started here."""

import importlib
from typing import Any

import pytest

lines: Any = importlib.import_module("benchmarks.speed.lines")  # its libraries are no dependencies of the tests
report: Any = importlib.import_module("benchmarks.speed.report")
stores: Any = importlib.import_module("benchmarks.speed.stores")


@pytest.mark.parametrize("line", lines.LINES, ids=lambda line: line.name)
def test_a_line_compares_figures_of_stores_that_exist(line: Any) -> None:
    """Each aim is between two different stores of the table, in a figure that has a name, and says which way is better."""
    assert line.aims
    for aim in line.aims:
        assert {aim.peer, aim.ours} <= stores.STORES.keys()
        assert aim.peer != aim.ours
        assert aim.figure in lines.FIGURES
        assert aim.better in {"more", "less"}


def test_every_store_is_compared() -> None:
    """A store that no line needs is none."""
    used = set().union(*(stores.all_of(store) for line in lines.LINES for store in line.stores))

    assert stores.STORES.keys() == used


def test_the_names_of_lines_are_different() -> None:
    """Results are kept by name."""
    assert len(lines.LINES) == len({line.name for line in lines.LINES})


@pytest.mark.parametrize(("better", "met"), [("more", True), ("less", False)])
def test_an_aim_is_judged_by_the_median_of_the_ratios(better: str, met: bool) -> None:
    """Each round gives a ratio of ours to the peer's; one round that went wrong decides nothing."""
    rounds = [
        {"redis": {"rate": peer}, "sessiond": {"rate": ours}} for peer, ours in ((100, 300), (200, 440), (100, 10))
    ]

    found = report.compare(lines.Aim("redis", "rate", better, 2.0), rounds)

    assert {"peer": 100, "ours": 300, "ratio": 2.2, "least": 0.1, "most": 3.0, "met": met} == found
