from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.thrift_stubs.text import MARK
from tests.support.commands import Result, call

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMAS = Path(__file__).parents[2] / "schemas"

#: A class of the least size that is a struct.
STRUCT = "class {}:\n    thrift_spec = ()\n    def read(self, i): ...\n    def write(self, o): ...\n"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from, which are forgotten in the end."""
    folder = tmp_path / "sources"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        # A package without `__init__.py` has no file.
        module = sys.modules[name]
        if str(folder) in f"{getattr(module, '__file__', '')} {getattr(module, '__path__', '')}":
            del sys.modules[name]


@pytest.fixture
def event_schemas(sources: Path) -> str:
    """A package `event_schemas.event` as a service has it, by its name."""
    shutil.copytree(SCHEMAS / "plain" / "events", sources / "event_schemas" / "event")
    (sources / "event_schemas" / "__init__.py").touch()
    return "event_schemas.event"


def stubs(*modules: str, output: Path) -> Result:
    """Run the command."""
    return call("thrift-stubs", *modules, "--output", str(output))


def files(folder: Path) -> set[str]:
    """Return the stubs in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.pyi")}


def test_stubs_beside_the_sources(sources: Path, event_schemas: str) -> None:
    """In the folder of the sources each module gets a stub, a package that is there gets none, and again."""
    expected = {"event_schemas/event/ttypes.pyi", "event_schemas/event/constants.pyi"}
    for _ in range(2):
        result = stubs(event_schemas, output=sources)
        assert (0, "") == (result.status, result.err)
        assert {str(sources / name) for name in expected} == set(result.out.splitlines())
        assert expected == files(sources)


def test_stubs_in_a_folder_of_their_own(sources: Path, event_schemas: str, tmp_path: Path) -> None:
    """Elsewhere, which is created, packages get stubs too, and the sources stay as they are."""
    output = tmp_path / "new" / "stubs"
    result = stubs(f"{event_schemas}.ttypes", output=output)
    assert 0 == result.status
    assert {
        "event_schemas/__init__.pyi",
        "event_schemas/event/__init__.pyi",
        "event_schemas/event/ttypes.pyi",
    } == files(output)
    assert set() == files(sources)


def test_packages_without_a_file(sources: Path, event_schemas: str, tmp_path: Path) -> None:
    """Modules are found in folders without `__init__.py`, too, and constants only beside types."""
    (sources / "event_schemas" / "__init__.py").unlink()
    (sources / "event_schemas" / event_schemas.rpartition(".")[2] / "__init__.py").unlink()
    (sources / "event_schemas" / "constants.py").write_text("MINE = 3\n")
    assert 0 == stubs("event_schemas", output=tmp_path / "stubs").status
    assert {
        "event_schemas/__init__.pyi",
        "event_schemas/event/__init__.pyi",
        "event_schemas/event/ttypes.pyi",
        "event_schemas/event/constants.pyi",
    } == files(tmp_path / "stubs")


def test_a_stub_hides_nothing_of_a_package(sources: Path, event_schemas: str, tmp_path: Path) -> None:
    """The stub of a package with names of its own leaves them usable."""
    (sources / "event_schemas" / "__init__.py").write_text("VERSION = 3\n")
    assert 0 == stubs(event_schemas, output=tmp_path).status
    assert "__getattr__" in (tmp_path / "event_schemas" / "__init__.pyi").read_text()
    assert f"{MARK}\n" == (tmp_path / "event_schemas" / "event" / "__init__.pyi").read_text()


def test_modules_that_are_referred_to_get_stubs(tmp_path: Path) -> None:
    """A schema that another includes is written too, and services are left out of a package."""
    assert 0 == stubs("tests.schemas.names_plain", output=tmp_path).status
    found = files(tmp_path / "tests" / "schemas")
    assert {
        "names_plain/odd/ttypes.pyi",
        "names_plain/odd/constants.pyi",
        "plain/events/ttypes.pyi",
    } == {name for name in found if not name.endswith("__init__.pyi")}


