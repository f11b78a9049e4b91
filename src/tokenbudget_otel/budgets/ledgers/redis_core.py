"""What a Redis ledger asks and how it reads the answers, without doing either: both clients run these steps.

Every operation is a generator. It yields commands for the server, gets the answers sent in (an exception, where the
server or the way to it failed), and returns the result. The command :data:`REBUILD` asks whoever runs it to run
:meth:`RedisCore.rebuild` first, one at a time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, TypeVar

from tokenbudget_otel.budgets.amounts import COUNTED, Amount
from tokenbudget_otel.budgets.ledger import (
    Balance,
    Claim,
    Gone,
    Granted,
    LedgerCold,
    LedgerConflict,
    LedgerUnavailable,
    Limits,
    OpenHold,
    Outcome,
    Refused,
    Shortage,
    checked,
    distinct,
)
from tokenbudget_otel.budgets.ledgers.redis_mirror import Epoch, Mirror, run_of
from tokenbudget_otel.budgets.ledgers.redis_scripts import KEYS, scripts
from tokenbudget_otel.budgets.ledgers.redis_wire import Command, Verb, Word

log: Final = logging.getLogger("tokenbudget_otel.budgets")

T = TypeVar("T")
Steps = Generator[Command, Any, T]

REBUILD: Final[Command] = (Verb("rebuild"),)
LARGEST: Final = COUNTED
"""Lua counts in doubles."""

_PAGE: Final = 500
_HEAD: Final = struct.Struct("<dddddB").pack
_CLAIM: Final = struct.Struct("<ddddddddBHHH").pack
_SIZE: Final = struct.Struct("<H").pack
_NONE: Final = float("nan")
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_canonical: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
_GRANTED: Final = Granted()
_REPLAYED: Final = Granted(replayed=True)
_OUTCOMES: Final[dict[bytes, Outcome]] = {b"D": "done", b"L": "late", b"P": "replayed", b"I": "ignored"}
_GONE: Final[dict[bytes, Gone]] = {
    b"S": Gone("settled"),
    b"L": Gone("released"),
    b"E": Gone("expired"),
}
_UNKNOWN: Final = Gone(None)
_LIMITS: Final = KEYS.index("limits") + 1
_DECLARED: Final = KEYS.index("declared") + 1

Note = Callable[[bytes, int, bytes], None]
"""What to learn from an answer: its code, the seq, what is spent under the keys of the claims."""


class UnfitServer(LedgerUnavailable, ValueError):  # noqa: N818 - says what it is
    """A Redis server that would lose what is counted in it. The message names the setting and the remedy."""


class Script:
    """One script: the start of the command that runs it by its hash, and of the one that brings its text."""

    __slots__ = ("by_hash", "by_text")

    def __init__(self, text: str, keys: Sequence[bytes], *same: bytes) -> None:
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.by_hash = Verb("EVALSHA", digest, len(keys), *keys, *same)
        self.by_text = Verb("EVAL", text, len(keys), *keys, *same)


class RedisCore:
    """The steps of every operation, and what this process remembers between them.

    Args:
        root: common part of the names of all keys.
        clock: seconds since 1970, to be passed along instead of the server's time; for tests.
        missing: what the client raises for a script that the server does not have.
    """

    def __init__(
        self,
        *,
        root: str,
        keep_windows: float,
        remember: float,
        remember_expired: float,
        grace: float,
        clock: Callable[[], float] | None,
        missing: type[Exception],
    ) -> None:
        if not root or set(root) & set("{}"):
            raise ValueError(f"root names the keys of a ledger and takes no braces: {root!r}")
        keys = [f"{{{root}}}:{name}".encode() for name in KEYS]
        texts = scripts(keep_windows=keep_windows, remember=remember, remember_expired=remember_expired, grace=grace)
        self.root = root
        self.epoch = Epoch()
        self.mirror = Mirror(remember)
        # Fewer words: most scripts touch the first three keys only.
        self._keys = {name: keys if name in ("restore", "put", "all") else keys[:3] for name in texts}
        self._opening = {name: Script(texts.pop(name), self._keys[name]) for name in ("inspect", "restore")}
        self._texts = texts
        self._old = False
        self._clock = clock
        self._missing = missing
        self._warned = False

    # -- asking ----------------------------------------------------------------------------------------------

    def _answer(self, answer: Any) -> Any:
        """What the server said; ``None`` if it does not have the script."""
        if isinstance(answer, Exception):
            if isinstance(answer, self._missing):
                return None
            raise LedgerUnavailable(
                f"Redis, where budgets are counted, failed: {answer or type(answer).__name__}"
            ) from answer
        return answer.encode() if type(answer) is str else answer

    def _script(self, name: str, *args: Word) -> Steps[Any]:
        """Run a script that is the same for every server."""
        script = self._opening[name]
        answer = self._answer((yield (script.by_hash, *args)))
        if answer is None:
            answer = self._answer((yield (script.by_text, *args)))
        return answer

    def _info(self) -> Steps[dict[str, str]]:
        text = _bytes((yield from self._script("inspect"))).decode()
        return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)

    def _head(self, epoch: Epoch, ttl: float = -1.0, look: bool = True) -> bytes:
        now = -1.0 if self._clock is None else self._clock()
        return _HEAD(epoch.seq, epoch.opens, epoch.start, now, ttl, look)

    def _ask(
        self, name: str, *args: Word, ttl: float = -1.0, note: Note | None = None
    ) -> Steps[tuple[bytes, bytes, Any]]:
        """Run a script in the epoch this process knows, and learn from the answer.

        Returns the code of the answer, its last part, and whatever the script returned beside.
        """
        for _ in range(4):
            epoch = self.epoch
            if epoch.closed:
                yield REBUILD
                continue
            script = epoch.scripts[name]
            answer = yield (script.by_hash, self._head(epoch, ttl, self._old), *args)
            more = None
            if type(answer) is not bytes:
                answer = self._answer(answer)
                if answer is None:
                    # This server has only just begun to run, or is another; or somebody took its scripts away.
                    if (yield from self._info()).get("run_id") != epoch.run:
                        epoch.closed = True
                        continue
                    answer = self._answer((yield (script.by_text, self._head(epoch, ttl), *args)))
                if type(answer) is list:
                    answer, *more = answer
                    answer = _bytes(answer)
            if answer == b"C":
                epoch.closed = True
                continue
            if answer == b"W":
                raise LedgerCold(
                    "Redis lost what was counted, and processes are putting back what they know: try again"
                )
            head, spent, rest = answer.split(b"|", 2)
            code, seq = head[:1], int(head[1:])
            with self.mirror.lock:
                # Another thread may have found meanwhile that what this answer says is lost. Asked again, the
                # operation is done once, by its id, whether it is lost or not.
                if epoch.closed:
                    continue
                if seq > epoch.seq:
                    epoch.seq = seq
                if note is not None:
                    note(code, seq, spent)
            return code, rest, more
        raise LedgerCold("Redis loses what is counted again and again")

    # -- beginning, and beginning again ----------------------------------------------------------------------

    def rebuild(self) -> Steps[None]:
        """Judge the server, take part in its epoch, and put back what this process knows of the one before."""
        before = self.epoch
        if not before.closed:
            return
        yield from self._judge()
        with self.mirror.lock:
            before.closed = True
            parts = list(self.mirror.parts(_PAGE))
        new = uuid.uuid4().hex
        said: list[tuple[int, bytes, Sequence[Claim]]] = []
        text = b""
        for claims, part in parts:
            answer, now = yield from self._script(
                "restore", before.text, self._head(before), before.id, new, _encode(part)
            )
            if text and _bytes(now)[:32] != text[:32]:
                raise LedgerCold("Redis loses what is counted again and again")
            text = _bytes(now)
            code, spent, _ = _bytes(answer).split(b"|", 2)
            said.append((int(code[1:]), spent, claims if spent else ()))
        with self.mirror.lock:
            for seq, spent, named in said:
                self.mirror.saw(seq, spent, named)
            self.epoch = Epoch(text, max(seq for seq, _, _ in said), self._scripts_of(text))
        if before.id and before.id != self.epoch.id:
            log.warning(
                "Redis lost what was counted under %r, or a part of it; this process has put back what it knew",
                self.root,
            )

    def _scripts_of(self, epoch: bytes) -> Mapping[str, Script]:
        """The scripts of the server that an epoch began in: no other has them, whoever else uses them."""
        about = f"-- {run_of(epoch)}\n"
        return {name: Script(about + text, self._keys[name], epoch) for name, text in self._texts.items()}

    def check(self) -> Steps[None]:
        """Judge the server, and take part in its epoch."""
        if self.epoch.closed:
            yield REBUILD
        else:
            yield from self._judge()

    def _judge(self) -> Steps[None]:
        info = yield from self._info()
        unfit(info)
        # Before Redis 7, scripts are kept with the data and sent to replicas.
        self._old = _version(info) < [7, 0]
        if info.get("aof_enabled") == "0" and not self._warned:
            saves = yield (Verb("CONFIG", "GET", "save"),)  # forbidden by some hosts, whose servers are kept otherwise
            if isinstance(saves, Exception) or "".join(_flat(saves)) != "save":
                return
            self._warned = True
            log.warning(
                "Redis keeps nothing on disk: budgets counted under %r begin anew when it restarts while no process "
                "runs that knows them. Set 'appendonly yes'",
                self.root,
            )

    # -- the operations of the contract ------------------------------------------------------------------------

    def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None, owner: str
    ) -> Steps[Granted | Refused]:
        """See :meth:`.Ledger.reserve`."""
        counted = _sized(claims)
        ran_out = "" if on_expiry is None else _encode(_plain(on_expiry))

        def note(code: bytes, seq: int, spent: bytes) -> None:
            if code == b"G":
                self.mirror.reserved(hold_id, counted, ttl, ran_out, owner)
                if spent:
                    self.mirror.saw(seq, spent, counted)

        code, rest, _ = yield from self._ask("reserve", hold_id, owner, ran_out, _packed(claims), ttl=ttl, note=note)
        if code == b"X":
            raise LedgerConflict(f"hold {hold_id!r} was made for something else")
        return _granted(code, rest, claims)

    def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim], ttl: float | None
    ) -> Steps[Granted | Refused | Gone]:
        """See :meth:`.Ledger.extend`."""
        counted = _sized(claims)

        def note(code: bytes, seq: int, spent: bytes) -> None:
            if code == b"G" or code == b"P":
                self.mirror.extended(hold_id, step, counted, ttl)
                self.mirror.saw(seq, spent, counted)
            elif code == b"O":
                self.mirror.gone((hold_id,))

        until = -1.0 if ttl is None else ttl
        code, rest, _ = yield from self._ask("extend", hold_id, step, _packed(claims), ttl=until, note=note)
        if code == b"X":
            raise LedgerConflict(f"step {step!r} of hold {hold_id!r} was made for something else")
        if code == b"S":
            raise ValueError(f"hold {hold_id!r} does not claim {rest.decode()!r} and cannot be extended there")
        if code == b"O":
            return _GONE.get(rest, _UNKNOWN)
        return _granted(code, rest, claims)

    def renew(self, hold_ids: Sequence[str], ttl: float) -> Steps[tuple[str, ...]]:
        """See :meth:`.Ledger.renew`."""
        gone: list[str] = []
        for start in range(0, len(hold_ids), _PAGE):
            _, _, more = yield from self._ask("renew", _encode(hold_ids[start : start + _PAGE]), ttl=ttl)
            gone += [_text(each) for each in more[0]]
        with self.mirror.lock:
            self.mirror.gone(gone)
        return tuple(gone)

    def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None
    ) -> Steps[Outcome]:
        """See :meth:`.Ledger.settle`."""
        came_to = _came_to(actual, apart)
        mine = self.mirror.claims_of(hold_id)
        counted = _sized(claims) if mine is None or claims != mine else mine
        named = counted if mine is None else mine

        def note(code: bytes, seq: int, spent: bytes) -> None:
            # Only with what is spent now does it count as ended: else it would be missing in what is put back.
            if spent and code != b"X":
                self.mirror.saw(seq, spent, named)
                self.mirror.ended(hold_id, "S", came_to, named)

        code = b"U"
        if mine is not None:
            code, _, _ = yield from self._ask("settle", hold_id, came_to, note=note)
        if code == b"U":
            named = counted
            code, _, _ = yield from self._ask("settle", hold_id, came_to, _packed(counted), note=note)
        if code == b"X":
            raise LedgerConflict(f"hold {hold_id!r} was settled with another amount than {actual!r}")
        return _OUTCOMES[code]

    def release(self, hold_id: str) -> Steps[Outcome]:
        """See :meth:`.Ledger.release`."""
        mine = self.mirror.claims_of(hold_id)

        def note(code: bytes, seq: int, spent: bytes) -> None:
            if mine is not None and code != b"I":
                self.mirror.saw(seq, spent, mine)
                self.mirror.ended(hold_id, "L", "", mine)

        code, _, _ = yield from self._ask("release", hold_id, note=note)
        return _OUTCOMES[code]

    def book(
        self, entry_id: str, state: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None
    ) -> Steps[Outcome]:
        """See :meth:`.Ledger.charge` (state ``S``) and :meth:`.Ledger.adjust` (state ``A``)."""
        counted = _sized(claims)
        came_to = _came_to(actual, apart, signed=state == "A")

        def note(code: bytes, seq: int, spent: bytes) -> None:
            if code != b"X":
                self.mirror.saw(seq, spent, counted)
                self.mirror.ended(entry_id, state, came_to, counted)

        code, _, _ = yield from self._ask("book", entry_id, state, came_to, _packed(counted), note=note)
        if code == b"X":
            raise LedgerConflict(f"id {entry_id!r} was used before, for something else")
        return _OUTCOMES[code]

    def expire(self, at_most: int | None) -> Steps[tuple[str, ...]]:
        """See :meth:`.Ledger.expire`."""
        ended: list[str] = []
        while at_most is None or len(ended) < at_most:
            most = _PAGE if at_most is None else min(_PAGE, at_most - len(ended))
            _, _, (found, ids) = yield from self._ask("expire", most)
            ended += [_text(each) for each in ids]
            if found < most:
                break
        return tuple(ended)

    def read(self, keys: Sequence[str]) -> Steps[tuple[Balance, ...]]:
        """See :meth:`.Ledger.read`."""
        _, _, more = yield from self._ask("read", _encode(keys))
        numbers = [int(number) for number in more[0].split()]
        return tuple([Balance(key, *numbers[6 * index : 6 * index + 6]) for index, key in enumerate(keys)])

    def balances(self, prefix: str) -> Steps[tuple[Balance, ...]]:
        """See :meth:`.Ledger.balances`. In pages: a key that changes meanwhile is as it was or as it is."""
        found: dict[str, Balance] = {}
        for key, numbers in _pairs((yield from self._pages("balances", prefix))):
            found[key] = Balance(key, *[int(number) for number in numbers.split()])
        return tuple(sorted(found.values()))

    def holds(self, key: str | None) -> Steps[tuple[OpenHold, ...]]:
        """See :meth:`.Ledger.holds`."""
        found: dict[str, OpenHold] = {}
        for hold_id, times, owner, claims in (yield from self._pages("holds")):
            created, expires = [float(each) for each in times.split()]
            named = [Claim(each, *map(int, numbers.split())) for each, numbers in _pairs(claims)]  # type: ignore[arg-type]
            if key is None or any(claim.key == key for claim in named):
                found[_text(hold_id)] = OpenHold(_text(hold_id), tuple(named), created, expires, _text(owner))
        return tuple(sorted(found.values(), key=lambda hold: (hold.created, hold.id)))

    def _pages(self, name: str, *args: str) -> Steps[list[Any]]:
        found: list[Any] = []
        cursor = "0"
        while True:
            _, _, (after, page) = yield from self._ask(name, cursor, *args)
            found += page
            cursor = _text(after)
            if cursor == "0":
                return found

    def forget(self, keys: Sequence[str]) -> Steps[None]:
        """See :meth:`.Ledger.forget`."""
        yield from self._ask("forget", _encode(keys))
        with self.mirror.lock:
            self.mirror.forgotten(keys)

    def first(self, mark: str, ends: float | None) -> Steps[bool]:
        """See :meth:`.Ledger.first`."""
        code, _, _ = yield from self._ask("first", mark, "+inf" if ends is None else repr(float(ends)))
        return code == b"D"

    def set_limits(self, policy: str, limits: Limits | None) -> Steps[None]:
        """See :meth:`.Ledger.set_limits`."""
        if limits is not None and max([each or 0 for each in limits]) > LARGEST:
            raise ValueError(f"{limits!r} is beyond what Redis counts exactly ({LARGEST})")
        return (yield from self._put(_LIMITS, policy, None if limits is None else _encode(list(limits))))

    def limits(self) -> Steps[Mapping[str, Limits]]:
        """See :meth:`.Ledger.limits`."""
        _, _, more = yield from self._ask("all", _LIMITS)
        return {policy: Limits(*json.loads(text)) for policy, text in _pairs(more[0])}

    def declare(self, name: str, document: str) -> Steps[None]:
        """See :meth:`.Ledger.declare`."""
        return (yield from self._put(_DECLARED, name, document))

    def declared(self) -> Steps[Mapping[str, str]]:
        """See :meth:`.Ledger.declared`."""
        _, _, more = yield from self._ask("all", _DECLARED)
        return {name: _text(text) for name, text in _pairs(more[0])}

    def _put(self, where: int, name: str, text: str | None) -> Steps[None]:
        yield from self._ask("put", where, name, *(() if text is None else (text,)))
        with self.mirror.lock:
            self.mirror.said(where, name, text)


def unfit(info: Mapping[str, str]) -> None:
    """Judge a server by what ``INFO`` says.

    Raises:
        UnfitServer: if it would not keep what is counted in it.

    >>> unfit({"redis_version": "7.0.15", "role": "master", "maxmemory_policy": "noeviction"})
    """
    if _version(info) < [6, 2]:
        raise UnfitServer(
            f"budgets need Redis 6.2 or newer, and this server is {info.get('redis_version')}: upgrade it"
        )
    if (role := info.get("role")) != "master":
        raise UnfitServer(f"this Redis server is a read-only replica (role {role}): give the URL of its primary")
    if (policy := info.get("maxmemory_policy")) != "noeviction":
        raise UnfitServer(
            f"this Redis server may evict what is counted in it (maxmemory-policy {policy}): "
            "set 'maxmemory-policy noeviction', or use a server of its own for budgets"
        )


def _version(info: Mapping[str, str]) -> list[int]:
    return [int(part) for part in info.get("redis_version", "0").split(".")[:2]]


def _sized(claims: Sequence[Claim]) -> Sequence[Claim]:
    counted = distinct(claims)
    for claim in claims:
        if max(claim[1], claim[2], claim[3], claim[4] or 0, claim[5] or 0, claim[6] or 0) > LARGEST:
            raise ValueError(f"{claim!r} is beyond what Redis counts exactly ({LARGEST})")
    return counted


def _packed(claims: Sequence[Claim]) -> bytes:
    """Claims as the scripts read them: numbers (what is not there is not one), and texts behind their sizes."""
    parts: list[bytes] = []
    for key, nano_usd, tokens, calls, usd_limit, token_limit, call_limit, hard, ends, older, policy, share, _ in claims:
        name, set_by = key.encode(), policy.encode()
        parts += (
            _CLAIM(
                nano_usd,
                tokens,
                calls,
                _NONE if usd_limit is None else usd_limit,
                _NONE if token_limit is None else token_limit,
                _NONE if call_limit is None else call_limit,
                _NONE if ends is None else ends,
                share,
                hard,
                len(name),
                len(set_by),
                len(older),
            ),
            name,
            set_by,
        )
        for each in older:
            part = each.encode()
            parts += (_SIZE(len(part)), part)
    return b"".join(parts)


def _plain(amount: Amount) -> list[int | None]:
    if max(abs(amount.nano_usd or 0), abs(amount.tokens), abs(amount.calls)) > LARGEST:
        raise ValueError(f"{amount!r} is beyond what Redis counts exactly ({LARGEST})")
    return [amount.nano_usd, amount.tokens, amount.calls]


def _came_to(actual: Amount, apart: Mapping[str, Amount] | None, signed: bool = False) -> str:
    """Amounts as text, the same for the same amounts."""
    if not signed:
        checked(actual, apart)
    nano_usd, tokens, calls = _plain(actual)
    if not apart:
        return f"[[{'null' if nano_usd is None else nano_usd},{tokens},{calls}],{{}}]"  # several times as fast
    return _canonical([[nano_usd, tokens, calls], {key: _plain(amount) for key, amount in apart.items()}])


def _granted(code: bytes, rest: bytes, claims: Sequence[Claim]) -> Granted | Refused:
    if code == b"P":
        return _REPLAYED
    if not rest:
        return _GRANTED
    words = [None if word == b"-" else int(word) for word in rest.split()]
    found = []
    for start in range(0, len(words), 10):
        index, *numbers = words[start : start + 10]
        claim = claims[index]  # type: ignore[index]
        *_, usd_limit, token_limit, call_limit = numbers
        limited = claim._replace(limit_nano_usd=usd_limit, limit_tokens=token_limit, limit_calls=call_limit)
        found.append(Shortage(limited, Balance(claim.key, *numbers[:6])))  # type: ignore[arg-type]
    return Granted(tuple(found)) if code == b"G" else Refused(tuple(found))


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _text(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text


def _pairs(flat: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(_text(flat[index]), flat[index + 1]) for index in range(0, len(flat), 2)]


def _flat(answer: Any) -> list[str]:
    """The words of an answer, which is a list or a mapping as the client likes it."""
    words = [word for pair in answer.items() for word in pair] if isinstance(answer, dict) else answer
    return [_text(word) for word in words]
