"""The command `doctor`: find out what keeps events from flowing, and what mends it.

`checks` judges what was found, and is pure; `host`, `network`, `metrics` and `storage` find it.
"""

from __future__ import annotations

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
