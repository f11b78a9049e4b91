"""`tokenbudget run`: what it counts, and that the program cannot tell."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_programs import CHAT, TRACK

from tokenbudget_otel.simulator import Simulator

Until = Callable[[subprocess.Popen[str], str], None]


def billed(sim: Simulator) -> tuple[int, int, int]:
    sim.settle()
    return (
        len(sim.billed),
        sum(bill.usage.input_tokens for bill in sim.billed),
        sum(bill.usage.output_tokens for bill in sim.billed),
    )


def counted(report: dict) -> tuple[int, int, int]:
    totals = report["totals"]
    return totals["calls"], totals["usage"]["input_tokens"], totals["usage"]["output_tokens"]


BOTH_SDKS = """
import asyncio, sys, threading
import openai, anthropic
ask = [{"role": "user", "content": "Hi"}]
client = openai.OpenAI()
client.chat.completions.create(model="gpt-4o-mini", messages=ask)
for chunk in client.chat.completions.create(model="gpt-4o-mini", messages=ask, stream=True):
    pass
client.embeddings.create(model="text-embedding-3-small", input="Hi")
with anthropic.Anthropic().messages.stream(model="claude-haiku-4-5", max_tokens=99, messages=ask) as stream:
    print("".join(stream.text_stream))

async def main():
    await openai.AsyncOpenAI().responses.create(model="gpt-5", input="Hi")

asyncio.run(main())
thread = threading.Thread(target=lambda: anthropic.Anthropic().messages.create(
    model="claude-haiku-4-5", max_tokens=99, messages=ask))
thread.start(); thread.join()
sys.stdout.buffer.write(bytes(range(256)))
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


def test_a_program_with_both_sdks(cli, sim: Simulator, tmp_path: Path) -> None:
    program = cli.program(BOTH_SDKS)
    plain = subprocess.run([sys.executable, program], cwd=tmp_path, env=cli.environment, capture_output=True)
    sim.reset()
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            ["tokenbudget", "run", "--tag", "team=search", "--json", "r.json", "--csv", "r.csv", "python", program],
            cwd=tmp_path, env=cli.environment, stdout=out, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert (tmp_path / "out").read_bytes() == plain.stdout
    assert done.returncode == plain.returncode == 3
    assert done.stderr.startswith(plain.stderr) and plain.stderr == b"to stderr\n"

    report = json.loads((tmp_path / "r.json").read_text())
    assert counted(report) == billed(sim)
    assert report["totals"]["calls"] == 6
    assert report["exit_code"] == 3
    assert report["signal"] is None
    assert report["processes"] == 1
    assert report["tags"] == {"team": "search"}
    assert {(row["provider"], row["model"], row["operation"]) for row in report["calls"]} == {
        ("openai", "gpt-4o-mini", "chat"),
        ("openai", "text-embedding-3-small", "embeddings"),
        ("openai", "gpt-5", "chat"),
        ("anthropic", "claude-haiku-4-5", "chat"),
    }
    # Tags are in the context that every thread begins with.
    assert all(row["tags"] == {"team": "search"} for row in report["calls"])

    with (tmp_path / "r.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["model"], int(line["calls"]), line["cost_usd"]) for line in lines] == [
        (row["model"], row["calls"], row["cost_usd"]) for row in report["calls"]
    ]
    assert {line["tag.team"] for line in lines} == {"search"}

    shown = done.stderr.decode()
    for row in report["calls"]:
        assert row["model"] in shown
    assert "6 calls" in shown and "[team=search]" in shown


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [
        (TRACK + "call()", 0, ""),
        (TRACK + "call(); raise SystemExit(3)", 3, ""),
        (TRACK + "call(); raise ValueError('mine')", 1, "ValueError: mine"),
        (TRACK + "call(); import os; os._exit(7)", 7, ""),
        (TRACK + "call(); import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
    ],
    ids=["ends", "exits", "raises", "leaves at once", "is killed"],
)
def test_however_it_ends_it_is_counted(cli, program: str, code: int, says: str) -> None:
    ran = cli.run("--", "python", cli.program(program))
    assert ran.code == code
    assert ran.calls == 1
    assert ran.report["totals"]["cost_usd"] == "0.0035"
    assert ran.report["signal"] == ("SIGKILL" if code < 0 else None)
    assert says in ran.stderr


