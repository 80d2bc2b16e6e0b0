"""What every engine answers. One suite, run over each of them; `now` is passed in, so nothing here waits for a clock."""

import asyncio
import re
import sqlite3
from collections import Counter
from functools import partial
from typing import Any

import pytest

from sessiond import codec
from sessiond.calls import Call, Policy, check_data
from sessiond.engine import Entry, execute
from sessiond.errors import Refused
from sessiond.record import MAX_HOPS, REPEAT_WINDOW, Answer, Ended
from tests.support import (
    ENGINES,
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

MISSING, EXISTS, OK = ("missing",), ("exists",), ("ok",)

# verb: the call on session "a", its answer on a living session of version 1, its answer where none lives
VERBS: dict[str, tuple[Call, tuple[Any, ...], tuple[Any, ...]]] = {
    "create": (create("a"), EXISTS, ("ok", 1)),
    "get": (get("a"), ("ok", 1), MISSING),
    "get renew": (get("a", True), ("ok", 1), MISSING),
    "get renew ttl": (get("a", 5), ("ok", 1), MISSING),
    "set any": (set_("a"), ("ok", 2), ("ok", 1)),
    "set alive": (set_("a", when="alive"), ("ok", 2), MISSING),
    "set version": (set_("a", when=1), ("ok", 2), MISSING),
    "set other version": (set_("a", when=7), ("conflict", 1), MISSING),
    "patch": (patch("a"), ("ok", 2), MISSING),
    "touch": (touch("a"), ("ok", 1), MISSING),
    "touch ttl": (touch("a", 5), ("ok", 1), MISSING),
    "rotate": (rotate("a", "new"), ("ok", 1), MISSING),
    "destroy": (destroy("a"), OK, OK),
    "count": (count(), ("ok", 1), ("ok", 0)),
    "count user": (count("ann"), ("ok", 1), ("ok", 0)),
    "destroy_all": (destroy_all(), ("ok", 1), ("ok", 0)),
    "destroy_all user": (destroy_all("ann"), ("ok", 1), ("ok", 0)),
}
keeping = pytest.mark.parametrize("subject", [name for name in ENGINES if name != "memory"], indirect=True)
each_verb = pytest.mark.parametrize("verb", VERBS)


# The boundary ----------------------------------------------------------------------------------------


@each_verb
@pytest.mark.parametrize("late", [-1, 0, 1])
async def test_lives_while_now_is_before_expires_at(subject: Subject, verb: str, late: int) -> None:
    """A session lives at expires_at − 1 ms and is gone at expires_at and after, for every verb."""
    call, alive, dead = VERBS[verb]
    await subject.one(create("a", user="ann"))

    answer = await subject.one(call, NOW + TTL + late)

    assert (alive if late < 0 else dead) == brief(answer)


@pytest.mark.parametrize("late", [-1, 0, 1])
async def test_list_shows_the_living_only(subject: Subject, late: int) -> None:
    """A listing shows a session at expires_at − 1 ms and no longer at expires_at, whole and by user."""
    await subject.one(create("a", user="ann"))

    listed = await subject.ask(list_(), list_("ann"), now=NOW + TTL + late)

    assert [("ok", [key("a")] if late < 0 else [])] * 2 == [brief(answer) for answer in listed]


@pytest.mark.parametrize("late", [-1, 0, 1])
async def test_a_grace_ends_at_its_instant(subject: Subject, late: int) -> None:
    """An alias leads to its session until grace ms after the rotation, and not at that instant."""
    await subject.ask(create("a"), rotate("a", "b", grace=50))

    answer = await subject.one(get("a"), NOW + 50 + late)

    assert (("ok", 1) if late < 0 else MISSING) == brief(answer)


# Where no session lives, and where an alias leads ------------------------------------------------------

# state: what makes it, how many ms after NOW the verb comes, and whether a session answers under "a"
STATES: dict[str, tuple[list[Call], int, bool]] = {
    "missing": ([], 0, False),
    "expired": ([create("a", ttl=50, user="ann")], 50, False),
    "destroyed": ([create("a", user="ann"), destroy("a")], 0, False),
    "destroyed with all": ([create("a", user="ann"), destroy_all("ann")], 0, False),
    "rotated away": ([create("a", user="ann"), rotate("a", "b"), destroy("b")], 0, False),
    "alias whose session was destroyed": (
        [create("a", user="ann"), rotate("a", "b", HOUR), destroy("b")],
        0,
        False,
    ),
    "alias whose session expired": ([create("a", user="ann", ttl=50), rotate("a", "b", HOUR)], 50, False),
    "alias that went before its session": (
        [create("a", user="ann"), rotate("a", "b", 50), destroy("b"), create("c", ttl=1)],
        50,
        False,
    ),
    "living alias": ([create("a", user="ann"), rotate("a", "b", HOUR)], 0, True),
    "alias of an alias": ([create("a", user="ann"), rotate("a", "b", HOUR), rotate("b", "c", HOUR)], 0, True),
    "alias rotated through": ([create("a", user="ann"), rotate("a", "b", HOUR), rotate("a", "c", HOUR)], 0, True),
}


@each_verb
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("again", [False, True], ids=["hot", "reopened"])
async def test_each_verb_in_each_state(subject: Subject, verb: str, state: str, again: bool) -> None:
    """A verb answers the same wherever no session lives; on a living alias it answers for the alias' session."""
    before, later, lives = STATES[state]
    call, alive, dead = VERBS[verb]
    await subject.ask(*before)
    if again:
        await subject.reopen()

    answer = await subject.one(call, NOW + later)

    assert (alive if lives else dead) == brief(answer)


@pytest.mark.parametrize("state", [name for name, state in STATES.items() if not state[2]])
@pytest.mark.parametrize("verb", ["get renew", "set alive", "set version", "patch", "touch", "rotate", "destroy"])
async def test_nothing_is_created_where_nothing_lives(subject: Subject, verb: str, state: str) -> None:
    """No verb but create and set with `any` makes a session where none lives."""
    before, later, _ = STATES[state]
    await subject.ask(*before, VERBS[verb][0], now=NOW)

    await subject.ask(*before)
    await subject.one(VERBS[verb][0], NOW + later)
    after = await subject.ask(get("a"), get("new"), count(), now=NOW + later)

    assert [MISSING, MISSING, ("ok", 0)] == [brief(answer) for answer in after]


async def test_grace_0_leaves_the_old_key_dead(subject: Subject) -> None:
    """After a rotation without grace the old key is missing and the new one has everything of the session."""
    (created,) = await subject.ask(create("a", b'{"x":1}', user="ann", meta={"ip": "::1"}, lifetime=HOUR))

    _, old, new = await subject.ask(rotate("a", "b"), get("a"), get("b"), now=NOW + 5)

    before, after = record_of(created), record_of(new)
    assert MISSING == brief(old)
    assert (before.data, before.version, before.created_at, before.deadline, before.user, before.meta) == (
        after.data,
        after.version,
        after.created_at,
        after.deadline,
        after.user,
        after.meta,
    )
    assert NOW + 5 + TTL == after.expires_at


async def test_a_write_through_an_alias_changes_its_session(subject: Subject) -> None:
    """set, patch and touch on a living alias act on the session it leads to; the alias stays one."""
    await subject.ask(create("a"), rotate("a", "b", HOUR))

    await subject.ask(set_("a", b'{"x":1}'), patch("a", b'{"y":2}'), touch("a", 2 * HOUR))
    answers = await subject.ask(get("b"), get("a"), list_())

    assert {"x": 1, "y": 2} == data_of(answers[0])
    assert answers[0] == answers[1]
    assert (3, NOW + 2 * HOUR) == (record_of(answers[0]).version, record_of(answers[0]).expires_at)
    assert ("ok", [key("b")]) == brief(answers[2])


async def test_a_destroy_through_an_alias_kills_its_session(subject: Subject) -> None:
    """destroy on a living alias leaves nothing under either key."""
    await subject.ask(create("a"), rotate("a", "b", HOUR))

    await subject.one(destroy("a"))
    after = await subject.ask(get("a"), get("b"), count())

    assert [MISSING, MISSING, ("ok", 0)] == [brief(answer) for answer in after]


async def test_touching_an_alias_does_not_prolong_the_grace(subject: Subject) -> None:
    """No verb on an alias moves the end of its grace."""
    await subject.ask(create("a"), rotate("a", "b", 50))
    await subject.ask(touch("a"), get("a", True), set_("a"), patch("a"), now=NOW + 49)

    answers = await subject.ask(get("a"), get("b"), now=NOW + 50)

    assert [MISSING, ("ok", 3)] == [brief(answer) for answer in answers]


async def test_rotate_onto_a_living_session_answers_exists(subject: Subject) -> None:
    """rotate to a key where a session or a living alias of one stands answers `exists` and changes nothing."""
    await subject.ask(create("a"), create("b"), create("c"), rotate("c", "d", HOUR))
    before = await subject.ask(get("a"), get("b"), get("c"), list_())

    refused = await subject.ask(rotate("a", "b"), rotate("a", "c"), rotate("a", "d"), now=NOW + 1)
    after = await subject.ask(get("a"), get("b"), get("c"), list_())

    assert [EXISTS] * 3 == [brief(answer) for answer in refused]
    assert before == after


@pytest.mark.parametrize("state", ["expired", "destroyed", "alias", "dead alias"])
async def test_rotate_onto_a_dead_key_takes_it(subject: Subject, state: str) -> None:
    """rotate to a key whose session is dead, or whose alias leads to no living one, moves the session there."""
    await subject.one(create("a", b'{"mine":1}'))
    if state == "expired":
        await subject.one(create("b", ttl=1))
    elif state == "destroyed":
        await subject.ask(create("b"), destroy("b"))
    else:
        await subject.ask(create("b"), rotate("b", "c", 0 if state == "dead alias" else HOUR), destroy("c"))

    moved = await subject.ask(rotate("a", "b"), get("a"), get("b"), now=NOW + 1)

    assert [("ok", 1), MISSING, ("ok", 1)] == [brief(answer) for answer in moved]
    assert {"mine": 1} == data_of(moved[2])


async def test_rotate_back_and_forth(subject: Subject) -> None:
    """A session may return to a key that it left."""
    await subject.ask(create("a", b'{"x":1}'), rotate("a", "b"), rotate("b", "a"))

    answers = await subject.ask(get("a"), get("b"), count())

    assert [("ok", 1), MISSING, ("ok", 1)] == [brief(answer) for answer in answers]


async def test_rotate_to_its_own_alias_answers_exists(subject: Subject) -> None:
    """A living alias of the session itself is no free key: no circle of aliases comes about."""
    await subject.ask(create("a"), rotate("a", "b", HOUR))

    answers = await subject.ask(rotate("b", "a"), rotate("a", "b"), get("a"), get("b"))

    assert [EXISTS, EXISTS, ("ok", 1), ("ok", 1)] == [brief(answer) for answer in answers]


@pytest.mark.parametrize("again", [False, True], ids=["hot", "reopened"])
@pytest.mark.parametrize(("hops", "found"), [(1, True), (MAX_HOPS - 1, True), (MAX_HOPS, True), (MAX_HOPS + 1, False)])
async def test_a_chain_is_followed_so_far(subject: Subject, hops: int, found: bool, again: bool) -> None:
    """MAX_HOPS aliases in a row lead to their session; one more ends in `missing`, for every verb."""
    await subject.one(create("0"))
    for hop in range(hops):
        await subject.one(rotate(str(hop), str(hop + 1), HOUR))
    if again:
        await subject.reopen()

    answers = await subject.ask(get("0"), touch("0"), patch("0"), set_("0", when="alive"), get(str(hops)))

    lasting = ("ok", 3) if found else ("ok", 1)
    expected = [("ok", 1), ("ok", 1), ("ok", 2), ("ok", 3)] if found else [MISSING] * 4
    assert [*expected, lasting] == [brief(answer) for answer in answers]


async def test_a_chain_is_as_long_as_its_shortest_grace(subject: Subject) -> None:
    """When an alias in the middle goes, what lies before it leads nowhere, and what lies behind it still does."""
    await subject.ask(create("a"), rotate("a", "b", HOUR), rotate("b", "c", 50), rotate("c", "d", HOUR))

    answers = await subject.ask(get("a"), get("b"), get("c"), get("d"), now=NOW + 50)

    assert [MISSING, MISSING, ("ok", 1), ("ok", 1)] == [brief(answer) for answer in answers]


async def test_create_under_an_alias_that_leads_nowhere(subject: Subject) -> None:
    """create under a living alias whose session is gone makes a session there, and nothing of the alias is left."""
    await subject.ask(create("a"), rotate("a", "b", HOUR), destroy("b"))

    answers = await subject.ask(create("a", b'{"new":1}'), create("b"), get("a"), get("b"))

    assert [("ok", 1)] * 4 == [brief(answer) for answer in answers]
    assert {"new": 1} == data_of(answers[2])


# Time ------------------------------------------------------------------------------------------------


async def test_a_deadline_is_passed_by_nothing(subject: Subject) -> None:
    """No touch, renewal, set, patch or rotation moves a session past its deadline."""
    deadline = NOW + 2 * MINUTE
    await subject.one(create("a", lifetime=2 * MINUTE))
    late = deadline - 1

    answers = await subject.ask(
        touch("a"),
        touch("a", 3 * HOUR),
        get("a", True),
        get("a", 3 * HOUR),
        set_("a", ttl=3 * HOUR),
        set_("a", ttl=3 * HOUR, lifetime=3 * HOUR),
        patch("a", ttl=3 * HOUR),
        rotate("a", "b", HOUR),
        get("b"),
        now=late,
    )
    after = await subject.ask(get("a"), get("b"), now=deadline)

    assert {(deadline, deadline)} == {(record_of(a).expires_at, record_of(a).deadline) for a in answers}
    assert [MISSING, MISSING] == [brief(answer) for answer in after]


async def test_a_lifetime_given_late_only_brings_the_deadline_nearer(subject: Subject) -> None:
    """A set's lifetime counts from creation; it may shorten the session's life and never prolong it."""
    await subject.one(create("a", lifetime=HOUR))

    answers = await subject.ask(
        set_("a", lifetime=2 * HOUR), set_("a", lifetime=30 * MINUTE), set_("a", lifetime=HOUR), now=NOW + MINUTE
    )

    expected = [NOW + HOUR, NOW + 30 * MINUTE, NOW + 30 * MINUTE]
    assert expected == [record_of(answer).deadline for answer in answers]


async def test_a_lifetime_given_to_a_session_without_one(subject: Subject) -> None:
    """A session without a deadline gets one from a set's lifetime, counted from its creation."""
    await subject.one(create("a"))

    (answer,) = await subject.ask(set_("a", lifetime=TTL // 2), now=NOW + MINUTE)

    assert (NOW + TTL // 2,) * 2 == (record_of(answer).deadline, record_of(answer).expires_at)


@pytest.mark.parametrize("ttl", [1, 5, 3 * HOUR])
async def test_a_ttl_given_stays(subject: Subject, ttl: int) -> None:
    """A ttl given to touch, get-renew, set or patch is the session's ttl from then on."""
    await subject.ask(*[create(name) for name in "abcd"])
    given = await subject.ask(touch("a", ttl), get("b", ttl), set_("c", ttl=ttl), patch("d", ttl=ttl))

    renewed = await subject.ask(*[touch(name) for name in "abcd"], now=NOW + ttl - 1)

    assert {(ttl, NOW + ttl)} == {(record_of(a).ttl, record_of(a).expires_at) for a in given}
    assert {(ttl, NOW + ttl - 1 + ttl)} == {(record_of(a).ttl, record_of(a).expires_at) for a in renewed}


async def test_a_renewal_leaves_version_and_data(subject: Subject) -> None:
    """touch and get with renew change renewed_at, expires_at and ttl, and nothing else."""
    (created,) = await subject.ask(create("a", b'{"x":1}', user="ann", meta={"ip": "::1"}, op=op("1")))

    answers = await subject.ask(touch("a"), get("a", True), get("a"), now=NOW + 5)

    before = record_of(created)
    for answer in answers:
        after = record_of(answer)
        assert (NOW + 5, NOW + 5 + TTL) == (after.renewed_at, after.expires_at)
        assert (before.data, before.version, before.created_at, before.user, before.meta, before.op) == (
            after.data,
            after.version,
            after.created_at,
            after.user,
            after.meta,
            after.op,
        )


async def test_a_read_renews_nothing(subject: Subject) -> None:
    """get without renew, list and count leave expires_at where it is."""
    await subject.one(create("a"))

    await subject.ask(get("a"), list_(), count(), now=NOW + TTL - 1)
    answer = await subject.one(get("a"), NOW + TTL)

    assert MISSING == brief(answer)


async def test_create_over_the_dead_starts_anew(subject: Subject) -> None:
    """A session made where one died has version 1 and nothing of the dead one: no owner, no meta, no deadline."""
    await subject.one(create("a", b'{"old":1}', user="ann", meta={"ip": "::1"}, lifetime=50, ttl=50))

    answers = await subject.ask(create("a", b'{"new":1}'), get("a"), count("ann"), now=NOW + 50)

    record = record_of(answers[1])
    assert (1, None, None, None, NOW + 50) == (
        record.version,
        record.user,
        record.meta,
        record.deadline,
        record.created_at,
    )
    assert ("ok", 0) == brief(answers[2])


# Two writers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 2])
async def test_of_two_sets_by_version_one_wins(subject: Subject, lanes: int) -> None:
    """Two writers that saw the same version: one is ok, the other gets `conflict` with what the first wrote."""
    await subject.one(create("a"))
    others = [subject.engine.lane() for _ in range(lanes)]

    first, second = await asyncio.gather(
        execute(others[0], [set_("a", b'{"w":1}', when=1)], NOW),
        execute(others[-1], [set_("a", b'{"w":2}', when=1)], NOW),
    )

    won, lost = sorted([*first, *second], key=lambda answer: answer.status == "conflict")
    assert [("ok", 2), ("conflict", 2)] == [brief(won), brief(lost)]
    assert won.record == lost.record
    assert won.record == (await subject.one(get("a"))).record


@pytest.mark.parametrize("lanes", [1, 2, 8])
async def test_patches_of_different_names_all_survive(subject: Subject, lanes: int) -> None:
    """Patches that race lose nothing: each name is there in the end and the version has counted each."""
    await subject.one(create("a"))
    writers = [subject.engine.lane() for _ in range(lanes)]

    await asyncio.gather(
        *(execute(lane, [patch("a", b'{"%d.%d":1}' % (n, i)) for i in range(5)], NOW) for n, lane in enumerate(writers))
    )
    answer = await subject.one(get("a"))

    assert {f"{n}.{i}": 1 for n in range(lanes) for i in range(5)} == data_of(answer)
    assert 1 + 5 * lanes == record_of(answer).version


@pytest.mark.parametrize("lanes", [1, 2])
async def test_a_patch_beside_a_set(subject: Subject, lanes: int) -> None:
    """A patch racing with a set comes before or after it as a whole; the versions tell which."""
    await subject.one(create("a", b'{"base":1}'))
    others = [subject.engine.lane() for _ in range(lanes)]

    (was_set,), (patched,) = await asyncio.gather(
        execute(others[0], [set_("a", b'{"set":1}')], NOW), execute(others[-1], [patch("a", b'{"patch":1}')], NOW)
    )
    answer = await subject.one(get("a"))

    set_first = record_of(was_set).version < record_of(patched).version
    assert {2, 3} == {record_of(was_set).version, record_of(patched).version}
    assert ({"set": 1, "patch": 1} if set_first else {"set": 1}) == data_of(answer)


async def test_of_two_creates_one_wins(subject: Subject) -> None:
    """Of creates that race for a key one is ok and the others are told `exists`."""
    lanes = [subject.engine.lane() for _ in range(4)]

    answers = await asyncio.gather(
        *(execute(lane, [create("a", b'{"n":%d}' % n)], NOW) for n, lane in enumerate(lanes))
    )

    assert Counter({EXISTS: 3, ("ok", 1): 1}) == Counter(brief(answer) for (answer,) in answers)


async def test_of_fifty_rotations_at_once_one_wins(subject: Subject) -> None:
    """The session is under one new key, whoever asked first; for all others it is missing, and the old key is dead."""
    await subject.ask(create("a", user="ann"))
    lanes = [subject.engine.lane() for _ in range(50)]

    answers = await asyncio.gather(
        *(subject.one(rotate("a", f"new {number}"), lane=lane) for number, lane in enumerate(lanes))
    )

    assert ["missing"] * 49 + ["ok"] == sorted(answer.status for answer in answers)
    winner = next(number for number, answer in enumerate(answers) if answer.status == "ok")
    assert [("ok", 1), ("missing",)] == [brief(answer) for answer in await subject.ask(get(f"new {winner}"), get("a"))]
    assert [("ok", 1), ("ok", 1)] == [brief(answer) for answer in await subject.ask(count(), count("ann"))]


async def test_a_write_racing_with_a_rotation_is_never_lost(subject: Subject) -> None:
    """With grace, a patch on the old key lands in the session whether it comes before the rotation or after."""
    await subject.one(create("a"))
    lanes = [subject.engine.lane() for _ in range(3)]

    answers = await asyncio.gather(
        execute(lanes[0], [patch("a", b'{"x":1}')], NOW),
        execute(lanes[1], [rotate("a", "b", HOUR)], NOW),
        execute(lanes[2], [patch("a", b'{"y":1}')], NOW),
    )
    session = await subject.one(get("b"))

    assert ["ok"] * 3 == [answer.status for (answer,) in answers]
    assert {"x": 1, "y": 1} == data_of(session)


async def test_a_logout_racing_with_a_rotation_is_never_lost(subject: Subject) -> None:
    """destroy on a key that is being rotated with grace, and destroy_all beside it, leave nothing alive."""
    await subject.ask(create("a", user="ann"), create("c", user="ann"))
    lanes = [subject.engine.lane() for _ in range(3)]

    await asyncio.gather(
        execute(lanes[0], [rotate("a", "b", HOUR), rotate("c", "d", HOUR)], NOW),
        execute(lanes[1], [destroy("a")], NOW),
        execute(lanes[2], [destroy_all("ann")], NOW),
    )
    after = await subject.ask(*[get(name) for name in "abcd"], count(), count("ann"))

    assert [MISSING] * 4 + [("ok", 0)] * 2 == [brief(answer) for answer in after]


# Data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["hot", "reopened"])
@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("bytes", b""),
        ("bytes", b"\xff\xfe\x00not UTF-8\xc3\x28"),
        ("bytes", b"\x00" * Policy().max_data),
        ("json", b"{}"),
        ("json", b'  {"a" : 1.0e0 ,\n"a":2}  '),
        ("json", '{"ключ":"значение"}'.encode()),
        ("msgpack", b"\x80"),
        ("msgpack", b"\xdf\x00\x00\x00\x01\xd9\x01a\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    ],
    ids=["empty", "no UTF-8", "at the limit", "{}", "odd json", "cyrillic", "empty map", "odd msgpack"],
)
async def test_data_comes_back_byte_for_byte(subject: Subject, format: str, data: bytes, again: bool) -> None:
    """create and set keep data as it was sent, whatever its bytes, and get gives it back with its format."""
    assert (format, data) == check_data(format, data, Policy())
    await subject.ask(create("a", data, format), create("b"), set_("b", data, format))
    if again:
        await subject.reopen()

    answers = await subject.ask(get("a"), get("b"))

    assert [(format, data)] * 2 == [(record_of(a).format, record_of(a).data) for a in answers]


def test_data_past_the_limit_makes_no_call() -> None:
    """Data one byte over max_data is refused before there is a call."""
    with pytest.raises(Refused) as refusal:
        check_data("bytes", b"\x00" * (Policy().max_data + 1), Policy())

    assert "too_large" == refusal.value.code


async def test_a_patch_past_the_limit_changes_nothing(subject: Subject) -> None:
    """A patch whose result is over max_data is refused as `too_large`; one that reaches the limit is carried out."""
    policy = Policy(max_data=20)
    await subject.one(create("a", b'{"x":1}'))

    over = await subject.one(patch("a", b'{"y":"1234567"}', policy=policy))
    unchanged = await subject.one(get("a"))
    exact = await subject.one(patch("a", b'{"y":"123456"}', policy=policy))

    assert ("refused", "too_large") == brief(over)
    assert (1, b'{"x":1}') == (record_of(unchanged).version, record_of(unchanged).data)
    assert (2, 20) == (record_of(exact).version, len(record_of(exact).data))


async def test_untouched_values_keep_their_bytes(subject: Subject) -> None:
    """A patch splices: the values it does not name keep every byte, also those that a reader would write otherwise."""
    await subject.one(create("a", b'{"x": 1.000e0, "y": [1,  2], "z": "\\u0041", "gone": 0}'))

    answer = await subject.one(patch("a", b'{"y":{"n":1E2}, "new": -0.0}', ("gone", "never there")))

    assert b'{"x":1.000e0,"y":{"n":1E2},"z":"\\u0041","new":-0.0}' == record_of(answer).data


async def test_a_patch_across_formats_is_converted(subject: Subject) -> None:
    """A patch in the other format is written in the session's own; values that it cannot hold are refused."""
    await subject.ask(create("j", b'{"x":1}', "json"), create("m", b"\x81\xa1x\x01", "msgpack"))

    answers = await subject.ask(
        patch("j", b"\x81\xa1y\x93\x01\xc0\xa1z", format="msgpack"),
        patch("m", b'{"y":[1,null,"z"]}', format="json"),
        patch("j", b"\x81\xa1b\xc4\x01\xff", format="msgpack"),  # bytes are no JSON
        patch("j", b"\x81\xa1n\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", format="msgpack"),  # nor is NaN
    )

    assert ["json", "msgpack"] == [record_of(answer).format for answer in answers[:2]]
    assert [{"x": 1, "y": [1, None, "z"]}] * 2 == [data_of(answer) for answer in answers[:2]]
    assert [("refused", "not_representable")] * 2 == [brief(answer) for answer in answers[2:]]
    assert 2 == record_of(await subject.one(get("j"))).version


async def test_opaque_data_is_not_patched(subject: Subject) -> None:
    """A patch of a session kept as bytes is refused and changes nothing."""
    await subject.one(create("a", b"{}", "bytes"))

    answers = await subject.ask(patch("a"), get("a"))

    assert [("refused", "opaque_data"), ("ok", 1)] == [brief(answer) for answer in answers]


async def test_a_set_may_change_the_format(subject: Subject) -> None:
    """set replaces data and format together."""
    await subject.one(create("a", b"{}", "json"))

    answers = await subject.ask(set_("a", b"\x80", "msgpack"), set_("a", b"?", "bytes"), get("a"))

    assert [("msgpack", b"\x80"), ("bytes", b"?"), ("bytes", b"?")] == [
        (record_of(a).format, record_of(a).data) for a in answers
    ]


@pytest.mark.parametrize("given", [{}, {"user": "bob"}, {"meta": {"ip": "::2"}}, {"user": "", "meta": {}}], ids=str)
@pytest.mark.parametrize("verb", ["set", "patch"])
async def test_user_and_meta_are_kept_given_or_cleared(subject: Subject, verb: str, given: dict[str, Any]) -> None:
    """A write leaves user and meta unless it names them; the empty ones take them away. Listings and counts follow."""
    await subject.one(create("a", user="ann", meta={"ip": "::1"}))
    expected = ({"user": "ann", "meta": {"ip": "::1"}} | given).values()
    user, meta = (value or None for value in expected)

    await subject.one((set_ if verb == "set" else patch)("a", **given))
    session, listed, anns, bobs = await subject.ask(get("a"), list_(), count("ann"), count("bob"))

    assert (user, meta) == (record_of(session).user, record_of(session).meta)
    assert [(user, meta)] == [(entry.user, entry.meta) for entry in entries_of(listed)]
    assert [("ok", int(user == "ann")), ("ok", int(user == "bob"))] == [brief(anns), brief(bobs)]


# Repeats -------------------------------------------------------------------------------------------------

REPEATED: dict[str, tuple[Call, tuple[Any, ...]]] = {
    "create": (create("new", b'{"n":1}', op=op("1")), ("ok", 1)),
    "set any": (set_("a", b'{"n":1}', op=op("1")), ("ok", 2)),
    "set alive": (set_("a", b'{"n":1}', when="alive", op=op("1")), ("ok", 2)),
    "set version": (set_("a", b'{"n":1}', when=1, op=op("1")), ("ok", 2)),
    "patch": (patch("a", b'{"n":1}', op=op("1")), ("ok", 2)),
    "rotate": (rotate("a", "b", op=op("1")), ("ok", 1)),
    "rotate with grace": (rotate("a", "b", HOUR, op=op("1")), ("ok", 1)),
}


@pytest.mark.parametrize("verb", REPEATED)
@pytest.mark.parametrize("by", ["the same lane", "another lane", "another daemon", "the same batch"])
async def test_a_repeated_call_is_answered_as_done(subject: Subject, verb: str, by: str) -> None:
    """A call sent again with its op is answered like the first time, and nothing is done twice."""
    call, expected = REPEATED[verb]
    await subject.one(create("a"))
    if by == "the same batch":
        first, again = await subject.ask(call, call)
    else:
        first = await subject.one(call)
        if by == "another daemon":
            await subject.reopen()
        again = await subject.one(call, NOW + 1, subject.engine.lane() if by == "another lane" else None)
    answers = await subject.ask(count(), get("new"), get("a"), get("b"), now=NOW + 1)

    assert expected == brief(first)
    assert codec.replace(first, ended=()) == again  # what ended by it ended once
    assert {expected[1]} >= {record_of(a).version for a in answers[1:] if a.record and record_of(a).op == op("1")}
    assert ("ok", 2 if verb == "create" else 1) == brief(answers[0])


@pytest.mark.parametrize("verb", REPEATED)
async def test_a_repeat_after_another_change_is_judged_anew(subject: Subject, verb: str) -> None:
    """Once another write has changed the session, the op is forgotten and the call meets the session as it is."""
    call, _ = REPEATED[verb]
    name = "new" if verb == "create" else "b" if verb.startswith("rotate") else "a"
    await subject.ask(create("a"), call, set_(name, op=op("2")))
    (before,) = await subject.ask(get(name))

    again = await subject.one(call)

    version = record_of(before).version
    expected = {
        "create": EXISTS,
        "set any": ("ok", version + 1),
        "set alive": ("ok", version + 1),
        "set version": ("conflict", version),
        "patch": ("ok", version + 1),
        "rotate": ("ok", version),  # its alias still bears the op
        "rotate with grace": ("ok", version),
    }
    assert expected[verb] == brief(again)


@pytest.mark.parametrize("verb", REPEATED)
async def test_without_an_op_nothing_is_a_repeat(subject: Subject, verb: str) -> None:
    """A call without op, and one with another op, is never taken for one that was carried out."""
    await subject.one(create("a"))
    bare = {
        "create": create("new"),
        "set any": set_("a"),
        "set alive": set_("a", when="alive"),
        "set version": set_("a", when=1),
        "patch": patch("a"),
        "rotate": rotate("a", "b"),
        "rotate with grace": rotate("a", "b", HOUR),
    }[verb]
    expected = {
        "create": EXISTS,
        "set version": ("conflict", 2),
        "rotate": MISSING,
        "rotate with grace": EXISTS,
    }

    answers = await subject.ask(bare, bare)

    assert expected.get(verb, ("ok", 3)) == brief(answers[1])


async def test_a_repeated_rotate_finds_a_session_that_moved_on(subject: Subject) -> None:
    """A rotate repeated after its session was rotated again with grace is answered with the session as it now is."""
    await subject.ask(create("a", b'{"x":1}'), rotate("a", "b", op=op("1")), rotate("b", "c", HOUR, op=op("2")))

    again = await subject.one(rotate("a", "b", op=op("1")), NOW + 1)

    assert (await subject.one(get("c"), NOW + 1)) == again


async def test_a_repeated_rotate_of_a_session_that_is_gone(subject: Subject) -> None:
    """A rotate repeated after its session was destroyed, or rotated away without grace, is answered `missing`."""
    await subject.ask(create("a"), rotate("a", "b", op=op("1")), destroy("b"))
    await subject.ask(create("c"), rotate("c", "d", op=op("2")), rotate("d", "e", op=op("3")))

    answers = await subject.ask(rotate("a", "b", op=op("1")), rotate("c", "d", op=op("2")))

    assert [MISSING, MISSING] == [brief(answer) for answer in answers]


async def test_a_rotate_through_an_alias_can_be_repeated(subject: Subject) -> None:
    """A rotate sent to an alias is found by its op along the chain, up to the longest chain that is followed."""
    await subject.one(create("0"))
    for hop in range(MAX_HOPS):
        await subject.one(rotate(str(hop), str(hop + 1), HOUR))
    call = rotate("0", "last", op=op("1"))

    answers = await subject.ask(call, call, get("last"))

    assert [("ok", 1)] * 3 == [brief(answer) for answer in answers]


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize(("after", "expected"), [(REPEAT_WINDOW - 1, ("ok", 1)), (REPEAT_WINDOW, MISSING)])
async def test_a_repeat_is_known_for_a_while(
    subject: Subject, after: int, expected: tuple[Any, ...], swept: bool
) -> None:
    """A rotate's op is known for REPEAT_WINDOW ms after its alias died, sweep or no sweep, and no longer."""
    await subject.ask(create("a"), rotate("a", "b", 5, op=op("1")))
    if swept:
        await subject.sweep_all(NOW + 5 + after)

    again = await subject.one(rotate("a", "b", 5, op=op("1")), NOW + 5 + after)

    assert expected == brief(again)


# Listings and counts ---------------------------------------------------------------------------------------


async def walk(subject: Subject, user: str | None, limit: int, between: Any = None) -> list[Entry]:
    """All pages of a listing; `between` is awaited after each page with its number."""
    entries: list[Entry] = []
    cursor: bytes | None = None
    for page in range(100):
        answer = await subject.one(list_(user, cursor, limit))
        assert isinstance(answer.value, tuple)
        found, cursor = answer.value
        assert len(found) <= limit
        entries += found
        if cursor is None:
            return entries
        if between is not None:
            await between(page)
    raise AssertionError("the walk does not end")


@pytest.mark.parametrize("user", [None, "ann"])
@pytest.mark.parametrize("limit", [1, 3, 20, 1000])
async def test_a_walk_meets_each_session_once(subject: Subject, user: str | None, limit: int) -> None:
    """The pages of a listing hold every session once, in the order of the keys, each as it is."""
    made = await subject.ask(*[create(str(n), b'{"n":%d}' % n, user="ann", meta={"n": str(n)}) for n in range(20)])
    await subject.ask(create("x", user="bob" if user else "ann", ns="other"), create("y", user="bob", ttl=1))
    expected = [
        Entry(key(str(n)), "ann", {"n": str(n)}, NOW, NOW, NOW + TTL, 1, len(record_of(made[n]).data))
        for n in sorted(range(20), key=lambda n: key(str(n)))
    ]
    await subject.one(destroy("y"))

    entries = await walk(subject, user, limit)

    assert expected == entries


@pytest.mark.parametrize("user", [None, "ann"])
async def test_a_walk_among_changes(subject: Subject, user: str | None) -> None:
    """A session that lives through a whole walk is met exactly once, whatever comes and goes between the pages."""
    lasting = [f"lasting {n}" for n in range(15)]
    await subject.ask(*[create(name, user="ann") for name in lasting])
    await subject.ask(*[create(f"going {n}", user="ann") for n in range(10)])

    async def change(page: int) -> None:
        await subject.ask(
            create(f"coming {page}", user="ann"),
            destroy(f"going {page}"),
            touch(lasting[page % 15]),
            patch(lasting[-page % 15]),
            rotate(f"going {page + 5}", f"moved {page}", HOUR),
        )

    entries = await walk(subject, user, 2, change)

    met = Counter(entry.key for entry in entries)
    assert dict.fromkeys(lasting, 1) == {name: met[key(name)] for name in lasting}
    assert {1} == set(met.values())


async def test_an_entry_shows_the_session_as_it_is(subject: Subject) -> None:
    """A listing shows what renewals and changes left, those of a moment ago included."""
    await subject.one(create("a", user="ann"))
    await subject.ask(set_("a", b'{"longer":true}', ttl=HOUR, meta={"k": "v"}), now=NOW + 1)
    await subject.one(touch("a"), NOW + 2)

    (listed,) = await subject.ask(list_(), now=NOW + 3)

    assert [Entry(key("a"), "ann", {"k": "v"}, NOW, NOW + 2, NOW + 2 + HOUR, 2, 15)] == entries_of(listed)


async def test_counts_are_exact_without_a_sweep_and_after(subject: Subject) -> None:
    """A count leaves out what has died to the millisecond, and a sweep does not change it."""
    await subject.ask(*[create(str(n), ttl=n + 1, user="ann" if n % 2 else None) for n in range(20)])
    before, after = [], []

    for now in range(NOW, NOW + 22):
        before.append([brief(a) for a in await subject.ask(count(), count("ann"), now=now)])
        await subject.engine.sweep(now, 3)
        after.append([brief(a) for a in await subject.ask(count(), count("ann"), now=now)])

    expected = [[("ok", 20 - gone), ("ok", 10 - gone // 2)] for gone in [*range(21), 20]]
    assert expected == before
    assert expected == after


async def test_counts_follow_every_change(subject: Subject) -> None:
    """Counts stay exact over changes of owner, rotations, overwriting the dead, destroys and reopening."""
    await subject.ask(*[create(name, user="ann") for name in "abcdef"], create("g", ttl=1, user="ann"))
    await subject.ask(
        set_("a", user="bob"),
        patch("b", user=""),
        rotate("c", "c2", HOUR),
        rotate("d", "d2"),
        destroy("e"),
        create("g", user="bob"),
        create("h"),
        now=NOW + 1,
    )
    counts = (count(), count("ann"), count("bob"), count("nobody"))

    hot = [brief(answer) for answer in await subject.ask(*counts, now=NOW + 1)]
    await subject.reopen()
    reopened = [brief(answer) for answer in await subject.ask(*counts, now=NOW + 1)]

    assert [("ok", 7), ("ok", 3), ("ok", 2), ("ok", 0)] == hot
    if subject.persists:
        assert hot == reopened


# destroy_all -------------------------------------------------------------------------------------------


@pytest.fixture
async def crowd(subject: Subject) -> Subject:
    """a1, a2 and a3 are ann's, b1 is bob's, n1 is nobody's; a0 is a living alias of a1; a9 is ann's and dead."""
    await subject.ask(
        create("a0", user="ann"),
        rotate("a0", "a1", HOUR),
        create("a2", user="ann"),
        create("a3", user="ann"),
        create("b1", user="bob"),
        create("n1"),
        create("a9", user="ann", ttl=1),
        create("a2", user="ann", ns="other"),
    )
    return subject


@pytest.mark.parametrize("again", [False, True], ids=["hot", "reopened"])
@pytest.mark.parametrize(
    ("call", "number", "left"),
    [
        (destroy_all("ann"), 3, ["b1", "n1"]),
        (destroy_all("nobody"), 0, ["a1", "a2", "a3", "b1", "n1"]),
        (destroy_all(), 5, []),
        (destroy_all("ann", but="a2"), 2, ["a2", "b1", "n1"]),
        (destroy_all("ann", but="a0"), 2, ["a1", "b1", "n1"]),
        (destroy_all("ann", but="a1"), 2, ["a1", "b1", "n1"]),
        (destroy_all("ann", but="b1"), 3, ["b1", "n1"]),
        (destroy_all("ann", but="a9"), 3, ["b1", "n1"]),
        (destroy_all("ann", but="unknown"), 3, ["b1", "n1"]),
        (destroy_all(but="a0"), 4, ["a1"]),
        (destroy_all(but="n1"), 4, ["n1"]),
    ],
    ids=[
        "user", "nobody", "everyone", "except", "except by its alias", "except what an alias leads to",
        "except another's", "except a dead one", "except an unknown one", "everyone except by its alias",
        "everyone except",
    ],
)  # fmt: skip
async def test_destroy_all(crowd: Subject, call: Call, number: int, left: list[str], again: bool) -> None:
    """destroy_all ends the living sessions of a user, or of all, but for the one excepted, and says how many."""
    if again and crowd.persists:
        await crowd.reopen()

    answer = await crowd.one(call, NOW + 1)
    listed, other = await crowd.ask(list_(), list_(ns="other"), now=NOW + 1)
    sessions = await crowd.ask(*[get(name) for name in ("a1", "a2", "a3", "b1", "n1")], now=NOW + 1)

    assert ("ok", number) == brief(answer)
    assert ("ok", sorted(map(key, left))) == brief(listed)
    assert [name in left for name in ("a1", "a2", "a3", "b1", "n1")] == [a.status == "ok" for a in sessions]
    assert ("ok", [key("a2")]) == brief(other)


async def test_destroy_all_covers_what_was_acknowledged_and_not_what_comes_after(subject: Subject) -> None:
    """On one lane destroy_all takes what was submitted before it and leaves what is submitted behind it."""
    answers = await subject.ask(
        create("a", user="ann"),
        create("b", user="ann"),
        destroy_all("ann"),
        create("c", user="ann"),
        create("a", user="ann"),
        count("ann"),
        list_("ann"),
    )

    assert [("ok", 1), ("ok", 1), ("ok", 2), ("ok", 1), ("ok", 1), ("ok", 2)] == [brief(a) for a in answers[:-1]]
    assert ("ok", sorted([key("a"), key("c")])) == brief(answers[-1])


async def test_destroy_all_covers_what_other_lanes_were_told(subject: Subject) -> None:
    """Sessions whose creation was acknowledged on another lane are covered, renewals of a moment ago included."""
    other = subject.engine.lane()
    await subject.ask(create("a", user="ann", ttl=5), create("b", user="ann"), lane=other)
    await subject.ask(touch("a", HOUR), now=NOW + 1, lane=other)

    answer = await subject.one(destroy_all("ann"), NOW + 10)

    assert ("ok", 2) == brief(answer)


async def test_a_destroyed_session_stays_dead_through_an_alias(subject: Subject) -> None:
    """After destroy_all the aliases of what it destroyed lead nowhere, and no conditional write brings it back."""
    await subject.ask(create("a", user="ann"), rotate("a", "b", HOUR), destroy_all("ann"))

    answers = await subject.ask(
        *[call for name in "ab" for call in (get(name), touch(name), patch(name), set_(name, when="alive"))], count()
    )

    assert [*[MISSING] * 8, ("ok", 0)] == [brief(answer) for answer in answers]


# Namespaces --------------------------------------------------------------------------------------------


@each_verb
async def test_namespaces_do_not_meet(subject: Subject, verb: str) -> None:
    """A call on a key of one namespace leaves the session under the same key of another as it is."""
    await subject.ask(create("a", user="ann"), create("a", b'{"other":1}', user="ann", ns="other"))
    watched = [get("a", ns="other"), list_(ns="other"), list_("ann", ns="other"), count(ns="other")]
    before = await subject.ask(*watched)

    await subject.one(VERBS[verb][0])
    after = await subject.ask(*watched)

    assert before == after


async def test_an_alias_leads_within_its_namespace(subject: Subject) -> None:
    """A rotation in one namespace leads to a key of that namespace, and nothing of another is taken or shown."""
    await subject.ask(create("a", b'{"x":1}'), create("b", b'{"other":1}', ns="other"))

    answers = await subject.ask(rotate("a", "b", HOUR), get("a"), get("a", ns="other"), get("b", ns="other"))

    assert [("ok", 1), ("ok", 1), MISSING, ("ok", 1)] == [brief(answer) for answer in answers]
    assert [{"x": 1}, {"other": 1}] == [data_of(answers[1]), data_of(answers[3])]


# Sweeping ----------------------------------------------------------------------------------------------


async def test_a_sweep_is_bounded_and_says_when_it_is_done(subject: Subject) -> None:
    """A step removes as many as it is told at most, and says when nothing more is due."""
    await subject.ask(*[create(str(n), ttl=1) for n in range(10)], create("lives"))

    swept = [await subject.engine.sweep(NOW + 1, 4) for _ in range(4)]

    assert [4, 4, 2, 0] == [step.removed for step in swept]
    assert [False, False, True] == [swept[n].is_over for n in (0, 1, 3)]
    assert 10 == len(await subject.expired())
    assert ("ok", 1) == brief(await subject.one(get("lives"), NOW + 1))


async def test_a_sweep_of_very_many(subject: Subject) -> None:
    """A sweep may be told any number, also more than a statement of SQL could name."""
    await subject.ask(*[create(str(n), b"", "bytes", ttl=1) for n in range(700)])

    swept = await subject.engine.sweep(NOW + 1, 1_000_000)

    assert (700, True) == swept


async def test_a_sweep_leaves_expired_for_sessions_only(subject: Subject) -> None:
    """What died by itself leaves an Expired with its owner and instant; the destroyed, the living and aliases nothing."""
    await subject.ask(
        create("a", ttl=5, user="ann"),
        create("b", ttl=7),
        create("c", ttl=5, ns="other"),
        create("destroyed", ttl=5),
        destroy("destroyed"),
        create("moved", ttl=HOUR),
        rotate("moved", "lives"),
        create("moved too", ttl=HOUR),
        rotate("moved too", "lives too", 5),
        create("all", ttl=5, ns="third"),
        destroy_all(ns="third"),
    )

    await subject.sweep_all(NOW + REPEAT_WINDOW + 10)
    expired = await subject.expired()

    assert {
        ("default", key("a"), "ann", NOW + 5),
        ("default", key("b"), None, NOW + 7),
        ("other", key("c"), None, NOW + 5),
    } == {(e.namespace, e.key, e.user, e.expired_at) for e in expired}
    assert 3 == len(expired)


async def test_a_session_that_was_renewed_is_not_swept(subject: Subject) -> None:
    """A sweep at an instant that a renewal has passed leaves the session, its row and no Expired."""
    await subject.one(create("a", ttl=10))
    await subject.one(touch("a", 100), NOW + 9)

    swept = await subject.engine.sweep(NOW + 50, 100)
    await subject.reopen()

    assert (0, True) == swept
    assert [] == await subject.expired()
    if subject.persists:
        assert ("ok", 1) == brief(await subject.one(get("a"), NOW + 50))


async def test_a_sweep_changes_no_answer(subject: Subject) -> None:
    """Every question has the same answer before a sweep and after it."""
    names = ["lives", "dead", "destroyed", "old", "new", "old alias", "behind it", "gone alias", "its session"]
    await subject.ask(
        create("lives", user="ann"),
        create("dead", ttl=5, user="ann"),
        create("destroyed", user="ann"),
        destroy("destroyed"),
        create("old"),
        rotate("old", "new", op=op("1")),
        create("old alias"),
        rotate("old alias", "behind it", HOUR, op=op("2")),
        create("gone alias", ttl=50),
        rotate("gone alias", "its session", HOUR, op=op("3")),
    )
    repeats = [
        rotate("old", "new", op=op("1")),
        rotate("old alias", "behind it", HOUR, op=op("2")),
        rotate("gone alias", "its session", HOUR, op=op("3")),
    ]
    questions = [*map(get, names), list_(), list_("ann"), count(), count("ann"), *repeats]

    for now in (NOW + 5, NOW + 50, NOW + REPEAT_WINDOW - 1, NOW + REPEAT_WINDOW, NOW + 2 * REPEAT_WINDOW):
        before = await subject.ask(*questions, now=now)
        await subject.sweep_all(now, 2)
        after = await subject.ask(*questions, now=now)
        assert before == after


async def test_numbers_of_expiries_grow(subject: Subject) -> None:
    """Each Expired has a greater number than those before it, also when the engine was closed in between."""
    for n in range(4):
        now = NOW + n * 10
        await subject.ask(create("a", ttl=1), create("b", ttl=1), now=now)
        await subject.sweep_all(now + 1)
        await subject.reopen()

    expired = await subject.expired()

    numbers = [event.number for event in expired]
    assert sorted(set(numbers)) == numbers
    assert [NOW + n * 10 + 1 for n in range(4) for _ in "ab"] == [event.expired_at for event in expired]


async def test_expired_goes_on_from_a_number(subject: Subject) -> None:
    """`expired` gives what follows a number, oldest first, and no more than it was asked for."""
    await subject.ask(*[create(str(n), ttl=1) for n in range(5)])
    await subject.sweep_all(NOW + 1)
    everything = await subject.expired()

    page = await subject.engine.expired(everything[1].number, 2)

    assert everything[2:4] == page


# The order on a lane -------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["hot", "reopened"])
@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ([rotate("a", "b"), get("b"), get("a"), destroy("a"), get("b")],
         [("ok", 1), ("ok", 1), MISSING, OK, ("ok", 1)]),
        ([rotate("a", "b", HOUR), get("b"), destroy("a"), get("b"), get("a")],
         [("ok", 1), ("ok", 1), OK, MISSING, MISSING]),
        ([create("new"), list_("nobody"), get("new"), count()],
         [("ok", 1), ("ok", []), ("ok", 1), ("ok", 3)]),
        ([destroy_all(), create("new"), count(), get("a")],
         [("ok", 2), ("ok", 1), ("ok", 1), MISSING]),
        ([destroy("a"), create("a"), set_("a", when=1), destroy("a"), create("a"), get("a")],
         [OK, ("ok", 1), ("ok", 2), OK, ("ok", 1), ("ok", 1)]),
        ([set_("a"), patch("a"), get("a"), count(), patch("a"), destroy_all("ann"), get("a"), get("z")],
         [("ok", 2), ("ok", 3), ("ok", 3), ("ok", 2), ("ok", 4), ("ok", 1), MISSING, ("ok", 1)]),
        ([get("nowhere"), touch("a"), count("ann"), get("z"), count("ann"), destroy("a"), count("ann")],
         [MISSING, ("ok", 1), ("ok", 1), ("ok", 1), ("ok", 1), OK, ("ok", 0)]),
    ],
    ids=["rotate", "rotate with grace", "create, list", "destroy_all, create", "again and again", "all", "counts"],
)  # fmt: skip
async def test_calls_of_a_lane_take_effect_in_their_order(
    subject: Subject, batch: list[Call], expected: list[Any], again: bool
) -> None:
    """Each call of a lane sees all that stands before it and nothing of what stands behind, hot or cold."""
    await subject.ask(create("a", user="ann"), create("z"))
    if again and subject.persists:
        await subject.reopen()

    answers = await subject.ask(*batch)

    assert expected == [brief(answer) for answer in answers]


async def test_batches_of_a_lane_follow_each_other(subject: Subject) -> None:
    """A batch submitted while an older one of its lane still waits takes effect after it."""
    await subject.one(create("a"))
    await subject.reopen()
    await subject.one(create("a"))

    batches = [[patch("a", b'{"n":%d}' % n), count(), get("a")] for n in range(5)]
    answers = await asyncio.gather(*(subject.ask(*batch) for batch in batches))

    first = record_of(answers[0][0]).version
    assert [first + n for n in range(5)] == [record_of(answer[2]).version for answer in answers]
    assert list(range(5)) == [data_of(answer[2])["n"] for answer in answers]


async def test_a_waiting_lane_does_not_turn_back_time(subject: Subject) -> None:
    """What another lane was told is dead is not brought back by a call that was submitted before and waited."""
    await subject.ask(create("hot", ttl=10), *[create(f"cold {n}") for n in range(50)])
    await subject.reopen()
    if not subject.persists:
        await subject.ask(create("hot", ttl=10))
    await subject.one(get("hot"))
    other = subject.engine.lane()

    _, second = await asyncio.gather(
        subject.ask(*[get(f"cold {n}") for n in range(50)], touch("hot"), now=NOW + 9, lane=other),
        subject.ask(get("hot"), now=NOW + 10),
    )
    after = await subject.one(get("hot"), NOW + 11)

    assert (second[0].status == "ok") == (after.status == "ok")


async def test_every_call_is_answered_once(subject: Subject) -> None:
    """Whatever the mixture of lanes and verbs, `reply` is called once for each position of each batch."""
    answered: Counter[tuple[int, int]] = Counter()
    done = asyncio.Event()
    sizes = [7 + n % 5 for n in range(30)]
    lanes = [subject.engine.lane() for _ in range(4)]
    verbs = [call for call, _, _ in VERBS.values()]

    for batch, size in enumerate(sizes):

        def reply(position: int, answer: Answer, batch: int = batch) -> None:
            answered[batch, position] += 1
            if len(answered) == sum(sizes):
                done.set()

        lanes[batch % 4].submit([verbs[(batch * 3 + n) % len(verbs)] for n in range(size)], NOW, reply)
    await asyncio.wait_for(done.wait(), 20)
    await subject.ask(get("a"), count())

    assert {(batch, n): 1 for batch, size in enumerate(sizes) for n in range(size)} == answered


async def test_an_empty_batch_is_fine(subject: Subject) -> None:
    """A batch of no calls is answered by nothing."""
    assert [] == await subject.ask()


# Keeping ---------------------------------------------------------------------------------------------------


@keeping
async def test_reopening_gives_everything_back(subject: Subject) -> None:
    """An engine that keeps records answers after reopening as it did before, renewals of a moment ago included."""
    await subject.ask(
        create("a", b'{"x":1}', user="ann", meta={"k": "v"}, lifetime=HOUR, op=op("1")),
        create("b", b"\xff\x00", "bytes"),
        create("c", b"\x80", "msgpack", ns="other"),
        set_("b", b"\x80", "msgpack", ttl=HOUR),
        create("d"),
        rotate("d", "e", HOUR, op=op("2")),
        create("f", ttl=1),
        create("g"),
        destroy("g"),
        create("h", ttl=5),
    )
    await subject.ask(touch("a"), get("b", 2 * HOUR), touch("h", 100), now=NOW + 2)
    questions = [
        *[get(name) for name in "abdefgh"],
        get("c", ns="other"),
        list_(),
        list_("ann"),
        count(),
        count("ann"),
        rotate("d", "e", HOUR, op=op("2")),
    ]
    before = await subject.ask(*questions, now=NOW + 50)

    await subject.reopen()
    after = await subject.ask(*questions, now=NOW + 50)

    assert before == after


@keeping
async def test_no_answer_shows_what_a_crash_could_undo(subject: Subject) -> None:
    """Whenever an answer comes, the file already holds what it tells of, be it a write, a read or an absence.

    A second connection looks at the file inside each reply. One lane fixes the order in which a session's states follow
    each other, and each state bears a mark; so the file must show the state that the answer tells of, or a later one.
    """
    script: list[tuple[str, Call, int | None]] = []  # the session, the call, and the mark it leaves; None: as it was
    living: dict[str, int] = {}
    for turn in range(60):
        for n in range(6):
            name, mark = f"session {n}", turn * 10 + n + 100
            data = b'{"mark":%d}' % mark
            verb = (turn * 7 + n * 5 + turn // 3) % 7
            if verb == 0:
                script.append((name, create(name, data), living.setdefault(name, mark)))
            elif verb in (1, 2):
                living[name] = mark
                script.append((name, set_(name, data), mark))
            elif verb == 3:
                if name in living:
                    living[name] = mark
                script.append((name, patch(name, data), living.get(name)))
            elif verb == 4:
                script.append((name, destroy(name), living.pop(name, None) and None))
            elif verb == 5:
                script.append((name, rotate(name, f"moved {mark}"), living.pop(name, None) and None))
            script.append((name, get(name), living.get(name)))
    states: dict[str, list[int | None]] = {}
    for name, _, mark_left in script:
        states.setdefault(name, []).append(mark_left)
    passed: Counter[str] = Counter()
    wrong: list[str] = []
    file = sqlite3.connect(subject.path)

    def in_file(name: str) -> int | None:
        columns = "namespace, key, kind, user, expires_at, version, sealed"
        row = file.execute(f"select {columns} from sessions where key = ? and kind = 1", (key(name),)).fetchone()
        if row is None:
            return None
        record = subject.options.vault.open(codec.pack(row[:-1]), row[-1])
        assert record is not None
        return int(re.findall(rb'"mark":(\d+)', record.data)[0])

    def reply(begin: int, position: int, answer: Answer) -> None:
        name = script[begin + position][0]
        first = order[begin + position]
        passed[name] += 1
        if (found := in_file(name)) not in states[name][first:]:
            wrong.append(f"{begin + position} {answer.status}: the file has {found}, not {states[name][first:]}")

    order: list[int] = []
    so_far: Counter[str] = Counter()
    for name, _, _ in script:
        order.append(so_far[name])
        so_far[name] += 1
    for begin in range(0, len(script), 3):
        chunk = [call for _, call, _ in script[begin : begin + 3]]
        subject.lane.submit(chunk, NOW, partial(reply, begin))
        for _ in range(begin % 4):
            await asyncio.sleep(0)
    last = await subject.ask(*[get(f"session {n}") for n in range(6)])
    file.close()

    assert [] == wrong
    assert so_far == passed
    assert [living.get(f"session {n}") for n in range(6)] == [a.record and data_of(a)["mark"] for a in last]


# Ends ----------------------------------------------------------------------------------------------------


def end(name: str, reason: Any, user: str | None = None, at: int = NOW, new: str | None = None) -> Ended:
    return Ended("default", key(name), user, at, reason, None if new is None else key(new))


ANN, BOB = create("a", user="ann"), create("b", user="bob")

# what is done before, the call at NOW, and the ends that it tells, in any order
ENDS: dict[str, tuple[list[Call], Call, list[Ended]]] = {
    "destroy": ([ANN], destroy("a"), [end("a", "destroyed", "ann")]),
    "destroy of nobody's": ([create("a")], destroy("a"), [end("a", "destroyed")]),
    "destroy of nothing": ([], destroy("a"), []),
    "destroy of a destroyed one": ([ANN, destroy("a")], destroy("a"), []),
    "destroy through an alias": ([ANN, rotate("a", "b", HOUR)], destroy("a"), [end("b", "destroyed", "ann")]),
    "destroy of a dead alias": ([ANN, rotate("a", "b")], destroy("a"), []),
    "rotate": ([ANN], rotate("a", "b"), [end("a", "rotated", "ann", new="b")]),
    "rotate with grace": ([ANN], rotate("a", "b", HOUR), [end("a", "rotated", "ann", new="b")]),
    "rotate through an alias": (
        [ANN, rotate("a", "b", HOUR)],
        rotate("a", "c"),
        [end("b", "rotated", "ann", new="c")],
    ),
    "rotate again": ([ANN, rotate("a", "b", op=op("1"))], rotate("a", "b", op=op("1")), []),
    "rotate to a living one": ([ANN, BOB], rotate("a", "b"), []),
    "rotate of nothing": ([], rotate("a", "b"), []),
    "destroy_all of a user": ([ANN, BOB], destroy_all("ann"), [end("a", "destroyed", "ann")]),
    "destroy_all of everyone": (
        [ANN, BOB, create("c"), create("d", ns="other")],
        destroy_all(),
        [end("a", "destroyed", "ann"), end("b", "destroyed", "bob"), end("c", "destroyed")],
    ),
    "destroy_all but one": ([ANN, create("b", user="ann")], destroy_all("ann", "b"), [end("a", "destroyed", "ann")]),
    "destroy_all of nobody": ([BOB], destroy_all("ann"), []),
    "destroy_all past an alias": (
        [ANN, rotate("a", "b", HOUR)],
        destroy_all("ann"),
        [end("b", "destroyed", "ann")],
    ),
    "destroy of a dead one": (
        [create("a", user="ann", ttl=5), touch("a", 1)],
        destroy("a"),
        [end("a", "expired", "ann", NOW - 9)],
    ),
    "create over a dead one": ([create("a", user="ann", ttl=5)], create("a"), [end("a", "expired", "ann", NOW - 5)]),
    "set over a dead one": ([create("a", user="ann", ttl=5)], set_("a"), [end("a", "expired", "ann", NOW - 5)]),
    "rotate to a dead one": (
        [ANN, create("b", user="bob", ttl=5)],
        rotate("a", "b"),
        [end("a", "rotated", "ann", new="b"), end("b", "expired", "bob", NOW - 5)],
    ),
    "eviction": (
        [create("a", user="ann")],
        create("b", user="ann", policy=Policy(ttl=TTL, max_sessions_per_user=1)),
        [end("a", "evicted", "ann")],
    ),
    "eviction by a set": (
        [create("a", user="ann"), create("b")],
        set_("b", user="ann", policy=Policy(ttl=TTL, max_sessions_per_user=1)),
        [end("a", "evicted", "ann")],
    ),
    "rejection": (
        [create("a", user="ann")],
        create("b", user="ann", policy=Policy(ttl=TTL, max_sessions_per_user=1, when_user_full="reject")),
        [],
    ),
    "create": ([], create("a"), []),
    "set": ([ANN], set_("a"), []),
    "patch": ([ANN], patch("a"), []),
    "touch": ([ANN], touch("a"), []),
    "get": ([ANN], get("a", True), []),
}


@pytest.mark.parametrize("case", ENDS)
@pytest.mark.parametrize("again", [False, True], ids=["hot", "reopened"])
async def test_an_answer_tells_what_ended_by_the_call(subject: Subject, case: str, again: bool) -> None:
    """Each session that a call ended is told with its answer, once, with its owner; nothing is told when nothing ended."""
    before, call, expected = ENDS[case]
    await subject.ask(*before, now=NOW - 10)
    if again:
        await subject.reopen()

    answer = await subject.one(call)

    told = sorted(answer.ended, key=lambda each: each.key)
    assert sorted(expected, key=lambda each: each.key) == told
