"""What a ledger has to be told later: operations that could not be delivered, kept in memory and in a file.

Each process has a file of its own in the folder, one JSON object a line, and a lock on it for as long as it lives. A
file that nobody has locked was left by a process that died: whoever finds it takes its operations over.

A line is in the file when the call returns, and survives the end of the process, however it comes; it is not synced to
disk. An operation is crossed out as soon as the ledger has confirmed it. A process killed between the two, within
microseconds, leaves an operation that is delivered again: the ledger knows it by its id, for as long as it remembers.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tokenbudget_otel.budgets.amounts import Amount
from tokenbudget_otel.budgets.ledger import Claim, Limits

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows: files are written there and not taken over
    flock = None  # type: ignore[assignment]

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

MOST: Final = 100_000
"""Most operations kept. What comes beyond that is lost, and counted."""


class Entry(NamedTuple):
    """An operation to be delivered, by the number it has in the file."""

    number: int
    operation: str
    arguments: tuple[Any, ...]


def estimate(claims: Sequence[Claim], on_expiry: Amount | None) -> tuple[Amount, Sequence[Claim], Mapping[str, Amount]]:
    """What to settle a hold with that nobody will end: the same that it is charged where it runs out.

    >>> estimate([Claim("k", 5, 7, 1)], None)[2]
    {'k': Amount(nano_usd=5, tokens=7, calls=1)}
    """
    if on_expiry is not None:
        return on_expiry, claims, {}
    return Amount(0, 0, 0), claims, {claim.key: Amount(*claim[1:4]) for claim in claims}


class Outbox:
    """Operations to be delivered, in their order. Safe for threads; one of them delivers.

    Args:
        folder: where the files are; ``None`` to keep everything in memory.
        most: most operations kept.

    Raises:
        ValueError: if there can be no such folder.

    >>> outbox = Outbox()
    >>> outbox.put("release", ("hold",))
    True
    >>> entry = outbox.first()
    >>> entry.operation, entry.arguments
    ('release', ('hold',))
    >>> outbox.done(entry)
    >>> len(outbox)
    0
    """

    def __init__(self, folder: Path | None = None, most: int = MOST) -> None:
        self.dropped = 0
        """Operations that there was no room for."""
        self.torn = 0
        """Lines that could not be read in files taken over."""
        self._folder = folder
        self._most = most
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"journal: {folder} cannot be made a folder ({error}): give another one") from error
        self._file: int | None = None
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._notes: dict[str, Entry] = {}
        self._numbered = 0
        self._path: Path | None = None
        self._ill = False

    def _after_fork(self) -> None:
        # The file is the parent's, and so is what is in it. Closing it here leaves it locked there.
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._reset()

    def __len__(self) -> int:
        return len(self._entries)

    def first(self) -> Entry | None:
        """What is to be delivered next; ``None`` if nothing is."""
        try:
            return self._entries[0]
        except IndexError:
            return None

    def put(self, operation: str, arguments: tuple[Any, ...]) -> bool:
        """Keep an operation. It takes the place of what was noted about its hold. Whether there was room."""
        with self._lock:
            if len(self._entries) >= self._most:
                self.dropped += 1
                return False
            entry = self._numbered_entry(operation, arguments)
            note = self._notes.pop(arguments[0], None) if operation in _ENDS else None
            self._entries.append(entry)
            self._write([_line(entry)] if note is None else [_line(entry), _crossed(note)])
            return True

    def done(self, entry: Entry) -> None:
        """Cross out the first operation: it was delivered."""
        with self._lock:
            self._entries.popleft()
            self._cross_out(entry)

    def note(self, hold_id: str, claims: Sequence[Claim], on_expiry: Amount | None) -> None:
        """Note a hold that the ledger does not know, for the case that this process does not live to end it."""
        with self._lock:
            before = self._notes.get(hold_id)
            entry = self._notes[hold_id] = self._numbered_entry("note", (hold_id, claims, on_expiry))
            self._write([_line(entry)] if before is None else [_line(entry), _crossed(before)])

    def clear(self, hold_id: str) -> None:
        """Take such a note back."""
        if hold_id in self._notes:
            with self._lock:
                if (note := self._notes.pop(hold_id, None)) is not None:
                    self._cross_out(note)

    def end_noted(self) -> None:
        """Have the holds that were noted settled with their estimates: nobody will end them any more."""
        for hold_id, claims, on_expiry in [note.arguments for note in tuple(self._notes.values())]:
            self.put("settle", (hold_id, *estimate(claims, on_expiry)))

    def close(self) -> None:
        """Let go of the file. What is in it is left to others; but not while calls go on that may still end here."""
        with self._lock:
            if self._file is None or self._path is None or self._notes:
                return
            if not self._entries:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    # -- files of processes that died ------------------------------------------------------------------------

    def left_behind(self) -> bool:
        """Whether there are files of others."""
        return self._folder is not None and any(path != self._path for path in self._folder.glob(f"*{_SUFFIX}"))

    def adopt(self) -> int:
        """Take over the operations of processes that died. Returns how many."""
        if self._folder is None or flock is None:
            return 0
        found = 0
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path != self._path:
                try:
                    found += self._adopt(path)
                except OSError:  # its process lives, or another one was faster
                    continue
        return found

    def _adopt(self, path: Path) -> int:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            flock(file, LOCK_EX | LOCK_NB)
            if not os.fstat(file).st_nlink:
                return 0
            with os.fdopen(os.dup(file), "rb") as lines:
                left, torn = _read(lines)
            with self._lock:
                if len(self._entries) + len(left) > self._most:
                    return 0  # later, or somebody else
                # Twice in one list would be twice delivered, at about the same time: harmless, and in vain.
                known = {(each.operation, each.arguments[0]) for each in self._entries if each.operation in _BY_ID}
                new = [
                    self._numbered_entry(operation, arguments)
                    for operation, arguments in left
                    if (operation, arguments[0]) not in known
                ]
                if not self._write([_line(entry) for entry in new]):
                    return 0
                self._entries.extend(new)
                self.torn += torn
            os.ftruncate(file, 0)
            path.unlink(missing_ok=True)
        finally:
            os.close(file)
        if new or torn:
            logger.warning(
                "%d operations of a process that died are booked now (%s); %d lines were damaged", len(new), path, torn
            )
        return len(new)

    # -- under the lock --------------------------------------------------------------------------------------

    def _numbered_entry(self, operation: str, arguments: tuple[Any, ...]) -> Entry:
        self._numbered += 1
        return Entry(self._numbered, operation, arguments)

    def _cross_out(self, entry: Entry) -> None:
        if self._file is None:
            return
        if not self._entries and not self._notes:
            try:
                os.ftruncate(self._file, 0)
                return
            except OSError:
                pass
        self._write([_crossed(entry)])

    def _write(self, lines: Sequence[bytes]) -> bool:
        """Append lines to the file, if there is to be one. Whether they are where they have to be."""
        if self._folder is None or not lines:
            return True
        try:
            if self._file is None:
                self._open(self._folder)
            assert self._file is not None
            # An empty line before each: one that was torn, on a full disk, ends there.
            text = b"".join(b"\n" + line + b"\n" for line in lines)
            if os.write(self._file, text) != len(text):
                raise OSError("the disk is full")
        except OSError as error:
            if not self._ill:
                self._ill = True
                logger.error(
                    "what is to be booked later is kept in memory only, and lost with this process: "
                    "no line can be added in %s (%s)",
                    self._folder,
                    error,
                )
            return False
        self._ill = False
        return True

    def _open(self, folder: Path) -> None:
        """Make the file of this process, and give it the name that others look for when it is locked."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        path = folder / f"{name}.new"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if flock is not None:
                flock(file, LOCK_EX | LOCK_NB)
            self._path = path.rename(folder / f"{name}{_SUFFIX}")
        except OSError:
            os.close(file)
            raise
        self._file = file


