"""Pods replaced one by one, and hosts moved to the spool and back; with real services and publishers.

A pod is a directory for the spool, a service and a publisher.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from baseplate_events import EventQueue
from baseplate_events.cli.status.command import scrape
from baseplate_events.dev_collector import DevCollector
from baseplate_events.event_publisher.config.values import UnixEndpoint
from tests.support.fault_collector import FaultCollector, Respond
from tests.support.processes import Process, started
from tests.support.publishers import (
    KEY_NAME,
    SECRET,
    Arrivals,
    PublisherProcess,
    arrived,
    publisher_process,
    put_all,
    small_queue,
)
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Real processes, most of which wait for one another.
pytestmark = pytest.mark.slow

#: Pods that run side by side, and how often each is replaced.
_REPLICAS: Final = 3
_ROLLOUTS: Final = 2

#: NAME of the queue. Each pod has a spool of its own, and no POSIX queue.
_NAME: Final = "v2"

#: Puts bursts of events until SIGTERM, and writes down which it has put.
_SERVICE: Final = """
import json, signal, sys
from baseplate_events import EventQueue, serialize_v2j_event
pod, directory = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
number = 0
with EventQueue("v2", serialize_v2j_event, spool_directory=directory, strict_size=True) as queue:
    while signal.sigtimedwait({signal.SIGTERM}, 0.002) is None:
        for _ in range(10):
            number += 1
            queue.put({"id": f"{pod}-{number}"})
            print(f"{pod}-{number}")
        sys.stdout.flush()
"""


@dataclass(frozen=True)
class Pod:
    """A pod: what its containers share, and their processes."""

    folder: Path
    publisher: PublisherProcess
    service: Process

    @property
    def put(self) -> list[str]:
        """Ids of the events that its service has put."""
        return (self.folder / "put").read_text().splitlines()

    def stop_service(self) -> None:
        """Terminate the pod as a kubelet does first."""
        self.service.send_signal(signal.SIGTERM)
        assert self.service.wait(PATIENCE) == 0

    def stop_publisher(self) -> None:
        """Kill the pod as a kubelet does then."""
        self.publisher.process.send_signal(signal.SIGTERM)


class Node:
    """Runs pods whose publishers deliver to a collector."""

    def __init__(self, folder: Path, url: str, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._url = url
        self._stack = stack
        self._started = 0
        self.put: list[str] = []

    def start(self, **overrides: str) -> Pod:
        """Start a pod, and return it once its service puts events."""
        self._started += 1
        folder = self._folder / f"pod-{self._started}"
        volume = folder / "volume"
        volume.mkdir(parents=True)
        settings = {"spool__directory": str(volume), "queue__transport": "spool", **overrides}
        publisher = self._stack.enter_context(publisher_process(folder, _NAME, self._url, **settings))
        publisher.wait_until_it_publishes()  # as a sidecar with a startup probe has started first
        log = self._stack.enter_context((folder / "put").open("wb"))
        command = (sys.executable, "-c", _SERVICE, folder.name, volume)
        service = self._stack.enter_context(started(*command, stdout=log))
        pod = Pod(folder, publisher, service)
        wait_until(lambda: pod.put, lambda: publisher.log, process=service)
        return pod

    def end(self, pod: Pod) -> None:
        """Replace a pod as a kubelet does."""
        pod.stop_service()
        pod.stop_publisher()
        self.delete(pod)

    def delete(self, pod: Pod) -> None:
        """Wait for the end of a pod's publisher, and delete its volume with all that is left in it."""
        assert pod.publisher.process.wait(PATIENCE) == 0, pod.publisher.log
        self.put += pod.put
        shutil.rmtree(pod.folder / "volume")


