"""The agent that `tokenbudget demo` runs: a support desk for three tenants."""

from __future__ import annotations

import asyncio
import json
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final

import anthropic
import openai
from opentelemetry.trace import Tracer

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Simulator

TENANTS: Final = {"acme": 6, "globex": 4, "initech": 3}
"""Each tenant, and how many tickets it has."""

RUNAWAY_LIMIT_USD: Final = "0.50"

_TOOLS: Final[list[Any]] = [
    {
        "type": "function",
        "function": {
            "name": "lookup_order",
            "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
        },
    }
]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A question of a tenant's customer; ``number`` counts all tickets."""

    tenant: str
    number: int

    @property
    def text(self) -> str:
        return f"Ticket {self.number}: my order has not arrived, what can I do?"


def tickets() -> list[Ticket]:
    """All tickets, the tenants in turn."""
    left = dict(TENANTS)
    found: list[Ticket] = []
    while any(left.values()):
        for tenant, count in left.items():
            if count:
                left[tenant] -= 1
                found.append(Ticket(tenant, len(found)))
    return found


class Desk:
    """Answers tickets, with the clients that a program would use.

    Args:
        simulator: who answers.
        tracer: where the agent's own spans go.
        pace: how long the provider takes: 1 for about as long as a fast one, 0 for no time.
    """

    def __init__(self, simulator: Simulator, tracer: Tracer, pace: float) -> None:
        self._tracer = tracer
        self._pace = pace
        tb.map_host(simulator.openai_url, "openai")  # who answers at 127.0.0.1 is not known by itself
        to_openai: dict[str, Any] = {"base_url": simulator.openai_url, "api_key": "demo", "max_retries": 0}
        to_anthropic: dict[str, Any] = {"base_url": simulator.anthropic_url, "api_key": "demo", "max_retries": 0}
        self._openai = openai.OpenAI(**to_openai)
        self._anthropic = anthropic.Anthropic(**to_anthropic)
        self._loop = asyncio.Runner()
        self._async_openai = openai.AsyncOpenAI(**to_openai)
        self._async_anthropic = anthropic.AsyncAnthropic(**to_anthropic)

    def close(self) -> None:
        """Close the clients."""
        self._openai.close()
        self._anthropic.close()
        self._loop.run(self._async_openai.close())
        self._loop.run(self._async_anthropic.close())
        self._loop.close()

    def answer(self, ticket: Ticket) -> None:
        """Work on one ticket: look up, plan, use a tool, write, and check."""
        number = ticket.number
        with (
            tb.tags(tenant=ticket.tenant, feature="support"),
            self._tracer.start_as_current_span(
                "invoke_agent support-desk",
                attributes={
                    "gen_ai.operation.name": "invoke_agent",
                    "gen_ai.agent.name": "support-desk",
                    "tokenbudget.tag.tenant": ticket.tenant,
                },
            ),
        ):
            self._openai.embeddings.create(
                model="text-embedding-3-small", input=ticket.text, extra_headers=self._as(60, input_tokens=24 + number)
            )
            self._openai.responses.create(
                model="gpt-5",
                input=ticket.text,
                reasoning={"effort": "low"},
                extra_headers=self._as(
                    220, input_tokens=1800 + 40 * number, cached_tokens=1280, output_tokens=420 + 15 * number,
                    reasoning_tokens=256,
                ),
            )  # fmt: skip
            self._use_tool(ticket)
            self._write(ticket)
            # A Runner runs everything in the context that it was made in, unless it is given another.
            self._loop.run(self._check(ticket), context=copy_context())

    def _use_tool(self, ticket: Ticket) -> None:
        messages: list[Any] = [{"role": "user", "content": ticket.text}]
        call = {"name": "lookup_order", "arguments": {"id": f"A-{100 + ticket.number}"}}
        asked = self._openai.chat.completions.create(
            model="gpt-4.1-mini",
            messages=messages,
            tools=_TOOLS,
            extra_headers=self._as(120, input_tokens=640, output_tokens=22, tool_calls=[call]),
        )
        with self._tracer.start_as_current_span(
            "execute_tool lookup_order", attributes={"gen_ai.operation.name": "execute_tool"}
        ):
            found = "It was handed to the carrier on Monday."
        message = asked.choices[0].message
        messages.append(message)
        messages += [{"role": "tool", "tool_call_id": each.id, "content": found} for each in message.tool_calls or ()]
        stream = self._openai.chat.completions.create(
            model="gpt-4.1-mini",
            messages=messages,
            tools=_TOOLS,
            stream=True,
            extra_headers=self._as(80, chunk_ms=6, input_tokens=700, cached_tokens=512, output_tokens=64),
        )
        for _ in stream:
            pass

    def _write(self, ticket: Ticket) -> None:
        # The tenant's handbook is written to the cache with its first ticket and read from there afterwards.
        first = ticket.number < len(TENANTS)
        handbook = {"cache_write_5m_tokens": 3200} if first else {"cached_tokens": 3200}
        with self._anthropic.messages.stream(
            model="claude-sonnet-4-5",
            max_tokens=1024,
            system=[{"type": "text", "text": "The handbook.", "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": ticket.text}],
            extra_headers=self._as(
                120, chunk_ms=4, input_tokens=3600 + 30 * ticket.number, output_tokens=260, **handbook
            ),
        ) as stream:
            for _ in stream.text_stream:
                pass

    async def _check(self, ticket: Ticket) -> None:
        """Two reviewers at once."""
        messages: list[Any] = [{"role": "user", "content": ticket.text}]
        await asyncio.gather(
            self._async_openai.chat.completions.create(
                model="gpt-5-mini",
                messages=messages,
                extra_headers=self._as(150, input_tokens=900, output_tokens=96, reasoning_tokens=64),
            ),
            self._async_anthropic.messages.create(
                model="claude-haiku-4-5",
                max_tokens=256,
                messages=messages,
                extra_headers=self._as(130, input_tokens=950 + 10 * ticket.number, output_tokens=48),
            ),
        )

    def run_away(self) -> tuple[tb.BudgetExceeded, int, str]:
        """An agent that asks the same again and again. Returns what stopped it, after how many calls and dollars."""
        with (
            tb.tags(tenant="initech", feature="research"),
            tb.budget(max_cost_usd=RUNAWAY_LIMIT_USD, name="research agent") as budget,
        ):
            for turn in range(1000):
                try:
                    self._anthropic.messages.create(
                        model="claude-opus-4-5",
                        max_tokens=1500,
                        messages=[{"role": "user", "content": "Look closer." * (turn + 1)}],
                        extra_headers=self._as(60, input_tokens=4000 + 900 * turn, output_tokens=700),
                    )
                except tb.BudgetExceeded as refusal:
                    return refusal, budget.calls, f"{budget.spent_usd:.4f}"
        raise RuntimeError("nothing stopped the agent")

    def _as(self, ms: int, chunk_ms: float = 0, **behaviour: Any) -> dict[str, str]:
        """The header that says how the simulator answers."""
        pace = {"latency_s": self._pace * ms / 1000, "chunk_s": self._pace * chunk_ms / 1000}
        return {"x-simulate": json.dumps(behaviour | pace)}
