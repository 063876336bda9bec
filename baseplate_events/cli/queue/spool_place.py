"""The place of a spool, as given on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...errors import ConfigurationError, EventQueueUnavailableError
from ...spool.directory import SpoolDirectory
from ...spool.permissions import PRIVATE
from ..common import command
from .spool_info import inspect_spool

if TYPE_CHECKING:
    from .spool_info import SpoolInfo


class SpoolPlace(NamedTuple):
    """The place of a spool, which needn't exist.

    Attributes:
        directory: The directory that services and publisher share, an absolute path.
        name: NAME of the queue.
    """

    directory: str
    name: str

    @property
    def path(self) -> str:
        """The folder of the spool."""
        return self.at(PRIVATE).path

    def at(self, mode: int) -> SpoolDirectory:
        """Return the spool as services with this `mode` use it.

        Raises:
            ConfigurationError: A spool of this name or mode is impossible.
        """
        try:
            return SpoolDirectory(self.directory, self.name, mode=mode)
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None

    def command(self, action: str) -> str:
        """Format the command for an action on this spool."""
        return command("queue", action, self.name, "--spool-directory", self.directory)

    def absent(self) -> EventQueueUnavailableError:
        """Return the error that there is no such spool, and how to create it."""
        problem = f"there is no such spool; {self.command('create')} creates it"
        return EventQueueUnavailableError(self.path, problem)

    def inspect(self) -> SpoolInfo:
        """Inspect the spool.

        Raises:
            EventQueueUnavailableError: There is none, or it can't be inspected.
        """
        info = inspect_spool(self.path)
        if info is None:
            raise self.absent()
        return info
