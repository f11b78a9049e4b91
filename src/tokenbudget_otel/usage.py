"""What one call used: :class:`TokenUsage`, in the sense of the OpenTelemetry GenAI conventions.

``input_tokens`` includes everything the model read (cached or not, text or not), and
``output_tokens`` everything it wrote (reasoning included); all other token counts are parts of
those two and never added to them. Providers that count otherwise (Anthropic leaves cache reads and
writes out of its input, Gemini leaves thoughts out of its output) are converted where they are read.

A count that is not known is ``None``; zero means that it was counted and was none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

INPUT_PARTS: Final = (
    "cache_read_tokens",
    "cache_write_tokens",
    "tool_use_input_tokens",
)
"""Parts of ``input_tokens`` that exclude each other by how a token got there."""

INPUT_MODALITIES: Final = (
    "input_text_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "input_video_tokens",
)
"""Parts of ``input_tokens`` that exclude each other by modality."""

CACHE_READ_MODALITIES: Final = (
    "cache_read_text_tokens",
    "cache_read_audio_tokens",
    "cache_read_image_tokens",
    "cache_read_video_tokens",
)
"""Parts of ``cache_read_tokens`` by modality."""

CACHE_WRITE_TTLS: Final = (
    "cache_write_5m_tokens",
    "cache_write_30m_tokens",
    "cache_write_1h_tokens",
    "cache_write_12h_tokens",
)
"""Parts of ``cache_write_tokens`` by how long the provider keeps what was written."""

OUTPUT_PARTS: Final = (
    "reasoning_tokens",
    "citation_tokens",
    "rejected_prediction_tokens",
)
"""Parts of ``output_tokens`` that exclude each other by what they were written for."""

OUTPUT_MODALITIES: Final = (
    "output_text_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "output_video_tokens",
)
"""Parts of ``output_tokens`` by modality."""

TOKEN_FIELDS: Final = (
    "input_tokens",
    "output_tokens",
    *INPUT_PARTS,
    *CACHE_WRITE_TTLS,
    *INPUT_MODALITIES,
    *CACHE_READ_MODALITIES,
    *OUTPUT_PARTS,
    *OUTPUT_MODALITIES,
)
"""Every count of tokens."""

UNIT_FIELDS: Final = (
    "input_characters",
    "input_audio_seconds",
    "output_audio_seconds",
    "input_images",
    "output_images",
    "input_pixels",
    "document_pages",
    "annotated_document_pages",
    "web_searches",
    "web_fetches",
    "file_searches",
    "social_searches",
    "storage_searches",
    "rerank_searches",
    "code_executions",
    "computer_calls",
)
"""What providers bill besides tokens. Seconds may be fractions, the rest are whole numbers."""

FIELDS: Final = frozenset((*TOKEN_FIELDS, *UNIT_FIELDS))

FRACTIONAL: Final = frozenset(("input_audio_seconds", "output_audio_seconds"))
"""Counts that need not be whole numbers."""

PARTS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "cache_read_tokens": (CACHE_READ_MODALITIES,),
    "cache_write_tokens": (CACHE_WRITE_TTLS,),
    "input_tokens": (INPUT_PARTS, INPUT_MODALITIES),
    "output_tokens": (OUTPUT_PARTS, OUTPUT_MODALITIES),
}
"""Each whole with the groups that divide it; the counts of one group together never exceed the whole."""

_CROSS_PARTS: Final = tuple(zip(CACHE_READ_MODALITIES, INPUT_MODALITIES, strict=True))
"""Cached tokens of a modality are also a part of the input of that modality."""

MAX_COUNT: Final = 2**53
"""Counts beyond it are no counts: ledgers and OTLP have 64 bits for one, and sums have to fit as well."""

Count = int | float | Decimal


class TokenUsage:
    """Tokens and other billed units of one call, or of many added together. Immutable.

    Args:
        input_tokens: all tokens read, cached and uncached, of any modality.
        output_tokens: all tokens written, reasoning included.
        cache_read_tokens: the part of the input that came from a prompt cache.
        cache_write_tokens: the part of the input that was written to a prompt cache;
            ``cache_write_5m_tokens``, ``…_30m_``, ``…_1h_`` and ``…_12h_`` split it by time to live.
        tool_use_input_tokens: the part of the input that results of server-side tools made.
        reasoning_tokens: the part of the output that the model thought with.
        citation_tokens, rejected_prediction_tokens: further parts of the output.
        input_text_tokens, input_audio_tokens, input_image_tokens, input_video_tokens: the input by modality.
        cache_read_text_tokens, …: what was read from a cache, by modality.
        output_text_tokens, …: the output by modality.
        input_characters: characters (speech synthesis).
        input_audio_seconds, output_audio_seconds: seconds of audio, fractions allowed.
        input_images, output_images, input_pixels, document_pages, annotated_document_pages: counts.
        web_searches, web_fetches, file_searches, social_searches, storage_searches, rerank_searches,
            code_executions, computer_calls: calls of tools that the provider ran.

    Raises:
        TypeError: for an unknown name, or a value that is not a number.
        ValueError: for a negative, infinite or NaN value. Whether the counts agree with one another is
            not checked here: see :meth:`problems` and :meth:`certain`.

    >>> usage = TokenUsage(input_tokens=1200, output_tokens=80, cache_read_tokens=1000)
    >>> usage.total_tokens
    1280
    >>> usage.reasoning_tokens is None
    True
    >>> usage + TokenUsage(input_tokens=1, output_tokens=1)
    TokenUsage(input_tokens=1201, output_tokens=81, cache_read_tokens=1000)
    """

    if TYPE_CHECKING:
        input_tokens: int | None
        output_tokens: int | None
        cache_read_tokens: int | None
        cache_write_tokens: int | None
        tool_use_input_tokens: int | None
        cache_write_5m_tokens: int | None
        cache_write_30m_tokens: int | None
        cache_write_1h_tokens: int | None
        cache_write_12h_tokens: int | None
        input_text_tokens: int | None
        input_audio_tokens: int | None
        input_image_tokens: int | None
        input_video_tokens: int | None
        cache_read_text_tokens: int | None
        cache_read_audio_tokens: int | None
        cache_read_image_tokens: int | None
        cache_read_video_tokens: int | None
        reasoning_tokens: int | None
        citation_tokens: int | None
        rejected_prediction_tokens: int | None
        output_text_tokens: int | None
        output_audio_tokens: int | None
        output_image_tokens: int | None
        output_video_tokens: int | None
        input_characters: int | None
        input_audio_seconds: Count | None
        output_audio_seconds: Count | None
        input_images: int | None
        output_images: int | None
        input_pixels: int | None
        document_pages: int | None
        annotated_document_pages: int | None
        web_searches: int | None
        web_fetches: int | None
        file_searches: int | None
        social_searches: int | None
        storage_searches: int | None
        rerank_searches: int | None
        code_executions: int | None
        computer_calls: int | None

    def __init__(self, **counts: Count | None) -> None:
        known = self.__dict__
        for name, value in counts.items():
            if name not in FIELDS:
                raise TypeError(f"TokenUsage has no count named {name!r}; it knows {', '.join(sorted(FIELDS))}")
            if value is None:
                continue
            if type(value) is not int or value < 0:
                value = _checked(name, value)
            known[name] = value

    @classmethod
    def reading(cls, counts: Mapping[str, Any]) -> TokenUsage:
        """Make a usage of what a provider sent, taking only what is surely a count. Never raises.

        Whatever is not a finite number of at least zero is left out (``None``), whole floats become
        integers, and counts that contradict one another are resolved as :meth:`certain` says.

        >>> TokenUsage.reading({"input_tokens": 7, "output_tokens": "many", "reasoning_tokens": -1})
        TokenUsage(input_tokens=7)
        """
        usage = cls.__new__(cls)
        known = usage.__dict__
        for name, value in counts.items():
            if type(value) is int:
                if 0 <= value <= MAX_COUNT and name in FIELDS:
                    known[name] = value
            elif value is not None and name in FIELDS:
                try:
                    count = _checked(name, value)
                    if count <= MAX_COUNT:
                        known[name] = count
                except (TypeError, ValueError):
                    continue
        return usage if len(known) < 2 or _agree(known) else usage.certain()

    # Counts that are not set. Keeps an instance as small as what is known of it.
    def __getattr__(self, name: str) -> None:
        if name in FIELDS:
            return None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    if TYPE_CHECKING:
        # The field names are declared above; nothing else may be assigned.
        pass
    else:

        def __setattr__(self, name, value):
            raise AttributeError("a TokenUsage cannot be changed; make another with replace()")

        __delattr__ = lambda self, name: self.__setattr__(name, None)  # noqa: E731

    @property
    def total_tokens(self) -> int:
        """``input_tokens`` plus ``output_tokens``, counting what is unknown as zero."""
        known = self.__dict__
        return (known.get("input_tokens") or 0) + (known.get("output_tokens") or 0)

    def counts(self) -> dict[str, Count]:
        """Every count that is known, by name."""
        return dict(self.__dict__)

    def replace(self, **counts: Count | None) -> TokenUsage:
        """A copy with some counts set anew; ``None`` forgets a count.

        >>> TokenUsage(input_tokens=1, output_tokens=2).replace(output_tokens=None)
        TokenUsage(input_tokens=1)
        """
        return TokenUsage(**{**self.__dict__, **counts})

    def problems(self) -> tuple[str, ...]:
        """Name each contradiction between the counts; an empty tuple where they agree.

        >>> TokenUsage(output_tokens=5, reasoning_tokens=9).problems()
        ('reasoning_tokens (9) exceeds output_tokens (5)',)
        """
        return tuple(text for text, _ in self._contradictions())

    def certain(self) -> TokenUsage:
        """What remains certain where counts contradict one another: the wholes stay, the parts that do
        not fit into them become unknown. A usage without contradictions is returned as it is.

        >>> TokenUsage(output_tokens=5, reasoning_tokens=9).certain()
        TokenUsage(output_tokens=5)
        """
        usage = self
        # Dropping a part can make a later group fit, so look again; each round drops at least one.
        while found := next(usage._contradictions(), None):
            counts = {name: value for name, value in usage.__dict__.items() if name not in found[1]}
            usage = TokenUsage(**counts)
        return usage

    def _contradictions(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        known = self.__dict__
        for whole, groups in PARTS.items():
            limit = known.get(whole)
            if limit is None:
                continue
            for group in groups:
                present = [part for part in group if known.get(part)]
                if present and (total := sum(known[part] for part in present)) > limit:
                    parts = " + ".join(present)
                    verb = "exceeds" if len(present) == 1 else "exceed"
                    yield f"{parts} ({total}) {verb} {whole} ({limit})", tuple(present)
        for part, whole in _CROSS_PARTS:
            if part in known and whole in known and known[part] > known[whole]:
                yield f"{part} ({known[part]}) exceeds {whole} ({known[whole]})", (part,)

    def __add__(self, other: object) -> TokenUsage:
        if not isinstance(other, TokenUsage):
            return NotImplemented
        total = dict(self.__dict__)
        for name, value in other.__dict__.items():
            total[name] = _sum(total[name], value) if name in total else value
        return TokenUsage(**total)

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if isinstance(other, TokenUsage) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self.__dict__.items()))

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return bool(self.__dict__)

    def __repr__(self) -> str:
        ordered = (name for name in (*TOKEN_FIELDS, *UNIT_FIELDS) if name in self.__dict__)
        return f"TokenUsage({', '.join(f'{name}={self.__dict__[name]!r}' for name in ordered)})"

    def __reduce__(self) -> tuple[Callable[..., TokenUsage], tuple[dict[str, Count]]]:
        return _restore, (dict(self.__dict__),)


_Sums = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Wholes, each with the first and the further of those parts that together are not more."""

