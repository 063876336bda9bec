"""What is read and what is a mistake, at each bound, by example."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.config.values import (
    MAX_SOCKET_PATH,
    InternetEndpoint,
    MistakeError,
    Secret,
    UnixEndpoint,
    expand_variables,
    format_span,
    is_variable,
    parse_base64,
    parse_bind,
    parse_boolean,
    parse_ca_file,
    parse_choice,
    parse_endpoint,
    parse_host,
    parse_integer,
    parse_mode,
    parse_names,
    parse_proxy,
    parse_span,
    parse_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0

_number = partial(parse_integer, minimum=-5, maximum=7)
_span = partial(parse_span, minimum=0.001, maximum=20 * DAY)
_choice = partial(parse_choice, choices=("2", "2j"))
_digits = partial(parse_text, pattern="[0-9]+")

LABEL = "a" * 63
NAME = ".".join([LABEL] * 3)
#: The longest host name: 253 characters.
LONGEST = f"{NAME}.{'b' * 61}"

READ: list[tuple[Callable[[str], object], str, object]] = [
    *((_number, text, int(text)) for text in ("-5", "+0", "7", "007")),
    (_digits, "12", "12"),
    (_span, "1 millisecond", 0.001),
    (_span, "3 milliseconds", 0.003),
    (_span, "1.5 seconds", 1.5),
    (_span, "2  minutes", 2 * MINUTE),
    (_span, "2 hours", 2 * HOUR),
    (_span, "20 days", 20 * DAY),
    *((parse_mode, text, 0o600) for text in ("600", "0600", "0o600")),
    (parse_mode, "0666", 0o666),
    *((_choice, text, text) for text in ("2", "2j")),
    *((parse_boolean, text, True) for text in ("true", "TRUE")),
    *((parse_boolean, text, False) for text in ("false", "False")),
    (parse_base64, "YQ==", Secret(b"a")),
    (parse_base64, "YWI=", Secret(b"ab")),
    (parse_base64, "YWJj", Secret(b"abc")),
    (parse_base64, "", Secret(b"")),
    *(
        (parse_host, text, text)
        for text in (
            *(
                "a",
                "a.",
                "a:1",
                "a:65535",
                "a.b-c.d_e:80",
                "1.2.3.4",
                "1.2.3.4:5",
                "[::1]",
                "[::1]:65535",
                "1a",
            ),
            *(LABEL, LONGEST, f"{LONGEST}.", f"{LONGEST}.:80", "1.2.3.a", "0.a"),
        )
    ),
    (parse_names, "A.test., b", frozenset({"a.test", "b"})),
    (parse_names, "a", frozenset({"a"})),
    (parse_proxy, "http://a:1", "http://a:1"),
    (parse_proxy, "HTTP://a:1/", "http://a:1"),
    (parse_endpoint, "a:1", InternetEndpoint("a", 1)),
    (parse_endpoint, "[::1]:2", InternetEndpoint("::1", 2)),
    (parse_endpoint, "/a", UnixEndpoint("/a")),
    (parse_endpoint, "a/b", UnixEndpoint("a/b")),
    (parse_endpoint, "/" + "x" * 106, UnixEndpoint("/" + "x" * 106)),
    (parse_bind, "localhost:1", InternetEndpoint("127.0.0.1", 1)),
    (parse_bind, "LocalHost:1", InternetEndpoint("127.0.0.1", 1)),
    (parse_bind, "0.0.0.0:1", InternetEndpoint("0.0.0.0", 1)),
    (parse_bind, "10.1.2.3:1", InternetEndpoint("10.1.2.3", 1)),
    (parse_bind, "[::]:1", InternetEndpoint("::", 1)),
    (parse_bind, "/a", UnixEndpoint("/a")),
]

MISTAKES: list[tuple[Callable[[str], object], str]] = [
    *((_number, text) for text in ("-6", "8", "", "a", "1.0", "1" * 19)),
    *((_digits, text) for text in ("", "1a", "a1")),
    *(
        (_span, text)
        for text in ("0 milliseconds", "0.9 milliseconds", "20.1 days", "1", "second", "1second")
    ),
    *(
        (parse_mode, text)
        for text in ("", "60", "6000", "400", "200", "066", "601", "610", "700", "680", "x")
    ),
    *((_choice, text) for text in ("", "2J", "22", "1")),
    *((parse_boolean, text) for text in ("", "yes", "1")),
    *((parse_base64, text) for text in ("Y", "YQ", "YQ=", "YQ===", "YW Jj", "YWJj\n", "YWJ_", "=", "====")),
    *(
        (parse_host, text)
        for text in (
            *(
                "",
                ".",
                "a..b",
                "a..",
                "-a",
                "a-",
                "a:",
                "a:0",
                "a:65536",
                "a:99999",
                "a:100000",
                "a:01",
                "a:b",
            ),
            *(
                "a:1:2",
                "::",
                "[a]",
                "[::1",
                "[::1]x",
                "[::1]:",
                "[::1]:0",
                "1.2.3",
                "1.2.3.4.",
                "1.2.3.256",
                "1",
            ),
            *("a b", "a\x7f", "é", "a@b", "a/b", "a?b", "a#b", "a\\b", "a://b"),
            *(f"{LABEL}a", f"{LONGEST}b", f"{LONGEST}b."),
        )
    ),
    *((parse_names, text) for text in (",", "a,", "a,,b", "a b", "a,é", "a:1", "a/b")),
    *(
        (parse_proxy, text)
        for text in ("", "a:1", "https://a:1", "http://a", "http://a/", "http://:1", "http:///")
    ),
    *((parse_endpoint, text) for text in ("", "a", "[::1]", "a://b:1", "/a\n", "/" + "x" * 107, "udp://a:1")),
    *((parse_bind, text) for text in ("a:1", "127.0.0.1")),
    *((parse_ca_file, text) for text in ("/", "/missing/ca.pem", __file__, "a\n")),
]


@pytest.mark.parametrize(("read", "text", "value"), READ)
def test_what_is_read(read: Callable[[str], object], text: str, value: object) -> None:
    """As this value, and of its type."""
    found = read(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("read", "text"), MISTAKES)
def test_what_is_a_mistake(read: Callable[[str], object], text: str) -> None:
    """It says what is wrong, and doesn't repeat the text."""
    with pytest.raises(MistakeError, match=r"\w") as caught:
        read(text)
    assert len(text) < 4 or text not in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 seconds"),
        (0.001, "1 millisecond"),
        (0.002, "2 milliseconds"),
        (1.0, "1 second"),
        (1.5, "1500 milliseconds"),
        (59.0, "59 seconds"),
        (60.0, "1 minute"),
        (90.0, "90 seconds"),
        (7_200.0, "2 hours"),
        (86_400.0, "1 day"),
        (90_000.0, "25 hours"),
        (0.0005, "0.000500 seconds"),
    ],
)
def test_how_a_span_is_written(seconds: float, text: str) -> None:
    """In the largest unit in which it is a whole number, or in seconds."""
    assert format_span(seconds) == text


