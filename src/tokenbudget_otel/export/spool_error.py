"""What a spool that cannot be used says."""

from __future__ import annotations


class SpoolError(ValueError):
    """A spool that cannot be kept where or as it was asked for; the message names what is wrong and what to do."""
