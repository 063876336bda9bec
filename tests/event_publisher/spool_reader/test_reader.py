from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from baseplate_events.event_publisher.policy.span import join_spans
from baseplate_events.event_publisher.spool_reader import catalog, followed_segment
from tests.support.queues import open_files
from tests.support.spool_scene import Scene, Writer, events_of

if TYPE_CHECKING:
    from tests.support.spool_scene import SpooledEvent

#: Which of several things.
WHICH = st.integers(0, 100)

#: How many bytes of a segment a power cut takes.
LOST = (0, 1, 60, 100, 4_096, 8_192)


class SpoolReading(RuleBasedStateMachine):
    """Writers, their children, a reader that is restarted, and everything that can be in a segment."""

    @initialize(
        chunk=st.sampled_from([40, 200, 128 * 1024]),
        most=st.sampled_from([1, 2, 64]),
        hole=st.sampled_from([1, 4096, 64 * 1024]),
    )
    def begin(self, chunk: int, most: int, hole: int) -> None:
        self.before = open_files()
        self.patches = [
            patch.object(followed_segment, "CHUNK", chunk),
            patch.object(followed_segment, "MIN_HOLE", hole),
            patch.object(catalog, "MAX_OPEN", most),
        ]
        for each in self.patches:
            each.start()
        self.scene = Scene()
        self.number = 0
        self.halves: list[tuple[str, bytes]] = []

    def payload(self, size: int) -> bytes:
        self.number += 1
        return b"%d " % self.number + b"x" * size

    @rule(sizes=st.lists(st.sampled_from([0, 0, 1, 30, 5_000]), min_size=1, max_size=4), which=WHICH)
    def put(self, sizes: list[int], which: int) -> None:
        scene = self.scene
        if not scene.writers or (which % 5 == 4 and len(scene.writers) < 3):
            scene.writer()
        self.writer(which).put([self.payload(size) for size in sizes])
        scene.note()

    @precondition(lambda self: self.scene.writers)
    @rule(sizes=st.lists(st.sampled_from([0, 1, 30, 5_000]), min_size=1, max_size=4), which=WHICH)
    def relay(self, sizes: list[int], which: int) -> None:
        """The publisher writes events itself, and sends them without reading them."""
        scene = self.scene
        known = set(scene.written)
        self.writer(which).put([self.payload(size) for size in sizes])
        scene.note()
        events = [
            event
            for name in scene.names()
            for event in scene.due(name)
            if (name, event.span.end) not in known and name in scene.holders()
        ]
        scene.reader.skip(join_spans(event.span for event in events))
        scene.handed += events
        scene.outstanding += events
        scene.note_own()

    def writer(self, which: int) -> Writer:
        return self.scene.writers[which % len(self.scene.writers)]

    @precondition(lambda self: self.scene.writers)
    @rule(which=WHICH, count=st.integers(0, 3))
    def rotate(self, which: int, count: int) -> None:
        writer = self.writer(which)
        writer.rotate()
        if count:
            writer.refusals.count("full", count)

    @precondition(lambda self: self.scene.writers)
    @rule(which=WHICH)
    def kill(self, which: int) -> None:
        self.scene.writers.remove(self.writer(which))

    @precondition(lambda self: self.scene.writers)
    @rule(which=WHICH)
    def fork(self, which: int) -> None:
        if len(self.scene.children) < 3 and self.writer(which).name:
            self.scene.children.append(self.writer(which).fork())

    @precondition(lambda self: self.scene.children)
    @rule(which=WHICH, kind=st.sampled_from([b"E", b"E", b"X"]))
    def put_by_child(self, which: int, kind: bytes) -> None:
        child = self.scene.children[which % len(self.scene.children)]
        os.write(child.fd, child.segment.record(self.payload(3), kind))
        self.scene.note()

    @precondition(lambda self: self.scene.children)
    @rule(which=WHICH)
    def kill_child(self, which: int) -> None:
        child = self.scene.children.pop(which % len(self.scene.children))
        os.close(child.fd)

    @precondition(lambda self: self.scene.holders())
    @rule(
        which=WHICH,
        cut=st.integers(0, 100),
        kind=st.sampled_from(["torn", "half", "zeros", "bytes", "other"]),
    )
    def tear(self, which: int, cut: int, kind: str) -> None:
        """A process is killed, or stopped, in the middle of a write; or there are foreign bytes."""
        scene = self.scene
        name = sorted(scene.holders())[which % len(scene.holders())]
        record = scene.format_of(name).record(self.payload(30))
        cut %= len(record)
        first, rest = record[:cut], record[cut:]
        if kind == "half":
            self.halves.append((name, rest))
        elif kind == "zeros":
            first = bytes(cut)
        elif kind == "bytes":
            first = b"\xffEVE" * (cut % 7)
        elif kind == "other":
            first = scene.format_of(name)._replace(identity=bytes(16)).record(b"x")
        scene.append(name, first)

    @precondition(lambda self: self.halves)
    @rule(which=WHICH)
    def go_on(self, which: int) -> None:
        """A process that was stopped in the middle of a write continues, if it is still there."""
        name, rest = self.halves.pop(which % len(self.halves))
        if name in self.scene.holders():
            self.scene.append(name, rest)

    @rule(events=st.integers(0, 5), size=st.sampled_from([0, 1, 50, 6_000]))
    def read(self, events: int, size: int) -> None:
        found = self.scene.read(events, size)
        assert len(found) <= events
        assert len(found) <= 1 or sum(len(event.payload) for event in found) <= size
        self.take(found)

    def take(self, found: list[SpooledEvent]) -> None:
        self.scene.take(found)
        self.scene.note_own()

    @rule(most=st.sampled_from([1, 3, 1000]))
    def read_all(self, most: int) -> None:
        """Everything is handed out, until nothing is left."""
        scene = self.scene
        while found := scene.read(most, 1_000_000):
            self.take(found)
        scene.note_own()
        for name in scene.names():
            assert [] == scene.due(name)
            segment, data, settled = scene.format_of(name), scene.data[name], scene.settled.get(name, set())
            pending = segment.pending(data)
            events = {at for event in scene.events(name) for at in range(event.span.start, event.span.end)}
            assert settled >= set(range(pending)) - events, "something isn't settled that was read"
        seen = set(scene.data) - scene.gone_before
        torn = [scene.expected_torn(name) for name in seen]
        status = scene.reader.status()
        assert status.torn_bytes == sum(size for size, _ in torn)
        assert status.torn_gaps == sum(gaps for _, gaps in torn)
        assert status.refusals == sum(map(scene.expected_refusals, seen), Counter[str]())

    @precondition(lambda self: self.scene.names())
    @rule(which=WHICH)
    def take_rest(self, which: int) -> None:
        """All that is left of a segment is handed out at once."""
        scene = self.scene
        names = scene.names()
        name = names[which % len(names)]
        events = events_of(scene.reader.take_rest(scene.format_of(name).identity))
        assert events == scene.due(name)
        scene.handed += events
        scene.outstanding += events
        scene.note_own()
        assert events_of(scene.reader.take_rest(scene.format_of(name).identity)) == []

    @rule()
    def sync(self) -> None:
        """After a sync all unsettled bytes are on the disk, and nothing is synced needlessly."""
        scene = self.scene
        before = scene.files.calls.copy()
        assert scene.reader.sync() == []
        for name in scene.names():
            size = (scene.folder / name).stat().st_size
            if len(scene.settled.get(name, ())) < size:
                assert scene.files.synced[name] == size
                assert name in scene.files.named
        calls = scene.files.calls - before
        assert calls["sync_names"] <= calls["sync"]
        before = scene.files.calls.copy()
        assert scene.reader.sync() == []
        calls = scene.files.calls - before
        assert calls["sync"] + calls["sync_names"] == 0

    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        scene = self.scene
        count = data.draw(st.integers(0, min(6, len(scene.outstanding))))
        for _ in range(count):
            event = scene.outstanding.pop(data.draw(st.integers(0, len(scene.outstanding) - 1)))
            scene.settle([event.span])
            scene.reader.resolve([event.span])

    @rule()
    def resolve_all(self) -> None:
        scene = self.scene
        spans = [event.span for event in scene.outstanding]
        scene.outstanding.clear()
        scene.settle(spans)
        scene.reader.resolve(spans)

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0]))
    def tidy(self, seconds: float) -> None:
        """Only deletable segments are deleted, and all of them once nothing is left to read."""
        scene = self.scene
        before = scene.names()
        scene.clock.sleep(seconds)
        may_be = {name for name in before if self.may_be_deleted(name)}
        deleted = {scene.name_of(identity) for identity in scene.reader.tidy()}
        assert set(before) - set(scene.names()) == deleted
        assert deleted <= may_be

    def may_be_deleted(self, name: str) -> bool:
        scene = self.scene
        settled = scene.settled.get(name, set())
        return name not in scene.holders() and all(
            event.span.start in settled for event in scene.events(name)
        )

    @rule()
    def end(self) -> None:
        """Once everything is read and resolved, only open segments stay."""
        scene = self.scene
        self.read_all(1000)
        self.resolve_all()
        scene.clock.sleep(1.0)
        self.tidy(0.0)
        assert set(scene.names()) == scene.holders() & set(scene.names())

    @rule(kept=st.sampled_from(["all", "all", "events", "nothing"]), load=st.booleans(), data=st.data())
    def restart(self, kept: str, load: bool, data: st.DataObject) -> None:
        """The publisher is killed; its ledger is kept, in whole or in part, or lost."""
        scene = self.scene
        scene.reader.close()
        take = load and kept != "nothing"
        batch = [event for event in scene.outstanding if data.draw(st.booleans())] if take else []
        scene.handed.clear()
        scene.outstanding.clear()
        if kept == "events":
            for name, settled in scene.settled.items():
                events = scene.events(name)
                settled &= {at for event in events for at in range(event.span.start, event.span.end)}
        elif kept == "nothing":
            scene.settled.clear()
        if kept != "all":
            for name in scene.names():  # there may be holes now
                scene.data[name] = (scene.folder / name).read_bytes()
        scene.start()
        batch = [event for event in batch if scene.name_of(event.span.identity) in scene.names()]
        loaded = scene.reader.load(join_spans(event.span for event in batch))
        assert loaded == [event.payload for event in batch]
        scene.handed += batch
        scene.outstanding += batch

    @rule(forgets=st.booleans(), data=st.data())
    def cut_power(self, *, forgets: bool, data: st.DataObject) -> None:
        """All processes end. The disk has lost the beginning of segments."""
        scene = self.scene
        scene.reader.close()
        scene.writers.clear()
        while scene.children:
            os.close(scene.children.pop().fd)
        self.halves.clear()
        scene.handed.clear()
        scene.outstanding.clear()
        if forgets:
            scene.settled.clear()
        for name in scene.names():
            content = (scene.folder / name).read_bytes()
            lost = min(data.draw(st.sampled_from(LOST)), len(content))
            content = bytes(lost) + content[lost:]
            scene.data[name] = content
            settled = scene.settled.get(name, set())
            left = {at for at, byte in enumerate(content) if byte} - settled
            if left and not scene.has_header(name) and not scene.records(name):
                scene.data[name] = content = bytes(len(content))  # otherwise it is set aside
            (scene.folder / name).write_bytes(content)
        scene.start()

    @precondition(lambda self: self.scene.outstanding)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        """Events that were handed out can be loaded again; missing ones can't."""
        scene = self.scene
        there = [event for event in scene.outstanding if scene.name_of(event.span.identity) in scene.names()]
        events = [event for event in there if data.draw(st.booleans())]
        joined = join_spans(event.span for event in events)
        assert scene.reader.load(joined) == [event.payload for event in events]
        if events:
            wrong = events[0].span._replace(end=events[0].span.end + 1)
            assert scene.reader.load([events[0].span, wrong]) is None
            assert scene.reader.load([events[0].span._replace(identity=bytes(16))]) is None

    @precondition(lambda self: any(map(self.scene.due, self.scene.names())))
    @rule(data=st.data())
    def load_ahead(self, data: st.DataObject) -> None:
        """Events that are loaded aren't read afterwards, even if reading has begun."""
        scene = self.scene
        due = [event for name in scene.names() for event in scene.due(name)]
        events = [event for event in due if data.draw(st.booleans())]
        assert scene.reader.load([event.span for event in events]) == [event.payload for event in events]
        scene.handed += events
        scene.outstanding += events
        scene.note_own()

    @invariant()
    def backlog_is_exact(self) -> None:
        if not hasattr(self, "scene"):
            return
        scene = self.scene
        status = scene.reader.status()
        scene.note_own()
        names = scene.names()
        sizes = {name: (scene.folder / name).stat().st_size for name in names}
        left = {name: sizes[name] - len(scene.settled.get(name, ())) for name in names}
        assert status.segments == len(names)
        assert status.backlog == sum(left.values())
        times = [int(name[:20]) / 1e9 for name in names if left[name]]
        assert status.oldest == (min(times) if times else None)
        assert status.locks_work
        assert not status.aside
        assert status.problem is None

    @invariant()
    def nothing_unsettled_is_lost(self) -> None:
        """Holes are only in settled ranges."""
        if not hasattr(self, "scene"):
            return
        scene = self.scene
        for name in scene.names():
            data, settled = (scene.folder / name).read_bytes(), scene.settled.get(name, set())
            changed = {at for at, (a, b) in enumerate(zip(data, scene.data[name], strict=False)) if a != b}
            assert changed <= settled

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            self.scene.close()
            for each in self.patches:
                each.stop()
            assert open_files() <= self.before


TestSpoolReading = SpoolReading.TestCase
TestSpoolReading.settings = settings(stateful_step_count=40)
