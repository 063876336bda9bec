"""Strict checks of the files of a service, by type checkers with their default settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import baseplate_events
from tests.support.commands import Result, run

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Where the package is.
_ROOT: Final = Path(baseplate_events.__file__).parents[1]

#: Seconds; a checker's first run takes about ten.
_PATIENCE: Final = 300.0


def mypy(folder: Path, files: Sequence[str]) -> Result:
    """Check files in a folder, in which their imports are looked for first, with `mypy --strict`."""
    return run(
        *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
        *(f"--cache-dir={folder / '.mypy_cache'}", "--follow-imports=silent"),
        *(str(folder / file) for file in files),
        environ={"MYPYPATH": f"{folder}:{_ROOT}" if _ROOT.name != "site-packages" else str(folder)},
        timeout=_PATIENCE,
    )


def pyright(folder: Path, files: Sequence[str]) -> Result:
    """Check files in a folder, in which their imports are looked for first, with strict pyright."""
    settings = {
        "include": list(files),
        "extraPaths": [str(folder), str(_ROOT)],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": True,
        # What a service has for its own libraries is none of the package's business.
        "reportMissingTypeStubs": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    return run(
        *(sys.executable, "-m", "pyright", f"--project={folder}", f"--pythonpath={sys.executable}"),
        environ={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        timeout=_PATIENCE,
    )


CHECKERS: Final = {"mypy": mypy, "pyright": pyright}
