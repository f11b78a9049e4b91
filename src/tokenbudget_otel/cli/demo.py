"""`tokenbudget demo`: real clients, a simulated provider, and everything that the package does with their calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tokenbudget_otel.cli.journal import Row

NEEDED: Final = ("openai", "anthropic", "starlette", "uvicorn")

NEXT: Final = """\
Next, with a program of your own, as it is:
  tokenbudget run --max-cost 1.00 -- python app.py
or in its code:
  import tokenbudget_otel as tb; tb.instrument(budgets=[tb.Budget(limit_usd=50, window="month", per="tenant")])"""


@click.command("demo", short_help="Watch real clients being metered, priced and stopped.")
@click.option("--fast", is_flag=True, help="Do not wait as long as a provider would.")
@click.option("--no-progress", is_flag=True, help="Show no progress.")
def command(fast: bool, no_progress: bool) -> None:
    """Run a small multi-tenant agent on a simulated provider, with the real openai and anthropic SDKs.

    It costs nothing and sends nothing over the network. The figures are the same each time.
    """
    from importlib.util import find_spec

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise click.ClickException(f'the demo needs {", ".join(missing)}: pip install "tokenbudget-otel[demo]"')
    # The simulator is on this machine; a proxy would not find it.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from rich.text import Text

    import tokenbudget_otel as tb
    from tokenbudget_otel.cli.demo_agent import Desk, tickets
    from tokenbudget_otel.cli.tables import calls_table, console
    from tokenbudget_otel.simulator import Simulator

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tb.instrument(tracer_provider=provider)

    out = console()
    work = tickets()
    with Simulator(seed=7) as simulator:
        desk = Desk(simulator, provider.get_tracer("tokenbudget-demo"), pace=0.0 if fast else 0.6)
        with nullcontext() if no_progress else _progress(work, out) as tell:
            for ticket in work:
                desk.answer(ticket)
                if tell is not None:
                    tell(ticket.tenant)
            refusal, calls, spent = desk.run_away()
            desk.close()
        billed = simulator.billed

    rows = _rows()
    out.print(calls_table(rows, ("provider", "model"), lambda row: (row.provider, row.model), "What each model cost"))
    out.print(calls_table(rows, ("tenant",), lambda row: (row.tags["tenant"],), "What each tenant cost"))
    problem = _disagreement(rows, billed)
    out.print(problem or f"The provider's own books say the same: {len(billed)} calls, to the token.\n")
    out.print(
        f"An agent of initech ran in a circle. A budget let {calls} calls through (${spent}), and then its next got:"
    )
    out.print(Text(f"{type(refusal).__name__}: {refusal}\n", style="bold red"), soft_wrap=True)
    out.print("One of the exported traces:")
    out.print(_tree(exporter.get_finished_spans()))
    out.print(Text(f"\n{NEXT}"), soft_wrap=True)
    if problem is not None:
        sys.exit(1)


def _progress(work: Sequence[Any], out: Any) -> Any:
    """Bars for the tenants, with what they have cost so far, while the agents work."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    import tokenbudget_otel as tb

    @contextmanager
    def shown() -> Any:
        columns = (
            TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TextColumn("tickets"),
            TextColumn("{task.fields[calls]:>3} calls"), TextColumn("[green]{task.fields[cost]}"),
        )  # fmt: skip
        with Progress(*columns, console=out, transient=True) as progress:
            names = [ticket.tenant for ticket in work]
            bars = {
                tenant: progress.add_task(tenant, total=names.count(tenant), calls=0, cost="")
                for tenant in dict.fromkeys(names)
            }

            def tell(tenant: str) -> None:
                so_far = tb.usage(by="tenant")[tenant]
                progress.update(bars[tenant], advance=1, calls=so_far.calls, cost=f"${so_far.cost_usd:.4f}")

            yield tell

    return shown()


def _rows() -> list[Row]:
    from tokenbudget_otel.cli.journal import Tally
    from tokenbudget_otel.meter import meter

    tally = Tally()
    for row in meter().totals.rows():
        tally.add(row)
    return tally.rows()


def _disagreement(rows: Iterable[Row], billed: Sequence[Any]) -> str | None:
    """What we counted differently from the provider; None if nothing."""
    from tokenbudget_otel.cli.journal import total

    everything = total(rows)
    ours = (everything.calls, everything.usage.input_tokens, everything.usage.output_tokens)
    theirs = (
        len(billed),
        sum(each.usage.input_tokens for each in billed),
        sum(each.usage.output_tokens for each in billed),
    )
    return (
        None if ours == theirs else f"The provider's books differ: {theirs}, we counted {ours}. Please report this.\n"
    )


def _tree(spans: Sequence[ReadableSpan]) -> Any:
    """The first trace, as a tree."""
    from rich.text import Text
    from rich.tree import Tree

    first = min((span for span in spans if span.parent is None), key=lambda span: span.start_time or 0)
    trace_id = first.context.trace_id
    members = sorted(
        (span for span in spans if span.context.trace_id == trace_id), key=lambda span: span.start_time or 0
    )
    tree = Tree(Text(_line(first, members)))
    branches = {first.context.span_id: tree}
    for span in members:
        if span.parent is not None:
            branches[span.context.span_id] = branches[span.parent.span_id].add(Text(_line(span, [span])))
    return tree


_SHOWN: Final = (
    ("gen_ai.usage.input_tokens", "in"),
    ("gen_ai.usage.cache_read.input_tokens", "cached"),
    ("gen_ai.usage.cache_write.input_tokens", "written to cache"),
    ("gen_ai.usage.output_tokens", "out"),
    ("gen_ai.usage.reasoning.output_tokens", "reasoning"),
)


def _line(span: ReadableSpan, costs: Iterable[ReadableSpan]) -> str:
    from tokenbudget_otel.money import format_usd, to_nano

    attributes = span.attributes or {}
    parts = [f"{name} {found:,}" for key, name in _SHOWN if isinstance(found := attributes.get(key), int) and found]
    spent = [
        float(found) for each in costs if isinstance(found := (each.attributes or {}).get("gen_ai.usage.cost"), float)
    ]
    if spent:
        parts.append(format_usd(sum(to_nano(cost) for cost in spent)))
    if span.parent is None:
        parts += [f"tenant={attributes.get('tokenbudget.tag.tenant')!s}"]
    return "  ".join((span.name, *parts))
