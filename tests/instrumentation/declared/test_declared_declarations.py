"""What cannot be meant is said at once and by its name; what goes wrong later is logged once, and the call goes on."""

from __future__ import annotations

import logging
from typing import Any

import acme_llm
import pytest
from acme_llm import AsyncClient, Client

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.instrumentation.provider import Method, Provider

USAGE = {"input_tokens": "usage.prompt"}

WRONG: dict[str, Any] = {
    "needs a target": lambda: Method(usage=USAGE),
    "'Client chat' is no target": lambda: Method("Client chat", usage=USAGE),
    "no count named 'prompt_tokens'": lambda: Method("C.m", usage={"prompt_tokens": "usage"}),
    "no count named 'out'": lambda: Method("C.m", usage=USAGE, chunk_usage={"out": "usage"}),
    "usage must be a mapping of counts or a function": lambda: Method("C.m", usage=["usage"]),
    "usage['input_tokens'] must be a path": lambda: Method("C.m", usage={"input_tokens": 7}),
    "model must be a path": lambda: Method("C.m", usage=USAGE, model=7),
    "ends must be a path": lambda: Method("C.m", usage=USAGE, ends="a..b"),
    "input[1] must be a path": lambda: Method("C.m", usage=USAGE, input=("prompt", 7)),
    "text[0] must be a path": lambda: Method("C.m", usage=USAGE, text=[7]),
    "attributes['a'] must be a path": lambda: Method("C.m", usage=USAGE, attributes={"a": 7}),
    "operation must be a name": lambda: Method("C.m", usage=USAGE, operation=""),
    "request must be a function": lambda: Method("C.m", usage=USAGE, request="body"),
    "media must be a MediaTokens": lambda: Method("C.m", usage=USAGE, media=7),
    "content must be a Content": lambda: Method("C.m", usage=USAGE, content="all"),
    "a Provider needs a name": lambda: Provider("", "acme", (Method("C.m", usage=USAGE),)),
    "sdk must be the name of a module": lambda: Provider("acme", "acme llm", (Method("C.m", usage=USAGE),)),
    "needs a Method": lambda: Provider("acme", "acme", ()),
    "'C.m' is not a Method": lambda: Provider("acme", "acme", ("C.m",)),
    "versions must be a requirement": lambda: Provider("acme", "acme", Method("C.m", usage=USAGE), versions="one"),
    "url must be a path or a function": lambda: Provider("acme", "acme", Method("C.m", usage=USAGE), url=7),
    "provider_at must be a function": lambda: Provider("a", "acme", Method("C.m", usage=USAGE), provider_at="b"),
    "free_at must be a function": lambda: Provider("a", "acme", Method("C.m", usage=USAGE), free_at=True),
    "unbilled must be a function": lambda: Provider("a", "acme", Method("C.m", usage=USAGE), unbilled=True),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_meant(said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        WRONG[said]()
    assert said in str(error.value)


def test_an_sdk_that_is_known_already(declare: Any) -> None:
    with pytest.raises(ValueError, match="openai has an instrumentor of its own"):
        tb.register_provider(Provider("acme", "openai", Method("C.m", usage=USAGE)))
    declare()
    with pytest.raises(ValueError, match="registered already, for acme"):
        tb.register_provider(Provider("other", "acme_llm", Method("C.m", usage=USAGE)))


def raising(*_said: Any) -> Any:
    raise LookupError("not there")


def test_functions_that_raise(declare: Any, meter: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The call goes on, is admitted and counted; what is not known is estimated from the rest."""
    names = ("model", "max_output_tokens", "response_id", "finish_reason", "cost_usd", "tier", "usage", "input")
    metered = declare(method=dict.fromkeys(names, raising), url=raising, free_at=raising, provider_at=raising)
    assert Client().complete("hello") is acme_llm.ANSWER
    assert list(Client().lazy("hello")) == list(acme_llm.CHUNKS)
    with tb.budget(max_calls=0), pytest.raises(tb.BudgetExceeded):
        Client().complete("hello")
    assert (meter.totals.get().calls, meter.totals.get().estimated_calls) == (2, 2)
    assert len(metered.spans()) == 3
    said = [record.getMessage() for record in caplog.records if record.name == "tokenbudget_otel"]
    assert len(said) == 2
    assert all("declares" in message and "LookupError" in message for message in said)
    guard._logged.clear()


def test_a_path_that_leads_nowhere(declare: Any, meter: Any) -> None:
    declare(method={"usage": {"input_tokens": "some.where.0.else", "output_tokens": "id"}, "text": "usage.prompt"})
    Client().complete("hello")
    assert meter.totals.get().estimated_calls == 1


def test_a_request_that_is_made_of_the_arguments(declare: Any, meter: Any) -> None:
    def request(arguments: dict[str, Any]) -> Any:
        return {"model": "other", **arguments} if arguments["prompt"] != "ping" else None

    metered = declare(method={"request": request, "model": lambda body: body["model"].upper()})
    Client().complete("ping")
    assert metered.spans() == []
    Client().complete("hello", max_tokens=12, temperature=0.5, extra="more")
    attributes = metered.span().attributes
    assert attributes["gen_ai.request.model"] == "ACME-1"
    assert attributes["gen_ai.request.max_tokens"] == 12
    assert attributes["gen_ai.request.temperature"] == 0.5
    assert (attributes["server.address"], attributes["server.port"]) == ("api.acme.test", 8443)


def test_wrong_arguments_are_the_methods_to_refuse(metered: Any) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Client().complete()  # type: ignore[call-arg]
    assert metered.spans() == []


def test_what_a_version_does_not_have(declare: Any, caplog: pytest.LogCaptureFixture) -> None:
    metered = declare(
        targets=("Client.gone", "Gone.complete", "gone.module:Client.complete", "Client.complete", "gone")
    )
    Client().complete("hello")
    assert len(metered.spans()) == 1
    assert caplog.records == []


@pytest.mark.parametrize("target", ("Client.gone", "Client.kind"))
def test_none_of_it_is_there(target: str, declare: Any, caplog: pytest.LogCaptureFixture) -> None:
    declare(targets=(target,))
    Client().complete("hello")
    said = [
        record for record in caplog.records if "found none of the methods that acme declares" in record.getMessage()
    ]
    assert len(said) == 1
    assert said[0].levelno == logging.WARNING


def test_what_is_somebody_elses_is_left_to_them(declare: Any) -> None:
    import collections

    original = vars(collections.UserDict)["copy"]
    declare(targets=("Dictionary.copy",), method={"request": lambda _arguments: None})
    assert vars(collections.UserDict)["copy"] is original
    assert "copy" in vars(acme_llm.Dictionary)
    tb.uninstrument()
    assert "copy" not in vars(acme_llm.Dictionary)


def test_uninstrument_brings_everything_back(declare: Any) -> None:
    before = {kind: dict(vars(kind)) for kind in (Client, AsyncClient, acme_llm.Special, acme_llm)}
    declare()
    assert vars(Client)["complete"] is not before[Client]["complete"]
    assert isinstance(vars(Client)["of_class"], classmethod)
    assert isinstance(vars(Client)["of_nobody"], staticmethod)
    tb.uninstrument()
    for kind, attributes in before.items():
        assert {name: vars(kind).get(name) for name in attributes} == attributes


def test_calls_within_a_call(declare: Any, meter: Any) -> None:
    """What a method is made of is one call; whether another SDK's calls are part of it is said by ``covers``."""
    metered = declare()
    Client().twice("hello")
    assert acme_llm.sent == ["hello", "hello"]
    assert len(metered.spans()) == 1
    assert meter.totals.get().calls == 1


def test_what_goes_on_after_a_call_is_no_part_of_it(metered: Any, meter: Any) -> None:
    import contextvars

    kept: list[contextvars.Context] = []
    client = Client()
    client.nested = lambda: kept.append(contextvars.copy_context())
    client.twice("hello")
    kept[0].run(Client().complete, "later")
    assert meter.totals.get().calls == 2


def test_one_client_and_its_parts(telemetry: Any, meter: Any, declare: Any) -> None:
    declare()
    tb.uninstrument()
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    shop = tb.wrap(acme_llm.Workshop(), **options)
    shop.chat.client.complete("hello")
    list(shop.chat.client.lazy("hello"))
    Client().complete("hello")
    assert meter.totals.get().calls == 2
    tb.unwrap(shop).chat.client.complete("hello")
    assert meter.totals.get().calls == 2
    with pytest.raises(TypeError, match="has none of the methods of acme"):
        tb.wrap(acme_llm.Stream(()), **options)


def test_failures_are_charged_unless_they_prove_that_nothing_was_done(declare: Any, meter: Any) -> None:
    declare(unbilled=lambda error: isinstance(error, KeyError))
    cases = {
        ValueError("could not read the answer"): 1,
        KeyError("not sent"): 0,
        type("ConnectError", (Exception,), {})(): 0,
        type("ApiError", (Exception,), {"status_code": 400})(): 0,
        type("ApiError", (Exception,), {"status_code": 503})(): 1,
    }
    for error, calls in cases.items():
        meter.totals.clear()
        with pytest.raises(type(error)):
            Client(answer=error).complete("hello")
        assert meter.totals.get().calls == calls, error


def test_free_where_it_is_said_to_be(declare: Any, meter: Any) -> None:
    declare(free_at=lambda url, body: "acme.test" in url and body["model"] == "acme-1")
    meter.enforcer.add(tb.Budget(limit_usd=0.01, window="hour", name="little"))
    Client().complete("hello" * 100_000)
    totals = meter.totals.get()
    assert (totals.nano_usd, totals.unpriced_calls) == (0, 0)


def test_a_cost_that_the_provider_says(declare: Any, meter: Any) -> None:
    metered = declare(method={"cost_usd": "cost"})
    Client(answer={**acme_llm.ANSWER, "cost": 0.25}).complete("hello")
    for strange in (float("nan"), float("inf"), -1, True, "much"):
        Client(answer={**acme_llm.ANSWER, "cost": strange}).complete("hello")
    assert meter.totals.get().nano_usd == 250_000_000
    assert meter.totals.get().unpriced_calls == 5
    assert metered.spans()[0].attributes["tokenbudget.cost.source"] == "provider"
