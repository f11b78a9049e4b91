"""Live sessions: one connection, many turns, each turn a call with a span and a charge of its own.

A provider's file says how its messages read (:class:`Session`); this one knows what they mean. A turn that the
program asks for is admitted before its message goes out. A turn that the server begins by itself, because it heard
somebody stop speaking, is admitted when the program sends audio: a reservation is held until the answer is there.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.budgets.steps import Steps, run, run_async
from tokenbudget_otel.instrumentation import bodies, deferred
from tokenbudget_otel.instrumentation.call import LlmCall, open_request
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Peer
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.sizing import Extent, MediaTokens
from tokenbudget_otel.instrumentation.streams import TextCount
from tokenbudget_otel.meter import Request, Size, Ticket
from tokenbudget_otel.usage import TokenUsage

_SESSION: Final = "_tokenbudget_session"


class Turn:
    """One answer of the model, from the moment it is asked for to its end.

    Attributes:
        admitted: whether the budgets let it in; one that the server began by itself is only charged.
        text: the text of it that has arrived.
        audio_bytes: the audio of it that has arrived, decoded.
        usage: what the provider has reported so far.
        facts: what else it has said.
        outcome: how it ended, where that was said before it is counted.
        more: what was reserved beside the turn itself, for what it does after a tool has answered.
    """

    __slots__ = ("admitted", "audio_bytes", "call", "facts", "input_tokens", "key", "more", "outcome", "text",
                 "usage")  # fmt: skip

    def __init__(self, call: LlmCall, input_tokens: int | None, *, admitted: bool, key: Any = None) -> None:
        self.call = call
        self.input_tokens = input_tokens
        self.admitted = admitted
        self.key = key
        self.outcome = "completed"
        self.more: list[Ticket] = []
        self.text = TextCount()
        self.audio_bytes = 0
        self.usage: TokenUsage | None = None
        self.facts = ResponseFacts()


@dataclass(frozen=True, slots=True)
class Kind:
    """What one provider's turns have in common.

    Attributes:
        operation: ``gen_ai.operation.name``.
        media: what parts that are not text come to.
        cut: the error of a turn whose connection ended before it did.
    """

    operation: str
    media: MediaTokens
    cut: tuple[str, str] = ("incomplete_stream", "The connection ended before the response did.")


class Session:
    """Follows one live connection. Subclasses read its messages.

    Args:
        door: through which the connection was opened.
        peer: who is at the other end.
        model: the model that was asked for; empty where only the server knows it.
    """

    kind: ClassVar[Kind]

    def __init__(self, door: LiveDoor, peer: Peer, model: str) -> None:
        self.done = False
        self.connected = False
        self.door = door
        self.peer = peer
        self.model = model
        self.response_model: str | None = None
        self.waiting: deque[Turn] = deque()
        """Turns that the program asked for and that the server has not begun."""
        self.turns: dict[Any, Turn] = {}
        """Turns that the server is at work on."""
        self.automatic = True
        """Whether the server may begin a turn by itself."""
        self.heard = False
        """Whether audio was sent: its tokens are not known before the provider counts them."""
        self.plain = True
        """Whether all that was said so far is text, as far as can be told."""
        self.text_only = False
        """Whether the next turn is asked to be answered in text."""
        self.settings = Extent()
        """Instructions and tools: read anew in every turn."""
        self.said = Extent()
        """Text that was sent since the last turn that was counted."""
        self._before: int | None = None
        # The turns that nobody asked for belong to whoever opened the connection.
        self._context = contextvars.copy_context()
        self._reserved: list[Ticket] = []
        self._refused = False

    # --- what a subclass provides ------------------------------------------------------------------------------

    def sending(self, message: Any) -> Steps[Turn | None]:
        """The program is about to send a message; gives the turn that it asks for, if it does. In steps, as what has
        to be asked for may be kept elsewhere, and connections are used from threads and from event loops.

        Raises:
            BudgetExceeded: when a budget refuses what it would cost.
        """
        raise NotImplementedError

    def arrived(self, data: bytes) -> None:
        """A message arrived."""
        raise NotImplementedError

    def attributes(self) -> Mapping[str, Any]:
        """Span attributes of a turn."""
        return {}

    def audio_tokens(self, size: int) -> int | None:
        """The tokens of so many bytes of audio that the model spoke; ``None`` where that is not known."""
        raise NotImplementedError

    # --- before a turn -----------------------------------------------------------------------------------------

    def size(self, asked: Extent, max_output_tokens: int | None) -> Size:
        """How large the next turn is: what was counted in the last one, and what was said since."""
        media = self.kind.media
        parts = (self.said, asked) if self._before is not None else (self.settings, self.said, asked)
        bounds = [part.bound(media) for part in parts]
        unseen = self.heard or any(bound is None for bound in bounds)
        before = self._before or 0
        return Size(
            before + sum(part.likely(media) for part in parts),
            None if unseen else before + sum(bound or 0 for bound in bounds),
            max_output_tokens=max_output_tokens,
            text_only=self.text_only
            and self.plain
            and not any(part.images or part.others or part.unseen for part in parts),
        )

    def ask(
        self, asked: Extent | None = None, max_output_tokens: int | None = None, key: Any = None
    ) -> Steps[Turn | None]:
        """The program asks for a turn: admit it.

        Raises:
            BudgetExceeded: when a budget refuses it.
        """
        if not self.door.is_open or self.done:
            return None
        size = self.size(asked or Extent(), max_output_tokens)
        request = self._request(size)
        self.release()  # this turn takes the place of the one that the server might have begun
        turn = yield from self._turn(request, size, admit=True, key=key)
        self.waiting.append(turn)
        if self.done:  # it ended meanwhile
            self.give_back(turn, None)
            return None
        return turn

    def reserve(self) -> Steps[None]:
        """The program sends audio, and the server may answer it: have the budgets admit the answer.

        Raises:
            BudgetExceeded: when a budget refuses it.
        """
        if self._reserved or self.turns or self.waiting or not self.automatic:
            return
        if not self.door.is_open or self.done:
            return
        try:
            # Audio comes fifty times a second: one span of a refusal says it all.
            ticket = yield from self._admit(self._next(None), quiet=self._refused)
        except BudgetExceeded:
            self._refused = True
            raise
        self._refused = False
        self._reserved.append(ticket)
        if self.done:
            self.release()

    def more(self, turn: Turn, max_output_tokens: int | None) -> Steps[None]:
        """The program has a turn go on: admit what comes now as if it were another.

        Raises:
            BudgetExceeded: when a budget refuses it.
        """
        if self.door.is_open:
            ticket = yield from self._admit(self._next(max_output_tokens))
            turn.more.append(ticket)
            if turn.call.finished:
                self._give_back_more(turn)

    def _next(self, max_output_tokens: int | None) -> Request:
        """Another turn, of which nothing is known but what came before it."""
        return self._request(self.size(Extent(), max_output_tokens))

    def _admit(self, request: Request, *, quiet: bool = False) -> Steps[Ticket]:
        """Reserve another turn, without a span unless it is refused."""
        try:
            return (yield from self.door.meter.admission(request))
        except BudgetExceeded as refusal:
            if not quiet:
                self._unadmitted(request)._refused(refusal)
            raise

    def release(self) -> None:
        """Give back what was reserved for a turn that the server did not begin."""
        while (ticket := taken(self._reserved)) is not None:
            self.door.meter.release(ticket)

    def _request(self, size: Size, operation: str | None = None, model: str | None = None) -> Request:
        return open_request(
            self.peer.provider,
            self.model or self.response_model or "" if model is None else model,
            operation or self.kind.operation,
            lambda: size,
            api_key=self.peer.api_key,
        )

    def _unadmitted(self, request: Request) -> LlmCall:
        """A call that no budget is asked for: it has been admitted before, or cannot be refused any more."""
        return self._call(request, admit=False).begin()

    def _call(self, request: Request, *, admit: bool) -> LlmCall:
        return LlmCall(
            self.door.telemetry,
            self.door.meter,
            request,
            server=self.peer.server,
            attributes=self.attributes,
            admit=admit,
        )

    def _turn(self, request: Request, size: Size, *, admit: bool, key: Any = None) -> Steps[Turn]:
        call = self._call(request, admit=admit)
        # What was spoken to the model is not known: then neither is its input, unless there is a count before it.
        known = size.input_tokens if self._before is not None or not self.heard else None
        yield from call._beginning()
        return Turn(call, known, admitted=admit, key=key)

    # --- during a turn -----------------------------------------------------------------------------------------

    def begin(self, key: Any) -> Turn | None:
        """The server began a turn: one that was asked for, or one of its own."""
        turn: Turn | None = taken(self.waiting)
        if turn is None:
            turn = self._context.copy().run(self._of_its_own)
        if turn is not None:
            self.turns[key] = turn
        return turn

    def _of_its_own(self) -> Turn | None:
        ticket = taken(self._reserved)
        if ticket is None:
            if not self.door.is_open:
                return None
            size = self.size(Extent(), None)
            return self._here(self._turn(self._request(size), size, admit=False))
        turn = self._here(self._turn(ticket.request, ticket.request.size(), admit=False))
        turn.call.ticket = ticket
        turn.admitted = True
        return turn

    def _here(self, steps: Steps[Turn]) -> Turn:
        return run(steps, self.door.meter.enforcer.way)

    # --- after a turn ------------------------------------------------------------------------------------------

    def finish(self, turn: Turn, outcome: str, facts: ResponseFacts, error: BaseException | None = None) -> None:
        """End a turn with what the provider says of it, or with the evidence where it says nothing."""
        if facts.usage is None:
            facts.usage, facts.estimated = self.estimate(turn), True
        else:
            self._count(facts.usage)
        if facts.model is None:
            facts.model = self.response_model
        call = turn.call
        self._give_back_more(turn)
        book = None if turn.admitted else functools.partial(self.door.meter.record, call.request)
        call.finish(outcome, facts, error, book=book)

    def _give_back_more(self, turn: Turn) -> None:
        while (ticket := taken(turn.more)) is not None:
            self.door.meter.release(ticket)

    def give_back(self, turn: Turn, error: tuple[str, str] | BaseException | None) -> None:
        """End a turn that came to nothing and cost nothing."""
        if turn in self.waiting:
            self.waiting.remove(turn)
        reported = isinstance(error, tuple)
        facts = ResponseFacts(error=error if reported else None)  # type: ignore[arg-type]
        turn.call.finish("failed", facts, None if reported else error, billed=False)  # type: ignore[arg-type]

    def book(self, operation: str, model: str, facts: ResponseFacts) -> None:
        """Charge something that the server did beside the turns: a transcription of what it heard."""

        def charge() -> None:
            request = self._request(Size(0, None), operation, model)
            call = self._unadmitted(request)
            if facts.usage is None:
                facts.usage, facts.estimated = TokenUsage(), True
            call.finish("completed", facts, book=functools.partial(self.door.meter.record, request))

        if self.door.is_open:
            self._context.copy().run(charge)

    def estimate(self, turn: Turn) -> TokenUsage:
        """What arrived of a turn without a count. What cannot be told is left out."""
        if not turn.audio_bytes:
            return TokenUsage(input_tokens=turn.input_tokens, output_tokens=turn.text.tokens or None)
        spoken = self.audio_tokens(turn.audio_bytes)
        return TokenUsage(
            input_tokens=turn.input_tokens,
            output_tokens=turn.text.tokens + (spoken or 0),
            output_text_tokens=turn.text.tokens,
            output_audio_tokens=spoken,
        )

    def _count(self, usage: TokenUsage) -> None:
        if usage.input_tokens is not None:
            self._before = usage.input_tokens + (usage.output_tokens or 0)
            self.said, self.heard = Extent(), False

    def ended(self, how: str, error: BaseException | None = None) -> None:
        """The connection is over, and so are its turns. ``how``: ``closed``, ``cut`` or ``abandoned``."""
        if self.done:
            return
        # After a cut the SDK may connect again, and go on with the same object.
        self.done = how != "cut"
        self.release()
        turns = [*self.turns.values(), *self.waiting]
        self.turns.clear()
        self.waiting.clear()
        for turn in turns:
            if not self.connected:
                self.give_back(turn, error)
                continue
            facts, facts.usage = turn.facts, turn.usage
            if how == "cut":
                facts.error = self.kind.cut
            self.finish(turn, how, facts)

    # A connection has no body; these make it one of the watchers that are ended when the program ends.

    def chunk(self, data: bytes) -> bytes:
        return data

    def rest(self) -> bytes:
        return b""

    @property
    def busy(self) -> bool:
        """Whether there is anything to end."""
        return bool(self.turns or self.waiting or self._reserved)

    def __del__(self) -> None:
        if not self.done and self.busy:
            deferred.defer(lambda: self.ended("abandoned"))


def taken(items: list[Any] | deque[Any]) -> Any:
    """The first of the items, or ``None``: one thread may send while another receives."""
    try:
        return items.popleft() if isinstance(items, deque) else items.pop()
    except IndexError:
        return None


def joined(first: Extent, second: Extent) -> Extent:
    """Two extents as one."""
    return Extent(
        first.characters + second.characters,
        first.bytes + second.bytes,
        first.nodes + second.nodes,
        first.images + second.images,
        first.others + second.others,
        first.unseen or second.unseen,
    )


# --- putting a session behind an SDK's objects ---------------------------------------------------------------------


class LiveDoor(Door):
    """Stands before the method of an SDK that opens a live connection."""

    def session(self, resource: Any, kwargs: Mapping[str, Any]) -> Session:
        """The session of a connection that ``resource.connect(**kwargs)`` is about to open."""
        raise NotImplementedError

    def follow(self, connection: Any, session: Session) -> None:
        """Have the session follow a connection that is open."""
        raise NotImplementedError

    def hook_connect(self, owner: Any, door_of: Callable[[Any], LiveDoor | None] | None = None) -> None:
        """Hook ``connect`` of a class, or of one object. ``door_of`` says through which door the sessions of a
        resource go, where that is not this one."""
        original = getattr(owner, "connect")  # noqa: B009
        bound = not isinstance(owner, type)

        @functools.wraps(original)
        def connect(*args: Any, **kwargs: Any) -> Any:
            manager = original(*args, **kwargs)
            try:
                resource = owner if bound else args[0]
                door = self if door_of is None else door_of(resource)
                if self.is_open and door is not None and door.is_open:
                    door._watch_manager(manager, resource, kwargs)
            except Exception as error:
                log_once("follow a live connection", error)
            return manager

        self.put(owner, "connect", connect)

    def _watch_manager(self, manager: Any, resource: Any, kwargs: Mapping[str, Any]) -> None:
        if _SESSION in vars(manager):
            return  # another door got here first: before the class of a wrapped client
        session = self.session(resource, kwargs)
        vars(manager)[_SESSION] = session
        manager.__class__ = _entering(type(manager))
        if callable(getattr(manager, "send", None)):
            # Messages that wait for the connection are admitted when the program hands them over.
            vars(manager)["send"] = _sender(manager.send, session)

    def connected(self, connection: Any, session: Session) -> None:
        """The connection is open."""
        try:
            session.connected = True
            bodies.remember(session)
            self.follow(connection, session)
        except Exception as error:
            log_once("follow a live connection", error)


_classes: Final[dict[type, type]] = {}


def _entering(kind: type) -> type:
    """A subclass of a context manager's class that tells the session of its instance when it is entered."""
    if (known := _classes.get(kind)) is not None:
        return known
    made: dict[str, Any] = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    names = ("__enter__", "__aenter__", "enter")
    for name in names:
        if (original := getattr(kind, name, None)) is not None:
            made[name] = _async_enter(original) if inspect.iscoroutinefunction(original) else _enter(original)
    _classes[kind] = type(kind.__name__, (kind,), made)
    return _classes[kind]


