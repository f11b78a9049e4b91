"""The OpenTelemetry instruments that one instrumentor records to."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry._logs import Logger, LoggerProvider, get_logger
from opentelemetry.metrics import Counter, Histogram, MeterProvider, get_meter
from opentelemetry.trace import Tracer, TracerProvider, get_tracer

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.capture import Capture, capture_of
from tokenbudget_otel.version import __version__

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"


@dataclass(slots=True)
class Telemetry:
    """Tracer and metric instruments, made once per instrumentor.

    Attributes:
        scope: the name of the instrumentation scope, such as ``tokenbudget_otel.instrumentation.openai``.
        logger: where content events go.
        capture: whether and where content is captured; may be set anew (:meth:`SdkInstrumentor.record`).
        former_names: whether attributes are also set under the names of the previous conventions.
    """

    scope: str
    tracer: Tracer
    duration: Histogram
    token_usage: Histogram
    time_to_first_chunk: Histogram
    cost: Counter
    refusals: Counter
    logger: Logger
    capture: Capture
    former_names: bool = False

    @classmethod
    def make(
        cls,
        scope: str,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        *,
        former_names: bool = False,
        capture: Capture | None = None,
    ) -> Telemetry:
        """Instruments of the given providers, or of the global ones."""
        meter = get_meter(scope, __version__, meter_provider, SCHEMA_URL)
        return cls(
            scope=scope,
            tracer=get_tracer(scope, __version__, tracer_provider, SCHEMA_URL),
            duration=meter.create_histogram(
                semconv.METRIC_DURATION,
                "s",
                "Duration of GenAI client operations.",
                explicit_bucket_boundaries_advisory=semconv.DURATION_BOUNDARIES,
            ),
            token_usage=meter.create_histogram(
                semconv.METRIC_TOKEN_USAGE,
                "{token}",
                "Tokens used by GenAI client operations.",
                explicit_bucket_boundaries_advisory=semconv.TOKEN_BOUNDARIES,
            ),
            time_to_first_chunk=meter.create_histogram(
                semconv.METRIC_TIME_TO_FIRST_CHUNK,
                "s",
                "Time to the first chunk of a streamed response.",
                explicit_bucket_boundaries_advisory=semconv.DURATION_BOUNDARIES,
            ),
            cost=meter.create_counter(
                semconv.METRIC_COST, "{USD}", "Known cost of GenAI client operations, in US dollars."
            ),
            refusals=meter.create_counter(semconv.METRIC_REFUSALS, "{call}", "Calls that a budget refused."),
            logger=get_logger(scope, __version__, logger_provider, SCHEMA_URL),
            capture=capture_of() if capture is None else capture,
            former_names=former_names,
        )
