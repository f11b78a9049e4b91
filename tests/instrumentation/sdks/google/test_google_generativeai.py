"""The SDK before ``google.genai``: over REST, and its async client over gRPC."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that its life has ended
    former = pytest.importorskip("google.generativeai", reason="google-generativeai is not installed")

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

MODEL = "gemini-2.0-flash"
PROMPT = "Tell me a story about a river."
OPTIONS = {"retry": None, "timeout": 20}


@pytest.fixture
def model(sim: Simulator) -> Iterator[Any]:
    from google.generativeai import client as clients

    before, clients._client_manager = clients._client_manager, clients._ClientManager()
    former.configure(api_key="any", transport="rest", client_options={"api_endpoint": sim.google_url})
    yield former.GenerativeModel(MODEL)
    clients._client_manager = before


def test_embeddings_of_one_and_of_many(model: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    one = former.embed_content("models/text-embedding-004", "a river", request_options=OPTIONS)
    many = former.embed_content("models/text-embedding-004", ["a river", "a bridge"], request_options=OPTIONS)
    assert (len(one["embedding"]), len(many["embedding"])) == (768, 2)
    for span in instrumented.spans():
        assert span.attributes["gen_ai.operation.name"] == "embeddings"
        assert span.attributes["gen_ai.request.model"] == "text-embedding-004"
        assert span.attributes["tokenbudget.usage.estimated"] is True
    assert meter.totals.get().calls == 2


def river(name: str) -> str:
    """How long a river is."""
    return f"{name} is 300 km long."


def test_each_round_trip_of_function_calling_is_a_call(model: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(tool_calls=[ToolCall("river", {"name": "Main"})], input_tokens=50, output_tokens=9))
    sim.then(Behaviour(text="It is long.", input_tokens=80, output_tokens=4))
    chat = former.GenerativeModel(MODEL, tools=[river]).start_chat(enable_automatic_function_calling=True)
    assert chat.send_message(PROMPT, request_options=OPTIONS).text == "It is long."
    assert (meter.totals.get().calls, meter.totals.get().usage.input_tokens) == (2, 130)
    reasons = [span.attributes["gen_ai.response.finish_reasons"] for span in instrumented.spans()]
    assert reasons == [("tool_call",), ("stop",)]


def test_a_stream_that_is_resolved_is_the_same_object(model: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(input_tokens=60, output_tokens=30, reasoning_tokens=10, text="A river. " * 9))
    answer = model.generate_content(PROMPT, stream=True, request_options=OPTIONS)
    answer.resolve()
    assert type(answer).__name__ == "GenerateContentResponse"
    assert answer.usage_metadata.prompt_token_count == 60
    assert meter.totals.get().usage == tb.TokenUsage(input_tokens=60, output_tokens=30, reasoning_tokens=10)
    assert instrumented.span().attributes["gen_ai.request.stream"] is True


def test_what_may_be_results_of_tools_is_marked(model: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(input_tokens=60, tool_use_input_tokens=20, output_tokens=30))
    former.GenerativeModel(MODEL, tools="code_execution").generate_content(PROMPT, request_options=OPTIONS)
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.usage.estimated"] is True
    assert attributes["gen_ai.usage.input_tokens"] + attributes["gen_ai.usage.output_tokens"] == 90


def test_one_model_only(model: Any, sim: Any, telemetry: Any, meter: Any) -> None:
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    assert tb.wrap(model, **options) is model
    model.generate_content(PROMPT, request_options=OPTIONS)
    model.start_chat().send_message(PROMPT, request_options=OPTIONS)
    former.GenerativeModel(MODEL).generate_content(PROMPT, request_options=OPTIONS)
    assert (len(telemetry.spans()), meter.totals.get().calls) == (2, 2)
    tb.unwrap(model)
    model.generate_content(PROMPT, request_options=OPTIONS)
    assert meter.totals.get().calls == 2


def test_options_and_budgets(model: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    config = former.GenerationConfig(temperature=0.5, max_output_tokens=9, stop_sequences=["END"])
    model.generate_content(PROMPT, generation_config=config, request_options=OPTIONS)
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.request.temperature"] == 0.5
    assert attributes["gen_ai.request.max_tokens"] == 9
    with tb.budget(max_calls=0), pytest.raises(tb.BudgetExceeded):
        model.generate_content(PROMPT, stream=True, request_options=OPTIONS)
    assert len(sim.requests) == 1


# --- gRPC ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def grpc_model() -> AsyncIterator[Any]:
    """A model whose async client talks to a server of our own: three chunks, each with the count so far."""
    import grpc
    from google.ai import generativelanguage as generated
    from google.ai.generativelanguage_v1beta.services.generative_service import transports

    def answer(written: int, reason: int = 0) -> Any:
        content = {"role": "model", "parts": [{"text": "A river. "}]}
        usage = {"prompt_token_count": 11, "candidates_token_count": written, "total_token_count": 11 + written}
        return generated.GenerateContentResponse(
            candidates=[{"content": content, "finish_reason": reason}], usage_metadata=usage
        )

    async def whole(_request: Any, _context: Any) -> Any:
        return answer(7, 1)

    async def chunks(_request: Any, _context: Any) -> AsyncIterator[Any]:
        for written, reason in ((2, 0), (4, 0), (7, 1)):
            yield answer(written, reason)

    coders = {
        "request_deserializer": generated.GenerateContentRequest.deserialize,
        "response_serializer": generated.GenerateContentResponse.serialize,
    }
    methods = {
        "GenerateContent": grpc.unary_unary_rpc_method_handler(whole, **coders),
        "StreamGenerateContent": grpc.unary_stream_rpc_method_handler(chunks, **coders),
    }
    server = grpc.aio.server()
    service = "google.ai.generativelanguage.v1beta.GenerativeService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        transport = transports.GenerativeServiceGrpcAsyncIOTransport(channel=channel)
        model = former.GenerativeModel(MODEL)
        model._async_client = generated.GenerativeServiceAsyncClient(transport=transport)
        yield model
    await server.stop(None)


async def test_the_async_client(instrumented: Any, meter: Any) -> None:
    async with grpc_model() as model:
        assert (await model.generate_content_async(PROMPT, request_options=OPTIONS)).text == "A river. "
        stream = await model.generate_content_async(PROMPT, stream=True, request_options=OPTIONS)
        assert len([chunk async for chunk in stream]) == 3
    for span in instrumented.spans():
        assert span.attributes["tokenbudget.call.outcome"] == "completed"
        assert span.attributes["gen_ai.usage.input_tokens"] == 11
        assert span.attributes["gen_ai.usage.output_tokens"] == 7
        assert "tokenbudget.usage.estimated" not in span.attributes
    assert meter.totals.get().calls == 2


async def test_one_model_only_async(telemetry: Any, meter: Any) -> None:
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    async with grpc_model() as model:
        tb.wrap(model, **options)
        await model.generate_content_async(PROMPT, request_options=OPTIONS)
        with tb.budget(max_calls=0), pytest.raises(tb.BudgetExceeded):
            await model.generate_content_async(PROMPT, stream=True, request_options=OPTIONS)
        tb.unwrap(model)
        await model.generate_content_async(PROMPT, request_options=OPTIONS)
    assert meter.totals.get().calls == 1
