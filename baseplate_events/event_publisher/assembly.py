"""Opens the parts of a publisher from its settings: queue, spool, dead letters, policy."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import EventError
from ..transport.posix import MessageQueue
from .access import inspect_queue_access
from .config.settings import Sync
from .dead_letters.store import DeadLetters
from .policy.backoff import Backoff, ConcurrencyLimit
from .policy.batching import FORMATS, Batcher
from .policy.delivery import Delivery
from .queue_consumer import QueueConsumer
from .spool.spool import Spool
from .storage import Folder

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Sequence

    from .clock import Clock
    from .config.settings import PublisherSettings
    from .control import Control
    from .policy.backoff import RandomSource
    from .policy.store import StoredBatch

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds between two log lines about the progress of a recovery.
_PROGRESS_INTERVAL: Final = 2.0


class StoppedError(EventError):
    """Raised by a publisher that was asked to stop before it had started; nothing was received or changed."""

    def __str__(self) -> str:
        return "stopped before anything was received"


@dataclass(frozen=True, slots=True)
class Parts:
    """The open parts of a publisher.

    Attributes:
        consumer: The queue.
        spool: The spool, or None.
        dead_letters: The dead letters, or None.
        delivery: The policy.
    """

    consumer: QueueConsumer
    spool: Spool | None
    dead_letters: DeadLetters | None
    delivery: Delivery


def open_parts(
    stack: contextlib.ExitStack,
    current_settings: Callable[[], PublisherSettings],
    random_source: RandomSource,
    control: Control,
    clock: Clock,
) -> Parts:
    """Open the parts of a publisher.

    Args:
        stack: Closes them in the end; also after an error, which leaves open what was opened before it.
        current_settings: Gives the settings; asked again whenever the queue is reopened.
        random_source: Where jitter comes from.
        control: Ends the recovery of the spool, which may take minutes, if a stop is asked for.
        clock: The clocks.

    Raises:
        StoppedError: A stop was asked for meanwhile.
        EventError: The queue, the spool or the dead letters can't be opened.
    """
    settings = current_settings()
    consumer = QueueConsumer(lambda: _open_queue(current_settings()))
    stack.callback(consumer.close)
    spool, recovered = _open_spool(stack, settings, control, clock)
    dead_letters = _open_dead_letters(stack, settings, clock)
    delivery = Delivery(
        Batcher(
            FORMATS[settings.collector.version],
            max_size=settings.batch.max_size,
            max_events=settings.batch.max_events,
            max_age=settings.batch.max_age,
        ),
        ConcurrencyLimit(
            Backoff(settings.retry.base, settings.retry.cap, random_source), settings.concurrency
        ),
        concurrency=settings.concurrency,
        max_size=settings.batch.max_size,
        queue_capacity=consumer.capacity,
        queue_message_size=consumer.message_size,
        store=spool,
        recovered=recovered,
        dead_letters=dead_letters,
        max_age=settings.retry.max_age,
        now=clock.monotonic(),
    )
    return Parts(consumer, spool, dead_letters, delivery)


def _open_queue(settings: PublisherSettings) -> MessageQueue:
    wanted = settings.queue
    queue = MessageQueue(
        f"/events-{wanted.name}",
        max_messages=wanted.max_size,
        max_message_size=wanted.max_event_size,
        mode=wanted.mode,
    )
    for warning in inspect_queue_access(queue.fileno(), queue.name, wanted.mode).warnings():
        logger.warning("%s", warning)
    return queue


def _open_spool(
    stack: contextlib.ExitStack, settings: PublisherSettings, control: Control, clock: Clock
) -> tuple[Spool | None, Sequence[StoredBatch]]:
    if settings.spool is None:
        return None, ()
    folder = Folder(settings.spool.directory)
    stack.callback(folder.release)
    spool = Spool(
        folder,
        settings.spool.directory,
        version=settings.collector.version,
        max_size=settings.spool.max_size,
        sync=settings.spool.sync,
        clock=clock.monotonic,
    )
    stack.callback(spool.close)
    return spool, spool.recover(_recovery_progress(control, clock))


def _recovery_progress(control: Control, clock: Clock) -> Callable[[int, int], None]:
    """Return what logs the progress of a recovery, and ends it for a stop."""
    log_at = clock.monotonic() + _PROGRESS_INTERVAL

    def progress(done: int, total: int) -> None:
        nonlocal log_at
        if control.stops:
            raise StoppedError
        now = clock.monotonic()
        if now >= log_at:
            log_at = now + _PROGRESS_INTERVAL
            logger.info("recovering the spool: read %d of %d files", done, total)

    return progress


def _open_dead_letters(
    stack: contextlib.ExitStack, settings: PublisherSettings, clock: Clock
) -> DeadLetters | None:
    if settings.dead_letters is None:
        return None
    dead_letters = DeadLetters(
        settings.dead_letters.directory,
        max_size=settings.dead_letters.max_size,
        # A letter must be as safe as the segment that is deleted for it.
        sync=settings.spool is not None and settings.spool.sync is not Sync.NEVER,
        wall_clock=clock.wall_time,
    )
    stack.callback(dead_letters.close)
    return dead_letters
