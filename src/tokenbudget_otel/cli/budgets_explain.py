"""`tokenbudget budgets explain`: which budgets count a call, and what they would say to it now."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from tokenbudget_otel.cli.budgets_source import Source, json_option, ledger_option, open_source, reachable
from tokenbudget_otel.cli.options import price_file, tag

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tokenbudget_otel.budgets import Amount, Balance, Call, Claim, Estimate
    from tokenbudget_otel.budgets.rules import Rule
    from tokenbudget_otel.meter import Request

_SAYS: Final = {
    "room": "has room",
    "warn": "has no room, and only warns",
    "dry_run": "would refuse it, but for the dry run",
    "shrink": "has no room: shortens the answer if that helps, otherwise refuses",
    "degrade": "has it asked of {cheaper} instead",
    "wait": "has no room: waits up to {seconds:g} s for it, then refuses",
    "refuse": "refuses it",
}
"""What a budget can say to a call."""

_CHANGES: Final = ("shrink", "degrade", "wait")
_NUMBERS: Final = ("needed", "limit", "spent", "reserved", "remaining")


class Verdict(NamedTuple):
    """What one budget says to a call.

    Attributes:
        rule: the budget.
        claim: what the call needs of it, with the limits in force.
        needs: the same amount; ``nano_usd`` is ``None`` where the price is not known.
        balance: what counts against the limits.
        word: a key of ``_SAYS``.
        unpriced: whether that is so because the price is not known.
        room_at: from when on there is room; ``None`` where waiting does not help, or there is room.
        model: the model that is asked for.
    """

    rule: Rule
    claim: Claim
    needs: Amount
    balance: Balance
    word: str
    unpriced: bool
    room_at: datetime | None
    model: str

    def __str__(self) -> str:
        text = _SAYS[self.word].format(cheaper=self.rule.cheaper(self.model), seconds=self.rule.max_wait)
        return f"{text}: the price is not known" if self.unpriced else text

    def figures(self) -> Mapping[str, Any]:
        """Needed, limit, spent, reserved and remaining, in each unit that the budget limits."""
        from tokenbudget_otel.budgets.rules import standing

        return standing(self.claim[4:7], self.balance, self.needs)


class Explanation(NamedTuple):
    """What all budgets say to a call; ``not_counted_by`` says why the others say nothing."""

    request: Request
    estimate: Estimate
    verdicts: Sequence[Verdict]
    not_counted_by: Mapping[str, str]

    @property
    def refusing(self) -> list[Verdict]:
        """Those that refuse it."""
        return [each for each in self.verdicts if each.word == "refuse"]

    @property
    def admitted(self) -> bool | None:
        """Whether it is sent; ``None`` where it would have to be changed, or to wait, for that."""
        return False if self.refusing else None if any(each.word in _CHANGES for each in self.verdicts) else True

    @property
    def retry_at(self) -> datetime | None:
        """When all that refuse it have room; ``None`` where waiting does not help, or none refuses."""
        moments = [each.room_at for each in self.refusing]
        known = [moment for moment in moments if moment is not None]
        return max(known) if known and len(known) == len(moments) else None


@click.command("explain", short_help="Which budgets count a call, and what they would say to it.")
@click.argument("call_id", required=False)
@ledger_option
@click.option("--provider", help="Who serves it; else the model's vendor.")
@click.option("--model", help="The model that is asked for.")
@click.option("--operation", default="chat", show_default=True, help="What kind of call it is.")
@click.option("--api-key", default="", metavar="MARK", help="The API key, as budgets per api_key show it.")
@click.option("--tag", "tags", type=tag, multiple=True, metavar="NAME=VALUE", help="A tag; as many as the call has.")
@click.option("--input-tokens", type=click.IntRange(min=0), metavar="N", help="How long the request is.")
@click.option("--output-tokens", type=click.IntRange(min=0), metavar="N", help="How long the answer is likely to be.")
@click.option("--max-output-tokens", type=click.IntRange(min=1), metavar="N", help="How long the answer may be.")
@price_file
@json_option
@click.pass_context
def explain(
    ctx: click.Context,
    call_id: str | None,
    ledger: str | None,
    provider: str | None,
    model: str | None,
    operation: str,
    api_key: str,
    tags: tuple[tuple[str, str], ...],
    input_tokens: int | None,
    output_tokens: int | None,
    max_output_tokens: int | None,
    price_files: tuple[Path, ...],  # noqa: ARG001 - read when they were checked
    as_json: bool,
) -> None:
    """Which budgets count such a call and which do not, what it would need, what is left, and what they would say.

    Reserves nothing and changes nothing. With CALL_ID: what the call of this id, in flight, reserves.
    Exits with 1 if the call would be refused.

    \b
      tokenbudget budgets explain --model gpt-5 --tag tenant=acme --input-tokens 2000 --max-output-tokens 4000
    """
    from tokenbudget_otel.meter import Request, Size

    size = Size(
        input_tokens or 0,
        input_tokens or 0,
        max_output_tokens=max_output_tokens or output_tokens,
        expected_output_tokens=output_tokens,
        untold=input_tokens is None and output_tokens is None and max_output_tokens is None,
    )
    if model is None and not size.untold:
        raise click.UsageError("say of which --model: what tokens cost depends on it")
    source = open_source(ctx, ledger)
    if call_id is not None:
        _explain_hold(source, call_id, as_json)
        return
    source.tell_unreadable()
    now = time.time()
    provider = provider or _vendor(model)
    request = Request(provider, model or "", operation, lambda: size, at=now, tags=dict(tags), api_key=api_key)
    with reachable(source.address):
        found = explanation(source, request)
    if as_json:
        click.echo(json.dumps({"ledger": source.address, **_plain(found)}, indent=2))
    else:
        _show(found)
    sys.exit(1 if found.refusing else 0)


def explanation(source: Source, request: Request) -> Explanation:
    """What the budgets of a ledger would say to a request. Only reads."""
    from tokenbudget_otel.budgets import Call, Enforcer
    from tokenbudget_otel.meter import Meter

    # Counts in memory, so that nothing is declared anywhere; the meter asks it which prices are to be assumed.
    enforcer = Enforcer(rule.budget for rule in source.rules.values())
    estimate = Meter(enforcer=enforcer)._estimate(request)
    call = Call(
        request.provider, request.model, request.tags, operation=request.operation or None, api_key=request.api_key
    )
    verdicts = [
        _verdict(source, rule, call, estimate, request.at) for rule in source.rules.values() if rule.applies(call)
    ]
    reasons = {name: why_not(rule, call) for name, rule in source.rules.items() if not rule.applies(call)}
    return Explanation(request, estimate, verdicts, reasons)


def _verdict(source: Source, rule: Rule, call: Call, estimate: Estimate, now: float) -> Verdict:
    from tokenbudget_otel.budgets.ledger import Shortage
    from tokenbudget_otel.budgets.remedies import seconds_to_room
    from tokenbudget_otel.budgets.steps import Direct, run

    claims = [each.under(source.limits.get(each.policy)) for each in rule.claims(call, estimate, now)]
    whole = claims[-1]  # before it, of a budget that degrades early, the same on a share of the limit
    balance = source.balance(whole)
    needs = rule.amount(estimate)
    unpriced = rule.denies_unpriced and needs.nano_usd is None
    room_at = None
    if unpriced or Shortage(whole, balance).dimensions:
        word = _word(rule, call, unpriced)
        if not unpriced:
            seconds = run(seconds_to_room(rule, Shortage(whole, balance), now), Direct(source.ledger))
            room_at = None if seconds is None else rule.resets_at(now + seconds)
    else:
        word = "degrade" if any(Shortage(each, balance).dimensions for each in claims) else "room"
    return Verdict(rule, whole, needs, balance, word, unpriced, room_at, call.model)


def _word(rule: Rule, call: Call, unpriced: bool) -> str:
    """What a budget does that has no room."""
    if rule.budget.dry_run:
        return "dry_run"
    helps = {
        "warn": True,
        "degrade": rule.cheaper(call.model) is not None,
        "shrink": not unpriced,
        "wait": not unpriced,
    }
    return rule.action if helps.get(rule.action) else "refuse"


def why_not(rule: Rule, call: Call) -> str:
    """Why a budget does not count a call.

    >>> from tokenbudget_otel.budgets import Budget, Call
    >>> from tokenbudget_otel.budgets.rules import Rule
    >>> why_not(Rule(Budget(limit_usd=1, match={"tenant": "a*"})), Call("openai", "gpt-5", {"tenant": "globex"}))
    "tenant is 'globex', and it counts 'a*'"
    """
    from tokenbudget_otel.budgets.patterns import test_of
    from tokenbudget_otel.budgets.rules import fact

    return "; ".join(
        f"{name} is {value!r}, and it counts {pattern!r}"
        if value
        else f"the call has no {name}, and it counts {pattern!r}"
        for name, pattern in rule.budget.match.items()
        if not test_of(name, pattern)(value := fact(call, name))
    )


def _vendor(model: str | None) -> str:
    from tokenbudget_otel.pricing import price_book

    found = None if model is None else price_book().explain(None, model)
    return "" if found is None else found.provider


def _show(found: Explanation) -> None:
    from tokenbudget_otel.cli import budgets_words as words
    from tokenbudget_otel.cli.budgets_table import empty_table
    from tokenbudget_otel.cli.tables import console

    request = found.request
    tags = ", ".join(f"{name}={value}" for name, value in request.tags.items())
    click.echo(f"{' '.join(filter(None, (request.operation, request.provider, request.model)))}, {tags or 'no tags'}")
    if request.size().untold:
        click.echo("of unknown size: asks only whether any room is left (--input-tokens, --max-output-tokens)")
    else:
        likely, most = (
            words.amounts((each.nano_usd, each.tokens, each.calls))
            for each in (found.estimate.expected, found.estimate.worst_case)
        )
        click.echo(f"needs {likely}" + (f"; at most {most}" if likely != most else ""))
    table = empty_table("budget", "counted under", "needs", "left", "verdict")
    for each in found.verdicts:
        at = words.place(each.claim.key)
        units = words.standing(each.figures(), _NUMBERS)
        table.add_row(
            each.rule.name,
            f"{each.rule.window_id(each.claim.key)}{f', {words.scope(at.scope)}' if at.scope else ''}",
            "\n".join(_written(unit, numbers["needed"]) for unit, numbers in units.items()),
            "\n".join(
                f"{_written(unit, numbers['remaining'])} of {_written(unit, numbers['limit'])}"
                for unit, numbers in units.items()
            ),
            str(each),
            style="red" if each.word == "refuse" else "yellow" if each.word != "room" else None,
        )
    if found.verdicts:
        console().print(table)
    else:
        click.echo("No budget counts it.")
    for name, why in found.not_counted_by.items():
        click.echo(f"not counted by {name!r}: {why}")
    click.echo(_conclusion(found))


def _written(unit: str, value: Any) -> str:
    from decimal import Decimal

    from tokenbudget_otel.cli.budgets_words import amount

    return amount(Decimal(value) if isinstance(value, str) else value, unit)


def _conclusion(found: Explanation) -> str:
    from tokenbudget_otel.cli.budgets_words import when

    if found.admitted:
        return "Would be sent."
    deciding = found.refusing or [each for each in found.verdicts if each.word in _CHANGES]
    names = ", ".join(repr(each.rule.name) for each in deciding)
    if not found.refusing:
        return f"Would be sent if what {names} can do makes it fit."
    room = "waiting does not help" if found.retry_at is None else f"room from {when(found.retry_at, found.request.at)}"
    return f"Would be refused by {names}: {room}."


def _plain(found: Explanation) -> dict[str, Any]:
    from tokenbudget_otel.cli import budgets_words as words
    from tokenbudget_otel.money import to_usd

    def needs(amount: Amount) -> dict[str, Any]:
        usd = None if amount.nano_usd is None else words.plain(to_usd(amount.nano_usd))
        return {"usd": usd, "tokens": amount.tokens, "calls": amount.calls}

    request, estimate = found.request, found.estimate
    told = not request.size().untold
    return {
        "call": {
            "provider": request.provider or None,
            "model": request.model or None,
            "operation": request.operation,
            "tags": dict(request.tags),
        },
        "needs": {"expected": needs(estimate.expected), "worst_case": needs(estimate.worst_case)} if told else None,
        "admitted": found.admitted,
        "refused_by": [each.rule.name for each in found.refusing],
        "retry_at": None if found.retry_at is None else found.retry_at.isoformat(),
        "budgets": [
            {
                "budget": each.rule.name,
                "scope": dict(words.place(each.claim.key).scope),
                "key": each.claim.key,
                "mode": each.rule.mode,
                **words.standing(each.figures(), _NUMBERS),
                "verdict": each.word,
                "unpriced": each.unpriced,
                "room_at": None if each.room_at is None else each.room_at.isoformat(),
            }
            for each in found.verdicts
        ],
        "not_counted_by": dict(found.not_counted_by),
    }


def _explain_hold(source: Source, call_id: str, as_json: bool) -> None:
    """What a call in flight reserves, and how the budgets stand that it is counted in."""
    from tokenbudget_otel.cli import budgets_holds, budgets_table
    from tokenbudget_otel.cli.budgets_words import place
    from tokenbudget_otel.cli.tables import console

    with reachable(source.address):
        # The name of a hold begins with that of its call, which the call's span carries.
        holds = source.ledger.holds()
        hold = next((hold for hold in holds if call_id in (hold.id, hold.id.rpartition("-")[0])), None)
        if hold is None:
            raise click.ClickException(
                f"no call in flight has the id {call_id!r} in {source.address}: it has ended, or is counted elsewhere. "
                "`tokenbudget budgets holds` lists those in flight."
            )
        places = [place(claim.key) for claim in hold.claims]
        rows = [
            row
            for row in budgets_table.statuses(source, time.time())
            if any(row.budget == at.budget and dict(row.scope) == dict(at.scope) for at in places)
        ]
    if as_json:
        click.echo(json.dumps({**budgets_table.plain(source, rows), "hold": budgets_holds.plain(hold)}, indent=2))
    else:
        budgets_holds.show([hold])
        console().print(budgets_table.view(source, rows, None))
