"""One power cut: a machine under load, the cut, and what arrives after the next boot."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from baseplate_events.dev_collector import DevCollector, RejectedBatch
from tests.machine.cuts.oracle import Outcome, broken_promises, compare, parse_reports, parse_syncs
from tests.machine.cuts.plan import Kind, Way
from tests.machine.guest.numbered import MAX_EVENT_SIZE
from tests.machine.prepared import DISK_SIZE, HOST, KEYS, PYTHON, SPOOLS, configure, powered, restored
from tests.machine.volatile_disk import VolatileDisk
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

    from baseplate_events.dev_collector import AcceptedBatch
    from tests.machine.agent import Guest
    from tests.machine.cuts.oracle import Period
    from tests.machine.cuts.plan import Cut
    from tests.machine.nbd import NbdServer
    from tests.machine.prepared import Prepared
    from tests.machine.qemu import Machine
    from tests.machine.volatile_disk import Loss

_UNIT: Final = "event-publisher@v2"

#: Events that the POSIX queue holds.
DEPTH: Final = 100

#: Seconds that the moment of a cut is waited for; then the power is cut without it.
_MOMENT_PATIENCE: Final = 20.0

#: Most seconds from the restart of a publisher until the moment is looked for.
_RESTART: Final = 3.0

#: Kills a process, and waits until systemd has restarted the unit.
_KILL: Final = """
kill -9 "$1" && cut -d " " -f 1 /proc/uptime && echo killed
until [ "$(systemctl show --value --property=NRestarts "$2")" -gt 0 ] && systemctl is-active --quiet "$2"; do
    sleep 0.1
done
cut -d " " -f 1 /proc/uptime
echo restarted
"""

#: Writes down when processes named `python` wait for the disk, by the clock that the service reports.
_TRACE: Final = """
cd /sys/kernel/tracing
mountpoint -q . || { mount -t tracefs tracefs . && cd /sys/kernel/tracing; }
echo mono > trace_clock
for call in fsync fdatasync; do
    for end in enter exit; do
        echo 'comm ~ "python*"' > "events/syscalls/sys_${end}_$call/filter"
        echo 1 > "events/syscalls/sys_${end}_$call/enable"
    done
