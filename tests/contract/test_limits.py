"""Limits, as every engine has to keep them: a user's number of sessions, a namespace's number and bytes, and its lifetime."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sessiond.calls import Call, Policy
from sessiond.record import Answer, size_of
from tests.support import (
    HOUR,
    MINUTE,
    NOW,
    TTL,
    Subject,
    brief,
    count,
    create,
    data_of,
    destroy,
    destroy_all,
    entries_of,
    get,
    key,
    list_,
    op,
    patch,
    record_of,
    rotate,
    set_,
    touch,
)

MISSING, OK = ("missing",), ("ok",)
USER_FULL, QUOTA = ("refused", "too_many_sessions"), ("failed", "quota")

TWO = Policy(ttl=TTL, max_sessions_per_user=2)
TWO_REJECT = Policy(ttl=TTL, max_sessions_per_user=2, when_user_full="reject")
THREE = Policy(ttl=TTL, max_sessions=3)
HUNDRED_BYTES = Policy(ttl=TTL, max_bytes=100)

both_ways = pytest.mark.parametrize("policy", [TWO, TWO_REJECT], ids=["evict-oldest", "reject"])
hot_or_reopened = pytest.mark.parametrize("again", [False, True], ids=["hot", "reopened"])


def json_of(size: int) -> bytes:
    """A map whose JSON is that many bytes."""
    return b'{"x":"%s"}' % (b"a" * (size - 8))


async def alive(subject: Subject, *names: str, now: int = NOW, ns: str = "default") -> list[str]:
    answers = await subject.ask(*[get(name, ns=ns) for name in names], now=now)
    return [name for name, answer in zip(names, answers, strict=True) if answer.status == "ok"]


async def at_once(subject: Subject, calls: Sequence[Call], now: int = NOW) -> list[Answer]:
    """Each call on a lane of its own, all submitted in one turn of the loop."""
    return await asyncio.gather(*(subject.one(call, now, subject.engine.lane()) for call in calls))


async def evictions(subject: Subject) -> list[tuple[bytes, str | None, int]]:
    return [(e.key, e.user, e.expired_at) for e in await subject.expired() if e.reason == "evicted"]


# A user's limit ----------------------------------------------------------------------------------------


@hot_or_reopened
async def test_a_session_too_many_evicts_the_one_created_first(subject: Subject, again: bool) -> None:
    """Without renewals the oldest goes: the third session of a user who may have two takes the first one's place."""
    for n, name in enumerate("ab"):
        await subject.one(create(name, user="ann", policy=TWO), NOW + n)
    if again:
        await subject.reopen()

    answer = await subject.one(create("c", user="ann", policy=TWO), NOW + 2)

    assert ("ok", 1) == brief(answer)
    assert ["b", "c"] == await alive(subject, "a", "b", "c", now=NOW + 2)
    assert ("ok", 2) == brief(await subject.one(count("ann"), NOW + 2))


RENEWALS: dict[str, Call] = {
    "touch": touch("a"),
    "get renew": get("a", True),
    "set": set_("a", policy=TWO),
    "patch": patch("a", policy=TWO),
}


@hot_or_reopened
@pytest.mark.parametrize("verb", RENEWALS)
async def test_a_session_too_many_evicts_the_one_renewed_longest_ago(subject: Subject, verb: str, again: bool) -> None:
    """Oldest is who was used least recently, not who was created first; a plain read uses nothing."""
    await subject.ask(create("a", user="ann", policy=TWO), create("b", user="ann", policy=TWO))
    await subject.one(RENEWALS[verb], NOW + 1)
    await subject.one(get("b"), NOW + 2)
    if again:
        await subject.reopen()

    await subject.one(create("c", user="ann", policy=TWO), NOW + 3)

    assert ["a", "c"] == await alive(subject, "a", "b", "c", now=NOW + 3)


