"""Random lives of sessions: both engines and a small model of the protocol must agree on every answer.

The model is written from docs/protocol.md and shares nothing with sessiond/record.py. SESSIOND_TEST_THOROUGH=1 runs
for some minutes instead of some seconds.
"""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sessiond.calls import Call, Policy, When
from sessiond.codec import replace as replace_
from sessiond.engine import Lane, execute
from sessiond.record import Answer, Ended
from sessiond.vault import Vault
from tests import support
from tests.support import AMPLE, BLUE, HOUR, NOW, PLAIN, POLICY, RED, TTL, Subject, key

WINDOW = 60_000
MAX_HOPS = 8

THOROUGH = os.environ.get("SESSIOND_TEST_THOROUGH") == "1"


# The model -------------------------------------------------------------------------------------------


@dataclass
class Session:
    data: Any
    format: str
    version: int
    ttl: int
    created: int
    renewed: int
    deadline: int | None
    user: str | None
    meta: dict[str, str] | None
    op: bytes | None

    @property
    def expires(self) -> int:
        idle = self.renewed + self.ttl
        return idle if self.deadline is None else min(idle, self.deadline)

    @property
    def size(self) -> int:
        owner = [self.user or "", *(self.meta or {}), *(self.meta or {}).values()]
        return len(encoded((self.data, self.format))) + sum(len(text.encode()) for text in owner)

    def shown(self, status: str = "ok") -> Any:
        times = (self.ttl, self.created, self.renewed, self.expires, self.deadline)
        return status, self.version, self.format, self.data, times, self.user, self.meta


@dataclass
class Alias:
    to: str
    op: bytes | None
    expires: int


