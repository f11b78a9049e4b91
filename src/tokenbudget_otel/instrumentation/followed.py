"""Responses that an SDK hands over item by item: watched as they go by, and ended exactly once.

The program gets what it would have got: a generator for a generator, the SDK's own object where that is what the SDK
returns (its class is replaced by a subclass of itself, so ``isinstance`` holds and every method is there; an object
that does not let itself be changed so is handed over inside a transparent proxy).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import sys
import types
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final, Protocol

import wrapt

from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.instrumentation import bodies, deferred
from tokenbudget_otel.instrumentation.content import Kept, item_size
from tokenbudget_otel.instrumentation.endpoint import Opened
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.growth import CUT, growth_of
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.nesting import under_way
from tokenbudget_otel.instrumentation.streams import TOLD, ItemReader, conclude
from tokenbudget_otel.instrumentation.telemetry import Telemetry

_NO_STREAMS: Final = (str, bytes, bytearray, memoryview, list, tuple, dict, set, frozenset, io.IOBase)

_MANAGER: Final = getattr(contextlib, "_GeneratorContextManagerBase", ())
"""What ``@contextmanager`` and ``@asynccontextmanager`` make: ``with client.stream(...) as stream``."""

_LAZY: Final = (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType, _MANAGER)
"""What does nothing before it is asked to: where it never is, no request was sent."""


def is_stream(result: Any) -> bool:
    """Whether ``result`` is something to be read item by item, rather than an answer that happens to be iterable
    (a list, a model, a file).

    >>> is_stream(iter("abc")), is_stream(["a"]), is_stream({"a": 1}), is_stream(7)
    (True, False, False, False)
    """
    if isinstance(result, _NO_STREAMS) or hasattr(result, "model_dump"):
        return False
    if isinstance(result, _MANAGER):
        return True
    kind = type(result)
    if hasattr(kind, "__next__") or hasattr(kind, "__anext__") or hasattr(kind, "__aiter__"):
        return True
    return hasattr(kind, "__iter__") and not hasattr(kind, "__len__") and not hasattr(kind, "__getitem__")


class Ends(Protocol):
    """What a watcher needs of the door that let its call in."""

    telemetry: Telemetry

    def failed(self, opened: Opened, error: BaseException) -> bool: ...

    def finish(
        self, opened: Opened, outcome: str, facts: ResponseFacts, error: BaseException | None = None
    ) -> None: ...


class ItemWatcher:
    """Follows the items of one response and ends its call."""

    def __init__(self, door: Ends, opened: Opened, reader: ItemReader) -> None:
        self.done = False
        self.started = False
        opened.call.follow(reader)
        self.growth = growth_of(opened.call, reader, reader.text_tokens)
        self.was_cut = False
        self._counted_last = getattr(reader, "counted_last", False)
        self._refusal: BudgetExceeded | None = None
        self._owner: Callable[[], Any] = _nothing
        self._door = door
        self._opened = opened
        self._reader = reader
        self._first = False
        self._lazy = False
        self._seen = False
        capture = door.telemetry.capture
        self._kept = Kept(capture.kept_bytes) if capture and opened.endpoint.content is not None else None

    def takes(self, stream: Any) -> None:
        """Say what is followed."""
        self._lazy = isinstance(stream, _LAZY)

    def owned_by(self, stream: Any) -> None:
        """Say which object of the SDK the items are of: it is closed where a budget cuts the stream."""
        if self.growth is not None:
            with contextlib.suppress(TypeError):
                self._owner = weakref.ref(stream)  # weakly: it may hold us

    @property
    def inside(self) -> bool:
        """Whether an item is being asked for right now, further out: of a stream that reads itself."""
        return under_way.get() is self._opened

    def enter(self) -> Any:
        """Before an item is asked for. The first is what makes some SDKs send the request: the span is current."""
        if not self.started:
            self.started = self._first = True
            self._opened.call.__enter__()
        return under_way.set(self._opened)

    def leave(self, token: Any) -> None:
        """After an item was asked for, whatever came of it."""
        try:
            under_way.reset(token)
        except ValueError:
            pass  # asked for in one task, and ended by another or by the garbage collector
        if self._first:
            self._first = False
            self._opened.call.__exit__()

    def item(self, item: Any) -> bool:
        """An item arrived; whether the program is to see it."""
        self._seen = True
        if self._kept is not None:
            self._kept.add(item, item_size(item))
        if self.growth is not None and not self._counted_last:
            self.growth.told = True
        seen = True
        try:
            seen = not self._reader.item(item)
        except Exception as error:
            log_once("read a streamed response", error)
        if seen:
            self._opened.call.chunk_arrived()
        return seen

    def ended(self, how: str, error: BaseException | None = None) -> None:
        """``how``: ``read``, ``closed``, ``cancelled``, ``abandoned``, ``failed`` or ``cut_by_budget``."""
        if self.done:
            return
        self.done = True
        opened, reader = self._opened, self._reader
        # An SDK may send the request and make a generator of the answer: then its door has noted so.
        if self._lazy and not self.started and not opened.billed_before:
            opened.call.finish(how, ResponseFacts(), billed=False)
        elif how == "failed" and not self._seen and error is not None:
            opened.options = opened.plain_options  # it is too late to try again unchanged
            self._door.failed(opened, error)
        else:
            if how == "read" and (read_out := getattr(reader, "read_out", None)) is not None:
                read_out()
            outcome, facts = conclude(reader, how, error, opened.call, reader.text_tokens)
            if self._kept is not None and opened.endpoint.content is not None:
                facts.output = functools.partial(self._kept.output, opened.endpoint.content)
            self._door.finish(opened, outcome, facts, error if how in TOLD else None)

    def end(self, how: str, error: BaseException | None = None) -> None:
        """:meth:`ended`, but never an exception, and not inside the garbage collector."""
        bodies.end(self, how, error)

    def broke(self, error: BaseException) -> None:
        """Asking for an item raised ``error``."""
        self.end("failed" if isinstance(error, Exception) else "cancelled", error)

    # Where a budget cuts the stream, what has arrived is still handed on; the refusal comes when more is asked for.

    def outgrown(self, iterator: Any = None) -> BudgetExceeded | None:
        """The refusal of a budget that has no room for another item. The call has ended then, and the stream is
        closed: ``iterator``, and the object that it belongs to."""
        growth = self.growth
        if growth is None or not growth.due() or (refusal := growth.refused()) is None:
            return None
        for close in self._cut(iterator, refusal):
            try:
                dropped = close()
                if inspect.iscoroutine(dropped):
                    dropped.close()
            except Exception as error:
                log_once("close a stream that was cut", error)
        return refusal

    async def outgrown_async(self, iterator: Any = None) -> BudgetExceeded | None:
        """:meth:`outgrown` on an event loop."""
        growth = self.growth
        if growth is None or not growth.due() or (refusal := await growth.refused_async()) is None:
            return None
        for close in self._cut(iterator, refusal):
            try:
                closing = close()
                if inspect.isawaitable(closing):
                    await closing
            except Exception as error:
                log_once("close a stream that was cut", error)
        return refusal

    def _cut(self, iterator: Any, refusal: BudgetExceeded) -> list[Callable[[], Any]]:
        """End the call; gives what is to be done to close the stream."""
        self.was_cut, self._refusal = True, refusal
        self.end(CUT, refusal)
        try:
            return _closes(iterator) + _closes(self._owner())
        except Exception as error:
            log_once("close a stream that was cut", error)
            return []

    def refusal(self) -> BudgetExceeded | None:
        """Why the stream was cut, once: the program is told so when it asks for more, and then there is no more."""
        refusal, self._refusal = self._refusal, None
        return refusal

    # A watcher of items has no bytes; these make it one of the watchers that are ended when the program ends.

    def chunk(self, data: bytes) -> bytes:
        return data

    def rest(self) -> bytes:
        return b""


def _nothing() -> None: ...


_CLOSE: Final = ("close", "aclose", "cancel")
"""How a stream is closed, and a call that Google's former SDK streams."""