@hot_or_reopened
async def test_a_session_too_many_is_refused(subject: Subject, again: bool) -> None:
    """With `reject` the third session of a user is refused and nothing changes; others get theirs."""
    await subject.ask(create("a", user="ann", policy=TWO_REJECT), create("b", user="ann", policy=TWO_REJECT))
    if again:
        await subject.reopen()

    answers = await subject.ask(
        create("c", user="ann", policy=TWO_REJECT),
        set_("d", user="ann", policy=TWO_REJECT),
        create("c", user="bob", policy=TWO_REJECT),
        create("e", policy=TWO_REJECT),
        create("a", user="ann", ns="other", policy=TWO_REJECT),
    )

    assert [USER_FULL, USER_FULL, ("ok", 1), ("ok", 1), ("ok", 1)] == [brief(answer) for answer in answers]
    assert ["a", "b", "c", "e"] == await alive(subject, *"abcde")
    assert [] == await subject.expired()


@pytest.mark.parametrize("late", [-1, 0, 1])
@both_ways
async def test_the_dead_take_no_place(subject: Subject, policy: Policy, late: int) -> None:
    """A session that expires frees its place at that very ms, whether or not a sweep has removed it."""
    await subject.one(create("a", user="ann", policy=policy), NOW - 1)
    await subject.one(create("b", user="ann", policy=policy, ttl=50))

    answer = await subject.one(create("c", user="ann", policy=policy), NOW + 50 + late)

    refused = late < 0 and policy is TWO_REJECT
    assert (USER_FULL if refused else ("ok", 1)) == brief(answer)
    left = ["a", "b"] if refused else ["a", "c"] if late >= 0 else ["b", "c"]
    assert left == await alive(subject, "a", "b", "c", now=NOW + 50 + late)
    assert (late < 0 and policy is TWO) == bool(await evictions(subject))


@both_ways
async def test_whoever_leaves_frees_a_place(subject: Subject, policy: Policy) -> None:
    """Destroyed, given to somebody else, or nobody's: such a session is none of the user's any more."""
    leaving = [destroy("a"), destroy_all("ann", "b"), set_("a", user="bob", policy=policy), patch("a", user="")]
    for turn, leave in enumerate(leaving):
        ns = f"turn {turn}"
        for name in "ab":
            await subject.one(create(name, user="ann", policy=policy, ns=ns))
        moved = [
            destroy("a", ns=ns),
            destroy_all("ann", "b", ns=ns),
            set_("a", user="bob", policy=policy, ns=ns),
            patch("a", user="", policy=policy, ns=ns),
        ][turn]

        answers = await subject.ask(moved, create("c", user="ann", policy=policy, ns=ns))

        assert ("ok", 1) == brief(answers[1]), leave
        assert ["b", "c"] == await alive(subject, "b", "c", ns=ns)
    assert [] == await subject.expired()


@hot_or_reopened
@pytest.mark.parametrize("verb", ["set", "patch", "set that creates"])
@both_ways
async def test_giving_a_session_to_a_user_is_measured(subject: Subject, policy: Policy, verb: str, again: bool) -> None:
    """A set or patch that gives a session to a user counts like a login."""
    await subject.ask(create("a", user="ann", policy=policy), create("b", user="ann", policy=policy))
    if verb != "set that creates":
        await subject.ask(create("c", user="bob", policy=policy))
    if again:
        await subject.reopen()
    give = patch("c", user="ann", policy=policy) if verb == "patch" else set_("c", user="ann", policy=policy)

    answer = await subject.one(give, NOW + 1)

    if policy is TWO:
        assert "ok" == answer.status
        assert ["ann", "ann"] == [entry.user for entry in entries_of(await subject.one(list_("ann"), NOW + 1))]
        assert 1 == len(await evictions(subject))
    else:
        assert USER_FULL == brief(answer)
        assert ["a", "b"] == [n for n in "abc" if key(n) in brief(await subject.one(list_("ann"), NOW + 1))[1]]
        assert ("ok", 0 if verb == "set that creates" else 1) == brief(await subject.one(count("bob"), NOW + 1))


