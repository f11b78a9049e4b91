"""An SDK in miniature, of nobody's, over real HTTP: what a program would declare itself."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any


class Client:
    """Sync."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def _post(self, question: str, model: str, **more: Any) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": question}], **more}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.base_url}/chat/completions", json.dumps(body).encode(), headers)
        return urllib.request.urlopen(request, timeout=20)

    def ask(self, question: str, model: str = "miniature-1") -> Any:
        with self._post(question, model) as response:
            return json.load(response)

    def stream(self, question: str, model: str = "miniature-1") -> Iterator[Any]:
        with self._post(question, model, stream=True, stream_options={"include_usage": True}) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])


class AsyncClient(Client):
    """Async, by threads."""

    async def ask(self, question: str, model: str = "miniature-1") -> Any:
        def read() -> Any:
            with self._post(question, model) as response:
                return json.load(response)

        return await asyncio.to_thread(read)

    async def stream(self, question: str, model: str = "miniature-1") -> AsyncIterator[Any]:
        with self._post(question, model, stream=True, stream_options={"include_usage": True}) as response:
            while line := await asyncio.to_thread(response.readline):
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])
