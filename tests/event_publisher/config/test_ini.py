from __future__ import annotations

import configparser
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.config.declare import (
    BOOLEAN,
    ENDPOINT,
    MODE,
    PROXY,
    SECRET,
    STATUSES,
    Group,
    Option,
    choice,
    host,
    integer,
    optional,
    span,
    text,
)
from baseplate_events.event_publisher.config.ini import Section, parse_section, read_section
from baseplate_events.event_publisher.config.ini_lines import find_keys
from baseplate_events.event_publisher.config.values import MistakeError
from tests.support.sections import alone, problems, refused, section, value
from tests.support.strategies import hostile_texts, plain_texts, texts

if TYPE_CHECKING:
    from baseplate_events.event_publisher.config.declare import Kind


# --- defaults, absence, variables ---

KINDS: Final[dict[str, tuple[str, Kind[Any]]]] = {
    "text": ("a", text("[a-z]*", "letters")),
    "integer": ("3", integer(1, 9)),
    "span": ("3 seconds", span(1, 9)),
    "mode": ("0660", MODE),
    "choice": ("2j", choice("2", "2j")),
    "boolean": ("true", BOOLEAN),
    "base64": ("YWJj", SECRET),
    "host": ("h:1", host("k")),
    "proxy": ("http://h:1", PROXY),
    "endpoint": ("h:1", ENDPOINT),
}

ANYTHING: Final = text("(?s:.*)", "anything")


@pytest.mark.parametrize("name", KINDS)
def test_absence_is_a_mistake_or_the_default(name: str) -> None:
    """An absent, empty or mistaken value takes the default; one without a default has to be there."""
    good, kind = KINDS[name]
    expected = value(section(k=good), kind)
    bad = "!?"
    for environ, values in (({}, {}), ({}, {"k": " "}), ({"E": ""}, {"k": "$E"})):
        read = section(environ, **values)
        assert expected == value(read, kind, default=good)
        assert problems(read) == ()
        read = section(environ, **values)
        assert value(read, kind) is None
        assert re.match("(missing|empty); expected ", refused(read))
    for values in ({"k": bad}, {"k": "$UNSET"}):
        read = section({}, **values)
        assert expected == value(read, kind, default=good)
        read.check(False, "other", "is compared with it", "k")
        read.check(False, "k", "is compared")
        assert kind.expected in refused(read)


def test_a_comparison_counts_without_other_mistakes() -> None:
    """A condition that doesn't hold is a mistake, once for each option; one that holds isn't."""
    read = section()
    read.check(True, "k", "is less than other", "other")
    assert problems(read) == ()
    read.check(False, "k", "is less than other", "other")
    read.check(False, "k", "is too much")
    assert refused(read) == "is less than other"


@pytest.mark.parametrize("name", KINDS)
def test_an_optional_value_is_none_without_a_mistake(name: str) -> None:
    """An option that can be left out is None if it is absent or empty, and else what its kind reads."""
    good, kind = KINDS[name]

    @dataclass(frozen=True)
    class Single(Group):
        field: object = optional("k", kind, "A meaning.")

    read = section(k=good)
    assert Single(value(section(k=good), kind)) == read.read_group(Single)
    for read in (section(), section(k=" ")):
        assert Single(None) == read.read_group(Single)
        assert problems(read) == ()
    read = section(k="$UNSET")
    read.read_group(Single)
    assert refused(read).endswith(f"; expected {kind.expected}")


@pytest.mark.parametrize("name", KINDS)
def test_a_value_can_come_from_the_environment(name: str) -> None:
    """Each kind takes its value from a variable, and no message shows what the variable holds."""
    good, kind = KINDS[name]
    expected = value(section(k=good), kind)
    for written in ("$V", "${V}"):
        assert expected == value(section({"V": f" {good}\n"}, k=written), kind)
        read = section({"V": "!hunter2!"}, k=written)
        value(read, kind)
        assert "hunter2" not in refused(read)
    read = section(k="${HUNTER}")
    value(read, kind)
    assert "the environment variable HUNTER isn't set" in refused(read)


