"""What the README says of settings and exceptions is what the package has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import baseplate_events
from baseplate_events import errors
from baseplate_events.event_publisher.config.options import OPTIONS

if TYPE_CHECKING:
    from baseplate_events.event_publisher.config.declare import Option

FOLDER = Path(__file__).parents[2]
README = FOLDER / "README.md"


def row(option: Option[Any]) -> str:
    """Return an option's row of the table."""
    default = "required" if option.default is None else f"`{option.default}`" if option.default else ""
    return f"| `{option.name}` | {default} | {option.meaning} |"


def test_the_table_is_that_of_the_options() -> None:
    """The README's table is made of the declarations: if this fails, copy the rows from the message."""
    expected = "\n".join(["| option | default | meaning |", "|---|---|---|", *map(row, OPTIONS)])
    found = README.read_text().partition("| option | default |")
    table = (found[1] + found[2]).partition("\n\n")[0]
    assert table == expected, f"expected in {README.name}:\n{expected}"


@pytest.mark.parametrize("name", ["README.md", "docs/operations.md"])
def test_documents_name_what_a_reload_applies(name: str) -> None:
    """The options in the sentence on reloads, less those that it excepts, are those that a reload applies."""
    text = (FOLDER / name).read_text()
    found = re.search(r"`collector\.\*`.*?(immediately|without a restart)", text, re.DOTALL)
    assert found is not None
    sentence = found[0]
    excepted = set(re.findall("except `([a-z_.]+)`", sentence))
    patterns = set(re.findall("`([a-z_.]+[*]?)`", sentence)) - excepted
    assert patterns
    named = {
        option.name
        for option in OPTIONS
        for pattern in patterns
        if option.name == pattern or (pattern.endswith("*") and option.name.startswith(pattern[:-1]))
    }
    assert named - excepted == {option.name for option in OPTIONS if option.reload}


def test_every_exception_is_described() -> None:
    """The README names every exception that a service can meet."""
    text = README.read_text()
    names = [name for name in vars(errors) if name.startswith("Event")]
    assert [name for name in names if f"`{name}" not in text] == []
    assert set(names) <= set(baseplate_events.__all__)
