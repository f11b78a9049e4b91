"""OpenAI's batches, also on Azure and the hosts that have them: charged once, at the price of batches.

What a batch used is told in two places: by the batch itself (``usage``, since September 2025, at OpenAI only) and by
the lines of its output file. Both know the id of that file, so that is the key of the charge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import batches
from tokenbudget_otel.instrumentation.batches import UNKNOWN, Tally, batches_of, request_of
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.openai_streams import read_response
from tokenbudget_otel.instrumentation.openai_usage import SERVER_TOOLS, chat_usage, image_usage, response_usage
from tokenbudget_otel.meter import Charge, Meter, Reading
from tokenbudget_otel.usage import TokenUsage

FINAL: Final = frozenset(("completed", "expired", "cancelled", "failed"))
"""Where a batch stands when its usage changes no more. One that expired or was cancelled has used something too."""

OUTPUT: Final = re.compile(rb'\s*\{\s*"(?:id"\s*:\s*"batch_req_|(?:custom_id|response)"\s*:)')
"""How the output file of a batch begins: at OpenAI with the id of a line, at Azure with the caller's."""

OPERATIONS: Final = {
    "chat.completion": semconv.CHAT,
    "response": semconv.CHAT,
    "text_completion": semconv.TEXT_COMPLETION,
    "list": semconv.EMBEDDINGS,
    "/completions": semconv.TEXT_COMPLETION,
    "/embeddings": semconv.EMBEDDINGS,
    "/images/generations": semconv.IMAGE_GENERATION,
    "/images/edits": semconv.IMAGE_GENERATION,
}
"""The operation, by the ``object`` that an answer is, and by the ``endpoint`` of a batch."""

MOST_REQUESTS: Final = 1_000_000
"""Requests in a batch; no host takes as many."""

_TOOLS: Final = frozenset(SERVER_TOOLS.values())
_RESPONSES: Final = "/responses"
_BATCH: Final = re.compile(r"/batches/([^/?]+)(?:/cancel)?$")
_FILE: Final = re.compile(r"/files/([^/?]+)/content$")


