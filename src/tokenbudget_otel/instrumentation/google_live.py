"""Gemini's Live API: a session over a websocket, one charge for each turn of the model.

The usage that the server reports is that of one turn, not of the session; its prompt holds everything that was said
before. Thoughts and the results of server-side tools stand beside prompt and response, and are billed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets.steps import Steps
from tokenbudget_otel.instrumentation.endpoint import Peer, mark_of
from tokenbudget_otel.instrumentation.facts import get, text
from tokenbudget_otel.instrumentation.google_requests import MEDIA, measured
from tokenbudget_otel.instrumentation.google_usage import (
    FINISH_REASONS,
    billed_searches,
    content_usage,
    count,
    queries,
    tier,
)
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.live import Kind, LiveDoor, Session, Turn, joined, watch
from tokenbudget_otel.instrumentation.sizing import BYTES_PER_TOKEN, Extent
from tokenbudget_otel.usage import TokenUsage

KIND: Final = Kind(semconv.GENERATE_CONTENT, MEDIA)

SPOKEN_TOKENS_PER_SECOND: Final = 25
"""Audio that the model speaks (Google, "Gemini API pricing": 25 tokens for a second)."""

SPOKEN_BYTES_PER_SECOND: Final = 48_000
"""The model speaks PCM, 24,000 samples of two bytes a second (Google, "Live API")."""

_INLINE: Final = re.compile(rb'"data"\s*:\s*"')
_MARKS: Final = re.compile(rb'"(?:usageMetadata|turnComplete|interrupted|toolCall|webSearchQueries)"')
_TEXT: Final = re.compile(rb'"text"\s*:\s*"((?:[^"\\]|\\.)*)"')


class GoogleLiveSession(Session):
    """Follows one connection of the Live API. The server has one turn at a time."""

    kind = KIND

    def __init__(self, door: LiveDoor, peer: Peer, model: str, config: Any) -> None:
        super().__init__(door, peer, model)
        self.settings = _with(Extent(), [get(config, part) for part in ("system_instruction", "tools")])
        # The conversation of an earlier connection, which this one takes up again, is not in sight.
        resumed = get(config, "session_resumption", "handle") is not None
        self.settings.unseen = self.settings.unseen or resumed
        self._max_output = count(get(config, "max_output_tokens")) or None
        self._modalities = tuple(
            str(getattr(name, "value", name)).upper() for name in get(config, "response_modalities") or ()
        )
        self._queries: set[str] = set()
        self._interrupted = False
        self._counted: TokenUsage | None = None
        """What was counted before the last answer of a tool, in the turn that is under way."""
        self._last: TokenUsage | None = None
        """The last count, in case that it comes again."""
        self._uncounted: Turn | None = None
        """A turn that is over, and whose count may come in the next message."""

    # --- what the program sends --------------------------------------------------------------------------------

    def sending(self, message: Any) -> Steps[Turn | None]:
        if not isinstance(message, str | bytes | bytearray | memoryview):
            return None  # a message in pieces is the program's to read
        data = message.encode() if isinstance(message, str) else bytes(message)
        if b'"realtime' in data[:40]:
            self.heard = True
            yield from self.reserve()
            return None
        event = json.loads(data)
        if (response := _either(event, "tool_response", "toolResponse")) is not None:
            if (turn := self.turns.get(None)) is not None:
                # The turn goes on: what comes now reads everything again, and is counted for itself.
                self.said = _with(self.said, response)
                yield from self.more(turn, self._max_output)
                self._counted, turn.usage = _sum(self._counted, turn.usage), None
                return None
            return (yield from self._ask(response))
        content = _either(event, "client_content", "clientContent")
        if content is None:
            return None
        if _either(content, "turn_complete", "turnComplete") is not True:
            self.said = _with(self.said, get(content, "turns"))
            return None
        return (yield from self._ask(get(content, "turns")))

    def _ask(self, asked: Any) -> Steps[Turn | None]:
        turn = yield from self.ask(_with(Extent(), asked), self._max_output)
        while len(self.waiting) > 1:  # the server answers what came before together with this
            self.give_back(self.waiting[0], None)
        return turn

    # --- what the server sends ---------------------------------------------------------------------------------

    def arrived(self, data: bytes) -> None:
        rest, spoken = _without_audio(data)
        if b'"modelTurn"' in rest and (turn := self._under_way()) is not None:
            turn.call.chunk_arrived()
            turn.audio_bytes += spoken
            for found in _TEXT.finditer(rest) if b"ranscription" not in rest else ():
                turn.text.bytes += len(found.group(1))
                turn.text.pieces += 1
        if _MARKS.search(rest) is not None:
            self._marked(json.loads(data))

    def _marked(self, event: Any) -> None:
        content, reported = get(event, "serverContent"), get(event, "usageMetadata")
        usage = live_usage(reported)
        if self.turns:
            self._interrupted = self._interrupted or get(content, "interrupted") is True
            self._queries |= queries([content])
        over = get(content, "turnComplete") is True
        if usage is not None and not self.turns and not self.waiting and not over:
            self._late(usage)
            return
        if get(event, "toolCall") is None and usage is None and not (over and (self.turns or self.waiting)):
            return
        turn = self._under_way()
        if turn is None:
            return
        if usage is not None:  # within one generation a later count replaces an earlier one
            turn.usage = usage
            turn.facts.tier = tier(reported)
        if over:
            self._over(turn, text(get(content, "turnCompleteReason")))

    def _over(self, turn: Turn, reason: str | None) -> None:
        self.turns.pop(None, None)
        total = _sum(self._counted, turn.usage)
        if total is not None and self._queries:
            model = self.model.replace("-live-", "-", 1)  # gemini-live-2.5-flash is a gemini-2.5-flash
            total = total.replace(web_searches=billed_searches(model, len(self._queries)))
        if reason is not None and not reason.endswith("UNSPECIFIED"):
            turn.facts.finish_reasons = (FINISH_REASONS.get(reason, reason.lower()),)
        else:
            turn.facts.finish_reasons = ("interrupted" if self._interrupted else "stop",)
        turn.outcome = "cancelled" if self._interrupted else "completed"
        self._counted, self._interrupted, self._queries = None, False, set()
        self._last = turn.usage
        if total is None:
            self._uncounted = turn
        else:
            self._end(turn, total)

    def _late(self, usage: TokenUsage) -> None:
        """A count outside of every turn: that of the turn before, the same again, or that of one without an answer."""
        if (turn := self._uncounted) is not None:
            self._uncounted = None
            self._end(turn, usage)
        elif usage != self._last and (turn := self._under_way()) is not None:
            self.turns.pop(None, None)
            self._end(turn, usage)
        self._last = usage

    def _under_way(self) -> Turn | None:
        """The turn that a message belongs to."""
        turn = self.turns.get(None)
        if turn is None:
            self._no_count()
            turn = self.begin(None)
        return turn

    def _no_count(self) -> None:
        """No count came for the turn that was over."""
        if (turn := self._uncounted) is not None:
            self._uncounted = None
            self._end(turn, None)

    def _end(self, turn: Turn, usage: TokenUsage | None) -> None:
        turn.facts.usage = usage
        self.finish(turn, turn.outcome, turn.facts)

    @property
    def busy(self) -> bool:
        return super().busy or self._uncounted is not None

    def ended(self, how: str, error: BaseException | None = None) -> None:
        if not self.done:
            self._no_count()
            if (turn := self.turns.get(None)) is not None and self._counted is not None:
                # What was counted before a tool's answer is known; what came after it has to be estimated.
                turn.usage = self._counted + (turn.usage or self.estimate(turn))
                turn.facts.estimated = True
            self._counted = None
        super().ended(how, error)

    # --- what the core asks ------------------------------------------------------------------------------------

    def audio_tokens(self, size: int) -> int:
        return -(-size * SPOKEN_TOKENS_PER_SECOND // SPOKEN_BYTES_PER_SECOND)

    def attributes(self) -> Mapping[str, Any]:
        attributes: dict[str, Any] = {}
        if self._modalities:
            attributes[semconv.OUTPUT_TYPE] = "speech" if "AUDIO" in self._modalities else "text"
        if self._max_output is not None:
            attributes[semconv.REQUEST_MAX_TOKENS] = self._max_output
        return attributes


def live_usage(usage: Any, searches: int | None = None) -> TokenUsage | None:
    """Usage of one turn. What ``generateContent`` and Vertex AI call candidates, AI Studio calls the response. The
    total is left aside: it does not hold the thoughts of every model.

    >>> live_usage({"promptTokenCount": 10, "responseTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 13})
    TokenUsage(input_tokens=10, output_tokens=5, reasoning_tokens=2)
    """
    if not isinstance(usage, Mapping):
        return content_usage(None, searches)
    return content_usage({_NAMES.get(name, name): value for name, value in usage.items()}, searches)


_NAMES: Final = {
    "responseTokenCount": "candidatesTokenCount",
    "responseTokensDetails": "candidatesTokensDetails",
    "totalTokenCount": "total",
}


def _without_audio(data: bytes) -> tuple[bytes, int]:
    """A message without the audio in it, and how many bytes of audio that was."""
    found = _INLINE.search(data)
    if found is None:
        return data, 0
    pieces, spoken, start = [], 0, 0
    while found is not None:
        end = data.find(b'"', found.end())
        if end < 0:
            break
        pieces.append(data[start : found.end()])
        spoken += (end - found.end()) * 3 // 4
        start = end
        found = _INLINE.search(data, end)
    pieces.append(data[start:])
    return b"".join(pieces), spoken


def _sum(first: TokenUsage | None, second: TokenUsage | None) -> TokenUsage | None:
    return first + second if first is not None and second is not None else second or first


def _with(total: Extent, contents: Any) -> Extent:
    """An extent with some more contents in it."""
    extent, audio, _ = measured(contents)
    extent.characters += audio * BYTES_PER_TOKEN
    extent.others += bool(audio)
    return joined(total, extent)


def _either(source: Any, first: str, second: str) -> Any:
    found = get(source, first)
    return get(source, second) if found is None else found


# --- the door ------------------------------------------------------------------------------------------------------


class GoogleLiveDoor(LiveDoor):
    """Stands before ``client.aio.live.connect`` of the Google Gen AI SDK."""

    provider = "gcp.gemini"

    def install(self, sdk: Any) -> None:
        self.hook_connect(sdk.live.AsyncLive)

    def wrap(self, client: Any) -> None:
        live = getattr(getattr(client, "aio", client), "live", None)
        if live is not None:
            self.hook_connect(live)

    def session(self, resource: Any, kwargs: Mapping[str, Any]) -> Session:
        api = resource._api_client
        config = kwargs.get("config")
        base_url = get(config, "http_options", "base_url") or get(api, "_http_options", "base_url") or ""
        url = urlsplit(str(base_url))
        provider = provider_of(str(base_url), "gcp.vertex_ai" if api.vertexai else self.provider)
        peer = Peer(provider, url.hostname, url.port, api_key=mark_of(get(api, "api_key")))
        model = str(kwargs.get("model") or "").rpartition("/")[2]
        return GoogleLiveSession(self, peer, model, config)

    def follow(self, connection: Any, session: Session) -> None:
        watch(connection._ws, session, sends=("send",), receives="recv")
