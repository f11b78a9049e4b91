"""Calls that doors have metered of late, for whoever sees other spans of the same calls end.

Other instrumentors make spans for a call that a door meters, and not all of them can be found by looking at the span
that is current: some are never made current (OpenLLMetry's for Claude and Gemini, LangChain callbacks of
OpenInference), some are made when the response is there (OpenLLMetry's for the Responses API), some when the stream
has ended (logfire's). When such a span ends, the call is looked up here: by the id of the response, or by what was
metered around it in the same context of execution.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from tokenbudget_otel.dialects import Inference
from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.instrumentation.peers import of_one_maker

MAX_IN_CONTEXT: Final = 8
"""Calls of one context of execution that are remembered: the streams that a program reads side by side."""

MAX_BY_NAME: Final = 1_024
"""Calls that are remembered by their ids, and the ids of their responses."""

SOON_NS: Final = 1_000_000_000
"""A span that is only made when its stream has ended begins within so many nanoseconds of it."""


class MeteredCall:
    """A call that a door meters.

    Attributes:
        id: ``tokenbudget.call.id``.
        models: what its model is called, asked for and answered.
        maker: the module of another instrumentor that makes the span of the call.
        began_ns, ended_ns: when, in nanoseconds since the epoch; 0 for one that is under way.
        response_id, usage: what the response said: the usage as input and output tokens.
        attributes: what is known of its cost, as span attributes; ``None`` before it has ended.
        shown: whether a span has them, or will have.
        carried: whether that is a span that has ended.
    """

    __slots__ = ("attributes", "began_ns", "carried", "ended_ns", "id", "maker", "models", "response_id", "shown",
                 "usage")  # fmt: skip

    def __init__(self, call_id: str, models: set[str], began_ns: int, *, maker: str | None, shown: bool) -> None:
        self.id = call_id
        self.models = models
        self.maker = maker
        self.began_ns = began_ns
        self.ended_ns = 0
        self.response_id: str | None = None
        self.usage: tuple[int | None, int | None] | None = None
        self.attributes: Mapping[str, Any] | None = None
        self.shown = shown
        self.carried = False

    def span_is_gone(self) -> None:
        """The span that was to show the call ended before the call did, or never recorded. Another one may come."""
        self.shown = self.carried

    def finish(
        self,
        ended_ns: int,
        attributes: Mapping[str, Any],
        usage: tuple[int | None, int | None] | None,
        response_id: str | None,
        response_model: str | None,
    ) -> None:
        """The call has ended and come to this."""
        self.ended_ns = ended_ns
        self.usage = usage
        self.response_id = response_id
        if response_model:
            self.models.add(response_model)
        self.attributes = attributes
        if response_id:
            _named.add(response_id, self)

    def _told_by(self, began_ns: int, ended_ns: int, scope: str | None, told: Inference) -> bool:
        """Whether a span from ``began_ns`` to ``ended_ns`` tells of this call."""
        if told.response_id and self.response_id:
            return told.response_id == self.response_id
        if told.model and self.models.isdisjoint((told.request_model, told.response_model)):
            return False
        made_for_it = of_one_maker(self.maker, scope)
        if began_ns <= self.began_ns <= ended_ns:
            return made_for_it or self.attributes is None or self._used(told)
        # Made afterwards, and for a call that no span has shown yet.
        after = began_ns - self.ended_ns
        return made_for_it and not self.shown and self.ended_ns > 0 and 0 <= after <= SOON_NS and self._used(told)

    def _used(self, told: Inference) -> bool:
        if told.usage is None or self.usage is None:
            return told.usage is None
        return self.usage == (told.usage.input_tokens, told.usage.output_tokens)


class _Named:
    """Calls by name: the last :data:`MAX_BY_NAME`."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, MeteredCall] = OrderedDict()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def add(self, name: str, call: MeteredCall) -> None:
        with self._lock:
            self._calls[name] = call
            if len(self._calls) > MAX_BY_NAME:
                self._calls.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()

    def get(self, name: str | None) -> MeteredCall | None:
        return self._calls.get(name) if name else None


_named: Final = _Named()
_in_context: Final[ContextVar[tuple[MeteredCall, ...]]] = ContextVar("tokenbudget_metered_calls", default=())

_listeners = 0


def listen() -> None:
    """From now on calls are remembered: somebody looks at the spans that others make."""
    global _listeners
    _listeners += 1


def listened_to() -> bool:
    """Whether anybody looks."""
    return _listeners > 0


def remember(
    call_id: str, models: set[str], began_ns: int, *, maker: str | None = None, shown: bool = True
) -> MeteredCall | None:
    """Remember a call that a door has let in; ``None`` where nobody would ask."""
    if not _listeners:
        return None
    call = MeteredCall(call_id, models, began_ns, maker=maker, shown=shown)
    _in_context.set((*_in_context.get()[1 - MAX_IN_CONTEXT :], call))
    _named.add(call_id, call)
    return call


def forget() -> None:
    """Forget every call: those that are under way are metered all the same."""
    _named.clear()
    _in_context.set(())


def by_id(call_id: str | None) -> MeteredCall | None:
    """The call of this id, if it is remembered."""
    return _named.get(call_id)


def told_by_span(began_ns: int, ended_ns: int, scope: str | None, told: Inference) -> MeteredCall | None:
    """The call that a span of somebody else's tells of, where a door has metered it.

    Of several it is the first that began after the span did: what stands around a call begins just before it.
    """
    if (call := _named.get(told.response_id)) is not None:
        return call
    calls = [call for call in _in_context.get() if call._told_by(began_ns, ended_ns, scope, told)]
    return min(calls, key=lambda call: (call.began_ns < began_ns, call.began_ns), default=None)
