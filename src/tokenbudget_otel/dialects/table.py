"""All rows."""

from __future__ import annotations

from typing import Final

from tokenbudget_otel.dialects import openinference, openlit, openllmetry
from tokenbudget_otel.dialects.conventions import (
    ANTHROPIC_SDK,
    CONVENTIONS,
    MISTRALAI_SDK,
    OFFICIAL,
    OFFICIAL_BEDROCK,
    OWN,
    XAI_SDK,
)
from tokenbudget_otel.dialects.langfuse import LANGFUSE
from tokenbudget_otel.dialects.langsmith import LANGSMITH
from tokenbudget_otel.dialects.litellm import LITELLM, LITELLM_ON_OTHERS
from tokenbudget_otel.dialects.logfire import LOGFIRE, PYDANTIC_AI
from tokenbudget_otel.dialects.reader import Reader
from tokenbudget_otel.dialects.vercel import VERCEL

DIALECTS: Final = (
    # By scope. A scope stands before one that it lies in.
    OWN,
    ANTHROPIC_SDK,
    OFFICIAL_BEDROCK,
    OFFICIAL,
    MISTRALAI_SDK,
    XAI_SDK,
    *openllmetry.ROWS,
    *openlit.ROWS,
    LOGFIRE,
    PYDANTIC_AI,
    LITELLM,
    LANGSMITH,
    *openinference.ROWS,
    # By their marks. Who adds names to the conventions says more than the conventions.
    VERCEL,
    openinference.OPENINFERENCE,
    LITELLM_ON_OTHERS,
    CONVENTIONS,
    LANGFUSE,
)
"""All rows. One that names the scope of a span comes before one that only knows the attributes; among those the
first counts."""

_READER: Final = Reader(DIALECTS)

read: Final = _READER.read
"""Read a span by :data:`DIALECTS`: see :meth:`Reader.read`."""

candidate: Final = _READER.candidate
"""Whether a span may be a GenAI span by :data:`DIALECTS`: see :meth:`Reader.candidate`."""
