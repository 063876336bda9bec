"""Hypothesis strategies shared by all properties, one section per part of the package."""

from __future__ import annotations

import datetime as dt
import json
import math
from base64 import b64encode
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from baseplate_events import errors
from baseplate_events.cli.doctor.findings import Check, Code, Verdict
from baseplate_events.event_publisher.config.declare import BOOLEAN
from baseplate_events.event_publisher.config.values import (
    InternetEndpoint,
    Secret,
    UnixEndpoint,
    parse_span,
)
from baseplate_events.event_publisher.policy.accounting import Accounting, DropReason
from baseplate_events.event_publisher.policy.outcome import (
    Accepted,
    Misconfigured,
    Refused,
    Retryable,
    TooLarge,
)
from baseplate_events.event_publisher.telemetry.snapshot import Attempts, Snapshot, SpoolLevel
from baseplate_events.transport.limits import HARD_MAX_MESSAGE_SIZE, HARD_MAX_MESSAGES, HostLimits, QueueSize

if TYPE_CHECKING:
    from typing import Any

    from baseplate_events.event_publisher.config.declare import Option

# --- common ---

#: Text that JSON and UTF-8 can carry: everything but lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)

# --- event_publisher ---

#: What a message of the queue can be: small JSON-like bytes, of few sizes so that bounds are hit exactly.
messages = st.one_of(
    st.integers(1, 60).map(lambda size: b'"' + b"e" * size + b'"'),
    st.binary(min_size=1, max_size=40),
)

#: Versions of the body format.
versions = st.sampled_from(["2", "2j"])

# --- collector ---

_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(texts, values, max_size=4),
    max_leaves=5,
)

#: A JSON object, parsed.
json_objects = st.dictionaries(texts, _json_values, max_size=3)

#: Anything but an object that JSON can say, parsed.
json_non_objects = _json_values.filter(lambda value: not isinstance(value, dict))


def _serialize(value: object, escape: bool, separators: tuple[str, str]) -> bytes:
    return json.dumps(value, ensure_ascii=escape, separators=separators).encode()


#: Events as a producer may write them: JSON objects in one line, escaped or not, with blanks or without.
json_events = st.builds(
    _serialize,
    json_objects,
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), ("\t,", " :  ")]),
)

# --- statsd and configuration ---

#: Text that a hostile or careless user gives as a name: any code point, and the special characters of
#: formats.
hostile_texts = st.one_of(
    st.text(st.characters(), max_size=20),
    st.text("ab._-:|@#,=$ \n\r\t\0\x7f\u2028é😀", max_size=20),
)

#: Printable text of one line without a `$`, as a value of an INI file that stands for itself.
plain_texts = texts.map(lambda text: "".join(c for c in text if c.isprintable() and c != "$"))

#: Numbers that a line of statsd can hold.
finite_numbers = st.one_of(
    st.integers(-(10**6), 10**6),
    st.integers(-(2**1023), 2**1023),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1_000, 1_000).map(lambda number: round(number, 3)),
)

#: What `metrics.namespace` may be.
namespaces = st.from_regex(r"(?:(?![:|@#,=])[!-~])+", fullmatch=True)

#: Names of environment variables.
variable_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)

_labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)

#: Host names of at most 48 characters; the last one isn't a digit, unlike that of an address.
domain_names = st.builds(
    "{}{}".format,
    st.lists(_labels, max_size=4).map(lambda labels: "".join(f"{label}." for label in labels)),
    st.from_regex(r"[a-z]([a-z0-9_-]{0,2}[a-z_])?", fullmatch=True),
)

#: Host names and IPv4 addresses.
host_names = st.one_of(domain_names, st.ip_addresses(v=4).map(str))

ports = st.integers(1, 65_535)

#: Addresses at which something can listen, of loopback, of a network and of the whole host.
listening_hosts = st.one_of(
    st.sampled_from(["127.0.0.1", "::1", "0.0.0.0", "::"]),
    st.ip_addresses().map(str),
)