@pytest.mark.parametrize(
    ("text", "expanded", "unset"),
    [
        ("$A", "1", []),
        ("${A}", "1", []),
        (" x$A ", "x1", []),
        ("$B", "$B", ["B"]),
        ("${B}$C", "${B}$C", ["B", "C"]),
        ("${b c}", "${b c}", []),
        ("$$A", "$1", []),
        ("$", "$", []),
        ("${a b}", "3", []),
    ],
)
def test_variables_by_example(text: str, expanded: str, unset: list[str]) -> None:
    """Those that aren't set stay as they are, and are named if they could be variables."""
    assert expand_variables(text, {"A": "1", "a b": "3"}) == (expanded, unset)


@pytest.mark.parametrize(
    ("text", "expected"), [("$A", True), ("${A}", True), ("A", False), ("$A$B", False), ("", False)]
)
def test_what_is_one_variable(text: str, expected: bool) -> None:
    """And nothing else."""
    assert is_variable(text) is expected


def test_endpoints_and_secrets_as_text() -> None:
    """An IPv6 address is in brackets, and a secret isn't shown."""
    assert str(InternetEndpoint("::1", 5)) == "[::1]:5"
    assert str(InternetEndpoint("a", 5)) == "a:5"
    assert str(UnixEndpoint("/a")) == "/a"
    assert MAX_SOCKET_PATH == 107
    secret = Secret(b"a")
    assert repr(secret) == str(secret) == "Secret()"
    assert len({secret, Secret(b"a"), Secret(b"b")}) == 2
