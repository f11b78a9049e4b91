"""What peers do not tell, or tell wrongly, by themselves: facts about their newest versions, each held by a test.

Beside our instrumentors all of it is right: what is counted then is what the provider said, and not what a span says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch


@dataclass(frozen=True)
class Gap:
    """Calls of one peer that differ from the provider's count, where it is alone.

    ``usage`` is what its span says in place of the truth; empty where it says nothing, so that the call is not charged.
    ``spans`` is how many inference spans it makes; ``leaked`` how many never end; with ``makes_none`` our span stands.
    """

    peer: str
    calls: tuple[str, ...]
    why: str
    usage: dict[str, int] = field(default_factory=dict)
    leaked: int = 0
    makes_none: bool = False
    counted: bool = True

    def fits(self, peer: str, call: str) -> bool:
        """Whether the row is about this call of this peer."""
        return peer == self.peer and any(fnmatch(call, pattern) for pattern in self.calls)


GAPS = (Gap("native", ("chat*", "responses*", "generate*", "langchain*"), "it traces Anthropic only", makes_none=True),)


def gaps_of(peer: str, call: str) -> list[Gap]:
    """What is known of this call of this peer."""
    return [gap for gap in GAPS if gap.fits(peer, call)]
