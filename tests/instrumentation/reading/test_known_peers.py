"""Who a client talks to is found once, and again as soon as the client or the program says something else."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

import tokenbudget_otel as tb
from tokenbudget_otel import settings
from tokenbudget_otel.instrumentation import hosts, known_peers
from tokenbudget_otel.instrumentation.anthropic import AnthropicDoor
from tokenbudget_otel.instrumentation.endpoint import Peer, mark_of
from tokenbudget_otel.instrumentation.known_peers import KnownPeers
from tokenbudget_otel.instrumentation.openai import OpenAIDoor
from tokenbudget_otel.meter import Meter

AZURE = {"azure_endpoint": "https://team.openai.azure.com", "api_version": "2024-10-21"}

OPENAI: dict[str, Callable[[], Any]] = {
    "openai": lambda: openai.OpenAI(api_key="sk-one"),
    "async": lambda: openai.AsyncOpenAI(api_key="sk-one"),
    "azure": lambda: openai.AzureOpenAI(api_key="sk-one", **AZURE),
    "subclass": lambda: type("Mine", (openai.OpenAI,), {})(api_key="sk-one"),
    "looks elsewhere": lambda: _Elsewhere(api_key="sk-one"),
}
ANTHROPIC: dict[str, Callable[[], Any]] = {
    "anthropic": lambda: anthropic.Anthropic(api_key="sk-one"),
    "async anthropic": lambda: anthropic.AsyncAnthropic(api_key="sk-one"),
    "foundry": lambda: anthropic.AnthropicFoundry(api_key="sk-one", resource="mine"),
}
CLIENTS = [
    *(pytest.param(OpenAIDoor, make, id=name) for name, make in OPENAI.items()),
    *(pytest.param(AnthropicDoor, make, id=name) for name, make in ANTHROPIC.items()),
]

ELSEWHERE = {"url": "https://one.example.com/v1/"}


class _Elsewhere(openai.OpenAI):
    """A client whose base URL is no attribute of its own, as that of OpenAI's module."""

    @property
    def base_url(self) -> httpx2.URL:
        return httpx2.URL(ELSEWHERE["url"])

    @base_url.setter
    def base_url(self, url: Any) -> None:
        ELSEWHERE["url"] = str(url).rstrip("/") + "/"


@pytest.fixture(autouse=True)
def _no_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_configured", {})
    monkeypatch.setitem(ELSEWHERE, "url", "https://one.example.com/v1/")


def _door(kind: Any) -> Any:
    return kind(None, Meter())


@pytest.mark.parametrize(("kind", "make"), CLIENTS)
def test_what_is_known_is_what_would_be_found(kind: Any, make: Callable[[], Any]) -> None:
    door, client = _door(kind), make()
    first = door.peer(client)
    assert first == _door(kind).peer(client)
    assert first.host == client.base_url.host
    assert first.api_key == mark_of("sk-one")
    assert door.peer(client) == first


@pytest.mark.parametrize(("kind", "make"), CLIENTS)
def test_what_a_client_is_told_is_seen(kind: Any, make: Callable[[], Any]) -> None:
    door, client = _door(kind), make()
    before = door.peer(client)
    client.api_key = "sk-two"
    assert door.peer(client).api_key == mark_of("sk-two") != before.api_key
    client.base_url = "https://llm.example.com:8443/v1"
    after = door.peer(client)
    assert (after.host, after.port) == ("llm.example.com", 8443)
    client.base_url = httpx2.URL("https://api.deepseek.com/")
    assert door.peer(client).host == "api.deepseek.com"
    client._api_key_provider = lambda: "sk-three"
    assert door.peer(client).api_key == ""
    assert door.peer(client) == _door(kind).peer(client)


def test_who_is_where_is_seen_when_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    door = _door(OpenAIDoor)
    client = openai.OpenAI(api_key="sk", base_url="https://llm.example.com/v1")
    assert door.peer(client).provider == "openai_compatible"
    tb.map_host("llm.example.com", "groq")
    assert door.peer(client).provider == "groq"
    monkeypatch.setattr(hosts, "_configured", {})
    assert door.peer(client).provider == "openai_compatible"
    monkeypatch.setattr(settings, "_hosts", {"llm.example.com": "mistral_ai"})
    assert door.peer(client).provider == "mistral_ai"