#: A unit of time, and its seconds as factor and divisor.
_time_units = st.sampled_from(
    [("millisecond", 1, 1_000), ("second", 1, 1), ("minute", 60, 1), ("hour", 3_600, 1), ("day", 86_400, 1)]
)


@st.composite
def spans(draw: st.DrawFn, *, minimum: float = 0, maximum: float = 86_400 * 10_000) -> tuple[str, float]:
    """A whole number of a unit of time as it is written, and its seconds."""
    unit, factor, divisor = draw(_time_units.filter(lambda entry: entry[1] <= maximum * entry[2]))
    count = draw(st.integers(math.ceil(minimum * divisor / factor), int(maximum * divisor / factor)))
    return f"{count} {unit}{draw(st.sampled_from(['', 's']))}", count * factor / divisor


_MISTYPED = "abcdefghijklmnopqrstuvwxyz._"


@st.composite
def misspellings(draw: st.DrawFn, word: str) -> str:
    """A word with one letter missing, added, changed, or swapped with its neighbour."""
    at = draw(st.integers(0, len(word) - 1))
    letter = draw(st.sampled_from(_MISTYPED))
    kind = draw(st.sampled_from(["missing", "added", "changed", "swapped"]))
    if kind == "swapped":
        return word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
    return word[:at] + ("" if kind == "missing" else letter) + word[at + (kind != "added") :]


def is_span(option: Option[Any]) -> bool:
    """Say whether the values of an option are spans of time."""
    return option.kind.expected.startswith("a number and its unit ")


def bounds_of(option: Option[Any]) -> tuple[float, float]:
    """Return the bounds that the messages of an option name; spans in seconds."""
    low, high = option.kind.expected.split(" from ")[1].split(" to ")
    if is_span(option):
        return parse_span(low, 0, math.inf), parse_span(high, 0, math.inf)
    return int(low), int(high)


_HOSTS = st.builds("{}:{}".format, host_names, ports)
_FOLDERS = st.from_regex(r"(/[a-z]{1,9}){1,3}", fullmatch=True)
_SOCKETS = st.builds(UnixEndpoint, _FOLDERS)


def _same(texts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, object]]:
    return texts.map(lambda text: (text, text))


#: Valid values of options without bounds: as they are written, and as they are read.
_VALUES: dict[str, st.SearchStrategy[tuple[str, object]]] = {
    "collector.hostname": _same(host_names | _HOSTS),
    "collector.version": _same(st.sampled_from(["2", "2j"])),
    "collector.scheme": _same(st.sampled_from(["http", "https"])),
    "collector.proxy": _same(_HOSTS.map("http://{}".format)),
    "key.name": _same(st.from_regex(r"[A-Za-z0-9._+-]{1,20}", fullmatch=True)),
    "key.secret": st.binary(min_size=1, max_size=64).map(
        lambda secret: (b64encode(secret).decode(), Secret(secret))
    ),
    "queue.mode": st.sampled_from([0o600, 0o660, 0o666, 0o640]).map(lambda mode: (f"{mode:04o}", mode)),
    "queue.transport": _same(st.sampled_from(["posix", "spool", "both"])),
    "retry.codes": st.sets(st.integers(300, 599), min_size=1, max_size=5).map(
        lambda codes: (", ".join(map(str, codes)), frozenset(codes))
    ),
    "spool.directory": _same(_FOLDERS),
    "spool.fsync": _same(st.sampled_from(["never", "batch", "event"])),
    "dead_letters.directory": _same(_FOLDERS),
    "metrics.namespace": _same(st.from_regex(r"[A-Za-z0-9._+-]{1,20}", fullmatch=True)),
    "metrics.endpoint": (st.builds(InternetEndpoint, host_names, ports) | _SOCKETS).map(
        lambda endpoint: (str(endpoint), endpoint)
    ),
    "health.bind": (st.builds(InternetEndpoint, listening_hosts, ports) | _SOCKETS).map(
        lambda endpoint: (str(endpoint), endpoint)
    ),
    "health.hosts": st.lists(host_names, min_size=1, max_size=3).map(
        lambda hosts: (", ".join(hosts), frozenset(map(str.lower, hosts)))
    ),
}


