"""`tokenbudget spool`: what real exporters have left, seen and handled from outside."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from export_requests import Tracing, names_in
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from receiver import FINE, Mood, Receiver

from tokenbudget_otel.cli.app import app
from tokenbudget_otel.export import Spool, SpoolingSession


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def call(folder: Path) -> Callable[..., Result]:
    def run(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Result:
        environment = {"TOKENBUDGET_SPOOL": str(folder), "COLUMNS": "160", **(env or {})}
        return CliRunner().invoke(app, ["spool", *arguments], env=environment, **options)

    return run


@pytest.fixture
def left(tracing: Callable[..., Tracing], receiver: Receiver) -> Tracing:
    """Six spans in three requests that wait; nobody sends."""
    receiver.stop()
    traced = tracing(headers={"Authorization": "Bearer old"})
    for _ in range(3):
        traced.spans(2)
    traced.spool.close(0.2)
    receiver.start()
    return traced


def test_where_there_is_none(call: Callable[..., Result], folder: Path) -> None:
    for arguments in ((), ("list",), ("replay",), ("export", "-"), ("clear", "--yes")):
        result = call(*arguments)
        assert result.exit_code == 1
        assert "there is no spool" in result.output
    assert not folder.exists()


def test_a_folder_that_is_open_to_others(call: Callable[..., Result], folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    result = call("list")
    assert result.exit_code == 1
    assert f"chmod 700 {folder}" in result.output


def test_list(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    result = call()
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.output.splitlines() if line.strip().startswith("127.0.0.1")]
    assert receiver.url in row
    assert row.split()[2:4] == ["6", "3"]
    assert "So far: 6 spans accepted, 0 delivered, dropped: none." in result.output
    found = json.loads(call("list", "--json").output)
    (destination,) = found["destinations"]
    assert (destination["files"], destination["spans"], destination["refused"]) == (3, 6, 0)
    assert destination["oldest"].startswith("20")
    assert found["total"]["accepted"] == 6


def test_replay(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    endpoint = receiver.url.removesuffix("/v1/traces")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer new"}
    result = call("replay", env=env)
    assert (result.exit_code, result.output) == (0, f"{receiver.url}: 6 spans delivered\n")
    assert receiver.names == [f"span {number}" for number in range(6)]
    assert {request.headers["authorization"] for request in receiver.requests} == {"Bearer new"}
    assert "Nothing waits" in call("replay").output
    assert "Nothing waits" in call().output


def test_replay_sends_keys_to_no_other_host(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer new",
        "TOKENBUDGET_ENDPOINT": "http://backend:8000",
        "TOKENBUDGET_API_KEY": "key",
    }
    assert call("replay", env=env).exit_code == 0
    assert not any("authorization" in request.headers for request in receiver.requests)


def test_replay_with_the_key_of_the_backend(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    env = {"TOKENBUDGET_ENDPOINT": receiver.url.removesuffix("/v1/traces"), "TOKENBUDGET_API_KEY": "key"}
    assert call("replay", env=env).exit_code == 0
    assert receiver.requests[0].headers["authorization"] == "Bearer key"
    assert receiver.requests[0].headers["x-tokenbudget-key"] == "key"


def test_replay_to_another_receiver(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    receiver.stop()
    other = Receiver()
    try:
        result = call("replay", "--to", other.url, "--header", "x-key=abc")
        assert (result.exit_code, result.output) == (0, f"{other.url}: 6 spans delivered\n")
        assert other.requests[0].headers["x-key"] == "abc"
    finally:
        other.close()


def test_replay_to_a_server_that_takes_only_json(
    call: Callable[..., Result], left: Tracing, receiver: Receiver
) -> None:
    receiver.mood = lambda request: Mood(200 if request.headers["content-type"].endswith("json") else 415)
    result = call("replay")
    assert (result.exit_code, result.output) == (0, f"{receiver.url}: 6 spans delivered\n")
    assert len(receiver.requests) == 3
    assert receiver.names == [f"span {number}" for number in range(6)]


def test_replay_of_what_was_refused(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    receiver.mood = Mood(401)
    result = call("replay")
    assert (result.exit_code, result.output) == (1, f"{receiver.url}: 0 spans delivered, 6 refused\n")
    assert "Nothing waits" in call("replay").output
    receiver.mood = FINE
    result = call("replay", "--refused")
    assert (result.exit_code, result.output) == (0, f"{receiver.url}: 6 spans delivered\n")


def test_replay_while_the_receiver_is_away(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    receiver.then(FINE, Mood(503))
    result = call("replay")
    assert result.exit_code == 1
    assert result.output == f"{receiver.url}: 2 spans delivered, 4 still waiting (it answered 503)\n"


def test_replay_while_another_process_delivers(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    from tokenbudget_otel.export.sender_lock import SenderLock

    (place,) = (path for path in left.spool.folder.iterdir() if path.is_dir())
    lock = SenderLock(place / "lock")
    assert lock.take()
    result = call("replay")
    assert result.exit_code == 0
    assert "another process is delivering" in result.output
    lock.release()


@pytest.mark.parametrize("to", ["collector:4318", "ftp://there", "http://"])
def test_replay_to_what_is_no_url(call: Callable[..., Result], left: Tracing, to: str) -> None:
    result = call("replay", "--to", to)
    assert result.exit_code == 2
    assert "is not a URL such as" in result.output


@pytest.mark.parametrize("header", ["authorization", "=x", "x=a\nb"])
def test_replay_with_what_is_no_header(call: Callable[..., Result], left: Tracing, header: str) -> None:
    assert call("replay", "--header", header).exit_code == 2


def test_export_as_json_lines(call: Callable[..., Result], left: Tracing, tmp_path: Path) -> None:
    result = call("export", str(tmp_path / "out.jsonl"))
    assert (result.exit_code, result.output) == (0, f"6 spans in 3 requests exported to {tmp_path / 'out.jsonl'}\n")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    spans = [
        span
        for line in lines
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert [(span["traceId"], span["spanId"]) for span in spans] == left.exporter.handed
    assert spans[0]["kind"] == 1
    assert len(list(left.spool.folder.glob("*/*.otlp"))) == 3  # it stays


def test_export_to_standard_output(left: Tracing) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "tokenbudget"), "spool", "export", "--folder", str(left.spool.folder), "-"],
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert len(io.BytesIO(done.stdout).readlines()) == 3


def test_export_as_files(call: Callable[..., Result], left: Tracing, tmp_path: Path) -> None:
    assert call("export", f"{tmp_path / 'out'}/").exit_code == 0
    found = sorted((tmp_path / "out").glob("*/*.otlp"))
    assert [name for path in found for name in names_in(path.read_bytes())] == [f"span {number}" for number in range(6)]
    assert call("export", str(tmp_path / "none" / "file")).exit_code == 1


def test_export_of_other_signals(
    call: Callable[..., Result], receiver: Receiver, folder: Path, make_spool: Callable[..., Spool]
) -> None:
    receiver.mood = Mood(503)
    spool = make_spool()
    exporter = OTLPMetricExporter(receiver.url.replace("traces", "metrics"), session=SpoolingSession(spool))
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 60_000)])
    provider.get_meter("test").create_counter("calls").add(3)
    provider.shutdown()
    (line,) = call("export", "-").stdout.splitlines()
    metric = json.loads(line)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
    assert (metric["name"], metric["sum"]["dataPoints"][0]["asInt"]) == ("calls", "3")


def test_clear_asks(call: Callable[..., Result], left: Tracing) -> None:
    result = call("clear", input="n\n")
    assert result.exit_code == 1
    assert "Delete 6 spans in 3 requests" in result.output
    assert len(list(left.spool.folder.glob("*/*.otlp"))) == 3
    assert "Deleted 6 spans." in call("clear", input="y\n").output
    assert not list(left.spool.folder.glob("*/*.otlp"))
    assert "dropped: 6 cleared" in call().output
    assert "nothing of that" in call("clear", "--yes").output


def test_clear_of_a_part(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    receiver.then(Mood(401), Mood(503))
    call("replay")
    assert "nothing of that" in call("clear", "--older-than", "1h", "--yes").output
    assert "Deleted 2 spans." in call("clear", "--refused-only", "--yes").output
    assert len(list(left.spool.folder.glob("*/*.otlp"))) == 2
    time.sleep(0.01)
    assert "Deleted 4 spans." in call("clear", "--older-than", "0.01s", "--yes").output
    assert call("clear", "--older-than", "a week").exit_code == 2


def test_one_destination(call: Callable[..., Result], left: Tracing, receiver: Receiver) -> None:
    assert "Deleted 6 spans." in call("clear", "--destination", receiver.url, "--yes").output
    result = call("clear", "--destination", "elsewhere", "--yes")
    assert result.exit_code == 2
    assert "known: 127.0.0.1" in result.output
