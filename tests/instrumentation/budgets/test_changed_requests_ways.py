"""What is particular about requests that budgets have changed: shares of the limit, retries, thinking, models that
stand in the URL, waiting."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import openai
import pytest
from changed_rows import ROWS, google, model_argument, ollama
from door_sdks import ANTHROPIC, MESSAGES, OPENAI

import tokenbudget_otel as tb
from both_modes import each, settled
from tokenbudget_otel import api, semconv
from tokenbudget_otel.budgets import Enforcer
from tokenbudget_otel.instrumentation.changes import LEAST_THINKING
from tokenbudget_otel.instrumentation.provider import Method, Provider
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.money import to_nano, to_usd
from tokenbudget_otel.simulator import Behaviour, Simulator

CHEAPER = {"gpt-4o": "gpt-4o-mini"}


def models(sim: Simulator) -> list[str]:
    return [request.json["model"] for request in sim.requests]


def refused(call: Callable[[], Any]) -> tb.BudgetExceeded:
    with pytest.raises(tb.BudgetExceeded) as caught:
        call()
    return caught.value


def needed(meter: Meter, call: Callable[[], Any]) -> int:
    """What a call reserves in worst-case mode, in nano-USD."""
    meter.enforcer.add(tb.Budget(limit_usd=0, mode="worst_case", name="probe"))
    error = refused(call)
    meter.enforcer.remove("probe")
    assert error.needed_usd is not None
    return to_nano(error.needed_usd)


# --- degrade -------------------------------------------------------------------------------------------------------


def test_from_a_share_of_the_limit_on(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = OPENAI.client(sim)
    one = needed(meter, lambda: OPENAI.call(client))
    mini = needed(meter, lambda: OPENAI.call(client, model="gpt-4o-mini"))
    meter.enforcer.add(
        tb.Budget(limit_usd=to_usd(10 * one), mode="worst_case", action="degrade", degrade=CHEAPER, degrade_at=0.8)
    )
    held = []
    while True:
        try:
            held.append(OPENAI.call(client, stream=True))
        except tb.BudgetExceeded:
            break
    assert models(sim)[:8] == ["gpt-4o"] * 8
    assert set(models(sim)[8:]) == {"gpt-4o-mini"}
    # What is left over eight of ten is filled by the cheaper one, to the last that fits.
    assert len(held) - 8 == 2 * one // mini
    for stream in held:
        stream.close()


def test_what_is_degraded_and_still_too_dear_is_refused(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = OPENAI.client(sim)
    mini = needed(meter, lambda: OPENAI.call(client, model="gpt-4o-mini"))
    meter.enforcer.add(
        tb.Budget(limit_usd=to_usd(mini - 1), mode="worst_case", action="degrade", degrade=CHEAPER, name="b")
    )
    refused(lambda: OPENAI.call(client))
    assert sim.requests == []


def test_degraded_by_one_budget_and_shrunk_by_another(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = OPENAI.client(sim)
    mini = needed(meter, lambda: OPENAI.call(client, model="gpt-4o-mini"))
    meter.enforcer.add(
        tb.Budget(limit_usd=to_usd(mini), mode="worst_case", action="degrade", degrade=CHEAPER, name="dear"),
        tb.Budget(limit_tokens=2_500, mode="worst_case", action="shrink", name="long"),
    )
    OPENAI.call(client)
    (request,) = sim.requests
    assert request.json["model"] == "gpt-4o-mini"
    assert 64 <= request.json["max_tokens"] < 2_500
    attributes = instrumented.spans()[-1].attributes
    assert attributes[semconv.BUDGET_ASKED_MODEL] == "gpt-4o"
    assert attributes[semconv.REQUEST_MAX_TOKENS] == request.json["max_tokens"]


@pytest.mark.parametrize("asynchronous", (False, True), ids=("sync", "async"))
async def test_the_changed_request_is_what_is_retried(
    asynchronous: bool, sim: Simulator, meter: Meter, instrumented: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = OPENAI.client(sim, asynchronous, max_retries=2)
    monkeypatch.setattr(type(client), "_calculate_retry_timeout", lambda *args: 0.01)
    meter.enforcer.add(tb.Budget(limit_usd="0.02", mode="worst_case", action="degrade", degrade=CHEAPER, name="b"))
    sim.then(Behaviour(status=500, fail_times=2))
    await settled(OPENAI.call(client))
    assert models(sim) == ["gpt-4o-mini"] * 3
    assert instrumented.span().attributes[semconv.REQUEST_MODEL] == "gpt-4o-mini"


def test_a_stream_whose_usage_cannot_be_asked_for_keeps_the_change(
    sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    url = sim.host_url("strict")
    tb.map_host(url, "openai")
    client = OPENAI.client(sim, base_url=url)
    meter.enforcer.add(tb.Budget(limit_usd="0.02", mode="worst_case", action="degrade", degrade=CHEAPER, name="b"))
    for _ in OPENAI.call(client, stream=True):
        pass
    assert models(sim) == ["gpt-4o-mini"] * 2
    assert ["stream_options" in request.json for request in sim.requests] == [True, False]


@pytest.mark.parametrize("name", ("openai chat", "mistral chat", "cohere chat", "gemini", "bedrock converse"))
def test_a_wrapped_client_under_global_instrumentation(
    name: str, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    row = next(row for row in ROWS if row.name == name)
    if not row.installed:
        pytest.skip(f"{row.sdk} is not installed here")
    client = row.client(sim, False)
    tb.wrap(client)
    meter.enforcer.add(tb.Budget(limit_usd=1, action="degrade", degrade={row.model: row.cheaper}, degrade_at=0.001))
    row.call(client, **model_argument(row), **row.body)
    (request,) = sim.requests
    assert row.sent_model(request) == row.cheaper
    assert meter.totals.get().calls == 1


def test_a_request_of_the_programs_own_making_is_not_touched(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = OPENAI.client(sim)
    body = {"model": "gpt-4o", "messages": copy.deepcopy(MESSAGES), "max_tokens": 3000, "metadata": {"a": "b"}}
    before = copy.deepcopy(body)
    meter.enforcer.add(tb.Budget(limit_usd="0.02", mode="worst_case", action="shrink", name="b"))
    client.post("/chat/completions", body=body, cast_to=object)
    assert body == before
    assert sim.requests[0].json["max_tokens"] < 3000
    assert {**sim.requests[0].json, "max_tokens": 3000} == before


def test_a_model_in_the_url_is_not_changed(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    """The name of one of Azure's deployments. The length of the answer is."""
    client = openai.AzureOpenAI(
        azure_endpoint=sim.azure_url, api_version="2025-04-01-preview", api_key="any", max_retries=0,
        http_client=openai.DefaultHttpxClient(verify=False),
    )  # fmt: skip
    one = needed(meter, lambda: OPENAI.call(client))
    budget: dict[str, Any] = {"limit_usd": to_usd(one - 1), "mode": "worst_case"}
    meter.enforcer.add(tb.Budget(**budget, action="degrade", degrade=CHEAPER, name="degrading"))
    refused(lambda: OPENAI.call(client))
    meter.enforcer.clear()
    meter.enforcer.add(tb.Budget(**budget, action="shrink", name="shrinking"))
    OPENAI.call(client)
    assert [request.json["max_tokens"] for request in sim.requests] == [2999]


