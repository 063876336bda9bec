"""The command `doctor`: every problem that it can name, provoked for real, with what it says."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import fcntl
import gzip
import importlib
import json
import os
import platform
import pty
import re
import resource
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baseplate_events.cli.doctor.checks import (
    Verdict,
    expected_size,
    judge_certificate,
    judge_clock,
    judge_outcome,
    judge_queue_depth,
    judge_rlimit,
    judge_secret,
    judge_space,
    judge_sysctls,
    overall,
    problem,
)
from baseplate_events.cli.doctor.command import format_check
from baseplate_events.cli.doctor.host import check_queue
from baseplate_events.cli.doctor.metrics import check_metrics
from baseplate_events.cli.doctor.publisher import check_publisher
from baseplate_events.cli.doctor.timeouts import within
from baseplate_events.cli.queue.info import QueueInfo, inspect_queue, user_name
from baseplate_events.dev_collector import DevCollector
from baseplate_events.errors import EventQueueLimitError
from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.config.values import UnixEndpoint
from baseplate_events.event_publisher.dead_letters.store import DeadLetters
from baseplate_events.event_publisher.policy.outcome import Accepted, classify
from baseplate_events.event_publisher.policy.wire import Response, sign, signature_header
from baseplate_events.event_publisher.spool.spool import Spool
from baseplate_events.event_publisher.storage import Folder
from baseplate_events.transport.limits import HostLimits, QueueSize, read_limits
from baseplate_events.transport.posix import MessageQueue
from tests.support import strategies
from tests.support.commands import Result, call
from tests.support.doctors import (
    NOBODY,
    Table,
    configured,
    diagnose,
    doctor,
    doctor_in,
    folders_of,
    unprivileged,
)
from tests.support.fault_collector import (
    GARBAGE_STATUS_LINE,
    Behaviour,
    Drip,
    Drop,
    FaultCollector,
    Hang,
    Respond,
    redirect,
    stranger_tls,
    trusted_tls,
)
from tests.support.publishers import KEY_NAME, SECRET, publishing
from tests.support.queues import bytes_of_queues, drain, fresh_name, needs_root
from tests.support.sandbox import sandbox
from tests.support.spools import append_all, spool_on
from tests.support.strategies import host_limits, queue_sizes
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from baseplate_events.cli.doctor.checks import Check

#: Another secret than the one of the tests.
OTHER_SECRET = b"another secret of the tests"


def diagnose_reply(tmp_path: Path, behaviour: Behaviour, *words: str, **overrides: str) -> Table:
    """Run the doctor for a collector that does this."""
    with FaultCollector([behaviour]) as server:
        return diagnose(tmp_path, server.url, *words, **overrides)


# --- the whole ---


def test_all_is_well_with_a_collector_that_takes_the_probe(tmp_path: Path) -> None:
    """Where nothing is wrong nothing is said to be: status 0, no remedy, and each thing was looked at."""
    tls, authority = trusted_tls()
    (tmp_path / "ca.pem").write_bytes(authority)
    date = email.utils.formatdate(usegmt=True)
    with (
        FaultCollector([Respond(headers=(("Date", date),))], ssl_context=tls) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as statsd,
    ):
        statsd.bind(str(tmp_path / "statsd"))
        table = diagnose(
            tmp_path,
            server.url,
            collector__ca_file=str(tmp_path / "ca.pem"),
            max_queue_size="1",
            metrics__endpoint=str(tmp_path / "statsd"),
            spool__directory=str(tmp_path / "spool"),
            spool__max_size="1000000",
            dead_letters__max_size="100000",
        )
    assert (0, "ok") == (table.status, table.verdict), table.text
    assert table["publisher"][0] == "skipped"  # it can't be asked
    assert {check["verdict"] for check in table.checks if check["name"] != "publisher"} == {"ok"}
    assert {check["remedy"] for check in table.checks} == {None}
    names = {
        *("process", "posix_ipc", "thrift", "configuration", "environment", "key", "kernel limits"),
        *("RLIMIT_MSGQUEUE", "queue", "collector name", "collector connection", "collector TLS"),
        *("signed probe", "clock", "metrics", "spool folder", "spool space", "dead letters folder"),
        "publisher",
    }
    assert names == {check["name"] for check in table.checks}


def test_it_changes_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    """No queue, no folder, no file, no lock, no event: all is as before; the secret is nowhere."""
    spool = tmp_path / "spool"
    folder = Folder(str(spool))
    append_all(spool_on(folder), [b'{"a":1}'])
    folder.release()
    letters = DeadLetters(str(spool / "rejected"), max_size=10**6)
    letters.write(b'{"private":1}', status=400, reason="no")
    letters.close()
    # Without times: reading a folder may change when it was last read.
    before = {str(path): path.stat()[:7] for path in [tmp_path, *tmp_path.rglob("*")]}
    with (
        FaultCollector([Respond(401)]) as server,
        configured(tmp_path, server.url, spool__directory=str(spool)) as words,
    ):
        Path(words[0]).replace(tmp_path.parent / "publisher.ini")
        words[0] = str(tmp_path.parent / "publisher.ini")
        result = call("doctor", *words)
        assert inspect_queue(f"/events-{words[2]}") is None
        assert len(server.requests) == 1  # which is the probe
    after = {str(path): path.stat()[:7] for path in [tmp_path, *tmp_path.rglob("*")]}
    assert before == after
    Folder(str(spool)).release()
    assert result.status == 1
    for secret in (SECRET.decode(), "private", "YSBzZWNyZXQ"):
        assert secret not in result.out + result.err


def test_without_a_configuration_it_looks_at_the_host_alone() -> None:
    """There is no word of a collector; with a queue name there is one of the queue."""
    table = doctor()
    assert {"process", "posix_ipc", "thrift", "kernel limits", "RLIMIT_MSGQUEUE", "queue"} == {
        check["name"] for check in table.checks
    }
    user = user_name(os.geteuid())
    assert table["process"] == ("ok", f"Python {platform.python_version()}, as user {user}", "")
    with fresh_name("/events-test-") as name, MessageQueue(name, max_messages=2, max_message_size=32):
        table = doctor("--queue-name", name.removeprefix("/events-"))
        assert table["queue depth"] == ("ok", "0 of 2 events", "")
        assert table["queue owner"] == ("ok", f"user {user}", "")
        assert table.status == 0


@pytest.mark.parametrize(
    "words",
    [["--queue-name", "/events-v2"], ["--queue-name", "a/b"], ["--timeout", "5"], ["--timeout", "0 seconds"]],
)
def test_mistakes_of_usage_end_with_2(words: list[str]) -> None:
    """An argument that can't be is told before anything is looked at."""
    result = call("doctor", *words)
    assert (2, "") == (result.status, result.out)


# --- this process ---


def doctor_with(folder: Path, packages: Iterable[str], *words: str) -> Table:
    """Run the doctor in a Python that has the standard library, this package and these copies of others."""
    for package in packages:
        origin = importlib.import_module(package).__file__
        assert origin is not None
        found = Path(origin)
        source = found.parent if found.name == "__init__.py" else found
        (folder / source.name).symlink_to(source)
    command = [sys.executable, "-S", "-m", "baseplate_events", "doctor", "--json", *words]
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    result = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    return Table(Result(result.returncode, result.stdout, result.stderr))


