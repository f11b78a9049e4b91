"""Real clients, the real SDK and the exporter for the TokenBudget backend, to a receiver on loopback."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from receiver import CUT_BEFORE, Mood, Receiver, Request

import tokenbudget_otel as tb
from tokenbudget_otel import dialects
from tokenbudget_otel.export import Spool, SpoolError, TokenBudgetSpanExporter, genai_spans
from tokenbudget_otel.export.genai_spans import FORMER_NAMES, is_call, with_former_names
from tokenbudget_otel.export.json_fallback import _taken
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Simulator

KEY = "tb_ak_0123456789abcdef0123456789abcdef"
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _taken.clear()
    for name in ("ENDPOINT", "API_KEY", "COMPRESSION", "TIMEOUT", "EXPORT_ALL_SPANS", "SPOOL"):
        monkeypatch.delenv(f"TOKENBUDGET_{name}", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def exporting(receiver: Receiver, make_spool: Callable[..., Spool]) -> Iterator[Callable[..., TracerProvider]]:
    made: list[TracerProvider] = []

    def make(spool: Any = None, **options: Any) -> TracerProvider:
        provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
        kept = make_spool() if spool is None else spool
        options = {"endpoint": receiver.url, "api_key": KEY, **options}
        provider.add_span_processor(BatchSpanProcessor(TokenBudgetSpanExporter(spool=kept, **options)))
        made.append(provider)
        return provider

    yield make
    receiver.release()
    for provider in made:
        provider.shutdown()


def plain(value: Any) -> Any:
    """A value of OTLP's JSON."""
    ((kind, found),) = value.items()
    if kind == "arrayValue":
        return tuple(plain(each) for each in found.get("values", ()))
    return int(found) if kind == "intValue" else found


def sent(receiver: Receiver) -> list[tuple[str, dict[str, Any]]]:
    """Name and attributes of the spans that were received."""
    found = []
    for request in receiver.requests:
        if request.headers["content-type"] == "application/json":
            document = json.loads(request.body)
        else:
            from tokenbudget_otel.export.otlp_json import otlp_as_json

            document = json.loads(otlp_as_json(request.body))
        found += [
            (span["name"], {each["key"]: plain(each["value"]) for each in span.get("attributes", ())})
            for resource in document["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
    return found


# --- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("json_only", [False, True], ids=["protobuf", "json"])
@pytest.mark.parametrize("spooled", [True, False], ids=["spool", "no spool"])
def test_calls_of_real_clients_arrive_with_their_cost_and_former_names(
    exporting: Callable[..., TracerProvider],
    receiver: Receiver,
    sim: Simulator,
    meter: Meter,
    spooled: bool,
    json_only: bool,
) -> None:
    if json_only:
        receiver.mood = lambda request: Mood(200 if request.headers["content-type"].endswith("json") else 415)
    provider = exporting(spool=None if spooled else False)
    beside = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(beside))
    tb.instrument(provider)
    try:
        with provider.get_tracer("shop").start_as_current_span("GET /answer"), tb.tags(tenant="acme"):
            openai.OpenAI(base_url=sim.openai_url, api_key="k").chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "Hi"}],
                extra_headers={"x-simulate": '{"input_tokens": 1000, "output_tokens": 50}'},
            )
            anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k").messages.create(
                model="claude-sonnet-4-6",
                max_tokens=100,
                messages=[{"role": "user", "content": "Hi"}],
                extra_headers={
                    "x-simulate": '{"input_tokens": 2000, "cache_write_5m_tokens": 500, "output_tokens": 20}'
                },
            )
    finally:
        tb.uninstrument()
    provider.shutdown()

    assert [name for name, _ in sent(receiver)] == ["chat gpt-4o", "chat claude-sonnet-4-6"]
    spans = {attributes["gen_ai.provider.name"]: attributes for _, attributes in sent(receiver)}
    first = spans["openai"]
    assert first["gen_ai.usage.cost"] == pytest.approx(0.003)
    assert first["tokenbudget.tag.tenant"] == "acme"
    assert (first["gen_ai.system"], first["gen_ai.usage.prompt_tokens"], first["gen_ai.usage.completion_tokens"]) == (
        "openai", 1000, 50,
    )  # fmt: skip
    second = spans["anthropic"]
    assert second["gen_ai.usage.cache_creation.input_tokens"] == second["gen_ai.usage.cache_write.input_tokens"] == 500
    assert second["gen_ai.usage.prompt_tokens"] == second["gen_ai.usage.input_tokens"]

    (request,) = receiver.requests
    assert request.path == "/v1/traces"
    assert request.headers["authorization"] == f"Bearer {KEY}" and request.headers["x-tokenbudget-key"] == KEY
    assert request.headers["content-encoding"] == "gzip"
    assert receiver.posts == (2 if json_only else 1)
    for span in beside.get_finished_spans():
        assert not set(FORMER_NAMES.values()) & set(span.attributes or ()), "the program's spans stay as they are"


