"""What happens inside each process of a run: metering, tags, the budget and the journal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tokenbudget_otel import api
from tokenbudget_otel.budgets import Budget, BudgetExceeded, Enforcer, Hold, Ledger
from tokenbudget_otel.budgets.rules import Rule
from tokenbudget_otel.budgets.steps import Steps
from tokenbudget_otel.cli.journal import Journal
from tokenbudget_otel.meter import meter
from tokenbudget_otel.pricing import load_price_file
from tokenbudget_otel.tags import tag_process

SETTINGS: Final = "settings.json"
SOCKET: Final = "ledger"


RUN: Final = "TOKENBUDGET_RUN"
"""The environment variable with the folder of the run."""

_started: set[str] = set()


def join() -> None:
    """Start metering for the run that this process belongs to, if to any.

    For processes that OpenTelemetry's auto-instrumentation starts: its `sitecustomize` stands before ours there.
    It calls this as an entry point of the group `opentelemetry_post_instrument`.
    """
    folder = Path(os.environ.get(RUN, ""))
    if RUN in os.environ and (folder / SETTINGS).exists():
        (folder / "seen").touch()
        start(str(folder), instrumented=True)


def start(folder: str, instrumented: bool = False) -> None:
    """Meter this process as the run in ``folder`` asks for; ``instrumented`` by OpenTelemetry, perhaps, already."""
    if folder in _started:
        return
    _started.add(folder)
    run = Path(folder)
    settings = json.loads((run / SETTINGS).read_text(encoding="utf-8"))
    if settings["export"] and not instrumented and (problem := _start_exporting()):
        (run / f"{os.getpid()}.note").write_text(problem, encoding="utf-8")
    if settings["tags"]:
        tag_process(settings["tags"], "run")
    for file in settings["price_files"]:
        load_price_file(file)
    counting = meter()
    counting.totals = journal = Journal(run)
    if settings["budget"] is not None:
        counting.enforcer = _RunEnforcer(run, settings, journal)
    else:
        counting.enforcer = _NotingEnforcer(journal)
    api.instrument()
    if (auto := sys.modules.get("tokenbudget_otel.auto")) is not None:
        auto.TokenBudgetInstrumentor().put_in_force()  # what it put into the enforcer that was there before


class _NotingEnforcer(Enforcer):
    """An enforcer that also writes its refusals into the journal, for the report."""

    def __init__(self, notes: Journal, **options: Any) -> None:
        super().__init__(**options)
        self._notes = notes

    def admission(self, *args: Any, **options: Any) -> Steps[Hold | None]:
        """See :meth:`.Enforcer.admission`."""
        try:
            return (yield from super().admission(*args, **options))
        except BudgetExceeded as refusal:
            self._notes.refusal(str(refusal))
            raise


class _RunEnforcer(_NotingEnforcer):
    """With the budget of the run, which is counted for all processes together and cannot be withdrawn."""

    def __init__(self, run: Path, settings: Mapping[str, Any], notes: Journal) -> None:
        from tokenbudget_otel.cli.ledger import RemoteLedger, RunLedger

        self._budget = budget_of(settings["budget"])
        self._prefix = Rule(self._budget).prefix(0)
        self._host = RemoteLedger(run / SOCKET, bytes.fromhex(settings["key"]))
        super().__init__(notes, budgets=[self._budget], ledger=RunLedger(self._prefix, self._host))

    def use(self, ledger: Ledger, journal: str | os.PathLike[str] | None = None) -> None:
        """Count the budgets of the program in another ledger; that of the run stays where it is."""
        from tokenbudget_otel.cli.ledger import RunLedger

        super().use(RunLedger(self._prefix, self._host, ledger), journal)

    def clear(self) -> None:
        """Withdraw the budgets of the program; that of the run stays."""
        super().clear()
        self.add(self._budget)


def budget_of(settings: Mapping[str, Any]) -> Budget:
    """The budget of a run, from plain data."""
    return Budget(**settings)


def exporters_for_backend(environment: Mapping[str, str]) -> dict[str, str]:
    """What OpenTelemetry's variables have to say for spans to reach the backend that ``TOKENBUDGET_ENDPOINT`` names.

    Nothing where exporters are named already. Where OTLP has an endpoint as well, both get the spans; where it has
    none, nobody would take metrics and logs.

    >>> exporters_for_backend({"TOKENBUDGET_ENDPOINT": "https://tokenbudget.example.com"})["OTEL_TRACES_EXPORTER"]
    'tokenbudget'
    """
    if not environment.get("TOKENBUDGET_ENDPOINT", "").strip() or environment.get("OTEL_CONFIG_FILE"):
        return {}
    general = bool(environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
    said = {}
    if not environment.get("OTEL_TRACES_EXPORTER"):
        also = general or environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        said["OTEL_TRACES_EXPORTER"] = "otlp,tokenbudget" if also else "tokenbudget"
    if not general:
        for signal in ("METRICS", "LOGS"):
            name = f"OTEL_{signal}_EXPORTER"
            if not environment.get(name) and not environment.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"):
                said[name] = "none"
    return said


def _start_exporting() -> str | None:
    """What `opentelemetry-instrument` does in a process: the SDK and every instrumentor that is installed.

    Returns why it could not, for people.
    """
    from importlib.metadata import entry_points

    if not entry_points(group="opentelemetry_configurator"):
        return (
            "The environment names an exporter, but nothing was exported: install opentelemetry-distro in the "
            "environment of the program."
        )
    os.environ.update(exporters_for_backend(os.environ))
    if not entry_points(group="opentelemetry_traces_exporter", name="otlp_proto_grpc"):
        # The distro would choose gRPC, and fail for want of the package.
        os.environ.setdefault("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    from opentelemetry.instrumentation.auto_instrumentation import initialize

    with _where_it_runs():
        initialize()
    return None


@contextmanager
def _where_it_runs() -> Iterator[None]:
    """Have what is set up meanwhile say where this runs, if the extra for that is installed.

    The variable is put back: what the program and its children do with it is theirs.
    """
    from tokenbudget_otel.export.where.switch import NAME, VARIABLE, is_installed, is_on

    before = os.environ.get(VARIABLE)
    if is_on() or not is_installed():
        yield
        return
    os.environ[VARIABLE] = f"{before},{NAME}" if before and before.strip() else NAME
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
