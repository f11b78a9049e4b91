"""Write docs/coverage.md: which surfaces are tested, in which ways, and which counts are checked there.

    python tools/make_coverage.py

The rows are those of the contract suite, tests/instrumentation/contract/surfaces_*.py: what is in the table is what the
suite runs. A test holds the document to them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# ruff: noqa: E501 - the lines of a table are as long as they are

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "coverage.md"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "instrumentation" / "contract")]

from surface import ALL, Because, Surface  # noqa: E402

CODES = {
    "input_tokens": "in",
    "output_tokens": "out",
    "cache_read_tokens": "cr",
    "cache_write_tokens": "cw",
    "cache_write_5m_tokens": "cw5m",
    "cache_write_30m_tokens": "cw30m",
    "cache_write_1h_tokens": "cw1h",
    "cache_write_12h_tokens": "cw12h",
    "reasoning_tokens": "re",
    "tool_use_input_tokens": "tu",
    "citation_tokens": "ci",
    "rejected_prediction_tokens": "rej",
    "input_text_tokens": "in.text",
    "input_audio_tokens": "in.audio",
    "input_image_tokens": "in.image",
    "input_video_tokens": "in.video",
    "output_text_tokens": "out.text",
    "output_audio_tokens": "out.audio",
    "output_image_tokens": "out.image",
    "cache_read_text_tokens": "cr.text",
    "cache_read_audio_tokens": "cr.audio",
    "cache_read_image_tokens": "cr.image",
}
"""What stands for a count in a cell; the others are units and stand for themselves."""

HEAD = """# What is covered

<!-- Written by `make coverage` from tests/instrumentation/contract/surfaces_*.py; a test holds it to them. -->

Every row is a surface of an SDK that the contract suite calls, through the real SDK over HTTP to the provider
simulator, in each of the ways that the columns name. A cell lists the counts that must come out to the token there:
on the span, in the totals, and against what the simulator bills. Where a cell does not apply, the note says why.

| column | what is held |
| --- | --- |
| sync, async | the answer: one span, one charge, every count, the exact cost; the program gets what it gets without us |
| stream | the same, read to its end, with the sync and the async client |
| early close | left after an item: the call ends once, as an estimate that says so, and nothing stays reserved |
| error | `429`: nothing is charged; `500`: the input is, as an estimate; the SDK's own exception comes out |
| raw | the SDK's raw response, read as raw |

Every row also passes: refused by a budget before a byte is sent, metered while spans are suppressed, many callers at
once, `tb.wrap` and `tb.unwrap`, tags, the originals back after `tb.uninstrument()`, and damaged answers (fields missing,
null, of the wrong type) that must come out as they do without us.

`make compat` runs all of it with these versions of the SDKs:

| SDK | current | previous |
| --- | --- | --- |
{versions}

Counts: {legend}. Others are named as `TokenUsage` has them.
"""

FOOT = """## Surfaces that are no single call

| surface | where it is held |
| --- | --- |
| OpenAI and Azure realtime, responses over a websocket, Gemini live: a charge per turn | [realtime.md](realtime.md), tests/instrumentation/realtime |
| OpenAI, Azure and Anthropic batches: charged once, at batch price | [batches.md](batches.md), tests/instrumentation/batches |
| OpenAI background responses: charged when first seen | [token-accounting.md](token-accounting.md), tests/instrumentation/sdks/openai |
| LangChain, LlamaIndex, openai-agents, pydantic-ai, instructor | [frameworks.md](frameworks.md), tests/instrumentation/frameworks |
"""


SDKS = ("openai", "anthropic", "google-genai", "google-generativeai", "boto3", "aiobotocore", "mistralai", "cohere", "groq",
        "together", "ollama", "voyageai", "litellm")  # fmt: skip


def versions() -> str:
    """The rows of SDKs and their versions, from the pinned environments; the same version is not tested twice over."""
    pins = [
        dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("dev.txt", "previous.txt")
    ]
    return "\n".join(
        f"| `{sdk}` | {current or '-'} | {(previous if previous != current else None) or '-'} |"
        for sdk in SDKS
        for current, previous in [[pin.get(sdk) for pin in pins]]
    )


class Notes:
    """Footnotes of one table: the same reason is said once."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def mark(self, because: Because) -> str:
        if because.reason not in self._reasons:
            self._reasons.append(because.reason)
        return f"- ({self._reasons.index(because.reason) + 1})"

    def lines(self) -> list[str]:
        return [f"{number}. {reason}" for number, reason in enumerate(self._reasons, 1)]


def counts(names: Iterable[str]) -> str:
    """A cell: what is checked there."""
    return " ".join(CODES.get(name, name) for name in names) or "nothing is reported"


def row(surface: Surface, notes: Notes) -> list[str]:
    """The cells of one surface."""
    stream_usage = surface.usage if surface.stream_usage is None else surface.stream_usage

    def cell(call: Any, usage: Any) -> str:
        return notes.mark(call) if isinstance(call, Because) else counts(usage)

    def mode(name: str) -> str:
        missing = surface.modes.get(name)
        return notes.mark(missing) if missing is not None else cell(surface.call, surface.usage)

    early = surface.early if surface.early is not None else surface.stream
    return [
        f"`{surface.name}`",
        f"`{surface.system}`",
        mode("sync"),
        mode("async"),
        cell(surface.stream, stream_usage),
        notes.mark(early) if isinstance(early, Because) else "estimated",
        notes.mark(surface.errors) if surface.errors is not None else "429, 500",
        cell(surface.raw, surface.usage),
    ]


def render() -> str:
    """The whole document."""
    used = {name for surface in ALL for name in (*surface.usage, *(surface.stream_usage or ()))}
    legend = ", ".join(f"`{code}` {name}" for name, code in CODES.items() if name in used)
    parts = [HEAD.format(legend=legend, versions=versions())]
    for heading in dict.fromkeys((surface.provider, surface.sdk) for surface in ALL):
        notes = Notes()
        rows = [row(surface, notes) for surface in ALL if (surface.provider, surface.sdk) == heading]
        parts.append(
            "\n".join(
                [
                    f"## {heading[0]} (`{heading[1]}`)\n",
                    "| surface | provider | sync | async | stream | early close | error | raw |",
                    "| --- | --- | --- | --- | --- | --- | --- | --- |",
                    *(f"| {' | '.join(cells)} |" for cells in rows),
                    *(["", *notes.lines()] if notes.lines() else []),
                    "",
                ]
            )
        )
    return "\n".join([*parts, FOOT])


if __name__ == "__main__":
    DOCUMENT.write_text(render())
    print(f"{len(ALL)} surfaces in {DOCUMENT.relative_to(ROOT)}")  # noqa: T201
