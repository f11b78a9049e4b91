"""How fields of an object are read, found out once for each class of objects.

SDKs give pydantic models, and a model takes microseconds to say that it has no such field. Most that readers ask for
are not there, as one table reads what many providers send: so fields are looked up where models keep them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, Protocol


class Fields(Protocol):
    """Something that is asked for fields by their name, and has ``None`` for those that are not there."""

    def get(self, name: str, /) -> Any: ...


class Way(Protocol):
    """How objects of a class are read."""

    def get(self, source: Any, name: str, /) -> Any:
        """A field of an object, or ``None``."""

    def fields(self, source: Any, /) -> Fields:
        """All of its fields."""


NOTHING: Final[Mapping[str, Any]] = {}

MAX_CLASSES: Final = 1_000
"""Classes whose ways are known; beyond it all are found anew."""

UNREAD: Final = frozenset(("output_text", "additional_properties"))
"""Properties of models that no reader asks for: of OpenAI's responses, and of Mistral's usage."""

_MISSING: Final = object()

ways: Final[dict[type, Way]] = {}
"""How objects are read, by their class."""

plain_models: Final[set[type]] = set()
"""The classes in ``ways`` that are pydantic models with nothing in the place of fields: what stands in ``__dict__`` of
an object is the field, and what is in neither that nor ``__pydantic_extra__`` is not there."""


class _Mappings:
    def get(self, source: Any, name: str, /) -> Any:
        return source.get(name)

    def fields(self, source: Any, /) -> Fields:
        known: Fields = source
        return known


class _Attributes:
    """The attributes of an object, as fields."""

    __slots__ = ("_source",)

    def __init__(self, source: Any) -> None:
        self._source = source

    def get(self, name: str, /) -> Any:
        return getattr(self._source, name, None)


class _Objects:
    def get(self, source: Any, name: str, /) -> Any:
        return getattr(source, name, None)

    def fields(self, source: Any, /) -> Fields:
        return _Attributes(source)


class _Models:
    """Pydantic models of one class, which keep their fields in ``__dict__`` and what else was sent in
    ``__pydantic_extra__``.

    Args:
        elsewhere: names that the class itself has something for: properties and methods, private attributes.
        plain: whether no reader asks for any of those.
    """

    __slots__ = ("_elsewhere", "plain")

    def __init__(self, elsewhere: frozenset[str], *, plain: bool) -> None:
        self._elsewhere = elsewhere
        self.plain = plain

    def get(self, source: Any, name: str, /) -> Any:
        value = source.__dict__.get(name, _MISSING)
        if value is not _MISSING:
            return value
        if name in self._elsewhere:
            return getattr(source, name, None)
        try:
            extra = source.__pydantic_extra__
        except AttributeError:  # made without its fields
            return None
        return extra.get(name) if extra else None

    def fields(self, source: Any, /) -> Fields:
        if not self.plain:
            return _OneByOne(self, source)
        known: dict[str, Any] = source.__dict__
        try:
            extra = source.__pydantic_extra__
        except AttributeError:
            return known
        return {**extra, **known} if extra else known


class _OneByOne:
    """The fields of a model whose class has something in the place of others."""

    __slots__ = ("_source", "_way")

    def __init__(self, way: _Models, source: Any) -> None:
        self._way = way
        self._source = source

    def get(self, name: str, /) -> Any:
        return self._way.get(self._source, name)


_MAPPINGS: Final = _Mappings()
_OBJECTS: Final = _Objects()


def way_of(source: Any) -> Way:
    """How an object is read; remembered for its class."""
    kind = type(source)
    if source.__class__ is not kind:  # it stands for something else
        return _MAPPINGS if isinstance(source, Mapping) else _OBJECTS
    way: Way = _MAPPINGS if isinstance(source, Mapping) else _models(kind) or _OBJECTS
    if len(ways) >= MAX_CLASSES:
        plain_models.clear()
        ways.clear()
    ways[kind] = way
    if isinstance(way, _Models) and way.plain:
        plain_models.add(kind)
    return way


def _models(kind: type) -> Way | None:
    """How models of a class are read; ``None`` for a class that is none of pydantic's, or has a way of its own."""
    pydantic = sys.modules.get("pydantic.main")
    base = getattr(pydantic, "BaseModel", None)
    if base is None or not issubclass(kind, base) or not hasattr(base, "__pydantic_extra__"):
        return None
    own: Any = kind
    if own.__getattribute__ is not object.__getattribute__ or own.__getattr__ is not base.__getattr__:
        return None
    declared: dict[str, Any] = {}
    for owner in reversed(own.__mro__):
        declared |= vars(owner)
    known = getattr(own, "__pydantic_fields__", None) or getattr(own, "model_fields", None) or {}
    if any(hasattr(type(declared[name]), "__set__") for name in known if name in declared):
        return None  # a property goes before a field of the same name
    elsewhere = frozenset((*declared, *getattr(own, "__private_attributes__", ())))
    # Methods are passed over: to every reader they are as good as nothing.
    made = {name for name in elsewhere.difference(dir(base)) if not callable(declared.get(name))}
    return _Models(elsewhere, plain=all(name.startswith("_") for name in made - UNREAD))
