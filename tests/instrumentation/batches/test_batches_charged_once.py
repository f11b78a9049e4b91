"""Whatever is looked at, in whatever order, by several threads and by two processes that share a ledger: a batch is
charged once, to the token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from batch_jobs import CLAUDE, MODEL, batch_cost, billed_tokens, client_of, jsonl, lines_of, requests_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokenbudget_otel as tb
from tokenbudget_otel.budgets import Enforcer
from tokenbudget_otel.budgets.ledgers.memory import MemoryLedger
from tokenbudget_otel.instrumentation import batches, deferred
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

EXAMPLES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

Action = Callable[[Any, Any], None]


class Processes:
    """Two processes, as far as that matters: each has a meter, and they share a ledger. The first has two clients that
    are wrapped each by itself."""

    def __init__(self, sim: Simulator, kind: str) -> None:
        self.sim = sim
        self.plain = client_of(sim, kind)
        self.clients = [client_of(sim, kind) for _ in range(3)]
        self.begin()

    def begin(self, *, ledger: bool = True) -> None:
        self.sim.reset()
        self.ledger = MemoryLedger()
        rules = [tb.Budget(limit_tokens=10**9, name="all")] if ledger else []
        self.meters = [Meter(enforcer=Enforcer(rules, ledger=self.ledger)) for _ in range(2)]
        for client, meter in zip(self.clients, (self.meters[0], *self.meters), strict=True):
            tb.wrap(tb.unwrap(client), meter=meter)

    def run(self, batch: Any, turns: list[tuple[int, Action]], threads: int) -> None:
        def some(first: int) -> None:
            for who, action in turns[first::threads]:
                action(self.clients[who], batch)

        running = [threading.Thread(target=some, args=(first,)) for first in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        deferred.drain()

    def check(self, provider: str, *, summed: bool) -> None:
        everything = [meter.totals.get() for meter in self.meters]
        counted = everything[0] + everything[1]
        assert (counted.usage.input_tokens or 0, counted.usage.output_tokens or 0) == billed_tokens(self.sim)
        assert counted.calls == len(self.sim.billed)
        assert counted.unpriced_calls == 0
        assert counted.nano_usd == batch_cost(self.sim, provider, summed=summed)
        if not self.meters[0].enforcer.budgets:
            return
        (row,) = self.ledger.balances("budget|all")
        assert (row.spent_tokens, row.spent_calls, row.spent_nano_usd) == (
            sum(billed_tokens(self.sim)),
            len(self.sim.billed),
            counted.nano_usd,
        )
        assert (row.reserved_tokens, row.reserved_calls) == (0, 0)

    def close(self) -> None:
        for client in (self.plain, *self.clients):
            client.close()


@pytest.fixture
def openai_processes(sim: Simulator) -> Iterator[Processes]:
    processes = Processes(sim, "openai")
    yield processes
    processes.close()


@pytest.fixture
def anthropic_processes(sim: Simulator) -> Iterator[Processes]:
    processes = Processes(sim, "anthropic")
    yield processes
    processes.close()


# --- OpenAI ------------------------------------------------------------------------------------------------------


def retrieve(client: Any, batch: Any) -> None:
    client.batches.retrieve(batch.id)


def listed(client: Any, _batch: Any) -> None:
    list(client.batches.list())


def cancel(client: Any, batch: Any) -> None:
    client.batches.cancel(batch.id)


def content(client: Any, batch: Any) -> None:
    assert client.files.content(batch.output_file_id).text


def streamed(client: Any, batch: Any) -> None:
    with client.files.with_streaming_response.content(batch.output_file_id) as response:
        assert list(response.iter_lines())


def in_part(client: Any, batch: Any) -> None:
    with client.files.with_streaming_response.content(
        batch.output_file_id, extra_headers={"x-simulate": '{"split": 900}'}
    ) as response:
        next(response.iter_bytes())


def input_file(client: Any, batch: Any) -> None:
    client.files.content(batch.input_file_id)


LEDGER = st.booleans()


def who(ledger: bool) -> st.SearchStrategy[int]:
    """Which client looks. Without a ledger a process knows only of itself: those of the first."""
    return st.integers(0, 2 if ledger else 1)


@EXAMPLES
@given(data=st.data())
def test_any_order_of_looks_at_a_batch_of_openai(openai_processes: Processes, data: Any) -> None:
    processes = openai_processes
    processes.begin(ledger=(ledger := data.draw(LEDGER, "ledger")))
    outcome = data.draw(st.sampled_from(["completed", "expired", "cancelled"]), "outcome")
    tells = data.draw(st.booleans(), "the batch tells its usage")
    processes.sim.default = Behaviour(
        outcome="incomplete" if outcome == "expired" else "completed", usage="present", polls=1
    )
    client = processes.plain
    lines = lines_of(data.draw(st.integers(1, 5), "lines"))
    source = client.files.create(file=("input.jsonl", jsonl(lines)), purpose="batch").id
    batch = client.batches.create(input_file_id=source, endpoint="/v1/chat/completions", completion_window="24h")
    if outcome == "cancelled":
        client.batches.cancel(batch.id)
    batch = client.batches.retrieve(batch.id)
    assert batch.status == outcome
    if not tells:
        # As of a host that does not have it, or a batch of before September 2025.
        processes.sim._state.store[batch.id].shape.pop("usage")
    ways = [retrieve, listed, cancel, content, streamed, in_part, input_file]
    turns = data.draw(st.lists(st.tuples(who(ledger), st.sampled_from(ways)), max_size=8), "looks")
    processes.run(batch, turns, data.draw(st.integers(1, 3), "threads"))
    # Whatever was seen before: now it is read to the end, by one or the other.
    content(processes.clients[data.draw(who(ledger), "last")], batch)
    processes.check("openai", summed=True)


@EXAMPLES
@given(data=st.data())
def test_any_order_while_the_batch_is_worked_on(openai_processes: Processes, data: Any) -> None:
    """Its usage grows from look to look: what is charged is what it is in the end."""
    processes = openai_processes
    processes.begin(ledger=(ledger := data.draw(LEDGER, "ledger")))
    processes.sim.then(Behaviour(), Behaviour(polls=data.draw(st.integers(1, 4), "polls")))
    lines = lines_of(3, model=MODEL)
    maker = processes.clients[data.draw(who(ledger), "maker")]
    source = maker.files.create(file=("input.jsonl", jsonl(lines)), purpose="batch").id
    batch = maker.batches.create(input_file_id=source, endpoint="/v1/chat/completions", completion_window="24h")
    turns = data.draw(
        st.lists(st.tuples(who(ledger), st.sampled_from([retrieve, listed])), min_size=1, max_size=8), "looks"
    )
    processes.run(batch, turns, data.draw(st.integers(1, 3), "threads"))
    for _ in range(4):
        retrieve(processes.clients[data.draw(who(ledger), "last")], batch)
    processes.check("openai", summed=True)


# --- Anthropic ---------------------------------------------------------------------------------------------------


def results(client: Any, batch: Any) -> None:
    assert list(client.messages.batches.results(batch.id))


def beta_results(client: Any, batch: Any) -> None:
    assert list(client.beta.messages.batches.results(batch.id))


def raw_results(client: Any, batch: Any) -> None:
    assert client.messages.batches.with_raw_response.results(batch.id).read()


def some_results(client: Any, batch: Any) -> None:
    found = client.messages.batches.results(batch.id, extra_headers={"x-simulate": '{"split": 700}'})
    next(found)
    found.close()


def dropped_results(client: Any, batch: Any) -> None:
    next(client.messages.batches.results(batch.id, extra_headers={"x-simulate": '{"split": 700}'}))


def look(client: Any, batch: Any) -> None:
    client.messages.batches.retrieve(batch.id)


@EXAMPLES
@given(data=st.data())
def test_any_order_of_looks_at_a_batch_of_anthropic(anthropic_processes: Processes, data: Any) -> None:
    processes = anthropic_processes
    processes.begin(ledger=(ledger := data.draw(LEDGER, "ledger")))
    outcome = data.draw(st.sampled_from(["completed", "incomplete"]), "outcome")
    processes.sim.default = Behaviour(outcome=outcome, polls=1)
    client = processes.plain
    requests = requests_of(data.draw(st.integers(1, 8), "requests"), model=CLAUDE)
    batch = client.messages.batches.retrieve(client.messages.batches.create(requests=requests).id)
    assert batch.processing_status == "ended"
    ways = [results, beta_results, raw_results, some_results, dropped_results, look]
    turns = data.draw(st.lists(st.tuples(who(ledger), st.sampled_from(ways)), max_size=7), "looks")
    processes.run(batch, turns, data.draw(st.integers(1, 3), "threads"))
    results(processes.clients[data.draw(who(ledger), "last")], batch)
    processes.check("anthropic", summed=False)


# --- what is remembered ------------------------------------------------------------------------------------------


@given(
    claims=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=40),
    read_out=st.sets(st.sampled_from("abc")),
)
def test_a_line_is_claimed_once(claims: list[tuple[str, int]], read_out: set[str]) -> None:
    known = batches.Batches()
    for batch in read_out:
        known.read_out(batch)
    won = [(batch, line) for batch, line in claims if known.claim_line(batch, str(line))]
    assert len(won) == len(set(won))
    assert set(won) == {(batch, line) for batch, line in claims if batch not in read_out}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_LINES", 100)
    known = batches.Batches()
    for batch in range(50):
        for line in range(30):
            assert known.claim_line(str(batch), str(line))
    assert sum(len(lines) for lines in known._lines.values()) <= 130
    # The batch that is being read is never the one that is forgotten.
    assert not known.claim_line("49", "0")


def test_a_meter_is_not_kept_alive_by_its_memory() -> None:
    import gc
    import weakref

    meter = Meter()
    memory = batches.batches_of(meter)
    assert batches.batches_of(meter) is memory
    gone = weakref.ref(meter)
    del meter
    gc.collect()
    assert gone() is None
