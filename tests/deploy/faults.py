"""Real publishers with faults: each fault makes alerts fire, and then ends.

A fault is a generator that the test drives: it begins, yields repeatedly until its alerts have fired,
and then repairs what it broke. All faults run side by side.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import socket
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from baseplate_events.errors import EventError
from tests.deploy.scene import PAUSE, POISON, Scene, numbered
from tests.support.commands import run
from tests.support.publishers import put_into_spool, spooled_files
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: Seconds between two events of a service that has few.
_RARELY: Final = 1.7

#: The number of RLIMIT_MSGQUEUE on Linux; the module `resource` doesn't name it.
_RLIMIT_MSGQUEUE: Final = 12

#: Bytes of all POSIX queues of a user, by default.
_STOCK_LIMIT: Final = 819_200

#: The least that `spool.max_size` and `dead_letters.max_size` take.
_SMALL_SPOOL: Final = "1048576"
_FEW_LETTERS: Final = "100000"

#: Bytes of an event so large that two of them exceed that limit of dead letters.
_LARGE: Final = 60_000

Steps: TypeAlias = "Generator[None]"


def healthy(scene: Scene) -> Steps:
    """A publisher with both transports delivers."""
    collector = scene.collector()
    publisher = scene.publisher(
        collector, spool__directory=str(scene.spool), spool__max_size=_SMALL_SPOOL, scraped=False
    )
    scene.prometheus.set_pods(publisher.port)
    publisher.wait_until_it_answers()
    # So rarely that two checks in a row don't find something to deliver.
    scene.produce(scene.queue().put, pause=_RARELY)
    scene.produce(scene.service().put, pause=_RARELY)
    while True:
        yield


def outage(scene: Scene) -> Steps:
    """The collector answers 503, until the spool is full and then the queue."""
    collector = scene.collector(503)
    scene.publisher(collector, spool__directory=str(scene.spool), spool__max_size=_SMALL_SPOOL)
    queue = scene.queue()
    producer = scene.produce(queue.put, numbered(size=900), pause=0.001)
    while scene.wants_more:
        yield
    producer.stop()
    collector.status = 200


def wrong_key(scene: Scene) -> Steps:
    """The collector refuses the signature."""
    collector = scene.collector(401)
    scene.publisher(collector, spool__directory=str(scene.spool), queue__transport="spool")
    scene.service().put(b"{}")
    while scene.wants_more:
        yield
    collector.status = 200


def rejections(scene: Scene) -> Steps:
    """The collector refuses more events than the dead letters hold, and `put` of a service refuses some."""
    collector = scene.collector()
    collector.refuses_poison = True
    scene.publisher(
        collector,
        spool__directory=str(scene.spool),
        queue__transport="spool",
        max_event_size=str(_LARGE + 1_000),
        dead_letters__max_size=_FEW_LETTERS,
    )
    service = scene.service(max_event_size=_LARGE + 1_000)
    for number in range(3):
        service.put(json.dumps({"id": number, POISON.decode(): "x" * _LARGE}).encode())
        service.put(b"{}")
    with contextlib.suppress(EventError):
        service.put(b"x" * (2 * _LARGE))
    while scene.wants_more:
        service.put(b"{}")  # a refused event is given up only while others are accepted
        yield


def damage(scene: Scene) -> Steps:
    """A segment is of a later release, and another has bytes that aren't an event."""
    collector = scene.collector()
    scene.publisher(collector, spool__directory=str(scene.spool), queue__transport="spool")
    service = scene.service()
    service.put(b"{}")
    (segment,) = spooled_files(scene.spool, scene.name)
    with segment.open("ab") as file:
        file.write(b"\xffEVE" + bytes(100))
    service.put(b"{}")
    put_into_spool(scene.folder / "elsewhere", scene.name, [b"{}"])
    (other,) = spooled_files(scene.folder / "elsewhere", scene.name)
    later = segment.with_name(other.name)
    header = b"event-segment 2 2j x "
    other.write_bytes(b"%b%08x\n" % (header, zlib.crc32(header)))
    other.rename(later)
    while scene.wants_more:
        yield
    later.unlink()


def another_batch(scene: Scene) -> Steps:
    """A publisher is killed while it sends a batch, and an event of it can't be read again."""
    collector = scene.collector(503)
    publisher = scene.publisher(collector, spool__directory=str(scene.spool), queue__transport="spool")
    put_into_spool(scene.spool, scene.name, itertools.islice(numbered(), 5))
    while not collector.requests:
        yield
    publisher.kill()
    (segment,) = spooled_files(scene.spool, scene.name)
    segment.write_bytes(segment.read_bytes().replace(b'"id": 3', b'"id": 4'))
    collector.status = 200
    publisher.start()
    while scene.wants_more:
        yield


def no_spool(scene: Scene) -> Steps:
    """A message isn't an event, and there is no room for it; statsd is gone, and the log can't be written."""
    collector = scene.collector()
    statsd = scene.folder / "statsd"
    events = itertools.chain(itertools.islice(numbered(), 100), (b"<no event>",), numbered())
    publisher = scene.publisher(
        collector,
        options=["--debug"],
        log=Path("/dev/full"),
        metrics__namespace="test",
        metrics__endpoint=str(statsd),
    )
    publisher.wait_until_it_answers()
    producer = scene.produce(scene.queue().put, events)
    while scene.wants_more:
        yield
    producer.stop()
    server = scene.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    server.settimeout(PAUSE)
    server.bind(str(statsd))

    def read(_: bytes) -> None:
        with contextlib.suppress(TimeoutError):
            server.recv(65_536)

    scene.produce(read, itertools.repeat(b""), pause=0)