@pytest.mark.parametrize("name", KINDS)
def test_a_default_can_come_from_the_environment(name: str) -> None:
    """A variable can have the default; a value goes first, and a mistake names the variable alone."""
    good, kind = KINDS[name]
    expected = value(section(k=good), kind)
    declared = Option("k", kind, "ignored", "A meaning.", variable="V")
    assert expected == section({"V": f" {good} "}).read(declared)
    assert expected == section({"V": "!?"}, k=good).read(declared)
    for environ in ({}, {"V": " "}):
        assert expected == section(environ).read(replace(declared, default=good))
    read = section({"V": "!hunter2!"})
    read.read(replace(declared, default=good))
    problem = refused(read)
    assert problem.startswith("'$V' ")
    assert "hunter2" not in problem


def test_a_secret_with_a_dollar_isnt_shown_as_a_variable() -> None:
    """What looks like a variable inside a secret may be the secret."""
    for written in ("abc$hunter2", "${abc}${hunter2}"):
        read = section(k=written)
        value(read, SECRET, secret=True)
        assert "hunter2" not in refused(read)


# --- keys that aren't ours ---


def test_a_key_that_is_nearly_ours_is_a_mistake() -> None:
    """A misspelt key and an unknown one of our groups are mistakes; others, unread and shared ones aren't."""
    values = {"a.hostnane": "hunter2", "a.zzz": "hunter2", "a.unread": "x", "unrelated": "x"}
    values |= {"a.inherited": "x", "b": "x"}
    read = Section("s", values, {}, options={"a.unread"}, source="f", inherited={"a.inherited"})
    value(read, ANYTHING, "a.hostname", default="")
    value(read, ANYTHING, "b")
    assert problems(read) == (
        "f: [s] a.hostnane: no such option; the nearest is a.hostname",
        "f: [s] a.zzz: no such option; the nearest is a.hostname",
    )


# --- files ---


@given(st.dictionaries(st.from_regex(r"[a-z][a-z._]{0,8}", fullmatch=True), texts), st.booleans())
def test_a_file_gives_its_values(values: dict[str, str], shared: bool) -> None:
    """Values of the section and of `[DEFAULT]` are read as they are, `%` and `$` included."""
    values = {key: " ".join(each.split()) for key, each in values.items() if not set("$#;") & set(each)}
    lines = "".join(f"{key} = {written}\n" for key, written in values.items())
    file = f"[DEFAULT]\n{lines}[s]\n" if shared else f"[s]\n{lines}"
    read = parse_section(file, "s", {})
    for key, written in values.items():
        assert written == value(read, ANYTHING, key, default="")
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
    assert all(re.match(r"file\.ini: (line \d+: |no section)", line) for line in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[s]\nhunter2\n\nhunter2 x\n", ("line 2: expected KEY = VALUE", "line 4: expected KEY = VALUE")),
        ("hunter2 = x\n[s]", ("line 1: expected a section's header",)),
        ("[s]\nk=1\n[s]", ("line 3: the section [s] occurs twice",)),
        ("[s]\nkey.name=hunter2\nkey.name=hunter2", ("line 3: [s] key.name: set twice",)),
        ("[s]\nhunter2=\nhunter2=", ("line 3: [s] a key: set twice",)),
        ("[t]\n[event]", ("no section [s]; the file has [t], [event]",)),
        ("", ("no section [s]; the file has no sections",)),
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
    """A missing section is reported with the nearest one."""
    with pytest.raises(ConfigurationError, match=r"the nearest is \[event-publisher:v2\]"):
        parse_section("[app:main]\n[event-publisher:v2]", "event-publisher:v2j", {})


def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    """A missing file, a directory, an impossible name and another encoding are reported with the name."""
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
    tmp_path_factory: pytest.TempPathFactory, line: str
) -> None:
    """A byte order mark changes nothing, and problems name the file."""
    assume(not set("#;") & set(line))
    path = tmp_path_factory.getbasetemp() / "utf8.ini"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(f"[s]\nk = {line}\n", encoding=encoding)
        read = read_section(path, "s", {})
        assert line.strip() == value(read, ANYTHING, default="")
        read.mistake("k", "broken")
        assert problems(read) == (f"{path}: [s] k: broken",)


def test_a_mistake_of_a_default_is_not_the_operators() -> None:
    """A default that can't be read is a fault of the program, and comes out as such."""
    with pytest.raises(MistakeError):
        value(section(), integer(0, 9), default="many")