def option_values(option: Option[Any]) -> st.SearchStrategy[tuple[str, object]]:
    """A valid value of an option of the publisher: as it is written, and as it is read."""
    if option.name in _VALUES:
        return _VALUES[option.name]
    if option.kind is BOOLEAN:
        return st.booleans().map(lambda value: (str(value), value))
    low, high = bounds_of(option)
    if is_span(option):
        return spans(minimum=low, maximum=high).map(lambda span: (span[0], span[1]))
    return st.integers(int(low), int(high)).map(lambda number: (str(number), number))


def broken_values(option: Option[Any], secret: str) -> st.SearchStrategy[str]:
    """A value that an option of the publisher can't have; for one with a secret, a damaged secret."""
    broken = ["\x7f", "é è", "a b,c", "$UNSET_VARIABLE", "a${UNSET_VARIABLE}"]
    folder = ["spool", "./spool", "~/spool"]
    words = ["yes", "1", "2J", "ftp", "HTTPS"]
    impossible = {
        "key.secret": [secret[:-1], "!!!!", "!" + secret, f"{secret[:8]} {secret[8:]}", secret + "="],
        "collector.hostname": [
            *("https://events.test", "user:password@events.test", "events.test/v2", "h:0", "::1", "a..b"),
        ],
        "collector.version": words,
        "collector.scheme": words,
        "collector.ca_file": ["/nowhere/at/all.pem", "/"],
        "collector.proxy": [
            *("proxy:3128", "https://proxy:3128", "http://proxy", "http://user:password@proxy:3128"),
        ],
        "queue.mode": ["rw-------", "0400", "0777", "0o888", "66666"],
        "queue.transport": words,
        "retry.codes": ["200", "600", "4", "400 404", "400,", "4O4"],
        "spool.directory": folder,
        "spool.fsync": words,
        "dead_letters.directory": folder,
        "metrics.endpoint": ["statsd", "statsd:0", "udp://statsd:8125", "/" + "x" * 200],
        "health.bind": [
            *("9102", "0.0.0.0", ":::9102", "[fe80::1%eth0]:9102", "health.test:9102", "http://[::1]:9102"),
        ],
        "health.hosts": ["a.test:80", "a.test b.test", "a.test,", "http://a.test", "*", "[::1]"],
    }
    if option.name in impossible:
        broken += impossible[option.name]
    elif option.kind is BOOLEAN:
        broken += words
    elif option.name not in _VALUES:
        low, high = bounds_of(option)
        broken += (
            ["3", "-1 seconds", "3 sec", "9999 days", "1e0 seconds"]
            if is_span(option)
            else [str(int(low) - 1), str(int(high) + 1), "1.5", "1_0", "ten"]
        )
    return st.sampled_from(broken)


# --- queues ---

#: Sizes of queues from the smallest to the kernel's bounds, near the steps of the rules too.
queue_sizes = st.builds(
    QueueSize,
    st.one_of(
        st.integers(1, 20), st.integers(1, HARD_MAX_MESSAGES), st.sampled_from([10_000, 32_768, 32_769])
    ),
    st.integers(1, 2_000) | st.integers(1, HARD_MAX_MESSAGE_SIZE) | st.just(102_400),
)

#: Limits of a host, stock, raised or none.
host_limits = st.builds(
    HostLimits,
    st.one_of(st.just(10), st.integers(1, HARD_MAX_MESSAGES)),
    st.one_of(st.just(8_192), st.integers(128, HARD_MAX_MESSAGE_SIZE)),
    st.one_of(st.none(), st.just(819_200), st.integers(0, 10_000_000), st.integers(0, 2**40)),
)

# --- v2j ---

#: Values that JSON carries, as Python's `json` reads them.
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3),
    max_leaves=10,
)

#: Values that JSON can't carry, each with a word that the error must have.
bad_values = st.sampled_from(
    [
        (math.nan, "NaN"),
        (-math.inf, "infinity"),
        ("\ud800", "surrogate"),
        (b"x", "bytes"),
        (dt.timedelta(1), "timedelta"),
        ({1: "a", "1": "b"}, "same name"),
        (1j, "complex"),
        (int, "type"),
        ({(1,): 1}, "tuple"),
    ]
)

