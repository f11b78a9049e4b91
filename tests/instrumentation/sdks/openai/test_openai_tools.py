"""Tools that the server runs: billed by the call, by the container, or at the price of another model."""

from __future__ import annotations

from typing import Any

import pytest
from openai_harness import MESSAGES, read, settled

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import hosts
from tokenbudget_otel.instrumentation.openai_usage import response_usage
from tokenbudget_otel.simulator import Behaviour

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
USED = {"input_tokens": 1_000, "output_tokens": 100}


async def respond(client: Any, streamed: bool, model: str = "gpt-5", **more: Any) -> None:
    made = await settled(client.responses.create(model=model, input="Hi", stream=streamed, **more))
    if streamed:
        await read(made)


@STREAMED
async def test_each_tool_is_counted_and_priced_or_named(
    streamed: bool, client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(**USED, web_searches=2, file_searches=3, code_interpreter_calls=2))
    await respond(client, streamed)
    used = meter.totals.get().usage
    # Two runs in one container are one container.
    assert (used.web_searches, used.file_searches, used.code_executions) == (2, 3, 1)
    told = instrumented.span().attributes
    assert told["tokenbudget.cost.state"] == "partial"
    assert told["tokenbudget.cost.unpriced"] == ("code_executions",)
    priced = tb.TokenUsage(**USED, web_searches=2, file_searches=3)
    assert meter.totals.get().nano_usd == tb.calculate_cost("gpt-5", priced, "openai").nano_usd
    assert meter.totals.get().nano_usd > tb.calculate_cost("gpt-5", tb.TokenUsage(**USED), "openai").nano_usd


@STREAMED
async def test_opening_a_page_is_no_search(
    streamed: bool, client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(**USED, web_searches=1, pages_opened=2))
    await respond(client, streamed)
    assert meter.totals.get().usage.web_searches == 1


def test_what_the_response_bills_goes_before_what_it_did() -> None:
    search = {"type": "web_search_call", "action": {"type": "search"}}
    opened = {"type": "web_search_call", "action": {"type": "open_page"}}
    said = {"usage": USED, "output": [search, search, opened, {"type": "web_search_call"}, {"type": "new_tool_call"}]}
    assert response_usage(said).web_searches == 3
    assert response_usage(said | {"tool_usage": {"web_search": {"num_requests": 1}}}).web_searches == 1
    assert response_usage(said | {"tool_usage": {"web_search": {"num_requests": "1"}}}).web_searches == 3
    assert response_usage({"usage": USED, "tool_usage": {"web_search": {"num_requests": 0}}}).web_searches is None


@STREAMED
async def test_images_of_a_response_are_booked_at_the_price_of_their_model(
    streamed: bool, client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(**USED, images_generated=2))
    with tb.tags(tenant="acme"), tb.budget(max_cost_usd=50) as run:
        await respond(client, streamed, tools=[{"type": "image_generation", "model": "gpt-image-1"}])
    by_model = meter.totals.get(by="model")
    image = tb.TokenUsage(
        input_tokens=40, input_text_tokens=40, input_image_tokens=0,
        output_tokens=600, output_text_tokens=0, output_image_tokens=600,
    )  # fmt: skip
    assert by_model["gpt-image-1"].usage == image
    made, said = by_model["gpt-image-1"].nano_usd, by_model["gpt-5"].nano_usd
    assert made == tb.calculate_cost("gpt-image-1", image, "openai").nano_usd > said
    assert meter.totals.get(by="tenant")["acme"].nano_usd == made + said
    assert run.spent_usd * 10**9 == made + said
    told = instrumented.span().attributes
    assert told["gen_ai.usage.cost"] == said / 1e9
    assert told["tokenbudget.image_generation.cost"] == made / 1e9
    assert told["tokenbudget.image_generation.model"] == "gpt-image-1"


async def test_images_of_a_response_in_the_background_are_booked_once(
    client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(**USED, images_generated=1, polls=1))
    tools = [{"type": "image_generation", "model": "gpt-image-1"}]
    started = await settled(client.responses.create(model="gpt-5", input="Hi", background=True, tools=tools))
    for _ in range(3):
        await settled(client.responses.retrieve(started.id))
    by_model = meter.totals.get(by="model")
    assert (by_model["gpt-image-1"].calls, by_model["gpt-image-1"].usage.output_tokens) == (1, 300)
    assert (by_model["gpt-5"].calls, by_model["gpt-5"].usage.output_tokens) == (1, 100)


async def test_images_of_a_model_that_is_not_named_have_no_price(
    client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(**USED, images_generated=1))
    await respond(client, False, tools=[{"type": "image_generation"}])
    assert meter.totals.get().unpriced_calls == 1
    assert "tokenbudget.image_generation.cost" not in instrumented.span().attributes


@STREAMED
async def test_a_search_model_searches_once_a_call(
    streamed: bool, client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(**USED))
    made = await settled(
        client.chat.completions.create(
            model="gpt-4o-search-preview", messages=MESSAGES, web_search_options={}, stream=streamed
        )
    )
    if streamed:
        await read(made)
    assert meter.totals.get().usage.web_searches == 1
    cost = tb.calculate_cost("gpt-4o-search-preview", tb.TokenUsage(**USED, web_searches=1), "openai")
    assert meter.totals.get().nano_usd == cost.nano_usd
    assert instrumented.span().attributes["tokenbudget.cost.part.web_searches"] == 0.025


async def test_search_models_of_others_say_themselves(
    mode: str, clients: Any, sim: Any, instrumented: Any, meter: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(hosts, "_configured", dict(hosts._configured))
    tb.map_host(sim.host_url("groq"), "groq")
    client = clients(mode, sim.host_url("groq"))
    await settled(client.chat.completions.create(model="gpt-4o-search-preview", messages=MESSAGES))
    assert meter.totals.get().usage.web_searches is None
