from __future__ import annotations

import base64
import copy
import math
import os
import pickle
import re
import socket
from fractions import Fraction
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.declare import (
    BOOLEAN,
    ENDPOINT,
    HOST_NAMES,
    MODE,
    PROXY,
    SECRET,
    STATUSES,
    choice,
    host,
    integer,
    span,
)
from baseplate_events.event_publisher.config.values import (
    MAX_SOCKET_PATH,
    InternetEndpoint,
    Secret,
    UnixEndpoint,
    expand_variables,
    format_span,
    parse_span,
)
from tests.support.sections import problems, refused, section, value
from tests.support.strategies import (
    domain_names,
    host_names,
    hostile_texts,
    plain_texts,
    ports,
    spans,
    texts,
    variable_names,
)

if TYPE_CHECKING:
    from pathlib import Path

_FOREVER = 1e12
HOST = host("scheme.option")


# --- secrets ---


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_a_secret_shows_nothing_and_compares_by_value(one: bytes, other: bytes) -> None:
    """Every secret looks the same; it is equal to a secret of the same bytes."""
    assert repr(Secret(one)) == str(Secret(other)) == f"{Secret(one)}"
    assert one == Secret(one).reveal()
    assert (one == other) == (Secret(one) == Secret(other))
    assert hash(Secret(one)) == hash(Secret(bytes(bytearray(one))))
    for copied in (copy.deepcopy(Secret(one)), pickle.loads(pickle.dumps(Secret(one)))):
        assert Secret(one) == copied


@given(st.binary(min_size=1, max_size=80), st.sampled_from(["", " ", "\n", "\t \n"]))
def test_base64_reads_back(secret: bytes, blank: str) -> None:
    """What base64 writes is read as the same bytes, with blanks around it or without."""
    read = section(k=blank + base64.b64encode(secret).decode() + blank)
    assert value(read, SECRET).reveal() == secret
    assert problems(read) == ()


@given(st.binary(min_size=12, max_size=80), st.data())
def test_damaged_base64_is_a_mistake_that_shows_nothing(secret: bytes, data: st.DataObject) -> None:
    """A missing or foreign character, also a blank or newline, is found, and no part of the text is shown."""
    text = base64.b64encode(secret).decode()
    at = data.draw(st.integers(1, len(text) - 1))
    foreign = data.draw(st.sampled_from([*" \n\t!-_,.é=\0", ""]))
    damaged = text[:at] + foreign + text[at + (foreign == "") :]
    read = section(k=damaged)
    value(read, SECRET, secret=True)
    problem = refused(read)
    assert not any(text[i : i + 6] in problem for i in range(len(text) - 5))


@given(st.text("ABab01+/= \n", max_size=12) | hostile_texts)
def test_base64_is_what_its_alphabet_and_length_say(text: str) -> None:
    """A text is accepted exactly where encoding the bytes that were read gives it back, spare bits aside."""
    read = section(k=text)
    secret = value(read, SECRET, secret=True)
    if not problems(read):
        again = base64.b64encode(secret.reveal()).decode()
        stripped = text.strip()
        assert len(again) == len(stripped)
        assert again.rstrip("=")[:-1] == stripped.rstrip("=")[:-1]
        assert again.count("=") == stripped.count("=")


# --- numbers, words, spans ---


@given(st.integers(), st.integers(-1_000, 1_000), st.integers(0, 1_000))
@example(5, 5, 0)
def test_an_integer_is_read_within_its_bounds(number: int, minimum: int, width: int) -> None:
    """A whole number is accepted exactly within its bounds, which a message names otherwise."""
    read = section(k=f" {number} ")
    found = value(read, integer(minimum, minimum + width))
    if minimum <= number <= minimum + width:
        assert number == found
        assert problems(read) == ()
    else:
        assert f"from {minimum} to {minimum + width}" in refused(read)


@given(hostile_texts | st.sampled_from(["1_000", "٣", "1.0", "0x10", "1e3", "9" * 5_000, "- 1"]))
def test_what_is_no_whole_number_is_a_mistake(text: str) -> None:
    """Nothing but ASCII digits with a sign is a whole number."""
    assume(re.fullmatch(r"\s*([+-]?[0-9]+)?\s*", text, re.ASCII) is None or len(text) > 4_000)
    read = section(k=text)
    value(read, integer(-9, 9))
    assert problems(read)


@given(spans())
def test_a_span_is_read_in_seconds(span: tuple[str, float]) -> None:
    """A whole number and a unit, singular or plural, make the nearest number of seconds."""
    text, seconds = span
    assert seconds == parse_span(text, 0, _FOREVER)
    assert seconds == parse_span(format_span(seconds), 0, _FOREVER)


