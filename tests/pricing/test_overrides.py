"""Prices that users set, in code and in files."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tokenbudget_otel import pricing
from tokenbudget_otel.pricing import PriceBook, PriceFileError, catalog
from tokenbudget_otel.usage import TokenUsage

M = TokenUsage(input_tokens=1_000_000, output_tokens=1_000_000)


@pytest.fixture
def book() -> PriceBook:
    return PriceBook()


def test_a_registered_model_serves_whoever_reports_it(book: PriceBook) -> None:
    book.register_model("my-model", input_per_1m=2, output_per_1m=0.1)
    for provider in ("openai", "custom", "vllm", None):
        cost = book.cost(provider, "My-Model", M)
        assert (cost.usd, cost.state, cost.source, cost.source_version) == (Decimal("2.1"), "priced", "override", None)


def test_a_registered_model_is_above_the_catalog_from_the_next_call(book: PriceBook) -> None:
    assert book.cost("openai", "gpt-4o", M).usd == Decimal("12.5")
    book.register_model("gpt-4o", input_per_1m=1, output_per_1m=1, provider="openai")
    assert book.cost("openai", "gpt-4o", M).usd == 2
    assert book.cost("openai", "gpt-4o-2024-08-06", M).usd == 2
    assert book.cost("azure.ai.openai", "gpt-4o", M).usd == Decimal("12.5")
    book.register_model("gpt-4o", input_per_1m=3, output_per_1m=3, provider="openai")
    assert book.cost("openai", "gpt-4o", M).usd == 6
    book.reset()
    assert book.cost("openai", "gpt-4o", M).usd == Decimal("12.5")


def test_provider_names_mean_the_same_in_overrides(book: PriceBook) -> None:
    book.register_model("dep", input_per_1m=1, output_per_1m=1, provider="Azure_OpenAI")
    assert book.cost("azure.ai.openai", "dep", M).usd == 2
    assert book.cost("openai", "dep", M).usd is None


def test_all_kinds_of_prices(book: PriceBook) -> None:
    book.register_model(
        "full",
        input_per_1m="1",
        output_per_1m=Decimal(2),
        cache_read_per_1m=0.1,
        cache_write_per_1m=1.25,
        cache_write_1h_per_1m=2,
        reasoning_per_1m=3,
        input_audio_per_1m=10,
        web_searches_per_1k=10,
        request_each="0.001",
        tiers={"batch": {"input_per_1m": 0.5, "output_per_1m": 1}},
        above={200_000: {"input_per_1m": 2, "output_per_1m": 4}},
        context_window=1_000_000,
        max_output_tokens=32_000,
    )
    usage = TokenUsage(input_tokens=100_000, output_tokens=10_000, reasoning_tokens=5000, cache_read_tokens=50_000)
    assert book.cost("openai", "full", usage).usd == Decimal("0.081")  # 0.05 + 0.005 + 0.01 + 0.015 + 0.001
    assert book.cost("openai", "full", usage, batch=True).usd == Decimal(
        "0.051"
    )  # 0.025 + 0.005 + 0.005 + 0.015 + 0.001
    assert book.cost("openai", "full", TokenUsage(input_tokens=200_001)).usd == Decimal("0.401002")
    assert book.cost("openai", "full", TokenUsage(web_searches=1)).usd == Decimal("0.011")
    # Cached audio has no price of its own: the dearer of the two.
    both = TokenUsage(input_tokens=1000, input_audio_tokens=1000, cache_read_tokens=1000, cache_read_audio_tokens=1000)
    assert book.cost("openai", "full", both).usd == Decimal("0.011")
    assert book.limits("openai", "full") == (1_000_000, 32_000)


def test_minutes_images_and_pages(book: PriceBook) -> None:
    book.register_model(
        "m", input_audio_per_minute=0.006, output_image_each=0.04, page_each=0.001, characters_per_1m=15
    )
    usage = TokenUsage(input_audio_seconds=90, output_images=2, document_pages=3, input_characters=1000)
    assert book.cost("x", "m", usage).usd == Decimal("0.107")  # 0.009 + 0.08 + 0.003 + 0.015


def test_free_must_be_said(book: PriceBook) -> None:
    book.register_model("local", free=True)
    assert (book.cost("openai", "local", M).nano_usd, book.cost("openai", "local", M).state) == (0, "free")
    with pytest.raises(ValueError, match="free=True"):
        book.register_model("zero", input_per_1m=0, output_per_1m=0)
    with pytest.raises(ValueError, match="cannot be free"):
        book.register_model("both", free=True, input_per_1m=1)
    with pytest.raises(ValueError, match="at least one price"):
        book.register_model("none")


@pytest.mark.parametrize(
    ("prices", "error", "words"),
    [
        ({"input_per_1m": -1}, ValueError, "input_per_1m must be a finite price of at least 0, not -1"),
        ({"input_per_1m": float("nan")}, ValueError, "input_per_1m"),
        ({"output_per_1m": float("inf"), "input_per_1m": 1}, ValueError, "output_per_1m"),
        ({"input_per_1m": "ten"}, ValueError, "'ten'"),
        ({"input_per_1m": True}, TypeError, "not True"),
        ({"input_per_1m": []}, TypeError, "input_per_1m"),
        ({"input_per_1m": 1e12}, ValueError, "input_per_1m"),
        ({"input": 1}, TypeError, "unknown field 'input'"),
        ({"cache_read_per_1m": 1}, ValueError, "cache_read_per_1m needs input_per_1m"),
        ({"input_per_1m": 1, "cache_write_1h_per_1m": 2}, ValueError, "needs cache_write_per_1m"),
        ({"input_per_1m": 1, "tiers": {"batch": 3}}, TypeError, "tiers"),
        ({"input_per_1m": 1, "above": {"many": {"input_per_1m": 2}}}, ValueError, "'many'"),
        ({"input_per_1m": 1, "above": {1000: {"output_per_1m": 2}}}, ValueError, "output_per_1m"),
        ({"input_per_1m": 1, "context_window": 0}, ValueError, "context_window"),
        ({"input_per_1m": 1, "provider": ""}, ValueError, "provider"),
        ({"input_per_1m": 1, "free": "no"}, TypeError, "free"),
    ],
)
def test_wrong_prices_are_refused_and_change_nothing(
    book: PriceBook, prices: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words.replace("(", r"\(")):
        book.register_model("m", **prices)
    assert book.cost("openai", "m", M).state == "unknown"


def test_a_model_needs_a_name(book: PriceBook) -> None:
    with pytest.raises(ValueError, match="model must not be empty"):
        book.register_model(" ", input_per_1m=1)
    with pytest.raises(TypeError, match="model"):
        book.register_model(None, input_per_1m=1)  # type: ignore[arg-type]


def test_names_of_a_users_own(book: PriceBook) -> None:
    book.map_model("prod-chat", "gpt-4o", provider="azure.ai.openai")
    cost = book.cost("azure.ai.openai", "Prod-Chat", M)
    assert (cost.usd, cost.provider, cost.model) == (Decimal("12.5"), "azure", "gpt-4o")
    assert book.cost("openai", "prod-chat", M).usd is None
    arn = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/a1b2"
    book.map_model(arn, "us.amazon.nova-pro-v1:0", provider="aws.bedrock")
    assert book.cost("aws.bedrock", arn, M).model == "amazon.nova-pro-v1:0"
    book.map_model("house", "claude-haiku-4-5", model_provider="anthropic")
    assert book.cost("openai", "house", M).provider == "anthropic"
    book.register_model("deal", input_per_1m=1, output_per_1m=1, provider="azure.ai.openai")
    book.map_model("prod-2", "deal", provider="azure.ai.openai")
    assert book.cost("azure.ai.openai", "prod-2", M).usd == 2
    book.map_model("a", "b")
    book.map_model("b", "a")
    assert book.cost("openai", "a", M).usd is None
    with pytest.raises(ValueError, match="name"):
        book.map_model("", "gpt-4o")


TOML = """
[[model]]
model = "house-llm"
provider = "vllm"
input_per_1m = 0.2
output_per_1m = 0.6
context_window = 32768

