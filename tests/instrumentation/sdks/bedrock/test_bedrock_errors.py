"""What fails, what is tried again, what is refused, and what is none of our business."""

from __future__ import annotations

import json
import time
from typing import Any

import boto3
import pytest
from bedrock_harness import CLAUDE, MESSAGE, MESSAGES, client_of, read, settled
from botocore import exceptions, retryhandler
from botocore.retries.standard import ExponentialBackoff

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.bedrock import BedrockInstrumentor
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

CONVERSE = {"modelId": CLAUDE, "messages": MESSAGES}
STREAMED = {"modelId": CLAUDE, "body": json.dumps(MESSAGE)}


@pytest.fixture(autouse=True)
def _budget(meter: Meter) -> Any:
    """A budget with room for everything, in which no reservation may be left."""
    meter.enforcer.add(tb.Budget(limit_usd=100, window="hour", name="errors"))
    yield
    assert [row.reserved_usd for row in meter.enforcer.status()] == [0]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts botocore waits up to some seconds."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
    monkeypatch.setattr(retryhandler, "delay_exponential", lambda **_: 0)


@pytest.mark.parametrize(
    ("status", "code", "charged"),
    [
        (400, "ValidationException", 0),
        (403, "AccessDeniedException", 0),
        (404, "ResourceNotFoundException", 0),
        (408, "ModelTimeoutException", 1),
        (424, "ModelErrorException", 1),
        (429, "ThrottlingException", 0),
        (500, "InternalServerException", 1),
        (503, "ServiceUnavailableException", 1),
    ],
)
async def test_what_bedrock_says(
    status: int, code: str, charged: int, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.default = Behaviour(status=status)
    for method, given in (("converse", CONVERSE), ("invoke_model_with_response_stream", STREAMED)):
        with pytest.raises(getattr(client.exceptions, code)) as raised:
            await settled(getattr(client, method)(**given))
        assert raised.value.response["Error"]["Code"] == code
    for span in instrumented.spans():
        assert span.attributes["error.type"].endswith(code)
        assert span.attributes["tokenbudget.call.outcome"] == "failed"
    assert meter.totals.get().estimated_calls == meter.totals.get().calls == 2 * charged


async def test_tried_again(asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(status=429), Behaviour(status=500), Behaviour(input_tokens=120, output_tokens=30))
    made = client_of(sim, asynchronous, retries={"total_max_attempts": 3, "mode": "standard"})
    if asynchronous:
        async with made as client:
            answer = await client.converse(**CONVERSE)
    else:
        answer = made.converse(**CONVERSE)
    assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    assert len(sim.requests) == 3
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"
    assert meter.totals.get().usage.counts() == {"input_tokens": 120, "output_tokens": 30}


@pytest.mark.parametrize(("before", "charged"), [(500, 1), (429, 0)])
@pytest.mark.parametrize("mode", ["standard", "legacy"])
async def test_tried_again_and_refused(
    mode: str, before: int, charged: int, asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    """An attempt that failed with 500 may have been billed, whatever came of the next one."""
    sim.then(Behaviour(status=before), Behaviour(status=400))
    made = client_of(sim, asynchronous, retries={"total_max_attempts": 2, "mode": mode})
    with pytest.raises(exceptions.ClientError, match="ValidationException"):
        if asynchronous:
            async with made as client:
                await client.converse(**CONVERSE)
        else:
            made.converse(**CONVERSE)
    assert len(sim.requests) == 2
    assert len(instrumented.spans()) == 1
    assert meter.totals.get().calls == charged


async def test_nothing_was_sent(asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    """No such port; arguments that botocore will not have."""
    made = client_of(sim, asynchronous, endpoint_url="http://127.0.0.1:9")
    client = await made.__aenter__() if asynchronous else made
    with pytest.raises(exceptions.EndpointConnectionError):
        await settled(client.converse(**CONVERSE))
    with pytest.raises(exceptions.ParamValidationError):
        await settled(client.converse(modelId=CLAUDE, messages="oops"))
    with pytest.raises(exceptions.ParamValidationError):
        await settled(client.invoke_model(body=7))  # without a model it is no call of one
    if asynchronous:
        await made.__aexit__(None, None, None)
    assert [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()] == ["failed"] * 2
    assert meter.totals.get().calls == 0


async def test_no_answer_in_time(asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = Behaviour(timeout=True)
    made = client_of(sim, asynchronous, read_timeout=0.1)
    client = await made.__aenter__() if asynchronous else made
    with pytest.raises(exceptions.ReadTimeoutError):
        await settled(client.converse(**CONVERSE))
    if asynchronous:
        await made.__aexit__(None, None, None)
    assert instrumented.span().attributes["error.type"].endswith("ReadTimeoutError")
    assert meter.totals.get().estimated_calls == 1


async def test_a_refusal_comes_out_as_itself(client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    with tb.budget(max_calls=1):
        await settled(client.converse(**CONVERSE))
        for method, given in (("converse_stream", CONVERSE), ("invoke_model", STREAMED)):
            with pytest.raises(tb.BudgetExceeded):
                await settled(getattr(client, method)(**given))
    assert len(sim.requests) == 1
    assert meter.totals.get().refused_calls == 2


def test_other_services_and_operations_pass(sim: Simulator, instrumented: Any, meter: Meter) -> None:
    with tb.budget(max_calls=0):
        with pytest.raises(exceptions.ClientError):
            client_of(sim, service="dynamodb").list_tables()
        with pytest.raises(exceptions.ClientError):
            client_of(sim).apply_guardrail(
                guardrailIdentifier="abc", guardrailVersion="1", source="INPUT", content=[{"text": {"text": "a"}}]
            )
    assert len(sim.requests) == 2
    assert instrumented.spans() == []
    assert meter.totals.get().calls == 0


def test_another_service_costs_next_to_nothing(instrumented: Any) -> None:
    """A look-up in a dictionary: a few microseconds, however slow the machine."""
    door = BedrockInstrumentor()._door
    assert door is not None
    client = client_of(Simulator(), service="sts", endpoint_url="http://127.0.0.1:9")
    start = time.perf_counter()
    for _ in range(1_000):
        assert door.open(client, ("GetCallerIdentity", {}), {}) is None
    assert time.perf_counter() - start < 0.1


def test_wrapping(sim: Simulator, telemetry: Any, meter: Meter) -> None:
    with pytest.raises(TypeError, match="sts"):
        tb.wrap(client_of(sim, service="sts"))
    client = tb.wrap(client_of(sim), tracer_provider=telemetry.tracer_provider)
    list(client.converse_stream(**CONVERSE)["stream"])
    tb.unwrap(client)
    client.converse(**CONVERSE)
    assert meter.totals.get().calls == 1
    assert not [name for name in vars(client) if "tokenbudget" in name or name == "_make_api_call"]
    assert "_needs_retry" not in vars(client._endpoint)


async def test_wrapping_aiobotocore(sim: Simulator, telemetry: Any, meter: Meter) -> None:
    sim.then(Behaviour(status=500), Behaviour(status=400))
    async with client_of(sim, True, retries={"total_max_attempts": 2}) as client:
        tb.wrap(client, tracer_provider=telemetry.tracer_provider)
        with pytest.raises(exceptions.ClientError):
            await client.converse(**CONVERSE)
        await read((await client.converse_stream(**CONVERSE))["stream"])
        tb.unwrap(client)
    assert meter.totals.get().calls == 2  # the 500 may have been billed


def test_resources_of_boto3_are_left_alone(instrumented: Any) -> None:
    """Their clients are of the same base class, and need nothing of ours."""
    table = boto3.resource("dynamodb", region_name="eu-central-1", endpoint_url="http://127.0.0.1:9").Table("any")
    assert table.name == "any"
