"""The command `queue` on real spools: what it says, what it writes and what it makes."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import stat
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.queue.spool_info import inspect_spool
from baseplate_events.events import SPOOL_VARIABLE
from baseplate_events.spool import MIN_SPOOL_SIZE, problems
from baseplate_events.spool.format import MAX_PAYLOAD
from tests.cli.queue.processes import process
from tests.support.commands import call
from tests.support.examples import examples
from tests.support.processes import finish, say
from tests.support.queues import as_user, needs_root
from tests.support.spool_directories import TEAM, USER, as_member, fresh_place, mode_of, names_in, unusable
from tests.support.spool_reader import SpoolFileReader
from tests.support.spool_segments import write_segment
from tests.support.spool_services import NAME, open_queue, read_all, spool_of
from tests.support.strategies import json_events
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Result


def queue(action: str, place: Path, *words: str, stdin: str = "") -> Result:
    """Run an action of the command on the spool in a place."""
    return call("queue", action, NAME, "--spool-directory", str(place), *words, stdin=stdin)


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir())


# --- which queue ---


def test_the_option_the_variable_and_the_name_choose_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option counts more than the variable, and a name with a slash is a POSIX queue's in any case."""
    option, variable = tmp_path / "option", tmp_path / "variable"
    name = f"no-{os.urandom(8).hex()}"
    chosen = ["--spool-directory", str(option)]
    for place in (option, variable):
        place.mkdir()
    assert f"queue /events-{name}:" in call("queue", "stat", name).err
    assert f"queue {option}/events-{name}:" in call("queue", "stat", name, *chosen).err
    monkeypatch.setenv(SPOOL_VARIABLE, f" {variable} ")
    assert f"queue {variable}/events-{name}:" in call("queue", "stat", name).err
    assert f"queue {option}/events-{name}:" in call("queue", "stat", name, *chosen).err
    assert f"queue /events-{name}:" in call("queue", "stat", f"/events-{name}").err
    both = call("queue", "stat", f"/events-{name}", *chosen)
    assert both.status == 2
    assert "omit either the slash or --spool-directory" in both.err
    assert call("queue", "stat", name, "--spool-directory", "").status == 2


def test_a_relative_directory_is_that_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is understood as a service understands it."""
    monkeypatch.chdir(tmp_path)
    assert call("queue", "create", NAME, "--spool-directory", ".").status == 0
    assert spool_of(tmp_path).is_dir()


@pytest.mark.parametrize("action", ["stat", "read", "write", "unlink"])
def test_a_spool_that_isnt_there_is_reported_and_not_made(action: str, tmp_path: Path) -> None:
    """Every action except `create` exits with 1, names `create`, and leaves nothing behind."""
    result = queue(action, tmp_path, stdin="{}\n")
    assert result.status == 1
    assert names_in(tmp_path) == set()
    words = shlex.split(result.err.split("`")[1])
    assert words[:3] == [sys.executable, "-m", "baseplate_events"]
    assert call(*words[3:]).status == 0
    assert names_in(tmp_path) == {f"events-{NAME}"}


@pytest.mark.parametrize("action", ["stat", "read", "write", "create", "unlink"])
def test_a_missing_directory_may_be_a_volume(action: str, tmp_path: Path) -> None:
    """A missing directory ends it with 1 and isn't created: its events would reach no publisher."""
    result = queue(action, tmp_path / "nothing", stdin="{}\n")
    assert result.status == 1
    assert unusable(spool_of(tmp_path / "nothing"), errno.ENOENT) in result.err
    assert names_in(tmp_path) == set()


# --- write ---


@given(st.lists(json_events, max_size=8))
@examples(30)
def test_what_is_written_is_in_the_spool_in_order(events: list[bytes]) -> None:
    """A reader gets the same events, `stat` reports their bytes, and the segment doesn't claim a format."""
    with fresh_place() as place:
        queue("create", place).check()
        text = b"\n \r\n".join(events).decode()
        assert queue("write", place, stdin=text).check() == (
            f"put {len(events)} event{'' if len(events) == 1 else 's'} on {spool_of(place)}\n"
        )
        info = json.loads(queue("stat", place, "--json").check())
        assert info["backlog_bytes"] == size_of(spool_of(place))
        assert info["formats"] == ({"unknown": 1} if events else {})
        assert info["depth"] is None
        assert read_all(place) == [event.strip(b" \t") for event in events]