done
echo traced
exec cat trace_pipe
"""

#: Seconds until a spool is delivered.
_DELIVERY: Final = 300.0

#: Has the system write back at once.
_WRITE_BACK: Final = (
    "echo 50 > /proc/sys/vm/dirty_expire_centisecs; echo 20 > /proc/sys/vm/dirty_writeback_centisecs"
)


@dataclass(frozen=True)
class Result:
    """What came of a cut, and what it met.

    Attributes:
        outcome: What arrived.
        moment_came: Whether the power was cut at the moment of the plan; otherwise no such moment came.
        loss: What the disk lost.
        writes: Requests to the disk that wrote, before the cut.
        flushes: Requests to the disk that flushed, before the cut.
        log: Warnings and errors of the publisher after the next boot.
        failures: What is wrong; empty if the publisher kept all promises.
        seconds: How long it took.
    """

    outcome: Outcome
    moment_came: bool
    loss: Loss
    writes: int
    flushes: int
    log: list[str]
    failures: list[str]
    seconds: float


@dataclass
class Collector:
    """Takes the events of a cut.

    Attributes:
        up: Whether it takes any.
        events: What it took.
        refused: Requests that it refused though it was up.
    """

    up: bool
    events: list[bytes] = field(default_factory=list[bytes])
    refused: list[str] = field(default_factory=list[str])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, batch: AcceptedBatch) -> RejectedBatch | None:
        """Take a batch; called by its server."""
        with self._lock:
            if not self.up:
                return RejectedBatch(503, "down")
            self.events.extend(batch.events)
        return None

    def note(self, rejected: RejectedBatch) -> None:
        """Note a refusal; called by its server."""
        if rejected.status != 503:
            self.refused.append(f"{rejected.status}: {rejected.reason}")


class Reports:
    """What the service of a machine reports, and when its clock and that of this host were read."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._text = ""
        self._offset = float("inf")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where a service reports."""
        return int(self._server.getsockname()[1])

    @property
    def text(self) -> str:
        """All that was reported."""
        return self._text

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._server.accept()
            with connection:
                while data := connection.recv(65_536):
                    now = time.monotonic()
                    self._text += data.decode()
                    last = parse_reports(self._text[-200:].partition("\n")[2])
                    if last:
                        self._offset = min(self._offset, now - last[-1].at)

    def clock(self, now: float) -> float:
        """Return what the machine's clock showed at a time of this host's."""
        return now - self._offset

    def close(self) -> None:
        """Wait for the last report of a machine that has ended."""
        self._thread.join(30)
        self._server.close()


@dataclass(frozen=True)
class Setting:
    """A disk and a collector, for one machine after another.

    Attributes:
        port: Where the collector listens.
        server: Serves the disk.
    """

    port: int
    server: NbdServer
    _prepared: Prepared
    _disk: VolatileDisk
    _drive: str
    _collector: Collector

    @contextlib.contextmanager
    def machine(self) -> Generator[Machine]:
        """Restore a machine that has the disk; one at a time."""
        with restored(self._prepared, self._drive) as machine:
            yield machine

    def lose_cache(self, chance: random.Random, keep: float) -> Loss:
        """Have the disk lose its cache after a machine has ended, as `VolatileDisk.cut` does.

        From then on there is power, and the collector is up.
        """
        loss = self._disk.cut(chance, keep)
        self._collector.up = True
        self.server.restore()
        return loss


@contextlib.contextmanager
def set_up(prepared: Prepared, collector: Collector) -> Generator[Setting]:
    """Make a new disk, and have the collector listen."""
    with (
        contextlib.closing(VolatileDisk(prepared.disk, DISK_SIZE)) as disk,
        powered(disk) as (server, drive),
        DevCollector(KEYS, collector.take, on_rejected=collector.note) as listening,
    ):
        yield Setting(listening.address[1], server, prepared, disk, drive, collector)


def make_cut(cut: Cut, prepared: Prepared) -> Result:
    """Make a power cut, and return what came of it.

    Raises:
        MachineError, AssertionError, TimeoutError: The machine doesn't do what it should, before the cut.
    """
    began = time.monotonic()
    collector = Collector(cut.collector_up)
    with set_up(prepared, collector) as setting:
        with setting.machine() as machine, contextlib.closing(Reports()) as reports:
            guest = machine.guest
            trace = guest.start("sh", "-euc", _TRACE)
            trace.wait_for("traced")
            load(guest, cut, setting.port, reports)
            moment_came, absences = _cut_power(guest, cut, setting.server)
            cut_at = reports.clock(time.monotonic())
            machine.kill()
        writes, flushes = setting.server.writes, setting.server.flushes
        loss = setting.lose_cache(random.Random(f"{cut.series} {cut.keep}"), cut.keep)
        with setting.machine() as machine:
            log, failures = deliver(machine.guest, cut, setting.port)
    excused = [*absences, *parse_syncs(trace.rest())]
    outcome = compare(cut.series, parse_reports(reports.text), cut_at, collector.events, excused)
    failures += [*broken_promises(cut, outcome), *(f"refused: {why}" for why in collector.refused)]
    return Result(
        outcome, moment_came, loss, writes, flushes, log, failures, round(time.monotonic() - began, 1)
    )


def start_publisher(guest: Guest, cut: Cut, port: int) -> None:
    """Configure the publisher as a cut says, and start it."""
    configure(
        guest,
        port,
        max_queue_size=str(DEPTH),
        max_event_size=str(MAX_EVENT_SIZE),
        retry__cap="1 second",
        spool__fsync=cut.fsync,
    )
    guest.run("systemctl", "start", _UNIT)


def producer(cut: Cut, reports: Reports) -> tuple[str, ...]:
    """Return the command of a service that puts the events of a cut, and reports them."""
    depth = DEPTH if cut.way is Way.RELAY else 0
    arguments = ("v2", cut.series, f"{HOST}:{reports.port}", str(cut.rate), str(depth))
    return *PYTHON, "tests.machine.guest.producer", *arguments


def load(guest: Guest, cut: Cut, port: int, reports: Reports) -> None:
    """Start a publisher, and a service that puts events; return when it has reported the first of them."""
    if not cut.stock_writeback:
        guest.shell(_WRITE_BACK)
    start_publisher(guest, cut, port)
    spool = () if cut.way is Way.RELAY else ("env", f"EVENT_SPOOL_DIRECTORY={SPOOLS}")
    user = ("setpriv", "--reuid=shop", "--regid=shop", "--groups=events")
    job = guest.start(*user, *spool, *producer(cut, reports))
    wait_until(lambda: "\n" in reports.text, lambda: f"the service reports nothing: {job.said}", patience=60)


def _cut_power(guest: Guest, cut: Cut, server: NbdServer) -> tuple[bool, list[Period]]:
    """Cut the power at the moment of the plan.

    Returns:
        Whether the moment came; and when no publisher ran, by the machine's clock.
    """
    absences: list[Period] = []
    pid = guest.show(_UNIT, "MainPID")
    server.wait_for_cut(cut.load)
    if cut.kind in {Kind.KILL, Kind.RESTART}:
        job = guest.start("sh", "-euc", _KILL, "sh", pid, _UNIT)
        job.wait_for("killed")
        if cut.kind is Kind.RESTART:
            job.wait_for("restarted")
            server.wait_for_cut(random.Random(cut.series).uniform(0, _RESTART))
        times = [float(word) for word in job.said.split() if word not in {"killed", "restarted"}]
        absences.append((times[0], times[1] if cut.kind is Kind.RESTART else math.inf))
    came = True
    if cut.kind.moment is not None:
        server.arm(cut.kind.moment, cut.count)
        came = server.wait_for_cut(_MOMENT_PATIENCE)
    server.cut()
    return came, absences


def deliver(guest: Guest, cut: Cut, port: int) -> tuple[list[str], list[str]]:
    """Start the publisher after a cut, and wait until all is delivered.

    Returns:
        Warnings and errors of its log; and what is wrong.
    """
    failures: list[str] = []
    try:
        start_publisher(guest, cut, port)
    except AssertionError as exc:
        failures.append(f"the publisher does not start: {exc}")
    segments = f"ls {SPOOLS}/events-v2 | grep segment"
    left: list[str] = []

    def delivered() -> bool:
        left[:] = guest.shell(f"{segments} || true").split()
        return not left

    try:
        wait_until(delivered, "events are left", patience=_DELIVERY, interval=0.3)
    except TimeoutError:
        listing = guest.shell(f"ls -la {SPOOLS}/events-v2")
        failures.append(f"not delivered: {listing}")
    if guest.show(_UNIT, "NRestarts") != "0":
        failures.append("the publisher ended")
    journal = guest.shell(f"journalctl --no-pager --output=cat --unit={_UNIT}").splitlines()
    log = [line for line in journal if " WARNING " in line or " ERROR " in line or "Traceback" in line]
    return log, failures
