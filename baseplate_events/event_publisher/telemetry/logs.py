"""How the publisher logs: one line per message, as text or JSON, with repeated lines limited.

Rules:

1. A message is one line, whatever it holds. As text it is safe for a terminal, and foreign text in it is cut
   at `MAX_FOREIGN` characters; as JSON it is whole, in ASCII.
2. Of an exception its type and place are written, never its text, which might quote an event.
3. Of warnings and errors of a kind, the first is written at once, and then at most one in `REPEAT_INTERVAL`,
   with the number of those in between. If no other follows, the latest is written with the next line of any
   kind, or when logging ends. So each is written or counted.
4. Two messages are of a kind if they have the same logger, level, template and words; numbers may differ.
5. Nothing here raises, or waits for whoever reads the log; see `log_writer`. Dropped lines are counted.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import logging
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ..._words import Count
from ..foreign_text import MAX_FOREIGN, printable
from ..standard_streams import occupy_descriptors
from .log_writer import CAPACITY, LineWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from typing import TextIO

logger: logging.Logger = logging.getLogger(__name__)

Format: TypeAlias = Literal["text", "json"]

#: The log formats, the default first.
FORMATS: Final[tuple[Format, ...]] = ("text", "json")

#: Seconds between two similar lines.
REPEAT_INTERVAL: Final = 10.0

#: Kinds that are remembered at a time. Words may come from the network, so memory must be bounded. Beyond
#: that, messages are of a kind if the same line of code logs them.
MAX_KINDS: Final = 64

#: Characters of a message as text: enough for a configuration with forty errors.
_MAX_MESSAGE: Final = 8_000


@dataclass(slots=True)
class _Held:
    """What is held back of a kind until a given time: the latest message, if any, and how many."""

    until: float
    latest: logging.LogRecord | None = None
    count: int = 0


class RepeatFilter(logging.Filter):
    """Passes the first of similar messages, and holds back the others; see rules 3 and 4.

    Args:
        emit: Writes a message that was held back; its attribute `more` is the number of similar ones.
        clock: The monotonic clock, in seconds.
        interval: Seconds between two similar lines.
    """

    def __init__(
        self,
        emit: Callable[[logging.LogRecord], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        interval: float = REPEAT_INTERVAL,
    ) -> None:
        super().__init__()
        self._emit = emit
        self._clock = clock
        self._interval = interval
        self._lock = threading.RLock()  # handlers call filters before they take their lock
        self._held: dict[Hashable, _Held] = {}

    @property
    def kinds(self) -> int:
        """How many kinds are remembered; bounded by `MAX_KINDS` and the number of lines of code that log."""
        return len(self._held)

    def filter(self, record: logging.LogRecord) -> bool:
        """Write messages that were held back long enough, and return whether to write this one."""
        with self._lock:
            now = self._clock()
            passes = record.levelno < logging.WARNING or self._is_first(record, now + self._interval)
            # A copy, as what is called here may log, too.
            due = {kind: held for kind, held in [*self._held.items()] if now >= held.until}
            for kind, held in due.items():
                self._held.pop(kind, None)
                if held.latest is not None:
                    self._held[kind] = _Held(now + self._interval)
            self._write(due.values())
            return passes

    def flush(self) -> None:
        """Write what is held back, however recent."""
        with self._lock:
            held, self._held = self._held, {}
            self._write(held.values())

    def _is_first(self, record: logging.LogRecord, until: float) -> bool:
        """Return whether this is the first recent message of its kind; if not, hold it back."""
        kind = self._kind_of(record)
        held = self._held.get(kind)
        if held is None:
            self._held[kind] = _Held(until)
            return True
        held.latest = _without_objects(record)
        held.count += 1
        return False

    def _kind_of(self, record: logging.LogRecord) -> Hashable:
        place = record.name, record.levelno, record.lineno
        arguments = record.args if isinstance(record.args, tuple) else ()
        words = [argument for argument in arguments if not isinstance(argument, int | float)]
        try:
            kind: Hashable = (record.name, record.levelno, str(record.msg), *map(str, words))
        except Exception:  # noqa: BLE001  a message that can't be formatted must not stop the publisher
            return place
        return kind if len(self._held) < MAX_KINDS or kind in self._held else place

    def _write(self, helds: Iterable[_Held]) -> None:
        for held in helds:
            if held.latest is not None:
                vars(held.latest)["more"] = held.count - 1
                self._emit(held.latest)


class StderrHandler(logging.Handler):
    """Writes log lines to a stream that may be slow or stuck (see `log_writer`), through a `RepeatFilter`.

    `flush`, which `logging` calls at exit, also writes what the filter holds back.

    Args:
        stream: Where lines go, by its descriptor.
        formatter: Formats a log record as a line.
        capacity: Most bytes of waiting lines.
    """

    def __init__(self, stream: TextIO, formatter: logging.Formatter, *, capacity: int = CAPACITY) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._writer = LineWriter(stream, self._format_notice, capacity=capacity)
        self._repeats = RepeatFilter(self.emit)
        self.addFilter(self._repeats)

    @property
    def dropped(self) -> int:
        """Lines dropped so far."""
        return self._writer.dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the message to be written."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  arguments that don't fit their template must not stop the publisher
            self._writer.lose()
        else:
            self._writer.put(line)

    def flush(self) -> None:
        """Write what is held back, and wait a moment until everything is written."""
        self._repeats.flush()
        self._writer.flush()

    def _format_notice(self, missing: int) -> str:
        return self.format(
            logger.makeRecord(
                logger.name,
                logging.WARNING,
                "",
                0,
                "%s dropped: stderr could not be written",
                (Count(missing, "log line"),),
                None,
            )
        )


class TextFormatter(logging.Formatter):
    """Time, level, logger and message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format a log record as one line."""
        record = copy.copy(record)
        exception = _exception(record)
        more = _more(record)
        if isinstance(record.args, tuple):
            # Our own texts are short if they are arguments; anything longer is foreign.
            record.args = tuple(
                printable(arg, MAX_FOREIGN) if isinstance(arg, str) else arg for arg in record.args
            )
        record.msg = printable(" | ".join(record.getMessage().split("\n")), _MAX_MESSAGE)
        record.msg += f" ({exception})" if exception else ""
        record.msg += f" (and {more} more like it)" if more else ""
        record.args = record.exc_info = record.exc_text = record.stack_info = None
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One JSON object: `time` (RFC 3339, UTC), `level`, `logger`, `message`, and `exception` and `more`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a log record as one line."""
        time_of = dt.datetime.fromtimestamp(record.created, tz=dt.timezone.utc)
        fields: dict[str, str | int] = {
            "time": time_of.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        extras = {"exception": _exception(record), "more": _more(record)}
        return json.dumps(fields | {name: value for name, value in extras.items() if value})


def configure_logging(log_format: Format, *, debug: bool) -> None:
    """Write everything that this process logs to stderr, from INFO or DEBUG on.

    If stderr is closed, no file opened later gets its number.
    """
    occupy_descriptors()
    handler = StderrHandler(sys.stderr, JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])


