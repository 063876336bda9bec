"""What a publisher has to survive, scenario by scenario.

Each scenario sets up a rig, causes its faults, lets everything settle, and audits. It returns its figures,
and what went wrong in words, if anything did. Random moments come from the seed of the scale. The scheduling
of processes differs, and with it the figures, from run to run.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from baseplate_events.errors import EventQueueFullError
from tests.soak.survival.receipts import make_event, unexplained_losses
from tests.soak.survival.rig import LONG_PATIENCE, Rig, rig
from tests.support.commands import run
from tests.support.publishers import KEY_NAME, MAX_MESSAGES, SECRET, config_text
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.soak.survival.rig import Producer
    from tests.support.publishers import PublisherProcess

#: Share of the kills that come while a publisher starts and recovers; the others come while it publishes.
_EARLY_SHARE: Final = 0.2

#: Seconds after its start, or after it began to publish, in which a publisher is killed or stopped.
_LIFE: Final = 0.3

#: Seconds between two removals of the queue. A publisher may look for a new queue only once a second; one
#: that is created and removed in between is never seen.
_UNLINK_INTERVAL: Final = 1.5

#: Bytes of the file system that is filled, and of the spool where none can be mounted.
_SMALL_DISK: Final = 4_000_000

#: Messages that no serializer of this package makes, each with what it is.
JUNK: Final = {
    "nothing": b"",
    "a truncated object": b'{"id":1,"pad":"xx',
    "an object with an end but no whole inside": b'{"id":}',
    "an unterminated string": b'{"pad":"}',
    "control characters": b'{"pad":"\x01\x02"}',
    "NaN": b'{"pad":NaN}',
    "a number": b"17",
    "bytes that aren't text": b"\xff\xfe\x00",
    "text that isn't UTF-8": b'{"pad":"\xff"}',
    "an object and a half": b'{"pad":1},{"pad":}',
}

#: What the collector of the poison runs fails on, and what it refuses.
_CRASHER: Final = b'{"poison":"crash"}'
_NAN: Final = b'{"poison":NaN}'


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a run is.

    Attributes:
        rounds: How often `kill` kills; other scenarios use a fraction of that.
        seconds: How long a key is revoked, each of two times.
        poison_events: Good events around a poison event.
        outage_events: Events that are put while the collector is down.
        rate: Events a second of a producer with a limited rate.
        seed: Of random moments.
        spool: Whether publishers have a spool; without one `kill` and `outage` only show what is lost.
    """

    rounds: int = 100
    seconds: float = 60.0
    poison_events: int = 10_000
    outage_events: int = 20_000
    rate: float = 500.0
    seed: int = 1
    spool: bool = True


