"""JSON in an attribute, laid out as attributes.

>>> unfold("usage", '{"input": 10, "details": {"cached": 4, "by": [1, 2]}}')
{'usage.input': 10, 'usage.details.cached': 4}
>>> unfold("usage", "{'input': 10, 'cached': None}")
{'usage.input': 10}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

MAX_FOLDED_LENGTH: Final = 250_000
"""JSON longer than this is not looked into: it is read while the span ends. Parameters of a request may come with all
their tools."""

MAX_DEPTH: Final = 4
"""Levels that are laid out."""

_PYTHON: Final = re.compile(r"'|\b(?:None|True|False)\b")
_JSON: Final = {"'": '"', "None": "null", "True": "true", "False": "false"}


def unfold(attribute: str, value: Any) -> dict[str, Any]:
    """What is in ``value``, by dotted names; what is in lists is left out.

    Some emitters write ``str()`` of a dictionary. Of those only such with plain names and numbers are understood,
    which is what usage is: nothing is evaluated.

    Raises:
        ValueError: for what is neither, or too long.
        RecursionError: for what is nested too deeply.
    """
    import json  # only here: most programs never come to it

    if not isinstance(value, str) or len(value) > MAX_FOLDED_LENGTH:
        raise ValueError(f"{attribute} is no JSON text of a usable length")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = json.loads(_PYTHON.sub(lambda found: _JSON[found[0]], value))
    if not isinstance(parsed, dict):
        raise ValueError(f"{attribute} holds no object")
    return dict(_leaves(attribute, parsed, MAX_DEPTH))


def _leaves(prefix: str, node: Mapping[str, Any], depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict):
            if depth > 1:
                yield from _leaves(f"{prefix}.{name}", value, depth - 1)
        elif value is not None and not isinstance(value, list):
            yield f"{prefix}.{name}", value
