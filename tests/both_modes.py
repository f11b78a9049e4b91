"""One way to write a test for sync and async clients."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any


async def settled(value: Any) -> Any:
    """The value, awaited if it has to be."""
    return await value if inspect.isawaitable(value) else value


async def each(source: Any) -> AsyncIterator[Any]:
    """Everything in a sync or an async iterable, to its end."""
    if hasattr(source, "__aiter__"):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item
