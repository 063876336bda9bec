"""How the publisher logs: one line for each record, as text or JSON, and no flood of the same line.

Rules:

1. A record is one line, whatever it holds. As text it is safe for a terminal, and what it has from elsewhere
   is cut at `MAX_FOREIGN` characters; as JSON it is whole, in ASCII.
2. Of an exception its type and place are told, never its text, which might quote an event.
3. Of warnings and errors of a kind, the first is written at once, and then one in `REPEAT_INTERVAL` at most,
   with how many more there were. None is lost without being counted: of those that no other followed, the
   latest is written with the next record of whatever kind, or when logging ends.
4. Two records are of a kind if they have the same logger, level, template and words; numbers may differ.
5. Nothing here waits for who reads the log, or raises; see `log_writer`. Lines that are dropped are counted.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import logging
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar

from ..foreign_text import MAX_FOREIGN, printable
from ..standard_streams import occupy_descriptors
from .log_writer import CAPACITY, LineWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import TextIO

logger: logging.Logger = logging.getLogger(__name__)

Format: TypeAlias = Literal["text", "json"]

#: The formats that there are, the default first.
FORMATS: Final[tuple[Format, ...]] = ("text", "json")

#: Seconds between two lines of a kind.
REPEAT_INTERVAL: Final = 10.0

#: Kinds that are told apart at a time; words may come from the network, and memory is bounded. Those beyond
#: are told apart by their templates alone.
MAX_KINDS: Final = 64

#: Characters of a message as text: what a configuration with forty mistakes has.
_MAX_MESSAGE: Final = 8_000

_T = TypeVar("_T")


@dataclass(slots=True)
class _Held(Generic[_T]):
    """What was held back of a kind since `until` was set, the latest and how many; none at first."""

    until: float
    latest: _T | None = None
    count: int = 0


class RepeatLimit(Generic[_T]):
    """Decides which of many items to let through, and counts the others; as long as it has kinds. Pure.

    Args:
        interval: Seconds between two items of a kind.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._kinds: dict[Hashable, _Held[_T]] = {}

    def __len__(self) -> int:
        return len(self._kinds)

    def __contains__(self, kind: Hashable) -> bool:
        """Tell whether there lately was an item of the kind."""
        return kind in self._kinds

    def offer(self, kind: Hashable, item: _T, now: float) -> list[tuple[_T, int]]:
        """Take an item, and give those to be let through now, with how many more like each were held back.

        Args:
            kind: What makes items alike.
            item: The item.
            now: Seconds of the monotonic clock.
        """
        held = self._kinds.get(kind)
        if held is None:
            self._kinds[kind] = _Held(now + self._interval)
            return [*self.due(now), (item, 0)]
        held.latest = item
        held.count += 1
        return self.due(now)

    def due(self, now: float) -> list[tuple[_T, int]]:
        """Give what was held back for long enough, with how many more there were; forget quiet kinds."""
        through: list[tuple[_T, int]] = []
        for kind, held in list(self._kinds.items()):
            if now >= held.until:
                del self._kinds[kind]
                if held.latest is not None:
                    through.append((held.latest, held.count - 1))
                    self._kinds[kind] = _Held(now + self._interval)
        return through

    def flush(self) -> list[tuple[_T, int]]:
        """Give all that is held back, however short."""
        through = [(held.latest, held.count - 1) for held in self._kinds.values() if held.latest is not None]
        self._kinds.clear()
        return through


