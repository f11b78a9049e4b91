"""Which places are known, by what they are recognised, and who is asked for more there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tokenbudget_otel.export.where.evidence import Evidence
from tokenbudget_otel.export.where.kubernetes import in_kubernetes, kubernetes

Sign = Callable[[Evidence], bool]

EXTRA: Final = "tokenbudget-otel[where]"


@dataclass(frozen=True, slots=True)
class Detector:
    """A resource detector that somebody else keeps: what is to be known before it is called.

    Attributes:
        distribution: what brings it.
        server: the URL that it will ask, ``""`` if it asks nobody.
        off: a variable with which the cloud's own SDK is told not to ask there; heeded here too.
    """

    distribution: str
    server: Callable[[Evidence], str] = field(default=lambda _: "")
    off: str = ""


_AWS: Final = "opentelemetry-sdk-extension-aws"
_AZURE: Final = "opentelemetry-resource-detector-azure"

_LINK_LOCAL: Final = "http://169.254.169.254/"


def _link_local(_evidence: Evidence) -> str:
    return _LINK_LOCAL


DETECTORS: Final[Mapping[str, Detector]] = {
    "host": Detector("opentelemetry-sdk"),
    "containerid": Detector("opentelemetry-resource-detector-containerid"),
    "aws_ec2": Detector(_AWS, _link_local, off="AWS_EC2_METADATA_DISABLED"),
    "aws_ecs": Detector(_AWS, lambda evidence: evidence.variable("ECS_CONTAINER_METADATA_URI_V4")),
    "aws_elastic_beanstalk": Detector(_AWS),
    "aws_lambda": Detector(_AWS),
    "azure_vm": Detector(_AZURE, _link_local),
    "azure_aks": Detector(_AZURE),
    "azure_app_service": Detector(_AZURE),
    "azure_functions": Detector(_AZURE),
    "gcp_resource_detector": Detector(
        "opentelemetry-resourcedetector-gcp", lambda _: "http://metadata.google.internal/", off="NO_GCE_CHECK"
    ),
}
"""The detectors that are called, by their names in the group ``opentelemetry_resource_detector``.

``aws_eks`` is not among them: it reads config maps of the cluster with the pod's token, which most pods may not do.
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of machine or service.

    Attributes:
        name: for people.
        sign: whether this is one, told without a network.
        attributes: what is known of it without a network.
        detectors: who is asked for more; keys of :data:`DETECTORS`.
        contained: whether the machine is not the program's own: its files do not tell of the host.
    """

    name: str
    sign: Sign
    attributes: Callable[[Evidence], Mapping[str, str]] = field(default=lambda _: {})
    detectors: tuple[str, ...] = ()
    contained: bool = False


def _set(*variables: str) -> Sign:
    """All of these variables are set."""
    return lambda evidence: all(evidence.variable(name) for name in variables)


def _dmi(entry: str, start: str) -> Sign:
    """What the firmware says, as the kernel shows it to everybody, begins so."""
    return lambda evidence: evidence.file(f"/sys/class/dmi/id/{entry}").startswith(start)


def _any(*signs: Sign) -> Sign:
    return lambda evidence: any(sign(evidence) for sign in signs)


def _all(*signs: Sign) -> Sign:
    return lambda evidence: all(sign(evidence) for sign in signs)


def _no(sign: Sign) -> Sign:
    return lambda evidence: not sign(evidence)


def _says(attributes: Mapping[str, str]) -> Callable[[Evidence], Mapping[str, str]]:
    """These attributes; a value that begins with ``$`` is that of a variable."""
    return lambda evidence: {
        name: evidence.variable(value[1:]) if value.startswith("$") else value for name, value in attributes.items()
    }


def _ec2(evidence: Evidence) -> Mapping[str, str]:
    tag = evidence.file("/sys/class/dmi/id/board_asset_tag")  # the instance's id, on all but the oldest types
    return {"cloud.provider": "aws", "cloud.platform": "aws_ec2", "host.id": tag if tag.startswith("i-") else ""}


_APP_SERVICE: Final = _set("WEBSITE_SITE_NAME")
_FUNCTIONS: Final = _all(_APP_SERVICE, _set("FUNCTIONS_WORKER_RUNTIME"))
"""The worker's runtime alone is also set on a desk, by the tools for developing functions."""

