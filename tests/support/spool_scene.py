"""A spool on a disk with writers and a reader, and a simple model of what the reader must do.

The model knows every byte that was written, the places that were settled, and what was handed out in this
run. It finds records with `segment_model`, which is written from `docs/protocol.md` alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from baseplate_events.counting.refusals import RefusalCounts
from baseplate_events.event_publisher.policy.span import EventRun, Span, join_spans
from baseplate_events.event_publisher.spool_reader.files import ReaderFolder
from baseplate_events.event_publisher.spool_reader.reader import SpoolReader
from baseplate_events.event_publisher.spool_reader.watch import SpoolWatch
from baseplate_events.spool.directory import SpoolDirectory
from baseplate_events.spool.writer import SpoolWriter
from tests.support import segment_model
from tests.support.clocks import FakeClock
from tests.support.faulty_files import FaultyFiles
from tests.support.spool_directories import names_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.support.segment_model import Whole

#: Debian's libffi keeps a file open from its first use on; that is no leak of a test.
_LIBC = ctypes.CDLL(None)

#: Bytes that no spool of a test reaches.
ROOM: Final = 1 << 40


class SpooledEvent(NamedTuple):
    """An event, and its place in the spool."""

    payload: bytes
    span: Span


def events_of(run: EventRun) -> list[SpooledEvent]:
    """Return the events of a run with their places."""
    events: list[SpooledEvent] = []
    left = list(reversed(run.events))
    for identity, start, end in run.spans:
        at = start
        while at < end:
            payload = left.pop()
            size = segment_model.HEAD + len(payload)
            events.append(SpooledEvent(payload, Span(identity, at, at + size)))
            at += size
        assert at == end
    assert not left
    assert run.spans == join_spans(run.spans)
    return events


class Child(NamedTuple):
    """A forked process that has a segment of its parent open: its name, descriptor and format."""

    name: str
    fd: int
    segment: segment_model.ModelSegment


class Writer:
    """A service."""

    def __init__(self, directory: SpoolDirectory) -> None:
        self.refusals = RefusalCounts()
        self._writer = SpoolWriter(directory, "2", ROOM, self.refusals, FakeClock())
        self._folder = Path(directory.path)
        self.name = ""

    def put(self, events: Sequence[bytes]) -> str:
        """Append events, and return the name of the segment that they are in."""
        before = self._writer.segment
        self._writer.append(events)
        if self._writer.segment is not before or not self.name:
            self.name = max(
                name for name in names_in(self._folder) if name.endswith(f"{self.identity.hex()}.segment")
            )
        return self.name

    @property
    def identity(self) -> bytes:
        """Identity of the current segment."""
        segment = self._writer.segment
        assert segment is not None
        return bytes.fromhex(segment.encoder.header.split()[3].decode())

    def rotate(self) -> None:
        """Have the next events start another segment."""
        segment = self._writer.segment
        if segment is not None:
            segment.end()

    def fork(self) -> Child:
        """Return a child that has the current segment open."""
        segment = self._writer.segment
        assert segment is not None
        fd = os.dup(segment._fd)  # pyright: ignore[reportPrivateUsage]
        return Child(self.name, fd, segment_model.ModelSegment("2", self.identity))


class Scene:
    """A spool, its writers, its reader, and the model.

    Attributes:
        data: All bytes that were ever in each segment, by name.
        settled: Offsets of each segment that were settled, by name, as a ledger has them.
        handed: What was handed out in this run, in order.
        outstanding: Events that were handed out but aren't resolved.
        before: Offsets that were settled when this run started, by name.
        gone_before: Segments that were gone by then.
    """

    def __init__(self, event_format: str = "2") -> None:
        self._place = tempfile.TemporaryDirectory()
        self.event_format = event_format
        self.directory = SpoolDirectory(self._place.name, "main", mode=0o600)
        self.directory.prepare()
        self.folder = Path(self.directory.path)
        self.clock = FakeClock()
        self.writers: list[Writer] = []
        self.children: list[Child] = []
        self.data: dict[str, bytes] = {}
        self.written: dict[tuple[str, int], int] = {}  # (segment, end of record): when it was whole
        self.settled: dict[str, set[int]] = {}
        self.handed: list[SpooledEvent] = []
        self.outstanding: list[SpooledEvent] = []
        self.start()

    def start(self) -> None:
        """Start a reader."""
        self.before = {name: set(offsets) for name, offsets in self.settled.items()}
        self.gone_before = set(self.data) - set(self.names())
        self.files = FaultyFiles(ReaderFolder(self.directory))
        watch = SpoolWatch(self.files.path, self.clock)
        self.reader = SpoolReader(
            self.files, watch, event_format=self.event_format, clock=self.clock, resolved=self.ranges
        )

    def close(self) -> None:
        """End everything."""
        self.reader.close()
        for child in self.children:
            os.close(child.fd)
        self.writers.clear()
        self._place.cleanup()

    def ranges(self, identity: bytes) -> list[tuple[int, int]]:
        """Return what is settled of a segment, as ranges."""
        offsets = sorted(self.settled.get(self.name_of(identity), ()))
        ranges: list[tuple[int, int]] = []
        for offset in offsets:
            if ranges and ranges[-1][1] == offset:
                ranges[-1] = (ranges[-1][0], offset + 1)
            else:
                ranges.append((offset, offset + 1))
        return ranges

    def name_of(self, identity: bytes) -> str:
        """Return the name of the segment with an identity, or an empty one."""
        return next((name for name in self.data if f"-{identity.hex()}." in name), "")

    def writer(self) -> Writer:
        """Return a new writer."""
        self.writers.append(Writer(self.directory))
        return self.writers[-1]

    def names(self) -> list[str]:
        """Return the names of segments in the folder, in order."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in names_in(self.folder) if name in self.data or self._is_new(name))
        return []

    def _is_new(self, name: str) -> bool:
        return name.endswith(".segment") and len(name) == 78 and name[20] == "-"

    def read(self, max_events: int = 10, max_bytes: int = 1_000_000) -> list[SpooledEvent]:
        """Read, and return the events, each with its place."""
        return events_of(self.reader.read(max_events, max_bytes))

    def payloads(self, max_events: int = 10) -> list[bytes]:
        """Read, and return the payloads."""
        return self.reader.read(max_events, 1_000_000).events

    def read_all(self) -> list[bytes]:
        """Return the payloads of all events that are left, checked against the model."""
        self.note()
        payloads: list[bytes] = []
        while events := self.read(1000):
            self.take(events)
            payloads += [event.payload for event in events]
        self.note_own()
        return payloads

    def deliver(self) -> list[bytes]:
        """Read all that is left, resolve it, and tidy; return the payloads."""
        payloads = self.read_all()
        spans = [event.span for event in self.outstanding]
        self.outstanding.clear()
        self.settle(spans)
        self.reader.resolve(spans)
        self.clock.sleep(1.0)
        self.reader.tidy()
        return payloads

    def append(self, name: str, data: bytes) -> None:
        """Append bytes to a segment, whoever has it open; nothing if it is gone."""
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)
        self.note()

    def note(self) -> None:
        """Record what was written since the last call. Call it before the reader can punch holes."""
        for name in self.names():
            known = self.data.get(name, b"")
            with (self.folder / name).open("rb") as file:
                file.seek(len(known))
                added = file.read()
            if added or name not in self.data:
                self.data[name] = known + added
                for record in self.records(name):
                    self.written.setdefault((name, record.end), len(self.written))

    def format_of(self, name: str) -> segment_model.ModelSegment:
        """Return the format of a segment."""
        return segment_model.ModelSegment("2", bytes.fromhex(name[38:70]))

    def has_header(self, name: str) -> bool:
        """Return whether the header of a segment is intact."""
        return self.data[name].startswith(self.format_of(name).line)

    def records(self, name: str) -> list[Whole]:
        """Return all whole records of a segment."""
        return self.format_of(name).records(self.data[name])

    def events(self, name: str) -> list[SpooledEvent]:
        """Return all events of a segment."""
        identity = self.format_of(name).identity
        return [
            SpooledEvent(record.payload, Span(identity, record.start, record.end))
            for record in self.records(name)
            if record.kind == b"E"
        ]

    def due(self, name: str) -> list[SpooledEvent]:
        """Return the events of a segment that are to be handed out in this run, and weren't yet."""
        settled, handed = self.settled.get(name, set()), {event.span for event in self.handed}
        return [
            event
            for event in self.events(name)
            if event.span.start not in settled and event.span not in handed
        ]

    def holders(self) -> set[str]:
        """Return the segments that a process has open."""
        names = [writer.name for writer in self.writers] + [child.name for child in self.children]
        return set(filter(None, names))

    def take(self, events: Iterable[SpooledEvent]) -> None:
        """Check read events against the model, and record them."""
        for event in events:
            name = self.name_of(event.span.identity)
            due = self.due(name)
            assert due, "an event that isn't due was handed out"
            assert event == due[0], "an event was handed out in another order than it was written"
            at = self.written[name, event.span.end]
            for other in self.data:
                if other[21:37] == name[21:37] and other < name and other in self.names():
                    first = next((self.written[other, due.span.end] for due in self.due(other)), None)
                    assert first is None or first > at, (
                        "an earlier segment had an event that was written before"
                    )
            self.handed.append(event)
            self.outstanding.append(event)

    def settle(self, spans: Iterable[Span]) -> None:
        """Record resolved places."""
        for identity, start, end in spans:
            self.settled.setdefault(self.name_of(identity), set()).update(range(start, end))

    def expected_torn(self, name: str) -> tuple[int, int]:
        """Return the torn bytes that this run found in a segment that was read to its end, and their runs."""
        data, known = self.data[name], self.before.get(name, set())
        pending = self.format_of(name).pending(data) if name in self.names() else len(data)
        whole = set(range(len(self.format_of(name).line))) if self.has_header(name) else set[int]()
        for record in self.records(name):
            whole.update(range(record.start, record.end))
        torn = set(range(pending)) - whole - known
        return len(torn), sum(at - 1 not in torn for at in torn)

    def expected_refusals(self, name: str) -> Counter[str]:
        """Return what this run found in the reports of refusals of a segment that was read to its end."""
        counts: Counter[str] = Counter()
        for record in self.records(name):
            if record.kind == b"R" and record.start not in self.before.get(name, set()):
                counts.update(json.loads(record.payload))
        return counts

    def note_own(self) -> None:
        """Record what the reader settled itself: never a byte of an undelivered event."""
        for identity, start, end in self.reader.take_settled():
            name = self.name_of(identity)
            for event in self.events(name):
                assert event.span.end <= start or event.span.start >= end, (
                    "an event was settled by the reader"
                )
            before = self.settled.setdefault(name, set())
            assert before.isdisjoint(range(start, end)), "something was settled twice"
            before.update(range(start, end))
