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

The files of our own simple providers (``ollama.py``, ``voyageai.py``) are such declarations.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import bodies, followed
from tokenbudget_otel.instrumentation.changes import Changes
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer, mark_of
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, positive, text
from tokenbudget_otel.instrumentation.failures import UNBILLED_STATUS, status_of, unsent
from tokenbudget_otel.instrumentation.guard import log_once, logger
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

UsageFields: TypeAlias = Mapping[str, Field] | Callable[[Any], TokenUsage | None]
"""Usage: fields of :class:`~tokenbudget_otel.TokenUsage` and where an answer has them, or a function of the answer."""

CHANGEABLE: Final = ("model", "max_output_tokens")

REQUEST_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    semconv.REQUEST_TEMPERATURE: ("temperature",),
    semconv.REQUEST_TOP_P: ("top_p", "p"),
    semconv.REQUEST_TOP_K: ("top_k", "k"),
    semconv.REQUEST_SEED: ("seed",),
    semconv.REQUEST_FREQUENCY_PENALTY: ("frequency_penalty",),
    semconv.REQUEST_PRESENCE_PENALTY: ("presence_penalty",),
}
"""Span attributes of a request, and the arguments that they are commonly in."""

UNSEEN_MEDIA: Final = MediaTokens(image=(1_000, 50_000), other=(1_000, None))
"""What a part that is not text may come to where nobody says."""

