"""What a call cost, and how surely that is known: :class:`Cost`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from tokenbudget_otel import semconv
from tokenbudget_otel.money import to_usd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from tokenbudget_otel.pricing.card import Card
    from tokenbudget_otel.pricing.tariff import Tariff
    from tokenbudget_otel.usage import TokenUsage

State = Literal["priced", "free", "partial", "stale", "unknown"]
"""How surely a cost is known: see :class:`Cost`."""

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_NOWHERE: Final[Mapping[str, str]] = MappingProxyType({})


class Cost:
    """What one call cost. Cannot be changed.

    ``state`` is one of

    ========= ==========================================================================================
    priced    everything that was reported has a price
    free      the model is explicitly free, or runs on the program's own machine
    partial   part of what was reported has no certain price; ``unpriced`` names it; what has is in the amount
    stale     priced, but by a catalog read longer ago than the price book accepts
    unknown   no price is known: the amount is ``None``, never 0
    ========= ==========================================================================================

    >>> from tokenbudget_otel.pricing import calculate_cost
    >>> from tokenbudget_otel.usage import TokenUsage
    >>> cost = calculate_cost("gpt-4o", TokenUsage(input_tokens=1000, output_tokens=100), at=1_790_000_000)
    >>> cost.usd, cost.state, cost.source
    (Decimal('0.0035'), 'priced', 'genai-prices')
    >>> dict(cost.breakdown)
    {'output': 1000000, 'input': 2500000}
    """

    __slots__ = ("_breakdown", "_card", "_nano_usd", "_state", "_tariff", "_unpriced", "_usage")

    def __init__(
        self,
        nano_usd: int | None,
        state: State,
        tariff: Tariff | None = None,
        card: Card | None = None,
        usage: TokenUsage | None = None,
        unpriced: tuple[str, ...] = (),
    ) -> None:
        self._nano_usd = nano_usd
        self._state: State = state
        self._tariff = tariff
        self._card = card
        self._usage = usage
        self._unpriced = unpriced

    @property
    def nano_usd(self) -> int | None:
        """Nano-USD, rounded up once for the call; ``None`` if unknown."""
        return self._nano_usd

    @property
    def usd(self) -> Decimal | None:
        """US dollars, exactly ``nano_usd``; ``None`` if unknown."""
        return None if self._nano_usd is None else to_usd(self._nano_usd)

    @property
    def state(self) -> State:
        """``priced``, ``free``, ``partial``, ``stale`` or ``unknown``."""
        return self._state

    @property
    def source(self) -> str | None:
        """Who says so: ``genai-prices``, ``litellm``, ``override``, ``file`` or ``provider``; ``None`` if nobody."""
        if self._tariff is not None:
            return self._tariff.entry.source.name
        return None if self._nano_usd is None or self._state == "free" else "provider"

    @property
    def source_version(self) -> str | None:
        """The version of the source; of a price file its name."""
        return None if self._tariff is None else self._tariff.entry.source.version

    @property
    def provenance(self) -> Mapping[str, str]:
        """Where the price is from, as span attributes: ``source``, ``source_version`` and ``model``."""
        if self._tariff is not None:
            return self._tariff.said
        source = self.source
        return _NOWHERE if source is None else {semconv.COST_SOURCE: source}

    @property
    def provider(self) -> str | None:
        """The catalog's name of the provider that priced the call."""
        return None if self._tariff is None else self._tariff.entry.provider

    @property
    def model(self) -> str | None:
        """The catalog's name of the model that priced the call."""
        return None if self._tariff is None else self._tariff.entry.name

    @property
    def tier(self) -> str | None:
        """The service tier whose price was asked for; ``None`` for the standard price."""
        return None if self._tariff is None else self._tariff.tier

    @property
    def by_length(self) -> bool:
        """Whether longer prompts have other prices: then the price of a sum of calls is not the sum of theirs."""
        return self._card is not None and self._card.coefficients is None

    @property
    def unpriced(self) -> tuple[str, ...]:
        """What was reported and has no price of its own: counts, or ``tier:name``."""
        return self._unpriced

    @property
    def breakdown(self) -> Mapping[str, int]:
        """Nano-USD by part (``input``, ``cache_read``, ``output``, ``reasoning``, ``web_searches`` …).

        Each token is in one part, and the parts add up to ``nano_usd``. Worked out when first read.
        """
        try:
            return self._breakdown
        except AttributeError:
            pass
        if self._card is not None and self._usage is not None and self._nano_usd is not None:
            self._breakdown: Mapping[str, int] = MappingProxyType(self._card.parts(self._usage))
        elif self._nano_usd and self.source == "provider":
            self._breakdown = MappingProxyType({"reported": self._nano_usd})
        else:
            self._breakdown = _NOTHING
        return self._breakdown

    def __repr__(self) -> str:
        amount = "unknown" if self._nano_usd is None else f"{self.usd} USD"
        origin = f"{self.provider}/{self.model}" if self._tariff is not None else self.source
        return f"<Cost {amount} {self._state}{f' by {origin} ({self.source})' if origin else ''}>"

    def __eq__(self, other: object) -> bool:
        return self._identity() == other._identity() if isinstance(other, Cost) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return (self._nano_usd, self._state, self.source, self.provider, self.model, self.tier, self._unpriced)
