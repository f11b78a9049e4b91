"""Attribute and metric names: the OpenTelemetry GenAI conventions, and our own under ``tokenbudget.``.

The standard names follow the newest conventions (``cache_write``, ``reasoning.output_tokens``);
:data:`FORMER_NAMES` maps them to what older backends read. Written out here because the released
``opentelemetry-semantic-conventions`` still carries some of the former ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# --- spans -------------------------------------------------------------------------------------------------------

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
CONVERSATION_COMPACTED: Final = "gen_ai.conversation.compacted"
OUTPUT_TYPE: Final = "gen_ai.output.type"

REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
REQUEST_PREVIOUS_RESPONSE_ID: Final = "gen_ai.request.previous_response.id"
REQUEST_ENCODING_FORMATS: Final = "gen_ai.request.encoding_formats"
EMBEDDINGS_DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"

RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_STATUS: Final = "gen_ai.response.status"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"

USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
USAGE_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
USAGE_COST: Final = "gen_ai.usage.cost"
"""US dollars, double: the name that OpenLIT, dashboards and the TokenBudget backend read."""

INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"

OPENAI_API_TYPE: Final = "openai.api.type"
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
OPENAI_RESPONSE_SYSTEM_FINGERPRINT: Final = "openai.response.system_fingerprint"
ANTHROPIC_REQUEST_SERVICE_TIER: Final = "anthropic.request.service_tier"
ANTHROPIC_RESPONSE_SERVICE_TIER: Final = "anthropic.response.service_tier"

SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# --- ours --------------------------------------------------------------------------------------------------------

TAG_PREFIX: Final = "tokenbudget.tag."
CALL_ID: Final = "tokenbudget.call.id"
"""Set on the one span of a call that was charged where it was made. Whoever prices spans later leaves it alone."""
CALL_OUTCOME: Final = "tokenbudget.call.outcome"
"""``completed``, ``closed`` (by the program), ``cancelled``, ``abandoned``, ``cut`` (by the server),
``cut_by_budget``, ``failed``, ``refused`` (by a budget) or ``background``."""
USAGE_ESTIMATED: Final = "tokenbudget.usage.estimated"
USAGE_UNIT_PREFIX: Final = "tokenbudget.usage."
COST_STATE: Final = "tokenbudget.cost.state"
COST_SOURCE: Final = "tokenbudget.cost.source"
COST_SOURCE_VERSION: Final = "tokenbudget.cost.source_version"
COST_MODEL: Final = "tokenbudget.cost.model"
COST_UNPRICED: Final = "tokenbudget.cost.unpriced"
COST_PART_PREFIX: Final = "tokenbudget.cost.part."
BUDGET_NAME: Final = "tokenbudget.budget.name"
BUDGET_SCOPE: Final = "tokenbudget.budget.scope"
"""The values that a budget is counted by, as :func:`scope_text` writes them."""
BUDGET_UNIT: Final = "tokenbudget.budget.unit"
"""``usd``, ``tokens`` or ``calls``."""
BUDGET_WINDOW: Final = "tokenbudget.budget.window"
"""The kind of window: ``month``, ``day``, ``lifetime`` …"""
BUDGET_ACTION: Final = "tokenbudget.budget.action"
"""What the budget does where it has no room: ``warn``, ``block``, ``shrink``, ``degrade`` or ``wait``."""
BUDGET_DRY_RUN: Final = "tokenbudget.budget.dry_run"
BUDGET_ASKED_MODEL: Final = "tokenbudget.budget.asked_model"
"""The model that the program asked for, where a budget had a cheaper one asked instead."""
BUDGET_SHRUNK: Final = "tokenbudget.budget.shrunk"
"""Whether a budget lowered the output tokens that the answer may have."""
BUDGET_WAITED: Final = "tokenbudget.budget.waited"
"""Seconds that the call waited for room in a budget."""
EVENT_BUDGET_WARNING: Final = "tokenbudget.budget.warning"
BATCH_ID: Final = "tokenbudget.batch.id"
BATCH_RESULTS: Final = "tokenbudget.batch.results"
"""How many answers of a batch were charged by this look at it."""

# --- metrics -----------------------------------------------------------------------------------------------------

METRIC_DURATION: Final = "gen_ai.client.operation.duration"
METRIC_TOKEN_USAGE: Final = "gen_ai.client.token.usage"
METRIC_TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
METRIC_TIME_PER_OUTPUT_CHUNK: Final = "gen_ai.client.operation.time_per_output_chunk"
METRIC_INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
METRIC_INFERENCE_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
METRIC_INFERENCE_PER_CHUNK: Final = "gen_ai.client.inference.time_per_output_chunk"
METRIC_INFERENCE_INPUT: Final = "gen_ai.client.inference.usage.input_tokens"
METRIC_INFERENCE_OUTPUT: Final = "gen_ai.client.inference.usage.output_tokens"
METRIC_INFERENCE_CACHE_READ: Final = "gen_ai.client.inference.usage.cache_read.input_tokens"
METRIC_INFERENCE_CACHE_WRITE: Final = "gen_ai.client.inference.usage.cache_write.input_tokens"
METRIC_INFERENCE_REASONING: Final = "gen_ai.client.inference.usage.reasoning.output_tokens"
METRIC_INFERENCE_EACH_INPUT: Final = "gen_ai.client.inference.operation.input_tokens"
METRIC_INFERENCE_EACH_OUTPUT: Final = "gen_ai.client.inference.operation.output_tokens"
METRIC_EMBEDDINGS_DURATION: Final = "gen_ai.client.embeddings.duration"
METRIC_EMBEDDINGS_EACH_INPUT: Final = "gen_ai.client.embeddings.operation.input_tokens"
METRIC_COST: Final = "gen_ai.client.operation.cost"
METRIC_CALLS: Final = "tokenbudget.calls"
METRIC_TOKEN_DETAILS: Final = "tokenbudget.client.token.details"
METRIC_REFUSALS: Final = "tokenbudget.budget.refusals"
METRIC_BUDGET_LIMIT: Final = "tokenbudget.budget.limit"
METRIC_BUDGET_SPENT: Final = "tokenbudget.budget.spent"
METRIC_BUDGET_RESERVED: Final = "tokenbudget.budget.reserved"
METRIC_BUDGET_REMAINING: Final = "tokenbudget.budget.remaining"
TOKEN_TYPE: Final = "gen_ai.token.type"
TOKEN_MODALITY: Final = "gen_ai.token.modality"
TOKEN_DETAIL: Final = "tokenbudget.token.detail"
"""Which part of the input or the output tokens are: ``cache_read``, ``reasoning``, ``input_audio`` …"""

DURATION_BOUNDARIES: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bucket boundaries that the conventions advise for durations, in seconds."""
TOKEN_BOUNDARIES: Final = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
)  # fmt: skip
"""Bucket boundaries that the conventions advise for token counts."""

