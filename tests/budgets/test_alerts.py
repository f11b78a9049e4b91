"""Alerts: told once, off the path of calls, and delivered to real servers that answer as servers do."""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from tokenbudget_otel.budgets import (
    Amount,
    Balance,
    Budget,
    Call,
    Claim,
    Enforcer,
    Estimate,
    Limits,
    MemoryLedger,
)
from tokenbudget_otel.budgets.alerting import deliveries as module
from tokenbudget_otel.budgets.alerting.alert import Alert
from tokenbudget_otel.budgets.alerting.alert_event import AlertEvent
from tokenbudget_otel.budgets.alerting.alerts import AlertDesk, Watched
from tokenbudget_otel.budgets.alerting.deliveries import Deliveries, pause
from tokenbudget_otel.budgets.alerting.signatures import sign, verify_signature
from tokenbudget_otel.budgets.alerting.webhooks import delivery
from tokenbudget_otel.budgets.ledger import LedgerUnavailable
from tokenbudget_otel.tags import current_tags, tags

from .budget_ledgers import Clock

WAIT = 20.0
"""Seconds that a busy machine may take for what takes milliseconds."""

DOLLAR = 1_000_000_000


def until(holds: Callable[[], object]) -> None:
    """Wait for what other threads do."""
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


class Desk:
    """A desk at a ledger, and what its alerts said."""

    def __init__(self, ledger: MemoryLedger, clock: Clock, **replaced: Any) -> None:
        self.told: list[AlertEvent] = []
        self.ledger = ledger
        ways: dict[str, Any] = {"read": ledger.read, "limits": ledger.limits, "first": ledger.first} | replaced
        self.desk = AlertDesk(ways["read"], ways["limits"], ways["first"], clock=clock, pause=0)

    def alerts(self, *shares: float) -> tuple[Alert, ...]:
        return tuple(Alert(at, self.told.append) for at in shares)

    def spend(self, watched: Watched, usd: float) -> None:
        """Spend, look, and wait until what is to be told is told."""
        nano_usd = round(usd * DOLLAR)
        self.ledger.charge(os.urandom(8).hex(), Amount(nano_usd, 0), [Claim(watched.key, ends=watched.ends)])
        self.desk.look(watched)
        assert self.desk.flush(WAIT)

    def thresholds(self) -> list[float]:
        return [event.threshold for event in self.told]


@pytest.fixture
def memory(clock: Clock) -> MemoryLedger:
    return MemoryLedger(clock=clock)


@pytest.fixture
def desk(memory: MemoryLedger, clock: Clock) -> Iterator[Desk]:
    desk = Desk(memory, clock)
    yield desk
    desk.desk.close()


def watched(
    alerts: Sequence[Alert],
    window: str = "2026-11",
    tenant: str = "acme",
    limit_usd: float | None = 10,
    tokens: int | None = None,
    older: tuple[str, ...] = (),
    ends: float | None = 1_796_083_200.0,
) -> Watched:
    budget = Budget(limit_usd=limit_usd, limit_tokens=tokens, window="month", per="tenant", name="mine")
    nano_usd = None if limit_usd is None else round(limit_usd * DOLLAR)
    key = f"budget|mine|{window}|tenant={tenant}"
    return Watched(
        budget, tuple(alerts), key, older, ends, window, {"tenant": tenant}, (nano_usd, tokens, None), "mine"
    )


# -- when ------------------------------------------------------------------------------------------------------


def test_each_threshold_is_told_once_in_ascending_order(desk: Desk) -> None:
    mine = watched(desk.alerts(1.0, 0.5, 0.8))
    desk.spend(mine, 4.99)
    assert desk.told == []
    desk.spend(mine, 0.01)
    assert desk.thresholds() == [0.5]
    desk.spend(mine, 6)
    assert desk.thresholds() == [0.5, 0.8, 1.0]
    desk.spend(mine, 6)
    assert desk.thresholds() == [0.5, 0.8, 1.0]


