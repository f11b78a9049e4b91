"""Deliveries: alerts on their way over HTTP, tried again while that may help, by two threads of their own.

Each delivery has a time when it is due. Those to one host take turns, one at a time, and so do the hosts: one that is
slow holds up its own deliveries and nobody else's. Imported when there is the first alert to send.
"""

from __future__ import annotations

import contextvars
import heapq
import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from tokenbudget_otel.budgets.alerting.webhooks import TIMEOUT_S, Answer, Delivery, post
from tokenbudget_otel.forks import renew_after_fork

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

ATTEMPTS: Final = 6
"""How often a delivery is tried."""

PAUSES_S: Final = (2.0, 6.0, 18.0, 54.0, 162.0)
"""Longest pause after each attempt; what is waited lies between half of it and all of it."""

RETRY_AFTER_S: Final = 120.0
"""Most seconds that a server can have us wait with ``Retry-After``."""

MOST_WAITING: Final = 1_000
"""Most deliveries that wait. Beyond that they are given up at once."""

_THREADS: Final = 2


class _Host:
    """The deliveries to one host: those that wait, and the one that is being made."""

    __slots__ = ("busy", "name", "turn", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.busy: Delivery | None = None
        self.turn = math.inf  # when it is looked at next
        self.waiting: list[tuple[float, int, Delivery]] = []


class Deliveries:
    """Alerts that are being sent. ``delivered``, ``failed`` and ``retried`` count.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.delivered = self.failed = self.retried = 0
        self._clock = clock
        self._numbers = itertools.count()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        # What was on its way stays with the parent, whose threads go on.
        self._changed = threading.Condition()
        self._hosts: dict[str, _Host] = {}
        # When each host is looked at next. One that was to be looked at later before is there twice.
        self._turns: list[tuple[float, int, _Host]] = []
        self._threads: list[threading.Thread] = []
        self._waiting = 0

    def send(self, delivery: Delivery) -> None:
        """Have something delivered. Returns at once."""
        with self._changed:
            if full := self._waiting >= MOST_WAITING:
                self.failed += 1
            else:
                self._waiting += 1
                self._put(delivery, self._clock())
        if full:
            _give_up(delivery, f"{MOST_WAITING} others wait already")
        else:
            self.start()

    def start(self) -> bool:
        """Have the threads run; whether they do. While the program ends, none can be started any more."""
        with self._changed:
            while len(self._threads) < _THREADS:
                # In a context of its own: not in the span, tags and budget of whoever made the first call.
                run = contextvars.Context().run
                thread = threading.Thread(target=run, args=(self._work,), name="tokenbudget-webhooks", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    break
                self._threads.append(thread)
            return bool(self._threads)

    def flush(self, timeout: float) -> bool:
        """Wait until every delivery is made or given up, at most ``timeout`` seconds; whether that is so.

        It does not wait for an attempt that is due only later than that.
        """
        deadline = self._clock() + timeout
        helps = not self.start()
        with self._changed:
            while self._hosts:
                left = deadline - self._clock()
                busy = any(host.busy is not None for host in self._hosts.values())
                if left <= 0 or (not busy and self._turns[0][0] > deadline):
                    return False
                if helps and (taken := self._take()) is not None:
                    self._changed.release()
                    try:
                        self._attempt(*taken, timeout=min(left, TIMEOUT_S))
                    finally:
                        self._changed.acquire()
                else:
                    self._changed.wait(left if busy else min(left, max(0.0, self._turns[0][0] - self._clock()) + 0.01))
        return True

    def abandon(self) -> None:
        """Give up what waits, because the program ends, and say so."""
        with self._changed:
            left = [delivery for host in self._hosts.values() for _, _, delivery in host.waiting]
            self._waiting -= len(left)
            self.failed += len(left)
            left += [host.busy for host in self._hosts.values() if host.busy is not None]
            self._hosts = {name: host for name, host in self._hosts.items() if host.busy is not None}
            for host in self._hosts.values():
                host.waiting.clear()
        if left:
            logger.warning(
                "The program ended before %d alert(s) could be delivered, the first to %s: %s",
                len(left),
                left[0].place,
                left[0].event,
            )

    # -- inside ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                while (taken := self._take()) is None:
                    self._changed.wait(max(0.0, self._turns[0][0] - self._clock()) if self._turns else None)
            self._attempt(*taken)
            del taken

    def _put(self, delivery: Delivery, due: float) -> None:
        name = urlsplit(delivery.url).netloc.rpartition("@")[2]
        if (host := self._hosts.get(name)) is None:
            host = self._hosts[name] = _Host(name)
        heapq.heappush(host.waiting, (due, next(self._numbers), delivery))
        if host.busy is None and due < host.turn:
            self._turn(host, due)

    def _turn(self, host: _Host, due: float) -> None:
        host.turn = due
        heapq.heappush(self._turns, (due, next(self._numbers), host))
        self._changed.notify_all()

    def _take(self) -> tuple[_Host, Delivery] | None:
        """The delivery that is due for longest, of the hosts that are not busy."""
        now = self._clock()
        while self._turns and self._turns[0][0] <= now:
            due, _, host = heapq.heappop(self._turns)
            if due == host.turn and host.waiting:
                host.turn = math.inf
                host.busy = heapq.heappop(host.waiting)[2]
                return host, host.busy
        return None

    def _attempt(self, host: _Host, delivery: Delivery, timeout: float = TIMEOUT_S) -> None:
        delivery.attempts += 1
        try:
            answer = post(delivery, timeout)
        except Exception as error:  # ours, or a URL that urllib does not take; its text may hold the URL
            answer = Answer(f"it could not be sent ({type(error).__name__})")
        again = answer.again and delivery.attempts < ATTEMPTS
        if answer.reason and not again:
            _give_up(delivery, answer.reason)
        with self._changed:
            now = self._clock()
            if again:
                self.retried += 1
                self._put(delivery, now + pause(delivery.attempts, answer.retry_after))
            else:
                self._waiting -= 1
                self.failed += bool(answer.reason)
                self.delivered += not answer.reason
            host.busy = None
            if host.waiting:
                # Behind hosts that have waited meanwhile.
                self._turn(host, max(now, host.waiting[0][0]))
            else:
                del self._hosts[host.name]
            self._changed.notify_all()


def pause(attempts: int, retry_after: float = 0.0) -> float:
    """Seconds to wait after so many attempts: longer each time, never the same for all, and as long as was asked for.

    >>> 1 <= pause(1) <= 2, 81 <= pause(5) <= 162, pause(1, 30), pause(1, 9999)
    (True, True, 30, 120.0)
    """
    return max(PAUSES_S[attempts - 1] * random.uniform(0.5, 1.0), min(retry_after, RETRY_AFTER_S))


def _give_up(delivery: Delivery, reason: str) -> None:
    logger.error(
        "An alert could not be delivered to %s after %d attempt(s): %s. It said: %s",
        delivery.place,
        delivery.attempts,
        reason,
        delivery.event,
    )


deliveries: Final = Deliveries()
"""Those of this process."""
