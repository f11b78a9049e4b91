"""Ledgers by their address."""

from __future__ import annotations

from pathlib import Path

import pytest

from redis_server import need_redis
from tokenbudget_otel.budgets import Amount, Claim, MemoryLedger
from tokenbudget_otel.budgets.ledgers.addresses import ledger_at, sqlite_path, without_password


@pytest.mark.parametrize("address", ["memory", "memory:", " Memory "])
def test_memory(address):
    ledger = ledger_at(address, clock=lambda: 5.0)
    assert isinstance(ledger, MemoryLedger)
    ledger.charge("one", Amount(1), [Claim("k")])
    assert ledger.balance("k").spent_nano_usd == 1


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("sqlite:budgets.db", "budgets.db"),
        ("sqlite:data/budgets", "data/budgets"),
        ("SQLite:/var/budgets.db", "/var/budgets.db"),
        ("sqlite:///var/lib/my budgets.db", "/var/lib/my budgets.db"),
        ("sqlite:////var/budgets.db", "/var/budgets.db"),
        ("budgets.db", "budgets.db"),
        ("./b.sqlite", "b.sqlite"),
        ("/var/b.sqlite3", "/var/b.sqlite3"),
        ("sqlite:~/b.db", str(Path("~/b.db").expanduser())),
        (r"C:\budgets.db", r"C:\budgets.db"),
    ],
)
def test_the_file_that_an_address_names(address, path):
    assert sqlite_path(address) == Path(path)


def test_addresses_of_one_file_share_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger_at("sqlite:b.db").charge("one", Amount(7), [Claim("k")])
    for address in ("b.db", f"sqlite:///{tmp_path}/b.db", str(tmp_path / "b.db")):
        assert ledger_at(address).balance("k").spent_nano_usd == 7


@pytest.mark.parametrize("address", ["redis://localhost:1/0", "rediss://localhost:1/0", "unix:///no/such.sock"])
def test_redis(address):
    need_redis()
    from tokenbudget_otel.budgets.ledgers.redis_ledger import RedisLedger

    assert isinstance(ledger_at(address), RedisLedger)


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("", "'sqlite:budgets.db'"),
        ("budgets.json", "'sqlite:budgets.db'"),
        ("postgres://app:secret@db/budgets", "'redis://localhost:6379/0'"),
        ("memory:somewhere", "write 'memory'"),
        ("sqlite:", "or 'memory' for a ledger in memory"),
        ("sqlite::memory:", "or 'memory' for a ledger in memory"),
        ("sqlite:///", "or 'memory' for a ledger in memory"),
        ("sqlite://budgets.db", "write 'sqlite:budgets.db' for a relative path"),
        (7, "must be a string such as 'memory'"),
    ],
)
def test_what_is_no_address(address, remedy):
    with pytest.raises(ValueError, match=r".") as error:
        ledger_at(address)
    assert remedy in str(error.value)
    assert "secret" not in str(error.value)


def test_passwords_are_not_shown():
    assert without_password("rediss://:hunter2@cache:6380/1") == "rediss://***@cache:6380/1"
    assert without_password("sqlite:b.db") == "sqlite:b.db"
