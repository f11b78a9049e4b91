"""Watching the body of an HTTP response that the program has yet to read.

The byte stream of the response is replaced by one that passes everything on and tells a
:class:`Watcher` how it ended: read out, closed, failed, cancelled, or dropped. Nothing above it (the
SDK's stream objects, helpers, raw responses) is touched, so the program gets the SDK's own objects.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from time import perf_counter
from typing import Any, Final, Protocol

from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.instrumentation import deferred
from tokenbudget_otel.instrumentation.growth import CUT, Growth
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.pending import ENDS, MOST_END, ROOM, USAGE, Pending


class Watcher(Protocol):
    """Follows one body. ``ended`` is called once or more; the first time counts, and sets ``done``."""

    done: bool

    def chunk(self, data: bytes) -> bytes:
        """Take bytes that arrived, give those that the program is to see."""

    def rest(self) -> bytes:
        """The body was read to its end: give what was held back."""

    def ended(self, how: str, error: BaseException | None = None) -> None:
        """``how``: ``read``, ``closed``, ``cancelled``, ``abandoned``, ``failed`` or ``cut_by_budget``."""


def watch(response: Any, watcher: Watcher) -> None:
    """Have ``watcher`` follow the body of ``response``, an unread response of httpx or httpx2."""
    response.stream = _body_class(type(response))(response.stream, watcher)
    remember(watcher)


def remember(watcher: Watcher) -> None:
    """Have ``watcher`` ended when the program ends, if nothing else ends it."""
    deferred.start()
    _followed.add(watcher)


_followed: Final[weakref.WeakSet[Watcher]] = weakref.WeakSet()
"""Watchers of bodies, so that those which the program still holds when it ends are ended too."""


def _end_all() -> None:
    for watcher in tuple(_followed):
        if not watcher.done:
            end(watcher, "abandoned")


deferred.at_exit(_end_all)
os.register_at_fork(after_in_child=_followed.clear)  # what the parent follows is the parent's to end


_held: Final[set[Any]] = set()
"""Iterators over the bodies that are being read, kept from the garbage collector.

A stream of the SDK that is dropped half-read is found by the collector, and with it the HTTP library's generator. Its
finaliser takes the lock of the connection pool, on whatever thread the collector happens to run, perhaps one that holds
the lock: the program hangs, with or without us (seen with httpx 0.28). Held here, that generator is never the
collector's to end. Ours is, and it has the worker close what lies below."""

hold = _held.add
let_go = _held.discard


class _Reading:
    """Around the reading of a body: holds its iterator, and tells the watcher how it came to an end."""

    __slots__ = ("_iterator", "_watcher")

    def __init__(self, watcher: Watcher, iterator: Any) -> None:
        self._watcher = watcher
        self._iterator = iterator

    def __enter__(self) -> None:
        _held.add(self._iterator)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, GeneratorExit):
            return  # the reader let go; close() or the finaliser follows and knows more
        _held.discard(self._iterator)
        end(self._watcher, "read" if error is None else "failed", error)


class _AsyncReading:
    """The same of a body that is read on an event loop: nothing is to be held, and reading can be cancelled."""

    __slots__ = ("_watcher",)

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            end(self._watcher, "read")
        elif not isinstance(error, GeneratorExit):
            end(self._watcher, "cancelled" if isinstance(error, asyncio.CancelledError) else "failed", error)


