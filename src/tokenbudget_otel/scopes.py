"""What ``tb.tags`` and ``tb.budget`` have in common: a scope laid over the OpenTelemetry context.

A :class:`ContextScope` is a context manager and a decorator for every kind of function. Around a
generator it is in force only while the generator's own body runs, never for the code that reads it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import Token
from typing import Any, Generic, TypeVar, cast

from opentelemetry import context
from opentelemetry.context import Context

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class ContextScope(Generic[T]):
    """Base of scopes. A subclass says what it lays over the context (:meth:`_open`), what ``with … as``
    gives (:meth:`_value`), what happens when it ends (:meth:`_close`), and how to make another like
    itself for one more call of a decorated function (:meth:`_again`)."""

    def _open(self, ctx: Context) -> Context:
        raise NotImplementedError

    def _value(self) -> T:
        raise NotImplementedError

    def _close(self) -> None:
        """Nothing to do, by default."""

    def _again(self) -> ContextScope[T]:
        raise NotImplementedError

    def __enter__(self) -> T:
        inner = self._open(context.get_current())
        # One scope may be entered by many threads and tasks at once, so its tokens are kept by the context
        # that each entry made; that context is alive, and its id unique, until the entry is left.
        self.__dict__.setdefault("_tokens", {})[id(inner)] = context.attach(inner)
        return self._value()

    def __exit__(self, *exc: object) -> None:
        tokens: dict[int, Token[Context]] = self.__dict__["_tokens"]
        if (token := tokens.pop(id(context.get_current()), None)) is not None:
            detach(token)
        else:  # with a context of somebody else's still attached, or from another task
            _detach_any(tokens)
        self._close()

    async def __aenter__(self) -> T:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__(*exc)

    def __call__(self, func: F) -> F:
        return decorate(func, self._again)


def detach(token: Token[Context]) -> None:
    """Restore the context that was current before ``attach``, silently where that cannot be done.

    A generator may be closed in another task than the one that started it; the context of that task
    is not ours to restore, and there is nothing to report.
    """
    try:
        token.var.reset(token)
    except (ValueError, AttributeError):
        pass


def _detach_any(tokens: dict[int, Token[Context]]) -> None:
    """Undo the newest entry that this task made; where it made none, forget the oldest and leave the rest alone."""
    for key, token in reversed(list(tokens.items())):
        try:
            token.var.reset(token)
        except (ValueError, RuntimeError):
            continue  # made by another task, which is still inside
        tokens.pop(key, None)
        return
    if (oldest := next(iter(tokens), None)) is not None:
        tokens.pop(oldest, None)


class _Body:
    """The context of a generator's body: attached while a step of it runs, kept in between."""

    def __init__(self, scope: ContextScope[Any]) -> None:
        self._scope = scope
        self._context = scope._open(context.get_current())

    def __enter__(self) -> None:
        self._token = context.attach(self._context)

    def __exit__(self, *exc: object) -> None:
        self._context = context.get_current()  # the body may have opened scopes of its own
        detach(self._token)

    def close(self) -> None:
        self._scope._close()


def decorate(func: F, scope: Callable[[], ContextScope[Any]]) -> F:
    """Run every call of ``func`` inside a fresh ``scope()``, for as long as its body runs."""
    for applies, wrap in _WRAPPERS:
        if applies(func):
            return cast(F, functools.wraps(func)(wrap(func, scope)))
    raise AssertionError("unreachable: the last row applies to every callable")


def _plain(func: Callable[..., Any], scope: Callable[[], ContextScope[Any]]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with scope():
            return func(*args, **kwargs)

    return wrapper


def _coroutine(func: Callable[..., Any], scope: Callable[[], ContextScope[Any]]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with scope():
            return await func(*args, **kwargs)

    return wrapper


def _generator(func: Callable[..., Any], scope: Callable[[], ContextScope[Any]]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        body = _Body(scope())
        generator = func(*args, **kwargs)
        step: Callable[[], Any] = functools.partial(next, generator)
        try:
            while True:
                try:
                    with body:
                        item = step()
                except StopIteration as end:
                    return end.value
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step = functools.partial(generator.throw, error)
                else:
                    step = functools.partial(generator.send, sent)
        finally:
            with body:
                generator.close()
            body.close()

    return wrapper


def _async_generator(func: Callable[..., Any], scope: Callable[[], ContextScope[Any]]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        body = _Body(scope())
        generator = func(*args, **kwargs)
        step: Callable[[], Any] = functools.partial(anext, generator)
        try:
            while True:
                try:
                    with body:
                        item = await step()
                except StopAsyncIteration:
                    return
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step = functools.partial(generator.athrow, error)
                else:
                    step = functools.partial(generator.asend, sent)
        finally:
            with body:
                await generator.aclose()
            body.close()

    return wrapper


_WRAPPERS: tuple[tuple[Callable[[Any], bool], Callable[..., Callable[..., Any]]], ...] = (
    (inspect.isasyncgenfunction, _async_generator),
    (inspect.isgeneratorfunction, _generator),
    (inspect.iscoroutinefunction, _coroutine),
    (callable, _plain),
)
