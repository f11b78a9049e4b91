"""What the shipped configuration does with spans: the real Collector between a program and its backends."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context

from tokenbudget_otel.dialects import DIALECTS

from .programs import Collector, Jaeger, eventually, free_ports
from .receiver import Receiver

SECRET = "the secret of Mr Smith"

CONTENT = (
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.prompt", "gen_ai.completion",
    "gen_ai.prompt.0.content", "gen_ai.completion.0.tool_calls.0.arguments", "gen_ai.content.prompt",
    "input.value", "output.value", "llm.input_messages.0.message.content", "llm.output_messages.0.message.content",
    "llm.prompts", "llm.tools.0.tool.json_schema", "retrieval.documents.0.document.content", "tool.parameters",
    "traceloop.entity.input", "traceloop.entity.output", "ai.prompt", "ai.prompt.messages", "ai.response.text",
    "ai.toolCall.args", "langfuse.observation.input", "langfuse.trace.output", "request_data", "response_data",
    "all_messages_events", "pydantic_ai.all_messages", "gcp.vertex.agent.llm_request", "http.request.body",
)  # fmt: skip

KEPT = {
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.prompt_tokens": 12,
    "gen_ai.usage.cost": 0.25,
    "gen_ai.request.model": "gpt-5",
    "gen_ai.tool.name": "search",
    "llm.model_name": "gpt-5",
    "llm.token_count.prompt": 12,
    "llm.invocation_parameters": '{"model": "gpt-5", "temperature": 0}',
    "ai.response.id": "r-1",
    "ai.usage.promptTokens": 12,
    "langfuse.observation.usage_details": '{"input": 12}',
    "tokenbudget.tag.tenant": "acme",
}

Programs = Callable[[Collector], TracerProvider]


def call(provider: TracerProvider, name: str = "chat gpt-5", cost: float = 0.0, **more: Any) -> int:
    """The span of a call; gives its trace id."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.cost": cost,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 3,
        "tokenbudget.cost.state": "priced",
        "tokenbudget.call.outcome": "completed",
        "tokenbudget.tag.tenant": "acme",
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    span = provider.get_tracer("shop").start_span(name, attributes=attributes)
    span.end()
    return span.get_span_context().trace_id


def samples(text: str, metric: str) -> list[tuple[dict[str, str], Decimal]]:
    found = re.findall(rf"^{metric}{{([^}}]*)}} (\S+)", text, re.MULTILINE)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), Decimal(value)) for labels, value in found]


def test_content_is_taken_out_and_the_rest_stays(backend: Receiver, program_of: Programs) -> None:
    with Collector(TOKENBUDGET_ENDPOINT=backend.url) as collector:
        tracer = program_of(collector).get_tracer("shop")
        span = tracer.start_span("chat", attributes={**dict.fromkeys(CONTENT, SECRET), **KEPT})
        span.add_event("gen_ai.content.prompt", {"gen_ai.prompt": SECRET, "anything": SECRET})
        span.add_event("gen_ai.user.message", {"content": SECRET})
        span.end()
        with_tools = '{"model": "gpt-5", "tools": [{"name": "the secret of Mr Smith"}]}'
        attributes = {"llm.model_name": "m", "llm.invocation_parameters": with_tools}
        tracer.start_span("with tools", attributes=attributes).end()
        eventually(lambda: len(backend.spans) == 2)
        assert not [span.name for span in backend.spans if SECRET.encode() in span.SerializeToString()]
        [chat] = [span for span in backend.spans if span.name == "chat"]
        assert {attribute.key for attribute in chat.attributes} == set(KEPT)
        assert backend.headers["Authorization"] == "Bearer a-key"
        assert backend.headers["X-Tokenbudget-Key"] == "a-key"
        assert backend.headers["Content-Encoding"] == "gzip"


