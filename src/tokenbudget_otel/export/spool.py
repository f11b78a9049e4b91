"""A folder that keeps OTLP requests until their receivers have taken them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokenbudget_otel.export.destination import Destination
from tokenbudget_otel.export.destination_name import destination_name, public_url
from tokenbudget_otel.export.folder import Folder
from tokenbudget_otel.export.place import checked_max_bytes, default_folder, made_ready
from tokenbudget_otel.export.spare_thread import SpareThread
from tokenbudget_otel.export.spool_error import SpoolError
from tokenbudget_otel.export.stamps import Stamps
from tokenbudget_otel.export.tally import LOCKS
from tokenbudget_otel.export.waits import Waits
from tokenbudget_otel.export.wire import Wire
from tokenbudget_otel.forks import renew_after_fork

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

CLOSE_TIMEOUT_S: Final = 5.0


class Spool:
    """Keeps what is exported on disk until it is delivered, for any number of exporters and processes.

    A request is written down before it is sent, so what was handed over outlives the process. A thread sends what is
    there, oldest first, and deletes what a receiver has taken. Processes that use the same folder take turns, and
    deliver what those have left that died.

    Args:
        folder: where it is kept, made if it is missing; by default what ``TOKENBUDGET_SPOOL`` says, else
            ``tokenbudget/spool`` in ``$XDG_STATE_HOME`` or ``~/.local/state``. Only this user may enter it. On a local
            disk: its locks are the kernel's.
        max_bytes: how many bytes of requests may be in it, over all processes; by default what
            ``TOKENBUDGET_SPOOL_MAX_BYTES`` says (such as ``64MiB``), else 256 MiB. Beyond it the oldest are dropped and
            counted.
        meter_provider: where ``tokenbudget.spool.*`` are shown; by default nowhere.
        first_wait, longest_wait: seconds; a request is tried again after up to ``first_wait``, then up to twice that,
            and so on, at most ``longest_wait``.
        close_timeout: seconds that :meth:`close` takes at most.

    Raises:
        SpoolError: if the folder cannot be used, or is open to other users; it says what to do.

    >>> import tempfile
    >>> spool = Spool(tempfile.mkdtemp(), max_bytes="64MiB")
    >>> spool.counts["delivered"]
    0
    >>> spool.close()
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        max_bytes: int | str | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
        close_timeout: float = CLOSE_TIMEOUT_S,
    ) -> None:
        if not LOCKS:  # pragma: no cover - Windows
            raise SpoolError("a spool needs locks that this system does not have: it works on Linux, macOS and BSD")
        if not 0 < first_wait <= longest_wait:
            raise SpoolError(f"first_wait ({first_wait}) must be above 0, and not above longest_wait ({longest_wait})")
        if close_timeout < 0:
            raise SpoolError(f"close_timeout ({close_timeout}) must not be below 0")
        size = checked_max_bytes(max_bytes)
        self._folder = Folder(made_ready(default_folder() if folder is None else Path(folder)), size)
        self._waits = Waits(first_wait, longest_wait)
        self._close_timeout = close_timeout
        self._stamps = Stamps()
        self._spare = SpareThread("tokenbudget-courier")
        self._destinations: dict[str, Destination] = {}
        self._after_fork()
        renew_after_fork(self)
        self._folder.look()
        if meter_provider is not None:
            from tokenbudget_otel.export.spool_metrics import observe

            observe(self._folder, meter_provider)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self._folder.root

    @property
    def counts(self) -> Mapping[str, int]:
        """What this process has counted, in spans (metrics, log records): ``accepted``, ``delivered``, ``refused``,
        ``damaged``, and ``dropped.full``, ``.too_large``, ``.rejected`` (by a receiver that took the rest) and
        ``.unwritable`` (neither written to disk, nor delivered, nor held in memory)."""
        return self._folder.counts

    def to(self, url: str, wire: Wire, headers: Mapping[str, str] | None = None) -> Destination:
        """Where requests for a URL go. What waits for it already is sent from now on.

        Args:
            url: of the receiver; what is secret in it is not written down.
            wire: what sends them.
            headers: those that say who sends. What was kept for one account is never sent with the headers of another.
        """
        name = destination_name(url, headers or {})
        with self._lock:
            found = self._destinations.get(name)
            if found is None:
                found = Destination(
                    self._folder, name, public_url(url), wire, self._waits, self._stamps, self._spare.start
                )
                self._destinations[name] = found
            else:
                found.use(wire)
            found.users += 1
        found.begin()
        return found

    def leave(self, destination: Destination, timeout: float | None = None) -> None:
        """Say that nothing more comes from one of those who asked for a destination. When all have, it is closed."""
        with self._lock:
            destination.users -= 1
            last = destination.users <= 0
            if last:
                self._destinations = {
                    name: each for name, each in self._destinations.items() if each is not destination
                }
        if last:
            destination.close(self._close_timeout if timeout is None else timeout)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until all that was handed over so far is delivered, at most ``timeout`` seconds; say whether it is."""
        deadline = time.monotonic() + timeout
        found = [each.flush(max(deadline - time.monotonic(), 0.0)) for each in tuple(self._destinations.values())]
        return all(found)

    def close(self, timeout: float | None = None) -> None:
        """Deliver what can be delivered in ``timeout`` seconds (``close_timeout`` by default). The rest stays on disk,
        and is sent by another process, or the next one."""
        deadline = time.monotonic() + (self._close_timeout if timeout is None else timeout)
        destinations = tuple(self._destinations.values())
        for each in destinations:
            each.hasten(deadline)
        for each in destinations:
            each.close(max(deadline - time.monotonic(), 0.0))
