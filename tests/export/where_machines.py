"""Machines made of files and variables, for tests of where a program runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

DMI = "sys/class/dmi/id/"

EC2 = {DMI + "sys_vendor": "Amazon EC2\n", DMI + "board_asset_tag": "i-1234567890abcdef0\n"}
EC2_XEN = {DMI + "sys_vendor": "Xen\n", DMI + "bios_version": "4.2.amazon\n", "sys/hypervisor/uuid": "ec2e1916-9099\n"}
GOOGLE = {DMI + "sys_vendor": "Google\n", DMI + "product_name": "Google Compute Engine\n"}
AZURE = {
    DMI + "sys_vendor": "Microsoft Corporation\n",
    DMI + "product_name": "Virtual Machine\n",
    DMI + "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n",
}
HYPER_V = {**AZURE, DMI + "chassis_asset_tag": "5511-8391-4031-4219-1823-7361-05\n"}
LAPTOP = {DMI + "sys_vendor": "LENOVO\n", DMI + "product_name": "21CB\n", DMI + "board_asset_tag": "Not Available\n"}

POD_UID = "3fb1f1a6-88b7-4b1c-9a3d-52d6f5a30e11"
CONTAINER_ID = "0f3deade416514b65143bdb917f86c290bf21b176d70d8ad8c4992469fdb28e6"
SANDBOX_ID = "6b1f50d489100ae1318b0836f13655273e471a92367a3f0d95d61d9e828d45f2"

POD = {
    "var/run/secrets/kubernetes.io/serviceaccount/namespace": "shop",
    "etc/hosts": "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.1.2.3\tweb-7d4b9c-x2x9p\n",
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": (
        "659 450 0:183 / / rw,relatime master:88 - overlay overlay rw,lowerdir=/var/lib/x\n"
        f"671 659 254:1 /var/lib/kubelet/pods/{POD_UID}/etc-hosts /etc/hosts rw,relatime - ext4 /dev/vda1 rw\n"
        f"673 659 254:1 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX_ID}/hostname"
        " /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n"
    ),
}
"""A container of containerd in Kubernetes with control groups of version 2."""

POD_VARIABLES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def build(root: Path, files: Mapping[str, str]) -> Path:
    """A folder that stands for ``/``."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def need_detectors() -> None:
    """Skip where the extra ``where`` is not installed. Where everything is installed, it has to be there."""
    missing = [
        name
        for name in (
            "opentelemetry.resource.detector.azure",
            "opentelemetry.resource.detector.containerid",
            "opentelemetry.resourcedetector.gcp_resource_detector",
            "opentelemetry.sdk.extension.aws",
        )
        if not _is_there(name)
    ]
    if missing:
        text = f"the extra `where` is not installed: {', '.join(missing)}"
        (pytest.fail if os.environ.get("TOKENBUDGET_CI") else pytest.skip)(text)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


SIGNS = (
    *("AKS_", "AWS_", "CLOUD_RUN_", "CLUSTER_RESOURCE_ID", "CONTAINER_APP_", "DYNO", "ECS_", "FUNCTION", "GAE_"),
    *("HEROKU_", "K8S_", "KUBERNETES_", "K_", "NODE_NAME", "NO_GCE_CHECK", "OTEL_", "POD_", "TOKENBUDGET_WHERE"),
    *("WEBSITE_", "REGION_NAME", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"),
)
"""Beginnings of variables that say something of a machine, or of the way to its metadata server."""


def bare(variables: Mapping[str, str]) -> dict[str, str]:
    """These variables without those that say where the tests run."""
    return {name: value for name, value in variables.items() if not name.startswith(SIGNS)}


def forget_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the variables that say where the tests run out of the environment, until the test is over."""
    for name in os.environ.keys() - bare(os.environ).keys():
        monkeypatch.delenv(name)
