from __future__ import annotations

import base64
import copy
import math
import os
import pickle
import re
import socket
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.config.ini import Section, parse_section, read_section
from baseplate_events.event_publisher.config.values import (
    MAX_SOCKET_PATH,
    InternetEndpoint,
    MistakeError,
    Secret,
    UnixEndpoint,
    expand_variables,
    format_span,
    parse_span,
)
from tests.support.strategies import (
    host_names,
    hostile_texts,
    plain_texts,
    ports,
    spans,
    texts,
    variable_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FOREVER = 1e12


def section(
    environ: Mapping[str, str] | None = None, defaults: Mapping[str, str] | None = None, /, **values: str
) -> Section:
    """Make a section named s from keys and values."""
    return Section("s", values, environ or {}, defaults=defaults)


def problems(read: Section) -> tuple[str, ...]:
    """Finish a section and give its mistakes."""
    try:
        read.finish()
    except ConfigurationError as error:
        return alone(error).problems
    return ()


def alone(error: ConfigurationError) -> ConfigurationError:
    """Assert that an error brings no other one along, which could hold what must not be shown."""
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


def refused(read: Section) -> str:
    """Finish a section that has one mistake, about the key k, and give what is said of it."""
    (problem,) = problems(read)
    assert problem.startswith("[s] k: ")
    assert problem.isprintable()
    return problem.removeprefix("[s] k: ")


# --- secrets ---


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_a_secret_shows_nothing_and_compares_by_value(one: bytes, other: bytes) -> None:
    """Every secret looks the same; it is equal to a secret of the same bytes and to nothing else."""
    assert repr(Secret(one)) == str(Secret(other)) == f"{Secret(one)}"
    assert one == Secret(one).reveal()
    assert (one == other) == (Secret(one) == Secret(other))
    assert hash(Secret(one)) == hash(Secret(bytes(bytearray(one))))
    assert Secret(one) != one
    for copied in (copy.deepcopy(Secret(one)), pickle.loads(pickle.dumps(Secret(one)))):
        assert Secret(one) == copied


@given(st.binary(min_size=1, max_size=80), st.sampled_from(["", " ", "\n", "\t \n"]))
def test_base64_reads_back(secret: bytes, blank: str) -> None:
    """What base64 writes is read as the same bytes, with blanks around it or without."""
    read = section(k=blank + base64.b64encode(secret).decode() + blank)
    assert read.base64("k").reveal() == secret
    assert problems(read) == ()


@given(st.binary(min_size=12, max_size=80), st.data())
def test_damaged_base64_is_a_mistake_that_shows_nothing(secret: bytes, data: st.DataObject) -> None:
    """A missing or foreign character, also a blank or newline, is found, and no part of the text is shown."""
    text = base64.b64encode(secret).decode()
    at = data.draw(st.integers(1, len(text) - 1))
    foreign = data.draw(st.sampled_from([*" \n\t!-_,.é=\0", ""]))
    damaged = text[:at] + foreign + text[at + (foreign == "") :]
    read = section(k=damaged)
    assert read.base64("k") == Secret(b"")
    problem = refused(read)
    assert not any(text[i : i + 6] in problem for i in range(len(text) - 5))


@given(st.text("ABab01+/= \n", max_size=12) | hostile_texts)
def test_base64_is_what_its_alphabet_and_length_say(text: str) -> None:
    """A text is accepted exactly where encoding the bytes that were read gives it back, spare bits aside."""
    read = section(k=text)
    secret = read.base64("k").reveal()
    if problems(read):
        assert secret == b""
    else:
        again = base64.b64encode(secret).decode()
        stripped = text.strip()
        assert len(again) == len(stripped)
        assert again.rstrip("=")[:-1] == stripped.rstrip("=")[:-1]
        assert again.count("=") == stripped.count("=")


# --- numbers, words, spans ---


@given(st.integers(), st.integers(-1_000, 1_000), st.integers(0, 1_000))
@example(5, 5, 0)
def test_an_integer_is_read_within_its_bounds(number: int, minimum: int, width: int) -> None:
    """A whole number is accepted exactly within its bounds, which a message tells otherwise."""
    read = section(k=f" {number} ")
    value = read.integer("k", minimum=minimum, maximum=minimum + width)
    if minimum <= number <= minimum + width:
        assert number == value
        assert problems(read) == ()
    else:
        assert f"from {minimum} to {minimum + width}" in refused(read)


@given(hostile_texts | st.sampled_from(["1_000", "٣", "1.0", "0x10", "1e3", "9" * 5_000, "- 1"]))
def test_what_is_no_whole_number_is_a_mistake(text: str) -> None:
    """Nothing but ASCII digits with a sign is a whole number."""
    assume(re.fullmatch(r"\s*([+-]?[0-9]+)?\s*", text, re.ASCII) is None or len(text) > 4_000)
    read = section(k=text)
    read.integer("k", minimum=-9, maximum=9)
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
    read.span("k", minimum=0.001, maximum=60)
    assert "500 milliseconds, from 1 millisecond to 1 minute" in refused(read)


@given(st.integers(0, 0o7777), st.sampled_from(["", "0", "0o"]))
def test_a_mode_lets_its_owner_in_and_nobody_execute(mode: int, prefix: str) -> None:
    """A mode of three octal digits is accepted where it has the owner's bits and no bit to execute."""
    read = section(k=f"{prefix}{mode:03o}")
    value = read.mode("k")
    if mode <= 0o777 and mode & 0o600 == 0o600 and not mode & 0o111:
        assert mode == value
        assert problems(read) == ()
    else:
        assert refused(read)


@given(st.sampled_from(["true", "false"]), st.data())
def test_a_boolean_is_read_in_any_case(word: str, data: st.DataObject) -> None:
    """`true` and `false` are read whatever their case."""
    cased = "".join(data.draw(st.sampled_from([letter, letter.upper()])) for letter in word)
    assert section(k=cased).boolean("k") is (word == "true")


@given(hostile_texts)
def test_a_word_that_is_no_choice_is_a_mistake(text: str) -> None:
    """Only the exact words are choices, and the message names them."""
    assume(text.strip() not in {"", "2", "2j"} and "$" not in text)
    read = section(k=text, b=text)
    assert read.choice("k", ["2", "2j"]) == "2"
    assert "expected 2 or 2j" in refused(read)
    assert section(k=" 2j ").choice("k", ["2", "2j"]) == "2j"
    read = section(k=text)
    read.boolean("k")
    assert text.strip().lower() in {"true", "false"} or problems(read)


# --- hosts and endpoints ---


@given(host_names | st.ip_addresses(v=6).map(lambda address: f"[{address}]"), st.none() | ports)
def test_a_host_is_kept_as_it_is_written(host: str, port: int | None) -> None:
    """Names, IPv4 and bracketed IPv6 addresses are accepted with a port and without."""
    text = host if port is None else f"{host}:{port}"
    read = section(k=text, e=text, p=f"http://{text}")
    assert text == read.host("k")
    assert problems(read) == ()
    if port is None:
        read.proxy("p")
        read.endpoint("e")
        assert len(problems(read)) == 2
    else:
        assert f"http://{text}" == read.proxy("p")
        assert InternetEndpoint(host.strip("[]"), port) == read.endpoint("e")
        assert str(read.endpoint("e")) == text
        assert problems(read) == ()


@given(host_names.filter(lambda name: not name[-1].isdigit()), ports)
def test_an_absolute_name_is_a_host(name: str, port: int) -> None:
    """A name with a final dot, which the resolver doesn't add its search domains to, is kept as it is."""
    text = f"{name}.:{port}"
    read = section(k=text, short=f"{name}.", e=text, p=f"http://{text}")
    assert (text, f"{name}.") == (read.host("k"), read.host("short"))
    assert f"http://{text}" == read.proxy("p")
    assert InternetEndpoint(f"{name}.", port) == read.endpoint("e")
    assert problems(read) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://events.test", "goes into scheme.key"),
        ("events.test/v2", "path"),
        ("events.test?a", "path"),
        ("events.test\\v2", "path"),
        ("user:hunter2@events.test", "user name"),
        ("events test", "blank"),
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
    assert read.host("k", scheme_key="scheme.key") == ""
    problem = refused(read)
    assert reason in problem
    assert "hunter2" not in problem


@given(hostile_texts | st.text("ab.:[]1-", max_size=12))
def test_a_host_that_is_accepted_can_stand_in_a_url(text: str) -> None:
    """Whatever is accepted as host consists of nothing but safe characters."""
    read = section(k=text)
    host = read.host("k")
    if not problems(read):
        assert re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", host)


@given(plain_texts, plain_texts | texts)
def test_an_endpoint_with_a_slash_is_a_path(head: str, tail: str) -> None:
    """A text with a slash and no scheme is the path of a socket where it can be one."""
    path = f"{head}/{tail}".strip()
    assume("://" not in path and "$" not in path)
    read = section(k=path)
    endpoint = read.endpoint("k")
    if path.isprintable() and len(path.encode()) <= MAX_SOCKET_PATH:
        assert endpoint == UnixEndpoint(path)
        assert str(endpoint) == path
    else:
        assert endpoint is None
        assert refused(read)


@pytest.mark.parametrize("text", ["statsd.test", "udp://statsd.test:1", "a:b", "/" + "x" * 107, "http://h:1"])
def test_an_impossible_endpoint_is_a_mistake(text: str) -> None:
    """An endpoint needs a port or a path that a socket can have, and takes no scheme."""
    read = section(k=text)
    assert read.endpoint("k") is None
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
    assert section(k="http://p.test:1/").proxy("k") == "http://p.test:1"
    read = section(k=text)
    read.proxy("k")
    assert "hunter2" not in refused(read)


# --- defaults, absence, variables ---

_READERS: dict[str, tuple[str, Callable[[Section], object]]] = {
    "text": ("a", lambda read: read.text("k", pattern="[a-z]*", expected="letters")),
    "integer": ("3", lambda read: read.integer("k", minimum=1, maximum=9)),
    "span": ("3 seconds", lambda read: read.span("k", minimum=1, maximum=9)),
    "mode": ("0660", lambda read: read.mode("k")),
    "choice": ("2j", lambda read: read.choice("k", ["2", "2j"])),
    "boolean": ("true", lambda read: read.boolean("k")),
    "base64": ("YWJj", lambda read: read.base64("k")),
    "host": ("h:1", lambda read: read.host("k")),
    "proxy": ("http://h:1", lambda read: read.proxy("k")),
    "endpoint": ("h:1", lambda read: read.endpoint("k")),
}


@pytest.mark.parametrize("kind", _READERS)
def test_absence_is_a_mistake_or_the_default(kind: str) -> None:
    """An absent, empty or mistaken value takes the default; one without a default has to be there."""
    good, reader = _READERS[kind]
    value = reader(section(k=good))
    bad = "!?"
    for environ, values in (({}, {}), ({}, {"k": " "}), ({"E": ""}, {"k": "$E"})):
        read = section(environ, {"k": good}, **values)
        assert value == reader(read)
        assert problems(read) == ()
        read = section(environ, **values)
        assert value != reader(read)
        assert re.match("(missing|empty); expected ", refused(read))
        read = section(environ, {"k": ""}, **values)
        assert value != reader(read)
        assert problems(read) == ()
    for values in ({"k": bad}, {"k": "$UNSET"}):
        read = section({}, {"k": good}, **values)
        assert value == reader(read)
        assert not read.sound("other", "k")
        assert read.sound("other")
        assert "expected" in refused(read)


@pytest.mark.parametrize("kind", _READERS)
def test_a_value_can_come_from_the_environment(kind: str) -> None:
    """Each reader takes its value from a variable, and no message shows what the variable holds."""
    good, reader = _READERS[kind]
    value = reader(section(k=good))
    for text in ("$V", "${V}"):
        assert value == reader(section({"V": f" {good}\n"}, k=text))
        read = section({"V": "!hunter2!"}, k=text)
        reader(read)
        assert "hunter2" not in refused(read)
    read = section(k="${HUNTER}")
    reader(read)
    assert "the environment variable HUNTER isn't set" in refused(read)


def test_a_secret_with_a_dollar_isnt_shown_as_a_variable() -> None:
    """What looks like a variable inside a secret may be the secret."""
    for text in ("abc$hunter2", "${abc}${hunter2}"):
        read = section(k=text)
        read.base64("k")
        assert "hunter2" not in refused(read)


@given(
    st.lists(texts | variable_names.map("$".__add__) | variable_names.map("${{{}}}".format)).map("".join),
    st.dictionaries(variable_names, texts.filter(lambda text: "\0" not in text)),
)
@example("$$ ${} $ ${a b} $1 $é $A$A ${A}A", {"A": "$A"})
def test_variables_are_those_of_expandvars(text: str, environ: dict[str, str]) -> None:
    """Where every variable is set, the text is what `os.path.expandvars` makes of it; else they are named."""
    expanded, unset = expand_variables(text, environ)
    assert not set(unset) & set(environ)
    assert all(name.isidentifier() and f"${name}" in text.replace("{", "") for name in unset)
    with mock.patch.dict(os.environ, environ, clear=True):
        assert expanded == os.path.expandvars(text).strip()


# --- keys that aren't ours ---


def test_a_key_that_is_nearly_ours_is_a_mistake() -> None:
    """A misspelt key and an unknown one of our groups are mistakes; other keys and inherited ones aren't."""
    values = {"a.hostnane": "hunter2", "a.zzz": "hunter2", "unrelated": "x", "a.inherited": "x", "b": "x"}
    read = Section(
        "s", values, {}, defaults={"a.hostname": "", "b": ""}, source="f", inherited={"a.inherited"}
    )
    read.host("a.hostname")
    read.host("b")
    assert read.known == ("a.hostname", "b")
    assert problems(read) == (
        "f: [s] a.hostnane: there is no such key; the nearest one is a.hostname",
        "f: [s] a.zzz: there is no such key; the nearest one is a.hostname",
    )


# --- files ---


@given(st.dictionaries(st.from_regex(r"[a-z][a-z._]{0,8}", fullmatch=True), texts), st.booleans())
def test_a_file_gives_its_values(values: dict[str, str], shared: bool) -> None:
    """Values of the section and of `[DEFAULT]` are read as they are, `%` and `$` included."""
    values = {key: " ".join(value.split()) for key, value in values.items() if "$" not in value}
    lines = "".join(f"{key} = {value}\n" for key, value in values.items())
    text = f"[DEFAULT]\n{lines}[s]\n" if shared else f"[s]\n{lines}"
    read = parse_section(text, "s", {}, defaults=dict.fromkeys(values, ""))
    for key, value in values.items():
        assert value == read.text(key, pattern="(?s:.*)", expected="anything")
    assert problems(read) == ()


@given(st.text(st.sampled_from("[]=:# \n\t\rsk.%$\0é\\"), max_size=40) | hostile_texts)
@example("[s]\n[s]")
@example("[s]\nk.a=1\nk.a=2")
@example("k=1")
@example("[s]\n k\n  v\n=x\nk\n\t")
def test_any_text_is_a_section_or_a_clear_error(text: str) -> None:
    """Whatever a file holds, it has the section or there is an error of one line for each mistake."""
    try:
        parse_section(text, "s", {}, source="file.ini").finish()
    except ConfigurationError as error:
        found = alone(error).problems
    else:
        assert "[s" in text
        return
    assert found
    assert all(re.match(r"file\.ini: (line \d+: |there is no section)", line) for line in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[s]\nhunter2\n\nhunter2 x\n", ("line 2: expected KEY = VALUE", "line 4: expected KEY = VALUE")),
        ("hunter2 = x\n[s]", ("line 1: expected a section's header",)),
        ("[s]\nk=1\n[s]", ("line 3: the section [s] is there twice",)),
        ("[s]\nkey.name=hunter2\nkey.name=hunter2", ("line 3: [s] key.name: set for the second time",)),
        ("[s]\nhunter2=\nhunter2=", ("line 3: [s] a key: set for the second time",)),
        ("[t]\n[event]", ("there is no section [s]; there is [t], [event]",)),
        ("", ("there is no section [s], nor any other",)),
    ],
)
def test_a_broken_file_is_told_by_its_lines(text: str, expected: tuple[str, ...]) -> None:
    """Each broken line is named by its number and none is shown, as it may hold a secret."""
    with pytest.raises(ConfigurationError) as caught:
        parse_section(text, "s", {})
    assert len(expected) == len(caught.value.problems)
    for start, problem in zip(expected, caught.value.problems, strict=True):
        assert problem.startswith(start)
        assert "hunter2" not in problem
    alone(caught.value)


