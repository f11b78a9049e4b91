"""Which spans the TokenBudget backend is sent, and under which further names it finds what is on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from tokenbudget_otel import dialects, semconv
from tokenbudget_otel.instrumentation.guard import log_once

FORMER_NAMES: Final = {
    **semconv.FORMER_NAMES,
    semconv.USAGE_INPUT_TOKENS: "gen_ai.usage.prompt_tokens",
    semconv.USAGE_OUTPUT_TOKENS: "gen_ai.usage.completion_tokens",
}
"""What backends of the previous conventions read, and the ones before those."""

_OURS: Final = "tokenbudget_otel."


class NamedSpan(ReadableSpan):
    """A span with further attributes. The one that it is made from stays as it is."""

    def __init__(self, span: ReadableSpan, more: Mapping[str, Any]) -> None:
        super().__init__(
            name=span.name,
            context=span.get_span_context(),
            parent=span.parent,
            resource=span.resource,
            attributes={**(span.attributes or {}), **more},
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        self._dropped = (span.dropped_attributes, span.dropped_events, span.dropped_links)

    @property
    def dropped_attributes(self) -> int:
        """How many the SDK has left out."""
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        """How many the SDK has left out."""
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        """How many the SDK has left out."""
        return self._dropped[2]


def is_call(span: ReadableSpan) -> bool:
    """Whether a span is that of an LLM call, in any dialect, or of what else our instrumentors charge or ask for.

    Spans of agents, workflows and tools are none: what they tell of tokens, the spans of the calls below them tell as
    well. Neither is a span that only repeats a call which is charged on another one.
    """
    attributes = span.attributes or {}
    scope = span.instrumentation_scope
    name, version = (None, None) if scope is None else (scope.name, scope.version)
    if name is not None and name.startswith(_OURS):
        return True
    if not dialects.candidate(attributes, name, version):
        return False
    if dialects.COVERED_BY in attributes:
        return False
    return semconv.CALL_ID in attributes or dialects.read(dict(attributes), name, version) is not None


def with_former_names(span: ReadableSpan) -> ReadableSpan:
    """The span, with standard attributes under their former names too; itself where there is nothing to add."""
    attributes = span.attributes or {}
    more = {
        former: attributes[name]
        for name, former in FORMER_NAMES.items()
        if name in attributes and former not in attributes
    }
    return NamedSpan(span, more) if more else span


def for_backend(spans: Sequence[ReadableSpan], all_spans: bool = False) -> list[ReadableSpan]:
    """What the backend is sent of some spans. Never raises."""
    chosen = []
    for span in spans:
        try:
            if all_spans or is_call(span):
                chosen.append(with_former_names(span))
        except Exception as error:
            log_once("tell what a span is of", error)
            chosen.append(span)
    return chosen
