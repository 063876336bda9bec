"""Extracts the examples of the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The folder that README.md, CONTRIBUTING.md and docs/ are in.
TOP: Final = Path(__file__).parents[2]

#: Documents whose examples are tried.
DOCUMENTS: Final = (
    *("README.md", "CONTRIBUTING.md"),
    *sorted(f"docs/{path.name}" for path in (TOP / "docs").glob("*.md")),
)

_LINE: Final = re.compile(r"(?P<indent> *)(?:```(?P<language>\S*)|(?P<level>#{2,3}) (?P<heading>.*))")

#: First line of a block that is a file.
_FILE: Final = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    """A block of code.

    Attributes:
        document: A name of `DOCUMENTS`.
        heading: The heading that it stands under, of the second or third level.
        language: What it is written in.
        line: The number of its first line.
        text: Its text.
    """

    document: str
    heading: str
    language: str
    line: int
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file in its first line, if it is a file."""
        found = _FILE.match(self.text)
        return found and found[1]

    @property
    def commands(self) -> list[str]:
        """Its commands, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line and not line.startswith("#")]


def blocks(document: str, *languages: str, heading: str | None = None) -> list[Block]:
    """Return the blocks of a document.

    Args:
        document: A name of `DOCUMENTS`.
        languages: What they are written in; anything, if none is given.
        heading: The heading that they stand under.
    """
    found = [block for block in _blocks(document) if not languages or block.language in languages]
    return [block for block in found if heading in {None, block.heading}]


def _blocks(document: str) -> Iterator[Block]:
    heading, indent, language, start = "", "", None, 0
    lines: list[str] = []
    for number, line in enumerate((TOP / document).read_text().splitlines(), 1):
        found = _LINE.fullmatch(line)
        if language is not None:
            if found and found["language"] == "":
                yield Block(document, heading, language, start, "".join(lines))
                language = None
            else:
                lines.append(line.removeprefix(indent) + "\n")
        elif found and found["level"]:
            heading = found["heading"]
        elif found:
            indent, language, start, lines = found["indent"], found["language"], number + 1, []
    assert language is None, f"{document}: the block at line {start} has no end"