def test_windows_and_scopes_are_told_apart(desk: Desk) -> None:
    alerts = desk.alerts(0.5)
    for window, tenant in (("2026-11", "acme"), ("2026-11", "other"), ("2026-12", "acme"), ("2026-12", "acme")):
        desk.spend(watched(alerts, window, tenant), 6)
    assert [(event.window, event.scope["tenant"]) for event in desk.told] == [
        ("2026-11", "acme"),
        ("2026-11", "other"),
        ("2026-12", "acme"),
    ]


def test_the_event_says_what_the_budget_stands_at(desk: Desk) -> None:
    desk.ledger.reserve("open", [Claim("budget|mine|2026-11|tenant=acme", DOLLAR, 7)], 60)
    desk.spend(watched(desk.alerts(0.8), tokens=1_000_000), 8.25)
    (event,) = desk.told
    assert (event.budget, event.threshold, event.share, event.dimension) == ("mine", 0.8, 0.825, "usd")
    assert (event.limit_usd, event.spent_usd, event.reserved_usd) == (Decimal(10), Decimal("8.25"), Decimal(1))
    assert event.remaining_usd == Decimal("0.75")
    assert (event.limit_tokens, event.spent_tokens, event.remaining_tokens) == (1_000_000, 0, 999_993)
    assert event.limit_calls is event.spent_calls is event.remaining_calls is None
    assert event.resets_at == datetime(2026, 12, 1, tzinfo=UTC)
    assert event.at == datetime(2026, 11, 22, 19, 0, tzinfo=UTC)
    assert str(event) == (
        "Budget 'mine' (tenant=acme) has spent 82.5% of its limit ($8.2500 of $10.0000), which passes the alert at "
        "80%; window 2026-11 ends at 2026-12-01 00:00 UTC."
    )
    told = json.loads(json.dumps(event.as_json()))
    assert told["spent_usd"] == "8.25"
    assert told["resets_at"] == "2026-12-01T00:00:00+00:00"
    assert told["type"] == "tokenbudget.budget.alert"


def test_the_limit_that_is_used_most_counts(desk: Desk) -> None:
    mine = watched(desk.alerts(0.5), tokens=100)
    desk.ledger.charge("one", Amount(DOLLAR, 50), [Claim(mine.key)])
    desk.spend(mine, 0)
    assert (desk.told[0].dimension, desk.told[0].share) == ("tokens", 0.5)


def test_the_limits_in_force_count_and_those_of_nothing_are_used_up_by_anything(desk: Desk) -> None:
    mine = watched(desk.alerts(0.5))
    desk.ledger.set_limits("mine", Limits(nano_usd=100 * DOLLAR))
    desk.spend(mine, 9)
    assert desk.told == []
    desk.ledger.set_limits("mine", Limits(nano_usd=0))
    desk.spend(mine, 0)
    assert desk.told[0].share == 1.0
    assert desk.told[0].limit_usd == 0
    desk.spend(watched(desk.alerts(0.5), tenant="idle"), 0)
    assert len(desk.told) == 1


def test_desks_that_share_a_ledger_tell_each_alert_once_together(memory: MemoryLedger, clock: Clock) -> None:
    desks = [Desk(memory, clock) for _ in range(3)]
    for _ in range(5):
        for each in desks:
            each.spend(watched(each.alerts(0.5, 1.0)), 1)
    assert sorted(at for each in desks for at in each.thresholds()) == [0.5, 1.0]
    # What is forgotten here is remembered by the ledger.
    desks[0].desk._told.clear()
    desks[0].spend(watched(desks[0].alerts(0.5, 1.0)), 1)
    assert sum(len(each.told) for each in desks) == 2


def test_the_ledger_is_asked_once_whether_somebody_was_first(memory: MemoryLedger, clock: Clock) -> None:
    marks: list[str] = []
    desk = Desk(memory, clock, first=lambda mark, ends: marks.append(mark) or memory.first(mark, ends))
    for _ in range(5):
        desk.spend(watched(desk.alerts(0.5, 1.0)), 3)
    assert len(marks) == len(set(marks)) == 2
    assert desk.thresholds() == [0.5, 1.0]


