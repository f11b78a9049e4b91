"""Where in Kubernetes a process runs: what the downward API, the service account and the kubelet's mounts say.

There is no detector for this that is kept up, and none is needed: no request is made, to the API server neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from tokenbudget_otel.export.where.evidence import Evidence

ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
CGROUP: Final = "/proc/self/cgroup"
MOUNTS: Final = "/proc/self/mountinfo"
HOSTS: Final = "/etc/hosts"

_KUBELETS_HOSTS: Final = "# Kubernetes-managed hosts file."
"""In a pod with the network of its node the sentence goes on: "file (host network)."."""

_LONGEST_HOSTNAME: Final = 63

_UID: Final = r"([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})"
_POD_IN_CGROUP: Final = re.compile(rf"[/-]pod{_UID}")
_POD_IN_MOUNTS: Final = re.compile(rf"/pods/{_UID}/")

VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "k8s.pod.name": ("K8S_POD_NAME", "KUBERNETES_POD_NAME", "OTEL_RESOURCE_ATTRIBUTES_POD_NAME", "POD_NAME"),
    "k8s.pod.uid": ("K8S_POD_UID", "KUBERNETES_POD_UID", "OTEL_RESOURCE_ATTRIBUTES_POD_UID", "POD_UID"),
    "k8s.namespace.name": ("K8S_NAMESPACE_NAME", "K8S_NAMESPACE", "KUBERNETES_NAMESPACE", "POD_NAMESPACE"),
    "k8s.node.name": ("K8S_NODE_NAME", "KUBERNETES_NODE_NAME", "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME", "NODE_NAME"),
    "k8s.container.name": ("K8S_CONTAINER_NAME", "KUBERNETES_CONTAINER_NAME"),
    "k8s.cluster.name": ("K8S_CLUSTER_NAME", "KUBERNETES_CLUSTER_NAME"),
}
"""Variables that a pod is given through the downward API, by the names in use. They count only in Kubernetes."""


def in_kubernetes(evidence: Evidence) -> bool:
    """Whether this is a container of a pod."""
    return bool(evidence.variable("KUBERNETES_SERVICE_HOST") or evidence.file(ACCOUNT))


def kubernetes(evidence: Evidence) -> dict[str, str]:
    """The attributes ``k8s.*`` of this pod, as far as they are known.

    >>> kubernetes(Evidence("/no/such/folder", {"POD_NAME": "web-1", "NODE_NAME": "node-7"}))
    {'k8s.pod.name': 'web-1', 'k8s.node.name': 'node-7'}
    """
    return {
        name: value
        for name, variables in VARIABLES.items()
        if (value := evidence.variable(*variables) or _ELSEWHERE.get(name, _nowhere)(evidence))
    }


def _nowhere(_evidence: Evidence) -> str:
    return ""


def _name_by_hostname(evidence: Evidence) -> str:
    """The hostname is the pod's name, unless the pod uses the network of its node, or the name had to be cut."""
    if not evidence.file(HOSTS).startswith(_KUBELETS_HOSTS):
        return ""
    hostname = evidence.hostname()
    return hostname if len(hostname) < _LONGEST_HOSTNAME else ""


def _uid_by_mounts(evidence: Evidence) -> str:
    found = _POD_IN_CGROUP.search(evidence.file(CGROUP)) or _POD_IN_MOUNTS.search(evidence.file(MOUNTS))
    return found.group(1).replace("_", "-") if found else ""


_ELSEWHERE: Final[Mapping[str, Callable[[Evidence], str]]] = {
    "k8s.pod.name": _name_by_hostname,
    "k8s.pod.uid": _uid_by_mounts,
    "k8s.namespace.name": lambda evidence: evidence.file(ACCOUNT),
}
"""Where else it stands, where no variable says it."""
