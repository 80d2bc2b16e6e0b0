"""Many lanes at once on the SQLite engine, with a cache too small for what they use: what must hold in any order."""

import asyncio
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from sessiond.calls import Address, Call, Patch
from sessiond.engine import execute
from sessiond.record import Answer
from tests.support import (
    AMPLE,
    HOUR,
    NOW,
    TTL,
    Subject,
    count,
    create,
    data_of,
    destroy,
    destroy_all,
    get,
    list_,
    patch,
    record_of,
    rotate,
    set_,
    touch,
)

CACHES = [(0, False), (0, True), (3000, False), (3000, True), (AMPLE, False)]
each_cache = pytest.mark.parametrize(
    ("cache_bytes", "slow"), CACHES, ids=["cold", "cold and slow", "tight", "tight and slow", "hot"]
)
LANES = 12
TURNS = 120
KEYS = [f"key {n}" for n in range(6)]


async def opened(folder: Path, cache_bytes: int, slow: bool) -> Subject:
    """`slow`: what is read from the file comes only when no commit is under way any more, as on a busy disk."""
    subject = await Subject(str(folder / "sessions.db"), cache_bytes).open()
    if slow:
        engine: Any = subject.engine
        load = engine._file.load

        async def late(addresses: list[Address]) -> Any:
            found = await load(addresses)
            while (
                engine._gathering.rows or engine._committing is not None or (engine._renewals_due and engine._renewed)
            ):
                await asyncio.sleep(0)
            return found

        engine._file.load = late
    return subject


class Witness:
    """Notes what the lanes were told. Time here is the number of submissions and answers so far."""

    def __init__(self) -> None:
        self.time = 0
        self.lives = 0
        self.made: dict[int, int] = {}  # a life: when its creation was answered
        self.home: dict[int, str] = {}
        self.dead: dict[int, int] = {}  # when the answer came that ended it
        self.versions: defaultdict[int, list[int]] = defaultdict(list)  # those that answers to writes of a life bore
        self.seen_dead: list[str] = []

    def tick(self) -> int:
        self.time += 1
        return self.time

    def see(self, answer: Answer, asked: int) -> None:
        """An answer that shows a session, to a call submitted at `asked`."""
        life = data_of(answer)["life"]
        if self.dead.get(life, asked) < asked:
            self.seen_dead.append(f"life {life} ended at {self.dead[life]} and was shown to a call of {asked}")

    def ended(self, asked: int, key: str | None = None) -> None:
        """A destroy of a key, or of all, submitted at `asked`, was answered."""
        for life, made in self.made.items():
            if made < asked and (key is None or self.home[life] == key):
                self.dead.setdefault(life, self.time)


