"""Quotes: what requests to one model are estimated at, worked out as far as that can be before a request comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenbudget_otel.usage import TokenUsage

if TYPE_CHECKING:
    from tokenbudget_otel.pricing.book import ModelLimits
    from tokenbudget_otel.pricing.card import Card
    from tokenbudget_otel.pricing.tariff import Tariff

_Levels = tuple[tuple[int, int, int, int], ...]
"""Where a level starts, the fee for a request, and what a token of input and one of output costs."""


class Quote:
    """The prices of estimates for one model, in one tier, for requests that may write to a cache and have other
    modalities or not.

    Args:
        limits: what the model can take and give.
        tariff: what a call is likely billed by; ``None`` where no price is known.
        reachable: every tariff that it may be billed by.
        ttl, text_only: as for :meth:`.PriceBook.bound`.
    """

    __slots__ = ("_plain", "_reachable", "_straight", "_tariff", "_text_only", "_ttl", "_worst", "limits")

    def __init__(
        self,
        limits: ModelLimits,
        tariff: Tariff | None,
        reachable: tuple[Tariff, ...],
        ttl: str | None,
        text_only: bool,
    ) -> None:
        self.limits = limits
        self._tariff = tariff
        self._reachable = reachable
        self._ttl = ttl
        self._text_only = text_only
        self._plain: dict[Card, _Levels | None] = {}
        # Where no price depends on the time, the bounds are of the same cards always.
        self._worst: tuple[tuple[_Levels, int], ...] | None = None
        if reachable and not any(each.dated for each in reachable):
            cards = [each.only for each in reachable if each.only is not None]
            self._worst = tuple((card.dearest(ttl, text_only), card.denominator) for card in cards) or None
        self._straight = self._in_one_go()

    def _in_one_go(self) -> tuple[int, ...] | None:
        """Fee, input, output and denominator of :meth:`expected` and of :meth:`bound`, where each is one formula."""
        if self._worst is None or len(self._worst) != 1 or self._tariff is None or self._tariff.only is None:
            return None
        (worst, denominator), plain = self._worst[0], self._tariff.only.plain()
        if plain is None or len(plain) != 1 or len(worst) != 1 or plain[0][0] or worst[0][0]:
            return None
        return (*plain[0][1:], self._tariff.only.denominator, *worst[0][1:], denominator)

    def amounts(
        self, likely_in: int, likely_out: int, bound_in: int, bound_out: int, at: float, until: float
    ) -> tuple[int | None, int | None]:
        """:meth:`expected` and :meth:`bound` of one request.

        >>> from tokenbudget_otel.pricing import price_book
        >>> price_book().quote("openai", "gpt-4o").amounts(1000, 100, 2000, 500, 1_790_000_000, 1_790_000_600)
        (3500000, 10000000)
        """
        if (straight := self._straight) is not None:
            fee, of_input, of_output, by, worst_fee, of_worst_input, of_worst_output, worst_by = straight
            worst = worst_fee + of_worst_input * bound_in + of_worst_output * bound_out
            return (
                -(-(fee + of_input * likely_in + of_output * likely_out) // by),
                -(-(worst if worst > 0 else 0) // worst_by),
            )
        return self.expected(likely_in, likely_out, at), self.bound(bound_in, bound_out, at, until)

    def expected(self, input_tokens: int, output_tokens: int, at: float) -> int | None:
        """Nano-USD of so many tokens at plain rates, as :meth:`.PriceBook.expected` says."""
        tariff = self._tariff
        if tariff is None:
            return None
        card = tariff.card(at)
        if card is None:
            return 0 if tariff.entry.free else None
        try:
            levels = self._plain[card]
        except KeyError:
            levels = self._plain[card] = card.plain()
        if levels is None:
            return card.price(TokenUsage(input_tokens=input_tokens, output_tokens=output_tokens))[0]
        _, fixed, of_input, of_output = levels[0]
        if len(levels) > 1:
            for start, more_fixed, of_more_input, of_more_output in levels:
                if input_tokens <= start:
                    break
                fixed, of_input, of_output = more_fixed, of_more_input, of_more_output
        return -(-(fixed + of_input * input_tokens + of_output * output_tokens) // card.denominator)

    def bound(
        self, input_tokens: int, output_tokens: int, at: float, until: float, extra: TokenUsage | None = None
    ) -> int | None:
        """The most nano-USD of a call within these counts, as :meth:`.PriceBook.bound` says."""
        if self._tariff is None:
            return None
        most = -1
        if self._worst is not None and extra is None:
            for levels, denominator in self._worst:
                amount = 0
                for start, fixed, of_input, of_output in levels:
                    if start and input_tokens <= start:
                        break
                    amount = max(amount, fixed + of_input * input_tokens + of_output * output_tokens)
                most = max(most, -(-amount // denominator))
        else:
            for tariff in self._reachable:
                for card in tariff.cards(at, until):
                    most = max(most, card.ceiling(input_tokens, output_tokens, self._ttl, self._text_only, extra))
        if most < 0:
            return 0 if self._tariff.entry.free else None
        return most
