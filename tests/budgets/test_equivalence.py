"""P14: whichever ledger is counted in, the same history has the same answers and ends the same."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .budget_ledgers import LEDGERS, Clock
from .ledger_histories import PATIENT, anything, outcome, seen


def side_by_side(history) -> None:
    clock = Clock()
    ledgers = {}
    for name, make in LEDGERS.items():
        with contextlib.suppress(pytest.skip.Exception):  # no server here: the others all the same
            ledgers[name] = make(clock)
    for (operation, arguments), looked_at in [*history, (("expire", ()), True)]:
        if operation == "time":
            clock.on(*arguments)
            continue
        answers = {name: outcome(ledger, operation, *arguments) for name, ledger in ledgers.items()}
        assert answers == dict.fromkeys(answers, answers["memory"]), (operation, arguments)
        if answers["memory"] in ("LedgerConflict", "ValueError", "TypeError"):
            # An error may or may not take back that a few holds which had run out were ended on the way to it.
            for ledger in ledgers.values():
                ledger.expire()
        # To look is to end what has run out, too: not after every step.
        if looked_at:
            states = {name: seen(ledger) for name, ledger in ledgers.items()}
            assert states == dict.fromkeys(states, states["memory"]), (operation, arguments)


HISTORIES = st.lists(st.tuples(anything, st.booleans()), min_size=5, max_size=40)


@settings(PATIENT, max_examples=50)
@given(HISTORIES)
def test_ledgers_answer_alike(history):
    side_by_side(history)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@settings(PATIENT, max_examples=150)
@given(st.lists(st.tuples(anything, st.booleans()), min_size=20, max_size=80))
def test_ledgers_answer_alike_for_long(history):
    side_by_side(history)
