"""Cohere's API: which path is answered by which function, by version."""

from __future__ import annotations

from typing import Final

from tokenbudget_otel.simulator import cohere_chat, cohere_search
from tokenbudget_otel.simulator.hosts import Host
from tokenbudget_otel.simulator.routing import Table

HOST: Final = Host("cohere", "cohere")

ROUTES: Final[Table] = {
    ("POST", "/v2/chat"): cohere_chat.chat,
    ("POST", "/v2/embed"): cohere_search.embed,
    ("POST", "/v2/rerank"): cohere_search.rerank,
    ("POST", "/v1/chat"): cohere_chat.chat_v1,
    ("POST", "/v1/embed"): cohere_search.embed_v1,
    ("POST", "/v1/rerank"): cohere_search.rerank,
    ("POST", "/v1/classify"): cohere_search.classify,
    ("POST", "/v1/tokenize"): cohere_search.tokenize,
}