class _Body:
    """The byte stream, sync and async; mixed with the byte stream classes of the HTTP library at hand."""

    def __init__(self, stream: Any, watcher: Watcher) -> None:
        self._stream = stream
        self._watcher = watcher
        self._iterator: Any = None

    def __getattr__(self, name: str) -> Any:
        # Whatever else the wrapped stream offers (the anthropic SDK keeps an observer there).
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[bytes]:
        pending: Pending | None = getattr(self._watcher, "pending", None)
        if pending is None:
            return self._looked_at()
        return self._stripped(pending) if pending.strips else self._put_down(pending)

    # Of streams that are looked at later. Nothing is called for a piece that need not be.

    def _put_down(self, pending: Pending) -> Iterator[bytes]:
        """The pieces of a stream as they come."""
        watcher, room = self._watcher, ROOM
        stamp, keep = pending.times.append, pending.pieces.append
        self._iterator = iterator = iter(self._stream)
        with _Reading(watcher, iterator):
            for data in iterator:
                stamp(perf_counter())
                keep(data)
                room -= len(data)
                if room < 0:
                    pending.look()
                    room = ROOM
                if data:
                    yield data
            if rest := _rest(watcher):
                yield rest

    def _stripped(self, pending: Pending) -> Iterator[bytes]:
        """The pieces of a stream without what our request for usage brought. :meth:`Pending.take` is what decides; two
        cases that it has been seen to decide are done here: of one line that ends as those before it did, and of one
        that has no word of usage but ``null``."""
        watcher, room = self._watcher, ROOM
        stamp, keep = pending.times.append, pending.pieces.append
        clear, null, tail, ending = pending.clear, pending.null, pending.tail, pending.ending
        cut = len(tail)
        self._iterator = iterator = iter(self._stream)
        with _Reading(watcher, iterator):
            for data in iterator:
                now = perf_counter()
                if data.endswith(tail) and data.find(b"\n") >= len(data) - MOST_END:
                    data = data[:-cut] + ending
                else:
                    before, _, after = data.rpartition(null)
                    if clear and b"\n" not in before and USAGE not in after and after.endswith(ENDS):
                        data = before + after
                    else:
                        data = pending.take(data, now)
                        clear, null, tail, ending = pending.clear, pending.null, pending.tail, pending.ending
                        cut = len(tail)
                        if data:
                            yield data
                        continue
                stamp(now)
                keep(data)
                room -= len(data)
                if room < 0:
                    pending.look()
                    room = ROOM
                yield data
            if rest := _rest(watcher):
                yield rest

    def _looked_at(self) -> Iterator[bytes]:
        """The pieces of a stream each of which is looked at before it is handed on."""
        watcher = self._watcher
        growth: Growth | None = getattr(watcher, "growth", None)
        self._iterator = iterator = iter(self._stream)
        with _Reading(watcher, iterator):
            for data in iterator:
                shown = _shown(watcher, data)
                if growth is not None and growth.due() and (refusal := growth.refused()) is not None:
                    self._cut(refusal)
                    if shown:
                        yield shown
                    raise refusal
                if shown:
                    yield shown
            if rest := _rest(watcher):
                yield rest

    def close(self) -> None:
        if deferred.in_collector():
            deferred.defer(lambda: self._close("abandoned"))
        else:
            self._close("closed")

    def _close(self, how: str) -> None:
        try:
            self._stream.close()
        finally:
            _held.discard(self._iterator)
            end(self._watcher, how)

    def _cut(self, refusal: BudgetExceeded) -> None:
        """A budget has no room for more: the provider is to stop at once. What has arrived is still handed on."""
        end(self._watcher, CUT, refusal)
        try:
            self._close(CUT)
        except Exception as error:
            log_once("close a stream that was cut", error)

    async def _cut_async(self, refusal: BudgetExceeded) -> None:
        end(self._watcher, CUT, refusal)
        try:
            await self._stream.aclose()
        except Exception as error:
            log_once("close a stream that was cut", error)

    def __aiter__(self) -> AsyncIterator[bytes]:
        pending: Pending | None = getattr(self._watcher, "pending", None)
        if pending is None:
            return self._looked_at_async()
        return self._stripped_async(pending) if pending.strips else self._put_down_async(pending)

    async def _put_down_async(self, pending: Pending) -> AsyncIterator[bytes]:
        watcher, room = self._watcher, ROOM
        stamp, keep = pending.times.append, pending.pieces.append
        with _AsyncReading(watcher):
            async for data in self._stream:
                stamp(perf_counter())
                keep(data)
                room -= len(data)
                if room < 0:
                    pending.look()
                    room = ROOM
                if data:
                    yield data
            if rest := _rest(watcher):
                yield rest

    async def _stripped_async(self, pending: Pending) -> AsyncIterator[bytes]:
        watcher, room = self._watcher, ROOM
        stamp, keep = pending.times.append, pending.pieces.append
        clear, null, tail, ending = pending.clear, pending.null, pending.tail, pending.ending
        cut = len(tail)
        with _AsyncReading(watcher):
            async for data in self._stream:
                now = perf_counter()
                if data.endswith(tail) and data.find(b"\n") >= len(data) - MOST_END:
                    data = data[:-cut] + ending
                else:
                    before, _, after = data.rpartition(null)
                    if clear and b"\n" not in before and USAGE not in after and after.endswith(ENDS):
                        data = before + after
                    else:
                        data = pending.take(data, now)
                        clear, null, tail, ending = pending.clear, pending.null, pending.tail, pending.ending
                        cut = len(tail)
                        if data:
                            yield data
                        continue
                stamp(now)
                keep(data)
                room -= len(data)
                if room < 0:
                    pending.look()
                    room = ROOM
                yield data
            if rest := _rest(watcher):
                yield rest

    async def _looked_at_async(self) -> AsyncIterator[bytes]:
        watcher = self._watcher
        growth: Growth | None = getattr(watcher, "growth", None)
        off_loop = getattr(watcher, "off_loop", None)
        try:
            async for data in self._stream:
                shown = _shown(watcher, data) if off_loop is None else await off_loop(_shown, watcher, data)
                if growth is not None and growth.due() and (refusal := await growth.refused_async()) is not None:
                    await self._cut_async(refusal)
                    if shown:
                        yield shown
                    raise refusal
                if shown:
                    yield shown
            if rest := _rest(watcher):
                yield rest
        except GeneratorExit:
            raise
        except asyncio.CancelledError as error:
            end(watcher, "cancelled", error)
            raise
        except BaseException as error:
            end(watcher, "failed", error)
            raise
        if off_loop is None:
            end(watcher, "read")
        else:
            await off_loop(end, watcher, "read")

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            end(self._watcher, "closed")

    def __del__(self) -> None:
        watcher = self.__dict__.get("_watcher")
        if self.__dict__.get("_iterator") in _held:
            deferred.defer(lambda: self._close("abandoned"))
        elif watcher is not None and not watcher.done:
            deferred.defer(lambda: watcher.ended("abandoned"))


