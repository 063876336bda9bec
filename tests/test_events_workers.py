"""`EventQueue` in worker processes: sent by `spawn` and `forkserver`, copied, and where that can't be."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventQueue, EventQueueClosedError, serialize_v2_event, serialize_v2j_event
from baseplate_events.events import ENABLED_VARIABLE, SPOOL_VARIABLE
from baseplate_events.spool import MIN_SPOOL_SIZE
from baseplate_events.testing import InMemoryEventQueue
from tests.support.queues import EVENTS, FEW, SMALL, drain, reader
from tests.support.spools_written import read_events
from tests.support.workers import put_all, serialize

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkServerContext, SpawnContext
    from pathlib import Path

#: Start methods that send a queue; `fork` has it.
CONTEXTS: Final[dict[str, SpawnContext | ForkServerContext]] = {
    "spawn": multiprocessing.get_context("spawn"),
    "forkserver": multiprocessing.get_context("forkserver"),
}


def settings_of(queue: EventQueue[bytes]) -> object:
    """Return all that a queue was made with."""
    return queue._settings, queue._event_serializer  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("method", CONTEXTS)
@pytest.mark.parametrize("transport", ["posix", "spool"])
def test_a_worker_puts_into_the_same_queue(method: str, transport: str, name: str, tmp_path: Path) -> None:
    """A pool of workers gets the queue; its events arrive, and its counters are its own."""
    with (
        EventQueue(
            name,
            serialize,
            max_queue_size=FEW,
            max_event_size=SMALL,
            spool_directory=tmp_path if transport == "spool" else None,
        ) as queue,
        CONTEXTS[method].Pool(1) as pool,
    ):
        queue.put(b"{parent}")
        worker, put, refused = pool.apply(put_all, (queue, [b"{one}", b"", b"{two}"]))
        assert worker != os.getpid()
        assert (2, 1) == (put, refused)
        assert (1, 0) == (queue.counters().put, queue.counters().refused.total)
        if transport == "spool":
            assert [b"{parent}", b"{one}", b"{two}"] == read_events(tmp_path / f"events-{name}")
        else:
            with reader(EVENTS + name) as other:
                assert [b"{parent}", b"{one}", b"{two}"] == drain(other)


@given(
    queue_size=st.integers(1, 65_536),
    event_size=st.integers(3, 2**24),
    timeout=st.sampled_from([0.0, 0.5, 1e9]),
    mode=st.sampled_from([0o600, 0o660]),
    spool_size=st.integers(MIN_SPOOL_SIZE, 2**40),
    enabled=st.booleans(),
)
def test_all_arguments_go_along(
    queue_size: int,
    event_size: int,
    timeout: float,
    mode: int,
    spool_size: int,
    enabled: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A copy has the same arguments, whatever they are."""
    folder = tmp_path_factory.mktemp("spool")
    with EventQueue(
        "main",
        serialize,
        max_queue_size=queue_size,
        max_event_size=event_size,
        put_timeout=timeout,
        mode=mode,
        strict_size=True,
        spool_directory=folder,
        max_spool_size=spool_size,
        enabled=enabled,
    ) as queue:
        for other in (pickle.loads(pickle.dumps(queue)), copy.copy(queue), copy.deepcopy(queue)):
            assert settings_of(queue) == settings_of(other)
            assert type(other) is EventQueue
            other.close()
        queue.put(b"{x}")  # its own descriptor is open


def test_the_environment_of_the_worker_changes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transport and switch are those of the sender; a relative directory is the sender's."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with EventQueue(name, serialize, max_queue_size=FEW, max_event_size=SMALL) as posix:
        sent = pickle.dumps(posix)
    with EventQueue(name, serialize, spool_directory=".") as spool:
        sent_too = pickle.dumps(spool)
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setenv(SPOOL_VARIABLE, str(tmp_path / "there"))
    monkeypatch.setenv(ENABLED_VARIABLE, "off")
    with pickle.loads(sent) as queue, reader(EVENTS + name) as other:
        queue.put(b"{x}")
        assert [b"{x}"] == drain(other)
    with pickle.loads(sent_too) as queue:
        queue.put(b"{y}")
    assert [b"{y}"] == read_events(tmp_path / "here" / f"events-{name}")
    assert [] == list((tmp_path / "there").iterdir())


@pytest.mark.parametrize(
    "serializer", [serialize_v2_event, serialize_v2j_event, serialize, partial(serialize)]
)
def test_serializers_that_have_a_name_go_along(serializer: Callable[[object], bytes], tmp_path: Path) -> None:
    """Serializers that can be sent: the library's, a function of a module, and a `partial` of one."""
    with EventQueue("main", serializer, spool_directory=tmp_path) as queue:
        pickle.loads(pickle.dumps(queue)).close()


def test_a_subclass_stays_one(tmp_path: Path) -> None:
    """A copy of a subclass is of the same class."""
    with (
        Subclass("main", serialize, spool_directory=tmp_path) as queue,
        pickle.loads(pickle.dumps(queue)) as other,
    ):
        assert type(other) is Subclass


class Subclass(EventQueue[bytes]):
    """A queue of a service's own."""


def test_a_serializer_without_a_name_is_named_with_the_remedy(name: str) -> None:
    """A lambda or a nested function can't be sent; the error names queue and function, and what to do."""

    def nested(event: bytes) -> bytes:
        return event

    unnamed: Callable[[bytes], bytes] = lambda event: event  # noqa: E731 - it is the case
    for serializer, word in ((nested, "nested"), (unnamed, "<lambda>")):
        queue = EventQueue(name, serializer, max_queue_size=FEW, max_event_size=SMALL)
        with queue, pytest.raises(pickle.PicklingError) as caught:
            pickle.dumps(queue)
        text = str(caught.value)
        assert f"event queue {name!r} can't be sent to another process" in text
        assert word in text
        assert "define the serializer with `def` at the top of a module" in text


@pytest.mark.parametrize("method", CONTEXTS)
def test_the_test_double_says_that_it_stays(method: str) -> None:
    """Its events are in the memory of the test; the error says what to use instead, where a worker starts."""
    queue = InMemoryEventQueue("main", serialize)
    process = CONTEXTS[method].Process(target=put_all, args=(queue, []))
    with pytest.raises(pickle.PicklingError, match=r"'main' can't be sent .* memory .* spool_directory"):
        process.start()
    with pytest.raises(pickle.PicklingError, match="can't be sent"):
        copy.copy(queue)


def test_a_closed_queue_is_not_reopened(name: str) -> None:
    """A closed queue can't be sent, and the error says that it was closed."""
    queue = EventQueue(name, serialize, max_queue_size=FEW, max_event_size=SMALL)
    queue.close()
    with pytest.raises(EventQueueClosedError):
        pickle.dumps(queue)
