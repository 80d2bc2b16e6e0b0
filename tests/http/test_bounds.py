"""How many connections there may be."""

import resource

import pytest

from sessiond.http.bounds import OWN_FILES, connections_for, files_allowed


@pytest.mark.parametrize(
    ("files", "expected"),
    [(1024, 819), (1_048_576, 838_860), (160, 128), (100, 68), (64, 32), (33, 1), (8, 1)],
)
def test_connections_leave_files_for_the_daemon(files: int, expected: int) -> None:
    """80 % of the files, always 32 fewer than all, and one connection whatever happens."""
    assert connections_for(files) == expected
    assert expected == 1 or files - expected >= OWN_FILES


def test_the_limit_is_the_process_own() -> None:
    """The soft limit is what the system holds a process to."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert files_allowed() == (2**20 if soft == resource.RLIM_INFINITY else soft)
