"""A notebook: cells that are run again, that await, and modules that are reloaded under them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tokenbudget_otel.simulator import Simulator

CELLS = (
    "%load_ext autoreload\n%autoreload 2",
    """
import logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.WARNING, force=True)
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
""",
    # A cell that a person runs again and again.
    """
import tokenbudget_otel as tb
tb.instrument(budgets=[tb.Budget(name="notebook", limit_calls=3)], tags={"notebook": "tries"}, processor=True)
""",
    """
import openai, helper
ask = dict(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}], max_tokens=50,
           extra_headers={"x-simulate": '{"input_tokens": 1000, "output_tokens": 50}'})
_ = openai.OpenAI(max_retries=0).chat.completions.create(**ask)
""",
    # Cells are awaited on the kernel's own loop, each in a context of its own.
    """
async with tb.tags(tenant="acme"):
    _ = await openai.AsyncOpenAI(max_retries=0).chat.completions.create(**ask)
""",
    "AGAIN",
    "from pathlib import Path\n_ = Path('helper.py').write_text('VALUE = 2222')",
    """
with tb.tags(tenant=str(helper.VALUE)):
    _ = openai.OpenAI(max_retries=0).chat.completions.create(**ask)
try:
    openai.OpenAI(max_retries=0).chat.completions.create(**ask)
except tb.BudgetExceeded as refusal:
    print(refusal)
""",
    """
import json
spans = [s for s in exporter.get_finished_spans() if "gen_ai.usage.cost" in s.attributes]
print(json.dumps({
    "spans": len(spans), "costs": [s.attributes["gen_ai.usage.cost"] for s in spans],
    "tags": sorted({s.attributes.get("tokenbudget.tag.tenant", "") for s in spans}),
    "notebook": sorted({s.attributes["tokenbudget.tag.notebook"] for s in spans}),
    "processors": len(provider._active_span_processor._span_processors),
    "calls": tb.usage().calls, "usd": str(tb.usage().cost_usd)}))
""",
)


@pytest.mark.soak
def test_cells_run_again_and_modules_reloaded_double_nothing(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", sim.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "helper.py").write_text("VALUE = 1")
    instrument = CELLS[2]
    cells = [nbformat.v4.new_code_cell(instrument if cell == "AGAIN" else cell) for cell in CELLS]
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    done = NotebookClient(
        nbformat.v4.new_notebook(cells=cells), timeout=60, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = [output for cell in done.cells for output in cell.outputs]
    texts = [text for output in said for text in output.get("text", "").splitlines()]
    refusal, last = texts
    assert refusal.startswith("Budget 'notebook' refused this call to openai gpt-4o")
    told: dict[str, Any] = json.loads(last)
    assert told == {
        "spans": 3, "costs": [0.003] * 3, "tags": ["", "2222", "acme"], "notebook": ["tries"], "processors": 2,
        "calls": 3, "usd": "0.009",
    }  # fmt: skip
    assert len(sim.billed) == 3
