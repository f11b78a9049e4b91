"""What a request is answered with: :class:`Behaviour`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Final, Literal, get_args

UsageMode = Literal["present", "absent", "null"]
Outcome = Literal["completed", "failed", "incomplete"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the user's functions, written by the model.

    Args:
        name: the function's name.
        arguments: its arguments, as the object that is sent as JSON.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def json(self) -> str:
        """The arguments as the model writes them."""
        return json.dumps(self.arguments, separators=(", ", ": "))


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered: what is written, what is counted, and what goes wrong.

    All fields have a default, and ``Behaviour()`` is a well-behaved provider: it derives its text
    and its token counts from the request. Token counts follow :class:`Usage`: ``input_tokens``
    holds the cached and written ones, ``output_tokens`` the reasoning. A total that is left out is
    derived as its parts plus what the prompt or the answer measures; a total that is given is
    taken as it is, even past the request's ``max_tokens``.

    "After k chunks" counts the pieces of content (of text, thinking or tool arguments), not the
    events around them: with 0 the opening events are sent and nothing more; with more chunks than
    there are, all of the content is sent, and the final events are not.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a value out of range, or two that contradict each other.

    Example:
        >>> Behaviour(text="Hello.", input_tokens=1200, cached_tokens=1000).cached_tokens
        1000
        >>> Behaviour(input_tokens=10, cached_tokens=1000)
        Traceback (most recent call last):
            ...
        ValueError: input_tokens is 10, but its parts (cached_tokens=1000) add up to 1000
    """

    # What is written.
    model: str | None = None
    """The model that is reported back; None: the requested one."""
    text: str | None = None
    thinking: str | None = None
    """Text of a thinking block or a reasoning summary; None: one is written if reasoning_tokens > 0."""
    refusal: str | None = None
    """The model declines with these words instead of answering."""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    """In the words of the provider; None: what fits the answer."""
    outcome: Outcome = "completed"
    """Of a response of the Responses API."""

    # What is counted.
    usage: UsageMode = "present"
    """Whether the answer reports usage. What is billed does not depend on it."""
    input_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_30m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_write_12h_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    tool_use_input_tokens: int = 0
    """Input that results of server-side tools made (Google)."""
    output_tokens: int | None = None
    reasoning_tokens: int = 0
    citation_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    audio_seconds: float | None = None
    """Length of the audio in a transcription that is billed by time; None: by tokens for ``gpt-*`` models."""
    web_searches: int = 0
    web_fetches: int = 0
    file_searches: int = 0
    code_interpreter_calls: int = 0
    service_tier: str | None = None
    """The tier that served it; None: the requested one, or the provider's usual one."""
    speed: str | None = None
    inference_geo: str | None = None
    cost_usd: float | None = None
    """What a host reports as the cost: OpenRouter and Perplexity (None: a millionth of a dollar per token), xAI."""
    upstream_cost_usd: float | None = None
    """What OpenRouter says that the upstream provider charged a key of the user's own (BYOK)."""
    x_searches: int = 0
    """Searches of posts that xAI's responses made."""
    pages_opened: int = 0
    """Pages that a response's web searches opened: actions that are not billed."""
    images_generated: int = 0
    """Images that a response made with its image generation tool, at 300 tokens for 20 of prompt."""

    # How it comes.
    chunks: int | None = None
    """Number of chunks a stream's text is cut into; None: see tokens_per_chunk."""
    tokens_per_chunk: int = 4
    latency_s: float = 0.0
    """Before the response headers."""
    first_chunk_s: float = 0.0
    """Between the headers and the first byte of the body."""
    chunk_s: float = 0.0
    """Between two chunks. At 0 chunks are written together, as a fast provider's arrive."""
    polls: int = 2
    """How often a background response is retrieved before it is completed."""
    split: int | None = None
    """Body bytes per HTTP chunk, so that events straddle them; None: whole events."""
    crlf: bool = False
    """End the lines of server-sent events with CR LF."""
    gzip: bool = False

    # What goes wrong.
    status: int = 200
    """An HTTP error status, answered with the provider's own error object."""
    error_message: str | None = None
    retry_after_s: float | None = None
    """Sent as ``retry-after`` with an error; None: 0.01 s for 429 and 529, else nothing."""
    drop: bool = False
    """Close the connection instead of answering."""
    timeout: bool = False
    """Never answer."""
    cut_after: int | None = None
    """Close the connection after so many chunks; with a JSON body, in its middle."""
    silent_end_after: int | None = None
    """End the body after so many chunks, without the events that should close it."""
    error_event_after: int | None = None
    """An error inside the stream after so many chunks."""
    malformed_after: int | None = None
    """Broken JSON after so many chunks; a JSON body is broken in its middle."""
    damage: int | None = None
    """A seed: one or two fields of the answer are missing, null, of the wrong type or out of range."""
    fail_times: int | None = None
    """Only the first so many attempts of a request go wrong (status 500 unless another fault is set)."""

    def __post_init__(self) -> None:
        if self.tool_calls and not all(isinstance(call, ToolCall) for call in self.tool_calls):
            object.__setattr__(self, "tool_calls", tuple(_tool_call(call) for call in self.tool_calls))
        elif not isinstance(self.tool_calls, tuple):
            object.__setattr__(self, "tool_calls", tuple(self.tool_calls))
        for name, (kinds, least, choices) in _RULES.items():
            value = getattr(self, name)
            # bool is an int to Python, but `cached_tokens=True` is a slip.
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
                raise TypeError(f"{name} must be {expected}, not {value!r}")
            if least is not None and isinstance(value, int | float) and not value >= least:
                raise ValueError(f"{name} must be at least {least}, not {value!r}")
            if choices and value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        if not (self.status == 200 or 400 <= self.status <= 599):
            raise ValueError(f"status must be 200 or an error status from 400 to 599, not {self.status}")
        for total, parts in _PARTS.items():
            _check_parts(self, total, parts)
        faults = [name for name in _FAULTS if getattr(self, name) not in (None, False, 200)]
        if len(faults) > 1:
            raise ValueError(f"a request can fail in one way only, not in {len(faults)}: {', '.join(faults)}")
        if self.fail_times is not None and not faults:
            object.__setattr__(self, "status", 500)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Behaviour:
        """A Behaviour from an object as it is written in JSON.

        Raises:
            ValueError: a key that is no field, with the fields there are.

        Example:
            >>> Behaviour.from_mapping({"tool_calls": [{"name": "now", "arguments": {}}]}).tool_calls[0].name
            'now'
            >>> Behaviour.from_mapping({"colour": "red"})  # doctest: +ELLIPSIS
            Traceback (most recent call last):
                ...
            ValueError: unknown key 'colour'; a behaviour has: model, text, ...
        """
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(f"unknown key {key!r}; a behaviour has: {', '.join(known)}")
        return cls(**values)

    def healthy(self) -> Behaviour:
        """The same without faults: what a retried request meets in the end."""
        return dataclasses.replace(self, fail_times=None, **_NO_FAULTS)

    @property
    def stream_fault(self) -> tuple[str, int] | None:
        """The fault that hits a stream, and after how many chunks."""
        for name in _STREAM_FAULTS:
            count = getattr(self, name)
            if count is not None:
                return name, count
        return None