WAITS = (
    TRACK
    + """
import sys, time
call()
try:
    print("ready", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    try:
        time.sleep(0.3)
    except KeyboardInterrupt:
        print("twice")
    print("once")
    sys.exit(5)
"""
)


@pytest.mark.parametrize("how", ["Ctrl-C", "the group", "us alone"])
def test_interrupts_reach_it_once(cli, until: Until, how: str) -> None:
    terminal, its_end = pty.openpty()
    started = cli.start(
        "run", "--", "python", cli.program(WAITS),
        stdin=its_end, start_new_session=True, preexec_fn=_own_terminal if how == "Ctrl-C" else None,
    )  # fmt: skip
    until(started, "ready")
    if how == "Ctrl-C":
        os.write(terminal, b"\x03")
    else:
        (os.killpg if how == "the group" else os.kill)(started.pid, signal.SIGINT)
    out, err = started.communicate(timeout=20)
    os.close(terminal)
    os.close(its_end)
    assert (started.returncode, out) == (5, "once\n")
    assert "1 call" in err


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_what_ends_it_ends_us(cli, until: Until) -> None:
    started = cli.start("run", "--", "python", cli.program(WAITS))
    until(started, "ready")
    started.terminate()
    _, err = started.communicate(timeout=20)
    assert started.returncode == -signal.SIGTERM
    assert "1 call" in err


def test_a_handler_of_its_own_is_obeyed(cli, until: Until) -> None:
    handled = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(6))\n"
    started = cli.start("run", "--quiet", "--", "python", cli.program(handled + WAITS))
    until(started, "ready")
    started.terminate()
    _, err = started.communicate(timeout=20)
    assert (started.returncode, err) == (6, "")


CHILDREN = (
    CHAT
    + """
import multiprocessing, os, subprocess, sys
if __name__ == "__main__":
    chat()
    for method in ("spawn", "fork", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=chat)
        child.start(); child.join()
    if (pid := os.fork()) == 0:
        chat()
        os._exit(0)
    os.waitpid(pid, 0)
    subprocess.run(["sh", "-c", "python other.py"], check=True)
"""
)


def test_children_are_counted(cli, sim: Simulator) -> None:
    cli.program(CHAT + "chat()", "other.py")
    ran = cli.run("--", "python", cli.program(CHILDREN))
    assert ran.code == 0, ran.stderr
    assert counted(ran.report) == billed(sim)
    assert (ran.calls, ran.report["processes"]) == (6, 6)


LOOP = (
    CHAT
    + """
import sys, tokenbudget_otel as tb
made = 0
try:
    while True:
        chat()
        made += 1
except tb.BudgetExceeded as refusal:
    print(made, refusal)
"""
)


def test_the_limit_holds_over_all_processes(cli, sim: Simulator) -> None:
    cli.program(LOOP, "loop.py")
    three = "import subprocess as s; [p.wait() for p in [s.Popen(['python', 'loop.py']) for _ in range(3)]]"
    ran = cli.run("--max-cost", "0.05", "--mode", "worst_case", "--", "python", "-c", three)
    made = [int(line.split()[0]) for line in ran.stdout.splitlines()]
    assert len(made) == 3
    # $0.003 a call: sixteen fit, and since each reserves $0.0032 (its input could be that long) the sixteenth does not.
    assert sum(made) == ran.calls == len(sim.billed) == int(ran.report["budget"]["spent_tokens"]) / 1050
    assert 14 <= ran.calls <= 16
    assert float(ran.report["budget"]["spent_usd"]) == pytest.approx(0.003 * ran.calls)
    assert ran.report["totals"]["refused_calls"] == 3
    refusal = ran.report["refusals"][0]
    assert refusal.startswith("Budget 'tokenbudget run --max-cost 0.05' refused this call to openai gpt-4o")
    assert ran.stderr.count("refused this call") == 1