@both_ways
async def test_a_session_that_a_user_has_already_is_not_measured(subject: Subject, policy: Policy) -> None:
    """Whoever writes, renews or rotates a session of a user who is over the limit loses none of his."""
    await subject.ask(*[create(name, user="ann") for name in "abc"])

    answers = await subject.ask(
        set_("a", user="ann", policy=policy),
        patch("a", user="ann", policy=policy),
        set_("b", policy=policy),
        touch("b"),
        rotate("c", "d", HOUR),
        set_("c", user="ann", policy=policy),
    )

    assert {"ok"} == {answer.status for answer in answers}
    assert ["a", "b", "d"] == await alive(subject, "a", "b", "d")
    assert [] == await subject.expired()


async def test_a_limit_that_was_lowered_is_reached_by_the_next_login(subject: Subject) -> None:
    """A limit ends no session by itself; the next session of the user evicts as many as are too many."""
    for n in range(6):
        await subject.one(create(str(n), user="ann"), NOW + n)
    before = await subject.one(count("ann"), NOW + 6)

    await subject.one(create("new", user="ann", policy=TWO), NOW + 6)

    assert ("ok", 6) == brief(before)
    assert ["5", "new"] == await alive(subject, *map(str, range(6)), "new", now=NOW + 6)
    assert [(key(str(n)), "ann", NOW + 6) for n in range(5)] == await evictions(subject)


@both_ways
async def test_a_repeat_is_not_measured_twice(subject: Subject, policy: Policy) -> None:
    """A create that is repeated after a lost answer is answered as done, and nobody makes room for it."""
    await subject.one(create("a", user="ann", policy=policy))
    first = await subject.one(create("b", user="ann", policy=policy, op=op("1")))

    again = await subject.one(create("b", user="ann", policy=policy, op=op("1")))

    assert first == again
    assert ["a", "b"] == await alive(subject, "a", "b")


@hot_or_reopened
async def test_an_evicted_session_stays_dead(subject: Subject, again: bool) -> None:
    """No late save, touch or alias brings back a session that made room; after a restart neither."""
    one = Policy(ttl=TTL, max_sessions_per_user=1)
    await subject.ask(create("a", user="ann", policy=one), rotate("a", "b", HOUR), create("c", user="ann", policy=one))
    if again:
        await subject.reopen()

    answers = await subject.ask(
        *[
            call
            for name in "ab"
            for call in (get(name, True), touch(name), set_(name, when="alive"), set_(name, when=1), patch(name))
        ],
        rotate("a", "x"),
        rotate("b", "x"),
    )

    assert {MISSING} == {brief(answer) for answer in answers}
    assert ["c"] == await alive(subject, "a", "b", "c", "x")


async def test_an_eviction_is_told_with_its_reason(subject: Subject) -> None:
    """An evicted session leaves key, user, namespace, the instant and `evicted`; one that dies by itself `expired`."""
    await subject.ask(*[create(name, user="änn", ns="shop", policy=TWO) for name in "ab"], create("x", ttl=1))
    await subject.one(touch("b", ns="shop"), NOW + 1)
    await subject.one(create("c", user="änn", ns="shop", policy=TWO), NOW + 5)

    await subject.sweep_all(NOW + 9)

    told = [(e.namespace, e.key, e.user, e.expired_at, e.reason) for e in await subject.expired()]
    assert [("shop", key("a"), "änn", NOW + 5, "evicted"), ("default", key("x"), None, NOW + 1, "expired")] == told


@pytest.mark.parametrize("how", ["cold", "hot"])
@pytest.mark.parametrize("when_full", ["evict-oldest", "reject"])
async def test_fifty_logins_at_once(subject: Subject, when_full: Any, how: str) -> None:
    """Of fifty logins of one user at one instant, exactly as many sessions live as he may have, and one is told of each other."""
    five = Policy(ttl=TTL, max_sessions_per_user=5, when_user_full=when_full)
    await subject.ask(create("old 0", user="ann", policy=five), create("old 1", user="ann", policy=five))
    if how == "cold":
        await subject.reopen()

    answers = await at_once(subject, [create(str(n), user="ann", policy=five) for n in range(50)], NOW + 1)

    done = [str(n) for n, answer in enumerate(answers) if answer.status == "ok"]
    names = ["old 0", "old 1", *map(str, range(50))]
    left = await alive(subject, *names, now=NOW + 1)
    assert 5 == len(left)
    assert ("ok", 5) == brief(await subject.one(count("ann"), NOW + 1))
    gone = await evictions(subject)
    if when_full == "evict-oldest":
        assert 50 == len(done)
        assert {key(name) for name in names if name not in left} == {each for each, _, _ in gone}
        assert 47 == len(gone)
    else:
        assert ["old 0", "old 1", *done] == left
        assert [] == gone
    await subject.reopen()
    assert left == await alive(subject, *names, now=NOW + 1)