# --- shrink --------------------------------------------------------------------------------------------------------


def test_every_one_of_several_answers_is_shorter(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = OPENAI.client(sim)
    whole = needed(meter, lambda: OPENAI.call(client, n=3))
    less = needed(meter, lambda: OPENAI.call(client, n=3, max_tokens=2_000))
    meter.enforcer.add(tb.Budget(limit_usd=to_usd(less), mode="worst_case", action="shrink", name="b"))
    OPENAI.call(client, n=3)
    assert less < whole
    assert sim.requests[0].json["max_tokens"] == 2_000


def test_two_limits_are_both_kept(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    """Neither is raised, whichever of them it is that holds."""
    client = OPENAI.client(sim)
    two = {"max_completion_tokens": 2_000, "max_tokens": 100}
    less = needed(meter, lambda: OPENAI.call(client, **{**two, "max_completion_tokens": 1_500}))
    meter.enforcer.add(tb.Budget(limit_usd=to_usd(less), mode="worst_case", action="shrink", name="b"))
    OPENAI.call(client, **two)
    sent = sim.requests[0].json
    assert (sent["max_completion_tokens"], sent["max_tokens"]) == (1_500, 100)


@pytest.mark.parametrize("room", (2_000, LEAST_THINKING + 1, LEAST_THINKING))
def test_thinking_stays_below_the_limit(room: int, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = ANTHROPIC.client(sim)
    thinking = {"type": "enabled", "budget_tokens": 2_500}
    affordable = needed(meter, lambda: ANTHROPIC.call(client, max_tokens=room))
    meter.enforcer.add(tb.Budget(limit_usd=to_usd(affordable), mode="worst_case", action="shrink", name="b"))
    if room == LEAST_THINKING:
        refused(lambda: ANTHROPIC.call(client, thinking=thinking))
        assert sim.requests == []
    else:
        ANTHROPIC.call(client, thinking=thinking)
        assert sim.requests[0].json["max_tokens"] == room
        assert sim.requests[0].json["thinking"] == {"type": "enabled", "budget_tokens": room - 1}
    assert thinking == {"type": "enabled", "budget_tokens": 2_500}


def test_thinking_that_fits_stays_as_it_is(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = ANTHROPIC.client(sim)
    thinking = {"type": "enabled", "budget_tokens": 1_024}
    affordable = needed(meter, lambda: ANTHROPIC.call(client, max_tokens=2_000))
    meter.enforcer.add(tb.Budget(limit_usd=to_usd(affordable), mode="worst_case", action="shrink", name="b"))
    ANTHROPIC.call(client, thinking=thinking)
    assert sim.requests[0].json["thinking"] == thinking


def test_what_is_merged_in_below_the_door_is_not_shrunk(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    genai = pytest.importorskip("google.genai", reason="google-genai is not installed here")
    client = google()(sim, False)
    extra = {"generationConfig": {"maxOutputTokens": 3_000}}
    meter.enforcer.add(tb.Budget(limit_usd="0.02", mode="worst_case", action="shrink", name="b"))
    config = genai.types.GenerateContentConfig(http_options={"extra_body": extra})
    refused(lambda: client.models.generate_content(model="gemini-2.5-pro", contents="Tell me.", config=config))


@pytest.mark.parametrize("asynchronous", (False, True), ids=("sync", "async"))
@pytest.mark.parametrize("stream", (False, True), ids=("whole", "streamed"))
async def test_what_is_free_can_be_shortened_too(
    asynchronous: bool, stream: bool, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    pytest.importorskip("ollama", reason="ollama is not installed here")
    client = ollama(sim, asynchronous)
    options = {"seed": 7, "num_predict": 3_000}
    meter.enforcer.add(tb.Budget(limit_tokens=2_000, mode="worst_case", action="shrink", name="b"))
    answer = await settled(client.chat("llama3.2", messages=MESSAGES, options=options, stream=stream))
    if stream:
        async for _ in each(answer):
            pass
    sent = sim.requests[0].json["options"]
    assert sent["seed"] == 7
    assert 64 <= sent["num_predict"] < 2_000
    assert options == {"seed": 7, "num_predict": 3_000}


# --- a provider of the program's own -------------------------------------------------------------------------------


class _Client:
    """An SDK in miniature; it sends nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def ask(self, prompt: str, model: str = "dear-1", options: Any = None) -> dict[str, Any]:
        self.sent.append((prompt, model, options))
        return {"model": model, "usage": {"prompt": 7, "completion": 5}}

    async def say(self, *, prompt: str, **settings: Any) -> dict[str, Any]:
        self.sent.append((prompt, settings.get("model"), settings.get("options")))
        return {"model": settings.get("model"), "usage": {"prompt": 7, "completion": 5}}


@pytest.fixture
def own(telemetry: Any, meter: Meter, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Client]:
    import sys

    module = ModuleType("miniature_of_changes")
    kind = type("Client", (_Client,), dict(vars(_Client)) | {"__module__": module.__name__})
    module.Client = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name, price in (("dear-1", 10), ("cheap-1", 1)):
        tb.register_model(name, input_per_1m=price, output_per_1m=price, provider="own")
    method = Method(
        "Client.ask", "Client.say",
        usage={"input_tokens": "usage.prompt", "output_tokens": "usage.completion"},
        max_output_tokens="options.limit",
        changes={"model": "model", "max_output_tokens": "options.limit"},
    )  # fmt: skip
    tb.register_provider(Provider(name="own", sdk=module.__name__, methods=(method,)))
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    yield kind()
    tb.uninstrument()
    api._registered.pop(module.__name__, None)


async def test_a_registered_provider_takes_part(own: Any, meter: Meter) -> None:
    options = {"seed": 7, "limit": 3_000}
    meter.enforcer.add(
        tb.Budget(limit_usd="0.01", mode="worst_case", action="degrade", degrade={"dear-1": "cheap-1"}, name="b")
    )
    own.ask("Hello.", options=options)
    own.ask("Hello.", "dear-1", options)
    await own.say(prompt="Hello.", model="dear-1", options=options)
    assert own.sent == [("Hello.", "cheap-1", options)] * 3
    meter.enforcer.clear()
    meter.enforcer.add(tb.Budget(limit_usd="0.02", mode="worst_case", action="shrink", name="c"))
    own.ask("Hello.", "dear-1", options)
    await own.say(prompt="Hello.", model="dear-1")
    limits = [sent[2]["limit"] for sent in own.sent[3:]]
    assert all(64 <= limit < 2_000 for limit in limits)
    assert own.sent[3][2] == {"seed": 7, "limit": limits[0]}
    assert options == {"seed": 7, "limit": 3_000}


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"temperature": "temperature"}, ValueError), ({"model": "a..b"}, TypeError), ({"model": 7}, TypeError)],
)
def test_what_cannot_be_changed_so_is_refused(changes: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="changes"):
        Method("Client.ask", usage={}, changes=changes)


# --- wait ----------------------------------------------------------------------------------------------------------

HOUR = 3_600.0


def waiting(meter: Meter, before_the_hour: float, max_wait: float) -> None:
    """A budget of one call an hour, the hour of which ends in a moment."""
    begun = time.monotonic()
    enforcer = Enforcer(clock=lambda: 500_000 * HOUR - before_the_hour + time.monotonic() - begun)
    meter.enforcer = enforcer
    enforcer.add(tb.Budget(limit_calls=1, window="hour", action="wait", max_wait=max_wait, name="hourly"))


def test_waiting_for_the_next_window(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = OPENAI.client(sim)
    waiting(meter, 0.25, 10)
    OPENAI.call(client)
    begun = time.monotonic()
    OPENAI.call(client)
    assert 0.01 < time.monotonic() - begun < 5
    assert len(sim.requests) == 2
    (span,) = instrumented.spans()[1:]
    assert 0 < span.attributes[semconv.BUDGET_WAITED] < 0.3
    assert semconv.BUDGET_ASKED_MODEL not in span.attributes


async def test_waiting_leaves_the_event_loop_alone(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = OPENAI.client(sim, True)
    waiting(meter, 0.3, 10)
    await OPENAI.call(client)
    call = asyncio.create_task(OPENAI.call(client))
    longest, last = 0.0, time.monotonic()
    while not call.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    await call
    waited = instrumented.spans()[1].attributes[semconv.BUDGET_WAITED]
    assert longest < waited


def test_longer_than_one_would_wait(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = OPENAI.client(sim)
    waiting(meter, 60, 10)
    OPENAI.call(client)
    begun = time.monotonic()
    error = refused(lambda: OPENAI.call(client))
    assert time.monotonic() - begun < 1
    assert error.retry_after is not None and 50 < error.retry_after <= 60
    assert len(sim.requests) == 1
