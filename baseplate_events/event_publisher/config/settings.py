"""The settings of an event publisher: the section `[event-publisher:NAME]` of an INI file.

What can be set, with defaults and bounds, is the table of `keys`; here it becomes values. They are frozen,
so settings can be shared; a changed file becomes new settings.
"""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .ini import Section, read_section
from .options import BATCH_WRAPPER_SIZE, OPTION_BY_NAME, OPTIONS
from .values import format_span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .values import Endpoint, Secret

Version: TypeAlias = Literal["2", "2j"]
Scheme: TypeAlias = Literal["https", "http"]
Transport: TypeAlias = Literal["posix", "spool", "both"]
#: Bytes of the longest name of a queue: NAME_MAX of Linux, 255, less `events-`.
MAX_QUEUE_NAME_SIZE: Final = 248

#: What the name of a publisher's section begins with.
SECTION_PREFIX: Final = "event-publisher:"

_VERSIONS: Final[tuple[Version, ...]] = ("2", "2j")
_SCHEMES: Final[tuple[Scheme, ...]] = ("https", "http")
_TRANSPORTS: Final[tuple[Transport, ...]] = ("posix", "spool", "both")

#: The environment variable that services and publisher take the directory of their spools from.
SPOOL_VARIABLE: Final = "EVENT_SPOOL_DIRECTORY"

#: Permissions that a spool can have: for one user, or for a group.
_SPOOL_MODES: Final = frozenset({0o600, 0o660})


