"""Opens the parts of a publisher from its settings: queue, spool, dead letters, policy."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..transport.posix import MessageQueue
from .access import inspect_queue_access
from .missing_queue import MissingQueue
from .policy.backoff import Backoff, ConcurrencyLimit
from .policy.batching import FORMATS, Batcher
from .policy.delivery import Delivery
from .queue_consumer import QueueConsumer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .config.options import DeadLetterSettings, SpoolSettings
    from .config.settings import PublisherSettings
    from .ledger.ledger import Ledger
    from .policy.backoff import RandomSource
    from .spool_source import SpoolSource

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """The open parts of a publisher.

    Attributes:
        consumer: The queue, or its stand-in.
        source: The spool, or None.
        keeps_letters: Whether events that are given up become dead letters.
        delivery: The policy.
    """

    consumer: QueueConsumer | MissingQueue
    source: SpoolSource | None
    keeps_letters: bool
    delivery: Delivery


def open_parts(
    stack: contextlib.ExitStack,
    current_settings: Callable[[], PublisherSettings],
    random_source: RandomSource,
    clock: Clock,
) -> Parts:
    """Open the parts of a publisher.

    Args:
        stack: Closes the parts in the end, or after an error.
        current_settings: Returns the settings; called again whenever the queue is reopened.
        random_source: The source of jitter.
        clock: The clocks.

    Raises:
        EventError: The queue, the spool or the dead letters can't be opened.
    """
    settings = current_settings()
    now = clock.monotonic()
    consumer = _open_consumer(settings, lambda: _open_queue(current_settings()), now)
    stack.callback(consumer.close)  # also closes a queue that is found later
    source: SpoolSource | None = None
    letters = None
    if settings.spool is not None and settings.dead_letters is not None:
        source = _open_source(stack, settings, settings.spool, settings.dead_letters, clock)
    elif settings.dead_letters is not None:
        letters = _open_letters(stack, settings, settings.dead_letters, clock)
    delivery = Delivery(
        Batcher(
            FORMATS[settings.collector.version],
            max_size=settings.batch.max_size,
            max_events=settings.batch.max_events,
            max_age=settings.batch.max_age,
        ),
        ConcurrencyLimit(
            Backoff(settings.retry.base, settings.retry.cap, random_source), settings.delivery.concurrency
        ),
        concurrency=settings.delivery.concurrency,
        max_size=settings.batch.max_size,
        queue_capacity=consumer.capacity,
        queue_message_size=consumer.message_size,
        journal=letters if source is None else source,
        load=None if source is None else source.load,
        max_age=settings.retry.max_age,
    )
    if source is not None:
        source.recover(delivery, now)
    return Parts(consumer, source, settings.dead_letters is not None, delivery)


def _open_consumer(
    settings: PublisherSettings, open_queue: Callable[[], MessageQueue], now: float
) -> QueueConsumer | MissingQueue:
    """Open the configured queue; with a spool, a queue that can't be created is no error."""
    name, exclusive = f"/events-{settings.queue.name}", settings.queue.exclusive
    if settings.queue.transport == "posix":
        return QueueConsumer(open_queue, exclusive=exclusive)
    if settings.queue.transport == "spool":
        return MissingQueue(name, None, now)
    missing = MissingQueue(name, lambda: QueueConsumer(open_queue, exclusive=exclusive), now)
    return missing if missing.found is None else missing.found


def _open_queue(settings: PublisherSettings) -> MessageQueue:
    wanted = settings.queue
    queue = MessageQueue(
        f"/events-{wanted.name}",
        max_messages=wanted.max_size,
        max_message_size=wanted.max_event_size,
        mode=wanted.mode,
    )
    try:
        for warning in inspect_queue_access(queue.fileno(), queue.name, wanted.mode).warnings():
            logger.warning("%s", warning)
    except BaseException:
        queue.close()
        raise
    return queue


def _open_source(
    stack: contextlib.ExitStack,
    settings: PublisherSettings,
    spool: SpoolSettings,
    dead_letters: DeadLetterSettings,
    clock: Clock,
) -> SpoolSource:
    # Imported late: a publisher without a spool starts a sixth faster.
    from ..spool.directory import SpoolDirectory  # noqa: PLC0415
    from .ledger.file import SPOOL_NAME  # noqa: PLC0415
    from .ledger.ledger import Ledger  # noqa: PLC0415
    from .relay import Relay  # noqa: PLC0415
    from .spool_reader.files import ReaderFolder  # noqa: PLC0415
    from .spool_reader.reader import SpoolReader  # noqa: PLC0415
    from .spool_reader.watch import SpoolWatch  # noqa: PLC0415
    from .spool_source import SpoolSource  # noqa: PLC0415

    directory = SpoolDirectory(spool.directory, settings.queue.name, mode=settings.queue.mode)
    directory.prepare()
    relay = Relay(
        directory,
        settings.collector.version,
        spool.max_size,
        clock=clock.monotonic,
        syncs=spool.sync == "event",
    )
    with contextlib.ExitStack() as opened:
        files = ReaderFolder(directory)
        opened.callback(files.close)
        # Only the process that has locked the spool may open its ledger.
        ledger = Ledger(
            os.path.join(directory.path, SPOOL_NAME),  # noqa: PTH118 - pathlib would change some paths
            clock=clock.monotonic,
            wall_time=clock.wall_time,
            mode=settings.queue.mode,
            sync=spool.sync != "never",
            max_letters_size=dead_letters.max_size,
            queue_name=settings.queue.name,
        )
        opened.callback(ledger.close)
        _log_start(ledger)
        watch = SpoolWatch(files.path, clock.monotonic)
        opened.callback(watch.close)
        reader = SpoolReader(
            files,
            watch,
            event_format=settings.collector.version,
            clock=clock.monotonic,
            resolved=ledger.resolved,
            only_writer=relay.writer if settings.queue.transport == "posix" else None,
        )
        sync_pause = None if spool.sync == "never" else settings.batch.max_age
        source = SpoolSource(reader, relay, ledger, clock=clock.monotonic, sync_pause=sync_pause)
        stack.callback(source.close)
        opened.pop_all()
    return source


def _open_letters(
    stack: contextlib.ExitStack, settings: PublisherSettings, dead_letters: DeadLetterSettings, clock: Clock
) -> Ledger:
    """Open the dead letters of a publisher without a spool."""
    from .ledger.file import LETTERS_NAME, LedgerError  # noqa: PLC0415 - as above
    from .ledger.ledger import Ledger  # noqa: PLC0415

    folder = dead_letters.directory or ""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - as above
    except OSError as exc:
        raise LedgerError(folder, f"can't be used as the folder for dead letters: {exc.strerror}") from exc
    ledger = Ledger(
        os.path.join(folder, LETTERS_NAME),  # noqa: PTH118 - as above
        clock=clock.monotonic,
        wall_time=clock.wall_time,
        max_letters_size=dead_letters.max_size,
        queue_name=settings.queue.name,
    )
    stack.callback(ledger.close)
    _log_start(ledger)
    return ledger


def _log_start(ledger: Ledger) -> None:
    if ledger.start_problem is not None:
        logger.error("%s", ledger.start_problem)
