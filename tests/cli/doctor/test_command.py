"""The command `doctor` as a whole: what it checks, what it leaves alone, and how it is shown."""

from __future__ import annotations

import email.utils
import json
import os
import re
import secrets
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.common import command_line
from baseplate_events.cli.doctor.command import format_check
from baseplate_events.cli.doctor.findings import Check, Code, Verdict
from baseplate_events.cli.queue.info import inspect_queue
from tests.support import strategies
from tests.support.commands import Result, call
from tests.support.doctors import check_words, configured, diagnose, doctor
from tests.support.fault_collector import FaultCollector, Respond, trusted_tls
from tests.support.ledgers import fill
from tests.support.processes import PIPE, finish, on_terminal, started
from tests.support.publishers import SECRET, put_into_spool
from tests.support.spool_publishers import publisher_of

# --- the whole ---


def test_all_is_well_with_a_collector_that_takes_the_probe(tmp_path: Path) -> None:
    """Without problems there is status 0 and no remedy, and everything was checked."""
    tls, authority = trusted_tls()
    (tmp_path / "ca.pem").write_bytes(authority)
    date = email.utils.formatdate(usegmt=True)
    with (
        FaultCollector([Respond(headers=(("Date", date),)), Respond(401)], ssl_context=tls) as server,
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
            spool__max_size="1048576",
            dead_letters__max_size="100000",
        )
    assert (0, Verdict.OK) == (table.status, table.verdict), table.text
    assert table["publisher"].verdict is Verdict.SKIPPED  # it can't be queried
    assert {check.verdict for check in table.checks if check.name != "publisher"} == {Verdict.OK}
    assert {check.remedy for check in table.checks} == {""}
    assert table.names == {
        *("process", "posix_ipc", "thrift", "configuration", "key", "kernel limits"),
        *("configuration file", "memory limit", "transport", "spool file system", "spool inodes"),
        *("RLIMIT_MSGQUEUE", "queue", "collector name", "collector connection", "collector TLS"),
        *("signed probe", "clock", "metrics", "spool folder", "spool space"),
        "publisher",
    }


def test_it_changes_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    """It leaves no queue, folder, file, lock or event behind, and shows no secret."""
    shown: list[str] = []
    with (
        FaultCollector([Respond(401)]) as server,
        configured(tmp_path, server.url, spool__directory=str(tmp_path / "spool")) as arguments,
    ):
        put_into_spool(tmp_path / "spool", arguments[2], [b'{"a":1}'])
        folder = tmp_path / "spool" / f"events-{arguments[2]}"
        fill(folder, [b'{"private":1}'])
        # Without times: reading a folder may change when it was last read.
        before = {str(path): path.stat()[:7] for path in [tmp_path, *tmp_path.rglob("*")]}
        for option in ((), ("--json",)):
            result = call("doctor", *arguments, *option)
            assert result.status == 1
            shown += [result.out, result.err]
        assert inspect_queue(f"/events-{arguments[2]}") is None
        assert len(server.requests) == 2  # which are the probes
    after = {str(path): path.stat()[:7] for path in [tmp_path, *tmp_path.rglob("*")]}
    assert before == after
    with publisher_of(folder):
        pass  # no lock is left
    for secret in (SECRET.decode(), "private", "YSBzZWNyZXQ"):
        assert secret not in "".join(shown)


def test_without_a_configuration_it_checks_only_the_host() -> None:
    """Without a configuration only the host is checked; with a queue name also that queue."""
    table = doctor()
    assert table.names == {
        *("process", "posix_ipc", "thrift", "kernel limits", "RLIMIT_MSGQUEUE", "queue", "memory limit"),
        "transport",
    }
    assert table["queue"].fields["queue"] is None
    named = doctor("--queue-name", secrets.token_hex(8))
    assert table.names == named.names
    assert str(named["queue"].fields["queue"]).startswith("/events-")


@pytest.mark.parametrize(
    "arguments",
    [["--queue-name", "/events-v2"], ["--queue-name", "a/b"], ["--timeout", "5"], ["--timeout", "0 seconds"]],
)
def test_mistakes_of_usage_end_with_2(arguments: list[str]) -> None:
    """An impossible argument is reported before any check."""
    result = call("doctor", *arguments)
    assert (2, "") == (result.status, result.out)


# --- configuration, environment, key ---


