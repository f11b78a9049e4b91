"""Answers with something wrong in them: fields that are missing, null, of the wrong type or out of range.

For holding a client against what providers were never meant to send. A seed names the damage, so that two clients can
be given the very same answer.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, Final

from tokenbudget_otel.simulator.bedrock_frames import framed, reframed
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import Frame, dump

_MISSING: Final = object()

ODD: Final[tuple[Any, ...]] = (
    _MISSING, None, True, -5, 10**20, 1.5, "", "odd", [], [1, -1], {}, {"type": 3}, {"odd": "value"},
)  # fmt: skip
"""What takes the place of a value."""

_DATA: Final = re.compile(rb"^data: (\{.*\})\r?$", re.MULTILINE)


def damaged(reply: Reply, seed: int) -> Reply:
    """The reply with one or two things wrong in it, in its body or in the events of its stream.

    Example:
        >>> damaged(Reply(b'{"usage":{"input_tokens":3}}'), 4).body
        b'{"usage":{"input_tokens":null}}'
    """
    dice = random.Random(seed)
    if reply.frames is None:
        return replace(reply, body=_damaged_json(reply.body, dice))
    places = [number for number, frame in enumerate(reply.frames) if _codec(frame.data) is not None]
    frames = list(reply.frames)
    for place in dice.sample(places, min(len(places), dice.choice((1, 1, 2)))):
        codec = _codec(frames[place].data)
        assert codec is not None
        frames[place] = Frame(codec(frames[place].data, dice), frames[place].content)
    return replace(reply, frames=frames)


Codec = Callable[[bytes, random.Random], bytes]


def _codec(data: bytes) -> Codec | None:
    """How an event of a stream is damaged, by its wire format."""
    if framed(data):
        return _damaged_frame
    if _DATA.search(data):
        return _damaged_event
    if data[:1] in (b"{", b"["):
        return _damaged_line
    return None


def _damaged_frame(data: bytes, dice: random.Random) -> bytes:
    return reframed(data, lambda text: _damaged_json(text, dice))


def _damaged_event(data: bytes, dice: random.Random) -> bytes:
    return _DATA.sub(lambda found: b"data: " + _damaged_json(found[1], dice), data)


def _damaged_line(data: bytes, dice: random.Random) -> bytes:
    return _damaged_json(data, dice) + b"\n"


def _damaged_json(text: bytes, dice: random.Random) -> bytes:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    for _ in range(dice.choice((1, 1, 2))):
        places = list(_places(value))
        if places:
            owner, key = dice.choice(places)
            odd = dice.choice(ODD)
            if odd is _MISSING:
                del owner[key]
            else:
                owner[key] = deepcopy(odd)  # the next damage may be done inside it
    return dump(value)


def _places(value: Any) -> Any:
    """Where something could be wrong: every field and every item. Usage, being what is looked for, comes twice."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        if isinstance(key, str) and "usage" in key.lower():
            yield value, key
            yield from _places(item)
        yield from _places(item)
