"""Batches: what is known of them in this process, and how their results are charged once.

A batch is made by one request and answered by many others: whoever looks at it may be the first to learn what it came
to, by whichever way. Three things see to it that it is charged once:

* every charge has a key that is the same whichever way the usage is learned;
* :class:`Batches` remembers, for the meter, which keys were charged;
* :meth:`.Meter.record_once` hands the key to the ledger, which remembers it for all processes that share it.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from tokenbudget_otel import semconv
from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.streams import LineReader
from tokenbudget_otel.meter import Charge, Meter, Reading, Request, Size
from tokenbudget_otel.pricing import Cost
from tokenbudget_otel.usage import TokenUsage

MAX_REMEMBERED: Final = 10_000
"""Batches, and charges, that are remembered."""

MAX_LINES: Final = 500_000
"""Lines of partly read batches that are remembered, all batches together. The largest batch has 100,000."""

UNTOLD: Final = Size(0, 0, untold=True)
"""The size of a batch that is about to be made."""

FREE: Final = Size(0, 0)

K = TypeVar("K")
V = TypeVar("V")
M = TypeVar("M")


class Newest(Generic[K, V]):
    """What was noted last, by key; beyond ``most`` the oldest is forgotten. Not for threads: keep it under a lock.

    >>> notes = Newest(2)
    >>> for name in ("a", "b", "c"):
    ...     notes[name] = name.upper()
    >>> notes.get("a"), notes.get("c")
    (None, 'C')
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._notes: OrderedDict[K, V] = OrderedDict()

    def __setitem__(self, key: K, value: V) -> None:
        self._notes[key] = value
        while len(self._notes) > self._most:
            self._notes.popitem(last=False)

    def __contains__(self, key: K) -> bool:
        return key in self._notes

    def get(self, key: K) -> V | None:
        """What was noted under ``key``, if it is not forgotten."""
        return self._notes.get(key)

    def pop(self, key: K) -> V | None:
        """The same, and forget it."""
        return self._notes.pop(key, None)


class PerMeter(Generic[M]):
    """One memory for each meter, however many doors lead to it: clients that are wrapped one by one, and an SDK that is
    instrumented anew, charge nothing twice."""

    def __init__(self, make: Callable[[Meter], M]) -> None:
        self._make = make
        self._made: weakref.WeakKeyDictionary[Meter, M] = weakref.WeakKeyDictionary()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, meter: Meter) -> M:
        with self._lock:
            known = self._made.get(meter)
            if known is None:
                known = self._made[meter] = self._make(meter)
            return known


class Batches:
    """What this process knows of batches: who made them, and what of them was charged. Safe for threads.

    A forked child keeps what its parent knew: the parent has charged it.
    """

    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)
        self._tags: Newest[str, Mapping[str, str]] = Newest(MAX_REMEMBERED)
        self._files: Newest[str, Mapping[str, Any]] = Newest(MAX_REMEMBERED)
        self._charged: Newest[str, None] = Newest(MAX_REMEMBERED)
        self._lines: OrderedDict[str, set[str]] = OrderedDict()
        self._count = 0

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def made(self, batch: str, tags: Mapping[str, str]) -> None:
        """A batch was made here, under these tags."""
        with self._lock:
            self._tags[batch] = tags

    def awaited(self, batch: str) -> None:
        """A batch was asked for here, before it was done."""
        with self._lock:
            if batch not in self._tags:
                self._tags[batch] = MappingProxyType({})

    def is_known(self, batch: str) -> bool:
        """Whether the batch was made here, or asked for before."""
        with self._lock:
            return batch in self._tags

    def tags(self, batch: str | None) -> Mapping[str, str]:
        """The tags that a batch was made under; none if it was not made here."""
        with self._lock:
            return (self._tags.get(batch) if batch is not None else None) or {}

    def has_file(self, file: str, batch: Mapping[str, Any]) -> None:
        """A file holds the results of a batch, which is told as plain data."""
        with self._lock:
            self._files[file] = batch

    def of_file(self, file: str) -> Mapping[str, Any] | None:
        """The batch whose results a file holds, as far as this process was told."""
        with self._lock:
            return self._files.get(file)

    def is_charged(self, key: str) -> bool:
        """Whether something was charged here."""
        with self._lock:
            return key in self._charged

    def claim(self, key: str) -> bool:
        """Whether something is still to be charged; asked again, it is not."""
        with self._lock:
            if key in self._charged:
                return False
            self._charged[key] = None
            return True

    def claim_line(self, batch: str, line: str) -> bool:
        """The same, of one line of a batch that may be read in part, and more than once."""
        with self._lock:
            if batch in self._charged:
                return False
            lines = self._lines.setdefault(batch, set())
            self._lines.move_to_end(batch)
            if line in lines:
                return False
            lines.add(line)
            self._count += 1
            while self._count > MAX_LINES and len(self._lines) > 1:
                self._count -= len(self._lines.popitem(last=False)[1])
            return True

    def read_out(self, batch: str) -> None:
        """All lines of a batch were seen: nothing of it is to be charged any more."""
        with self._lock:
            self._count -= len(self._lines.pop(batch, ()))
            self._charged[batch] = None


batches_of: Final = PerMeter(lambda _meter: Batches())
"""The memory of a meter."""


