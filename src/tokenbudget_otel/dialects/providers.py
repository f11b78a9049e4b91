"""What emitters call the providers, and what the conventions call them."""

from __future__ import annotations

from typing import Final

PROVIDERS: Final = {
    "az.ai.openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "azure": "azure.ai.openai",
    "azure-openai": "azure.ai.openai",
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "amazon-bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google.generative-ai": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "google.vertex": "gcp.vertex_ai",
    "google": "gcp.gen_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
    "moonshot": "moonshot_ai",
}
"""Other names for providers, in lower case, and what the conventions call them."""

_ITSELF: Final = frozenset(
    ("openai", "anthropic", "cohere", "groq", "deepseek", "ollama", "perplexity", "openrouter", "together", "fireworks")
)
_INTERFACES: Final = frozenset(
    ("chat", "messages", "responses", "completion", "embedding", "image", "speech", "transcription", "anthropic")
)
"""What the AI SDK puts behind a provider's name: which of its interfaces was used."""


def provider_name(name: str) -> str:
    """The name that the conventions have for a provider; a name that is in no table as it is.

    >>> provider_name("Azure"), provider_name("openai.responses"), provider_name("google.vertex.chat")
    ('azure.ai.openai', 'openai', 'gcp.vertex_ai')
    >>> provider_name("acme.llm")
    'acme.llm'
    """
    known = name.lower()
    while True:
        if known in _ITSELF:
            return known
        if known in PROVIDERS:
            return PROVIDERS[known]
        known, _, interface = known.rpartition(".")
        if interface not in _INTERFACES or not known:
            return name
