"""What a request does to its session, decided without a daemon: the answers are written down beside the questions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client import AuthError, Failed, InvalidRequest, Missing, Record, Unavailable
from sessiond_client.lifecycle import (
    Ask,
    Lifecycle,
    Paths,
    Steps,
    describe,
    drive,
    drive_async,
    fingerprint,
    through_text,
)

from .test_codec import text, values


def record(data: Any, user: str | None = None, format: str = "json") -> Record:
    return Record(data, format, 3, 60.0, 0, 60_000, None, user, None)


def run(steps: Steps, *results: Any) -> list[Ask]:
    """What the steps ask for, when they are answered so; an exception is thrown."""
    asked: list[Ask] = []
    left = [*results]

    class Client:
        def __getattr__(self, verb: str) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                asked.append(Ask(verb, arguments, named))
                result = left.pop(0)
                if isinstance(result, Exception):
                    raise result
                return result

            return call

    drive(Client(), steps)
    assert [] == left
    return asked


def verbs(asked: list[Ask]) -> list[str]:
    return [ask.verb for ask in asked]


def loaded(data: Any = None, user: str | None = None, sid: str | None = "old", **options: Any) -> Lifecycle:
    """A session as a request has it that has looked at it. `data` None: it was not alive."""
    life = Lifecycle(sid, **options)
    run(life.load(), *([] if sid is None else [None if data is None else record(data, user)]))
    return life


def change(**entries: Any) -> Callable[[Lifecycle], None]:
    return lambda life: life.data.update(entries)


@pytest.mark.parametrize(
    ("life", "act", "user", "results", "expected", "cookie"),
    [
        # no session, and none made
        (lambda: loaded(sid=None), change(), None, [], [], "keep"),
        (lambda: loaded(), change(), None, [], [], "keep"),
        (lambda: loaded(), lambda life: life.data.clear(), None, [], [], "keep"),
        # a new one
        (lambda: loaded(sid=None), change(a=1), None, ["new"], ["create"], "send"),
        (lambda: loaded(), change(a=1), None, ["new"], ["create"], "send"),
        (lambda: loaded(sid=None), change(), "ada", ["new"], ["create"], "send"),
        # one that lives
        (lambda: loaded({"a": 1}), change(), None, [], [], "keep"),
        (lambda: loaded({"a": 1}), change(a=1), None, [], [], "keep"),
        (lambda: loaded({"a": 1}), change(b=2), None, [4], ["patch"], "keep"),
        (lambda: loaded({}), change(), None, [], [], "keep"),
        (lambda: loaded({"a": 1}, "ada"), change(), "ada", [], [], "keep"),
        # emptied, ended
        (lambda: loaded({"a": 1}), lambda life: life.data.clear(), None, [None], ["destroy"], "clear"),
        (lambda: loaded({"a": 1}, "ada"), lambda life: life.end(), None, [None], ["destroy"], "clear"),
        (lambda: loaded({}), lambda life: life.end(), None, [None], ["destroy"], "clear"),
        (lambda: loaded(), lambda life: life.end(), None, [None], ["destroy"], "clear"),
        (lambda: loaded(sid=None), lambda life: life.end(), None, [], [], "keep"),
        (
            lambda: loaded({"a": 1}),
            lambda life: (life.end(), life.data.update(b=2)),
            None,
            [None, "new"],
            ["destroy", "create"],
            "send",
        ),
        # moved, by the app or because it changed hands
        (lambda: loaded({"a": 1}), lambda life: life.move(), None, ["new"], ["rotate"], "send"),
        (lambda: loaded({"a": 1}), change(), "ada", ["new", 4], ["rotate", "patch"], "send"),
        (lambda: loaded({"a": 1}, "ada"), change(), "bob", ["new", 4], ["rotate", "patch"], "send"),
        (lambda: loaded({"a": 1}, "ada"), change(), None, ["new", 4], ["rotate", "patch"], "send"),
        (lambda: loaded(), lambda life: life.move(), None, [], [], "keep"),
        # ended elsewhere meanwhile
        (lambda: loaded({"a": 1}), change(b=2), None, [Missing()], ["patch"], "keep"),
        (lambda: loaded({"a": 1}), change(), "ada", [Missing()], ["rotate"], "keep"),
        # not looked at
        (lambda: Lifecycle("old"), change(), None, [], [], "keep"),
        (lambda: Lifecycle(None), lambda life: life.move(), None, [], [], "keep"),
        (lambda: Lifecycle("old"), lambda life: life.move(), None, ["new"], ["rotate"], "send"),
        (lambda: Lifecycle("old"), lambda life: life.move(), None, [Missing()], ["rotate"], "keep"),
        (lambda: Lifecycle("old"), lambda life: life.end(), None, [None], ["destroy"], "clear"),
    ],
)
def test_finish(
    life: Callable[[], Lifecycle],
    act: Callable[[Lifecycle], Any],
    user: str | None,
    results: list[Any],
    expected: list[str],
    cookie: str,
) -> None:
    """The end of a request asks for exactly what its changes need, and knows what to do with the cookie."""
    subject = life()
    act(subject)

    asked = run(subject.finish(user=user), *results)

    assert expected == verbs(asked)
    assert cookie == subject.cookie()


@given(st.dictionaries(text, values, max_size=4), st.dictionaries(text, values, max_size=4))
def test_a_patch_leads_from_the_one_to_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What is asked for makes the stored data into the app's, and names only what differs."""
    life = loaded({"always": 1, **before})
    life.data = {"always": 1, **after}

    asked = run(life.finish(), *([4] if life.changes() else []))

    stored = {"always": 1, **before}
    for _, (sid, changed, removed), named in asked:
        assert ("old", None, None) == (sid, named["user"], named["meta"])
        stored = {name: value for name, value in {**stored, **changed}.items() if name not in removed}
        assert "always" not in changed
        assert all(name not in before or fingerprint(before[name]) != fingerprint(changed[name]) for name in changed)
    assert {"always": 1, **after} == stored
    assert life.changes() is None


