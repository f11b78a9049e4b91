"""Streams are looked at when they have ended. What is found, shown and counted is what a look at every piece gives."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenbudget_otel.instrumentation import (
    anthropic,
    cohere_streams,
    envelopes,
    mistralai_streams,
    openai,
    pending,
)
from tokenbudget_otel.instrumentation import google_interactions as google
from tokenbudget_otel.instrumentation.bodies import _Body
from tokenbudget_otel.instrumentation.pending import NULL_USAGE, Pending
from tokenbudget_otel.instrumentation.sse import EventScanner
from tokenbudget_otel.instrumentation.streams import StreamFormat

FORMATS: dict[str, StreamFormat] = {
    "chat": openai._chunks({}, "openai"),
    "groq": openai._chunks({}, "groq"),
    "responses": openai._events({}, "openai"),
    "speech": openai._media("speech")({}, "openai"),
    "anthropic": anthropic._events({}, "anthropic"),
    "mistral": mistralai_streams.COMPLETION,
    "conversation": mistralai_streams.CONVERSATION,
    "cohere": cohere_streams.EVENTS,
    "google": google._events({}, "gcp.gemini"),
}

WORDS = (
    "so", " the", "", " Ünder", 'a "quoted" one', "\n", "\n\n", "[DONE]", "x_groq", 'say "usage":null', '{"usage":{}}',
    "message-end", "data: x", "event: ping", "\\", '"', "message_delta", '"error":{', '"finish_reason":"stop"', "5",
    "usage", "error",
)  # fmt: skip
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
FINAL = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}


def chat(word: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}],
    } | more


def typed(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


PLAIN: tuple[Any, ...] = (
    lambda word: chat(word),
    lambda word: chat(word, usage=None),
    lambda word: chat(word, usage=None, obfuscation="abcdefg"[: len(word) % 7]),
    lambda word: chat(word, usage=USAGE),
    lambda word: chat("", choices=[{"index": 1, "delta": {"reasoning_content": word}, "finish_reason": None}]),
    lambda word: typed("response.output_text.delta", item_id="i", delta=word, sequence_number=len(word)),
    lambda word: typed("response.reasoning_summary_text.delta", item_id="i", delta=word),
    lambda word: typed("content_block_delta", index=0, delta={"type": "text_delta", "text": word}),
    lambda word: typed("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": word}),
    lambda word: typed("content-delta", index=0, delta={"message": {"content": {"text": word}}}),
    lambda word: {"event_type": "step.delta", "delta": {"text": word}},
    lambda word: {word: {"usage": None}},
)
EMPTY = re.compile(rb"\n{3,}")
SEEDS = st.integers(0, 2**32)
RESPONSE = {"id": "r", "model": "m", "status": "completed", "usage": FINAL}
ODD: tuple[Any, ...] = (
    chat("", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
    chat("", choices=[{"index": 1, "delta": {}, "finish_reason": "length"}], usage=None),
    chat("", choices=[], usage=USAGE),
    chat("", choices=[], usage=None),
    chat("", choices=[{"index": 0, "delta": {}, "usage": USAGE, "finish_reason": "stop"}]),
    chat("", x_groq={"usage": USAGE}),
    {"error": {"message": "no", "type": "server_error"}},
    typed("error", error={"type": "overloaded_error", "message": "no"}),
    typed("response.created", response={"id": "r", "model": "m", "status": "in_progress"}),
    typed("response.completed", response=RESPONSE),
    typed("response.failed", response=RESPONSE | {"status": "failed", "error": {"code": "c", "message": "m"}}),
    typed("message_start", message={"id": "a", "model": "m", "usage": FINAL | {"service_tier": "standard"}}),
    typed("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    typed("content_block_start", index=1, content_block={"type": "server_tool_use", "name": "code_execution"}),
    typed("content_block_stop", index=0),
    typed("ping"),
    typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5}),
    typed("message_stop"),
    typed("message-start", id="c"),
    typed("message-end", delta={"finish_reason": "COMPLETE", "usage": {"tokens": FINAL}}),
    typed("conversation.response.done", usage=USAGE),
    typed("speech.audio.done", usage=FINAL),
    {"event_type": "interaction.completed", "interaction": {"id": "i", "model": "m", "usage": {"total_tokens": 4}}},
    "[DONE]",
    "{broken",
    "",
)


def written(event: Any, style: int) -> bytes:
    """An event as servers write it, with and without spaces, names and comments."""
    text = event if isinstance(event, str) else json.dumps(event, separators=(", ", ": ") if style & 1 else (",", ":"))
    named = style & 2 and isinstance(event, dict) and isinstance(event.get("type"), str)
    lines = [f"event: {event['type']}"] if named else []
    lines += [": a comment"] if style & 4 and style & 8 else []
    return ("\n".join([*lines, ("data:" if style & 16 else "data: ") + text]) + "\n\n" + "\n" * (style >> 5)).encode()


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The pieces of a stream: runs of plain events with odd ones between, whole, in pieces, and cut off."""
    dice = random.Random(draw(SEEDS))
    style = draw(st.sampled_from((0, 0, 1, 2, 3, 16, 32)))
    events: list[bytes] = []
    for _ in range(draw(st.integers(0, 4))):
        events += [written(dice.choice(ODD), style) for _ in range(dice.choice((0, 0, 1, 2, 4)))]
        kinds = [dice.choice(PLAIN) for _ in range(dice.choice((1, 1, 2)))]
        words = WORDS if dice.random() < 0.5 else ("so", " the", " it", "", "5")
        events += [written(dice.choice(kinds)(dice.choice(words)), style) for _ in range(dice.choice((0, 1, 12, 30)))]
    events += [written(dice.choice(ODD), style ^ dice.choice((0, 0, 12))) for _ in range(draw(st.integers(0, 3)))]
    body = b"".join(events)
    if draw(st.booleans()) and draw(st.booleans()):
        body = body.replace(b"\n", b"\r\n")
        events = body.split(b"\r\n\r\n")
        events = [event + b"\r\n\r\n" for event in events[:-1]]
    how = draw(st.sampled_from(("whole", "whole", "damaged", "together", "anywhere")))
    if how == "whole":
        pieces = events
    elif how == "damaged":
        pieces = [event[: dice.randrange(len(event))] if dice.random() < 0.05 else event for event in events]
    elif how == "together":
        pieces = []
        while events:
            count = dice.choice((1, 1, 1, 2, 5))
            pieces, events = [*pieces, b"".join(events[:count])], events[count:]
    else:
        cuts = sorted(dice.sample(range(len(body)), min(len(body), dice.choice((1, 5, 40)))))
        pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    if draw(st.booleans()):
        pieces = pieces[: dice.randrange(len(pieces) + 1)]
        if pieces and dice.random() < 0.5:
            pieces[-1] = pieces[-1][: dice.randrange(len(pieces[-1]) + 1)]
    return pieces


