"""Dialects: how different makers of GenAI spans write down one and the same thing.

:func:`read` turns the attributes of a span into an :class:`Inference`, whoever made it, or into
``None`` where the span is not a call that a provider bills. A dialect is one row of
:data:`DIALECTS`: data, not code. Nothing here knows the OpenTelemetry SDK, so that the processor
inside a program and a backend that receives OTLP read spans alike.

    >>> inference = read(
    ...     {
    ...         "gen_ai.operation.name": "chat",
    ...         "gen_ai.system": "openai",
    ...         "gen_ai.request.model": "gpt-4o",
    ...         "gen_ai.usage.prompt_tokens": 1200,
    ...         "gen_ai.usage.completion_tokens": 80,
    ...     }
    ... )
    >>> inference.provider, inference.model, inference.usage
    ('openai', 'gpt-4o', TokenUsage(input_tokens=1200, output_tokens=80))
    >>> read({"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 1200}) is None
    True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tokenbudget_otel import semconv
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.usage import CACHE_WRITE_TTLS, FIELDS, TokenUsage

COVERED_BY: Final = "tokenbudget.call.covered_by"
"""Set by the span processor on a span that repeats a call which is charged on another span: the id of that call."""

METERED_KEY: Final = "tokenbudget-metered-call"
"""Key of the OpenTelemetry context under which the id of a call stands while that call is metered where it is made.
A span that starts in such a context tells of that call once more."""

MAX_COUNT: Final = 1_000_000_000
"""A count beyond this is no count of one call; the largest context windows hold some ten million tokens."""

MAX_NAME_LENGTH: Final = 512
"""Names (of models, providers …) longer than this are not names."""

MAX_COST_NANO_USD: Final = 1_000_000 * 1_000_000_000
"""A reported cost beyond a million dollars is not the cost of one call."""

InputRule = Literal["whole", "rest", "unknown"]
"""Whether the input that an emitter writes includes what was read from and written to a cache (``whole``), leaves
it out (``rest``), or is not known: then arithmetic decides."""

Reason = Literal["negative", "not_finite", "not_a_number", "not_whole", "absurd", "contradictory", "no_usage"]
"""Why something on a span was not taken: see :attr:`Inference.rejected`."""


@dataclass(frozen=True, slots=True)
class ReportedCost:
    """Where a span has a cost: the attributes of its amount, its currency and who says so.

    Only a cost that the *provider* reports is taken; one that another tool worked out from its own price
    table is not better than ours. ``provider_says`` is the value of ``source`` that means the provider.
    """

    amount: str
    currency: str | None = None
    source: str | None = None
    provider_says: str = "provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One way of writing GenAI spans. Where several attribute names are given, the first that is there counts.

    Attributes:
        name: what we call it; a metric attribute, so from a small set.
        scopes: names of instrumentation scopes whose spans are written so; ``a.b`` also stands for ``a.b.c``.
        before: the version of the scope from which on the row does not apply any more.
        marks: attributes, any of which says that a span is written so, whoever made it.
        operation: names of the operation.
        operations: what its values mean. A span with any other value is no billable call.
        assumed_operation: the operation of a span that names none, but has a model and tokens.
        provider, request_model, response_model, response_id, tier: names of these.
        assumed_provider: the provider of a span that names none.
        counts: attribute and field of :class:`TokenUsage`, in order of preference.
        added: attribute and field, for counts that come on top of what ``counts`` has.
        input: what the input includes.
        costs: where a cost reported by the provider is.
        unfold: makes attributes out of one that holds many (JSON, say), before anything is read. May raise.
    """

    name: str
    scopes: tuple[str, ...] = ()
    before: tuple[int, ...] | None = None
    marks: tuple[str, ...] = ()
    operation: tuple[str, ...]
    operations: Mapping[str, str]
    assumed_operation: str | None = None
    provider: tuple[str, ...]
    assumed_provider: str = ""
    request_model: tuple[str, ...]
    response_model: tuple[str, ...]
    response_id: tuple[str, ...]
    tier: tuple[str, ...] = ()
    counts: tuple[tuple[str, str], ...]
    added: tuple[tuple[str, str], ...] = ()
    input: InputRule = "unknown"
    costs: tuple[ReportedCost, ...] = ()
    unfold: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    def written_by(self, scope: str, version: str | None) -> bool:
        """Whether the row names the scope that made a span."""
        named = any(scope == name or scope.startswith(name + ".") for name in self.scopes)
        return named and (self.before is None or version_of(version) < self.before)


