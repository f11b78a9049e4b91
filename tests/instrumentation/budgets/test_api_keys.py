"""``per="api_key"``: calls with different keys are counted apart, and no key is written down anywhere."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from changed_rows import ROWS, Row, model_argument

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter, key_mark
from tokenbudget_otel.simulator import Simulator

KEYS = ("sk-of-the-first-team-0123456789", "sk-of-the-other-team-9876543210")
NAMES = (
    "openai chat", "anthropic messages", "groq chat", "together chat", "mistral chat", "cohere chat stream", "gemini",
    "gemini interaction", "bedrock converse", "litellm openai",
)  # fmt: skip


def keyed(row: Row, sim: Simulator, key: str, monkeypatch: pytest.MonkeyPatch, asynchronous: bool = False) -> Any:
    """A client with a key of its own."""
    import changed_rows

    source = changed_rows.KEY
    monkeypatch.setattr(changed_rows, "KEY", key)
    client = row.client(sim, asynchronous)
    monkeypatch.setattr(changed_rows, "KEY", source)
    return client


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in NAMES], ids=str)
async def test_two_keys_are_two_scopes(
    row: Row, sim: Simulator, meter: Meter, instrumented: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    if not row.installed:
        pytest.skip(f"{row.sdk} is not installed here")
    caplog.set_level(logging.DEBUG, logger="tokenbudget_otel")
    meter.enforcer.add(tb.Budget(limit_calls=2, per="api_key", name="keys"))
    clients = [keyed(row, sim, key, monkeypatch) for key in KEYS]
    refusals = []
    for _ in range(3):
        for client in clients:
            try:
                answer = row.call(client, **model_argument(row), **row.body)
                if row.streams:
                    for _ in answer:
                        pass
            except tb.BudgetExceeded as refusal:
                refusals.append(refusal)
    assert [dict(refusal.scope) for refusal in refusals] == [{"api_key": key_mark(key)} for key in KEYS]
    scopes = {row.scope["api_key"]: row.spent_calls for row in meter.enforcer.status()}
    assert scopes == {key_mark(key): 2 for key in KEYS}

    written = [span.to_json() for span in instrumented.spans()]
    written += [balance.key for balance in meter.enforcer.ledger.balances()]
    written += [record.getMessage() for record in caplog.records if record.name.startswith("tokenbudget_otel")]
    written += [str(refusal) + repr(refusal.shortfall) for refusal in refusals]
    written += [str(points) for points in instrumented.metrics().values()]
    assert not [text for text in written if any(key in text for key in KEYS)]


async def test_keys_that_are_made_anew_are_one_scope(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    openai = pytest.importorskip("openai")
    made = iter(f"token-{number:020}" for number in range(100))

    async def token() -> str:
        return next(made)

    client = openai.AsyncOpenAI(
        api_key=token, base_url=sim.openai_url, max_retries=0, http_client=openai.DefaultAsyncHttpxClient(verify=False)
    )
    meter.enforcer.add(tb.Budget(limit_calls=1, per="api_key", name="keys"))
    call: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello."}]}
    await client.chat.completions.create(**call)
    with pytest.raises(tb.BudgetExceeded):
        await client.chat.completions.create(**call)
    (status,) = meter.enforcer.status()
    assert dict(status.scope) == {"api_key": ""}
