"""The real OTLP exporters over a spool, to a receiver that misbehaves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from export_requests import Tracing, names_in, request_of
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from receiver import CUT_AFTER, CUT_BEFORE, FINE, HANG, Mood, Receiver, rejecting
from until import until

from tokenbudget_otel.export import Answer, HttpWire, Spool, SpoolError, SpoolingSession
from tokenbudget_otel.export.entry import Entry
from tokenbudget_otel.export.folder import Folder
from tokenbudget_otel.export.wire import retry_after

MakeTracing = Callable[..., Tracing]
MakeSpool = Callable[..., Spool]


def files(spool: Spool, where: str = "") -> list[Path]:
    return sorted(spool.folder.glob(f"*/{where + '/' if where else ''}*.otlp"))


def newest_in_order(names: list[str], made: int, dropped: int) -> None:
    """The newest are there. An old one may be, too: it was on its way when it gave way, and is not counted then."""
    numbers = [int(name.split()[1]) for name in names]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == made - dropped
    assert numbers[2:] == list(range(made - len(numbers) + 2, made))


@pytest.mark.parametrize("compression", list(Compression))
def test_spans_arrive_as_without_a_spool(
    tracing: MakeTracing, receiver: Receiver, compression: Compression, tmp_path: Path
) -> None:
    traced = tracing(compression=compression, headers={"Authorization": "Bearer key"})
    traced.spans(5)
    assert traced.spool.flush(10)
    request = receiver.requests[0]
    assert request.headers["authorization"] == "Bearer key"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["user-agent"].startswith("OTel-OTLP-Exporter-Python")
    expected = None if compression is Compression.NoCompression else compression.value
    assert request.headers.get("content-encoding") == expected
    assert receiver.spans == dict.fromkeys(traced.exporter.handed, 1)
    assert not files(traced.spool)
    assert traced.spool.counts == {"accepted": 5, "delivered": 5}


def test_no_key_is_written_down(tracing: MakeTracing, receiver: Receiver) -> None:
    receiver.mood = Mood(503)
    traced = tracing(
        url=receiver.url.replace("//", "//me:hidden@") + "?key=hidden", headers={"Authorization": "Bearer hidden"}
    )
    traced.spans(1)
    for path in traced.spool.folder.rglob("*"):
        assert "hidden" not in str(path)
        assert path.is_dir() or b"hidden" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "moods",
    [
        [Mood(503)] * 3,
        [Mood(500)] * 2,
        [Mood(408), Mood(429), Mood(502), Mood(504)],
        [CUT_BEFORE] * 2,
        [Mood(429, {"Retry-After": "0"}), CUT_BEFORE, Mood(503, body=b"<html>")],
    ],
)
def test_tried_again_until_it_is_taken(tracing: MakeTracing, receiver: Receiver, moods: list[Mood]) -> None:
    receiver.then(*moods)
    traced = tracing()
    traced.spans(3)
    traced.spans(3)
    assert traced.spool.flush(20)
    assert receiver.spans == dict.fromkeys(traced.exporter.handed, 1)
    assert receiver.names == [f"span {number}" for number in range(6)]
    assert receiver.posts == len(moods) + 2


def test_a_connection_that_breaks_before_the_answer_is_tried_again(tracing: MakeTracing, receiver: Receiver) -> None:
    receiver.then(CUT_AFTER)
    traced = tracing()
    traced.spans(2)
    assert traced.spool.flush(20)
    assert set(receiver.acknowledged.values()) == {1}
    assert set(receiver.spans.values()) == {2}  # nobody can know


def test_a_receiver_that_comes_late(tracing: MakeTracing, receiver: Receiver, caplog: Any) -> None:
    receiver.stop()
    traced = tracing()
    with caplog.at_level(logging.INFO, "tokenbudget_otel.export"):
        traced.spans(4)
        traced.spans(4)
        until(lambda: caplog.records)
        assert len(files(traced.spool)) == 2
        receiver.start()
        assert traced.spool.flush(20)
    assert receiver.names == [f"span {number}" for number in range(8)]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # once, however often it was tried
    assert "does not take what is sent (ConnectionError" in said[0]
    assert said[1].endswith("takes what is sent again")


def test_it_waits_as_long_as_it_is_asked_to(tracing: MakeTracing, receiver: Receiver) -> None:
    receiver.then(Mood(429, {"Retry-After": "0.4"}))
    traced = tracing()
    traced.spans(1)
    until(lambda: receiver.posts == 1)
    begun = time.monotonic()
    assert not traced.spool.flush(0.05)  # nobody is in more of a hurry than the receiver
    assert traced.spool.flush(20)
    assert time.monotonic() - begun > 0.3
    assert receiver.posts == 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("١٢", None),
        ("soon", None),
        ("", None),
        (format_datetime(datetime.fromtimestamp(1_000, UTC), usegmt=True), 100.0),
        (format_datetime(datetime.fromtimestamp(1_000, UTC) - timedelta(hours=1), usegmt=True), 0.0),
        ("Thu, 01 Jan 1970 00:16:40", 100.0),
        ("Thu, 99 Jan 1970 00:16:40 GMT", None),
    ],
)
def test_what_retry_after_may_say(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, 900.0) == seconds


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 415, 422, 301])
def test_what_is_refused_is_set_aside_and_said_once(
    tracing: MakeTracing, receiver: Receiver, status: int, caplog: Any
) -> None:
    receiver.then(Mood(status), Mood(status))
    traced = tracing()
    with caplog.at_level(logging.WARNING, "tokenbudget_otel.export"):
        traced.spans(2)
        traced.spans(2)
        traced.spans(2)
        assert traced.spool.flush(20)
    assert receiver.posts == 3
    assert receiver.names == ["span 4", "span 5"]
    refused = files(traced.spool, "refused")
    assert [names_in(path.read_bytes()) for path in refused] == [["span 0", "span 1"], ["span 2", "span 3"]]
    assert traced.spool.counts == {"accepted": 6, "refused": 4, "delivered": 2}
    (said,) = caplog.records
    assert f"refused a request ({status})" in said.getMessage()
    assert "replay --refused" in said.getMessage()


def test_too_large_is_halved(tracing: MakeTracing, receiver: Receiver) -> None:
    def at_most_three(request: Any) -> Mood:
        return FINE if int(request.headers["content-length"]) < 480 else Mood(413)

    receiver.mood = at_most_three
    traced = tracing()
    traced.spans(11)
    assert traced.spool.flush(20)
    assert receiver.names == [f"span {number}" for number in range(11)]
    assert len(receiver.requests) > 2
    assert traced.spool.counts == {"accepted": 11, "delivered": 11}
    assert not files(traced.spool)


def test_one_span_that_is_too_large_is_dropped_and_counted(
    tracing: MakeTracing, receiver: Receiver, caplog: Any
) -> None:
    receiver.mood = lambda request: FINE if int(request.headers["content-length"]) < 2_000 else Mood(413)
    traced = tracing()
    for number in range(5):
        with traced.tracer.start_as_current_span(f"span {number}") as span:
            span.set_attribute("text", "x" * (5_000 if number == 2 else 5))
    traced.provider.force_flush()
    assert traced.spool.flush(20)
    assert receiver.names == ["span 0", "span 1", "span 3", "span 4"]
    assert traced.spool.counts == {"accepted": 5, "delivered": 4, "dropped.too_large": 1}
    assert "one item in them (413): it is dropped" in caplog.text


def test_partial_success_is_counted_and_said(tracing: MakeTracing, receiver: Receiver, caplog: Any) -> None:
    receiver.then(rejecting(2, "older than the retention"))
    traced = tracing()
    traced.spans(5)
    assert traced.spool.flush(20)
    assert traced.spool.counts == {"accepted": 5, "delivered": 3, "dropped.rejected": 2}
    assert "rejected 2 of 5 items: older than the retention" in caplog.text


def test_a_damaged_file_is_set_aside_and_the_rest_goes_on(
    tracing: MakeTracing, receiver: Receiver, caplog: Any
) -> None:
    receiver.stop()
    traced = tracing()
    for _ in range(3):
        traced.spans(1)
    traced.spool.close(5)  # none of them is on its way
    first, second, third = files(traced.spool)
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    second.write_bytes(second.read_bytes()[:-4])
    third.write_bytes(b"")
    receiver.start()
    traced.spans(1)
    assert traced.spool.flush(20)
    assert receiver.names == ["span 3"]
    assert [path.name for path in files(traced.spool, "damaged")] == [first.name, second.name, third.name]
    assert traced.spool.counts == {"accepted": 4, "damaged": 3, "delivered": 1}
    assert first.name in caplog.text


@pytest.mark.parametrize("known", [True, False])
def test_one_request_that_makes_the_receiver_fail_does_not_hold_up_the_rest(
    tracing: MakeTracing, receiver: Receiver, known: bool
) -> None:
    receiver.stop()
    traced = tracing()
    poisoned = [True]

    class Wire:
        def __init__(self, wire: Any) -> None:
            self.wire = wire

        def post(self, body: bytes) -> Any:
            if b"span 1" in body and poisoned:
                return Answer(500)
            return self.wire.post(body)

    traced.spans(1)
    destination = next(iter(traced.spool._destinations.values()))
    destination.use(Wire(destination._courier.wire))
    if known:  # the courier has seen those behind it before it meets it, or sees them only then
        for _ in range(5):
            traced.spans(1)
        receiver.start()
    else:
        receiver.start()
        assert traced.spool.flush(10)
        traced.spans(1)
        until(lambda: destination._courier.failure)
        for _ in range(4):
            traced.spans(1)
    until(lambda: len(receiver.names) >= 5)
    poisoned.clear()
    assert traced.spool.flush(20)
    assert receiver.names == ["span 0", "span 2", "span 3", "span 4", "span 5", "span 1"]


def test_the_caller_does_not_wait_for_a_receiver_that_hangs(tracing: MakeTracing, receiver: Receiver) -> None:
    receiver.mood = HANG
    traced = tracing()
    for _ in range(5):
        traced.spans(2)
    assert len(traced.exporter.handed) == 10
    begun = time.monotonic()
    traced.provider.shutdown()
    assert time.monotonic() - begun < 10
    assert len(files(traced.spool)) == 5


def test_what_a_dead_process_left_is_sent_before_anything_is_posted(
    receiver: Receiver, make_spool: MakeSpool, tracing: MakeTracing
) -> None:
    receiver.stop()
    before = tracing(headers={"X-Key": "mine"})
    before.spans(3)
    before.spool.close(0.2)
    receiver.start()
    session = SpoolingSession(make_spool())
    session.begin(receiver.url, headers={"x-key": "mine"})
    until(lambda: len(receiver.names) == 3)


def test_accounts_are_not_mixed_up(receiver: Receiver, tracing: MakeTracing) -> None:
    receiver.stop()
    spool = None
    for account in ("a", "b"):
        traced = tracing(spool, headers={"X-Key": account})
        spool = traced.spool
        traced.spans(1)
    assert spool is not None
    spool.close(0.2)
    receiver.start()
    other = tracing(headers={"X-Key": "b"})
    other.spans(1)
    assert other.spool.flush(10)
    assert [request.headers["x-key"] for request in receiver.requests] == ["b", "b"]
    assert len(files(spool)) == 1


def test_metrics_go_the_same_way(receiver: Receiver, make_spool: MakeSpool) -> None:
    receiver.then(Mood(503))
    spool = make_spool()
    exporter = OTLPMetricExporter(receiver.url.replace("traces", "metrics"), session=SpoolingSession(spool))
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 60_000)])
    provider.get_meter("test").create_counter("calls").add(3)
    provider.force_flush()
    assert spool.flush(10)
    (request,) = receiver.requests
    (resource,) = ExportMetricsServiceRequest.FromString(request.body).resource_metrics
    assert resource.scope_metrics[0].metrics[0].name == "calls"
    provider.shutdown()


def test_anything_else_is_sent_at_once(receiver: Receiver, make_spool: MakeSpool) -> None:
    session = SpoolingSession(make_spool())
    receiver.then(Mood(418))
    answer = session.post(receiver.url, data=b"{}", headers={"Content-Type": "application/json"})
    assert answer.status_code == 418
    receiver.then(Mood(418))
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "br"}
    assert session.post(receiver.url, data=b"", headers=headers).status_code == 418


def test_the_session_that_is_given_sends(receiver: Receiver, tracing: MakeTracing) -> None:
    inner = requests.Session()
    inner.auth = ("me", "secret")
    traced = tracing(session={"session": inner})
    traced.spans(1)
    assert traced.spool.flush(10)
    assert receiver.requests[0].headers["authorization"].startswith("Basic ")


def test_its_own_authentication_counts(receiver: Receiver, make_spool: MakeSpool) -> None:
    session = SpoolingSession(make_spool())
    session.auth = ("me", "secret")
    session.post(receiver.url, data=request_of(1), headers={"Content-Type": "application/x-protobuf"})
    session.close()
    assert receiver.requests[0].headers["authorization"].startswith("Basic ")


def test_compression_that_nobody_knows() -> None:
    with pytest.raises(SpoolError, match="compression 'brotli' is not known: give one of none, gzip, deflate"):
        HttpWire(None, "http://there", compression="brotli")


def test_a_file_is_what_a_receiver_takes(tracing: MakeTracing, receiver: Receiver) -> None:
    receiver.stop()
    traced = tracing(compression=Compression.Gzip)
    traced.spans(2)
    (path,) = files(traced.spool)
    entry = Entry.read(path.name)
    assert entry is not None and entry.items == 2 and entry.holds(path.read_bytes())
    receiver.start()
    # curl --data-binary @file
    requests.post(receiver.url, data=path.read_bytes(), headers={"Content-Type": "application/x-protobuf"}, timeout=5)
    assert {"span 0", "span 1"} <= set(receiver.names)


def test_metrics_of_the_spool(tracing: MakeTracing, receiver: Receiver, make_spool: MakeSpool) -> None:
    receiver.mood = Mood(503)
    reader = InMemoryMetricReader()
    spool = make_spool(max_bytes=1_000, meter_provider=MeterProvider([reader]))
    traced = tracing(spool)
    for _ in range(6):
        traced.spans(2)
    data: Any = reader.get_metrics_data()
    found = {
        (metric.name, point.attributes.get("tokenbudget.spool.reason")): point.value
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    }
    assert found["tokenbudget.spool.dropped", "full"] == spool.counts["dropped.full"] > 0
    assert found["tokenbudget.spool.dropped", "unwritable"] == 0
    assert found["tokenbudget.spool.files", None] == len(files(spool))
    assert found["tokenbudget.spool.bytes", None] == sum(path.stat().st_size for path in files(spool)) <= 1_000


def test_over_the_bound_the_oldest_are_dropped_and_counted(
    tracing: MakeTracing, receiver: Receiver, make_spool: MakeSpool
) -> None:
    receiver.stop()
    spool = make_spool(max_bytes=2_000)
    traced = tracing(spool)
    for _ in range(20):
        traced.spans(2)
    receiver.start()
    assert spool.flush(20)
    dropped = spool.counts["dropped.full"]
    assert dropped > 0
    newest_in_order(receiver.names, 40, dropped)


def test_a_folder_that_is_removed_is_made_again(tracing: MakeTracing, receiver: Receiver) -> None:
    import shutil

    traced = tracing()
    traced.spans(1)
    assert traced.spool.flush(10)
    shutil.rmtree(traced.spool.folder)
    traced.spans(1)
    assert traced.spool.flush(10)
    assert receiver.names == ["span 0", "span 1"]


def test_a_disk_that_is_full(tracing: MakeTracing, receiver: Receiver, monkeypatch: Any, caplog: Any) -> None:
    import errno
    import os

    receiver.mood = Mood(503)
    traced = tracing()
    traced.spans(1)
    real, full = os.write, True

    def write(fd: int, data: Any) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    traced.spans(1)
    traced.spans(1)
    assert len(files(traced.spool)) == 1
    assert not list(traced.spool.folder.glob("*/.*.tmp"))
    full = False
    traced.spans(1)
    until(lambda: len(files(traced.spool)) == 4)  # what was held in memory is written down as well
    receiver.mood = FINE
    assert traced.spool.flush(10)
    assert receiver.names == [f"span {number}" for number in range(4)]
    assert traced.spool.counts == {"accepted": 4, "delivered": 4}
    full = True
    receiver.stop()
    traced.spans(3)
    traced.spool.close(0.2)
    assert traced.spool.counts["dropped.unwritable"] == 3
    assert caplog.text.count("cannot be written to") == 2


def test_held_in_memory_up_to_a_bound(tracing: MakeTracing, receiver: Receiver, monkeypatch: Any) -> None:
    import errno
    import os

    from tokenbudget_otel.export import destination as destination_module
    from tokenbudget_otel.export.memory_queue import MemoryQueue

    monkeypatch.setattr(destination_module, "MemoryQueue", lambda: MemoryQueue(1_000))

    def write(fd: int, data: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", write)
    receiver.stop()
    traced = tracing()
    for _ in range(20):
        traced.spans(2)
    receiver.start()
    assert traced.spool.flush(10)
    dropped = traced.spool.counts["dropped.unwritable"]
    assert dropped > 0
    newest_in_order(receiver.names, 40, dropped)
    assert traced.spool.counts == {"accepted": 40, "dropped.unwritable": dropped, "delivered": 40 - dropped}


def test_a_thread_that_cannot_be_started_any_more(receiver: Receiver, make_spool: MakeSpool, monkeypatch: Any) -> None:
    """As since Python 3.12, when the interpreter is about to end."""
    session = SpoolingSession(make_spool())

    def start(self: Any) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patched:
        ours = threading.Thread.start

        def only_ours(self: Any) -> None:
            start(self) if self.name.startswith("tokenbudget") else ours(self)

        patched.setattr(threading.Thread, "start", only_ours)
        session.post(receiver.url, data=request_of(2), headers={"Content-Type": "application/x-protobuf"})
        session.close()
    assert len(receiver.names) == 2


def test_what_is_handed_over_just_before_the_end_is_sent(
    receiver: Receiver, make_spool: MakeSpool, monkeypatch: Any
) -> None:
    """The courier has looked, and found nothing, when the last request comes and the session is closed."""
    spool = make_spool()
    session = SpoolingSession(spool)
    look, came = Folder.wait, threading.Event()

    def slow(self: Folder, place: Path, number: int = 1) -> bool:
        found = look(self, place, number)
        if not came.is_set() and not found:
            came.set()
            session.post(receiver.url, data=request_of(1), headers={"Content-Type": "application/x-protobuf"})
            next(iter(spool._destinations.values())).hasten(time.monotonic() + 5)
        return found

    monkeypatch.setattr(Folder, "wait", slow)
    session.begin(receiver.url)
    until(lambda: receiver.names == ["span 0"])
