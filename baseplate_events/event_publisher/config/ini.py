"""Reads a section of an INI file into typed values, and reports all its mistakes together.

Rules:

1. A mistake is one line: file, section, option, what is wrong and what was expected. `Section.finish` raises
   all of them together; until then reading goes on with defaults.
2. No line shows a secret, the text of a line of the file, or the value of an environment variable. Other
   values are shown as the file has them, except one that may hold a password. An indented line continues the
   value before it, whatever it says. So a value with a line break isn't shown, and neither is one that looks
   like two lines joined; the number of the line is given instead.
3. `$NAME` and `${NAME}` in a value stand for an environment variable, which must be set. Any other `$` stays
   as it is, and the value of a variable isn't expanded again.
4. Other keys belong to other programs and are ignored, unless a key is nearly the name of an option or has
   the prefix of one. Keys of `[DEFAULT]` are shared with other sections and never count as misspelt. A
   misspelt key is shown only if no secret can be in it.
5. A comment needs a line of its own. After a value it would become part of the value, so it is a mistake. The
   value of an environment variable may look like a comment.

How it works: `read_section` reads the file; `Section.read` reads an option by its declaration. A default is a
text as the file would have it, and is read by the same rules.
"""

from __future__ import annotations

import configparser
import os
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ..._words import counted
from ...errors import ConfigurationError
from ..foreign_text import printable
from .ini_lines import find_keys
from .values import MistakeError, expand_variables, is_variable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .declare import Group, Option
    from .ini_lines import Place

#: Characters of a value that a message shows.
_SHOWN_LENGTH: Final = 60
#: Likeness from which a key counts as misspelt; one edit of the shortest option, `key.name`, gives 0.87.
_LIKENESS: Final = 0.8
#: Likeness from which a section is suggested: difflib's default.
_SECTION_LIKENESS: Final = 0.6
#: How many characters a misspelt key may be longer than the option, if that is a secret.
_SLIP: Final = 2
#: Characters of a section's name that a message shows.
_NAME_LENGTH: Final = 100

_T = TypeVar("_T")
_GroupT = TypeVar("_GroupT", bound="Group")

# A key like the options. Base64 has no dot or underscore, so a stray line of a secret doesn't match.
_KEY = re.compile(r"[a-z]+(?:[._][a-z]+)+")
# A misspelt key, whose line may have lost its `=`.
_NEARLY_KEY = re.compile(r"[a-z._]{1,60}")
# A comment after a value, or in place of one.
_COMMENT = re.compile(r"(?:^|\s)[;#]")


