"""An INI section read into typed values, with every mistake found at once.

Rules:

1. A mistake is one line: file, section, key, what is wrong and what was expected. `Section.finish` raises
   all of them together; until then each reader gives a value of the right type, so that reading goes on.
2. No line shows a secret, the text of a file's line, or what an environment variable holds. Where a value
   helps it is shown as the file has it, unless it may hold a password.
3. `$NAME` and `${NAME}` in a value of ours stand for an environment variable, which must be set. Any other
   use of `$` stays as it is, and what a variable holds isn't looked through again.
4. A key that isn't ours belongs to somebody else and is ignored, unless it is nearly one of ours or begins
   like ours. What comes from `[DEFAULT]` is shared with other sections and never counts as misspelt.

How it works: `read_section` reads the file, a `Section` is asked for its keys one by one, and a default is
written as in the file and read by the same rules.
"""

from __future__ import annotations

import configparser
import difflib
import os
import re
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ...errors import ConfigurationError
from .values import (
    Endpoint,
    MistakeError,
    Secret,
    expand_variables,
    format_span,
    is_variable,
    parse_base64,
    parse_bind,
    parse_boolean,
    parse_choice,
    parse_endpoint,
    parse_host,
    parse_integer,
    parse_mode,
    parse_proxy,
    parse_span,
    parse_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

#: Characters of a value that a message shows.
_SHOWN_LENGTH: Final = 60
#: Likeness from which a key counts as misspelt; a single edit of the shortest key, `key.name`, gives 0.87.
_LIKENESS: Final = 0.8
#: Permission bits of the mode that stands in for one that can't be read.
_OWNER_ONLY: Final = 0o600

_T = TypeVar("_T")
_ChoiceT = TypeVar("_ChoiceT", bound=str)

# A key as ours are. The base64 alphabet has no dot or underscore, so a stray line of a secret isn't one.
_KEY = re.compile(r"[a-z]+(?:[._][a-z]+)+")


class Section:
    """Reads the values of one INI section; see the rules of this module.

    Each reader gives the value of a key, which is then known to be ours. A key that is absent or empty
    takes its default, and is a mistake where it has none. After a mistake a reader gives the default, or
    the emptiest value of its type.

    Args:
        name: Name of the section, without brackets.
        values: Its keys and values, keys in lower case.
        environ: The environment variables.
        defaults: The default of each key that has one, as it would be written in the file. An empty text is
            the default of a key that can be left out: it isn't read further and gives the emptiest value.
        source: Name of the file, or empty where there is none.
        inherited: Keys of `values` that come from elsewhere and so are never misspelt.
    """

    def __init__(
        self,
        name: str,
        values: Mapping[str, str],
        environ: Mapping[str, str],
        *,
        defaults: Mapping[str, str] | None = None,
        source: str = "",
        inherited: Collection[str] = (),
    ) -> None:
        self._name = name
        self._values = values
        self._environ = environ
        self._defaults: Mapping[str, str] = {} if defaults is None else defaults
        self._source = source
        self._inherited = inherited
        self._known: list[str] = []
        self._mistaken: set[str] = set()
        self._problems: list[str] = []

    @property
    def known(self) -> tuple[str, ...]:
        """The keys that were asked for, in that order."""
        return tuple(self._known)

    def mistake(self, key: str, problem: str) -> None:
        """Note what is wrong with a key, as a sentence that goes on after its name; shows no secret."""
        self._mistaken.add(key)
        where = f"{self._source}: " if self._source else ""
        self._problems.append(f"{where}[{self._name}] {key}: {problem}")

    def sound(self, *keys: str) -> bool:
        """Tell whether none of these keys has a mistake so far, so that their values can be compared."""
        return self._mistaken.isdisjoint(keys)

    def text(self, key: str, *, pattern: str, expected: str) -> str:
        """Read a text that matches `pattern` as a whole; it is never shown."""
        return self._read(key, partial(parse_text, pattern=pattern), "", expected, shown=False)

    def integer(self, key: str, *, minimum: int, maximum: int) -> int:
        """Read a whole number within bounds, both included."""
        parse = partial(parse_integer, minimum=minimum, maximum=maximum)
        return self._read(key, parse, minimum, f"a whole number from {minimum} to {maximum}")

    def span(self, key: str, *, minimum: float, maximum: float) -> float:
        """Read a span of time such as `500 milliseconds` within bounds, both included; all in seconds."""
        parse = partial(parse_span, minimum=minimum, maximum=maximum)
        bounds = f"from {format_span(minimum)} to {format_span(maximum)}"
        return self._read(key, parse, minimum, f"a number and its unit such as 500 milliseconds, {bounds}")

    def optional_span(self, key: str, *, minimum: float, maximum: float) -> float | None:
        """Read a span of time likewise, or None where it isn't set and has no default."""
        parse: Callable[[str], float | None] = partial(parse_span, minimum=minimum, maximum=maximum)
        bounds = f"from {format_span(minimum)} to {format_span(maximum)}"
        return self._read(key, parse, None, f"a number and its unit such as 7 days, {bounds}")

    def mode(self, key: str) -> int:
        """Read the permissions of a file that its owner can read and write and nobody execute."""
        return self._read(key, parse_mode, _OWNER_ONLY, "an octal mode such as 0600 or 0660")

    def choice(self, key: str, choices: Sequence[_ChoiceT]) -> _ChoiceT:
        """Read one of a few words, written exactly so."""
        parse: Callable[[str], _ChoiceT] = partial(parse_choice, choices=choices)
        return self._read(key, parse, choices[0], " or ".join(choices))

    def boolean(self, key: str) -> bool:
        """Read `true` or `false`, in whatever case."""
        return self._read(key, parse_boolean, False, "true or false")

    def base64(self, key: str) -> Secret:
        """Read a secret in base64: the standard alphabet, padded, on one line, at least one byte."""
        expected = "the key's secret in base64, such as `openssl rand -base64 32` makes"
        return self._read(key, parse_base64, Secret(b""), expected, shown=False)

    def host(self, key: str, *, scheme_key: str = "") -> str:
        """Read a host with an optional port, such as `NAME:PORT` or `[IPv6]:PORT`, as it is written.

        Args:
            key: The key.
            scheme_key: The key that holds the scheme, for the advice to somebody who wrote it here.
        """
        parse = partial(parse_host, scheme_key=scheme_key)
        return self._read(key, parse, "", "a host with an optional port, such as events.example.com")

    def proxy(self, key: str) -> str:
        """Read the URL of an HTTP proxy, `http://HOST:PORT`; gives it without a final slash."""
        return self._read(key, parse_proxy, "", "an HTTP proxy such as http://proxy.example.com:3128")

    def endpoint(self, key: str) -> Endpoint | None:
        """Read where datagrams go, `HOST:PORT` or a path with a slash in it; None where it isn't set."""
        return self._read(key, parse_endpoint, None, "HOST:PORT or the path of a Unix datagram socket")

    def bind(self, key: str) -> Endpoint | None:
        """Read where to listen for this host alone; None where it isn't set."""
        expected = "a port of this host alone, such as 127.0.0.1:9102, or the path of a Unix socket"
        return self._read(key, parse_bind, None, expected)

    def finish(self) -> None:
        """Look for misspelt keys, after all others were read.

        Raises:
            ConfigurationError: With every mistake of the section.
        """
        prefixes = tuple({key[: key.index(".") + 1] for key in self._known if "." in key})
        for key in self._values:
            if key in self._known or key in self._inherited:
                continue
            likeness = 0.0 if key.startswith(prefixes) else _LIKENESS
            nearest = difflib.get_close_matches(key, self._known, n=1, cutoff=likeness)
            if nearest:
                self.mistake(ascii(key)[1:-1], f"there is no such key; the nearest one is {nearest[0]}")
        if self._problems:
            raise ConfigurationError(*self._problems)

    def _read(
        self, key: str, parse: Callable[[str], _T], emptiest: _T, expected: str, *, shown: bool = True
    ) -> _T:
        self._known.append(key)
        default = self._defaults.get(key)
        raw = self._values.get(key, "").strip()
        text, unset = expand_variables(raw, self._environ)
        if unset:
            # In a secret that has a `$` in it the name is a part of the secret.
            names = " and ".join(unset) if shown or is_variable(raw) else "named in it"
            self.mistake(key, f"the environment variable {names} isn't set; expected {expected}")
        elif text:
            try:
                return parse(text)
            except MistakeError as exc:
                problem = str(exc)
            self.mistake(key, f"{_show(raw) if shown else 'the value'} {problem}; expected {expected}")
        elif default is None:
            absence = "empty" if key in self._values else "missing"
            self.mistake(key, f"{absence}; expected {expected}")
        return parse(default) if default else emptiest


def _show(raw: str) -> str:
    if "@" in raw:
        return "the value"  # which may be USER:PASSWORD@HOST
    text = ascii(raw)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


def read_section(
    path: str | os.PathLike[str],
    name: str,
    environ: Mapping[str, str],
    *,
    defaults: Mapping[str, str] | None = None,
) -> Section:
    """Read a section of an INI file in UTF-8; see `parse_section`.

    Raises:
        ConfigurationError: The file can't be read or parsed, or has no such section.
    """
    source = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123 - takes whatever names a file
            text = file.read()
    except UnicodeDecodeError as exc:
        problem = f"byte {exc.start} isn't UTF-8; expected an INI file in UTF-8"
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        problem = f"can't be read ({reason}); expected an INI file"
    else:
        return parse_section(text, name, environ, defaults=defaults, source=source)
    # Raised out here so that the error has no context: a decoding error holds the whole file.
    raise ConfigurationError(f"{source}: {problem}")


def parse_section(
    text: str,
    name: str,
    environ: Mapping[str, str],
    *,
    defaults: Mapping[str, str] | None = None,
    source: str = "",
) -> Section:
    """Find a section in the text of an INI file.

    Args:
        text: The file. `%` means nothing in it, and `[DEFAULT]` gives values to all sections.
        name: Name of the section, without brackets.
        environ: See `Section`.
        defaults: See `Section`.
        source: Name of the file, for messages.

    Raises:
        ConfigurationError: It can't be parsed, or has no such section.
    """
    parser = configparser.RawConfigParser()
    problems: list[str]
    try:
        parser.read_string(text)
    except (
        configparser.ParsingError,
        configparser.DuplicateSectionError,
        configparser.DuplicateOptionError,
    ) as exc:
        problems = _syntax_problems(exc)
    else:
        problems = [] if parser.has_section(name) else [_absence(name, parser.sections())]
    if problems:
        # Raised out here so that the error has no context: a parsing error holds lines of the file.
        where = f"{source}: " if source else ""
        raise ConfigurationError(*(f"{where}{problem}" for problem in problems))
    return Section(
        name,
        dict(parser.items(name)),
        environ,
        defaults=defaults,
        source=source,
        inherited=frozenset(parser.defaults()),
    )


def _syntax_problems(
    error: configparser.ParsingError | configparser.DuplicateSectionError | configparser.DuplicateOptionError,
) -> list[str]:
    """Tell what is wrong with a file by line numbers; the error's own text shows the lines."""
    if isinstance(error, configparser.DuplicateSectionError):
        return [f"line {error.lineno}: the section [{error.section}] is there twice"]
    if isinstance(error, configparser.DuplicateOptionError):
        key = error.option if _KEY.fullmatch(error.option) else "a key"
        return [f"line {error.lineno}: [{error.section}] {key}: set for the second time"]
    if isinstance(error, configparser.MissingSectionHeaderError):
        return [f"line {error.lineno}: expected a section's header such as [event-publisher:main] before it"]
    return [f"line {line}: expected KEY = VALUE, or a section's header" for line, _ in error.errors]


def _absence(name: str, sections: Sequence[str]) -> str:
    if not sections:
        return f"there is no section [{name}], nor any other"
    there = ", ".join(f"[{section}]" for section in sections)
    nearest = difflib.get_close_matches(name, sections, n=1)
    advice = f"; the nearest is [{nearest[0]}]" if nearest else ""
    return f"there is no section [{name}]; there is {there}{advice}"
