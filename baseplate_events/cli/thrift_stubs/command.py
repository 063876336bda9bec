"""The command `thrift-stubs`: stub files that give types to what the Thrift compiler generates."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import ConfigurationError
from ..common import told
from .schema import Schema, read_schema
from .text import MARK, modules_of, stub_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from types import ModuleType

#: Modules in a package of the Thrift compiler that hold types; the others are those of services.
_WITH_TYPES: Final = ("ttypes", "constants")

_MODULE_NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command `thrift-stubs` to its parser."""
    parser.description = (
        "Write stub files (.pyi) for modules that the Thrift compiler made, so that mypy and pyright check "
        "events from their constructor to the queue. The modules are imported. Those that they refer to get "
        "stubs too. What the stubs say is read from thrift_spec and the generated methods."
    )
    parser.add_argument(
        "modules",
        metavar="MODULE",
        nargs="+",
        help="a module such as event_schemas.ttypes, or a package: each ttypes and constants in it",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="the folder that the packages are in, or another that type checkers search first (MYPYPATH, "
        "stubPath); it is created if it doesn't exist",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command `thrift-stubs`.

    Args:
        arguments: What a parser prepared by `add_arguments` made of the command line.

    Returns:
        The exit status: 0, or 2 if a module or the folder can't be used. Then nothing is written.
    """
    return told(lambda: _run(arguments.modules, Path(arguments.output)))


def _run(names: Sequence[str], output: Path) -> int:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    stubs = _stubs(_schemas(names), output)
    _check(output, stubs)
    try:
        for path, text in stubs.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"--output: {exc.filename!a} can't be written: {exc.strerror}") from exc
    for path in stubs:
        sys.stdout.write(f"{path}\n")
    return 0


def _schemas(names: Sequence[str]) -> list[Schema]:
    """Return the schemas of modules, and of those that they refer to.

    Raises:
        ConfigurationError: Some can't be used; it names all of them.
    """
    schemas: dict[str, Schema] = {}
    problems: list[str] = []
    todo = list(dict.fromkeys(names))
    seen = set(todo)
    while todo:
        name = todo.pop(0)
        try:
            module = _import(name)
            children = list(_modules_with_types(module))
            if children:
                found = children
            else:
                schemas[name] = read_schema(module)
                found = sorted(modules_of(schemas[name]))
        except ConfigurationError as exc:
            problems += exc.problems
            continue
        todo += [other for other in found if other not in seen]
        seen.update(found)
    if problems:
        raise ConfigurationError(*problems)
    return list(schemas.values())


def _import(name: str) -> ModuleType:
    if not _MODULE_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!a} can't name a module; expected a name with dots, such as event_schemas.ttypes"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            raise ConfigurationError(
                f"there is no module {exc.name}; run this in the folder that has it, or set PYTHONPATH"
            ) from exc
        raise ConfigurationError(f"{name} can't be imported: it needs the module {exc.name}") from exc
    except (Exception, SystemExit) as exc:
        raise ConfigurationError(f"{name} can't be imported: {type(exc).__name__}: {exc}") from exc


def _modules_with_types(module: ModuleType) -> Iterator[str]:
    """Give the names of the modules with types in a package, at any depth; nothing for a module.

    Raises:
        ConfigurationError: It is a package that only holds other modules.
    """
    found: list[str] = []
    for folder in map(Path, getattr(module, "__path__", ())):
        for types in sorted(folder.rglob("ttypes.py")):
            package = ".".join([module.__name__, *types.parent.relative_to(folder).parts])
            # A service may have a file `constants.py` of its own, but not beside types.
            found += [f"{package}.{name}" for name in _WITH_TYPES if types.with_name(f"{name}.py").exists()]
    if not found and getattr(module, "__file__", None) is None:
        raise ConfigurationError(
            f"{module.__name__} is a folder without a module ttypes; expected one, at any depth"
        )
    yield from found


def _stubs(schemas: Sequence[Schema], output: Path) -> dict[Path, str]:
    """Return the texts of all stubs by their paths."""
    stubs: dict[Path, str] = {}
    for schema in schemas:
        parts = schema.module.split(".")
        name = "__init__" if schema.is_package else parts.pop()
        for depth in range(1, len(parts) + (not schema.is_package)):
            folder = output.joinpath(*parts[:depth])
            # Beside the sources, the package is there. Elsewhere it must be one too: checkers prefer those.
            if not (folder / "__init__.py").exists():
                stubs[folder / "__init__.pyi"] = _package_text(".".join(parts[:depth]))
        stubs[output.joinpath(*parts, f"{name}.pyi")] = stub_text(schema)
    return stubs


def _package_text(name: str) -> str:
    """Return the stub of a package that holds modules, without hiding what else it has."""
    package = sys.modules[name]
    own = [
        key for key, value in vars(package).items() if key[:2] != "__" and not isinstance(value, type(sys))
    ]
    if not own:
        return f"{MARK}\n"
    return f"{MARK}\nfrom typing import Any\n\ndef __getattr__(name: str) -> Any: ...\n"


def _check(output: Path, stubs: dict[Path, str]) -> None:
    """Check that the stubs can be written, before any is.

    Raises:
        ConfigurationError: The folder isn't one, or there are files that this command didn't write.
    """
    if output.exists() and not output.is_dir():
        raise ConfigurationError(f"--output {str(output)!a}: it is not a folder")
    problems: list[str] = []
    for path in stubs:
        try:
            foreign = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0] != MARK
        except FileNotFoundError:
            continue
        except OSError as exc:
            problems.append(f"{str(path)!a} can't be replaced: {exc.strerror}")
            continue
        if foreign:
            problems.append(
                f"{str(path)!a} exists and was not written by this command; remove it, or choose another "
                "--output"
            )
    if problems:
        raise ConfigurationError(*problems)
