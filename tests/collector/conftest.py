"""A backend, and tracer providers that send to a Collector as programs do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from .programs import Collector
from .receiver import Receiver


@pytest.fixture
def backend() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def program_of() -> Iterator[Callable[[Collector], TracerProvider]]:
    """A tracer provider that sends each span to this Collector when it ends."""
    providers = []

    def make(collector: Collector) -> TracerProvider:
        provider = TracerProvider(resource=Resource({"service.name": "shop", "service.instance.id": "shop-1"}))
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.otlp_http}/v1/traces")))
        providers.append(provider)
        return provider

    yield make
    for provider in providers:
        provider.shutdown()
