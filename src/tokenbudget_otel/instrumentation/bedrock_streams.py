"""The body of an InvokeModel answer, watched while the program reads it as it likes.

The program keeps the SDK's own object, of a class that is a subclass of its own: ``read``, ``readinto``,
``readlines``, iteration, ``with`` and ``close`` are those of the SDK, and tell the watcher what went by.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from tokenbudget_otel.instrumentation import bodies, deferred
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.streams import BROKEN_CONNECTION, MAX_JSON_BYTES, OUTCOMES, Finish

_WATCHER: Final = "_tokenbudget_watcher"


class BodyWatcher:
    """Follows one body and ends its call.

    Args:
        read: what the JSON says; given ``None`` where there is none, what is known without it.
        finish: ends the call.
        length: how many bytes there are, where that is known.
    """

    def __init__(self, read: Callable[[Any], ResponseFacts], finish: Finish, length: int | None) -> None:
        self.done = False
        self.below = False
        """Whether the bytes are seen one level below, so that they are not counted twice."""
        self._read = read
        self._finish = finish
        self._length = length
        self._seen = 0
        self._body = bytearray()

    def chunk(self, data: bytes) -> bytes:
        self._seen += len(data)
        if len(self._body) <= MAX_JSON_BYTES:
            self._body += data
        return data

    def rest(self) -> bytes:
        return b""

    def took(self, data: Any, *, last: bool) -> None:
        """The program has read ``data``; whether it knows that nothing comes after it."""
        try:
            self.chunk(data)
        except Exception as error:
            log_once("read the body of a response", error)
        if last or (self._length is not None and self._seen >= self._length):
            bodies.end(self, "read")

    def ended(self, how: str, error: BaseException | None = None) -> None:
        if self.done:
            return
        self.done = True
        try:
            data = json.loads(self._body)
        except ValueError:
            data = None
        if data is not None:
            self._finish("completed", self._read(data), None)
            return
        broken = how == "read" or type(error).__name__ in BROKEN_CONNECTION
        facts = self._read(None)
        # What Bedrock counts in its headers is what the whole answer took, however little of it was read.
        facts.estimated = facts.usage is None or facts.usage.output_tokens is None
        self._finish("cut" if broken else OUTCOMES[how], facts, error if how == "failed" else None)


def follow_body(body: Any, watcher: BodyWatcher) -> bool:
    """Have ``watcher`` follow a ``StreamingBody``, sync or async. ``False`` where its class cannot be replaced."""
    return _become(body, watcher, _body_class)


def _become(thing: Any, watcher: BodyWatcher, make: Callable[[type], type]) -> bool:
    kind = type(thing)
    watched = _classes.get(kind)
    if watched is None:
        watched = _classes[kind] = make(kind)
    try:
        thing.__class__ = watched
        thing.__dict__[_WATCHER] = watcher
    except (TypeError, AttributeError):  # written in C, or a proxy
        return False
    bodies.remember(watcher)
    return True


_classes: dict[type, type] = {}


def _body_class(kind: Any) -> type:
    """A subclass of a ``StreamingBody`` that reports to the watcher in the instance's ``__dict__``."""
    made = _closings(kind)
    if inspect.iscoroutinefunction(kind.read):
        made["read"] = _aread(kind.read)
        made["readinto"] = _areadinto(kind.readinto)
    else:
        made["read"] = _read(kind.read)
        for name, replace in (("readinto", _readinto), ("readlines", _readlines), ("__enter__", _enter)):
            if hasattr(kind, name):
                made[name] = replace(getattr(kind, name))
    return _subclass(kind, made)


def _raw_class(kind: Any) -> type:
    """The same of the HTTP response below it, which ``with body as raw`` hands out."""
    made = _closings(kind)
    for name, replace in (("read", _read), ("read1", _read), ("read_chunked", _read_chunked)):
        if hasattr(kind, name):
            made[name] = replace(getattr(kind, name))
    return _subclass(kind, made)


def _subclass(kind: Any, made: dict[str, Any]) -> type:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), names | made)


def _closings(kind: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"__del__": _dropped(getattr(kind, "__del__", None))}
    for name in ("close", "aclose", "__exit__", "__aexit__"):
        if (original := getattr(kind, name, None)) is not None:
            made[name] = _aclosing(original) if inspect.iscoroutinefunction(original) else _closing(original)
    return made


