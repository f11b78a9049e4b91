"""OpenAI's wire format: which path is answered by which function."""

from __future__ import annotations

from typing import Final

from tokenbudget_otel.simulator import (
    openai_audio,
    openai_batches,
    openai_chat,
    openai_embeddings,
    openai_files,
    openai_images,
    openai_models,
    openai_responses,
)
from tokenbudget_otel.simulator.routing import Table

ROUTES: Final[Table] = {
    ("POST", "/chat/completions"): openai_chat.chat_completions,
    ("POST", "/responses"): openai_responses.create,
    ("POST", "/completions"): openai_chat.completions,
    ("POST", "/embeddings"): openai_embeddings.embeddings,
    ("POST", "/responses/input_tokens"): openai_responses.input_tokens,
    ("POST", "/responses/{response_id}/cancel"): openai_responses.cancel,
    ("GET", "/responses/{response_id}"): openai_responses.retrieve,
    ("DELETE", "/responses/{response_id}"): openai_responses.delete,
    ("POST", "/images/generations"): openai_images.generations,
    ("POST", "/images/edits"): openai_images.edits,
    ("POST", "/audio/transcriptions"): openai_audio.transcriptions,
    ("POST", "/audio/translations"): openai_audio.translations,
    ("POST", "/audio/speech"): openai_audio.speech,
    ("POST", "/moderations"): openai_models.moderations,
    ("GET", "/models"): openai_models.models,
    ("GET", "/models/{model:path}"): openai_models.model,
    ("POST", "/batches"): openai_batches.create,
    ("GET", "/batches/{batch_id}"): openai_batches.retrieve,
    ("POST", "/batches/{batch_id}/cancel"): openai_batches.cancel,
    ("GET", "/batches"): openai_batches.listing,
    ("POST", "/files"): openai_files.create,
    ("GET", "/files/{file_id}"): openai_files.retrieve,
    ("GET", "/files/{file_id}/content"): openai_files.content,
    ("DELETE", "/files/{file_id}"): openai_files.delete,
}
