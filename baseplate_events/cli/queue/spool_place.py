"""The place of a spool, as given on the command line."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import ConfigurationError
from ...spool.directory import SpoolDirectory
from ...spool.permissions import PRIVATE
from ..common import command


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

    def describe_absence(self) -> str:
        """Return the message that there is no such spool, and how to create it."""
        return f"there is no such spool; {self.command('create')} creates it"
