"""Where requests of a spool go."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokenbudget_otel.export.courier import Courier
from tokenbudget_otel.export.entry import Entry
from tokenbudget_otel.export.folder import Folder
from tokenbudget_otel.export.memory_queue import MemoryQueue
from tokenbudget_otel.export.otlp_bytes import items_in
from tokenbudget_otel.export.stamps import Stamps
from tokenbudget_otel.export.waits import Waits
from tokenbudget_otel.export.wire import Wire
from tokenbudget_otel.forks import renew_after_fork

logger: Final = logging.getLogger("tokenbudget_otel.export")


class Destination:
    """One URL with one set of headers, which a spool delivers to. Made by :meth:`Spool.to`."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        url: str,
        wire: Wire,
        waits: Waits,
        stamps: Stamps,
        start: Callable[[Callable[[], None]], None],
    ) -> None:
        self.url = url
        self.users = 0
        self._folder = folder
        self._name = name
        self._stamps = stamps
        self._start = start
        self._memory = MemoryQueue()
        self._writable = True
        self._room_made_ready()
        self._courier = Courier(folder, self.place, self._memory, wire, url, waits, self._try_rescue)
        renew_after_fork(self)
        self._after_fork()

    def _after_fork(self) -> None:
        self._rescue_lock = threading.Lock()

    @property
    def place(self) -> Path:
        """Its folder."""
        return self._folder.root / self._name

    def use(self, wire: Wire) -> None:
        """Send by this wire from now on."""
        self._courier.wire = wire

    def begin(self) -> None:
        """Deliver what waits here already."""
        try:
            self._courier.start(self._start)
        except Exception:
            logger.exception("no thread can be started to send to %s; what waits stays in %s", self.url, self.place)

    def put(self, body: bytes) -> None:
        """Keep an OTLP request, and have it delivered.

        Never raises and never waits for a receiver: what cannot be written to disk is held in memory, and what there
        is no room for is dropped and counted.

        Args:
            body: the request as protobuf, uncompressed.
        """
        moment, sequence = self._stamps.next()
        entry = Entry.of(body, items_in(body), moment, os.getpid(), sequence)
        try:
            self._keep(entry, body)
        except Exception as error:
            if self._writable or not isinstance(error, OSError):
                self._writable = False
                logger.warning(
                    "the spool %s cannot be written to (%s): what cannot be sent is held in memory, up to a bound, and"
                    " lost if the process ends",
                    self.place, error,
                )  # fmt: skip
            self._hold(entry, body)
        else:
            if not self._writable or self._memory:
                self._try_rescue()
        self._courier.handed_over()
        self.begin()

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over so far is delivered, at most ``timeout`` seconds; say whether it is."""
        return self._courier.flush(timeout)

    def hasten(self, deadline: float) -> None:
        """Tell the courier to stop by then (on the clock of :func:`time.monotonic`), without waiting for it."""
        self._courier.hasten(deadline)

    def close(self, timeout: float) -> None:
        """Deliver what can be delivered in ``timeout`` seconds. The rest stays on disk."""
        self._courier.close(timeout)
        if self._memory:
            try:
                self._rescue()
            except OSError:
                held = self._memory
                while (taken := held.take()) is not None:
                    self._folder.count(dropped_unwritable=taken[0].items)
                logger.warning("what could neither be sent to %s nor written to disk is lost", self.url)

    def _keep(self, entry: Entry, body: bytes) -> None:
        try:
            self._folder.put(self.place, entry, body)
        except FileNotFoundError:
            # Somebody has removed the folder.
            self._folder.tally.close()
            self._room_made_ready()
            self._folder.put(self.place, entry, body)

    def _room_made_ready(self) -> None:
        try:
            self._folder.destination(self._name, {"url": self.url})
        except OSError as error:
            logger.debug("%s cannot be made: %s", self.place, error)

    def _hold(self, entry: Entry, body: bytes) -> None:
        dropped = self._memory.put(entry, body)
        self._folder.count(accepted=entry.items, dropped_unwritable=dropped)

    def _try_rescue(self) -> None:
        try:
            self._rescue()
        except OSError:
            pass  # still held

    def _rescue(self) -> None:
        """Write what is held in memory to disk.

        Raises:
            OSError: if that does not work; the rest is still held.
        """
        with self._rescue_lock:
            while (taken := self._memory.take()) is not None:
                try:
                    self._keep(*taken)
                except BaseException:
                    if dropped := self._memory.back(*taken):
                        self._folder.count(dropped_unwritable=dropped)
                    raise
                self._folder.count(accepted=-taken[0].items)
            if not self._writable:
                self._writable = True
                logger.info("the spool %s can be written to again", self.place)
