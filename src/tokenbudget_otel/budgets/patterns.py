"""Patterns: how the values of a call are compared with what a budget was declared for, and what is cheaper."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Final

_FOLDED: Final = ("model", "provider", "operation")
"""Facts of a call in which upper and lower case do not differ."""


def is_pattern(text: str) -> bool:
    """Whether a text stands for more than itself."""
    return any(sign in text for sign in "*?[")


def test_of(name: str, pattern: str) -> Callable[[str], object]:
    """A test of one value: equal, or of a pattern. A call without the value does not even match ``"*"``.

    >>> bool(test_of("model", "GPT-5*")("gpt-5-mini")), bool(test_of("tenant", "*")(""))
    (True, False)
    """
    fold = name in _FOLDED
    if not is_pattern(pattern):
        if not fold:
            return pattern.__eq__
        folded = pattern.casefold()
        return lambda value: value == pattern or value.casefold() == folded
    matches = re.compile(fnmatch.translate(pattern), re.IGNORECASE if fold else 0).match
    return lambda value: value and matches(value)


class Cheaper:
    """Which model takes the place of which: the one named for it exactly, otherwise that of the first pattern.

    A pattern that fits the cheaper model as well leaves that one alone.

    >>> cheaper = Cheaper({"gpt-5*": "gpt-4.1-nano", "gpt-5": "gpt-5-mini"})
    >>> cheaper.than("gpt-5"), cheaper.than("gpt-5-mini"), cheaper.than("o3")
    ('gpt-5-mini', 'gpt-4.1-nano', None)
    """

    __slots__ = ("_exact", "_patterns")

    def __init__(self, models: Mapping[str, str]) -> None:
        self._exact = {name.casefold(): other for name, other in models.items() if not is_pattern(name)}
        self._patterns = [(test_of("model", name), other) for name, other in models.items() if is_pattern(name)]

    def than(self, model: str) -> str | None:
        """The model that takes the place of this one, if any."""
        found = self._exact.get(model.casefold())
        if found is None:
            same = model.casefold()
            found = next((other for test, other in self._patterns if test(model) and other.casefold() != same), None)
        return found


def checked_cheaper(models: object) -> dict[str, str]:
    """A map of models to cheaper ones, or an error that says what is wrong with it.

    >>> checked_cheaper({"gpt-5": "gpt-5-mini", "gpt-5-mini": "gpt-5"})
    Traceback (most recent call last):
    ...
    ValueError: degrade goes in a circle: gpt-5-mini -> gpt-5 -> gpt-5-mini. Name only the dearer models, and for each \
a cheaper one
    """
    if not isinstance(models, Mapping) or not models:
        raise ValueError(f"degrade must be a mapping such as {{'gpt-5': 'gpt-5-mini'}}, not {models!r}")
    for name in (*models, *models.values()):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"degrade maps names of models to names of models, not {name!r}")
    for other in models.values():
        if is_pattern(other):
            raise ValueError(f"degrade: {other!r} is a pattern: name the one model to take instead")
    cheaper = Cheaper(models)
    for start in models.values():
        way = [start]
        while (following := cheaper.than(way[-1])) is not None:
            way.append(following)
            if following in way[:-1]:
                raise ValueError(
                    f"degrade goes in a circle: {' -> '.join(way)}. Name only the dearer models, and for each a "
                    "cheaper one"
                )
    return dict(models)
