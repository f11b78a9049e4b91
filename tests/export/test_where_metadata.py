"""Metadata servers on loopback that answer as those of the clouds do, or do not answer: what comes of it, and how long
it takes at most."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import where_servers as servers
from where_machines import AZURE, EC2, GOOGLE, LAPTOP, POD_VARIABLES, build, forget_this_machine, need_detectors
from where_servers import MetadataServer, seconds_of

from tokenbudget_otel.export.where.detection import Found, detect
from tokenbudget_otel.export.where.evidence import Evidence

Served = Callable[[MetadataServer], MetadataServer]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    need_detectors()
    forget_this_machine(monkeypatch)
    from opentelemetry.resourcedetector.gcp_resource_detector import _metadata

    for kept in (_metadata.get_metadata, _metadata.is_available):
        kept.cache_clear()
    yield
    for kept in (_metadata.get_metadata, _metadata.is_available):
        kept.cache_clear()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Starts a server, and has every detector ask it instead of the cloud's."""
    from opentelemetry.resource.detector.azure import vm
    from opentelemetry.resourcedetector.gcp_resource_detector import _metadata
    from opentelemetry.sdk.extension.aws.resource import ec2

    with ExitStack() as stack:

        def start(server: MetadataServer) -> MetadataServer:
            stack.enter_context(server)
            monkeypatch.setattr(ec2, "_AWS_METADATA_HOST", server.address)
            monkeypatch.setattr(
                vm,
                "_AZURE_VM_METADATA_ENDPOINT",
                f"{server.url}/metadata/instance/compute?api-version=2021-12-13&format=json",
            )
            monkeypatch.setattr(_metadata, "_GCP_METADATA_URL", f"{server.url}/computeMetadata/v1/")
            return server

        yield start


def machine(root: Path, files: dict[str, str], seconds: float = 4) -> Found:
    return detect(Evidence(build(root, files)), seconds)


def without_the_host(found: Found) -> dict[str, object]:
    return {name: value for name, value in found.attributes.items() if name != "host.arch"}


def test_ec2(served: Served, tmp_path: Path) -> None:
    server = served(MetadataServer(servers.ec2))
    found = machine(tmp_path, EC2)
    assert without_the_host(found) == {
        "cloud.provider": "aws",
        "cloud.platform": "aws_ec2",
        "cloud.account.id": "123456789012",
        "cloud.region": "us-west-2",
        "cloud.availability_zone": "us-west-2b",
        "host.id": "i-1234567890abcdef0",
        "host.type": "t2.micro",
        "host.name": "ip-10-158-112-84.us-west-2.compute.internal",
    }
    assert found.notes == ()
    assert server.requests[0] == "PUT /latest/api/token", "IMDSv2"


def test_compute_engine(served: Served, tmp_path: Path) -> None:
    served(MetadataServer(servers.google()))
    assert without_the_host(machine(tmp_path, GOOGLE)) == {
        "cloud.provider": "gcp",
        "cloud.platform": "gcp_compute_engine",
        "cloud.account.id": "my-project",
        "cloud.region": "us-central1",
        "cloud.availability_zone": "us-central1-a",
        "host.id": "4520031799277581759",
        "host.type": "projects/233510669999/machineTypes/e2-medium",
        "host.name": "my-instance",
    }