def _enter(original: Any) -> Any:
    @functools.wraps(original)
    def enter(self: Any) -> Any:
        session: Session | None = vars(self).get(_SESSION)
        try:
            connection = original(self)
        except BaseException as error:
            _failed(session, error)
            raise
        if session is not None:
            session.door.connected(connection, session)
        return connection

    return enter


def _async_enter(original: Any) -> Any:
    @functools.wraps(original)
    async def enter(self: Any) -> Any:
        session: Session | None = vars(self).get(_SESSION)
        try:
            connection = await original(self)
        except BaseException as error:
            _failed(session, error)
            raise
        if session is not None:
            session.door.connected(connection, session)
        return connection

    return enter


def _failed(session: Session | None, error: BaseException) -> None:
    if session is not None:
        bodies.end(session, "cut", error)


def watch(connection: Any, session: Session, *, sends: tuple[str, ...], receives: str, closes: str = "close") -> None:
    """Have the session see what goes over ``connection``: one object, whose class is left alone."""
    own = vars(connection)
    for name in sends:
        if (original := getattr(connection, name, None)) is not None:
            own[name] = _sender(original, session)
    own[receives] = _receiver(getattr(connection, receives), session)
    own[closes] = _closer(getattr(connection, closes), session)


def _sender(original: Callable[..., Any], session: Session) -> Any:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def send_async(*args: Any, **kwargs: Any) -> Any:
            turn = await run_async(_admission(session, args, kwargs), session.door.meter.enforcer.way)
            try:
                return await original(*args, **kwargs)
            except Exception as error:
                _unsent(session, turn, error)
                raise

        return send_async

    @functools.wraps(original)
    def send(*args: Any, **kwargs: Any) -> Any:
        turn = run(_admission(session, args, kwargs), session.door.meter.enforcer.way)
        try:
            return original(*args, **kwargs)
        except Exception as error:
            _unsent(session, turn, error)
            raise

    return send


