"""Figures: counts that are exact."""

from sessiond.metrics import ROWS, SECONDS, CallFigures, EngineFigures, Histogram


def test_a_bound_belongs_to_its_bucket() -> None:
    """An observation equal to a bound counts under it, as Prometheus' `le` says; a larger one under the next."""
    histogram = Histogram((1, 2, 4))

    for value in (0, 1, 1.5, 2, 4, 4.1, 100):
        histogram.observe(value)

    assert [2, 2, 1, 2] == histogram.counts
    assert 112.6 == histogram.total


def test_bounds_are_in_order() -> None:
    """The bounds grow: bisecting them finds the right bucket."""
    assert sorted(set(SECONDS)) == list(SECONDS)
    assert sorted(set(ROWS)) == list(ROWS)


def test_histograms_share_nothing() -> None:
    """An observation of one verb or engine is seen in no other."""
    figures, other = CallFigures(), EngineFigures()

    figures.seconds["get"].observe(0.5)
    figures.answered["get", "ok"] += 1

    assert [0] * (len(SECONDS) + 1) == figures.seconds["set"].counts == other.commit_seconds.counts
    assert 0 == figures.answered["get", "missing"]
