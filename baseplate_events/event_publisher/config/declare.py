"""How an option is declared, and the kinds of values that options have.

A group of options is a frozen dataclass, a `Group`, in which each field declares one option:

    timeout: float = option("collector.timeout", SPAN, "3 seconds", "Time limit for ...", reload=True)

Everything else follows from that line: parsing and error messages, the default, the type of
`settings.collector.timeout` (checked against the kind), the row of the README's table, the metric with the
value in force, and whether a reload applies a new value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from .values import (
    format_span,
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
    parse_statuses,
    parse_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .values import Endpoint, Secret

_T = TypeVar("_T")
_ChoiceT = TypeVar("_ChoiceT", bound=str)

#: Where a dataclass field keeps its option.
_OPTION: Final = "option"


@dataclass(frozen=True, slots=True)
class Kind(Generic[_T]):
    """The values that an option can have.

    Attributes:
        parse: Turns a text without surrounding blanks into a value, or raises a `MistakeError`.
        expected: What a valid text looks like; error messages end with it.
        show: Turns a value into a number or a text for metrics.
    """

    parse: Callable[[str], _T]
    expected: str
    show: Callable[[_T], float | str] = str


@dataclass(frozen=True, slots=True)
class Option(Generic[_T]):
    """The declaration of an INI key.

    Attributes:
        name: The key.
        kind: What its values are.
        default: The default as the file would have it; None if the option is required.
        meaning: What it is for: a sentence for the README's table.
        variable: The environment variable with the default, or empty. If unset, `default` holds.
        reload: Whether SIGHUP applies a new value; otherwise only a restart does.
        secret: Whether no message or page may show its value.
    """

    name: str
    kind: Kind[_T]
    default: str | None
    meaning: str
    variable: str = ""
    reload: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A group of options; the base of the dataclasses that declare them."""

    @classmethod
    def options(cls) -> dict[str, Option[Any]]:
        """Return the options of the group by the names of their fields."""
        return {each.name: each.metadata[_OPTION] for each in fields(cls) if _OPTION in each.metadata}


def option(
    name: str,
    kind: Kind[_T],
    default: str | None,
    meaning: str,
    *,
    variable: str = "",
    reload: bool = False,
    secret: bool = False,
) -> _T:
    """Declare an option as the field of a dataclass.

    The arguments are the attributes of `Option`. To a type checker the result is a value of the field;
    in fact the field has no default, since every value comes from a `Section`.
    """
    made = Option(name, kind, default, meaning, variable, reload, secret)
    declared: _T = field(metadata={_OPTION: made})
    return declared


def optional(name: str, kind: Kind[_T], meaning: str, *, reload: bool = False) -> _T | None:
    """Declare an option that is None if it isn't set."""
    show = cast("Callable[[_T | None], float | str]", kind.show)  # which is never given None
    or_none = Kind(partial(_parse_optional, kind.parse), kind.expected, show)
    return option(name, or_none, "", meaning, reload=reload)


def text(pattern: str, expected: str) -> Kind[str]:
    """Return the kind of texts that match a pattern as a whole."""
    return Kind(partial(parse_text, pattern=pattern), expected)


def integer(minimum: int, maximum: int) -> Kind[int]:
    """Return the kind of whole numbers within bounds, both included."""
    parse = partial(parse_integer, minimum=minimum, maximum=maximum)
    return Kind(parse, f"a whole number from {minimum} to {maximum}", int)


def span(minimum: float, maximum: float, example: str = "500 milliseconds") -> Kind[float]:
    """Return the kind of spans of time within bounds, both included and in seconds, as the values are."""
    parse = partial(parse_span, minimum=minimum, maximum=maximum)
    bounds = f"from {format_span(minimum)} to {format_span(maximum)}"
    return Kind(parse, f"a number and its unit such as {example}, {bounds}", float)


def choice(*words: _ChoiceT) -> Kind[_ChoiceT]:
    """Return the kind of a few words, written exactly so."""
    return Kind(partial(parse_choice, choices=words), " or ".join(words))


def host(scheme_option: str) -> Kind[str]:
    """Return the kind of hosts with an optional port, such as `NAME:PORT` or `[IPv6]:PORT`.

    Args:
        scheme_option: The option for the scheme, which is named to users who write a URL.
    """
    parse = partial(parse_host, scheme_option=scheme_option)
    return Kind(parse, "a host with an optional port, such as events.example.com")


def _parse_optional(parse: Callable[[str], _T], value: str) -> _T | None:
    return parse(value) if value else None


def _joined(values: frozenset[int] | frozenset[str]) -> str:
    return ", ".join(sorted(map(str, values)))


#: `true` or `false` in any case.
BOOLEAN: Final = Kind(parse_boolean, "true or false", int)
#: Permissions of a file that its owner can read and write and no one can execute.
MODE: Final = Kind(parse_mode, "an octal mode such as 0600 or 0660", "{:04o}".format)
#: A secret in base64: the standard alphabet, padded, at least one byte.
SECRET: Final[Kind[Secret]] = Kind(
    parse_base64, "the key's secret in base64, as `openssl rand -base64 32` prints it"
)
#: `http://HOST:PORT`; the value has no slash at the end.
PROXY: Final = Kind(parse_proxy, "an HTTP proxy such as http://proxy.example.com:3128")
#: Where datagrams go.
ENDPOINT: Final[Kind[Endpoint]] = Kind(parse_endpoint, "HOST:PORT or the path of a Unix datagram socket")
#: Where to listen.
BIND: Final[Kind[Endpoint]] = Kind(
    parse_bind, "an address of this host and a port, such as 127.0.0.1:9102, or the path of a Unix socket"
)
#: Host names separated by commas; values are in lower case and without final dots.
HOST_NAMES: Final = Kind(
    parse_names, "host names separated by commas, without ports, such as node1.example.com", _joined
)
#: HTTP statuses from 300 to 599, separated by commas.
STATUSES: Final = Kind(
    parse_statuses, "statuses from 300 to 599, separated by commas, such as 400, 404", _joined
)
#: The absolute path of a folder; empty if it isn't set.
FOLDER: Final = text(r"(?:/[^\x00-\x1f\x7f]*)?", "the absolute path of a folder")
#: The path of a PEM file with certificates that can be loaded.
CA_FILE: Final = Kind(parse_ca_file, "a PEM file with the certificates to trust")
