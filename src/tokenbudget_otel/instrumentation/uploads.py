"""What an uploaded file says of itself, read without the program noticing."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

MOST_CHUNKS: Final = 64
"""Chunks of a WAV file that are looked at for the two that matter."""

_STREAMED: Final = (0, 0xFFFFFFFF)
"""Sizes that are written by who does not know how much will follow."""


def sound_seconds(files: Any) -> float | None:
    """Seconds of the sound in an upload, where they can be told: of WAV files, from their header.

    ``files`` is what the SDK sends: bytes, a file that can be sought in, or a path, by itself or after its name. A
    file is left at the position where it was.

    >>> header = b"RIFF" + bytes(4) + b"WAVEfmt " + (16).to_bytes(4, "little")
    >>> header += bytes(8) + (32_000).to_bytes(4, "little") + bytes(4)
    >>> sound_seconds([("file", ("a.wav", header + b"data" + (48_000).to_bytes(4, "little") + bytes(48_000)))])
    1.5
    >>> sound_seconds([("file", ("a.mp3", b"ID3"))]) is None
    True
    """
    for part in _parts(files):
        try:
            seconds = _seconds_of(part)
        except (OSError, ValueError, TypeError, AttributeError):  # a file of its own making: it is the SDK's to read
            seconds = None
        if seconds is not None:
            return seconds
    return None


def _parts(files: Any) -> Iterator[Any]:
    for _, part in files.items() if isinstance(files, Mapping) else files or ():
        yield part[1] if isinstance(part, tuple) and len(part) > 1 else part  # (file name, content, type …)


def _seconds_of(part: Any) -> float | None:
    if isinstance(part, bytes):
        return _wav_seconds(io.BytesIO(part))
    if isinstance(part, os.PathLike):
        with Path(part).open("rb") as opened:
            return _wav_seconds(opened)
    file = part if isinstance(part, io.IOBase) else getattr(part, "file", None)  # what tempfile makes has it inside
    if not isinstance(file, io.IOBase) or not file.seekable():
        return None
    before = file.tell()
    try:
        return _wav_seconds(file)
    finally:
        file.seek(before)


def _wav_seconds(file: Any) -> float | None:
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    rate = 0
    for _ in range(MOST_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        kind, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        start = file.tell()
        if kind == b"fmt ":
            rate = int.from_bytes(file.read(12)[8:], "little")
        elif kind == b"data":
            size = end - start if size in _STREAMED else min(size, end - start)
            return size / rate if rate else None
        file.seek(start + size + size % 2)
    return None