class Told:
    """A reader, and what it was told."""

    def __init__(self, form: StreamFormat, hide: bool) -> None:
        self.reader: Any = form.reader(hide)
        self.events: list[bytes] = []

    def event(self, data: bytes) -> bool:
        self.events.append(data)
        return bool(self.reader.event(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)


def scanner(form: StreamFormat, told: Told, hide: bool) -> EventScanner:
    strip = NULL_USAGE if hide else None
    return EventScanner(form.marks, form.hints, form.text, told.event, withhold=hide, strip=strip, void=form.void)


def said(told: Told, scan: EventScanner) -> tuple[Any, ...]:
    return told.events, told.complete, told.usage_is_final, repr(told.facts), scan.text_tokens()


def at_once(form: StreamFormat, pieces: list[bytes], hide: bool, read: bool) -> tuple[Any, ...]:
    told = Told(form, hide)
    scan = scanner(form, told, hide)
    shown, counts = [], []
    for piece in pieces:
        before = scan.chunks
        shown.append(scan.feed(piece))
        counts.append(scan.chunks - before)
    if read:
        shown.append(scan.finish())
    return shown, counts, said(told, scan)


def later(form: StreamFormat, pieces: list[bytes], hide: bool, read: bool, asks: random.Random) -> tuple[Any, ...]:
    told = Told(form, hide)
    scan = scanner(form, told, hide)
    put_down = Pending(told, scan, strips=hide)
    counts: list[int] = []
    arrived = put_down._arrived

    def noting(_: Pending, times: list[float], made: list[tuple[int, int]]) -> None:
        counts.extend(dict(made).get(place, 1) for place in range(len(times)))
        arrived(times, made)

    class Watcher:
        done = True
        pending = put_down
        rest = put_down.rest if read else bytes

        def ended(self, *_: Any) -> None: ...

    def source() -> Iterator[bytes]:
        for piece in pieces:
            begun.append(len(got))
            yield piece
        begun.append(len(got))

    got: list[bytes] = []
    begun: list[int] = []
    with mock.patch.object(Pending, "_arrived", noting):
        for piece in _Body(source(), Watcher()):
            got.append(piece)
            if asks.random() < 0.03:
                assert put_down.usage_is_final == told.usage_is_final
        put_down.look()
    shown = [b"".join(got[start:end]) for start, end in pairwise(begun)] + [b"".join(got[begun[-1] :])] * read
    if sum(counts):
        assert len(put_down.gaps) == sum(counts) - 1
    return shown, counts, said(told, scan)


def without_empty(shown: list[bytes]) -> bytes:
    return EMPTY.sub(b"\n\n", b"".join(shown).replace(b"\r\n", b"\n")).strip()


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None)
@given(streams(), st.booleans(), SEEDS, st.sampled_from((200, 2000, pending.ROOM)))
def test_a_late_look_finds_what_a_look_at_every_piece_finds(
    name: str, pieces: list[bytes], read: bool, seed: int, room: int
) -> None:
    form = FORMATS[name]
    hides = (False, True) if name in ("chat", "groq") else (False,)
    for hide in hides:
        with mock.patch.object(pending, "ROOM", room):
            shown, *found = later(form, pieces, hide, read, random.Random(seed))
            expected, *wanted = at_once(form, pieces, hide, read)
        assert found == wanted
        if EMPTY.search(b"".join(pieces).replace(b"\r\n", b"\n")) is None:
            assert shown == expected
        elif read:  # empty lines say nothing, and may go with the event before them or the next
            assert without_empty(shown) == without_empty(expected)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_left_out_of_the_search_is_no_part_of_a_mark(name: str) -> None:
    form = FORMATS[name]
    for nothing in form.void:
        assert any(hint in nothing for hint in form.hints)
        assert form.marks.search(nothing) is None
        # A hint that stands half in it would not be seen.
        for hint in form.hints:
            for size in range(2, len(hint)):
                assert not nothing.startswith(hint[-size:]) and not nothing.endswith(hint[:size])


