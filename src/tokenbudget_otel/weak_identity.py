"""A mapping by what an object is, and not by what it is equal to, that does not keep its keys alive.

For providers of OpenTelemetry: there are some that cannot be hashed (logfire's), so no weak dictionary holds them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ByIdentity(Generic[K, V]):
    """A few objects, and something for each as long as it lives.

    >>> class Provider(list): pass
    >>> first, second = Provider(), Provider()
    >>> made = ByIdentity()
    >>> made.set(first, "gauges")
    >>> made.get(first), made.get(second)
    ('gauges', None)
    >>> del first
    >>> list(made.values())
    []
    """

    def __init__(self) -> None:
        self._rows: list[tuple[weakref.ref[K], V]] = []

    def get(self, key: K) -> V | None:
        """What was set for this very object."""
        return next((value for known, value in self._rows if known() is key), None)

    def set(self, key: K, value: V) -> None:
        """Set something for an object, in the place of what was set before."""
        others = [(known, other) for known, other in self._rows if known() is not None and known() is not key]
        self._rows = [*others, (weakref.ref(key), value)]

    def values(self) -> Iterator[V]:
        """What was set for the objects that are still there."""
        return (value for known, value in self._rows if known() is not None)
