"""LiteLLM's SDK: its functions for chat, completions, embeddings, images, audio, reranking and responses.

LiteLLM gives every provider's answer the shape of OpenAI's, so OpenAI's tables read it. The door is before LiteLLM's
own functions: what they send through other SDKs or HTTP clients, retries and fallbacks included, is one call, and a
refusal is not made into one of LiteLLM's exceptions.

Streams are asked for their usage, and LiteLLM's stream object is then told that nobody asked: the program sees the
chunks that it would have seen, and the count is read from the chunks that the object keeps.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import followed
from tokenbudget_otel.instrumentation.changes import Changes
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.failures import UNSENT_ERRORS
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.openai import ENDPOINTS, MAX_REFUSING
from tokenbudget_otel.instrumentation.openai_usage import chat_usage
from tokenbudget_otel.instrumentation.provider import Method, MethodDoor, OneMethod, Provider, ProviderInstrumentor
from tokenbudget_otel.instrumentation.sizing import MediaTokens, measure
from tokenbudget_otel.instrumentation.streams import TextCount
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, Size
from tokenbudget_otel.settings import option
from tokenbudget_otel.usage import TokenUsage

PROVIDERS: Final = {
    "text-completion-openai": "openai",
    "custom_openai": "openai_compatible",
    "openai_like": "openai_compatible",
    "azure": "azure.ai.openai",
    "azure_text": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex_ai_beta": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "codestral": "mistral_ai",
    "cohere_chat": "cohere",
    "xai": "x_ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "moonshot": "moonshot_ai",
    "watsonx": "ibm.watsonx.ai",
    "ollama_chat": "ollama",
    "voyage": "voyageai",
    "nvidia_nim": "nvidia",
}
"""LiteLLM's names of providers, where the conventions (or this package) have others."""

SENT_ERRORS: Final = frozenset(("ReadTimeout", "ReadError", "RemoteProtocolError", "APITimeoutError"))
MEDIA: Final = MediaTokens(image=(1_000, 50_000), other=(1_000, None))


def conventional(provider: str) -> str:
    """The conventions' name of one of LiteLLM's providers.

    >>> conventional("bedrock_converse"), conventional("vertex_ai-language-models"), conventional("groq")
    ('aws.bedrock', 'gcp.vertex_ai', 'groq')
    """
    return "gcp.vertex_ai" if provider.startswith("vertex_ai") else PROVIDERS.get(provider, provider)


def resolved(model: str, given: Any = None) -> tuple[str | None, str]:
    """LiteLLM's provider and the model in a name such as ``groq/llama-3.1-8b-instant``. Looks names up as LiteLLM
    does, but asks no function of it: those print where they know no answer."""
    litellm = sys.modules.get("litellm")
    head, slash, rest = model.partition("/")
    if isinstance(given, str) and given:
        return given, rest if slash and head == given else model
    if slash and head in (str(getattr(one, "value", one)) for one in getattr(litellm, "provider_list", ())):
        return head, rest
    listed = getattr(litellm, "model_cost", {}).get(model)
    return text(get(listed, "litellm_provider")), model


def provider_at(url: str, body: Body) -> str:
    """Who answers, by the name of the model and the address."""
    known = resolved(str(body.get("model") or ""), body.get("custom_llm_provider"))[0]
    return provider_of(url, "litellm" if known is None else conventional(known))


def _address(body: Any) -> str | None:
    return text(get(body, "api_base")) or text(get(body, "base_url"))


def _model(body: Body) -> str:
    return resolved(str(body.get("model") or ""), body.get("custom_llm_provider"))[1]


