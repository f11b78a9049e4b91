"""What a dialect is (:class:`Dialect`, one row of data), and what a span is read into (:class:`Inference`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tokenbudget_otel.usage import TokenUsage

MAX_COUNT: Final = 1_000_000_000
"""A count beyond this is no count of one call; the largest context windows hold some ten million tokens."""

MAX_NAME_LENGTH: Final = 512
"""Names (of models, providers …) longer than this are not names."""

MAX_COST_NANO_USD: Final = 1_000_000 * 1_000_000_000
"""A reported cost beyond a million dollars is not the cost of one call."""

Rule = Literal["whole", "rest", "unknown"]
"""Whether a total that an emitter writes includes its parts (``whole``), leaves them out (``rest``), or is not known:
then arithmetic decides. The parts of the input are what was read from a cache and written to it; that of the output
is reasoning."""

Reason = Literal["negative", "not_finite", "not_a_number", "not_whole", "absurd", "contradictory", "no_usage", "broken"]
"""Why something on a span was not taken: see :attr:`Inference.rejected`."""


@dataclass(frozen=True, slots=True)
class ReportedCost:
    """Where a span has a cost: the attributes of its amount, its currency and who says so.

    Only a cost that the *provider* reports is taken; one that another tool worked out from its own price
    table is not better than ours. ``provider_says`` is the value of ``source`` that means the provider;
    ``per_usd`` is how many of the units of ``amount`` are a dollar.
    """

    amount: str
    currency: str | None = None
    source: str | None = None
    provider_says: str = "provider"
    per_usd: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One way of writing GenAI spans. Where several attribute names are given, the first that is there counts.

    Attributes:
        name: what we call it; a metric attribute, so from a small set.
        scopes: names of instrumentation scopes whose spans are written so; ``a.b`` also stands for ``a.b.c``.
        before: the version of the scope from which on the row does not apply any more.
        marks: attributes, any of which says that a span is written so, whoever made it. Rows with scopes need none.
        folded: attributes that hold JSON (or a Python dictionary in print). What is in it can be named in the row
            like an attribute: ``usage.details.cached`` is ``cached`` of ``details`` of the JSON in ``usage``.
        operation: names of the operation.
        operations: what its values mean. A span with any other value is no billable call.
        assumed_operation: the operation of a span that names none, but has a model and tokens.
        unless: attributes by whose value a span is no billable call after all: a hit of the emitter's own cache,
            say. No values stand for any value.
        needs: attributes that have to be there where another is, or the span only tells of a call that was made
            before: whoever asks for an answer names a model, whoever fetches one does not.
        provider, request_model, response_model, response_id, tier, streamed: names of these.
        assumed_provider: the provider of a span that names none.
        vendors: what an emitter leaves off in front of the models that begin so.
        counts: attribute and field of :class:`TokenUsage`, in order of preference.
        added: attribute and field, for counts that come on top of what ``counts`` has.
        input, output: what the two totals include.
        input_of, output_of: the same for single providers, where an emitter takes over what each of them counts.
        whole_where: attributes, any of which says that both totals are whole after all.
        total: names of the tokens of a call altogether. What it has beyond input and output is output that
            the emitter has left out, and is said to be an estimate.
        costs: where a cost reported by the provider is.
    """

    name: str
    scopes: tuple[str, ...] = ()
    before: tuple[int, ...] | None = None
    marks: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    operation: tuple[str, ...]
    operations: Mapping[str, str]
    assumed_operation: str | None = None
    unless: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    provider: tuple[str, ...]
    assumed_provider: str = ""
    request_model: tuple[str, ...]
    vendors: Mapping[str, str] = field(default_factory=dict)
    response_model: tuple[str, ...]
    response_id: tuple[str, ...]
    tier: tuple[str, ...] = ()
    streamed: tuple[str, ...] = ()
    counts: tuple[tuple[str, str], ...]
    added: tuple[tuple[str, str], ...] = ()
    input: Rule = "unknown"
    output: Rule = "whole"
    input_of: Mapping[str, Rule] = field(default_factory=dict)
    output_of: Mapping[str, Rule] = field(default_factory=dict)
    whole_where: tuple[str, ...] = ()
    total: tuple[str, ...] = ()
    costs: tuple[ReportedCost, ...] = ()

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
