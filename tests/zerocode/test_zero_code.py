"""`opentelemetry-instrument python app.py`, with environment variables and files and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from zero_place import OFFICIAL, ZeroCode
from zero_programs import CHAT, FOREIGN, TOLD

from tokenbudget_otel.simulator import Simulator

DOCUMENT = Path(__file__).parents[2] / "docs" / "zero-code.md"

WHOLE = (
    TOLD
    + CHAT
    + FOREIGN
    + """
with trace.get_tracer("app").start_as_current_span("work"):
    foreign()
    chat()
    try:
        chat()
    except tb.BudgetExceeded as refusal:
        told(refusal=str(refusal))
"""
)
"""A call that somebody else's span tells of ($0.0035), one at the door ($0.003), and one that a budget refuses."""

LIMIT = {"TOKENBUDGET_LIMIT_USD": "0.0066", "TOKENBUDGET_WINDOW": "day"}


def said(out: str) -> dict[str, Any]:
    (line,) = out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_environment_variables_are_enough(zero: ZeroCode, sim: Simulator) -> None:
    out, err = zero.run(
        WHOLE, TOKENBUDGET_TAGS="team=search,env=prod", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="", **LIMIT
    )
    told = said(out)
    assert (told["calls"], told["usd"], told["refused"]) == (2, "0.0065", 1)
    assert told["refusal"].startswith("Budget 'environment' refused this call to openai gpt-4o")
    assert len(sim.billed) == 1
    assert "Traceback" not in err and "already instrumented" not in err

    spans = {span.name: span for span in zero.collector.spans}
    by_cost = sorted(span.attributes.get("gen_ai.usage.cost", 0) for span in zero.collector.calls())
    assert by_cost == [0, 0.003, 0.0035], "one span each: the refused call, the one at the door, the foreign one"
    for span in (spans["work"], *zero.collector.calls()):
        assert span.attributes["tokenbudget.tag.team"] == "search"
        assert span.attributes["tokenbudget.tag.env"] == "prod"
        assert span.trace_id == spans["work"].trace_id

    assert zero.collector.last("gen_ai.client.operation.cost") == pytest.approx(0.0065)
    assert zero.collector.last("tokenbudget.budget.spent") == pytest.approx(0.0065)
    assert zero.collector.last("tokenbudget.budget.refusals") == 1


EXPORTS = {
    "always_off": {"OTEL_TRACES_SAMPLER": "always_off"},
    "a tenth": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "SDK disabled": {"OTEL_SDK_DISABLED": "true"},
    "no SDK configured": {"OTEL_PYTHON_CONFIGURATOR": "none"},
}


def test_what_is_counted_and_refused_does_not_depend_on_what_is_exported(zero: ZeroCode) -> None:
    """All at once: each takes a second or two to start."""
    zero.write("app.py", TOLD + CHAT + "chat()\ntry: chat()\nexcept tb.BudgetExceeded: told()")
    started = {
        name: zero.start("python", "app.py", **env, TOKENBUDGET_LIMIT_USD="0.0031") for name, env in EXPORTS.items()
    }
    for name, process in started.items():
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, f"{name}: {err}"
        assert said(out) == {"calls": 1, "usd": "0.003", "refused": 1}, name
    assert len(zero.collector.calls()) <= 2, "only the one that samples a tenth may export any"


STATE = """
import json
from importlib.metadata import entry_points
from opentelemetry import trace
on = [p.name for p in entry_points(group="opentelemetry_instrumentor")
      if p.name.startswith("tokenbudget") and p.load()().is_instrumented_by_opentelemetry]
there = getattr(trace.get_tracer_provider(), "_active_span_processor", None)
attached = [type(processor).__name__ for processor in getattr(there, "_span_processors", ())]
print(json.dumps({"openai": "tokenbudget-openai" in on, "anthropic": "tokenbudget-anthropic" in on,
                  "all": "tokenbudget" in on, "processors": attached.count("AttachedSpanProcessor")}))
"""

