"""The way from the enforcer to a ledger that is kept elsewhere, in a file or a server.

It never blocks an event loop, survives the store being away, and keeps the holds of this process alive.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from tokenbudget_otel.budgets.ledger import Claim, Ledger, LedgerUnavailable, Refused
from tokenbudget_otel.budgets.remote.breaker import Breaker
from tokenbudget_otel.budgets.remote.failover import Failover
from tokenbudget_otel.budgets.remote.loops import result, running
from tokenbudget_otel.budgets.remote.outbox import Outbox
from tokenbudget_otel.budgets.remote.threads import Threads
from tokenbudget_otel.forks import renew_after_fork

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

CATCH_UP_S: Final = 1.0
"""How long a refused request waits for what this process has given back and the store does not know yet."""

EXIT_S: Final = 2.0
"""How long the end of the program waits for what has been told."""

ADOPT_EVERY_S: Final = 60.0
"""Seconds after which files of processes that died are looked for again."""

_BATCH: Final = 500
"""Holds that one request renews."""

_THREAD_NAME: Final = "tokenbudget-courier"

_THREADS: Final = 4
"""Most requests of event loops under way at once, to a ledger that has no way of its own for them."""


class _Told(NamedTuple):
    operation: str
    arguments: tuple[Any, ...]
    then: Callable[[Any], None] | None


class Courier:
    """Asks a ledger, and tells it what happened. Safe for threads, tasks and forks.

    What is asked gets an answer, or :class:`.LedgerUnavailable` within a moment. What is told is booked for certain,
    exactly once: if not now, later (see :mod:`.outbox`). A hold whose admission was cancelled is released.

    Args:
        ledger: the ledger.
        clock: seconds since 1970.
        ttl: seconds a hold in a shared ledger lives without a sign of life. Given every third of that by one thread.
        longest: seconds after which a hold is left to run out: whoever held it has lost it.
        journal: a folder, for this ledger alone, where what is to be booked later is kept too; so it survives the
            process. ``None`` to keep it in memory.
        cool_off: seconds until a store that did not answer is asked again; doubled each time, up to 30.

    Raises:
        ValueError: if the journal cannot be a folder.

    >>> from tokenbudget_otel.budgets import Amount, MemoryLedger
    >>> courier = Courier(MemoryLedger())
    >>> courier.ask("reserve", "hold", [Claim("all", nano_usd=60)], 60)
    Granted(over=(), replayed=False)
    >>> courier.tell("settle", "hold", Amount(40), then=print)
    done
    >>> courier.ask("balance", "all").spent_nano_usd
    40
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.time,
        ttl: float = 60.0,
        longest: float = 1800.0,
        journal: Path | None = None,
        cool_off: float = 1.0,
    ) -> None:
        self.ledger = ledger
        self._clock = clock
        self._ttl = ttl
        self._longest = longest
        self._breaker = Breaker(cool_off, clock)
        self._outbox = Outbox(journal)
        self._failover = Failover(
            self._breaker, self._outbox, clock, longest, lambda: self.pending, self._catch_up, self._remind
        )
        self._threads = Threads(_THREADS, "tokenbudget-ledger")
        self._asynchronous: Callable[[], Any] = getattr(ledger, "asynchronous", lambda: None)
        self._adopt_at = 0.0
        self._closed = False
        self._renew()
        renew_after_fork(self)
        _couriers.add(self)
        if self._outbox.left_behind():
            self._start()

    def _renew(self) -> None:
        self._told: deque[_Told] = deque()
        self._open: dict[str, float] = {}
        self._wake: queue.SimpleQueue[Courier | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._turn = threading.Lock()  # held by who delivers: one operation after the other
        self._delivering: int | None = None
        self._beat_at = 0.0

    def _after_fork(self) -> None:
        # What was told, noted and opened is the parent's, and so are the threads.
        self._renew()
        for each in (self._breaker, self._outbox, self._failover, self._threads):
            each._after_fork()

    # -- what the enforcer calls -----------------------------------------------------------------------------

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Do an operation of the ledger in this thread.

        Where the store is away, ``reserve`` and ``extend`` are answered here if every hard claim has a fallback. An
        id of which a ``reserve`` was not granted may then belong to a hold that is about to be released: a new
        attempt is made with a new id.

        Raises:
            LedgerUnavailable: if the store is away, and the answer depends on it.
        """
        steps = self._failover.steps(operation, arguments)
        try:
            call, arguments = next(steps)
            while True:
                try:
                    answer = (getattr(self.ledger, call) if isinstance(call, str) else call)(*arguments)
                except LedgerUnavailable as error:
                    call, arguments = steps.throw(error)
                else:
                    call, arguments = steps.send(answer)
        except StopIteration as end:
            return end.value

    async def ask_async(self, operation: str, *arguments: Any) -> Any:
        """:meth:`ask` on an event loop (of asyncio or trio), which goes on meanwhile."""
        if not self.ledger.blocking or running() is None:
            return self.ask(operation, *arguments)
        abandoned = arguments[0] if operation == "reserve" else None
        steps = self._failover.steps(operation, arguments)
        try:
            call, arguments = next(steps)
            while True:
                try:
                    answer = await self._await(call, arguments, abandoned)
                except LedgerUnavailable as error:
                    call, arguments = steps.throw(error)
                else:
                    call, arguments = steps.send(answer)
        except StopIteration as end:
            return end.value

    def tell(self, operation: str, *arguments: Any, then: Callable[[Any], None] | None = None) -> None:
        """Have something booked. On an event loop it is handed to a thread, elsewhere it is done at once.

        Args:
            operation, arguments: ``settle``, ``release``, ``charge``, ``adjust``, ``forget``, ``declare`` or
                ``set_limits``.
            then: is given the answer. Where the store is away that is ``"done"``: it will be. It must not wait.
        """
        told = _Told(operation, arguments, then)
        if self.ledger.blocking and running() is not None:
            self._hand_over(told)
        else:
            self._do(told)

    def opened(self, hold_id: str, claims: Sequence[Claim] = ()) -> None:
        """A hold of this process is open: it is kept alive until it is closed."""
        if self.ledger.shared and hold_id not in self._failover.admitted:
            self._open[hold_id] = self._clock()
            if self._thread is None:
                self._start()

    def closed(self, hold_id: str) -> None:
        """It is not open any more."""
        self._open.pop(hold_id, None)

    @property
    def off_loop(self) -> Callable[..., Awaitable[Any]] | None:
        """What makes a call in a thread, and is awaited; ``None`` for a ledger that never makes one wait."""
        return self._off_loop if self.ledger.blocking else None

    async def _off_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await result(self._threads.run(function, *arguments))

    @property
    def pending(self) -> int:
        """How many operations that were told are not in the store yet."""
        return len(self._told) + len(self._outbox)

    @property
    def down(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return not self._breaker.closed

    @property
    def lost(self) -> int:
        """How many operations were not booked and will not be: beyond what is kept, or damaged on disk."""
        return self._outbox.dropped + self._outbox.torn

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver what was told, in this thread. A store that is away is tried once.

        Args:
            timeout: seconds; ``None`` for as long as it takes. Not what one request to the store takes is cut short.

        Returns:
            Whether everything told is in the store.
        """
        self._catch_up(timeout, hurry=True)
        return not self.pending

    def close(self) -> None:
        """Deliver what can be, and let go of threads and files. What is told from now on is done at once."""
        self._closed = True
        end = time.monotonic() + EXIT_S
        self.flush(EXIT_S)
        self._open.clear()
        if (thread := self._thread) is not None and thread is not threading.current_thread():
            self._wake.put(None)
            thread.join(max(0.0, end - time.monotonic()))
        self._keep_told()
        self._outbox.close()

    # -- delivering ------------------------------------------------------------------------------------------

    async def _await(self, call: str | Callable[..., Any], arguments: tuple[Any, ...], abandoned: str | None) -> Any:
        """Make a call without blocking the loop. If the task is cancelled meanwhile, release the hold ``abandoned``."""
        if isinstance(call, str) and running() == "asyncio" and (ledger := self._asynchronous()) is not None:
            return await self._await_on_loop(getattr(ledger, call)(*arguments), abandoned)
        future = self._threads.run(getattr(self.ledger, call) if isinstance(call, str) else call, *arguments)
        try:
            return await result(future)
        except Exception:
            raise
        except BaseException:
            if abandoned is not None and not future.cancel():
                future.add_done_callback(partial(self._abandon, abandoned))
            raise

    async def _await_on_loop(self, answer: Awaitable[Any], abandoned: str | None) -> Any:
        if abandoned is None:
            return await answer
        import asyncio

        # On its own, so that it is known when the request has been dealt with: a release must not overtake it.
        task = asyncio.ensure_future(answer)
        try:
            return await asyncio.shield(task)
        except Exception:
            raise
        except BaseException:
            task.add_done_callback(partial(self._abandon, abandoned))
            raise

    def _abandon(self, hold_id: str, done: Any) -> None:
        """Nobody waits for this admission any more."""
        if done.cancelled() or done.exception() is not None or not isinstance(done.result(), Refused):
            self._hand_over(_Told("release", (hold_id,), None))

    def _hand_over(self, told: _Told) -> None:
        if self._closed:
            self._do(told)
        else:
            self._told.append(told)
            self._remind()

    def _do(self, told: _Told) -> None:
        answer = self.ask(told.operation, *told.arguments)
        if told.then is not None:
            told.then(answer)

    def _catch_up(self, timeout: float | None = CATCH_UP_S, *, hurry: bool = False) -> None:
        """Deliver what has been told until now."""
        if self._delivering == threading.get_ident():
            return  # told by what is being delivered
        end = None if timeout is None else time.monotonic() + timeout
        for _ in range(len(self._told)):
            if not self._deliver_next(end):
                return
        for _ in range(len(self._outbox)):
            if not self._book_next(end, hurry):
                return
            hurry = False

    def _deliver_next(self, end: float | None = None) -> bool:
        """Deliver one thing that was told on an event loop. Whether there was the time."""
        if not self._turn.acquire(timeout=-1 if end is None else max(0.0, end - time.monotonic())):
            return False
        self._delivering = threading.get_ident()
        try:
            if self._told:
                # Taken off when it is done: until then it is pending.
                try:
                    self._do(self._told[0])
                except Exception:
                    logger.exception("%s could not be booked", self._told[0][:2])
                finally:
                    self._told.popleft()
        finally:
            self._delivering = None
            self._turn.release()
        return end is None or time.monotonic() < end

    def _book_next(self, end: float | None = None, hurry: bool = False) -> bool:
        """Book one thing that could not be delivered before. Whether that was possible."""
        if not self._turn.acquire(timeout=-1 if end is None else max(0.0, end - time.monotonic())):
            return False
        try:
            entry = self._outbox.first()
            if entry is None or not self._breaker.allows(hurry):
                return False
            try:
                getattr(self.ledger, entry.operation)(*entry.arguments)
            except LedgerUnavailable as error:
                self._failover.failed(error)
                return False
            except Exception:
                # It was booked with another amount, or makes no sense: asking again would not change that.
                logger.exception("%s%r could not be booked", entry.operation, entry.arguments)
            self._failover.succeeded()
            self._outbox.done(entry)
        finally:
            self._turn.release()
        return end is None or time.monotonic() < end

    def _keep_told(self) -> None:
        """What nobody will deliver any more goes where it is booked from later."""
        while self._told:
            told = self._told.popleft()
            self._failover.later(told.operation, told.arguments)

    # -- the thread ------------------------------------------------------------------------------------------

    def _remind(self) -> None:
        """There is something to deliver."""
        self._start()
        self._wake.put(self)

    def _start(self) -> None:
        if self._thread is not None or self._closed:
            return
        with self._starting:
            if self._thread is None:
                self._beat_at = self._clock() + self._ttl / 3
                mine = weakref.ref(self, partial(_wake_up, self._wake))
                thread = threading.Thread(
                    target=_work, args=(mine, self._wake), name="tokenbudget-courier", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    return  # no more threads are to be had: delivered with the next, or at the end
                self._thread = thread

    def _round(self) -> float | None:
        """Do what is due. Seconds until something will be; ``None`` for when it is woken."""
        while self._told:
            self._deliver_next()
            self._beat()
        self._adopt()
        booked = self._book_next()
        self._beat()
        if self._told or booked:
            return 0.0
        waits = [max(0.0, self._beat_at - self._clock())] if self.ledger.shared else []
        if len(self._outbox):
            waits.append(max(self._breaker.wait(), 0.05))
        return min(waits, default=None)

    def _beat(self) -> None:
        """Say of every open hold that it is still needed, when it is time."""
        now = self._clock()
        if not self.ledger.shared or now < self._beat_at:
            return
        self._beat_at = now + self._ttl / 3
        for hold_id, since in self._open.copy().items():
            if now - since > self._longest:
                self.closed(hold_id)
        ids = tuple(self._open)
        for start in range(0, len(ids), _BATCH):
            try:
                for hold_id in self.ask("renew", ids[start : start + _BATCH], self._ttl):
                    self.closed(hold_id)
            except LedgerUnavailable:
                self._beat_at = now + min(1.0, self._ttl / 3)
                return
            except Exception:
                logger.exception("holds could not be renewed")

    def _adopt(self) -> None:
        """Take over what processes that died have left, now and then."""
        now = time.monotonic()
        if now >= self._adopt_at:
            self._adopt_at = now + ADOPT_EVERY_S
            self._outbox.adopt()

    def _end(self) -> None:
        """The program ends: nobody will end what is open, and no thread will deliver what is left."""
        if not self._closed:
            self._outbox.end_noted()
            self.close()


def _work(courier: weakref.ref[Courier], wake: queue.SimpleQueue[Courier | None]) -> None:
    delay: float | None = 0.0
    while True:
        # What wakes is the courier itself: it lives until everything it was told is delivered.
        try:
            mine = wake.get(timeout=delay)
            if mine is None:
                return
        except queue.Empty:
            mine = courier()
        if mine is None:
            return
        try:
            delay = mine._round()
        except Exception:
            logger.exception("the ledger could not be served")
            delay = 1.0
        mine = None


def _wake_up(wake: queue.SimpleQueue[Courier | None], _: object) -> None:
    wake.put(None)


_couriers: Final[weakref.WeakSet[Courier]] = weakref.WeakSet()


def _at_exit() -> None:
    # Daemon threads run until after this.
    for courier in tuple(_couriers):
        courier._end()


atexit.register(_at_exit)
