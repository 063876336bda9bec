"""The settings of a publisher, read from the section `[event-publisher:NAME]` of an INI file.

The options are in `options`; here they are read, and compared with each other. Settings are frozen, so
threads can share them; a changed file becomes new settings.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ..._words import counted
from .ini import Section, read_section
from .options import (
    BATCH_WRAPPER_SIZE,
    IGNORED,
    OPTION_BY_NAME,
    BatchSettings,
    CollectorSettings,
    CompressionSettings,
    DeadLetterSettings,
    DeliverySettings,
    HealthSettings,
    KeySettings,
    MetricsSettings,
    QueueSettings,
    RetrySettings,
    ShutdownSettings,
    SpoolSettings,
)
from .values import format_span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .values import Endpoint

#: Bytes of the longest name of a queue: NAME_MAX of Linux, 255, less `events-`.
MAX_QUEUE_NAME_SIZE: Final = 248

#: What the name of a publisher's section begins with.
SECTION_PREFIX: Final = "event-publisher:"

#: Permissions that a spool can have: for one user, or for a group.
_SPOOL_MODES: Final = frozenset({0o600, 0o660})


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """The settings of a publisher, by the groups of `options`.

    Attributes:
        collector: Where events go.
        key: What signs batches.
        queue: Where events come from.
        batch: When a batch is complete.
        compression: How bodies are compressed.
        retry: When a failed batch is sent again.
        delivery: How batches are sent.
        spool: Where events are until they are delivered, or None.
        dead_letters: Where rejected events go, or None: then they are dropped.
        shutdown: What is still done after a request to stop.
        metrics: Where metrics go.
        health: Where the health endpoint listens.
    """

    collector: CollectorSettings
    key: KeySettings
    queue: QueueSettings
    batch: BatchSettings
    compression: CompressionSettings
    retry: RetrySettings
    delivery: DeliverySettings
    spool: SpoolSettings | None
    dead_letters: DeadLetterSettings | None
    shutdown: ShutdownSettings
    metrics: MetricsSettings
    health: HealthSettings


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where the events of a queue are, for tools that inspect them.

    Attributes:
        queue: The queue.
        spool: The spool, or None.
        dead_letters: The dead letters, or None.
    """

    queue: QueueSettings
    spool: SpoolSettings | None
    dead_letters: DeadLetterSettings | None


def load_settings(
    config_file: str | os.PathLike[str], queue_name: str | None, environ: Mapping[str, str]
) -> PublisherSettings:
    """Read the settings of the publisher of a queue.

    Args:
        config_file: Path of an INI file in UTF-8.
        queue_name: The NAME of the section `[event-publisher:NAME]` and of the queue `/events-NAME`; None for
            the only one of the file, or `main` if there are several.
        environ: The environment variables, for `$NAME` and `${NAME}` in values.

    Raises:
        ConfigurationError: With one line for each mistake in the file or the section.
    """
    section = _read(config_file, queue_name, environ)
    store = _read_store(section)
    settings = PublisherSettings(
        collector=section.read_group(CollectorSettings),
        key=section.read_group(KeySettings),
        queue=store.queue,
        batch=section.read_group(BatchSettings),
        compression=section.read_group(CompressionSettings),
        retry=section.read_group(RetrySettings),
        delivery=section.read_group(DeliverySettings),
        spool=store.spool,
        dead_letters=store.dead_letters,
        shutdown=section.read_group(ShutdownSettings),
        metrics=section.read_group(MetricsSettings),
        health=section.read_group(HealthSettings),
    )
    for option in IGNORED:
        section.read(option)
    _compare(section, settings)
    section.finish()
    return settings


def find_queue_name(config_file: str | os.PathLike[str]) -> str:
    """Return the NAME of the queue that is meant if none is named; see `load_settings`.

    Raises:
        ConfigurationError: The file cannot be read, or has no section of a publisher, or several.
    """
    return _read(config_file, None, {}).name.removeprefix(SECTION_PREFIX)


