"""Rounds of kills at full load: of the publisher, of the services, and of both.

In a round

1. services start that put into the spool, with threads and with children that they kill and fork again
   themselves, and one that puts into the POSIX queue, which the publisher moves into the spool,
2. after some events the publisher, the services or both are killed, and started again; while the publisher is
   gone its ledger may be damaged,
3. after some more events the services are killed, the publisher delivers what is left and ends, and the logs
   are compared with what the collector got.

All rounds have the same spool. Moments are counted in events, so the speed of the machine doesn't
matter.
"""

from __future__ import annotations

import contextlib
import enum
import os
import random
import secrets
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events.event_publisher.ledger.file import SPOOL_NAME
from baseplate_events.events import SPOOL_VARIABLE
from baseplate_events.transport.posix import unlink_queue
from tests.soak.delivery.collector import Collector
from tests.soak.delivery.damage import Damage
from tests.soak.spool.oracle import ENTRY_SIZE
from tests.support.commands import IMPORTING
from tests.support.processes import Process, started
from tests.support.publishers import publisher_process
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.support.publishers import PublisherProcess

#: Seconds until a publisher must have delivered all that is left, or services have put enough.
_LONG_PATIENCE: Final = 300.0

#: Share of the kills of a publisher that come while it starts.
_EARLY_SHARE: Final = 0.2

#: Share of the kills of a publisher after which its ledger is damaged.
_DAMAGE_SHARE: Final = 0.4

#: Settings of the publishers.
_SETTINGS: Final = {"delivery__concurrency": "4", "shutdown__grace": "10 minutes"}


