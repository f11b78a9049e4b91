"""Names of attributes, metrics, operations and providers: those of the newest released conventions, or ones of which
stands here why they differ. A row that is not needed any more has to go."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import hosts
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

SOURCE = Path(__file__).parents[1] / "src" / "tokenbudget_otel"

READ_ONLY = {"dialects.py", "dialects", "simulator", "cli"}
"""Where names stand that others write: what is read, imitated or shown."""

OURS = ("tokenbudget.",)
"""What is ours needs no leave."""

# --- the tables ------------------------------------------------------------------------------------------------------

VIDEO = "video is a modality of the conventions' messages; their counts have text, image and audio only"
COST = "the conventions have no cost: the name is OpenLIT's, which dashboards and the TokenBudget backend read"
TIER = "openai.* of the conventions, in the names of Anthropic: the tier decides the price"

COMING = "of semantic-conventions-genai, ahead of the packages; emitted where metric_names asks for it"

NOT_IN_THE_CONVENTIONS = {
    **dict.fromkeys(
        (
            "gen_ai.client.embeddings.duration",
            "gen_ai.client.embeddings.operation.input_tokens",
            "gen_ai.client.inference.duration",
            "gen_ai.client.inference.operation.input_tokens",
            "gen_ai.client.inference.operation.output_tokens",
            "gen_ai.client.inference.time_per_output_chunk",
            "gen_ai.client.inference.time_to_first_chunk",
            "gen_ai.client.inference.usage.cache_read.input_tokens",
            "gen_ai.client.inference.usage.cache_write.input_tokens",
            "gen_ai.client.inference.usage.input_tokens",
            "gen_ai.client.inference.usage.output_tokens",
            "gen_ai.client.inference.usage.reasoning.output_tokens",
            "gen_ai.token.modality",
        ),
        COMING,
    ),
    "gen_ai.usage.cost": COST,
    "gen_ai.client.operation.cost": COST,
    "gen_ai.usage.video.input_tokens": VIDEO,
    "gen_ai.usage.video.output_tokens": VIDEO,
    "gen_ai.usage.video.cache_read.input_tokens": VIDEO,
    "anthropic.request.service_tier": TIER,
    "anthropic.response.service_tier": TIER,
    "gen_ai.usage.reasoning_tokens": "a former name, set by the option former_names for backends that read it",
}
"""Attributes and metrics that we emit, and the packages do not know."""

AGENTS = "of agents, workflows and tools, which are the framework's to trace: a call of a model is none"
RETRIEVAL = "of retrieval, which is no call of a model"
DEPRECATED = "replaced by a name that we emit"
SERVER = "measured by whoever serves the model"

NOT_EMITTED = {
    "gen_ai.agent.description": AGENTS,
    "gen_ai.agent.name": AGENTS,
    "gen_ai.agent.version": AGENTS,
    "gen_ai.workflow.name": AGENTS,
    "gen_ai.execute_tool.duration": AGENTS,
    "gen_ai.invoke_agent.duration": AGENTS,
    "gen_ai.invoke_workflow.duration": AGENTS,
    "gen_ai.tool.call.arguments": AGENTS,
    "gen_ai.tool.call.id": AGENTS,
    "gen_ai.tool.call.result": AGENTS,
    "gen_ai.tool.description": AGENTS,
    "gen_ai.tool.name": AGENTS,
    "gen_ai.tool.type": AGENTS,
    "gen_ai.data_source.id": RETRIEVAL,
    "gen_ai.retrieval.documents": RETRIEVAL,
    "gen_ai.retrieval.query.text": RETRIEVAL,
    "gen_ai.retrieval.top_k": RETRIEVAL,
    "gen_ai.evaluation.explanation": "of evaluations, which come after a call",
    "gen_ai.evaluation.name": "of evaluations, which come after a call",
    "gen_ai.evaluation.score.label": "of evaluations, which come after a call",
    "gen_ai.evaluation.score.value": "of evaluations, which come after a call",
    "gen_ai.prompt.name": "of templates, which the program has filled in before it calls",
    "gen_ai.prompt.version": "of templates, which the program has filled in before it calls",
    "gen_ai.prompt.variable.": "of templates, which the program has filled in before it calls",
    "gen_ai.request.stream_cursor": "where a stream is taken up again; nothing is charged for the look",
    "gen_ai.server.request.duration": SERVER,
    "gen_ai.server.time_per_output_token": SERVER,
    "gen_ai.server.time_to_first_token": SERVER,
    "gen_ai.completion": DEPRECATED,
    "gen_ai.prompt": DEPRECATED,
    "gen_ai.openai.request.response_format": DEPRECATED,
    "gen_ai.openai.request.seed": DEPRECATED,
    "gen_ai.openai.request.service_tier": DEPRECATED,
    "gen_ai.openai.response.service_tier": DEPRECATED,
    "gen_ai.openai.response.system_fingerprint": DEPRECATED,
}
"""Attributes and metrics of the packages that we do not emit."""

OTHER_OPERATIONS = {
    "rerank": "billed by the search or the token, and no retrieval: nothing is looked up",
    "image_generation": "billed by the image or its tokens",
    "speech": "billed by the character or its tokens",
    "transcription": "billed by the second or its tokens",
    "translation": "billed by the second or its tokens",
    "ocr": "billed by the page",
    "moderation": "billed by the token",
    "classification": "billed by the token or the text",
    "create_batch": "the beginning of a batch",
    "fetch_batch": "where the calls of a batch become known",
}
"""Operations for which the conventions have no name."""

OTHER_PROVIDERS = {
    "aws.sagemaker", "cerebras", "dashscope", "deepinfra", "fireworks", "github_copilot", "github_models",
    "huggingface", "hyperbolic", "litellm", "minimax", "moonshot_ai", "novita", "nvidia", "ollama",
    "openai_compatible", "openrouter", "sambanova", "together", "vercel_ai_gateway", "voyageai", "zai", "zhipuai",
}  # fmt: skip
"""Providers for which the conventions have no name: they may have one of their own, low in cardinality."""


# --- what the packages know ------------------------------------------------------------------------------------------

PACKAGES = ("opentelemetry.semconv", "opentelemetry.util.genai", "opentelemetry.instrumentation.genai")
NAME = re.compile(r"(?:gen_ai|openai|anthropic|aws|gcp|azure|server|error|cloud)\.[a-z0-9_.]+")


def strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def files_of(package: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except ImportError:
        spec = None
    return [
        path for place in (spec.submodule_search_locations or () if spec else ()) for path in Path(place).rglob("*.py")
    ]


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every name that stands in the packages."""
    if not files_of("opentelemetry.util.genai"):
        pytest.skip("opentelemetry-util-genai is not installed")
    found = {name for package in PACKAGES for path in files_of(package) for name in strings(path)}
    return {name for name in found if NAME.fullmatch(name)}


