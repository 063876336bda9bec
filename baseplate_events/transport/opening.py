"""Opens the transport of an event queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .posix import MessageQueue

if TYPE_CHECKING:
    from ..counting.refusals import RefusalCounts
    from ..queue_settings import QueueArguments
    from . import Transport


def open_transport(arguments: QueueArguments, refusals: RefusalCounts) -> Transport:
    """Return an open transport.

    Args:
        arguments: What to open.
        refusals: The refusals that a spool reports to the publisher.

    Raises:
        EventQueueUnavailableError: It can't be opened; the subclass says why.
    """
    if arguments.spool is None:
        return MessageQueue(
            arguments.posix_name,
            max_messages=arguments.max_queue_size,
            max_message_size=arguments.max_event_size,
            mode=arguments.mode,
            strict_size=arguments.strict_size,
            read=False,
        )
    from .spool import SpoolTransport  # noqa: PLC0415 - most services have a POSIX queue

    arguments.spool.prepare()
    return SpoolTransport(
        arguments.spool,
        arguments.event_format,
        max_size=arguments.max_spool_size,
        max_message_size=arguments.max_event_size,
        refusals=refusals,
    )
