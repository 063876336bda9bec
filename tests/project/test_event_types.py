"""The README's table of event types is what mypy, pyright and `put` say of each.

`tox -e types` runs it. To rewrite the table, run `python -m tests.project.test_event_types`.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

import baseplate_events
from baseplate_events import EventError
from tests.support.commands import run
from tests.support.tools import not_installed

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"

#: Seconds; a checker's first run takes about ten.
PATIENCE: Final = 300.0

#: What stands around the table.
START: Final = "<!-- event types -->\n"
END: Final = "<!-- end of event types -->\n"

HEAD: Final = "| event | mypy, strict | pyright, strict | `put` |\n|---|---|---|---|\n"

#: What a service may put: in words, and in Python, the event being the last expression.
TYPES: Final = {
    "dict with keys of text": '{"a": 1}',
    "TypedDict": "class Click(TypedDict):\n    a: int\n\nClick(a=1)",
    "another mapping with keys of text": 'MappingProxyType({"a": 1})',
    "dataclass": "@dataclass(frozen=True)\nclass Click:\n    a: int\n\nClick(1)",
    "dataclass of pydantic": "@pydantic.dataclasses.dataclass\nclass Click:\n    a: int\n\nClick(1)",
    "attrs class": "@attrs.define\nclass Click:\n    a: int\n\nClick(1)",
    "msgspec struct": "class Click(msgspec.Struct, tag=True):\n    a: int\n\nClick(1)",
    "pydantic model": "class Click(pydantic.BaseModel):\n    a: int\n\nClick(a=1)",
    "generic pydantic model": "class Click(pydantic.BaseModel, Generic[T]):\n    a: T\n\nClick[int](a=1)",
    "`RootModel` of pydantic": "class Clicks(pydantic.RootModel[list[int]]):\n    pass\n\nClicks([1])",
    "NamedTuple": "class Click(NamedTuple):\n    a: int\n\nClick(1)",
    "class like a NamedTuple, with `_fields` and `_asdict`, such as SQLAlchemy's `Row`": (
        "class Row:\n"
        "    @property\n    def _fields(self) -> tuple[str, ...]:\n        return ('a',)\n"
        "    def _asdict(self) -> dict[str, Any]:\n        return {'a': 1}\n\n"
        "Row()"
    ),
    "mapping with keys that are numbers, bools or None (they are written as text)": "{1: 1}",
    "mapping with other keys, such as tuples": "{(1, 2): 1}",
    "instance of any other class": "class Click:\n    a = 1\n\nClick()",
    "a dataclass itself, not its instance: `Click`, not `Click(...)`": (
        "@dataclass\nclass Click:\n    a: int\n\nClick"
    ),
    "a NamedTuple class itself, not its instance": "class Click(NamedTuple):\n    a: int\n\nClick",
    "list or tuple": "(1, 2)",
    "str, bytes, number or None": '"a"',
}

MODULE: Final = """
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar
import attrs
import msgspec
import pydantic
import pydantic.dataclasses
from baseplate_events import serialize_v2j_event
from baseplate_events.testing import InMemoryEventQueue

T = TypeVar("T")
queue = InMemoryEventQueue("clicks", serialize_v2j_event)

{definition}

queue.put({event})
"""


def write_modules(folder: Path) -> list[Path]:
    """Write a module for each type of event, and return their paths."""
    paths: list[Path] = []
    for number, code in enumerate(TYPES.values()):
        definition, _, event = code.rpartition("\n")
        path = folder / f"event_{number:02}.py"
        path.write_text(MODULE.format(definition=definition, event=event))
        paths.append(path)
    return paths


def refused_by_mypy(folder: Path, config: str = "") -> set[str]:
    """Return the names of the modules in which mypy finds an error; it must be where the event is put."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", f"--config-file={config}", "."]
    environ = {"MYPYPATH": str(Path(baseplate_events.__file__).parents[1])}
    done = run(*command, cwd=folder, environ=environ, timeout=PATIENCE)
    assert done.status in {0, 1}, done
    found = re.findall(r"^(event_\d+\.py):(\d+): error: (.*)", done.out, re.MULTILINE)
    for name, line, text in found:
        check_place(folder / name, int(line), text)
    return {name for name, _, _ in found}


def refused_by_pyright(folder: Path) -> set[str]:
    """Return the names of the modules in which pyright finds an error; it must be where the event is put."""
    config = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(Path(baseplate_events.__file__).parents[1])],
        "reportUnusedClass": False,
        "reportUnusedImport": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = run(*command, cwd=folder, timeout=PATIENCE)
    names: set[str] = set()
    for found in json.loads(done.out)["generalDiagnostics"]:
        if found["severity"] == "error":
            path = Path(found["file"])
            check_place(path, found["range"]["start"]["line"] + 1, found["message"])
            names.add(path.name)
    return names


def check_place(path: Path, line: int, text: str) -> None:
    """Check that an error is about what is put."""
    assert path.read_text().splitlines()[line - 1].startswith("queue.put("), f"{path}:{line}: {text}"


def refused_by_put(path: Path) -> bool:
    """Run a module, and say whether the queue refused the event."""
    try:
        runpy.run_path(str(path))
    except EventError:
        return True
    return False


def find_rows() -> list[tuple[str, bool, bool, bool]]:
    """Return for each type of event whether mypy, pyright and `put` take it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_modules(folder)
        mypy, pyright = refused_by_mypy(folder), refused_by_pyright(folder)
        # Many services have this plugin, with which models are no dataclasses for mypy.
        (folder / "mypy.ini").write_text("[mypy]\nplugins = pydantic.mypy\n")
        assert mypy == refused_by_mypy(folder, "mypy.ini")
        return [
            (words, path.name not in mypy, path.name not in pyright, not refused_by_put(path))
            for words, path in zip(TYPES, paths, strict=True)
        ]


def table(rows: list[tuple[str, bool, bool, bool]]) -> str:
    """Return the table in Markdown."""
    cells = [(words, *("yes" if taken else "no" for taken in taken_by)) for words, *taken_by in rows]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in cells)


def replace_table(text: str, rows: list[tuple[str, bool, bool, bool]]) -> str:
    """Return the text of the README with this table."""
    before, start, rest = text.partition(START)
    assert start
    assert END in rest
    return f"{before}{START}{table(rows)}{END}{rest.partition(END)[2]}"


def test_the_table_of_event_types() -> None:
    """The README's table is true, and what a type checker takes, `put` takes."""
    absent = not_installed("mypy", "pyright", "attrs", "msgspec", "pydantic")
    if absent:
        pytest.skip(f"{absent}; `tox -e types` has them")
    rows = find_rows()
    assert [] == [words for words, mypy, pyright, put in rows if (mypy or pyright) and not put]
    text = README.read_text()
    assert replace_table(text, rows) == text


if __name__ == "__main__":
    README.write_text(replace_table(README.read_text(), find_rows()))
