"""Commands to one Redis server on connections of the ledger's own, by the shortest way the library offers.

``execute_command`` of the library packs every word anew, checks a connection out of a pool and counts what it does:
more work than the round trip. Here a command is one piece of bytes whose constant beginning is packed once, and a
connection goes from hand to hand. Both are what the library itself does below.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Word = str | bytes | int


class Verb:
    """The words that a command begins with, which stay the same.

    >>> Verb("GET").packed(["key"])
    b'*2\\r\\n$3\\r\\nGET\\r\\n$3\\r\\nkey\\r\\n'
    """

    __slots__ = ("_start", "words")

    def __init__(self, *words: Word) -> None:
        self.words = words
        self._start = b"".join(_packed(words))

    def packed(self, more: Iterable[Word]) -> bytes:
        """The command as it goes over the wire, with more words behind it."""
        rest = _packed(more)
        return b"*%d\r\n%b%b" % (len(self.words) + len(rest), self._start, b"".join(rest))


def _packed(words: Iterable[Word]) -> list[bytes]:
    found = []
    for word in words:
        text = word if type(word) is bytes else str(word).encode()
        found.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return found


Command = tuple[Any, ...]
"""A verb and its arguments."""


class Wire:
    """Runs commands for any number of threads; each connection is used by one at a time.

    Args:
        client: a ``redis.Redis``; its pool makes the connections.
    """

    def __init__(self, client: Any) -> None:
        from redis import exceptions

        self._make = client.connection_pool.make_connection
        self._broken, self._refused = exceptions.ConnectionError, exceptions.ResponseError
        self._idle: list[Any] = []

    def __call__(self, command: Command) -> Any:
        packed = [command[0].packed(command[1:])]
        try:
            connection, known = self._idle.pop(), True
        except IndexError:
            connection, known = self._make(), False
        try:
            try:
                connection.send_packed_command(packed)
                return connection.read_response()
            except self._broken:
                # The server ended a connection that was idle, or was restarted. What a script does, it does once.
                connection.disconnect()
                if not known:
                    raise
                connection.send_packed_command(packed)
                return connection.read_response()
        except self._refused:
            raise  # the answer was read
        except BaseException:
            connection.disconnect()  # an answer that still comes must not be taken for that of the next command
            raise
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().disconnect()


class AsyncWire:
    """:class:`Wire` for one event loop."""

    def __init__(self, client: Any) -> None:
        from redis import exceptions

        self._make = client.connection_pool.make_connection
        self._broken, self._refused = exceptions.ConnectionError, exceptions.ResponseError
        self._idle: list[Any] = []

    async def __call__(self, command: Command) -> Any:
        packed = [command[0].packed(command[1:])]
        known = bool(self._idle)
        connection = self._idle.pop() if known else self._make()
        try:
            try:
                await connection.send_packed_command(packed)
                return await connection.read_response()
            except self._broken:
                await connection.disconnect(nowait=True)
                if not known:
                    raise
                await connection.send_packed_command(packed)
                return await connection.read_response()
        except self._refused:
            raise
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._idle.append(connection)

    async def aclose(self) -> None:
        """Close the connections."""
        while self._idle:
            await self._idle.pop().disconnect()
