"""Dialects: how different makers of GenAI spans write down one and the same thing.

:func:`read` turns the attributes of a span into an :class:`Inference`, whoever made it, or into
``None`` where the span is not a call that a provider bills. A dialect is one row of
:data:`DIALECTS`: data, not code. Nothing here knows the OpenTelemetry SDK, so that the processor
inside a program and a backend that receives OTLP read spans alike.

    >>> from tokenbudget_otel.dialects import read
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

Values are plain: strings, numbers, booleans, and sequences of them. Who reads OTLP's JSON, where a
64-bit integer is a string, makes a number of it first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokenbudget_otel.dialects.keys import COVERED_BY, METERED_KEY

if TYPE_CHECKING:
    from tokenbudget_otel.dialects.conventions import ANTHROPIC_SDK, CONVENTIONS, OFFICIAL, OWN
    from tokenbudget_otel.dialects.dialect import (
        MAX_COST_NANO_USD,
        MAX_COUNT,
        MAX_NAME_LENGTH,
        Dialect,
        Inference,
        Reason,
        ReportedCost,
        Rule,
        version_of,
    )
    from tokenbudget_otel.dialects.providers import PROVIDERS
    from tokenbudget_otel.dialects.reader import Reader
    from tokenbudget_otel.dialects.table import DIALECTS, candidate, read

__all__ = [
    "ANTHROPIC_SDK",
    "CONVENTIONS",
    "COVERED_BY",
    "DIALECTS",
    "MAX_COST_NANO_USD",
    "MAX_COUNT",
    "MAX_NAME_LENGTH",
    "METERED_KEY",
    "OFFICIAL",
    "OWN",
    "PROVIDERS",
    "Dialect",
    "Inference",
    "Reader",
    "Reason",
    "ReportedCost",
    "Rule",
    "candidate",
    "read",
    "version_of",
]

_LATER = {
    **dict.fromkeys(("ANTHROPIC_SDK", "CONVENTIONS", "OFFICIAL", "OWN"), "conventions"),
    **dict.fromkeys(("MAX_COST_NANO_USD", "MAX_COUNT", "MAX_NAME_LENGTH"), "dialect"),
    **dict.fromkeys(("Dialect", "Inference", "Reason", "ReportedCost", "Rule", "version_of"), "dialect"),
    "PROVIDERS": "providers",
    "Reader": "reader",
    **dict.fromkeys(("DIALECTS", "candidate", "read"), "table"),
}
"""What is loaded on first use: programs that only use our instrumentors read nobody's spans."""


def __getattr__(name: str) -> Any:
    if (home := _LATER.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
