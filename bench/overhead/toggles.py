"""Switching an instrumentor on and off inside one process: what it put on the SDK's classes and modules is noted once,
and from then on taken off and put back by name."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

SDKS = ("openai", "anthropic")
HTTP = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
LAZY = ("resources", "lib")
"""Parts of an SDK that it imports when they are first used: imported before anything is noted."""

MISSING = object()

State = dict[tuple[int, str], tuple[Any, Any]]
"""By owner and name: the owner, and what it has there."""


def import_whole(sdk: str) -> None:
    """Import what an instrumentor may put something on later."""
    for part in LAZY:
        try:
            package = importlib.import_module(f"{sdk}.{part}")
        except ImportError:
            continue
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda _: None):
            try:
                importlib.import_module(found.name)
            except Exception:  # needs something that is not installed: nobody can put anything on it either
                continue


def _owners() -> Iterator[Any]:
    """Every module of the SDKs and their HTTP libraries, and every class that one of those has."""
    seen: set[int] = set()
    tops = (*SDKS, *HTTP)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in tops or not isinstance(module, ModuleType):
            continue
        yield module
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__.partition(".")[0] in tops and id(value) not in seen:
                seen.add(id(value))
                yield value


def _wraps(value: Any) -> bool:
    """Whether this may be an instrumentor's doing. Caches and counters of the SDK's own are left alone."""
    return callable(value) or isinstance(value, classmethod | staticmethod | property | FunctionType)


def state() -> State:
    """What is where now."""
    return {
        (id(owner), name): (owner, value)
        for owner in _owners()
        for name, value in list(vars(owner).items())
        if _wraps(value)
    }


class Toggle:
    """What one instrumentor changed.

    Raises:
        RuntimeError: if it changed nothing.
    """

    def __init__(self, name: str, before: State, after: State, *, may_be_empty: bool = False) -> None:
        self.changed: list[tuple[Any, str, Any, Any]] = []
        known = {key[0] for key in before}
        for key, (owner, value) in after.items():
            # A module that was imported meanwhile has nothing to go back to.
            old = before.get(key, (owner, MISSING))[1]
            if old is not value and key[0] in known and not isinstance(value, ModuleType):
                self.changed.append((owner, key[1], old, value))
        self.changed = [each for each in self.changed if not (isinstance(each[0], ModuleType) and each[2] is MISSING)]
        if not self.changed and not may_be_empty:
            raise RuntimeError(f"{name} put nothing on the SDKs that could be taken off")
        self.on = True

    def switch(self, on: bool) -> None:
        """Put everything back, or take it off."""
        if on == self.on:
            return
        for owner, name, old, new in self.changed:
            value = new if on else old
            if value is MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        self.on = on

    def stir(self) -> None:
        """Put everything in its place once more. Whatever the interpreter knows of these classes is void then, as it is
        after a switch: so no side is the better off for not having been switched."""
        for owner, name, old, new in self.changed:
            value = new if self.on else old
            if value is not MISSING:
                setattr(owner, name, value)

    def names(self) -> list[str]:
        """What was changed, for people."""
        return sorted(
            f"{owner.__module__}.{owner.__qualname__}.{name}" if isinstance(owner, type) else f"{owner.__name__}.{name}"
            for owner, name, _, _ in self.changed
        )
