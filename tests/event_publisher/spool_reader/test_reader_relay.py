"""Events that the publisher wrote itself: they aren't read, and cost next to nothing."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.policy.span import Span, join_spans
from baseplate_events.event_publisher.spool_reader.watch import POLL_PAUSE

if TYPE_CHECKING:
    from tests.support.spool_scene import Scene, Writer


def relay(scene: Scene, writer: Writer, count: int = 3) -> tuple[Span, ...]:
    """Write events, and mark them as handed out; return their places."""
    name = writer.put([b"%d" % number for number in range(count)])
    scene.note()
    spans = join_spans(event.span for event in scene.events(name)[-count:])
    scene.reader.skip(spans)
    return spans


def test_what_was_handed_on_is_not_read(scene: Scene) -> None:
    """They aren't read, whether their segment was listed or not; events of others in it are."""
    writer = scene.writer()
    for number in range(5):
        relay(scene, writer)
        if number % 2:
            writer.put([b"left %d" % number])
            assert scene.payloads() == [b"left %d" % number]
        assert scene.payloads() == []
        if number == 2:
            writer.rotate()


def test_an_idle_relay_is_not_read(scene: Scene) -> None:
    """Its segment is opened once, for its header; and the folder isn't listed for each burst."""
    writer = scene.writer()
    spans = list(relay(scene, writer))
    old = scene.folder.stat().st_mtime - 100
    os.utime(scene.folder, (old, old))
    assert scene.payloads() == []
    scene.reader.wait_time(1.0)
    before = scene.files.calls.copy()
    for _ in range(100):
        spans += relay(scene, writer)
        assert scene.payloads() == []
        assert scene.reader.wait_time(1.0) == POLL_PAUSE
    calls = scene.files.calls - before
    assert calls["read"] + calls["open"] == 0
    assert calls["names"] <= 2
    assert scene.reader.status().backlog == sum(end - start for _, start, end in spans)
    scene.reader.resolve(join_spans(spans))
    assert scene.reader.status().backlog == 0
    scene.clock.sleep(1.0)
    assert scene.reader.tidy() == [], "the relay has it open"
    scene.writers.clear()
    del writer
    scene.clock.sleep(1.0)
    assert scene.reader.tidy() == [spans[0].identity]


def test_a_segment_that_is_unlisted_is_skipped_without_a_listing_each_time(scene: Scene) -> None:
    """A segment that was deleted before it was found costs nothing."""
    writer = scene.writer()
    writer.put([b"1"])
    shutil.rmtree(scene.folder)
    scene.folder.mkdir(0o700)
    before = scene.files.calls["names"]
    for number in range(100):
        scene.reader.skip([Span(writer.identity, 60 + number, 61 + number)])
    assert scene.files.calls["names"] <= before + 2
    assert scene.payloads() == []


def test_what_is_skipped_is_not_counted_as_read_by_a_later_run(scene: Scene) -> None:
    """If the publisher is killed, what it handed on and didn't settle is read from the spool."""
    writer = scene.writer()
    spans = relay(scene, writer)
    scene.reader.resolve([spans[0]._replace(end=spans[0].start + 17)])
    scene.settle([spans[0]._replace(end=spans[0].start + 17)])
    scene.note_own()
    scene.reader.close()
    scene.start()
    assert scene.payloads() == [b"1", b"2"]


def test_what_is_left_of_a_segment_is_taken_at_once(scene: Scene) -> None:
    """The rest of a segment is handed out in order; other segments are read as usual."""
    writer, other = scene.writer(), scene.writer()
    name = writer.put([b"%d" % number + b"x" * 1000 for number in range(500)])
    other.put([b"other"])
    scene.note()
    events = scene.events(name)
    assert scene.read(2) == events[:2]
    scene.reader.skip([events[3].span])
    run = scene.reader.take_rest(writer.identity)
    assert run.events == [event.payload for event in [events[2], *events[4:]]]
    assert run.spans == (events[2].span, Span(writer.identity, events[4].span.start, events[-1].span.end))
    assert scene.reader.take_rest(writer.identity) == ([], ())
    assert scene.reader.take_rest(bytes(16)) == ([], ())
    assert scene.payloads() == [b"other"]
