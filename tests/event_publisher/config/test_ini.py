from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.config.ini import Section, parse_section, read_section
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
