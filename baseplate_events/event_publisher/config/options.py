"""Every option of the section `[event-publisher:NAME]`, declared once, in groups.

The README's table lists them in this order. Defaults that baseplate.py has are baseplate.py's, except
`queue.mode`: with its 0644 any local user can take events away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from ...spool import MIN_SPOOL_SIZE
from .declare import (
    BIND,
    BOOLEAN,
    CA_FILE,
    ENDPOINT,
    FOLDER,
    HOST_NAMES,
    MODE,
    PROXY,
    SECRET,
    STATUSES,
    Group,
    Option,
    choice,
    host,
    integer,
    option,
    optional,
    span,
    text,
)

if TYPE_CHECKING:
    from .values import Endpoint, Secret

Version: TypeAlias = Literal["2", "2j"]
Scheme: TypeAlias = Literal["https", "http"]
Transport: TypeAlias = Literal["posix", "spool", "both"]
#: When written events are forced to disk.
Sync: TypeAlias = Literal["never", "batch", "event"]

#: Environment variable with the directory for spools, for services and publishers.
SPOOL_VARIABLE: Final = "EVENT_SPOOL_DIRECTORY"

#: Bytes that the wire format adds to the events of a batch, at most: 23 and the digits of their number.
BATCH_WRAPPER_SIZE: Final = 64

_HOUR: Final = 3_600.0
_YEAR: Final = 366 * 24 * _HOUR
#: Most spans. Below a millisecond nothing is measured; more than an hour is surely a mistake.
_SPAN: Final = span(0.001, _HOUR)
#: Bytes of the largest disks of today.
_LARGEST_SPOOL: Final = 1 << 45
#: Bounds of a queue whose creator has CAP_SYS_RESOURCE: HARD_MSGMAX and HARD_MSGSIZEMAX of mq_overview(7).
_HARD_MSGMAX: Final = 65_536
_HARD_MSGSIZEMAX: Final = 16_777_216
#: Bytes of the largest body: four of the largest events, because a publisher holds a few bodies in memory.
_MAX_BODY: Final = 4 * _HARD_MSGSIZEMAX


@dataclass(frozen=True, slots=True)
class CollectorSettings(Group):
    """The event collector."""

    hostname: str = option(
        "collector.hostname",
        host("collector.scheme"),
        None,
        "Host of the event collector, with its port if that isn't the scheme's default.",
        reload=True,
    )
    version: Version = option(
        "collector.version", choice("2", "2j"), "2", "Format of the events: `2` for Thrift, `2j` for JSON."
    )
    scheme: Scheme = option(
        "collector.scheme",
        choice("https", "http"),
        "https",
        "`https`, or `http` if the network path to the collector is trusted.",
        reload=True,
    )
    timeout: float = option(
        "collector.timeout", _SPAN, "3 seconds", "Time limit for each connect, send or read.", reload=True
    )
    # Without it, a response that trickles in could occupy a sender indefinitely. Three timeouts.
    deadline: float = option(
        "collector.deadline",
        _SPAN,
        "10 seconds",
        "Time limit for a whole attempt; at least `collector.timeout`.",
        reload=True,
    )
    ca_file: str | None = optional(
        "collector.ca_file",
        CA_FILE,
        "PEM file with the certificates to trust instead of the system's.",
        reload=True,
    )
    proxy: str | None = optional(
        "collector.proxy",
        PROXY,
        "HTTP proxy, `http://HOST:PORT`. Proxy variables of the environment are ignored.",
        reload=True,
    )

    @property
    def url(self) -> str:
        """Where batches are posted."""
        return f"{self.scheme}://{self.hostname}/v{self.version}"


@dataclass(frozen=True, slots=True)
class KeySettings(Group):
    """The key that signs batches."""

    # Secret as well: a mistake may put the secret here.
    name: str = option(
        "key.name",
        text(r"""(?:(?![,"'])[!-~])+""", "the key's name: printable ASCII without blanks, commas and quotes"),
        None,
        "Name of the key that signs batches: printable ASCII without blanks, commas or quotes.",
        reload=True,
        secret=True,
    )
    secret: Secret = option(
        "key.secret", SECRET, None, "Secret of that key, in base64.", reload=True, secret=True
    )


@dataclass(frozen=True, slots=True)
class QueueSettings(Group):
    """Where events come from.

    Attributes:
        name: The NAME of the section, of the queue `/events-NAME` and of the spool `events-NAME`.
    """

    name: str
    max_size: int = option(
        "max_queue_size",
        integer(1, _HARD_MSGMAX),
        "10000",
        "Number of events that the POSIX queue holds, if the publisher creates it.",
    )
    max_event_size: int = option(
        "max_event_size",
        integer(1, _HARD_MSGSIZEMAX),
        "102400",
        "Size limit for an event, in bytes, if the publisher creates the POSIX queue.",
    )
    mode: int = option(
        "queue.mode",
        MODE,
        "0600",
        "Permissions of the queue or the spool, if the publisher creates it. Whoever can open it can also "
        "take events away.",
    )
    transport: Transport = option(
        "queue.transport",
        choice("posix", "spool", "both"),
        "posix",
        "Where events come from: `posix`, `spool` or `both`. With a spool, the default is `both`.",
    )
    exclusive: bool = option(
        "queue.exclusive",
        BOOLEAN,
        "false",
        "Refuse to start while another publisher reads the same POSIX queue, instead of logging a warning.",
    )


@dataclass(frozen=True, slots=True)
class BatchSettings(Group):
    """When a batch is complete."""

    max_size: int = option(
        "batch.max_size",
        integer(1 + BATCH_WRAPPER_SIZE, _MAX_BODY),
        "512000",
        "Size limit for a request body before compression, in bytes; at least `max_event_size` plus "
        f"{BATCH_WRAPPER_SIZE}.",
    )
    max_age: float = option(
        "batch.max_age", _SPAN, "1 second", "Longest time that an event waits for its batch to fill."
    )
    # A whole queue. baseplate.py has no such limit.
    max_events: int = option(
        "batch.max_events", integer(1, 1_000_000), "10000", "Maximum number of events in one batch."
    )


@dataclass(frozen=True, slots=True)
class CompressionSettings(Group):
    """How bodies are compressed."""

    # 1 to 3 are equally fast within 3 %: 2 sends 5 % less than 1 and 2 % more than 3. 6 sends 15 % less at
    # two thirds of the rate (`python -m benchmarks publisher`). 0 would send eight times as much.
    level: int = option(
        "compression.level",
        integer(1, 9),
        "2",
        "Level of gzip, from 1, the fastest, to 9, which makes the smallest bodies.",
        reload=True,
    )


@dataclass(frozen=True, slots=True)
class RetrySettings(Group):
    """When a failed batch is sent again."""

    base: float = option(
        "retry.base",
        _SPAN,
        "1 second",
        "Longest delay before the first retry of a batch; it doubles with each retry.",
    )
    cap: float = option(
        "retry.cap", _SPAN, "30 seconds", "Longest delay before any retry; at least `retry.base`."
    )
    codes: frozenset[int] = option(
        "retry.codes",
        STATUSES,
        "",
        "Further HTTP statuses, separated by commas, after which a batch is retried. By default, 400, 413 "
        "and 422 split it instead.",
        reload=True,
    )
    max_age: float | None = optional(
        "retry.max_age",
        span(1, _YEAR, "7 days"),
        "Age at which an undelivered event is given up. By default there is no such age.",
    )


@dataclass(frozen=True, slots=True)
class DeliverySettings(Group):
    """How batches are sent."""

    # What one core takes from the queue while a collector takes 50 ms to answer.
    concurrency: int = option(
        "delivery.concurrency",
        integer(1, 64),
        "16",
        "Maximum number of requests in flight. With more than 1, batches can arrive out of order.",
    )


@dataclass(frozen=True, slots=True)
class SpoolSettings(Group):
    """The directory in which events are until they are delivered. The spool is `events-NAME` in it."""

    directory: str = option(
        "spool.directory",
        FOLDER,
        "",
        "Directory for spools, which services and publisher share. Events are safe there until they are "
        f"delivered. By default `${SPOOL_VARIABLE}`; if that isn't set either, there is no spool.",
        variable=SPOOL_VARIABLE,
    )
    max_size: int = option(
        "spool.max_size",
        integer(MIN_SPOOL_SIZE, _LARGEST_SPOOL),
        "1073741824",
        "Size limit for the spool, in bytes. Beyond it, the publisher stops moving events from the POSIX "
        "queue into the spool.",
    )
    sync: Sync = option(
        "spool.fsync",
        choice("never", "batch", "event"),
        "never",
        "When events in the spool are forced to disk. `never`: the system decides. `batch`: at most "
        "`batch.max_age` after they were written. `event`: like `batch`, but the publisher forces "
        "each event of the POSIX queue to disk before it takes the next one.",
    )


@dataclass(frozen=True, slots=True)
class DeadLetterSettings(Group):
    """Where rejected events go: a folder, or without one the ledger of the spool."""

    directory: str | None = optional(
        "dead_letters.directory",
        FOLDER,
        "Folder for events that the collector rejects. Not allowed with a spool, because the spool itself "
        "stores these events.",
    )
    max_size: int = option(
        "dead_letters.max_size",
        integer(100_000, _LARGEST_SPOOL),
        "104857600",
        "Size limit for dead letters, in bytes. Beyond it, the oldest dead letters are dropped.",
    )


@dataclass(frozen=True, slots=True)
class ShutdownSettings(Group):
    """What a publisher still does after it was asked to stop."""

    grace: float = option(
        "shutdown.grace",
        span(0, _HOUR),
        "10 seconds",
        "Longest time that the publisher goes on delivering after it is asked to stop.",
        reload=True,
    )
    drain: bool = option(
        "shutdown.drain",
        BOOLEAN,
        "true",
        "Whether a publisher with a spool delivers the spool's events before it stops. Use `false` if the "
        "spool still exists after the stop.",
        reload=True,
    )


@dataclass(frozen=True, slots=True)
class MetricsSettings(Group):
    """Where metrics go."""

    namespace: str = option(
        "metrics.namespace",
        text(r"(?:(?![:|@#,=])[!-~])*", "printable ASCII without blanks and the characters : | @ # , ="),
        "",
        "Prefix of all metric names, without a dot at the end.",
    )
    endpoint: Endpoint | None = optional(
        "metrics.endpoint",
        ENDPOINT,
        "statsd server: `HOST:PORT`, or the path of a Unix socket; the path must contain a `/`.",
    )
    log_if_unconfigured: bool = option(
        "metrics.log_if_unconfigured",
        BOOLEAN,
        "false",
        "Log the metrics if there is no endpoint; the lines are visible with `--debug`.",
    )


@dataclass(frozen=True, slots=True)
class HealthSettings(Group):
    """The health endpoint."""

    bind: Endpoint | None = optional(
        "health.bind",
        BIND,
        "Where `/healthz`, `/readyz` and `/metrics` are served: `ADDRESS:PORT` or the path of a Unix socket. "
        "By default these pages are off.",
    )
    # Other names are those of web pages that try to read it.
    hosts: frozenset[str] = option(
        "health.hosts",
        HOST_NAMES,
        "",
        "Host names, separated by commas, that a request to `health.bind` may have in its `Host` header. "
        "Addresses and `localhost` are always allowed.",
    )


#: The groups, in the order of the documentation.
GROUPS: Final = (
    CollectorSettings,
    KeySettings,
    QueueSettings,
    BatchSettings,
    CompressionSettings,
    RetrySettings,
    DeliverySettings,
    SpoolSettings,
    DeadLetterSettings,
    ShutdownSettings,
    MetricsSettings,
    HealthSettings,
)

#: Options of baseplate.py that are accepted and have no effect.
IGNORED: Final = (
    Option(
        "metrics.swallow_network_errors",
        BOOLEAN,
        "false",
        "Accepted for configurations of baseplate.py, and ignored: metrics never disturb the publisher.",
    ),
)

#: Every option, in the order of the documentation.
OPTIONS: Final[tuple[Option[Any], ...]] = (
    *(each for group in GROUPS for each in group.options().values()),
    *IGNORED,
)

OPTION_BY_NAME: Final[dict[str, Option[Any]]] = {each.name: each for each in OPTIONS}
