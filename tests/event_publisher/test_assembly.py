"""A publisher that can't be assembled closes what it had opened, whichever step fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher import assembly, queue_consumer
from baseplate_events.event_publisher.event_sources import EventSources
from baseplate_events.event_publisher.ledger.ledger import Ledger
from baseplate_events.event_publisher.policy.delivery import Delivery
from baseplate_events.event_publisher.queue_consumer import QueueConsumer
from baseplate_events.event_publisher.sender import TransportFactory
from baseplate_events.event_publisher.spool_reader.reader import SpoolReader
from baseplate_events.event_publisher.spool_reader.turns import WriterTurns
from baseplate_events.event_publisher.spool_reader.watch import SpoolWatch
from baseplate_events.event_publisher.spool_source import SpoolSource
from baseplate_events.event_publisher.stop_log import StopLog
from baseplate_events.event_publisher.telemetry.health_server import HealthServer
from baseplate_events.event_publisher.telemetry.reporter import Reporter
from tests.support.failing_steps import failing
from tests.support.publishers import drain_and_end, make_publisher

if TYPE_CHECKING:
    from pathlib import Path

#: Steps of every publisher, in their order. Those before the queue is open leave only the control's sockets.
STEPS = [
    (TransportFactory, "__init__"),
    (StopLog, "__init__"),
    (assembly, "inspect_queue_access"),
    (queue_consumer, "lock_queue"),
    (QueueConsumer, "_watch_queue"),
    (Delivery, "__init__"),
    (EventSources, "__init__"),
    (Reporter, "__init__"),
    (HealthServer, "__init__"),
]

#: Further steps of one with a spool.
SPOOL_STEPS = [
    (Ledger, "__init__"),
    (assembly, "_log_start"),
    (SpoolWatch, "__init__"),
    (SpoolReader, "__init__"),
    (WriterTurns, "list_files"),
    (SpoolSource, "__init__"),
    (SpoolSource, "recover"),
]

#: Further steps of one with dead letters and no spool.
LETTERS_STEPS = [(Ledger, "__init__"), (assembly, "_log_start")]

CASES = [
    *(("posix", *step) for step in STEPS),
    *(("letters", *step) for step in STEPS + LETTERS_STEPS),
    *(("spool", *step) for step in STEPS + SPOOL_STEPS),
]


@pytest.mark.parametrize(
    ("kind", "owner", "step"), CASES, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_step_that_fails_leaves_nothing_open(
    kind: str, owner: object, step: str, name: str, tmp_path: Path
) -> None:
    """Neither queue, lock, ledger, watch nor socket stays open, and another publisher can start."""
    kinds = {
        "posix": {},
        "letters": {"dead_letters__directory": str(tmp_path / "letters")},
        "spool": {"spool__directory": str(tmp_path / "spool")},
    }
    settings = {"health__bind": str(tmp_path / "health.sock"), **kinds[kind]}
    with failing(owner, step):
        make_publisher(tmp_path, name, "http://localhost:1", **settings)
    drain_and_end(tmp_path, name, "http://localhost:1", **settings)