EVENTS = ("gen_ai.client.inference.operation.details", "gen_ai.evaluation.result", "gen_ai.client.operation.exception")
"""Names of events, not of attributes."""

FORMER_EVENTS = re.compile(r"gen_ai\.(?:system|user|assistant|tool)\.message|gen_ai\.choice")


# --- what we have ----------------------------------------------------------------------------------------------------


@functools.cache
def ours_in_source() -> set[str]:
    """Names in the conventions' namespaces in our source, and all that ``semconv.py`` declares."""
    declared = {value for value in vars(semconv).values() if isinstance(value, str) and NAME.fullmatch(value)}
    declared |= set(semconv.FORMER_NAMES.values())
    written = {
        name
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in READ_ONLY
        for name in strings(path)
        if NAME.fullmatch(name) and name.startswith("gen_ai.")
    }
    return {name for name in declared | written if not name.startswith(EVENTS)}


TOOLS: Any = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
RICH = Behaviour(
    text="Noon.", input_tokens=500, cached_tokens=100, output_tokens=60, reasoning_tokens=20, service_tier="flex",
    tool_calls=(ToolCall("clock", {"zone": "UTC"}),),
)  # fmt: skip


def openai_calls(sim: Simulator) -> None:
    import openai

    client = openai.OpenAI(
        base_url=sim.openai_url, api_key="any", max_retries=0, http_client=openai.DefaultHttpxClient(verify=False)
    )
    messages: Any = [{"role": "user", "content": "Hi"}]
    for stream in (False, True):
        sim.then(RICH)
        chat = client.chat.completions.create(
            model="gpt-4o", messages=messages, tools=TOOLS, stream=stream, temperature=0.5, top_p=0.9, seed=7, n=2,
            stop=["END"], max_completion_tokens=99, presence_penalty=0.1, frequency_penalty=0.1, reasoning_effort="low",
            service_tier="flex", response_format={"type": "json_object"},
        )  # fmt: skip
        response = client.responses.create(
            model="gpt-5", input="Hi", instructions="Be brief.", stream=stream, previous_response_id="resp_1",
            conversation=None,
        )  # fmt: skip
        for answer in (chat, response) if stream else ():
            for _ in answer:
                pass
    client.embeddings.create(model="text-embedding-3-small", input="Hi", dimensions=8, encoding_format="float")
    started = client.responses.create(model="gpt-5", input="Hi", background=True)
    client.responses.retrieve(started.id)
    client.images.generate(model="gpt-image-1", prompt="A river")
    sim.then(Behaviour(status=500))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="gpt-4o", messages=messages)
    with tb.budget(max_calls=0, name="none"), pytest.raises(tb.BudgetExceeded):
        client.chat.completions.create(model="gpt-4o", messages=messages)


