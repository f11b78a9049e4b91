"""The other commands: demo, price, prices, doctor, simulate."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tokenbudget_otel.cli import doctor_zero_code
from tokenbudget_otel.cli.app import COMMANDS, app
from tokenbudget_otel.version import __version__


def call(*arguments: str, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(app, arguments, env=env)


def test_version_and_help() -> None:
    assert call("--version").output == f"tokenbudget {__version__}\n"
    shown = call("--help").output
    for name in COMMANDS:
        assert name in shown
        assert call(name, "--help").exit_code == 0
    assert call("no-such").exit_code == 2


def test_help_imports_little() -> None:
    program = (
        "import sys; from tokenbudget_otel.cli.app import app\n"
        "try: app(['--help'])\n"
        "finally: print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for heavy in ("rich.console", "opentelemetry.sdk", "openai", "tokenbudget_otel.pricing", "multiprocessing"):
        assert f"'{heavy}'" not in done.stdout


def test_the_demo_agrees_with_the_simulator(cli) -> None:
    ran = cli("demo", "--fast", "--no-progress", env={"COLUMNS": "120"})
    assert ran.code == 0, ran.stdout + ran.stderr
    # It held its figures against the simulator's books itself.
    assert "The provider's own books say the same: 100 calls, to the token." in ran.stdout
    totals = re.findall(r"^ total +(\d+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +\$([\d.]+)", ran.stdout, re.MULTILINE)
    assert totals == [("100", "186,700", "55,296", "19,300", "4,160", "0.7276")] * 2
    assert (
        "BudgetExceeded: Budget 'research agent' refused this call to anthropic claude-opus-4-5 before it was sent: "
        "it needs $0.0177, and $0.0005 of the limit of $0.5000 is left ($0.4995 spent, $0.0000 reserved by calls in "
        "flight). This budget does not reset."
    ) in ran.stdout
    tree = ran.stdout.partition("invoke_agent support-desk")[2].partition("\n\n")[0]
    assert tree.count("── chat ") == 6
    assert "├── execute_tool lookup_order" in tree
    assert "tenant=acme" in tree


def test_the_demo_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "openai" else find(name, *more)
    )
    result = call("demo")
    assert result.exit_code == 1
    assert result.output == 'Error: the demo needs openai: pip install "tokenbudget-otel[demo]"\n'


def test_price() -> None:
    result = call("price", "gpt-4o", "--input", "12000", "--cached", "8000", "--output", "900")
    assert result.exit_code == 0
    assert result.output.splitlines()[0].split() == ["cost", "$0.0290"]
    assert "source" in result.output and "genai-prices" in result.output

    plain = json.loads(
        call("price", "gpt-4o", "--input", "12000", "--cached", "8000", "--output", "900", "--json").output
    )
    assert plain["cost_usd"] == "0.029"
    assert plain["breakdown_usd"] == {"input": "0.01", "cache_read": "0.01", "output": "0.009"}
    assert (plain["state"], plain["priced_as"]) == ("priced", {"provider": "openai", "model": "gpt-4o"})


def test_price_by_tier_and_time() -> None:
    def cost(*more: str) -> str:
        return json.loads(call("price", "gpt-5", "--input", "1000000", "--json", *more).output)["cost_usd"]

    assert (cost(), cost("--tier", "flex"), cost("--batch")) == ("1.25", "0.625", "0.625")
    assert cost("--at", "2026-11-01T12:00Z") == "1.25"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["price", "gpt-5-mni", "--input", "1"],
            1,
            ["unknown", "gpt-5-mini (openai)", "register_model", "--price-file"],
        ),
        (["price", "gpt-5", "--input", "1", "--cached", "2"], 2, ["cache_read_tokens (2) exceeds input_tokens (1)"]),
        (["price", "gpt-5", "--input", "-1"], 2, ["--input"]),
        (["price", "gpt-5", "--at", "noon"], 2, ["--at"]),
        (["prices", "--provider", "no-such"], 1, ["no-such", "anthropic"]),
        (["prices", "--search", "no-such-model"], 1, ["No model"]),
        (["prices", "show", "claude-sonet-4-5"], 1, ["unknown", "claude-sonnet-4-5"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(arguments: list[str], code: int, says: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == code
    for text in says:
        assert text in result.output


def test_prices() -> None:
    listed = json.loads(call("prices", "--provider", "openai", "--search", "gpt-4o", "--json").output)
    assert {row["provider"] for row in listed} == {"openai"}
    (one,) = (row for row in listed if row["model"] == "gpt-4o")
    assert one["usd_per_1m"] == {"input": "2.5", "cached": "1.25", "output": "10"}
    assert "gpt-4o" in call("prices", "--provider", "openai").output
    assert json.loads(call("prices", "--provider", "azure.ai.openai", "--json").output)[0]["provider"] == "azure"


def test_where_a_price_comes_from() -> None:
    shown = call("prices", "show", "gpt-4o-2024-08-06", "--provider", "azure.ai.openai").output
    assert "azure gpt-4o" in shown
    assert "genai-prices" in shown and "read on" in shown
    found = json.loads(call("prices", "show", "claude-sonnet-4-5", "--json").output)
    assert found["source"]["name"] == "genai-prices"
    assert {"when": "", "unit": "input_tokens", "usd": "6", "per": 1_000_000, "above": 200_000} in found["prices"]


CLEAN = {
    "OTEL_CONFIG_FILE": None,
    "OTEL_EXPORTER_OTLP_ENDPOINT": None,
    "OTEL_SDK_DISABLED": None,
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": None,
    "OTEL_TRACES_SAMPLER": None,
    "TOKENBUDGET_CI": None,
    "OTEL_TRACES_SAMPLER_ARG": None,
}


def doctor(**env: str) -> dict[str, dict[str, str]]:
    result = call("doctor", "--json", env=CLEAN | env)
    report = json.loads(result.output)
    assert result.exit_code == (0 if report["ok"] else 1)
    assert report["ok"] == all(finding["level"] != "attention" for finding in report["findings"])
    return {finding["subject"]: finding for finding in report["findings"]}


def test_doctor_on_what_is_here() -> None:
    found = doctor()
    for sdk in ("openai", "anthropic"):
        assert found[sdk]["level"] == "ok"
        assert "is metered" in found[sdk]["text"]
    assert "anthropic's own tracing" in found
    assert "read on" in found["prices"]["text"]
    for line in call("doctor", env=CLEAN).output.splitlines():
        assert line.isprintable()


def test_doctor_tries_the_exporter() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        there = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")["OTEL_EXPORTER_OTLP_ENDPOINT"]
        assert there["level"] == "ok"
        connection, _ = server.accept()
        connection.settimeout(5)
        assert connection.recv(1) == b""  # nothing was sent
        connection.close()
    gone = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert (gone["level"], "cannot be reached" in gone["text"]) == ("attention", True)


def test_doctor_explains_sampling_and_names_what_cannot_be_read() -> None:
    found = doctor(
        OTEL_TRACES_SAMPLER="traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.1",
        TOKENBUDGET_STREAM_USAGE="perhaps",
        TOKENBUDGET_X="1",
    )
    assert "only some traces are exported" in found["sampling"]["text"]
    assert "cannot be read" in found["TOKENBUDGET_STREAM_USAGE"]["text"]
    assert found["TOKENBUDGET_X"]["level"] == "attention"
    bad = doctor(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="lots")
    assert bad["OTEL_TRACES_SAMPLER_ARG"]["level"] == "attention"


def test_doctor_knows_the_variables_of_content() -> None:
    good = {
        "OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT": "TRUE",
        "TOKENBUDGET_CONTENT_MAX_BYTES": "none",
        "TOKENBUDGET_REDACT": "app.rules:redact",
    }
    found = doctor(**good)
    assert [found[name]["level"] for name in good] == ["ok"] * 3
    found = doctor(**dict.fromkeys(good, "lots"))
    assert [found[name]["level"] for name in good] == ["attention"] * 3


def test_doctor_reads_what_is_configured_of_budgets() -> None:
    assert "budgets" not in doctor()
    found = doctor(TOKENBUDGET_LIMIT_USD="5", TOKENBUDGET_LEDGER="redis://app:secret@cache/0")
    assert found["budgets"]["text"] == "1 from environment, counted in redis://***@cache/0"
    assert found["TOKENBUDGET_LEDGER"]["text"] == "redis://***@cache/0"
    bad = doctor(TOKENBUDGET_LIMIT_USD="5", TOKENBUDGET_WINDOW="monthly")["budgets"]
    assert bad["level"] == "attention"
    assert "unknown window 'monthly'" in bad["text"]


def test_doctor_says_what_happens_without_code(tmp_path: Path) -> None:
    assert "puts the span processor on the tracer provider" in doctor()["zero code"]["text"]
    assert "processor is switched off" in doctor(TOKENBUDGET_PROCESSOR="false")["zero code"]["text"]
    some = doctor(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="tokenbudget-openai, flask")
    assert some["zero code"]["text"].endswith("has tokenbudget-openai left off")
    for everything in ("tokenbudget", "*"):
        found = doctor(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=everything)["zero code"]
        assert (found["level"], "all of ours left off" in found["text"]) == ("note", True)
    wrong = doctor(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="tokenbudget-open")
    assert wrong["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"]["level"] == "attention"


def test_doctor_says_what_keeps_opentelemetry_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def protocol(**env: str) -> str:
        return doctor(**env).get("OTEL_EXPORTER_OTLP_PROTOCOL", {"level": "not found"})["level"]

    # As if the exporter for gRPC, which its distribution takes by default, were not installed here.
    version_of = doctor_zero_code.version_of
    monkeypatch.setattr(doctor_zero_code, "version_of", lambda name: None if "grpc" in name else version_of(name))
    assert protocol() == "note"
    assert protocol(OTEL_EXPORTER_OTLP_TIMEOUT="1") == "attention"
    assert protocol(OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf") == "not found"
    assert protocol(
        **dict.fromkeys((f"OTEL_{signal}_EXPORTER" for signal in ("TRACES", "METRICS", "LOGS")), "none")
    ) == ("not found")
    file = tmp_path / "otel.yaml"
    assert doctor(OTEL_CONFIG_FILE=str(file))["OTEL_CONFIG_FILE"]["level"] == "attention"
    file.write_text("file_format: '1.0'")
    assert doctor(OTEL_CONFIG_FILE=str(file))["OTEL_CONFIG_FILE"]["level"] == "ok"
    assert doctor(OTEL_SDK_DISABLED="true")["OTEL_SDK_DISABLED"]["level"] == "note"
    assert doctor(OTEL_SDK_DISABLED="1")["OTEL_SDK_DISABLED"]["level"] == "attention"


def test_every_variable_that_is_read_is_in_the_documents() -> None:
    from tokenbudget_otel.cli.doctor import OURS

    document = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert [name for name in OURS if f"`{name}`" not in document] == []


def test_doctor_shows_tags_and_names_those_that_cannot_be(tmp_path: Path) -> None:
    assert doctor(TOKENBUDGET_TAGS="team=search,env=prod")["tags"]["text"] == "team=search, env=prod"
    assert "'team' is not name=value" in doctor(TOKENBUDGET_TAGS="team")["budgets"]["text"]


@pytest.mark.parametrize(
    ("name", "level"),
    [("opentelemetry-instrumentation-openai", "attention"), ("openlit", "attention"), ("langfuse", "attention")],
)
def test_doctor_knows_who_else_traces(monkeypatch: pytest.MonkeyPatch, name: str, level: str) -> None:
    from importlib import metadata

    class Fake:
        entry_points = ()

    version, distribution = metadata.version, metadata.distribution
    monkeypatch.setattr(metadata, "version", lambda wanted: "9.9" if wanted == name else version(wanted))
    monkeypatch.setattr(metadata, "distribution", lambda wanted: Fake() if wanted == name else distribution(wanted))
    found = doctor()[name]
    assert found["level"] == level
    assert "a call may have two spans" in found["text"]
    assert found["remedy"]


def test_doctor_says_when_prices_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenbudget_otel.cli import doctor as module

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2036, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(module, "datetime", Later)
    found = doctor()["prices"]
    assert found["level"] == "attention"
    assert "upgrade" in found["remedy"]


def test_simulate(cli) -> None:
    started = cli.start("simulate", "--port", "0", "--seed", "3")
    assert started.stdout is not None
    said = ""
    while "Ctrl-C ends it." not in said:
        line = started.stdout.readline()
        assert line, started.stderr.read()
        said += line
    (url,) = set(re.findall(r"OPENAI_BASE_URL=(\S+)", said))
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]}).encode(),
        {"content-type": "application/json", "authorization": "Bearer any"},
    )
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["model"] == "gpt-5"
    assert f"ANTHROPIC_BASE_URL={url.removesuffix('/v1')}" in said
    started.terminate()
    started.communicate(timeout=10)
    assert started.returncode == 0


def test_simulate_on_a_port_that_is_taken(cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ran = cli("simulate", "--port", str(server.getsockname()[1]))
    assert (ran.code, "cannot listen on" in ran.stderr) == (1, True)
