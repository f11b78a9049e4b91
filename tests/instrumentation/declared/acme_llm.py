"""An SDK in miniature, with a method for each way in which SDKs hand over answers. It sends nothing: ``sent`` says how
often it would have."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

CHUNKS = (
    {"delta": "One river"},
    {"delta": " runs"},
    {"delta": " home.", "usage": {"prompt": 7, "completion": 5}, "end": True},
)
ANSWER = {"id": "a-1", "model": "acme-1", "text": "One river runs home.", "usage": {"prompt": 7, "completion": 5}}

sent: list[str] = []
"""The prompts that were sent."""


class Answer:
    """An answer as an object."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)


class Stream:
    """A stream that reads itself from an iterator of its own, as OpenAI's does."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self.closed = False

    def __next__(self) -> Any:
        return next(self._chunks)

    def __iter__(self) -> Iterator[Any]:
        yield from self._chunks

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SelfStream(Stream):
    """One whose iterator asks the object itself."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self.__next__()
            except StopIteration:
                return


class OnlyIterable:
    """One that can only be looped over."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[Any]:
        return iter(self._chunks)


class Slots:
    """One that has no room for anything else."""

    __slots__ = ("_chunks", "name")

    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self.name = "slots"

    def __iter__(self) -> Slots:
        return self

    def __next__(self) -> Any:
        return next(self._chunks)


class AsyncStream:
    """The stream, for async clients."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self.closed = False

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        try:
            return next(self._chunks)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aiter__(self) -> AsyncIterator[Any]:
        for chunk in self._chunks:
            await asyncio.sleep(0)
            yield chunk

    async def close(self) -> None:
        self.closed = True

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _iterate(chunks: Any, prompt: str) -> Iterator[Any]:
    sent.append(prompt)
    for chunk in chunks:
        if isinstance(chunk, BaseException):
            raise chunk
        yield chunk
    return "stopped"


async def _aiterate(chunks: Any, prompt: str) -> AsyncIterator[Any]:
    sent.append(prompt)
    for chunk in chunks:
        await asyncio.sleep(0)
        if isinstance(chunk, BaseException):
            raise chunk
        yield chunk


class Base:
    """What both clients are made with."""

    url = "https://api.acme.test:8443/v1"

    def __init__(self, answer: Any = None, chunks: Any = CHUNKS) -> None:
        self.answer = ANSWER if answer is None else answer
        self.chunks = chunks
        self.nested: Any = None

    def _send(self, prompt: str) -> Any:
        sent.append(prompt)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Client(Base):
    """Sync."""

    kind = "not a method"

    def complete(self, prompt: str, model: str = "acme-1", *, max_tokens: int | None = None, **extra: Any) -> Any:
        if extra.get("stream"):
            return _iterate(self.chunks, prompt)
        return self._send(prompt)

    def twice(self, prompt: str, model: str = "acme-1") -> Any:
        """Made of two calls of its own, and of one of somebody else's."""
        if self.nested is not None:
            self.nested()
        self.complete(prompt, model)
        return self.complete(prompt, model)

    def lazy(self, prompt: str, model: str = "acme-1") -> Any:
        return (yield from _iterate(self.chunks, prompt))

    def events(self, prompt: str, model: str = "acme-1", *, kind: Any = Stream) -> Any:
        sent.append(prompt)
        return kind(self.chunks)

    @contextmanager
    def managed(self, prompt: str, model: str = "acme-1") -> Iterator[Any]:
        sent.append(prompt)
        stream = Stream(self.chunks)
        try:
            yield stream
        finally:
            stream.close()

    @classmethod
    def of_class(cls, prompt: str, model: str = "acme-1") -> Any:
        return cls()._send(prompt)

    @staticmethod
    def of_nobody(prompt: str, model: str = "acme-1") -> Any:
        return Client()._send(prompt)


class Special(Client):
    """Inherits everything."""


class Dictionary(collections.UserDict[str, Any], Base):
    """Inherits a method of somebody else's."""


class AsyncClient(Base):
    """Async."""

    async def complete(self, prompt: str, model: str = "acme-1", **extra: Any) -> Any:
        await asyncio.sleep(0)
        if extra.get("stream"):
            return _aiterate(self.chunks, prompt)
        return self._send(prompt)

    async def lazy(self, prompt: str, model: str = "acme-1") -> Any:
        async for chunk in _aiterate(self.chunks, prompt):
            yield chunk

    async def events(self, prompt: str, model: str = "acme-1") -> Any:
        sent.append(prompt)
        return AsyncStream(self.chunks)

    @asynccontextmanager
    async def managed(self, prompt: str, model: str = "acme-1") -> AsyncIterator[Any]:
        sent.append(prompt)
        yield AsyncStream(self.chunks)

    def later(self, prompt: str, model: str = "acme-1") -> Any:
        """An ordinary method that gives something to be awaited."""
        return AsyncClient._wait(self, prompt)

    async def _wait(self, prompt: str) -> Any:
        await asyncio.sleep(0)
        return self._send(prompt)

    def task(self, prompt: str, model: str = "acme-1") -> Any:
        return asyncio.ensure_future(self._wait(prompt))


class Workshop:
    """A client with parts."""

    def __init__(self) -> None:
        self.chat = Bench(Client())


class Bench:
    """A part with a part."""

    def __init__(self, client: Client) -> None:
        self.client = client


def ask(prompt: str, model: str = "acme-1") -> Any:
    """A function of the module."""
    return Client()._send(prompt)


async def aask(prompt: str, model: str = "acme-1") -> Any:
    """An async one."""
    return Client()._send(prompt)