SWITCHES = {
    "flask": {"openai": True, "anthropic": True, "all": True, "processors": 1},
    "*": {"openai": False, "anthropic": False, "all": False, "processors": 0},
    " tokenbudget , flask": {"openai": False, "anthropic": False, "all": False, "processors": 0},
    "tokenbudget-openai": {"openai": False, "anthropic": True, "all": True, "processors": 1},
}


def test_disabled_instrumentations_stay_off(zero: ZeroCode) -> None:
    zero.write("app.py", STATE)
    started = {
        switch: zero.start("python", "app.py", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=f"{OFFICIAL},{switch}")
        for switch in SWITCHES
    }
    for switch, process in started.items():
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert said(out) == SWITCHES[switch], switch


@pytest.mark.soak
def test_an_sdk_that_is_left_to_another_instrumentation_is_still_priced(zero: ZeroCode, sim: Simulator) -> None:
    out, _ = zero.run(
        TOLD + CHAT + "chat()\ntold()", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="tokenbudget-openai,anthropic"
    )
    assert said(out) == {"calls": 1, "usd": "0.003", "refused": 0}
    (span,) = zero.collector.calls()
    assert span.attributes["gen_ai.usage.cost"] == 0.003


def test_the_processor_alone_can_be_left_out(zero: ZeroCode) -> None:
    out, _ = zero.run(STATE, TOKENBUDGET_PROCESSOR="false")
    assert said(out) == {"openai": True, "anthropic": True, "all": True, "processors": 0}


(DECLARED,) = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
"""The file in the document."""

SEEN = """
from tokenbudget_otel import settings
from tokenbudget_otel.instrumentation.hosts import provider_of
print(json.dumps([settings.option("stream_usage", True), provider_of("https://llm.example.com/groq/v1", "openai")]))
"""


def test_a_declarative_file_with_options(zero: ZeroCode) -> None:
    zero.write("otel.yaml", DECLARED.replace("limit_usd: 50,", "limit_usd: 0.0066,"))
    out, err = zero.run(WHOLE + SEEN, OTEL_CONFIG_FILE="otel.yaml")
    first, second = out.splitlines()
    told = json.loads(first)
    assert (told["calls"], told["usd"], told["refused"]) == (2, "0.0065", 1)
    assert told["refusal"].startswith("Budget 'house' refused") and "$0.0066" in told["refusal"]
    assert json.loads(second) == [False, "groq"]
    assert (zero.folder / "budgets.db").exists()
    assert "Traceback" not in err and "already instrumented" not in err
    (door,) = [span for span in zero.collector.calls() if span.attributes.get("gen_ai.usage.cost") == 0.003]
    (other,) = [span for span in zero.collector.calls() if span.attributes.get("gen_ai.usage.cost") == 0.0035]
    assert door.attributes["gen_ai.system"] == "openai"
    assert "gen_ai.system" not in other.attributes
    assert other.attributes["tokenbudget.tag.team"] == door.attributes["tokenbudget.tag.team"] == "search"
    (work,) = [span for span in zero.collector.spans if span.name == "work"]
    assert "tokenbudget.tag.team" not in work.attributes
    house = [point for point in zero.collector.points["tokenbudget.budget.spent"] if "house" in point[0].values()]
    assert house[-1][1] == pytest.approx(0.0065)


def test_tokenbudget_run_keeps_what_the_file_declares(zero: ZeroCode) -> None:
    """It puts its own books in the place of those that were there when the file was read."""
    zero.write("otel.yaml", python_section("    tokenbudget: {budgets: [{name: house, limit_calls: 1}]}"))
    track = "tb.track(provider='openai', model='gpt-4o', usage=tb.TokenUsage(input_tokens=1000, output_tokens=100))\n"
    budgets = "from tokenbudget_otel.meter import meter\ntold(budgets=[each.name for each in meter().enforcer.budgets])"
    zero.write("app.py", TOLD + track + budgets)
    command = ("tokenbudget", "run", "--max-cost", "5", "--quiet", "--json", "report.json", "--tag", "team=web", "--")
    started = zero.start("python", "app.py", under=command, OTEL_CONFIG_FILE="otel.yaml")
    out, err = started.communicate(timeout=60)
    assert started.returncode == 0, err
    budgets = said(out)["budgets"]
    assert budgets == ["tokenbudget run --max-cost 5", "house"]
    (row,) = json.loads((zero.folder / "report.json").read_text())["calls"]
    assert row["tags"] == {"team": "web"}


