"""`tokenbudget budgets set-limit`: another limit for one scope, while programs run."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import click

from tokenbudget_otel.cli.budgets_source import Source, ledger_option, open_source, reachable, scope_value
from tokenbudget_otel.cli.options import dollars

if TYPE_CHECKING:
    from tokenbudget_otel.budgets import Limits
    from tokenbudget_otel.budgets.rules import Rule

_COUNTED: Final = {"usd": "nano-USD", "tokens": "tokens", "calls": "calls"}


@click.command("set-limit", short_help="Give a budget another limit, at once.")
@click.argument("budget")
@ledger_option
@click.option(
    "--scope",
    type=scope_value,
    multiple=True,
    metavar="NAME=VALUE",
    help="Whose limit, for a budget that counts values apart: tenant=acme. Once for each of them.",
)
@click.option("--usd", type=dollars, metavar="USD", help="The limit in US dollars.")
@click.option("--tokens", type=click.IntRange(min=0), metavar="N", help="The limit in tokens.")
@click.option("--calls", type=click.IntRange(min=0), metavar="N", help="The limit in calls.")
@click.option("--reset", is_flag=True, help="Go back to the declared limits.")
@click.pass_context
def set_limit(
    ctx: click.Context,
    budget: str,
    ledger: str | None,
    scope: tuple[tuple[str, str], ...],
    usd: Decimal | None,
    tokens: int | None,
    calls: int | None,
    reset: bool,
) -> None:
    """Give BUDGET, or one scope of it, another limit: for every process that shares the ledger, from its next call on.

    It holds in all windows to come as well, until it is set anew or --reset. What is spent stays spent; a limit below
    that refuses further calls.

    \b
      tokenbudget budgets set-limit "usd/month per tenant" --scope tenant=acme --usd 80
    """
    from tokenbudget_otel.budgets import Limits
    from tokenbudget_otel.cli import budgets_words as words
    from tokenbudget_otel.money import to_nano

    given = Limits(None if usd is None else to_nano(usd), tokens, calls)
    if reset == (given != Limits()):
        raise click.UsageError("give --usd, --tokens or --calls, or --reset to go back to what is declared")
    source = open_source(ctx, ledger)
    rule = source.rule(budget)
    values = dict(scope)
    try:
        policy = rule.policy(values)
    except ValueError as error:
        raise click.UsageError(f"{error} (--scope name=value)") from None
    for unit, limit, declared in zip(words.UNITS, given, rule.limits, strict=True):
        if limit is not None and declared is None:
            raise click.UsageError(
                f"budget {budget!r} does not limit {unit}: declare limit_{unit} first, which can be changed here then"
            )
        if limit is not None and limit > source.ledger.largest:
            raise click.UsageError(f"{source.address} counts exactly up to {source.ledger.largest:,} {_COUNTED[unit]}")
    with reachable(source.address):
        known = source.limits.get(policy)
        source.ledger.set_limits(policy, None if reset else Limits(*given.effective(known or Limits())))
        _tell(source, rule, values, known)


def _tell(source: Source, rule: Rule, scope: dict[str, str], before: Limits | None) -> None:
    """Print the limits before and after, as the ledger has them, and what is left."""
    from tokenbudget_otel.budgets import Amount, Call, Estimate, Limits
    from tokenbudget_otel.budgets.rules import standing
    from tokenbudget_otel.cli import budgets_words as words

    # A call of that scope, whatever it is that the budget counts apart.
    provider, model, operation, api_key = (
        scope.get(name, "") for name in ("provider", "model", "operation", "api_key")
    )
    call = Call(provider, model, scope, operation=operation, api_key=api_key)
    nothing = Amount(0, 0, 0)
    claim = rule.claim(call, Estimate(nothing, nothing), time.time())
    balance = source.balance(claim)
    was, now = (
        dict[str, Any](standing((limits or Limits()).effective(rule.limits), balance))
        for limits in (before, source.ledger.limits().get(claim.policy))
    )
    click.echo(f"{rule.name} ({words.scope(scope)}), from the next call on:")
    for unit in words.UNITS:
        if f"limit_{unit}" not in now:
            continue
        old, new = (words.amount(values[f"limit_{unit}"], unit) for values in (was, now))
        stands = ", ".join(
            f"{words.amount(now[f'{name}_{unit}'], unit)} {name}" for name in ("spent", "reserved", "remaining")
        )
        click.echo(f"  limit {f'{old} -> {new}' if old != new else f'{new}, as before'}: {stands}")
