"""The body of InvokeModel in every way that programs read it: the bytes are the SDK's, the call ends once."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import pytest
from bedrock_harness import CLAUDE, MESSAGE, client_of, settled
from botocore.exceptions import IncompleteReadError, ResponseStreamingError
from botocore.response import StreamingBody

from tokenbudget_otel.instrumentation.bedrock import BedrockInstrumentor
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

COUNTED = Behaviour(
    input_tokens=1_200, cached_tokens=700, cache_write_5m_tokens=100, cache_write_1h_tokens=60, output_tokens=150
)
FULL = {
    "input_tokens": 1_200, "cache_read_tokens": 700, "cache_write_tokens": 160, "cache_write_5m_tokens": 100,
    "cache_write_1h_tokens": 60, "output_tokens": 150,
}  # fmt: skip
BY_HEADERS = {"input_tokens": 1_200, "cache_read_tokens": 700, "cache_write_tokens": 160, "output_tokens": 150}
GIVEN = {"modelId": CLAUDE, "body": json.dumps(MESSAGE)}


def _into(body: Any) -> bytes:
    found, buffer = b"", bytearray(97)
    while count := body.readinto(buffer):
        found += buffer[:count]
    return found


def _pieces(body: Any, size: int) -> bytes:
    found = b""
    while piece := body.read(size):
        found += piece
    return found


def _managed(read: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def reading(body: Any) -> bytes:
        with body as raw:
            return read(raw)

    return reading


def _closed(body: Any) -> bytes:
    data = bytes(body.read())
    body.close()
    return data


WAYS: dict[str, Callable[[Any], bytes]] = {
    "read": lambda body: body.read(),
    "read and close": _closed,
    "read in pieces": lambda body: _pieces(body, 100),
    "read byte for byte": lambda body: _pieces(body, 1),
    "read exactly": lambda body: body.read(int(body._content_length)),
    "iter_chunks": lambda body: b"".join(body.iter_chunks(64)),
    "iter_lines": lambda body: b"\n".join(body.iter_lines(64)),
    "iteration": lambda body: b"".join(body),
    "next": lambda body: next(body),
    "readinto": _into,
    "readlines": lambda body: b"".join(body.readlines()),
    "json.load": lambda body: json.dumps(json.load(body), separators=(",", ":")).encode(),
    "with, read": _managed(lambda raw: raw.read()),
    "with, read in pieces": _managed(lambda raw: _pieces(raw, 100)),
    "with, stream": _managed(lambda raw: b"".join(raw.stream(100))),
    "with, read1": _managed(lambda raw: raw.read1()),
}


CHUNKED = ("read", "read in pieces", "iter_lines", "next", "readlines", "with, stream")
"""Ways that are tried also where nobody knows how long the body is."""


@pytest.mark.parametrize(("way", "chunked"), [*((way, False) for way in WAYS), *((way, True) for way in CHUNKED)])
def test_every_way(way: str, chunked: bool, sim: Simulator, telemetry: Any, meter: Meter) -> None:
    behaviour = Behaviour(**{**_fields(COUNTED), "text": "A river.", "split": 50 if chunked else None})
    client, results = client_of(sim), []
    instrumentor = BedrockInstrumentor()
    for instrumented in (False, True):
        sim.reset()
        sim.default = behaviour
        if instrumented:
            instrumentor.instrument(tracer_provider=telemetry.tracer_provider)
        body = client.invoke_model(**GIVEN)["body"]
        assert isinstance(body, StreamingBody)
        assert type(body).__qualname__ == "StreamingBody"
        results.append((WAYS[way](body), body.tell()))
        if instrumented:
            instrumentor.uninstrument()
    del body
    assert results[0] == results[1]
    assert json.loads(results[1][0])["type"] == "message"
    span = telemetry.span()
    assert span.attributes["tokenbudget.call.outcome"] == "completed"
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert meter.totals.get().usage.counts() == FULL


def _fields(behaviour: Behaviour) -> dict[str, Any]:
    names = ("input_tokens", "cached_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")
    return {name: getattr(behaviour, name) for name in names}


async def _aiter(body: Any) -> bytes:
    return b"".join([piece async for piece in body])


async def _aiter_lines(body: Any) -> bytes:
    return b"\n".join([line async for line in body.iter_lines(64)])


async def _ainto(body: Any) -> bytes:
    found, buffer = b"", bytearray(97)
    while count := await body.readinto(buffer):
        found += buffer[:count]
    return found


async def _amanaged(body: Any) -> bytes:
    async with body as entered:
        return bytes(await entered.read())


async def _read(body: Any) -> bytes:
    return bytes(await body.read())


@pytest.mark.parametrize("way", [_read, _aiter, _aiter_lines, _ainto, _amanaged])
async def test_every_way_of_aiobotocore(way: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = COUNTED
    async with client_of(sim, True) as client:
        body = (await client.invoke_model(**GIVEN))["body"]
        assert json.loads(await way(body))["type"] == "message"
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"
    assert meter.totals.get().usage.counts() == FULL


@pytest.mark.parametrize(("ending", "outcome"), [("closed", "closed"), ("dropped", "abandoned"), ("left", "abandoned")])
async def test_what_was_not_read_was_used(
    ending: str, outcome: str, asynchronous: bool, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    """The headers have told, and the provider has done its work."""
    sim.default = COUNTED
    answer = await settled(client.invoke_model(**GIVEN))
    body = answer.pop("body")
    if ending == "left":
        await settled(body.read(10))
    if ending == "closed":
        await settled(body.close())
    del body
    gc.collect()
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == outcome
    assert "tokenbudget.usage.estimated" not in span.attributes
    assert meter.totals.get().usage.counts() == BY_HEADERS


def test_with_and_nothing_read(sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = COUNTED
    with client_of(sim).invoke_model(**GIVEN)["body"]:
        pass
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "closed"
    assert meter.totals.get().usage.counts() == BY_HEADERS


async def test_a_connection_that_breaks(
    asynchronous: bool, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.default = Behaviour(**_fields(COUNTED), cut_after=1)
    body = (await settled(client.invoke_model(**GIVEN)))["body"]
    with pytest.raises(Exception) as raised:
        await settled(body.read())
    if not asynchronous:
        assert isinstance(raised.value, ResponseStreamingError | IncompleteReadError)
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] in ("cut", "failed")
    assert span.attributes["error.type"]
    assert meter.totals.get().usage.counts() == BY_HEADERS
