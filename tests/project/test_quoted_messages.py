"""The messages that the guide for operators quotes are messages of the package."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import baseplate_events
from tests.support.documents import TOP

#: What stands for a value in a quotation.
GAP = "…"


@cache
def texts() -> list[str]:
    """Return all texts in the package's code, with gaps for values."""
    found: list[str] = []
    for path in sorted(Path(baseplate_events.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quotations() -> list[str]:
    """Return the messages that the table of the spool quotes."""
    guide = (TOP / "docs" / "operations.md").read_text()
    table = guide.partition("| you see | ")[2].partition("\n\n")[0]
    cells = [row.split(" | ")[0] for row in table.splitlines()]
    return [quotation for cell in cells for quotation in re.findall('"([^"]+)"', cell)]


def unknown(quotation: str, known: list[str]) -> list[str]:
    """Return the parts of a quotation, between gaps, that no text has; gaps may join several messages."""
    parts = [part.strip() for part in quotation.split(GAP)]
    return [part for part in parts if not any(part in text for text in known)]


@pytest.mark.parametrize("quotation", quotations())
def test_a_quoted_message_exists(quotation: str) -> None:
    """What an operator searches for in the guide is what the log says."""
    assert unknown(quotation, texts()) == []


def test_another_wording_is_found() -> None:
    """A quotation that no message has is reported, and there are quotations to check."""
    made = ", and a new one is made"
    assert unknown(f"the ledger … is kept as …{made}", texts()) == [made]
    assert len(quotations()) > 5
