"""What doesn't go together in the sections of one INI file, of which each publisher reads only its own.

Dead letters in the directory of spools would be taken for a part of them by whoever looks after those,
deletes them, or adds up how much disk they take. Within a section that is a mistake anyway; see `settings`.
"""

from __future__ import annotations

import os
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

    Sections that have mistakes of their own are left out.

    Args:
        config_file: Path of the INI file.
        queue_name: The NAME of the section `[event-publisher:NAME]`.
        environ: The environment variables.

    Raises:
        ConfigurationError: Dead letters and spools aren't apart, with one line for each case.
    """
    ours = f"{SECTION_PREFIX}{queue_name}"
    folders = {
        name: _folders(config_file, name, environ) for name in section_names(config_file, SECTION_PREFIX)
    }
    own_spool, own_letters = folders.get(ours, (None, None))
    problems: list[str] = []
    for name, (spool, letters) in folders.items():
        if name == ours:
            continue
        if own_letters is not None and spool is not None and (how := _overlap(own_letters, spool)):
            problems.append(
                f"{os.fspath(config_file)}: [{ours}] dead_letters.directory: {own_letters!a} {how} the "
                f"spool.directory of [{name}], {spool!a}; give dead letters a folder of their own"
            )
        if own_spool is not None and letters is not None and (how := _overlap(own_spool, letters)):
            problems.append(
                f"{os.fspath(config_file)}: [{ours}] spool.directory: {own_spool!a} {how} the "
                f"dead_letters.directory of [{name}], {letters!a}; give dead letters a folder of their own"
            )
    if problems:
        raise ConfigurationError(*problems)


def _folders(
    config_file: str | os.PathLike[str], name: str, environ: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Return the directory of spools and that of dead letters, as a section sets them."""
    try:
        store = load_store(config_file, name.removeprefix(SECTION_PREFIX), environ)
    except ConfigurationError:
        return None, None
    return (
        None if store.spool is None else store.spool.directory,
        None if store.dead_letters is None else store.dead_letters.directory,
    )


def _overlap(one: str, other: str) -> str:
    """Say how a folder lies in another, whatever links and dots name them; empty if they are apart."""
    first, second = _parts(one), _parts(other)
    if first == second:
        return "is"
    if first[: len(second)] == second:
        return "is in"
    return "contains" if second[: len(first)] == first else ""


def _parts(path: str) -> list[str]:
    return [part for part in os.path.realpath(path).split("/") if part]
