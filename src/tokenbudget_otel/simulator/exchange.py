"""One request and its answer in the making: :class:`Exchange`, which routes write their replies from."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.books import Store
from tokenbudget_otel.simulator.hosts import Host
from tokenbudget_otel.simulator.text import count_words, cut, write
from tokenbudget_otel.simulator.usage import Usage, measure


class Exchange:
    """A request with its behaviour.

    Everything that looks random comes from ``key``, a digest of the simulator's seed, the request
    and how many like it came before: so answers do not depend on the order in which requests of
    several threads arrive.
    """

    __slots__ = (
        "behaviour",
        "body",
        "created",
        "headers",
        "host",
        "key",
        "method",
        "number",
        "params",
        "path",
        "query",
        "store",
    )

    def __init__(
        self,
        *,
        key: bytes,
        method: str,
        path: str,
        query: str,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: dict[str, Any],
        behaviour: Behaviour,
        host: Host,
        created: int,
        store: Store,
    ) -> None:
        self.key = key.hex()
        self.number = int.from_bytes(key[:4], "big")
        self.method, self.path, self.query, self.params, self.headers = method, path, query, params, headers
        self.body, self.behaviour, self.host, self.created = body, behaviour, host, created
        self.store = store

    def id(self, prefix: str, number: int = 0) -> str:
        """An id of this exchange: the same for the same prefix and number."""
        if number == 0:
            return prefix + self.key
        return prefix + blake2b(f"{self.key}{number}".encode(), digest_size=12).hexdigest()

    @property
    def request_id(self) -> str:
        return "req_" + self.key

    @property
    def model(self) -> str:
        """The model that is reported back."""
        found = self.behaviour.model or self.body.get("model") or self.params.get("deployment") or "simulated-1"
        return str(found)

    @property
    def streaming(self) -> bool:
        return self.body.get("stream") in (True, "true")

    @property
    def tier(self) -> str:
        """OpenAI's tier that is reported: the behaviour's, or the requested one; left to OpenAI it is ``default``."""
        asked = self.behaviour.service_tier or self.body.get("service_tier")
        return "default" if asked in (None, "auto") else str(asked)

    def visible_tokens(self) -> int | None:
        """How many tokens of visible text the behaviour asks for; None if it leaves that open."""
        behaviour = self.behaviour
        if behaviour.output_tokens is None:
            return None
        hidden = behaviour.reasoning_tokens + behaviour.citation_tokens + behaviour.rejected_prediction_tokens
        return max(0, behaviour.output_tokens - hidden - behaviour.output_audio_tokens - behaviour.output_image_tokens)

    def write(self, limit: Any = None) -> tuple[str, bool]:
        """The answer's text, and whether the request's limit of tokens cut it short."""
        text = self.behaviour.text
        wanted = self.visible_tokens()
        if wanted is not None:
            return (write(self.number, wanted) if text is None else text), False
        room = None if not isinstance(limit, int) else max(0, limit - self.behaviour.reasoning_tokens)
        if text is None:
            words = 12 + self.number % 24
            short = room is not None and words > room
            return write(self.number, min(words, room) if room is not None else words), short
        if room is not None and count_words(text) > room:
            return "".join(cut(text, None, 1)[:room]), True
        return text, False

    def cut(self, text: str) -> list[str]:
        """The pieces in which a stream sends this text."""
        return cut(text, self.behaviour.chunks, self.behaviour.tokens_per_chunk)

    def measure(self, prompt_tokens: int, written_tokens: int) -> Usage:
        return measure(self.behaviour, prompt_tokens, written_tokens)
