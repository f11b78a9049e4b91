"""Every way to call a model whose requests can be changed, as rows: where the limit on the output and the model stand
in what arrives at the provider."""

from __future__ import annotations

import importlib.util
import json
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pydantic

from tokenbudget_otel.simulator import RecordedRequest, Simulator

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]
PARTS = [{"role": "user", "content": [{"text": "Tell me a story about a river."}]}]
KEY = "key-of-the-test-0001"
"""What clients are made with."""


class Answer(pydantic.BaseModel):
    """What structured outputs are asked for."""

    answer: str


Made = Callable[[Simulator, bool], Any]


@dataclass(frozen=True)
class Row:
    """One way to call a model.

    Attributes:
        name: SDK and surface.
        sdk: what the SDK is imported as.
        client: makes a client, sync or async.
        call: calls with keyword arguments: what the program says, whole, so that it can be compared afterwards.
        body: those arguments.
        limit: where the limit arrives; ``()`` where there is none.
        model, cheaper: asked for, and to be asked instead.
        sent_model: what arrives of a model; the name in the body by default.
        system: ``gen_ai.provider.name``.
        both: whether it is tried with the async client too; of each SDK some are.
        streams: whether what comes is read item by item.
    """

    name: str
    sdk: str
    client: Made
    call: Callable[..., Any]
    body: dict[str, Any]
    limit: tuple[str, ...]
    model: str
    cheaper: str
    sent_model: Callable[[RecordedRequest], Any] = lambda request: request.json["model"]
    system: str = ""
    streams: bool = False
    both: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.sdk) is not None
        except ImportError:
            return False

    def sent_limit(self, request: RecordedRequest) -> Any:
        found = request.json
        for name in self.limit:
            found = (found or {}).get(name)
        return found


def unverified() -> ssl.SSLContext:
    """A TLS context without certificates; loading them takes longer than a whole test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- clients -------------------------------------------------------------------------------------------------------


def stainless(sdk: str, kind: str, url: str, **options: Any) -> Made:
    def make(sim: Simulator, asynchronous: bool) -> Any:
        module = importlib.import_module(sdk)
        http = module.DefaultAsyncHttpxClient if asynchronous else module.DefaultHttpxClient
        given = {"api_key": KEY, "max_retries": 0, "timeout": 20, "base_url": getattr(sim, url)}
        made = getattr(module, f"Async{kind}" if asynchronous else kind)
        return made(**(given | options), http_client=http(verify=False))

    return make


def mistral(sim: Simulator, asynchronous: bool) -> Any:
    from mistralai.client import Mistral
    from mistralai.client.basesdk import httpx

    made = Mistral(
        api_key=KEY, server_url=sim.mistral_url, timeout_ms=20_000,
        client=httpx.Client(verify=False), async_client=httpx.AsyncClient(verify=False),
    )  # fmt: skip
    vars(made)["suffix"] = "_async" if asynchronous else ""
    return made


def cohere(kind: str) -> Made:
    def make(sim: Simulator, asynchronous: bool) -> Any:
        import cohere as sdk
        import httpx

        http = (httpx.AsyncClient if asynchronous else httpx.Client)(verify=False, timeout=20)
        made = getattr(sdk, f"Async{kind}" if asynchronous else kind)
        return made(api_key=KEY, base_url=sim.cohere_url, httpx_client=http,
                    log_warning_experimental_features=False)  # fmt: skip

    return make


def google(*, vertex: bool = False) -> Made:
    def make(sim: Simulator, asynchronous: bool) -> Any:
        from google import genai

        options = {
            "base_url": sim.google_url, "timeout": 20_000, "client_args": {"verify": unverified()},
            "async_client_args": {"verify": unverified(), "ssl": unverified()}, "retry_options": {"attempts": 1},
        }  # fmt: skip
        client = genai.Client(api_key=KEY, http_options=options, vertexai=vertex)
        if genai.__version__.startswith("2"):
            client._api_client._http_options.retry_options.attempts = 0
        return client.aio if asynchronous else client

    return make


def former(sim: Simulator, _asynchronous: bool) -> Any:
    """The SDK before: its client is the process's."""
    import google.generativeai as sdk
    from google.generativeai import client as clients

    clients._client_manager = clients._ClientManager()
    sdk.configure(api_key=KEY, transport="rest", client_options={"api_endpoint": sim.google_url})
    return sdk.GenerativeModel


