"""Where it ran: host, cloud, instance, container and pod, as attributes of the OpenTelemetry resource.

``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=tokenbudget`` has OpenTelemetry call :class:`WhereDetector`; a program that makes
its own resource calls :func:`where`. docs/where-it-ran.md tells what is found where, and by whom.

Nothing is found out by importing this.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Final

from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES
from opentelemetry.sdk.resources import Resource, ResourceDetector

from tokenbudget_otel.export.where.detection import TIMEOUT, Found, detect, read_seconds
from tokenbudget_otel.export.where.evidence import Evidence
from tokenbudget_otel.forks import renew_after_fork

_log: Final = logging.getLogger(__name__)


class WhereDetector(ResourceDetector):
    """A resource detector for where the process runs.

    Local evidence comes first (firmware, variables, files); a cloud's metadata server is asked only where that says
    that it is there, by the detectors that the extra ``where`` installs, all at once and within one time limit.
    Attributes that ``OTEL_RESOURCE_ATTRIBUTES`` sets are left to it, whatever the order of detectors. What was found is
    kept for the process.

    Args:
        raise_on_error: taken for the sake of the interface; :meth:`detect` never raises.
        timeout: seconds that all requests may take together, at most 4; with 0 nobody is asked. If left out, what
            ``TOKENBUDGET_WHERE_TIMEOUT`` says, or 1.
        root, environ: what stands for ``/`` and for the variables; for tests.

    Raises:
        ValueError: for a ``timeout`` that is not a number of seconds.

    >>> detector = WhereDetector(timeout=0, root="/nowhere", environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1",
    ...                                                             "POD_NAME": "web-1", "NODE_NAME": "node-7"})
    >>> detector.detect().attributes["k8s.node.name"]
    'node-7'
    """

    def __init__(
        self,
        raise_on_error: bool = False,
        *,
        timeout: float | str | None = None,
        root: str | os.PathLike[str] = "/",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(raise_on_error=raise_on_error)
        try:
            self._seconds = None if timeout is None else read_seconds(str(timeout))
        except ValueError as error:
            raise ValueError(f"WhereDetector: timeout must be a number of seconds: {error}") from None
        self._evidence = None if environ is None and os.fspath(root) == "/" else Evidence(root, environ)

    def detect(self) -> Resource:
        """What is known of this machine. Never raises."""
        try:
            if self._evidence is None:
                found = _kept.found(self._seconds)
                said = _said_by_the_user(os.environ)
            else:
                found = detect(self._evidence, _seconds(self._evidence, self._seconds))
                said = _said_by_the_user(self._evidence.environ)
            return Resource({name: value for name, value in found.attributes.items() if name not in said})
        except Exception:
            _log.warning("where this runs could not be found out", exc_info=True)
            return Resource.get_empty()


def where() -> Resource:
    """Where this process runs, for a program that makes its own resource. Never raises.

    Found out once, within the time limit of :class:`WhereDetector`; from then on it is there at once. What stands on
    the right of a merge counts more, so put what you say yourself there:

    >>> resource = where().merge(Resource.create({"service.name": "shop"}))
    >>> resource.attributes["service.name"]
    'shop'
    """
    return WhereDetector().detect()


def found() -> Found:
    """What :func:`where` knows, with the kinds of place and notes on what could not be found out."""
    return _kept.found(None)


class _Kept:
    """What was found out in this process. The first one who asks finds it out, others wait for that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: Found | None = None
        renew_after_fork(self)

    def found(self, seconds: float | None) -> Found:
        with self._lock:
            if self._found is None:
                evidence = Evidence()
                self._found = detect(evidence, _seconds(evidence, seconds))
                for note in self._found.notes:
                    _log.info("where this runs: %s", note)
            return self._found

    def forget(self) -> None:
        """Find it out anew the next time."""
        with self._lock:
            self._found = None

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


_kept: Final = _Kept()


def _seconds(evidence: Evidence, said: float | None) -> float:
    if said is not None:
        return said
    try:
        return read_seconds(evidence.variable(TIMEOUT))
    except ValueError as error:
        _log.warning("%s is left out: %s", TIMEOUT, error)
        return read_seconds("")


def _said_by_the_user(environ: Mapping[str, str]) -> set[str]:
    """The attributes that are theirs: OpenTelemetry has the detector count that it calls last, perhaps ours. Before
    1.42 the order is that of a set."""
    pairs = environ.get(OTEL_RESOURCE_ATTRIBUTES, "").split(",")
    return {pair.partition("=")[0].strip() for pair in pairs if "=" in pair}


__all__ = ["Found", "WhereDetector", "found", "where"]