def test_only_genai_spans_reach_the_backend_whoever_made_them(backend: Receiver, program_of: Programs) -> None:
    marks = sorted({mark for dialect in DIALECTS for mark in dialect.marks})
    with Collector(TOKENBUDGET_ENDPOINT=backend.url) as collector:
        tracer = program_of(collector).get_tracer("shop")
        tracer.start_span("GET /", attributes={"http.request.method": "GET", "tokenbudget.tag.tenant": "acme"}).end()
        for mark in marks:
            tracer.start_span(mark, attributes={mark: "x"}).end()
        tracer.start_span("last", attributes={"gen_ai.request.model": "gpt-5"}).end()
        eventually(lambda: "last" in backend.names() and len(backend.spans) > len(marks))
        assert backend.names() == sorted([*marks, "last"])


def test_costs_of_spans_add_up_to_the_cent(backend: Receiver, program_of: Programs) -> None:
    with Collector(TOKENBUDGET_ENDPOINT=backend.url) as collector:
        provider = program_of(collector)
        costs = {"acme": [0.013, 0.25, 0.0000375] * 20, "globex": [0.001] * 40}
        for tenant, amounts in costs.items():
            for amount in amounts:
                call(provider, cost=amount, tokenbudget__tag__tenant=tenant)
        # Another tool's span of the same call, with a price of its own, is not added.
        provider.get_tracer("openlit").start_span(
            "again", attributes={"gen_ai.operation.name": "chat", "gen_ai.usage.cost": 99.0}
        ).end()

        def complete() -> bool:
            text = collector.scrape()
            told = samples(text, "tokenbudget_spans_cost_USD_total")
            seen = {by["tokenbudget_tag_tenant"]: cost for by, cost in told}
            wanted = {tenant: sum(map(Decimal, map(str, amounts))) for tenant, amounts in costs.items()}
            assert seen.keys() == wanted.keys()
            assert all(abs(seen[tenant] - wanted[tenant]) < Decimal("1e-9") for tenant in wanted), (seen, wanted)
            tokens = samples(text, "tokenbudget_spans_output_tokens_total")
            return sum(value for _, value in tokens) == 300

        eventually(complete)

        def durations() -> bool:
            seen = samples(collector.scrape(), "tokenbudget_spans_duration_seconds_count")
            return sum(value for by, value in seen if by.get("tokenbudget_call_outcome") == "completed") == 100

        eventually(durations)


def test_what_a_program_told_goes_when_it_has_ended_and_what_its_spans_came_to_stays(program_of: Programs) -> None:
    with Collector(METRIC_EXPIRATION="2s") as collector:
        call(program_of(collector), cost=0.25)
        exporter = OTLPMetricExporter(f"{collector.otlp_http}/v1/metrics")
        metrics = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=100)])
        gauge = metrics.get_meter("shop").create_gauge("tokenbudget.budget.spent")
        gauge.set(49.5, {"tokenbudget.budget.name": "team", "tokenbudget.budget.unit": "usd"})
        eventually(lambda: samples(collector.scrape(), "tokenbudget_budget_spent"))
        eventually(lambda: samples(collector.scrape(), "tokenbudget_spans_cost_USD_total"))
        metrics.shutdown()
        eventually(lambda: not samples(collector.scrape(), "tokenbudget_budget_spent"))
        [(_, cost)] = samples(collector.scrape(), "tokenbudget_spans_cost_USD_total")
        assert cost == Decimal("0.25")


def test_expensive_calls_are_listed_with_their_traces(backend: Receiver, program_of: Programs) -> None:
    with Collector(TOKENBUDGET_ENDPOINT=backend.url, TOKENBUDGET_EXPENSIVE_USD="0.50") as collector:
        provider = program_of(collector)
        call(provider, cost=0.49)
        trace_id = call(provider, cost=0.75)
        [(by, cost)] = eventually(lambda: samples(collector.scrape(), "tokenbudget_expensive_call_cost_USD"))
        assert (by["trace_id"], cost) == (f"{trace_id:032x}", Decimal("0.75"))
        assert by["gen_ai_request_model"] == "gpt-5"