#: Steps of a path: a field's name or the position in a list.
paths = st.lists(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True) | st.integers(0, 3), max_size=6
)

# --- dead letters ---

#: Events as anybody may have put them on a queue: JSON, other text, bytes that aren't text, nothing at all.
any_events = st.one_of(json_events, texts.map(str.encode), st.binary(max_size=40))

#: The status that refused an event, if it was one.
refusals = st.none() | st.integers(100, 599)

#: What a collector answers: bytes of any kind, some longer than what is kept of them.
answers = st.tuples(st.binary(max_size=5), st.sampled_from([1, 205, 1_024])).map(
    lambda pair: pair[0] * pair[1]
)

#: When something happens by the wall clock, in whole milliseconds, as seconds since 1970.
wall_times = st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds / 1_000)

# --- errors ---

_counts = st.integers(0, 10**9)

#: Errors of every kind, as they are raised.
errors_of_kind: dict[type[errors.EventError], st.SearchStrategy[errors.EventError]] = {
    errors.EventTooLargeError: st.builds(errors.EventTooLargeError, _counts, st.none() | _counts),
    errors.EventQueueFullError: st.builds(errors.EventQueueFullError)
    | st.builds(errors.EventQueueFullError, texts, _counts),
    errors.EventEmptyError: st.builds(errors.EventEmptyError),
    errors.EventNotSerializableError: st.builds(errors.EventNotSerializableError, texts, texts),
    errors.ConfigurationError: st.lists(texts, min_size=1, max_size=4).map(
        lambda problems: errors.ConfigurationError(*problems)
    ),
    **{
        kind: st.builds(kind, texts, texts)
        for kind in (
            errors.EventQueueUnavailableError,
            errors.EventQueuePermissionError,
            errors.EventQueueRemovedError,
            errors.EventQueueClosedError,
            errors.EventQueueLimitError,
            errors.EventQueueUnsupportedError,
        )
    },
}
event_errors = st.sampled_from(sorted(errors_of_kind, key=str)).flatmap(errors_of_kind.__getitem__)

# --- spool ---

#: Events as a spool gets them: any bytes, also those that its own format is made of.
spooled_events = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 300).map(bytes),
    st.sampled_from([b"event-spool 1 2\n", b"\0\0\0\1", b'{"1":{"i32":5}}']),
)

#: Chance that can be shrunk.
chances = st.randoms(use_true_random=False)

# --- terminal ---

#: Rows of a table: printable cells, some empty, in rows of different lengths.
table_rows = st.lists(
    st.lists(texts.map(lambda text: "".join(char for char in text if char.isprintable())), max_size=4),
    max_size=5,
)

# --- doctor ---

#: What a terminal or a table could stumble over, from a collector or a file.
checks = st.builds(
    Check,
    st.sampled_from(Code),
    st.sampled_from(["queue", "collector TLS"]),
    st.sampled_from(Verdict),
    found=texts,
    remedy=texts,
    commands=st.lists(texts, max_size=2),
    fields=st.dictionaries(texts, texts | st.integers(), max_size=2),
)

# --- health ---

#: What can become of an attempt.
outcomes = st.one_of(
    st.builds(Accepted, st.just(200)),
    st.builds(TooLarge, texts, st.just(413)),
    st.builds(Refused, texts, st.sampled_from([400, 422])),
    st.builds(Retryable, reason=texts, from_collector=st.booleans()),
    st.builds(Misconfigured, reason=texts, remedy=texts, from_collector=st.booleans()),
)

#: What doesn't work, in words: of the system and with paths, so perhaps with lone surrogates.
problems = st.text(st.characters(), min_size=1, max_size=20)

#: Seconds that an attempt takes, on the bounds of the classes too.
durations = st.one_of(st.floats(0, 100), st.sampled_from([0.0, 0.005, 0.25, 10.0, 10.001]))


