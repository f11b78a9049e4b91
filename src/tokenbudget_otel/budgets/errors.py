"""What is raised when a budget refuses a call, with everything that explains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Self

from tokenbudget_otel.budgets.ledger import Dimension

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.shortfall import Shortfall


_ARGS: Final[Any] = BaseException.args


class BudgetExceeded(Exception):  # noqa: N818 - the name that users catch
    """A budget had no room for a call, and the call was not sent.

    It carries every field of :class:`Shortfall` as an attribute: ``budget``, ``scope``, ``limit_usd``,
    ``spent_usd``, ``reserved_usd``, ``needed_usd``, ``remaining_usd``, the same in tokens and calls,
    ``resets_at``, ``retry_after``, ``provider``, ``model``, ``tags``; ``partial`` where the call was under way and its
    answer was cut; and the whole of it as ``shortfall``.
    It is no error of a provider: nothing in it (a status code, for example) invites a retry.

    >>> from tokenbudget_otel.budgets import Shortfall
    >>> error = BudgetExceeded(Shortfall(budget="mine", dimension="usd", limit_usd=Decimal(1), needed_usd=Decimal(2),
    ...                                  spent_usd=Decimal(0), reserved_usd=Decimal(0), remaining_usd=Decimal(1)))
    >>> error.limit_usd, error.retry_after
    (Decimal('1'), None)
    >>> print(error)
    Budget 'mine' refused this call to before it was sent: it needs $2.0000, and $1.0000 of the limit of \
$1.0000 is left ($0.0000 spent, $0.0000 reserved by calls in flight). This budget does not reset.
    """

    budget: str
    dimension: Dimension
    scope: Mapping[str, str]
    limit_usd: Decimal | None
    spent_usd: Decimal | None
    reserved_usd: Decimal | None
    needed_usd: Decimal | None
    remaining_usd: Decimal | None
    limit_tokens: int | None
    spent_tokens: int | None
    reserved_tokens: int | None
    needed_tokens: int | None
    remaining_tokens: int | None
    limit_calls: int | None
    spent_calls: int | None
    reserved_calls: int | None
    needed_calls: int | None
    remaining_calls: int | None
    window: str
    resets_at: datetime | None
    retry_after: float | None
    provider: str
    model: str
    tags: Mapping[str, str]
    dry_run: bool
    partial: bool
    unreachable: str

    shortfall: Shortfall

    def __init__(self, shortfall: Shortfall) -> None:
        super().__init__(str(shortfall))
        self.__dict__.update(shortfall.__dict__, shortfall=shortfall)

    @classmethod
    def later(
        cls,
        budget: str,
        scope: Mapping[str, str],
        explain: Callable[[], Shortfall],
        write: Callable[[], str] | None = None,
    ) -> Self:
        """A refusal that is explained when somebody wants to know more of it than budget and scope: a program that is
        over its limit may be told so a thousand times a second, and looks at none of it. ``write`` gives the message
        alone."""
        error = cls.__new__(cls)
        error.__dict__.update(budget=budget, scope=scope, _write=write, _explain=explain)
        return error

    def _explained(self) -> Self:
        if (explain := self.__dict__.get("_explain")) is not None:
            BudgetExceeded.__init__(self, explain())
            self.__dict__.pop("_write", None)
            self.__dict__.pop("_explain", None)  # now, and not before: another thread may want to know as well
        return self

    def __getattr__(self, name: str) -> Any:
        if "_explain" in self.__dict__ and not name.startswith("__"):
            return getattr(self._explained(), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def args(self) -> tuple[Any, ...]:
        """The message, as of any exception."""
        args: tuple[Any, ...] = _ARGS.__get__(self._explained())
        return args

    @args.setter
    def args(self, args: tuple[Any, ...]) -> None:
        _ARGS.__set__(self._explained(), args)

    def __str__(self) -> str:
        write: Callable[[], str] | None = self.__dict__.get("_write")
        if write is not None:
            return write()
        return Exception.__str__(self._explained())

    def __repr__(self) -> str:
        return Exception.__repr__(self._explained())

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.shortfall,)

    @classmethod
    def behind(cls, error: BaseException) -> Self | None:
        """The refusal that ``error`` is, or was made from, or holds among others; ``None`` where there is none.

        For libraries that wrap what they catch (instructor, tenacity, fallbacks that give up with a group of
        errors): it follows causes, contexts that are not suppressed, and exception groups. So an error that was
        raised while a refusal was being handled counts as made from it.

        >>> from tokenbudget_otel.budgets import Shortfall
        >>> try:
        ...     try:
        ...         raise BudgetExceeded(Shortfall(budget="mine", dimension="calls", limit_calls=0, spent_calls=0,
        ...                                        reserved_calls=0, needed_calls=1, remaining_calls=0))
        ...     except Exception as error:
        ...         raise RuntimeError("gave up after 3 attempts") from error
        ... except RuntimeError as error:
        ...     BudgetExceeded.behind(error).budget
        'mine'
        >>> BudgetExceeded.behind(RuntimeError("of its own")) is None
        True
        """
        waiting: list[BaseException] = [error]
        seen: set[int] = set()
        while waiting:
            error = waiting.pop(0)
            if id(error) in seen:  # errors may refer to each other in a circle
                continue
            seen.add(id(error))
            if isinstance(error, cls):
                return error
            came_from = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            waiting += [] if came_from is None else [came_from]
            waiting += error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        return None


class TokenLimitReached(BudgetExceeded):
    """The limit that had no room was one of tokens.

    >>> issubclass(TokenLimitReached, BudgetExceeded)
    True
    """


class UnpricedModel(BudgetExceeded):
    """A budget in US dollars met a call whose price is not known, which it cannot count and so refuses.

    The message names the price to add; ``unpriced="allow"`` on the budget lets such calls through. It is a
    :class:`BudgetExceeded`, so that one ``except`` covers every refusal.

    >>> from tokenbudget_otel.budgets import Shortfall
    >>> print(UnpricedModel(Shortfall(budget="mine", dimension="usd", provider="openai", model="gpt-99")))
    Budget 'mine' refused this call to openai gpt-99 before it was sent: it counts US dollars and the price of \
