from __future__ import annotations

import copy
import datetime as dt
import gc
import io
import itertools
import json
import logging
import re
import sys
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from baseplate_events._words import Count
from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.foreign_text import MAX_FOREIGN
from baseplate_events.event_publisher.standard_streams import ClosedStream
from baseplate_events.event_publisher.telemetry.logs import (
    FORMATS,
    MAX_KINDS,
    Format,
    JsonFormatter,
    RepeatFilter,
    StderrHandler,
    TextFormatter,
    configure_logging,
    log_lines_dropped,
)
from tests.support.clocks import FakeClock
from tests.support.machines import check_machine
from tests.support.strategies import hostile_texts, wall_times

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_INTERVAL = 10.0

#: Lines of the publisher that repeat: template, arguments that stay, arguments that change.
_CANT_DELIVER = "can't deliver %d events: %s; next attempt in %.1f seconds"
_REFUSES = "the collector refuses %s: %s; %s"
_CANT_SEND = "can't send a message of %d bytes: %s; %s"


class Log:
    """A logger whose lines are limited, and its output."""

    def __init__(self, formatter: logging.Formatter | None = None) -> None:
        self.clock = FakeClock()
        self.text = io.StringIO()
        handler = logging.StreamHandler(self.text)
        handler.setFormatter(formatter or TextFormatter())
        self.repeats = RepeatFilter(handler.emit, clock=self.clock, interval=_INTERVAL)
        handler.addFilter(self.repeats)
        self.logger = logging.Logger("publisher", logging.DEBUG)  # noqa: LOG001  one that no other test knows
        self.logger.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        """The messages so far."""
        return [line.split(" publisher: ", 1)[1] for line in self.text.getvalue().splitlines()]

    @property
    def held_back(self) -> int:
        """How many more there were, by the lines so far."""
        return sum(map(int, re.findall(r" \(and (\d+) more like it\)$", self.text.getvalue(), re.MULTILINE)))


@pytest.fixture
def switch_often() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# --- the limit ---


class RepeatMachine(RuleBasedStateMachine):
    """A filter against its rules: a few kinds, and times on both sides of the interval."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.repeats = RepeatFilter(self.write, clock=self.clock, interval=_INTERVAL)
        self.given: dict[str, list[int]] = {"a": [], "b": []}
        self.written: list[tuple[float, str, int, int]] = []
        self.number = 0

    def write(self, record: logging.LogRecord) -> None:
        assert isinstance(record.args, tuple)
        (number,) = record.args
        assert isinstance(number, int)
        self.written.append((self.clock.now, record.msg, number, vars(record).get("more", 0)))

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(kind=st.sampled_from("ab"))
    def warn(self, kind: str) -> None:
        self.number += 1
        self.given[kind].append(self.number)
        quiet = all(when + _INTERVAL <= self.clock.now for when, other, _, _ in self.written if other == kind)
        record = logging.LogRecord("publisher", logging.WARNING, "", 1, kind, (self.number,), None)
        if self.repeats.filter(record):
            self.write(record)
        assert (self.number in [number for _, _, number, _ in self.written]) == quiet

    @rule()
    def inform(self) -> None:
        assert self.repeats.filter(logging.LogRecord("publisher", logging.INFO, "", 1, "a", (0,), None))

    @rule()
    def flush(self) -> None:
        self.repeats.flush()
        for kind, numbers in self.given.items():
            counted = sum(1 + more for _, other, _, more in self.written if other == kind)
            assert len(numbers) == counted
        self.written.clear()
        self.given = {"a": [], "b": []}

    @invariant()
    def none_is_counted_twice(self) -> None:
        for kind, numbers in self.given.items():
            written = [(number, more) for _, other, number, more in self.written if other == kind]
            assert len(numbers) >= sum(1 + more for _, more in written)
            assert sorted({number for number, _ in written}) == [number for number, _ in written]

    @invariant()
    def lines_of_a_kind_are_apart(self) -> None:
        for kind in self.given:
            times = [when for when, other, _, _ in self.written if other == kind]
            assert all(later - sooner >= _INTERVAL for sooner, later in itertools.pairwise(times))


def test_one_record_is_written_and_the_others_are_counted() -> None:
    """The first of similar records is written, then at most one per interval, and all are counted."""
    check_machine(RepeatMachine)


def test_quiet_kinds_are_forgotten() -> None:
    """Kinds without recent records take no memory."""
    log = Log()
    for number in range(MAX_KINDS):
        log.logger.warning("it says %s", f"{number} reasons")
    assert MAX_KINDS == log.repeats.kinds
    log.clock.now += _INTERVAL
    log.logger.info("reloaded the configuration")
    assert log.repeats.kinds == 0
    assert len(log.lines) == MAX_KINDS + 1


def test_a_kind_stays_limited_when_there_are_too_many() -> None:
    """Kinds beyond the bound don't release a record that is held back."""
    log = Log()
    for number in [*range(MAX_KINDS), *range(MAX_KINDS)]:
        log.logger.warning("it says %s", f"{number} reasons")
    assert MAX_KINDS == len(log.lines) == log.repeats.kinds


