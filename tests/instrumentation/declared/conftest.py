"""A provider that is declared, and metered."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import acme_llm
import pytest

import tokenbudget_otel as tb
from tokenbudget_otel import api
from tokenbudget_otel.instrumentation.provider import Method, Provider

NAMES = ("complete", "twice", "lazy", "events", "managed", "of_class", "of_nobody", "later", "task")


def acme(**fields: Any) -> Provider:
    """The declaration, with some of it said otherwise."""
    method = fields.pop("method", {})
    targets = fields.pop(
        "targets", (*(f"{kind}.{name}" for kind in ("Client", "AsyncClient") for name in NAMES), "ask", "aask")
    )
    declared: dict[str, Any] = {
        "name": "acme",
        "sdk": "acme_llm",
        "url": "url",
        "methods": Method(
            *targets,
            **{
                "input": "prompt",
                "usage": {"input_tokens": "usage.prompt", "output_tokens": "usage.completion"},
                "text": "delta",
                "ends": "end",
                **method,
            },
        ),
    }
    return Provider(**(declared | fields))


Declare = Callable[..., Any]


@pytest.fixture
def declare(telemetry: Any, meter: Any) -> Iterator[Declare]:
    """Registers the declaration, and instruments the SDK."""
    acme_llm.sent.clear()
    api._registered.pop("acme_llm", None)

    def instrument(**fields: Any) -> Any:
        tb.register_provider(acme(**fields))
        tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        return telemetry

    yield instrument
    tb.uninstrument()
    api._registered.pop("acme_llm", None)
    assert sys.modules["acme_llm"] is acme_llm


@pytest.fixture
def metered(declare: Declare) -> Any:
    """The SDK, metered as it is declared above."""
    return declare()
