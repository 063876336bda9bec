from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.doctor.findings import Code
from baseplate_events.cli.doctor.publisher import check_publisher
from baseplate_events.cli.status.command import scrape
from baseplate_events.event_publisher.config.values import UnixEndpoint
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.telemetry.health_server import HealthServer
from baseplate_events.event_publisher.telemetry.snapshot import Snapshot, SpoolLevel
from baseplate_events.transport.posix import MessageQueue
from tests.support.commands import call
from tests.support.doctors import check_words, doctor, sound
from tests.support.fault_collector import FaultCollector, Respond
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES, publishing
from tests.support.queues import EVENTS, fresh_name
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
        f"no answer at {good}: No such file or directory",
        "start the publisher; if it runs, run the doctor as its user, or restart it with health.bind as "
        "it is now",
    )
    check_words(delivers, "running, 1 event delivered")
    check_words(
        fails,
        f"running, but not delivering: {fails.fields['reason']}",
        "see the checks above and its log",
    )


def test_what_hampers_a_publisher_is_a_warning(tmp_path: Path) -> None:
    """It delivers all the same."""
    spool = SpoolLevel(0, 1, problems=("inotify is not available", "the ledger is damaged"))
    snapshot = Snapshot("v2", "1.0", 0.0, time.monotonic(), Accounting(), 0, 10, spool=spool)
    endpoint = UnixEndpoint(str(tmp_path / "health.sock"))
    with contextlib.closing(HealthServer(endpoint, lambda: snapshot)) as server:
        server.start()
        check = sound(check_publisher(endpoint))
    assert check.code is Code.PUBLISHER_HAMPERED
    assert check.fields["problems"] == list(spool.problems)
    check_words(
        check,
        "running, 0 events delivered, but inotify is not available; the ledger is damaged",
        "see the checks above and its log",
    )


NGINX_BODY = b"<center>The plain HTTP request was sent to HTTPS port</center>"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Respond(400), Code.PROBE_SIGNATURE_IGNORED),
        (Respond(400, body=NGINX_BODY), Code.PROBE_PORT_WANTS_TLS),
        (Respond(413), Code.PROBE_TOO_LARGE),
        (Respond(422), Code.PROBE_SIGNATURE_IGNORED),
    ],
)
def test_a_server_that_refuses_everything_is_a_problem_everywhere(
    tmp_path: Path, answer: Respond, code: Code
) -> None:
    """Nothing is delivered to it: doctor, `/readyz` and `status` agree, also while the publisher tries on."""
    endpoint = UnixEndpoint(str(tmp_path / "health.sock"))
    keys = {"health__bind": endpoint.path, "shutdown__grace": "0 seconds"}
    with fresh_name(EVENTS) as name, FaultCollector([answer]) as server, small_queue_of(name) as queue:
        short = name.removeprefix(EVENTS)
        with publishing(tmp_path, short, server.url, **keys):
            for event in (b'{"a":1}', b'{"a":2}', b'{"a":3}'):
                queue.put(event)
            wait_until(lambda: len(server.requests) > 3, "too few attempts")
            wait_until(lambda: scrape(endpoint).unready is not None, "ready")
            config = str(tmp_path / f"{short}.ini")
            table = doctor(config, "--queue-name", short)
            status = call("status", config, "--queue-name", short, "--json", "--interval", "100 milliseconds")
            look = scrape(endpoint)
    assert (1, code) == (table.status, table["signed probe"].code)
    assert {"signed probe", "publisher"} == {check.name for check in table.problems}
    reasons = [table["publisher"].fields["reason"], look.unready, json.loads(status.out)["unready"]]
    for reason in reasons:
        assert "everything since the last accepted batch was refused" in str(reason)
    assert (1, 0) == (status.status, look.number("events_delivered_total"))


def small_queue_of(name: str) -> MessageQueue:
    """Make a queue of the size that publishers of tests want."""
    return MessageQueue(name, max_messages=MAX_MESSAGES, max_message_size=MAX_MESSAGE_SIZE)


def test_without_an_endpoint_a_publisher_is_not_asked() -> None:
    """Without `health.bind` the publisher can't be queried, which isn't a problem."""
    check = sound(check_publisher(None))
    assert check.code is Code.PUBLISHER_ENDPOINT_UNSET
    check_words(check, "health.bind isn't set, so the publisher can't be queried")