def anthropic_calls(sim: Simulator) -> None:
    import anthropic

    http = anthropic.DefaultHttpxClient(verify=False)
    client = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="any", max_retries=0, http_client=http)
    for stream in (False, True):
        sim.then(Behaviour(text="Noon.", input_tokens=500, cached_tokens=9, cache_write_5m_tokens=9))
        answer: Any = client.messages.create(
            model="claude-haiku-4-5", max_tokens=99, system="Be brief.", messages=[{"role": "user", "content": "Hi"}],
            stop_sequences=["END"], service_tier="auto", stream=stream,
        )  # fmt: skip
        for _ in answer if stream else ():
            pass


def google_calls(sim: Simulator) -> None:
    from google import genai

    client = genai.Client(api_key="any", http_options={"base_url": sim.google_url})
    config: Any = {
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "max_output_tokens": 99,
        "seed": 7,
        "candidate_count": 1,
    }
    client.models.generate_content(model="gemini-2.5-flash", contents="Hi", config=config)
    list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="Hi", config=config))
    client.models.embed_content(model="gemini-embedding-001", contents="Hi")


CALLS = {"openai": openai_calls, "anthropic": anthropic_calls, "google.genai": google_calls}


def collected(sim: Simulator, telemetry: Any, calls: Any, **options: Any) -> tuple[set[str], list[Any]]:
    """Every name on spans, in events, of metrics and of their attributes; and the spans."""
    events, loggers = InMemoryLogRecordExporter(), LoggerProvider()
    loggers.add_log_record_processor(SimpleLogRecordProcessor(events))
    tb.instrument(
        telemetry.tracer_provider, telemetry.meter_provider, logger_provider=loggers, capture_content="both", **options
    )
    try:
        calls(sim)
    finally:
        tb.uninstrument()
    spans = telemetry.spans()
    names = {name for span in spans for name in span.attributes}
    names |= {name for record in events.get_finished_logs() for name in record.log_record.attributes}
    for metric, points in telemetry.metrics().items():
        names |= {metric, *(name for point in points for name in point.attributes)}
    return names, spans


def unknown(names: Iterable[str], known: set[str]) -> set[str]:
    return {name for name in names if name not in known and not name.startswith(OURS)}


