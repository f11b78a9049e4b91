"""Groq's API: OpenAI's, but for what its answers tell of audio."""

from __future__ import annotations

import json
from typing import Final

from tokenbudget_otel.simulator import openai_audio, openai_chat, openai_embeddings, openai_models, openai_responses
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import HOSTS
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.routing import Table
from tokenbudget_otel.simulator.sse import dump

HOST: Final = HOSTS["groq"]


def transcriptions(exchange: Exchange) -> Reply:
    """POST /audio/transcriptions"""
    return without_usage(openai_audio.transcriptions(exchange), exchange)


def translations(exchange: Exchange) -> Reply:
    """POST /audio/translations"""
    return without_usage(openai_audio.translations(exchange), exchange)


def without_usage(reply: Reply, exchange: Exchange) -> Reply:
    """OpenAI's answer, with the id of the request in place of the usage. Only ``verbose_json`` tells the length."""
    if reply.content_type != "application/json":
        return reply
    whole = json.loads(reply.body)
    whole.pop("usage", None)
    reply.body = dump(whole | {"x_groq": {"id": exchange.request_id}})
    return reply


ROUTES: Final[Table] = {
    ("POST", "/chat/completions"): openai_chat.chat_completions,
    ("POST", "/responses"): openai_responses.create,
    ("POST", "/embeddings"): openai_embeddings.embeddings,
    ("POST", "/audio/transcriptions"): transcriptions,
    ("POST", "/audio/translations"): translations,
    ("POST", "/audio/speech"): openai_audio.speech,
    ("GET", "/models"): openai_models.models,
}
