from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from baseplate_events.cli.doctor.findings import Code
from baseplate_events.cli.doctor.publisher import check_publisher
from baseplate_events.event_publisher.config.values import UnixEndpoint
from baseplate_events.transport.posix import MessageQueue
from tests.support.doctors import check_words, sound
from tests.support.fault_collector import FaultCollector, Respond
from tests.support.publishers import publishing
from tests.support.queues import fresh_name
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def test_a_publisher_is_asked_how_it_is(tmp_path: Path) -> None:
    """One that delivers is ok, one that fails a problem in its own words, a silent address a warning."""
    good, bad = UnixEndpoint(str(tmp_path / "good.sock")), UnixEndpoint(str(tmp_path / "bad.sock"))
    silent = sound(check_publisher(good))
    assert silent.code is Code.PUBLISHER_SILENT
    assert {"endpoint": good.path, "reason": "No such file or directory"} == silent.fields
    with contextlib.ExitStack() as stack:
        for endpoint, answer in ((good, Respond()), (bad, Respond(403))):
            name = stack.enter_context(fresh_name("/events-test-"))
            short = name.removeprefix("/events-")
            server = stack.enter_context(FaultCollector([answer]))
            keys = {"health__bind": endpoint.path, "shutdown__grace": "0 seconds"}
            stack.enter_context(publishing(tmp_path, short, server.url, **keys))
            queue = MessageQueue(name, max_messages=1, max_message_size=10)
            stack.enter_context(queue).put(b"{}")
        wait_until(lambda: check_publisher(good).fields.get("delivered") == 1, "no status")
        delivers = sound(check_publisher(good))
        wait_until(lambda: check_publisher(bad).code is Code.PUBLISHER_FAILS, "no problem")
        fails = sound(check_publisher(bad))
    assert delivers.code is Code.PUBLISHER_DELIVERS
    assert {"endpoint": good.path, "delivered": 1} == delivers.fields
    assert {"endpoint", "reason"} == fails.fields.keys()
    assert str(fails.fields["reason"]).startswith("403 Scripted")
    check_words(
        silent,
        f"nobody answers at {good}: No such file or directory",
        "start the publisher; if it runs, run the doctor as its user, or restart it with health.bind as "
        "it is now",
    )
    check_words(delivers, "it runs, and has delivered 1 events")
    check_words(
        fails,
        f"it isn't delivering: {fails.fields['reason']}",
        "the checks before and its log say what mends that",
    )


def test_without_an_endpoint_a_publisher_is_not_asked() -> None:
    """Where `health.bind` isn't set there is nobody to ask, which is nothing wrong."""
    check = sound(check_publisher(None))
    assert check.code is Code.PUBLISHER_ENDPOINT_UNSET
    check_words(check, "health.bind isn't set, so a publisher can't be asked")