@dataclass(frozen=True, slots=True)
class Inference:
    """A billable call as a span tells it.

    Attributes:
        dialect: the name of the row that read it.
        provider: by the names of the conventions; empty where the span does not say.
        operation: one of :data:`tokenbudget_otel.semconv.INFERENCE_OPERATIONS`.
        request_model, response_model: the model asked for, and the one that answered.
        response_id: the provider's id of the response, which tells calls apart.
        usage: tokens and units, input and output being wholes; ``None`` where the span has none.
        estimated: whether the usage is not, or not wholly, the provider's count.
        reported_nano_usd: the cost as the provider reports it.
        charged_nano_usd: the cost that TokenBudget already put on the span.
        tier: the service tier that served the call, or else the one that was asked for.
        streamed: whether the response was streamed.
        error_type: what went wrong, if something did.
        server_address: whom the client talked to.
        call_id: the id under which the call is charged already; then nobody is to charge it again.
        covered_by: the id of the call that this span repeats and that is charged on another span.
        tags: the span's own tags.
        rejected: what was not taken, as reason and attribute name.
    """

    dialect: str
    provider: str
    operation: str
    request_model: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    usage: TokenUsage | None = None
    estimated: bool = False
    reported_nano_usd: int | None = None
    charged_nano_usd: int | None = None
    tier: str | None = None
    streamed: bool = False
    error_type: str | None = None
    server_address: str | None = None
    call_id: str | None = None
    covered_by: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    rejected: tuple[tuple[Reason, str], ...] = ()

    @property
    def model(self) -> str:
        """The model asked for, or else the one that answered; empty where neither is known."""
        return self.request_model or self.response_model or ""

    @property
    def charged(self) -> bool:
        """Whether the call is charged already, on this span or on another."""
        return self.call_id is not None or self.covered_by is not None


# --- the table ---------------------------------------------------------------------------------------------------

_MODALITIES: Final = ("text", "audio", "image", "video")

_OPERATIONS: Final = {name: name for name in semconv.INFERENCE_OPERATIONS} | {
    "completion": semconv.TEXT_COMPLETION,
    "embedding": semconv.EMBEDDINGS,
}

_CURRENT_COUNTS: Final = (
    (semconv.USAGE_INPUT_TOKENS, "input_tokens"),
    (semconv.USAGE_OUTPUT_TOKENS, "output_tokens"),
    (semconv.USAGE_CACHE_READ, "cache_read_tokens"),
    (semconv.USAGE_CACHE_WRITE, "cache_write_tokens"),
    (semconv.USAGE_REASONING, "reasoning_tokens"),
    *((f"gen_ai.usage.{kind}.input_tokens", f"input_{kind}_tokens") for kind in _MODALITIES),
    *((f"gen_ai.usage.{kind}.output_tokens", f"output_{kind}_tokens") for kind in _MODALITIES),
    *((f"gen_ai.usage.{kind}.cache_read.input_tokens", f"cache_read_{kind}_tokens") for kind in _MODALITIES),
)

_FORMER_COUNTS: Final = (
    ("gen_ai.usage.prompt_tokens", "input_tokens"),
    ("gen_ai.usage.completion_tokens", "output_tokens"),
    ("gen_ai.usage.cache_creation.input_tokens", "cache_write_tokens"),
    ("gen_ai.usage.cache_creation_input_tokens", "cache_write_tokens"),
    ("gen_ai.usage.cache_read_input_tokens", "cache_read_tokens"),
    ("gen_ai.usage.reasoning_tokens", "reasoning_tokens"),
)