def test_a_lost_change_is_told() -> None:
    """`lost` says that the session ended elsewhere; nothing else is asked for after it."""
    life = loaded({"a": 1})
    life.data["b"] = 2

    run(life.finish(), Missing())

    assert life.lost


def test_an_outage_is_raised() -> None:
    """Unavailable is not taken for a session that is gone: it goes to the app, in whichever step it comes."""
    life = Lifecycle("old")
    with pytest.raises(Unavailable):
        run(life.load(), Unavailable("away"))
    assert not life.loaded

    life = loaded({"a": 1})
    life.data["b"] = 2
    with pytest.raises(Unavailable):
        run(life.finish(), Unavailable("away"))
    assert not life.lost


@pytest.mark.parametrize("rolling", [True, False])
def test_rolling(rolling: bool) -> None:
    """A rolling cookie is sent with each use of a session, and only with a use, and only of one that lives."""
    assert ("send" if rolling else "keep") == loaded({"a": 1}).cookie(rolling=rolling)
    assert "keep" == loaded().cookie(rolling=rolling)
    assert "keep" == Lifecycle("old").cookie(rolling=rolling)


def test_meta_of_new_sessions_and_logins() -> None:
    """The device is noted when a session begins or changes hands, so that it costs no write of its own."""
    device = {"agent": "phone"}
    new, same, login = loaded(sid=None), loaded({"a": 1}, "ada"), loaded({"a": 1})
    new.data["a"] = same.data["a"] = 2

    created = run(new.finish(meta=device), "sid")
    patched = run(same.finish(user="ada", meta=device), 4)
    moved = run(login.finish(user="ada", meta=device), "sid", 4)

    assert device == created[0].named["meta"]
    assert patched[0].named["meta"] is None
    assert ("ada", device) == (moved[1].named["user"], moved[1].named["meta"])


def test_moves_once() -> None:
    """A login whose handler has moved the session itself does not move it again, nor one that may not move."""
    life = loaded({"a": 1})
    run(life.rotate(), "new")

    assert ["patch"] == verbs(run(life.finish(user="ada"), 4))
    assert "send" == life.cookie()
    assert ["patch"] == verbs(run(loaded({"a": 1}).finish(user="ada", moves=False), 4))


