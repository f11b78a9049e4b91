"""Programs that know nothing of exporters: by name in the environment, in a file, and under `tokenbudget run`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace.export import SpanExporter
from receiver import Mood, Receiver

from tokenbudget_otel.cli.metered import exporters_for_backend
from tokenbudget_otel.export import SpooledOTLPSpanExporter, TokenBudgetSpanExporter
from tokenbudget_otel.simulator import Simulator

KEY = "tb_ak_0123456789abcdef0123456789abcdef"

CALL = """
import openai
from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("work"):
    openai.OpenAI(max_retries=0).chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Hi"}], max_tokens=50,
        extra_headers={"x-simulate": '{"input_tokens": 1000, "output_tokens": 50}'})
import tokenbudget_otel as tb
print(tb.usage().cost_usd)
"""
"""A call that costs $0.003, in a span of the program's own."""


class Place:
    """A folder to run programs in."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def run(self, *command: str, code: int = 0, **env: str) -> tuple[str, str]:
        """What it said on stdout and stderr."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def instrumented(self, **env: str) -> tuple[str, str]:
        return self.run("opentelemetry-instrument", "python", "app.py", **env)


@pytest.fixture
def place(sim: Simulator, tmp_path: Path) -> Place:
    (tmp_path / "app.py").write_text(CALL)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON", "TOKENBUDGET_"))
    }
    return Place(
        tmp_path,
        environment
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OPENAI_BASE_URL": sim.openai_url,
            "OPENAI_API_KEY": "any",
            "TOKENBUDGET_HOSTS": f"{sim.openai_url}=openai",
            "TOKENBUDGET_SPOOL": str(tmp_path / "spool"),
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            # The official packages import the SDKs, at a second each.
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "openai,anthropic",
        },
    )


@pytest.fixture
def collector() -> Iterator[Receiver]:
    """What takes OTLP beside the backend."""
    found = Receiver()
    yield found
    found.close()


def base(receiver: Receiver) -> str:
    return receiver.url.removesuffix("/v1/traces")


def test_the_names_are_registered() -> None:
    found = {each.name: each.load() for each in entry_points(group="opentelemetry_traces_exporter")}
    assert issubclass(found["tokenbudget"], TokenBudgetSpanExporter)
    assert issubclass(found["otlp_spooled"], SpooledOTLPSpanExporter)
    assert all(issubclass(found[name], SpanExporter) for name in ("tokenbudget", "otlp_spooled"))


