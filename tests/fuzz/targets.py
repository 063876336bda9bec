"""What must hold for any bytes, a function for each part of the package that reads foreign ones.

A target returns if that holds and raises otherwise. It depends on nothing but its bytes. The first byte of
most is a choice: into which pieces the rest is cut, or how it is wrapped.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import re
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from baseplate_events.dev_collector import AcceptedBatch, RejectedBatch, check_batch, check_head
from baseplate_events.errors import ConfigurationError, EventNotSerializableError
from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.http_response import (
    MAX_BODY,
    MAX_EXCERPT,
    MAX_HEAD,
    InterruptedResponseError,
    MalformedResponseError,
    ResponseReader,
)
from baseplate_events.event_publisher.ledger.file import LedgerError
from baseplate_events.event_publisher.ledger.letters import DamagedLetterError, LetterFile
from baseplate_events.serializers import serialize_v2j_event
from baseplate_events.spool.format import Header, SegmentParser, UnreadableSegmentError
from tests import test_thrift_json
from tests.dev_collector.test_check import refuse_constant, shape_of
from tests.json_writer import test_writer
from tests.support.ledgers import NAME, batch_of, fill, letter_of, opened
from tests.support.records import Record, feed
from tests.support.segment_model import HEAD, MARKER, ModelSegment
from tests.support.signed_requests import KEYS, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

SECRET: Final = "c2VjcmV0LWJ5dGVz"

#: A line that gives the secret to its option, perhaps as the continuation of another value.
_SECRET_LINE: Final = re.compile(rb"(?m)^[ \t]*key\.secret[ \t]*[=:][ \t]*SECRET")

_SEGMENT: Final = ModelSegment("2", bytes(range(16)))


def pieces_of(data: bytes, size: int) -> Iterator[bytes]:
    """Cut data into pieces of a size, or leave it whole if that is 0."""
    size = size or len(data) or 1
    return (data[start : start + size] for start in range(0, len(data), size))


# --- the spool ---


def read_segment(data: bytes) -> None:
    """A segment's records are those that the description of the format finds, wherever its data is cut.

    The highest bit of the first byte says whether checks of lengths and CRCs are corrected first. Without
    that, hardly any input would have a record.
    """
    choice, body = data[:1] or b"\0", data[1:]
    if choice[0] & 128:
        body = _with_right_checks(body)
    expected = _SEGMENT.records(body)
    if any(_SEGMENT.records(record.payload) for record in expected):
        return  # no writer can put a record into a record, as no event knows the identity of its segment
    parser = SegmentParser(Header(*_SEGMENT), 0)
    found: list[Record] = []
    for piece in pieces_of(body, choice[0] & 127):
        found += feed(parser, piece)
    assert [tuple(record) for record in found] == [tuple(record) for record in expected]
    pending = _SEGMENT.pending(body)
    whole = sum(record.end - record.start for record in found)
    assert (parser.position, parser.torn, parser.pending) == (pending, pending - whole, len(body) - pending)


def _with_right_checks(body: bytes) -> bytes:
    """Correct the checks of all records that seem to be meant and end within the data."""
    at = body.find(MARKER)
    while at >= 0:
        size = int.from_bytes(body[at + 4 : at + 8], "big")
        end = at + HEAD + size
        if end <= len(body):
            body = body[:at] + _SEGMENT.record(body[at + HEAD : end], body[at + 3 : at + 4]) + body[end:]
        at = body.find(MARKER, end if end <= len(body) else at + 1)
    return body


def read_header(data: bytes) -> None:
    """The first bytes of a file are a header, none yet, or an error; a header is written as it was read."""
    line = data + b" %08x\n" % zlib.crc32(data + b" ")  # else hardly any input would pass the check
    for start in (data, line):
        try:
            header = Header.decode(start)
        except UnreadableSegmentError:
            continue
        if header is not None:
            assert start.startswith(header.encode())


# --- configuration ---


def read_configuration(data: bytes) -> None:
    """A file has usable settings, or an error with a line for each mistake and no part of the secret."""
    is_elsewhere = b"SECRET" in _SECRET_LINE.sub(b"", data)  # values of other options may be shown
    with tempfile.NamedTemporaryFile(suffix=".ini") as file:
        file.write(data.replace(b"SECRET", SECRET.encode()))
        file.flush()
        try:
            settings = load_settings(file.name, "v2", {"HOME": "/root", "EMPTY": ""})
        except ConfigurationError as error:
            problems: tuple[str, ...] | None = error.problems
        else:
            problems = None
            assert is_elsewhere or SECRET not in repr(settings)
            assert 0 < settings.batch.max_size <= 512_000
            assert settings.queue.name == "v2"
    if problems is not None:
        assert problems
        assert not any("\n" in problem or "\x1b" in problem for problem in problems)
        assert is_elsewhere or not any(SECRET in problem for problem in problems)


# --- HTTP ---


def read_response(data: bytes) -> None:
    """What a peer sends is an answer or one of two errors; pieces change nothing, and little is read."""
    size, body = (data[:1] or b"\0")[0], data[1:]
    whole, _ = _answer_to([body])
    in_pieces, received = _answer_to(pieces_of(body, size))
    assert whole == in_pieces
    assert received <= MAX_HEAD + MAX_BODY


def _answer_to(pieces: Iterable[bytes]) -> tuple[object, int]:
    stream = iter(pieces)
    rest = b""
    received = 0

    def receive(most: int) -> bytes:
        nonlocal rest, received
        rest = rest or next(stream, b"")
        piece, rest = rest[:most], rest[most:]
        received += len(piece)
        return piece

    try:
        answer = ResponseReader(receive, b"").read()
    except (InterruptedResponseError, MalformedResponseError) as error:
        return type(error), received
    response = answer.response
    assert 101 <= response.status <= 999
    assert len(response.excerpt) <= MAX_EXCERPT
    assert response.reason.isprintable()
    return (response.status, response.reason), received


def check_body(data: bytes) -> None:
    """The dev collector takes a signed batch exactly if `json` finds the same events in it."""
    path, plain = ("/v2", "/v2j")[(data[:1] or b"\0")[0] % 2], data[1:]
    checked = sealed(path, plain).check()
    expected = shape_of(path, plain)
    if isinstance(checked, AcceptedBatch):
        assert [json.loads(event, parse_constant=refuse_constant) for event in checked.events] == expected
    else:
        assert checked.reason.isascii()
        assert checked.reason.isprintable()


def check_request(data: bytes) -> None:
    """Any request is accepted, or rejected with a reason of one line.

    The bytes are a line with method and path, a line for each header, an empty one, and the body.
    """
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    method, _, path = first.partition(" ")
    headers = [(name, value) for name, _, value in (line.partition(":") for line in lines)]
    checked = check_batch(method, path, headers, body, KEYS)
    if isinstance(checked, RejectedBatch):
        assert checked.reason.isascii()
        assert checked.reason.isprintable()
    refused = check_head(method, path, headers)
    if isinstance(refused, RejectedBatch):
        assert refused == checked


# --- the ledger ---

_LETTERS: Final = (b'{"id":1}', b"", b"\xff\0not JSON", b"x" * 3_000)


@functools.cache
def _ledger() -> bytes:
    """Return the file of a ledger with dead letters and unfinished batches."""
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, _LETTERS)
        ledger = opened(folder)
        ledger.enter(batch_of(1, (b"A" * 16, 0, 4), (b"B" * 16, 2, 9)))
        ledger.enter(batch_of(2, (b"A" * 16, 4, 6)))
        ledger.resolve(batch_of(3, (b"A" * 16, 9, 11)).spans)
        ledger.close()
        return Path(folder, NAME).read_bytes()


def read_ledger(data: bytes) -> None:
    """A damaged ledger gives a letter as it was written or not at all, and a publisher starts with it.

    The bytes are patches: an offset of two bytes, a length, and so many bytes. With the offset 65535, the
    length says where the file ends.
    """
    image = bytearray(_ledger())
    stream = io.BytesIO(data)
    while len(head := stream.read(3)) == 3:
        offset, length = struct.unpack(">HB", head)
        patch = stream.read(length)
        if offset == 0xFFFF:
            del image[len(image) * length // 255 :]
        else:
            place = offset % (len(image) or 1)
            image[place : place + len(patch)] = patch
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, NAME)
        path.write_bytes(image)
        path.chmod(0o600)
        with contextlib.suppress(LedgerError):
            _read_letters(str(path))
        try:
            ledger = opened(folder)
        except LedgerError:
            return  # of a later release
        batches = list(ledger.unfinished())
        assert all(batch.order[0] in {1, 2} for batch in batches)
        ledger.resolve((), [letter_of(b"new")])
        ledger.close()


def _read_letters(path: str) -> None:
    file = LetterFile(path, patience=0.0)
    try:
        file.totals()
        for number in file.numbers():
            try:
                letter = file.read(number)
            except DamagedLetterError:
                continue
            assert letter is None or letter.event in _LETTERS
    finally:
        file.close()


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


# --- what services serialize ---


def write_json(data: bytes) -> None:
    """An object that `json` reads is written as `json` writes it."""
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(value, dict):
        return
    event = cast("Mapping[str, object]", value)
    try:
        expected = test_writer.plain_json(event)
        json.loads(expected, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        with contextlib.suppress(EventNotSerializableError):
            serialize_v2j_event(event)
    else:
        assert serialize_v2j_event(event) == expected


def write_typed(data: bytes) -> None:
    """Dataclasses and NamedTuples of any shape are written as their dicts."""
    _fuzz(test_writer.test_typed_events_are_their_dicts, data)


def write_thrift(data: bytes) -> None:
    """Structs of any schema are written as Apache's writer has them, corrected."""
    _fuzz(test_thrift_json.test_random_schemas_are_written_as_apache_has_them, data)


def _fuzz(test: Any, data: bytes) -> None:  # noqa: ANN401 - hypothesis doesn't type its attribute
    """Run a property with the example that some bytes stand for, if they stand for one."""
    test.hypothesis.fuzz_one_input(data)


@dataclass(frozen=True)
class Target:
    """A target.

    Attributes:
        run: Returns if what must hold does.
        longest: Bytes of an input at most.
    """

    run: Callable[[bytes], None]
    longest: int


TARGETS: Final[Mapping[str, Target]] = {
    "segment": Target(read_segment, 600),
    "segment-header": Target(read_header, 200),
    "configuration": Target(read_configuration, 2_000),
    "http-response": Target(read_response, 1_000),
    "collector-body": Target(check_body, 500),
    "collector-request": Target(check_request, 1_000),
    "ledger": Target(read_ledger, 300),
    "json": Target(write_json, 1_000),
    "typed-json": Target(write_typed, 2_000),
    "thrift-json": Target(write_thrift, 2_000),
}
