"""An INI section read into typed values, with every mistake found at once.

Rules:

1. A mistake is one line: file, section, key, what is wrong and what was expected. `Section.finish` raises
   all of them together; until then each reader gives a value of the right type, so that reading goes on.
2. No line shows a secret, the text of a file's line, or what an environment variable holds. Where a value
   helps it is shown as the file has it, unless it may hold a password. A line that is indented continues the
   value before it, whatever is in it, so a value that holds a line break isn't shown, and neither is one that
   looks like two lines in one. The number of the line is named instead.
3. `$NAME` and `${NAME}` in a value of ours stand for an environment variable, which must be set. Any other
   use of `$` stays as it is, and what a variable holds isn't looked through again.
4. A key that isn't ours belongs to somebody else and is ignored, unless it is nearly one of ours or begins
   like ours. What comes from `[DEFAULT]` is shared with other sections and never counts as misspelt. A
   misspelt key is shown only if no secret can be in it.
5. A comment has a line of its own. After a value it would be a part of the value, so that is a mistake. What
   an environment variable holds may look like one.

How it works: `read_section` reads the file, a `Section` is asked for its keys one by one, and a default is
written as in the file and read by the same rules.
"""

from __future__ import annotations

import configparser
import os
import re
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ...errors import ConfigurationError
from ..foreign_text import printable
from .ini_lines import find_keys
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
    parse_names,
    parse_proxy,
    parse_span,
    parse_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .ini_lines import Place

#: Characters of a value that a message shows.
_SHOWN_LENGTH: Final = 60
#: Likeness from which a key counts as misspelt; a single edit of the shortest key, `key.name`, gives 0.87.
_LIKENESS: Final = 0.8
#: Likeness from which a section is suggested: difflib's default.
_SECTION_LIKENESS: Final = 0.6
#: Characters that a misspelt key has more than ours, at most, if ours is that of a secret.
_SLIP: Final = 2
#: Characters of a name of a section that a message shows.
_NAME_LENGTH: Final = 100
#: Permission bits of the mode that stands in for one that can't be read.
_OWNER_ONLY: Final = 0o600

_T = TypeVar("_T")
_ChoiceT = TypeVar("_ChoiceT", bound=str)

# A key as ours are. The base64 alphabet has no dot or underscore, so a stray line of a secret isn't one.
_KEY = re.compile(r"[a-z]+(?:[._][a-z]+)+")
# A misspelt one, whose line may have lost its `=`.
_NEARLY_KEY = re.compile(r"[a-z._]{1,60}")
# A comment after a value, or in place of one.
_COMMENT = re.compile(r"(?:^|\s)[;#]")


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
        places: Where the keys of `values` are in the file.
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
        places: Mapping[str, Place] | None = None,
    ) -> None:
        self._name = name
        self._values = values
        self._environ = environ
        self._defaults: Mapping[str, str] = {} if defaults is None else defaults
        self._source = source
        self._inherited = inherited
        self._places: Mapping[str, Place] = {} if places is None else places
        self._secrets: set[str] = set()
        self._known: list[str] = []
        self._mistaken: set[str] = set()
        self._problems: list[str] = []

    @property
    def name(self) -> str:
        """Name of the section, without brackets."""
        return self._name

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
        self._secrets.add(key)
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
        """Read where to listen; None where it isn't set."""
        expected = "an address of this host and a port, such as 127.0.0.1:9102, or the path of a Unix socket"
        return self._read(key, parse_bind, None, expected)

    def names(self, key: str) -> frozenset[str]:
        """Read host names separated by commas, in lower case and without final dots."""
        expected = "host names separated by commas, without ports, such as node1.example.com"
        return self._read(key, parse_names, frozenset(), expected)

    def ignore(self, key: str) -> None:
        """Know a key without reading it."""
        self._known.append(key)

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
            nearest = _find_nearest(key, self._known, likeness)
            if nearest:
                self.mistake(
                    self._name_of(key, nearest), f"there is no such key; the nearest one is {nearest}"
                )
        if self._problems:
            raise ConfigurationError(*self._problems)

    def _read(
        self, key: str, parse: Callable[[str], _T], emptiest: _T, expected: str, *, shown: bool = True
    ) -> _T:
        self._known.append(key)
        default = self._defaults.get(key)
        value = self._values.get(key, "").rstrip()
        raw = value.strip()
        text, unset = expand_variables(raw, self._environ)
        shown = shown and _can_be_shown(value)
        problem = ""
        if comment := _COMMENT.search(raw):
            beginning = _show(raw[: comment.start()]) if shown and comment.start() else "the value"
            problem = f"{beginning} has a comment beside it, which needs a line of its own"
        elif unset:
            # In a secret that has a `$` in it the name is a part of the secret.
            names = " and ".join(unset) if shown or is_variable(raw) else "named in it"
            problem = f"the environment variable {names} isn't set"
        elif text:
            try:
                return parse(text)
            except MistakeError as exc:
                problem = f"{_show(raw) if shown else 'the value'} {exc}"
        elif default is None:
            problem = "empty" if key in self._values else "missing"
        if problem and _has_line_break(value):
            problem = f"the value holds a line break{self._why_continued(key)}"
        if problem:
            self.mistake(key, f"{problem}; expected {expected}")
        return parse(default) if default else emptiest

    def _why_continued(self, key: str) -> str:
        place = self._places.get(key)
        if place is None or place.continued is None:
            return ""
        return f": line {place.continued} is indented and therefore continues the line before it"

    def _name_of(self, key: str, nearest: str) -> str:
        """Name a misspelt key, or its line if a part of a secret may be in it."""
        surplus = len(key) - len(nearest)
        if _NEARLY_KEY.fullmatch(key) and (nearest not in self._secrets or surplus <= _SLIP):
            return key
        place = self._places.get(key)
        return "a key" if place is None else f"line {place.line}"


