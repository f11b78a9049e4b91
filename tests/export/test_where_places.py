"""What is recognised without a network: firmware, variables and files of every place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from where_machines import (
    AZURE,
    CONTAINER_ID,
    EC2,
    EC2_XEN,
    GOOGLE,
    HYPER_V,
    LAPTOP,
    POD,
    POD_UID,
    POD_VARIABLES,
    SANDBOX_ID,
    build,
    forget_this_machine,
    need_detectors,
)

from tokenbudget_otel.export.where.detection import detect
from tokenbudget_otel.export.where.evidence import Evidence
from tokenbudget_otel.export.where.kubernetes import kubernetes

LAMBDA = {
    "AWS_LAMBDA_FUNCTION_NAME": "charge",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/30/[$LATEST]2fd2",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    "AWS_REGION": "eu-west-1",
}
APP_SERVICE = {
    "WEBSITE_SITE_NAME": "shop",
    "WEBSITE_HOSTNAME": "shop.azurewebsites.net",
    "WEBSITE_INSTANCE_ID": "5a1b",
    "WEBSITE_RESOURCE_GROUP": "group",
    "WEBSITE_OWNER_NAME": "8d10da13+group-WestEuropewebspace",
    "WEBSITE_SLOT_NAME": "Production",
    "REGION_NAME": "westeurope",
}
CLUSTER = "/subscriptions/8d10da13/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/shop"

PLACES: Mapping[str, tuple[Mapping[str, str], Mapping[str, str], dict[str, object]]] = {
    # name: files, variables, attributes beside the host's own
    "EC2": (EC2, {}, {"cloud.provider": "aws", "cloud.platform": "aws_ec2", "host.id": "i-1234567890abcdef0"}),
    "EC2, the old type": (EC2_XEN, {}, {"cloud.provider": "aws", "cloud.platform": "aws_ec2"}),
    "Compute Engine": (GOOGLE, {}, {"cloud.provider": "gcp"}),
    "Azure VM": (AZURE, {}, {"cloud.provider": "azure"}),
    "Oracle": ({"sys/class/dmi/id/chassis_asset_tag": "OracleCloud.com\n"}, {}, {"cloud.provider": "oracle_cloud"}),
    "Alibaba": ({"sys/class/dmi/id/sys_vendor": "Alibaba Cloud\n"}, {}, {"cloud.provider": "alibaba_cloud"}),
    "Tencent": ({"sys/class/dmi/id/sys_vendor": "Tencent Cloud\n"}, {}, {"cloud.provider": "tencent_cloud"}),
    "Hetzner": ({"sys/class/dmi/id/sys_vendor": "Hetzner\n"}, {}, {"cloud.provider": "hetzner"}),
    "DigitalOcean": ({"sys/class/dmi/id/sys_vendor": "DigitalOcean\n"}, {}, {"cloud.provider": "digitalocean"}),
    "Lambda": (
        {},
        LAMBDA,
        {
            "cloud.provider": "aws",
            "cloud.platform": "aws_lambda",
            "cloud.region": "eu-west-1",
            "faas.name": "charge",
            "faas.version": "$LATEST",
            "faas.instance": "2026/11/30/[$LATEST]2fd2",
            "faas.max_memory": 512,
        },
    ),
    "ECS, nobody asked": (
        {},
        {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/ea32192c"},
        {"cloud.provider": "aws", "cloud.platform": "aws_ecs"},
    ),
    "EKS, a role for the account": (
        EC2,
        POD_VARIABLES | {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"},
        {"cloud.provider": "aws", "cloud.platform": "aws_eks", "host.id": "i-1234567890abcdef0"},
    ),
    "EKS, pod identity": (
        {},
        POD_VARIABLES | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"},
        {"cloud.provider": "aws", "cloud.platform": "aws_eks"},
    ),
    "AKS": (
        AZURE,
        POD_VARIABLES | {"CLUSTER_RESOURCE_ID": CLUSTER},
        {
            "cloud.provider": "azure",
            "cloud.platform": "azure.aks",
            "cloud.resource_id": CLUSTER,
            "cloud.account.id": "8d10da13",
        },
    ),
    "Cloud Run": (
        {},
        {"K_SERVICE": "shop", "K_REVISION": "shop-00042", "K_CONFIGURATION": "shop", "PORT": "8080"},
        {
            "cloud.provider": "gcp",
            "cloud.platform": "gcp_cloud_run",
            "faas.name": "shop",
            "faas.version": "shop-00042",
        },
    ),
    "Cloud Run job": (
        {},
        {"CLOUD_RUN_JOB": "nightly", "CLOUD_RUN_EXECUTION": "nightly-x7", "CLOUD_RUN_TASK_INDEX": "3"},
        {
            "cloud.provider": "gcp",
            "cloud.platform": "gcp_cloud_run",
            "faas.name": "nightly",
            "gcp.cloud_run.job.execution": "nightly-x7",
            "gcp.cloud_run.job.task_index": "3",
        },
    ),
    "Cloud Functions": (
        {},
        {"K_SERVICE": "charge", "K_REVISION": "charge-1", "K_CONFIGURATION": "charge", "FUNCTION_TARGET": "main"},
        {
            "cloud.provider": "gcp",
            "cloud.platform": "gcp_cloud_functions",
            "faas.name": "charge",
            "faas.version": "charge-1",
        },
    ),
    "App Engine": (
        {},
        {"GAE_SERVICE": "default", "GAE_VERSION": "20261130t1", "GAE_INSTANCE": "00c6", "GAE_ENV": "standard"},
        {
            "cloud.provider": "gcp",
            "cloud.platform": "gcp_app_engine",
            "faas.name": "default",
            "faas.version": "20261130t1",
            "faas.instance": "00c6",
        },
    ),
    "App Service": (
        {},
        APP_SERVICE,
        {
            "cloud.provider": "azure",
            "cloud.platform": "azure_app_service",
            "cloud.region": "westeurope",
            "cloud.resource_id": "/subscriptions/8d10da13/resourceGroups/group/providers/Microsoft.Web/sites/shop",
            "host.id": "shop.azurewebsites.net",
        },
    ),
    "Azure Functions": (
        {},
        APP_SERVICE | {"FUNCTIONS_WORKER_RUNTIME": "python", "WEBSITE_MEMORY_LIMIT_MB": "1536"},
        {
            "cloud.provider": "azure",
            "cloud.platform": "azure_functions",
            "cloud.region": "westeurope",
            "cloud.resource_id": "/subscriptions/8d10da13/resourceGroups/group/providers/Microsoft.Web/sites/shop",
            "faas.name": "shop",
            "faas.instance": "5a1b",
            "faas.max_memory": 1536,
            "host.id": "shop.azurewebsites.net",
        },
    ),
    "Azure Container Apps": (
        {},
        {
            "CONTAINER_APP_NAME": "shop",
            "CONTAINER_APP_REVISION": "shop--20mh1s9",
            "CONTAINER_APP_REPLICA_NAME": "shop--20mh1s9-86c8c4b497-zx9bq",
        },
        {
            "cloud.provider": "azure",
            "cloud.platform": "azure.container_apps",
            "faas.instance": "shop--20mh1s9-86c8c4b497-zx9bq",
        },
    ),
    "Heroku": (
        {},
        {"DYNO": "web.1", "HEROKU_APP_ID": "01234567-89ab"},
        {"cloud.provider": "heroku", "heroku.app.id": "01234567-89ab"},
    ),
    # What is like one of them, and is not.
    "a laptop": (LAPTOP, {}, {}),
    "Hyper-V under a desk": (HYPER_V, {}, {}),
    "functions on a desk": ({}, {"FUNCTIONS_WORKER_RUNTIME": "python", "WEBSITE_HOSTNAME": "localhost:7071"}, {}),
    "AWS's keys on a desk": (LAPTOP, {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "work"}, {}),
    "pods' variables outside of Kubernetes": (LAPTOP, {"POD_NAME": "x", "NODE_NAME": "y", "NAMESPACE": "z"}, {}),
    "Knative in a cluster of one's own": (
        LAPTOP,
        POD_VARIABLES | {"K_SERVICE": "shop", "K_REVISION": "shop-1", "K_CONFIGURATION": "shop"},
        {},
    ),
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The variables are those of the test, and the detectors of others read the files of the test."""
    need_detectors()
    forget_this_machine(monkeypatch)
    from opentelemetry.resource.detector import containerid
    from opentelemetry.resource.detector.azure import aks

    monkeypatch.setattr(containerid, "_DEFAULT_CGROUP_V1_PATH", str(tmp_path / "proc/self/cgroup"))
    monkeypatch.setattr(containerid, "_DEFAULT_CGROUP_V2_PATH", str(tmp_path / "proc/self/mountinfo"))
    monkeypatch.setattr(aks, "_AKS_METADATA_FILE_PATH", str(tmp_path / "etc/kubernetes/aks-cluster-metadata"))
    yield


