"""OpenAI's Realtime API, and its Responses API over a websocket, also Azure's: one charge for each response.

Events arrive by the hundred, most of them audio. The type of an event is read from its first bytes, and only those
that say something of usage are parsed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import wrapt

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets.steps import Steps
from tokenbudget_otel.instrumentation.call import LlmCall, open_request
from tokenbudget_otel.instrumentation.capture import Capture
from tokenbudget_otel.instrumentation.content import capturing
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.failures import UNBILLED_STATUS
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.live import Kind, LiveDoor, Session, Turn, joined, taken, watch
from tokenbudget_otel.instrumentation.openai_usage import audio_usage
from tokenbudget_otel.instrumentation.sizing import MediaTokens, measure
from tokenbudget_otel.instrumentation.stainless import StainlessDoor
from tokenbudget_otel.instrumentation.streams import conclude
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, Request, Size, Ticket
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


RAW: Final = (str, bytes, bytearray, memoryview)
"""A message as the program writes it itself."""


class RealtimeSession(Session):
    """Follows one Realtime connection."""

    kind = KIND

    def __init__(self, door: LiveDoor, peer: Peer, model: str) -> None:
        super().__init__(door, peer, model)
        self._transcriber: str | None = None
        self._spoken = BYTES_PER_SECOND["audio/pcm"]
        self._max_output: int | None = None
        self._written = False
        """Whether the session answers in writing, as the server has said last."""

    # --- what the program sends --------------------------------------------------------------------------------

    def sending(self, message: Any) -> Steps[Turn | None]:
        if isinstance(message, RAW):
            raw = _bytes(message)
            found = _TYPE.match(raw)
            kind = found.group(1).decode() if found else text(get(json.loads(raw), "type"))
            if kind not in _SENDS:
                return None
            message = json.loads(raw) if kind not in _AUDIO_IN else {}
        else:
            kind = text(get(message, "type"))
        handle = _SENDS.get(kind or "")
        return (yield from handle(self, message)) if handle is not None else None

    def _create(self, event: Any) -> Steps[Turn | None]:
        response = get(event, "response")
        asked = measure(*(get(response, part) for part in ("instructions", "input", "tools", "prompt")))
        modalities = _modalities(response)
        # Audio that is asked for once is read again in every later turn; so is what a stored prompt brings.
        if modalities not in (None, ["text"]) or get(response, "prompt") is not None:
            self.plain = False
        if not all(map(_in_words, _listed(get(response, "input")))):
            self.plain = False
        self.text_only = self._written or modalities is not None
        most = _whole(_first(get(response, "max_output_tokens"), get(response, "max_response_output_tokens")))
        return (yield from self.ask(asked, self._max_output if most is None else most, text(get(event, "event_id"))))

    def _item(self, event: Any) -> Steps[None]:
        item = get(event, "item")
        self.plain = self.plain and _in_words(item)
        self.said = joined(self.said, measure(item))
        yield from ()

    def _update(self, event: Any) -> Steps[None]:
        # Writing counts once the server has agreed to it; speech from the moment that it is asked for.
        if _modalities(get(event, "session")) not in (None, ["text"]):
            self.plain = False
        yield from ()

    def _audio(self, _event: Any) -> Steps[None]:
        self.heard, self.plain = True, False
        yield from self.reserve()

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
        self._written = _modalities(session) == ["text"]
        self.plain = self.plain and get(session, "prompt") is None

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
        modalities = _modalities(response)
        if isinstance(modalities, list):
            self.plain = self.plain and modalities == ["text"]
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

_SENDS: Final[dict[str, Callable[[RealtimeSession, Any], Steps[Turn | None]]]] = {
    "response.create": RealtimeSession._create,
    "conversation.item.create": RealtimeSession._item,
    "session.update": RealtimeSession._update,
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


def _modalities(source: Any) -> Any:
    """How a session or a response answers; the second name is that of the beta."""
    found = _first(get(source, "output_modalities"), get(source, "modalities"))
    return list(found) if isinstance(found, tuple) else found


def _in_words(item: Any) -> bool:
    """Whether an item of a conversation holds text only, as far as can be told."""
    content = get(item, "content")
    if not isinstance(get(item, "output"), str | None):
        return False
    return all(get(part, "type") in WORDS for part in _listed(content))


def _listed(value: Any) -> Iterable[Any]:
    """``value`` as a list; what is none counts as one part that is not known."""
    return () if value is None else value if isinstance(value, list | tuple) else (value,)


WORDS: Final = frozenset(("input_text", "output_text", "text"))
"""Parts of a message that are text."""


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


# --- responses over a websocket ------------------------------------------------------------------------------------

_LANE: Final = re.compile(rb'"stream_id"\s*:\s*"([^"\\]+)"')

UNSEEN_TOOL: Final = {"type": "unseen"}
"""Stands for tools that cannot be looked at without using them up: an iterator is the program's."""

