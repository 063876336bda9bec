"""Nothing is lost: publishers with a spool and dead letters, killed, cut off and misconfigured."""

from __future__ import annotations

import base64
import contextlib
import re
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from baseplate_events.dev_collector import DevCollector
from baseplate_events.errors import EventQueueFullError
from baseplate_events.event_publisher.ledger.file import LETTERS_NAME
from baseplate_events.event_publisher.policy.outcome import REMEDIES
from baseplate_events.event_publisher.spool_reader.files import TAKEN
from tests.support.fault_collector import Behaviour, Drop, FaultCollector, Hang, Respond
from tests.support.ledgers import letters_in
from tests.support.publishers import (
    KEY_NAME,
    SECRET,
    Arrivals,
    arrived,
    config_text,
    fates,
    make_events,
    publisher_process,
    put_all,
    small_queue,
)
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

#: Real processes, most of which wait for one another.
pytestmark = pytest.mark.slow


def _spool(folder: Path, **settings: str) -> dict[str, str]:
    """Make a directory for spools, and return the settings of a publisher that uses it."""
    directory = folder / "spool"
    directory.mkdir(exist_ok=True)
    return {"spool__directory": str(directory), **settings}


def _segments(folder: Path, name: str) -> list[Path]:
    return list((folder / "spool" / f"events-{name}").glob("*.segment"))


@pytest.mark.parametrize("fsync", ["never", "batch", "event"])
def test_a_killed_publisher_loses_nothing_that_it_spooled(name: str, fsync: str, tmp_path: Path) -> None:
    """What a publisher had in memory when it was killed is delivered by the next, before newer events."""
    events = make_events(60)
    spool = _spool(tmp_path, spool__fsync=fsync)
    with small_queue(name) as queue, FaultCollector([Respond(503)]) as down:
        with publisher_process(tmp_path, name, down.url, **spool) as publisher:
            put_all(queue, events[:50])
            down.wait_for_requests(1)
            publisher.wait_for(lambda: queue.current_messages == 0)
            publisher.process.kill()
            publisher.process.wait(PATIENCE)
        with FaultCollector() as up, publisher_process(tmp_path, name, up.url, **spool) as publisher:
            put_all(queue, events[50:])
            assert publisher.stop() == 0
            got = arrived(up)
            # At most the one event that was received and not yet appended can be missing.
            assert got == [event for event in events if event in set(got)]
            assert len(events) - len(got) <= 1
            assert "recovered" in publisher.log
        with FaultCollector() as idle, publisher_process(tmp_path, name, idle.url, **spool) as publisher:
            # The segment that a publisher appends to is deleted by the next one.
            publisher.wait_for(lambda: not _segments(tmp_path, name))
            assert publisher.stop() == 0
            assert idle.requests == []


def test_an_outage_costs_producers_nothing(name: str, tmp_path: Path) -> None:
    """With a spool a queue of 10 takes 500 events without a wait through an outage, and all are delivered."""
    events = make_events(500)
    with (
        FaultCollector([Respond(503)]) as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url, **_spool(tmp_path)) as publisher,
    ):
        put_all(queue, events)
        publisher.wait_for(lambda: queue.current_messages == 0)
        publisher.wait_until_it_fails()
        server.change_script(Respond())
        publisher.wait_for_log("accepts events again")
        assert publisher.stop() == 0
        assert arrived(server) == events
        assert fates(received=500, delivered=500) in publisher.log


def test_sigterm_with_the_collector_down_leaves_everything_in_the_spool(name: str, tmp_path: Path) -> None:
    """Without `shutdown.drain` a publisher doesn't wait for a failing collector, and loses nothing."""
    events = make_events(40)
    spool = _spool(tmp_path, shutdown__grace="1 hour", shutdown__drain="false")
    with small_queue(name) as queue:
        with (
            FaultCollector([Respond(503)]) as down,
            publisher_process(tmp_path, name, down.url, **spool) as publisher,
        ):
            put_all(queue, events)
            publisher.wait_until_it_fails()
            assert publisher.stop() == 0
            assert fates(received=40, spooled=40) in publisher.log
        with FaultCollector() as up, publisher_process(tmp_path, name, up.url, **spool) as publisher:
            publisher.wait_for(lambda: len(arrived(up)) == len(events))
            assert publisher.stop() == 0
            assert arrived(up) == events


def test_a_batch_keeps_its_idempotency_key_through_a_crash(name: str, tmp_path: Path) -> None:
    """What is recovered from the spool goes out as the same batch, with the same key."""
    spool = _spool(tmp_path)
    with small_queue(name) as queue, FaultCollector([Hang()]) as server:
        with publisher_process(tmp_path, name, server.url, **spool) as publisher:
            put_all(queue, make_events(5))
            server.wait_for_requests(1)
            publisher.process.kill()
            publisher.process.wait(PATIENCE)
        server.release()
        server.change_script(Respond())
        with publisher_process(tmp_path, name, server.url, **spool) as publisher:
            server.wait_for_requests(2)
            assert publisher.stop() == 0
        first, second = server.requests[:2]
        assert first.header("Idempotency-Key") == second.header("Idempotency-Key")
        assert first.body == second.body


