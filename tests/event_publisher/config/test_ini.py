from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.config.ini import Section, parse_section, read_section
from baseplate_events.event_publisher.config.ini_lines import find_keys
from baseplate_events.event_publisher.config.values import MistakeError
from tests.support.sections import alone, problems, refused, section
from tests.support.strategies import hostile_texts, plain_texts, texts

if TYPE_CHECKING:
    from collections.abc import Callable


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
    values = {key: " ".join(value.split()) for key, value in values.items() if not set("$#;") & set(value)}
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
    assume(not set("#;") & set(text))
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


@pytest.mark.parametrize("kind", [kind for kind in _READERS if kind != "text"])
@pytest.mark.parametrize("before", ["%s", "", "$HUNTER2"])
def test_an_indented_line_is_named_and_not_shown(kind: str, before: str) -> None:
    """Nothing of a value that goes on in the next line is shown, but the number of that line."""
    good, reader = _READERS[kind]
    text = f"[s]\nk = {before.replace('%s', good)}\n\n# a comment\n  key.secret = {_NEIGHBOUR}\n"
    read = parse_section(text, "s", {})
    reader(read)
    problem = refused(read)
    words = "the value holds a line break: line 5 is indented and therefore continues the line before it"
    assert problem.startswith(f"{words}; expected ")
    assert "hunter2" not in problem.lower()
    assert "key.secret" not in problem


def test_the_line_of_a_shared_value_is_that_of_its_section() -> None:
    """A value of `[DEFAULT]` is named by its line there, unless the section has its own."""
    text = f"[DEFAULT]\nk = a\n b {_NEIGHBOUR}\n[s]\n"
    read = parse_section(text, "s", {})
    read.host("k")
    assert "line 3 is indented" in refused(read)
    read = parse_section(text + f"k = a\n b {_NEIGHBOUR}\n", "s", {})
    read.host("k")
    assert "line 6 is indented" in refused(read)


def test_a_value_may_go_on_where_blanks_may_be() -> None:
    """A list in several lines, and one that begins in the line after its key, are read as ever."""
    read = parse_section("[s]\nk =\n  400,\n  404\n", "s", {})
    assert read.text("k", pattern=r"[0-9, \n]+", expected="statuses") == "400,\n404"
    assert problems(read) == ()


@pytest.mark.parametrize(
    "value",
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
def test_a_value_that_may_hold_a_secret_is_not_shown(value: str) -> None:
    """Two lines in one, and what may be a password, are told without the value."""
    read = section(k=value)
    read.host("k")
    assert "hunter2" not in refused(read)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("key.secret hunter2==", "line 2"),  # its `=` is missing
        ("key.secret hunter2: x", "line 2"),
        ("key.secrethunter = x", "line 2"),
        ("key.secretHUNTER2==", "line 2"),
        ("key.\u202esecret = x", "line 2"),
        (f"key.{'x' * 90} = x", "line 2"),
        ("key.secre = hunter2", "key.secre"),
        ("key.nam = hunter2", "key.nam"),
    ],
)
def test_a_misspelt_key_is_shown_if_no_secret_is_in_it(line: str, named: str) -> None:
    """A key that has swallowed a part of its value is named by its line."""
    read = parse_section(f"[s]\n{line}\n", "s", {}, defaults={"key.name": "", "key.secret": ""})
    read.text("key.name", pattern=".*", expected="a name")
    read.base64("key.secret")
    (problem,) = problems(read)
    assert problem.startswith(f"[s] {named}: there is no such key; the nearest one is key.")
    assert "hunter" not in problem.lower()


def test_names_of_sections_are_escaped_and_cut() -> None:
    """A section's name in a message is one short line, whatever it is in the file."""
    long = "x" * 5_000
    for text in (f"[\x1b{long}]\n", f"[\x1b{long}]\n[\x1b{long}]\n", f"[\x1b{long}]\nk.a=1\nk.a=2\n"):
        with pytest.raises(ConfigurationError) as caught:
            parse_section(text, "s", {})
        (problem,) = caught.value.problems
        assert r"[\x1bxxx" in problem
        assert problem.isprintable()
        assert len(problem) < 400


def test_marks_nuls_and_other_ends_of_lines_show_nothing(tmp_path: Path) -> None:
    """A file from another system is read, or told by its lines, without what is in them."""
    path = tmp_path / "other.ini"
    good = f"[s]\nk = c2VjcmV0\n# {_NEIGHBOUR}\n"
    for ends in ("\r\n", "\r"):
        path.write_bytes(good.replace("\n", ends).encode())
        read = read_section(path, "s", {})
        assert read.base64("k").reveal() == b"secret"
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
    """Read a file whose only key is a host."""
    read = read_section(path, "s", {})
    read.host("k")
    read.finish()


# --- comments ---


@pytest.mark.parametrize("kind", _READERS)
@pytest.mark.parametrize("comment", [" ; the big disk", " # hunter2", "\t;", "  #x"])
def test_a_comment_beside_a_value_is_a_mistake(kind: str, comment: str) -> None:
    """No value silently takes a comment in; nothing of the comment is shown, and of a secret nothing."""
    good, reader = _READERS[kind]
    read = section(k=good + comment)
    reader(read)
    problem = refused(read)
    assert " has a comment beside it, which needs a line of its own; expected " in problem
    assert "disk" not in problem
    assert "hunter2" not in problem
    if kind in {"text", "base64"}:
        assert ascii(good) not in problem


def test_a_comment_in_place_of_a_value_is_a_mistake() -> None:
    """Whoever writes a comment where nothing else is doesn't get it for a value."""
    for comment in ("; none", "#none"):
        read = section(k=comment)
        read.text("k", pattern=".*", expected="anything")
        assert "has a comment beside it" in refused(read)


def test_what_looks_like_a_comment_can_come_from_the_environment() -> None:
    """A path that has to be so can be given in a variable; without a blank before it nothing is a comment."""
    read = section({"DISK": "/vol/disk #2"}, k="$DISK", l="/vol/disk#2;a")
    assert read.text("k", pattern=".*", expected="a path") == "/vol/disk #2"
    assert read.text("l", pattern=".*", expected="a path") == "/vol/disk#2;a"
    assert problems(read) == ()
