"""Limits of single scopes: which budgets a scope is counted by, and what replaces their limits there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokenbudget_otel.budgets.declared import Usd, checked_count, checked_usd
from tokenbudget_otel.budgets.ledger import Ledger, Limits
from tokenbudget_otel.budgets.rolling import rolling
from tokenbudget_otel.budgets.rules import Rule
from tokenbudget_otel.money import NANO_PER_USD, to_nano


def limits_of(limit_usd: Usd | None, limit_tokens: int | None, limit_calls: int | None) -> Limits | None:
    """Limits in place of the declared ones; ``None`` where none is given.

    Raises:
        ValueError: for one that cannot be a limit.

    >>> limits_of(50, None, None)
    Limits(nano_usd=50000000000, tokens=None, calls=None)
    """
    usd = checked_usd("limit_usd", limit_usd)
    limits = Limits(
        None if usd is None else to_nano(usd),
        checked_count("limit_tokens", limit_tokens),
        checked_count("limit_calls", limit_calls),
    )
    return None if limits == Limits() else limits


def rules_for(
    rules: Iterable[Rule], scope: str | Mapping[str, str] | None, window: str | None, name: str | None
) -> list[tuple[Rule, dict[str, str]]]:
    """The budgets that a scope is counted by, each with the values of what it is counted by.

    Raises:
        ValueError: if there is none, with what there is.
    """
    rules = list(rules)
    if (span := rolling(window)) is not None:
        window = span.name
    found = []
    for rule in rules:
        if (name is not None and rule.name != name) or (window is not None and rule.budget.window != window):
            continue
        if scope is None or isinstance(scope, Mapping):
            values = {key: str(value) for key, value in (scope or {}).items()}
        elif len(rule.per) == 1:
            values = {rule.per[0]: str(scope)}
        else:
            continue
        if values.keys() == set(rule.per):
            found.append((rule, values))
    if not found:
        wanted = "all calls together" if scope is None else f"{scope!r}"
        also = "".join(
            f" {what} {value!r}" for what, value in (("with window", window), ("named", name)) if value is not None
        )
        known = ", ".join(f"{rule.name!r} (per {'+'.join(rule.per) or 'nothing'})" for rule in rules) or "none"
        raise ValueError(f"no budget{also} counts {wanted} apart; declared: {known}")
    return found


def check_limits(rule: Rule, ledger: Ledger) -> None:
    """Raise for a budget with a limit that is beyond what a ledger counts exactly."""
    check_limit(f"budget {rule.name!r}", Limits(*rule.limits), ledger)


def check_limit(what: str, limits: Limits, ledger: Ledger) -> None:
    """Raise for a limit that is beyond what a ledger counts exactly."""
    for unit, limit in zip(("nano-USD", "tokens", "calls"), limits, strict=True):
        if limit is not None and limit > ledger.largest:
            shown, most = (
                f"${each // NANO_PER_USD:,}" if unit == "nano-USD" else f"{each:,} {unit}"
                for each in (limit, ledger.largest)
            )
            raise ValueError(
                f"{what}: a limit of {shown} is beyond what {type(ledger).__name__} counts exactly, which is up to "
                f"{most}: lower the limit, or leave it out where there is to be none"
            )
