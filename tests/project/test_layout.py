"""The layout of the package, and who imports whom: `tox -e lint` runs this without importing the package.

An import counts wherever it stands: in a function, under `TYPE_CHECKING`, or by `import_module`.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = "baseplate_events"

#: Functions that import, and what stands for a module that one imports whose name isn't in the text.
LATE: Final = {"importlib.import_module", "import_module", "__import__"}
UNKNOWN: Final = "?"

#: What services import. These parts import nothing but each other, so a service can vendor them alone.
LIBRARY: Final = (
    *("__init__", "_compat", "_log", "_words", "errors", "events", "framework", "observed_queue"),
    *("queue_settings", "serializers", "thrift_fallback", "thrift_json"),
    *("counting", "json_writer", "spool", "transport"),
)

#: The parts of the package, and what of the package each may import. The longest name that fits counts.
MAY_IMPORT: Final = {
    **dict.fromkeys(LIBRARY, LIBRARY),
    "__main__": ("__init__", "event_publisher.standard_streams"),
    "pytest_plugin": (*LIBRARY, "testing"),
    "testing": (*LIBRARY, "testing", "dev_collector"),
    "dev_collector": (
        *LIBRARY,
        *("dev_collector", "event_publisher.connection_server", "event_publisher.policy.wire"),
    ),
    "event_publisher": (*LIBRARY, "event_publisher"),
    # Of the spool only its format, which is pure.
    "event_publisher.policy": ("event_publisher.policy", "errors", "_compat", "_words", "spool.format"),
    "cli": (*LIBRARY, "cli", "dev_collector", "event_publisher"),
}

#: What isn't of the standard library, and the modules that import it.
THIRD_PARTY: Final = {
    "posix_ipc": {"transport.descriptor"},
    "thrift": {"thrift_fallback", "cli.doctor.host"},  # the doctor only asks whether it can be imported
    "pytest": {"pytest_plugin"},
    UNKNOWN: {"__main__", "cli.thrift_stubs.command"},  # a command by its name, and what a user names
}

#: What the policy may import of the standard library: nothing that reads a clock, waits, or does I/O.
PURE: Final = {
    *("__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "copy", "dataclasses"),
    *("email.utils", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "itertools", "json"),
    *("math", "operator", "re", "statistics", "string", "struct", "types", "typing", "zlib"),
}

#: Lines that a module has at most.
LIMIT: Final = 460


def find_package() -> Path:
    """Return the folder that `import baseplate_events` would find."""
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


PACKAGE: Final = find_package()
FILES: Final = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(folder: tuple[str, ...], tree: ast.Module) -> Iterator[str]:
    """Yield the imports of a module of a folder: `.events` for a module of the package, `json` for others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*folder[: len(folder) - node.level + 1], *filter(None, (node.module or "").split("."))]
            names = [".".join([*base, alias.name]) for alias in node.names]
            yield from ("." + (name if name in FILES else ".".join(base) or "__init__") for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in LATE:
            first = node.args[0]
            yield str(first.value) if isinstance(first, ast.Constant) else UNKNOWN


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return the imports of each module."""
    return {
        module: set(imports_of(path.relative_to(PACKAGE).parent.parts, ast.parse(path.read_text())))
        for module, path in FILES.items()
    }


def within(module: str, *parts: str) -> bool:
    """Return whether a module is one of these parts, or is in one of them."""
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def part_of(module: str) -> str:
    """Return the part of the package that a module is in."""
    return max((part for part in MAY_IMPORT if within(module, part)), key=len)


def test_the_layout_is_complete() -> None:
    """What is at the top of the package is what the layout has there."""
    found = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == {"py.typed", *(part for part in MAY_IMPORT if "." not in part)}


def test_a_part_imports_what_it_may() -> None:
    """Inside the package, each part imports what the layout allows; the library only itself."""
    assert [] == [
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in sorted(names)
        if name[0] == "." and not within(name[1:], *MAY_IMPORT[part_of(module)])
    ]


def test_other_packages_are_imported_in_one_place() -> None:
    """Outside the package, a module imports the standard library, or what it alone imports."""
    found = {
        (package, module)
        for module, names in imports().items()
        for package in {name.partition(".")[0] for name in names if name[0] != "."} - sys.stdlib_module_names
    }
    assert found == {(package, module) for package, modules in THIRD_PARTY.items() for module in modules}


def test_the_policy_is_pure() -> None:
    """The policy imports nothing that could read a clock, wait, log, or do I/O."""
    assert [] == [
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in sorted(names)
        if within(module, "event_publisher.policy") and name[0] != "." and not within(name, *PURE)
    ]


def test_the_policy_calls_no_builtin_that_does_io() -> None:
    """The policy has no file and no terminal by way of a builtin function either."""
    modules = [module for module in FILES if within(module, "event_publisher.policy")]
    calls = {
        (module, ast.unparse(node.func))
        for module in modules
        for node in ast.walk(ast.parse(FILES[module].read_text()))
        if isinstance(node, ast.Call)
    }
    assert [] == sorted(call for call in calls if call[1] in {"open", "print", "input", "exec", "eval"})


def test_there_are_no_cycles() -> None:
    """No module imports itself by way of others, not even for type checkers."""
    graph = {module: {name[1:] for name in names if name[0] == "."} for module, names in imports().items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_a_class_has_its_name_alone() -> None:
    """No two classes of the package share a name."""
    nodes = [node for path in FILES.values() for node in ast.walk(ast.parse(path.read_text()))]
    counts = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [] == sorted(name for name, count in counts.items() if count > 1)


def test_modules_are_short() -> None:
    """No module has too many lines to be read at once."""
    lengths = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    assert {} == {module: length for module, length in lengths.items() if length > LIMIT}


def test_every_form_of_an_import_counts() -> None:
    """Imports are found in functions, for type checkers, of modules and of names, and by their text."""
    text = """
import os.path
from json import dumps
from .. import __version__
from . import ini
from .values import format_span
if TYPE_CHECKING:
    from ...cli import demo
def late():
    from ..policy.wire import sign
    importlib.import_module("thrift.protocol")
    import_module(name)
"""
    found = imports_of(("event_publisher", "config"), ast.parse(text))
    assert set(found) == {
        *("os.path", "json.dumps", "thrift.protocol", UNKNOWN, ".event_publisher", ".cli.demo"),
        *(".event_publisher.config.ini", ".event_publisher.config.values", ".event_publisher.policy.wire"),
    }
