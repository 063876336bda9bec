"""A whole publisher with a spool: both transports, damaged files, a spool that is deleted, full disks."""

from __future__ import annotations

import itertools
import json
import resource
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventQueue, EventQueueFullError
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Reply, Response
from baseplate_events.spool import MIN_SPOOL_SIZE
from baseplate_events.spool.format import MAX_HEADER
from baseplate_events.transport.descriptor import find_queue
from tests.support.examples import examples
from tests.support.publishers import (
    MAX_MESSAGES,
    make_events,
    put_all,
    put_into_spool,
    small_queue,
    spooled_files,
)
from tests.support.queues import drain, fresh_event_name
from tests.support.simulation import START, Simulation, accept

if TYPE_CHECKING:
    from pathlib import Path

    from baseplate_events.event_publisher.telemetry.snapshot import SpoolLevel

#: getrlimit(2); Python has no name for it.
_RLIMIT_MSGQUEUE = 12


def sent(simulation: Simulation) -> list[bytes]:
    """Return the events of all requests, in order."""
    return [json.dumps(event).encode() for _, events in simulation.requests for event in events]


def refuse(events: list[object], now: float) -> Reply:
    """Fail in a way that no event can be the cause of."""
    del events, now
    return Failure(FailureKind.UNREACHABLE, "connection refused")


@pytest.mark.parametrize("transport", ["spool", "both"])
def test_what_services_write_arrives_and_leaves_nothing(transport: str, name: str, tmp_path: Path) -> None:
    """Events of several services arrive, each service's in order; no segment is left."""
    directory = tmp_path / "spool"
    events = make_events(90)
    for service in range(3):
        put_into_spool(directory, name, events[service::3])
    simulation = Simulation(accept)
    with small_queue(name):
        publisher = simulation.publisher(
            tmp_path, name, spool__directory=str(directory), queue__transport=transport
        )
        simulation.run(30.0)
    arrived = sent(simulation)
    assert sorted(arrived) == sorted(events)
    for service in range(3):
        assert [event for event in arrived if event in set(events[service::3])] == events[service::3]
    assert publisher.accounting.delivered == publisher.accounting.received == len(events)
    assert publisher.accounting.balanced
    assert spooled_files(directory, name) == []


def test_without_a_posix_queue_there_is_none(name: str, tmp_path: Path) -> None:
    """With `queue.transport = spool`, no queue is made."""
    simulation = Simulation(accept)
    publisher = simulation.publisher(
        tmp_path, name, spool__directory=str(tmp_path / "spool"), queue__transport="spool"
    )
    assert publisher.snapshot().transports == {"spool": True}
    config_file = tmp_path / f"{name}.ini"
    config_file.write_text(
        config_file.read_text().replace("queue.transport = spool", "queue.transport = both")
    )
    publisher.reload()
    simulation.run(5.0)
    assert publisher.snapshot().transports == {"spool": True}, "another transport needs a restart"
    assert find_queue(f"/events-{name}", read=False) is None


def test_without_a_posix_queue_the_limit_of_the_relay_is_no_problem(name: str, tmp_path: Path) -> None:
    """Services may have a greater `max_spool_size`; nothing waits for room then."""
    put_into_spool(tmp_path / "spool", name, make_events(100))
    simulation = Simulation(refuse)
    publisher = simulation.publisher(
        tmp_path, name, spool__directory=str(tmp_path / "spool"), queue__transport="spool"
    )
    source = publisher._source  # pyright: ignore[reportPrivateUsage]
    assert source is not None
    source.relay.max_size = 1_000
    simulation.run(5.0)
    assert publisher.accounting.in_hand + publisher.accounting.spooled > 0
    spool = publisher.snapshot().spool
    assert spool is not None
    assert spool.paused is None


