"""One target under atheris: `python -m tests.fuzz.run TARGET [ARGUMENT ...]`, which libFuzzer takes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def main() -> None:
    """Fuzz until libFuzzer ends this process."""
    atheris: Any = importlib.import_module("atheris")  # untyped, and only in its own environment
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["baseplate_events"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - what it imports is instrumented
    target = TARGETS[name]
    atheris.Setup([sys.argv[0], f"-max_len={target.longest}", *arguments], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    # Hypothesis would keep examples in the folder where it runs.
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.devnull)
    main()
