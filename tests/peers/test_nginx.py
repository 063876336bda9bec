"""A real nginx with TLS in front of the collector: whatever it does, nothing is lost."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.ledger.file import LETTERS_NAME
from baseplate_events.event_publisher.ledger.letters import LetterFile
from tests.peers.nginx import Nginx, nginx
from tests.support.fault_collector import OK, FaultCollector, Hang
from tests.support.publishers import (
    PublisherProcess,
    events_of,
    make_events,
    publisher_process,
    put_all,
    small_queue,
)
from tests.support.queues import fresh_event_name
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from baseplate_events.transport.posix import MessageQueue


@contextlib.contextmanager
def publisher_behind(
    folder: Path, proxy: Nginx, **overrides: str
) -> Generator[tuple[MessageQueue, PublisherProcess]]:
    """Run a publisher that reaches the collector through nginx, and give its queue."""
    with (
        fresh_event_name() as name,
        small_queue(name) as queue,
        publisher_process(
            folder, name, proxy.url, collector__ca_file=str(proxy.ca_file), **overrides
        ) as publisher,
    ):
        yield queue, publisher


def random_events(count: int, size: int) -> list[bytes]:
    """Return distinct events that gzip can't make much smaller than `size` bytes."""
    chance = random.Random(count)
    return [
        json.dumps({"id": number, "pad": base64.b85encode(chance.randbytes(size)).decode()}).encode()
        for number in range(count)
    ]


def all_events(collector: FaultCollector) -> list[bytes]:
    """Return the events of all requests, as often as they came."""
    return [event for request in collector.requests for event in events_of(request)]


@pytest.mark.parametrize("limit", ["keepalive_requests 5", "keepalive_timeout 10ms", "keepalive_timeout 0"])
def test_connections_that_nginx_ends_cost_nothing(limit: str, tmp_path: Path) -> None:
    """Connections end after five requests, when idle or at once: each event comes once, without a warning."""
    events = make_events(150)
    with (
        FaultCollector() as collector,
        nginx(tmp_path, collector.url, server=f"{limit};") as proxy,
        publisher_behind(tmp_path, proxy, batch__max_events="2") as (queue, publisher),
    ):
        put_all(queue, events)
        assert publisher.stop() == 0
        assert sorted(events) == sorted(all_events(collector))
        assert {200} == set(proxy.statuses)
        assert proxy.connections >= len(proxy.statuses) / 5 > 10 or "10ms" in limit
        assert "WARNING" not in publisher.log


def test_a_small_client_max_body_size_splits_batches(tmp_path: Path) -> None:
    """What is too large for nginx comes in halves, each event once; one that is too large alone is kept."""
    events = random_events(60, 300)
    giant = random_events(1, 750)
    with (
        FaultCollector() as collector,
        nginx(tmp_path, collector.url, server="client_max_body_size 700;") as proxy,
        publisher_behind(
            tmp_path,
            proxy,
            dead_letters__directory=str(tmp_path / "rejected"),
            batch__max_age="200 milliseconds",
        ) as (queue, publisher),
    ):
        put_all(queue, [*events[:30], *giant, *events[30:]])
        assert publisher.stop() == 0
        assert sorted(events) == sorted(all_events(collector))
        assert {200, 413} == set(proxy.statuses)
    with contextlib.closing(LetterFile(str(tmp_path / "rejected" / LETTERS_NAME))) as letters:
        (letter,) = map(letters.read, letters.numbers())
    assert letter is not None
    assert letter.status == 413


def test_limit_req_delays_only(tmp_path: Path) -> None:
    """What nginx answers with 429 comes later, each event once."""
    events = make_events(60)
    with (
        FaultCollector() as collector,
        nginx(
            tmp_path,
            collector.url,
            http="limit_req_zone $binary_remote_addr zone=all:32k rate=20r/s; limit_req_status 429;",
            server="limit_req zone=all;",
        ) as proxy,
        publisher_behind(tmp_path, proxy, batch__max_events="5") as (queue, publisher),
    ):
        put_all(queue, events)
        assert publisher.stop() == 0
        assert sorted(events) == sorted(all_events(collector))
        assert {200, 429} == set(proxy.statuses)


def test_an_upstream_that_dies_and_comes_back(tmp_path: Path) -> None:
    """Nginx answers 504 while the collector hangs, 502 while it is gone: all is delivered when it is back."""
    events = make_events(40)
    with (
        FaultCollector([OK, Hang()]) as first,
        nginx(tmp_path, first.url, server="proxy_read_timeout 100ms;") as proxy,
        publisher_behind(tmp_path, proxy, batch__max_events="10") as (queue, publisher),
    ):
        putting = threading.Thread(target=put_all, args=(queue, events))
        putting.start()
        publisher.wait_for(lambda: 504 in proxy.statuses)
        answered = events_of(first.requests[0])
        first.close()
        publisher.wait_for(lambda: 502 in proxy.statuses)
        with FaultCollector(listener=socket.create_server(first.address)) as second:
            publisher.wait_for(lambda: {*events} <= {*answered, *all_events(second)})
            putting.join(PATIENCE)
            assert publisher.stop() == 0
            # An answer that takes nginx longer than 100 ms is a 504, whereupon a batch comes again.
            assert {*events} == {*answered, *all_events(second)}
            assert "40 events received = 40 delivered" in publisher.log
        assert {200, 502, 504} == set(proxy.statuses)


def test_reloads_under_load(tmp_path: Path) -> None:
    """Nginx reloads gracefully five times while events flow: each comes once, without an error."""
    enough = threading.Event()
    put: list[bytes] = []

    def produce(queue: MessageQueue) -> None:
        while not enough.is_set():
            if len(put) % 300 == 0:  # at most some 400 requests are left to be sent at the end
                publisher.wait_for(partial(proxy.has_answered, len(put) // 3 - 300))
            event = json.dumps({"id": len(put)}).encode()
            queue.put(event, timeout=PATIENCE)
            put.append(event)

    with (
        FaultCollector() as collector,
        nginx(tmp_path, collector.url) as proxy,
        publisher_behind(tmp_path, proxy, batch__max_events="3") as (queue, publisher),
    ):
        putting = threading.Thread(target=produce, args=(queue,))
        putting.start()
        for number in range(1, 6):
            publisher.wait_for(partial(proxy.has_answered, 20 * number))
            proxy.reload()
        enough.set()
        putting.join(PATIENCE)
        assert publisher.stop() == 0
        assert sorted(put) == sorted(all_events(collector))
        assert {200} == set(proxy.statuses)
        assert "WARNING" not in publisher.log
