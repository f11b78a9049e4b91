"""What answers and requests come as: typed objects of the SDKs, dictionaries, other mappings and objects, and mixtures,
with damage in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MappingProxyType, SimpleNamespace
from typing import Any

import anthropic
import openai
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.completion_usage import CompletionUsage, PromptTokensDetails
from openai.types.responses import Response


class WithProperty(openai.BaseModel):
    """A model whose class has something where others have a field."""

    id: str = "own"

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": 3, "input_tokens": 4}


class LooksElsewhere(openai.BaseModel):
    """A model with a way of its own to find what it has not."""

    def __getattr__(self, name: str) -> Any:
        if name == "completion_tokens":
            return 17
        raise AttributeError(name)


class Plain:
    """An object that is no model."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)


class Dict(dict[str, Any]):
    pass


def bare(_fields: dict[str, Any]) -> Any:
    """A model that was made without its fields."""
    return CompletionUsage.__new__(CompletionUsage)


def _constructed(kind: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda fields: kind.construct(None, **fields)


SHAPES: tuple[Callable[[dict[str, Any]], Any], ...] = (
    dict, dict, Dict, MappingProxyType, Plain, lambda fields: SimpleNamespace(**fields), bare,
    *map(
        _constructed,
        (
            CompletionUsage, PromptTokensDetails, ChatCompletion, Response, openai.BaseModel, WithProperty,
            LooksElsewhere, anthropic.types.Message, anthropic.types.Usage,
        ),
    ),
)  # fmt: skip

SCALARS = st.one_of(
    st.none(),
    st.integers(0, 3_000),
    st.integers(-3, 2**60),
    st.booleans(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(("stop", "compaction", "server_tool_use", "code_execution", "fast", "1h", "json_schema", "image")),
)


COUNTS = st.one_of(*[st.integers(0, 500)] * 3, SCALARS)
"""Mostly counts."""

ANYTHING = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from("abc"), SCALARS, max_size=2)
)


def values(names: Iterable[str]) -> st.SearchStrategy[Any]:
    """Anything that may stand somewhere, of objects whose fields have these names."""
    keys = st.sampled_from(sorted(names))
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), _in_shape(st.dictionaries(keys, inner, max_size=6), st.sampled_from(SHAPES))
        ),
        max_leaves=12,
    )


def having(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of any shape with some of these fields, or something else in their place."""
    return st.one_of(*[_in_shape(_some_of(fields), st.sampled_from(SHAPES))] * 5, ANYTHING)


def plainly(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Dictionaries with some of these fields."""
    return _some_of(fields)


def counting(*names: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of any shape with some counts of these names, and further fields."""
    return having(**dict.fromkeys(names, COUNTS), **fields)


def _some_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def _in_shape(fields: st.SearchStrategy[dict[str, Any]], shapes: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda found, shape: shape(found), fields, shapes)