def two_publishers(scene: Scene) -> Steps:
    """A second publisher takes events from the queue."""
    collector = scene.collector()
    scene.publisher(collector)
    second = scene.publisher(collector)
    while scene.wants_more:
        yield
    scene.prometheus.remove_host(second.port)
    second.kill()


def down(scene: Scene) -> Steps:
    """The publisher is gone."""
    collector = scene.collector()
    publisher = scene.publisher(collector, spool__directory=str(scene.spool), queue__transport="spool")
    publisher.wait_until_it_answers()
    publisher.kill()
    while scene.wants_more:
        yield
    publisher.start()


def restarts(scene: Scene) -> Steps:
    """The publisher is killed and started repeatedly."""
    collector = scene.collector()
    publisher = scene.publisher(collector, spool__directory=str(scene.spool), queue__transport="spool")
    query = f'event_publisher_uptime_seconds{{queue="{scene.name}"}} > 1'
    while scene.wants_more:
        if scene.prometheus.query(query):
            publisher.kill()
            publisher.start()
            publisher.wait_until_it_answers()
        yield


def stuck(scene: Scene) -> Steps:
    """The disk of the spool doesn't answer."""
    image = scene.folder / "image"
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    run("mkfs.ext4", "-q", image).check()
    disk = scene.disk("-o", "loop", image)
    publisher = scene.publisher(scene.collector(), spool__directory=str(disk), spool__max_size=_SMALL_SPOOL)
    publisher.wait_until_it_answers()
    queue = scene.queue()
    run("fsfreeze", "--freeze", disk).check()
    thaw = scene.stack.enter_context(contextlib.ExitStack())
    thaw.callback(lambda: run("fsfreeze", "--unfreeze", disk).check())
    queue.put(b"{}")
    while scene.wants_more:
        yield
    thaw.close()


def no_queue(scene: Scene) -> Steps:
    """The POSIX queue can't be made."""
    limits = f"--msgqueue=0:{_STOCK_LIMIT}"
    publisher = scene.publisher(
        scene.collector(), prefix=["prlimit", limits], spool__directory=str(scene.spool)
    )
    while scene.wants_more:
        yield
    resource.prlimit(publisher.process.pid, _RLIMIT_MSGQUEUE, (_STOCK_LIMIT, _STOCK_LIMIT))


def slow_collector(scene: Scene) -> Steps:
    """The collector is slow, and events come faster."""
    collector = scene.collector()
    collector.delay = 0.7
    scene.publisher(
        collector, spool__directory=str(scene.spool), queue__transport="spool", batch__max_events="1"
    )
    producer = scene.produce(scene.service().put)
    while scene.wants_more:
        yield
    producer.stop()
    collector.delay = 0


def full_disk(scene: Scene) -> Steps:
    """The disk of the spool is full, and has no room for events or dead letters."""
    disk = scene.disk("-t", "tmpfs", "-o", "size=4m", "tmpfs")
    scene.spool = disk / "spool"
    collector = scene.collector(503)
    collector.refuses_poison = True
    scene.publisher(collector, spool__directory=str(scene.spool), spool__max_size=_SMALL_SPOOL)
    put_into_spool(scene.spool, scene.name, [b'{"poison":1}', *itertools.islice(numbered(), 20)])
    while not collector.requests:
        yield
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    scene.stack.callback(os.close, filler)

    def fill(_: bytes) -> None:
        with contextlib.suppress(OSError):
            while os.write(filler, bytes(4_096)):
                pass

    producer = scene.produce(fill, itertools.repeat(b""), pause=0.01)
    wait_until(lambda: os.statvfs(disk).f_bavail == 0, "the disk does not fill up")
    collector.status = 200
    while scene.wants_more:
        yield
    producer.stop()
    os.truncate(disk / "filler", 0)


#: Each fault, and the alerts that it makes fire.
FAULTS: Final[dict[Callable[[Scene], Steps], frozenset[str]]] = {
    healthy: frozenset(),
    outage: frozenset(
        {
            "EventsNotDelivered",
            "EventsLate",
            "EventSpoolFillsUp",
            "EventSpoolTakesNothing",
            "EventQueueFillsUp",
            "EventQueueWasFull",
        }
    ),
    wrong_key: frozenset({"EventCollectorRejects", "EventsNotDelivered"}),
    rejections: frozenset({"EventsDeadLettered", "DeadLettersDropped", "EventPutsRefused"}),
    damage: frozenset({"EventSpoolTorn", "EventSegmentsSetAside"}),
    another_batch: frozenset({"EventBatchesRekeyed", "EventSpoolTorn"}),
    no_spool: frozenset({"EventsDropped", "EventPublisherStatsdLost", "EventPublisherLogLost"}),
    two_publishers: frozenset({"EventPublisherTwice"}),
    down: frozenset({"EventPublisherDown"}),
    restarts: frozenset({"EventPublisherRestarts"}),
    stuck: frozenset({"EventPublisherStuck"}),
    no_queue: frozenset({"EventTransportMissing"}),
    slow_collector: frozenset({"EventCollectorSlow", "EventSegmentStays"}),
    full_disk: frozenset(
        {"EventSpoolDiskFillsUp", "EventSpoolTakesNothing", "EventSpoolHampered", "EventPublisherNotReady"}
    ),
}
