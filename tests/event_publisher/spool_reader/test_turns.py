"""The turns of writers, the order of a writer's segments, and the cost of both."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.spool_reader import catalog, followed_segment
from baseplate_events.event_publisher.spool_reader.catalog import MAX_OPEN
from baseplate_events.event_publisher.spool_reader.turns import CHECK_PAUSE
from baseplate_events.spool.format import Encoder, Header
from tests.support.spool_scene import Scene


def expected_turns(scene: Scene, chunk: int) -> list[bytes]:
    """Return the order of rule 2, for a segment for each writer, to which no one writes any more."""
    queues: list[list[list[bytes]]] = []
    for name in scene.names():
        turns: list[list[bytes]] = []
        at = len(scene.format_of(name).line)  # as far as was read
        events = scene.events(name)
        while events:
            turn: list[bytes] = []
            while not turn:
                at = min(at + chunk, len(scene.data[name]))
                while events and events[0].span.end <= at:
                    turn.append(events.pop(0).payload)
            turns.append(turn)
        queues.append(turns)
    found: list[bytes] = []
    while any(queues):
        for turns in queues:
            if turns:
                found += turns.pop(0)
    return found


@given(
    writers=st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=12), min_size=1, max_size=5),
    chunk=st.sampled_from([50, 300, 1000]),
    limits=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 500)), min_size=1, max_size=3),
)
def test_writers_take_turns(writers: list[list[int]], chunk: int, limits: list[tuple[int, int]]) -> None:
    """In each turn a writer yields the whole records in its next bytes, whatever the limits of `read`."""
    scene = Scene()
    with patch.object(followed_segment, "CHUNK", chunk):
        for number, sizes in enumerate(writers):
            scene.writer().put([b"%d.%d " % (number, at) + bytes(size) for at, size in enumerate(sizes)])
        scene.note()
        found: list[bytes] = []
        number = 0
        while events := scene.read(*limits[number % len(limits)]):
            found += [event.payload for event in events]
            number += 1
        assert found == expected_turns(scene, chunk)
    scene.close()


def test_an_earlier_segment_that_grows_while_a_later_one_is_read_goes_first(scene: Scene) -> None:
    """A thread may append to an earlier segment, and then to a later one."""
    writer = scene.writer()
    first = writer.put([b"1"])
    child = writer.fork()
    writer.rotate()
    second = writer.put([b"2"])
    assert scene.payloads(1) == [b"1"]
    assert scene.payloads(1) == [b"2"]

    def append_to_both() -> None:
        os.write(child.fd, child.segment.record(b"3"))
        scene.append(second, scene.format_of(second).record(b"4"))

    scene.append(second, scene.format_of(second).record(b"x"))
    # What is read of the first segment doesn't have 3, and what is read of the second one has 4.
    scene.files.after["read"] = append_to_both
    assert scene.payloads() == [b"3", b"x", b"4"]
    os.close(child.fd)
    assert first != second


def test_what_was_read_is_delivered_if_its_segment_vanishes(scene: Scene) -> None:
    """Events that were read are delivered, even if their segment isn't open any more."""
    writer = scene.writer()
    writer.put([b"1"])
    child = writer.fork()
    writer.rotate()
    second = writer.put([b"2"])
    with patch.object(catalog, "MAX_OPEN", 1):
        assert scene.payloads() == [b"1", b"2"]
        scene.append(second, scene.format_of(second).record(b"4"))
        scene.files.after["read"] = lambda: os.write(child.fd, child.segment.record(b"3"))
        assert scene.payloads(1) == [b"3"]
        shutil.rmtree(scene.folder)
        assert scene.reader.status().segments == 0
        assert scene.payloads() == [b"4"]
    os.close(child.fd)


def test_an_earlier_segment_that_appears_while_a_later_one_is_read_goes_first(scene: Scene) -> None:
    """A segment may be published late, after its thread appended to a later one."""
    writer = scene.writer()
    name = writer.put([b"2"])
    scene.note()
    identity = bytes(range(16))
    encoder = Encoder(Header("2", identity))
    earlier = f"{int(name[:20]) - 1:020d}-{name[21:37]}-{identity.hex()}.segment"

    def publish() -> None:
        (scene.folder / earlier).write_bytes(encoder.header + encoder.encode(b"1"))

    assert scene.payloads() == [b"2"]
    writer.put([b"3"])
    scene.files.after["read"] = publish
    assert scene.payloads() == [b"1", b"3"]