@pytest.mark.parametrize(
    "error", [InvalidRequest("too many", code="too_many_sessions"), AuthError("no"), Failed("full", code="quota")]
)
def test_a_refused_login_stays_where_it_was(error: Exception) -> None:
    """A session whose new user is refused goes back to its id: the browser, which gets an error, knows no other."""
    life = loaded({"cart": 1})

    with pytest.raises(type(error)):
        run(life.finish(user="ada"), "new", error, "old")

    assert ("old", "keep") == (life.sid, life.cookie())


def test_a_login_without_an_answer_does_not_go_back() -> None:
    """Whether it took effect is not known, so the id from before the login stays dead; whoever answers has a cookie."""
    life = loaded({"cart": 1})

    with pytest.raises(Unavailable):
        run(life.finish(user="ada"), "new", Unavailable("away", outcome_unknown=True))

    assert ("new", "send") == (life.sid, life.cookie())


@pytest.mark.parametrize("life", [lambda: loaded({"a": 1}), lambda: Lifecycle("old")])
def test_too_late_to_move(life: Callable[[], Lifecycle]) -> None:
    """Once the response has begun no session moves, though the app asks for it: the browser could not follow."""
    late = life()
    late.move()

    assert [] == verbs(run(late.finish(moves=False)))


def test_too_late_to_begin(caplog: pytest.LogCaptureFixture) -> None:
    """Once the response has begun a session can end; the one that the app begins in its place is dropped, and that is told."""
    life = loaded({"a": 1}, "ada")
    life.end()
    life.data["b"] = 2

    assert ["destroy"] == verbs(run(life.finish(moves=False), None))
    assert "a session begun after the response had started is dropped" in caplog.text
    assert [] == verbs(run(life.finish(moves=False)))


def test_a_user_without_a_name_is_nobody() -> None:
    """An empty user is none: such a session is not stored for it, and does not change hands with every request."""
    assert [] == run(loaded(sid=None).finish(user=""))
    assert [] == run(loaded({"a": 1}).finish(user=""))


def test_finish_may_come_twice() -> None:
    """After a response that went on streaming, say: a session that began after another had ended is not ended with it."""
    life = loaded({"a": 1})
    life.end()
    life.data["b"] = 2
    assert ["destroy", "create"] == verbs(run(life.finish(), None, "new"))
    life.data["c"] = 3

    assert ["patch"] == verbs(run(life.finish(), 2))


def test_when_it_was_made() -> None:
    """created_at is that of the session that was loaded, until there is another."""
    life = loaded({"a": 1})
    assert 0 == life.created_at

    life.end()
    run(life.finish(), None)

    assert [None, None] == [life.created_at, loaded().created_at]


@pytest.mark.parametrize("data", [{}, {"a": 1}], ids=["empty", "full"])
@pytest.mark.parametrize("sid", [None, "made-by-the-app"])
def test_create(data: dict[str, Any], sid: str | None) -> None:
    """create stores a new session even if it holds nothing; its sid is new, so that a login needs no other one."""
    life = loaded({"of": "another"}, "ada")
    life.data, life.user = dict(data), None

    (asked,) = run(life.create(sid), sid or "new")

    assert ("create", (data,), sid) == (asked.verb, asked.arguments, asked.named.get("sid"))
    assert (sid or "new", True, None) == (life.sid, life.exists, life.changes())
    assert ["patch"] == verbs(run(life.finish(user="ada"), 2))


def test_logout_takes_the_user_away() -> None:
    """A session that goes on without its user is nobody's in the index."""
    (_, patch) = run(loaded({"a": 1}, "ada").finish(user=None), "new", 4)

    assert "" == patch.named["user"]


def test_the_ttl_goes_with_every_renewal() -> None:
    """A ttl of the app's is what reading and writing renew with; without one it is the session's own."""
    life = Lifecycle("old", ttl=60)
    (get,) = run(life.load(), record({"a": 1}))
    life.data["a"] = 2
    (patch,) = run(life.finish(), 4)

    assert (60, 60) == (get.named["renew"], patch.named["ttl"])
    with pytest.raises(InvalidRequest):
        Lifecycle("old", ttl=0)


