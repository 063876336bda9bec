from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tests.support.queues import open_files
from tests.support.spool_scene import Scene

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def scene() -> Generator[Scene]:
    """A spool; nothing must be left open."""
    gc.collect()  # what earlier tests have left
    before = open_files()
    scene = Scene()
    yield scene
    scene.close()
    assert open_files() <= before
