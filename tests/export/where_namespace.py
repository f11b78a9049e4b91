"""A machine of a cloud, as its programs see it: run in namespaces of its own (``unshare --net --mount``), where the
address of the metadata server, the firmware's folder and the table of hosts are those of the test.

Runs a command there, and prints as JSON which resources its spans had and what the metadata server was asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import where_servers as servers
from where_machines import AZURE, EC2, GOOGLE, build

LINK_LOCAL = "169.254.169.254"

CLOUDS = {
    "ec2": (EC2, servers.ec2),
    "google": (GOOGLE, servers.google()),
    "azure": (AZURE, servers.azure),
    "laptop": ({}, lambda *_: (404, "")),
}


def main(cloud: str, silent: bool, command: list[str]) -> None:
    files, replies = CLOUDS[cloud]
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{LINK_LOCAL}/32", "dev", "lo")
    run("mount", "-t", "tmpfs", "tmpfs", "/sys/class")
    build(Path("/"), files)
    with tempfile.NamedTemporaryFile("w") as hosts:
        hosts.write(f"127.0.0.1 localhost\n{LINK_LOCAL} metadata.google.internal\n")
        hosts.flush()
        run("mount", "--bind", hosts.name, "/etc/hosts")
        with (
            servers.Receiver() as receiver,
            servers.MetadataServer(replies, silent=silent, address=(LINK_LOCAL, 80)) as metadata,
        ):
            environment = {
                **os.environ,
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            }
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
            print(
                json.dumps(
                    {
                        "code": done.returncode,
                        "out": done.stdout,
                        "err": done.stderr,
                        "spans": receiver.spans,
                        "asked": metadata.requests,
                    }
                )
            )


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "silent", sys.argv[3:])