@st.composite
def balanced_counters(draw: st.DrawFn) -> Accounting:
    """Accounting in which every event has a fate."""
    counts = st.integers(0, 10**12)
    accounting = Accounting(
        delivered=draw(counts),
        dead_lettered=draw(counts),
        returned=draw(counts),
        spooled=draw(counts),
        in_hand=draw(counts),
        dropped={reason: draw(counts) for reason in DropReason},
        letters_dropped=draw(counts),
    )
    ended = accounting.delivered + accounting.dead_lettered + accounting.returned
    ended += sum(accounting.dropped.values())
    accounting.received = ended + accounting.spooled + accounting.in_hand
    accounting.recovered = draw(st.integers(0, accounting.received))
    return accounting


#: Names that services and the reader of a spool give to reasons.
_reasons = st.dictionaries(
    st.sampled_from(["full", "too_large", "newer", "unreadable", "reason_7"]), st.integers(0, 1 << 63)
)


@st.composite
def spool_levels(draw: st.DrawFn, made_at: float) -> SpoolLevel:
    """A possible level of a spool."""
    return SpoolLevel(
        size=draw(st.integers(0, 1 << 45)),
        max_size=draw(st.integers(1, 1 << 45)),
        segments=draw(st.integers(0, 10**6)),
        oldest_at=draw(st.none() | st.floats(0, made_at)),
        aside=draw(_reasons),
        torn_bytes=draw(st.integers(0, 1 << 45)),
        torn_gaps=draw(st.integers(0, 10**6)),
        refusals=draw(_reasons),
        free_space=draw(st.none() | st.integers(0, 1 << 50)),
        free_inodes=draw(st.none() | st.integers(0, 1 << 40)),
        rekeyed=draw(st.integers(0, 10**6)),
        error=draw(st.none() | problems),
        paused=draw(st.none() | problems),
        held=draw(st.integers(0, 1)),
        problems=tuple(draw(st.lists(problems, max_size=2))),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A possible snapshot of a publisher, at a time from 0 to 1,000."""
    made_at = draw(st.floats(0, 1_000))
    has_queue = draw(st.booleans())
    attempts = Attempts()
    for outcome, seconds in draw(st.lists(st.tuples(outcomes, durations), max_size=5)):
        attempts.record(outcome, seconds, draw(st.floats(0, made_at)))
    return Snapshot(
        queue_name=draw(texts.filter(bool)),
        version=draw(texts),
        started_at=draw(st.floats(0, made_at)),
        made_at=made_at,
        accounting=draw(balanced_counters()),
        queue_depth=draw(st.integers(0, 65_536)) if has_queue else None,
        queue_capacity=draw(st.integers(1, 65_536)) if has_queue else None,
        queue_highest=draw(st.integers(0, 65_536)),
        queue_full=draw(st.integers(0, 10**9)),
        transports=draw(st.dictionaries(st.sampled_from(["posix", "spool"]), st.booleans())),
        attempts=attempts.counts(),
        failures=draw(st.integers(0, 10**6)),
        oldest_at=draw(st.none() | st.floats(0, made_at)),
        spool=draw(st.none() | spool_levels(made_at)),
        disk_error=draw(st.none() | texts),
        stopping=draw(st.booleans()),
        metrics_dropped=draw(st.integers(0, 10**9)),
        log_lines_dropped=draw(st.integers(0, 10**9)),
    )


# --- testing ---

#: Events for `serialize` of `tests/testing/test_memory_queue.py`: what it returns as it is, and what it fails
#: with.
puttable_events: st.SearchStrategy[object] = st.one_of(
    st.binary(max_size=10).map(lambda content: b"{%b}" % content),
    st.binary(max_size=12),
    st.sampled_from([None, "text", 7, bytearray(b"x"), memoryview(b"x")]),
    st.sampled_from(
        [
            ValueError("bug"),
            RecursionError(),
            errors.EventError("own"),
            errors.EventNotSerializableError("user.tags[3]", "a set"),
            errors.EventTooLargeError(5, 4),
        ]
    ),
)