Figure: TypeAlias = int | float | str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario.

    Attributes:
        figures: Counts and seconds, by name.
        failures: What went wrong; empty if it survived.
    """

    figures: dict[str, Figure]
    failures: tuple[str, ...]


def kill(scale: Scale) -> Result:
    """A publisher under load is killed at random moments, and started again on the same spool."""
    chance = random.Random(scale.seed)
    kills: list[int] = []
    with rig(spool=scale.spool) as setup:
        with setup.producer() as producer:
            for _ in range(scale.rounds):
                early = chance.random() < _EARLY_SHARE
                life = chance.uniform(0, _LIFE)
                with setup.publisher(wait=not early) as publisher:
                    time.sleep(life)
                    _kill(publisher)
                    # The producer has at most one more event in the making than the queue has room.
                    kills.append(producer.numbered)
        with setup.publisher() as publisher:
            setup.settle(publisher)
        lost, figures = setup.audit(producer.put)
        if scale.spool:
            unexplained = unexplained_losses(lost, kills, MAX_MESSAGES + 1)
            setup.check(len(lost) <= len(kills), f"{len(lost)} events lost by {len(kills)} kills")
            setup.check(not unexplained, f"{len(unexplained)} lost events are explained by no kill")
        receipts = setup.collector.receipts
        return _result(
            setup,
            {
                "kills": len(kills),
                **figures,
                "batches": receipts.batches,
                "repeated_batches": receipts.repeats,
            },
        )


def revoked_key(scale: Scale) -> Result:
    """The collector forgets the key for a while and knows it again; then it is rotated for good."""
    with rig(retry__base="100 milliseconds", retry__cap="2 seconds") as setup, setup.publisher() as publisher:
        collector = setup.collector
        with setup.producer(rate=scale.rate, timeout=0.0) as producer:
            setup.wait_for(lambda: collector.delivered > 0, publisher)
            collector.keys = {}
            time.sleep(scale.seconds)
            setup.wait_for(lambda: collector.rejected.get(401, 0) > 0, publisher)
            before = collector.delivered
            collector.keys = {KEY_NAME: SECRET}
            setup.wait_for(lambda: collector.delivered > before, publisher)
            collector.keys = {"FreshKey": b"another secret"}
            time.sleep(scale.seconds)
            before = collector.delivered
            fresh = base64.b64encode(b"another secret").decode()
            publisher.config_file.write_text(
                config_text(
                    setup.name,
                    collector.url,
                    **setup.settings,
                    key__name="FreshKey",
                    key__secret=fresh,
                )
            )
            publisher.process.send_signal(signal.SIGHUP)
            setup.wait_for(lambda: collector.delivered > before, publisher)
        setup.settle(publisher)
        lost, figures = setup.audit(producer.put)
        setup.check(not lost, "events were lost")
        return _result(
            setup,
            {
                "seconds_revoked": 2 * scale.seconds,
                **figures,
                "refused_puts": producer.refused,
                "answers_401": collector.rejected.get(401, 0),
            },
        )


def poison_refused(scale: Scale) -> Result:
    """One event among many is refused by the collector, and its whole batch with it."""
    return _poison(scale, [_NAN], {400})


def poison_crash(scale: Scale) -> Result:
    """One event among many makes the collector answer 500, while it accepts all others."""
    return _poison(scale, [_CRASHER], {500})


def poison_junk(scale: Scale) -> Result:
    """Another producer puts what isn't JSON between the events."""
    return _poison(scale, list(JUNK.values()), {400, None})