def test_reasoning_tokens_have_their_former_name(exporting: Callable[..., TracerProvider], receiver: Receiver) -> None:
    provider = exporting()
    provider.get_tracer("somebody").start_span(
        "chat o3", attributes={**CHAT, "gen_ai.usage.output_tokens": 90, "gen_ai.usage.reasoning.output_tokens": 64}
    ).end()
    provider.shutdown()
    ((_, attributes),) = sent(receiver)
    assert attributes["gen_ai.usage.reasoning_tokens"] == 64
    assert set(attributes) == {*CHAT, "gen_ai.system", "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens",
                               "gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens"}  # fmt: skip


def test_only_spans_of_calls_are_sent_and_of_any_dialect(
    exporting: Callable[..., TracerProvider], receiver: Receiver
) -> None:
    provider = exporting()
    calls = {
        "conventions": CHAT,
        "former": {"gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.prompt_tokens": 5},
        "openinference": {"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o", "llm.token_count.prompt": 5},
        "vercel": {
            "ai.operationId": "ai.generateText.doGenerate", "operation.name": "ai.generateText.doGenerate",
            "ai.model.id": "gpt-4o", "ai.model.provider": "openai.chat", "ai.usage.promptTokens": 5,
        },
    }  # fmt: skip
    others = {
        "http": {"http.request.method": "GET"},
        "nothing": {},
        "agent": {**CHAT, "gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 5},
        "tool": {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"},
        "repeats": {**CHAT, "tokenbudget.call.covered_by": "1"},
    }
    tracer = provider.get_tracer("somebody")
    for name, attributes in (calls | others).items():
        tracer.start_span(name, attributes=attributes).end()
    provider.get_tracer("tokenbudget_otel.instrumentation.openai").start_span(
        "fetch_batch", attributes={"gen_ai.operation.name": "fetch_batch"}
    ).end()
    provider.shutdown()
    assert {name for name, _ in sent(receiver)} == {*calls, "fetch_batch"}
    for name, attributes in sent(receiver):
        own = calls.get(name, {})
        assert {key: attributes[key] for key in own} == own, "what was there stays"
    assert dict(sent(receiver))["openinference"] == calls["openinference"]


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_all_spans_are_sent_where_that_is_asked_for(
    exporting: Callable[..., TracerProvider], receiver: Receiver, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "variable":
        monkeypatch.setenv("TOKENBUDGET_EXPORT_ALL_SPANS", "yes")
    provider = exporting(**({"all_spans": True} if how == "argument" else {}))
    provider.get_tracer("shop").start_span("GET /").end()
    provider.shutdown()
    assert sent(receiver) == [("GET /", {})]


def test_nothing_is_posted_where_there_is_nothing_to_send(
    exporting: Callable[..., TracerProvider], receiver: Receiver
) -> None:
    provider = exporting()
    provider.get_tracer("shop").start_span("GET /").end()
    provider.shutdown()
    assert receiver.posts == 0


def test_a_span_with_further_names_is_the_same_span_otherwise() -> None:
    seen = InMemorySpanExporter()
    provider = TracerProvider(span_limits=SpanLimits(max_span_attributes=4, max_events=1, max_links=1))
    provider.add_span_processor(SimpleSpanProcessor(seen))
    tracer = provider.get_tracer("somebody", "2.0", "https://example.com/schema")
    linked = SpanContext(1, 2, is_remote=True)
    with tracer.start_as_current_span("parent"):
        span = tracer.start_span(
            "chat", kind=SpanKind.CLIENT, links=[Link(linked), Link(linked)],
            attributes={"a": 1, "b": 2, **CHAT},
        )  # fmt: skip
        span.add_event("one", {"x": 1})
        span.add_event("two", {"y": 2})
        span.set_status(Status(StatusCode.ERROR, "no"))
        span.end()
    (original, _) = seen.get_finished_spans()
    before = dict(original.attributes or {})
    named = with_former_names(original)
    assert isinstance(named, ReadableSpan) and named is not original
    assert dict(original.attributes or {}) == before
    assert dict(named.attributes or {}) == {**before, "gen_ai.system": "openai"}
    for name in ("name", "context", "parent", "kind", "status", "start_time", "end_time", "resource", "events", "links",
                 "instrumentation_scope", "dropped_attributes", "dropped_events", "dropped_links"):  # fmt: skip
        assert getattr(named, name) == getattr(original, name), name
    assert (named.dropped_attributes, named.dropped_events, named.dropped_links) == (1, 1, 1)
    assert with_former_names(named) is named, "nothing is added twice"


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "processor" / "spans").rglob("*.json")), ids=lambda path: path.stem
)
def test_spans_of_all_emitters_read_the_same_with_former_names(path: Path) -> None:
    recorded = [span for spans in json.loads(path.read_text())["calls"].values() for span in spans]
    assert recorded
    for span in recorded:
        attributes, scope, version = span["attributes"], span["scope"], span["version"]
        more = dict(with_former_names(ReadableSpan("recorded", attributes=attributes)).attributes or {})
        assert {name: more[name] for name in attributes} == attributes
        before, after = (dialects.read(found, scope, version) for found in (attributes, more))
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert (before.provider, before.model, before.usage, before.dialect) == (
                after.provider, after.model, after.usage, after.dialect,
            )  # fmt: skip