def found(
    root: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str], variables: Mapping[str, str]
) -> dict[str, object]:
    """What is found where nobody is asked. The detectors of others read the variables of the process."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return dict(detect(Evidence(build(root, files)), 0).attributes)


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_known_by_its_signs(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, variables, expected = PLACES[place]
    attributes = found(tmp_path, monkeypatch, files, variables)
    assert attributes.pop("host.name") and attributes.pop("host.arch")
    if "host.id" not in expected:
        attributes.pop("host.id", None)  # this machine's own
    assert attributes == expected


def test_what_the_program_is_called_and_does_is_not_ours_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detectors for Azure also set the service's name and its instance, and the process's number."""
    attributes = found(tmp_path, monkeypatch, {}, APP_SERVICE | {"FUNCTIONS_WORKER_RUNTIME": "python"})
    assert not [name for name in attributes if name.startswith(("service.", "process.", "os.", "deployment."))]


def test_a_pod_without_any_variable_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "web-7d4b9c-x2x9p")
    attributes = kubernetes(Evidence(build(tmp_path, POD), POD_VARIABLES, lambda: "web-7d4b9c-x2x9p"))
    assert attributes == {
        "k8s.pod.name": "web-7d4b9c-x2x9p",
        "k8s.pod.uid": POD_UID,
        "k8s.namespace.name": "shop",
    }


