"""Runs uWSGI, which has no module that `python -m` could run: python -m tests.servers.uwsgi OPTION ..."""

from __future__ import annotations

import importlib
import sys
from typing import Protocol, cast


class UWSGI(Protocol):
    """The part of `pyuwsgi`, which need not be installed to check types, that is used here."""

    def run(self, arguments: list[str], /) -> None:
        """Run a server."""
        ...


if __name__ == "__main__":
    cast("UWSGI", importlib.import_module("pyuwsgi")).run(sys.argv[1:])