def test_constants_have_types(tmp_path: Path) -> None:
    """A constant has the type of its value, and the module has the types of `ttypes` as well."""
    assert 0 == stubs("tests.schemas.names_enum.odd.constants", output=tmp_path).status
    text = (tmp_path / "tests/schemas/names_enum/odd/constants.pyi").read_text()
    lines = [line for line in text.splitlines() if line]
    assert "from .ttypes import *" in lines
    assert {
        "NUMBER: int",
        "TEXT: str",
        "NUMBERS: list[int]",
        "NOTHING: list[_typing.Any]",
        "TABLE: dict[str, list[float]]",
        "WORDS: set[str]",
        "HERE: _tests_schemas_enum_events_ttypes.Geo",
        "FIRST: _tests_schemas_names_enum_odd_ttypes.Day",
        "YES: bool",
    } <= set(lines)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("absent_package.ttypes", "", "can't be imported (ModuleNotFoundError: No module named 'absent_"),
        ("broken.absent", "", "can't be imported (ModuleNotFoundError: No module named 'broken.absent'"),
        ("broken", "import module_that_is_absent", "No module named 'module_that_is_absent'"),
        ("broken", "1 / 0", "'broken' can't be imported (ZeroDivisionError: division by zero)"),
        ("broken", "raise SystemExit(0)", "'broken' can't be imported (SystemExit"),
        ("broken", "def (", "'broken' can't be imported (SyntaxError"),
        ("broken.py", "", "'broken.py' can't be imported (ModuleNotFoundError"),
        ("broken/ttypes", "", "'broken/ttypes' can't be imported (ModuleNotFoundError"),
        (".ttypes", "", "'.ttypes' can't be imported (TypeError"),
        ("", "", "'' can't be imported (ValueError"),
        ("broken", "", "broken has no Thrift types; expected a module such as ttypes"),
        ("broken", STRUCT.format("Good") + "class Odd: ...", "broken has Odd, which a stub would hide"),
        ("broken", "def function(): ...", "broken has function, which a stub would hide"),
        (
            "broken",
            STRUCT.format("Bad").replace("()", "((1, 99, 'a', None, None),)"),
            "broken has Bad, which",
        ),
        ("broken", STRUCT.format("Bad").replace("()", "((1, 8),)"), "broken has Bad, which"),
        ("broken", STRUCT.format("Bad").replace("()", "((1, 12, 'a', (3,), 0),)"), "broken has Bad, which"),
        ("broken", STRUCT.format("Bad").replace("()", "((1, 13, 'a', (8,), 0),)"), "broken has Bad, which"),
        ("broken", STRUCT.format("Bad").replace("()", "((1, 13, 'a', 8, 0),)"), "broken has Bad, which"),
        ("broken", STRUCT.format("Bad").replace("()", "((1, 8, 'a', None, None),)"), "broken has Bad, which"),
        (
            "tests.schemas.names_plain.odd.Odd",
            "",
            "Odd has Iface, Client, Processor, which a stub would hide",
        ),
        ("posix_ipc", "", "posix_ipc: its source can't be read"),
        ("folder", "", "folder is a folder without a module ttypes"),
    ],
)
def test_modules_that_cannot_be_used(
    sources: Path, tmp_path: Path, name: str, text: str, expected: str
) -> None:
    """Each is one line that names it, and nothing is written, not even for a good one."""
    (sources / "broken.py").write_text(text)
    (sources / "folder").mkdir()
    output = tmp_path / "stubs"
    result = stubs("tests.schemas.newer", name, output=output)
    assert (2, "") == (result.status, result.out)
    [line] = result.err.splitlines()
    assert expected in line
    assert not output.exists()


