"""Kills a process before or after each of its system calls, and looks at what is left.

    python killed_anywhere.py FOLDER MAX_BYTES before|after

A program of its own: it forks for each call, and that takes long in a process that has run other tests.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from export_requests import names_in, request_of

from tokenbudget_otel.export.courier import Courier
from tokenbudget_otel.export.entry import Entry
from tokenbudget_otel.export.folder import REFUSED, Folder
from tokenbudget_otel.export.memory_queue import MemoryQueue
from tokenbudget_otel.export.waits import Waits
from tokenbudget_otel.export.wire import Answer

CALLS: Final = (
    (os, "open"),
    (os, "write"),
    (os, "pwrite"),
    (Path, "rename"),
    (Path, "unlink"),
)
"""What changes something on disk. ``os._exit`` is as sudden as ``kill -9``: nothing is tidied up."""

_write = os.write


class Log:
    """Lines that survive their writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, *names: str) -> None:
        _write(self._fd, "".join(f"{name}\n" for name in names).encode())

    def lines(self) -> list[str]:
        return self._path.read_text().splitlines()


class Wire:
    """Takes what has fewer than four spans, and refuses span 4."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def post(self, body: bytes) -> Answer:
        names = names_in(body)
        if len(names) > 3:
            return Answer(413)
        if "span 4" in names:
            return Answer(403)
        self._log.add(*names)
        return Answer(200)


def work(root: Path, max_bytes: int, handed: Log, taken: Log) -> None:
    """Hand over six requests, and deliver what waits."""
    folder = Folder(root, max_bytes)
    place = folder.destination("there", {"url": "http://there"})
    courier = Courier(folder, place, MemoryQueue(), Wire(taken), "http://there", Waits())
    for number, spans in enumerate((2, 4, 1, 2, 1, 1)):
        first = (0, 2, 6, 7, 9, 10)[number]
        body = request_of(spans, first=first)
        folder.put(place, Entry.of(body, spans, number, os.getpid(), number), body)
        handed.add(*(f"span {first + each}" for each in range(spans)))
    courier.deliver_now()


def killed_at(step: int, after: bool, run: Callable[[], None]) -> bool:
    """Run it in a child that is gone at a step. False if it came to its end before."""
    pid = os.fork()
    if pid == 0:
        steps = itertools.count()
        try:
            for owner, name in CALLS:
                setattr(owner, name, _killing(getattr(owner, name), steps, step, after))
            run()
            os._exit(0)
        finally:
            os._exit(70)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def _killing(real: Any, steps: Any, step: int, after: bool) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        now = next(steps) == step
        if now and not after:
            os._exit(9)
        result = real(*arguments, **options)
        if now:
            os._exit(9)
        return result

    return call


def main(base: Path, max_bytes: int, after: bool) -> None:
    for step in itertools.count():
        here = base / str(step)
        here.mkdir(mode=0o700)
        root = here / "spool"
        root.mkdir(mode=0o700)
        handed, taken = Log(here / "handed"), Log(here / "taken")
        killed = killed_at(step, after, lambda root=root, h=handed, t=taken: work(root, max_bytes, h, t))  # type: ignore[misc]
        folder = Folder(root, max_bytes)
        on_disk = sum(size for *_, size in folder.files())
        assert on_disk <= folder.tally.read()["bytes"], step
        assert on_disk <= max_bytes or max_bytes == 500, step  # one that was killed while it halved a request has both
        for place in folder.destinations():
            Courier(folder, place, MemoryQueue(), Wire(taken), "http://there", Waits()).deliver_now()
            assert not folder.waiting(place)
        refused = [
            name for place, where, entry, _ in folder.files() if where == REFUSED
            for name in names_in(folder.read(place / where, entry))
        ]  # fmt: skip
        arrived = Counter(taken.lines())
        missing = [name for name in handed.lines() if not arrived[name] and name not in refused]
        dropped = folder.tally.read()["dropped.full"]
        assert len(missing) <= dropped, (step, missing)
        # Posted again is one request at most: killed between the answer and the deletion of the file.
        twice = [name for name, number in arrived.items() if number > 1]
        assert len(twice) <= 3 and max(arrived.values(), default=0) <= 2, (step, twice)
        folder.look()
        assert folder.tally.read()["bytes"] == sum(size for *_, size in folder.files())
        if not killed:
            assert max_bytes == 500 or not missing
            assert not twice
            assert len(missing) == dropped, (missing, dropped)
            assert (dropped > 0) == (max_bytes == 500)
            break
    assert step > 20
    print(f"killed at {step} steps")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "after")