def test_the_nearest_section_is_named() -> None:
    """A section that isn't there is told with the nearest one."""
    with pytest.raises(ConfigurationError, match=r"the nearest is \[event-publisher:v2\]"):
        parse_section("[app:main]\n[event-publisher:v2]", "event-publisher:v2j", {})


def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    """A missing file, a directory, an impossible name and another encoding are told with the file's name."""
    latin = tmp_path / "latin.ini"
    latin.write_bytes(b"[s]\nk = hunter2 \xe9\n")
    for path, reason in (
        (tmp_path / "missing.ini", "No such file"),
        (tmp_path, "directory"),
        (Path("nul\0"), "null"),
        (latin, "byte 16 isn't UTF-8"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            read_section(path, "s", {})
        (problem,) = caught.value.problems
        assert problem.startswith(f"{path}: ")
        assert reason in problem
        assert "hunter2" not in problem
        alone(caught.value)


@given(plain_texts)
def test_a_file_is_read_as_utf8_with_or_without_a_mark(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """A byte order mark changes nothing, and problems name the file."""
    path = tmp_path_factory.getbasetemp() / "utf8.ini"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(f"[s]\nk = {text}\n", encoding=encoding)
        read = read_section(path, "s", {}, defaults={"k": ""})
        assert text.strip() == read.text("k", pattern=".*", expected="anything")
        read.mistake("k", "broken")
        assert problems(read) == (f"{path}: [s] k: broken",)


def test_a_mistake_of_a_default_is_not_the_operators() -> None:
    """A default that can't be read is a fault of the program, and comes out as such."""
    with pytest.raises(MistakeError):
        section(None, {"k": "many"}).integer("k", minimum=0, maximum=9)