def test_a_limit_of_tokens(cli) -> None:
    ran = cli.run("--max-tokens", "3000", "--", "python", cli.program(LOOP))
    # A call in flight reserves what its text may come to, and this one comes to more: what is spent counts.
    assert ran.calls == 3
    assert "3,000 tokens" in ran.stdout


def test_budgets_of_the_program_stay_its_own(cli) -> None:
    program = CHAT + (
        "import tokenbudget_otel as tb\n"
        "with tb.budget(max_calls=1) as mine:\n"
        "    chat()\n"
        "    try: chat()\n"
        "    except tb.BudgetExceeded as refusal: print(refusal.budget, mine.calls)\n"
        "from tokenbudget_otel.meter import meter\n"
        "meter().enforcer.clear()\n"
        "print([budget.name for budget in meter().enforcer.budgets])\n"
    )
    ran = cli.run("--max-cost", "5", "--", "python", cli.program(program))
    assert ran.stdout == "budget(max_calls=1) 1\n['tokenbudget run --max-cost 5']\n"
    assert ran.report["budget"]["spent_usd"] == "0.003"


def test_without_the_run_the_budget_refuses(cli, until: Until) -> None:
    program = CHAT + (
        "import os, sys, time, tokenbudget_otel as tb\n"
        "chat()\n"
        "print(os.environ['TOKENBUDGET_RUN'])\n"
        "parent = os.getppid()\n"  # before it is known to be ready, and the parent killed
        "print('ready', flush=True)\n"
        "while os.getppid() == parent: time.sleep(0.05)\n"
        "try: chat()\n"
        "except tb.BudgetExceeded as refusal: print(refusal)\n"
        "print('done', flush=True)\n"
    )
    started = cli.start("run", "--max-cost", "5", "--", "python", cli.program(program))
    assert started.stdout is not None
    left_behind = started.stdout.readline().strip()
    until(started, "ready")
    started.kill()
    assert "The `tokenbudget run` that keeps it has ended" in started.stdout.readline()
    until(started, "done")
    started.wait()
    shutil.rmtree(left_behind)


def test_another_sitecustomize_runs_too(cli, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("import sys; sys.theirs = True")
    program = TRACK + "import sys, sitecustomize; call(); print(sys.theirs, sitecustomize.__file__, sys.path[1])"
    ran = cli.run("--", "python", cli.program(program), env={"PYTHONPATH": str(tmp_path / "theirs")})
    theirs = str(tmp_path / "theirs")
    assert ran.stdout == f"True {theirs}/sitecustomize.py {theirs}\n"
    assert ran.calls == 1


def test_ways_to_start_it(cli, tmp_path: Path) -> None:
    cli.program(TRACK + "call()", "module.py")
    (tmp_path / "script.sh").write_text("python module.py\npython -m module\ncat\n")
    # The script's input is its own too.
    ran = cli.run("--", "sh", "-c", "echo input | sh script.sh")
    assert (ran.stdout, ran.calls, ran.report["processes"]) == ("input\n", 2, 2)


@pytest.mark.parametrize("flag", ["-I", "-S"])
def test_a_python_that_cannot_be_metered_runs_and_the_report_says_so(cli, flag: str) -> None:
    ran = cli.run("--", "python", flag, "-c", "print(1)")
    assert (ran.code, ran.stdout) == (0, "1\n")
    assert ran.report["metered"] is False
    assert "no Python process could be metered" in ran.stderr


def test_no_call_at_all(cli) -> None:
    ran = cli.run("--", "python", "-c", "import sys; print('tokenbudget_otel' in sys.modules, sys.path[0] == '')")
    assert ran.stdout == "False True\n"
    assert ran.stderr.strip() == "tokenbudget: no LLM call was seen."


def test_what_is_not_known_is_said(cli, tmp_path: Path) -> None:
    program = TRACK + (
        "tb.track(provider='openai', model='gpt-99', usage=tb.TokenUsage(input_tokens=5))\n"
        "tb.track(provider='openai', model='house-llm', usage=tb.TokenUsage(input_tokens=1_000_000))\n"
    )
    (tmp_path / "prices.toml").write_text('[[model]]\nmodel = "house-llm"\ninput_per_1m = 2\n')
    ran = cli.run("--price-file", "prices.toml", "--", "python", cli.program(program))
    costs = {row["model"]: row["cost_usd"] for row in ran.report["calls"]}
    assert costs == {"gpt-99": None, "house-llm": "2"}
    assert "the price of 1 call to openai gpt-99" in ran.stderr
    assert "$2.0000 + ?" in ran.stderr


def test_spans_are_exported_where_the_environment_asks_for_it(cli) -> None:
    env = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    ran = cli.run("--tag", "team=search", "--", "python", cli.program(CHAT + "chat()"), env=env)
    assert ran.calls == 1
    assert ran.stdout.count('"name": "chat gpt-4o"') == 1
    assert '"tokenbudget.tag.team": "search"' in ran.stdout
    assert '"gen_ai.usage.cost": 0.003' in ran.stdout


def test_under_opentelemetry_instrument(cli, tmp_path: Path) -> None:
    # Its sitecustomize stands before ours; it calls our entry point instead.
    made = tmp_path / "packages" / "hooks-1.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: hooks\nVersion: 1\n")
    (made / "entry_points.txt").write_text("[opentelemetry_post_instrument]\nrun = tokenbudget_otel.cli.metered:join\n")
    env = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
    program = cli.program(LOOP)
    ran = cli.run(
        "--max-cost", "0.005", "--tag", "team=search", "--", "opentelemetry-instrument", "python", program,
        env=env | {"PYTHONPATH": str(made.parent)},
    )  # fmt: skip
    assert (ran.calls, ran.report["totals"]["refused_calls"]) == (int(ran.stdout.split()[0]), 1)
    assert ran.report["calls"][0]["tags"] == {"team": "search"}


