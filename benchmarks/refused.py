"""What a refused event costs a service in an outage: `try_put`, and two ways to handle what `put` raises.

Rules:

1. No publisher runs, so the queue is always full and each event is refused.
2. Log records go to a file, with the usual format, as in a service.
3. Figures are CPU time, medians of bursts. `try_put` logs once in ten seconds, here as in a service.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from baseplate_events import EventError, EventQueue
from baseplate_events.counting.refusal_log import RefusalLog
from baseplate_events.spool import MIN_SPOOL_SIZE
from baseplate_events.transport.posix import MessageQueue
from benchmarks.report import Table, Target, number
from benchmarks.rounds import interleave, medians, on_one_core, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from benchmarks.scale import Scale

#: Bytes of an event.
_EVENT: Final = b"x" * 724

#: How many times less than a traceback for each event `try_put` should cost.
_BOUND: Final = 10.0

#: A serializer that gives back the bytes that it is given, at next to no cost.
_unchanged: Final = cast("Callable[[bytes], bytes]", bytes)

_logger: Final = logging.getLogger(__name__)


def _log_each(queue: EventQueue[bytes], event: bytes) -> None:
    try:
        queue.put(event)
    except EventError:
        _logger.warning("event not sent", exc_info=True)


def _ignore(queue: EventQueue[bytes], event: bytes) -> None:
    with contextlib.suppress(EventError):
        queue.put(event)


def _try(queue: EventQueue[bytes], event: bytes) -> None:
    queue.try_put(event)


#: What a service does with an event, and what it is called.
_WAYS: Final[dict[str, Callable[[EventQueue[bytes], bytes], None]]] = {
    "`put`, each refusal logged with its traceback": _log_each,
    "`put`, its exception ignored": _ignore,
    "`try_put`": _try,
}


@contextlib.contextmanager
def _log_file(path: Path) -> Generator[None]:
    """Log to a file, and nowhere else."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = (_logger, logging.getLogger(RefusalLog.__module__))
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.close()


def _fill(queue: EventQueue[bytes]) -> None:
    with contextlib.suppress(EventError):
        while True:
            queue.put(_EVENT)


@contextlib.contextmanager
def _full_queues(folder: Path) -> Generator[dict[str, EventQueue[bytes]]]:
    """Make a POSIX queue and a spool, both full."""
    name = f"benchmark-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        small = stack.enter_context(MessageQueue(f"/events-{name}", max_messages=4, max_message_size=1_024))
        stack.callback(small.unlink)
        queues = {
            "POSIX queue": EventQueue(name, _unchanged, max_queue_size=4, max_event_size=1_024),
            "spool": EventQueue(name, _unchanged, spool_directory=folder, max_spool_size=MIN_SPOOL_SIZE),
        }
        for queue in queues.values():
            stack.enter_context(queue)
            _fill(queue)
        yield queues


def run(scale: Scale) -> Table:
    """Measure refused events."""
    count = scale.pick(full=500, quick=200, tiny=2)
    rounds = scale.pick(full=25, quick=7, tiny=1)
    rows: list[tuple[str, ...]] = []
    targets: list[Target] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(on_one_core())
        stack.enter_context(_log_file(folder / "log"))
        with _full_queues(folder) as queues:
            for kind, queue in queues.items():
                candidates = {
                    way: partial(seconds_of, partial(handle, queue), [_EVENT] * count)
                    for way, handle in _WAYS.items()
                }
                found = medians(interleave(candidates, rounds))
                worst = max(found.values())
                rows += [
                    (f"{kind}: {way}", number(seconds * 1e6), f"{number(worst / seconds)}x")
                    for way, seconds in found.items()
                ]
                times = worst / found["`try_put`"]
                targets.append(Target(f"{kind}: `try_put`, times cheaper", times, _BOUND))
    return Table(
        "Refuse an event",
        ("a refused event", "µs", "times cheaper"),
        tuple(rows),
        tuple(targets),
        ("The queue is full and stays so. Log records go to a file.",),
    )
