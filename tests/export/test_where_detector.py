"""The detector as OpenTelemetry calls it, and as a program does: who wins, what is kept, and that nothing is raised."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource, get_aggregated_resources
from where_machines import EC2, build, forget_this_machine
from where_servers import seconds_of

from tokenbudget_otel.export import where as package
from tokenbudget_otel.export.where import WhereDetector, found, where
from tokenbudget_otel.export.where.detection import Found

NAMED = "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_this_machine(monkeypatch)
    package._kept.forget()
    yield
    package._kept.forget()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is found out is given, and when it was."""
    times: list[float] = []

    def detect(evidence: object, seconds: float) -> Found:
        times.append(seconds)
        return Found({"host.name": "box-7", "cloud.region": "eu-1", "k8s.node.name": "node-7"}, ("host",), ())

    monkeypatch.setattr(package, "detect", detect)
    return times


@pytest.mark.parametrize("order", ["tokenbudget", "otel,tokenbudget", "tokenbudget,otel", "process, tokenbudget ,otel"])
def test_opentelemetry_finds_it_and_what_the_user_says_wins(
    order: str, place: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order: where `otel` is named first, the detector after it would count more."""
    monkeypatch.setenv(NAMED, order)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "cloud.region=mine,host.name = desk ,broken,service.name=shop")
    attributes = Resource.create().attributes
    assert attributes["cloud.region"] == "mine"
    assert attributes["host.name"] == "desk"
    assert attributes["k8s.node.name"] == "node-7"
    assert attributes["service.name"] == "shop"


def test_without_the_variable_nothing_is_found_out(place: list[float]) -> None:
    assert "k8s.node.name" not in Resource.create().attributes
    assert place == []


def test_attributes_in_code_win(place: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMED, "tokenbudget")
    assert Resource.create({"cloud.region": "mine"}).attributes["cloud.region"] == "mine"


def test_a_program_merges_it(place: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "cloud.region=mine")
    for resource in (Resource.create().merge(where()), where().merge(Resource.create())):
        assert resource.attributes["cloud.region"] == "mine"
        assert resource.attributes["k8s.node.name"] == "node-7"
        assert resource.attributes["telemetry.sdk.name"] == "opentelemetry"


def test_it_is_found_out_once_in_a_process(place: list[float]) -> None:
    for _ in range(5):
        assert where().attributes["host.name"] == "box-7"
    WhereDetector().detect()
    found()
    assert place == [1.0]


def test_what_the_user_says_is_read_each_time(place: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    assert where().attributes["cloud.region"] == "eu-1"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "cloud.region=mine")
    assert "cloud.region" not in where().attributes


def test_threads_wait_for_the_first_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    def detect(evidence: object, seconds: float) -> Found:
        times.append(seconds)
        time.sleep(0.1)
        return Found({"host.name": "box-7"})

    monkeypatch.setattr(package, "detect", detect)
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(dict(where().attributes))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [{"host.name": "box-7"}] * 16
    assert len(times) == 1


def test_a_child_has_what_its_parent_knows(place: list[float]) -> None:
    where()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, f"{dict(where().attributes)['host.name']} {len(place)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"box-7 1"


def test_a_child_forked_while_it_is_found_out_finds_it_out_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock that a thread of the parent holds is nobody's in the child."""
    under_way, go_on = threading.Event(), threading.Event()

    def detect(evidence: object, seconds: float) -> Found:
        under_way.set()
        if os.getpid() == parent:
            go_on.wait(20)
        return Found({"host.name": "box-7"})

    parent = os.getpid()
    monkeypatch.setattr(package, "detect", detect)
    thread = threading.Thread(target=where)
    thread.start()
    under_way.wait(20)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, str(where().attributes["host.name"]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    go_on.set()
    thread.join()
    assert os.read(reading, 100) == b"box-7"


def test_nothing_is_raised(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def detect(evidence: object, seconds: float) -> Found:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(package, "detect", detect)
    for detector in (WhereDetector(), WhereDetector(raise_on_error=True)):
        assert dict(detector.detect().attributes) == {}
    assert "where this runs could not be found out" in caplog.text


def test_one_detector_that_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tokenbudget_otel.export.where import asking

    class Point:
        def __init__(self, name: str, kind: object) -> None:
            self.name, self._kind = name, kind

        def load(self) -> object:
            if self._kind is None:
                raise ImportError("half installed")
            return self._kind

    class Raises:
        def __init__(self, raise_on_error: bool = False) -> None: ...

        def detect(self) -> Resource:
            raise SystemError("x")

    class NotEvenMade:
        def __init__(self) -> None: ...

    class Tells:
        def __init__(self, raise_on_error: bool = False) -> None: ...

        def detect(self) -> Resource:
            return Resource({"host.name": "told", "service.name": "not ours to say", "host.type": ""})

    points = [Point("host", Tells), Point("aws_ec2", Raises), Point("containerid", NotEvenMade), Point("x", None)]
    monkeypatch.setattr(asking, "entry_points", lambda group: points)
    detector = WhereDetector(root=build(tmp_path, EC2), environ={})
    assert dict(detector.detect().attributes) == {
        "cloud.provider": "aws",
        "cloud.platform": "aws_ec2",
        "host.id": "i-1234567890abcdef0",
        "host.name": "told",
    }


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf"])
def test_a_limit_that_cannot_be_meant(
    said: str, place: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the environment it is logged, and the usual one taken; in code it is an error."""
    monkeypatch.setenv("TOKENBUDGET_WHERE_TIMEOUT", said)
    where()
    assert place == [1.0]
    assert "TOKENBUDGET_WHERE_TIMEOUT is left out" in caplog.text
    with pytest.raises(ValueError, match="WhereDetector: timeout must be a number of seconds"):
        WhereDetector(timeout=said)


@pytest.mark.parametrize(("said", "seconds"), [("0", 0), ("0.25", 0.25), (" 2 ", 2), ("", 1)])
def test_the_limit_of_the_environment(
    said: str, seconds: float, place: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENBUDGET_WHERE_TIMEOUT", said)
    where()
    assert place == [seconds]


def test_a_limit_longer_than_opentelemetry_waits_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait five seconds, and take nothing of what was found then."""
    from tokenbudget_otel.export.where import detection

    waited: list[float] = []
    monkeypatch.setattr(detection, "ask", lambda functions, seconds: waited.append(seconds) or {})
    WhereDetector(timeout=60, root=tmp_path, environ={}).detect()
    assert waited == [4.0]


def test_opentelemetrys_own_way_of_asking_is_not_kept_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_aggregated_resources` waits for its threads to the end, whatever its time limit says. Ours are not its."""
    from tokenbudget_otel.export.where import detection

    over = threading.Event()
    monkeypatch.setattr(detection, "load", lambda names: {"host": lambda: {"host.type": str(over.wait(20))}})
    took, resource = seconds_of(
        lambda: get_aggregated_resources([WhereDetector(timeout=0.2, root=tmp_path, environ={})], Resource({"a": 1}))
    )
    over.set()
    assert took < 15
    assert dict(resource.attributes) == {"a": 1}


def test_the_declarative_file(place: list[float], tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.configuration")
    from opentelemetry.configuration import load_config_file
    from opentelemetry.configuration._resource import create_resource

    file = tmp_path / "otel.yaml"
    file.write_text(
        'file_format: "1.0"\n'
        "resource:\n"
        "  attributes: [{name: cloud.region, value: mine}]\n"
        "  detection/development:\n"
        "    detectors: [{tokenbudget: {timeout: 0.5}}]\n"
    )
    attributes = create_resource(load_config_file(str(file)).resource).attributes
    assert attributes["k8s.node.name"] == "node-7"
    assert attributes["cloud.region"] == "mine"
    assert place == [0.5]
