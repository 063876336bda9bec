"""`python -m baseplate_events COMMAND`: dispatches to the commands, one module or folder each."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Final

from . import __version__
from .event_publisher.standard_streams import EscapingParser, run_command

if TYPE_CHECKING:
    from collections.abc import Sequence


#: The module of each command, and its line in `--help`.
_COMMANDS: Final = {
    "publish": (".event_publisher.__main__", "deliver the events of a queue to the event collector"),
    "collect": (".cli.collect", "run an event collector for development"),
    "dead-letters": (".cli.dead_letters.command", "list, replay or delete the events that were given up"),
    "queue": (".cli.queue.command", "list, inspect, read, write, create and remove the queues of this host"),
    "doctor": (".cli.doctor.command", "find out what keeps events from flowing, and how to fix it"),
    "status": (".cli.status.command", "show what a running publisher is doing"),
    "thrift-stubs": (".cli.thrift_stubs.command", "write type stubs for what the Thrift compiler generates"),
    "demo": (".cli.demo", "send events from a service to a collector, all on this machine"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line given, or that of this process, and return the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    # The publisher's output on stdout is optional; its work doesn't depend on it.
    return run_command(lambda: _run(words), needs_stdout=words[:1] != ["publish"])


def _run(words: Sequence[str]) -> int:
    parser = EscapingParser(
        prog=f"python -m {__package__}", description="Send events without waiting for the network."
    )
    parser.add_argument("--version", action="version", version=f"{__package__} {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name, (module, purpose) in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=purpose)
        if name in words[:1]:  # import only the command that runs
            command = importlib.import_module(module, __package__)
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    parsed = parser.parse_args(words)
    return int(parsed.run(parsed))


if __name__ == "__main__":
    sys.exit(main())
