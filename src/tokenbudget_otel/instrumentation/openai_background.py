"""Responses that go on in the background: their usage is charged once, when it becomes known."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from opentelemetry import context

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.call import open_request
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.meter import Charge, Meter, Reading, Size, Ticket

MAX_REMEMBERED: Final = 10_000
"""Responses that are remembered, each way. The reservation of one that is forgotten runs out by itself."""


class BackgroundResponses:
    """Connects the request that started a response with the one that first sees its usage."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Ticket] = OrderedDict()
        self._booked: OrderedDict[str, None] = OrderedDict()

    def remember(self, response_id: str, ticket: Ticket) -> None:
        """A response was started; ``ticket`` holds its reservation."""
        with self._lock:
            self._open[response_id] = ticket
            while len(self._open) > MAX_REMEMBERED:
                self._open.popitem(last=False)

    def booked(self, response_id: str) -> None:
        """A response was charged where it was made."""
        with self._lock:
            self._book(response_id)

    def _book(self, response_id: str) -> None:
        self._booked[response_id] = None
        while len(self._booked) > MAX_REMEMBERED:
            self._booked.popitem(last=False)

    def booking(self, provider: str, facts: ResponseFacts) -> Callable[[Reading], Charge] | None:
        """How a retrieved response is to be booked; ``None`` where there is nothing (more) to book.

        A response that this process started in the background is settled when it is first seen at its end. One
        that another process started is recorded, once: whoever polls for it is the one who learns of its usage.
        Responses that were not made in the background were charged when they were made.
        """
        if facts.id is None or facts.status in (None, "queued", "in_progress"):
            return None
        with self._lock:
            ticket = self._open.pop(facts.id, None)
            if ticket is None and (facts.id in self._booked or not facts.background or facts.usage is None):
                return None
            self._book(facts.id)
        if ticket is not None:
            started = ticket
            return lambda reading: self._meter.settle(started, reading)
        request = open_request(provider, facts.model or "", semconv.CHAT, lambda: Size(0, 0), tier=facts.tier)
        request.id = facts.id
        request.context = context.get_current()
        return lambda reading: self._meter.record(request, reading)
