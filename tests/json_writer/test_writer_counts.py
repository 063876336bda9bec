"""Which keys of dicts get a function of their own, after how many dicts. The text is the same either way.

Keys that count how often they are hashed show which dicts are looked up. No test depends on time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from baseplate_events.json_writer import writer
from baseplate_events.json_writer.writer import JsonWriters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Compiled:
    """The dicts whose keys got functions of their own, in order."""

    def __init__(self) -> None:
        self.samples: list[dict[str, Any]] = []

    @property
    def names(self) -> list[str]:
        """The first key of each."""
        return [next(iter(sample)) for sample in self.samples]


@pytest.fixture
def compiled() -> Iterator[Compiled]:
    """Note what is compiled."""
    notes = Compiled()
    compile_keys: Callable[..., Callable[[Any], str]] = vars(writer)["compile_keys"]

    def note(sample: dict[str, Any], *arguments: Any) -> Callable[[Any], str]:  # noqa: ANN401 - handed on
        notes.samples.append(sample)
        return compile_keys(sample, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writer, "compile_keys", note)
        yield notes


class Key(str):
    """A text that counts how often any of its class is hashed."""

    __slots__ = ()
    hashed = 0

    def __hash__(self) -> int:
        Key.hashed += 1
        return super().__hash__()


def are_looked_up(write: Callable[[Any], str], names: Sequence[str]) -> list[bool]:
    """Write a dict for each name, and return whether it was looked up.

    They aren't plain, as their keys aren't of type str. Writers for what is within would look them up again.
    """
    found: list[bool] = []
    for name in names:
        event = {Key(name): 1}
        before = Key.hashed
        assert write(event) == f'{{"{name}":1}}'
        found.append(Key.hashed > before)
    return found


def fresh(count: int, prefix: str = "k") -> list[str]:
    """Return so many names."""
    return [f"{prefix}{number}" for number in range(count)]


def write_until_compiled(write: Callable[[Any], str], compiled: Compiled, name: str) -> int:
    """Write the same keys until they have a function, and return how many dicts that took; then one more."""
    for times in range(1, 1_000):
        assert write({name: times}) == f'{{"{name}":{times}}}'
        if name in compiled.names:
            assert write({name: 0}) == f'{{"{name}":0}}'
            return times
    raise AssertionError


def test_keys_get_a_function_with_the_32nd_dict(compiled: Compiled) -> None:
    """One dict in four is counted, eight times."""
    write = JsonWriters()[dict]
    assert write_until_compiled(write, compiled, "a") == 32
    assert write_until_compiled(write, compiled, "b") == 32
    for _ in range(100):
        write({"a": 1})
    assert compiled.names == ["a", "b"]


def test_keys_that_come_by_turns_are_counted_each(compiled: Compiled) -> None:
    """A dict counts for its own keys, and one that has a function isn't counted."""
    write = JsonWriters()[dict]
    for name in ("a", "b"):
        for _ in range(7 * 4):
            write({name: 1})
    assert compiled.names == []
    assert write_until_compiled(write, compiled, "b") == 4
    for _ in range(9):
        write({"b": 1})
    assert write_until_compiled(write, compiled, "a") == 4


def test_empty_dicts_are_known(compiled: Compiled) -> None:
    """They need no function, and don't count."""
    write = JsonWriters()[dict]
    for _ in range(100):
        assert write({}) == "{}"
    assert compiled.names == []
    assert write_until_compiled(write, compiled, "a") == 32


@pytest.mark.parametrize(("members", "times"), [(64, 1), (65, 0)])
def test_a_dict_of_64_members_can_have_a_function(members: int, times: int, compiled: Compiled) -> None:
    """Larger ones can't."""
    write = JsonWriters()[dict]
    event = dict.fromkeys(fresh(members), 1)
    for _ in range(100):
        assert write(event) == json.dumps(event, separators=(",", ":"))
    assert len(compiled.samples) == times


def test_255_sets_of_keys_have_functions(compiled: Compiled) -> None:
    """And the empty one; no others after that."""
    write = JsonWriters()[dict]
    for name in fresh(255):
        assert write_until_compiled(write, compiled, name) == 32
    for name in fresh(3, "more"):
        for _ in range(100):
            write({name: 1})
    assert len(compiled.samples) == 255


def test_dicts_are_not_looked_up_after_64_that_had_no_function() -> None:
    """Then one in eight is."""
    write = JsonWriters(within=True)[dict]
    assert are_looked_up(write, fresh(64 + 3 * 8)) == [True] * 64 + ([False] * 7 + [True]) * 3


def test_a_dict_with_a_function_ends_that(compiled: Compiled) -> None:
    """From then on all are looked up, until there were 64 again."""
    write = JsonWriters(within=True)[dict]
    write_until_compiled(write, compiled, "known")
    for prefix in "ab":
        assert are_looked_up(write, fresh(72, prefix)) == [True] * 64 + [False] * 7 + [True]
        assert are_looked_up(write, ["known"] * 9) == [False] * 7 + [True] * 2


def test_each_dict_that_is_looked_up_then_is_counted(compiled: Compiled) -> None:
    """So keys that come again have a function after eight of these."""
    write = JsonWriters()[dict]
    for name in fresh(64):
        write({name: 1})
    assert write_until_compiled(write, compiled, "a") == 8 * 8


@pytest.mark.parametrize(("others", "times"), [(255, 4), (256, 32)])
def test_256_sets_of_keys_are_counted_at_the_same_time(others: int, times: int, compiled: Compiled) -> None:
    """With one more, counting starts over."""
    write = JsonWriters()[dict]
    write_until_compiled(write, compiled, "known")

    def count(name: str, times: int) -> None:
        for _ in range(times):
            for _ in range(4):
                write({name: 1})
            write({"known": 1})

    count("a", 7)
    for name in fresh(others):
        count(name, 1)
    assert write_until_compiled(write, compiled, "a") == times


def test_dicts_with_other_keys_have_no_function_of_their_own(compiled: Compiled) -> None:
    """They are known, and handed to the encoder of `json`."""
    write = JsonWriters(within=True)[dict]
    for _ in range(64):
        assert write({1: 2, "a": None}) == '{"1":2,"a":null}'
    assert compiled.samples == []
    assert are_looked_up(write, fresh(64))[-1]


def test_keys_that_change_meanwhile_get_no_function(compiled: Compiled) -> None:
    """Another thread may have added one since the dict was looked up."""
    write = JsonWriters()[dict]
    event: dict[str, int] = {}

    class Late(str):
        """Adds a member when it is compared with the keys that are counted."""

        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            event["added"] = 1
            return super().__eq__(other)

        __hash__ = str.__hash__

    for _ in range(31):
        write({"a": 1})
    event[Late("a")] = 1
    assert write(event) == '{"a":1,"added":1}'
    assert compiled.samples == []
    assert write_until_compiled(write, compiled, "a") == 32
