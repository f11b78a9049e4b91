"""Responses that go on in the background: their usage is charged once, when it becomes known."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from opentelemetry import context

from tokenbudget_otel import semconv
from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.instrumentation.batches import MAX_REMEMBERED, Newest, PerMeter
from tokenbudget_otel.instrumentation.call import open_request
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.meter import Charge, Meter, Reading, Request, Size, Ticket


class _Memory:
    """Which responses are open, and which were charged. The reservation of one that is forgotten runs out by itself."""

    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)
        self.open: Newest[str, Ticket] = Newest(MAX_REMEMBERED)
        self.booked: Newest[str, None] = Newest(MAX_REMEMBERED)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()


_memory_of: Final = PerMeter(lambda _meter: _Memory())


class BackgroundResponses:
    """Connects the request that started a response with the one that first sees its usage, in this process or, by the
    ledger that they share, in another."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._memory = _memory_of(meter)

    def remember(self, response_id: str, ticket: Ticket) -> None:
        """A response was started; ``ticket`` holds its reservation."""
        with self._memory.lock:
            self._memory.open[response_id] = ticket

    def booked(self, response_id: str, request: Request | None = None) -> bool:
        """A response is about to be charged where it was made. False where it was charged already, by somebody who
        retrieved it meanwhile: here or, if the request is given, in another process that shares the ledger."""
        with self._memory.lock:
            if response_id in self._memory.booked:
                return False
            self._memory.booked[response_id] = None
        return request is None or self._meter.claim(request, response_id)

    def booking(self, provider: str, facts: ResponseFacts) -> Callable[[Reading], Charge] | None:
        """How a retrieved response is to be booked; ``None`` where there is nothing (more) to book.

        A response that this process started in the background is settled when it is first seen at its end. One
        that another process started is recorded, once: whoever polls for it is the one who learns of its usage.
        Responses that were not made in the background were charged when they were made.
        """
        if facts.id is None or facts.status in (None, "queued", "in_progress"):
            return None
        memory = self._memory
        with memory.lock:
            ticket = memory.open.pop(facts.id)
            charged = facts.id in memory.booked
            if not charged:
                if ticket is None and (not facts.background or facts.usage is None):
                    return None
                memory.booked[facts.id] = None
        if ticket is not None:
            started = ticket
            if charged or not self._meter.claim(started.request, facts.id):
                self._meter.release(started)  # somebody else, here or in another process, was first
                return None
            return lambda reading: self._meter.settle(started, reading)
        if charged:
            return None
        request = open_request(provider, facts.model or "", semconv.CHAT, lambda: Size(0, 0), tier=facts.tier)
        request.id = facts.id
        request.context = context.get_current()
        charge = self._meter.price(request, facts.reading())
        return (lambda _reading: charge) if self._meter.record_once(request, charge) else None
