"""What the README says of settings and exceptions is what the package has."""

from __future__ import annotations

from pathlib import Path

import pytest

import baseplate_events
from baseplate_events import errors
from baseplate_events.event_publisher.config.options import OPTIONS, Option

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("key", OPTIONS, ids=lambda key: key.name)
def test_every_key_is_in_the_table(key: Option) -> None:
    """The table of the README has a row for each key, with its default and meaning."""
    default = "required" if key.default is None else f"`{key.default}`" if key.default else ""
    assert f"| `{key.name}` | {default} | {key.meaning} |" in README.read_text()


def test_every_exception_is_told() -> None:
    """The README names every exception that a service can meet."""
    text = README.read_text()
    names = [name for name in vars(errors) if name.startswith("Event")]
    assert [name for name in names if f"`{name}" not in text] == []
    assert set(names) <= set(baseplate_events.__all__)