async def test_many_users_at_once(subject: Subject) -> None:
    """Each user has a limit of his own: logins of many at once, some known and some new, keep all of them."""
    users = [f"user {n}" for n in range(40)]
    await subject.ask(*[create(f"{user} old", user=user, policy=TWO) for user in users[:20]])
    await subject.reopen()

    answers = await at_once(
        subject, [create(f"{user} {n}", user=user, policy=TWO) for n in range(4) for user in users], NOW + 1
    )

    assert {("ok", 1)} == {brief(answer) for answer in answers}
    counts = await subject.ask(*[count(user) for user in users], now=NOW + 1)
    assert {("ok", 2)} == {brief(answer) for answer in counts}


# A namespace's quotas ------------------------------------------------------------------------------------


@hot_or_reopened
async def test_a_full_namespace_takes_no_session_more(subject: Subject, again: bool) -> None:
    """At max_sessions new ones fail with `quota`; everything else goes on, and another namespace notices nothing."""
    await subject.ask(*[create(name, policy=THREE) for name in "abc"])
    if again:
        await subject.reopen()

    refused = await subject.ask(create("d", policy=THREE), set_("e", policy=THREE), create("f", user="x", policy=THREE))
    going_on = await subject.ask(
        get("a"),
        get("a", True),
        touch("a"),
        set_("a", json_of(500), policy=THREE),
        patch("a", policy=THREE),
        rotate("a", "z"),
        create("a", ns="other", policy=THREE),
        destroy("b"),
    )
    after = await subject.ask(create("d", policy=THREE), create("e", policy=THREE))

    assert [QUOTA] * 3 == [brief(answer) for answer in refused]
    assert {"ok"} == {answer.status for answer in going_on}
    assert [("ok", 1), QUOTA] == [brief(answer) for answer in after]
    assert ("ok", 3) == brief(await subject.one(count()))


@pytest.mark.parametrize("swept", [False, True], ids=["unswept", "swept"])
@pytest.mark.parametrize("late", [-1, 0, 1])
async def test_who_dies_frees_a_place_in_the_namespace(subject: Subject, late: int, swept: bool) -> None:
    """A place is free from the ms at which a session expires, swept or not; not a ms before."""
    await subject.ask(create("a", policy=THREE), create("b", policy=THREE), create("c", ttl=50, policy=THREE))
    full = await subject.one(create("d", policy=THREE), NOW + 1)
    if swept:
        await subject.sweep_all(NOW + 50 + late)

    answer = await subject.one(create("d", policy=THREE), NOW + 50 + late)

    assert QUOTA == brief(full)
    assert (QUOTA if late < 0 else ("ok", 1)) == brief(answer)


async def test_a_place_is_free_however_it_was_left(subject: Subject) -> None:
    """Destroyed, destroyed with all, dead and taken over, dead as an alias: a full namespace has room again, and only so much."""
    left: list[tuple[list[Call], int]] = [
        ([destroy("a")], 1),
        ([destroy_all()], 3),
        ([destroy_all("ann")], 1),
        ([rotate("a", "r"), destroy("a")], 0),
        ([rotate("a", "r", HOUR), destroy("a")], 1),
        ([rotate("a", "r"), create("a", policy=THREE)], 0),
    ]
    for turn, (calls, room) in enumerate(left):
        await subject.ask(destroy_all())
        await subject.ask(create("a", user="ann", policy=THREE), create("b", policy=THREE), create("c", policy=THREE))

        await subject.ask(*calls)
        made = await subject.ask(*[create(f"{turn} {n}", policy=THREE) for n in range(4)])

        assert [("ok", 1)] * room + [QUOTA] * (4 - room) == [brief(answer) for answer in made], turn


