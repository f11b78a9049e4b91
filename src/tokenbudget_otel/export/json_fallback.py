"""OTLP as protobuf; for servers that do not take that, as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from tokenbudget_otel.export.destination_name import public_url
from tokenbudget_otel.export.otlp_json import otlp_as_json
from tokenbudget_otel.export.wire import JSON, PROTOBUF, Answer

logger: Final = logging.getLogger("tokenbudget_otel.export")

UNSUPPORTED: Final = 415
MALFORMED: Final = 400


class FormWire(Protocol):
    """A wire that sends a body as what it is said to be; :class:`~tokenbudget_otel.export.wire.HttpWire` is one."""

    url: str
    compression: str

    def post(self, body: bytes, content_type: str = PROTOBUF) -> Answer:
        """Send a request."""

    def uncompressed(self) -> FormWire:
        """The same way, without compression."""


class Form(NamedTuple):
    """How a request is written."""

    content_type: str
    compressed: bool


FORMS: Final = (Form(PROTOBUF, True), Form(JSON, True), Form(PROTOBUF, False), Form(JSON, False))
"""All of them, in the order in which a server is asked. It may be the compression that it does not take."""

_ENCODE: Final[dict[str, Callable[[bytes], bytes]]] = {PROTOBUF: bytes, JSON: otlp_as_json}

_taken: dict[str, Form] = {}
"""What servers have taken, by URL, as long as the process lives."""

MAX_TAKEN: Final = 1_000


class JsonFallback:
    """A wire for traces that asks a server in what form it takes them, and remembers.

    A request goes out as protobuf, as OTLP/HTTP prefers it. Where the server answers 415 (or 400, as long as it has not
    taken any form yet), the same request follows as JSON; and, where they were compressed, both without that. The
    form that is taken is used from then on. If none is, the first answer stands.

    Args:
        wire: how requests get there.

    >>> import requests
    >>> from tokenbudget_otel.export import HttpWire
    >>> wire = JsonFallback(HttpWire(requests.Session(), "http://127.0.0.1:8000/v1/traces", compression="gzip"))
    >>> wire.taken is None  # nothing was sent so far
    True
    """

    def __init__(self, wire: FormWire) -> None:
        self._wires = {True: wire}
        if wire.compression != "none":
            self._wires[False] = wire.uncompressed()

    @property
    def taken(self) -> Form | None:
        """The form that the server has taken; ``None`` as long as it has taken none."""
        form = _taken.get(self._wires[True].url)
        return form if form is not None and form.compressed in self._wires else None

    def post(self, body: bytes) -> Answer:
        """Send a request (protobuf, uncompressed) in a form that the server takes.

        Raises:
            OSError: if there was no answer.
        """
        known = self.taken
        forms = [form for form in FORMS if form.compressed in self._wires and form != known]
        first: Answer | None = None
        for form in ([] if known is None else [known]) + forms:
            try:
                written = _ENCODE[form.content_type](body)
            except ValueError:
                continue  # no request of traces, and so none in JSON
            answer = as_meant(self._wires[form.compressed].post(written, form.content_type))
            if 200 <= answer.status < 300:
                self._remember(form, known)
                return answer
            if not _of_form(answer.status, known):
                # A server that is away, or busy, or does not know us, says nothing of the form.
                return answer
            first = first or answer
        assert first is not None  # protobuf is written always
        return first

    def _remember(self, form: Form, known: Form | None) -> None:
        url = self._wires[True].url
        if form != known:
            if known is not None or form != FORMS[0]:
                logger.info(
                    "%s takes OTLP as %s%s",
                    public_url(url),
                    form.content_type,
                    "" if form.compressed else ", uncompressed",
                )
            if url not in _taken and len(_taken) >= MAX_TAKEN:
                _taken.clear()
            _taken[url] = form


def _of_form(status: int, known: Form | None) -> bool:
    """Whether an answer may be about the form of a request. 400 is, of a server that has taken none yet: of others it
    is about what is in this one."""
    return status == UNSUPPORTED or (status == MALFORMED and known is None)


def as_meant(answer: Answer) -> Answer:
    """An answer, with the status that it should have had.

    The former TokenBudget server says 200 to what it cannot read, and keeps nothing of it.

    >>> as_meant(Answer(200, None, b'{"accepted": 0, "error": "invalid request body"}')).status
    400
    """
    if answer.status == 200 and answer.body[:1] == b"{" and b'"error"' in answer.body:
        try:
            said = json.loads(answer.body)
        except ValueError:
            return answer
        if isinstance(said.get("error"), str) and said["error"] and not said.get("accepted"):
            return answer._replace(status=MALFORMED)
    return answer
