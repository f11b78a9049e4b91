"""An OTLP receiver on loopback that can be told to misbehave, and books every span that it has taken."""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

UNPACK: dict[str | None, Callable[[bytes], bytes]] = {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}


class Mood(NamedTuple):
    """How a request is met."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    body: bytes = b""
    manner: str = "answer"
    """``answer``, ``hang``, ``cut_before`` (before it is read) or ``cut_after`` (when it has been taken)."""


FINE = Mood()
HANG = Mood(manner="hang")
CUT_BEFORE = Mood(manner="cut_before")
CUT_AFTER = Mood(manner="cut_after")


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Takes OTLP over HTTP. ``mood`` is how all requests are met, ``then`` how the next ones are."""

    def __init__(self) -> None:
        self.mood: Mood | Callable[[Request], Mood] = FINE
        self._next: deque[Mood] = deque()
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server: _Server | None = None
        self._port = 0
        self.requests: list[Request] = []
        """Those that were answered with a 2xx, or cut off after they were taken."""
        self.posts = 0
        self.spans: Counter[tuple[str, str]] = Counter()
        """How often a span was taken, by trace id and span id."""
        self.acknowledged: Counter[tuple[str, str]] = Counter()
        """How often a span was taken and the client was told so."""
        self.names: list[str] = []
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1/traces"

    def then(self, *moods: Mood) -> None:
        self._next.extend(moods)

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be away: connections are refused, those that are open are cut."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut_all()
            self._server = None

    def release(self) -> None:
        """Have those that hang be cut off."""
        self._released.set()
        self._released = threading.Event()

    def close(self) -> None:
        self.stop()
        self.release()

    def met(self, request: Request) -> Mood:
        with self._lock:
            self.posts += 1
            if self._next:
                return self._next.popleft()
        return self.mood(request) if callable(self.mood) else self.mood

    def take(self, request: Request, acknowledged: bool) -> None:
        found = spans_of(request)
        with self._lock:
            self.requests.append(request)
            for key, name in found:
                self.spans[key] += 1
                self.acknowledged[key] += acknowledged
                self.names.append(name)


def spans_of(request: Request) -> list[tuple[tuple[str, str], str]]:
    """Trace id, span id and name of each span; none for other signals."""
    if not request.path.endswith("/traces"):
        return []
    if request.headers.get("content-type", "").startswith("application/json"):
        document: Any = json.loads(request.body)
        return [
            ((span["traceId"], span["spanId"]), span["name"])
            for resource in document.get("resourceSpans", ())
            for scope in resource.get("scopeSpans", ())
            for span in scope.get("spans", ())
        ]
    parsed = ExportTraceServiceRequest.FromString(request.body)
    return [
        ((span.trace_id.hex(), span.span_id.hex()), span.name)
        for resource in parsed.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], receiver: Receiver) -> None:
        self.receiver = receiver
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without a look-up of the host's name
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def cut_all(self) -> None:
        for each in tuple(self._open):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        headers = {name.lower(): value for name, value in self.headers.items()}
        early = Request(self.path, headers, b"")
        mood = receiver.met(early)
        released = receiver._released
        if mood.manner == "cut_before":
            self._cut()
            return
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.path, headers, UNPACK.get(headers.get("content-encoding"), bytes)(body))
        if mood.manner == "hang":
            released.wait(60)
            self._cut()
            return
        if 200 <= mood.status < 300:
            receiver.take(request, mood.manner == "answer")
        if mood.manner == "cut_after":
            self._cut()
            return
        self.send_response(mood.status)
        for name, value in mood.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(mood.body)))
        self.end_headers()
        self.wfile.write(mood.body)

    def _cut(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def log_message(self, *arguments: Any) -> None:
        pass


def rejecting(number: int, why: str) -> Mood:
    """Taken, all but some."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = number
    answer.partial_success.error_message = why
    return Mood(body=answer.SerializeToString())