REMEMBERED: Final = 32
"""Responses of one connection that the next ones are known to go on from."""


class ResponseTurn(Turn):
    """One response: a ``POST /responses`` whose answer comes as the events of its stream.

    Attributes:
        opened: the call, as it would be over HTTP.
        reader: reads its events.
        lane: the ``stream_id`` that its events have.
    """

    __slots__ = ("lane", "opened", "reader")

    def __init__(self, opened: Opened, lane: str | None, capture: Capture, *, admitted: bool = True) -> None:
        super().__init__(opened.call, None, admitted=admitted)
        endpoint = opened.endpoint
        assert endpoint.stream is not None
        form = endpoint.stream(opened.body, opened.peer.provider)
        if capture and endpoint.content is not None:
            form = capturing(form, endpoint.content, capture.kept_bytes)
        self.opened, self.lane, self.reader = opened, lane, form.reader(False)


class ResponsesSession(Session):
    """Follows one connection of the Responses API. Responses of one lane come one after the other; a response that is
    steered is followed by another one, which the server begins by itself."""

    kind = KIND

    def __init__(self, door: ResponsesDoor, peer: Peer, endpoint: Endpoint) -> None:
        super().__init__(door, peer, "")
        self._sdk = door.sdk
        self._endpoint = endpoint
        self._settings_of: dict[str, Body] = {}
        """What the last responses were asked with."""
        self._tokens_of: dict[str, int] = {}
        """What they came to: the history of those that go on from them."""
        self._steered: dict[str, list[Ticket]] = {}
        """What is reserved for the successors of responses, by the response that was steered."""

    # --- what the program sends --------------------------------------------------------------------------------

    def sending(self, message: Any) -> Steps[Turn | None]:
        if isinstance(message, RAW):
            message = json.loads(_bytes(message))
        elif not isinstance(message, Mapping):
            message = message.to_dict(warnings=False)
        handle = _ASKS.get(text(get(message, "type")) or "")
        asks = handle is not None and self.door.is_open and not self.done
        return (yield from handle(self, message)) if handle is not None and asks else None

    def _create(self, message: Body) -> Steps[Turn | None]:
        # Over a websocket every response is streamed.
        body = {**message, "stream": True}
        if not isinstance(body.get("tools") or (), list | tuple):
            body["tools"] = (UNSEEN_TOOL,)
        parent = text(body.get("previous_response_id"))
        opened = self._sdk.admit(self.peer, self._sized(body), body, tier=text(body.get("service_tier")))
        yield from opened.call._beginning()
        if parent is not None:
            self._give_back_steered(parent)  # this response takes in what the steering said
        turn = self._turn_of(opened, text(body.get("stream_id")))
        self.waiting.append(turn)
        if self.done:  # it ended meanwhile
            self.give_back(turn, None)
            return None
        return turn

    def _steer(self, message: Body) -> Steps[None]:
        parent = text(message.get("previous_response_id")) or ""
        body = {
            **self._settings_of.get(parent, {}), "input": message.get("input"), "previous_response_id": parent
        }  # fmt: skip
        ticket = yield from self._admit(self._asks(body))
        self._steered.setdefault(parent, []).append(ticket)
        if self.done:
            self._give_back_steered(parent)

    def _asks(self, body: Body) -> Request:
        endpoint = self._sized(body)
        return open_request(
            self.peer.provider,
            text(body.get("model")) or self.response_model or "",
            endpoint.operation,
            functools.partial(endpoint.size, body, None),
            tier=text(body.get("service_tier")),
            api_key=self.peer.api_key,
        )

    def _sized(self, body: Body) -> Endpoint:
        """The endpoint, for a request that may go on from a response of which the size is known."""
        before = self._tokens_of.get(text(body.get("previous_response_id")) or "")
        size = functools.partial(_size, self._endpoint.size, before)
        return dataclasses.replace(self._endpoint, size=size, changes=None)

    def _turn_of(self, opened: Opened, lane: str | None, *, admitted: bool = True) -> ResponseTurn:
        return ResponseTurn(opened, lane, self._sdk.telemetry.capture, admitted=admitted)

    def _give_back_steered(self, parent: str, most: int | None = None) -> None:
        tickets = self._steered.get(parent, [])
        for ticket in tickets[:most]:
            self.door.meter.release(ticket)
        del tickets[:most]
        if not tickets:
            self._steered.pop(parent, None)

    # --- what the server sends ---------------------------------------------------------------------------------

    def arrived(self, data: bytes) -> None:
        found = _TYPE.match(data)
        kind = found.group(1) if found else (text(get(json.loads(data), "type")) or "").encode()
        if kind.endswith(b".delta"):
            if (turn := self._under_way(data)) is not None:
                turn.call.chunk_arrived()
                turn.text.bytes += len(_delta(data))
                turn.text.pieces += 1
        elif (handle := _ANSWERS.get(kind)) is not None:
            handle(self, data, json.loads(data))

    def _under_way(self, data: bytes) -> Turn | None:
        if len(self.turns) == 1:
            return next(iter(self.turns.values()), None)
        found = _LANE.search(data)
        return self.turns.get(found.group(1).decode() if found else None)

    def _began(self, data: bytes, event: Any) -> ResponseTurn | None:
        lane, response = text(get(event, "stream_id")), get(event, "response")
        if (before := self.turns.pop(lane, None)) is not None:
            self.finish(before, "cut", before.facts)  # its end did not come
        turn = self._next_of(lane, text(get(response, "previous_response_id")))
        if turn is None:
            return None
        self.turns[lane] = turn
        turn.reader.event(data)
        self.response_model = turn.reader.facts.model or self.response_model
        if (name := turn.reader.facts.id) is not None:
            settings = {key: value for key, value in turn.opened.body.items() if key != "input"}
            _remember(self._settings_of, name, settings)
        return turn

    def _over(self, data: bytes, event: Any) -> None:
        lane, name = text(get(event, "stream_id")), text(get(event, "response", "id"))
        turn: Any = self.turns.get(lane)
        if turn is None:
            if name in self._settings_of:
                return  # it has ended before, with an error
            turn = self._began(data, event)  # its beginning was not seen
        if turn is None:
            return
        self.turns.pop(lane, None)
        turn.reader.event(data)
        usage = turn.reader.facts.usage
        if name is not None and usage is not None and usage.input_tokens is not None:
            _remember(self._tokens_of, name, usage.input_tokens + (usage.output_tokens or 0))
        self.finish(turn, "read", turn.facts)

    def _failed(self, data: bytes, event: Any) -> None:
        """An error: of the response that is under way, or a request that the server did not accept."""
        lane = text(get(event, "stream_id"))
        turn: Any = self.turns.get(lane)
        if get(event, "sequence_number") is not None and turn is not None:
            del self.turns[lane]
            turn.reader.event(data)
            self.finish(turn, "read", turn.facts)
            return
        turn = next((turn for turn in tuple(self.waiting) if turn.lane == lane), None)  # type: ignore[attr-defined]
        if turn is None:
            return
        turn.reader.event(data)
        error, status = turn.reader.facts.error, get(event, "status")
        if not isinstance(status, int) or status in UNBILLED_STATUS:
            self.give_back(turn, error)
        else:
            self.waiting.remove(turn)
            self._sdk.finish(turn.opened, "failed", ResponseFacts(error=error, estimated=True))

    def _not_steered(self, _data: bytes, event: Any) -> None:
        self._give_back_steered(text(get(event, "steer", "previous_response_id")) or "", 1)

    def _next_of(self, lane: str | None, parent: str | None) -> ResponseTurn | None:
        """The response that begins: one that was asked for, or the successor of one that was steered."""
        if parent is None or parent not in self._steered:
            for turn in tuple(self.waiting):
                if turn.lane == lane:  # type: ignore[attr-defined]
                    self.waiting.remove(turn)
                    return turn  # type: ignore[return-value]
        return self._context.copy().run(self._successor, lane, parent) if self.door.is_open else None

    def _successor(self, lane: str | None, parent: str | None) -> ResponseTurn:
        body = {**self._settings_of.get(parent or "", {}), "previous_response_id": parent}
        ticket = taken(self._steered.get(parent or "", []))
        if parent is not None:
            self._give_back_steered(parent)
        request = self._asks(body) if ticket is None else ticket.request
        door = self._sdk
        call = LlmCall(
            door.telemetry,
            door.meter,
            request,
            server=self.peer.server,
            attributes=functools.partial(self._endpoint.attributes, body),
            admit=False,
        ).begin()
        if ticket is not None:
            call.ticket = ticket
        return self._turn_of(Opened(call, self._endpoint, body, self.peer), lane, admitted=ticket is not None)

    # --- the end -----------------------------------------------------------------------------------------------

    def finish(self, turn: Any, outcome: str, facts: ResponseFacts, error: BaseException | None = None) -> None:
        """End a response as if its events had come over HTTP."""
        how = "read" if outcome == "cut" else outcome
        outcome, facts = conclude(turn.reader, how, error, turn.call, lambda: turn.text.tokens)
        if turn.admitted:
            self._sdk.finish(turn.opened, outcome, facts)
        else:
            turn.call.finish(outcome, facts, book=functools.partial(self.door.meter.record, turn.call.request))

    def release(self) -> None:
        super().release()
        for parent in tuple(self._steered):
            self._give_back_steered(parent)

    @property
    def busy(self) -> bool:
        return super().busy or bool(self._steered)


