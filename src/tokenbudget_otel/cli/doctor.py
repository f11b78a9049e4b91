"""`tokenbudget doctor`: what is installed here, what would count twice, and what needs attention."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Final

import click

from tokenbudget_otel.cli.doctor_backend import VARIABLES as BACKEND
from tokenbudget_otel.cli.doctor_backend import backend, shown
from tokenbudget_otel.cli.doctor_reach import reach
from tokenbudget_otel.cli.doctor_where import where_it_runs
from tokenbudget_otel.cli.doctor_zero_code import zero_code
from tokenbudget_otel.cli.findings import DISABLED, Finding, Level, disabled, version_of

_ATTENTION: Final = {"ok": "  ", "note": "- ", "attention": "! "}
_COLOURS: Final = {"ok": None, "note": "cyan", "attention": "yellow"}

OPENTELEMETRY: Final = (
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-distro",
)

_OPENLLMETRY: Final = (
    *("openai", "anthropic", "bedrock", "cohere", "google-generativeai", "groq", "litellm", "mistralai", "ollama"),
    *("together", "voyageai"),
)
_OPENINFERENCE: Final = (
    *("openai", "anthropic", "bedrock", "cohere", "google-genai", "groq", "litellm", "mistralai", "ollama", "together"),
)

PEERS: Final[Mapping[str, tuple[str, Level]]] = {
    "opentelemetry-instrumentation-genai-openai": ("openai", "note"),
    "opentelemetry-instrumentation-genai-anthropic": ("anthropic", "note"),
    "opentelemetry-instrumentation-openai-v2": ("openai", "attention"),
    "opentelemetry-instrumentation-google-genai": ("google-genai", "attention"),
    "opentelemetry-instrumentation-genai-bedrock": ("bedrock", "attention"),
    **{f"opentelemetry-instrumentation-{sdk}": (sdk, "attention") for sdk in _OPENLLMETRY},
    **{f"openinference-instrumentation-{sdk}": (sdk, "attention") for sdk in _OPENINFERENCE},
    "openlit": ("openai and anthropic", "attention"),
    "logfire": ("openai and anthropic", "attention"),
    "langfuse": ("openai", "attention"),
}
"""Other people's instrumentations, what they trace, and how much that matters: the spans of the official ones
are recognised and get the cost, so that a call has one span."""

_PEER_TEXT: Final[Mapping[Level, str]] = {
    "note": "also traces {what}: where it is switched on, its span of a call gets the cost, and there is no second one",
    "attention": "also traces {what}: where it is switched on, a call may have two spans, and a backend that adds up "
    "spans counts it twice",
}

_SELF_TRACING_SINCE: Final = (1, 14)
"""The anthropic SDK traces itself from this version on."""

OURS: Final[Mapping[str, Callable[[str], object]]] = {
    "TOKENBUDGET_RUN": str,
    "TOKENBUDGET_HOSTS": lambda value: [part.strip().rindex("=") for part in value.split(",") if part.strip()],
    "TOKENBUDGET_STREAM_USAGE": lambda value: _one_of(value, ("true", "1", "yes", "on", "false", "0", "no", "off")),
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": lambda value: _one_of(
        value, ("no_content", "span_only", "event_only", "span_and_event", "true", "false")
    ),
    "OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT": lambda value: _one_of(value, ("true", "false")),
    "TOKENBUDGET_CONTENT_MAX_BYTES": lambda value: _bytes(value),
    "TOKENBUDGET_REDACT": lambda value: _hook(value),
    "TOKENBUDGET_WHERE_TIMEOUT": lambda value: _where_timeout(value),
    **BACKEND,
    # Together they are a configuration, which is read as a whole: see _configuration.
    **{
        f"TOKENBUDGET_{name}": str
        for name in (
            *("CONFIG", "LEDGER", "DRY_RUN", "LIMIT_USD", "LIMIT_TOKENS", "LIMIT_CALLS"),
            *("WINDOW", "PER", "TIMEZONE", "ACTION", "MODE"),
            *("TAGS", "FORMER_NAMES", "PROCESSOR", "SPAN_TAGS"),
        )
    },
}
"""Environment variables that we read, and what checks each."""


@click.command("doctor", short_help="What is installed here, and what needs attention.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Look at this installation: SDKs, instrumentations, the exporter, prices.

    Exits with 1 if something needs attention. Nothing is changed, and no data is sent.
    """
    findings = [finding for section in SECTIONS for finding in section()]
    wrong = [finding for finding in findings if finding.level == "attention"]
    if as_json:
        click.echo(json.dumps({"ok": not wrong, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _show(findings)
        click.echo()
        click.echo(f"{len(wrong)} to attend to (marked with !)." if wrong else "Nothing needs attention.")
    sys.exit(1 if wrong else 0)


def _show(findings: list[Finding]) -> None:
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        line = f"{_ATTENTION[finding.level]}{finding.subject:<{width}}  {finding.text}"
        click.secho(line, fg=_COLOURS[finding.level])
        if finding.remedy:
            click.echo(f"  {'':<{width}}  -> {finding.remedy}")


def _versions() -> Iterator[Finding]:
    from tokenbudget_otel.version import __version__

    yield Finding("ok", "tokenbudget-otel", __version__)
    yield Finding("ok", "python", f"{platform.python_version()} ({sys.executable})")
    for name in OPENTELEMETRY:
        if version := version_of(name):
            yield Finding("ok", name, version)
        elif name != "opentelemetry-distro":
            yield Finding("attention", name, "is not installed", f"pip install {name}")
        else:
            yield Finding(
                "note", name, "is not installed", "`tokenbudget run` needs it to export spans; counting does not"
            )


def _sdks() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    from tokenbudget_otel.api import INSTRUMENTORS, _instrumentor

    registered = {point.value for point in metadata.entry_points(group="opentelemetry_instrumentor")}
    absent = []
    for sdk, (module, name) in INSTRUMENTORS.items():
        (wanted,) = (Requirement(each) for each in _instrumentor(sdk).instrumentation_dependencies())
        version = version_of(wanted.name)
        if version is None:
            absent.append(wanted.name)
        elif wanted.specifier.contains(version, prereleases=True):
            yield Finding("ok", wanted.name, f"{version}, is metered")
        else:
            yield Finding(
                "attention",
                wanted.name,
                f"{version} is not known: it is metered as far as it is like {wanted.specifier}",
                f"check the counts, or install one of {wanted.specifier}",
            )
        if version is not None and f"{module}:{name}" not in registered:
            yield Finding(
                "attention",
                wanted.name,
                "is not registered with OpenTelemetry's auto-instrumentation",
                "install tokenbudget-otel again: pip install --force-reinstall --no-deps tokenbudget-otel",
            )
    if absent:
        yield Finding("note", "other SDKs", f"not installed, would be metered: {', '.join(absent)}")


def _peers() -> Iterator[Finding]:
    off = disabled()
    for name, (what, level) in PEERS.items():
        version = version_of(name)
        if version is None:
            continue
        loaded_as = [
            point.name
            for point in metadata.distribution(name).entry_points
            if point.group == "opentelemetry_instrumentor"
        ]
        if loaded_as and (off.issuperset(loaded_as) or "*" in off):
            yield Finding("ok", name, f"{version}, switched off by {DISABLED}")
            continue
        switch = f"{DISABLED}={','.join(loaded_as)}" if loaded_as else "its own switch"
        yield Finding(
            level,
            name,
            f"{version} {_PEER_TEXT[level].format(what=what)}",
            f"to have it off: {switch}, or uninstall it. What tokenbudget counts and caps is right either way",
        )
    version = version_of("anthropic")
    silent = os.environ.get("ANTHROPIC_OPEN_TELEMETRY", "").strip().lower() in ("false", "0", "no", "off")
    if version is not None and _numbers(version) >= _SELF_TRACING_SINCE and not silent:
        yield Finding(
            "note",
            "anthropic's own tracing",
            "is on where a global TracerProvider is set",
            "calls are still counted once; ANTHROPIC_OPEN_TELEMETRY=false leaves the span to tokenbudget",
        )


def _exporter() -> Iterator[Finding]:
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    found = {name: value for name in names if (value := os.environ.get(name, "").strip())}
    if not found:
        yield Finding("note", "exporter", "no OTEL_EXPORTER_OTLP_ENDPOINT is set; counting does not need one")
    for name, endpoint in found.items():
        yield reach(name, endpoint)


def _sampling() -> Iterator[Finding]:
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "").strip()
    if not sampler:
        return
    ratio = os.environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    text = f"{sampler}{f' ({ratio})' if ratio else ''}"
    if sampler.endswith("traceidratio"):
        try:
            share = float(ratio or "1")
        except ValueError:
            yield Finding(
                "attention", "OTEL_TRACES_SAMPLER_ARG", f"{ratio!r} is not a number", "set a ratio from 0 to 1"
            )
            return
        if not 0 <= share <= 1:
            yield Finding("attention", "OTEL_TRACES_SAMPLER_ARG", f"{ratio} is not a ratio", "set one from 0 to 1")
            return
        if share == 1:
            yield Finding("ok", "sampling", text)
            return
    elif not sampler.endswith("always_off"):
        yield Finding("ok", "sampling", text)
        return
    yield Finding(
        "note",
        "sampling",
        f"{text}: only some traces are exported, and costs added up from spans are too low",
        "read costs from the metric gen_ai.client.operation.cost, or from tokenbudget: both count every call",
    )


def _prices() -> Iterator[Finding]:
    from tokenbudget_otel.pricing import price_book

    book = price_book()
    for source in book.sources:
        if source.date is None:
            continue
        age = (datetime.now(UTC).date() - datetime.fromisoformat(source.date).date()).days
        text = f"{source.name} {source.version}, read on {source.date} ({age} days ago)"
        if book.stale_after_days is not None and age > book.stale_after_days:
            yield Finding("attention", "prices", text, "update: pip install --upgrade tokenbudget-otel")
        else:
            yield Finding("ok", "prices", text)


def _configuration() -> Iterator[Finding]:
    from tokenbudget_otel.budgets.config import load
    from tokenbudget_otel.budgets.ledgers.addresses import without_password

    try:
        config = load()
    except ValueError as error:
        yield Finding("attention", "budgets", str(error))
        return
    if config.source:
        counted = f", counted in {without_password(config.ledger)}" if config.ledger else ""
        yield Finding("ok", "budgets", f"{len(config.budgets)} from {config.source}{counted}")
    if config.tags:
        yield Finding("ok", "tags", ", ".join(f"{name}={value}" for name, value in config.tags.items()))


def _variables() -> Iterator[Finding]:
    from tokenbudget_otel.budgets.ledgers.addresses import without_password

    for name, value in sorted(os.environ.items()):
        if name not in OURS and not name.startswith("TOKENBUDGET_"):
            continue
        read = OURS.get(name)
        if read is None:
            yield Finding("attention", name, "is not a variable that tokenbudget reads", f"known: {', '.join(OURS)}")
            continue
        try:
            read(value)
        except (TypeError, ValueError) as error:
            told = str(error) if name in BACKEND else f"{value!r} cannot be read: {error}"
            yield Finding("attention", name, told)
        else:
            yield Finding("ok", name, shown(name, value) if name in BACKEND else without_password(value))


SECTIONS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    _versions,
    _sdks,
    zero_code,
    _peers,
    _exporter,
    backend,
    _sampling,
    where_it_runs,
    _prices,
    _configuration,
    _variables,
)
"""What is looked at, in this order."""


def _bytes(value: str) -> None:
    from tokenbudget_otel.instrumentation.capture import read_max_bytes

    read_max_bytes(value)


def _where_timeout(value: str) -> None:
    from tokenbudget_otel.export.where.detection import read_seconds

    read_seconds(value)


def _hook(value: str) -> None:
    """Whether it names a function. That is not imported here: it is the program's, and stands where that runs."""
    if not all(value.partition(":")[::2]):
        raise ValueError("it is not like 'package.module:function'")


def _one_of(value: str, known: tuple[str, ...]) -> None:
    if value.strip().lower() not in known:
        raise ValueError(f"it is none of {', '.join(known)}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