def bedrock(sim: Simulator, asynchronous: bool) -> Any:
    import botocore.session
    from botocore.config import Config

    return botocore.session.get_session().create_client(
        "bedrock-runtime", region_name="eu-central-1", endpoint_url=sim.bedrock_url, aws_access_key_id=KEY,
        aws_secret_access_key="any", verify=False, config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )  # fmt: skip


def ollama(sim: Simulator, asynchronous: bool) -> Any:
    import ollama as sdk

    return (sdk.AsyncClient if asynchronous else sdk.Client)(host=sim.ollama_url, timeout=20, verify=False)


def litellm(sim: Simulator, asynchronous: bool) -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm as sdk

    sdk.suppress_debug_info = True
    key = KEY
    urls = {"openai": sim.openai_url, "anthropic": sim.anthropic_url}

    def call(name: str, **arguments: Any) -> Any:
        address = urls[arguments["model"].partition("/")[0]]
        more = {"api_base": address, "api_key": key, "max_retries": 0, "timeout": 20}
        return getattr(sdk, f"a{name}" if asynchronous else name)(**(arguments | more))

    return call


# --- calls ---------------------------------------------------------------------------------------------------------


def at(path: str, suffix: bool = False) -> Callable[..., Any]:
    """A method of a client, and of the parts that it is made of."""

    def call(client: Any, **body: Any) -> Any:
        found = client
        for name in path.split("."):
            found = getattr(found, name + (client.suffix if suffix and name == path.split(".")[-1] else ""))
        return found(**body)

    return call


def of_path(request: RecordedRequest) -> str:
    """The model that stands in a path of Google's or Amazon's."""
    path = request.path
    if "/models/" in path:
        return path.rpartition("/models/")[2].partition(":")[0]
    from urllib.parse import unquote

    return unquote(path.partition("/model/")[2].rpartition("/")[0])


def generated(client: Any, model: str, **body: Any) -> Any:
    return client(model).generate_content(**body, request_options={"retry": None, "timeout": 20})


def invoked(client: Any, **body: Any) -> Any:
    answer = client.invoke_model(**body)
    return answer["body"].read()


def invoked_stream(client: Any, **body: Any) -> Any:
    return client.invoke_model_with_response_stream(**body)["body"]


def conversed_stream(client: Any, **body: Any) -> Any:
    return client.converse_stream(**body)["stream"]


def lite(name: str) -> Callable[..., Any]:
    return lambda client, **body: client(name, **body)


# --- rows ----------------------------------------------------------------------------------------------------------

OPENAI = stainless("openai", "OpenAI", "openai_url")
ANTHROPIC = stainless("anthropic", "Anthropic", "anthropic_url")
GROQ = stainless("groq", "Groq", "groq_url")
TOGETHER = stainless("together", "Together", "together_url")

GPT: dict[str, Any] = {"model": "gpt-5", "cheaper": "gpt-5-mini", "sdk": "openai", "client": OPENAI, "system": "openai"}
CLAUDE: dict[str, Any] = {
    "model": "claude-sonnet-4-6", "cheaper": "claude-haiku-4-5", "sdk": "anthropic", "client": ANTHROPIC,
    "system": "anthropic", "limit": ("max_tokens",),
}  # fmt: skip
MISTRAL: dict[str, Any] = {
    "model": "mistral-large-latest", "cheaper": "mistral-small-latest", "sdk": "mistralai", "client": mistral,
    "system": "mistral_ai", "limit": ("max_tokens",),
}  # fmt: skip
COHERE: dict[str, Any] = {
    "model": "command-a-03-2025", "cheaper": "command-r7b-12-2024", "sdk": "cohere", "system": "cohere",
    "limit": ("max_tokens",),
}  # fmt: skip
GEMINI: dict[str, Any] = {
    "model": "gemini-2.5-pro", "cheaper": "gemini-2.5-flash", "sdk": "google.genai", "sent_model": of_path,
    "limit": ("generationConfig", "maxOutputTokens"),
}  # fmt: skip
AMAZON: dict[str, Any] = {
    "sdk": "botocore",
    "client": bedrock,
    "sent_model": of_path,
    "system": "aws.bedrock",
    "both": False,
}
SONNET, HAIKU = "anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA, LITE = "amazon.nova-pro-v1:0", "amazon.nova-lite-v1:0"
LLAMA, SMALL = "meta.llama3-1-70b-instruct-v1:0", "meta.llama3-1-8b-instruct-v1:0"
CHAT = {"messages": MESSAGES}
NEW, FORMER = ("max_completion_tokens",), ("max_tokens",)


