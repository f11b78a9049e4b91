"""The part of `tokenbudget doctor` that says what `opentelemetry-instrument` would do here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from tokenbudget_otel.cli.findings import DISABLED, Finding, disabled, version_of

_EXPORTERS: Final = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")


def zero_code() -> Iterator[Finding]:
    """What `opentelemetry-instrument` would do here."""
    from tokenbudget_otel.instrumentation.instrumentor import EVERYTHING, is_disabled

    ours = {
        point.name
        for point in metadata.entry_points(group="opentelemetry_instrumentor")
        if point.module.startswith("tokenbudget_otel.")
    }
    named = disabled()
    off = sorted(ours & named)
    for name in sorted(name for name in named - ours if name.startswith(EVERYTHING) and ours):
        yield Finding(
            "attention", DISABLED, f"{name!r} is not the name of anything", f"known are {', '.join(sorted(ours))}"
        )
    if is_disabled():
        yield Finding("note", "zero code", f"{DISABLED} has all of ours left off", f"take {EVERYTHING} and * out of it")
        return
    if EVERYTHING not in ours:
        yield Finding(
            "attention",
            "zero code",
            f"the entry point {EVERYTHING} is not registered: configuration and span processor are left out",
            "install tokenbudget-otel again: pip install --force-reinstall --no-deps tokenbudget-otel",
        )
        return
    left_off = f"; {DISABLED} has {', '.join(off)} left off" if off else ""
    if _option("processor", True):
        where = "on the tracer provider" if _configurators() else "on the tracer provider that the program sets"
        text = f"opentelemetry-instrument meters these SDKs, and puts the span processor {where}"
    else:
        text = "opentelemetry-instrument meters these SDKs; the span processor is switched off"
    yield Finding("ok", "zero code", text + left_off)
    yield from _initialised()


def _initialised() -> Iterator[Finding]:
    """What would keep OpenTelemetry from starting: then it loads no instrumentation at all."""
    if file := os.environ.get("OTEL_CONFIG_FILE", "").strip():
        if not Path(file).is_file():
            yield Finding("attention", "OTEL_CONFIG_FILE", f"there is no file {file}")
        elif not version_of("opentelemetry-configuration"):
            yield Finding(
                "attention",
                "OTEL_CONFIG_FILE",
                "cannot be read, and nothing is instrumented then",
                "pip install opentelemetry-configuration",
            )
        else:
            yield Finding("ok", "OTEL_CONFIG_FILE", f"{file}; other OTEL_ variables do not count then")
        return
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower()
    if disabled == "true":
        yield Finding(
            "note", "OTEL_SDK_DISABLED", "true: nothing is exported; calls are counted and capped all the same"
        )
    elif disabled not in ("", "false"):
        yield Finding("attention", "OTEL_SDK_DISABLED", f"{disabled!r} is taken to be false", "set true or false")
    exporters = (os.environ.get(name, "").strip() or "otlp" for name in _EXPORTERS)
    if _configurators() and "otlp" in exporters:
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or "grpc"
        if protocol == "grpc" and not version_of("opentelemetry-exporter-otlp-proto-grpc"):
            wanted = any(name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ)
            yield Finding(
                "attention" if wanted else "note",
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "opentelemetry-instrument exports by grpc unless it is told otherwise; without "
                "opentelemetry-exporter-otlp-proto-grpc it starts nothing, our instrumentors neither",
                "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (and its port, usually 4318), or install that package",
            )


def _configurators() -> bool:
    return bool(metadata.entry_points(group="opentelemetry_configurator"))


def _option(name: str, default: object) -> object:
    """What is configured of an option; a configuration that cannot be read is told elsewhere."""
    from tokenbudget_otel.budgets.config import load

    try:
        return load().options.get(name, default)
    except ValueError:
        return default
