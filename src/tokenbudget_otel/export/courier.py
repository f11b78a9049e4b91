"""What sends the requests of one destination: a thread, as long as something may wait.

Of all processes that share a destination one sends at a time: the one that holds its lock, which is taken when
something waits and let go when nothing does, or when the process dies. The others look every second whether it is
their turn.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokenbudget_otel.export.entry import Entry
from tokenbudget_otel.export.folder import DAMAGED, REFUSED, Folder
from tokenbudget_otel.export.memory_queue import MemoryQueue
from tokenbudget_otel.export.otlp_bytes import halves, rejected
from tokenbudget_otel.export.sender_lock import SenderLock
from tokenbudget_otel.export.waits import Waits
from tokenbudget_otel.export.wire import Answer, Wire
from tokenbudget_otel.forks import renew_after_fork

logger: Final = logging.getLogger("tokenbudget_otel.export")

TOO_LARGE: Final = 413
AGAIN: Final = frozenset((408, 429, *range(500, 600)))
"""Answers after which a request is sent again."""

BUSY: Final = frozenset((408, 429, 502, 503, 504))
"""Those that are no fault of the request: it waits in its place. After others the next one is tried, in time."""

_TRIES: Final = 3
"""How often a request is answered with another 5xx before the next one is tried."""

_AT_ONCE: Final = 4_096
"""How many names of files are kept in memory."""

ADVICE: Final = {
    401: "check the key or the headers",
    403: "check what the key may do",
    404: "check the path of the endpoint: OTLP/HTTP has /v1/traces, /v1/metrics and /v1/logs",
    405: "check the endpoint: it takes no POST",
    415: "the receiver does not take OTLP as protobuf",
}


class Courier:
    """Delivers what waits in one destination's folder, and in a queue in memory.

    Args:
        folder, place: the spool and the destination's folder in it.
        memory: requests that could not be written.
        wire: what sends them.
        url: what the receiver is called in the log.
        waits: how long is waited between tries.
        rescue: writes what is in memory to disk, if that works again.
    """

    def __init__(
        self,
        folder: Folder,
        place: Path,
        memory: MemoryQueue,
        wire: Wire,
        url: str,
        waits: Waits,
        rescue: Callable[[], None] = lambda: None,
    ) -> None:
        self.wire = wire
        self._folder = folder
        self._place = place
        self._memory = memory
        self._url = url
        self._waits = waits
        self._rescue = rescue
        self._lock = SenderLock(place / "lock")
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._state = threading.Condition()
        self._running = False
        self._closing_at: float | None = None
        self._wake = threading.Event()
        self._urge = threading.Event()
        self._handed = 0
        """How many requests were handed over here."""
        self._empty_at = 0
        """How many had been when last nothing waited."""
        self.failure = ""
        """Why the last request was not taken; empty if it was."""
        # What follows belongs to the thread alone.
        self._queue: deque[Entry] = deque()
        self._failures = 0
        self._told: set[object] = set()
        self._tries: dict[Entry, int] = {}
        self._later: dict[Entry, float] = {}
        self._not_before = 0.0

    # --- for those who hand over -------------------------------------------------------------------------------------

    def start(self, start: Callable[[Callable[[], None]], None]) -> None:
        """Have it run, if it does not; ``start`` runs a function in a thread."""
        with self._state:
            if self._running:
                return
            self._running, self._closing_at = True, None
        try:
            start(self._run)
        except BaseException:
            self._running = False
            raise

    def handed_over(self) -> None:
        """Something more waits."""
        with self._state:
            self._handed += 1
        self._wake.set()

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over so far is delivered, at most ``timeout`` seconds; say whether it is."""
        deadline = time.monotonic() + timeout
        with self._state:
            upto = self._handed
            self._urge.set()
            self._wake.set()
            while self._empty_at < upto and self._running:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._state.wait(left)
            return self._empty_at >= upto

    def hasten(self, deadline: float) -> None:
        """Have it stop: at once if nothing waits, else when all is delivered, cannot be, or the time has come."""
        with self._state:
            self._closing_at = deadline
            self._urge.set()
            self._wake.set()

    def close(self, timeout: float) -> None:
        """Have it stop, and wait for that, ``timeout`` seconds at most."""
        deadline = time.monotonic() + timeout
        self.hasten(deadline)
        with self._state:
            while self._running:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._state.wait(left)

    def deliver_now(self) -> bool:
        """Send what waits, on this thread, until something fails. False if another process is sending.

        Only where :meth:`start` was not called.
        """
        if not self._lock.take():
            return False
        try:
            self._deliver()
        finally:
            self._lock.release()
        return True

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        try:
            with suppress_instrumentation():
                while self._round():
                    pass
        except BaseException:
            logger.exception("the courier to %s has ended; what waits stays in %s", self._url, self._place)
        finally:
            self._lock.release()
            with self._state:
                self._running = False
                self._state.notify_all()

    def _round(self) -> bool:
        """Deliver what can be delivered, and wait. False if that was the last time."""
        self._wake.clear()
        self._urge.clear()
        # Asked before it looks: what is handed over just before it is closed is not to be passed over.
        last = self._closing_at is not None
        pause, patient = self._deliver()
        if last:
            return False
        # While a receiver is given time, what else is handed over is no reason to try again.
        (self._urge if patient else self._wake).wait(pause)
        return True

    @property
    def _over(self) -> bool:
        return self._closing_at is not None and time.monotonic() >= self._closing_at

    def _deliver(self) -> tuple[float, bool]:
        """Send until nothing waits, or something fails. The seconds to wait then, and whether they are for the
        receiver's sake."""
        if (asked := self._not_before - time.monotonic()) > 0:
            return asked, True
        handed = self._handed
        busy = False
        try:
            while not self._over:
                entry, in_memory, busy = self._next()
                if entry is None:
                    break
                pause = self._send_from_memory() if in_memory else self._send(entry)
                if pause is not None:
                    return pause, True
            else:
                return 0.0, False
        except OSError as error:
            self._tell_once("folder", "the spool %s cannot be read: %s", self._place, error)
            return self._waits.look, False
        if busy:
            return self._waits.look, False
        if self._later:
            return max(min(self._later.values()) - time.monotonic(), 0.01), False
        self._lock.release()
        with self._state:
            self._empty_at = handed
            self._state.notify_all()
        return self._waits.idle, False

    def _next(self) -> tuple[Entry | None, bool, bool]:
        """What is to be sent next, whether it is in memory, and whether others send what is on disk."""
        on_disk, busy = None, False
        if not self._queue and self._folder.wait(self._place):
            if self._lock.take():
                self._queue.extend(self._folder.mended(self._place)[:_AT_ONCE])
                self._later = {entry: due for entry, due in self._later.items() if entry in self._queue}
                self._tries = {entry: tries for entry, tries in self._tries.items() if entry in self._queue}
            else:
                busy = True
        elif not self._queue:
            self._later.clear()
            self._tries.clear()
        now = time.monotonic()
        while self._queue and on_disk is None:
            if self._later.get(self._queue[0], 0.0) > now:
                self._queue.popleft()
            else:
                on_disk = self._queue[0]
        in_memory = self._memory.first()
        if in_memory is not None and (on_disk is None or in_memory < on_disk):
            return in_memory, True, busy
        return on_disk, False, busy

    def _send(self, entry: Entry) -> float | None:
        """Send a file. The seconds to wait if that failed."""
        try:
            body = self._folder.read(self._place, entry)
        except FileNotFoundError:
            self._forget(entry)  # it gave way to others, and was counted
            return None
        except OSError as error:
            self._tell_once("read", "%s cannot be read: %s; it will be tried again", entry.name, error)
            self._put_off(entry)
            return None
        if not entry.holds(body):
            if self._aside(entry, DAMAGED):
                logger.warning(
                    "%s is damaged: its bytes are not those that were written. It is kept in %s, and not sent",
                    entry.name, self._place / DAMAGED,
                )  # fmt: skip
            return None
        answer = self._posted(body)
        if answer is None:
            return self._failed()
        status = answer.status
        if 200 <= status < 300:
            number, why = rejected(answer.body)
            self._folder.delivered(self._place, entry, len(body), min(number, entry.items))
            self._succeeded(entry, number, why)
        elif status in AGAIN:
            return self._again(entry, answer)
        elif status == TOO_LARGE:
            return self._halved(entry, body)
        else:
            self._aside(entry, REFUSED)
            self._say_refused(status, f"is kept in {self._place / REFUSED}")
            return None
        self._forget(entry)
        return None

    def _send_from_memory(self) -> float | None:
        taken = self._memory.take()
        if taken is None:
            return None
        entry, body = taken
        answer = self._posted(body)
        if answer is None or answer.status in AGAIN:
            self._back(entry, body)
            self._rescue()
            return self._failed(answer.retry_after if answer else None)
        if 200 <= answer.status < 300:
            number, why = rejected(answer.body)
            number = min(number, entry.items)
            self._folder.count(delivered=entry.items - number, dropped_rejected=number)
            self._succeeded(entry, number, why)
        elif answer.status == TOO_LARGE and (parts := halves(body)) is not None:
            for which in (1, 0):
                self._back(entry.half(which, *parts[which]), parts[which][0])
        elif answer.status == TOO_LARGE:
            self._folder.count(dropped_too_large=entry.items)
        else:
            self._folder.count(dropped_unwritable=entry.items)
            self._say_refused(answer.status, "is dropped: it could not be written to disk")
        return None

    def _back(self, entry: Entry, body: bytes) -> None:
        if dropped := self._memory.back(entry, body):
            self._folder.count(dropped_unwritable=dropped)

    def _posted(self, body: bytes) -> Answer | None:
        """What the receiver answered; None if it did not."""
        try:
            answer = self.wire.post(body)
        except OSError as error:
            self._tell_failure(f"{type(error).__name__}: {error}")
            return None
        except Exception:
            # A bug, of ours or of what the program has put in between. Nothing is lost for that.
            if "wire" not in self._told:
                self._told.add("wire")
                logger.exception("sending to %s failed; it will be tried again", self._url)
            return None
        if answer.status in AGAIN:
            self._tell_failure(f"it answered {answer.status}")
        return answer

    def _again(self, entry: Entry, answer: Answer) -> float:
        pause = self._failed(answer.retry_after)
        if answer.status not in BUSY and answer.retry_after is None:
            tries = self._tries[entry] = self._tries.get(entry, 0) + 1
            # What has come since the last look waits behind it as well.
            if tries >= _TRIES and (len(self._queue) > 1 or self._folder.wait(self._place, 2)):
                # It may be this request that makes the receiver fail. Those behind it shall not wait for ever.
                self._put_off(entry)
        return pause

    def _put_off(self, entry: Entry) -> None:
        self._later[entry] = time.monotonic() + self._waits.longest
        self._queue.popleft()

    def _aside(self, entry: Entry, where: str) -> bool:
        """Have a file not wait any more. False if it has gone, or cannot be moved; then it is met again later."""
        try:
            moved = self._folder.set_aside(self._place, entry, where)
        except OSError as error:
            self._tell_once("aside", "%s cannot be moved to %s: %s", entry.name, self._place / where, error)
            self._put_off(entry)
            return False
        self._forget(entry)
        return moved

    def _halved(self, entry: Entry, body: bytes) -> float | None:
        parts = halves(body)
        if parts is None:
            self._folder.drop(self._place, entry, len(body), "too_large")
            self._tell_once(
                "too large",
                "%s does not take %s bytes with one item in them (413): it is dropped",
                self._url,
                len(body),
            )
        else:
            try:
                self._folder.split(self._place, entry, len(body), parts)
            except OSError as error:
                self._tell_once("split", "a request cannot be halved: %s; it will be tried again", error)
                return self._failed()
            first, second = (entry.half(which, *part) for which, part in enumerate(parts))
            self._forget(entry)
            self._queue.extendleft((second, first))
            return None
        self._forget(entry)
        return None

    def _forget(self, entry: Entry) -> None:
        self._tries.pop(entry, None)
        self._later.pop(entry, None)
        if self._queue and self._queue[0] == entry:
            self._queue.popleft()

    def _failed(self, asked: float | None = None) -> float:
        self._failures += 1
        pause = self._waits.after(self._failures, asked)
        if asked is not None:
            # Nobody who flushes or closes is in more of a hurry than the receiver.
            self._not_before = time.monotonic() + pause
        return pause

    def _succeeded(self, entry: Entry, number_rejected: int, why: str) -> None:
        if self._failures:
            logger.info("%s takes what is sent again", self._url)
        if len(self._later) > 1:
            # More than one request failed: that was the receiver. They keep their order.
            self._later.clear()
            self._queue.clear()
        self._failures = 0
        self.failure = ""
        self._told.discard("failure")
        if number_rejected:
            self._tell_once(
                "rejected",
                "%s rejected %s of %s items: %s",
                self._url,
                number_rejected,
                entry.items,
                why or "no reason",
            )

    # --- what is said ------------------------------------------------------------------------------------------------

    def _tell_failure(self, what: str) -> None:
        self.failure = what
        self._tell_once(
            "failure",
            "%s does not take what is sent (%s). It is kept in %s and sent later",
            self._url, what, self._place,
        )  # fmt: skip

    def _say_refused(self, status: int, then: str) -> None:
        advice = ADVICE.get(status, "see what the receiver logs")
        self._tell_once(
            status,
            "%s refused a request (%s): %s. It %s, as all that it refuses; `tokenbudget spool replay --refused` sends"
            " them again",
            self._url, status, advice, then,
        )  # fmt: skip

    def _tell_once(self, key: object, message: str, *values: object) -> None:
        if key not in self._told:
            self._told.add(key)
            logger.warning(message, *values)