class Model:
    """One namespace. Nothing is ever swept from `at` but what would leave an Expired."""

    def __init__(self) -> None:
        self.policy = POLICY
        self.at: dict[str, Session | Alias] = {}
        self.ended: Counter[tuple[str, bytes, str | None, int, bytes | None]] = Counter()  # by calls
        self.died: set[tuple[bytes, str | None, int]] = set()  # by themselves, and are gone from `at`
        self.evicted: set[tuple[bytes, str | None, int]] = set()

    def find(self, name: str, now: int) -> tuple[str, Session] | None:
        for _ in range(MAX_HOPS + 1):
            found = self.at.get(name)
            if found is None or now >= found.expires:
                return None
            if isinstance(found, Session):
                return name, found
            name = found.to
        return None

    def living(self, user: str | None, now: int) -> dict[str, Session]:
        sessions = {name: it for name, it in self.at.items() if isinstance(it, Session) and now < it.expires}
        return {name: it for name, it in sessions.items() if user in (None, it.user)}

    def _make(self, name: str, now: int, given: dict[str, Any]) -> Any:
        ttl, lifetime = given.get("ttl") or TTL, given.get("lifetime")
        deadline = None if lifetime is None else now + lifetime
        user, meta = given.get("user") or None, given.get("meta") or None
        data, format = given["content"]
        return self._put(
            name, Session(data, format, 1, ttl, now, now, deadline, user, meta, given.get("op")), None, now
        )

    def _put(self, name: str, session: Session, before: Session | None, now: int) -> Any:
        """What a create, a set or a patch leaves, if there is room for it."""
        limits, room, living = self.policy, [], self.living(None, now)
        if limits.max_sessions_per_user and session.user and (before is None or before.user != session.user):
            others = {n: it for n, it in living.items() if it.user == session.user}
            surplus = len(others) + 1 - limits.max_sessions_per_user
            if surplus > 0 and limits.when_user_full == "reject":
                return "refused", "too_many_sessions"
            oldest = sorted(others, key=lambda n: (others[n].renewed, others[n].created, key(n)))
            room = oldest[: max(surplus, 0)]
        after = {n: it for n, it in {**living, name: session}.items() if n not in room}
        sizes = [sum(it.size for it in all_.values()) for all_ in (living, after)]
        if len(after) > len(living) and len(after) > (limits.max_sessions or 2**60):
            return "failed", "quota"
        if sizes[1] > sizes[0] and sizes[1] > (limits.max_bytes or 2**60):
            return "failed", "quota"
        self.evicted |= {(key(n), session.user, now) for n in room}
        for n in room:
            self._end("evicted", n, now)
        self._replace(name, session, now)
        return session.shown()

    def _end(self, reason: str, name: str, now: int, new: str | None = None) -> None:
        session = self.at.pop(name)
        assert isinstance(session, Session)
        self.ended[reason, key(name), session.user, now, None if new is None else key(new)] += 1

    def _replace(self, name: str, by: Session | None, now: int) -> None:
        """Puts a session, or nothing, where none lives or that very one is changed."""
        past = self.at.pop(name, None)
        if isinstance(past, Session) and now >= past.expires:
            self.died.add((key(name), past.user, past.expires))
        if by is not None:
            self.at[name] = by

    def _change(self, name: str, before: Session, now: int, given: dict[str, Any], **changed: Any) -> Any:
        session = replace(before, **changed)
        session.version += 1
        session.renewed = now
        session.ttl = given.get("ttl") or session.ttl
        session.op = given.get("op")
        if given.get("user") is not None:
            session.user = given["user"] or None
        if given.get("meta") is not None:
            session.meta = given["meta"] or None
        return self._put(name, session, before, now)

    def create(self, name: str, now: int, **given: Any) -> Any:
        if (found := self.find(name, now)) is None:
            return self._make(name, now, given)
        repeated = given.get("op") is not None and found[1].op == given["op"]
        return found[1].shown() if repeated else ("exists",)

    def get(self, name: str, now: int, renew: Any = None) -> Any:
        return self.touch(name, now, 0 if renew is True else renew, touch=renew is not None)

    def touch(self, name: str, now: int, ttl: int | None = None, touch: bool = True) -> Any:
        if (found := self.find(name, now)) is None:
            return ("missing",)
        if touch:
            found[1].ttl, found[1].renewed = ttl or found[1].ttl, now
        return found[1].shown()

    def set_(self, name: str, now: int, when: Any, **given: Any) -> Any:
        if (found := self.find(name, now)) is None:
            return self._make(name, now, given) if when == "any" else ("missing",)
        session = found[1]
        if given.get("op") is not None and session.op == given["op"]:
            return session.shown()
        if isinstance(when, int) and when != session.version:
            return session.shown("conflict")
        deadline = session.deadline
        if given.get("lifetime") is not None:
            deadline = min(deadline or 2**60, session.created + given["lifetime"])
        data, format = given["content"]
        return self._change(found[0], session, now, given, data=data, format=format, deadline=deadline)

    def patch(self, name: str, now: int, changes: dict[str, Any], remove: list[str], **given: Any) -> Any:
        if (found := self.find(name, now)) is None:
            return ("missing",)
        session = found[1]
        if given.get("op") is not None and session.op == given["op"]:
            return session.shown()
        if session.format == "bytes":
            return "refused", "opaque_data"
        data = {n: value for n, value in (session.data | changes).items() if n not in remove}
        return self._change(found[0], session, now, given, data=data)

    def rotate(self, name: str, now: int, new: str, grace: int, op: bytes | None) -> Any:
        past = self.at.get(name)
        for _ in range(MAX_HOPS + 1):
            if not isinstance(past, Alias) or now >= past.expires + WINDOW:
                break
            if op is not None and (past.op, past.to) == (op, new):
                moved = self.find(new, now)
                return ("missing",) if moved is None else moved[1].shown()
            past = self.at.get(past.to)
        if (found := self.find(name, now)) is None:
            return ("missing",)
        if self.find(new, now) is not None:
            return ("exists",)
        self._end("rotated", found[0], now, new)
        self.at[found[0]] = Alias(new, op, now + grace)
        self._replace(new, found[1], now)
        found[1].renewed = now
        return found[1].shown()

    def destroy(self, name: str, now: int) -> Any:
        if (found := self.find(name, now)) is not None:
            self._end("destroyed", found[0], now)
        elif isinstance(self.at.get(name), Session):
            self._replace(name, None, now)
        return ("ok",)

    def list_(self, now: int, user: str | None) -> Any:
        entries = [
            (key(name), s.user, s.meta, s.created, s.renewed, s.expires, s.version)
            for name, s in self.living(user, now).items()
        ]
        return "ok", sorted(entries, key=lambda entry: entry[0])

    def count(self, now: int, user: str | None) -> Any:
        return "ok", len(self.living(user, now))

    def destroy_all(self, now: int, user: str | None, but: str | None) -> Any:
        spared = None if but is None else self.find(but, now)
        gone = [name for name in self.living(user, now) if spared is None or name != spared[0]]
        for name in gone:
            self._end("destroyed", name, now)
        return "ok", len(gone)

    def sweep(self, now: int) -> set[tuple[bytes, str | None, int]]:
        dead = {name: it for name, it in self.at.items() if isinstance(it, Session) and it.expires <= now}
        for name in dead:
            self._replace(name, None, now)
        return {(key(name), session.user, session.expires) for name, session in dead.items()}


