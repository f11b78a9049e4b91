"""Tags and the scopes under them: nested, in threads, tasks and generators, and one scope used by many at once."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, context

import tokenbudget_otel as tb
from tokenbudget_otel.budgets import active_budgets
from tokenbudget_otel.tags import MAX_VALUE_LENGTH, checked_tags, current_tags, tag_process

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}", fullmatch=True)
values = st.one_of(
    st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=MAX_VALUE_LENGTH),
    st.integers(-(10**9), 10**9),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)
tag_sets = st.dictionaries(names, values, max_size=4)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = context.get_current()
    yield
    assert context.get_current() == before
    assert current_tags() == {}


@given(st.lists(tag_sets, max_size=5))
def test_inner_wins_and_everything_is_put_back(layers: list[dict[str, Any]]) -> None:
    expected: dict[str, str] = {}
    entered: list[tuple[tb.tags, dict[str, str]]] = []
    for layer in layers:
        scope = tb.tags(**layer)
        entered.append((scope, dict(expected)))
        expected |= checked_tags(layer)
        assert scope.__enter__() == expected == current_tags()
    for scope, before in reversed(entered):
        scope.__exit__(None, None, None)
        assert current_tags() == before


@settings(deadline=None)
@given(process=tag_sets, run=tag_sets, inner=tag_sets)
def test_tags_of_the_process_stand_below_those_of_the_context(
    process: dict[str, Any], run: dict[str, Any], inner: dict[str, Any]
) -> None:
    try:
        tag_process(process)
        tag_process(run, "run")
        tag_process({"team": "nobody's", **process}, "configuration")
        below = {"team": "nobody's", **checked_tags(process), **checked_tags(run)}
        assert in_thread(current_tags) == current_tags() == below
        with tb.tags(**inner):
            assert current_tags() == below | checked_tags(inner)
            assert not baggage.get_all() or inner, "they stay in the process"
    finally:
        for origin in ("configuration", "program", "run"):
            tag_process({}, origin)


def test_process_tags_that_cannot_be_carried_change_nothing() -> None:
    tag_process({"team": "search"})
    try:
        with pytest.raises(ValueError, match="tag 'env' must"):
            tag_process({"env": ""})
        assert current_tags() == {"team": "search"}
    finally:
        tag_process({})


BAD_NAMES = ("", " ", ".a", "-a", "a b", "a\nb", "ä", "a/b", "a=b", "a,b", "x" * 65)
BAD_VALUES = ("", "a\nb", "a\rb", "\n", "a\x00", "\x7f", "x" * (MAX_VALUE_LENGTH + 1), None, [], {}, object(), b"x")


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_name_that_cannot_be_carried(name: str) -> None:
    with pytest.raises(ValueError, match="tag name"):
        tb.tags(**{name: "x"})


@pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: repr(value)[:20])
def test_a_value_that_cannot_be_carried(value: Any) -> None:
    with pytest.raises(ValueError, match="'tenant'"):
        tb.tags(tenant=value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (1, "1"), (1.5, "1.5"), ("ä ö", "ä ö"), ("x" * 256, "x" * 256)],
)
def test_values_become_strings(value: Any, text: str) -> None:
    with tb.tags(tenant=value):
        assert current_tags() == {"tenant": text}


def test_other_baggage_is_left_alone() -> None:
    token = context.attach(baggage.set_baggage("theirs", "1"))
    with tb.tags(tenant="acme"):
        assert baggage.get_baggage("theirs") == "1"
        assert current_tags() == {"tenant": "acme"}
    context.detach(token)


def test_what_is_read_is_the_readers_own() -> None:
    with tb.tags(tenant="acme"):
        first = current_tags()
        first["tenant"] = first["more"] = "changed"
        second = current_tags()
        second["tenant"] = "again"
        assert current_tags() == {"tenant": "acme"}
    assert current_tags() == {}


def test_baggage_that_is_set_by_others_is_read_each_time() -> None:
    ctx = baggage.set_baggage("tokenbudget.tag.tenant", "acme")
    assert [current_tags(ctx), current_tags(ctx)] == [{"tenant": "acme"}] * 2
    other = baggage.set_baggage("tokenbudget.tag.tenant", 7, ctx)
    assert (current_tags(other), current_tags(ctx)) == ({"tenant": "7"}, {"tenant": "acme"})
    assert current_tags(baggage.clear(ctx)) == {}
    assert current_tags(context.Context()) == {}


def test_tags_are_those_that_public_functions_say() -> None:
    """Also with an SDK that keeps baggage elsewhere: then it is asked."""
    module = sys.modules["tokenbudget_otel.tags"]
    assert module._entries is module._entries_by_key, "faster: look where baggage is kept now"
    with tb.tags(tenant="acme"):
        assert module._entries_by_key(None) == baggage.get_all()


def test_left_also_when_the_body_raises() -> None:
    with pytest.raises(LookupError), tb.tags(tenant="acme"):
        raise LookupError


# --- threads and tasks -----------------------------------------------------------------------------------------------


def in_thread(run: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def test_threads_have_them_with_the_context_and_not_without() -> None:
    with tb.tags(tenant="acme"):
        carried = contextvars.copy_context()
        assert in_thread(current_tags) == {}
        assert in_thread(lambda: carried.run(current_tags)) == {"tenant": "acme"}


async def test_tasks_inherit_and_keep_to_themselves() -> None:
    async def task(number: int) -> dict[str, str]:
        with tb.tags(number=number):
            await asyncio.sleep(0)
            async with tb.tags(deep=number):
                await asyncio.sleep(0)
            return current_tags()

    with tb.tags(tenant="acme"):
        assert await asyncio.to_thread(current_tags) == {"tenant": "acme"}
        got = await asyncio.gather(*(task(number) for number in range(10)))
        assert current_tags() == {"tenant": "acme"}
    assert got == [{"tenant": "acme", "number": str(number)} for number in range(10)]


# --- decorated functions ----------------------------------------------------------------------------------------------


def test_a_plain_function() -> None:
    @tb.tags(tenant="acme")
    def work(value: int, /, *, more: int = 0) -> tuple[int, dict[str, str]]:
        """Says what it does."""
        return value + more, current_tags()

    assert work(1, more=2) == (3, {"tenant": "acme"})
    assert (work.__name__, work.__doc__) == ("work", "Says what it does.")


def test_a_function_that_calls_itself() -> None:
    @tb.tags(tenant="acme")
    def down(depth: int) -> int:
        assert current_tags() == {"tenant": "acme"}
        return 0 if depth == 0 else 1 + down(depth - 1)

    assert down(5) == 5


async def test_a_coroutine_function() -> None:
    @tb.tags(tenant="acme")
    async def work() -> dict[str, str]:
        await asyncio.sleep(0)
        return current_tags()

    assert asyncio.iscoroutinefunction(work)
    assert await asyncio.gather(work(), work()) == [{"tenant": "acme"}] * 2


def test_a_generator_has_them_while_its_body_runs() -> None:
    said: list[Any] = []

    @tb.tags(tenant="acme")
    def work() -> Iterator[dict[str, str]]:
        try:
            said.append((yield current_tags()))
            with tb.tags(inner=1):
                try:
                    yield current_tags()
                except LookupError:
                    yield {"caught": "yes"} | current_tags()
            yield current_tags()
            return "done"
        finally:
            said.append(current_tags())

    generator = work()
    assert next(generator) == {"tenant": "acme"}
    assert current_tags() == {}
    with tb.tags(reader=1):
        assert generator.send("hello") == {"tenant": "acme", "inner": "1"}
        assert current_tags() == {"reader": "1"}
    assert generator.throw(LookupError()) == {"caught": "yes", "tenant": "acme", "inner": "1"}
    assert next(generator) == {"tenant": "acme"}
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "done"
    assert said == ["hello", {"tenant": "acme"}]


def test_a_generator_closed_early_cleans_up_inside_its_scope() -> None:
    said = []

    @tb.tags(tenant="acme")
    def work() -> Iterator[int]:
        try:
            yield 1
        finally:
            said.append(current_tags())

    generator = work()
    next(generator)
    generator.close()
    assert said == [{"tenant": "acme"}]


async def test_an_async_generator_has_them_while_its_body_runs() -> None:
    said = []

    @tb.tags(tenant="acme")
    async def work() -> AsyncIterator[Any]:
        try:
            received = yield current_tags()
            await asyncio.sleep(0)
            try:
                yield received, current_tags()
            except LookupError:
                yield current_tags()
        finally:
            said.append(current_tags())

    generator = work()
    assert await anext(generator) == {"tenant": "acme"}
    assert current_tags() == {}
    assert await generator.asend("hello") == ("hello", {"tenant": "acme"})
    assert await generator.athrow(LookupError()) == {"tenant": "acme"}
    await generator.aclose()
    assert said == [{"tenant": "acme"}]
    assert current_tags() == {}


async def test_an_async_generator_may_be_closed_by_another_task() -> None:
    said = []

    @tb.tags(tenant="acme")
    async def work() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            said.append(current_tags())

    generator = work()
    await anext(generator)
    await asyncio.create_task(generator.aclose(), context=contextvars.Context())
    assert said == [{"tenant": "acme"}]


def test_interleaved_generators_are_kept_apart() -> None:
    @tb.tags(tenant="acme")
    def one() -> Iterator[dict[str, str]]:
        while True:
            yield current_tags()

    @tb.tags(tenant="globex")
    def two() -> Iterator[dict[str, str]]:
        while True:
            yield current_tags()

    first, second = one(), two()
    for _ in range(3):
        assert next(first) == {"tenant": "acme"}
        assert next(second) == {"tenant": "globex"}


# --- one instance, many users ----------------------------------------------------------------------------------------

SCOPES: dict[str, Callable[[], Any]] = {
    "tags": lambda: tb.tags(tenant="acme"),
    "budget": lambda: tb.budget(max_calls=1),
}


def inside() -> bool:
    return bool(current_tags() or active_budgets())


@pytest.mark.parametrize("make", SCOPES.values(), ids=SCOPES)
def test_one_scope_entered_by_many_threads(make: Callable[[], Any]) -> None:
    scope = make()
    meet = threading.Barrier(8, timeout=10)

    def use(_: int) -> list[bool]:
        seen = []
        for _turn in range(50):
            meet.wait()
            with scope:
                seen.append(inside())
            seen.append(not inside())
        return seen

    with ThreadPoolExecutor(8) as pool:
        assert all(all(seen) for seen in pool.map(use, range(8)))
    assert scope._tokens == {}


@pytest.mark.parametrize("make", SCOPES.values(), ids=SCOPES)
async def test_one_scope_entered_by_many_tasks_and_left_in_any_order(make: Callable[[], Any]) -> None:
    scope = make()

    async def use(turns: int) -> bool:
        with scope:
            for _ in range(turns):
                await asyncio.sleep(0)
            assert inside()
        return not inside()

    assert all(await asyncio.gather(*(use(turns) for turns in (5, 1, 9, 3, 7, 2))))
    assert not inside()
    assert scope._tokens == {}


@pytest.mark.parametrize("make", SCOPES.values(), ids=SCOPES)
def test_one_scope_entered_within_itself(make: Callable[[], Any]) -> None:
    scope = make()
    with scope:
        with scope:
            assert inside()
        assert inside()
    assert not inside()


@pytest.mark.parametrize("make", SCOPES.values(), ids=SCOPES)
async def test_a_scope_left_by_another_task_is_no_error(make: Callable[[], Any]) -> None:
    scope = make()
    scope.__enter__()
    await asyncio.create_task(scope.__aexit__(None, None, None), context=contextvars.Context())
    # The context of this task was not the other one's to restore: it ends with the task.
    assert inside()
    context.attach(context.Context())


async def test_a_scope_left_by_another_task_leaves_the_entries_of_others_alone() -> None:
    """Two tasks are inside one scope; a third one leaves for the first. The second is still inside, and gets out."""
    scope = tb.tags(tenant="acme")
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def second() -> bool:
        with scope:
            entered.set()
            await go_on.wait()
            assert inside()
        return not inside()

    async def first() -> None:
        scope.__enter__()

    await asyncio.create_task(first())
    task = asyncio.create_task(second())
    await entered.wait()
    await asyncio.create_task(scope.__aexit__(None, None, None), context=contextvars.Context())
    go_on.set()
    assert await task