@each_cache
@pytest.mark.parametrize("seed", [1, 2])
async def test_many_lanes(tmp_path: Path, cache_bytes: int, slow: bool, seed: int) -> None:
    """Whatever races: versions of one life are never given twice, and what was destroyed is not seen again."""
    subject = await opened(tmp_path, cache_bytes, slow)
    witness = Witness()

    async def live(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        lane = subject.engine.lane()
        for turn in range(TURNS):
            now = NOW + turn // 10
            name = chance.choice(KEYS)
            asked = witness.tick()
            what = chance.random()
            if what < 0.3:
                (answer,) = await execute(lane, [get(name, chance.choice([None, True]))], now)
            elif what < 0.5:
                witness.lives += 1
                life = witness.lives
                (answer,) = await execute(lane, [create(name, b'{"life":%d}' % life, user=f"user {number % 3}")], now)
                if answer.status == "ok":
                    witness.home[life] = name
                    witness.made[life] = witness.tick()
                    witness.versions[life].append(1)
            elif what < 0.75:
                (answer,) = await execute(lane, [patch(name, b'{"by %d":%d}' % (number, turn))], now)
                if answer.status == "ok":
                    witness.versions[data_of(answer)["life"]].append(record_of(answer).version)
            elif what < 0.85:
                (answer,) = await execute(lane, [touch(name)], now)
            elif what < 0.95:
                (answer,) = await execute(lane, [destroy(name)], now)
                witness.tick()
                witness.ended(asked, name)
            elif what < 0.97:
                (answer,) = await execute(lane, [destroy_all()], now)
                witness.tick()
                witness.ended(asked)
            else:
                answers = await execute(lane, [count(), list_(), count()], now)
                assert ["ok"] * 3 == [each.status for each in answers]
                await subject.engine.sweep(now, 5)
                continue
            assert answer.status in ("ok", "missing", "exists")
            if answer.record is not None:
                witness.see(answer, asked)

    await asyncio.wait_for(asyncio.gather(*(live(number) for number in range(LANES))), 60)
    last = await subject.ask(*map(get, KEYS))
    counted = await subject.one(count())
    await subject.reopen()
    kept = await subject.ask(*map(get, KEYS))
    await subject.engine.close()

    assert [] == witness.seen_dead
    assert {life: len(set(versions)) for life, versions in witness.versions.items()} == {
        life: len(versions) for life, versions in witness.versions.items()
    }
    assert last == kept
    assert sum(answer.status == "ok" for answer in last) == counted.value
    assert [] == subject.fatal


@each_cache
async def test_no_patch_is_lost(tmp_path: Path, cache_bytes: int, slow: bool) -> None:
    """Patches of different names by many lanes, while the session moves from key to key, are all there in the end."""
    subject = await opened(tmp_path, cache_bytes, slow)
    await subject.one(create("0"))
    moves = 7

    async def write(number: int) -> int:
        lane, done = subject.engine.lane(), 0
        for turn in range(40):
            (answer,) = await execute(lane, [patch("0", b'{"%d.%d":1}' % (number, turn))], NOW)
            done += answer.status == "ok"
        return done

    async def move() -> None:
        lane = subject.engine.lane()
        for n in range(moves):
            await execute(lane, [rotate("0", str(n + 1), HOUR)], NOW)
            await asyncio.sleep(0.005)

    *done, _ = await asyncio.wait_for(asyncio.gather(*(write(number) for number in range(8)), move()), 60)
    (answer,) = await subject.ask(get(str(moves)))
    await subject.engine.close()

    assert [40] * 8 == done
    assert {f"{number}.{turn}" for number in range(8) for turn in range(40)} == set(data_of(answer))
    assert 1 + 8 * 40 == record_of(answer).version


@each_cache
async def test_a_logout_everywhere_leaves_nobody(tmp_path: Path, cache_bytes: int, slow: bool) -> None:
    """However a user's sessions are rotated and written meanwhile, destroy_all ends every one that was there before."""
    subject = await opened(tmp_path, cache_bytes, slow)
    chance = random.Random(5)
    left: list[Any] = []

    for turn in range(25):
        names = [f"{turn}.{n}" for n in range(6)]
        await subject.ask(*[create(name, user="ann") for name in names], create(f"{turn} bob", user="bob"))

        async def disturb(name: str) -> None:
            lane = subject.engine.lane()
            for move in range(3):
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                await execute(lane, [rotate(name, f"{name}.{move}", HOUR), set_(name, when="alive")], NOW)

        async def logout() -> None:
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            await execute(subject.engine.lane(), [destroy_all("ann")], NOW)

        await asyncio.wait_for(asyncio.gather(*map(disturb, names), logout()), 20)
        answers = await subject.ask(count("ann"), *map(get, names), get(f"{turn} bob"))
        left.append((answers[0].value, [answer.status for answer in answers[1:]]))
    await subject.engine.close()

    assert [(0, ["missing"] * 6 + ["ok"])] * 25 == left


@pytest.mark.parametrize("write", [patch("x", b'{"w":2}'), touch("x", 2 * HOUR)], ids=["patch", "touch"])
async def test_a_call_that_waits_twice_sees_what_others_did_meanwhile(tmp_path: Path, write: Call) -> None:
    """What a call found before it had to wait again is not what it acts on, if another lane has changed it since."""
    subject = await opened(tmp_path, 0, slow=True)
    await subject.ask(create("x", b'{"v":1}'), create("y"), rotate("y", "z", HOUR), destroy("z"))
    lanes = [subject.engine.lane() for _ in range(3)]

    await asyncio.wait_for(
        asyncio.gather(
            execute(lanes[0], [rotate("x", "y", HOUR)], NOW),
            execute(lanes[1], [write], NOW),
            execute(lanes[2], [get("x"), count()], NOW),  # a count brings renewals to disk
        ),
        10,
    )
    answer = await subject.one(get("y"))
    await subject.engine.close()

    expected = ({"v": 1, "w": 2}, TTL) if isinstance(write, Patch) else ({"v": 1}, 2 * HOUR)
    assert expected == (data_of(answer), record_of(answer).ttl)
