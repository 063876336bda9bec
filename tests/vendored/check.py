"""Checks that the package works as a vendored copy, in a service that knows nothing of it.

It copies the package to `acme/_vendor` of a service in a temporary folder, which also gets event classes of
the Thrift compiler. There the copy must be imported, run and type-checked as if it were the service's own,
under the default settings of both type checkers, without stubs. Another service gets the library alone:
no publisher, no commands, and nothing for tests.

It needs what the package needs at run time, mypy and pyright. The package itself must not be installed, so
that nothing is found there by accident.
Ends with 0 if every step went well, else with 1; the output of a step that didn't is shown.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The name of a step, what a command that must fail has to say (nothing if it must succeed), and the command.
_Step: TypeAlias = "tuple[str, Sequence[str], Sequence[str]]"

_PACKAGE: Final = Path(__file__).resolve().parents[2] / "baseplate_events"
_TEMPLATE: Final = Path(__file__).with_name("template")
_GENERATED: Final = Path(__file__).resolve().parents[1] / "schemas" / "plain" / "events"

#: Path of the copy within the service, and its name.
_COPY: Final = Path("acme", "_vendor", _PACKAGE.name)
_NAME: Final = ".".join(_COPY.parts)

#: What of the package isn't the library.
_NOT_LIBRARY: Final = (
    *("event_publisher", "dev_collector", "testing", "cli"),
    *("__main__.py", "pytest_plugin.py"),
)

#: Seconds for a step; the slowest, a type checker's first run, takes about 20.
_PATIENCE: Final = 300.0

_MYPY: Final = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=.mypy_cache")
_PYRIGHT: Final = (sys.executable, "-m", "pyright", f"--pythonpath={sys.executable}")


def main() -> int:
    """Run every step and return the exit status."""
    if importlib.util.find_spec(_PACKAGE.name) is not None:
        _say(f"{_PACKAGE.name} is importable here; run this where it isn't installed\n")
        return 1
    failures = _failures("the package", (), lambda folder: _steps(folder) + _steps_of_commands())
    failures += _failures("the library alone", _NOT_LIBRARY, _steps)
    return 1 if failures else 0


def _failures(what: str, without: Sequence[str], steps: Callable[[Path], list[_Step]]) -> int:
    """Run the steps for a service that has the package without some parts, and count those that failed."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="vendored-") as folder:
        service = Path(folder)
        _make_service(service, without)
        for name, wanted, command in steps(service):
            _say(f"{what}: {name} ... ")
            failure = _run(service, wanted, command)
            _say("ok\n" if failure is None else f"FAILED\n{failure}\n")
            failures += failure is not None
    return failures


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _make_service(folder: Path, without: Sequence[str]) -> None:
    shutil.copytree(_TEMPLATE, folder, dirs_exist_ok=True)
    shutil.copytree(_PACKAGE, folder / _COPY, ignore=_leave_out(without))
    (folder / _COPY.parent / "__init__.py").touch()
    # Beside the service, whose checks are for its own code; mypy looks into whatever is imported.
    schemas = folder / "event_schemas"
    schemas.mkdir()
    for generated in _GENERATED.glob("*.py"):
        (schemas / generated.name).write_text(f"# mypy: ignore-errors\n{generated.read_text()}")
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))


def _leave_out(without: Sequence[str]) -> Callable[[str, list[str]], set[str]]:
    """Return what leaves these entries of the package out of a copy, and caches everywhere."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {"__pycache__", *(without if Path(folder) == _PACKAGE else ())} & set(names)

    return ignored


def _steps(folder: Path) -> list[_Step]:
    """Return the steps that hold for the library."""
    wrong = sorted(str(path.relative_to(folder)) for path in folder.glob("wrong/[!_]*.py"))
    python = sys.executable
    return [
        ("the copy is imported", (), (python, "-c", f"import {_NAME}")),
        ("every module of the copy is imported", (), (python, "-c", _import_all(folder))),
        ("the copy knows no other name of itself", (), (python, "-c", _find_name(folder))),
        ("the service puts events", (), (python, "-m", "acme.service")),
        ("mypy finds nothing in service and copy", (), (*_MYPY, "acme")),
        ("pyright finds nothing in service and copy", (), (*_PYRIGHT, "acme")),
        *[(f"mypy finds {path}", ("[arg-type]",), (*_MYPY, path)) for path in wrong],
        *[(f"pyright finds {path}", ("reportArgumentType",), (*_PYRIGHT, path)) for path in wrong],
    ]


def _steps_of_commands() -> list[_Step]:
    """Return the steps for the publisher and the commands."""
    command = (sys.executable, "-m", _NAME)
    publisher = (sys.executable, "-m", f"{_NAME}.event_publisher")
    return [
        ("the demo runs", (), (*command, "demo")),
        ("a configuration is checked", (), (*publisher, "--check", "config.ini")),
    ]


def _import_all(folder: Path) -> str:
    """Return a program that imports each module of the copy."""
    modules = [path.relative_to(folder).with_suffix("").parts for path in (folder / _COPY).rglob("*.py")]
    names = sorted(".".join(parts).removesuffix(".__init__") for parts in modules)
    return f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)"


def _find_name(folder: Path) -> str:
    """Return a program that imports each module of the copy, and fails if one has another name for it."""
    return f"{_import_all(folder)}\nimport sys\nsys.exit({_PACKAGE.name!r} in sys.modules)"


def _run(folder: Path, wanted: Sequence[str], command: Sequence[str]) -> str | None:
    """Run a command in the service's folder.

    Args:
        folder: The folder.
        wanted: Words that the command must say and fail; none: it must end with 0.
        command: The command.

    Returns:
        None if it went as it must, else what there is to know.
    """
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "MYPYPATH"}}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"$ {shlex.join(command)}\nnot done after {_PATIENCE:.0f} seconds"
    if done.returncode == 0 and not wanted:
        return None
    if done.returncode != 0 and wanted and all(word in done.stdout for word in wanted):
        return None
    expected = f"a failure with {' '.join(wanted)}" if wanted else "0"
    return f"$ {shlex.join(command)}\n{done.stdout}exit status {done.returncode}, expected {expected}"


if __name__ == "__main__":
    sys.exit(main())
