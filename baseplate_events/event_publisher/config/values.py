"""Turns texts of an INI file into values, and has the types of those values.

Each `parse_…` takes a text without surrounding blanks. It returns the value or raises a `MistakeError`, whose
message continues a sentence that begins with the text: `'x' isn't a whole number`. No message repeats it.
"""

from __future__ import annotations

import base64
import os
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Bytes of the longest path of a Unix socket on Linux: `sun_path` of unix(7) less its final NUL.
MAX_SOCKET_PATH: Final = 107
_HIGHEST_PORT: Final = 65_535
#: Permission bits: the owner may read and write; anyone may execute.
_OWNER: Final = 0o600
_EXECUTE: Final = 0o111

_ChoiceT = TypeVar("_ChoiceT", bound=str)
_NumberT = TypeVar("_NumberT", int, float)

_STATUSES = r"(?:[345][0-9]{2}(?:\s*,\s*[345][0-9]{2})*)?"
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_MODE = re.compile(r"(?:0o?)?[0-7]{3}")
_SPAN = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s+(millisecond|second|minute|hour|day)s?")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_COMMA = re.compile(r"\.?\s*,\s*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
# Underscores aren't standard, but names of hosts in container networks have them.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# At most 253 characters, and 63 of each label (RFC 1035, 2.3.4).
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_BRACKETED = re.compile(r"\[([^\]]*)\](?::(.*))?")

#: Units of a span, and their seconds as factor and divisor; the divisor keeps whole milliseconds exact.
_UNITS: Final = {
    "millisecond": (1, 1_000),
    "second": (1, 1),
    "minute": (60, 1),
    "hour": (3_600, 1),
    "day": (86_400, 1),
}


class MistakeError(Exception):
    """What is wrong with a text; the message continues a sentence that begins with the text."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Bytes that nothing shows by accident: `repr` and `str` have neither them nor their length."""

    _value: bytes = field(repr=False)

    def reveal(self) -> bytes:
        """Return the bytes, to sign with and for nothing else."""
        return self._value


@dataclass(frozen=True, slots=True)
class InternetEndpoint:
    """A port of a host.

    Attributes:
        host: Host name or IP address, without brackets.
        port: From 1 to 65,535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A socket of the file system.

    Attributes:
        path: Its path; the file need not exist yet.
    """

    path: str

    def __str__(self) -> str:
        return self.path


Endpoint: TypeAlias = InternetEndpoint | UnixEndpoint


def parse_text(text: str, pattern: str) -> str:
    """Read a text that matches a pattern as a whole."""
    if re.fullmatch(pattern, text) is None:
        raise MistakeError("has the wrong form")
    return text


def parse_integer(text: str, minimum: int, maximum: int) -> int:
    """Read a whole number within bounds, both included."""
    if _INTEGER.fullmatch(text) is None:
        raise MistakeError("isn't a whole number")
    return _within(int(text), minimum, maximum)


