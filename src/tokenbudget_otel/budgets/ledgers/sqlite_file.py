"""The file of a ledger: connections that are opened when needed, and one transaction at a time."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from tokenbudget_otel.budgets.ledger import LedgerUnavailable
from tokenbudget_otel.forks import around_fork

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
except ImportError:  # Windows: no queue; who waits tries again and again
    flock = None  # type: ignore[assignment]

SCHEMA: Final = 1
"""What ``user_version`` says of a file that this code reads and writes."""
_APPLICATION: Final = 0x746F_6B42  # "tokB"

_TABLES: Final = """
-- What each key stands at, and how many open holds refer to it. Kept until `dropped` (null: for ever).
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY,
    spent_nano_usd INTEGER NOT NULL DEFAULT 0,
    spent_tokens INTEGER NOT NULL DEFAULT 0,
    spent_calls INTEGER NOT NULL DEFAULT 0,
    reserved_nano_usd INTEGER NOT NULL DEFAULT 0,
    reserved_tokens INTEGER NOT NULL DEFAULT 0,
    reserved_calls INTEGER NOT NULL DEFAULT 0,
    holds INTEGER NOT NULL DEFAULT 0,
    doomed INTEGER NOT NULL DEFAULT 0,
    dropped REAL,
    -- A sum that is too large would go on in floating point.
    CHECK (typeof(spent_nano_usd + reserved_nano_usd) = 'integer'
        AND typeof(spent_tokens + reserved_tokens) = 'integer'
        AND typeof(spent_calls + reserved_calls) = 'integer')
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_dropped ON keys (dropped) WHERE dropped IS NOT NULL;
CREATE INDEX IF NOT EXISTS keys_doomed ON keys (doomed) WHERE doomed = 1;

-- Holds, and what became of them. `due`: when an open one runs out, when another is forgotten.
-- `claims`: [[key, nano_usd, tokens, calls, ends], ...]; `asked`: the same before the hold was extended.
CREATE TABLE IF NOT EXISTS holds (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    due REAL NOT NULL,
    claims TEXT NOT NULL,
    asked TEXT,
    actual TEXT,
    on_expiry TEXT,
    steps TEXT,
    owner TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL
) WITHOUT ROWID;

-- One row: no open hold runs out before `first_due`. Instead of an index of open holds, which each request would write
-- to twice: all holds are looked through when that time has come, and not before.
CREATE TABLE IF NOT EXISTS agenda (one INTEGER PRIMARY KEY, first_due REAL NOT NULL);
INSERT OR IGNORE INTO agenda VALUES (1, 9e999);

