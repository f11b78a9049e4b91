"""The simulator as a server: in a thread of a test (:class:`Simulator`) or by itself (:func:`serve`)."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import uvicorn
from uvicorn.config import WS_PROTOCOLS
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from tokenbudget_otel.simulator.app import build
from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.books import Billed, RecordedRequest
from tokenbudget_otel.simulator.hosts import HOSTS
from tokenbudget_otel.simulator.state import State

FIXED_TIME: Final = 1_790_000_000.0
"""What the simulator's clock shows unless another is given, so that answers do not change from run to run."""


class Simulator:
    """A provider on a free port of 127.0.0.1, in a thread of this process.

    Args:
        seed: from which ids and texts come; the same seed and requests give the same bytes.
        default: how requests are answered for which nothing else is said.
        clock: the time (in seconds since 1970) that answers carry; a number stands still.
        keep: how many requests and bills are remembered, the newest; None: all.
        host: the address to listen on.
        port: the port; 0: a free one.

    Example:
        >>> with Simulator(seed=7) as sim:
        ...     sim.then(Behaviour(status=429), Behaviour(text="At last."))
        ...     len(sim.billed)
        0
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        default: Behaviour | None = None,
        clock: Callable[[], float] | float = FIXED_TIME,
        keep: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        reads = clock if callable(clock) else lambda: clock
        self._state = State(seed=seed, clock=reads, keep=keep)
        self._state.default = default or Behaviour()
        self._address = (host, port)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    def start(self) -> Simulator:
        """Listen; returns when requests are answered.

        Raises:
            RuntimeError: it runs already, or the server did not come up.
            OSError: the port is taken.
        """
        if self._thread is not None:
            raise RuntimeError("this simulator runs already")
        listener = _listen(*self._address)
        self._port = listener.getsockname()[1]
        server = self._server = _Server(_config(self._state), self._state.peers)
        self._thread = threading.Thread(
            target=asyncio.run, args=(server.serve(sockets=[listener]),), name="tokenbudget-simulator", daemon=True
        )
        self._thread.start()
        if not server.ready.wait(10):
            raise RuntimeError("the simulator's server did not come up within 10 s")
        return self

    def stop(self) -> None:
        """Stop listening and close all connections, also those with requests that are not answered yet."""
        if self._thread is None or self._server is None:
            return
        self._server.stop()
        self._thread.join(10)
        self._thread = self._server = None

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Where to send requests to.

    @property
    def url(self) -> str:
        """The root, without a slash at its end."""
        host = self._address[0]
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    @property
    def openai_url(self) -> str:
        """``base_url`` for ``openai.OpenAI``."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """``base_url`` for ``anthropic.Anthropic``."""
        return self.url

    @property
    def google_url(self) -> str:
        """``base_url`` of the ``http_options`` for ``google.genai.Client``, for AI Studio and for Vertex AI."""
        return self.url

    @property
    def azure_url(self) -> str:
        """``azure_endpoint`` for ``openai.AzureOpenAI``."""
        return self.url

    @property
    def mistral_url(self) -> str:
        """``server_url`` for ``mistralai.client.Mistral``."""
        return f"{self.url}/mistral"

    @property
    def cohere_url(self) -> str:
        """``base_url`` for ``cohere.ClientV2``."""
        return f"{self.url}/cohere"

    @property
    def groq_url(self) -> str:
        """``base_url`` for ``groq.Groq``."""
        return f"{self.url}/groq"

    @property
    def ollama_url(self) -> str:
        """``host`` for ``ollama.Client``."""
        return f"{self.url}/ollama"

    @property
    def voyage_url(self) -> str:
        """``base_url`` for ``voyageai.Client``."""
        return f"{self.url}/voyage/v1"

    @property
    def together_url(self) -> str:
        """``base_url`` for ``together.Together``."""
        return f"{self.url}/together"

    @property
    def bedrock_url(self) -> str:
        """``endpoint_url`` for ``bedrock-runtime`` of boto3, ``base_url`` for ``anthropic.AnthropicBedrock``."""
        return self.url

    @property
    def live_url(self) -> str:
        """The root for websockets, without a slash at its end."""
        return f"ws{self.url.removeprefix('http')}"

    def host_url(self, name: str) -> str:
        """``base_url`` for ``openai.OpenAI`` to speak with a host that imitates OpenAI.

        Raises:
            ValueError: there is no such host; the names there are.
        """
        if name not in HOSTS:
            raise ValueError(f"no such host here: {name!r}; there are {', '.join(HOSTS)}")
        return f"{self.url}/host/{name}/v1"

    # What it answers.

    @property
    def default(self) -> Behaviour:
        """How requests are answered that carry no ``x-simulate`` header when the queue is empty."""
        return self._state.default

    @default.setter
    def default(self, behaviour: Behaviour) -> None:
        self._state.default = behaviour

    def then(self, *behaviours: Behaviour) -> None:
        """Queue behaviours, one for each of the next requests.

        One with ``fail_times=k`` serves k failing requests and one that succeeds.
        """
        self._state.then(behaviours)

    def reset(self) -> None:
        """Forget requests, bills, the queue and the default: as if it had just been started."""
        self._state.reset()

    # What happened.

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests so far, in the order in which they came."""
        with self._state.lock:
            return list(self._state.requests)

    @property
    def billed(self) -> list[Billed]:
        """What the provider bills so far, in the order in which answers were finished."""
        with self._state.lock:
            return list(self._state.billed)

    @property
    def open_requests(self) -> int:
        """How many requests are being answered now."""
        return self._state.open

    def settle(self, timeout: float = 5.0) -> bool:
        """Wait until no request is being answered; False if that does not happen in time.

        For tests that leave a stream: the provider notices a moment later that its client has gone.
        """
        end = time.monotonic() + timeout
        while self._state.open:
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True


