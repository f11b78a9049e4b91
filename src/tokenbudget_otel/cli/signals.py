"""Passing signals on to a program, each of them once.

Ctrl-C reaches the whole process group: us and the program. `kill` reaches one process: us alone. To tell the
two apart there is a lookout, a child in our process group that does nothing but say which signals it got.
"""

from __future__ import annotations

import os
import select
import signal
import time
from types import FrameType
from typing import Any, Final

FORWARDED: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)

_GRACE_S: Final = 0.1
"""How long a signal to the group may take to reach the lookout."""


class Forwarder:
    """While it is open, signals that only this process got are sent on to the program.

    A signal that we were started with as ignored (under ``nohup``, for example) stays ignored.
    """

    def __init__(self) -> None:
        self._program: int | None = None
        self._waiting: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Forwarder:
        self._lookout = _Lookout()  # before there is a thread: it forks
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._forward)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._lookout.close()

    def started(self, program: int) -> None:
        """The program runs, as this process."""
        self._program = program
        while self._waiting:
            self._send(self._waiting.pop())

    def ended(self) -> None:
        """There is no program any more to send signals to. What comes now is swallowed: the report is being made."""
        self._program = None
        self._waiting = []

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self._program is None:
            self._waiting.append(number)
        elif not self._lookout.got(number) or not _in_our_group(self._program):
            self._send(number)

    def _send(self, number: int) -> None:
        try:
            if self._program is not None:
                os.kill(self._program, number)
        except ProcessLookupError:
            pass


class _Lookout:
    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        life, self._life = os.pipe()
        self._news, news = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _look_out(life, news, (self._life, self._news))
            finally:
                os._exit(0)
        os.close(life)
        os.close(news)

    def got(self, number: int) -> bool:
        """Whether the lookout got this signal as well."""
        end = time.monotonic() + _GRACE_S
        while self._heard.pop(number, 0.0) < end - 1:  # what it heard longer ago was another one
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._news], [], [], left)[0]:
                return False
            for heard in os.read(self._news, 64):
                self._heard[heard] = time.monotonic()
        return True

    def close(self) -> None:
        os.close(self._life)
        os.close(self._news)
        os.waitpid(self._pid, 0)


def _look_out(life: int, news: int, others: tuple[int, ...]) -> None:
    """The lookout's whole life: until its parent's end of the pipe is closed, however the parent ends."""
    os.set_blocking(news, False)
    signal.set_wakeup_fd(news, warn_on_full_buffer=False)
    for number in FORWARDED:
        signal.signal(number, _hear)
    # Whoever reads our output must not wait for the lookout to close it too.
    for file in (0, 1, 2, *others):
        try:
            os.close(file)
        except OSError:
            pass
    os.read(life, 1)


def _hear(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor has said it; a handler has to be there for that."""


def _in_our_group(program: int) -> bool:
    try:
        return os.getpgid(program) == os.getpgrp()
    except ProcessLookupError:
        return True


def die_as(number: int) -> None:
    """End this process by a signal, so that whoever waits for it sees what the program ended by."""
    import resource

    # The program has left its core already, if there was to be one.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        signal.signal(number, signal.SIG_DFL)
    except (OSError, ValueError):  # SIGKILL cannot be set, and need not
        pass
    os.kill(os.getpid(), number)
