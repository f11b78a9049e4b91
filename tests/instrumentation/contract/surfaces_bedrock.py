"""AWS Bedrock, through boto3 and aiobotocore."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from surface import Because, Surface

from tokenbudget_otel.simulator import Simulator

CLAUDE = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "Tell me a story about a river."}]}]
MESSAGE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Tell me a story about a river."}],
}
COUNTED = {
    "input_tokens": 1_200,
    "cached_tokens": 700,
    "cache_write_5m_tokens": 100,
    "cache_write_1h_tokens": 60,
    "output_tokens": 150,
}
USAGE = {
    "input_tokens": 1_200,
    "cache_read_tokens": 700,
    "cache_write_tokens": 160,
    "cache_write_5m_tokens": 100,
    "cache_write_1h_tokens": 60,
    "output_tokens": 150,
}
PLAIN = {"input_tokens": 120, "output_tokens": 30}


@functools.cache
def _session() -> Any:
    """A session that has read the descriptions of the service, which are large: every test collects garbage, and they
    are none."""
    import botocore.session

    session = botocore.session.get_session()
    session.create_client("bedrock-runtime", region_name="eu-central-1", aws_access_key_id="", aws_secret_access_key="")
    return session


@functools.cache
def _async_session() -> Any:
    from aiobotocore.session import get_session

    made = get_session()
    made.register_component("data_loader", _session().get_component("data_loader"))  # it need not read them again
    return made


def client(simulator: Simulator, asynchronous: bool = False, **config: Any) -> Any:
    """A client of ``bedrock-runtime``; of aiobotocore it is the manager that gives it."""
    if asynchronous:
        from aiobotocore.config import AioConfig as Config
    else:
        from botocore.config import Config

    return (_async_session if asynchronous else _session)().create_client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=simulator.bedrock_url,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        verify=False,  # without certificates: loading them takes longer than a test
        config=Config(**{"retries": {"total_max_attempts": 1}, "read_timeout": 20, **config}),
    )


def then(made: Any, take: Callable[[Any], Any]) -> Any:
    """``take`` of what a sync client gave, or of what an async client is going to give."""
    if not hasattr(made, "__await__"):
        return take(made)

    async def taken() -> Any:
        found = take(await made)
        return await found if hasattr(found, "__await__") else found

    return taken()


def _invoke(model: str, body: Mapping[str, Any]) -> Callable[[Any], Any]:
    given = {"modelId": model, "body": json.dumps(body)}
    return lambda client: then(client.invoke_model(**given), lambda answer: answer["body"].read())


def _invoke_stream(model: str, body: Mapping[str, Any]) -> Callable[[Any], Any]:
    given = {"modelId": model, "body": json.dumps(body)}
    return lambda client: then(client.invoke_model_with_response_stream(**given), lambda answer: answer["body"])


def _surface(name: str, model: str, **given: Any) -> Surface:
    return Surface(
        provider="AWS Bedrock", sdk="botocore", name=name, system="aws.bedrock", model=model, client=client, **given
    )


def _family(
    name: str,
    model: str,
    body: Mapping[str, Any],
    behaviour: Mapping[str, Any] = PLAIN,
    usage: Mapping[str, Any] = PLAIN,
    operation: str = "chat",
    **given: Any,
) -> Surface:
    stream = given.pop("stream", None)
    return _surface(
        f"invoke_model {name}",
        model,
        behaviour=behaviour,
        usage=usage,
        operation=operation,
        call=_invoke(model, body),
        stream=_invoke_stream(model, body) if stream is None else stream,
        **given,
    )


NO_STREAM = Because("the model does not stream")

EMBEDDED = {"input_tokens": 9}

SURFACES = [
    _surface(
        "converse and converse_stream",
        CLAUDE,
        behaviour=COUNTED,
        usage=USAGE,
        call=lambda client: client.converse(modelId=CLAUDE, messages=MESSAGES, inferenceConfig={"maxTokens": 500}),
        stream=lambda client: then(
            client.converse_stream(modelId=CLAUDE, messages=MESSAGES, inferenceConfig={"maxTokens": 500}),
            lambda answer: answer["stream"],
        ),
    ),
    _family("Anthropic", CLAUDE, MESSAGE, COUNTED, USAGE),
    _family(
        "Nova",
        "eu.amazon.nova-pro-v1:0",
        {"messages": MESSAGES, "inferenceConfig": {"maxTokens": 500}},
        {"input_tokens": 120, "cached_tokens": 40, "output_tokens": 30},
        {"input_tokens": 120, "cache_read_tokens": 40, "cache_write_tokens": 0, "output_tokens": 30},
    ),
    # The other families of models are in ../bedrock/test_bedrock_families.py: they differ in their bodies only.
    _family("Llama", "us.meta.llama3-3-70b-instruct-v1:0", {"prompt": "Tell me a story."}, operation="text_completion"),
    _family(
        "embeddings",
        "amazon.titan-embed-text-v2:0",
        {"inputText": "A river."},
        EMBEDDED,
        EMBEDDED,
        "embeddings",
        stream=NO_STREAM,
    ),
    _family(
        "rerank",
        "cohere.rerank-v3-5:0",
        {"query": "A river?", "documents": ["A river.", "A bridge."], "api_version": 2},
        {},
        {"rerank_searches": 1},
        "rerank",
        stream=NO_STREAM,
        without_usage="counted",
    ),
    _family(
        "images",
        "amazon.nova-canvas-v1:0",
        {
            "taskType": "TEXT_IMAGE",
            "textToImageParams": {"text": "A river."},
            "imageGenerationConfig": {"numberOfImages": 2},
        },
        {},
        {"output_images": 2},
        "image_generation",
        stream=NO_STREAM,
        without_usage="counted",
    ),
]
