"""OpenLIT (1.33 to 1.45). Its ``gen_ai.usage.cost`` comes from its own price table and is 0 for what is not in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects.conventions import CONVENTIONS, OPERATIONS

_SCOPE: Final = "openlit.instrumentation."

OPENLIT: Final = replace(
    CONVENTIONS,
    name="openlit",
    scopes=("openlit",),
    operations=OPERATIONS | {"image": semconv.IMAGE_GENERATION, "audio": semconv.TRANSCRIPTION},
)

OPENLIT_OPENAI: Final = replace(
    OPENLIT,
    scopes=(_SCOPE + "openai",),
    # Only the span of a response that is fetched has it, with the usage of the call, and a model that is made up.
    unless={semconv.RESPONSE_STATUS: ()},
    input="whole",
)

OPENLIT_WITHOUT_CACHE: Final = replace(OPENLIT, scopes=(_SCOPE + "anthropic", _SCOPE + "bedrock"), input="rest")

OPENLIT_GOOGLE: Final = replace(
    OPENLIT, scopes=(_SCOPE + "google_ai_studio", _SCOPE + "vertexai"), input="whole", output="rest"
)

ROWS: Final = (OPENLIT_OPENAI, OPENLIT_WITHOUT_CACHE, OPENLIT_GOOGLE, OPENLIT)