_BELOW: Final = ("completion_stream", "response_iterator")
"""Where LiteLLM's streams, not all of which can be closed, have the one that they read."""


def _closes(stream: Any) -> list[Callable[[], Any]]:
    """How a stream is closed, and what it reads: of each the first method that it has."""
    closes: list[Callable[[], Any]] = []
    while stream is not None:
        closes += [close for name in _CLOSE if callable(close := getattr(stream, name, None))][:1]
        known = getattr(stream, "__dict__", {})
        stream = next((below for name in _BELOW if (below := known.get(name)) is not None), None)
    return closes


def follow(stream: Any, watcher: ItemWatcher) -> Any:
    """What the program is given in place of ``stream``."""
    bodies.remember(watcher)
    watcher.takes(stream)
    return _followed(stream, watcher)


def _followed(stream: Any, watcher: ItemWatcher) -> Any:
    if inspect.isgenerator(stream):
        return noticed(_items(stream, watcher), watcher)
    if inspect.isasyncgen(stream):
        return noticed(_async_items(stream, watcher), watcher)
    return _watched_object(stream, watcher)


# --- generators --------------------------------------------------------------------------------------------------

_unstarted: Final[set[weakref.ref[Any]]] = set()


def noticed(lazy: Any, watcher: ItemWatcher) -> Any:
    """``lazy``, a generator or coroutine of ours, which ends its call also where it is dropped without having been
    started: Python then runs none of its code."""

    def dropped(reference: weakref.ref[Any]) -> None:
        _unstarted.discard(reference)
        if not watcher.started and not watcher.done:
            deferred.defer(lambda: watcher.ended("abandoned"))

    # Kept here: a reference that goes together with what it refers to says nothing.
    _unstarted.add(weakref.ref(lazy, dropped))
    return lazy


