"""Rounds of kills: producers at full load and a reader, killed at random moments, and an audit of each round.

In a round

1. a reader starts, and producers, each with threads and with children that it kills and replaces itself,
2. after some events the reader may be killed, and is started again,
3. a producer may be killed while its child goes on,
4. all producers and their children are killed at once,
5. a reader reads all that is left, deletes it, and the logs are compared.

Moments are counted in events, so the speed of the machine doesn't matter.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events import EventQueue
from baseplate_events.events import SPOOL_VARIABLE
from tests.soak.spool.oracle import ENTRY_SIZE, Audit, audit
from tests.soak.spool.producer import MAX_SPOOL_SIZE
from tests.support.commands import IMPORTING
from tests.support.processes import PIPE, Process, finish, kill_group, started
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_NAME: Final = "kills"

#: Seconds until a round is given up.
_PATIENCE: Final = 120.0


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        rounds: Rounds.
        producers: Services at the same time.
        threads: Threads of each process that put.
        events: Puts in a round before the last kill, at least.
        seed: Of random moments.
    """

    rounds: int = 100
    producers: int = 2
    threads: int = 4
    events: int = 50_000
    seed: int = 1


@dataclass(frozen=True)
class Report:
    """What all rounds proved.

    Attributes:
        audit: The sum of their audits.
        kills: How often a reader, a producer, or a producer with its children was killed from outside.
        left: Names of files that are left in the spool at the end, except the lock of the reader.
    """

    audit: Audit
    kills: int
    left: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """What went wrong, in words."""
        claims = {
            f"{self.audit.lost} events were lost": self.audit.lost,
            f"{self.audit.foreign} events arrived that were never put": self.audit.foreign,
            f"{self.audit.grown} bytes came after a segment was deleted": self.audit.grown,
            f"files are left: {', '.join(self.left)}": self.left,
            "nothing was put": not self.audit.acknowledged,
        }
        return [failure for failure, failed in claims.items() if failed]


def run_rounds(scale: Scale) -> Report:
    """Run all rounds in a folder of their own."""
    chance = random.Random(scale.seed)
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        # Creates the spool, so that the reader can lock it.
        EventQueue(
            _NAME, bytes, max_spool_size=MAX_SPOOL_SIZE, spool_directory=folder, strict_size=True
        ).close()
        spool = folder / f"events-{_NAME}"
        total, kills = Audit(), 0
        for number in range(scale.rounds):
            logs = folder / str(number)
            logs.mkdir()
            kills += _run_round(scale, chance, spool, logs)
            put_logs = [log.read_bytes() for log in logs.glob("put-*")]
            total += audit(put_logs, (logs / "read").read_bytes())
            for log in logs.iterdir():
                log.unlink()
        left = {file.name for file in spool.iterdir()} - {"reader.lock"}
        return Report(total, kills, tuple(sorted(left)))


def _run_round(scale: Scale, chance: random.Random, spool: Path, logs: Path) -> int:
    """Run a round, and return how often this process killed another."""
    with contextlib.ExitStack() as stack:
        producers: list[Process] = []
        for number in range(scale.producers):
            log = str(logs / f"put-{number}")
            arguments = (_NAME, log, str(scale.threads), str(chance.getrandbits(32)))
            started = _start("producer", *arguments, directory=spool.parent)
            producers.append(stack.enter_context(started))
        reader = stack.enter_context(_start("reader", str(spool), str(logs / "read"), directory=spool.parent))
        kills = len(producers)

        def wait_for_events(count: int) -> None:
            wanted = sum(_entries(log) for log in logs.glob("put-*")) + count
            wait_until(
                lambda: sum(_entries(log) for log in logs.glob("put-*")) >= wanted,
                "the producers do not put",
                patience=_PATIENCE,
                interval=0.001,
            )

        for _ in producers:
            wait_for_events(scale.events // (2 * len(producers)))
            if chance.random() < 0.7:
                reader.kill()
                reader.wait()
                kills += 1
                reader = stack.enter_context(
                    _start("reader", str(spool), str(logs / "read"), directory=spool.parent)
                )
        if chance.random() < 0.5:
            chance.choice(producers).kill()
            kills += 1
        wait_for_events(chance.randint(1, scale.events))
        for producer in producers:
            kill_group(producer)
        finish(reader, _PATIENCE).check()
    return kills


def _entries(log: Path) -> int:
    return log.stat().st_size // ENTRY_SIZE


def _start(module: str, *arguments: str, directory: Path) -> AbstractContextManager[Process]:
    """Run a module of this folder in a session of its own, and kill the whole session in the end."""
    return started(
        *(sys.executable, "-W", "ignore::DeprecationWarning", "-m", f"{__package__}.{module}", *arguments),
        stdin=PIPE,
        session=True,
        environ={**IMPORTING, SPOOL_VARIABLE: str(directory)},
    )