@pytest.mark.parametrize("chunk", [100, 10_000])
def test_what_is_loaded_is_not_read_as_well(chunk: int, scene: Scene) -> None:
    """Events that are loaded aren't read as well, even if they were read ahead."""
    with patch.object(followed_segment, "CHUNK", chunk):
        name = scene.writer().put([b"%d" % number + b"x" * 40 for number in range(5)])
        scene.note()
        events = scene.events(name)
        assert scene.read(1, 1000) == events[:1]
        assert scene.reader.load([events[1].span, events[3].span]) == [events[1].payload, events[3].payload]
        assert scene.read(10, 1000) == [events[2], events[4]]


def test_what_is_left_of_a_segment_that_is_closed_after_a_load_is_read(scene: Scene) -> None:
    """Events that were read ahead are read again."""
    writer, other = scene.writer(), scene.writer()
    with patch.object(catalog, "MAX_OPEN", 1):
        first = writer.put([b"1", b"2", b"3"])
        second = other.put([b"4"])
        scene.note()
        assert scene.payloads(1) == [b"1"]
        assert scene.reader.load([scene.events(first)[1].span]) == [b"2"]
        assert scene.reader.load([scene.events(second)[0].span]) == [b"4"]
        assert scene.payloads() == [b"3"]


def test_what_is_read_again_after_a_load_is_not_counted_again(scene: Scene) -> None:
    """Reports of refusals and torn bytes aren't counted twice."""
    writer = scene.writer()
    name = writer.put([b"1"])
    writer.refusals.count("full", 3)
    writer.put([b"2"])
    scene.append(name, b"torn")
    writer.put([b"3"])
    scene.note()
    events = scene.events(name)
    assert scene.payloads(1) == [b"1"]
    assert scene.reader.load([events[2].span]) == [b"3"]
    assert scene.payloads() == [b"2"]
    status = scene.reader.status()
    assert (status.refusals, status.torn_bytes, status.torn_gaps) == ({"full": 3}, 4, 1)


def test_a_stopped_writer_delays_only_itself(scene: Scene) -> None:
    """A pending record is handed out when it is whole; a complete but damaged one isn't waited for."""
    stopped, other = scene.writer(), scene.writer()
    name = stopped.put([b"1"])
    record = scene.format_of(name).record(b"x" * 300_000)
    scene.append(name, record[:200_000])
    other.put([b"2"])
    assert scene.read_all() == [b"1", b"2"]
    for _ in range(3):
        other.put([b"3"])
        assert scene.read_all() == [b"3"]
    scene.append(name, record[200_000:])
    assert [len(payload) for payload in scene.read_all()] == [300_000]
    damaged = bytearray(record)
    damaged[-1] ^= 1
    scene.append(name, bytes(damaged) + scene.format_of(name).record(b"4"))
    assert scene.read_all() == [b"4"]
    assert scene.reader.status().torn_bytes == len(record)
    assert scene.reader.status().torn_gaps == 1


def test_a_low_limit_of_descriptors_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections, ledger and folder need some as well: segments get a quarter of them."""

    def give_few(_: int) -> tuple[int, int]:
        return 64, 64

    monkeypatch.setattr(resource, "getrlimit", give_few)
    with contextlib.closing(Scene()) as scene:
        for number in range(100):
            scene.writer().put([b"%d" % number])
            scene.writers.clear()
        scene.note()
        payloads: list[bytes] = []
        while events := scene.read(1, 1000):
            payloads += [event.payload for event in events]
            assert scene.files.open_now <= 16
        assert len(payloads) == 100


def test_few_segments_are_open(scene: Scene) -> None:
    """However many segments there are, all are read to their end and deleted."""
    count = 3 * MAX_OPEN
    for number in range(count):
        scene.writer().put([b"%d" % number, b"x"])
    scene.writers.clear()
    assert scene.files.open_now == 0
    payloads: list[bytes] = []
    scene.note()
    while events := scene.read(1, 1000):
        payloads += [event.payload for event in events]
        assert scene.files.open_now <= MAX_OPEN
        scene.reader.resolve([event.span for event in events])
    assert len(payloads) == 2 * count
    scene.clock.sleep(1.0)
    assert len(scene.reader.tidy()) == count
    assert scene.files.open_now == 0
    assert scene.reader.status().segments == 0


def test_idle_writers_cost_a_busy_one_nothing(scene: Scene) -> None:
    """Idle segments are polled only every `CHECK_PAUSE` seconds, and the folder isn't listed."""
    idle = [scene.writer() for _ in range(64)]
    for writer in idle:
        writer.put([b"x"])
    scene.deliver()
    busy = scene.writer()
    busy.put([b"y" * 1000] * 3000)
    scene.clock.sleep(1.0)
    scene.reader.tidy()
    assert len(scene.read(1, 1000)) == 1
    before = scene.files.calls.copy()
    count = 0
    while count < 1000:
        events = scene.read(100, 100_000)
        count += len(events)
        scene.reader.resolve([event.span for event in events])
        scene.reader.tidy()
    calls = scene.files.calls - before
    assert calls["names"] <= 1
    assert calls["size"] + calls["size_of"] + calls["lock"] + calls["open"] == 0
    assert calls["read"] + calls["version"] <= 2 * 1000 * 1000 / followed_segment.CHUNK + 4
    scene.clock.sleep(CHECK_PAUSE)
    idle[3].put([b"now"])
    events = scene.read(1000, 1_000_000)
    assert b"now" in [event.payload for event in events]
    assert len(events) == 1000


