"""Segments that must be synced, and those whose sync fails."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.spool_scene import Scene


def test_what_was_written_is_synced_once(scene: Scene) -> None:
    """A segment is synced while it has undelivered events; names are synced for new segments."""
    writer = scene.writer()
    name = writer.put([b"1"])
    assert scene.reader.sync() == []
    assert scene.files.synced == {name: (scene.folder / name).stat().st_size}
    assert name in scene.files.named
    calls = scene.files.calls
    assert (calls["sync"], calls["sync_names"]) == (1, 1)
    scene.deliver()
    assert scene.reader.sync() == []
    writer.put([b"2"])
    assert scene.reader.sync() == []
    assert (calls["sync"], calls["sync_names"]) == (2, 1)
    scene.deliver()
    writer.put([b"3"])
    scene.deliver()
    assert scene.reader.sync() == []
    assert (calls["sync"], calls["sync_names"]) == (2, 1), "all of it is delivered"


def test_what_could_not_be_synced_is_reported_once(scene: Scene) -> None:
    """After a failed sync a segment isn't synced again; others are, and all events are read."""
    bad, good = scene.writer(), scene.writer()
    name = bad.put([b"1"])
    good.put([b"2"])
    scene.files.broken = {"sync": {name: errno.EIO}}
    assert scene.reader.sync() == [bad.identity]
    scene.files.broken = {}
    bad.put([b"3"])
    good.put([b"4"])
    assert scene.reader.sync() == []
    assert scene.files.calls["sync"] == 3
    assert name not in scene.files.synced
    assert scene.reader.take_rest(bad.identity).events == [b"1", b"3"]
    assert scene.payloads() == [b"2", b"4"]


def test_names_that_could_not_be_synced_are_of_new_segments(scene: Scene) -> None:
    """If names can't be synced, their segments are reported, and later names are synced."""
    first, second = scene.writer(), scene.writer()
    first.put([b"1"])
    assert scene.reader.sync() == []
    second.put([b"2"])
    first.put([b"3"])
    scene.files.broken = {"sync_names": {"": errno.EIO}}
    assert scene.reader.sync() == [second.identity]
    scene.files.broken = {}
    third = scene.writer()
    name = third.put([b"4"])
    assert scene.reader.sync() == []
    assert name in scene.files.named


def test_a_segment_that_cannot_be_opened_is_no_failed_sync(scene: Scene) -> None:
    """A segment that is gone or unreadable is set aside, and synced when it is readable again."""
    writer = scene.writer()
    name = writer.put([b"1"])
    scene.files.broken = {"open": {name: errno.EIO}}
    assert scene.reader.sync() == []
    assert scene.reader.status().aside == {"unreadable": 1}
    scene.files.broken = {}
    scene.clock.sleep(10)
    assert scene.payloads() == [b"1"]
    assert scene.reader.sync() == []
    assert name in scene.files.synced