def load_store(
    config_file: str | os.PathLike[str], queue_name: str | None, environ: Mapping[str, str]
) -> StoreSettings:
    """Read where the events of a queue are, whatever else is in the section.

    The arguments are those of `load_settings`.

    Raises:
        ConfigurationError: The section does not exist, or one of these settings is wrong.
    """
    section = _read(config_file, queue_name, environ)
    store = _read_store(section)
    section.finish()
    return store


def load_health(
    config_file: str | os.PathLike[str], queue_name: str | None, environ: Mapping[str, str]
) -> Endpoint | None:
    """Read where the health endpoint of a queue's publisher listens, whatever else is in the section.

    A tool that asks a publisher needs neither its secret nor the environment that it was started with. The
    arguments are those of `load_settings`.

    Returns:
        The endpoint, or None if `health.bind` isn't set.

    Raises:
        ConfigurationError: The section does not exist, or its `health.bind` is wrong.
    """
    section = _read(config_file, queue_name, environ)
    endpoint: Endpoint | None = section.read(OPTION_BY_NAME["health.bind"])
    section.finish()
    return endpoint


def _read(config_file: str | os.PathLike[str], queue_name: str | None, environ: Mapping[str, str]) -> Section:
    name = None if queue_name is None else f"{SECTION_PREFIX}{queue_name}"
    return read_section(config_file, name, environ, options=OPTION_BY_NAME, family=SECTION_PREFIX)


def _read_store(section: Section) -> StoreSettings:
    spool = section.read_group(SpoolSettings)
    letters = section.read_group(DeadLetterSettings)
    transport = OPTION_BY_NAME["queue.transport"]
    if spool.directory:
        section.check(
            letters.directory is None,
            "dead_letters.directory",
            "dead letters are in the spool's ledger; remove this option",
        )
        transport = replace(transport, default="both")
    queue = section.read_group(
        QueueSettings, name=section.name.removeprefix(SECTION_PREFIX), transport=section.read(transport)
    )
    return StoreSettings(
        queue,
        spool if spool.directory else None,
        letters if spool.directory or letters.directory else None,
    )


def _compare(section: Section, settings: PublisherSettings) -> None:
    """Note settings that contradict each other, each under the option that would fix it."""
    collector, batch, retry, queue = settings.collector, settings.batch, settings.retry, settings.queue
    section.check(
        collector.deadline >= collector.timeout,
        "collector.deadline",
        f"{format_span(collector.deadline)} is less than collector.timeout; expected at least "
        f"{format_span(collector.timeout)}",
        "collector.timeout",
    )
    section.check(
        retry.cap >= retry.base,
        "retry.cap",
        f"{format_span(retry.cap)} is less than retry.base; expected at least {format_span(retry.base)}",
        "retry.base",
    )
    section.check(
        queue.transport == "posix" or settings.spool is not None,
        "queue.transport",
        f"{queue.transport} needs a spool; set spool.directory",
        "spool.directory",
    )
    section.check(
        settings.spool is None or queue.mode in _SPOOL_MODES,
        "queue.mode",
        f"a spool cannot have mode {queue.mode:04o}; expected 0600, or 0660 if services and publisher share "
        "a group",
    )
    room = queue.max_event_size + BATCH_WRAPPER_SIZE
    section.check(
        batch.max_size >= room,
        "batch.max_size",
        f"{counted(batch.max_size, 'byte')} cannot hold an event of max_event_size; expected at least "
        f"{room:,}",
        "max_event_size",
    )
    section.check(
        re.fullmatch(r"[^/\x00-\x1f\x7f]+", queue.name) is not None
        and len(os.fsencode(queue.name)) <= MAX_QUEUE_NAME_SIZE,
        "--queue-name",
        f"a queue cannot have this name; expected up to {MAX_QUEUE_NAME_SIZE} bytes without slashes",
    )