_TARGET: Final = re.compile(r"(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:)?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, init=False, eq=False)
class Method:
    """Methods that call a model, and how a call reads. What is not given is not known, and not made up.

    Args:
        targets: classes and methods, seen from the SDK's top module: ``"Client.chat"``, ``"chat.api:Chat.ask"`` for a
            class in another module; ``"complete"`` or ``"main:complete"`` for a function. What an SDK's version does
            not have is passed over.
        usage: what an answer used.
        operation: ``gen_ai.operation.name``.
        model: the model that is asked for.
        input: arguments that are input of the model; their text sizes the request for budgets.
        max_output_tokens: the request's own limit on the output.
        choices: how many answers are asked for.
        request: makes what the other fields look in out of the arguments, where those are not it themselves (a body
            that is handed on); ``None`` for a call that this declaration does not speak of.
        chunk_usage: what an item of a stream used; as ``usage`` by default. Items later in the stream add to and
            correct what earlier ones said, field by field.
        text: where an item of a stream has text: what a stream is estimated from when it ends before its usage.
        ends: what is true of the item that ends a stream. Without it a stream that was read out is complete.
        response_id, response_model, finish_reason, tier: what an answer (or an item) says about itself.
        cost_usd: the cost in US dollars, where the provider says it in the answer.
        attributes: further span attributes, and where the arguments have them.
        no_output: whether answers have no output tokens (embeddings, reranking).
        media: what an image or another part of the input comes to.
        content: how messages are read, where content is captured.
        changes: what budgets may have changed of a call, and the arguments to change:
            ``{"model": "model", "max_output_tokens": "options.max_tokens"}``. What is on the way is copied.

    A function among these that raises is logged once, and what it would have said is not known.

    Raises:
        TypeError, ValueError: for what cannot be meant, by its name.

    >>> Method("Client.embed", operation="embeddings", usage={"input_tokens": "total_tokens"}).input
    ('messages', 'prompt', 'input', 'tools')
    >>> Method("Client.chat", usage={"prompt_tokens": "usage.prompt"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: Method('Client.chat'): TokenUsage has no count named 'prompt_tokens'; it knows ...
    """

    targets: tuple[str, ...]
    usage: UsageFields
    operation: str
    model: Field
    input: tuple[Field, ...]
    max_output_tokens: Field
    choices: Field
    request: Callable[[dict[str, Any]], Body | None] | None
    chunk_usage: UsageFields
    text: tuple[Field, ...]
    ends: Field
    response_id: Field
    response_model: Field
    finish_reason: Field
    tier: Field
    cost_usd: Field
    attributes: Mapping[str, Field]
    no_output: bool
    media: MediaTokens
    content: Content | None
    changes: Mapping[str, str]

    def __init__(
        self,
        *targets: str,
        usage: UsageFields,
        operation: str = semconv.CHAT,
        model: Field = "model",
        input: Field | tuple[Field, ...] = ("messages", "prompt", "input", "tools"),  # noqa: A002
        max_output_tokens: Field = "max_tokens",
        choices: Field = None,
        request: Callable[[dict[str, Any]], Body | None] | None = None,
        chunk_usage: UsageFields | None = None,
        text: Field | tuple[Field, ...] = (),
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
        changes: Mapping[str, str] | None = None,
    ) -> None:
        if not targets:
            raise ValueError("a Method needs a target, such as 'Client.chat'")
        for target in targets:
            if not isinstance(target, str) or not _TARGET.fullmatch(target):
                raise ValueError(f"{target!r} is no target: those are like 'Client.chat' and 'module:Client.chat'")
        values: dict[str, Any] = {
            "targets": targets,
            "operation": operation,
            "usage": usage,
            "chunk_usage": usage if chunk_usage is None else chunk_usage,
            "input": _several(input),
            "text": _several(text),
            "attributes": dict(attributes or {}),
            "request": request,
            "no_output": no_output,
            "media": media,
            "content": content,
            "changes": dict(changes or {}),
        }
        fields = {
            "model": model,
            "max_output_tokens": max_output_tokens,
            "choices": choices,
            "ends": ends,
            "response_id": response_id,
            "response_model": response_model,
            "finish_reason": finish_reason,
            "tier": tier,
            "cost_usd": cost_usd,
        }
        for name, value in (values | fields).items():
            object.__setattr__(self, name, value)
        self._check(fields)

    def _check(self, fields: dict[str, Any]) -> None:
        if not isinstance(self.operation, str) or not self.operation:
            raise ValueError(f"{self}: operation must be a name, not {self.operation!r}")
        for name in ("usage", "chunk_usage"):
            found = getattr(self, name)
            if isinstance(found, Mapping):
                if wrong := [count for count in found if count not in FIELDS]:
                    raise ValueError(
                        f"{self}: TokenUsage has no count named {wrong[0]!r}; it knows {', '.join(sorted(FIELDS))}"
                    )
                fields = fields | {f"{name}[{count!r}]": path for count, path in found.items()}
            elif not callable(found):
                raise TypeError(f"{self}: {name} must be a mapping of counts or a function, not {found!r}")
        for name in ("input", "text"):
            fields = fields | {f"{name}[{place}]": path for place, path in enumerate(getattr(self, name))}
        fields = fields | {f"attributes[{name!r}]": path for name, path in self.attributes.items()}
        for name, path in fields.items():
            if path is not None and not callable(path) and not (isinstance(path, str) and all(path.split("."))):
                raise TypeError(f"{self}: {name} must be a path such as 'usage.prompt' or a function, not {path!r}")
        for name, path in self.changes.items():
            if name not in CHANGEABLE:
                raise ValueError(f"{self}: changes knows {', '.join(CHANGEABLE)}, not {name!r}")
            if not isinstance(path, str) or not all(path.split(".")):
                raise TypeError(f"{self}: changes[{name!r}] must be a path such as 'options.max_tokens', not {path!r}")
        if self.request is not None and not callable(self.request):
            raise TypeError(f"{self}: request must be a function of the arguments, not {self.request!r}")
        for name, kind in (("media", MediaTokens), ("content", Content)):
            if (value := getattr(self, name)) is not None and not isinstance(value, kind):
                raise TypeError(f"{self}: {name} must be a {kind.__name__}, not {value!r}")

    def __str__(self) -> str:
        return f"Method({', '.join(map(repr, self.targets))})"

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
            changes=self._changes(),
        )

    def _changes(self) -> Changes | None:
        if not self.changes:
            return None
        paths = {name: tuple(path.split(".")) for name, path in self.changes.items()}
        limit = paths.get("max_output_tokens")
        return Changes(paths.get("model"), () if limit is None else (limit,))

    def found(self, source: Any, field: Field) -> Any:
        """What is found at ``field``; nothing where a function of the declaration raises."""
        try:
            return find(source, field)
        except Exception as error:
            log_once(f"read what {self} declares", error)
            return None

    def body(self, arguments: dict[str, Any]) -> Body | None:
        """What the declaration reads the request from; ``None`` for a call that it does not speak of."""
        if self.request is None:
            return arguments
        try:
            body = self.request(arguments)
        except Exception as error:
            log_once(f"read what {self} declares", error)
            return arguments
        return body if body is None or isinstance(body, Mapping) else arguments

    def _size(self, body: Body, _options: Any) -> Size:
        extent = measure(*(self.found(body, path) for path in self.input))
        most, choices = positive(self.found(body, self.max_output_tokens)), positive(self.found(body, self.choices))
        return Size(
            extent.likely(self.media),
            extent.bound(self.media),
            max_output_tokens=most,
            choices=choices or 1,
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
        if (most := positive(self.found(body, self.max_output_tokens))) is not None:
            attributes[semconv.REQUEST_MAX_TOKENS] = most
        if body.get("stream") is True:
            attributes[semconv.REQUEST_STREAM] = True
        for name, path in self.attributes.items():
            if isinstance(value := self.found(body, path), str | int | float):
                attributes[name] = value
        return attributes

    def read(self, answer: Any, usage: UsageFields) -> ResponseFacts:
        """What an answer, or an item of a stream, says."""
        reason = self.found(answer, self.finish_reason)
        cost = self.found(answer, self.cost_usd)
        known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < math.inf
        return ResponseFacts(
            id=text(self.found(answer, self.response_id)),
            model=text(self.found(answer, self.response_model)),
            finish_reasons=(reason,) if isinstance(reason, str) and reason else (),
            usage=self._usage(answer, usage),
            tier=text(self.found(answer, self.tier)),
            reported_nano_usd=to_nano(cost) if known else None,
        )

    def _usage(self, answer: Any, fields: UsageFields) -> TokenUsage | None:
        """The usage in an answer; ``None`` where it says nothing. What cannot be a count is left out."""
        if not isinstance(fields, Mapping):
            usage = self.found(answer, fields)
            return usage if isinstance(usage, TokenUsage) and usage else None
        found = {name: value for name, path in fields.items() if (value := self.found(answer, path)) is not None}
        return (TokenUsage.reading(found) or None) if found else None


class MethodReader:
    """Follows the items of a stream as a :class:`Method` says that they read."""

    def __init__(self, method: Method) -> None:
        self.complete = False
        self.facts = ResponseFacts()
        self._method = method
        self._text = TextCount()

    @property
    def usage_is_final(self) -> bool:
        """Whether the provider has counted the output, and not only what there was of it by then."""
        method, usage = self._method, self.facts.usage
        counted = usage is not None and (method.no_output or usage.output_tokens is not None)
        return counted and (self.complete or method.ends is None)

    def item(self, item: Any) -> bool:
        """Take an item; all of them are the program's to see."""
        method, facts = self._method, self.facts
        said = method.read(item, method.chunk_usage)
        facts.id, facts.model, facts.tier = said.id or facts.id, said.model or facts.model, said.tier or facts.tier
        facts.finish_reasons = said.finish_reasons or facts.finish_reasons
        if said.reported_nano_usd is not None:
            facts.reported_nano_usd = said.reported_nano_usd
        if said.usage is not None:
            counts = {} if facts.usage is None else facts.usage.counts()
            facts.usage = TokenUsage.reading(counts | said.usage.counts())
        for path in method.text:
            self._text.add(method.found(item, path))
        if method.ends is not None:
            self.complete = self.complete or bool(method.found(item, method.ends))
        else:
            self.complete = self.usage_is_final
        return False

    def read_out(self) -> None:
        """There are no more items: where none of them is known to be the last, that is the end."""
        self.complete = self.complete or self._method.ends is None

    def text_tokens(self) -> int:
        """What the text so far comes to."""
        return self._text.tokens


def find(source: Any, path: Field) -> Any:
    """What is found at ``path``, and ``None`` where there is nothing.

    >>> find({"choices": [{"text": "Hello"}]}, "choices.0.text")
    'Hello'
    >>> find({"choices": []}, "choices.0.text") is None
    True
    """
    if path is None:
        return None
    if callable(path):
        return path(source)
    for name in path.split("."):
        if source is None:
            return None
        if type(source) is dict:
            source = source.get(name)
        elif isinstance(source, list | tuple) and name.isdigit():
            source = source[int(name)] if int(name) < len(source) else None
        else:
            source = get(source, name)
    return source


def _several(fields: Any) -> tuple[Field, ...]:
    """One field or several."""
    return tuple(fields) if isinstance(fields, tuple | list) else () if fields is None else (fields,)


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
        url: where an object with the methods has the URL that it talks to, or the arguments of a function.
        provider_at: who the provider is, given the URL and the arguments; ``name`` by default, or whoever is known to
            answer at the URL (:func:`tokenbudget_otel.instrument`, ``hosts``).
        free_at: whether a call costs nothing, given the URL and the arguments: models on the program's own machines.
        unbilled: what of an error proves that a failed call was not billed. Connections that were never made and HTTP
            statuses that providers do not bill are known; all else is charged by its input, as an estimate.
        covers: whether calls that other SDKs make on behalf of a method belong to it (libraries over SDKs).
        api_key: where an object with the methods has its key, or the arguments of a function: for budgets
            ``per="api_key"``. Only a mark of it is kept.

    Raises:
        TypeError, ValueError: for what cannot be meant, by its name.
    """

    name: str
    sdk: str
    methods: tuple[Method, ...]
    versions: str = ""
    distribution: str | None = None
    url: Field = None
    provider_at: Callable[[str, Body], str] | None = None
    free_at: Callable[[str, Body], bool] | None = None
    unbilled: Callable[[BaseException], bool] | None = None
    covers: bool = True
    api_key: Field = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a Provider needs a name, not {self.name!r}")
        if not isinstance(self.sdk, str) or not _MODULE.fullmatch(self.sdk):
            raise ValueError(f"Provider {self.name!r}: sdk must be the name of a module, not {self.sdk!r}")
        methods = (self.methods,) if isinstance(self.methods, Method) else tuple(self.methods)
        if wrong := [method for method in methods if not isinstance(method, Method)]:
            raise TypeError(f"Provider {self.name!r}: {wrong[0]!r} is not a Method")
        if not methods:
            raise ValueError(f"Provider {self.name!r} needs a Method")
        object.__setattr__(self, "methods", methods)
        try:
            SpecifierSet(self.versions)
        except (InvalidSpecifier, TypeError, AttributeError):
            raise ValueError(
                f"Provider {self.name!r}: versions must be a requirement such as '>=1,<3', not {self.versions!r}"
            ) from None
        for field_name in ("url", "api_key"):
            value = getattr(self, field_name)
            if value is not None and not isinstance(value, str) and not callable(value):
                raise TypeError(f"Provider {self.name!r}: {field_name} must be a path or a function, not {value!r}")
        for field_name in ("provider_at", "free_at", "unbilled"):
            value = getattr(self, field_name)
            if value is not None and not callable(value):
                raise TypeError(f"Provider {self.name!r}: {field_name} must be a function, not {value!r}")

    def instrumentor(self) -> type[ProviderInstrumentor]:
        """A class of its own, as OpenTelemetry wants it: for an entry point, or to call ``instrument()`` on."""
        name = f"{self.sdk.rpartition('.')[2].title().replace('_', '')}Instrumentor"
        doc = f"Meters the calls of {self.sdk}."
        return type(name, (ProviderInstrumentor,), {"declared": self, "__module__": __name__, "__doc__": doc})


@dataclass(frozen=True, slots=True)
class _Target:
    """An attribute to hook, and the methods whose calls may go through it."""

    owner: Any
    name: str
    methods: tuple[tuple[Method, Endpoint], ...]


class _ClassMethod(classmethod):  # type: ignore[type-arg]
    """A class method that can be referred to weakly, as whatever a door puts somewhere."""


class _StaticMethod(staticmethod):  # type: ignore[type-arg]
    """The same for a static method."""


class MethodDoor(Door):
    """Stands before the methods that a :class:`Provider` declares."""

    def __init__(self, telemetry: Telemetry, meter: Meter, declared: Provider) -> None:
        super().__init__(telemetry, meter)
        self.declared = declared

    def install(self, sdk: Any) -> None:
        """Hook what this version of the SDK has of what is declared; a warning where that is nothing."""
        found = False
        for target in self._targets(sdk):
            found = self._install(target) or found
        if not found:
            logger.warning(
                "tokenbudget-otel found none of the methods that %s declares in %s: its calls are not metered.",
                self.declared.name,
                sdk.__name__,
            )

    def _install(self, target: _Target) -> bool:
        owner, name = target.owner, target.name
        original = inspect.getattr_static(owner, name)
        replacement: Any
        if isinstance(original, classmethod):
            replacement = _ClassMethod(self._hook(target, original.__func__))
        elif isinstance(original, staticmethod):
            replacement = _StaticMethod(self.one(target, original.__func__).hooked_function(original.__func__))
        elif not callable(original):
            logger.warning("tokenbudget-otel cannot meter %s.%s: it is not a method.", owner.__name__, name)
            return False
        elif isinstance(owner, type):
            replacement = self._hook(target, original)
        else:
            replacement = self.one(target, original).hooked_function(original)
        self.put(owner, name, replacement)
        return True

    def wrap(self, client: Any) -> None:
        """Hook the methods of one client, and of the parts that it is made of (``client.chat.completions``)."""
        parts = list(_parts(client, self.declared.sdk.partition(".")[0]))
        found = False
        for target in self._targets(importlib.import_module(self.declared.sdk)):
            for part in parts:
                if isinstance(target.owner, type) and isinstance(part, target.owner):
                    original = inspect.getattr_static(type(part), target.name)
                    if callable(original) and not isinstance(original, classmethod | staticmethod):
                        self.put(part, target.name, functools.partial(self._hook(target, original), part))
                        found = True
        if not found:
            raise TypeError(f"{type(client)!r} has none of the methods of {self.declared.name}")

    def _hook(self, target: _Target, original: Callable[..., Any]) -> Callable[..., Any]:
        return self.one(target, original).hooked(original)

    def one(self, target: _Target, original: Callable[..., Any]) -> OneMethod:
        """The door before one method."""
        return OneMethod(self, target, original)

    def _targets(self, sdk: Any) -> list[_Target]:
        """What there is of what is declared. Classes that inherit a method from one base are hooked there, once."""
        found: dict[tuple[int, str], tuple[Any, dict[Method, Endpoint]]] = {}
        for method in self.declared.methods:
            endpoint = method.endpoint()
            for path in method.targets:
                owner, name = _owner(sdk, path)
                if owner is not None:
                    found.setdefault((id(owner), name), (owner, {}))[1][method] = endpoint
        return [_Target(owner, name, tuple(methods.items())) for (_, name), (owner, methods) in found.items()]

    def peer(self, client: Any, body: Body) -> Peer:
        """Who ``client`` talks to; of a function, which has none, the arguments may say it."""
        declared = self.declared
        url = str(self._told(find, body if client is None else client, declared.url) or "")
        try:
            parts = urlsplit(url if "://" in url else f"//{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        name = self._told(declared.provider_at, url, body) if declared.provider_at is not None else None
        free = bool(self._told(declared.free_at, url, body)) if declared.free_at is not None else False
        key = self._told(find, body if client is None else client, declared.api_key)
        return Peer(
            text(name) or (provider_of(url, declared.name) if url else declared.name), host, port, free, mark_of(key)
        )

    def _told(self, ask: Callable[..., Any], *args: Any) -> Any:
        """What a function of the declaration says; nothing where it raises."""
        try:
            return ask(*args)
        except Exception as error:
            log_once(f"read what {self.declared.name} declares", error)
            return None

    def unbilled(self, error: BaseException) -> bool:
        """Whether ``error`` proves that the provider did not do the work."""
        status = status_of(error)
        if status is not None and status in UNBILLED_STATUS:
            return True
        if status is None and unsent(error):
            return True
        return self.declared.unbilled is not None and bool(self._told(self.declared.unbilled, error))


class OneMethod(Door):
    """The part of a :class:`MethodDoor` that stands before one method, and knows its arguments."""

    def __init__(self, parent: MethodDoor, target: _Target, original: Callable[..., Any]) -> None:
        super().__init__(parent.telemetry, parent.meter)
        self._parent = parent
        self._target = target
        try:
            self._signature: inspect.Signature | None = inspect.signature(original)
        except (TypeError, ValueError):  # written in C
            self._signature = None

    @property
    def is_open(self) -> bool:
        """Whether the door still meters."""
        return self._parent.is_open

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        parent = self._parent
        if not parent.is_open or part_of_another(parent.declared):
            return None
        arguments = self._arguments(client, args, kwargs)
        if arguments is None:
            return None
        for method, endpoint in self._target.methods:
            fields = dict(arguments)
            body = method.body(arguments)
            if body is not None:
                model = text(method.found(body, method.model)) or ""
                covers = parent.declared.covers
                peer = parent.peer(client, body)
                opened = self.admit(
                    peer, endpoint, body, model=model, covers=covers, key=parent.declared, fields=fields
                )
                if not self._takes(endpoint.changes):
                    opened.call.request.changes = frozenset()
                return opened
        return None

    def _takes(self, changes: Changes | None) -> bool:
        """Whether the method has the arguments that are to be changed."""
        if changes is None or self._signature is None:
            return True
        parameters = self._signature.parameters.values()
        names = {parameter.name for parameter in parameters}
        wanted = {path[0] for path in (*changes.limits, *((changes.model,) if changes.model else ()))}
        return wanted <= names or any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)

    def revised(
        self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        fields, signature = opened.fields, self._signature
        method = next(method for method, endpoint in self._target.methods if endpoint is opened.endpoint)
        opened.body = method.body(dict(fields)) or opened.body
        anew = {path[0]: fields[path[0]] for path in opened.edits or ()}
        if signature is None:
            return args, {**kwargs, **anew}
        before = () if client is None else (client,)
        bound = signature.bind(*before, *args, **kwargs)
        for name, value in anew.items():
            if name in signature.parameters:
                bound.arguments[name] = value
            else:
                rest = next(n for n, p in signature.parameters.items() if p.kind is inspect.Parameter.VAR_KEYWORD)
                bound.arguments[rest] = {**bound.arguments.get(rest, {}), name: value}
        return bound.args[len(before) :], bound.kwargs

    def _arguments(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments by name; those that go into ``**kwargs`` too, and those that were left to their defaults."""
        signature = self._signature
        if signature is None:
            return dict(kwargs)
        try:
            bound = signature.bind(*(() if client is None else (client,)), *args, **kwargs)
        except TypeError:
            return None  # the method says so itself
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for place, (name, value) in enumerate(bound.arguments.items()):
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                arguments |= value
            elif place or client is None:
                arguments[name] = value
        return arguments

    def unbilled(self, error: BaseException) -> bool:
        """As the provider's declaration says."""
        return self._parent.unbilled(error)

    def returned(self, opened: Opened, result: Any) -> Any:
        """Read the answer, follow it, or wait for it where an ordinary method gives something to be awaited."""
        if inspect.iscoroutine(result):
            assert opened.endpoint.items is not None
            reader = opened.endpoint.items(opened.body, opened.peer.provider)
            watcher = followed.ItemWatcher(self, opened, reader)
            watcher.takes(result)
            bodies.remember(watcher)
            return followed.noticed(self._awaited(opened, result, watcher), watcher)
        if isinstance(result, asyncio.Future):
            result.add_done_callback(functools.partial(self._done, opened))
            return result
        return super().returned(opened, result)

    async def _awaited(self, opened: Opened, result: Any, watcher: followed.ItemWatcher) -> Any:
        token = watcher.enter()
        try:
            answer = await result
        except BaseException as error:
            watcher.done = True
            self.failed(opened, error)
            raise
        finally:
            watcher.leave(token)
        watcher.done = True
        return self.returned(opened, answer)

    def _done(self, opened: Opened, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self.failed(opened, asyncio.CancelledError())
        elif (error := future.exception()) is not None:
            self.failed(opened, error)
        else:
            super().returned(opened, future.result())


def _owner(sdk: Any, path: str) -> tuple[Any, str]:
    """The class or module to hook, and the name of the method; ``None`` where this version does not have it.

    A class of the SDK that has the method is hooked itself, and its subclasses with it. What it inherits from somebody
    else's class is put on it, so that theirs stays as it is.
    """
    module, _, where = path.rpartition(":")
    *classes, name = where.split(".")
    try:
        owner = importlib.import_module(f"{sdk.__name__}.{module}") if module else sdk
        for part in classes:
            owner = getattr(owner, part)
    except (ImportError, AttributeError):
        return None, name
    if not isinstance(owner, type):
        return (owner if name in vars(owner) else None), name
    root = sdk.__name__.partition(".")[0]
    for base in owner.__mro__:
        if name in vars(base):
            return (base if base.__module__.partition(".")[0] == root else owner), name
    return None, name


def _parts(client: Any, root: str, depth: int = 3) -> Iterator[Any]:
    """A client and what it consists of, as far as that is of its SDK."""
    yield client
    if depth:
        for part in vars(client).values() if hasattr(client, "__dict__") else ():
            if part is not client and type(part).__module__.partition(".")[0] == root:
                yield from _parts(part, root, depth - 1)


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
