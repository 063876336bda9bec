"""The test vectors of the protocol: inputs for a publisher or collector in any language, and what they give.

`python -m tests.support.vector_files` rewrites the files of `tests/vectors`: the inputs stand here, the
outputs come from the package. `docs/protocol.md` describes the protocol, `tests/vectors/README.md` the files.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from baseplate_events import serialize_v2_event
from baseplate_events.event_publisher.policy.batching import FORMATS
from baseplate_events.event_publisher.policy.outcome import (
    Accepted,
    Misconfigured,
    Outcome,
    Refused,
    Retryable,
    TooLarge,
    classify,
)
from baseplate_events.event_publisher.policy.wire import (
    Response,
    build_request,
    compress,
    sign,
    signature_header,
)
from baseplate_events.spool.format import VERSION
from tests.support import segment_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: A vector, as it stands in a file.
Vector: TypeAlias = dict[str, Any]

FOLDER: Final = Path(__file__).parents[1] / "vectors"

#: Seconds since the epoch: when the requests of the vectors were made.
WALL_TIME: Final = 1_795_511_280.0

KEY_NAME: Final = "NameOfASecretKey"
SECRET: Final = b"Base64-encoded-blob-of-randomness"

#: Bytes of an inflated body that a collector takes: the publisher's default.
MAX_SIZE: Final = 512_000


def load(name: str) -> list[Vector]:
    """Return the vectors of a file, by its name without the ending."""
    return cast("list[Vector]", json.loads((FOLDER / f"{name}.json").read_text("utf-8")))


def make_all() -> dict[str, list[Vector]]:
    """Return what the files should hold, by their names without the ending."""
    return {
        "answers": [answer(*case) for case in _ANSWERS],
        "bodies": [body(name, version, events) for name, version, events in _BODIES],
        "requests": [_request(case) for case in _requests()],
        f"segments-{VERSION}": segment_vectors.segments(),
        "signatures": [signature(*case) for case in _SIGNATURES],
        "tjson": [tjson(name, fields) for name, fields in _STRUCTS],
    }


# --- signatures ---

_SIGNATURES: Final = [
    ("RFC 4231, test case 2", "NameOfASecretKey", b"Jefe", b"what do ya want for nothing?"),
    (
        "RFC 4231, test case 6: a secret longer than a block",
        "k",
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
    ),
    ("a body of version 2", "a-key_1.x", bytes(range(32)), b'{"1":{"lst":["rec",1,{}]}}'),
    ("a secret of one zero byte, text beyond ASCII", "!#$%&()*+-./", b"\0", '[{"text":"Zoë 日本"}]'.encode()),
]


def signature(name: str, key_name: str, secret: bytes, body: bytes) -> Vector:
    """Return a vector of `signatures.json`."""
    mac = sign(secret, body)
    return {
        "name": name,
        "key_name": key_name,
        "secret_base64": in_base64(secret),
        "body_base64": in_base64(body),
        "mac": mac,
        "header": signature_header(key_name, mac),
    }


# --- bodies ---

_SMALL: Final = '{"1":{"str":"a"},"2":{"i64":1}}'

_BODIES: Final[list[tuple[str, str, list[str]]]] = [
    ("one event", "2", [_SMALL]),
    ("one event", "2j", ['{"action":"click"}']),
    ("an event without fields", "2", ["{}"]),
    ("ten events: the number has two digits", "2", [f'{{"1":{{"i32":{number}}}}}' for number in range(10)]),
    ("three events in their order", "2j", ['{"n":3}', '{"n":1}', '{"n":2}']),
    (
        "bytes are copied as they are",
        "2j",
        ['{ "a" : "\\u00eb\\/",\t"b": 12345678901234567890.000 }', '{"b":"]},{[\\"","c":"ë\x7f"}'],
    ),
]


def body(name: str, version: str, events: Sequence[str]) -> Vector:
    """Return a vector of `bodies.json`."""
    joined = FORMATS[version].join(tuple(event.encode() for event in events))
    return {"name": name, "version": version, "events": list(events), "body": joined.decode()}


# --- requests ---


@dataclass(frozen=True)
class _Case:
    """A request, good or with one thing wrong.

    Attributes:
        name: What is special about it.
        status: What a collector should answer.
        plain: The body before compression.
        events: The events in it, where it is good.
        target: Version 2 or 2j, or no version at all.
        method: The method.
        headers: Headers in place of the publisher's; None leaves one out.
        sent: The body as it is sent, where it isn't the compressed one.
    """

    name: str
    status: int
    plain: bytes = b'{"1":{"lst":["rec",1,{"1":{"str":"a"}}]}}'
    events: tuple[str, ...] = ()
    target: str = "/v2"
    method: str = "POST"
    headers: tuple[tuple[str, str | None], ...] = ()
    sent: bytes | None = None


def _good(name: str, version: str, *events: str) -> _Case:
    plain = FORMATS[version].join(tuple(event.encode() for event in events))
    return _Case(name, 200, plain, events, f"/v{version}")


def _requests() -> Iterator[_Case]:
    plain = _Case.plain

    def signed(name: str, value: str | None) -> _Case:
        return _Case(name, 401, headers=(("X-Signature", value),))

    mac = sign(SECRET, plain)
    yield _good("a batch of version 2", "2", _SMALL, '{"1":{"str":"ë"}}')
    yield _good("a batch of version 2j", "2j", '{"action":"click"}', '{"action":"view"}')
    yield _good(
        "blanks, escapes and a number that no double holds",
        "2j",
        '{ "n" : 9007199254740993 }',
        r'{"t":"\u00eb\"]}"}',
    )
    events = [json.dumps({"n": number, "pad": "x" * 200}) for number in range(20)]
    yield _good("a batch that compresses well", "2j", *events)
    yield signed("another body was signed", signature_header(KEY_NAME, sign(SECRET, plain + b" ")))
    yield signed(
        "the compressed body was signed", signature_header(KEY_NAME, sign(SECRET, compress(plain, 3)))
    )
    yield signed(
        "the secret was used without decoding it",
        signature_header(KEY_NAME, sign(in_base64(SECRET).encode(), plain)),
    )
    yield signed("an unknown key", signature_header("Nobody", mac))
    yield signed("a mac in upper case", signature_header(KEY_NAME, mac.upper()))
    yield signed("a mac that is cut short", signature_header(KEY_NAME, mac[:-1]))
    yield signed("no signature", None)
    yield _Case("the number of events is wrong", 400, b'{"1":{"lst":["rec",2,{}]}}')
    yield _Case("a batch of version 2j at /v2", 400, b"[{}]")
    yield _Case("a batch of version 2 at /v2j", 400, b'{"1":{"lst":["rec",1,{}]}}', target="/v2j")
    yield _Case("no events", 400, b"[]", target="/v2j")
    yield _Case("an event that isn't an object", 400, b"[{},1]", target="/v2j")
    yield _Case("an event that ends too early", 400, b'[{"a":1]', target="/v2j")
    yield _Case("a comma too many", 400, b"[{},]", target="/v2j")
    yield _Case(
        "a bare NaN, as Apache's Python writer has it", 400, b'{"1":{"lst":["rec",1,{"1":{"dbl":nan}}]}}'
    )
    yield _Case(
        "a raw control character, as Apache's Python writer has it",
        400,
        b'{"1":{"lst":["rec",1,{"1":{"str":"\x01"}}]}}',
    )
    yield _Case("not UTF-8", 400, b'[{"a":"\xff"}]', target="/v2j")
    yield _Case("a byte order mark", 400, b"\xef\xbb\xbf[{}]", target="/v2j")
    yield _Case("gzip that is cut short", 400, sent=compress(plain, 3)[:-9])
    yield _Case("no gzip", 400, sent=plain)
    yield _Case(
        "inflates to one byte more than 512,000",
        413,
        b'[{"a":"%b"}]' % (b" " * (MAX_SIZE - 9)),
        target="/v2j",
    )
    yield _Case("a version that doesn't exist", 404, target="/v3")
    yield _Case("a method other than POST", 405, method="PUT")
    yield _Case("another media type", 415, headers=(("Content-Type", "text/plain"),))
    yield _Case("another compression", 415, headers=(("Content-Encoding", "br"),))


def _request(case: _Case) -> Vector:
    made = build_request(case.plain, key_name=KEY_NAME, secret=SECRET, level=3, wall_time=WALL_TIME)
    sent = made.body if case.sent is None else case.sent
    headers = {**made.headers, "Content-Length": str(len(sent)), **dict(case.headers)}
    vector: Vector = {
        "name": case.name,
        "keys": {KEY_NAME: in_base64(SECRET)},
        "method": case.method,
        "target": case.target,
        "headers": {header: value for header, value in headers.items() if value is not None},
        "body_base64": in_base64(sent),
        "status": case.status,
    }
    return {**vector, "events": list(case.events)} if case.status == 200 else vector


# --- answers ---

_DATE: Final = "Tue, 24 Nov 2026 09:08:00 GMT"

_ANSWERS: Final[list[tuple[int, str | None, str | None]]] = [
    *(
        (status, None, None)
        for status in (
            101, 200, 201, 202, 204, 299, 300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 407, 408,
            409, 410, 411, 413, 415, 418, 422, 425, 429, 451, 499, 500, 501,
            502, 503, 504, 507, 599, 600, 999,
        )
    ),
    (503, "0", None),
    (503, "120", None),
    (429, " 7 ", None),
    (503, "86400", None),
    (503, "9" * 40, None),
    (503, "-1", None),
    (503, "1.5", None),
    (503, "soon", None),
    (503, "\N{SUPERSCRIPT TWO}", None),
    (401, "60", None),
    (503, "Tue, 24 Nov 2026 09:10:00 GMT", _DATE),
    (503, "Tue, 24 Nov 2026 09:08:00 GMT", _DATE),
    (503, "Mon, 23 Nov 2026 09:08:00 GMT", _DATE),
    (503, "Wed, 25 Nov 2026 09:08:00 GMT", _DATE),
    (503, "Tue, 24 Nov 2026 09:10:00 GMT", None),
    (503, "Tue, 24 Nov 2026 09:10:00 GMT", "yesterday"),
]  # fmt: skip


def answer(status: int, retry_after: str | None, date: str | None) -> Vector:
    """Return a vector of `answers.json`."""
    outcome = classify(Response(status, retry_after=retry_after, date=date))
    wait = outcome.retry_after if isinstance(outcome, Retryable | Misconfigured) else 0.0
    return {
        "status": status,
        "retry_after": retry_after,
        "date": date,
        "outcome": _OUTCOMES[type(outcome)],
        "wait": int(wait),
    }


#: Names of the outcomes in `answers.json`.
_OUTCOMES: Final[Mapping[type[Outcome], str]] = {
    Accepted: "accepted",
    Retryable: "retryable",
    TooLarge: "too large",
    Refused: "refused",
    Misconfigured: "misconfigured",
}


# --- TJSON ---


def _field(number: int, kind: object, value: object) -> Vector:
    return {"id": number, "type": kind, "value": value}


#: A struct without fields, or an empty map.
_NOTHING: Final[list[Any]] = []

_STRUCTS: Final[list[tuple[str, list[Vector]]]] = [
    ("no fields", []),
    ("bools", [_field(1, "bool", value=True), _field(2, "bool", value=False)]),
    (
        "the least integers",
        [
            _field(1, "i8", -128),
            _field(2, "i16", -32_768),
            _field(3, "i32", -(2**31)),
            _field(4, "i64", str(-(2**63))),
        ],
    ),
    (
        "the greatest integers",
        [
            _field(1, "i8", 127),
            _field(2, "i16", 32_767),
            _field(3, "i32", 2**31 - 1),
            _field(4, "i64", str(2**63 - 1)),
        ],
    ),
    ("ids with gaps", [_field(3, "i32", 3), _field(10, "i32", 10), _field(32_767, "i32", 0)]),
    (
        "doubles",
        [
            _field(number, "double", value)
            for number, value in enumerate(
                [
                    0.0,
                    -0.0,
                    1.0,
                    0.1,
                    -2.5,
                    52.3702157,
                    1e16,
                    1e17,
                    1e20,
                    123456789012345680.0,
                    1e-4,
                    1e-5,
                    5e-324,
                    1.7976931348623157e308,
                ],
                1,
            )
        ],
    ),
    (
        "doubles that aren't numbers",
        [_field(1, "double", "NaN"), _field(2, "double", "Infinity"), _field(3, "double", "-Infinity")],
    ),
    ("escapes", [_field(1, "string", '"\\/\b\f\n\r\t'), _field(2, "string", "\x00\x01\x0b\x1f \x7f\x80")]),
    ("text beyond ASCII", [_field(1, "string", "Zoë 日本 😀\u2028"), _field(2, "string", "")]),
    (
        "binary",
        [
            _field(1, "binary", ""),
            _field(2, "binary", "AA=="),
            _field(3, "binary", "//79"),
            _field(4, "binary", "+/8="),
        ],
    ),
    ("a uuid", [_field(1, "uuid", "3a1f4f6e-0f6b-4a55-9a58-0f8c0a3d0000")]),
    (
        "lists",
        [
            _field(1, {"list": "string"}, ["a", "b"]),
            _field(2, {"list": "i64"}, []),
            _field(3, {"list": "bool"}, [True, False]),
            _field(4, {"list": {"list": "double"}}, [[0.5], ["NaN"]]),
        ],
    ),
    ("a set", [_field(1, {"set": "i32"}, [7])]),
    (
        "maps",
        [
            _field(1, {"map": ["string", "i32"]}, [["views", 10], ['vo"tes', 3]]),
            _field(2, {"map": ["i32", "double"]}, [[1, 0.25], [37, 12.5]]),
            _field(3, {"map": ["i64", "string"]}, [["-9223372036854775808", "least"]]),
            _field(4, {"map": ["bool", "i8"]}, [[True, 1], [False, 0]]),
            _field(5, {"map": ["double", "bool"]}, [[0.1, True], ["Infinity", False]]),
            _field(6, {"map": ["binary", {"list": "i32"}]}, [["AA==", [1]]]),
            _field(7, {"map": ["string", {"map": ["i16", "string"]}]}, [["a", [[1, "b"]]], ["c", _NOTHING]]),
        ],
    ),
    (
        "structs",
        [
            _field(1, "struct", [_field(1, "struct", []), _field(2, "string", "within")]),
            _field(2, {"list": "struct"}, [[_field(1, "i32", 1)], _NOTHING]),
            _field(3, {"map": ["string", "struct"]}, [["a", [_field(1, "bool", value=True)]]]),
        ],
    ),
]


def tjson(name: str, fields: list[Vector]) -> Vector:
    """Return a vector of `tjson.json`."""
    return {"name": name, "fields": fields, "json": serialize_v2_event(_struct(fields)).decode()}


#: Numbers of Thrift's types, by the names that the vectors have for them.
_NUMBERS: Final = {
    "bool": 2, "i8": 3, "double": 4, "i16": 6, "i32": 8, "i64": 10, "string": 11, "binary": 11, "struct": 12,
    "map": 13, "set": 14, "list": 15, "uuid": 16,
}  # fmt: skip


def _struct(fields: list[Vector]) -> Any:  # noqa: ANN401 - made as the Thrift compiler makes them, untyped
    """Return an instance of a class with these fields, of the compiler's dynamic shape."""
    spec = tuple(
        (
            field["id"],
            *_spec_of(field["type"])[:1],
            f"field_{field['id']}",
            *_spec_of(field["type"])[1:],
            None,
        )
        for field in fields
    )
    base = importlib.import_module("thrift.protocol.TBase").TBase
    struct = type("Sample", (base,), {"thrift_spec": spec})()
    for field in fields:
        setattr(struct, f"field_{field['id']}", _value_of(field["type"], field["value"]))
    return struct


