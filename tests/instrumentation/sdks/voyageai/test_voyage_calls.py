"""What is particular to Voyage: local models, inputs that are not text, errors before and after the request."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.voyageai import VOYAGE, _parts, run_here
from tokenbudget_otel.simulator import Behaviour, Simulator

voyageai = pytest.importorskip("voyageai", reason="the SDK is not in this environment")


@pytest.fixture
def client(sim: Simulator) -> Any:
    return voyageai.Client(api_key="any", base_url=sim.voyage_url, timeout=20)


def test_the_default_model(client: Any, instrumented: Any) -> None:
    with pytest.warns(UserWarning, match="model"):
        client.embed(["a river"])
    assert instrumented.span().attributes["gen_ai.request.model"] == voyageai.VOYAGE_EMBED_DEFAULT_MODEL


def test_dimensions(client: Any, instrumented: Any) -> None:
    client.embed(["a river"], model="voyage-3.5", output_dimension=256)
    assert instrumented.span().attributes["gen_ai.embeddings.dimension.count"] == 256


def test_models_that_the_sdk_runs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = SimpleNamespace(SUPPORTED_MODELS={"voyage-4-nano": None})
    monkeypatch.setitem(sys.modules, "voyageai.local.model_registry", registry)
    assert run_here("", {"model": "voyage-4-nano"})
    assert not run_here("", {"model": "voyage-3.5"})
    monkeypatch.delitem(sys.modules, "voyageai.local.model_registry")
    assert not run_here("", {"model": "voyage-4-nano"})


def test_inputs_that_are_not_text() -> None:
    from PIL import Image

    picture = Image.new("RGB", (2, 2))
    assert _parts({"inputs": [["a river", picture]]}) == ["a river", {"type": "image"}]
    content = [{"type": "text", "text": "a"}, {"type": "image_base64"}, {"type": "video_url"}]
    assert _parts({"inputs": [{"content": content}]}) == ["a", {"type": "image"}, {"type": "video"}]


def test_pictures(client: Any, instrumented: Any, sim: Simulator, meter: Any) -> None:
    from PIL import Image

    sim.then(Behaviour(input_tokens=30, input_image_tokens=10))
    with tb.budget(max_tokens=200_000):
        answer = client.multimodal_embed([["a river", Image.new("RGB", (20, 20))]], model="voyage-multimodal-3")
    assert answer.image_pixels == 5_600
    counts = {"input_tokens": 30, "input_text_tokens": 20, "input_pixels": 5_600}
    assert meter.totals.get().usage.counts() == counts


ERRORS_BEFORE = {
    "no key": lambda: voyageai.Client(api_key=None).embed(["a"], model="voyage-3.5"),
    "no input": lambda: voyageai.Client(api_key="any").multimodal_embed([], model="voyage-multimodal-3"),
    "no JSON": lambda: voyageai.Client(api_key="any").embed([object()], model="voyage-3.5"),
    "nobody there": lambda: voyageai.Client(api_key="any", base_url="http://127.0.0.1:9").embed(
        ["a"], model="voyage-3.5"
    ),
    "nobody there, async": lambda: asyncio.run(
        voyageai.AsyncClient(api_key="any", base_url="http://127.0.0.1:9").embed(["a"], model="voyage-3.5")
    ),
}


@pytest.mark.parametrize("name", ERRORS_BEFORE)
def test_nothing_is_charged_that_was_not_sent(
    name: str, instrumented: Any, meter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOYAGE_API_KEY", raising=False)
    with pytest.raises((voyageai.error.VoyageError, TypeError)):
        ERRORS_BEFORE[name]()
    assert meter.totals.get().calls == 0
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "failed"


@pytest.mark.parametrize("behaviour", ({"malformed_after": 0}, {"usage": "absent"}, {"usage": "null"}, {"status": 503}))
def test_what_was_sent_is_charged(
    behaviour: dict[str, Any], client: Any, instrumented: Any, sim: Simulator, meter: Any
) -> None:
    sim.then(Behaviour(**behaviour))
    with pytest.raises((voyageai.error.VoyageError, TypeError, AttributeError)):
        client.embed(["a river"], model="voyage-3.5")
    assert (meter.totals.get().calls, meter.totals.get().estimated_calls) == (1, 1)


def test_its_own_retries_are_one_call(
    sim: Simulator, instrumented: Any, meter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tenacity

    monkeypatch.setattr(tenacity.nap.time, "sleep", lambda _seconds: None)
    sim.then(Behaviour(status=429), Behaviour(input_tokens=9))
    voyageai.Client(api_key="any", base_url=sim.voyage_url, max_retries=2).embed(["a"], model="voyage-3.5")
    assert len(sim.requests) == 2
    assert meter.totals.get().calls == 1
    assert meter.totals.get().usage.input_tokens == 9


def test_the_declaration_covers_both_clients() -> None:
    assert {target.partition(".")[0] for method in VOYAGE.methods for target in method.targets} == {
        "Client",
        "AsyncClient",
    }