def _read(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    listed = get(data, "data")
    told = listed if isinstance(listed, list) else [data]
    facts = ResponseFacts(more=[batch for batch in told if text(get(batch, "id")) is not None])
    if not isinstance(listed, list):
        facts.id, facts.status = text(get(data, "id")), text(get(data, "status"))
        if facts.id is not None:
            facts.attributes[semconv.BATCH_ID] = facts.id
    return facts


CREATE: Final = batches.creation(_read)
FETCH: Final = batches.look(_read)
LIST: Final = batches.look(_read, quiet=True)


class OpenAIBatches:
    """The endpoints of batches, for a door of the OpenAI SDK or of one that is like it.

    Args:
        meter: where results are charged.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._batches = batches_of(meter)
        self._content = batches.look(_read, lambda opened: OutputReader(self, opened), quiet=True)

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        """The endpoint of a request, if it is one of these."""
        if path.endswith("/batches"):
            return {"post": CREATE, "get": LIST}.get(method)
        if _BATCH.search(path) is not None:
            return FETCH if method in ("get", "post") else None
        return self._content if method == "get" and _FILE.search(path) is not None else None

    def finish(self, opened: Opened, outcome: str, facts: ResponseFacts, error: BaseException | None) -> None:
        """End a call of one of these endpoints, having charged what it was the first to learn."""
        tally = Tally()
        try:
            for batch in facts.more or ():
                if opened.endpoint is CREATE:
                    if facts.id is not None:
                        self._batches.made(facts.id, batches.creator_tags(opened))
                else:
                    self._look(opened, batch, tally, listed=opened.endpoint is LIST)
        finally:
            batches.finish(opened, outcome, facts, tally, error)

    def _look(self, opened: Opened, batch: Any, tally: Tally, *, listed: bool) -> None:
        """A batch was told of: charge it, if it is done and says what it used.

        A list tells of everybody's batches, of last month's too: only those are charged that this process made or
        has waited for.
        """
        batch_id, file = str(get(batch, "id")), text(get(batch, "output_file_id"))
        if listed and not self._batches.is_known(batch_id):
            return
        if file is not None:
            told = {name: get(batch, name) for name in ("id", "model", "endpoint")}
            self._batches.has_file(_key(opened, file), told)
        if get(batch, "status") not in FINAL:
            self._batches.awaited(batch_id)
            return
        endpoint = (text(get(batch, "endpoint")) or _RESPONSES).removeprefix("/v1")  # Azure leaves it out
        usage = _batch_usage(get(batch, "usage"), endpoint)
        key = _key(opened, file or batch_id)
        if usage is None or not self._batches.claim(key):
            return
        if endpoint != _RESPONSES:
            self._batches.claim(_tools(key))  # there are none
        model = text(get(batch, "model")) or ""
        operation = OPERATIONS.get(endpoint, semconv.CHAT)
        done = get(batch, "request_counts", "completed")
        calls = int(done) if isinstance(done, int) and 0 < done <= MOST_REQUESTS else 1
        request = request_of(opened, key, model, operation, self._batches.tags(batch_id))
        charge = self._price_sum(request, usage, calls)
        if self._meter.record_once(request, charge, calls=calls):
            tally.add(model, charge, calls)

    def _price_sum(self, request: Any, usage: TokenUsage, calls: int) -> Charge:
        """What so many answers cost that used this together.

        Where long prompts are dearer the sum does not tell how many were: it is priced as if all were of one length,
        and the cost is marked as not certain.
        """
        charge = self._meter.price(request, Reading(usage))
        if calls == 1 or not charge.cost.by_length or charge.cost.nano_usd is None:
            return charge
        each = TokenUsage(**{name: int(count) // calls for name, count in usage.counts().items()})
        rest = TokenUsage(
            input_tokens=(usage.input_tokens or 0) % calls, output_tokens=(usage.output_tokens or 0) % calls
        )
        average, left = self._meter.price(request, Reading(each)).cost, self._meter.price(request, Reading(rest)).cost
        nano_usd = (average.nano_usd or 0) * calls + (left.nano_usd or 0)
        if nano_usd >= charge.cost.nano_usd:
            return charge  # the sum is below the lengths at which prices change, or all are above
        cost = batches.CostSum(
            nano_usd, "partial", (average.source, average.source_version, average.provider, average.model),
            ("prompt_length",),
        )  # fmt: skip
        return Charge(usage, cost, False)

    # --- the output file ---------------------------------------------------------------------------------------

    def wanted(self, opened: Opened) -> bool:
        """Whether there is anything in a file that is not charged yet."""
        key = _key(opened, _file_of(opened))
        return not (self._batches.is_charged(key) and self._batches.is_charged(_tools(key)))

    def read_out(
        self, opened: Opened, groups: Mapping[tuple[str, str, str], Group], damaged: int, tally: Tally
    ) -> None:
        """An output file was read to its end: charge what its lines came to, if nobody has."""
        key = _key(opened, _file_of(opened))
        batch = self._batches.of_file(key) or {}
        tags = self._batches.tags(text(batch.get("id")))
        named = [
            (":" + ":".join(name) if place else "", name, groups[name]) for place, name in enumerate(sorted(groups))
        ]
        if self._batches.claim(key):
            for suffix, (model, operation, tier), group in named:
                group.damaged, damaged = damaged, 0
                model = model or text(batch.get("model")) or ""
                request = request_of(opened, key + suffix, model, operation, tags)
                sums = group.sums(self._meter, request, tier)
                if self._meter.record_once(request, sums.charge(), calls=sums.calls, unpriced=sums.unpriced):
                    tally.add(model, sums.charge(), sums.calls, sums.unpriced)
                elif not suffix:
                    break  # another process has charged this file, by whichever way
        if self._batches.claim(_tools(key)):
            for suffix, (model, operation, tier), group in named:
                if group.tools:
                    request = request_of(opened, _tools(key) + suffix, model, operation, tags)
                    charge = self._meter.price(request, Reading(group.tools, model, tier or None))
                    if self._meter.record_once(request, charge, calls=0):
                        tally.add(model, charge, 0)

    def batch_of(self, opened: Opened) -> str | None:
        """The id of the batch whose results a call downloads, where this process was told."""
        return text((self._batches.of_file(_key(opened, _file_of(opened))) or {}).get("id"))

    @property
    def meter(self) -> Meter:
        """Where results are charged."""
        return self._meter


class Group:
    """The answers of one model in an output file.

    Attributes:
        tools: calls of server-side tools, which a batch's own ``usage`` does not tell: charged under a key of theirs.
        damaged: lines of the file that could not be read; told with the first group.
    """

    def __init__(self) -> None:
        self.tools = TokenUsage()
        self.damaged = 0
        self._known = Tally()
        self._usage = TokenUsage()
        self._unknown = 0
        self._free = Tally()
        self._by_length = False

    def add(self, charge: Charge, tools: TokenUsage) -> None:
        """Add an answer: what its tokens came to, and the tools it used."""
        if charge.usage is None:
            self._unknown += 1
        elif not charge.usage:
            self._free.add(None, charge)
        else:
            self._known.add(None, charge)
            self._usage += charge.usage
            self._by_length = self._by_length or charge.cost.by_length
        if tools:
            self.tools += tools

    def sums(self, meter: Meter, request: Any, tier: str) -> Tally:
        """What the answers came to together: priced in one, with one rounding, where that is the same."""
        sums = Tally()
        known = self._known
        if known:
            if self._by_length:
                sums.add(None, known.charge(), known.calls, known.unpriced)
            else:
                sums.add(None, meter.price(request, Reading(self._usage, None, tier or None)), known.calls)
        if self._free:
            sums.add(None, self._free.charge(), self._free.calls)
        if self._unknown or self.damaged:
            sums.add(None, UNKNOWN, self._unknown + self.damaged)
        return sums


class OutputReader:
    """Reads the output file of a batch as it goes by; anything else after a glance at its first bytes not at all."""

    def __init__(self, owner: OpenAIBatches, opened: Opened) -> None:
        self._owner = owner
        self._opened = opened
        self._groups: dict[tuple[str, str, str], Group] = {}
        self._damaged = 0
        self._is_output = False

    def wants(self, beginning: bytes) -> bool:
        return OUTPUT.match(beginning) is not None and self._owner.wanted(self._opened)

    def line(self, data: bytes) -> bool:
        try:
            entry = json.loads(data)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            self._damaged += 1
            return True
        if not self._is_output:
            # The input of a batch begins in the same way, and has a method and a URL where the output has answers.
            self._is_output = entry.keys() >= {"response"} or entry.keys() >= {"error", "custom_id"}
            if not self._is_output:
                return False
        try:
            self._answer(entry.get("response"))
        except Exception:  # whatever was in there: an answer came, and what it used is not known
            self._damaged += 1
        return True

    def _answer(self, response: Any) -> None:
        status = get(response, "status_code")
        if not isinstance(response, dict) or (isinstance(status, int) and not 200 <= status < 300):
            return  # failed, expired or cancelled: not billed
        body = response.get("body")
        if not isinstance(body, dict):
            self._damaged += 1
            return
        opened, meter = self._opened, self._owner.meter
        operation, facts = read_answer(body, opened.peer.provider)
        if facts.usage is None and isinstance(body.get("error"), dict):
            return
        model = facts.model or ""
        request = request_of(opened, "", model, operation, {})
        tools = TokenUsage()
        if facts.usage is not None:
            counts = facts.usage.counts()
            tools = TokenUsage(**{name: count for name, count in counts.items() if name in _TOOLS})
            facts.usage = TokenUsage(**{name: count for name, count in counts.items() if name not in _TOOLS})
        key = (model, operation, facts.tier or "")
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group()
        group.add(batches.price_answer(meter, request, facts), tools)

    def ended(self, outcome: str, complete: bool, error: BaseException | None) -> None:
        tally, facts = Tally(), ResponseFacts()
        try:
            # Charged when all of it is known: the key stands for the whole file, and half of it would be all there is.
            if complete and self._is_output and (self._groups or self._damaged):
                if not self._groups:
                    self._groups["", semconv.CHAT, ""] = Group()
                self._owner.read_out(self._opened, self._groups, self._damaged, tally)
        finally:
            if (batch := self._owner.batch_of(self._opened)) is not None:
                facts.attributes[semconv.BATCH_ID] = batch
            batches.finish(self._opened, outcome, facts, tally, error)


def read_answer(body: Mapping[str, Any], provider: str) -> tuple[str, ResponseFacts]:
    """The operation that an answer in an output file is of, and what it says.

    >>> operation, facts = read_answer({"object": "chat.completion", "usage": {"prompt_tokens": 3}}, "openai")
    >>> operation, facts.usage
    ('chat', TokenUsage(input_tokens=3))
    """
    kind = text(body.get("object"))
    if kind == "response":
        return semconv.CHAT, read_response(body)
    facts = ResponseFacts(model=text(body.get("model")), tier=text(body.get("service_tier")))
    if "data" in body and kind != "list":
        facts.usage = image_usage(body)
        return semconv.IMAGE_GENERATION, facts
    facts.usage = chat_usage(body.get("usage"), provider)
    return OPERATIONS.get(kind or "", semconv.CHAT), facts


def _batch_usage(usage: Any, endpoint: str) -> TokenUsage | None:
    """What a batch says that it used; nothing where it says nothing, or nothing yet."""
    if usage is None:
        return None
    read = image_usage if endpoint.startswith("/images/") else response_usage
    found = read({"usage": usage})
    return found if found and (found.input_tokens or found.output_tokens) else None


def _file_of(opened: Opened) -> str:
    found = _FILE.search(str(opened.plain_options.url).partition("?")[0])
    return found.group(1) if found is not None else ""


def _key(opened: Opened, name: str) -> str:
    return f"batch:{opened.peer.provider}:{name}"


def _tools(key: str) -> str:
    return key + ":tools"
