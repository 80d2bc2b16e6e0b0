"""The rules, without an engine: what each verb makes of a record, what must be on disk first, and where aliases lead.

What callers see of them is in tests/contract; here is what engines rely on.
"""

import pytest

from sessiond import codec
from sessiond.calls import Address, Call, Create, SessionCall
from sessiond.record import (
    EXISTS,
    MAX_HOPS,
    MISSING,
    OK,
    REPEAT_WINDOW,
    Answer,
    Outcome,
    Record,
    decide,
    follow,
    is_alive,
    perform,
)
from tests import support
from tests.support import HOUR, NOW, TTL, at, key, op

LIVING = Record(b'{"x":1}', "json", 3, TTL, NOW - 5, NOW - 2, NOW + 1, None, "ann", {"ip": "::1"}, op("last"))
DEAD = codec.replace(LIVING, expires_at=NOW)


def alias(to: str, expires_at: int, op: bytes | None = None) -> Record:
    return Record(b"", "bytes", 1, 0, NOW, NOW, expires_at, op=op, target=key(to))


def of(call: Call) -> SessionCall:
    """A call about one session, as `perform` takes it."""
    assert isinstance(call, SessionCall)
    return call


def run(call: Call, **records: Record) -> Outcome:
    """What `perform` says at NOW about records that rest under the keys of these names."""
    resting = {at(name): record for name, record in records.items()}
    return perform(of(call), NOW, resting.get)


@pytest.mark.parametrize(("late", "alive"), [(-1, True), (0, False), (1, False)])
def test_is_alive(late: int, alive: bool) -> None:
    """A record is alive while now < expires_at."""
    assert alive == is_alive(LIVING, LIVING.expires_at + late)
    assert not is_alive(None, 0)


VERBS: dict[str, Call] = {
    "create": support.create("a"),
    "get": support.get("a"),
    "get renew": support.get("a", True),
    "set": support.set_("a"),
    "set alive": support.set_("a", when="alive"),
    "patch": support.patch("a"),
    "touch": support.touch("a"),
    "rotate": support.rotate("a", "b"),
    "destroy": support.destroy("a"),
}


@pytest.mark.parametrize(
    ("verb", "firm"),
    [("create", None), ("get", None), ("get renew", False), ("set", True), ("set alive", True), ("patch", True),
     ("touch", False), ("rotate", True), ("destroy", True)],
)  # fmt: skip
def test_what_must_be_on_disk_first(verb: str, firm: bool | None) -> None:
    """Changes are firm, renewals are written but not firm, and what changes nothing writes nothing."""
    outcome = run(VERBS[verb], a=LIVING)

    assert firm == (outcome.firm if outcome.writes else None)


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("create", "set")])
@pytest.mark.parametrize("resting", [None, DEAD], ids=["nothing", "dead"])
def test_the_dead_are_not_written(verb: str, resting: Record | None) -> None:
    """Where no session lives nothing is written, but for destroy, which removes a dead one for good."""
    outcome = run(VERBS[verb], **({} if resting is None else {"a": resting}))

    removes = verb == "destroy" and resting is not None
    assert ((at("a"), None),) * removes == outcome.writes
    assert (OK if verb == "destroy" else MISSING) == outcome.answer


def test_a_record_is_never_changed_in_place() -> None:
    """Every verb leaves the record it was given as it was; what an answer holds is what is written."""
    before = codec.pack(LIVING)

    outcomes = [run(call, a=LIVING) for call in VERBS.values()]

    assert before == codec.pack(LIVING)
    for outcome in outcomes:
        if outcome.writes and outcome.answer.record is not None:
            assert outcome.answer.record in [record for _, record in outcome.writes]


def test_rotate_writes_both_keys() -> None:
    """rotate puts an alias that leads to the new key in place of the old record, and the session under the new one."""
    outcome = run(support.rotate("a", "b", grace=7, op=op("1")), a=LIVING)

    (old, left), (new, moved) = outcome.writes
    assert left is not None
    assert moved is not None
    assert (at("a"), at("b")) == (old, new)
    assert (key("b"), op("1"), NOW + 7, b"", None, None) == (
        left.target, left.op, left.expires_at, left.data, left.user, left.meta,
    )  # fmt: skip
    assert codec.replace(LIVING, renewed_at=NOW, expires_at=NOW + TTL) == moved
    assert Answer("ok", moved) == outcome.answer


