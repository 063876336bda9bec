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


@pytest.mark.parametrize(("more", "looks"), [(b"", 0), (b"\xff", 1), (ENCODER.encode(b"pending")[:-1], 1)])
def test_whole_events_are_found_in_the_fast_way(
    more: bytes, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is behind them is looked at closely."""
    found: list[int] = []
    parse_at = vars(SegmentParser)["_parse_at"]

    def note(parser: SegmentParser, data: bytes, at: int) -> object:
        found.append(at)
        return parse_at(parser, data, at)

    monkeypatch.setattr(SegmentParser, "_parse_at", note)
    data = ENCODER.encode(b"one") + ENCODER.encode(b"")
    (run,) = SegmentParser(HEADER, len(ENCODER.header)).feed_runs(data + more)
    assert run.payloads == [b"one", b""]
    assert found == [len(data)] * looks
