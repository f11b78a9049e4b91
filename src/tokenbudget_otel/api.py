"""The functions at the top of the package: ``tb.instrument``, ``tb.wrap``, ``tb.track``, ``tb.usage``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from opentelemetry import context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets import Budget, Ledger
from tokenbudget_otel.meter import Charge, Reading, Request, Size, meter
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.settings import configure, option, use_ledger
from tokenbudget_otel.tags import checked_tags, current_tags, tag_process
from tokenbudget_otel.totals import Totals
from tokenbudget_otel.usage import TokenUsage

INSTRUMENTORS: Final = {
    "openai": ("tokenbudget_otel.instrumentation.openai", "OpenAIInstrumentor"),
    "anthropic": ("tokenbudget_otel.instrumentation.anthropic", "AnthropicInstrumentor"),
    "botocore": ("tokenbudget_otel.instrumentation.bedrock", "BedrockInstrumentor"),
    "mistralai": ("tokenbudget_otel.instrumentation.mistralai", "MistralAIInstrumentor"),
    "cohere": ("tokenbudget_otel.instrumentation.cohere", "CohereInstrumentor"),
    "groq": ("tokenbudget_otel.instrumentation.groq", "GroqInstrumentor"),
    "together": ("tokenbudget_otel.instrumentation.together", "TogetherInstrumentor"),
    "google.genai": ("tokenbudget_otel.instrumentation.google_genai", "GoogleGenAIInstrumentor"),
    "google.generativeai": (
        "tokenbudget_otel.instrumentation.google_generativeai",
        "GoogleGenerativeAIInstrumentor",
    ),
    "ollama": ("tokenbudget_otel.instrumentation.ollama", "OllamaInstrumentor"),
    "voyageai": ("tokenbudget_otel.instrumentation.voyageai", "VoyageAIInstrumentor"),
    "litellm": ("tokenbudget_otel.instrumentation.litellm", "LiteLLMInstrumentor"),
}
"""The instrumentor of each SDK, by the name under which the SDK is imported."""

_NAMESPACES: Final = frozenset(("mistralai",))
"""SDKs that are several distributions under one name, which is no module itself."""

_registered: dict[str, Any] = {}

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

    from tokenbudget_otel.instrumentation.provider import Provider
    from tokenbudget_otel.instrumentation.redaction import Redact

C = TypeVar("C")


def instrument(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    budgets: Iterable[Budget] = (),
    ledger: str | Ledger | None = None,
    config: str | os.PathLike[str] | None = None,
    tags: Mapping[str, object] | None = None,
    hosts: Mapping[str, str] | None = None,
    former_names: bool | None = None,
    stream_usage: bool | None = None,
    metric_names: str | None = None,
    metric_tags: Iterable[str] | None = None,
    processor: bool | None = None,
    logger_provider: LoggerProvider | None = None,
    capture_content: str | None = None,
    emit_event: bool | None = None,
    redact: Redact | None = None,
    content_max_bytes: int | None = None,
) -> None:
    """Meter every LLM SDK that is installed. Calling it again adds budgets and hosts, sets the options of
    content anew, and does nothing twice.

    Args:
        tracer_provider, meter_provider: where spans and metrics go; the global ones by default. Without an
            OpenTelemetry SDK nothing is exported, and metering and budgets work all the same.
        budgets: limits on what may be spent, in force from now on.
        ledger: where that is counted: ``"sqlite:budgets.db"`` for all processes of this machine,
            ``"redis://localhost"`` for several machines, or a ledger; in the memory of this process by default.
        config: a configuration file; by default one is looked for (docs/configuration.md).
        tags: of every call of this process, where :class:`tokenbudget_otel.tags` does not say otherwise; in the place
            of those that were given before.
        hosts: who answers at base URLs that are not known: ``{"llm.example.com/groq": "groq"}``.
        former_names: also set span attributes under the names of the previous conventions; as configured by default,
            or else not.
        stream_usage: whether streams are asked for their usage where the program does not ask itself; as configured
            by default, or else they are.
        metric_names: ``"current"``, ``"coming"`` or ``"both"`` (docs/attributes.md, Metrics); as configured by default,
            or else current.
        metric_tags: which tags become attributes of metrics, such as ``("tenant",)``; as configured by default, or
            else none.
        processor: whether spans that others make are priced as well: puts a
            :class:`~tokenbudget_otel.processor.TokenBudgetSpanProcessor` on the tracer provider, unless it has one.
            As configured by default, or else not. Under `opentelemetry-instrument` it is there already.
        logger_provider: where events go; the global one by default.
        capture_content: where prompts and answers are recorded: ``"none"``, ``"span"``, ``"event"`` or ``"both"``; what
            the environment says by default, and nothing where that says nothing (docs/content.md).
        emit_event: whether there is an event for each call; where content goes there, by default.
        redact: is asked of each text, and where it stands, before it is recorded; gives what is to be recorded, or
            ``None`` to drop it.
        content_max_bytes: of one attribute with content; 64 KiB by default, 0 for no limit.

    Raises:
        TypeError: for an option of content that cannot be meant.
        ValueError: for a budget or tag that cannot be meant, or two different budgets with the same name; for a
            configuration or a ledger that cannot be used; for metric names or tags that cannot be.

    >>> instrument(budgets=[Budget(limit_usd=50, window="month", per="tenant")])
    >>> uninstrument()
    >>> meter().enforcer.clear()
    """
    # Before anything is done: what cannot be meant is refused.
    if metric_names is not None or metric_tags is not None:
        metrics = importlib.import_module("tokenbudget_otel.instrumentation.metric_options")
        checked = metrics.metric_options(metric_names, metric_tags)
        metric_tags = None if metric_tags is None else checked.tags
    content: dict[str, Any] = {
        "capture_content": capture_content,
        "emit_event": emit_event,
        "redact": redact,
        "content_max_bytes": content_max_bytes,
    }
    content = {name: value for name, value in content.items() if value is not None}
    if content:
        importlib.import_module("tokenbudget_otel.instrumentation.capture").capture_of(content)
    for base_url, provider in (hosts or {}).items():
        importlib.import_module("tokenbudget_otel.instrumentation.hosts").map_host(base_url, provider)
    enforcer = meter().enforcer
    configure(enforcer, config)
    if tags is not None:
        tag_process(tags)
    if ledger is not None:
        use_ledger(enforcer, ledger)
    enforcer.add(*budgets)
    options: dict[str, Any] = {
        "tracer_provider": tracer_provider,
        "meter_provider": meter_provider,
        "logger_provider": logger_provider,
        "former_names": former_names,
        "metric_names": metric_names,
        "metric_tags": metric_tags,
        **content,
    }
    if stream_usage is not None:
        options["stream_usage"] = stream_usage
    for sdk in (*INSTRUMENTORS, *_registered):
        if not _installed(sdk):
            continue
        if not (instrumentor := _instrumentor(sdk)).is_instrumented_by_opentelemetry:
            instrumentor.instrument(**options)
        elif content:
            instrumentor.record(**content)
    if option("processor", False) if processor is None else processor:
        importlib.import_module("tokenbudget_otel.attached").attach(
            tracer_provider,
            meter_provider=meter_provider,
            former_names=former_names,
            metric_names=metric_names,
            metric_tags=metric_tags,
        )


def set_limit(
    scope: str | Mapping[str, str] | None = None,
    limit_usd: float | None = None,
    *,
    limit_tokens: int | None = None,
    limit_calls: int | None = None,
    window: str | None = None,
    budget: str | None = None,
) -> list[str]:
    """Give one scope of declared budgets limits of its own, from the next call on. In a ledger that is shared, that
    holds for every process; it stays until it is changed again.

    Args:
        scope: the value that is counted apart (``"acme"`` of a budget ``per="tenant"``), or several as a mapping;
            ``None`` for budgets that count all calls together.
        limit_usd, limit_tokens, limit_calls: those not given stay as declared. With none of them the scope goes back
            to the declared limits.
        window, budget: only for budgets with this window, or of this name.

    Returns:
        The names of the budgets that it was set for.

    Raises:
        ValueError: if no budget is counted so, or a limit cannot be.

    >>> instrument(budgets=[Budget(limit_usd=5, window="month", per="tenant")])
    >>> set_limit("acme", 50, window="month")
    ['usd/month per tenant']
    >>> uninstrument(); meter().enforcer.clear()
    """
    return meter().enforcer.set_limit(
        scope, limit_usd, limit_tokens=limit_tokens, limit_calls=limit_calls, window=window, budget=budget
    )


def uninstrument() -> None:
    """Take every instrumentor off again, and switch off the span processor that we put on. Budgets, totals and tags
    stay.

    >>> uninstrument()
    """
    if (attached := sys.modules.get("tokenbudget_otel.attached")) is not None:
        attached.detach()
    for sdk in (*INSTRUMENTORS, *_registered):
        if _installed(sdk) and (instrumentor := _instrumentor(sdk)).is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


def register_provider(provider: Provider) -> None:
    """Make a provider of your own known to :func:`instrument` and :func:`wrap`, before they are called.

    See :class:`tokenbudget_otel.instrumentation.provider.Provider` for how one is declared.

    Raises:
        ValueError: for an SDK that is known already.
    """
    if provider.sdk in INSTRUMENTORS:
        raise ValueError(f"{provider.sdk} has an instrumentor of its own: {INSTRUMENTORS[provider.sdk][1]}")
    known = _registered.get(provider.sdk)
    if known is not None and known.declared != provider:
        raise ValueError(f"{provider.sdk} is registered already, for {known.declared.name}")
    if known is None:
        _registered[provider.sdk] = provider.instrumentor()


def _instrumentor(sdk: str) -> Any:
    if sdk in _registered:
        return _registered[sdk]()
    module, name = INSTRUMENTORS[sdk]
    return getattr(importlib.import_module(module), name)()


def _installed(sdk: str) -> bool:
    if sdk in sys.modules:
        return True
    try:
        found = importlib.util.find_spec(sdk)
        # A folder of the program's own, of the same name, is found as a namespace.
        return found is not None and (found.origin is not None or sdk in _NAMESPACES)
    except (ImportError, ValueError):  # the package around it is not there, or is something else
        return False


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
    sdk = _sdk_of(client)
    if sdk is None:
        raise TypeError(
            f"tb.wrap knows clients of {', '.join((*INSTRUMENTORS, *_registered))}; {type(client)!r} is none of them"
        )
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


def _sdk_of(client: Any) -> str | None:
    """The SDK that a client is of: the most derived of its classes that comes from one."""
    for kind in type(client).__mro__:
        for sdk in (*INSTRUMENTORS, *_registered):
            if kind.__module__ == sdk or kind.__module__.startswith(sdk + "."):
                return sdk
    return None


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
