from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.cli.doctor.findings import Code
from baseplate_events.cli.doctor.memory import (
    PROCESS_MEMORY,
    MemoryLimit,
    judge_memory,
    judge_spool_memory,
    limit_files,
    memory_limit,
    message_memory,
    parse_limit,
    read_memory_limit,
)
from baseplate_events.transport.limits import QueueSize
from tests.support.doctors import check_words, doctor, doctor_in, sound
from tests.support.sandbox import sandbox
from tests.support.strategies import queue_sizes

if TYPE_CHECKING:
    from pathlib import Path

#: Names of cgroups, as systemd, Docker and Kubernetes have them, and stranger ones.
names = st.text(st.characters(exclude_characters="/\n\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in {".", ".."} and name.splitlines() == [name]
)
paths = st.lists(names, max_size=4).map(lambda parts: "/" + "/".join(parts))


# --- which files have a limit ---


@given(paths)
def test_a_cgroup_and_all_above_count(path: str) -> None:
    """The files are those from its own cgroup up to the root, in either version, or in both side by side."""
    parts = path.strip("/").split("/") if path != "/" else []
    above = ["/".join(parts[:count]) for count in range(len(parts), -1, -1)]

    def below(point: str, file: str) -> list[str]:
        return ["/".join(part for part in (point, folder, file) if part) for folder in above]

    v2 = below("/sys/fs/cgroup", "memory.max") + below("/sys/fs/cgroup/unified", "memory.max")
    v1 = below("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
    assert v2 == limit_files(f"0::{path}\n")
    assert v1 == limit_files(f"4:cpu,cpuacct:/other\n3:hugetlb,memory:{path}\n")
    assert v2 + v1 == limit_files(f"9:name=systemd:/x\n4:memory:{path}\n0::{path}\n")


def test_a_container_sees_its_own_cgroup_as_the_root() -> None:
    """Without a cgroup namespace its path is that of the host; what is mounted is its own cgroup."""
    files = {"/proc/self/cgroup": "0::/docker/abc\n", "/sys/fs/cgroup/memory.max": "1000\n"}
    assert MemoryLimit(1_000, "/sys/fs/cgroup/memory.max") == memory_limit(files.get)


@given(st.text())
@example("0::")
@example("4:memory")
@example("0::/../elsewhere")
def test_no_text_of_the_system_breaks_the_search(cgroups: str) -> None:
    """Any text is parsed without an exception."""
    for file in limit_files(cgroups):
        assert file.endswith(("memory.max", "memory.limit_in_bytes"))


@given(st.text(), st.integers(0, 2**64))
def test_a_limit_is_a_number_or_none(text: str, size: int) -> None:
    """Version 1 writes no limit as a number that no memory has."""
    assert parse_limit(f"{size}\n") == (size if size < 2**62 else None)
    assert parse_limit("max\n") is None
    assert parse_limit("9223372036854771712\n") is None
    found = parse_limit(text)
    assert found is None or int(text) == found


@given(st.lists(st.none() | st.just("max\n") | st.integers(0, 2**50).map(str), min_size=3, max_size=3))
def test_the_lowest_limit_counts(texts: list[str | None]) -> None:
    """A cgroup without the file, such as a host's root, has no limit."""
    places = [f"/sys/fs/cgroup{folder}/memory.max" for folder in ("/a/b", "/a", "")]
    files = {
        "/proc/self/cgroup": "0::/a/b\n",
        **{place: text for place, text in zip(places, texts, strict=True) if text is not None},
    }
    sizes = [int(text) for text in texts if text is not None and text != "max\n"]
    found = memory_limit(files.get)
    assert (min(sizes) if sizes else None) == (found.size if found else None)
    assert found is None or files[found.path] == str(found.size)


def test_a_system_without_proc_has_no_limit() -> None:
    """Without cgroups there is no limit, and no error."""
    assert memory_limit(lambda _: None) is None


def test_the_limit_of_this_process_can_be_read() -> None:
    """The limit of this host can be read, whatever its cgroup version."""
    limit = read_memory_limit()
    assert limit is None or 0 < limit.size < 2**62


# --- the memory of a queue ---


@given(st.integers(1, 2**24))
def test_a_message_takes_more_than_its_bytes(size: int) -> None:
    """The kernel's slab objects are at most twice as large as their contents."""
    taken = message_memory(size)
    assert size + 48 <= taken
    assert taken <= 2 * (size + 48) + 64
    assert message_memory(size) <= message_memory(size + 1)


@pytest.mark.parametrize(("size", "taken"), [(1_000, 2_048), (4_000, 4_096), (8_192, 8_256)])
def test_a_message_takes_what_was_measured(size: int, taken: int) -> None:
    """On Linux 6.18, by memory.kmem.usage_in_bytes."""
    assert taken == message_memory(size)


@given(queue_sizes, st.none() | st.integers(0, 2**41))
def test_a_limit_is_enough_just_if_a_full_queue_and_a_service_fit(size: QueueSize, limit: int | None) -> None:
    """What is advised is enough: a queue of fewer events, or a higher limit."""
    check = sound(judge_memory(size, MemoryLimit(limit, "/memory.max") if limit is not None else None))
    full = size.max_messages * message_memory(size.max_message_size)
    assert (full, limit) == (check.fields["needed"], check.fields["limit"])
    if limit is None:
        assert check.code is Code.MEMORY_UNLIMITED
    elif full + PROCESS_MEMORY <= limit:
        assert check.code is Code.MEMORY_SUFFICIENT
    else:
        assert check.code is Code.MEMORY_TOO_SMALL
        advised, fitting = check.fields["advised"], check.fields["fitting"]
        assert isinstance(advised, int)
        assert isinstance(fitting, int)
        assert judge_memory(size, MemoryLimit(advised, "/x")).code is Code.MEMORY_SUFFICIENT
        assert fitting < size.max_messages
        if fitting:
            smaller = size._replace(max_messages=fitting)
            assert judge_memory(smaller, MemoryLimit(limit, "/x")).code is Code.MEMORY_SUFFICIENT


def test_the_words_on_a_memory_limit() -> None:
    """Both sizes are named, and each way to make them fit."""
    size = QueueSize(10_000, 102_400)
    limit = MemoryLimit(200 * 1024**2, "/sys/fs/cgroup/memory.max")
    check_words(judge_memory(size, None), "none (a full queue takes 1,026,560,000 bytes)")
    check_words(
        judge_memory(QueueSize(10, 8_192), limit),
        "209,715,200 bytes (/sys/fs/cgroup/memory.max); a full queue takes 82,560 of them",
    )
    found = "209,715,200 bytes (/sys/fs/cgroup/memory.max); a full queue takes 1,026,560,000 of them: "
    remedy = (
        "set a smaller max_event_size, and recreate the queue; or raise the limit of each service that puts "
        "events: `MemoryMax=1093668864` with systemd, `--memory 1093668864` with docker, "
        '`limits.memory: "1093668864"` in a pod'
    )
    check_words(
        judge_memory(size, limit),
        f"{found}a service under this limit will be killed before its queue is full",
        f"set max_queue_size to 1389 or less, or {remedy}",
    )
    tiny = judge_memory(size, MemoryLimit(PROCESS_MEMORY, "/x"))
    assert tiny.remedy == remedy


@given(st.integers(2**20, 2**45), st.integers(0, 2**46))
def test_a_full_spool_in_memory_fits_or_what_fits_is_named(max_size: int, limit: int) -> None:
    """A full queue must fit besides a small service; the advised size fits exactly."""
    check = sound(judge_spool_memory(max_size, MemoryLimit(limit, "/x")))
    fits = max_size + PROCESS_MEMORY <= limit
    assert check.code is (Code.SPOOL_MEMORY_SUFFICIENT if fits else Code.SPOOL_MEMORY_TOO_SMALL)
    if not fits:
        advised, fitting = check.fields["advised"], check.fields["fitting"]
        assert isinstance(advised, int)
        assert isinstance(fitting, int)
        assert judge_spool_memory(max_size, MemoryLimit(advised, "/x")).code is Code.SPOOL_MEMORY_SUFFICIENT
        if fitting:
            enough = judge_spool_memory(fitting, MemoryLimit(limit, "/x"))
            assert enough.code is Code.SPOOL_MEMORY_SUFFICIENT


def test_the_words_on_a_spool_in_memory() -> None:
    """The size of a full spool, the limit, and each way to make it fit are given."""
    limit = MemoryLimit(200 * 1024**2, "/sys/fs/cgroup/memory.max")
    start = "in memory; a full spool takes"
    check_words(judge_spool_memory(1_000_000, None), f"{start} 1,000,000 bytes, and there is no limit")
    of = "of 209,715,200 bytes (/sys/fs/cgroup/memory.max)"
    check_words(judge_spool_memory(1_000_000, limit), f"{start} 1,000,000 {of}")
    check_words(
        judge_spool_memory(1024**3, limit),
        f"{start} 1,073,741,824 {of}: its writers will be killed before the spool is full",
        "set spool.max_size, and max_spool_size of each service, to 142606336 or less; or use a disk; or "
        "raise the limit to 1140850688 or more",
    )


# --- the command ---


def test_the_limit_is_checked_in_the_cgroup_of_the_doctor(tmp_path: Path) -> None:
    """Here with a path that leads to a stand-in for its file: a queue of any size is too large for it."""
    (tmp_path / "cgroup").write_text(f"0::/../../..{tmp_path}\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    with sandbox(tmp_path) as place:
        table = doctor_in(place, after=f"mount --bind {tmp_path / 'cgroup'} /proc/$$/cgroup")
    check = table["memory limit"]
    assert check.code is Code.MEMORY_TOO_SMALL
    path = f"/sys/fs/cgroup/../../..{tmp_path}/memory.max"
    assert (1_000_000, path) == (check.fields["limit"], check.fields["path"])


def test_the_limit_is_a_part_of_every_check_of_a_queue() -> None:
    """Without a configuration a queue of the default size is judged, as far as the host allows it."""
    check = doctor()["memory limit"]
    needed = check.fields["needed"]
    assert isinstance(needed, int)
    assert needed > 0
