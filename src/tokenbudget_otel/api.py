"""The functions at the top of the package: ``tb.instrument``, ``tb.wrap``, ``tb.track``, ``tb.usage``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, overload

from opentelemetry import context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets import Budget
from tokenbudget_otel.meter import Charge, Reading, Request, Size, meter
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.tags import checked_tags, current_tags
from tokenbudget_otel.totals import Totals
from tokenbudget_otel.usage import TokenUsage

INSTRUMENTORS: Final = {
    "openai": ("tokenbudget_otel.instrumentation.openai", "OpenAIInstrumentor"),
    "anthropic": ("tokenbudget_otel.instrumentation.anthropic", "AnthropicInstrumentor"),
}
"""The instrumentor of each SDK, by the name under which the SDK is imported."""

C = TypeVar("C")


def instrument(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    budgets: Iterable[Budget] = (),
    hosts: Mapping[str, str] | None = None,
    former_names: bool = False,
    stream_usage: bool | None = None,
) -> None:
    """Meter every LLM SDK that is installed. Calling it again adds budgets and hosts, and nothing twice.

    Args:
        tracer_provider, meter_provider: where spans and metrics go; the global ones by default. Without an
            OpenTelemetry SDK nothing is exported, and metering and budgets work all the same.
        budgets: limits on what may be spent, in force from now on.
        hosts: who answers at base URLs that are not known: ``{"llm.example.com/groq": "groq"}``.
        former_names: also set span attributes under the names of the previous conventions.
        stream_usage: whether streams are asked for their usage where the program does not ask itself.

    Raises:
        ValueError: for a budget that cannot be meant, or two different ones with the same name.

    >>> instrument(budgets=[Budget(limit_usd=50, window="month", per="tenant")])
    >>> uninstrument()
    >>> meter().enforcer.clear()
    """
    for base_url, provider in (hosts or {}).items():
        importlib.import_module("tokenbudget_otel.instrumentation.hosts").map_host(base_url, provider)
    meter().enforcer.add(*budgets)
    options: dict[str, Any] = {
        "tracer_provider": tracer_provider,
        "meter_provider": meter_provider,
        "former_names": former_names,
    }
    if stream_usage is not None:
        options["stream_usage"] = stream_usage
    for sdk in INSTRUMENTORS:
        instrumentor = _instrumentor(sdk)
        if importlib.util.find_spec(sdk) is not None and not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(**options)


def uninstrument() -> None:
    """Take every instrumentor off again. Budgets and totals stay.

    >>> uninstrument()
    """
    for sdk in INSTRUMENTORS:
        instrumentor = _instrumentor(sdk)
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


def _instrumentor(sdk: str) -> Any:
    module, name = INSTRUMENTORS[sdk]
    return getattr(importlib.import_module(module), name)()


def wrap(client: C, **options: Any) -> C:
    """Meter this client only, in place, and return it: the same object, of the same class.

    With global instrumentation on as well, its calls still count once. ``options`` are those of the SDK's
    instrumentor.

    Raises:
        TypeError: for an object that is not a client of a known SDK.

    >>> import openai
    >>> client = wrap(openai.OpenAI(api_key="none"))
    >>> type(client).__name__
    'OpenAI'
    >>> unwrap(client) is client
    True
    """
    if "_tokenbudget_door" in getattr(client, "__dict__", ()):
        return client
    sdk = next((kind.__module__.partition(".")[0] for kind in type(client).__mro__ if _names_sdk(kind)), None)
    if sdk is None or not hasattr(client, "request"):
        raise TypeError(f"tb.wrap knows clients of {', '.join(INSTRUMENTORS)}; {type(client)!r} is none of them")
    door = _instrumentor(sdk).door(**options)
    door.wrap(client)
    vars(client)["_tokenbudget_door"] = door
    return client


def unwrap(client: C) -> C:
    """Undo :func:`wrap`. A client that is not wrapped is returned as it is."""
    door = vars(client).pop("_tokenbudget_door", None)
    if door is not None:
        door.unhook()
    return client


def _names_sdk(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in INSTRUMENTORS


def track(
    *,
    provider: str,
    model: str,
    usage: TokenUsage,
    operation: str = semconv.CHAT,
    cost_usd: float | None = None,
    tags: Mapping[str, object] | None = None,
    call_id: str | None = None,
    at: float | None = None,
) -> Charge:
    """Record a call that has no instrumented client. It is priced and charged to every budget that applies.

    Args:
        provider: its name, as in ``gen_ai.provider.name``.
        model: the model as the provider names it.
        usage: what was used.
        operation: what kind of call it was.
        cost_usd: the cost in US dollars where it is known better than our prices know it.
        tags: further tags, over those of the context.
        call_id: a name for the call; recording the same one again charges no budget twice.
        at: when it was made, in seconds since the epoch; now by default.

    Raises:
        TypeError, ValueError: for a usage that is none, or a tag or cost that cannot be. Nothing is recorded
            then. A budget that is overrun does not raise: the call has been made.

    >>> charge = track(provider="openai", model="gpt-4o", usage=TokenUsage(input_tokens=1000, output_tokens=100))
    >>> charge.cost.usd
    Decimal('0.0035')
    """
    if not isinstance(usage, TokenUsage):
        raise TypeError(f"usage must be a TokenUsage, not {type(usage).__name__}")
    if not model or not provider:
        raise ValueError("a call needs the names of its provider and model")
    reported = None if cost_usd is None else to_nano(cost_usd)
    if reported is not None and reported < 0:
        raise ValueError(f"cost_usd must not be negative, not {cost_usd!r}")
    ctx = context.get_current()
    request = Request(
        provider,
        model,
        operation,
        lambda: Size(usage.input_tokens or 0, usage.input_tokens or 0),
        tags={**current_tags(ctx), **checked_tags(tags or {})},
        context=ctx,
    )
    if call_id is not None:
        request.id = call_id
    if at is not None:
        request.at = at
    return meter().record(request, Reading(usage, reported_nano_usd=reported))


@overload
def usage(by: None = None) -> Totals: ...
@overload
def usage(by: str) -> dict[str, Totals]: ...
@overload
def usage(by: tuple[str, ...] | list[str]) -> dict[tuple[str, ...], Totals]: ...


def usage(by: Any = None) -> Any:
    """What this process has used so far: all of it, or by ``provider``, ``model``, ``operation`` or a tag.

    Several names give totals by tuples. Streams that were dropped without being closed are settled first.

    >>> meter().totals.clear()
    >>> _ = track(provider="openai", model="gpt-4o", usage=TokenUsage(input_tokens=1000, output_tokens=100),
    ...           tags={"tenant": "acme"})
    >>> usage().cost_usd
    Decimal('0.0035')
    >>> usage(by="tenant")["acme"].calls
    1
    """
    importlib.import_module("tokenbudget_otel.instrumentation.deferred").drain()
    return meter().totals.get(by)