def test_missing_packages_are_named(tmp_path: Path) -> None:
    """Without posix_ipc nothing works; without thrift Thrift events don't. Both are told with the command."""
    table = doctor_with(tmp_path, ["baseplate_events"], "--queue-name", "v2")
    assert (table["posix_ipc"][0], table["thrift"][0], table.status) == ("problem", "warning", 1)
    assert "the posix_ipc package can't be imported (No module named" in table["posix_ipc"][1]
    assert f"`{sys.executable} -m pip install posix_ipc`" in table["posix_ipc"][2]
    assert "it can't be imported (No module named" in table["thrift"][1]
    assert table["thrift"][2] == f"`{sys.executable} -m pip install thrift`"
    assert table["queue"][:2] == ("problem", f"/events-v2: {table['posix_ipc'][1]}")
    assert table["queue"][2] == "install it with `pip install posix_ipc`"


def test_a_package_without_metadata_is_there_all_the_same(tmp_path: Path) -> None:
    """A dependency that was copied somewhere has no version that could be told."""
    table = doctor_with(tmp_path, ["baseplate_events", "posix_ipc", "thrift"])
    assert {table["posix_ipc"], table["thrift"]} == {("ok", "version unknown", "")}


# --- limits and queues ---


def test_limits_that_are_too_low_are_named_with_the_commands(tmp_path: Path) -> None:
    """What the configured queue needs is computed, compared, and put into the commands."""
    table = diagnose(
        tmp_path,
        max_queue_size="65536",
        max_event_size="16777216",
        batch__max_size="17000000",
    )
    limits = read_limits()
    verdict, found, remedy = table["kernel limits"]
    assert verdict == "warning"
    assert f"fs.mqueue.msg_max is {limits.msg_max:,} (65,536 needed)" in found
    assert "`sysctl -w fs.mqueue.msg_max=65536 fs.mqueue.msgsize_max=16777216`" in remedy
    assert "`--sysctl fs.mqueue.msg_max=65536 --sysctl fs.mqueue.msgsize_max=16777216`" in remedy
    if limits.rlimit is not None:
        verdict, found, remedy = table["RLIMIT_MSGQUEUE"]
        charge = QueueSize(65_536, 16_777_216).bytes_charged
        assert verdict == "warning"
        assert f"{limits.rlimit:,} bytes" in found
        assert f"{charge:,} needed" in found
        assert f"LimitMSGQUEUE={charge}" in remedy
        assert "instead of 65,536 events" in table["queue"][1]


@needs_root
def test_no_room_at_all_is_a_problem() -> None:
    """Where the user's limit allows not even the smallest queue, none can be made."""
    doctor()  # another user may not be able to read the modules that this needs
    with bytes_of_queues(100):
        table = doctor()
    assert table.status == 1
    assert table["queue"] == ("problem", "an ordinary user gets none at all", "lift the limits above")


@needs_root
@given(
    st.sampled_from([0, 600, 5_000, 50_000, 300_000]),
    st.integers(1, 40),
    st.integers(1, 20_000),
    st.integers(0, 10),
)
@settings(max_examples=25)
def test_the_expected_size_is_what_the_kernel_gives(
    limit: int, max_messages: int, max_message_size: int, other: int
) -> None:
    """An ordinary user gets just that beside another queue, or none where none is expected."""
    asked = QueueSize(max_messages, max_message_size)
    read_limits()  # another user may not be able to read what Python needs for that
    with (
        bytes_of_queues(limit),
        fresh_name() as neighbour,
        fresh_name() as name,
        contextlib.ExitStack() as stack,
    ):
        taken = 0
        if other:
            with contextlib.suppress(EventQueueLimitError):
                queue = stack.enter_context(MessageQueue(neighbour, max_messages=other, max_message_size=512))
                taken = QueueSize(queue.max_messages, queue.max_message_size).bytes_charged
        expected = expected_size(asked, read_limits(), taken)
        try:
            with MessageQueue(name, max_messages=max_messages, max_message_size=max_message_size) as queue:
                got: QueueSize | None = QueueSize(queue.max_messages, queue.max_message_size)
                queue.unlink()
        except EventQueueLimitError:
            got = None
        assert expected == got


@given(
    queue_sizes,
    host_limits,
    st.dictionaries(st.sampled_from(["/a", "/b"]), st.integers(0, 2**30), max_size=2),
)
def test_a_limit_is_ok_just_if_it_covers_the_need(
    wanted: QueueSize, limits: HostLimits, neighbours: dict[str, int]
) -> None:
    """A limit that is too low is a warning whose remedy has the number that is needed; others are named."""
    sysctls = judge_sysctls(wanted, limits)
    short = limits.msg_max < wanted.max_messages, limits.msgsize_max < wanted.max_message_size
    assert any(short) == (sysctls.verdict is Verdict.WARNING)
    assert short[0] == (f"fs.mqueue.msg_max={wanted.max_messages}" in sysctls.remedy)
    assert short[1] == (f"fs.mqueue.msgsize_max={wanted.max_message_size}" in sysctls.remedy)
    rlimit = judge_rlimit(wanted, limits, neighbours)
    need = wanted.bytes_charged + sum(neighbours.values())
    is_short = limits.rlimit is not None and limits.rlimit < need
    assert is_short == (rlimit.verdict is Verdict.WARNING)
    numbers = [int(number) for number in re.findall(r"ulimit -q (\d+)", rlimit.remedy)]
    # Others that are seen took no more than the limit allowed.
    assert all(number >= min(need, wanted.bytes_charged + (limits.rlimit or 0)) for number in numbers)
    assert is_short == bool(numbers)
    assert (limits.rlimit is None) == rlimit.found.startswith("no limit")
    assert limits.rlimit is None or all(name in rlimit.found for name in neighbours)


def test_a_queue_that_is_too_small_is_named(tmp_path: Path) -> None:
    """A queue that somebody made smaller than configured is a warning with the command that removes it."""
    with configured(tmp_path, max_queue_size="10") as words:
        queue = MessageQueue(f"/events-{words[2]}", max_messages=2, max_message_size=32)
        table = doctor(*words, "--no-probe")
        queue.close()
    verdict, found, remedy = table["queue size"]
    assert verdict == "warning"
    assert "2 events of at most 32 bytes, instead of 10 events of at most 1,024 bytes" in found
    assert f"queue unlink {words[2]}`" in remedy


@pytest.mark.parametrize(
    ("mode", "wanted", "verdict", "remedy"),
    [
        (0o600, "0600", "ok", ""),
        (0o660, "0660", "ok", ""),
        (0o644, "0600", "warning", "chmod 0600"),
        (0o666, "0666", "warning", "set queue.mode"),
    ],
)
def test_who_can_steal_is_named(tmp_path: Path, mode: int, wanted: str, verdict: str, remedy: str) -> None:
    """A queue that every user can read is a warning with the command that closes it."""
    with configured(tmp_path, queue__mode=wanted) as words:
        name = f"/events-{words[2]}"
        with MessageQueue(name, max_messages=10, max_message_size=1_024, mode=mode) as queue:
            table = doctor(*words, "--no-probe")
            queue.unlink()
    assert "kernel limits" not in {check["name"] for check in table.checks}  # the queue is there in full size
    assert verdict == table["queue access"][0]
    assert remedy in table["queue access"][2]
    assert ("every user" in table["queue access"][1]) == (verdict == "warning")
    room = "10 events of at most 1,024 bytes"
    assert table["queue size"] == ("ok", f"{name} has room for {room} ({room} wanted)", "")


