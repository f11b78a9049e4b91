"""OpenAI's Realtime API, also Azure's: a session over a websocket, one charge for each response.

Events arrive by the hundred, most of them audio. The type of an event is read from its first bytes, and only those
that say something of usage are parsed.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

import wrapt

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.door import Peer
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.live import Kind, LiveDoor, Session, Turn, joined, watch
from tokenbudget_otel.instrumentation.openai_usage import audio_usage
from tokenbudget_otel.instrumentation.sizing import MediaTokens, measure
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.usage import TokenUsage

KIND: Final = Kind(semconv.CHAT, MediaTokens(image=(1_100, 50_000), other=(0, None)))
"""Images as in chat completions; audio cannot be told beforehand."""

SPOKEN_TOKENS_PER_SECOND: Final = 20
"""Audio that the model speaks: a token for 50 ms (OpenAI, "Managing costs", Realtime API)."""

BYTES_PER_SECOND: Final = {"audio/pcm": 48_000, "pcm16": 48_000}
"""Audio by its format: 24,000 samples of two bytes. The others (G.711) have 8,000 bytes a second."""

_TYPE: Final = re.compile(rb'\s*\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"([\w.]+)"')
"""The type of an event, where it stands first or after the event's id, as it does in practice."""

_RESPONSE_ID: Final = re.compile(rb'"response_id"\s*:\s*"([^"\\]+)"')

TEXT_DELTAS: Final = frozenset(
    (b"response.output_text.delta", b"response.text.delta", b"response.output_audio_transcript.delta",
     b"response.audio_transcript.delta", b"response.function_call_arguments.delta")
)  # fmt: skip
AUDIO_DELTAS: Final = frozenset((b"response.output_audio.delta", b"response.audio.delta"))
"""Output as it arrives; the second name of each is that of the beta."""

NOT_OF_A_RESPONSE: Final = ("response_cancel_not_active", "input_audio_buffer", "item_", "session_")
"""Error codes, by their beginning, that do not mean that a response was refused."""


