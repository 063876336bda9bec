"""The tables of mutation testing agree with the code, and leave out only what isn't code."""

from __future__ import annotations

from pathlib import Path

import pytest

import baseplate_events
from tests.mutants.equivalent import EQUIVALENT, Equivalent
from tests.mutants.not_counted import find_not_counted
from tests.mutants.targets import COMMON, TARGETS

PACKAGE = Path(baseplate_events.__file__).parent
TESTS = Path(__file__).parents[1]


def source_of(module: str) -> Path:
    """Return the file of a module."""
    return PACKAGE / f"{module}.py"


@pytest.mark.parametrize("module", TARGETS)
def test_targets_exist(module: str) -> None:
    """So do their tests."""
    assert source_of(module).exists()
    for file in (*TARGETS[module], COMMON):
        assert (TESTS / f"{file}.py").exists(), file


def test_the_parts_that_matter_most_are_whole() -> None:
    """Each module of these folders is a target."""
    for folder in ("event_publisher/policy", "event_publisher/ledger", "json_writer"):
        modules = {f"{folder}/{file.stem}" for file in (PACKAGE / folder).glob("*.py")} - {
            f"{folder}/__init__"
        }
        assert modules <= TARGETS.keys()


@pytest.mark.parametrize("mutant", EQUIVALENT, ids=lambda mutant: f"{mutant.module}: {mutant.mutant}")
def test_equivalent_mutants_are_of_the_code(mutant: Equivalent) -> None:
    """A line that was changed since has other mutants, and each has its argument."""
    lines = [line.strip() for line in source_of(mutant.module).read_text().splitlines()]
    assert mutant.line in lines
    assert mutant.mutant != mutant.line
    assert mutant.why.endswith(".")


def test_what_is_not_counted() -> None:
    """Annotations, type aliases, what is for type checkers only, and the marks of parameters; no values."""
    source = (
        "from typing import TYPE_CHECKING, TypeAlias\n"
        "if TYPE_CHECKING:\n"
        "    from a import b\n"
        "A = int | str\n"
        "B: TypeAlias = int | str\n"
        "C: int | None = 1 | 2\n"
        "class D(E[1 | 2]):\n"
        "    é: int | None = f(1 | 2)\n"
        "    def g(self, x: int | str = 1 | 2, /, *, y: int = 3) -> int | None:\n"
        "        return x | y\n"
        "class H(Protocol):\n"
        "    @property\n"
        "    def i(self) -> int: ...\n"
        "J = TypeVar('J', covariant=True)\n"
    )
    lines = source.splitlines()
    found = {
        lines[start[0] - 1][start[1] : end[1]] if start[0] == end[0] else "a block"
        for start, end in find_not_counted(source)
    }
    assert found == {
        *("a block", "A = int | str", "B: TypeAlias = int | str", "int | None", "E[1 | 2]"),
        *("int | str", "int", "/", "*", "J = TypeVar('J', covariant=True)"),
    }
