"""baseplate.py, for tests beside it: its modules, and a real process of its event publisher.

It has hardly any types and isn't installed where types are checked, so its modules are looked up by name.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tests.support.processes import Process, started
from tests.support.publishers import MAX_MESSAGE_SIZE, config_text

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import ModuleType

#: An object of baseplate.py, or one that was made for it.
Untyped: TypeAlias = Any

_DRIVER: Final = Path(__file__).with_name("original_publisher.py")


def original(name: str) -> ModuleType:
    """Import the module `baseplate.NAME`, or the package itself for an empty name."""
    with warnings.catch_warnings():
        # It imports pkg_resources and declarations that its dependencies have moved since.
        warnings.simplefilter("ignore")
        return importlib.import_module(f"baseplate.{name}".removesuffix("."))


@contextmanager
def original_publisher(folder: Path, queue_name: str, url: str, **overrides: str) -> Generator[Process]:
    """Run baseplate.py's event publisher for a queue; at the end it is killed, the only way to stop it."""
    config_file = folder / f"{queue_name}.ini"
    config_file.write_text(config_text(queue_name, url, **overrides))
    arguments = [str(MAX_MESSAGE_SIZE), "--queue-name", queue_name, str(config_file)]
    with started(sys.executable, _DRIVER, *arguments) as process:
        yield process
