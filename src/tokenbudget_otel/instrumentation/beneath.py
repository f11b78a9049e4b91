"""The place of a door beside other instrumentors: right before the SDK's own method, beneath what they put on it.

Who stands on top makes the outer span and sees what the program passed; a door has to stand below, so that it finds
their span and they find the arguments that they know. Where another instrumentor was there first, the method that a
class has is theirs, and holds the SDK's own: the door takes the place of that one inside of it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import CellType, FunctionType, MethodType
from typing import Any, Final, Protocol

import wrapt

from tokenbudget_otel.instrumentation.peers import is_peer

MAX_LAYERS: Final = 16
"""Wrappers that are looked through. A method has one or two."""

ON_SINGLE_CLIENTS: Final = "logfire._internal.integrations.llm_providers."
"""Modules that instrument single clients by a function that keeps their method in its closure."""

_OURS: Final = "tokenbudget_otel"

_PROXY: Final = getattr(wrapt, "BaseObjectProxy", wrapt.ObjectProxy)  # the first is of wrapt 2


class Holder(Protocol):
    """What holds a method: it can be asked for it, and given another one."""

    def get(self) -> Any: ...

    def set(self, method: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class ProxyHolder:
    """A wrapper made with wrapt."""

    proxy: Any

    def get(self) -> Any:
        return self.proxy.__wrapped__

    def set(self, method: Any) -> None:
        self.proxy.__wrapped__ = method


@dataclass(frozen=True, slots=True)
class CellHolder:
    """A function that has kept the method it was put around in its closure."""

    cell: CellType

    def get(self) -> Any:
        return self.cell.cell_contents

    def set(self, method: Any) -> None:
        self.cell.cell_contents = method


def holder_of(method: Any, sdk: str) -> Holder | None:
    """What holds the SDK's own method below the wrappers of others; ``None`` where ``method`` is the SDK's own.

    Args:
        method: as a class, an object or a module has it.
        sdk: the top name of the SDK's modules; wrappers that it puts on its own methods stay part of it.

    >>> def sdks_own(): return "answer"
    >>> wrapped = wrapt.FunctionWrapper(sdks_own, lambda inner, _self, args, kwargs: f"<{inner(*args, **kwargs)}>")
    >>> holder = holder_of(wrapped, "somewhere")
    >>> holder.get() is sdks_own
    True
    >>> holder.set(lambda: "metered")
    >>> wrapped()
    '<metered>'
    """
    found: Holder | None = None
    for _ in range(MAX_LAYERS):
        holder = _holder(method, sdk)
        if holder is None:
            break
        found, method = holder, holder.get()
    return found


def held_by_peers(method: Any) -> list[tuple[CellHolder, Any]]:
    """Where functions of other instrumentors have kept the SDK's own method before a door was put on its class: on
    single clients, to which no class leads. With each, the client that the method is bound to, if it is bound.

    Looks through everything that the garbage collector knows, which takes tens of milliseconds: so only where there is
    an instrumentor of single clients, and when a door is installed.
    """
    if not any(name.startswith(ON_SINGLE_CLIENTS) for name in list(sys.modules)):
        return []
    bound = [each for each in gc.get_referrers(method) if isinstance(each, MethodType) and each.__func__ is method]
    found = []
    for kept, client in [(method, None), *((each, each.__self__) for each in bound)]:
        for cell in gc.get_referrers(kept):
            if isinstance(cell, CellType) and _of_a_peer(cell):
                found.append((CellHolder(cell), client))
    return found


def _of_a_peer(cell: CellType) -> bool:
    """Whether a function of another instrumentor has the cell in its closure."""
    for closure in gc.get_referrers(cell):
        if isinstance(closure, tuple):
            for function in gc.get_referrers(closure):
                if isinstance(function, FunctionType) and is_peer(str(function.__globals__.get("__name__", ""))):
                    return True
    return False


def _holder(method: Any, sdk: str) -> Holder | None:
    if isinstance(method, _PROXY):
        return ProxyHolder(method)
    inner = getattr(method, "__wrapped__", None)
    if inner is None or not isinstance(method, FunctionType) or _home(method) in (sdk, _OURS):
        return None
    for cell in method.__closure__ or ():
        try:
            if _same(cell.cell_contents, inner):
                return CellHolder(cell)
        except ValueError:  # a cell that is still empty
            continue
    return None


def _home(function: Callable[..., Any]) -> str:
    """Where a function was really written: `functools.wraps` gives it the name of another module."""
    return str(getattr(function, "__globals__", {}).get("__name__", "")).partition(".")[0]


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    # A method of an object is made anew each time it is asked for.
    return isinstance(left, MethodType) and isinstance(right, MethodType) and left == right
