"""The ledgers of several machines: counters in Redis, one script and one round trip for each operation.

What happens when the server loses what it knew (it restarted, it came back empty or as it was some time ago,
another took its place):

1. The store lives in *epochs*, each on one server from when it started to when it ends. Every script first compares
   the epoch with the one its caller knows, and the count of changes (``seq``) with the highest its caller had seen
   when it asked. If one of them does not match, the script does nothing: the store is *cold*.
   That the server has been the same since the epoch began is told by its having the script. The text of a script
   names the ``run_id`` of that server, only the hash of the text is sent, and from Redis 7 on a server that starts has
   no scripts and gets none from another. Whoever is told that there is none asks for the ``run_id`` and sends the text
   to that server only; and a script that was sent as text looks once more, and ends the epoch in the store if it came
   to another server after all. Before Redis 7, which keeps scripts with the data, every script looks at the ``run_id``.
2. Whoever finds it cold begins a new epoch, unless another has. For ``grace`` seconds the store admits nothing
   (:class:`~.ledger.LedgerCold`); what ends or is charged is booked.
3. Every process, whenever it first notices, puts back what it knows: for each key the last amount it saw spent,
   with the ``seq`` it saw it at, and by their ids its own open holds and those that ended lately. Of several amounts
   the one with the highest ``seq`` is *set* as the base of the key, and what the new epoch has added since stays added
   to it: so it makes no difference in which order processes come, how often, or whether they come after the grace.
4. A store without any epoch, met by a process that never saw one, is new: it admits at once. If a process comes
   that knew an earlier one, the store was not new after all, and the grace begins then.

Not recovered: what was spent under keys, and holds, that only processes knew which are gone too; what a process
knows that makes no contact within the grace, until it does (a heartbeat is contact); limits that processes set which
are gone (``set_limits``); marks (``first``), so that an alert may come twice. Of keys and holds, the newest 20,000
a process has used are put back. A hold that ran out, or was settled by another process, in the moments that the store
lost, may be counted twice: never too little because of it.
A server that is restarted loses less with ``appendonly yes``, and everybody's grace is spent the same.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from tokenbudget_otel.budgets.amounts import Amount
from tokenbudget_otel.budgets.ledger import (
    Balance,
    Claim,
    Gone,
    Granted,
    LedgerUnavailable,
    Limits,
    OpenHold,
    Outcome,
    Refused,
)
from tokenbudget_otel.budgets.ledgers.redis_core import LARGEST, REBUILD, RedisCore, Steps, UnfitServer
from tokenbudget_otel.budgets.ledgers.redis_wire import AsyncWire, Command, Wire
from tokenbudget_otel.forks import renew_after_fork

T = TypeVar("T")


class _RedisLedger:
    """What both have in common: how they are made."""

    blocking: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    largest: ClassVar[int] = LARGEST
    """2**53 - 1: nine million dollars, in nano-USD, under each key."""

    def __init__(
        self,
        url_or_client: Any,
        *,
        root: str = "tokenbudget",
        timeout: float = 0.05,
        keep_windows: float = 3600,
        remember: float = 300,
        remember_expired: float = 86_400,
        grace: float = 2,
        clock: Callable[[], float] | None = None,
    ) -> None:
        try:
            import redis
        except ImportError as error:
            raise ModuleNotFoundError(
                "budgets in Redis need the library 'redis': pip install 'tokenbudget-otel[redis]'", name="redis"
            ) from error
        self._given = url_or_client
        self._timeout = timeout
        self._errors = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)
        self._core = RedisCore(
            root=root,
            keep_windows=keep_windows,
            remember=remember,
            remember_expired=remember_expired,
            grace=grace,
            clock=clock,
            missing=redis.exceptions.NoScriptError,
        )
        self._after_fork()
        renew_after_fork(self)
        self._begin()

    def _begin(self) -> None:
        """Nothing, unless the server can be judged at once."""

    def _after_fork(self) -> None:
        self._core.mirror.after_fork()

    def _connect(self, client: Any, retry: Any) -> Any:
        """A client of our own, within the bound, and never trying again behind our back."""
        from redis.backoff import NoBackoff

        return client.from_url(
            self._given,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            retry=retry(NoBackoff(), 0),
        )


class RedisLedger(_RedisLedger):
    """A :class:`~tokenbudget_otel.budgets.ledger.Ledger` in a Redis server, for any number of processes and machines.

    Args:
        url_or_client: ``redis://…``, ``rediss://…``, ``unix://…``; or a ``redis.Redis`` or ``redis.RedisCluster`` of
            your own, whose time-outs and retries are then yours as well.
        root: common part of the names of all keys. Ledgers with the same root are one ledger.
        timeout: seconds to connect, and seconds to wait for an answer.
        keep_windows: seconds to keep a key after its window has ended.
        remember: seconds to remember a hold that was settled or released.
        remember_expired: seconds to remember a hold that ran out, so that a late settle can correct it.
        grace: seconds in which nothing is admitted after the server has lost what it knew, so that processes can put
            it back: see the text of this module.
        clock: seconds since 1970, used instead of the server's time. For tests; all must agree on it.

    Raises:
        ModuleNotFoundError: if the library ``redis`` is not installed.
        ValueError: if the server may evict keys, is a replica or too old; the message names the remedy. A server that
            cannot be reached yet is judged when it first is; every operation fails then if it is found unfit.

    An operation that failed with :class:`~.ledger.LedgerUnavailable` may have been done all the same, and may be
    repeated with its id.

    >>> ledger = RedisLedger("redis://localhost:6379/0")  # doctest: +SKIP
    >>> ledger.reserve("first", [Claim("all", nano_usd=60, limit_nano_usd=100)], ttl=60)  # doctest: +SKIP
    Granted(over=(), replayed=False)
    """

    def _after_fork(self) -> None:
        from redis import Redis
        from redis.retry import Retry

        super()._after_fork()
        self._turn = threading.Lock()
        self._wire = Wire(self._connect(Redis, Retry)) if isinstance(self._given, str) else None

    def _begin(self) -> None:
        try:
            self.check()
        except UnfitServer:
            raise
        except LedgerUnavailable:
            pass  # judged when it is reached

    def check(self) -> None:
        """Reach the server and judge it.

        Raises:
            ValueError: if it would not keep what is counted in it.
            LedgerUnavailable: if it cannot be reached.
        """
        self._run(self._core.check())

    def close(self) -> None:
        """Close the connections, unless they are those of a client that was given."""
        if self._wire is not None:
            self._wire.close()

    def _by_client(self, command: Command) -> Any:
        return self._given.execute_command(*command[0].words, *command[1:])

    def _run(self, steps: Steps[T]) -> T:
        execute = self._wire or self._by_client
        try:
            command = next(steps)
            while True:
                answer = None
                try:
                    if command is not REBUILD:
                        answer = execute(command)
                except self._errors as error:
                    answer = error
                if command is REBUILD:
                    with self._turn:
                        self._run(self._core.rebuild())
                command = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Granted | Refused:
        """See :meth:`.Ledger.reserve`."""
        return self._run(self._core.reserve(hold_id, claims, ttl, on_expiry, owner))

    def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone:
        """See :meth:`.Ledger.extend`."""
        return self._run(self._core.extend(hold_id, step, claims, ttl))

    def renew(self, hold_ids: Sequence[str], ttl: float) -> tuple[str, ...]:
        """See :meth:`.Ledger.renew`."""
        return self._run(self._core.renew(hold_ids, ttl))

    def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.settle`."""
        return self._run(self._core.settle(hold_id, actual, claims, apart))

    def release(self, hold_id: str) -> Outcome:
        """See :meth:`.Ledger.release`."""
        return self._run(self._core.release(hold_id))

    def charge(
        self, entry_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.charge`."""
        return self._run(self._core.book(entry_id, "S", actual, claims, apart))

    def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome:
        """See :meth:`.Ledger.adjust`. No reason is kept."""
        return self._run(self._core.book(entry_id, "A", delta, claims, None))

    def expire(self, at_most: int | None = None) -> tuple[str, ...]:
        """See :meth:`.Ledger.expire`."""
        return self._run(self._core.expire(at_most))

    def balance(self, key: str) -> Balance:
        """See :meth:`.Ledger.balance`."""
        return (self.read((key,)))[0]

    def read(self, keys: Sequence[str]) -> tuple[Balance, ...]:
        """See :meth:`.Ledger.read`."""
        return self._run(self._core.read(keys))

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """See :meth:`.Ledger.balances`."""
        return self._run(self._core.balances(prefix))

    def holds(self, key: str | None = None) -> tuple[OpenHold, ...]:
        """See :meth:`.Ledger.holds`."""
        return self._run(self._core.holds(key))

    def forget(self, keys: Sequence[str]) -> None:
        """See :meth:`.Ledger.forget`."""
        return self._run(self._core.forget(keys))

    def first(self, mark: str, ends: float | None = None) -> bool:
        """See :meth:`.Ledger.first`."""
        return self._run(self._core.first(mark, ends))

    def set_limits(self, policy: str, limits: Limits | None) -> None:
        """See :meth:`.Ledger.set_limits`."""
        return self._run(self._core.set_limits(policy, limits))

    def limits(self) -> Mapping[str, Limits]:
        """See :meth:`.Ledger.limits`."""
        return self._run(self._core.limits())

    def declare(self, name: str, document: str) -> None:
        """See :meth:`.Ledger.declare`."""
        return self._run(self._core.declare(name, document))

    def declared(self) -> Mapping[str, str]:
        """See :meth:`.Ledger.declared`."""
        return self._run(self._core.declared())


class AsyncRedisLedger(_RedisLedger):
    """:class:`RedisLedger` for event loops: an :class:`~tokenbudget_otel.budgets.ledger.AsyncLedger`.

    Takes the same arguments; a client that is given is a ``redis.asyncio.Redis`` or ``RedisCluster``, and belongs to
    one event loop. From a URL it makes a client for each loop that it is used in. The server is judged with the first
    operation, or by :meth:`check`.
    """

    def _after_fork(self) -> None:
        super()._after_fork()
        self._loops: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[Callable[[Command], Awaitable[Any]], asyncio.Lock]
        ] = weakref.WeakKeyDictionary()

    async def check(self) -> None:
        """Reach the server and judge it. See :meth:`RedisLedger.check`."""
        await self._run(self._core.check())

    async def aclose(self) -> None:
        """Close the connections of this event loop, unless they are those of a client that was given."""
        wire, _ = self._loops.pop(asyncio.get_running_loop(), (None, None))
        if isinstance(wire, AsyncWire):
            await wire.aclose()

    async def _by_client(self, command: Command) -> Any:
        return await self._given.execute_command(*command[0].words, *command[1:])

    def _here(self) -> tuple[Callable[[Command], Awaitable[Any]], asyncio.Lock]:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry

            wire = AsyncWire(self._connect(Redis, Retry)) if isinstance(self._given, str) else self._by_client
            here = self._loops[loop] = (wire, asyncio.Lock())
        return here

    async def _run(self, steps: Steps[T]) -> T:
        execute, turn = self._here()
        try:
            command = next(steps)
            while True:
                answer = None
                try:
                    if command is not REBUILD:
                        answer = await execute(command)
                except self._errors as error:
                    answer = error
                if command is REBUILD:
                    async with turn:
                        await self._run(self._core.rebuild())
                command = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Granted | Refused:
        """See :meth:`.Ledger.reserve`."""
        return await self._run(self._core.reserve(hold_id, claims, ttl, on_expiry, owner))

    async def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone:
        """See :meth:`.Ledger.extend`."""
        return await self._run(self._core.extend(hold_id, step, claims, ttl))

    async def renew(self, hold_ids: Sequence[str], ttl: float) -> tuple[str, ...]:
        """See :meth:`.Ledger.renew`."""
        return await self._run(self._core.renew(hold_ids, ttl))

    async def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.settle`."""
        return await self._run(self._core.settle(hold_id, actual, claims, apart))

    async def release(self, hold_id: str) -> Outcome:
        """See :meth:`.Ledger.release`."""
        return await self._run(self._core.release(hold_id))

    async def charge(
        self, entry_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.charge`."""
        return await self._run(self._core.book(entry_id, "S", actual, claims, apart))

    async def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome:
        """See :meth:`.Ledger.adjust`. No reason is kept."""
        return await self._run(self._core.book(entry_id, "A", delta, claims, None))

    async def expire(self, at_most: int | None = None) -> tuple[str, ...]:
        """See :meth:`.Ledger.expire`."""
        return await self._run(self._core.expire(at_most))

    async def balance(self, key: str) -> Balance:
        """See :meth:`.Ledger.balance`."""
        return (await self.read((key,)))[0]

    async def read(self, keys: Sequence[str]) -> tuple[Balance, ...]:
        """See :meth:`.Ledger.read`."""
        return await self._run(self._core.read(keys))

    async def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """See :meth:`.Ledger.balances`."""
        return await self._run(self._core.balances(prefix))

    async def holds(self, key: str | None = None) -> tuple[OpenHold, ...]:
        """See :meth:`.Ledger.holds`."""
        return await self._run(self._core.holds(key))

    async def forget(self, keys: Sequence[str]) -> None:
        """See :meth:`.Ledger.forget`."""
        return await self._run(self._core.forget(keys))

    async def first(self, mark: str, ends: float | None = None) -> bool:
        """See :meth:`.Ledger.first`."""
        return await self._run(self._core.first(mark, ends))

    async def set_limits(self, policy: str, limits: Limits | None) -> None:
        """See :meth:`.Ledger.set_limits`."""
        return await self._run(self._core.set_limits(policy, limits))

    async def limits(self) -> Mapping[str, Limits]:
        """See :meth:`.Ledger.limits`."""
        return await self._run(self._core.limits())

    async def declare(self, name: str, document: str) -> None:
        """See :meth:`.Ledger.declare`."""
        return await self._run(self._core.declare(name, document))

    async def declared(self) -> Mapping[str, str]:
        """See :meth:`.Ledger.declared`."""
        return await self._run(self._core.declared())
