"""What peers do not tell, or tell wrongly, by themselves: facts about their newest versions, each held by a test.

Beside our instrumentors all of it is right: what is counted then is what the provider said, and not what a span says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch


@dataclass(frozen=True)
class Gap:
    """Calls of one peer that differ from the provider's count, where it is alone.

    ``usage`` is what its span says in place of the truth; with ``estimated`` it is marked as an estimate.
    ``leaked`` is how many of its spans never end, also beside ours.
    With ``makes_none`` it makes no span for these calls; with ``gives_way`` it makes none beside ours.
    """

    peer: str
    calls: tuple[str, ...]
    why: str
    usage: dict[str, int] = field(default_factory=dict)
    estimated: bool = False
    leaked: int = 0
    makes_none: bool = False
    gives_way: bool = False

    def fits(self, peer: str, call: str) -> bool:
        """Whether the row is about this call of this peer."""
        return peer == self.peer and any(fnmatch(call, pattern) for pattern in self.calls)


GAPS = (
    Gap(
        "native",
        ("chat*", "responses*", "generate*", "langchain", "langchain_[!c]*", "langchain_chain"),
        "it traces Anthropic only",
        makes_none=True,
    ),
    Gap("native", ("messages*", "langchain_claude*"), "the door says that the call has a span", gives_way=True),
    Gap("openlit", ("generate*_stream",), "it starts two spans and ends one", leaked=1),
    Gap("openllmetry", ("generate*",), "thoughts are in its total only, so output is worked out", estimated=True),
)
"""All that is known. A row that does not hold any more fails its tests: then it can go."""


def gaps_of(peer: str, call: str) -> list[Gap]:
    """What is known of this call of this peer."""
    return [gap for gap in GAPS if gap.fits(peer, call)]
