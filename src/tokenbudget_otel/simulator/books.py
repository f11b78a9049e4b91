"""The simulator's books: which requests came, and what the provider bills for them."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from tokenbudget_otel.simulator.usage import Usage


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body read as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def attempt(self) -> int:
        """Which try of its SDK this is, from 0."""
        value = self.headers.get("x-stainless-retry-count", "0")
        return int(value) if value.isdigit() else 0


class Store(OrderedDict[str, Any]):
    """What was made to be retrieved later, by its id; the oldest is forgotten when it gets too much."""

    most = 10_000

    def put(self, name: str, value: Any) -> None:
        self[name] = value
        while len(self) > self.most:
            self.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Billed:
    """What a provider bills for one request that it answered.

    Errors (and requests that were never answered) are not billed and not listed.
    """

    provider: str
    """``openai``, ``azure``, ``anthropic`` or the name of a host."""
    path: str
    model: str
    usage: Usage
    """If the stream was interrupted: what had been written until then."""
    completed: bool
    """False: the stream was cut, ended early, broke with an error, or the client left it."""
    service_tier: str | None = None
    request_id: str = ""
    """As the ``x-request-id`` (Anthropic: ``request-id``) header of the answer says."""
    whole: Usage | None = None
    """What the answer would have used had it been completed."""