_ASKS: Final[dict[str, Callable[[ResponsesSession, Any], Steps[Turn | None]]]] = {
    "response.create": ResponsesSession._create,
    "response.steer": ResponsesSession._steer,
}

_ANSWERS: Final[dict[bytes, Callable[[ResponsesSession, bytes, Any], Any]]] = {
    b"response.created": ResponsesSession._began,
    **dict.fromkeys(
        (b"response.completed", b"response.incomplete", b"response.failed", b"response.cancelled"),
        ResponsesSession._over,
    ),
    b"response.steer.failed": ResponsesSession._not_steered,
    b"error": ResponsesSession._failed,
}


def _size(size: Callable[[Body, Any], Size], before: int | None, body: Body, options: Any) -> Size:
    """How large a request is that goes on from one whose tokens are known; ``None``: they are not."""
    asked = size(body if before is None else {**body, "previous_response_id": None}, options)
    if before is not None:
        bound = asked.input_bound
        # What was said before may have been pictures.
        asked = dataclasses.replace(
            asked,
            input_tokens=asked.input_tokens + before,
            input_bound=None if bound is None else bound + before,
            text_only=False,
        )
    if body.get("generate") is False:  # the request is only made ready
        asked = dataclasses.replace(asked, expected_output_tokens=0)
    return asked


