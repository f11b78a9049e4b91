"""Errors, retries, taking the instrumentation on and off, and who the provider is."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic_doors import BODY, MODEL, client_of, each, entered, settled
from opentelemetry.trace import StatusCode

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

STATUSES = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    422: anthropic.UnprocessableEntityError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    529: anthropic.InternalServerError,
}


async def create(client: Any) -> None:
    await settled(client.messages.create(**BODY))


async def streamed(client: Any) -> None:
    async for _ in each(await settled(client.messages.create(**BODY, stream=True))):
        pass


async def helper(client: Any) -> None:
    async with entered(client.messages.stream(**BODY)) as stream:
        await settled(stream.get_final_message())


async def raw(client: Any) -> None:
    await settled(client.messages.with_raw_response.create(**BODY))


async def streaming(client: Any) -> None:
    async with entered(client.messages.with_streaming_response.create(**BODY)) as response:
        await settled(response.parse())


@pytest.mark.parametrize("way", (create, streamed, helper, raw, streaming))
@pytest.mark.parametrize("status", (401, 429, 500))
async def test_every_way_reports_an_error_once(
    way: Any, status: int, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = Behaviour(status=status)
    with pytest.raises(STATUSES[status]):
        await way(client)
    span = instrumented.span()
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("status", STATUSES)
async def test_the_sdks_own_error_and_a_span_that_names_it(
    status: int, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = Behaviour(status=status, error_message="as the provider says")
    with pytest.raises(anthropic.APIStatusError) as caught:
        await create(client)
    # Version 1 has a class of its own for 529 that is no InternalServerError.
    assert isinstance(caught.value, STATUSES[status]) or (status == 529 and "Overloaded" in type(caught.value).__name__)
    assert caught.value.status_code == status
    assert caught.value.__cause__ is None or not isinstance(caught.value.__cause__, tb.BudgetExceeded)
    span = instrumented.span()
    assert span.attributes[semconv.ERROR_TYPE] == f"anthropic.{type(caught.value).__name__}"
    assert span.attributes[semconv.CALL_OUTCOME] == "failed"
    assert "as the provider says" in span.status.description
    billed = status >= 500
    assert meter.totals.get().calls == billed
    assert (semconv.USAGE_INPUT_TOKENS in span.attributes) == billed, "no zeros for what was never counted"
    assert sim.billed == []


async def test_a_refused_connection(asynchronous: bool, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = client_of(sim, asynchronous, base_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(anthropic.APIConnectionError):
            await create(client)
    span = instrumented.span()
    assert span.attributes[semconv.ERROR_TYPE] == "anthropic.APIConnectionError"
    assert meter.totals.get().calls == 0


async def test_a_timeout(client: Any, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    sim.default = Behaviour(timeout=True)
    with pytest.raises(anthropic.APITimeoutError):
        await create(client.with_options(timeout=0.2))
    span = instrumented.span()
    assert span.attributes[semconv.ERROR_TYPE] == "anthropic.APITimeoutError"
    assert span.attributes[semconv.USAGE_ESTIMATED] is True
    assert meter.totals.get().estimated_calls == 1


@pytest.mark.parametrize("fault", ({"status": 429}, {"status": 529}, {"drop": True}), ids=("429", "529", "drop"))
@pytest.mark.parametrize("way", (create, streamed, helper))
async def test_retries_are_one_call(
    way: Any, fault: Any, asynchronous: bool, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = Behaviour(fail_times=1, input_tokens=100, output_tokens=10, **fault)
    await way(client_of(sim, asynchronous, max_retries=2))
    assert len(sim.requests) == 2
    span = instrumented.span()
    assert span.status.status_code is StatusCode.UNSET
    totals = meter.totals.get()
    assert (totals.calls, totals.usage.input_tokens, totals.usage.output_tokens) == (1, 100, 10)


async def test_an_argument_that_cannot_be(client: Any, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    with pytest.raises(TypeError):
        await settled(client.messages.create(model=MODEL, max_tokens=1, messages=[{"content": object()}]))
    with pytest.raises(TypeError):
        await settled(client.messages.create())
    assert meter.totals.get().calls == 0
    assert sim.requests == []


# --- on and off ------------------------------------------------------------------------------------------------------


def test_uninstrument_restores_the_sdk(telemetry: Any, meter: Meter) -> None:
    bases = [kind for name in ("Anthropic", "AsyncAnthropic") for kind in getattr(anthropic, name).__mro__]
    owners = [kind for kind in bases if "request" in vars(kind)]
    before = [vars(kind)["request"] for kind in owners]
    for _ in range(3):
        tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        assert [vars(kind)["request"] for kind in owners] != before
        tb.uninstrument()
        tb.uninstrument()
        assert [vars(kind)["request"] for kind in owners] == before


async def test_a_call_under_way_ends_after_uninstrument(
    client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = Behaviour(input_tokens=100, output_tokens=10)
    stream = await settled(client.messages.create(**BODY, stream=True))
    tb.uninstrument()
    async for _ in each(stream):
        pass
    assert instrumented.span().attributes[semconv.USAGE_OUTPUT_TOKENS] == 10
    await create(client)
    assert meter.totals.get().calls == 1


async def test_wrap_meters_one_client_only_and_never_twice(
    asynchronous: bool, sim: Simulator, meter: Meter, telemetry: Any
) -> None:
    client, other = client_of(sim, asynchronous), client_of(sim, asynchronous)
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    assert tb.wrap(client, **options) is client
    assert tb.wrap(client, **options) is client
    await create(client)
    await create(other)
    await create(client.with_options(timeout=5))
    assert meter.totals.get().calls == 2
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    try:
        await create(client)
        assert meter.totals.get().calls == 3
    finally:
        tb.uninstrument()
    assert len(telemetry.spans()) == 3


# --- who answers ----------------------------------------------------------------------------------------------------

MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 60, "output_tokens": 5, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 0},
}  # fmt: skip


def answering(asynchronous: bool, message: Any = MESSAGE) -> Any:
    """An HTTP client that answers everything with one message."""
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=message))
    return (anthropic.DefaultAsyncHttpxClient if asynchronous else anthropic.DefaultHttpxClient)(transport=transport)


def kind_of(name: str, asynchronous: bool) -> Any:
    return getattr(anthropic, f"Async{name}" if asynchronous else name)


PLATFORMS = {
    "direct": ("Anthropic", {"api_key": "any"}, "anthropic"),
    "bedrock": ("AnthropicBedrock", {"aws_region": "us-east-1", "api_key": "any"}, "aws.bedrock"),
    "bedrock_mantle": ("AnthropicBedrockMantle", {"aws_region": "us-east-1", "api_key": "any"}, "aws.bedrock"),
    "bedrock_mantle_behind_a_proxy": (
        "AnthropicBedrockMantle",
        {"aws_region": "us-east-1", "api_key": "any", "base_url": "http://proxy.example.com"},
        "aws.bedrock",
    ),
    "vertex": (
        "AnthropicVertex",
        {"region": "us-east5", "project_id": "p", "access_token": "any"},
        "gcp.vertex_ai",
    ),
    "foundry": ("AnthropicFoundry", {"resource": "mine", "api_key": "any"}, "azure.ai.inference"),
    "openrouter": ("Anthropic", {"api_key": "any", "base_url": "https://openrouter.ai/api"}, "openrouter"),
}


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_the_provider_is_who_answers(platform: str, asynchronous: bool, meter: Meter, instrumented: Any) -> None:
    name, options, provider = PLATFORMS[platform]
    client = kind_of(name, asynchronous)(**options, http_client=answering(asynchronous))
    message = await settled(client.messages.create(**BODY))
    assert message.content[0].text == "Hi"
    attributes = instrumented.span().attributes
    assert attributes[semconv.PROVIDER_NAME] == provider
    assert attributes[semconv.REQUEST_MODEL] == MODEL
    assert attributes[semconv.USAGE_INPUT_TOKENS] == 100
    assert attributes[semconv.SERVER_ADDRESS] == client.base_url.host
    assert set(meter.totals.get("provider")) == {provider}


async def test_compaction_is_added(asynchronous: bool, meter: Meter, instrumented: Any) -> None:
    """What compaction used is billed, and stands apart from the usage at the top."""
    usage = {
        "input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
        "iterations": [
            {"type": "compaction", "input_tokens": 5_000, "output_tokens": 300, "cache_read_input_tokens": 50,
             "cache_creation_input_tokens": 0},
            {"type": "message", "input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 0,
             "cache_creation_input_tokens": 0},
        ],
    }  # fmt: skip
    client = kind_of("Anthropic", asynchronous)(
        api_key="any", http_client=answering(asynchronous, {**MESSAGE, "usage": usage})
    )
    await settled(client.beta.messages.create(**BODY))
    booked = meter.totals.get().usage
    assert (booked.input_tokens, booked.output_tokens, booked.cache_read_tokens) == (5_150, 310, 50)


async def test_conversation_id_of_the_sdks_own_option(asynchronous: bool, sim: Simulator, instrumented: Any) -> None:
    with contextlib.suppress(TypeError):
        client = client_of(sim, asynchronous, open_telemetry={"conversation_id": "c-1"})
        await create(client)
        assert instrumented.span().attributes.get(semconv.CONVERSATION_ID) == "c-1"
