"""What the requests of one simulator share: :class:`State`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from tokenbudget_otel.simulator.behaviour import Behaviour, from_header
from tokenbudget_otel.simulator.books import Billed, RecordedRequest, Store
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.usage import Usage

Clock = Callable[[], float]


@dataclass(slots=True)
class State:
    """What the requests of one simulator share. Under the lock: they come from the server's thread, and are
    read from the tests'."""

    seed: int
    clock: Clock
    keep: int | None
    default: Behaviour = field(default_factory=Behaviour)
    lock: threading.Lock = field(default_factory=threading.Lock)
    queue: deque[Behaviour] = field(default_factory=deque)
    requests: deque[RecordedRequest] = field(init=False)
    billed: deque[Billed] = field(init=False)
    seen: dict[bytes, int] = field(default_factory=dict)
    """How many requests like this one there were, by their digest."""
    failed: dict[bytes, int] = field(default_factory=dict)
    """How often a request failed so far, for clients that do not number their attempts."""
    store: Store = field(default_factory=Store)
    peers: dict[Any, Any] = field(default_factory=dict)
    """Transports of open connections, by the client's address."""
    epoch: int = 0
    """How often everything was forgotten: what began before is not billed after."""
    open: int = 0
    """Requests that are being answered."""

    def __post_init__(self) -> None:
        self.requests = deque(maxlen=self.keep)
        self.billed = deque(maxlen=self.keep)

    def reset(self) -> None:
        with self.lock:
            for books in (self.queue, self.requests, self.billed, self.seen, self.failed, self.store):
                books.clear()
            self.default = Behaviour()
            self.epoch += 1

    def then(self, behaviours: tuple[Behaviour, ...]) -> None:
        with self.lock:
            for behaviour in behaviours:
                # Each failing attempt takes one place in the queue, and the one that succeeds another.
                times = behaviour.fail_times or 0
                self.queue.extend([_always(behaviour)] * times)
                self.queue.append(behaviour.healthy() if times else behaviour)

    def enter(self, request: RecordedRequest) -> tuple[bytes, Behaviour]:
        """Note a request; its key, and the behaviour that is due.

        Raises:
            ValueError: its ``x-simulate`` header describes none.
        """
        content = b"%s\0%s\0%s\0" % (request.method.encode(), request.path.encode(), request.query.encode())
        like = blake2b(content + request.body, digest_size=12).digest()
        asked = request.headers.get("x-simulate")
        with self.lock:
            self.requests.append(request)
            number = self.seen.get(like, 0)
            self.seen[like] = number + 1
            if asked is None and self.queue:
                behaviour = self.queue.popleft()
            else:
                behaviour = self.default if asked is None else from_header(asked)
                if behaviour.fail_times is not None:
                    behaviour = self._attempt(request, like, behaviour)
        key = blake2b(like + b"%d:%d" % (self.seed, number), digest_size=12).digest()
        return key, behaviour

    def bill(self, exchange: Exchange, reply: Reply, usage: Usage, share: float, epoch: int) -> None:
        """Write into the books what a reply costs of which the client got this share."""
        entry = Billed(
            provider=exchange.host.provider,
            path=exchange.path,
            model=reply.model or exchange.model,
            usage=usage if reply.frames is None else usage.until(share),
            completed=share >= 1,
            service_tier=exchange.behaviour.service_tier or exchange.body.get("service_tier"),
            request_id=exchange.request_id,
            whole=usage,
        )
        with self.lock:
            if epoch == self.epoch:
                self.billed.append(entry)

    def _attempt(self, request: RecordedRequest, like: bytes, behaviour: Behaviour) -> Behaviour:
        """The behaviour with its fault, or without if the request has failed often enough."""
        times = behaviour.fail_times or 0
        if "x-stainless-retry-count" in request.headers:
            return _always(behaviour) if request.attempt < times else behaviour.healthy()
        failed = self.failed.get(like, 0)
        if failed < times:
            self.failed[like] = failed + 1
            return _always(behaviour)
        self.failed.pop(like, None)
        return behaviour.healthy()


def _always(behaviour: Behaviour) -> Behaviour:
    """The behaviour with its fault for good."""
    return replace(behaviour, fail_times=None)