_STREAM_FAULTS: Final = ("cut_after", "silent_end_after", "error_event_after", "malformed_after")
_FAULTS: Final = ("status", "drop", "timeout", *_STREAM_FAULTS)
_NO_FAULTS: Final[dict[str, Any]] = {"status": 200, "drop": False, "timeout": False} | dict.fromkeys(_STREAM_FAULTS)

_CACHE_WRITES: Final = tuple(f"cache_write_{ttl}_tokens" for ttl in ("5m", "30m", "1h", "12h"))
_PARTS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "input_tokens": (
        ("cached_tokens", *_CACHE_WRITES, "tool_use_input_tokens"),
        ("input_audio_tokens", "input_image_tokens"),
    ),
    "output_tokens": (
        ("reasoning_tokens", "citation_tokens", "rejected_prediction_tokens"),
        ("output_audio_tokens", "output_image_tokens"),
    ),
}
"""Total -> groups of parts that exclude each other within a group (a cached token may well be audio)."""

# By the annotation as written: types that are allowed, least value, words that are allowed.
_KINDS: Final[dict[str, tuple[tuple[type, ...], float | None, tuple[str, ...]]]] = {
    "str | None": ((str, type(None)), None, ()),
    "int": ((int,), 0, ()),
    "int | None": ((int, type(None)), 0, ()),
    "float": ((int, float), 0, ()),
    "float | None": ((int, float, type(None)), 0, ()),
    "bool": ((bool,), None, ()),
    "tuple[ToolCall, ...]": ((tuple,), None, ()),
    "UsageMode": ((str,), None, get_args(UsageMode)),
    "Outcome": ((str,), None, get_args(Outcome)),
}
_RULES: Final[dict[str, tuple[tuple[type, ...], float | None, tuple[str, ...]]]] = {
    item.name: _KINDS[str(item.type)] for item in fields(Behaviour)
} | {
    "tokens_per_chunk": ((int,), 1, ()),
    "chunks": ((int, type(None)), 1, ()),
    "split": ((int, type(None)), 1, ()),
    "fail_times": ((int, type(None)), 1, ()),
}


def _tool_call(value: Any) -> ToolCall:
    if isinstance(value, ToolCall):
        return value
    if isinstance(value, Mapping) and {"name"} <= set(value) <= {"name", "arguments"}:
        return ToolCall(**value)
    raise TypeError(f"a tool call is ToolCall(name, arguments) or an object with these keys, not {value!r}")


def _check_parts(behaviour: Behaviour, total: str, groups: tuple[tuple[str, ...], ...]) -> None:
    whole = getattr(behaviour, total)
    if whole is None:
        return
    for group in groups:
        given = {name: getattr(behaviour, name) for name in group if getattr(behaviour, name)}
        if sum(given.values()) > whole:
            parts = ", ".join(f"{name}={count}" for name, count in given.items())
            raise ValueError(f"{total} is {whole}, but its parts ({parts}) add up to {sum(given.values())}")


@lru_cache(maxsize=1024)
def from_header(value: str) -> Behaviour:
    """The Behaviour written in an ``x-simulate`` header.

    Raises:
        ValueError: it is not a JSON object, or not one that describes a behaviour.
    """
    try:
        parsed = json.loads(value)
        if not isinstance(parsed, dict):
            raise ValueError("it must be a JSON object")
        return Behaviour.from_mapping(parsed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"x-simulate: {error}") from error
