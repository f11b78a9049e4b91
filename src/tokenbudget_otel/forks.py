"""What must be made anew in a forked child: a lock that another thread held at the fork is held for ever there.
And what must be put away before a fork, because a child cannot do so."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Forked(Protocol):
    """Something that a fork leaves in need of repair."""

    def _after_fork(self) -> None:
        """Called in the child, where no other thread runs."""


class Forking(Forked, Protocol):
    """Something that must not be in use while the process forks."""

    def _before_fork(self) -> None:
        """Called in the parent. Other threads still run, and must be kept out until the fork is done."""

    def _after_fork_in_parent(self) -> None:
        """Called in the parent when the fork is done."""


_owners: Final[weakref.WeakSet[Forked]] = weakref.WeakSet()
_forking: Final[weakref.WeakSet[Forking]] = weakref.WeakSet()
_put_away: Final[list[Forking]] = []


def renew_after_fork(owner: Forked) -> None:
    """Call ``owner._after_fork()`` in every child that this process forks, as long as ``owner`` lives."""
    _owners.add(owner)


def around_fork(owner: Forking) -> None:
    """As :func:`renew_after_fork`, and call the other methods of ``owner`` in the parent, before and after."""
    _forking.add(owner)
    renew_after_fork(owner)


def _prepare() -> None:
    _put_away.extend(_forking)
    for owner in _put_away:
        owner._before_fork()


def _go_on() -> None:
    while _put_away:
        _put_away.pop()._after_fork_in_parent()


def _renew() -> None:
    _put_away.clear()
    for owner in tuple(_owners):
        owner._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_prepare, after_in_parent=_go_on, after_in_child=_renew)