def test_plain_events_are_not_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is for: of 1,000 events a handful is searched."""
    form = FORMATS["chat"]
    told = Told(form, False)
    scan = scanner(form, told, False)
    fed: list[bytes] = []
    feed = scan.feed
    monkeypatch.setattr(EventScanner, "feed", lambda _, piece: (fed.append(piece), feed(piece))[1])
    pieces = [written(PLAIN[1](" word" * (number % 3)), 0) for number in range(1_000)]
    pieces += [written(ODD[0], 0), written(ODD[2], 0), b"data: [DONE]\n\n"]
    put_down = Pending(told, scan, strips=False)
    put_down.pieces += pieces
    put_down.times += map(float, range(len(pieces)))
    assert put_down.usage_is_final and put_down.complete
    assert fed == [pieces[0], *pieces[-3:]]
    assert list(put_down.gaps) == [1.0] * 1_001
    assert scan.text_tokens() == (333 * 5 + 333 * 10 + 3) // 4


def test_words_with_padding_and_without_usage_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI pads its chunks after the usage that says null: the padding is part of the word, and so is that."""
    form = FORMATS["chat"]
    told = Told(form, False)
    scan = scanner(form, told, False)
    fed: list[bytes] = []
    feed = scan.feed
    monkeypatch.setattr(EventScanner, "feed", lambda _, piece: (fed.append(piece), feed(piece))[1])
    pieces = [written(PLAIN[2](" word" * (1 + number % 3)), 0) for number in range(300)]
    pieces += [written(ODD[1], 0), written(ODD[2], 0), b"data: [DONE]\n\n"]
    assert scan.feed_all(pieces) == [(302, 0)]
    assert fed == [pieces[0], *pieces[-3:]]
    assert scan.text_tokens() == (99 * 5 + 100 * 10 + 100 * 15 + 5 + 3) // 4


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None)
@given(streams(), st.sampled_from(((0, 0), (7, 3), (20, 4), (60, 12), (400, 2))))
def test_events_that_are_alike_are_plain_whatever_was_known_before(
    name: str, pieces: list[bytes], known: tuple[int, int]
) -> None:
    form = FORMATS[name]
    if len(pieces) < 12:
        return
    with mock.patch.dict(envelopes._sizes, {form.hints: known}):
        found = envelopes.alike(pieces, form.hints, form.void)
    if found is None:
        return
    odd, prefix, suffix, words = found
    assert odd == sorted(set(odd))
    plain = [piece for place, piece in enumerate(pieces) if place not in odd]
    assert envelopes.between(prefix, suffix, words) == b"".join(plain)
    assert len(words.split(b"\n")) == len(plain)
    for piece in plain:
        assert piece.startswith(prefix) and piece.endswith(suffix) and len(piece) >= len(prefix) + len(suffix)
        assert form.marks.search(piece) is None