def unbilled(error: BaseException) -> bool:
    """LiteLLM makes its errors of others, and those are their context."""
    seen: set[str] = set()
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            break
        seen.add(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return bool(seen & UNSENT_ERRORS) and not seen & SENT_ERRORS


# --- what answers say ----------------------------------------------------------------------------------------------


def usage_of(answer: Any, provider: str) -> TokenUsage | None:
    """Usage as LiteLLM has it of every provider: OpenAI's, with Anthropic's split of cache writes."""
    usage = get(answer, "usage")
    found = chat_usage(usage, provider)
    if found is None:
        return None
    prompt = get(usage, "prompt_tokens_details")
    split = get(prompt, "cache_creation_token_details")
    counts = found.counts()
    # LiteLLM's count of text leaves out what came from a cache; it is no part by modality.
    counts.pop("input_text_tokens", None)
    counts.pop("output_text_tokens", None)
    written = get(prompt, "cache_creation_tokens") or get(usage, "cache_creation_input_tokens")
    more = {
        "cache_write_tokens": counts.get("cache_write_tokens") or written,
        "cache_write_5m_tokens": get(split, "ephemeral_5m_input_tokens"),
        "cache_write_1h_tokens": get(split, "ephemeral_1h_input_tokens"),
    }
    # LiteLLM fills in zeros for parts that a provider says nothing of: only its wholes may be zero.
    return TokenUsage.reading(
        {name: count for name, count in (counts | more).items() if count or name in ("input_tokens", "output_tokens")}
    )


def _read_chat(answer: Any, _body: Body, provider: str) -> ResponseFacts:
    reasons = (text(get(choice, "finish_reason")) for choice in get(answer, "choices") or ())
    return ResponseFacts(
        id=text(get(answer, "id")),
        model=_answered_by(answer),
        finish_reasons=tuple(reason for reason in reasons if reason),
        usage=usage_of(answer, provider),
        tier=text(get(answer, "service_tier")),
    )


def _read_embedding(answer: Any, body: Body, provider: str) -> ResponseFacts:
    facts = _read_chat(answer, body, provider)
    if facts.usage is not None:
        facts.usage = facts.usage.replace(output_tokens=None)  # LiteLLM's own zero
    return facts


def _read_rerank(answer: Any, _body: Body, _provider: str) -> ResponseFacts:
    billed = get(answer, "meta", "billed_units")
    tokens = get(answer, "meta", "tokens", "input_tokens") or get(billed, "total_tokens")
    counts = {"rerank_searches": get(billed, "search_units"), "input_tokens": tokens}
    found = TokenUsage.reading({name: count for name, count in counts.items() if count is not None})
    return ResponseFacts(id=text(get(answer, "id")), usage=found or None)


def _answered_by(answer: Any) -> str | None:
    model = text(get(answer, "model"))
    return None if model is None else resolved(model)[1]


class ChunkReader:
    """Follows the chunks that the program gets; the usage is in those that LiteLLM's stream of a chat keeps.

    Args:
        provider: who answers.
        kept: the chunks that the stream object keeps, as it adds to them; ``None`` where it keeps none, and what the
            program gets is all there is.
    """

    counted_last = True
    """To look for usage after every chunk would be to look through all of them each time."""

    def __init__(self, provider: str, kept: list[Any] | None) -> None:
        self.complete = False
        self._provider = provider
        self._own = kept is None
        self._kept: list[Any] = [] if kept is None else kept
        self._facts = ResponseFacts()
        self._text = TextCount()

    def item(self, chunk: Any) -> bool:
        """Take a chunk; all of them are the program's to see."""
        facts = self._facts
        if self._own and get(chunk, "usage", "total_tokens"):
            self._kept.append(chunk)
        facts.id = text(get(chunk, "id")) or facts.id
        facts.model = _answered_by(chunk) or facts.model
        facts.tier = text(get(chunk, "service_tier")) or facts.tier
        for choice in get(chunk, "choices") or ():
            delta = get(choice, "delta")
            for piece in (get(delta, "content"), get(delta, "reasoning_content"), get(choice, "text")):
                self._text.add(piece)
            for call in get(delta, "tool_calls") or ():
                self._text.add(get(call, "function", "arguments"))
            if reason := text(get(choice, "finish_reason")):
                facts.finish_reasons = (reason,)
                self.complete = True
        return False

    @property
    def facts(self) -> ResponseFacts:
        """What the chunks so far say."""
        counts: dict[str, Any] = {}
        for chunk in self._kept:
            # Providers repeat and complete their counts, and none of them takes one back.
            if (usage := usage_of(chunk, self._provider)) is not None:
                for name, count in usage.counts().items():
                    counts[name] = max(count, counts.get(name, 0))
        self._facts.usage = TokenUsage.reading(counts) if counts else None
        return self._facts

    @property
    def usage_is_final(self) -> bool:
        """Whether the provider's own count came."""
        usage = self.facts.usage
        return self.complete and usage is not None and usage.output_tokens is not None

    def text_tokens(self) -> int:
        """What the text so far comes to."""
        return self._text.tokens


class EventReader:
    """Follows the events of LiteLLM's Responses API."""

    def __init__(self, endpoint: Endpoint, body: Body, provider: str) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()
        self._read: Callable[[Any], ResponseFacts] = lambda response: endpoint.read(response, body, provider)
        self._text = TextCount()

    def item(self, event: Any) -> bool:
        """Take an event; all of them are the program's to see."""
        kind = str(getattr(kind := get(event, "type"), "value", kind))
        if kind.endswith(".delta"):
            self._text.add(get(event, "delta"))
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self.complete = True
            self.facts = self._read(get(event, "response"))
            self.usage_is_final = self.facts.usage is not None
        return False

    def text_tokens(self) -> int:
        """What the text so far comes to."""
        return self._text.tokens


# --- the declaration -----------------------------------------------------------------------------------------------

_Read = Callable[[Any, Body, str], ResponseFacts]


@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Mirrored(Method):
    """A method whose requests and answers are those of one of OpenAI's endpoints."""

    like: str
    read_answer: _Read | None

    def __init__(self, name: str, like: str, *order: str, read: _Read | None = None) -> None:
        object.__setattr__(self, "like", like)
        object.__setattr__(self, "read_answer", read)
        # The async ones take whatever comes, and hand it on in the order of the sync ones.
        request = _named(order)
        super().__init__(name, f"a{name}", model=_model, request=request, usage={}, max_output_tokens=None)

    def endpoint(self) -> Endpoint:
        """OpenAI's, read off objects instead of bytes."""
        known = ENDPOINTS["post", self.like]
        return dataclasses.replace(
            known,
            size=lambda body, _options: known.size(body, SimpleNamespace(files=_files(body))),
            read=_speaking(known) if self.like == "/audio/speech" else self.read_answer or known.read,
            items=lambda body, provider: EventReader(known, body, provider),
            stream=None,
            binary=None,
        )


def _named(order: tuple[str, ...]) -> Callable[[dict[str, Any]], Body | None]:
    def request(arguments: dict[str, Any]) -> Body | None:
        given = arguments.pop("args", ())
        body = dict(zip(order, given, strict=False)) | arguments if isinstance(given, tuple) else arguments
        # An answer that the program made up itself was never asked for.
        return None if body.get("mock_response") is not None or body.get("mock_tool_calls") is not None else body

    return request


def _files(body: Body) -> list[Any]:
    given = body.get("file") or body.get("image")
    files = given if isinstance(given, list) else [given]
    return [("file", file) for file in files if file is not None]


def _speaking(known: Endpoint) -> _Read:
    return lambda _answer, body, _provider: ResponseFacts() if known.binary is None else known.binary(body)


@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Reranking(Method):
    """Reranking, in the shape of Cohere's."""

    def endpoint(self) -> Endpoint:
        """What the engine works with."""
        return Endpoint("rerank", _rerank_size, lambda _body: {}, _read_rerank, changes=Changes())


def _rerank_size(body: Body, _options: Any) -> Size:
    extent = measure(body.get("query"), body.get("documents"))
    searches = TokenUsage(rerank_searches=max(1, -(-len(body.get("documents") or ()) // 100)))
    return Size(extent.likely(MEDIA), extent.bound(MEDIA), expected_output_tokens=0, extra=searches)


LITELLM: Final = Provider(
    name="litellm",
    sdk="litellm",
    versions=">=1.60,<2",
    url=_address,
    provider_at=provider_at,
    unbilled=unbilled,
    api_key="api_key",
    methods=(
        Mirrored("completion", "/chat/completions", "model", "messages", read=_read_chat),
        Mirrored("text_completion", "/completions", "prompt", "model", read=_read_chat),
        Mirrored("embedding", "/embeddings", "model", "input", read=_read_embedding),
        Mirrored("responses", "/responses", "input", "model"),
        Mirrored("image_generation", "/images/generations", "prompt", "model"),
        Mirrored("image_edit", "/images/edits", "image", "prompt", "model"),
        Mirrored("transcription", "/audio/transcriptions", "model", "file"),
        Mirrored("speech", "/audio/speech", "model", "input", "voice"),
        Reranking("rerank", "arerank", model=_model, request=_named(("model", "query", "documents")), usage={}),
    ),
)


# --- the door ------------------------------------------------------------------------------------------------------


class LiteLLMDoor(MethodDoor):
    """The door before LiteLLM's functions.

    Args:
        stream_usage: whether streams are asked for their usage where the program does not ask itself.
    """

    def __init__(self, telemetry: Telemetry, meter: Meter, *, stream_usage: bool = True) -> None:
        super().__init__(telemetry, meter, LITELLM)
        self.stream_usage = stream_usage
        self.refusing: set[tuple[str, str]] = set()

    def one(self, target: Any, original: Callable[..., Any]) -> OneMethod:
        """The door before one function."""
        return LiteLLMCall(self, target, original)


class LiteLLMCall(OneMethod):
    """The door before one function of LiteLLM's."""

    def __init__(self, parent: LiteLLMDoor, target: Any, original: Callable[..., Any]) -> None:
        super().__init__(parent, target, original)
        self._litellm = parent

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        opened = super().open(client, args, kwargs)
        if opened is not None:
            opened.options = opened.plain_options = dict(kwargs)
            body, asked = opened.body, opened.body.get("stream_options")
            known = (opened.peer.provider, str(body.get("api_base")))
            wanted = asked is None or (isinstance(asked, Mapping) and "include_usage" not in asked)
            # Not for completions of text: their stream object has no way to be told that nobody asked.
            streamed = body.get("stream") is True and opened.endpoint.operation == semconv.CHAT
            streamed = streamed and opened.endpoint.wants_usage
            if streamed and wanted and self._litellm.stream_usage and known not in self._litellm.refusing:
                opened.options = {**kwargs, "stream_options": {**(asked or {}), "include_usage": True}}
                opened.asked_usage = True
        return opened

    def revised(
        self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, changed = super().revised(opened, client, args, kwargs)
        asked = {"stream_options": opened.options["stream_options"]} if opened.asked_usage else {}
        opened.plain_options = changed
        opened.options = {**changed, **asked} if asked else changed
        return args, changed

    def pass_on(
        self, original: Callable[..., Any], client: Any, opened: Opened, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if opened.sent is not None:
            args, _ = opened.sent
        return original(client, *args, **opened.options)

    def refused_change(self, opened: Opened, error: BaseException) -> bool:
        if getattr(error, "status_code", None) not in (400, 422) or "stream_options" not in str(error):
            return False
        if len(self._litellm.refusing) >= MAX_REFUSING:
            self._litellm.refusing.clear()  # those that are still asked say it again
        self._litellm.refusing.add((opened.peer.provider, str(opened.body.get("api_base"))))
        return True

    def returned(self, opened: Opened, result: Any) -> Any:
        try:
            _answered_by_another(opened, result)
            if get(result, "_hidden_params", "cache_hit") is True or _from_cache(result):
                opened.call.finish("completed", ResponseFacts(), billed=False)  # out of LiteLLM's own cache
                return result
            if followed.is_stream(result) and opened.endpoint.wants_usage:
                chunks = get(result, "chunks")
                if opened.asked_usage:
                    _unask(result, opened.body.get("stream_options"))
                reader = ChunkReader(opened.peer.provider, chunks if isinstance(chunks, list) else None)
                return followed.follow(result, followed.ItemWatcher(self, opened, reader))
        except Exception as error:
            log_once("read a response", error)
        return super().returned(opened, result)


def _answered_by_another(opened: Opened, result: Any) -> None:
    """With fallbacks, another provider may have answered than the one that was asked: it is the one to be paid."""
    fallbacks, body, call = opened.body.get("fallbacks"), opened.body, opened.call
    attempts = get(result, "_hidden_params", "additional_headers", "x-litellm-attempted-fallbacks")
    if not isinstance(fallbacks, list) or not isinstance(attempts, int) or not 0 < attempts <= len(fallbacks):
        return
    chosen = fallbacks[attempts - 1]
    asked = {**body, **chosen} if isinstance(chosen, Mapping) else {**body, "model": chosen}
    call.request.provider = provider_at(_address(asked) or "", asked)
    opened.peer = dataclasses.replace(opened.peer, provider=call.request.provider)
    call.note(semconv.PROVIDER_NAME, call.request.provider)


def _from_cache(result: Any) -> bool:
    return text(get(result, "custom_llm_provider")) == "cached_response"


def _unask(result: Any, asked: Any) -> None:
    """Have the stream show what it would show if usage had not been asked for."""
    if hasattr(result, "send_stream_usage"):
        result.stream_options, result.send_stream_usage = asked, False


class LiteLLMInstrumentor(ProviderInstrumentor):
    """Meters the functions of the ``litellm`` SDK.

    Options of :meth:`instrument`: those of every instrumentor, and ``stream_usage`` as for OpenAI's.

    >>> LiteLLMInstrumentor().instrumentation_dependencies()
    ('litellm >=1.60,<2',)
    """

    declared = LITELLM

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        asked = options.get("stream_usage")
        asks = option("stream_usage", True) if asked is None else asked
        return LiteLLMDoor(telemetry, meter, stream_usage=bool(asks))
