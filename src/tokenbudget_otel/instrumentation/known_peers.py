"""Who the clients of an SDK talk to, found out once for each client and again when it is told something else."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Final

from tokenbudget_otel import settings
from tokenbudget_otel.instrumentation import hosts
from tokenbudget_otel.instrumentation.endpoint import Peer

MAX_CLIENTS: Final = 1_000
"""Clients that are known at a time, for each door; beyond it all are found anew."""


@functools.lru_cache(maxsize=256)
def _keeps_its_url(kind: type) -> bool:
    """Whether ``base_url`` of clients of a class is the SDK's own property, which gives ``_base_url`` and takes a
    microsecond for it. Others may look elsewhere, as that of the client of OpenAI's module at ``openai.base_url``."""
    made = next((vars(owner)["base_url"] for owner in kind.__mro__ if "base_url" in vars(owner)), None)
    module: str = getattr(getattr(made, "fget", None), "__module__", None) or ""
    return module.partition(".")[2] in ("_client", "_base_client")


class _Known:
    """What a client said of itself when its peer was found."""

    __slots__ = ("base_url", "client", "kept", "key", "key_provider", "kind", "named", "named_in_file", "peer",
                 "runtime", "url")  # fmt: skip

    def __init__(self, reference: weakref.ref[Any], client: Any, find: Callable[[Any], Peer]) -> None:
        # The peer last: what changes meanwhile is seen the next time.
        self.client: Any = reference
        kind: Any = type(client)
        self.kind = kind
        self.url = client.base_url
        self.kept = _keeps_its_url(kind) and getattr(client, "_base_url", None) is self.url
        self.base_url = str(self.url)
        self.key = getattr(client, "api_key", None)
        self.key_provider = getattr(client, "_api_key_provider", None)
        self.runtime = getattr(client, "_provider_runtime", None)
        self.named, self.named_in_file = hosts.named()
        self.peer = find(client)


class KnownPeers:
    """The peers of the clients that are there. Holds none of them; finalisers take no locks.

    Args:
        find: finds the peer of a client, from its class, its ``base_url``, its ``api_key`` and what makes that, and
            from what :mod:`hosts` was told.
    """

    __slots__ = ("__weakref__", "_find", "_known")

    def __init__(self, find: Callable[[Any], Peer]) -> None:
        self._find = find
        self._known: dict[int, _Known] = {}

    def of(self, client: Any) -> Peer:
        """Who ``client`` talks to."""
        known = self._known.get(id(client))
        if known is not None and known.client() is client:
            # Whether the client still says the same, and who is where has not been told anew. In one piece: this is
            # asked for each call.
            key_provider = getattr(client, "_api_key_provider", None)
            if (
                known.url is (getattr(client, "_base_url", None) if known.kept else client.base_url)
                and key_provider is known.key_provider
                # Keys that a function of the program's makes come and go.
                and (key_provider is not None or getattr(client, "api_key", None) is known.key)
                and getattr(client, "_provider_runtime", None) is known.runtime
                and type(client) is known.kind
                and hosts._configured is known.named
                and settings._hosts is known.named_in_file
            ):
                return known.peer
        known = self._learn(client)
        return self._find(client) if known is None else known.peer

    def base_url(self, client: Any) -> str:
        """The base URL of ``client`` as text, which takes a while to make."""
        known = self._known.get(id(client))
        if (
            known is not None
            and known.client() is client
            and known.url is (getattr(client, "_base_url", None) if known.kept else client.base_url)
        ):
            return known.base_url
        return str(client.base_url)

    def _learn(self, client: Any) -> _Known | None:
        key = id(client)
        try:
            reference = weakref.ref(client, functools.partial(_forget, weakref.ref(self), key))
        except TypeError:  # nothing can refer to it
            return None
        known = _Known(reference, client, self._find)
        if len(self._known) >= MAX_CLIENTS:
            self._known.clear()
        self._known[key] = known
        return known


def _forget(peers: weakref.ref[KnownPeers], key: int, client: Any) -> None:
    owner = peers()
    if owner is not None and (known := owner._known.get(key)) is not None and known.client is client:
        owner._known.pop(key, None)
