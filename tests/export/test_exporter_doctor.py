"""What `tokenbudget doctor` says of the backend and the spool."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from export_requests import request_of
from receiver import Receiver

from tokenbudget_otel.cli.app import app
from tokenbudget_otel.export import Answer, Spool

KEY = "tb_ak_0123456789abcdef0123456789abcdef"


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    names = ("ENDPOINT", "API_KEY", "COMPRESSION", "TIMEOUT", "EXPORT_ALL_SPANS", "SPOOL", "SPOOL_MAX_BYTES")
    clean = {f"TOKENBUDGET_{name}": None for name in names} | {"OTEL_TRACES_EXPORTER": None, "OTEL_CONFIG_FILE": None}

    def run(**env: str) -> list[dict[str, Any]]:
        ran = CliRunner().invoke(app, ["doctor", "--json"], env=clean | {"XDG_STATE_HOME": str(tmp_path)} | env)
        assert KEY not in ran.output and KEY[:-4] not in ran.output and "hidden" not in ran.output
        found: list[dict[str, Any]] = json.loads(ran.output)["findings"]
        return found

    return run


def of(findings: list[dict[str, Any]], subject: str) -> tuple[str, str]:
    (found,) = [each for each in findings if each["subject"] == subject]
    return found["level"], found["text"]


def test_nothing_is_said_where_there_is_no_backend(doctor: Any) -> None:
    assert not {"backend", "backend key", "spool"} & {found["subject"] for found in doctor()}


def test_a_backend_that_can_be_reached(doctor: Any, receiver: Receiver, tmp_path: Path) -> None:
    found = doctor(TOKENBUDGET_ENDPOINT=receiver.url, TOKENBUDGET_API_KEY=KEY, OTEL_TRACES_EXPORTER="otlp, tokenbudget")
    assert of(found, "backend") == ("ok", f"{receiver.url} can be reached")
    assert of(found, "backend key") == ("ok", "…cdef")
    assert of(found, "TOKENBUDGET_API_KEY") == ("ok", "…cdef")
    assert of(found, "spool")[0] == "ok" and str(tmp_path) in of(found, "spool")[1]
    assert receiver.posts == 0 and not (tmp_path / "tokenbudget").exists(), "nothing is sent, and nothing made"
    receiver.stop()
    assert of(doctor(TOKENBUDGET_ENDPOINT=receiver.url), "backend")[0] == "attention"


def test_who_exports_is_said(doctor: Any, receiver: Receiver) -> None:
    env = {"TOKENBUDGET_ENDPOINT": receiver.url, "TOKENBUDGET_API_KEY": KEY}
    level, text = of(doctor(**env), "backend exporter")
    assert level == "note" and "`tokenbudget run` sends spans there; opentelemetry-instrument does not" in text
    level, text = of(doctor(**env, OTEL_TRACES_EXPORTER="console"), "backend exporter")
    assert level == "note" and "OTEL_TRACES_EXPORTER=console" in text


def test_keys_that_are_missing_or_travel_unencrypted(doctor: Any) -> None:
    assert of(doctor(TOKENBUDGET_ENDPOINT="http://127.0.0.1:9"), "backend key")[0] == "note"
    assert of(doctor(TOKENBUDGET_ENDPOINT="http://backend.invalid:9"), "backend key")[0] == "attention"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TOKENBUDGET_ENDPOINT", "https://me:hidden@host", "a name or a password"),
        ("TOKENBUDGET_API_KEY", "hidden\nkey", "line break"),
        ("TOKENBUDGET_COMPRESSION", "zip", "'zip' is not known"),
        ("TOKENBUDGET_TIMEOUT", "-1", "no time limit"),
        ("TOKENBUDGET_EXPORT_ALL_SPANS", "perhaps", "neither true nor false"),
        ("TOKENBUDGET_SPOOL_MAX_BYTES", "much", "no size"),
    ],
)
def test_what_cannot_be_meant(doctor: Any, name: str, value: str, says: str) -> None:
    found = doctor(**{"TOKENBUDGET_ENDPOINT": "http://127.0.0.1:9", name: value})
    level, text = of(found, name)
    assert level == "attention" and says in text and text.startswith(name)


def test_what_waits_in_the_spool(doctor: Any, make_spool: Callable[..., Spool]) -> None:
    class Away:
        def post(self, body: bytes) -> Answer:
            return Answer(503)

    class Refusing:
        def post(self, body: bytes) -> Answer:
            return Answer(401)

    spool = make_spool()
    spool.to("http://127.0.0.1:9/v1/traces", Away()).put(request_of(3))
    level, text = of(doctor(TOKENBUDGET_SPOOL=str(spool.folder)), "spool")
    assert level == "ok" and "3 spans waiting" in text
    refusing = spool.to("http://127.0.0.1:8/v1/traces", Refusing())
    refusing.put(request_of(2))
    refusing.flush(5)
    level, text = of(doctor(TOKENBUDGET_SPOOL=str(spool.folder)), "spool")
    assert level == "attention" and "3 spans waiting" in text and "2 spans refused or damaged" in text


def test_a_spool_that_cannot_be_used_or_is_not_wanted(doctor: Any, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    assert of(doctor(TOKENBUDGET_SPOOL=str(tmp_path / "open")), "spool")[0] == "attention"
    assert of(doctor(TOKENBUDGET_SPOOL="none"), "spool")[0] == "note"
