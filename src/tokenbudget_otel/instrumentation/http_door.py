"""Doors of SDKs that work with httpx: what they do with the HTTP response that carries the answer."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from tokenbudget_otel.instrumentation import aws_frames, bodies
from tokenbudget_otel.instrumentation.changes import Path, edited
from tokenbudget_otel.instrumentation.content import capturing
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Opened
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get
from tokenbudget_otel.instrumentation.failures import UNBILLED_STATUS
from tokenbudget_otel.instrumentation.fields import plain_models
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.streams import JsonWatcher, LinesWatcher, OpaqueWatcher, StreamWatcher, decoder


class HttpDoor(Door):
    """A door that sees the HTTP response: it reads the JSON of one that has been read, and follows the body of one
    that the program has yet to read, below the SDK's own objects."""

    def returned(self, opened: Opened, result: Any) -> Any:
        """Read the response, or follow its body if that is still to come."""
        try:
            response = http_response(result)
            if response is None:
                self.finish(opened, "completed", self.facts(opened, result))
            elif response.status_code >= 400:
                self._answered_with_error(opened, response)
            elif response.is_closed or response.is_stream_consumed:
                self._read_body(opened, response)
            else:
                self._watch(opened, response)
        except Exception as error:
            log_once("read a response", error)
            self._finish_unknown(opened)
        return result

    def _answered_with_error(self, opened: Opened, response: Any) -> None:
        """The SDK is about to raise: it makes its errors above the method that is hooked."""
        opened.call.finish(
            "failed",
            ResponseFacts(estimated=True, error=(str(response.status_code), response.reason_phrase)),
            billed=opened.endpoint.billed and (opened.billed_before or response.status_code not in UNBILLED_STATUS),
        )

    def _read_body(self, opened: Opened, response: Any) -> None:
        kind = _content_type(response)
        if (watcher := self._stream_watcher(opened, kind, None)) is not None:
            shown = watcher.whole(response.content)
            if opened.asked_usage and shown != response.content:
                response._content = shown  # a transport of the program's own has read it already
            return
        if opened.endpoint.lines is not None:
            LinesWatcher(opened.endpoint.lines(opened)).whole(response.content)
            return
        if opened.endpoint.binary is not None and "json" not in kind:
            facts = opened.endpoint.binary(opened.body)
        else:
            try:
                data = json.loads(response.content)
            except Exception:  # no JSON, or a response of somebody's own making: nothing is known of it
                data = None
            facts = self.facts(opened, data)
        self.finish(opened, "completed", facts)

    def _stream_watcher(
        self, opened: Opened, kind: str, decode: Callable[[bytes], bytes] | None
    ) -> StreamWatcher | None:
        endpoint = opened.endpoint
        framed = aws_frames.CONTENT_TYPE in kind
        if endpoint.stream is None or not (framed or "text/event-stream" in kind):
            return None
        if framed:
            decode = aws_frames.unpacker(decode)
        form = endpoint.stream(opened.body, opened.peer.provider)
        if self.telemetry.capture and endpoint.content is not None:
            form = capturing(form, endpoint.content, self.telemetry.capture.kept_bytes)
        return StreamWatcher(
            opened.call, form, decode, hide_usage=opened.asked_usage, finish=functools.partial(self.finish, opened)
        )

    def _watch(self, opened: Opened, response: Any) -> None:
        kind, decode = _content_type(response), decoder(response)
        watcher: bodies.Watcher | None = self._stream_watcher(opened, kind, decode)
        bodies.watch(response, watcher or self._other_watcher(opened, response, kind, decode))

    def _other_watcher(
        self, opened: Opened, response: Any, kind: str, decode: Callable[[bytes], bytes] | None
    ) -> bodies.Watcher:
        endpoint, finish = opened.endpoint, functools.partial(self.finish, opened)
        if endpoint.lines is not None:
            length = str(response.headers.get("content-length") or "")
            lines = LinesWatcher(endpoint.lines(opened), decode, int(length) if length.isdecimal() else None)
            lines.off_loop = self.meter.enforcer.way.off_loop
            return lines
        if endpoint.binary is not None and "json" not in kind:
            return OpaqueWatcher(opened.call, endpoint.binary(opened.body), finish)
        return JsonWatcher(functools.partial(self.facts, opened), finish, decode)


class RequestDoor(HttpDoor):
    """A door before a method ``do_request(hook_ctx, request, …)``, which is given a request of httpx."""

    def revised(
        self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        request = kwargs["request"] if "request" in kwargs else args[1]
        opened.key = changed = edited_request(request, opened.edits or {})
        if "request" in kwargs:
            return args, {**kwargs, "request": changed}
        return (args[0], changed, *args[2:]), dict(kwargs)


def edited_request(request: Any, edits: Mapping[Path, Any]) -> Any:
    """A copy of a request of httpx with fields of its JSON set anew."""
    headers = request.headers.copy()
    del headers["content-length"]
    content = json.dumps(edited(json.loads(request.content), edits)).encode()
    return type(request)(
        request.method, request.url, headers=headers, content=content, extensions=dict(request.extensions)
    )


def http_response(result: Any) -> Any:
    """The HTTP response in what an SDK returned: a stream, a raw response or the response itself."""
    if type(result) in plain_models:
        return None  # the object that an SDK made of the JSON; there is no response in it
    for candidate in (result, get(result, "http_response"), get(result, "response")):
        # Not hasattr: the SDK's models take microseconds to say no.
        if get(candidate, "is_stream_consumed") is not None and get(candidate, "headers") is not None:
            return candidate
    return None


def _content_type(response: Any) -> str:
    return str(response.headers.get("content-type") or "").lower()
