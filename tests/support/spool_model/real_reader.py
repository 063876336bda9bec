"""The publisher's reader in the model: it delivers immediately, and settled ranges survive it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING
from unittest.mock import patch

from baseplate_events.event_publisher.spool_reader import reader as reader_module
from baseplate_events.event_publisher.spool_reader.files import FolderVersion, ReaderFolder
from baseplate_events.event_publisher.spool_reader.findings import OwnFindings
from baseplate_events.event_publisher.spool_reader.reader import SpoolReader
from baseplate_events.event_publisher.spool_reader.watch import SpoolWatch
from baseplate_events.spool.format import EVENT, REFUSALS

from ..records import Record
from .kernel import os_error

if TYPE_CHECKING:
    from baseplate_events.event_publisher.inotify import Inotify

    from .files import ReaderFiles
    from .reader import ModelLedger


class SimulatedFolder(ReaderFolder):
    """A folder of the model."""

    def __init__(self, files: ReaderFiles) -> None:
        self._machine = files.machine
        self._process = files.process
        self._kernel = files.machine.kernel

    @property
    def path(self) -> str:
        return "/spool/events-test"

    @property
    def punches(self) -> bool | None:
        return False

    def version(self) -> FolderVersion:
        self._step("version")
        folder = self._kernel.folder
        return FolderVersion(None if folder is None else (id(folder), frozenset(folder.names)), sure=True)

    def names(self) -> list[str]:
        self._step("names")
        return [] if self._kernel.folder is None else sorted(self._kernel.folder.names)

    def size_of(self, name: str) -> int:
        self._step("size of", name)
        folder = self._kernel.folder
        if folder is None or name not in folder.names:
            raise os_error(errno.ENOENT)
        return len(folder.names[name].data)

    def open(self, name: str) -> int:
        self._step("open file", name)
        folder = self._kernel.folder
        if folder is None or name not in folder.names:
            raise os_error(errno.ENOENT)
        return self._kernel.open(self._process, folder, name)

    def size(self, fd: int) -> int:
        self._step("size", fd)
        return self._kernel.status(self._process, fd).size

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self._step("read", (fd, offset))
        return self._kernel.read(self._process, fd, offset)[:size]

    def lock(self, fd: int) -> bool:
        self._step("lock exclusively", fd)
        return self._kernel.lock(self._process, fd, exclusive=True)

    def delete(self, name: str) -> None:
        self._step("delete", name)
        folder = self._kernel.folder
        if folder is None or name not in folder.names:
            raise os_error(errno.ENOENT)
        self._kernel.unlink(folder, name)

    def close_file(self, fd: int) -> None:
        self._step("close file", fd)
        self._kernel.close(self._process, fd)

    def _step(self, call: str, detail: object = "") -> None:
        self._machine.step(self._process, call, detail)


class LedgerFindings(OwnFindings):
    """Findings that are entered in the ledger immediately."""

    def __init__(self, ledger: ModelLedger) -> None:
        super().__init__()
        self._ledger = ledger

    def settle(self, identity: bytes, start: int, end: int) -> None:
        self._ledger.ranges.setdefault(identity, []).append((start, end))

    def count_refusals(self, payload: bytes) -> None:
        self._ledger.records.append(Record(REFUSALS, payload, 0, 0))


class RealReader:
    """See `Reader`."""

    def __init__(self, files: ReaderFiles, ledger: ModelLedger) -> None:
        self._ledger = ledger
        self._files = files
        self._now = 1000.0
        self._reader: SpoolReader | None = None

    def look(self) -> None:
        """See `Reader`."""
        reader = self._reader = self._reader or self._start()
        self._now += 10.0
        while (run := reader.read(7, 100)).events:
            for payload in run.events:
                self._ledger.records.append(Record(EVENT, payload, 0, 0))
            for identity, start, end in run.spans:
                self._ledger.ranges.setdefault(identity, []).append((start, end))
            reader.resolve(run.spans)
        reader.tidy()
        self._now += 0.1

    def _start(self) -> SpoolReader:
        def no_inotify() -> Inotify:
            raise os_error(errno.ENOSYS)

        def clock() -> float:
            return self._now

        watch = SpoolWatch("/spool/events-test", clock, no_inotify)
        with patch.object(reader_module, "OwnFindings", lambda: LedgerFindings(self._ledger)):
            return SpoolReader(
                SimulatedFolder(self._files),
                watch,
                event_format="2",
                clock=clock,
                resolved=lambda identity: self._ledger.ranges.get(identity, ()),
            )