# --- operations --------------------------------------------------------------------------------------------------

CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
GENERATE_CONTENT: Final = "generate_content"
IMAGE_GENERATION: Final = "image_generation"
SPEECH: Final = "speech"
TRANSCRIPTION: Final = "transcription"
TRANSLATION: Final = "translation"
FETCH_RESPONSE: Final = "fetch_response"
CREATE_BATCH: Final = "create_batch"
FETCH_BATCH: Final = "fetch_batch"

INFERENCE_OPERATIONS: Final = frozenset(
    (CHAT, TEXT_COMPLETION, EMBEDDINGS, GENERATE_CONTENT, IMAGE_GENERATION, SPEECH, TRANSCRIPTION, TRANSLATION)
)
"""Operations that a provider bills. Agent, workflow, tool and retrieval spans repeat what these count."""

FORMER_NAMES: Final = {
    PROVIDER_NAME: "gen_ai.system",
    USAGE_CACHE_WRITE: "gen_ai.usage.cache_creation.input_tokens",
    USAGE_REASONING: "gen_ai.usage.reasoning_tokens",
}
"""What backends of the previous conventions read; set beside the current names by an option."""


def scope_text(scope: Mapping[str, str]) -> str:
    """A scope of a budget as the value of :data:`BUDGET_SCOPE`; empty for a budget that counts all calls together.

    >>> scope_text({"tenant": "acme", "user": "a,b"})
    'tenant=acme,user=a%2Cb'
    """
    return ",".join(f"{name}={value.replace('%', '%25').replace(',', '%2C')}" for name, value in scope.items())