@given(st.integers(0, 999_999), st.integers(0, 999_999))
def test_a_span_may_have_decimals(whole: int, fraction: int) -> None:
    """A decimal number of minutes is the number times sixty."""
    text = f"{whole}.{fraction}"
    assert math.isclose(Fraction(text) * 60, parse_span(f"{text} minutes", 0, _FOREVER), rel_tol=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "3s",
        "seconds",
        "3 fortnights",
        "-3 seconds",
        "+3 seconds",
        "1e3 seconds",
        "nan seconds",
        "inf days",
        ".5 seconds",
        "5. seconds",
        "3 Seconds",
        "3 secondss",
        "3 seconds 4 seconds",
        "1,5 seconds",
        "٣ seconds",
        "0 seconds",
        "61 seconds",
    ],
)
def test_what_is_no_span_within_bounds_is_a_mistake(text: str) -> None:
    """Only a plain number and one of the units are a span; the message gives an example and the bounds."""
    read = section(k=text)
    value(read, span(0.001, 60))
    assert "500 milliseconds, from 1 millisecond to 1 minute" in refused(read)


@given(st.integers(0, 0o7777), st.sampled_from(["", "0", "0o"]))
def test_a_mode_lets_its_owner_in_and_nobody_execute(mode: int, prefix: str) -> None:
    """A mode of three octal digits is accepted where it has the owner's bits and no bit to execute."""
    read = section(k=f"{prefix}{mode:03o}")
    found = value(read, MODE)
    if mode <= 0o777 and mode & 0o600 == 0o600 and not mode & 0o111:
        assert mode == found
        assert problems(read) == ()
    else:
        assert refused(read)


@given(st.sampled_from(["true", "false"]), st.data())
def test_a_boolean_is_read_in_any_case(word: str, data: st.DataObject) -> None:
    """`true` and `false` are read whatever their case."""
    cased = "".join(data.draw(st.sampled_from([letter, letter.upper()])) for letter in word)
    assert value(section(k=cased), BOOLEAN) is (word == "true")


@given(hostile_texts)
def test_a_word_that_is_no_choice_is_a_mistake(text: str) -> None:
    """Only the exact words are choices, and the message names them."""
    assume(text.strip() not in {"", "2", "2j"} and "$" not in text)
    read = section(k=text, b=text)
    assert value(read, choice("2", "2j"), default="2") == "2"
    assert "expected 2 or 2j" in refused(read)
    assert value(section(k=" 2j "), choice("2", "2j")) == "2j"
    read = section(k=text)
    value(read, BOOLEAN)
    assert text.strip().lower() in {"true", "false"} or problems(read)


# --- hosts and endpoints ---


@given(host_names | st.ip_addresses(v=6).map(lambda address: f"[{address}]"), st.none() | ports)
def test_a_host_is_kept_as_it_is_written(name: str, port: int | None) -> None:
    """Names, IPv4 and bracketed IPv6 addresses are accepted with a port and without."""
    text = name if port is None else f"{name}:{port}"
    read = section(k=text, e=text, p=f"http://{text}")
    assert text == value(read, HOST)
    assert problems(read) == ()
    if port is None:
        value(read, PROXY, "p")
        value(read, ENDPOINT, "e")
        assert len(problems(read)) == 2
    else:
        assert f"http://{text}" == value(read, PROXY, "p")
        assert InternetEndpoint(name.strip("[]"), port) == value(read, ENDPOINT, "e")
        assert str(value(read, ENDPOINT, "e")) == text
        assert problems(read) == ()


@given(domain_names, ports)
def test_an_absolute_name_is_a_host(name: str, port: int) -> None:
    """A name with a final dot, which the resolver doesn't add its search domains to, is kept as it is."""
    text = f"{name}.:{port}"
    read = section(k=text, short=f"{name}.", e=text, p=f"http://{text}")
    assert (text, f"{name}.") == (value(read, HOST), value(read, HOST, "short"))
    assert f"http://{text}" == value(read, PROXY, "p")
    assert InternetEndpoint(f"{name}.", port) == value(read, ENDPOINT, "e")
    assert problems(read) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://events.test", "belongs in scheme.option"),
        ("events.test/v2", "host name"),
        ("events.test?a", "host name"),
        ("events.test\\v2", "host name"),
        ("user:hunter2@events.test", "user name"),
        ("events test", "host name"),
        ("événements.test", "punycode"),
        ("events..test", "host name"),
        (".test", "host name"),
        ("events.test..", "host name"),
        (".", "host name"),
        ("127.0.0.1.", "IPv4"),
        ("-a.test", "host name"),
        ("a-.test", "host name"),
        ("a!.test", "host name"),
        (f"{'a' * 64}.test", "host name"),
        (".".join(["a" * 50] * 6), "host name"),
        (":80", "host name"),
        ("1.2.3", "IPv4"),
        ("1.2.3.256", "IPv4"),
        ("::1", "brackets"),
        ("[::1", "IPv6"),
        ("[127.0.0.1]", "IPv6"),
        ("[::1]80", "IPv6"),
        ("[fe80::1%eth0]:80", "IPv6"),
        ("a.test:", "port"),
        ("a.test:0", "port"),
        ("a.test:65536", "port"),
        ("a.test:080", "port"),
        ("a.test:-1", "port"),
        ("[::1]:x", "port"),
    ],
)
def test_an_impossible_host_is_a_mistake_with_its_reason(text: str, reason: str) -> None:
    """The message says what about the host can't be, and shows no password."""
    read = section(k=text)
    value(read, HOST)
    problem = refused(read)
    assert reason in problem
    assert "hunter2" not in problem