def creation(read: Callable[[Any, Body, str], ResponseFacts]) -> Endpoint:
    """The endpoint that makes a batch: it costs nothing itself, and is refused where nothing may be spent any more."""
    return Endpoint(
        semconv.CREATE_BATCH, lambda _body, _options: UNTOLD, lambda _body: {}, read, billed=False, commits=True
    )


def look(
    read: Callable[[Any, Body, str], ResponseFacts],
    lines: Callable[[Opened], LineReader] | None = None,
    *,
    quiet: bool = False,
) -> Endpoint:
    """An endpoint that tells of batches, or gives their results."""
    return Endpoint(
        semconv.FETCH_BATCH,
        lambda _body, _options: FREE,
        lambda _body: {},
        read,
        lines=lines,
        billed=False,
        quiet=quiet,
    )


def request_of(opened: Opened, key: str, model: str, operation: str, tags: Mapping[str, str]) -> Request:
    """What is charged of a batch, to whom looks at it in ``opened``; the tags that the batch was made under win."""
    asked = opened.call.request
    return Request(
        asked.provider,
        model,
        operation,
        lambda: FREE,
        batch=True,
        at=asked.at,
        tags={**asked.tags, **tags} if tags else asked.tags,
        context=asked.context,
        id=key,
        free=asked.free,
    )


UNKNOWN: Final = Charge(None, Cost(None, "unknown"), False)
"""What an answer came to that does not say what it used."""


def price_answer(meter: Meter, request: Request, facts: ResponseFacts) -> Charge:
    """What one answer of a batch came to; where it does not say what it used, nothing is made up."""
    if facts.usage:
        return meter.price(request, facts.reading())
    # Without a count, all that can be known is that the model is free (moderations are).
    free = meter.price(request, Reading(TokenUsage(), facts.model))
    return free if free.cost.state == "free" else UNKNOWN


class CostSum(Cost):
    """The cost of several calls. What they do not have in common is not told."""

    __slots__ = ("_common",)

    def __init__(
        self, nano_usd: int | None, state: Any, common: tuple[str | None, ...], unpriced: tuple[str, ...]
    ) -> None:
        super().__init__(nano_usd, state, unpriced=unpriced)
        self._common = common

    @property
    def source(self) -> str | None:
        return self._common[0]

    @property
    def source_version(self) -> str | None:
        return self._common[1]

    @property
    def provider(self) -> str | None:
        return self._common[2]

    @property
    def model(self) -> str | None:
        return self._common[3]


class Tally:
    """Charges added up: what one look at a batch, or the answers of one model in it, came to.

    Attributes:
        calls: how many answers.
        unpriced: how many of them have no price, or not a whole one.
        models: the models that answered.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.unpriced = 0
        self.models: set[str] = set()
        self._usage: TokenUsage | None = None
        self._nano_usd: int | None = None
        self._states: set[str] = set()
        self._common: set[tuple[str | None, ...]] = set()
        self._unpriced: dict[str, None] = {}
        self._only: Charge | None = None
        self._charges = 0

    def add(self, model: str | None, charge: Charge, calls: int = 1, unpriced: int | None = None) -> None:
        """Add what ``calls`` answers of a model came to together."""
        cost = charge.cost
        state, nano_usd = cost.state, cost.nano_usd
        self.calls += calls
        if unpriced is None:
            unpriced = calls if nano_usd is None or state == "partial" else 0
        self.unpriced += unpriced
        self._charges += 1
        self._only = charge
        if model:
            self.models.add(model)
        if charge.usage is not None:
            self._usage = charge.usage if self._usage is None else self._usage + charge.usage
        if nano_usd is not None:
            self._nano_usd = nano_usd + (self._nano_usd or 0)
            self._common.add((cost.source, cost.source_version, cost.provider, cost.model))
        self._states.add(state)
        if cost.unpriced:
            self._unpriced |= dict.fromkeys(cost.unpriced)

    def __bool__(self) -> bool:
        return self._charges > 0

    def charge(self) -> Charge:
        """All of it as one charge."""
        if self._charges == 1 and self._only is not None:
            return self._only
        return Charge(
            self._usage,
            CostSum(self._nano_usd, self._state(), _in_common(self._common), tuple(self._unpriced)),
            False,
        )

    def _state(self) -> str:
        states = self._states
        if self._nano_usd is None:
            return "unknown"
        if states & {"partial", "unknown"}:
            return "partial"
        return next(state for state in ("stale", "priced", "free") if state in states)


def _in_common(each: Iterable[tuple[str | None, ...]]) -> tuple[str | None, ...]:
    columns = [set(column) for column in zip(*each, strict=True)]
    return tuple(column.pop() if len(column) == 1 else None for column in columns) or (None,) * 4


def finish(
    opened: Opened,
    outcome: str,
    facts: ResponseFacts,
    tally: Tally | None,
    error: BaseException | None = None,
) -> None:
    """End a look at a batch, whose span tells what this look was the first to learn."""
    if not tally:
        opened.call.finish(outcome, facts, error, billed=False)
        return
    facts.attributes[semconv.BATCH_RESULTS] = tally.calls
    if len(tally.models) == 1:
        (facts.model,) = tally.models
    charge = tally.charge()
    opened.call.finish(outcome, facts, error, book=lambda _reading: charge)


def creator_tags(opened: Opened) -> Mapping[str, str]:
    """The tags of the request that makes a batch."""
    return MappingProxyType(dict(opened.call.request.tags))
