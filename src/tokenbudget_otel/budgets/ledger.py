"""The contract of ledgers: where reservations and spending are counted.

A ledger knows neither budgets nor windows nor prices. It counts vectors of integers (nano-USD, tokens,
calls) under keys, all keys of a request or none, and remembers each request by its id so that sending it
again changes nothing. Requests and answers are plain data, so that a ledger can live in this process, in a
file, or in a server: :mod:`.ledgers.memory` is the first, and every ledger passes the same suite of tests
(``tests/budgets/``).

What always holds, for every key: ``reserved`` is the sum of what open holds reserve, ``spent`` the sum of
what was settled, charged and adjusted, and

    spent + reserved <= limit + sum of max(0, actual - reserved) over settled holds + charges nobody reserved
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal, NamedTuple, Protocol

from tokenbudget_otel.budgets.amounts import Amount

Dimension = Literal["usd", "tokens", "calls"]
"""What a limit can be counted in."""

Outcome = Literal["done", "late", "replayed", "ignored"]
"""How an operation on a hold ended.

``done``: as asked. ``late``: the hold was not open any more (it had run out, was released, or was never
known), and the amount was booked all the same. ``replayed``: it had been done before, nothing changed.
``ignored``: there was nothing to do it to.
"""


class LedgerConflict(ValueError):  # noqa: N818 - says what it is
    """An id was used again for something else. Ids are unique; only the very same request may be repeated."""


class LedgerUnavailable(Exception):  # noqa: N818 - says what it is
    """The place where a ledger is kept cannot be reached, is full, read-only or broken: nothing is known and, as far
    as can be told, nothing was counted. What was asked may be asked again with the same id."""


class LedgerCold(LedgerUnavailable):
    """The place where a ledger is kept has lost what it knew (it came back empty, or as it was some time ago).
    Whatever it says is less than was spent, so it admits nothing until it has been rebuilt."""


class Limits(NamedTuple):
    """The limits of one scope of a budget that replace the declared ones; ``None``: as declared.

    >>> Limits(nano_usd=50).effective((7, None, 3))
    (50, None, 3)
    """

    nano_usd: int | None = None
    tokens: int | None = None
    calls: int | None = None

    def effective(
        self, declared: tuple[int | None, int | None, int | None]
    ) -> tuple[int | None, int | None, int | None]:
        """The limits in force, given those that are declared."""
        nano_usd, tokens, calls = declared
        return (
            nano_usd if self.nano_usd is None else self.nano_usd,
            tokens if self.tokens is None else self.tokens,
            calls if self.calls is None else self.calls,
        )


class Claim(NamedTuple):
    """What one request asks of one key.

    Args:
        key: what is counted: a budget, a scope of it and a window, in one string.
        nano_usd, tokens, calls: how much to reserve (or, for ``charge`` and ``settle`` of a hold that the
            ledger does not know, under which key to book).
        limit_nano_usd, limit_tokens, limit_calls: the limits as they are now; ``None`` for no limit. They
            travel with each request and are not stored, so that a change applies with the next call.
        hard: whether passing a limit refuses the request, or is only reported.
        ends: when the window of the key ends, in seconds since 1970; ``None`` for never. Some time after that
            the ledger may forget the key.
        older: further keys whose spending and reservations count against the limits as well: the earlier parts of
            a rolling window. Nothing is booked in them.
        policy: the name under which :meth:`Ledger.set_limits` may have put other limits.
        per_mille: how much of the limits this claim may fill, in thousandths.
        fallback: the limits that hold in this process alone while the ledger cannot be reached; ``None``: the
            request is refused then. No ledger looks at it (:mod:`.remote.failover` does).

    >>> Claim("month|2026-11", 5, limit_nano_usd=10).tokens
    0
    """

    key: str
    nano_usd: int = 0
    tokens: int = 0
    calls: int = 0
    limit_nano_usd: int | None = None
    limit_tokens: int | None = None
    limit_calls: int | None = None
    hard: bool = True
    ends: float | None = None
    older: tuple[str, ...] = ()
    policy: str = ""
    per_mille: int = 1000
    fallback: tuple[int | None, int | None, int | None] | None = None

    def under(self, limits: Limits | None) -> Claim:
        """The claim with the limits that are in force: those set for its policy, and its share of them. For ledgers,
        once: the share of a share is not what is meant.

        >>> Claim("k", 5, limit_nano_usd=10, per_mille=800).under(Limits(nano_usd=100)).limit_nano_usd
        80
        """
        if limits is None and self.per_mille == 1000:
            return self
        declared = self[4:7] if limits is None else limits.effective(self[4:7])
        mine = [each if each is None else each * self.per_mille // 1000 for each in declared]
        return self._replace(limit_nano_usd=mine[0], limit_tokens=mine[1], limit_calls=mine[2])


class Balance(NamedTuple):
    """What is spent and reserved under a key."""

    key: str
    spent_nano_usd: int = 0
    spent_tokens: int = 0
    spent_calls: int = 0
    reserved_nano_usd: int = 0
    reserved_tokens: int = 0
    reserved_calls: int = 0


class Shortage(NamedTuple):
    """A claim for which its key had no room, and what the key stood at, the older ones added.

    The limits in the claim are those that were in force (:meth:`Claim.under`).
    """

    claim: Claim
    balance: Balance

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """In what there was no room.

        >>> Shortage(Claim("k", 5, 5, limit_nano_usd=4, limit_tokens=5), Balance("k")).dimensions
        ('usd',)
        """
        return tuple(
            dimension
            for dimension, limit, needed, spent, reserved in zip(
                DIMENSIONS, self.claim[4:7], self.claim[1:4], self.balance[1:4], self.balance[4:7], strict=True
            )
            if limit is not None and needed and spent + reserved + needed > limit
        )


DIMENSIONS: Final[tuple[Dimension, ...]] = ("usd", "tokens", "calls")


class Granted(NamedTuple):
    """Everything that was asked for is reserved.

    ``over`` names the soft claims whose limit is passed by it; ``replayed`` that it had been granted before.
    """

    over: tuple[Shortage, ...] = ()
    replayed: bool = False


class Refused(NamedTuple):
    """Nothing was reserved, nothing changed. ``shortages`` names every hard claim that had no room."""

    shortages: tuple[Shortage, ...]


class Gone(NamedTuple):
    """The hold to extend is not open; ``state`` says what became of it (``None``: the ledger does not know it)."""

    state: Literal["settled", "released", "expired"] | None


class OpenHold(NamedTuple):
    """A reservation in force. Times in seconds since 1970, by the ledger's clock; ``owner`` is what ``reserve`` was
    told. Of each claim a ledger need only keep the key and the amounts."""

    id: str
    claims: tuple[Claim, ...]
    created: float
    expires: float
    owner: str = ""


class Ledger(Protocol):
    """What every ledger can do. Each operation is atomic, and repeating it with its id changes nothing.

    All operations raise :class:`LedgerConflict` when an id comes again with other amounts, ``TypeError`` for
    amounts that are not whole numbers and ``ValueError`` for negative ones (but for ``adjust``) and for numbers
    beyond :attr:`largest`; :class:`LedgerUnavailable` where the ledger is kept elsewhere and cannot be asked. The
    order of claims does not matter; a key that is claimed twice for the same amounts is counted once.
    """

    blocking: ClassVar[bool]
    """Whether an operation may wait for a disk or a network. Then an event loop does not call it directly."""

    shared: ClassVar[bool]
    """Whether other processes may count in it too: then holds are short and kept alive by a heartbeat."""

    largest: ClassVar[int]
    """The largest number it counts exactly. Limits beyond it are refused when they are declared."""

    def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Granted | Refused:
        """Reserve every claim, or none.

        A claim has room where ``spent + reserved + needed <= limit`` in each dimension it has a limit for and
        needs something of: what is free is never refused for lack of money. Spent and reserved are those of its key
        and of its older keys; the limit is the one in force (:meth:`Claim.under`).

        Args:
            hold_id: unique name of the hold. A refused request is not remembered and may be tried again.
            claims: what is needed of which key.
            ttl: seconds until the hold runs out, by the ledger's clock, unless settled before.
            on_expiry: what each key is charged when it runs out; ``None`` for all that is reserved (and so a
                ``nano_usd`` of ``None`` for all money that is reserved). ``Amount(0, 0, 0)`` charges nothing.
            owner: who holds it, for people to read.
        """
        ...

    def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone:
        """Reserve more for an open hold, all or nothing, and let it live ``ttl`` seconds from now.

        ``step`` names this extension among those of the hold; without claims it is a sign of life.
        """
        ...

    def renew(self, hold_ids: Sequence[str], ttl: float) -> tuple[str, ...]:
        """Let holds live ``ttl`` seconds from now (never shorter than before). Which of them are not open any more."""
        ...

    def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """End a hold and record the true amount in every key of it, also past the limit.

        Args:
            hold_id: the hold.
            actual: what the call came to; where ``nano_usd`` is ``None``, what is reserved counts as spent.
            claims: the claims of the hold, for a ledger that does not know it (any more): it charges them.
            apart: the keys in which another amount than ``actual`` is recorded: those that count tokens of one
                type only, for example.

        A hold that has run out is corrected by the difference to what it was charged.
        """
        ...

    def release(self, hold_id: str) -> Outcome:
        """End a hold of a call that surely was not billed. What its running out had charged is taken back."""
        ...

    def charge(
        self, entry_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """Record what nobody reserved, in one step. Never refused."""
        ...

    def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome:
        """Correct what is spent by ``delta``, which may be negative (an invoice, a result that came later)."""
        ...

    def expire(self, at_most: int | None = None) -> tuple[str, ...]:
        """End holds that have run out, and say which. ``reserve`` does this too, a few at a time."""
        ...

    def balance(self, key: str) -> Balance:
        """What a key stands at; all zeros for one never used."""
        ...

    def read(self, keys: Sequence[str]) -> tuple[Balance, ...]:
        """What several keys stand at, at one moment, in the order asked."""
        ...

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """What every key stands at whose name begins so, in the order of their names."""
        ...

    def holds(self, key: str | None = None) -> tuple[OpenHold, ...]:
        """Every open hold (that claims ``key``), the oldest first."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """Drop keys that nobody will use again; those with open holds as soon as the last one ends.

        Used again all the same, a key begins at zero: what a hold that had run out is corrected by later would then
        be taken from what it did not add.
        """
        ...

    def first(self, mark: str, ends: float | None = None) -> bool:
        """Whether nobody asked this of ``mark`` before; remembered until ``ends`` at least. For what is to be done
        once by all processes together, such as an alert."""
        ...

    def set_limits(self, policy: str, limits: Limits | None) -> None:
        """Put other limits in the place of those that claims of ``policy`` bring, for everybody who shares the
        ledger, from the next request on. ``None`` takes them away again. They do not end with any window."""
        ...

    def limits(self) -> Mapping[str, Limits]:
        """Every policy that has other limits than those declared."""
        ...

    def declare(self, name: str, document: str) -> None:
        """Keep a description of a budget (JSON) for those who look at the ledger from outside. The last one counts."""
        ...

    def declared(self) -> Mapping[str, str]:
        """The descriptions kept, by name."""
        ...


class AsyncLedger(Protocol):
    """:class:`Ledger` for an event loop: the same operations with the same meaning, to be awaited."""

    async def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Granted | Refused: ...
    async def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone: ...
    async def renew(self, hold_ids: Sequence[str], ttl: float) -> tuple[str, ...]: ...
    async def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Outcome: ...
    async def release(self, hold_id: str) -> Outcome: ...
    async def charge(
        self, entry_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None = None
    ) -> Outcome: ...
    async def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome: ...
    async def expire(self, at_most: int | None = None) -> tuple[str, ...]: ...
    async def balance(self, key: str) -> Balance: ...
    async def read(self, keys: Sequence[str]) -> tuple[Balance, ...]: ...
    async def balances(self, prefix: str = "") -> tuple[Balance, ...]: ...
    async def holds(self, key: str | None = None) -> tuple[OpenHold, ...]: ...
    async def forget(self, keys: Sequence[str]) -> None: ...
    async def first(self, mark: str, ends: float | None = None) -> bool: ...
    async def set_limits(self, policy: str, limits: Limits | None) -> None: ...
    async def limits(self) -> Mapping[str, Limits]: ...
    async def declare(self, name: str, document: str) -> None: ...
    async def declared(self) -> Mapping[str, str]: ...


LARGEST: Final = 2**63 - 1
"""The largest number that any ledger counts."""


def distinct(claims: Sequence[Claim]) -> Sequence[Claim]:
    """Each key once. What a ledger counts, while it checks the limits of every claim.

    Raises:
        LedgerConflict: if one key is claimed for two different amounts.
        TypeError, ValueError: for amounts that are not whole numbers of at least zero, and for those beyond
            :data:`LARGEST`.

    >>> [claim.key for claim in distinct([Claim("a", 1), Claim("b", 2), Claim("a", 1)])]
    ['a', 'b']
    """
    for _, nano_usd, tokens, calls, *_limits in claims:
        if type(nano_usd + tokens + calls) is not int:
            raise TypeError(f"a ledger counts in whole numbers, not {claims!r}")
        if nano_usd < 0 or tokens < 0 or calls < 0:
            raise ValueError(f"a ledger cannot reserve less than nothing: {claims!r}")
        if nano_usd > LARGEST or tokens > LARGEST or calls > LARGEST:
            raise ValueError(f"a ledger cannot count beyond {LARGEST:,}: {claims!r}")
    if len(claims) < 2 or len({claim[0] for claim in claims}) == len(claims):
        return claims
    unique: dict[str, Claim] = {}
    for claim in claims:
        if unique.setdefault(claim.key, claim)[1:4] != claim[1:4]:
            raise LedgerConflict(f"one request claims {claim.key!r} for two different amounts")
    return tuple(unique.values())


def checked_delta(delta: Amount) -> None:
    """Raise for a correction that no ledger can count.

    Raises:
        ValueError: for a number beyond :data:`LARGEST`, in either direction.

    >>> checked_delta(Amount(-5))
    """
    if max(abs(delta.nano_usd or 0), abs(delta.tokens), abs(delta.calls)) > LARGEST:
        raise ValueError(f"a ledger cannot count beyond {LARGEST:,}: {delta!r}")


def checked(actual: Amount, apart: Mapping[str, Amount] | None = None) -> None:
    """Raise for what a call cannot come to.

    Raises:
        ValueError: for a negative number, and one beyond :data:`LARGEST`.

    >>> checked(Amount(-1))
    Traceback (most recent call last):
    ...
    ValueError: a call cannot come to less than nothing: Amount(nano_usd=-1, tokens=0, calls=1)
    """
    nano_usd, tokens, calls = actual
    if not apart and 0 <= (nano_usd or 0) <= LARGEST and 0 <= tokens <= LARGEST and 0 <= calls <= LARGEST:
        return
    for each in (actual, *(apart or {}).values()):
        if (each.nano_usd or 0) < 0 or each.tokens < 0 or each.calls < 0:
            raise ValueError(f"a call cannot come to less than nothing: {each!r}")
        if max(each.nano_usd or 0, each.tokens, each.calls) > LARGEST:
            raise ValueError(f"a ledger cannot count beyond {LARGEST:,}: {each!r}")


def payload(claims: Sequence[Claim]) -> dict[str, tuple[int, int, int]]:
    """What makes two requests the same: keys and amounts; neither their order nor the limits.

    A ledger that stores a hash instead hashes the sorted items of this.

    >>> payload([Claim("b", 2), Claim("a", 1)]) == payload([Claim("a", 1, limit_nano_usd=9), Claim("b", 2)])
    True
    """
    return {claim.key: claim[1:4] for claim in claims}