@hot_or_reopened
async def test_bytes_are_counted_with_user_and_meta(subject: Subject, again: bool) -> None:
    """max_bytes is of data, users and meta together, to the byte."""
    await subject.one(create("a", json_of(50), user="änn", meta={"ip": "::1"}, policy=HUNDRED_BYTES))
    if again:
        await subject.reopen()
    left = 100 - 50 - len("änn".encode()) - len("ip::1")

    answers = await subject.ask(
        create("b", json_of(left + 1), policy=HUNDRED_BYTES),
        create("b", json_of(left), policy=HUNDRED_BYTES),
        create("c", b"", "bytes", policy=HUNDRED_BYTES),
        create("d", b"x", "bytes", policy=HUNDRED_BYTES),
    )

    assert [QUOTA, ("ok", 1), ("ok", 1), QUOTA] == [brief(answer) for answer in answers]


@hot_or_reopened
async def test_what_makes_a_session_smaller_is_always_taken(subject: Subject, again: bool) -> None:
    """In a namespace that is over its bytes a set may shrink a session or keep its size; growing fails and changes nothing."""
    await subject.ask(create("a", b'{"x":"aaaaaaaaaa","y":1}'), create("b", json_of(200)))
    if again:
        await subject.reopen()

    grown = await subject.ask(
        set_("a", b'{"x":"aaaaaaaaaa","y":12}', policy=HUNDRED_BYTES),
        patch("a", b'{"z":1}', policy=HUNDRED_BYTES),
        patch("a", user="ann", policy=HUNDRED_BYTES),
        patch("a", meta={"k": "v"}, policy=HUNDRED_BYTES),
        create("c", policy=HUNDRED_BYTES),
    )
    shrunk = await subject.ask(
        patch("a", b'{"y":2}', policy=HUNDRED_BYTES),
        set_("a", b'{"x":"bbbbbbbbbb","y":1}', policy=HUNDRED_BYTES),
        patch("a", None, ("x",), policy=HUNDRED_BYTES),
        set_("b", json_of(90), policy=HUNDRED_BYTES),
        touch("a"),
        set_("a", b'{"yy":1}', policy=HUNDRED_BYTES),
    )

    assert [QUOTA] * 5 == [brief(answer) for answer in grown]
    assert [("ok", 2), ("ok", 3), ("ok", 4), ("ok", 2), ("ok", 4), ("ok", 5)] == [brief(answer) for answer in shrunk]
    assert {"yy": 1} == data_of(await subject.one(get("a")))


@pytest.mark.parametrize("how", ["cold", "hot"])
async def test_fifty_at_once_into_the_last_places(subject: Subject, how: str) -> None:
    """However many come at once for the last places of a namespace, exactly so many get one."""
    ten = Policy(ttl=TTL, max_sessions=10, max_bytes=10 * 20)
    await subject.ask(*[create(f"old {n}", json_of(20), policy=ten) for n in range(4)], create("dead", ttl=1))
    if how == "cold":
        await subject.reopen()

    answers = await at_once(subject, [create(str(n), json_of(20), policy=ten) for n in range(50)], NOW + 1)

    assert [("ok", 1)] * 6 + [QUOTA] * 44 == sorted(
        (brief(answer) for answer in answers), key=lambda each: each != ("ok", 1)
    )
    assert ("ok", 10) == brief(await subject.one(count(), NOW + 1))


async def test_who_makes_room_makes_it_in_the_namespace_too(subject: Subject) -> None:
    """A login that evicts a session of its user takes its place in the quotas as well, and its bytes."""
    tight = Policy(ttl=TTL, max_sessions_per_user=1, max_sessions=2, max_bytes=100)
    await subject.ask(
        create("a", json_of(40), user="ann", policy=tight), create("b", json_of(40), user="bob", policy=tight)
    )

    answers = await subject.ask(
        create("c", json_of(41), user="ann", policy=tight),
        create("d", json_of(99), user="ann", policy=tight),
        create("e", json_of(10), user="eve", policy=tight),
    )

    assert [("ok", 1), QUOTA, QUOTA] == [brief(answer) for answer in answers]
    assert ["b", "c"] == await alive(subject, *"abcde")