class LimitingHandler(logging.Handler):
    """Passes records on to another handler, but no flood of the same one.

    `flush`, which logging itself calls when the process ends, writes what is held back.

    Args:
        target: Writes records; it formats them with a formatter of this module.
        clock: The monotonic clock, in seconds.
        interval: Seconds between two records of a kind.
    """

    def __init__(
        self,
        target: logging.Handler,
        *,
        clock: Callable[[], float] = time.monotonic,
        interval: float = REPEAT_INTERVAL,
    ) -> None:
        super().__init__()
        self._target = target
        self._clock = clock
        self._limit: RepeatLimit[logging.LogRecord] = RepeatLimit(interval)

    @property
    def dropped(self) -> int:
        """Lines that were dropped because they could not be written in time."""
        return self._target.dropped if isinstance(self._target, StderrHandler) else 0

    @property
    def kinds(self) -> int:
        """How many kinds are told apart now; bounded by `MAX_KINDS` and the number of templates."""
        return len(self._limit)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or hold it back."""
        now = self._clock()
        if record.levelno < logging.WARNING:
            self._write(self._limit.due(now))
            self._target.handle(record)
            return
        template = record.name, record.levelno, record.msg
        try:
            kind: Hashable = (template, _words(record))
        except Exception:  # noqa: BLE001  an argument that can't be written must not end the work
            kind = template
        if len(self._limit) >= MAX_KINDS and kind not in self._limit:
            kind = template
        self._write(self._limit.offer(kind, record, now))

    def flush(self) -> None:
        """Write what is held back."""
        self.acquire()
        try:
            self._write(self._limit.flush())
        finally:
            self.release()
        self._target.flush()

    def _write(self, through: list[tuple[logging.LogRecord, int]]) -> None:
        for record, more in through:
            told = copy.copy(record)
            vars(told)["more"] = more
            self._target.handle(told)


class StderrHandler(logging.Handler):
    """Writes records to a stream that may be slow or stuck; see `log_writer`.

    Args:
        stream: Where they go, by its descriptor; None drops all.
        formatter: Makes a line of a record.
        capacity: Bytes of lines that may wait.
    """

    def __init__(
        self, stream: TextIO | None, formatter: logging.Formatter, *, capacity: int = CAPACITY
    ) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._writer = LineWriter(stream, self._format_notice, capacity=capacity)

    @property
    def dropped(self) -> int:
        """Lines that were dropped so far."""
        return self._writer.dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Have the record written soon."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  arguments that don't fit their template must not end the work
            self._writer.lose()
        else:
            self._writer.put(line)

    def flush(self) -> None:
        """Wait a moment until everything is written."""
        self._writer.flush()

    def _format_notice(self, missing: int) -> str:
        return self.format(
            logger.makeRecord(
                logger.name,
                logging.WARNING,
                "",
                0,
                "dropped %d lines of the log: stderr could not be written to",
                (missing,),
                None,
            )
        )


class TextFormatter(logging.Formatter):
    """Time, level, logger and message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line."""
        record = copy.copy(record)
        exception = _exception(record)
        more = _more(record)
        if isinstance(record.args, tuple):
            # A text of ours is an argument only where it is short: the rest is from elsewhere.
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
        """Write a record as one line."""
        time_of = dt.datetime.fromtimestamp(record.created, tz=dt.timezone.utc)
        exception = _exception(record)
        more = _more(record)
        fields: dict[str, str | int] = {
            "time": time_of.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **({"exception": exception} if exception else {}),
            **({"more": more} if more else {}),
        }
        return json.dumps(fields)


def configure_logging(log_format: Format, *, debug: bool) -> None:
    """Have everything that is logged in this process written to stderr, from INFO or DEBUG on.

    Where stderr is closed, nothing that is opened later gets its number.
    """
    occupy_descriptors()
    target = StderrHandler(sys.stderr, JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[LimitingHandler(target)])


def log_lines_dropped() -> int:
    """Count the lines that were dropped since `configure_logging`, because stderr could not be written to."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped for handler in handlers if isinstance(handler, LimitingHandler))


def _words(record: logging.LogRecord) -> Hashable:
    arguments = record.args if isinstance(record.args, tuple) else ()
    return tuple(str(argument) for argument in arguments if not isinstance(argument, int | float))


def _exception(record: logging.LogRecord) -> str:
    """Tell type and place of the exception of a record; empty where there is none."""
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    exc = record.exc_info[1]
    frames = traceback.extract_tb(exc.__traceback__)
    place = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return type(exc).__name__ + place


def _more(record: logging.LogRecord) -> int:
    more = vars(record).get("more", 0)
    return more if isinstance(more, int) else 0
