"""Which event loop runs in this thread, and waiting on it for what a thread does."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import Any, Literal


def running() -> Literal["asyncio", "trio"] | None:
    """The kind of event loop that runs in this thread, if one does. What is not imported does not run.

    >>> running() is None
    True
    """
    if "trio" in sys.modules and _trio_token() is not None:
        return "trio"
    events: Any = sys.modules.get("asyncio.events")
    return None if events is None or events._get_running_loop() is None else "asyncio"


def _trio_token() -> Any:
    trio: Any = sys.modules["trio"]
    try:
        return trio.lowlevel.current_trio_token()
    except (AttributeError, RuntimeError):  # still being imported; not running here
        return None


async def result(future: Future[Any]) -> Any:
    """The result of a future that a thread completes. Cancelling the task does not end what the thread does."""
    if "trio" not in sys.modules or (token := _trio_token()) is None:
        import asyncio

        return await asyncio.wrap_future(future)
    trio: Any = sys.modules["trio"]
    done = trio.Event()

    def tell(_: Future[Any]) -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:  # nobody waits any more
            pass

    future.add_done_callback(tell)
    await done.wait()
    return future.result()