def parse_span(text: str, minimum: float, maximum: float) -> float:
    """Read a span of time such as `500 milliseconds`, within bounds, both included; all in seconds."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise MistakeError("isn't a span of time")
    factor, divisor = _UNITS[match[2]]
    return _within(float(match[1]) * factor / divisor, minimum, maximum)


def format_span(seconds: float) -> str:
    """Write a span of time in the largest unit in which it is a whole number; `parse_span` reads it."""
    for unit in ("day", "hour", "minute", "second", "millisecond"):
        factor, divisor = _UNITS[unit]
        count = seconds * divisor / factor
        if count.is_integer() and (count > 0 or unit == "second"):
            break
    else:
        return f"{seconds:f} seconds"
    return f"{count:.0f} {unit}{'' if count == 1 else 's'}"


def parse_mode(text: str) -> int:
    """Read the permissions of a file that its owner can read and write and no one can execute: 0600, 0660."""
    if _MODE.fullmatch(text) is None:
        raise MistakeError("isn't an octal mode")
    mode = int(text, 8)
    if mode & _OWNER != _OWNER:
        raise MistakeError("doesn't let the owner read and write")
    if mode & _EXECUTE:
        raise MistakeError("allows execution, which has no use here")
    return mode


def parse_choice(text: str, choices: Sequence[_ChoiceT]) -> _ChoiceT:
    """Read one of a few words, written exactly so."""
    if text not in choices:
        raise MistakeError("isn't one of the choices")
    return choices[choices.index(text)]


def parse_boolean(text: str) -> bool:
    """Read `true` or `false`, in whatever case."""
    if text.lower() not in {"true", "false"}:
        raise MistakeError("is neither")
    return text.lower() == "true"


def parse_base64(text: str) -> Secret:
    """Read a secret in base64: the standard alphabet, padded, on one line."""
    if _BASE64.fullmatch(text) is None:
        raise MistakeError(
            "isn't base64: A-Z, a-z, 0-9, + and / on one line, padded with = to a multiple of 4 characters"
        )
    return Secret(base64.b64decode(text))


def parse_host(text: str, scheme_option: str = "") -> str:
    """Read a host with an optional port, such as `NAME:PORT` or `[IPv6]:PORT`, as it is written.

    Args:
        text: The text.
        scheme_option: The option for the scheme, for the advice to someone who wrote it here; or empty.
    """
    _split_host(text, scheme_option=scheme_option)
    return text


def parse_names(text: str) -> frozenset[str]:
    """Read host names separated by commas, as lower case without final dots. An empty text has none."""
    names = _COMMA.split(text.lower().removesuffix(".")) if text else []
    for name in names:
        _check_host_name(name)
    return frozenset(names)


def parse_statuses(text: str) -> frozenset[int]:
    """Read HTTP statuses from 300 to 599, separated by commas. An empty text has none."""
    return frozenset(map(int, re.findall(r"[0-9]+", parse_text(text, _STATUSES))))


def parse_ca_file(text: str) -> str:
    """Read the path of a PEM file, and check that its certificates can be loaded."""
    import ssl  # noqa: PLC0415 - `status` reads a configuration too, and shouldn't take long

    _check_path(text)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
    except ssl.SSLError as exc:
        raise MistakeError("has no certificates in PEM form") from exc
    except OSError as exc:
        raise MistakeError(f"can't be read ({exc.strerror})") from exc
    return text


def parse_proxy(text: str) -> str:
    """Read the URL of an HTTP proxy, `http://HOST:PORT`; returns it without a final slash."""
    scheme = "http://"
    if not text.lower().startswith(scheme):
        raise MistakeError(f"doesn't begin with {scheme}")
    authority = text[len(scheme) :].removesuffix("/")
    if _split_host(authority)[1] is None:
        raise MistakeError("has no port")
    return scheme + authority


def parse_endpoint(text: str) -> Endpoint:
    """Read where datagrams go: `HOST:PORT`, or a path with a slash in it."""
    if "/" not in text or "://" in text:
        host, port = _split_host(text)
        if port is None:
            raise MistakeError("has no port")
        return InternetEndpoint(host, port)
    _check_path(text)
    if len(os.fsencode(text)) > MAX_SOCKET_PATH:
        raise MistakeError(f"is longer than the {MAX_SOCKET_PATH} bytes of a socket's path")
    return UnixEndpoint(text)


def parse_bind(text: str) -> Endpoint:
    """Read where to listen: an address of this host and a port, or the path of a Unix socket.

    Names are refused, because their addresses can change between two starts, except `localhost`: 127.0.0.1,
    whatever the hosts file says. `0.0.0.0` and `[::]` are all addresses of the host.
    """
    endpoint = parse_endpoint(text)
    if isinstance(endpoint, UnixEndpoint):
        return endpoint
    host = "127.0.0.1" if endpoint.host.lower() == "localhost" else endpoint.host
    if not (is_address(socket.AF_INET, host) or is_address(socket.AF_INET6, host)):
        raise MistakeError("has a name instead of an address")
    return InternetEndpoint(host, endpoint.port)


def expand_variables(text: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replace `$NAME` and `${NAME}` by the values of environment variables.

    Any other `$` stays as it is, and values aren't expanded again, as with `os.path.expandvars`.

    Returns:
        The text without surrounding blanks, and the names of variables that aren't set.
    """
    unset: list[str] = []

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name in environ:
            return environ[name]
        if _IDENTIFIER.fullmatch(name):
            unset.append(name)
        return match[0]

    return _VARIABLE.sub(value, text).strip(), unset


def is_variable(text: str) -> bool:
    """Return whether a text is one `$NAME` or `${NAME}` and nothing else."""
    return _VARIABLE.fullmatch(text) is not None


def _within(number: _NumberT, minimum: float, maximum: float) -> _NumberT:
    if not minimum <= number <= maximum:
        raise MistakeError("is out of range")
    return number


def _check_path(text: str) -> None:
    if not text.isprintable():
        raise MistakeError("has a control character")


def _split_host(text: str, *, scheme_option: str = "") -> tuple[str, int | None]:
    """Split `HOST[:PORT]` and check both.

    Raises:
        MistakeError: One of them is impossible.
    """
    if "://" in text:
        advice = f", which belongs in {scheme_option}" if scheme_option else ""
        raise MistakeError(f"has a scheme{advice}")
    if "@" in text:
        raise MistakeError("has a user name or password")
    port: str | None
    if text.startswith("["):
        match = _BRACKETED.fullmatch(text)
        if match is None or not is_address(socket.AF_INET6, match[1]):
            raise MistakeError("has no IPv6 address in its brackets")
        host, port = match[1], match[2]
    elif text.count(":") > 1:
        raise MistakeError("has more than one colon: put an IPv6 address in brackets")
    else:
        host, colon, rest = text.partition(":")
        port = rest if colon else None
        _check_host_name(host)
    if port is None:
        return host, None
    if _PORT.fullmatch(port) is None or int(port) > _HIGHEST_PORT:
        raise MistakeError(f"has a port that isn't a number from 1 to {_HIGHEST_PORT}")
    return host, int(port)


def _check_host_name(host: str) -> None:
    # An absolute name ends with a dot (RFC 1034, 3.1); an address does not.
    name = host.removesuffix(".")
    if name.rpartition(".")[2].isdigit() and not is_address(socket.AF_INET, host):
        raise MistakeError("ends like an IPv4 address but isn't one")
    if _HOST_NAME.fullmatch(name) is None:
        raise MistakeError(
            "isn't a host name: ASCII letters, digits and hyphens between single dots (punycode: xn--…)"
        )


def is_address(family: int, text: str) -> bool:
    """Return whether a text is a numeric address, `socket.AF_INET` or `AF_INET6`."""
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True
