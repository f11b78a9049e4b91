"""The instrumentors: one class, its parts named by each provider file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, Final

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.metrics import MeterProvider
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from tokenbudget_otel.budget_metrics import observe
from tokenbudget_otel.instrumentation import deferred
from tokenbudget_otel.instrumentation.capture import OPTIONS as CONTENT_OPTIONS
from tokenbudget_otel.instrumentation.capture import capture_of
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.guard import log_once, logger
from tokenbudget_otel.instrumentation.metric_options import metric_options
from tokenbudget_otel.instrumentation.redaction import redaction_named
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, meter
from tokenbudget_otel.settings import configure, option

DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"

EVERYTHING: Final = "tokenbudget"
"""The entry point that stands for all of ours: where it is switched off, so are those of the SDKs."""


class Doors(Door):
    """Several doors of one SDK, put up and taken off together. The first is the SDK's own; where another one does not
    fit the SDK that is installed, the others stand."""

    def __init__(self, first: Door, *others: Door) -> None:
        super().__init__(first.telemetry, first.meter)
        self.doors = (first, *others)
        for door in self.doors:
            door.together = self

    def install(self, sdk: Any) -> None:
        first, *others = self.doors
        first.install(sdk)
        for door in others:
            try:
                door.install(sdk)
            except Exception as error:
                door.unhook()
                log_once(f"instrument {type(door).__name__}", error)

    def wrap(self, client: Any) -> None:
        first, *others = self.doors
        first.wrap(client)
        for door in others:
            try:
                door.wrap(client)
            except Exception as error:
                log_once(f"wrap {type(door).__name__}", error)

    def unhook(self) -> None:
        self._open = False
        for door in reversed(self.doors):
            door.unhook()


def is_disabled(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether auto-instrumentation is told to leave all of ours off."""
    return not {EVERYTHING, "*"}.isdisjoint(name.strip() for name in environ.get(DISABLED, "").split(","))


def counting(meter_provider: MeterProvider | None = None, *, lenient: bool = False) -> Meter:
    """The meter of this process: what is configured of budgets is in force, and shown as metrics.

    Args:
        meter_provider: where the metrics go; the global one by default.
        lenient: whether a configuration that cannot be meant is logged, and nothing of it in force.

    Raises:
        ValueError: for such a configuration otherwise.
    """
    process = meter()
    try:
        configure(process.enforcer)
    except Exception as error:
        if not lenient:
            raise
        tell_refused(error)
    process.prices.load()  # not on the first call's time
    observe(process.enforcer, meter_provider)
    deferred.at_exit(_flush_budgets)
    return process


def tell_refused(error: Exception) -> None:
    """Log that a configuration is not in force, where nothing may be raised for it. Each once."""
    text = str(error) or repr(error)
    if text not in _refused:
        _refused.add(text)
        end = "" if text.endswith((".", "?")) else "."
        logger.error("%s%s Calls are metered, but this configuration is not in force.", text, end)


def _flush_budgets() -> None:
    """Streams that were ended when the program ended have been settled by now: let budgets and alerts hear of it."""
    meter().enforcer.flush()


