"""The commands of docs/operations.md, taken out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

GUIDE: Final = Path(__file__).parent.parent.parent / "docs" / "operations.md"


def guide(heading: str) -> list[str]:
    """Return the blocks of commands under a heading of the third level, in their order.

    Raises:
        AssertionError: There is none.
    """
    found = re.search(rf"(?ms)^### {re.escape(heading)}$(.*?)(?=^###? |\Z)", GUIDE.read_text())
    assert found is not None, f"{GUIDE} has no section {heading!a}"
    blocks: list[str] = re.findall(r"(?ms)^```console\n(.*?)^```$", found[1])
    assert blocks, f"the section {heading!a} has no commands"
    return blocks
