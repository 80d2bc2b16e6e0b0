"""A short run of the crash program; `make crash` is the long one."""

import random
from pathlib import Path

from tests.system.crash import crash

KILLS = 12


async def test_kill_9_loses_nothing_acknowledged_and_revives_nothing(tmp_path: Path) -> None:
    """Under eight writing clients and kill -9 at random moments, every acknowledged write is there after each restart,
    and no destroyed session is."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # shown when it fails

    tally = await crash(KILLS, seed, tmp_path)

    assert KILLS == len(tally.ready_after)
    assert tally.acknowledged > 100
    assert tally.checked > 100
