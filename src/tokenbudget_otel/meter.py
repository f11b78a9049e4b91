"""The meter: the one place where usage, price and budget meet.

Every call goes through it once: :meth:`Meter.admit` before a byte is sent (budgets may refuse), then
:meth:`Meter.settle` with what was really used, or :meth:`Meter.release` where it was surely not billed.
What nobody admitted (a span somebody else made, a manual record) comes in through :meth:`Meter.record`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, NamedTuple

from opentelemetry.context import Context

from tokenbudget_otel.budgets import Amount, BudgetExceeded, Call, Enforcer, Estimate, Hold
from tokenbudget_otel.budgets.amounts import counted
from tokenbudget_otel.budgets.ids import new_call_id
from tokenbudget_otel.budgets.ledger import LedgerConflict
from tokenbudget_otel.budgets.remedies import UNCHANGED, Change
from tokenbudget_otel.budgets.run import active_budgets
from tokenbudget_otel.budgets.steps import Steps, run
from tokenbudget_otel.pricing import Cost, PriceBook, price_book
from tokenbudget_otel.tags import current_tags
from tokenbudget_otel.totals import TotalsTable
from tokenbudget_otel.usage import TokenUsage

UNKNOWN_OUTPUT_LIMIT: Final = 128_000
"""Output tokens assumed as an upper bound where neither the request nor the catalog limits them."""

UNKNOWN_CONTEXT_WINDOW: Final = 1_000_000
"""Input tokens assumed as an upper bound where parts of the input cannot be seen and the window is not known."""

FIRST_OUTPUT_GUESS: Final = 1_000
"""Output tokens expected of a model that has not answered yet in this process."""

_NOTHING: Final = Amount(0, 0, 0)

_LEAST: Final = Amount(1, 1)
"""What has room wherever anything has."""

PRICE_HORIZON_S: Final = 600.0
"""A reservation in ``worst_case`` mode covers price changes within this many seconds."""


FREE: Final = Cost(0, "free")
"""What a call costs that nobody charges for: of a model on the program's own machine."""


@dataclass(slots=True)
class Size:
    """How large a request is, as far as it can be told before it is sent. Not to be changed.

    Attributes:
        input_tokens: the likely number of input tokens.
        input_bound: a number of input tokens that is surely not exceeded; ``None`` where parts of the input
            cannot be seen (a stored conversation, a file id): the context window bounds those.
        max_output_tokens: the limit that the request sets on its output, per choice.
        choices: how many answers are asked for.
        extra: other units that will be billed (characters of a speech request, searches allowed …), at most.
        expected_extra: the same, likely, where that is another number.
        expected_output_tokens: where the kind of request tells it (none for embeddings), ``None`` otherwise.
        cache_write_ttl: the longest time to live of prompt-cache writes that the request asks for, ``"none"``
            where it surely writes nothing, ``None`` where that is not known.
        text_only: whether nothing read or written can be audio, image or video.
        untold: whether nothing can be told of it: budgets are only asked whether they have any room left.
    """

    input_tokens: int
    input_bound: int | None
    max_output_tokens: int | None = None
    choices: int = 1
    extra: TokenUsage | None = None
    expected_extra: TokenUsage | None = None
    expected_output_tokens: int | None = None
    cache_write_ttl: str | None = None
    text_only: bool = False
    untold: bool = False


@dataclass(slots=True)
class Request:
    """One call before it is sent. ``size`` is asked for only when a budget needs it; a ``free`` one costs nothing.

    ``changes`` is what whoever sends it can still change: ``"model"``, ``"max_output_tokens"`` (to ``least_output`` at
    least). Where a budget has that done, ``model`` is the one that is really asked and ``asked_model`` the one the
    program asked for. ``changing`` says both when a budget wants to know (:meth:`changes_now`), where it is too much to
    find out for every call; the meter drops it when the request has been admitted or refused.
    ``api_key`` is no key, but what tells one from others (:func:`key_mark`).
    """

    provider: str
    model: str
    operation: str
    size: Callable[[], Size]
    tier: str | None = None
    batch: bool = False
    free: bool = False
    at: float = field(default_factory=time.time)
    tags: Mapping[str, str] = field(default_factory=current_tags)
    context: Context | None = None
    api_key: str = ""
    changes: frozenset[str] = frozenset()
    least_output: int = 1
    asked_model: str = ""
    id: str = field(default_factory=new_call_id)
    changing: Callable[[], tuple[frozenset[str], int]] | None = None

    def changes_now(self) -> frozenset[str]:
        """What can be changed of the request. Whoever takes something away from it asks this before."""
        if (changing := self.changing) is not None:
            self.changing = None
            self.changes, self.least_output = changing()
        return self.changes


