"""Tags: who and what a call is for, carried in OpenTelemetry baggage.

Baggage travels wherever the OpenTelemetry context does: into tasks, into threads that are started
with the context, and with a propagator to other services. So do tags.

Tags of the whole process (:func:`tag_process`) stand below them: no context is without them, and they stay in the
process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal

from opentelemetry import baggage
from opentelemetry.context import Context, get_current

from tokenbudget_otel.scopes import ContextScope

BAGGAGE_PREFIX: Final = "tokenbudget.tag."
"""Baggage entries whose name starts so are tags: ``tokenbudget.tag.tenant``."""

MAX_VALUE_LENGTH: Final = 256
"""Longest value of a tag, in characters. Baggage is sent with every request of a service."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")

Origin = Literal["configuration", "program", "run"]

_ORIGINS: Final[tuple[Origin, ...]] = ("configuration", "program", "run")
"""Who tags the process: a file and the environment, the program itself, `tokenbudget run`. The last has its way."""

_said: Final[dict[Origin, dict[str, str]]] = {}
_process: dict[str, str] = {}


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


def tag_process(values: Mapping[str, object], origin: Origin = "program") -> None:
    """Tag every call of this process, in all of its threads and tasks, where :class:`tags` does not say otherwise.

    They are not part of the context, and not sent to other services.

    Args:
        values: the tags, in the place of those of the same origin before.
        origin: whose they are. Of one tag, that of the program counts more than that of the configuration, and that of
            `tokenbudget run` most.

    Raises:
        ValueError: for a name or value that cannot be carried (see :func:`checked_tags`). Nothing is changed then.

    >>> tag_process({"team": "search"})
    >>> with tags(tenant="acme"):
    ...     current_tags()
    {'team': 'search', 'tenant': 'acme'}
    >>> tag_process({})
    """
    global _process
    _said[origin] = checked_tags(values)
    _process = {name: value for each in _ORIGINS for name, value in _said.get(each, {}).items()}


def current_tags(ctx: Context | None = None) -> dict[str, str]:
    """The tags in force in ``ctx`` (the current context by default), those of the process among them.

    >>> with tags(tenant="acme"), tags(feature="chat"):
    ...     current_tags()
    {'tenant': 'acme', 'feature': 'chat'}
    """
    global _latest
    entries = _entries(ctx)
    known, process, tags_in_force = _latest
    if entries is known and _process is process:
        return tags_in_force.copy()
    process = _process
    found = process.copy()
    if entries:
        start = len(BAGGAGE_PREFIX)
        for name, value in entries.items():
            if name.startswith(BAGGAGE_PREFIX):
                found[name[start:]] = str(value)
        _latest = entries, process, found.copy()
    return found


def _entries_by_key(ctx: Context | None) -> Mapping[str, object] | None:
    """The baggage itself, which is replaced and never changed: the same object has the same entries."""
    return (get_current() if ctx is None else ctx).get(_BAGGAGE_KEY)  # type: ignore[return-value]


_BAGGAGE_KEY: Final[str] = getattr(baggage, "_BAGGAGE_KEY", "")


def _kept_by_key() -> bool:
    """Whether baggage is kept as we think: as a dict, under that key."""
    marked = baggage.set_baggage("name", "value", Context())
    return type(marked.get(_BAGGAGE_KEY)) is dict and baggage.get_all(marked) == marked.get(_BAGGAGE_KEY)


_entries: Final[Callable[[Context | None], Mapping[str, object] | None]] = (
    _entries_by_key if _kept_by_key() else baggage.get_all
)

_latest: tuple[object, dict[str, str], dict[str, str]] = (object(), {}, {})
"""What was read last: the baggage, the tags of the process, and the tags that they made. Calls come in groups, and all
of a group have the same."""


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
