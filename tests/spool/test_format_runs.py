"""How the parser groups events: those of one piece are one run, whatever the size of the last."""

from __future__ import annotations

import pytest

from baseplate_events.spool.format import EVENT, Encoder, Header, SegmentParser

HEADER = Header("2j", bytes(range(16)))
ENCODER = Encoder(HEADER)


@pytest.mark.parametrize(
    "payloads", [[b""], [b"x"], [b"", b""], [b"a", b""], [b"", b"a"], [b"a", b"bc", b"d"]]
)
@pytest.mark.parametrize("cut", [0, 1, 16, 17])
def test_whole_events_are_one_run(payloads: list[bytes], cut: int) -> None:
    """So are those before one that isn't whole yet."""
    parser = SegmentParser(HEADER, len(ENCODER.header))
    start = parser.position
    data = b"".join(ENCODER.encode(payload) for payload in payloads)
    more = ENCODER.encode(b"pending")[:cut]
    (run,) = parser.feed_runs(data + more)
    assert run == (EVENT, payloads, start, start + len(data))
    assert (parser.position, parser.torn) == (start + len(data), 0)
