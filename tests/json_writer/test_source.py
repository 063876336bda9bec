"""Which dicts get functions of their own within another one's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from baseplate_events.json_writer import source
from baseplate_events.json_writer.writer import JsonWriters

if TYPE_CHECKING:
    from collections.abc import Callable


def members(count: int) -> dict[str, int]:
    """Make a dict of so many members."""
    return {f"k{number}": number for number in range(count)}


@pytest.mark.parametrize(
    ("sample", "compiled"),
    [
        ({"a": 1}, 1),
        ({"a": {}}, 1),
        ({"a": {1: 2}}, 1),
        ({"a": members(1)}, 2),
        ({"a": members(32)}, 2),
        ({"a": members(33)}, 1),
        ({"a": members(20), "b": members(13), "c": members(12)}, 3),
        ({"a": {"b": members(31)}}, 3),
        ({"a": {"b": members(32)}}, 2),
        ({"a": [members(1)]}, 2),
        ({"a": [members(1)] * 8}, 2),
        ({"a": [members(1)] * 9}, 1),
        ({"a": ["x"]}, 1),
        ({"a": [1]}, 1),
        ({"a": []}, 1),
    ],
)
def test_dicts_within_have_32_members_together(
    sample: dict[str, object], compiled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that have more, and of empty ones, only the writer of dicts knows; the text is the same."""
    calls = 0
    compile_keys = source.compile_keys

    def count(*arguments: Any) -> Callable[[Any], str]:  # noqa: ANN401 - handed on
        nonlocal calls
        calls += 1
        return compile_keys(*arguments)

    monkeypatch.setattr(source, "compile_keys", count)
    writers = JsonWriters()
    write = source.compile_keys(sample, writers, writers[list])
    assert calls == compiled
    assert write(sample) == writers[dict](sample)
    values: list[object] = [{"other": 5}, [], ["x", 5, {}], [members(1)] * 9, ("x",)]
    for value in (*values, [{"k0": 1}, {"k0": values}, {"other": 1}]):
        other = dict.fromkeys(sample, value)
        assert write(other) == writers[dict](other)
