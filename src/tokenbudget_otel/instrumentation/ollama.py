"""Ollama: chat, generate and embeddings, sync, async and streamed.

Every helper of the SDK, its module functions too, sends through ``_request`` of its two clients, with the body as it
is sent. A model on a machine of one's own costs nothing; its tokens count all the same. What runs in Ollama's cloud,
by its host or by the name of the model (``gpt-oss:120b-cloud``), has no price that is known here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.content_parts import Messages, answer, media, reasoning, said
from tokenbudget_otel.instrumentation.facts import get, listed, text
from tokenbudget_otel.instrumentation.failures import raised_in
from tokenbudget_otel.instrumentation.openai_content import chat_messages, tool_calls
from tokenbudget_otel.instrumentation.provider import Method, Provider, ProviderInstrumentor

CLIENTS: Final = ("Client._request", "AsyncClient._request")

USAGE: Final = {"input_tokens": "prompt_eval_count", "output_tokens": "eval_count"}
"""``eval_count`` holds the tokens of thinking too, which Ollama does not count apart."""

OPTIONS: Final = {
    semconv.REQUEST_TEMPERATURE: "options.temperature",
    semconv.REQUEST_TOP_P: "options.top_p",
    semconv.REQUEST_TOP_K: "options.top_k",
    semconv.REQUEST_SEED: "options.seed",
    semconv.REQUEST_FREQUENCY_PENALTY: "options.frequency_penalty",
    semconv.REQUEST_PRESENCE_PENALTY: "options.presence_penalty",
}

CHANGES: Final = {"model": "json.model", "max_output_tokens": "json.options.num_predict"}

OWN_MACHINES: Final = (".local", ".internal", ".localhost", ".lan", ".home.arpa")


def posted_to(path: str) -> Callable[[dict[str, Any]], Any]:
    """The body of a request that goes to ``path``; ``None`` for every other request."""
    return lambda arguments: arguments.get("json") if path in arguments["args"] else None


def costs_nothing(url: str, body: Mapping[str, Any]) -> bool:
    """Whether the model runs on a machine of one's own.

    >>> costs_nothing("http://127.0.0.1:11434", {"model": "llama3.2"}), costs_nothing("http://ollama:11434", {})
    (True, True)
    >>> costs_nothing("https://ollama.com", {}), costs_nothing("http://127.0.0.1", {"model": "gpt-oss:120b-cloud"})
    (False, False)
    """
    if str(body.get("model")).rpartition(":")[2].endswith("cloud"):
        return False
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(OWN_MACHINES)
    return address.is_loopback or address.is_private or address.is_unspecified


def _messages(body: Any) -> list[Any]:
    """The messages, with their images as images and not as the text that carries them."""
    shown: list[Any] = []
    for message in get(body, "messages") or ():
        shown.append({name: value for name, value in dict(message).items() if name != "images"})
        shown += [{"type": "image"} for _ in get(message, "images") or ()]
    return shown


def _images(body: Any) -> list[Any]:
    return [{"type": "image"} for _ in get(body, "images") or ()]


def _asked(body: Any) -> tuple[Messages, Messages]:
    if get(body, "messages") is None:
        pictures = [media("image", {"image": {"data": each}}) for each in listed(get(body, "images"))]
        return said(get(body, "system")), [{"role": "user", "parts": said(get(body, "prompt")) + pictures}]
    given = get(body, "messages")
    messages = chat_messages(given)
    for message, source in zip(messages, listed(given), strict=True):
        message["parts"] += [media("image", {"image": {"data": each}}) for each in listed(get(source, "images"))]
    return [], messages


def _answered(items: Any) -> Messages:
    words = thoughts = ""
    calls: Messages = []
    reason = None
    for item in items if isinstance(items, list) else [items]:
        words += text(get(item, "message", "content")) or text(get(item, "response")) or ""
        thoughts += text(get(item, "message", "thinking")) or text(get(item, "thinking")) or ""
        calls += tool_calls(get(item, "message"))
        reason = get(item, "done_reason") or reason
    return [answer([*reasoning(thoughts), *said(words), *calls], reason)]


CONTENT: Final = Content(_asked, _answered, _answered)

OLLAMA: Final = Provider(
    name="ollama",
    sdk="ollama",
    versions=">=0.5,<1",
    url="_client.base_url",
    free_at=costs_nothing,
    # What is raised while the request is put together; everything else without a status comes after it was sent.
    unbilled=lambda error: raised_in(error, frozenset(("build_request", "_build_request"))),
    methods=(
        Method(
            *CLIENTS,
            request=posted_to("/api/chat"),
            input=(_messages, "tools", "format"),
            max_output_tokens="options.num_predict",
            usage=USAGE,
            text=("message.content", "message.thinking", lambda item: str(get(item, "message", "tool_calls") or "")),
            changes=CHANGES,
            ends="done",
            finish_reason="done_reason",
            attributes=OPTIONS,
            content=CONTENT,
        ),
        Method(
            *CLIENTS,
            operation=semconv.TEXT_COMPLETION,
            request=posted_to("/api/generate"),
            input=("system", "prompt", "suffix", "template", "context", "format", _images),
            max_output_tokens="options.num_predict",
            usage=USAGE,
            text=("response", "thinking"),
            changes=CHANGES,
            ends="done",
            finish_reason="done_reason",
            attributes=OPTIONS,
            content=CONTENT,
        ),
        Method(
            *CLIENTS,
            operation=semconv.EMBEDDINGS,
            request=posted_to("/api/embed"),
            changes={"model": "json.model"},
            input="input",
            max_output_tokens=None,
            usage={"input_tokens": "prompt_eval_count"},
            no_output=True,
        ),
        Method(
            *CLIENTS,
            operation=semconv.EMBEDDINGS,
            request=posted_to("/api/embeddings"),  # the older route, which counts nothing
            changes={"model": "json.model"},
            input="prompt",
            max_output_tokens=None,
            usage={},
            no_output=True,
        ),
    ),
)


class OllamaInstrumentor(ProviderInstrumentor):
    """Meters the calls of the ollama SDK, 0.5 to 0.6.

    >>> OllamaInstrumentor().instrumentation_dependencies()
    ('ollama >=0.5,<1',)
    """

    declared = OLLAMA
