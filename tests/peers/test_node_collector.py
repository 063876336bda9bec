"""A collector in another language, which was written from the protocol's description alone."""

from __future__ import annotations

import json
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from baseplate_events.event_publisher.policy.outcome import REMEDIES
from tests.peers.daemons import COLLECTOR, events_in, node, node_collector
from tests.support import vector_files
from tests.support.commands import Result, run
from tests.support.publishers import SECRET, config_text, make_events, publisher_process, put_all, small_queue
from tests.support.queues import fresh_event_name

if TYPE_CHECKING:
    from pathlib import Path


def check_vectors(folder: Path) -> Result:
    """Have the collector check the vectors of a folder."""
    return run(node(), COLLECTOR, "--check-vectors", folder)


def test_the_vectors_are_what_another_language_gives() -> None:
    """Signatures, bodies, requests and structs are the same for it as for us."""
    checked = check_vectors(vector_files.FOLDER)
    assert checked.err == ""
    assert checked.status == 0
    lines = list(map(json.loads, checked.out.splitlines()))
    expected = [
        {"file": name, "vectors": len(vector_files.load(name))}
        for name in ("signatures", "bodies", "requests", "tjson")
    ]
    assert expected == lines


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("signatures", "mac", "0" * 64),
        ("bodies", "events", ["{}"]),
        ("requests", "status", 422),
        ("tjson", "json", "[]"),
    ],
)
def test_a_wrong_vector_is_reported(file: str, key: str, value: Any, *, tmp_path: Path) -> None:  # noqa: ANN401
    """Each output of a vector is looked at."""
    shutil.copytree(vector_files.FOLDER, tmp_path, dirs_exist_ok=True)
    vectors = vector_files.load(file)
    vectors[-1][key] = value
    (tmp_path / f"{file}.json").write_text(json.dumps(vectors))
    checked = check_vectors(tmp_path)
    assert checked.status == 1
    assert f"{file}: {vectors[-1]['name']}: " in checked.err


@pytest.mark.parametrize("version", ["2", "2j"])
def test_all_events_arrive(version: str, *, tmp_path: Path) -> None:
    """Of each version it takes all events, each once, byte for byte and in order."""
    events = make_events(400)
    with (
        fresh_event_name() as name,
        small_queue(name) as queue,
        node_collector() as collector,
        publisher_process(
            tmp_path, name, collector.url, collector__version=version, delivery__concurrency="1"
        ) as publisher,
    ):
        put_all(queue, events)
        assert events == collector.wait_for_events(len(events))
        assert publisher.stop() == 0


def test_duplicates_are_recognised_by_their_key(tmp_path: Path) -> None:
    """Batches whose answer got lost come again under their key, so that each event is counted once."""
    events = make_events(40)
    with (
        fresh_event_name() as name,
        small_queue(name) as queue,
        node_collector("--forget", "3") as collector,
        publisher_process(tmp_path, name, collector.url) as publisher,
    ):
        put_all(queue, events)
        assert sorted(events) == sorted(collector.wait_for_events(len(events)))
        assert publisher.stop() == 0
        taken = [line for line in collector.wait_for(lambda _: True) if line.get("status") == 200]
    again = [line["mac"] for line in taken if line["duplicate"]]
    assert len(again) == 3
    assert set(again) <= {line["mac"] for line in taken if not line["duplicate"]}


def test_a_busy_collector_gets_them_later(tmp_path: Path) -> None:
    """What is answered with 503 and a Retry-After comes again, and is no duplicate."""
    events = make_events(20)
    with (
        fresh_event_name() as name,
        small_queue(name) as queue,
        node_collector("--busy", "3") as collector,
        publisher_process(tmp_path, name, collector.url) as publisher,
    ):
        put_all(queue, events)
        assert sorted(events) == sorted(collector.wait_for_events(len(events)))
        assert publisher.stop() == 0
        lines = collector.wait_for(lambda _: True)
    assert [503] * 3 == [line["status"] for line in lines if line.get("reason") == "busy"]
    assert not any(line["duplicate"] for line in lines if line.get("status") == 200)


def test_a_wrong_key_costs_nothing(tmp_path: Path) -> None:
    """It answers a wrong secret with 401; once the publisher was given the right one, all events arrive."""
    events = make_events(10)
    with (
        fresh_event_name() as name,
        small_queue(name) as queue,
        node_collector() as collector,
    ):
        wrong = vector_files.in_base64(SECRET + b"!")
        with publisher_process(tmp_path, name, collector.url, key__secret=wrong) as publisher:
            put_all(queue, events)
            lines = collector.wait_for(lambda lines: len(lines) > 1)
            assert {"status": 401, "reason": "unknown key or wrong mac"} == lines[1]
            publisher.wait_for_log(REMEDIES[401])
            publisher.config_file.write_text(config_text(name, collector.url))
            publisher.process.send_signal(signal.SIGHUP)
            assert sorted(events) == sorted(collector.wait_for_events(len(events)))
            assert publisher.stop() == 0
        assert sorted(events) == sorted(events_in(collector.wait_for(lambda _: True)))
