"""Ledgers by their address: what a configuration file, an environment variable or a command line says."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tokenbudget_otel.budgets.ledger import Ledger
from tokenbudget_otel.budgets.ledgers.memory import MemoryLedger

EXAMPLES: Final = "'memory', 'sqlite:budgets.db', 'sqlite:///var/lib/app/budgets.db', 'redis://localhost:6379/0'"

_SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")
"""A plain path that ends so is a file of SQLite."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")  # two letters at least: C:\budgets.db is a path
_CREDENTIALS: Final = re.compile(r"(://)[^/@\s]*@")


def ledger_at(address: str, **options: Any) -> Ledger:
    """The ledger at an address.

    Args:
        address: ``"memory"`` (of this process); ``"sqlite:relative.db"``, ``"sqlite:///absolute.db"`` or a path that
            ends in ``.db``, ``.sqlite`` or ``.sqlite3`` (a file, shared by the processes of one machine; ``~`` is
            the home directory); ``"redis://host:6379/0"``, ``"rediss://…"`` (TLS) or ``"unix:///path"`` (a Redis
            server, shared by several machines).
        options: what else the ledger takes.

    Raises:
        ValueError: for an address of no known kind, with examples; and what the ledger itself raises where it
            cannot work.

    >>> type(ledger_at("memory")).__name__
    'MemoryLedger'
    >>> ledger_at("postgres://me:secret@db/budgets")
    Traceback (most recent call last):
    ...
    ValueError: unknown kind of ledger 'postgres://***@db/budgets': give an address such as 'memory', \
'sqlite:budgets.db', 'sqlite:///var/lib/app/budgets.db', 'redis://localhost:6379/0'
    """
    if not isinstance(address, str):
        raise ValueError(f"the address of a ledger must be a string such as {EXAMPLES}, not {address!r}")
    text = address.strip()
    if (make := _MAKERS.get(_kind(text))) is None:
        raise ValueError(f"unknown kind of ledger {without_password(text)!r}: give an address such as {EXAMPLES}")
    return make(text, options)


def without_password(address: str) -> str:
    """An address as it may be shown and logged.

    >>> without_password("redis://app:secret@cache:6379/0")
    'redis://***@cache:6379/0'
    """
    return _CREDENTIALS.sub(r"\1***@", address)


def is_sqlite(address: str) -> bool:
    """Whether an address names a file.

    >>> is_sqlite("sqlite:budgets.db"), is_sqlite("data/budgets.db"), is_sqlite("redis://cache/budgets.db")
    (True, True, False)
    """
    return _kind(address.strip()) == "sqlite"


def _kind(address: str) -> str:
    found = _SCHEME.match(address)
    return (found.group(1) if found else "sqlite" if address.lower().endswith(_SUFFIXES) else address).lower()


def _memory(address: str, options: dict[str, Any]) -> Ledger:
    if address.lower() not in ("memory", "memory:", "memory://"):
        raise ValueError(f"the ledger in memory has no place: write 'memory', not {address!r}")
    return MemoryLedger(**options)


def _sqlite(address: str, options: dict[str, Any]) -> Ledger:
    from tokenbudget_otel.budgets.ledgers.sqlite import SQLiteLedger

    return SQLiteLedger(sqlite_path(address), **options)


def sqlite_path(address: str) -> Path:
    """The file that an address of SQLite names.

    >>> sqlite_path("sqlite:budgets.db").as_posix(), sqlite_path("sqlite:///var/budgets.db").as_posix()
    ('budgets.db', '/var/budgets.db')
    """
    path = re.sub(r"(?i)^sqlite:", "", address)
    if path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise ValueError(
                f"{address!r} names a host: write 'sqlite:{path}' for a relative path, 'sqlite:///{path}' for an "
                "absolute one"
            )
        path = path.lstrip("/") if os.name == "nt" else f"/{path.lstrip('/')}"
    if path in ("", "/", ":memory:"):
        raise ValueError(f"{address!r} names no file: write 'sqlite:budgets.db', or 'memory' for a ledger in memory")
    return Path(path).expanduser()


def _redis(address: str, options: dict[str, Any]) -> Ledger:
    from tokenbudget_otel.budgets.ledgers.redis_ledger import RedisLedger

    return RedisLedger(address, **options)


_MAKERS: Final[dict[str, Callable[[str, dict[str, Any]], Ledger]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
}