@pytest.mark.usefixtures("switch_often")
def test_threads_lose_no_count() -> None:
    """A record of any thread is written or counted, since a handler has no lock around its filters."""
    log = Log()

    def warn() -> None:
        for number in range(5_000):
            if number % 7 == 0:
                log.clock.now += _INTERVAL / 3
            log.logger.warning("again %d", number)

    threads = [threading.Thread(target=warn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.repeats.flush()
    assert len(threads) * 5_000 == len(log.lines) + log.held_back


@pytest.mark.parametrize("message", [["a list"], {"a": "dict"}, ValueError("an error")])
def test_a_message_may_be_any_object(message: object) -> None:
    """What isn't a template is limited by its text."""
    log = Log()
    for _ in range(3):
        log.logger.warning(copy.copy(message))
    log.repeats.flush()
    assert [str(message), f"{message} (and 1 more like it)"] == log.lines


# --- records of the publisher ---


@pytest.mark.parametrize(
    ("template", "first", "second"),
    [
        (_CANT_DELIVER, (7, "connection refused", 0.7), (9, "connection refused", 13.1)),
        (
            _REFUSES,
            (Count(64, "event"), "400 Bad Request", "splitting the batch to find the offending event"),
            (Count(1, "event"), "400 Bad Request", "splitting the batch to find the offending event"),
        ),
        (_CANT_SEND, (5, "not JSON", "dropped"), (8, "not JSON", "dropped")),
    ],
)
def test_repeated_failures_are_one_line(
    template: str, first: tuple[object, ...], second: tuple[object, ...]
) -> None:
    """Of lines that differ in numbers the first is written, and later one with how many more there were."""
    log = Log()
    log.logger.warning(template, *first)
    for _ in range(41):
        log.logger.warning(template, *second)
    assert [template % first] == log.lines
    log.clock.now += _INTERVAL
    log.logger.warning(template, *second)
    assert [template % first, template % second + " (and 41 more like it)"] == log.lines


def test_another_reason_is_written_at_once() -> None:
    """A line with other words, of another level, or of another template isn't held back for the first."""
    log = Log()
    log.logger.warning(_CANT_DELIVER, 7, "connection refused", 0.5)
    log.logger.warning(_CANT_DELIVER, 7, "401 Unauthorized", 0.5)
    log.logger.error(_CANT_DELIVER, 7, "connection refused", 0.5)
    log.logger.warning("the disk accepts events again")
    assert len(log.lines) == 4


def test_what_is_held_back_is_written_with_the_next_line() -> None:
    """After the interval, the next line of any kind and level brings the ones held back."""
    log = Log()
    for size in (1, 2, 3):
        log.logger.error(_CANT_SEND, size, "not JSON", "dropped")
    log.clock.now += _INTERVAL
    log.logger.info("reloaded the configuration")
    assert [
        _CANT_SEND % (1, "not JSON", "dropped"),
        _CANT_SEND % (3, "not JSON", "dropped") + " (and 1 more like it)",
        "reloaded the configuration",
    ] == log.lines


def test_nothing_is_held_back_at_the_end() -> None:
    """`flush` writes what is held back, once."""
    log = Log()
    for size in (1, 2):
        log.logger.error(_CANT_SEND, size, "not JSON", "dropped")
    log.repeats.flush()
    log.repeats.flush()
    assert [_CANT_SEND % (size, "not JSON", "dropped") for size in (1, 2)] == log.lines


class Argument:
    """What a record may refer to."""

    def __str__(self) -> str:
        return "long " * MAX_FOREIGN + "an argument"  # foreign text would be cut


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_what_is_held_back_keeps_only_words(formatter: logging.Formatter) -> None:
    """It keeps no argument and no frame alive, and is written as the first was."""
    lines: list[str] = []
    repeats = RepeatFilter(lambda record: lines.append(formatter.format(record)))
    local = weakref.WeakSet[Argument]()

    def fail(_: Argument) -> None:
        raise ValueError("secret")

    def log() -> None:
        argument = Argument()
        local.add(argument)
        try:
            fail(argument)
        except ValueError:
            record = logging.LogRecord(
                "publisher", logging.ERROR, "", 1, "%s of %d", (argument, 5), sys.exc_info()
            )
            record.created = record.msecs = 0.0
            if repeats.filter(record):
                lines.append(formatter.format(record))

    log()
    log()
    gc.collect()
    assert not local
    repeats.flush()
    first, second = lines
    assert first == second
    assert "an argument of 5" in first
    assert "ValueError in fail, line" in first


def test_what_is_called_may_log() -> None:
    """A signal handler or a finalizer may log while another record is looked at."""
    log = Log()

    class Moment(float):
        """A time that logs when it is compared."""

        def __ge__(self, other: object) -> bool:
            log.clock.now = float(self)
            log.logger.warning("from within")
            return float(self) >= cast("float", other)

    for number in range(3):
        log.logger.warning("it says %s", f"{number} reasons")
    log.clock.now = Moment(2 * _INTERVAL)
    log.logger.warning("it says %s", "nothing")
    log.repeats.flush()
    assert log.lines.count("from within") == 1


def test_what_was_asked_for_is_not_limited() -> None:
    """Lines below WARNING, such as each batch with `--debug`, are all written."""
    log = Log()
    for _ in range(5):
        log.logger.debug("delivered %d events", 1)
        log.logger.info("reloaded the configuration")
    assert len(log.lines) == 10


@given(st.lists(st.tuples(st.sampled_from([_CANT_DELIVER, _REFUSES]), st.integers(0, 200)), max_size=50))
@example([(_CANT_DELIVER, number) for number in [*range(100), *range(100)]])
def test_no_words_take_unbounded_memory(failures: list[tuple[str, int]]) -> None:
    """However many reasons come from the network, few kinds are kept, and every line is counted."""
    log = Log()
    for template, number in failures:
        words = (
            (7, f"{number} reasons", 0.5)
            if template == _CANT_DELIVER
            else (7, f"{number} reasons", "dropped")
        )
        log.logger.warning(template, *words)
        assert log.repeats.kinds <= MAX_KINDS + 2
    log.repeats.flush()
    assert len(failures) == len(log.lines) + log.held_back


# --- the formats ---


@given(hostile_texts, hostile_texts, wall_times)
def test_json_is_one_object_a_line(name: str, text: str, created: float) -> None:
    """Whatever a record contains, it is one line of ASCII that `json` reads back, with its time in UTC."""
    record = logging.LogRecord(name, logging.ERROR, "", 1, "it says %s", (text,), None)
    record.created = created
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    fields = json.loads(line)
    moment = fields.pop("time")
    assert moment.endswith("Z")
    assert dt.datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() == pytest.approx(
        created, abs=0.001
    )
    assert fields == {"level": "error", "logger": name, "message": f"it says {text}"}


@given(hostile_texts)
@example("\x1b[2J\x9b31m\x85forged\u2028\u202e\u200b\udc9b\r")
@example("x" * 60_000)
@example("\x1b" * 60_000)
def test_text_is_one_line(text: str) -> None:
    """Whatever a record contains, it is one short printable line, and the record is unchanged."""
    record = logging.LogRecord("publisher", logging.ERROR, "", 1, "it says %s.", (text,), None)
    before = dict(vars(record))
    line = TextFormatter().format(record)
    assert line.isprintable()
    assert len(line) < 1_200
    assert " ERROR publisher: it says" in line
    assert before == {name: value for name, value in vars(record).items() if name in before}


def test_an_error_of_several_lines_is_one_line_of_text() -> None:
    """The errors of a configuration are in one line, and what they have from a file is escaped."""
    error = ConfigurationError("first \x1b[2J", "second\u2028")
    record = logging.LogRecord("publisher", logging.ERROR, "", 1, "mistakes:\n%s", (error,), None)
    assert TextFormatter().format(record).endswith(r"mistakes: | first \x1b[2J | second\u2028")


def failure() -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return an exception as logging takes it."""
    with pytest.raises(ValueError, match="private") as caught:
        int("private")
    return caught.type, caught.value, caught.tb


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_an_exception_is_type_and_place(formatter: logging.Formatter) -> None:
    """Neither the text of an exception nor its traceback is written."""
    record = logging.LogRecord("publisher", logging.ERROR, "", 1, "failed", (), failure())
    line = formatter.format(record)
    assert "ValueError in failure, line " in line
    assert "private" not in line
    assert "Traceback" not in line
    record.exc_info = (ValueError, ValueError("private"), None)
    assert "ValueError" in formatter.format(record)
    record.exc_info = (None, None, None)
    assert "failed" in formatter.format(record)


def test_json_has_how_many_more_there_were() -> None:
    """What was held back is a number of its own in JSON."""
    log = Log(JsonFormatter())
    for _ in range(4):
        log.logger.warning("again")
    log.repeats.flush()
    first, last = map(json.loads, log.text.getvalue().splitlines())
    assert "more" not in first
    assert last["more"] == 2
    assert last["message"] == "again"


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("debug", [False, True])
def test_everything_is_configured(
    monkeypatch: pytest.MonkeyPatch, log_format: Format, *, debug: bool
) -> None:
    """The root logger writes to stderr in the format asked for, from INFO or DEBUG on, and is limited."""
    root = logging.Logger("root")  # noqa: LOG001  pytest has handlers at the real one
    monkeypatch.setattr(logging, "root", root)
    with tempfile.TemporaryFile("w+") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        configure_logging(log_format, debug=debug)
        root.debug("every batch")
        for _ in range(3):
            root.warning("careful")
        (handler,) = root.handlers
        handler.flush()
        stderr.seek(0)
        lines = stderr.read().splitlines()
    assert len(lines) == (3 if debug else 2)
    assert all(line.startswith("{") == (log_format == "json") for line in lines)
    assert "every batch" in lines[0] or not debug


# --- what can't be written ---


class Unprintable:
    """An argument that can't be formatted or hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("arguments", [(1, 2, 3), ("text",), (Unprintable(),)])
def test_a_record_that_cant_be_formatted_is_counted(arguments: tuple[object, ...]) -> None:
    """A record that can't be formatted raises nothing, and only counts as a missing line."""
    with tempfile.TemporaryFile("w+") as stderr:
        handler = StderrHandler(stderr, TextFormatter())
        record = logging.LogRecord("publisher", logging.ERROR, "", 1, "%d events", arguments, None)
        handler.handle(record)
        assert handler.dropped == 1
        handler.flush()
        stderr.seek(0)
        assert stderr.read().endswith("1 log line dropped: stderr could not be written\n")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_dropped_lines_are_reported_in_the_format_of_the_log(formatter: logging.Formatter) -> None:
    """The line with their number is one like any other."""
    with tempfile.TemporaryFile("w+") as stderr:
        handler = StderrHandler(stderr, formatter, capacity=400)
        record = logging.LogRecord("publisher", logging.ERROR, "", 1, "x" * 1_000, (), None)
        handler.handle(record)
        record.msg = "read again"
        handler.handle(record)
        handler.flush()
        stderr.seek(0)
        notice, line = stderr.read().splitlines()
    assert "read again" in line
    assert "1 log line dropped" in notice
    assert notice.startswith("{") == line.startswith("{")


def test_dropped_lines_of_this_process_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What metrics show is the count of the handler that was configured; without one it is 0."""
    root = logging.Logger("root")  # noqa: LOG001  pytest has handlers at the real one
    monkeypatch.setattr(logging, "root", root)
    assert log_lines_dropped() == 0
    monkeypatch.setattr(sys, "stderr", ClosedStream(None))
    configure_logging("text", debug=False)
    for _ in range(3):
        root.info("lost")
    for handler in root.handlers:
        handler.flush()
    assert log_lines_dropped() == 3
