"""Admission as steps: what sync and async calls share.

To admit a call is to ask a ledger, perhaps to wait, and perhaps to ask again. Written as a generator that yields what
is to be done next, it is one piece of code for both: :func:`run` does each step on the spot, :func:`run_async` awaits
it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from tokenbudget_otel.budgets.ledger import Claim, Ledger, LedgerUnavailable
from tokenbudget_otel.budgets.remote.loops import running

T = TypeVar("T")


class Ask(NamedTuple):
    """Do an operation of the ledger; the answer is sent back, :class:`LedgerUnavailable` is thrown in."""

    operation: str
    arguments: tuple[Any, ...]


class Pause(NamedTuple):
    """Wait so many seconds."""

    seconds: float


Steps = Generator[Ask | Pause, Any, T]


class Way(Protocol):
    """The way to a ledger: at once (:class:`Direct`), or by way of a :class:`.Courier` where it is kept elsewhere."""

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Do an operation and wait for its answer."""

    async def ask_async(self, operation: str, *arguments: Any) -> Any:
        """The same, on an event loop that goes on meanwhile."""

    def tell(self, operation: str, *arguments: Any, then: Callable[[Any], None] | None = None) -> None:
        """Have an operation done, now or a little later; ``then`` is given the answer. Never refused."""

    @property
    def off_loop(self) -> Callable[..., Awaitable[Any]] | None:
        """What makes a call that may ask the ledger without holding up an event loop; ``None`` where none waits."""

    def opened(self, hold_id: str, claims: Sequence[Claim]) -> None:
        """A hold of this process is open, and is to be kept alive."""

    def closed(self, hold_id: str) -> None:
        """It is not any more."""

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything told is done; whether it is."""

    def close(self) -> None:
        """Let go of threads and files."""


class Direct:
    """The way to a ledger in this process: it neither waits nor fails."""

    off_loop: Final = None

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def ask(self, operation: str, *arguments: Any) -> Any:
        """See :meth:`Way.ask`."""
        return getattr(self._ledger, operation)(*arguments)

    async def ask_async(self, operation: str, *arguments: Any) -> Any:
        """See :meth:`Way.ask_async`."""
        return getattr(self._ledger, operation)(*arguments)

    def tell(self, operation: str, *arguments: Any, then: Callable[[Any], None] | None = None) -> None:
        """See :meth:`Way.tell`."""
        answer = getattr(self._ledger, operation)(*arguments)
        if then is not None:
            then(answer)

    def opened(self, hold_id: str, claims: Sequence[Claim]) -> None:
        """See :meth:`Way.opened`."""

    def closed(self, hold_id: str) -> None:
        """See :meth:`Way.closed`."""

    def flush(self, timeout: float | None = None) -> bool:
        """See :meth:`Way.flush`."""
        return True

    def close(self) -> None:
        """See :meth:`Way.close`."""


def run(steps: Steps[T], way: Way) -> T:
    """Do the steps one after the other, in this thread.

    >>> from tokenbudget_otel.budgets import MemoryLedger
    >>> def ask():
    ...     balance = yield Ask("balance", ("k",))
    ...     return balance.spent_calls
    >>> run(ask(), Direct(MemoryLedger()))
    0
    """
    try:
        step = next(steps)
        while True:
            if isinstance(step, Ask):
                try:
                    answer = way.ask(step.operation, *step.arguments)
                except LedgerUnavailable as error:
                    step = steps.throw(error)
                    continue
            else:
                time.sleep(step.seconds)
                answer = None
            step = steps.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


async def run_async(steps: Steps[T], way: Way) -> T:
    """Do the steps one after the other, while the event loop goes on.

    >>> import asyncio
    >>> from tokenbudget_otel.budgets import MemoryLedger
    >>> def ask():
    ...     yield Pause(0.001)
    ...     balance = yield Ask("balance", ("k",))
    ...     return balance.spent_calls
    >>> asyncio.run(run_async(ask(), Direct(MemoryLedger())))
    0
    """
    try:
        step = next(steps)
        while True:
            if isinstance(step, Ask):
                try:
                    answer = await way.ask_async(step.operation, *step.arguments)
                except LedgerUnavailable as error:
                    step = steps.throw(error)
                    continue
            else:
                await _sleep(step.seconds)
                answer = None
            step = steps.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


async def _sleep(seconds: float) -> None:
    """Sleep on whatever event loop this is."""
    if running() == "trio":
        await sys.modules["trio"].sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)