# -- lines -----------------------------------------------------------------------------------------------------

_SUFFIX: Final = ".jsonl"


class _Kind(NamedTuple):
    """How one argument is written and read."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _write_amount(amount: Amount | None) -> list[int | None] | None:
    return None if amount is None else [amount.nano_usd, amount.tokens, amount.calls]


def _read_amount(value: Any) -> Amount | None:
    return None if value is None else Amount(*value)


def _write_claims(claims: Iterable[Claim]) -> list[list[Any]]:
    # What limits there were does not matter to what is booked later.
    return [[claim.key, claim.nano_usd, claim.tokens, claim.calls, claim.ends] for claim in claims]


def _read_claims(value: Any) -> tuple[Claim, ...]:
    return tuple(Claim(key, nano_usd, tokens, calls, ends=ends) for key, nano_usd, tokens, calls, ends in value)


def _write_apart(apart: Mapping[str, Amount] | None) -> dict[str, Any] | None:
    return None if apart is None else {key: _write_amount(amount) for key, amount in apart.items()}


def _read_apart(value: Any) -> dict[str, Amount] | None:
    return None if value is None else {key: Amount(*amount) for key, amount in value.items()}


def _write_limits(limits: Limits | None) -> list[int | None] | None:
    return None if limits is None else list(limits)


def _read_limits(value: Any) -> Limits | None:
    return None if value is None else Limits(*value)


_TEXT: Final = _Kind(str, str)
_TEXTS: Final = _Kind(list, tuple)
_AMOUNT: Final = _Kind(_write_amount, _read_amount)
_CLAIMS: Final = _Kind(_write_claims, _read_claims)
_APART: Final = _Kind(_write_apart, _read_apart)
_LIMITS: Final = _Kind(_write_limits, _read_limits)

OPERATIONS: Final[Mapping[str, tuple[_Kind, ...]]] = {
    "settle": (_TEXT, _AMOUNT, _CLAIMS, _APART),
    "release": (_TEXT,),
    "charge": (_TEXT, _AMOUNT, _CLAIMS, _APART),
    "adjust": (_TEXT, _AMOUNT, _CLAIMS, _TEXT),
    "forget": (_TEXTS,),
    "declare": (_TEXT, _TEXT),
    "set_limits": (_TEXT, _LIMITS),
    "note": (_TEXT, _CLAIMS, _AMOUNT),
}
"""What can be kept, and of what kind its arguments are. A note is none of the ledger's operations."""