def test_a_full_spool_stops_write_with_the_line(tmp_path: Path) -> None:
    """It exits with 1, and all lines before the one it names are in the spool."""
    queue("create", tmp_path).check()
    lines = [f"{number} ".ljust(200_000, "x") for number in range(10)]
    words = ("--spool-max-size", str(MIN_SPOOL_SIZE), "--timeout", "0 seconds")
    result = queue("write", tmp_path, *words, stdin="\n".join(lines))
    put = int(result.out.split()[1])
    assert result.status == 1
    assert 5 <= put < 10
    assert "is full: it holds" in result.err
    assert f"; line {put + 1} " in result.err
    assert [line.encode() for line in lines[:put]] == read_all(tmp_path)


def test_write_waits_for_room(tmp_path: Path) -> None:
    """It waits for a full spool up to its timeout, and every line is put."""
    queue("create", tmp_path).check()
    lines = [f"{number} ".ljust(200_000, "x").encode() for number in range(12)]
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    words = ["--spool-directory", str(tmp_path), "--spool-max-size", str(MIN_SPOOL_SIZE)]
    with (
        process("write", NAME, str(tmp_path / "lines"), *words) as running,
        SpoolFileReader(spool_of(tmp_path)) as reader,
    ):
        wait_until(lambda: reader.read() >= 0 and running.poll() is not None, "it goes on waiting")
        assert (0, lines) == (running.returncode, reader.drain())


def test_a_line_that_no_record_holds_stops_write(tmp_path: Path) -> None:
    """The longest record is put; one byte more is an error with the limit and the line."""
    queue("create", tmp_path).check()
    lines = ["x" * MAX_PAYLOAD, "first", "x" * (MAX_PAYLOAD + 1)]
    result = queue("write", tmp_path, stdin="\n".join(lines))
    assert result.status == 1
    assert f"at most {MAX_PAYLOAD:,}" in result.err
    assert "line 3 and" in result.err
    assert [lines[0].encode(), b"first"] == read_all(tmp_path)


def test_write_can_be_interrupted(tmp_path: Path) -> None:
    """SIGINT ends it with 1 and the number of the next line; what was put stays."""
    queue("create", tmp_path).check()
    with process("write", NAME, "--spool-directory", str(tmp_path)) as running:
        say(running, "1")
        say(running, "2")
        with SpoolFileReader(spool_of(tmp_path)) as reader:
            wait_until(lambda: reader.read() >= 0 and len(reader.events) == 2, "nothing is put")
            running.send_signal(signal.SIGINT)
            result = finish(running)
            assert (1, [b"1", b"2"]) == (result.status, reader.drain())
    assert result.out.startswith("put 2 events on ")
    assert "line 3 and" in result.err


def test_a_size_that_cant_be_is_a_mistake_of_usage(tmp_path: Path) -> None:
    """A spool has a minimum size, and the size of a POSIX queue can't be set by `write`."""
    assert queue("write", tmp_path, "--spool-max-size", str(MIN_SPOOL_SIZE - 1)).status == 2
    result = call("queue", "write", "/events-x", "--spool-max-size", str(MIN_SPOOL_SIZE))
    assert result.status == 2
    assert "is a POSIX queue" in result.err


# --- stat ---


counts = st.dictionaries(st.sampled_from(["full", "too_large", "other"]), st.integers(1, 10**12), max_size=3)
segments = st.lists(st.tuples(st.sampled_from(["2", "2j", "unknown"]), st.none() | counts), max_size=5)


@given(segments, st.integers(0, 2))
@examples(30)
def test_stat_adds_up_what_the_segments_say(made: list[tuple[str, dict[str, int] | None]], odd: int) -> None:
    """Formats and refusals are those of all segments, also without a header; an unreadable one is named."""
    with fresh_place() as place:
        queue("create", place).check()
        folder = spool_of(place)
        for number, (event_format, refusals) in enumerate(made):
            head = bytes(4096) if number % 2 else None
            write_segment(folder, [b"{}"], event_format=event_format, refusals=refusals, head=head)
        unreadable = {write_segment(folder, head=b"no header\n").name for _ in range(odd)}
        info = json.loads(queue("stat", place, "--json").check())
        assert info["formats"] == Counter(event_format for event_format, _ in made)
        assert info["refused"] == sum((Counter(refusals) for _, refusals in made), Counter[str]())
        assert set(info["unreadable"]) == unreadable
        assert info["segments"] == len(made) + odd
        assert info["backlog_bytes"] == size_of(folder)
        assert len(info["warnings"]) == odd