def _content(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of content: as given, or as configured for the process, where a hook is named and not given."""
    configured = {name: option(name, None) for name in CONTENT_OPTIONS}
    if configured["redact"] is not None:
        configured["redact"] = redaction_named(configured["redact"])
    return configured | {name: given[name] for name in CONTENT_OPTIONS if given.get(name) is not None}


@dataclass(init=False)
class SdkOptions:
    """What may stand in the section of one SDK in a file of OpenTelemetry's declarative configuration.

    Raises:
        ValueError: for an option that is not known, or cannot be meant.

    >>> SdkOptions(former_names=True).former_names
    True
    """

    former_names: bool | None = None
    stream_usage: bool | None = None
    metric_names: str | None = None
    metric_tags: tuple[str, ...] | None = None
    capture_content: str | None = None
    emit_event: bool | None = None
    redact: str | None = None
    content_max_bytes: int | None = None

    def __init__(self, **options: object) -> None:
        from tokenbudget_otel.budgets.config import OPTIONS, refuse_unknown

        refuse_unknown("options of an instrumentor", options, tuple(type(self).__annotations__))
        for name, value in options.items():
            setattr(self, name, OPTIONS[name](name, value))


class SdkInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Puts a door before one SDK. One instance a class, as with every ``BaseInstrumentor``.

    Subclasses name the SDK and make the door. An SDK of a version that is not known is instrumented all the same, as
    far as it is like the known ones, after one warning.
    """

    sdk: ClassVar[str]
    """The name under which the SDK is imported: ``openai``, ``google.genai``."""

    distribution: ClassVar[str | None] = None
    """The name under which it is installed, where that is another one."""

    modules: ClassVar[tuple[str, ...]] = ()
    """The modules whose import puts the door up, where that is not the SDK's top module: ``install`` gets each."""

    versions: ClassVar[str]
    """The versions that are known to work, as a requirement: ``>=2,<4``."""

    configuration: ClassVar[type] = SdkOptions
    """What OpenTelemetry's declarative configuration checks options with."""

    _door: Door | None = None
    _given: Mapping[str, Any] = {}
    _content: Mapping[str, Any] = MappingProxyType({})

    def instrumentation_dependencies(self) -> Collection[str]:
        """The SDK and its versions, as a requirement."""
        return (f"{self.distribution or self.sdk} {self.versions}",)

    def instrument(self, **kwargs: Any) -> Any:
        """Put the door up. Takes the options of the class; ``metric_names``, ``metric_tags``, ``logger_provider`` and
        those of content as :func:`tokenbudget_otel.instrument`.

        With ``skip_dep_check``, as `opentelemetry-instrument` calls it, nothing is raised, for that would stop all
        instrumentations that come after it. A version that is not known is warned of, not refused, in any case.
        """
        if not kwargs.pop("skip_dep_check", False):
            return super().instrument(**kwargs, skip_dep_check=True)
        if is_disabled() or self.is_instrumented_by_opentelemetry:
            return None
        try:
            return super().instrument(**{**kwargs, "skip_dep_check": True, "lenient": True})
        except Exception as error:
            log_once(f"instrument {self.sdk}", error)

    def instrument_again(self) -> None:
        """Take the options of the process as they are by now, and leave those that were given as they are."""
        if self.is_instrumented_by_opentelemetry:
            given = self._given
            self.uninstrument()
            self.instrument(**given)

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        raise NotImplementedError

    def door(self, **options: Any) -> Door:
        """A door with the given options, not yet put anywhere: for one client only.

        Raises:
            TypeError, ValueError: for a configuration of budgets that cannot be meant, and for options of metrics
                (``metric_names``, ``metric_tags``) and of content
                (:func:`tokenbudget_otel.instrumentation.capture.capture_of`) that cannot be.
        """
        counted = options.get("meter")
        if counted is None:
            counted = counting(options.get("meter_provider"), lenient=bool(options.get("lenient", False)))

        def said(name: str, default: Any = None) -> Any:
            given = options.get(name)
            return option(name, default) if given is None else given

        telemetry = Telemetry.make(
            f"tokenbudget_otel.instrumentation.{self.sdk}",
            options.get("tracer_provider"),
            options.get("meter_provider"),
            options.get("logger_provider"),
            former_names=bool(said("former_names", False)),
            metrics=metric_options(said("metric_names"), said("metric_tags")),
            capture=capture_of(_content(options)),
        )
        return self._make_door(telemetry, counted, options)

    def record(self, **options: Any) -> None:
        """Have content recorded otherwise from now on; what is not given stays as it was. For programs that say so
        after something else (``opentelemetry-instrument``) has put the door up.

        Raises:
            TypeError, ValueError: as :func:`tokenbudget_otel.instrumentation.capture.capture_of`.
        """
        if self._door is not None:
            content = {**self._content, **options}
            self._door.telemetry.capture = capture_of(_content(content))
            self._content = content

    def _instrument(self, **kwargs: Any) -> None:
        self._given = kwargs
        door = self._door = self.door(**kwargs)
        self._content = {name: kwargs[name] for name in CONTENT_OPTIONS if kwargs.get(name) is not None}
        # An SDK that the program has not imported yet is met when it does, not imported for its sake.
        for module in self.modules or (self.sdk,):
            wrapt.register_post_import_hook(lambda sdk: self._put(door, sdk), module)

    def _put(self, door: Door, sdk: ModuleType) -> None:
        if self._door is not door:
            return  # uninstrumented before the SDK was imported
        self.check_version()
        try:
            door.install(sdk)
        except Exception as error:
            door.unhook()
            log_once(f"instrument {self.sdk}", error)

    def check_version(self) -> None:
        """Warn, once, of an SDK that is older or newer than what is known to work."""
        name = self.distribution or self.sdk
        try:
            installed = metadata.version(name)
            known = not self.versions or SpecifierSet(self.versions).contains(Version(installed), prereleases=True)
        except (metadata.PackageNotFoundError, InvalidVersion):
            return  # vendored, or built from somewhere: there is nothing to compare
        if not known and (name, installed) not in _warned:
            _warned.add((name, installed))
            logger.warning(
                "tokenbudget-otel knows %s %s; %s is installed. It is instrumented as far as it is like those: check "
                "the counts, or install a version in that range.",
                name,
                self.versions.replace(" ", ""),
                installed,
            )

    def _uninstrument(self, **_kwargs: Any) -> None:
        if self._door is not None:
            self._door.unhook()
            self._door = None


_warned: set[tuple[str, str]] = set()
_refused: set[str] = set()
