"""Calls that were metered of late, at doors or by their spans, for whoever sees other spans of the same calls end.

Several instrumentors make spans for one call, and not all of them can be found by looking at the span that is current:
some are never made current (OpenLLMetry's for Claude and Gemini, LangChain callbacks of OpenInference), some are made
when the response is there (OpenLLMetry's for the Responses API), some when the stream has ended (logfire's). When such
a span ends, the call is looked up here: by the id of the response, or by what was metered while the span lasted in the
same context of execution.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.instrumentation.peers import of_one_maker

if TYPE_CHECKING:
    from tokenbudget_otel.dialects import Inference

MAX_IN_CONTEXT: Final = 8
"""Calls of one context of execution that are remembered: the streams that a program reads side by side."""

MAX_BY_NAME: Final = 1_024
"""Calls that are remembered by their ids, and the ids of their responses."""

FRAMEWORKS: Final = frozenset(
    ("agno", "autogen", "crewai", "dspy", "haystack", "langchain", "llama_index", "smolagents")
)
"""In the names of scopes: makers of spans around calls that are sent by an SDK below. Their callbacks may run in
another context than the call."""

MAX_LOOKED_THROUGH: Final = 256
"""Calls of other contexts among which the one of a framework's span is looked for."""

SOON_NS: Final = 1_000_000_000
"""A span that is only made when its stream has ended begins within so many nanoseconds of it."""


@dataclass(frozen=True, slots=True)
class EndedSpan:
    """What is asked of a span that ends: its id and scope, and when it began and ended, in nanoseconds of the epoch."""

    id: int
    scope: str | None
    began_ns: int
    ended_ns: int


SoFar = Callable[[], Mapping[str, Any] | None]


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
        above: the ids of the spans above the one that shows it, as far as others are known to be of other calls.
        scope: of the span of somebody else's that the call was charged by, if it was: another span of the same scope is
            another call, unless it names the same response.
        claims: the scopes of frameworks whose span has been found to be of this call.
    """

    __slots__ = ("_so_far", "above", "attributes", "began_ns", "carried", "claims", "ended_ns", "id", "maker", "models",
                 "response_id", "scope", "shown", "usage")  # fmt: skip

    def __init__(
        self, call_id: str, models: set[str], began_ns: int, *, maker: str | None, shown: bool, so_far: SoFar | None
    ) -> None:
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
        self.above: frozenset[int] = frozenset()
        self.scope: str | None = None
        self.claims: set[str] = set()
        # Weakly: a call that is dropped has to be seen to be.
        self._so_far = None if so_far is None else weakref.WeakMethod(so_far)

    def known(self) -> Mapping[str, Any] | None:
        """What is known of its cost, as span attributes: also of a call whose response is still being read."""
        if self.attributes is None and self._so_far is not None and (so_far := self._so_far()) is not None:
            return so_far()
        return self.attributes

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
        self._so_far = None
        if response_id:
            _named.add(response_id, self)

    def told_by(self, span: EndedSpan, told: Inference) -> bool:
        """Whether a span tells of this call."""
        if span.id in self.above:
            return False  # the tree of spans has been asked already
        if told.response_id and self.response_id:
            return told.response_id == self.response_id and self._at_the_time_of(span)
        if self.scope is not None and self.scope == span.scope:
            return False
        if told.model and self.models.isdisjoint((told.request_model, told.response_model)):
            return False
        if span.began_ns <= self.began_ns <= span.ended_ns:
            return of_one_maker(self.maker, span.scope) or self.attributes is None or self.used(told)
        return not self.shown and self._just_before(span) and self.used(told)

    def used(self, told: Inference) -> bool:
        """Whether it came to as many tokens as a span tells."""
        if told.usage is None or self.usage is None:
            return told.usage is None
        return self.usage == (told.usage.input_tokens, told.usage.output_tokens)

    def _at_the_time_of(self, span: EndedSpan) -> bool:
        lasted = span.ended_ns >= self.began_ns and (not self.ended_ns or span.began_ns <= self.ended_ns)
        return lasted or self._just_before(span)

    def _just_before(self, span: EndedSpan) -> bool:
        """Whether it is a call of the maker of a span that is made when the call has ended."""
        after = span.began_ns - self.ended_ns
        return of_one_maker(self.maker, span.scope) and self.ended_ns > 0 and 0 <= after <= SOON_NS


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

    def newest(self) -> list[MeteredCall]:
        with self._lock:
            return list(islice(reversed(self._calls.values()), MAX_LOOKED_THROUGH))

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
    call_id: str,
    models: set[str],
    began_ns: int,
    *,
    maker: str | None = None,
    shown: bool = True,
    so_far: SoFar | None = None,
) -> MeteredCall | None:
    """Remember a call that a door has let in; ``None`` where nobody would ask. ``so_far`` tells what is known of its
    cost before it has ended: a method, which is not kept alive."""
    if not _listeners:
        return None
    call = MeteredCall(call_id, models, began_ns, maker=maker, shown=shown, so_far=so_far)
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


def told_by_span(span: EndedSpan, told: Inference) -> MeteredCall | None:
    """The call that a span of somebody else's tells of, where it is metered already.

    Of several it is the first that began after the span did: what stands around a call begins just before it.
    """
    answered = _named.get(told.response_id)
    if answered is not None and answered.told_by(span, told):
        return answered
    found = _first(span, [call for call in _in_context.get() if call.told_by(span, told)])
    if found is None and told.usage is not None and span.scope and not FRAMEWORKS.isdisjoint(span.scope.split(".")):
        scope = span.scope
        others = [c for c in _named.newest() if scope not in c.claims and c.used(told) and c.told_by(span, told)]
        found = _first(span, others)
        if found is not None:
            found.claims.add(scope)
    return found


def _first(span: EndedSpan, calls: list[MeteredCall]) -> MeteredCall | None:
    return min(calls, key=lambda call: (call.began_ns < span.began_ns, call.began_ns), default=None)
