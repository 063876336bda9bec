#!/usr/bin/env python3
"""Stands for the runtime of containers on a host that may not raise limits: it accepts the current limits.

Engines request a million open files, and the commands of the guide request long queues.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import TypedDict

RUNTIME = "/usr/bin/crun"


class Limit(TypedDict):
    """A limit in the configuration of a container."""

    type: str
    soft: int
    hard: int


class Process(TypedDict, total=False):
    """The process of a container."""

    rlimits: list[Limit]


def main(arguments: list[str]) -> None:
    """Lower the limits in the runtime's configuration file, and replace this process by the runtime."""
    if "create" in arguments:
        path = Path(arguments[arguments.index("--bundle") + 1]) / "config.json"
        configuration = json.loads(path.read_text())
        lower(configuration["process"])
        path.write_text(json.dumps(configuration))
    elif "exec" in arguments:
        path = Path(arguments[arguments.index("--process") + 1])
        process: Process = json.loads(path.read_text())
        lower(process)
        path.write_text(json.dumps(process))
    os.execv(RUNTIME, [RUNTIME, *arguments])


def lower(process: Process) -> None:
    """Lower limits that may not be set here to the current ones."""
    for limit in process.get("rlimits", []):
        which: int = getattr(resource, limit["type"])
        try:
            resource.setrlimit(which, (limit["soft"], limit["hard"]))
        except (ValueError, OSError):
            _, hard = resource.getrlimit(which)
            limit["soft"], limit["hard"] = min(limit["soft"], hard), hard


if __name__ == "__main__":
    main(sys.argv[1:])
