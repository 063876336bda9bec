"""Services with a real spool, for tests: with hooks at each step, in any process."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final, final

from baseplate_events import EventQueue
from baseplate_events.events import MAX_SPOOL_SIZE
from baseplate_events.transport.spool import SpoolTransport
from tests.support.spool_reader import SpoolFileReader
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from types import TracebackType

    from baseplate_events.queue_settings import QueueArguments
    from baseplate_events.spool.segment import FileStatus, OpenSpoolFolder, SpoolFolder
    from baseplate_events.transport import Transport

#: NAME of the queue of all of these services.
NAME: Final = "test"

#: Bytes of a segment that a few events fill, for tests in which segments start all the time.
TINY: Final = 1_500

#: The steps by which a segment starts, in order. They are methods of `SpoolFolder` and `OpenSpoolFolder`.
STEPS: Final = ("open", "used", "create", "lock", "status", "write", "publish")


def spool_of(directory: Path) -> Path:
    """Return the folder that the events go to."""
    return directory / f"events-{NAME}"


def read_all(directory: Path) -> list[bytes]:
    """Read all events and delete their segments; no process may have one open. Nothing may be left."""
    with SpoolFileReader(spool_of(directory)) as reader:
        events = reader.drain()
        assert (reader.grown, reader.vanished, reader.unreadable) == (0, 0, set())
    assert {file.name for file in spool_of(directory).iterdir()} == {"reader.lock"}
    return events


def files_in(directory: Path) -> list[str]:
    """Name the files of writers, whether they are complete or not."""
    return sorted(file.name for file in spool_of(directory).iterdir() if file.name != "reader.lock")


@final
class WatchedDirectory:
    """The real directory of a spool, with hooks before and after each step.

    Args:
        real: The directory.
        before: Called with the name of a method of `SpoolFolder` or `OpenSpoolFolder` before it is called.
        after: Called with it afterwards, unless it raised.
    """

    def __init__(
        self, real: SpoolFolder, before: Callable[[str], object], after: Callable[[str], object]
    ) -> None:
        self._real = real
        self._before = before
        self._after = after

    @contextlib.contextmanager
    def step(self, name: str) -> Generator[None]:
        """Call the hooks around a step."""
        self._before(name)
        yield
        self._after(name)

    @property
    def path(self) -> str:
        return self._real.path

    def open(self) -> _WatchedOpenDirectory:
        with self.step("open"):
            opened = self._real.open()
        return _WatchedOpenDirectory(opened, self)

    def lock(self, fd: int) -> bool:
        with self.step("lock"):
            return self._real.lock(fd)

    def write(self, fd: int, data: bytes) -> int:
        with self.step("write"):
            return self._real.write(fd, data)

    def status(self, fd: int) -> FileStatus:
        with self.step("status"):
            return self._real.status(fd)

    def close(self, fd: int) -> None:
        with self.step("close"):
            self._real.close(fd)


@final
class _WatchedOpenDirectory:
    def __init__(self, real: OpenSpoolFolder, directory: WatchedDirectory) -> None:
        self._real = real
        self._directory = directory

    def used(self) -> int:
        with self._directory.step("used"):
            return self._real.used()

    def create(self, name: str) -> int:
        with self._directory.step("create"):
            return self._real.create(name)

    def publish(self, name: str, final: str) -> None:
        with self._directory.step("publish"):
            self._real.publish(name, final)

    def remove(self, name: str) -> None:
        with self._directory.step("remove"):
            self._real.remove(name)

    def has_reader(self) -> bool | None:
        return self._real.has_reader()

    def __enter__(self) -> _WatchedOpenDirectory:
        self._real.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._real.__exit__(kind, exc, traceback)


@final
class WatchedQueue(EventQueue[bytes]):
    """A queue of bytes with a spool whose steps have hooks; see `WatchedDirectory`."""

    def __init__(
        self,
        directory: Path,
        before: Callable[[str], object] = bool,
        after: Callable[[str], object] = bool,
        max_spool_size: int = MAX_SPOOL_SIZE,
    ) -> None:
        self.directory: Final = directory
        self._before = before
        self._after = after
        super().__init__(
            NAME, bytes, spool_directory=directory, strict_size=True, max_spool_size=max_spool_size
        )

    def _open(self, arguments: QueueArguments) -> Transport:
        real = arguments.spool
        assert real is not None
        real.prepare()
        return SpoolTransport(
            WatchedDirectory(real, self._before, self._after),
            arguments.event_format,
            max_size=arguments.max_spool_size,
            max_message_size=arguments.max_event_size,
            refusals=self._refusals,
        )


def open_queue(directory: Path, *, mode: int = 0o600) -> EventQueue[bytes]:
    """Open a queue of bytes with a spool as a service does."""
    return EventQueue(NAME, bytes, spool_directory=directory, strict_size=True, mode=mode)


@final
class Putters:
    """Threads that put events as fast as they can, from the start of a `with` block to its end.

    Attributes:
        put: The events so far whose put returned, of each thread.
    """

    def __init__(self, queue: EventQueue[bytes], threads: int = 3) -> None:
        self.put: list[list[bytes]] = [[] for _ in range(threads)]
        self._queue = queue
        self._over = False
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def wait_for_each(self, events: int) -> None:
        """Return when each thread has put so many more events."""
        wanted = [len(put) + events for put in self.put]
        wait_until(
            lambda: (
                self._failures or all(len(put) >= goal for put, goal in zip(self.put, wanted, strict=True))
            ),
            "the threads don't put",
            interval=0.001,
        )
        self._check()

    @property
    def all_put(self) -> list[bytes]:
        """The events of all threads."""
        return [event for put in self.put for event in put]

    def __enter__(self) -> Putters:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()
        self._check()

    def _check(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _run(self, thread: int) -> None:
        number = 0
        try:
            while not self._over:
                event = b"{thread %d event %d %b}" % (thread, number, b"." * (number * 37 % 300))
                self._queue.put(event)
                self.put[thread].append(event)
                number += 1
        except BaseException as exc:  # noqa: BLE001 - for `wait_for_each`
            self._failures.append(exc)


def forked(function: Callable[[], object]) -> int:
    """Run a function in a forked child, which exits with 0, or 1 if it raised; return the child's PID."""
    child = os.fork()
    if not child:
        run_and_exit(function)
    return child


def run_and_exit(function: Callable[[], object]) -> None:
    """Run a function and end this process, with 0, or 1 if it raised."""
    status = 1
    try:
        function()
        status = 0
    except BaseException:  # noqa: BLE001 - it is printed
        import traceback  # noqa: PLC0415 - only a failing test needs it

        os.write(2, traceback.format_exc().encode())  # pytest's descriptor may be closed
    finally:
        os._exit(status)


def check_exit(child: int) -> None:
    """Wait for the end of a child, and check that its function returned."""
    assert os.waitpid(child, 0)[1] == 0, "a child failed; see what it wrote to stderr"
