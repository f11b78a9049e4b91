"""Real threads at once on every ledger: each hold ends once (P5), and as many are admitted as fit (P9)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tokenbudget_otel.budgets import Amount, Balance, Claim, Gone, Granted

from .budget_ledgers import LEDGERS, Clock

each_ledger = pytest.mark.parametrize("make", LEDGERS.values(), ids=LEDGERS)

HELD = Claim("k", 50, 5, 1, limit_nano_usd=100)
MORE = Claim("k", 10, limit_nano_usd=100)


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each answers, when all are begun together."""
    start = threading.Barrier(len(acts))
    answers: list[Any] = [None] * len(acts)

    def run(number: int) -> None:
        start.wait()
        try:
            answers[number] = acts[number]()
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@each_ledger
@pytest.mark.parametrize("run_out", [False, True], ids=["alive", "past its time"])
def test_a_hold_ends_once(make, run_out):
    """P5: settled, run out, released, extended and renewed at the same moment, twice each."""
    clock = Clock()
    ledger = make(clock)
    for turn in range(12):
        key = f"k{turn}"
        held, more = HELD._replace(key=key), MORE._replace(key=key)
        ledger.reserve(key, [held], 10)
        clock.on(10 if run_out else 1)
        answers = at_once(
            lambda: ledger.settle(key, Amount(70, 7), [held]),  # noqa: B023 - all are done within this turn
            lambda: ledger.expire(),
            lambda: ledger.extend(key, "x", [more], 20),  # noqa: B023
            lambda: ledger.release(key),  # noqa: B023
            lambda: ledger.renew((key,), 20),  # noqa: B023
            lambda: ledger.settle(key, Amount(70, 7), [held]),  # noqa: B023
            lambda: ledger.extend(key, "x", [more], 20),  # noqa: B023
            lambda: ledger.release(key),  # noqa: B023
        )
        assert not any(isinstance(answer, Exception) for answer in answers), answers
        settled, _, extended, _, renewed, settled_too, extended_too, _ = answers
        # A true amount that is known wins, whatever came first; and it counts once.
        assert ledger.balance(key) == Balance(key, 70, 7, 1)
        assert sorted((settled, settled_too)) in (["done", "replayed"], ["late", "replayed"])
        ends = (
            answers.count("done"),  # of settle or release
            answers.count((key,)) - (renewed == (key,)),  # of expire; renew names what is not open any more
        )
        # Past its time it may have been ended by whoever swept first, and does not say so.
        assert sum(ends) <= 1 if run_out else ends == (1, 0)
        assert renewed in ((), (key,))
        for answer in (extended, extended_too):
            assert isinstance(answer, Granted | Gone)
        assert [extended, extended_too].count(Granted()) <= 1
    clock.on(1000)
    assert ledger.expire() == ()
    assert ledger.holds() == ()
    assert all(balance == Balance(balance.key, 70, 7, 1) for balance in ledger.balances())


@each_ledger
def test_a_hold_that_runs_out_is_charged_once(make):
    """P5: whoever sweeps, and however many do."""
    clock = Clock()
    ledger = make(clock)
    for number in range(40):
        ledger.reserve(str(number), [Claim("k", 5, 1, 1)], number % 3, Amount(3, 1) if number % 2 else None)
    clock.on(2)
    ended = at_once(*[ledger.expire] * 4, *[lambda: ledger.expire(5)] * 2, *[lambda: ledger.balances() and ()] * 2)
    assert len({*sum(ended, ())}) == sum(map(len, ended)) <= 40
    assert ledger.expire() == ()
    assert ledger.balance("k") == Balance("k", 20 * 5 + 20 * 3, 40, 40)


@each_ledger
@pytest.mark.parametrize(("limit", "amount", "threads"), [(100, 7, 8), (39, 1, 6)])
def test_threads_are_admitted_as_long_as_there_is_room(make, limit, amount, threads):
    """P9: exactly floor(limit / amount), whoever comes when, in all keys or none."""
    ledger = make(Clock())
    claims = [Claim("org", amount, 1, 1, limit_nano_usd=limit), Claim("team", amount, 1, 1, limit_tokens=10**6)]
    tries = limit // amount // threads + 3

    def work(number: int) -> Callable[[], int]:
        def admitted() -> int:
            order = claims if number % 2 else claims[::-1]
            return sum(isinstance(ledger.reserve(f"{number} {each}", order, 60), Granted) for each in range(tries))

        return admitted

    fit = limit // amount
    assert sum(at_once(*map(work, range(threads)))) == fit
    assert ledger.balances() == tuple(Balance(key, 0, 0, 0, fit * amount, fit, fit) for key in ("org", "team"))


@each_ledger
def test_a_request_sent_by_many_counts_once(make):
    """P4, with real threads: the same id at the same time."""
    ledger = make(Clock())
    assert sorted(at_once(*[lambda: ledger.reserve("h", [HELD], 60)] * 6)) == sorted(
        [Granted()] + [Granted(replayed=True)] * 5
    )
    assert at_once(*[lambda: ledger.extend("h", "x", [MORE])] * 4).count(Granted()) == 1
    assert ledger.balance("k") == Balance("k", 0, 0, 0, 60, 5, 1)
    assert sorted(at_once(*[lambda: ledger.charge("c", Amount(1), [HELD])] * 4)) == ["done"] + ["replayed"] * 3
    assert sorted(at_once(*[lambda: ledger.adjust("a", Amount(-1, 0, 0), [HELD])] * 4)) == ["done"] + ["replayed"] * 3
    assert at_once(*[lambda: ledger.first("mark")] * 6).count(True) == 1
    assert ledger.balance("k") == Balance("k", 0, 0, 1, 60, 5, 1)
