"""What a program takes out of its content before any of it is recorded.

    def redact(text: str, place: Place) -> str | None:
        if place.part == "tool_call_response":
            return None  # drop it
        return NUMBERS.sub("[number]", text)

    tb.instrument(capture_content="span", redact=redact)

Without code it is named: ``TOKENBUDGET_REDACT="package.module:function"``. The hook is asked of every text that would
be recorded, once for each call, before anything is cut to size. Content about which it has not spoken, because it
raised, gave something else than text or cannot be found, is not recorded.
"""

from __future__ import annotations

import importlib
import inspect
import json
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tokenbudget_otel.instrumentation.content_parts import sound
from tokenbudget_otel.instrumentation.guard import tell_once

REDACT: Final = "TOKENBUDGET_REDACT"

MOST_DEPTH: Final = 100
"""How deep what a tool was given or gave is looked into."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text stands.

    Attributes:
        attribute: ``gen_ai.input.messages``, ``gen_ai.output.messages``, ``gen_ai.system_instructions`` or
            ``gen_ai.tool.definitions``.
        role: of the message: ``user``, ``assistant``, ``system``, ``tool`` …; ``None`` outside of messages.
        part: what the text is part of: ``text``, ``reasoning``, ``tool_call``, ``tool_call_response``, ``uri``,
            ``file`` …; of a definition its type, ``function``.
        field: the field of that part: ``content``, ``arguments``, ``response``, ``uri``, ``description``,
            ``parameters`` …; ``name`` for the name of who speaks.
        path: inside of ``arguments``, ``response`` and ``parameters``: names and numbers on the way to the text.
        is_key: whether the text is itself a name in there, the last one of ``path``.
        tool: the name of the tool that is called or defined, where it is known.
        provider, model, operation: of the call.
    """

    attribute: str
    role: str | None = None
    part: str | None = None
    field: str | None = None
    path: tuple[str | int, ...] = ()
    is_key: bool = False
    tool: str | None = None
    provider: str = ""
    model: str = ""
    operation: str = ""


Redact: TypeAlias = Callable[[str, Place], str | None]
"""Gives what is to be recorded in place of a text; ``None`` to drop it."""


class NotRedactedError(Exception):
    """The hook did not say what may be recorded. The reason holds nothing of the content."""


class Redaction:
    """A hook, and what is done with what it says.

    Raises:
        TypeError: for a hook that cannot be called, or has to be awaited.

    >>> Redaction(print("")) # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    TypeError: redact must be a function of a text and its place, not None
    """

    def __init__(self, hook: Redact) -> None:
        if not callable(hook):
            raise TypeError(f"redact must be a function of a text and its place, not {hook!r}")
        if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
            raise TypeError(f"redact must not be async, as {hook!r} is: calls end where nothing can be awaited")
        self._hook = hook

    def hook(self) -> Redact:
        """The function to ask."""
        return self._hook

    def __call__(
        self, content: dict[str, list[dict[str, Any]]], call: Mapping[str, str]
    ) -> dict[str, list[dict[str, Any]]]:
        """``content``, attribute by attribute, as the hook wants it recorded. ``call`` is what a place says of it.

        Raises:
            NotRedactedError: where it may not be recorded at all.
        """
        if _asking.get():  # a call that the hook itself makes: nobody speaks for its content
            raise NotRedactedError("it was asked about a call of its own")
        token = _asking.set(True)
        try:
            hook = self.hook()
            return {name: _Walk(hook, name, call).items(items) for name, items in content.items()}
        finally:
            _asking.reset(token)


_asking: ContextVar[bool] = ContextVar("tokenbudget_redacting", default=False)

_AS_THEY_ARE: Final = frozenset(("type", "role", "finish_reason", "id", "modality", "mime_type", "omitted_bytes"))
"""Fields that say what kind of thing something is, and no more."""

_ALL_OF_IT: Final = frozenset(("content", "uri", "file_id"))
"""Fields without which a part says nothing."""

_HAVE_TO_BE: Final = frozenset(("arguments", "response"))
"""Fields that a part has, empty if need be."""

_DROPPED: Final = object()