@given(hostile_texts | st.text("ab.:[]1-", max_size=12))
def test_a_host_that_is_accepted_can_stand_in_a_url(text: str) -> None:
    """Whatever is accepted as host consists of nothing but safe characters."""
    read = section(k=text)
    found = value(read, HOST)
    if not problems(read):
        assert re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", found)


@given(plain_texts, plain_texts | texts)
def test_an_endpoint_with_a_slash_is_a_path(head: str, tail: str) -> None:
    """A text with a slash and no scheme is the path of a socket where it can be one."""
    path = f"{head}/{tail}".strip()
    assume("://" not in path and "$" not in path and not re.search(r"(^|\s)[;#]", path))
    read = section(k=path)
    endpoint = value(read, ENDPOINT)
    if path.isprintable() and len(path.encode()) <= MAX_SOCKET_PATH:
        assert endpoint == UnixEndpoint(path)
        assert str(endpoint) == path
    else:
        assert refused(read)


@pytest.mark.parametrize("text", ["statsd.test", "udp://statsd.test:1", "a:b", "/" + "x" * 107, "http://h:1"])
def test_an_impossible_endpoint_is_a_mistake(text: str) -> None:
    """An endpoint needs a port or a path that a socket can have, and takes no scheme."""
    read = section(k=text)
    value(read, ENDPOINT)
    assert "HOST:PORT" in refused(read)


def test_the_longest_path_is_what_the_system_takes(tmp_path: Path) -> None:
    """The limit of a path is the system's: a socket can be bound at that length, and not at one more."""
    path = f"{tmp_path}/"
    path += "x" * (MAX_SOCKET_PATH - len(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        with pytest.raises(OSError, match="too long"):
            sock.bind(path + "x")
        sock.bind(path)


@pytest.mark.parametrize(
    "text", ["https://p.test:1", "p.test:1", "http://u:hunter2@p.test:1", "http://p.test:1/x"]
)
def test_an_impossible_proxy_is_a_mistake(text: str) -> None:
    """A proxy is `http://HOST:PORT`, maybe with a slash, and a password isn't shown."""
    assert value(section(k="http://p.test:1/"), PROXY) == "http://p.test:1"
    read = section(k=text)
    value(read, PROXY)
    assert "hunter2" not in refused(read)


# --- lists ---


@given(
    st.lists(
        st.tuples(st.integers(300, 599) | st.integers(-1, 6_000), st.sampled_from(["", " ", "\n "])),
        max_size=4,
    ),
    st.sampled_from([",", " , ", ";", " "]),
)
def test_statuses_are_separated_by_commas(drawn: list[tuple[int, str]], comma: str) -> None:
    """A list is accepted exactly if commas separate statuses from 300 to 599; it may be empty."""
    text = comma.join(f"{blank}{status}{blank}" for status, blank in drawn)
    read = section(k=text)
    found = value(read, STATUSES, default="")
    statuses = {status for status, _ in drawn}
    if statuses <= set(range(300, 600)) and (len(drawn) < 2 or "," in comma):
        assert statuses == found
        assert problems(read) == ()
    else:
        assert "expected statuses from 300 to 599" in refused(read)


@given(
    st.lists(domain_names, max_size=3),
    st.booleans(),
    st.sampled_from(["", "."]),
)
def test_host_names_are_lower_and_without_final_dots(names: list[str], upper: bool, dot: str) -> None:
    """Names separated by commas are read as a set, which may be empty."""
    text = ", ".join(f"{name.upper() if upper else name}{dot}" for name in names)
    read = section(k=text)
    assert {name.lower() for name in names} == value(read, HOST_NAMES, default="")
    assert problems(read) == ()


# --- variables ---


@given(
    st.lists(texts | variable_names.map("$".__add__) | variable_names.map("${{{}}}".format)).map("".join),
    st.dictionaries(variable_names, texts.filter(lambda text: "\0" not in text)),
)
@example("$$ ${} $ ${a b} $1 $é $A$A ${A}A", {"A": "$A"})
def test_variables_are_those_of_expandvars(text: str, environ: dict[str, str]) -> None:
    """If every variable is set, the text is what `os.path.expandvars` makes of it; else they are named."""
    expanded, unset = expand_variables(text, environ)
    assert not set(unset) & set(environ)
    assert all(name.isidentifier() and f"${name}" in text.replace("{", "") for name in unset)
    with mock.patch.dict(os.environ, environ, clear=True):
        assert expanded == os.path.expandvars(text).strip()
