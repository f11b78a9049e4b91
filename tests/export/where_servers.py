"""Metadata servers on loopback that answer as those of the clouds do, in the words of their documentation; what makes
them slow or silent; and what receives the resources that a program exports."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from otlp_server import OtlpServer, plain

Reply = tuple[int, str]
Replies = Callable[[str, str, Mapping[str, str]], Reply]
"""Method, path and headers of a request, to the status and the text of the answer."""

IDENTITY = {
    "devpayProductCodes": None,
    "marketplaceProductCodes": ["1abc2defghijklm3nopqrs4tu"],
    "availabilityZone": "us-west-2b",
    "privateIp": "10.158.112.84",
    "version": "2017-09-30",
    "instanceId": "i-1234567890abcdef0",
    "billingProducts": None,
    "instanceType": "t2.micro",
    "accountId": "123456789012",
    "imageId": "ami-5fb8c835",
    "pendingTime": "2016-11-19T16:32:11Z",
    "architecture": "x86_64",
    "kernelId": None,
    "ramdiskId": None,
    "region": "us-west-2",
}
"""Amazon EC2 user guide, instance identity documents."""

TOKEN = "AQAEANIk3vPq"


def ec2(method: str, path: str, headers: Mapping[str, str]) -> Reply:
    """IMDSv2: nothing without a token."""
    if path == "/latest/api/token":
        asked = method == "PUT" and headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        return (200, TOKEN) if asked else (400, "")
    if headers.get("X-aws-ec2-metadata-token") != TOKEN:
        return 401, ""
    return {
        "/latest/dynamic/instance-identity/document": (200, json.dumps(IDENTITY)),
        "/latest/meta-data/hostname": (200, "ip-10-158-112-84.us-west-2.compute.internal"),
    }.get(path, (404, ""))


GOOGLE = {
    "instance": {
        "attributes": {},
        "cpuPlatform": "Intel Broadwell",
        "hostname": "my-instance.us-central1-a.c.my-project.internal",
        "id": 4520031799277581759,
        "machineType": "projects/233510669999/machineTypes/e2-medium",
        "name": "my-instance",
        "zone": "projects/233510669999/zones/us-central1-a",
    },
    "project": {"attributes": {}, "numericProjectId": 233510669999, "projectId": "my-project"},
}

GKE = {
    "instance": {
        "attributes": {"cluster-location": "europe-west4", "cluster-name": "shop", "cluster-uid": "0a1b"},
        "hostname": "gke-shop-default-pool-1c2d.europe-west4-a.c.my-project.internal",
        "id": 1234567890123456789,
        "zone": "projects/233510669999/zones/europe-west4-a",
    },
    "project": {"numericProjectId": 233510669999, "projectId": "my-project"},
}

CLOUD_RUN = {
    "instance": {
        "id": "00bf4bf02d1ab7d5ba6a2cbd8a1e1f2c",
        "region": "projects/233510669999/regions/us-central1",
        "serviceAccounts": {},
        "zone": "projects/233510669999/zones/us-central1-1",
    },
    "project": {"numericProjectId": 233510669999, "projectId": "my-project"},
}


def google(metadata: Mapping[str, Any] = GOOGLE) -> Replies:
    """Nothing without the header that says that one means it."""

    def replies(_method: str, path: str, headers: Mapping[str, str]) -> Reply:
        if headers.get("Metadata-Flavor") != "Google":
            return 403, ""
        if path == "/computeMetadata/v1/?recursive=true":
            return 200, json.dumps(metadata)
        return (200, "attributes/\n") if path == "/computeMetadata/v1/instance/" else (404, "")

    return replies


AZURE = {
    "azEnvironment": "AZUREPUBLICCLOUD",
    "location": "westus",
    "name": "examplevmname",
    "offer": "0001-com-ubuntu-server-jammy",
    "osType": "Linux",
    "placementGroupId": "f67c14ab-e92c-408c-ae2d-da15866ec79a",
    "resourceGroupName": "macikgo-test-may-23",
    "resourceId": "/subscriptions/8d10da13-8125-4ba9-a717-bf7490507b3d/resourceGroups/macikgo-test-may-23"
    "/providers/Microsoft.Compute/virtualMachines/examplevmname",
    "sku": "22_04-lts-gen2",
    "subscriptionId": "8d10da13-8125-4ba9-a717-bf7490507b3d",
    "version": "22.04.202305010",
    "vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
    "vmScaleSetName": "crpteste9vflji9",
    "vmSize": "Standard_A3",
    "zone": "1",
}
"""Azure Instance Metadata Service, the sample of the category `compute`."""


def azure(_method: str, path: str, headers: Mapping[str, str]) -> Reply:
    """Nothing without the header, and not through a proxy."""
    if headers.get("Metadata", "").lower() != "true" or "X-Forwarded-For" in headers:
        return 400, json.dumps({"error": "Bad request. Required metadata header not specified"})
    return (200, json.dumps(AZURE)) if path.startswith("/metadata/instance/compute?") else (404, "")


CLUSTER = "arn:aws:ecs:us-west-2:111122223333:cluster/default"
TASK = "arn:aws:ecs:us-west-2:111122223333:task/default/158d1c8083dd49d6b527399fd6414f5c"
CONTAINER = "arn:aws:ecs:us-west-2:111122223333:container/0206b271-b33f-47ab-86c6-a0ba208a70a9"

ECS_CONTAINER = {
    "DockerId": "ea32192c8553fbff06c9340478a2ff089b2bb5646fb718b4ee206641c9086d66",
    "Name": "curl",
    "DockerName": "ecs-curltest-24-curl-cca48e8dcadd97805600",
    "Image": "111122223333.dkr.ecr.us-west-2.amazonaws.com/curltest:latest",
    "Labels": {"com.amazonaws.ecs.cluster": "default", "com.amazonaws.ecs.task-arn": TASK},
    "DesiredStatus": "RUNNING",
    "KnownStatus": "RUNNING",
    "Type": "NORMAL",
    "LogDriver": "awslogs",
    "LogOptions": {
        "awslogs-create-group": "true",
        "awslogs-group": "/ecs/metadata",
        "awslogs-region": "us-west-2",
        "awslogs-stream": "ecs/curl/8f03e41243824aea923aca126495f665",
    },
    "ContainerARN": CONTAINER,
}
ECS_TASK = {
    "Cluster": "default",
    "TaskARN": TASK,
    "Family": "curltest",
    "Revision": "26",
    "DesiredStatus": "RUNNING",
    "KnownStatus": "RUNNING",
    "AvailabilityZone": "us-west-2d",
    "LaunchType": "EC2",
    "Containers": [ECS_CONTAINER],
}
"""Amazon ECS developer guide, examples of the task metadata endpoint, version 4."""


def ecs(_method: str, path: str, _headers: Mapping[str, str]) -> Reply:
    return {
        "/v4/ea32192c": (200, json.dumps(ECS_CONTAINER)),
        "/v4/ea32192c/task": (200, json.dumps(ECS_TASK)),
    }.get(path, (404, ""))


class MetadataServer:
    """Answers on a port of its own, while it is entered.

    Args:
        replies: what it answers.
        silent: it takes requests and answers none.
        dripping: it answers, a byte now and then, and is never done.
        address: where it listens; a free port of loopback if left out.
    """

    def __init__(
        self,
        replies: Replies,
        *,
        silent: bool = False,
        dripping: bool = False,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.requests: list[str] = []
        self._over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                server.requests.append(f"{self.command} {self.path}")
                if silent:
                    server._over.wait(30)
                    return
                status, text = replies(self.command, self.path, self.headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                for character in text if dripping else ():
                    if server._over.wait(0.2):
                        return
                    self.wfile.write(character.encode())
                    self.wfile.flush()
                if not dripping:
                    self.wfile.write(text.encode())

            do_GET = do_PUT = _answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # whoever asked has gone
                    pass

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> MetadataServer:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Receiver(OtlpServer):
    """Keeps the attributes of the resources of spans and of metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []

    def take_spans(self, request: Any) -> None:
        self.spans += [plain(each.resource.attributes) for each in request.resource_spans]

    def take_metrics(self, request: Any) -> None:
        self.metrics += [plain(each.resource.attributes) for each in request.resource_metrics]


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long something takes, and what it gives."""
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result