def _items(iterator: Any, watcher: ItemWatcher, *, whole: bool = True) -> Generator[Any, Any, Any]:
    """The items of ``iterator``, a generator's ``send`` and ``throw`` passed on.

    ``whole`` is whether leaving it is leaving the response. An iterator over an object of the SDK is not: the program
    may come back for the rest.
    """
    held = iterator if inspect.isgenerator(iterator) else ()  # of other things nobody says that they can be in a set
    bodies.hold(held)
    ask: Callable[[], Any]
    ask = following = functools.partial(next, iterator)
    thrown: BaseException | None = None
    try:
        while True:
            token = watcher.enter()
            try:
                item = ask()
            except StopIteration as stop:
                watcher.end("read" if thrown is None else "closed")
                return stop.value
            finally:
                watcher.leave(token)
            ask, thrown = following, None
            seen = watcher.item(item)
            if watcher.growth is not None and watcher.outgrown(iterator) is not None:
                if seen:
                    yield item
                if (refusal := watcher.refusal()) is not None:
                    raise refusal
                return None
            if seen:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:
                    thrown = error
                    ask = functools.partial(_throw, iterator, error)
                else:
                    if sent is not None:
                        ask = functools.partial(iterator.send, sent)
    except GeneratorExit:
        how = "closed" if whole else None
        if deferred.in_collector():
            deferred.defer(lambda: _close(iterator, held, watcher, how and "abandoned"))
        else:
            _close(iterator, held, watcher, how)
        raise
    except BaseException as error:
        if error is thrown:
            watcher.end("closed")  # the program's own way out
        else:
            watcher.broke(error)
        raise
    finally:
        if not deferred.in_collector():
            bodies.let_go(held)


def _after_cut(watcher: ItemWatcher) -> Generator[Any, Any, None]:
    """What there is of a stream after it was cut: the refusal, if nobody was told of it, and nothing more."""
    if (refusal := watcher.refusal()) is not None:
        raise refusal
    yield from ()


async def _async_after_cut(watcher: ItemWatcher) -> AsyncGenerator[Any, Any]:
    for item in _after_cut(watcher):
        yield item


def _throw(iterator: Any, error: BaseException) -> Any:
    if (throw := getattr(iterator, "throw", None)) is None:
        raise error
    return throw(error)


def _close(iterator: Any, held: Any, watcher: ItemWatcher, how: str | None) -> None:
    try:
        if (close := getattr(iterator, "close", None)) is not None:
            close()
    finally:
        bodies.let_go(held)
        if how is not None:
            watcher.end(how)


