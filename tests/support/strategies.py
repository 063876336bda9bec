"""Hypothesis strategies shared by all properties, one section a room."""

from __future__ import annotations

import datetime as dt
import json
import math
from base64 import b64encode
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from baseplate_events import errors
from baseplate_events.cli.doctor.findings import Check, Code, Verdict
from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.config.values import InternetEndpoint, Secret, UnixEndpoint
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
    from baseplate_events.event_publisher.config.options import Option

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

#: Text that somebody hostile or careless gives for a name: any code point, and what a format gives a meaning.
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

#: Host names and IPv4 addresses.
host_names = st.one_of(
    st.lists(_labels, min_size=1, max_size=4).map(".".join).filter(lambda name: not name[-1].isdigit()),
    st.ip_addresses(v=4).map(str),
)

ports = st.integers(1, 65_535)

#: Addresses at which something can listen, of loopback, of a network and of the whole host.
listening_hosts = st.one_of(
    st.sampled_from(["127.0.0.1", "::1", "0.0.0.0", "::"]),
    st.ip_addresses().filter(lambda address: not address.is_multicast).map(str),
).filter(lambda host: host != "255.255.255.255")

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


_CHOICES = {
    "collector.version": ["2", "2j"],
    "collector.scheme": ["http", "https"],
    "spool.fsync": ["never", "batch", "event"],
    "queue.transport": ["posix", "spool", "both"],
}


def key_values(key: Option) -> st.SearchStrategy[tuple[str, object]]:
    """A valid value of a key of the publisher: as it is written, and as it is read."""
    hosts = st.builds("{}:{}".format, host_names, ports)
    values: st.SearchStrategy[tuple[str, object]]
    if key.kind == "span":
        values = spans(minimum=key.minimum, maximum=key.maximum).map(lambda span: (span[0], span[1]))
    elif key.kind in {"count", "bytes"}:
        values = st.integers(int(key.minimum), int(key.maximum)).map(lambda number: (str(number), number))
    elif key.kind == "base64":
        data = st.binary(min_size=1, max_size=64)
        values = data.map(lambda secret: (b64encode(secret).decode(), Secret(secret)))
    elif key.kind == "boolean":
        values = st.booleans().map(lambda value: (str(value), value))
    elif key.kind == "mode":
        values = st.sampled_from([0o600, 0o660, 0o666, 0o640]).map(lambda mode: (f"{mode:04o}", mode))
    elif key.kind == "endpoint":
        addresses = st.builds(InternetEndpoint, host_names, ports)
        paths = st.builds(UnixEndpoint, st.from_regex(r"(/[a-z]{1,9}){1,3}", fullmatch=True))
        values = st.one_of(addresses, paths).map(lambda endpoint: (str(endpoint), endpoint))
    elif key.kind == "bind":
        addresses = st.builds(InternetEndpoint, listening_hosts, ports)
        paths = st.builds(UnixEndpoint, st.from_regex(r"(/[a-z]{1,9}){1,3}", fullmatch=True))
        values = st.one_of(addresses, paths).map(lambda endpoint: (str(endpoint), endpoint))
    elif key.kind == "proxy":
        values = hosts.map(lambda host: (f"http://{host}", f"http://{host}"))
    elif key.kind == "host":
        values = st.one_of(host_names, hosts).map(lambda host: (host, host))
    elif key.kind == "choice":
        words = _CHOICES[key.name]
        values = st.sampled_from(words).map(lambda word: (word, word))
    elif key.kind == "folder":
        values = st.from_regex(r"(/[a-z]{1,9}){1,3}", fullmatch=True).map(lambda path: (path, path))
    elif key.kind == "names":
        names = st.lists(host_names.filter(lambda name: len(name) < 60), min_size=1, max_size=3)
        values = names.map(lambda hosts: (", ".join(hosts), frozenset(map(str.lower, hosts))))
    elif key.kind == "statuses":
        numbers = st.sets(st.integers(300, 599), min_size=1, max_size=5)
        values = numbers.map(lambda codes: (", ".join(map(str, codes)), frozenset(codes)))
    else:
        values = st.from_regex(r"[A-Za-z0-9._+-]{1,20}", fullmatch=True).map(lambda text: (text, text))
    return values


