"""What is special about the ledger in Redis: servers that are refused, time, and stores that lose what they knew."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

from redis_server import RedisServer, free_port, need_redis, shared_server
from tokenbudget_otel.budgets import (
    Amount,
    AsyncRedisLedger,
    Balance,
    Claim,
    Granted,
    LedgerCold,
    LedgerUnavailable,
    Limits,
    RedisLedger,
    Refused,
)

GRACE = 0.15
PLENTY = 2.0
"""Seconds to answer, where a test is not about how long that takes."""


def usd(key: str, nano_usd: int, limit: int | None = None, **more) -> Claim:
    return Claim(key, nano_usd=nano_usd, calls=1, limit_nano_usd=limit, **more)


def ledger_of(server: RedisServer, **options) -> RedisLedger:
    return RedisLedger(server.url, **{"timeout": PLENTY, "grace": GRACE, "root": "tests", **options})


def money(ledger, key: str) -> tuple[int, int]:
    balance = ledger.balance(key)
    return balance.spent_nano_usd, balance.reserved_nano_usd


@pytest.fixture
def server():
    with RedisServer() as one:
        yield one


class TestServersThatAreRefused:
    @pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
    def test_one_that_may_evict(self, policy):
        with RedisServer(maxmemory="64mb", maxmemory_policy=policy) as server:
            with pytest.raises(ValueError, match=rf"maxmemory-policy {policy}.*set 'maxmemory-policy noeviction'"):
                ledger_of(server)
            assert server.client().dbsize() == 0

    def test_a_replica(self, server):
        with (
            RedisServer(replicaof=f"127.0.0.1 {server.port}") as replica,
            pytest.raises(ValueError, match=r"read-only replica.*primary"),
        ):
            ledger_of(replica)

    async def test_when_an_asyncio_ledger_first_reaches_it(self):
        with RedisServer(maxmemory_policy="allkeys-lru") as server:
            ledger = AsyncRedisLedger(server.url, timeout=PLENTY)
            with pytest.raises(ValueError, match="noeviction"):
                await ledger.check()
            with pytest.raises(LedgerUnavailable, match="noeviction"):
                await ledger.reserve("h", [usd("k", 1)], 60)
            await ledger.aclose()

    def test_one_that_was_away_when_the_ledger_was_made(self):
        port = free_port()
        ledger = RedisLedger(f"redis://127.0.0.1:{port}", timeout=PLENTY)
        with pytest.raises(LedgerUnavailable):
            ledger.check()
        server = RedisServer.__new__(RedisServer)
        RedisServer.__init__(server, port=str(port), maxmemory_policy="allkeys-lru")
        with server, pytest.raises(ValueError, match="noeviction"):
            ledger.check()

    def test_one_that_keeps_nothing_is_warned_of_once(self, server, caplog):
        with caplog.at_level(logging.WARNING, "tokenbudget_otel.budgets"):
            ledger_of(server).check()
        assert [record.message for record in caplog.records if "appendonly yes" in record.message].__len__() == 1

    def test_one_that_keeps_what_is_counted_is_not(self, caplog):
        with RedisServer(appendonly="yes") as server, caplog.at_level(logging.WARNING, "tokenbudget_otel.budgets"):
            ledger_of(server)
        assert not caplog.records

    @pytest.mark.parametrize("root", ["", "a{b", "}"])
    def test_a_root_that_would_scatter_the_keys(self, root):
        need_redis()
        with pytest.raises(ValueError, match="root"):
            RedisLedger("redis://localhost:1", root=root)


class TestSizes:
    @pytest.mark.parametrize(
        "ask",
        [
            lambda ledger: ledger.reserve("h", [usd("k", 2**53)], 60),
            lambda ledger: ledger.reserve("h", [usd("k", 1, 2**53)], 60),
            lambda ledger: ledger.reserve("h", [usd("k", 1)], 60, Amount(0, 2**53)),
            lambda ledger: ledger.extend("h", "s", [Claim("k", tokens=2**53)]),
            lambda ledger: ledger.settle("h", Amount(2**53), [usd("k", 1)]),
            lambda ledger: ledger.settle("h", Amount(1), [usd("k", 1)], {"k": Amount(2**53)}),
            lambda ledger: ledger.charge("h", Amount(1, 2**53), [usd("k", 1)]),
            lambda ledger: ledger.adjust("h", Amount(-(2**53)), [usd("k", 1)]),
            lambda ledger: ledger.set_limits("p", Limits(2**53)),
        ],
    )
    def test_beyond_what_lua_counts_exactly(self, ask):
        ledger = ledger_of(shared_server(), root=uuid.uuid4().hex)
        with pytest.raises(ValueError, match=str(2**53 - 1)):
            ask(ledger)
        assert ledger.balances() == ()

    def test_the_largest_is_exact(self):
        ledger = ledger_of(shared_server(), root=uuid.uuid4().hex)
        largest = ledger.largest
        ledger.charge("c", Amount(largest - 7), [usd("k", 0)])
        assert isinstance(ledger.reserve("h", [usd("k", 8, largest)], 60), Refused)
        assert ledger.reserve("h", [usd("k", 7, largest)], 60) == Granted()
        assert money(ledger, "k") == (largest - 7, 7)
        ledger.settle("h", Amount(7))
        refused = ledger.reserve("i", [usd("k", 1, largest, per_mille=999)], 60)
        assert refused.shortages[0].balance == Balance("k", largest, 0, 2)
        assert refused.shortages[0].claim.limit_nano_usd == largest * 999 // 1000


class TestAServerThatDoesNotAnswer:
    def test_a_dead_port(self):
        need_redis()
        began = time.monotonic()
        ledger = RedisLedger(f"redis://127.0.0.1:{free_port()}")
        with pytest.raises(LedgerUnavailable) as caught:
            ledger.reserve("h", [usd("k", 1)], 60)
        assert time.monotonic() - began < 0.3
        assert caught.value.__cause__ is not None

    def test_a_stopped_one_is_waited_for_fifty_milliseconds(self, server):
        ledger = RedisLedger(server.url)
        ledger.check()
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(2):  # on a connection that was there, and on a new one
                began = time.monotonic()
                with pytest.raises(LedgerUnavailable):
                    ledger.reserve("h", [usd("k", 1, 1)], 60)
                assert 0.04 < time.monotonic() - began < 0.25
        finally:
            server.process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
        assert isinstance(ledger.reserve("h", [usd("k", 1, 1)], 60), Granted)  # by its id, done or not
        assert money(ledger, "k") == (0, 1)

    async def test_with_asyncio(self, server):
        ledger = AsyncRedisLedger(server.url)
        await ledger.check()
        server.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve("h", [usd("k", 1, 1)], 60)
            assert 0.04 < time.monotonic() - began < 0.25
        finally:
            server.process.send_signal(signal.SIGCONT)
        await ledger.aclose()

    def test_a_full_one(self, server):
        ledger = ledger_of(server)
        ledger.check()
        server.client().config_set("maxmemory", "1mb")
        with pytest.raises(LedgerUnavailable, match="maxmemory"):
            ledger.reserve("h", [usd("k", 1)], 60)

    def test_one_that_became_a_replica(self, server):
        ledger = ledger_of(server)
        ledger.check()
        server.client().replicaof("127.0.0.1", server.port)
        with pytest.raises(LedgerUnavailable):
            ledger.reserve("h", [usd("k", 1)], 60)

    def test_scripts_are_sent_again(self, server):
        ledger = ledger_of(server)
        ledger.reserve("h", [usd("k", 5)], 60)
        server.client().script_flush()
        assert ledger.settle("h", Amount(3)) == "done"
        assert money(ledger, "k") == (3, 0)


class TestConnections:
    """Those of the ledger's own."""

    def test_one_that_the_server_ended(self, server):
        ledger = ledger_of(server)
        for number in range(3):
            ledger.reserve(str(number), [usd("k", 1, 9)], 60)
            server.client().client_kill_filter(_type="normal", skipme=True)
        assert money(ledger, "k") == (0, 3)
        ledger.close()
        assert money(ledger, "k") == (0, 3)

    async def test_one_that_the_server_ended_with_asyncio(self, server):
        ledger = AsyncRedisLedger(server.url, timeout=PLENTY)
        for number in range(3):
            await ledger.reserve(str(number), [usd("k", 1, 9)], 60)
            server.client().client_kill_filter(_type="normal", skipme=True)
        assert (await ledger.balance("k")).reserved_nano_usd == 3
        await ledger.aclose()

    async def test_an_operation_that_is_cancelled_leaves_its_answer_to_nobody(self, server):
        ledger = AsyncRedisLedger(server.url, timeout=PLENTY)
        await ledger.check()
        server.process.send_signal(signal.SIGSTOP)
        task = asyncio.create_task(ledger.reserve("h", [usd("k", 1, 9)], 60))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.process.send_signal(signal.SIGCONT)
        assert await ledger.settle("h", Amount(3), [usd("k", 1)]) in ("done", "late")
        assert (await ledger.balance("k"))[1:5] == (3, 0, 1, 0)
        await ledger.aclose()

    def test_an_operation_that_is_interrupted_leaves_its_answer_to_nobody(self, server):
        ledger = ledger_of(server)
        (connection,) = ledger._wire._idle

        def interrupted():
            raise KeyboardInterrupt

        connection.read_response = interrupted
        with pytest.raises(KeyboardInterrupt):
            ledger.reserve("h", [usd("k", 1, 9)], 60)
        del connection.read_response
        assert ledger.settle("h", Amount(3), [usd("k", 1)]) in ("done", "late")
        assert money(ledger, "k") == (3, 0)

    def test_as_many_as_threads(self, server):
        ledger = ledger_of(server)
        start = threading.Barrier(8)

        def spend(number):
            start.wait()
            for each in range(50):
                ledger.reserve(f"{number}-{each}", [usd("k", 2, 10**6)], 60)
                ledger.settle(f"{number}-{each}", Amount(1))

        threads = [threading.Thread(target=spend, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert money(ledger, "k") == (400, 0)
        assert 1 <= len(ledger._wire._idle) <= 8


class TestDeadlines:
    @pytest.mark.parametrize(
        "sooner",
        [
            lambda ledger: ledger.reserve("h", [usd("k", 5, 9)], 10),
            lambda ledger: (ledger.reserve("h", [usd("k", 5, 9)], 200), ledger.extend("h", "s", ttl=10)),
            lambda ledger: (ledger.reserve("h", [usd("k", 5, 9)], 10), ledger.settle("far", Amount(0, 0, 0))),
            lambda ledger: (ledger.reserve("h", [usd("k", 5, 9)], 10), ledger.first("mark", 1_000_005)),
        ],
    )
    def test_the_nearest_is_met_whatever_came_before(self, sooner):
        """The store knows when something is due next, and looks no sooner."""
        now, root = [1_000_000.0], uuid.uuid4().hex
        ledger = ledger_of(shared_server(), root=root, clock=lambda: now[0])
        client = shared_server().client()
        ledger.reserve("far", [usd("far", 1)], 500)
        sooner(ledger)
        for seconds, state in ((9.9, b"R"), (0.1, b"E")):
            now[0] += seconds
            ledger.reserve(f"after {seconds}", [usd("another", 1, 9)], 60)
            assert client.hget(f"{{{root}}}:holds", "h")[:1] == state


class TestAStoreThatLostWhatItKnew:
    def test_all_of_it(self, server):
        """P17. Nothing is admitted before it is rebuilt, and then it is as it was."""
        ledger = ledger_of(server)
        ledger.set_limits("p", Limits(70))
        ledger.charge("c", Amount(40, 4), [usd("k", 0, ends=time.time() + 60)])
        ledger.reserve("h", [usd("k", 20, 100), usd("other", 3)], 60, Amount(9, 9, 1), "me")
        ledger.extend("h", "s", [Claim("k", 5, limit_nano_usd=100)])
        ledger.reserve("done", [usd("k", 10, 100)], 60)
        ledger.settle("done", Amount(10, 1))
        before = ledger.balances(), [hold[:2] for hold in ledger.holds()], ledger.limits()
        server.client().flushall()
        with pytest.raises(LedgerCold):
            ledger.reserve("i", [usd("k", 1, 100)], 60)
        assert (ledger.balances(), [hold[:2] for hold in ledger.holds()], ledger.limits()) == before
        with pytest.raises(LedgerCold):
            ledger.extend("h", "t", [Claim("k", 1, limit_nano_usd=100)])
        assert ledger.renew(["h"], 60) == ()
        # What was done before is done still.
        assert ledger.charge("c", Amount(40, 4), [usd("k", 0)]) == "replayed"
        assert ledger.settle("done", Amount(10, 1)) == "replayed"
        assert ledger.extend("h", "alive", ttl=60) == Granted()
        # What ends in the meantime is booked.
        assert ledger.settle("h", Amount(25, 1)) == "done"
        time.sleep(GRACE)
        assert isinstance(ledger.reserve("i", [usd("k", 26, 100)], 60), Refused)
        assert ledger.reserve("i", [usd("k", 25, 100)], 60) == Granted()
        assert money(ledger, "k") == (75, 25)

    def test_all_of_it_and_a_newcomer_is_first(self, server):
        """A store that began as new waits as soon as somebody comes who knows that it is not."""
        knows = ledger_of(server)
        knows.charge("c", Amount(40), [usd("k", 0)])
        server.client().flushall()
        newcomer = ledger_of(server)
        newcomer.charge("d", Amount(5), [usd("k", 0)])
        knows.charge("e", Amount(1), [usd("k", 0)])
        for _ in range(2):
            with pytest.raises(LedgerCold):
                newcomer.reserve("i", [usd("k", 1, 100)], 60)
        assert money(newcomer, "k") == money(knows, "k") == (46, 0)
        time.sleep(GRACE)
        assert newcomer.reserve("i", [usd("k", 54, 100)], 60) == Granted()

    def test_two_who_know_different_things(self, server):
        one, two = ledger_of(server), ledger_of(server)
        one.charge("1", Amount(10), [usd("k", 0), usd("one", 0)])
        two.charge("2", Amount(20), [usd("k", 0), usd("two", 0)])  # knows more of k
        one.reserve("h1", [usd("k", 7, 100)], 60)
        two.reserve("h2", [usd("k", 8, 100)], 60)
        before = one.balances()
        server.client().flushall()
        one.charge("3", Amount(1), [usd("k", 0)])
        two.check()
        with pytest.raises(LedgerCold):
            two.reserve("h3", [usd("k", 1, 100)], 60)
        assert [each.key for each in before] == ["k", "one", "two"]
        k, *others = one.balances()
        assert (k[1], k[4]) == (31, 15)
        assert others == list(before[1:])

    def test_at_once(self, server):
        """In whatever order processes put things back, and how often, it comes out the same."""
        ledgers = [ledger_of(server) for _ in range(6)]
        for number, ledger in enumerate(ledgers):
            ledger.charge(f"c{number}", Amount(10), [usd("k", 0)])
            ledger.reserve(f"h{number}", [usd("k", 3)], 60)
        server.client().flushall()
        start = threading.Barrier(12)

        def come(number):
            start.wait()
            try:
                ledgers[number % 6].reserve(f"new{number}", [usd("k", 1, 78)], 60)
            except LedgerCold:
                ledgers[number % 6].settle(f"h{number % 6}", Amount(4))

        threads = [threading.Thread(target=come, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert money(ledgers[0], "k") == (84, 0)

    def test_a_part_of_it(self, tmp_path):
        """The server comes back as it was at its last snapshot."""
        with RedisServer() as server:
            one, two = ledger_of(server), ledger_of(server)
            one.charge("c", Amount(10), [usd("k", 0)])
            one.reserve("open", [usd("k", 5)], 60)
            one.reserve("ends", [usd("k", 5)], 60)
            two.reserve("theirs", [usd("k", 6)], 60)
            server.client().save()
            one.settle("ends", Amount(4))
            two.settle("theirs", Amount(7))
            two.charge("d", Amount(20), [usd("k", 0), usd("new", 0)])
            one.reserve("late", [usd("k", 2)], 60)
            server.restart()
            third = ledger_of(server)  # who knows nothing is told to wait as well
            with pytest.raises(LedgerCold):
                third.reserve("i", [usd("k", 1, 100)], 60)
            for ledger in (one, two):
                with pytest.raises(LedgerCold):
                    ledger.reserve("i", [usd("k", 1, 100)], 60)
            assert money(third, "k") == (41, 7)
            assert money(third, "new") == (20, 0)
            assert [hold.id for hold in third.holds()] == ["open", "late"]
            assert two.settle("theirs", Amount(7)) == "replayed"
            time.sleep(GRACE)
            assert third.reserve("i", [usd("k", 52, 100)], 60) == Granted()

    def test_rolled_back_while_it_ran(self, server):
        """Who has seen more changes than the store has made knows that it was put back."""
        ledger = ledger_of(server)
        ledger.charge("c", Amount(10), [usd("k", 0)])
        client = server.client()
        kept = {key: client.dump(key) for key in client.scan_iter()}
        ledger.charge("d", Amount(20), [usd("k", 0)])
        for key, value in kept.items():
            client.restore(key, 0, value, replace=True)
        with pytest.raises(LedgerCold):
            ledger.reserve("i", [usd("k", 1, 100)], 60)
        assert money(ledger, "k") == (30, 0)

    def test_nothing_of_it(self):
        """With an append-only file nothing is missing after ``kill -9``, also of processes that are gone."""
        with RedisServer(appendonly="yes", appendfsync="always") as server:
            gone = ledger_of(server)
            gone.charge("c", Amount(10), [usd("k", 0)])
            gone.reserve("h", [usd("k", 5)], 60)
            ledger = ledger_of(server)
            ledger.set_limits("p", Limits(1))
            before = gone.balances(), gone.holds(), gone.limits()
            gone.close()
            server.restart()
            with pytest.raises(LedgerCold):
                ledger.reserve("i", [usd("k", 1, 100)], 60)
            assert (ledger.balances(), ledger.holds(), ledger.limits()) == before
            time.sleep(GRACE)
            assert ledger.reserve("i", [usd("k", 1, 100)], 60) == Granted()

    def test_a_hold_that_ran_out_while_it_was_away(self, server):
        """Its owner could not renew it; so it has until after the grace."""
        ledger = ledger_of(server)
        ledger.reserve("h", [usd("k", 5)], 0.1)
        server.client().flushall()
        time.sleep(0.1)
        assert ledger.renew(["h"], 60) == ()

    async def test_with_asyncio(self, server):
        ledger = AsyncRedisLedger(server.url, timeout=PLENTY, grace=GRACE)
        await ledger.charge("c", Amount(40), [usd("k", 0)])
        server.client().flushall()
        answers = await asyncio.gather(
            *(ledger.reserve(str(number), [usd("k", 1, 100)], 60) for number in range(50)), return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {LedgerCold}
        await asyncio.sleep(GRACE)
        assert isinstance(await ledger.reserve("i", [usd("k", 61, 100)], 60), Refused)
        assert await ledger.reserve("i", [usd("k", 60, 100)], 60) == Granted()
        await ledger.aclose()

    def test_another_server_that_was_sent_a_script(self):
        """It took the place of the first just before, with all that was counted, or less: that must not hide it."""
        with RedisServer(appendonly="yes", appendfsync="always") as server:
            one, two = ledger_of(server), ledger_of(server)
            one.reserve("h", [usd("k", 1, 9)], 60)
            two.reserve("i", [usd("k", 1, 9)], 60)
            server.restart()
            core = one._core
            head = core.epoch.scripts["reserve"].by_text.words
            assert server.client().execute_command(*head, core._head(core.epoch, 60), "j", "", "", b"") == b"C"
            assert server.client().script_exists(core.epoch.scripts["reserve"].by_hash.words[1]) == [True]
            with pytest.raises(LedgerCold):
                two.reserve("j", [usd("k", 1, 9)], 60)
            time.sleep(GRACE)
            assert two.reserve("j", [usd("k", 7, 9)], 60) == Granted()

    def test_no_script_is_sent_to_another_server(self):
        """It might become the first one's replica, and take its place a second time."""
        with RedisServer(appendonly="yes", appendfsync="always") as server:
            ledger = ledger_of(server)
            ledger.reserve("h", [usd("k", 1, 9)], 60)
            before = ledger._core.epoch.scripts["reserve"].by_hash.words[1]
            assert server.client().script_exists(before) == [True]
            server.restart()
            with pytest.raises(LedgerCold):
                ledger.reserve("i", [usd("k", 1, 9)], 60)
            now = ledger._core.epoch.scripts["reserve"].by_hash.words[1]
            assert server.client().script_exists(before, now) == [False, True]

    def test_a_server_that_keeps_scripts(self):
        """Those before Redis 7 may, and then having a script says nothing of the server."""
        with RedisServer(appendonly="yes", appendfsync="always") as server:
            ledger = ledger_of(server)
            ledger._core._old = True
            ledger.reserve("h", [usd("k", 1, 9)], 60)
            server.restart()
            server.client().script_load(ledger._core.epoch.scripts["reserve"].by_text.words[1])
            with pytest.raises(LedgerCold):
                ledger.reserve("i", [usd("k", 1, 9)], 60)

    def test_much_of_it(self, server):
        ledger = ledger_of(server)
        for number in range(1100):
            ledger.reserve(f"h{number}", [usd(f"k{number}", number)], 60)
            ledger.settle(f"h{number}", Amount(number))
        before = ledger.balances()
        server.client().flushall()
        assert ledger.balances() == before


class TestKeys:
    def test_all_have_the_hash_tag(self, server):
        ledger = ledger_of(server, root="house")
        ledger.reserve("h", [usd("k|{x}", 5, 10, ends=time.time() + 60)], 60)
        ledger.charge("c", Amount(1), [usd("k|{y}", 0)])
        ledger.set_limits("p", Limits(1))
        ledger.declare("b", "{}")
        ledger.first("mark")
        keys = server.client().keys()
        assert keys
        assert all(key.startswith(b"{house}:") for key in keys)

    @pytest.mark.soak  # it thinks for two seconds before it is one
    def test_in_a_cluster(self):
        """A server that is a cluster itself checks which keys a script touches."""
        import redis

        with RedisServer(cluster_enabled="yes", cluster_port=str(free_port())) as server:
            client = server.client()
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while "ok" not in str(client.execute_command("CLUSTER", "INFO")).split("cluster_state", 1)[1][:8]:
                time.sleep(0.02)
            cluster = redis.RedisCluster(host="127.0.0.1", port=server.port)
            ledger = RedisLedger(cluster, grace=GRACE)
            assert ledger.reserve("lost", [usd("a", 4, 10), usd("b", 5)], 0) == Granted()
            assert isinstance(ledger.reserve("h", [usd("a", 7, 10)], 60), Refused)  # sweeps the one before
            assert ledger.reserve("h", [usd("a", 6, 10)], 60) == Granted()
            assert ledger.settle("h", Amount(6)) == "done"
            assert ledger.balances() == (Balance("a", 10, 0, 2), Balance("b", 5, 0, 1))
            cluster.close()

    def test_ledgers_of_another_root_are_others(self):
        one, two = (ledger_of(shared_server(), root=uuid.uuid4().hex) for _ in range(2))
        one.charge("c", Amount(1), [usd("k", 0)])
        assert two.balances() == ()

    def test_windows_marks_and_ends_are_forgotten(self, server):
        now = [time.time()]
        ledger = ledger_of(server, clock=lambda: now[0])
        ledger.charge("c", Amount(1), [usd("k", 0, ends=now[0] + 60)])
        ledger.reserve("h", [usd("k", 1, ends=now[0] + 60)], 30)
        ledger.first("mark", now[0] + 60)
        now[0] += 100_000
        for _ in range(3):
            ledger.expire()
            now[0] += 100_000
        client = server.client()
        assert client.zcard("{tests}:due") == 0
        assert ledger.balances() == ()
        assert client.hlen("{tests}:holds") == 0


class TestClients:
    @pytest.mark.parametrize("decode", [False, True])
    @pytest.mark.parametrize("protocol", [2, 3])
    def test_one_of_the_users_own(self, decode, protocol):
        import redis

        client = redis.Redis.from_url(shared_server().url, decode_responses=decode, protocol=protocol)
        ledger = RedisLedger(client, root=uuid.uuid4().hex)
        assert ledger.reserve("h", [usd("kü", 5, 10)], 60, owner="ich") == Granted()
        assert isinstance(ledger.reserve("i", [usd("kü", 6, 10)], 60), Refused)
        assert ledger.holds()[0].owner == "ich"
        assert ledger.balances() == (Balance("kü", reserved_nano_usd=5, reserved_calls=1),)
        ledger.set_limits("p", Limits(1, None, 2))
        assert ledger.limits() == {"p": Limits(1, None, 2)}
        ledger.declare("b", "{}")
        assert ledger.declared() == {"b": "{}"}
        assert ledger.renew(["h", "x"], 60) == ("x",)
        assert ledger.extend("h", "s", [Claim("kü", 1)]) == Granted()
        with pytest.raises(ValueError, match="'ö'"):
            ledger.extend("h", "t", [Claim("ö", 1)])
        assert ledger.settle("h", Amount(6)) == "done"
        ledger.close()
        assert client.ping()

    def test_several_event_loops(self):
        ledger = AsyncRedisLedger(shared_server().url, root=uuid.uuid4().hex, timeout=PLENTY)

        async def spend(number: int) -> None:
            await asyncio.gather(*(ledger.charge(f"{number}.{i}", Amount(1), [usd("k", 0)]) for i in range(20)))

        async def spent() -> int:
            return (await ledger.balance("k")).spent_nano_usd

        for number in range(3):
            asyncio.run(spend(number))
        threads = [threading.Thread(target=lambda number=number: asyncio.run(spend(number))) for number in (3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert asyncio.run(spent()) == 100

    def test_without_the_library(self):
        program = (
            "import sys; sys.modules['redis'] = None\n"
            "from tokenbudget_otel.budgets import RedisLedger\n"
            "try: RedisLedger('redis://localhost')\n"
            "except ImportError as error: print(error)\n"
        )
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert "pip install 'tokenbudget-otel[redis]'" in out

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_after_a_fork(self):
        ledger = ledger_of(shared_server(), root=uuid.uuid4().hex)
        ledger.reserve("h", [usd("k", 5)], 60)
        with ledger._turn, ledger._core.mirror.lock:  # as another thread would hold them
            child = os.fork()
            if not child:
                try:
                    ledger.charge("c", Amount(1), [usd("k", 0)])
                    os._exit(0)
                finally:
                    os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ledger.settle("h", Amount(2)) == "done"
        assert money(ledger, "k") == (3, 0)


USD = 1_000_000_000


def hammer(url: str, seed: int, seconds: float, said) -> None:
    """Calls that cost what they like up to what they reserve, until time is up or the process is killed."""
    import random

    rng = random.Random(seed)
    ledger = RedisLedger(url, root="hammer", timeout=1, grace=0.3)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        bound = rng.randint(1, 3_000_000)
        actual = rng.randint(0, bound)
        hold = uuid.uuid4().hex
        claims = [usd("month", bound, USD), usd(f"tenant{rng.randrange(3)}", bound, USD // 2)]
        try:
            if isinstance(ledger.reserve(hold, claims, 1.0), Refused):
                time.sleep(0.001)
                continue
        except LedgerUnavailable:
            time.sleep(0.01)
            continue  # if it was made, it runs out
        said.send((hold, actual))  # the call is made, and costs
        while True:
            try:
                ledger.settle(hold, Amount(actual, 1), claims)
                break
            except LedgerUnavailable:
                time.sleep(0.01)


def hammering(server: RedisServer, seconds: float, restarts: int) -> None:
    """P6, P15: whoever is killed whenever, no more is spent than the limit, and no less than what calls cost."""
    context = multiprocessing.get_context("spawn")
    workers, pipes = [], []

    def one_more() -> None:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=hammer, args=(server.url, len(pipes), seconds, theirs), daemon=True)
        worker.start()
        theirs.close()
        workers.append(worker)
        pipes.append(ours)

    cost: dict[str, int] = {}

    def listen() -> None:
        for pipe in pipes:
            try:
                while pipe.poll():
                    hold, actual = pipe.recv()
                    cost[hold] = actual
            except (EOFError, OSError):
                pass

    for _ in range(3):
        one_more()
    ends = time.monotonic() + seconds
    turns = 0
    while time.monotonic() < ends:
        time.sleep(seconds / 8)
        listen()
        turns += 1
        if turns % 3 == 1:
            workers[turns % len(workers)].kill()
            one_more()
        if restarts:
            restarts -= 1
            server.restart()
    for worker in workers:
        while worker.is_alive():
            listen()
            worker.join(0.01)
    listen()
    ledger = RedisLedger(server.url, root="hammer", timeout=1, grace=0.3)
    time.sleep(1.4)  # the holds of those that were killed run out
    ledger.expire()
    spent, reserved = money(ledger, "month")
    tenants = [money(ledger, f"tenant{number}") for number in range(3)]
    assert len(cost) > 100
    assert reserved == 0
    assert ledger.holds() == ()
    assert sum(cost.values()) <= spent <= USD
    assert spent == sum(tenant[0] for tenant in tenants)
    assert all(tenant[0] <= USD // 2 and tenant[1] == 0 for tenant in tenants)


@pytest.mark.soak
def test_processes_that_are_killed():
    with RedisServer() as server:
        hammering(server, 6, restarts=0)


@pytest.mark.soak
def test_processes_that_are_killed_and_a_server_that_is():
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        hammering(server, 8, restarts=2)
