"""Content of every surface: what was asked and what was answered, the same on the span and in the event."""

from __future__ import annotations

from typing import Any

import pytest
from contract import client_of, run
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from surface import ALL, Surface, installed

import content_shape
import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

SPEAKING = ("chat", "generate_content", "text_completion")
"""Operations that have content. Of what is embedded, ranked, painted or spoken none is recorded."""


def rows() -> Any:
    return pytest.mark.parametrize(
        ("surface", "kind"),
        [
            pytest.param(
                surface,
                kind,
                id=f"{surface}-{kind}",
                marks=pytest.mark.skipif(not installed(surface.sdk), reason=f"{surface.sdk} is not installed"),
            )
            for surface in ALL
            if surface.sdk != "miniature"  # declared by a test, without content
            for kind in ("call", "stream")
            if getattr(surface, kind)
        ],
    )


@rows()
async def test_content_of_every_surface(
    surface: Surface, kind: str, sim: Simulator, telemetry: Any, meter: Meter
) -> None:
    exporter = InMemoryLogRecordExporter()
    loggers = LoggerProvider()
    loggers.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    answer = surface.behaviour.get("text") or "A river."
    sim.then(Behaviour(**{**surface.behaviour, "text": answer}))
    tb.instrument(telemetry.tracer_provider, capture_content="both", logger_provider=loggers)
    try:
        async with client_of(surface, sim, "sync" if surface.modes.get("sync") is None else "async") as client:
            await run(surface, client, kind)
    finally:
        tb.uninstrument()
    span = telemetry.span()
    said = content_shape.of_span(span)
    records = [record.log_record for record in exporter.get_finished_logs()]
    if surface.operation not in SPEAKING:
        assert (said, records) == ({}, [])
        return
    assert content_shape.texts(said["gen_ai.input.messages"])
    assert answer in content_shape.texts(said["gen_ai.output.messages"])
    assert all(message["role"] == "assistant" for message in said["gen_ai.output.messages"])
    [record] = records
    assert content_shape.of_event(record) == said
    # Whatever else the span says, the event says too.
    rest = {name: value for name, value in record.attributes.items() if name not in content_shape.NAMES}
    assert rest == {name: value for name, value in span.attributes.items() if name not in content_shape.NAMES}