# --- lines that continue a value ---


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", " ", "  ", "\t"]),
            st.sampled_from(
                [
                    "[s]",
                    "[t]",
                    "[DEFAULT]",
                    "a = 1",
                    "b.c: 2",
                    "A =",
                    "d=x # y",
                    "word",
                    "# c",
                    "; c",
                    "",
                    "=",
                    "\r",
                ]
            ),
        ),
        max_size=9,
    )
)
@example([("", "a = 1"), (" ", "# c"), (" ", "word")])
@example([("", "a = 1"), ("", "[s]"), ("  ", "b.c: 2")])
def test_keys_are_found_where_the_parser_found_them(drawn: list[tuple[str, str]]) -> None:
    """Each key that `configparser` found has its line, and that of the first line that continues it."""
    lines = ["[r]", *map("".join, drawn)]
    parser = configparser.RawConfigParser()
    try:
        parser.read_string("\n".join(lines))
    except configparser.Error:
        return  # which names its line itself
    places = find_keys("\n".join(lines))
    found = {(name, key): parser[name][key] for name in parser for key in parser[name]}
    inherited = {(name, key) for name in parser.sections() for key in parser.defaults()}
    assert set(places) <= set(found) <= set(places) | inherited
    for (name, key), place in places.items():
        first, *others = found[name, key].split("\n")
        assert lines[place.line - 1].strip().lower().startswith(key)
        assert lines[place.line - 1].strip().endswith(first)
        assert (place.continued is not None) == bool(others)
        if place.continued is not None:
            assert lines[place.continued - 1].strip() == next(filter(None, others))


#: A secret of a neighbour.
_NEIGHBOUR = "hunter2hunter2=="


@pytest.mark.parametrize("name", [name for name in KINDS if name != "text"])
@pytest.mark.parametrize("before", ["%s", "", "$HUNTER2"])
def test_an_indented_line_is_named_and_not_shown(name: str, before: str) -> None:
    """Nothing of a value that goes on in the next line is shown, but the number of that line."""
    good, kind = KINDS[name]
    file = f"[s]\nk = {before.replace('%s', good)}\n\n# a comment\n  key.secret = {_NEIGHBOUR}\n"
    read = parse_section(file, "s", {})
    value(read, kind)
    problem = refused(read)
    words = "the value holds a line break: line 5 is indented and therefore continues the line before it"
    assert problem.startswith(f"{words}; expected ")
    assert "hunter2" not in problem.lower()
    assert "key.secret" not in problem


def test_the_line_of_a_shared_value_is_that_of_its_section() -> None:
    """A value of `[DEFAULT]` is named by its line there, unless the section has its own."""
    file = f"[DEFAULT]\nk = a\n b {_NEIGHBOUR}\n[s]\n"
    read = parse_section(file, "s", {})
    value(read, host("k"))
    assert "line 3 is indented" in refused(read)
    read = parse_section(file + f"k = a\n b {_NEIGHBOUR}\n", "s", {})
    value(read, host("k"))
    assert "line 6 is indented" in refused(read)


def test_a_value_may_go_on_where_blanks_may_be() -> None:
    """A list in several lines, and one that begins in the line after its key, are read as ever."""
    read = parse_section("[s]\nk =\n  400,\n  404\n", "s", {})
    assert value(read, STATUSES) == {400, 404}
    assert problems(read) == ()


@pytest.mark.parametrize(
    "written",
    [
        f"events.test\x85key.secret = {_NEIGHBOUR}",  # breaks lines in some editors
        f"events.test\u2028key.secret: {_NEIGHBOUR}",
        "events.test\x0bkey.secret hunter2",
        f"events.test key.secret={_NEIGHBOUR}",  # the break is gone
        "events.test key.secret: hunter2",
        "user:$hunter2@events.test",  # the name of a variable, or a part of a password
        "user:hunter2@events.test",
    ],
)
def test_a_value_that_may_hold_a_secret_is_not_shown(written: str) -> None:
    """Two lines in one, and what may be a password, are reported without the value."""
    read = section(k=written)
    value(read, host("k"))
    assert "hunter2" not in refused(read)


