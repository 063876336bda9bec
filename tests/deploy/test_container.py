"""The container file, as a linter sees it."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

from tests.deploy.systems import DEPLOY


def test_the_linter_finds_nothing() -> None:
    """Hadolint finds nothing to better in the container file, whatever its weight."""
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", "--failure-threshold=ignore", DEPLOY / "container" / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
