"""AWS Bedrock through boto3 and aiobotocore: the instrumentor, its operations and its door.

    >>> from tokenbudget_otel.instrumentation.bedrock import BedrockInstrumentor
    >>> BedrockInstrumentor().instrument()
    >>> BedrockInstrumentor().uninstrument()

Metered are the operations of ``bedrock-runtime`` that run a model: InvokeModel, InvokeModelWithResponseStream,
Converse and ConverseStream. Guardrails are billed by units that no answer reports, CountTokens is free, and agents
(``bedrock-agent-runtime``) call their models inside AWS: none of these passes here. Clients of other services pay a
look-up in a dictionary.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import bedrock_bodies, bedrock_content, bedrock_converse, followed
from tokenbudget_otel.instrumentation.bedrock_streams import BodyWatcher, follow_body
from tokenbudget_otel.instrumentation.changes import THINKING, Changes, edited
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer, mark_of
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.failures import UNBILLED_STATUS, unsent
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.instrumentor import SdkInstrumentor
from tokenbudget_otel.instrumentation.nesting import part_of_another, under_way
from tokenbudget_otel.instrumentation.provider import find
from tokenbudget_otel.instrumentation.streams import TextCount
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.usage import TokenUsage

PROVIDER: Final = "aws.bedrock"
SERVICE: Final = "bedrock-runtime"

MODULES: Final = {
    "botocore.client": ("BaseClient", "botocore.endpoint", "Endpoint"),
    "aiobotocore.client": ("AioBaseClient", "aiobotocore.endpoint", "AioEndpoint"),
}
"""The modules that are hooked when they are imported: the class of clients, and the class of what sends and retries."""

REFUSING_EVENTS: Final = frozenset(("throttlingException", "validationException"))
"""Errors inside a stream by which Bedrock says, before anything else, that it did not take the request on."""

_WRITTEN: Final = frozenset((semconv.CHAT, semconv.TEXT_COMPLETION))
REQUEST_ID: Final = "aws.request_id"
REGION: Final = "cloud.region"

CONVERSE_CHANGES: Final = Changes(
    model=None, limits=(("inferenceConfig", "maxTokens"),), thinking=(("additionalModelRequestFields", *THINKING),)
)
"""What can be changed of a request. The model stands beside it, for the door to change."""

CONVERSE: Final = Endpoint(
    semconv.CHAT,
    bedrock_converse.size,
    bedrock_converse.attributes,
    bedrock_converse.read,
    content=bedrock_content.CONVERSE,
    changes=CONVERSE_CHANGES,
)
CONVERSE_STREAM: Final = Endpoint(
    semconv.CHAT,
    bedrock_converse.size,
    bedrock_converse.stream_attributes,
    bedrock_converse.read,
    items=bedrock_converse.ConverseReader,
    content=bedrock_content.CONVERSE,
    changes=CONVERSE_CHANGES,
)


@functools.cache
def invoking(operation: str, shape: Content, *, streamed: bool) -> Endpoint:
    """InvokeModel for one kind of model."""
    return Endpoint(
        operation,
        bedrock_bodies.size,
        bedrock_bodies.stream_attributes if streamed else bedrock_bodies.attributes,
        bedrock_bodies.read,
        items=bedrock_bodies.InvokedReader if streamed else None,
        content=shape if operation in _WRITTEN else None,
        changes=bedrock_bodies.CHANGES if operation in _WRITTEN else Changes(model=None),
    )


Request = tuple[Endpoint, Body, Any, Any]
"""An endpoint, the request's body, and the service tier and latency that it asks for."""


def _converse(params: Body, endpoint: Endpoint) -> Request:
    return endpoint, params, get(params, "serviceTier", "type"), get(params, "performanceConfig", "latency")


def _invoke(params: Body, streamed: bool) -> Request:
    body = bedrock_bodies.parsed(params.get("body")) or {}
    operation = bedrock_bodies.operation_of(str(params.get("modelId")), body)
    endpoint = invoking(operation, bedrock_content.shape_of(body), streamed=streamed)
    return endpoint, body, params.get("serviceTier"), params.get("performanceConfigLatency")


OPERATIONS: Final[Mapping[str, Callable[[Body], Request]]] = {
    "Converse": lambda params: _converse(params, CONVERSE),
    "ConverseStream": lambda params: _converse(params, CONVERSE_STREAM),
    "InvokeModel": lambda params: _invoke(params, False),
    "InvokeModelWithResponseStream": lambda params: _invoke(params, True),
}
"""What is metered, and how each is read."""


