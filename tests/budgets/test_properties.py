"""What every ledger promises, one property after the other (docs/ledger-properties.md has the list).

Those that hold after any history are also in the state machine of test_ledger_contract.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Amount, Balance, Claim, Granted, Limits, Refused

from .budget_ledgers import LEDGERS, Clock
from .ledger_histories import KEYS, PATIENT, anything, booking, claims, every_byte, outcome, seen, through

EXAMPLES = settings(PATIENT, max_examples=20)

each_ledger = pytest.mark.parametrize("make", LEDGERS.values(), ids=LEDGERS)
histories = st.lists(anything, max_size=12)
NO_ROOM = Claim("full", nano_usd=1, limit_nano_usd=0, policy="its own")


@each_ledger
@EXAMPLES
@given(histories, st.permutations([NO_ROOM, Claim("a", 3, 4, 1), Claim("never used", 1), Claim("b", calls=1)]))
def test_a_refusal_leaves_every_byte_as_it_was(make, history, asked):
    """P3."""
    clock = Clock()
    ledger = through(make(clock), clock, history)
    ledger.reserve("open", [Claim("a", 5, policy="its own"), Claim("full", 0)], 60)
    ledger.balances()  # what has run out has ended by now
    before = every_byte(ledger)
    assert "open" in str(before)  # it does tell
    assert isinstance(ledger.reserve("refused", asked, 60, Amount(1), "me"), Refused)
    assert isinstance(ledger.extend("open", "x", [Claim("a", 1), NO_ROOM], 600), Refused)
    for error in (
        outcome(ledger, "reserve", "open", [Claim("a", 6)], 60),
        outcome(ledger, "charge", "open", Amount(1), [Claim("a")]),
        outcome(ledger, "adjust", "open", Amount(1), [Claim("a")]),
        outcome(ledger, "extend", "open", "x", [Claim("strange", 1)], 600),
        outcome(ledger, "reserve", "new", [Claim("a", 1), Claim("a", 2)], 60),
        outcome(ledger, "reserve", "new", [Claim("a", 1), Claim("b", 1.0)], 60),
        outcome(ledger, "charge", "new", Amount(-1), [Claim("a")]),
    ):
        assert error in ("LedgerConflict", "ValueError", "TypeError")
    assert every_byte(ledger) == before


@each_ledger
@EXAMPLES
@given(st.lists(booking, max_size=12), st.data())
def test_repeating_changes_nothing(make, history, data):
    """P4: each operation once, or several times, at once and much later, in whatever order the repetitions come."""
    once, often = make(clock := Clock()), make(clock)
    repeatable = []
    for operation, arguments in history:
        answer = outcome(once, operation, *arguments)
        assert outcome(often, operation, *arguments) == answer
        if answer in ("done", "late") or (isinstance(answer, Granted) and not answer.replayed):
            repeatable.append((operation, arguments))
            if data.draw(st.booleans()):
                again = outcome(often, operation, *arguments)
                assert again == "replayed" or again == Granted(replayed=True) or operation == "extend"
        for operation, arguments in data.draw(st.lists(st.sampled_from(repeatable), max_size=3)) if repeatable else ():
            outcome(often, operation, *arguments)
        assert seen(often) == seen(once)


@each_ledger
@EXAMPLES
@given(st.integers(0, 12), st.integers(1, 60), st.data())
def test_as_many_are_admitted_as_fit(make, fit, amount, data):
    """P9, and P8 at its end: not one fewer than the limit has room for, whatever was given back meanwhile."""
    ledger = make(Clock())
    claim = Claim("k", amount, limit_nano_usd=fit * amount + data.draw(st.integers(0, amount - 1)))
    granted = [isinstance(ledger.reserve(str(i), [claim], 60), Granted) for i in range(fit + 2)]
    assert granted == [True] * fit + [False] * 2
    back = data.draw(st.sets(st.integers(0, fit - 1))) if fit else set()
    for number in back:
        ledger.release(str(number))
    granted = [isinstance(ledger.reserve(f"again {i}", [claim], 60), Granted) for i in range(fit + 1)]
    assert sum(granted) == len(back)


@each_ledger
@EXAMPLES
@given(histories, claims, st.integers(0, 50), st.sampled_from(["declared", "set", "share"]), st.booleans())
def test_raising_a_limit_never_refuses(make, history, asked, more, how, extending):
    """P11: in whatever way it is raised."""

    def raised(claim: Claim) -> Claim:
        if how == "share":
            return claim._replace(per_mille=1000)
        up = [limit if limit is None else limit + more * (how == "declared") for limit in claim[4:7]]
        return claim._replace(limit_nano_usd=up[0], limit_tokens=up[1], limit_calls=up[2])

    def ask(better: bool) -> bool:
        clock = Clock()
        ledger = through(make(clock), clock, history)
        ledger.reserve("open", [Claim(claim.key) for claim in asked], 60)
        if how == "set":
            ledger.set_limits("p", Limits(40 + more * better, 30 + more * better, 3 + more * better))
        wanted = [raised(claim) if better else claim for claim in asked]
        if extending:
            return isinstance(ledger.extend("open", "raised", wanted), Granted)
        return isinstance(ledger.reserve("raised", wanted, 60), Granted)

    assert ask(better=False) <= ask(better=True)


@each_ledger
@EXAMPLES
@given(histories, claims, st.data())
def test_order_and_repetition_of_claims_do_not_matter(make, history, asked, data):
    """P12."""
    straight, shuffled = (through(make(clock), clock, history) for clock in (Clock(), Clock()))
    order = data.draw(st.permutations([*asked, *asked[: data.draw(st.integers(0, 4))]]))
    for operation, one, other in (
        ("reserve", ("new", asked, 60), ("new", order, 60)),
        ("reserve", ("new", order, 60), ("new", asked, 60)),
        ("extend", ("new", "x", asked), ("new", "x", order)),
        ("settle", ("other", Amount(7), asked), ("other", Amount(7), order)),
        ("charge", ("charged", Amount(None, 3), asked), ("charged", Amount(None, 3), order)),
    ):
        first, second = outcome(straight, operation, *one), outcome(shuffled, operation, *other)
        if isinstance(first, Refused):
            assert isinstance(second, Refused)
            assert set(first.shortages) == set(second.shortages)
        elif isinstance(first, Granted):
            assert (set(first.over), first.replayed) == (set(second.over), second.replayed)
        else:
            assert first == second
        assert seen(straight)[:2] == seen(shuffled)[:2]


@each_ledger
@EXAMPLES
@given(histories, st.data())
def test_whole_numbers_only(make, history, data):
    """P18: no float enters, none comes out, and large numbers are as exact as small ones."""
    clock = Clock()
    ledger = through(make(clock), clock, history)
    before = seen(ledger)
    wrong = data.draw(st.sampled_from([1.0, 0.5, 1e300, float("nan"), float("inf")]))
    claim = data.draw(st.sampled_from([Claim("a", wrong), Claim("a", tokens=wrong), Claim("a", calls=wrong)]))
    for operation, arguments in (
        ("reserve", ("f", [Claim("b", 1), claim], 60)),
        ("extend", ("f", "x", [claim])),
        ("settle", ("f", Amount(1), [claim])),
        ("charge", ("f", Amount(1), [claim])),
        ("adjust", ("f", Amount(1), [claim])),
    ):
        assert outcome(ledger, operation, *arguments) == "TypeError"
    for build in (lambda: Amount(wrong), lambda: Amount(1, wrong), lambda: Amount(1, 1, wrong)):
        with pytest.raises(TypeError):
            build()
    assert seen(ledger) == before
    large = [data.draw(st.integers(0, ledger.largest // 4)) for _ in range(3)]
    key = Claim("large", policy="its own")
    ledger.reserve("large", [key._replace(nano_usd=large[0], tokens=large[1], calls=1)], 60)
    ledger.extend("large", "x", [key._replace(nano_usd=large[1], tokens=large[0])])
    ledger.charge("charged", Amount(large[2], large[0]), [key])
    both = large[0] + large[1]
    assert ledger.balance("large") == Balance("large", large[2], large[0], 1, both, both, 1)
    refused = ledger.reserve("refused", [key._replace(nano_usd=1, limit_nano_usd=0)], 60)
    assert refused.shortages[0].balance == Balance("large", large[2], large[0], 1, both, both, 1)
    ledger.settle("large", Amount(large[1], large[2]))
    ledger.adjust("adjusted", Amount(-large[0], 1, 0), [key])
    assert ledger.balance("large") == Balance("large", large[2] + large[1] - large[0], large[0] + large[2] + 1, 2)
    for balance in ledger.read([*KEYS, "large"]):
        assert all(type(number) is int for number in balance[1:])
    for hold in ledger.holds():
        assert all(type(number) is int for claim in hold.claims for number in claim[1:4])