CREATE TABLE IF NOT EXISTS marks (mark TEXT PRIMARY KEY, ends REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS marks_ends ON marks (ends) WHERE ends IS NOT NULL;
CREATE TABLE IF NOT EXISTS limits (
    policy TEXT PRIMARY KEY, nano_usd INTEGER, tokens INTEGER, calls INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS declared (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
"""

_AHEAD: Final = 16
"""Which write in a row goes through the queue, if none before had to, and looks whether the file is still there."""
_NAP: Final = 0.0001
_LONGEST_NAP: Final = 0.001
"""Seconds between two looks at a lock: about what a transaction takes, and no more than anybody notices."""

BEYOND: Final = "a ledger in SQLite counts up to 9,223,372,036,854,775,807, and this goes beyond"

_abandoned: Final[list[sqlite3.Connection]] = []


class Transactions:
    """One connection to a ledger file, for one thread at a time: ``with`` it to be inside a transaction.

    Args:
        path: the file.
        timeout: the longest wait, in seconds, for other threads and processes.
        writing: whether to write. Those who only read wait for nobody but each other.

    Raises:
        LedgerUnavailable: on entering, if others took longer than ``timeout``; on leaving and whenever the file fails.
            Then nothing of the transaction has happened.
    """

    # Writers of several processes. SQLite's own way to wait for its write lock is to sleep longer and longer, so that
    # newcomers overtake and somebody may wait for ever. Here writers form a queue before that lock: whoever holds the
    # flock of the file beside it is next, and the only one who looks whether the write lock is free. He gives up the
    # flock when he has the lock, so the one who was inside stands behind whoever came meanwhile. A few times in a row
    # one may try without queueing, which spares two system calls; that is a bound, too.
    #
    # The flock is tried and not waited for: a blocking flock knows no end, and a process that is stopped (SIGSTOP,
    # a frozen container) while it is next would stop all others. It only says whose turn it is; what keeps writers
    # apart is SQLite's lock. Who has waited for his turn for half of the timeout therefore goes ahead without.
    #
    # After kill -9 the kernel gives up both locks, and SQLite forgets what was not committed. Threads of this process
    # wait for its lock first, and so only one of them at a time stands in the queue.

    def __init__(self, path: Path, timeout: float, *, writing: bool) -> None:
        self._path = path
        self._timeout = timeout
        self._writing = writing
        self._lock = threading.Lock()
        self._held = False  # by the thread that forks
        self._db: sqlite3.Connection | None = None
        self._queue: int | None = None
        self._inode: tuple[int, int] | None = None
        self._ahead = 0
        self._orphaned = False
        around_fork(self)

    def __enter__(self) -> sqlite3.Connection:
        until = time.monotonic() + self._timeout
        if not self._lock.acquire(timeout=self._timeout):
            raise LedgerUnavailable(f"{self._path}: other threads kept it busy for {self._timeout} s")
        try:
            self._ahead += 1
            if (
                self._db is not None
                and (self._ahead >= _AHEAD or not self._writing)
                and self._inode != _inode(self._path)
            ):
                # Deleted or replaced: what others count is not what is counted here.
                self._close()
            db = self._db or self._open()
            if self._writing:
                self._begin(db, until)
                self._ahead %= _AHEAD
            else:
                db.execute("BEGIN")
        except BaseException as error:
            self._undo(error)
            raise
        return db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            try:
                assert self._db is not None  # since __enter__
                self._db.execute("COMMIT")
            except BaseException as failed:
                self._undo(failed)
                raise
            self._lock.release()
        else:
            self._undo(error)

    def close(self) -> None:
        """Close what is open. It is opened again when needed."""
        with self._lock:
            self._close()

    def __del__(self) -> None:
        if not self._orphaned:
            self._close()

    # -- under the lock ------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._orphaned:
            raise LedgerUnavailable(
                f"{self._path}: this process was forked, without Python noticing, while the file was in use, and cannot"
                " use it any more: make the ledger in the child, or fork before the first call"
            )
        db = connect(self._path, self._timeout, "rw")
        try:
            db.execute("PRAGMA synchronous=NORMAL")
            _recognise(db, self._path)
            if self._writing:
                # Every wait is in _begin, which knows how long one has waited already.
                db.execute("PRAGMA busy_timeout=0")
        except BaseException as error:
            db.close()
            if isinstance(error, ValueError):  # somebody has put another file in its place
                raise LedgerUnavailable(str(error)) from error
            raise
        if self._writing and flock is not None:
            try:
                self._queue = os.open(f"{self._path}-queue", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError:
                self._queue = None  # of another user, or no room: then without
        self._db, self._inode = db, _inode(self._path)
        return db

    def _begin(self, db: sqlite3.Connection, until: float) -> None:
        if self._ahead < _AHEAD or self._queue is None:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if self._queue is None or _code(error) != sqlite3.SQLITE_BUSY:
                    self._wait_for_lock(db, until, error)
                    return
        turn = self._wait_for_turn(self._queue, until - self._timeout / 2)
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            self._wait_for_lock(db, until, error)
        finally:
            if turn:
                flock(self._queue, LOCK_UN)

    def _wait_for_lock(self, db: sqlite3.Connection, until: float, error: sqlite3.OperationalError) -> None:
        nap = _NAP
        while _code(error) == sqlite3.SQLITE_BUSY and time.monotonic() < until:
            time.sleep(nap)
            nap = min(nap * 1.05, _LONGEST_NAP)
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as again:
                error = again
        raise error

    def _wait_for_turn(self, queue: int, until: float) -> bool:
        nap = _NAP
        while True:
            try:
                flock(queue, LOCK_EX | LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > until:
                    return False
            except OSError:
                return False  # a file system that knows no such locks
            time.sleep(nap)
            nap = min(nap * 1.2, _LONGEST_NAP)

    def _undo(self, error: BaseException) -> None:
        """Nothing of the transaction has happened, and the next one begins afresh."""
        try:
            db = self._db
            try:
                if db is not None and db.in_transaction:
                    db.execute("ROLLBACK")
            except sqlite3.Error:
                self._close()
            # An argument that SQLite does not take, or a sum that its tables do not.
            beyond = isinstance(error, OverflowError) or (
                getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CONSTRAINT_CHECK
            )
            if isinstance(error, sqlite3.Error) and not beyond and _code(error) != sqlite3.SQLITE_BUSY:
                self._close()  # whatever is wrong with the file, it is looked at anew
        finally:
            self._lock.release()
        if beyond:
            raise ValueError(BEYOND) from error
        if isinstance(error, sqlite3.Error):
            raise LedgerUnavailable(f"{self._path}: {error}") from error

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()
        queue, self._queue = self._queue, None
        if queue is not None:
            os.close(queue)

    # -- forks ---------------------------------------------------------------------------------------------
    #
    # A connection must not be used, nor even be closed, in a child: SQLite there believes that it holds the locks of
    # its parent, which the system has not given it, and every other connection to the same file would believe so too.
    # (And a flock belongs to parent and child together.) So it is closed before the fork and opened when needed after
    # it, in both. Where C code forks and does not tell Python before, the child is refused.

    def _before_fork(self) -> None:
        self._held = self._lock.acquire(timeout=self._timeout)
        if self._held:
            self._close()

    def _after_fork_in_parent(self) -> None:
        if self._held:
            self._held = False
            self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        if self._db is not None:
            _abandoned.append(self._db)  # never closed
            self._db, self._orphaned = None, True


def connect(path: Path, timeout: float, mode: str) -> sqlite3.Connection:
    """A connection whose transactions begin and end where the code says so. Mode ``rw`` does not make a new file: one
    that was deleted is not to be taken for one in which nothing was spent."""
    return sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
    )


def prepare(path: Path, timeout: float) -> None:
    """Make a ledger file, unless it is there.

    Raises:
        ValueError: if the file is not a ledger, or one of a later version of this package.
        LedgerUnavailable: if others keep it locked for ``timeout`` seconds, or it cannot be read.
    """
    until = time.monotonic() + timeout
    while True:
        db = connect(path, timeout, "rwc")
        try:
            if db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION or _made(db):
                _recognise(db, path)
                return
            raise _stranger(path)
        except sqlite3.Error as error:
            code = _code(error)
            if code == sqlite3.SQLITE_NOTADB:
                raise _stranger(path) from error
            if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
                raise ValueError(
                    f"the ledger file {str(path)!r} cannot be written to ({error}): change the permissions of it and of"
                    " its folder, or give another path"
                ) from error
            # Several that make one file at once: to change to WAL waits for nobody.
            if code != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise LedgerUnavailable(f"{path}: {error}") from error
        finally:
            db.close()
        time.sleep(_LONGEST_NAP)


def _made(db: sqlite3.Connection) -> bool:
    """Whether there was nothing in the file, and now there is a ledger."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        # Of another program, or just made by another process.
        return bool(db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(
        f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id={_APPLICATION}; PRAGMA user_version={SCHEMA}; COMMIT;"
    )
    return True


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a microsecond less than the other way
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _code(error: BaseException) -> int:
    """What SQLite calls it, without the details."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _recognise(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise _stranger(path)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA:
        raise ValueError(
            f"the ledger file {str(path)!r} has version {version}, and this package knows version {SCHEMA}: upgrade"
            " tokenbudget-otel, or give another path"
        )


def _stranger(path: Path) -> ValueError:
    return ValueError(f"{str(path)!r} is not a ledger of budgets but another program's file: give another path")