def test_one_run_within_another_is_refused(cli) -> None:
    ran = cli("run", "--", "tokenbudget", "run", "--", "true")
    assert (ran.code, "inside a `tokenbudget run` already" in ran.stderr) == (2, True)


def test_a_python_without_the_package_runs_and_the_report_says_so(cli, tmp_path: Path) -> None:
    (tmp_path / "openai.py").write_text("here = True")
    bare = Path(sys.base_prefix) / "bin" / "python3"
    ran = cli.run("--", str(bare), "-c", "import openai; print(openai.here, type(openai.__loader__).__name__)")
    assert ran.stdout == "True SourceFileLoader\n"
    assert "could not be metered" in ran.stderr and "Install tokenbudget-otel" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-cost", "-1"], "--max-cost"),
        (["--max-cost", "nan"], "--max-cost"),
        (["--max-cost", "much"], "--max-cost"),
        (["--max-tokens", "-1"], "--max-tokens"),
        (["--max-tokens", "1.5"], "--max-tokens"),
        (["--mode", "sometimes"], "--mode"),
        (["--tag", "team"], "name=value"),
        (["--tag", "team=a\nb"], "control characters"),
        (["--tag", "team="], "team"),
        (["--tag", "=x"], "tag name"),
        (["--json", "/no/such/folder/file"], "cannot be written"),
        (["--csv", "."], "cannot be written"),
        (["--price-file", "none.toml"], "none.toml"),
    ],
    ids=lambda value: " ".join(value).replace("\n", "\\n") if isinstance(value, list) else "",
)
def test_bad_input_is_refused_before_anything_runs(arguments: list[str], says: str) -> None:
    from click.testing import CliRunner

    from tokenbudget_otel.cli.run import command

    result = CliRunner().invoke(command, [*arguments, "--", "touch", "/tmp/never"])
    assert result.exit_code == 2
    assert says in result.output
    assert "Error" in result.output


def test_a_missing_command(cli) -> None:
    assert cli("run", "--max-cost", "1").code == 2
    ran = cli("run", "--", "no-such-command-here")
    assert (ran.code, "no-such-command-here cannot be run" in ran.stderr) == (127, True)
    assert cli("run", "--", "/").code == 126
