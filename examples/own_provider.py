"""A provider of your own: twenty lines say how its SDK reads, and it is metered, priced and capped like the others.

The SDK here is this file's own, in miniature; it talks to whatever ``OPENAI_BASE_URL`` names. Run with::

    tokenbudget simulate &
    export OPENAI_BASE_URL=http://127.0.0.1:8089/v1
    python examples/own_provider.py
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from typing import Any

import tokenbudget_otel as tb

# --- somebody's SDK ------------------------------------------------------------------------------------------------


class Client:
    def __init__(self) -> None:
        self.base_url = os.environ["OPENAI_BASE_URL"]

    def ask(self, question: str, model: str = "acme-1", **options: Any) -> dict[str, Any]:
        with self._post(question, model, options) as response:
            return json.load(response)

    def stream(self, question: str, model: str = "acme-1", **options: Any) -> Iterator[dict[str, Any]]:
        options |= {"stream": True, "stream_options": {"include_usage": True}}
        with self._post(question, model, options) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])

    def _post(self, question: str, model: str, options: dict[str, Any]) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": question}], **options}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.base_url}/chat/completions", json.dumps(body).encode(), headers)
        return urllib.request.urlopen(request, timeout=30)


# --- the declaration -----------------------------------------------------------------------------------------------

ACME = tb.Provider(
    name="acme",
    sdk="__main__",  # where the program imports it from: "acme_llm"
    methods=(
        tb.Method(
            "Client.ask",
            "Client.stream",
            input="question",
            max_output_tokens="max_tokens",
            usage={
                "input_tokens": "usage.prompt_tokens",
                "output_tokens": "usage.completion_tokens",
                "cache_read_tokens": "usage.prompt_tokens_details.cached_tokens",
            },
            text="choices.0.delta.content",
            ends="usage",
            finish_reason="choices.0.finish_reason",
        ),
    ),
)


def main() -> None:
    tb.register_provider(ACME)
    tb.register_model("acme-1", provider="acme", input_per_1m=2, output_per_1m=6)
    tb.instrument()
    client = Client()

    answer = client.ask("What is a river?")
    print("answered:", answer["choices"][0]["message"]["content"])
    print("streamed:", len(list(client.stream("And a bridge?"))), "chunks")
    print(f"{tb.usage().calls} calls cost ${tb.usage(by='provider')['acme'].cost_usd}")

    with tb.budget(max_cost_usd=0.000001):
        try:
            client.ask("And a harbour?")
        except tb.BudgetExceeded as refusal:
            print("refused:", refusal)


if __name__ == "__main__":
    main()
