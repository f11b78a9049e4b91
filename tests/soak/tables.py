"""Everything of ours that can grow: found by walking through what our modules hold, not from a list of names.

Two questions are asked of a process. How many entries does each container have that can be reached from our modules,
through our objects and plain containers (:func:`tables`)? And how many objects of our classes are alive, whoever holds
them (:func:`instances`)?
"""

from __future__ import annotations

import functools
import gc
import queue
import sys
import types
import weakref
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Final

OURS: Final = "tokenbudget_otel"

_SIZED: Final = (
    dict, list, set, frozenset, tuple, deque,
    weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary,
    types.MappingProxyType,
)  # fmt: skip
_QUEUES: Final = (queue.SimpleQueue, queue.Queue)


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and (module == OURS or module.startswith(OURS + "."))


def _entries(container: Any) -> Iterator[Any]:
    """What a container holds; a copy, because other threads of ours go on."""
    for _ in range(10):
        try:
            if isinstance(container, dict | types.MappingProxyType | weakref.WeakValueDictionary):
                return iter([*container.keys(), *container.values()])
            return iter(list(container))
        except RuntimeError:  # it changed meanwhile
            continue
    return iter(())


def _fields(thing: Any) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(thing, "__dict__", {}).items())
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name in ("__dict__", "__weakref__"):
                continue
            name = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") else name
            try:
                yield name, getattr(thing, name)
            except AttributeError:
                continue


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """What is looked through next: fields of our objects, what functions have closed over, containers' contents."""
    if isinstance(thing, _SIZED):
        for entry in _entries(thing):
            kind = type(entry)
            yield f"[{kind.__name__}]" if _is_ours(kind.__module__) else "[]", entry
    elif isinstance(thing, types.FunctionType):
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            try:
                yield f".<{name}>", cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        for entry in (thing.__defaults__ or (), thing.__kwdefaults__ or {}, thing.__dict__):
            yield ".<defaults>", entry
    elif isinstance(thing, types.MethodType):
        yield ".<self>", thing.__self__
        yield ".<function>", thing.__func__
    elif isinstance(thing, functools.partial):
        yield from ((".<function>", thing.func), (".<arguments>", thing.args), (".<arguments>", thing.keywords))
    elif isinstance(thing, classmethod | staticmethod | property):
        for name in ("__func__", "fget", "fset"):
            yield f".{name}", getattr(thing, name, None)
    elif isinstance(thing, type):
        if _is_ours(thing.__module__):
            for name, value in list(vars(thing).items()):
                yield f".{name}", value
    elif isinstance(thing, weakref.ref):
        yield "()", thing()
    elif _is_ours(type(thing).__module__):
        for name, value in _fields(thing):
            yield f".{name}", value


def tables() -> Counter[str]:
    """Entries of every container that our modules hold, by the way to it. What stands in containers is added up."""
    sizes: Counter[str] = Counter()
    seen: set[int] = {id(sizes)}
    keep: list[Any] = []  # an object made on the way must not give its id to the next one
    waiting: deque[tuple[str, Any]] = deque()
    for name, module in sorted(sys.modules.items()):
        if _is_ours(name):
            for key, value in list(vars(module).items()):
                if not (key.startswith("__") and key.endswith("__")) and not isinstance(value, types.ModuleType):
                    waiting.append((f"{name}.{key}", value))
    while waiting:
        way, thing = waiting.popleft()
        if thing is None or isinstance(thing, str | bytes | int | float) or id(thing) in seen:
            continue
        seen.add(id(thing))
        keep.append(thing)
        if isinstance(thing, _SIZED):
            sizes[way] += len(thing)
        elif isinstance(thing, _QUEUES):
            sizes[way] += thing.qsize()
        elif callable(info := getattr(thing, "cache_info", None)) and not isinstance(thing, type):
            sizes[f"{way}.<cache>"] += info().currsize
            thing = getattr(thing, "__wrapped__", None)
        for part, value in _parts(thing):
            # Deeper than that it is one kind of thing in another, over and over: a chain, counted in one row.
            waiting.append((way if way.count("[") > 3 else way + part, value))
    return sizes


def instances() -> Counter[str]:
    """Living objects of our classes, by class; also those that only somebody else refers to."""
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if _is_ours(getattr(kind, "__module__", None)):
            found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    return found
