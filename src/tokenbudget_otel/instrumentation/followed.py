"""Responses that an SDK hands over item by item: watched as they go by, and ended exactly once.

The program gets what it would have got: a generator for a generator, the SDK's own object where that is what the SDK
returns (its class is replaced by a subclass of itself, so ``isinstance`` holds and every method is there).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

from tokenbudget_otel.instrumentation import bodies, deferred
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.nesting import under_way
from tokenbudget_otel.instrumentation.streams import ItemReader, conclude

if TYPE_CHECKING:
    from tokenbudget_otel.instrumentation.door import Door, Opened

_NO_STREAMS: Final = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


def is_stream(result: Any) -> bool:
    """Whether ``result`` is something to be read item by item, rather than an answer that happens to be iterable
    (a list, a model)."""
    if isinstance(result, _NO_STREAMS) or hasattr(result, "model_dump"):
        return False
    return hasattr(result, "__next__") or hasattr(result, "__anext__") or hasattr(result, "__aiter__")


class ItemWatcher:
    """Follows the items of one response and ends its call."""

    def __init__(self, door: Door, opened: Opened, reader: ItemReader) -> None:
        self.done = False
        self._door = door
        self._opened = opened
        self._reader = reader
        self._asked = False
        self._seen = False

    def enter(self) -> Any:
        """Before an item is asked for. The first is what makes some SDKs send the request: the span is current."""
        if not self._asked:
            self._opened.call.__enter__()
        return under_way.set(self._opened)

    def leave(self, token: Any) -> None:
        """After an item was asked for, whatever came of it."""
        under_way.reset(token)
        if not self._asked:
            self._asked = True
            self._opened.call.__exit__()

    def item(self, item: Any) -> bool:
        """An item arrived; whether the program is to see it."""
        self._seen = True
        self._opened.call.chunk_arrived()
        try:
            return not self._reader.item(item)
        except Exception as error:
            log_once("read a streamed response", error)
            return True

    def ended(self, how: str, error: BaseException | None = None) -> None:
        """``how``: ``read``, ``closed``, ``cancelled``, ``abandoned`` or ``failed``."""
        if self.done:
            return
        self.done = True
        opened = self._opened
        if how == "failed" and not self._seen and error is not None:
            self._door.failed(opened, error)
        elif not self._asked:  # nobody asked for an item: where that is what sends the request, nothing was sent
            opened.call.finish(how, ResponseFacts(), billed=False)
        else:
            reader = self._reader
            outcome, facts = conclude(reader, how, error, opened.call, reader.text_tokens)
            self._door.finish(opened, outcome, facts, error if how == "failed" else None)

    def end(self, how: str, error: BaseException | None = None) -> None:
        """:meth:`ended`, but never an exception, and not inside the garbage collector."""
        bodies.end(self, how, error)

    # A watcher of items has no bytes; these make it one of the watchers that are ended when the program ends.

    def chunk(self, data: bytes) -> bytes:
        return data

    def rest(self) -> bytes:
        return b""


def follow(stream: Any, watcher: ItemWatcher) -> Any:
    """What the program is given in place of ``stream``."""
    bodies.remember(watcher)
    if inspect.isgenerator(stream):
        return _primed(_items(stream, watcher))
    if inspect.isasyncgen(stream):
        return _primed_async(_async_items(stream, watcher))
    return _watched_object(stream, watcher)


def _items(iterator: Iterator[Any], watcher: ItemWatcher) -> Generator[Any, None, Any]:
    bodies.hold(iterator)
    try:
        yield None  # taken by _primed
        while True:
            token = watcher.enter()
            try:
                item = next(iterator)
            except StopIteration as stop:
                watcher.end("read")
                return stop.value
            finally:
                watcher.leave(token)
            if watcher.item(item):
                yield item
    except GeneratorExit:
        if deferred.in_collector():
            deferred.defer(lambda: _close(iterator, watcher, "abandoned"))
        else:
            _close(iterator, watcher, "closed")
        raise
    except BaseException as error:
        watcher.end("failed" if isinstance(error, Exception) else "cancelled", error)
        raise
    finally:
        if not deferred.in_collector():
            bodies.let_go(iterator)


def _close(iterator: Any, watcher: ItemWatcher, how: str) -> None:
    try:
        if (close := getattr(iterator, "close", None)) is not None:
            close()
    finally:
        bodies.let_go(iterator)
        watcher.end(how)


async def _async_items(iterator: AsyncIterator[Any], watcher: ItemWatcher) -> AsyncGenerator[Any, None]:
    try:
        yield None  # taken by _primed_async
        while True:
            token = watcher.enter()
            try:
                item = await anext(iterator)
            except StopAsyncIteration:
                break
            finally:
                watcher.leave(token)
            if watcher.item(item):
                yield item
    except GeneratorExit:
        try:
            if (close := getattr(iterator, "aclose", None)) is not None:
                await close()
        finally:
            watcher.end("closed")
        raise
    except asyncio.CancelledError as error:
        watcher.end("cancelled", error)
        raise
    except BaseException as error:
        watcher.end("failed", error)
        raise
    watcher.end("read")


# A generator that was never started ends without a word. Ours are started here, up to a yield of their own, so that one
# that the program drops unread ends its call too.


def _primed(generator: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
    next(generator)
    return generator


def _primed_async(generator: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    try:
        generator.asend(None).send(None)
    except StopIteration:
        pass
    return generator


# --- objects -----------------------------------------------------------------------------------------------------


_classes: dict[type, type] = {}


def _watched_object(stream: Any, watcher: ItemWatcher) -> Any:
    """``stream`` itself, of a class that tells ``watcher`` of the items, of its end and of its being dropped."""
    kind = type(stream)
    watched = _classes.get(kind)
    if watched is None:
        watched = _classes[kind] = _watched_class(kind)
    try:
        stream.__class__ = watched
        stream.__dict__[_WATCHER] = watcher
    except (TypeError, AttributeError):  # slots, or a class written in C: what is left is to pass the items on
        return _primed_async(_async_items(aiter(stream), watcher)) if hasattr(stream, "__aiter__") else _primed(
            _items(iter(stream), watcher)
        )  # fmt: skip
    return stream


_WATCHER: Final = "_tokenbudget_watcher"


def _watched_class(kind: Any) -> type:
    """A subclass of ``kind`` that reports to the watcher in the instance's ``__dict__``. Only what ``kind`` has is
    replaced."""
    made: dict[str, Any] = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    if hasattr(kind, "__next__"):
        made["__next__"] = _next(kind)
    elif hasattr(kind, "__iter__"):
        made["__iter__"] = lambda self: _through(self, kind.__iter__(self))
    if hasattr(kind, "__anext__"):
        made["__anext__"] = _anext(kind)
    elif hasattr(kind, "__aiter__"):
        made["__aiter__"] = lambda self: _through(self, kind.__aiter__(self))
    for name in ("close", "__exit__"):
        if hasattr(kind, name):
            made[name] = _closing(getattr(kind, name))
    for name in ("aclose", "__aexit__"):
        if hasattr(kind, name):
            made[name] = _aclosing(getattr(kind, name))
    if inspect.iscoroutinefunction(getattr(kind, "close", None)):
        made["close"] = _aclosing(kind.close)
    made["__del__"] = _dropped(getattr(kind, "__del__", None))
    return type(kind.__name__, (kind,), made)


def _through(stream: Any, iterator: Any) -> Any:
    watcher: ItemWatcher = stream.__dict__[_WATCHER]
    if watcher.done:
        return iterator
    if hasattr(iterator, "__anext__"):
        return _primed_async(_async_items(iterator, watcher))
    return _primed(_items(iterator, watcher))


def _next(kind: Any) -> Any:
    original = kind.__next__

    def __next__(self: Any) -> Any:  # noqa: N807
        watcher: ItemWatcher = self.__dict__[_WATCHER]
        while True:
            token = watcher.enter()
            try:
                item = original(self)
            except StopIteration:
                watcher.end("read")
                raise
            except BaseException as error:
                watcher.end("failed" if isinstance(error, Exception) else "cancelled", error)
                raise
            finally:
                watcher.leave(token)
            if watcher.item(item):
                return item

    return __next__


def _anext(kind: Any) -> Any:
    original = kind.__anext__

    async def __anext__(self: Any) -> Any:  # noqa: N807
        watcher: ItemWatcher = self.__dict__[_WATCHER]
        while True:
            token = watcher.enter()
            try:
                item = await original(self)
            except StopAsyncIteration:
                watcher.end("read")
                raise
            except BaseException as error:
                watcher.end("failed" if isinstance(error, Exception) else "cancelled", error)
                raise
            finally:
                watcher.leave(token)
            if watcher.item(item):
                return item

    return __anext__


def _closing(original: Any) -> Any:
    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        finally:
            self.__dict__[_WATCHER].end("closed")

    return close


def _aclosing(original: Any) -> Any:
    async def aclose(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, *args, **kwargs)
        finally:
            self.__dict__[_WATCHER].end("closed")

    return aclose


def _dropped(original: Any) -> Any:
    def __del__(self: Any) -> None:  # noqa: N807
        watcher = self.__dict__.get(_WATCHER)
        if watcher is not None and not watcher.done:
            deferred.defer(lambda: watcher.ended("abandoned"))
        if original is not None:
            original(self)

    return __del__
