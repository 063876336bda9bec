"""The spool: segment files in a directory that services and their publisher share.

- `format` defines what a segment looks like, and finds the whole records in one.
- `directory` and `open_directory` hold all that touches the files, and check the folder that they are in.
- `permissions` decides what that folder must look like; `problems` has the words for what is wrong with it.
- `file_systems` decides which file systems a spool may be on.
- `segment` is a file that a process appends to; `writer` starts segments and appends events.
"""

from __future__ import annotations

#: The name for an unknown format of events.
UNKNOWN_FORMAT = "unknown"

#: Smallest `max_size` of a spool in bytes: with less, one writer's last segment would fill it.
MIN_SPOOL_SIZE = 1024 * 1024