def test_the_client_of_the_module_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    door, client = _door(OpenAIDoor), openai._load_client() if hasattr(openai, "_load_client") else None
    if client is None:
        pytest.skip("this version of the SDK has no client for its module")
    monkeypatch.setattr(openai, "api_key", "sk-module")
    assert door.peer(client).host == "api.openai.com"
    assert door.peer(client).api_key == mark_of("sk-module")
    monkeypatch.setattr(openai, "base_url", "https://api.deepseek.com/")
    assert door.peer(client).provider == "deepseek"
    monkeypatch.setattr(openai, "api_key", "sk-other")
    assert door.peer(client).api_key == mark_of("sk-other")


def test_deployments_are_seen_in_urls_however_they_are_put_together() -> None:
    door = _door(OpenAIDoor)
    client = openai.OpenAI(api_key="sk", base_url="https://gateway.example.com/v1")
    assert not door.model_in_url(client, "/chat/completions")
    assert door.model_in_url(client, "/deployments/gpt/chat/completions")
    assert door.model_in_url(client, "deployments/gpt/chat/completions")  # the base URL ends with a slash
    client.base_url = "https://gateway.example.com/deployments/gpt"
    assert door.model_in_url(client, "/chat/completions")
    assert door.model_in_url(openai.AzureOpenAI(api_key="sk", **AZURE), "/chat/completions")
    door.peer(client)
    client.base_url = "https://gateway.example.com"
    assert not door.model_in_url(client, "/chat/completions")


def test_keys_that_a_function_makes_are_not_waited_for() -> None:
    found: list[Any] = []

    def find(client: Any) -> Peer:
        found.append(client)
        return Peer("acme")

    peers, client = KnownPeers(find), openai.OpenAI(api_key=lambda: "sk-fresh")
    for number in range(3):
        client.api_key = f"sk-{number}"
        peers.of(client)
    assert len(found) == 1
    client._api_key_provider = None
    for number in range(3):
        client.api_key = f"sk-{number}"
        peers.of(client)
    assert len(found) == 4


class _Client:
    """As little as a client can be."""

    api_key = "sk"

    def __init__(self, url: str = "https://a.example.com/") -> None:
        self.base_url = httpx2.URL(url)


class _Slotted:
    __slots__ = ("api_key", "base_url")


def _find(client: Any) -> Peer:
    return Peer("acme", client.base_url.host)


def test_clients_are_not_held() -> None:
    peers = KnownPeers(_find)
    for number in range(50):
        assert peers.of(_Client(f"https://host{number}.example.com/")).host == f"host{number}.example.com"
    gc.collect()
    assert not peers._known


def test_so_many_are_known_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_peers, "MAX_CLIENTS", 5)
    peers = KnownPeers(_find)
    clients = [_Client(f"https://host{number}.example.com/") for number in range(20)]
    for _ in range(2):
        assert [peers.of(client).host for client in clients] == [client.base_url.host for client in clients]
        assert len(peers._known) <= 5


def test_a_client_that_nothing_can_refer_to_is_asked_each_time() -> None:
    client = _Slotted()
    client.api_key, client.base_url = "sk", httpx2.URL("https://a.example.com/")
    peers = KnownPeers(_find)
    assert peers.of(client).host == "a.example.com"
    client.base_url = httpx2.URL("https://b.example.com/")
    assert (peers.of(client).host, peers.base_url(client)) == ("b.example.com", "https://b.example.com/")
    assert not peers._known


def test_a_peer_that_cannot_be_found_is_not_remembered() -> None:
    def fails(_client: Any) -> Peer:
        raise TypeError("no")

    peers, client = KnownPeers(fails), _Client()
    for _ in range(2):
        with pytest.raises(TypeError):
            peers.of(client)
    assert not peers._known


def test_clients_of_many_threads_are_told_apart() -> None:
    peers, wrong = KnownPeers(_find), []

    def work(name: int) -> None:
        for number in range(300):
            client = _Client(f"https://host{name}-{number}.example.com/")
            for _ in range(3):
                if peers.of(client).host != client.base_url.host:
                    wrong.append((name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
