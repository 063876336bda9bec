"""The commands and examples of docs/operations.md, extracted from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

GUIDE: Final = Path(__file__).parent.parent.parent / "docs" / "operations.md"


def guide(heading: str, language: str = "console") -> list[str]:
    """Return the blocks of commands under a heading of the third level, in their order.

    Args:
        heading: The heading.
        language: That of the blocks; `console` for commands, `yaml` for parts of manifests.

    Raises:
        AssertionError: There is none.
    """
    found = re.search(rf"(?ms)^### {re.escape(heading)}$(.*?)(?=^###? |\Z)", GUIDE.read_text())
    assert found is not None, f"{GUIDE} has no section {heading!a}"
    blocks: list[str] = re.findall(rf"(?ms)^```{language}\n(.*?)^```$", found[1])
    assert blocks, f"the section {heading!a} has no block of {language}"
    return blocks