def shown(answer: Answer) -> Any:
    """An engine's answer in the model's words."""
    if (record := answer.record) is not None:
        times = (record.ttl, record.created_at, record.renewed_at, record.expires_at, record.deadline)
        data = support.data_of(answer)
        return answer.status, record.version, record.format, data, times, record.user, record.meta
    if answer.status == "ok" and isinstance(answer.value, tuple):
        entries = support.entries_of(answer)
        return "ok", [(e.key, e.user, e.meta, e.created_at, e.renewed_at, e.expires_at, e.version) for e in entries]
    return support.brief(answer)


# What is asked: for each a call to the engines and the same for the model -------------------------------


class Space(NamedTuple):
    """A namespace, and what its calls bring with them at the moment."""

    name: str
    policy: Policy


Question = tuple[Callable[[Space], Call], Callable[[Model, int], Any]]

NAMES = ["a", "b", "c", "d", "e"]
USERS = ["ann", "bob"]
SPACES = ["one", "two"]
OFTEN = ["create", "create", "get", "set", "patch", "rotate", "rotate"]
VERBS = [*OFTEN, "create", "get", "set", "patch", "touch", "rotate", "destroy", "list", "count", "destroy_all"]

names = st.sampled_from(NAMES)
users = st.sampled_from([None, None, "", *USERS])
metas = st.sampled_from([None, None, {}, {"ip": "::1"}])
ops = st.sampled_from([None, support.op("1"), support.op("2"), support.op("3")])
ttls = st.sampled_from([None, None, 1, 10, 1000, 2 * WINDOW])
lifetimes = st.sampled_from([None, None, None, 1, 15, 5000, WINDOW])
maps = st.dictionaries(st.sampled_from(["x", "y", "z", ""]), st.sampled_from([0, -1, 1.5, "é", None, [1, {"k": []}]]))
encoders = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}
contents = st.one_of(
    st.tuples(maps, st.sampled_from(["json", "msgpack"])), st.tuples(st.sampled_from([b"", b"\xff"]), st.just("bytes"))
)


def encoded(content: tuple[Any, str]) -> bytes:
    data, format = content
    return data if format == "bytes" else encoders[format](data)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    verb = draw(st.sampled_from(VERBS))
    name = draw(names)
    if verb == "create":
        given: dict[str, Any] = {
            "ttl": draw(ttls),
            "lifetime": draw(lifetimes),
            "user": draw(users),
            "meta": draw(metas),
            "op": draw(ops),
        }
        content = draw(contents)
        return (
            lambda ns: support.create(name, encoded(content), content[1], ns=ns.name, policy=ns.policy, **given),
            lambda model, now: model.create(name, now, content=content, **given),
        )
    if verb == "get":
        renew = draw(st.sampled_from([None, True, 1, 10, 2 * WINDOW]))
        return lambda ns: support.get(name, renew, ns=ns.name), lambda model, now: model.get(name, now, renew)
    if verb == "set":
        given = {
            "ttl": draw(ttls),
            "lifetime": draw(lifetimes),
            "user": draw(users),
            "meta": draw(metas),
            "op": draw(ops),
        }
        when: When = draw(st.sampled_from(["any", "alive", 1, 2, 3]))
        content = draw(contents)
        return (
            lambda ns: support.set_(name, encoded(content), content[1], when, ns=ns.name, policy=ns.policy, **given),
            lambda model, now: model.set_(name, now, when, content=content, **given),
        )
    if verb == "patch":
        given = {"ttl": draw(ttls), "user": draw(users), "meta": draw(metas), "op": draw(ops)}
        changes, format = draw(maps), draw(st.sampled_from(["json", "msgpack"]))
        remove = draw(st.lists(st.sampled_from(["x", "y"]), max_size=2))
        return (
            lambda ns: support.patch(
                name, encoded((changes, format)), tuple(remove), format, ns=ns.name, policy=ns.policy, **given
            ),
            lambda model, now: model.patch(name, now, changes, remove, **given),
        )
    if verb == "touch":
        ttl = draw(ttls)
        return lambda ns: support.touch(name, ttl, ns=ns.name), lambda model, now: model.touch(name, now, ttl)
    if verb == "rotate":
        new, grace, op = draw(names.filter(lambda new: new != name)), draw(st.sampled_from([0, 0, 10, HOUR])), draw(ops)
        return (
            lambda ns: support.rotate(name, new, grace, ns=ns.name, op=op),
            lambda model, now: model.rotate(name, now, new, grace, op),
        )
    if verb == "destroy":
        return lambda ns: support.destroy(name, ns=ns.name), lambda model, now: model.destroy(name, now)
    user = draw(st.sampled_from([None, *USERS]))
    if verb == "list":
        return lambda ns: support.list_(user, ns=ns.name), lambda model, now: model.list_(now, user)
    if verb == "count":
        return lambda ns: support.count(user, ns=ns.name), lambda model, now: model.count(now, user)
    but = draw(st.sampled_from([None, *NAMES]))
    return lambda ns: support.destroy_all(user, but, ns=ns.name), lambda model, now: model.destroy_all(now, user, but)