@dataclass(slots=True)
class Ticket:
    """An admitted call. Settle it or release it, once."""

    request: Request
    hold: Hold | None
    open: bool = True


class Reading(NamedTuple):
    """What a response says was used.

    Attributes:
        usage: tokens and units; ``None`` where nothing at all is known.
        model: the model that answered, where it says so.
        tier: the service tier that was really used.
        reported_nano_usd: the cost in nano-USD, where the provider reports one.
        estimated: whether the usage is our estimate rather than the provider's count.
    """

    usage: TokenUsage | None
    model: str | None = None
    tier: str | None = None
    reported_nano_usd: int | None = None
    estimated: bool = False


class Charge(NamedTuple):
    """What one call came to. ``cost.nano_usd`` is ``None`` where the price is unknown."""

    usage: TokenUsage | None
    cost: Cost
    estimated: bool


_new: Final = tuple.__new__


class Meter:
    """Admits, prices and counts calls. Thread-safe; one for the process is usual (:func:`meter`).

    Args:
        prices: the price book; the process-wide one by default.
        enforcer: the budgets in force; none by default.
    """

    def __init__(self, prices: PriceBook | None = None, enforcer: Enforcer | None = None) -> None:
        self.prices = prices if prices is not None else price_book()
        self.enforcer = enforcer if enforcer is not None else Enforcer()
        self.totals = TotalsTable()
        self._typical: dict[tuple[str, str], float] = {}

    def admit(self, request: Request) -> Ticket:
        """Reserve what the call may cost in every budget that applies.

        Raises:
            BudgetExceeded: (or its kin) when a blocking budget has no room for it. Nothing is reserved then.
        """
        ticket = self.admit_now(request)
        return run(self.admission(request), self.enforcer.way) if ticket is None else ticket

    def admission(self, request: Request) -> Steps[Ticket]:
        """:meth:`admit`, step by step. The change of the hold says what is to be changed of the request."""
        call = _call(request)
        if not self.enforcer.applies(call):
            request.changing = None
            return Ticket(request, None)
        revision = None if request.changing is None and not request.changes else _Revision(self, request)
        try:
            hold = yield from self.enforcer.admission(
                call, self._estimate(request), revision=revision, call_id=request.id
            )
        except BudgetExceeded:
            self.totals.refuse(request.provider, request.model, request.operation, request.tags)
            raise
        finally:
            request.changing = None  # it may refer to whoever holds the request
        if hold is not None and hold.change.model is not None:
            request.asked_model, request.model = request.model, hold.change.model
        return Ticket(request, hold)

    def admit_now(self, request: Request) -> Ticket | None:
        """:meth:`admission`, where that is done on the spot: without waiting, and without changing the request.

        Returns:
            The ticket; ``None`` where it takes :meth:`admission` to say. Nothing is reserved then.

        Raises:
            BudgetExceeded: as :meth:`admit` does.
        """
        call: Call = _new(
            Call, (request.provider, request.model, request.tags, request.context, request.operation, request.api_key)
        )
        enforcer = self.enforcer
        if enforcer.refresh is not None:
            enforcer.refresh()
        plan = enforcer.plan_at_once(call)
        if plan is None:
            return None
        if not plan.sources and not active_budgets(call.context):
            request.changing = None
            return Ticket(request, None)
        # Without what a budget would assume of a price that is not known: such a call is not admitted here.
        estimate = self._estimate_at(request, request.size(), request.model)
        try:
            hold = enforcer.admit_at_once(plan, call, estimate, request.id)
        except BudgetExceeded:
            request.changing = None
            self.totals.refuse(request.provider, request.model, request.operation, request.tags)
            raise
        if hold is None:
            return None
        request.changing = None
        return Ticket(request, hold)

    def growth(self, ticket: Ticket, usage: TokenUsage) -> Steps[None]:
        """Reserve what a call that is under way has come to so far, where that is more than it reserved.

        Raises:
            BudgetExceeded: (``partial``) if a budget that cuts streams has no room for more.
        """
        if ticket.hold is not None:
            yield from self.enforcer.growth(ticket.hold, self._so_far(ticket.request, usage))

    def suffices(self, ticket: Ticket, usage: TokenUsage) -> bool:
        """Whether a call that has come to so much is covered by what it reserved, where budgets cut streams."""
        return ticket.hold is None or self.enforcer.suffices(ticket.hold, self._so_far(ticket.request, usage))

    def most_output(self, ticket: Ticket, size: Size) -> int | None:
        """The most output tokens that an admitted call can come to; ``None`` where nothing limits them."""
        changed = None if ticket.hold is None else ticket.hold.change.max_output_tokens
        known = self.prices.limits(ticket.request.provider, ticket.request.model).max_output_tokens
        most = changed or size.max_output_tokens or known
        return None if most is None else most * size.choices

    def _so_far(self, request: Request, usage: TokenUsage) -> Estimate:
        cost = self.price(request, Reading(usage)).cost
        amount = counted(cost.nano_usd, usage.total_tokens)
        read = usage.input_tokens or 0
        assumed = self._assumed(request, usage, cost)
        dearest = None if assumed is None else (counted(assumed, usage.total_tokens),) * 2
        return Estimate(amount, amount, input_tokens=(read, read), assumed=dearest)

    def settle(self, ticket: Ticket, reading: Reading) -> Charge:
        """Book what the call really used, in the totals and in every budget that it was reserved in.

        Where the reading has no usage, the input as estimated before the call is booked, and marked as an
        estimate. Settling again changes nothing.
        """
        request = ticket.request
        usage, answered, tier, reported_nano_usd, estimated = reading
        if usage is None:
            usage, estimated = TokenUsage(input_tokens=request.size().input_tokens), True
        provider, model = request.provider, request.model
        if request.free:
            cost = FREE
        else:
            cost = self.prices.cost_of_answer(
                provider, model, answered, usage, request.at, tier or request.tier, request.batch, reported_nano_usd
            )
        charge: Charge = _new(Charge, (usage, cost, estimated))
        if not ticket.open:
            return charge
        ticket.open = False
        # From here on in one go, past the properties: the program has done other things since the last call, and
        # every function that is called is fetched from memory anew.
        nano_usd = cost._nano_usd
        self.totals.add(
            provider,
            model,
            request.operation,
            request.tags,
            usage,
            nano_usd,
            unpriced=1 if nano_usd is None or cost._state == "partial" else 0,
            estimated=1 if estimated else 0,
        )
        known = usage.__dict__
        written = known.get("output_tokens")
        if ticket.hold is not None:
            assumed = self._assumed(request, usage, cost) if nano_usd is None else None
            amount = counted(nano_usd, (known.get("input_tokens") or 0) + (written or 0))
            self.enforcer.settle(ticket.hold, amount, usage, assumed)
        if not estimated and written is not None:
            self._learn(provider, model, written)
        return charge

    def release(self, ticket: Ticket) -> None:
        """Give back what was reserved, for a call that was surely not billed. It is not counted as a call."""
        if not ticket.open:
            return
        ticket.open = False
        if ticket.hold is not None:
            self.enforcer.release(ticket.hold)

    def record(self, request: Request, reading: Reading) -> Charge:
        """Book a call that nobody admitted, in the totals and in every budget that applies. Never refuses.

        ``request.id`` makes it idempotent in the ledger.
        """
        charge = self.settle(Ticket(request, None), reading)
        call = _call(request)
        if charge.usage is not None and self.enforcer.applies(call):
            assumed = self._assumed(request, charge.usage, charge.cost)
            amount = _amount(charge.usage, charge.cost)
            self.enforcer.charge_soon(call, amount, request.id, charge.usage, assumed)
        return charge

    def price(self, request: Request, reading: Reading) -> Charge:
        """What a call comes to. Nothing is counted."""
        return self.settle(Ticket(request, None, open=False), reading)

    def record_once(self, request: Request, charge: Charge, *, calls: int = 1, unpriced: int | None = None) -> bool:
        """Book what somebody else may have booked as well: calls that were answered together, such as a batch.

        Args:
            request: its ``id`` says what is booked. Budgets that share a ledger count it once, whatever it is said
                to have come to the second time.
            charge: what the calls came to together.
            calls: how many they were.
            unpriced: how many of them have no (whole) price; all or none by default, as the charge says.

        Returns:
            Whether it was counted. Where the ledger has it already, the totals of this process leave it out too.
        """
        call = _call(request)
        new = True
        try:
            if self.enforcer.applies(call):
                tokens = charge.usage.total_tokens if charge.usage is not None else 0
                amount = counted(charge.cost.nano_usd, tokens, calls)
                new = self.enforcer.charge(call, amount, id=request.id, usage=charge.usage)
        except LedgerConflict:
            new = False
        finally:  # also where the ledger cannot be reached: it was used
            if new:
                self._count(request, charge, calls, unpriced)
        return new

    def claim(self, request: Request, name: str) -> bool:
        """Whether nobody who shares the ledger has booked ``name`` (:meth:`record_once`) or claimed it before. For a
        call that was admitted, but that another process may be the first to learn the usage of."""
        call = _call(request)
        try:
            return not self.enforcer.applies(call) or self.enforcer.charge(call, _NOTHING, id=name)
        except LedgerConflict:
            return False

    def _count(self, request: Request, charge: Charge, calls: int = 1, unpriced: int | None = None) -> None:
        if unpriced is None:
            unpriced = calls if charge.cost.nano_usd is None or charge.cost.state == "partial" else 0
        self.totals.add(
            request.provider,
            request.model,
            request.operation,
            request.tags,
            charge.usage,
            charge.cost.nano_usd,
            calls=calls,
            unpriced=unpriced,
            estimated=calls if charge.estimated else 0,
        )

    def _assumed(self, request: Request, usage: TokenUsage, cost: Cost) -> int | None:
        """What budgets that assume a price count where it is not known: the provider's dearest."""
        if cost.nano_usd is not None or not self.enforcer.assumes:
            return None
        model = self.prices.dearest(request.provider)
        if model is None:
            return None
        return self.prices.cost(request.provider, model, usage, at=request.at).nano_usd

    def _estimate(self, request: Request, change: Change = UNCHANGED) -> Estimate:
        size = request.size()
        if change.max_output_tokens is not None:
            size = replace(size, max_output_tokens=change.max_output_tokens)
        model = request.model if change.model is None else change.model
        estimate = self._estimate_at(request, size, model)
        unknown = estimate.expected.nano_usd is None or estimate.worst_case.nano_usd is None
        if unknown and self.enforcer.assumes and (dearest := self.prices.dearest(request.provider)) is not None:
            assumed = self._estimate_at(request, size, dearest, window_of=model)
            estimate = estimate._replace(assumed=(assumed.expected, assumed.worst_case))
        return estimate

    def _estimate_at(self, request: Request, size: Size, model: str, window_of: str | None = None) -> Estimate:
        """The estimate at the prices of ``model``, with the limits of ``window_of``."""
        provider, at = request.provider, request.at
        if size.untold:
            return Estimate(expected=_LEAST, worst_case=_LEAST)
        quote = self.prices.quote(
            provider,
            model,
            tier=request.tier,
            batch=request.batch,
            cache_write_ttl=size.cache_write_ttl,
            text_only=size.text_only,
        )
        window, most_output = quote.limits if window_of is None else self.prices.limits(provider, window_of)

        bound_in = size.input_bound
        if bound_in is None or (window is not None and bound_in > window):
            bound_in = window or UNKNOWN_CONTEXT_WINDOW
        choices = size.choices
        if size.expected_output_tokens == 0:
            bound_out = likely_out = 0
        else:
            most = size.max_output_tokens or most_output or UNKNOWN_OUTPUT_LIMIT
            bound_out = most * choices
            typical = size.expected_output_tokens or int(self._typical.get((provider, model), FIRST_OUTPUT_GUESS))
            likely_out = (most if most < typical else typical) * choices
        likely_in = size.input_tokens
        if likely_in > bound_in:
            likely_in = bound_in
        likely: int | None
        worst: int | None
        likely_units = size.expected_extra or size.extra
        if request.free:
            likely = worst = 0
        else:
            if likely_units is None:
                likely, worst = quote.amounts(likely_in, likely_out, bound_in, bound_out, at, at + PRICE_HORIZON_S)
            else:
                usage = likely_units.replace(input_tokens=likely_in, output_tokens=likely_out)
                likely = self.prices.cost(
                    provider, model, usage, at=at, tier=request.tier, batch=request.batch
                ).nano_usd
                worst = quote.bound(bound_in, bound_out, at, at + PRICE_HORIZON_S, size.extra)
        by_input = self._input(request, likely_units, likely_in, model) if self.enforcer.charges_input else None
        return _new(
            Estimate,
            (
                counted(likely, likely_in + likely_out),
                counted(worst, bound_in + bound_out),
                by_input,
                (likely_in, bound_in),
                None,
            ),
        )

    def _input(self, request: Request, units: TokenUsage | None, input_tokens: int, model: str) -> Amount | None:
        """What the input alone comes to, which holds that run out are charged."""
        if request.free:
            return None
        usage = (units or TokenUsage()).replace(input_tokens=input_tokens, output_tokens=0)
        cost = self.prices.cost(request.provider, model, usage, at=request.at, tier=request.tier, batch=request.batch)
        return counted(cost.nano_usd, usage.total_tokens)

    def _learn(self, provider: str, model: str, output_tokens: int) -> None:
        """Move the typical output of a model a little towards what it just wrote."""
        key = (provider, model)
        known = self._typical.get(key)
        if known is None and len(self._typical) >= 1_000:
            self._typical.clear()
        self._typical[key] = output_tokens if known is None else known + 0.1 * (output_tokens - known)


