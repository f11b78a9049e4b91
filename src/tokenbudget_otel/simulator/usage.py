"""What the simulated provider counts: :class:`Usage`, which every wire format renders in its own shape."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.text import count_words


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens and other units of one request, in one sense for all providers.

    ``input_tokens`` includes cached and written ones, ``output_tokens`` includes reasoning,
    citations and rejected predictions.

    Example:
        >>> usage = Usage(input_tokens=160, cached_tokens=40, cache_write_5m_tokens=20, output_tokens=50)
        >>> usage.plain_input_tokens, usage.cache_write_tokens, usage.total_tokens
        (100, 20, 210)
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_30m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_write_12h_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    tool_use_input_tokens: int = 0
    reasoning_tokens: int = 0
    citation_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    audio_seconds: float | None = None
    """Length of audio that is billed by time."""
    output_images: int | None = None
    input_characters: int | None = None
    """Length of text that is billed by characters."""
    web_searches: int = 0
    web_fetches: int = 0
    file_searches: int = 0
    code_interpreter_calls: int = 0

    @property
    def cache_write_tokens(self) -> int:
        """All that was written to the cache, whatever its time to live."""
        return (
            self.cache_write_5m_tokens
            + self.cache_write_30m_tokens
            + self.cache_write_1h_tokens
            + self.cache_write_12h_tokens
        )

    @property
    def plain_input_tokens(self) -> int:
        """Input that was neither read from the cache nor written to it."""
        return self.input_tokens - self.cached_tokens - self.cache_write_tokens

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def until(self, share: float) -> Usage:
        """What had been used when so much of the output (0 to 1) was written.

        Reasoning comes first, so that it is counted in full before the text begins.

        Example:
            >>> Usage(input_tokens=10, output_tokens=30, reasoning_tokens=10).until(0.5).output_tokens
            20
        """
        if share >= 1:
            return self
        written = self.output_tokens - self.reasoning_tokens
        return dataclasses.replace(
            self,
            output_tokens=self.reasoning_tokens + math.ceil(written * share),
            citation_tokens=math.floor(self.citation_tokens * share),
            rejected_prediction_tokens=math.floor(self.rejected_prediction_tokens * share),
            output_audio_tokens=math.floor(self.output_audio_tokens * share),
            output_image_tokens=math.floor(self.output_image_tokens * share),
        )


# Fields that a Behaviour sets and a Usage reports under the same name.
_SHARED = tuple(
    item.name
    for item in dataclasses.fields(Usage)
    if item.name not in {"input_tokens", "output_tokens"} and item.name in Behaviour.__slots__
)
_DEFAULTS = {item.name: item.default for item in dataclasses.fields(Behaviour)}


def measure(behaviour: Behaviour, prompt_tokens: int, written_tokens: int) -> Usage:
    """The usage of a request: what the behaviour fixes, and the rest as measured.

    Args:
        behaviour: what is fixed.
        prompt_tokens: what the prompt measures.
        written_tokens: what the visible answer measures.
    """
    fixed: dict[str, Any] = {}
    for name in _SHARED:
        value = getattr(behaviour, name)
        if value != _DEFAULTS[name]:
            fixed[name] = value
    if not fixed and not behaviour.thinking:  # By far the most frequent case.
        return Usage(
            prompt_tokens if behaviour.input_tokens is None else behaviour.input_tokens,
            written_tokens if behaviour.output_tokens is None else behaviour.output_tokens,
        )
    parts = Usage(**fixed)
    if behaviour.thinking and not parts.reasoning_tokens:
        # Thinking that is spelt out has been thought.
        thought = count_words(behaviour.thinking)
        most = thought if behaviour.output_tokens is None else min(thought, behaviour.output_tokens)
        parts = dataclasses.replace(parts, reasoning_tokens=most)
    given_input, given_output = behaviour.input_tokens, behaviour.output_tokens
    if given_input is None:
        given_input = prompt_tokens + parts.cached_tokens + parts.cache_write_tokens
        given_input += parts.input_audio_tokens + parts.input_image_tokens + parts.tool_use_input_tokens
    if given_output is None:
        given_output = written_tokens + parts.reasoning_tokens + parts.citation_tokens
        given_output += parts.rejected_prediction_tokens + parts.output_audio_tokens + parts.output_image_tokens
    return dataclasses.replace(parts, input_tokens=given_input, output_tokens=given_output)


def measure_prompt(*parts: Any) -> int:
    """Tokens of a prompt: a quarter of its characters, at least one.

    Base64 data (images, audio, files) is not text and counts nothing: give such tokens by the behaviour.

    Example:
        >>> measure_prompt([{"role": "user", "content": "Tell me a story."}])
        4
    """
    return max(1, (sum(_characters(part) for part in parts) + 3) // 4)


_NOT_READ = frozenset({"role", "type", "data", "b64_json", "file_data", "id", "cache_control"})


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return 0 if value.startswith("data:") else len(value)
    if isinstance(value, list):
        return sum(_characters(item) for item in value)
    if isinstance(value, dict):
        return sum(_characters(item) for key, item in value.items() if key not in _NOT_READ)
    return 0
