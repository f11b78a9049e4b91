"""What is particular to Cohere: billed units beside used tokens, requests sent from the SDK's threads, lines of JSON,
retries inside the SDK, and clients for other platforms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tokenbudget_otel as tb
from both_modes import each, settled
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

cohere = pytest.importorskip("cohere", reason="cohere is not installed here")

import httpx  # noqa: E402

MODEL = "command-a-03-2025"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story about a river."}]}

Make = Callable[..., Any]


@pytest.fixture
def make(sim: Simulator) -> Iterator[Make]:
    """Makes clients, without certificates: loading them takes longer than a whole test."""
    made: list[Any] = []

    def make(kind: Any = cohere.ClientV2) -> Any:
        if kind in (cohere.AsyncClientV2, cohere.AsyncClient):
            http: Any = httpx.AsyncClient(verify=False, timeout=5)
        else:
            http = httpx.Client(verify=False, timeout=5)
            made.append(http)
        return kind(api_key="any", base_url=sim.cohere_url, httpx_client=http, log_warning_experimental_features=False)

    yield make
    for client in made:
        client.close()


def test_what_is_billed_is_counted_not_what_was_read(make: Make, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(input_tokens=100, output_tokens=20))
    answer = make().chat(**CHAT)
    assert answer.usage.tokens.input_tokens == 107
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.usage.input_tokens"] == 100
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["gen_ai.response.id"]


@pytest.mark.parametrize("kind", (cohere.Client, cohere.AsyncClient))
async def test_embeddings_of_many_texts_are_calls_of_the_one_who_asked(
    kind: Any, make: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    texts = [f"river {number}" for number in range(200)]
    with tb.tags(tenant="acme"), tb.budget(max_cost_usd=1) as run:
        client = make(kind)
        await settled(
            client.embed(model="embed-v4.0", texts=texts, input_type="search_document", embedding_types=["float"])
        )
    assert len(sim.requests) == 3
    assert meter.totals.get("tenant")["acme"].calls == 3
    assert run.spent_usd > 0
    assert all(span.attributes["tokenbudget.tag.tenant"] == "acme" for span in instrumented.spans())


def test_embeddings_of_many_texts_are_refused(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    texts = [f"river {number}" for number in range(200)]
    with tb.budget(max_calls=2), pytest.raises(tb.BudgetExceeded):
        make(cohere.Client).embed(
            model="embed-v4.0", texts=texts, input_type="search_document", embedding_types=["float"]
        )
    # The batches are sent from threads: the refusal of one may come out before another has arrived.
    for _ in range(100):
        if len(sim.requests) == 2:
            break
        time.sleep(0.05)
    assert sim.settle()
    assert len(sim.requests) == 2


def test_a_wrapped_client_takes_the_context_along(make: Make, sim: Simulator, telemetry: Any, meter: Meter) -> None:
    client = tb.wrap(make(cohere.Client), tracer_provider=telemetry.tracer_provider)
    texts = [f"river {number}" for number in range(100)]
    with tb.tags(tenant="acme"):
        client.embed(model="embed-v4.0", texts=texts, input_type="search_document", embedding_types=["float"])
    assert meter.totals.get("tenant")["acme"].calls == 2
    tb.unwrap(client)
    client.chat(model=MODEL, message="Tell me a story.")
    assert meter.totals.get().calls == 2


def test_retries_are_one_call(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(status=429), Behaviour(input_tokens=100, output_tokens=20))
    make().chat(**CHAT)
    assert len(sim.requests) == 2
    assert meter.totals.get().calls == 1
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"


@pytest.mark.parametrize(("first", "charged"), ((500, 1), (429, 0)))
async def test_an_attempt_that_may_have_been_billed_is_remembered(
    first: int, charged: int, make: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.then(Behaviour(status=first, retry_after_s=0.01), Behaviour(status=401))
    with pytest.raises(cohere.UnauthorizedError):
        await settled(make(cohere.AsyncClientV2).chat(**CHAT))
    assert len(sim.requests) == 2
    assert meter.totals.get().estimated_calls == charged


@pytest.mark.parametrize("kind", (cohere.ClientV2, cohere.AsyncClientV2))
async def test_a_stream_that_says_that_it_failed(kind: Any, make: Make, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(error_event_after=2))
    assert [event async for event in each(make(kind).chat_stream(**CHAT))]
    attributes = instrumented.span().attributes
    assert (attributes["tokenbudget.call.outcome"], attributes["error.type"]) == ("failed", "error")


@pytest.mark.parametrize("kind", (cohere.Client, cohere.AsyncClient))
@pytest.mark.parametrize("behaviour", ({"split": 7}, {"gzip": True}, {"cut_after": 2}))
async def test_lines_of_json(
    behaviour: dict[str, Any], kind: Any, make: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.then(Behaviour(input_tokens=100, output_tokens=20, text="a river " * 10, **behaviour))
    cut = "cut_after" in behaviour
    pieces: list[Any] = []
    try:
        async for event in each(make(kind).chat_stream(model=MODEL, message="Tell me a story.")):
            pieces.append(event)
    except httpx.RemoteProtocolError:
        assert cut
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.call.outcome"] == ("cut" if cut else "completed")
    assert attributes["gen_ai.usage.output_tokens"] == (8 if cut else 20)
    assert ("tokenbudget.usage.estimated" in attributes) is cut
    assert pieces


def test_a_stream_read_raw(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(input_tokens=100, output_tokens=20))
    with make().with_raw_response.chat_stream(**CHAT) as response:
        assert list(response.data)
    assert meter.totals.get().usage.output_tokens == 20


def test_classifying_is_billed_and_tokenizing_is_free(
    make: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    client = make(cohere.Client)
    client.tokenize(text="a river runs", model=MODEL, offline=False)
    assert meter.totals.get().calls == 0
    client.classify(model="mine", inputs=["a river"], examples=[{"text": "calm", "label": "calm"}])
    assert meter.totals.get().calls == 1
    assert instrumented.span().name == "classification mine"


def test_images_are_units_of_their_own(make: Make, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(input_tokens=300, input_image_tokens=280))
    picture = "data:image/png;base64,iVBORw0KGgo="
    make().embed(model="embed-v4.0", images=[picture], input_type="image", embedding_types=["float"])
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.usage.input_images"] == 1
    assert attributes["gen_ai.usage.image.input_tokens"] == 280


def test_the_request_and_the_answer_on_the_span(make: Make, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(tool_calls=(ToolCall("now"),)))
    make().chat(**CHAT, temperature=0.2, p=0.9, k=3, max_tokens=90, seed=3, stop_sequences=["END"])
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.request.top_p"] == 0.9
    assert attributes["gen_ai.request.top_k"] == 3
    assert attributes["gen_ai.request.max_tokens"] == 90
    assert attributes["gen_ai.request.stop_sequences"] == ("END",)
    assert attributes["gen_ai.response.finish_reasons"] == ("tool_call",)


@pytest.mark.parametrize("streamed", (False, True))
@pytest.mark.parametrize("kind", (cohere.ClientV2, cohere.Client))
def test_content(
    kind: Any, streamed: bool, make: Make, sim: Simulator, telemetry: Any, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    sim.then(Behaviour(text="Water runs."))
    arguments = CHAT if kind is cohere.ClientV2 else {"model": MODEL, "message": CHAT["messages"][0]["content"]}
    tb.instrument(telemetry.tracer_provider)
    try:
        client = make(kind)
        list(client.chat_stream(**arguments)) if streamed else client.chat(**arguments)
    finally:
        tb.uninstrument()
    attributes = telemetry.span().attributes
    assert "Tell me a story about a river." in attributes["gen_ai.input.messages"]
    assert "Water runs." in attributes["gen_ai.output.messages"]


@pytest.mark.parametrize(
    ("service", "provider", "host"),
    (
        ("bedrock", "aws.bedrock", "bedrock-runtime.eu-west-1.amazonaws.com"),
        ("sagemaker", "aws.sagemaker", "runtime.sagemaker.eu-west-1.amazonaws.com"),
    ),
)
@pytest.mark.parametrize("told", (True, False))
def test_platforms(
    told: bool,
    service: str,
    provider: str,
    host: str,
    sim: Simulator,
    instrumented: Any,
    meter: Meter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hooks that the SDK's clients for AWS work with, sent to the simulator. Bedrock tells the usage in headers,
    which are missing where ``told`` is false, and with SageMaker."""
    pytest.importorskip("boto3", reason="boto3 is not installed here")
    monkeypatch.setattr("cohere.aws_client.get_url", lambda **_: f"{sim.cohere_url}/v1/chat")
    hooks = cohere.aws_client.get_event_hooks(service, "key", "secret", None, "eu-west-1")
    if told:
        hooks["response"].insert(0, _counting)
    sim.then(Behaviour(text="Water."))
    with httpx.Client(verify=False, event_hooks=hooks) as http:
        client = cohere.Client(api_key="n/a", base_url="https://api.cohere.com", httpx_client=http, client_name="n/a")
        assert client.chat(model="cohere.command-r-v1:0", message="Tell me a story.").text == "Water."
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.provider.name"] == provider
    assert (attributes["server.address"], attributes["server.port"]) == (host, 443)
    assert attributes.get("gen_ai.usage.output_tokens") == (3 if told else None)
    assert meter.totals.get().estimated_calls == (0 if told else 1)


def _counting(response: Any) -> None:
    response.headers["X-Amzn-Bedrock-Input-Token-Count"] = "7"
    response.headers["X-Amzn-Bedrock-Output-Token-Count"] = "3"


def test_usage_in_a_stream_of_bedrock() -> None:
    from tokenbudget_otel.instrumentation.cohere_streams import LineReader

    reader = LineReader()
    reader.event(
        b'{"event_type":"stream-end","finish_reason":"COMPLETE","response":{"text":"Water."},'
        b'"amazon-bedrock-invocationMetrics":{"inputTokenCount":7,"outputTokenCount":3}}'
    )
    assert reader.complete
    assert reader.facts.usage == tb.TokenUsage(input_tokens=7, output_tokens=3)
