"""Reading spans by a table of dialects. It knows no single one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects.amounts import Rejected, nano_of, reported_cost, usage_of
from tokenbudget_otel.dialects.dialect import MAX_NAME_LENGTH, Dialect, Inference
from tokenbudget_otel.dialects.folded import unfold
from tokenbudget_otel.dialects.keys import COVERED_BY
from tokenbudget_otel.dialects.providers import provider_name

_YES: Final = (True, "True", "true")
"""LiteLLM writes the word."""


class Reader:
    """Reads spans by a table of dialects. :func:`read` and :func:`candidate` are those of :data:`DIALECTS`.

    >>> from dataclasses import replace
    >>> from tokenbudget_otel.dialects import CONVENTIONS, DIALECTS
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
        self._marks = frozenset(mark for row in self._marked for mark in row.marks)
        self._by_scope: dict[tuple[str | None, str | None], Dialect | None] = {}

    def candidate(self, attributes: Mapping[str, Any], scope: str | None = None, version: str | None = None) -> bool:
        """Whether a span may be a GenAI span. Cheap, and surely ``True`` for one that :meth:`read` can read."""
        # One call in C that walks the shorter of the two: this runs for every span of the program, twice.
        return self._row_of_scope(scope, version) is not None or not attributes.keys().isdisjoint(self._marks)

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
    operation = _operation(row, attributes)
    if operation is None:
        return None
    rejected: Rejected = []
    if row.folded:
        attributes = _unfolded(row, attributes, rejected)
    request_model = _text(attributes, row.request_model)
    response_model = _text(attributes, row.response_model)
    if _is_no_call(row, attributes, rejected):
        return None
    if _first(attributes, row.operation) is None and not (
        (request_model or response_model) and any(attribute in attributes for attribute, _ in row.counts)
    ):
        return None

    provider = provider_name(_text(attributes, row.provider) or row.assumed_provider)
    usage, counted = usage_of(row, provider, attributes, rejected)
    return Inference(
        dialect=row.name,
        provider=provider,
        operation=operation,
        request_model=_with_vendor(row, request_model),
        response_model=_with_vendor(row, response_model),
        response_id=_text(attributes, row.response_id),
        usage=usage,
        estimated=attributes.get(semconv.USAGE_ESTIMATED) is True or not counted,
        reported_nano_usd=reported_cost(row, attributes),
        charged_nano_usd=nano_of(attributes.get(semconv.USAGE_COST)) if semconv.COST_STATE in attributes else None,
        tier=_text(attributes, row.tier),
        streamed=_first(attributes, row.streamed) in _YES,
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


def _operation(row: Dialect, attributes: Mapping[str, Any]) -> str | None:
    named = _first(attributes, row.operation)
    if named is None:
        return row.assumed_operation
    return row.operations.get(named) if isinstance(named, str) else None


def _unfolded(row: Dialect, attributes: Mapping[str, Any], rejected: Rejected) -> Mapping[str, Any]:
    """The attributes, and what is folded up in some of them. An attribute of the span itself is not replaced."""
    laid_out: dict[str, Any] = {}
    for attribute in row.folded:
        if (value := attributes.get(attribute)) is None:
            continue
        try:
            laid_out |= unfold(attribute, value)
        except Exception:
            rejected.append(("broken", attribute))
    return {**laid_out, **attributes} if laid_out else attributes


def _is_no_call(row: Dialect, attributes: Mapping[str, Any], rejected: Rejected) -> bool:
    for attribute, values in row.unless.items():
        value = attributes.get(attribute)
        if value is not None and (not values or value in values):
            return True
    for attribute, others in row.needs.items():
        # What is in broken JSON is not known, so nothing follows from its absence.
        known = attribute in attributes and ("broken", attribute) not in rejected
        if known and not any(other in attributes for other in others):
            return True
    return False


def _with_vendor(row: Dialect, model: str | None) -> str | None:
    if model is not None:
        for beginning, vendor in row.vendors.items():
            if model.startswith(beginning):
                return vendor + model
    return model


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