# --- whom it goes to, and with what ----------------------------------------------------------------------------------


def test_headers_for_other_receivers_are_not_sent_to_the_backend(
    exporting: Callable[..., TracerProvider], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-vendor-key=secret,authorization=Bearer vendor")
    for options in ({}, {"api_key": None}):
        for spool in (None, False):
            provider = exporting(spool=spool, **options)
            provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
            provider.shutdown()
    assert len(receiver.requests) == 4
    for request in receiver.requests:
        assert "vendor" not in str(request.headers) and "secret" not in str(request.headers)
        assert request.headers.get("authorization") in (f"Bearer {KEY}", None)
        assert request.headers["user-agent"].startswith("OTel-OTLP-Exporter-Python/")


def test_the_password_in_netrc_does_not_take_the_place_of_the_key(
    exporting: Callable[..., TracerProvider], receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for spool in (None, False):
        provider = exporting(spool=spool)
        provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
        provider.shutdown()
    assert [request.headers["authorization"] for request in receiver.requests] == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize("compression", ["gzip", "deflate", "none", Compression.Gzip])
def test_compression(exporting: Callable[..., TracerProvider], receiver: Receiver, compression: Any) -> None:
    provider = exporting(compression=compression)
    provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
    provider.shutdown()
    (request,) = receiver.requests
    word = getattr(compression, "value", compression)
    assert request.headers.get("content-encoding", "none") == word
    assert len(ExportTraceServiceRequest.FromString(request.body).resource_spans) == 1


def test_the_environment_is_enough(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKENBUDGET_ENDPOINT", receiver.url.removesuffix("/v1/traces") + "/")
    monkeypatch.setenv("TOKENBUDGET_API_KEY", KEY)
    monkeypatch.setenv("TOKENBUDGET_COMPRESSION", "deflate")
    monkeypatch.setenv("TOKENBUDGET_SPOOL", str(tmp_path / "mine"))
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(TokenBudgetSpanExporter()))
    provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
    provider.shutdown()
    (request,) = receiver.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-encoding"] == "deflate"
    assert (tmp_path / "mine").is_dir()


# --- outages ---------------------------------------------------------------------------------------------------------


def test_what_could_not_be_sent_is_sent_by_the_next_exporter_before_it_has_spans(
    receiver: Receiver, tmp_path: Path, make_spool: Callable[..., Spool]
) -> None:
    receiver.stop()
    exporter = TokenBudgetSpanExporter(receiver.url, KEY, spool=make_spool(close_timeout=0.1))
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
    provider.shutdown()
    receiver.start()
    again = make_spool()
    later = TokenBudgetSpanExporter(receiver.url, KEY, spool=again)
    assert again.flush(10)
    later.shutdown()
    assert [name for name, _ in sent(receiver)] == ["chat"]
    assert set(receiver.spans.values()) == {1}


def test_without_a_spool_the_exporter_tries_for_its_time(
    exporting: Callable[..., TracerProvider], receiver: Receiver
) -> None:
    receiver.then(Mood(503, {"Retry-After": "0.05"}))
    provider = exporting(spool=False)
    provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
    provider.shutdown()
    assert [name for name, _ in sent(receiver)] == ["chat"] and receiver.posts == 2


def test_no_spool_is_made_where_none_is_wanted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOKENBUDGET_SPOOL", "none")
    TokenBudgetSpanExporter(receiver.url, KEY).shutdown()
    assert not (tmp_path / "state").exists()


def test_a_default_folder_that_cannot_be_used_is_done_without_and_said(
    exporting: Callable[..., TracerProvider],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(TokenBudgetSpanExporter(receiver.url, KEY)))
    provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
    provider.shutdown()
    assert [name for name, _ in sent(receiver)] == ["chat"]
    assert "sent without a spool" in caplog.text and "TOKENBUDGET_SPOOL=none" in caplog.text


def test_a_folder_that_was_named_has_to_be_one(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    monkeypatch.setenv("TOKENBUDGET_SPOOL", str(tmp_path / "open"))
    with pytest.raises(SpoolError, match=r"open to other users.*chmod 700"):
        TokenBudgetSpanExporter(receiver.url, KEY)


# --- bad input -------------------------------------------------------------------------------------------------------

BAD = {
    "no scheme": ({"endpoint": "localhost:8000"}, "endpoint: 'localhost:8000' is no http"),
    "another scheme": ({"endpoint": "grpc://host:4317"}, "endpoint: 'grpc://host:4317' is no http"),
    "no host": ({"endpoint": "https:///v1/traces"}, "no http"),
    "no port": ({"endpoint": "http://host:port"}, "no http"),
    "a space": ({"endpoint": "http://ho st"}, "no http"),
    "a line break": ({"endpoint": "http://host\nX: y"}, "no http"),
    "a fragment": ({"endpoint": "http://host/#part"}, "fragment"),
    "a number": ({"endpoint": 8000}, "endpoint: what it says is no http"),
    "a password": ({"endpoint": "https://me:hidden@host"}, "a name or a password .* TOKENBUDGET_API_KEY"),
    "key with a line break": ({"api_key": "hidden\n"}, "api_key: the key has a line break"),
    "key with a return": ({"api_key": "hid\rden"}, "api_key: the key has a line break"),
    "key with a space": ({"api_key": "hidden key"}, "api_key: the key has a space"),
    "key beyond ASCII": ({"api_key": "hidden\u2026"}, "api_key: the key has a space, or a character"),
    "no key": ({"api_key": ""}, "api_key: the key must be"),
    "compression": ({"compression": "zstd"}, "compression: compression 'zstd' is not known: give one of gzip, deflate"),
    "negative": ({"timeout": -1}, "timeout: -1 is no time limit"),
    "zero": ({"timeout": 0}, "timeout: 0 is no time limit"),
    "no number": ({"timeout": "soon"}, "timeout: 'soon' is no time limit"),
    "endless": ({"timeout": float("inf")}, "no time limit"),
    "flag": ({"all_spans": "perhaps"}, "all_spans: 'perhaps' is neither true nor false"),
}
VARIABLES = {"endpoint": "ENDPOINT", "api_key": "API_KEY", "compression": "COMPRESSION", "timeout": "TIMEOUT",
             "all_spans": "EXPORT_ALL_SPANS"}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_meant_is_an_error_that_says_what_to_do(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, expected = BAD[case]
    with pytest.raises(ValueError, match=f"(?s){expected}") as caught:
        TokenBudgetSpanExporter(**{"endpoint": "http://localhost:1", "spool": False, **options})
    assert "hid" not in str(caught.value)
    ((argument, value),) = options.items()
    if str(value).strip():
        monkeypatch.setenv(f"TOKENBUDGET_{VARIABLES[argument]}", str(value))
        with pytest.raises(ValueError, match=f"^TOKENBUDGET_{VARIABLES[argument]}: ") as caught:
            TokenBudgetSpanExporter(spool=False)
        assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "key", "warned"),
    [
        ("https://tokenbudget.example.com", None, True),
        ("https://tokenbudget.example.com", KEY, False),
        ("http://localhost:8000", None, False),
        ("http://127.0.0.1:8000", None, False),
        ("http://[::1]:8000", None, False),
    ],
)
def test_a_key_that_is_missing_is_said(
    endpoint: str, key: str | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tokenbudget_otel.export"):
        TokenBudgetSpanExporter(endpoint, key, spool=False).shutdown()
    assert ("TOKENBUDGET_API_KEY" in caplog.text) is warned
    assert KEY not in caplog.text


def test_is_call_never_raises_for_odd_spans() -> None:
    assert not is_call(ReadableSpan("bare"))
    assert not is_call(ReadableSpan("odd", attributes={"gen_ai.operation.name": 7, "gen_ai.system": ("a", "b")}))


def test_a_request_that_fails_is_no_error_of_the_program(
    receiver: Receiver, exporting: Callable[..., TracerProvider]
) -> None:
    def refused(request: Request) -> Mood:
        return Mood(401)

    receiver.mood = refused
    for spool in (None, False):
        provider = exporting(spool=spool)
        provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
        provider.shutdown()
    assert receiver.posts == 2


def test_a_mistake_of_ours_leaves_the_span_as_it_is(
    exporting: Callable[..., TracerProvider], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(genai_spans, "is_call", broken)
    provider = exporting()
    provider.get_tracer("x").start_span("chat", attributes=CHAT).end()
    provider.shutdown()
    assert [name for name, _ in sent(receiver)] == ["chat"], "rather one too many than one too few"


def test_a_receiver_that_takes_json_alone_and_misbehaves_has_each_span_once(
    receiver: Receiver, make_spool: Callable[..., Spool]
) -> None:
    rng = random.Random(7)

    def met(request: Request) -> Mood:
        if rng.random() < 0.4:
            moods = (Mood(503), Mood(429, {"Retry-After": "0.01"}), Mood(500), Mood(408), CUT_BEFORE)
            return rng.choice(moods)
        return Mood(200 if request.headers["content-type"] == "application/json" else 415)

    receiver.mood = met
    spool = make_spool(longest_wait=0.02)
    provider = TracerProvider()
    exporter = TokenBudgetSpanExporter(receiver.url, KEY, spool=spool)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4_000, max_export_batch_size=20))
    tracer = provider.get_tracer("x")
    for number in range(2_000):
        tracer.start_span(f"chat {number}", attributes=CHAT).end()
        if number == 1_000:
            receiver.stop()
            receiver.start()
    provider.force_flush()
    assert spool.flush(30)
    provider.shutdown()
    assert sorted(receiver.names, key=lambda name: int(name[5:])) == [f"chat {number}" for number in range(2_000)]
    assert {request.headers["content-type"] for request in receiver.requests} == {"application/json"}
    assert (spool.counts["accepted"], spool.counts["delivered"]) == (2_000, 2_000)


@pytest.mark.parametrize("spooled", [True, False], ids=["spool", "no spool"])
def test_a_forked_child_sends_its_own_spans(
    exporting: Callable[..., TracerProvider], receiver: Receiver, spooled: bool
) -> None:
    provider = exporting(spool=None if spooled else False)
    tracer = provider.get_tracer("x")
    tracer.start_span("chat before", attributes=CHAT).end()
    provider.force_flush()
    if (child := os.fork()) == 0:
        tracer.start_span("chat in the child", attributes=CHAT).end()
        provider.force_flush()
        provider.shutdown()
        os._exit(0)
    tracer.start_span("chat in the parent", attributes=CHAT).end()
    assert os.waitpid(child, 0)[1] == 0
    provider.shutdown()
    assert sorted(receiver.names) == ["chat before", "chat in the child", "chat in the parent"]