def _has_line_break(value: str) -> bool:
    return len(value.splitlines()) > 1


def _can_be_shown(value: str) -> bool:
    """Tell whether a value of one line can be shown: no USER:PASSWORD@HOST, and no two lines in one."""
    several = len(value.split()) > 1
    return not {"@", "="} & set(value) and not (several and ":" in value)


def _show(raw: str) -> str:
    text = ascii(raw)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


def read_section(
    path: str | os.PathLike[str],
    name: str | None,
    environ: Mapping[str, str],
    *,
    defaults: Mapping[str, str] | None = None,
    family: str = "",
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
        return parse_section(text, name, environ, defaults=defaults, source=source, family=family)
    # Raised out here so that the error has no context: a decoding error holds the whole file.
    raise ConfigurationError(f"{source}: {problem}")


def section_names(path: str | os.PathLike[str], family: str) -> list[str]:
    """Return the names of the sections that begin with `family`; none if the file can't be read or parsed."""
    parser = configparser.RawConfigParser()
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123 - as below
            parser.read_file(file)
    except (OSError, ValueError, configparser.Error):
        return []
    return [name for name in parser.sections() if name.startswith(family)]


def parse_section(
    text: str,
    name: str | None,
    environ: Mapping[str, str],
    *,
    defaults: Mapping[str, str] | None = None,
    source: str = "",
    family: str = "",
) -> Section:
    """Find a section in the text of an INI file.

    Args:
        text: The file. `%` means nothing in it, and `[DEFAULT]` gives values to all sections.
        name: Name of the section, without brackets; None for the only one of `family`.
        environ: See `Section`.
        defaults: See `Section`.
        source: Name of the file, for messages.
        family: What the names of the sections begin with that a publisher has. Of several, the one that ends
            in `main` is taken, which is the default of baseplate.py.

    Raises:
        ConfigurationError: It can't be parsed, has no such section, or has several and none is `main`.
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
        if name is None:
            name = _only_section(parser.sections(), family)
        if name is None:
            problems = [_choice(parser.sections(), family)]
        else:
            problems = [] if parser.has_section(name) else [_absence(name, parser.sections())]
    if problems or name is None:
        # Raised out here so that the error has no context: a parsing error holds lines of the file.
        where = f"{source}: " if source else ""
        raise ConfigurationError(*(f"{where}{problem}" for problem in problems))
    keys = dict(parser.items(name))
    found = find_keys(text)
    places = {key: found.get((name, key), found.get((parser.default_section, key))) for key in keys}
    return Section(
        name,
        keys,
        environ,
        defaults=defaults,
        source=source,
        inherited=frozenset(parser.defaults()),
        places={key: place for key, place in places.items() if place is not None},
    )


def _syntax_problems(
    error: configparser.ParsingError | configparser.DuplicateSectionError | configparser.DuplicateOptionError,
) -> list[str]:
    """Tell what is wrong with a file by line numbers; the error's own text shows the lines."""
    if isinstance(error, configparser.DuplicateSectionError):
        return [f"line {error.lineno}: the section [{_shown_name(error.section)}] is there twice"]
    if isinstance(error, configparser.DuplicateOptionError):
        key = error.option if _KEY.fullmatch(error.option) else "a key"
        section = _shown_name(error.section)
        return [f"line {error.lineno}: [{section}] {key}: set for the second time"]
    if isinstance(error, configparser.MissingSectionHeaderError):
        return [f"line {error.lineno}: expected a section's header such as [event-publisher:main] before it"]
    return [f"line {line}: expected KEY = VALUE, or a section's header" for line, _ in error.errors]


def _only_section(sections: Sequence[str], family: str) -> str | None:
    """Return the section that is meant if none is named; None if it could be any of several."""
    usual = f"{family}main"
    there = [section for section in sections if section.startswith(family)]
    if len(there) == 1:
        return there[0]
    return None if there and usual not in there else usual


def _choice(sections: Sequence[str], family: str) -> str:
    names = [_shown_name(section.removeprefix(family)) for section in sections if section.startswith(family)]
    return f"there are {len(names)} queues in it; choose one with --queue-name: {', '.join(names)}"


def _absence(name: str, sections: Sequence[str]) -> str:
    if not sections:
        return f"there is no section [{name}], nor any other"
    there = ", ".join(f"[{_shown_name(section)}]" for section in sections)
    nearest = _find_nearest(name, sections, _SECTION_LIKENESS)
    advice = f"; the nearest is [{_shown_name(nearest)}]" if nearest else ""
    return f"there is no section [{name}]; there is {there}{advice}"


def _find_nearest(name: str, names: Sequence[str], likeness: float) -> str:
    """Return the most similar of `names`; an empty text if none is as similar as `likeness`, from 0 to 1."""
    import difflib  # noqa: PLC0415 - most configurations hold no unknown name, and need no suggestion

    return "".join(difflib.get_close_matches(name, names, n=1, cutoff=likeness))


def _shown_name(section: object) -> str:
    return printable(str(section), _NAME_LENGTH)
