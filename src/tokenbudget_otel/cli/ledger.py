"""One ledger for all processes of a run: kept by `tokenbudget run`, asked by the others over a private socket."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final

from tokenbudget_otel.budgets import (
    Amount,
    Balance,
    BudgetExceeded,
    Claim,
    Gone,
    Granted,
    Ledger,
    MemoryLedger,
    OpenHold,
    Refused,
    Shortfall,
)
from tokenbudget_otel.budgets.ledger import Outcome
from tokenbudget_otel.instrumentation.guard import log_once

OPERATIONS: Final = frozenset(
    ("reserve", "extend", "settle", "release", "charge", "adjust", "expire", "balance", "balances", "holds", "forget")
)
_FAMILY: Final = "AF_UNIX"


class BudgetUnreachable(BudgetExceeded):
    """`tokenbudget run`, which keeps the budget of this program, is gone: what is left of it cannot be known, and
    so the call is refused. A :class:`BudgetExceeded` like other refusals."""

    def __init__(self, shortfall: Shortfall) -> None:
        super().__init__(shortfall)
        self.args = (
            f"Budget {shortfall.budget!r} refused this call before it was sent: the `tokenbudget run` that keeps the "
            "budget has ended, so what is left of it is not known. Start the program under `tokenbudget run` again.",
        )


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
        OSError, EOFError: from each operation, when the host is gone.
    """

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
            except (OSError, EOFError):
                self._mine.__dict__.clear()
                if last:
                    raise
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
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None
    ) -> Granted | Refused:
        """See :meth:`.Ledger.reserve`."""
        answer: Granted | Refused = self._ask("reserve", hold_id, tuple(claims), ttl, on_expiry)
        return answer

    def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone:
        """See :meth:`.Ledger.extend`."""
        answer: Granted | Refused | Gone = self._ask("extend", hold_id, step, tuple(claims), ttl)
        return answer

    def settle(self, hold_id: str, actual: Amount, claims: Sequence[Claim] = ()) -> Outcome:
        """See :meth:`.Ledger.settle`."""
        answer: Outcome = self._ask("settle", hold_id, actual, tuple(claims))
        return answer

    def release(self, hold_id: str) -> Outcome:
        """See :meth:`.Ledger.release`."""
        answer: Outcome = self._ask("release", hold_id)
        return answer

    def charge(self, entry_id: str, actual: Amount, claims: Sequence[Claim]) -> Outcome:
        """See :meth:`.Ledger.charge`."""
        answer: Outcome = self._ask("charge", entry_id, actual, tuple(claims))
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
        unreachable: makes the error to raise when the host is gone.
    """

    def __init__(self, prefix: str, host: Ledger, unreachable: Callable[[], BudgetUnreachable]) -> None:
        self._prefix = prefix
        self._host = host
        self._local = MemoryLedger()
        self._unreachable = unreachable

    def _split(self, claims: Sequence[Claim]) -> tuple[list[Claim], list[Claim]]:
        shared = [claim for claim in claims if claim.key.startswith(self._prefix)]
        return shared, [claim for claim in claims if not claim.key.startswith(self._prefix)]

    def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None
    ) -> Granted | Refused:
        """Reserve in both or in none. See :meth:`.Ledger.reserve`."""
        shared, local = self._split(claims)
        here: Granted | Refused = Granted()
        if local:
            here = self._local.reserve(hold_id, local, ttl, on_expiry)
        if isinstance(here, Refused) or not shared:
            return here
        try:
            there = self._host.reserve(hold_id, shared, ttl, on_expiry)
        except (OSError, EOFError):
            self._local.release(hold_id)
            raise self._unreachable() from None
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
        try:
            there = self._host.extend(hold_id, step, shared, ttl)
        except (OSError, EOFError):
            raise self._unreachable() from None
        if isinstance(there, Refused) or (not local and not isinstance(there, Gone)):
            return there
        here = self._local.extend(hold_id, step, local, ttl)
        return there if isinstance(here, Gone) else here

    def settle(self, hold_id: str, actual: Amount, claims: Sequence[Claim] = ()) -> Outcome:
        """See :meth:`.Ledger.settle`."""
        shared, local = self._split(claims)
        here: Outcome = self._local.settle(hold_id, actual, local) if local else "ignored"
        if not shared:
            return here
        return self._tell("settle", hold_id, actual, shared) or here

    def release(self, hold_id: str) -> Outcome:
        """See :meth:`.Ledger.release`."""
        here = self._local.release(hold_id)
        there = self._tell("release", hold_id)
        return there if there not in (None, "ignored") else here

    def charge(self, entry_id: str, actual: Amount, claims: Sequence[Claim]) -> Outcome:
        """See :meth:`.Ledger.charge`."""
        return self._both("charge", entry_id, actual, claims)

    def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome:
        """See :meth:`.Ledger.adjust`."""
        return self._both("adjust", entry_id, delta, claims, reason)

    def expire(self, at_most: int | None = None) -> tuple[str, ...]:
        """See :meth:`.Ledger.expire`. The host sees to its own."""
        return self._local.expire(at_most)

    def balance(self, key: str) -> Balance:
        """See :meth:`.Ledger.balance`."""
        if not key.startswith(self._prefix):
            return self._local.balance(key)
        try:
            return self._host.balance(key)
        except (OSError, EOFError):
            raise self._unreachable() from None

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """See :meth:`.Ledger.balances`."""
        there = self._tell("balances", prefix) if prefix.startswith(self._prefix) or not prefix else ()
        return tuple(sorted((*self._local.balances(prefix), *(there or ()))))

    def holds(self, key: str | None = None) -> tuple[OpenHold, ...]:
        """See :meth:`.Ledger.holds`. Those of this process, and where ``key`` is the run's, of all."""
        if key is not None and key.startswith(self._prefix):
            return self._tell("holds", key) or ()
        return self._local.holds(key)

    def forget(self, keys: Sequence[str]) -> None:
        """See :meth:`.Ledger.forget`. The run's budget is not forgotten: it is not this process's alone."""
        self._local.forget([key for key in keys if not key.startswith(self._prefix)])

    def _both(self, operation: str, entry_id: str, amount: Amount, claims: Sequence[Claim], *more: Any) -> Outcome:
        shared, local = self._split(claims)
        here: Outcome = getattr(self._local, operation)(entry_id, amount, local, *more) if local else "ignored"
        if not shared:
            return here
        return self._tell(operation, entry_id, amount, shared, *more) or here

    def _tell(self, operation: str, *arguments: Any) -> Any:
        """Have the host do something that nobody can refuse; if it is gone, so is whoever would count it."""
        try:
            return getattr(self._host, operation)(*arguments)
        except (OSError, EOFError) as error:
            log_once(f"{operation} at `tokenbudget run`", error)
            return None
