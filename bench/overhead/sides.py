"""Who is measured: the bare client, the floor, a peer, ours. One is on at a time; each has clients of its own, made
while it is on."""

from __future__ import annotations

from collections.abc import Callable

import tokenbudget_otel as tb
from floor import Floor
from ours import TAGS
from telemetry import Telemetry
from toggles import Toggle
from workloads import Clients, Once, OnceAsync, Workload


class Side:
    """One of them. Nothing is on for the bare client."""

    def __init__(self, name: str, toggle: Toggle | None = None, *, native_spans: bool = False) -> None:
        self.name = name
        self._toggle = toggle
        self._clients = Clients(spans=native_spans)
        self._sync: dict[str, Once] = {}
        self._async: dict[str, OnceAsync] = {}

    def enter(self) -> None:
        """Be the one that is on."""
        if self._toggle is not None:
            self._toggle.switch(True)

    def leave(self) -> None:
        """Be off again."""
        if self._toggle is not None:
            self._toggle.switch(False)

    def stir(self) -> None:
        """See :meth:`Toggle.stir`."""
        if self._toggle is not None:
            self._toggle.stir()

    def spent(self, workload: Workload) -> float:
        """Seconds that the side knows to have spent on a stream itself, so far."""
        return 0.0

    def sync(self, workload: Workload) -> Once:
        """One call; to be asked for while the side is on."""
        if workload.name not in self._sync:
            self._sync[workload.name] = self._around(workload, workload.sync(self._client(workload, False)))
        return self._sync[workload.name]

    def asynchronous(self, workload: Workload) -> OnceAsync:
        """The same, async."""
        if workload.name not in self._async:
            made = workload.asynchronous(self._client(workload, True))
            self._async[workload.name] = self._around_async(workload, made)
        return self._async[workload.name]

    def _client(self, workload: Workload, is_async: bool) -> object:
        return self._clients.of(workload.sdk, is_async=is_async)

    def _around(self, workload: Workload, once: Once) -> Once:
        return once

    def _around_async(self, workload: Workload, once: OnceAsync) -> OnceAsync:
        return once


class FloorSide(Side):
    """The bare client with the floor around each call."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__("floor")
        self._telemetry = telemetry
        self._floors: dict[str, list[Floor]] = {}

    def spent(self, workload: Workload) -> float:
        return sum(floor.spent for floor in self._floors[workload.name])

    def _around(self, workload: Workload, once: Once) -> Once:
        return self._floor(workload).around(once)

    def _around_async(self, workload: Workload, once: OnceAsync) -> OnceAsync:
        return self._floor(workload).around_async(once)

    def _floor(self, workload: Workload) -> Floor:
        floor = Floor(workload, self._telemetry)
        self._floors.setdefault(workload.name, []).append(floor)
        return floor


class Ours(Side):
    """With the tags active. The anthropic SDK is left as it is by default: making spans of its own is stopped by us,
    call by call, and that is part of what we cost."""

    def __init__(self, toggle: Toggle) -> None:
        super().__init__("ours", toggle, native_spans=True)
        self._tags: Callable[[], object] = lambda: None

    def enter(self) -> None:
        super().enter()
        tags = tb.tags(**TAGS)
        tags.__enter__()
        self._tags = lambda: tags.__exit__(None, None, None)

    def leave(self) -> None:
        self._tags()
        super().leave()