def _admission(session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Steps[Turn | None]:
    try:
        return (yield from session.sending(args[0] if args else next(iter(kwargs.values()))))
    except BudgetExceeded:
        raise
    except Exception as error:
        log_once("read a request", error)
        return None


def _unsent(session: Session, turn: Turn | None, error: Exception) -> None:
    if turn is not None:
        try:
            session.give_back(turn, error)
        except Exception as problem:
            log_once("end a failed call", problem)


def _receiver(original: Callable[..., Any], session: Session) -> Any:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def receive_async(*args: Any, **kwargs: Any) -> Any:
            try:
                data = await original(*args, **kwargs)
            except Exception as error:
                _broken(session, error)
                raise
            _arrived(session, data)
            return data

        return receive_async

    @functools.wraps(original)
    def receive(*args: Any, **kwargs: Any) -> Any:
        try:
            data = original(*args, **kwargs)
        except Exception as error:
            _broken(session, error)
            raise
        _arrived(session, data)
        return data

    return receive


def _arrived(session: Session, data: Any) -> None:
    try:
        session.arrived(data if isinstance(data, bytes) else bytes(data, "utf-8"))
    except ValueError:
        pass  # no JSON: the SDK will say so
    except Exception as error:
        log_once("read a message of a live connection", error)


def _broken(session: Session, error: Exception) -> None:
    """Receiving failed. Anything but the end of the connection can be tried again."""
    if any("ConnectionClosed" in kind.__name__ for kind in type(error).__mro__):
        bodies.end(session, "cut", error)


def _closer(original: Callable[..., Any], session: Session) -> Any:
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def close_async(*args: Any, **kwargs: Any) -> Any:
            try:
                return await original(*args, **kwargs)
            finally:
                bodies.end(session, "closed")

        return close_async

    @functools.wraps(original)
    def close(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            bodies.end(session, "closed")

    return close