EVERYTHING: list[Question] = [
    *((lambda ns, n=n: support.get(n, ns=ns.name), lambda m, now, n=n: m.get(n, now)) for n in NAMES),
    *((lambda ns, u=u: support.list_(u, ns=ns.name), lambda m, now, u=u: m.list_(now, u)) for u in [None, *USERS]),
    *((lambda ns, u=u: support.count(u, ns=ns.name), lambda m, now, u=u: m.count(now, u)) for u in [None, *USERS]),
]


class Lives(RuleBasedStateMachine):
    """Two namespaces, each with its lane: lanes run at the same time, and namespaces do not meet, so all is determined."""

    cache_bytes = AMPLE
    relaxed = False
    vault = PLAIN

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="sessiond-")
        path = Path(self.folder.name) / "sessions.db"
        self.now = NOW
        self.swept_in_part = False
        self.expired: set[tuple[str, bytes, str | None, int]] = set()
        self.told: list[list[Ended]] = [[], []]  # by each engine, with its answers
        self.models = {ns: Model() for ns in SPACES}
        self.engines = [Subject("memory:"), Subject(str(path), self.cache_bytes, self.relaxed, self.vault)]
        for engine in self.engines:
            self.runner.run(engine.open())
        self.lanes: dict[tuple[int, str], Lane] = {}
        self.take_lanes()

    def take_lanes(self) -> None:
        self.lanes = {(n, ns): engine.engine.lane() for n, engine in enumerate(self.engines) for ns in SPACES}

    def teardown(self) -> None:
        for engine in self.engines:
            self.runner.run(engine.engine.close())
            assert [] == engine.fatal
        self.runner.close()
        self.folder.cleanup()

    def ask(self, batches: dict[str, list[Question]]) -> None:
        """A batch for each namespace, all of them at once; everybody must answer alike."""

        async def answers(n: int) -> list[list[Answer]]:
            submitted = [
                execute(self.lanes[n, ns], [call(Space(ns, self.models[ns].policy)) for call, _ in batch], self.now)
                for ns, batch in batches.items()
            ]
            return await asyncio.wait_for(asyncio.gather(*submitted), 10)

        expected = [[ask(self.models[ns], self.now) for _, ask in batch] for ns, batch in batches.items()]
        memory, sqlite = (self.runner.run(answers(n)) for n in range(2))

        assert expected == [[shown(answer) for answer in batch] for batch in memory]
        for told, batches_of in zip(self.told, (memory, sqlite), strict=True):
            told += [ended for batch in batches_of for answer in batch for ended in answer.ended]
            by_calls = Counter(
                (e.namespace, e.reason, e.key, e.user, e.at, e.new_key) for e in told if e.reason != "expired"
            )
            assert by_calls == {(ns, *end): n for ns, model in self.models.items() for end, n in model.ended.items()}
        # Which of the dead still rest when a call comes by is the engine's business.
        memory, sqlite = ([[replace_(a, ended=()) for a in batch] for batch in each] for each in (memory, sqlite))
        assert memory == sqlite

    @rule(batch=st.lists(questions(), min_size=1, max_size=6), ns=st.sampled_from(SPACES))
    def one_lane(self, batch: list[Question], ns: str) -> None:
        self.ask({ns: batch})

    @rule(batches=st.tuples(*[st.lists(questions(), min_size=1, max_size=6)] * len(SPACES)))
    def many_lanes(self, batches: tuple[list[Question], ...]) -> None:
        self.ask(dict(zip(SPACES, batches, strict=True)))

    @rule(ms=st.sampled_from([0, 1, 1, 9, 1000, WINDOW - 1, WINDOW, HOUR]))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule(late=st.sampled_from([-1, 0, 1]), past=st.sampled_from([0, WINDOW]), choice=st.integers(0, 20))
    def wait_for_an_end(self, late: int, past: int, choice: int) -> None:
        ends = sorted(it.expires + past + late for model in self.models.values() for it in model.at.values())
        coming = [end for end in ends if end > self.now]
        if coming:
            self.now = coming[choice % len(coming)]

    @rule(limit=st.integers(1, 4))
    def sweep(self, limit: int) -> None:
        for ns, model in self.models.items():
            self.expired |= {(ns, *event) for event in model.sweep(self.now)}
        for engine, told in zip(self.engines, self.told, strict=True):
            self.runner.run(engine.sweep_all(self.now, limit))
            events = self.runner.run(engine.expired())
            numbers = [event.number for event in events]
            assert sorted(set(numbers)) == numbers
            ended = {
                reason: {(e.namespace, e.key, e.user, e.expired_at) for e in events if e.reason == reason}
                for reason in ("expired", "evicted")
            }
            assert {(ns, *event) for ns, model in self.models.items() for event in model.evicted} == ended["evicted"]
            if not self.swept_in_part:
                assert self.expired == ended["expired"]
            replaced = {(e.namespace, e.key, e.user, e.at) for e in told if e.reason == "expired"}
            assert {(ns, *end) for ns, m in self.models.items() for end in m.died} == ended["expired"] | replaced

    @rule(limit=st.integers(1, 4))
    def sweep_in_part(self, limit: int) -> None:
        self.swept_in_part = True  # which of the dead went first is the engine's business
        for engine in self.engines:
            assert self.runner.run(engine.engine.sweep(self.now, limit)).removed <= limit

    @precondition(lambda self: self.now > NOW)
    @rule()
    def reopen(self) -> None:
        self.runner.run(self.engines[1].reopen())
        self.take_lanes()

    @invariant()
    def all_agree_on_everything(self) -> None:
        self.ask(dict.fromkeys(SPACES, EVERYTHING))


