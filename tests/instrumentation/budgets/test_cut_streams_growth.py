"""How a stream outgrows what was reserved for it: whatever the pieces, the prices and the limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Amount, Budget, BudgetExceeded, Enforcer, LedgerUnavailable, MemoryLedger
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.growth import Growth
from tokenbudget_otel.meter import Meter, Reading, Request, Size
from tokenbudget_otel.money import to_usd
from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.usage import TokenUsage

READ = 500
BOOK = PriceBook()
for name, dollars in (("dear", (15, 75)), ("cheap", ("0.04", "0.08")), ("output only", (0, "2.5"))):
    BOOK.register_model(name, provider="growing", input_per_1m=dollars[0], output_per_1m=dollars[1])
BOOK.register_model("free", provider="growing", free=True)


@dataclass
class Answer:
    """A stream: how much text has come, and what the provider says."""

    complete: bool = False
    usage_is_final: bool = False
    facts: ResponseFacts = field(default_factory=ResponseFacts)
    text: int = 0

    def tokens(self) -> int:
        return self.text


class Stream:
    """An admitted call whose answer comes piece by piece."""

    def __init__(self, enforcer: Enforcer, model: str, expected: int, most: int | None = None) -> None:
        self.meter = Meter(BOOK, enforcer)
        size = Size(READ, READ, max_output_tokens=most, expected_output_tokens=expected)
        self.request = Request("growing", model, "chat", lambda: size, tags={})
        self.ticket = self.meter.admit(self.request)
        self.answer = Answer()
        self.growth = Growth(self._call(), self.answer, self.answer.tokens)
        self.largest = 1
        self.refusal: BudgetExceeded | None = None

    def _call(self) -> Any:
        return SimpleNamespace(request=self.request, ticket=self.ticket, meter=self.meter)

    def usage(self, output: int) -> TokenUsage:
        return TokenUsage(input_tokens=READ, output_tokens=output)

    def cost(self, output: int) -> int:
        cost = self.meter.price(self.request, Reading(self.usage(output))).cost.nano_usd
        assert cost is not None
        return cost

    def piece(self, tokens: int) -> bool:
        """A piece arrives; whether the stream was cut after it."""
        self.answer.text += tokens
        self.largest = max(self.largest, tokens)
        if self.growth.due():
            self.refusal = self.growth.refused()
        return self.refusal is not None

    def settle(self) -> None:
        self.meter.settle(self.ticket, Reading(self.usage(self.answer.text), estimated=True))


pieces = st.lists(st.one_of(st.integers(0, 12), st.integers(0, 900)), max_size=60)


@settings(deadline=None, max_examples=120)
@given(
    pieces=pieces,
    model=st.sampled_from(("dear", "cheap", "output only", "free")),
    limit_usd=st.none() | st.integers(0, 10**9),
    limit_tokens=st.integers(600, 20_000),
    expected=st.integers(1, 2_000),
    mode=st.sampled_from(("expected", "worst_case")),
)
def test_cut_within_a_piece_of_the_grant(
    pieces: list[int], model: str, limit_usd: int | None, limit_tokens: int, expected: int, mode: Any
) -> None:
    cutting = Budget(
        limit_usd=None if limit_usd is None else to_usd(limit_usd),
        limit_tokens=limit_tokens,
        name="cutting",
        mode=mode,
        cut_streams=True,
    )
    enforcer = Enforcer([cutting, Budget(limit_tokens=2_500, name="around", mode=mode)])
    try:
        stream = Stream(enforcer, model, expected)
    except BudgetExceeded:
        assume(False)
    for tokens in pieces:
        before = stream.answer.text
        if stream.piece(tokens):
            break
        [hold] = enforcer.ledger.holds()
        reserved = {claim.key.split("|")[1]: claim for claim in hold.claims}
        # What is there is reserved, and another piece like the largest; in budgets that do not cut as well.
        for name in ("cutting", "around"):
            assert reserved[name].tokens >= READ + stream.answer.text
            assert reserved[name].nano_usd >= stream.cost(stream.answer.text)
    evidence = stream.answer.text
    stream.settle()
    status = {row.budget: row for row in enforcer.status()}
    assert enforcer.ledger.holds() == ()
    for row in status.values():
        assert row.reserved_tokens == 0
        assert row.spent_tokens == READ + evidence
    assert all(balance.spent_nano_usd == stream.cost(evidence) for balance in enforcer.ledger.balances())
    if stream.refusal is None:
        assert READ + evidence <= limit_tokens
        assert limit_usd is None or stream.cost(evidence) <= limit_usd
        return
    assert stream.refusal.partial
    assert stream.refusal.budget == "cutting"
    # The last piece may have passed the limit, those before it had not.
    assert READ + before <= limit_tokens
    assert limit_usd is None or stream.cost(before) <= limit_usd
    # And there really was no room for another one.
    over = READ + evidence + stream.largest > limit_tokens
    assert over or (limit_usd is not None and stream.cost(evidence + stream.largest) > limit_usd)


@settings(deadline=None, max_examples=60)
@given(turns=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), min_size=1, max_size=150))
def test_streams_share_one_budget(turns: list[tuple[int, int]]) -> None:
    enforcer = Enforcer([Budget(limit_tokens=4_000, name="shared", cut_streams=True)])
    streams = [Stream(enforcer, "cheap", 40) for _ in range(3)]
    for index, tokens in turns:
        if streams[index].refusal is None:
            streams[index].piece(tokens)
            balance = enforcer.ledger.balances()[0]
            # Pieces of at most 40: no stream is further past what is reserved for it than its last one.
            assert balance.reserved_tokens <= 4_000
            assert sum(READ + stream.answer.text for stream in streams) <= 4_000 + 3 * 40
    for stream in streams:
        stream.settle()
    [row] = enforcer.status()
    assert (row.reserved_tokens, row.spent_tokens) == (0, sum(READ + stream.answer.text for stream in streams))


class Counting(MemoryLedger):
    """A ledger that counts how often it is asked for more; it can be out of reach."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.reachable = True

    def extend(self, *args: Any, **more: Any) -> Any:
        self.asked += 1
        if not self.reachable:
            raise LedgerUnavailable("the network is down")
        return super().extend(*args, **more)