async def _async_items(iterator: Any, watcher: ItemWatcher, *, whole: bool = True) -> AsyncGenerator[Any, Any]:
    """:func:`_items` for async iterators."""
    ask: Callable[[], Awaitable[Any]] = iterator.__anext__
    thrown: BaseException | None = None
    try:
        while True:
            token = watcher.enter()
            try:
                item = await ask()
            except StopAsyncIteration:
                watcher.end("read" if thrown is None else "closed")
                return
            finally:
                watcher.leave(token)
            ask, thrown = iterator.__anext__, None
            seen = watcher.item(item)
            if watcher.growth is not None and await watcher.outgrown_async(iterator) is not None:
                if seen:
                    yield item
                if (refusal := watcher.refusal()) is not None:
                    raise refusal
                return
            if seen:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:
                    thrown = error
                    ask = functools.partial(_athrow, iterator, error)
                else:
                    if sent is not None:
                        ask = functools.partial(iterator.asend, sent)
    except GeneratorExit:
        try:
            # Nothing can be awaited where no event loop runs: then the interpreter is finalising us.
            if sys.get_asyncgen_hooks().finalizer is not None and hasattr(iterator, "aclose"):
                await iterator.aclose()
        finally:
            if whole:
                watcher.end("closed")
        raise
    except BaseException as error:
        if error is thrown and isinstance(error, Exception):
            watcher.end("closed")
        else:
            watcher.broke(error)
        raise


async def _athrow(iterator: Any, error: BaseException) -> Any:
    if (throw := getattr(iterator, "athrow", None)) is None:
        raise error
    return await throw(error)


# --- objects -----------------------------------------------------------------------------------------------------

_WATCHER: Final = "_tokenbudget_watcher"
_classes: dict[type, type] = {}


def _watched_object(stream: Any, watcher: ItemWatcher) -> Any:
    """``stream`` itself, of a class that tells ``watcher`` of the items, of its end and of its being dropped."""
    watcher.owned_by(stream)
    kind = type(stream)
    known = getattr(stream, "__dict__", None)
    if known is not None and _WATCHER not in known:
        try:
            if kind not in _classes:
                _classes[kind] = _watched_class(kind)
            stream.__class__ = _classes[kind]
            stream.__dict__[_WATCHER] = watcher
            return stream
        except TypeError:
            pass  # slots, or a class that is not to be subclassed
    return _proxy(stream, watcher)


def _watched_class(kind: Any) -> type:
    """A subclass of ``kind`` that reports to the watcher in the instance's ``__dict__``. Only what ``kind`` has is
    replaced."""
    made = _methods(kind, _itself, _watcher_in_dict)
    made |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(made))


def _proxy(stream: Any, watcher: ItemWatcher) -> Any:
    """For objects of built-in classes and those with slots: whatever asks what they are gets their own answer."""
    kind = type(stream)
    made = _methods(kind, _inside_proxy, _watcher_of_proxy)
    proxy = type(kind.__name__, (wrapt.ObjectProxy,), made)(stream)
    proxy._self_watcher = watcher
    return proxy


def _itself(stream: Any) -> Any:
    return stream


def _watcher_in_dict(stream: Any) -> ItemWatcher:
    watcher: ItemWatcher = stream.__dict__[_WATCHER]
    return watcher


def _inside_proxy(proxy: Any) -> Any:
    return proxy.__wrapped__


def _watcher_of_proxy(proxy: Any) -> ItemWatcher:
    watcher: ItemWatcher = proxy._self_watcher
    return watcher


Part = Callable[[Any], Any]


def _methods(kind: Any, inner: Part, watcher_of: Part) -> dict[str, Any]:
    """What is replaced of ``kind``. ``inner`` gives the SDK's object, ``watcher_of`` the watcher."""
    made = {
        name: functools.wraps(original)(make(original, inner, watcher_of))
        for name, make in _MAKERS.items()
        if (original := getattr(kind, name, None)) is not None and not _makes_an_iterator(name, original)
    }
    made["__del__"] = _dropped(getattr(kind, "__del__", None) if inner is _itself else None, watcher_of)
    return made


def _makes_an_iterator(name: str, method: Any) -> bool:
    """In aiobotocore ``__anext__`` gives no item, but the iterator that ``__aiter__`` returns, which is followed."""
    return name == "__anext__" and inspect.isasyncgenfunction(method)


