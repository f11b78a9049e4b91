"""The instrumentors of Stainless SDKs: one class, its parts named by each provider file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any, ClassVar

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.stainless import StainlessDoor
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, meter


class StainlessInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Puts a door before the clients of one SDK. One instance a class, as with every ``BaseInstrumentor``.

    Subclasses name the SDK (``sdk``), its versions and client classes, and make the door.
    """

    sdk: ClassVar[str]
    versions: ClassVar[str]
    clients: ClassVar[tuple[str, str]]

    _door: StainlessDoor | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """The SDK and its versions, as a requirement."""
        return (f"{self.sdk} {self.versions}",)

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> StainlessDoor:
        raise NotImplementedError

    def door(self, **options: Any) -> StainlessDoor:
        """A door with the given options, not yet put anywhere: for one client only."""
        telemetry = Telemetry.make(
            f"tokenbudget_otel.instrumentation.{self.sdk}",
            options.get("tracer_provider"),
            options.get("meter_provider"),
            options.get("logger_provider"),
            former_names=bool(options.get("former_names", False)),
        )
        return self._make_door(telemetry, options.get("meter") or meter(), options)

    def _instrument(self, **kwargs: Any) -> None:
        door = self._door = self.door(**kwargs)
        # An SDK that the program has not imported yet is met when it does, not imported for its sake.
        wrapt.register_post_import_hook(lambda sdk: self._put(door, sdk), self.sdk)

    def _put(self, door: StainlessDoor, sdk: ModuleType) -> None:
        if self._door is not door:
            return  # uninstrumented before the SDK was imported
        try:
            for name, is_async in zip(self.clients, (False, True), strict=True):
                door.hook(_owner_of_request(getattr(sdk, name)), is_async=is_async)
        except Exception as error:
            door.unhook()
            log_once(f"instrument {self.sdk}", error)

    def _uninstrument(self, **_kwargs: Any) -> None:
        if self._door is not None:
            self._door.unhook()
            self._door = None


def _owner_of_request(client: type) -> type:
    """The base class that has ``request``: hooking it there covers the SDK's other clients (Bedrock, Vertex)."""
    for base in client.__mro__:
        if "request" in vars(base):
            return base
    raise AttributeError(f"{client.__qualname__} has no method `request`")
