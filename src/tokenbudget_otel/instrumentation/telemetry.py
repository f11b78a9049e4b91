"""The OpenTelemetry instruments that one instrumentor records to."""

from __future__ import annotations

from dataclasses import dataclass, field

from opentelemetry._logs import Logger, LoggerProvider, get_logger
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import Tracer, TracerProvider, get_tracer, get_tracer_provider

from tokenbudget_otel.instrumentation.call_metrics import CallMetrics
from tokenbudget_otel.instrumentation.capture import Capture, capture_of
from tokenbudget_otel.instrumentation.metric_options import MetricOptions, metric_options
from tokenbudget_otel.version import __version__

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"


@dataclass(slots=True)
class Telemetry:
    """Tracer and metric instruments, made once per instrumentor.

    Attributes:
        scope: the name of the instrumentation scope, such as ``tokenbudget_otel.instrumentation.openai``.
        metrics: what calls are recorded to.
        logger: where content events go.
        capture: whether and where content is captured; may be set anew (:meth:`SdkInstrumentor.record`).
        former_names: whether attributes are also set under the names of the previous conventions.
        sdk: the top name of the modules of the SDK.
        own_provider: the tracer provider that was given; ``None`` for the global one.
    """

    scope: str
    tracer: Tracer
    metrics: CallMetrics
    logger: Logger
    capture: Capture
    former_names: bool = False
    own_provider: TracerProvider | None = None
    sdk: str = field(init=False)

    def __post_init__(self) -> None:
        self.sdk = self.scope.rpartition("instrumentation.")[2].partition(".")[0]

    @property
    def tracer_provider(self) -> TracerProvider:
        """Where spans go."""
        return self.own_provider or get_tracer_provider()

    @classmethod
    def make(
        cls,
        scope: str,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        *,
        former_names: bool = False,
        metrics: MetricOptions | None = None,
        capture: Capture | None = None,
    ) -> Telemetry:
        """Instruments of the given providers, or of the global ones; ``metrics`` as the environment says by default."""
        meter = get_meter(scope, __version__, meter_provider, SCHEMA_URL)
        return cls(
            scope=scope,
            tracer=get_tracer(scope, __version__, tracer_provider, SCHEMA_URL),
            metrics=CallMetrics(meter, metric_options() if metrics is None else metrics),
            logger=get_logger(scope, __version__, logger_provider, SCHEMA_URL),
            capture=capture_of() if capture is None else capture,
            former_names=former_names,
            own_provider=tracer_provider,
        )
