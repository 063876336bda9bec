"""Conflicts between the sections of one INI file, of which each publisher reads only its own.

Dead letters must not be in the directory for spools: whoever inspects or deletes spools, or adds up their
size, would take them for a part of one. Within a section this is a mistake anyway; see `settings`.
"""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING

from ...errors import ConfigurationError
from .ini import section_names
from .settings import SECTION_PREFIX, load_store

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_neighbours(
    config_file: str | os.PathLike[str], queue_name: str, environ: Mapping[str, str]
) -> None:
    """Compare the folders of a section with those of the others in its file.

    Sections with mistakes of their own are left out. So is a file that is a pipe: it can be read only once.

    Args:
        config_file: Path of the INI file.
        queue_name: The NAME of the section `[event-publisher:NAME]`.
        environ: The environment variables.

    Raises:
        ConfigurationError: A folder for dead letters is, contains or is in a directory for spools, with one
            line for each case; or the file can no longer be read.
    """
    if not os.path.isfile(config_file):  # noqa: PTH113 - takes whatever names a file
        return
    names = [name.removeprefix(SECTION_PREFIX) for name in section_names(config_file, SECTION_PREFIX)]
    folders = {name: _folders(config_file, name, environ) for name in names}
    own = folders.pop(queue_name, {})
    problems: list[str] = []
    for name, theirs in folders.items():
        for (option, ours), (other, neighbour) in product(own.items(), theirs.items()):
            if option != other and _overlap(ours, neighbour):
                problems.append(
                    f"{os.fspath(config_file)}: [{SECTION_PREFIX}{queue_name}] {option}: {ours!a} overlaps "
                    f"the {other} of [{SECTION_PREFIX}{name}], {neighbour!a}; "
                    "give dead letters a folder of their own"
                )
    if problems:
        raise ConfigurationError(*problems)


def _folders(
    config_file: str | os.PathLike[str], queue_name: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the folders that a section has, by option."""
    try:
        store = load_store(config_file, queue_name, environ)
    except ConfigurationError:
        return {}
    folders = {
        "spool.directory": store.spool and store.spool.directory,
        "dead_letters.directory": store.dead_letters and store.dead_letters.directory,
    }
    return {option: folder for option, folder in folders.items() if folder}


def _overlap(one: str, other: str) -> bool:
    """Return whether a folder is the other, or one is in the other, whatever links and dots name them."""
    folders = [os.path.realpath(one), os.path.realpath(other)]
    return os.path.commonpath(folders) in folders
