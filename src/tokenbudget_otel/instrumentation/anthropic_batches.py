"""Anthropic's message batches: each message that succeeded is charged once, at the price of batches.

Only the results tell what was used, a line for each request. A program may read them in part, and again, and in
another process: the key of a charge is the id of the message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import batches
from tokenbudget_otel.instrumentation.batches import UNKNOWN, Tally, batches_of, request_of
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.meter import Meter

_RESULTS: Final = re.compile(r"/messages/batches/([^/?]+)/results$")

Read = Callable[[Any, Body, str], ResponseFacts]


def _read_batch(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    facts = ResponseFacts(id=text(get(data, "id")), status=text(get(data, "processing_status")))
    if facts.id is not None:
        facts.attributes[semconv.BATCH_ID] = facts.id
    return facts


CREATE: Final = batches.creation(_read_batch)


class AnthropicBatches:
    """The endpoints of message batches.

    Args:
        meter: where results are charged.
        read: how a message is read.
    """

    def __init__(self, meter: Meter, read: Read) -> None:
        self._meter = meter
        self._read = read
        self._batches = batches_of(meter)
        self._results = batches.look(_read_batch, lambda opened: ResultsReader(self, opened))

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        """The endpoint of a request, if it is one of these."""
        if method == "post":
            return CREATE if path.endswith("/messages/batches") else None
        return self._results if method == "get" and _RESULTS.search(path) is not None else None

    def finish(self, opened: Opened, outcome: str, facts: ResponseFacts, error: BaseException | None) -> None:
        """End a call that makes a batch."""
        if facts.id is not None and opened.endpoint is CREATE:
            self._batches.made(facts.id, batches.creator_tags(opened))
        batches.finish(opened, outcome, facts, None, error)

    # --- results -----------------------------------------------------------------------------------------------

    def wanted(self, opened: Opened) -> bool:
        """Whether any of the results of a batch may still have to be charged."""
        return not self._batches.is_charged(_key(opened))

    def line(self, opened: Opened, data: bytes, tally: Tally) -> None:
        """A line of the results: charge its message, if it is one and nobody has."""
        try:
            entry = json.loads(data)
        except (ValueError, RecursionError):
            entry = None
        result = get(entry, "result") if isinstance(entry, dict) else None
        if isinstance(result, dict) and result.get("type") in ("errored", "canceled", "expired"):
            return  # not billed
        message = result.get("message") if isinstance(result, dict) else None
        key = _key(opened)
        # A line without an id of its own is told by its content.
        name = text(get(message, "id")) if isinstance(message, dict) else None
        line = name or blake2b(data, digest_size=12).hexdigest()
        if not self._batches.claim_line(key, line):
            return
        facts = self._read(message, opened.body, opened.peer.provider) if isinstance(message, dict) else ResponseFacts()
        model = facts.model or ""
        tags = self._batches.tags(_batch_of(opened))
        request = request_of(opened, f"{key}:{line}", model, semconv.CHAT, tags)
        charge = batches.price_answer(self._meter, request, facts) if facts.usage else UNKNOWN
        if self._meter.record_once(request, charge):
            tally.add(model, charge)

    def read_out(self, opened: Opened) -> None:
        """All results of a batch were seen."""
        self._batches.read_out(_key(opened))


class ResultsReader:
    """Reads the results of a batch as they go by."""

    def __init__(self, owner: AnthropicBatches, opened: Opened) -> None:
        self._owner = owner
        self._opened = opened
        self._tally = Tally()
        self._read = False

    def wants(self, beginning: bytes) -> bool:
        self._read = self._owner.wanted(self._opened)
        return self._read

    def line(self, data: bytes) -> bool:
        try:
            self._owner.line(self._opened, data, self._tally)
        except Exception as error:  # the ledger cannot be reached; the next line is tried all the same
            log_once("charge a result of a batch", error)
        return True

    def ended(self, outcome: str, complete: bool, error: BaseException | None) -> None:
        if complete and self._read:
            self._owner.read_out(self._opened)
        facts = ResponseFacts(attributes={semconv.BATCH_ID: _batch_of(self._opened)})
        batches.finish(self._opened, outcome, facts, self._tally, error)


def model_of(body: Body) -> str | None:
    """The model that all requests of a batch ask for, where it is one: budgets may be told by it.

    >>> model_of({"requests": [{"params": {"model": "claude-sonnet-4-6"}}]})
    'claude-sonnet-4-6'
    """
    requests = body.get("requests")
    asked = {text(get(request, "params", "model")) for request in (requests if isinstance(requests, list) else ())}
    return asked.pop() if len(asked) == 1 else None


def _batch_of(opened: Opened) -> str:
    found = _RESULTS.search(str(opened.plain_options.url).partition("?")[0])
    return found.group(1) if found is not None else ""


def _key(opened: Opened) -> str:
    return f"batch:{opened.peer.provider}:{_batch_of(opened)}"
