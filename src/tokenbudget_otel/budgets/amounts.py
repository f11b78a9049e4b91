"""What a call is, and what it needs: the words that the meter and the budgets speak with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from opentelemetry.context import Context


class _Amount(NamedTuple):
    nano_usd: int | None
    tokens: int = 0
    calls: int = 1


class Amount(_Amount):
    """So much money, so many tokens, so many calls.

    Args:
        nano_usd: cost in nano-USD, a whole number; ``None`` where the price is not known (which is not zero).
        tokens: input and output tokens together.
        calls: how many calls; 1 for a call that is sent.

    Raises:
        TypeError: for anything that is not a whole number. No float enters a ledger.

    >>> Amount(3_500_000, 1200)
    Amount(nano_usd=3500000, tokens=1200, calls=1)
    """

    __slots__ = ()

    def __new__(cls, nano_usd: int | None, tokens: int = 0, calls: int = 1) -> Self:
        made = _new(cls, (nano_usd, tokens, calls))
        # A sum of integers is an integer, and one float in it makes it a float: one test for three numbers.
        if type((nano_usd or 0) + tokens + calls) is not int:
            raise TypeError(f"an amount is counted in whole numbers, not {made!r}")
        return made


_new: Final = tuple.__new__


COUNTED: Final = 2**53 - 1
"""The largest number that every ledger counts exactly: nine million dollars, in nano-USD."""


def counted(nano_usd: int | None, tokens: int, calls: int = 1) -> Amount:
    """An amount that every ledger can count. No call comes to more than :data:`COUNTED`: a request for so many tokens,
    or an answer that claims them, is wrong, and no limit has room for it.

    >>> counted(3_500_000, 10**30)
    Amount(nano_usd=3500000, tokens=9007199254740991, calls=1)
    """
    if type(nano_usd) is int and type(tokens) is int and calls == 1 and nano_usd <= COUNTED and tokens <= COUNTED:
        return _new(Amount, (nano_usd, tokens, 1))
    return Amount(nano_usd if nano_usd is None else min(nano_usd, COUNTED), min(tokens, COUNTED), min(calls, COUNTED))


class Estimate(NamedTuple):
    """What a call may come to, before it is sent.

    Args:
        expected: the likely amount. What budgets of mode ``expected`` reserve.
        worst_case: an upper bound. What budgets of mode ``worst_case`` reserve.
        input: the part that is spent as soon as the request is read, whatever comes back; for holds that
            run out under ``on_expiry="charge_input"``.
        input_tokens: how many of the tokens are input, likely and at most; ``None`` where that is not told.
        assumed: the same two amounts at the dearest prices of the provider, where the price is not known and a
            budget is to assume those.

    >>> Estimate(expected=Amount(2_000_000, 500), worst_case=Amount(9_000_000, 4096)).worst_case.tokens
    4096
    """

    expected: Amount
    worst_case: Amount
    input: Amount | None = None
    input_tokens: tuple[int, int] | None = None
    assumed: tuple[Amount, Amount] | None = None

    def amount(self, mode: str) -> Amount:
        """The amount that a budget of ``mode`` reserves.

        >>> Estimate(Amount(2, 500), Amount(9, 4096)).amount("worst_case").nano_usd
        9
        """
        return self.expected if mode == "expected" else self.worst_case

    def tokens_of(self, token_type: str, mode: str) -> int:
        """How many tokens of a type a budget of ``mode`` reserves: those read from or written to a cache may be
        all of the input, those of reasoning all of the output.

        >>> Estimate(Amount(2, 500), Amount(9, 4096), input_tokens=(400, 1096)).tokens_of("output", "worst_case")
        3000
        """
        tokens = self.amount(mode).tokens
        if token_type == "all" or self.input_tokens is None:
            return tokens
        read = self.input_tokens[mode != "expected"]
        return tokens - read if token_type in ("output", "reasoning") else read


_NO_TAGS: Final[Mapping[str, str]] = {}


class Call(NamedTuple):
    """One call, as budgets see it: who makes it, to which model.

    Args:
        provider: name of the provider, as in ``gen_ai.provider.name``.
        model: name of the model that is asked for.
        tags: the tags in force (:func:`tokenbudget_otel.tags.current_tags`).
        context: the OpenTelemetry context the call is made in; ``None`` for the current one.
        operation: ``chat``, ``embeddings`` …, where known.
        api_key: what tells the API key from others without giving it away: its last four characters and a few digits
            of its hash; ``""`` where it is not known.

    >>> Call("openai", "gpt-5", {"tenant": "acme"}).model
    'gpt-5'
    """

    provider: str
    model: str
    tags: Mapping[str, str] = _NO_TAGS
    context: Context | None = None
    operation: str | None = None
    api_key: str = ""
