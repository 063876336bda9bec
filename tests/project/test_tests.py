"""The tests mirror the package, so that the tests of a module are found by its name."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

import baseplate_events

TESTS: Final = Path(__file__).parents[1]
PACKAGE: Final = Path(baseplate_events.__file__).parent

#: Lines of a test file, beyond which it has more than one subject.
MAX_LINES: Final = 700

#: Files that are named after what they show, because it involves several modules.
SCENARIOS: Final = {
    "cli/test_closed_streams.py",
    "cli/test_commands.py",
    "cli/test_foreign_text.py",
    "cli/doctor/test_remedies.py",
    "event_publisher/test_original_failures.py",
    "event_publisher/test_rollout.py",
    "event_publisher/test_simulation.py",
    "event_publisher/test_survival.py",
    "event_publisher/test_unread_log.py",
    "test_threads.py",
}


#: Modules without a test file of their own, and the one in which they are tested: through what uses them.
TESTED_IN: Final = {
    "__main__.py": "cli/test_commands.py",
    "_compat.py": "transport/test_limits.py",
    "observed_queue.py": "test_events_counters.py",
    "queue_settings.py": "test_events.py",
    "cli/demo.py": "cli/test_commands.py",
    "cli/dead_letters/place.py": "cli/dead_letters/test_command.py",
    "cli/doctor/codes.py": "cli/doctor/test_findings.py",
    "cli/doctor/probe.py": "cli/doctor/test_collector.py",
    "cli/queue/info.py": "cli/queue/test_command.py",
    "cli/queue/posix.py": "cli/queue/test_command.py",
    "cli/queue/posix_ends.py": "cli/queue/test_command.py",
    "cli/queue/spool_info.py": "cli/queue/test_spool.py",
    "cli/queue/spool_place.py": "cli/queue/test_spool_events.py",
    "cli/queue/transfer.py": "cli/queue/test_command.py",
    "cli/status/report.py": "cli/status/test_command.py",
    "cli/thrift_stubs/schema.py": "cli/thrift_stubs/test_text.py",
    "cli/thrift_stubs/source.py": "cli/thrift_stubs/test_text.py",
    "cli/thrift_stubs/types.py": "cli/thrift_stubs/test_text.py",
    "counting/reasons.py": "counting/test_refusal_log.py",
    "event_publisher/__main__.py": "cli/test_commands.py",
    "event_publisher/certificates.py": "event_publisher/test_http_transport.py",
    "event_publisher/clock.py": "event_publisher/test_sender.py",
    "event_publisher/config/declare.py": "event_publisher/config/test_settings.py",
    "event_publisher/config/ini_lines.py": "event_publisher/config/test_ini.py",
    "event_publisher/config/options.py": "event_publisher/config/test_settings.py",
    "event_publisher/exit_status.py": "cli/test_commands.py",
    "event_publisher/inotify.py": "event_publisher/spool_reader/test_watch.py",
    "event_publisher/missing_queue.py": "event_publisher/test_publisher_spool.py",
    "event_publisher/policy/rejection.py": "event_publisher/policy/test_delivery.py",
    "event_publisher/relay.py": "event_publisher/test_spool_source.py",
    "event_publisher/spool_reader/catalog.py": "event_publisher/spool_reader/test_reader.py",
    "event_publisher/spool_reader/findings.py": "event_publisher/spool_reader/test_reader.py",
    "event_publisher/spool_reader/followed_segment.py": "event_publisher/spool_reader/test_reader.py",
    "event_publisher/standard_streams.py": "cli/test_closed_streams.py",
    "json_writer/forms.py": "json_writer/test_writer.py",
    "json_writer/hook.py": "test_serializers.py",
    "spool/open_directory.py": "spool/test_directory.py",
    "spool/problems.py": "spool/test_directory.py",
    "transport/discarding.py": "test_events_counters.py",
    "transport/opening.py": "test_events_transports.py",
}


def folders() -> list[str]:
    """Return the folders of the package, itself among them, by their paths in it."""
    return sorted({str(module.parent.relative_to(PACKAGE)) for module in PACKAGE.rglob("*.py")})


def name(path: Path) -> str:
    """Return the path of a file of the tests as the tables above have it."""
    return path.relative_to(TESTS).as_posix()


@pytest.mark.parametrize("folder", folders())
def test_a_test_file_is_named_after_its_module(folder: str) -> None:
    """The tests of a folder of the package are in the folder of that name, each file named after a module.

    A file for a part of a module has that module's name and a word more.
    """
    modules = {module.stem for module in (PACKAGE / folder).glob("*.py")}
    assert (TESTS / folder / "__init__.py").exists()
    for file in (TESTS / folder).glob("test_*.py"):
        subject = file.stem.removeprefix("test_")
        words = subject.split("_")
        names = {"_".join(words[: count + 1]) for count in range(len(words))}
        assert names & modules or name(file) in SCENARIOS, f"there is no module {folder}/{subject}.py"


def test_the_exceptions_are_needed() -> None:
    """Each file in the table exists."""
    assert all((TESTS / file).exists() for file in SCENARIOS)


def has_test_file(module: Path) -> bool:
    """Return whether a test file is named after a module, or a folder with test files is."""
    folder = TESTS / module.parent.relative_to(PACKAGE)
    own = [folder / f"test_{module.stem}.py", *folder.glob(f"test_{module.stem}_*.py")]
    return any(file.exists() for file in own) or any((folder / module.stem).glob("test_*.py"))


def test_each_module_has_a_test_file() -> None:
    """A module has a test file with its name, or is in the table with the one that tests it."""
    modules = {module.relative_to(PACKAGE).as_posix(): module for module in PACKAGE.rglob("*.py")}
    without = {path for path, module in modules.items() if not has_test_file(module)}
    assert {path for path in without if not path.endswith("__init__.py")} == set(TESTED_IN)
    assert all((TESTS / file).exists() for file in TESTED_IN.values())


def test_no_test_file_is_too_long() -> None:
    """A test file has at most 700 lines; one that grows beyond that is split by its subjects."""
    files = {name(file): file.read_text().count("\n") for file in TESTS.rglob("test_*.py")}
    assert {file for file, lines in files.items() if lines > MAX_LINES} == set()


def test_numbers_of_examples_follow_the_profile() -> None:
    """No test has a fixed number of examples, so a long profile finds more in each (`support.examples`)."""
    fixed = re.compile(r"max_examples=\d")
    files = {name(file) for file in TESTS.rglob("*.py") if fixed.search(file.read_text())}
    assert files == {"conftest.py"}


def sources() -> dict[str, str]:
    """Return the code of the tests and of the benchmarks, by its path."""
    files = [*TESTS.rglob("*.py"), *(TESTS.parent / "benchmarks").rglob("*.py")]
    return {file.relative_to(TESTS.parent).as_posix(): file.read_text() for file in files}


def test_there_is_one_way_to_wait() -> None:
    """Nothing but `tests/support/waiting.py` defines `wait_until`, in the tests and in the benchmarks."""
    defined = {file for file, code in sources().items() if re.search(r"\bdef _?wait_until\b", code)}
    assert defined == {"tests/support/waiting.py"}


#: Files with a loop that waits in another way, each with the reason for it.
WAITERS: Final = {
    "tests/interop/producer.py": "a service that puts again when its queue is full",
    "tests/machine/cuts/scene.py": "waits for whichever of several things comes first, and notes when",
    "tests/machine/guest/producer.py": "a service that puts at a steady rate",
    "tests/soak/spool/producer.py": "a service that puts again when its spool is full",
    "tests/soak/survival/rig.py": "a service that puts at a steady rate",
    "tests/soak/survival/scenarios.py": "a publisher lives for a time that chance decides",
    "tests/soak/survival/__main__.py": "measures how long each scenario takes",
    "tests/support/queues.py": "lets a time pass on the clock of a producer",
    "tests/support/waiting.py": "the way to wait",
}


def waits_in_a_loop(code: str) -> bool:
    """Return whether a loop of a module looks at the clock, or sleeps."""
    if re.search("sleep|monotonic", code) is None:
        return False  # so that most modules needn't be parsed
    loops = [node for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.While, ast.For))]
    nodes = [node for loop in loops for node in ast.walk(loop)]
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    return not called.isdisjoint({"time.monotonic", "time.sleep", "monotonic", "sleep"})


def test_no_loop_waits_in_a_way_of_its_own() -> None:
    """Tests poll with `wait_until`, so each failure says what didn't come, and none waits for longer."""
    found = {file for file, code in sources().items() if file.startswith("tests/") and waits_in_a_loop(code)}
    assert found == set(WAITERS)