this model is not known. Add the price with tokenbudget_otel.register_model('gpt-99', input_per_1m=…, \
output_per_1m=…, provider='openai'), or declare the budget with unpriced='allow'.
    """


class BudgetUnreachable(BudgetExceeded):
    """What is left of a budget cannot be known, because the ledger that it is counted in cannot be reached.

    Such a budget refuses (``on_store_error="deny"``), since it may be spent. ``on_store_error="allow"`` or
    ``allow_local(usd=…)`` let calls through meanwhile.

    >>> issubclass(BudgetUnreachable, BudgetExceeded)
    True
    """


def refusal_later(
    dimension: Dimension,
    budget: str,
    scope: Mapping[str, str],
    explain: Callable[[], Shortfall],
    write: Callable[[], str] | None = None,
) -> BudgetExceeded:
    """The same for a shortfall of a known price, which is made when somebody looks at it."""
    return (TokenLimitReached if dimension == "tokens" else BudgetExceeded).later(budget, scope, explain, write)


def refusal(shortfall: Shortfall) -> BudgetExceeded:
    """The error to raise for a shortfall.

    >>> from tokenbudget_otel.budgets import Shortfall
    >>> type(refusal(Shortfall(budget="mine", dimension="usd"))).__name__
    'UnpricedModel'
    """
    if shortfall.unreachable:
        return BudgetUnreachable(shortfall)
    if shortfall.unpriced:
        return UnpricedModel(shortfall)
    return (TokenLimitReached if shortfall.dimension == "tokens" else BudgetExceeded)(shortfall)
