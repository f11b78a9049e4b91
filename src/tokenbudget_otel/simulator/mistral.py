"""Mistral's own API: which path is answered by which function."""

from __future__ import annotations

from typing import Final

from tokenbudget_otel.simulator import mistral_chat, mistral_conversations, mistral_media, openai_responses
from tokenbudget_otel.simulator.hosts import HOSTS
from tokenbudget_otel.simulator.routing import Table

HOST: Final = HOSTS["mistral"]

ROUTES: Final[Table] = {
    ("POST", "/chat/completions"): mistral_chat.chat_completions,
    ("POST", "/fim/completions"): mistral_chat.fim_completions,
    ("POST", "/agents/completions"): mistral_chat.agents_completions,
    ("POST", "/conversations"): mistral_conversations.start,
    ("POST", "/conversations/{conversation_id}"): mistral_conversations.append,
    ("POST", "/conversations/{conversation_id}/restart"): mistral_conversations.restart,
    ("POST", "/responses"): openai_responses.create,
    ("POST", "/embeddings"): mistral_media.embeddings,
    ("POST", "/ocr"): mistral_media.ocr,
    ("POST", "/audio/transcriptions"): mistral_media.transcriptions,
    ("POST", "/audio/speech"): mistral_media.speech,
    ("POST", "/moderations"): mistral_media.moderations,
    ("POST", "/chat/moderations"): mistral_media.moderations,
    ("POST", "/classifications"): mistral_media.classifications,
    ("POST", "/chat/classifications"): mistral_media.classifications,
}
