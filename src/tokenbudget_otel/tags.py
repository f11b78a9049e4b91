"""Tags: who and what a call is for, carried in OpenTelemetry baggage.

Baggage travels wherever the OpenTelemetry context does: into tasks, into threads that are started
with the context, and with a propagator to other services. So do tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from opentelemetry import baggage
from opentelemetry.context import Context

from tokenbudget_otel.scopes import ContextScope

BAGGAGE_PREFIX: Final = "tokenbudget.tag."
"""Baggage entries whose name starts so are tags: ``tokenbudget.tag.tenant``."""

MAX_VALUE_LENGTH: Final = 256
"""Longest value of a tag, in characters. Baggage is sent with every request of a service."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")


def checked_tags(values: Mapping[str, object]) -> dict[str, str]:
    """Tags as they are stored: names checked, values made strings.

    Raises:
        ValueError: for a name that is not a plain word, or a value that is empty, too long or has
            control characters such as a newline. The message names the tag.
    """
    tags = {}
    for name, value in values.items():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"tag name {name!r} must be 1 to 64 letters, digits, '_', '.' or '-', and not start with '.' or '-'"
            )
        if not isinstance(value, str | int | float):
            raise ValueError(f"tag {name!r} must be a string, a number or a bool, not {type(value).__name__}")
        text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
        if not text or len(text) > MAX_VALUE_LENGTH:
            raise ValueError(f"tag {name!r} must have 1 to {MAX_VALUE_LENGTH} characters, not {len(text)}")
        if found := _UNPRINTABLE.search(text):
            raise ValueError(f"tag {name!r} must not contain control characters, found {found.group()!r}")
        tags[name] = text
    return tags


def current_tags(ctx: Context | None = None) -> dict[str, str]:
    """The tags in force in ``ctx`` (the current context by default).

    >>> with tags(tenant="acme"), tags(feature="chat"):
    ...     current_tags()
    {'tenant': 'acme', 'feature': 'chat'}
    """
    entries = baggage.get_all(ctx)
    if not entries:
        return {}
    start = len(BAGGAGE_PREFIX)
    return {name[start:]: str(value) for name, value in entries.items() if name.startswith(BAGGAGE_PREFIX)}


class tags(ContextScope[dict[str, str]]):  # noqa: N801 - reads as a keyword: `with tags(...)`
    """Tag every call made inside, as a context manager or a decorator (sync, async, generators).

    Tags nest; where an inner and an outer tag have one name, the inner wins. Values are strings,
    numbers or bools.

    Raises:
        ValueError: at once, for a name or value that cannot be carried (see :func:`checked_tags`).

    >>> with tags(tenant="acme"):
    ...     with tags(tenant="globex", retry=2):
    ...         current_tags()
    {'tenant': 'globex', 'retry': '2'}
    """

    def __init__(self, **values: object) -> None:
        self._tags = checked_tags(values)

    def _open(self, ctx: Context) -> Context:
        for name, value in self._tags.items():
            ctx = baggage.set_baggage(BAGGAGE_PREFIX + name, value, ctx)
        return ctx

    def _value(self) -> dict[str, str]:
        return current_tags()

    def _again(self) -> tags:
        return self
