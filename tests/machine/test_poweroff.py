"""An orderly end of the system, with the collector down."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from typing import TYPE_CHECKING

import pytest

from tests.machine.cuts.oracle import compare, parse_reports
from tests.machine.cuts.plan import Kind, Way, plan
from tests.machine.cuts.scene import Collector, Reports, deliver, producer, set_up, start_publisher
from tests.machine.image import PROJECT
from tests.machine.prepared import prepare
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.machine.agent import Guest
    from tests.machine.cuts.plan import Cut
    from tests.machine.image import Image

#: Events that are put before the system ends.
ENOUGH = 300


def start_service(guest: Guest, cut: Cut, reports: Reports) -> None:
    """Start a service that puts events, with the drop-in of the guide: it ends before the publisher does."""
    unit = "/etc/systemd/system/shop.service"
    command = " ".join(("/usr/bin/env", *producer(cut, reports)[1:]))
    guest.write(unit, f"[Service]\nUser=shop\nExecStart={command}\n")
    left_out = "EVENT_SPOOL_DIRECTORY" if cut.way is Way.RELAY else "no such line"
    source = f"{PROJECT}/deploy/systemd/service-drop-in.conf"
    guest.shell(
        f"mkdir {unit}.d; sed '/{left_out}/d' {source} > {unit}.d/events.conf; systemctl daemon-reload"
    )
    guest.run("systemctl", "start", "shop")


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize(("file_system", "fsync"), [("ext4", "never"), ("xfs", "event")])
def test_an_orderly_end_loses_nothing(image: Image, way: Way, file_system: str, fsync: str) -> None:
    """What was in the spool, or in the queue of a publisher with a spool, arrives after the next boot."""
    cut = dataclasses.replace(
        plan(0)[0],
        way=way,
        fsync=fsync,
        file_system=file_system,
        rate=0.0,
        kind=Kind.WRITE,
        stock_writeback=True,
    )
    collector = Collector(up=False)
    with set_up(prepare(image, file_system), collector) as setting:
        with setting.machine() as machine, contextlib.closing(Reports()) as reports:
            start_publisher(machine.guest, cut, setting.port)
            start_service(machine.guest, cut, reports)
            wait_until(lambda: len(parse_reports(reports.text)) > ENOUGH, "too few events", patience=120)
            machine.guest.start("systemctl", "poweroff")
            machine.wait_for_end()
        unflushed = setting.lose_cache(random.Random(0), 0).unflushed
        with setting.machine() as machine:
            _, failures = deliver(machine.guest, cut, setting.port)
    # What the queue held counts too.
    everything = [dataclasses.replace(report, held=0) for report in parse_reports(reports.text)]
    outcome = compare(cut.series, everything, everything[-1].at, collector.events)
    print(cut, outcome, max(report.held for report in parse_reports(reports.text)))
    assert ([], 0, 0, 0) == (failures, outcome.lost, outcome.damaged, unflushed)
    assert outcome.delivered > ENOUGH
