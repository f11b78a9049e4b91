"""One ledger for all processes of a run: kept by `tokenbudget run`, asked by the others over a private socket."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, ClassVar, Final

from tokenbudget_otel.budgets import (
    Amount,
    Balance,
    Claim,
    Gone,
    Granted,
    Ledger,
    LedgerUnavailable,
    Limits,
    MemoryLedger,
    OpenHold,
    Refused,
)
from tokenbudget_otel.budgets.ledger import Outcome

OPERATIONS: Final = frozenset(
    ("reserve", "extend", "renew", "settle", "release", "charge", "adjust", "expire", "balance", "read", "balances",
     "holds", "forget", "first", "set_limits", "limits", "declare", "declared")
)  # fmt: skip
_FAMILY: Final = "AF_UNIX"
_GONE: Final = "The `tokenbudget run` that keeps it has ended. Start the program under `tokenbudget run` again."


class LedgerHost:
    """Answers the operations of a ledger on a socket, a thread for each connection.

    Only processes that know the key get in; the socket is in a folder that only its user can enter.
    """

    def __init__(self, socket: Path, key: bytes, ledger: Ledger) -> None:
        self._ledger = ledger
        self._listener = Listener(str(socket), _FAMILY, backlog=128, authkey=key)
        threading.Thread(target=self._accept, name="tokenbudget-ledger", daemon=True).start()

    def close(self) -> None:
        """Take no further connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            except Exception as error:  # a stranger without the key, or a process that died while it knocked
                logging.getLogger("tokenbudget_otel").debug("refused a connection to the ledger: %s", error)
                continue
            threading.Thread(target=self._serve, args=(connection,), name="tokenbudget-ledger", daemon=True).start()

    def _serve(self, connection: Connection[Any, Any]) -> None:
        with connection:
            while True:
                try:
                    operation, arguments = connection.recv()
                except (EOFError, OSError):
                    return
                try:
                    if operation not in OPERATIONS:
                        raise ValueError(f"a ledger has no operation {operation!r}")
                    answer = (True, getattr(self._ledger, operation)(*arguments))
                except Exception as error:
                    answer = (False, error)
                try:
                    connection.send(answer)
                except OSError:
                    return