CONVENTIONS: Final = Dialect(
    name="conventions",
    marks=(semconv.OPERATION_NAME, semconv.PROVIDER_NAME, "gen_ai.system"),
    operation=(semconv.OPERATION_NAME,),
    operations=_OPERATIONS,
    assumed_operation=semconv.CHAT,
    provider=(semconv.PROVIDER_NAME, "gen_ai.system"),
    request_model=(semconv.REQUEST_MODEL,),
    response_model=(semconv.RESPONSE_MODEL,),
    response_id=(semconv.RESPONSE_ID,),
    tier=(
        semconv.OPENAI_RESPONSE_SERVICE_TIER,
        "gen_ai.openai.response.service_tier",
        semconv.ANTHROPIC_RESPONSE_SERVICE_TIER,
        semconv.OPENAI_REQUEST_SERVICE_TIER,
        "gen_ai.openai.request.service_tier",
        semconv.ANTHROPIC_REQUEST_SERVICE_TIER,
    ),
    counts=_CURRENT_COUNTS + _FORMER_COUNTS,
    # The draft of a cost convention (semantic-conventions-genai, pull request 443).
    costs=(ReportedCost("gen_ai.usage.cost.amount", "gen_ai.usage.cost.currency", "gen_ai.usage.cost.source"),),
)
"""The GenAI conventions, current and former names, by anyone. Emitters mix them, so they are one row."""

OWN: Final = replace(
    CONVENTIONS,
    name="tokenbudget",
    scopes=("tokenbudget_otel",),
    assumed_operation=None,
    counts=_CURRENT_COUNTS + tuple((semconv.USAGE_UNIT_PREFIX + name, name) for name in sorted(FIELDS)),
    input="whole",
    costs=(ReportedCost(semconv.USAGE_COST, None, semconv.COST_SOURCE),),
)
"""Spans that our own instrumentors make."""

ANTHROPIC_SDK: Final = replace(
    CONVENTIONS,
    name="anthropic-sdk",
    # The SDK adds the platform of the client to the scope: com.anthropic.sdk.python.bedrock.
    scopes=("com.anthropic.sdk.python",),
    assumed_operation=None,
    assumed_provider="anthropic",
    counts=(
        *_CURRENT_COUNTS,
        ("anthropic.usage.cache_creation.ephemeral_5m_input_tokens", "cache_write_5m_tokens"),
        ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
    ),
    # "The usage above leaves out the tokens of the compactions", which are billed like the rest.
    added=(
        ("anthropic.usage.compaction.input_tokens", "input_tokens"),
        ("anthropic.usage.compaction.output_tokens", "output_tokens"),
    ),
    input="whole",
)
"""Spans that the anthropic SDK makes of itself (since 1.14)."""

OFFICIAL: Final = replace(
    CONVENTIONS,
    name="official",
    scopes=("opentelemetry.instrumentation.genai", "opentelemetry.util.genai"),
    assumed_operation=None,
    input="whole",
)
"""Spans of the official packages (opentelemetry-instrumentation-genai-* 1.3b0, opentelemetry-util-genai)."""

DIALECTS: Final = (OWN, ANTHROPIC_SDK, OFFICIAL, CONVENTIONS)
"""All rows. One that names the scope of a span comes before one that only knows the attributes; among those the
first counts."""

