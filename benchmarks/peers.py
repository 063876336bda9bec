"""Publishers to measure, ours and baseplate.py's, each in a process of its own."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from baseplate_events.transport.posix import MessageQueue
from benchmarks.original import is_installed
from tests.support.processes import Process, started
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES, config_text
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

#: Seconds between two checks of a condition: less than the precision of what is measured that way.
_GLANCE: Final = 0.0005

#: Modules that run as publishers, by whose they are.
PUBLISHERS: Final = {
    "ours": "baseplate_events.event_publisher",
    **({"original": "baseplate.sidecars.event_publisher"} if is_installed() else {}),
}


@dataclass(frozen=True)
class Publisher:
    """A publisher in a process of its own.

    Attributes:
        process: Its process.
        log: What it writes to stderr.
    """

    process: Process
    log: Path

    def wait_for(self, condition: Callable[[], object], *, interval: float = _GLANCE) -> None:
        """Return as soon as a condition holds.

        Raises:
            TimeoutError: It did not hold in time, or the publisher ended first.
        """
        wait_until(
            condition,
            lambda: f"a publisher does not publish; its log ends {self.log.read_text()[-1_000:]!r}",
            process=self.process,
            interval=interval,
        )


@contextlib.contextmanager
def publisher(whose: str, folder: Path, name: str, url: str, **settings: str) -> Generator[Publisher]:
    """Run a publisher, and kill it afterwards.

    Args:
        whose: One of `PUBLISHERS`.
        folder: Folder for its files.
        name: NAME of the queue `/events-NAME`, which exists: baseplate.py would make a larger one.
        url: Scheme, host and port of the collector.
        settings: Settings in addition to the defaults of both; `__` stands for the dot.
    """
    config_file = folder / f"{name}.ini"
    defaults = {"batch__max_age": "1 second", "retry__base": "1 second", "retry__cap": "30 seconds"}
    config_file.write_text(config_text(name, url, **{**defaults, **settings}))
    command = [sys.executable, "-W", "ignore", "-m", PUBLISHERS[whose], "--queue-name", name]
    log = config_file.with_suffix(".log")
    with log.open("wb") as stderr, started(*command, config_file, stderr=stderr) as process:
        yield Publisher(process, log)


@contextlib.contextmanager
def queue_for(name: str) -> Generator[MessageQueue]:
    """Make the queue `/events-NAME`, as deep as a stock Linux allows, and remove it afterwards."""
    with MessageQueue(
        f"/events-{name}", max_messages=MAX_MESSAGES, max_message_size=MAX_MESSAGE_SIZE
    ) as queue:
        try:
            yield queue
        finally:
            queue.unlink()