def _remember(known: dict[str, Any], name: str, value: Any) -> None:
    known.pop(name, None)
    known[name] = value
    while len(known) > REMEMBERED:
        del known[next(iter(known))]


def _bytes(message: Any) -> bytes:
    return message.encode() if isinstance(message, str) else bytes(message)


# --- the doors -----------------------------------------------------------------------------------------------------


class Place:
    """Where the SDK opens connections of one kind, and which clients have a door of their own there.

    A client makes its ``realtime`` when it is first asked for, and copies of clients are made for single requests: one
    hook before the class serves them all.
    """

    def __init__(self, modules: tuple[str, ...], classes: tuple[str, ...]) -> None:
        self.modules = modules
        self.classes = classes
        self.wrapped: weakref.WeakKeyDictionary[Any, SocketDoor] = weakref.WeakKeyDictionary()
        self.before_wrapped: list[LiveDoor] = []
        """That hook, while there is such a client."""

    def door_of(self, resource: Any) -> LiveDoor | None:
        return self.wrapped.get(resource._client)

    def hook_when_imported(self, door: LiveDoor, door_of: Callable[[Any], LiveDoor | None] | None) -> None:
        """Half a second of imports, which only a program that speaks live makes: the door waits for them."""

        def imported(module: Any) -> None:
            try:
                for name in self.classes:
                    owner = getattr(module, name)
                    if door.is_open and hasattr(owner, "connect"):  # early versions 2 have none for responses
                        door.hook_connect(owner, door_of)
            except Exception as error:
                log_once("instrument live connections", error)

        for name in self.modules:
            wrapt.register_post_import_hook(imported, name)