def test_opaque_data_is_no_dict() -> None:
    """A session of bytes cannot be used as a dict, and the error says what can be done."""
    with pytest.raises(InvalidRequest, match="get"):
        run(Lifecycle("old").load(), record(b"\x80", format="bytes"))


def test_encoded_values() -> None:
    """With a serializer of the app's own, its types come back, plain values are stored, and reading changes nothing."""

    def dumps(value: Any) -> str:
        return json.dumps(value, default=lambda each: {"complex": [each.real, each.imag]})

    def loads(said: str) -> Any:
        return json.loads(said, object_hook=lambda each: complex(*each["complex"]) if "complex" in each else each)

    encode, decode = through_text(dumps, loads)
    life = loaded({"z": {"complex": [1.0, 2.0]}}, encode=encode, decode=decode)
    assert {"z": 1 + 2j} == life.data
    assert [] == run(life.finish())

    life.data["t"] = (1, 3j)
    (patch,) = run(life.finish(), 4)

    assert {"t": [1, {"complex": [0.0, 3.0]}]} == patch.arguments[1]


def test_what_another_app_wrote_otherwise_is_no_change() -> None:
    """An entry that this app would write with other bytes, such as names in another order, is not written for that."""
    encode, decode = through_text(lambda value: json.dumps(value, sort_keys=True), json.loads)

    life = loaded({"cart": {"b": 1, "a": 2}}, encode=encode, decode=decode)

    assert life.changes() is None
    life.data["cart"]["a"] = 3
    assert {"cart": {"a": 3, "b": 1}} == (life.changes() or pytest.fail("no change")).set


def test_an_end_is_carried_out_once() -> None:
    """A session that began after an end stays when the request is finished again, as it is after a streamed answer."""
    life = loaded({"a": 1})
    life.end()
    life.data["b"] = 2
    run(life.finish(), None, "new")
    life.data["c"] = 3

    assert ["patch"] == verbs(run(life.finish(), 2))
    assert "new" == life.sid


def test_drive_async_is_its_twin() -> None:
    """On an asyncio client the same steps make the same calls, and get its errors."""
    asked = []

    class Client:
        async def get(self, sid: str, *, renew: Any) -> Record:
            asked.append("get")
            return record({"a": 1})

        async def patch(self, *arguments: Any, **named: Any) -> int:
            asked.append("patch")
            raise Missing

    async def visit() -> Lifecycle:
        life = Lifecycle("old")
        await drive_async(Client(), life.load())
        life.data["b"] = 2
        await drive_async(Client(), life.finish())
        return life

    assert asyncio.run(visit()).lost
    assert ["get", "patch"] == asked


def test_describe() -> None:
    """The device is told without control characters, cut short, and without what is not known."""
    assert {"agent": "a[31mb", "ip": "::1"} == describe("a\x1b[31m\nb", "::1")
    assert {"agent": "x" * 200} == describe("x" * 1000, None)
    assert {} == describe(None, "")


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        ("/health", "/health", True),
        ("/health", "/health/x", False),
        (["/static/*", "/x"], "/static/a/b.css", True),
        (["/static/*", "/x"], "/x", True),
        (["/static/*"], "/static", False),
        ("*", "/anything", True),
        ((), "/", False),
    ],
)
def test_paths(patterns: Any, path: str, expected: bool) -> None:
    """A pattern is a path, or with a * all that it can stand for."""
    assert expected == (path in Paths(patterns))


def test_paths_begin_with_a_slash() -> None:
    """A pattern that could match nothing is refused when the app is made."""
    with pytest.raises(InvalidRequest, match="begins with /"):
        Paths(["static/*"])


def test_nested_too_deeply() -> None:
    """A value in which nobody could get to the ground is a change; what is wrong with it is said when it is stored."""
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]

    assert fingerprint(deep) != fingerprint([])