def test_a_look_does_not_wait_for_another_one() -> None:
    """It may be further out on the same thread: a span that ends inside of it asks what the call costs."""
    form = FORMATS["chat"]
    told = Told(form, False)
    put_down = Pending(told, scanner(form, told, False), strips=False)
    put_down.times.append(1.0)
    put_down.pieces.append(written(ODD[2], 0))
    with put_down._lock:
        assert not put_down.usage_is_final
    assert put_down.usage_is_final


def test_nothing_is_lost_or_taken_twice_where_others_look_meanwhile() -> None:
    form = FORMATS["chat"]
    told = Told(form, False)
    scan = scanner(form, told, False)
    put_down = Pending(told, scan, strips=False)
    pieces = [written(ODD[0] if number % 97 == 0 else PLAIN[0](f" {number}"), 0) for number in range(20_000)]
    over = threading.Event()

    def looking() -> None:
        while not over.is_set():
            assert not put_down.usage_is_final

    class Watcher:
        done = True
        pending = put_down
        rest = put_down.rest

        def ended(self, *_: Any) -> None: ...

    lookers = [threading.Thread(target=looking) for _ in range(2)]
    for looker in lookers:
        looker.start()
    assert list(_Body(pieces, Watcher())) == pieces
    over.set()
    for looker in lookers:
        looker.join()
    assert len(told.events) == len(pieces[::97]) == len(told.facts.finish_reasons)
    assert scan.chunks == len(pieces) == len(put_down.gaps) + 1
    assert not put_down.pieces and not put_down.times


def test_what_is_put_down_of_a_long_stream_is_bounded() -> None:
    form = FORMATS["chat"]
    told = Told(form, False)
    put_down = Pending(told, scanner(form, told, False), strips=False)

    class Watcher:
        done = True
        pending = put_down
        rest = put_down.rest

        def ended(self, *_: Any) -> None: ...

    piece = written(PLAIN[0](" word" * 40), 0)
    for _ in _Body([piece] * 5_000, Watcher()):
        assert len(put_down.pieces) * len(piece) <= pending.ROOM + len(piece)