class RealtimeSession(Session):
    """Follows one Realtime connection."""

    kind = KIND

    def __init__(self, door: LiveDoor, peer: Peer, model: str) -> None:
        super().__init__(door, peer, model)
        self._transcriber: str | None = None
        self._spoken = BYTES_PER_SECOND["audio/pcm"]
        self._max_output: int | None = None

    # --- what the program sends --------------------------------------------------------------------------------

    def sending(self, message: Any) -> Turn | None:
        if isinstance(message, str | bytes | bytearray | memoryview):
            raw = message.encode() if isinstance(message, str) else bytes(message)
            found = _TYPE.match(raw)
            kind = found.group(1).decode() if found else text(get(json.loads(raw), "type"))
            if kind not in _SENDS:
                return None
            message = json.loads(raw) if kind not in _AUDIO_IN else {}
        else:
            kind = text(get(message, "type"))
        handle = _SENDS.get(kind or "")
        return handle(self, message) if handle is not None else None

    def _create(self, event: Any) -> Turn | None:
        response = get(event, "response")
        asked = measure(*(get(response, part) for part in ("instructions", "input", "tools", "prompt")))
        most = _whole(_first(get(response, "max_output_tokens"), get(response, "max_response_output_tokens")))
        return self.ask(asked, self._max_output if most is None else most, text(get(event, "event_id")))

    def _item(self, event: Any) -> None:
        self.said = joined(self.said, measure(get(event, "item")))

    def _audio(self, _event: Any) -> None:
        self.heard = True
        self.reserve()

    # --- what the server sends ---------------------------------------------------------------------------------

    def arrived(self, data: bytes) -> None:
        found = _TYPE.match(data)
        if found is not None:
            kind = found.group(1)
            if kind in AUDIO_DELTAS:
                if (turn := self._of(data)) is not None:
                    turn.call.chunk_arrived()
                    turn.audio_bytes += len(_delta(data)) * 3 // 4
                return
            if kind in TEXT_DELTAS:
                if (turn := self._of(data)) is not None:
                    turn.call.chunk_arrived()
                    turn.text.bytes += len(_delta(data))
                    turn.text.pieces += 1
                return
            if kind not in _EVENTS:
                return
            event = json.loads(data)
        else:
            event = json.loads(data)
            kind = (text(get(event, "type")) or "").encode()
        handle = _EVENTS.get(kind)
        if handle is not None:
            handle(self, event)

    def _of(self, data: bytes) -> Turn | None:
        """The turn that a delta belongs to."""
        if len(self.turns) == 1:
            return next(iter(self.turns.values()), None)
        found = _RESPONSE_ID.search(data)
        return self.turns.get(found.group(1).decode()) if found else None

    def _settings(self, event: Any) -> None:
        session = get(event, "session")
        self.response_model = text(get(session, "model")) or self.response_model
        self.settings = measure(*(get(session, part) for part in ("instructions", "tools", "prompt")))
        incoming, outgoing = get(session, "audio", "input"), get(session, "audio", "output")
        # The beta has everything at the top.
        listens = incoming if isinstance(incoming, Mapping) else session
        transcription = _first(get(listens, "transcription"), get(session, "input_audio_transcription"))
        self._transcriber = text(get(transcription, "model"))
        detection = get(listens, "turn_detection")
        answers = isinstance(detection, Mapping) and detection.get("create_response") is not False
        self.automatic = answers or transcription is not None
        form = text(get(outgoing, "format", "type")) or text(get(session, "output_audio_format")) or "audio/pcm"
        self._spoken = BYTES_PER_SECOND.get(form, 8_000)
        self._max_output = _whole(_first(get(session, "max_output_tokens"), get(session, "max_response_output_tokens")))

    def _created(self, event: Any) -> None:
        if (key := text(get(event, "response", "id"))) is not None:
            self.begin(key)

    def _done(self, event: Any) -> None:
        response = get(event, "response")
        key = text(get(response, "id")) or ""
        turn = self.turns.pop(key, None)
        if turn is None:
            # Its beginning was not seen: the program took it off the connection in another way.
            turn = self.begin(key)
            self.turns.pop(key, None)
        if turn is None:
            return
        status = text(get(response, "status"))
        facts = ResponseFacts(
            id=text(get(response, "id")),
            finish_reasons=(text(get(response, "status_details", "reason")) or status or "completed",),
            usage=realtime_usage(get(response, "usage")),
            status=status,
        )
        if (conversation := text(get(response, "conversation_id"))) is not None:
            facts.attributes[semconv.CONVERSATION_ID] = conversation
        modalities = _first(get(response, "output_modalities"), get(response, "modalities"))
        if isinstance(modalities, list):
            facts.attributes[semconv.OUTPUT_TYPE] = "speech" if "audio" in modalities else "text"
        if status == "failed":
            facts.error = _error(get(response, "status_details", "error"))
        self.finish(turn, _OUTCOMES.get(status or "", "completed"), facts)

    def _failed(self, event: Any) -> None:
        """An error event: a message of the program that the server did not accept."""
        error = get(event, "error")
        asked = text(get(error, "event_id"))
        code = text(get(error, "code")) or ""
        turns = tuple(self.waiting)
        named = [turn for turn in turns if asked is not None and turn.key == asked]
        if not named and (asked is not None or code.startswith(NOT_OF_A_RESPONSE)):
            return
        if turn := next(iter(named or turns), None):
            self.give_back(turn, _error(error))

    def _transcribed(self, event: Any) -> None:
        facts = ResponseFacts(id=text(get(event, "item_id")), usage=audio_usage(event))
        self.book(semconv.TRANSCRIPTION, self._transcriber or "", facts)

    # --- what the core asks ------------------------------------------------------------------------------------

    def audio_tokens(self, size: int) -> int:
        return -(-size * SPOKEN_TOKENS_PER_SECOND // self._spoken)

    def attributes(self) -> Mapping[str, Any]:
        return {} if self._max_output is None else {semconv.REQUEST_MAX_TOKENS: self._max_output}


_OUTCOMES: Final = {"cancelled": "cancelled", "failed": "failed"}
"""Outcomes by the status of a response; a response that is incomplete has been read to its end all the same."""

_AUDIO_IN: Final = frozenset(("input_audio_buffer.append", "input_audio_buffer.commit"))

_SENDS: Final[dict[str, Callable[[RealtimeSession, Any], Turn | None]]] = {
    "response.create": RealtimeSession._create,
    "conversation.item.create": RealtimeSession._item,
    **dict.fromkeys(_AUDIO_IN, RealtimeSession._audio),
}

_EVENTS: Final[dict[bytes, Callable[[RealtimeSession, Any], None]]] = {
    b"session.created": RealtimeSession._settings,
    b"session.updated": RealtimeSession._settings,
    b"transcription_session.updated": RealtimeSession._settings,
    b"response.created": RealtimeSession._created,
    b"response.done": RealtimeSession._done,
    b"error": RealtimeSession._failed,
    b"conversation.item.input_audio_transcription.completed": RealtimeSession._transcribed,
}


def realtime_usage(usage: Any) -> TokenUsage | None:
    """Usage of a response: everything by modality, cached tokens inside the input.

    >>> realtime_usage({"input_tokens": 10, "output_tokens": 3, "input_token_details": {"audio_tokens": 10}})
    TokenUsage(input_tokens=10, output_tokens=3, input_audio_tokens=10)
    """
    if usage is None:
        return None
    incoming, outgoing = get(usage, "input_token_details"), get(usage, "output_token_details")
    cached = get(incoming, "cached_tokens_details")
    return (
        TokenUsage.reading(
            {
                "input_tokens": get(usage, "input_tokens"),
                "output_tokens": get(usage, "output_tokens"),
                "cache_read_tokens": get(incoming, "cached_tokens"),
                "reasoning_tokens": get(outgoing, "reasoning_tokens"),
                **{f"input_{name}": get(incoming, name) for name in _INCOMING},
                **{f"cache_read_{name}": get(cached, name) for name in _INCOMING},
                **{f"output_{name}": get(outgoing, name) for name in ("text_tokens", "audio_tokens")},
            }
        )
        or None
    )


_INCOMING: Final = ("text_tokens", "audio_tokens", "image_tokens")


def _delta(data: bytes) -> bytes:
    """The piece of output in a delta, as it stands in the JSON."""
    start = data.find(b'"', data.find(b":", data.find(b'"delta"') + 7)) + 1
    end = data.find(b'"', start)
    while end > 0 and data[end - 1] == 0x5C:  # an escaped quote, or an escaped backslash: then a little is missing
        end = data.find(b'"', end + 1)
    return data[start:end] if 0 < start < end else b""


def _error(error: Any) -> tuple[str, str]:
    kind = text(get(error, "code")) or text(get(error, "type")) or "error"
    return kind, text(get(error, "message")) or kind


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


# --- the door ------------------------------------------------------------------------------------------------------


class RealtimeDoor(LiveDoor):
    """Stands before ``realtime.connect`` of the OpenAI SDK, and before that of its beta.

    Args:
        peer: says who a client talks to.
    """

    provider = "openai"

    def __init__(self, telemetry: Telemetry, meter: Meter, peer: Callable[[Any], Peer]) -> None:
        super().__init__(telemetry, meter)
        self._peer = peer

    def install(self, sdk: Any) -> None:
        _hook_when_imported(self, None)

    def wrap(self, client: Any) -> None:
        _wrapped[client] = self
        if not _before_wrapped:
            _before_wrapped.append(LiveDoor(self.telemetry, self.meter))
            _hook_when_imported(_before_wrapped[0], _door_of)

    def unhook(self) -> None:
        super().unhook()
        for client in [client for client, door in _wrapped.items() if door is self]:
            del _wrapped[client]
        if not _wrapped and _before_wrapped:
            _before_wrapped.pop().unhook()

    def session(self, resource: Any, kwargs: Mapping[str, Any]) -> Session:
        query = kwargs.get("extra_query")
        asked = text(kwargs.get("model")) or text(get(query, "model")) or ""
        return RealtimeSession(self, self._peer(resource._client), asked)

    def follow(self, connection: Any, session: Session) -> None:
        watch(connection, session, sends=("send", "send_raw"), receives="recv_bytes")


_wrapped: Final[weakref.WeakKeyDictionary[Any, RealtimeDoor]] = weakref.WeakKeyDictionary()
"""The clients that have a door of their own. A client makes its ``realtime`` when it is first asked for, and copies of
clients are made for single requests: one hook before the class serves them all."""

_before_wrapped: Final[list[LiveDoor]] = []
"""That hook, while there is such a client."""


def _door_of(resource: Any) -> RealtimeDoor | None:
    return _wrapped.get(resource._client)


def _hook_when_imported(door: LiveDoor, door_of: Callable[[Any], LiveDoor | None] | None) -> None:
    """Half a second of imports, which only a program that speaks live makes: the door waits for them."""

    def imported(module: Any) -> None:
        try:
            for name in ("Realtime", "AsyncRealtime"):
                if door.is_open:
                    door.hook_connect(getattr(module, name), door_of)
        except Exception as error:
            log_once("instrument live connections", error)

    for name in MODULES:
        wrapt.register_post_import_hook(imported, name)


MODULES: Final = ("openai.resources.realtime.realtime", "openai.resources.beta.realtime.realtime")
"""Where live connections are opened."""
