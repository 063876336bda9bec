"""What a newcomer reads is true: the architecture page, the maps of folders, the decisions, and all links."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import baseplate_events
from tests.support.documents import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(baseplate_events.__file__).parent

PAGE: Final = (TOP / "docs" / "architecture.md").read_text()

#: Folders that paths of the page may begin in, in this order.
STARTS: Final = (PACKAGE, PACKAGE / "event_publisher", PACKAGE.parent, TOP, TOP / "docs")

#: A path of a module or a folder, in prose or in the picture. Parts in capitals stand for a user's.
PATH: Final = re.compile(r"(?<![\w/$*.-])((?:[a-z_0-9]+/)*(?:[a-z_0-9]+\.(?:py|md)|[a-z_0-9]+/))(?![\w/*])")

#: A function or method, and the module that it is in.
FUNCTION: Final = re.compile(r"`(\w+)` (?:in|of) `([\w/]+\.py)`")

#: A line of a folder's map: the name of a module, or of a folder with a slash, and what it is for.
MAP_LINE: Final = re.compile(r"^ {4}(\w+)/? {2,}\S", re.MULTILINE)

#: A name in the text of a map.
NAME: Final = re.compile(r"`([a-z_]+)`")

DECISIONS: Final = sorted((TOP / "docs" / "decisions").glob("[0-9]*.md"))

#: Markdown that is read as pages.
PAGES: Final = sorted(
    str(path.relative_to(TOP))
    for part in ("*.md", "docs/**/*.md", "tests/**/*.md")
    for path in TOP.glob(part)
)

#: A link of Markdown to another page, or within one.
LINK: Final = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")


def folders() -> dict[str, Path]:
    """Return the folders of the package by their paths in it; the package itself is an empty path."""
    return {
        str(path.parent.relative_to(PACKAGE)).removeprefix("."): path.parent
        for path in sorted(PACKAGE.rglob("__init__.py"))
    }


def modules_of(folder: Path) -> set[str]:
    """Return the names of the modules and folders in a folder."""
    inner = {path.parent.name for path in folder.glob("*/__init__.py")}
    return inner | {path.stem for path in folder.glob("*.py")} - {"__init__"}


def text_of(folder: Path) -> str:
    """Return the docstring of a folder."""
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text()), clean=False) or ""


def names_of(text: str) -> set[str]:
    """Return the names that a docstring has in its map, and in backquotes."""
    return {*MAP_LINE.findall(text), *NAME.findall(text)}


#: All modules and folders of the package.
MODULES: Final = {name for folder in folders().values() for name in modules_of(folder)}

#: The folders whose docstring is a map.
MAPS: Final = [name for name, folder in folders().items() if names_of(text_of(folder)) & modules_of(folder)]


def paths_of(page: str) -> set[str]:
    """Return the paths that a page names."""
    return set(PATH.findall(page))


def slugs(page: str) -> Iterator[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    code = False
    for line in page.splitlines():
        code ^= line.lstrip().startswith("```")
        found = None if code else re.fullmatch(r"#{1,6} (.*)", line)
        if found:
            yield re.sub(r"[^\w\- ]", "", found[1].lower()).replace(" ", "-")


def test_the_page_names_what_exists() -> None:
    """Each module and folder that the architecture page names is there."""
    found = paths_of(PAGE)
    assert {"events.py", "policy/outcome.py", "event_publisher/", "docs/protocol.md"} <= found
    assert [] == sorted(path for path in found if not any((start / path).exists() for start in STARTS))


def test_the_page_names_functions_that_exist() -> None:
    """Each function that it names with a module is defined there."""
    found = FUNCTION.findall(PAGE)
    assert found
    for name, path in found:
        assert re.search(rf"^ *def {name}\(", (PACKAGE / path).read_text(), re.MULTILINE), (name, path)


def test_the_page_has_every_part() -> None:
    """It names each folder of the package, and each module of the path of an event."""
    paths = paths_of(PAGE)
    parts = {name for name in folders() if name and "/" not in name}
    assert {f"{part}/" for part in parts} - paths == set()
    policy = modules_of(PACKAGE / "event_publisher" / "policy") - {"span", "byte_ranges"}
    assert {name for name in policy if not any(path.endswith(f"policy/{name}.py") for path in paths)} == set()


def test_these_folders_have_maps() -> None:
    """The folders in which a newcomer would be lost have a map."""
    needed = {"event_publisher", "spool", "transport"}
    assert needed | {f"event_publisher/{name}" for name in ("policy", "ledger", "spool_reader")} <= set(MAPS)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_complete(name: str) -> None:
    """A docstring that names modules of its folder names all of them."""
    folder = folders()[name]
    assert modules_of(folder) - names_of(text_of(folder)) == set()


@pytest.mark.parametrize("name", MAPS)
def test_a_map_names_what_exists(name: str) -> None:
    """Each line of a map is about a module of the folder; what else is in backquotes exists as well."""
    folder = folders()[name]
    text = text_of(folder)
    assert set(MAP_LINE.findall(text)) <= modules_of(folder) | {"__main__"}
    source = "\n".join(path.read_text() for path in folder.glob("*.py"))
    others = set(NAME.findall(text)) - MODULES
    assert {other for other in others if f"def {other}(" not in source} == set()


def test_decisions_are_numbered() -> None:
    """The records have the numbers from 1 on, in their names and titles, and the index lists each title."""
    index = (TOP / "docs" / "decisions" / "README.md").read_text()
    for number, path in enumerate(DECISIONS, 1):
        title = re.match(r"# (\d+)\. (.+)\n\nStatus: ", path.read_text())
        assert title, f"{path.name} must begin with `# NUMBER. TITLE` and `Status: `"
        assert (f"{number:04}", str(number)) == (path.name[:4], title[1])
        assert f"| [{number:04}]({path.name}) | {title[2]} |" in index


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.name)
def test_a_decision_has_its_headings(path: Path) -> None:
    """A record says what the question was, what was decided, and what follows, on a page."""
    lines = path.read_text().splitlines()
    assert [h for h in ("## Context", "## Decision", "## Consequences") if h not in lines] == []
    assert len(lines) <= 60


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_somewhere(page: str) -> None:
    """The file of each link exists, and so does the heading."""
    text = (TOP / page).read_text()
    for link in LINK.findall(re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)):
        path, _, anchor = link.partition("#")
        target = TOP / page if not path else (TOP / page).parent / path
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in slugs(target.read_text()), f"{page}: {link}"