def _shown(watcher: Watcher, data: bytes) -> bytes:
    try:
        return watcher.chunk(data)
    except Exception as error:
        log_once("read a streamed response", error)
        return data


def _rest(watcher: Watcher) -> bytes:
    try:
        return watcher.rest()
    except Exception as error:
        log_once("read a streamed response", error)
        return b""


def end(watcher: Watcher, how: str, error: BaseException | None = None) -> None:
    """Tell ``watcher`` how its body ended; errors are ours, and inside the garbage collector it is done later."""
    if deferred.in_collector():
        deferred.defer(lambda: watcher.ended("abandoned", error))
        return
    try:
        watcher.ended(how, error)
    except Exception as problem:
        log_once("end a streamed call", problem)


_classes: dict[type, type] = {}


def _body_class(response_class: type) -> Any:
    """The body class for responses of this library: httpx and httpx2 check for their own base classes."""
    if (known := _classes.get(response_class)) is not None:
        return known
    for base in response_class.__mro__:
        library = sys.modules.get(base.__module__.partition(".")[0])
        sync_stream = getattr(library, "SyncByteStream", None)
        async_stream = getattr(library, "AsyncByteStream", None)
        if sync_stream is not None and async_stream is not None:
            made = type("WatchedBody", (_Body, sync_stream, async_stream), {})
            _classes[response_class] = made
            return made
    raise TypeError(f"{response_class.__module__}.{response_class.__qualname__} is not a response of httpx or httpx2")