def log_lines_dropped() -> int:
    """Return the number of lines dropped since `configure_logging`, because stderr could not be written."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped for handler in handlers if isinstance(handler, StderrHandler))


class _Words:
    """What an argument of a log record is in words; unlike a `str`, it isn't foreign text that is cut."""

    __slots__ = ("_words",)

    def __init__(self, argument: object) -> None:
        self._words = str(argument)

    def __str__(self) -> str:
        return self._words


def _without_objects(record: logging.LogRecord) -> logging.LogRecord:
    """Return a copy of a log record that refers to no object, and so keeps no frame and no batch alive."""
    light = copy.copy(record)
    light.exc_info = None
    try:
        vars(light)["exception"] = _exception(record)
        if not isinstance(record.msg, str):
            light.msg = str(record.msg)
        if isinstance(record.args, tuple):
            light.args = tuple(
                argument if isinstance(argument, (str, int, float)) else _Words(argument)
                for argument in record.args
            )
    except Exception:  # noqa: BLE001  what can't be written must not end the work
        light.args = ()
    return light


def _exception(record: logging.LogRecord) -> str:
    """Return type and place of the exception of a log record; empty if there is none."""
    known = vars(record).get("exception")
    if isinstance(known, str):
        return known
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    exc = record.exc_info[1]
    frames = traceback.extract_tb(exc.__traceback__)
    place = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return type(exc).__name__ + place


def _more(record: logging.LogRecord) -> int:
    more: int = getattr(record, "more", 0)
    return more