def test_every_mistake_of_the_configuration_is_named(tmp_path: Path) -> None:
    """Each mistake is its own problem; checks that need a configuration are skipped, the host's aren't."""
    with configured(tmp_path, batch__max_age="soon", collector__version="3") as arguments:
        table = doctor(*arguments)
    assert [Code.CONFIGURATION_MISTAKE] * len(table.problems) == [check.code for check in table.problems]
    check_command = command_line("publish", "--check", "--queue-name", arguments[2], arguments[0])
    assert all([check_command] == list(check.commands) for check in table.problems)
    text = " ".join(check.found for check in table.problems)
    assert "batch.max_age" in text
    assert "collector.version" in text
    for name in ("key", "collector", "metrics", "spool", "transport", "dead letters", "publisher"):
        assert table[name].code is Code.CONFIGURATION_NEEDED
    assert "RLIMIT_MSGQUEUE" in table.names
    assert table.status == 1


@pytest.mark.parametrize(
    "text", [None, "no section", "[other]\n", "[event-publisher:a]\n[event-publisher:b]\n"]
)
def test_a_file_that_is_none_is_a_problem(tmp_path: Path, text: str | None) -> None:
    """A missing file, one without a queue or with several, and one that can't be parsed are named."""
    path = tmp_path / "publisher.ini"
    if text is not None:
        path.write_text(text)
    table = doctor(str(path))
    assert table["configuration"].code is Code.CONFIGURATION_MISTAKE
    assert str(path) in table["configuration"].found
    assert table.status == 1
    assert "RLIMIT_MSGQUEUE" in table.names


def test_the_only_queue_of_a_file_needs_no_name(tmp_path: Path) -> None:
    """The queue of the only section is checked, and named in the command for another check."""
    path = tmp_path / "publisher.ini"
    path.write_text("[other]\n\n[event-publisher:some]\n")
    table = doctor(str(path))
    assert "/events-some" == table["queue"].fields["queue"]
    assert all("--queue-name some" in check.commands[0] for check in table.problems)


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    """It is a problem with its name and key, and apart from mistakes in the file."""
    name = f"KEY_{secrets.token_hex(4).upper()}"
    table = diagnose(tmp_path, key__name=f"${name}")
    check = table["environment"]
    assert check.code is Code.VARIABLE_UNSET
    assert name in check.found
    assert "key.name" in check.found
    assert "configuration" not in table.names


def test_a_configuration_without_mistakes_is_named(tmp_path: Path) -> None:
    """The configuration is reported with the section that was checked."""
    with configured(tmp_path) as arguments:
        table = doctor(*arguments, "--no-probe")
    check = table["configuration"]
    assert check.code is Code.CONFIGURATION_GOOD
    assert {"file": arguments[0], "section": f"event-publisher:{arguments[2]}"} == check.fields


def test_a_short_secret_is_a_warning(tmp_path: Path) -> None:
    """A secret of fewer than 16 bytes can be guessed."""
    table = diagnose(tmp_path, key__secret="c2hvcnQ=")
    assert (Code.SECRET_SHORT, {"size": 5}) == (table["key"].code, table["key"].fields)
    assert "c2hvcnQ" not in table.text


