"""Finds dead letters: by a file, a folder, or a publisher's configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import ConfigurationError
from ...event_publisher.config.settings import load_store
from ...event_publisher.ledger.file import LETTERS_NAME, SPOOL_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...event_publisher.config.settings import StoreSettings

#: Bytes at the beginning of an SQLite file that name it, with a NUL at the end, which no INI file has
#: (https://www.sqlite.org/fileformat.html).
_BEGINNING: Final = 16


def load_configuration(path: str, queue_name: str | None, environ: Mapping[str, str]) -> StoreSettings | None:
    """Read the settings of a publisher; None if the path is a folder or a file of dead letters.

    Args:
        path: The path that the user gave.
        queue_name: The NAME of the section `[event-publisher:NAME]`; None for the only one.
        environ: The environment variables.

    Raises:
        ConfigurationError: The path doesn't exist, or the configuration has mistakes.
    """
    if not os.path.lexists(path):
        raise ConfigurationError(f"{path}: no such folder or file")
    return None if _holds_letters(path) else load_store(path, queue_name, environ)


def find_letters(path: str, queue_name: str | None, store: StoreSettings | None) -> str:
    """Return the path of the file with the dead letters.

    Args:
        path: The path that the user gave; it exists.
        queue_name: The queue that the user named, or None.
        store: What `load_configuration` returned.

    Raises:
        ConfigurationError: There is no such file, or there are several.
    """
    if store is not None:
        return _configured(path, store)
    if not Path(path).is_dir():
        return path
    folder = Path(path)
    places = (folder / SPOOL_NAME, folder / LETTERS_NAME, *sorted(folder.glob(f"events-*/{SPOOL_NAME}")))
    found = [str(place) for place in places if place.exists()]
    if len(found) > 1 and queue_name is not None:
        found = [place for place in found if Path(place).parent.name == f"events-{queue_name}"] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(
            f"{path} has the dead letters of several publishers: {', '.join(found)}; give one of these"
        )
    raise ConfigurationError(
        f"{path} has no {SPOOL_NAME} and no {LETTERS_NAME}; give the folder events-NAME in the publisher's "
        "spool.directory or, without a spool, its dead_letters.directory"
    )


def _configured(path: str, store: StoreSettings) -> str:
    """Return the file in which a publisher with this configuration keeps its dead letters."""
    if store.spool is not None:
        file = Path(store.spool.directory) / f"events-{store.queue.name}" / SPOOL_NAME
    elif store.dead_letters is not None and store.dead_letters.directory is not None:
        file = Path(store.dead_letters.directory) / LETTERS_NAME
    else:
        raise ConfigurationError(
            f"{path}: [event-publisher:{store.queue.name}] has neither spool.directory nor "
            "dead_letters.directory, so there are no dead letters"
        )
    if not file.exists():
        raise ConfigurationError(
            f"{path}: [event-publisher:{store.queue.name}] keeps its dead letters in {file}, which doesn't "
            "exist: no publisher with this configuration has run yet"
        )
    return str(file)


def _holds_letters(path: str) -> bool:
    """Return whether a path is a folder or a ledger, damaged or not, rather than an INI file."""
    name = os.path.basename(path)  # noqa: PTH119 - pathlib would drop a slash at the end
    if name.startswith((SPOOL_NAME, LETTERS_NAME)) or not Path(path).is_file():
        return True
    try:
        with Path(path).open("rb") as file:
            return b"\0" in file.read(_BEGINNING)
    except OSError:
        return False  # loading it as a configuration reports why it can't be read
