"""A call that a budget refuses, beside the same call stopped by a hook in the place of ours that raises at once."""

from __future__ import annotations

import importlib
from typing import Any

import tokenbudget_otel as tb
from sides import Ours, Side
from toggles import Toggle
from workloads import Once, OnceAsync, Workload


class StoppedError(Exception):
    """What the hook raises."""


def _stop(*_: Any, **__: Any) -> Any:
    raise StoppedError


async def _stop_async(*_: Any, **__: Any) -> Any:
    raise StoppedError


class Hook(Toggle):
    """Stands where the SDKs have ``request``."""

    def __init__(self, sdks: list[str]) -> None:
        self.changed = []
        self.on = False
        for sdk in sdks:
            base = importlib.import_module(f"{sdk}._base_client")
            for owner, stop in ((base.SyncAPIClient, _stop), (base.AsyncAPIClient, _stop_async)):
                self.changed.append((owner, "request", vars(owner)["request"], stop))


class StoppedSide(Side):
    """The bare client, stopped."""

    def __init__(self, sdks: list[str]) -> None:
        super().__init__("stopped", Hook(sdks))

    def _around(self, workload: Workload, once: Once) -> Once:
        return _expecting(StoppedError, once)

    def _around_async(self, workload: Workload, once: OnceAsync) -> OnceAsync:
        return _expecting_async(StoppedError, once)


class RefusedSide(Ours):
    """Ours, with nothing left in one of the budgets."""

    def __init__(self, toggle: Toggle) -> None:
        super().__init__(toggle)
        self.name = "refused"

    def _around(self, workload: Workload, once: Once) -> Once:
        return _expecting(tb.BudgetExceeded, once)

    def _around_async(self, workload: Workload, once: OnceAsync) -> OnceAsync:
        return _expecting_async(tb.BudgetExceeded, once)


def _expecting(error: type[Exception], once: Once) -> Once:
    def stopped(began: float) -> None:
        try:
            once(began)
        except error:
            return
        raise AssertionError(f"{error.__name__} was not raised")

    return stopped


def _expecting_async(error: type[Exception], once: OnceAsync) -> OnceAsync:
    async def stopped(began: float) -> None:
        try:
            await once(began)
        except error:
            return
        raise AssertionError(f"{error.__name__} was not raised")

    return stopped
