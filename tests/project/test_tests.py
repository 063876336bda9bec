"""The tests mirror the package, so that the tests of a module are found by its name."""

from __future__ import annotations

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


def test_no_test_file_is_too_long() -> None:
    """A test file has at most 700 lines; one that grows beyond that is split by its subjects."""
    files = {name(file): file.read_text().count("\n") for file in TESTS.rglob("test_*.py")}
    assert {file for file, lines in files.items() if lines > MAX_LINES} == set()


def test_numbers_of_examples_follow_the_profile() -> None:
    """No test has a fixed number of examples, so a long profile finds more in each (`support.examples`)."""
    fixed = re.compile(r"max_examples=\d")
    files = {name(file) for file in TESTS.rglob("*.py") if fixed.search(file.read_text())}
    assert files == {"conftest.py"}


def test_there_is_one_way_to_wait() -> None:
    """Nothing but `tests/support/waiting.py` defines `wait_until`, in the tests and in the benchmarks."""
    sources = [*TESTS.rglob("*.py"), *(TESTS.parent / "benchmarks").rglob("*.py")]
    defined = [file for file in sources if re.search(r"\bdef _?wait_until\b", file.read_text())]
    assert [TESTS / "support" / "waiting.py"] == defined
