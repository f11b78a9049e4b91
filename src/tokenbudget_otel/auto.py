"""Zero code: what `opentelemetry-instrument` calls, beside the instrumentors of the SDKs.

The entry point ``tokenbudget`` of the group ``opentelemetry_instrumentor`` puts the configuration in force and the span
processor on the tracer provider. docs/zero-code.md tells of all of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from tokenbudget_otel import api, attached, settings
from tokenbudget_otel.budgets import Enforcer
from tokenbudget_otel.budgets.config import Config, parse
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.hosts import map_host
from tokenbudget_otel.instrumentation.instrumentor import SdkOptions, counting, is_disabled, tell_refused
from tokenbudget_otel.meter import meter
from tokenbudget_otel.tags import tag_process

FILE: Final = "OTEL_CONFIG_FILE"
SECTION: Final = "tokenbudget"


class TokenBudgetInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """All that metering needs beside the SDKs' own instrumentors: configuration, tags, metrics, the span processor.

    Options of :meth:`instrument` are the keys of ``tokenbudget.toml``, ``config`` (another file), and
    ``tracer_provider`` and ``meter_provider``. What cannot be meant is logged, and left out as a whole.

    >>> TokenBudgetInstrumentor().instrument(tags={"team": "search"})
    >>> TokenBudgetInstrumentor().uninstrument()
    >>> tag_process({})
    """

    _file: str | os.PathLike[str] | None = None
    _said: Config | None = None
    _meter_provider: MeterProvider | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: it is for spans of whatever origin."""
        return ()

    def instrument(self, **kwargs: Any) -> Any:
        """Put everything in force. Never raises; doing so again changes nothing."""
        if self.is_instrumented_by_opentelemetry or is_disabled():
            return None
        try:
            return super().instrument(**{**kwargs, "skip_dep_check": True})
        except Exception as error:
            log_once("start without code", error)

    def _instrument(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        config: object = None,
        **options: Any,
    ) -> None:
        self._meter_provider = meter_provider
        try:
            self._file, self._said = _path(config), _understood(options)
        except Exception as error:
            tell_refused(error)
        self.put_in_force()
        if settings.option("processor", True):
            attached.attach(tracer_provider, meter_provider=meter_provider)

    def put_in_force(self) -> None:
        """Put in force what is configured and what the options say, in the meter of the process as it is now. Never
        raises."""
        try:
            if self._file is not None:
                settings.configure(meter().enforcer, self._file)
        except Exception as error:
            tell_refused(error)
        enforcer = counting(self._meter_provider, lenient=True).enforcer
        try:
            if self._said is not None:
                _apply(self._said, enforcer)
        except Exception as error:
            tell_refused(ValueError(f"{_where()}: {error}"))

    def _uninstrument(self, **_kwargs: Any) -> None:
        attached.detach()
        settings.say({})
        self._file = self._said = None


def _apply(said: Config, enforcer: Enforcer) -> None:
    enforcer.add(*said.budgets)
    if said.ledger is not None:
        settings.use_ledger(enforcer, said.ledger)
    settings.set_limits(enforcer, {}, said.limits)
    for base_url, provider in said.hosts.items():
        map_host(base_url, provider)
    if said.tags:
        tag_process(said.tags)
    settings.say(said.options)
    if said.options.keys() & SdkOptions.__annotations__.keys():
        for module, name in api.INSTRUMENTORS.values():
            if module in sys.modules:  # its section may stand above ours
                getattr(sys.modules[module], name)().instrument_again()


def _understood(options: Mapping[str, Any]) -> Config | None:
    """What the options of the section say, or ``None`` where there are none.

    Raises:
        ValueError: for what cannot be meant.
    """
    if not options:
        return None
    file = os.environ.get(FILE)
    return parse(options, _where(), Path(file).absolute().parent if file else Path.cwd())


def _where() -> str:
    """The place of the options, for error messages."""
    file = os.environ.get(FILE)
    return f"{file}: {SECTION}" if file else f"options of {SECTION}"


def _path(config: object) -> str | os.PathLike[str] | None:
    if config is not None and not isinstance(config, str | os.PathLike):
        raise ValueError(f"{_where()}: config must be the path of a file, not {config!r}")
    return config