def _poison(scale: Scale, poisons: list[bytes], statuses: set[int | None]) -> Result:
    count = scale.poison_events
    with rig() as setup, setup.publisher() as publisher:
        setup.collector.crash_on = _CRASHER
        with setup.producer(count=count // 2) as first:
            first.finish()
        for poison in poisons:
            setup.queue.put(poison, timeout=PATIENCE)
        # The second half comes so slowly that others are accepted between the attempts for the poison event.
        with setup.producer(count=count - count // 2, rate=2_000, start=count // 2) as second:
            second.finish()
        put = first.put | second.put
        # An event is given up only while others are accepted, so the load continues until then.
        with setup.producer(start=count, rate=200) as tail:
            setup.wait_for(lambda: len(setup.letters()) >= len(poisons), publisher)
        put |= tail.put
        setup.settle(publisher)
        lost, figures = setup.audit(put)
        letters = setup.letters()
        setup.check(not lost, "good events were lost")
        setup.check(
            sorted(letter.event for letter in letters) == sorted(poisons),
            "the dead letters aren't the poison events, each once",
        )
        setup.check({letter.status for letter in letters} <= statuses, "dead letters have other statuses")
        words = publisher.log
        setup.check("poison" not in words and '"pad' not in words, "the log holds the contents of events")
        return _result(setup, {"poisons": len(poisons), **figures})


def outage(scale: Scale) -> Result:
    """The collector refuses connections for longer than the queue could hold."""
    seconds = scale.outage_events / scale.rate
    with rig(spool=scale.spool) as setup, setup.publisher() as publisher:
        setup.collector.stop()
        began = time.monotonic()
        # The load continues while the collector accepts the backlog.
        # With a spool there is room again in a moment, however slow the machine makes the publisher.
        timeout = PATIENCE if scale.spool else 0.0
        with setup.producer(rate=scale.rate, timeout=timeout) as producer:
            setup.wait_for(_puts(producer, scale.outage_events), publisher, LONG_PATIENCE + seconds)
            refused = producer.refused
            down = time.monotonic() - began
            setup.check(setup.collector.delivered == 0, "the collector wasn't down")
            setup.collector.start()
            began = time.monotonic()
            # Without a spool, only the queue holds events.
            backlog = scale.outage_events - refused
            setup.wait_for(lambda: setup.collector.delivered >= backlog, publisher)
            recovery = time.monotonic() - began
        setup.settle(publisher)
        lost, figures = setup.audit(producer.put)
        setup.check(not lost, "events were lost")
        if scale.spool:
            setup.check(refused == 0, "producers saw a queue that stayed full")
        return _result(
            setup,
            {
                "seconds_down": round(down, 1),
                "queue": MAX_MESSAGES,
                **figures,
                "refused_while_down": refused,
                "refused_in_recovery": producer.refused - refused,
                "seconds_to_recover": round(recovery, 1),
            },
        )


def shutdown(scale: Scale) -> Result:
    """A publisher is stopped under load while the collector is down, again and again, with a spool."""
    chance = random.Random(scale.seed)
    rounds = min(scale.rounds, 10)
    with rig(batch__max_size="2048") as setup:  # so that the queue holds more than one batch
        setup.collector.stop()
        with setup.producer() as producer:
            for _ in range(rounds):
                with setup.publisher() as publisher:
                    setup.wait_for(_puts(producer, MAX_MESSAGES + 1), publisher)
                    time.sleep(chance.uniform(0, _LIFE))
                    setup.check(
                        publisher.stop() == 0, f"a publisher ended with {publisher.process.returncode}"
                    )
        # The backlog, some 400,000 events, would take minutes in batches of three.
        del setup.settings["batch__max_size"]
        setup.collector.start()
        with setup.publisher() as publisher:
            setup.settle(publisher)
        lost, figures = setup.audit(producer.put)
        setup.check(not lost, "events were lost")
        return _result(setup, {"stops": rounds, **figures})


def shutdown_no_spool(scale: Scale) -> Result:
    """The same without a spool: the events in memory go back on the queue, as far as it has room."""
    rounds = min(scale.rounds, 10)
    settings = {"batch__max_size": "2048", "shutdown__grace": "200 milliseconds"}
    with rig(spool=False, **settings) as setup:
        setup.collector.stop()
        put: set[int] = set()
        for _ in range(rounds):
            with setup.publisher() as publisher:
                if not put:
                    with setup.producer(count=MAX_MESSAGES) as producer:
                        producer.finish()
                    put = producer.put
                publisher.wait_until_it_fails()
                setup.check(publisher.stop() == 0, f"a publisher ended with {publisher.process.returncode}")
                setup.check(setup.queue.current_messages == len(put), "events did not go back to the queue")
        setup.collector.start()
        with setup.publisher() as publisher:
            setup.settle(publisher)
        lost, figures = setup.audit(put)
        setup.check(not lost, "events were lost")
        return _result(setup, {"stops": rounds, **figures})


def unlink(scale: Scale) -> Result:
    """The queue is removed under load, and recreated by whoever needs it first."""
    chance = random.Random(scale.seed)
    rounds = min(scale.rounds, 5)
    with rig() as setup, setup.publisher() as publisher:
        with setup.producer(rate=scale.rate) as producer:
            for _ in range(rounds):
                time.sleep(_UNLINK_INTERVAL + chance.uniform(0, _LIFE))
                setup.queue.unlink()
            setup.wait_for(_puts(producer, 2 * MAX_MESSAGES), publisher)
        setup.follow_queue()
        setup.settle(publisher)
        lost, figures = setup.audit(producer.put)
        setup.check(not lost, "events were lost")
        return _result(setup, {"removals": rounds, **figures})


def statsd_gone(scale: Scale) -> Result:
    """Metrics go to a port without a listener, then to a host that doesn't exist; the collector is busy."""
    count = scale.poison_events // 4
    with rig(metrics__namespace="survival", metrics__endpoint="127.0.0.1:9") as setup:
        setup.collector.busy_every = 2
        put: set[int] = set()
        for endpoint in ("127.0.0.1:9", "no-such-host.invalid:8125", "/no/such/socket"):
            setup.settings["metrics__endpoint"] = endpoint
            with setup.publisher() as publisher:
                with setup.producer(count=count, start=len(put)) as producer:
                    producer.finish()
                put |= producer.put
                setup.settle(publisher)
        lost, figures = setup.audit(put)
        setup.check(not lost, "events were lost")
        busy = setup.collector.rejected.get(503, 0)
        setup.check(busy > 0, "no batch met a busy collector")
        return _result(setup, {**figures, "answers_503": busy})


def disk_full(scale: Scale) -> Result:
    """The disk of the spool is full while the collector is down: producers see it, and nothing is lost."""
    with contextlib.ExitStack() as stack:
        setup = stack.enter_context(rig())
        how = stack.enter_context(_small_disk(setup))
        publisher = stack.enter_context(setup.publisher())
        setup.collector.stop()
        with setup.producer() as producer:
            # The disk counts as full if nothing changes for as long as a publisher waits between attempts.
            setup.wait_for(lambda: how != "tmpfs" or "events wait in the queue" in publisher.log, publisher)
            setup.wait_for(
                lambda: (
                    setup.queue.current_messages == MAX_MESSAGES
                    and _stands_still(producer.numbered, lambda: producer.numbered)
                ),
                publisher,
            )
            full_at = producer.numbered
            with contextlib.suppress(EventQueueFullError):
                setup.queue.put(make_event(10**9), timeout=0)
                setup.check(False, "the queue had room though the disk was full")
            setup.collector.start()
            setup.wait_for(_puts(producer, scale.poison_events // 10), publisher)
        setup.settle(publisher)
        lost, figures = setup.audit(producer.put)
        setup.check(not lost, "events were lost")
        return _result(setup, {"disk": how, "put_until_full": full_at, **figures})


def _puts(producer: Producer, events: int) -> Callable[[], bool]:
    """Return a condition: the producer has put so many more events."""
    goal = producer.numbered + events
    return lambda: producer.numbered >= goal


def _stands_still(before: int, now: Callable[[], int]) -> bool:
    time.sleep(1.2)
    return now() == before


@contextlib.contextmanager
def _small_disk(setup: Rig) -> Generator[str]:
    """Put the spool on a small file system, or limit its size if none can be mounted; return which."""
    place = setup.folder / "disk"
    place.mkdir()
    options = f"size={_SMALL_DISK},mode=0755"
    if os.geteuid() != 0 or run("mount", "-t", "tmpfs", "-o", options, "tmpfs", place).status != 0:
        setup.settings["spool__max_size"] = str(_SMALL_DISK)
        yield "spool.max_size"
        return
    setup.settings["spool__directory"] = str(place)
    try:
        yield "tmpfs"
    finally:
        run("umount", "--lazy", place).check()


def _kill(publisher: PublisherProcess) -> None:
    publisher.process.kill()
    publisher.process.wait(PATIENCE)


def _result(setup: Rig, figures: dict[str, Figure]) -> Result:
    return Result(figures, tuple(setup.failures))


SCENARIOS: Final[dict[str, Callable[[Scale], Result]]] = {
    "kill": kill,
    "revoked-key": revoked_key,
    "poison": poison_refused,
    "poison-crash": poison_crash,
    "poison-junk": poison_junk,
    "outage": outage,
    "shutdown": shutdown,
    "shutdown-no-spool": shutdown_no_spool,
    "unlink": unlink,
    "statsd-gone": statsd_gone,
    "disk-full": disk_full,
}
