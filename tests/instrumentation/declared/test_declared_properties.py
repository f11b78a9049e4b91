"""For any chunks, and any way of leaving: one charge, the items as they were, and totals that are right."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import acme_llm
from acme_llm import AsyncClient, Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenbudget_otel.instrumentation import deferred

COUNTS = st.one_of(st.none(), st.integers(0, 10_000), st.sampled_from((-1, 1.5, "many", True, 10**30)))
CHUNKS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "delta": st.one_of(st.text(max_size=12), st.none(), st.integers()),
            "usage": st.fixed_dictionaries({}, optional={"prompt": COUNTS, "completion": COUNTS}),
            "end": st.booleans(),
        },
    ),
    max_size=6,
)
WAYS = ("read", "broken", "closed", "dropped", "thrown")
KINDS = ("lazy", "complete", "events")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53


def _tokens(seen: list[Any]) -> int:
    texts = [chunk["delta"].encode() for chunk in seen if isinstance(chunk.get("delta"), str) and chunk["delta"]]
    return max(-(-sum(map(len, texts)) // 4), len(texts))


def _expected(seen: list[Any]) -> tuple[Any, Any, bool]:
    """Input, output and whether they are estimated, from what was seen."""
    found: dict[str, Any] = {}
    for chunk in seen:
        found |= {name: n for name, n in chunk.get("usage", {}).items() if _whole(n)}
    ended = any(chunk.get("end") for chunk in seen)
    if ended and "completion" in found:
        return found.get("prompt"), found["completion"], False
    return None, max(_tokens(seen), found.get("completion", 0)), True


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHUNKS, st.sampled_from(WAYS), st.sampled_from(KINDS), st.booleans(), st.integers(1, 6))
def test_one_charge_and_the_items_unchanged(
    metered: Any, meter: Any, chunks: list[Any], way: str, kind: str, asynchronous: bool, count: int
) -> None:
    meter.totals.clear()
    if way == "broken":
        kind = "lazy"
        chunks = [*chunks, RuntimeError("broken")]
    if asynchronous:
        seen = asyncio.run(_read_async(AsyncClient(chunks=chunks), kind, way, count))
    else:
        seen = _read(Client(chunks=chunks), kind, way, count)
    gc.collect(0)
    deferred.drain()
    whole = [chunk for chunk in chunks if isinstance(chunk, dict)]
    assert seen == whole[: len(seen)]
    assert all(one is other for one, other in zip(seen, whole, strict=False))
    totals = meter.totals.get()
    if way in ("read", "broken"):
        assert len(seen) == len(whole)
    if kind == "lazy" and not seen and way not in ("read", "broken"):
        assert totals.calls <= 1
        return
    assert totals.calls == 1
    expected_in, expected_out, estimated = _expected(seen)
    if way == "broken" and not seen:
        assert totals.estimated_calls == 1
        return
    assert totals.usage.output_tokens == expected_out
    assert bool(totals.estimated_calls) is estimated
    if not estimated:
        assert totals.usage.input_tokens == expected_in


def _read(client: Client, kind: str, way: str, count: int) -> list[Any]:
    stream: Any = client.complete("hello", stream=True) if kind == "complete" else getattr(client, kind)("hello")
    seen = []
    try:
        for item in stream:
            seen.append(item)
            if way not in ("read", "broken") and len(seen) == count:
                break
    except RuntimeError:
        assert way == "broken"
    if way == "closed":
        stream.close()
    if way == "thrown" and hasattr(stream, "throw"):
        try:
            stream.throw(LookupError("left"))
        except LookupError:
            pass
    return seen


async def _read_async(client: AsyncClient, kind: str, way: str, count: int) -> list[Any]:
    stream: Any = client.lazy("hello") if kind == "lazy" else None
    if stream is None:
        stream = await (client.complete("hello", stream=True) if kind == "complete" else client.events("hello"))
    seen = []
    try:
        async for item in stream:
            seen.append(item)
            if way not in ("read", "broken") and len(seen) == count:
                break
    except RuntimeError:
        assert way == "broken"
    if way == "closed":
        await (stream.aclose() if hasattr(stream, "aclose") else stream.close())
    return seen


def test_the_sdk_is_the_one_in_miniature() -> None:
    assert acme_llm.CHUNKS[-1]["usage"] == {"prompt": 7, "completion": 5}