class _Walk:
    """The way through one attribute: where it has come to, and what is left of what it passed."""

    def __init__(self, hook: Redact, attribute: str, call: Mapping[str, str]) -> None:
        self._hook = hook
        self._attribute = attribute
        self._call = call
        self._role: str | None = None
        self._part: str | None = None
        self._tool: str | None = None
        self._field: str | None = None

    def items(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages, parts of instructions, or definitions of tools."""
        found = (self._message(item) if isinstance(item.get("parts"), list) else self._passed(item) for item in items)
        return [item for item in found if item is not None]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        self._role = message.get("role")
        kept = {name: value for name, value in message.items() if name in _AS_THEY_ARE}
        kept["parts"] = [part for each in message["parts"] if (part := self._passed(each)) is not None]
        self._part, self._tool, self._field = None, None, "name"
        if isinstance(name := message.get("name"), str) and (said := self._text(name, ())):
            kept["name"] = said
        return kept

    def _passed(self, part: dict[str, Any]) -> dict[str, Any] | None:
        """A part or a definition; ``None`` where nothing is left of what it was there for."""
        named = part.get("name")
        self._part, self._tool = part.get("type"), named if isinstance(named, str) else None
        kept: dict[str, Any] = {}
        for name, value in part.items():
            if name in _AS_THEY_ARE or name == "name":  # the name of a tool: the hook knows it from the place
                kept[name] = value
                continue
            self._field = name
            left = self._value(value, ())
            if left is not _DROPPED:
                kept[name] = left
            elif name in _ALL_OF_IT:
                return None
            elif name in _HAVE_TO_BE:
                kept[name] = None
        return kept

    def _value(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, str):
            said = self._text(value, path)
            return _DROPPED if said is None else said
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, dict | list) and len(path) >= MOST_DEPTH:
            raise NotRedactedError(f"something is nested more than {MOST_DEPTH} deep")
        if isinstance(value, dict):
            return self._mapping(value, path)
        if isinstance(value, list):
            found = (self._value(each, (*path, number)) for number, each in enumerate(value))
            return [left for left in found if left is not _DROPPED]
        # A number may say who somebody is as well as a text does.
        written = json.dumps(value)
        said = self._text(written, path)
        return _DROPPED if said is None else value if said == written else said

    def _mapping(self, value: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, each in value.items():
            within = (*path, name)
            said = self._text(name, within, is_key=True)
            if said is not None and (left := self._value(each, within)) is not _DROPPED:
                kept[said] = left
        return kept

    def _text(self, text: str, path: tuple[str | int, ...], *, is_key: bool = False) -> str | None:
        if not text:
            return text
        place = Place(
            self._attribute, self._role, self._part, self._field, path, is_key, self._tool, **self._call
        )  # fmt: skip
        try:
            said = self._hook(text, place)
        except Exception as error:
            # Neither its message nor a traceback: they may show what was not to be seen.
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {where.filename}:{where.lineno}"
            raise NotRedactedError(f"it raised {kind}") from None
        if said is None:
            return None
        if isinstance(said, str):
            return sound(said)
        if inspect.iscoroutine(said):
            said.close()
        raise NotRedactedError(f"it gave a {type(said).__name__}, and not a text or None")


class NamedRedaction(Redaction):
    """A hook that the environment names. It is looked for when it is first needed: programs are instrumented before
    their own modules can be imported."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: Redact | None = None
        self._missing = ""

    def hook(self) -> Redact:
        if self._found is None and not self._missing:
            try:
                self._found = Redaction(find_hook(self._name)).hook()
            except Exception as error:
                self._missing = f"{type(error).__name__}: {error}"
                tell_once(
                    f"{REDACT}={self._name}",
                    "%s is %r, which cannot be used (%s). No content is recorded.",
                    REDACT,
                    self._name,
                    self._missing,
                )
        if self._found is None:
            raise NotRedactedError(f"it cannot be used: {self._missing}")
        return self._found


def redaction_named(name: str) -> Redaction | None:
    """What ``TOKENBUDGET_REDACT`` names; ``None`` where it names nothing."""
    return NamedRedaction(name) if name else None


def find_hook(name: str) -> Any:
    """What stands at ``package.module:function``.

    Raises:
        ValueError: for a name that is not like that.
        ImportError, AttributeError: where there is nothing of that name.

    >>> find_hook("os.path:basename").__name__
    'basename'
    """
    module, _, path = name.partition(":")
    if not module or not path:
        raise ValueError(f"{name!r} is not like 'package.module:function'")
    found: Any = importlib.import_module(module)
    for step in path.split("."):
        found = getattr(found, step)
    return found


def tell_of(reason: NotRedactedError) -> None:
    """Say, once for each reason, that content was not recorded."""
    tell_once(
        f"redact {reason}",
        "tokenbudget-otel: the redaction hook did not say what may be recorded: %s. The content of such calls is not "
        "recorded; the calls themselves are not affected. This is logged once.",
        reason,
    )
