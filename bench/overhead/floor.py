"""The floor: what a program does that makes its own span of a call, with 15 attributes, and records two histograms."""

from __future__ import annotations

from opentelemetry import trace

from clocks import clock
from telemetry import Telemetry
from workloads import Once, OnceAsync, Workload


class Floor:
    """Goes around one call, or the whole of a stream.

    ``spent`` is what it took itself, of streams: some ten microseconds are not to be seen in the difference of two
    streams of ten milliseconds each.
    """

    def __init__(self, workload: Workload, telemetry: Telemetry) -> None:
        self._tracer = telemetry.recording.get_tracer("floor")
        meter = telemetry.meters.get_meter("floor")
        self._duration = meter.create_histogram("floor.duration", unit="s")
        self._tokens = meter.create_histogram("floor.tokens", unit="{token}")
        self.spent = 0.0
        self._streamed = workload.streamed
        self._provider = workload.sdk
        self._operation = workload.operation
        self._model = workload.model
        self._name = f"{workload.operation} {workload.model}"
        self._address = f"api.{workload.sdk}.com"
        self._input, self._cached, self._output = workload.tokens

    def _asked(self) -> dict[str, object]:
        return {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": self._model,
            "server.address": self._address,
            "server.port": 443,
            "gen_ai.request.max_tokens": 400,
            "gen_ai.request.temperature": 0.5,
        }

    def _answered(self, first: float | None) -> dict[str, object]:
        answered: dict[str, object] = {
            "gen_ai.response.id": "chatcmpl-CbX2hYp1Tq9aVJf0mZ5RkLw7nE3sD",
            "gen_ai.response.model": self._model,
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.usage.input_tokens": self._input,
            "gen_ai.usage.output_tokens": self._output,
            "gen_ai.usage.cache_read.input_tokens": self._cached,
            "openai.response.service_tier": "default",
            "openai.response.system_fingerprint": "fp_b7faba9ef5",
        }
        if first is not None:
            answered["gen_ai.response.time_to_first_chunk"] = first
        return answered

    def _record(self, began: float) -> None:
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": self._model,
            "gen_ai.response.model": self._model,
            "server.address": self._address,
            "server.port": 443,
        }
        self._duration.record(clock() - began, attributes)
        self._tokens.record(self._input, {**attributes, "gen_ai.token.type": "input"})

    def around(self, once: Once) -> Once:
        """The call with the floor around it."""

        def floored(began: float) -> float | None:
            with self._tracer.start_as_current_span(
                self._name, kind=trace.SpanKind.CLIENT, attributes=self._asked()
            ) as span:
                first = once(began)
                span.set_attributes(self._answered(first))
            self._record(began)
            return first

        def streamed(began: float) -> float | None:
            start = clock()
            with self._tracer.start_as_current_span(
                self._name, kind=trace.SpanKind.CLIENT, attributes=self._asked()
            ) as span:
                passed_on = clock()
                first = once(began)
                back = clock()
                span.set_attributes(self._answered(first))
            self._record(began)
            self.spent += passed_on - start + clock() - back
            return first

        return streamed if self._streamed else floored

    def around_async(self, once: OnceAsync) -> OnceAsync:
        """The same of an async call."""

        async def floored(began: float) -> float | None:
            with self._tracer.start_as_current_span(
                self._name, kind=trace.SpanKind.CLIENT, attributes=self._asked()
            ) as span:
                first = await once(began)
                span.set_attributes(self._answered(first))
            self._record(began)
            return first

        async def streamed(began: float) -> float | None:
            start = clock()
            with self._tracer.start_as_current_span(
                self._name, kind=trace.SpanKind.CLIENT, attributes=self._asked()
            ) as span:
                passed_on = clock()
                first = await once(began)
                back = clock()
                span.set_attributes(self._answered(first))
            self._record(began)
            self.spent += passed_on - start + clock() - back
            return first

        return streamed if self._streamed else floored
