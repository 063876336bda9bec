"""The units: as systemd's own tools see them, and tried under a real systemd."""

from __future__ import annotations

import base64
import itertools
import re
import signal
from typing import TYPE_CHECKING, Final

import pytest

from tests.deploy.guide import guide
from tests.deploy.systems import DEPLOY, PROJECT
from tests.support.publishers import KEY_NAME, MAX_MESSAGE_SIZE, MAX_MESSAGES, SECRET, config_text

if TYPE_CHECKING:
    from tests.deploy.systems import System

DROP_IN: Final = DEPLOY / "systemd" / "service-drop-in.conf"

GUIDE: Final = guide("On a Debian host with systemd")

#: Of 10. The rest is the network, which the publisher needs, and what the unit's comments leave out.
HIGHEST_EXPOSURE: Final = 1.5

#: The collector of the system, whose loopback is its own.
COLLECTOR: Final = "127.0.0.1:8080"
ARRIVED: Final = "/run/arrived.jsonl"

SHOP: Final = f"""
import sys
from baseplate_events import EventQueue, serialize_v2j_event
name, *events = sys.argv[1:]
with EventQueue(name, serialize_v2j_event, mode=0o660, put_timeout=30,
                max_queue_size={MAX_MESSAGES}, max_event_size={MAX_MESSAGE_SIZE}) as queue:
    for event in events:
        queue.put({{"id": event}})
"""

#: The directory that `deploy/tmpfiles` makes.
SPOOLS: Final = "/var/spool/events"

ENVIRONMENT: Final = f"Environment=EVENT_SPOOL_DIRECTORY={SPOOLS}\n"

_numbers = itertools.count()


class Host:
    """A system prepared as docs/operations.md says, with a collector.

    Attributes:
        output: Output of the commands that prepared it.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.output = ""

    def prepare(self) -> None:
        """Run all commands of docs/operations.md, in their order."""
        for block in GUIDE:
            self.output += self.paste(block)
        self.system.run("systemd-sysusers", "--inline", "u shop -")
        self.system.write("/opt/shop.py", SHOP)

    def paste(self, block: str) -> str:
        """Run commands in a shell of a strict root, and return their output; each has to succeed."""
        online = re.search(r"apt-get|\bpip\b", block) is not None
        return self.system.run("bash", "--login", "-euc", f"umask 077\ncd {PROJECT}\n{block}", online=online)

    def collect(self, *, key: bytes = SECRET) -> None:
        """Start the collector, which accepts batches signed with this key."""
        secret = base64.b64encode(key).decode()
        self.system.run(
            *("systemd-run", "--unit=collector", "--collect", "/opt/event-publisher/bin/python", "-m"),
            *("baseplate_events", "collect", "--bind", COLLECTOR, "--key", f"{KEY_NAME}={secret}"),
            *("--output", ARRIVED),
        )

    def stop_collecting(self) -> None:
        """Stop the collector, if there is one."""
        self.system.run("systemctl", "stop", "collector", check=False)

    def configure(self, **overrides: str) -> str:
        """Write the configuration of a new instance, and return its name."""
        name = f"q{next(_numbers)}"
        defaults = {
            "queue__mode": "0660",
            "spool__directory": SPOOLS,
            "shutdown__grace": "100 milliseconds",
        }
        text = config_text(name, f"http://{COLLECTOR}", **{**defaults, **overrides})
        self.system.write(f"/etc/event-publisher/{name}.ini", text, owner="event-publisher", mode="0400")
        return name

    def service(self, name: str, *events: str, spool: bool = True) -> str:
        """Make a service with the drop-in of `deploy/` that puts these events, and return its unit.

        Args:
            name: Of the queue.
            events: Their ids.
            spool: Whether they go into the spool; otherwise the line for it is omitted.
        """
        unit = f"shop-{name}.service"
        command = f"/opt/event-publisher/bin/python /opt/shop.py {name} {' '.join(events)}"
        self.system.write(
            f"/etc/systemd/system/{unit}", f"[Service]\nType=oneshot\nUser=shop\nExecStart={command}\n"
        )
        drop_in = DROP_IN.read_text().replace("@v2", f"@{name}")
        assert ENVIRONMENT in drop_in
        if not spool:
            drop_in = drop_in.replace(ENVIRONMENT, "")
        self.system.write(f"/etc/systemd/system/{unit}.d/events.conf", drop_in)
        self.system.run("systemctl", "daemon-reload")
        return unit

    def put(self, name: str, *events: str, spool: bool = True) -> None:
        """Put events as a service would."""
        self.system.run("systemctl", "start", self.service(name, *events, spool=spool))

    def wait_for_restarts(self, unit: str, count: int) -> None:
        """Wait until a unit is up after this many restarts."""
        self.system.wait(
            f"restart {count}",
            lambda: (
                (self.system.show(unit, "NRestarts"), self.system.show(unit, "ActiveState"))
                == (str(count), "active")
            ),
        )

    def arrived(self, name: str) -> list[str]:
        """Return the ids of an instance's events, in the order of arrival."""
        return re.findall(rf'"id": ?"({name}-[^"]+)"', self.system.read(ARRIVED))


