"""What the files of `deploy/` say agrees with the package, with each other and with the documentation."""

from __future__ import annotations

import argparse
import re
import shlex
import textwrap
from pathlib import Path
from typing import Final

import pytest

from baseplate_events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE
from baseplate_events.cli.doctor.memory import PROCESS_MEMORY, message_memory
from baseplate_events.event_publisher.__main__ import add_arguments, main
from baseplate_events.event_publisher.config.options import OPTION_BY_NAME, SPOOL_VARIABLE
from baseplate_events.event_publisher.config.values import parse_mode, parse_span
from baseplate_events.event_publisher.exit_status import EXIT_USAGE
from baseplate_events.transport.limits import QueueSize

TOP: Final = Path(__file__).parents[2]
DEPLOY: Final = TOP / "deploy"
UNIT: Final = DEPLOY / "systemd" / "event-publisher@.service"
DROP_IN: Final = DEPLOY / "systemd" / "service-drop-in.conf"
SYSCTLS: Final = DEPLOY / "sysctl" / "60-event-queues.conf"
CONTAINER: Final = DEPLOY / "container" / "Dockerfile"
POD: Final = DEPLOY / "kubernetes" / "pod.yaml"
TMPFILES: Final = DEPLOY / "tmpfiles" / "event-spool.conf"
GUIDE: Final = TOP / "docs" / "operations.md"
DOCUMENTS: Final = (TOP / "README.md", *sorted((TOP / "docs").glob("*.md")))

#: The directory of the spools, on hosts and in containers.
SPOOLS: Final = "/var/spool/events"

#: What a service asks for that doesn't say otherwise.
FULL: Final = QueueSize(MAX_QUEUE_SIZE, MAX_EVENT_SIZE)

#: Seconds by which a publisher may end later than `shutdown.grace`: to put back the events in memory.
_TO_PUT_BACK: Final = 10.0

#: Seconds that a disk may keep a publisher waiting that isn't stuck.
_SLOW_DISK: Final = 30

_SECONDS: Final = {"s": 1, "min": 60}


def settings_of(path: Path) -> dict[str, list[str]]:
    """Return the settings of a unit or drop-in, each with its values in their order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", path.read_text()):
        found.setdefault(name, []).append(value)
    return found


def seconds(text: str) -> int:
    """Read a time of a unit."""
    match = re.fullmatch(r"(\d+)(s|min)", text)
    assert match is not None, text
    return int(match[1]) * _SECONDS[match[2]]


def test_the_unit_has_room_for_queues_of_full_size() -> None:
    """LimitMSGQUEUE has room for four queues of full size in the unit, and for one in a service's drop-in."""
    (limit,) = settings_of(UNIT)["LimitMSGQUEUE"]
    assert (4, 0) == divmod(int(limit), FULL.bytes_charged)
    assert [str(FULL.bytes_charged)] == settings_of(DROP_IN)["LimitMSGQUEUE"]


def full_queue(size: QueueSize) -> int:
    """Return the bytes of memory that a full queue takes at most."""
    return size.max_messages * message_memory(size.max_message_size)


def test_memory_limits_have_room_for_a_full_queue() -> None:
    """Who puts events onto a POSIX queue is charged for them: a full one fits into every limit of a unit."""
    for path in (UNIT, DROP_IN):
        for name in ("MemoryMax", "MemoryHigh"):
            for limit in settings_of(path).get(name, []):
                assert int(limit) >= full_queue(FULL) + PROCESS_MEMORY
    assert [str(full_queue(FULL))] == re.findall(r"EventQueueFullError: (\d+)\n", DROP_IN.read_text())
    text = " ".join(GUIDE.read_text().split())
    assert f"a queue of the default size takes up to {full_queue(FULL):,} bytes" in text


def test_the_publisher_of_the_pod_has_the_memory_that_it_needs() -> None:
    """By the formula of the guide, with the settings of the pod, which are the defaults."""
    pod = POD.read_text()
    assert "batch.max_size" not in pod
    assert "delivery.concurrency" not in pod
    batch, senders = (
        int(str(OPTION_BY_NAME[name].default)) for name in ("batch.max_size", "delivery.concurrency")
    )
    (limit,) = re.findall(r"(?s)- name: event-publisher\n +image:.*?limits:\n +memory: (\d+)Mi", pod)
    formula = "<= 40 MiB + 1 MiB * delivery.concurrency + 2.5 * batch.max_size * (delivery.concurrency + 2)"
    assert formula in " ".join(GUIDE.read_text().split())
    assert int(limit) * 2**20 >= (40 + senders) * 2**20 + 2.5 * batch * (senders + 2)