def _next(original: Any, inner: Part, watcher_of: Part) -> Any:
    def __next__(self: Any) -> Any:  # noqa: N807
        watcher, stream = watcher_of(self), inner(self)
        if watcher.done or watcher.inside:
            if watcher.was_cut:
                raise watcher.refusal() or StopIteration
            return original(stream)
        while True:
            token = watcher.enter()
            try:
                item = original(stream)
            except StopIteration:
                watcher.end("read")
                raise
            except BaseException as error:
                watcher.broke(error)
                raise
            finally:
                watcher.leave(token)
            seen = watcher.item(item)
            if watcher.growth is not None and watcher.outgrown() is not None and not seen:
                raise watcher.refusal() or StopIteration
            if seen:
                return item

    return __next__


def _anext(original: Any, inner: Part, watcher_of: Part) -> Any:
    async def __anext__(self: Any) -> Any:  # noqa: N807
        watcher, stream = watcher_of(self), inner(self)
        if watcher.done or watcher.inside:
            if watcher.was_cut:
                raise watcher.refusal() or StopAsyncIteration
            return await original(stream)
        while True:
            token = watcher.enter()
            try:
                item = await original(stream)
            except StopAsyncIteration:
                watcher.end("read")
                raise
            except BaseException as error:
                watcher.broke(error)
                raise
            finally:
                watcher.leave(token)
            seen = watcher.item(item)
            if watcher.growth is not None and await watcher.outgrown_async() is not None and not seen:
                raise watcher.refusal() or StopAsyncIteration
            if seen:
                return item

    return __anext__


def _iterating(items: Callable[..., Any], after_cut: Callable[[ItemWatcher], Any]) -> Callable[[Any, Part, Part], Any]:
    """``__iter__`` and ``__aiter__``: an iterator of its own that the object gives is followed too; those that read
    the object itself are followed there."""

    def make(original: Any, inner: Part, watcher_of: Part) -> Any:
        def iterate(self: Any) -> Any:
            watcher, stream = watcher_of(self), inner(self)
            iterator = original(stream)
            if iterator is stream:
                return self
            if watcher.was_cut:
                return after_cut(watcher)
            return iterator if watcher.done or watcher.inside else items(iterator, watcher, whole=False)

        return iterate

    return make


def _entering(original: Any, inner: Part, watcher_of: Part) -> Any:
    def __enter__(self: Any) -> Any:  # noqa: N807
        watcher, stream = watcher_of(self), inner(self)
        token = watcher.enter()
        try:
            entered = original(stream)
        except BaseException as error:
            watcher.broke(error)
            raise
        finally:
            watcher.leave(token)
        return _entered(self, stream, entered, watcher)

    return __enter__


def _aentering(original: Any, inner: Part, watcher_of: Part) -> Any:
    async def __aenter__(self: Any) -> Any:  # noqa: N807
        watcher, stream = watcher_of(self), inner(self)
        token = watcher.enter()
        try:
            entered = await original(stream)
        except BaseException as error:
            watcher.broke(error)
            raise
        finally:
            watcher.leave(token)
        return _entered(self, stream, entered, watcher)

    return __aenter__


def _entered(manager: Any, stream: Any, entered: Any, watcher: ItemWatcher) -> Any:
    """What ``with`` gives: the object itself, or a stream that it manages."""
    if entered is stream:
        return manager
    return entered if watcher.done or not is_stream(entered) else _followed(entered, watcher)


def _closing(original: Any, inner: Part, watcher_of: Part) -> Any:
    if inspect.iscoroutinefunction(original):

        async def aclose(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await original(inner(self), *args, **kwargs)
            finally:
                watcher_of(self).end("closed")

        return aclose

    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(inner(self), *args, **kwargs)
        finally:
            watcher_of(self).end("closed")

    return close


def _dropped(original: Any, watcher_of: Part) -> Any:
    def __del__(self: Any) -> None:  # noqa: N807
        try:
            watcher = watcher_of(self)
        except (AttributeError, KeyError):
            watcher = None  # never finished being made
        if watcher is not None and not watcher.done:
            deferred.defer(lambda: watcher.ended("abandoned"))
        if original is not None:
            original(self)

    return __del__


_MAKERS: Final[dict[str, Callable[[Any, Part, Part], Any]]] = {
    "__next__": _next,
    "__anext__": _anext,
    "__iter__": _iterating(_items, _after_cut),
    "__aiter__": _iterating(_async_items, _async_after_cut),
    "__enter__": _entering,
    "__aenter__": _aentering,
    **dict.fromkeys(("close", "aclose", "__exit__", "__aexit__"), _closing),
}
"""How each method that a stream may have is made to tell."""
