"""What it costs to import the package and to instrument, beside importing the OpenTelemetry SDK.

Each figure is the median of fresh interpreters, taken in turn in one run; ratios are to the SDK's own import.

    python bench/imports.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

RUNS = 15

# Each prints seconds. What stands before `start` is there already in a program that uses the SDKs.
CASES = {
    "import opentelemetry.sdk.trace": ("", "import opentelemetry.sdk.trace"),
    "+ import tokenbudget_otel": ("import opentelemetry.sdk.trace", "import tokenbudget_otel"),
    "+ instrument(), openai and anthropic imported (reads the catalog)": (
        "import opentelemetry.sdk.trace, openai, anthropic, tokenbudget_otel",
        "tokenbudget_otel.instrument()",
    ),
    "+ first price (the catalog is there)": (
        "import tokenbudget_otel as tb; tb.instrument(); usage = tb.TokenUsage(input_tokens=1000, output_tokens=100)",
        "tb.calculate_cost('gpt-4o', usage, provider='openai')",
    ),
    "import openai, anthropic (for comparison)": ("", "import openai, anthropic"),
}

PROGRAM = """
{before}
import time
start = time.perf_counter()
{measured}
print(time.perf_counter() - start)
"""


def seconds(before: str, measured: str) -> float:
    """One measurement, in an interpreter of its own."""
    program = PROGRAM.format(before=before, measured=measured)
    # An installed package has its bytecode beside it; a checkout under this variable would compile at each start.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure in turn, print a table."""
    taken: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(RUNS):
        for name, case in CASES.items():
            taken[name].append(seconds(*case))
    floor = statistics.median(taken["import opentelemetry.sdk.trace"])
    title = f"import and instrument, {RUNS} interpreters each"
    table = Table("step", "median ms", "min ms", "x SDK import", title=title)
    for name, values in taken.items():
        median = statistics.median(values)
        table.add_row(name, f"{median * 1e3:.1f}", f"{min(values) * 1e3:.1f}", f"{median / floor:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
