"""What can be done where a budget has no room: a cheaper model, a shorter answer, waiting; or nothing.

One :class:`Remedies` goes with one admission, and remembers what was tried, so that it comes to an end.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from tokenbudget_otel.budgets.amounts import Call, Estimate
from tokenbudget_otel.budgets.ledger import Balance, Shortage
from tokenbudget_otel.budgets.rules import Rule, helps_to_wait
from tokenbudget_otel.budgets.run import budget
from tokenbudget_otel.budgets.steps import Ask, Pause, Steps

Source = Rule | budget

_POLL: Final = 0.05
"""Seconds after which one that waits looks again for what calls in flight gave back; doubled each time."""

_POLL_MOST: Final = 2.0


class Change(NamedTuple):
    """What became of a request so that it fits; ``None``: as the program asked."""

    model: str | None = None
    max_output_tokens: int | None = None
    waited: float = 0.0


UNCHANGED: Final = Change()


class Revision(Protocol):
    """What the meter knows of a request that may be changed."""

    @property
    def most_output(self) -> int | None:
        """The most output tokens that one answer may have now; ``None`` where that cannot be changed."""

    @property
    def least_output(self) -> int:
        """The fewest output tokens that one answer can be limited to."""

    @property
    def model_changes(self) -> bool:
        """Whether another model can be asked instead."""

    def estimate(self, change: Change) -> Estimate:
        """What the request comes to when it is changed so."""


class Remedies:
    """What is tried for one call.

    Args:
        call, estimate: as the program asked.
        revision: how the request can be changed; ``None`` where it cannot.
    """

    def __init__(self, call: Call, estimate: Estimate, revision: Revision | None) -> None:
        self.call = call
        self.estimate = estimate
        self.change = UNCHANGED
        self.eased: set[str] = set()
        """Names of budgets whose early degradation has been done, or cannot be."""
        self._revision = revision
        self._degraded: set[str] = set()
        self._shrunk = 0
        self._poll = _POLL

    def after(
        self, found: Sequence[tuple[Source, Shortage]], now: float
    ) -> Generator[Ask | Pause, Any, tuple[bool, float]]:
        """Look for something that makes room in all of the budgets that had none.

        Returns:
            Whether to try again, and after how many seconds of waiting.
        """
        # A claim on a share of the limit: the call has room, but its budget degrades from that share on.
        early = [source for source, shortage in found if shortage.claim.per_mille != 1000]
        refusing = [(source, shortage) for source, shortage in found if shortage.claim.per_mille == 1000]
        if self._degrade([*early, *(source for source, _ in refusing)]):
            return True, 0.0
        self.eased.update(source.name for source in early)
        if not refusing:
            return True, 0.0
        if self._shrink(refusing):
            return True, 0.0
        seconds = yield from self._wait(refusing, now)
        if seconds is None:
            return False, 0.0
        yield Pause(seconds)
        self.change = self.change._replace(waited=self.change.waited + seconds)
        return True, seconds

    def _degrade(self, sources: Sequence[Source]) -> bool:
        """Ask another model, where one of the budgets names one for the model that would be asked."""
        if self._revision is None or not self._revision.model_changes:
            return False
        for source in sources:
            if source.action != "degrade" or not isinstance(source, Rule):
                continue
            cheaper = source.cheaper(self.call.model)
            if cheaper is None or cheaper in self._degraded:
                continue
            self._degraded |= {self.call.model, cheaper}
            self.change = self.change._replace(model=cheaper)
            self.call = self.call._replace(model=cheaper)
            self.estimate = self._revision.estimate(self.change)
            self.eased.add(source.name)
            return True
        return False

    def _shrink(self, refusing: Sequence[tuple[Source, Shortage]]) -> bool:
        """Allow as many output tokens as there is room for in every budget that had none."""
        revision = self._revision
        if revision is None or self._shrunk > 2 or any(source.action != "shrink" for source, _ in refusing):
            return False
        most = revision.most_output
        least = max(revision.least_output, *(source.min_output_tokens for source, _ in refusing))
        if most is None or most <= least:
            return False

        def fits(tokens: int) -> Estimate | None:
            estimate = revision.estimate(self.change._replace(max_output_tokens=tokens))
            for source, (claim, balance) in refusing:
                amount = source.needs(estimate)
                needed = claim._replace(nano_usd=amount[0], tokens=amount[1], calls=amount[2])
                if Shortage(needed, balance).dimensions:
                    return None
            return estimate

        low, high = least, most
        if fits(low) is None:
            return False
        while low < high:
            middle = (low + high + 1) // 2
            if fits(middle) is None:
                high = middle - 1
            else:
                low = middle
        estimate = fits(low)
        assert estimate is not None
        self._shrunk += 1
        self.change = self.change._replace(max_output_tokens=low)
        self.estimate = estimate
        return True

    def _wait(self, refusing: Sequence[tuple[Source, Shortage]], now: float) -> Steps[float | None]:
        """How long to wait before another try; ``None`` where that would be in vain, or for too long."""
        if any(source.action != "wait" for source, _ in refusing):
            return None
        pauses = []
        for source, shortage in refusing:
            left = source.max_wait - self.change.waited
            if left <= 0:
                return None
            if _only_reserved(shortage):
                pauses.append(min(self._poll, left))
                continue
            seconds = yield from seconds_to_room(source, shortage, now)
            if seconds is None or seconds > left:
                return None
            pauses.append(max(seconds, 0.001))
        self._poll = min(self._poll * 2, _POLL_MOST)
        return max(pauses)


def seconds_to_room(source: Source, shortage: Shortage, now: float) -> Steps[float | None]:
    """Seconds until what is spent now leaves room for the call; ``None`` where waiting does not help."""
    claim = shortage.claim
    if not isinstance(source, Rule) or not claim.older:
        return seconds_to_end(source, shortage, now)
    if claim.ends is None or not all(helps_to_wait(claim, dimension) for dimension in shortage.dimensions):
        return None
    when = source.when_room((yield Ask("read", ((*claim.older, claim.key),))), claim, now)
    return None if when is None else max(0.0, when - now)


def seconds_to_end(source: Source, shortage: Shortage, now: float) -> float | None:
    """The same where the window is not a rolling one: then all that is spent in it ceases to count at once."""
    if not isinstance(source, Rule):
        return None
    when = source.when_room((), shortage.claim, now)
    return None if when is None else max(0.0, when - now)


def _only_reserved(shortage: Shortage) -> bool:
    """Whether there would be room if the calls in flight cost nothing."""
    idle = Balance(shortage.balance.key, *shortage.balance[1:4])
    return not Shortage(shortage.claim, idle).dimensions