class Section:
    """Reads the values of one INI section; see the rules of this module.

    Args:
        name: Name of the section, without brackets.
        values: Its values by key; keys are in lower case.
        environ: The environment variables.
        options: Names of all options. Those that aren't read are ignored, and never count as misspelt.
        source: Name of the file, or empty if there is none.
        inherited: Keys that come from `[DEFAULT]`, and never count as misspelt.
        places: Where the keys are in the file.
    """

    def __init__(
        self,
        name: str,
        values: Mapping[str, str],
        environ: Mapping[str, str],
        *,
        options: Collection[str] = (),
        source: str = "",
        inherited: Collection[str] = (),
        places: Mapping[str, Place] | None = None,
    ) -> None:
        self._name = name
        self._values = values
        self._environ = environ
        self._others = {*options, *inherited}
        self._source = source
        self._places: Mapping[str, Place] = {} if places is None else places
        self._known: dict[str, Option[Any]] = {}
        self._mistaken: set[str] = set()
        self._problems: list[str] = []

    @property
    def name(self) -> str:
        """Name of the section, without brackets."""
        return self._name

    def read_group(self, group: type[_GroupT], **given: object) -> _GroupT:
        """Read a group of options; see `declare`.

        Args:
            group: The dataclass.
            given: Values of fields that aren't to be read.
        """
        options = group.options().items()
        values = {name: self.read(option) for name, option in options if name not in given}
        return group(**given, **values)

    def read(self, option: Option[_T]) -> _T:
        """Read an option, which takes its default if it is absent or empty.

        Returns:
            The value. After a mistake it is the default, or None if there is none, whatever the type says:
            `finish` raises before that value is used.
        """
        name = option.name
        self._known[name] = option
        value = self._values.get(name, "").rstrip()
        raw = value.strip()
        if not raw and option.variable in self._environ:
            raw = f"${option.variable}"
        text, unset = expand_variables(raw, self._environ)
        shown = not option.secret and _can_be_shown(value)
        problem = ""
        if comment := _COMMENT.search(raw):
            beginning = _show(raw[: comment.start()]) if shown and comment.start() else "the value"
            problem = f"{beginning} has a comment beside it; write the comment on a line of its own"
        elif unset:
            # In a secret that has a `$` in it the name is a part of the secret.
            names = " and ".join(unset) if shown or is_variable(raw) else "named in it"
            problem = f"the environment variable {names} isn't set"
        elif text:
            try:
                return option.kind.parse(text)
            except MistakeError as exc:
                problem = f"{_show(raw) if shown else 'the value'} {exc}"
        elif option.default is None:
            problem = "empty" if name in self._values else "missing"
        if problem and len(value.splitlines()) > 1:
            problem = f"the value holds a line break{self._why_continued(name)}"
        if problem:
            self.mistake(name, f"{problem}; expected {option.kind.expected}")
        return cast("_T", None) if option.default is None else option.kind.parse(option.default)

    def mistake(self, name: str, problem: str) -> None:
        """Record a mistake.

        Args:
            name: The option.
            problem: What is wrong, without secrets; it follows the name and a colon.
        """
        self._mistaken.add(name)
        where = f"{self._source}: " if self._source else ""
        self._problems.append(f"{where}[{self._name}] {name}: {problem}")

    def check(self, holds: bool, name: str, problem: str, *others: str) -> None:
        """Record a mistake unless a condition holds or one of its options has a mistake already.

        Args:
            holds: The condition.
            name: The option.
            problem: See `mistake`.
            others: Further options in the condition.
        """
        if not holds and self._mistaken.isdisjoint({name, *others}):
            self.mistake(name, problem)

    def finish(self) -> None:
        """Look for misspelt options, after the others were read.

        Raises:
            ConfigurationError: With every mistake of the section.
        """
        prefixes = tuple({name[: name.index(".") + 1] for name in self._known if "." in name})
        for key in self._values:
            if key in self._known or key in self._others:
                continue
            likeness = 0.0 if key.startswith(prefixes) else _LIKENESS
            nearest = _find_nearest(key, list(self._known), likeness)
            if nearest:
                self.mistake(self._name_of(key, nearest), f"no such option; the nearest is {nearest}")
        if self._problems:
            raise ConfigurationError(*self._problems)

    def _why_continued(self, key: str) -> str:
        place = self._places.get(key)
        if place is None or place.continued is None:
            return ""
        return f": line {place.continued} is indented and therefore continues the line before it"

    def _name_of(self, key: str, nearest: str) -> str:
        """Return a misspelt key, or its line if a part of a secret may be in it."""
        surplus = len(key) - len(nearest)
        if _NEARLY_KEY.fullmatch(key) and (surplus <= _SLIP or not self._known[nearest].secret):
            return key
        place = self._places.get(key)
        return "a key" if place is None else f"line {place.line}"


def _can_be_shown(value: str) -> bool:
    """Return whether a value of one line can be shown: no USER:PASSWORD@HOST, and no two lines joined."""
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
    options: Collection[str] = (),
    family: str = "",
) -> Section:
    """Read a section of an INI file in UTF-8; see `parse_section`.

    Raises:
        ConfigurationError: The file cannot be read or parsed, or has no such section.
    """
    text = _read_text(path)
    return parse_section(text, name, environ, options=options, source=os.fspath(path), family=family)


def section_names(path: str | os.PathLike[str], family: str) -> list[str]:
    """Return the names of the sections of a file that begin with `family`.

    Raises:
        ConfigurationError: The file cannot be read or parsed.
    """
    parser = _parse(_read_text(path), os.fspath(path))
    return [name for name in parser.sections() if name.startswith(family)]