class RemoteLedger:
    """The ledger behind a socket. Safe for threads and for forked processes: each has a connection of its own.

    Every operation may be sent twice, since ledgers know what they have done by its id: so a connection that
    broke is made again once.

    Raises:
        LedgerUnavailable: from each operation, when the host is gone.
    """

    blocking: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    largest: ClassVar[int] = MemoryLedger.largest

    def __init__(self, socket: Path, key: bytes) -> None:
        self._socket = str(socket)
        self._key = key
        self._forget_connections()
        os.register_at_fork(after_in_child=self._forget_connections)

    def _forget_connections(self) -> None:
        self._mine = threading.local()

    def _ask(self, operation: str, *arguments: Any) -> Any:
        for last in (False, True):
            try:
                connection = self._connection()
                connection.send((operation, arguments))
                done, answer = connection.recv()
            except (OSError, EOFError) as error:
                self._mine.__dict__.clear()
                if last:
                    raise LedgerUnavailable(_GONE) from error
                continue
            if done:
                return answer
            raise answer
        raise AssertionError("unreachable")

    def _connection(self) -> Connection[Any, Any]:
        mine = self._mine.__dict__
        connection: Connection[Any, Any] | None = mine.get("connection")
        if connection is not None and mine["inode"] != _inode(connection.fileno()):
            # The program closed all descriptors, and something of its own may be here now. Not ours to close.
            connection._handle = None  # type: ignore[attr-defined]
            connection = None
        if connection is None:
            connection = Client(self._socket, _FAMILY, authkey=self._key)
            mine.update(connection=connection, inode=_inode(connection.fileno()))
        return connection

    def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Granted | Refused:
        """See :meth:`.Ledger.reserve`."""
        answer: Granted | Refused = self._ask("reserve", hold_id, tuple(claims), ttl, on_expiry, owner)
        return answer

    def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone:
        """See :meth:`.Ledger.extend`."""
        answer: Granted | Refused | Gone = self._ask("extend", hold_id, step, tuple(claims), ttl)
        return answer

    def renew(self, hold_ids: Sequence[str], ttl: float) -> tuple[str, ...]:
        """See :meth:`.Ledger.renew`."""
        answer: tuple[str, ...] = self._ask("renew", tuple(hold_ids), ttl)
        return answer

    def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.settle`."""
        answer: Outcome = self._ask("settle", hold_id, actual, tuple(claims), apart)
        return answer

    def release(self, hold_id: str) -> Outcome:
        """See :meth:`.Ledger.release`."""
        answer: Outcome = self._ask("release", hold_id)
        return answer

    def charge(
        self, entry_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.charge`."""
        answer: Outcome = self._ask("charge", entry_id, actual, tuple(claims), apart)
        return answer

    def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome:
        """See :meth:`.Ledger.adjust`."""
        answer: Outcome = self._ask("adjust", entry_id, delta, tuple(claims), reason)
        return answer

    def expire(self, at_most: int | None = None) -> tuple[str, ...]:
        """See :meth:`.Ledger.expire`."""
        answer: tuple[str, ...] = self._ask("expire", at_most)
        return answer

    def balance(self, key: str) -> Balance:
        """See :meth:`.Ledger.balance`."""
        answer: Balance = self._ask("balance", key)
        return answer

    def read(self, keys: Sequence[str]) -> tuple[Balance, ...]:
        """See :meth:`.Ledger.read`."""
        answer: tuple[Balance, ...] = self._ask("read", tuple(keys))
        return answer

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """See :meth:`.Ledger.balances`."""
        answer: tuple[Balance, ...] = self._ask("balances", prefix)
        return answer

    def holds(self, key: str | None = None) -> tuple[OpenHold, ...]:
        """See :meth:`.Ledger.holds`."""
        answer: tuple[OpenHold, ...] = self._ask("holds", key)
        return answer

    def forget(self, keys: Sequence[str]) -> None:
        """See :meth:`.Ledger.forget`."""
        self._ask("forget", tuple(keys))

    def first(self, mark: str, ends: float | None = None) -> bool:
        """See :meth:`.Ledger.first`."""
        answer: bool = self._ask("first", mark, ends)
        return answer

    def set_limits(self, policy: str, limits: Limits | None) -> None:
        """See :meth:`.Ledger.set_limits`."""
        self._ask("set_limits", policy, limits)

    def limits(self) -> Mapping[str, Limits]:
        """See :meth:`.Ledger.limits`."""
        answer: Mapping[str, Limits] = self._ask("limits")
        return answer

    def declare(self, name: str, document: str) -> None:
        """See :meth:`.Ledger.declare`."""
        self._ask("declare", name, document)

    def declared(self) -> Mapping[str, str]:
        """See :meth:`.Ledger.declared`."""
        answer: Mapping[str, str] = self._ask("declared")
        return answer


def _inode(file: int) -> int | None:
    try:
        return os.fstat(file).st_ino
    except OSError:
        return None


class RunLedger:
    """The ledger of one process of a run: keys of the run's budget are counted by the host for all processes,
    the others (budgets that the program itself declares) here, as they would be without us.

    Args:
        prefix: what the keys of the run's budget begin with.
        host: where those are counted.
        local: where the others are; in the memory of this process by default.
    """

    blocking: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    largest: ClassVar[int] = MemoryLedger.largest

    def __init__(self, prefix: str, host: Ledger, local: Ledger | None = None) -> None:
        self._prefix = prefix
        self._host = host
        self._local: Ledger = MemoryLedger() if local is None else local

    def _split(self, claims: Sequence[Claim]) -> tuple[list[Claim], list[Claim]]:
        shared = [claim for claim in claims if claim.key.startswith(self._prefix)]
        return shared, [claim for claim in claims if not claim.key.startswith(self._prefix)]

    def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Granted | Refused:
        """Reserve in both or in none. See :meth:`.Ledger.reserve`."""
        shared, local = self._split(claims)
        here: Granted | Refused = Granted()
        if local:
            here = self._local.reserve(hold_id, local, ttl, on_expiry, owner)
        if isinstance(here, Refused) or not shared:
            return here
        try:
            there = self._host.reserve(hold_id, shared, ttl, on_expiry, owner)
        except LedgerUnavailable:
            self._local.release(hold_id)
            raise
        if isinstance(there, Refused):
            self._local.release(hold_id)
            return there
        return Granted(here.over + there.over, there.replayed)

    def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone:
        """Ask the host first: what it grants and this process has no room for stays reserved until the call ends,
        which is too much rather than too little. See :meth:`.Ledger.extend`."""
        shared, local = self._split(claims)
        there = self._host.extend(hold_id, step, shared, ttl)
        if isinstance(there, Refused) or (not local and not isinstance(there, Gone)):
            return there
        here = self._local.extend(hold_id, step, local, ttl)
        return there if isinstance(here, Gone) else here

    def renew(self, hold_ids: Sequence[str], ttl: float) -> tuple[str, ...]:
        """See :meth:`.Ledger.renew`. A hold is gone where it is open in neither."""
        return tuple(set(self._host.renew(hold_ids, ttl)) & set(self._local.renew(hold_ids, ttl)))

    def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.settle`."""
        return self._both("settle", hold_id, actual, claims, apart)

    def release(self, hold_id: str) -> Outcome:
        """See :meth:`.Ledger.release`."""
        here = self._local.release(hold_id)
        there = self._host.release(hold_id)
        return here if there == "ignored" else there

    def charge(
        self, entry_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.charge`."""
        return self._both("charge", entry_id, actual, claims, apart)

    def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome:
        """See :meth:`.Ledger.adjust`."""
        return self._both("adjust", entry_id, delta, claims, reason)

    def expire(self, at_most: int | None = None) -> tuple[str, ...]:
        """See :meth:`.Ledger.expire`. The host sees to its own."""
        return self._local.expire(at_most)

    def balance(self, key: str) -> Balance:
        """See :meth:`.Ledger.balance`."""
        return self._of(key).balance(key)

    def read(self, keys: Sequence[str]) -> tuple[Balance, ...]:
        """See :meth:`.Ledger.read`. Those of the run's budget are of one moment, and the others too."""
        there = [key for key in keys if key.startswith(self._prefix)]
        found = dict(zip(there, self._host.read(there) if there else (), strict=True))
        return tuple(found[key] if key in found else self._local.balance(key) for key in keys)

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """See :meth:`.Ledger.balances`."""
        there = self._host.balances(prefix) if prefix.startswith(self._prefix) or not prefix else ()
        return tuple(sorted((*self._local.balances(prefix), *there)))

    def holds(self, key: str | None = None) -> tuple[OpenHold, ...]:
        """See :meth:`.Ledger.holds`. Those of this process, and where ``key`` is the run's, of all."""
        return (self._local if key is None else self._of(key)).holds(key)

    def forget(self, keys: Sequence[str]) -> None:
        """See :meth:`.Ledger.forget`. The run's budget is not forgotten: it is not this process's alone."""
        self._local.forget([key for key in keys if not key.startswith(self._prefix)])

    def first(self, mark: str, ends: float | None = None) -> bool:
        """See :meth:`.Ledger.first`."""
        return self._host.first(mark, ends)

    def set_limits(self, policy: str, limits: Limits | None) -> None:
        """See :meth:`.Ledger.set_limits`. The run's own limit is not the program's to change."""
        self._local.set_limits(policy, limits)

    def limits(self) -> Mapping[str, Limits]:
        """See :meth:`.Ledger.limits`."""
        return self._local.limits()

    def declare(self, name: str, document: str) -> None:
        """See :meth:`.Ledger.declare`."""
        self._local.declare(name, document)

    def declared(self) -> Mapping[str, str]:
        """See :meth:`.Ledger.declared`."""
        return self._local.declared()

    def _of(self, key: str) -> Ledger:
        return self._host if key.startswith(self._prefix) else self._local

    def _both(self, operation: str, entry_id: str, amount: Amount, claims: Sequence[Claim], *more: Any) -> Outcome:
        """In this process first, which does not fail: if the host cannot be reached, doing both again does no harm."""
        shared, local = self._split(claims)
        here: Outcome = getattr(self._local, operation)(entry_id, amount, local, *more) if local else "ignored"
        if not shared:
            return here
        there: Outcome = getattr(self._host, operation)(entry_id, amount, shared, *more)
        return there
