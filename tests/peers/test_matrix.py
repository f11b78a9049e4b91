"""Every real peer, with ours absent, before it, after it, and after it without our span processor; every kind of call.

Each combination is one program against the provider simulator; it makes all calls. Whoever makes the spans: one charge
for each call, the tokens that the provider counted, the cost on one span, no span lost, and one line of ours.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from peer_calls import ANSWERS, CALLS, cost_of
from peer_gaps import GAPS, gaps_of

from conftest import PEER
from tokenbudget_otel import semconv

HERE = Path(__file__).parent
ORDERS = ("absent", "before", "after", "bare")

MODULES = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google.genai",
    "langchain": "langchain_openai",
    "langchain-anthropic": "langchain_anthropic",
}


def installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is not there
        return False


HERE_ARE = [name for name, call in CALLS.items() if installed(MODULES[call.sdk])]

LINE = "makes the spans of these calls"


@functools.cache
def programs() -> dict[str, Future[dict[str, Any]]]:
    """The programs of all orders, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return {order: pool.submit(run, order) for order in ORDERS}


def run(order: str) -> dict[str, Any]:
    """What the program in this order printed."""
    done = subprocess.run(
        [sys.executable, str(HERE / "peer_program.py"), PEER, order],
        env={**os.environ, "PEER_CALLS": ",".join(HERE_ARE), "OPENLIT_PRICES": str(HERE / "no_prices.json")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def ran(order: str) -> dict[str, Any]:
    return programs()[order].result()


def truth(name: str) -> tuple[dict[str, int], int]:
    """What the provider counts, and what that costs."""
    answer = ANSWERS[CALLS[name].model]
    usage = {
        "input_tokens": answer.input_tokens or 0,
        "output_tokens": answer.output_tokens or 0,
        "cache_read_tokens": answer.cached_tokens,
        "cache_write_tokens": answer.cache_write_5m_tokens,
    }
    return usage, price(name, usage)


def price(name: str, usage: dict[str, int]) -> int:
    return cost_of(
        CALLS[name].model,
        input_tokens=usage["input_tokens"],
        cached=usage["cache_read_tokens"],
        written=usage["cache_write_tokens"],
        output_tokens=usage["output_tokens"],
    )


def told_alone(name: str) -> tuple[dict[str, int], int] | None:
    """What the spans of the peer say where it is alone; ``None`` where they say nothing."""
    usage, _ = truth(name)
    for gap in gaps_of(PEER, name):
        if gap.makes_none:
            return None
        usage |= gap.usage
    return usage, price(name, usage)


@pytest.mark.parametrize("name", HERE_ARE)
@pytest.mark.parametrize("order", ORDERS)
def test_one_call_is_one_charge_and_one_span(order: str, name: str) -> None:
    result = ran(order)["results"][name]
    gaps = gaps_of(PEER, name)
    story = json.dumps(result, indent=1)
    assert result["error"] is None, story
    assert result["sent"] == 1, story
    assert len(result["leaked"]) == sum(gap.leaked for gap in gaps), story
    expected = told_alone(name) if order == "absent" else truth(name)
    costs = [
        span["attributes"][semconv.USAGE_COST]
        for span in result["spans"]
        if semconv.COST_STATE in span["attributes"] and semconv.USAGE_COST in span["attributes"]
    ]
    if expected is None:
        assert (result["calls"], costs) == (0, []), story
        return
    usage, nano_usd = expected
    assert result["calls"] == 1, story
    assert {field: int(result["usage"].get(field, 0)) for field in usage} == usage, story
    assert result["nano_usd"] == nano_usd, story
    assert result["estimated"] == (order == "absent" and any(gap.estimated for gap in gaps)), story
    assert costs == [nano_usd / 1e9], story
    ours = [span for span in result["spans"] if span["scope"].startswith("tokenbudget_otel.")]
    assert len(ours) == (order != "absent" and any(gap.makes_none or gap.gives_way for gap in gaps)), story


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_is_said_but_one_line_for_each_peer(order: str) -> None:
    told = ran(order)
    log = [*told["setup"], *(record for result in told["results"].values() for record in result["log"])]
    ours = [message for name, message in log if name.startswith("tokenbudget_otel")]
    lines = [message for message in ours if LINE in message]
    assert [message for message in ours if LINE not in message] == []
    assert len(lines) == len(set(lines)), lines
    theirs = [name for name in HERE_ARE if not any(gap.makes_none or gap.gives_way for gap in gaps_of(PEER, name))]
    assert bool(lines) == (order != "absent" and bool(theirs))
    assert told["logged"] == []


@pytest.mark.parametrize("order", ORDERS)
def test_contexts_are_detached_where_they_were_attached(order: str) -> None:
    told = ran(order)
    said = [message for result in told["results"].values() for _, message in result["log"] if "detach" in message]
    alone = [m for result in ran("absent")["results"].values() for _, m in result["log"] if "detach" in m]
    assert len(said) <= len(alone), said  # what the peer cannot do by itself is not ours


def test_gaps_are_of_calls_that_are_here() -> None:
    stale = [gap for gap in GAPS if gap.peer == PEER and not any(gap.fits(PEER, name) for name in HERE_ARE)]
    assert not stale
