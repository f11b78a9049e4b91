"""Answers that come piece by piece and outgrow what was reserved for them: more is reserved, or they are cut.

What has arrived is counted after every piece, as it would be booked if the stream ended there. As long as the
reservation covers that, and one more piece as large as the largest so far, that is one comparison of whole numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.budgets.steps import Steps, run, run_async
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.usage import TokenUsage

if TYPE_CHECKING:
    from tokenbudget_otel.instrumentation.call import LlmCall
    from tokenbudget_otel.instrumentation.streams import ItemReader, StreamReader

CUT: Final = "cut_by_budget"
"""How a stream ended that a budget stopped; also its ``tokenbudget.call.outcome``."""

STEP: Final = 256
"""Output tokens that are reserved at a time, at first; later a quarter of those that are there."""

_NEVER: Final = sys.maxsize


class Growth:
    """What one stream has come to, beside what is reserved for it.

    Args:
        call: an admitted call.
        reader: what the answer has said so far.
        text_tokens: an estimate of the output tokens that have arrived.

    Attributes:
        told: whether the reader may have something new. Whoever feeds it sets that.
    """

    __slots__ = ("_call", "_choices", "_input", "_known", "_largest", "_most", "_reader", "_said", "_step",
                 "_suffices", "_text_tokens", "_tokens", "told")  # fmt: skip

    def __init__(self, call: LlmCall, reader: StreamReader | ItemReader, text_tokens: Callable[[], int]) -> None:
        size = call.request.size()
        self._call = call
        self._reader = reader
        self._text_tokens = text_tokens
        self._input = size.input_tokens
        self._choices = size.choices
        self._most = call.meter.most_output(call.ticket, size)
        self._known: tuple[int | None, ...] = ()
        self._said = 0
        self._tokens = 0
        self._largest = 1
        self._step = _NEVER
        self._suffices = 0
        self.told = False
        self._hear()

    def due(self) -> bool:
        """Whether more is to be reserved before the next piece, now that one has arrived. Never raises."""
        try:
            if self.told:
                self._hear()
            tokens = max(self._text_tokens(), self._said)
            if tokens - self._tokens > self._largest:
                self._largest = tokens - self._tokens
            self._tokens = tokens
            return tokens + self._largest > self._suffices
        except Exception as error:
            self._give_up(error)
            return False

    def refused(self) -> BudgetExceeded | None:
        """Reserve more. Gives the refusal where a budget has no room for another piece. Never raises."""
        try:
            return run(self._growing(), self._call.meter.enforcer.way)
        except Exception as error:
            self._give_up(error)
            return None

    async def refused_async(self) -> BudgetExceeded | None:
        """:meth:`refused` on an event loop, which goes on while budgets are asked."""
        try:
            return await run_async(self._growing(), self._call.meter.enforcer.way)
        except Exception as error:
            self._give_up(error)
            return None

    def _growing(self) -> Steps[BudgetExceeded | None]:
        self._hear()
        if self._over():
            self._suffices = _NEVER
            return None
        tokens, largest = self._tokens, self._largest
        step = wanted = max(largest, min(self._step, max(STEP, tokens // 4)))
        while True:
            asked = tokens + step
            if self._most is not None and tokens < self._most:
                asked = min(asked, self._most)
            try:
                yield from self._call.meter.growth(self._call.ticket, self._usage(asked))
            except BudgetExceeded as refusal:
                if step <= largest:
                    return refusal.with_traceback(None)  # it is raised later, and frames would hold on to the stream
                step = max(largest, step // 4)
            else:
                # Where the budget is nearly used up, the next one need not be asked for in vain.
                self._step = step * 2 if step == wanted else step
                self._suffices = _NEVER if asked == self._most else asked
                return None

    def _over(self) -> bool:
        """Whether the answer is there, has failed, or goes on at the provider's whoever reads it."""
        reader, facts = self._reader, self._reader.facts
        complete = reader.complete and self._choices == 1
        return complete or reader.usage_is_final or facts.unfinished or facts.error is not None

    def _hear(self) -> None:
        """Take note of what the provider has counted so far."""
        self.told = False
        usage = self._reader.facts.usage or TokenUsage()
        self._said = usage.output_tokens or 0
        known = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.web_searches)
        if known != self._known:
            self._known = known
            self._suffices = self._covered()

    def _usage(self, output_tokens: int) -> TokenUsage:
        """What is booked if the stream ends at so many output tokens."""
        seen = self._reader.facts.usage or TokenUsage()
        read = self._input if seen.input_tokens is None else seen.input_tokens
        return seen.replace(input_tokens=read, output_tokens=output_tokens)

    def _covered(self) -> int:
        """A number of output tokens up to which the reservation suffices, a sixteenth below the largest at most: to
        reserve what is reserved already costs nothing."""
        if self._most is not None and self._most >= self._said and self._fits(self._most):
            return _NEVER
        low, high = self._said, self._said + 1024
        if not self._fits(low):
            return low - 1
        while self._fits(high):
            low, high = high, high * 2
            if high > 1 << 40:  # nothing that costs anything by the token
                return _NEVER
        while high - low > max(1, low // 16):
            middle = (low + high) // 2
            if self._fits(middle):
                low = middle
            else:
                high = middle
        return low

    def _fits(self, output_tokens: int) -> bool:
        return self._call.meter.suffices(self._call.ticket, self._usage(output_tokens))

    def _give_up(self, error: Exception) -> None:
        """Let the stream go on: the error is ours."""
        self._suffices = _NEVER
        log_once("reserve more for a stream", error)


def growth_of(call: LlmCall, reader: StreamReader | ItemReader, text_tokens: Callable[[], int]) -> Growth | None:
    """The growth of a stream that a budget may cut; ``None`` for all others, which are not counted as they come."""
    hold = call.ticket.hold
    if hold is None or not hold.cut:
        return None
    try:
        return Growth(call, reader, text_tokens)
    except Exception as error:
        log_once("follow the growth of a stream", error)
        return None