def broken_values(key: Option, secret: str) -> st.SearchStrategy[str]:
    """A value that a key of the publisher can't have; for a key with a secret, a damaged secret."""
    broken = ["\x7f", "é è", "a b,c", "$UNSET_VARIABLE", "a${UNSET_VARIABLE}"]
    if key.kind in {"count", "bytes"}:
        broken += [str(int(key.minimum) - 1), str(int(key.maximum) + 1), "1.5", "1_0", "ten"]
    elif key.kind == "span":
        broken += ["3", "-1 seconds", "3 sec", "9999 days", "1e0 seconds"]
    elif key.kind == "base64":
        broken += [secret[:-1], "!!!!", "!" + secret, f"{secret[:8]} {secret[8:]}", secret + "="]
    elif key.kind == "host":
        broken += ["https://events.test", "user:password@events.test", "events.test/v2", "h:0", "::1", "a..b"]
    elif key.kind == "endpoint":
        broken += ["statsd", "statsd:0", "udp://statsd:8125", "/" + "x" * 200]
    elif key.kind == "bind":
        broken += [
            "9102",
            "0.0.0.0",
            ":::9102",
            "[fe80::1%eth0]:9102",
            "health.test:9102",
            "http://[::1]:9102",
            "224.0.0.1:9102",
            "[ff02::1]:9102",
            "255.255.255.255:9102",
        ]
    elif key.kind == "proxy":
        broken += ["proxy:3128", "https://proxy:3128", "http://proxy", "http://user:password@proxy:3128"]
    elif key.kind == "mode":
        broken += ["rw-------", "0400", "0777", "0o888", "66666"]
    elif key.kind in {"boolean", "choice"}:
        broken += ["yes", "1", "2J", "ftp", "HTTPS"]
    elif key.kind == "path":
        broken += ["/nowhere/at/all.pem", "/"]
    elif key.kind == "folder":
        broken += ["spool", "./spool", "~/spool"]
    elif key.kind == "names":
        broken += ["a.test:80", "a.test b.test", "a.test,", "http://a.test", "*", "[::1]"]
    elif key.kind == "statuses":
        broken += ["200", "600", "4", "400 404", "400,", "4O4"]
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

#: When a spool forces its events onto the disk.
syncs = st.sampled_from(Sync)

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
def balanced_books(draw: st.DrawFn) -> Accounting:
    """Books in which every event has a fate."""
    counts = st.integers(0, 10**12)
    books = Accounting(
        delivered=draw(counts),
        dead_lettered=draw(counts),
        returned=draw(counts),
        spooled=draw(counts),
        in_hand=draw(counts),
        dropped={reason: draw(counts) for reason in DropReason},
        letters_dropped=draw(counts),
    )
    ended = books.delivered + books.dead_lettered + books.returned + sum(books.dropped.values())
    books.received = ended + books.spooled + books.in_hand
    books.recovered = draw(st.integers(0, books.received))
    return books


#: Names that services and the reader of a spool give to reasons.
_reasons = st.dictionaries(
    st.sampled_from(["full", "too_large", "newer", "unreadable", "reason_7"]), st.integers(0, 1 << 63)
)


@st.composite
def spool_levels(draw: st.DrawFn, made_at: float) -> SpoolLevel:
    """How full a spool can be at a moment."""
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
    """What a publisher can be doing, seen at a moment from 0 to 1,000."""
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
        accounting=draw(balanced_books()),
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

#: Events for `tests.test_testing.serialize`: what it returns as it is, and what it fails with.
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