_ENDS: Final = ("settle", "release")
_BY_ID: Final = ("settle", "release", "charge", "adjust")


def _line(entry: Entry) -> bytes:
    kinds = OPERATIONS[entry.operation]
    arguments = [kind.write(value) for kind, value in zip(kinds, entry.arguments, strict=False)]
    return json.dumps([entry.number, entry.operation, *arguments], separators=(",", ":")).encode()


def _crossed(entry: Entry) -> bytes:
    return b"[%d]" % entry.number


def _read(lines: Iterable[bytes]) -> tuple[list[tuple[str, tuple[Any, ...]]], int]:
    """What is left to be delivered in a file, and how many of its lines make no sense."""
    left: dict[int, tuple[str, tuple[Any, ...]]] = {}
    torn = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, list):
                raise TypeError("a line is a list")
            number, *rest = value
            if not rest:
                left.pop(number, None)
                continue
            operation, *written = rest
            first, *more = [kind.read(each) for kind, each in zip(OPERATIONS[operation], written, strict=False)]
            left[number] = operation, (first, *(estimate(*more) if operation == "note" else more))
        except (ValueError, TypeError, KeyError, AttributeError):
            torn += 1
    ended = {arguments[0] for operation, arguments in left.values() if operation in _ENDS}
    found = [
        ("settle" if operation == "note" else operation, arguments)
        for operation, arguments in left.values()
        if operation != "note" or arguments[0] not in ended
    ]
    return found, torn