def test_a_queue_that_cant_be_opened_is_a_problem() -> None:
    """Whatever else keeps this process from a queue is told, with what the error says of it."""
    size = QueueSize(2, 32)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        fresh_name("/events-test-") as name,
        MessageQueue(name, max_messages=2, max_message_size=32),
        contextlib.ExitStack() as stack,
    ):
        with Path(os.devnull).open("rb") as file:
            lowest = file.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        *_, check = check_queue(name, size, 0o600)
    assert check == problem(
        "queue",
        f"{name}: this process has too many files open",
        "close some, or raise `ulimit -n` (RLIMIT_NOFILE)",
    )


def test_a_queue_that_is_nearly_full_is_named() -> None:
    """A queue without room is a warning that points to the publisher."""
    with (
        fresh_name("/events-test-") as name,
        MessageQueue(name, max_messages=3, max_message_size=32) as queue,
    ):
        for _ in range(3):
            queue.put(b"{}")
        table = doctor("--queue-name", name.removeprefix("/events-"))
        assert len(drain(queue)) == 3
    verdict, found, remedy = table["queue depth"]
    assert (verdict, found) == (
        "warning",
        "3 of 3 events: nearly full, so services get EventQueueFullError",
    )
    assert "see that a publisher of this queue runs" in remedy


@given(queue_sizes, st.data())
def test_a_queue_is_nearly_full_from_nine_tenths_on(size: QueueSize, data: st.DataObject) -> None:
    """Fewer than nine tenths, or than two events, are no reason for a warning."""
    depth = data.draw(st.integers(0, size.max_messages))
    check = judge_queue_depth(QueueInfo("/a", size, depth, 0, 0, 0o600, True))
    assert (depth >= 2 and depth >= 0.9 * size.max_messages) == (check.verdict is Verdict.WARNING)


# --- configuration, environment, key ---


def test_every_mistake_of_the_configuration_is_named(tmp_path: Path) -> None:
    """Each is a problem of its own; what can't be looked at without it is skipped, the host isn't."""
    table = diagnose(tmp_path, batch__max_age="soon", collector__version="3")
    problems = [check for check in table.checks if check["verdict"] == "problem"]
    assert {"configuration"} == {check["name"] for check in problems}
    assert all("publish --check" in str(check["remedy"]) for check in problems)
    text = " ".join(str(check["found"]) for check in problems)
    assert "batch.max_age" in text
    assert "collector.version" in text
    assert table["collector"] == ("skipped", "needs a configuration without mistakes", "")
    assert table["RLIMIT_MSGQUEUE"][1]
    assert table.status == 1


@pytest.mark.parametrize("text", [None, "[event-publisher:other]\n", "no section"])
def test_a_file_that_is_none_is_a_problem(tmp_path: Path, text: str | None) -> None:
    """A missing file, a missing section and a file that can't be parsed are named."""
    path = tmp_path / "publisher.ini"
    if text is not None:
        path.write_text(text)
    table = doctor(str(path))
    assert table["configuration"][0] == "problem"
    assert str(path) in table["configuration"][1]
    assert table["queue"][1].startswith("/events-main ")


def test_variables_are_named_set_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that isn't set is a problem with its name and key; those that are set are listed by name."""
    name = f"KEY_{secrets.token_hex(4).upper()}"
    table = diagnose(tmp_path, key__name=f"${name}")
    verdict, found, remedy = table["environment"]
    assert verdict == "problem"
    assert f"environment variable {name} isn't set" in found
    assert "EnvironmentFile=" in remedy
    assert not [check for check in table.checks if check["name"] == "configuration"]
    monkeypatch.setenv(name, "TheNameOfTheKey")
    table = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", key__name=f"${name}")
    assert table["environment"] == ("ok", f"all that the configuration names is set: {name}", "")
    assert "TheNameOfTheKey" not in table["environment"][1]


def test_a_short_secret_is_a_warning(tmp_path: Path) -> None:
    """A secret of fewer than 16 bytes can be guessed."""
    table = diagnose(tmp_path, key__secret="c2hvcnQ=")
    assert table["key"][:2] == (
        "warning",
        "key.secret decodes to only 5 bytes; it can be guessed, or a part of it is missing",
    )
    assert "openssl rand -base64 32" in table["key"][2]
    assert "c2hvcnQ" not in table.text


@given(st.integers(1, 100))
def test_the_length_of_a_secret_decides(size: int) -> None:
    """From 16 bytes on it is good."""
    assert (size >= 16) == (judge_secret(size).verdict is Verdict.OK)


# --- the way to the collector ---


def steps(table: Table) -> list[str]:
    """Return the verdicts on the steps to the collector."""
    names = ("collector name", "collector connection", "collector TLS", "signed probe", "clock")
    return [table[name][0] for name in names]


def test_a_name_that_doesnt_exist_is_a_problem(tmp_path: Path) -> None:
    """It is told with the host, and what needs it is skipped."""
    table = diagnose(tmp_path, "http://collector.invalid")
    assert steps(table) == ["problem", "skipped", "skipped", "skipped", "skipped"]
    assert "collector.invalid" in table["collector name"][1]
    assert "getent hosts collector.invalid" in table["collector name"][2]
    assert table["collector connection"][1] == "needs what failed above"


def test_name_servers_that_dont_answer_are_a_problem(tmp_path: Path) -> None:
    """Looking up a name is given up after the timeout, though the system's resolver can't be told to."""
    with sandbox(tmp_path) as place, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
        name_server.bind((f"127.{secrets.randbelow(200) + 1}.{secrets.randbelow(250)}.1", 53))
        name_server.settimeout(PATIENCE)
        place.replace("/etc/nsswitch.conf", "hosts: dns\n")
        place.replace("/etc/resolv.conf", f"nameserver {name_server.getsockname()[0]}\n")
        with configured(tmp_path, "http://collector.test", metrics__endpoint="statsd.test:8125") as words:
            table = doctor_in(place, *words, "--timeout", "50 milliseconds")
        assert b"collector" in name_server.recv(512)
    assert steps(table) == ["problem", "skipped", "skipped", "skipped", "skipped"]
    assert table["collector name"][1] == "collector.test: no answer within 0.05 seconds"
    assert "resolv.conf" in table["collector name"][2]
    assert table["metrics"][:2] == ("warning", "statsd.test: no answer within 0.05 seconds")
    assert "getent hosts statsd.test" in table["metrics"][2]


@contextlib.contextmanager
def refusing_port() -> Generator[int]:
    """Give a port that refuses connections, and is nobody else's meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_port_that_refuses_is_a_problem(tmp_path: Path) -> None:
    """Nothing listens there, and the port is what to check."""
    with refusing_port() as port:
        table = diagnose(tmp_path, f"http://127.0.0.1:{port}")
    assert steps(table) == ["ok", "problem", "skipped", "skipped", "skipped"]
    assert f"127.0.0.1:{port}" in table["collector connection"][1]
    assert "nothing listens there: check the port in collector.hostname" in table["collector connection"][2]


def test_an_address_without_a_way_is_a_problem(tmp_path: Path) -> None:
    """Routes and firewalls are what to look at; here for an address to which nobody can connect."""
    table = diagnose(tmp_path, "http://255.255.255.255", metrics__endpoint="255.255.255.255:8125")
    assert steps(table)[1] == "problem"
    assert "check the routes and firewalls" in table["collector connection"][2]
    assert table["metrics"][0] == "warning"
    assert "check the routes and firewalls" in table["metrics"][2]


@contextlib.contextmanager
def silent_port(address: str = "127.0.0.1", port: int = 0) -> Generator[int]:
    """Give a port from which nothing comes back."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind((address, port))
        listener.listen(0)
        while True:  # until its queue of connections is full, whereupon Linux drops packets
            client = stack.enter_context(socket.socket())
            client.settimeout(0.1)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


