"""The instrumentors: one class, its parts named by each provider file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import metadata
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from tokenbudget_otel.budget_metrics import observe
from tokenbudget_otel.instrumentation import deferred
from tokenbudget_otel.instrumentation.capture import OPTIONS, capture_of
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.guard import log_once, logger
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, meter
from tokenbudget_otel.settings import configure


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


def _flush_budgets() -> None:
    """Streams that were ended when the program ended have been settled by now: let budgets and alerts hear of it."""
    meter().enforcer.flush()


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

    _door: Door | None = None
    _content: Mapping[str, Any] = MappingProxyType({})

    def instrumentation_dependencies(self) -> Collection[str]:
        """The SDK and its versions, as a requirement."""
        return (f"{self.distribution or self.sdk} {self.versions}",)

    def instrument(self, **kwargs: Any) -> Any:
        """Put the door up. Takes the options of the class, ``logger_provider`` and those of content
        (:func:`tokenbudget_otel.instrumentation.capture.capture_of`), and ``skip_dep_check`` for likeness with others:
        a version that is not known is warned of, not refused."""
        return super().instrument(**{**kwargs, "skip_dep_check": True})

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        raise NotImplementedError

    def door(self, **options: Any) -> Door:
        """A door with the given options, not yet put anywhere: for one client only.

        Raises:
            TypeError, ValueError: for an option (:func:`tokenbudget_otel.instrumentation.capture.capture_of` has those
                of content) or a configuration of budgets that cannot be meant.
        """
        telemetry = Telemetry.make(
            f"tokenbudget_otel.instrumentation.{self.sdk}",
            options.get("tracer_provider"),
            options.get("meter_provider"),
            options.get("logger_provider"),
            former_names=bool(options.get("former_names", False)),
            capture=capture_of(options),
        )
        counting = options.get("meter")
        if counting is None:
            counting = meter()
            configure(counting.enforcer)
            observe(counting.enforcer, options.get("meter_provider"))
            deferred.at_exit(_flush_budgets)
        return self._make_door(telemetry, counting, options)

    def record(self, **options: Any) -> None:
        """Have content recorded otherwise from now on; what is not given stays as it was. For programs that say so
        after something else (``opentelemetry-instrument``) has put the door up.

        Raises:
            TypeError, ValueError: as :func:`tokenbudget_otel.instrumentation.capture.capture_of`.
        """
        if self._door is not None:
            content = {**self._content, **options}
            self._door.telemetry.capture = capture_of(content)
            self._content = content

    def _instrument(self, **kwargs: Any) -> None:
        door = self._door = self.door(**kwargs)
        self._content = {name: kwargs[name] for name in OPTIONS if kwargs.get(name) is not None}
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