def test_a_bound_that_holds_is_never_extended() -> None:
    ledger = Counting()
    enforcer = Enforcer([Budget(limit_usd=1, name="hard", mode="worst_case", cut_streams=True)], ledger=ledger)
    stream = Stream(enforcer, "dear", expected=10, most=2_000)
    for _ in range(700):
        assert not stream.piece(4)  # more than the provider can have counted: ours is a guess
    assert ledger.asked == 0


def test_extensions_grow_with_the_answer() -> None:
    ledger = Counting()
    enforcer = Enforcer([Budget(limit_tokens=200_000, name="wide", cut_streams=True)], ledger=ledger)
    stream = Stream(enforcer, "dear", expected=10)
    for _ in range(20_000):
        assert not stream.piece(4)
    assert ledger.asked < 40


def test_what_the_provider_counts_goes_before_what_is_seen() -> None:
    enforcer = Enforcer([Budget(limit_tokens=3_000, name="thinking", cut_streams=True)])
    stream = Stream(enforcer, "dear", expected=10)
    for written in range(100, 2_600, 100):
        # Nothing of it is shown: the model thinks.
        stream.answer.facts.usage = TokenUsage(input_tokens=READ, output_tokens=written, reasoning_tokens=written)
        stream.growth.told = True
        if stream.piece(0):
            break
    assert stream.refusal is not None
    assert 2_300 <= written <= 2_500


def test_the_input_turns_out_to_be_larger() -> None:
    enforcer = Enforcer([Budget(limit_tokens=3_000, name="mine", cut_streams=True)])
    stream = Stream(enforcer, "dear", expected=400)
    stream.answer.facts.usage = TokenUsage(input_tokens=2_800, output_tokens=1)
    stream.growth.told = True
    assert not stream.piece(4)
    assert enforcer.ledger.balances()[0].reserved_tokens > 2_804
    while not stream.piece(4):
        assert stream.answer.text < 200
    assert stream.answer.text >= 190


def test_a_complete_answer_is_not_cut() -> None:
    enforcer = Enforcer([Budget(limit_tokens=600, name="small", cut_streams=True)])
    stream = Stream(enforcer, "dear", expected=50)
    stream.answer.complete = True
    assert not stream.piece(5_000)


def test_a_ledger_out_of_reach_lets_the_stream_go_on() -> None:
    ledger = Counting()
    enforcer = Enforcer([Budget(limit_tokens=600, name="small", cut_streams=True)], ledger=ledger)
    stream = Stream(enforcer, "dear", expected=50)
    ledger.reachable = False
    assert not any(stream.piece(10) for _ in range(40))
    assert ledger.asked < 10
    ledger.reachable = True
    assert any(stream.piece(10) for _ in range(60))
    stream.settle()
    assert enforcer.ledger.balances()[0].spent_tokens == READ + stream.answer.text


def test_unknown_prices_and_dry_runs() -> None:
    enforcer = Enforcer(
        [
            Budget(limit_usd=1, limit_tokens=900, name="tokens", unpriced="allow", cut_streams=True),
            Budget(limit_tokens=700, name="dry", dry_run=True, cut_streams=True),
        ]
    )
    stream = Stream(enforcer, "nobody knows", expected=50)
    while not stream.piece(10):
        assert stream.answer.text < 500
    assert stream.refusal is not None
    assert (stream.refusal.budget, stream.refusal.dimension) == ("tokens", "tokens")
    assert stream.answer.text == 400


async def test_an_event_loop_goes_on() -> None:
    """The ledger is asked by way of the courier's thread where it may wait."""

    class Waiting(Counting):
        blocking = True

        def extend(self, *args: Any, **more: Any) -> Any:
            import time

            time.sleep(0.05)
            return super().extend(*args, **more)

    enforcer = Enforcer([Budget(limit_tokens=2_000, name="slow", cut_streams=True)], ledger=Waiting())
    stream = Stream(enforcer, "dear", expected=50)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.002)

    task = asyncio.create_task(others())
    stream.answer.text = 100
    assert stream.growth.due()
    assert await stream.growth.refused_async() is None
    assert turns > 5
    task.cancel()
    enforcer.settle(stream.ticket.hold, Amount(1, 1))
    assert enforcer.flush()
    enforcer.way.close()
