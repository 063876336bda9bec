"""The event publisher's command line: `python -m baseplate_events.event_publisher CONFIG.ini`.

Exit statuses: 0 after a stop by SIGTERM or SIGINT, and if `--check` finds a valid configuration; 1 if the
queue or the spool can't be opened; 2 for a command-line or configuration error.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Final

from .. import __version__
from ..errors import ConfigurationError, EventError
from .access import inspect_file
from .config.neighbours import check_neighbours
from .config.settings import load_settings
from .control import Control
from .exit_status import failed
from .publisher import EventPublisher
from .standard_streams import EscapingParser, report, run_command
from .telemetry.health_server import HealthError
from .telemetry.logs import FORMATS, configure_logging
from .telemetry.systemd import Notifier

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from .config.settings import PublisherSettings

logger: logging.Logger = logging.getLogger(__name__)

#: What `--version` writes: the package, under whatever name it is imported, and its release.
_VERSION: Final = f"{(__package__ or '').rpartition('.')[0]} {__version__}"

_EPILOG: Final = """\
SIGTERM or SIGINT stops the publisher: it delivers the spool and the queue until shutdown.grace is over, then
leaves the rest in the spool or puts it back on the queue, and exits with status 0. A second signal ends it
immediately. SIGHUP reloads the configuration.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the publisher to a parser."""
    parser.description = "Deliver the events of a queue or spool of this host to the event collector."
    parser.epilog = _EPILOG
    parser.add_argument(
        "config_file", metavar="CONFIG", help="INI file with a section [event-publisher:NAME]"
    )
    parser.add_argument(
        "--queue-name",
        metavar="NAME",
        help="default: the only queue of the file, or main if it has several",
    )
    parser.add_argument("--debug", action="store_true", help="log every batch")
    parser.add_argument("--log-format", choices=FORMATS, default=FORMATS[0], help="default: text")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--version", action="version", version=_VERSION)


def run(arguments: argparse.Namespace) -> int:
    """Publish until a signal arrives, and return the exit status.

    Must be called from the main thread; it handles SIGTERM, SIGINT and SIGHUP.
    """
    configure_logging(arguments.log_format, debug=arguments.debug)
    load = Loader(arguments.config_file, arguments.queue_name)
    try:
        if arguments.check:
            name = load().queue.name
            check_neighbours(arguments.config_file, name, os.environ)
            _warn_about_file(arguments.config_file, name)
            report(f"{arguments.config_file}: [event-publisher:{name}] is valid")
            return 0
        control = Control(time.monotonic)
        # Before anything slow: recovery of a spool can take minutes, and process 1 of a container ignores
        # signals without a handler.
        control.handle_signals()
        # Jitter needs no secure random source.
        publisher = EventPublisher(load, random.Random(), Notifier(os.environ), control=control)  # noqa: S311
    except EventError as exc:
        return failed(exc)
    _warn_about_file(arguments.config_file, publisher.queue_name)
    _warn_about_neighbours(arguments.config_file, publisher.queue_name)
    try:
        publisher.run()
    except HealthError as exc:
        return failed(exc)
    return 0


class Loader:
    """Loads the settings, always those of the same queue, even if the file gets further sections."""

    def __init__(self, path: str, queue_name: str | None) -> None:
        self._path = path
        self._queue_name = queue_name

    def __call__(self) -> PublisherSettings:
        """Load the settings; raises a `ConfigurationError` with all mistakes."""
        settings = load_settings(self._path, self._queue_name, os.environ)
        self._queue_name = settings.queue.name
        return settings


def _warn_about_file(path: str, queue_name: str) -> None:
    """Log a warning if other users can read or write the configuration file."""
    access = inspect_file(path, f"event-publisher:{queue_name}")
    for warning in access.warnings() if access is not None else ():
        logger.warning("%s", warning)


def _warn_about_neighbours(path: str, queue_name: str) -> None:
    """Log what `--check` refuses across sections: not to start would cost more than to start with it."""
    try:
        check_neighbours(path, queue_name, os.environ)
    except ConfigurationError as exc:
        for problem in exc.problems:
            logger.warning("%s", problem)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line given, or that of this process, and return the exit status."""
    parser = EscapingParser(prog=f"python -m {__package__}")
    add_arguments(parser)
    return run_command(lambda: run(parser.parse_args(arguments)), needs_stdout=False)


if __name__ == "__main__":
    sys.exit(main())