class BedrockDoor(Door):
    """Stands before ``_make_api_call``, through which every method of every client goes."""

    provider = PROVIDER

    # --- installing ------------------------------------------------------------------------------------------------

    def install(self, sdk: Any) -> None:
        client, module, endpoint = MODULES[sdk.__name__]
        self.hook(getattr(sdk, client), "_make_api_call")
        owner = getattr(importlib.import_module(module), endpoint)
        self.put(owner, "_needs_retry", _noting_attempts(vars(owner)["_needs_retry"]))

    def wrap(self, client: Any) -> None:
        """Put the door before one ``bedrock-runtime`` client.

        Raises:
            TypeError: for a client of another service, whose calls are not metered.
        """
        service = _service(client)
        if service != SERVICE:
            raise TypeError(f"calls of a {service} client are not metered, only those of {SERVICE}")
        self.hook_client(client, "_make_api_call")
        sender = client._endpoint
        if (retry := getattr(type(sender), "_needs_retry", None)) is not None:
            self.put(sender, "_needs_retry", functools.partial(_noting_attempts(retry), sender))

    # --- one call --------------------------------------------------------------------------------------------------

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        reads = OPERATIONS.get(args[0] if args else kwargs["operation_name"])
        if reads is None or _service(client) != SERVICE:
            return None
        params = args[1] if len(args) > 1 else kwargs["api_params"]
        if part_of_another(params) or (model := text(params.get("modelId"))) is None:
            return None  # without a model botocore sends nothing
        endpoint, body, service_tier, latency = reads(params)
        url = urlsplit(str(client.meta.endpoint_url))
        opened = self.admit(
            Peer(PROVIDER, url.hostname, url.port, api_key=_key_of(client)),
            endpoint,
            body,
            params,
            model=model,
            tier=bedrock_converse.tier_of(service_tier, latency),
            key=params,
        )
        # A prompt that Bedrock keeps has its own model and limit, and a body may be one that only the SDK can read.
        fixed = ":prompt/" in model or not body
        opened.call.request.changes = frozenset() if fixed else opened.call.request.changes | {"model"}
        return opened

    def begun(self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().begun(opened, client, args, kwargs)
        if (region := text(client.meta.region_name)) is not None:
            opened.call.note(REGION, region)

    def revised(
        self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        params = args[1] if len(args) > 1 else kwargs["api_params"]
        made = {**params, "modelId": opened.call.request.model}
        if opened.endpoint in (CONVERSE, CONVERSE_STREAM):
            made = edited(made, opened.edits or {})
        elif opened.edits:
            made["body"] = json.dumps(opened.body)
        opened.key = made
        if len(args) > 1:
            return (args[0], made, *args[2:]), dict(kwargs)
        return args, {**kwargs, "api_params": made}

    def returned(self, opened: Opened, result: Any) -> Any:
        """Read the answer, or follow the body or the stream in it."""
        try:
            if opened.endpoint.items is not None:
                name = "stream" if "stream" in result else "body"
                reader = opened.endpoint.items(opened.body, opened.peer.provider)
                self._say_request_id(result, reader.facts)
                watcher = followed.ItemWatcher(self, opened, reader)
                result[name] = followed.follow(result[name], watcher)
            elif opened.endpoint is CONVERSE:
                facts = self.facts(opened, result)
                self._say_request_id(result, facts)
                self.finish(opened, "completed", facts)
            else:
                self._follow_body(opened, result)
        except Exception as error:
            log_once("read a response", error)
            self._finish_unknown(opened)
        return result

    def _follow_body(self, opened: Opened, result: Any) -> None:
        headers = get(result, "ResponseMetadata", "HTTPHeaders") or {}
        read = functools.partial(self._invoked, opened, result, headers)
        length = str(headers.get("content-length", ""))
        watcher = BodyWatcher(read, functools.partial(self.finish, opened), int(length) if length.isdecimal() else None)
        if not follow_body(result["body"], watcher):
            facts = read(None)
            facts.estimated = facts.usage is None
            self.finish(opened, "completed", facts)

    def _invoked(self, opened: Opened, result: Any, headers: Mapping[str, str], data: Any) -> ResponseFacts:
        """What an answer of InvokeModel says: its body, which may say more, and then Bedrock's headers."""
        facts = ResponseFacts() if data is None else self.facts(opened, data)
        endpoint = opened.endpoint
        if facts.usage is None or not (facts.usage.output_images or facts.usage.rerank_searches):
            by_bedrock = None
            if endpoint.operation in _COUNTED_IN_TOKENS:
                by_bedrock = bedrock_bodies.counted(headers, bedrock_bodies.HEADERS)
            facts.usage = bedrock_bodies.completed(facts.usage, by_bedrock)
        if data is not None and endpoint.operation in _WRITTEN:
            self._estimate_text(opened, facts, data)
        facts.tier = bedrock_converse.tier_of(result.get("serviceTier"), result.get("performanceConfigLatency"))
        self._say_request_id(result, facts)
        return facts

    def _estimate_text(self, opened: Opened, facts: ResponseFacts, data: Any) -> None:
        """Where neither body nor headers count the output: what the text in the body comes to."""
        usage = facts.usage or TokenUsage()
        if usage.output_tokens is not None:
            return
        count = TextCount()
        for path in bedrock_bodies.ANSWER_PATHS:
            count.add(find(data, path))
        tokens = usage.input_tokens
        facts.usage = usage.replace(
            input_tokens=opened.call.request.size().input_tokens if tokens is None else tokens,
            output_tokens=count.tokens,
        )
        facts.estimated = True

    @staticmethod
    def _say_request_id(result: Any, facts: ResponseFacts) -> None:
        """The id by which AWS finds a call in its logs."""
        if (said := text(get(result, "ResponseMetadata", "RequestId"))) is not None:
            facts.attributes[REQUEST_ID] = said

    def failed(self, opened: Opened, error: BaseException) -> bool:
        """An error that comes before anything else of a stream has a code, but no status."""
        if type(error).__name__ == "EventStreamError" and not opened.billed_before:
            if get(error, "response", "Error", "Code") in REFUSING_EVENTS:
                opened.call.finish("failed", ResponseFacts(estimated=True), error, billed=False)
                return True
            opened.billed_before = True
        return super().failed(opened, error)


_COUNTED_IN_TOKENS: Final = _WRITTEN | {semconv.EMBEDDINGS}


def _key_of(client: Any) -> str:
    """What tells the access keys of clients apart. Keys for a while (of a role) come and go, and are not looked at."""
    credentials = get(client, "_request_signer", "_credentials")
    # Those that renew themselves may ask AWS for it when they are looked at.
    if credentials is None or hasattr(credentials, "_refresh_lock") or get(credentials, "token"):
        return ""
    return mark_of(get(credentials, "access_key"))


def _service(client: Any) -> str:
    return str(client.meta.service_model.service_name)


def _noting_attempts(retry: Callable[..., Any]) -> Callable[..., Any]:
    """What decides whether an attempt is followed by another, made to note whether it may have been billed."""
    if inspect.iscoroutinefunction(retry):

        @functools.wraps(retry)
        async def again(
            self: Any, attempts: Any, model: Any, request: Any, response: Any = None, caught_exception: Any = None
        ) -> Any:
            needed = await retry(self, attempts, model, request, response, caught_exception)
            _note(needed, model, response, caught_exception)
            return needed
    else:

        @functools.wraps(retry)
        def again(
            self: Any, attempts: Any, model: Any, request: Any, response: Any = None, caught_exception: Any = None
        ) -> Any:
            needed = retry(self, attempts, model, request, response, caught_exception)
            _note(needed, model, response, caught_exception)
            return needed

    return again


def _note(needed: Any, model: Any, response: Any, error: Any) -> None:
    opened = under_way.get()
    # Fetching credentials is a call of another service, made inside ours.
    if not needed or opened is None or model.service_model.service_name != SERVICE:
        return
    status = get(response[0], "status_code") if response else None
    refused = status in UNBILLED_STATUS if status is not None else unsent(error)
    opened.billed_before = opened.billed_before or not refused


class BedrockInstrumentor(SdkInstrumentor):
    """Meters Bedrock's models, called through ``boto3`` or ``aiobotocore`` (and ``aioboto3``).

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider`` and ``former_names`` (set attributes
    under their former names too).

    >>> BedrockInstrumentor().instrument()
    >>> BedrockInstrumentor().uninstrument()
    """

    sdk = "botocore"
    modules = tuple(MODULES)
    versions = ">=1.34,<2"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return BedrockDoor(telemetry, meter)
