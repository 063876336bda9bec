"""The test vectors are what this package does, and what the protocol says."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.dev_collector import AcceptedBatch, check_batch
from baseplate_events.event_publisher.policy.batching import FORMATS
from baseplate_events.event_publisher.policy.wire import build_request
from tests.support import strategies, vector_files
from tests.support.vector_files import FOLDER, KEY_NAME, SECRET, WALL_TIME, Vector, load

FILES = ("answers", "bodies", "requests", "segments-1", "signatures", "tjson")

#: What an outcome asks of a publisher, by its name in the vectors.
OUTCOMES = {"accepted", "retryable", "too large", "refused", "misconfigured"}


def bytes_of(vector: Vector, key: str) -> bytes:
    """Return bytes that a vector holds in base64."""
    return base64.b64decode(vector[f"{key}_base64"], validate=True)


def portable(vector: Vector) -> Vector:
    """Return a vector without what another release of zlib would write otherwise."""
    return {
        **{key: value for key, value in vector.items() if key != "body_base64"},
        "headers": {k: v for k, v in vector.get("headers", {}).items() if k not in unportable(vector)},
    }


def unportable(vector: Vector) -> set[str]:
    """Name the headers of a request that depend on its compressed bytes."""
    compressed = "X-Signature" if vector["name"] == "the compressed body was signed" else ""
    return {"Content-Length", compressed}


def test_every_file_is_described() -> None:
    """The folder holds the files that the generator writes, and its README describes each."""
    assert set(FILES) == {path.stem for path in FOLDER.glob("*.json")} == set(vector_files.make_all())
    text = (FOLDER / "README.md").read_text()
    assert [name for name in FILES if f"`{name}.json`" not in text] == []


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_the_package_gives(name: str) -> None:
    """Each file stands as the generator would write it, except for what compressors are free to choose."""
    expected = load(name)
    made: list[Vector] = json.loads(json.dumps(vector_files.make_all()[name]))
    if name != "signatures":
        expected, made = list(map(portable, expected)), list(map(portable, made))
    assert expected == made, "run python -m tests.support.vector_files"


@pytest.mark.parametrize("vector", load("requests"), ids=lambda vector: vector["name"])
def test_our_collector_answers_as_requested(vector: Vector) -> None:
    """The collector for development gives each request its status, and takes its events as they are."""
    keys = {name: base64.b64decode(secret) for name, secret in vector["keys"].items()}
    headers = list(vector["headers"].items())
    checked = check_batch(vector["method"], vector["target"], headers, bytes_of(vector, "body"), keys)
    if isinstance(checked, AcceptedBatch):
        assert vector["status"] == 200
        assert vector["events"] == [event.decode() for event in checked.events]
    else:
        assert vector["status"] == checked.status


@pytest.mark.parametrize(
    "vector", [vector for vector in load("requests") if vector["status"] == 200], ids=lambda v: v["name"]
)
def test_a_good_request_is_ours(vector: Vector) -> None:
    """Our publisher builds the same request, inflated, and the vector lists all its headers."""
    version = vector["target"].removeprefix("/v")
    body = FORMATS[version].join(tuple(event.encode() for event in vector["events"]))
    request = build_request(body, key_name=KEY_NAME, secret=SECRET, level=3, wall_time=WALL_TIME)
    assert body == gzip.decompress(bytes_of(vector, "body"))
    headers = dict(vector["headers"])
    assert str(len(bytes_of(vector, "body"))) == headers.pop("Content-Length")
    assert headers == dict(request.headers)


def test_the_vectors_show_every_outcome() -> None:
    """No outcome is without an example, and whatever is asked for lies within the bounds."""
    answers = load("answers")
    assert {answer["outcome"] for answer in answers} == OUTCOMES
    assert {0, 7, 60, 120, 300} == {answer["wait"] for answer in answers}


# --- the generator ---


@given(
    key_name=st.from_regex(r"""(?:(?![,"'])[!-~]){1,20}""", fullmatch=True),
    secret=st.binary(min_size=1, max_size=80),
    body=st.binary(max_size=200),
)
def test_signatures_are_hmacs(key_name: str, secret: bytes, body: bytes) -> None:
    """Of any inputs the generator makes a vector whose output RFC 2104 gives for its input."""
    vector = vector_files.signature("drawn", key_name, secret, body)
    mac = hmac.new(bytes_of(vector, "secret"), bytes_of(vector, "body"), hashlib.sha256).hexdigest()
    assert (mac, f"key={key_name}, mac={mac}") == (vector["mac"], vector["header"])


@given(version=strategies.versions, events=st.lists(strategies.json_events, min_size=1, max_size=12))
def test_bodies_hold_their_events(version: str, events: list[bytes]) -> None:
    """Of any events the generator makes a vector whose body a JSON reader takes apart to them."""
    texts = [event.decode() for event in events]
    body = json.loads(vector_files.body("drawn", version, texts)["body"])
    parsed = list(map(json.loads, texts))
    assert body == (parsed if version == "2j" else {"1": {"lst": ["rec", len(events), *parsed]}})


_scalars: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "i8": st.integers(-128, 127),
    "i32": st.integers(-(2**31), 2**31 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1).map(str),
    "double": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["NaN", "Infinity"]),
    "string": strategies.texts,
    "binary": st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode()),
}

_typed = st.sampled_from(sorted(_scalars)).flatmap(lambda kind: st.tuples(st.just(kind), _scalars[kind]))


def plain_value(kind: str, value: Any) -> object:  # noqa: ANN401 - as a vector has it
    """Return what a JSON reader finds in a field."""
    return int(value) if kind in {"bool", "i64"} else value


@given(fields=st.lists(_typed, max_size=6))
def test_structs_hold_their_fields(fields: list[tuple[str, Any]]) -> None:
    """Of any fields the generator makes a vector whose text a JSON reader takes apart to them."""
    tags = {"bool": "tf", "double": "dbl", "string": "str", "binary": "str"}
    vector = vector_files.tjson(
        "drawn", [{"id": n, "type": kind, "value": value} for n, (kind, value) in enumerate(fields, 1)]
    )
    expected = {
        str(n): {tags.get(kind, kind): plain_value(kind, value)} for n, (kind, value) in enumerate(fields, 1)
    }
    assert expected == json.loads(vector["json"])