@examples(25)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["posix", "spool"]), st.integers(1, 10)), max_size=6),
    down_for=st.sampled_from([0.0, 5.0]),
)
def test_each_writer_keeps_its_order(
    steps: list[tuple[str, int]], down_for: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever comes by the queue and by the spool, in an outage too, arrives once, each in its order."""

    def answer(events: list[object], now: float) -> Reply:
        return refuse(events, now) if now < START + down_for else accept(events, now)

    folder = tmp_path_factory.mktemp("order")
    events = iter(make_events(100))
    put: dict[str, list[bytes]] = {"posix": [], "spool": []}
    accepted: list[bytes] = []
    simulation = Simulation(lambda batch, now: collect(batch, answer(batch, now)))

    def collect(batch: list[object], reply: Reply) -> Reply:
        if reply == Response(200):
            accepted.extend(json.dumps(event).encode() for event in batch)
        return reply

    with fresh_event_name() as name, small_queue(name) as queue:
        publisher = simulation.publisher(folder, name, spool__directory=str(folder / "spool"))
        with EventQueue(name, bytes, spool_directory=str(folder / "spool")) as spool:
            todo = list(steps)

            def put_more() -> None:
                if todo:
                    where, count = todo.pop(0)
                    some = [next(events) for _ in range(count)]
                    put[where] += some
                    if where == "posix":
                        put_all(queue, some)
                    else:
                        spool.put_many(some)

            simulation.on_poll = put_more
            simulation.run(120.0)
    assert sorted(accepted) == sorted(put["posix"] + put["spool"])
    for where, mine in put.items():
        assert [event for event in accepted if event in set(mine)] == mine, where
    assert publisher.accounting.delivered == len(accepted)


def test_a_spool_that_is_deleted_in_an_outage(name: str, tmp_path: Path) -> None:
    """If the spool is deleted, events only in it are lost; later ones are delivered, without a restart."""
    directory = tmp_path / "spool"
    events = make_events(30)

    def answer(batch: list[object], now: float) -> Reply:
        return refuse(batch, now) if now < START + 10.0 else accept(batch, now)

    simulation = Simulation(answer)
    publisher = simulation.publisher(
        tmp_path, name, spool__directory=str(directory), queue__transport="spool"
    )
    put_into_spool(directory, name, events[:10])
    done: list[str] = []

    def act() -> None:
        if simulation.now >= START + 5.0 and not done:
            done.append("deleted")
            shutil.rmtree(directory / f"events-{name}")
            put_into_spool(directory, name, events[10:])

    simulation.on_poll = act
    simulation.run(60.0)
    arrived = sent(simulation)
    assert set(events[10:]) <= set(arrived)
    accounting = publisher.accounting
    assert (accounting.spooled, accounting.in_hand) == (0, 0)
    assert accounting.delivered == accounting.received
    assert accounting.balanced


@pytest.mark.unmeasured
def test_a_bad_release_that_fills_memory_stops_no_one(name: str, tmp_path: Path) -> None:
    """Refused events, many times as many as memory holds, become dead letters; what follows is delivered."""
    bad = [b'{"bad": %d}' % number for number in range(2_000)]
    good = [b'{"good": %d}' % number for number in range(50)]

    def answer(batch: list[object], now: float) -> Reply:
        is_bad = any("bad" in event for event in batch if isinstance(event, dict))
        return Response(400) if is_bad else accept(batch, now)

    put_into_spool(tmp_path / "spool", name, bad + good)
    simulation = Simulation(answer)
    publisher = simulation.publisher(
        tmp_path,
        name,
        spool__directory=str(tmp_path / "spool"),
        queue__transport="spool",
        batch__max_size="1100",
        delivery__concurrency="1",
    )
    simulation.run(20_000.0)
    accounting = publisher.accounting
    assert (accounting.delivered, accounting.dead_lettered) == (len(good), len(bad))
    assert accounting.balanced
    assert spooled_files(tmp_path / "spool", name) == []


def test_a_small_queue_refuses_nothing_while_a_backlog_fills_memory(name: str, tmp_path: Path) -> None:
    """A small queue is moved into the spool immediately, before batches leave."""
    backlog = make_events(1_000)
    put_into_spool(tmp_path / "spool", name, backlog)
    refused = itertools.count()
    with small_queue(name) as queue:

        def answer(batch: list[object], now: float) -> Reply:
            if batch != [{}] * len(batch):  # until the backlog is delivered
                for _ in range(MAX_MESSAGES // 2):
                    try:
                        queue.put(b"{}")
                    except EventQueueFullError:
                        next(refused)
            return accept(batch, now)

        simulation = Simulation(answer)
        publisher = simulation.publisher(
            tmp_path,
            name,
            spool__directory=str(tmp_path / "spool"),
            batch__max_size="1100",
            delivery__concurrency="1",
        )
        simulation.run(60.0)
    assert next(refused) == 0
    assert publisher.accounting.delivered == publisher.accounting.received > len(backlog)


def _flip_a_bit_of_the_first_line(data: bytearray) -> None:
    data[20] ^= 1


def _tear_the_first_line(data: bytearray) -> None:
    del data[10:]


def _zero_the_first_page(data: bytearray) -> None:
    data[:4096] = bytes(min(4096, len(data)))


@pytest.mark.parametrize(
    ("damage", "lost"),
    [(_flip_a_bit_of_the_first_line, 0), (_tear_the_first_line, 10), (_zero_the_first_page, 10)],
)
def test_a_damaged_segment_costs_itself(damage: object, lost: int, name: str, tmp_path: Path) -> None:
    """A publisher starts beside a damaged segment, says so, and delivers whatever is whole."""
    directory = tmp_path / "spool"
    events = make_events(20)
    put_into_spool(directory, name, events[:10])
    (segment,) = spooled_files(directory, name)
    data = bytearray(segment.read_bytes())
    damage(data)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
    segment.write_bytes(data)
    put_into_spool(directory, name, events[10:])
    simulation = Simulation(accept)
    publisher = simulation.publisher(tmp_path, name, spool__directory=str(directory))
    levels: list[SpoolLevel | None] = []
    simulation.at_end = lambda: levels.append(publisher.snapshot().spool)
    simulation.run(30.0)
    assert sorted(sent(simulation)) == sorted(events[lost:])
    (level,) = levels
    assert level is not None
    assert sum(level.aside.values()) == 1 or level.torn_bytes > 0


def test_torn_records_are_counted(name: str, tmp_path: Path) -> None:
    """Records that are zeros after a power cut are torn bytes, and cost no others."""
    directory = tmp_path / "spool"
    events = make_events(40)
    put_into_spool(directory, name, events)
    (segment,) = spooled_files(directory, name)
    data = bytearray(segment.read_bytes())
    data[1000:1500] = bytes(500)
    segment.write_bytes(data)
    simulation = Simulation(accept)
    publisher = simulation.publisher(tmp_path, name, spool__directory=str(directory))
    levels: list[SpoolLevel | None] = []
    simulation.at_end = lambda: levels.append(publisher.snapshot().spool)
    simulation.run(30.0)
    arrived = sent(simulation)
    assert arrived == [event for event in events if event in set(arrived)]
    assert len(events) - 10 < len(arrived) < len(events)
    (level,) = levels
    assert level is not None
    assert level.torn_bytes >= 500
    assert level.torn_gaps == 1


def test_a_full_disk_stops_nothing_but_the_relay(name: str, tmp_path: Path) -> None:
    """What is in the spool is delivered, what is in the queue waits there, and goes on when there is room."""
    directory = tmp_path / "spool"
    events = make_events(30)
    put_into_spool(directory, name, events[:20])
    simulation = Simulation(accept)
    with small_queue(name) as queue:
        publisher = simulation.publisher(tmp_path, name, spool__directory=str(directory))
        put_all(queue, events[20:])
        source = publisher._source  # pyright: ignore[reportPrivateUsage]
        assert source is not None
        real, source.relay.free = source.relay.free, lambda: (0, None)
        seen: list[list[bytes]] = []

        def act() -> None:
            if simulation.now >= START + 10.0 and not seen:
                seen.append(sent(simulation))
                source.relay.free = real

        simulation.on_poll = act
        simulation.run(60.0)
    assert seen == [events[:20]]
    assert sent(simulation) == events


def test_a_stop_with_a_full_disk_and_a_full_queue_loses_nothing(name: str, tmp_path: Path) -> None:
    """Nothing is received without room for it."""
    directory = tmp_path / "spool"
    events = make_events(10)
    simulation = Simulation(refuse)
    with small_queue(name) as queue:
        publisher = simulation.publisher(tmp_path, name, spool__directory=str(directory))
        source = publisher._source  # pyright: ignore[reportPrivateUsage]
        assert source is not None
        source.relay.free = lambda: (0, None)
        put_all(queue, events)
        simulation.run(10.0)
        assert drain(queue) == events
    assert publisher.accounting.received == 0


def test_a_stop_with_a_removed_queue_loses_nothing(name: str, tmp_path: Path) -> None:
    """No one else can receive what is in a queue that was unlinked, so it is moved to the spool as well."""
    events = make_events(10)
    simulation = Simulation(accept)
    with small_queue(name) as queue:
        publisher = simulation.publisher(tmp_path, name, spool__directory=str(tmp_path / "spool"))

        def act() -> None:
            put_all(queue, events)
            queue.unlink()

        simulation.at_end = act
        simulation.run(5.0)
    assert sent(simulation) == events
    assert publisher.accounting.delivered == len(events)


def test_a_spool_without_a_queue_has_no_relay_that_could_be_paused(name: str, tmp_path: Path) -> None:
    """With `queue.transport = spool`, a full disk is no error of the publisher, which adds nothing to it."""
    simulation = Simulation(accept)
    publisher = simulation.publisher(
        tmp_path, name, spool__directory=str(tmp_path / "spool"), queue__transport="spool"
    )
    source = publisher._source  # pyright: ignore[reportPrivateUsage]
    assert source is not None
    source.relay.free = lambda: (0, None)
    levels: list[SpoolLevel | None] = []
    simulation.at_end = lambda: levels.append(publisher.snapshot().spool)
    simulation.run(5.0)
    (level,) = levels
    assert level is not None
    assert level.paused is None
    assert (level.free_space, level.free_inodes) == (0, None)


def test_a_reload_does_not_change_where_events_come_from(name: str, tmp_path: Path) -> None:
    """`queue.transport` needs a restart, and until then the transports that are reported are those in use."""
    directory = str(tmp_path / "spool")
    simulation = Simulation(accept)
    publisher = simulation.publisher(tmp_path, name, spool__directory=directory, queue__transport="spool")
    config_file = tmp_path / f"{name}.ini"
    config_file.write_text(config_file.read_text().replace("transport = spool", "transport = both"))
    publisher.reload()
    simulation.run(5.0)
    assert publisher.snapshot().transports == {"spool": True}


def test_the_limit_of_the_spool_stops_the_relay(name: str, tmp_path: Path) -> None:
    """Beyond `spool.max_size` events wait in the queue; the limit that is reported is the one in force."""
    directory = tmp_path / "spool"
    pad = b"x" * 900
    events = [b'{"id": %d, "pad": "%s"}' % (number, pad) for number in range(2_000)]
    simulation = Simulation(refuse)
    with small_queue(name) as queue:
        publisher = simulation.publisher(
            tmp_path,
            name,
            spool__directory=str(directory),
            spool__max_size="1048576",
            batch__max_size="2000",
            max_event_size="1024",
        )
        rest = iter(events)

        def put_more() -> None:
            while queue.current_messages < 10 and (event := next(rest, None)) is not None:
                queue.put(event)

        simulation.on_poll = put_more
        levels: list[SpoolLevel | None] = []
        simulation.at_end = lambda: levels.append(publisher.snapshot().spool)
        simulation.run(60.0)
        (level,) = levels
        assert level is not None
        assert level.max_size == MIN_SPOOL_SIZE
        assert level.paused == f"{directory}/events-{name} is full: spool.max_size is 1,048,576 bytes"
        assert 900_000 <= level.size <= MIN_SPOOL_SIZE + 5 * MAX_HEADER
        assert queue.current_messages == 10
    assert publisher.accounting.balanced


def test_posix_alone_delivers_what_is_in_the_spool_and_accepts_no_more(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What services wrote before the start is delivered, and what they write later is left and reported."""
    directory = tmp_path / "spool"
    events = make_events(30)
    put_into_spool(directory, name, events[:10])
    simulation = Simulation(accept)
    with small_queue(name) as queue:
        publisher = simulation.publisher(
            tmp_path, name, spool__directory=str(directory), queue__transport="posix"
        )
        put_into_spool(directory, name, events[10:20])
        put_all(queue, events[20:])
        simulation.run(30.0)
        assert sorted(sent(simulation)) == sorted(events[:10] + events[20:])
        assert publisher.accounting.delivered == 20
        assert "queue.transport = posix" in caplog.text
        assert len(spooled_files(directory, name)) == 1
        again = Simulation(accept)
        again.publisher(tmp_path, name, spool__directory=str(directory), queue__transport="posix")
        again.run(5.0)
        assert sent(again) == events[10:20]


def test_a_queue_that_cannot_be_made_is_no_reason_not_to_start(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With both transports, a missing queue is a warning, and is used as soon as it can be made."""
    directory = tmp_path / "spool"
    events = make_events(12)
    put_into_spool(directory, name, events[:2])
    simulation = Simulation(accept)
    soft, hard = resource.getrlimit(_RLIMIT_MSGQUEUE)
    resource.setrlimit(_RLIMIT_MSGQUEUE, (0, hard))
    try:
        publisher = simulation.publisher(tmp_path, name, spool__directory=str(directory))
        snapshot = publisher.snapshot()
        assert snapshot.transports == {"posix": False, "spool": True}
        assert (snapshot.queue_depth, snapshot.queue_capacity) == (None, None)
        put: list[bytes] = []

        def act() -> None:
            if simulation.now >= START + 10.0:
                resource.setrlimit(_RLIMIT_MSGQUEUE, (soft, hard))
            if simulation.now >= START + 40.0 and not put:
                put.extend(events[2:])
                with small_queue(name) as queue:
                    put_all(queue, put)

        simulation.on_poll = act
        simulation.run(60.0)
    finally:
        resource.setrlimit(_RLIMIT_MSGQUEUE, (soft, hard))
    assert sent(simulation) == events
    assert publisher.accounting.balanced
    assert "POSIX queue unavailable" in caplog.text