class ColdLives(Lives):
    cache_bytes = 0


class TightLives(Lives):
    cache_bytes = 2500  # some three sessions: what a call needs is now here and now there


class EncryptedLives(Lives):
    cache_bytes = 0
    vault = Vault([RED, BLUE])


class RelaxedLives(Lives):
    relaxed = True


limits = st.builds(
    Policy,
    ttl=st.just(TTL),
    max_sessions_per_user=st.sampled_from([None, 1, 1, 2, 3]),
    when_user_full=st.sampled_from(["evict-oldest", "evict-oldest", "reject"]),
    max_sessions=st.sampled_from([None, None, 1, 2, 3, 4]),
    max_bytes=st.sampled_from([None, None, 1, 20, 40, 80]),
)


class LimitedLives(Lives):
    """Limits come, change and go, as over restarts with other settings."""

    @initialize(policies=st.tuples(*[limits] * len(SPACES)))
    def begin_limited(self, policies: tuple[Policy, ...]) -> None:
        for model, policy in zip(self.models.values(), policies, strict=True):
            model.policy = policy

    @rule(ns=st.sampled_from(SPACES), policy=st.one_of(limits, st.just(POLICY)))
    def change_limits(self, ns: str, policy: Policy) -> None:
        self.models[ns].policy = policy


class LimitedColdLives(LimitedLives):
    cache_bytes = 0


class LimitedRelaxedLives(LimitedLives):
    relaxed = True


profile = settings(
    max_examples=1000 if THOROUGH else 30,
    stateful_step_count=60 if THOROUGH else 30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TestHot = Lives.TestCase
TestHot.settings = profile
TestCold = ColdLives.TestCase
TestCold.settings = profile
TestTight = TightLives.TestCase
TestTight.settings = profile
TestEncrypted = EncryptedLives.TestCase
TestEncrypted.settings = profile
TestRelaxed = RelaxedLives.TestCase
TestRelaxed.settings = profile
TestLimited = LimitedLives.TestCase
TestLimited.settings = profile
TestLimitedCold = LimitedColdLives.TestCase
TestLimitedCold.settings = profile
TestLimitedRelaxed = LimitedRelaxedLives.TestCase
TestLimitedRelaxed.settings = profile