def test_another_way_to_wait_is_found() -> None:
    """A loop that sleeps or looks at the clock is found; neither a measurement nor a simulated clock is."""
    assert waits_in_a_loop("import time\nwhile not ready():\n    time.sleep(0.1)")
    assert waits_in_a_loop("import time\nwhile time.monotonic() < end and not ready():\n    pass")
    assert not waits_in_a_loop(
        "import time\nbegan = time.monotonic()\nfor _ in range(3):\n    clock.sleep(1.0)"
    )


#: Files that start processes, each with the reason why it has a way of its own.
STARTERS: Final = {
    "benchmarks/footprint.py": "measures a single child, with wait4(2), and without what `subprocess` adds",
    "tests/support/commands.py": "the way to run a command to its end",
    "tests/support/processes.py": "the way to start a process beside a test",
    "tests/machine/guest/agent.py": "runs in the guest, which has only the standard library",
    "tests/machine/qemu.py": "a machine is an object that outlives the block that starts it",
    "tests/mutants/__main__.py": "what runs for hours shows its progress, so its output isn't captured",
    "tests/release/check.py": "runs where the package isn't installed, and so can't be imported",
    "tests/vendored/check.py": "likewise",
}

#: Functions that start processes. `os.fork` is no command: the child goes on in the same program.
STARTING: Final = re.compile(
    r"subprocess\.(run|call|check_call|check_output|getoutput|getstatusoutput|Popen)"
    r"|os\.(system|popen|posix_spawnp?|spawn\w+)|asyncio\.create_subprocess_\w+"
)


def starts_processes(code: str) -> bool:
    """Return whether a module itself starts processes; a program in a string is run by another."""
    if re.search(r"subprocess|\bos\b", code) is None:
        return False  # so that most modules needn't be parsed
    nodes = list(ast.walk(ast.parse(code)))
    names = [
        f"{node.module}.{name.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]
    called = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
    return any(map(STARTING.fullmatch, [*names, *called]))


def test_there_is_one_way_to_run_a_command() -> None:
    """Only `support.commands` and `support.processes` start processes, and the exceptions in the table."""
    assert {file for file, code in sources().items() if starts_processes(code)} == set(STARTERS)


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.run(['true'])",
        "import subprocess\nwith subprocess.Popen('true') as process:\n    pass",
        "from subprocess import check_output",
        "import os\nos.system('true')",
    ],
)
def test_another_way_to_run_a_command_is_found(code: str) -> None:
    """It is found in code, and neither in a program within a string nor in an annotation."""
    assert starts_processes(code)
    assert not starts_processes(f"program = {code!r}")
    assert not starts_processes("def stop(process: subprocess.Popen[bytes]) -> None: ...")