def test_a_rollout_loses_nothing(tmp_path: Path) -> None:
    """With the collector up, pods are replaced one by one under load: each event arrives, and once."""
    arrivals = Arrivals()
    with DevCollector({KEY_NAME: SECRET}, arrivals.add) as collector, contextlib.ExitStack() as stack:
        node = Node(tmp_path, collector.url, stack)
        pods = [node.start(shutdown__grace="20 seconds") for _ in range(_REPLICAS)]
        for _ in range(_ROLLOUTS * _REPLICAS):
            pods.append(node.start(shutdown__grace="20 seconds"))
            node.end(pods.pop(0))
        for pod in pods:
            node.end(pod)
    ids = [json.loads(event)["id"] for event in arrivals.events]
    assert len(node.put) > 10 * _REPLICAS * (1 + _ROLLOUTS)
    assert sorted(ids) == sorted(node.put)


def test_a_pod_waits_for_a_collector_that_fails_for_a_moment(tmp_path: Path) -> None:
    """A stopping publisher retries within its grace, since its spool is deleted with the pod.

    An open batch isn't held back until it is old enough.
    """
    with FaultCollector([Respond(503)]) as collector, contextlib.ExitStack() as stack:
        node = Node(tmp_path, collector.url, stack)
        pod = node.start(shutdown__grace="20 seconds", batch__max_age="1 minute", batch__max_events="100")
        pod.publisher.wait_until_it_fails()
        pod.stop_service()
        pod.stop_publisher()
        pod.publisher.wait_for_log("stopping: ")
        refused = len(collector.requests)
        collector.wait_for_requests(refused + 1)
        collector.change_script(Respond())
        node.delete(pod)
        ids = [json.loads(event)["id"] for event in arrived(collector)]
    assert sorted(ids) == sorted(node.put)


def test_a_pod_that_is_deleted_during_an_outage_says_what_it_takes_along(tmp_path: Path) -> None:
    """With the collector down until the end, the log counts what is deleted with the pod."""
    with FaultCollector([Respond(503)]) as collector, contextlib.ExitStack() as stack:
        node = Node(tmp_path, collector.url, stack)
        endpoint = UnixEndpoint(str(tmp_path / "health.sock"))
        pod = node.start(shutdown__grace="300 milliseconds", health__bind=endpoint.path)
        pod.publisher.wait_until_it_fails()
        pod.stop_service()
        # Within its grace it might not get to reading all.
        pod.publisher.wait_for(lambda: scrape(endpoint).number("events_received_total") == len(pod.put))
        pod.stop_publisher()
        node.delete(pod)
    (stopped,) = [line for line in pod.publisher.log.splitlines() if "stopped: " in line]
    assert f"{len(node.put)} events received" in stopped
    assert f"{len(node.put)} spooled" in stopped


def test_a_host_moves_to_the_spool_and_back(name: str, tmp_path: Path) -> None:
    """As docs/migrating.md says: each event arrives, by whichever way it was put, through an outage too."""
    directory = tmp_path / "spools"
    directory.mkdir()
    spool = {"spool__directory": str(directory)}
    posix = {**spool, "queue__transport": "posix"}
    events = [b'{"id": %d}' % number for number in range(60)]
    arrivals = Arrivals()
    with (
        DevCollector({KEY_NAME: SECRET}, arrivals.add) as up,
        FaultCollector([Respond(503)]) as down,
        small_queue(name) as queue,
        EventQueue(name, bytes, spool_directory=directory, strict_size=True) as spooling,
    ):

        def publish(url: str, wait_for: Callable[[], object], **settings: str) -> None:
            with publisher_process(tmp_path, name, url, **settings) as publisher:
                publisher.wait_for(wait_for)
                assert publisher.stop() == 0

        def put(numbers: range, into: EventQueue[bytes] | None = None) -> None:
            some = [events[number] for number in numbers]
            if into is None:
                put_all(queue, some)
            else:
                into.put_many(some)

        put(range(10))
        publish(up.url, lambda: len(arrivals.events) == 10)
        put(range(10, 20))
        put(range(20, 30), spooling)
        publish(down.url, lambda: queue.current_messages == 0, **spool, shutdown__drain="false")
        publish(up.url, lambda: len(arrivals.events) == 30, **spool)
        put(range(30, 40), spooling)
        put(range(40, 50))
        publish(up.url, lambda: len(arrivals.events) == 50, **posix)
        put(range(50, 60))
        publish(up.url, lambda: len(arrivals.events) == 60)
    assert sorted(arrivals.events) == sorted(events)