def parse_section(
    text: str,
    name: str | None,
    environ: Mapping[str, str],
    *,
    options: Collection[str] = (),
    source: str = "",
    family: str = "",
) -> Section:
    """Find a section in the text of an INI file.

    Args:
        text: The file. `%` is an ordinary character, and `[DEFAULT]` gives values to all sections.
        name: Name of the section, without brackets; None for the only one of `family`.
        environ: See `Section`.
        options: See `Section`.
        source: Name of the file, for messages.
        family: Prefix of the sections of publishers. Of several, the one that ends in `main` is read, the
            default of baseplate.py.

    Raises:
        ConfigurationError: It cannot be parsed, has no such section, or has several and none is `main`.
    """
    parser = _parse(text, source)
    sections = parser.sections()
    if name is None:
        usual = f"{family}main"
        there: list[str] = [section for section in sections if section.startswith(family)]
        if len(there) > 1 and usual not in there:
            names = ", ".join(_shown_name(section.removeprefix(family)) for section in there)
            problem = f"it has {counted(len(there), 'queue')}; choose one with --queue-name: {names}"
            raise _mistakes(source, problem)
        name = there[0] if len(there) == 1 else usual
    if not parser.has_section(name):
        raise _mistakes(source, _absence(name, sections))
    keys = dict(parser.items(name))
    found = find_keys(text)
    places = {key: found.get((name, key), found.get((parser.default_section, key))) for key in keys}
    return Section(
        name,
        keys,
        environ,
        options=options,
        source=source,
        inherited=frozenset(parser.defaults()),
        places={key: place for key, place in places.items() if place is not None},
    )


def _read_text(path: str | os.PathLike[str]) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123 - takes whatever names a file
            return file.read()
    except UnicodeDecodeError as exc:
        problem = f"byte {exc.start} isn't UTF-8; expected an INI file in UTF-8"
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        problem = f"can't be read ({reason}); expected an INI file"
    # Raised outside so that the error has no context: a decoding error holds the whole file.
    raise _mistakes(os.fspath(path), problem)


def _parse(text: str, source: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except (
        configparser.ParsingError,
        configparser.DuplicateSectionError,
        configparser.DuplicateOptionError,
    ) as exc:
        problems = _syntax_problems(exc)
    else:
        return parser
    # As above: a parsing error holds lines of the file.
    raise _mistakes(source, *problems)


def _mistakes(source: str, *problems: str) -> ConfigurationError:
    where = f"{source}: " if source else ""
    return ConfigurationError(*(f"{where}{problem}" for problem in problems))


def _syntax_problems(
    error: configparser.ParsingError | configparser.DuplicateSectionError | configparser.DuplicateOptionError,
) -> list[str]:
    """Return what is wrong with a file, by line numbers; the error's own text shows the lines."""
    if isinstance(error, configparser.DuplicateSectionError):
        return [f"line {error.lineno}: the section [{_shown_name(error.section)}] occurs twice"]
    if isinstance(error, configparser.DuplicateOptionError):
        key = error.option if _KEY.fullmatch(error.option) else "a key"
        section = _shown_name(error.section)
        return [f"line {error.lineno}: [{section}] {key}: set twice"]
    if isinstance(error, configparser.MissingSectionHeaderError):
        return [f"line {error.lineno}: expected a section's header such as [event-publisher:main] before it"]
    return [f"line {line}: expected KEY = VALUE, or a section's header" for line, _ in error.errors]


def _absence(name: str, sections: Sequence[str]) -> str:
    if not sections:
        return f"no section [{name}]; the file has no sections"
    there = ", ".join(f"[{_shown_name(section)}]" for section in sections)
    nearest = _find_nearest(name, sections, _SECTION_LIKENESS)
    advice = f"; the nearest is [{_shown_name(nearest)}]" if nearest else ""
    return f"no section [{name}]; the file has {there}{advice}"


def _find_nearest(name: str, names: Sequence[str], likeness: float) -> str:
    """Return the most similar of `names`; an empty text if none is as similar as `likeness`, from 0 to 1."""
    import difflib  # noqa: PLC0415 - rarely needed

    return "".join(difflib.get_close_matches(name, names, n=1, cutoff=likeness))


def _shown_name(section: object) -> str:
    return printable(str(section), _NAME_LENGTH)
