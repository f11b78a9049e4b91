"""Where `tokenbudget budgets` looks: the shared ledger, and which budgets are counted in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from tokenbudget_otel.budgets import Balance, Claim, Ledger, Limits
    from tokenbudget_otel.budgets.config import Config
    from tokenbudget_otel.budgets.rules import Rule

VARIABLE: Final = "TOKENBUDGET_LEDGER"

_NO_LEDGER: Final = f"""\
no ledger to look into: {{why}}. Say where it is with one of
  --ledger sqlite:budgets.db
  {VARIABLE}=redis://localhost:6379/0
  ledger = "sqlite:///var/lib/app/budgets.db"    in tokenbudget.toml
and have the programs count in the same one. Budgets that share no ledger are counted in the memory of each program, \
and only the program itself can show them (tokenbudget_otel.budgets.Enforcer.status)."""

ledger_option: Final = click.option(
    "--ledger",
    metavar="ADDRESS",
    help=f"Where budgets are counted: sqlite:budgets.db, redis://host:6379/0 ... Else {VARIABLE}, or tokenbudget.toml.",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def scope_value(value: str) -> tuple[str, str]:
    """A value that a budget is counted by, as ``name=value``; ``name=`` for calls without the tag.

    >>> scope_value("tenant=acme"), scope_value("tenant=")
    (('tenant', 'acme'), ('tenant', ''))
    """
    name, equals, text = value.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{value!r} is not of the form name=value")
    return name, text


scope_option: Final = click.option(
    "--scope", "scope", type=scope_value, multiple=True, metavar="NAME=VALUE", help="Only this scope: tenant=acme ..."
)


@dataclass
class Source:
    """An open ledger and the budgets that are known to be counted in it.

    Attributes:
        address: where it is, without a password.
        ledger: the ledger.
        config: what is configured here; budgets that no program has declared yet are taken from it.
        rules: the budgets, by name.
        limits: what was put in the place of declared limits, by policy.
        unreadable: names of budgets whose description this version cannot read, and why.
    """

    address: str
    ledger: Ledger
    config: Config
    rules: dict[str, Rule] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Read which budgets there are, and which limits are in force."""
        from tokenbudget_otel.budgets.documents import from_document
        from tokenbudget_otel.budgets.rules import Rule

        with reachable(self.address):
            declared, limits = self.ledger.declared(), self.ledger.limits()
        # What programs have declared is in force; what the file says will be, once a program has read it.
        rules = {budget.name: Rule(budget) for budget in self.config.budgets}
        self.limits = {**self.config.limits, **limits}
        self.unreadable = {}
        for name, document in sorted(declared.items()):
            try:
                rules[name] = Rule(from_document(document))
            except ValueError as error:
                self.unreadable[name] = str(error)
        self.rules = rules

    def rule(self, name: str) -> Rule:
        """The budget of a name.

        Raises:
            click.UsageError: if there is none, saying which there are.
        """
        if (rule := self.rules.get(name)) is not None:
            return rule
        if name in self.unreadable:
            raise click.UsageError(f"the description of budget {name!r} cannot be read: {self.unreadable[name]}")
        known = ", ".join(map(repr, self.rules)) or "none"
        raise click.UsageError(f"there is no budget named {name!r} in {self.address}; known: {known}")

    def own_limits(self, rule: Rule, scope: Mapping[str, str]) -> Limits:
        """The limits that were put in the place of the declared ones for a scope."""
        from tokenbudget_otel.budgets import Limits

        return self.limits.get(rule.policy(scope)) or Limits()

    def balance(self, claim: Claim) -> Balance:
        """What counts against the limits of a claim."""
        from tokenbudget_otel.budgets import Balance

        read = self.ledger.read((claim.key, *claim.older))
        return Balance(claim.key, *(sum(numbers) for numbers in zip(*(each[1:] for each in read), strict=True)))

    def tell_unreadable(self) -> None:
        """Say on stderr which budgets are left out, and why."""
        for name, why in self.unreadable.items():
            click.echo(f"note: budget {name!r} is left out, its description cannot be read: {why}", err=True)


def open_source(ctx: click.Context, address: str | None) -> Source:
    """Open the ledger that the command line, the environment or the configuration names, in this order.

    Raises:
        click.UsageError: if none does, or it is no ledger that others can look into.
        click.ClickException: if it cannot be reached.
    """
    from tokenbudget_otel.budgets.config import load
    from tokenbudget_otel.budgets.ledgers.addresses import without_password

    try:
        config = load()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    address = address or (ctx.parent.params.get("ledger") if ctx.parent else None) or config.ledger
    if not address:
        raise click.UsageError(_NO_LEDGER.format(why="none is named"))
    if address.strip().lower().startswith("memory"):
        raise click.UsageError(_NO_LEDGER.format(why=f"{address!r} is in the memory of each program"))
    source = Source(without_password(address), _opened(address), config)
    ctx.call_on_close(getattr(source.ledger, "close", lambda: None))
    source.read()
    return source


def _opened(address: str) -> Ledger:
    """The ledger at an address, where there is one: looking must not make it."""
    from tokenbudget_otel.budgets.ledgers.addresses import is_sqlite, ledger_at, sqlite_path, without_password

    shown = without_password(address)
    with reachable(shown):
        try:
            if is_sqlite(address) and not sqlite_path(address).exists():
                raise click.ClickException(
                    f"there is no ledger at {shown} yet. The first program that counts there makes it; if one has, "
                    "the address is another."
                )
            return ledger_at(address)
        except (ValueError, ImportError) as error:
            raise click.UsageError(str(error)) from None


@contextmanager
def reachable(address: str) -> Iterator[None]:
    """Turns the failure of a ledger into a message and exit code 1."""
    from tokenbudget_otel.budgets import LedgerUnavailable

    try:
        yield
    except (LedgerUnavailable, OSError) as error:
        raise click.ClickException(f"the ledger at {address} cannot be read: {error}") from None
