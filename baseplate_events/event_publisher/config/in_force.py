"""The values of all options, and what of a changed configuration takes effect while the publisher runs. Pure.

An option takes effect without a restart if it says `reload` in `options`. Everything else keeps the
value that the publisher started with, however often the file is read again, so that the values in force are
known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from .options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .settings import PublisherSettings
    from .values import Endpoint, Secret

Value: TypeAlias = "str | float | bool | frozenset[int] | frozenset[str] | Endpoint | Secret | None"

#: How each option is read from settings; those without a value aren't listed.
_VALUES: Final[Mapping[str, Callable[[PublisherSettings], Value]]] = {
    "collector.hostname": lambda settings: settings.collector.hostname,
    "collector.version": lambda settings: settings.collector.version,
    "collector.scheme": lambda settings: settings.collector.scheme,
    "collector.timeout": lambda settings: settings.collector.timeout,
    "collector.deadline": lambda settings: settings.collector.deadline,
    "collector.ca_file": lambda settings: settings.collector.ca_file,
    "collector.proxy": lambda settings: settings.collector.proxy,
    "key.name": lambda settings: settings.key.name,
    "key.secret": lambda settings: settings.key.secret,
    "max_queue_size": lambda settings: settings.queue.max_size,
    "max_event_size": lambda settings: settings.queue.max_event_size,
    "queue.mode": lambda settings: f"{settings.queue.mode:04o}",
    "queue.transport": lambda settings: settings.queue.transport,
    "queue.exclusive": lambda settings: settings.queue.exclusive,
    "batch.max_size": lambda settings: settings.batch.max_size,
    "batch.max_age": lambda settings: settings.batch.max_age,
    "batch.max_events": lambda settings: settings.batch.max_events,
    "compression.level": lambda settings: settings.compression_level,
    "retry.base": lambda settings: settings.retry.base,
    "retry.cap": lambda settings: settings.retry.cap,
    "retry.codes": lambda settings: settings.retry.codes,
    "retry.max_age": lambda settings: settings.retry.max_age,
    "delivery.concurrency": lambda settings: settings.concurrency,
    "spool.directory": lambda settings: settings.spool.directory if settings.spool is not None else None,
    "spool.max_size": lambda settings: settings.spool.max_size if settings.spool is not None else None,
    "spool.fsync": lambda settings: settings.spool.sync.value if settings.spool is not None else None,
    "dead_letters.directory": lambda settings: (
        settings.dead_letters.directory if settings.dead_letters is not None else None
    ),
    "dead_letters.max_size": lambda settings: (
        settings.dead_letters.max_size if settings.dead_letters is not None else None
    ),
    "shutdown.grace": lambda settings: settings.shutdown_grace,
    "shutdown.drain": lambda settings: settings.shutdown_drain,
    "metrics.namespace": lambda settings: settings.metrics.namespace,
    "metrics.endpoint": lambda settings: settings.metrics.endpoint,
    "metrics.log_if_unconfigured": lambda settings: settings.metrics.log_if_unconfigured,
    "health.bind": lambda settings: settings.health,
    "health.hosts": lambda settings: settings.health_hosts,
}

#: Options that no page shows: the secret, and the name beside it, where a mistake may put the secret.
_HIDDEN: Final = frozenset({"key.name", "key.secret"})

_RELOADED: Final = frozenset(option.name for option in OPTIONS if option.reload)


def values_of(settings: PublisherSettings) -> dict[str, Value]:
    """Return the value of each option by its name; None for one that isn't set."""
    return {name: read(settings) for name, read in _VALUES.items()}


def shown_values(settings: PublisherSettings) -> dict[str, float | str]:
    """Return the values for metrics: numbers, seconds, and 1 or 0; everything else as text.

    An option that isn't set is left out, and so are the key's.
    """
    return {
        name: _shown(value)
        for name, value in values_of(settings).items()
        if name not in _HIDDEN and value is not None and value not in ("", frozenset())
    }


def changed_options(old: PublisherSettings, new: PublisherSettings) -> tuple[list[str], list[str]]:
    """Return the names of changed options: those that take effect, and those that need a restart."""
    before, after = values_of(old), values_of(new)
    names = [name for name, value in after.items() if value != before[name]]
    return [name for name in names if name in _RELOADED], [name for name in names if name not in _RELOADED]


def reloaded(old: PublisherSettings, new: PublisherSettings) -> PublisherSettings:
    """Return the settings in force after `new` was read: the old, with what takes effect of the new."""
    return replace(
        old,
        collector=replace(new.collector, version=old.collector.version),
        key=new.key,
        compression_level=new.compression_level,
        retry=replace(old.retry, codes=new.retry.codes),
        shutdown_grace=new.shutdown_grace,
        shutdown_drain=new.shutdown_drain,
    )


def _shown(value: Value) -> float | str:
    if isinstance(value, bool | int | float):
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(str, value)))
    return str(value)
