"""The command `doctor`: a table of checks, each with what was found and how to fix it.

It changes nothing: it creates no queue or folder, writes no file and keeps no lock, and what it sends to the
collector and the statsd server contains no event.

Exit statuses: 0 if everything is ok or only worth a warning; 1 for a problem; 2 for a command-line error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

from ..._words import counted
from ...errors import ConfigurationError
from ...event_publisher.access import inspect_file
from ...event_publisher.config.declare import span
from ...event_publisher.config.neighbours import check_neighbours
from ...event_publisher.config.settings import find_queue_name, load_settings
from ...event_publisher.exit_status import EXIT_FAILURE
from ...events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE, MAX_SPOOL_SIZE, SPOOL_VARIABLE
from ...transport.limits import QueueSize
from ..common import LONGEST_SPAN, argument, command_line, event_queue_name, exit_status_of
from ..terminal import Colour, paint, printable, wants_colour
from .checks import judge_file, judge_secret
from .findings import Code, Verdict, ok, overall, problem, skipped
from .host import check_process, check_queue
from .letters import check_dead_letters
from .metrics import check_metrics
from .network import check_collector
from .publisher import check_publisher
from .spool import SpoolWanted, check_spool
from .transports import Spool, find_posix, judge_transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...event_publisher.config.settings import PublisherSettings
    from .findings import Check

#: Columns of the table: the longest verdict, the longest name of a check, each followed by two blanks.
_VERDICT_WIDTH: Final = 9
_NAME_WIDTH: Final = 22
_LEFT: Final = _VERDICT_WIDTH + _NAME_WIDTH

#: Fewest columns of a text, however narrow the terminal is.
_NARROWEST: Final = 30

_COLOURS: Final = {
    Verdict.OK: Colour.GREEN,
    Verdict.WARNING: Colour.YELLOW,
    Verdict.PROBLEM: Colour.RED,
    Verdict.SKIPPED: Colour.DIM,
}

_EPILOG: Final = """\
It changes nothing, and shows no secret. Run it as the publisher's user and with its environment: limits and
permissions are those of the user who runs it. The collector gets a signed batch without events. If it
accepts that, or refuses it for being empty, it gets another with a false signature, to see whether it
checks signatures.

examples:
  %(prog)s                                what the limits of this host allow
  %(prog)s --queue-name v2                the same, and the queue /events-v2
  %(prog)s config.ini                     everything that its publisher needs
  %(prog)s config.ini --queue-name v2     the same, if the file has several queues
  %(prog)s config.ini --json | jq .verdict

exit status: 0 if everything is ok or only worth a warning; 1 for a problem; 2 for a command-line error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command `doctor` to its parser."""
    parser.description = "Find out what keeps events from flowing, and how to fix it."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "config_file",
        metavar="CONFIG",
        nargs="?",
        help="the publisher's INI file; without it, only the host is checked",
    )
    parser.add_argument(
        "--queue-name",
        metavar="NAME",
        type=event_queue_name,
        help="check the queue /events-NAME (default: the only queue of CONFIG, or main if it has several)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SPAN",
        type=argument(span(0.001, LONGEST_SPAN, "5 seconds")),
        default="5 seconds",
        help="how long a network step may take (default: %(default)s)",
    )
    parser.add_argument("--no-probe", action="store_true", help="send nothing to the collector")
    parser.add_argument("--json", action="store_true", help="write one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Make all checks, write the results, and return the exit status."""
    return exit_status_of(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    checks = _write_json(arguments) if arguments.json else _write_table(arguments)
    return EXIT_FAILURE if overall(checks) is Verdict.PROBLEM else 0


def _write_json(arguments: argparse.Namespace) -> Sequence[Check]:
    checks = list(_checks(arguments))
    members = {
        "checks": [
            {
                "name": check.name,
                "code": check.code.value,
                "verdict": check.verdict.value,
                "found": check.found,
                "remedy": check.remedy or None,
                "commands": list(check.commands),
                "fields": dict(check.fields),
            }
            for check in checks
        ],
        "verdict": overall(checks).value,
    }
    sys.stdout.write(json.dumps(members) + "\n")
    return checks


def _write_table(arguments: argparse.Namespace) -> Sequence[Check]:
    """Write each row as soon as its check is made, since network checks take a while."""
    colour = wants_colour(sys.stdout, os.environ)
    width = None
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns - _LEFT, _NARROWEST)
    checks: list[Check] = []
    for check in _checks(arguments):
        checks.append(check)
        sys.stdout.write("".join(f"{line}\n" for line in format_check(check, colour=colour, width=width)))
        sys.stdout.flush()
    sys.stdout.write(f"\n{_summary(checks)}\n")
    return checks


