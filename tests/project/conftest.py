"""Most of these tests read files of the project, and find the same on each Python."""

from __future__ import annotations

from typing import Final

import pytest

#: Files with tests that run code of the package, or examples of the documents.
RUN_CODE: Final = {"test_documents.py", "test_event_types.py", "test_values.py", "test_vectors.py"}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark them: other tests run the same code, and for those that only read files, one Python is enough."""
    item.add_marker(pytest.mark.unmeasured)
    if item.path.name not in RUN_CODE:
        item.add_marker(pytest.mark.one_python)
