"""Detectors of others, called side by side, and waited for until a moment and no longer."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from opentelemetry.instrumentation.utils import suppress_instrumentation

GROUP: Final = "opentelemetry_resource_detector"

_log: Final = logging.getLogger(__name__)

_THREAD: Final = "tokenbudget-where-"
"""How our threads are named."""

Answer = Mapping[str, Any]


def load(names: Iterable[str]) -> dict[str, Callable[[], Answer]]:
    """The detectors of these names that are installed and can be loaded, as functions that give attributes."""
    wanted = dict.fromkeys(names)
    found: dict[str, Callable[[], Answer]] = {}
    for point in entry_points(group=GROUP) if wanted else ():
        if point.name in wanted and point.name not in found:
            try:
                found[point.name] = _function(point.load())
            except Exception:
                _log.debug("%s %s cannot be loaded", GROUP, point.name, exc_info=True)
    return found


def _function(kind: Any) -> Callable[[], Answer]:
    # It raises what it would log otherwise, and what it logs all the same is kept back: one that is not answered has
    # a line of ours, not a traceback in the program's log.
    logging.getLogger(kind.__module__).addFilter(_not_asked_by_us)
    detector = kind(raise_on_error=True)
    return lambda: dict(detector.detect().attributes)


def _not_asked_by_us(_record: logging.LogRecord) -> bool:
    return not threading.current_thread().name.startswith(_THREAD)


def ask(functions: Mapping[str, Callable[[], Answer]], seconds: float) -> dict[str, Answer | Exception]:
    """What the functions give, or how they failed; what is missing had not answered in time.

    Each has a thread of its own. One that hangs is left behind: a daemon thread that ends when its request does.

    >>> ask({"host": lambda: {"host.name": "box-7"}}, seconds=1)
    {'host': {'host.name': 'box-7'}}
    """
    end = time.monotonic() + seconds
    answers: queue.SimpleQueue[tuple[str, Answer | Exception]] = queue.SimpleQueue()
    for name, function in functions.items():
        thread = threading.Thread(target=_answer, args=(name, function, answers), name=_THREAD + name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter ends, or has as many threads as it may
            answers.put((name, error))
    given: dict[str, Answer | Exception] = {}
    while len(given) < len(functions):
        try:
            name, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        given[name] = answer
    return given


def _answer(
    name: str, function: Callable[[], Answer], answers: queue.SimpleQueue[tuple[str, Answer | Exception]]
) -> None:
    try:
        with suppress_instrumentation():  # these requests are not the program's
            answers.put((name, function()))
    except Exception as error:
        answers.put((name, error))