def test_packets_that_are_dropped_are_a_problem(tmp_path: Path) -> None:
    """Where nothing answers at all, firewalls are what to look at."""
    with silent_port() as port:
        table = diagnose(tmp_path, f"http://127.0.0.1:{port}", "--timeout", "100 milliseconds")
    assert steps(table)[1] == "problem"
    assert f"have the firewalls let this host through to 127.0.0.1:{port}" in table["collector connection"][2]


@contextlib.contextmanager
def nothing(*_: object) -> Generator[None]:
    """Leave an address as it is."""
    yield


@pytest.mark.parametrize(
    ("dead", "make", "verdict", "words"),
    [
        ("127.0.0.2", nothing, "warning", "1 of 2 addresses don't answer: {}: 127.0.0.2: Connection refused"),
        ("127.0.0.2", silent_port, "warning", "1 of 2 addresses don't answer: {}: 127.0.0.2: timed out"),
        ("255.255.255.255", nothing, "ok", "connected to {} (this host has no way to 255.255.255.255)"),
    ],
)
def test_an_address_that_doesnt_answer_is_a_warning(
    tmp_path: Path,
    dead: str,
    make: Callable[[str, int], AbstractContextManager[object]],
    verdict: str,
    words: str,
) -> None:
    """Where one of two addresses of a name is dead, attempts lose time on it, and events flow.

    None is lost on an address that this host has no way to, as on one of IPv6 where there is none.
    """
    with sandbox(tmp_path) as place, FaultCollector() as server, make(dead, server.address[1]):
        place.replace("/etc/nsswitch.conf", "hosts: files\n")
        place.replace("/etc/hosts", f"{dead} collector.test\n127.0.0.1 collector.test\n")
        peer = f"collector.test:{server.address[1]}"
        with configured(tmp_path, f"http://{peer}") as arguments:
            table = doctor_in(place, *arguments, "--timeout", "300 milliseconds")
    assert table["collector connection"][:2] == (verdict, words.format(peer))
    assert ("taken out of DNS" in table["collector connection"][2]) == (verdict == "warning")
    assert steps(table)[2:] == ["skipped", "ok", "skipped"]


def test_the_likeliest_of_several_causes_is_told(tmp_path: Path) -> None:
    """Where no address answers, one that refuses says more than one that this host has no way to."""
    with sandbox(tmp_path) as place, refusing_port() as port:
        place.replace("/etc/nsswitch.conf", "hosts: files\n")
        place.replace("/etc/hosts", "255.255.255.255 collector.test\n127.0.0.1 collector.test\n")
        with configured(tmp_path, f"http://collector.test:{port}") as arguments:
            verdict, found, remedy = doctor_in(place, *arguments)["collector connection"]
    assert verdict == "problem"
    assert "255.255.255.255: Network is unreachable" in found
    assert "127.0.0.1: Connection refused" in found
    assert "nothing listens there" in remedy


def leaf_tls(
    tmp_path: Path,
    *,
    identity: str = "127.0.0.1",
    not_before: dt.datetime | None = None,
    not_after: dt.datetime | None = None,
) -> tuple[ssl.SSLContext, str]:
    """Return a server context with a certificate as told, and the path of its authority's."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = authority.issue_cert(identity, not_before=not_before, not_after=not_after)
    with leaf.private_key_and_cert_chain_pem.tempfile() as path:
        context.load_cert_chain(path)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return context, str(tmp_path / "ca.pem")


def days_from_now(days: float) -> dt.datetime:
    """Return a moment as certificates have it."""
    return dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=days)


def test_an_authority_that_nobody_knows_is_a_problem(tmp_path: Path) -> None:
    """A certificate that isn't trusted points to `collector.ca_file`, and to what is trusted now."""
    with FaultCollector(ssl_context=stranger_tls()) as server:
        table = diagnose(tmp_path, server.url)
        assert server.requests == []
        assert steps(table) == ["ok", "ok", "problem", "skipped", "skipped"]
        assert "set collector.ca_file" in table["collector TLS"][2]
        assert "now the system's certificates are asked" in table["collector TLS"][2]
        assert table["collector TLS"][1].startswith("the certificate isn't accepted: unable to get local")
        _, wrong = leaf_tls(tmp_path)
        table = diagnose(tmp_path, server.url, collector__ca_file=wrong)
        assert wrong in table["collector TLS"][2]