def test_the_folder_is_listed_only_when_it_changes(scene: Scene) -> None:
    """The folder isn't listed at each read or wait."""
    writer = scene.writer()
    writer.put([b"1"])
    scene.deliver()
    old = scene.folder.stat().st_mtime - 100
    os.utime(scene.folder, (old, old))
    scene.read(1, 1000)
    scene.reader.wait_time(5.0)
    before = scene.files.calls["names"]
    for _ in range(100):
        writer.put([b"2"])
        assert len(scene.read(10, 1000)) == 1
        assert scene.payloads() == []
    assert scene.files.calls["names"] == before


def test_a_segment_that_is_open_is_locked_once_a_second(scene: Scene) -> None:
    """A lock isn't tried each time that all of a segment is settled."""
    writer = scene.writer()
    writer.put([b"0"])
    scene.deliver()
    scene.reader.tidy()
    before = scene.files.calls["lock"]
    for number in range(20):
        writer.put([b"%d" % number])
        (event,) = scene.read()
        scene.reader.resolve([event.span])
        assert scene.reader.tidy() == []
    assert scene.files.calls["lock"] == before
    scene.clock.sleep(1.0)
    assert scene.reader.tidy() == []
    assert scene.files.calls["lock"] == before + 1


def test_space_is_given_back_while_a_writer_keeps_its_segment_open(scene: Scene) -> None:
    """Holes are punched up to the settled end; the header and unsettled bytes stay."""
    writer = scene.writer()
    name = writer.put([b"x" * 10_000] * 100)
    scene.note()
    events = scene.read(1000, 10**9)
    file = scene.folder / name
    before = file.stat().st_blocks
    scene.reader.resolve([event.span for event in events[60:]])
    scene.reader.tidy()
    assert file.stat().st_blocks == before
    scene.reader.resolve([event.span for event in events[:50]])
    scene.reader.tidy()
    assert before * 0.45 < file.stat().st_blocks < before * 0.55
    assert scene.reader.status().punches_holes
    data = file.read_bytes()
    assert data[:4096] == scene.data[name][:4096]
    assert data[events[50].span.start :] == scene.data[name][events[50].span.start :]
    assert writer.put([b"y"]) == name


def test_a_start_with_many_segments_opens_none(scene: Scene) -> None:
    """A start with many segments only lists the folder; sizes are read for the status."""
    for _ in range(300):
        scene.writer().put([b"x"])
    scene.reader.close()
    scene.note()
    scene.start()
    assert scene.files.calls["open"] == 0
    assert scene.files.calls["size_of"] == 0
    assert scene.reader.status().backlog == sum(map(len, scene.data.values()))


def test_what_an_earlier_run_settled_is_not_read(scene: Scene) -> None:
    """Reports of refusals and torn bytes aren't counted again."""
    writer = scene.writer()
    name = writer.put([b"x" * 1000] * 300)
    writer.refusals.count("full", 3)
    writer.put([b"y"])
    scene.append(name, b"torn")
    writer.put([b"z"])
    scene.deliver()
    status = scene.reader.status()
    assert (status.refusals, status.torn_bytes, status.torn_gaps) == ({"full": 3}, 4, 1)
    scene.reader.close()
    scene.handed.clear()
    scene.start()
    writer.put([b"last"])
    assert scene.read_all() == [b"last"]
    status = scene.reader.status()
    assert (status.refusals, status.torn_bytes, status.torn_gaps) == ({}, 0, 0)
    assert scene.files.calls["read"] <= 4
