"""Forms with files, as the SDKs upload audio and images."""

from __future__ import annotations

import re
from typing import Any, NamedTuple


class Upload(NamedTuple):
    """A file of a form."""

    filename: str
    content: bytes


_NAME = re.compile(r'name="([^"]*)"')
_FILENAME = re.compile(r'filename="([^"]*)"')


def read_form(content_type: str, body: bytes) -> dict[str, Any]:
    """The fields of a ``multipart/form-data`` body; of a name that comes several times, all values.

    Example:
        >>> body = b'--x\\r\\nContent-Disposition: form-data; name="model"\\r\\n\\r\\nwhisper-1\\r\\n--x--\\r\\n'
        >>> read_form("multipart/form-data; boundary=x", body)
        {'model': 'whisper-1'}
    """
    boundary = content_type.partition("boundary=")[2].partition(";")[0].strip('" ').encode()
    if not boundary:
        return {}
    fields: dict[str, Any] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        head, separator, content = part.partition(b"\r\n\r\n")
        lines = head.decode("utf-8", "replace")
        name = _NAME.search(lines)
        if not separator or name is None:
            continue
        filename = _FILENAME.search(lines)
        value = Upload(filename[1], content) if filename else content.decode("utf-8", "replace")
        key = name[1].removesuffix("[]")
        if key in fields:
            earlier = fields[key]
            fields[key] = [*earlier, value] if isinstance(earlier, list) else [earlier, value]
        else:
            fields[key] = value
    return fields