def test_nothing_is_lost_while_the_backend_is_away_and_the_collector_is_killed(program_of: Programs) -> None:
    (port,) = free_ports(1)
    with Collector(TOKENBUDGET_ENDPOINT=f"http://127.0.0.1:{port}") as collector:
        provider = program_of(collector)
        sent = {call(provider, cost=0.01) for _ in range(50)}
        collector.kill()
        collector.start()
        sent |= {call(provider, cost=0.01) for _ in range(10)}
        with Receiver(port) as backend:
            eventually(lambda: len(backend.spans) >= len(sent), 60)
            assert sorted(int.from_bytes(span.trace_id, "big") for span in backend.spans) == sorted(sent)


@pytest.mark.parametrize("outcome", ["refused", "failed", "cut", "cut_by_budget"])
def test_tail_sampling_keeps_what_was_expensive_or_ended_badly(
    backend: Receiver, program_of: Programs, outcome: str
) -> None:
    with (
        Jaeger() as jaeger,
        Collector(
            "collector.yaml", "tail-sampling.yaml",
            JAEGER_ENDPOINT=jaeger.otlp, TOKENBUDGET_ENDPOINT=backend.url, SAMPLING_WAIT="1s", SAMPLING_PERCENT="0",
        ) as collector,
    ):  # fmt: skip
        provider = program_of(collector)
        dropped = {call(provider, cost=0.09) for _ in range(20)}
        kept = {call(provider, cost=0.10), call(provider, cost=3.0)}
        kept |= {call(provider, tokenbudget__call__outcome=outcome) for _ in range(5)}

        def traces() -> set[int]:
            return {int(trace["traceID"], 16) for trace in jaeger.api("traces?service=shop&limit=100")["data"]}

        eventually(lambda: traces() >= kept)
        assert not traces() & dropped
        eventually(lambda: len(backend.spans) == len(kept | dropped))


def test_jaeger_finds_a_trace_by_its_tenant_with_its_cost(backend: Receiver, program_of: Programs) -> None:
    with (
        Jaeger() as jaeger,
        Collector(JAEGER_ENDPOINT=jaeger.otlp, TOKENBUDGET_ENDPOINT=backend.url) as collector,
    ):
        provider = program_of(collector)
        call(provider, cost=0.02, tokenbudget__tag__tenant="globex")
        trace_id = call(provider, cost=0.0375, tokenbudget__tag__tenant="acme")
        tags = quote('{"tokenbudget.tag.tenant":"acme"}')
        [trace] = eventually(lambda: jaeger.api(f"traces?service=shop&tags={tags}")["data"])
        assert int(trace["traceID"], 16) == trace_id
        attributes = {tag["key"]: tag["value"] for tag in trace["spans"][0]["tags"]}
        assert attributes["gen_ai.usage.cost"] == 0.0375
        assert attributes["tokenbudget.cost.state"] == "priced"


def test_all_spans_of_a_trace_come_to_one_gateway(program_of: Programs) -> None:
    with (
        Receiver() as one,
        Receiver() as two,
        Collector("collector.yaml", "gateway.yaml", TOKENBUDGET_ENDPOINT=one.url) as first,
        Collector("collector.yaml", "gateway.yaml", TOKENBUDGET_ENDPOINT=two.url) as second,
        Collector(
            "gateway-agent.yaml", "gateway-static.yaml", GATEWAY_LIST=f"[{first.otlp_grpc}, {second.otlp_grpc}]"
        ) as agent,
    ):
        provider = program_of(agent)
        tracer = provider.get_tracer("shop")
        for number in range(40):
            root = tracer.start_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"})
            for _ in range(3):
                tracer.start_span(
                    "chat", set_span_in_context(root), attributes={"gen_ai.operation.name": "chat", "number": number}
                ).end()
            root.end()
        eventually(lambda: len(one.spans) + len(two.spans) == 160)
        at_one, at_two = ({span.trace_id for span in receiver.spans} for receiver in (one, two))
        assert at_one and at_two and not at_one & at_two
        assert len(at_one) + len(at_two) == 40