def test_the_sysctls_allow_queues_of_full_size() -> None:
    """Both bounds are what a queue of full size needs, and nothing else is set."""
    expected = [("fs.mqueue.msg_max", str(MAX_QUEUE_SIZE)), ("fs.mqueue.msgsize_max", str(MAX_EVENT_SIZE))]
    assert expected == re.findall(r"(?m)^([^#\s]\S*) = (\S+)$", SYSCTLS.read_text())


@pytest.mark.parametrize("path", [TOP / "README.md", GUIDE], ids=lambda path: path.name)
def test_the_documentation_has_the_same_limits(path: Path) -> None:
    """Each command that lifts a limit in the documentation lifts it to that of a queue of full size."""
    text = path.read_text()
    assert {str(MAX_QUEUE_SIZE)} == set(re.findall(r"fs\.mqueue\.msg_max=(\d+)", text))
    assert {str(MAX_EVENT_SIZE)} == set(re.findall(r"fs\.mqueue\.msgsize_max=(\d+)", text))
    limits = re.findall(r"(?:ulimit -q |LimitMSGQUEUE=|msgqueue=)(\d+)", text)
    assert limits
    assert [] == [limit for limit in limits if int(limit) % FULL.bytes_charged]


def test_the_unit_shares_the_queues_of_the_host() -> None:
    """Nothing in the units hides the host's queues or removes them."""
    for path in (UNIT, DROP_IN):
        said = settings_of(path)
        assert ["no"] == said["RemoveIPC"]
        for name in ("PrivateIPC", "PrivateUsers", "DynamicUser", "IPCNamespacePath"):
            assert said.get(name, ["no"]) == ["no"]


def test_the_unit_waits_for_a_stop() -> None:
    """A stop has the time for the grace that is the default, and to put back what is left."""
    grace = parse_span(str(OPTION_BY_NAME["shutdown.grace"].default), 0, 3_600)
    (timeout,) = settings_of(UNIT)["TimeoutStopSec"]
    assert seconds(timeout) >= grace + _TO_PUT_BACK


def test_the_unit_never_gives_up_but_for_a_mistake() -> None:
    """Every end but that for a mistake of the configuration is followed by another start."""
    said = settings_of(UNIT)
    assert (["always"], ["0"]) == (said["Restart"], said["StartLimitIntervalSec"])
    assert [str(EXIT_USAGE)] == said["RestartPreventExitStatus"]
    (watchdog,) = said["WatchdogSec"]
    assert seconds(watchdog) >= _SLOW_DISK


def test_commands_are_those_of_the_publisher() -> None:
    """The command lines of unit, container and pod are understood, and name the file after the queue."""
    (unit,) = settings_of(UNIT)["ExecStart"]
    words = shlex.split(unit)
    module = ["/opt/event-publisher/bin/python", "-m", "baseplate_events.event_publisher"]
    assert module == words[:3]
    container = CONTAINER.read_text()
    entry = re.search(r"(?m)^ENTRYPOINT \[(.*)\]$", container)
    default = re.search(r"(?m)^CMD \[(.*)\]$", container)
    pod = re.search(r"(?m)^ +args: \[(.*)\]$", POD.read_text())
    assert entry is not None
    assert default is not None
    assert pod is not None
    assert module == strings(entry[1])
    for arguments in (words[3:], strings(default[1]), strings(pod[1])):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        read = parser.parse_args(arguments)
        assert read.config_file == f"/etc/event-publisher/{read.queue_name}.ini"


def strings(text: str) -> list[str]:
    """Read what is between the brackets of a list of strings."""
    return re.findall(r'"([^"]*)"', text)


def test_the_image_runs_as_the_user_of_the_pod() -> None:
    """The image's user is a number, not root, and the one whose pod it is."""
    user = re.search(r"(?m)^USER (\d+):(\d+)$", CONTAINER.read_text())
    assert user is not None
    assert int(user[1]) > 0
    assert [user[1]] == re.findall(r"(?m)^ +runAsUser: (\d+)$", POD.read_text())
    assert [user[2]] == re.findall(r"(?m)^ +runAsGroup: (\d+)$", POD.read_text())


def test_the_image_is_pinned_to_a_python_that_is_tested() -> None:
    """Both stages have the same base, named by a tag of a Python version that the README promises."""
    bases = set(re.findall(r"(?m)^FROM (\S+)", CONTAINER.read_text()))
    assert 1 == len(bases)
    version = re.fullmatch(r"python:3\.(\d+)-slim-\w+", bases.pop())
    promised = re.search(r"Python 3\.(\d+) to 3\.(\d+)", (TOP / "README.md").read_text())
    assert version is not None
    assert promised is not None
    assert int(promised[1]) <= int(version[1]) <= int(promised[2])