class Sync(enum.Enum):
    """When what was written is forced onto the disk."""

    NEVER = "never"
    BATCH = "batch"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The queue that is drained.

    Attributes:
        name: Its name, the NAME of `/events-NAME`.
        max_size: Events that it holds, 1 to 65,536 (`max_queue_size`, default 10,000 as in the original).
        max_event_size: Bytes of its largest event, 1 to 16 MiB (default 102,400 as in the original).
        mode: Permissions of a queue or a spool that the publisher makes (`queue.mode`, default 0600: the
            original's 0644 lets any local user take events away).
        transport: Where events come from: the POSIX queue, what services write to the spool, or both.
        exclusive: Whether the publisher needs the POSIX queue for itself alone (`queue.exclusive`).
    """

    name: str
    max_size: int
    max_event_size: int
    mode: int
    transport: Transport
    exclusive: bool


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """The event collector.

    Attributes:
        hostname: Its host with an optional port, as a URL has them.
        version: The wire format, default `2`.
        scheme: Default `https`.
        timeout: Seconds for one connect, send or read (default 3, the original's).
        deadline: Seconds for a whole attempt, at least `timeout` (default 10, three timeouts). A
            timeout for each read alone lets a response that drips hold the publisher.
        ca_file: Path of a PEM file to trust instead of the system's certificates, or None. It was loadable.
        proxy: `http://HOST:PORT`, or None.
    """

    hostname: str
    version: Version
    scheme: Scheme
    timeout: float
    deadline: float
    ca_file: str | None
    proxy: str | None

    @property
    def url(self) -> str:
        """Where batches are posted."""
        return f"{self.scheme}://{self.hostname}/v{self.version}"


@dataclass(frozen=True, slots=True)
class KeySettings:
    """The key that signs batches.

    Attributes:
        name: Tells the collector which key it is; can stand in a header as it is.
        secret: At least one byte.
    """

    name: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """When a batch is full.

    Attributes:
        max_size: Bytes of its body before compression, wrapper included (default 512,000, the original's).
        max_age: Seconds from its first event on (default 1, the original's).
        max_events: Events (default 10,000, a whole queue; the original has no such bound).
    """

    max_size: int
    max_age: float
    max_events: int


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How long to wait before a batch is sent again.

    Attributes:
        base: Seconds; the longest wait before the first retry (default 1).
        cap: Seconds; the longest wait before any, at least `base` (default 30).
        codes: Statuses, 300 to 599, that are tried again besides those of the rules (default none).
        max_age: Seconds after which an event that can't be delivered is given up; None, the default: never.
    """

    base: float
    cap: float
    codes: frozenset[int]
    max_age: float | None


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where events are on disk until they are delivered.

    Attributes:
        directory: The directory that services and publisher share; the spool is `events-NAME` in it.
        max_size: Bytes beyond which no events of the queue are moved into it (default 1 GiB).
        sync: When events are forced onto the disk (`spool.fsync`, default never).
    """

    directory: str
    max_size: int
    sync: Sync


@dataclass(frozen=True, slots=True)
class DeadLetterSettings:
    """Where events go that the collector refuses.

    Attributes:
        directory: The folder; None if they are in the spool's ledger.
        max_size: Bytes that they take at most; then the oldest are dropped (default 100 MiB).
    """

    directory: str | None
    max_size: int


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics go.

    Attributes:
        namespace: What the name of each begins with; empty by default, as in the original.
        endpoint: The statsd server, or None for no metrics.
        log_if_unconfigured: Whether they are logged where there is no endpoint.
    """

    namespace: str
    endpoint: Endpoint | None
    log_if_unconfigured: bool


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """The settings of an event publisher.

    Attributes:
        queue: The queue that is drained.
        collector: Where the events go.
        key: What signs them.
        batch: When a batch is full.
        retry: How long to wait between attempts.
        metrics: Where metrics go.
        compression_level: Level of gzip, 1 to 9. Default 2: of 1 to 3, which are as fast as each other within
            3 %, the one in the middle, which sends 5 % less than 1 and 2 % more than 3; 6 sends 15 % less for
            two thirds of the rate (`python -m benchmarks publisher`). There is no 0, which would send eight
            times as much.
        shutdown_grace: Seconds in which a publisher that was asked to stop still delivers (default 10).
        shutdown_drain: Whether it still sends what is in the spool (`shutdown.drain`, default true).
        concurrency: Requests in flight at the same time at most, 1 to 64 (`delivery.concurrency`, default 16:
            what one core takes from the queue while a collector takes 50 ms to answer).
        spool: Where events are safe until they are delivered, or None.
        dead_letters: Where events go that are given up, or None: then they are dropped.
        health: Where the health endpoint listens, an address or a Unix socket, or None: then there is none.
        health_hosts: Names that its requests may use for this host, in lower case, besides `localhost`
            (`health.hosts`, default none). Other names are those of web pages that try to read it.
    """

    queue: QueueSettings
    collector: CollectorSettings
    key: KeySettings
    batch: BatchSettings
    retry: RetrySettings
    metrics: MetricsSettings
    compression_level: int
    shutdown_grace: float
    shutdown_drain: bool
    concurrency: int
    spool: SpoolSettings | None
    dead_letters: DeadLetterSettings | None
    health: Endpoint | None
    health_hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where the events of a queue are, for those who look after them.

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
        environ: What `$NAME` and `${NAME}` in a value of the file stand for.

    Raises:
        ConfigurationError: With one line for each mistake of the file or the section.
    """
    defaults = {key.name: key.default for key in OPTIONS if key.default is not None}
    section = _read(config_file, queue_name, environ, defaults)
    spool = _spool(section, environ)
    settings = PublisherSettings(
        queue=_queue(section, spool),
        collector=CollectorSettings(
            hostname=section.host("collector.hostname", scheme_key="collector.scheme"),
            version=section.choice("collector.version", _VERSIONS),
            scheme=section.choice("collector.scheme", _SCHEMES),
            timeout=_span(section, "collector.timeout"),
            deadline=_span(section, "collector.deadline"),
            ca_file=_ca_file(section, "collector.ca_file"),
            proxy=section.proxy("collector.proxy") or None,
        ),
        key=KeySettings(
            name=section.text(
                "key.name",
                pattern=r"""(?:(?![,"'])[!-~])+""",
                expected="the key's name: printable ASCII without blanks, commas and quotes",
            ),
            secret=section.base64("key.secret"),
        ),
        batch=BatchSettings(
            max_size=_integer(section, "batch.max_size"),
            max_age=_span(section, "batch.max_age"),
            max_events=_integer(section, "batch.max_events"),
        ),
        retry=RetrySettings(
            base=_span(section, "retry.base"),
            cap=_span(section, "retry.cap"),
            codes=_codes(section, "retry.codes"),
            max_age=section.optional_span(
                "retry.max_age",
                minimum=OPTION_BY_NAME["retry.max_age"].minimum,
                maximum=OPTION_BY_NAME["retry.max_age"].maximum,
            ),
        ),
        concurrency=_integer(section, "delivery.concurrency"),
        spool=spool,
        dead_letters=_dead_letters(section, spool),
        metrics=MetricsSettings(
            namespace=section.text(
                "metrics.namespace",
                pattern=r"(?:(?![:|@#,=])[!-~])+",
                expected="printable ASCII without blanks and the characters : | @ # , =",
            ),
            endpoint=section.endpoint("metrics.endpoint"),
            log_if_unconfigured=section.boolean("metrics.log_if_unconfigured"),
        ),
        compression_level=_integer(section, "compression.level"),
        shutdown_grace=_span(section, "shutdown.grace"),
        shutdown_drain=section.boolean("shutdown.drain"),
        health=section.bind("health.bind"),
        health_hosts=section.names("health.hosts"),
    )
    section.boolean("metrics.swallow_network_errors")
    _compare(section, settings)
    section.finish()
    return settings


def find_queue_name(config_file: str | os.PathLike[str]) -> str:
    """Return the NAME of the queue that is meant if none is named; see `load_settings`.

    Raises:
        ConfigurationError: The file can't be read, has no section of a publisher, or several.
    """
    return _read(config_file, None, {}, {}).name.removeprefix(SECTION_PREFIX)


def load_store(
    config_file: str | os.PathLike[str], queue_name: str | None, environ: Mapping[str, str]
) -> StoreSettings:
    """Read where the events of a queue are, whatever else is in the section.

    The arguments are those of `load_settings`.

    Raises:
        ConfigurationError: The section isn't there, or one of these settings is wrong.
    """
    defaults = {option.name: option.default for option in OPTIONS if option.default is not None}
    section = _read(config_file, queue_name, environ, defaults)
    for option in OPTIONS:
        section.ignore(option.name)
    spool = _spool(section, environ)
    store = StoreSettings(_queue(section, spool), spool, _dead_letters(section, spool))
    section.finish()
    return store


def load_health(
    config_file: str | os.PathLike[str], queue_name: str | None, environ: Mapping[str, str]
) -> Endpoint | None:
    """Read where the health endpoint of a queue's publisher listens, whatever else is in the section.

    Whoever looks at a publisher needs neither its secret nor the environment that it was started with. The
    arguments are those of `load_settings`.

    Returns:
        The endpoint, or None where `health.bind` isn't set.

    Raises:
        ConfigurationError: The section isn't there, or its `health.bind` is wrong.
    """
    defaults = {"health.bind": ""}
    section = _read(config_file, queue_name, environ, defaults)
    endpoint = section.bind("health.bind")
    section.ignore("health.hosts")
    section.finish()
    return endpoint


def _read(
    config_file: str | os.PathLike[str],
    queue_name: str | None,
    environ: Mapping[str, str],
    defaults: Mapping[str, str],
) -> Section:
    name = None if queue_name is None else f"{SECTION_PREFIX}{queue_name}"
    return read_section(config_file, name, environ, defaults=defaults, family=SECTION_PREFIX)


def _queue(section: Section, spool: SpoolSettings | None) -> QueueSettings:
    return QueueSettings(
        name=section.name.removeprefix(SECTION_PREFIX),
        max_size=_integer(section, "max_queue_size"),
        max_event_size=_integer(section, "max_event_size"),
        mode=section.mode("queue.mode"),
        # The first choice is the default.
        transport=section.choice("queue.transport", _TRANSPORTS if spool is None else _TRANSPORTS[::-1]),
        exclusive=section.boolean("queue.exclusive"),
    )


def _span(section: Section, name: str) -> float:
    key = OPTION_BY_NAME[name]
    return section.span(name, minimum=key.minimum, maximum=key.maximum)


def _integer(section: Section, name: str) -> int:
    key = OPTION_BY_NAME[name]
    return section.integer(name, minimum=int(key.minimum), maximum=int(key.maximum))


def _codes(section: Section, name: str) -> frozenset[int]:
    """Read statuses that are separated by commas."""
    text = section.text(
        name,
        pattern=r"\s*[345][0-9]{2}\s*(,\s*[345][0-9]{2}\s*)*",
        expected="statuses from 300 to 599, separated by commas, such as 400, 404",
    )
    return frozenset(map(int, re.findall(r"[0-9]+", text)))


def _folder(section: Section, name: str) -> str:
    return section.text(name, pattern=r"/[^\x00-\x1f\x7f]*", expected="the absolute path of a folder")


def _spool(section: Section, environ: Mapping[str, str]) -> SpoolSettings | None:
    directory = _folder(section, "spool.directory")
    if not directory and (directory := environ.get(SPOOL_VARIABLE, "")) and not directory.startswith("/"):
        section.mistake(
            "spool.directory",
            f"it is ${SPOOL_VARIABLE}; expected the absolute path of a folder there",
        )
    max_size = _integer(section, "spool.max_size")
    sync = section.choice("spool.fsync", tuple(sync.value for sync in Sync))
    return SpoolSettings(directory, max_size, Sync(sync)) if directory else None


def _dead_letters(section: Section, spool: SpoolSettings | None) -> DeadLetterSettings | None:
    directory = _folder(section, "dead_letters.directory")
    max_size = _integer(section, "dead_letters.max_size")
    if directory and spool is not None:
        section.mistake("dead_letters.directory", "dead letters are in the spool's ledger; remove this key")
    if spool is not None:
        return DeadLetterSettings(None, max_size)
    return DeadLetterSettings(directory, max_size) if directory else None


def _ca_file(section: Section, name: str) -> str | None:
    """Read the path of a PEM file and see whether its certificates can be loaded."""
    path = section.text(name, pattern=r"[^\x00-\x1f\x7f]+", expected="the path of a PEM file")
    if not path:
        return None
    import ssl  # noqa: PLC0415 - `status` reads a configuration too, and shouldn't take long

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        problem = "holds no certificates in PEM form"
    except OSError as exc:
        problem = f"can't be read ({exc.strerror})"
    else:
        return path
    section.mistake(name, f"the file {problem}; expected a PEM file with the certificates to trust")
    return None


def _compare(section: Section, settings: PublisherSettings) -> None:
    """Note settings that don't go together, each under the key that would fix it."""
    collector, batch, retry, queue = settings.collector, settings.batch, settings.retry, settings.queue
    if section.sound("collector.timeout", "collector.deadline") and collector.deadline < collector.timeout:
        section.mistake(
            "collector.deadline",
            f"{format_span(collector.deadline)} is less than collector.timeout; expected at least "
            f"{format_span(collector.timeout)}",
        )
    if section.sound("retry.base", "retry.cap") and retry.cap < retry.base:
        section.mistake(
            "retry.cap",
            f"{format_span(retry.cap)} is less than retry.base; expected at least {format_span(retry.base)}",
        )
    if (
        queue.transport != "posix"
        and settings.spool is None
        and section.sound("queue.transport", "spool.directory")
    ):
        section.mistake("queue.transport", f"{queue.transport} needs a spool; set spool.directory")
    if settings.spool is not None and section.sound("queue.mode") and queue.mode not in _SPOOL_MODES:
        section.mistake(
            "queue.mode",
            f"{queue.mode:04o} can't be that of a spool; expected 0600, or 0660 if services and publisher "
            "share a group",
        )
    room = queue.max_event_size + BATCH_WRAPPER_SIZE
    if section.sound("max_event_size", "batch.max_size") and batch.max_size < room:
        section.mistake(
            "batch.max_size",
            f"{batch.max_size} bytes don't hold an event of max_event_size; expected at least {room}",
        )
    if (
        re.fullmatch(r"[^/\x00-\x1f\x7f]+", queue.name) is None
        or len(os.fsencode(queue.name)) > MAX_QUEUE_NAME_SIZE
    ):
        section.mistake(
            "--queue-name",
            f"can't name a queue; expected up to {MAX_QUEUE_NAME_SIZE} bytes with no slash in them",
        )
