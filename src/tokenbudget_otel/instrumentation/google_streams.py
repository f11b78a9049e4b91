"""How Google's streams are read: chunks of ``streamGenerateContent``, and the events of an interaction."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.google_usage import (
    billed_searches,
    content_usage,
    finish_reason,
    interaction_usage,
    queries,
    served_tier,
    tier,
)
from tokenbudget_otel.instrumentation.streams import TextCount

INTERACTION_MARKS: Final = re.compile(
    rb'"event_type":\s*"(?:error|interaction\.[\w.]+)"|"(?:step_)?usage":\s*\{|^data:\s*\[DONE\]', re.MULTILINE
)
INTERACTION_HINTS: Final = (b'"interaction.', b'"error"', b'usage"', b"[DONE]")
INTERACTION_TEXT: Final = re.compile(rb'"(?:text|arguments)":\s*"((?:[^"\\]|\\.)*)"')

STATUSES: Final = {
    "completed": "stop",
    "incomplete": "length",
    "requires_action": "tool_call",
    "requires_continuation": "length",
    "budget_exceeded": "length",
}
"""How an interaction ended, in the words of the conventions."""

UNDER_WAY: Final = ("queued", "in_progress")


def read_content(data: Any, model: str) -> ResponseFacts:
    """An answer of ``generateContent``, as JSON. ``model`` is the one that was asked for."""
    candidates, usage = get(data, "candidates"), get(data, "usageMetadata")
    answered = text(get(data, "modelVersion"))
    return ResponseFacts(
        id=text(get(data, "responseId")),
        model=answered,
        finish_reasons=_reasons(data),
        usage=content_usage(usage, billed_searches(answered or model, len(queries(candidates)))),
        tier=tier(usage),
    )


def _reasons(data: Any) -> tuple[str, ...]:
    """Why each candidate ended; a prompt that was blocked has none."""
    candidates = get(data, "candidates")
    reasons = [finish_reason(candidate) for candidate in (candidates if isinstance(candidates, list) else ())]
    found = tuple(reason for reason in reasons if reason is not None)
    if not found and text(get(data, "promptFeedback", "blockReason")) is not None:
        return ("content_filter",)
    return found


class ContentReader:
    """Follows chunks of ``generateContent``. Usage is on each of them and grows: the last word counts, field by field.

    Args:
        model: the model that was asked for.
    """

    def __init__(self, model: str) -> None:
        self.complete = False
        self.usage_is_final = False
        self._facts = ResponseFacts()
        self._model = model
        self._usage: dict[str, Any] = {}
        self._queries: set[str] = set()
        self._writing: set[int] = set()
        self._written: set[int] = set()
        self._text = TextCount()

    @property
    def facts(self) -> ResponseFacts:
        """What the chunks so far said."""
        facts = self._facts
        searches = billed_searches(facts.model or self._model, len(self._queries))
        facts.usage = content_usage(self.reported(), searches)
        return facts

    def reported(self) -> Any:
        """What the chunks so far said of usage."""
        return self._usage or None

    def chunk(self, chunk: Any) -> None:
        """Take a chunk, as JSON."""
        if not isinstance(chunk, dict):
            return
        facts, candidates, usage = self._facts, chunk.get("candidates"), chunk.get("usageMetadata")
        facts.id = text(chunk.get("responseId")) or facts.id
        facts.model = text(chunk.get("modelVersion")) or facts.model
        reasons = _reasons(chunk)
        facts.finish_reasons += reasons
        self._queries |= queries(candidates)
        for candidate in candidates if isinstance(candidates, list) else ():
            self._candidate(candidate)
        if reasons:
            self.complete = self._writing <= self._written
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}
            facts.tier = tier(usage) or facts.tier
            if self.complete:
                read = content_usage(self.reported())
                self.usage_is_final = read is not None and read.input_tokens is not None

    def _candidate(self, candidate: Any) -> None:
        index = get(candidate, "index")
        index = index if isinstance(index, int) else 0
        self._writing.add(index)
        if finish_reason(candidate) is not None:
            self._written.add(index)
        parts = get(candidate, "content", "parts")
        for part in parts if isinstance(parts, list) else ():
            self._text.add(get(part, "text"))
            if (call := get(part, "functionCall")) is not None:
                self._text.add(json.dumps(call))

    def text_tokens(self) -> int:
        """An estimate of the output so far."""
        return self._text.tokens


class ChunkReader(ContentReader):
    """The same of what the API client of ``google.genai`` hands over: each chunk as the text of its JSON."""

    def item(self, item: Any) -> bool:
        """Take a chunk; the program sees them all."""
        body = get(item, "body")
        if self._facts.id is None:
            self._facts.tier = self._facts.tier or served_tier(get(item, "headers"))
        if isinstance(body, str):
            self.chunk(json.loads(body))
        return False


# --- interactions ------------------------------------------------------------------------------------------------


def read_interaction(data: Any, model: str, facts: ResponseFacts | None = None) -> ResponseFacts:
    """An interaction, as JSON, whole or as far as it has come."""
    facts = facts or ResponseFacts()
    facts.id = text(get(data, "id")) or facts.id
    facts.model = _plain(text(get(data, "model"))) or facts.model
    facts.tier = text(get(data, "service_tier")) or facts.tier
    facts.status = text(get(data, "status")) or facts.status
    # What an agent does goes on at the server, whoever asks for it.
    facts.background = facts.background or text(get(data, "agent")) is not None
    facts.usage = interaction_usage(get(data, "usage"), facts.model or model) or facts.usage
    if facts.status == "failed":
        errors = get(data, "errors")
        facts.error = event_error(errors[0] if isinstance(errors, list) and errors else "the interaction failed")
    elif facts.status is not None and facts.status not in UNDER_WAY:
        facts.finish_reasons = (STATUSES.get(facts.status, facts.status),)
    return facts


def _plain(model: str | None) -> str | None:
    return None if model is None else model.rpartition("/")[2]


def event_error(error: Any) -> tuple[str, str]:
    """Type and message of an error that an interaction reports."""
    code = get(error, "code")
    kind = text(code) or (str(code) if isinstance(code, int) else None) or "interaction_error"
    return kind, text(get(error, "message")) or str(error)


class InteractionReader:
    """Follows the events of an interaction: the last one has its usage.

    Args:
        model: the model that was asked for.
        background: whether the server goes on when nobody reads any more.
    """

    def __init__(self, model: str, background: bool) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts(background=background)
        self._model = model

    def event(self, data: bytes) -> bool:
        if data.startswith(b"[DONE]"):
            return False
        event = json.loads(data)
        kind = get(event, "event_type")
        facts = self.facts
        if kind == "error":
            facts.error = event_error(get(event, "error"))
            return False
        interaction = get(event, "interaction")
        if isinstance(interaction, dict):
            self.facts = facts = read_interaction(interaction, self._model, facts)
        elif kind == "interaction.status_update":
            facts.id = text(get(event, "interaction_id")) or facts.id
            facts.status = text(get(event, "status")) or facts.status
        if (usage := interaction_usage(get(event, "usage"), facts.model or self._model)) is not None:
            facts.usage = usage if facts.usage is None else facts.usage.replace(**usage.counts())
        if kind == "interaction.completed":
            self.complete = True
            self.usage_is_final = facts.usage is not None
        return False