def test_every_file_is_described() -> None:
    """The guide has every file of `deploy/`, and no other."""
    files = {str(path.relative_to(TOP)) for path in DEPLOY.rglob("*") if path.is_file()}
    named = set(re.findall(r"\bdeploy/[\w/@.-]*\w", GUIDE.read_text()))
    assert named == {name for name in files if not name.endswith(".dockerignore")}


def test_the_table_of_sizes_is_right() -> None:
    """Each row says how many events fit into the default limit: the most, and not one more."""
    rows = re.findall(r"(?m)^\| ([\d,]+) \| (\d+) \| (\d+) \| (\d+) \|$", GUIDE.read_text())
    assert len(rows) >= 5
    for size, *counts in rows:
        for queues, count in zip((1, 2, 4), map(int, counts), strict=True):
            room = 819_200 // queues
            charged = [QueueSize(n, int(size.replace(",", ""))).bytes_charged for n in (count, count + 1)]
            assert charged[0] <= room < charged[1]


def test_the_group_may_use_the_queue() -> None:
    """The unit's group is the one that a service's drop-in joins, and the guide opens the queue to it."""
    assert settings_of(UNIT)["Group"] == settings_of(DROP_IN)["SupplementaryGroups"] == ["events"]
    modes = re.findall(r"(?m)^queue\.mode = (\d+)$", GUIDE.read_text())
    assert [0o660] == [parse_mode(mode) for mode in modes]


def test_all_share_one_directory_of_spools() -> None:
    """What creates the directory, who may write to it, and who is configured with it: all name the same."""
    made = re.findall(r"(?m)^d (\S+) (\d+) (\w+) (\w+) -$", TMPFILES.read_text())
    assert [(SPOOLS, "2770", "root", *settings_of(UNIT)["Group"])] == made
    assert [f"-{SPOOLS}"] == settings_of(UNIT)["ReadWritePaths"]
    assert [SPOOLS] == settings_of(UNIT)["RequiresMountsFor"]
    assert [f"{SPOOL_VARIABLE}={SPOOLS}"] == settings_of(DROP_IN)["Environment"]
    assert [SPOOLS] == re.findall(rf"(?m)^ENV {SPOOL_VARIABLE}=(\S+)$", CONTAINER.read_text())
    made = re.findall(r"(?m)^RUN install -d -m 2770 -o 10001 -g 10001 (\S+)$", CONTAINER.read_text())
    assert [SPOOLS] == made
    for path in DOCUMENTS:
        text = path.read_text()
        assert set(re.findall(rf"{SPOOL_VARIABLE}=(/[\w/]+)", text)) <= {SPOOLS}
        assert set(re.findall(r"(?m)^spool\.directory = (\S+)$", text)) <= {SPOOLS}
        assert set(re.findall(r"--volume event-spool:(\S+)", text)) <= {SPOOLS}


def test_the_unit_may_make_a_directory_setgid() -> None:
    """A spool that a group shares needs that; RestrictSUIDSGID= forbids it."""
    assert "RestrictSUIDSGID" not in settings_of(UNIT)


def examples() -> list[str]:
    """Return all examples of a configuration in the documentation and in the pod's manifest."""
    texts = [path.read_text() for path in DOCUMENTS]
    blocks = [found for text in texts for found in re.findall(r"(?ms)^```ini\n(.*?)^```$", text)]
    pasted = [found for text in texts for found in re.findall(r"(?ms)<<'END'\n(\[.*?)^END$", text)]
    (mapped,) = re.findall(r"(?ms)^  v2\.ini: \|\n(.*?)^---$", POD.read_text())
    return [*blocks, *pasted, textwrap.dedent(mapped)]


@pytest.mark.parametrize("text", examples())
def test_every_example_of_a_configuration_is_good(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` finds nothing wrong with it."""
    monkeypatch.setenv("EVENT_KEY_SECRET", "c2VjcmV0")
    (name,) = re.findall(r"(?m)^\[event-publisher:(\w+)\]$", text)
    path = tmp_path / "config.ini"
    path.write_text(text.replace("Base64-encoded-blob-of-randomness", "c2VjcmV0"))
    assert main(["--check", "--queue-name", name, str(path)]) == 0
    assert " is valid" in capsys.readouterr().out
