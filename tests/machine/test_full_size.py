from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from baseplate_events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE
from tests.machine.full_size import try_full_size

if TYPE_CHECKING:
    from tests.machine.full_size import Facts
    from tests.machine.image import Image


@pytest.fixture(scope="module")
def facts(image: Image) -> Facts:
    """What is seen on a host with a queue of full size; it is set up once."""
    facts = try_full_size(image)
    print({name: value for name, value in asdict(facts).items() if name != "guide"})
    return facts


def test_the_guide_works(facts: Facts) -> None:
    """Who pastes the commands of the guide on a host with a kernel of its own sees the test event arrive."""
    assert '{"1":{"str":"a test"}}\n' in facts.guide
    assert "Active: active (running)" in facts.guide


def test_the_doctor_is_content(facts: Facts) -> None:
    """It finds no problem, and warns of nothing but the secret of the guide, an example that is too short."""
    assert "ok" == facts.doctor["collector connection"]
    amiss = {name: verdict for name, verdict in facts.doctor.items() if verdict in {"warning", "problem"}}
    assert {"key": "warning"} == amiss


def test_the_queue_has_full_size(facts: Facts) -> None:
    """The publisher's queue has the size that baseplate.py's has, for services of the group `events`."""
    assert (MAX_QUEUE_SIZE, MAX_EVENT_SIZE) == facts.queue
    assert ("event-publisher events 660", "shop events") == facts.owner


def test_a_service_fills_it(facts: Facts) -> None:
    """A service with the memory that the doctor advises gets an error when the queue is full."""
    assert "memory-too-small" == facts.doctor_small["code"]
    assert "ok" == facts.doctor_advised["verdict"]
    assert "success" == facts.shop_result
    assert ("EventQueueFullError", MAX_QUEUE_SIZE) == (facts.filled["error"], facts.filled["depth"])
    assert facts.filled["put"] > MAX_QUEUE_SIZE
    assert MAX_QUEUE_SIZE * MAX_EVENT_SIZE < facts.filled["memory"] <= facts.advised


def test_a_service_with_less_memory_is_killed(facts: Facts) -> None:
    """Without the memory that the doctor advises, a service is killed before the queue is full."""
    assert "oom-kill" == facts.small_result


def test_the_watchdog_restarts_the_publisher(facts: Facts) -> None:
    """A publisher that is stuck is killed after a minute, and started again."""
    assert (1, True) == (facts.restarts, facts.watchdog)


def test_a_stop_leaves_the_queue(facts: Facts) -> None:
    """When the last process of the publisher's user ends, the queue stays, with what is in it."""
    assert "success" == facts.stop_result
    assert facts.depth_after_stop == MAX_QUEUE_SIZE


def test_a_reload_delivers_everything(facts: Facts) -> None:
    """The new address is used without a restart; each event arrives, once, and as it was put."""
    assert facts.pids[0] == facts.pids[1] != "0"
    assert (facts.filled["put"], 0, 0) == (facts.delivered, facts.doubled, facts.damaged)


def test_the_publisher_needs_the_memory_of_the_guide(facts: Facts) -> None:
    """It stays below the bound of docs/operations.md, 78 MiB by default."""
    assert facts.publisher_peak < 78 * 2**20
