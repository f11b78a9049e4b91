"""Alerts, told: a thread of its own looks how much of a limit is spent, and tells whom the budget names.

Calls only say that spending under a key may have changed (:meth:`AlertDesk.look`), which costs them a microsecond or
two; nothing that is told can hold them up or fail them. All processes that share a ledger tell each alert once: the
ledger remembers who was first.

A budget with a calendar window tells an alert once for each scope and window. A rolling window never begins anew, so
there it is told once each time that the share rises to the threshold, and again after it has been below. Processes see
that at different times. So each that sees the share above the threshold leaves a mark for the present part of the
window; the one that tells is the first to leave it, and only if no part since it last saw the share below (or none
of the whole window, if it never did) bears one.
"""

from __future__ import annotations

import atexit
import contextvars
import hashlib
import inspect
import logging
import queue
import sys
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenbudget_otel.budgets.ledger import DIMENSIONS, Balance, LedgerUnavailable, Limits
from tokenbudget_otel.forks import renew_after_fork

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.alerting.alert import Alert
    from tokenbudget_otel.budgets.alerting.alert_event import AlertEvent as AlertEvent
    from tokenbudget_otel.budgets.declared import Budget

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

EXIT_TIMEOUT_S: Final = 2.0
"""How long the end of a program is held up, at most, for alerts that are not told yet."""

ROLLING: Final = "rolling "
"""What the ids of rolling windows begin with."""

_PAUSE_S: Final = 0.1
"""Pause between two looks into the ledger: a busy budget costs it ten a second, not one for each call."""

_MOST_PAUSE_S: Final = 30.0
"""Longest pause while the ledger cannot be asked."""

_MOST_KEYS: Final = 1_000
"""About how many keys of the ledger are read at once."""

_MOST_WAITING: Final = 50_000
"""Most keys that wait to be looked at. Further ones have to wait for their next call."""

_MOST_TOLD: Final = 20_000
"""Most alerts remembered as told. One that is forgotten is not told again: the ledger remembers it."""


class Watched(NamedTuple):
    """A key of the ledger whose spending may have changed, and who is to be told of what.

    Args:
        budget, alerts: the budget that counts under the key, and its alerts.
        key, older: the key, and the earlier parts of a rolling window.
        ends: when the key's window ends, in seconds since 1970; ``None`` for never.
        window: id of the window.
        scope: the values that the budget is counted by.
        limits: as declared: nano-USD, tokens, calls; ``None`` for no limit.
        policy: the name under which other limits may be in force.
    """

    budget: Budget
    alerts: tuple[Alert, ...]
    key: str
    older: tuple[str, ...]
    ends: float | None
    window: str
    scope: Mapping[str, str]
    limits: tuple[int | None, int | None, int | None]
    policy: str


