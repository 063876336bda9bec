"""A queue of full size on a host that was set up as docs/operations.md says.

`python -m tests.machine.full_size` prints what was measured. It takes about ten minutes where machines are
emulated.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from baseplate_events.dev_collector import DevCollector
from tests.machine.guest.filler import event
from tests.machine.image import GUEST, GUIDE, PROJECT, built, is_online
from tests.machine.prepared import KEYS, SPOOLS, accelerator_for, configure
from tests.machine.qemu import Hardware, Machine, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from baseplate_events.dev_collector import AcceptedBatch
    from tests.machine.agent import Guest
    from tests.machine.image import Image

UNIT: Final = "event-publisher@v2"

#: MiB of memory of the machine: for a full queue, and its system.
_MEMORY: Final = 3_072

#: Bytes of the disk for spools, nearly all of them a hole.
_DISK: Final = 4 * 2**30

#: What the spool takes before events stay in the queue. By default it is as large as the queue.
_SPOOL: Final = 16_000_000

#: A port of this host on which nothing listens, as far as the machine can see.
_CLOSED: Final = 9

#: Seconds that filling the queue, and delivering it, may take.
_LONG: Final = 1_800.0

#: A verdict of the doctor, and what it judges.
_VERDICT: Final = re.compile(r"(?m)^(ok|warning|problem|skipped) +(\S+(?: \S+)*)")

#: What the service is called whose queue it is, and one whose memory is too small for it.
SHOP: Final = "shop"
SMALL_SHOP: Final = "small-shop"
SMALL_MEMORY: Final = 200_000_000


@dataclass
class Facts:
    """What was seen.

    Attributes:
        guide: What the commands of the guide wrote.
        doctor: Verdicts of the doctor by the names of its checks, for the publisher, as the guide runs it.
        doctor_small: What it says of the memory of a service with `SMALL_MEMORY`.
        doctor_advised: What it says of the memory of a service with what it advised.
        queue: Depth and size of events of the queue that the publisher made.
        owner: Owner, group and mode of the queue, and the user and the groups of the service that fills it.
        advised: Bytes of memory that the doctor advises for a service.
        filled: What the service printed, and the seconds it took.
        shop_result: What became of its unit.
        restarts: Of the unit of the publisher, by the watchdog.
        watchdog: Whether the journal says that it was the watchdog.
        depth_after_stop: Events in the queue after the publisher was stopped while its collector was down.
        stop_result: What became of its unit then.
        pids: The publisher's before and after the reload.
        delivered: Events that arrived, each once, and as they were put.
        doubled: Arrivals of events that had arrived already.
        damaged: Arrivals that are no event that was put.
        seconds_to_deliver: From the reload to the last one.
        publisher_peak: The most memory that the publisher used, in bytes.
        small_result: What became of the unit of the service with `SMALL_MEMORY`.
    """

    guide: str = ""
    doctor: dict[str, str] = field(default_factory=dict[str, str])
    doctor_small: dict[str, Any] = field(default_factory=dict[str, Any])
    doctor_advised: dict[str, Any] = field(default_factory=dict[str, Any])
    queue: tuple[int, int] = (0, 0)
    owner: tuple[str, str] = ("", "")
    advised: int = 0
    filled: dict[str, Any] = field(default_factory=dict[str, Any])
    shop_result: str = ""
    restarts: int = 0
    watchdog: bool = False
    depth_after_stop: int = 0
    stop_result: str = ""
    pids: tuple[str, str] = ("", "")
    delivered: int = 0
    doubled: int = 0
    damaged: int = 0
    seconds_to_deliver: float = 0.0
    publisher_peak: int = 0
    small_result: str = ""


class Arrivals:
    """Counts the events of a series that a collector takes.

    Attributes:
        numbers: Of those that arrived.
        doubled: Arrivals of events that had arrived already.
        damaged: Arrivals that are no event of the series.
    """

    def __init__(self, series: str) -> None:
        self.numbers: set[int] = set()
        self.doubled = 0
        self.damaged = 0
        self._series = series

    def take(self, batch: AcceptedBatch) -> None:
        """Take a batch; called by its server."""
        for each in batch.events:
            found = re.match(rb'\{"id":"[^"]*-(\d+)"', each)
            number = int(found[1]) if found else 0
            if each != event(self._series, number):
                self.damaged += 1
            elif number in self.numbers:
                self.doubled += 1
            else:
                self.numbers.add(number)


def try_full_size(image: Image, said: Callable[[Facts], object] = lambda _: None) -> Facts:
    """Set up a host, fill a queue of full size, and have it delivered; return what was seen.

    Args:
        image: What the machine boots from.
        said: Is called with what was seen so far, after each of the longer steps.
    """
    facts = Facts()
    arrivals = Arrivals(SHOP)
    with tempfile.TemporaryDirectory() as folder, DevCollector(KEYS, arrivals.take) as collector:
        disk = Path(folder) / "disk"
        with disk.open("wb") as file:
            file.truncate(_DISK)
        drive = f"file={disk},format=raw,if=virtio,cache=unsafe"
        with running(image, Hardware(_MEMORY, (drive,), accelerator_for(image))) as machine:
            guest = machine.guest
            _set_up(machine, facts)
            _ask_doctor(guest, facts)
            _fill(guest, facts)
            said(facts)
            _stop_and_starve(guest, facts)
            said(facts)
            _deliver(guest, facts, collector.address[1], arrivals)
            said(facts)
            _kill_for_memory(guest, facts)
    facts.delivered, facts.doubled, facts.damaged = len(arrivals.numbers), arrivals.doubled, arrivals.damaged
    return facts


def _set_up(machine: Machine, facts: Facts) -> None:
    """Paste the guide. What it gets from registries before the rest is in the image, by the same commands."""
    guest = machine.guest
    guest.run("systemctl", "is-system-running", "--wait")
    guest.shell(f"mkfs.ext4 -q /dev/vdb; mkdir -p {SPOOLS}; mount /dev/vdb {SPOOLS}")
    first = next(index for index, block in enumerate(GUIDE) if not is_online(block))
    for block in GUIDE[first:]:
        if "service-drop-in.conf" in block:
            _make_services(guest)
        facts.guide += guest.paste(block, timeout=_LONG)
    arrived = "/run/events.jsonl"
    guest.wait("the test event arrives", lambda: "a test" in guest.shell(f"cat {arrived}"))
    facts.guide += guest.shell(f"cat {arrived}")
    facts.doctor = {name: verdict for verdict, name in _VERDICT.findall(facts.guide)}


def _make_services(guest: Guest) -> None:
    """Make the units of two services, for which the guide has a drop-in."""
    guest.run("systemd-sysusers", "--inline", "u shop -")
    for name in (SHOP, SMALL_SHOP):
        guest.write(
            f"/etc/systemd/system/{name}.service",
            "[Service]\nType=oneshot\nUser=shop\n"
            f"Environment=PYTHONPATH={GUEST}\n"
            f"ExecStart=/opt/event-publisher/bin/python -m tests.machine.guest.filler {name}\n"
            f"StandardOutput=file:/run/{name}.out\n",
        )


def _ask_doctor(guest: Guest, facts: Facts) -> None:
    """Have the doctor advise how much memory a service needs."""
    stat = _queue(guest)
    facts.queue = stat["capacity"], stat["max_event_size"]
    # For the POSIX queue, the guide says, the line with the spool is removed from the drop-in.
    for name in (SHOP, SMALL_SHOP):
        folder = f"/etc/systemd/system/{name}.service.d"
        guest.shell(
            f"mkdir -p {folder}; sed '/EVENT_SPOOL_DIRECTORY/d' "
            f"{PROJECT}/deploy/systemd/service-drop-in.conf > {folder}/events.conf"
        )
    _limit(guest, SMALL_SHOP, SMALL_MEMORY)
    facts.doctor_small = _memory_check(guest, SMALL_SHOP)
    facts.advised = facts.doctor_small["fields"]["advised"]
    _limit(guest, SHOP, facts.advised)
    facts.doctor_advised = _memory_check(guest, SHOP)


def _limit(guest: Guest, name: str, memory: int) -> None:
    guest.write(f"/etc/systemd/system/{name}.service.d/memory.conf", f"[Service]\nMemoryMax={memory}\n")
    guest.run("systemctl", "daemon-reload")


def _memory_check(guest: Guest, name: str) -> dict[str, Any]:
    """Return what the doctor says of the memory of a service, run as docs/operations.md says."""
    report = guest.shell(
        "systemd-run --quiet --pipe --wait --collect "
        '--slice="$(systemctl show --value --property=Slice "$1")" '
        '--property=MemoryMax="$(systemctl show --value --property=MemoryMax "$1")" '
        "/opt/event-publisher/bin/python -m baseplate_events doctor --queue-name v2 --json || true",
        name,
    )
    return next(check for check in json.loads(report)["checks"] if check["name"] == "memory limit")


def _queue(guest: Guest) -> dict[str, Any]:
    """Return what `queue stat` says of the queue."""
    said = guest.run(
        "/opt/event-publisher/bin/python", "-m", "baseplate_events", "queue", "stat", "/events-v2", "--json"
    )
    stat: dict[str, Any] = json.loads(said)
    return stat


def _fill(guest: Guest, facts: Facts) -> None:
    """Have the service fill spool and queue while the collector is down."""
    configure(guest, _CLOSED, spool__max_size=str(_SPOOL), collector__version="2j")
    guest.run("systemctl", "restart", UNIT)
    began = time.monotonic()
    guest.run("systemctl", "start", SHOP, check=False, timeout=_LONG)
    facts.shop_result = guest.show(SHOP, "Result")
    queue = guest.run("stat", "--format=%U %G %a", "/dev/mqueue/events-v2")
    facts.owner = queue.strip(), f"{guest.show(SHOP, 'User')} {guest.show(SHOP, 'SupplementaryGroups')}"
    said = guest.run("cat", f"/run/{SHOP}.out").strip()
    facts.filled = {**json.loads(said or "{}"), "seconds": round(time.monotonic() - began)}


def _stop_and_starve(guest: Guest, facts: Facts) -> None:
    """Have the watchdog restart the publisher while the queue is full, and stop it then."""
    before = _restarts(guest)
    guest.run("systemctl", "kill", "--signal=SIGSTOP", UNIT)
    guest.wait(
        "the watchdog restarts it",
        lambda: _restarts(guest) > before and guest.show(UNIT, "ActiveState") == "active",
    )
    facts.restarts = _restarts(guest)
    facts.watchdog = "watchdog" in guest.run("journalctl", "--no-pager", f"--unit={UNIT}").lower()
    guest.run("systemctl", "stop", UNIT)
    facts.stop_result = guest.show(UNIT, "Result")
    facts.depth_after_stop = _queue(guest)["depth"]
    guest.run("systemctl", "start", UNIT)


def _restarts(guest: Guest) -> int:
    return int(guest.show(UNIT, "NRestarts"))


def _deliver(guest: Guest, facts: Facts, port: int, arrivals: Arrivals) -> None:
    """Write the address of the collector into the configuration, and reload it: everything is delivered."""
    before = guest.show(UNIT, "MainPID")
    configure(guest, port, spool__max_size=str(_SPOOL), collector__version="2j")
    began = time.monotonic()
    guest.run("systemctl", "reload", UNIT)
    wanted = int(facts.filled.get("put", 0))
    guest.wait("all events arrive", lambda: len(arrivals.numbers) >= wanted, patience=_LONG)
    facts.seconds_to_deliver = round(time.monotonic() - began)
    facts.pids = before, guest.show(UNIT, "MainPID")
    status = guest.run("cat", f"/proc/{facts.pids[1]}/status")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None, status
    facts.publisher_peak = int(peak[1]) * 1024


def _kill_for_memory(guest: Guest, facts: Facts) -> None:
    """Have a service fill the queue whose memory is too small for that, while there is no publisher."""
    guest.run("systemctl", "stop", UNIT)
    guest.shell(
        f"sed -i '/event-publisher/d' /etc/systemd/system/{SMALL_SHOP}.service.d/events.conf; "
        "systemctl daemon-reload"
    )
    guest.run("systemctl", "start", SMALL_SHOP, check=False, timeout=_LONG)
    facts.small_result = guest.show(SMALL_SHOP, "Result")


def main() -> None:
    """Print what was seen."""
    with built() as image:
        _print(try_full_size(image, _print))


def _print(facts: Facts) -> None:
    print(json.dumps({**asdict(facts), "guide": len(facts.guide)}, indent=2), flush=True)


if __name__ == "__main__":
    main()
