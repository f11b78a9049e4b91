"""What one process knows of a Redis ledger, so that it can put it back when the server has lost it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from tokenbudget_otel.budgets.ledger import Claim

MOST_KEYS: Final = 20_000
MOST_HOLDS: Final = 20_000
MOST_ENDED: Final = 4096

Plain = list[Any]
"""Something that becomes JSON."""


def run_of(epoch: bytes) -> str:
    """The ``run_id`` of the server that an epoch began in."""
    return epoch[32:72].decode()


class Epoch:
    """The life of a store that this process takes part in: how the store describes it, and the newest change known.

    ``closed`` says that it is over, or has not begun: nothing is asked in it, and answers that come late do not count.
    """

    __slots__ = ("closed", "id", "opens", "run", "scripts", "seq", "start", "text")

    def __init__(self, text: bytes = b"", seq: int = 0, scripts: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.text = text
        self.seq = seq
        self.closed = not text
        self.id = text[:32].decode()
        self.run = run_of(text)
        self.scripts = scripts
        _, start, opens, _ = text.split() if text else (b"", b"0", b"0", b"")
        self.start = float(start)
        self.opens = float(opens)


class _Hold:
    """A hold that this process made."""

    __slots__ = ("claims", "on_expiry", "owner", "steps", "ttl")

    def __init__(self, claims: Sequence[Claim], ttl: float, on_expiry: str, owner: str) -> None:
        self.claims = claims
        self.ttl = ttl
        self.on_expiry = on_expiry
        self.owner = owner
        self.steps: dict[str, Sequence[Claim]] = {}


class Mirror:
    """What was last seen spent under each key, the holds that this process has open, and those that ended lately.

    Bounded: the keys seen first, and the holds made first, give way. Not locked: :attr:`lock` is taken by whoever
    calls, once for each answer of the server.
    """

    def __init__(self, remember: float) -> None:
        self.lock = threading.Lock()
        self._remember = remember
        self._spent: dict[str, tuple[int, bytes, int, float | None]] = {}
        self._open: dict[str, _Hold] = {}
        self._ended: OrderedDict[str, tuple[float, str, str, Sequence[Claim]]] = OrderedDict()
        self._said: dict[tuple[int, str], str] = {}

    def after_fork(self) -> None:
        """A child knows what was spent; the holds are its parent's."""
        self.lock = threading.Lock()
        self._open = {}
        self._ended = OrderedDict()

    def saw(self, seq: int, spent: bytes, claims: Sequence[Claim]) -> None:
        """The server said what is spent under the keys of these claims. The text is read when it is needed."""
        mirrored = self._spent
        for index, claim in enumerate(claims):
            known = mirrored.get(claim[0])
            if known is None and len(mirrored) >= MOST_KEYS:
                del mirrored[next(iter(mirrored))]
            if known is None or known[0] <= seq:
                mirrored[claim[0]] = (seq, spent, index, claim[8])

    def reserved(self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: str, owner: str) -> None:
        """This process has made a hold."""
        if len(self._open) >= MOST_HOLDS:
            del self._open[next(iter(self._open))]
        self._open[hold_id] = _Hold(claims, ttl, on_expiry, owner)

    def extended(self, hold_id: str, step: str, claims: Sequence[Claim], ttl: float | None) -> None:
        """A hold has grown, or was told to live on."""
        hold = self._open.get(hold_id)
        if hold is not None:
            if claims:
                hold.steps[step] = claims
            hold.ttl = hold.ttl if ttl is None else ttl

    def claims_of(self, hold_id: str) -> Sequence[Claim] | None:
        """The claims of a hold that this process has made; ``None`` if another did."""
        hold = self._open.get(hold_id)
        return None if hold is None else hold.claims

    def ended(self, hold_id: str, state: str, actual: str, claims: Sequence[Claim]) -> None:
        """What a hold or an entry came to is in what is spent now."""
        hold = self._open.pop(hold_id, None)
        self._ended[hold_id] = (time.monotonic(), state, actual, claims if hold is None else hold.claims)
        if len(self._ended) > MOST_ENDED:
            self._ended.popitem(last=False)

    def gone(self, hold_ids: Sequence[str]) -> None:
        """Holds that are not open any more, whoever ended them."""
        for hold_id in hold_ids:
            self._open.pop(hold_id, None)

    def forgotten(self, keys: Sequence[str]) -> None:
        """Keys that nobody will use again."""
        for key in keys:
            self._spent.pop(key, None)

    def said(self, where: int, name: str, text: str | None) -> None:
        """This process has put this text under this name."""
        if text is None:
            self._said.pop((where, name), None)
        else:
            self._said[where, name] = text

    def parts(self, size: int) -> Iterator[tuple[list[Claim], Plain]]:
        """All of it, in parts of about ``size`` entries, at least one: the arguments of the script ``restore``.

        With each come claims of the keys it names, to :meth:`saw` the answer with.
        """
        since = time.monotonic() - self._remember
        spent = []
        for key, (seq, text, index, ends) in self._spent.items():
            numbers = [int(number) for number in text.split(b" ")[3 * index : 3 * index + 3]]
            spent.append([key, seq, *numbers, ends])
        opened = [_open(hold_id, hold) for hold_id, hold in self._open.items()]
        ended = [
            [hold_id, state, actual, _plain(claims)]
            for hold_id, (at, state, actual, claims) in self._ended.items()
            if at > since
        ]
        said = [[where, name, text] for (where, name), text in self._said.items()]
        # What is spent comes first: a store must not admit on less because the rest did not arrive.
        entries = [(kind, entry) for kind, part in enumerate((spent, opened, ended, said)) for entry in part]
        for start in range(0, max(1, len(entries)), size):
            part: tuple[Plain, Plain, Plain, Plain] = ([], [], [], [])
            for kind, entry in entries[start : start + size]:
                part[kind].append(entry)
            yield [Claim(entry[0], ends=entry[5]) for entry in part[0]], list(part)


def _plain(claims: Sequence[Claim]) -> list[Plain]:
    return [[*claim[:4], claim[8]] for claim in claims]


def _open(hold_id: str, hold: _Hold) -> Plain:
    grown = {claim.key: claim for claim in hold.claims}
    for more in hold.steps.values():
        for key, nano_usd, tokens, calls, *_ in more:
            was = grown[key]
            grown[key] = was._replace(
                nano_usd=was.nano_usd + nano_usd, tokens=was.tokens + tokens, calls=was.calls + calls
            )
    steps = {step: _plain(claims) for step, claims in hold.steps.items()}
    claims = _plain(list(grown.values()))
    return [hold_id, claims, hold.ttl, hold.on_expiry, hold.owner, steps, _plain(hold.claims)]