_sums: Final[dict[tuple[str, ...], _Sums]] = {}
_MOST_SUMS: Final = 500


def _agree(known: Mapping[str, Any]) -> bool:
    """Whether the counts do not contradict one another. Providers report the same few counts with every call: what is
    to be compared of those is looked up."""
    names = tuple(known)
    sums = _sums.get(names)
    if sums is None:
        if len(_sums) >= _MOST_SUMS:
            _sums.clear()
        sums = _sums[names] = _sums_of(names)
    for whole, part, others in sums:
        total = known[part]
        for other in others:
            total += known[other]
        if total > known[whole]:
            return False
    return True


def _sums_of(names: tuple[str, ...]) -> _Sums:
    divided = [(whole, group) for whole, groups in PARTS.items() for group in groups]
    divided += [(whole, (part,)) for part, whole in _CROSS_PARTS]
    present = [(whole, [part for part in group if part in names]) for whole, group in divided if whole in names]
    return tuple((whole, parts[0], tuple(parts[1:])) for whole, parts in present if parts)


def _restore(counts: dict[str, Count]) -> TokenUsage:
    return TokenUsage(**counts)


def _sum(left: Count, right: Count) -> Count:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return _decimal(left) + _decimal(right)


def _decimal(value: Count) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _checked(name: str, value: object) -> Count:
    """``value`` as a count, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
    if isinstance(value, int):
        return int(value)
    if value == int(value):
        return int(value)
    if name not in FRACTIONAL:
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    return value
