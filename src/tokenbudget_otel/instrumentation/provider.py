"""Declaring a provider: which methods of its SDK call a model, and how their arguments and answers read.

About twenty lines make an SDK metered, priced and bound by budgets, sync, async and streamed:

    >>> acme = Provider(
    ...     name="acme",
    ...     sdk="acme_llm",
    ...     versions=">=1,<3",
    ...     methods=(
    ...         Method(
    ...             "Client.complete", "AsyncClient.complete",
    ...             input=("prompt",),
    ...             max_output_tokens="max_tokens",
    ...             usage={"input_tokens": "usage.prompt", "output_tokens": "usage.completion"},
    ...             text=("delta",),
    ...         ),
    ...     ),
    ... )
    >>> import tokenbudget_otel as tb
    >>> tb.register_provider(acme)

The files of our own simple providers (``ollama.py``, ``voyage.py``) are such declarations.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.door import Body, Door, Endpoint, Opened, Peer, refusals_only
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.instrumentor import SdkInstrumentor
from tokenbudget_otel.instrumentation.nesting import part_of_another
from tokenbudget_otel.instrumentation.sizing import MediaTokens, measure
from tokenbudget_otel.instrumentation.streams import TextCount
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, Size
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.usage import FIELDS, TokenUsage

Field: TypeAlias = str | Callable[[Any], Any] | None
"""Where something is found: a dotted path through mappings, objects and lists (``choices.0.message``), or a function
of the whole. ``None``: nowhere."""

UsageFields: TypeAlias = Mapping[str, str] | Callable[[Any], TokenUsage | None]
"""Usage: fields of :class:`~tokenbudget_otel.TokenUsage` and where an answer has them, or a function of the answer."""

REQUEST_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    semconv.REQUEST_TEMPERATURE: ("temperature",),
    semconv.REQUEST_TOP_P: ("top_p", "p"),
    semconv.REQUEST_TOP_K: ("top_k", "k"),
    semconv.REQUEST_MAX_TOKENS: ("max_tokens", "max_output_tokens"),
    semconv.REQUEST_SEED: ("seed",),
    semconv.REQUEST_FREQUENCY_PENALTY: ("frequency_penalty",),
    semconv.REQUEST_PRESENCE_PENALTY: ("presence_penalty",),
}
"""Span attributes of a request, and the arguments that they are commonly in."""

UNSEEN_MEDIA: Final = MediaTokens(image=(1_000, 50_000), other=(1_000, None))


@dataclass(frozen=True, init=False)
class Method:
    """Methods that call a model, and how a call reads. What is not given is not known, and not made up.

    Args:
        targets: classes and methods, seen from the SDK's top module: ``"Client.chat"``, ``"chat.api:Chat.ask"`` for a
            class in another module; a function as ``"main:complete"``. What an SDK's version does not have is
            passed over.
        operation: ``gen_ai.operation.name``.
        model: the model that is asked for.
        input: arguments that are input of the model; their text sizes the request for budgets.
        max_output_tokens: the request's own limit on the output.
        choices: how many answers are asked for.
        usage: what an answer used.
        chunk_usage: the same, of an item of a stream; as ``usage`` by default. Items later in the stream add to and
            correct what earlier ones said, field by field.
        text: where an item of a stream has text: what a stream is estimated from when it ends before its usage.
        ends: what is true of the item that ends a stream. Without it a stream that was read out is complete.
        response_id, response_model, finish_reason, tier: what an answer (or an item) says about itself.
        cost_usd: the cost in US dollars, where the answer has it.
        attributes: further span attributes, and where the arguments have them.
        no_output: whether answers have no output tokens (embeddings, reranking).
        media: what an image or another part of the input comes to.
        content: how messages are read, where content is captured.

    >>> Method("Client.embed", operation="embeddings", usage={"input_tokens": "total_tokens"}).input
    ('messages', 'prompt', 'input', 'tools')
    """

    targets: tuple[str, ...]
    operation: str
    model: Field
    input: tuple[str, ...]
    max_output_tokens: Field
    choices: Field
    usage: UsageFields
    chunk_usage: UsageFields
    text: tuple[str, ...]
    ends: Field
    response_id: Field
    response_model: Field
    finish_reason: Field
    tier: Field
    cost_usd: Field
    attributes: Mapping[str, Field] = field(default_factory=dict)
    no_output: bool = False
    media: MediaTokens = UNSEEN_MEDIA
    content: Content | None = None

    def __init__(
        self,
        *targets: str,
        usage: UsageFields,
        operation: str = semconv.CHAT,
        model: Field = "model",
        input: tuple[str, ...] = ("messages", "prompt", "input", "tools"),  # noqa: A002
        max_output_tokens: Field = "max_tokens",
        choices: Field = None,
        chunk_usage: UsageFields | None = None,
        text: tuple[str, ...] = (),
        ends: Field = None,
        response_id: Field = "id",
        response_model: Field = "model",
        finish_reason: Field = "finish_reason",
        tier: Field = None,
        cost_usd: Field = None,
        attributes: Mapping[str, Field] | None = None,
        no_output: bool = False,
        media: MediaTokens = UNSEEN_MEDIA,
        content: Content | None = None,
    ) -> None:
        if not targets:
            raise ValueError("a Method needs a target, such as 'Client.chat'")
        for fields in (usage, chunk_usage):
            if isinstance(fields, Mapping) and (wrong := [name for name in fields if name not in FIELDS]):
                raise ValueError(f"TokenUsage has no count named {wrong[0]!r}; it knows {', '.join(sorted(FIELDS))}")
        for name, value in {
            "targets": targets,
            "operation": operation,
            "model": model,
            "input": input,
            "max_output_tokens": max_output_tokens,
            "choices": choices,
            "usage": usage,
            "chunk_usage": usage if chunk_usage is None else chunk_usage,
            "text": text,
            "ends": ends,
            "response_id": response_id,
            "response_model": response_model,
            "finish_reason": finish_reason,
            "tier": tier,
            "cost_usd": cost_usd,
            "attributes": dict(attributes or {}),
            "no_output": no_output,
            "media": media,
            "content": content,
        }.items():
            object.__setattr__(self, name, value)

    # --- how a call reads --------------------------------------------------------------------------------------

    def endpoint(self) -> Endpoint:
        """What the engine works with."""
        return Endpoint(
            self.operation,
            self._size,
            self._request_attributes,
            lambda answer, _body, _provider: self.read(answer, self.usage),
            items=lambda _body, _provider: MethodReader(self),
            content=self.content,
        )

    def _size(self, body: Body, _options: Any) -> Size:
        extent = measure(*(find(body, path) for path in self.input))
        most, choices = find(body, self.max_output_tokens), find(body, self.choices)
        return Size(
            extent.likely(self.media),
            extent.bound(self.media),
            max_output_tokens=most if isinstance(most, int) and most > 0 else None,
            choices=choices if isinstance(choices, int) and choices > 0 else 1,
            expected_output_tokens=0 if self.no_output else None,
            text_only=not (extent.images or extent.others),
        )

    def _request_attributes(self, body: Body) -> Mapping[str, Any]:
        attributes: dict[str, Any] = {}
        for name, arguments in REQUEST_FIELDS.items():
            for argument in arguments:
                value = body.get(argument)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    attributes[name] = value
        if body.get("stream") is True:
            attributes[semconv.REQUEST_STREAM] = True
        for name, path in self.attributes.items():
            if isinstance(value := find(body, path), str | int | float):
                attributes[name] = value
        return attributes

    def read(self, answer: Any, usage: UsageFields) -> ResponseFacts:
        """What an answer, or an item of a stream, says."""
        reason = find(answer, self.finish_reason)
        cost = find(answer, self.cost_usd)
        return ResponseFacts(
            id=text(find(answer, self.response_id)),
            model=text(find(answer, self.response_model)),
            finish_reasons=(reason,) if isinstance(reason, str) and reason else (),
            usage=read_usage(answer, usage),
            tier=text(find(answer, self.tier)),
            reported_nano_usd=to_nano(cost) if isinstance(cost, int | float) and cost >= 0 else None,
        )


class MethodReader:
    """Follows the items of a stream as a :class:`Method` says that they read."""

    def __init__(self, method: Method) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()
        self._method = method
        self._text = TextCount()

    def item(self, item: Any) -> bool:
        method, facts = self._method, self.facts
        said = method.read(item, method.chunk_usage)
        facts.id, facts.model, facts.tier = said.id or facts.id, said.model or facts.model, said.tier or facts.tier
        facts.finish_reasons = said.finish_reasons or facts.finish_reasons
        if said.reported_nano_usd is not None:
            facts.reported_nano_usd = said.reported_nano_usd
        if said.usage is not None:
            facts.usage = said.usage if facts.usage is None else facts.usage.replace(**said.usage.counts())
            self.usage_is_final = facts.usage.output_tokens is not None
        for path in method.text:
            self._text.add(find(item, path))
        self.complete = self.usage_is_final if method.ends is None else self.complete or bool(find(item, method.ends))
        return False

    def text_tokens(self) -> int:
        return self._text.tokens


def find(source: Any, path: Field) -> Any:
    """What is found at ``path``, and ``None`` where there is nothing.

    >>> find({"choices": [{"text": "Hello"}]}, "choices.0.text")
    'Hello'
    """
    if path is None:
        return None
    if callable(path):
        return path(source)
    for name in path.split("."):
        if source is None:
            return None
        if name.isdigit() and isinstance(source, list | tuple):
            source = source[int(name)] if int(name) < len(source) else None
        else:
            source = get(source, name)
    return source


def read_usage(answer: Any, fields: UsageFields) -> TokenUsage | None:
    """The usage in an answer; ``None`` where it says nothing. What cannot be a count is left out."""
    if callable(fields):
        return fields(answer)
    found = {name: value for name, path in fields.items() if (value := find(answer, path)) is not None}
    return TokenUsage.reading(found) if found else None


# --- the provider ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provider:
    """A provider and its SDK.

    Attributes:
        name: ``gen_ai.provider.name``; also the name under which prices are registered.
        sdk: the module that programs import.
        methods: what is metered.
        versions: the versions of the SDK that are known to work, as a requirement: ``>=1,<3``.
        distribution: the name that the SDK is installed under, where it is not ``sdk``.
        url: where an object with the methods has the URL that it talks to.
        provider_at: who the provider is, given the URL and the arguments; ``name`` by default, or whoever is known to
            answer at the URL (:func:`tokenbudget_otel.instrument`, ``hosts``).
        covers: whether calls that other SDKs make on behalf of a method belong to it (libraries over SDKs).
    """

    name: str
    sdk: str
    methods: tuple[Method, ...]
    versions: str = ""
    distribution: str | None = None
    url: Field = None
    provider_at: Callable[[str, Body], str] | None = None
    covers: bool = True

    def instrumentor(self) -> type[ProviderInstrumentor]:
        """A class of its own, as OpenTelemetry wants it: for an entry point, or to call ``instrument()`` on."""
        name = f"{self.sdk.rpartition('.')[2].title().replace('_', '')}Instrumentor"
        return type(name, (ProviderInstrumentor,), {"declared": self, "__module__": __name__, "__doc__": self.__doc__})


@dataclass(frozen=True, slots=True)
class _Target:
    owner: Any
    name: str
    method: Method
    endpoint: Endpoint


class MethodDoor(Door):
    """Stands before the methods that a :class:`Provider` declares."""

    def __init__(self, telemetry: Telemetry, meter: Meter, declared: Provider) -> None:
        super().__init__(telemetry, meter)
        self.declared = declared

    def install(self, sdk: Any) -> None:
        for target in self._targets(sdk):
            if isinstance(target.owner, type):
                self.put(target.owner, target.name, self._hook(target, vars(target.owner)[target.name]))
            else:
                self._door_for(target, vars(target.owner)[target.name]).hook_function(target.owner, target.name)

    def wrap(self, client: Any) -> None:
        """Hook the methods of one client, and of the parts that it is made of (``client.chat``)."""
        parts = [client, *vars(client).values()] if hasattr(client, "__dict__") else [client]
        targets = list(self._targets(importlib.import_module(self.declared.sdk)))
        found = False
        for target in targets:
            for part in parts:
                if isinstance(target.owner, type) and isinstance(part, target.owner):
                    original = getattr(type(part), target.name)
                    self.put(part, target.name, functools.partial(self._hook(target, original), part))
                    found = True
        if not found:
            raise TypeError(f"{type(client)!r} has none of the methods of {self.declared.name}")

    def _hook(self, target: _Target, original: Callable[..., Any]) -> Callable[..., Any]:
        return self._door_for(target, original).hooked(original)

    def _door_for(self, target: _Target, original: Callable[..., Any]) -> _OneMethod:
        return _OneMethod(self, target, inspect.signature(original))

    def _targets(self, sdk: Any) -> Iterator[_Target]:
        for method in self.declared.methods:
            endpoint = method.endpoint()
            for path in method.targets:
                module, _, where = path.rpartition(":")
                *classes, name = where.split(".")
                try:
                    owner = importlib.import_module(f"{sdk.__name__}.{module}") if module else sdk
                    for part in classes:
                        owner = getattr(owner, part)
                except (ImportError, AttributeError):
                    continue  # not in this version
                owner = _defining(owner, name)
                if owner is not None:
                    yield _Target(owner, name, method, endpoint)

    def peer(self, client: Any, body: Body) -> Peer:
        """Who ``client`` talks to."""
        declared = self.declared
        url = str(find(client, declared.url) or "")
        parts = urlsplit(url)
        if declared.provider_at is not None:
            return Peer(declared.provider_at(url, body), parts.hostname, parts.port)
        return Peer(provider_of(url, declared.name) if url else declared.name, parts.hostname, parts.port)


class _OneMethod(Door):
    """The part of a :class:`MethodDoor` that stands before one method, and knows its arguments."""

    def __init__(self, parent: MethodDoor, target: _Target, signature: inspect.Signature) -> None:
        super().__init__(parent.telemetry, parent.meter)
        self._parent = parent
        self._target = target
        self._signature = signature
        self._hooked = parent._hooked  # what is put up here is taken off with the rest

    @refusals_only
    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        parent, method = self._parent, self._target.method
        if not parent.is_open or part_of_another(method):
            return None
        body = self._arguments(client, args, kwargs)
        if body is None:
            return None
        return self.admit(
            parent.peer(client, body),
            self._target.endpoint,
            body,
            model=text(find(body, method.model)) or "",
            covers=parent.declared.covers,
            key=method,
        )

    def _arguments(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments by name; those that go into ``**kwargs`` too. ``None`` for a call that will not be one."""
        try:
            bound = self._signature.bind(*(() if client is None else (client,)), *args, **kwargs)
        except TypeError:
            return None  # the method says so itself
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                arguments |= value
            else:
                arguments[name] = value
        return arguments


def _defining(owner: Any, name: str) -> Any:
    """The class (or module) that has the method: hooking it there covers its subclasses."""
    if not isinstance(owner, type):
        return owner if name in vars(owner) else None
    return next((base for base in owner.__mro__ if name in vars(base)), None)


class ProviderInstrumentor(SdkInstrumentor):
    """The instrumentor of a declared provider; :meth:`Provider.instrumentor` makes one."""

    declared: Provider

    @property
    def sdk(self) -> str:  # type: ignore[override]
        return self.declared.sdk

    @property
    def versions(self) -> str:  # type: ignore[override]
        return self.declared.versions

    @property
    def distribution(self) -> str | None:  # type: ignore[override]
        return self.declared.distribution

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return MethodDoor(telemetry, meter, self.declared)
