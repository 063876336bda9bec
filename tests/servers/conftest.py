"""These tests need the servers that they run; where one isn't installed, they aren't collected."""

from __future__ import annotations

import importlib.util

_SERVERS = ("gevent", "gunicorn", "uvicorn")

collect_ignore_glob = [] if all(map(importlib.util.find_spec, _SERVERS)) else ["test_*.py"]