def test_the_words_of_stat(tmp_path: Path) -> None:
    """The table has what the JSON has, and warnings go to stderr."""
    queue("create", tmp_path).check()
    folder = spool_of(tmp_path)
    write_segment(folder, [b"{}"], refusals={"full": 1_234, "other\\u001b": 1})
    newer = write_segment(folder, head=b"event-segment 2 x 1a39dd76\n")
    result = queue("stat", tmp_path)
    table = {line[:11].strip(): line[11:] for line in result.check().splitlines()}
    assert table["path"] == str(folder)
    assert table["backlog"] == f"{size_of(folder):,} bytes"
    assert table["segments"].startswith("2; the oldest started ")
    assert table["segments"].endswith(" h ago; formats: 2 1")
    assert table["publisher"] == "none"
    assert table["refused"] == "full 1,234, other 1"
    assert "inodes free" in table["disk"] or "bytes free" in table["disk"]
    assert table["mode"].startswith("0700: user ")
    assert f"warning: {newer.name} can't be read: its header is damaged" in result.err


def test_stat_shows_whether_a_publisher_runs(tmp_path: Path) -> None:
    """The publisher's lock counts, whoever holds it."""
    queue("create", tmp_path).check()
    with SpoolFileReader(spool_of(tmp_path)):
        assert json.loads(queue("stat", tmp_path, "--json").check())["publisher"] is True
    assert json.loads(queue("stat", tmp_path, "--json").check())["publisher"] is False


@needs_root
def test_the_spool_of_another_user_is_reported_as_such() -> None:
    """A user who may not read it gets the owner, the mode and the remedy, with status 1."""
    with fresh_place() as place:
        queue("create", place).check()
        with as_user(USER):
            results = [queue(action, place) for action in ("stat", "write", "unlink", "create")]
    assert [1] * len(results) == [result.status for result in results]
    assert all(f"of user {USER} may not read it" in result.err for result in results)
    assert all("mode 0700" in result.err for result in results)


def test_a_spool_that_is_open_to_all_is_warned_of(tmp_path: Path) -> None:
    """The warning has the command that ends it; `stat` itself changes nothing."""
    queue("create", tmp_path).check()
    folder = spool_of(tmp_path)
    folder.chmod(0o755)
    assert f"`chmod o-rwx {folder}`" in queue("stat", tmp_path).err
    assert mode_of(folder) == 0o755


def test_a_link_isnt_followed(tmp_path: Path) -> None:
    """A link, or a file, in the place of a spool is an error with a remedy."""
    folder = spool_of(tmp_path)
    for make in (partial(folder.symlink_to, tmp_path), folder.touch):
        make()
        result = queue("stat", tmp_path)
        assert result.status == 1
        assert f"{folder}: {problems.not_a_folder(str(folder))}\n" in result.err
        folder.unlink()


# --- create ---


@pytest.mark.parametrize(("mode", "folder_mode"), [("0600", 0o700), ("0660", 0o2770)])
def test_create_makes_the_folder_that_a_service_makes(mode: str, folder_mode: int, tmp_path: Path) -> None:
    """It has the mode that services give it, and a second call leaves it as it is."""
    made = queue("create", tmp_path, "--queue-mode", mode)
    assert made.check().startswith(f"{spool_of(tmp_path)} created: a spool ")
    assert mode_of(spool_of(tmp_path)) == folder_mode
    other = "0660" if mode == "0600" else "0600"
    again = queue("create", tmp_path, "--queue-mode", other)
    assert " already exists: " in again.check()
    assert "its mode is unchanged; change it with `ch" in again.err
    assert mode_of(spool_of(tmp_path)) == folder_mode
    with open_queue(tmp_path, mode=int(mode, 8)) as service:
        service.put(b"{}")
    assert mode_of(spool_of(tmp_path)) == folder_mode
    assert queue("create", tmp_path, "--queue-mode", mode).err == ""


@needs_root
def test_what_is_written_into_a_shared_spool_is_for_its_group() -> None:
    """The mode of the folder decides: files of `write` are those that other members may read and delete."""
    with fresh_place() as place:
        os.chown(place, 0, TEAM)
        place.chmod(0o2775)
        with as_member(USER, TEAM):
            pass
        place.chmod(0o2777)
        with as_member(USER, TEAM):
            queue("create", place, "--queue-mode", "0660").check()
        with as_member(USER + 1, TEAM):
            queue("write", place, stdin="{}\n").check()
        files = list(spool_of(place).iterdir())
        assert [(0o660, USER + 1, TEAM)] == [
            (stat.S_IMODE((status := file.stat()).st_mode), status.st_uid, status.st_gid) for file in files
        ]


@pytest.mark.parametrize(
    "words", [["--queue-mode", "0640"], ["--strict"], ["--max-queue-size", "5"], ["--max-event-size", "5"]]
)
def test_what_a_spool_cant_have_is_a_mistake_of_usage(words: list[str], tmp_path: Path) -> None:
    """It ends with 2, names it, and makes nothing."""
    result = queue("create", tmp_path, *words)
    assert result.status == 2
    assert "0o640" in result.err or words[0] in result.err
    assert inspect_spool(str(spool_of(tmp_path))) is None
