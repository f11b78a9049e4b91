"""docker-compose.yaml and the Kubernetes manifests: there is no engine here to run them, so their parts are held
together: images pinned, files that are mounted there, variables that a configuration reads, ports that are open."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from .programs import CONFIG, program

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((CONFIG / "docker-compose.yaml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
KUBERNETES: Final = CONFIG / "kubernetes"
MANIFESTS: Final = [
    document
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
]
WORKLOADS: Final = [manifest for manifest in MANIFESTS if manifest["kind"] in ("DaemonSet", "StatefulSet")]
READ: Final = {
    variable
    for path in CONFIG.glob("*.yaml")
    for variable in re.findall(r"\$\{env:(\w+)", path.read_text())
} | {"GOMEMLIMIT"}  # fmt: skip


def test_the_collector_is_the_version_that_is_built_and_tested() -> None:
    version = yaml.safe_load((CONFIG / "builder.yaml").read_text())["dist"]["version"]
    images = [SERVICES["collector"]["image"]] + [
        container["image"] for workload in WORKLOADS for container in workload["spec"]["template"]["spec"]["containers"]
    ]
    assert set(images) == {f"otel/opentelemetry-collector-contrib:{version}"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_and_has_what_it_mounts(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        context = CONFIG / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()
        for source in re.findall(r"^COPY (.+) \S+$", (context / service["build"]["dockerfile"]).read_text(), re.M):
            assert all((context / part).exists() for part in source.split())
    else:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
    for mount in service.get("volumes", ()):
        source = mount.split(":")[0]
        if source.startswith("./"):
            if not (CONFIG / source).exists():
                pytest.fail(f"{source} is mounted and not there")
        else:
            assert source in COMPOSE["volumes"]
    # Nothing is open to other machines.
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert set(service.get("depends_on", ())) <= SERVICES.keys()


def test_the_collector_of_compose_takes_its_arguments(tmp_path: Path) -> None:
    arguments = [
        argument.replace("/etc/otelcol", str(CONFIG)) for argument in SERVICES["collector"]["command"]
    ]  # fmt: skip
    environment = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value).replace("/tmp/state", str(tmp_path / "state"))
        for name, value in SERVICES["collector"]["environment"].items()
    }
    assert environment.keys() <= READ
    checked = subprocess.run(
        [program("otelcol-tokenbudget"), "validate", *arguments], env=environment, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload["metadata"]["name"])
def test_a_workload_holds_together(workload: dict[str, Any]) -> None:
    spec = workload["spec"]
    pod = spec["template"]["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())}
    [container] = pod["containers"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    environment = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    assert environment.keys() <= READ
    for name, value in environment.items():
        if name.endswith("_ADDRESS"):
            assert value.rpartition(":")[2] in ports.values()
    generated = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["configMapGenerator"][0]["files"]
    files = {Path(file).name for file in generated}
    assert all((KUBERNETES / file).is_file() for file in generated)
    assert {Path(argument).name for argument in container["args"]} <= files


def test_kustomize_names_what_is_there_and_services_find_their_pods() -> None:
    resources = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert set(resources) == {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    [gateway] = [workload for workload in WORKLOADS if workload["kind"] == "StatefulSet"]
    [service] = [manifest for manifest in MANIFESTS if manifest["kind"] == "Service"]
    [policy] = [manifest for manifest in MANIFESTS if manifest["kind"] == "NetworkPolicy"]
    ports = {port["name"] for port in gateway["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= ports
    assert service["metadata"]["name"] == gateway["spec"]["serviceName"]
    labels = gateway["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == labels
