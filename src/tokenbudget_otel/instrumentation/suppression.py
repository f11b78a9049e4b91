"""The keys by which others ask that no span be made for a call, or say that they make one themselves."""

from __future__ import annotations

import sys
from typing import Final

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.peers import of_one_maker, scope_of
from tokenbudget_otel.scopes import detach

SUPPRESS_LANGUAGE_MODEL: Final = "suppress_language_model_instrumentation"
"""Set by OpenLLMetry's framework instrumentations (and Splunk's) around the calls that they trace."""

OFFICIAL_INFERENCE: Final = "opentelemetry.genai.client.inference.context"
"""Set by the official GenAI packages (opentelemetry-util-genai) inside a call of theirs."""

OFFICIAL_EMBEDDING: Final = "opentelemetry.genai.client.embedding.context"
OFFICIAL_FETCH_RESPONSE: Final = "opentelemetry.genai.client.fetch_response.context"
"""The same around embeddings, and around a look for a response. (Not around retrieval, which is no call itself.)"""

OPENLIT_CONTEXT_VARIABLE: Final = ("openlit.__helpers", "openlit_framework_llm_span_active")

OFFICIAL_KEYS: Final = (OFFICIAL_INFERENCE, OFFICIAL_EMBEDDING, OFFICIAL_FETCH_RESPONSE)

SILENCE: Final = (context_api._SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation")
"""What :func:`opentelemetry.instrumentation.utils.is_instrumentation_enabled` looks for."""

_CONTEXT_KEYS: Final = (SUPPRESS_LANGUAGE_MODEL, *OFFICIAL_KEYS)

_ANY_KEY: Final = frozenset((*SILENCE, *_CONTEXT_KEYS))
"""Most contexts have none of them."""


def suppressed(ctx: Context) -> bool:
    """Whether no span is to be made. Metering and budgets go on all the same."""
    if not _ANY_KEY.isdisjoint(ctx) and (not _enabled_in(ctx) or any(ctx.get(key) for key in _CONTEXT_KEYS)):
        return True
    # A context variable of a module that is only there if OpenLIT is; never imported by us.
    module = sys.modules.get(OPENLIT_CONTEXT_VARIABLE[0])
    variable = getattr(module, OPENLIT_CONTEXT_VARIABLE[1], None)
    return bool(variable is not None and variable.get(False))


def _enabled_in(ctx: Context) -> bool:
    if ctx is context_api.get_current():
        return is_instrumentation_enabled()
    token = context_api.attach(ctx)  # of whoever made the call, which may go out from another thread
    try:
        return is_instrumentation_enabled()
    finally:
        detach(token)


def span_of_this_call(ctx: Context, operation: str, model: str, maker: str | None = None) -> Span | None:
    """The span that somebody else has just made for this very call, if there is one.

    It is the current span, it records, no call has been charged to it yet, and it says that it is an inference of the
    same model, or is of the ``maker`` through whose function the call comes.
    """
    span = trace.get_current_span(ctx)
    if not span.is_recording():
        return None
    attributes = getattr(span, "attributes", None)
    if attributes is None or semconv.CALL_ID in attributes:
        return None
    if of_one_maker(maker, scope_of(span)):
        return span  # some say what it is of only when it ends
    named = attributes.get(semconv.OPERATION_NAME)
    is_inference = (
        named == operation
        or (named is not None and named in semconv.INFERENCE_OPERATIONS)
        or attributes.get("openinference.span.kind") in ("LLM", "EMBEDDING")
        or "llm.request.type" in attributes
    )
    if not is_inference:
        return None
    asked = attributes.get(semconv.REQUEST_MODEL) or attributes.get("llm.model_name")
    return span if asked is None or asked == model else None
