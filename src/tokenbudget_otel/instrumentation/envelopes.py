"""What the events of a stream have in common: nearly all of them are the same bytes around another word.

Where those bytes are known to hold nothing that is looked for, looking at the words is enough.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import compress, repeat
from operator import itemgetter
from typing import Final

_WORD: Final = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CLOSE: Final = 3
"""How many events that follow each other are compared, where those from everywhere have nothing in common."""


class Envelope:
    """The bytes before and after the words of plain events.

    Args:
        prefix, suffix: these bytes.
        hints: what no plain event has.
        void: pieces of bytes that have a hint and mean nothing.
    """

    __slots__ = ("_around", "_head", "_hints", "_seam", "_tail", "is_bare", "prefix", "suffix")

    def __init__(self, prefix: bytes, suffix: bytes, hints: tuple[bytes, ...], void: tuple[bytes, ...] = ()) -> None:
        self.prefix = prefix
        self.suffix = suffix
        self._hints = hints
        self._around = len(prefix) + len(suffix)
        bare, bare_end = prefix, suffix
        for nothing in void:
            bare, bare_end = bare.replace(nothing, nothing[:1]), bare_end.replace(nothing, nothing[:1])
        # What a hint can have of both that begins before a word, or ends after it.
        starts, ends, reach = _partly(hints)
        self._head = next((bare[-size:] for size in range(reach, 0, -1) if bare[-size:] in starts), b"")
        self._tail = next((bare_end[:size] for size in range(reach, 0, -1) if bare_end[:size] in ends), b"")
        self._seam = self._tail + b"\n" + self._head
        self.is_bare = True
        """Whether neither has a hint itself."""
        for hint in hints:
            if hint in bare or hint in bare_end:
                self.is_bare = False
                break

    def around(self, event: bytes) -> bool:
        """Whether an event has these bytes on both sides."""
        return len(event) >= self._around and event.startswith(self.prefix) and event.endswith(self.suffix)

    def sift(self, events: list[bytes]) -> tuple[list[int], bytes | None]:
        """Which events are not plain, by their place, and the words of all others, a line each; ``None``: there are no
        others."""
        first, last = 0, len(events)
        while first < last and not self.around(events[first]):
            first += 1
        while last > first and not self.around(events[last - 1]):
            last -= 1
        plain = events if last - first == len(events) else events[first:last]
        places: Sequence[int] = range(first, last)
        words = list(map(bytes.removesuffix, map(bytes.removeprefix, plain, repeat(self.prefix)), repeat(self.suffix)))
        # Every event has lost both, or the sum is not right.
        if sum(map(len, words)) != len(b"".join(plain)) - len(plain) * self._around:
            fits = [self.around(event) for event in plain]
            places, words = list(compress(places, fits)), list(compress(words, fits))
        text = self._seam.join(words)
        if text.count(b"\n") >= len(words) or b"\r" in text:
            fits = [b"\n" not in word and b"\r" not in word for word in words]
            places, words = list(compress(places, fits)), list(compress(words, fits))
            text = self._seam.join(words)
        if told := self._hinted(self._head + text + self._tail):
            fits = [line not in told for line in range(len(words))]
            places, words = list(compress(places, fits)), list(compress(words, fits))
        if not words:
            return list(range(len(events))), None
        if len(places) == last - first:
            odd = [*range(first), *range(last, len(events))]
        else:
            held = set(places)
            odd = [place for place in range(len(events)) if place not in held]
        return odd, b"\n".join(words)

    def _hinted(self, text: bytes) -> set[int]:
        """The lines that have a hint."""
        lines: set[int] = set()
        for hint in self._hints:
            at = text.find(hint)
            while at >= 0:
                lines.add(text.count(b"\n", 0, at))
                end = text.find(b"\n", at)
                at = text.find(hint, end) if end >= 0 else -1
        return lines


def between(prefix: bytes, suffix: bytes, words: bytes) -> bytes:
    """The events again, of the words that :meth:`Envelope.sift` or :func:`alike` gave."""
    return prefix + words.replace(b"\n", suffix + prefix) + suffix


def alike(
    events: list[bytes], hints: tuple[bytes, ...], void: tuple[bytes, ...]
) -> tuple[list[int], bytes, bytes, bytes] | None:
    """The events of a stream that are not plain, by their place, the bytes before and after the words of all others,
    and these words, a line each. ``None`` where that is not so easily told.

    What :class:`Envelope` would find, in few and large operations: of most streams nothing else need be known.
    """
    step = len(events) >> 3
    samples = events[2 * step : 7 * step : step]
    size, end = _sizes.get(hints, (0, 0))
    if not (size and _fit(samples, size, end)):
        prefix, suffix = _common(samples)
        size, end = len(prefix), len(suffix)
        if not size or not end:
            return None
        _sizes[hints] = size, end
    found = _between(events, samples[0][:size], samples[0][-end:], hints, void)
    if found is None or len(found[3]) > (len(events) - len(found[0])) * (size + end):
        _sizes.pop(hints, None)  # those of another stream, and too few for this one
    return found


def _fit(samples: list[bytes], size: int, end: int) -> bool:
    """Whether so many bytes are the same in all, at both ends."""
    sample = samples[0]
    prefix, suffix = sample[:size], sample[-end:]
    for sample in samples:
        if len(sample) < size + end or not (sample.startswith(prefix) and sample.endswith(suffix)):
            return False
    return True


def _between(
    events: list[bytes], prefix: bytes, suffix: bytes, hints: tuple[bytes, ...], void: tuple[bytes, ...]
) -> tuple[list[int], bytes, bytes, bytes] | None:
    count = len(events)
    first, last = 0, count
    while not (events[first].startswith(prefix) and events[first].endswith(suffix)):
        first += 1
    while not (events[last - 1].startswith(prefix) and events[last - 1].endswith(suffix)):
        last -= 1
    odd = [*range(first), *range(last, count)]
    plain = events[first:last]
    word = itemgetter(slice(len(prefix), -len(suffix)))
    words = list(map(word, plain))
    # Words are as long as they should be only where these bytes stand on both sides, each in its place.
    if prefix + (suffix + prefix).join(words) + suffix != b"".join(plain):
        around = len(prefix) + len(suffix)
        fits = [len(event) >= around and event.startswith(prefix) and event.endswith(suffix) for event in plain]
        if 2 * sum(fits) < count:
            return None
        words = list(map(word, compress(plain, fits)))
        odd = [*range(first), *(first + place for place, fit in enumerate(fits) if not fit), *range(last, count)]
    lines = b"\n".join(words)
    if lines.count(b"\n") != len(words) - 1 or b"\r" in lines:
        return None
    bare, bare_end = prefix, suffix
    for nothing in void:
        bare, bare_end = bare.replace(nothing, nothing[:1]), bare_end.replace(nothing, nothing[:1])
    # Of the bytes around a word as much as a hint can have that begins before it, or ends after it.
    reach = _reach(hints)
    text = b"".join((bare, (bare_end[:reach] + b"\n" + bare[-reach:]).join(words), bare_end))
    for hint in hints:
        if hint in text:
            break
    else:
        return odd, prefix, suffix, lines
    for nothing in void:
        text = text.replace(nothing, nothing[:1])
    for hint in hints:
        if hint in text:
            return None
    return odd, prefix, suffix, lines


_sizes: Final[dict[tuple[bytes, ...], tuple[int, int]]] = {}
"""How many bytes stood before and after the words of the last stream that was looked for these hints: in the next one
they are often as many."""


@functools.lru_cache(maxsize=64)
def _reach(hints: tuple[bytes, ...]) -> int:
    """One less than the length of the longest."""
    return max(map(len, hints)) - 1


@functools.lru_cache(maxsize=64)
def _partly(hints: tuple[bytes, ...]) -> tuple[frozenset[bytes], frozenset[bytes], int]:
    """How hints begin and end, and the length of the longest of these."""
    cuts = [(hint, size) for hint in hints for size in range(1, len(hint))]
    return (
        frozenset(hint[:size] for hint, size in cuts),
        frozenset(hint[size:] for hint, size in cuts),
        max(size for _, size in cuts),
    )


def learn(events: list[bytes], hints: tuple[bytes, ...], void: tuple[bytes, ...] = ()) -> Iterator[Envelope]:
    """What events may have in common, the likeliest first: those from everywhere, and those in the middle.

    >>> made = next(learn([b'data: {"a":"%d"}' % number for number in range(100, 140)], (b"error",)))
    >>> made.prefix, made.suffix
    (b'data: {"a":"', b'"}')
    """
    count = len(events)
    yield Envelope(*_common([events[count * part // 8] for part in range(2, 7)]), hints, void)
    middle = (count - _CLOSE) // 2
    yield Envelope(*_common(events[middle : middle + _CLOSE]), hints, void)


def _common(events: list[bytes]) -> tuple[bytes, bytes]:
    """The longest beginning and end that all events have, as far as whole words go."""
    backwards = [event[::-1] for event in events]
    suffix = _beginning(min(backwards), max(backwards))[::-1]
    suffix = suffix[quote:] if (quote := suffix.find(b'"')) >= 0 else suffix.lstrip(_WORD)
    heads = [event[: len(event) - len(suffix)] for event in events]
    prefix = _beginning(min(heads), max(heads))
    return prefix[: prefix.rfind(b'"') + 1] or prefix, suffix


def _beginning(one: bytes, other: bytes) -> bytes:
    """With what both begin."""
    known, limit = 0, min(len(one), len(other))
    while known < limit:
        middle = (known + limit + 1) // 2
        if one[known:middle] == other[known:middle]:
            known = middle
        else:
            limit = middle - 1
    return one[:known]
