"""What of a request can be changed so that it fits into a budget, as data; and how it is changed: in copies, never in
what the program handed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tokenbudget_otel.budgets.remedies import Change
from tokenbudget_otel.instrumentation.facts import get, positive

Path = tuple[str, ...]
"""Where a field stands in a request, name by name."""

Fields = Mapping[str, Any]

LEAST_THINKING: Final = 1_024
"""The smallest budget for thinking that Anthropic's models take; it has to be below the limit on the output."""

THINKING: Final = ("thinking", "budget_tokens")


@dataclass(frozen=True, slots=True)
class Changes:
    """What can be changed of the requests of an endpoint, and where it stands in them.

    Attributes:
        model: the model that is asked; ``None`` where it cannot be changed, or only the door knows where it stands.
        limits: limits on the output of one answer. Of several, those that a request sets are lowered.
        unset: where a request that sets none gets one, given the request, the provider and the model; the first of
            ``limits`` by default.
        thinking: budgets for thinking, which have to stay below the limit.
        flat: whether all ``limits`` stand at the top of a request.
    """

    model: Path | None = ("model",)
    limits: tuple[Path, ...] = ()
    unset: Callable[[Fields, str, str], Path | None] | None = None
    thinking: tuple[Path, ...] = ()
    flat: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flat", all(len(path) == 1 for path in self.limits))

    def possible(self, fields: Fields, provider: str, model: str) -> frozenset[str]:
        """What can be changed of this request, as :attr:`tokenbudget_otel.meter.Request.changes` has it.

        >>> sorted(Changes(limits=(("max_tokens",),)).possible({"model": "gpt-5"}, "openai", "gpt-5"))
        ['max_output_tokens', 'model']
        >>> Changes(limits=(("config", "max"),)).possible({"config": object()}, "openai", "gpt-5")
        frozenset()
        """
        path = self.model
        if path is None:
            asked = None
        else:
            asked = fields.get(path[0]) if len(path) == 1 and type(fields) is dict else _at(fields, path)
        renamed = bool(model) and isinstance(asked, str) and asked.endswith(model)
        if not self.limits:
            limited = False
        elif self.flat and type(fields) is dict and self.unset is None:
            limited = True  # set or not, nothing lies on the way
        else:
            limited = self._limited(fields, provider, model)
        return _POSSIBLE[renamed, limited]

    def _limited(self, fields: Fields, provider: str, model: str) -> bool:
        if self.flat and type(fields) is dict:
            for (name,) in self.limits:
                value = fields.get(name)
                if value is not None and ((type(value) is int and value > 0) or positive(value)):
                    return True
        limits = self._limits(fields, provider, model)
        for path in limits:
            if (len(path) > 1 or type(fields) is not dict) and not _reached(fields, path):
                return False
        return bool(limits)

    def least_output(self, fields: Fields) -> int:
        """The lowest limit on its output that this request can have."""
        plain = type(fields) is dict
        for path in self.thinking:
            if plain and fields.get(path[0]) is None:
                continue  # mostly nothing is there
            if positive(_at(fields, path)):
                return LEAST_THINKING + 1
        return 1

    def edits(self, fields: Fields, change: Change, provider: str, model: str) -> dict[Path, Any]:
        """What is to be put where. ``model`` is the one that the program asked for.

        >>> Changes().edits({"model": "models/gemini-2.5-pro"}, Change("gemini-2.5-flash"), "", "gemini-2.5-pro")
        {('model',): 'models/gemini-2.5-flash'}
        """
        edits: dict[Path, Any] = {}
        if change.model is not None and self.model is not None:
            # What stands before the name (a provider, a collection) stays.
            edits[self.model] = get(fields, *self.model).removesuffix(model) + change.model
        if (most := change.max_output_tokens) is not None:
            for path in self._limits(fields, provider, model):
                edits[path] = min(most, positive(get(fields, *path)) or most)
            for path in self.thinking:
                if (positive(get(fields, *path)) or 0) >= most:
                    edits[path] = most - 1
        return edits

    def _limits(self, fields: Fields, provider: str, model: str) -> tuple[Path, ...]:
        found: tuple[Path, ...] = ()
        for path in self.limits:
            if (value := _at(fields, path)) is not None and positive(value):
                found += (path,)
        if found or not self.limits:
            return found
        if self.unset is None:
            return self.limits[:1]
        path_to = self.unset(fields, provider, model)
        return () if path_to is None else (path_to,)


_POSSIBLE: Final = {
    (renamed, limited): frozenset(name for name, can in (("model", renamed), ("max_output_tokens", limited)) if can)
    for renamed in (False, True)
    for limited in (False, True)
}


def _at(fields: Fields, path: Path) -> Any:
    """What stands at a path; mostly at the top, and mostly nothing."""
    if type(fields) is not dict:
        return get(fields, *path)
    value = fields.get(path[0])
    return value if value is None or len(path) == 1 else get(value, *path[1:])


def edited(fields: Fields | None, edits: Mapping[Path, Any]) -> dict[str, Any]:
    """A copy with some fields set anew. What lies on the way to them is copied too, everything else is shared.

    >>> asked = {"config": {"seed": 7}, "contents": []}
    >>> edited(asked, {("config", "max"): 64}), asked
    ({'config': {'seed': 7, 'max': 64}, 'contents': []}, {'config': {'seed': 7}, 'contents': []})
    """
    copy = dict(fields or {})
    for (first, *rest), value in edits.items():
        copy[first] = edited(copy.get(first), {tuple(rest): value}) if rest else value
    return copy


def _reached(fields: Any, path: Path) -> bool:
    """Whether all that lies on the way to a field is a mapping, or is not there yet."""
    for name in path:
        if fields is None:
            return True
        if not isinstance(fields, Mapping):
            return False
        fields = fields.get(name)
    return True