def test_the_downward_api_counts_more(tmp_path: Path) -> None:
    variables = POD_VARIABLES | {
        "K8S_POD_NAME": "web-1",
        "POD_NAME": "another",
        "K8S_POD_UID": "0" * 8,
        "K8S_NAMESPACE_NAME": "prod",
        "K8S_NODE_NAME": "node-7",
        "K8S_CONTAINER_NAME": "app",
        "K8S_CLUSTER_NAME": "eu-1",
    }
    assert kubernetes(Evidence(build(tmp_path, POD), variables)) == {
        "k8s.pod.name": "web-1",
        "k8s.pod.uid": "0" * 8,
        "k8s.namespace.name": "prod",
        "k8s.node.name": "node-7",
        "k8s.container.name": "app",
        "k8s.cluster.name": "eu-1",
    }


@pytest.mark.parametrize(
    ("hosts", "hostname"),
    [
        ("# Kubernetes-managed hosts file (host network).\n", "node-7"),
        ("127.0.0.1 localhost\n", "web-1"),
        ("# Kubernetes-managed hosts file.\n", "w" * 63),
    ],
    ids=["the network of the node", "hosts of somebody else", "a name that was cut"],
)
def test_a_hostname_that_is_not_the_pods_name_is_not_taken_for_it(tmp_path: Path, hosts: str, hostname: str) -> None:
    evidence = Evidence(build(tmp_path, POD | {"etc/hosts": hosts}), POD_VARIABLES, lambda: hostname)
    assert "k8s.pod.name" not in kubernetes(evidence)


CGROUPS = {
    "cgroupfs": f"12:memory:/kubepods/burstable/pod{POD_UID}/{CONTAINER_ID}\n",
    "systemd": (
        "12:memory:/kubepods.slice/kubepods-burstable.slice/"
        f"kubepods-burstable-pod{POD_UID.replace('-', '_')}.slice/cri-containerd-{CONTAINER_ID}.scope\n"
    ),
    "version 2, of the node": (
        f"0::/kubepods.slice/kubepods-pod{POD_UID.replace('-', '_')}.slice/crio-{CONTAINER_ID}.scope\n"
    ),
}


@pytest.mark.parametrize("cgroup", CGROUPS)
def test_control_groups_name_pod_and_container(cgroup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = found(tmp_path, monkeypatch, POD | {"proc/self/cgroup": CGROUPS[cgroup]}, POD_VARIABLES)
    assert attributes["k8s.pod.uid"] == POD_UID
    assert attributes["container.id"] == CONTAINER_ID


def test_the_sandbox_of_a_pod_is_not_taken_for_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector of others finds it among the mounts, where a container's own id does not stand."""
    attributes = found(tmp_path, monkeypatch, POD, POD_VARIABLES)
    assert SANDBOX_ID in POD["proc/self/mountinfo"]
    assert "container.id" not in attributes


def test_a_container_of_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = f"641 620 254:1 /docker/containers/{CONTAINER_ID}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
    files = {".dockerenv": "", "proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mounts, "etc/machine-id": "a" * 32}
    attributes = found(tmp_path, monkeypatch, files, {})
    assert attributes["container.id"] == CONTAINER_ID
    assert "host.id" not in attributes, "the machine's id in an image is that of nobody"


@pytest.mark.parametrize(
    "line",
    [
        "0::/user.slice/user-1000.slice/session-2.scope",
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-terminal-4711.scope",
        "9:perf_event:/ecs/158d1c8083dd49d6b527399fd6414f5c/158d1c8083dd49d6b527399fd6414f5c-2531612879",
    ],
    ids=["a session", "a terminal", "Fargate"],
)
def test_a_number_is_not_the_id_of_a_container(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector of others takes the last number for one."""
    assert "container.id" not in found(tmp_path, monkeypatch, LAPTOP | {"proc/self/cgroup": line}, {})


def test_files_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "sys/class/dmi/id/sys_vendor").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_bytes(b"\xff\xfe\0\0" * 100_000)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    evidence = Evidence(tmp_path, {})
    assert evidence.file("/sys/class/dmi/id/sys_vendor") == ""
    assert len(evidence.file("/etc/hosts")) <= 256 * 1024
    assert evidence.file("/loop") == "" and not evidence.exists("/loop")
