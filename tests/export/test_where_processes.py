"""Whole programs: what `opentelemetry-instrument` and `tokenbudget run` put on the resources that a receiver gets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import where_servers as servers
from where_machines import POD_VARIABLES, bare, need_detectors
from where_servers import MetadataServer, Receiver

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent

WORK = """
import json, time
from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("work"):
    pass
print(json.dumps({"variable": __import__("os").environ.get("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS")}))
"""

ON = {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "otel,tokenbudget"}
UNHURRIED = {**ON, "TOKENBUDGET_WHERE_TIMEOUT": "4"}
"""For tests of what is answered: a busy machine may need more than the usual second."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    need_detectors()
    with Receiver() as receiving:
        yield receiving


def environment(**variables: str) -> dict[str, str]:
    return {
        **bare(os.environ),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        # The official packages import the SDKs, at a second each.
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "openai,anthropic",
        **variables,
    }


def run(receiver: Receiver, folder: Path, *under: str, **variables: str) -> dict[str, Any]:
    """What a program says that makes a span under another program."""
    (folder / "app.py").write_text(WORK)
    done = subprocess.run(
        [*under, "python", "app.py"],
        cwd=folder,
        env=environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", **variables
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


POD = POD_VARIABLES | {"POD_NAME": "web-1", "POD_NAMESPACE": "shop", "NODE_NAME": "node-7", "POD_UID": "3fb1f1a6"}


def test_a_pods_place_reaches_the_receiver(receiver: Receiver, tmp_path: Path) -> None:
    run(receiver, tmp_path, "opentelemetry-instrument", OTEL_RESOURCE_ATTRIBUTES="k8s.pod.name=mine", **POD, **ON)
    (resource,) = receiver.spans
    assert {name: value for name, value in resource.items() if name.startswith(("k8s.", "host.name"))} == {
        "k8s.pod.name": "mine",
        "k8s.namespace.name": "shop",
        "k8s.node.name": "node-7",
        "k8s.pod.uid": "3fb1f1a6",
        "host.name": socket.gethostname(),
    }
    assert resource["telemetry.sdk.name"] == "opentelemetry"


def test_what_a_metadata_server_says_reaches_the_receiver(receiver: Receiver, tmp_path: Path) -> None:
    with MetadataServer(servers.ecs) as task:
        run(
            receiver,
            tmp_path,
            "opentelemetry-instrument",
            ECS_CONTAINER_METADATA_URI_V4=f"{task.url}/v4/ea32192c",
            **UNHURRIED,
        )
        assert task.requests == ["GET /v4/ea32192c", "GET /v4/ea32192c/task"], "once, and by us alone"
    (resource,) = receiver.spans
    assert resource["aws.ecs.task.arn"] == servers.TASK
    assert resource["cloud.region"] == "us-west-2"


def test_a_metadata_server_that_is_silent_does_not_keep_the_program(receiver: Receiver, tmp_path: Path) -> None:
    """Neither when it starts nor when it ends: the thread that waits is left behind. The detector itself would wait for
    five seconds, twice."""
    with MetadataServer(servers.ecs, silent=True) as task:
        run(
            receiver,
            tmp_path,
            "opentelemetry-instrument",
            ECS_CONTAINER_METADATA_URI_V4=f"{task.url}/v4/ea32192c",
            TOKENBUDGET_WHERE_TIMEOUT="0.3",
            **ON,
        )
        assert task.requests == ["GET /v4/ea32192c"], "the program had ended before the next one"
    (resource,) = receiver.spans
    assert resource["cloud.platform"] == "aws_ecs"
    assert "aws.ecs.task.arn" not in resource


def test_without_the_variable_nothing_is_added(receiver: Receiver, tmp_path: Path) -> None:
    run(receiver, tmp_path, "opentelemetry-instrument", **POD)
    (resource,) = receiver.spans
    assert not [name for name in resource if name.startswith(("k8s.", "host.", "cloud."))]


@pytest.mark.parametrize("before", [None, "process", "tokenbudget"])
def test_tokenbudget_run_has_it_on_where_the_extra_is_installed(
    before: str | None, receiver: Receiver, tmp_path: Path
) -> None:
    """And leaves the variable as it is for the program."""
    named = {} if before is None else {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": before}
    said = run(receiver, tmp_path, "tokenbudget", "run", "--quiet", "--", **POD, **named)
    assert said["variable"] == before
    (resource,) = receiver.spans
    assert resource["k8s.node.name"] == "node-7"
    assert ("process.pid" in resource) == (before == "process")


def test_metrics_have_it_too(receiver: Receiver, tmp_path: Path) -> None:
    program = "from opentelemetry import metrics; metrics.get_meter('app').create_counter('work').add(1)"
    (tmp_path / "app.py").write_text(program)
    subprocess.run(
        ["opentelemetry-instrument", "python", "app.py"],
        cwd=tmp_path,
        env=environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            **POD,
            **ON,
        )
        | {"OTEL_METRICS_EXPORTER": "otlp"},
        timeout=60,
        check=True,
    )
    assert {resource["k8s.node.name"] for resource in receiver.metrics} == {"node-7"}


GUARD = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)) if event.startswith((
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")) else None)
import tokenbudget_otel
import tokenbudget_otel.export.where as place
import tokenbudget_otel.export.where.detection
{then}
assert not seen, seen
"""


@pytest.mark.parametrize(
    ("then", "variables"),
    [
        ("", {"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:9/v4/x", "K_SERVICE": "x", "K_CONFIGURATION": "x"}),
        ("place.WhereDetector()", {"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:9/v4/x"}),
        ("assert place.where().attributes['host.name']", {}),
        ("assert place.where().attributes['k8s.node.name']", POD),
        ("assert place.where().attributes['faas.name']", {"AWS_LAMBDA_FUNCTION_NAME": "charge"}),
        ("assert place.where().attributes['cloud.platform'] == 'aws_ecs'", {
            "ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:9/v4/x", "TOKENBUDGET_WHERE_TIMEOUT": "0"}),
    ],
    ids=["importing", "making one", "on a laptop", "in a pod", "in a function", "with a bound of nothing"],
)  # fmt: skip
def test_no_network(then: str, variables: dict[str, str]) -> None:
    """Seen by the interpreter itself, which is told of every connection and every name that is looked up. On a machine
    of a cloud the third would ask, and rightly so: there it is left to the namespaces below."""
    if "laptop" in then and _on_a_cloud():
        pytest.skip("this is a machine of a cloud")
    done = subprocess.run(
        [sys.executable, "-c", GUARD.format(then=then)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_it_does_not_import_the_detectors_of_others() -> None:
    program = (
        "import sys, tokenbudget_otel.export.where, tokenbudget_otel.export.where.detection\n"
        "late = [name for name in sys.modules if name.startswith(('opentelemetry.resource.detector', 'requests',\n"
        "        'opentelemetry.resourcedetector', 'opentelemetry.sdk.extension'))]\n"
        "assert not late, late"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), timeout=60, check=True)


def _on_a_cloud() -> bool:
    from tokenbudget_otel.export.where.detection import detect
    from tokenbudget_otel.export.where.evidence import Evidence

    return "cloud.provider" in detect(Evidence(environ={}), 0).attributes


NAMESPACES = ("unshare", "--map-root-user", "--net", "--mount")


def in_a_cloud(cloud: str, how: str, folder: Path, *command: str, **variables: str) -> dict[str, Any]:
    """Run a command on a machine of a cloud, or on one that is like it from within."""
    need_detectors()
    _need_namespaces()
    (folder / "app.py").write_text(WORK)
    done = subprocess.run(
        [*NAMESPACES, sys.executable, str(HERE / "where_namespace.py"), cloud, how, *command],
        cwd=folder,
        # The folder of what tests share, too: the program stands one below.
        env=environment(PYTHONPATH=str(HERE.parent), **variables),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["code"] == 0, said["err"]
    assert "Traceback" not in said["err"], said["err"]
    return said


def _need_namespaces() -> None:
    missing = [program for program in ("unshare", "ip") if shutil.which(program) is None]
    if missing:
        text = f"{', '.join(missing)} is needed for a network of its own"
        (pytest.fail if os.environ.get("TOKENBUDGET_CI") else pytest.skip)(text)
    test = [*NAMESPACES, "sh", "-c", "ip link set lo up && mount -t tmpfs tmpfs /sys/class"]
    if subprocess.run(test, capture_output=True).returncode:  # not a matter of what is installed
        pytest.skip("this user, or this kernel, may not make a network of its own")


CLOUDS = {
    "ec2": ("123456789012", "us-west-2", "i-1234567890abcdef0"),
    "google": ("my-project", "us-central1", "4520031799277581759"),
    "azure": (None, "westus", "02aab8a4-74ef-476e-8182-f6d2ba4166a6"),
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_on_a_machine_of_a_cloud(cloud: str, tmp_path: Path) -> None:
    """At the real address, by the real firmware's files: nothing in the program is replaced."""
    said = in_a_cloud(cloud, "answers", tmp_path, "opentelemetry-instrument", "python", "app.py", **UNHURRIED)
    (resource,) = said["spans"]
    found = (resource.get("cloud.account.id"), resource["cloud.region"], resource["host.id"])
    assert found == CLOUDS[cloud], said["err"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_on_a_machine_whose_metadata_server_is_silent(cloud: str, tmp_path: Path) -> None:
    said = in_a_cloud(
        cloud, "silent", tmp_path, "opentelemetry-instrument", "python", "app.py", TOKENBUDGET_WHERE_TIMEOUT="0.3", **ON
    )
    (resource,) = said["spans"]
    assert resource["cloud.provider"] == {"ec2": "aws", "google": "gcp", "azure": "azure"}[cloud]
    assert said["asked"]


def test_on_a_machine_under_a_desk(tmp_path: Path) -> None:
    """Somebody answers at the address, and is not asked."""
    said = in_a_cloud("laptop", "answers", tmp_path, "opentelemetry-instrument", "python", "app.py", **ON)
    (resource,) = said["spans"]
    assert said["asked"] == []
    assert "cloud.provider" not in resource and resource["host.name"]


def test_the_doctor_says_it(tmp_path: Path) -> None:
    said = in_a_cloud("ec2", "answers", tmp_path, "sh", "-c", "tokenbudget doctor; true", **UNHURRIED)
    (line,) = [line for line in said["out"].splitlines() if "where it runs" in line]
    assert "cloud.platform=aws_ec2" in line and "host.id=i-1234567890abcdef0" in line
