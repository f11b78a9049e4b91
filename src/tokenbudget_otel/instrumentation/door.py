"""The way of one call through a door, whatever the SDK: admitted, sent, read, and ended once.

A door is put before the methods of an SDK that send requests. Subclasses say how a request is recognised
(:meth:`Door.open`) and how its answer is read (:meth:`Door.returned`); the lifetime is here, once for sync and
async. What a door knows of an API is data: :class:`Endpoint`.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.budgets.remedies import UNCHANGED
from tokenbudget_otel.instrumentation import deferred, followed
from tokenbudget_otel.instrumentation.beneath import Holder, held_by_peers, holder_of
from tokenbudget_otel.instrumentation.call import LlmCall, open_request
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.failures import provably_unbilled
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.nesting import under_way
from tokenbudget_otel.instrumentation.recording import Recording
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter


class Door:
    """Stands before the methods of one SDK that send requests.

    Args:
        telemetry: where spans and metrics go.
        meter: where calls are admitted and settled.
    """

    provider: ClassVar[str]
    """Who the SDK talks to unless its client says otherwise."""

    def __init__(self, telemetry: Telemetry, meter: Meter) -> None:
        self.telemetry = telemetry
        self.meter = meter
        # Weakly, both: the hook of a client holds the client.
        self._hooked: list[tuple[weakref.ref[Any], str, Any, weakref.ref[Any]]] = []
        self._beneath: list[tuple[Holder, Any, Any]] = []
        self._open = True
        self.together: Door = self
        """The doors of the same SDK, this one among them: what a copy of a wrapped client has to pass."""

    # --- what a subclass provides ------------------------------------------------------------------------------

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        """Recognise a request, or ``None`` where it is not metered. What it raises is ours, and logged."""
        raise NotImplementedError

    def begun(self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The call has been admitted, and its span is open; the SDK is next."""
        hold = opened.call.ticket.hold
        if hold is None or hold.change is UNCHANGED:
            return
        try:
            if opened.revise():
                opened.sent = self.revised(opened, client, args, kwargs)
        except Exception as error:
            log_once("change a request", error)

    def revised(
        self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with the request in them as a budget had it changed (``opened.edits``). Those of the program
        stay as they are. Of doors whose endpoints have ``changes``."""
        raise NotImplementedError

    def pass_on(
        self, original: Callable[..., Any], client: Any, opened: Opened, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Hand the request to the SDK; gives what the SDK gives (something to await, where it is async)."""
        if opened.sent is not None:
            args, kwargs = opened.sent
        return original(client, *args, **kwargs)

    def returned(self, opened: Opened, result: Any) -> Any:
        """The SDK returned: read the answer, or follow it if it is still to come. Gives what the program gets."""
        try:
            if opened.endpoint.items is not None and followed.is_stream(result):
                reader = opened.endpoint.items(opened.body, opened.peer.provider)
                return followed.follow(result, followed.ItemWatcher(self, opened, reader))
            self.finish(opened, "completed", self.facts(opened, result))
        except Exception as error:
            log_once("read a response", error)
            self._finish_unknown(opened)
        return result

    def refused_change(self, opened: Opened, error: BaseException) -> bool:
        """Whether ``error`` says that the server will not have the request as we changed it."""
        return False

    def install(self, sdk: Any) -> None:
        """Hook what is to be hooked of the SDK's top module."""
        raise NotImplementedError

    def wrap(self, client: Any) -> None:
        """Hook one client only.

        Raises:
            TypeError: for a client that this door does not know.
        """
        raise NotImplementedError

    # --- installing --------------------------------------------------------------------------------------------

    def hook(self, owner: Any, name: str, *, is_async: bool | None = None) -> None:
        """Put the door before a method of a class, beneath what others have put on it."""
        original = vars(owner)[name]
        if not self.hook_beneath(original, owner, is_async=is_async):
            self.put(owner, name, self.hooked(original, is_async=is_async))

    def hook_held(self, method: Any, *, is_async: bool | None = None) -> None:
        """Put the door where others have kept a method of the SDK for single clients."""
        for holder, client in held_by_peers(method):
            through = self.hooked(method, is_async=is_async)
            self._place(holder, through if client is None else functools.partial(through, client))

    def _place(self, holder: Holder, through: Any) -> None:
        self._beneath.append((holder, holder.get(), through))
        holder.set(through)

    def hook_beneath(self, method: Any, owner: type, *, is_async: bool | None = None) -> bool:
        """Put the door inside of what others have put on a method of the SDK. Whether they have."""
        holder = holder_of(method, owner.__module__.partition(".")[0])
        if holder is None:
            return False
        self._place(holder, self.hooked(holder.get(), is_async=is_async))
        return True

    def hook_function(self, module: Any, name: str) -> None:
        """Put the door before a function of a module."""
        self.put(module, name, self.hooked_function(vars(module)[name]))

    def hooked_function(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``original``, a function that sends a request, with the door before it; its client is ``None``."""

        @functools.wraps(original)
        def without_client(_client: None, *args: Any, **kwargs: Any) -> Any:
            return original(*args, **kwargs)

        is_async = inspect.iscoroutinefunction(original)
        hooked = self.hooked(without_client, is_async=is_async)

        if is_async:

            @functools.wraps(original)
            async def function(*args: Any, **kwargs: Any) -> Any:
                return await hooked(None, *args, **kwargs)
        else:

            @functools.wraps(original)
            def function(*args: Any, **kwargs: Any) -> Any:
                return hooked(None, *args, **kwargs)

        return function

    def hook_client(self, client: Any, name: str, *, is_async: bool | None = None) -> None:
        """Put the door before a method of one object only."""
        original = getattr(type(client), name)
        through = functools.partial(self.hooked(original, is_async=is_async), client)
        # Others instrument single clients as well.
        holder = holder_of(vars(client).get(name), type(client).__module__.partition(".")[0])
        if holder is None:
            self.put(client, name, through)
        else:
            self._place(holder, through)

    def put(self, owner: Any, name: str, replacement: Any) -> None:
        """Replace an attribute of a class, a module or an object until :meth:`unhook`."""
        self._hooked = [hook for hook in self._hooked if hook[0]() is not None]
        self._hooked.append((weakref.ref(owner), name, vars(owner).get(name), weakref.ref(replacement)))
        setattr(owner, name, replacement)

    def unhook(self) -> None:
        """Restore what was there. Where somebody else has since put a hook of their own on top, the door cannot be
        taken out from under it: it stays, and lets everything through."""
        self._open = False
        for reference, name, previous, replacement in reversed(self._hooked):
            owner = reference()
            if owner is None or vars(owner).get(name) is not replacement():
                continue
            if previous is None:
                delattr(owner, name)
            else:
                setattr(owner, name, previous)
        self._hooked.clear()
        for holder, original, put in reversed(self._beneath):
            if holder.get() is put:
                holder.set(original)
        self._beneath.clear()

    @property
    def is_open(self) -> bool:
        """Whether the door still meters; one that was taken off lets everything through."""
        return self._open

    def hooked(self, original: Callable[..., Any], *, is_async: bool | None = None) -> Callable[..., Any]:
        """``original``, a method that sends a request, with the door before it."""
        if is_async is None:
            is_async = inspect.iscoroutinefunction(original)
        return self._hooked_async(original) if is_async else self._hooked_sync(original)

    def _hooked_sync(self, original: Callable[..., Any]) -> Callable[..., Any]:
        door = self

        @functools.wraps(original)
        def through(self: Any, *args: Any, **kwargs: Any) -> Any:
            opened = door.let_in(self, args, kwargs)
            if opened is None:
                return original(self, *args, **kwargs)
            while True:
                token = under_way.set(opened)
                try:
                    with opened.call:
                        result = door.pass_on(original, self, opened, args, kwargs)
                except BaseException as error:
                    if door.failed(opened, error):
                        raise
                    continue
                finally:
                    under_way.reset(token)
                return door.returned(opened, result)

        return through

    def _hooked_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        door = self

        @functools.wraps(original)
        async def through(self: Any, *args: Any, **kwargs: Any) -> Any:
            opened = await door.let_in_async(self, args, kwargs)
            if opened is None:
                return await original(self, *args, **kwargs)
            while True:
                token = under_way.set(opened)
                try:
                    with opened.call:
                        result = await door.pass_on(original, self, opened, args, kwargs)
                except BaseException as error:
                    if door.failed(opened, error):
                        raise
                    continue
                finally:
                    under_way.reset(token)
                off_loop = None if opened.endpoint.billed else door.meter.enforcer.way.off_loop
                if off_loop is not None:  # what was done elsewhere is booked once, and the ledger says whether it was
                    return await off_loop(door.returned, opened, result)
                return door.returned(opened, result)

        return through

    # --- one call ----------------------------------------------------------------------------------------------

    def let_in(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        """A call that has been admitted and is to be sent next; ``None`` for one that is not metered.

        Raises:
            BudgetExceeded: when a budget refuses it; nothing else.
        """
        if not self._open:
            return None
        opened: Opened | None = None
        try:
            opened = self.open(client, args, kwargs)
            if opened is not None:
                opened.call.begin()
                self.begun(opened, client, args, kwargs)
        except Exception as error:
            _refused_or_logged(error, opened)
            return None
        return opened

    async def let_in_async(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        """:meth:`let_in` on an event loop, which goes on while budgets are asked."""
        if not self._open:
            return None
        opened: Opened | None = None
        try:
            opened = self.open(client, args, kwargs)
            if opened is not None:
                if not opened.call.begun_at_once():
                    await opened.call.begin_async()
                self.begun(opened, client, args, kwargs)
        except Exception as error:
            _refused_or_logged(error, opened)
            return None
        return opened

    def admit(
        self,
        peer: Peer,
        endpoint: Endpoint,
        body: Body,
        options: Any = None,
        *,
        model: str | None = None,
        tier: str | None = None,
        key: Any = None,
        covers: bool = False,
        fields: Body | None = None,
        changing: Callable[[], tuple[frozenset[str], int]] | None = None,
    ) -> Opened:
        """A call whose request has been read, to be admitted before it is sent (``opened.call.begin()``).

        Args:
            model: the model that is asked for; the body's ``model`` by default.
            tier: the service tier that is asked for.
            options: what else the request consists of; given to ``endpoint.size``.
            key, covers, fields: see :class:`Opened`.
            changing: says what can be changed of the request, if that is asked (:attr:`Request.changing`); it is found
                out at once otherwise.
        """
        if model is None:
            asked = body.get("model")
            model = asked if isinstance(asked, str) else ""
        request = open_request(
            peer.provider,
            model,
            endpoint.operation,
            functools.partial(endpoint.size, body, options),
            tier=tier,
            free=peer.free,
            api_key=peer.api_key,
            changing=changing,
        )
        call = LlmCall(
            self.telemetry,
            self.meter,
            request,
            server=peer.server,
            attributes=functools.partial(endpoint.attributes, body),
            admit=endpoint.billed or endpoint.commits,
            quiet=endpoint.quiet,
        )
        capture = self.telemetry.capture
        if endpoint.content is not None and (capture.span or capture.event or capture.emits):
            call.recording = Recording(capture, endpoint.content, body, self.telemetry.logger)
        opened = Opened(call, endpoint, body, peer, options, key=key, covers=covers, fields=fields)
        if changing is None and (changes := endpoint.changes) is not None:
            request.changes = changes.possible(opened.fields, peer.provider, request.model)
            request.least_output = changes.least_output(opened.fields)
        return opened

    def failed(self, opened: Opened, error: BaseException) -> bool:
        """The SDK raised. True where that is the end of the call; False where it is to be tried unchanged."""
        if deferred.in_collector():  # it ends a coroutine that was dropped, and what is to be done takes locks
            deferred.defer(lambda: self.failed(opened, error))
            return True
        try:
            if opened.options is not opened.plain_options and self.refused_change(opened, error):
                opened.options = opened.plain_options
                opened.asked_usage = False
                return False
            cancelled = not isinstance(error, Exception)
            if opened.answer is not None:
                self.finish(opened, "failed", self.facts(opened, opened.answer), None if cancelled else error)
                return True
            opened.call.finish(
                "cancelled" if cancelled else "failed",
                ResponseFacts(estimated=True),
                None if cancelled else error,
                # Looking costs nothing, so a look that fails has not cost anything either.
                billed=opened.endpoint.billed and (opened.billed_before or not self.unbilled(error)),
            )
        except Exception as problem:
            log_once("end a failed call", problem)
        return True

    def unbilled(self, error: BaseException) -> bool:
        """Whether ``error`` proves that the provider did not do the work."""
        return provably_unbilled(error)

    def facts(self, opened: Opened, data: Any) -> ResponseFacts:
        """What ``data``, a response, says; nothing where it cannot be read."""
        endpoint = opened.endpoint
        try:
            facts = endpoint.read(data, opened.body, opened.peer.provider)
            if self.telemetry.capture and endpoint.content is not None:
                shape = endpoint.content
                facts.output = lambda _facts: shape.response(data)
            return facts
        except Exception as error:
            log_once("read a response", error)
            return ResponseFacts()

    def finish(self, opened: Opened, outcome: str, facts: ResponseFacts, error: BaseException | None = None) -> None:
        """End a call whose response has been read, as far as it came."""
        if facts.background and facts.unfinished:
            opened.call.finish("background", facts, keep_ticket=True)
        else:
            opened.call.finish(
                "failed" if facts.error is not None and outcome == "completed" else outcome, facts, error
            )

    def _finish_unknown(self, opened: Opened) -> None:
        try:
            if not opened.call.finished:
                opened.call.finish("completed", ResponseFacts(estimated=True), billed=opened.endpoint.billed)
        except Exception as error:
            log_once("end a call", error)


def _refused_or_logged(error: Exception, opened: Opened | None) -> None:
    """A refusal is the program's to know; any other error is ours, and the call goes on without us."""
    if opened is not None and isinstance(error, BudgetExceeded):
        raise error
    log_once("read a request" if opened is None else "admit a call", error)
