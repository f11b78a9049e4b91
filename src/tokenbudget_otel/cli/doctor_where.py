"""The part of `tokenbudget doctor` that says where this runs, as the resource of spans and metrics would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from tokenbudget_otel.cli.findings import Finding

_SUBJECT: Final = "where it runs"

_SHOWN: Final = (
    *("cloud.platform", "cloud.provider", "cloud.region", "cloud.account.id", "host.name", "host.id"),
    *("k8s.pod.name", "k8s.namespace.name", "k8s.node.name", "container.id", "faas.name"),
)


def where_it_runs() -> Iterator[Finding]:
    """What is known of this place, and whether it reaches spans and metrics."""
    from tokenbudget_otel.export.where import found
    from tokenbudget_otel.export.where.detection import TIMEOUT, read_seconds
    from tokenbudget_otel.export.where.places import EXTRA
    from tokenbudget_otel.export.where.switch import NAME, VARIABLE, is_on, missing

    try:
        read_seconds(os.environ.get(TIMEOUT, ""))
    except ValueError:
        return  # told with the other variables
    known = found()
    said = ", ".join(f"{name}={known.attributes[name]}" for name in _SHOWN if name in known.attributes)
    if is_on():
        yield Finding("ok", _SUBJECT, said)
    else:
        yield Finding("ok", _SUBJECT, f"{said}; not on spans and metrics", f"{VARIABLE}={NAME} puts it there ({EXTRA})")
    absent = missing()
    if absent and is_on():
        yield Finding("note", _SUBJECT, f"not installed: {', '.join(absent)}", f"pip install '{EXTRA}'")
    for note in known.notes:
        if "is not installed" not in note:
            yield Finding("note", _SUBJECT, note)