def _spec_of(kind: Any) -> tuple[int, Any]:  # noqa: ANN401 - a name, or an object with one member
    """Return the number of a type and what a spec has beside it."""
    if isinstance(kind, str):
        return _NUMBERS[kind], "BINARY" if kind == "binary" else None
    ((name, inner),) = cast("dict[str, Any]", kind).items()
    if name == "map":
        return _NUMBERS[name], (*_spec_of(inner[0]), *_spec_of(inner[1]), False)
    return _NUMBERS[name], (*_spec_of(inner), False)


def _value_of(kind: Any, value: Any) -> Any:  # noqa: ANN401 - likewise
    """Return what a field holds, from how a vector has it."""
    if isinstance(kind, dict):
        ((name, inner),) = cast("dict[str, Any]", kind).items()
        if name == "map":
            return {_value_of(inner[0], key): _value_of(inner[1], item) for key, item in value}
        items = [_value_of(inner, item) for item in value]
        return set(items) if name == "set" else items
    match kind:
        case "struct":
            return _struct(value)
        case "i64":
            return int(value)
        case "double":
            return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value, value)
        case "binary":
            return base64.b64decode(value)
        case "uuid":
            return uuid.UUID(value)
        case _:
            return value


def in_base64(data: bytes) -> str:
    """Return bytes in base64, with padding."""
    return base64.b64encode(data).decode()


def main() -> None:
    """Write all files."""
    for name, vectors in make_all().items():
        lines = ",\n".join(json.dumps(vector) for vector in vectors)
        (FOLDER / f"{name}.json").write_text(f"[\n{lines}\n]\n", "utf-8")


if __name__ == "__main__":
    main()
