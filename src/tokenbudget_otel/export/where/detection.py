"""From evidence to attributes: which places this is, what is asked there, and what comes of it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tokenbudget_otel.export.where.asking import Answer, ask, load
from tokenbudget_otel.export.where.evidence import Evidence
from tokenbudget_otel.export.where.kubernetes import CGROUP, in_kubernetes
from tokenbudget_otel.export.where.places import DETECTORS, EXTRA, PLACES, Place
from tokenbudget_otel.export.where.switch import VARIABLE

TIMEOUT: Final = "TOKENBUDGET_WHERE_TIMEOUT"
DEFAULT_SECONDS: Final = 1.0
MOST_SECONDS: Final = 4.0
"""OpenTelemetry waits 5 seconds for a detector, and takes nothing of one that is later."""

_OF_PLACES: Final = ("cloud.", "host.", "k8s.", "container.", "faas.", "aws.", "azure.", "gcp.", "heroku.")
"""What is taken from a detector. Some also name the service or the process, which is not theirs to say."""

_CONTAINER_ID: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """Where a process runs.

    Attributes:
        attributes: by their names in OpenTelemetry's conventions for resources.
        places: what kinds of place it is, the general first.
        notes: what could not be found out, for people.
    """

    attributes: Mapping[str, Any]
    places: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_seconds(value: str) -> float:
    """How long to wait, from the text of ``TOKENBUDGET_WHERE_TIMEOUT``.

    Raises:
        ValueError: for what is not a number of seconds.

    >>> read_seconds("0.5"), read_seconds("")
    (0.5, 1.0)
    """
    if not value.strip():
        return DEFAULT_SECONDS
    seconds = float(value)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{value!r} is not a number of seconds from 0 to {MOST_SECONDS:g}")
    return seconds


def detect(evidence: Evidence, seconds: float) -> Found:
    """What is known of this machine, within ``seconds`` for all that is asked over the network together."""
    places = [place for place in PLACES if _holds(place, evidence)]
    names = list(dict.fromkeys(name for place in places for name in place.detectors))
    passed_over = {name: why for name in names if (why := _why_not(name, evidence, seconds)) is not None}
    called = [name for name in names if name not in passed_over]
    functions = load(called)
    # With 0, only those are left that ask nobody.
    answers = ask(functions, min(seconds, MOST_SECONDS) or DEFAULT_SECONDS)
    asked = {name for name in called if DETECTORS[name].server(evidence)}
    notes = [*passed_over.values(), *(_what_is_missing(name, functions, answers, asked) for name in called)]
    return Found(_merged(places, answers, evidence), tuple(place.name for place in places), tuple(filter(None, notes)))


def _what_is_missing(
    name: str, functions: Collection[str], answers: Mapping[str, Answer | Exception], asked: Collection[str]
) -> str:
    """Why a detector that was to be called has given nothing; ``""`` if it has, or if it asks nobody (``asked``)."""
    if name not in functions:
        return f"{name} of {DETECTORS[name].distribution} is not installed (pip install '{EXTRA}')"
    answer = answers.get(name)
    if answer is None:
        return f"{name} has not answered in time"
    if isinstance(answer, Exception):
        return f"{name} has failed: {type(answer).__name__}: {answer}"
    return f"{name} has got no answer" if not answer and name in asked else ""


def _holds(place: Place, evidence: Evidence) -> bool:
    try:
        return place.sign(evidence)
    except Exception:  # a row of a table of signs must not cost the others
        return False


def _why_not(name: str, evidence: Evidence, seconds: float) -> str | None:
    """Why a detector is not called, ``""`` if that needs no words; ``None`` if it is called."""
    if name in _named(evidence):
        return ""
    detector = DETECTORS[name]
    server = detector.server(evidence)
    if not server:
        return None
    if seconds == 0:
        return ""
    if detector.off and evidence.variable(detector.off).lower() in ("true", "1", "yes"):
        return f"{name} is not asked: {detector.off} is set"
    host = _host(server)
    if host and (proxy := _proxy(host)):
        # The proxy's machine would answer for itself, or nobody would.
        return f"{name} is not asked: the proxy {proxy} stands before {host} (add it to NO_PROXY)"
    return None


def _named(evidence: Evidence) -> set[str]:
    """The detectors that OpenTelemetry calls itself. It does not read the variable where it has a file."""
    if evidence.variable("OTEL_CONFIG_FILE"):
        return set()
    named = {name.strip() for name in evidence.variable(VARIABLE).split(",")}
    return set(DETECTORS) if "*" in named else named


def _proxy(host: str) -> str:
    """The proxy that urllib and requests would go through, without what it needs to be let in."""
    proxies = getproxies()
    proxy = proxies.get("http") or proxies.get("all") or ""
    if not proxy or proxy_bypass(host):
        return ""
    return _host(proxy if "//" in proxy else f"//{proxy}") or "named in the environment"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _merged(places: Iterable[Place], answers: Mapping[str, Answer | Exception], evidence: Evidence) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    contained = False
    for place in places:
        if place.contained and not contained:
            contained = True
            if answers.get("host") and attributes.get("host.id") == _of(answers, "host").get("host.id"):
                attributes.pop("host.id", None)  # of the image, which many containers have in common
        attributes |= _of_a_place(_known_without_asking(place, evidence), evidence)
        for name in place.detectors:
            attributes |= _of_a_place(_of(answers, name), evidence)
    _complete(attributes)
    return attributes


def _known_without_asking(place: Place, evidence: Evidence) -> Answer:
    try:
        return place.attributes(evidence)
    except Exception:  # as with the signs
        return {}


def _of(answers: Mapping[str, Answer | Exception], name: str) -> Answer:
    answer = answers.get(name, {})
    return {} if isinstance(answer, Exception) else answer


def _of_a_place(said: Answer, evidence: Evidence) -> dict[str, Any]:
    return {
        name: value
        for name, value in said.items()
        if name.startswith(_OF_PLACES)
        and value not in (None, "", (None,))
        and (name != "container.id" or _is_container(str(value), evidence))
    }


def _is_container(identity: str, evidence: Evidence) -> bool:
    """Detectors also take a session's number for the id of a container. And in Kubernetes, where the id does not stand
    among the control groups, they find the one of the pod's sandbox."""
    if not _CONTAINER_ID.fullmatch(identity):
        return False
    return not in_kubernetes(evidence) or identity in evidence.file(CGROUP)


def _complete(attributes: dict[str, Any]) -> None:
    """Region and account, which the detector for ECS leaves in the name of the task."""
    task = str(attributes.get("aws.ecs.task.arn", "")).split(":")
    if len(task) > 4:
        for name, value in (("cloud.region", task[3]), ("cloud.account.id", task[4])):
            attributes.setdefault(name, value)
