"""Who else makes a span for a call: the instrumentors of others, found where they stand around it."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Final

from opentelemetry.trace import Span

from tokenbudget_otel.instrumentation.guard import tell_once

PEERS: Final = (
    "openinference.instrumentation.",
    "openlit.instrumentation.",
    "logfire._internal.integrations.",
    "langfuse.openai",
    "opentelemetry.util.genai.",
    *(
        f"opentelemetry.instrumentation.{name}."
        for name in (
            "genai", "anthropic", "bedrock", "cohere", "google_genai", "google_generativeai", "groq", "mistralai",
            "ollama", "openai", "openai_v2", "together", "vertexai", "voyageai",
        )
    ),
)  # fmt: skip
"""Modules whose functions stand around a call that they make a span for: the official packages, OpenLLMetry (both
under ``opentelemetry.instrumentation``), OpenInference, OpenLIT, logfire and langfuse."""

_BETWEEN: Final = frozenset(("tokenbudget_otel", "wrapt", "functools", "contextlib", "botocore", "aiobotocore"))
"""What stands between a door and a peer's function, besides the SDK's own code."""

MAX_FRAMES: Final = 48

MAX_MODULES: Final = 4_096
"""Modules whose kind is remembered. Programs that make modules up as they go begin anew."""


def around_this_call(sdk: str) -> str | None:
    """The module of the instrumentor whose function the call comes through, if there is one.

    The stack is looked up from here through the SDK's own code to the first that is neither: that is the program, or
    a library that calls the SDK. So it does not matter how, when and on which object or class the other one was
    installed. An SDK has a handful of frames, at some 50 ns each.

    Args:
        sdk: the top name of the SDK's modules.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(MAX_FRAMES):
        if frame is None:
            return None
        module = frame.f_globals.get("__name__", "")
        kind = _kinds.get(module)
        if kind is None:
            kind = _kind_of(module)
        if kind is not _PASSED and kind != sdk:
            return str(module) if kind is _PEER else None
        frame = frame.f_back
    return None


_PASSED: Final = "passed"
_PEER: Final = "a peer"

_kinds: Final[dict[Any, str]] = {}
"""What stands on the stack, by the name of its module: a peer, something to be passed, or else its top name."""


def _kind_of(module: Any) -> str:
    name = str(module)
    top = name.partition(".")[0]
    # OpenTelemetry's own helpers stand between the parts of an instrumentor.
    kind = _PEER if is_peer(name) else _PASSED if top in _BETWEEN or top == "opentelemetry" else top
    if len(_kinds) >= MAX_MODULES:
        _kinds.clear()
    if isinstance(module, str):
        _kinds[module] = kind
    return kind


def is_peer(module: str) -> bool:
    """Whether a module is of an instrumentor that makes spans for LLM calls.

    >>> is_peer("opentelemetry.instrumentation.openai.v1.responses_wrappers"), is_peer("opentelemetry.trace")
    (True, False)
    """
    return f"{module}.".startswith(PEERS)


def of_one_maker(module: str | None, scope: str | None) -> bool:
    """Whether the instrumentor whose function is in ``module`` makes the spans of ``scope``.

    >>> of_one_maker("openlit.instrumentation.openai.openai", "openlit.instrumentation.openai")
    True
    >>> of_one_maker("logfire._internal.integrations.llm_providers.llm_provider", "logfire.openai")
    True
    >>> of_one_maker("opentelemetry.instrumentation.openai.shared", "opentelemetry.instrumentation.langchain")
    False
    """
    if not module or not scope:
        return False
    theirs, its = module.split("."), scope.replace("-", ".").split(".")
    if theirs[0] in ("logfire", "langfuse"):
        return theirs[0] == its[0]
    if theirs[:3] == ["opentelemetry", "util", "genai"]:
        return its[:3] == ["opentelemetry", "instrumentation", "genai"]
    return theirs[:3] == its[:3]


def scope_of(span: Span) -> str:
    """The name of the scope that made a span; empty where it does not say."""
    return getattr(getattr(span, "instrumentation_scope", None), "name", None) or ""


def say_whose_span(maker: str) -> None:
    """Say, once for each, that the spans of calls are somebody else's."""
    maker = ".".join(maker.partition("._")[0].split(".")[:4])
    tell_once(
        f"spans by {maker}",
        "%s makes the spans of these calls. tokenbudget-otel adds the cost to them and makes none of its own; metering "
        "and budgets go on as they are.",
        maker,
    )
