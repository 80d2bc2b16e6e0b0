"""The errors as values."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from sessiond_client import (
    AuthError,
    Conflict,
    ConnectFailed,
    DeadlineExceeded,
    Exists,
    Failed,
    InvalidRequest,
    Missing,
    Record,
    SessiondError,
    Unavailable,
    errors,
)

RECORD = Record({"secret": "hunter2"}, "msgpack", 3, 60.0, 1, 2, None, None, None)
ALL = [
    SessiondError("x"),
    Unavailable("x", outcome_unknown=True),
    ConnectFailed("x"),
    DeadlineExceeded("x", outcome_unknown=True),
    Failed("x", code="storage_full"),
    AuthError("x", status=401),
    InvalidRequest("x", code="bad_key"),
    Missing(),
    Exists(),
    Conflict(RECORD),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_pickle_and_copy(error: SessiondError) -> None:
    """Every error comes out of pickle and copy with all that it carries."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert (str(twin), twin.__dict__) == (str(error), error.__dict__)


def test_the_tree_is_the_one_drawn() -> None:
    """The tree in the module's docstring names every error, below its base."""
    classes = [each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__]

    assert {type(error) for error in ALL} == set(classes)
    for each in classes:
        (line,) = [line for line in str(errors.__doc__).splitlines() if f" {each.__name__} " in f" {line.strip()} "]
        depth = 0 if each is SessiondError else 2 if each.__base__ is Unavailable else 1
        assert line.index(each.__name__) == [0, 5, 10][depth]


def test_down_is_not_logged_out() -> None:
    """No handler for a missing session catches an unreachable daemon, and the other way round."""
    assert not issubclass(Unavailable, Missing)
    assert not issubclass(Missing, Unavailable)
    assert not issubclass(AuthError, Unavailable)
    assert issubclass(InvalidRequest, ValueError)


def test_a_conflict_shows_no_data() -> None:
    """The text of a Conflict names the version and no value."""
    assert "version 3" in str(Conflict(RECORD))
    assert "hunter2" not in str(Conflict(RECORD))