def format_check(check: Check, *, colour: bool, width: int | None) -> list[str]:
    """Format a check as rows of the table.

    Args:
        check: The check.
        colour: Whether to colour its verdict.
        width: Columns that found and remedy are wrapped to, or None for one line each.
    """
    verdict = check.verdict.value.ljust(_VERDICT_WIDTH)
    texts = _wrap(printable(check.found), width)
    if check.remedy:
        texts += _wrap(f"remedy: {printable(check.remedy)}", width)
    first = (paint(verdict, _COLOURS[check.verdict]) if colour else verdict) + check.name.ljust(_NAME_WIDTH)
    return [first + texts[0], *(" " * _LEFT + text for text in texts[1:])]


def _wrap(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _summary(checks: Sequence[Check]) -> str:
    counts = Counter(check.verdict for check in checks)
    words = [counted(counts[v], v.value) for v in (Verdict.PROBLEM, Verdict.WARNING) if counts[v]]
    return ", ".join(words) or "no problems found"


def _checks(arguments: argparse.Namespace) -> Iterator[Check]:
    config_file: str | None = arguments.config_file
    queue_name: str | None = arguments.queue_name
    if config_file is None:
        yield from check_process()
        yield from _check_transports(queue_name, None)
        return
    try:
        queue_name = queue_name or find_queue_name(config_file)
        settings = load_settings(config_file, queue_name, os.environ)
        check_neighbours(config_file, queue_name, os.environ)
    except ConfigurationError as exc:
        yield from check_process()
        yield from _mistakes(exc, config_file, queue_name)
        yield from check_queue(_posix_name(queue_name), QueueSize(MAX_QUEUE_SIZE, MAX_EVENT_SIZE), None)
        for name in ("key", "collector", "metrics", "spool", "transport", "dead letters", "publisher"):
            yield skipped(Code.CONFIGURATION_NEEDED, name, "needs a valid configuration")
        return
    section = f"event-publisher:{queue_name}"
    yield from check_process(needs_queue=settings.queue.transport != "spool")
    yield ok(
        Code.CONFIGURATION_GOOD,
        "configuration",
        f"{config_file}: [{section}] is valid",
        fields={"file": config_file, "section": section},
    )
    yield judge_secret(len(settings.key.secret.reveal()))
    yield judge_file(config_file, inspect_file(config_file, section))
    yield from _check_transports(queue_name, settings)
    patience: float = arguments.timeout
    yield from check_collector(settings, timeout=patience, probe=not arguments.no_probe)
    yield check_metrics(settings.metrics.endpoint, timeout=patience)
    if settings.spool is None:  # with a spool they are in its ledger
        yield from check_dead_letters(settings.dead_letters)
    yield check_publisher(settings.health.bind)


def _check_transports(queue_name: str | None, settings: PublisherSettings | None) -> Iterator[Check]:
    """Check the POSIX queue and the spool, and which of them suits this host."""
    spool: SpoolWanted | None = None
    if settings is None:
        wanted, mode, chosen = QueueSize(MAX_QUEUE_SIZE, MAX_EVENT_SIZE), None, None
        directory = os.environ.get(SPOOL_VARIABLE, "").strip()
        if directory and queue_name is not None:
            spool = SpoolWanted(directory, queue_name, None, MAX_SPOOL_SIZE, None)
    else:
        queue, mode, chosen = settings.queue, settings.queue.mode, settings.queue.transport
        wanted = QueueSize(queue.max_size, queue.max_event_size)
        if settings.spool is not None:
            directory, max_size = settings.spool.directory, settings.spool.max_size
            spool = SpoolWanted(directory, queue.name, mode, max_size, settings.collector.version)
    yield from check_queue(_posix_name(queue_name), wanted, mode, transport=chosen)
    usable = True
    for check in check_spool(spool) if spool is not None or settings is not None else ():
        usable = usable and check.verdict is not Verdict.PROBLEM
        yield check
    state = Spool.UNSET if spool is None else Spool.USABLE if usable else Spool.UNUSABLE
    yield judge_transport(*find_posix(_posix_name(queue_name), wanted), wanted, state, chosen)


def _posix_name(queue_name: str | None) -> str | None:
    return None if queue_name is None else f"/events-{queue_name}"


def _mistakes(error: ConfigurationError, config_file: str, queue_name: str | None) -> Iterator[Check]:
    which = ["--queue-name", queue_name] if queue_name is not None else []
    check_command = command_line("publish", "--check", *which, config_file)
    for line in error.problems:
        if "environment variable" in line:
            yield problem(
                Code.VARIABLE_UNSET,
                "environment",
                line,
                "set it for the publisher and for this command: `export` in a shell, `Environment=` "
                "or `EnvironmentFile=` of systemd, `--env` of docker",
            )
        else:
            yield problem(
                Code.CONFIGURATION_MISTAKE,
                "configuration",
                line,
                f"fix that; `{check_command}` checks only the configuration",
                commands=(check_command,),
            )