[model.tiers.batch]
input_per_1m = 0.1
output_per_1m = 0.3

[model.above.8000]
input_per_1m = 0.4

[[model]]
model = "gift"
free = true

[[alias]]
name = "prod-chat"
provider = "azure.ai.openai"
model = "gpt-4o"
"""


def test_a_price_file_in_toml(book: PriceBook, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(TOML)
    assert book.load_price_file(file) == 3
    cost = book.cost("vllm", "house-llm", TokenUsage(input_tokens=1000, output_tokens=1000))
    assert (cost.usd, cost.source, cost.source_version) == (Decimal("0.0008"), "file", "prices.toml")
    assert book.cost("vllm", "house-llm", TokenUsage(input_tokens=10_000)).usd == Decimal("0.004")
    assert book.cost("vllm", "house-llm", TokenUsage(input_tokens=1000), batch=True).usd == Decimal("0.0001")
    assert book.cost("any", "gift", M).state == "free"
    assert book.cost("azure.ai.openai", "prod-chat", M).model == "gpt-4o"
    assert "vllm" in book.providers()
    assert ("vllm", "house-llm") in book.search("house")


def test_a_price_file_in_json(book: PriceBook, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"model": [{"model": "gpt-4o", "provider": "openai", "input_per_1m": 0.1}]}))
    assert book.load_price_file(str(file)) == 1
    cost = book.cost("openai", "gpt-4o", TokenUsage(input_tokens=3))
    assert (cost.nano_usd, cost.source) == (300, "file")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.toml", "[[model]\n", "not valid TOML"),
        ("p.json", "{", "not valid JSON"),
        ("p.json", "[" * 100_000, "not valid JSON|nested"),
        ("p.json", "[]", "must be an object"),
        ("p.yaml", "", "ends in .toml or .json"),
        ("p.toml", "", "no \\[\\[model\\]\\]"),
        ("p.toml", "[prices]\nx=1", "unknown entry 'prices'"),
        ("p.toml", "model = 3", "'model' must be a list"),
        ("p.toml", '[[model]]\nmodel="m"\ninput_per_1m=-2', r"model 1 \('m'\): input_per_1m must be .* not Decimal|-2"),
        ("p.toml", '[[model]]\nmodel="m"\ninput_per_1m=nan', "input_per_1m"),
        ("p.json", '{"model": [{"model": "m", "input_per_1m": NaN}]}', "input_per_1m"),
        (
            "p.toml",
            '[[model]]\nmodel="ok"\ninput_per_1m=1\n[[model]]\nmodel="m"\ninptu=1',
            r"model 2 \('m'\): unknown field 'inptu'",
        ),
        ("p.toml", "[[model]]\ninput_per_1m=1", "model 1: model must be a text"),
        ("p.toml", '[[model]]\nmodel="m"\ninput_per_1m=0', "free"),
        ("p.toml", '[[model]]\nmodel="m"\ninput_per_1m="x"', "input_per_1m"),
        ("p.toml", '[[alias]]\nname="m"', r"alias 1 \('m'\): model"),
        ("p.toml", '[[alias]]\nnmae="m"', "unknown field 'nmae'"),
    ],
)
def test_a_bad_file_says_what_is_wrong_and_changes_nothing(
    book: PriceBook, tmp_path: Path, name: str, text: str, words: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(PriceFileError, match=words) as caught:
        book.load_price_file(file)
    assert str(file) in str(caught.value)
    assert book.cost("openai", "ok", M).state == "unknown"
    assert book.cost("openai", "m", M).state == "unknown"


def test_what_is_no_file(book: PriceBook, tmp_path: Path) -> None:
    with pytest.raises(PriceFileError, match="cannot be read"):
        book.load_price_file(tmp_path / "missing.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PriceFileError, match="cannot be read"):
        book.load_price_file(tmp_path / "folder.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PriceFileError, match="not UTF-8"):
        book.load_price_file(tmp_path / "binary.toml")


def test_threads_load_the_catalog_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = catalog.read
    monkeypatch.setattr(catalog, "_loaded", None)
    monkeypatch.setattr(catalog, "read", lambda: reads.append(1) or read())
    book = PriceBook()
    start = threading.Barrier(16)

    def price(number: int) -> int | None:
        start.wait()
        provider, model = [("openai", "gpt-4o"), ("anthropic", "claude-haiku-4-5"), (None, "gemini-2.5-pro")][
            number % 3
        ]
        return book.cost(provider, model, M).nano_usd

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(price, range(16)))
    assert len(reads) == 1
    assert len(set(found)) == 3
    assert None not in found


def test_threads_register_models_while_others_price(book: PriceBook) -> None:
    stop = threading.Event()
    wrong: list[object] = []

    def price() -> None:
        while not stop.is_set():
            usd = book.cost("openai", "shared", M).usd
            if usd is not None and usd != usd.to_integral_value():
                wrong.append(usd)

    readers = [threading.Thread(target=price) for _ in range(4)]
    for reader in readers:
        reader.start()

    def register(number: int) -> None:
        for step in range(25):
            book.register_model(f"model-{number}-{step}", input_per_1m=1, output_per_1m=1)
            book.register_model("shared", input_per_1m=number + 1, output_per_1m=number + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(register, range(8)))
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert all(book.cost("x", f"model-{n}-{s}", M).usd == 2 for n in range(8) for s in range(25))


def test_the_module_s_functions_use_the_book_of_the_process() -> None:
    try:
        pricing.register_model("of-the-process", input_per_1m=1, output_per_1m=1)
        cost = pricing.calculate_cost("of-the-process", M)
        assert cost is not None
        assert cost.usd == 2
    finally:
        pricing.price_book().reset()
    assert pricing.calculate_cost("of-the-process", M) is None