#: A module as compiler 0.24 makes it with `enum,dynamic`, whose classes get their methods from elsewhere.
LATER = """
from enum import IntEnum
from base import TBase

class Kind(IntEnum):
    VIEW = 1

class Nothing(IntEnum):
    pass

class Event(TBase):
    thrift_spec = None

    def __init__(self, kind = None, number = None, frozen = None, ids = None, from_ = None, count = 3):
        self.kind = kind

    def __setattr__(self, name, value):
        if name == "kind":
            super().__setattr__(name, value if hasattr(value, 'value') or value is None else Kind(value))
            return
        super().__setattr__(name, value)

Event.thrift_spec = (
    None,
    (1, 8, 'kind', None, None, ),
    (2, 8, 'number', None, None, ),
    (3, 15, 'frozen', (8, None, True), None, ),
    (4, 14, 'ids', (16, None, True), None, ),
    (5, 11, 'from', None, None, ),
    (6, 10, 'count', None, 3, ),
)
"""


def test_output_of_later_compilers(sources: Path, tmp_path: Path) -> None:
    """Enums are found in what converts them, and containers that can't change are known."""
    (sources / "base.py").write_text(STRUCT.format("TBase"))
    (sources / "later.py").write_text(LATER)
    result = stubs("later", output=tmp_path)
    assert (0, f"{tmp_path / 'later.pyi'}\n") == (result.status, result.out)
    text = (tmp_path / "later.pyi").read_text()
    assert (
        "def __init__(self, *, kind: Kind | None = None, number: int | None = None, "
        "frozen: tuple[int, ...] | None = None, ids: frozenset[UUID] | None = None, "
        "from_: str | None = None, count: int | None = ...) -> None: ..."
    ) in text
    assert "class Nothing(IntEnum):\n    ...\n" in text


def test_a_folder_that_cannot_be_made(sources: Path, event_schemas: str, tmp_path: Path) -> None:
    """A file in the place of a package's folder is named."""
    del sources
    (tmp_path / "event_schemas").touch()
    result = stubs(event_schemas, output=tmp_path)
    assert 2 == result.status
    assert f"{tmp_path / 'event_schemas'}/__init__.pyi' can't be replaced: Not a directory" in result.err
    result = stubs(event_schemas, output=Path("/proc/stubs"))
    assert 2 == result.status
    assert "--output: '/proc/stubs" in result.err
    assert "can't be written" in result.err


def test_every_bad_module_is_named(tmp_path: Path) -> None:
    """All problems are reported at once."""
    result = stubs("absent_package", "json", "another/one", output=tmp_path)
    assert 2 == result.status
    assert 3 == len(result.err.splitlines())


def test_foreign_files_stay(sources: Path, event_schemas: str) -> None:
    """A stub that something else wrote isn't replaced, and no other is written."""
    foreign = sources / "event_schemas" / "event" / "ttypes.pyi"
    foreign.write_text("class Event: ...\n")
    result = stubs(event_schemas, output=sources)
    assert (2, "") == (result.status, result.out)
    assert f"{str(foreign)!a} exists and was not written by this command" in result.err
    assert "class Event: ...\n" == foreign.read_text()
    assert {"event_schemas/event/ttypes.pyi"} == files(sources)


def test_a_folder_in_the_place_of_a_stub(sources: Path, event_schemas: str) -> None:
    """What can't be replaced is named."""
    folder = sources / "event_schemas" / "event" / "ttypes.pyi"
    folder.mkdir()
    result = stubs(event_schemas, output=sources)
    assert 2 == result.status
    assert f"{str(folder)!a} can't be replaced" in result.err


def test_an_output_that_is_no_folder(tmp_path: Path) -> None:
    """A file can't be the folder, nor can one be in it."""
    file = tmp_path / "file"
    file.touch()
    result = stubs("tests.schemas.newer", output=file)
    assert 2 == result.status
    assert f"--output {str(file)!a}: it is not a folder" in result.err
    result = stubs("tests.schemas.newer", output=file / "folder")
    assert 2 == result.status
    assert str(file) in result.err
