"""Where a spool is, as the command line says it."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import ConfigurationError
from ...spool.directory import SpoolDirectory
from ...spool.permissions import PRIVATE
from ..common import command


class SpoolPlace(NamedTuple):
    """Where a spool is, or would be.

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
            ConfigurationError: There can be no such spool.
        """
        try:
            return SpoolDirectory(self.directory, self.name, mode=mode)
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None

    def command(self, action: str) -> str:
        """Write the command that does something to this spool."""
        return command("queue", action, self.name, "--spool-directory", self.directory)

    def absence(self) -> str:
        """Say that there is no such spool, and what makes one."""
        return f"there is no such spool; {self.command('create')} makes it"
