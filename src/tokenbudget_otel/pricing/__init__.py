"""What calls cost: a catalog of prices, exact to the nano-USD, with a user's own prices above it.

The catalog ships with the package and is loaded on first use. Money is whole nano-USD inside and
:class:`decimal.Decimal` dollars outside; what is not known is ``None``, never 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenbudget_otel.pricing.book import Explanation, ModelLimits, PriceBook, PriceLine, price_book
from tokenbudget_otel.pricing.cost import Cost, State
from tokenbudget_otel.pricing.overrides import PriceFileError
from tokenbudget_otel.pricing.tariff import Source

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from tokenbudget_otel.pricing.overrides import PriceValue
    from tokenbudget_otel.usage import TokenUsage

__all__ = [
    "Cost",
    "Explanation",
    "ModelLimits",
    "PriceBook",
    "PriceFileError",
    "PriceLine",
    "Source",
    "State",
    "calculate_cost",
    "load_price_file",
    "map_model",
    "price_book",
    "register_model",
]


def calculate_cost(
    model: str,
    usage: TokenUsage,
    provider: str | None = None,
    *,
    at: float | None = None,
    tier: str | None = None,
    batch: bool = False,
) -> Cost | None:
    """What a call cost, or ``None`` if that is not known.

    Args:
        model: as the provider reports it.
        usage: what was used.
        provider: who served it (``openai``, ``azure.ai.openai``, ``aws.bedrock`` …); without one, the
            model's own vendor, where its name leaves no doubt.
        at: when the request was made, in unix seconds; now if ``None``.
        tier: the service tier it was served in (``priority``, ``flex`` …).
        batch: whether it was part of a batch.

    Returns:
        A :class:`Cost` with the amount in nano-USD and USD, its state and its source.

    >>> from tokenbudget_otel.usage import TokenUsage
    >>> usage = TokenUsage(input_tokens=10_000, output_tokens=500, cache_read_tokens=8_000)
    >>> calculate_cost("gpt-4o", usage, provider="openai").usd
    Decimal('0.02')
    >>> calculate_cost("claude-zzz-9", usage) is None
    True
    """
    cost = price_book().cost(provider, model, usage, at=at, tier=tier, batch=batch)
    return None if cost.nano_usd is None else cost


def register_model(
    model: str,
    *,
    provider: str = "custom",
    input_per_1m: PriceValue | None = None,
    output_per_1m: PriceValue | None = None,
    cache_read_per_1m: PriceValue | None = None,
    cache_write_per_1m: PriceValue | None = None,
    free: bool = False,
    tiers: Mapping[str, Mapping[str, PriceValue | None]] | None = None,
    above: Mapping[int, Mapping[str, PriceValue | None]] | None = None,
    context_window: int | None = None,
    max_output_tokens: int | None = None,
    **prices: PriceValue | None,
) -> None:
    """Set the prices of a model, from the next call on. They are above the catalog.

    Args:
        model: the name as the provider will report it; case makes no difference.
        provider: whose model; ``custom`` for this model whoever serves it.
        input_per_1m, output_per_1m, cache_read_per_1m, cache_write_per_1m: US dollars for a million tokens.
            A cached token without a price of its own costs what an input token costs.
        free: the model costs nothing. Prices that are all 0 are refused without it: a model at 0 by
            mistake would never reach a budget.
        tiers: prices in service tiers: ``{"batch": {"input_per_1m": 0.5, "output_per_1m": 2}}``.
        above: prices of calls with more input tokens: ``{200_000: {"input_per_1m": 2.5}}``.
        context_window, max_output_tokens: how much the model takes and gives, in tokens.
        prices: any other price (``reasoning_per_1m``, ``input_audio_per_1m``, ``output_image_each``,
            ``web_searches_per_1k``, ``request_each`` …); docs/pricing.md lists them.

    Raises:
        TypeError: for a price that is not known or is not a number.
        ValueError: for a price that is negative, infinite or NaN; and if there is none.

    >>> from tokenbudget_otel.usage import TokenUsage
    >>> register_model("my-model", input_per_1m=2, output_per_1m="8.50")
    >>> calculate_cost("my-model", TokenUsage(input_tokens=1_000_000, output_tokens=100_000)).usd
    Decimal('2.85')
    >>> price_book().reset()
    """
    price_book().register_model(
        model,
        provider=provider,
        free=free,
        tiers=tiers,
        above=above,
        context_window=context_window,
        max_output_tokens=max_output_tokens,
        input_per_1m=input_per_1m,
        output_per_1m=output_per_1m,
        cache_read_per_1m=cache_read_per_1m,
        cache_write_per_1m=cache_write_per_1m,
        **prices,
    )


def map_model(name: str, model: str, *, provider: str = "custom", model_provider: str | None = None) -> None:
    """Say which model a reported name means: an Azure deployment, an application inference profile.

    Args:
        name: what is reported.
        model: the model it stands for.
        provider: who reports it; ``custom`` for whoever does.
        model_provider: whose price applies; by default that of the provider who reports the name.

    Raises:
        TypeError, ValueError: if a name is not a text or empty.

    >>> from tokenbudget_otel.usage import TokenUsage
    >>> map_model("prod-chat", "gpt-4o", provider="azure.ai.openai")
    >>> calculate_cost("prod-chat", TokenUsage(input_tokens=1000), provider="azure.ai.openai").model
    'gpt-4o'
    >>> price_book().reset()
    """
    price_book().map_model(name, model, provider=provider, model_provider=model_provider)


def load_price_file(path: str | os.PathLike[str]) -> int:
    """Set the prices and names in a TOML or JSON file, from the next call on; docs/pricing.md shows one.

    Args:
        path: a file that ends in ``.toml`` or ``.json``.

    Returns:
        How many entries it has.

    Raises:
        PriceFileError: for whatever is wrong with it, naming file, entry and field. Then nothing changes.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "prices.toml"
    >>> _ = file.write_text('[[model]]\\nmodel = "house-llm"\\ninput_per_1m = 0.2\\noutput_per_1m = 0.6\\n')
    >>> load_price_file(file)
    1
    >>> price_book().reset()
    """
    return price_book().load_price_file(path)
