"""What must be made anew in a forked child: a lock that another thread held at the fork is held for ever there."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Forked(Protocol):
    """Something that a fork leaves in need of repair."""

    def _after_fork(self) -> None:
        """Called in the child, where no other thread runs."""


_owners: Final[weakref.WeakSet[Forked]] = weakref.WeakSet()


def renew_after_fork(owner: Forked) -> None:
    """Call ``owner._after_fork()`` in every child that this process forks, as long as ``owner`` lives."""
    _owners.add(owner)


def _renew() -> None:
    for owner in tuple(_owners):
        owner._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
