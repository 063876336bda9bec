"""Sphinx: README.md, the guides and the docstrings of the package as a web site.

`tox -e docs` builds it. The sources are the files as GitHub shows them, so nothing is written twice: links
between them lead to pages here, and what isn't a page is a download.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from baseplate_events import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "baseplate-events"
author = "The baseplate-events maintainers"
release = version = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]

#: The folder above this one is the source, of which these files are pages.
include_patterns = ["*.md", "docs/**", "tests/README.md", "tests/vectors/README.md"]
root_doc = "README"

# Headings have the anchors that GitHub gives them.
myst_heading_anchors = 4

# Docstrings are Google's style in plain text, and have code in single backquotes.
default_role = "py:obj"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"baseplate-events {__version__}"
html_copy_source = False

#: The navigation: what README.md has as its sections elsewhere.
NAVIGATION: Final = {
    "Guides": (
        *("docs/services", "docs/operations", "docs/migrating", "docs/protocol", "docs/speed"),
        "CHANGELOG",
    ),
    "Reference": ("docs/api/library", "docs/api/errors", "docs/api/testing", "docs/api/dev_collector"),
    "Project": (
        *("CONTRIBUTING", "docs/architecture", "docs/decisions/README", "tests/README"),
        *("tests/vectors/README", "docs/releasing", "SECURITY"),
    ),
}


def add_navigation(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the first page, and that of the decisions, the pages below them, which GitHub has no use for."""
    if docname == root_doc:
        for caption, pages in NAVIGATION.items():
            options = (":hidden:", f":caption: {caption}")
            source[0] += toctree(*(f"/{page}" for page in pages), options=options)
    elif docname == "docs/decisions/README":
        source[0] += toctree("*", options=(":hidden:", ":glob:"))


def toctree(*pages: str, options: tuple[str, ...]) -> str:
    """Return a table of contents in MyST."""
    return "\n".join(("", "```{toctree}", *options, "", *pages, "```", ""))


def keep_colons(_app: Sphinx, what: str, _name: str, _obj: object, _: object, lines: list[str]) -> None:
    """Have napoleon take the first line of a property for text, not for `type: description`."""
    if what == "property":
        lines.insert(0, "\\")  # an escaped end of line, which is nothing


def add_index(app: Sphinx, exception: Exception | None) -> None:
    """Have the folder itself lead to the first page."""
    if exception is None:
        page = f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
        Path(app.outdir, "index.html").write_text(page)


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon
    app.connect("build-finished", add_index)