def python_section(text: str) -> str:
    """A declarative file with one section."""
    return f'file_format: "1.0"\ninstrumentation/development:\n  python:\n{text}'


MISTAKES = {
    "a misspelt option": (
        {"OTEL_CONFIG_FILE": "a.yaml"},
        python_section("    tokenbudget: {bugdets: []}"),
        "a.yaml: tokenbudget: unknown key 'bugdets': did you mean 'budgets'?",
    ),
    "a budget that cannot be": (
        {"OTEL_CONFIG_FILE": "b.yaml"},
        python_section("    tokenbudget: {budgets: [{limit_usd: much}]}"),
        "b.yaml: tokenbudget: [[budgets]] table 1: limit_usd must be a finite amount of US dollars, not 'much'",
    ),
    "a misspelt option of one SDK": (
        {"OTEL_CONFIG_FILE": "c.yaml"},
        python_section("    tokenbudget-openai: {former_name: true}"),
        "options of an instrumentor: unknown key 'former_name': did you mean 'former_names'?",
    ),
    "a variable": (
        {"TOKENBUDGET_LIMIT_USD": "5", "TOKENBUDGET_WINDOW": "monthly"},
        None,
        "unknown window 'monthly'",
    ),
    "tags": ({"TOKENBUDGET_TAGS": "team:search"}, None, "TOKENBUDGET_TAGS: 'team:search' is not name=value"),
    "a ledger": ({"TOKENBUDGET_LEDGER": "postgres://x"}, None, "postgres"),
}


def test_a_mistake_is_told_and_stops_nothing(zero: ZeroCode) -> None:
    zero.write("app.py", STATE)
    started = {}
    for name, (env, file, _) in MISTAKES.items():
        if file is not None:
            zero.write(env["OTEL_CONFIG_FILE"], file)
        started[name] = zero.start("python", "app.py", **env)
    for name, process in started.items():
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, f"{name}: {err}"
        ours = 0 if MISTAKES[name][1] else 1  # those files declare no tracer provider
        assert said(out) == {"openai": True, "anthropic": True, "all": True, "processors": ours}, name
        assert err.count(MISTAKES[name][2]) == 1, f"{name}: {err}"
        assert "Failed to auto initialize" not in err, name


def test_a_tracer_provider_that_the_program_sets_later_gets_the_processor(zero: ZeroCode) -> None:
    program = (
        TOLD
        + FOREIGN
        + """
import opentelemetry.trace
from opentelemetry.sdk.trace import TracerProvider
before = opentelemetry.trace.set_tracer_provider
opentelemetry.trace.set_tracer_provider(TracerProvider())
told(cost=foreign().attributes["gen_ai.usage.cost"], clean=opentelemetry.trace.set_tracer_provider is not before)
"""
    )
    out, _ = zero.run(program, OTEL_PYTHON_CONFIGURATOR="none")
    assert said(out) == {"calls": 1, "usd": "0.0035", "refused": 0, "cost": 0.0035, "clean": True}


def test_tb_instrument_in_the_program_adds_to_it_and_doubles_nothing(zero: ZeroCode) -> None:
    program = (
        TOLD
        + CHAT
        + FOREIGN
        + """
from tokenbudget_otel.processor import TokenBudgetSpanProcessor
tb.instrument(budgets=[tb.Budget(limit_calls=2)], processor=True)
trace.get_tracer_provider().add_span_processor(TokenBudgetSpanProcessor())
foreign()
chat()
try: chat()
except tb.BudgetExceeded: pass
told()
tb.uninstrument()
chat()
told()
"""
    )
    out, err = zero.run(program)
    once, after = (json.loads(line) for line in out.splitlines())
    assert once == {"calls": 2, "usd": "0.0065", "refused": 1}, err
    assert zero.collector.last("gen_ai.client.operation.cost") == pytest.approx(0.0065), err
    assert after == once