class Victims(enum.Enum):
    """Who is killed."""

    PUBLISHER = "publisher"
    SERVICES = "services"
    BOTH = "both"


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        rounds: Rounds.
        services: Services that put into the spool at the same time.
        threads: Threads of each process that put.
        events: Events that are put between two kills, at most.
        seed: Of random moments.
    """

    rounds: int = 100
    services: int = 2
    threads: int = 4
    events: int = 20_000
    seed: int = 1


@dataclass
class Report:
    """What all rounds proved.

    Attributes:
        figures: Counts, by name.
        failures: What went wrong, in words.
    """

    figures: Counter[str] = field(default_factory=Counter[str])
    failures: list[str] = field(default_factory=list[str])


def run_rounds(scale: Scale) -> Report:
    """Run all rounds in a folder of their own."""
    report = Report()
    with (
        tempfile.TemporaryDirectory(prefix="delivery-") as path,
        contextlib.closing(Collector()) as collector,
    ):
        rounds = _Rounds(scale, Path(path), collector, report)
        try:
            for number in range(scale.rounds):
                rounds.run(number)
            rounds.end()
        finally:
            unlink_queue(f"/events-{rounds.name}")
    return report


class _Rounds:
    def __init__(self, scale: Scale, folder: Path, collector: Collector, report: Report) -> None:
        self.name = f"kills-{secrets.token_hex(8)}"
        self._scale = scale
        self._folder = folder
        self._collector = collector
        self._report = report
        self._chance = random.Random(scale.seed)
        self._spool_directory = folder / "spool"
        self._spool_directory.mkdir()
        self._spool = self._spool_directory / f"events-{self.name}"
        self._damaged = False

    def run(self, number: int) -> None:
        """Run a round."""
        logs = self._folder / str(number)
        logs.mkdir()
        victims = self._chance.choice(list(Victims))
        self._damaged = False
        figures = self._report.figures
        with contextlib.ExitStack() as stack:
            services = self._start_services(stack, logs)
            publisher = stack.enter_context(self._publisher())
            if victims is Victims.SERVICES or self._chance.random() >= _EARLY_SHARE:
                publisher.wait_until_it_publishes()
            self._wait_for_events(services, self._chance.randint(1, self._scale.events))
            if victims is not Victims.SERVICES:
                publisher.process.kill()
                figures["kills_of_publisher"] += 1
            if victims is not Victims.PUBLISHER:
                _kill(services.values())
                figures["kills_of_services"] += len(services)
                services = self._start_services(stack, logs)
            if victims is not Victims.SERVICES:
                publisher.process.wait(PATIENCE)
                self._damage()
                publisher = stack.enter_context(self._publisher())
            self._wait_for_events(services, self._chance.randint(1, self._scale.events))
            publisher.wait_until_it_publishes()
            _kill(services.values())
            self._end(publisher)
        self._audit(number, logs, kills=victims is not Victims.SERVICES)

    def end(self) -> None:
        """Have a last publisher delete what is left, and check that nothing else remains."""
        with self._publisher() as publisher:
            publisher.wait_for(lambda: not list(self._spool.glob("*.segment")))
            self._end(publisher)
        # Files that were never published are deleted after a while.
        left = {path.name for path in self._spool.iterdir() if path.suffix != ".new"}
        left = {name for name in left if ".damaged-" not in name}
        strange = left - {"reader.lock", SPOOL_NAME, f"{SPOOL_NAME}-journal"}
        if strange:
            self._report.failures.append(f"files are left: {', '.join(sorted(strange))}")
        deliveries = self._collector.deliveries
        self._report.figures.update(batches=deliveries.batches, repeated_batches=deliveries.repeated)
        if deliveries.foreign:
            self._report.failures.append(f"{deliveries.foreign} events arrived that no one put")

    def _publisher(self) -> contextlib.AbstractContextManager[PublisherProcess]:
        settings = {**_SETTINGS, "spool__directory": str(self._spool_directory)}
        return publisher_process(self._folder, self.name, self._collector.url, **settings)

    def _start_services(self, stack: contextlib.ExitStack, logs: Path) -> dict[Path, Process]:
        """Start services, and return them by their logs."""
        threads = str(self._scale.threads)
        services: dict[Path, Process] = {}
        for _ in range(self._scale.services):
            log, seed = logs / f"spool-{secrets.token_hex(8)}", str(self._chance.getrandbits(32))
            words = ("tests.soak.spool.producer", self.name, str(log), threads, seed)
            services[log] = stack.enter_context(_service(words, self._spool_directory))
        log = logs / f"posix-{secrets.token_hex(8)}"
        services[log] = stack.enter_context(
            _service(("tests.soak.delivery.producer", self.name, str(log), threads), None)
        )
        return services

    def _wait_for_events(self, services: Mapping[Path, Process], count: int) -> None:
        """Return as soon as so many more events were put, and each service has put some."""
        before = sum(map(_entries, services))
        wait_until(
            lambda: sum(map(_entries, services)) >= before + count and all(map(_entries, services)),
            "the services do not put",
            patience=_LONG_PATIENCE,
            interval=0.001,
        )

    def _damage(self) -> None:
        if self._chance.random() < _DAMAGE_SHARE and (self._spool / SPOOL_NAME).exists():
            damage = self._chance.choice(list(Damage))
            damage.inflict(self._spool)
            self._damaged = True
            self._report.figures["damaged_ledgers"] += 1

    def _end(self, publisher: PublisherProcess) -> None:
        publisher.wait_until_it_publishes()
        publisher.process.send_signal(signal.SIGTERM)
        status = publisher.process.wait(_LONG_PATIENCE)
        if status:
            self._report.failures.append(f"a publisher ended with {status}: {publisher.log[-500:]}")

    def _audit(self, number: int, logs: Path, *, kills: bool) -> None:
        figures, failures = self._report.figures, self._report.failures
        deliveries = self._collector.deliveries
        with self._collector.lock:
            found = {
                kind: deliveries.compare([log.read_bytes() for log in logs.glob(f"{kind}-*")])
                for kind in ("spool", "posix")
            }
            duplicates, deliveries.duplicates = deliveries.duplicates, 0
        for kind, puts in found.items():
            for name, figure in vars(puts).items():
                figures[f"{kind}_{name}"] += figure
            if puts.foreign:
                failures.append(f"round {number}: {puts.foreign} events arrived that were refused or not put")
        if found["spool"].lost:
            failures.append(f"round {number}: {found['spool'].lost} events in the spool were lost")
        if found["posix"].lost > kills:
            failures.append(f"round {number}: {found['posix'].lost} events of the POSIX queue were lost")
        figures["duplicates_after_damage" if self._damaged else "duplicates"] += duplicates
        if duplicates and not self._damaged:
            failures.append(f"round {number}: {duplicates} events came again in other batches")
        for log in logs.iterdir():
            log.unlink()


def _entries(log: Path) -> int:
    return log.stat().st_size // ENTRY_SIZE if log.exists() else 0


def _service(words: Sequence[str], spool: Path | None) -> contextlib.AbstractContextManager[Process]:
    """Run a service in a session of its own, and kill the whole session in the end."""
    command = (sys.executable, "-W", "ignore::DeprecationWarning", "-m", *words)
    variable = None if spool is None else str(spool)
    return started(*command, session=True, environ={**IMPORTING, SPOOL_VARIABLE: variable})


def _kill(processes: Collection[Process]) -> None:
    """Kill processes and all of their children at once."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()