async def test_a_quota_follows_every_change(subject: Subject) -> None:
    """After any sequence of calls, renewals, deaths, sweeps and restarts a namespace takes just as much as is missing."""
    chance = random.Random(20)
    limits = Policy(ttl=TTL, max_sessions=12, max_bytes=900, max_sessions_per_user=4)
    now = NOW
    acts: list[Callable[[str], Call]] = [
        lambda name: create(name, json_of(chance.randrange(8, 200)), user=chance.choice(["", "u", "v"]), policy=limits),
        lambda name: set_(name, json_of(chance.randrange(8, 200)), ttl=chance.choice([None, 1, 50]), policy=limits),
        lambda name: patch(name, b'{"p":%d}' % chance.randrange(10**6), policy=limits),
        lambda name: rotate(name, f"s{chance.randrange(20)}", chance.choice([0, 20])) if name != "s0" else get(name),
        lambda name: touch(name, chance.choice([None, 1, 60])),
        destroy,
    ]
    for turn in range(300):
        batch = [chance.choice(acts)(f"s{chance.randrange(20)}") for _ in range(4)]
        batch = [call for call in batch if getattr(call, "new_key", None) != getattr(call, "address", ("", b""))[1]]
        await subject.ask(*batch, now=now)
        now += chance.choice([0, 0, 1, 7, 40])
        if turn % 40 == 39:
            await subject.engine.sweep(now, 5)
        if turn % 100 == 99:
            await subject.reopen()
        if turn % 10 == 9:
            entries = entries_of(await subject.one(list_(), now))
            used = sum(e.size + len((e.user or "").encode()) for e in entries)
            assert len(entries) <= 12
            assert used <= 900

            over = await subject.ask(
                create("probe", b"x" * (900 - used + 1), "bytes", policy=limits),
                create("probe", b"x" * (900 - used), "bytes", policy=limits),
                destroy("probe"),
                now=now,
            )

            assert [QUOTA, QUOTA if len(entries) == 12 else ("ok", 1), OK] == [brief(answer) for answer in over]


# What nothing gets around ----------------------------------------------------------------------------------


async def test_a_lifetime_is_passed_by_no_sequence_of_calls(subject: Subject) -> None:
    """Renewed every way there is, rotated, evicted around and restarted: a session is dead at its deadline, and stays so."""
    now, name, end = NOW, "s0", NOW + 30 * MINUTE
    await subject.one(create(name, lifetime=30 * MINUTE, user="ann", policy=TWO), now)
    turn = 0
    while now < end - MINUTE:
        now += MINUTE
        turn += 1
        moved = f"s{turn}"
        answers = await subject.ask(
            touch(name, HOUR),
            get(name, HOUR),
            set_(name, when="alive", ttl=HOUR, lifetime=100 * HOUR, policy=TWO),
            patch(name, ttl=HOUR, policy=TWO),
            create(f"other {turn}", user="ann", policy=TWO),
            touch(name),
            rotate(name, moved, HOUR),
            now=now,
        )
        assert {"ok"} == {answer.status for answer in answers}
        assert end == record_of(answers[-1]).expires_at
        name = moved
        if turn % 10 == 0:
            await subject.reopen()

    last = await subject.one(get(name), end - 1)
    dead = await subject.ask(
        touch(name, HOUR), get("s0", True), set_(name, when="alive"), patch(name), rotate(name, "x"), now=end
    )

    assert "ok" == last.status
    assert {MISSING} == {brief(answer) for answer in dead}


def test_the_size_of_a_record_is_what_people_gave() -> None:
    """size_of counts bytes, not characters, and nothing of what the daemon adds."""
    from sessiond.record import Record

    record = Record(b"12345", "bytes", 7, TTL, NOW, NOW, NOW + TTL, user="äö", meta={"ä": "b"}, op=op("1"))

    assert 5 + 4 + 3 == size_of(record)