def test_one_poison_event_costs_one_dead_letter(name: str, tmp_path: Path) -> None:
    """Of many events, the one that the collector refuses becomes a dead letter, and all others arrive."""
    events = make_events(200)
    poison = b'{"poison": NaN}'
    arrivals = Arrivals()
    letters = tmp_path / "letters"
    with (
        DevCollector({KEY_NAME: SECRET}, arrivals.add) as collector,
        small_queue(name) as queue,
        publisher_process(
            tmp_path,
            name,
            collector.url,
            dead_letters__directory=str(letters),
            batch__max_age="200 milliseconds",
        ) as publisher,
    ):
        put_all(queue, [*events[:77], poison, *events[77:]])
        assert publisher.stop() == 0
        assert sorted(events) == sorted(arrivals.events)
        assert fates(received=len(events) + 1, delivered=len(events), dead_lettered=1) in publisher.log
        assert "poison" not in publisher.log
    (letter,) = letters_in(letters, LETTERS_NAME)
    assert letter.event == poison
    assert letter.status == 400


@pytest.mark.parametrize("behaviour", [Respond(401), Respond(404), Respond(302), Drop()])
def test_a_configuration_that_is_corrected_costs_nothing(
    behaviour: Behaviour, name: str, tmp_path: Path
) -> None:
    """While nothing is accepted events wait; a SIGHUP applies a corrected configuration immediately."""
    events = make_events(25)
    with (
        FaultCollector([behaviour]) as wrong,
        FaultCollector() as right,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, wrong.url, retry__base="1 hour", retry__cap="1 hour") as publisher,
    ):
        put_all(queue, events[:5])
        publisher.wait_until_it_fails()
        publisher.config_file.write_text(
            config_text(name, right.url, retry__base="1 hour", retry__cap="1 hour")
        )
        publisher.process.send_signal(signal.SIGHUP)
        put_all(queue, events[5:])
        publisher.wait_for(lambda: len(arrived(right)) == len(events))
        assert publisher.stop() == 0
        assert arrived(right) == events


def test_a_rotated_key_costs_nothing(name: str, tmp_path: Path) -> None:
    """A key that the collector no longer knows is replaced by SIGHUP under load; every event arrives."""
    events = make_events(120)
    arrivals = Arrivals()
    fresh = base64.b64encode(b"another secret").decode()
    with (
        DevCollector({"FreshKey": b"another secret"}, arrivals.add) as collector,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, collector.url, **_spool(tmp_path)) as publisher,
    ):
        producer = threading.Thread(target=put_all, args=(queue, events))
        producer.start()
        publisher.wait_for_log(REMEDIES[401])
        publisher.config_file.write_text(
            config_text(
                name,
                collector.url,
                **_spool(tmp_path),
                key__name="FreshKey",
                key__secret=fresh,
            )
        )
        publisher.process.send_signal(signal.SIGHUP)
        producer.join()
        publisher.wait_for(lambda: len(arrivals.events) == len(events))
        assert publisher.stop() == 0
        assert sorted(events) == sorted(arrivals.events)
        assert fresh not in publisher.log


def test_a_reload_with_mistakes_changes_nothing(name: str, tmp_path: Path) -> None:
    """After a SIGHUP with a broken file the publisher goes on as before, and logs the mistakes."""
    with (
        FaultCollector() as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url) as publisher,
    ):
        publisher.wait_for_log("publishing")
        publisher.config_file.write_text(config_text(name, server.url, collector__version="4"))
        publisher.process.send_signal(signal.SIGHUP)
        publisher.wait_for_log("configuration not reloaded")
        assert "collector.version" in publisher.log
        queue.put(b"{}")
        server.wait_for_requests(1)
        assert publisher.stop() == 0


def test_one_publisher_per_spool(name: str, tmp_path: Path) -> None:
    """A second publisher on the same spool ends with 1 and says why."""
    spool = _spool(tmp_path)
    (tmp_path / "other").mkdir()
    with (
        FaultCollector() as server,
        small_queue(name),
        publisher_process(tmp_path, name, server.url, **spool) as first,
    ):
        first.wait_for_log("publishing")
        with publisher_process(tmp_path / "other", name, server.url, **spool) as second:
            assert second.process.wait(PATIENCE) == 1
            assert TAKEN in second.log
        assert first.stop() == 0


def test_a_full_spool_is_backpressure(name: str, tmp_path: Path) -> None:
    """At `spool.max_size` the publisher stops draining, the queue fills, and nothing is lost."""
    big = b'{"pad": "%s"}' % (b"x" * 7_900)
    with (
        FaultCollector([Respond(503)]) as server,
        small_queue(name, max_message_size=8_000) as queue,
        publisher_process(
            tmp_path, name, server.url, **_spool(tmp_path, spool__max_size="1048576")
        ) as publisher,
    ):
        put = 0

        def is_full() -> bool:
            nonlocal put
            with contextlib.suppress(EventQueueFullError):
                while True:
                    queue.put(big, timeout=1.0)
                    put += 1
            # No event starts that might not fit, whatever its size.
            return 998_000 < sum(path.stat().st_size for path in _segments(tmp_path, name)) <= 1_048_576

        publisher.wait_for(is_full)
        server.change_script(Respond())
        publisher.wait_for(lambda: queue.current_messages == 0)
        assert publisher.stop() == 0
        assert re.search(rf"stopped: .*\b{put} delivered", publisher.log)