@pytest.mark.parametrize(
    ("line", "named", "nearest"),
    [
        ("key.secret hunter2==", "line 2", "key.secret"),  # its `=` is missing
        ("key.secret hunter2: x", "line 2", "key.secret"),
        ("key.secrethunter = x", "line 2", "key.secret"),
        ("key.secretHUNTER2==", "line 2", "key.secret"),
        ("key.\u202esecret = x", "line 2", "key.secret"),
        (f"key.{'x' * 90} = x", "line 2", "key.name"),
        ("key.secre = hunter2", "key.secre", "key.secret"),
        ("key.nam = hunter2", "key.nam", "key.name"),
    ],
)
def test_a_misspelt_key_is_shown_if_no_secret_is_in_it(line: str, named: str, nearest: str) -> None:
    """A key that has swallowed a part of its value is named by its line."""
    read = parse_section(f"[s]\n{line}\n", "s", {})
    value(read, ANYTHING, "key.name", default="", secret=True)
    value(read, SECRET, "key.secret", default="c2VjcmV0", secret=True)
    (problem,) = problems(read)
    assert problem.startswith(f"[s] {named}: ")
    assert problem.endswith(f" {nearest}")
    assert "hunter" not in problem.lower()


def test_names_of_sections_are_escaped_and_cut() -> None:
    """A section's name in a message is one short line, whatever it is in the file."""
    long = "x" * 5_000
    for file in (f"[\x1b{long}]\n", f"[\x1b{long}]\n[\x1b{long}]\n", f"[\x1b{long}]\nk.a=1\nk.a=2\n"):
        with pytest.raises(ConfigurationError) as caught:
            parse_section(file, "s", {})
        (problem,) = caught.value.problems
        assert r"[\x1bxxx" in problem
        assert problem.isprintable()
        assert len(problem) < 400


def test_marks_nuls_and_other_ends_of_lines_show_nothing(tmp_path: Path) -> None:
    """A file from another system is read, or reported by its line numbers, without their contents."""
    path = tmp_path / "other.ini"
    good = f"[s]\nk = c2VjcmV0\n# {_NEIGHBOUR}\n"
    for ends in ("\r\n", "\r"):
        path.write_bytes(good.replace("\n", ends).encode())
        read = read_section(path, "s", {})
        assert value(read, SECRET).reveal() == b"secret"
        assert problems(read) == ()
    bad = (
        good.encode("utf-16"),
        good.encode("utf-16-le"),
        f"[s]\nk = !\n\ufeff[s] {_NEIGHBOUR}\n".encode(),
        f"[s]\nk = \0{_NEIGHBOUR}\n".encode(),
        f"[s]\rk = a\r  k.b = {_NEIGHBOUR}\r".encode(),
    )
    for data in bad:
        path.write_bytes(data)
        with pytest.raises(ConfigurationError) as caught:
            read_host(path)
        assert "hunter2" not in str(caught.value)
        assert all(problem.isprintable() for problem in caught.value.problems)


def read_host(path: Path) -> None:
    """Read a file whose only option is a host."""
    read = read_section(path, "s", {})
    value(read, host("k"))
    read.finish()


# --- comments ---


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("secret", [True, False])
@pytest.mark.parametrize("comment", [" ; the big disk", " # hunter2", "\t;", "  #x"])
def test_a_comment_beside_a_value_is_a_mistake(name: str, comment: str, secret: bool) -> None:
    """No value silently takes a comment in; nothing of the comment is shown, and of a secret nothing."""
    good, kind = KINDS[name]
    read = section(k=good + comment)
    value(read, kind, secret=secret)
    problem = refused(read)
    assert "comment" in problem
    assert "disk" not in problem
    assert "hunter2" not in problem
    if secret:
        assert problem.startswith("the value ")
        assert ascii(good) not in problem


def test_a_comment_in_place_of_a_value_is_a_mistake() -> None:
    """Whoever writes a comment where nothing else is doesn't get it for a value."""
    for comment in ("; none", "#none"):
        read = section(k=comment)
        value(read, ANYTHING)
        assert "has a comment beside it" in refused(read)


def test_what_looks_like_a_comment_can_come_from_the_environment() -> None:
    """A path that has to be so can be given in a variable; without a blank before it nothing is a comment."""
    read = section({"DISK": "/vol/disk #2"}, k="$DISK", l="/vol/disk#2;a")
    assert value(read, ANYTHING) == "/vol/disk #2"
    assert value(read, ANYTHING, "l") == "/vol/disk#2;a"
    assert problems(read) == ()