PROVIDERS: Final = {
    "az.ai.openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "azure": "azure.ai.openai",
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "google": "gcp.gen_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}
"""Other names for providers, in lower case, and what the conventions call them."""


# --- reading -----------------------------------------------------------------------------------------------------


class Reader:
    """Reads spans by a table of dialects. :func:`read` and :func:`candidate` are those of :data:`DIALECTS`.

    >>> house = replace(CONVENTIONS, name="house", scopes=("house.llm",), input="rest")
    >>> reader = Reader((house, *DIALECTS))
    >>> usage = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 9,
    ...          "gen_ai.usage.cache_read.input_tokens": 5}
    >>> reader.read(usage, "house.llm").usage
    TokenUsage(input_tokens=14, cache_read_tokens=5)
    """

    def __init__(self, table: tuple[Dialect, ...]) -> None:
        self._named = tuple(row for row in table if row.scopes)
        self._marked = tuple(row for row in table if not row.scopes)
        self._marks = tuple(dict.fromkeys(mark for row in self._marked for mark in row.marks))
        self._by_scope: dict[tuple[str | None, str | None], Dialect | None] = {}

    def candidate(self, attributes: Mapping[str, Any], scope: str | None = None, version: str | None = None) -> bool:
        """Whether a span may be a GenAI span. Cheap, and surely ``True`` for one that :meth:`read` can read."""
        if self._row_of_scope(scope, version) is not None:
            return True
        # A plain loop: this runs for every span of the program, and a generator costs more than the lookups.
        for mark in self._marks:  # noqa: SIM110
            if mark in attributes:
                return True
        return False

    def read(
        self, attributes: Mapping[str, Any], scope: str | None = None, version: str | None = None
    ) -> Inference | None:
        """What a span tells of a billable call; ``None`` where it is not the span of one. Never raises.

        Args:
            attributes: of the span, as plain values.
            scope, version: the instrumentation scope that made the span.
        """
        row = self._row_of_scope(scope, version)
        if row is None:
            row = next((row for row in self._marked if any(mark in attributes for mark in row.marks)), None)
            if row is None:
                return None
        if row.unfold is not None:
            try:
                attributes = {**attributes, **row.unfold(attributes)}
            except Exception:
                # An attribute that should hold JSON and does not: what else the span has is read all the same.
                pass
        return _read(row, attributes)

    def _row_of_scope(self, scope: str | None, version: str | None) -> Dialect | None:
        key = (scope, version)
        try:
            return self._by_scope[key]
        except (KeyError, TypeError):
            pass
        row = None
        if isinstance(scope, str):
            row = next((row for row in self._named if row.written_by(scope, version)), None)
            if len(self._by_scope) < 1_000:
                self._by_scope[key] = row
        return row


def _read(row: Dialect, attributes: Mapping[str, Any]) -> Inference | None:
    request_model = _text(attributes, row.request_model)
    response_model = _text(attributes, row.response_model)
    named = _first(attributes, row.operation)
    if named is not None:
        operation = row.operations.get(named) if isinstance(named, str) else None
    else:
        model = request_model or response_model
        used = any(attribute in attributes for attribute, _ in row.counts)
        operation = row.assumed_operation if model and used else None
    if operation is None:
        return None

    rejected: list[tuple[Reason, str]] = []
    usage, whole = _usage(row, attributes, rejected)
    provider = _text(attributes, row.provider) or row.assumed_provider
    return Inference(
        dialect=row.name,
        provider=PROVIDERS.get(provider.lower(), provider),
        operation=operation,
        request_model=request_model,
        response_model=response_model,
        response_id=_text(attributes, row.response_id),
        usage=usage,
        estimated=attributes.get(semconv.USAGE_ESTIMATED) is True or not whole,
        reported_nano_usd=next(
            (nano for nano in (_reported(cost, attributes) for cost in row.costs) if nano is not None), None
        ),
        charged_nano_usd=_nano(attributes.get(semconv.USAGE_COST)) if semconv.COST_STATE in attributes else None,
        tier=_text(attributes, row.tier),
        streamed=attributes.get(semconv.REQUEST_STREAM) is True,
        error_type=_text(attributes, (semconv.ERROR_TYPE,)),
        server_address=_text(attributes, (semconv.SERVER_ADDRESS,)),
        call_id=_text(attributes, (semconv.CALL_ID,)),
        covered_by=_text(attributes, (COVERED_BY,)),
        tags={
            name[len(semconv.TAG_PREFIX) :]: value
            for name, value in attributes.items()
            if isinstance(name, str) and name.startswith(semconv.TAG_PREFIX) and isinstance(value, str)
        },
        rejected=tuple(rejected),
    )


def _usage(
    row: Dialect, attributes: Mapping[str, Any], rejected: list[tuple[Reason, str]]
) -> tuple[TokenUsage | None, bool]:
    """The usage on a span, and whether its wholes are there as they were written."""
    counts: dict[str, Any] = {}
    for attribute, name in row.counts:
        value = attributes.get(attribute)
        if value is None or name in counts:
            continue
        if (reason := _refusal(name, value)) is not None:
            rejected.append((reason, attribute))
        else:
            counts[name] = value
    whole = not any(
        name in ("input_tokens", "output_tokens") and name not in counts for name in _refused(row, rejected)
    )
    if not counts:
        return None, whole
    for attribute, name in row.added:
        value = attributes.get(attribute)
        if value is not None and (reason := _refusal(name, value)) is not None:
            rejected.append((reason, attribute))
        elif value:
            counts[name] = counts.get(name, 0) + value
    cached = counts.get("cache_read_tokens", 0) + _written(counts)
    if "input_tokens" in counts and (
        row.input == "rest" or (row.input == "unknown" and counts["input_tokens"] < cached)
    ):
        counts["input_tokens"] += cached
    read = TokenUsage(**counts)
    if problems := read.problems():
        rejected.append(("contradictory", problems[0]))
        read = read.certain()
    return read, whole


def _written(counts: Mapping[str, Any]) -> Any:
    """Tokens written to a cache: the total, or else what is known of it by time to live."""
    return counts.get("cache_write_tokens", sum(counts.get(name, 0) for name in CACHE_WRITE_TTLS))


def _refused(row: Dialect, rejected: list[tuple[Reason, str]]) -> set[str]:
    attributes = {attribute for _, attribute in rejected}
    return {name for attribute, name in row.counts if attribute in attributes}


def _refusal(name: str, value: Any) -> Reason | None:
    """Why ``value`` cannot be the count ``name``; ``None`` where it can."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not_a_number"
    if isinstance(value, float) and not math.isfinite(value):
        return "not_finite"
    if value < 0:
        return "negative"
    if value > MAX_COUNT:
        return "absurd"
    if isinstance(value, float) and not value.is_integer() and not name.endswith("_seconds"):
        return "not_whole"
    return None


def _reported(cost: ReportedCost, attributes: Mapping[str, Any]) -> int | None:
    if cost.source is not None and attributes.get(cost.source) != cost.provider_says:
        return None
    if cost.currency is not None and attributes.get(cost.currency, "USD") != "USD":
        return None
    return _nano(attributes.get(cost.amount))


def _nano(usd: Any) -> int | None:
    if isinstance(usd, bool) or not isinstance(usd, int | float):
        return None
    try:
        nano_usd = to_nano(usd)
    except (ValueError, ArithmeticError):
        return None
    return nano_usd if 0 <= nano_usd <= MAX_COST_NANO_USD else None


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if (value := attributes.get(name)) is not None:
            return value
    return None


def _text(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH:
            return value
    return None


def version_of(text: str | None) -> tuple[int, ...]:
    """The release numbers in a version, for comparison; empty (before all others) where there are none.

    >>> version_of("1.3b0") < version_of("1.10.2")
    True
    """
    numbers = []
    for part in (text or "").split("."):
        digits = ""
        for character in part:
            if not ("0" <= character <= "9"):
                break
            digits += character
        if not digits or len(digits) > 9:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


_READER: Final = Reader(DIALECTS)

read: Final = _READER.read
"""Read a span by :data:`DIALECTS`: see :meth:`Reader.read`."""

candidate: Final = _READER.candidate
"""Whether a span may be a GenAI span by :data:`DIALECTS`: see :meth:`Reader.candidate`."""