def test_two_functions_of_one_name_are_both_told(desk: Desk) -> None:
    one: list[AlertEvent] = []
    two: list[AlertEvent] = []
    alerts = [Alert(0.5, lambda event, told=told: told.append(event)) for told in (one, two)]
    desk.spend(watched(alerts), 5)
    assert len(one) == len(two) == 1


def test_calls_set_off_the_alerts_of_their_budgets(clock: Clock) -> None:
    told: list[AlertEvent] = []
    alerts = [Alert(0.5, told.append)]
    enforcer = Enforcer(
        [
            Budget(limit_usd=1, per="tenant", window="month", name="money", alerts=alerts),
            Budget(limit_calls=3, window="rolling 24h", name="calls", alerts=alerts),
            Budget(limit_calls=3, name="silent"),
        ],
        clock=clock,
    )
    call = Call("openai", "gpt-5", {"tenant": "acme"})
    for usd in (0.1, 0.5, 0.1):
        hold = enforcer.admit(call, Estimate(Amount(DOLLAR // 10, 1), Amount(DOLLAR // 10, 1)))
        assert enforcer.flush(WAIT)
        enforcer.settle(hold, Amount(round(usd * DOLLAR), 1))
        assert enforcer.flush(WAIT)
    assert [(each.budget, each.window, dict(each.scope), each.share) for each in told] == [
        ("money", "2026-11", {"tenant": "acme"}, 0.6),
        ("calls", "rolling 24h", {}, 2 / 3),
    ]
    assert told[0].resets_at == datetime(2026, 12, 1, tzinfo=UTC)


# -- rolling windows ---------------------------------------------------------------------------------------------

PARTS = 5


class Rolling:
    """A rolling window of :data:`PARTS` parts before the present one, of a limit of 10 dollars."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.part = PARTS

    def watched(self, alerts: Sequence[Alert]) -> Watched:
        ids = [f"rolling 1m/2026-11-22T19:{part:02}:00Z" for part in range(self.part - PARTS, self.part + 1)]
        *older, _ = (f"budget|mine|{each}|tenant=acme" for each in ids)
        return watched(alerts, ids[-1], older=tuple(older), ends=self.clock() + 600)


def test_a_rolling_window_is_told_again_after_it_was_below(desk: Desk, clock: Clock) -> None:
    rolling = Rolling(clock)
    alerts = desk.alerts(0.5)
    for usd in (4, 1, 1, 1, 0, 0, 0, 0, 6, 0, 0):
        desk.spend(rolling.watched(alerts), usd)
        rolling.part += 1
    # 5 in the second part; 7 until the first one is left behind, in the seventh part; then 3, 2, 1; 6.
    assert [(event.spent_usd, event.window, event.resets_at) for event in desk.told] == [
        (Decimal(5), "rolling 1m", None),
        (Decimal(7), "rolling 1m", None),
    ]


def rolling_shares(spent: Sequence[int]) -> list[float]:
    sums = [0, *accumulate(spent)]
    return [(sums[part + 1] - sums[max(0, part - PARTS)]) / 10 for part in range(len(spent))]


@given(
    spent=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    looks=st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=30, max_size=30),
)
def test_processes_tell_each_rise_of_a_rolling_window_once_together(spent: list[int], looks: list[list[int]]) -> None:
    clock = Clock()
    memory = MemoryLedger(clock=clock)
    rolling = Rolling(clock)
    told: list[tuple[int, float]] = []
    desks = [Desk(memory, clock) for _ in range(3)]
    alerts = (Alert(0.5, lambda event: told.append((rolling.part - PARTS, event.share))),)
    for usd, order in zip(spent, looks, strict=False):
        mine = rolling.watched(alerts)
        memory.charge(os.urandom(8).hex(), Amount(usd * DOLLAR, 0), [Claim(mine.key)])
        # One process looks in every part; the others now and then, before or after it.
        for each in [*order, 0] if len(order) % 2 else [0, *order]:
            desks[each].desk._judge([mine], [mine.key, *mine.older])
        rolling.part += 1
    shares = rolling_shares(spent)
    rises = [part for part, share in enumerate(shares) if share >= 0.5 and (part == 0 or shares[part - 1] < 0.5)]
    assert [part for part, _ in told] == rises


# -- off the path of calls ---------------------------------------------------------------------------------------


def test_many_looks_at_one_key_are_few_reads(memory: MemoryLedger, clock: Clock) -> None:
    gate, reading, reads = threading.Event(), threading.Event(), []

    def read(keys: Sequence[str]) -> tuple[Balance, ...]:
        reads.append(list(keys))
        reading.set()
        assert gate.wait(WAIT)
        return memory.read(keys)

    desk = Desk(memory, clock, read=read)
    mine = watched(desk.alerts(0.5))
    desk.desk.look(mine)
    assert reading.wait(WAIT)
    memory.charge("late", Amount(5 * DOLLAR, 0), [Claim(mine.key)])
    for _ in range(10_000):
        desk.desk.look(mine)  # returns while the ledger does not
    assert desk.desk._queue.qsize() == 1
    gate.set()
    assert desk.desk.flush(WAIT)
    assert reads == [[mine.key], [mine.key]]
    assert desk.thresholds() == [0.5]  # also what was spent while it was read the first time


def test_nothing_that_goes_wrong_reaches_the_caller(
    memory: MemoryLedger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(event: AlertEvent) -> None:
        raise SystemExit("not mine")

    async def elsewhere(event: AlertEvent) -> None:
        raise AssertionError("never run")

    desk = Desk(memory, clock)
    desk.spend(watched([Alert(0.5, wrong), Alert(0.6, elsewhere), *desk.alerts(0.7)]), 7)
    assert desk.thresholds() == [0.7]
    assert "not mine" in caplog.text
    assert "plain function" in caplog.text
    broken = watched(desk.alerts(0.5), tenant="broken")._replace(limits=(1,))  # type: ignore[arg-type]
    desk.spend(broken, 7)
    assert "could not be worked out" in caplog.text
    desk.spend(watched(desk.alerts(0.5), tenant="fine"), 7)
    assert desk.thresholds() == [0.7, 0.5]


@pytest.mark.parametrize("fails", ["read", "limits", "first"])
def test_an_alert_comes_late_where_the_ledger_is_away(
    memory: MemoryLedger, clock: Clock, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    away = True
    works: Callable[..., Any] = getattr(memory, fails)

    def sometimes(*arguments: Any) -> Any:
        if away:
            raise LedgerUnavailable("no route")
        return works(*arguments)

    desk = Desk(memory, clock, **{fails: sometimes})
    mine = watched(desk.alerts(0.5, 0.6))
    memory.charge("one", Amount(7 * DOLLAR, 0), [Claim(mine.key)])
    desk.desk.look(mine)
    until(lambda: desk.desk._failing)
    assert not desk.desk.flush(WAIT)
    away = False
    assert desk.desk.flush(WAIT)  # without another call
    assert desk.thresholds() == [0.5, 0.6]
    assert caplog.text.count("come late") == 1


def test_alerts_to_the_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.spend(watched([Alert(0.5)]), 5)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tokenbudget_otel.budgets", logging.WARNING)
    assert "(tenant=acme) has spent 50% of its limit" in record.getMessage()
    assert "which reaches the alert at 50%" in record.getMessage()


def test_a_callback_may_wait_for_the_desk_and_runs_in_no_context_of_a_call(desk: Desk) -> None:
    seen: list[object] = []
    alerts = [Alert(0.5, lambda event: seen.extend((desk.desk.flush(1), current_tags())))]
    with tags(tenant="acme"):
        desk.spend(watched(alerts), 5)
    assert seen == [False, {}]


def test_what_is_asked_of_the_ledger_is_not_traced_and_what_a_callback_does_is(
    memory: MemoryLedger, clock: Clock
) -> None:
    traced: list[bool] = []

    def read(keys: Sequence[str]) -> tuple[Balance, ...]:
        traced.append(is_instrumentation_enabled())
        return memory.read(keys)

    desk = Desk(memory, clock, read=read)
    desk.spend(watched([Alert(0.5, lambda event: traced.append(is_instrumentation_enabled()))]), 5)
    assert traced == [False, True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on_by_itself(desk: Desk) -> None:
    mine = watched(desk.alerts(0.5, 0.8))
    desk.spend(mine, 5)
    for _ in range(5):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                desk.spend(mine, 3)
                code = 0 if desk.thresholds() == [0.5, 0.8] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    desk.spend(mine, 3)
    assert desk.thresholds() == [0.5, 0.8]


def test_a_desk_that_is_closed_or_forgotten_leaves_no_thread(memory: MemoryLedger, clock: Clock) -> None:
    closed, forgotten = Desk(memory, clock), Desk(memory, clock)
    threads = []
    for each in (closed, forgotten):
        each.spend(watched(each.alerts(0.5)), 0)
        threads.append(each.desk._worker)
        assert threads[-1].is_alive()
    closed.desk.close()
    closed.desk.look(watched(closed.alerts(0.5), tenant="late"))
    assert closed.desk.flush(WAIT)
    del forgotten, each
    until(lambda: not any(thread.is_alive() for thread in threads))


# -- webhooks ----------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    path: str
    headers: Message
    body: bytes


class Receiver:
    """A server on loopback that answers what the test says, then 200, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.asked: list[Asked] = []
        self.gates: dict[str, threading.Event] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked.append(Asked(self.path, self.headers, body))
                if gate := receiver.gates.get(self.path):
                    gate.wait(WAIT)
                status, headers, text = receiver.answers.pop(0) if receiver.answers else (200, {}, "ok")
                if not status:  # closes without an answer
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def url(self, path: str = "/hook/geheim", login: str = "", host: str = "127.0.0.1") -> str:
        return f"http://{login}{host}:{self.server.server_port}{path}"

    def answer(self, *statuses: int, headers: Mapping[str, str] | None = None, text: str = "") -> None:
        self.answers += [(status, dict(headers or {}), text) for status in statuses]

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    receiver = Receiver()
    yield receiver
    receiver.close()


class Seconds:
    """A clock for deliveries that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.deliveries = Deliveries(clock=lambda: self.now)

    def next_due(self) -> float | None:
        """In how many seconds the next attempt is due, once none is under way."""
        until(lambda: not self._busy())
        with self.deliveries._changed:
            dues = [due for host in self.deliveries._hosts.values() for due, _, _ in host.waiting]
        return min(dues) - self.now if dues else None

    def _busy(self) -> bool:
        with self.deliveries._changed:
            return any(
                host.busy is not None or host.waiting[0][0] <= self.now for host in self.deliveries._hosts.values()
            )

    def on(self, seconds: float) -> None:
        with self.deliveries._changed:
            self.now += seconds
            self.deliveries._changed.notify_all()


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


EVENT = AlertEvent(budget="mine", threshold=0.8, share=0.8, dimension="calls", limit_calls=5, spent_calls=4)


def test_a_webhook_is_signed_and_says_it_all(receiver: Receiver, desk: Desk) -> None:
    desk.spend(watched([Alert(0.8, receiver.url(), secret="geheim-1")], tenant="Zoë"), 8)
    (asked,) = receiver.asked
    timestamp, signature = asked.headers["X-TokenBudget-Timestamp"], asked.headers["X-TokenBudget-Signature"]
    assert verify_signature("geheim-1", timestamp, asked.body, signature)
    assert not verify_signature("geheim-2", timestamp, asked.body, signature)
    assert not verify_signature("geheim-1", timestamp, asked.body + b" ", signature)
    assert not verify_signature("geheim-1", str(int(timestamp) - 1), asked.body, signature)
    assert not verify_signature("geheim-1", timestamp, asked.body, signature, now=time.time() + 302)
    said = json.loads(asked.body)
    assert said["id"] == asked.headers["X-TokenBudget-Delivery"]
    assert (said["budget"], said["scope"], said["spent_usd"]) == ("mine", {"tenant": "Zoë"}, "8")
    assert asked.headers["Content-Type"] == "application/json"
    assert b"geheim" not in asked.body


@pytest.mark.parametrize(
    ("timestamp", "signature"),
    [
        (None, "sha256=00"),
        ("1795374000", None),
        ("", ""),
        ("soon", "sha256=00"),
        ("1795374000", "sha256=é"),
        ("1795374000", "\ud800"),
        ("1795374000", sign("geheim", 1795374000, b"{}").removeprefix("sha256=")),
    ],
)
def test_a_signature_that_is_no_signature(timestamp: str | None, signature: str | None) -> None:
    assert not verify_signature("geheim", timestamp, b"{}", signature, now=1795374000)
    assert not verify_signature("", timestamp, b"{}", signature, now=1795374000)


@given(secret=st.text(min_size=1), body=st.binary(), sent=st.integers(0, 2**40), later=st.integers(-400, 400))
def test_signatures_hold_for_as_long_as_they_are_tolerated(secret: str, body: bytes, sent: int, later: int) -> None:
    try:
        secret.encode()
    except UnicodeEncodeError:
        return
    signature = sign(secret, sent, body)
    assert verify_signature(secret, str(sent), body, signature, now=sent + later) == (abs(later) <= 300)


def test_what_fails_is_tried_again_and_delivered_once(
    receiver: Receiver, seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer(500, 0, 429, 408)  # 0: hangs up
    seconds.deliveries.send(delivery(Alert(0.8, receiver.url(), secret="geheim"), EVENT))
    for longest in (2, 6, 18, 54):
        due = seconds.next_due()
        assert due is not None
        assert longest / 2 <= due <= longest
        seconds.on(due)
    assert seconds.next_due() is None
    assert len(receiver.asked) == 5
    assert {asked.headers["X-TokenBudget-Delivery"] for asked in receiver.asked} == {EVENT.id}
    assert len({asked.body for asked in receiver.asked}) == 1
    assert (seconds.deliveries.delivered, seconds.deliveries.retried, seconds.deliveries.failed) == (1, 4, 0)
    assert not caplog.records


def test_it_is_given_up_after_six_attempts_in_five_minutes(
    receiver: Receiver, seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer(*[503] * 6)
    seconds.deliveries.send(delivery(Alert(0.8, receiver.url(), secret="geheim"), EVENT))
    began = seconds.now
    while (due := seconds.next_due()) is not None:
        seconds.on(due)
    assert len(receiver.asked) == 6
    assert 0 < seconds.now - began <= 300
    (record,) = caplog.records
    assert "after 6 attempt(s): it answered 503. It said: Budget 'mine' has spent 80%" in record.getMessage()
    assert "geheim" not in record.getMessage()
    assert seconds.deliveries.failed == 1


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 422])
def test_what_will_not_get_better_is_not_tried_again(
    receiver: Receiver, seconds: Seconds, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    receiver.answer(status, headers={"Location": receiver.url("/elsewhere")})
    seconds.deliveries.send(delivery(Alert(0.8, receiver.url(login="me:geheim@"), secret="geheim"), EVENT))
    assert seconds.next_due() is None
    (asked,) = receiver.asked
    assert asked.headers["Authorization"] == "Basic bWU6Z2VoZWlt"
    (record,) = caplog.records
    assert f"it answered {status}" in record.getMessage()
    assert "geheim" not in record.getMessage()


@pytest.mark.parametrize(("says", "waits"), [("40", 40), ("86400", 120), ("0", 1), ("soon", 1), ("date", 40)])
def test_a_server_says_when_to_come_again(receiver: Receiver, seconds: Seconds, says: str, waits: int) -> None:
    if says == "date":
        says = f"{datetime.fromtimestamp(time.time() + 41, UTC):%a, %d %b %Y %H:%M:%S} GMT"
    receiver.answer(429, headers={"Retry-After": says})
    seconds.deliveries.send(delivery(Alert(0.8, receiver.url()), EVENT))
    due = seconds.next_due()
    assert due is not None
    assert waits - 2 <= due <= waits + 2
    seconds.on(due)
    assert seconds.next_due() is None
    assert seconds.deliveries.delivered == 1


def test_nobody_there(seconds: Seconds, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.close()
    seconds.deliveries.send(delivery(Alert(0.8, receiver.url()), EVENT))
    while (due := seconds.next_due()) is not None:
        seconds.on(due)
    assert "the connection failed (Connection refused)" in caplog.text


def test_a_url_that_cannot_be_asked_is_not_shown(seconds: Seconds, caplog: pytest.LogCaptureFixture) -> None:
    seconds.deliveries.send(delivery(Alert(0.8, "http://127.0.0.1:9/gehéim"), EVENT))
    assert seconds.next_due() is None
    assert "it could not be sent (UnicodeEncodeError)" in caplog.text
    assert "geh" not in caplog.text


def test_a_slow_host_holds_up_nobody_else(receiver: Receiver, seconds: Seconds) -> None:
    receiver.gates["/slow"] = threading.Event()
    for _ in range(20):
        seconds.deliveries.send(delivery(Alert(0.8, receiver.url("/slow")), EVENT))
    until(lambda: receiver.asked)
    for number in range(3):
        seconds.deliveries.send(delivery(Alert(0.8, receiver.url(f"/quick/{number}", host="localhost")), EVENT))
    until(lambda: seconds.deliveries.delivered == 3)
    assert [asked.path for asked in receiver.asked if asked.path == "/slow"] == ["/slow"]
    receiver.gates["/slow"].set()
    assert seconds.deliveries.flush(WAIT)
    assert len(receiver.asked) == 23


def test_hosts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(Deliveries, "start", lambda self: False)  # all is done by flush, in this thread
    monkeypatch.setattr(module, "post", lambda delivery, _: made.append(delivery.place) or module.Answer())
    deliveries = Deliveries()
    for host, count in (("a", 3), ("b", 2), ("c", 1)):
        for _ in range(count):
            deliveries.send(delivery(Alert(0.8, f"https://{host}/"), EVENT))
    assert deliveries.flush(1)
    assert [place[8] for place in made] == ["a", "b", "c", "a", "b", "a"]


def test_what_waits_is_bounded_and_what_is_left_at_the_end_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Deliveries, "start", lambda self: True)  # nobody delivers
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    deliveries = Deliveries()
    for _ in range(4):
        deliveries.send(delivery(Alert(0.8, "https://example.com/geheim"), EVENT))
    assert deliveries.failed == 1
    assert "3 others wait already" in caplog.text
    assert not deliveries.flush(0.01)
    deliveries.abandon()
    assert "before 3 alert(s) could be delivered, the first to https://example.com/…: Budget 'mine'" in caplog.text
    assert "geheim" not in caplog.text
    assert deliveries.failed == 4
    assert deliveries.flush(0)


def test_flush_does_not_wait_for_an_attempt_that_comes_later(receiver: Receiver, seconds: Seconds) -> None:
    receiver.answer(500, headers={"Retry-After": "60"})
    seconds.deliveries.send(delivery(Alert(0.8, receiver.url()), EVENT))
    began = time.monotonic()
    assert not seconds.deliveries.flush(30)
    assert time.monotonic() - began < 10


def test_slack(receiver: Receiver, seconds: Seconds, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answer(200, 404)
    receiver.answers[1] = (404, {}, "channel_is_archived")
    alert = Alert(0.8, f"slack:{receiver.url('/services/T0/B0/geheim')}")
    event = AlertEvent(
        budget="<!channel> & co", threshold=1.0, share=1.5, dimension="usd", limit_usd=Decimal(2), spent_usd=Decimal(3)
    )
    seconds.deliveries.send(delivery(alert, event))
    assert seconds.next_due() is None
    (asked,) = receiver.asked
    said = json.loads(asked.body)
    assert said["text"].startswith(
        "Budget '&lt;!channel&gt; &amp; co' has spent 150% of its limit ($3.0000 of $2.0000), which passes"
    )
    assert said["text"] in said["blocks"][0]["text"]["text"]
    assert "X-TokenBudget-Signature" not in asked.headers
    seconds.deliveries.send(delivery(alert, event))
    assert seconds.next_due() is None
    assert "it answered 404 channel_is_archived" in caplog.text
    assert "geheim" not in caplog.text


def test_deliveries_are_not_traced(receiver: Receiver, seconds: Seconds, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled: list[bool] = []
    connect = http.client.HTTPConnection.connect

    def watch(self: http.client.HTTPConnection) -> None:
        enabled.append(is_instrumentation_enabled())
        connect(self)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", watch)
    seconds.deliveries.send(delivery(Alert(0.8, receiver.url()), EVENT))
    assert seconds.next_due() is None
    assert enabled == [False]
    assert is_instrumentation_enabled()


@given(attempts=st.integers(1, 5), retry_after=st.floats(0, 1e6), seed=st.integers())
def test_pauses_are_within_their_bounds(attempts: int, retry_after: float, seed: int) -> None:
    random.seed(seed)
    longest = module.PAUSES_S[attempts - 1]
    assert (
        max(longest / 2, min(retry_after, 120)) <= pause(attempts, retry_after) <= max(longest, min(retry_after, 120))
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_delivers_its_own_alerts_only(receiver: Receiver, seconds: Seconds) -> None:
    receiver.answer(500)
    seconds.deliveries.send(delivery(Alert(0.8, receiver.url("/parent")), EVENT))
    due = seconds.next_due()
    assert due is not None
    pid = os.fork()
    if not pid:
        code = 1
        try:
            seconds.deliveries.send(delivery(Alert(0.8, receiver.url("/child")), EVENT))
            code = 0 if seconds.deliveries.flush(WAIT) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [asked.path for asked in receiver.asked] == ["/parent", "/child"]
    seconds.on(due)
    assert seconds.next_due() is None
    assert [asked.path for asked in receiver.asked] == ["/parent", "/child", "/parent"]


PROGRAM = """
import atexit, sys
from tokenbudget_otel.budgets import Amount, Budget, Claim, MemoryLedger
from tokenbudget_otel.budgets.alerting.alert import Alert
from tokenbudget_otel.budgets.alerting.alerts import AlertDesk, Watched

ledger = MemoryLedger()
desk = AlertDesk(ledger.read, ledger.limits, ledger.first)

def spend():
    budget = Budget(limit_calls=1)
    ledger.charge("one", Amount(0, 0), [Claim("k")])
    alerts = [Alert(0.5, url) for url in sys.argv[2:]]
    desk.look(Watched(budget, tuple(alerts), "k", (), None, "lifetime", {}, (None, None, 1), ""))

if sys.argv[1] == "late":
    atexit.register(desk.flush, 2)  # runs before what it is called for, as a provider's shutdown may
    atexit.register(spend)
else:
    spend()
"""


@pytest.mark.parametrize(
    ("when", "more", "says"),
    [("early", ["http://127.0.0.1:1/geheim"], "before 1 alert(s) could be delivered, the first to http://127.0.0.1:1/…"),
     ("late", [], "")],
)  # fmt: skip
def test_a_program_that_ends_delivers_first_and_says_what_it_could_not(
    receiver: Receiver, when: str, more: list[str], says: str
) -> None:
    program = [sys.executable, "-c", PROGRAM, when, receiver.url(), *more]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    assert [asked.path for asked in receiver.asked] == ["/hook/geheim"]
    assert says in done.stderr
    assert bool(done.stderr) == bool(says)
    assert "geheim" not in done.stderr