def row(name: str, call: Any, body: dict[str, Any], *defaults: dict[str, Any], **more: Any) -> Row:
    given: dict[str, Any] = {}
    for each in (*defaults, more):
        given |= each
    return Row(name=name, call=call, body=body, **given)


ROWS = [
    row("openai chat", at("chat.completions.create"), CHAT, GPT, limit=NEW, both=True),
    row("openai chat, former limit", at("chat.completions.create"), {**CHAT, "max_tokens": 3000}, GPT, limit=FORMER,
        model="gpt-4o", cheaper="gpt-4o-mini"),
    row("openai chat, limited", at("chat.completions.create"), {**CHAT, "max_completion_tokens": 3000}, GPT, limit=NEW),
    row("openai chat stream", at("chat.completions.create"), {**CHAT, "stream": True}, GPT, limit=NEW, streams=True,
        both=True),
    row("openai chat extra_body", at("chat.completions.create"),
        {**CHAT, "max_completion_tokens": 9000, "extra_body": {"max_completion_tokens": 3000}}, GPT, limit=NEW),
    row("openai chat parse", at("chat.completions.parse"), {**CHAT, "response_format": Answer}, GPT, limit=NEW),
    row("openai chat raw", at("chat.completions.with_raw_response.create"), CHAT, GPT, limit=NEW),
    row("openai responses", at("responses.create"), {"input": "Tell me a story."}, GPT, limit=("max_output_tokens",)),
    row("openai responses stream", at("responses.create"), {"input": "Tell me a story.", "stream": True}, GPT,
        limit=("max_output_tokens",), streams=True),
    row("openai responses parse", at("responses.parse"), {"input": "Say.", "text_format": Answer}, GPT,
        limit=("max_output_tokens",), both=True),
    row("openai embeddings", at("embeddings.create"), {"input": ["a river", "a bridge"]}, GPT, limit=(),
        model="text-embedding-3-large", cheaper="text-embedding-3-small"),
    row("anthropic messages", at("messages.create"), {**CHAT, "max_tokens": 3000}, CLAUDE),
    row("anthropic messages stream", at("messages.create"), {**CHAT, "max_tokens": 3000, "stream": True}, CLAUDE,
        streams=True, both=True),
    row("anthropic beta", at("beta.messages.create"), {**CHAT, "max_tokens": 3000, "betas": ["any"]}, CLAUDE),
    row("anthropic raw", at("messages.with_raw_response.create"), {**CHAT, "max_tokens": 3000}, CLAUDE),
    row("anthropic extra_body", at("messages.create"), {**CHAT, "max_tokens": 9, "extra_body": {"max_tokens": 3000}},
        CLAUDE),
    row("groq chat", at("chat.completions.create"), CHAT, sdk="groq", client=GROQ, limit=FORMER, system="groq",
        model="openai/gpt-oss-120b", cheaper="openai/gpt-oss-20b", both=True),
    row("groq chat, new limit", at("chat.completions.create"), {**CHAT, "max_completion_tokens": 3000}, sdk="groq",
        client=GROQ, limit=NEW, system="groq", model="openai/gpt-oss-120b", cheaper="openai/gpt-oss-20b"),
    row("together chat", at("chat.completions.create"), CHAT, sdk="together", client=TOGETHER, limit=FORMER,
        system="together", model="openai/gpt-oss-120b", cheaper="openai/gpt-oss-20b"),
    row("together chat stream", at("chat.completions.create"), {**CHAT, "stream": True}, sdk="together",
        client=TOGETHER, limit=FORMER, system="together", model="openai/gpt-oss-120b", cheaper="openai/gpt-oss-20b",
        streams=True, both=True),
    row("mistral chat", at("chat.complete", True), CHAT, MISTRAL, both=True),
    row("mistral chat stream", at("chat.stream", True), {**CHAT, "max_tokens": 3000}, MISTRAL, streams=True, both=True),
    row("mistral conversation", at("beta.conversations.start", True), {"inputs": "Tell me."}, MISTRAL,
        limit=("completion_args", "max_tokens")),
    row("cohere chat", at("chat"), CHAT, COHERE, client=cohere("ClientV2"), both=True),
    row("cohere chat stream", at("chat_stream"), {**CHAT, "max_tokens": 3000}, COHERE, client=cohere("ClientV2"),
        streams=True, both=True),
    row("cohere chat extra", at("chat"),
        {**CHAT, "request_options": {"additional_body_parameters": {"max_tokens": 3000}}}, COHERE,
        client=cohere("ClientV2")),
    row("cohere v1 chat", at("chat"), {"message": "Tell me a story."}, COHERE, client=cohere("Client")),
    row("gemini", at("models.generate_content"), {"contents": "Tell me a story."}, GEMINI, client=google(),
        system="gcp.gemini", both=True),
    row("gemini, limited", at("models.generate_content"),
        {"contents": "Tell me a story.", "config": {"max_output_tokens": 3000, "temperature": 0.5}}, GEMINI,
        client=google(), system="gcp.gemini"),
    row("gemini stream", at("models.generate_content_stream"), {"contents": "Tell me a story."}, GEMINI,
        client=google(), system="gcp.gemini", streams=True, both=True),
    row("vertex", at("models.generate_content"), {"contents": "Tell me a story."}, GEMINI, client=google(vertex=True),
        system="gcp.vertex_ai"),
    row("gemini interaction", at("interactions.create"), {"input": "Tell me a story."}, GEMINI, client=google(),
        system="gcp.gemini", sent_model=lambda request: request.json["model"],
        limit=("generation_config", "max_output_tokens"), both=True),
    row("gemini, former SDK", generated, {"contents": "Tell me a story.", "generation_config": {"temperature": 0.5}},
        GEMINI, client=former, sdk="google.generativeai", system="gcp.gemini"),
    row("bedrock converse", at("converse"), {"messages": PARTS}, AMAZON, limit=("inferenceConfig", "maxTokens"),
        model=NOVA, cheaper=LITE),
    row("bedrock converse stream", conversed_stream, {"messages": PARTS, "inferenceConfig": {"maxTokens": 3000}},
        AMAZON, limit=("inferenceConfig", "maxTokens"), model=NOVA, cheaper=LITE, streams=True),
    row("bedrock invoke claude", invoked,
        {"body": json.dumps({**CHAT, "anthropic_version": "bedrock-2023-05-31", "max_tokens": 3000})}, AMAZON,
        limit=FORMER, model=SONNET, cheaper=HAIKU),
    row("bedrock invoke llama", invoked, {"body": json.dumps({"prompt": "Tell me a story."}).encode()}, AMAZON,
        limit=("max_gen_len",), model=LLAMA, cheaper=SMALL),
    row("bedrock invoke nova stream", invoked_stream, {"body": json.dumps({"messages": PARTS})}, AMAZON,
        limit=("inferenceConfig", "maxTokens"), model=NOVA, cheaper=LITE, streams=True),
    row("litellm openai", lite("completion"), CHAT, sdk="litellm", client=litellm, limit=NEW, system="openai",
        model="openai/gpt-4o", cheaper="gpt-4o-mini"),
    row("litellm anthropic", lite("completion"), {**CHAT, "max_tokens": 3000}, sdk="litellm", client=litellm,
        limit=FORMER, system="anthropic", model="anthropic/claude-sonnet-4-5", cheaper="claude-haiku-4-5", both=True),
]  # fmt: skip


def model_argument(row: Row) -> dict[str, str]:
    """The model as the program gives it."""
    return {"modelId" if row.sdk == "botocore" else "model": row.model}