# --- reading -------------------------------------------------------------------------------------------------------


def _failed(watcher: BodyWatcher, error: BaseException) -> None:
    bodies.end(watcher, "failed" if isinstance(error, Exception) else "cancelled", error)


def _all_of_it(data: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a read that gave ``data`` was one to the end."""
    asked = args[0] if args else kwargs.get("amt")
    return asked is None or asked < 0 or (not data and asked > 0)


def _read(original: Any) -> Any:
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        watcher: BodyWatcher = self.__dict__[_WATCHER]
        try:
            data = original(self, *args, **kwargs)
        except BaseException as error:
            _failed(watcher, error)
            raise
        if not watcher.done and (not watcher.below or not _is_body(self)):
            watcher.took(data, last=_all_of_it(data, args, kwargs))
        return data

    return read


def _aread(original: Any) -> Any:
    async def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        watcher: BodyWatcher = self.__dict__[_WATCHER]
        try:
            data = await original(self, *args, **kwargs)
        except BaseException as error:
            _failed(watcher, error)
            raise
        if not watcher.done:
            watcher.took(data, last=_all_of_it(data, args, kwargs))
        return data

    return read


def _readinto(original: Any) -> Any:
    def readinto(self: Any, b: Any) -> Any:
        watcher: BodyWatcher = self.__dict__[_WATCHER]
        try:
            count = original(self, b)
        except BaseException as error:
            _failed(watcher, error)
            raise
        if not watcher.done and not watcher.below:
            watcher.took(bytes(memoryview(b)[:count]), last=not count and len(b) > 0)
        return count

    return readinto


def _areadinto(original: Any) -> Any:
    async def readinto(self: Any, b: Any) -> Any:
        watcher: BodyWatcher = self.__dict__[_WATCHER]
        try:
            count = await original(self, b)
        except BaseException as error:
            _failed(watcher, error)
            raise
        if not watcher.done:
            watcher.took(bytes(memoryview(b)[:count]), last=not count and len(b) > 0)
        return count

    return readinto


def _readlines(original: Any) -> Any:
    def readlines(self: Any, *args: Any) -> Any:
        watcher: BodyWatcher = self.__dict__[_WATCHER]
        try:
            lines = original(self, *args)
        except BaseException as error:
            _failed(watcher, error)
            raise
        if not watcher.done and not watcher.below:
            watcher.took(b"".join(lines), last=True)
        return lines

    return readlines


def _read_chunked(original: Any) -> Any:
    def read_chunked(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        watcher: BodyWatcher = self.__dict__[_WATCHER]
        try:
            for data in original(self, *args, **kwargs):
                watcher.took(data, last=False)
                yield data
        except GeneratorExit:
            raise  # the program let go; closing or dropping the body follows
        except BaseException as error:
            _failed(watcher, error)
            raise
        bodies.end(watcher, "read")

    return read_chunked


def _enter(original: Any) -> Any:
    def __enter__(self: Any) -> Any:  # noqa: N807
        entered = original(self)
        watcher: BodyWatcher = self.__dict__[_WATCHER]
        if entered is not self and not watcher.done:
            if _become(entered, watcher, _raw_class):
                watcher.below = True
            else:  # out of our sight from here: what is known now has to do
                bodies.end(watcher, "closed")
        return entered

    return __enter__


def _is_body(thing: Any) -> bool:
    return hasattr(thing, "_raw_stream")


# --- ending --------------------------------------------------------------------------------------------------------


def _closing(original: Any) -> Any:
    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        finally:
            _let_go(self)

    return close


def _aclosing(original: Any) -> Any:
    async def aclose(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, *args, **kwargs)
        finally:
            _let_go(self)

    return aclose


def _let_go(thing: Any) -> None:
    watcher = thing.__dict__.get(_WATCHER)
    if watcher is not None:
        bodies.end(watcher, "closed")


def _dropped(original: Any) -> Any:
    def __del__(self: Any) -> None:  # noqa: N807
        watcher = self.__dict__.get(_WATCHER)
        if watcher is not None and not watcher.done and not (watcher.below and _is_body(self)):
            watcher_ended = watcher.ended
            # Not here: the collector may be at work inside a lock of ours.
            self.__dict__.pop(_WATCHER, None)
            deferred.defer(lambda: watcher_ended("abandoned"))
        if original is not None:
            original(self)

    return __del__