def serve(
    host: str = "127.0.0.1",
    port: int = 8089,
    *,
    seed: int = 0,
    default: Behaviour | None = None,
    ready: Callable[[Simulator], None] | None = None,
) -> None:
    """Run a simulator until it is interrupted (Ctrl-C), with a clock that runs.

    Args:
        host: the address to listen on.
        port: the port; 0: a free one.
        seed: see :class:`Simulator`.
        default: how requests are answered that say nothing else.
        ready: called with the simulator once it listens, to say where it is.

    Raises:
        OSError: the port is taken.
    """
    with Simulator(seed=seed, default=default, clock=time.time, keep=1000, host=host, port=port) as simulator:
        if ready is not None:
            ready(simulator)
        try:
            # Not `join`: on some systems it cannot be interrupted.
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


class _Server(uvicorn.Server):
    """uvicorn that says when it is ready, and stops at once instead of with its next tick."""

    def __init__(self, config: uvicorn.Config, peers: dict[Any, Any]) -> None:
        super().__init__(config)
        self._peers = peers
        self.ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        assert self._stopping is not None
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        # Requests that hang wait for their client to go: now all of them go.
        for transport in list(self._peers.values()):
            transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=1)

    def stop(self) -> None:
        """From another thread: leave the loop."""
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)


def _listen(host: str, port: int) -> socket.socket:
    # The protocol is named because asyncio switches Nagle's delay off only where it is TCP by name.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _config(state: State) -> uvicorn.Config:
    return uvicorn.Config(
        build(state),
        http=_noting(AutoHTTPProtocol, state.peers),
        lifespan="off",
        ws=_websockets(),
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_config=None,
        log_level="warning",
        access_log=False,
        # Neither date nor server: the same requests get the same bytes.
        date_header=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=600,
        backlog=2048,
    )


def _websockets() -> Any:
    """What speaks with live sessions: the implementation that works on its own in older and newer versions; none where
    the package is missing, which nothing but live sessions needs."""
    if importlib.util.find_spec("websockets") is None:
        return "none"
    return "websockets-sansio" if "websockets-sansio" in WS_PROTOCOLS else "websockets"


def _noting(protocol: Any, peers: dict[Any, Any]) -> Any:
    """The protocol class, made to note its open connections, so that one can be closed in mid-answer."""

    class Noting(protocol):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            self._peer = transport.get_extra_info("peername")
            if self._peer:
                peers[tuple(self._peer[:2])] = transport
            super().connection_made(transport)

        def connection_lost(self, error: Exception | None) -> None:
            if self._peer:
                peers.pop(tuple(self._peer[:2]), None)
            super().connection_lost(error)

    return Noting
