"""What is particular to Mistral: agents and conversations that know their model, retries inside the SDK, spans of its
own, forms, and clients for other platforms."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tokenbudget_otel as tb
from both_modes import settled
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

pytest.importorskip("mistralai.client", reason="mistralai is not installed here")

from mistralai.client import Mistral
from mistralai.client.basesdk import httpx
from mistralai.client.utils import BackoffStrategy, RetryConfig
from mistralai.extra.observability import set_tracer_provider

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]
CHAT: dict[str, Any] = {"model": "mistral-large-latest", "messages": MESSAGES}
QUICKLY = RetryConfig("backoff", BackoffStrategy(1, 2, 1.0, 1_000), True)

Make = Callable[..., Mistral]


@pytest.fixture
def mistral(sim: Simulator) -> Iterator[Make]:
    """Makes clients, without certificates: loading them takes longer than a whole test."""
    made: list[Any] = []

    def make(**options: Any) -> Mistral:
        made.append(httpx.Client(verify=False))
        return Mistral(
            api_key="any",
            server_url=sim.mistral_url,
            client=made[-1],
            async_client=httpx.AsyncClient(verify=False),
            timeout_ms=5_000,
            **options,
        )

    yield make
    for client in made:
        client.close()


@pytest.mark.parametrize("streamed", (False, True))
async def test_an_agent_knows_its_model_and_the_answer_tells_it(
    streamed: bool, mistral: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.then(Behaviour(input_tokens=100, output_tokens=20))
    agents = mistral().agents
    if streamed:
        list(agents.stream(agent_id="ag_1", messages=MESSAGES))
    else:
        await settled(agents.complete_async(agent_id="ag_1", messages=MESSAGES))
    span = instrumented.span()
    assert span.name == "chat"
    assert span.attributes["gen_ai.agent.id"] == "ag_1"
    assert "gen_ai.request.model" not in span.attributes
    assert span.attributes["gen_ai.response.model"] == "mistral-medium-latest"
    usage = tb.TokenUsage(input_tokens=100, cache_read_tokens=0, output_tokens=20)
    cost = tb.calculate_cost("mistral-medium-latest", usage, provider="mistral_ai")
    assert cost is not None
    assert meter.totals.get().nano_usd == cost.nano_usd


@pytest.mark.parametrize("streamed", (False, True))
def test_a_conversation_goes_on(streamed: bool, mistral: Make, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(input_tokens=100, output_tokens=20))
    conversations = mistral().beta.conversations
    if streamed:
        list(conversations.append_stream(conversation_id="conv_1", inputs="And then?"))
    else:
        conversations.append(conversation_id="conv_1", inputs="And then?")
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.conversation.id"] == "conv_1"
    assert attributes["gen_ai.response.model"] == "mistral-medium-latest"
    assert attributes["tokenbudget.cost.state"] == "priced"
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (100, 20)


def test_connectors_are_read_beside_the_prompt_unless_the_total_says_otherwise() -> None:
    from tokenbudget_otel.instrumentation.mistralai_usage import conversation_usage

    told = {"prompt_tokens": 188, "completion_tokens": 55, "connector_tokens": 7_112, "connectors": {"web_search": 1}}
    beside = conversation_usage(told | {"total_tokens": 7_355})
    inside = conversation_usage(told | {"prompt_tokens": 7_300, "total_tokens": 7_355})
    assert beside == tb.TokenUsage(
        input_tokens=7_300, tool_use_input_tokens=7_112, output_tokens=55, web_searches=1
    )  # fmt: skip
    assert inside == beside


async def test_retries_are_one_call(mistral: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(status=500), Behaviour(status=429), Behaviour(input_tokens=100, output_tokens=20))
    await settled(mistral(retry_config=QUICKLY).chat.complete_async(**CHAT))
    assert len(sim.requests) == 3
    assert meter.totals.get().calls == 1
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"


@pytest.mark.parametrize(("first", "charged"), ((500, 1), (429, 0)))
def test_an_attempt_that_may_have_been_billed_is_remembered(
    first: int, charged: int, mistral: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.then(Behaviour(status=first), Behaviour(status=401))
    with pytest.raises(Exception, match="Unauthorized"):
        mistral(retry_config=QUICKLY).chat.complete(**CHAT)
    assert len(sim.requests) == 2
    assert meter.totals.get().estimated_calls == charged
    assert instrumented.span().attributes["error.type"] == "401"


def test_a_time_out_is_estimated(mistral: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(timeout=True))
    with pytest.raises(httpx.ReadTimeout):
        mistral().chat.complete(**CHAT, timeout_ms=50)
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "failed"
    assert meter.totals.get().estimated_calls == 1


def test_an_error_inside_a_conversation(mistral: Make, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(error_event_after=1))
    list(mistral().beta.conversations.start_stream(model="mistral-medium-latest", inputs="Tell me a story."))
    attributes = instrumented.span().attributes
    assert (attributes["tokenbudget.call.outcome"], attributes["error.type"]) == ("failed", "3700")


@pytest.mark.parametrize("streamed", (False, True))
async def test_one_call_has_one_span_where_the_sdk_makes_spans_too(
    streamed: bool, mistral: Make, sim: Simulator, instrumented: Any
) -> None:
    client = mistral()
    set_tracer_provider(client, instrumented.tracer_provider)
    if streamed:
        list(client.chat.stream(**CHAT))
    else:
        await settled(client.chat.complete_async(**CHAT))
    assert instrumented.span().instrumentation_scope.name == "tokenbudget_otel.instrumentation.mistralai"


def test_spans_that_the_program_sends_elsewhere_are_made(mistral: Make, sim: Simulator, instrumented: Any) -> None:
    elsewhere, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(elsewhere))
    client = mistral()
    set_tracer_provider(client, provider)
    client.chat.complete(**CHAT)
    assert instrumented.span().name == "chat mistral-large-latest"
    assert len(elsewhere.get_finished_spans()) == 1


def test_a_wrapped_client_leaves_out_the_spans_of_the_sdk_too(
    mistral: Make, sim: Simulator, telemetry: Any, meter: Meter
) -> None:
    client = mistral()
    set_tracer_provider(client, telemetry.tracer_provider)
    client.embeddings  # made before it is wrapped  # noqa: B018
    tb.wrap(client, tracer_provider=telemetry.tracer_provider)
    client.chat.complete(**CHAT)
    client.embeddings.create(model="mistral-embed", inputs="a river")
    assert meter.totals.get().calls == 2
    assert {span.instrumentation_scope.name for span in telemetry.spans()} == {
        "tokenbudget_otel.instrumentation.mistralai"
    }
    tb.unwrap(client)
    client.chat.complete(**CHAT)
    assert meter.totals.get().calls == 2
    assert len(telemetry.spans()) == 3  # the SDK makes its own again


def test_audio_by_its_address_is_a_plain_form(mistral: Make, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(audio_seconds=62.0))
    mistral().audio.transcriptions.complete(model="voxtral-mini-latest", file_url="https://example.com/a.wav")
    assert instrumented.span().name == "transcription voxtral-mini-latest"
    assert instrumented.span().attributes["tokenbudget.usage.input_audio_seconds"] == 62


@pytest.mark.parametrize("streamed", (False, True))
def test_speech_is_billed_by_the_character(
    streamed: bool, mistral: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    answer: Any = mistral().audio.speech.complete(
        input="The river.", model="voxtral-mini-tts-2603", **({"stream": True} if streamed else {})
    )
    assert not streamed or list(answer)
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.usage.input_characters"] == 10
    assert attributes["tokenbudget.cost.state"] == "priced"
    assert meter.totals.get().estimated_calls == 0


def test_responses(mistral: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    client = mistral()
    if not hasattr(client, "responses"):
        pytest.skip("this version has no Responses API")
    sim.default = Behaviour(input_tokens=100, output_tokens=20)
    client.responses.create(model="mistral-large-latest", input="A river?")
    list(client.responses.create(model="mistral-large-latest", input="A river?", stream=True))
    assert meter.totals.get().usage.output_tokens == 40
    assert {span.attributes["gen_ai.provider.name"] for span in instrumented.spans()} == {"mistral_ai"}


def test_documents_that_are_annotated_cost_more(mistral: Make, sim: Simulator, instrumented: Any) -> None:
    mistral().ocr.process(
        model="mistral-ocr-latest",
        document={"type": "document_url", "document_url": "https://example.com/a.pdf"},
        document_annotation_format={"type": "json_object"},
        pages=[0, 2, 5],
    )
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.usage.document_pages"] == 3
    assert attributes["tokenbudget.usage.annotated_document_pages"] == 3


def test_the_request_and_the_answer_on_the_span(mistral: Make, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(tool_calls=(ToolCall("now"),), service_tier="priority"))
    mistral().chat.complete(
        **CHAT, temperature=0.2, top_p=0.9, max_tokens=90, random_seed=3, stop=["END"], response_format={"type": "text"}
    )
    attributes = instrumented.span().attributes
    assert {name: attributes[f"gen_ai.request.{name}"] for name in ("temperature", "top_p", "max_tokens", "seed")} == {
        "temperature": 0.2,
        "top_p": 0.9,
        "max_tokens": 90,
        "seed": 3,
    }
    assert attributes["gen_ai.request.stop_sequences"] == ("END",)
    assert attributes["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert attributes["gen_ai.response.id"]


@pytest.mark.parametrize("streamed", (False, True))
def test_thinking_is_captured_as_what_it_is(
    streamed: bool, mistral: Make, sim: Simulator, telemetry: Any, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    sim.then(Behaviour(thinking="A river is water.", text="Water."))
    tb.instrument(telemetry.tracer_provider)
    try:
        chat = mistral().chat
        if streamed:
            list(chat.stream(**CHAT))
        else:
            chat.complete(**CHAT)
    finally:
        tb.uninstrument()
    said = telemetry.span().attributes["gen_ai.output.messages"]
    assert "Water." in said
    assert "A river is water." in said


def test_fetching_and_listing_cost_nothing(mistral: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    with pytest.raises(Exception, match="404"):
        mistral().models.list()
    assert instrumented.spans() == []
    assert meter.totals.get().calls == 0


def test_azure(sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sdk = pytest.importorskip("mistralai.azure.client", reason="this version has no client for Azure")
    http = importlib.import_module("mistralai.azure.client.basesdk").httpx
    client = sdk.MistralAzure(
        api_key="any",
        server_url=f"{sim.url}/host/mistral/v1",
        client=http.Client(verify=False, event_hooks={"request": [_to_chat]}),
    )
    client.chat.complete(model="mistral-large-latest", messages=MESSAGES)
    assert instrumented.span().attributes["gen_ai.provider.name"] == "azure.ai.inference"
    assert meter.totals.get().calls == 1


def _to_chat(request: Any) -> None:
    # The simulator does not know Azure's path for the model.
    request.url = request.url.copy_with(path="/host/mistral/v1/chat/completions")
