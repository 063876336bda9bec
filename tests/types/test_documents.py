"""The examples in README.md and docs/services.md pass strict type checkers, as they promise."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.commands import IMPORTING, run
from tests.support.documents import blocks
from tests.types.checks import CHECKERS, mypy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.commands import Result

SCHEMA: Final = Path(__file__).parents[1] / "schemas" / "plain" / "events"

#: Files of the guide that need no framework; most of those have no types.
FILES: Final = ("shop_events.py", "asyncio_job.py")

#: Commands that write stubs.
COMMANDS: Final = [
    *blocks("README.md", "console", heading="In a service"),
    *blocks("docs/services.md", "console", heading="Types for Thrift events"),
]


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A folder with the examples, and the classes that they import."""
    thrift, json, *_ = blocks("README.md", "python", heading="In a service")
    (tmp_path / "thrift_events.py").write_text(thrift.text)
    (tmp_path / "json_events.py").write_text(json.text)
    for block in blocks("docs/services.md", "python"):
        if block.file in FILES:
            (tmp_path / block.file).write_text(block.text)
    shutil.copytree(SCHEMA, tmp_path / "event_schemas" / "event")
    (tmp_path / "event_schemas" / "__init__.py").touch()
    return tmp_path


def write_stubs(service: Path) -> None:
    """Run the documented command in the folder of a service."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in COMMANDS[0].commands:
        run("env", "-C", str(service), *shlex.split(command), environ={"PATH": path, **IMPORTING}).check()


def test_there_is_one_command() -> None:
    """Both documents have the same command."""
    assert [COMMANDS[0].commands] * 2 == [block.commands for block in COMMANDS]


@pytest.mark.parametrize("check", CHECKERS.values(), ids=CHECKERS)
def test_examples_pass_strict_checks(service: Path, check: Callable[..., Result]) -> None:
    """With the stubs that the documented command writes, neither checker finds anything."""
    write_stubs(service)
    result = check(service, ["thrift_events.py", "json_events.py", *FILES])
    assert 0 == result.status, result.out


def test_without_stubs_the_example_fails(service: Path) -> None:
    """What the documents say of generated classes: the call of a constructor is untyped."""
    result = mypy(service, ["thrift_events.py"])
    assert 1 == result.status
    assert "[no-untyped-call]" in result.out


@pytest.mark.parametrize("check", CHECKERS.values(), ids=CHECKERS)
def test_a_wrong_field_is_an_error(service: Path, check: Callable[..., Result]) -> None:
    """The error that the README names is one."""
    write_stubs(service)
    (service / "wrong.py").write_text("from event_schemas.event.ttypes import Event\n\nEvent(source=1)\n")
    result = check(service, ["wrong.py"])
    assert 1 == result.status
    assert "wrong.py:3" in result.out
