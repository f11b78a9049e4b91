"""What doors know of an API, as data, and what is known of a call that one has let in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.call import LlmCall
from tokenbudget_otel.instrumentation.changes import Changes, Path, edited
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.streams import ItemReader, LineReader, StreamFormat
from tokenbudget_otel.meter import Size, key_mark

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a door knows of one endpoint or method.

    Attributes:
        operation: ``gen_ai.operation.name``.
        size: the size of a request, from its body and its options.
        attributes: span attributes of a request.
        read: what a response says; given the SDK's object or plain JSON, and the request's body and provider.
        stream: how a streamed body is read, given the request's body and provider; ``None`` where there is none.
        items: makes the reader of a response that the SDK hands over item by item, from body and provider.
        wants_usage: whether a stream reports usage only when ``stream_options.include_usage`` asks for it.
        binary: what is known of a response that is not JSON, from the request's body.
        lines: makes the reader of an answer that is a file, one JSON object a line, from the call that is under way.
        billed: whether a request costs anything; budgets are not asked for one that does not.
        commits: whether it costs nothing itself, but is the beginning of something that does: refused where a budget
            has no room left, and nothing stays reserved.
        quiet: whether it has a span only when it turns out to cost something.
        content: how its messages are read, where content is captured.
        changes: what budgets may have changed of a request; ``None``: nothing.
    """

    operation: str
    size: Callable[[Body, Any], Size]
    attributes: Callable[[Body], Mapping[str, Any]]
    read: Callable[[Any, Body, str], ResponseFacts]
    stream: Callable[[Body, str], StreamFormat] | None = None
    items: Callable[[Body, str], ItemReader] | None = None
    wants_usage: bool = False
    binary: Callable[[Body], ResponseFacts] | None = None
    lines: Callable[[Opened], LineReader] | None = None
    billed: bool = True
    commits: bool = False
    quiet: bool = False
    content: Content | None = None
    changes: Changes | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a client talks to: provider name by the conventions, and address; ``free`` where calls cost nothing.
    ``api_key`` tells the keys of clients apart, and is none of them (:func:`mark_of`). ``server`` is the address as
    attributes."""

    provider: str
    host: str | None = None
    port: int | None = None
    free: bool = False
    api_key: str = ""
    server: Mapping[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        server: dict[str, Any] = {} if self.host is None else {semconv.SERVER_ADDRESS: self.host}
        if self.port is not None:
            server[semconv.SERVER_PORT] = self.port
        object.__setattr__(self, "server", server)


def mark_of(api_key: Any) -> str:
    """What tells an API key from others; nothing where there is no key, or one that is made anew time and again.

    >>> mark_of(None), mark_of(lambda: "token"), mark_of("")
    ('', '', '')
    """
    return key_mark(api_key) if isinstance(api_key, str) and api_key else ""


class Opened:
    """A call that is under way, and what its end needs to know.

    Attributes:
        key: what tells this request from another one that is sent while it is under way.
        covers: whether every call that is made on the way to its answer is part of this one.
        options: what the SDK is given in place of ``plain_options``, where a door changed the request.
        billed_before: whether an earlier attempt may have been billed.
        answer: what an answer was parsed from, kept for the case that the parser raises.
        fields: what is changed of the request where a budget has it changed; the body, unless a door says otherwise.
        edits: what a budget had changed of ``fields``; ``None``: nothing.
        sent: what the SDK is given in place of the program's arguments, where a budget had the request changed.
    """

    __slots__ = ("answer", "asked_usage", "base_url", "billed_before", "body", "call", "covers", "edits", "endpoint",
                 "fields", "key", "options", "peer", "plain_options", "sent")  # fmt: skip

    def __init__(
        self,
        call: LlmCall,
        endpoint: Endpoint,
        body: Body,
        peer: Peer,
        options: Any = None,
        *,
        key: Any = None,
        covers: bool = False,
        fields: Body | None = None,
    ) -> None:
        self.call = call
        self.endpoint = endpoint
        self.body = body
        self.peer = peer
        self.options = self.plain_options = options
        self.key = options if key is None else key
        self.covers = covers
        self.asked_usage = False
        self.answer: Any = None
        self.billed_before = False
        self.base_url = ""
        self.fields = body if fields is None else fields
        self.edits: Mapping[Path, Any] | None = None
        self.sent: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def revise(self) -> bool:
        """After the call was admitted: find what a budget had changed of its request. Whether it did."""
        request, hold, changes = self.call.request, self.call.ticket.hold, self.endpoint.changes
        if hold is None or changes is None:
            return False
        change = hold.change
        if change.model is None and change.max_output_tokens is None:
            return False
        provider, asked = self.peer.provider, request.asked_model or request.model
        self.edits = changes.edits(self.fields, change, provider, asked)
        fields = edited(self.fields, self.edits)
        if self.fields is self.body:
            self.body = fields
        self.fields = fields
        return True