class _Revision:
    """How a request can be changed so that it fits (:class:`~tokenbudget_otel.budgets.remedies.Revision`)."""

    def __init__(self, meter: Meter, request: Request) -> None:
        self._meter = meter
        self._request = request
        self._change = UNCHANGED

    @property
    def most_output(self) -> int | None:
        """The most output tokens of one answer, as asked or as the model can."""
        if "max_output_tokens" not in self._request.changes_now():
            return None
        if self._change.max_output_tokens is not None:
            return self._change.max_output_tokens
        size = self._request.size()
        if size.untold or size.expected_output_tokens == 0:
            return None
        model = self._change.model or self._request.model
        known = self._meter.prices.limits(self._request.provider, model).max_output_tokens
        return size.max_output_tokens or known or UNKNOWN_OUTPUT_LIMIT

    @property
    def least_output(self) -> int:
        """The fewest output tokens that it can be limited to."""
        self._request.changes_now()
        return self._request.least_output

    @property
    def model_changes(self) -> bool:
        """Whether whoever sends the request can ask another model."""
        return "model" in self._request.changes_now()

    def estimate(self, change: Change) -> Estimate:
        """What the request comes to when it is changed so."""
        self._change = change
        return self._meter._estimate(self._request, change)


def _call(request: Request) -> Call:
    """A request as budgets see it."""
    return _new(
        Call, (request.provider, request.model, request.tags, request.context, request.operation, request.api_key)
    )


@lru_cache(maxsize=256)
def key_mark(api_key: str) -> str:
    """What tells an API key from others without giving it away: its last four characters, and six digits of a hash.

    >>> key_mark("sk-example-0123456789abcdef")
    '…cdef-a38480'
    """
    digest = hashlib.sha256(api_key.encode()).hexdigest()
    return f"…{api_key[-4:] if len(api_key) >= 16 else ''}-{digest[:6]}"


def _amount(usage: TokenUsage, cost: Cost) -> Amount:
    return counted(cost.nano_usd, usage.total_tokens)


_meter: Meter | None = None


def meter() -> Meter:
    """The meter of this process, made on first use."""
    global _meter
    if _meter is None:
        _meter = Meter()
    return _meter