def test_rotate_without_grace_leaves_a_dead_alias() -> None:
    """With grace 0 the alias is dead from the first instant, and still bears the op that a repeat looks for."""
    ((_, left), _) = run(support.rotate("a", "b", op=op("1")), a=LIVING).writes

    assert left is not None
    assert not is_alive(left, NOW)
    assert op("1") == left.op


def test_the_session_that_an_outcome_is_about() -> None:
    """`at` is the address of the session itself: behind an alias its own, after a rotation the one it left."""
    records = {"a": alias("b", NOW + 5), "b": LIVING}

    outcomes = [run(support.get("a"), **records), run(support.get("b"), **records), run(support.touch("a"), **records)]

    assert [at("b")] * 3 == [outcome.at for outcome in outcomes]
    assert ((at("b"), codec.replace(LIVING, renewed_at=NOW, expires_at=NOW + TTL)),) == outcomes[2].writes


def test_create_under_a_dead_alias_replaces_it() -> None:
    """What an alias leads to when it is dead does not matter: create writes under the key that was asked for."""
    outcome = run(support.create("a"), a=alias("b", NOW), b=LIVING)

    assert [at("a")] == [address for address, _ in outcome.writes]


@pytest.mark.parametrize(("hops", "found"), [(0, True), (1, True), (MAX_HOPS, True), (MAX_HOPS + 1, False)])
def test_follow(hops: int, found: bool) -> None:
    """follow ends at the session up to MAX_HOPS aliases away; where none is found it names the address it began with."""
    records = {at(str(n)): alias(str(n + 1), NOW + 1) for n in range(hops)} | {at(str(hops)): LIVING}

    end = follow(at("0"), NOW, records.get)

    assert at(str(hops) if found else "0") == end


def test_a_circle_of_aliases_ends() -> None:
    """Aliases that lead in a circle, which no rotation makes, end in `missing` and not in a loop."""
    records = {"a": alias("b", NOW + HOUR), "b": alias("a", NOW + HOUR)}

    answers = [run(call, **records).answer for call in (support.get("a"), support.rotate("a", "c", op=op("1")))]

    assert [MISSING, MISSING] == answers


def test_no_more_is_looked_at_than_may_be_followed() -> None:
    """However long a chain of aliases is, a call looks at MAX_HOPS + 2 records of it and no more."""
    looked: list[Address] = []
    records = {at(str(n)): alias(str(n + 1), NOW + HOUR) for n in range(50)}

    def peek(address: Address) -> Record | None:
        looked.append(address)
        return records.get(address)

    for call in (support.get("0"), support.set_("0"), support.rotate("0", "new", op=op("1"))):
        perform(of(call), NOW, peek)

    assert {at("new")} | {at(str(n)) for n in range(MAX_HOPS + 2)} >= set(looked)


@pytest.mark.parametrize(("late", "known"), [(-1, True), (0, False)])
@pytest.mark.parametrize("grace", [0, 500])
def test_how_long_a_rotate_knows_its_repeat(late: int, known: bool, grace: int) -> None:
    """An alias tells of its rotate for REPEAT_WINDOW ms after its end."""
    end = NOW - REPEAT_WINDOW - late
    session = codec.replace(LIVING, expires_at=NOW + HOUR)

    outcome = run(support.rotate("a", "b", grace, op=op("1")), a=alias("b", end, op("1")), b=session)

    assert (Answer("ok", session) if known else MISSING) == outcome.answer
    assert () == outcome.writes


def test_a_repeat_is_of_the_same_rotation() -> None:
    """A rotate with the op of an earlier one but another new key is not that one."""
    outcome = run(support.rotate("a", "c", op=op("1")), a=alias("b", NOW, op("1")), b=LIVING)

    assert MISSING == outcome.answer


@pytest.mark.parametrize("call", [VERBS["create"], VERBS["set"], VERBS["patch"]])
def test_no_op_is_no_repeat(call: Call) -> None:
    """A record without op and a call without op are not each other's repeat."""
    outcome = run(call, a=codec.replace(LIVING, op=None))

    assert EXISTS == outcome.answer if isinstance(call, Create) else outcome.writes


def test_decide_knows_every_verb() -> None:
    """There is a rule for each call about one session."""
    answers = {name: decide(LIVING, of(call), NOW).answer.status for name, call in VERBS.items()}

    assert dict.fromkeys(VERBS, "ok") | {"create": "exists"} == answers