def test_by_name_beside_the_standard_exporter(place: Place, receiver: Receiver, collector: Receiver) -> None:
    out, err = place.instrumented(
        OTEL_TRACES_EXPORTER="otlp,tokenbudget",
        OTEL_EXPORTER_OTLP_ENDPOINT=base(collector),
        OTEL_EXPORTER_OTLP_HEADERS="x-vendor-key=secret",
        TOKENBUDGET_ENDPOINT=base(receiver),
        TOKENBUDGET_API_KEY=KEY,
    )
    assert out == "0.003\n" and "Traceback" not in err
    assert sorted(collector.names) == ["chat gpt-4o", "work"]
    assert receiver.names == ["chat gpt-4o"]
    (request,) = receiver.requests
    assert request.headers["authorization"] == f"Bearer {KEY}" and "x-vendor-key" not in request.headers
    (other,) = collector.requests
    assert other.headers["x-vendor-key"] == "secret" and "authorization" not in other.headers
    (span,) = [
        span
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    attributes = {each.key: each.value for each in span.attributes}
    assert attributes["gen_ai.usage.cost"].double_value == pytest.approx(0.003)
    assert attributes["gen_ai.usage.prompt_tokens"].int_value == 1000


def test_a_backend_that_is_away_gets_the_spans_with_the_next_program(place: Place, receiver: Receiver) -> None:
    env = {
        "OTEL_TRACES_EXPORTER": "tokenbudget",
        "TOKENBUDGET_ENDPOINT": base(receiver),
        "TOKENBUDGET_API_KEY": KEY,
    }
    receiver.stop()
    assert place.instrumented(**env)[0] == "0.003\n"
    (place.folder / "idle.py").write_text("import time; time.sleep(0.5)")
    receiver.start()
    place.run("opentelemetry-instrument", "python", "idle.py", **env)
    assert receiver.names == ["chat gpt-4o"], "sent by a program that has made no span"


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (
            {"TOKENBUDGET_ENDPOINT": "localhost:8000"},
            "TOKENBUDGET_ENDPOINT: 'localhost:8000' is no http(s) URL: give one",
        ),
        ({"TOKENBUDGET_API_KEY": "hidden\n"}, "TOKENBUDGET_API_KEY: the key has a line break"),
        ({"TOKENBUDGET_COMPRESSION": "zip"}, "TOKENBUDGET_COMPRESSION: compression 'zip' is not known"),
        ({"TOKENBUDGET_SPOOL": "app.py"}, "the spool"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_is_said_and_all_else_goes_on(
    place: Place, collector: Receiver, env: dict[str, str], says: str
) -> None:
    out, err = place.instrumented(
        OTEL_TRACES_EXPORTER="tokenbudget,otlp", OTEL_EXPORTER_OTLP_ENDPOINT=base(collector), **env
    )
    assert f"the exporter tokenbudget exports nothing: {says}" in err
    assert "Traceback" not in err and "hidden" not in err
    assert out == "0.003\n", "the call was metered"
    assert sorted(collector.names) == ["chat gpt-4o", "work"], "and exported by the other exporter"


def need_declarative_files() -> None:
    """Skip where the package for them is not installed. Where everything is, it has to be there."""
    if importlib.util.find_spec("opentelemetry.configuration") is None:
        say = pytest.fail if os.environ.get("TOKENBUDGET_CI") else pytest.skip
        say("opentelemetry-configuration is not installed")


def test_the_declarative_file(place: Place, receiver: Receiver) -> None:
    need_declarative_files()
    (place.folder / "otel.yaml").write_text(
        f"""
file_format: "1.0"
tracer_provider:
  processors:
    - batch:
        exporter:
          tokenbudget: {{endpoint: "{base(receiver)}", api_key: "${{MY_KEY}}", compression: none, timeout: 5,
                         all_spans: true, spool: other-spool}}
"""
    )
    out, err = place.instrumented(OTEL_CONFIG_FILE="otel.yaml", MY_KEY=KEY)
    assert out == "0.003\n" and "Traceback" not in err
    assert sorted(receiver.names) == ["chat gpt-4o", "work"]
    (request,) = receiver.requests
    assert request.headers["x-tokenbudget-key"] == KEY and "content-encoding" not in request.headers
    assert (place.folder / "other-spool").is_dir()


def test_an_option_that_is_not_known_is_said(place: Place) -> None:
    need_declarative_files()
    (place.folder / "otel.yaml").write_text(
        'file_format: "1.0"\ntracer_provider: {processors: [{batch: {exporter: {tokenbudget: {endpiont: x}}}}]}\n'
    )
    out, err = place.instrumented(OTEL_CONFIG_FILE="otel.yaml")
    assert out == "0.003\n"
    assert "the exporter tokenbudget exports nothing" in err and "endpiont" in err


# --- the standard exporters ----------------------------------------------------------------------------------------


def test_the_standard_exporter_by_http(place: Place, collector: Receiver) -> None:
    place.instrumented(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=base(collector))
    assert sorted(collector.names) == ["chat gpt-4o", "work"]


def test_the_standard_exporter_with_a_spool_by_http(place: Place, collector: Receiver) -> None:
    env = {
        "OTEL_TRACES_EXPORTER": "otlp_spooled",
        "OTEL_EXPORTER_OTLP_ENDPOINT": base(collector),
        "OTEL_EXPORTER_OTLP_HEADERS": "x-vendor-key=secret",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    collector.stop()
    place.instrumented(**env)
    collector.start()
    place.instrumented(**env)
    assert sorted(collector.names) == ["chat gpt-4o", "chat gpt-4o", "work", "work"]
    assert set(collector.spans.values()) == {1}
    for request in collector.requests:
        assert request.headers["x-vendor-key"] == "secret" and request.headers["content-encoding"] == "gzip"


def test_a_protocol_that_is_not_known_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^protocol: 'http/json' is not known here: give one of http/protobuf, grpc"):
        SpooledOTLPSpanExporter("http/json", tmp_path / "spool")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "carrier-pigeon")
    with pytest.raises(ValueError, match=r"^OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'carrier-pigeon'"):
        SpooledOTLPSpanExporter(spool=tmp_path / "spool")


def need_grpc() -> None:
    """Skip where the package is not installed. Where everything is, it has to be there."""
    if importlib.util.find_spec("grpc") is None or not entry_points(
        group="opentelemetry_traces_exporter", name="otlp_proto_grpc"
    ):
        say = pytest.fail if os.environ.get("TOKENBUDGET_CI") else pytest.skip
        say("opentelemetry-exporter-otlp-proto-grpc is not installed")


class GrpcReceiver:
    """Takes OTLP over gRPC."""

    def __init__(self) -> None:
        import grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service

        self.names: list[str] = []
        self.headers: list[dict[str, Any]] = []
        receiver = self

        class Servicer(service.TraceServiceServicer):  # type: ignore[misc,name-defined]
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
                receiver.headers.append(dict(context.invocation_metadata()))
                receiver.names += [
                    span.name
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
                return ExportTraceServiceResponse()

        self._make: Callable[[], Any] = lambda: grpc.server(futures.ThreadPoolExecutor(2))
        self._add = lambda server: service.add_TraceServiceServicer_to_server(Servicer(), server)
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = self._make()
        self._add(self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def grpc_receiver() -> Iterator[GrpcReceiver]:
    need_grpc()
    found = GrpcReceiver()
    yield found
    found.stop()


def test_the_standard_exporter_by_grpc(place: Place, grpc_receiver: GrpcReceiver) -> None:
    place.instrumented(
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{grpc_receiver.port}",
    )
    assert sorted(grpc_receiver.names) == ["chat gpt-4o", "work"]


def test_the_standard_exporter_with_a_spool_by_grpc(place: Place, grpc_receiver: GrpcReceiver) -> None:
    env = {
        "OTEL_TRACES_EXPORTER": "otlp_spooled",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-vendor-key=secret",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{grpc_receiver.port}",
    }
    grpc_receiver.stop()
    place.instrumented(**env)
    grpc_receiver.start()
    place.instrumented(**env)
    assert sorted(grpc_receiver.names) == ["chat gpt-4o", "chat gpt-4o", "work", "work"]
    assert all(headers["x-vendor-key"] == "secret" for headers in grpc_receiver.headers)


# --- tokenbudget run -------------------------------------------------------------------------------------------------


def test_run_exports_to_the_backend_where_its_endpoint_is_set(place: Place, receiver: Receiver) -> None:
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"):
        del place.environment[name]
    receiver.mood = lambda request: Mood(200 if request.headers["content-type"].endswith("json") else 415)
    out, err = place.run(
        *("tokenbudget", "run", "--tag", "team=search", "--json", "report.json", "--", "python", "app.py"),
        TOKENBUDGET_ENDPOINT=base(receiver), TOKENBUDGET_API_KEY=KEY,
    )  # fmt: skip
    assert out == "0.003\n" and "Traceback" not in err and KEY not in err
    assert receiver.names == ["chat gpt-4o"]
    assert json.loads((place.folder / "report.json").read_text())["totals"]["calls"] == 1
    (request,) = receiver.requests
    assert request.headers["content-type"] == "application/json" and b'"tokenbudget.tag.team"' in request.body


def test_run_exports_to_both_where_there_are_two_endpoints(
    place: Place, receiver: Receiver, collector: Receiver
) -> None:
    place.run(
        *("tokenbudget", "run", "--", "python", "app.py"),
        TOKENBUDGET_ENDPOINT=base(receiver), TOKENBUDGET_API_KEY=KEY, OTEL_EXPORTER_OTLP_ENDPOINT=base(collector),
    )  # fmt: skip
    assert receiver.names == ["chat gpt-4o"] and sorted(collector.names) == ["chat gpt-4o", "work"]


BACKEND = {"TOKENBUDGET_ENDPOINT": "http://localhost:8000"}
NO_METRICS = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, {}),
        ({"TOKENBUDGET_ENDPOINT": " "}, {}),
        (BACKEND, {"OTEL_TRACES_EXPORTER": "tokenbudget", **NO_METRICS}),
        (BACKEND | {"OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, {"OTEL_TRACES_EXPORTER": "otlp,tokenbudget"}),
        (
            BACKEND | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "x"},
            {"OTEL_TRACES_EXPORTER": "otlp,tokenbudget", **NO_METRICS},
        ),
        (
            BACKEND | {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "x"},
            {"OTEL_TRACES_EXPORTER": "tokenbudget", "OTEL_LOGS_EXPORTER": "none"},
        ),
        (
            BACKEND | {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"},
            {"OTEL_LOGS_EXPORTER": "none"},
        ),
        (BACKEND | {"OTEL_CONFIG_FILE": "otel.yaml"}, {}),
    ],
)
def test_what_run_has_exported(environment: dict[str, str], said: dict[str, str]) -> None:
    assert exporters_for_backend(environment) == said


def test_without_a_spool_it_is_the_standard_exporter(place: Place, collector: Receiver) -> None:
    place.instrumented(
        OTEL_TRACES_EXPORTER="otlp_spooled", OTEL_EXPORTER_OTLP_ENDPOINT=base(collector), TOKENBUDGET_SPOOL="none"
    )
    assert sorted(collector.names) == ["chat gpt-4o", "work"]
    assert not (place.folder / "none").exists()
