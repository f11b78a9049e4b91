"""Ending calls that nobody ended: streams that the garbage collector finds.

A finaliser runs wherever the collector happens to run, perhaps inside a lock of ours or of the
OpenTelemetry SDK, on the very thread that holds it. Settling a call takes those locks, so a
finaliser only queues it; a daemon thread does the work. ``queue.SimpleQueue.put`` is documented as
safe to call from a finaliser.
"""

from __future__ import annotations

import atexit
import gc
import os
import queue
import threading
from collections.abc import Callable
from typing import Final

from tokenbudget_otel.instrumentation.guard import log_once

_Job = Callable[[], object]

_queue: queue.SimpleQueue[_Job] = queue.SimpleQueue()
_worker: threading.Thread | None = None
_start_lock = threading.Lock()
_exit_jobs: list[_Job] = []
_collecting: int | None = None
_deferred = False

DRAIN_TIMEOUT_S: Final = 5.0
"""How long :func:`drain` waits for the worker before it helps."""


def start() -> None:
    """Have the worker run. Called where a stream is opened, never from a finaliser."""
    global _worker
    if _worker is not None and _worker.is_alive():
        return
    with _start_lock:
        if _worker is None or not _worker.is_alive():
            if _watch_collector not in gc.callbacks:
                gc.callbacks.append(_watch_collector)
                # Last registered is first called: while the program's tracer provider still takes spans.
                atexit.register(_at_exit)
            _worker = threading.Thread(target=_work, name="tokenbudget-deferred", daemon=True)
            _worker.start()


def in_collector() -> bool:
    """Whether the garbage collector is at work on this thread right now."""
    return _collecting is not None and _collecting == threading.get_ident()


def defer(job: _Job) -> None:
    """Have ``job`` run soon on the worker. Safe in a finaliser."""
    global _deferred
    _queue.put(job)
    _deferred = True


def drain() -> None:
    """Wait until what was deferred is done: before totals are read, and when the interpreter ends."""
    global _deferred
    if not _deferred or threading.current_thread() is _worker:
        return
    _deferred = False
    if _worker is not None and _worker.is_alive():
        # Jobs run in order: when this one has, those before it are done, also the one that the worker is at.
        reached = threading.Event()
        _queue.put(reached.set)
        if reached.wait(DRAIN_TIMEOUT_S):
            return
    while not _queue.empty():
        try:
            _run(_queue.get_nowait())
        except queue.Empty:
            return


def at_exit(job: _Job) -> None:
    """Have ``job`` run when the interpreter ends, once, if anything was ever streamed."""
    if job not in _exit_jobs:
        _exit_jobs.append(job)


def _at_exit() -> None:
    drain()
    for job in _exit_jobs:
        _run(job)


def _work() -> None:
    while True:
        _run(_queue.get())


def _run(job: _Job) -> None:
    try:
        job()
    except Exception as error:
        log_once("end an abandoned call", error)


def _watch_collector(phase: str, _info: dict[str, int]) -> None:
    global _collecting
    _collecting = threading.get_ident() if phase == "start" else None


def _after_fork() -> None:
    # The thread stayed with the parent, and so did the calls that were queued there.
    global _queue, _worker, _start_lock, _collecting, _deferred
    _queue, _worker, _start_lock, _collecting, _deferred = queue.SimpleQueue(), None, threading.Lock(), None, False


os.register_at_fork(after_in_child=_after_fork)