@pytest.fixture(scope="module")
def prepared(system: System) -> Host:
    """The host, prepared once."""
    host = Host(system)
    host.prepare()
    return host


@pytest.fixture
def host(prepared: Host) -> Host:
    """The host, with no collector."""
    prepared.stop_collecting()
    return prepared


def test_apt_get_has_a_block_to_itself() -> None:
    """No command is pasted after apt-get, which reads the terminal while it installs and would take it."""
    assert 1 == sum("apt-get" in block and block.count("\n") == 1 for block in GUIDE)


def test_the_guide_works(host: Host) -> None:
    """The commands of the guide run on a bare Debian without an error, and the test event arrives."""
    assert '{"1":{"str":"a test"}}\n' in host.output
    assert "Active: active (running)" in host.output
    assert re.search("(?m)^ok +collector connection ", host.output) is not None, host.output
    assert "removed /events-v2\n" in host.output


def test_it_starts_with_the_system(host: Host) -> None:
    """The publisher is started at each boot."""
    host.system.run("systemctl", "stop", "event-publisher@v2")
    host.system.run("systemctl", "start", "multi-user.target")
    assert "active" == host.system.show("event-publisher@v2", "ActiveState")


def test_systemd_understands_every_line(host: Host) -> None:
    """The unit and the drop-in of a service have no mistake that systemd finds."""
    units = host.service("v2"), "event-publisher@v2.service"
    assert "" == host.system.run("systemd-analyze", "verify", "--man=no", *units)


def test_the_unit_is_locked_down(host: Host) -> None:
    """The exposure level of systemd-analyze stays low."""
    unit = "/etc/systemd/system/event-publisher@.service"
    report = host.system.run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    level = re.search(r"Overall exposure level for .*: ([0-9.]+)", report)
    assert level is not None, report
    assert float(level[1]) <= HIGHEST_EXPOSURE, report


def test_limits_are_lifted(host: Host) -> None:
    """The sysctl file allows queues of full size."""
    assert "10000\n" == host.system.read("/proc/sys/fs/mqueue/msg_max")
    assert "102400\n" == host.system.read("/proc/sys/fs/mqueue/msgsize_max")


@pytest.mark.parametrize("spool", [True, False], ids=["spool", "posix"])
def test_events_are_delivered(host: Host, spool: bool) -> None:
    """A service of another user starts the publisher and puts events; they arrive, and a stop is clean."""
    name = host.configure()
    host.collect()
    events = [f"{name}-{number}" for number in range(30)]
    host.put(name, *events, spool=spool)
    host.system.wait("all events arrive", lambda: host.arrived(name) == events)
    unit = f"event-publisher@{name}"
    assert "active" == host.system.show(unit, "ActiveState")
    assert "" != host.system.show(unit, "StatusText")
    host.system.run("systemctl", "stop", unit)
    assert "success" == host.system.show(unit, "Result")


def test_a_service_may_come_first(host: Host) -> None:
    """A service that puts events while there is no publisher creates the spool; the publisher can read it."""
    name = host.configure()
    user = ("--uid=shop", "--property=SupplementaryGroups=events", f"--setenv=EVENT_SPOOL_DIRECTORY={SPOOLS}")
    command = ("/opt/event-publisher/bin/python", "/opt/shop.py", name, f"{name}-1", f"{name}-2")
    host.system.run("systemd-run", "--wait", "--collect", *user, *command)
    made = host.system.run("stat", "--format=%U:%G %a", f"{SPOOLS}/events-{name}")
    assert "shop:events 2770\n" == made
    host.collect()
    host.system.run("systemctl", "start", f"event-publisher@{name}")
    host.system.wait("both arrive", lambda: host.arrived(name) == [f"{name}-1", f"{name}-2"])


def test_started_means_that_spool_and_queue_are_there(host: Host) -> None:
    """When the unit has started, both exist, accessible to the group and to no other user."""
    name = host.configure()
    host.system.run("systemctl", "start", f"event-publisher@{name}")
    made = (f"{SPOOLS}/events-{name}", f"/dev/mqueue/events-{name}")
    expected = "event-publisher:events 2770\nevent-publisher:events 660\n"
    assert expected == host.system.run("stat", "--format=%U:%G %a", *made)


def test_folders_are_its_own(host: Host) -> None:
    """The publisher's own folders belong to it alone; the directory of the spools belongs to the group."""
    name = host.configure()
    host.system.run("systemctl", "start", f"event-publisher@{name}")
    for folder in (f"/var/lib/event-publisher/{name}", f"/run/event-publisher/{name}"):
        assert "event-publisher:events 700\n" == host.system.run("stat", "--format=%U:%G %a", folder)
    assert "root:events 2770\n" == host.system.run("stat", "--format=%U:%G %a", SPOOLS)


