"""Segments of a spool that a test makes itself, with whatever is in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from baseplate_events.spool.format import Encoder, Header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_segment(
    folder: Path,
    events: Sequence[bytes] = (),
    *,
    event_format: str = "2",
    refusals: Mapping[str, int] | None = None,
    created: int = 1_700_000_000 * 10**9,
    head: bytes | None = None,
) -> Path:
    """Write a segment, and return its path.

    Args:
        folder: The spool, which exists.
        events: The events in it.
        event_format: What its header says.
        refusals: What a report of refusals in it says; None for no report.
        created: When it was started, in nanoseconds since 1970.
        head: What it begins with instead of its header.
    """
    header = Header(event_format, os.urandom(16))
    encoder = Encoder(header)
    records = [encoder.encode(event) for event in events]
    if refusals is not None:
        records.insert(0, encoder.encode_refusals(refusals))
    path = folder / f"{created:020d}-{os.urandom(8).hex()}-{header.identity.hex()}.segment"
    # Published whole, as by a writer: a reader deletes a segment that is empty and that no one has open.
    draft = folder.parent / path.name
    draft.write_bytes((header.encode() if head is None else head) + b"".join(records))
    draft.rename(path)
    return path
