"""Publishers and services as real processes on one spool: killed, stopped, damaged; for a moment each.

`python -m tests.soak.delivery` does the same for longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.delivery.damage import Damage
from tests.soak.delivery.rounds import Scale, run_rounds
from tests.soak.delivery.scenes import idle_writers, newer_format, place, stopped_writer
from tests.support.fault_collector import FaultCollector, Hang, Respond
from tests.support.publishers import arrived, events_of, make_events, publisher_process
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

#: Real processes, most of which wait for one another.
pytestmark = pytest.mark.slow


def test_kills_at_full_load_lose_nothing_of_the_spool() -> None:
    """Publishers and services are killed at random moments; all that was put into the spool arrives."""
    report = run_rounds(Scale(rounds=4, services=1, threads=2, events=1_000, seed=3))
    assert report.failures == []
    assert report.figures["kills_of_publisher"]
    assert report.figures["kills_of_services"]
    assert report.figures["spool_acknowledged"]
    assert report.figures["posix_acknowledged"]


@pytest.mark.parametrize("damage", Damage)
def test_a_damaged_ledger_costs_duplicates_only(damage: Damage, tmp_path: Path) -> None:
    """A publisher starts with whatever is left of its ledger, and delivers all that is in the spool."""
    events = make_events(50)
    with place() as made, FaultCollector([Respond(), Hang()]) as down:
        settings = {"spool__directory": str(made.directory), "queue__transport": "spool"}
        with (
            made.queue() as queue,
            publisher_process(tmp_path, made.name, down.url, **settings) as publisher,
        ):
            queue.put_many(events[:10])
            down.wait_for_requests(1)
            queue.put_many(events[10:])
            down.wait_for_requests(2)
            publisher.process.kill()
            publisher.process.wait(PATIENCE)
        damage.inflict(made.spool)
        first = events_of(down.requests[0])
        down.release()
        with (
            FaultCollector() as up,
            publisher_process(tmp_path, made.name, up.url, **settings) as publisher,
        ):
            publisher.wait_for(lambda: set(arrived(up)) | set(first) == set(events))
            assert publisher.stop() == 0
            assert publisher.log.count("ERROR") == (damage is not Damage.DELETED)
            assert arrived(up) == [event for event in events if event in set(arrived(up))]
    assert set(first) <= set(events[:10])


def test_a_stopped_writer_delays_its_own_segment_only() -> None:
    """A writer is stopped in the middle of a write: others go on, and it does too when it continues."""
    assert stopped_writer(2_000)


def test_idle_writers_give_their_space_back() -> None:
    """Of 64 segments that are delivered and open little stays on the disk; a busy writer goes on."""
    figures = idle_writers(1_000, 1)
    assert figures["bytes_kept"] < figures["bytes_before"] / 4


def test_a_segment_of_a_later_format_is_left_in_place() -> None:
    """It is reported, by each publisher, and the rest is delivered."""
    assert newer_format(200)