def test_gke(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(MetadataServer(servers.google(servers.GKE)))
    for name, value in (POD_VARIABLES | {"POD_NAME": "web-1", "NODE_NAME": "gke-shop-1c2d"}).items():
        monkeypatch.setenv(name, value)
    attributes = without_the_host(machine(tmp_path, GOOGLE))
    assert attributes.pop("host.name") == socket.gethostname()
    assert attributes == {
        "cloud.provider": "gcp",
        "cloud.platform": "gcp_kubernetes_engine",
        "cloud.account.id": "my-project",
        "cloud.region": "europe-west4",
        "host.id": "1234567890123456789",
        "k8s.cluster.name": "shop",
        "k8s.pod.name": "web-1",
        "k8s.node.name": "gke-shop-1c2d",
    }


def test_cloud_run(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(MetadataServer(servers.google(servers.CLOUD_RUN)))
    for name, value in {"K_SERVICE": "shop", "K_REVISION": "shop-00042", "K_CONFIGURATION": "shop"}.items():
        monkeypatch.setenv(name, value)
    attributes = without_the_host(machine(tmp_path, {}))
    assert attributes.pop("host.name")
    assert attributes == {
        "cloud.provider": "gcp",
        "cloud.platform": "gcp_cloud_run",
        "cloud.account.id": "my-project",
        "cloud.region": "us-central1",
        "faas.name": "shop",
        "faas.version": "shop-00042",
        "faas.instance": "00bf4bf02d1ab7d5ba6a2cbd8a1e1f2c",
    }


def test_azure(served: Served, tmp_path: Path) -> None:
    served(MetadataServer(servers.azure))
    assert without_the_host(machine(tmp_path, AZURE)) == {
        "cloud.provider": "azure",
        "cloud.platform": "azure_vm",
        "cloud.region": "westus",
        "cloud.resource_id": servers.AZURE["resourceId"],
        "host.id": "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
        "host.name": "examplevmname",
        "host.type": "Standard_A3",
        "azure.vm.scaleset.name": "crpteste9vflji9",
        "azure.vm.sku": "22_04-lts-gen2",
    }


def test_ecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MetadataServer(servers.ecs) as server:
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", f"{server.url}/v4/ea32192c")
        attributes = without_the_host(machine(tmp_path, {}))
    assert attributes.pop("host.name") == attributes.pop("container.name") == socket.gethostname()
    assert attributes.pop("aws.log.group.names") == ("/ecs/metadata",)
    assert {name for name in attributes if name.startswith("aws.log.")} == {
        "aws.log.group.arns",
        "aws.log.stream.names",
        "aws.log.stream.arns",
    }
    assert {name: value for name, value in attributes.items() if not name.startswith("aws.log.")} == {
        "cloud.provider": "aws",
        "cloud.platform": "aws_ecs",
        "cloud.region": "us-west-2",
        "cloud.account.id": "111122223333",
        "aws.ecs.task.arn": servers.TASK,
        "aws.ecs.task.family": "curltest",
        "aws.ecs.task.revision": "26",
        "aws.ecs.cluster.arn": servers.CLUSTER,
        "aws.ecs.container.arn": servers.CONTAINER,
        "aws.ecs.launchtype": "ec2",
    }


def test_ecs_on_ec2_knows_both(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(MetadataServer(servers.ec2))
    with MetadataServer(servers.ecs) as task:
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", f"{task.url}/v4/ea32192c")
        attributes = machine(tmp_path, EC2).attributes
    assert attributes["cloud.platform"] == "aws_ecs"
    assert attributes["host.id"] == "i-1234567890abcdef0"
    assert attributes["cloud.availability_zone"] == "us-west-2b"


SILENT = {"EC2": EC2, "Compute Engine": GOOGLE, "Azure": AZURE}


@pytest.mark.parametrize("how", ["silent", "dripping"])
@pytest.mark.parametrize("cloud", SILENT)
def test_the_bound_holds(
    cloud: str, how: str, served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is known without asking is there all the same. (Azure's own limit is shorter than ours.)"""
    replies = {"EC2": servers.ec2, "Compute Engine": servers.google(), "Azure": servers.azure}[cloud]
    caplog.set_level("WARNING")
    server = served(MetadataServer(replies, silent=how == "silent", dripping=how == "dripping"))
    took, found = seconds_of(lambda: machine(tmp_path, SILENT[cloud], 0.5))
    assert took < 8, "half a second, and what a busy machine adds"
    assert server.requests
    assert found.attributes["cloud.provider"] in ("aws", "gcp", "azure")
    assert found.attributes["host.name"]
    assert "cloud.account.id" not in found.attributes
    assert len(found.notes) == 1 and not caplog.records, "one line of ours, and no traceback of theirs"
    assert cloud == "Azure" or found.notes[0].endswith("has not answered in time"), "it was still waiting"
    if cloud == "EC2":
        assert found.attributes["host.id"] == "i-1234567890abcdef0", "the firmware knows it"


def test_the_bound_is_for_all_of_them_together(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers are silent."""
    served(MetadataServer(servers.ec2, silent=True))
    with MetadataServer(servers.ecs, silent=True) as task:
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", f"{task.url}/v4/ea32192c")
        took, found = seconds_of(lambda: machine(tmp_path, EC2, 0.8))
    assert 0.8 <= took < 8
    assert all(note.endswith("has not answered in time") for note in found.notes), "both were still waiting"
    assert {note.partition(" ")[0] for note in found.notes} == {"aws_ec2", "aws_ecs"}
    assert found.attributes["cloud.platform"] == "aws_ecs"


def test_all_are_asked_at_once() -> None:
    """Each of three waits until all of them are under way."""
    from tokenbudget_otel.export.where.asking import ask

    together = threading.Barrier(3)
    answers = ask({name: lambda: {"place": together.wait(20)} for name in "abc"}, 20)
    assert sorted(answer["place"] for answer in answers.values()) == [0, 1, 2]


def test_one_that_is_silent_costs_the_others_nothing(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Kubernetes and on ECS the instance's server often cannot be reached."""
    served(MetadataServer(servers.ec2, silent=True))
    with MetadataServer(servers.ecs) as task:
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", f"{task.url}/v4/ea32192c")
        found = machine(tmp_path, EC2)
    assert found.attributes["aws.ecs.task.arn"] == servers.TASK
    assert [note.partition(" ")[0] for note in found.notes] == ["aws_ec2"]


def test_who_is_asked_in_vain_is_left_behind(served: Served, tmp_path: Path) -> None:
    """In threads that do not keep the program from ending."""
    served(MetadataServer(servers.ec2, silent=True))
    machine(tmp_path, EC2, 0.1)
    left = [thread for thread in threading.enumerate() if thread.name.startswith("tokenbudget-where-")]
    assert left and all(thread.daemon for thread in left)


WRONG = {
    "not found": lambda *_: (404, ""),
    "forbidden": lambda *_: (403, ""),
    "broken": lambda *_: (500, "Internal Server Error"),
    "another's page": lambda *_: (200, "<html>log in to the wireless network</html>"),
    "empty": lambda *_: (200, ""),
    "another shape": lambda *_: (200, '["a", "b"]'),
}


@pytest.mark.parametrize("files", [EC2, GOOGLE, AZURE], ids=["EC2", "Compute Engine", "Azure"])
@pytest.mark.parametrize("answer", WRONG)
def test_answers_that_cannot_be_meant(answer: str, files: dict[str, str], served: Served, tmp_path: Path) -> None:
    served(MetadataServer(WRONG[answer]))
    found = machine(tmp_path, files)
    assert len(found.notes) == 1
    assert found.attributes["cloud.provider"]
    assert "cloud.account.id" not in found.attributes and "cloud.region" not in found.attributes


def test_nobody_is_asked_on_a_laptop(served: Served, tmp_path: Path) -> None:
    server = served(MetadataServer(servers.ec2))
    found = machine(tmp_path, LAPTOP)
    assert server.requests == []
    assert not [name for name in found.attributes if not name.startswith(("host.", "container."))]


def test_only_the_cloud_that_it_is_gets_asked(served: Served, tmp_path: Path) -> None:
    server = served(MetadataServer(lambda *_: (404, "")))
    machine(tmp_path, AZURE)
    assert [request.partition("?")[0] for request in server.requests] == ["GET /metadata/instance/compute"]


@pytest.mark.parametrize(
    ("files", "variable", "value"),
    [(EC2, "AWS_EC2_METADATA_DISABLED", "true"), (GOOGLE, "NO_GCE_CHECK", "True")],
)
def test_what_tells_the_clouds_sdk_not_to_ask_tells_us(
    files: dict[str, str], variable: str, value: str, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = served(MetadataServer(servers.ec2))
    monkeypatch.setenv(variable, value)
    found = machine(tmp_path, files)
    assert server.requests == []
    assert [variable in note for note in found.notes] == [True]


def test_a_proxy_is_not_asked_for_its_own_metadata(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detector would go through it: it would learn where the proxy runs, and take that for its own place."""
    with MetadataServer(servers.ec2) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:secret@{proxy.address}")
        found = machine(tmp_path, EC2)
        assert proxy.requests == []
    assert "NO_PROXY" in found.notes[0] and "secret" not in found.notes[0]
    server = served(MetadataServer(servers.ec2))
    monkeypatch.setenv("no_proxy", "169.254.169.254,127.0.0.1")
    assert machine(tmp_path, EC2).attributes["cloud.account.id"] == "123456789012"
    assert server.requests


def test_with_a_bound_of_nothing_nobody_is_asked(served: Served, tmp_path: Path) -> None:
    server = served(MetadataServer(servers.ec2))
    found = machine(tmp_path, EC2, 0)
    assert server.requests == [] and found.notes == ()
    assert found.attributes["host.id"] == "i-1234567890abcdef0"


def test_a_detector_that_opentelemetry_calls_is_not_called_again(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = served(MetadataServer(servers.ec2))
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "otel, aws_ec2 ,tokenbudget")
    machine(tmp_path, EC2)
    assert server.requests == []
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "*")
    machine(tmp_path, EC2)
    assert server.requests == []


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenbudget_otel.export.where.asking.entry_points", lambda group: ())
    found = machine(tmp_path, EC2)
    assert [note for note in found.notes if note.startswith("aws_ec2")] == [
        "aws_ec2 of opentelemetry-sdk-extension-aws is not installed (pip install 'tokenbudget-otel[where]')"
    ]
    assert found.attributes["host.id"] == "i-1234567890abcdef0"


def test_these_requests_are_not_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose HTTP libraries are traced has no spans of them."""
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    from tokenbudget_otel.export.where.asking import ask

    answers = ask({"host": lambda: {"traced": is_instrumentation_enabled()}}, 4)
    assert answers == {"host": {"traced": False}}
    assert is_instrumentation_enabled()


@pytest.mark.parametrize("address", ["http://[169.254", "nowhere", "file:///etc/passwd?", "http://"])
def test_addresses_that_are_none(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", address)
    found = machine(tmp_path, EC2)
    assert found.attributes["cloud.platform"] == "aws_ecs"
    assert found.attributes["host.id"] == "i-1234567890abcdef0"
    assert {note.partition(" ")[0] for note in found.notes} == {"aws_ec2", "aws_ecs"}


def test_a_row_of_the_table_that_fails_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenbudget_otel.export.where import detection
    from tokenbudget_otel.export.where.places import PLACES, Place

    def fails(_evidence: Evidence) -> Mapping[str, str]:
        raise RuntimeError("a bug of ours")

    broken = (Place("a", lambda evidence: bool(fails(evidence))), Place("b", lambda _: True, fails))
    monkeypatch.setattr(detection, "PLACES", (*broken, *PLACES))
    assert machine(tmp_path, EC2, 0).attributes["host.id"] == "i-1234567890abcdef0"