@pytest.mark.parametrize(
    ("first", "last", "verdict", "words"),
    [
        (-30, -1, "problem", "certificate renewed"),
        (1, 30, "problem", "this host's clock"),
        (-30, 5.5, "warning", "renewed before then"),
        (-30, 20.5, "ok", ""),
    ],
)
def test_the_time_of_a_certificate_is_told(
    tmp_path: Path, first: float, last: float, verdict: str, words: str
) -> None:
    """One that has ended or hasn't begun is a problem; one that ends in less than 14 days a warning."""
    context, ca_file = leaf_tls(tmp_path, not_before=days_from_now(first), not_after=days_from_now(last))
    with FaultCollector(ssl_context=context) as server:
        table = diagnose(tmp_path, server.url, collector__ca_file=ca_file)
    assert verdict == table["collector TLS"][0]
    assert words in table["collector TLS"][2]
    if verdict != "problem":
        found = f", accepted by the certificates of {ca_file}; the certificate ends in {int(last)} days"
        assert re.fullmatch(r"TLSv1\.[23]" + re.escape(found), table["collector TLS"][1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_for_another_name_is_a_problem(tmp_path: Path, host: str) -> None:
    """It points to `collector.hostname`, be that an address or a name."""
    context, ca_file = leaf_tls(tmp_path, identity="other.test")
    with FaultCollector(ssl_context=context) as server:
        url = server.url.replace("127.0.0.1", host)
        table = diagnose(tmp_path, url, collector__ca_file=ca_file)
    assert table["collector TLS"][0] == "problem"
    assert "check collector.hostname: the certificate is for another name" == table["collector TLS"][2]


def test_a_port_that_doesnt_speak_our_tls_is_a_problem(tmp_path: Path) -> None:
    """An `http` port behind `https`, and TLS of old, point to the port and the scheme."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            for _ in range(2):  # the connection, then the handshake
                client, _ = listener.accept()
                with client:
                    if client.recv(1):
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        table = diagnose(tmp_path, f"https://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(PATIENCE)
    context, ca_file = leaf_tls(tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with FaultCollector(ssl_context=context) as server:
        old = diagnose(tmp_path, server.url, collector__ca_file=ca_file)
    for found in (table, old):
        assert found["collector TLS"][0] == "problem"
        assert "collector.scheme: what answers there doesn't speak TLS 1.2" in found["collector TLS"][2]


def test_a_handshake_that_hangs_or_breaks_is_a_problem(tmp_path: Path) -> None:
    """A peer that says nothing is given up after the timeout, and one that hangs up is told."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        silent = diagnose(tmp_path, f"https://{host}", "--timeout", "100 milliseconds")["collector TLS"]
    with FaultCollector([Drop()]) as server:
        broken = diagnose(tmp_path, server.url.replace("http", "https"))["collector TLS"]
    assert silent[:2] == ("problem", "the handshake fails: timed out")
    assert f"check what answers at {host}, and its log: collector.hostname leads there" == silent[2]
    assert broken[0] == "problem"
    assert "and its log: collector.hostname leads there" in broken[2]


@pytest.mark.parametrize("version", ["2", "2j"])
def test_the_probe_is_a_signed_batch_without_events(tmp_path: Path, version: str) -> None:
    """What the collector gets is signed as the publisher signs, and has no event in it."""
    with FaultCollector() as server:
        table = diagnose(tmp_path, server.url, collector__version=version)
        [request] = server.requests
    assert table["signed probe"] == (
        "ok",
        f"the collector takes an empty batch signed with key {KEY_NAME} (200)",
        "",
    )
    body = gzip.decompress(request.body)
    assert f"/v{version}" == request.target
    assert json.loads(body) == ({"1": {"lst": ["rec", 0]}} if version == "2" else [])
    assert signature_header(KEY_NAME, sign(SECRET, body)) == request.header("X-Signature")


def test_the_probe_can_be_left_out(tmp_path: Path) -> None:
    """`--no-probe` sends nothing to the collector, and says what isn't known for that."""
    with FaultCollector() as server:
        table = diagnose(tmp_path, server.url, "--no-probe")
        assert server.requests == []
    assert steps(table) == ["ok", "ok", "skipped", "skipped", "skipped"]
    assert "left out by --no-probe, so" in table["signed probe"][1]
    assert table["clock"][1] == "left out by --no-probe"
    assert table["collector TLS"][1] == "collector.scheme is http: events travel unencrypted"


@pytest.mark.parametrize(
    ("behaviour", "verdict", "words"),
    [
        (Respond(200), "ok", ""),
        (Respond(204), "ok", ""),
        (redirect("http://127.0.0.1:9/", 301), "problem", "check collector.scheme and collector.hostname"),
        (redirect("http://127.0.0.1:9/", 308), "problem", "check collector.scheme and collector.hostname"),
        (Respond(400), "warning", "check collector.scheme, and the port in collector.hostname"),
        (Respond(422), "warning", "check collector.scheme, and the port in collector.hostname"),
        (Respond(401), "problem", "check key.name and key.secret"),
        (Respond(403), "problem", "allows key.name to send"),
        (Respond(404), "problem", "check collector.hostname and collector.version"),
        (Respond(405), "problem", "doesn't look like an event collector"),
        (Respond(407), "problem", "check collector.proxy: the proxy wants credentials"),
        (Respond(408), "warning", "load of the collector"),
        (Respond(411), "problem", "a proxy before the collector doesn't understand the request"),
        (Respond(413), "problem", "client_max_body_size"),
        (Respond(415), "problem", "check collector.version"),
        (Respond(429), "warning", "load of the collector"),
        (Respond(500), "problem", "--no-probe"),
        (Respond(501), "problem", "doesn't look like an event collector"),
        (Respond(502), "problem", "what stands before it"),
        (Respond(503), "problem", "what stands before it"),
        (Respond(504), "problem", "what stands before it"),
        (Drop(after_reading=True), "problem", "log of the collector"),
        (Hang(), "problem", "log of the collector"),
        (Drip(), "problem", "log of the collector"),
        (GARBAGE_STATUS_LINE, "problem", "and check the port in collector.hostname, and collector.scheme"),
    ],
)
def test_every_answer_to_the_probe_has_its_remedy(
    tmp_path: Path, behaviour: Behaviour, verdict: str, words: str
) -> None:
    """Whatever the collector does, the verdict is right and the remedy fits."""
    hurry = ("--timeout", "100 milliseconds") if isinstance(behaviour, Hang | Drip) else ()
    table = diagnose_reply(tmp_path, behaviour, *hurry)
    assert verdict == table["signed probe"][0]
    assert words in table["signed probe"][2]
    assert (verdict == "problem") == (table.status == 1)
    if isinstance(behaviour, Respond):
        assert str(behaviour.status) in table["signed probe"][1]
    else:
        assert table["clock"] == ("skipped", "needs a response", "")


@pytest.mark.parametrize(
    ("second", "verdict", "words"),
    [
        (Respond(401), "ok", "accepts key {}: it refuses an empty batch for what is in it (400 Scripted)"),
        (Respond(403), "ok", "one with a false signature for that (403 Scripted)"),
        (Respond(400), "warning", "whether key {} is accepted isn't known, nor whether an event collector"),
        (Respond(503), "skipped", "whether it accepts key {} isn't known"),
        (Drop(), "skipped", "whether it accepts key {} isn't known"),
    ],
)
def test_a_collector_that_takes_no_empty_batch_is_asked_with_a_false_signature(
    tmp_path: Path, second: Behaviour, verdict: str, words: str
) -> None:
    """One that then refuses the signature accepts the key; with the same answer nothing is known."""
    with FaultCollector([Respond(400), second]) as server:
        table = diagnose(tmp_path, server.url)
        first, *others = server.requests
    assert verdict == table["signed probe"][0]
    assert words.format(KEY_NAME) in table["signed probe"][1]
    for other in others:
        assert first.body == other.body
        assert first.header("X-Signature") != other.header("X-Signature")
        assert str(other.header("X-Signature")).startswith(f"key={KEY_NAME}, mac=")


def test_a_port_of_tls_behind_http_is_a_problem(tmp_path: Path) -> None:
    """It points to the scheme, whatever the port makes of a request that isn't TLS."""
    with FaultCollector(ssl_context=stranger_tls()) as server:
        table = diagnose(tmp_path, server.url.replace("https", "http"))
        assert server.requests == []
    assert table["signed probe"][0] == "problem"
    assert "collector.scheme" in table["signed probe"][2]


@given(st.integers(0, 999), st.text())
def test_every_status_has_a_verdict(status: int, reason: str) -> None:
    """2xx alone is ok; whatever else is a problem or a warning has a remedy."""
    outcome = classify(Response(status, reason))
    check = judge_outcome(outcome, "key")
    assert isinstance(outcome, Accepted) == (check.verdict is Verdict.OK)
    assert (check.remedy == "") == (check.verdict in {Verdict.OK, Verdict.SKIPPED})


@pytest.mark.parametrize(
    ("name", "secret", "verdict"),
    [(KEY_NAME, SECRET, "ok"), (KEY_NAME, OTHER_SECRET, "problem"), ("Other", SECRET, "problem")],
)
def test_the_development_collector_knows_its_key(
    tmp_path: Path, name: str, secret: bytes, verdict: str
) -> None:
    """A wrong secret or name is a problem; the right ones are accepted, though no empty batch is."""
    with DevCollector({name: secret}, lambda _: None) as collector:
        table = diagnose(tmp_path, collector.url)
    assert verdict == table["signed probe"][0]
    assert ("check key.name and key.secret" in table["signed probe"][2]) == (verdict == "problem")
    assert table["clock"][0] == "ok"


@pytest.mark.parametrize(
    ("date", "verdict", "words"),
    [
        (lambda: email.utils.formatdate(usegmt=True), "ok", "within 60 seconds"),
        (lambda: email.utils.formatdate(time.time() - 3_600, usegmt=True), "warning", "seconds ahead of"),
        (lambda: email.utils.formatdate(time.time() + 3_600, usegmt=True), "warning", "seconds behind"),
        (lambda: "yesterday", "skipped", "can't be read"),
        (lambda: None, "skipped", "no date"),
    ],
)
def test_a_clock_that_is_off_is_a_warning(
    tmp_path: Path, date: Callable[[], str | None], verdict: str, words: str
) -> None:
    """More than a minute from the collector's date is told, with the direction and the command."""
    text = date()
    headers = () if text is None else (("Date", text),)
    table = diagnose_reply(tmp_path, Respond(headers=headers))
    assert verdict == table["clock"][0]
    assert words in table["clock"][1]
    assert ("timedatectl set-ntp true" in table["clock"][2]) == (verdict == "warning")


@given(st.integers(0, 4_000_000_000), st.floats(-10_000, 10_000))
def test_a_minute_decides_on_the_clock(moment: int, skew: float) -> None:
    """A clock within a minute is ok in either direction."""
    assume(abs(abs(skew) - 60) > 0.001)
    check = judge_clock(email.utils.formatdate(moment, usegmt=True), moment + skew)
    assert (abs(skew) <= 60) == (check.verdict is Verdict.OK)


@given(st.text())
def test_no_date_breaks_the_check_of_the_clock(date: str) -> None:
    """Whatever a collector sends as its date, there is a verdict."""
    assert judge_clock(date, 0.0).verdict in Verdict


@given(
    st.integers(0, 2**31),
    st.integers(-100, 100).map(lambda days: days * 86_400) | st.integers(-(10**6), 10**8),
)
def test_two_weeks_decide_on_a_certificate(now: int, left: int) -> None:
    """A certificate with less than 14 whole days left is a warning."""
    check = judge_certificate("TLS", now + left, now, "TLSv1.3")
    assert (left >= 14 * 86_400) == (check.verdict is Verdict.OK)


def test_a_proxy_is_what_is_connected_to(tmp_path: Path) -> None:
    """With `collector.proxy` it is the proxy's name and port that matter, and its refusal is told."""
    with FaultCollector() as proxy:
        table = diagnose(tmp_path, "http://collector.invalid", collector__proxy=proxy.url)
        assert steps(table)[:4] == ["ok", "ok", "skipped", "ok"]
        assert ["http://collector.invalid/v2j"] == [request.target for request in proxy.requests]
    with refusing_port() as port:
        table = diagnose(tmp_path, "http://collector.invalid", collector__proxy=f"http://127.0.0.1:{port}")
    assert "check the port in collector.proxy" in table["collector connection"][2]
    for answer, words in (
        (Respond(407), "407 Scripted"),
        (Respond(502), "502 Scripted"),
        (Drop(after_reading=True), "closed connection"),
        (GARBAGE_STATUS_LINE, "the proxy answers something else than HTTP"),
    ):
        with FaultCollector([answer]) as proxy:
            table = diagnose(tmp_path, "https://collector.invalid", collector__proxy=proxy.url)
            assert [request.method for request in proxy.requests] == ["CONNECT"]
        assert table["collector TLS"][0] == "problem"
        assert words in table["collector TLS"][1]
        assert "and its log: collector.proxy leads there" in table["collector TLS"][2]


def test_work_within_a_time_gives_or_raises_what_it_does() -> None:
    """A result and an error come through; a timeout of the work's own isn't taken for ours."""
    assert within(PATIENCE, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        within(PATIENCE, lambda: 1 // 0)

    def give_up() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        within(PATIENCE, give_up)


# --- metrics ---


def metrics_of(tmp_path: Path, endpoint: str) -> tuple[str, str, str]:
    """Return what the doctor says of this endpoint."""
    return diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe", metrics__endpoint=endpoint)["metrics"]


def test_a_statsd_server_gets_nothing_that_it_would_count(tmp_path: Path) -> None:
    """A server that listens is ok, and got line breaks only."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        verdict, found, _ = metrics_of(tmp_path, endpoint)
        assert verdict == "ok"
        assert f"{endpoint} doesn't refuse datagrams (whether it takes them can't be known)" == found
        assert [server.recv(100), server.recv(100)] == [b"\n", b"\n"]


def test_a_dead_udp_port_is_a_warning(tmp_path: Path) -> None:
    """A datagram that is refused is told, though UDP has no connections."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.connect(("127.0.0.1", 9))  # so that the system refuses what comes from elsewhere
        verdict, found, remedy = metrics_of(tmp_path, f"127.0.0.1:{bound.getsockname()[1]}")
    assert verdict == "warning"
    assert "nothing listens" in found
    assert "start the statsd server" in remedy


def test_a_statsd_name_that_doesnt_exist_is_a_warning(tmp_path: Path) -> None:
    """It is told with the command that shows it."""
    verdict, found, remedy = metrics_of(tmp_path, "statsd.invalid:8125")
    assert verdict == "warning"
    assert "statsd.invalid" in found
    assert "getent hosts statsd.invalid" in remedy


@pytest.mark.parametrize(
    ("kind", "words", "remedy"),
    [
        ("nothing", "isn't there", "start the statsd server, or correct metrics.endpoint"),
        ("file", "nobody listens", "start the statsd server"),
        ("left behind", "nobody listens", "start the statsd server"),
        ("stream", "is a stream socket", "have the statsd server listen for datagrams there"),
        ("folder in a file", "Not a directory", "correct metrics.endpoint"),
        ("server", "a server listens", ""),
    ],
)
def test_the_path_of_a_statsd_server_is_looked_at(tmp_path: Path, kind: str, words: str, remedy: str) -> None:
    """What isn't a socket with a server behind it is a warning that says what it is, and what to do."""
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        if kind in {"left behind", "server", "stream"}:
            stream = socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM
            server = stack.enter_context(socket.socket(socket.AF_UNIX, stream))
            server.bind(str(path))
            if kind == "stream":
                server.listen()
            if kind == "left behind":
                server.close()
        elif kind != "nothing":
            path.write_text("")
        found = metrics_of(tmp_path, str(path / "x" if kind == "folder in a file" else path))
    assert ("warning" if remedy else "ok") == found[0]
    assert words in found[1]
    assert remedy == found[2]


@needs_root
def test_a_statsd_path_that_is_closed_to_this_user_is_a_warning(tmp_path: Path) -> None:
    """The permission that is missing is named."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101 - a socket, named by a text
        with unprivileged(tmp_path):
            check = check_metrics(UnixEndpoint(path), timeout=PATIENCE)
    assert check.verdict is Verdict.WARNING
    assert f"this user may not write to {path}" == check.found
    assert "by a group" in check.remedy


# --- spool and dead letters ---


def test_no_spool_is_told(tmp_path: Path) -> None:
    """What a configuration without folders costs is said."""
    table = diagnose(tmp_path, "http://127.0.0.1:9", "--no-probe")
    assert table["spool folder"][0] == "skipped"
    assert "kill -9" in table["spool folder"][1]
    assert table["metrics"] == ("skipped", "metrics.endpoint isn't set", "")
    assert "dropped" in table["dead letters"][1]


def test_a_folder_to_come_isnt_made(tmp_path: Path) -> None:
    """A spool that the publisher can make is ok, and isn't there afterwards either."""
    table = folders_of(tmp_path, tmp_path / "deep" / "spool")
    assert table["spool folder"][0] == "ok"
    assert "the publisher makes it" in table["spool folder"][1]
    assert not (tmp_path / "deep").exists()


def make_file(path: Path) -> None:
    """Make a file where a folder is expected."""
    path.write_text("")


def make_open(path: Path) -> None:
    """Make a folder that others can enter, with something in it."""
    path.mkdir()
    (path / "somebody's").write_text("")
    path.chmod(0o755)


def make_dangling(path: Path) -> None:
    """Make a link to a disk that isn't mounted."""
    path.symlink_to("/mnt/that isn't there")


def make_below_a_file(path: Path) -> None:
    """Make a link through something that isn't a folder."""
    path.symlink_to("/etc/hostname/spool")


def make_sticky(path: Path) -> None:
    """Make a folder like `/tmp`."""
    path.mkdir()
    path.chmod(0o1777)


def make_foreign(path: Path) -> None:
    """Make a folder of another user."""
    path.mkdir(0o700)
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("make", "found", "remedy"),
    [
        (make_file, "isn't a folder", "name another in spool.directory"),
        (make_open, "is open to other users (mode 0755)", "chmod 0700"),
        (make_sticky, "is open to other users (mode 1777)", "name another folder in spool.directory"),
        (make_dangling, "is a link to /mnt/that isn't there, which isn't there", "mount the disk"),
        (make_below_a_file, "Not a directory", "name another folder in spool.directory"),
        pytest.param(
            make_foreign,
            f"({NOBODY}), and this process runs as",
            "run publisher and doctor as that user",
            marks=needs_root,
        ),
    ],
)
def test_a_folder_that_cant_be_the_spool_is_a_problem(
    tmp_path: Path, make: Callable[[Path], None], found: str, remedy: str
) -> None:
    """What the publisher would refuse is told before it is started, and left as it is."""
    path = tmp_path / "spool"
    make(path)
    before = path.lstat()[:7]
    table = folders_of(tmp_path, path)
    assert table["spool folder"][0] == "problem"
    assert found in table["spool folder"][1]
    assert remedy in table["spool folder"][2]
    assert before == path.lstat()[:7]
    assert table.status == 1


def test_an_empty_folder_that_is_open_is_ok(tmp_path: Path) -> None:
    """The publisher closes it to others, so it isn't a problem; the doctor leaves it open."""
    path = tmp_path / "spool"
    path.mkdir()
    path.chmod(0o755)
    table = folders_of(tmp_path, path)
    user = user_name(os.geteuid())
    assert table["spool folder"] == ("ok", f"{path} can be used by user {user}", "")
    assert table["spool segments"] == ("ok", "none: nothing waits on the disk", "")
    assert path.stat().st_mode & 0o777 == 0o755


@needs_root
def test_permissions_are_those_of_the_user_who_asks(tmp_path: Path) -> None:
    """A user who can't make, enter or write to the folder is told, with the command that helps."""
    folders_of(tmp_path, tmp_path / "spool")  # another user may not be able to read all modules
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    own.chmod(0o500)
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    with configured(tmp_path) as words:
        words += ["--no-probe"]
        config = Path(words[0])
        text = config.read_text()
        config.chmod(0o644)

        def found(directory: Path) -> tuple[str, str, str]:
            config.write_text(f"{text}spool.directory = {directory}\n")
            with unprivileged(tmp_path):
                return doctor(*words)["spool folder"]

        for directory, words_found, remedy in (
            (tmp_path / "new", "can't make it in", f"install -d -m 0700 -o {NOBODY}"),
            (own, "its owner may not write to it", "chmod 0700"),
            (closed / "spool", "Permission denied", "name another folder"),
        ):
            verdict, text_found, text_remedy = found(directory)
            assert verdict == "problem"
            assert words_found in text_found
            assert remedy in text_remedy


def test_a_spool_in_use_is_left_alone(tmp_path: Path) -> None:
    """A publisher's lock is seen and stays the publisher's; where there is none, none is left behind."""
    folder = Folder(str(tmp_path / "spool"))
    spool = spool_on(folder, version="2j")
    append_all(spool, [b'{"a":1}', b'{"b":2}'])
    append_all(spool, [b'{"c":3}'])
    table = folders_of(tmp_path, tmp_path / "spool")
    assert table["spool lock"] == ("ok", "in use by a running publisher", "")
    assert f"2, {spool.size} bytes" in table["spool segments"][1]
    spool.close()
    folder.release()
    table = folders_of(tmp_path, tmp_path / "spool")
    assert table["spool lock"] == ("ok", "no publisher uses it now", "")
    assert table["spool segments"][0] == "ok"
    Folder(str(tmp_path / "spool")).release()


def test_events_in_a_journal_are_counted_and_an_empty_one_is_not(tmp_path: Path) -> None:
    """What is left in a journal counts as a segment; a journal without events doesn't."""
    directory = tmp_path / "spool"
    folder = Folder(str(directory))
    spool = Spool(folder, str(directory), version="2j", max_size=2**30, sync=Sync.NEVER)
    spool.append(b'{"a":1}')
    assert "1, " in folders_of(tmp_path, directory)["spool segments"][1]
    segment = spool.close_segment()
    assert segment is not None
    spool.release(segment.number)
    assert list(directory.glob("journal-*"))
    assert "1, " not in folders_of(tmp_path, directory)["spool segments"][1]
    spool.close()
    folder.release()


def test_another_doctor_isnt_taken_for_a_publisher(tmp_path: Path) -> None:
    """Two that look at a spool in the same moment both see that nobody uses it."""
    path = tmp_path / "spool"
    path.mkdir(0o700)
    folder = os.open(path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_SH)  # as the other one does it
    table = folders_of(tmp_path, path)
    os.close(folder)
    assert table["spool lock"] == ("ok", "no publisher uses it now", "")


@pytest.mark.parametrize(
    ("first_line", "found", "remedy"),
    [
        (
            b"event-spool 1 2\n",
            "holds events of another collector.version",
            "deliver them with that setting first",
        ),
        (b"event-spool 9 2j\n", "is of another format", "with the release of the publisher that wrote it"),
        (b"something else\n", "isn't a segment", "move it away"),
    ],
)
def test_segments_that_stop_a_publisher_are_a_problem(
    tmp_path: Path, first_line: bytes, found: str, remedy: str
) -> None:
    """What another version or somebody else left there is named with its file."""
    path = tmp_path / "spool"
    path.mkdir(0o700)
    (path / "segment-0000000007").write_bytes(first_line + b"x" * 100)
    verdict, text, advice = folders_of(tmp_path, path)["spool segments"]
    assert verdict == "problem"
    assert f"{path}/segment-0000000007 {found}" in text
    assert remedy in advice


def test_a_segment_that_cant_be_read_is_a_problem(tmp_path: Path) -> None:
    """It is named, as is what to do with it."""
    (tmp_path / "spool" / "segment-0000000001").mkdir(parents=True)
    (tmp_path / "spool").chmod(0o700)
    verdict, found, remedy = folders_of(tmp_path, tmp_path / "spool")["spool segments"]
    assert verdict == "problem"
    assert f"{tmp_path}/spool/segment-0000000001: Is a directory" == found
    assert "move the file away" in remedy


def test_a_disk_that_is_smaller_than_the_spool_is_a_warning(tmp_path: Path) -> None:
    """Where `spool.max_size` is more than there is, the number that fits is told."""
    (tmp_path / "spool").mkdir(0o700)
    verdict, found, remedy = folders_of(tmp_path, tmp_path / "spool", spool__max_size=str(1 << 45))[
        "spool space"
    ]
    assert verdict == "warning"
    assert f"0 of {1 << 45:,} (spool.max_size) in use: the disk is full before spool.max_size" in found
    assert "set spool.max_size to" in remedy


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_is_in_use_counts_as_room(free: int, used: int, max_size: int) -> None:
    """The disk must hold what is still to come, and the size that is advised would fit."""
    check = judge_space("spool space", "spool.max_size", free=free, used=used, max_size=max_size)
    assert (free + used >= max_size) == (check.verdict is Verdict.OK)
    if check.verdict is not Verdict.OK:
        advised = int(re.findall(r"to (\d+) or less", check.remedy)[0])
        assert advised <= free + used


def test_dead_letters_are_a_warning_with_the_command_that_shows_them(tmp_path: Path) -> None:
    """They are counted, and shown by number and bytes alone."""
    letters = DeadLetters(str(tmp_path / "letters"), max_size=10**6)
    for _ in range(2):
        letters.write(b'{"private":1}', status=400, reason="no")
    table = diagnose(
        tmp_path, "http://127.0.0.1:9", "--no-probe", dead_letters__directory=str(tmp_path / "letters")
    )
    letters.close()
    verdict, found, remedy = table["dead letters"]
    assert verdict == "warning"
    assert "2 events that the collector refused, 26 bytes" in found
    assert f"dead-letters list {tmp_path}/letters`" in remedy
    assert "private" not in table.text


def test_dead_letters_that_cant_be_read_are_a_problem(tmp_path: Path) -> None:
    """A file that isn't one is named; without letters all is well."""
    path = tmp_path / "letters"
    path.mkdir(0o700)
    words = ("http://127.0.0.1:9", "--no-probe")
    assert diagnose(tmp_path, *words, dead_letters__directory=str(path))["dead letters"] == ("ok", "none", "")
    (path / "letters-0000000001.jsonl").mkdir()
    verdict, found, _ = diagnose(tmp_path, *words, dead_letters__directory=str(path))["dead letters"]
    assert verdict == "problem"
    assert "letters-0000000001.jsonl" in found
    (tmp_path / "file").write_text("")
    folder = diagnose(tmp_path, *words, dead_letters__directory=str(tmp_path / "file"))["dead letters folder"]
    assert folder[2] == "name another in dead_letters.directory, or move the file away"


# --- a publisher that runs ---


def test_a_publisher_is_asked_how_it_is(tmp_path: Path) -> None:
    """One that delivers is ok, one that fails a problem in its own words, a silent address a warning."""
    good, bad = UnixEndpoint(str(tmp_path / "good.sock")), UnixEndpoint(str(tmp_path / "bad.sock"))
    nobody = check_publisher(good)
    assert nobody.verdict is Verdict.WARNING
    assert f"nobody answers at {good}: No such file or directory" in nobody.found
    assert "health.bind" in nobody.remedy
    with contextlib.ExitStack() as stack:
        for endpoint, answer in ((good, Respond()), (bad, Respond(403))):
            name = stack.enter_context(fresh_name("/events-test-"))
            short = name.removeprefix("/events-")
            server = stack.enter_context(FaultCollector([answer]))
            keys = {"health__bind": endpoint.path, "shutdown__grace": "0 seconds"}
            stack.enter_context(publishing(tmp_path, short, server.url, **keys))
            queue = MessageQueue(name, max_messages=1, max_message_size=10)
            stack.enter_context(queue).put(b"{}")
        wait_until(
            lambda: check_publisher(good).found == "it runs, and has delivered 1 events",
            "nothing is delivered",
        )
        assert check_publisher(good).verdict is Verdict.OK
        wait_until(lambda: check_publisher(bad).verdict is Verdict.PROBLEM, "no problem is found")
        check = check_publisher(bad)
    assert check.found.startswith("it isn't delivering: 403 Scripted; check that")
    assert check.remedy == "the checks before and its log say what mends that"


def test_without_an_endpoint_a_publisher_is_not_asked() -> None:
    """Where `health.bind` isn't set there is nobody to ask, which is nothing wrong."""
    check = check_publisher(None)
    assert check.verdict is Verdict.SKIPPED
    assert check.found == "health.bind isn't set, so a publisher can't be asked"


# --- how it is shown ---


@given(st.lists(strategies.checks))
def test_the_worst_verdict_counts(checks: list[Check]) -> None:
    """A problem outweighs a warning, a warning what is ok, and what was skipped nothing."""
    verdicts = {check.verdict for check in checks}
    worst = next((v for v in (Verdict.PROBLEM, Verdict.WARNING) if v in verdicts), Verdict.OK)
    assert worst is overall(checks)


@given(strategies.checks, st.booleans(), st.none() | st.integers(30, 200))
def test_a_row_shows_all_and_nothing_moves_the_cursor(check: Check, colour: bool, width: int | None) -> None:
    """Verdict, name, and every word of what was found and helps are there, within the width."""
    lines = format_check(check, colour=colour, width=width)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert all(line.isprintable() or line == "" for line in plain)
    assert plain[0].startswith(f"{check.verdict.value:<9}{check.name}")
    assert colour == ("\x1b[" in lines[0])
    if width is None:
        assert len(lines) == (2 if check.remedy else 1)
    else:
        longest = max([len(word) for word in f"{check.found} {check.remedy}".split(" ")], default=0) * 10
        assert all(len(line) <= 31 + max(width, longest) for line in plain)


def test_the_table_has_a_row_for_each_check_and_a_sum(tmp_path: Path) -> None:
    """Without a terminal there is no colour and no wrapping: a line for each finding and each remedy."""
    with configured(tmp_path, "http://collector.invalid") as words:
        result = call("doctor", *words)
    assert result.status == 1
    assert "\x1b" not in result.out
    assert re.search(r"^problem  collector name +collector\.invalid", result.out, re.MULTILINE)
    assert re.search(r"^ {31}remedy: check collector\.hostname", result.out, re.MULTILINE)
    assert re.search(r"^1 problem(, \d warnings?)?$", result.out.splitlines()[-1])


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_goes_to_a_terminal_alone(tmp_path: Path, no_color: str) -> None:
    """On a real terminal verdicts are coloured and texts wrapped, and NO_COLOR ends the colour."""
    controller, terminal = pty.openpty()
    with configured(tmp_path, "http://collector.invalid") as words:
        command = [sys.executable, "-m", "baseplate_events", "doctor", *words]
        environ = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "90"}
        with subprocess.Popen(command, stdout=terminal, env=environ) as process:
            os.close(terminal)
            output = b"".join(_read_all(controller)).decode()
        os.close(controller)
    assert process.returncode == 1
    assert (no_color == "") == ("\x1b[31mproblem" in output)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output).split("\r\n")
    assert all(len(line) <= 90 or max(map(len, line.split())) > 90 - 31 for line in lines)
    assert any(line.startswith(" " * 31) and "remedy" not in line for line in lines)


def _read_all(controller: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # which is how Linux says that the terminal has no user any more
        while data := os.read(controller, 65_536):
            yield data


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    """With `| head` it ends with 1 and says nothing on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    with configured(tmp_path) as words:
        command = [sys.executable, "-m", "baseplate_events", "doctor", *words, "--no-probe"]
        with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE) as process:
            os.close(writer)
            _, err = process.communicate(timeout=PATIENCE)
    assert (1, b"") == (process.returncode, err)


def test_the_help_page_has_examples_and_exit_statuses() -> None:
    """`--help` shows how it is used and what its status means."""
    result = call("doctor", "--help")
    assert result.status == 0
    assert "examples:" in result.out
    assert "exit status:" in result.out