def test_the_words_on_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistakes are in the words of the configuration, with the command that checks it again."""
    with configured(tmp_path, key__name="$A_NAME", batch__max_age="soon") as arguments:
        table = doctor(*arguments)
        path, queue_name = arguments[0], arguments[2]
        mistake, unset = table["configuration"], table["environment"]
        check_command = command_line("publish", "--check", "--queue-name", queue_name, path)
        check_words(mistake, mistake.found, f"fix that; `{check_command}` checks only the configuration")
        check_words(
            unset,
            unset.found,
            "set it for the publisher and for this command: `export` in a shell, `Environment=` or "
            "`EnvironmentFile=` of systemd, `--env` of docker",
        )
        check_words(table["metrics"], "needs a valid configuration")
        monkeypatch.setenv("A_NAME", "TheNameOfTheKey")
        monkeypatch.setenv("A_SPAN", "1 second")
        text = Path(path).read_text()
        Path(path).write_text(text.replace("soon", "$A_SPAN"))
        table = doctor(*arguments, "--no-probe")
        check_words(table["configuration"], f"{path}: [event-publisher:{queue_name}] is valid")
        assert "environment" not in table.names


# --- how it is shown ---


@given(strategies.checks, st.booleans(), st.none() | st.integers(30, 200))
def test_a_row_shows_all_and_nothing_moves_the_cursor(check: Check, colour: bool, width: int | None) -> None:
    """A row has the verdict, the name, and all words of finding and remedy, within the width."""
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


def test_a_row_by_example() -> None:
    """A row has no code and no fields, which are for programs; a remedy is below what was found."""
    check = Check(Code.NAME_UNRESOLVED, "a name", Verdict.PROBLEM, "a\x1b b", "c d", ["d"], {"host": "e"})
    assert format_check(check, colour=False, width=None) == [
        "problem  a name                a\\x1b b",
        "                               remedy: c d",
    ]
    assert format_check(check, colour=True, width=3) == [
        "\x1b[31mproblem  \x1b[0ma name                a\\x1b",
        "                               b",
        "                               remedy:",
        "                               c d",
    ]


def test_the_table_has_a_row_for_each_check_and_a_sum(tmp_path: Path) -> None:
    """Without a terminal there is no colour and no wrapping: a line for each finding and each remedy."""
    with configured(tmp_path, "http://collector.invalid") as arguments:
        result = call("doctor", *arguments)
        table = doctor(*arguments)
    assert result.status == 1
    assert "\x1b" not in result.out
    *rows, blank, total = result.out.splitlines()
    names = [check.name for check in table.checks]
    assert names == [row[9:31].rstrip() for row in rows if row[:9].strip()]
    for row in format_check(table["collector name"], colour=False, width=None):
        assert row in rows
    assert blank == ""
    assert re.fullmatch(r"1 problem(, \d warnings?)?", total)


def test_the_sum_is_that_nothing_was_found_where_nothing_was(tmp_path: Path) -> None:
    """The last line counts problems and warnings in words."""
    with (
        configured(tmp_path, max_queue_size="1") as arguments,
        FaultCollector([Respond(), Respond(401)]) as server,
    ):
        config = Path(arguments[0])
        config.write_text(config.read_text().replace("127.0.0.1:9", server.url.removeprefix("http://")))
        result = call("doctor", *arguments)
    assert result.status == 0
    assert result.out.splitlines()[-1] == "no problems found"


def test_json_is_one_object_that_programs_can_go_by(tmp_path: Path) -> None:
    """A check has its code, its commands and its fields beside the texts; without a remedy that is null."""
    with configured(tmp_path, "http://collector.invalid") as arguments:
        report = json.loads(call("doctor", *arguments, "--json").out)
    assert {"checks", "verdict"} == report.keys()
    assert report["verdict"] == "problem"
    checks = {check["name"]: check for check in report["checks"]}
    check = checks["collector name"]
    assert {
        "name": "collector name",
        "code": "name-unresolved",
        "verdict": "problem",
        "found": check["found"],
        "remedy": check["remedy"],
        "commands": ["getent hosts collector.invalid"],
        "fields": {"host": "collector.invalid", "key": "collector.hostname"},
    } == check
    assert {
        "name": "collector connection",
        "code": "step-blocked",
        "verdict": "skipped",
        "found": checks["collector connection"]["found"],
        "remedy": None,
        "commands": [],
        "fields": {},
    } == checks["collector connection"]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_goes_to_a_terminal_alone(tmp_path: Path, no_color: str) -> None:
    """On a real terminal verdicts are coloured and texts wrapped, and NO_COLOR ends the colour."""
    with configured(tmp_path, "http://collector.invalid") as arguments:
        command = [sys.executable, "-m", "baseplate_events", "doctor", *arguments]
        environ = {"NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "90"}
        status, output = on_terminal(*command, environ=environ)
    assert status == 1
    assert (no_color == "") == ("\x1b[31mproblem" in output)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output).split("\r\n")
    assert all(len(line) <= 90 or max(map(len, line.split())) > 90 - 31 for line in lines)
    assert any(line.startswith(" " * 31) and "remedy" not in line for line in lines)


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    """With `| head` it exits with 1 and writes nothing to stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    with configured(tmp_path) as arguments:
        command = [sys.executable, "-m", "baseplate_events", "doctor", *arguments, "--no-probe"]
        with started(*command, stdout=writer, stderr=PIPE) as process:
            os.close(writer)
            assert Result(1, "", "") == finish(process)


def test_the_help_page_has_examples_and_exit_statuses() -> None:
    """`--help` shows how it is used and what its status means."""
    result = call("doctor", "--help")
    assert result.status == 0
    assert "examples:" in result.out
    assert "exit status:" in result.out
