"""A publisher in the model: the real loop, policy, relay, reader, source and ledger.

Simulated are the kernel, the POSIX queue, time, the senders and the collector. The collector
decides how an attempt ends when it starts; the publisher learns that later, or never.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

from baseplate_events.event_publisher import event_sources
from baseplate_events.event_publisher import publisher as publisher_module
from baseplate_events.event_publisher.assembly import Parts
from baseplate_events.event_publisher.event_sources import EventSources
from baseplate_events.event_publisher.policy.accounting import DropReason
from baseplate_events.event_publisher.policy.backoff import Backoff, ConcurrencyLimit
from baseplate_events.event_publisher.policy.batching import FORMATS, Batcher
from baseplate_events.event_publisher.policy.delivery import Delivery
from baseplate_events.event_publisher.publisher import EventPublisher
from baseplate_events.event_publisher.relay import Relay
from baseplate_events.event_publisher.sender import Finished
from baseplate_events.event_publisher.spool_reader.reader import SpoolReader
from baseplate_events.event_publisher.spool_reader.watch import SpoolWatch
from baseplate_events.event_publisher.spool_source import SpoolSource

from .kernel import os_error
from .machine import Violation
from .publisher_files import PublisherDirectory, PublisherFolder, SimulatedLedger, SimulatedQueue

if TYPE_CHECKING:
    import select
    from collections.abc import Sequence

    from baseplate_events.event_publisher.inotify import Inotify
    from baseplate_events.event_publisher.policy.accounting import Accounting
    from baseplate_events.event_publisher.policy.journal import EnteredBatch
    from baseplate_events.event_publisher.policy.outcome import Outcome
    from baseplate_events.event_publisher.policy.pending import Attempt, PendingBatch
    from baseplate_events.event_publisher.policy.rejection import Rejection
    from baseplate_events.event_publisher.policy.span import EventRun

    from .kernel import Process
    from .publisher_world import PublisherWorld

#: Seconds that a publisher sleeps at most, so that it gets on with what others do meanwhile.
_LONGEST_SLEEP = 400.0


@dataclass(frozen=True)
class PublisherCode:
    """The code under test: the real one, or parts of it with a planted mistake."""

    relay: type[Relay] = Relay
    reader: type[SpoolReader] = SpoolReader
    source: type[SpoolSource] = SpoolSource
    ledger: type[SimulatedLedger] = SimulatedLedger
    folder: type[PublisherFolder] = PublisherFolder
    sources: type[EventSources] = EventSources


class WatchedDelivery(Delivery):
    """Reports received events and splits."""

    world: PublisherWorld
    offered: list[bytes]
    copied: frozenset[bytes]
    queue: SimulatedQueue

    def offer_run(self, run: EventRun, now: float) -> list[tuple[int, Rejection]]:
        self._note(run.events)
        if not all(start < end for _, start, end in run.spans):
            raise Violation(f"a place is empty: {run.spans}")
        return super().offer_run(run, now)

    def recover(self, entered: EnteredBatch, events: Sequence[bytes], now: float) -> bool:
        self._note(events)
        is_same = super().recover(entered, events, now)
        if not is_same:
            self.world.excuse("a batch was recovered with other events")
        return is_same

    def _note(self, events: Sequence[bytes]) -> None:
        others = [event for event in events if event not in self.copied]
        again = set(others).intersection(self.offered)
        if again or len(set(others)) < len(others):
            raise Violation(f"events were handed out twice in one run: {again}")
        self.offered += events
        if events:
            self.world.machine.log.append(("", "in", list(events)))
            self.world.check_order(self.offered, self.queue.received)

    def _split(self, pending: PendingBatch) -> None:
        self.world.split.update(pending.batch.events)
        super()._split(pending)


class Loop(EventPublisher):
    """The loop of a publisher, step by step, with simulated senders."""

    world: PublisherWorld
    attempts: list[tuple[Attempt, Outcome]]

    def step(self) -> bool:
        """Do a step, and return whether the publisher has finished."""
        return self._step()

    def sleep(self) -> None:
        """Wait as a publisher does."""
        self._sleep()

    def requeue(self) -> None:
        """Finish."""
        self._sources.requeue_unsent()

    def end(self) -> None:
        """Close what isn't a part of the model."""
        self._resources.close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to do, as far as it knows."""
        assert self._source is not None
        return not self._source.may_be_more and not self.accounting.spooled and not self.attempts

    def describe(self) -> str:
        """Return what it is busy with."""
        delivery = self._delivery
        assert self._source is not None
        names = {
            "more": self._source.may_be_more,
            "memory": delivery.memory_left,
            "wake": delivery.wake_at(),
            "work": self._source.work_at,
            "now": self._clock.monotonic(),
            "attempts": len(self.attempts),
        }
        return f"{names} {self.accounting}"

    def answer(self, attempt: Attempt, outcome: Outcome) -> None:
        """End an attempt."""
        self._report(Finished(None, attempt, outcome, 0.0))

    def _send(self, attempt: Attempt) -> None:
        self.world.check_sent(attempt.batch.events)
        self.attempts.append((attempt, self.world.collector.judge(attempt.batch.events)))


class SimulatedPublisher:
    """A publisher, from its start to its end.

    Args:
        world: Where it is.
        process: The kernel's process.
    """

    def __init__(self, world: PublisherWorld, process: Process) -> None:
        self.process = process
        world.started.append(self)
        self._world = world
        self._machine = world.machine
        self._random = world.random
        self._sleeps = 0
        self._rewriting = False  # whether events may be at two places, as a sync has failed
        self._has_rewritten = False
        self._ledger: SimulatedLedger | None = None
        self._loop: Loop | None = None
        self.queue = SimulatedQueue(world.machine, process, world.queue, world.shape.capacity)

    # Its clock, and its source of chance.

    def monotonic(self) -> float:
        return self._machine.now

    def wall_time(self) -> float:
        return self._machine.now

    def uniform(self, a: float, b: float, /) -> float:
        return self._random.uniform(a, b)

    def poll(self, poller: select.poll, seconds: float) -> list[tuple[int, int]]:
        """Let time pass, unless there is something to do."""
        del poller
        loop = self._loop
        assert loop is not None
        self._machine.step(self.process, "poll", seconds)
        if self.queue.awaited and self._world.queue:
            return []
        if loop.attempts and (seconds == math.inf or self._random.random() < 0.5):
            return []
        if seconds <= 0:
            self._sleeps += 1
            if self._sleeps > 300:
                raise Violation(f"it is busy with nothing: {loop.describe()}")
        else:
            self._sleeps = 0
            self._machine.now += min(seconds, _LONGEST_SLEEP)
        return []

    # Its life.

    def open(self) -> None:
        """Start."""
        world, shape = self._world, self._world.shape
        code = world.code
        with ExitStack() as stack:
            stack.enter_context(patch.object(publisher_module, "open_parts", self._open_parts))
            stack.enter_context(patch.object(publisher_module, "EventSources", code.sources))
            stack.enter_context(patch.object(event_sources, "_BURST", shape.burst))
            loop = Loop(lambda: world.settings, self, clock=self)
        loop.world = world
        loop.attempts = []
        self._loop = loop

    def loop(self) -> bool:
        """Do a step, and sleep; return whether it has stopped."""
        loop = self._loop
        assert loop is not None
        with patch.object(event_sources, "_BURST", self._world.shape.burst):
            is_over = loop.step()
        self._rewriting = False
        if not self.accounting.balanced:
            raise Violation(f"the accounting isn't balanced: {self.accounting}")
        inodes = self._world.machine.kernel.inodes
        if self.accounting.dropped[DropReason.SPOOL_LOST] and all(one.destroyed is None for one in inodes):
            raise Violation(f"no file was deleted: {self.accounting}")
        while loop.attempts and self._random.random() < self._world.collector.speed:
            loop.answer(*loop.attempts.pop(self._random.randrange(len(loop.attempts))))
        if not is_over:
            loop.sleep()
        return is_over

    def stop(self) -> None:
        """Stop as at SIGTERM."""
        loop = self._loop
        assert loop is not None
        loop.stop()
        while not self.loop():
            pass
        loop.requeue()
        lost = sum(self.accounting.dropped.values()) - self.accounting.dropped[DropReason.SPOOL_LOST]
        if lost > self._world.may_be_lost:
            raise Violation(f"a stop lost {lost} events")
        self._world.dropped.update(self.queue.refused)
        self.close()

    def close(self) -> None:
        """Close everything, in the order of `assembly`."""
        assert self._ledger is not None
        assert self._loop is not None
        self._source.close()
        if self._ledger.number_unwritten:
            self._world.excuse("the ledger couldn't be written at the end")
            if self._has_rewritten:
                self._world.note_copies()
        self._loop.end()
        self._machine.kernel.exit(self.process)
        self._loop = None

    def die(self) -> None:
        """Clean up after a kill."""
        world = self._world
        if self.queue.last is not None:
            world.limbo.add(self.queue.last)
        if self._ledger is not None and self._ledger.number_unwritten:
            world.excuse("it was killed while the ledger couldn't be written")
            self._rewriting = self._has_rewritten
        if self._rewriting:
            world.note_copies()
        for inode in world.machine.kernel.inodes:
            if inode.orphaned_at is not None:
                world.note_orphan(inode)
        self.abandon()

    def abandon(self) -> None:
        """Close everything outside the model, for any end of its process."""
        if self._ledger is not None:
            self._ledger.abandon()
        if self._loop is not None:
            self._loop.end()
            self._loop = None

    @property
    def accounting(self) -> Accounting:
        """The fates of its events."""
        assert self._loop is not None
        return self._loop.accounting

    @property
    def backlog(self) -> int:
        """The undelivered backlog outside the queue: bytes, or another number above 0."""
        assert self._loop is not None
        status = self._reader.status()
        return status.backlog + sum(status.aside.values()) + (not self._loop.is_idle)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self._world.queue and self._relay.held is None and not self.backlog

    def look_at_level(self) -> None:
        """Record a report."""
        self._source.level(self._machine.now, self._machine.now)

    def _open_parts(self, *_: object) -> Parts:
        world, shape, code = self._world, self._world.shape, self._world.code
        machine, process = self._machine, self.process

        def no_inotify() -> Inotify:
            raise os_error(38)

        def clock() -> float:
            return machine.now

        files = code.folder(machine, process, lies=shape.lies, ticks=shape.ticks, punches=shape.punches)
        ledger = self._ledger = code.ledger(str(world.ledger_path), machine, process, world)
        if ledger.start_problem is not None:
            world.excuse(ledger.start_problem)
        self._reader = reader = code.reader(
            files,
            SpoolWatch(files.path, clock, no_inotify),
            event_format="2",
            clock=clock,
            resolved=ledger.resolved,
        )
        directory = PublisherDirectory(machine, process, world.note_published, world.note_written)
        self._relay = relay = code.relay(
            directory, "2", shape.max_size, clock=clock, syncs=shape.sync == "event", free=directory.free
        )
        pause = None if shape.sync == "never" else 1.0
        self._source = source = code.source(reader, relay, ledger, clock=clock, sync_pause=pause)
        delivery = WatchedDelivery(
            Batcher(FORMATS["2"], max_size=shape.batch_size, max_events=shape.batch_events, max_age=1.0),
            ConcurrencyLimit(Backoff(1.0, 30.0, self), shape.concurrency),
            concurrency=shape.concurrency,
            max_size=shape.batch_size,
            queue_capacity=shape.capacity,
            queue_message_size=self.queue.message_size,
            journal=source,
            load=source.load,
        )
        delivery.world, delivery.offered, delivery.queue = world, [], self.queue
        delivery.copied = frozenset(world.copied)
        take_rest = reader.take_rest

        def watched(identity: bytes) -> EventRun:
            self._rewriting = self._has_rewritten = True
            return take_rest(identity)

        reader.take_rest = watched  # type: ignore[method-assign]  # a segment couldn't be synced
        source.recover(delivery, machine.now)
        return Parts(self.queue, source, True, delivery)
