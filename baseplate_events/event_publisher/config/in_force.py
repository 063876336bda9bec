"""The values of all options, and what of a changed configuration takes effect while the publisher runs. Pure.

An option takes effect without a restart if its declaration has `reload`. All others keep the value that the
publisher started with, however often the file is read again.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from .options import OPTION_BY_NAME

if TYPE_CHECKING:
    from .declare import Group
    from .settings import PublisherSettings


def values_of(settings: PublisherSettings) -> dict[str, object]:
    """Return the value of each option by its name; None if it isn't set or has no effect."""
    values: dict[str, object] = {**dict.fromkeys(OPTION_BY_NAME)}
    for group in _groups(settings).values():
        values |= {option.name: getattr(group, name) for name, option in group.options().items()}
    return values


def shown_values(settings: PublisherSettings) -> dict[str, float | str]:
    """Return the values for metrics: numbers, seconds, and 1 or 0; everything else as text.

    Options that aren't set are left out, and so is the key.
    """
    return {
        name: option.kind.show(value)
        for name, value in values_of(settings).items()
        if not (option := OPTION_BY_NAME[name]).secret and value not in (None, "", frozenset())
    }


def changed_options(old: PublisherSettings, new: PublisherSettings) -> tuple[list[str], list[str]]:
    """Return the names of changed options: those that take effect, and those that need a restart."""
    before, after = values_of(old), values_of(new)
    changed = [OPTION_BY_NAME[name] for name, value in after.items() if value != before[name]]
    return (
        [option.name for option in changed if option.reload],
        [option.name for option in changed if not option.reload],
    )


def reloaded(old: PublisherSettings, new: PublisherSettings) -> PublisherSettings:
    """Return the settings in force after `new` was read: the old, with what takes effect of the new."""
    groups: dict[str, Any] = {}
    for name, group in _groups(old).items():
        fresh = getattr(new, name)
        taken = {key: getattr(fresh, key) for key, option in group.options().items() if option.reload}
        groups[name] = replace(group, **taken)
    return replace(old, **groups)


def _groups(settings: PublisherSettings) -> dict[str, Group]:
    """Return the groups of settings that are there."""
    groups = {each.name: getattr(settings, each.name) for each in fields(settings)}
    return {name: group for name, group in groups.items() if group is not None}
