"""Words that this project no longer uses, in prose, log lines and messages.

`python -m tests.project.test_words` lists them with their places.

Not in the list, as only a reader can judge them: "where" for "if", "in all", "as long as" and "the original".
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import baseplate_events
from tests.support.documents import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(baseplate_events.__file__).parent

#: What is searched, besides the package: files and folders.
PARTS: Final = (".ci", "benchmarks", "deploy", "docs", "tests", "pyproject.toml", "tox.ini")

#: What a compiler wrote, what is data, and the list itself.
LEFT_OUT: Final = ("tests/schemas/", "tests/vectors/", "tests/project/test_words.py")

#: Retired words as regular expressions, and what to write instead. A blank is any gap, also that between two
#: lines of a comment. What is between quotes alone is a name, such as that of the user `nobody`.
RETIRED: Final = {
    r"anew": "again; recreated, reopened",
    r"(?<![.\w])(?:tells?|telling|told)(?!\()": "reports, returns, logs, says; is notified",
    r"mend(?:s|ed|ing)?": "fix, correct",
    r"(?<![\"'`=:])(?:no|some)body(?![\"'`:])": "no one, someone; better: who it is",
    r"but for": "except",
    r"mean(?:s|ing)? nothing": "is ignored",
    r"without end": "until it succeeds, indefinitely",
    r"in hand": "in memory",
    r"(?:on (?:its|their) way|under way)": "in flight",
    r"ha(?:s|ve|d) (?:the|its|their) configuration read again": "reloads the configuration",
    r"takes? what there is": "reads whatever is available",
    r"can(?:'t| not|not)? be had": "is (not) available",
    r"(?:bury|buries|buried|doomed|acquit\w*|convict\w*)": "give up; at fault; write to the dead letters",
}

#: A gap between two words: blanks, or the end of a line, with what begins the next one in a comment.
GAP: Final = r"(?:[ \t]+|[ \t]*\n[ \t]*(?:#:?|//|>|-|\*)?[ \t]*)"

PATTERNS: Final = [re.compile(rf"\b{word.replace(' ', GAP)}\b", re.IGNORECASE) for word in RETIRED]


def files() -> dict[str, Path]:
    """Return the files that people read, by their paths in the project."""
    found = {f"{PACKAGE.name}/{path.relative_to(PACKAGE)}": path for path in PACKAGE.rglob("*")}
    for part in (*(path.name for path in TOP.glob("*.md")), *PARTS):
        for path in (TOP / part).rglob("*") if (TOP / part).is_dir() else [TOP / part]:
            found[str(path.relative_to(TOP))] = path
    return {
        name: path
        for name, path in sorted(found.items())
        if path.is_file() and "__pycache__" not in path.parts and not name.startswith(LEFT_OUT)
    }


def retired_words(text: str) -> Iterator[tuple[int, str]]:
    """Give the retired words in a text: the number of the line that each begins in, and the word itself."""
    for pattern in PATTERNS:
        for found in pattern.finditer(text):
            yield text.count("\n", 0, found.start()) + 1, " ".join(found[0].split())


def hits() -> list[str]:
    """Return all retired words in the project, each with its place."""
    return [
        f"{name}:{line}: {word}"
        for name, path in files().items()
        for line, word in sorted(retired_words(path.read_text(errors="replace")))
    ]


def test_no_retired_word_is_used() -> None:
    """None of the words is anywhere; the failure lists the places."""
    assert "\n".join(hits()) == ""


def test_the_search_reaches_every_part() -> None:
    """What is searched has the package, its tests and its documents, and nothing generated."""
    names = set(files())
    assert {
        "baseplate_events/events.py",
        "README.md",
        "docs/operations.md",
        "tests/conftest.py",
        "tox.ini",
    } <= names
    assert not any("schemas/plain" in name for name in names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Made anew.", ["anew"]),
        ("it tells\nwhy", ["tells"]),
        ("file.tell() and tell_owner()", []),
        ('run as "nobody", or as `nobody`', []),
        ("# nobody\n", ["nobody"]),
        ("#: It means\n#: nothing here.", ["means #: nothing"]),
        ("in_hand = 1  # what is in hand", ["in hand"]),
        ("recommend it, amend it", []),
        ("Under way, UNDER WAY", ["Under way", "UNDER WAY"]),
    ],
)
def test_words_are_found(text: str, expected: list[str]) -> None:
    """Words are found in prose, in any case and over the end of a line, and not in names."""
    assert sorted(word for _, word in retired_words(text)) == sorted(expected)


if __name__ == "__main__":
    sys.stdout.writelines(f"{hit}\n" for hit in hits())
