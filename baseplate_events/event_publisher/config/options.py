"""The keys of the section `[event-publisher:NAME]`: the one table of what an operator can set.

`load_settings` reads each default and numeric bound from here, and the documentation is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .values import format_span

Kind: TypeAlias = Literal[
    "host",
    "choice",
    "span",
    "path",
    "folder",
    "statuses",
    "proxy",
    "text",
    "base64",
    "count",
    "bytes",
    "mode",
    "endpoint",
    "bind",
    "names",
    "boolean",
]

#: Bytes that the wire puts around the events of a batch, at most: 23 and the digits of their number.
BATCH_WRAPPER_SIZE: Final = 64
#: Seconds: the bounds of most spans. Less than a millisecond is none, more than an hour is surely a mistake.
_MILLISECOND: Final = 0.001
_HOUR: Final = 3_600.0
_YEAR: Final = 366 * 24 * _HOUR
#: Bytes: a disk of today's largest.
_LARGEST_SPOOL: Final = 1 << 45
#: Bounds of a queue whose maker has CAP_SYS_RESOURCE: HARD_MSGMAX and HARD_MSGSIZEMAX of mq_overview(7).
_HARD_MSGMAX: Final = 65_536
_HARD_MSGSIZEMAX: Final = 16_777_216
#: Bytes of the largest body: four of the largest events; a publisher holds a few bodies in memory.
_MAX_BODY: Final = 4 * _HARD_MSGSIZEMAX


@dataclass(frozen=True, slots=True)
class Option:
    """A key of the section.

    Attributes:
        name: The key as it is written.
        kind: What its value is. A span is written `500 milliseconds`, a host may have a port.
        default: The default as it would be written; None where the key has to be there, empty where it is
            left out and nothing stands for it.
        meaning: What it is for, in words for an operator.
        minimum: The least that it can be, in seconds for a span; the bounds of other kinds are in `meaning`.
        maximum: The most that it can be, likewise.
        reload: Whether a new value takes effect with SIGHUP; otherwise it needs a restart.
    """

    name: str
    kind: Kind
    default: str | None
    meaning: str
    minimum: float = 0
    maximum: float = 0
    reload: bool = False

    @property
    def bounds(self) -> str:
        """The bounds in words, such as `1 millisecond to 1 hour`; empty where the kind has none."""
        if self.kind == "span":
            return f"{format_span(self.minimum)} to {format_span(self.maximum)}"
        if self.kind in {"count", "bytes"}:
            return f"{self.minimum:,} to {self.maximum:,}"
        return ""


#: Every key, in the order of the documentation. Defaults that the original had are the original's.
OPTIONS: Final = (
    Option(
        "collector.hostname",
        "host",
        None,
        "The event collector's host, with its port unless it is the scheme's.",
        reload=True,
    ),
    Option("collector.version", "choice", "2", "The format of the events: `2` for Thrift, `2j` for JSON."),
    Option(
        "collector.scheme",
        "choice",
        "https",
        "`https`, or `http` where the way is safe without it.",
        reload=True,
    ),
    Option(
        "collector.timeout",
        "span",
        "3 seconds",
        "The longest that one connect, send or read may take.",
        _MILLISECOND,
        _HOUR,
        reload=True,
    ),
    Option(
        "collector.deadline",
        "span",
        "10 seconds",
        "The longest that a whole attempt may take; at least `collector.timeout`.",
        _MILLISECOND,
        _HOUR,
        reload=True,
    ),
    Option(
        "collector.ca_file",
        "path",
        "",
        "A PEM file with the certificates to trust instead of the system's.",
        reload=True,
    ),
    Option(
        "collector.proxy",
        "proxy",
        "",
        "An HTTP proxy, `http://HOST:PORT`. Proxy variables of the environment mean nothing.",
        reload=True,
    ),
    Option(
        "key.name",
        "text",
        None,
        "The key that signs batches: printable ASCII without blanks, commas and quotes.",
        reload=True,
    ),
    Option("key.secret", "base64", None, "The secret of that key in base64.", reload=True),
    Option(
        "max_queue_size",
        "count",
        "10000",
        "The events that the queue holds, where the publisher makes it.",
        1,
        _HARD_MSGMAX,
    ),
    Option(
        "max_event_size",
        "bytes",
        "102400",
        "The largest event that the queue takes, where the publisher makes it.",
        1,
        _HARD_MSGSIZEMAX,
    ),
    Option(
        "queue.mode",
        "mode",
        "0600",
        "Who may open the queue or the spool, where the publisher makes it, and so take events away too.",
    ),
    Option(
        "queue.transport",
        "choice",
        "",
        "Where events come from: `posix`, `spool` or `both`; by default `both` with a spool, else `posix`.",
    ),
    Option(
        "queue.exclusive",
        "boolean",
        "false",
        "Refuse to start while another publisher reads the same POSIX queue; otherwise that is a warning.",
    ),
    Option(
        "batch.max_size",
        "bytes",
        "512000",
        f"The largest body before compression; at least `max_event_size` and {BATCH_WRAPPER_SIZE}.",
        1 + BATCH_WRAPPER_SIZE,
        _MAX_BODY,
    ),
    Option(
        "batch.max_age",
        "span",
        "1 second",
        "The longest that an event waits for others to fill its batch.",
        _MILLISECOND,
        _HOUR,
    ),
    Option("batch.max_events", "count", "10000", "The most events of a batch.", 1, 1_000_000),
    Option(
        "compression.level",
        "count",
        "2",
        "The level of gzip: 1 is the fastest, 9 makes the smallest bodies.",
        1,
        9,
        reload=True,
    ),
    Option(
        "retry.base",
        "span",
        "1 second",
        "The longest wait before the first retry of a batch; it doubles with each one.",
        _MILLISECOND,
        _HOUR,
    ),
    Option(
        "retry.cap",
        "span",
        "30 seconds",
        "The longest wait before any retry; at least `retry.base`.",
        _MILLISECOND,
        _HOUR,
    ),
    Option(
        "retry.codes",
        "statuses",
        "",
        "Statuses that are tried again besides those of the rules, separated by commas, such as `400, 404`.",
        reload=True,
    ),
    Option(
        "retry.max_age",
        "span",
        "",
        "The age at which an event that can't be delivered is given up; without it, never.",
        1,
        _YEAR,
    ),
    Option(
        "delivery.concurrency",
        "count",
        "16",
        "The most requests under way at the same time; with more than 1 the order of batches isn't kept.",
        1,
        64,
    ),
    Option(
        "spool.directory",
        "folder",
        "",
        "The directory of spools that services and publisher share, where events are safe until they are "
        "delivered; by default `$EVENT_SPOOL_DIRECTORY`, without both, off.",
    ),
    Option(
        "spool.max_size",
        "bytes",
        "1073741824",
        "The most that the spool takes; then the publisher stops moving events from the queue into it.",
        1_000_000,
        _LARGEST_SPOOL,
    ),
    Option(
        "spool.fsync",
        "choice",
        "never",
        "When events are forced onto the disk: `never`, `batch.max_age` after they came (`batch`), or each "
        "`event` of the queue before the next, and those of services as with `batch`.",
    ),
    Option(
        "dead_letters.directory",
        "folder",
        "",
        "A folder for events that the collector refuses; with a spool they are in its ledger.",
    ),
    Option(
        "dead_letters.max_size",
        "bytes",
        "104857600",
        "The most that dead letters take; then the oldest are dropped.",
        100_000,
        _LARGEST_SPOOL,
    ),
    Option(
        "shutdown.grace",
        "span",
        "10 seconds",
        "The longest that the publisher still delivers once it is told to end.",
        0,
        _HOUR,
        reload=True,
    ),
    Option(
        "shutdown.drain",
        "boolean",
        "true",
        "Whether a publisher with a spool sends what is in it before it ends; `false` if the spool stays.",
        reload=True,
    ),
    Option(
        "metrics.namespace", "text", "", "What the names of all metrics begin with, without a dot at the end."
    ),
    Option(
        "metrics.endpoint",
        "endpoint",
        "",
        "The statsd server: `HOST:PORT`, or a Unix socket's path with a `/` in it.",
    ),
    Option(
        "metrics.log_if_unconfigured",
        "boolean",
        "false",
        "Log the metrics (`--debug`) where there is no endpoint.",
    ),
    Option(
        "metrics.swallow_network_errors",
        "boolean",
        "false",
        "Accepted for configurations of the original. Metrics never disturb the publisher.",
    ),
    Option(
        "health.bind",
        "bind",
        "",
        "Where `/healthz`, `/readyz` and `/metrics` are: `ADDRESS:PORT` or a Unix socket's path; else off.",
    ),
    Option(
        "health.hosts",
        "names",
        "",
        "Host names that requests to `health.bind` may use besides addresses and `localhost`, with commas.",
    ),
)

OPTION_BY_NAME: Final = {key.name: key for key in OPTIONS}