def test_the_spool_is_made_again(host: Host) -> None:
    """If someone deletes the folder of a spool, service and publisher go on in a new one."""
    name = host.configure()
    host.collect()
    host.put(name, f"{name}-1")
    host.system.wait("the first arrives", lambda: host.arrived(name) == [f"{name}-1"])
    # The publisher may just make a file in it.
    delete = 'mv "$1" "$1.deleted"; until rm -rf "$1.deleted"; do :; done'
    host.system.run("sh", "-euc", delete, "sh", f"{SPOOLS}/events-{name}")
    host.put(name, f"{name}-2")
    host.system.wait("the second arrives", lambda: host.arrived(name) == [f"{name}-1", f"{name}-2"])


def test_a_stop_leaves_nothing_behind(host: Host) -> None:
    """With the collector down, a stop leaves the events in the spool; the next start delivers them."""
    name = host.configure()
    unit = f"event-publisher@{name}"
    events = [f"{name}-{number}" for number in range(20)]
    host.put(name, *events)
    host.system.run("systemctl", "stop", unit)
    assert [] == host.arrived(name)
    host.collect()
    host.system.run("systemctl", "start", unit)
    host.system.wait("all events arrive", lambda: sorted(host.arrived(name)) == sorted(events))


def test_it_is_started_again(host: Host) -> None:
    """A publisher that was killed is started again, any number of times, and continues."""
    name = host.configure()
    unit = f"event-publisher@{name}"
    host.system.write(f"/run/systemd/system/{unit}.service.d/fast.conf", "[Service]\nRestartSec=0\n")
    host.system.run("systemctl", "daemon-reload")
    host.system.run("systemctl", "start", unit)
    for count in range(1, 8):  # more often than systemd's own limit of starts, which is 5 in 10 seconds
        host.system.run("systemctl", "kill", "--signal=SIGKILL", unit)
        host.wait_for_restarts(unit, count)
    host.collect()
    host.put(name, f"{name}-after")
    host.system.wait("the event arrives", lambda: host.arrived(name) == [f"{name}-after"])


def test_a_stuck_publisher_is_replaced(host: Host) -> None:
    """A publisher that doesn't answer is killed by the watchdog and started again."""
    name = host.configure()
    unit = f"event-publisher@{name}"
    host.system.write(
        f"/run/systemd/system/{unit}.service.d/fast.conf", "[Service]\nRestartSec=0\nWatchdogSec=2s\n"
    )
    host.system.run("systemctl", "daemon-reload")
    host.system.run("systemctl", "start", unit)
    host.system.run("systemctl", "kill", f"--signal={signal.SIGSTOP.name}", unit)
    host.wait_for_restarts(unit, 1)
    assert "watchdog" in host.system.run("journalctl", "--no-pager", f"--unit={unit}").lower()


def test_a_mistake_ends_it(host: Host) -> None:
    """A publisher with a mistake in its configuration isn't restarted; the journal says what is wrong."""
    name = host.configure(collector__version="9")
    unit = f"event-publisher@{name}"
    host.system.run("systemctl", "start", unit, check=False)
    host.system.wait("it gives up", lambda: host.system.show(unit, "ActiveState") == "failed")
    assert ("2", "0") == (host.system.show(unit, "ExecMainStatus"), host.system.show(unit, "NRestarts"))
    assert "collector.version" in host.system.run("journalctl", "--no-pager", f"--unit={unit}")


def test_a_key_is_rotated_by_a_reload(host: Host) -> None:
    """Events that are refused for their key arrive once the file has the new one, without a restart."""
    name = host.configure()
    unit = f"event-publisher@{name}"
    host.collect(key=b"another secret")
    host.put(name, f"{name}-1")
    pid = host.system.show(unit, "MainPID")
    text = host.system.read(f"/etc/event-publisher/{name}.ini")
    fresh = re.sub("(?m)^key.secret = .*$", "key.secret = YW5vdGhlciBzZWNyZXQ=", text)
    host.system.write(f"/etc/event-publisher/{name}.ini", fresh, owner="event-publisher", mode="0400")
    host.system.wait(
        "it is refused", lambda: "401" in host.system.run("journalctl", "--no-pager", f"--unit={unit}")
    )
    host.system.run("systemctl", "reload", unit)
    host.system.wait("the event arrives", lambda: host.arrived(name) == [f"{name}-1"])
    assert pid == host.system.show(unit, "MainPID")


def test_a_secret_of_the_environment(host: Host) -> None:
    """The secret may be a variable of the file beside the configuration, which only root can read."""
    name = host.configure(key__secret="$EVENT_KEY_SECRET")
    host.system.write(
        f"/etc/event-publisher/{name}.env",
        f"EVENT_KEY_SECRET={base64.b64encode(SECRET).decode()}\n",
        mode="0600",
    )
    host.collect()
    host.put(name, f"{name}-1")
    host.system.wait("the event arrives", lambda: host.arrived(name) == [f"{name}-1"])