PLACES: Final = (
    Place("host", lambda _: True, detectors=("host", "containerid")),
    Place(
        "container",
        lambda evidence: evidence.exists("/.dockerenv") or evidence.exists("/run/.containerenv"),
        contained=True,
    ),
    Place(
        "EC2",
        _any(
            _dmi("sys_vendor", "Amazon EC2"),
            _dmi("bios_version", "4.2.amazon"),
            lambda evidence: evidence.file("/sys/hypervisor/uuid").startswith("ec2"),
        ),
        _ec2,
        ("aws_ec2",),
    ),
    Place(
        "Google Cloud",
        _dmi("product_name", "Google Compute Engine"),
        _says({"cloud.provider": "gcp"}),
        ("gcp_resource_detector",),
    ),
    Place(
        "Azure VM",
        # The tag is Azure's own. The vendor alone would also be a Hyper-V machine under a desk.
        _dmi("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"),
        _says({"cloud.provider": "azure"}),
        ("azure_vm",),
    ),
    Place("Alibaba Cloud", _dmi("sys_vendor", "Alibaba Cloud"), _says({"cloud.provider": "alibaba_cloud"})),
    Place("Oracle Cloud", _dmi("chassis_asset_tag", "OracleCloud"), _says({"cloud.provider": "oracle_cloud"})),
    Place("Tencent Cloud", _dmi("sys_vendor", "Tencent Cloud"), _says({"cloud.provider": "tencent_cloud"})),
    Place("DigitalOcean", _dmi("sys_vendor", "DigitalOcean"), _says({"cloud.provider": "digitalocean"})),
    Place("Hetzner", _dmi("sys_vendor", "Hetzner"), _says({"cloud.provider": "hetzner"})),
    Place(
        "Elastic Beanstalk",
        lambda evidence: evidence.exists("/var/elasticbeanstalk/xray/environment.conf"),
        _says({"cloud.provider": "aws", "cloud.platform": "aws_elastic_beanstalk"}),
        ("aws_elastic_beanstalk",),
    ),
    Place("Kubernetes", in_kubernetes, kubernetes, contained=True),
    Place(
        "EKS",
        _all(
            in_kubernetes,
            _any(
                lambda evidence: "/eks.amazonaws.com/" in evidence.variable("AWS_WEB_IDENTITY_TOKEN_FILE"),
                lambda evidence: evidence.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI").startswith(
                    ("http://169.254.170.23/", "http://[fd00:ec2::23]/")
                ),
            ),
        ),
        _says({"cloud.provider": "aws", "cloud.platform": "aws_eks"}),
        contained=True,
    ),
    Place(
        "AKS",
        _all(
            in_kubernetes,
            _any(
                _set("AKS_ARM_NAMESPACE_ID"),
                _set("CLUSTER_RESOURCE_ID"),
                lambda evidence: evidence.exists("/etc/kubernetes/aks-cluster-metadata"),
                lambda evidence: evidence.variable("KUBERNETES_SERVICE_HOST").endswith(".azmk8s.io"),
            ),
        ),
        _says({"cloud.provider": "azure", "cloud.platform": "azure.aks"}),
        ("azure_aks",),
        contained=True,
    ),
    Place(
        "ECS",
        _any(_set("ECS_CONTAINER_METADATA_URI_V4"), _set("ECS_CONTAINER_METADATA_URI")),
        _says({"cloud.provider": "aws", "cloud.platform": "aws_ecs"}),
        ("aws_ecs",),
        contained=True,
    ),
    Place(
        "Lambda",
        _set("AWS_LAMBDA_FUNCTION_NAME"),
        _says(
            {
                "cloud.provider": "aws",
                "cloud.platform": "aws_lambda",
                "cloud.region": "$AWS_REGION",
                "faas.name": "$AWS_LAMBDA_FUNCTION_NAME",
                "faas.version": "$AWS_LAMBDA_FUNCTION_VERSION",
                "faas.instance": "$AWS_LAMBDA_LOG_STREAM_NAME",
            }
        ),
        ("aws_lambda",),
        contained=True,
    ),
    Place(
        "Cloud Run",
        # In a cluster these variables are Knative's, and the cluster may be anywhere.
        _all(_set("K_SERVICE", "K_CONFIGURATION"), _no(_set("FUNCTION_TARGET")), _no(in_kubernetes)),
        _says(
            {
                "cloud.provider": "gcp",
                "cloud.platform": "gcp_cloud_run",
                "faas.name": "$K_SERVICE",
                "faas.version": "$K_REVISION",
            }
        ),
        ("gcp_resource_detector",),
        contained=True,
    ),
    Place(
        "Cloud Run job",
        _set("CLOUD_RUN_JOB", "CLOUD_RUN_EXECUTION"),
        _says(
            {
                "cloud.provider": "gcp",
                "cloud.platform": "gcp_cloud_run",
                "faas.name": "$CLOUD_RUN_JOB",
                "gcp.cloud_run.job.execution": "$CLOUD_RUN_EXECUTION",
                "gcp.cloud_run.job.task_index": "$CLOUD_RUN_TASK_INDEX",
            }
        ),
        contained=True,
    ),
    Place(
        "Cloud Functions",
        _all(_set("K_SERVICE", "FUNCTION_TARGET"), _no(in_kubernetes)),
        _says(
            {
                "cloud.provider": "gcp",
                "cloud.platform": "gcp_cloud_functions",
                "faas.name": "$K_SERVICE",
                "faas.version": "$K_REVISION",
            }
        ),
        ("gcp_resource_detector",),
        contained=True,
    ),
    Place(
        "App Engine",
        _set("GAE_SERVICE", "GAE_VERSION"),
        _says(
            {
                "cloud.provider": "gcp",
                "cloud.platform": "gcp_app_engine",
                "faas.name": "$GAE_SERVICE",
                "faas.version": "$GAE_VERSION",
                "faas.instance": "$GAE_INSTANCE",
            }
        ),
        ("gcp_resource_detector",),
        contained=True,
    ),
    Place(
        "App Service",
        _all(_APP_SERVICE, _no(_FUNCTIONS)),
        _says({"cloud.provider": "azure", "cloud.platform": "azure_app_service"}),
        ("azure_app_service",),
        contained=True,
    ),
    Place(
        "Azure Functions",
        _FUNCTIONS,
        _says({"cloud.provider": "azure", "cloud.platform": "azure_functions", "faas.name": "$WEBSITE_SITE_NAME"}),
        ("azure_app_service", "azure_functions"),
        contained=True,
    ),
    Place(
        "Azure Container Apps",
        _set("CONTAINER_APP_NAME", "CONTAINER_APP_REVISION"),
        _says(
            {
                "cloud.provider": "azure",
                "cloud.platform": "azure.container_apps",
                "faas.instance": "$CONTAINER_APP_REPLICA_NAME",
            }
        ),
        contained=True,
    ),
    Place(
        "Heroku",
        _all(_set("DYNO"), _any(_set("HEROKU_APP_ID"), lambda evidence: evidence.exists("/app/.heroku"))),
        _says({"cloud.provider": "heroku", "heroku.app.id": "$HEROKU_APP_ID"}),
        contained=True,
    ),
)
"""From the general to the particular: of an attribute that several of them say, the last one counts."""
