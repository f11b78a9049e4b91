"""Which provider answers at a base URL, in the names of the OpenTelemetry conventions."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tokenbudget_otel import settings
from tokenbudget_otel.instrumentation.guard import logger, tell_once

HOSTS: Final = (
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("openai.azure.us", "azure.ai.openai"),
    ("openai.azure.cn", "azure.ai.openai"),
    ("cognitiveservices.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com/models", "azure.ai.inference"),
    ("services.ai.azure.com", "azure.ai.openai"),
    ("inference.ai.azure.com", "azure.ai.inference"),
    ("models.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("api.deepseek.com", "deepseek"),
    ("openrouter.ai", "openrouter"),
    ("api.groq.com", "groq"),
    ("api.x.ai", "x_ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.eu.mistral.ai", "mistral_ai"),
    ("api.us.mistral.ai", "mistral_ai"),
    ("codestral.mistral.ai", "mistral_ai"),
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
    ("api.deepinfra.com", "deepinfra"),
    ("api.sambanova.ai", "sambanova"),
    ("api.hyperbolic.xyz", "hyperbolic"),
    ("api.minimax.io", "minimax"),
    ("api.z.ai", "zai"),
    ("open.bigmodel.cn", "zhipuai"),
    ("ai-gateway.vercel.sh", "vercel_ai_gateway"),
    ("dashscope.aliyuncs.com", "dashscope"),
    ("dashscope-intl.aliyuncs.com", "dashscope"),
    ("dashscope-us.aliyuncs.com", "dashscope"),
    ("integrate.api.nvidia.com", "nvidia"),
    ("router.huggingface.co", "huggingface"),
    ("models.github.ai", "github_models"),
    ("githubcopilot.com", "github_copilot"),
    ("ollama.com", "ollama"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
)
"""Hosts by their ending: a host is its own entry or a subdomain of one. Some serve two things, by path."""

PATTERNS: Final = (
    (re.compile(r"bedrock[a-z-]*\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|api\.aws)"), "aws.bedrock"),
    (re.compile(r"[a-z0-9-]+-aiplatform\.googleapis\.com"), "gcp.vertex_ai"),
    (re.compile(r"aiplatform\.[a-z0-9-]+\.rep\.googleapis\.com"), "gcp.vertex_ai"),
)
"""Hosts with a region in the middle of their name."""

COMPATIBLE: Final = "openai_compatible"
"""Who answers a client of OpenAI's SDK at a host that nobody has named. The catalog has no such provider: a model that
is called as one of OpenAI's is not priced as one there."""

OLLAMA_PORT: Final = 11434
LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))

HOSTS_VARIABLE: Final = "TOKENBUDGET_HOSTS"

_configured: Mapping[str, str] = {}
"""What the program has named. Never changed, only replaced: so it is seen whether anything was named since."""


def map_host(base_url: str, provider: str) -> None:
    """Say who answers at a base URL that the table does not know: a gateway, a proxy, a model server.

    ``base_url`` is a host (``llm.example.com``, ``localhost:8000``) or the beginning of a URL, up to a ``/``. Where
    several fit, the longest counts. ``TOKENBUDGET_HOSTS`` says the same from outside: ``host=provider,…``.

    Raises:
        ValueError: if one of the two is empty.

    >>> map_host("http://llm.example.com/groq", "groq")
    >>> provider_of("http://llm.example.com/groq/v1/", "openai")
    'groq'
    >>> provider_of("http://llm.example.com/groq-new/v1/", "openai")
    'openai'
    """
    if not base_url or not provider:
        raise ValueError("map_host needs a base URL and the name of a provider")
    global _configured
    _configured = {**_configured, base_url.rstrip("/").lower(): provider}


def named() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """What has been told of who is where: by the program, and by the configuration file. As long as both are the same
    objects, nothing else has been told.

    >>> told = named()
    >>> map_host("http://llm.example.com/mistral", "mistral_ai")
    >>> told[0] is named()[0], told[1] is named()[1]
    (False, True)
    """
    return _configured, settings.hosts()


def provider_of(base_url: str, default: str) -> str:
    """The provider at ``base_url``; ``default`` for a host that is not known.

    >>> provider_of("https://my-team.openai.azure.com/openai/", "openai")
    'azure.ai.openai'
    >>> provider_of("https://api.deepseek.com/beta", "openai")
    'deepseek'
    """
    url = base_url.lower()
    return _told_of(url) or _listed(url) or default


@functools.lru_cache(maxsize=256)
def _listed(url: str) -> str | None:
    """The provider that the tables know for a URL in lower case."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    host = parts.hostname or ""
    for entry, provider in HOSTS:
        ending, slash, path = entry.partition("/")
        if (host == ending or host.endswith("." + ending)) and parts.path.startswith(slash + path):
            return provider
    for pattern, provider in PATTERNS:
        if pattern.fullmatch(host):
            return provider
    if host in LOOPBACK and _port(parts) == OLLAMA_PORT:
        return "ollama"
    return None


def _told_of(url: str) -> str | None:
    """The provider that the program, or else the configuration file, has named for a URL in lower case."""
    filed = settings.hosts()
    if not _configured and not filed:
        return None
    told = {**filed, **_configured} if filed else _configured
    bare = url.partition("://")[2]
    fitting = [start for start in told if _begins(url, start) or _begins(bare, start)]
    return told[max(fitting, key=len)] if fitting else None


def _begins(url: str, start: str) -> bool:
    """Whether ``url`` begins with ``start``, and does not go on in the middle of a name or a number."""
    return url.startswith(start) and url[len(start) : len(start) + 1] in ("", "/", ":", "?")


def _port(parts: Any) -> int | None:
    try:
        port: int | None = parts.port
    except ValueError:
        return None
    return port


def by_class(client: Any, table: Mapping[str, str]) -> str | None:
    """The provider that a client's class stands for: ``AzureOpenAI``, ``AnthropicBedrock`` …"""
    for kind in type(client).__mro__:
        if (provider := table.get(kind.__name__)) is not None:
            return provider
    return None


def tell_of_unknown(base_url: str) -> None:
    """Say, once for each host, that what is called there has no price until somebody says whose it is."""
    if host := urlsplit(base_url).netloc:
        tell_once(
            f"host {host}",
            "tokenbudget-otel does not know who answers at %s, so that models there have no prices but those set with "
            "tb.register_model. Say who it is with tb.map_host(%r, 'openai'), or %s=%s=openai.",
            host,
            host,
            HOSTS_VARIABLE,
            host,
        )


def _read_variable(said: str) -> None:
    """Name the hosts that ``TOKENBUDGET_HOSTS`` names."""
    for part in said.split(","):
        base_url, _, provider = part.strip().rpartition("=")
        if base_url.strip() and provider.strip():
            map_host(base_url.strip(), provider.strip())
        elif part.strip():
            logger.warning("%s: %r is not host=provider; it is passed over.", HOSTS_VARIABLE, part.strip())


_read_variable(os.environ.get(HOSTS_VARIABLE, ""))