# --- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sdk", "former_names"), [("openai", False), ("openai", True), ("anthropic", False), ("google.genai", False)]
)
def test_what_is_emitted_is_known_or_deliberate(
    sdk: str, former_names: bool, known: set[str], sim: Simulator, telemetry: Any, meter: Any
) -> None:
    names, spans = collected(sim, telemetry, CALLS[sdk], former_names=former_names)
    assert spans
    assert unknown(names, known) <= set(NOT_IN_THE_CONVENTIONS)
    # All of it stands in the source, where the other tests look for it.
    seen_by_all = {name for name in names if name.startswith("gen_ai.")}
    assert seen_by_all <= ours_in_source()
    if former_names:
        assert "gen_ai.system" in names


def test_what_stands_in_the_source_is_known_or_deliberate(known: set[str]) -> None:
    assert unknown(ours_in_source(), known) == set(NOT_IN_THE_CONVENTIONS), "remove rows that are known by now"


def test_what_the_conventions_have_besides_is_left_out_deliberately(known: set[str]) -> None:
    theirs = {
        name
        for name in known
        if name.startswith("gen_ai.") and not name.startswith(EVENTS) and not FORMER_EVENTS.fullmatch(name)
    }
    assert theirs - ours_in_source() == set(NOT_EMITTED), "remove rows of what is emitted, or not there any more"


def test_every_row_has_a_reason() -> None:
    for table in (NOT_IN_THE_CONVENTIONS, NOT_EMITTED, OTHER_OPERATIONS):
        assert all(len(reason) > 15 for reason in table.values())


def values_of(enumeration: str) -> set[str]:
    attributes = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    return {member.value for member in getattr(attributes, enumeration)}


def test_operations_are_those_of_the_conventions_or_deliberate(known: set[str]) -> None:
    """Every operation that a door has, by its declaration in the source."""
    found = {value for name, value in vars(semconv).items() if name in _OPERATIONS}
    for path in (SOURCE / "instrumentation").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("Endpoint", "Method"):
                given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "operation")]
                found |= {each.value for each in given if isinstance(each, ast.Constant) and "." not in each.value}
    newer = {"fetch_response"} & {name for path in files_of("opentelemetry.util.genai") for name in strings(path)}
    assert found - values_of("GenAiOperationNameValues") - newer == set(OTHER_OPERATIONS)


_OPERATIONS = ("CHAT", "TEXT_COMPLETION", "EMBEDDINGS", "GENERATE_CONTENT", "IMAGE_GENERATION", "SPEECH",
               "TRANSCRIPTION", "TRANSLATION", "FETCH_RESPONSE", "CREATE_BATCH", "FETCH_BATCH")  # fmt: skip


def test_providers_are_those_of_the_conventions_or_have_no_name_there() -> None:
    found = {name for _, name in hosts.HOSTS} | {name for _, name in hosts.PATTERNS} | {hosts.COMPATIBLE}
    for path in (SOURCE / "instrumentation").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Provider":
                found |= {each.value.value for each in node.keywords if each.arg == "name"}  # type: ignore[attr-defined]
            named = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(getattr(each, "id", None) in ("PROVIDER", "provider") for each in named):
                value = getattr(node, "value", None)
                found |= {value.value} if isinstance(value, ast.Constant) and isinstance(value.value, str) else set()
    found = (found | {"aws.sagemaker"}) - {""}
    assert found - values_of("GenAiProviderNameValues") == OTHER_PROVIDERS


def test_the_bucket_boundaries_are_those_that_the_official_package_uses() -> None:
    instruments = pytest.importorskip("opentelemetry.util.genai._instruments", reason="it is not installed")
    assert tuple(instruments._GEN_AI_CLIENT_OPERATION_DURATION_BUCKETS) == semconv.DURATION_BOUNDARIES
    assert tuple(instruments._GEN_AI_CLIENT_TOKEN_USAGE_BUCKETS) == semconv.TOKEN_BOUNDARIES


def test_a_conversation_that_was_compacted_says_so() -> None:
    from tokenbudget_otel.instrumentation.openai_streams import read_response

    whole = json.loads('{"status": "completed", "output": [{"type": "compaction", "id": "c"}]}')
    assert read_response(whole).attributes == {"gen_ai.conversation.compacted": True}
    assert read_response({"status": "completed", "output": [{"type": "message"}]}).attributes == {}
