"""Which provider answers at a base URL, in the names of the OpenTelemetry conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

HOSTS: Final = (
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("cognitiveservices.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.openai"),
    ("inference.ai.azure.com", "azure.ai.inference"),
    ("models.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("api.deepseek.com", "deepseek"),
    ("openrouter.ai", "openrouter"),
    ("api.groq.com", "groq"),
    ("api.x.ai", "x_ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.together.xyz", "together"),
    ("api.together.ai", "together"),
    ("api.fireworks.ai", "fireworks"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.moonshot.cn", "moonshot_ai"),
    ("api.cohere.ai", "cohere"),
    ("api.cohere.com", "cohere"),
    ("api.cerebras.ai", "cerebras"),
    ("api.novita.ai", "novita"),
    ("integrate.api.nvidia.com", "nvidia"),
    ("router.huggingface.co", "huggingface"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
)
"""Hosts by their ending: a host is its own entry or a subdomain of one."""

BEDROCK: Final = re.compile(r"bedrock[a-z-]*\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|api\.aws)$")

_configured: dict[str, str] = {}


def map_host(base_url: str, provider: str) -> None:
    """Say who answers at a base URL that the table does not know: a gateway, a proxy, a model server.

    ``base_url`` is a host (``llm.example.com``, ``localhost:8000``) or the beginning of a URL.

    >>> map_host("http://llm.example.com/groq", "groq")
    >>> provider_of("http://llm.example.com/groq/v1/", "openai")
    'groq'
    >>> provider_of("http://llm.example.com/other/v1/", "openai")
    'openai'
    """
    if not base_url or not provider:
        raise ValueError("map_host needs a base URL and the name of a provider")
    _configured[base_url.rstrip("/").lower()] = provider


def provider_of(base_url: str, default: str) -> str:
    """The provider at ``base_url``; ``default`` (the SDK's own) for a host that is not known.

    >>> provider_of("https://my-team.openai.azure.com/openai/", "openai")
    'azure.ai.openai'
    >>> provider_of("https://api.deepseek.com/beta", "openai")
    'deepseek'
    """
    url = base_url.lower()
    for start, provider in _configured.items():
        if url.startswith(start) or url.partition("://")[2].startswith(start):
            return provider
    host = urlsplit(url).hostname or ""
    for ending, provider in HOSTS:
        if host == ending or host.endswith("." + ending):
            return provider
    if host.endswith("-aiplatform.googleapis.com"):
        return "gcp.vertex_ai"
    return "aws.bedrock" if BEDROCK.search(host) else default


def by_class(client: Any, table: Mapping[str, str]) -> str | None:
    """The provider that a client's class stands for: ``AzureOpenAI``, ``AnthropicBedrock`` …"""
    for kind in type(client).__mro__:
        if (provider := table.get(kind.__name__)) is not None:
            return provider
    return None