class AlertDesk:
    """Looks after the alerts of the budgets that are counted in one ledger. Safe for threads, tasks and forks.

    Its thread is started by the first look. ``dropped`` counts looks that had to be left to the next call.

    Args:
        read: what keys stand at, in the order asked.
        limits: every policy that has other limits than those declared.
        first: whether nobody, in any process, asked this of a mark before (:meth:`.Ledger.first`).
        clock: seconds since 1970.
        pause: seconds between two looks into the ledger.
    """

    def __init__(
        self,
        read: Callable[[Sequence[str]], Sequence[Balance]],
        limits: Callable[[], Mapping[str, Limits]],
        first: Callable[[str, float | None], bool],
        *,
        clock: Callable[[], float] = time.time,
        pause: float = _PAUSE_S,
    ) -> None:
        self.dropped = 0
        self._read = read
        self._limits = limits
        self._first = first
        self._clock = clock
        self._pause = pause
        self._closed = False
        self._told: OrderedDict[str, str] = OrderedDict()
        self._below: OrderedDict[str, str] = OrderedDict()
        self._after_fork()
        renew_after_fork(self)
        _desks.add(self)

    def _after_fork(self) -> None:
        # What waited is looked at by the parent, whose calls it was; what is told stays told.
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._waiting: dict[str, Watched] = {}
        self._hurry = threading.Event()
        self._worker: threading.Thread | None = None
        self._failing = 0

    # -- what the enforcer calls -----------------------------------------------------------------------------

    def look(self, watched: Watched) -> None:
        """Spending under this key may have changed. Takes no lock, waits for nothing and raises nothing."""
        waiting = self._waiting
        # Whoever waits already is read after it is taken from there, and so after what this call has spent.
        if watched.key not in waiting:
            if self._closed or not watched.alerts:
                return
            if len(waiting) >= _MOST_WAITING:
                self.dropped += 1
                return
            waiting[watched.key] = watched
            self._queue.put(watched.key)
        if self._worker is None:
            self._start()

    def flush(self, timeout: float) -> bool:
        """Wait until everything looked at so far is told, and delivered or given up; whether that is so.

        Args:
            timeout: most seconds to wait. It does not wait for a delivery that will be tried only later.
        """
        deadline = time.monotonic() + timeout
        done = self._drain(timeout)
        # There is nothing to deliver where nobody has imported it.
        module = sys.modules.get(_DELIVERIES)
        return (module is None or module.deliveries.flush(deadline - time.monotonic())) and done

    def close(self) -> None:
        """Tell what is to be told, within two seconds, and end the thread. Deliveries go on."""
        self._drain(EXIT_TIMEOUT_S)
        self._closed = True
        self._queue.put(None)
        _desks.discard(self)

    # -- the thread ------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Have the thread run; whether it does. While the program ends, none can be started any more."""
        if not self._lock.acquire(blocking=False):
            return True  # somebody else is at it
        try:
            if self._worker is None:
                # In a context of its own: not in the span, tags and budget of whoever made the first call.
                arguments = (_work, weakref.ref(self), self._queue, self._hurry)
                worker = threading.Thread(
                    target=contextvars.Context().run, args=arguments, name="tokenbudget-alerts", daemon=True
                )
                self._worker = worker
                worker.start()
                # A desk that nobody refers to any more takes its thread along.
                weakref.finalize(self, self._queue.put, None).atexit = False
                atexit.unregister(_at_exit)
                atexit.register(_at_exit)
            return True
        except Exception:
            self._worker = None
            return False
        finally:
            self._lock.release()

    def _drain(self, timeout: float) -> bool:
        """Wait until what waits has been looked at; whether it has."""
        if threading.current_thread() is self._worker:
            return False  # asked by a callback, which it would wait for
        if self._closed or (self._worker is None and not self._waiting):
            return True
        reached = threading.Event()
        self._queue.put(reached)
        self._hurry.set()
        try:
            if not self._start():
                while not reached.is_set():
                    self._turn(self._queue.get())
            return reached.wait(max(0.0, timeout)) and not self._failing
        finally:
            self._hurry.clear()

    def _turn(self, item: str | threading.Event | None) -> float:
        """Look at what waits, or much of it; how long to pause then."""
        batch: list[Watched] = []
        reached: list[threading.Event] = []
        keys: list[str] = []
        while True:
            if isinstance(item, threading.Event):
                reached.append(item)
            elif item is not None and (watched := self._waiting.pop(item, None)) is not None:
                batch.append(watched)
                keys += watched.key, *watched.older
            if len(keys) >= _MOST_KEYS:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        pause = self._pause
        if batch:
            try:
                self._judge(batch, keys)
                self._failing = 0
            except Exception as error:
                self._failing += 1
                pause = min(_PAUSE_S * 2 ** min(self._failing, 9), _MOST_PAUSE_S)
                if reached:
                    self._hurry.clear()  # who is in a hurry is answered now, and the pause kept
                if self._failing == 1:
                    logger.warning(
                        "The alerts of budgets come late: what is spent cannot be read (%s: %s)",
                        type(error).__name__,
                        error,
                    )
                for watched in batch:  # what was told of it is not told again
                    self.look(watched)
        for each in reached:
            each.set()
        return pause

    def _judge(self, batch: Sequence[Watched], keys: Sequence[str]) -> None:
        """Tell what is to be told of these keys. Raises what the ledger raises; then nothing of it is lost."""
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        tell: list[tuple[Alert, AlertEvent]] = []
        try:
            # What a ledger sends to its server from here is no part of anybody's trace.
            with suppress_instrumentation():
                balances = dict(zip(keys, self._read(keys), strict=True))
                others = self._limits()
                for watched in batch:
                    try:
                        self._compare(watched, balances, others.get(watched.policy), tell)
                    except LedgerUnavailable:
                        raise
                    except Exception:
                        logger.exception("The alerts of budget %r could not be worked out", watched.budget.name)
        finally:
            for alert, event in tell:
                contextvars.Context().run(_tell, alert, event)

    def _compare(
        self,
        watched: Watched,
        balances: Mapping[str, Balance],
        others: Limits | None,
        tell: list[tuple[Alert, AlertEvent]],
    ) -> None:
        """Hold what is spent against the limits in force and the thresholds, the lowest first."""
        parts = [balances[key] for key in (watched.key, *watched.older)]
        total = Balance(watched.key, *map(sum, zip(*(part[1:] for part in parts), strict=True)))
        limits = watched.limits if others is None else others.effective(watched.limits)
        # Of a limit of nothing, anything is all.
        share, dimension = max(
            (spent / limit if limit else float(spent > 0), dimension)
            for spent, limit, dimension in zip(total[1:4], limits, DIMENSIONS, strict=True)
            if limit is not None
        )
        equals: Counter[tuple[float, str]] = Counter()
        for alert in sorted(watched.alerts, key=lambda alert: alert.at):
            name = alert.at, fingerprint(alert.to)
            equals[name] += 1
            if self._is_new(watched, share, alert.at, f"{alert.at}|{name[1]}{equals[name]}"):
                from tokenbudget_otel.budgets.alerting.alert_event import alert_event

                tell.append((alert, alert_event(watched, alert.at, share, dimension, limits, total, self._clock())))

    def _is_new(self, watched: Watched, share: float, at: float, name: str) -> bool:
        """Whether this process is to tell an alert now."""
        rolling = watched.window.startswith(ROLLING)
        series = f"{watched.budget.name}|{sorted(watched.scope.items())}|{name}"
        if share < at:
            if rolling:
                _remember(self._below, series, watched.key)
            return False
        mark = f"alert|{watched.key}|{name}"
        if mark in self._told:
            return False
        first = self._first(mark, watched.ends)
        _remember(self._told, mark, "")
        if not rolling:
            return first
        # Since when it is above, as far as is known here. Keys of one series are ordered by when their parts begin.
        below = self._below.pop(series, "")
        if not first:
            return False
        since = sorted((key for key in watched.older if key >= below), reverse=True)
        try:
            return all(self._first(f"alert|{key}|{name}", watched.ends) for key in since)
        except Exception:
            return True  # nobody else will tell it now: better twice than never