class SocketDoor(LiveDoor):
    """Stands before the method ``connect`` of a resource of the OpenAI SDK."""

    provider = "openai"
    place: ClassVar[Place]

    def install(self, sdk: Any) -> None:
        self.place.hook_when_imported(self, None)

    def wrap(self, client: Any) -> None:
        place = self.place
        place.wrapped[client] = self
        if not place.before_wrapped:
            place.before_wrapped.append(LiveDoor(self.telemetry, self.meter))
            place.hook_when_imported(place.before_wrapped[0], place.door_of)

    def unhook(self) -> None:
        super().unhook()
        place = self.place
        for client in [client for client, door in place.wrapped.items() if door is self]:
            del place.wrapped[client]
        if not place.wrapped and place.before_wrapped:
            place.before_wrapped.pop().unhook()

    def follow(self, connection: Any, session: Session) -> None:
        watch(connection, session, sends=("send", "send_raw"), receives="recv_bytes")


class RealtimeDoor(SocketDoor):
    """Stands before ``realtime.connect`` of the OpenAI SDK, and before that of its beta.

    Args:
        peer: says who a client talks to.
    """

    place = Place(
        ("openai.resources.realtime.realtime", "openai.resources.beta.realtime.realtime"),
        ("Realtime", "AsyncRealtime"),
    )

    def __init__(self, telemetry: Telemetry, meter: Meter, peer: Callable[[Any], Peer]) -> None:
        super().__init__(telemetry, meter)
        self._peer = peer

    def session(self, resource: Any, kwargs: Mapping[str, Any]) -> Session:
        query = kwargs.get("extra_query")
        asked = text(kwargs.get("model")) or text(get(query, "model")) or ""
        session = RealtimeSession(self, self._peer(resource._client), asked)
        # What was said in a call before it was joined is not in sight.
        session.plain = not (text(kwargs.get("call_id")) or text(get(query, "call_id")))
        return session


class ResponsesDoor(SocketDoor):
    """Stands before ``responses.connect`` of the OpenAI SDK.

    Args:
        sdk: the door through which the same requests go over HTTP: it knows the endpoint, and ends the calls.
    """

    place = Place(("openai.resources.responses.responses",), ("Responses", "AsyncResponses"))

    def __init__(self, telemetry: Telemetry, meter: Meter, sdk: StainlessDoor) -> None:
        super().__init__(telemetry, meter)
        self.sdk = sdk

    def session(self, resource: Any, kwargs: Mapping[str, Any]) -> Session:
        endpoint = self.sdk.endpoint("post", "/responses")
        assert endpoint is not None
        return ResponsesSession(self, self.sdk.peer(resource._client), endpoint)
