"""The thread that posts: whatever goes wrong in it is the outcome of an attempt."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from baseplate_events.event_publisher.clock import SystemClock
from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.policy.batching import Batch
from baseplate_events.event_publisher.policy.outcome import Accepted, Misconfigured, Outcome, Retryable
from baseplate_events.event_publisher.sender import Finished, Sender, TransportFactory
from tests.support.fault_collector import FaultCollector, trusted_tls
from tests.support.publishers import config_text
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from baseplate_events.event_publisher.config.settings import PublisherSettings
    from baseplate_events.event_publisher.policy.pending import Attempt
    from baseplate_events.event_publisher.sender import CollectorTransport

#: All that a sender looks at of an attempt.
ATTEMPT = cast("Attempt", SimpleNamespace(batch=Batch((b"{}",), 2, 0.0)))


def settings_of(folder: Path, name: str, url: str, **overrides: str) -> PublisherSettings:
    """Read the settings of a configuration with these values."""
    config_file = folder / f"{name}.ini"
    config_file.write_text(config_text(name, url, **overrides))
    return load_settings(config_file, name, {})


def started_sender(
    current_settings: Callable[[], PublisherSettings],
    connect: Callable[[PublisherSettings], CollectorTransport] | None = None,
) -> Callable[[], Outcome]:
    """Start a sender; return a function that has it post a batch and returns the outcome."""
    connect = connect if connect is not None else TransportFactory()
    finished: queue.SimpleQueue[Finished] = queue.SimpleQueue()
    sender = Sender(current_settings, connect, finished.put, SystemClock())
    sender.start()

    def post() -> Outcome:
        sender.post(ATTEMPT)
        return finished.get(timeout=PATIENCE).outcome

    return post


def test_a_sender_is_made_whatever_the_settings_point_to(name: str, tmp_path: Path) -> None:
    """The constructor loads nothing: missing certificates are the outcome of an attempt, with a remedy."""
    context, authority = trusted_tls()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority)
    with FaultCollector(ssl_context=context) as server:
        settings = settings_of(tmp_path, name, server.url, collector__ca_file=str(ca_file))
        ca_file.unlink()
        post = started_sender(lambda: settings)
        outcome = post()
        assert isinstance(outcome, Misconfigured)
        assert str(ca_file) in outcome.reason
        assert "collector.ca_file" in outcome.remedy
        ca_file.write_bytes(authority)
        assert isinstance(post(), Accepted)


def test_an_error_of_ours_is_an_outcome(name: str, tmp_path: Path) -> None:
    """Whatever the creation of a transport raises, the sender goes on."""
    with FaultCollector() as server:
        settings = settings_of(tmp_path, name, server.url)
        failures = iter([MemoryError("private content"), RuntimeError("private content")])
        make = TransportFactory()

        def fail_twice(settings: PublisherSettings) -> CollectorTransport:
            for failure in failures:
                raise failure
            return make(settings)

        post = started_sender(lambda: settings, fail_twice)
        for kind in ("MemoryError", "RuntimeError"):
            outcome = post()
            assert isinstance(outcome, Retryable)
            assert outcome.reason.startswith(f"internal error: {kind} in fail_twice, line ")
        assert isinstance(post(), Accepted)


def test_new_settings_are_used_by_the_next_attempt(name: str, tmp_path: Path) -> None:
    """A sender reads the settings for each attempt, and closes the old connection."""
    with FaultCollector() as first, FaultCollector() as second:
        current = settings_of(tmp_path, name, first.url)
        post = started_sender(lambda: current)
        assert isinstance(post(), Accepted)
        current = settings_of(tmp_path, name, second.url)
        assert isinstance(post(), Accepted)
        assert (len(first.requests), len(second.requests)) == (1, 1)