def fingerprint(to: object) -> str:
    """What stands for whom an alert is told to in the marks of a ledger: the same in every process, and no secret.

    >>> fingerprint("log") == fingerprint("log") != fingerprint(print)
    True
    """
    if not isinstance(to, str):
        named = to if hasattr(to, "__qualname__") else type(to)
        to = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"
    return hashlib.sha256(to.encode()).hexdigest()[:16]


def _work(
    desk: weakref.ref[AlertDesk], waiting: queue.SimpleQueue[str | threading.Event | None], hurry: threading.Event
) -> None:
    while True:
        item = waiting.get()
        here = desk()
        if here is None or here._closed:
            return
        try:
            pause = here._turn(item)
        except Exception:
            logger.exception("The alerts of budgets could not be looked after; it goes on")
            pause = _MOST_PAUSE_S
        del here
        hurry.wait(pause)


def _tell(alert: Alert, event: AlertEvent) -> None:
    try:
        _WAYS[alert.kind](alert, event)
    except BaseException:  # sys.exit() in a callback would end the thread of all alerts
        logger.exception("The alert of budget %r at %g could not be told: %s", event.budget, event.threshold, event)


def _log(_alert: Alert, event: AlertEvent) -> None:
    logger.warning("%s", event)


def _call(alert: Alert, event: AlertEvent) -> None:
    assert callable(alert.to)
    if inspect.iscoroutine(answer := alert.to(event)):
        answer.close()
        raise TypeError("it is told by a coroutine function, and there is no event loop here: give a plain function")


def _send(alert: Alert, event: AlertEvent) -> None:
    from tokenbudget_otel.budgets.alerting.deliveries import deliveries
    from tokenbudget_otel.budgets.alerting.webhooks import delivery

    deliveries.send(delivery(alert, event))


_WAYS: Final[dict[str, Callable[[Alert, AlertEvent], None]]] = {
    "log": _log,
    "call": _call,
    "webhook": _send,
    "slack": _send,
}
_DELIVERIES: Final = "tokenbudget_otel.budgets.alerting.deliveries"

_desks: Final[weakref.WeakSet[AlertDesk]] = weakref.WeakSet()


def _at_exit() -> None:
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    for desk in tuple(_desks):
        desk.flush(deadline - time.monotonic())
    if (module := sys.modules.get(_DELIVERIES)) is not None:
        module.deliveries.abandon()


def _remember(memory: OrderedDict[str, str], name: str, value: str) -> None:
    memory[name] = value
    memory.move_to_end(name)
    if len(memory) > _MOST_TOLD:
        memory.popitem(last=False)
